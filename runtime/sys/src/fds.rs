//! Numbers of fds: copies of them, which stay open across execve(2), and closing many with few calls.

use crate::{Errno, Result};
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

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
