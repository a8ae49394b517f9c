//! No cgroups: `--cgroup-manager disabled`, and a rootless container that may not make any.

use super::devices::DeviceList;
use super::{Cgroup, Entry, Paths};
use crate::error::{Error, Kind, Result, invalid};
use oci_spec::runtime::LinuxResources;

/// The cgroups of a container that has none: it stays in its caller's.
#[derive(Debug, Default)]
pub struct Nothing {
    paths: Paths,
}

impl Nothing {
    fn refuse(what: &str) -> Error {
        Error::new(Kind::State, format!("{what}: cgroups not configured for container"))
            .hint("it was made with --cgroup-manager disabled, or without the right to make cgroups")
    }
}

impl Cgroup for Nothing {
    fn create_around(&mut self, resources: Option<&LinuxResources>, _holder: Option<i32>) -> Result<Entry> {
        resources.map_or(Ok(()), check)?;
        let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
        if !DeviceList::new(rules)?.allows_all() {
            log::warn!("linux.resources.devices: device rules do not hold without cgroups (--cgroup-manager disabled)");
        }
        Ok(Entry::default())
    }

    fn enter(&self, sub: &[String]) -> Result<Entry> {
        match sub {
            [] => Ok(Entry::default()),
            _ => Err(Nothing::refuse("cannot enter a sub-cgroup").at("--cgroup")),
        }
    }

    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn attach(&self, _pid: i32) -> Result<()> {
        Ok(())
    }

    fn set(&self, resources: &LinuxResources) -> Result<()> {
        check(resources)
    }

    fn freeze(&self, _frozen: bool) -> Result<()> {
        Err(Nothing::refuse("cannot toggle freezer"))
    }

    fn frozen(&self) -> Result<bool> {
        Ok(false)
    }

    fn procs(&self) -> Result<Vec<i32>> {
        Err(Nothing::refuse("cannot tell the container's processes from others"))
    }

    fn signal(&self, _signal: i32) -> Result<()> {
        Err(Nothing::refuse("cannot signal the container's processes beside its init"))
    }

    fn remove(&self) -> Result<()> {
        Ok(())
    }

    fn oom_kills(&self) -> u64 {
        0
    }
}

/// Refuses limits, which would not hold. Device rules are only warned of, at create: with the container's own /dev, and
/// without the right to make nodes, they are a second line, and engines always send them.
fn check(resources: &LinuxResources) -> Result<()> {
    let Some(write) = super::v2::writes(resources)?.into_iter().next() else { return Ok(()) };
    Err(invalid(write.field, "cannot be limited without cgroups")
        .hint("leave the limit out, or do not disable cgroups"))
}
