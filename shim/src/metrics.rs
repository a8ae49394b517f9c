//! Statistics of a container's cgroups in the messages that containerd, CRI and cAdvisor read: one for v1, one for v2.

use crate::events::any;
use crate::worker::Result;
use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use orlop::cgroup::Paths;
use orlop::cgroup::stats::{self, BlkioEntry, NO_LIMIT, Pressure, Stall, Stats, Usage};
use std::collections::BTreeMap;
use std::path::Path;

/// What the cgroups at these places count.
pub fn of(paths: &Paths) -> Result<Any> {
    let stats = stats::read(paths)?;
    Ok(match paths.get("") {
        Some(dir) if paths.len() == 1 => any(&of_v2(stats, dir)),
        _ => any(&of_v1(stats, paths)),
    })
}

/// Sets fields of a message from a table of counters by name; what the kernel does not tell stays 0.
macro_rules! fields {
    ($message:expr, $table:expr; $($field:ident = $name:literal),* $(,)?) => {
        $($message.$field = $table.get($name).copied().unwrap_or_default();)*
    };
}

fn of_v1(mut stats: Stats, paths: &Paths) -> v1::Metrics {
    let mut m = v1::Metrics::new();
    m.pids = some(v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit, ..Default::default() });
    m.cpu = some(v1::CPUStat {
        usage: some(v1::CPUUsage {
            total: stats.cpu.usage.total,
            kernel: stats.cpu.usage.kernel,
            user: stats.cpu.usage.user,
            per_cpu: std::mem::take(&mut stats.cpu.usage.percpu),
            ..Default::default()
        }),
        throttling: some(v1::Throttle {
            periods: stats.cpu.throttling.periods,
            throttled_periods: stats.cpu.throttling.throttled_periods,
            throttled_time: stats.cpu.throttling.throttled_time,
            ..Default::default()
        }),
        ..Default::default()
    });
    m.memory = some(memory_v1(&stats));
    m.blkio = some(v1::BlkIOStat {
        io_service_bytes_recursive: entries(stats.blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(stats.blkio.io_serviced_recursive),
        io_queued_recursive: entries(stats.blkio.io_queued_recursive),
        io_service_time_recursive: entries(stats.blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(stats.blkio.io_wait_time_recursive),
        io_merged_recursive: entries(stats.blkio.io_merged_recursive),
        io_time_recursive: entries(stats.blkio.io_time_recursive),
        sectors_recursive: entries(stats.blkio.sectors_recursive),
        ..Default::default()
    });
    for (pagesize, pages) in stats.hugetlb {
        let (usage, max, failcnt) = (pages.usage, pages.max, pages.failcnt);
        m.hugetlb.push(v1::HugetlbStat { usage, max, failcnt, pagesize, ..Default::default() });
    }
    if let Some(dir) = paths.get("memory") {
        let control = table(&dir.join("memory.oom_control"));
        let mut oom = v1::MemoryOomControl::new();
        fields!(oom, control; oom_kill_disable = "oom_kill_disable", under_oom = "under_oom", oom_kill = "oom_kill");
        m.memory_oom_control = some(oom);
    }
    m
}

fn memory_v1(stats: &Stats) -> v1::MemoryStat {
    let mut memory = v1::MemoryStat::new();
    fields!(memory, stats.memory.raw;
        cache = "cache", rss = "rss", rss_huge = "rss_huge", mapped_file = "mapped_file", dirty = "dirty",
        writeback = "writeback", pg_pg_in = "pgpgin", pg_pg_out = "pgpgout", pg_fault = "pgfault",
        pg_maj_fault = "pgmajfault", inactive_anon = "inactive_anon", active_anon = "active_anon",
        inactive_file = "inactive_file", active_file = "active_file", unevictable = "unevictable",
        hierarchical_memory_limit = "hierarchical_memory_limit", hierarchical_swap_limit = "hierarchical_memsw_limit",
        total_cache = "total_cache", total_rss = "total_rss", total_rss_huge = "total_rss_huge",
        total_mapped_file = "total_mapped_file", total_dirty = "total_dirty", total_writeback = "total_writeback",
        total_pg_pg_in = "total_pgpgin", total_pg_pg_out = "total_pgpgout", total_pg_fault = "total_pgfault",
        total_pg_maj_fault = "total_pgmajfault", total_inactive_anon = "total_inactive_anon",
        total_active_anon = "total_active_anon", total_inactive_file = "total_inactive_file",
        total_active_file = "total_active_file", total_unevictable = "total_unevictable",
    );
    let entry = |usage: &Usage| {
        let (limit, max, failcnt, usage) = (usage.limit, usage.max, usage.failcnt, usage.usage);
        some(v1::MemoryEntry { limit, usage, max, failcnt, ..Default::default() })
    };
    memory.usage = entry(&stats.memory.usage);
    memory.swap = entry(&stats.memory.swap);
    memory.kernel = entry(&stats.memory.kernel);
    memory.kernel_tcp = entry(&stats.memory.kernel_tcp);
    memory
}

fn entries(list: Vec<BlkioEntry>) -> Vec<v1::BlkIOEntry> {
    let entry = |BlkioEntry { major, minor, op, value }| {
        let device = device(major, minor);
        v1::BlkIOEntry { op, device, major, minor, value, ..Default::default() }
    };
    list.into_iter().map(entry).collect()
}

/// Its name below /dev, as the Go shim gives it.
fn device(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name = link.as_deref().and_then(Path::file_name);
    name.map(|name| format!("/dev/{}", name.to_string_lossy())).unwrap_or_default()
}

fn of_v2(stats: Stats, dir: &Path) -> v2::Metrics {
    let mut m = v2::Metrics::new();
    // Where there is no limit, v2's readers expect the greatest number.
    let limit = Some(stats.pids.limit).filter(|limit| *limit != 0).unwrap_or(NO_LIMIT);
    m.pids = some(v2::PidsStat { current: stats.pids.current, limit, ..Default::default() });
    let cpu = table(&dir.join("cpu.stat"));
    let mut used = v2::CPUStat::new();
    fields!(used, cpu;
        usage_usec = "usage_usec", user_usec = "user_usec", system_usec = "system_usec", nr_periods = "nr_periods",
        nr_throttled = "nr_throttled", throttled_usec = "throttled_usec", nr_bursts = "nr_bursts",
        burst_usec = "burst_usec",
    );
    used.psi = pressure(stats.cpu.psi.as_ref());
    m.cpu = some(used);
    m.memory = some(memory_v2(&stats));
    let mut events = v2::MemoryEvents::new();
    fields!(events, table(&dir.join("memory.events"));
        low = "low", high = "high", max = "max", oom = "oom", oom_kill = "oom_kill", oom_group_kill = "oom_group_kill",
    );
    m.memory_events = some(events);
    m.io = some(io_v2(&stats));
    for (pagesize, pages) in stats.hugetlb {
        let (current, max, failcnt) = (pages.usage, pages.max, pages.failcnt);
        m.hugetlb.push(v2::HugeTlbStat { current, max, pagesize, failcnt, ..Default::default() });
    }
    m
}

fn memory_v2(stats: &Stats) -> v2::MemoryStat {
    let mut memory = v2::MemoryStat::new();
    fields!(memory, stats.memory.raw;
        anon = "anon", file = "file", kernel_stack = "kernel_stack", slab = "slab", sock = "sock", shmem = "shmem",
        file_mapped = "file_mapped", file_dirty = "file_dirty", file_writeback = "file_writeback",
        anon_thp = "anon_thp", inactive_anon = "inactive_anon", active_anon = "active_anon",
        inactive_file = "inactive_file", active_file = "active_file", unevictable = "unevictable",
        slab_reclaimable = "slab_reclaimable", slab_unreclaimable = "slab_unreclaimable", pgfault = "pgfault",
        pgmajfault = "pgmajfault", workingset_refault = "workingset_refault",
        workingset_activate = "workingset_activate", workingset_nodereclaim = "workingset_nodereclaim",
        pgrefill = "pgrefill", pgscan = "pgscan", pgsteal = "pgsteal", pgactivate = "pgactivate",
        pgdeactivate = "pgdeactivate", pglazyfree = "pglazyfree", pglazyfreed = "pglazyfreed",
        thp_fault_alloc = "thp_fault_alloc", thp_collapse_alloc = "thp_collapse_alloc",
    );
    let (usage, both) = (&stats.memory.usage, &stats.memory.swap);
    (memory.usage, memory.usage_limit, memory.max_usage) = (usage.usage, usage.limit, usage.max);
    // The statistics have swap and memory together, as v1 counts them.
    memory.swap_usage = both.usage.saturating_sub(usage.usage);
    memory.swap_limit = if both.limit == NO_LIMIT { NO_LIMIT } else { both.limit.saturating_sub(usage.limit) };
    memory.psi = pressure(stats.memory.psi.as_ref());
    memory
}

/// One entry a device, from lists of one entry a device and direction.
fn io_v2(stats: &Stats) -> v2::IOStat {
    let mut devices: BTreeMap<(u64, u64), v2::IOEntry> = BTreeMap::new();
    let lists = [(&stats.blkio.io_service_bytes_recursive, true), (&stats.blkio.io_serviced_recursive, false)];
    for (entry, bytes) in lists.into_iter().flat_map(|(list, bytes)| list.iter().map(move |entry| (entry, bytes))) {
        let device = devices.entry((entry.major, entry.minor)).or_default();
        (device.major, device.minor) = (entry.major, entry.minor);
        match (entry.op.as_str(), bytes) {
            ("Read", true) => device.rbytes = entry.value,
            ("Write", true) => device.wbytes = entry.value,
            ("Read", false) => device.rios = entry.value,
            ("Write", false) => device.wios = entry.value,
            _ => {}
        }
    }
    let psi = pressure(stats.blkio.psi.as_ref());
    v2::IOStat { usage: devices.into_values().collect(), psi, ..Default::default() }
}

fn pressure(pressure: Option<&Pressure>) -> MessageField<v2::PSIStats> {
    let stall = |stall: &Stall| {
        let Stall { avg10, avg60, avg300, total } = *stall;
        some(v2::PSIData { avg10, avg60, avg300, total, ..Default::default() })
    };
    let both = |p: &Pressure| v2::PSIStats { some: stall(&p.some), full: stall(&p.full), ..Default::default() };
    pressure.map(both).into()
}

/// Lines of a name and a number; none where the controller is not there.
fn table(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let row = |line: &str| line.split_once(' ').and_then(|(name, n)| Some((name.to_string(), n.trim().parse().ok()?)));
    text.lines().filter_map(row).collect()
}

fn some<M>(message: M) -> MessageField<M> {
    MessageField::some(message)
}
