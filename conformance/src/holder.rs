//! A process that holds namespaces of its own, for containers that join them.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::check::Failure;

const READY: &[u8] = b"ready\n";

/// The process; ended on drop.
#[derive(Debug)]
pub struct Holder {
    process: Child,
}

impl Holder {
    /// Runs `unshare` (or a command that ends in it, with its flags) until the namespaces are there.
    ///
    /// # Errors
    /// It cannot be run, or ends before.
    pub fn start(unshare: &mut Command) -> Result<Holder, Failure> {
        let command = unshare.args(["sh", "-c", "echo ready; exec sleep 60"]).stdout(Stdio::piped());
        let mut holder = Holder { process: command.spawn()? };
        let stdout = holder.process.stdout.as_mut().ok_or_else(|| Failure("no pipe".into()))?;
        stdout.read_exact(&mut [0; READY.len()])?;
        Ok(holder)
    }

    /// Who is in the namespaces: with `--fork`, the child of `unshare` (pid in ours).
    pub fn pid(&self) -> i32 {
        self.child().unwrap_or(Pid::from_child(&self.process).as_raw_nonzero().get())
    }

    fn child(&self) -> Option<i32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.process.id())).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(child) = self.child().and_then(Pid::from_raw) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
