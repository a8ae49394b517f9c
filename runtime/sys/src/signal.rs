//! Signals of the runtime itself: all blocked, read from a signalfd; and the reaping that SIGCHLD asks for.

use crate::process::{self, SignalMask};
use crate::{Errno, Result, fds, status};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

pub use libc::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGTERM, SIGURG, SIGWINCH};

/// Whether [`unignore`] was called: SIGCHLD is then not ignored.
static UNIGNORED: AtomicBool = AtomicBool::new(false);

/// Gives the signals that our caller ignores their defaults back: ignoring outlives execve(2), so a container would depend on who starts
/// it, and of SIGCHLD it makes the kernel reap a hook before its status is known (waitpid(2), NOTES). SIGHUP and SIGINT stay as they
/// are, which is what nohup(1) is for; SIGPIPE is for [`crate::process::reset_signals`].
pub fn unignore() -> Result<()> {
    let ignored = status::read()?.ignored;
    // The kernel's own structure: a handler of 0 is SIG_DFL, and no flag, no restorer and an empty mask go with it.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|n| ignored & 1 << (n - 1) != 0 && ![SIGHUP, SIGINT, SIGPIPE].contains(n)) {
        let old = ptr::null_mut::<u64>();
        // SAFETY: `default` has the size of a kernel sigaction, whose mask is of 8 bytes; a null pointer means that the old one is not
        // wanted. The raw call is used because libc's own leaves two signals out.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, size_of::<u64>()) };
    }
    UNIGNORED.store(true, Ordering::Relaxed);
    Ok(())
}

/// All signals blocked and waiting in a signalfd; dropping it restores the mask, unless the program is about to end anyway.
pub struct Signals {
    fd: fds::Left,
    old: SignalMask,
}

impl Signals {
    /// Blocks every signal. Made before the container's process, so that none is lost between its start and the loop.
    ///
    /// SIGCHLD is set back to its default, if [`unignore`] has not done that: when a caller left it ignored, the kernel would reap the
    /// container's process by itself and its status would be gone (waitpid(2), NOTES). Other ignored signals are queued as long as they
    /// are blocked.
    pub fn block() -> Result<Signals> {
        // SAFETY: SIG_DFL is no function of ours.
        if !UNIGNORED.load(Ordering::Relaxed) && unsafe { libc::signal(SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(Errno::last());
        }
        let old = process::block_signals();
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `all`; signalfd reads it and returns a new fd or -1.
        let fd = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::signalfd(-1, all.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        match Errno::result(fd) {
            // SAFETY: the kernel has just made this fd.
            Ok(fd) => Ok(Signals { fd: unsafe { OwnedFd::from_raw_fd(fd) }.into(), old }),
            Err(errno) => {
                process::restore_signals(old);
                Err(errno)
            }
        }
    }

    /// The next signal that arrived, or `None` when there is none.
    pub fn next(&self) -> Result<Option<i32>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` has room for the one struct that is read.
        match Errno::result(unsafe { libc::read(self.as_raw_fd(), info.as_mut_ptr().cast(), size) }) {
            // SAFETY: a signalfd yields whole structs only.
            Ok(_) => Ok(Some(unsafe { info.assume_init() }.ssi_signo as i32)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// A signalfd for some of the signals that are blocked already (in a child of [`crate::process::clone3`] all are).
pub fn waiting<const N: usize>(signals: [i32; N]) -> Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises `set`, sigaddset changes it; signalfd reads it and returns a new fd or -1.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        Errno::result(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC)).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if !fds::leaves_open() {
            process::restore_signals(self.old);
        }
    }
}

/// Whom to reap.
#[derive(Clone, Copy, Debug)]
pub enum Child {
    /// Any child, for a subreaper.
    Any,
    /// This one.
    Pid(i32),
}

/// Reaps one child that has ended, without waiting: its pid and its status as a shell says it, the exit code or 128 + the
/// number of the signal that killed it. `None`: none has ended. ECHILD: there is none (any more).
pub fn reap(child: Child) -> Result<Option<(i32, u8)>> {
    let (kind, id) = match child {
        Child::Any => (libc::P_ALL, 0),
        Child::Pid(pid) => (libc::P_PID, pid as libc::id_t),
    };
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: all-zero is a valid siginfo_t, and its pid of 0 is how waitid tells that nobody has ended.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    loop {
        // SAFETY: `info` has room for the one struct that waitid writes.
        match Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, options) }) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: waitid filled the fields of a SIGCHLD, or left the zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = if info.si_code == libc::CLD_EXITED { status } else { 128 + status };
    Ok(Some((pid, status as u8)))
}

/// kill(2) for one member of a cgroup; refuses the ids 0 and below, which mean process groups.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    if pid <= 0 {
        return Err(Errno::ESRCH);
    }
    // SAFETY: kill takes no pointers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}
