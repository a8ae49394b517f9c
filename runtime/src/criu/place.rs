//! The root file system as CRIU wants to find it at a restore: a mount of its own, below a place that nothing is mounted
//! over, with every mount point in it. It is made in a mount namespace of CRIU's process alone, so that the host sees none
//! of it and nothing of it can be left behind. This is the child's half: system calls on what was made before the clone.

use orlop_sys::mount::{self, MNT_DETACH, MS_BIND, MS_REC, MS_SLAVE};
use orlop_sys::{Errno, file, in_root};
use std::ffi::CString;
use std::os::fd::AsFd;

/// A mount point that must be there.
#[derive(Debug)]
pub struct Point {
    /// Its path below the root file system.
    pub path: CString,
    /// A directory, or else a file.
    pub directory: bool,
    /// What a bind mount shows there: mount points below it are its own.
    pub source: Option<CString>,
    /// Its number in `mounts`.
    pub index: u16,
}

/// The root file system to be laid out.
#[derive(Debug)]
pub struct Place {
    /// Where it is.
    pub rootfs: CString,
    /// An empty directory where CRIU is to find it.
    pub at: CString,
    /// The mount points, in the order of the mounts.
    pub points: Vec<Point>,
}

/// What failed: a mount of the root file system, or the mount point of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub Option<u16>, pub Errno);

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault(None, errno)
    }
}

impl Place {
    /// Lays it out, in a mount namespace that is new.
    pub fn make(&self) -> Result<(), Fault> {
        // What the host mounts meanwhile comes in; nothing goes out.
        mount::mount(None, c"/", None, MS_SLAVE | MS_REC, None)?;
        if !self.points.is_empty() {
            self.bind()?;
            self.make_points()?;
            // CRIU makes the mounts itself: it gets a root file system without ours.
            mount::unmount(&self.at, MNT_DETACH)?;
        }
        Ok(self.bind()?)
    }

    fn bind(&self) -> Result<(), Errno> {
        mount::mount(Some(&self.rootfs), &self.at, None, MS_BIND | MS_REC, None)
    }

    fn make_points(&self) -> Result<(), Fault> {
        let root = file::open(&self.at, file::O_PATH | file::O_DIRECTORY, 0)?;
        for point in &self.points {
            let made = (|| {
                let make = if point.directory { in_root::mkdir_all } else { in_root::touch };
                let there = make(root.as_fd(), &point.path)?;
                if let Some(source) = &point.source {
                    let tree = mount::clone_tree(None, source, true, false)?;
                    mount::attach(tree.as_fd(), there.as_fd())?;
                }
                Ok(())
            })();
            made.map_err(|errno| Fault(Some(point.index), errno))?;
        }
        Ok(())
    }
}
