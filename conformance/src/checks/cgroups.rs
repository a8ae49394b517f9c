//! The container's cgroup: where it is, its limits, and its device rules.

use std::fs;

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::needs::v2;
use crate::runtime::Lab;

/// A resource, and the file and value that show it: on v1 with its controller, and on v2.
///
/// v2 without a file name: it has no such limit, and engines rely on that it is accepted all the same.
struct Resource {
    name: &'static str,
    pointer: &'static str,
    value: fn() -> Value,
    v1: (&'static str, &'static str, &'static str),
    v2: (&'static str, &'static str),
}

const RESOURCES: &[Resource] = &[
    Resource {
        name: "memory_limit",
        pointer: "memory",
        value: || json!({ "limit": 100 << 20 }),
        v1: ("memory", "memory.limit_in_bytes", "104857600"),
        v2: ("memory.max", "104857600"),
    },
    Resource {
        name: "memory_reservation",
        pointer: "memory",
        value: || json!({ "limit": 100 << 20, "reservation": 50 << 20 }),
        v1: ("memory", "memory.soft_limit_in_bytes", "52428800"),
        v2: ("memory.low", "52428800"),
    },
    Resource {
        name: "memory_swap",
        pointer: "memory",
        value: || json!({ "limit": 100 << 20, "swap": 150 << 20 }),
        v1: ("memory", "memory.memsw.limit_in_bytes", "157286400"),
        v2: ("memory.swap.max", "52428800"),
    },
    Resource {
        name: "memory_unlimited",
        pointer: "memory",
        value: || json!({ "limit": -1 }),
        v1: ("memory", "memory.limit_in_bytes", "9223372036854771712"),
        v2: ("memory.max", "max"),
    },
    Resource {
        name: "memory_swappiness",
        pointer: "memory",
        value: || json!({ "swappiness": 33 }),
        v1: ("memory", "memory.swappiness", "33"),
        v2: ("", ""),
    },
    Resource {
        name: "pids_limit",
        pointer: "pids",
        value: || json!({ "limit": 33 }),
        v1: ("pids", "pids.max", "33"),
        v2: ("pids.max", "33"),
    },
    Resource {
        name: "cpu_shares",
        pointer: "cpu",
        // On v2 runtimes agree at the ends of the scale; between them there is an older and a newer curve.
        value: || json!({ "shares": 262_144 }),
        v1: ("cpu", "cpu.shares", "262144"),
        v2: ("cpu.weight", "10000"),
    },
    Resource {
        name: "cpu_shares_least",
        pointer: "cpu",
        value: || json!({ "shares": 2 }),
        v1: ("cpu", "cpu.shares", "2"),
        v2: ("cpu.weight", "1"),
    },
    Resource {
        name: "cpu_quota",
        pointer: "cpu",
        value: || json!({ "quota": 50000, "period": 200000 }),
        v1: ("cpu", "cpu.cfs_quota_us", "50000"),
        v2: ("cpu.max", "50000 200000"),
    },
    Resource {
        name: "cpu_period",
        pointer: "cpu",
        value: || json!({ "quota": 50000, "period": 200000 }),
        v1: ("cpu", "cpu.cfs_period_us", "200000"),
        v2: ("cpu.max", "50000 200000"),
    },
    Resource {
        name: "cpu_burst",
        pointer: "cpu",
        value: || json!({ "quota": 50000, "period": 200000, "burst": 20000 }),
        v1: ("cpu", "cpu.cfs_burst_us", "20000"),
        v2: ("cpu.max.burst", "20000"),
    },
    Resource {
        name: "cpu_idle",
        pointer: "cpu",
        value: || json!({ "idle": 1 }),
        v1: ("cpu", "cpu.idle", "1"),
        v2: ("cpu.idle", "1"),
    },
    Resource {
        name: "cpuset_cpus",
        pointer: "cpu",
        value: || json!({ "cpus": "0", "mems": "0" }),
        v1: ("cpuset", "cpuset.cpus", "0"),
        v2: ("cpuset.cpus", "0"),
    },
    Resource {
        name: "cpuset_mems",
        pointer: "cpu",
        value: || json!({ "cpus": "0", "mems": "0" }),
        v1: ("cpuset", "cpuset.mems", "0"),
        v2: ("cpuset.mems", "0"),
    },
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "cgroups",
        path_absolute "config-linux.md#cgroups-path",
        path_relative "config-linux.md#cgroups-path",
        path_absent "config-linux.md#cgroups-path",
        path_climbing_stays_inside "config-linux.md#cgroups-path",
        path_given_twice_is_one_place "config-linux.md#cgroups-path",
        unified_without_v2_is_refused "config-linux.md#unified",
        unified_writes_unknown_files "config-linux.md#unified",
        unified_of_an_absent_controller_is_refused "config-linux.md#unified",
        path_is_removed_by_delete "config-linux.md#cgroups-path",
        pids_limit_holds "config-linux.md#pids",
        memory_limit_holds "config-linux.md#memory",
        value_refused_by_the_kernel_leaves_nothing "config-linux.md#control-groups",
        devices_denied_by_default "config-linux.md#allowed-device-list",
        devices_allowed_by_rule "config-linux.md#allowed-device-list",
        devices_access_read_only "config-linux.md#allowed-device-list",
        devices_wildcard_minor "config-linux.md#allowed-device-list",
        devices_later_rule_wins "config-linux.md#allowed-device-list",
        devices_default_ones_stay_allowed "config-linux.md#allowed-device-list",
        update_by_flags "runc: update",
        update_by_resources "runc: update --resources",
    );
    checks.extend(RESOURCES.iter().map(|row| {
        Check::new(format!("cgroups::{}", row.name), "config-linux.md#control-groups", move |lab: &mut Lab| {
            lab.set(&format!("/linux/resources/{}", row.pointer), (row.value)());
            lab.args(&["sleep", "100"]).create()?;
            let (controller, file, want) = match row {
                _ if !v2() => row.v1,
                Resource { v2: ("", _), .. } => return Ok(()),
                _ => ("", row.v2.0, row.v2.1),
            };
            same!(value(lab, controller, file)?, want, "{file}");
            Ok(())
        })
    }));
    checks
}

fn value(lab: &Lab, controller: &str, file: &str) -> Result<String, Failure> {
    let path = lab.cgroup(controller)?.join(file);
    let text = fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(text.trim_end().to_owned())
}

fn pids_controller() -> &'static str {
    if v2() { "" } else { "pids" }
}

/// The path that /proc gives for the container's process in the pids hierarchy.
fn membership(lab: &Lab) -> Result<String, Failure> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid()?))?;
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == pids_controller()).then_some(path)
    });
    path.map(str::to_owned).ok_or_else(|| Failure(format!("no pids hierarchy: {text}")))
}

fn path_absolute(lab: &mut Lab) -> Outcome {
    let path = format!("/{}/deep/er", lab.id);
    lab.set("/linux/cgroupsPath", path.clone()).args(&["sleep", "100"]).create()?;
    same!(membership(lab)?, path, "cgroup");
    lab.verb("delete", &["-f"]).go()?.ok("delete")?;
    // The parents may be left: they may be another's.
    let top = std::path::Path::new("/sys/fs/cgroup");
    ensure!(!top.join(pids_controller()).join(path.trim_start_matches('/')).exists(), "the cgroup is left");
    for cgroup in lab.cgroups() {
        fs::remove_dir(cgroup.join("deep"))
            .or_else(|error| if cgroup.join("deep").exists() { Err(error) } else { Ok(()) })?;
        fs::remove_dir(cgroup)?;
    }
    Ok(())
}

fn path_relative(lab: &mut Lab) -> Outcome {
    let path = format!("rel-{}", lab.id);
    lab.set("/linux/cgroupsPath", path.clone()).args(&["sleep", "100"]).create()?;
    let first = membership(lab)?;
    ensure!(first.ends_with(&format!("/{path}")), "cgroup: {first}");
    lab.verb("delete", &["-f"]).go()?.ok("delete")?;
    lab.create()?;
    same!(membership(lab)?, first, "cgroup the second time");
    Ok(())
}

fn path_absent(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let path = membership(lab)?;
    ensure!(path.contains(&lab.id), "cgroup: {path}");
    Ok(())
}

fn path_climbing_stays_inside(lab: &mut Lab) -> Outcome {
    let outside = std::path::Path::new("/tmp").join(&lab.id);
    // Accepted or refused, with the cgroup anywhere inside the tree.
    lab.set("/linux/cgroupsPath", format!("../../../../../../..{}", outside.display())).args(&["true"]).run()?;
    for cgroup in lab.cgroups() {
        fs::remove_dir(&cgroup)?;
        // Its parent was made with it, and `run` removes the container's own alone. Another check may use it by now.
        let _ = cgroup.parent().filter(|parent| parent.ends_with("tmp")).map(fs::remove_dir);
    }
    if outside.exists() {
        fs::remove_dir_all(outside)?;
        return Err(Failure("a directory was made outside the cgroup tree".into()));
    }
    Ok(())
}

fn path_is_removed_by_delete(lab: &mut Lab) -> Outcome {
    lab.set("/linux/cgroupsPath", format!("/{}", lab.id)).up("true")?;
    lab.wait_for("stopped")?;
    ensure!(!lab.cgroups().is_empty(), "no cgroup before delete");
    lab.verb("delete", &[]).go()?.ok("delete")?;
    lab.nothing_left("delete")
}

fn pids_limit_holds(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/pids", json!({ "limit": 12 }));
    let script = "for i in $(seq 40); do sleep 9 & done 2>/dev/null; true";
    let out = lab.sh(script).run()?;
    ensure!(out.code != 0 || out.stderr.contains("fork"), "forty processes run under a limit of twelve: {out:?}");
    Ok(())
}

fn memory_limit_holds(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/memory", json!({ "limit": 24 << 20, "swap": 24 << 20 }));
    let out = lab.sh("dd if=/dev/zero of=/dev/shm/f bs=1M count=40").run()?;
    ensure!(out.code != 0, "forty megabytes fit under a limit of twenty-four");
    Ok(())
}

fn value_refused_by_the_kernel_leaves_nothing(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/resources/cpu", json!({ "cpus": "4095", "mems": "0" }));
    })?;
    lab.remove("/linux/resources/cpu");
    // More than the kernel has pids for: a controller that every host has takes the file's write, and refuses it.
    lab.refused(|lab| {
        lab.set("/linux/resources/pids", json!({ "limit": 1_i64 << 40 }));
    })?;
    Ok(())
}

/// A character device that no driver serves: open says ENXIO if the rules allow it and EPERM if they do not.
fn opened(lab: &mut Lab, rules: Value) -> Result<[String; 2], Failure> {
    lab.set("/linux/resources/devices", rules);
    let node = json!({ "path": "/dev/none", "type": "c", "major": 241, "minor": 77, "fileMode": 0o666 });
    lab.set("/linux/devices", json!([node]));
    let out = lab.sh("cat < /dev/none; true > /dev/none; true").run()?;
    let mut lines = out.stderr.lines().map(|line| match line {
        _ if line.contains("Operation not permitted") => "denied".to_owned(),
        _ if line.contains("No such device or address") => "allowed".to_owned(),
        other => other.to_owned(),
    });
    let read = lines.next().unwrap_or_default();
    Ok([read, lines.next().unwrap_or_default()])
}

fn devices_denied_by_default(lab: &mut Lab) -> Outcome {
    same!(
        opened(lab, json!([{ "allow": false, "access": "rwm" }]))?,
        ["denied", "denied"],
        "open for reading, writing"
    );
    Ok(())
}

fn devices_allowed_by_rule(lab: &mut Lab) -> Outcome {
    let rules = json!([{ "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 241, "minor": 77, "access": "rw" }]);
    same!(opened(lab, rules)?, ["allowed", "allowed"], "open for reading, writing");
    Ok(())
}

fn devices_access_read_only(lab: &mut Lab) -> Outcome {
    let rules = json!([{ "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 241, "minor": 77, "access": "r" }]);
    same!(opened(lab, rules)?, ["allowed", "denied"], "open for reading, writing");
    Ok(())
}

fn devices_wildcard_minor(lab: &mut Lab) -> Outcome {
    let rules =
        json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 241, "access": "w" }]);
    same!(opened(lab, rules)?, ["denied", "allowed"], "open for reading, writing");
    Ok(())
}

fn devices_later_rule_wins(lab: &mut Lab) -> Outcome {
    let rules = json!([{ "allow": true, "access": "rwm" },
        { "allow": false, "type": "c", "major": 241, "minor": 77, "access": "w" }]);
    same!(opened(lab, rules)?, ["allowed", "denied"], "open for reading, writing");
    Ok(())
}

fn devices_default_ones_stay_allowed(lab: &mut Lab) -> Outcome {
    lab.run_sh("for d in null zero full random urandom; do head -c 0 < /dev/$d || exit 1; done; : > /dev/null")?;
    Ok(())
}

fn update_by_flags(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.call(&["update", "--pids-limit", "44", "--memory", "64M", &lab.id]).go()?.ok("update")?;
    same!(value(lab, pids_controller(), "pids.max")?, "44", "pids.max");
    let (controller, file) = if v2() { ("", "memory.max") } else { ("memory", "memory.limit_in_bytes") };
    same!(value(lab, controller, file)?, "67108864", "{file}");
    Ok(())
}

fn update_by_resources(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let call = lab.call(&["update", "--resources", "-", &lab.id]);
    call.stdin("{\"pids\": {\"limit\": 45}}").go()?.ok("update")?;
    same!(value(lab, pids_controller(), "pids.max")?, "45", "pids.max");
    Ok(())
}

fn path_given_twice_is_one_place(lab: &mut Lab) -> Outcome {
    for path in [format!("/{}-absolute", lab.id), format!("{}-relative", lab.id)] {
        lab.set("/linux/cgroupsPath", path.clone());
        let place = |lab: &mut Lab| -> Result<String, crate::check::Failure> {
            lab.args(&["sleep", "100"]).create()?;
            let text = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid()?))?;
            lab.verb("delete", &["--force"]).go()?.ok("delete")?;
            Ok(text)
        };
        let first = place(lab)?;
        ensure!(first.contains(path.trim_start_matches('/')), "{path} is not in {first}");
        same!(place(lab)?, first, "cgroups of the second container");
    }
    Ok(())
}

fn unified_without_v2_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/resources/unified", json!({ "memory.high": "1073741824" }));
    })?;
    Ok(())
}

fn unified_writes_unknown_files(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/unified", json!({ "cgroup.max.descendants": "7" }));
    lab.args(&["sleep", "100"]).create()?;
    let read = |path: &std::path::PathBuf| fs::read_to_string(path.join("cgroup.max.descendants")).unwrap_or_default();
    ensure!(lab.cgroups().iter().any(|path| read(path) == "7\n"), "cgroup.max.descendants is not 7");
    Ok(())
}

fn unified_of_an_absent_controller_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/resources/unified", json!({ "nosuch.max": "1" }));
    })?;
    Ok(())
}
