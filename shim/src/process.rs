//! A process of a container, the init or one that was exec'd.

use crate::io::{Names, Streams};
use crate::reaper::Watch;
use crate::worker::{Failure, Result};
use containerd_shim_protos::ttrpc::Code;
use orlop_sys::Errno;
use orlop_sys::process::pidfd_signal;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// A process of a container.
pub struct Process {
    /// Empty for the init.
    pub exec_id: String,
    /// The names of its streams.
    pub names: Names,
    state: Mutex<State>,
    /// Its end, for those who wait for it.
    pub exit: watch::Sender<Option<Exit>>,
}

/// What changes of a process.
#[derive(Default)]
pub struct State {
    /// The JSON of a process: what an exec'd one shall be, until it is started.
    pub spec: Vec<u8>,
    /// It was let go.
    pub started: bool,
    stdin_closed: bool,
    /// 0 before it is made.
    pub pid: i32,
    pidfd: Option<Arc<OwnedFd>>,
    /// Until it is deleted.
    pub streams: Option<Streams>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// Its status, 128 + n when signal n killed it.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

impl Process {
    /// A process that is not there yet; `spec` is what an exec'd one shall be.
    pub fn new(exec_id: &str, names: Names, spec: Vec<u8>) -> Process {
        let state = Mutex::new(State { spec, ..State::default() });
        Process { exec_id: exec_id.to_string(), names, state, exit: watch::Sender::new(None) }
    }

    /// What changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 0 before it is started.
    pub fn pid(&self) -> u32 {
        self.state().pid as u32
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(Exit { status: 255, at: SystemTime::now() })
    }

    /// Gives its terminal a size.
    pub fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        self.state().streams.as_ref().map_or(Ok(()), |streams| streams.resize(columns, rows))
    }

    /// Ends its input, of which all may have been given before the process is there.
    pub fn close_stdin(&self) {
        let mut state = self.state();
        state.stdin_closed = true;
        if let Some(streams) = &mut state.streams {
            streams.close_stdin();
        }
    }

    /// The process is there.
    pub fn began(&self, pid: i32, watch: &Watch, mut streams: Streams) {
        let mut state = self.state();
        (state.pid, state.pidfd) = (pid, Some(watch.pidfd()));
        if state.stdin_closed {
            streams.close_stdin();
        }
        state.streams = Some(streams);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let gone = || Failure::new(Code::NOT_FOUND, "process already finished");
        if self.exit().is_some() {
            return Err(gone());
        }
        let pidfd = self.state().pidfd.clone();
        let pidfd = pidfd.ok_or_else(|| Failure::new(Code::FAILED_PRECONDITION, "process not created"))?;
        match pidfd_signal(pidfd.as_fd(), signal) {
            Err(Errno::ESRCH) => Err(gone()),
            other => other.map_err(|e| Failure::internal("pidfd_send_signal", e)),
        }
    }
}
