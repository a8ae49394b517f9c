//! Runs the runtime from an executable that nobody can write to.
//!
//! A process that enters a container can be seen there, and its `/proc/PID/exe` names the runtime's own file on the host:
//! opened while we run and written to when we have gone, the next runtime is the container's (CVE-2019-5736). So a runtime
//! that is about to enter a container executes itself again from a read-only clone of its mount, or, without the privilege
//! for that, from a sealed copy in memory. A runtime that is installed on a read-only file system is sealed as it is.

use crate::error::{Error, Kind, On, Result};
use orlop_sys::{Errno, exe, process};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

/// Tells the second run of a process that it is the second: `ORLOP_SEALING=<its own pid>`, which execve keeps and no child
/// shares.
const MARK: &str = "ORLOP_SEALING";

/// Returns when this process runs from a sealed executable; when it does not, executes it again from one, with the same
/// arguments. Fails rather than go on unsealed.
pub fn seal(argv: &[OsString]) -> Result<()> {
    let mark = process::own_pid().to_string();
    let second = std::env::var_os(MARK).is_some_and(|value| value == *mark);
    if second {
        // execveat of an fd made the fd's number the name of the process; a name in /proc is for people, so a failure
        // changes nothing.
        let _ = process::set_name(&c_string(name(argv)));
    }
    if exe::is_sealed().on("statfs", "/proc/self/exe")? {
        return Ok(());
    }
    if second {
        return Err(Error::new(Kind::System, "cannot protect the own executable: its sealed copy is not sealed"));
    }
    let sealed = match exe::read_only_clone() {
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::EINVAL) => exe::sealed_copy(&c_string(name(argv))),
        answer => answer,
    }
    .on("make a sealed copy of", "/proc/self/exe")?;
    let args: Vec<CString> = argv.iter().map(|arg| c_string(arg)).collect();
    let mark = c_string(format!("{MARK}={mark}").as_ref());
    Err(exe::exec(sealed.as_fd(), &args, &mark).on("execveat", "/proc/self/exe"))
}

fn name(argv: &[OsString]) -> &OsStr {
    argv.first().and_then(|path| std::path::Path::new(path).file_name()).unwrap_or(OsStr::new("orlop"))
}

/// What the kernel gave this process as a string has no NUL inside.
fn c_string(s: &OsStr) -> CString {
    CString::new(s.to_os_string().into_vec()).unwrap_or_default()
}
