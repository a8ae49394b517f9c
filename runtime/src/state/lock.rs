//! The lock of a container: one command at a time changes it.

use super::{absent, check_id};
use crate::error::{Error, Kind, On, Result};
use crate::plan::c_string;
use orlop_sys::{Errno, fds, file};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a command waits for another one on the same container.
const PATIENCE: Duration = Duration::from_secs(60);

/// flock(2) on a container's directory. It is undone by name on drop: a child that has not executed its program yet may
/// have a copy of the fd.
#[derive(Debug)]
pub struct Lock {
    fd: fds::Left,
    held: Cell<bool>,
}

impl Lock {
    /// Waits until no other command changes this container, but not for ever: who has the lock may wait for a hook that never ends.
    /// The lock ends with the value. NotFound: there is none, or no more.
    pub fn of_container(root: &Path, id: &str) -> Result<Lock> {
        Lock::within(root, id, PATIENCE)
    }

    /// The same with a limit of its own. Kind::Busy: another command still has it.
    pub fn within(root: &Path, id: &str, limit: Duration) -> Result<Lock> {
        check_id(id)?;
        let dir = root.join(id);
        loop {
            let lock = match Lock::of_directory(&dir, limit) {
                Err(e) if e.errno() == Some(Errno::ENOENT) => return Err(absent(id)),
                other => other?,
            };
            // Who had it may have been a delete: then there may be another directory of this name by now.
            if lock.is_of_something(&dir)? {
                return Ok(lock);
            }
        }
    }

    /// That of a directory.
    pub(super) fn of(dir: &Path) -> Result<Lock> {
        Lock::of_directory(dir, PATIENCE)
    }

    fn of_directory(dir: &Path, limit: Duration) -> Result<Lock> {
        let lock = Lock { fd: open_dir(dir)?.into(), held: Cell::new(false) };
        lock.take(dir, limit)?;
        Ok(lock)
    }

    fn take(&self, dir: &Path, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            match file::lock(self.fd.as_fd(), false) {
                Err(Errno::EWOULDBLOCK) if Instant::now() >= deadline => return Err(self.busy()),
                Err(Errno::EWOULDBLOCK) => std::thread::sleep(pause),
                done => {
                    done.on("flock", dir.display())?;
                    self.held.set(true);
                    return Ok(());
                }
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn busy(&self) -> Error {
        let who = self.holder().map_or_else(String::new, |pid| format!(": process {pid}"));
        Error::new(Kind::Busy, format!("another command is at work on the container{who}"))
            .hint("it may wait for a hook that does not end: give the hook a timeout, or end that command")
    }

    /// The process that has the lock: `1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF` (proc(5), /proc/locks).
    fn holder(&self) -> Option<i32> {
        let stat = file::fstat(self.fd.as_fd()).ok()?;
        let file = format!("{:02x}:{:02x}:{}", file::major(stat.dev), file::minor(stat.dev), stat.ino);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_ours = words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file.as_str());
            is_ours.then(|| words.get(4)?.parse().ok()).flatten()
        })
    }

    /// Waits for the lock that was given up, as long as it takes.
    pub(super) fn again(&self, dir: &Path) -> Result<()> {
        file::lock(self.fd.as_fd(), true).on("flock", dir.display())?;
        self.held.set(true);
        Ok(())
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory has been removed: nobody comes to the lock any more, and who waits for it already looks whether the directory is there.
    pub(super) fn leave(&self) {
        self.held.set(false);
    }

    /// Lets others at it; [`Lock::again`] takes it back.
    pub(super) fn give_up(&self) {
        if self.held.take() {
            // It cannot fail on an fd of ours.
            let _ = file::unlock(self.fd.as_fd());
        }
    }

    /// Whether the directory has not been removed.
    pub(super) fn is_of_something(&self, dir: &Path) -> Result<bool> {
        Ok(file::fstat(self.fd.as_fd()).on("fstat", dir.display())?.nlink > 0)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn open_dir(dir: &Path) -> Result<OwnedFd> {
    let path = c_string(dir.as_os_str().as_bytes(), "--root")?;
    file::open(&path, file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW, 0).on("open", dir.display())
}
