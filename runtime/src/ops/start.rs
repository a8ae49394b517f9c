//! `start`: opens the gate, and waits until the program is executed or the init has said why not.

use super::Global;
use crate::error::{Error, Kind, On, Result};
use crate::state::{Container, FIFO, Status};
use crate::sync::{self, Frame};
use crate::{hooks, init, notify};
use orlop_sys::poll::{BROKEN, READ, poll};
use orlop_sys::{Errno, file, process};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// What opens the gate; no frame begins with it.
const OPEN: u8 = b'0';

/// Starts the created container.
pub fn start(global: &Global, id: &str) -> Result<()> {
    let (container, lock) = Container::locked(&global.root, id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return Err(refused("cannot start a container that has stopped")),
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
    // A container that never says that it is ready can be deleted nevertheless.
    drop(lock);
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
    file::write(gate.as_fd(), &[OPEN]).on("write to", path.display())?;
    loop {
        let happened = poll([(Some(gate.as_fd()), BROKEN), (Some(pidfd.as_fd()), READ)], -1);
        if happened.on("poll", path.display())? != [0, 0] {
            break;
        }
    }
    // What the init wrote when a step behind the gate failed; the fifo keeps it as long as our end is open.
    let back = file::open(&name, file::O_RDONLY | file::O_NONBLOCK | file::O_NOFOLLOW, 0).on("open", path.display())?;
    let mut record = vec![0; sync::SIZE + init::SAID_MOST];
    let n = match file::read(back.as_fd(), &mut record) {
        Err(Errno::EAGAIN) => 0,
        other => other.on("read", path.display())?,
    };
    record.truncate(n);
    // Our byte is still there when the init has ended before it read it.
    let unread = record.first() == Some(&OPEN);
    match record
        .get(usize::from(unread)..)
        .and_then(|r| r.split_at_checked(sync::SIZE))
        .map(|(frame, said)| (Frame::parse(frame), said))
    {
        Some((Some(frame), said)) => Err(super::tail_failure(container, &frame, &hooks::one_line(said))?),
        _ if unread => Err(refused("cannot start a container that has stopped")),
        _ => Ok(()),
    }
}

/// Poststart hooks come after the program was started; one that fails stops the container, as with runc.
pub(super) fn poststart(container: &Container) -> Result<()> {
    let saved = &container.saved;
    if !saved.late_hooks {
        return Ok(());
    }
    let config = container.config()?;
    hooks::run(&config.spec, "poststart", &saved.id, &saved.bundle, "running", saved.init_process_pid).inspect_err(
        |_| {
            // The hook's error is what the user must hear.
            let _ = container.cgroup().signal(process::SIGKILL);
        },
    )
}
