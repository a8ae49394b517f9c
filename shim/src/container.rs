//! A container and its processes, as containerd sees them.

use crate::binary::Runtime;
use crate::checkpoint::Restore;
use crate::events::{Events, timestamp};
use crate::io::{Names, Owner, Streams};
use crate::mounts;
use crate::options::Options;
use crate::process::{Exit, Process};
use crate::ready::Ready;
use crate::reaper::{Reaper, Watch};
use crate::worker::{self, Failure, Job, Result, Tools};
use containerd_shim_protos::api::Mount;
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::ttrpc::Code;
use orlop::cgroup::{self, oom::OomWatch};
use orlop::ops::{self, exec::Outcome};
use orlop::ops::{CreateOptions, ExecOptions, ProcessJson, UpdateOptions};
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
    /// Kernel's count of OOM kills that containerd has been told of.
    oom_kills: AtomicU64,
    /// The init, until containerd knows of the container.
    pub watch: Mutex<Option<Watch>>,
    restore: Mutex<Option<Restore>>,
    cgroup_paths: OnceLock<cgroup::Paths>,
}

/// What containerd asks to be created.
pub struct Request {
    /// The container's id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system; none: the bundle has it.
    pub rootfs: Vec<Mount>,
    /// Its streams.
    pub names: Names,
    /// The runtime's options.
    pub options: Options,
    /// The images to restore it from, and those before them.
    pub checkpoint: Option<(PathBuf, String)>,
}

impl Container {
    /// Makes the container, up to its gate.
    pub async fn create(shim: &Arc<Shim>, request: Request) -> Result<Arc<Container>> {
        let Request { id, bundle, rootfs, names, options, checkpoint } = request;
        // For `delete`, which may have to do without us.
        options.save(&bundle).map_err(|e| Failure::internal("write options.json", e))?;
        let owner = Owner { ids: (options.io_uid, options.io_gid), namespace: &shim.namespace, container: &id };
        let mut streams = Streams::open(&names, &owner).await?;
        // What is restored has no process before it is started.
        let job = Job { stdio: if checkpoint.is_none() { streams.given() } else { None } };
        let root = bundle.join("rootfs");
        let restored = checkpoint.is_some();
        let make = |tools: &Tools| {
            if !rootfs.is_empty() {
                make_dir(&root)?;
                mounts::make(&rootfs, &root)?;
            }
            if restored {
                return Ok(Vec::new());
            }
            let made = create_in_worker(&options, &shim.namespace, &id, &bundle, names.terminal, tools);
            if made.is_err() && !rootfs.is_empty() {
                let _ = mounts::undo(&root);
            }
            made
        };
        let done = match worker::run(&shim.reaper, job, make).await {
            Err(e) => {
                if e.code == worker::LOST {
                    clean_up(shim, &options, &id, &bundle, !rootfs.is_empty()).await;
                }
                return Err(e.during("OCI runtime create failed"));
            }
            Ok(done) => done,
        };
        let init = Arc::new(Process::new("", names, Vec::new()));
        let (watch, restore) = match checkpoint {
            Some((images, parent)) => (None, Some(Restore { images, parent, streams })),
            None => {
                let ready = done.process(&shim.reaper).and_then(|(pid, watch)| {
                    streams.attach(done.console)?;
                    init.began(pid, &watch, streams);
                    Ok(watch)
                });
                match ready {
                    Ok(watch) => (Some(watch), None),
                    Err(e) => {
                        // It is made, and nobody would know of it.
                        clean_up(shim, &options, &id, &bundle, !rootfs.is_empty()).await;
                        return Err(e.during("OCI runtime create failed"));
                    }
                }
            }
        };
        let container = Arc::new(Container {
            shim: shim.clone(),
            id,
            bundle,
            options,
            mounted: !rootfs.is_empty(),
            init,
            execs: Mutex::default(),
            running: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            paused: AtomicBool::new(false),
            oom_kills: AtomicU64::new(0),
            watch: Mutex::new(watch),
            restore: Mutex::new(restore),
            cgroup_paths: OnceLock::new(),
        });
        Ok(container)
    }

    /// containerd knows of the container: from now on it can be told of its end.
    pub fn created(self: &Arc<Self>) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            tokio::spawn(self.clone().init_ended(watch));
            tokio::spawn(self.clone().watch_memory());
        }
    }

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
            let restored = self.restore(restore).await;
            restored.map_err(|e| e.during("OCI runtime restore failed"))?;
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
            other => other.map(drop),
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
        let run = |_: &Tools| {
            let deleted = match self.runtime() {
                None => ops::delete::delete(&self.global(), &self.id, false).map_err(Failure::from),
                Some(runtime) => runtime.run(&words(&["delete", &self.id]), true).map(drop),
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
        done.map(drop).map_err(|e| e.during("failed to delete task"))
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
        } else if shares_pids(&self.bundle) {
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

    async fn exec_ended(self: Arc<Self>, process: Arc<Process>, watch: Watch, running: OwnedRwLockReadGuard<()>) {
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

    /// The other runtime that the options name.
    pub fn runtime(&self) -> Option<Runtime> {
        Runtime::of(&self.options, &self.shim.namespace, &self.bundle)
    }
}

/// What `create` and `restore` of ours are told.
pub fn create_options(options: &Options, id: &str, bundle: &Path, terminal: bool, tools: &Tools) -> CreateOptions {
    CreateOptions {
        id: id.to_string(),
        bundle: bundle.to_path_buf(),
        config: None,
        console_socket: terminal.then(|| tools.socket.clone()),
        pidfd_socket: None,
        pid_file: Some(bundle.join(INIT_PID)),
        no_pivot: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        preserve_fds: 0,
    }
}

/// Makes the container, in a worker; the answer is the pid of its init.
fn create_in_worker(
    options: &Options,
    namespace: &str,
    id: &str,
    bundle: &Path,
    terminal: bool,
    tools: &Tools,
) -> Result<Vec<u8>> {
    let pid_file = bundle.join(INIT_PID);
    if let Some(runtime) = Runtime::of(options, namespace, bundle) {
        let mut args = words(&["create", "--bundle"]);
        args.push(bundle.as_os_str());
        args.extend(options.no_pivot_root.then_some(OsStr::new("--no-pivot")));
        args.extend(options.no_new_keyring.then_some(OsStr::new("--no-new-keyring")));
        return runtime.make(&args, &pid_file, id, terminal, tools);
    }
    let create = create_options(options, id, bundle, terminal, tools);
    Ok(ops::create::create(&options.global(namespace), &create)?.to_string().into_bytes())
}

/// Takes away a container that was made in part, or of which nobody knows; `mounted`: its root file system too.
async fn clean_up(shim: &Shim, options: &Options, id: &str, bundle: &Path, mounted: bool) {
    let run = |_: &Tools| {
        let deleted = delete_by_force(options, &shim.namespace, id, bundle);
        if mounted {
            let root = bundle.join("rootfs");
            mounts::undo(&root).map_err(|e| Failure::internal(&format!("unmount {}", root.display()), e.desc()))?;
        }
        deleted.map(|()| Vec::new())
    };
    if let Err(e) = worker::run(&shim.reaper, Job { stdio: None }, run).await {
        log::error!("{id}: clean up: {}", e.message);
    }
}

/// Whether the processes of a container outlive its init: its pid namespace is another's, or the host's.
fn shares_pids(bundle: &Path) -> bool {
    let config: Option<serde_json::Value> =
        std::fs::read(bundle.join("config.json")).ok().and_then(|raw| serde_json::from_slice(&raw).ok());
    let namespaces = config.as_ref().and_then(|config| config.pointer("/linux/namespaces")?.as_array());
    let new = |ns: &serde_json::Value| {
        let text = |key| ns.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        text("type") == "pid" && text("path").is_empty()
    };
    !namespaces.is_some_and(|all| all.iter().any(new))
}

/// Kills and deletes the container, whatever there is of it; in a worker, or where there is no daemon.
pub fn delete_by_force(options: &Options, namespace: &str, id: &str, bundle: &Path) -> Result<()> {
    match Runtime::of(options, namespace, bundle) {
        None => Ok(ops::delete::delete(&options.global(namespace), id, true)?),
        Some(runtime) => runtime.run(&words(&["delete", "--force", id]), true).map(drop),
    }
}

/// Where `delete` finds the init's pid when no daemon is left.
pub const INIT_PID: &str = "init.pid";

/// Words of a command line.
pub fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

/// All of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Failure::internal(&format!("read {}", path.display()), e))
}

/// As the Go shim has it: only root may look in.
fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o711).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::internal(&format!("mkdir {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
