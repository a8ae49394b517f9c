//! `tmpcopyup`: what a directory of the image holds is copied into the tmpfs that covers it. No allocation.

use orlop_sys::{Errno, file};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// How deep a tree is copied; each level needs one buffer of the stack.
const DEEPEST: u32 = 128;

/// Copies the contents of `from` (an O_PATH fd of the covered directory) into `to`.
pub fn directory(from: BorrowedFd, to: BorrowedFd) -> Result<(), Errno> {
    let from = file::openat(from, c".", file::O_RDONLY | file::O_DIRECTORY, 0)?;
    contents(from.as_fd(), to, DEEPEST)
}

fn contents(from: BorrowedFd, to: BorrowedFd, deeper: u32) -> Result<(), Errno> {
    let mut buf = [0u8; 4096];
    loop {
        let n = file::read_dir(from, &mut buf)?;
        if n == 0 {
            return Ok(());
        }
        for name in file::entries(buf.get(..n).unwrap_or_default()) {
            entry(from, to, name, deeper)?;
        }
    }
}

fn entry(from: BorrowedFd, to: BorrowedFd, name: &CStr, deeper: u32) -> Result<(), Errno> {
    let st = file::lstatat(from, name)?;
    let mode = st.mode & 0o7777;
    match st.mode & file::S_IFMT {
        file::S_IFDIR => {
            let deeper = deeper.checked_sub(1).ok_or(Errno::ELOOP)?;
            file::mkdirat(to, name, 0o700)?;
            let source = file::openat(from, name, file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW, 0)?;
            let copy = file::openat(to, name, file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW, 0)?;
            contents(source.as_fd(), copy.as_fd(), deeper)?;
            own(copy.as_fd(), &st)?;
            file::fchmod(copy.as_fd(), mode)
        }
        file::S_IFREG => {
            let source = file::openat(from, name, file::O_RDONLY | file::O_NOFOLLOW | file::O_NONBLOCK, 0)?;
            let flags = file::O_WRONLY | file::O_CREAT | file::O_EXCL | file::O_NOFOLLOW;
            let copy = file::openat(to, name, flags, 0o600)?;
            while file::sendfile(copy.as_fd(), source.as_fd(), 1 << 30)? > 0 {}
            own(copy.as_fd(), &st)?;
            // After the owner: chown clears set-id bits.
            file::fchmod(copy.as_fd(), mode)
        }
        file::S_IFLNK => {
            let mut buf = [0u8; file::PATH_MAX];
            let length = file::readlinkat(from, name, buf.get_mut(..file::PATH_MAX - 1).unwrap_or_default())?.len();
            let target =
                CStr::from_bytes_with_nul(buf.get(..=length).unwrap_or_default()).map_err(|_| Errno::EINVAL)?;
            file::symlinkat(target, to, name)?;
            file::lchownat(to, name, st.uid, st.gid)
        }
        // Devices, fifos and sockets.
        _ => {
            file::mknodat(to, name, st.mode, st.rdev)?;
            file::lchownat(to, name, st.uid, st.gid)
        }
    }
}

fn own(fd: BorrowedFd, st: &file::Stat) -> Result<(), Errno> {
    file::fchown(fd, st.uid, st.gid)
}
