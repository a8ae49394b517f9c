//! Fds that the loop waits for.

use orlop_sys::poll;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use tokio::io::unix::AsyncFd;

/// An fd, registered with the loop.
pub struct Ready<T: AsRawFd>(AsyncFd<T>);

impl<T: AsRawFd + AsFd> Ready<T> {
    /// Registers it; an fd that is read or written must be non-blocking.
    #[expect(
        deprecated,
        reason = "an owner of an fd gives the same number every time, which is all that is asked of it"
    )]
    pub fn new(fd: T) -> io::Result<Ready<T>> {
        AsyncFd::new(fd).map(Ready)
    }

    /// The owner of the fd.
    pub fn get(&self) -> &T {
        self.0.get_ref()
    }

    /// The fd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }

    /// Waits until a read does not have to. What epoll has said may be of an older time, so poll has the last word.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable().await?;
            if now(self.fd(), poll::READ) {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Waits until a write does not have to.
    pub async fn writable(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.writable().await?;
            if now(self.fd(), poll::WRITE) {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

/// Rounds of the event loop in which an answer has certainly been written, or a client let in: several times the handful of tasks that it takes.
const ROUNDS: usize = 32;

/// Lets all tasks of the loop have their turn, those too that wait for an fd which is ready.
pub async fn next_rounds() {
    for _ in 0..ROUNDS {
        tokio::task::yield_now().await;
    }
}

/// Whether one of these events is there.
pub fn now(fd: BorrowedFd<'_>, events: i16) -> bool {
    poll::poll([(Some(fd), events)], 0).is_ok_and(|[got]| got != 0)
}
