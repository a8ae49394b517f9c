//! poll(2) over a fixed set of fds.

use crate::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Readable, a peer that hung up, or an error that the next read will tell.
pub const READ: i16 = libc::POLLIN;
/// Writable.
pub const WRITE: i16 = libc::POLLOUT;

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
