//! A daemon, its pods and their containers, which a test removes when it ends.

use orlop_integration::containerd::Containerd;
use orlop_integration::cri::image::{BUSYBOX, PAUSE};
use orlop_integration::cri::messages::*;
use orlop_integration::cri::stream::Stream;
use orlop_integration::cri::{Cri, Status};
use orlop_integration::private::remove_cgroups;
use orlop_integration::{cgroup, runtime, wait};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use orlop_integration::wait::SOON;

/// A containerd with images, and a client of it.
pub struct Lab {
    pub daemon: Containerd,
    pub cri: Cri,
    pub handler: String,
}

/// The shim named by SHIM, else the one beside the runtime under test (ORLOP).
fn shim() -> PathBuf {
    let beside = || runtime::path().with_file_name("containerd-shim-orlop-v2");
    let path = std::env::var_os("SHIM").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "no shim at {}: build it, or set SHIM", path.display());
    std::path::absolute(path).expect("a path")
}

impl Lab {
    /// Starts a daemon, and waits until it has images and a network. CRI_HANDLER chooses the runtime of the pods.
    pub fn start() -> Self {
        let daemon = Containerd::start_cri(&shim());
        let cri = Cri::new(&daemon.socket());
        let handler = std::env::var("CRI_HANDLER").unwrap_or_else(|_| "orlop".to_owned());
        let lab = Self { daemon, cri, handler };
        lab.is_ready();
        lab
    }

    pub fn is_ready(&self) {
        wait::until("the interface is ready", wait::SOON, || {
            let status = self.cri.status(StatusRequest { verbose: false }).ok()?.status?;
            let images = [PAUSE, BUSYBOX].iter().all(|image| {
                let image = Some(ImageSpec { image: (*image).to_owned() });
                self.cri.image_status(ImageStatusRequest { image, verbose: false }).is_ok_and(|s| s.image.is_some())
            });
            // containerd 2 has more conditions, such as that nothing in its configuration is deprecated.
            let is = |name: &str| status.conditions.iter().any(|c| c.kind == name && c.status);
            (images && is("RuntimeReady") && is("NetworkReady")).then_some(())
        });
    }

    /// A stream that the daemon has opened.
    pub fn stream(&self, url: Result<Url, Status>) -> Stream {
        Stream::open(self.daemon.anchor(), &url.unwrap_or_else(|e| panic!("no stream: {e}")).url)
    }

    /// What is there now and belongs to a pod.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = self.daemon.leftovers();
        let parent = self.daemon.cgroups();
        let cgroups = cgroup::tree(parent).into_iter().filter(|dir| !dir.ends_with(parent.trim_start_matches('/')));
        left.extend(cgroups.map(|dir| format!("cgroup: {}", dir.display())));
        left
    }

    /// What is still left some time after the last pod: a shim goes after it has answered.
    pub fn left(&self, of: impl Fn(&String) -> bool) -> Vec<String> {
        let end = Instant::now() + SOON;
        loop {
            let left: Vec<String> = self.leftovers().into_iter().filter(&of).collect();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A pod with an address of its own.
    pub fn pod(&self) -> Pod<'_> {
        self.pod_with(|_| {})
    }

    pub fn pod_with(&self, change: impl FnOnce(&mut PodSandboxConfig)) -> Pod<'_> {
        self.try_pod_with(change).unwrap_or_else(|e| panic!("RunPodSandbox: {e}\n{}", self.daemon.log()))
    }

    pub fn try_pod_with(&self, change: impl FnOnce(&mut PodSandboxConfig)) -> Result<Pod<'_>, Status> {
        let mut config = self.config();
        change(&mut config);
        fs::create_dir_all(&config.log_directory).expect("a directory of ours");
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: self.handler.clone() };
        match self.cri.run_pod_sandbox(request) {
            Ok(answer) => Ok(Pod { lab: self, config, id: answer.pod_sandbox_id }),
            Err(e) => {
                remove_cgroup(&config);
                Err(e)
            }
        }
    }

    fn config(&self) -> PodSandboxConfig {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pod{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let logs = self.daemon.file("logs").join(&name);
        let context = LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
            ..Default::default()
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{name}"),
                namespace: "tests".to_owned(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory: logs.display().to_string(),
            labels: [("pod".to_owned(), name.clone())].into(),
            annotations: [("orlop.test/kept".to_owned(), "yes".to_owned())].into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.daemon.cgroups()),
                security_context: Some(context),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn cgroup_of(config: &PodSandboxConfig) -> String {
    config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default()
}

/// Removes the pod's own cgroup, as the kubelet does, in which there must be nothing any more.
fn remove_cgroup(config: &PodSandboxConfig) {
    let parent = cgroup_of(config);
    for dir in cgroup::tree(&parent) {
        assert!(dir.ends_with(parent.trim_start_matches('/')), "left behind: {}", dir.display());
        fs::remove_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    }
}

/// A running pod; stopped and removed on drop.
pub struct Pod<'a> {
    pub lab: &'a Lab,
    pub config: PodSandboxConfig,
    pub id: String,
}

/// A message of a request that a test can change.
pub fn linux(config: &mut PodSandboxConfig) -> &mut LinuxPodSandboxConfig {
    config.linux.get_or_insert_default()
}

/// The namespaces of a pod.
pub fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    linux(config).security_context.get_or_insert_default().namespace_options.get_or_insert_default()
}

/// The security context of a container.
pub fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The limits of a container.
pub fn limits(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

impl<'a> Pod<'a> {
    pub fn status(&self) -> PodSandboxStatus {
        self.try_status().unwrap_or_else(|e| panic!("PodSandboxStatus: {e}"))
    }

    pub fn try_status(&self) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        Ok(self.lab.cri.pod_sandbox_status(request)?.status.expect("a status"))
    }

    /// The pid of the pod's own process.
    pub fn pid(&self) -> u32 {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: true };
        let info = self.lab.cri.pod_sandbox_status(request).expect("PodSandboxStatus").info;
        pid_of(&info["info"])
    }

    pub fn ip(&self) -> String {
        self.status().network.expect("a network").ip
    }

    pub fn this(&self) -> PodId {
        PodId { pod_sandbox_id: self.id.clone() }
    }

    pub fn stop(&self) -> Result<(), Status> {
        self.lab.cri.stop_pod_sandbox(self.this()).map(|_| ())
    }

    /// Stops and removes it; then nothing is in its cgroup, which the kubelet removes.
    pub fn remove(&self) -> Result<(), Status> {
        self.stop()?;
        self.lab.cri.remove_pod_sandbox(self.this())?;
        remove_cgroup(&self.config);
        Ok(())
    }

    /// A container that runs the shell script.
    pub fn run(&self, script: &str) -> Container<'_> {
        self.run_with(script, |_| {})
    }

    /// A container that does nothing until it is stopped.
    pub fn sleeping(&self) -> Container<'_> {
        self.run(FOREVER)
    }

    pub fn run_with(&self, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> Container<'_> {
        let container = self.create_with(script, change);
        container.start().unwrap_or_else(|e| panic!("StartContainer: {e}\n{}", self.lab.daemon.log()));
        container
    }

    pub fn create_with(&self, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> Container<'_> {
        self.try_create_with(script, change)
            .unwrap_or_else(|e| panic!("CreateContainer: {e}\n{}", self.lab.daemon.log()))
    }

    pub fn try_create_with(
        &self,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Result<Container<'_>, Status> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let log = PathBuf::from(&self.config.log_directory).join(format!("{name}.log"));
        let options = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref()?.namespace_options.clone());
        let mut config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.clone(), attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.to_owned() }),
            args: vec!["-c".to_owned(), script.to_owned()],
            labels: [("container".to_owned(), name.clone())].into(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: None,
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: options,
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        change(&mut config);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = self.lab.cri.create_container(request)?.container_id;
        Ok(Container { pod: self, id, log })
    }

    /// Pids of the shims that serve this pod, and of those that are the parent of one of these processes.
    pub fn shims(&self) -> Vec<u32> {
        self.lab.daemon.shims().into_iter().filter(|(_, line)| line.contains(&self.id)).map(|(pid, _)| pid).collect()
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if self.try_status().is_err() {
            return;
        }
        if std::thread::panicking() {
            // The test has failed already; a panic on top of it would end all the others.
            let _ = self.stop().and_then(|()| self.lab.cri.remove_pod_sandbox(self.this()));
            remove_cgroups(&cgroup_of(&self.config));
            return;
        }
        self.remove().unwrap_or_else(|e| panic!("the pod cannot be removed: {e}\n{}", self.lab.daemon.log()));
    }
}

/// A script that ends at once when it is told to, as pid 1 too.
pub const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

/// A container of a pod; it goes with the pod.
pub struct Container<'a> {
    pub pod: &'a Pod<'a>,
    pub id: String,
    pub log: PathBuf,
}

impl Container<'_> {
    pub fn this(&self) -> ContainerId {
        ContainerId { container_id: self.id.clone() }
    }

    pub fn start(&self) -> Result<(), Status> {
        self.pod.lab.cri.start_container(self.this()).map(|_| ())
    }

    /// Stops it, with so many seconds before it is killed.
    pub fn stop(&self, timeout: i64) -> Result<(), Status> {
        self.pod.lab.cri.stop_container(StopContainerRequest { container_id: self.id.clone(), timeout }).map(|_| ())
    }

    pub fn remove(&self) -> Result<(), Status> {
        self.pod.lab.cri.remove_container(self.this()).map(|_| ())
    }

    pub fn status(&self) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let answer = self.pod.lab.cri.container_status(request).unwrap_or_else(|e| panic!("ContainerStatus: {e}"));
        answer.status.expect("a status")
    }

    pub fn pid(&self) -> u32 {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: true };
        pid_of(&self.pod.lab.cri.container_status(request).expect("ContainerStatus").info["info"])
    }

    pub fn wait_for(&self, state: ContainerState) -> ContainerStatus {
        wait::until(&format!("the container is {state:?}"), SOON, || {
            let status = self.status();
            (status.state == i32::from(state)).then_some(status)
        })
    }

    /// Waits for its end and gives its status.
    pub fn ended(&self) -> ContainerStatus {
        self.wait_for(ContainerState::Exited)
    }

    pub fn try_exec(&self, script: &str, timeout: i64) -> Result<ExecSyncResponse, Status> {
        let cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        self.pod.lab.cri.exec_sync(ExecSyncRequest { container_id: self.id.clone(), cmd, timeout })
    }

    /// What the script prints; it must succeed.
    pub fn exec(&self, script: &str) -> String {
        let out = self.try_exec(script, 30).unwrap_or_else(|e| panic!("{script}: {e}\n{}", self.pod.lab.daemon.log()));
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.exit_code, 0, "{script}: {stdout}{stderr}");
        stdout.trim_end().to_owned()
    }

    /// What the script prints, whether it succeeds or not, both streams together.
    pub fn says(&self, script: &str) -> String {
        self.exec(&format!("({script}) 2>&1; true"))
    }

    /// What the container itself has printed, without what the log has before each line.
    pub fn output(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn pid_of(info: &str) -> u32 {
    let info: serde_json::Value = serde_json::from_str(info).expect("JSON");
    info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
}

/// The namespace of a process, as `net:[4026531840]`.
pub fn namespace(pid: u32, kind: &str) -> String {
    let link = format!("/proc/{pid}/ns/{kind}");
    fs::read_link(&link).unwrap_or_else(|e| panic!("{link}: {e}")).display().to_string()
}
