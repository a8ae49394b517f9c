//! `exec`: one more process in a running container.

use super::{ExecOptions, Global};
use crate::cgroup::{self, Cgroup, Entry};
use crate::config::{self, Config};
use crate::console::{self, Process as Foreground};
use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::{self, Input, Step};
use crate::seccomp_agent;
use crate::spawn::{self, Answers, Init, Request};
use crate::state::{Container, Status};
use log::{debug, warn};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, LinuxNamespaceType, Process, Spec, User};
use orlop_sys::signal::Signals;
use orlop_sys::{Errno, process as sys};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What came of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It runs on; its pid, in our pid namespace.
    Detached(i32),
    /// It has ended with this status, 128 + n for signal n.
    Ended(u8),
}

/// Runs a process in the container.
pub fn exec(global: &Global, options: &ExecOptions) -> Result<Outcome> {
    let container = Container::load(&global.root, &options.id)?;
    let status = container.status()?;
    match status {
        Status::Stopped => return Err(refused("cannot exec in a stopped container")),
        Status::Paused if !options.ignore_paused => {
            return Err(refused("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ if container.saved.making => return Err(refused("cannot exec in a container that is still being created")),
        _ => {}
    }
    let config = container.config()?;
    if options.process.is_none() && options.args.is_empty() {
        return Err(Error::new(Kind::Invalid, "process args cannot be empty").hint("say what to run: exec ID COMMAND"));
    }
    let process = process(options, &config)?;
    config::check_process(&process)?;
    let terminal = process.terminal().unwrap_or(false);
    super::check_terminal(terminal, options.console_socket.is_some(), options.detach)?;
    super::check_preserved(options.preserve_fds, 0)?;

    let signals = if options.detach { None } else { Some(Signals::block().on("signalfd", "")?) };
    let target = container.pidfd()?;
    let cgroup = container.cgroup();
    let entry = enter(&container, cgroup.as_ref(), &options.cgroup)?;
    let input = Input {
        cgroup_paths: cgroup.paths(),
        v1_tasks: entry.tasks.len(),
        into_cgroup: entry.dir.is_some(),
        preserve_fds: options.preserve_fds,
        no_new_keyring: false,
        ..super::input(&container.saved)?
    };
    let opened = input.rootless.is_some() && super::namespace(&config.spec, LinuxNamespaceType::User) == Some(None);
    if opened && status == Status::Created && plan::can_trace(&process) {
        let why = "cannot exec with CAP_SYS_ADMIN or CAP_SYS_PTRACE in a container of a user that is only created";
        return Err(refused(why).hint("it could trace the init, which has no seccomp filter yet: start it first"));
    }
    let plan = plan::plan_exec(&config.spec, &process, &input, joined(&config.spec, container.saved.restored_time))?;
    plan.warnings.iter().for_each(|w| warn!("{w}"));
    if let Some(mask) =
        plan.steps.iter().find_map(|p| if let Step::Affinity(mask) = &p.step { Some(mask) } else { None })
    {
        let digits: String = mask.iter().rev().map(|word| format!("{word:016x}")).collect();
        debug!("nsexec container setup: affinity: 0x{}", digits.trim_start_matches('0'));
    }
    let proc = spawn::open_proc()?;
    let mut answers = Executing { options, spec: &config.spec, bundle: &container.saved.bundle, master: None };
    let request = |entry| Request {
        plan: &plan,
        entry,
        target: Some(target.as_fd()),
        gate: None,
        proc: proc.as_fd(),
        rootless: input.rootless.is_some(),
        lock: None,
    };
    let hinted = |e: Error| {
        // Waiting, the init has no seccomp filter yet, and the caller's memory. Where a process of the container could have both by tracing it
        // (CVE-2016-9962) it is not dumpable, and what it is in cannot be joined by its user either.
        if input.rootless.is_some() && status == Status::Created && e.errno() == Some(Errno::EPERM) {
            return e.hint("the namespaces of this container are closed to all but root until it runs: start it first");
        }
        super::explain_exec(e, &plan, &container.saved.rootfs)
    };
    let init = match spawn::spawn(request(entry), &mut answers) {
        Err(e) if input.v1_tasks == 0 && options.cgroup.is_empty() && closed(&e) => {
            debug!("exec cannot enter the container's cgroup ({e}): trying that of its init");
            elsewhere(&container, global, |entry| spawn::spawn(request(entry), &mut answers)).map_err(|_| e)
        }
        Err(e) if !options.cgroup.is_empty() && e.errno() == Some(Errno::EBUSY) => {
            let call = "adding pid of the new process to cgroups: clone3 into";
            let e = Errno::EBUSY.on(call, format!("{:?}", options.cgroup)).at("--cgroup");
            return Err(e.hint("it has sub-cgroups with controllers of their own: name one of them"));
        }
        other => other,
    };
    let mut init = init.map_err(hinted)?;
    if let Some(class) = &container.saved.intel_rdt {
        class.enter(init.pid)?;
    }
    super::tell(init.pid, init.pidfd.as_fd(), options.pid_file.as_deref(), options.pidfd_socket.as_ref())?;
    debug!("setns_init: about to exec {:?}", process.args().as_deref().unwrap_or_default());
    init.release(&plan).map_err(hinted)?;
    init.disarm();
    let Some(signals) = signals else { return Ok(Outcome::Detached(init.pid)) };
    let foreground = Foreground { pid: init.pid, pidfd: init.pidfd.as_fd() };
    console::foreground(&signals, &foreground, answers.master, false, None).map(Outcome::Ended)
}

/// Whether it was the v2 cgroup that did not take the process: it has given its controllers to sub-cgroups or was removed since, or we
/// may not move a process there from where we are.
fn closed(e: &Error) -> bool {
    let errnos = [Errno::EBUSY, Errno::EOPNOTSUPP, Errno::ENOENT, Errno::ENODEV, Errno::EACCES];
    e.errno().is_some_and(|errno| errnos.contains(&errno)) && e.field() == Some("linux.namespaces")
}

/// A second try in the cgroup that the init is in, and for a rootless container a third one in our own, as runc does.
fn elsewhere(container: &Container, global: &Global, mut spawn: impl FnMut(Entry) -> Result<Init>) -> Result<Init> {
    let beside = cgroup::entry_of(container.saved.init_process_pid).and_then(&mut spawn);
    match beside {
        Err(_) if global.rootless.unwrap_or_else(cgroup::unprivileged) => spawn(Entry::default()),
        other => other,
    }
}

/// The ways into the cgroups; those of the init if its own was moved out of the container's, which was then removed (v2).
fn enter(container: &Container, cgroup: &dyn Cgroup, sub: &[String]) -> Result<Entry> {
    match cgroup.enter(sub) {
        Err(e) if !sub.is_empty() => Err(e.at("--cgroup")),
        Err(e) if e.errno() == Some(Errno::ENOENT) && cgroup.paths().keys().all(String::is_empty) => {
            cgroup::entry_of(container.saved.init_process_pid)
        }
        entry => entry,
    }
}

fn refused(why: &'static str) -> Error {
    Error::new(Kind::State, why)
}

/// The namespaces that the init does not share with the host, but for the pid namespace, which only children enter.
fn joined(spec: &Spec, restored_time: bool) -> i32 {
    let list = spec.linux().iter().filter_map(|l| l.namespaces().as_ref()).flatten();
    let listed = list.map(|n| n.typ() as i32).filter(|kind| *kind != sys::CLONE_NEWPID);
    listed.fold(if restored_time { sys::CLONE_NEWTIME } else { 0 }, |all, kind| all | kind)
}

/// The process of the file, or the container's own with what the flags change.
fn process(options: &ExecOptions, config: &Config) -> Result<Process> {
    let mut process = match &options.process {
        Some(json) => inherit(config::parse::<Process>(&json.text, &json.name)?, config.process()?),
        None => flags(options, config.process()?.clone())?,
    };
    // These go with either form.
    if options.tty {
        process.set_terminal(Some(true));
    }
    Ok(process)
}

/// What a process file leaves out of the confinement is as the container has it, as with runc: less is never a way to more.
fn inherit(mut process: Process, container: &Process) -> Process {
    // An empty name or list is one that is left out.
    let named = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let (profile, label) = (named(process.apparmor_profile()), named(process.selinux_label()));
    let rlimits = process.rlimits().clone().filter(|list| !list.is_empty());
    process.set_apparmor_profile(profile).set_selinux_label(label).set_rlimits(rlimits);
    macro_rules! from_container {
        ($($get:ident, $set:ident;)*) => {
            $(if process.$get().is_none() {
                process.$set(container.$get().clone());
            })*
        };
    }
    from_container! {
        apparmor_profile, set_apparmor_profile;
        capabilities, set_capabilities;
        io_priority, set_io_priority;
        no_new_privileges, set_no_new_privileges;
        rlimits, set_rlimits;
        scheduler, set_scheduler;
        selinux_label, set_selinux_label;
    }
    process
}

fn flags(options: &ExecOptions, mut process: Process) -> Result<Process> {
    process.set_args(Some(options.args.clone()));
    process.set_terminal(Some(options.tty));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(PathBuf::from(cwd));
    }
    if !options.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(options.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if options.no_new_privs.is_some() {
        process.set_no_new_privileges(options.no_new_privs);
    }
    if let Some(user) = &options.user {
        process.set_user(user_of(user, process.user())?);
    }
    if !options.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&options.additional_gids);
        user.set_additional_gids(Some(gids));
        process.set_user(user);
    }
    if !options.cap.is_empty() {
        let caps = capabilities(&options.cap, process.capabilities().as_ref())?;
        process.set_capabilities(Some(caps));
    }
    Ok(process)
}

/// `uid[:gid]` by one strict rule: decimal digits, nothing else (CVE-2016-3697, CVE-2026-30892).
fn user_of(text: &str, old: &User) -> Result<User> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let id = if digits { part.parse::<u32>().ok() } else { None };
        id.filter(|id| *id != u32::MAX)
            .ok_or_else(|| invalid("--user", format!("{part:?} is not an id: write uid or uid:gid, in decimal digits")))
    };
    let mut user = old.clone();
    match text.split_once(':') {
        Some((uid, gid)) => {
            user.set_uid(number(uid)?);
            user.set_gid(number(gid)?);
        }
        None => {
            user.set_uid(number(text)?);
        }
    }
    Ok(user)
}

/// The named ones are added to the sets that make them usable, never to the inheritable one, which would give them to programs with file
/// capabilities later (CVE-2022-29162); to the ambient one only where the container has them inheritable already.
fn capabilities(names: &[String], old: Option<&LinuxCapabilities>) -> Result<LinuxCapabilities> {
    let mut added = Capabilities::new();
    for name in names {
        let value = serde_json::Value::String(name.clone());
        let capability =
            serde_json::from_value(value).map_err(|_| invalid("--cap", format!("{name:?} is not a capability")))?;
        added.insert(capability);
    }
    let mut caps = old.cloned().unwrap_or_else(none);
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&added).copied().collect::<HashSet<_>>());
    let (bounding, effective, permitted) = (with(caps.bounding()), with(caps.effective()), with(caps.permitted()));
    let inheritable = caps.inheritable().iter().flatten().filter(|c| added.contains(c));
    let ambient: HashSet<_> = caps.ambient().iter().flatten().chain(inheritable).copied().collect();
    caps.set_bounding(bounding).set_effective(effective).set_permitted(permitted).set_ambient(Some(ambient));
    Ok(caps)
}

fn none() -> LinuxCapabilities {
    let mut caps = LinuxCapabilities::default();
    caps.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    caps
}

/// Answers of a process that is being made.
struct Executing<'a> {
    options: &'a ExecOptions,
    spec: &'a Spec,
    bundle: &'a Path,
    master: Option<console::Terminal>,
}

impl Answers for Executing<'_> {
    fn devices(&mut self, _: i32, _: OwnedFd) -> Result<()> {
        Err(Error::new(Kind::Init, "a process of exec has no network devices"))
    }

    fn hooks(&mut self, _: i32) -> Result<()> {
        Err(Error::new(Kind::Init, "a process of exec has no hooks"))
    }

    fn console(&mut self, master: OwnedFd) -> Result<()> {
        super::hand_over(master, self.options.console_socket.as_ref(), &mut self.master)
    }

    fn notify(&mut self, pid: i32, listener: OwnedFd) -> Result<()> {
        seccomp_agent::send(self.spec, &self.options.id, self.bundle, pid, listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_decimal_numbers_and_nothing_else() {
        let old = User::default();
        let user = user_of("1:2", &old).unwrap();
        assert_eq!((user.uid(), user.gid()), (1, 2));
        assert_eq!(user_of("10", &old).unwrap().uid(), 10);
        for bad in [
            "",
            " 1",
            "1 ",
            "0x1",
            "-1",
            "+1",
            "root",
            "1:",
            ":1",
            "1:2:3",
            "4294967295",
            "4294967296",
            "99999999999999999999",
        ] {
            assert!(user_of(bad, &old).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_process_file_cannot_leave_confinement_out() {
        let process = |json: &str| serde_json::from_str::<Process>(json).unwrap();
        let container = process(
            r#"{"cwd":"/","user":{"uid":0,"gid":0},"apparmorProfile":"p","noNewPrivileges":true,
                "capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}]}"#,
        );
        let got = inherit(process(r#"{"cwd":"/","user":{"uid":0,"gid":0}}"#), &container);
        assert_eq!(got.apparmor_profile().as_deref(), Some("p"));
        assert_eq!(got.no_new_privileges(), Some(true));
        assert_eq!(got.capabilities(), container.capabilities());
        assert_eq!(got.rlimits(), container.rlimits());
        let got = inherit(
            process(
                r#"{"cwd":"/","user":{"uid":0,"gid":0},"noNewPrivileges":false,"rlimits":[],"apparmorProfile":""}"#,
            ),
            &container,
        );
        assert_eq!(got.no_new_privileges(), Some(false));
        assert_eq!(got.rlimits(), container.rlimits());
        assert_eq!(got.apparmor_profile().as_deref(), Some("p"));
    }

    #[test]
    fn added_capabilities_are_never_inheritable() {
        let caps = capabilities(&["CAP_NET_RAW".into()], None).unwrap();
        assert!(caps.inheritable().is_none() && caps.ambient().iter().flatten().next().is_none());
        assert_eq!(caps.effective().as_ref().unwrap().len(), 1);
        // Where the container has it inheritable it becomes ambient too, as with runc.
        let mut old = none();
        old.set_inheritable(caps.effective().clone());
        let caps = capabilities(&["CAP_NET_RAW".into(), "CAP_KILL".into()], Some(&old)).unwrap();
        assert_eq!((caps.ambient(), caps.inheritable()), (old.inheritable(), old.inheritable()));
        assert!(capabilities(&["NET_RAWW".into()], None).is_err());
    }
}
