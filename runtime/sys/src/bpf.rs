//! bpf(2): programs of type CGROUP_DEVICE; seccomp(2): filters with and without a listener.

use crate::{Errno, Result};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Log every outcome but ALLOW (seccomp(2)).
pub const SECCOMP_FILTER_FLAG_LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// Leave Speculative Store Bypass as it is (seccomp(2)).
pub const SECCOMP_FILTER_FLAG_SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
/// Answer a listener's fd (seccomp(2), seccomp_unotify(2)).
pub const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
/// A call that the listener has received waits on, but for fatal signals; needs a listener (Linux 5.19).
pub const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The most instructions that the kernel takes in one filter (BPF_MAXINSNS, linux/bpf_common.h).
pub const MAX_INSNS: usize = 4096;

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Insn {
    /// A = the 32-bit word at byte `k` of `struct seccomp_data`.
    pub const LOAD: u16 = 0x20;
    /// A &= k.
    pub const AND: u16 = 0x54;
    /// Skip `k` instructions.
    pub const JUMP: u16 = 0x05;
    /// A == k?
    pub const JUMP_EQ: u16 = 0x15;
    /// A > k, unsigned?
    pub const JUMP_GT: u16 = 0x25;
    /// A >= k, unsigned?
    pub const JUMP_GE: u16 = 0x35;
    /// The call's outcome is `k`, a SECCOMP_RET_* with its data.
    pub const RETURN: u16 = 0x06;
}

/// Puts a filter on the calling thread (seccomp(2), SECCOMP_SET_MODE_FILTER). Gives the listener's fd when `flags` has
/// [`SECCOMP_FILTER_FLAG_NEW_LISTENER`]. Needs no_new_privs or CAP_SYS_ADMIN: EACCES otherwise.
pub fn seccomp_set_filter(filter: &[Insn], flags: u32) -> Result<Option<OwnedFd>> {
    let Ok(len) = u16::try_from(filter.len()) else { return Err(Errno::EINVAL) };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: `program` names `len` instructions of the layout of sock_filter, which the kernel only reads.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let ret = RawFd::try_from(Errno::result(ret)?).map_err(|_| Errno::EOVERFLOW)?;
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        // With SECCOMP_FILTER_FLAG_TSYNC the kernel answers the id of a thread that could not follow.
        return if ret == 0 { Ok(None) } else { Err(Errno::ESRCH) };
    }
    // SAFETY: with NEW_LISTENER the kernel answers a new fd that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret) }))
}

/// Whether the kernel knows this action: a SECCOMP_RET_* without data (seccomp(2), SECCOMP_GET_ACTION_AVAIL).
pub fn seccomp_action_avail(action: u32) -> Result<bool> {
    // SAFETY: the kernel reads one u32.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    match Errno::result(ret) {
        Ok(_) => Ok(true),
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether the kernel knows these SECCOMP_FILTER_FLAG_*. Asked with a filter at address 0, which is read last of all: EFAULT
/// is a yes, EINVAL a no (seccomp(2)).
pub fn seccomp_flags_known(flags: u32) -> Result<bool> {
    // The kernel takes this one only beside NEW_LISTENER.
    let listener = flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0;
    let flags = if listener { flags | SECCOMP_FILTER_FLAG_NEW_LISTENER } else { flags };
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel refuses the null pointer, so no filter comes into force.
    match Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) }) {
        Err(Errno::EFAULT) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::EIO),
    }
}
