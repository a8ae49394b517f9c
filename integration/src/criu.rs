//! Whether CRIU itself works on this kernel, found out without any runtime.

use std::fs;
use std::process::{Command, Stdio};

/// Whether `criu check` is content, and a plain process can be dumped and restored: it often is older than the kernel.
pub fn works() -> bool {
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let criu = |args: &[&str]| run("criu", args).status().is_ok_and(|status| status.success());
    if !criu(&["check"]) {
        return false;
    }
    let images = tempfile::tempdir().expect("a temporary directory");
    let dir = images.path().to_str().expect("UTF-8");
    let script =
        "for fd in /proc/$$/fd/*; do n=${fd##*/}; if [ $n -gt 2 ]; then exec {n}>&-; fi; done; exec sleep 1000";
    let mut process = run("setsid", &["bash", "-c", script]).spawn().expect("setsid");
    let pid = process.id().to_string();
    crate::wait::until("the process sleeps", crate::wait::SOON, || {
        (fs::read_to_string(format!("/proc/{pid}/comm")).ok()? == "sleep\n").then_some(())
    });
    let dumped = criu(&["dump", "-t", &pid, "-D", dir]);
    let _ = process.kill();
    let _ = process.wait();
    let pidfile = images.path().join("pid");
    let restored = dumped && criu(&["restore", "-d", "-D", dir, "--pidfile", pidfile.to_str().expect("UTF-8")]);
    if let Ok(pid) = fs::read_to_string(pidfile) {
        let _ = run("kill", &["-KILL", pid.trim()]).status();
    }
    restored
}
