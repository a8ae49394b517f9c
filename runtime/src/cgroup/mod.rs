//! Control groups: one trait, two file layouts.

use crate::error::Result;
use oci_spec::runtime::LinuxResources;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where a container's cgroups are: controller (v1: `memory`, `name=systemd`; v2: the empty string) to absolute
/// directory on the host. Saved in state.json as `cgroup_paths`, so that no later command has to look for them.
pub type Paths = BTreeMap<String, PathBuf>;

/// What the init needs to enter the container's cgroups by itself, opened before the clone.
#[derive(Debug, Default)]
pub struct Entry {
    /// v1: the `tasks` file of each hierarchy, into which the single-threaded child writes `0`: the kernel then skips
    /// the threadgroup lock and its RCU grace period.
    pub tasks: Vec<OwnedFd>,
    /// v2: the directory for CLONE_INTO_CGROUP.
    pub dir: Option<OwnedFd>,
}

/// The cgroups of one container.
pub trait Cgroup {
    /// Makes the directories and sets the limits before any process is inside. On failure nothing is left behind.
    fn create(&self, resources: Option<&LinuxResources>) -> Result<Entry>;
    /// Opens the existing cgroups for one more process (exec); `sub` is `exec --cgroup`'s list.
    fn enter(&self, sub: &[String]) -> Result<Entry>;
    /// Where they are.
    fn paths(&self) -> &Paths;
    /// Moves a process (pid in our pid namespace) in, for callers that cannot use [`Entry`].
    fn attach(&self, pid: i32) -> Result<()>;
    /// Changes limits of a running container.
    fn set(&self, resources: &LinuxResources) -> Result<()>;
    /// Freezes or thaws, and waits until the kernel says so.
    fn freeze(&self, frozen: bool) -> Result<()>;
    /// Whether it is frozen (paused).
    fn frozen(&self) -> Result<bool>;
    /// Every process inside, sub-cgroups included (pids in our pid namespace).
    fn procs(&self) -> Result<Vec<i32>>;
    /// Sends a signal to every process inside, until (for SIGKILL) none is left or it had no effect.
    fn signal(&self, signal: i32) -> Result<()>;
    /// Removes the cgroups, sub-cgroups included, waiting for dying processes; missing ones are fine.
    fn remove(&self) -> Result<()>;
}
