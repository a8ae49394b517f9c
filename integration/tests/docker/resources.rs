//! Limits, read back from the kernel's cgroup files, and what they do.

use crate::fixture::Fixture;
use orlop_integration::cgroup;
use orlop_integration::images::BUSYBOX;

crate::tests![
    limits_reach_the_cgroup,
    update_while_running,
    update_is_kept_over_a_restart,
    out_of_memory_is_told,
    pids_limit_stops_forks,
    cpuset_binds,
    ulimits,
    oom_score,
    devices,
    device_is_denied_without_a_rule,
];

/// Flag of `run` and `update`, hierarchy, file, what the file then says.
type Limit = (&'static str, &'static str, &'static str, &'static str);

const LIMITS: &[Limit] = &[
    ("--memory 64m --memory-swap 96m", "memory", "memory.limit_in_bytes", "67108864"),
    ("", "memory", "memory.memsw.limit_in_bytes", "100663296"),
    ("--memory-reservation 32m", "memory", "memory.soft_limit_in_bytes", "33554432"),
    ("--cpus 0.5", "cpu", "cpu.cfs_quota_us", "50000"),
    ("", "cpu", "cpu.cfs_period_us", "100000"),
    ("--cpu-shares 512", "cpu", "cpu.shares", "512"),
    ("--cpuset-cpus 1", "cpuset", "cpuset.cpus", "1"),
    ("--cpuset-mems 0", "cpuset", "cpuset.mems", "0"),
    ("--pids-limit 64", "pids", "pids.max", "64"),
];

const UPDATES: &[Limit] = &[
    ("--memory 128m --memory-swap 256m", "memory", "memory.limit_in_bytes", "134217728"),
    ("", "memory", "memory.memsw.limit_in_bytes", "268435456"),
    ("--memory 48m --memory-swap 48m", "memory", "memory.memsw.limit_in_bytes", "50331648"),
    ("--memory-reservation 16m", "memory", "memory.soft_limit_in_bytes", "16777216"),
    ("--cpus 1.25", "cpu", "cpu.cfs_quota_us", "125000"),
    ("--cpu-shares 256", "cpu", "cpu.shares", "256"),
    ("--cpuset-cpus 0", "cpuset", "cpuset.cpus", "0"),
    ("--pids-limit 32", "pids", "pids.max", "32"),
    ("--pids-limit -1", "pids", "pids.max", "max"),
];

fn flags(limits: &[Limit]) -> String {
    limits.iter().map(|l| l.0).collect::<Vec<_>>().join(" ")
}

fn check(pid: u32, (flag, controller, file, value): &Limit) {
    assert_eq!(cgroup::read(pid, controller, file), *value, "{file} of {flag}");
}

fn limits_reach_the_cgroup(f: &Fixture) {
    let c = f.ok(&format!("run -d {} {BUSYBOX} sleep 300", flags(LIMITS)));
    let pid = f.pid(&c);
    LIMITS.iter().for_each(|limit| check(pid, limit));
}

fn update_while_running(f: &Fixture) {
    let c = f.ok(&format!("run -d {} {BUSYBOX} sleep 300", flags(LIMITS)));
    let pid = f.pid(&c);
    for update in UPDATES {
        if !update.0.is_empty() {
            f.ok(&format!("update {} {c}", update.0));
        }
        check(pid, update);
    }
    // What no update named is as it was.
    check(pid, &LIMITS[4]);
    assert_eq!(f.ok(&format!("exec {c} echo alive")), "alive");
}

fn update_is_kept_over_a_restart(f: &Fixture) {
    let c = f.ok(&format!("run -d --cpu-shares 512 {BUSYBOX} sleep 300"));
    f.ok(&format!("update --cpu-shares 300 --restart on-failure:3 {c}"));
    f.ok(&format!("restart -t 0 {c}"));
    assert_eq!(cgroup::read(f.pid(&c), "cpu", "cpu.shares"), "300");
    assert_eq!(f.inspect(&c, ".HostConfig.RestartPolicy.Name"), "on-failure");
}

fn out_of_memory_is_told(f: &Fixture) {
    let c = f.name("c");
    f.fails(137, &format!("run --name {c} --memory 20m --memory-swap 20m {BUSYBOX} tail /dev/zero"));
    assert_eq!(f.inspect(&c, ".State.OOMKilled"), "true");
    assert_eq!(f.inspect(&c, ".State.ExitCode"), "137");
}

fn pids_limit_stops_forks(f: &Fixture) {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 3 & done; echo all started";
    let out = f.run(&format!("run --rm --pids-limit 6 {BUSYBOX} sh -c '{script}'"));
    assert!(out.error().contains("fork"), "{out:?}");
    assert!(!out.text().contains("all started"), "{out:?}");
    assert!(f.ok(&format!("run --rm --pids-limit 20 {BUSYBOX} sh -c '{script}'")).contains("all started"));
}

fn cpuset_binds(f: &Fixture) {
    assert_eq!(
        f.ok(&format!("run --rm --cpuset-cpus 1 {BUSYBOX} sh -c 'grep Cpus_allowed_list /proc/self/status | cut -f2'")),
        "1"
    );
}

fn ulimits(f: &Fixture) {
    let out = f.ok(&format!(
        "run --rm --ulimit nofile=512:1024 --ulimit core=0 {BUSYBOX} sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'"
    ));
    assert_eq!(out, "512\n1024\n0");
    let c = f.ok(&format!("run -d --ulimit nofile=600:700 {BUSYBOX} sleep 300"));
    assert_eq!(f.ok(&format!("exec {c} sh -c 'ulimit -Sn; ulimit -Hn'")), "600\n700");
}

fn oom_score(f: &Fixture) {
    assert_eq!(f.ok(&format!("run --rm --oom-score-adj 500 {BUSYBOX} cat /proc/self/oom_score_adj")), "500");
}

/// A device of the host that no container gets by default.
fn host_device() -> &'static str {
    let devices = ["/dev/fuse", "/dev/kvm", "/dev/loop-control"];
    devices
        .into_iter()
        .find(|d| std::path::Path::new(d).exists())
        .unwrap_or_else(|| panic!("this host has none of {devices:?}"))
}

fn devices(f: &Fixture) {
    let device = host_device();
    let host = String::from_utf8(orlop_integration::programs::run(
        orlop_integration::programs::command("busybox").args(["stat", "-c", "%t:%T", device]),
    ));
    let open = "exec 3</dev/mine && echo read; exec 4>/dev/mine && echo written";
    let run = |access: &str| {
        f.run(&format!(
            "run --rm --device {device}:/dev/mine:{access} {BUSYBOX} sh -c 'stat -c %t:%T /dev/mine; {open}'"
        ))
    };
    let both = run("rw");
    assert_eq!(both.text(), format!("{}read\nwritten", host.expect("ASCII")), "{both:?}");
    let read = run("r");
    assert!(read.text().ends_with("\nread") && read.error().contains("Operation not permitted"), "{read:?}");
}

fn device_is_denied_without_a_rule(f: &Fixture) {
    let c = |flag: &str| {
        let device = "mknod /tmp/x c 10 229 && exec 3</tmp/x";
        f.run(&format!("run --rm {flag} {BUSYBOX} sh -c '{device}'")).error()
    };
    let denied = c("");
    assert!(denied.contains("Operation not permitted"), "{denied}");
    let allowed = c("--device-cgroup-rule 'c 10:229 rmw'");
    assert!(!allowed.contains("Operation not permitted"), "{allowed}");
    let wildcard = c("--device-cgroup-rule 'c 10:* rmw'");
    assert!(!wildcard.contains("Operation not permitted"), "{wildcard}");
}
