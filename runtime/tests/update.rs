//! `update` on the kernel of this host, as root: the binary, on a container that is a process in cgroups of its own.
#![allow(clippy::disallowed_methods, reason = "the tests start the binary and processes to put into cgroups")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]
#![allow(clippy::indexing_slicing, reason = "a failed test panics")]

mod scratch;

use orlop::cgroup::{self, Cgroup};
use orlop::config::Config;
use orlop::state::{self, Container, Reserved, Saved};
use scratch::{Scratch, v2};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: i64 = 1 << 20;

struct Lab {
    cgroup: Box<dyn Cgroup>,
    pid: i32,
    root: tempfile::TempDir,
    scratch: Scratch,
}

impl Lab {
    /// A container whose init runs this script.
    fn new(resources: Value, script: &str) -> Lab {
        let mut scratch = Scratch::new();
        let mut cgroup = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap();
        cgroup.create(Some(&serde_json::from_value(resources.clone()).unwrap())).unwrap();
        // It is inside before it does anything.
        let pid = scratch.spawn(Command::new("sh").args(["-c", &format!("sleep 0.2; {script}")]));
        cgroup.attach(pid).unwrap();

        let root = tempfile::tempdir().unwrap();
        let raw = json!({"ociVersion": "1.3.0", "root": {"path": "/"}, "linux": {"resources": resources}}).to_string();
        let spec = serde_json::from_str(&raw).unwrap();
        let reserved = Reserved::new(root.path(), "c").unwrap();
        let config = Config { spec, raw: raw.into_bytes() };
        let (driver, spec) = (cgroup::Driver::Cgroupfs, &config.spec);
        reserved.keep_config(&config, &cgroup::Request { driver, user: false, id: "c", rootless: None, spec }).unwrap();
        let saved = Saved {
            oci_version: "1.3.0".into(),
            id: "c".into(),
            init_process_pid: pid,
            init_process_start: state::stat(pid).unwrap().1,
            created: String::new(),
            bundle: "/".into(),
            rootfs: "/".into(),
            annotations: Default::default(),
            cgroup_paths: cgroup.paths().clone(),
            intel_rdt: None,
            systemd: None,
            private_pid: false,
            restored_time: false,
            late_hooks: true,
            making: false,
        };
        reserved.save(&saved).unwrap();
        reserved.commit();
        Lab { cgroup, pid, root, scratch }
    }

    fn sleeping(resources: Value) -> Lab {
        Lab::new(resources, "exec sleep 300")
    }

    /// What the update says on stderr; an error if it fails.
    fn update(&self, flags: &str, stdin: &str) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        command.arg("--root").arg(self.root.path()).arg("update").args(flags.split_whitespace()).arg("c");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It need not be read.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let out = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() { Ok(said) } else { Err(said) }
    }

    fn ok(&self, flags: &str) {
        assert_eq!(self.update(flags, "").as_deref(), Ok(""), "{flags}");
    }

    fn json(&self, resources: &str) -> Result<String, String> {
        self.update("-r -", resources)
    }

    fn path(&self, controller: &str, file: &str) -> PathBuf {
        self.cgroup.paths()[if v2() { "" } else { controller }].join(file)
    }

    fn value(&self, controller: &str, file: &str) -> String {
        let path = self.path(controller, file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).trim().to_string()
    }

    /// Quota and period.
    fn quota(&self) -> String {
        if v2() {
            self.value("cpu", "cpu.max")
        } else {
            format!("{} {}", self.value("cpu", "cpu.cfs_quota_us"), self.value("cpu", "cpu.cfs_period_us"))
        }
    }

    fn memory(&self) -> String {
        self.value("memory", if v2() { "memory.max" } else { "memory.limit_in_bytes" })
    }

    /// Memory and swap together, if this kernel accounts swap.
    fn assert_swap(&self, sum: i64, limit: i64) {
        let (file, value) = if v2() { ("memory.swap.max", sum - limit) } else { ("memory.memsw.limit_in_bytes", sum) };
        if self.path("memory", file).exists() {
            assert_eq!(self.value("memory", file), value.to_string());
        }
    }

    fn pids(&self) -> String {
        self.value("pids", "pids.max")
    }

    fn kept(&self) -> Value {
        serde_json::to_value(Container::load(self.root.path(), "c").unwrap().resources().unwrap()).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The init's children too.
        let _ = self.cgroup.signal(9);
    }
}

/// A directory with what resctrl has for a class of service: no hardware here has the real one.
fn class(lab: &Lab) -> tempfile::TempDir {
    let class = tempfile::tempdir().unwrap();
    for (file, text) in [("schemata", "    MB:0=100\n    L3:0=7ff\n"), ("tasks", "")] {
        fs::write(class.path().join(file), text).unwrap();
    }
    let path = lab.root.path().join("c/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["intel_rdt"] = json!({"root": class.path(), "path": class.path(), "own": false});
    fs::write(&path, state.to_string()).unwrap();
    class
}

#[test]
fn a_class_of_service_changes_by_flags_alone() {
    let lab = Lab::sleeping(json!({"pids": {"limit": 100}}));
    let e = lab.update("--l3-cache-schema L3:0=f", "").unwrap_err();
    assert!(e.contains("--l3-cache-schema: updating a non-existent Intel RDT configuration is not supported"), "{e}");
    let class = class(&lab);
    let schemata = || fs::read_to_string(class.path().join("schemata")).unwrap();
    lab.ok("--pids-limit 50");
    assert_eq!(schemata(), "    MB:0=100\n    L3:0=7ff\n");
    lab.ok("--l3-cache-schema L3:0=f");
    // A plain file keeps what stood behind the line; the kernel changes what the line names.
    assert!(schemata().starts_with("L3:0=f\n"), "{}", schemata());
    lab.ok("--mem-bw-schema MB:0=20 --pids-limit 60");
    assert_eq!((schemata().lines().next(), lab.pids().as_str()), (Some("MB:0=20"), "60"));
    // With --resources too, as with runc; and set back if a limit is refused.
    let before = schemata();
    let e = lab.update("--mem-bw-schema MB:0=30 -r -", r#"{"cpu": {"quota": 5}}"#).unwrap_err();
    assert!(e.contains("cpu.quota"), "{e}");
    assert_eq!(schemata(), before);
}

#[test]
fn what_is_not_given_stays() {
    let start = json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB},
        "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 42}});
    let lab = Lab::sleeping(start);
    lab.ok("--pids-limit 43");
    assert_eq!(
        (lab.pids().as_str(), lab.memory(), lab.quota().as_str()),
        ("43", (64 * MIB).to_string(), "50000 100000")
    );
    // Above the old sum, and below it again.
    lab.ok("--memory 256M --memory-swap 512m");
    assert_eq!(lab.memory(), (256 * MIB).to_string());
    lab.assert_swap(512 * MIB, 256 * MIB);
    lab.ok("--memory-swap 384M");
    lab.assert_swap(384 * MIB, 256 * MIB);
    lab.ok("--memory 32M --memory-swap 48M");
    assert_eq!(lab.memory(), (32 * MIB).to_string());
    lab.assert_swap(48 * MIB, 32 * MIB);
    // One file on v2, where each half must come from what was given before.
    lab.ok("--cpu-quota 30000");
    lab.ok("--memory-reservation 16M");
    lab.ok("--cpu-period 50000");
    assert_eq!(lab.quota(), "30000 50000");
    lab.ok("--cpu-share 2048");
    assert_eq!(lab.pids(), "43");
    let expected = json!({
        "memory": {"limit": 32 * MIB, "swap": 48 * MIB, "reservation": 16 * MIB},
        "cpu": {"quota": 30_000, "period": 50_000, "shares": 2048},
        "pids": {"limit": 43},
    });
    assert_eq!(lab.kept(), expected);
    // Somebody else's change of what is not given stays too.
    fs::write(lab.path("pids", "pids.max"), "77").unwrap();
    lab.ok("--memory 40M");
    assert_eq!(lab.pids(), "77");
}

#[test]
fn no_limit_is_minus_one() {
    let lab = Lab::sleeping(json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}, "pids": {"limit": 42}}));
    lab.ok("--memory -1 --pids-limit -1 --cpu-quota -1");
    let (memory, swap) =
        if v2() { ("max", "memory.swap.max") } else { ("9223372036854771712", "memory.memsw.limit_in_bytes") };
    assert_eq!((lab.memory().as_str(), lab.pids().as_str()), (memory, "max"));
    if lab.path("memory", swap).exists() {
        assert_eq!(lab.value("memory", swap), memory);
    }
}

#[test]
fn json_comes_from_stdin_or_a_file() {
    let devices = |lab: &Lab| if v2() { String::new() } else { lab.value("devices", "devices.list") };
    let lab = Lab::sleeping(json!({"pids": {"limit": 42}}));
    let before = devices(&lab);
    // An empty set, a pids object that limits nothing, and rules for devices, which update leaves alone.
    for inert in ["{}", r#"{"pids":{}}"#, r#"{"devices":[{"allow":true,"access":"rwm"}]}"#] {
        assert_eq!(lab.json(inert).as_deref(), Ok(""), "{inert}");
    }
    assert_eq!((devices(&lab), lab.pids()), (before, "42".to_string()));
    lab.json(r#"{"pids":{"limit":45}}"#).unwrap();
    assert_eq!(lab.pids(), "45");
    assert!(lab.json(r#"{"memroy":{"limit":9000000}}"#).unwrap().contains("resources.memroy is unknown"));
    let file = lab.root.path().join("r.json");
    fs::write(&file, r#"{"pids":{"limit":46}}"#).unwrap();
    let said = lab.update(&format!("--resources {} --pids-limit 1", file.display()), "").unwrap();
    assert!(said.contains("--pids-limit has no effect"), "{said}");
    assert_eq!(lab.pids(), "46");
    for bad in ["", "{", r#"{"pids":{"limit":"1"}}"#, r#"{"cpu":{"shares":-1}}"#] {
        let e = lab.json(bad).unwrap_err();
        assert!(e.contains("resources"), "{bad}: {e}");
    }
    assert_eq!(lab.pids(), "46");
}

#[test]
fn a_refused_update_is_set_back() {
    let lab = Lab::sleeping(json!({"pids": {"limit": 42}}));
    // No kernel has pages of this size. It is the last of the two that is tried.
    let e = lab
        .json(r#"{"pids":{"limit":5},"cpu":{"shares":77},"hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#)
        .unwrap_err();
    assert!(e.contains("linux.resources.hugepageLimits[0]"), "{e}");
    assert_eq!(lab.pids(), "42");
    let (file, usual) = if v2() { ("cpu.weight", "100") } else { ("cpu.shares", "1024") };
    assert_eq!(lab.value("cpu", file), usual);
    assert_eq!(lab.kept(), json!({"pids": {"limit": 42}}));
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_when_asked_to() {
    let lab = Lab::new(json!({}), "dd if=/dev/zero bs=24M count=1 | sleep 300");
    let usage = || -> i64 {
        lab.value("memory", if v2() { "memory.current" } else { "memory.usage_in_bytes" }).parse().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while usage() < 24 * MIB {
        assert!(Instant::now() < deadline, "only {} bytes are in use", usage());
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = lab.memory();
    let limits = json!({"limit": 4 * MIB, "swap": 4 * MIB, "checkBeforeUpdate": true});
    let e = lab.json(&json!({"memory": limits}).to_string()).unwrap_err();
    assert!(e.contains("rejecting memory") || e.contains("in use already"), "{e}");
    assert!(state::alive(lab.pid, state::stat(lab.pid).unwrap().1));
    assert_eq!(lab.memory(), before);
    // The check is not kept for the next one.
    lab.ok("--memory 512M");
    assert_eq!(lab.kept(), json!({"memory": {"limit": 512 * MIB}}));
}

#[test]
fn a_paused_container_stays_paused() {
    let lab = Lab::sleeping(json!({}));
    lab.cgroup.freeze(true).unwrap();
    lab.ok("--pids-limit 30");
    assert!(lab.cgroup.frozen().unwrap());
    assert_eq!(lab.pids(), "30");
    lab.cgroup.freeze(false).unwrap();
}

#[test]
fn an_ended_container_is_refused() {
    let mut lab = Lab::new(json!({"pids": {"limit": 42}}), "exit 0");
    lab.scratch.wait(lab.pid);
    let e = lab.update("--pids-limit 30", "").unwrap_err();
    assert!(e.contains("container not running"), "{e}");
    assert_eq!(lab.pids(), "42");
    assert!(!Path::new(&lab.root.path().join("c/resources.json")).exists());
}

#[test]
fn flags_that_cannot_be_honoured_are_refused_by_name() {
    let lab = Lab::sleeping(json!({}));
    for (flags, said) in [
        ("--l3-cache-schema L3:0=f", "--l3-cache-schema: updating a non-existent Intel RDT"),
        ("--mem-bw-schema MB:0=20", "--mem-bw-schema: updating a non-existent Intel RDT"),
        ("--memory 1x", "is not a size such as"),
        ("--blkio-weight 70000", "resources.blockIO.weight: invalid value"),
        ("--blkio-weight 5", "linux.resources.blockIO.weight: 5 is not a weight"),
        ("--resources /nonexistent", "--resources: read /nonexistent: ENOENT"),
    ] {
        let e = lab.update(flags, "").unwrap_err();
        assert!(e.contains(said), "{flags}: {e}");
    }
    let said = lab.update("--kernel-memory 1M", "").unwrap();
    assert!(said.contains("Kernel memory settings are ignored"), "{said}");
}
