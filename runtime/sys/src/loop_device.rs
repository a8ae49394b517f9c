//! Loop devices: a file as a block device (loop(4)).

use crate::{Errno, Result, file};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// loop(4); linux/loop.h.
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// linux/loop.h, since 5.8: file and flags in one step, so that no device is left half made.
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;

/// Flags of a device (LO_FLAGS_ of linux/loop.h).
pub mod flag {
    /// Nothing is written to the file.
    pub const READ_ONLY: u32 = 1;
    /// The device is free again when its last user has gone.
    pub const AUTOCLEAR: u32 = 4;
    /// Past the page cache.
    pub const DIRECT_IO: u32 = 16;
}

/// struct loop_info64 of linux/loop.h.
#[repr(C)]
#[derive(Default)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [[u64; 8]; 2],
    encrypt_key: [u64; 4],
    init: [u64; 2],
}

/// struct loop_config of linux/loop.h.
#[repr(C)]
#[derive(Default)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// How many free devices may be lost to others, one after the other, before that is an error.
const MOST_LOST: u32 = 1000;

/// A device that shows `file`: its path, and an fd that keeps it until it is mounted.
pub fn attach(file: BorrowedFd, flags: u32) -> Result<(CString, OwnedFd)> {
    let control = file::open(c"/dev/loop-control", file::O_RDWR, 0)?;
    let access = if flags & flag::READ_ONLY != 0 { file::O_RDONLY } else { file::O_RDWR };
    for _ in 0..MOST_LOST {
        // SAFETY: the call has no argument and gives a number.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let path = path_of(number)?;
        let device = file::open(&path, access, 0)?;
        match configure(device.as_fd(), file, flags) {
            Ok(()) => return Ok((path, device)),
            // Another process was faster.
            Err(Errno::EBUSY) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::EBUSY)
}

fn path_of(number: RawFd) -> Result<CString> {
    CString::new(format!("/dev/loop{number}")).map_err(|_| Errno::EINVAL)
}

fn configure(device: BorrowedFd, file: BorrowedFd, flags: u32) -> Result<()> {
    let config = Config {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?,
        info: Info { flags, ..Info::default() },
        ..Config::default()
    };
    // SAFETY: LOOP_CONFIGURE reads a loop_config.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }).map(drop)
}

// As the kernel has them.
const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_devtmpfs() {
        let path = path_of(7).unwrap();
        assert_eq!(path.as_c_str(), c"/dev/loop7");
    }
}
