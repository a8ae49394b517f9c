//! `events`: one JSON object a line, in runc's schema; and `features`, the JSON of features.md.

use std::fs;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::runtime::{Lab, Out, wait_until};

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "events",
        stats_is_one_object "runc: events --stats",
        stats_has_every_part "runc: events --stats",
        stats_tells_of_limits "runc: events --stats",
        stats_counts_cpu_time "runc: events --stats",
        interval "runc: events --interval",
        interval_must_be_positive "runc: events --interval",
        interval_must_be_a_duration "runc: events --interval",
        oom "runc: events",
        of_stopped_fails "runc: events",
        of_unknown_id_fails "runc: events",
    );
    checks.append(&mut own_checks!(
        "events",
        ends_with_the_container "runc: events",
        stats_has_the_containers_interfaces "runc: events --stats",
    ));
    checks.append(&mut checks!(
        "features",
        fields "features.md",
        lists_are_of_names "features.md",
        supported_flags_are_known_ones "features.md#seccomp",
        says_nothing_else "runc: features",
    ));
    checks
}

fn stats(lab: &Lab) -> Result<Value, Failure> {
    let text = lab.verb("events", &["--stats"]).go()?.ok("events --stats")?.stdout;
    same!(text.lines().count(), 1, "lines of events --stats");
    Ok(serde_json::from_str(&text)?)
}

fn stats_is_one_object(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let text = lab.verb("events", &["--stats"]).go()?.ok("events --stats")?.stdout;
    let begin = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{", lab.id);
    ensure!(text.starts_with(&begin) && text.ends_with("}}\n"), "not one line in runc's order: {text}");
    Ok(())
}

/// The fields that runc never leaves out.
const ALWAYS: &[&str] = &[
    "/cpu/usage/kernel",
    "/cpu/usage/user",
    "/cpu/usage/total",
    "/cpuset/cpu_exclusive",
    "/cpuset/mem_exclusive",
    "/cpuset/mem_hardwall",
    "/cpuset/memory_migrate",
    "/cpuset/memory_pressure",
    "/cpuset/memory_spread_page",
    "/cpuset/memory_spread_slab",
    "/cpuset/sched_load_balance",
    "/cpuset/sched_relax_domain_level",
    "/memory/usage/limit",
    "/memory/usage/usage",
    "/memory/usage/failcnt",
    "/memory/swap/limit",
    "/memory/raw/pgfault",
    "/pids/current",
    "/blkio",
    "/hugetlb",
    "/intel_rdt",
    "/network_interfaces",
];

fn stats_has_every_part(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let data = stats(lab)?["data"].take();
    for pointer in ALWAYS {
        ensure!(data.pointer(pointer).is_some(), "no {pointer} in {data}");
    }
    let unknown: Vec<&String> = data
        .as_object()
        .into_iter()
        .flat_map(|all| all.keys())
        .filter(|key| !ALWAYS.iter().any(|pointer| pointer.split('/').nth(1) == Some(key)))
        .collect();
    ensure!(unknown.is_empty(), "parts that runc has not: {unknown:?}");
    Ok(())
}

fn stats_tells_of_limits(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/memory", json!({ "limit": 100 << 20, "swap": 150 << 20 }));
    lab.set("/linux/resources/pids", json!({ "limit": 20 }));
    lab.up_idle()?;
    let data = stats(lab)?["data"].take();
    same!(data["memory"]["usage"]["limit"], 100 << 20, "the limit of memory");
    same!(data["memory"]["swap"]["limit"], 150 << 20, "the limit of memory and swap");
    same!(data["pids"]["limit"], 20, "the limit of processes");
    // The shell, and the sleep that it has made.
    wait_until("it has not two processes", || Ok(stats(lab)?["data"]["pids"]["current"] == 2))
}

fn stats_counts_cpu_time(lab: &mut Lab) -> Outcome {
    lab.up("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 100")?;
    wait_until("the container has not counted", || Ok(lab.output() == "done\n"))?;
    let usage = stats(lab)?["data"]["cpu"]["usage"].take();
    let total = usage["total"].as_u64().unwrap_or_default();
    ensure!((1_000_000..60_000_000_000).contains(&total), "not nanoseconds: {usage}");
    Ok(())
}

/// What `events` writes until the container, which `then` ends, is deleted.
fn watched(lab: &Lab, options: &[&str], then: impl FnOnce() -> Outcome) -> Result<Out, Failure> {
    thread::scope(|scope| {
        let watcher = scope.spawn(|| lab.verb("events", options).go());
        let done = then();
        let deleted = lab.verb("delete", &["--force"]).go();
        let out = watcher.join().map_err(|_| Failure("the watcher panicked".into()))?;
        done?;
        deleted?.ok("delete --force")?;
        out
    })
}

/// Waits until a call that has not ended yet has written this many events.
fn events_written(lab: &Lab, number: usize) -> Outcome {
    let written = || -> Option<usize> {
        let files = fs::read_dir(lab.dir.join("io")).ok()?.flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.filter(|text| text.starts_with("{\"type\":")).map(|text| text.lines().count()).max()
    };
    wait_until("too few events", || Ok(written() >= Some(number)))
}

fn interval(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let began = Instant::now();
    let out = watched(lab, &["--interval", "100ms"], || events_written(lab, 4))?.ok("events")?;
    let (lines, took) = (out.stdout.lines().count(), began.elapsed());
    ensure!(lines as u128 <= 1 + took.as_millis() / 100, "{lines} lines in {took:?}, every 100 ms: {}", out.stdout);
    for line in out.stdout.lines() {
        let event: Value = serde_json::from_str(line)?;
        same!(event["type"], "stats", "type");
        same!(event["id"], *lab.id, "id");
    }
    Ok(())
}

fn interval_must_be_positive(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for interval in ["0", "0s", "-1s"] {
        let option = format!("--interval={interval}");
        lab.verb("events", &[&option]).go()?.fails_with("interval must be greater than 0", interval)?;
    }
    Ok(())
}

fn interval_must_be_a_duration(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for interval in ["5", "fast", "1s2"] {
        lab.verb("events", &["--interval", interval]).go()?.fails_with("-interval: parse error", interval)?;
    }
    for interval in ["1m30s", "1.5h", "250us"] {
        lab.verb("events", &["--stats", "--interval", interval]).go()?.ok(interval)?;
    }
    Ok(())
}

fn oom(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/memory", json!({ "limit": 32 << 20, "swap": 32 << 20 }));
    lab.up("while :; do sleep 0.3; dd if=/dev/zero of=/dev/null bs=100M count=1; done")?;
    let out = watched(lab, &["--interval", "1h"], || events_written(lab, 1))?.ok("events")?;
    let first = out.stdout.lines().next().unwrap_or_default();
    same!(first, format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", lab.id), "first event");
    Ok(())
}

fn of_stopped_fails(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.stop()?;
    for options in [&["--stats"][..], &[]] {
        lab.verb("events", options).go()?.fails_with("is not running", "events of a stopped container")?;
    }
    Ok(())
}

fn of_unknown_id_fails(lab: &mut Lab) -> Outcome {
    lab.verb("events", &[]).go()?.fails_with("container does not exist", "events").map(|_| ())
}

fn ends_with_the_container(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let out = thread::scope(|scope| {
        let watcher = scope.spawn(|| lab.verb("events", &["--interval", "100ms"]).go());
        let stopped = events_written(lab, 2).and_then(|()| lab.stop());
        let out = watcher.join().map_err(|_| Failure("the watcher panicked".into()))?;
        stopped.and(out)
    })?
    .ok("events")?;
    same!(out.stderr, "", "stderr");
    Ok(())
}

/// A container with a network namespace of its own has its own interfaces, one with the host's is told of none.
fn stats_has_the_containers_interfaces(lab: &mut Lab) -> Outcome {
    lab.set("/process/capabilities/bounding/-", "CAP_NET_ADMIN");
    lab.set("/process/capabilities/permitted/-", "CAP_NET_ADMIN");
    lab.set("/process/capabilities/effective/-", "CAP_NET_ADMIN");
    lab.up("ip link add eth7 type dummy || ip link add eth7 type veth; ip link set eth7 up; echo done; sleep 100")?;
    wait_until("the container has not made its interface", || Ok(lab.output().contains("done\n")))?;
    let data = stats(lab)?["data"].take();
    let names: Vec<&Value> =
        data["network_interfaces"].as_array().into_iter().flatten().map(|one| &one["Name"]).collect();
    ensure!(names.contains(&&json!("eth7")) && !names.contains(&&json!("lo")), "interfaces: {data}");
    for key in ["RxBytes", "RxPackets", "RxErrors", "RxDropped", "TxBytes", "TxPackets", "TxErrors", "TxDropped"] {
        ensure!(data["network_interfaces"][0][key].is_u64(), "no {key}: {data}");
    }
    Ok(())
}

fn features(lab: &Lab) -> Result<Value, Failure> {
    Ok(serde_json::from_str(&lab.call(&["features"]).go()?.ok("features")?.stdout)?)
}

/// Whether a value is of the right type.
type Fits = fn(&Value) -> bool;

/// Every field of version 1.3.
const FIELDS: &[(&str, Fits)] = &[
    ("/ociVersionMin", Value::is_string),
    ("/ociVersionMax", Value::is_string),
    ("/hooks/5", Value::is_string),
    ("/mountOptions/40", Value::is_string),
    ("/linux/namespaces/7", Value::is_string),
    ("/linux/capabilities/40", Value::is_string),
    ("/linux/cgroup/v1", Value::is_boolean),
    ("/linux/cgroup/v2", Value::is_boolean),
    ("/linux/cgroup/systemd", Value::is_boolean),
    ("/linux/cgroup/systemdUser", Value::is_boolean),
    ("/linux/cgroup/rdma", Value::is_boolean),
    ("/linux/seccomp/enabled", Value::is_boolean),
    ("/linux/seccomp/actions/8", Value::is_string),
    ("/linux/seccomp/operators/6", Value::is_string),
    ("/linux/seccomp/archs/2", Value::is_string),
    ("/linux/seccomp/knownFlags/2", Value::is_string),
    ("/linux/seccomp/supportedFlags/0", Value::is_string),
    ("/linux/apparmor/enabled", Value::is_boolean),
    ("/linux/selinux/enabled", Value::is_boolean),
    ("/linux/intelRdt/enabled", Value::is_boolean),
    ("/linux/intelRdt/schemata", Value::is_boolean),
    ("/linux/intelRdt/monitoring", Value::is_boolean),
    ("/linux/memoryPolicy/modes/6", Value::is_string),
    ("/linux/memoryPolicy/flags/2", Value::is_string),
    ("/linux/mountExtensions/idmap/enabled", Value::is_boolean),
    ("/linux/netDevices/enabled", Value::is_boolean),
    ("/annotations", Value::is_object),
    ("/potentiallyUnsafeConfigAnnotations/0", Value::is_string),
];

fn fields(lab: &mut Lab) -> Outcome {
    let features = features(lab)?;
    for (pointer, fits) in FIELDS {
        ensure!(features.pointer(pointer).is_some_and(fits), "{pointer}: {:?}", features.pointer(pointer));
    }
    Ok(())
}

fn lists_are_of_names(lab: &mut Lab) -> Outcome {
    let features = features(lab)?;
    for (pointer, some) in [
        ("/hooks", &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"][..]),
        ("/mountOptions", &["ro", "rbind", "rro", "tmpcopyup", "rslave", "nosymfollow"]),
        ("/linux/namespaces", &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]),
        ("/linux/capabilities", &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]),
        ("/linux/seccomp/actions", &["SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_KILL_PROCESS"]),
        ("/linux/seccomp/operators", &["SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"]),
        ("/linux/seccomp/archs", &["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]),
        ("/linux/memoryPolicy/modes", &["MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY"]),
    ] {
        let list = features.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        for name in some {
            ensure!(list.contains(&json!(name)), "{pointer} lacks {name}: {list:?}");
        }
    }
    Ok(())
}

fn supported_flags_are_known_ones(lab: &mut Lab) -> Outcome {
    let seccomp = features(lab)?["linux"]["seccomp"].take();
    let list = |name: &str| seccomp[name].as_array().cloned().unwrap_or_default();
    let (known, supported) = (list("knownFlags"), list("supportedFlags"));
    ensure!(supported.iter().all(|flag| known.contains(flag)), "known: {known:?}, supported: {supported:?}");
    // Since Linux 4.14.
    ensure!(supported.contains(&json!("SECCOMP_FILTER_FLAG_LOG")), "supported: {supported:?}");
    Ok(())
}

/// CRI-O reads both streams as one document, and nobody has asked for a root directory.
fn says_nothing_else(lab: &mut Lab) -> Outcome {
    let out = lab.call(&["features"]).go()?.ok("features")?;
    same!(out.stderr, "", "stderr");
    ensure!(out.stdout.starts_with("{\n    \"") && out.stdout.ends_with("}\n"), "indented by four: {}", out.stdout);
    lab.call(&["features", "more"]).go()?.exits(1, "features with an argument").map(|_| ())
}
