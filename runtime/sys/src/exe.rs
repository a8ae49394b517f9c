//! The own executable: is it out of reach for writers, and how to run on from a copy that is (CVE-2019-5736).

use crate::{Errno, Result};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

const SELF: &CStr = c"/proc/self/exe";
/// Whole seal set of memfd_create(2): what is sealed stays sealed, and no byte can change.
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
/// `MFD_EXEC` of linux/memfd.h (6.3): asks for an executable memfd where `vm.memfd_noexec` would refuse one by default.
const MFD_EXEC: u32 = 0x10;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Whether nobody can write to the executable of this process through `/proc/PID/exe`: its mount is read-only, or it is
/// a memfd with a write seal. One statfs(2) in the usual case.
pub fn is_sealed() -> Result<bool> {
    let mut fs = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: SELF is NUL-terminated and `fs` has room for the one struct that statvfs writes.
    Errno::result(unsafe { libc::statvfs(SELF.as_ptr(), fs.as_mut_ptr()) })?;
    // SAFETY: statvfs succeeded, so it filled the struct.
    if unsafe { fs.assume_init() }.f_flag & libc::ST_RDONLY != 0 {
        return Ok(true);
    }
    let exe = open_self()?;
    // EINVAL for what is no memfd. SAFETY: F_GET_SEALS takes no argument and `exe` is open.
    let seals = unsafe { libc::fcntl(exe.as_raw_fd(), libc::F_GET_SEALS) };
    Ok(seals >= 0 && seals & libc::F_SEAL_WRITE != 0)
}

/// A detached, read-only clone of the mount that holds the executable. Needs CAP_SYS_ADMIN over the mount namespace,
/// open_tree(2) and mount_setattr(2) (5.12): EPERM, ENOSYS or EINVAL otherwise.
pub fn read_only_clone() -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: SELF is NUL-terminated; the call returns a new fd or -1.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, SELF.as_ptr(), flags) })?;
    // SAFETY: the kernel has just handed out this fd and nobody else knows it.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attr = MountAttr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: `attr` is a mount_attr of the size that is passed, the path is empty and NUL-terminated.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(tree)
}

/// A copy of the executable in a memfd with every seal; needs no privilege.
pub fn sealed_copy(name: &CStr) -> Result<OwnedFd> {
    let exe = open_self()?;
    let copy = executable_memfd(name)?;
    loop {
        // sendfile(2) moves at most 2 GiB - 4 KiB at once; 0 is the end of the file.
        // SAFETY: both fds are open; a null offset means the file's own position.
        let n = unsafe { libc::sendfile(copy.as_raw_fd(), exe.as_raw_fd(), ptr::null_mut(), 0x7fff_f000) };
        match Errno::result(n) {
            Ok(0) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: F_ADD_SEALS takes an int and `copy` is open.
    Errno::result(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(copy)
}

/// Replaces this process by the program in `fd`, which should be close-on-exec; returns only when that failed.
/// Allocates the two pointer arrays.
pub fn exec(fd: BorrowedFd<'_>, argv: &[CString], envp: &[CString]) -> Errno {
    let argv = pointers(argv);
    let envp = pointers(envp);
    // SAFETY: both arrays end in a null pointer and point to NUL-terminated strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Sets the name that ps(1) shows (15 bytes count): after an execveat of an fd it would be the fd's number.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// The effective user id of this process.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of this process.
pub fn effective_gid() -> u32 {
    // SAFETY: getegid has no arguments and cannot fail.
    unsafe { libc::getegid() }
}

fn open_self() -> Result<OwnedFd> {
    // SAFETY: SELF is NUL-terminated; the call returns a new fd or -1.
    let fd = Errno::result(unsafe { libc::open(SELF.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just handed out this fd and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn executable_memfd(name: &CStr) -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let open = |flags: u32| {
        // SAFETY: `name` is NUL-terminated; the call returns a new fd or -1.
        Errno::result(unsafe { libc::memfd_create(name.as_ptr(), flags) })
    };
    let fd = match open(flags | MFD_EXEC) {
        Err(Errno::EINVAL) => open(flags),
        answer => answer,
    }?;
    // SAFETY: the kernel has just handed out this fd and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}
