//! Control groups: one trait, two file layouts, and systemd over either.
//!
//! [`Host::plan`] decides where the cgroups of a new container go, [`load`] finds those of an existing one again. What a
//! limit comes down to is pure ([`v1::writes`], [`v2::writes`], [`devices::DeviceList`], systemd's properties); `tree` applies it.

mod dbus;
pub mod delegate;
pub mod devices;
mod host;
mod none;
pub mod oom;
pub mod stats;
mod sub;
mod systemd;
mod tree;
pub mod v1;
pub mod v2;
mod write;

#[cfg(fuzzing)]
pub use host::fuzz_tables;
pub use host::{Hierarchy, Host, entry_of, of, paths_of};
pub use systemd::Unit;
pub use tree::unprivileged;
pub use write::{Absent, Write};

use crate::error::{Error, Kind, Result, invalid};
use oci_spec::runtime::{LinuxResources, Spec};
use orlop_sys::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where cgroups are mounted: the v2 tree itself, or a directory with one mount for each v1 tree.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Where the v2 tree is mounted in the hybrid layout.
pub const HYBRID: &str = "/sys/fs/cgroup/unified";

/// Where a container's cgroups are: controller (v1: `memory`, `name=systemd`; v2: the empty string) to absolute
/// directory on the host. Saved in state.json as `cgroup_paths`, so that no later command has to look for them.
pub type Paths = BTreeMap<String, PathBuf>;

/// What the init needs to enter the container's cgroups by itself, opened before the clone.
#[derive(Debug, Default)]
pub struct Entry {
    /// v1: the `tasks` file of each hierarchy, into which the single-threaded child writes `0`: the kernel then skips
    /// the threadgroup lock and its RCU grace period.
    pub tasks: Vec<OwnedFd>,
    /// v2: the directory for CLONE_INTO_CGROUP. In the hybrid layout too, as with runc: `cgroup.kill`, eBPF programs
    /// and firewall rules that match the v2 path then work on the container, and controllers may be there (hugetlb).
    pub dir: Option<OwnedFd>,
    /// What keeps a scope of systemd's from being empty, and thereby from being removed, until the init is inside.
    pub holder: Option<systemd::Holder>,
}

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// We do: `linux.cgroupsPath` is a path.
    #[default]
    Cgroupfs,
    /// systemd does: `linux.cgroupsPath` is `slice:prefix:name`.
    Systemd,
    /// Nobody: the container stays in its caller's.
    Disabled,
}

/// What a container asks of its cgroups.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who makes them.
    pub driver: Driver,
    /// Whether that is the systemd of the calling user, not the host's.
    pub user: bool,
    /// The container's id.
    pub id: &'a str,
    /// Whether a container without limits goes on without a cgroup that we have no right to make. `None`: when we are not root, or
    /// root of a user namespace.
    pub rootless: Option<bool>,
    /// Its configuration.
    pub spec: &'a Spec,
}

/// The cgroups of one container.
pub trait Cgroup: std::fmt::Debug {
    /// Makes the directories and sets the limits before any process is inside. On failure nothing is left behind.
    /// [`Cgroup::paths`] is final afterwards: trees that are not mounted, or closed to a rootless container, are out.
    ///
    /// # Errors
    /// A limit that cannot be set; a cgroup that is in use or frozen.
    fn create(&mut self, resources: Option<&LinuxResources>) -> Result<Entry> {
        self.create_around(resources, None)
    }
    /// The same, where `holder` is a process of ours that may be inside already.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    fn create_around(&mut self, resources: Option<&LinuxResources>, holder: Option<i32>) -> Result<Entry>;
    /// Opens the existing cgroups for one more process (exec); `sub` is `exec --cgroup`'s list. See also [`entry_of`].
    fn enter(&self, sub: &[String]) -> Result<Entry>;
    /// Where they are.
    fn paths(&self) -> &Paths;
    /// The unit that systemd has for them.
    fn unit(&self) -> Option<&Unit> {
        None
    }
    /// Moves a process (pid in our pid namespace) in, for callers that cannot use [`Entry`].
    fn attach(&self, pid: i32) -> Result<()>;
    /// Gives the cgroup to the user of the container (v2; on v1 that would not be safe).
    fn give(&self, _uid: u32) -> Result<()> {
        Ok(())
    }
    /// Moves a process to a cgroup below the container's, which is made and given to `owner`.
    fn delegate(&self, sub: &str, _pid: i32, _owner: Option<u32>) -> Result<()> {
        Err(invalid("annotations.run.oci.delegate-cgroup", format!("{sub:?} cannot be made: it needs cgroup v2")))
    }
    /// Changes limits of a running container: those that are given. Device rules too, if there is a list.
    fn set(&self, resources: &LinuxResources) -> Result<()>;
    /// Freezes or thaws, and waits until the kernel says so.
    fn freeze(&self, frozen: bool) -> Result<()>;
    /// Whether it is frozen (paused).
    fn frozen(&self) -> Result<bool>;
    /// Every process inside, sub-cgroups included (pids in our pid namespace); none if the cgroups are gone.
    fn procs(&self) -> Result<Vec<i32>>;
    /// Sends a signal to every process inside; SIGKILL until nobody is left to send it to, thawing the frozen.
    fn signal(&self, signal: i32) -> Result<()>;
    /// Removes the cgroups, sub-cgroups included, waiting up to 2 s for dying processes; missing ones are fine.
    fn remove(&self) -> Result<()>;
    /// How many processes inside the OOM killer has killed; 0 if that cannot be read.
    fn oom_kills(&self) -> u64;
}

/// What it means when we have no right to make or enter a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// An error: config.json names the path, or the container has been there before.
    Fail,
    /// The container goes on without it, unless a limit needs it.
    Accept,
    /// One of the two, by whether we are root of the host.
    Ask,
}

impl Missing {
    fn of(explicit: bool) -> Missing {
        if explicit { Missing::Fail } else { Missing::Ask }
    }

    /// What `--rootless` says, where config.json has left it open.
    fn or(self, rootless: Option<bool>) -> Missing {
        match (self, rootless) {
            (Missing::Ask, Some(true)) => Missing::Accept,
            (Missing::Ask, Some(false)) => Missing::Fail,
            _ => self,
        }
    }

    /// Whether to go on after this error.
    fn accepts(self, e: &std::io::Error) -> bool {
        tree::forbidden(e) && (self == Missing::Accept || self == Missing::Ask && tree::unprivileged())
    }

    /// The error of a cgroup that config.json names.
    fn refused(self, e: Error) -> Error {
        if !matches!(e.errno(), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)) || !tree::unprivileged() {
            return e;
        }
        // The words are those that callers of runc look for.
        Error::new(Kind::System, format!("unable to apply cgroup configuration: permission denied: {e}"))
            .at("linux.cgroupsPath")
            .hint("leave it out, or have a cgroup above it delegated to you: the directory, its cgroup.procs and cgroup.subtree_control")
    }
}

/// The cgroups of an existing container, from its saved state.
pub fn load(paths: &Paths, unit: Option<&Unit>) -> Box<dyn Cgroup> {
    let files: Box<dyn Cgroup> = match paths.get("") {
        _ if paths.is_empty() => Box::new(none::Nothing::default()),
        Some(dir) if paths.len() == 1 => Box::new(v2::V2::new(Path::new(ROOT), dir.clone(), true)),
        _ => Box::new(v1::V1::new(paths.clone(), true)),
    };
    match unit {
        Some(unit) => Box::new(systemd::Systemd::load(unit.clone(), files)),
        None => files,
    }
}

/// Refuses an existing cgroup with processes inside, but for `holder`.
fn used(dir: &Path, holder: Option<i32>) -> Result<()> {
    match tree::procs(dir)?.into_iter().filter(|pid| Some(*pid) != holder).count() {
        0 => Ok(()),
        n => Err(Error::new(Kind::State, format!("container's cgroup is not empty: {n} process(es) found in {dir:?}"))),
    }
}

fn unexpectedly_frozen(dir: &Path) -> Error {
    Error::new(Kind::State, "container's cgroup unexpectedly frozen")
        .hint(format!("{} or a parent of it is paused", dir.display()))
}

/// rdma.max is the same on v1 and v2.
fn rdma(resources: &LinuxResources, w: &mut write::Writes) {
    for (device, limits) in resources.rdma().iter().flatten().collect::<BTreeMap<_, _>>() {
        let mut line = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            line.extend(limit.map(|n| format!(" {key}={n}")));
        }
        w.put(format!("rdma.{device}"), "rdma.max", Some(line));
    }
}

/// See `fuzzing`.
#[cfg(fuzzing)]
pub fn fuzz_dbus(data: &[u8]) {
    let Ok(Some((message, length))) = dbus::Message::decode(data, |_| true) else { return };
    assert!(length <= data.len());
    let Ok(bytes) = message.encode() else { return };
    let Ok(Some((again, _))) = dbus::Message::decode(&bytes, |_| true) else {
        panic!("{message:?} cannot be read again")
    };
    // Not the messages themselves: a number may be none (NaN).
    assert_eq!(again.encode().ok(), Some(bytes), "{message:?} became {again:?}");
}
