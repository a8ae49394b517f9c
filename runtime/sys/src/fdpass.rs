//! One message with one fd over a connected AF_UNIX socket: console, pidfd and barrier messages.

use crate::{Errno, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Room for one `cmsghdr` with one fd, aligned as the kernel wants it.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 64],
}

/// Sends `payload` with exactly one SCM_RIGHTS fd in one sendmsg(2). The payload must not be empty: a stream socket drops
/// the fd of an empty message.
pub fn send(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let mut control = Control { bytes: [0; 64] };
    let mut iov = libc::iovec { iov_base: payload.as_ptr() as *mut libc::c_void, iov_len: payload.len() };
    // SAFETY: all-zero is a valid msghdr; its private padding (musl) must be zero.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_SPACE only computes; `control` (64 bytes) holds CMSG_SPACE(4) = 24 on 64-bit Linux; CMSG_FIRSTHDR
    // points into it, and the fd is written unaligned behind the header that has just been filled.
    unsafe {
        msg.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const msg);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), fd.as_raw_fd());
    }
    loop {
        // SAFETY: `msg` points to the iovec, the payload and the control buffer, which all live until the return.
        match Errno::result(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, libc::MSG_NOSIGNAL) }) {
            Ok(n) if n as usize == payload.len() => return Ok(()),
            Ok(_) => return Err(Errno::EMSGSIZE),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
