//! Containers: their life, how they end, and what is run in them.

use crate::fixture::{FOREVER, Lab, SOON, limits};
use orlop_integration::cri::messages::*;
use orlop_integration::cri::{Status, code};
use orlop_integration::wait;
use std::path::Path;
use std::time::{Duration, Instant};

pub const TESTS: &[crate::Test] = crate::tests![
    life,
    completed,
    failed,
    stopped_in_time,
    killed_when_it_does_not_stop,
    out_of_memory,
    a_program_that_is_missing,
    a_working_directory_that_is_missing,
    removed_while_it_runs,
    removed_before_it_is_started,
    restarted_under_a_new_attempt,
    listed,
    environment_and_directory,
    exec_sync,
    exec_sync_of_a_program_that_is_missing,
    exec_sync_in_time,
    exec_sync_in_bulk,
    many_execs_at_once,
];

fn life(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.create_with(FOREVER, |_| {});
    let status = container.status();
    assert_eq!((status.state(), status.started_at, status.finished_at), (ContainerState::Created, 0, 0));
    container.start().expect("StartContainer");
    let status = container.status();
    assert_eq!(status.state(), ContainerState::Running);
    assert!(status.created_at <= status.started_at && status.finished_at == 0, "{status:?}");
    container.stop(10).expect("StopContainer");
    let status = container.status();
    assert_eq!(status.state(), ContainerState::Exited);
    assert!(status.started_at <= status.finished_at, "{status:?}");
    container.stop(10).expect("once more");
    container.remove().expect("RemoveContainer");
    let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
    assert_eq!(lab.cri.container_status(request).expect_err("it was removed").code, code::NOT_FOUND);
    container.remove().expect("what is not there is removed already");
    assert_eq!(pod.status().state(), PodSandboxState::Ready);
}

fn how(status: &ContainerStatus) -> (i32, &str) {
    (status.exit_code, &status.reason)
}

fn completed(lab: &Lab) {
    let pod = lab.pod();
    assert_eq!(how(&pod.run("exit 0").ended()), (0, "Completed"));
}

fn failed(lab: &Lab) {
    let pod = lab.pod();
    assert_eq!(how(&pod.run("exit 7").ended()), (7, "Error"));
    // By a signal; pid 1 of a pid namespace can only be killed from outside.
    let sleeping = pod.sleeping();
    orlop_integration::private::signal(sleeping.pid(), rustix::process::Signal::ABORT);
    orlop_integration::private::signal(sleeping.pid(), rustix::process::Signal::KILL);
    assert_eq!(how(&sleeping.ended()).1, "Error");
}

fn stopped_in_time(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run("trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done");
    wait::until("it is ready", SOON, || container.output().contains("ready").then_some(()));
    let began = Instant::now();
    container.stop(60).expect("StopContainer");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    assert_eq!(how(&container.status()), (3, "Error"));
    wait::until("it was told", SOON, || container.output().contains("told").then_some(()));
}

fn killed_when_it_does_not_stop(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run("trap '' TERM; echo ready; while :; do sleep 1000; done");
    wait::until("it is ready", SOON, || container.output().contains("ready").then_some(()));
    let began = Instant::now();
    container.stop(1).expect("StopContainer");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(how(&container.status()), (137, "Error"));
}

fn out_of_memory(lab: &Lab) {
    let pod = lab.pod();
    let beside = pod.sleeping();
    let container = pod.run_with("exec tail /dev/zero", |config| {
        limits(config).memory_limit_in_bytes = 20 << 20;
    });
    assert_eq!(how(&container.ended()), (137, "OOMKilled"));
    assert_eq!(beside.status().state(), ContainerState::Running);
    assert_eq!(beside.exec("echo here"), "here");
}

fn a_program_that_is_missing(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.create_with("", |config| config.command = vec!["/bin/nothere".to_owned()]);
    let error = container.start().expect_err("there is no such program");
    assert!(error.message.contains("no such file or directory"), "{error}");
    let status = container.ended();
    assert_eq!(how(&status), (128, "StartError"));
    assert!(status.message.contains("/bin/nothere"), "{}", status.message);
    container.remove().expect("RemoveContainer");
    assert_eq!(pod.sleeping().exec("echo fine"), "fine");
}

fn a_working_directory_that_is_missing(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with("pwd", |config| config.working_dir = "/made/for/it".to_owned());
    assert_eq!(container.ended().exit_code, 0);
    wait::until("it is made", SOON, || (container.output() == "/made/for/it").then_some(()));
}

fn removed_while_it_runs(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let pid = container.pid();
    container.remove().expect("RemoveContainer");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it runs");
}

fn removed_before_it_is_started(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.create_with(FOREVER, |_| {});
    container.remove().expect("RemoveContainer");
}

/// As the kubelet restarts a container: a new one with the same name.
fn restarted_under_a_new_attempt(lab: &Lab) {
    let pod = lab.pod();
    for attempt in 0..3 {
        let metadata = Some(ContainerMetadata { name: "main".to_owned(), attempt });
        let container = pod.run_with("exit 1", |config| config.metadata = metadata.clone());
        let status = container.ended();
        assert_eq!((status.exit_code, status.metadata), (1, metadata));
    }
    let filter = ContainerFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    let listed = lab.cri.list_containers(ListContainersRequest { filter: Some(filter) }).expect("ListContainers");
    assert_eq!(listed.containers.len(), 3);
}

fn listed(lab: &Lab) {
    let pod = lab.pod();
    let containers = [pod.sleeping(), pod.run("exit 0"), pod.create_with("true", |_| {})];
    containers[1].ended();
    let filter = ContainerFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    let listed = lab.cri.list_containers(ListContainersRequest { filter: Some(filter) }).expect("ListContainers");
    let state = |id: &str| listed.containers.iter().find(|c| c.id == id).map(Container::state);
    let states = containers.each_ref().map(|container| state(&container.id));
    assert_eq!(states, [ContainerState::Running, ContainerState::Exited, ContainerState::Created].map(Some));
    let labels = containers[0].status().labels;
    let filter = ContainerFilter { label_selector: labels.clone(), ..Default::default() };
    let listed = lab.cri.list_containers(ListContainersRequest { filter: Some(filter) }).expect("ListContainers");
    assert_eq!(listed.containers.len(), 1);
    assert_eq!(listed.containers[0].labels, labels);
}

fn environment_and_directory(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with(FOREVER, |config| {
        config.envs = vec![KeyValue { key: "GREETING".to_owned(), value: "a = b c".to_owned() }];
        config.working_dir = "/srv".to_owned();
    });
    assert_eq!(container.exec("echo $GREETING; echo $FROM_IMAGE; pwd"), "a = b c\nyes\n/srv");
}

fn exec_sync(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let out = container.try_exec("echo out; echo err >&2; exit 5", 30).expect("ExecSync");
    assert_eq!((&out.stdout[..], &out.stderr[..], out.exit_code), (&b"out\n"[..], &b"err\n"[..], 5));
    let out = container.try_exec("kill -9 $$", 30).expect("ExecSync");
    assert_eq!(out.exit_code, 137);
    assert_eq!(container.exec("readlink /proc/self/ns/pid"), container.exec("readlink /proc/1/ns/pid"));
}

fn exec_sync_of_a_program_that_is_missing(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let cmd = vec!["/bin/nothere".to_owned()];
    let request = ExecSyncRequest { container_id: container.id.clone(), cmd, timeout: 10 };
    let error = lab.cri.exec_sync(request).expect_err("there is no such program");
    assert!(error.message.contains("no such file or directory"), "{error}");
    assert_eq!(container.exec("echo still"), "still");
}

/// What is not done in time is killed, with all that it has started.
fn exec_sync_in_time(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let began = Instant::now();
    let late: Status = container.try_exec("exec sleep 98765", 1).expect_err("it is not done in time");
    assert_eq!(late.code, code::DEADLINE_EXCEEDED, "{late}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    wait::until("it is killed", SOON, || (!container.exec("ps -o args").contains("98765")).then_some(()));
}

fn exec_sync_in_bulk(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let out = container.try_exec("dd if=/dev/zero bs=4096 count=500; dd if=/dev/zero bs=4096 count=200 >&2", 60);
    let out = out.expect("ExecSync");
    assert_eq!(out.stdout.len(), 4096 * 500);
    assert!(out.stderr.len() >= 4096 * 200, "{}", out.stderr.len());
}

/// As probes come: no exit is lost, and none is taken for another's.
fn many_execs_at_once(lab: &Lab) {
    let pod = lab.pod();
    let containers = [pod.sleeping(), pod.sleeping()];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let container = &containers[thread % 2];
            scope.spawn(move || {
                for n in 0..25 {
                    let status = i32::try_from((thread * 25 + n) % 100).expect("small");
                    let out = container.try_exec(&format!("echo {status}; exit {status}"), 30).expect("ExecSync");
                    assert_eq!((out.exit_code, out.stdout), (status, format!("{status}\n").into_bytes()));
                }
            });
        }
    });
}
