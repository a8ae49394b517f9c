//! Files, always relative to a directory fd and never through a symlink that leaves it.

use crate::{Errno, Result};
use libc::{c_int, c_long};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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
