//! Limits and statistics.

use crate::fixture::{Container, FOREVER, Lab, Pod, SOON, limits};
use orlop_integration::cri::messages::*;
use orlop_integration::{cgroup, wait};

pub const TESTS: &[crate::Test] = crate::tests![
    limits_of_a_container,
    updated,
    huge_pages,
    statistics_of_a_container,
    statistics_in_a_list,
    statistics_of_a_pod,
];

/// The value of a limit in the kernel: by controller and file of v1, or by the file of v2.
fn value(container: &Container<'_>, v1: (&str, &str), v2: &str) -> String {
    if cgroup::unified() {
        cgroup::read_unified(container.pid(), v2)
    } else {
        cgroup::read(container.pid(), v1.0, v1.1)
    }
}

fn memory(container: &Container<'_>) -> String {
    value(container, ("memory", "memory.limit_in_bytes"), "memory.max")
}

/// Microseconds of processor time, and the period in which they may be used.
fn quota(container: &Container<'_>) -> String {
    if cgroup::unified() {
        return cgroup::read_unified(container.pid(), "cpu.max");
    }
    let of = |file: &str| cgroup::read(container.pid(), "cpu", file);
    format!("{} {}", of("cpu.cfs_quota_us"), of("cpu.cfs_period_us"))
}

/// CPU shares, or the weight that the specification of v2 gives for them.
fn shares(container: &Container<'_>, shares: &str, weight: &str) {
    let found = value(container, ("cpu", "cpu.shares"), "cpu.weight");
    // runc 1.3 and crun 1.23 changed the conversion.
    assert!(if cgroup::unified() { found != "100" && !weight.is_empty() } else { found == shares }, "{found}");
}

fn limits_of_a_container(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with(FOREVER, |config| {
        *limits(config) = LinuxContainerResources {
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        };
    });
    assert_eq!(memory(&container), (64 << 20).to_string());
    assert_eq!(quota(&container), "25000 50000");
    shares(&container, "512", "20");
    // The pod's cgroup is above the container's, which has the container's id for its name.
    let file = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    let parent = pod.config.linux.as_ref().expect("a part for Linux").cgroup_parent.clone();
    assert!(file.contains(&format!("{parent}/{}", container.id)), "{file}");
}

fn updated(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with(FOREVER, |config| limits(config).memory_limit_in_bytes = 64 << 20);
    let update = |linux: LinuxContainerResources| {
        let request = UpdateContainerResourcesRequest { container_id: container.id.clone(), linux: Some(linux) };
        lab.cri.update_container_resources(request)
    };
    let bigger = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 30_000,
        cpu_shares: 300,
        memory_limit_in_bytes: 128 << 20,
        ..Default::default()
    };
    update(bigger).expect("UpdateContainerResources");
    assert_eq!(memory(&container), (128 << 20).to_string());
    assert_eq!(quota(&container), "30000 100000");
    shares(&container, "300", "12");
    let smaller = LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    update(smaller).expect("UpdateContainerResources");
    assert_eq!(memory(&container), (32 << 20).to_string());
    assert_eq!(container.status().state(), ContainerState::Running);
    // What the kernel refuses is an error, and changes nothing.
    let impossible = LinuxContainerResources { cpuset_cpus: "4000".to_owned(), ..Default::default() };
    let refused =
        if cgroup::unified() { None } else { Some(update(impossible).expect_err("there is no such processor")) };
    assert!(refused.is_none_or(|error| error.message.contains("cpuset")), "an error without the name of the limit");
    assert_eq!(memory(&container), (32 << 20).to_string());
}

/// containerd passes the limit on where the host has the controller (in its v1 tree, or in v2 alone), else it leaves it out.
fn huge_pages(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with(FOREVER, |config| {
        limits(config).hugepage_limits = vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }];
    });
    match cgroup::huge_pages(container.pid(), "2MB") {
        Some(limit) => assert_eq!(limit, (4 << 20).to_string()),
        None => assert_eq!(container.exec("echo it runs"), "it runs"),
    }
}

fn busy<'a>(pod: &'a Pod<'_>) -> Container<'a> {
    // Some memory of its own, and the processor.
    pod.run_with("x=$(head -c 8000000 /dev/zero | tr '\\0' x); while :; do :; done", |config| {
        limits(config).memory_limit_in_bytes = 128 << 20;
        // Leaves something to the other tests.
        limits(config).cpu_period = 100_000;
        limits(config).cpu_quota = 30_000;
    })
}

fn number(value: &Option<UInt64Value>) -> u64 {
    value.as_ref().map_or(0, |value| value.value)
}

fn statistics_of_a_container(lab: &Lab) {
    let pod = lab.pod();
    let container = busy(&pod);
    let stats = || lab.cri.container_stats(container.this()).expect("ContainerStats").stats.expect("statistics");
    let first = stats();
    let attributes = first.attributes.clone().expect("attributes");
    assert_eq!((attributes.id, attributes.labels), (container.id.clone(), container.status().labels));
    let cpu = |stats: &ContainerStats| number(&stats.cpu.as_ref().expect("cpu").usage_core_nano_seconds);
    wait::until("the processor is used, and memory", SOON, || {
        let now = stats();
        let memory = now.memory.clone().expect("memory");
        let used = number(&memory.working_set_bytes);
        assert!(used < 128 << 20, "{memory:?}");
        assert!(now.cpu.as_ref().expect("cpu").timestamp >= first.cpu.as_ref().expect("cpu").timestamp);
        // 10 ms at least, in nanoseconds.
        (cpu(&now) > cpu(&first) + 10_000_000 && used > 8 << 20).then_some(())
    });
    let kernel: u64 = if cgroup::unified() {
        let text = cgroup::read_unified(container.pid(), "cpu.stat");
        text.split_whitespace().nth(1).and_then(|usage| usage.parse().ok()).map_or(0, |usage: u64| usage * 1000)
    } else {
        cgroup::read(container.pid(), "cpuacct", "cpuacct.usage").parse().expect("a number")
    };
    // Never more than there was; never less than half of what there was before.
    let told = cpu(&stats());
    assert!(told >= kernel / 2, "{told} of {kernel}");
    let after: u64 = cpu(&stats());
    assert!(after >= told, "{after} after {told}");
}

fn statistics_in_a_list(lab: &Lab) {
    let pod = lab.pod();
    let (one, two, gone) = (pod.sleeping(), pod.sleeping(), pod.run("exit 0"));
    gone.ended();
    let filter = ContainerStatsFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    let request = ListContainerStatsRequest { filter: Some(filter) };
    let listed = lab.cri.list_container_stats(request).expect("ListContainerStats").stats;
    let mut ids: Vec<String> = listed.iter().filter_map(|stats| Some(stats.attributes.as_ref()?.id.clone())).collect();
    let mut expected = vec![one.id.clone(), two.id.clone()];
    ids.retain(|id| *id != gone.id);
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);
    for stats in listed.iter().filter(|stats| stats.attributes.as_ref().is_some_and(|a| a.id != gone.id)) {
        let memory = stats.memory.as_ref().expect("memory");
        assert!(number(&memory.working_set_bytes) > 0, "{stats:?}");
    }
}

fn statistics_of_a_pod(lab: &Lab) {
    let pod = lab.pod();
    let container = busy(&pod);
    let linux = wait::until("the pod has used the processor", SOON, || {
        let stats = lab.cri.pod_sandbox_stats(pod.this()).expect("PodSandboxStats").stats.expect("statistics");
        assert_eq!(stats.attributes.as_ref().expect("attributes").id, pod.id);
        let linux = stats.linux.expect("those of Linux");
        let cpu = number(&linux.cpu.as_ref().expect("cpu").usage_core_nano_seconds);
        let memory = number(&linux.memory.as_ref().expect("memory").working_set_bytes);
        (cpu > 10_000_000 && memory > 8 << 20).then_some(linux)
    });
    let ids: Vec<&str> = linux.containers.iter().filter_map(|c| Some(c.attributes.as_ref()?.id.as_str())).collect();
    assert_eq!(ids, [container.id.as_str()]);
    // The pod's own (some versions of containerd count those of the containers alone), the shell, and what may still make its string.
    let processes = number(&linux.process.as_ref().expect("processes").process_count);
    assert!((1..=6).contains(&processes), "{processes}");
    let network = linux.network.as_ref().and_then(|network| network.default_interface.as_ref()).expect("a network");
    assert_eq!(network.name, "eth0");
}
