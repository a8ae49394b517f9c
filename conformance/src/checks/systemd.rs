//! systemd as the manager of cgroups: `--systemd-cgroup`, what systemd then knows of the container, and no manager at all.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::needs::v2;
use crate::runtime::{Lab, Out, wait_until};

/// A limit, and the property of the unit that shows it: its name on v1 (empty: it has none) and on v2, and its value.
struct Limit {
    name: &'static str,
    pointer: &'static str,
    value: fn() -> Value,
    v1: &'static str,
    v2: &'static str,
    want: &'static str,
}

const LIMITS: &[Limit] = &[
    Limit {
        name: "memory_limit",
        pointer: "memory",
        value: || json!({ "limit": 64 << 20 }),
        v1: "MemoryLimit",
        v2: "MemoryMax",
        want: "67108864",
    },
    Limit {
        name: "memory_reservation",
        pointer: "memory",
        value: || json!({ "limit": 64 << 20, "reservation": 32 << 20 }),
        v1: "",
        v2: "MemoryLow",
        want: "33554432",
    },
    Limit {
        name: "memory_swap",
        pointer: "memory",
        value: || json!({ "limit": 64 << 20, "swap": 96 << 20 }),
        v1: "",
        v2: "MemorySwapMax",
        want: "33554432",
    },
    Limit {
        name: "pids_limit",
        pointer: "pids",
        value: || json!({ "limit": 33 }),
        v1: "TasksMax",
        v2: "TasksMax",
        want: "33",
    },
    Limit {
        name: "cpu_quota",
        pointer: "cpu",
        value: || json!({ "quota": 50000, "period": 200_000 }),
        v1: "CPUQuotaPerSecUSec",
        v2: "CPUQuotaPerSecUSec",
        want: "250ms",
    },
    Limit {
        name: "cpu_period",
        pointer: "cpu",
        value: || json!({ "quota": 50000, "period": 200_000 }),
        v1: "CPUQuotaPeriodUSec",
        v2: "CPUQuotaPeriodUSec",
        want: "200ms",
    },
    Limit {
        name: "cpu_shares",
        pointer: "cpu",
        value: || json!({ "shares": 262_144 }),
        v1: "",
        v2: "CPUWeight",
        want: "10000",
    },
    Limit {
        name: "unified",
        pointer: "unified",
        value: || json!({ "memory.high": "50331648" }),
        v1: "",
        v2: "MemoryHigh",
        want: "50331648",
    },
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "systemd",
        scope_lies_in_its_slice "runc: --systemd-cgroup",
        slices_nest_by_their_dashes "runc: --systemd-cgroup",
        path_absent_is_a_scope_of_the_id "runc: --systemd-cgroup",
        path_of_another_form_is_refused "runc: --systemd-cgroup",
        init_and_exec_are_in_the_scope "runc: --systemd-cgroup",
        update_changes_the_unit "runc: update",
        limits_outlive_a_daemon_reload "runc: --systemd-cgroup",
        pause_and_resume "runc: pause",
        delete_stops_the_unit "runc: delete",
        a_refused_create_leaves_no_unit "runc: --systemd-cgroup",
        a_failed_scope_of_the_name_is_replaced "runc: --systemd-cgroup",
        a_running_scope_of_the_name_is_refused "runc: --systemd-cgroup",
        annotations_are_properties "runc: org.systemd.property",
        annotations_in_seconds "runc: org.systemd.property",
        annotation_that_is_no_value_is_refused "runc: org.systemd.property",
        annotation_of_an_unknown_property_is_refused "runc: org.systemd.property",
        devices_outlive_a_daemon_reload "config-linux.md#allowed-device-list",
        subgroup_by_annotation "crun: run.oci.systemd.subgroup",
    );
    checks.extend(LIMITS.iter().map(|limit| {
        let name = format!("systemd::{}", limit.name);
        Check::new(name, "config-linux.md#control-groups", move |lab: &mut Lab| shown(lab, limit))
    }));
    // What follows needs no systemd.
    checks.extend(checks!(
        "cgroup_manager",
        disabled_makes_no_cgroup "crun: --cgroup-manager",
        disabled_knows_no_pause "crun: --cgroup-manager",
        delegated_cgroup_by_annotation "crun: run.oci.delegate-cgroup",
    ));
    checks.append(&mut own_checks!(
        "cgroup_manager",
        disabled_refuses_limits "orlop: --cgroup-manager",
        disabled_tells_of_device_rules "orlop: --cgroup-manager",
    ));
    checks
}

const SYSTEMD: &[&str] = &["--systemd-cgroup"];
const DISABLED: &[&str] = &["--cgroup-manager", "disabled"];
const WAITS: &[&str] = &["sleep", "100"];

fn scope(lab: &Lab) -> String {
    format!("check-{}.scope", lab.id)
}

/// A container by systemd, in [`scope`].
fn create(lab: &mut Lab) -> Outcome {
    lab.set("/linux/cgroupsPath", format!("system.slice:check:{}", lab.id)).args(WAITS);
    try_create(lab)?.ok("create")?;
    Ok(())
}

fn try_create(lab: &Lab) -> Result<Out, Failure> {
    lab.write()?;
    lab.verb("create", &[]).global(SYSTEMD).go()
}

fn systemctl(words: &[&str]) -> Result<String, Failure> {
    let out = Command::new("systemctl").args(words).output()?;
    ensure!(out.status.success(), "systemctl {words:?}: {}", String::from_utf8_lossy(&out.stderr).trim_end());
    Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}

fn property(unit: &str, name: &str) -> Result<String, Failure> {
    systemctl(&["show", "--value", "--property", name, unit])
}

fn is(unit: &str, name: &str, want: &str) -> Outcome {
    same!(property(unit, name)?, want, "{name} of {unit}");
    Ok(())
}

/// The file of the container's own cgroup, v1: that of the controller.
fn file(lab: &Lab, controller: &str, name: &str) -> Result<String, Failure> {
    let path = lab.cgroup(if v2() { "" } else { controller })?.join(name);
    let text = fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(text.trim_end().to_owned())
}

/// The path of a process in the tree that systemd keeps.
fn membership(text: &str) -> Result<String, Failure> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path)));
    line.map(str::to_owned).ok_or_else(|| Failure(format!("no tree of systemd's: {text}")))
}

fn place_of_init(lab: &Lab) -> Result<String, Failure> {
    membership(&fs::read_to_string(format!("/proc/{}/cgroup", lab.pid()?))?)
}

fn init_is_in(lab: &Lab, want: &str) -> Outcome {
    same!(place_of_init(lab)?, want, "cgroup of the init");
    Ok(())
}

/// In the scope or below it: crun's default is a cgroup below.
fn below(path: &str, scope: &str) -> Outcome {
    let rest = path.strip_prefix(scope);
    ensure!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "cgroup: {path:?} is not in {scope:?}");
    Ok(())
}

fn gone(unit: &str) -> Outcome {
    wait_until(&format!("{unit} is still there"), || Ok(property(unit, "LoadState")? == "not-found"))
}

fn shown(lab: &mut Lab, limit: &Limit) -> Outcome {
    lab.set(&format!("/linux/resources/{}", limit.pointer), (limit.value)());
    if !v2() && limit.name == "unified" {
        return Ok(());
    }
    create(lab)?;
    match if v2() { limit.v2 } else { limit.v1 } {
        "" => Ok(()),
        name => is(&scope(lab), name, limit.want),
    }
}

fn scope_lies_in_its_slice(lab: &mut Lab) -> Outcome {
    create(lab)?;
    let unit = scope(lab);
    is(&unit, "Slice", "system.slice")?;
    is(&unit, "ActiveState", "active")?;
    is(&unit, "Delegate", "yes")?;
    is(&unit, "ControlGroup", &format!("/system.slice/{unit}"))?;
    Ok(())
}

fn slices_nest_by_their_dashes(lab: &mut Lab) -> Outcome {
    // The id has a dash itself.
    let top = lab.id.replace('-', "_");
    lab.set("/linux/cgroupsPath", format!("{top}-in.slice:check:{}", lab.id)).args(WAITS);
    let made = try_create(lab)?.ok("create");
    let place = made.and_then(|_| below(&place_of_init(lab)?, &format!("/{top}.slice/{top}-in.slice/{}", scope(lab))));
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    systemctl(&["stop", &format!("{top}-in.slice"), &format!("{top}.slice")])?;
    place
}

fn path_absent_is_a_scope_of_the_id(lab: &mut Lab) -> Outcome {
    lab.args(WAITS);
    try_create(lab)?.ok("create")?;
    let path = place_of_init(lab)?;
    ensure!(path.starts_with("/system.slice/") && path.contains(&format!("-{}.scope", lab.id)), "cgroup: {path}");
    Ok(())
}

fn path_of_another_form_is_refused(lab: &mut Lab) -> Outcome {
    create(lab)?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    lab.set("/linux/cgroupsPath", format!("/check/{}", lab.id));
    try_create(lab)?.fails_with("slice:prefix:name", "create")?;
    lab.nothing_left("a refused create")
}

fn init_and_exec_are_in_the_scope(lab: &mut Lab) -> Outcome {
    lab.without_namespace("cgroup");
    create(lab)?;
    lab.start()?;
    let want = format!("/system.slice/{}", scope(lab));
    below(&place_of_init(lab)?, &want)?;
    let seen = lab.exec(&[], &["cat", "/proc/self/cgroup"])?.ok("exec")?.stdout;
    below(&membership(&seen)?, &want)
}

fn update_changes_the_unit(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/pids", json!({ "limit": 40 }));
    create(lab)?;
    lab.start()?;
    let unit = scope(lab);
    is(&unit, "TasksMax", "40")?;
    let flags = ["--pids-limit", "41", "--memory", "64M", "--cpu-quota", "50000", "--cpu-period", "100000"];
    lab.verb("update", &flags).go()?.ok("update")?;
    is(&unit, "TasksMax", "41")?;
    is(&unit, if v2() { "MemoryMax" } else { "MemoryLimit" }, "67108864")?;
    is(&unit, "CPUQuotaPerSecUSec", "500ms")?;
    same!(file(lab, "pids", "pids.max")?, "41", "pids.max");
    // A second one keeps what it does not name.
    lab.verb("update", &["--pids-limit", "42"]).go()?.ok("update")?;
    is(&unit, "TasksMax", "42")?;
    is(&unit, "CPUQuotaPerSecUSec", "500ms")
}

fn limits_outlive_a_daemon_reload(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/pids", json!({ "limit": 40 }));
    create(lab)?;
    lab.verb("update", &["--pids-limit", "41"]).go()?.ok("update")?;
    systemctl(&["daemon-reload"])?;
    same!(file(lab, "pids", "pids.max")?, "41", "pids.max");
    is(&scope(lab), "TasksMax", "41")
}

fn pause_and_resume(lab: &mut Lab) -> Outcome {
    create(lab)?;
    lab.start()?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    same!(lab.status()?, "paused", "status");
    lab.verb("resume", &[]).go()?.ok("resume")?;
    same!(lab.status()?, "running", "status");
    is(&scope(lab), "ActiveState", "active")
}

fn delete_stops_the_unit(lab: &mut Lab) -> Outcome {
    create(lab)?;
    is(&scope(lab), "LoadState", "loaded")?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    gone(&scope(lab))?;
    // And after an end of its own.
    lab.args(&["true"]);
    try_create(lab)?.ok("create")?;
    lab.start()?;
    lab.wait_for("stopped")?;
    lab.verb("delete", &[]).go()?.ok("delete")?;
    gone(&scope(lab))
}

fn a_refused_create_leaves_no_unit(lab: &mut Lab) -> Outcome {
    create(lab)?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    // Found wrong by the init, when the unit stands already.
    lab.mount("/mnt", "tmpfs", "tmpfs", &["nosuchoption=1"]);
    let out = try_create(lab)?;
    ensure!(out.code != 0, "create accepts it");
    gone(&scope(lab))?;
    lab.nothing_left("a refused create")
}

/// A unit that is none of the runtime's.
fn another(unit: &str, words: &[&str]) -> Result<Child, Failure> {
    let name = format!("--unit={unit}");
    let mut command = Command::new("systemd-run");
    command.args(["--scope", "--quiet", &name]).args(words).args(WAITS);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn a_failed_scope_of_the_name_is_replaced(lab: &mut Lab) -> Outcome {
    let unit = scope(lab);
    let mut other = another(&unit, &["--property=RuntimeMaxSec=200ms"])?;
    let failed = wait_until("the scope has not failed", || Ok(property(&unit, "ActiveState")? == "failed"));
    other.kill()?;
    other.wait()?;
    failed?;
    create(lab)?;
    is(&unit, "ActiveState", "active")?;
    below(&place_of_init(lab)?, &format!("/system.slice/{unit}"))
}

fn a_running_scope_of_the_name_is_refused(lab: &mut Lab) -> Outcome {
    let unit = scope(lab);
    let mut other = another(&unit, &[])?;
    let verdict =
        wait_until("the scope is not active", || Ok(property(&unit, "ActiveState")? == "active")).and_then(|()| {
            lab.set("/linux/cgroupsPath", format!("system.slice:check:{}", lab.id)).args(WAITS);
            let out = try_create(lab)?;
            ensure!(out.code != 0, "create takes over a scope that another process is in");
            ensure!(other.try_wait()?.is_none(), "the process of the other scope is dead");
            ensure!(!lab.state_dir().exists(), "a refused create leaves the state directory");
            is(&unit, "ActiveState", "active")
        });
    other.kill()?;
    other.wait()?;
    gone(&unit)?;
    verdict
}

fn annotations_are_properties(lab: &mut Lab) -> Outcome {
    lab.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
        }),
    );
    create(lab)?;
    is(&scope(lab), "TimeoutStopUSec", "7s")?;
    is(&scope(lab), "CollectMode", "inactive-or-failed")
}

fn annotations_in_seconds(lab: &mut Lab) -> Outcome {
    lab.set("/annotations", json!({ "org.systemd.property.TimeoutStopSec": "int32 8" }));
    create(lab)?;
    is(&scope(lab), "TimeoutStopUSec", "8s")
}

fn refused_annotation(lab: &mut Lab, name: &str, value: &str) -> Outcome {
    create(lab)?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    lab.set("/annotations", json!({ name: value }));
    let out = try_create(lab)?;
    ensure!(out.code != 0, "create accepts it");
    ensure!(!out.stderr.trim().is_empty(), "create fails without a word");
    gone(&scope(lab))?;
    lab.nothing_left("a refused create")
}

fn annotation_that_is_no_value_is_refused(lab: &mut Lab) -> Outcome {
    refused_annotation(lab, "org.systemd.property.CollectMode", "no 'value")
}

fn annotation_of_an_unknown_property_is_refused(lab: &mut Lab) -> Outcome {
    refused_annotation(lab, "org.systemd.property.NoSuchThing", "true")
}

fn devices_outlive_a_daemon_reload(lab: &mut Lab) -> Outcome {
    // The first may be opened for writing; who may open the second finds no driver.
    lab.set("/linux/devices/-", json!({ "path": "/dev/logged", "type": "c", "major": 1, "minor": 11 }));
    lab.set("/linux/devices/-", json!({ "path": "/dev/denied", "type": "c", "major": 10, "minor": 254 }));
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "w" });
    lab.set("/linux/resources/devices/-", rule);
    create(lab)?;
    lab.start()?;
    let holds = |lab: &Lab, when: &str| {
        lab.exec(&[], &["sh", "-c", "exec 3>/dev/logged"])?.ok(&format!("opening the allowed device {when}"))?;
        let denied = lab.exec(&[], &["sh", "-c", "exec 3</dev/denied"])?;
        ensure!(denied.stderr.contains("not permitted"), "the denied device {when}: {}", denied.stderr.trim_end());
        Ok(())
    };
    holds(lab, "at first")?;
    systemctl(&["daemon-reload"])?;
    holds(lab, "after a daemon-reload")?;
    lab.verb("update", &["--pids-limit", "50"]).go()?.ok("update")?;
    holds(lab, "after an update")
}

fn subgroup_by_annotation(lab: &mut Lab) -> Outcome {
    lab.set("/annotations", json!({ "run.oci.systemd.subgroup": "inside" }));
    create(lab)?;
    init_is_in(lab, &format!("/system.slice/{}/inside", scope(lab)))?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    gone(&scope(lab))
}

fn delegated_cgroup_by_annotation(lab: &mut Lab) -> Outcome {
    lab.set("/linux/cgroupsPath", format!("/{}", lab.id)).args(WAITS);
    lab.set("/annotations", json!({ "run.oci.delegate-cgroup": "given" })).create()?;
    let id = lab.id.clone();
    init_is_in(lab, &format!("/{id}/given"))
}

/// A container without a manager; its caller's cgroups.
fn disabled(lab: &mut Lab) -> Result<Out, Failure> {
    lab.args(WAITS).write()?;
    lab.verb("create", &[]).global(DISABLED).go()
}

fn disabled_makes_no_cgroup(lab: &mut Lab) -> Outcome {
    disabled(lab)?.ok("create")?;
    let made = lab.cgroups();
    ensure!(made.is_empty(), "it has made {made:?}");
    let of = |pid: &str| fs::read_to_string(Path::new("/proc").join(pid).join("cgroup"));
    same!(of(&lab.pid()?.to_string())?, of("self")?, "cgroups of the init");
    lab.start()?;
    lab.exec(&[], &["true"])?.ok("exec")?;
    lab.stop()?;
    lab.verb("delete", &[]).go()?.ok("delete")?;
    Ok(())
}

fn disabled_knows_no_pause(lab: &mut Lab) -> Outcome {
    disabled(lab)?.ok("create")?;
    lab.start()?;
    ensure!(lab.verb("pause", &[]).go()?.code != 0, "pause of a container without a cgroup of its own");
    same!(lab.status()?, "running", "status");
    Ok(())
}

fn disabled_refuses_limits(lab: &mut Lab) -> Outcome {
    disabled(lab)?.ok("create")?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    lab.set("/linux/resources/pids", json!({ "limit": 40 }));
    disabled(lab)?.fails_with("linux.resources.pids.limit: cannot be limited without cgroups", "create")?;
    lab.nothing_left("a refused create")
}

fn disabled_tells_of_device_rules(lab: &mut Lab) -> Outcome {
    let told = |out: &Out| out.stderr.contains("linux.resources.devices: ");
    ensure!(told(&disabled(lab)?.ok("create")?), "device rules are dropped without a word");
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    lab.set("/linux/resources/devices", json!([{ "allow": true, "access": "rwm" }]));
    ensure!(!told(&disabled(lab)?.ok("create")?), "a warning of rules that deny nothing");
    Ok(())
}
