//! What a container has used, from its cgroups: plain numbers, for `events` and for whoever else watches containers.
//!
//! Times are nanoseconds and sizes are bytes; [`NO_LIMIT`] is no limit. Serialized, the structs are the `data` of
//! `runc events`, key by key. What a controller that is not there would count is 0 or missing.

mod v1;
mod v2;

use super::{Paths, tree};
use crate::error::{On, Result, invalid};
use orlop_sys::Errno;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The value of a limit that is not set, but for [`Pids::limit`].
pub const NO_LIMIT: u64 = u64::MAX;

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// CPUs and memory nodes.
    pub cpuset: Cpuset,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: Blkio,
    /// Huge pages, by their size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// CPU time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// How much was used.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: CpuUsage,
    /// How much was withheld by the quota.
    #[serde(skip_serializing_if = "is_default")]
    pub throttling: Throttling,
    /// Stalls for want of a CPU (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time used, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// By all CPUs, in both modes.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    /// By each CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By each CPU in the kernel (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By each CPU in user mode (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// What the CPU quota did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have gone by.
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    /// Those in which the quota ran out.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    /// Nanoseconds of waiting for the next period.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}

/// Pressure stall information (kernel documentation, accounting/psi).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// The share of time, in percent, over the last 10, 60 and 300 seconds, and the sum in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stall {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

/// The files of the v1 controller cpuset (kernel documentation, admin-guide/cgroup-v1/cpusets); v2 leaves it empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpuset {
    /// The CPUs that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`.
    pub cpu_exclusive: u64,
    /// The memory nodes that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`.
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`.
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`.
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`.
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`.
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`.
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`, -1 unless set.
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// The page cache's part.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: Usage,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: Usage,
    /// The kernel's part (v1).
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: Usage,
    /// The part of TCP's buffers (v1).
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: Usage,
    /// All of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Stalls for want of memory (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// The most that may be used.
    pub limit: u64,
    /// What is in use.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// The most that ever was in use.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit (v1).
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// How many there may be; 0 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// Block I/O, each list with one entry per device and operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Requests that wait (v1).
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds between dispatch and completion (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds in the queues (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Requests merged into others (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of the device's time (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Stalls for want of I/O (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A number of one block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    /// The device's major number.
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    /// Its minor number.
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where there is no difference.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}

/// Huge pages of one size, in bytes; those that are reserved count, where the kernel counts them (Linux 5.7).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    /// What is in use.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// The most that ever was (v1).
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads the counters of a container's cgroups.
///
/// # Errors
/// A file that cannot be read or understood; one that is not there is no error.
pub fn read(paths: &Paths) -> Result<Stats> {
    match paths.get("") {
        Some(dir) if paths.len() == 1 => v2::read(Dir(dir)),
        unified => {
            let mut stats = v1::read(paths)?;
            if let Some(dir) = unified {
                v2::beside_v1(Dir(dir), paths, &mut stats)?;
            }
            Ok(stats)
        }
    }
}

/// A cgroup's directory, and the formats of the files in it (kernel documentation, admin-guide/cgroup-v2, "Format").
#[derive(Clone, Copy)]
struct Dir<'a>(&'a Path);

impl Dir<'_> {
    /// All of a file; `None` if it is not there, or the kernel has it switched off.
    fn text(self, file: &str) -> Result<Option<String>> {
        let path = self.0.join(file);
        match tree::read_all(&path) {
            Err(e) if tree::gone(&e) || e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(None),
            text => text.map(Some).on("read", format!("{path:?}")),
        }
    }

    /// One number, or `max`.
    fn number(self, file: &str) -> Result<Option<u64>> {
        self.text(file)?.map(|text| self.parsed(file, text.trim())).transpose()
    }

    /// One number; 0 if the file is not there.
    fn count(self, file: &str) -> Result<u64> {
        self.number(file).map(Option::unwrap_or_default)
    }

    /// Lines of a name and a number.
    fn table(self, file: &str) -> Result<Option<BTreeMap<String, u64>>> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        let row = |line: &str| match line.split_once(' ') {
            Some((name, value)) => Ok((name.to_string(), self.parsed(file, value.trim())?)),
            None => Err(self.malformed(file, line)),
        };
        text.lines().map(row).collect::<Result<_>>().map(Some)
    }

    /// A list of numbers and ranges, `0-3,8`.
    fn list(self, file: &str) -> Result<Vec<u16>> {
        let text = self.text(file)?.unwrap_or_default();
        let mut all = Vec::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse()) else {
                return Err(self.malformed(file, part));
            };
            all.extend(first..=last);
        }
        Ok(all)
    }

    fn parsed(self, file: &str, text: &str) -> Result<u64> {
        match text {
            "max" => Ok(NO_LIMIT),
            _ => text.parse().map_err(|_| self.malformed(file, text)),
        }
    }

    fn malformed(self, file: &str, text: &str) -> crate::error::Error {
        invalid(format!("{:?}", self.0.join(file)), format!("cannot be understood: {text:?}"))
    }
}

/// The sizes of huge pages that this kernel has, as the names of the files have them, and the smallest first.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kilobytes = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok();
    let mut sizes: Vec<u64> = entries.filter_map(|entry| kilobytes(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    let name = |kb| match kb {
        1_048_576.. => format!("{}GB", kb >> 20),
        1_024.. => format!("{}MB", kb >> 10),
        _ => format!("{kb}KB"),
    };
    sizes.into_iter().map(name).collect()
}

/// See `fuzzing`: every file of a cgroup has this text.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    const FILES: &[&str] = &[
        "cpu.stat",
        "cpu.pressure",
        "cpuset.cpus",
        "memory.stat",
        "memory.current",
        "memory.events",
        "memory.pressure",
        "io.stat",
        "io.pressure",
        "pids.current",
        "pids.max",
        "cpuacct.usage",
        "cpuacct.usage_percpu",
        "cpuacct.usage_all",
        "cpuacct.stat",
        "memory.usage_in_bytes",
        "memory.numa_stat",
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_serviced_recursive",
    ];
    let dir = std::env::temp_dir().join(format!("orlop-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir)
        .and_then(|()| FILES.iter().try_for_each(|file| std::fs::write(dir.join(file), data)))
        .unwrap();
    let _ = read(&Paths::from([(String::new(), dir.clone())]));
    for controller in ["cpu", "cpuacct", "cpuset", "memory", "blkio", "pids"] {
        let _ = read(&Paths::from([(controller.into(), dir.clone())]));
    }
    let _ = std::fs::remove_dir_all(dir);
}

#[cfg(test)]
mod tests;
