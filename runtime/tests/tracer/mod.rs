//! Fails one system call of one process of a command: like strace's `inject=`, but the process is named too, because the
//! runtime and the init that it makes do the same calls.
#![allow(dead_code, reason = "one test file fails calls, another kills")]

pub(crate) mod trials;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use orlop_sys::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// One system call: of the command itself (0) or of the nth process that was made under it, by number, the nth of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) role: usize,
    pub(crate) number: i64,
    pub(crate) nth: u32,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{} of process {}", name(self.number), self.nth, self.role)
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is not made and gives this error.
    Error(Errno),
    /// The process is killed instead.
    Kill,
}

/// What there was to see.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Every call of our own code, in order.
    pub(crate) calls: Vec<Call>,
    /// Every process, by role.
    pub(crate) pids: Vec<i32>,
    /// The exit status of the command; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Whether the fault came to pass.
    pub(crate) hit: bool,
}

struct Process {
    role: usize,
    /// The calls of the dynamic loader are not ours: the first poll(2) is that of Rust's start-up.
    ours: bool,
    /// The result of the call that was left out.
    result: Option<Errno>,
    counts: BTreeMap<i64, u32>,
}

struct Tracer {
    faults: Option<(Call, Fault)>,
    live: BTreeMap<Pid, Process>,
    seen: Seen,
}

const OPTIONS: Options = Options::PTRACE_O_TRACESYSGOOD
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACEEXEC);

/// A command that hangs is killed after this time, and that is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command to its end under the fault, its streams on the files. `also`: one more process to be traced, an init
/// that was made before; it has role 1.
///
/// A process is let go when it executes another program: only our own calls count. What still lives when the command has
/// ended is let go too.
#[expect(clippy::disallowed_methods, reason = "the program under test")]
#[expect(clippy::zombie_processes, reason = "it is waited for as a tracee")]
pub(crate) fn trace(words: &[String], out: &Path, err: &Path, also: Option<i32>, fault: Option<(Call, Fault)>) -> Seen {
    // It waits to be seized before it becomes the command.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read -r go; exec \"$@\" </dev/null", "sh"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(File::create(out).unwrap())
        .stderr(File::create(err).unwrap())
        .spawn()
        .unwrap();
    let main = Pid::from_raw(child.id() as i32);
    let seen = Seen { calls: Vec::new(), pids: Vec::new(), code: None, hit: false };
    let mut tracer = Tracer { faults: fault, live: BTreeMap::new(), seen };
    for pid in [main].into_iter().chain(also.map(Pid::from_raw)) {
        ptrace::seize(pid, OPTIONS).unwrap();
        tracer.add(pid, pid != main);
        ptrace::interrupt(pid).unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let (done, waits) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            let hangs = waits.recv_timeout(PATIENCE).is_err();
            if hangs {
                let _ = nix::sys::signal::kill(main, Signal::SIGKILL);
            }
            hangs
        });
        tracer.follow(main);
        let _ = done.send(());
        assert!(!watchdog.join().unwrap(), "the command hangs under {fault:?}");
    });
    tracer.seen
}

impl Tracer {
    fn add(&mut self, pid: Pid, ours: bool) {
        if self.live.contains_key(&pid) {
            return;
        }
        let process = Process { role: self.seen.pids.len(), ours, result: None, counts: BTreeMap::new() };
        self.seen.pids.push(pid.as_raw());
        self.live.insert(pid, process);
    }

    fn follow(&mut self, main: Pid) {
        let mut ended = false;
        loop {
            // Only what this thread traces: other tests wait for children of their own. Until there is nobody, and not until nobody is known:
            // a process that one has made which was killed may not have been heard of.
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(status) => self.step(status, main, &mut ended),
                Err(Errno::ECHILD) => break,
                Err(e) => panic!("waitpid: {e}"),
            }
        }
    }

    fn step(&mut self, status: WaitStatus, main: Pid, ended: &mut bool) {
        let Some(pid) = status.pid() else { return };
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                self.live.remove(&pid);
                if pid == main {
                    self.seen.code = if let WaitStatus::Exited(_, code) = status { Some(code) } else { None };
                    *ended = true;
                    // They run on; a stop is needed to let them go.
                    for pid in self.live.keys() {
                        let _ = ptrace::interrupt(*pid);
                    }
                }
                return;
            }
            _ if *ended => return self.release(pid, status),
            WaitStatus::PtraceSyscall(_) => self.call(pid),
            WaitStatus::PtraceEvent(_, _, event) => {
                if event == libc::PTRACE_EVENT_EXEC && pid != main {
                    self.live.remove(&pid);
                    let _ = ptrace::detach(pid, None);
                    return;
                }
                match event {
                    libc::PTRACE_EVENT_EXEC => {
                        // The second time is that of the sealing.
                        if let Some(process) = self.live.get_mut(&pid) {
                            process.ours = false;
                        }
                    }
                    libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                        if let Ok(new) = ptrace::getevent(pid) {
                            self.add(Pid::from_raw(new as i32), true);
                        }
                    }
                    // A new process may be seen before its parent tells of it.
                    _ => self.add(pid, true),
                }
            }
            WaitStatus::Stopped(_, signal) => {
                let _ = ptrace::syscall(pid, signal);
                return;
            }
            _ => {}
        }
        let _ = ptrace::syscall(pid, None);
    }

    /// Lets a process go that lives longer than the command.
    fn release(&mut self, pid: Pid, status: WaitStatus) {
        if let (Some(process), WaitStatus::PtraceSyscall(_)) = (self.live.get(&pid), status)
            && process.result.is_some()
        {
            self.call(pid);
        }
        self.live.remove(&pid);
        let signal = if let WaitStatus::Stopped(_, signal) = status { Some(signal) } else { None };
        let _ = ptrace::detach(pid, signal);
    }

    fn call(&mut self, pid: Pid) {
        let Some(process) = self.live.get_mut(&pid) else { return };
        // Gone in the meantime: killed.
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        // In a stop of another kind there is no call.
        let Ok(at) = ptrace::syscall_info(pid) else { return };
        if at.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some(errno) = process.result.take() {
                registers.rax = -(errno as i64) as u64;
                let _ = ptrace::setregs(pid, registers);
            }
            return;
        }
        let number = registers.orig_rax as i64;
        if !process.ours {
            process.ours = number == libc::SYS_poll;
            return;
        }
        let nth = process.counts.entry(number).and_modify(|n| *n += 1).or_insert(1);
        let call = Call { role: process.role, number, nth: *nth };
        self.seen.calls.push(call);
        match self.faults {
            Some((wanted, Fault::Error(errno))) if wanted == call => {
                process.result = Some(errno);
                // No call has this number: the kernel does nothing.
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(pid, registers);
                self.seen.hit = true;
            }
            Some((wanted, Fault::Kill)) if wanted == call => {
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                self.seen.hit = true;
            }
            _ => {}
        }
    }
}

macro_rules! names {
    ($($name:ident)*) => {
        /// What strace calls it.
        pub(crate) fn name(number: i64) -> String {
            known_as(number, &[$((libc::$name, stringify!($name))),*])
        }
    };
}

fn known_as(number: i64, known: &[(i64, &str)]) -> String {
    let found = known.iter().find(|(n, _)| *n == number);
    found.map_or_else(|| format!("syscall {number}"), |(_, name)| name.trim_start_matches("SYS_").to_string())
}

names! {
    SYS_access SYS_add_key SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chroot SYS_clock_gettime SYS_clone3 SYS_close
    SYS_close_range SYS_dup SYS_dup2 SYS_dup3 SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat
    SYS_faccessat2 SYS_fchdir SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_flock SYS_fsconfig SYS_fsmount
    SYS_fsopen SYS_fstat SYS_fstatfs SYS_futex SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid
    SYS_getpid SYS_getrandom SYS_getuid SYS_ioctl SYS_keyctl SYS_kill SYS_lseek SYS_madvise SYS_memfd_create
    SYS_mkdir SYS_mkdirat SYS_mknodat SYS_mmap SYS_mount SYS_mount_setattr SYS_move_mount SYS_mprotect SYS_mremap
    SYS_munmap SYS_nanosleep SYS_clock_nanosleep SYS_newfstatat SYS_open SYS_open_tree SYS_openat SYS_openat2
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe SYS_pipe2 SYS_pivot_root SYS_poll SYS_ppoll SYS_prctl SYS_pread64
    SYS_prlimit64 SYS_read SYS_readlink SYS_readlinkat SYS_recvfrom SYS_recvmsg SYS_rename SYS_rmdir
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_getaffinity SYS_seccomp SYS_sendmsg SYS_sendto
    SYS_set_robust_list SYS_setgroups SYS_sethostname SYS_setns SYS_setresgid SYS_setresuid SYS_setsid
    SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_stat SYS_statfs SYS_statx SYS_symlinkat SYS_umask SYS_umount2
    SYS_unlink SYS_unlinkat SYS_unshare SYS_waitid SYS_wait4 SYS_write SYS_writev
}
