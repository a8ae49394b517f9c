//! Kills a process of a daemon's as it begins one of its system calls. The daemon was started long before, so it is seized, and what it makes
//! meanwhile is traced with it (ptrace(2), PTRACE_SEIZE).

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// One system call: of the daemon (0) or of the nth process that was made under it, by number, the nth of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub role: usize,
    pub number: i64,
    nth: u32,
    /// Whether one process speaks to another by it, over a socket, a pipe or the gate's fifo.
    pub speaks: bool,
}

/// See [`Call::speaks`]; `fd` is the first argument.
fn speaks(pid: Pid, number: i64, fd: u64) -> bool {
    let file = [libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev];
    let socket = [libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendto, libc::SYS_recvfrom];
    let is_channel = || {
        let kind = fs::metadata(format!("/proc/{pid}/fd/{}", fd as i32)).map(|file| file.file_type());
        kind.is_ok_and(|kind| kind.is_socket() || kind.is_fifo())
    };
    socket.contains(&number) || (file.contains(&number) && is_channel())
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "syscall {} #{} of process {}", self.number, self.nth, self.role)
    }
}

/// What there was to see.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every call, in order.
    pub calls: Vec<Call>,
    /// Whether the process was killed.
    pub hit: bool,
}

const OPTIONS: Options = Options::PTRACE_O_TRACESYSGOOD
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACEEXEC);

/// Runs `body` with the daemon traced, and whatever it makes until that executes another program. `fault`: where it or one of these is
/// killed. Afterwards they go on untraced.
pub fn during<T>(daemon: u32, fault: Option<Call>, body: impl FnOnce() -> T) -> (T, Seen) {
    let (sender, begun) = channel();
    thread::scope(|scope| {
        // All of ptrace(2) is one thread's business. The kernel lets everybody go when it ends.
        let tracer = scope.spawn(move || Tracer { fault, ..Tracer::default() }.follow(daemon, &sender));
        let bell = begun.recv().expect("the tracer has begun");
        let done = body();
        drop(bell);
        (done, tracer.join().expect("no panic"))
    })
}

#[derive(Default)]
struct Tracer {
    fault: Option<Call>,
    roles: BTreeMap<Pid, usize>,
    counts: BTreeMap<(usize, i64), u32>,
    seen: Seen,
}

impl Tracer {
    /// Until whoever holds what is sent lets go of it: it keeps a child from its end, for which waitpid(2) waits as for the traced ones.
    #[expect(clippy::zombie_processes, reason = "the loop waits for it")]
    fn follow(mut self, daemon: u32, begun: &Sender<ChildStdin>) -> Seen {
        let mut bell = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
        let rings = bell.stdin.take().expect("piped");
        let daemon = Pid::from_raw(i32::try_from(daemon).expect("a pid"));
        self.roles.insert(daemon, 0);
        ptrace::seize(daemon, OPTIONS).expect("PTRACE_SEIZE");
        ptrace::interrupt(daemon).expect("PTRACE_INTERRUPT");
        begun.send(rings).expect("it is waited for");
        let bell = Pid::from_raw(i32::try_from(bell.id()).expect("a pid"));
        loop {
            // Not what other threads wait for.
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD));
            match status {
                Err(Errno::EINTR) => continue,
                Err(e) => panic!("waitpid: {e}"),
                Ok(status) if status.pid() == Some(bell) => return self.seen,
                Ok(status) => self.step(status),
            }
        }
    }

    fn step(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        // In the order in which they are first heard of: a process may be before its parent has told of it.
        let next = self.roles.len();
        let role = *self.roles.entry(pid).or_insert(next);
        // Whoever was killed meanwhile is none to ask or to let go on: its end comes by itself.
        let _ = match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => Ok(()),
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => ptrace::detach(pid, None),
            WaitStatus::Stopped(_, signal) => ptrace::syscall(pid, signal),
            WaitStatus::PtraceSyscall(_) => {
                self.call(pid, role);
                ptrace::syscall(pid, None)
            }
            _ => ptrace::syscall(pid, None),
        };
    }

    fn call(&mut self, pid: Pid, role: usize) {
        let (Ok(at), Ok(registers)) = (ptrace::syscall_info(pid), ptrace::getregs(pid)) else { return };
        if at.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return;
        }
        let number = registers.orig_rax as i64;
        let nth = self.counts.entry((role, number)).and_modify(|n| *n += 1).or_insert(1);
        let call = Call { role, number, nth: *nth, speaks: speaks(pid, number, registers.rdi) };
        self.seen.calls.push(call);
        if self.fault == Some(call) {
            self.seen.hit = true;
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}
