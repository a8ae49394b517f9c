//! What the container has but may not see or change: masked and read-only paths. Nothing here allocates.

use crate::init::{Fault, InPart};
use crate::sync::Part;
use orlop_sys::Errno;
use orlop_sys::fds::Left;
use orlop_sys::file;
use orlop_sys::mount::{self as sys, Attr, attr};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What masks are made of; each thing is opened when it is first needed.
#[derive(Default)]
pub struct Hidden {
    /// The verified null device of the host.
    null: Option<OwnedFd>,
    /// The empty read-only file system that covers masked directories; one serves them all.
    cover: Option<OwnedFd>,
    proc: Kernel,
    sys: Kernel,
}

/// The file system of the kernel on /proc or /sys. It is held by fd: whoever shares the rootfs may exchange the name /proc, and
/// masks would lie on what stands in for it (CVE-2019-19921, CVE-2023-27561).
#[derive(Default)]
struct Kernel {
    /// It was mounted there, and nothing over it.
    expected: bool,
    /// Its root, when it was looked for; nothing if there is none.
    root: Option<Option<OwnedFd>>,
}

/// Symbolic links in the root of procfs: all that the kernel makes there (proc_symlink), the last two on some architectures. The
/// root of sysfs has none.
const PROC_LINKS: [&CStr; 6] = [c"self", c"thread-self", c"net", c"mounts", c"device-tree", c"rtas"];
/// The inode of the root of every procfs, and of every sysfs.
pub const KERNEL_ROOT: u64 = 1;

/// Where something is to be attached.
enum Spot<'a> {
    At(Left),
    /// A name in the root of procfs or sysfs, where nobody can change what a name is.
    In(BorrowedFd<'a>, &'a CStr),
}

impl Spot<'_> {
    fn attach(&self, tree: BorrowedFd) -> Result<(), Fault> {
        match self {
            Spot::At(place) => sys::attach(tree, place.as_fd()),
            Spot::In(dir, name) => sys::attach_at(tree, *dir, name),
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
        let Some(spot) = spot(&mut self.proc, &mut self.sys, root, path)? else { return Ok(()) };
        let found = match &spot {
            Spot::At(place) => file::fstat(place.as_fd()).map(Some)?,
            Spot::In(dir, name) => if_there(file::lstatat(*dir, name)).part(Part::Place)?,
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
        if found.is_some_and(|found| found.ino == KERNEL_ROOT) {
            self.covered();
            // It is masked itself: what is looked for in it from now on is not there.
            for (place, kernel) in [(c"/proc", &mut self.proc), (c"/sys", &mut self.sys)] {
                kernel.expected &= path != place;
            }
        }
        Ok(())
    }

    /// Makes a path below `root` read-only, with all that is mounted there.
    pub fn read_only(&mut self, root: BorrowedFd, path: &CStr) -> Result<(), Fault> {
        let Some(spot) = spot(&mut self.proc, &mut self.sys, root, path)? else { return Ok(()) };
        let (tree, is_root) = match &spot {
            Spot::At(place) => {
                let ino = file::fstat(place.as_fd())?.ino;
                (Some(sys::clone_tree(Some(place.as_fd()), c"", true, false)?), ino == KERNEL_ROOT)
            }
            Spot::In(dir, name) => (if_there(sys::clone_tree(Some(*dir), name, true, true))?, false),
        };
        let Some(tree) = tree.map(Left::from) else { return Ok(()) };
        sys::set_attr(tree.as_fd(), &Attr { set: attr::RDONLY, ..Attr::default() }, false).part(Part::Attributes)?;
        spot.attach(tree.as_fd())?;
        if is_root {
            self.covered();
        }
        Ok(())
    }

    /// A file system was mounted at this path; `kind` is the magic number of procfs or sysfs if it is the whole of one, else 0.
    pub fn mounted(&mut self, path: &CStr, kind: i64) {
        for (place, magic, kernel) in
            [(c"/proc", file::PROC_SUPER_MAGIC, &mut self.proc), (c"/sys", file::SYSFS_MAGIC, &mut self.sys)]
        {
            if path == place || path == c"/" {
                *kernel = Kernel { expected: kind == magic && path == place, root: None };
            }
        }
    }

    /// Something lies over the root of procfs or of sysfs now, maybe by way of a link in the image: what is attached below it would
    /// hide nothing.
    fn covered(&mut self) {
        self.proc.root = None;
        self.sys.root = None;
    }

    /// Leaves the fds to be closed by number.
    pub fn give_up(&mut self) {
        std::mem::forget((self.null.take(), self.cover.take(), self.proc.root.take(), self.sys.root.take()));
    }
}

fn spot<'a>(
    proc: &'a mut Kernel,
    sys: &'a mut Kernel,
    root: BorrowedFd,
    path: &'a CStr,
) -> Result<Option<Spot<'a>>, Fault> {
    for (kernel, place, magic) in [(proc, c"/proc", file::PROC_SUPER_MAGIC), (sys, c"/sys", file::SYSFS_MAGIC)] {
        let Some(below) = below(path, place) else { continue };
        let Some(dir) = kernel.root(root, place, magic)? else { break };
        if is_plain_name(below) {
            return Ok(Some(Spot::In(dir, below)));
        }
        match file::openat2(dir, below, file::O_PATH, 0, file::BELOW) {
            // It leads out again: the root is where it is looked for.
            Err(Errno::EXDEV) => break,
            found => return Ok(if_there(found).part(Part::Place)?.map(Left::from).map(Spot::At)),
        }
    }
    Ok(if_there(file::openat2(root, path, file::O_PATH, 0, file::IN_ROOT))
        .part(Part::Place)?
        .map(Left::from)
        .map(Spot::At))
}

/// What of a path is below a directory; nothing if it is the directory itself.
fn below<'a>(path: &'a CStr, directory: &CStr) -> Option<&'a CStr> {
    let rest = path.to_bytes_with_nul().strip_prefix(directory.to_bytes())?.strip_prefix(b"/")?;
    CStr::from_bytes_with_nul(rest).ok().filter(|rest| !rest.is_empty())
}

/// Whether it is one component and no symbolic link.
fn is_plain_name(name: &CStr) -> bool {
    !name.to_bytes().contains(&b'/') && name != c"." && name != c".." && !PROC_LINKS.contains(&name)
}

impl Kernel {
    /// Its root. That it is not where it was mounted is an error: somebody has exchanged the directory.
    fn root(&mut self, root: BorrowedFd, place: &CStr, magic: i64) -> Result<Option<BorrowedFd<'_>>, Fault> {
        if self.root.is_none() {
            let found = kernel_root(root, place, magic)?;
            if found.is_none() && self.expected {
                return Err(Fault(Part::Mismatch, Errno::ESTALE as i32));
            }
            self.root = Some(found);
        }
        Ok(self.root.as_ref().and_then(Option::as_ref).map(AsFd::as_fd))
    }
}

/// The root of the file system of this type at this place, if it is one. A part of sysfs or procfs that the container is given too may have been
/// exchanged with it, and has not what is to be hidden.
fn kernel_root(root: BorrowedFd, place: &CStr, magic: i64) -> Result<Option<OwnedFd>, Fault> {
    let flags = file::O_PATH | file::O_DIRECTORY;
    let Ok(dir) = file::openat2(root, place, flags, 0, file::IN_ROOT_NO_SYMLINKS) else { return Ok(None) };
    let is_root = file::fs_type(dir.as_fd())? == magic && file::fstat(dir.as_fd())?.ino == KERNEL_ROOT;
    Ok(is_root.then_some(dir))
}

/// A mount to be attached: the one that the others are copied from, or one of those.
enum Cover<'a> {
    First(BorrowedFd<'a>),
    Copy(Left),
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
    Ok(Cover::Copy(sys::clone_tree(Some(null.as_fd()), c"", false, false)?.into()))
}

/// A mount of an empty directory. The first one is a new tmpfs, the others are copies of it.
fn empty_directory(held: &mut Option<OwnedFd>) -> Result<Cover<'_>, Fault> {
    if let Some(first) = held {
        return Ok(Cover::Copy(sys::clone_tree(Some(first.as_fd()), c"", false, false)?.into()));
    }
    let fs = Left::from(sys::fsopen(c"tmpfs")?);
    // Its root is the one inode: there can be no file, so no block either.
    sys::fsconfig_string(fs.as_fd(), c"nr_inodes", c"1")?;
    let first = &*held.insert(sys::fsmount(fs.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?);
    Ok(Cover::First(first.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_and_what_is_a_plain_name() {
        assert_eq!(below(c"/proc/kcore", c"/proc"), Some(c"kcore"));
        assert_eq!(below(c"/proc/sys/net", c"/proc"), Some(c"sys/net"));
        for other in [c"/proc", c"/proc/", c"/process", c"/sys/firmware", c"/"] {
            assert_eq!(below(other, c"/proc"), None, "{other:?}");
        }
        assert!(is_plain_name(c"kcore"));
        for other in [c"sys/net", c"self", c"net", c"..", c".", c"/kcore"] {
            assert!(!is_plain_name(other), "{other:?}");
        }
    }
}
