//! orlop's own promise: a bad value is refused at create with one line that names its field, and nothing is left.
//! Other runtimes never made it, so these are not run against them.

use serde_json::{Value, json};

use crate::check::Check;
use crate::runtime::Lab;

/// What to set, to what, and the field that the message must name.
type Bad = (&'static str, fn() -> Value, &'static str);

const BAD: &[Bad] = &[
    ("/ociVersion", || json!(7), "ociVersion"),
    ("/process/args", || json!([]), "process.args"),
    ("/process/args/0", || json!(3), "process.args[0]"),
    ("/process/cwd", || json!("relative"), "process.cwd"),
    ("/process/cwd", || json!("/proc/self/fd/7"), "process.cwd"),
    ("/process/env/0", || json!("NO_EQUALS_SIGN"), "process.env[0]"),
    ("/process/user/uid", || json!("root"), "process.user.uid"),
    ("/process/user/uid", || json!(-1), "process.user.uid"),
    ("/process/user/additionalGids", || json!([1, "x"]), "process.user.additionalGids"),
    ("/process/rlimits/0/type", || json!("RLIMIT_NONE"), "process.rlimits[0]"),
    ("/process/rlimits/0/soft", || json!(4096), "process.rlimits[0]"),
    ("/process/rlimits/-", || json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 }), "process.rlimits[1]"),
    ("/process/oomScoreAdj", || json!(2000), "process.oomScoreAdj"),
    ("/process/scheduler", || json!({ "policy": "SCHED_NONE" }), "process.scheduler.policy"),
    ("/process/ioPriority", || json!({ "class": "IOPRIO_CLASS_NONESUCH", "priority": 1 }), "process.ioPriority.class"),
    ("/process/ioPriority", || json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }), "process.ioPriority.priority"),
    ("/root/path", || json!("missing"), "root.path"),
    ("/hooks/createRuntime/-", || json!({ "path": "relative" }), "hooks.createRuntime[0].path"),
    ("/hooks/prestart/-", || json!({ "path": "/bin/sh", "timeout": 0 }), "hooks.prestart[0].timeout"),
    ("/mounts/1/options/-", || json!("sise=1m"), "mounts[1].options"),
    ("/mounts/-", || json!({ "destination": "/x", "type": "no-such-fs", "source": "x" }), "mounts[7]"),
    (
        "/mounts/-",
        || json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] }),
        "mounts[7].source",
    ),
    ("/mounts/-", || json!({ "destination": "/proc/self", "type": "tmpfs", "source": "x" }), "mounts[7].destination"),
    ("/linux/namespaces/-", || json!({ "type": "space" }), "linux.namespaces[5].type"),
    ("/linux/namespaces/-", || json!({ "type": "pid" }), "linux.namespaces[5]"),
    ("/linux/namespaces/2", || json!({ "type": "ipc", "path": "/no/such/ns" }), "linux.namespaces[2].path"),
    ("/linux/namespaces/2", || json!({ "type": "ipc", "path": "/proc/self/ns/uts" }), "linux.namespaces[2].path"),
    ("/linux/uidMappings", || json!([{ "containerID": 0, "hostID": 1, "size": 1 }]), "linux.uidMappings"),
    ("/linux/timeOffsets", || json!({ "monotonic": { "secs": 1 } }), "linux.timeOffsets"),
    ("/linux/sysctl", || json!({ "kernel.panic": "0" }), "linux.sysctl"),
    ("/linux/devices/-", || json!({ "path": "/dev/x", "type": "x", "major": 1, "minor": 3 }), "linux.devices[0].type"),
    ("/linux/rootfsPropagation", || json!("public"), "linux.rootfsPropagation"),
    ("/linux/personality", || json!({ "domain": "MINIX" }), "linux.personality.domain"),
    (
        "/linux/resources/devices/-",
        || json!({ "allow": true, "type": "x", "access": "r" }),
        "linux.resources.devices[1]",
    ),
    ("/linux/resources/devices/-", || json!({ "allow": true, "access": "q" }), "linux.resources.devices[1].access"),
    ("/linux/resources/cpu", || json!({ "cpus": "4095", "mems": "0" }), "linux.resources.cpu.cpus"),
    ("/linux/resources/pids", || json!({ "limit": "many" }), "linux.resources.pids.limit"),
    ("/linux/seccomp", || json!({ "defaultAction": "SCMP_ACT_NONE" }), "linux.seccomp.defaultAction"),
    (
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": "NONE" }] }),
        "linux.seccomp.syscalls[0].action",
    ),
    (
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"] }),
        "linux.seccomp.architectures[0]",
    ),
    ("/linux/seccomp", || json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["NONE"] }), "linux.seccomp.flags[0]"),
    ("/linux/maskedPaths", || json!(["relative"]), "linux.maskedPaths[0]"),
    ("/linux/memoryPolicy", || json!({}), "linux.memoryPolicy"),
    ("/linux/memoryPolicy", || json!({ "mode": "BIND", "nodes": "0" }), "linux.memoryPolicy.mode"),
    ("/linux/memoryPolicy", || json!({ "mode": "MPOL_BIND", "nodes": "1-0" }), "linux.memoryPolicy.nodes"),
    ("/linux/memoryPolicy", || json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes"),
    ("/linux/memoryPolicy", || json!({ "mode": "MPOL_PREFERRED", "flags": ["MPOL_F"] }), "linux.memoryPolicy.flags[0]"),
    ("/linux/netDevices", || json!({ "no-such-device": {} }), "linux.netDevices.no-such-device"),
    ("/linux/netDevices", || json!({ "a/b": {} }), "linux.netDevices.a/b"),
    ("/linux/netDevices", || json!({ "e": { "name": "a b" } }), "linux.netDevices.e"),
    ("/linux/intelRdt", || json!({ "closID": "a/b" }), "linux.intelRdt"),
];

pub(super) fn checks() -> Vec<Check> {
    let check = |(number, &(pointer, value, field)): (usize, &'static Bad)| Check {
        name: format!("errors::{number:02}_names_{field}"),
        section: "orlop: errors",
        own: true,
        run: Box::new(move |lab: &mut Lab| {
            let reason = lab.refused(|lab| {
                lab.set(pointer, value());
            })?;
            ensure!(reason.contains(field), "the reason does not name {field}: {reason}");
            same!(reason.trim_end().lines().count(), 1, "lines of the reason: {reason}");
            Ok(())
        }),
    };
    BAD.iter().enumerate().map(check).collect()
}
