//! Pods: their life, their network, what their containers share.

use crate::fixture::{Lab, Pod, SOON, linux, namespace, namespaces};
use orlop_integration::cri::code;
use orlop_integration::cri::config::SUBNET;
use orlop_integration::cri::messages::*;
use orlop_integration::wait;
use std::fs;

pub const TESTS: &[crate::Test] = crate::tests![
    version_and_status,
    life,
    an_unknown_handler,
    one_shim,
    twenty_at_a_time,
    namespaces_are_shared,
    a_pid_namespace_for_the_pod,
    a_pid_namespace_for_each_container,
    the_pid_namespace_of_the_node,
    the_pid_namespace_of_another_container,
    the_network_of_the_node,
    addresses_reach_each_other,
    hostname_and_dns,
    sysctls,
    sandbox_security,
];

fn version_and_status(lab: &Lab) {
    let version = lab.cri.version(VersionRequest::default()).expect("Version");
    assert_eq!(version.runtime_name, "containerd");
    let status = lab.cri.status(StatusRequest { verbose: true }).expect("Status");
    let conditions = status.status.expect("a status").conditions;
    for name in ["RuntimeReady", "NetworkReady"] {
        assert!(conditions.iter().any(|c| c.kind == name && c.status), "{conditions:?}");
    }
    let handler = format!("{:?}:", lab.handler);
    assert!(status.info["config"].contains(&handler), "{}", status.info["config"]);
}

fn life(lab: &Lab) {
    let pod = lab.pod();
    let status = pod.status();
    assert_eq!(status.state(), PodSandboxState::Ready);
    assert_eq!(status.runtime_handler, lab.handler);
    assert_eq!(status.metadata, pod.config.metadata);
    assert_eq!(status.labels, pod.config.labels);
    assert_eq!(status.annotations, pod.config.annotations);
    assert!(pod.ip().starts_with(SUBNET), "{:?}", status.network);
    assert!(status.created_at > 0);
    let selector = PodSandboxFilter { label_selector: pod.config.labels.clone(), ..Default::default() };
    let listed = lab.cri.list_pod_sandbox(ListPodSandboxRequest { filter: Some(selector) }).expect("ListPodSandbox");
    let ids: Vec<_> = listed.items.iter().map(|item| (item.id.clone(), item.state())).collect();
    assert_eq!(ids, [(pod.id.clone(), PodSandboxState::Ready)]);

    let container = pod.sleeping();
    assert_eq!(container.exec("echo in it"), "in it");
    pod.stop().expect("StopPodSandbox");
    assert_eq!(pod.status().state(), PodSandboxState::NotReady);
    assert_eq!(container.status().state(), ContainerState::Exited);
    pod.stop().expect("once more");
    gone_without_a_trace(&pod);
}

/// Removes the pod, and looks for what has its id in its name.
fn gone_without_a_trace(pod: &Pod<'_>) {
    pod.remove().expect("RemovePodSandbox");
    assert_eq!(pod.try_status().expect_err("it was removed").code, code::NOT_FOUND);
    // What is not there is removed already.
    pod.lab.cri.remove_pod_sandbox(pod.this()).expect("once more");
    assert_eq!(pod.lab.left(|left| left.contains(&pod.id)), Vec::<String>::new());
}

fn an_unknown_handler(lab: &Lab) {
    let config = lab.pod().config.clone();
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: "nothere".to_owned() };
    let error = lab.cri.run_pod_sandbox(request).expect_err("no such handler");
    assert!(error.message.contains("nothere"), "{error}");
}

/// The pod's process and all of its containers are children of one shim.
fn one_shim(lab: &Lab) {
    let pod = lab.pod();
    let containers = [pod.sleeping(), pod.sleeping(), pod.sleeping()];
    let shims = pod.shims();
    assert_eq!(shims.len(), 1, "{shims:?}");
    let parents = containers.iter().map(|container| container.pid()).chain([pod.pid()]).map(parent);
    assert_eq!(parents.collect::<Vec<_>>(), vec![shims[0]; 4]);
    let name = if lab.handler == "runc" { "containerd-shim-runc-v2" } else { "containerd-shim-orlop-v2" };
    let line = fs::read_to_string(format!("/proc/{}/cmdline", shims[0])).expect("the shim");
    assert!(line.contains(name), "{line}");
    // One of them goes, the others stay.
    containers[0].stop(5).expect("StopContainer");
    containers[0].remove().expect("RemoveContainer");
    assert_eq!(containers[1].exec("echo here"), "here");
    assert_eq!(pod.shims(), shims);
}

fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    stat.rsplit_once(')').expect("stat").1.split_whitespace().nth(1).expect("ppid").parse().expect("a pid")
}

fn twenty_at_a_time(lab: &Lab) {
    let results = std::thread::scope(|scope| {
        let one = |n: u32| {
            let pod = lab.pod();
            let container = pod.sleeping();
            assert_eq!(container.exec(&format!("echo {n}")), n.to_string());
            let ip = pod.ip();
            gone_without_a_trace(&pod);
            ip
        };
        let threads: Vec<_> = (0..20).map(|n| scope.spawn(move || one(n))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(failed, 0, "of 20 pods");
}

fn namespaces_are_shared(lab: &Lab) {
    let pod = lab.pod();
    let (one, two) = (pod.sleeping(), pod.sleeping());
    for kind in ["net", "ipc", "uts"] {
        let of_pod = namespace(pod.pid(), kind);
        assert_eq!(namespace(one.pid(), kind), of_pod);
        assert_eq!(namespace(two.pid(), kind), of_pod);
        assert_ne!(namespace(lab.daemon.anchor(), kind), of_pod);
    }
    let mounts = [pod.pid(), one.pid(), two.pid(), lab.daemon.anchor()].map(|pid| namespace(pid, "mnt"));
    let mut distinct = mounts.to_vec();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{mounts:?}");
    // /dev/shm is the pod's as well.
    one.exec("echo shared >/dev/shm/file");
    assert_eq!(two.exec("cat /dev/shm/file"), "shared");
}

fn pod_with_pids(lab: &Lab, mode: NamespaceMode) -> Pod<'_> {
    lab.pod_with(|config| namespaces(config).pid = mode.into())
}

fn a_pid_namespace_for_the_pod(lab: &Lab) {
    let pod = pod_with_pids(lab, NamespaceMode::Pod);
    let (one, two) = (pod.sleeping(), pod.run("exec sleep 4321"));
    assert_eq!(namespace(one.pid(), "pid"), namespace(pod.pid(), "pid"));
    assert_eq!(namespace(two.pid(), "pid"), namespace(pod.pid(), "pid"));
    let list = one.exec("ps -o pid,args");
    assert!(list.contains("sleep 4321"), "{list}");
    let first = if lab.handler == "orlop-sandbox" { "1 orlop-sandbox" } else { "1 /pause" };
    assert!(list.lines().any(|line| line.trim() == first), "{list}");
    // The end of one is not the end of the pod.
    two.stop(0).expect("StopContainer");
    assert_eq!(one.exec("echo here"), "here");
    // Nobody waits for this one but the pod's own process.
    one.exec("(sleep 0.1 &)");
    wait::until("no process is left unwaited for", SOON, || (!one.exec("ps -o stat").contains('Z')).then_some(()));
}

fn a_pid_namespace_for_each_container(lab: &Lab) {
    let pod = pod_with_pids(lab, NamespaceMode::Container);
    let (one, two) = (pod.sleeping(), pod.sleeping());
    let all = [one.pid(), two.pid(), pod.pid(), lab.daemon.anchor()].map(|pid| namespace(pid, "pid"));
    for (n, of_one) in all.iter().enumerate() {
        assert!(!all[n + 1..].contains(of_one), "{all:?}");
    }
    assert_eq!(one.exec("readlink /proc/1/exe"), "/bin/busybox");
}

fn the_pid_namespace_of_the_node(lab: &Lab) {
    let pod = pod_with_pids(lab, NamespaceMode::Node);
    let container = pod.sleeping();
    assert_eq!(namespace(container.pid(), "pid"), namespace(lab.daemon.anchor(), "pid"));
    let pid = container.pid().to_string();
    assert!(container.exec("ps -o pid").lines().any(|line| line.trim() == pid));
    // In such a pod a child of the container is not ended by the kernel with it.
    let init = pod.run("sleep 54321 & wait");
    wait::until("the child runs", SOON, || container.exec("ps -o args").contains("sleep 54321").then_some(()));
    init.stop(0).expect("StopContainer");
    wait::until("the child is ended too", SOON, || {
        (!container.exec("ps -o args").contains("sleep 54321")).then_some(())
    });
}

/// As `kubectl debug --target` has it.
fn the_pid_namespace_of_another_container(lab: &Lab) {
    let pod = lab.pod();
    let target = pod.run("exec sleep 7654");
    let debugger = pod.run_with(crate::fixture::FOREVER, |config| {
        let options = crate::fixture::context(config).namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Target.into();
        options.target_id = target.id.clone();
    });
    assert_eq!(namespace(debugger.pid(), "pid"), namespace(target.pid(), "pid"));
    wait::until("it sees the other's process", SOON, || {
        debugger.exec("ps -o pid,args").lines().any(|line| line.trim() == "1 sleep 7654").then_some(())
    });
}

fn the_network_of_the_node(lab: &Lab) {
    let pod = lab.pod_with(|config| {
        namespaces(config).network = NamespaceMode::Node.into();
        // The kubelet gives no name to a pod that has the node's.
        config.hostname = String::new();
    });
    let container = pod.sleeping();
    assert_eq!(namespace(container.pid(), "net"), namespace(lab.daemon.anchor(), "net"));
    assert_eq!(pod.ip(), "");
    assert_eq!(pod.status().state(), PodSandboxState::Ready);
}

fn addresses_reach_each_other(lab: &Lab) {
    let server = lab.pod();
    let _listening = server.run("while :; do echo hello from a pod | nc -l -p 8080; done");
    let client = lab.pod();
    let container = client.sleeping();
    assert_ne!(server.ip(), client.ip());
    let line = format!("nc -w 2 {} 8080 </dev/null", server.ip());
    wait::until("the pod answers", SOON, || (container.says(&line) == "hello from a pod").then_some(()));
    assert!(container.exec("ip addr show dev eth0").contains(&format!("{}/16", client.ip())));
    assert!(container.exec("ip addr show dev lo").contains("127.0.0.1/8"));
}

fn hostname_and_dns(lab: &Lab) {
    let pod = lab.pod_with(|config| {
        config.hostname = "a-name".to_owned();
        config.dns_config = Some(DnsConfig {
            servers: vec!["192.0.2.53".to_owned()],
            searches: vec!["tests.example".to_owned()],
            options: vec!["ndots:5".to_owned()],
        });
    });
    let container = pod.sleeping();
    assert_eq!(container.exec("hostname; cat /etc/hostname"), "a-name\na-name");
    let resolver = container.exec("cat /etc/resolv.conf");
    assert_eq!(resolver, "search tests.example\nnameserver 192.0.2.53\noptions ndots:5");
}

fn sysctls(lab: &Lab) {
    let wanted = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "20000\t20100")];
    let pod = lab.pod_with(|config| {
        linux(config).sysctls = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    });
    let container = pod.sleeping();
    for (key, value) in wanted {
        assert_eq!(container.exec(&format!("cat /proc/sys/{}", key.replace('.', "/"))), value, "{key}");
    }
    let refused =
        lab.try_pod_with(|config| linux(config).sysctls = [("net.no.such".to_owned(), "1".to_owned())].into());
    let error = refused.err().expect("there is no such parameter");
    assert!(error.message.contains("net.no.such") || error.message.contains("net/no/such"), "{error}");
}

/// The pod's own process has what its security context says.
fn sandbox_security(lab: &Lab) {
    let pod = lab.pod_with(|config| {
        let context = linux(config).security_context.get_or_insert_default();
        context.run_as_user = Some(Int64Value { value: 65535 });
        context.run_as_group = Some(Int64Value { value: 65534 });
        context.seccomp =
            Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() });
    });
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid())).expect("the pod's process");
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(line("Uid:"), ["65535"; 4]);
    assert_eq!(line("Gid:"), ["65534"; 4]);
    assert_eq!(line("Seccomp:"), ["2"]);
    assert_eq!(line("NoNewPrivs:"), ["1"]);
}
