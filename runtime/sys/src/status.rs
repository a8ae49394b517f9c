//! What /proc/self/status tells of this process (proc(5), /proc/PID/status), read once, where a call for each would ask again.

use crate::{Errno, Result, fds, file};
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// Who this process was when it was asked. A program that becomes somebody else does so in a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The signals that are ignored; bit n - 1 is signal n.
    pub ignored: u64,
    /// The effective uid.
    pub euid: u32,
    /// Whether the real, effective, saved and file system ids are all 0, those of the group too.
    pub all_root: bool,
    /// Whether it has no supplementary group.
    pub no_groups: bool,
    /// The permitted capabilities.
    pub permitted: u64,
    /// The bounding set of the capabilities.
    pub bounding: u64,
}

static OWN: OnceLock<Status> = OnceLock::new();

/// Reads it. With many groups it is longer than a page.
pub fn read() -> Result<Status> {
    let fd = fds::Left::from(file::open(c"/proc/self/status", file::O_RDONLY, 0)?);
    let text = file::read_all(fd.as_fd(), true)?;
    let status = parse(&String::from_utf8_lossy(&text)).ok_or(Errno::EPROTO)?;
    Ok(*OWN.get_or_init(|| status))
}

/// What [`read`] has read, if it was called.
pub fn known() -> Option<&'static Status> {
    OWN.get()
}

/// The name of the program, the first field, may have any byte: it is not looked at.
fn parse(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    let zeroes = |name: &str| Some(field(name)?.split('\t').all(|id| id == "0"));
    Some(Status {
        ignored: mask("SigIgn")?,
        euid: field("Uid")?.split('\t').nth(1)?.parse().ok()?,
        all_root: zeroes("Uid")? && zeroes("Gid")?,
        no_groups: field("Groups")?.trim().is_empty(),
        permitted: mask("CapPrm")?,
        bounding: mask("CapBnd")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\tSigIgn:\nUmask:\t0022\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \nSigIgn:\t0000000000001000\n\
                        CapPrm:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\n";

    #[test]
    fn fields_are_found_by_their_names() {
        let status = parse(TEXT).unwrap();
        let expected = Status {
            ignored: 0x1000,
            euid: 0,
            all_root: true,
            no_groups: true,
            permitted: 0x1ff_feff_ffff,
            bounding: 0x1ff_ffff_ffff,
        };
        assert_eq!(status, expected);
        let other =
            parse(&TEXT.replace("Gid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t7").replace("Groups:\t ", "Groups:\t4 27 "));
        assert_eq!(other, Some(Status { all_root: false, no_groups: false, ..expected }));
        let user = parse(&TEXT.replace("Uid:\t0\t0", "Uid:\t0\t1000")).unwrap();
        assert_eq!((user.euid, user.all_root), (1000, false));
        for missing in ["Uid", "Gid", "Groups", "SigIgn:\t", "CapPrm", "CapBnd"] {
            assert_eq!(parse(&TEXT.replace(missing, "X")), None, "{missing}");
        }
    }

    #[test]
    fn it_agrees_with_the_calls() {
        let own = read().unwrap();
        // SAFETY: cannot fail.
        assert_eq!(own.euid, unsafe { libc::geteuid() });
        let bound = (0..41u8).filter(|c| crate::process::in_bounding(*c) == Ok(true)).fold(0, |mask, c| mask | 1 << c);
        assert_eq!(own.bounding & ((1 << 41) - 1), bound);
        assert_eq!(known(), Some(&own));
    }
}
