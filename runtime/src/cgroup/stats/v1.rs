//! The counters of the v1 controllers (kernel documentation, admin-guide/cgroup-v1).

use super::{Blkio, BlkioEntry, Cpuset, Dir, Hugetlb, Memory, NO_LIMIT, Pids, Stats, Usage, page_sizes};
use crate::cgroup::Paths;
use crate::error::Result;

/// `cpuacct.stat` counts in ticks of USER_HZ, which is 100 on every architecture that we build for (time(7)).
const TICK: u64 = 10_000_000;

pub(super) fn read(paths: &Paths) -> Result<Stats> {
    let dir = |controller: &str| paths.get(controller).map(|dir| Dir(dir));
    let mut stats = Stats::default();
    if let Some(dir) = dir("cpuacct") {
        time(dir, &mut stats)?;
    }
    if let Some(table) = dir("cpu").map(|dir| dir.table("cpu.stat")).transpose()?.flatten() {
        let of = |name: &str| table.get(name).copied().unwrap_or_default();
        stats.cpu.throttling.periods = of("nr_periods");
        stats.cpu.throttling.throttled_periods = of("nr_throttled");
        stats.cpu.throttling.throttled_time = of("throttled_time");
    }
    if let Some(dir) = dir("cpuset") {
        stats.cpuset = cpuset(dir)?;
    }
    if let Some(dir) = dir("memory") {
        stats.memory = memory(dir)?;
    }
    if let Some(dir) = dir("pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = dir("blkio") {
        stats.blkio = blkio(dir)?;
    }
    if let Some(dir) = dir("hugetlb") {
        for size in page_sizes() {
            stats.hugetlb.extend(hugetlb(dir, &size)?.map(|pages| (size, pages)));
        }
    }
    Ok(stats)
}

fn time(dir: Dir<'_>, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    let modes = dir.table("cpuacct.stat")?.unwrap_or_default();
    let ticks = |mode: &str| modes.get(mode).copied().unwrap_or_default().saturating_mul(TICK);
    (usage.user, usage.kernel) = (ticks("user"), ticks("system"));
    usage.total = dir.count("cpuacct.usage")?;
    let file = "cpuacct.usage_percpu";
    let each = dir.text(file)?.unwrap_or_default();
    usage.percpu = each.split_ascii_whitespace().map(|value| dir.parsed(file, value)).collect::<Result<_>>()?;
    let file = "cpuacct.usage_all";
    // Below a header, lines of CPU, user mode, kernel.
    for line in dir.text(file)?.unwrap_or_default().lines().skip(1) {
        let mut fields = line.split(' ').skip(1);
        let (Some(user), Some(kernel)) = (fields.next(), fields.next()) else { return Err(dir.malformed(file, line)) };
        usage.percpu_user.push(dir.parsed(file, user)?);
        usage.percpu_kernel.push(dir.parsed(file, kernel)?);
    }
    Ok(())
}

fn cpuset(dir: Dir<'_>) -> Result<Cpuset> {
    let level = "cpuset.sched_relax_domain_level";
    Ok(Cpuset {
        cpus: dir.list("cpuset.cpus")?,
        cpu_exclusive: dir.count("cpuset.cpu_exclusive")?,
        mems: dir.list("cpuset.mems")?,
        mem_hardwall: dir.count("cpuset.mem_hardwall")?,
        mem_exclusive: dir.count("cpuset.mem_exclusive")?,
        memory_migrate: dir.count("cpuset.memory_migrate")?,
        memory_spread_page: dir.count("cpuset.memory_spread_page")?,
        memory_spread_slab: dir.count("cpuset.memory_spread_slab")?,
        memory_pressure: dir.count("cpuset.memory_pressure")?,
        sched_load_balance: dir.count("cpuset.sched_load_balance")?,
        sched_relax_domain_level: match dir.text(level)? {
            Some(text) => text.trim().parse().map_err(|_| dir.malformed(level, &text))?,
            None => 0,
        },
    })
}

fn memory(dir: Dir<'_>) -> Result<Memory> {
    let raw = dir.table("memory.stat")?.unwrap_or_default();
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or_default(),
        usage: usage(dir, "memory")?,
        swap: usage(dir, "memory.memsw")?,
        kernel: usage(dir, "memory.kmem")?,
        kernel_tcp: usage(dir, "memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

/// Swap and kernel memory are not counted on every host.
fn usage(dir: Dir<'_>, kind: &str) -> Result<Usage> {
    let count = |what: &str| dir.count(&format!("{kind}.{what}"));
    Ok(Usage {
        limit: count("limit_in_bytes")?,
        usage: count("usage_in_bytes")?,
        max: count("max_usage_in_bytes")?,
        failcnt: count("failcnt")?,
    })
}

pub(super) fn pids(dir: Dir<'_>) -> Result<Pids> {
    let limit = dir.count("pids.max")?;
    Ok(Pids { current: dir.count("pids.current")?, limit: if limit == NO_LIMIT { 0 } else { limit } })
}

fn hugetlb(dir: Dir<'_>, size: &str) -> Result<Option<Hugetlb>> {
    for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
        if let Some(usage) = dir.number(&format!("{prefix}.usage_in_bytes"))? {
            let max = dir.count(&format!("{prefix}.max_usage_in_bytes"))?;
            let failcnt = dir.count(&format!("{prefix}.failcnt"))?;
            return Ok(Some(Hugetlb { usage, max, failcnt }));
        }
    }
    Ok(None)
}

type List = fn(&mut Blkio) -> &mut Vec<BlkioEntry>;

/// The statistics of an I/O scheduler, each in a file `PREFIX.NAME_recursive`.
const OF_SCHEDULERS: &[(&str, List)] = &[
    ("sectors", |b| &mut b.sectors_recursive),
    ("io_service_time", |b| &mut b.io_service_time_recursive),
    ("io_wait_time", |b| &mut b.io_wait_time_recursive),
    ("io_merged", |b| &mut b.io_merged_recursive),
    ("io_queued", |b| &mut b.io_queued_recursive),
    ("time", |b| &mut b.io_time_recursive),
];
/// What every scheduler, and the throttling layer below them, counts.
const OF_ALL: &[(&str, List)] =
    &[("io_serviced", |b| &mut b.io_serviced_recursive), ("io_service_bytes", |b| &mut b.io_service_bytes_recursive)];
/// Where the numbers are, the best first: schedulers know more than the throttling layer, which knows every device.
const SOURCES: &[(&str, &str)] =
    &[("blkio.bfq", "_recursive"), ("blkio", "_recursive"), ("blkio.throttle", "_recursive"), ("blkio.throttle", "")];

fn blkio(dir: Dir<'_>) -> Result<Blkio> {
    for (prefix, suffix) in SOURCES {
        let mut all = Blkio::default();
        for (name, list) in OF_SCHEDULERS.iter().chain(OF_ALL) {
            *list(&mut all) = entries(dir, &format!("{prefix}.{name}{suffix}"))?;
        }
        if OF_ALL.iter().any(|(_, list)| !list(&mut all).is_empty()) {
            return Ok(all);
        }
    }
    Ok(Blkio::default())
}

/// Lines `MAJOR:MINOR [OPERATION] VALUE`, and a sum at the end that is left out.
fn entries(dir: Dir<'_>, file: &str) -> Result<Vec<BlkioEntry>> {
    let text = dir.text(file)?.unwrap_or_default();
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match fields[..] {
            ["Total", _] => return Ok(None),
            [major, minor, value] => (major, minor, "", value),
            [major, minor, op, value] => (major, minor, op, value),
            _ => return Err(dir.malformed(file, line)),
        };
        let number = |text: &str| dir.parsed(file, text);
        Ok(Some(BlkioEntry { major: number(major)?, minor: number(minor)?, op: op.to_string(), value: number(value)? }))
    };
    text.lines().filter_map(|line| entry(line).transpose()).collect()
}
