//! Mounts: the classic call and the fd-based ones (5.2, mount_setattr 5.12).

use crate::{Errno, Result};
use libc::{c_long, c_ulong};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

pub use libc::{
    MNT_DETACH, MS_BIND, MS_DIRSYNC, MS_I_VERSION, MS_MANDLOCK, MS_MOVE, MS_NOATIME, MS_NODEV, MS_NODIRATIME,
    MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE,
    MS_STRICTATIME, MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// Symbolic links on this mount are not followed (5.10).
pub const MS_NOSYMFOLLOW: c_ulong = 256;
/// Timestamps are written lazily.
pub const MS_LAZYTIME: c_ulong = 1 << 25;

/// The attributes of mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes have no effect.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The access-time attributes form one value; a change clears all of it first.
    pub const ATIME: u64 = 0x70;
    /// The default: access times relative to modification.
    pub const RELATIME: u64 = 0x0;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are shifted by a user namespace's maps.
    pub const IDMAP: u64 = 0x10_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// 0, or one of MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE.
    pub propagation: u64,
    /// The user namespace for [`attr::IDMAP`].
    pub userns_fd: u64,
}

fn owned(fd: c_long) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this fd and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn pointer(s: Option<&CStr>) -> *const libc::c_char {
    s.map_or(std::ptr::null(), CStr::as_ptr)
}

/// mount(2). `target` is `.` (the caller has entered the verified directory) or a path that is trusted.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fs: Option<&CStr>,
    flags: c_ulong,
    data: Option<&CStr>,
) -> Result<()> {
    // SAFETY: every string is NUL-terminated or null, which mount(2) allows.
    let r = unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(fs), flags, pointer(data).cast()) };
    Errno::result(r).map(drop)
}

/// umount2(2).
pub fn unmount(target: &CStr, flags: i32) -> Result<()> {
    // SAFETY: target is NUL-terminated.
    Errno::result(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at `path`, with what is mounted below it when `recursive`.
pub fn clone_tree(dir: Option<BorrowedFd>, path: &CStr, recursive: bool, nofollow: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    if nofollow {
        flags |= libc::AT_SYMLINK_NOFOLLOW as u32;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: path is NUL-terminated.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// move_mount(2) of a detached tree onto what `target` refers to: no path is walked.
pub fn attach(tree: BorrowedFd, target: BorrowedFd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty NUL-terminated strings.
    let r = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), flags)
    };
    Errno::result(r).map(drop)
}

/// move_mount(2) of a detached tree onto `name` in the directory `dir`; a symlink of that name is not followed, so that it is an error.
pub fn attach_at(tree: BorrowedFd, dir: BorrowedFd, name: &CStr) -> Result<()> {
    // SAFETY: the first path is an empty NUL-terminated string, and name is NUL-terminated.
    let r = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(r).map(drop)
}

/// mount_setattr(2) (5.12) on the mount that `fd` is the root of, and on all below it when `recursive`.
pub fn set_attr(fd: BorrowedFd, attr: &Attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string and attr is a mount_attr of the size given.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr as *const Attr,
            size_of::<Attr>(),
        )
    };
    Errno::result(r).map(drop)
}

/// mount_setattr(2) with MOUNT_ATTR_IDMAP: the ids of a detached mount, and of all below it when `recursive`, are shown as the user
/// namespace maps them.
pub fn idmap(tree: BorrowedFd, userns: BorrowedFd, recursive: bool) -> Result<()> {
    let userns_fd = userns.as_raw_fd() as u64;
    set_attr(tree, &Attr { set: attr::IDMAP, userns_fd, ..Attr::default() }, recursive)
}

/// fsopen(2): a configuration context for a new file system.
pub fn fsopen(fs: &CStr) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: fs is NUL-terminated.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, fs.as_ptr(), FSOPEN_CLOEXEC) })
}

/// fsconfig(2) with FSCONFIG_SET_STRING.
pub fn fsconfig_string(fs: BorrowedFd, key: &CStr, value: &CStr) -> Result<()> {
    const FSCONFIG_SET_STRING: u32 = 1;
    // SAFETY: key and value are NUL-terminated.
    let r = unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    };
    Errno::result(r).map(drop)
}

/// fsconfig(2) with FSCONFIG_SET_FLAG.
pub fn fsconfig_flag(fs: BorrowedFd, key: &CStr) -> Result<()> {
    const FSCONFIG_SET_FLAG: u32 = 0;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: key is NUL-terminated; a flag has no value.
    let r = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_FLAG, key.as_ptr(), null, 0) };
    Errno::result(r).map(drop)
}

/// fsconfig(2) with FSCONFIG_CMD_CREATE, then fsmount(2): a detached mount of a new file system.
pub fn fsmount(fs: BorrowedFd, attributes: u64) -> Result<OwnedFd> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither a key nor a value.
    let r = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) };
    Errno::result(r)?;
    // SAFETY: plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// pivot_root(2) of the working directory over itself: the old root ends up stacked on top of the new one, at `.`, to
/// be unmounted from there, so no directory inside the rootfs is needed (pivot_root(2), NOTES).
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: both paths are NUL-terminated.
    Errno::result(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}
