//! Namespaces made, shared with the host, and shared with another container.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use std::fs;

crate::tests![
    every_namespace_is_its_own,
    host_namespaces,
    container_namespaces,
    cgroup_namespace,
    host_name_and_domain,
    shared_ipc_and_pid_work,
];

fn of_process(pid: u32, kind: &str) -> String {
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::read_link(&path).unwrap_or_else(|e| panic!("{path}: {e}")).display().to_string()
}

fn every_namespace_is_its_own(f: &Fixture) {
    let c = f.ok(&format!("run -d --cgroupns private {BUSYBOX} sleep 300"));
    let (pid, engine) = (f.pid(&c), f.daemon().anchor());
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        assert_ne!(of_process(pid, kind), of_process(engine, kind), "{kind}");
    }
    assert_eq!(of_process(pid, "user"), of_process(engine, "user"));
}

fn host_namespaces(f: &Fixture) {
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--network", "net")] {
        let inside = f.ok(&format!("run --rm {flag} host {BUSYBOX} readlink /proc/self/ns/{kind}"));
        assert_eq!(inside, of_process(f.daemon().anchor(), kind), "{flag} host");
    }
}

fn container_namespaces(f: &Fixture) {
    let c = f.name("first");
    f.ok(&format!("run -d --ipc shareable --name {c} {BUSYBOX} sleep 300"));
    let first = f.pid(&c);
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let inside = f.ok(&format!("run --rm {flag} container:{c} {BUSYBOX} readlink /proc/self/ns/{kind}"));
        assert_eq!(inside, of_process(first, kind), "{flag} container:X");
    }
}

fn cgroup_namespace(f: &Fixture) {
    let own = f.ok(&format!("run --rm --cgroupns private {BUSYBOX} sh -c 'cut -d: -f3 /proc/self/cgroup | sort -u'"));
    assert_eq!(own, "/");
    let c = f.ok(&format!("run -d --cgroupns host {BUSYBOX} sleep 300"));
    let seen = f.ok(&format!("exec {c} cat /proc/1/cgroup"));
    let (parent, scope) = (f.daemon().cgroup_parent(), format!("docker-{c}.scope"));
    assert!([&c, &scope].into_iter().any(|name| seen.contains(&format!("{parent}/{name}"))), "{seen}");
    assert_eq!(of_process(f.pid(&c), "cgroup"), of_process(f.daemon().anchor(), "cgroup"));
}

fn host_name_and_domain(f: &Fixture) {
    let out = f.ok(&format!(
        "run --rm --hostname deck --domainname ship.test {BUSYBOX} sh -c 'hostname; cat /proc/sys/kernel/domainname'"
    ));
    assert_eq!(out, "deck\nship.test");
    let c = f.ok(&format!("run -d {BUSYBOX} sleep 300"));
    assert_eq!(f.ok(&format!("exec {c} hostname")), c[..12]);
}

fn shared_ipc_and_pid_work(f: &Fixture) {
    let c = f.name("first");
    f.ok(&format!("run -d --ipc shareable --name {c} {BUSYBOX} sh -c 'echo shared > /dev/shm/note; exec sleep 299'"));
    let line = format!(
        "run --rm --ipc container:{c} --pid container:{c} {BUSYBOX} sh -c 'until grep shared /dev/shm/note; do sleep 0.1; done 2>/dev/null; ps -o args'"
    );
    let out = f.ok(&line);
    assert!(out.starts_with("shared\n") && out.contains("sleep 299"), "{out}");
    // The first container's end takes all in its pid namespace with it.
    let second = f.ok(&format!("run -d --pid container:{c} {BUSYBOX} sleep 300"));
    f.ok(&format!("kill {c}"));
    assert_eq!(f.ok(&format!("wait {second}")), "137");
}
