//! The host: its cgroup layout, the view of it that the measurements have, what stands above the results.

use crate::Result;
use orlop_sys::process;
use rustix::mount::{UnmountFlags, mount, unmount};
use std::env;
use std::ffi::CStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Set in the environment of the copy of this program that runs in its own mount namespace.
const INSIDE: &str = "ORLOP_BENCH_INSIDE";

/// Where cgroup file systems are mounted.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// Which cgroup hierarchies the host mounts below [`CGROUPS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The directories of the v1 hierarchies.
    pub v1: Vec<String>,
    /// Where the v2 hierarchy is.
    pub v2: Option<PathBuf>,
}

impl Layout {
    /// The layout that this process sees.
    pub fn here() -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Reads a mountinfo, proc_pid_mountinfo(5).
    fn parse(mountinfo: &str) -> Self {
        let mut layout = Self { v1: Vec::new(), v2: None };
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let (Some(target), Some(kind)) = (mount.split(' ').nth(4), fs.split(' ').next()) else { continue };
            let Some(name) = target.strip_prefix(CGROUPS) else { continue };
            match kind {
                "cgroup" => layout.v1.push(name.trim_start_matches('/').to_owned()),
                "cgroup2" => layout.v2 = Some(target.into()),
                _ => {}
            }
        }
        layout
    }

    /// `v1`, `v2` or `hybrid`.
    pub fn name(&self) -> &'static str {
        match (self.v1.is_empty(), &self.v2) {
            (true, _) => "v2",
            (false, None) => "v1",
            (false, Some(_)) => "hybrid",
        }
    }

    /// The directories in which a cgroup named `id` may be.
    pub fn directories(&self) -> Vec<PathBuf> {
        let v1 = self.v1.iter().map(|name| Path::new(CGROUPS).join(name));
        v1.chain(self.v2.clone()).collect()
    }
}

/// Hides the v2 hierarchy of a hybrid host, in a mount namespace of its own. crun makes directories at its place all the
/// same: the tmpfs takes them.
const HIDE_V2: &str = "umount /sys/fs/cgroup/unified && mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup/unified";

/// Shows this process, which is isolated on a hybrid host, cgroup v1 alone.
pub fn hide_v2() -> Result<()> {
    let status = Command::new("sh").args(["-c", HIDE_V2]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{HIDE_V2}: {status}").into()) }
}

/// Whether this process runs in the namespace that [`isolate`] makes.
pub fn is_isolated() -> bool {
    env::var_os(INSIDE).is_some()
}

/// As many as a process may have here (capabilities(7)): all of Linux 5.9 but CAP_SYS_RESOURCE, which a host in a sandbox may lack.
const CAPABILITIES: u64 = 0x1ff_feff_ffff;

/// Makes nothing of who started it count: a runtime closes the fds that it inherits, gives up supplementary groups and capabilities, and asks every
/// hierarchy for the cgroup that it is in.
fn detach() -> Result<()> {
    for directory in Layout::here()?.directories() {
        // A v2 root that is delegated takes no processes: there the path is the same for all that start it.
        let _ = fs::write(directory.join("cgroup.procs"), "0");
    }
    process::set_groups(&[])?;
    for capability in (0..64).filter(|capability| CAPABILITIES & 1 << capability == 0) {
        // EINVAL: the kernel has no such one.
        let _ = process::drop_bounding(capability);
    }
    // With little room for files a runtime closes each at once.
    let (soft, hard) = process::rlimit(process::RLIMIT_NOFILE)?;
    process::set_rlimit(0, process::RLIMIT_NOFILE, soft.max(1024).min(hard), hard)?;
    Ok(orlop_sys::fds::cloexec_from(3)?)
}

/// Executes this program again in a mount namespace of its own, whose mounts propagate as the host's do; with `v1_alone`,
/// see [`hide_v2`], on a hybrid host. Returns only if that fails.
pub fn isolate(v1_alone: bool) -> Result<()> {
    detach()?;
    let hide = if v1_alone && Layout::here()?.name() == "hybrid" { HIDE_V2 } else { "true" };
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let is_shared = |line: &str| line.split(' ').nth(4) == Some("/") && line.contains(" shared:");
    let share = if mountinfo.lines().any(is_shared) { "mount --make-rshared /" } else { "true" };
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &format!("{hide} && {share} && exec \"$@\""), "sh"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(format!("cannot execute unshare: {error}").into())
}

/// A directory on a tmpfs of its own, as /run is one: bundles, state, root file system. It goes with the value.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// Mounts it; the process has a mount namespace of its own.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("orlop-bench-").tempdir_in("/run")?;
        mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), None::<&CStr>)?;
        Ok(Self { dir })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Then the directory below goes too. Without it, both end with the namespace.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// The load averages, as text.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Processor, kernel and cgroups in one line.
pub fn description(layout: &Layout) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" : unknown processor");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    format!("{cores} × {model}, {}, Linux {release}, cgroup {}", env::consts::ARCH, layout.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v1 = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let unified = "31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let v2 = "31 29 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        let other = "31 29 0:27 / /mnt rw shared:4 - cgroup2 cgroup2 rw\n";
        let name = |text: &str| Layout::parse(text).name();
        assert_eq!(
            [name(v1), name(&format!("{v1}{unified}")), name(v2), name(&format!("{v1}{other}"))],
            ["v1", "hybrid", "v2", "v1"]
        );
        assert_eq!(Layout::parse(v1).v1, ["cpu,cpuacct"]);
        assert_eq!(Layout::parse(v2).directories(), [Path::new("/sys/fs/cgroup")]);
    }
}
