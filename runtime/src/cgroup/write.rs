//! One write to one file of a cgroup, and the field of config.json that asks for it.

use super::tree;
use crate::error::{Error, On, Result, invalid};
use orlop_sys::Errno;
use std::borrow::Cow;
use std::path::Path;

/// What a limit comes down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The JSON path of the limit.
    pub field: String,
    /// The file in the cgroup's directory.
    pub file: Cow<'static, str>,
    /// What to write.
    pub value: String,
    /// What it means if this kernel has no such file.
    pub absent: Absent,
}

/// What to do if a file does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be set: an error.
    Fail,
    /// The write asks for nothing that the kernel does not do anyway.
    Skip,
    /// The same limit under another name and scale.
    Instead(&'static str, String),
}

/// What an errno of a write means, where the errno alone does not say it.
const HINTS: &[(&str, Errno, &str)] = &[
    ("memory.limit_in_bytes", Errno::EBUSY, "more than that is in use already"),
    ("memory.memsw.limit_in_bytes", Errno::EBUSY, "more than that is in use already"),
    ("memory.limit_in_bytes", Errno::EINVAL, "the limit must not be above memory.swap, the sum of memory and swap"),
    (
        "memory.memsw.limit_in_bytes",
        Errno::EINVAL,
        "memory.swap is the sum of memory and swap: not less than the limit",
    ),
    ("memory.memsw.limit_in_bytes", Errno::ENOENT, "the kernel does not account swap (swapaccount=1)"),
    ("memory.swap.max", Errno::ENOENT, "the kernel does not account swap (swapaccount=1)"),
    ("cpu.rt_runtime_us", Errno::EINVAL, "every parent cgroup must have as much real-time runtime first"),
    (
        "cpu.cfs_quota_us",
        Errno::EINVAL,
        "quota and period are between 1000 and 1000000 microseconds, and not above a parent's share",
    ),
    ("cpu.cfs_period_us", Errno::EINVAL, "a period is between 1000 and 1000000 microseconds"),
    ("cpu.max", Errno::EINVAL, "quota and period are between 1000 and 1000000 microseconds"),
    ("cpuset.cpus", Errno::EACCES, "a parent cgroup does not have all of these CPUs"),
    ("cpuset.mems", Errno::EACCES, "a parent cgroup does not have all of these memory nodes"),
    ("io.max", Errno::ENODEV, "there is no such block device, or it is a partition"),
    ("net_prio.ifpriomap", Errno::ENODEV, "there is no such network interface"),
];

impl Write {
    /// The controller that the file belongs to: `memory` for `memory.max`.
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }

    /// Writes the value.
    pub(super) fn apply(&self, dir: &Path) -> Result<()> {
        let path = dir.join(&*self.file);
        let e = match (tree::write(&path, &self.value), &self.absent) {
            (Ok(()), _) => return Ok(()),
            (Err(e), Absent::Skip) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            (Err(e), Absent::Instead(file, value)) if e.kind() == std::io::ErrorKind::NotFound => {
                return Write {
                    file: Cow::Borrowed(file),
                    value: value.clone(),
                    absent: Absent::Fail,
                    field: self.field.clone(),
                }
                .apply(dir);
            }
            (Err(e), _) => e,
        };
        let e = Err::<(), _>(e).on(format!("write {:?} to", self.value), format!("{path:?}"));
        e.map_err(|e| self.explain(dir, e).at(self.field.clone()))
    }

    fn explain(&self, dir: &Path, e: Error) -> Error {
        let hint = HINTS.iter().find(|(file, errno, _)| *file == self.file && Some(*errno) == e.errno());
        let Some((file, _, hint)) = hint else { return e };
        // How much is in use is what the user needs to choose another limit.
        let used = file.strip_suffix("limit_in_bytes").and_then(|stem| {
            let usage = |name: &str| tree::read(&dir.join(format!("{stem}{name}_in_bytes"))).ok();
            (e.errno() == Some(Errno::EBUSY))
                .then(|| Some(format!("{hint}: {} bytes, at most {} so far", usage("usage")?, usage("max_usage")?)))?
        });
        e.hint(used.map_or(Cow::Borrowed(*hint), Cow::Owned))
    }

    /// The error for a limit whose controller this host does not offer to the container.
    pub(super) fn unavailable(&self) -> Error {
        let controller = self.controller();
        let what = format!("cannot set {controller} limit: container could not join or create cgroup");
        invalid(self.field.clone(), what).hint(format!("the {controller} controller is not available here (see /proc/cgroups, /sys/fs/cgroup and cgroup.subtree_control)"))
    }
}

/// Collects writes.
#[derive(Debug, Default)]
pub(super) struct Writes(pub(super) Vec<Write>);

impl Writes {
    /// Adds a write if there is a value; `field` is below `linux.resources`.
    pub(super) fn put(
        &mut self,
        field: impl AsRef<str>,
        file: impl Into<Cow<'static, str>>,
        value: Option<impl ToString>,
    ) {
        self.put_or(field, file, value, Absent::Fail);
    }

    /// The same with a word on what to do if there is no such file.
    pub(super) fn put_or(
        &mut self,
        field: impl AsRef<str>,
        file: impl Into<Cow<'static, str>>,
        value: Option<impl ToString>,
        absent: Absent,
    ) {
        if let Some(value) = value {
            let field = format!("linux.resources.{}", field.as_ref());
            self.0.push(Write { field, file: file.into(), value: value.to_string(), absent });
        }
    }
}

/// Engines send 0 for "not set" in most fields.
pub(super) fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}

/// A text field, not set if it is empty.
pub(super) fn text(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|v| !v.is_empty())
}

/// The limit of pids.max: systemd has no limit of 0, so it is 1 with every driver; below 0 is no limit.
pub(super) fn pids(limit: i64) -> String {
    match limit {
        ..0 => "max".to_string(),
        0 => "1".to_string(),
        n => n.to_string(),
    }
}

/// The size in the names of the hugetlb files, `2MB`. It becomes a part of a file's name, hence the check.
pub(super) fn page_size(size: &str) -> Result<&str> {
    let number = size.strip_suffix("KB").or_else(|| size.strip_suffix("MB")).or_else(|| size.strip_suffix("GB"));
    match number {
        Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => Ok(size),
        _ => Err(invalid("pageSize", format!("{size:?} is not a size such as 64KB, 2MB or 1GB"))),
    }
}

/// Checks a blockIO weight; 0 is "not set".
pub(super) fn weight(field: impl AsRef<str>, value: Option<u16>) -> Result<Option<u16>> {
    match set(value) {
        Some(n) if !(10..=1000).contains(&n) => {
            Err(invalid(format!("linux.resources.{}", field.as_ref()), format!("{n} is not a weight (10 to 1000)")))
        }
        n => Ok(n),
    }
}

/// The smallest and the largest value of cpu.shares that the kernel takes as they are.
const SHARES: (u64, u64) = (2, 262_144);

/// Checks cpu.shares on v1, where the kernel would silently write another value; 0 is "not set".
pub(super) fn shares(value: Option<u64>) -> Result<Option<u64>> {
    let field = "linux.resources.cpu.shares";
    match set(value) {
        Some(n) if n < SHARES.0 => Err(invalid(field, format!("the minimum allowed cpu-shares is {}", SHARES.0))),
        Some(n) if n > SHARES.1 => Err(invalid(field, format!("the maximum allowed cpu-shares is {}", SHARES.1))),
        n => Ok(n),
    }
}
