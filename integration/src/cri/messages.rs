//! The messages of the Container Runtime Interface, `runtime.v1` of Kubernetes' cri-api: those that the tests send and read,
//! with the names and numbers that they have in its api.proto. Unknown fields are passed over.
#![allow(missing_docs, reason = "the interface itself documents its fields")]

use std::collections::HashMap;

/// `field = number (kind on the wire) type`.
macro_rules! messages {
    ($($name:ident { $($field:ident = $number:tt ($($kind:tt)*) $type:ty,)* })*) => {
        $(
            #[derive(Clone, PartialEq, prost::Message)]
            pub struct $name {
                $(#[prost($($kind)*, tag = $number)] pub $field: $type,)*
            }
        )*
    };
}

macro_rules! enums {
    ($($name:ident { $($value:ident = $number:literal,)* })*) => {
        $(
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
            #[repr(i32)]
            pub enum $name {
                $($value = $number,)*
            }
        )*
    };
}

enums! {
    NamespaceMode {
        Pod = 0,
        Container = 1,
        Node = 2,
        Target = 3,
    }
    PodSandboxState {
        Ready = 0,
        NotReady = 1,
    }
    ContainerState {
        Created = 0,
        Running = 1,
        Exited = 2,
        Unknown = 3,
    }
    MountPropagation {
        Private = 0,
        HostToContainer = 1,
        Bidirectional = 2,
    }
    ProfileType {
        RuntimeDefault = 0,
        Unconfined = 1,
        Localhost = 2,
    }
}

messages! {
    VersionRequest {
        version = 1 (string) String,
    }
    VersionResponse {
        version = 1 (string) String,
        runtime_name = 2 (string) String,
        runtime_version = 3 (string) String,
    }
    DnsConfig {
        servers = 1 (string, repeated) Vec<String>,
        searches = 2 (string, repeated) Vec<String>,
        options = 3 (string, repeated) Vec<String>,
    }
    Mount {
        container_path = 1 (string) String,
        host_path = 2 (string) String,
        readonly = 3 (bool) bool,
        selinux_relabel = 4 (bool) bool,
        propagation = 5 (enumeration = "MountPropagation") i32,
        recursive_read_only = 8 (bool) bool,
    }
    NamespaceOption {
        network = 1 (enumeration = "NamespaceMode") i32,
        pid = 2 (enumeration = "NamespaceMode") i32,
        ipc = 3 (enumeration = "NamespaceMode") i32,
        target_id = 4 (string) String,
    }
    Int64Value {
        value = 1 (int64) i64,
    }
    LinuxSandboxSecurityContext {
        namespace_options = 1 (message, optional) Option<NamespaceOption>,
        run_as_user = 3 (message, optional) Option<Int64Value>,
        run_as_group = 8 (message, optional) Option<Int64Value>,
        readonly_rootfs = 4 (bool) bool,
        supplemental_groups = 5 (int64, repeated) Vec<i64>,
        privileged = 6 (bool) bool,
        seccomp = 9 (message, optional) Option<SecurityProfile>,
    }
    SecurityProfile {
        profile_type = 1 (enumeration = "ProfileType") i32,
        localhost_ref = 2 (string) String,
    }
    LinuxPodSandboxConfig {
        cgroup_parent = 1 (string) String,
        security_context = 2 (message, optional) Option<LinuxSandboxSecurityContext>,
        sysctls = 3 (map = "string, string") HashMap<String, String>,
    }
    PodSandboxMetadata {
        name = 1 (string) String,
        uid = 2 (string) String,
        namespace = 3 (string) String,
        attempt = 4 (uint32) u32,
    }
    PodSandboxConfig {
        metadata = 1 (message, optional) Option<PodSandboxMetadata>,
        hostname = 2 (string) String,
        log_directory = 3 (string) String,
        dns_config = 4 (message, optional) Option<DnsConfig>,
        labels = 6 (map = "string, string") HashMap<String, String>,
        annotations = 7 (map = "string, string") HashMap<String, String>,
        linux = 8 (message, optional) Option<LinuxPodSandboxConfig>,
    }
    RunPodSandboxRequest {
        config = 1 (message, optional) Option<PodSandboxConfig>,
        runtime_handler = 2 (string) String,
    }
    PodId {
        pod_sandbox_id = 1 (string) String,
    }
    PodSandboxStatusRequest {
        pod_sandbox_id = 1 (string) String,
        verbose = 2 (bool) bool,
    }
    PodIp {
        ip = 1 (string) String,
    }
    PodSandboxNetworkStatus {
        ip = 1 (string) String,
        additional_ips = 2 (message, repeated) Vec<PodIp>,
    }
    PodSandboxStatus {
        id = 1 (string) String,
        metadata = 2 (message, optional) Option<PodSandboxMetadata>,
        state = 3 (enumeration = "PodSandboxState") i32,
        created_at = 4 (int64) i64,
        network = 5 (message, optional) Option<PodSandboxNetworkStatus>,
        labels = 7 (map = "string, string") HashMap<String, String>,
        annotations = 8 (map = "string, string") HashMap<String, String>,
        runtime_handler = 9 (string) String,
    }
    PodSandboxStatusResponse {
        status = 1 (message, optional) Option<PodSandboxStatus>,
        info = 2 (map = "string, string") HashMap<String, String>,
    }
    PodSandboxFilter {
        id = 1 (string) String,
        label_selector = 3 (map = "string, string") HashMap<String, String>,
    }
    ListPodSandboxRequest {
        filter = 1 (message, optional) Option<PodSandboxFilter>,
    }
    PodSandbox {
        id = 1 (string) String,
        metadata = 2 (message, optional) Option<PodSandboxMetadata>,
        state = 3 (enumeration = "PodSandboxState") i32,
        created_at = 4 (int64) i64,
        labels = 5 (map = "string, string") HashMap<String, String>,
        annotations = 6 (map = "string, string") HashMap<String, String>,
        runtime_handler = 7 (string) String,
    }
    ListPodSandboxResponse {
        items = 1 (message, repeated) Vec<PodSandbox>,
    }
    PodSandboxStatsResponse {
        stats = 1 (message, optional) Option<PodSandboxStats>,
    }
    PodSandboxStatsFilter {
        id = 1 (string) String,
        label_selector = 2 (map = "string, string") HashMap<String, String>,
    }
    ListPodSandboxStatsRequest {
        filter = 1 (message, optional) Option<PodSandboxStatsFilter>,
    }
    ListPodSandboxStatsResponse {
        stats = 1 (message, repeated) Vec<PodSandboxStats>,
    }
    PodSandboxAttributes {
        id = 1 (string) String,
        labels = 3 (map = "string, string") HashMap<String, String>,
        annotations = 4 (map = "string, string") HashMap<String, String>,
    }
    PodSandboxStats {
        attributes = 1 (message, optional) Option<PodSandboxAttributes>,
        linux = 2 (message, optional) Option<LinuxPodSandboxStats>,
    }
    LinuxPodSandboxStats {
        cpu = 1 (message, optional) Option<CpuUsage>,
        memory = 2 (message, optional) Option<MemoryUsage>,
        network = 3 (message, optional) Option<NetworkUsage>,
        process = 4 (message, optional) Option<ProcessUsage>,
        containers = 5 (message, repeated) Vec<ContainerStats>,
    }
    NetworkUsage {
        timestamp = 1 (int64) i64,
        default_interface = 2 (message, optional) Option<NetworkInterfaceUsage>,
    }
    NetworkInterfaceUsage {
        name = 1 (string) String,
        rx_bytes = 2 (message, optional) Option<UInt64Value>,
        rx_errors = 3 (message, optional) Option<UInt64Value>,
        tx_bytes = 4 (message, optional) Option<UInt64Value>,
        tx_errors = 5 (message, optional) Option<UInt64Value>,
    }
    ProcessUsage {
        timestamp = 1 (int64) i64,
        process_count = 2 (message, optional) Option<UInt64Value>,
    }
    ImageSpec {
        image = 1 (string) String,
    }
    KeyValue {
        key = 1 (string) String,
        value = 2 (string) String,
    }
    LinuxContainerResources {
        cpu_period = 1 (int64) i64,
        cpu_quota = 2 (int64) i64,
        cpu_shares = 3 (int64) i64,
        memory_limit_in_bytes = 4 (int64) i64,
        oom_score_adj = 5 (int64) i64,
        cpuset_cpus = 6 (string) String,
        cpuset_mems = 7 (string) String,
        hugepage_limits = 8 (message, repeated) Vec<HugepageLimit>,
        memory_swap_limit_in_bytes = 10 (int64) i64,
    }
    HugepageLimit {
        page_size = 1 (string) String,
        limit = 2 (uint64) u64,
    }
    Capability {
        add_capabilities = 1 (string, repeated) Vec<String>,
        drop_capabilities = 2 (string, repeated) Vec<String>,
    }
    LinuxContainerSecurityContext {
        capabilities = 1 (message, optional) Option<Capability>,
        privileged = 2 (bool) bool,
        namespace_options = 3 (message, optional) Option<NamespaceOption>,
        run_as_user = 5 (message, optional) Option<Int64Value>,
        run_as_group = 12 (message, optional) Option<Int64Value>,
        readonly_rootfs = 7 (bool) bool,
        supplemental_groups = 8 (int64, repeated) Vec<i64>,
        no_new_privs = 11 (bool) bool,
        masked_paths = 13 (string, repeated) Vec<String>,
        readonly_paths = 14 (string, repeated) Vec<String>,
        seccomp = 15 (message, optional) Option<SecurityProfile>,
        apparmor = 16 (message, optional) Option<SecurityProfile>,
    }
    LinuxContainerConfig {
        resources = 1 (message, optional) Option<LinuxContainerResources>,
        security_context = 2 (message, optional) Option<LinuxContainerSecurityContext>,
    }
    ContainerMetadata {
        name = 1 (string) String,
        attempt = 2 (uint32) u32,
    }
    Device {
        container_path = 1 (string) String,
        host_path = 2 (string) String,
        permissions = 3 (string) String,
    }
    ContainerConfig {
        metadata = 1 (message, optional) Option<ContainerMetadata>,
        image = 2 (message, optional) Option<ImageSpec>,
        command = 3 (string, repeated) Vec<String>,
        args = 4 (string, repeated) Vec<String>,
        working_dir = 5 (string) String,
        envs = 6 (message, repeated) Vec<KeyValue>,
        mounts = 7 (message, repeated) Vec<Mount>,
        devices = 8 (message, repeated) Vec<Device>,
        labels = 9 (map = "string, string") HashMap<String, String>,
        annotations = 10 (map = "string, string") HashMap<String, String>,
        log_path = 11 (string) String,
        stdin = 12 (bool) bool,
        stdin_once = 13 (bool) bool,
        tty = 14 (bool) bool,
        linux = 15 (message, optional) Option<LinuxContainerConfig>,
    }
    CreateContainerRequest {
        pod_sandbox_id = 1 (string) String,
        config = 2 (message, optional) Option<ContainerConfig>,
        sandbox_config = 3 (message, optional) Option<PodSandboxConfig>,
    }
    ContainerId {
        container_id = 1 (string) String,
    }
    StopContainerRequest {
        container_id = 1 (string) String,
        timeout = 2 (int64) i64,
    }
    Empty {}
    ContainerFilter {
        id = 1 (string) String,
        pod_sandbox_id = 3 (string) String,
        label_selector = 4 (map = "string, string") HashMap<String, String>,
    }
    ListContainersRequest {
        filter = 1 (message, optional) Option<ContainerFilter>,
    }
    Container {
        id = 1 (string) String,
        pod_sandbox_id = 2 (string) String,
        metadata = 3 (message, optional) Option<ContainerMetadata>,
        image = 4 (message, optional) Option<ImageSpec>,
        image_ref = 5 (string) String,
        state = 6 (enumeration = "ContainerState") i32,
        created_at = 7 (int64) i64,
        labels = 8 (map = "string, string") HashMap<String, String>,
        annotations = 9 (map = "string, string") HashMap<String, String>,
        image_id = 10 (string) String,
    }
    ListContainersResponse {
        containers = 1 (message, repeated) Vec<Container>,
    }
    ContainerStatusRequest {
        container_id = 1 (string) String,
        verbose = 2 (bool) bool,
    }
    ContainerStatus {
        id = 1 (string) String,
        metadata = 2 (message, optional) Option<ContainerMetadata>,
        state = 3 (enumeration = "ContainerState") i32,
        created_at = 4 (int64) i64,
        started_at = 5 (int64) i64,
        finished_at = 6 (int64) i64,
        exit_code = 7 (int32) i32,
        image = 8 (message, optional) Option<ImageSpec>,
        image_ref = 9 (string) String,
        reason = 10 (string) String,
        message = 11 (string) String,
        labels = 12 (map = "string, string") HashMap<String, String>,
        annotations = 13 (map = "string, string") HashMap<String, String>,
        log_path = 15 (string) String,
        image_id = 17 (string) String,
    }
    ContainerStatusResponse {
        status = 1 (message, optional) Option<ContainerStatus>,
        info = 2 (map = "string, string") HashMap<String, String>,
    }
    UpdateContainerResourcesRequest {
        container_id = 1 (string) String,
        linux = 2 (message, optional) Option<LinuxContainerResources>,
    }
    ExecSyncRequest {
        container_id = 1 (string) String,
        cmd = 2 (string, repeated) Vec<String>,
        timeout = 3 (int64) i64,
    }
    ExecSyncResponse {
        stdout = 1 (bytes = "vec") Vec<u8>,
        stderr = 2 (bytes = "vec") Vec<u8>,
        exit_code = 3 (int32) i32,
    }
    ExecRequest {
        container_id = 1 (string) String,
        cmd = 2 (string, repeated) Vec<String>,
        tty = 3 (bool) bool,
        stdin = 4 (bool) bool,
        stdout = 5 (bool) bool,
        stderr = 6 (bool) bool,
    }
    Url {
        url = 1 (string) String,
    }
    AttachRequest {
        container_id = 1 (string) String,
        stdin = 2 (bool) bool,
        tty = 3 (bool) bool,
        stdout = 4 (bool) bool,
        stderr = 5 (bool) bool,
    }
    PortForwardRequest {
        pod_sandbox_id = 1 (string) String,
        port = 2 (int32, repeated) Vec<i32>,
    }
    Image {
        id = 1 (string) String,
        repo_tags = 2 (string, repeated) Vec<String>,
        repo_digests = 3 (string, repeated) Vec<String>,
        size = 4 (uint64) u64,
    }
    ImageStatusRequest {
        image = 1 (message, optional) Option<ImageSpec>,
        verbose = 2 (bool) bool,
    }
    ImageStatusResponse {
        image = 1 (message, optional) Option<Image>,
        info = 2 (map = "string, string") HashMap<String, String>,
    }
    RuntimeCondition {
        kind = 1 (string) String,
        status = 2 (bool) bool,
        reason = 3 (string) String,
        message = 4 (string) String,
    }
    RuntimeStatus {
        conditions = 1 (message, repeated) Vec<RuntimeCondition>,
    }
    StatusRequest {
        verbose = 1 (bool) bool,
    }
    StatusResponse {
        status = 1 (message, optional) Option<RuntimeStatus>,
        info = 2 (map = "string, string") HashMap<String, String>,
    }
    UInt64Value {
        value = 1 (uint64) u64,
    }
    FilesystemUsage {
        timestamp = 1 (int64) i64,
        used_bytes = 3 (message, optional) Option<UInt64Value>,
        inodes_used = 4 (message, optional) Option<UInt64Value>,
    }
    ContainerStatsResponse {
        stats = 1 (message, optional) Option<ContainerStats>,
    }
    ListContainerStatsRequest {
        filter = 1 (message, optional) Option<ContainerStatsFilter>,
    }
    ContainerStatsFilter {
        id = 1 (string) String,
        pod_sandbox_id = 2 (string) String,
        label_selector = 3 (map = "string, string") HashMap<String, String>,
    }
    ListContainerStatsResponse {
        stats = 1 (message, repeated) Vec<ContainerStats>,
    }
    ContainerAttributes {
        id = 1 (string) String,
        metadata = 2 (message, optional) Option<ContainerMetadata>,
        labels = 3 (map = "string, string") HashMap<String, String>,
        annotations = 4 (map = "string, string") HashMap<String, String>,
    }
    ContainerStats {
        attributes = 1 (message, optional) Option<ContainerAttributes>,
        cpu = 2 (message, optional) Option<CpuUsage>,
        memory = 3 (message, optional) Option<MemoryUsage>,
        writable_layer = 4 (message, optional) Option<FilesystemUsage>,
    }
    CpuUsage {
        timestamp = 1 (int64) i64,
        usage_core_nano_seconds = 2 (message, optional) Option<UInt64Value>,
        usage_nano_cores = 3 (message, optional) Option<UInt64Value>,
    }
    MemoryUsage {
        timestamp = 1 (int64) i64,
        working_set_bytes = 2 (message, optional) Option<UInt64Value>,
        available_bytes = 3 (message, optional) Option<UInt64Value>,
        usage_bytes = 4 (message, optional) Option<UInt64Value>,
        rss_bytes = 5 (message, optional) Option<UInt64Value>,
        page_faults = 6 (message, optional) Option<UInt64Value>,
        major_page_faults = 7 (message, optional) Option<UInt64Value>,
    }
}
