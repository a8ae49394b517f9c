//! The process that a sandbox is: it holds the namespaces that containers join by its pid, is the first process of their pid namespace, and does
//! nothing else. It needs no image and no root file system, and ends with the daemon.

use super::config::Config;
use orlop_sys::process::{self, CLONE_NEWUSER, CLONE_PARENT};
use orlop_sys::{Errno, file};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Its name in ps(1).
const NAME: &std::ffi::CStr = c"orlop-sandbox";

/// Starts it, from a worker: a child of the worker's parent. Gives its pid.
pub fn start(config: &Config) -> Result<i32, String> {
    let joined: Vec<(&Path, OwnedFd)> =
        config.joined.iter().map(|path| Ok((path.as_path(), open(path)?))).collect::<Result<_, String>>()?;
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
        let said = become_holder(config).err().unwrap_or_default();
        if !said.is_empty() {
            let _ = file::write(writer.as_fd(), said.as_bytes());
            return 1;
        }
        // The pipe's end says that it is ready.
        if file::close_others(3, []).is_err() {
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

/// In the new process: what only one that is inside can do.
fn become_holder(config: &Config) -> Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_string();
        move |e: Errno| format!("{what}: {}", e.desc())
    };
    process::setsid().map_err(failed("setsid"))?;
    process::set_name(NAME).map_err(failed("prctl"))?;
    if !config.hostname.is_empty() {
        process::set_hostname(config.hostname.as_bytes()).map_err(failed("sethostname"))?;
    }
    for (name, value) in &config.sysctls {
        // Those of net and kernel show the namespaces of whoever opens them.
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value).map_err(|e| format!("sysctl {name}: {e}"))?;
    }
    Ok(())
}
