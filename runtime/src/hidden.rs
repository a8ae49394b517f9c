//! What the container has but may not see or change: masked and read-only paths. Nothing here allocates.

use crate::init::{Fault, InPart};
use crate::sync::Part;
use orlop_sys::mount::{self as sys, Attr, attr};
use orlop_sys::{Errno, file};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What masks are made of; each thing is opened when it is first needed.
#[derive(Default)]
pub struct Hidden {
    /// The verified null device of the host.
    null: Option<OwnedFd>,
    /// The empty read-only file system that covers masked directories; one serves them all.
    cover: Option<OwnedFd>,
    /// The container's /proc, or nothing if it has none.
    proc: Option<Option<OwnedFd>>,
}

/// Symbolic links in the root of procfs: all that the kernel makes there (proc_symlink), the last two on some architectures.
const PROC_LINKS: [&CStr; 6] = [c"self", c"thread-self", c"net", c"mounts", c"device-tree", c"rtas"];
/// The inode of the root of every procfs.
const PROC_ROOT: u64 = 1;

/// Where something is to be attached.
enum Spot<'a> {
    At(OwnedFd),
    /// A name in the root of procfs, where nobody can change what a name is.
    InProc(BorrowedFd<'a>, &'a CStr),
}

impl Spot<'_> {
    fn attach(&self, tree: BorrowedFd) -> Result<(), Fault> {
        match self {
            Spot::At(place) => sys::attach(tree, place.as_fd()),
            Spot::InProc(proc, name) => sys::attach_at(tree, *proc, name),
        }
        .part(Part::Attach)
    }
}

/// `None` for what is not there, which need not be hidden.
fn if_there<T>(found: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        other => other.map(Some),
    }
}

impl Hidden {
    /// Covers a path below `root` with an empty directory or the null device.
    pub fn mask(&mut self, root: BorrowedFd, path: &CStr) -> Result<(), Fault> {
        let Some(spot) = spot(&mut self.proc, root, path)? else { return Ok(()) };
        let found = match &spot {
            Spot::At(place) => file::fstat(place.as_fd()).map(Some)?,
            Spot::InProc(proc, name) => if_there(file::lstatat(*proc, name)).part(Part::Place)?,
        };
        let cover = match found {
            None => return Ok(()),
            Some(found) if found.is_dir() => empty_directory(&mut self.cover)?,
            Some(_) => null_device(&mut self.null)?,
        };
        match cover {
            Cover::First(first) => spot.attach(first),
            Cover::Copy(copy) => spot.attach(copy.as_fd()),
        }?;
        if found.is_some_and(|found| found.ino == PROC_ROOT) {
            self.covered();
        }
        Ok(())
    }

    /// Makes a path below `root` read-only, with all that is mounted there.
    pub fn read_only(&mut self, root: BorrowedFd, path: &CStr) -> Result<(), Fault> {
        let Some(spot) = spot(&mut self.proc, root, path)? else { return Ok(()) };
        let (tree, root_of_proc) = match &spot {
            Spot::At(place) => {
                let ino = file::fstat(place.as_fd())?.ino;
                (Some(sys::clone_tree(Some(place.as_fd()), c"", true, false)?), ino == PROC_ROOT)
            }
            Spot::InProc(proc, name) => (if_there(sys::clone_tree(Some(*proc), name, true, true))?, false),
        };
        let Some(tree) = tree else { return Ok(()) };
        sys::set_attr(tree.as_fd(), &Attr { set: attr::RDONLY, ..Attr::default() }, false).part(Part::Attributes)?;
        spot.attach(tree.as_fd())?;
        if root_of_proc {
            self.covered();
        }
        Ok(())
    }

    /// Something lies over /proc now, maybe by way of a link in the image: what is attached in the procfs below it would hide nothing.
    fn covered(&mut self) {
        self.proc = None;
    }

    /// Leaves the fds to be closed by number.
    pub fn give_up(&mut self) {
        std::mem::forget((self.null.take(), self.cover.take(), self.proc.take()));
    }
}

fn spot<'a>(
    held: &'a mut Option<Option<OwnedFd>>,
    root: BorrowedFd,
    path: &'a CStr,
) -> Result<Option<Spot<'a>>, Fault> {
    if let Some(name) = name_in_proc(path) {
        if held.is_none() {
            *held = Some(proc(root)?);
        }
        if let Some(Some(proc)) = &*held {
            return Ok(Some(Spot::InProc(proc.as_fd(), name)));
        }
    }
    Ok(if_there(file::openat2(root, path, file::O_PATH, 0, file::IN_ROOT)).part(Part::Place)?.map(Spot::At))
}

/// The name of what is directly in /proc and no symbolic link.
fn name_in_proc(path: &CStr) -> Option<&CStr> {
    let name = path.to_bytes_with_nul().strip_prefix(b"/proc/")?;
    let name = CStr::from_bytes_with_nul(name).ok()?;
    let plain = !name.is_empty() && !name.to_bytes().contains(&b'/') && name != c"." && name != c"..";
    (plain && !PROC_LINKS.contains(&name)).then_some(name)
}

/// The root of the procfs on /proc, if it is one.
fn proc(root: BorrowedFd) -> Result<Option<OwnedFd>, Fault> {
    let flags = file::O_PATH | file::O_DIRECTORY;
    let Ok(dir) = file::openat2(root, c"/proc", flags, 0, file::IN_ROOT_NO_SYMLINKS) else { return Ok(None) };
    let is_root = file::fs_type(dir.as_fd())? == file::PROC_SUPER_MAGIC && file::fstat(dir.as_fd())?.ino == PROC_ROOT;
    Ok(is_root.then_some(dir))
}

/// A mount to be attached: the one that the others are copied from, or one of those.
enum Cover<'a> {
    First(BorrowedFd<'a>),
    Copy(OwnedFd),
}

/// A detached mount of the host's null device: the container's own could be anything (CVE-2025-31133).
fn null_device(held: &mut Option<OwnedFd>) -> Result<Cover<'_>, Fault> {
    if held.is_none() {
        let null = file::open(c"/dev/null", file::O_PATH | file::O_NOFOLLOW, 0)?;
        if !file::fstat(null.as_fd())?.is_char(1, 3) {
            return Err(Fault(Part::Mismatch, Errno::ENODEV as i32));
        }
        *held = Some(null);
    }
    let null = held.as_ref().ok_or(Errno::EBADF)?;
    Ok(Cover::Copy(sys::clone_tree(Some(null.as_fd()), c"", false, false)?))
}

/// A mount of an empty directory. The first one is a new tmpfs, the others are copies of it.
fn empty_directory(held: &mut Option<OwnedFd>) -> Result<Cover<'_>, Fault> {
    if let Some(first) = held {
        return Ok(Cover::Copy(sys::clone_tree(Some(first.as_fd()), c"", false, false)?));
    }
    let fs = sys::fsopen(c"tmpfs")?;
    sys::fsconfig_string(fs.as_fd(), c"nr_blocks", c"1")?;
    sys::fsconfig_string(fs.as_fd(), c"nr_inodes", c"1")?;
    let first = &*held.insert(sys::fsmount(fs.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?);
    Ok(Cover::First(first.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_proc_is_one_component_and_no_link() {
        assert_eq!(name_in_proc(c"/proc/kcore"), Some(c"kcore"));
        for other in [c"/proc", c"/proc/", c"/proc/sys/net", c"/proc/self", c"/proc/net", c"/proc/..", c"/sys/firmware"]
        {
            assert_eq!(name_in_proc(other), None, "{other:?}");
        }
    }
}
