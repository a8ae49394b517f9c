//! Whether CRIU itself works on this kernel, found out without any runtime: it often does not, being older than the kernel.

use crate::runtime::wait_until;
use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Whether `criu check` is content and a plain process can be dumped and restored. Tried once.
pub fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| succeeds(&["check"]) && dumps_and_restores().unwrap_or(false))
}

/// The PATH of the checks: the runtime must find the CRIU that was tried.
pub fn path() -> String {
    env::var("PATH").unwrap_or_default()
}

fn dumps_and_restores() -> std::io::Result<bool> {
    let images = tempfile::tempdir()?;
    // A session of its own, and no file of another mount namespace, as those that we have inherited may be.
    let script =
        "for fd in /proc/$$/fd/*; do n=${fd##*/}; if [ $n -gt 2 ]; then exec {n}>&-; fi; done; exec sleep 1000";
    let mut process = quiet(Command::new("setsid").args(["bash", "-c", script])).spawn()?;
    let pid = process.id().to_string();
    let images = images.path().to_string_lossy().into_owned();
    let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm"));
    let asleep = wait_until("it does not sleep", || Ok(comm().is_ok_and(|comm| comm == "sleep\n"))).is_ok();
    let dumped = asleep && succeeds(&["dump", "-t", &pid, "-D", &images]);
    end(&mut process);
    if !dumped {
        return Ok(false);
    }
    let pidfile = Path::new(&images).join("pid");
    let restored = succeeds(&["restore", "-d", "-D", &images, "--pidfile", &pidfile.to_string_lossy()]);
    if let Ok(pid) = std::fs::read_to_string(pidfile) {
        let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
    }
    Ok(restored)
}

fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn succeeds(args: &[&str]) -> bool {
    quiet(Command::new("criu").args(args)).status().is_ok_and(|status| status.success())
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
