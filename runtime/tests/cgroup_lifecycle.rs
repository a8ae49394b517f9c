//! Cgroups on the kernel of this host, as root: create, limits, attach, freeze, signal, remove.
#![allow(clippy::disallowed_methods, reason = "the tests start processes to put into cgroups")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]
#![allow(clippy::indexing_slicing, reason = "a failed test panics")]

mod scratch;

use orlop::cgroup::{self, Cgroup, Paths};
use scratch::{Scratch, hybrid, resources, v2};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn file(paths: &Paths, controller: &str, name: &str) -> PathBuf {
    paths[if v2() { "" } else { controller }].join(name)
}

fn value(paths: &Paths, controller: &str, name: &str) -> String {
    let path = file(paths, controller, name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).trim().to_string()
}

fn created(scratch: &Scratch, json: &str) -> Box<dyn Cgroup> {
    let mut cgroup = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap();
    cgroup.create(Some(&resources(json))).unwrap();
    cgroup
}

#[test]
fn limits_reach_the_kernel_and_change() {
    let scratch = Scratch::new();
    let json = r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},
        "cpu":{"shares":1024,"quota":50000,"period":100000},"pids":{"limit":42}}"#;
    let cgroup = created(&scratch, json);
    let check = |rows: &[(&str, &str, &str, &str, &str)]| {
        for (controller, v1, in_v1, v2_file, in_v2) in rows {
            if v2() {
                let name = format!("{controller} {v2_file}");
                // A kernel without swap accounting or cpusets has no such file.
                if file(cgroup.paths(), controller, v2_file).exists() {
                    assert_eq!(value(cgroup.paths(), controller, v2_file), *in_v2, "{name}");
                }
            } else {
                assert_eq!(value(cgroup.paths(), controller, v1), *in_v1, "{controller} {v1}");
            }
        }
    };
    check(&[
        ("memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728", "memory.swap.max", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
        ("cpu", "cpu.shares", "1024", "cpu.weight", "100"),
        ("cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000"),
        ("pids", "pids.max", "42", "pids.max", "42"),
    ]);
    // Raising both limits, lowering both, and no limit: the kernel takes each in another order only.
    for (limit, swap) in [(268_435_456_i64, 536_870_912_i64), (33_554_432, 67_108_864)] {
        cgroup.set(&resources(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#))).unwrap();
        check(&[
            ("memory", "memory.limit_in_bytes", &limit.to_string(), "memory.max", &limit.to_string()),
            (
                "memory",
                "memory.memsw.limit_in_bytes",
                &swap.to_string(),
                "memory.swap.max",
                &(swap - limit).to_string(),
            ),
        ]);
    }
    cgroup.set(&resources(r#"{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"quota":-1}}"#)).unwrap();
    let unlimited = "9223372036854771712";
    check(&[
        ("memory", "memory.limit_in_bytes", unlimited, "memory.max", "max"),
        ("memory", "memory.memsw.limit_in_bytes", unlimited, "memory.swap.max", "max"),
        ("pids", "pids.max", "max", "pids.max", "max"),
        ("cpu", "cpu.cfs_quota_us", "-1", "cpu.max", "max 100000"),
    ]);
    cgroup.remove().unwrap();
    assert!(cgroup.paths().values().all(|dir| !dir.exists()));
    cgroup.remove().unwrap();
}

/// Without a cpuset controller (a kernel without SMP) the same request is an error that says so.
#[test]
fn a_cpuset_below_parents_without_one_works() {
    let scratch = Scratch::new();
    let has =
        cgroup::Host::default().hierarchies().unwrap().iter().any(|h| h.controllers.iter().any(|c| c == "cpuset"));
    // Two new parents: on v1 they have no CPUs and no memory nodes until somebody gives them some.
    let mut cgroup = cgroup::Host::default().files(Some(&scratch.path.join("a/b")), "unused").unwrap();
    let result = cgroup.create(Some(&resources(r#"{"cpu":{"cpus":"0"}}"#)));
    if has {
        result.unwrap();
        assert_eq!(value(cgroup.paths(), "cpuset", "cpuset.cpus"), "0");
        if !v2() {
            assert_ne!(value(cgroup.paths(), "cpuset", "cpuset.mems"), "");
        }
    } else {
        let e = result.unwrap_err().to_string();
        assert!(e.starts_with("linux.resources.cpu.cpus: cannot set cpuset limit: "), "{e}");
    }
    cgroup.remove().unwrap();
    for dir in cgroup.paths().values() {
        let _ = fs::remove_dir(dir.parent().unwrap());
    }
}

#[test]
fn a_period_and_a_quota_change_under_a_limited_parent() {
    let scratch = Scratch::new();
    let parent = created(&scratch, r#"{"cpu":{"quota":50000,"period":100000}}"#);
    let child = scratch.child();
    // Half of a CPU, with another period each time: for a moment old quota and new period are more than the parent's.
    let cgroup = created(&child, r#"{"cpu":{"quota":50000,"period":100000}}"#);
    for (quota, period) in [(5000, 10000), (100_000, 200_000), (25000, 50000)] {
        cgroup.set(&resources(&format!(r#"{{"cpu":{{"quota":{quota},"period":{period}}}}}"#))).unwrap();
        let got = if v2() {
            value(cgroup.paths(), "cpu", "cpu.max")
        } else {
            format!(
                "{} {}",
                value(cgroup.paths(), "cpu", "cpu.cfs_quota_us"),
                value(cgroup.paths(), "cpu", "cpu.cfs_period_us")
            )
        };
        assert_eq!(got, format!("{quota} {period}"));
    }
    drop(child);
    parent.remove().unwrap();
}

#[test]
fn an_error_names_field_file_value_and_errno_and_leaves_nothing() {
    let scratch = Scratch::new();
    let mut cgroup = cgroup::Host::default().files(Some(&scratch.path.join("a/b")), "unused").unwrap();
    let e = cgroup.create(Some(&resources(r#"{"cpu":{"quota":10}}"#))).unwrap_err().to_string();
    let path = file(cgroup.paths(), "cpu", if v2() { "cpu.max" } else { "cpu.cfs_quota_us" });
    let expected = format!("linux.resources.cpu.quota: write \"10\" to {path:?}: EINVAL (Invalid argument); hint: ");
    assert!(e.starts_with(&expected), "{e}");
    for dir in cgroup.paths().values() {
        // The parents that were made for it are gone too.
        assert!(!dir.parent().unwrap().parent().unwrap().exists(), "{dir:?}");
    }
}

#[test]
fn an_asked_controller_that_is_missing_is_an_error() {
    let scratch = Scratch::new();
    let mut cgroup = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap();
    let all = cgroup::Host::default().hierarchies().unwrap();
    let rdma = all.iter().any(|h| h.controllers.iter().any(|c| c == "rdma"));
    assert!(!rdma, "this test needs a host without rdma");
    let e = cgroup.create(Some(&resources(r#"{"rdma":{"x":{"hcaHandles":1}}}"#))).unwrap_err().to_string();
    assert!(
        e.starts_with(
            "linux.resources.rdma.x: cannot set rdma limit: container could not join or create cgroup; hint: "
        ),
        "{e}"
    );
    assert!(cgroup.paths().values().all(|dir| !dir.exists()));
}

#[test]
fn processes_are_attached_frozen_listed_and_killed() {
    let mut scratch = Scratch::new();
    let cgroup = created(&scratch, "{}");
    let pids = [scratch.sleeper(), scratch.sleeper()];
    for pid in pids {
        cgroup.attach(pid).unwrap();
    }
    let text = fs::read_to_string(format!("/proc/{}/cgroup", pids[0])).unwrap();
    let inside = text.lines().filter(|line| line.ends_with(scratch.path.to_str().unwrap())).count();
    let trees = cgroup.paths().values().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(inside, trees, "{text}");
    let listed = |cgroup: &dyn Cgroup| {
        let mut pids = cgroup.procs().unwrap();
        pids.sort_unstable();
        pids
    };
    assert_eq!(listed(&*cgroup), pids);
    // One in a sub-cgroup counts too.
    for dir in cgroup.paths().values() {
        let sub = dir.join("sub");
        if fs::create_dir(&sub).is_ok() && !dir.join("cpuset.cpus").exists() {
            fs::write(sub.join("cgroup.procs"), pids[1].to_string()).unwrap();
        }
    }
    let cgroup = cgroup::load(cgroup.paths(), None);
    assert_eq!(listed(&*cgroup), pids);

    assert!(!cgroup.frozen().unwrap());
    cgroup.freeze(true).unwrap();
    assert!(cgroup.frozen().unwrap());
    // What is frozen still dies.
    cgroup.signal(9).unwrap();
    for pid in pids {
        assert_eq!(scratch.wait(pid).signal(), Some(9));
    }
    if !v2() {
        assert!(!cgroup.frozen().unwrap());
    }
    assert!(listed(&*cgroup).is_empty());
    cgroup.remove().unwrap();
    assert!(cgroup.paths().values().all(|dir| !dir.exists()));
    assert!(cgroup.procs().unwrap().is_empty());
    assert!(!cgroup.frozen().unwrap());
}

#[test]
fn a_signal_reaches_every_process() {
    let mut scratch = Scratch::new();
    let cgroup = created(&scratch, "{}");
    let pids = [scratch.sleeper(), scratch.sleeper()];
    pids.iter().for_each(|pid| cgroup.attach(*pid).unwrap());
    cgroup.signal(15).unwrap();
    for pid in pids {
        assert_eq!(scratch.wait(pid).signal(), Some(15));
    }
}

#[test]
fn sigkill_wins_against_forks() {
    // With the v2 tree's cgroup.kill, and without it as on a host of v1 alone.
    for with_v2 in [true, false] {
        let mut scratch = Scratch::new();
        let whole = created(&scratch, "{}");
        let mut paths = whole.paths().clone();
        if !with_v2 && paths.len() > 1 {
            paths.remove("");
        }
        let cgroup = cgroup::load(&paths, None);
        // It is inside before it starts to fork.
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let forks = format!(
            "until [ -e {} ]; do sleep 0.01; done; f() {{ while :; do sh -c 'sleep 0.01 & sleep 0.02'; done; }}; f & f & f & f",
            go.display()
        );
        let pid = scratch.spawn(Command::new("sh").args(["-c", &forks]));
        cgroup.attach(pid).unwrap();
        fs::write(go, "").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while cgroup.procs().unwrap().len() <= 3 {
            assert!(Instant::now() < deadline, "it does not fork");
            std::thread::sleep(Duration::from_millis(10));
        }
        cgroup.signal(9).unwrap();
        assert_eq!(scratch.wait(pid).signal(), Some(9));
        whole.remove().unwrap();
    }
}

#[test]
fn a_used_cgroup_is_refused() {
    let mut scratch = Scratch::new();
    let cgroup = created(&scratch, "{}");
    let again = || cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap().create(None);
    // An empty one is fine, as with runc.
    again().unwrap();
    let pid = scratch.sleeper();
    cgroup.attach(pid).unwrap();
    let e = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap().create(None).unwrap_err().to_string();
    assert!(e.starts_with("container's cgroup is not empty: 1 process(es) found"), "{e}");
    // The refusal must not have touched it.
    assert_eq!(cgroup.procs().unwrap(), [pid]);
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let scratch = Scratch::new();
    let parent = created(&scratch, "{}");
    parent.freeze(true).unwrap();
    for path in [scratch.path.clone(), scratch.path.join("child")] {
        let e = cgroup::Host::default().files(Some(&path), "unused").unwrap().create(None).unwrap_err().to_string();
        assert!(e.starts_with("container's cgroup unexpectedly frozen"), "{path:?}: {e}");
    }
    // The child's cgroups are gone again, the parent's are still there.
    for dir in parent.paths().values() {
        assert!(dir.exists() && !dir.join("child").exists(), "{dir:?}");
    }
    parent.freeze(false).unwrap();
}

#[test]
fn remove_waits_for_the_last_process_but_not_for_ever() {
    let mut scratch = Scratch::new();
    let cgroup = created(&scratch, "{}");
    let sleeper = scratch.sleeper();
    cgroup.attach(sleeper).unwrap();
    let asked = Arc::new(AtomicBool::new(false));
    let killer = {
        let asked = asked.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            asked.store(true, Ordering::SeqCst);
            // The sleeper becomes a zombie, which is in no cgroup's way.
            orlop_sys::signal::kill(sleeper, orlop_sys::signal::SIGKILL).unwrap();
        })
    };
    cgroup.remove().unwrap();
    assert!(asked.load(Ordering::SeqCst), "a cgroup with a process inside was removed");
    killer.join().unwrap();

    let cgroup = created(&scratch, "{}");
    cgroup.attach(scratch.sleeper()).unwrap();
    let start = Instant::now();
    let e = cgroup.remove().unwrap_err().to_string();
    assert!(e.contains("EBUSY") && e.contains("processes are still inside"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn the_init_gets_an_fd_for_each_tree() {
    let scratch = Scratch::new();
    let mut cgroup = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap();
    let entry = cgroup.create(None).unwrap();
    let trees = cgroup.paths().values().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(entry.dir.is_some(), v2() || hybrid());
    assert_eq!(entry.tasks.len() + usize::from(entry.dir.is_some()), trees);
    for dir in cgroup.paths().values() {
        fs::create_dir_all(dir.join("sub")).unwrap();
    }
    let sub = cgroup.enter(&["sub".to_string()]).unwrap();
    assert_eq!(sub.tasks.len(), entry.tasks.len());
    let e = cgroup.enter(&["nonexistent".to_string()]).unwrap_err().to_string();
    assert!(e.contains(" adding pid ") && e.ends_with("o such file or directory)"), "{e}");
}

#[test]
fn relative_and_absent_paths_are_below_our_own() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    for (path, id, name) in [(None, "x-1", "x-1"), (Some("../../p/q"), "id", "p/q"), (Some(".."), "x-2", "x-2")] {
        let cgroup = cgroup::Host::default().files(path.map(Path::new), id).unwrap();
        for (controller, dir) in cgroup.paths() {
            let line = own.lines().find(|l| {
                let list = l.split(':').nth(1).unwrap();
                if controller.is_empty() { list.is_empty() } else { list.split(',').any(|c| c == controller) }
            });
            let own = Path::new(line.unwrap().splitn(3, ':').nth(2).unwrap());
            let own = if v2() {
                own.parent().unwrap_or(own)
            } else if controller.is_empty() {
                Path::new("/")
            } else {
                own
            };
            let expected = own.join(name);
            assert!(dir.ends_with(expected.strip_prefix("/").unwrap()), "{controller}: {dir:?}, not {expected:?}");
        }
    }
}

#[test]
fn an_oom_kill_is_counted() {
    let mut scratch = Scratch::new();
    let cgroup = created(&scratch, r#"{"memory":{"limit":4194304,"swap":4194304}}"#);
    assert_eq!(cgroup.oom_kills(), 0);
    let pid = scratch.spawn(Command::new("sh").args(["-c", "sleep 0.2; x=$(head -c 64M /dev/zero | tr '\\0' x)"]));
    cgroup.attach(pid).unwrap();
    scratch.wait(pid);
    assert!(cgroup.oom_kills() > 0);
}

#[test]
fn hugetlb_is_limited_in_the_v2_tree_of_a_hybrid_host() {
    let in_v2 = cgroup::Host::default()
        .hierarchies()
        .unwrap()
        .iter()
        .any(|h| h.v2 && h.controllers.iter().any(|c| c == "hugetlb"));
    if v2() || !in_v2 {
        return; // The plain layouts are in limits_reach_the_kernel_and_change's tables.
    }
    let scratch = Scratch::new();
    let cgroup = created(&scratch, r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"pids":{"limit":9}}"#);
    for name in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(fs::read_to_string(cgroup.paths()[""].join(name)).unwrap().trim(), "4194304", "{name}");
    }
    assert_eq!(value(cgroup.paths(), "pids", "pids.max"), "9");
}
