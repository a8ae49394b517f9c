//! The ends of a container's processes, and what containerd is told of them: in which order, and when.

use super::{Container, words};
use crate::events::timestamp;
use crate::process::{Exit, Process};
use crate::ready::Ready;
use crate::reaper::Watch;
use crate::worker::{self, Job, Tools};
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use orlop::cgroup::oom::OomWatch;
use orlop::state;
use orlop_sys::process::SIGKILL;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;
use tokio::sync::OwnedRwLockReadGuard;

impl Container {
    /// containerd knows of the container: from now on it can be told of its end.
    pub fn created(self: &Arc<Self>) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            // Not yet reaped, it can be asked; of a container of ours, the runtime knows.
            let shares = self.runtime().is_some() && shares_pids(self.init.pid());
            self.shares_pids.store(shares, Ordering::Relaxed);
            tokio::spawn(self.clone().init_ended(watch));
            tokio::spawn(self.clone().watch_memory());
        }
    }

    /// The init's end: what it has left in a shared pid namespace is killed, every other process is waited for, then containerd hears.
    async fn init_ended(self: Arc<Self>, watch: Watch) {
        let status = watch.ended().await;
        let at = SystemTime::now();
        if self.runtime().is_none() {
            let left = state::Container::load(&self.global().root, &self.id);
            if let Ok(left) =
                left.as_ref().map_err(|_| ()).and_then(|c| if c.saved.private_pid { Err(()) } else { Ok(c) })
            {
                let _ = left.cgroup().signal(SIGKILL);
            }
        } else if self.shares_pids.load(Ordering::Relaxed) {
            let run = |_: &Tools| match self.runtime() {
                Some(runtime) => runtime.run(&words(&["kill", "--all", &self.id, "9"]), true),
                None => Ok(Vec::new()),
            };
            // It may know of nobody any more.
            let _ = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        }
        // Held for ever.
        std::mem::forget(self.running.clone().write_owned().await);
        self.tell_oom();
        self.tell_end(&self.init, Exit { status: u32::from(status), at }).await;
    }

    /// The end of an exec'd process; `running` is what kept that of the init back.
    pub(super) async fn exec_ended(
        self: Arc<Self>,
        process: Arc<Process>,
        watch: Watch,
        running: OwnedRwLockReadGuard<()>,
    ) {
        let status = watch.ended().await;
        let at = SystemTime::now();
        self.tell_oom();
        self.tell_end(&process, Exit { status: u32::from(status), at }).await;
        drop(running);
    }

    async fn tell_end(&self, process: &Process, exit: Exit) {
        let read = process.state().streams.as_mut().map(|streams| {
            streams.ended();
            streams.read()
        });
        if let Some(read) = read {
            read.await;
        }
        let state = process.state();
        let mut event = TaskExit::new();
        event.set_container_id(self.id.clone());
        event.set_id(if process.exec_id.is_empty() { self.id.clone() } else { process.exec_id.clone() });
        event.set_pid(state.pid as u32);
        event.set_exit_status(exit.status);
        event.set_exited_at(timestamp(exit.at));
        self.shim.events.send(&event);
        drop(state);
        process.exit.send_replace(Some(exit));
    }

    /// Tells of kills for want of memory when they happen; those that end a process are told with its end.
    async fn watch_memory(self: Arc<Self>) {
        let Ok(paths) = self.cgroup_paths() else { return };
        let watch = OomWatch::new(&paths).map_err(|e| log::warn!("{}: {e}", self.id));
        let Ok(Some(mut watch)) = watch else { return };
        let Some(ready) = watch.as_fd().try_clone_to_owned().ok().and_then(|fd| Ready::new(fd).ok()) else { return };
        loop {
            tokio::select! {
                _ = self.init.wait() => return,
                readable = ready.readable() => {
                    if readable.is_err() || watch.news().is_err() {
                        return;
                    }
                    self.tell_oom();
                }
            }
        }
    }

    /// Before the exit that it caused.
    fn tell_oom(&self) {
        let Ok(cgroup) = self.cgroup() else { return };
        let kills = cgroup.oom_kills();
        if self.oom_kills.swap(kills, Ordering::Relaxed) < kills {
            let mut event = TaskOOM::new();
            event.set_container_id(self.id.clone());
            self.shim.events.send(&event);
        }
    }
}

/// Whether the processes of a container outlive its init, which is not the first one of its pid namespace: that is another's, or the host's.
fn shares_pids(init: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    // Its pid in each namespace, the innermost last (proc_pid_status(5)).
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.and_then(|pids| pids.split_whitespace().next_back()) != Some("1")
}
