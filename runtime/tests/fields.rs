//! Every field of the runtime specification (1.3, for Linux) survives the reading of config.json, or is in the list of those that
//! are looked for in the text itself: a field that nobody sees cannot be honoured, nor refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// A value other than the default for every field of specs-go/config.go that is of Linux or of no platform.
fn everything() -> Value {
    let map = json!([{"containerID": 1, "hostID": 2, "size": 3}]);
    let hook = json!([{"path": "/h", "args": ["h"], "env": ["A=1"], "timeout": 4}]);
    let rate = json!([{"major": 8, "minor": 16, "rate": 5}]);
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true, "consoleSize": {"height": 6, "width": 7},
            "user": {"uid": 8, "gid": 9, "umask": 10, "additionalGids": [11], "username": "u"},
            "args": ["a"], "commandLine": "c", "env": ["E=1"], "cwd": "/w",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"],
                "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 13, "soft": 12}],
            "noNewPrivileges": true, "apparmorProfile": "p", "oomScoreAdj": 14, "selinuxLabel": "l",
            "scheduler": {"policy": "SCHED_DEADLINE", "nice": 1, "priority": 2, "flags": ["SCHED_FLAG_RECLAIM"],
                "runtime": 15, "deadline": 16, "period": 17},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "execCPUAffinity": {"initial": "0", "final": "1"}
        },
        "root": {"path": "r", "readonly": true},
        "hostname": "n", "domainname": "d",
        "mounts": [{"destination": "/m", "type": "bind", "source": "/s", "options": ["bind"], "uidMappings": map,
            "gidMappings": map}],
        "hooks": {"prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook},
        "annotations": {"k": "v"},
        "linux": {
            "uidMappings": map, "gidMappings": map, "sysctl": {"net.a": "1"}, "cgroupsPath": "/c",
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
                "memory": {"limit": 18, "reservation": 19, "swap": 20, "kernel": 21, "kernelTCP": 22, "swappiness": 23,
                    "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 24, "quota": 25, "burst": 26, "period": 27, "realtimeRuntime": 28,
                    "realtimePeriod": 29, "cpus": "0", "mems": "0", "idle": 1},
                "pids": {"limit": 30},
                "blockIO": {"weight": 31, "leafWeight": 32,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 33, "leafWeight": 34}],
                    "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate, "throttleReadIOPSDevice": rate,
                    "throttleWriteIOPSDevice": rate},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 35}],
                "network": {"classID": 36, "priorities": [{"name": "eth0", "priority": 37}]},
                "rdma": {"mlx": {"hcaHandles": 38, "hcaObjects": 39}},
                "unified": {"memory.high": "40"}
            },
            "namespaces": [{"type": "network", "path": "/n"}, {"type": "time"}],
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 41, "gid": 42}],
            "netDevices": {"eth0": {"name": "e"}},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 43, "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 44,
                    "args": [{"index": 1, "value": 45, "valueTwo": 46, "op": "SCMP_CMP_MASKED_EQ"}]}]
            },
            "rootfsPropagation": "slave", "maskedPaths": ["/mp"], "readonlyPaths": ["/rp"], "mountLabel": "ml",
            "intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=1", "memBwSchema": "MB:0=10",
                "enableMonitoring": true, "enableCMT": true, "enableMBM": true},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX32", "flags": ["F"]},
            "timeOffsets": {"monotonic": {"secs": -47, "nanosecs": 48}}
        },
        "vm": {"kernel": {"path": "/k"}},
        "solaris": {"milestone": "x"},
        "windows": {"layerFolders": ["x"], "hyperv": {"utilityVMPath": "x"}},
        "zos": {"namespaces": [{"type": "pid"}]},
        "freebsd": {"jail": {"parent": "x"}}
    })
}

/// The paths of what is in `all`, and not the same in `back`.
fn lost(all: &Value, back: Option<&Value>, at: &str, found: &mut Vec<String>) {
    match (all, back) {
        (Value::Object(all), Some(Value::Object(back))) => {
            for (name, value) in all {
                lost(value, back.get(name), &format!("{at}.{name}"), found);
            }
        }
        (Value::Array(all), Some(Value::Array(back))) if all.len() == back.len() => {
            for (i, (value, back)) in all.iter().zip(back).enumerate() {
                lost(value, Some(back), &format!("{at}[{i}]"), found);
            }
        }
        (all, back) if back == Some(all) => {}
        _ => found.push(at.trim_start_matches('.').to_string()),
    }
}

#[test]
fn no_field_is_lost_unseen() {
    let all = everything();
    let spec: Spec = serde_json::from_value(all.clone()).unwrap();
    let mut found = Vec::new();
    lost(&all, Some(&serde_json::to_value(&spec).unwrap()), "", &mut found);
    found.sort();
    // config/unseen.rs looks for those of Linux and for the other platform; the rest of windows is refused with the whole of it.
    assert_eq!(
        found,
        ["freebsd", "linux.intelRdt.enableCMT", "linux.intelRdt.enableMBM", "windows.hyperv.utilityVMPath"]
    );
}
