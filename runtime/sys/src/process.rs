//! Processes: clone3 and everything that a new process does to itself before it executes the user's program.

use crate::{Errno, Result, file, status};
use libc::{c_int, c_ulong};
use std::cell::Cell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The limit of open files (getrlimit(2)); the same on the architectures that we know.
#[allow(clippy::unnecessary_cast, reason = "the types differ between libcs")]
pub const RLIMIT_NOFILE: u32 = libc::RLIMIT_NOFILE as u32;
pub use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_PARENT,
    SIGCHLD, SIGCONT, SIGKILL, SIGPIPE, SIGTERM,
};

/// CLONE_NEWTIME (time_namespaces(7)); lies in clone's signal byte, so only clone3, unshare and setns take it.
pub const CLONE_NEWTIME: c_int = 0x80;

/// A set of signals as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalMask(u64);

fn sigprocmask(how: c_int, new: u64) -> SignalMask {
    let mut old = 0u64;
    // SAFETY: both pointers are to 8 bytes, the size of the kernel's sigset. The raw call is used because libc's own
    // keeps its internal signals out of the set. It fails only on bad arguments.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &new, &mut old, size_of::<u64>()) };
    SignalMask(old)
}

/// Whether [`block_signals`] holds: nobody else changes the mask, and there is one thread.
static BLOCKED: AtomicBool = AtomicBool::new(false);
/// What [`block_signals`] gives when it had nothing to do. The kernel has no such mask: SIGKILL is never blocked.
const AS_IT_IS: SignalMask = SignalMask(u64::MAX);

/// Blocks every signal; the mask from before is for [`restore_signals`].
pub fn block_signals() -> SignalMask {
    if BLOCKED.swap(true, Ordering::Relaxed) { AS_IT_IS } else { sigprocmask(libc::SIG_BLOCK, u64::MAX) }
}

/// Sets the mask back to what it was.
pub fn restore_signals(mask: SignalMask) {
    if mask != AS_IT_IS {
        BLOCKED.store(false, Ordering::Relaxed);
        sigprocmask(libc::SIG_SETMASK, mask.0);
    }
}

/// Unblocks every signal and undoes the ignoring of SIGPIPE that Rust's start-up does: what a new program expects.
/// Handlers have gone with CLONE_CLEAR_SIGHAND, and what our caller ignores with [`crate::signal::unignore`].
pub fn reset_signals() {
    // SAFETY: SIG_DFL is no function of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    BLOCKED.store(false, Ordering::Relaxed);
    sigprocmask(libc::SIG_SETMASK, 0);
}

/// A child made by [`clone3`]: its pid in our pid namespace, and a pidfd.
#[derive(Debug)]
pub struct Child {
    /// The pid as we see it.
    pub pid: i32,
    /// Refers to this very process, whatever becomes of the pid.
    pub pidfd: OwnedFd,
}

/// clone3(2): runs `child` in a new process with `flags` (CLONE_NEW*, CLONE_PARENT), born inside `cgroup` (v2) when given.
///
/// The process must have one thread: in the child of a process with more, a lock may be held for ever. The child starts with every signal blocked
/// and handlers reset; it must not allocate, and it cannot return: the closure gives an exit status.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd>, child: impl FnOnce() -> u8) -> Result<Child> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    if file::stat(c"/proc/self/task")?.nlink != 3 {
        return Err(Errno::EDEADLK);
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    args.flags = flags | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    let mask = block_signals();
    // SAFETY: without CLONE_VM the child has its own copy of memory, and the one thread continues on the same stack.
    // The raw call skips libc's fork handlers, which is sound because there is one thread and the child only makes
    // system calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        let guard = ExitGuard;
        let status = child();
        std::mem::forget(guard);
        exit(status);
    }
    restore_signals(mask);
    let pid = Errno::result(pid)? as i32;
    // SAFETY: CLONE_PIDFD has stored a new fd.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// fork(2): runs `child` in a copy of this process, which must have one thread; the child may then do what any process may.
/// The closure gives its exit status.
pub fn fork(child: impl FnOnce() -> u8) -> Result<Child> {
    if file::stat(c"/proc/self/task")?.nlink != 3 {
        return Err(Errno::EDEADLK);
    }
    // SAFETY: with one thread no lock is held in the child, and libc's own fork sets right what it keeps of the process.
    let pid = Errno::result(unsafe { libc::fork() })?;
    if pid == 0 {
        let guard = ExitGuard;
        let status = child();
        std::mem::forget(guard);
        exit(status);
    }
    // A child that has ended stays until it is reaped, and so does its pid.
    match pidfd_open(pid) {
        Ok(pidfd) => Ok(Child { pid, pidfd }),
        Err(e) => {
            // SAFETY: plain numbers and no place for a status; the pid is our child's until the second call reaps it.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                while libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) < 0 && Errno::last() == Errno::EINTR {}
            }
            Err(e)
        }
    }
}

/// This process ends when its parent `parent` does, by SIGKILL; when that has ended already, ESRCH.
pub fn end_with(parent: u32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0)?;
    // The parent may have ended before the call took effect.
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// A child that does nothing until it is killed, or until its parent ends.
pub fn clone_sleeper() -> Result<Child> {
    // SAFETY: cannot fail, no pointers.
    let parent = unsafe { libc::getpid() };
    clone3(0, None, || {
        // SAFETY: no pointers; the parent may have ended before the first call took effect.
        if prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0).is_ok() && unsafe { libc::getppid() } == parent {
            loop {
                // SAFETY: no pointers. Every signal but SIGKILL is blocked.
                unsafe { libc::pause() };
            }
        }
        1
    })
}

/// Gives the process group a core scheduling cookie of its own (PR_SCHED_CORE, 5.14), which its children inherit: no other process runs beside them
/// on the threads of one core. EINVAL: the kernel has no core scheduling; ENODEV: no core has several threads.
pub fn own_cores() -> Result<()> {
    const PROCESS_GROUP: c_ulong = 2;
    // SAFETY: plain numbers; a pid of 0 is ourselves.
    let r = unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_CREATE, 0, PROCESS_GROUP, 0) };
    Errno::result(r).map(drop)
}

/// Before [`hold`]: this process ends when its parent does, until its credentials change, and what comes to it, as the first process of a pid
/// namespace, is reaped by the kernel.
pub fn prepare_to_hold() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0)?;
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    Ok(())
}

/// Does nothing until it is killed. Of system calls, pause(2) or ppoll(2) alone, as the libc has it.
pub fn hold() -> ! {
    loop {
        // SAFETY: no pointers.
        unsafe { libc::pause() };
    }
}

/// Keeps a panic in the child from unwinding into code that belongs to the parent.
struct ExitGuard;

impl Drop for ExitGuard {
    fn drop(&mut self) {
        exit(255);
    }
}

/// _exit(2): ends the process at once, running nothing.
pub fn exit(status: u8) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// unsetenv(3), for a variable that neither this process nor its children shall have.
pub fn forget_variable(name: &str) -> Result<()> {
    if file::stat(c"/proc/self/task")?.nlink != 3 {
        return Err(Errno::EDEADLK);
    }
    // SAFETY: there is no other thread that could read the environment at the same time.
    unsafe { std::env::remove_var(name) };
    Ok(())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(u8),
    /// It was killed by this signal.
    Signal(i32),
}

impl Exit {
    /// What a shell would give: the status, or 128 + the signal.
    pub fn code(self) -> u8 {
        match self {
            Exit::Status(s) => s,
            Exit::Signal(n) => (128 + n) as u8,
        }
    }
}

/// waitid(2) on a pidfd of a child of ours; reaps it. `None` when it has not ended and `wait` is false.
pub fn wait(pidfd: BorrowedFd, wait: bool) -> Result<Option<Exit>> {
    // SAFETY: siginfo is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    let options = libc::WEXITED | libc::__WALL | if wait { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: info is a valid place for a siginfo structure.
        let r = unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &mut info, options) };
        match Errno::result(r) {
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    // SAFETY: the call succeeded, so these fields are the ones that it filled (or zero).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Exit::Status(status as u8)),
        _ => Some(Exit::Signal(status)),
    })
}

/// pidfd_open(2).
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this fd.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_send_signal(2). Signal 0 only asks whether the process is there.
pub fn pidfd_signal(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo means the same as kill(2).
    let r = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    Errno::result(r).map(drop)
}

/// setns(2) into what `fd` refers to: a namespace file, or a pidfd with several CLONE_NEW* flags at once (5.8).
pub fn setns(fd: BorrowedFd, flags: c_int) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// The kind of a namespace file, as a CLONE_NEW* flag (ioctl_ns(2)); ENOTTY when it is none.
pub fn namespace_kind(fd: BorrowedFd) -> Result<c_int> {
    const NS_GET_NSTYPE: u64 = 0xb703;
    // SAFETY: this request takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) })
}

/// The user namespace that a namespace belongs to (ioctl_ns(2)); `None`: it is ours.
pub fn foreign_owner(fd: BorrowedFd) -> Result<Option<OwnedFd>> {
    const NS_GET_USERNS: u64 = 0xb701;
    // SAFETY: this request takes no argument and gives a new fd or -1.
    let owner = Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _) })?;
    // SAFETY: the kernel has just made this fd and nobody else knows it.
    let owner = unsafe { OwnedFd::from_raw_fd(owner) };
    let ours = file::stat(c"/proc/self/ns/user")?;
    let theirs = file::fstat(owner.as_fd())?;
    Ok(((theirs.dev, theirs.ino) != (ours.dev, ours.ino)).then_some(owner))
}

/// unshare(2).
pub fn unshare(flags: c_int) -> Result<()> {
    // SAFETY: plain numbers; the process has one thread.
    Errno::result(unsafe { libc::unshare(flags) }).map(drop)
}

fn prctl(option: c_int, a: c_ulong, b: c_ulong) -> Result<c_int> {
    // SAFETY: every option used here takes plain numbers (PR_SET_NAME: see its caller).
    Errno::result(unsafe { libc::prctl(option, a, b, 0 as c_ulong, 0 as c_ulong) })
}

/// PR_SET_DUMPABLE: 0 keeps /proc/PID and ptrace from everyone but root of the initial user namespace (CVE-2016-9962).
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, c_ulong::from(on), 0).map(drop)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// PR_SET_KEEPCAPS: permitted capabilities survive the change of uid.
pub fn set_keep_caps(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, c_ulong::from(on), 0).map(drop)
}

/// PR_CAPBSET_DROP of one capability; EINVAL for a number that the kernel does not have.
pub fn drop_bounding(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability), 0).map(drop)
}

/// PR_CAPBSET_READ: whether the bounding set has it; EINVAL for a number that the kernel does not have.
pub fn in_bounding(capability: u8) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, c_ulong::from(capability), 0).map(|r| r == 1)
}

/// PR_CAP_AMBIENT_RAISE of one capability, which must be permitted and inheritable.
pub fn raise_ambient(capability: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, c_ulong::from(capability)).map(drop)
}

/// PR_SET_CHILD_SUBREAPER.
pub fn set_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map(drop)
}

/// PR_SET_NAME: at most 15 bytes count.
pub fn set_name(name: &CStr) -> Result<()> {
    prctl(libc::PR_SET_NAME, name.as_ptr() as c_ulong, 0).map(drop)
}

/// From now on /proc/PID/cmdline shows this name alone, and /proc/PID/environ nothing: for a copy of a program that others may see. Whoever reads
/// the arguments or the variables that the program was started with finds them empty afterwards.
pub fn hide_arguments(name: &CStr) -> Result<()> {
    // Fields 48 to 51 of proc_pid_stat(5): arg_start, arg_end, env_start, env_end. The second one, in parentheses, may have blanks.
    let text = std::fs::read_to_string("/proc/self/stat").map_err(|_| Errno::EIO)?;
    let (_, fields) = text.rsplit_once(") ").ok_or(Errno::EIO)?;
    let mut fields = fields.split(' ').skip(48 - 3).map(|field| field.parse().unwrap_or(0_usize));
    for text in [name.to_bytes(), b""] {
        let (Some(start), Some(end)) = (fields.next(), fields.next()) else { return Err(Errno::EIO) };
        let len = end.saturating_sub(start);
        if start == 0 || len == 0 {
            continue;
        }
        // SAFETY: the kernel tells the bounds of what it has put on the stack at execve(2), which stays mapped and writable. Pointers of the libc's
        // into it still find strings there: all is NUL from the end of the text on, the last byte always.
        unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(start);
            place.write_bytes(0, len);
            place.copy_from(text.as_ptr(), text.len().min(len - 1));
        }
    }
    Ok(())
}

/// The sets of capset(2), one bit a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What the process may use now.
    pub effective: u64,
    /// What it may put into effect.
    pub permitted: u64,
    /// What a program with inheritable file capabilities gets.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// capset(2) of this process.
pub fn set_capabilities(caps: &Capabilities) -> Result<()> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (caps.effective >> shift) as u32,
        permitted: (caps.permitted >> shift) as u32,
        inheritable: (caps.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data structures.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) }).map(drop)
}

/// capget(2) of this process.
pub fn capabilities() -> Result<Capabilities> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 takes a header and fills two data structures.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) })?;
    let join = |f: fn(&CapData) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(Capabilities {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// The permitted capabilities of this process.
pub fn permitted() -> Result<u64> {
    status::known().map_or_else(|| capabilities().map(|all| all.permitted), |own| Ok(own.permitted))
}

/// setresuid(2), all three the same. The raw call: libc's own would signal other threads.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: plain numbers; the process has one thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// setresgid(2), all three the same.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: plain numbers; the process has one thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setgroups(2) to exactly this list (CVE-2022-36109).
pub fn set_groups(gids: &[u32]) -> Result<()> {
    // SAFETY: gids is valid for its length.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }).map(drop)
}

/// The effective uid.
pub fn euid() -> u32 {
    // SAFETY: cannot fail.
    status::known().map_or_else(|| unsafe { libc::geteuid() }, |own| own.euid)
}

/// The effective gid.
pub fn egid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::getegid() }
}

/// The pid of a process with one thread that no clone3 of ours has made: musl has it from the start.
pub fn own_pid() -> i32 {
    // SAFETY: cannot fail.
    unsafe { libc::gettid() }
}

/// The pid in the caller's own pid namespace. The raw call: a libc may remember the parent's across clone3.
pub fn pid() -> i32 {
    // SAFETY: cannot fail.
    unsafe { libc::syscall(libc::SYS_getpid) as i32 }
}

/// umask(2); the mask from before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) }
}

/// setsid(2): a new session without a terminal.
pub fn setsid() -> Result<()> {
    // SAFETY: no arguments.
    Errno::result(unsafe { libc::setsid() }).map(drop)
}

/// sethostname(2).
pub fn set_hostname(name: &[u8]) -> Result<()> {
    // SAFETY: name is valid for its length.
    Errno::result(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// setdomainname(2).
pub fn set_domainname(name: &[u8]) -> Result<()> {
    // SAFETY: name is valid for its length.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: path is NUL-terminated.
    Errno::result(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// fchdir(2); works on O_PATH fds.
pub fn fchdir(fd: BorrowedFd) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::fchdir(fd.as_raw_fd()) }).map(drop)
}

/// chroot(2).
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: path is NUL-terminated.
    Errno::result(unsafe { libc::chroot(path.as_ptr()) }).map(drop)
}

/// Whether the working directory lies below the root: the kernel's getcwd(2) gives `(unreachable)` for one that does
/// not (CVE-2024-21626). The raw call, because libc's own hides that answer.
pub fn cwd_is_inside_root() -> Result<bool> {
    // Not initialised: what is not written to costs the container no memory.
    let mut buf = MaybeUninit::<[u8; file::PATH_MAX]>::uninit();
    // SAFETY: buf is valid for its length.
    let n = unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), file::PATH_MAX) };
    Errno::result(n)?;
    // SAFETY: the call succeeded, so the kernel wrote a string of at least one byte.
    Ok(unsafe { buf.as_ptr().cast::<u8>().read() } == b'/')
}

/// A null-terminated array of C strings, for execve(2): made before the clone, so that the child need not allocate.
#[derive(Debug)]
pub struct Strings {
    owned: Vec<std::ffi::CString>,
    /// In cells for [`exec_with`].
    pointers: Vec<Cell<*const libc::c_char>>,
}

impl Strings {
    /// Takes the strings; the heap blocks that they own do not move with the vector.
    pub fn new(owned: Vec<std::ffi::CString>) -> Strings {
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).map(Cell::new).collect();
        Strings { owned, pointers }
    }

    /// The strings.
    pub fn list(&self) -> &[std::ffi::CString] {
        &self.owned
    }
}

/// execve(2); returns only when that failed.
pub fn exec(path: &CStr, args: &Strings, env: &Strings) -> Errno {
    // SAFETY: path is NUL-terminated, both arrays are null-terminated and their strings live as long as they do.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr().cast(), env.pointers.as_ptr().cast()) };
    Errno::last()
}

/// [`exec`] with the entry `index` of the environment replaced by `value`, up to its NUL; in place, as nothing may be allocated, and a copy
/// on the stack would be memory that the container is charged for. EINVAL: it has no NUL, or there is no such entry.
pub fn exec_with(path: &CStr, args: &Strings, env: &Strings, index: usize, value: &[Cell<u8>]) -> Errno {
    // The last place is that of the null pointer.
    let entry = env.pointers.get(index).filter(|_| index < env.owned.len());
    let (Some(entry), true) = (entry, value.iter().any(|byte| byte.get() == 0)) else { return Errno::EINVAL };
    let old = entry.replace(value.as_ptr().cast());
    let errno = exec(path, args, env);
    entry.set(old);
    errno
}

/// prlimit(2): sets a limit of the process `pid` (0: this one).
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit is an rlimit64 structure; a null pointer means that the old one is not wanted.
    let r =
        unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &limit, std::ptr::null_mut::<libc::rlimit64>()) };
    Errno::result(r).map(drop)
}

/// A limit of this process: (soft, hard).
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null pointer means that nothing is set; limit is a valid place for the old one.
    let r = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &mut limit) };
    Errno::result(r)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a session keyring of this name; its serial number.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: name is NUL-terminated.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr(), 0, 0, 0) };
    Errno::result(r).map(|serial| serial as i32)
}

/// keyctl(2) KEYCTL_SETPERM.
pub fn set_key_permissions(serial: i32, permissions: u32) -> Result<()> {
    const KEYCTL_SETPERM: c_int = 5;
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, permissions, 0, 0) }).map(drop)
}

/// personality(2).
pub fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_personality, c_ulong::from(persona)) }).map(drop)
}

/// The first version of struct sched_attr (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this structure.
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Of SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub period: u64,
    /// Lowest utilisation, 0 to 1024.
    pub util_min: u32,
    /// Highest utilisation, 0 to 1024.
    pub util_max: u32,
}

/// sched_setattr(2) of this process.
pub fn set_scheduler(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: attr carries its own size.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0) }).map(drop)
}

/// ioprio_set(2) of this process; `value` is class << 13 | level.
pub fn set_io_priority(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// sched_setaffinity(2) of this process; bit n of word n / 64 is CPU n.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: mask is valid for its length in bytes.
    let r = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    Errno::result(r).map(drop)
}

/// set_mempolicy(2) of this process: an MPOL_* mode with MPOL_F_* flags; bit n of word n / 64 is memory node n.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one bit less than it is told of (get_nodes in mm/mempolicy.c).
    let bits = nodes.len() * 64 + 1;
    // SAFETY: nodes is valid for its length.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, c_ulong::from(mode), nodes.as_ptr(), bits) })
        .map(drop)
}

/// Nanoseconds of CLOCK_MONOTONIC, for deadlines.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: now is a valid place for a timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
