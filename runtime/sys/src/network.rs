//! Network namespaces: the loopback interface of a new one (netdevice(7)), and the socket by which devices are moved (rtnetlink(7)).

use crate::{Errno, Result, fds};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A socket for rtnetlink(7), which speaks of the caller's network namespace from now on; close-on-exec. It is connected to the
/// kernel: in a namespace that is not ours alone, another process with CAP_NET_ADMIN could else answer in its place.
pub fn route_socket() -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this fd.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_nl is plain data for which all zeroes is a valid value.
    let mut kernel: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
    kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `kernel` is a live address of this length.
    Errno::result(unsafe { libc::connect(fd.as_raw_fd(), (&raw const kernel).cast(), length) })?;
    Ok(fd)
}

/// Sets `lo` of the caller's network namespace up; the kernel then gives it its addresses.
pub fn loopback_up() -> Result<()> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this fd.
    let socket = fds::Left::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // A fresh `lo` has no other flag that this would clear.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    Errno::result(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_can_answer() {
        let [ours, other] = [route_socket().unwrap(), route_socket().unwrap()];
        // SAFETY: sockaddr_nl is plain data for which all zeroes is a valid value.
        let mut at: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `at` is a place of this length.
        let r = unsafe { libc::getsockname(ours.as_raw_fd(), (&raw mut at).cast(), &raw mut length) };
        Errno::result(r).unwrap();
        let to = (&raw const at).cast();
        // SAFETY: 16 bytes of a message, and a live address of this length.
        let sent = unsafe { libc::sendto(other.as_raw_fd(), [0u8; 16].as_ptr().cast(), 16, 0, to, length) };
        // Who is not root may not send at all.
        assert!(matches!(Errno::result(sent), Err(Errno::ECONNREFUSED | Errno::EPERM)), "{sent}");
    }
}
