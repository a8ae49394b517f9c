//! cgroup v2: one tree for all controllers, with devices as eBPF.

use super::devices::DeviceList;
use super::tree::{self, Made};
use super::write::{self, Absent, Write, Writes, set, text};
use super::{Cgroup, Entry, Missing, Paths, delegate, sub::SubCgroups, used};
use crate::error::{Error, Kind, On, Result, invalid};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use orlop_sys::Errno;
use orlop_sys::signal::SIGKILL;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long [`freeze`] waits for the kernel; a process in uninterruptible sleep delays it.
const FREEZE: Duration = Duration::from_secs(10);

/// Controllers that work on single threads; the others need a cgroup of type `domain` (cgroups(7)).
const THREADED: &[&str] = &["cpu", "cpuset", "perf_event", "pids"];

/// The cgroup of a container in the v2 tree.
#[derive(Debug)]
pub struct V2 {
    /// Where the tree is mounted.
    root: PathBuf,
    paths: Paths,
    missing: Missing,
}

impl V2 {
    /// A cgroup at this place in the tree that is mounted on `root`. It need not exist yet. `explicit` says that
    /// config.json names the path: then a missing permission is an error even for a rootless container.
    pub fn new(root: &Path, dir: PathBuf, explicit: bool) -> V2 {
        let paths = Paths::from([(String::new(), dir)]);
        V2 { root: root.to_path_buf(), paths, missing: Missing::of(explicit) }
    }

    /// See [`super::Request::rootless`].
    pub(super) fn rootless(mut self, rootless: Option<bool>) -> V2 {
        self.missing = self.missing.or(rootless);
        self
    }

    fn dir(&self) -> Option<&Path> {
        self.paths.get("").map(|dir| dir.as_path())
    }

    fn each<T: Default>(&self, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.dir().map_or_else(|| Ok(T::default()), f)
    }
}

impl Cgroup for V2 {
    fn create_around(&mut self, resources: Option<&LinuxResources>, holder: Option<i32>) -> Result<Entry> {
        let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
        let devices = DeviceList::new(rules)?;
        let writes = resources.map(writes).transpose()?.unwrap_or_default();
        let Some(dir) = self.dir() else { return Ok(Entry::default()) };
        let mut made = Made::default();
        let fresh = match made.make(dir) {
            Ok(fresh) => fresh,
            Err(e) if self.missing.accepts(&e) => {
                let Some(limit) = writes.first() else {
                    self.paths.clear();
                    return Ok(Entry::default());
                };
                let why = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
                let hint = format!("have {:?} delegated to you, or leave the limits out", dir.parent().unwrap_or(dir));
                let e = Err(e).on("mkdir", format!("{dir:?}"));
                return e.map_err(|e: Error| Error::new(Kind::System, why).at(limit.field.clone()).also(e).hint(hint));
            }
            Err(e) => return Err(e).on("mkdir", format!("{dir:?}")).map_err(|e| self.missing.refused(e)),
        };
        if !fresh {
            used(dir, holder)?;
        }
        // Every controller that there is, whether limited or not: the statistics of a container come from them too.
        let wanted = controllers(&self.root)?;
        if !fresh || !controllers(dir)?.is_superset(&wanted) {
            enable(&self.root, dir, &wanted)?;
            check_type(dir, &writes)?;
        }
        // A new cgroup is frozen if a parent is. The init would hang in it before its first step.
        let events = dir.join("cgroup.events");
        if tree::value_of(&tree::read(&events).on("read", format!("{events:?}"))?, "frozen") == Some(1) {
            return Err(super::unexpectedly_frozen(dir));
        }
        apply(dir, &writes.iter().collect::<Vec<_>>())?;
        let fd = tree::directory(dir).on("open", format!("{dir:?}"))?;
        tree::devices_of_a_user(devices.attach(fd.as_fd(), fresh))?;
        made.keep();
        Ok(Entry { dir: Some(fd.into()), ..Entry::default() })
    }

    fn enter(&self, sub: &[String]) -> Result<Entry> {
        let sub = SubCgroups::parse(sub, &self.paths)?;
        let Some(dir) = self.dir() else { return Ok(Entry::default()) };
        let dir = sub.below("", dir)?;
        let fd =
            tree::directory(&dir).on("adding pid to cgroups: open", format!("{dir:?}")).map_err(|e| sub.explain(e))?;
        Ok(Entry { dir: Some(fd.into()), ..Entry::default() })
    }

    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn attach(&self, pid: i32) -> Result<()> {
        self.each(|dir| tree::attach(dir, pid))
    }

    fn give(&self, uid: u32) -> Result<()> {
        self.each(|dir| delegate::give(dir, uid))
    }

    fn delegate(&self, sub: &str, pid: i32, owner: Option<u32>) -> Result<()> {
        self.each(|dir| delegate::enter(dir, sub, pid, owner))
    }

    fn set(&self, resources: &LinuxResources) -> Result<()> {
        let writes = writes(resources)?;
        let Some(dir) = self.dir() else {
            return writes.first().map_or(Ok(()), |write| Err(write.unavailable()));
        };
        if let Some(memory) = resources.memory() {
            check_usage(dir, memory)?;
        }
        apply(dir, &writes.iter().collect::<Vec<_>>())?;
        match resources.devices() {
            Some(rules) => {
                let fd = tree::directory(dir).on("open", format!("{dir:?}"))?;
                tree::devices_of_a_user(DeviceList::new(rules)?.attach(fd.as_fd(), false))
            }
            None => Ok(()),
        }
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        match self.dir() {
            Some(dir) => freeze(dir, frozen),
            None => Err(Error::new(Kind::State, "cannot toggle freezer: cgroups not configured for container")),
        }
    }

    fn frozen(&self) -> Result<bool> {
        self.each(frozen)
    }

    fn procs(&self) -> Result<Vec<i32>> {
        self.each(tree::procs)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.each(|dir| {
            // A frozen process dies of SIGKILL on v2; other signals wait until it is thawed.
            if signal == SIGKILL && kill(dir)? { Ok(()) } else { tree::kill(dir, signal) }
        })
    }

    fn remove(&self) -> Result<()> {
        tree::remove(self.dir().into_iter())
    }

    fn oom_kills(&self) -> u64 {
        self.dir().map_or(0, oom_kills)
    }
}

/// The controllers that a cgroup can use.
pub fn controllers(dir: &Path) -> Result<BTreeSet<String>> {
    let path = dir.join("cgroup.controllers");
    let text = tree::read(&path).on("read", format!("{path:?}"))?;
    Ok(text.split_whitespace().map(str::to_string).collect())
}

/// Enables controllers on the way from the root of the tree down to `dir`, in all its ancestors. One that cannot be
/// enabled (not delegated, or an ancestor with processes of its own) is an error only when a limit needs it.
pub fn enable(root: &Path, dir: &Path, controllers: &BTreeSet<String>) -> Result<()> {
    let mut ancestors: Vec<&Path> = dir.ancestors().skip(1).take_while(|a| a.starts_with(root)).collect();
    ancestors.reverse();
    let all: Vec<String> = controllers.iter().map(|c| format!("+{c}")).collect();
    for ancestor in ancestors {
        let path = ancestor.join("cgroup.subtree_control");
        // All at once, and one by one if one of them spoils it.
        if tree::write(&path, &all.join(" ")).is_err() {
            for one in &all {
                if let Err(e) = tree::write(&path, one) {
                    log::debug!("write {one:?} to {path:?}: {e}");
                }
            }
        }
    }
    Ok(())
}

/// A cgroup below one with threaded children is of no use for processes as it is: it can become threaded itself, but
/// then it has no memory, io or hugetlb limits.
fn check_type(dir: &Path, writes: &[Write]) -> Result<()> {
    let path = dir.join("cgroup.type");
    let kind = tree::read(&path).on("read", format!("{path:?}"))?;
    let Some(write) = writes.iter().find(|w| !THREADED.contains(&w.controller())) else {
        return match kind.as_str() {
            "domain invalid" => tree::write(&path, "threaded").on("write \"threaded\" to", format!("{path:?}")),
            _ => Ok(()),
        };
    };
    let state = match kind.as_str() {
        "domain invalid" => "an invalid state",
        "domain threaded" => "domain threaded mode",
        "threaded" => "threaded mode",
        _ => return Ok(()),
    };
    Err(invalid(
        write.field.clone(),
        format!("cannot enter cgroupv2 {dir:?} with domain controllers -- it is in {state}"),
    )
    .hint("an ancestor has threads or processes of its own: choose another linux.cgroupsPath"))
}

/// Applies writes, and says which controller is missing if that is the reason for a failure.
pub fn apply(dir: &Path, writes: &[&Write]) -> Result<()> {
    tree::apply(dir, writes).map_err(|e| {
        let absent = matches!(e.errno(), Some(Errno::ENOENT | Errno::EACCES | Errno::EPERM));
        let write = writes.iter().find(|w| Some(w.field.as_str()) == e.field());
        let Some(write) = write.filter(|w| absent && w.controller() != "cgroup") else { return e };
        if controllers(dir).is_ok_and(|have| have.contains(write.controller())) {
            // io.weight, for one, is there only with an I/O scheduler or cost model that knows weights.
            return if e.errno() == Some(Errno::ENOENT) { e.hint("this kernel does not offer that limit") } else { e };
        }
        if write.field.starts_with(UNIFIED) {
            let (file, controller) = (&write.file, write.controller());
            let why = format!("unified resource {file:?} can't be set: controller {controller:?} not available");
            return invalid(write.field.clone(), why);
        }
        write.unavailable()
    })
}

/// `checkBeforeUpdate`: v1 refuses a limit below what is in use; v2 takes it and kills.
pub(super) fn check_usage(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    if memory.check_before_update() != Some(true) {
        return Ok(());
    }
    // The best that can be done: usage goes on while we look, and may be unreadable.
    let Some(usage) = tree::read(&dir.join("memory.current")).ok().and_then(|n| n.parse::<i64>().ok()) else {
        return Ok(());
    };
    for (field, name, limit) in [("swap", "memory+swap", memory.swap()), ("limit", "memory", memory.limit())] {
        if let Some(limit) = limit.filter(|limit| (1..=usage).contains(limit)) {
            let why = format!("rejecting {name} limit {limit} <= usage {usage}");
            return Err(invalid(format!("linux.resources.memory.{field}"), why));
        }
    }
    Ok(())
}

/// Freezes or thaws a cgroup and waits until it is done.
pub fn freeze(dir: &Path, frozen: bool) -> Result<()> {
    let path = dir.join("cgroup.freeze");
    let state = if frozen { "1" } else { "0" };
    tree::write(&path, state).on(format!("write {state:?} to"), format!("{path:?}"))?;
    wait(dir, frozen).inspect_err(|_| {
        // It must not stay half frozen.
        if frozen {
            let _ = tree::write(&path, "0");
        }
    })
}

fn wait(dir: &Path, frozen: bool) -> Result<()> {
    let path = dir.join("cgroup.events");
    let deadline = Instant::now() + FREEZE;
    let mut pause = Duration::from_micros(50);
    loop {
        let text = tree::read(&path).on("read", format!("{path:?}"))?;
        // A thawed cgroup stays frozen while a parent is; that is not ours to wait for.
        if !frozen || tree::value_of(&text, "frozen") == Some(1) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Errno::ETIMEDOUT
                .on("freeze", format!("{dir:?}"))
                .hint("a process is in uninterruptible sleep"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Whether the cgroup itself was frozen (a frozen parent alone is not a paused container), once that is complete.
pub fn frozen(dir: &Path) -> Result<bool> {
    let path = dir.join("cgroup.freeze");
    match tree::read(&path) {
        Err(e) if tree::gone(&e) => Ok(false),
        state => match state.on("read", format!("{path:?}"))?.as_str() {
            "1" => wait(dir, true).map(|()| true),
            _ => Ok(false),
        },
    }
}

/// Kills everything in the cgroup and below in one step, forks included. False: the kernel (before 5.14) cannot.
pub fn kill(dir: &Path) -> Result<bool> {
    let path = dir.join("cgroup.kill");
    match tree::write(&path, "1") {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) if tree::gone(&e) => Ok(true),
        // A threaded cgroup has no processes to kill.
        Err(e) if e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(false),
        Err(e) => Err(e).on("write \"1\" to", format!("{path:?}")),
    }
}

/// How many processes of the cgroup and below the OOM killer has killed.
pub fn oom_kills(dir: &Path) -> u64 {
    tree::read(&dir.join("memory.events")).ok().and_then(|text| tree::value_of(&text, "oom_kill")).unwrap_or(0)
}

const UNIFIED: &str = "linux.resources.unified";

/// What the limits come down to on v2, `unified` last, so that it has the last word.
///
/// # Errors
/// A value that cannot be converted, and a limit that v2 does not have.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut w = Writes::default();
    if let Some(pids) = resources.pids() {
        w.put("pids.limit", "pids.max", Some(write::pids(pids.limit())));
    }
    if let Some(memory) = resources.memory() {
        memory_writes(memory, &mut w)?;
    }
    if let Some(io) = resources.block_io() {
        io_writes(io, &mut w)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_writes(cpu, &mut w)?;
    }
    for (i, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{i}]");
        let size = write::page_size(huge.page_size()).map_err(|e| e.within(&format!("linux.resources.{field}")))?;
        let limit = if huge.limit() < 0 { "max".to_string() } else { huge.limit().to_string() };
        w.put(&field, format!("hugetlb.{size}.max"), Some(&limit));
        // The reservations have their own counter since 5.7; without this limit mmap would succeed and the access fail.
        w.put_or(&field, format!("hugetlb.{size}.rsvd.max"), Some(&limit), Absent::Skip);
    }
    if let Some(network) = resources.network() {
        let asked = [
            ("classID", set(network.class_id()).is_some()),
            ("priorities", network.priorities().iter().flatten().next().is_some()),
        ];
        if let Some((field, _)) = asked.iter().find(|(_, asked)| *asked) {
            return Err(invalid(
                format!("linux.resources.network.{field}"),
                "cgroup v2 has no net_cls and net_prio controllers",
            )
            .hint("match the cgroup's path in nftables or eBPF instead"));
        }
    }
    super::rdma(resources, &mut w);
    unified(resources, &mut w)?;
    Ok(w.0)
}

fn memory_writes(memory: &LinuxMemory, w: &mut Writes) -> Result<()> {
    let limit = |n: Option<i64>| set(n).map(|n| if n == -1 { "max".to_string() } else { n.to_string() });
    match swap(memory.limit(), memory.swap())?.as_deref() {
        // Without swap accounting there is nothing to switch off and nothing to set free.
        Some(value @ ("max" | "0")) => w.put_or("memory.swap", "memory.swap.max", Some(value), Absent::Skip),
        value => w.put("memory.swap", "memory.swap.max", value),
    }
    w.put("memory.limit", "memory.max", limit(memory.limit()));
    w.put("memory.reservation", "memory.low", limit(memory.reservation()));
    // Engines send these to v2 hosts as well, and runc starts such containers too.
    for (asked, field) in [
        (memory.swappiness().is_some_and(|n| n != u64::MAX), "swappiness"),
        (memory.disable_oom_killer() == Some(true), "disableOOMKiller"),
        (set(memory.kernel_tcp()).is_some(), "kernelTCP"),
    ] {
        if asked {
            log::warn!("linux.resources.memory.{field} has no effect: cgroup v2 does not have it");
        }
    }
    Ok(())
}

/// config.json has the sum of memory and swap, as v1 does; v2 counts swap alone.
pub(super) fn swap(limit: Option<i64>, sum: Option<i64>) -> Result<Option<String>> {
    let field = "linux.resources.memory.swap";
    match (limit.unwrap_or(0), sum.unwrap_or(0)) {
        (-1, 0) | (_, -1) => Ok(Some("max".to_string())),
        (_, 0) => Ok(None),
        (-1, sum) => Ok(Some(sum.to_string())),
        (0, _) => Err(invalid(field, "unable to set swap limit without memory limit")),
        (limit, sum) if limit < 0 || sum < 0 => {
            Err(invalid(field, format!("invalid memory value: {}", limit.min(sum))))
        }
        (limit, sum) if sum < limit => Err(invalid(field, "memory+swap limit should be >= memory limit")),
        (limit, sum) => Ok(Some((sum - limit).to_string())),
    }
}

fn cpu_writes(cpu: &LinuxCpu, w: &mut Writes) -> Result<()> {
    if set(cpu.realtime_runtime()).is_some() || set(cpu.realtime_period()).is_some() {
        let field = if set(cpu.realtime_runtime()).is_some() { "realtimeRuntime" } else { "realtimePeriod" };
        return Err(invalid(
            format!("linux.resources.cpu.{field}"),
            "cgroup v2 has no limits for real-time scheduling",
        ));
    }
    w.put("cpu.idle", "cpu.idle", cpu.idle());
    w.put("cpu.shares", "cpu.weight", set(cpu.shares()).map(cpu_weight));
    let quota = |n: i64| if n < 0 { "max".to_string() } else { n.to_string() };
    // A quota alone leaves the period as it is; a period cannot be written without a quota.
    let max = match (set(cpu.quota()), set(cpu.period())) {
        (None, None) => None,
        (Some(n), None) => Some(quota(n)),
        (n, Some(period)) => Some(format!("{} {period}", quota(n.unwrap_or(-1)))),
    };
    w.put(if set(cpu.quota()).is_some() { "cpu.quota" } else { "cpu.period" }, "cpu.max", max);
    w.put("cpu.burst", "cpu.max.burst", cpu.burst());
    w.put("cpu.cpus", "cpuset.cpus", text(cpu.cpus()));
    w.put("cpu.mems", "cpuset.mems", text(cpu.mems()));
    Ok(())
}

/// v1's cpu.shares (2 to 262144, 1024 by default) as v2's cpu.weight (1 to 10000, 100 by default). The curve is a
/// quadratic one in the logarithms through these three points, as in current runc and crun (the straight line that
/// older runtimes used gives the default of 1024 a weight of 39).
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// A blockIO weight (10 to 1000) as io.weight has it (1 to 10000); io.bfq.weight takes the first as it is.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

fn io_writes(io: &LinuxBlockIo, w: &mut Writes) -> Result<()> {
    if let Some(n) = write::weight("blockIO.weight", io.weight())? {
        w.put_or("blockIO.weight", "io.bfq.weight", Some(n), Absent::Instead("io.weight", io_weight(n).to_string()));
    }
    for (i, d) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO.weightDevice[{i}].weight");
        if let Some(n) = write::weight(&field, d.weight())? {
            let device = format!("{}:{}", d.major(), d.minor());
            let instead = Absent::Instead("io.weight", format!("{device} {}", io_weight(n)));
            w.put_or(field, "io.bfq.weight", Some(format!("{device} {n}")), instead);
        }
    }
    if set(io.leaf_weight()).is_some() {
        log::warn!("linux.resources.blockIO.leafWeight has no effect: cgroup v2 does not have it");
    }
    for (devices, name, key) in [
        (io.throttle_read_bps_device(), "throttleReadBpsDevice", "rbps"),
        (io.throttle_write_bps_device(), "throttleWriteBpsDevice", "wbps"),
        (io.throttle_read_iops_device(), "throttleReadIOPSDevice", "riops"),
        (io.throttle_write_iops_device(), "throttleWriteIOPSDevice", "wiops"),
    ] {
        for (i, d) in devices.iter().flatten().enumerate() {
            let value = format!("{}:{} {key}={}", d.major(), d.minor(), d.rate());
            w.put(format!("blockIO.{name}[{i}]"), "io.max", Some(value));
        }
    }
    Ok(())
}

fn unified(resources: &LinuxResources, w: &mut Writes) -> Result<()> {
    for (file, value) in resources.unified().iter().flatten().collect::<BTreeMap<_, _>>() {
        let field = format!("{UNIFIED}.{file}");
        if file.contains('/') {
            return Err(invalid(field, format!("unified resource {file:?} must be a file name (no slashes)")));
        }
        if !file.split_once('.').is_some_and(|(controller, name)| !controller.is_empty() && !name.is_empty()) {
            return Err(invalid(field, format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER")));
        }
        // Files such as io.max take one line with each write(2).
        for line in value.lines().filter(|line| !line.is_empty()) {
            w.put(format!("unified.{file}"), Cow::Owned(file.clone()), Some(line));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_writes() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("{}", &[]),
            (
                r#"{"memory":{"limit":0,"swap":0,"reservation":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},"blockIO":{"weight":0}}"#,
                &[],
            ),
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":50,"kernel":9}}"#,
                &[("memory.swap.max", "50"), ("memory.max", "100"), ("memory.low", "50")],
            ),
            // Equal sums mean no swap at all, which is not the same as not set.
            (r#"{"memory":{"limit":100,"swap":100}}"#, &[("memory.swap.max", "0"), ("memory.max", "100")]),
            (r#"{"memory":{"limit":100,"swap":-1}}"#, &[("memory.swap.max", "max"), ("memory.max", "100")]),
            (r#"{"memory":{"limit":-1}}"#, &[("memory.swap.max", "max"), ("memory.max", "max")]),
            (r#"{"memory":{"limit":-1,"swap":7}}"#, &[("memory.swap.max", "7"), ("memory.max", "max")]),
            (r#"{"memory":{"swap":-1}}"#, &[("memory.swap.max", "max")]),
            (r#"{"memory":{"swappiness":10,"disableOOMKiller":true}}"#, &[]),
            (
                r#"{"cpu":{"shares":1024,"quota":20000,"period":50000,"burst":10,"idle":0,"cpus":"0-1","mems":"0"}}"#,
                &[
                    ("cpu.idle", "0"),
                    ("cpu.weight", "100"),
                    ("cpu.max", "20000 50000"),
                    ("cpu.max.burst", "10"),
                    ("cpuset.cpus", "0-1"),
                    ("cpuset.mems", "0"),
                ],
            ),
            (r#"{"cpu":{"quota":20000}}"#, &[("cpu.max", "20000")]),
            (r#"{"cpu":{"quota":-1}}"#, &[("cpu.max", "max")]),
            (r#"{"cpu":{"period":50000}}"#, &[("cpu.max", "max 50000")]),
            (r#"{"cpu":{"quota":-1,"period":50000}}"#, &[("cpu.max", "max 50000")]),
            (r#"{"pids":{"limit":0}}"#, &[("pids.max", "1")]),
            (r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")]),
            (
                r#"{"blockIO":{"weight":750,"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":4}]}}"#,
                &[
                    ("io.bfq.weight", "750"),
                    ("io.bfq.weight", "8:0 10"),
                    ("io.max", "8:0 rbps=1"),
                    ("io.max", "8:0 wbps=2"),
                    ("io.max", "8:0 riops=3"),
                    ("io.max", "8:0 wiops=4"),
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"1GB","limit":0},{"pageSize":"64KB","limit":-1}]}"#,
                &[
                    ("hugetlb.1GB.max", "0"),
                    ("hugetlb.1GB.rsvd.max", "0"),
                    ("hugetlb.64KB.max", "max"),
                    ("hugetlb.64KB.rsvd.max", "max"),
                ],
            ),
            (r#"{"rdma":{"mlx4_0":{"hcaObjects":5}}}"#, &[("rdma.max", "mlx4_0 hca_object=5")]),
            // unified comes last and a line at a time.
            (
                r#"{"unified":{"memory.max":"5","io.max":"8:0 rbps=1\n8:16 rbps=2\n"},"memory":{"limit":9}}"#,
                &[("memory.max", "9"), ("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2"), ("memory.max", "5")],
            ),
        ];
        for (json, expected) in cases {
            let got: Vec<_> = writes(&serde_json::from_str(json).unwrap())
                .unwrap()
                .into_iter()
                .map(|w| (w.file.into_owned(), w.value))
                .collect();
            let expected: Vec<_> = expected.iter().map(|(f, v)| (f.to_string(), v.to_string())).collect();
            assert_eq!(got, expected, "{json}");
        }
    }

    #[test]
    fn impossible_limits_name_their_field() {
        for (json, expected) in [
            (
                r#"{"memory":{"swap":100}}"#,
                "linux.resources.memory.swap: unable to set swap limit without memory limit",
            ),
            (
                r#"{"memory":{"limit":100,"swap":50}}"#,
                "linux.resources.memory.swap: memory+swap limit should be >= memory limit",
            ),
            (r#"{"memory":{"limit":-2,"swap":50}}"#, "linux.resources.memory.swap: invalid memory value: -2"),
            (
                r#"{"cpu":{"realtimePeriod":1}}"#,
                "linux.resources.cpu.realtimePeriod: cgroup v2 has no limits for real-time scheduling",
            ),
            (
                r#"{"network":{"classID":1}}"#,
                "linux.resources.network.classID: cgroup v2 has no net_cls and net_prio controllers",
            ),
            (
                r#"{"unified":{"../memory.max":"1"}}"#,
                "linux.resources.unified.../memory.max: unified resource \"../memory.max\" must be a file name (no slashes)",
            ),
            (
                r#"{"unified":{"memory":"1"}}"#,
                "linux.resources.unified.memory: unified resource \"memory\" must be in the form CONTROLLER.PARAMETER",
            ),
            (
                r#"{"blockIO":{"weightDevice":[{"major":1,"minor":1,"weight":1001}]}}"#,
                "linux.resources.blockIO.weightDevice[0].weight: 1001 is not a weight (10 to 1000)",
            ),
        ] {
            let got = writes(&serde_json::from_str(json).unwrap()).unwrap_err().to_string();
            assert!(got.starts_with(expected), "{json}: {got}");
        }
    }

    #[test]
    fn weights_meet_at_the_ends_and_the_defaults() {
        for (shares, weight) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (100, 17),
            (200, 29),
            (1024, 100),
            (262_143, 10_000),
            (262_144, 10_000),
            (999_999, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "shares {shares}");
        }
        for (io, weight) in [(10, 1), (100, 910), (750, 7475), (1000, 10_000)] {
            assert_eq!(io_weight(io), weight, "weight {io}");
        }
    }
}
