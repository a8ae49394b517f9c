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
    ("/ociVersion", || json!("new"), "ociVersion"),
    ("/root", || json!(null), "root"),
    ("/root/path", || json!(["rootfs"]), "root.path"),
    ("/root/readonly", || json!("no"), "root.readonly"),
    ("/hostname", || json!(7), "hostname"),
    ("/process/terminal", || json!("yes"), "process.terminal"),
    ("/process/args", || json!("true"), "process.args"),
    ("/process/env", || json!({ "A": "b" }), "process.env"),
    ("/process/cwd", || json!(""), "process.cwd"),
    ("/process/user/umask", || json!(-1), "process.user.umask"),
    ("/process/capabilities/bounding", || json!("CAP_KILL"), "process.capabilities.bounding"),
    ("/process/rlimits/0/hard", || json!(-1), "process.rlimits[0].hard"),
    ("/process/noNewPrivileges", || json!(1), "process.noNewPrivileges"),
    ("/process/oomScoreAdj", || json!("low"), "process.oomScoreAdj"),
    ("/process/scheduler", || json!({ "policy": "SCHED_OTHER", "nice": 20 }), "process.scheduler.nice"),
    ("/process/selinuxLabel", || json!("system_u:system_r:no_t:s0"), "process.selinuxLabel"),
    ("/hooks/createRuntime/-", || json!({ "args": ["x"] }), "hooks.createRuntime[0]"),
    ("/hooks/createContainer/-", || json!({ "path": "/no/such/hook" }), "hooks.createContainer[0]"),
    ("/hooks/poststop/-", || json!({ "path": "relative" }), "hooks.poststop[0].path"),
    ("/annotations", || json!({ "a": 1 }), "annotations"),
    ("/mounts/2/options", || json!("nosuid"), "mounts[2].options"),
    ("/mounts/-", || json!({ "type": "tmpfs", "source": "x" }), "mounts[7]"),
    (
        "/mounts/-",
        || json!({ "destination": "/x", "type": "tmpfs", "source": "x", "options": [1] }),
        "mounts[7].options[0]",
    ),
    ("/linux/namespaces/-", || json!({}), "linux.namespaces[5]"),
    ("/linux/namespaces/2", || json!({ "type": "ipc", "path": "ns/ipc" }), "linux.namespaces[2].path"),
    ("/linux/gidMappings", || json!([{ "containerID": 0, "hostID": 1, "size": 1 }]), "linux.gidMappings"),
    ("/linux/sysctl", || json!({ "net.no.such": "1" }), "linux.sysctl"),
    ("/linux/devices/-", || json!({ "type": "c", "major": 1, "minor": 3 }), "linux.devices[0]"),
    ("/linux/mountLabel", || json!("system_u:object_r:no_t:s0"), "linux.mountLabel"),
    ("/linux/cgroupsPath", || json!(7), "linux.cgroupsPath"),
    ("/linux/readonlyPaths", || json!(["relative"]), "linux.readonlyPaths[0]"),
    ("/linux/resources/memory", || json!({ "limit": "1g" }), "linux.resources.memory.limit"),
    ("/linux/resources/memory", || json!({ "limit": 67_108_864, "swap": 33_554_432 }), "linux.resources.memory.swap"),
    ("/linux/resources/cpu", || json!({ "quota": 1, "period": 100_000 }), "linux.resources.cpu.quota"),
    ("/linux/resources/cpu", || json!({ "period": 100_000_000 }), "linux.resources.cpu.period"),
    (
        "/linux/resources/hugepageLimits/-",
        || json!({ "pageSize": "3MB", "limit": 1 }),
        "linux.resources.hugepageLimits[0]",
    ),
    (
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": [], "action": "SCMP_ACT_KILL" }] }),
        "linux.seccomp.syscalls[0].names",
    ),
    (
        "/linux/seccomp",
        || {
            let args = json!([{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }]);
            let rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "args": args });
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
        },
        "linux.seccomp.syscalls[0].args[0].index",
    ),
    (
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
        "linux.seccomp.defaultErrnoRet",
    ),
    (
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" }),
        "linux.seccomp.listenerMetadata",
    ),
    ("/vm", || json!({ "kernel": { "path": "/boot/vmlinuz" } }), "vm"),
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
