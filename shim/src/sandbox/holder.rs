//! The process that a sandbox is: it holds the namespaces that containers join by its pid, is the first process of their pid namespace, and does
//! nothing else. It needs no image and no root file system, and ends with the daemon.
//!
//! Containers of the pod see it as pid 1, and one that may trace it can do whatever it can: so it keeps nothing of the host. Its root is an empty
//! directory in a mount namespace of its own, it has no capability, no file, and no way to get one, and it shows nobody what the daemon was
//! started with.

use super::config::{Config, User};
use orlop_sys::bpf::{Insn, seccomp_set_filter};
use orlop_sys::process::{self, CLONE_NEWNS, CLONE_NEWUSER, CLONE_PARENT, Capabilities};
use orlop_sys::{Errno, fds, file, mount};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Its name in ps(1), and all of its command line.
const NAME: &std::ffi::CStr = c"orlop-sandbox";
/// What it does from the moment on that containers may see it.
const CALLS: &[u8] = br#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
    {"names": ["close_range", "pause", "ppoll", "exit", "exit_group"], "action": "SCMP_ACT_ALLOW"}]}"#;

/// Starts it, from a worker: a child of the worker's parent. Gives its pid.
pub fn start(config: &Config) -> Result<i32, String> {
    let joined: Vec<(&Path, OwnedFd)> =
        config.joined.iter().map(|path| Ok((path.as_path(), open(path)?))).collect::<Result<_, String>>()?;
    let host = Names::now();
    let calls = serde_json::from_slice(CALLS).map_err(|e| e.to_string())?;
    let filter = orlop::plan::seccomp::compile(&calls).map_err(|e| e.to_string())?.filter;
    // Here, while /proc is the host's; the copy that is the sandbox has the same memory.
    process::hide_arguments(NAME).map_err(failed("hide the arguments"))?;
    // The kernel allows a member of the user namespace alone to join what belongs to it.
    for (path, namespace) in &joined {
        let failed = |e: Errno| format!("user namespace of {}: {}", path.display(), e.desc());
        if let Some(owner) = process::foreign_owner(namespace.as_fd()).map_err(failed)? {
            process::setns(owner.as_fd(), CLONE_NEWUSER).map_err(failed)?;
            break;
        }
    }
    for (path, namespace) in &joined {
        process::setns(namespace.as_fd(), 0).map_err(|e| format!("setns {}: {}", path.display(), e.desc()))?;
    }
    let (reader, writer) = file::pipe().map_err(|e| format!("pipe: {}", e.desc()))?;
    let flags = config.made as u64 | CLONE_PARENT as u64;
    let child = process::clone3(flags, None, || {
        let done = become_holder(config, &host).and_then(|()| {
            process::prepare_to_hold().map_err(failed("prepare to hold"))?;
            confine(&filter)
        });
        if let Err(said) = done {
            let _ = file::write(writer.as_fd(), said.as_bytes());
            return 1;
        }
        // The pipe's end says that it is ready. The standard streams go too: they are the daemon's.
        if fds::close_others(0, []).is_err() {
            return 1;
        }
        process::hold()
    });
    let child = child.map_err(|e| format!("clone3: {}", e.desc()))?;
    drop(writer);
    let mut said = String::new();
    File::from(reader).read_to_string(&mut said).map_err(|e| format!("pipe: {e}"))?;
    if said.is_empty() { Ok(child.pid) } else { Err(said) }
}

fn open(path: &Path) -> Result<OwnedFd, String> {
    let failed = |e: Errno| format!("open {}: {}", path.display(), e.desc());
    let text = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    file::open(&text, file::O_RDONLY, 0).map_err(failed)
}

/// The namespaces that settings belong to, by device and inode; `None`: it cannot be told.
struct Names([Option<(u64, u64)>; 3]);

impl Names {
    /// As in /proc/PID/ns.
    const FILES: [&str; 3] = ["ipc", "net", "uts"];

    /// Those of this process.
    fn now() -> Names {
        Names(
            Names::FILES
                .map(|name| std::fs::metadata(format!("/proc/self/ns/{name}")).ok().map(|m| (m.dev(), m.ino()))),
        )
    }

    /// Whether both are known to have another namespace `file`.
    fn differ(&self, other: &Names, file: &str) -> bool {
        let both = Names::FILES.iter().zip(self.0.iter().zip(&other.0));
        let mut of_file = both.filter(|(name, _)| **name == file);
        of_file.any(|(_, (one, other))| one.is_some() && other.is_some() && one != other)
    }
}

fn failed(what: &'static str) -> impl Fn(Errno) -> String {
    move |e| format!("{what}: {}", e.desc())
}

/// In the new process: what only one that is inside can do. `host`: the daemon's namespaces, which a sandbox changes nothing in.
fn become_holder(config: &Config, host: &Names) -> Result<(), String> {
    process::setsid().map_err(failed("setsid"))?;
    process::set_name(NAME).map_err(failed("prctl"))?;
    let ours = Names::now();
    if !config.hostname.is_empty() {
        if !ours.differ(host, "uts") {
            return Err(format!("hostname {:?}: the sandbox has no uts namespace of its own", config.hostname));
        }
        process::set_hostname(config.hostname.as_bytes()).map_err(failed("sethostname"))?;
    }
    for (name, value) in &config.sysctls {
        // Those of net and kernel show the namespaces of whoever opens them.
        let (path, kind) = orlop::config::sysctl_of(name)?;
        if !ours.differ(host, orlop::config::namespace_file(kind)) {
            return Err(format!("sysctl {name:?} is not allowed in the host {kind} namespace"));
        }
        std::fs::write(format!("/proc/sys/{path}"), value).map_err(|e| format!("sysctl {name}: {e}"))?;
    }
    leave_the_host()?;
    drop_privileges(config.user.as_ref())
}

/// Into a mount namespace with one empty directory that nobody can write to.
fn leave_the_host() -> Result<(), String> {
    process::unshare(CLONE_NEWNS).map_err(failed("unshare"))?;
    // What is unmounted from here on stays on the host.
    mount::mount(None, c"/", None, mount::MS_REC | mount::MS_PRIVATE, None).map_err(failed("make / private"))?;
    let tmpfs = mount::fsopen(c"tmpfs").map_err(failed("fsopen tmpfs"))?;
    const ATTRIBUTES: u64 = mount::attr::RDONLY | mount::attr::NOSUID | mount::attr::NODEV | mount::attr::NOEXEC;
    let root = mount::fsmount(tmpfs.as_fd(), ATTRIBUTES).map_err(failed("fsmount"))?;
    // pivot_root(2) wants a mount point, whichever: this one is needed no more.
    let place = file::open(c"/proc", file::O_PATH | file::O_DIRECTORY, 0).map_err(failed("open /proc"))?;
    mount::attach(root.as_fd(), place.as_fd()).map_err(failed("move_mount"))?;
    process::fchdir(root.as_fd()).map_err(failed("fchdir"))?;
    mount::pivot_root_here().map_err(failed("pivot_root"))?;
    mount::unmount(c".", mount::MNT_DETACH).map_err(failed("unmount the old root"))?;
    process::chdir(c"/").map_err(failed("chdir"))
}

/// Takes away for good all that root has. The bounding set and the change of user need capabilities themselves; the kernel may make a process
/// dumpable again whose credentials change, so that this is last.
fn drop_privileges(user: Option<&User>) -> Result<(), String> {
    process::set_no_new_privs().map_err(failed("no_new_privs"))?;
    for capability in 0..u64::BITS as u8 {
        match process::drop_bounding(capability) {
            Ok(()) => {}
            // It was the last one that the kernel has.
            Err(Errno::EINVAL) => break,
            Err(e) => return Err(failed("drop the bounding set")(e)),
        }
    }
    if let Some(User { uid, gid, additional_gids }) = user {
        process::set_groups(additional_gids).map_err(|e| format!("groups {additional_gids:?}: {}", e.desc()))?;
        process::set_gid(*gid).map_err(|e| format!("group {gid}: {}", e.desc()))?;
        process::set_uid(*uid).map_err(|e| format!("user {uid}: {}", e.desc()))?;
    }
    process::set_capabilities(&Capabilities::default()).map_err(failed("capset"))?;
    process::set_dumpable(false).map_err(failed("set_dumpable"))
}

/// Whoever takes it over can have it do nothing but wait. A kernel without seccomp does without.
fn confine(filter: &[Insn]) -> Result<(), String> {
    match seccomp_set_filter(filter, 0) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(e) => Err(failed("seccomp")(e)),
    }
}
