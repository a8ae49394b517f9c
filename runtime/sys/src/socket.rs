//! Messages with at most one fd: the SEQPACKET pair between parent and init, and the sockets that callers name.

use crate::{Errno, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A connected pair, close-on-exec. SEQPACKET keeps frames apart and tells when the other side is gone.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: fds is a valid place for two numbers.
    Errno::result(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    })?;
    // SAFETY: the kernel has just made both fds.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A stream socket (close-on-exec, not blocking) connected to the AF_UNIX address: a path, or after a NUL byte an abstract
/// name. EAGAIN: the listener's queue is full at the moment.
pub fn connect(address: &[u8]) -> Result<OwnedFd> {
    // SAFETY: sockaddr_un is plain data for which all zeroes is a valid value.
    let mut to: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    // A path keeps a NUL at its end.
    if address.is_empty() || address.len() >= to.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    to.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in to.sun_path.iter_mut().zip(address) {
        *place = *byte as libc::c_char;
    }
    // The NUL is part of neither form's length.
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + address.len();
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the kernel has just made the fd.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `to` is a live address of which `length` bytes are meant.
    Errno::result(unsafe { libc::connect(fd.as_raw_fd(), (&raw const to).cast(), length as libc::socklen_t) })?;
    Ok(fd)
}

/// A control buffer with room and alignment for exactly one fd.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    space: [u8; 64],
}

/// sendmsg(2) of one frame, with `fd` as SCM_RIGHTS; EPIPE instead of SIGPIPE when the other side is gone. On a stream socket
/// (console, pidfd, seccomp agent) the frame must not be empty: the fd would be dropped.
pub fn send(socket: BorrowedFd, frame: &[u8], fd: Option<BorrowedFd>) -> Result<()> {
    let mut iov = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
    let mut control = Control { space: [0; 64] };
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    if let Some(fd) = fd {
        msg.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE only computes.
        msg.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
        // SAFETY: msg_control points at a buffer of at least that length, so the first header lies inside it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&msg);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
    }
    loop {
        // SAFETY: msg and all that it points at live until the call returns.
        let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &msg, libc::MSG_NOSIGNAL) };
        match Errno::result(n) {
            Ok(n) if n as usize == frame.len() => return Ok(()),
            // Only a stream socket can take a part of it.
            Ok(_) => return Err(Errno::EMSGSIZE),
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
        }
    }
}

/// shutdown(2), both ways: the other side reads its end, though fds of this one may still be open.
pub fn shut_down(socket: BorrowedFd) -> Result<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) }).map(drop)
}

/// recvmsg(2) of one frame into `buf`; its length (0: the other side is gone) and the fd that came with it.
pub fn recv(socket: BorrowedFd, buf: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut control = Control { space: [0; 64] };
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_LEN only computes. CMSG_SPACE would, by its padding, be room for a second fd, which nobody would close.
    msg.msg_controllen = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as u32) } as _;
    let n = loop {
        // SAFETY: msg and all that it points at live until the call returns.
        let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut msg, libc::MSG_CMSG_CLOEXEC) };
        match Errno::result(n) {
            Err(Errno::EINTR) => continue,
            other => break other? as usize,
        }
    };
    // SAFETY: the kernel filled msg_controllen; CMSG_FIRSTHDR is null when no header fits.
    let header = unsafe { libc::CMSG_FIRSTHDR(&msg) };
    if header.is_null() {
        return Ok((n, None));
    }
    // SAFETY: header points into control, which the kernel filled.
    let is_fd = unsafe { (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS };
    if !is_fd {
        return Ok((n, None));
    }
    // SAFETY: an SCM_RIGHTS message carries at least one fd, which is now ours; there was room for one only.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()) };
    Ok((n, Some(fd)))
}
