//! containerd's sandbox API: a pod whose first member is no container.

use super::{CGROUPS, Running, id, signal};
use orlop_integration::containerd::Containerd;
use orlop_integration::wait;
use rustix::process::Signal;
use std::fs;
use std::path::Path;

const SPEC: &str = r#"{"ociVersion": "1.0.2", "hostname": "orlop-pod",
    "process": {"user": {"uid": 65535, "gid": 65534, "additionalGids": [7, 8]}}, "linux": {"sysctl": {"kernel.shmmni": "77"},
    "namespaces": [{"type": "ipc"}, {"type": "uts"}, {"type": "pid"}]}}"#;

/// A sandbox, removed on drop.
struct Sandbox<'a> {
    daemon: &'a Containerd,
    id: String,
}

impl<'a> Sandbox<'a> {
    fn new(daemon: &'a Containerd) -> Self {
        let id = format!("sandbox-{}", id());
        let spec = daemon.file(&format!("{id}.json"));
        fs::write(&spec, SPEC).expect("a file of ours");
        let out = daemon.ctr(&format!("sandboxes run --runtime io.containerd.orlop.v2 {} {id}", spec.display()));
        assert_eq!(out.exits(0).text(), id);
        Self { daemon, id }
    }

    /// The shim and the process that holds the namespaces, its only child: a copy of it that shows nothing of that.
    fn processes(&self) -> (u32, u32) {
        let all = self.daemon.shims().into_iter().filter(|(_, line)| line.contains(&self.id)).map(|(pid, _)| pid);
        let shims: Vec<u32> = all.collect();
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", shims[0])).expect("a process");
        let held: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        let name = |pid: &&u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let held: Vec<u32> = held.iter().filter(|pid| name(pid) == "orlop-sandbox\n").copied().collect();
        assert_eq!((shims.len(), held.len()), (1, 1));
        (shims[0], held[0])
    }

    fn remove(&self) {
        let said = self.daemon.ctr(&format!("sandboxes rm {}", self.id)).exits(0).error();
        assert!(!said.contains("failed"), "{said}");
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        self.daemon.ctr(&format!("sandboxes rm --force {}", self.id));
    }
}

/// Flags that put a container into the sandbox.
fn inside(sandbox: &Sandbox) -> String {
    let (_, holder) = sandbox.processes();
    let namespaces = ["pid", "ipc", "uts"].map(|kind| format!("--with-ns {kind}:/proc/{holder}/ns/{kind}"));
    format!("--sandbox {} {}", sandbox.id, namespaces.join(" "))
}

/// Containers see it as pid 1: one that may trace it gets what it has.
fn of_the_holder_nothing_leads_to_the_host(holder: u32) {
    let proc = |name: &str| format!("/proc/{holder}/{name}");
    let status = fs::read_to_string(proc("status")).expect("a process");
    let value = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{field} in {status}")).trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!((value("NoNewPrivs"), value("Seccomp")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(value("Uid"), ["65535"; 4].join("\t"));
    assert_eq!(value("Gid"), ["65534"; 4].join("\t"));
    assert_eq!(value("Groups"), "7 8");
    for (file, shown) in [("cmdline", "orlop-sandbox"), ("environ", "")] {
        let text = fs::read(proc(file)).expect("a process");
        assert_eq!(String::from_utf8_lossy(&text).trim_end_matches('\0'), shown, "{file}");
    }
    for directory in ["root", "cwd", "fd"] {
        assert_eq!(fs::read_dir(proc(directory)).expect("a directory").count(), 0, "{directory}");
    }
    assert!(fs::write(proc("root/x"), "").is_err());
    let mounts = fs::read_to_string(proc("mountinfo")).expect("a process");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
}

/// What a sandbox would change on the host is refused by its name. Each value is the host's own: a shim that wrote it would do no harm.
fn nothing_of_the_host_is_set(daemon: &Containerd) {
    let host =
        |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).expect("a setting").trim().to_owned();
    let sysctl = |key: &str, name: &str| format!(r#""linux": {{"sysctl": {{"{key}": "{}"}}}}"#, host(name));
    let cases = [
        (sysctl("kernel.panic", "panic"), "kernel.panic"),
        (sysctl("kernel/../kernel/panic", "panic"), "is not the name of a setting"),
        (sysctl("kernel.shmmni", "shmmni"), "host ipc namespace"),
        (format!(r#""hostname": "{}""#, host("hostname")), "no uts namespace"),
    ];
    for (fields, words) in cases {
        let id = format!("sandbox-{}", id());
        let spec = daemon.file(&format!("{id}.json"));
        fs::write(&spec, format!(r#"{{"ociVersion": "1.0.2", {fields}}}"#)).expect("a file of ours");
        let out = daemon.ctr(&format!("sandboxes run --runtime io.containerd.orlop.v2 {} {id}", spec.display()));
        daemon.ctr(&format!("sandboxes rm --force {id}"));
        let said = out.exits(1).error();
        assert!(said.contains(words), "{fields}: {said}");
    }
}

pub(super) fn containers_of_a_sandbox(daemon: &Containerd) {
    let sandbox = Sandbox::new(daemon);
    let flags = inside(&sandbox);
    let script = r#"hostname; cat /proc/sys/kernel/shmmni; tr -d "\000" < /proc/1/cmdline"#;
    let said = id();
    let line = format!("run --rm --cgroup {CGROUPS}/{said} {flags} ROOTFS {said} /bin/sh -c '{script}'");
    assert_eq!(daemon.ctr(&line).exits(0).text(), "orlop-pod\n77\norlop-sandbox");
    let first = Running::new(daemon, &flags, "/bin/sleep 1000");
    let second = Running::new(daemon, &flags, "/bin/sh -c '(sleep 0.1; :) & exec sleep 1000'");
    let (shim, holder) = sandbox.processes();
    assert_eq!((first.shim(), second.shim()), (shim, shim));
    second.task("exec --exec-id e ID /bin/sh -c 'ps | grep -c \"[s]leep 1000\"'").exits(0);
    // What is orphaned in the pod is reaped by its first process.
    wait::until("there is no zombie in the pod", wait::SOON, || {
        let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children")).expect("a process");
        children.trim().is_empty().then_some(())
    });
    drop((first, second));
    // Without containers the pod is still there, for the next one.
    assert!(Path::new(&format!("/proc/{holder}")).exists());
    drop(Running::new(daemon, &flags, "/bin/sleep 1000"));
    sandbox.remove();
    wait::until("the pod has gone", wait::SOON, || {
        [shim, holder].iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}

/// A pod ends with its shim, and the shim survives the end of its process until it is removed.
pub(super) fn a_sandbox_and_its_end(daemon: &Containerd) {
    nothing_of_the_host_is_set(daemon);
    let sandbox = Sandbox::new(daemon);
    let (shim, holder) = sandbox.processes();
    of_the_holder_nothing_leads_to_the_host(holder);
    signal(holder, Signal::KILL);
    wait::until("its process has gone", wait::SOON, || (!Path::new(&format!("/proc/{holder}")).exists()).then_some(()));
    assert!(Path::new(&format!("/proc/{shim}")).exists());
    sandbox.remove();
    let sandbox = Sandbox::new(daemon);
    let (shim, holder) = sandbox.processes();
    signal(shim, Signal::KILL);
    wait::until("its process ends with the shim", wait::SOON, || {
        (!Path::new(&format!("/proc/{holder}")).exists()).then_some(())
    });
}
