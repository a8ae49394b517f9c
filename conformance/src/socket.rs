//! Receiving ends of the sockets that a runtime sends file descriptors to.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::check::Failure;

/// How long to wait for what a runtime sends, or a terminal shows.
pub const LIMIT: Duration = Duration::from_secs(20);

/// One message of a stream socket: its bytes and the descriptors that came with it.
pub struct Message {
    /// The payload.
    pub bytes: Vec<u8>,
    /// The descriptors, in order.
    pub fds: Vec<OwnedFd>,
}

/// A listening socket.
pub struct Receiver(UnixListener);

impl Receiver {
    /// Listens at `path`, which must not exist.
    pub fn bind(path: &Path) -> Result<Self, Failure> {
        Ok(Self(UnixListener::bind(path)?))
    }

    /// The first message of the next connection; fails when none comes in time.
    pub fn message(&self) -> Result<Message, Failure> {
        readable(&self.0, LIMIT)?;
        let (stream, _) = self.0.accept()?;
        readable(&stream, LIMIT)?;
        let mut bytes = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty())?.bytes;
        bytes.truncate(received);
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        Ok(Message { bytes, fds })
    }
}

/// Waits until a descriptor can be read, or fails after `limit`.
pub fn readable(fd: &impl std::os::fd::AsFd, limit: Duration) -> Result<(), Failure> {
    let limit = Timespec::try_from(limit).map_err(|_| Failure("the time limit is out of range".into()))?;
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit))? {
        0 => Err(Failure("nothing came over the socket".into())),
        _ => Ok(()),
    }
}
