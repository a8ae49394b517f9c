//! `delete`: removes what a stopped container has left.

use super::{Global, select};
use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, On, Result};
use crate::hooks;
use crate::state::{self, Container, Lock, Status};
use orlop_sys::process::SIGKILL;
use orlop_sys::{Errno, poll, process};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a killed init may take to end: milliseconds.
const PATIENCE: i32 = 10_000;

/// How long `--force` waits for another command before it kills the init beneath that.
const SOON: Duration = Duration::from_secs(3);

/// Deletes the container. `force`: kills it first, and is content when there is none.
pub fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let lock = if force { locked_by_force(global, id) } else { Lock::of_container(&global.root, id) };
    let _lock = match lock {
        Err(e) if force && e.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    };
    let container = match Container::load(&global.root, id) {
        Err(e) if force => return unfinished(global, id, e),
        other => other?,
    };
    match container.status()? {
        Status::Stopped => {}
        Status::Created => end(&container)?,
        _ if force => end(&container)?,
        status => {
            return Err(Error::new(Kind::State, format!("cannot delete container {id} that is not stopped: {status}"))
                .hint("stop it with `kill`, or use --force"));
        }
    }
    destroy(&container)
}

/// Who has the lock may wait for a hook of the container, or for its init, or be at a checkpoint of it: so that is killed, at once if it
/// runs, and if it is being made when that does not come to its end soon. A hook of the host is nobody's to end; the error names the
/// command that waits for it.
fn locked_by_force(global: &Global, id: &str) -> Result<Lock> {
    let runs = |container: &Container| matches!(container.status(), Ok(Status::Running | Status::Paused));
    for patience in [Duration::ZERO, SOON] {
        match Lock::within(&global.root, id, patience) {
            Err(e) if e.kind() == Kind::Busy => {}
            other => return other,
        }
        if let Ok(container) = Container::load(&global.root, id)
            && (patience == SOON || runs(&container))
        {
            // That it does not end is the lock's to tell.
            let _ = end(&container);
        }
    }
    Lock::within(&global.root, id, Duration::from_millis(PATIENCE as u64))
}

/// As [`delete`], for every container whose id matches the extended regular expression.
pub fn delete_matching(global: &Global, pattern: &str, force: bool) -> Result<()> {
    select::matching(global, pattern, |id| delete(global, id, force))
}

/// Removes what is left of a create that was killed, or of a container whose state is broken.
fn unfinished(global: &Global, id: &str, broken: Error) -> Result<()> {
    let remove = || {
        let cgroup = Container::unfinished(&global.root, id)?;
        end_at_gate(&global.root.join(id))?;
        cgroup.map_or(Ok(()), |cgroup| vacate(cgroup.as_ref()))?;
        state::remove_dir(&global.root.join(id))
    };
    remove().map_err(|e| broken.also(e))
}

/// Kills an init that has come to its gate although its create has gone: that was killed while it wrote the state, beside the init's
/// work. Whoever has the gate open is the init of this container, for the caller holds the lock.
fn end_at_gate(dir: &Path) -> Result<()> {
    let Ok(gate) = fs::metadata(dir.join(state::FIFO)) else { return Ok(()) };
    let is_gate =
        |fd: fs::DirEntry| fs::metadata(fd.path()).is_ok_and(|f| (f.dev(), f.ino()) == (gate.dev(), gate.ino()));
    let pids = fs::read_dir("/proc").on("open", "/proc")?.flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        // It may end at any time; its number is another's then.
        let Ok(pidfd) = process::pidfd_open(pid) else { continue };
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        if fds.into_iter().any(is_gate) {
            match process::pidfd_signal(pidfd.as_fd(), SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                other => other.on("pidfd_send_signal", pid)?,
            }
        }
    }
    Ok(())
}

/// Removes cgroups that may be another container's: the create may have been killed before it found that out. So nobody is killed
/// in them. An init whose create has gone ends by itself, or has been killed.
fn vacate(cgroup: &dyn Cgroup) -> Result<()> {
    // Without cgroups it was in its caller's.
    if cgroup.paths().is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_millis(PATIENCE as u64);
    while !cgroup.procs()?.is_empty() {
        if Instant::now() > deadline {
            return Err(Error::new(Kind::State, "the cgroup of the unfinished container has processes")
                .at("linux.cgroupsPath")
                .hint("end them if they are its own; another container may use the same cgroup"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    cgroup.remove()
}

/// Kills the init and waits for its end.
fn end(container: &Container) -> Result<()> {
    let pidfd = match container.pidfd() {
        Err(e) if e.kind() == Kind::State => return Ok(()),
        other => other?,
    };
    let pid = container.saved.init_process_pid;
    match process::pidfd_signal(pidfd.as_fd(), SIGKILL) {
        // It has ended by itself.
        Ok(()) | Err(Errno::ESRCH) => {}
        other => other.on("pidfd_send_signal", pid)?,
    }
    let cgroup = container.cgroup();
    // A frozen process of v1 does not even die.
    if cgroup.frozen()? {
        cgroup.freeze(false)?;
    }
    if !poll::readable(pidfd.as_fd(), PATIENCE).on("poll", format!("pidfd of {pid}"))? {
        return Err(
            Error::new(Kind::State, "container init still running").hint("it may hang in an uninterruptible call")
        );
    }
    Ok(())
}

/// Removes everything of a stopped container. Each part is tried even when an earlier one failed, so that a second
/// `delete` has less to do; the directory goes last, and only when all else has gone.
pub(super) fn destroy(container: &Container) -> Result<()> {
    let cgroup = container.cgroup();
    let mut failures = Vec::new();
    // Without a pid namespace of its own the container's processes outlive its init.
    if !container.saved.private_pid && !cgroup.paths().is_empty() {
        failures.extend(cgroup.signal(SIGKILL).err());
    }
    failures.extend(cgroup.remove().err());
    failures.extend(container.saved.intel_rdt.as_ref().and_then(|class| class.remove().err()));
    match container.saved.late_hooks.then(|| container.config()).transpose() {
        Ok(config) => {
            // Their failures are logged, and the lifecycle goes on (runtime.md, "Lifecycle").
            let spec = config.as_ref().map(|config| &config.spec);
            let saved = &container.saved;
            spec.map(|spec| hooks::run_all(spec, "poststop", &saved.id, &saved.bundle, "stopped", 0));
        }
        Err(e) => failures.push(e),
    }
    if failures.is_empty() {
        failures.extend(container.remove().err());
    }
    match failures.into_iter().reduce(Error::also) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}
