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

/// A limit, and where the kernel tells of it.
struct Limit {
    /// Flag of `run` and `update`; `CPU` stands for [`cpu`].
    flag: &'static str,
    /// Hierarchy of cgroup v1, file, and what the file then says.
    v1: (&'static str, &'static str, &'static str),
    /// File of cgroup v2, and what it then says.
    v2: (&'static str, &'static str),
}

const fn limit(
    flag: &'static str,
    v1: (&'static str, &'static str, &'static str),
    v2: (&'static str, &'static str),
) -> Limit {
    Limit { flag, v1, v2 }
}

const LIMITS: &[Limit] = &[
    limit(
        "--memory 64m --memory-swap 96m",
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory.max", "67108864"),
    ),
    limit("", ("memory", "memory.memsw.limit_in_bytes", "100663296"), ("memory.swap.max", "33554432")),
    limit("--memory-reservation 32m", ("memory", "memory.soft_limit_in_bytes", "33554432"), ("memory.low", "33554432")),
    limit("--cpus 0.5", ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
    limit("", ("cpu", "cpu.cfs_period_us", "100000"), ("cpu.max", "50000 100000")),
    limit("--cpu-shares 1024", ("cpu", "cpu.shares", "1024"), ("cpu.weight", "100")),
    limit("--cpuset-cpus CPU", ("cpuset", "cpuset.cpus", "CPU"), ("cpuset.cpus", "CPU")),
    limit("--cpuset-mems 0", ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    limit("--pids-limit 64", ("pids", "pids.max", "64"), ("pids.max", "64")),
];

const UPDATES: &[Limit] = &[
    limit(
        "--memory 128m --memory-swap 256m",
        ("memory", "memory.limit_in_bytes", "134217728"),
        ("memory.max", "134217728"),
    ),
    limit("", ("memory", "memory.memsw.limit_in_bytes", "268435456"), ("memory.swap.max", "134217728")),
    limit(
        "--memory 48m --memory-swap 48m",
        ("memory", "memory.memsw.limit_in_bytes", "50331648"),
        ("memory.swap.max", "0"),
    ),
    limit("--memory-reservation 16m", ("memory", "memory.soft_limit_in_bytes", "16777216"), ("memory.low", "16777216")),
    limit("--cpus 0.75", ("cpu", "cpu.cfs_quota_us", "75000"), ("cpu.max", "75000 100000")),
    // The least and the most are the same in both scales.
    limit("--cpu-shares 2", ("cpu", "cpu.shares", "2"), ("cpu.weight", "1")),
    limit("--cpuset-cpus 0", ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    limit("--pids-limit 32", ("pids", "pids.max", "32"), ("pids.max", "32")),
    limit("--pids-limit -1", ("pids", "pids.max", "max"), ("pids.max", "max")),
];

/// The last processor.
fn cpu() -> String {
    (std::thread::available_parallelism().expect("processors").get() - 1).to_string()
}

/// Those of the controllers that this host has: user-mode-linux, say, has no cpusets.
fn of_this_host(limits: &'static [Limit]) -> impl Iterator<Item = &'static Limit> {
    limits.iter().filter(|limit| cgroup::has(limit.v1.0))
}

fn flags(limits: &'static [Limit]) -> String {
    of_this_host(limits).map(|l| l.flag).collect::<Vec<_>>().join(" ").replace("CPU", &cpu())
}

fn check(pid: u32, limit: &Limit) {
    let (controller, file, value) = limit.v1;
    let (file, value) = if cgroup::unified() { limit.v2 } else { (file, value) };
    assert_eq!(cgroup::read(pid, controller, file), value.replace("CPU", &cpu()), "{file} of {}", limit.flag);
}

fn limits_reach_the_cgroup(f: &Fixture) {
    let c = f.ok(&format!("run -d {} {BUSYBOX} sleep 300", flags(LIMITS)));
    let pid = f.pid(&c);
    of_this_host(LIMITS).for_each(|limit| check(pid, limit));
}

fn update_while_running(f: &Fixture) {
    let c = f.ok(&format!("run -d {} {BUSYBOX} sleep 300", flags(LIMITS)));
    let pid = f.pid(&c);
    for update in of_this_host(UPDATES) {
        if !update.flag.is_empty() {
            f.ok(&format!("update {} {c}", update.flag));
        }
        check(pid, update);
    }
    // What no update named is as it was: on v2, the second word.
    check(pid, &limit("", ("cpu", "cpu.cfs_period_us", "100000"), ("cpu.max", "75000 100000")));
    assert_eq!(f.ok(&format!("exec {c} echo alive")), "alive");
}

fn update_is_kept_over_a_restart(f: &Fixture) {
    let c = f.ok(&format!("run -d --cpu-shares 512 {BUSYBOX} sleep 300"));
    f.ok(&format!("update --cpu-shares 2 --restart on-failure:3 {c}"));
    f.ok(&format!("restart -t 0 {c}"));
    check(f.pid(&c), &limit("--cpu-shares 2", ("cpu", "cpu.shares", "2"), ("cpu.weight", "1")));
    assert_eq!(f.inspect(&c, ".HostConfig.RestartPolicy.Name"), "on-failure");
}

fn out_of_memory_is_told(f: &Fixture) {
    let run = |name: &str, command: &str| {
        let c = f.name(name);
        f.fails(137, &format!("run --name {c} --memory 20m --memory-swap 20m {BUSYBOX} {command}"));
        f.inspect(&c, ".State.OOMKilled") == "true"
    };
    let told = run("init", "tail /dev/zero");
    // containerd's own shim tells of it and of the exit on two ways, and Docker forgets what comes second: here, the exit does.
    let child = |number: i32| run(&format!("child{number}"), "sh -c 'tail /dev/zero; sleep 3; exit 137'");
    assert!(told || f.daemon().runtime_type().is_none(), "by the exit of the init");
    assert!(told || (0..5).any(child), "in none of the times");
}

fn pids_limit_stops_forks(f: &Fixture) {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 3 & done; echo all started";
    let out = f.run(&format!("run --rm --pids-limit 6 {BUSYBOX} sh -c '{script}'"));
    assert!(out.error().contains("fork"), "{out:?}");
    assert!(!out.text().contains("all started"), "{out:?}");
    assert!(f.ok(&format!("run --rm --pids-limit 20 {BUSYBOX} sh -c '{script}'")).contains("all started"));
}

fn cpuset_binds(f: &Fixture) {
    let script = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    assert_eq!(f.ok(&format!("run --rm --cpuset-cpus {} {BUSYBOX} sh -c '{script}'", cpu())), cpu());
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
