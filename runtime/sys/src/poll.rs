//! poll(2) over a fixed set of fds, and the fds that tell of what happens in a cgroup.

use crate::{Errno, Result};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Readable, a peer that hung up, or an error that the next read will tell.
pub const READ: i16 = libc::POLLIN;
/// Writable.
pub const WRITE: i16 = libc::POLLOUT;
/// Broken alone: for the writing end of a pipe, that no reader is left.
pub const BROKEN: i16 = libc::POLLERR;

/// What to wait for on one fd. Without an fd, or with no events, the entry is skipped: poll would report a hang-up even
/// when nobody asked, and a loop that cannot act on it would spin.
pub type Watch<'a> = (Option<BorrowedFd<'a>>, i16);

/// Waits until something happens on one of `watches` or `timeout_ms` are over (-1: no limit) and says for each what is
/// ready; a hang-up, an error and a closed fd count as readable and writable. EINTR is an empty answer.
pub fn poll<const N: usize>(watches: [Watch<'_>; N], timeout_ms: i32) -> Result<[i16; N]> {
    let mut fds = watches.map(|(fd, events)| libc::pollfd {
        fd: fd.filter(|_| events != 0).map_or(-1, |fd| fd.as_raw_fd()),
        events,
        revents: 0,
    });
    // SAFETY: `fds` is an array of N pollfd.
    match Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, timeout_ms) }) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok([0; N]),
        Err(errno) => return Err(errno),
    }
    let broken = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
    Ok(fds.map(|f| if f.revents & broken != 0 { f.events } else { f.revents }))
}

/// Which of these are no open files.
pub fn closed<const N: usize>(fds: [BorrowedFd<'_>; N]) -> Result<[bool; N]> {
    let mut fds = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 });
    loop {
        // SAFETY: `fds` is an array of N pollfd.
        match Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, 0) }) {
            Ok(_) => return Ok(fds.map(|f| f.revents & libc::POLLNVAL != 0)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether `fd` becomes readable within `timeout_ms` (-1: no limit): a pidfd does when its process has ended. A signal
/// in between does not cut the time short.
pub fn readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool> {
    let end = u64::try_from(timeout_ms).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut left = timeout_ms;
    loop {
        if poll([(Some(fd), READ)], left)? != [0] {
            return Ok(true);
        }
        let Some(end) = end else { continue };
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(false);
        }
        // Rounded up, so that the last wait does not become a busy one.
        left = (rest.as_millis() as i32).saturating_add(1);
    }
}

/// eventfd(2): a counter that a v1 cgroup can be told to raise. Reads do not wait.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this fd.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// inotify(7): readable when the file at `path` changes. Reads do not wait.
pub fn changes(path: &CStr) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
    // SAFETY: the kernel has just made this fd.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `path` is a C string that the kernel only reads.
    Errno::result(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) })?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn readable_waits_as_long_as_it_was_told_and_no_longer() {
        let (read, write) = crate::file::pipe().unwrap();
        let begin = Instant::now();
        assert_eq!(readable(read.as_fd(), 30), Ok(false));
        assert!(begin.elapsed() >= Duration::from_millis(30));
        assert_eq!(readable(read.as_fd(), 0), Ok(false));
        drop(write);
        assert_eq!(readable(read.as_fd(), -1), Ok(true));
    }

    #[test]
    fn the_writing_end_of_a_pipe_tells_that_its_readers_are_gone() {
        let (read, write) = crate::file::pipe().unwrap();
        assert_eq!(poll([(Some(write.as_fd()), BROKEN)], 0), Ok([0]));
        drop(read);
        assert_eq!(poll([(Some(write.as_fd()), BROKEN)], 0), Ok([BROKEN]));
    }
}
