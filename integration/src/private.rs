//! What keeps an engine to itself: namespaces, and the removal of all that it made.

use crate::dockerd::REMAPPED;
use crate::{cgroup, programs};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Directories outside of an engine's own roots that dockerd, containerd and CNI plugins write to: each is a tmpfs of its own.
const PRIVATE: &[&str] = &["/etc/docker", "/run/containerd", "/run/docker", "/var/lib/cni"];

/// Holds the namespaces open: a process that reads its standard input and ends when this process does.
#[derive(Debug)]
pub struct Anchor {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Anchor {
    /// New namespaces, whose process ends with this value; `dir` is for its files.
    pub fn new(dir: &Path) -> Self {
        Self::over(dir, PRIVATE, "")
    }

    /// The same, with empty directories over others than Docker's, and what else this script does there.
    pub fn over(dir: &Path, private: &[&str], further: &str) -> Self {
        for path in private {
            fs::create_dir_all(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        let busybox = programs::path("busybox").display().to_string();
        let mut script = format!("set -e; {busybox} ifconfig lo up\n");
        for path in private {
            script += &format!("mount -t tmpfs -o mode=755 tmpfs {path}\n");
        }
        script += further;
        let ranges = dir.join("ranges");
        fs::write(&ranges, format!("nobody:{REMAPPED}:65536\n")).expect("a file in a directory of ours");
        for file in ["/etc/subuid", "/etc/subgid"] {
            assert!(Path::new(file).exists(), "{file} is missing: apt-get install passwd");
            script += &format!("mount --bind {} {file}\n", ranges.display());
        }
        script += "echo ready; exec cat";
        let mut command = programs::command("unshare");
        command.args(["--mount", "--net", "--propagation", "private", "/bin/sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut ready = [0; 6];
        let answer = std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut ready);
        assert!(answer.is_ok() && &ready == b"ready\n", "no private namespaces: {script}");
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    /// The pid of the process that holds them.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives them up.
    pub fn end(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Goes on in a mount namespace of its own, with directories of its own where shims have theirs: this program is executed again there.
/// To be called before anything else.
///
/// # Panics
/// When that is not possible.
pub fn enter() {
    use std::os::unix::process::CommandExt;
    const INSIDE: &str = "ORLOP_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let mut script = String::from("set -e\n");
    for path in PRIVATE {
        script += &format!("mkdir -p {path}; mount -t tmpfs -o mode=755 tmpfs {path}\n");
    }
    // In memory: what a disk takes for it is no part of what is tested or measured.
    script += "mount -t tmpfs -o mode=1777 tmpfs /mnt; export TMPDIR=/mnt\nexec \"$0\" \"$@\"";
    let mut command = programs::command("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script]);
    let error = command.args(std::env::args_os()).env(INSIDE, "1").exec();
    panic!("{command:?}: {error}");
}

/// The longest path of a unix socket, unix(7).
const LONGEST_SOCKET: usize = 107;

/// What the longest path of a socket has below an engine's directory: `files/lifecycle-the-service-is-killed/api.sock`, a test's.
const BELOW: usize = 46;

/// A directory for all that an engine has, its sockets among it; its name begins with `prefix`.
///
/// # Panics
/// When `TMPDIR` is so long that the sockets would have no path.
pub fn directory(prefix: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary directory");
    let length = dir.path().as_os_str().len();
    let excess = (length + 1 + BELOW).saturating_sub(LONGEST_SOCKET);
    assert!(
        excess == 0,
        "TMPDIR={} is {excess} bytes too long: unix sockets, which have {LONGEST_SOCKET} at most, will be below {}",
        std::env::temp_dir().display(),
        dir.path().display()
    );
    dir
}

/// Kills every process whose command line has the name of `dir` in it.
pub fn kill_all_that_name(dir: &Path) {
    naming(dir).into_iter().for_each(|(pid, _)| signal(pid, Signal::KILL));
}

/// Every process whose command line has the name of `dir` in it.
pub fn naming(dir: &Path) -> Vec<(u32, String)> {
    let needle = dir.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&needle).then_some((pid, line))
    })
    .collect()
}

/// Removes a cgroup in every hierarchy, with all below it and all processes inside.
pub fn remove_cgroups(parent: &str) {
    for dir in cgroup::tree(parent) {
        let thawed = dir.join("freezer.state");
        if thawed.exists() {
            let _ = fs::write(thawed, "THAWED");
        }
        for pid in cgroup::procs(&dir) {
            signal(pid, Signal::KILL);
        }
    }
    for _ in 0..100 {
        let left: Vec<PathBuf> = cgroup::tree(parent).into_iter().filter(|dir| fs::remove_dir(dir).is_err()).collect();
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the process ends within `limit`.
pub fn ended(process: &mut Child, limit: Duration) -> bool {
    let steps = limit.as_millis() / 20;
    (0..steps).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        matches!(process.try_wait(), Ok(Some(_)))
    })
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
