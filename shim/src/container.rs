//! A container and its processes, as containerd sees them.

mod create;
mod end;

pub use create::{INIT_PID, Request, create_options, delete_by_force};

use crate::binary::Runtime;
use crate::checkpoint::Restore;
use crate::events::Events;
use crate::io::{Names, Owner, Streams};
use crate::mounts;
use crate::options::Options;
use crate::process::{Exit, Process};
use crate::reaper::{Reaper, Watch};
use crate::worker::{self, Failure, Job, Result, Tools};
use containerd_shim_protos::ttrpc::Code;
use orlop::cgroup;
use orlop::ops::{self, exec::Outcome};
use orlop::ops::{ExecOptions, ProcessJson, UpdateOptions};
use orlop::state;
use orlop_sys::process::{SIGKILL, pidfd_signal};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// What all containers of this daemon share.
pub struct Shim {
    /// containerd's namespace.
    pub namespace: String,
    /// Where events go.
    pub events: Events,
    /// Waits for processes.
    pub reaper: Arc<Reaper>,
    /// Whether there is more to stay for than containers.
    pub sandbox: Mutex<Held>,
}

/// The sandbox of a daemon; see [`crate::sandbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It has never had one: containerd says when it is to end.
    Never,
    /// It stays, with containers or without.
    Yes,
    /// It stays for its last containers only: containerd will not say any more.
    Over,
}

impl Shim {
    /// The state of the sandbox.
    pub fn sandbox(&self) -> MutexGuard<'_, Held> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One container.
pub struct Container {
    pub shim: Arc<Shim>,
    pub id: String,
    pub bundle: PathBuf,
    pub options: Options,
    /// Whether [`mounts`] made the root file system.
    mounted: bool,
    pub init: Arc<Process>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    /// Who may run: everything that starts holds it for reading, as long as it runs; the end of the init takes it for good. So the exit of the
    /// init is the last one that containerd is told of, and nothing starts after it.
    running: Arc<RwLock<()>>,
    /// One operation on the init at a time.
    pub turn: tokio::sync::Mutex<()>,
    /// Another runtime cannot be asked cheaply.
    paused: AtomicBool,
    /// As long as another runtime is driven: its processes may outlive the init.
    shares_pids: AtomicBool,
    /// A worker that deleted it was lost: what it has left may be too little to be deleted but by force.
    half_deleted: AtomicBool,
    /// Kernel's count of OOM kills that containerd has been told of.
    oom_kills: AtomicU64,
    /// The init, until containerd knows of the container.
    pub watch: Mutex<Option<Watch>>,
    restore: Mutex<Option<Restore>>,
    cgroup_paths: OnceLock<cgroup::Paths>,
}

impl Container {
    /// Its bundle.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The process of this id; an empty one is the init's.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let missing = || Failure::new(Code::NOT_FOUND, format!("process does not exist {exec_id}"));
        self.execs().get(exec_id).cloned().ok_or_else(missing)
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exec'd processes by pid.
    pub fn exec_of(&self, pid: u32) -> Option<String> {
        self.execs().values().find(|process| process.pid() == pid).map(|process| process.exec_id.clone())
    }

    /// Remembers a process to be started later.
    pub fn add_exec(&self, exec_id: &str, names: Names, spec: Vec<u8>) -> Result<()> {
        if self.init.exit().is_some() {
            return Err(Failure::new(Code::FAILED_PRECONDITION, "cannot exec in a stopped container"));
        }
        // The Any's value is the JSON of a process, of which the terminal is the request's.
        let mut process: serde_json::Value = serde_json::from_slice(&spec)
            .map_err(|e| Failure::new(Code::INVALID_ARGUMENT, format!("process of exec {exec_id}: {e}")))?;
        if let Some(process) = process.as_object_mut() {
            process.insert("terminal".to_string(), names.terminal.into());
        }
        let mut execs = self.execs();
        if execs.contains_key(exec_id) {
            return Err(Failure::new(Code::ALREADY_EXISTS, format!("id {exec_id}")));
        }
        let process = Process::new(exec_id, names, process.to_string().into_bytes());
        execs.insert(exec_id.to_string(), Arc::new(process));
        Ok(())
    }

    /// Lets the init go. `told` is called when it runs, before anything is said of its end.
    pub async fn start(self: &Arc<Self>, told: impl FnOnce(u32)) -> Result<u32> {
        let _turn = self.turn.lock().await;
        let _running = self.may_run()?;
        let restore = self.restore.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(restore) = restore {
            if let Err(e) = self.restore(restore).await {
                // It counts as ended: nobody waits for it in vain, and it can be deleted.
                self.init.exit.send_replace(Some(Exit { status: 255, at: SystemTime::now() }));
                return Err(e.during("OCI runtime restore failed"));
            }
            self.init.state().started = true;
            told(self.init.pid());
            self.created();
            return Ok(self.init.pid());
        }
        let run = |_: &Tools| match self.runtime() {
            None => Ok(ops::start::start(&self.global(), &self.id).map(|()| Vec::new())?),
            Some(runtime) => runtime.run(&words(&["start", &self.id]), true),
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        done.map_err(|e| e.during("OCI runtime start failed"))?;
        self.init.state().started = true;
        told(self.init.pid());
        Ok(self.init.pid())
    }

    /// Starts a process that was added.
    pub async fn start_exec(self: &Arc<Self>, exec_id: &str, told: impl FnOnce(u32)) -> Result<u32> {
        let process = self.process(exec_id)?;
        let running = self.may_run()?;
        let spec = {
            let mut state = process.state();
            if std::mem::replace(&mut state.started, true) {
                return Err(Failure::new(Code::FAILED_PRECONDITION, format!("process {exec_id} was started already")));
            }
            std::mem::take(&mut state.spec)
        };
        match self.run_exec(&process, spec).await {
            Ok((pid, watch)) => {
                told(pid as u32);
                tokio::spawn(self.clone().exec_ended(process, watch, running));
                Ok(pid as u32)
            }
            Err(e) => {
                // It counts as ended, so that nobody waits for it in vain.
                process.exit.send_replace(Some(Exit { status: 255, at: SystemTime::now() }));
                Err(e.during("OCI runtime exec failed"))
            }
        }
    }

    async fn run_exec(&self, process: &Process, spec: Vec<u8>) -> Result<(i32, Watch)> {
        let owner = self.owner();
        let mut streams = Streams::open(&process.names, &owner).await?;
        let job = Job { stdio: streams.given() };
        let run = |tools: &Tools| self.exec_in_worker(process, spec, tools);
        let done = worker::run(&self.shim.reaper, job, run).await?;
        let (pid, watch) = done.process(&self.shim.reaper)?;
        if let Err(e) = streams.attach(done.console) {
            // Nobody would know of it. The reaper takes it as anybody.
            let _ = pidfd_signal(watch.pidfd().as_fd(), SIGKILL);
            return Err(e);
        }
        process.began(pid, &watch, streams);
        Ok((pid, watch))
    }

    fn exec_in_worker(&self, process: &Process, spec: Vec<u8>, tools: &Tools) -> Result<Vec<u8>> {
        let Some(runtime) = self.runtime() else {
            let options = ExecOptions {
                id: self.id.clone(),
                process: Some(ProcessJson { name: PathBuf::from("process"), text: spec }),
                console_socket: process.names.terminal.then(|| tools.socket.clone()),
                // Should the worker be lost behind this moment, we know whom nobody else knows.
                pidfd_socket: Some(tools.socket.clone()),
                detach: true,
                ..ExecOptions::default()
            };
            return match ops::exec::exec(&self.global(), &options)? {
                Outcome::Detached(pid) => Ok(pid.to_string().into_bytes()),
                Outcome::Ended(status) => Err(Failure::internal("exec", format!("ended with {status}"))),
            };
        };
        let file = self.bundle.join(format!("{}-process.json", process.exec_id));
        let pid_file = self.bundle.join(format!("{}.pid", process.exec_id));
        std::fs::write(&file, spec).map_err(|e| Failure::internal("write the process", e))?;
        let args = [OsStr::new("exec"), "--detach".as_ref(), "--process".as_ref(), file.as_ref()];
        let made = runtime.make(&args, &pid_file, &self.id, process.names.terminal, tools);
        let _ = std::fs::remove_file(pid_file);
        let _ = std::fs::remove_file(file);
        made
    }

    /// Signals a process, or with `all` every one of the container.
    pub async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let signal = i32::try_from(signal).map_err(|e| Failure::internal("signal", e))?;
        let process = self.process(exec_id)?;
        // Every process of the container is the runtime's to find; one of them is ours to know.
        if !exec_id.is_empty() || (!all && signal != SIGKILL) {
            return process.signal(signal);
        }
        // The answer comes before the end that it brings about: once containerd knows of that, it deletes the container and has the daemon go.
        let running = self.running.clone().try_read_owned().ok();
        if running.is_none() && self.runtime().is_none() {
            return Err(Failure::new(Code::NOT_FOUND, "process already finished"));
        }
        let run = |_: &Tools| match self.runtime() {
            None => Ok(ops::kill::kill(&self.global(), &self.id, &signal.to_string(), all).map(|()| Vec::new())?),
            Some(runtime) => {
                let number = signal.to_string();
                let all = if all { &["--all"][..] } else { &[] };
                runtime.run(&words(&[&["kill"], all, &[&self.id, &number]].concat()), true)
            }
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        drop(running);
        match done {
            Err(e) if e.message.contains("container not running") || e.message.contains("no such process") => {
                Err(Failure::new(Code::NOT_FOUND, "process already finished"))
            }
            other => other.map(drop).map_err(|e| e.during("OCI runtime kill failed")),
        }
    }

    /// Freezes the container, or thaws it.
    pub async fn pause(&self, on: bool) -> Result<()> {
        let _turn = self.turn.lock().await;
        let verb = if on { "pause" } else { "resume" };
        let run = |_: &Tools| match self.runtime() {
            None if on => Ok(ops::pause::pause(&self.global(), &self.id).map(|()| Vec::new())?),
            None => Ok(ops::resume::resume(&self.global(), &self.id).map(|()| Vec::new())?),
            Some(runtime) => runtime.run(&words(&[verb, &self.id]), true),
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        done.map_err(|e| e.during(&format!("OCI runtime {verb} failed")))?;
        self.paused.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Changes limits: the JSON of a `linux.resources`.
    pub async fn update(&self, resources: Vec<u8>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let run = |_: &Tools| match self.runtime() {
            None => {
                let options = UpdateOptions { id: self.id.clone(), resources, schemata: Vec::new() };
                Ok(ops::update::update(&self.global(), &options).map(|()| Vec::new())?)
            }
            Some(runtime) => {
                let file = self.bundle.join("resources-update.json");
                std::fs::write(&file, &resources).map_err(|e| Failure::internal("write resources", e))?;
                let args = [OsStr::new("update"), "--resources".as_ref(), file.as_ref(), self.id.as_ref()];
                let done = runtime.run(&args, true);
                let _ = std::fs::remove_file(&file);
                done
            }
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        done.map(drop).map_err(|e| e.during("OCI runtime update failed"))
    }

    /// The pids of all its processes, in the pid namespace of this process.
    pub async fn pids(&self) -> Result<Vec<u32>> {
        // containerd 1.7 and later takes a daemon without processes for one that was left behind when it restarts, and deletes the task:
        // its owner would never learn of its exit status.
        if self.init.exit().is_some() {
            return Ok(vec![self.init.pid()]);
        }
        let run = |_: &Tools| match self.runtime() {
            None => Ok(ops::ps::ps(&self.global(), &self.id, "json", &[]).map(String::into_bytes)?),
            Some(runtime) => runtime.run(&words(&["ps", "--format", "json", &self.id]), true),
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await?;
        let pids: Option<Vec<u32>> =
            serde_json::from_slice(&done.answer).map_err(|e| Failure::internal("pids of the runtime", e))?;
        Ok(pids.unwrap_or_default())
    }

    /// Deletes the container, which must have stopped, or a process that must have ended.
    pub async fn delete(&self, exec_id: &str) -> Result<(u32, Exit)> {
        let process = self.process(exec_id)?;
        // The output of an exec'd process that nobody reads holds up nobody else.
        let _turn = if exec_id.is_empty() { Some(self.turn.lock().await) } else { None };
        let started = process.state().started || exec_id.is_empty();
        let ended = match process.exit() {
            Some(exit) => exit,
            None if !started => Exit { status: 0, at: SystemTime::now() },
            // Not restored yet.
            None if process.pid() == 0 && !process.state().started => {
                let exit = Exit { status: 0, at: SystemTime::now() };
                process.exit.send_replace(Some(exit));
                exit
            }
            // A container that was only created is deleted as it is.
            None if exec_id.is_empty() && !process.state().started => {
                process.signal(SIGKILL)?;
                process.wait().await
            }
            None => return Err(Failure::new(Code::FAILED_PRECONDITION, "cannot delete a running process")),
        };
        let streams = process.state().streams.take();
        if let Some(mut streams) = streams {
            streams.ended();
            streams.drained().wait().await;
        }
        if exec_id.is_empty() {
            self.delete_container().await?;
        } else {
            self.execs().remove(exec_id);
        }
        Ok((process.pid(), ended))
    }

    async fn delete_container(&self) -> Result<()> {
        let force = self.half_deleted.load(Ordering::Relaxed);
        let run = |_: &Tools| {
            let deleted = match self.runtime() {
                None => ops::delete::delete(&self.global(), &self.id, force).map_err(Failure::from),
                Some(runtime) => {
                    let words: &[&str] = if force { &["delete", "--force", &self.id] } else { &["delete", &self.id] };
                    runtime.run(&self::words(words), true).map(drop)
                }
            };
            let root = self.bundle.join("rootfs");
            let undone = if self.mounted { mounts::undo(&root) } else { Ok(()) };
            match deleted {
                // A checkpoint may have done so.
                Err(e) if e.code == Code::NOT_FOUND || e.message.contains("does not exist") => {}
                other => other?,
            }
            undone.map(|()| Vec::new()).map_err(|e| Failure::internal(&format!("unmount {}", root.display()), e.desc()))
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        done.map(drop).map_err(|e| {
            self.half_deleted.fetch_or(e.code == worker::LOST, Ordering::Relaxed);
            e.during("failed to delete task")
        })
    }

    /// Where the cgroups of the container are: the runtime's own record, or where another runtime has put the init.
    pub fn cgroup_paths(&self) -> Result<cgroup::Paths> {
        if let Some(paths) = self.cgroup_paths.get() {
            return Ok(paths.clone());
        }
        let paths = match self.runtime() {
            None => state::Container::load(&self.global().root, &self.id)?.saved.cgroup_paths,
            Some(_) => cgroup::paths_of(self.init.pid() as i32)?,
        };
        Ok(self.cgroup_paths.get_or_init(|| paths).clone())
    }

    fn cgroup(&self) -> Result<Box<dyn cgroup::Cgroup>> {
        Ok(cgroup::load(&self.cgroup_paths()?, None))
    }

    /// Whether it is frozen.
    pub fn paused(&self) -> bool {
        match self.runtime() {
            None => self.cgroup().is_ok_and(|cgroup| cgroup.frozen().unwrap_or(false)),
            Some(_) => self.paused.load(Ordering::Relaxed),
        }
    }

    /// What holds for every operation of ours on it.
    pub fn global(&self) -> ops::Global {
        self.options.global(&self.shim.namespace)
    }

    fn owner(&self) -> Owner<'_> {
        let ids = (self.options.io_uid, self.options.io_gid);
        Owner { ids, namespace: &self.shim.namespace, container: &self.id }
    }

    fn may_run(&self) -> Result<OwnedRwLockReadGuard<()>> {
        let over = |_| Failure::new(Code::FAILED_PRECONDITION, "container not running: its init has ended");
        self.running.clone().try_read_owned().map_err(over)
    }

    /// The other runtime that the options name.
    pub fn runtime(&self) -> Option<Runtime> {
        Runtime::of(&self.options, &self.shim.namespace, &self.bundle)
    }
}

/// Words of a command line.
pub fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

/// All of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Failure::internal(&format!("read {}", path.display()), e))
}
