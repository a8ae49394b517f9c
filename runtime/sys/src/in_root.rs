//! Places below a root directory that is not ours, made where they are missing. Nothing here allocates.

use crate::file::{
    IN_ROOT, O_DIRECTORY, O_NOFOLLOW, O_PATH, PATH_MAX, S_IFREG, STRICT, mkdirat, mknodat, openat2, readlinkat,
};
use crate::{Errno, Result};
use libc::c_int;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens a directory below `root` as if `root` were `/`, making what is missing (mode 0755) on the way: each new
/// component is made by mkdirat in a directory that is held by fd (CVE-2024-45310). A symlink to something missing is followed, so
/// that what it names is made, below `root` as well. Allocates nothing.
pub fn mkdir_all(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    make(root, path, O_DIRECTORY)
}

/// [`mkdir_all`], or with `kind` 0 the same for a file whose last component is made empty.
fn make(root: BorrowedFd, path: &CStr, kind: c_int) -> Result<OwnedFd> {
    match openat2(root, path, O_PATH | kind, 0, IN_ROOT) {
        Err(Errno::ENOENT) => make_missing(root, path, kind),
        there => there,
    }
}

/// By itself: the pages of its stack are charged to the container, which need not pay for what is there.
#[inline(never)]
fn make_missing(root: BorrowedFd, path: &CStr, kind: c_int) -> Result<OwnedFd> {
    /// As many as the kernel follows in one path (path_resolution(7)).
    const MOST_LINKS: u32 = 40;
    let mut text = [0u8; PATH_MAX];
    join(&mut text, [path.to_bytes(), &[], &[]])?;
    for _ in 0..MOST_LINKS {
        let mut next = [0u8; PATH_MAX];
        match make_components(root, c_text(&text)?, kind, &mut next)? {
            Walked::Made(fd) => return Ok(fd),
            Walked::Link => text = next,
        }
    }
    Err(Errno::ELOOP)
}

/// Where [`make_components`] came to.
enum Walked {
    /// The end of the path.
    Made(OwnedFd),
    /// A symlink to something missing; the path with its target in place of it has been written.
    Link,
}

fn make_components(root: BorrowedFd, path: &CStr, kind: c_int, next: &mut [u8; PATH_MAX]) -> Result<Walked> {
    let mut buf = [0u8; PATH_MAX];
    let bytes = path.to_bytes();
    let mut parent = openat2(root, c".", O_PATH | O_DIRECTORY, 0, IN_ROOT)?;
    let mut end = 0;
    loop {
        let rest = bytes.get(end..).unwrap_or_default();
        let Some(start) = rest.iter().position(|b| *b != b'/').map(|skip| end + skip) else {
            return Ok(Walked::Made(parent));
        };
        let length = bytes.get(start..).unwrap_or_default().iter().take_while(|b| **b != b'/').count();
        end = start + length;
        let kind = if end == bytes.len() { kind } else { O_DIRECTORY };
        let prefix = c_prefix(&mut buf, bytes, end)?;
        parent = match openat2(root, prefix, O_PATH | kind, 0, IN_ROOT) {
            Err(Errno::ENOENT) => {
                let name = prefix.to_bytes_with_nul().get(start..).ok_or(Errno::EINVAL)?;
                let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EINVAL)?;
                let made = match kind {
                    O_DIRECTORY => mkdirat(parent.as_fd(), name, 0o755),
                    _ => mknodat(parent.as_fd(), name, S_IFREG | 0o644, 0),
                };
                if made == Err(Errno::EEXIST) {
                    let mut link = [0u8; PATH_MAX];
                    match readlinkat(parent.as_fd(), name, &mut link) {
                        Ok(target) => {
                            let before = if target.first() == Some(&b'/') {
                                &[]
                            } else {
                                bytes.get(..start).unwrap_or_default()
                            };
                            join(next, [before, target, bytes.get(end..).unwrap_or_default()])?;
                            return Ok(Walked::Link);
                        }
                        // No symlink: another process has made it in the meantime.
                        Err(Errno::EINVAL) => {}
                        Err(e) => return Err(e),
                    }
                } else {
                    made?;
                }
                openat2(parent.as_fd(), name, O_PATH | kind | O_NOFOLLOW, 0, STRICT & !libc::RESOLVE_NO_XDEV)?
            }
            other => other?,
        };
    }
}

/// The parts one after the other in `buf`, as a C string.
fn join(buf: &mut [u8; PATH_MAX], parts: [&[u8]; 3]) -> Result<()> {
    let bytes = parts.into_iter().flatten().chain(&[0]);
    if bytes.clone().count() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    buf.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    Ok(())
}

fn c_text(buf: &[u8; PATH_MAX]) -> Result<&CStr> {
    CStr::from_bytes_until_nul(buf).map_err(|_| Errno::EINVAL)
}

/// The first `end` bytes of a path as a C string in `buf`.
fn c_prefix<'b>(buf: &'b mut [u8; PATH_MAX], bytes: &[u8], end: usize) -> Result<&'b CStr> {
    let part = bytes.get(..end).ok_or(Errno::EINVAL)?;
    buf.get_mut(..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(part);
    *buf.get_mut(end).ok_or(Errno::ENAMETOOLONG)? = 0;
    CStr::from_bytes_with_nul(buf.get(..=end).unwrap_or_default()).map_err(|_| Errno::EINVAL)
}

/// Opens (O_PATH) a file below `root` as if `root` were `/`, making an empty one, and the directories to it, when it is missing.
/// Allocates nothing.
pub fn touch(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    make(root, path, 0)
}

/// The directory of a path below `root`, made when it is missing, and the path's last component.
#[inline(never)]
pub fn parent<'p>(root: BorrowedFd, path: &'p CStr) -> Result<(OwnedFd, &'p CStr)> {
    let bytes = path.to_bytes();
    let slash = bytes.iter().rposition(|b| *b == b'/');
    let name = path.to_bytes_with_nul().get(slash.map_or(0, |s| s + 1)..).ok_or(Errno::EINVAL)?;
    let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EINVAL)?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let mut buf = [0u8; PATH_MAX];
    let parent = c_prefix(&mut buf, bytes, slash.unwrap_or(0))?;
    let parent = if parent.is_empty() { c"." } else { parent };
    Ok((mkdir_all(root, parent)?, name))
}
