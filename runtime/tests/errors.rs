//! Every message names a field that the specification has: each check of config.json, each step of the plan with each of
//! its parts, and each write of a limit. The lists of checks and steps are read from the sources, so a new one without a
//! case here fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use oci_spec::runtime::{LinuxResources, Spec};
use orlop::cgroup::{Paths, v1, v2};
use orlop::config::Config;
use orlop::error::Error;
use orlop::plan::{Caller, Input, Plan, Step, plan, plan_add, plan_exec, plan_remove};
use orlop::sync::{Frame, PARTS, Part, Tag};
use orlop_sys::status::Status;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The fields of config.md and config-linux.md, version 1.3; `[]` is an element of a list, `*` a key of a map.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "ociVersion", "root", "root.path", "root.readonly", "hostname", "domainname", "annotations", "vm", "solaris", "windows", "zos", "mounts",
    "mounts[]", "mounts[].destination", "mounts[].source", "mounts[].type", "mounts[].options", "mounts[].options[]",
    "mounts[].uidMappings", "mounts[].gidMappings", "mounts[].uidMappings[]", "mounts[].gidMappings[]",
    "process", "process.terminal", "process.consoleSize", "process.consoleSize.height", "process.consoleSize.width",
    "process.cwd", "process.env", "process.env[]",
    "process.args", "process.args[]", "process.commandLine", "process.rlimits", "process.rlimits[]",
    "process.rlimits[].type", "process.rlimits[].soft", "process.rlimits[].hard", "process.apparmorProfile",
    "process.capabilities", "process.capabilities.effective", "process.capabilities.bounding",
    "process.capabilities.inheritable", "process.capabilities.permitted", "process.capabilities.ambient",
    "process.noNewPrivileges", "process.oomScoreAdj", "process.scheduler", "process.scheduler.policy",
    "process.scheduler.nice", "process.scheduler.priority", "process.scheduler.flags", "process.scheduler.flags[]",
    "process.scheduler.runtime", "process.scheduler.deadline", "process.scheduler.period", "process.selinuxLabel",
    "process.ioPriority", "process.ioPriority.class", "process.ioPriority.priority", "process.execCPUAffinity",
    "process.execCPUAffinity.initial", "process.execCPUAffinity.final", "process.user", "process.user.uid",
    "process.user.gid", "process.user.umask", "process.user.additionalGids", "process.user.additionalGids[]",
    "hooks", "hooks.prestart[]", "hooks.createRuntime[]", "hooks.createContainer[]", "hooks.startContainer[]",
    "hooks.poststart[]", "hooks.poststop[]", "hooks.prestart[].path", "hooks.createRuntime[].path",
    "hooks.createContainer[].path", "hooks.startContainer[].path", "hooks.poststart[].path", "hooks.poststop[].path",
    "hooks.prestart[].timeout", "hooks.createRuntime[].timeout", "hooks.createContainer[].timeout",
    "hooks.startContainer[].timeout", "hooks.poststart[].timeout", "hooks.poststop[].timeout",
    "linux", "linux.namespaces", "linux.namespaces[]", "linux.namespaces[].type", "linux.namespaces[].path",
    "linux.uidMappings", "linux.gidMappings", "linux.uidMappings[]", "linux.gidMappings[]", "linux.timeOffsets",
    "linux.timeOffsets.*", "linux.devices", "linux.devices[]", "linux.devices[].path", "linux.devices[].type",
    "linux.devices[].major", "linux.devices[].minor", "linux.devices[].fileMode", "linux.devices[].uid",
    "linux.devices[].gid", "linux.netDevices", "linux.netDevices.*", "linux.cgroupsPath", "linux.resources",
    "linux.resources.devices", "linux.resources.devices[]", "linux.resources.memory.limit",
    "linux.resources.memory.reservation", "linux.resources.memory.swap", "linux.resources.memory.kernel",
    "linux.resources.memory.kernelTCP", "linux.resources.memory.swappiness", "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.useHierarchy", "linux.resources.memory.checkBeforeUpdate", "linux.resources.cpu.shares",
    "linux.resources.cpu.quota", "linux.resources.cpu.burst", "linux.resources.cpu.period",
    "linux.resources.cpu.realtimeRuntime", "linux.resources.cpu.realtimePeriod", "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems", "linux.resources.cpu.idle", "linux.resources.blockIO.weight",
    "linux.resources.blockIO.leafWeight", "linux.resources.blockIO.weightDevice[]",
    "linux.resources.blockIO.weightDevice[].weight", "linux.resources.blockIO.weightDevice[].leafWeight",
    "linux.resources.blockIO.throttleReadBpsDevice[]", "linux.resources.blockIO.throttleWriteBpsDevice[]",
    "linux.resources.blockIO.throttleReadIOPSDevice[]", "linux.resources.blockIO.throttleWriteIOPSDevice[]",
    "linux.resources.hugepageLimits[]", "linux.resources.hugepageLimits[].limit",
    "linux.resources.hugepageLimits[].pageSize", "linux.resources.network.classID",
    "linux.resources.network.priorities[]", "linux.resources.pids.limit", "linux.resources.rdma.*",
    "linux.resources.unified", "linux.resources.unified.*", "linux.intelRdt", "linux.intelRdt.closID", "linux.intelRdt.schemata[]",
    "linux.intelRdt.l3CacheSchema", "linux.intelRdt.memBwSchema", "linux.intelRdt.enableMonitoring", "linux.memoryPolicy",
    "linux.memoryPolicy.mode", "linux.memoryPolicy.nodes", "linux.memoryPolicy.flags", "linux.sysctl",
    "linux.sysctl.*", "linux.seccomp", "linux.seccomp.defaultAction", "linux.seccomp.defaultErrnoRet",
    "linux.seccomp.architectures", "linux.seccomp.architectures[]", "linux.seccomp.flags", "linux.seccomp.flags[]",
    "linux.seccomp.listenerPath", "linux.seccomp.listenerMetadata", "linux.seccomp.syscalls",
    "linux.seccomp.syscalls[]", "linux.seccomp.syscalls[].names", "linux.seccomp.syscalls[].names[]",
    "linux.seccomp.syscalls[].action", "linux.seccomp.syscalls[].errnoRet", "linux.seccomp.syscalls[].args[]",
    "linux.rootfsPropagation", "linux.maskedPaths", "linux.maskedPaths[]", "linux.readonlyPaths",
    "linux.readonlyPaths[]", "linux.mountLabel", "linux.personality", "linux.personality.domain",
    "linux.personality.flags",
];

/// Maps, below which every key is as good as another.
const MAPS: &[&str] =
    &["linux.sysctl.", "linux.resources.unified.", "linux.resources.rdma.", "linux.timeOffsets.", "linux.netDevices."];

fn specified(field: &str) -> bool {
    let mut general = String::new();
    let mut inside = false;
    for c in field.chars() {
        inside = if inside { c != ']' } else { c == '[' };
        if !inside || c == '[' {
            general.push(c);
        }
    }
    match MAPS.iter().find(|map| general.starts_with(**map)) {
        Some(map) => FIELDS.contains(&format!("{map}*").as_str()),
        None => FIELDS.contains(&general.as_str()),
    }
}

/// Names between two marks of a source file, of the lines that hold one.
fn listed(file: &str, from: &str, to: &str, name: fn(&str) -> Option<&str>) -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap();
    let list = text.split_once(from).expect(from).1.split_once(to).expect(to).0;
    let found: BTreeSet<String> = list.lines().filter_map(name).map(String::from).collect();
    assert!(found.len() > 5, "{file} is not as this test knows it: {found:?}");
    found
}

/// As many kinds of steps as one container can have.
fn rich() -> Value {
    let hook = json!([{"path": "/bin/true"}]);
    let map = json!([{"containerID": 0, "hostID": 0, "size": 10}]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true, "cwd": "/work", "args": ["true"], "user": {"uid": 5, "gid": 5, "umask": 7},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}], "oomScoreAdj": 1,
            "apparmorProfile": "x", "noNewPrivileges": true,
            "capabilities": {"inheritable": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]},
            "scheduler": {"policy": "SCHED_BATCH"},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
            "execCPUAffinity": {"initial": "0", "final": "0"}
        },
        "root": {"path": "/r", "readonly": true},
        "hostname": "a", "domainname": "b",
        "hooks": {"createContainer": hook, "startContainer": hook},
        "mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/dev", "type": "tmpfs", "options": ["ro"]},
            {"destination": "/dev/pts", "type": "devpts"},
            {"destination": "/b", "type": "bind", "source": "/x", "options": ["rbind"]}
        ],
        "linux": {
            "cgroupsPath": "/x", "rootfsPropagation": "shared",
            "namespaces": [
                {"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "cgroup"},
                {"type": "ipc", "path": "/proc/1/ns/ipc"}, {"type": "network"}, {"type": "pid"}, {"type": "time"}
            ],
            "uidMappings": map, "gidMappings": map, "timeOffsets": {"boottime": {"secs": 1}},
            "sysctl": {"net.a": "1"}, "personality": {"domain": "LINUX"},
            "netDevices": {"eth7": {}}, "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"},
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
            "maskedPaths": ["/m"], "readonlyPaths": ["/o"],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
        }
    })
}

fn without(config: &Value, namespaces: &[&str]) -> Value {
    let mut config = config.clone();
    config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|ns| !namespaces.contains(&ns["type"].as_str().unwrap()));
    config
}

/// What is planned for when nothing special is asked.
fn input(paths: &Paths) -> Input<'_> {
    Input {
        id: "id",
        rootfs: Path::new("/r"),
        bundle: Path::new("/b"),
        grantable: u64::MAX,
        cgroup_paths: paths,
        hierarchies: &[],
        v1_tasks: 1,
        into_cgroup: false,
        preserve_fds: 0,
        listen_fds: 0,
        no_pivot: None,
        no_new_keyring: false,
        notify_dir: None,
        rootless: None,
        host_trees: true,
        asks: true,
        comes_back: true,
        own: None,
    }
}

/// Plans that together have every kind of step.
fn plans() -> Vec<Plan> {
    let paths = Paths::new();
    let input = |no_pivot: bool| Input { no_pivot: no_pivot.then(Vec::new), ..input(&paths) };
    let spec = |config: &Value| serde_json::from_value::<Spec>(config.clone()).unwrap();
    let all = rich();
    let mut on_the_host = without(&all, &["user"]);
    on_the_host["process"]["terminal"] = json!(false);
    let mut without_mounts = without(&on_the_host, &["mount"]);
    for field in ["maskedPaths", "readonlyPaths", "rootfsPropagation", "devices"] {
        without_mounts["linux"].as_object_mut().unwrap().remove(field);
    }
    without_mounts["mounts"] = json!([]);
    without_mounts["root"]["readonly"] = json!(false);
    let mut of_a_user = all.clone();
    of_a_user["linux"].as_object_mut().unwrap().remove("netDevices");
    let process = spec(&all).process().clone().unwrap();
    let mounts = spec(&all).mounts().clone().unwrap();
    vec![
        plan(&spec(&all), &input(false)).unwrap(),
        plan(&spec(&on_the_host), &input(true)).unwrap(),
        plan(&spec(&without_mounts), &input(false)).unwrap(),
        plan_exec(&spec(&all), &process, &input(false), 1).unwrap(),
        plan(&spec(&of_a_user), &Input { rootless: Some(Caller { uid: 7, gid: 7 }), ..input(false) }).unwrap(),
        plan_add(&spec(&all), &mounts, &input(false), 0, 1).unwrap(),
        plan_remove(&spec(&all), &mounts, &input(false), 0).unwrap(),
    ]
}

/// Steps of the runtime's own making: no field of config.json asks for them.
const OWN: &[&str] = &[
    "JoinInit",
    "Dumpable",
    "NewSession",
    "Keyring",
    "Affinity",
    "ReopenNull",
    "StdioOwner",
    "Home",
    "CloseFrom",
    "Ready",
    "Gate",
];

fn kind(step: &Step) -> String {
    format!("{step:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap().to_string()
}

#[test]
fn every_step_names_its_field() {
    let mut missing = listed("plan/step.rs", "pub enum Step {", "\n}", |line| {
        let name = line.strip_prefix("    ")?;
        let end = name.find(|c: char| !c.is_alphanumeric())?;
        name.starts_with(char::is_uppercase).then_some(&name[..end])
    });
    let mut wrong = BTreeSet::new();
    for plan in plans() {
        for (i, planned) in plan.steps.iter().enumerate() {
            let name = kind(&planned.step);
            missing.remove(&name);
            for part in PARTS {
                let e = plan.failure(&Frame { tag: Tag::Failed, part, step: i as u16, number: 22 }, "");
                let text = e.to_string();
                if text.len() < 10 || text.contains('\n') {
                    wrong.insert(format!("{name} says {text:?}"));
                }
                match e.field() {
                    // Of a bind mount alone; it names its field between words of runc's.
                    None if part == Part::Locked => {
                        if name == "Bind" && !text.contains(&format!("{}.options", planned.field)) {
                            wrong.insert(format!("{name} says {text:?}"));
                        }
                    }
                    Some(field) if specified(field) => {}
                    None if OWN.contains(&name.as_str()) => {}
                    other => drop(wrong.insert(format!("{name} is of {other:?}"))),
                }
            }
        }
        for (_, field) in &plan.opens {
            if !specified(field) {
                wrong.insert(format!("a file to be opened is of {field:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "no plan of this test has {missing:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The check, an edit (a JSON pointer to an object, a member of it, and its value), and the field that is at fault.
type Case = (&'static str, &'static str, &'static str, fn() -> Value, &'static str);

const CHECKS: &[Case] = &[
    ("version", "", "ociVersion", || json!("2.0.0"), "ociVersion"),
    ("root", "/root", "path", || json!(""), "root.path"),
    ("process", "/process", "cwd", || json!("relative"), "process.cwd"),
    ("process", "/process", "args", || json!([]), "process.args"),
    ("process", "/process/user", "uid", || json!(u32::MAX), "process.user.uid"),
    ("process", "/process/user", "additionalGids", || json!([1, u32::MAX]), "process.user.additionalGids[1]"),
    ("rlimits", "/process/rlimits/0", "soft", || json!(9), "process.rlimits[0]"),
    ("names", "/linux", "namespaces", || json!([{"type": "mount"}]), "hostname"),
    ("hooks", "/hooks", "prestart", || json!([{"path": "relative"}]), "hooks.prestart[0].path"),
    ("hooks", "/hooks", "poststop", || json!([{"path": "/x", "timeout": 0}]), "hooks.poststop[0].timeout"),
    ("other_platforms", "", "vm", || json!({"kernel": {"path": "/k"}}), "vm"),
    ("other_platforms", "", "solaris", || json!({}), "solaris"),
    ("other_platforms", "", "windows", || json!({"layerFolders": []}), "windows"),
    ("other_platforms", "", "zos", || json!({}), "zos"),
    ("annotations", "", "annotations", || json!({"": "x"}), "annotations"),
    (
        "kernel_memory",
        "/linux",
        "resources",
        || json!({"memory": {"useHierarchy": false}}),
        "linux.resources.memory.useHierarchy",
    ),
    ("process", "/process", "commandLine", || json!("true"), "process.commandLine"),
    ("process", "/process", "consoleSize", || json!({"height": 65536, "width": 1}), "process.consoleSize.height"),
    ("mappings", "/linux/namespaces/2", "type", || json!("time"), "linux.uidMappings"),
    ("masks", "/linux/namespaces/0", "type", || json!("time"), "linux.maskedPaths"),
    ("sysctl", "/linux", "sysctl", || json!({"vm.swappiness": "1"}), "linux.sysctl.vm.swappiness"),
    ("seccomp", "/linux/seccomp/syscalls/0", "action", || json!("SCMP_ACT_NOTIFY"), "linux.seccomp.listenerPath"),
    ("labels", "/process", "selinuxLabel", || json!("a:b:c:d"), "process.selinuxLabel"),
    ("labels", "/linux", "mountLabel", || json!("a:b:c:d"), "linux.mountLabel"),
    ("intel_rdt", "/linux", "intelRdt", || json!({"closID": "a/b"}), "linux.intelRdt.closID"),
    ("net_devices", "/linux", "netDevices", || json!({"a/b": {}}), "linux.netDevices.a/b"),
    ("net_devices", "/linux", "netDevices", || json!({"e": {"name": "%s"}}), "linux.netDevices.e"),
    ("net_devices", "/linux", "netDevices", || json!({"e": {"name": "f"}, "f": {}}), "linux.netDevices.f"),
];

fn checked(config: &Value) -> Result<(), Error> {
    Config { spec: serde_json::from_value(config.clone()).unwrap(), raw: Vec::new() }.check()
}

#[test]
fn every_check_names_its_field() {
    checked(&rich()).unwrap();
    let mut missing = listed("config.rs", "const CHECKS: &[Check] = &[", "\n];", |line| {
        Some(line.trim().trim_end_matches(',')).filter(|l| !l.is_empty())
    });
    for (check, at, member, value, field) in CHECKS {
        let mut config = rich();
        config.pointer_mut(at).unwrap()[*member] = value();
        let e = checked(&config).expect_err(&format!("{check}: {at}/{member} is taken"));
        assert_eq!(e.field(), Some(*field), "{check}: {e}");
        assert!(specified(field), "{field}");
        missing.remove(*check);
    }
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn every_limit_names_its_field() {
    let device = json!([{"major": 8, "minor": 0, "rate": 1000}]);
    let resources: LinuxResources = serde_json::from_value(json!({
        "memory": {"limit": 1, "reservation": 1, "swap": 2, "swappiness": 1, "disableOOMKiller": true},
        "cpu": {"shares": 2, "quota": 1000, "burst": 1, "period": 1000, "cpus": "0", "mems": "0", "idle": 1},
        "pids": {"limit": 1},
        "blockIO": {"weight": 10, "throttleReadBpsDevice": device, "throttleWriteBpsDevice": device,
            "throttleReadIOPSDevice": device, "throttleWriteIOPSDevice": device,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "rdma": {"mlx": {"hcaHandles": 1}},
        "unified": {"memory.high": "1"}
    }))
    .unwrap();
    let mut plain = resources.clone();
    plain.set_unified(None);
    // v1 has no idle and no unified, v2 cannot spare anything from the OOM killer: errors, with their fields.
    let all = [v1::writes(&resources), v1::writes(&plain), v2::writes(&resources), v2::writes(&plain)];
    let mut fields = BTreeSet::new();
    for writes in all {
        match writes {
            Ok(writes) => fields.extend(writes.into_iter().map(|write| write.field)),
            Err(e) => drop(fields.insert(e.field().unwrap().to_string())),
        }
    }
    assert!(fields.len() > 15, "{fields:?}");
    let wrong: Vec<_> = fields.iter().filter(|field| !specified(field)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The comparison itself.
#[test]
fn fields_are_compared_by_their_form() {
    assert!(specified("mounts[12].options[3]") && specified("linux.sysctl.net.ipv4.x") && specified("root.path"));
    assert!(!specified("mounts[12].option") && !specified("") && !specified("sysctl.x") && !specified("mounts[1]["));
}

/// Who the runtime is counts for its child as long as that is in the same user namespace, and only where it is what config.json asks for.
#[test]
fn what_the_child_is_by_its_birth_is_not_set_again() {
    let paths = Paths::new();
    let bounding = 0x1ff_feff_ffff;
    let root = Status { ignored: 0, euid: 0, all_root: true, no_groups: true, permitted: bounding, bounding };
    let planned = |config: &Value, own: Option<Status>| {
        let input = Input { asks: false, own, ..input(&paths) };
        let spec = serde_json::from_value::<Spec>(config.clone()).unwrap();
        let process = spec.process().clone().unwrap();
        [plan(&spec, &input).unwrap(), plan_exec(&spec, &process, &input, 1).unwrap()].map(|plan| {
            let steps = || plan.steps.iter().map(|planned| &planned.step);
            let user = steps().find_map(|step| match step {
                Step::User { groups, born_so, .. } => Some((*born_so, groups.is_some())),
                _ => None,
            });
            let dropped = steps().find_map(|step| if let Step::Bounding(these) = step { Some(*these) } else { None });
            (user.unwrap(), dropped.unwrap() & !bounding)
        })
    };
    let with = |user: Value, namespaces: &[&str]| {
        let mut config = without(&rich(), namespaces);
        config["process"]["user"] = user;
        config
    };
    let (all_set, nothing_set) = (((false, true), !bounding), ((true, false), 0));
    let plain = json!({"uid": 0, "gid": 0});
    assert_eq!(planned(&with(plain.clone(), &["user"]), Some(root)), [nothing_set; 2]);
    assert_eq!(planned(&with(plain.clone(), &["user"]), None), [all_set; 2], "nothing is known");
    assert_eq!(planned(&with(plain.clone(), &[]), Some(root)), [all_set; 2], "a user namespace");
    for (user, own, expected) in [
        (json!({"uid": 0, "gid": 5}), root, (false, false)),
        (json!({"uid": 7, "gid": 0}), root, (false, false)),
        (json!({"uid": 0, "gid": 0, "additionalGids": [0]}), root, (true, true)),
        (plain.clone(), Status { no_groups: false, ..root }, (true, true)),
        (plain.clone(), Status { all_root: false, ..root }, (false, false)),
    ] {
        assert_eq!(planned(&with(user.clone(), &["user"]), Some(own)), [(expected, 0); 2], "{user} {own:?}");
    }
}
