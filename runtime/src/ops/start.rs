//! `start`: opens the gate, and waits until the program is executed or the init has said why not.

use super::Global;
use crate::error::{Error, Kind, On, Result};
use crate::state::{Container, FAILURE, FIFO, Status};
use crate::sync::{self, Frame};
use crate::{hooks, notify};
use orlop_sys::process::{POLLERR, POLLIN};
use orlop_sys::{Errno, file, process};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Starts the created container.
pub fn start(global: &Global, id: &str) -> Result<()> {
    let container = Container::load(&global.root, id)?;
    let _lock = container.lock()?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => {
            // It may have failed while it waited.
            failure(&container)?;
            return Err(refused("cannot start a container that has stopped"));
        }
        Status::Running => return Err(refused("cannot start an already running container")),
        Status::Paused => return Err(refused("cannot start a container in the paused state")),
    }
    let pidfd = container.pidfd()?;
    let relay = match notify::requested() {
        Some(host) => Some(notify::Relay::listen(&container.dir, &host, container.saved.init_process_pid as u32)?),
        None => None,
    };
    open_gate(&container, &pidfd)?;
    let path = container.dir.join(FIFO);
    std::fs::remove_file(&path).on("unlink", path.display())?;
    poststart(&container)?;
    relay.map_or(Ok(()), |relay| relay.relay(pidfd.as_fd()))
}

fn refused(why: &'static str) -> Error {
    Error::new(Kind::State, why)
}

/// A byte into the fifo. The init's end is closed by its execve, or by its end: an fd of a writer tells (POLLERR). So `start`
/// returns when the program runs, and an init that has died, or dies now, cannot hang us.
fn open_gate(container: &Container, pidfd: &OwnedFd) -> Result<()> {
    let path = container.dir.join(FIFO);
    let name = crate::plan::c_string(path.as_os_str().as_bytes(), "--root")?;
    let gate = match file::open(&name, file::O_WRONLY | file::O_NONBLOCK | file::O_NOFOLLOW, 0) {
        Err(Errno::ENXIO) => return Err(refused("cannot start a container that has stopped")),
        other => other.on("open", path.display())?,
    };
    file::write(gate.as_fd(), b"0").on("write to", path.display())?;
    loop {
        match process::poll([(gate.as_fd(), POLLERR), (pidfd.as_fd(), POLLIN)], -1) {
            Ok([0, 0]) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(e) => return Err(e.on("poll", path.display())),
        }
    }
    failure(container)
}

/// What the init wrote when a step behind the gate failed.
fn failure(container: &Container) -> Result<()> {
    let path = container.dir.join(FAILURE);
    let record = std::fs::read(&path).on("read", path.display())?;
    let Some((Some(frame), said)) =
        record.split_at_checked(sync::SIZE).map(|(frame, said)| (Frame::parse(frame), said))
    else {
        return Ok(());
    };
    Err(super::tail_failure(container, &frame, &hooks::one_line(said))?)
}

/// Poststart hooks come after the program was started; one that fails stops the container, as with runc.
pub(super) fn poststart(container: &Container) -> Result<()> {
    let config = container.config()?;
    let saved = &container.saved;
    hooks::run(&config.spec, "poststart", &saved.id, &saved.bundle, "running", saved.init_process_pid).inspect_err(
        |_| {
            // The hook's error is what the user must hear.
            let _ = container.cgroup().signal(process::SIGKILL);
        },
    )
}
