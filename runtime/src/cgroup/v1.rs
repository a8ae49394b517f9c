//! cgroup v1: one tree for each controller (or a few controllers together), and the hybrid layout, which has a v2 tree
//! beside them.

use super::devices::DeviceList;
use super::tree::{self, Made};
use super::write::{self, Absent, Write, Writes, set, text};
use super::{Cgroup, Entry, Missing, Paths, sub::SubCgroups, used, v2};
use crate::error::{Error, Kind, On, Result, invalid};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use orlop_sys::Errno;
use orlop_sys::signal::SIGKILL;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The trees in which the processes of a container are looked for: the first that is there. A container with a
/// writable cgroup mount may spread its processes over sub-cgroups of any of them, hence the recursion.
const PROCS: &[&str] = &["devices", "pids", "freezer", "memory", "cpu", "name=systemd", ""];

/// The cgroups of a container in the v1 trees, and in the hybrid layout in the v2 tree too.
#[derive(Debug)]
pub struct V1 {
    paths: Paths,
    missing: Missing,
    /// A cgroup of the freezer that is not frozen: our own.
    thawed: Option<PathBuf>,
}

impl V1 {
    /// Cgroups at these places, which need not exist yet. `explicit` says that config.json names the path.
    pub fn new(paths: Paths, explicit: bool) -> V1 {
        V1 { paths, missing: Missing::of(explicit), thawed: None }
    }

    /// `own` is the cgroup of the freezer that we are in.
    pub(super) fn thawed(mut self, own: Option<PathBuf>) -> V1 {
        self.thawed = own;
        self
    }

    /// See [`super::Request::rootless`].
    pub(super) fn rootless(mut self, rootless: Option<bool>) -> V1 {
        self.missing = self.missing.or(rootless);
        self
    }

    fn dir(&self, controller: &str) -> Option<&Path> {
        self.paths.get(controller).map(|dir| dir.as_path())
    }

    /// Every directory once: controllers that are mounted together share one.
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.paths.values().map(|dir| dir.as_path()).collect::<BTreeSet<_>>().into_iter()
    }

    /// Makes the directories and opens them for the init.
    fn make(&mut self, made: &mut Made, holder: Option<i32>) -> Result<Entry> {
        let mut entry = Entry::default();
        let mut dropped = Vec::new();
        let v2 = self.dir("");
        for dir in self.dirs() {
            match made.make(dir) {
                Ok(true) => {}
                // What is there already may be in use: its limits, and above all its end, would be ours too.
                Ok(false) => used(dir, holder)?,
                Err(e) if self.missing.accepts(&e) => {
                    dropped.push(dir.to_path_buf());
                    continue;
                }
                Err(e) => return Err(e).on("mkdir", format!("{dir:?}")).map_err(|e| self.missing.refused(e)),
            }
            match open(dir, Some(dir) == v2, &mut entry) {
                // A directory on which no tree is mounted, or one in which we may make cgroups but not enter them.
                Err(e) if e.kind() == ErrorKind::NotFound || self.missing.accepts(&e) => {
                    dropped.push(dir.to_path_buf())
                }
                result => result.on("open tasks of", format!("{dir:?}"))?,
            }
        }
        self.paths.retain(|_, dir| !dropped.contains(dir));
        made.unmake(&dropped);
        if let Some(dir) = self.dir("freezer")
            && !(made.has(dir) && dir.parent() == self.thawed.as_deref())
        {
            let path = dir.join("freezer.state");
            // A new cgroup is frozen if a parent is, which ours, in which we run, is not. The init would hang in it before its first step.
            if tree::read(&path).on("read", format!("{path:?}"))? != "THAWED" {
                return Err(super::unexpectedly_frozen(dir));
            }
        }
        Ok(entry)
    }

    fn apply(&self, resources: &LinuxResources, writes: &[Write]) -> Result<()> {
        let mut elsewhere = Vec::new();
        for group in writes.chunk_by(|a, b| a.controller() == b.controller()) {
            let Some(first) = group.first() else { continue };
            match self.dir(first.controller()) {
                Some(dir) => tree::apply(dir, &group.iter().collect::<Vec<_>>())?,
                None => elsewhere.push(first),
            }
        }
        if elsewhere.is_empty() { Ok(()) } else { self.apply_hybrid(resources, &elsewhere) }
    }

    /// In the hybrid layout a controller may be in the v2 tree instead (hugetlb often is).
    fn apply_hybrid(&self, resources: &LinuxResources, missing: &[&Write]) -> Result<()> {
        let on_v2 = |name: &str| if name == "blkio" { "io".to_string() } else { name.to_string() };
        let available = match self.dir("") {
            Some(_) => v2::controllers(Path::new(super::HYBRID))?,
            None => BTreeSet::new(),
        };
        if let Some(write) = missing.iter().find(|w| !available.contains(&on_v2(w.controller()))) {
            return Err(write.unavailable());
        }
        let Some(dir) = self.dir("") else { return Ok(()) };
        let names: BTreeSet<String> = missing.iter().map(|w| on_v2(w.controller())).collect();
        v2::enable(Path::new(super::HYBRID), dir, &names)?;
        let writes = v2::writes(resources)?;
        v2::apply(dir, &writes.iter().filter(|w| names.contains(w.controller())).collect::<Vec<_>>())
    }

    fn set_devices(&self, list: &DeviceList, fresh: bool) -> Result<()> {
        let set = match (self.dir("devices"), self.dir("")) {
            (Some(dir), _) => list.write_v1(dir, fresh),
            (None, Some(dir)) => list.attach(tree::directory(dir).on("open", format!("{dir:?}"))?.as_fd(), fresh),
            (None, None) if tree::unprivileged() => Ok(()),
            // Without it the container would have every device of the host.
            (None, None) => Err(invalid("linux.resources.devices", "the devices controller is not available")
                .hint("mount the devices controller below /sys/fs/cgroup, or cgroup v2")),
        };
        tree::devices_of_a_user(set)
    }

    fn freezer(&self) -> Result<&Path> {
        self.dir("freezer").ok_or_else(|| {
            Error::new(Kind::State, "cannot toggle freezer: cgroups not configured for container")
                .hint("the freezer controller is not available")
        })
    }

    fn procs_dir(&self) -> Option<&Path> {
        PROCS.iter().find_map(|controller| self.dir(controller)).or_else(|| self.dirs().next())
    }
}

impl Cgroup for V1 {
    fn create_around(&mut self, resources: Option<&LinuxResources>, holder: Option<i32>) -> Result<Entry> {
        let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
        let devices = DeviceList::new(rules)?;
        let writes = resources.map(writes).transpose()?.unwrap_or_default();
        let mut made = Made::default();
        let entry = self.make(&mut made, holder)?;
        if let Some(dir) = self.dir("cpuset") {
            let cpu = resources.and_then(|r| r.cpu().as_ref());
            let asked = [cpu.and_then(|c| text(c.cpus())), cpu.and_then(|c| text(c.mems()))];
            inherit(dir, asked.map(|value| value.is_some()), made.has(dir))?;
        }
        if let Some(resources) = resources {
            self.apply(resources, &writes)?;
        }
        let place = self.dir("devices").or(self.dir(""));
        self.set_devices(&devices, place.is_some_and(|dir| made.has(dir)))?;
        made.keep();
        Ok(entry)
    }

    fn enter(&self, sub: &[String]) -> Result<Entry> {
        let sub = SubCgroups::parse(sub, &self.paths)?;
        let mut entry = Entry::default();
        let mut done = BTreeSet::new();
        for (controller, dir) in &self.paths {
            let dir = sub.below(controller, dir)?;
            if done.insert(dir.clone()) {
                open(&dir, controller.is_empty(), &mut entry)
                    .on("adding pid to cgroups: open tasks of", format!("{dir:?}"))
                    .map_err(|e| sub.explain(e))?;
            }
        }
        Ok(entry)
    }

    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn attach(&self, pid: i32) -> Result<()> {
        self.dirs().try_for_each(|dir| tree::attach(dir, pid))
    }

    fn set(&self, resources: &LinuxResources) -> Result<()> {
        self.apply(resources, &writes(resources)?)?;
        match resources.devices() {
            Some(rules) => self.set_devices(&DeviceList::new(rules)?, false),
            None => Ok(()),
        }
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        let dir = match (self.dir("freezer"), self.dir("")) {
            (None, Some(v2)) => return v2::freeze(v2, frozen),
            _ => self.freezer()?,
        };
        let path = dir.join("freezer.state");
        let put = |state: &str| tree::write(&path, state).on(format!("write {state:?} to"), format!("{path:?}"));
        if !frozen {
            return put("THAWED");
        }
        // It must not stay half frozen.
        freeze(&path, put).inspect_err(|_| drop(put("THAWED")))
    }

    fn frozen(&self) -> Result<bool> {
        let Some(dir) = self.dir("freezer") else {
            return self.dir("").map_or(Ok(false), v2::frozen);
        };
        // FREEZING ends by itself, or never while new processes keep appearing; asked to freeze is what counts here.
        // A frozen parent alone is not a paused container.
        let path = dir.join("freezer.self_freezing");
        match tree::read(&path) {
            Err(e) if tree::gone(&e) => Ok(false),
            state => Ok(state.on("read", format!("{path:?}"))? == "1"),
        }
    }

    fn procs(&self) -> Result<Vec<i32>> {
        self.procs_dir().map_or(Ok(Vec::new()), tree::procs)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        if let (Some(dir), SIGKILL) = (self.dir(""), signal) {
            // In one step and without a race against forks. What is not in the v2 tree follows below.
            v2::kill(dir)?;
        }
        let sent = self.procs_dir().map_or(Ok(()), |dir| tree::kill(dir, signal));
        // On v1 a frozen process does not even die of SIGKILL until it is thawed.
        if signal == SIGKILL && self.frozen()? {
            self.freeze(false)?;
        }
        sent
    }

    fn remove(&self) -> Result<()> {
        tree::remove(self.dirs())
    }

    fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dir("memory") else {
            return self.dir("").map_or(0, v2::oom_kills);
        };
        tree::read(&dir.join("memory.oom_control")).ok().and_then(|text| tree::value_of(&text, "oom_kill")).unwrap_or(0)
    }
}

/// Freezing on v1 is not reliable while processes appear in the cgroup (by fork or by a write to cgroup.procs): the
/// state stays FREEZING until somebody writes again. Thawing and a pause now and then help the stuck cases.
fn freeze(path: &Path, put: impl Fn(&str) -> Result<()>) -> Result<()> {
    const TRIES: u32 = 1000;
    for i in 0..TRIES {
        if i % 50 == 49 {
            put("THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        put("FROZEN")?;
        if i % 25 == 24 {
            std::thread::sleep(Duration::from_micros(10));
        }
        match tree::read(path).on("read", format!("{path:?}"))?.as_str() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            state => {
                return Err(Error::new(Kind::System, format!("unexpected state {state:?} in {path:?} while freezing")));
            }
        }
    }
    Err(Errno::EBUSY.on("freeze", format!("{path:?}")).hint("processes kept appearing in the cgroup"))
}

/// Gives a cpuset its parent's CPUs and memory nodes where it has none and none are asked for, and the parent its own
/// parent's before: a new cpuset has neither, and then no process can enter it and no child can have any.
fn inherit(dir: &Path, asked: [bool; 2], fresh: bool) -> Result<()> {
    let get = |dir: &Path, file: &str| {
        let path = dir.join(file);
        tree::read(&path).on("read", format!("{path:?}"))
    };
    let Some(parent) = dir.parent() else { return Ok(()) };
    for (file, asked) in ["cpuset.cpus", "cpuset.mems"].into_iter().zip(asked) {
        if !fresh && !get(dir, file)?.is_empty() {
            continue;
        }
        let mut value = get(parent, file)?;
        if value.is_empty() {
            inherit(parent, [false; 2], false)?;
            value = get(parent, file)?;
        }
        if !asked {
            let path = dir.join(file);
            tree::write(&path, &value).on(format!("write {value:?} to"), format!("{path:?}"))?;
        }
    }
    Ok(())
}

/// Opens one cgroup for a process that is to enter it.
fn open(dir: &Path, v2: bool, entry: &mut Entry) -> std::io::Result<()> {
    if v2 {
        entry.dir = Some(tree::directory(dir)?.into());
    } else {
        entry.tasks.push(tree::writable(&dir.join("tasks"))?.into());
    }
    Ok(())
}

/// What the limits come down to on v1, grouped by controller.
///
/// # Errors
/// A value that the kernel would silently change, and `unified`, which is for v2.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut w = Writes::default();
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(invalid("linux.resources.unified", "invalid configuration: cannot use unified on cgroup v1"));
    }
    if let Some(cpu) = resources.cpu() {
        w.put("cpu.cpus", "cpuset.cpus", text(cpu.cpus()));
        w.put("cpu.mems", "cpuset.mems", text(cpu.mems()));
        cpu_writes(cpu, &mut w)?;
    }
    if let Some(memory) = resources.memory() {
        memory_writes(memory, &mut w)?;
    }
    if let Some(pids) = resources.pids() {
        w.put("pids.limit", "pids.max", Some(write::pids(pids.limit())));
    }
    block_io(resources, &mut w)?;
    for (i, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{i}]");
        let size = write::page_size(huge.page_size()).map_err(|e| e.within(&format!("linux.resources.{field}")))?;
        let limit = Some(huge.limit());
        w.put(&field, format!("hugetlb.{size}.limit_in_bytes"), limit);
        // The reservations have their own counter since 5.7; without this limit mmap would succeed and the access fail.
        w.put_or(&field, format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit, Absent::Skip);
    }
    if let Some(network) = resources.network() {
        w.put("network.classID", "net_cls.classid", set(network.class_id()));
        for (i, p) in network.priorities().iter().flatten().enumerate() {
            w.put(
                format!("network.priorities[{i}]"),
                "net_prio.ifpriomap",
                Some(format!("{} {}", p.name(), p.priority())),
            );
        }
    }
    super::rdma(resources, &mut w);
    Ok(w.0)
}

fn cpu_writes(cpu: &LinuxCpu, w: &mut Writes) -> Result<()> {
    w.put("cpu.shares", "cpu.shares", write::shares(cpu.shares())?);
    w.put("cpu.period", "cpu.cfs_period_us", set(cpu.period()));
    w.put("cpu.quota", "cpu.cfs_quota_us", set(cpu.quota()));
    w.put_or("cpu.burst", "cpu.cfs_burst_us", cpu.burst(), Absent::Skip); // since 5.14
    w.put("cpu.idle", "cpu.idle", cpu.idle());
    w.put("cpu.realtimePeriod", "cpu.rt_period_us", set(cpu.realtime_period()));
    w.put("cpu.realtimeRuntime", "cpu.rt_runtime_us", set(cpu.realtime_runtime()));
    Ok(())
}

fn memory_writes(memory: &LinuxMemory, w: &mut Writes) -> Result<()> {
    // memory.kernel is not written: the kernel dropped it in 5.16.
    w.put("memory.limit", "memory.limit_in_bytes", set(memory.limit()));
    match (memory.limit(), set(memory.swap())) {
        // No limit on memory alone would stay limited by the sum of memory and swap.
        (Some(-1), None) => w.put_or("memory.limit", "memory.memsw.limit_in_bytes", Some(-1), Absent::Skip),
        (_, swap) => w.put("memory.swap", "memory.memsw.limit_in_bytes", swap),
    }
    w.put("memory.reservation", "memory.soft_limit_in_bytes", set(memory.reservation()));
    w.put("memory.disableOOMKiller", "memory.oom_control", memory.disable_oom_killer().filter(|on| *on).map(|_| 1));
    match memory.swappiness() {
        None | Some(u64::MAX) => {} // -1 in engines that have it signed
        Some(n @ 0..=100) => w.put("memory.swappiness", "memory.swappiness", Some(n)),
        Some(n) => {
            let why = format!("invalid memory swappiness value: {n} (valid range is 0-100)");
            return Err(invalid("linux.resources.memory.swappiness", why));
        }
    }
    w.put("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", set(memory.kernel_tcp()));
    Ok(())
}

fn block_io(resources: &LinuxResources, w: &mut Writes) -> Result<()> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    if let Some(n) = write::weight("blockIO.weight", io.weight())? {
        w.put_or("blockIO.weight", "blkio.weight", Some(n), Absent::Instead("blkio.bfq.weight", n.to_string()));
    }
    w.put("blockIO.leafWeight", "blkio.leaf_weight", set(io.leaf_weight()));
    for (i, d) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO.weightDevice[{i}]");
        if let Some(n) = write::weight(format!("{field}.weight"), d.weight())? {
            let value = format!("{}:{} {n}", d.major(), d.minor());
            w.put_or(
                format!("{field}.weight"),
                "blkio.weight_device",
                Some(&value),
                Absent::Instead("blkio.bfq.weight_device", value.clone()),
            );
        }
        let leaf = set(d.leaf_weight()).map(|n| format!("{}:{} {n}", d.major(), d.minor()));
        w.put(format!("{field}.leafWeight"), "blkio.leaf_weight_device", leaf);
    }
    for (devices, name, file) in [
        (io.throttle_read_bps_device(), "throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
        (io.throttle_write_bps_device(), "throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
        (io.throttle_read_iops_device(), "throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
        (io.throttle_write_iops_device(), "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
    ] {
        for (i, d) in devices.iter().flatten().enumerate() {
            let value = format!("{}:{} {}", d.major(), d.minor(), d.rate());
            w.put(format!("blockIO.{name}[{i}]"), file, Some(value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: &str) -> Vec<(String, String)> {
        let resources = serde_json::from_str(json).unwrap();
        writes(&resources).unwrap().into_iter().map(|w| (w.file.into_owned(), w.value)).collect()
    }

    fn refusal(json: &str) -> String {
        writes(&serde_json::from_str(json).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn limits_become_writes() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("{}", &[]),
            (r#"{"memory":{},"cpu":{},"blockIO":{},"network":{}}"#, &[]),
            // 0 is what engines send for "not set", and an empty list or string says nothing.
            (
                r#"{"memory":{"limit":0,"swap":0,"reservation":0,"disableOOMKiller":false},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""},"blockIO":{"weight":0,"weightDevice":[]},"network":{"classID":0}}"#,
                &[],
            ),
            (
                r#"{"memory":{"limit":100,"swap":200,"reservation":50,"swappiness":60,"disableOOMKiller":true,"kernel":7,"kernelTCP":8}}"#,
                &[
                    ("memory.limit_in_bytes", "100"),
                    ("memory.memsw.limit_in_bytes", "200"),
                    ("memory.soft_limit_in_bytes", "50"),
                    ("memory.oom_control", "1"),
                    ("memory.swappiness", "60"),
                    ("memory.kmem.tcp.limit_in_bytes", "8"),
                ],
            ),
            (r#"{"memory":{"swappiness":0}}"#, &[("memory.swappiness", "0")]),
            (r#"{"memory":{"swappiness":18446744073709551615}}"#, &[]),
            (r#"{"memory":{"limit":-1}}"#, &[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")]),
            (
                r#"{"memory":{"limit":-1,"swap":5}}"#,
                &[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "5")],
            ),
            (
                r#"{"cpu":{"shares":512,"quota":20000,"period":50000,"burst":0,"idle":1,"realtimeRuntime":900,"realtimePeriod":1000,"cpus":"0-1","mems":"0"}}"#,
                &[
                    ("cpuset.cpus", "0-1"),
                    ("cpuset.mems", "0"),
                    ("cpu.shares", "512"),
                    ("cpu.cfs_period_us", "50000"),
                    ("cpu.cfs_quota_us", "20000"),
                    ("cpu.cfs_burst_us", "0"),
                    ("cpu.idle", "1"),
                    ("cpu.rt_period_us", "1000"),
                    ("cpu.rt_runtime_us", "900"),
                ],
            ),
            (r#"{"pids":{"limit":7}}"#, &[("pids.max", "7")]),
            (r#"{"pids":{"limit":0}}"#, &[("pids.max", "1")]),
            (r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")]),
            (
                r#"{"blockIO":{"weight":500,"leafWeight":300,"weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":300},{"major":8,"minor":16,"leafWeight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":300}]}}"#,
                &[
                    ("blkio.weight", "500"),
                    ("blkio.leaf_weight", "300"),
                    ("blkio.weight_device", "8:0 500"),
                    ("blkio.leaf_weight_device", "8:0 300"),
                    ("blkio.leaf_weight_device", "8:16 10"),
                    ("blkio.throttle.read_bps_device", "8:0 600"),
                    ("blkio.throttle.write_iops_device", "8:16 300"),
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
                &[("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")],
            ),
            (
                r#"{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":5},{"name":"eth0","priority":6}]}}"#,
                &[("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "lo 5"), ("net_prio.ifpriomap", "eth0 6")],
            ),
            (
                r#"{"rdma":{"mlx5_1":{"hcaHandles":3},"mlx4_0":{"hcaHandles":2,"hcaObjects":2000}}}"#,
                &[("rdma.max", "mlx4_0 hca_handle=2 hca_object=2000"), ("rdma.max", "mlx5_1 hca_handle=3")],
            ),
            (r#"{"unified":{}}"#, &[]),
        ];
        for (json, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(f, v)| (f.to_string(), v.to_string())).collect();
            assert_eq!(table(json), expected, "{json}");
        }
    }

    #[test]
    fn impossible_limits_name_their_field() {
        for (json, expected) in [
            (
                r#"{"unified":{"memory.min":"1"}}"#,
                "linux.resources.unified: invalid configuration: cannot use unified on cgroup v1",
            ),
            (
                r#"{"memory":{"swappiness":101}}"#,
                "linux.resources.memory.swappiness: invalid memory swappiness value: 101 (valid range is 0-100)",
            ),
            (r#"{"cpu":{"shares":1}}"#, "linux.resources.cpu.shares: the minimum allowed cpu-shares is 2"),
            (r#"{"cpu":{"shares":262145}}"#, "linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144"),
            (r#"{"blockIO":{"weight":5}}"#, "linux.resources.blockIO.weight: 5 is not a weight (10 to 1000)"),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"2MB/../../memory.limit","limit":0}]}"#,
                "linux.resources.hugepageLimits[1].pageSize: \"2MB/../../memory.limit\" is not a size such as 64KB, 2MB or 1GB",
            ),
        ] {
            assert_eq!(refusal(json), expected, "{json}");
        }
    }

    #[test]
    fn every_write_names_its_field() {
        let json = r#"{"memory":{"limit":1,"disableOOMKiller":true},"cpu":{"cpus":"0","realtimeRuntime":1},"blockIO":{"throttleReadIOPSDevice":[{"major":1,"minor":2,"rate":3}]},"pids":{"limit":1}}"#;
        let fields: Vec<_> =
            writes(&serde_json::from_str(json).unwrap()).unwrap().into_iter().map(|w| w.field).collect();
        assert_eq!(
            fields,
            [
                "linux.resources.cpu.cpus",
                "linux.resources.cpu.realtimeRuntime",
                "linux.resources.memory.limit",
                "linux.resources.memory.disableOOMKiller",
                "linux.resources.pids.limit",
                "linux.resources.blockIO.throttleReadIOPSDevice[0]",
            ]
        );
    }
}
