//! The own executable: is it out of reach for writers, and how to run on from a copy that is (CVE-2019-5736).

use crate::{Errno, Result, file, mount};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

const SELF: &CStr = c"/proc/self/exe";
/// Whole seal set of memfd_create(2): what is sealed stays sealed, and no byte can change.
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
/// `MFD_EXEC` of linux/memfd.h (6.3): asks for an executable memfd where `vm.memfd_noexec` would refuse one by default.
const MFD_EXEC: u32 = 0x10;

/// struct statfs of the 64-bit architectures (asm-generic/statfs.h).
#[repr(C)]
#[derive(Default)]
struct KernelStatfs {
    kind: i64,
    /// Sizes, counts, the id, the length of names.
    numbers: [u64; 9],
    /// ST_*, of the mount and of the file system together (statfs(2)).
    flags: u64,
    spare: [u64; 4],
}

/// Whether nobody can write to the executable of this process through `/proc/PID/exe`: its mount is read-only, or it is
/// a memfd with a write seal. One statfs(2) in the usual case.
#[allow(clippy::unnecessary_cast, reason = "the types differ between libcs")]
pub fn is_sealed() -> Result<bool> {
    let mut fs = KernelStatfs::default();
    // SAFETY: SELF is NUL-terminated, and `fs` is what the kernel fills. The raw call: the struct of some libcs lacks the flags.
    Errno::result(unsafe { libc::syscall(libc::SYS_statfs, SELF.as_ptr(), &raw mut fs) })?;
    if fs.flags & libc::ST_RDONLY as u64 != 0 {
        return Ok(true);
    }
    // The two on which memfds are.
    if ![libc::TMPFS_MAGIC as i64, libc::HUGETLBFS_MAGIC as i64].contains(&fs.kind) {
        return Ok(false);
    }
    let exe = file::open(SELF, libc::O_RDONLY, 0)?;
    // EINVAL for what is no memfd. SAFETY: F_GET_SEALS takes no argument and `exe` is open.
    let seals = unsafe { libc::fcntl(exe.as_raw_fd(), libc::F_GET_SEALS) };
    Ok(seals >= 0 && seals & libc::F_SEAL_WRITE != 0)
}

/// A detached, read-only clone of the mount that holds the executable. Needs CAP_SYS_ADMIN over the mount namespace,
/// open_tree(2) and mount_setattr(2) (5.12): EPERM, ENOSYS or EINVAL otherwise.
pub fn read_only_clone() -> Result<OwnedFd> {
    let tree = mount::clone_tree(None, SELF, false, false)?;
    let read_only = mount::Attr { set: mount::attr::RDONLY, ..mount::Attr::default() };
    mount::set_attr(tree.as_fd(), &read_only, false)?;
    Ok(tree)
}

/// A copy of the executable in a memfd with every seal; needs no privilege.
pub fn sealed_copy(name: &CStr) -> Result<OwnedFd> {
    let exe = file::open(SELF, libc::O_RDONLY, 0)?;
    let copy = executable_memfd(name)?;
    loop {
        // At most 2 GiB - 4 KiB at once; 0 is the end of the file.
        match file::sendfile(copy.as_fd(), exe.as_fd(), 0x7fff_f000) {
            Ok(0) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: F_ADD_SEALS takes an int and `copy` is open.
    Errno::result(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(copy)
}

unsafe extern "C" {
    /// The environment of this process (environ(7)).
    static environ: *const *const libc::c_char;
}

/// Replaces this process by the program in `fd`, which should be close-on-exec; returns only when that failed. The environment is ours,
/// with `mark`, a `NAME=value`, in place of what it has by that name. Allocates two arrays of pointers.
pub fn exec(fd: BorrowedFd<'_>, argv: &[CString], mark: &CStr) -> Errno {
    let name = mark.to_bytes().split_inclusive(|b| *b == b'=').next().unwrap_or_default();
    let argv: Vec<_> = argv.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    let mut envp = Vec::with_capacity(64);
    // SAFETY: environ is an array of pointers to strings with a null pointer behind the last; this process has one thread, so nobody
    // changes it meanwhile.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            if !CStr::from_ptr(*next).to_bytes().starts_with(name) {
                envp.push(*next);
            }
            next = next.add(1);
        }
    }
    envp.extend([mark.as_ptr(), ptr::null()]);
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
