//! What the process is: limits, identity, rights, program.

use super::namespaces::Namespaces;
use super::{HookStep, Input, Plan, Step, c_path, c_string, seccomp};
use crate::error::{Result, invalid};
use crate::hooks;
use oci_spec::runtime::{
    Capabilities as CapSet, Capability, Hook, IOPriorityClass, LinuxNamespaceType as Ns, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, LinuxSeccomp, PosixRlimitType, Process, Scheduler, Spec,
};
use orlop_sys::process::{Capabilities, SchedAttr, Strings};
use std::str::FromStr;

/// The PATH of execvp(3) when the environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// CAP_SYS_ADMIN's bit: seccomp(2) without no_new_privs asks for it.
const SYS_ADMIN: u64 = 1 << 21;

/// As many CPUs as the kernel can be built for (CONFIG_NR_CPUS); it leaves out those that there are not.
pub(super) const ALL_CPUS: [u64; 128] = [u64::MAX; 128];

const IOPRIO_CLASS_SHIFT: u32 = 13;

const RLIMIT_NOFILE: u32 = 7;
/// Its number in capability masks (capabilities(7)).
const CAP_SYS_RESOURCE: u32 = 24;

impl Plan {
    /// Raising a hard limit is a right of the host's root: done before a user namespace takes it away, or by the parent.
    /// `files`: how many the set-up itself may have open at once.
    pub(super) fn limits(&mut self, process: &Process, new_user: bool, files: u64, input: &Input) {
        for (i, r) in process.rlimits().iter().flatten().enumerate() {
            let (resource, mut soft, mut hard) = (rlimit_number(r.typ()), r.soft(), r.hard());
            if resource == RLIMIT_NOFILE && soft < files {
                // Set when all is closed again. Now only what needs rights that may be gone by then: raising the hard limit.
                self.late_files = Some((i, soft, hard));
                if hard < files && input.grantable & (1 << CAP_SYS_RESOURCE) == 0 {
                    continue;
                }
                (soft, hard) = (files, hard.max(files));
            }
            if new_user {
                self.parent_rlimits.push((i, resource, soft, hard));
            } else {
                self.push(format!("process.rlimits[{i}]"), Step::Rlimit(resource, soft, hard));
            }
        }
    }

    /// The limit of open files that [`Plan::limits`] has put off.
    pub(super) fn late_files(&mut self) {
        if let Some((i, soft, hard)) = self.late_files {
            self.push(format!("process.rlimits[{i}]"), Step::Rlimit(RLIMIT_NOFILE, soft, hard));
        }
    }

    /// Lowering it is a right of the host's root too.
    pub(super) fn oom_score(&mut self, process: &Process, new_user: bool) -> Result<()> {
        let Some(score) = process.oom_score_adj() else { return Ok(()) };
        let text = c_string(score.to_string(), "process.oomScoreAdj")?;
        if new_user {
            self.parent_oom = Some(text);
        } else {
            self.push("process.oomScoreAdj", Step::ProcSelf(c"oom_score_adj", text));
        }
        Ok(())
    }

    /// Through the host's /proc/self, while it can still be reached. The files of labels are opened here and written last, so no
    /// mount of the container can come between (CVE-2019-16884, CVE-2025-52881).
    pub(super) fn open_labels(&mut self, process: &Process) {
        if set(process.apparmor_profile()).is_some() {
            self.push("process.apparmorProfile", Step::OpenLabel(c"attr/apparmor/exec"));
        } else if set(process.selinux_label()).is_some() {
            self.push("process.selinuxLabel", Step::OpenLabel(c"attr/exec"));
        }
    }

    pub(super) fn sysctls(&mut self, spec: &Spec) -> Result<()> {
        for (key, value) in spec.linux().iter().filter_map(|l| l.sysctl().as_ref()).flatten() {
            let field = format!("linux.sysctl.{key}");
            let path = c_string(sysctl_path(key), &*field)?;
            let value = c_string(value.as_str(), &*field)?;
            self.push(field, Step::Sysctl(path, value));
        }
        Ok(())
    }

    pub(super) fn names(&mut self, spec: &Spec) -> Result<()> {
        if let Some(name) = set(spec.hostname()) {
            self.push("hostname", Step::Hostname(c_string(name, "hostname")?));
        }
        if let Some(name) = set(spec.domainname()) {
            self.push("domainname", Step::Domainname(c_string(name, "domainname")?));
        }
        Ok(())
    }

    pub(super) fn working_directory(&mut self, process: &Process) -> Result<()> {
        let path = c_path(process.cwd(), "process.cwd")?;
        if path.as_c_str() != c"/" {
            self.push("process.cwd", Step::Directory(path));
        }
        Ok(())
    }

    /// Scheduling, while the process still has the host's rights over it.
    pub(super) fn tuning(&mut self, process: &Process, spec: &Spec) -> Result<()> {
        if let Some(scheduler) = process.scheduler() {
            self.push("process.scheduler", Step::Scheduler(sched_attr(scheduler)?));
        }
        if let Some(io) = process.io_priority() {
            let class: u32 = match io.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            let level = u32::try_from(io.priority())
                .ok()
                .filter(|level| *level < 8)
                .ok_or_else(|| invalid("process.ioPriority.priority", "is not between 0 and 7"))?;
            self.push("process.ioPriority", Step::IoPriority(class << IOPRIO_CLASS_SHIFT | level));
        }
        self.memory_policy(spec)?;
        if let Some(p) = spec.linux().as_ref().and_then(|l| l.personality().as_ref()) {
            if p.flags().iter().flatten().next().is_some() {
                return Err(invalid("linux.personality.flags", "no personality flag is supported"));
            }
            let persona = match p.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            };
            self.push("linux.personality", Step::Personality(persona));
        }
        Ok(())
    }

    /// The CPUs on which exec enters the container (config.md, "execCPUAffinity": not for the container's init).
    pub(super) fn initial_affinity(&mut self, process: &Process) -> Result<()> {
        let field = "process.execCPUAffinity.initial";
        match process.exec_cpu_affinity().as_ref().and_then(|a| a.initial().as_ref()) {
            Some(cpus) => self.push(field, Step::Affinity(cpu_list(cpus, field)?)),
            None => self.push("", Step::Affinity(ALL_CPUS.to_vec())),
        }
        Ok(())
    }

    /// Those on which its process stays.
    pub(super) fn final_affinity(&mut self, process: &Process) -> Result<()> {
        let field = "process.execCPUAffinity.final";
        if let Some(cpus) = process.exec_cpu_affinity().as_ref().and_then(|a| a.cpu_affinity_final().as_ref()) {
            self.push(field, Step::Affinity(cpu_list(cpus, field)?));
        }
        Ok(())
    }

    pub(super) fn labels(&mut self, process: &Process) -> Result<()> {
        if let Some(profile) = set(process.apparmor_profile()) {
            let text = c_string(format!("exec {profile}"), "process.apparmorProfile")?;
            self.push("process.apparmorProfile", Step::WriteLabel(text));
        } else if let Some(label) = set(process.selinux_label()) {
            self.push("process.selinuxLabel", Step::WriteLabel(c_string(label, "process.selinuxLabel")?));
        }
        Ok(())
    }

    /// Bounding set, ids, working directory, capabilities: in the order in which each still has the rights it needs.
    pub(super) fn identity(&mut self, process: &Process, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        let grantable = if ns.has(Ns::User) { u64::MAX } else { input.grantable };
        let sets = process.capabilities().as_ref();
        let mut mask = |name: &str, of: Option<&CapSet>| self.grant(name, of, grantable);
        let bounding = mask("bounding", sets.and_then(|s| s.bounding().as_ref()))?;
        let permitted = mask("permitted", sets.and_then(|s| s.permitted().as_ref()))?;
        let effective = mask("effective", sets.and_then(|s| s.effective().as_ref()))?;
        let inheritable = mask("inheritable", sets.and_then(|s| s.inheritable().as_ref()))?;
        let ambient = mask("ambient", sets.and_then(|s| s.ambient().as_ref()))?;
        let ambient = self.raisable(ambient, permitted & inheritable);
        let caps = Capabilities { effective, permitted, inheritable };

        // Not the caller's: what a container does must not depend on who starts it.
        self.push("process.user.umask", Step::Umask(process.user().umask().unwrap_or(0o022)));
        // Bounding before the ids: dropping from it needs CAP_SETPCAP in effect.
        // In a user namespace it is full again, and all ids are other ones.
        let own = input.own.filter(|_| !ns.has(Ns::User));
        let held = own.map_or(u64::MAX, |own| own.bounding);
        self.push("process.capabilities.bounding", Step::Bounding(held & !bounding));
        // As root, and once more as the user, who may be the only one who can enter it; then it is checked (CVE-2024-21626).
        let cwd = c_path(process.cwd(), "process.cwd")?;
        self.push("process.cwd", Step::Chdir(cwd.clone(), false));
        let user = process.user();
        if user.uid() != 0 {
            self.push("", Step::StdioOwner(user.uid()));
        }
        let mut groups: Vec<u32> = user.additional_gids().iter().flatten().copied().collect();
        groups.sort_unstable();
        groups.dedup();
        let none = groups.is_empty() && own.is_some_and(|own| own.no_groups);
        let groups = (!none && !super::keeps_groups(spec)).then_some(groups);
        let born_so = own.is_some_and(|own| own.all_root) && (user.uid(), user.gid()) == (0, 0);
        self.push("process.user", Step::User { uid: user.uid(), gid: user.gid(), groups, born_so });
        self.push("process.cwd", Step::Chdir(cwd, true));
        self.push("process.capabilities", Step::Capabilities(caps));
        if ambient != 0 {
            self.push("process.capabilities.ambient", Step::Ambient(ambient));
        }
        Ok(())
    }

    /// The kernel raises an ambient capability only if it is permitted and inheritable; others are left out with a warning, as
    /// engines that add to one set alone have come to expect of runc.
    fn raisable(&mut self, ambient: u64, allowed: u64) -> u64 {
        for capability in caps::all().into_iter().filter(|c| ambient & !allowed & c.bitmask() != 0) {
            self.warnings.push(format!(
                "process.capabilities.ambient: can't raise ambient capability {capability}: it is not in both the permitted and the \
                 inheritable set: left out"
            ));
        }
        ambient & allowed
    }

    /// A capability that the host cannot grant is left out with a warning, as the specification says.
    fn grant(&mut self, name: &str, set: Option<&CapSet>, grantable: u64) -> Result<u64> {
        let mut mask = 0;
        for capability in set.into_iter().flatten() {
            let bit = capability_bit(*capability)?;
            if grantable & bit == 0 {
                self.warnings.push(format!(
                    "process.capabilities.{name}: CAP_{capability} cannot be granted on this host: left out"
                ));
            } else {
                mask |= bit;
            }
        }
        Ok(mask)
    }

    pub(super) fn program(&mut self, process: &Process, ns: &Namespaces, input: &Input) -> Result<()> {
        let args: Vec<&str> = process.args().iter().flatten().map(String::as_str).collect();
        let name =
            *args.first().filter(|a| !a.is_empty()).ok_or_else(|| invalid("process.args", "must not be empty"))?;
        let mut env = environment(process)?;
        if input.listen_fds > 0 {
            env.push(format!("LISTEN_FDS={}", input.listen_fds));
            env.push(format!("LISTEN_PID={}", ns.init_pid().unwrap_or(1)));
        }
        if input.notify_dir.is_some() {
            env.push("NOTIFY_SOCKET=/run/notify/notify.sock".to_string());
        }
        let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        self.programs = if name.contains('/') {
            vec![c_string(name, "process.args[0]")?]
        } else {
            let dirs = path.split(':').map(|d| if d.is_empty() { "." } else { d });
            dirs.map(|d| c_string(format!("{d}/{name}"), "process.args[0]")).collect::<Result<_>>()?
        };
        if !env.iter().any(|e| e.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
            env.retain(|e| !e.starts_with("HOME="));
            self.home = Some(env.len());
            env.push("HOME=/".to_string());
        }
        let strings = |list: Vec<&str>, field: &str| -> Result<Strings> {
            let each = list.into_iter().enumerate().map(|(i, s)| c_string(s, format!("{field}[{i}]")));
            Ok(Strings::new(each.collect::<Result<_>>()?))
        };
        self.env = strings(env.iter().map(String::as_str).collect(), "process.env")?;
        self.args = strings(args, "process.args")?;
        Ok(())
    }

    /// From the last capability change to the exec. A filter without no_new_privs needs CAP_SYS_ADMIN, and a filter
    /// must let pass all that comes after it: so that right is kept through the gate, the filter comes after the gate, and only
    /// capset(2) and execve(2) come after the filter.
    ///
    /// `open`: the caller has no rights but over the container, and may join what waits at the gate only if that is dumpable. It keeps
    /// CAP_SYS_ADMIN then, which makes it untouchable for processes of the container that have less: it has no filter yet
    /// (CVE-2016-9962). What could trace it nevertheless keeps it closed, and so does a filter that was installed already, under
    /// which nothing could be taken back.
    pub(super) fn last_steps(
        &mut self,
        process: &Process,
        profile: Option<&LinuxSeccomp>,
        input: &Input,
        open: bool,
        start_hooks: impl FnOnce(&mut Plan) -> Result<()>,
    ) -> Result<()> {
        let program = profile.map(seccomp::compile).transpose()?;
        let no_new_privs = process.no_new_privileges().unwrap_or(false);
        let open = open && !can_trace(process) && !program.as_ref().is_some_and(|p| p.notify);
        let keep = program.is_some() && !no_new_privs;
        let mut wanted = if keep || open { self.keep_sys_admin() } else { None };
        if self.home.is_some() {
            self.push("process.env", Step::Home(process.user().uid()));
        }
        self.push("process.args[0]", Step::FindProgram);
        if no_new_privs {
            self.push("process.noNewPrivileges", Step::NoNewPrivs);
        }
        self.push("", Step::CloseFrom(3 + input.preserve_fds + input.listen_fds));
        self.late_files();
        let filter = program.map(|p| Step::Seccomp(p.filter, p.flags, p.notify));
        // The agent that listens is told at create, by the parent: this filter cannot wait for the gate.
        let early = matches!(filter, Some(Step::Seccomp(_, _, true)));
        let mut filter = filter;
        if early && let Some(step) = filter.take() {
            self.push("linux.seccomp", step);
        }
        if open {
            self.push("", Step::Dumpable(true));
        }
        self.push("", Step::Ready);
        self.push("", Step::Gate);
        if open {
            self.push("", Step::Dumpable(false));
        }
        if !keep && let Some(caps) = wanted.take() {
            self.push("process.capabilities", Step::Capabilities(caps));
        }
        start_hooks(self)?;
        // Hooks in the container run under its filter, which need not allow what it takes to run them.
        if let Some(Step::Seccomp(program, flags, _)) = &filter {
            for planned in &mut self.steps {
                if let Step::Hook(h) = &mut planned.step
                    && !h.in_rootfs
                {
                    h.filter = Some((program.clone(), *flags));
                }
            }
        }
        if let Some(step) = filter {
            self.push("linux.seccomp", step);
        }
        if let Some(caps) = wanted {
            self.push("process.capabilities", Step::Capabilities(caps));
        }
        self.push("process.args[0]", Step::Exec);
        Ok(())
    }

    /// Adds CAP_SYS_ADMIN to the planned capabilities if it is missing; what was wanted is for the end.
    fn keep_sys_admin(&mut self) -> Option<Capabilities> {
        let planned = self.steps.iter_mut().rev().find_map(|p| match &mut p.step {
            Step::Capabilities(caps) => Some(caps),
            _ => None,
        })?;
        if planned.effective & SYS_ADMIN != 0 {
            return None;
        }
        let wanted = *planned;
        planned.effective |= SYS_ADMIN;
        planned.permitted |= SYS_ADMIN;
        Some(wanted)
    }

    pub(super) fn hooks(
        &mut self,
        spec: &Spec,
        name: &str,
        list: Option<&Vec<Hook>>,
        input: &Input,
        ns: &Namespaces,
    ) -> Result<()> {
        for (i, hook) in list.into_iter().flatten().enumerate() {
            let field = format!("hooks.{name}[{i}]");
            let inside = name == "startContainer";
            let status = if inside { "created" } else { "creating" };
            // In the container a hook without an environment has that of the process, as with runc. Never so outside of it, where
            // the image's variables would reach a program of the host (CVE-2025-23266).
            let env = match hook.env() {
                None if inside => Strings::new(self.env.list().to_vec()),
                _ => hooks::environment(hook, &field)?,
            };
            let step = HookStep {
                path: c_path(hook.path(), &field)?,
                in_rootfs: !inside,
                args: hooks::arguments(hook, &field)?,
                env,
                timeout_ms: hooks::timeout_ms(hook),
                state: hooks::state_around_pid(spec, input.id, input.bundle, status, ns.init_pid()),
                filter: None,
            };
            self.push(field, Step::Hook(Box::new(step)));
        }
        Ok(())
    }
}

fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

/// The last of several entries with the same name holds, in the place of the first.
fn environment(process: &Process) -> Result<Vec<String>> {
    let list: Vec<&String> = process.env().iter().flatten().collect();
    let name = |e: &str| e.split_once('=').map(|(n, _)| n.to_string());
    let mut place = std::collections::HashMap::with_capacity(list.len());
    let mut out: Vec<String> = Vec::with_capacity(list.len() + 3);
    for (i, entry) in list.into_iter().enumerate() {
        let name =
            name(entry).ok_or_else(|| invalid(format!("process.env[{i}]"), format!("{entry:?} has no \"=\"")))?;
        match place.get(&name) {
            Some(at) => {
                if let Some(old) = out.get_mut::<usize>(*at) {
                    old.clone_from(entry);
                }
            }
            None => {
                place.insert(name, out.len());
                out.push(entry.clone());
            }
        }
    }
    Ok(out)
}

/// Whether it may get a right by which it traces a process of its user namespace that has CAP_SYS_ADMIN.
pub(crate) fn can_trace(process: &Process) -> bool {
    let Some(sets) = process.capabilities() else { return false };
    let sets = [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()];
    sets.into_iter().flatten().flatten().any(|c| matches!(c, Capability::SysAdmin | Capability::SysPtrace))
}

/// `net.ipv4.ip_forward` to `net/ipv4/ip_forward`; in a name with slashes they separate, and dots are dots (sysctl(8)).
pub(crate) fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']).and_then(|i| key.as_bytes().get(i)) {
        Some(b'/') => key.to_string(),
        _ => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    }
}

fn capability_bit(capability: Capability) -> Result<u64> {
    let name = format!("CAP_{capability}");
    let known =
        caps::Capability::from_str(&name).map_err(|_| invalid("process.capabilities", format!("{name} is unknown")))?;
    Ok(known.bitmask())
}

/// The limits in the order of their numbers on x86 and arm (asm-generic/resource.h).
const RLIMITS: [PosixRlimitType; 16] = [
    PosixRlimitType::RlimitCpu,
    PosixRlimitType::RlimitFsize,
    PosixRlimitType::RlimitData,
    PosixRlimitType::RlimitStack,
    PosixRlimitType::RlimitCore,
    PosixRlimitType::RlimitRss,
    PosixRlimitType::RlimitNproc,
    PosixRlimitType::RlimitNofile,
    PosixRlimitType::RlimitMemlock,
    PosixRlimitType::RlimitAs,
    PosixRlimitType::RlimitLocks,
    PosixRlimitType::RlimitSigpending,
    PosixRlimitType::RlimitMsgqueue,
    PosixRlimitType::RlimitNice,
    PosixRlimitType::RlimitRtprio,
    PosixRlimitType::RlimitRttime,
];

/// The kernel takes no number that is not in the list.
fn rlimit_number(typ: PosixRlimitType) -> u32 {
    RLIMITS.iter().position(|known| *known == typ).map_or(u32::MAX, |number| number as u32)
}

/// The name of a limit for people: `RLIMIT_NOFILE`.
pub(crate) fn rlimit_name(number: u32) -> String {
    RLIMITS.get(number as usize).map_or_else(|| number.to_string(), ToString::to_string)
}

fn sched_attr(s: &Scheduler) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy as P;
    let policy = match s.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => 4,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let mut flags = 0;
    for f in s.flags().iter().flatten() {
        use LinuxSchedulerFlag as F;
        flags |= match f {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        };
    }
    let nice = s.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(invalid("process.scheduler.nice", format!("{nice} is not between -20 and 19")));
    }
    let priority = s.priority().unwrap_or(0);
    if priority != 0 && !matches!(s.policy(), P::SchedFifo | P::SchedRr) {
        return Err(invalid("process.scheduler.priority", "can be set for SCHED_FIFO and SCHED_RR only"));
    }
    let deadline = (*s.runtime(), *s.deadline(), *s.period());
    let any = [deadline.0, deadline.1, deadline.2].into_iter().any(|v| v.is_some_and(|v| v != 0));
    if any && !matches!(s.policy(), P::SchedDeadline) {
        return Err(invalid("process.scheduler", "runtime, deadline and period can be set for SCHED_DEADLINE only"));
    }
    Ok(SchedAttr {
        policy,
        flags,
        nice,
        priority: u32::try_from(priority).map_err(|_| invalid("process.scheduler.priority", "is negative"))?,
        runtime: deadline.0.unwrap_or(0),
        deadline: deadline.1.unwrap_or(0),
        period: deadline.2.unwrap_or(0),
        ..SchedAttr::default()
    })
}

/// CPUs as a bit mask.
fn cpu_list(text: &str, field: &str) -> Result<Vec<u64>> {
    /// More CPUs than any kernel is built for.
    const MOST: u32 = 65_536;
    let mask = bit_list(text, MOST).filter(|mask| !mask.is_empty());
    mask.ok_or_else(|| invalid(field, format!("{text:?} is not a list of CPUs such as \"0-3,7\"")))
}

/// `0-3,7` as a bit mask (cpuset(7), "List format") of at most this many bits; `None`: it is no such list.
pub(super) fn bit_list(text: &str, most: u32) -> Option<Vec<u64>> {
    let mut mask: Vec<u64> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.trim().parse().ok()?;
        let last: u32 = last.trim().parse().ok()?;
        if first > last || last >= most {
            return None;
        }
        for bit in first..=last {
            let word = (bit / 64) as usize;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            if let Some(w) = mask.get_mut(word) {
                *w |= 1 << (bit % 64);
            }
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-3,7", "f").unwrap(), [0b1000_1111]);
        assert_eq!(cpu_list("64", "f").unwrap(), [0, 1]);
        for bad in ["", "3-1", "x", "-1", "1-", "65536"] {
            assert!(cpu_list(bad, "f").is_err(), "{bad}");
        }
    }

    #[test]
    fn sysctl_names() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
    }

    #[test]
    fn the_last_of_duplicate_variables_holds() {
        let p: Process =
            serde_json::from_str(r#"{"cwd":"/","user":{"uid":0,"gid":0},"args":["a"],"env":["A=1","B=2","A=3"]}"#)
                .unwrap();
        assert_eq!(environment(&p).unwrap(), ["A=3", "B=2"]);
    }
}
