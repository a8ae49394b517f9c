//! Who waits for whom. Every process of a container is watched by its pidfd, so an exit cannot be lost or taken for another's; orphans
//! of containers without a pid namespace, which come to us as the subreaper, are reaped when SIGCHLD says so.
//!
//! Reaping "anybody" would take the status of a process that a worker has made and not yet told us of. So orphans wait until no worker is
//! at work, and what is reaped of the watched ones is kept in their slots.

use crate::ready::Ready;
use orlop_sys::process::{self, Exit};
use orlop_sys::signal::{self, Child};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// The status of a watched process that was reaped as anybody.
type Slot = Arc<Mutex<Option<u8>>>;

/// All that this process waits for.
#[derive(Default)]
pub struct Reaper {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    workers: usize,
    watched: HashMap<i32, Slot>,
}

impl Reaper {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A worker is about to be made; until the value goes, nobody is reaped as anybody.
    pub fn worker(self: &Arc<Self>) -> Working {
        self.with(|inner| inner.workers += 1);
        Working(self.clone())
    }

    /// Reaps all orphans that have ended; see the module's text for when it does not.
    pub fn orphans(&self) {
        self.with(|inner| {
            if inner.workers > 0 {
                return;
            }
            while let Ok(Some((pid, status))) = signal::reap(Child::Any) {
                if let Some(slot) = inner.watched.remove(&pid) {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                }
            }
        });
    }

    /// The process, from now on; it must be our child, or become it when the worker that made it ends.
    pub fn watch(self: &Arc<Self>, pid: i32) -> orlop_sys::Result<Watch> {
        let pidfd = process::pidfd_open(pid)?;
        let slot = Slot::default();
        self.with(|inner| inner.watched.insert(pid, slot.clone()));
        Ok(Watch { reaper: self.clone(), pid, pidfd: Arc::new(pidfd), slot })
    }
}

/// A worker that is at work.
pub struct Working(Arc<Reaper>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.with(|inner| inner.workers -= 1);
        self.0.orphans();
    }
}

/// A process that is waited for.
pub struct Watch {
    reaper: Arc<Reaper>,
    pid: i32,
    pidfd: Arc<OwnedFd>,
    slot: Slot,
}

impl Watch {
    /// Its pidfd.
    pub fn pidfd(&self) -> Arc<OwnedFd> {
        self.pidfd.clone()
    }

    /// Its exit status, 128 + n when signal n killed it. 255 when somebody else has reaped it, which nobody can.
    pub async fn ended(self) -> u8 {
        if let Ok(fd) = Ready::new(self.pidfd.clone()) {
            // A pidfd never becomes unreadable again.
            let _ = fd.readable().await;
        }
        let kept = *self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = kept {
            return status;
        }
        self.reaper.with(|inner| inner.watched.remove(&self.pid));
        process::wait(std::os::fd::AsFd::as_fd(&*self.pidfd), false).ok().flatten().map_or(255, Exit::code)
    }
}
