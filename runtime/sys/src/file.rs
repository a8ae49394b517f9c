//! Files, always relative to a directory fd and never through a symlink that leaves it.

use crate::{Errno, Result};
use libc::{c_int, c_long};
use std::cell::Cell;
use std::ffi::CStr;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

pub use libc::{
    AT_EMPTY_PATH, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH,
    O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG,
};

/// Every component stays below the directory fd, as if it were the root (openat2(2), CVE-2021-30465).
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Below the directory fd, no symlink at all, no mount crossed.
pub const STRICT: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
/// As [`IN_ROOT`], but a symlink anywhere is an error (ELOOP): for /proc and /sys (CVE-2019-19921).
pub const IN_ROOT_NO_SYMLINKS: u64 = IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
/// Below the directory fd without crossing a mount; ordinary symlinks such as /proc/self are followed.
pub const BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_XDEV;

/// The same, mounts crossed.
pub const BELOW: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;

/// The value of `f_type` of procfs (statfs(2)).
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// The value of `f_type` of sysfs (statfs(2)).
pub const SYSFS_MAGIC: i64 = 0x6265_6572;
/// The value of `f_type` of tmpfs (statfs(2)).
pub const TMPFS_MAGIC: i64 = 0x0102_1994;
/// The value of `f_type` of devpts (statfs(2)).
pub const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// The value of `f_type` of cgroup v2 (statfs(2)).
pub const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// What stat(2) says of a file, as far as a runtime asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links; of a directory of procfs or of a classic file system two plus its sub-directories.
    pub nlink: u64,
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: i64,
}

impl Stat {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }

    /// Whether it is a character device with this number.
    pub fn is_char(&self, major: u32, minor: u32) -> bool {
        self.mode & S_IFMT == S_IFCHR && self.rdev == device(major, minor)
    }
}

/// A device number as the kernel packs it (makedev(3)).
pub fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// The major part of a device number (makedev(3)).
pub fn major(device: u64) -> u32 {
    libc::major(device)
}

/// The minor part of a device number (makedev(3)).
pub fn minor(device: u64) -> u32 {
    libc::minor(device)
}

fn owned(fd: c_long) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this fd and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// openat2(2): opens `path` relative to `dir`; `resolve` is one of the constants above. Close-on-exec always.
pub fn openat2(dir: BorrowedFd, path: &CStr, flags: c_int, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain data for which all zeroes is a valid value.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = (flags | O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    loop {
        // SAFETY: path is NUL-terminated and how is a valid open_how of the size given.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &how, size_of::<libc::open_how>())
        };
        match owned(fd) {
            // A rename or mount somewhere made the walk unsafe to judge: the manual says to try again.
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// open(2) of a path that is trusted: one of the host's own. Close-on-exec always.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    openat_raw(libc::AT_FDCWD, path, flags, mode)
}

/// open(2) of a trusted path under the lowest free number, kept open across execve(2) and never closed.
pub fn open_for_good(path: &CStr, flags: c_int) -> Result<()> {
    // SAFETY: path is NUL-terminated.
    Errno::result(unsafe { libc::open(path.as_ptr(), flags) }).map(drop)
}

/// openat(2), for a last component that cannot be a symlink or under a directory that nobody else can write.
pub fn openat(dir: BorrowedFd, path: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    openat_raw(dir.as_raw_fd(), path, flags, mode)
}

fn openat_raw(dir: RawFd, path: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    loop {
        // SAFETY: path is NUL-terminated; the other arguments are plain numbers.
        let fd = unsafe { libc::openat(dir, path.as_ptr(), flags | O_CLOEXEC, mode) };
        match owned(c_long::from(fd)) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
fn to_stat(st: &libc::stat) -> Stat {
    Stat {
        mode: st.st_mode,
        rdev: st.st_rdev,
        uid: st.st_uid,
        gid: st.st_gid,
        nlink: st.st_nlink as u64,
        dev: st.st_dev,
        ino: st.st_ino,
        size: st.st_size,
    }
}

/// fstat(2); works on O_PATH fds.
pub fn fstat(fd: BorrowedFd) -> Result<Stat> {
    let mut st = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: st is a valid place for a stat structure.
    Errno::result(unsafe { libc::fstat(fd.as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel filled it.
    Ok(to_stat(unsafe { st.assume_init_ref() }))
}

/// fstatat(2) of a name in `dir`, not following it when it is a symlink.
pub fn lstatat(dir: BorrowedFd, name: &CStr) -> Result<Stat> {
    statat(dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW)
}

/// stat(2), following symlinks: only for paths in which that is meant.
pub fn stat(path: &CStr) -> Result<Stat> {
    statat(libc::AT_FDCWD, path, 0)
}

fn statat(dir: RawFd, name: &CStr, flags: c_int) -> Result<Stat> {
    let mut st = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: name is NUL-terminated and st is a valid place for a stat structure.
    Errno::result(unsafe { libc::fstatat(dir, name.as_ptr(), st.as_mut_ptr(), flags) })?;
    // SAFETY: the call succeeded, so the kernel filled it.
    Ok(to_stat(unsafe { st.assume_init_ref() }))
}

/// The file system type (`f_type` of fstatfs(2)) that a file is on; works on O_PATH fds.
#[allow(clippy::unnecessary_cast, reason = "the type differs between libcs")]
pub fn fs_type(fd: BorrowedFd) -> Result<i64> {
    let mut st = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: st is a valid place for a statfs structure.
    Errno::result(unsafe { libc::fstatfs(fd.as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel filled it.
    Ok(unsafe { st.assume_init_ref() }.f_type as i64)
}

/// The flags of [`mount_flags`] that take something away: read-only, nosuid, nodev, noexec.
pub const ST_RESTRICTING: u64 = 1 | 2 | 4 | 8;
/// The flags of [`mount_flags`] about access times: noatime, nodiratime, relatime.
pub const ST_ATIME: u64 = 1024 | 2048 | 4096;

/// The ST_* flags of the mount that a file is on, and of its file system (`f_flag` of fstatvfs(3)).
pub fn mount_flags(fd: BorrowedFd) -> Result<u64> {
    let mut st = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: st is a valid place for a statvfs structure.
    Errno::result(unsafe { libc::fstatvfs(fd.as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so libc filled it.
    Ok(unsafe { st.assume_init_ref() }.f_flag)
}

/// Whether a file is the root of a mount (STATX_ATTR_MOUNT_ROOT of statx(2), 5.8).
pub fn is_mount_root(fd: BorrowedFd) -> Result<bool> {
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let mut st = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the path is an empty NUL-terminated string and st is a valid place for a statx structure.
    let r = unsafe {
        libc::syscall(libc::SYS_statx, fd.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_TYPE, st.as_mut_ptr())
    };
    Errno::result(r)?;
    // SAFETY: the call succeeded, so the kernel filled it.
    Ok(unsafe { st.assume_init_ref() }.stx_attributes & STATX_ATTR_MOUNT_ROOT != 0)
}

/// `self/fd/N` of an fd, below a procfs. Allocates nothing.
pub fn own_fd_path<'b>(buf: &'b mut [u8; 32], fd: BorrowedFd) -> Result<&'b CStr> {
    let mut digits = [0u8; 10];
    let mut number = fd.as_raw_fd();
    let mut at = digits.len();
    while at == digits.len() || number > 0 {
        at -= 1;
        *digits.get_mut(at).ok_or(Errno::EINVAL)? = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let text = b"self/fd/".iter().chain(digits.get(at..).unwrap_or_default()).chain(&[0]);
    buf.iter_mut().zip(text).for_each(|(place, byte)| *place = *byte);
    CStr::from_bytes_until_nul(buf).map_err(|_| Errno::EINVAL)
}

/// mkdirat(2): one new directory.
pub fn mkdirat(dir: BorrowedFd, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: name is NUL-terminated.
    Errno::result(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2): a device node, fifo or empty regular file; never follows a symlink and never opens what it makes.
pub fn mknodat(dir: BorrowedFd, name: &CStr, mode: u32, device: u64) -> Result<()> {
    // SAFETY: name is NUL-terminated.
    Errno::result(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop)
}

/// symlinkat(2).
pub fn symlinkat(target: &CStr, dir: BorrowedFd, name: &CStr) -> Result<()> {
    // SAFETY: both strings are NUL-terminated.
    Errno::result(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// unlinkat(2) of a file that is not a directory.
pub fn unlinkat(dir: BorrowedFd, name: &CStr) -> Result<()> {
    // SAFETY: name is NUL-terminated.
    Errno::result(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// readlinkat(2) into `buf`; the link's text, cut at the buffer's end.
pub fn readlinkat<'b>(dir: BorrowedFd, name: &CStr, buf: &'b mut [u8]) -> Result<&'b [u8]> {
    // SAFETY: name is NUL-terminated and buf is valid for its length.
    let n = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
    let n = Errno::result(n)? as usize;
    Ok(buf.get(..n).unwrap_or_default())
}

/// readlink(2) of a trusted path, as [`readlinkat`].
pub fn readlink<'b>(path: &CStr, buf: &'b mut [u8]) -> Result<&'b [u8]> {
    // SAFETY: path is NUL-terminated and buf is valid for its length.
    let n = unsafe { libc::readlink(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
    Ok(buf.get(..Errno::result(n)? as usize).unwrap_or_default())
}

/// fchownat(2) of a name in `dir`, not following it when it is a symlink.
pub fn lchownat(dir: BorrowedFd, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: name is NUL-terminated.
    Errno::result(unsafe { libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) })
        .map(drop)
}

/// fchown(2).
pub fn fchown(fd: BorrowedFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }).map(drop)
}

/// fchmod(2).
pub fn fchmod(fd: BorrowedFd, mode: u32) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }).map(drop)
}

/// chmod(2) of what an O_PATH fd refers to, which fchmod(2) does not take: through the fd's own link in `proc`, a procfs.
pub fn chmod_path_fd(proc: BorrowedFd, fd: BorrowedFd, mode: u32) -> Result<()> {
    let mut buf = [0; 32];
    let link = own_fd_path(&mut buf, fd)?;
    // SAFETY: link is NUL-terminated.
    Errno::result(unsafe { libc::fchmodat(proc.as_raw_fd(), link.as_ptr(), mode, 0) }).map(drop)
}

/// fchownat(2) of what an O_PATH fd refers to.
pub fn chown_path_fd(fd: BorrowedFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the path is an empty NUL-terminated string.
    let r = unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) };
    Errno::result(r).map(drop)
}

/// Whether the caller's effective ids may execute `path` (faccessat2(2) with AT_EACCESS, 5.8).
pub fn executable(path: &CStr) -> Result<()> {
    // SAFETY: path is NUL-terminated.
    let r = unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    Errno::result(r).map(drop)
}

/// read(2), again when interrupted.
pub fn read(fd: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: buf is valid for its length.
        let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        match Errno::result(n) {
            Err(Errno::EINTR) => continue,
            other => return other.map(|n| n as usize),
        }
    }
}

/// Reads on to the end: until a read gives nothing, or, with `at_once`, until one leaves room, which tells the end of a file that the kernel
/// makes as a whole (proc(5)).
pub fn read_all(fd: BorrowedFd, at_once: bool) -> Result<Vec<u8>> {
    let (mut text, mut page) = (Vec::new(), [0; 4096]);
    let last = if at_once { page.len() - 1 } else { 0 };
    loop {
        let n = read(fd, &mut page)?;
        text.extend_from_slice(page.get(..n).unwrap_or_default());
        if n <= last {
            return Ok(text);
        }
    }
}

/// write(2) once, again when interrupted: kernel files (procfs, cgroups) take a value in one call or not at all.
pub fn write(fd: BorrowedFd, data: &[u8]) -> Result<usize> {
    loop {
        // SAFETY: data is valid for its length.
        let n = unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) };
        match Errno::result(n) {
            Err(Errno::EINTR) => continue,
            other => return other.map(|n| n as usize),
        }
    }
}

/// Copies at most `len` bytes within the kernel (sendfile(2)); how many were copied.
pub fn sendfile(out: BorrowedFd, input: BorrowedFd, len: usize) -> Result<usize> {
    // SAFETY: a null offset means the file position of `input`.
    let n = unsafe { libc::sendfile(out.as_raw_fd(), input.as_raw_fd(), std::ptr::null_mut(), len) };
    Errno::result(n).map(|n| n as usize)
}

/// lseek(2) to an absolute offset.
pub fn seek(fd: BorrowedFd, offset: i64) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::lseek(fd.as_raw_fd(), offset, libc::SEEK_SET) }).map(drop)
}

/// dup3(2) onto 0, 1 or 2: the copy is not close-on-exec.
pub fn dup_to_stdio(fd: BorrowedFd, to: RawFd) -> Result<()> {
    dup_to(fd, to)
}

/// dup3(2) onto a number that nobody in this process owns, or 0, 1 or 2: the copy is not close-on-exec.
pub fn dup_to(fd: BorrowedFd, to: RawFd) -> Result<()> {
    if fd.as_raw_fd() == to {
        return Ok(());
    }
    // SAFETY: replacing what stands at `to` is what the caller asks for; std's handles 0..=2 stay valid fds.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), to, 0) }).map(drop)
}

/// Marks every fd from `first` up close-on-exec (close_range(2) with CLOSE_RANGE_CLOEXEC, 5.11), so that none leaks
/// into the container (CVE-2024-21626).
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: plain numbers; no fd is closed, so no owner is invalidated.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(r).map(drop)
}

/// Keeps an fd open across execve(2), under its number.
pub fn keep_on_exec(fd: BorrowedFd) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }).map(drop)
}

/// dup3(2) of an fd over another one that is open; the copy stays open across execve(2).
pub fn put_over(fd: BorrowedFd, over: BorrowedFd) -> Result<()> {
    // SAFETY: the owner of `over` still owns an open fd of that number.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), over.as_raw_fd(), 0) }).map(drop)
}

/// Takes over an fd from 3 on that our caller has given us by its number, if it can be written to. EBADF also for one that
/// is close-on-exec: it did not come with our execve, so it is another part's of this process.
pub fn adopt_writable(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let (mode, kept) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::fcntl(fd, libc::F_GETFD)) };
    let (mode, kept) = (Errno::result(mode)?, Errno::result(kept)?);
    if fd < 3 || mode & libc::O_ACCMODE == libc::O_RDONLY || kept & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the fd is open, and all that this process has opened itself is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every fd from `first` up but those of `keep` (in any order; negative: none). Only for a process that ends by execve or
/// _exit, so that the owner of a number never closes it again.
pub fn close_others<const N: usize>(first: u32, mut keep: [i32; N]) -> Result<()> {
    keep.sort_unstable();
    // Their numbers are others' from here on.
    LEFT.set(0);
    let mut from = first;
    for fd in keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()).filter(|fd| *fd >= first) {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the process uses none of these numbers again, which its callers see to.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(r).map(drop)
}

/// Closes fds, those with numbers in a row by one call.
pub fn close_all(fds: Vec<OwnedFd>) {
    let mut numbers: Vec<u32> = fds.into_iter().map(|fd| fd.into_raw_fd() as u32).collect();
    numbers.sort_unstable();
    for row in numbers.chunk_by(|a, b| a + 1 == *b) {
        if let (Some(first), Some(last)) = (row.first(), row.last()) {
            // It cannot fail on fds that are open.
            let _ = close_range(*first, *last);
        }
    }
}

/// Fds below it are left open by [`Left`]; no number is as large as a bit of [`LEFT`] has room for.
static LEFT_BELOW: AtomicI32 = AtomicI32::new(0);
thread_local! {
    /// The numbers that are left open now. A static would lie in a page of its own, of which the container would be charged for the
    /// child's copy; this one lies beside `errno`.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// From now on [`Left`] leaves fds open: for a program that does one thing and ends. `most` is how many files it may have open (the
/// soft limit of RLIMIT_NOFILE): where that is little, each is closed at once. So are those with a number from 60 up: the kernel makes a
/// larger table for more than 64, and a list in config.json may be long.
pub fn leave_open(most: u64) {
    const BELOW: i32 = 60;
    const ROOMY: u64 = 256;
    LEFT_BELOW.store(if most < ROOMY { 0 } else { BELOW }, Ordering::Relaxed);
}

/// Whether [`leave_open`] holds.
pub fn leaves_open() -> bool {
    LEFT_BELOW.load(Ordering::Relaxed) > 0
}

/// Closes what [`Left`] has left open so far, those with numbers in a row by one call: before a wait that may last, and before others
/// do what an open file would be in the way of, as unmounting is.
pub fn close_left() {
    let mut left = LEFT.take();
    while left != 0 {
        let first = left.trailing_zeros();
        let row = (left >> first).trailing_ones();
        // It cannot fail on fds that are open.
        let _ = close_range(first, first + row - 1);
        left &= !(u64::MAX >> (64 - row) << first);
    }
}

/// An fd that is not worth a close(2) of its own where the process is about to end, or closes all at once ([`close_others`],
/// [`close_left`]). Whoever puts a lock, or a pipe or socket with another end, in it lets go of that in another way (flock(2),
/// shutdown(2)) where somebody waits for it.
#[derive(Debug)]
pub struct Left(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for Left {
    fn from(fd: OwnedFd) -> Left {
        Left(ManuallyDrop::new(fd))
    }
}

impl AsFd for Left {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let number = self.0.as_raw_fd();
        if number < LEFT_BELOW.load(Ordering::Relaxed) {
            LEFT.set(LEFT.get() | 1 << number);
        } else {
            // SAFETY: the value is not used again.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// Closes, in the child of a clone, its copy of an fd that belongs to the parent. Only for a process that ends by execve or
/// _exit, so that the owner of the number never closes it again.
pub fn close_copy(fd: BorrowedFd) {
    // SAFETY: the child never drops the parent's owner of this number.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// The fds of the standard streams. Those of std come with buffers that are allocated at the first use.
pub fn stdio() -> [BorrowedFd<'static>; 3] {
    // SAFETY: start-up (Rust's, or ours) opens what is closed of these, and nobody closes them.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Whether `fd` is open, and stays so across execve(2): what the caller has left us does, and nothing that we have opened.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: plain numbers.
    matches!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, flags if flags >= 0 && flags & libc::FD_CLOEXEC == 0)
}

/// flock(2), exclusive; waits when `wait`, else EWOULDBLOCK says that another process holds it.
pub fn lock(fd: BorrowedFd, wait: bool) -> Result<()> {
    let op = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
    loop {
        // SAFETY: plain numbers.
        match Errno::result(unsafe { libc::flock(fd.as_raw_fd(), op) }) {
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

/// flock(2) LOCK_UN: for every process that has a copy of this fd.
pub fn unlock(fd: BorrowedFd) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) }).map(drop)
}

/// The longest path that the walkers below take, with its NUL.
pub const PATH_MAX: usize = 4096;

/// Opens a directory below `root` as if `root` were `/`, making what is missing (mode 0755) on the way: each new
/// component is made by mkdirat in a directory that is held by fd (CVE-2024-45310). A symlink to something missing is followed, so
/// that what it names is made, below `root` as well. Allocates nothing.
pub fn mkdir_all_in_root(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    make_in_root(root, path, O_DIRECTORY)
}

/// [`mkdir_all_in_root`], or with `kind` 0 the same for a file whose last component is made empty.
fn make_in_root(root: BorrowedFd, path: &CStr, kind: c_int) -> Result<OwnedFd> {
    match openat2(root, path, O_PATH | kind, 0, IN_ROOT) {
        Err(Errno::ENOENT) => make_missing_in_root(root, path, kind),
        there => there,
    }
}

/// By itself: the pages of its stack are charged to the container, which need not pay for what is there.
#[inline(never)]
fn make_missing_in_root(root: BorrowedFd, path: &CStr, kind: c_int) -> Result<OwnedFd> {
    /// As many as the kernel follows in one path (path_resolution(7)).
    const MOST_LINKS: u32 = 40;
    let mut text = [0u8; PATH_MAX];
    join(&mut text, [path.to_bytes(), &[], &[]])?;
    for _ in 0..MOST_LINKS {
        let mut next = [0u8; PATH_MAX];
        match make_components(root, c_text(&text)?, kind, &mut next)? {
            Walked::Made(fd) => return Ok(fd),
            Walked::Link => text = next,
        }
    }
    Err(Errno::ELOOP)
}

/// Where [`make_components`] came to.
enum Walked {
    /// The end of the path.
    Made(OwnedFd),
    /// A symlink to something missing; the path with its target in place of it has been written.
    Link,
}

fn make_components(root: BorrowedFd, path: &CStr, kind: c_int, next: &mut [u8; PATH_MAX]) -> Result<Walked> {
    let mut buf = [0u8; PATH_MAX];
    let bytes = path.to_bytes();
    let mut parent = openat2(root, c".", O_PATH | O_DIRECTORY, 0, IN_ROOT)?;
    let mut end = 0;
    loop {
        let rest = bytes.get(end..).unwrap_or_default();
        let Some(start) = rest.iter().position(|b| *b != b'/').map(|skip| end + skip) else {
            return Ok(Walked::Made(parent));
        };
        let length = bytes.get(start..).unwrap_or_default().iter().take_while(|b| **b != b'/').count();
        end = start + length;
        let kind = if end == bytes.len() { kind } else { O_DIRECTORY };
        let prefix = c_prefix(&mut buf, bytes, end)?;
        parent = match openat2(root, prefix, O_PATH | kind, 0, IN_ROOT) {
            Err(Errno::ENOENT) => {
                let name = prefix.to_bytes_with_nul().get(start..).ok_or(Errno::EINVAL)?;
                let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EINVAL)?;
                let made = match kind {
                    O_DIRECTORY => mkdirat(parent.as_fd(), name, 0o755),
                    _ => mknodat(parent.as_fd(), name, S_IFREG | 0o644, 0),
                };
                if made == Err(Errno::EEXIST) {
                    let mut link = [0u8; PATH_MAX];
                    match readlinkat(parent.as_fd(), name, &mut link) {
                        Ok(target) => {
                            let before = if target.first() == Some(&b'/') {
                                &[]
                            } else {
                                bytes.get(..start).unwrap_or_default()
                            };
                            join(next, [before, target, bytes.get(end..).unwrap_or_default()])?;
                            return Ok(Walked::Link);
                        }
                        // No symlink: another process has made it in the meantime.
                        Err(Errno::EINVAL) => {}
                        Err(e) => return Err(e),
                    }
                } else {
                    made?;
                }
                openat2(parent.as_fd(), name, O_PATH | kind | O_NOFOLLOW, 0, STRICT & !libc::RESOLVE_NO_XDEV)?
            }
            other => other?,
        };
    }
}

/// The parts one after the other in `buf`, as a C string.
fn join(buf: &mut [u8; PATH_MAX], parts: [&[u8]; 3]) -> Result<()> {
    let bytes = parts.into_iter().flatten().chain(&[0]);
    if bytes.clone().count() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    buf.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    Ok(())
}

fn c_text(buf: &[u8; PATH_MAX]) -> Result<&CStr> {
    CStr::from_bytes_until_nul(buf).map_err(|_| Errno::EINVAL)
}

/// The first `end` bytes of a path as a C string in `buf`.
fn c_prefix<'b>(buf: &'b mut [u8; PATH_MAX], bytes: &[u8], end: usize) -> Result<&'b CStr> {
    let part = bytes.get(..end).ok_or(Errno::EINVAL)?;
    buf.get_mut(..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(part);
    *buf.get_mut(end).ok_or(Errno::ENAMETOOLONG)? = 0;
    CStr::from_bytes_with_nul(buf.get(..=end).unwrap_or_default()).map_err(|_| Errno::EINVAL)
}

/// Opens (O_PATH) a file below `root` as if `root` were `/`, making an empty one, and the directories to it, when it is missing.
/// Allocates nothing.
pub fn touch_in_root(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    make_in_root(root, path, 0)
}

/// The directory of a path below `root`, made when it is missing, and the path's last component.
#[inline(never)]
pub fn parent_in_root<'p>(root: BorrowedFd, path: &'p CStr) -> Result<(OwnedFd, &'p CStr)> {
    let bytes = path.to_bytes();
    let slash = bytes.iter().rposition(|b| *b == b'/');
    let name = path.to_bytes_with_nul().get(slash.map_or(0, |s| s + 1)..).ok_or(Errno::EINVAL)?;
    let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EINVAL)?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let mut buf = [0u8; PATH_MAX];
    let parent = c_prefix(&mut buf, bytes, slash.unwrap_or(0))?;
    let parent = if parent.is_empty() { c"." } else { parent };
    Ok((mkdir_all_in_root(root, parent)?, name))
}

/// memfd_create(2), close-on-exec: an anonymous file for a child's output.
pub fn memfd(name: &CStr) -> Result<OwnedFd> {
    // SAFETY: name is NUL-terminated.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) };
    owned(fd)
}

/// ftruncate(2).
pub fn truncate(fd: BorrowedFd, len: i64) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::ftruncate(fd.as_raw_fd(), len) }).map(drop)
}

/// A pipe, both ends close-on-exec: (reader, writer).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: fds is a valid place for two numbers.
    Errno::result(unsafe { libc::pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    Ok((owned(c_long::from(fds[0]))?, owned(c_long::from(fds[1]))?))
}

/// splice(2) between two pipes, without waiting: how many bytes moved (0: no writer is left). EAGAIN: the one is empty, or the
/// other full.
pub fn splice(from: BorrowedFd, to: BorrowedFd, len: usize) -> Result<usize> {
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: null offsets, as pipes want it; otherwise plain numbers.
    let n = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), len, flags) };
    Errno::result(n).map(|n| n as usize)
}

/// How many bytes of a pipe nobody has read yet (FIONREAD); either end tells.
pub fn unread(pipe: BorrowedFd) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD as _, &raw mut bytes) })?;
    Ok(bytes as usize)
}

/// getdents64(2): fills `buf` with entries of an open directory; 0 at its end. [`entries`] reads them.
pub fn read_dir(dir: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: buf is valid for its length.
    let n = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
    Errno::result(n).map(|n| n as usize)
}

/// The names in what [`read_dir`] filled, `.` and `..` left out.
pub fn entries(data: &[u8]) -> impl Iterator<Item = &CStr> {
    typed_entries(data).map(|(name, _)| name)
}

/// [`entries`], each with its file type as in [`Stat::mode`], if the file system tells.
pub fn typed_entries(mut data: &[u8]) -> impl Iterator<Item = (&CStr, Option<u32>)> {
    /// d_ino, d_off, d_reclen, d_type (getdents64(2)).
    const RECLEN_AT: usize = 16;
    const TYPE_AT: usize = 18;
    const NAME_AT: usize = 19;
    std::iter::from_fn(move || {
        loop {
            let &[low, high] = data.get(RECLEN_AT..RECLEN_AT + 2)? else { return None };
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let kind = u32::from(*data.get(TYPE_AT)?) << 12;
            let entry = data.get(NAME_AT..length)?;
            data = data.get(length..)?;
            let name = CStr::from_bytes_until_nul(entry).ok()?;
            if !matches!(name.to_bytes(), b"." | b"..") {
                return Some((name, Some(kind).filter(|kind| *kind != 0)));
            }
        }
    })
}
