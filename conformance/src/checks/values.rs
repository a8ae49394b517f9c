//! What config.json may hold: unknown properties are ignored, invalid and unsupported values are errors.

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;

/// Where an unknown property is put.
const OBJECTS: &[(&str, &str)] = &[
    ("the_top", ""),
    ("process", "/process"),
    ("user", "/process/user"),
    ("capabilities", "/process/capabilities"),
    ("rlimits", "/process/rlimits/0"),
    ("root", "/root"),
    ("mounts", "/mounts/0"),
    ("hooks", "/hooks"),
    ("annotations", "/annotations"),
    ("linux", "/linux"),
    ("namespaces", "/linux/namespaces/0"),
    ("resources", "/linux/resources"),
    ("resources_devices", "/linux/resources/devices/0"),
    ("resources_memory", "/linux/resources/memory"),
    ("seccomp", "/linux/seccomp"),
];

/// What must be refused by any runtime: the name, the section, what to set, to what.
type Invalid = (&'static str, &'static str, &'static str, fn() -> Value);

const VALID: &str = "config.md#valid-values";

const INVALID: &[Invalid] = &[
    ("oci_version_that_is_no_version", "config.md#specification-version", "/ociVersion", || json!("new")),
    ("oci_version_that_is_a_number", "config.md#specification-version", "/ociVersion", || json!(1.2)),
    ("root_path_that_is_a_file", "config.md#root", "/root/path", || json!("config.json")),
    ("root_path_that_is_a_number", "config.md#root", "/root/path", || json!(7)),
    ("cwd_that_is_empty", "config.md#process", "/process/cwd", || json!("")),
    ("args_that_are_a_string", "config.md#process", "/process/args", || json!("sh -c true")),
    ("args_with_a_nul", "config.md#process", "/process/args", || json!(["true", "a\u{0}b"])),
    ("env_that_is_an_object", "config.md#process", "/process/env", || json!({ "PATH": "/bin" })),
    ("uid_that_is_a_name", "config.md#posix-platform-user", "/process/user/uid", || json!("root")),
    ("uid_that_is_negative", "config.md#posix-platform-user", "/process/user/uid", || json!(-1)),
    ("uid_of_33_bits", "config.md#posix-platform-user", "/process/user/uid", || json!(4_294_967_296_u64)),
    ("terminal_that_is_a_string", "config.md#process", "/process/terminal", || json!("yes")),
    ("rlimit_without_a_type", "config.md#posix-process", "/process/rlimits", || json!([{ "soft": 1, "hard": 1 }])),
    (
        "rlimit_that_is_negative",
        "config.md#posix-process",
        "/process/rlimits",
        || json!([{ "type": "RLIMIT_CORE", "soft": -1, "hard": 1 }]),
    ),
    ("oom_score_adj_out_of_range", "config.md#linux-process", "/process/oomScoreAdj", || json!(1001)),
    (
        "io_priority_out_of_range",
        "config.md#linux-process",
        "/process/ioPriority",
        || json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
    ),
    (
        "scheduler_nice_out_of_range",
        "config.md#linux-process",
        "/process/scheduler",
        || json!({ "policy": "SCHED_OTHER", "nice": 20 }),
    ),
    (
        "scheduler_flag_unknown",
        "config.md#linux-process",
        "/process/scheduler",
        || json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"] }),
    ),
    ("mount_without_a_destination", "config.md#mounts", "/mounts/-", || json!({ "type": "tmpfs", "source": "tmpfs" })),
    (
        "mount_option_that_is_a_number",
        "config.md#mounts",
        "/mounts/-",
        || json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [7] }),
    ),
    ("hook_without_a_path", "config.md#posix-platform-hooks", "/hooks/createRuntime/-", || json!({ "args": ["x"] })),
    (
        "hook_timeout_of_zero",
        "config.md#posix-platform-hooks",
        "/hooks/createRuntime/-",
        || json!({ "path": "/bin/true", "timeout": 0 }),
    ),
    (
        "hook_timeout_that_is_negative",
        "config.md#posix-platform-hooks",
        "/hooks/createRuntime/-",
        || json!({ "path": "/bin/true", "timeout": -1 }),
    ),
    (
        "hook_that_is_not_there",
        "config.md#posix-platform-hooks",
        "/hooks/createRuntime/-",
        || json!({ "path": "/no/such/hook" }),
    ),
    ("annotation_that_is_a_number", "config.md#annotations", "/annotations", || json!({ "a": 1 })),
    ("annotations_that_are_a_list", "config.md#annotations", "/annotations", || json!(["a"])),
    ("annotation_with_an_empty_key", "config.md#annotations", "/annotations", || json!({ "": "a" })),
    ("namespace_without_a_type", "config-linux.md#namespaces", "/linux/namespaces/-", || json!({})),
    (
        "namespace_path_that_is_relative",
        "config-linux.md#namespaces",
        "/linux/namespaces/2",
        || json!({ "type": "ipc", "path": "ns/ipc" }),
    ),
    (
        "namespace_path_that_is_a_file",
        "config-linux.md#namespaces",
        "/linux/namespaces/2",
        || json!({ "type": "ipc", "path": "/etc/passwd" }),
    ),
    (
        "device_without_numbers",
        "config-linux.md#devices",
        "/linux/devices/-",
        || json!({ "path": "/dev/x", "type": "c" }),
    ),
    (
        "device_without_a_path",
        "config-linux.md#devices",
        "/linux/devices/-",
        || json!({ "type": "c", "major": 1, "minor": 3 }),
    ),
    ("cgroups_path_that_is_a_number", "config-linux.md#cgroups-path", "/linux/cgroupsPath", || json!(7)),
    (
        "device_rule_with_unknown_access",
        "config-linux.md#allowed-device-list",
        "/linux/resources/devices/-",
        || json!({ "allow": true, "type": "c", "access": "q" }),
    ),
    (
        "device_rule_of_unknown_type",
        "config-linux.md#allowed-device-list",
        "/linux/resources/devices/-",
        || json!({ "allow": true, "type": "x", "access": "r" }),
    ),
    ("memory_limit_that_is_a_string", "config-linux.md#memory", "/linux/resources/memory", || json!({ "limit": "1g" })),
    (
        "memory_swap_below_the_limit",
        "config-linux.md#memory",
        "/linux/resources/memory",
        || json!({ "limit": 67_108_864, "swap": 33_554_432 }),
    ),
    (
        "cpu_quota_that_is_too_small",
        "config-linux.md#cpu",
        "/linux/resources/cpu",
        || json!({ "quota": 1, "period": 100_000 }),
    ),
    ("cpu_period_that_is_too_long", "config-linux.md#cpu", "/linux/resources/cpu", || json!({ "period": 100_000_000 })),
    ("cpuset_of_cpus_that_are_not_there", "config-linux.md#cpu", "/linux/resources/cpu", || json!({ "cpus": "8190" })),
    (
        "huge_page_size_unknown",
        "config-linux.md#huge-page-limits",
        "/linux/resources/hugepageLimits/-",
        || json!({ "pageSize": "3MB", "limit": 1 }),
    ),
    ("sysctl_unknown", "config-linux.md#sysctl", "/linux/sysctl", || json!({ "net.no.such": "1" })),
    (
        "sysctl_value_refused_by_the_kernel",
        "config-linux.md#sysctl",
        "/linux/sysctl",
        || json!({ "net.ipv4.ip_forward": "x" }),
    ),
    ("seccomp_without_a_default_action", "config-linux.md#seccomp", "/linux/seccomp", || json!({ "syscalls": [] })),
    ("seccomp_rule_without_an_action", "config-linux.md#seccomp", "/linux/seccomp", || {
        seccomp(json!({ "names": ["mkdir"] }))
    }),
    ("seccomp_rule_without_a_name", "config-linux.md#seccomp", "/linux/seccomp", || {
        seccomp(json!({ "names": [], "action": "SCMP_ACT_KILL" }))
    }),
    ("seccomp_argument_of_index_six", "config-linux.md#seccomp", "/linux/seccomp", || {
        let args = json!([{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }]);
        seccomp(json!({ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "args": args }))
    }),
    ("seccomp_errno_of_an_action_without_one", "config-linux.md#seccomp", "/linux/seccomp", || {
        seccomp(json!({ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1 }))
    }),
    (
        "seccomp_default_errno_of_an_action_without_one",
        "config-linux.md#seccomp",
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
    ),
    (
        "seccomp_listener_metadata_without_a_listener",
        "config-linux.md#seccomp",
        "/linux/seccomp",
        || json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" }),
    ),
    ("masked_path_that_is_relative", "config-linux.md#masked-paths", "/linux/maskedPaths", || json!(["proc/kcore"])),
    ("readonly_path_that_is_relative", "config-linux.md#readonly-paths", "/linux/readonlyPaths", || {
        json!(["proc/sys"])
    }),
    ("uid_mapping_of_size_zero", "config-linux.md#user-namespace-mappings", "/linux", || {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 0 }]);
        json!({ "namespaces": [{ "type": "user" }, { "type": "mount" }], "uidMappings": map, "gidMappings": map })
    }),
    ("linux_that_is_a_list", VALID, "/linux", || json!([])),
];

fn seccomp(rule: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
}

/// Those of the options which MUST be implemented that have no visible effect on a fresh tmpfs, or no check in the area `mounts`.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "noiversion",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "rw",
    "silent",
    "strictatime",
    "suid",
];

/// What must be there, by JSON pointer.
const REQUIRED: &[(&str, &str, &str)] = &[
    ("oci_version", "config.md#specification-version", "/ociVersion"),
    ("root", "config.md#root", "/root"),
    ("root_path", "config.md#root", "/root/path"),
    ("cwd", "config.md#process", "/process/cwd"),
    ("args", "config.md#process", "/process/args"),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "values",
        json_that_does_not_parse_is_refused "config.md#valid-values",
        console_size_without_a_terminal_is_ignored "config.md#process",
        annotations_of_unknown_keys_are_ignored "config.md#annotations",
        device_over_another_file_is_refused "config-linux.md#devices",
        oci_versions_of_features_are_accepted "features.md",
    );
    for &(place, pointer) in OBJECTS {
        let name = format!("values::unknown_property_of_{place}_is_ignored");
        checks.push(Check::new(name, "config.md#extensibility", move |lab: &mut Lab| unknown_property(lab, pointer)));
    }
    for &(what, section, pointer, value) in INVALID {
        checks.push(Check::new(format!("values::{what}_is_refused"), section, move |lab: &mut Lab| {
            lab.refused(|lab| {
                lab.set(pointer, value());
            })?;
            Ok(())
        }));
    }
    for option in MOUNT_OPTIONS {
        checks.push(Check::new(
            format!("values::mount_option_{option}_is_taken"),
            "config.md#mounts",
            move |lab: &mut Lab| {
                lab.mount("/there", "tmpfs", "tmpfs", &[option]);
                lab.run_sh("mountpoint=$(awk '$5 == \"/there\"' /proc/self/mountinfo); test -n \"$mountpoint\"")?;
                Ok(())
            },
        ));
    }
    for &(what, section, pointer) in REQUIRED {
        checks.push(Check::new(format!("values::without_{what}_is_refused"), section, move |lab: &mut Lab| {
            lab.refused(|lab| {
                lab.remove(pointer);
            })?;
            Ok(())
        }));
    }
    checks
}

/// The container runs, and the rest of the configuration still counts.
fn unknown_property(lab: &mut Lab, pointer: &str) -> Outcome {
    if pointer == "/linux/seccomp" {
        lab.set("/linux/seccomp/defaultAction", "SCMP_ACT_ALLOW");
    }
    let value = if pointer == "/annotations" { json!("text") } else { json!({ "nested": [1, "two"] }) };
    lab.set(&format!("{pointer}/orgExampleUnknown"), value).set("/hostname", "known");
    same!(lab.run_sh("hostname")?, "known\n", "output");
    Ok(())
}

fn json_that_does_not_parse_is_refused(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).run()?.ok("run")?;
    let config = lab.bundle().join("config.json");
    let whole = std::fs::read_to_string(&config)?;
    for text in ["", "null", "[]", &whole[..whole.len() / 2], &format!("{whole}]")] {
        std::fs::write(&config, text)?;
        let out = lab.verb("create", &[]).go()?;
        let shown: String = text.chars().take(20).collect();
        ensure!(out.code != 0, "create accepts {shown:?}");
        ensure!(!out.stderr.trim().is_empty(), "create fails without a word on {shown:?}");
        lab.nothing_left("a refused create")?;
    }
    Ok(())
}

fn console_size_without_a_terminal_is_ignored(lab: &mut Lab) -> Outcome {
    lab.set("/process/terminal", false).set("/process/consoleSize", json!({ "height": 10, "width": 20 }));
    same!(lab.run_sh("tty; echo here")?, "not a tty\nhere\n", "output");
    Ok(())
}

fn annotations_of_unknown_keys_are_ignored(lab: &mut Lab) -> Outcome {
    let annotations = json!({ "com.example.key": "value", "org.opencontainers.no.such.key": "", "run.of.nobody": "1" });
    lab.set("/annotations", annotations.clone()).args(&["sleep", "100"]).create()?;
    same!(lab.state()?["annotations"], annotations, "annotations of the state");
    Ok(())
}

fn device_over_another_file_is_refused(lab: &mut Lab) -> Outcome {
    let in_the_way = lab.rootfs().join("in-the-way");
    std::fs::write(&in_the_way, "text")?;
    lab.set("/root/readonly", false);
    lab.refused(|lab| {
        lab.set("/linux/devices/-", json!({ "path": "/in-the-way", "type": "c", "major": 1, "minor": 3 }));
    })?;
    same!(std::fs::read_to_string(&in_the_way)?, "text", "the file that was there");
    Ok(())
}

fn oci_versions_of_features_are_accepted(lab: &mut Lab) -> Outcome {
    let features: Value = serde_json::from_str(&lab.call(&["features"]).go()?.ok("features")?.stdout)?;
    for end in ["ociVersionMin", "ociVersionMax"] {
        let version = features[end].as_str().ok_or_else(|| Failure(format!("no {end}: {features}")))?;
        lab.set("/ociVersion", version);
        same!(lab.run_sh("echo here")?, "here\n", "output with the ociVersion {version}");
    }
    Ok(())
}
