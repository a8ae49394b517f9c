//! containerd goes and comes back; the shim is killed.
//!
//! While containerd is away, so are the tests beside this one: each of these has a daemon of its own.

use crate::fixture::{Lab, Pod, SOON, namespace};
use orlop_integration::cri::config;
use orlop_integration::cri::messages::*;
use orlop_integration::private::signal;
use orlop_integration::wait;
use rustix::process::Signal;
use std::fs;
use std::path::Path;

pub const TESTS: &[crate::Test] = crate::tests![
    containerd_restarts,
    the_default_runtime_is_changed_and_back,
    containerd_is_killed,
    containerd_is_killed_while_a_container_ends,
    the_shim_is_killed,
    a_containers_init_is_killed,
    the_pods_process_is_killed,
];

/// With a daemon of its own, of which nothing is left at the end.
fn alone(body: impl FnOnce(&Lab)) {
    let lab = Lab::start();
    body(&lab);
    assert_eq!(lab.left(|_| true), Vec::<String>::new());
}

fn restarted(how: Signal) {
    alone(|lab| {
        let pod = lab.pod();
        let container = pod.sleeping();
        let (pid, ip, net) = (container.pid(), pod.ip(), namespace(pod.pid(), "net"));
        lab.daemon.suspend(how);
        lab.daemon.resume();
        lab.is_ready();
        assert_eq!(pod.status().state(), PodSandboxState::Ready);
        assert_eq!(container.status().state(), ContainerState::Running);
        assert_eq!((container.pid(), pod.ip(), namespace(pod.pid(), "net")), (pid, ip, net));
        assert_eq!(container.exec("echo still here"), "still here");
        let other = pod.sleeping();
        assert_eq!(other.exec("echo as well"), "as well");
        assert_eq!(pod.shims().len(), 1);
        container.stop(60).expect("StopContainer");
        assert_eq!(container.status().exit_code, 0);
    });
}

fn containerd_restarts(_: &Lab) {
    restarted(Signal::TERM);
}

/// As docs/kubernetes.md says; what was made before goes on, and can be stopped, each time.
fn the_default_runtime_is_changed_and_back(_: &Lab) {
    let mut lab = Lab::start();
    // Of pods that name no class.
    lab.handler = String::new();
    let file = lab.daemon.file("config.toml");
    let without = fs::read_to_string(&file).expect("the configuration");
    let with = format!("{without}{}", config::default_runtime(lab.daemon.version()));
    let change = |config: &str| {
        fs::write(&file, config).expect("a file of ours");
        lab.daemon.suspend(Signal::TERM);
        lab.daemon.resume();
        lab.is_ready();
    };
    let pod_of = |shim: &str| {
        let pod = lab.pod();
        let lines: Vec<String> =
            lab.daemon.shims().into_iter().map(|(_, line)| line).filter(|line| line.contains(&pod.id)).collect();
        assert!(matches!(lines.as_slice(), [line] if line.contains(shim)), "{lines:?}");
        pod
    };
    let goes_on_and_ends = |pod: Pod<'_>, container: &str| {
        let status = || {
            let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
            lab.cri.container_status(request).expect("ContainerStatus").status.expect("a status")
        };
        assert_eq!(status().state(), ContainerState::Running);
        let request = StopContainerRequest { container_id: container.to_owned(), timeout: 60 };
        lab.cri.stop_container(request).expect("StopContainer");
        assert_eq!((status().state(), status().exit_code), (ContainerState::Exited, 0));
        pod.remove().expect("RemovePodSandbox");
    };

    let before = pod_of("containerd-shim-runc-v2");
    let old = before.sleeping().id;
    change(&with);
    let after = pod_of("containerd-shim-orlop-v2");
    let new = after.sleeping().id;
    goes_on_and_ends(before, &old);
    change(&without);
    drop(pod_of("containerd-shim-runc-v2"));
    goes_on_and_ends(after, &new);
    assert_eq!(lab.left(|_| true), Vec::<String>::new());
}

fn containerd_is_killed(_: &Lab) {
    restarted(Signal::KILL);
}

fn containerd_is_killed_while_a_container_ends(_: &Lab) {
    alone(|lab| {
        let pod = lab.pod();
        let (ends, stays) = (pod.run("while ! test -e /tmp/end; do sleep 0.1; done; exit 9"), pod.sleeping());
        let pid = ends.pid();
        lab.daemon.suspend(Signal::KILL);
        std::fs::write(format!("/proc/{pid}/root/tmp/end"), "").expect("a file in the container");
        wait::until("it has ended", SOON, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        lab.daemon.resume();
        lab.is_ready();
        let status = ends.ended();
        assert_eq!((status.exit_code, status.reason.as_str()), (9, "Error"));
        assert_eq!(stays.exec("echo still here"), "still here");
    });
}

/// All of the pod goes with its shim, and the kubelet can make it anew.
fn the_shim_is_killed(lab: &Lab) {
    let pod = lab.pod();
    let containers = [pod.sleeping(), pod.sleeping()];
    let pids = [pod.pid(), containers[0].pid(), containers[1].pid()];
    for shim in pod.shims() {
        signal(shim, Signal::KILL);
    }
    wait::until("the pod is not ready", SOON, || (pod.status().state() == PodSandboxState::NotReady).then_some(()));
    for container in &containers {
        assert_ne!(container.ended().exit_code, 0);
    }
    wait::until("no process is left", SOON, || {
        pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    pod.remove().expect("RemovePodSandbox");
    let ids: Vec<&str> = containers.iter().map(|c| c.id.as_str()).chain([pod.id.as_str()]).collect();
    assert_eq!(lab.left(|left| ids.iter().any(|id| left.contains(id))), Vec::<String>::new());
    assert_eq!(lab.pod().sleeping().exec("echo anew"), "anew");
}

fn a_containers_init_is_killed(lab: &Lab) {
    let pod = lab.pod();
    let (one, two) = (pod.sleeping(), pod.sleeping());
    signal(one.pid(), Signal::KILL);
    let status = one.ended();
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    assert_eq!(two.exec("echo here"), "here");
    assert_eq!(pod.status().state(), PodSandboxState::Ready);
}

fn the_pods_process_is_killed(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    signal(pod.pid(), Signal::KILL);
    wait::until("the pod is not ready", SOON, || (pod.status().state() == PodSandboxState::NotReady).then_some(()));
    // Its containers are for the kubelet to stop.
    assert_eq!(container.exec("echo here"), "here");
}
