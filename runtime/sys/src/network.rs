//! Network namespaces: the loopback interface of a new one (netdevice(7)), and the socket by which devices are moved (rtnetlink(7)).

use crate::{Errno, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket for rtnetlink(7), which speaks of the caller's network namespace from now on; close-on-exec.
pub fn route_socket() -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this fd.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets `lo` of the caller's network namespace up; the kernel then gives it its addresses.
pub fn loopback_up() -> Result<()> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this fd.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // A fresh `lo` has no other flag that this would clear.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}
