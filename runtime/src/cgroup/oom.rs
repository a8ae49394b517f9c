//! Being told when a container runs out of memory: an eventfd on `memory.oom_control` (v1), inotify(7) on `memory.events` (v2).

use super::{Paths, tree, v2};
use crate::error::{On, Result};
use orlop_sys::{Errno, file, poll};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Tells of a cgroup's want of memory, from now on.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    told_by: ToldBy,
}

#[derive(Debug)]
enum ToldBy {
    /// The file of v1 that the eventfd is registered with.
    EventControl(PathBuf),
    /// The cgroup of v2, and the kills of which we know.
    Count(PathBuf, u64),
}

impl OomWatch {
    /// Begins to watch; `None` without a cgroup that counts memory.
    ///
    /// # Errors
    /// The cgroup has gone, or is not ours to watch.
    pub fn new(paths: &Paths) -> Result<Option<OomWatch>> {
        match (paths.get("memory"), paths.get("")) {
            (Some(dir), _) => of_v1(dir).map(Some),
            (None, Some(dir)) if dir.join("memory.events").exists() => of_v2(dir).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether memory was short since the last call. For a kill of v2 it may be asked at any time; of v1 the fd tells.
    ///
    /// # Errors
    /// Reading from the fd.
    pub fn news(&mut self) -> Result<bool> {
        let told = drain(self.fd.as_fd()).on("read", "the notification of memory")?;
        Ok(match &mut self.told_by {
            // The removal of the cgroup is told like a want of memory.
            ToldBy::EventControl(file) => told && file.exists(),
            ToldBy::Count(dir, known) => {
                let before = *known;
                *known = v2::oom_kills(dir).max(before);
                *known > before
            }
        })
    }
}

impl AsFd for OomWatch {
    /// Readable when there may be news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Kernel documentation, admin-guide/cgroup-v1/memory, "OOM Control".
fn of_v1(dir: &Path) -> Result<OomWatch> {
    let fd = poll::eventfd().on("eventfd", "")?;
    let path = dir.join("memory.oom_control");
    let watched = tree::readable(&path).on("open", format!("{path:?}"))?;
    let control = dir.join("cgroup.event_control");
    let line = format!("{} {}", fd.as_raw_fd(), watched.as_raw_fd());
    tree::write(&control, &line).on("write to", format!("{control:?}"))?;
    Ok(OomWatch { fd, told_by: ToldBy::EventControl(control) })
}

fn of_v2(dir: &Path) -> Result<OomWatch> {
    let path = dir.join("memory.events");
    let watch = || -> io::Result<OwnedFd> { Ok(poll::changes(&CString::new(path.as_os_str().as_bytes())?)?) };
    let fd = watch().on("inotify_add_watch", format!("{path:?}"))?;
    Ok(OomWatch { fd, told_by: ToldBy::Count(dir.to_path_buf(), v2::oom_kills(dir)) })
}

/// Whether there was anything to read.
fn drain(fd: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    let mut buffer = [0; 4096];
    let mut any = false;
    loop {
        match file::read(fd, &mut buffer) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(any),
            Ok(_) => any = true,
            Err(errno) => return Err(errno),
        }
    }
}
