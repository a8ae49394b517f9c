//! Running one hook: no allocation, so both the parent and the child of the clone can do it.

use crate::plan::HookStep;
use orlop_sys::process::{self, Exit};
use orlop_sys::{Errno, bpf, fds, file, poll};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Why a hook failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be started.
    Call(Errno),
    /// It exited with another status than 0.
    Status(u8),
    /// A signal ended it.
    Signal(i32),
    /// It was killed after its timeout.
    Timeout,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Call(errno)
    }
}

/// The exit status of a hook's process that could not execute its program; not a hook's own, because the errno comes by the pipe.
const NOT_EXECUTED: u8 = 127;

/// Runs the hook to its end with the state on stdin. stdin is a file in memory: a hook that never reads cannot block us.
pub fn run(hook: &HookStep, pid: i32, output: Option<BorrowedFd>, cwd: &CStr) -> Result<(), Failure> {
    let stdin = file::memfd(c"state")?;
    let mut digits = [0u8; 12];
    for part in
        [&hook.state.0[..], if hook.state.1.is_empty() { b"" } else { decimal(pid, &mut digits) }, &hook.state.1[..]]
    {
        write_all(stdin.as_fd(), part)?;
    }
    file::seek(stdin.as_fd(), 0)?;
    let (reader, writer) = file::pipe()?;
    let child = process::clone3(0, None, || {
        let errno = child_main(hook, stdin.as_fd(), output, cwd);
        // The parent reads the errno; a success closes the pipe without a word.
        let _ = file::write(writer.as_fd(), &(errno as i32).to_ne_bytes());
        NOT_EXECUTED
    })?;
    drop(writer);
    let mut errno = [0u8; 4];
    if file::read(reader.as_fd(), &mut errno)? == errno.len() {
        process::wait(child.pidfd.as_fd(), true)?;
        return Err(Failure::Call(Errno::from_raw(i32::from_ne_bytes(errno))));
    }
    let ended = poll::readable(child.pidfd.as_fd(), hook.timeout_ms);
    if ended != Ok(true) {
        process::pidfd_signal(child.pidfd.as_fd(), process::SIGKILL)?;
        process::wait(child.pidfd.as_fd(), true)?;
        return Err(ended.map_or_else(Failure::Call, |_| Failure::Timeout));
    }
    match process::wait(child.pidfd.as_fd(), true)? {
        Some(Exit::Status(0)) | None => Ok(()),
        Some(Exit::Status(status)) => Err(Failure::Status(status)),
        Some(Exit::Signal(signal)) => Err(Failure::Signal(signal)),
    }
}

fn child_main(hook: &HookStep, stdin: BorrowedFd, output: Option<BorrowedFd>, cwd: &CStr) -> Errno {
    let prepared = (|| {
        fds::dup_to_stdio(stdin, 0)?;
        if let Some(output) = output {
            fds::dup_to_stdio(output, 1)?;
            fds::dup_to_stdio(output, 2)?;
        }
        // A bundle that has gone in the meantime is no reason to leave a poststop hook out.
        let _ = process::chdir(cwd);
        fds::cloexec_from(3)?;
        match &hook.filter {
            Some((filter, flags)) => bpf::seccomp_set_filter(filter, *flags).map(drop),
            None => Ok(()),
        }
    })();
    if let Err(errno) = prepared {
        return errno;
    }
    process::reset_signals();
    process::exec(&hook.path, &hook.args, &hook.env)
}

fn write_all(fd: BorrowedFd, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        let n = file::write(fd, data)?;
        data = data.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// The digits of a pid, without an allocation.
fn decimal(pid: i32, buf: &mut [u8; 12]) -> &[u8] {
    let mut left = pid.unsigned_abs();
    let mut at = buf.len();
    while at > 0 {
        at -= 1;
        if let Some(place) = buf.get_mut(at) {
            *place = b'0' + (left % 10) as u8;
        }
        left /= 10;
        if left == 0 {
            break;
        }
    }
    buf.get(at..).unwrap_or_default()
}
