//! containerd's sandbox API (api/runtime/sandbox/v1): the daemon of a pod whose first member is no container. containerd asks for it where a
//! runtime is configured with `sandboxer = "shim"`, and for `ctr sandboxes`; with its own `podsandbox`, a pod begins with a pause container instead.
//!
//! A sandbox is one process that holds namespaces ([`holder`]). Containers are made by the Task API of the same daemon, and join it by its pid.

mod config;
mod holder;

use crate::container::{Held, Shim};
use crate::events::timestamp;
use crate::metrics;
use crate::process::Exit;
use crate::worker::{self, Failure, Job, Result, Tools};
use async_trait::async_trait;
use config::Config;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest, PlatformResponse,
    SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
    ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, StopSandboxResponse,
    WaitSandboxRequest, WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_async::Sandbox as Api;
use containerd_shim_protos::ttrpc::{self, Code, asynchronous::TtrpcContext};
use orlop_sys::process::{SIGKILL, pidfd_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

type Answer<T> = ttrpc::Result<T>;

const READY: &str = "SANDBOX_READY";

/// How long a killed process may take to go.
const KILLED: Duration = Duration::from_secs(10);

/// The service, which has one sandbox or none.
#[derive(Clone)]
pub struct Service {
    shim: Arc<Shim>,
    sandbox: Arc<Mutex<Option<Arc<Sandbox>>>>,
    /// Ends the daemon, unless it still has containers.
    over: Arc<dyn Fn() + Send + Sync>,
}

/// The sandbox of this daemon.
struct Sandbox {
    id: String,
    created: SystemTime,
    /// Until it is started.
    config: Mutex<Option<Config>>,
    /// That of the pod.
    cgroup: Option<PathBuf>,
    holder: Mutex<Option<(u32, Arc<OwnedFd>)>>,
    exit: watch::Sender<Option<Exit>>,
}

impl Sandbox {
    fn holder(&self) -> Option<(u32, Arc<OwnedFd>)> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pid(&self) -> u32 {
        self.holder().map_or(0, |(pid, _)| pid)
    }

    fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// The words are those of the CRI's PodSandboxState.
    fn state(&self) -> &'static str {
        if self.holder().is_some() && self.exit().is_none() { READY } else { "SANDBOX_NOTREADY" }
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(Exit { status: 255, at: SystemTime::now() })
    }

    /// Ends its process, and with that all that is left in its pid namespace.
    async fn stop(&self) -> Result<()> {
        let Some((_, pidfd)) = self.holder() else {
            // It was never started: who waits for it need not wait any more.
            self.exit.send_if_modified(|exit| {
                exit.is_none() && {
                    *exit = Some(Exit { status: 0, at: SystemTime::now() });
                    true
                }
            });
            return Ok(());
        };
        let _ = pidfd_signal(pidfd.as_fd(), SIGKILL);
        let gone = tokio::time::timeout(KILLED, self.wait()).await;
        gone.map(drop).map_err(|_| Failure::internal(&self.id, format!("killed, but not gone after {KILLED:?}")))
    }
}

impl Service {
    /// A service without a sandbox; `over` is called when containerd wants the daemon to end.
    pub fn new(shim: Arc<Shim>, over: Arc<dyn Fn() + Send + Sync>) -> Service {
        Service { shim, sandbox: Arc::default(), over }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Sandbox>>> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = self.slot().clone().filter(|sandbox| sandbox.id == id);
        found.ok_or_else(|| Failure::new(Code::NOT_FOUND, format!("there is no sandbox {id:?}")))
    }

    async fn start(&self, sandbox: &Arc<Sandbox>) -> Result<u32> {
        let config = sandbox.config.lock().unwrap_or_else(PoisonError::into_inner).take();
        let config = config.ok_or_else(|| {
            Failure::new(Code::FAILED_PRECONDITION, format!("sandbox {:?} was started already", sandbox.id))
        })?;
        let run = |_: &Tools| match holder::start(&config) {
            Ok(pid) => Ok(pid.to_string().into_bytes()),
            Err(why) => Err(Failure::internal("sandbox", why)),
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await?;
        let (pid, watch) = done.process(&self.shim.reaper)?;
        *sandbox.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some((pid as u32, watch.pidfd()));
        let ended = sandbox.clone();
        tokio::spawn(async move {
            let status = u32::from(watch.ended().await);
            ended.exit.send_replace(Some(Exit { status, at: SystemTime::now() }));
        });
        Ok(pid as u32)
    }
}

/// Go's names of the architectures that Rust names otherwise; those of the rest are the same.
const ARCHITECTURES: [(&str, &str); 4] =
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("x86", "386"), ("powerpc64", "ppc64le")];

#[async_trait]
impl Api for Service {
    async fn create_sandbox(&self, _: &TtrpcContext, r: CreateSandboxRequest) -> Answer<CreateSandboxResponse> {
        let refused = |why: String| Failure::new(Code::INVALID_ARGUMENT, format!("sandbox {:?}: {why}", r.sandbox_id));
        orlop::state::check_id(&r.sandbox_id).map_err(Failure::from)?;
        if !r.rootfs.is_empty() {
            return Err(refused("a root file system is not supported: its process needs none".to_string()).into());
        }
        let spec = std::fs::read(Path::new(&r.bundle_path).join("config.json")).ok();
        let config = Config::of(spec.as_deref(), r.options.as_ref(), &r.netns_path).map_err(refused)?;
        let mut slot = self.slot();
        if let Some(sandbox) = &*slot {
            let why = format!("this daemon has sandbox {:?} already", sandbox.id);
            return Err(Failure::new(Code::ALREADY_EXISTS, why).into());
        }
        *slot = Some(Arc::new(Sandbox {
            id: r.sandbox_id,
            created: SystemTime::now(),
            cgroup: config.cgroup.clone(),
            config: Mutex::new(Some(config)),
            holder: Mutex::default(),
            exit: watch::Sender::new(None),
        }));
        *self.shim.sandbox() = Held::Yes;
        Ok(CreateSandboxResponse::new())
    }

    async fn start_sandbox(&self, _: &TtrpcContext, r: StartSandboxRequest) -> Answer<StartSandboxResponse> {
        let sandbox = self.sandbox(&r.sandbox_id)?;
        let mut answer = StartSandboxResponse::new();
        answer.pid = self.start(&sandbox).await?;
        answer.created_at = Some(timestamp(sandbox.created)).into();
        Ok(answer)
    }

    async fn platform(&self, _: &TtrpcContext, r: PlatformRequest) -> Answer<PlatformResponse> {
        self.sandbox(&r.sandbox_id)?;
        let ours = std::env::consts::ARCH;
        let theirs = ARCHITECTURES.iter().find(|(rust, _)| *rust == ours).map_or(ours, |(_, go)| go);
        let mut answer = PlatformResponse::new();
        let platform = answer.platform.mut_or_insert_default();
        (platform.os, platform.architecture) = (std::env::consts::OS.to_string(), theirs.to_string());
        Ok(answer)
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, r: StopSandboxRequest) -> Answer<StopSandboxResponse> {
        // The time given is for the end of containers; this process has nothing to save.
        self.sandbox(&r.sandbox_id)?.stop().await?;
        Ok(StopSandboxResponse::new())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, r: WaitSandboxRequest) -> Answer<WaitSandboxResponse> {
        let exit = self.sandbox(&r.sandbox_id)?.wait().await;
        let mut answer = WaitSandboxResponse::new();
        answer.exit_status = exit.status;
        answer.exited_at = Some(timestamp(exit.at)).into();
        Ok(answer)
    }

    async fn sandbox_status(&self, _: &TtrpcContext, r: SandboxStatusRequest) -> Answer<SandboxStatusResponse> {
        let sandbox = self.sandbox(&r.sandbox_id)?;
        let mut answer = SandboxStatusResponse::new();
        answer.sandbox_id = r.sandbox_id;
        answer.pid = sandbox.pid();
        answer.state = sandbox.state().to_string();
        answer.created_at = Some(timestamp(sandbox.created)).into();
        answer.exited_at = sandbox.exit().map(|exit| timestamp(exit.at)).into();
        if r.verbose {
            // What containerd's own sandboxes tell, and `crictl inspectp` shows, as far as there is such a thing.
            let status = if sandbox.state() == READY { "running" } else { "stopped" };
            let info = serde_json::json!({"pid": sandbox.pid(), "processStatus": status});
            answer.info.insert("info".to_string(), info.to_string());
        }
        Ok(answer)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, r: PingRequest) -> Answer<PingResponse> {
        self.sandbox(&r.sandbox_id)?;
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(&self, _: &TtrpcContext, r: ShutdownSandboxRequest) -> Answer<ShutdownSandboxResponse> {
        // A daemon whose sandbox could not be made is to end as well.
        if let Ok(sandbox) = self.sandbox(&r.sandbox_id) {
            sandbox.stop().await?;
            *self.slot() = None;
        }
        *self.shim.sandbox() = Held::Over;
        (self.over)();
        Ok(ShutdownSandboxResponse::new())
    }

    async fn sandbox_metrics(&self, _: &TtrpcContext, r: SandboxMetricsRequest) -> Answer<SandboxMetricsResponse> {
        let sandbox = self.sandbox(&r.sandbox_id)?;
        // Its own process does nothing: what there is to count is in the cgroup of all containers.
        let cgroup = sandbox.cgroup.as_deref().ok_or_else(|| {
            Failure::new(Code::FAILED_PRECONDITION, format!("sandbox {:?} was given no cgroup", sandbox.id))
        })?;
        let cgroup = orlop::cgroup::Host::default().files(Some(cgroup), &sandbox.id).map_err(Failure::from)?;
        let mut answer = SandboxMetricsResponse::new();
        let metric = answer.metrics.mut_or_insert_default();
        metric.timestamp = Some(timestamp(SystemTime::now())).into();
        metric.id = r.sandbox_id;
        metric.data = Some(metrics::of(cgroup.paths())?).into();
        Ok(answer)
    }
}
