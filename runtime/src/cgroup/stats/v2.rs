//! The counters of the v2 controllers (kernel documentation, admin-guide/cgroup-v2), under the names that v1 has.

use super::{Blkio, BlkioEntry, Dir, Hugetlb, Memory, NO_LIMIT, Pids, Pressure, Stall, Stats, Usage, page_sizes, v1};
use crate::cgroup::Paths;
use crate::error::Result;

pub(super) fn read(dir: Dir<'_>) -> Result<Stats> {
    let mut stats = Stats { memory: memory(dir)?, pids: pids(dir)?, blkio: blkio(dir)?, ..Stats::default() };
    let cpu = dir.table("cpu.stat")?.unwrap_or_default();
    let count = |name: &str| cpu.get(name).copied().unwrap_or_default();
    // Microseconds.
    let time = |name: &str| count(name).saturating_mul(1000);
    stats.cpu.usage.total = time("usage_usec");
    stats.cpu.usage.user = time("user_usec");
    stats.cpu.usage.kernel = time("system_usec");
    stats.cpu.throttling.periods = count("nr_periods");
    stats.cpu.throttling.throttled_periods = count("nr_throttled");
    stats.cpu.throttling.throttled_time = time("throttled_usec");
    only_here(dir, &mut stats, true)?;
    Ok(stats)
}

/// The part of a hybrid host's v2 tree: pressure, and huge pages where their controller is there.
pub(super) fn beside_v1(dir: Dir<'_>, paths: &Paths, stats: &mut Stats) -> Result<()> {
    only_here(dir, stats, !paths.contains_key("hugetlb"))
}

fn only_here(dir: Dir<'_>, stats: &mut Stats, pages: bool) -> Result<()> {
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    stats.memory.psi = pressure(dir, "memory.pressure")?;
    stats.blkio.psi = pressure(dir, "io.pressure")?;
    for size in page_sizes().into_iter().filter(|_| pages) {
        stats.hugetlb.extend(hugetlb(dir, &size)?.map(|pages| (size, pages)));
    }
    Ok(())
}

/// v1 counts swap together with memory, and so do those who read this.
fn memory(dir: Dir<'_>) -> Result<Memory> {
    let raw = dir.table("memory.stat")?.unwrap_or_default();
    let usage = usage(dir, "memory")?.unwrap_or_default();
    let swap = self::usage(dir, "memory.swap")?.map(|swap| Usage {
        usage: swap.usage.saturating_add(usage.usage),
        limit: swap.limit.saturating_add(usage.limit),
        // When both were highest together is not known.
        max: 0,
        failcnt: 0,
    });
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or_default(),
        swap: swap.unwrap_or_else(|| Usage { max: 0, ..usage.clone() }),
        usage,
        raw,
        ..Memory::default()
    })
}

fn usage(dir: Dir<'_>, kind: &str) -> Result<Option<Usage>> {
    let Some(usage) = dir.number(&format!("{kind}.current"))? else { return Ok(None) };
    Ok(Some(Usage {
        limit: dir.number(&format!("{kind}.max"))?.unwrap_or(NO_LIMIT),
        usage,
        // Since Linux 5.19, of swap since 6.5.
        max: dir.count(&format!("{kind}.peak"))?,
        failcnt: 0,
    }))
}

/// Without the controller the processes are counted.
fn pids(dir: Dir<'_>) -> Result<Pids> {
    if dir.number("pids.current")?.is_some() {
        return v1::pids(dir);
    }
    let listed = match dir.text("cgroup.procs")? {
        // A threaded cgroup does not tell its processes.
        None => dir.text("cgroup.threads")?,
        listed => listed,
    };
    Ok(Pids { current: listed.map_or(0, |text| text.lines().count() as u64), limit: 0 })
}

fn hugetlb(dir: Dir<'_>, size: &str) -> Result<Option<Hugetlb>> {
    let reserved = dir.number(&format!("hugetlb.{size}.rsvd.current"))?;
    let usage = match reserved {
        None => dir.number(&format!("hugetlb.{size}.current"))?,
        reserved => reserved,
    };
    let Some(usage) = usage else { return Ok(None) };
    let events = dir.table(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
    Ok(Some(Hugetlb { usage, max: 0, failcnt: events.get("max").copied().unwrap_or_default() }))
}

/// Lines `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`; keys without a counterpart in v1 are left out.
fn blkio(dir: Dir<'_>) -> Result<Blkio> {
    let file = "io.stat";
    let mut all = Blkio::default();
    for line in dir.text(file)?.unwrap_or_default().lines() {
        let mut fields = line.split_ascii_whitespace();
        // A device that has gone leaves its name out.
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { continue };
        let (major, minor) = (dir.parsed(file, major)?, dir.parsed(file, minor)?);
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut all.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut all.io_service_bytes_recursive, "Write"),
                "rios" => (&mut all.io_serviced_recursive, "Read"),
                "wios" => (&mut all.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_string(), value: dir.parsed(file, value)? });
        }
    }
    Ok(all)
}

/// Lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; not there without CONFIG_PSI, or when it is switched off.
fn pressure(dir: Dir<'_>, file: &str) -> Result<Option<Pressure>> {
    let Some(text) = dir.text(file)? else { return Ok(None) };
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let stall = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *stall = stalled(fields).ok_or_else(|| dir.malformed(file, line))?;
    }
    Ok(Some(pressure))
}

fn stalled<'a>(fields: impl Iterator<Item = &'a str>) -> Option<Stall> {
    let mut stall = Stall::default();
    for (key, value) in fields.filter_map(|field| field.split_once('=')) {
        match key {
            "avg10" => stall.avg10 = value.parse().ok()?,
            "avg60" => stall.avg60 = value.parse().ok()?,
            "avg300" => stall.avg300 = value.parse().ok()?,
            "total" => stall.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(stall)
}
