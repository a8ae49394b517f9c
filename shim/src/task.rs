//! containerd's Task API (api/runtime/task/v3; v2 has the same messages): each method turns a message into a call of [`Container`].

use crate::checkpoint::Checkpoint;
use crate::connections::Count;
use crate::container::{Container, Held, Request, Shim};
use crate::events::{any, timestamp};
use crate::io::Names;
use crate::metrics;
use crate::options::Options;
use crate::process::{Exit, Process};
use crate::ready::next_rounds;
use crate::worker::{Failure, Result};
use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskIO, TaskPaused, TaskResumed,
    TaskStart,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::{self, Code, asynchronous::TtrpcContext};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

type Answer<T> = ttrpc::Result<T>;

/// How long the one who has deleted the last container may take to read that and to say that the daemon is to end.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The service. It has one instance, which both versions of the API share.
#[derive(Clone)]
pub struct Service {
    shim: Arc<Shim>,
    /// `None`: a container of this id is being made.
    containers: Arc<Mutex<HashMap<String, Option<Arc<Container>>>>>,
    /// A container has been made, or could not be, or has gone.
    changed: Arc<Notify>,
    over: Arc<watch::Sender<bool>>,
    /// The end was asked for while a container was there, and none has been asked for since.
    asked: Arc<AtomicBool>,
}

impl Service {
    /// A service without containers.
    pub fn new(shim: Arc<Shim>) -> Service {
        let over = Arc::new(watch::Sender::new(false));
        Service { shim, containers: Arc::default(), changed: Arc::default(), over, asked: Arc::default() }
    }

    /// Becomes true when containerd has shut this daemon down.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Ends the daemon, unless it has another container of the group, or a sandbox.
    pub fn end_if_unused(&self) {
        if self.unused() {
            self.over.send_replace(true);
        }
    }

    fn unused(&self) -> bool {
        self.containers().is_empty() && *self.shim.sandbox() != Held::Yes
    }

    /// Waits until for the time `alone` there was nothing to stay for, and no connection. containerd, killed between the start of this daemon and
    /// what it wanted of it, may know nothing of it when it is back.
    pub async fn left_behind(&self, connections: &Count, alone: Duration) {
        let mut count = connections.subscribe();
        loop {
            let changed = self.changed.notified();
            let connected = *count.borrow_and_update() > 0;
            let lonely = !connected && self.unused();
            tokio::select! {
                () = tokio::time::sleep(alone), if lonely => {
                    // Who has come in the same moment is still to be let in.
                    next_rounds().await;
                    if *count.borrow() == 0 && self.unused() {
                        return;
                    }
                }
                () = changed => {}
                // Its sender is in our hands.
                _ = count.changed() => {}
            }
        }
    }

    /// A client that goes away while its container is made asks for the end at once and never again: what it asked for is done when the
    /// container has gone.
    fn end_if_asked(&self) {
        if !self.asked.load(Ordering::Relaxed) {
            return;
        }
        let (service, mut over) = (self.clone(), self.over());
        tokio::spawn(async move {
            let late = tokio::time::timeout(LAST_ANSWER, over.wait_for(|over| *over)).await.is_err();
            if late && service.asked.load(Ordering::Relaxed) {
                service.end_if_unused();
            }
        });
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Container>>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = self.containers().get(id).cloned().flatten();
        found.ok_or_else(|| Failure::new(Code::NOT_FOUND, "container not created"))
    }

    fn process(&self, id: &str, exec_id: &str) -> Result<(Arc<Container>, Arc<Process>)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        Ok((container, process))
    }

    /// The id is taken while the container is made: two requests for one id cannot both make it.
    async fn make(&self, id: &str, request: Request) -> Result<Arc<Container>> {
        if self.containers().contains_key(id) {
            return Err(Failure::new(Code::ALREADY_EXISTS, format!("container {id:?} exists")));
        }
        self.asked.store(false, Ordering::Relaxed);
        self.containers().insert(id.to_string(), None);
        let made = Container::create(&self.shim, request).await;
        match &made {
            Ok(container) => self.containers().insert(id.to_string(), Some(container.clone())),
            Err(_) => self.containers().remove(id).flatten().map(Some),
        };
        self.changed.notify_waiters();
        if made.is_err() {
            self.end_if_asked();
        }
        made
    }
}

impl Service {
    /// Waits until the container of this id is not just being made.
    async fn settled(&self, id: &str) {
        loop {
            let changed = self.changed.notified();
            if !matches!(self.containers().get(id), Some(None)) {
                return;
            }
            changed.await;
        }
    }
}

fn status(container: &Container, process: &Process, exec_id: &str) -> Status {
    match process.exit() {
        Some(_) => Status::STOPPED,
        None if !process.state().started => Status::CREATED,
        None if exec_id.is_empty() && container.paused() => Status::PAUSED,
        None => Status::RUNNING,
    }
}

fn checked_id(exec_id: &str) -> Result<&str> {
    orlop::state::check_id(exec_id)?;
    Ok(exec_id)
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, mut r: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        orlop::state::check_id(&r.id).map_err(Failure::from)?;
        let parent = std::mem::take(&mut r.parent_checkpoint);
        let checkpoint = (!r.checkpoint.is_empty()).then(|| (PathBuf::from(&r.checkpoint), parent));
        let options = Options::from_any(r.options.as_ref()).map_err(|e| Failure::new(Code::INVALID_ARGUMENT, e))?;
        let names = Names { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, terminal: r.terminal };
        let request = Request {
            id: r.id.clone(),
            bundle: PathBuf::from(&r.bundle),
            rootfs: r.rootfs.clone(),
            names: names.clone(),
            options,
            checkpoint,
        };
        let container = self.make(&r.id, request).await?;
        let pid = container.process("")?.pid();
        let mut io = TaskIO::new();
        (io.stdin, io.stdout, io.stderr, io.terminal) = (names.stdin, names.stdout, names.stderr, names.terminal);
        let mut event = TaskCreate::new();
        event.set_container_id(std::mem::take(&mut r.id));
        event.set_bundle(r.bundle);
        event.set_rootfs(r.rootfs);
        event.set_io(io);
        event.set_checkpoint(r.checkpoint);
        event.set_pid(pid);
        self.shim.events.send(&event);
        container.created();
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, r: StartRequest) -> Answer<StartResponse> {
        let container = self.container(&r.id)?;
        let pid = if r.exec_id.is_empty() {
            let told = |pid| {
                let mut event = TaskStart::new();
                event.set_container_id(r.id.clone());
                event.set_pid(pid);
                self.shim.events.send(&event);
            };
            container.start(told).await?
        } else {
            let told = |pid| {
                let mut event = TaskExecStarted::new();
                event.set_container_id(r.id.clone());
                event.set_exec_id(r.exec_id.clone());
                event.set_pid(pid);
                self.shim.events.send(&event);
            };
            container.start_exec(&r.exec_id, told).await?
        };
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, r: DeleteRequest) -> Answer<DeleteResponse> {
        // A client whose create was cut off deletes at once what may yet come.
        self.settled(&r.id).await;
        let (pid, exit) = self.container(&r.id)?.delete(&r.exec_id).await?;
        if r.exec_id.is_empty() {
            self.containers().remove(&r.id);
            self.changed.notify_waiters();
            let mut event = TaskDelete::new();
            event.set_container_id(r.id);
            event.set_pid(pid);
            event.set_exit_status(exit.status);
            event.set_exited_at(timestamp(exit.at));
            self.shim.events.send(&event);
            if *self.shim.sandbox() == Held::Over {
                self.end_if_unused();
            }
            self.end_if_asked();
        }
        let mut answer = DeleteResponse::new();
        (answer.pid, answer.exit_status) = (pid, exit.status);
        answer.exited_at = Some(timestamp(exit.at)).into();
        Ok(answer)
    }

    async fn exec(&self, _: &TtrpcContext, r: ExecProcessRequest) -> Answer<Empty> {
        let container = self.container(&r.id)?;
        let spec = r.spec.as_ref().map(|spec| spec.value.clone()).unwrap_or_default();
        let names = Names { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, terminal: r.terminal };
        container.add_exec(checked_id(&r.exec_id)?, names, spec)?;
        let mut event = TaskExecAdded::new();
        event.set_container_id(r.id);
        event.set_exec_id(r.exec_id);
        self.shim.events.send(&event);
        Ok(Empty::new())
    }

    async fn state(&self, _: &TtrpcContext, r: StateRequest) -> Answer<StateResponse> {
        let (container, process) = self.process(&r.id, &r.exec_id)?;
        let names = process.names.clone();
        let mut answer = StateResponse::new();
        answer.status = status(&container, &process, &r.exec_id).into();
        answer.bundle = container.bundle().display().to_string();
        answer.pid = process.pid();
        (answer.stdin, answer.stdout, answer.stderr) = (names.stdin, names.stdout, names.stderr);
        answer.terminal = names.terminal;
        if let Some(Exit { status, at }) = process.exit() {
            answer.exit_status = status;
            answer.exited_at = Some(timestamp(at)).into();
        }
        // An exec'd process goes by its own id.
        answer.id = if r.exec_id.is_empty() { r.id } else { r.exec_id.clone() };
        answer.exec_id = r.exec_id;
        Ok(answer)
    }

    async fn wait(&self, _: &TtrpcContext, r: WaitRequest) -> Answer<WaitResponse> {
        let (_, process) = self.process(&r.id, &r.exec_id)?;
        let exit = process.wait().await;
        let mut answer = WaitResponse::new();
        answer.exit_status = exit.status;
        answer.exited_at = Some(timestamp(exit.at)).into();
        Ok(answer)
    }

    async fn kill(&self, _: &TtrpcContext, r: KillRequest) -> Answer<Empty> {
        self.container(&r.id)?.kill(&r.exec_id, r.signal, r.all).await?;
        Ok(Empty::new())
    }

    async fn pids(&self, _: &TtrpcContext, r: PidsRequest) -> Answer<PidsResponse> {
        // By this, a containerd that has restarted learns whether there is a container, or the daemon is to be ended.
        self.settled(&r.id).await;
        let container = self.container(&r.id)?;
        let mut answer = PidsResponse::new();
        for pid in container.pids().await? {
            let mut process = ProcessInfo { pid, ..Default::default() };
            if let Some(exec_id) = container.exec_of(pid) {
                let details = ProcessDetails { exec_id, ..Default::default() };
                process.info = Some(any(&details)).into();
            }
            answer.processes.push(process);
        }
        Ok(answer)
    }

    async fn pause(&self, _: &TtrpcContext, r: PauseRequest) -> Answer<Empty> {
        self.container(&r.id)?.pause(true).await?;
        let mut event = TaskPaused::new();
        event.set_container_id(r.id);
        self.shim.events.send(&event);
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, r: ResumeRequest) -> Answer<Empty> {
        self.container(&r.id)?.pause(false).await?;
        let mut event = TaskResumed::new();
        event.set_container_id(r.id);
        self.shim.events.send(&event);
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, r: CheckpointTaskRequest) -> Answer<Empty> {
        let checkpoint = Checkpoint::from_any(PathBuf::from(r.path), r.options.as_ref())
            .map_err(|e| Failure::new(Code::INVALID_ARGUMENT, e))?;
        self.container(&r.id)?.checkpoint(checkpoint).await?;
        let mut event = TaskCheckpointed::new();
        event.set_container_id(r.id);
        self.shim.events.send(&event);
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, r: ResizePtyRequest) -> Answer<Empty> {
        self.process(&r.id, &r.exec_id)?.1.resize(r.width, r.height)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, r: CloseIORequest) -> Answer<Empty> {
        let (_, process) = self.process(&r.id, &r.exec_id)?;
        if r.stdin {
            process.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, r: UpdateTaskRequest) -> Answer<Empty> {
        let resources = r.resources.as_ref().map(|resources| resources.value.clone()).unwrap_or_default();
        self.container(&r.id)?.update(resources).await?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, r: StatsRequest) -> Answer<StatsResponse> {
        let container = self.container(&r.id)?;
        let mut answer = StatsResponse::new();
        answer.stats = Some(metrics::of(&container.cgroup_paths()?)?).into();
        Ok(answer)
    }

    async fn connect(&self, _: &TtrpcContext, r: ConnectRequest) -> Answer<ConnectResponse> {
        let task_pid = self.process(&r.id, "").map_or(0, |(_, init)| init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        self.asked.store(true, Ordering::Relaxed);
        self.end_if_unused();
        Ok(Empty::new())
    }
}
