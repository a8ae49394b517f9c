//! The tmpfs that the child has mounted last, held by an fd: what goes directly below it needs no walk from the root. Most mounts of a
//! container are of that kind: /dev/pts, /dev/shm, /dev/mqueue, and one for each cgroup tree.

use orlop_sys::{Errno, file};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See above. Whatever the path of the tmpfs leads to when it is opened, what is done below stays below: a name is made, then used without
/// following a link or crossing to another file system.
#[derive(Default)]
pub struct Held<'a> {
    path: Option<&'a CStr>,
    dir: Option<OwnedFd>,
}

impl<'a> Held<'a> {
    /// A tmpfs was mounted at this path. One in another (/dev/shm) has nothing below, and the other goes on.
    pub fn begin(&mut self, path: &'a CStr) {
        if self.name_in(path).is_none() {
            (self.path, self.dir) = (Some(path), None);
        }
    }

    /// Something is about to be mounted there: anywhere but below the tmpfs it may cover it.
    pub fn mounted_on(&mut self, path: &CStr) {
        if self.name_in(path).is_none() {
            (self.path, self.dir) = (None, None);
        }
    }

    /// Leaves the fd to be closed by number.
    pub fn give_up(&mut self) {
        std::mem::forget(self.dir.take());
        self.path = None;
    }

    /// The root of the tmpfs, if that is what the path names and it is open.
    pub fn itself(&self, path: &CStr) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().filter(|_| self.path == Some(path)).map(AsFd::as_fd)
    }

    /// A new directory directly below the tmpfs: where it is, and its name. `None`: that is not where the path leads, or it is there
    /// already.
    pub fn make<'p>(&mut self, root: BorrowedFd, path: &'p CStr) -> Result<Option<(BorrowedFd<'_>, &'p CStr)>, Errno> {
        let (Some(above), Some(name)) = (self.path, self.name_in(path)) else { return Ok(None) };
        if self.dir.is_none() {
            let dir = file::openat2(root, above, file::O_PATH | file::O_DIRECTORY, 0, file::IN_ROOT)?;
            if file::fs_type(dir.as_fd())? != file::TMPFS_MAGIC {
                self.path = None;
                return Ok(None);
            }
            self.dir = Some(dir);
        }
        let Some(dir) = &self.dir else { return Ok(None) };
        match file::mkdirat(dir.as_fd(), name, 0o755) {
            Ok(()) => Ok(Some((dir.as_fd(), name))),
            Err(Errno::EEXIST) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The last component of a path directly below the tmpfs.
    fn name_in<'p>(&self, path: &'p CStr) -> Option<&'p CStr> {
        let above = self.path?.to_bytes();
        let rest = path.to_bytes().strip_prefix(above)?.strip_prefix(b"/")?;
        if rest.is_empty() || rest.contains(&b'/') {
            return None;
        }
        CStr::from_bytes_with_nul(path.to_bytes_with_nul().get(above.len() + 1..)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_directly_below_and_nothing_else() {
        let mut held = Held::default();
        assert_eq!(held.name_in(c"/dev/pts"), None);
        held.begin(c"/dev");
        assert_eq!(held.name_in(c"/dev/pts"), Some(c"pts"));
        for other in [c"/dev", c"/dev/", c"/dev/a/b", c"/device", c"/sys", c"/"] {
            assert_eq!(held.name_in(other), None, "{other:?}");
        }
        held.mounted_on(c"/dev/shm");
        held.begin(c"/dev/shm");
        assert_eq!(held.path, Some(c"/dev"));
        held.mounted_on(c"/");
        assert_eq!(held.path, None);
    }
}
