//! A client of the Container Runtime Interface, over which the kubelet drives containerd.

pub mod config;
pub mod grpc;
pub mod image;
pub mod messages;
pub mod stream;

pub use grpc::{Status, code};

use messages::*;
use std::path::{Path, PathBuf};

/// Makes calls on containerd's socket. Each has a connection of its own, so any thread can make them.
#[derive(Debug, Clone)]
pub struct Cri {
    socket: PathBuf,
}

macro_rules! calls {
    ($($name:ident = $method:literal ($question:ty) $answer:ty;)*) => {
        $(
            #[doc = concat!("The call `", $method, "`.")]
            pub fn $name(&self, question: $question) -> Result<$answer, Status> {
                grpc::call(&self.socket, concat!("/runtime.v1.", $method), &question)
            }
        )*
    };
}

impl Cri {
    /// A client of the daemon that listens there.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    calls! {
        version = "RuntimeService/Version" (VersionRequest) VersionResponse;
        status = "RuntimeService/Status" (StatusRequest) StatusResponse;
        run_pod_sandbox = "RuntimeService/RunPodSandbox" (RunPodSandboxRequest) PodId;
        stop_pod_sandbox = "RuntimeService/StopPodSandbox" (PodId) Empty;
        remove_pod_sandbox = "RuntimeService/RemovePodSandbox" (PodId) Empty;
        pod_sandbox_status = "RuntimeService/PodSandboxStatus" (PodSandboxStatusRequest) PodSandboxStatusResponse;
        list_pod_sandbox = "RuntimeService/ListPodSandbox" (ListPodSandboxRequest) ListPodSandboxResponse;
        create_container = "RuntimeService/CreateContainer" (CreateContainerRequest) ContainerId;
        start_container = "RuntimeService/StartContainer" (ContainerId) Empty;
        stop_container = "RuntimeService/StopContainer" (StopContainerRequest) Empty;
        remove_container = "RuntimeService/RemoveContainer" (ContainerId) Empty;
        list_containers = "RuntimeService/ListContainers" (ListContainersRequest) ListContainersResponse;
        container_status = "RuntimeService/ContainerStatus" (ContainerStatusRequest) ContainerStatusResponse;
        update_container_resources = "RuntimeService/UpdateContainerResources" (UpdateContainerResourcesRequest) Empty;
        reopen_container_log = "RuntimeService/ReopenContainerLog" (ContainerId) Empty;
        exec_sync = "RuntimeService/ExecSync" (ExecSyncRequest) ExecSyncResponse;
        exec = "RuntimeService/Exec" (ExecRequest) Url;
        attach = "RuntimeService/Attach" (AttachRequest) Url;
        port_forward = "RuntimeService/PortForward" (PortForwardRequest) Url;
        container_stats = "RuntimeService/ContainerStats" (ContainerId) ContainerStatsResponse;
        list_container_stats = "RuntimeService/ListContainerStats" (ListContainerStatsRequest) ListContainerStatsResponse;
        pod_sandbox_stats = "RuntimeService/PodSandboxStats" (PodId) PodSandboxStatsResponse;
        list_pod_sandbox_stats = "RuntimeService/ListPodSandboxStats" (ListPodSandboxStatsRequest) ListPodSandboxStatsResponse;
        image_status = "ImageService/ImageStatus" (ImageStatusRequest) ImageStatusResponse;
    }
}
