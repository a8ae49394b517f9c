//! What a step is called when it fails: the parent holds the same plan, so two numbers make a sentence.

use super::{BindStep, MountStep, Plan, Planned, Step, Tree};
use crate::error::{Error, Kind, On};
use crate::hooks;
use crate::sync::{Frame, Part};
use crate::{hints, hook};
use orlop_sys::{Errno, file, mount};
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

impl Plan {
    /// The error of a `Failed` frame; `said` is what hooks printed.
    pub fn failure(&self, frame: &Frame, said: &str) -> Error {
        let Some(planned) = self.steps.get(usize::from(frame.step)) else {
            return Error::new(Kind::Init, "the container's init failed in a step that is not in its plan");
        };
        let e = self.step_failure(planned, frame.part, frame.number, said);
        let refused = (frame.part, Errno::from_raw(frame.number)) == (Part::Step, Errno::EINVAL);
        if let (true, Step::Mount(m)) = (refused, &planned.step)
            && let Some((at, hint)) = refused_option(m)
        {
            return e.at(format!("{}.options[{at}]", planned.field)).hint(hint);
        }
        match frame.part {
            _ if planned.field.is_empty() || frame.part == Part::Locked => e,
            Part::Groups if matches!(planned.step, Step::User { .. }) => {
                e.at(format!("{}.additionalGids", planned.field))
            }
            Part::Source if matches!(planned.step, Step::Bind(_)) => e.at(format!("{}.source", planned.field)),
            _ => e.at(planned.field.to_string()),
        }
    }

    fn step_failure(&self, planned: &Planned, part: Part, number: i32, said: &str) -> Error {
        let step = &planned.step;
        let errno = Errno::from_raw(number);
        if let Step::Hook(h) = step {
            let failure = match part {
                Part::HookStatus => hook::Failure::Status(number as u8),
                Part::HookSignal => hook::Failure::Signal(number),
                Part::HookTimeout => hook::Failure::Timeout,
                _ => hook::Failure::Call(errno),
            };
            return hooks::failed(h, failure, said, &planned.field);
        }
        match (step, part) {
            (Step::FindProgram | Step::Exec, _) => {
                return self.program_failure(matches!(step, Step::Exec), part, errno);
            }
            (_, Part::Outside) => {
                return Error::new(
                    Kind::Invalid,
                    "the working directory is outside of the container's root (CVE-2024-21626)",
                );
            }
            (_, Part::OnProc) => {
                let (_, object) = self.call(step);
                return Error::new(Kind::Invalid, format!("{object} cannot be mounted because it is inside /proc"));
            }
            (Step::Bind(b), Part::Locked) => {
                // The words up to the source are runc's, which its users' tests look for.
                let what = "unable to start container process: error during container init: error mounting";
                let (source, target, field) = (self.source_of(b), &b.target.path, &planned.field);
                let why = "an option takes away what the source is mounted with: operation not permitted";
                return Error::new(Kind::System, format!("{what} {source} to rootfs at {target:?}: {field}.options: {why}"))
                    .hint("in a user namespace these flags and access times stay as they are on the host: leave the option out");
            }
            (Step::Mounted(t) | Step::Unmount(t), Part::Mismatch) => {
                return Error::new(Kind::Invalid, format!("{:?} is not a mount point", t.path));
            }
            (Step::Device(d), Part::Source) if errno == Errno::ENODEV => {
                let (major, minor) = (file::major(d.device), file::minor(d.device));
                return Error::new(Kind::Invalid, format!("the host's {:?} is not the device {major}:{minor}", d.path))
                    .hint("no node can be made here, so that of the host is bound: it must be the same device");
            }
            (Step::Mask(_) | Step::Readonly(_), Part::Mismatch) if errno == Errno::ESTALE => {
                let (call, object) = self.call(step);
                return Error::new(Kind::System, format!("{call} {object}: /proc or /sys is not where it was mounted"))
                    .hint("somebody who shares the rootfs has exchanged it meanwhile");
            }
            (_, Part::Mismatch) => {
                let (_, object) = self.call(step);
                return Error::new(Kind::System, format!("{object} is something else than it must be"))
                    .hint("the rootfs has another file there: remove it, or mount over it");
            }
            (_, Part::Protocol) => return errno.on("talk to", "the runtime"),
            _ => {}
        }
        let (call, mut object) = self.call(step);
        if let (Step::Mount(m), Part::Place, Errno::ELOOP | Errno::ENOTDIR) = (step, part, errno)
            && m.target.no_symlinks
        {
            return errno.on(format!("{call}, which must be mounted on ordinary directory:"), object);
        }
        if let (Step::Bind(b), Part::Source) = (step, part) {
            object = self.source_of(b);
        }
        let call = match part {
            Part::Source => "open_tree of".to_string(),
            Part::Place => format!("make the place for {call}"),
            Part::Attributes => "mount_setattr of".to_string(),
            Part::Propagation => "set the propagation of".to_string(),
            Part::Attach => "attach the mount to".to_string(),
            Part::CopyUp => "copy up".to_string(),
            Part::Groups => "setgroups of".to_string(),
            _ => call,
        };
        let hint = hints::hint(&call, errno);
        let e = errno.on(call, object);
        match hint {
            Some(hint) => e.hint(hint),
            None => e,
        }
    }

    /// The words that engines turn into 126 and 127 stay as they are with runc.
    fn program_failure(&self, executed: bool, part: Part, errno: Errno) -> Error {
        let name = self.args.list().first().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = match part {
            Part::NotInPath => format!("exec: \"{name}\": executable file not found in $PATH"),
            _ if executed => format!("exec {name}: {}", lower(errno.desc())),
            _ => format!("exec: \"{name}\": {}", lower(errno.desc())),
        };
        Error::new(Kind::Exec, text)
    }

    /// The call of a step, and what it works on.
    fn call(&self, step: &Step) -> (String, String) {
        let call = |call: &str, object: String| (call.to_string(), object);
        let quoted = |s: &CStr| format!("{s:?}");
        match step {
            Step::EnterCgroups => call("enter the cgroups by writing 0 to", "their tasks files".into()),
            Step::Rlimit(resource, soft, hard) => {
                call("setrlimit", format!("{} to {soft}:{hard}", super::process::rlimit_name(*resource)))
            }
            Step::ProcSelf(name, value) => (format!("write {} =", name.to_string_lossy()), quoted(value)),
            Step::OpenLabel(name) => call("open label file", format!("/proc/self/{}", name.to_string_lossy())),
            Step::WriteLabel(label) => call("write label", quoted(label)),
            Step::Join(open, _) => call("setns to", self.path_of(*open)),
            Step::JoinInit(_) => call("setns to", "the namespaces of the container's init".into()),
            Step::AskMaps => call("ask for", "the id maps".into()),
            Step::BecomeRoot(_) => call("become", "root of the user namespace".into()),
            Step::Dumpable(_) => call("prctl PR_SET_DUMPABLE", String::new()),
            Step::Unshare(_) => call("unshare", "the cgroup namespace".into()),
            Step::TimeOffsets(_) => call("enter", "a time namespace with these offsets".into()),
            Step::NewSession => call("setsid", String::new()),
            Step::Keyring(name, _) => call("join session keyring", quoted(name)),
            Step::Propagate(_) => call("set the propagation of", "\"/\"".into()),
            Step::PrivateParent(path) => call("make private the mount of", quoted(path)),
            Step::BindRoot(path) => call("bind", quoted(path)),
            Step::OpenRoot(path) => call("open", quoted(path)),
            Step::Mount(m) => (format!("mount {} on", m.fs.to_string_lossy()), quoted(&m.target.path)),
            Step::Bind(b) => call("bind to", quoted(&b.target.path)),
            Step::Mounted(t) | Step::Unmount(t) => call("unmount", quoted(&t.path)),
            Step::Directory(path) => call("mkdir", quoted(path)),
            Step::Device(d) => call("mknod", quoted(&d.path)),
            Step::Symlink(_, at) => call("symlink", quoted(at)),
            Step::Ptmx => call("symlink", "\"/dev/ptmx\"".into()),
            Step::Console(..) => call("open a terminal of", "\"/dev/pts\"".into()),
            Step::AskDevices => call("socket", "NETLINK_ROUTE".into()),
            Step::AskHooks => call("run", "the hooks".into()),
            Step::Hook(h) => call("run hook", quoted(&h.path)),
            Step::SetAttr(path, ..) => call("mount_setattr of", quoted(path)),
            Step::Mask(path) => call("mask", quoted(path)),
            Step::Readonly(path) => call("make read-only", quoted(path)),
            Step::ReadonlyRoot => call("make read-only", "\"/\"".into()),
            Step::Sysctl(path, value) => (format!("write sysctl {} =", path.to_string_lossy()), quoted(value)),
            Step::Pivot(_) => call("pivot_root to", "the rootfs".into()),
            Step::MoveRoot(_) => call("move to / the mount of", "the rootfs".into()),
            Step::Chroot => call("chroot to", "the rootfs".into()),
            Step::ReopenNull => call("open", "\"/dev/null\"".into()),
            Step::Loopback => call("set up", "the loopback interface".into()),
            Step::Hostname(name) => call("sethostname", quoted(name)),
            Step::Domainname(name) => call("setdomainname", quoted(name)),
            Step::Scheduler(attr) => call("sched_setattr", format!("policy {}", attr.policy)),
            Step::IoPriority(value) => call("ioprio_set", format!("class {} level {}", value >> 13, value & 0x1fff)),
            Step::Affinity(_) => call("sched_setaffinity", String::new()),
            Step::MemoryPolicy(mode, _) => call("set_mempolicy", format!("mode {mode:#x}")),
            Step::Personality(persona) => call("personality", format!("{persona:#x}")),
            Step::Umask(mask) => call("umask", format!("{mask:o}")),
            Step::Bounding(_) => call("drop from", "the bounding set".into()),
            Step::StdioOwner(uid) => call("chown the standard streams to", uid.to_string()),
            Step::User { uid, gid, .. } => call("set user and group", format!("{uid}:{gid}")),
            Step::Chdir(path, _) => call("chdir to", quoted(path)),
            Step::Capabilities(caps) => call("capset", format!("{:#x}", caps.permitted)),
            Step::Ambient(caps) => call("raise ambient capabilities", format!("{caps:#x}")),
            Step::Home(_) => call("read", "\"/etc/passwd\"".into()),
            Step::FindProgram | Step::Exec => call("exec", String::new()),
            Step::NoNewPrivs => call("set", "no_new_privs".into()),
            Step::CloseFrom(first) => call("close_range from", first.to_string()),
            Step::Ready | Step::Gate => call("talk to", "the runtime".into()),
            Step::Seccomp(filter, ..) => call("seccomp", format!("with a filter of {} instructions", filter.len())),
        }
    }

    fn source_of(&self, b: &BindStep) -> String {
        match &b.tree {
            Tree::Opened(open) => self.path_of(*open),
            Tree::Host(path) => format!("{path:?}"),
            Tree::Root(path) => format!("{path:?} in the rootfs"),
        }
    }

    fn path_of(&self, open: usize) -> String {
        match self.opens.get(open) {
            Some((super::Open::Namespace { path, .. } | super::Open::Tree { path, .. }, _)) => format!("{path:?}"),
            Some((super::Open::UserNamespace(_), _)) => "the user namespace of an idmapped mount".to_string(),
            None => String::new(),
        }
    }
}

/// Which option the file system does not take, found out by offering it each one alone; nothing is mounted.
fn refused_option(m: &MountStep) -> Option<(usize, String)> {
    let name = m.fs.to_string_lossy();
    let data = m.data.to_string_lossy();
    for (option, at) in data.split(',').zip(&m.data_at) {
        let fs = mount::fsopen(&m.fs).ok()?;
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        let (c_key, c_value) = (CString::new(key).ok()?, value.map(CString::new).transpose().ok()?);
        let offered = match &c_value {
            Some(value) => mount::fsconfig_string(fs.as_fd(), &c_key, value),
            None => mount::fsconfig_flag(fs.as_fd(), &c_key),
        };
        if offered == Err(Errno::EINVAL) {
            let known = value.is_some() && mount::fsconfig_string(fs.as_fd(), &c_key, c"0").is_ok();
            let hint = if known {
                format!("{name} does not take this value of {key:?}")
            } else {
                format!("{name} has no option {key:?}")
            };
            return Some((*at, hint));
        }
    }
    None
}

/// Go writes these texts in lower case, and callers match on that.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
