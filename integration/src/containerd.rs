//! A private containerd with the shim under test.

use crate::docker::{Output, finish, words};
use crate::private::{Anchor, directory, ended, kill_all_that_name, naming, remove_cgroups, signal};
use crate::{cri, programs, wait};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name under which containerd finds the shim under test.
pub const RUNTIME: &str = "io.containerd.orlop.v2";

/// What the tests for `ctr` do not use.
const CRI: &[&str] = &["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];

/// Plugins that need what a test machine has not.
const DISABLED: &[&str] = &[
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
];

/// What the snapshotter `blockfile` needs; not every machine has it.
pub const MKFS: &str = "/usr/sbin/mkfs.ext4";

/// The daemon that the variable `CONTAINERD` names, else Debian's. Its `ctr` is beside it.
///
/// # Panics
/// When one of the two is not there.
pub fn path() -> PathBuf {
    let Some(daemon) = std::env::var_os("CONTAINERD") else { return programs::path("containerd") };
    let daemon = std::path::absolute(daemon).expect("a path");
    for program in [&daemon, &daemon.with_file_name("ctr")] {
        assert!(program.is_file(), "CONTAINERD: there is no {}", program.display());
    }
    daemon
}

/// The version of a containerd as (major, minor), from what `-v` prints: `containerd NAME 1.6.20~ds1 COMMIT`.
///
/// # Panics
/// When it prints something else.
pub fn version(daemon: &Path) -> (u32, u32) {
    let said = String::from_utf8(programs::run(Command::new(daemon).arg("-v"))).expect("ASCII");
    let number = said.split_whitespace().nth(2).map(|word| word.trim_start_matches('v')).unwrap_or_default();
    let mut parts = number.split('.').map_while(|part| part.parse().ok());
    parts.next().zip(parts.next()).unwrap_or_else(|| panic!("{}: no version in {said:?}", daemon.display()))
}

/// A running containerd, in a mount and a network namespace that end with it.
#[derive(Debug)]
pub struct Containerd {
    dir: TempDir,
    path: Mutex<PathBuf>,
    anchor: Anchor,
    kind: Kind,
    process: Mutex<Option<Child>>,
    baseline: Vec<String>,
}

/// Who drives a daemon, and what is different for it.
#[derive(Debug)]
struct Kind {
    /// The namespace of its containers.
    namespace: &'static str,
    /// The parent of all their cgroups.
    cgroups: String,
    /// Writes what the configuration has beside the daemon's own directories, first its format; below a directory, for a version.
    config: fn(&Path, (u32, u32)) -> String,
}

impl Containerd {
    /// Starts the daemon of [`path`] for `ctr` with `shim` on its PATH.
    pub fn start(shim: &Path) -> Self {
        // Under the name of the Go shim as well: `ctr` lets no other one be told of another runtime.
        Self::with(&[("containerd-shim-orlop-v2", shim), ("containerd-shim-runc-v2", shim)])
    }

    /// Starts a daemon for `ctr` with these shims, by name, on its PATH.
    pub fn with(shims: &[(&str, &Path)]) -> Self {
        // Every containerd reads this format; so one can be put in place of another.
        let config = |dir: &Path, version| {
            format!("version = 2\ndisabled_plugins = {:?}\n{}", [DISABLED, CRI].concat(), block_devices(dir, version))
        };
        Self::of(shims, Kind { namespace: "default", cgroups: numbered(CGROUPS), config })
    }

    /// Starts the daemon of [`path`] with the Container Runtime Interface; the runtimes that pods can have are `orlop` and `runc`.
    pub fn start_cri(shim: &Path) -> Self {
        let cgroups = numbered("/orlop-test-cri");
        let config = |dir: &Path, version| cri::config::write(dir, version, DISABLED);
        let daemon = Self::of(&[("containerd-shim-orlop-v2", shim)], Kind { namespace: "k8s.io", cgroups, config });
        let images = cri::image::archive(daemon.dir.path());
        daemon.ctr(&format!("-n k8s.io images import {}", images.display())).exits(0);
        daemon
    }

    fn of(shims: &[(&str, &Path)], kind: Kind) -> Self {
        let dir = directory("orlop-ctrd-");
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("a directory of ours");
        for (name, shim) in shims {
            symlink(shim, bin.join(name)).expect("a link of ours");
        }
        rootfs(&dir.path().join("rootfs"));
        let anchor = Anchor::new(dir.path());
        let path = Mutex::new(path());
        let mut daemon = Self { dir, path, anchor, kind, process: Mutex::default(), baseline: Vec::new() };
        fs::write(daemon.file("config.toml"), daemon.config()).expect("a file of ours");
        daemon.resume();
        daemon.baseline = daemon.mounts();
        daemon
    }

    fn config(&self) -> String {
        let (root, state, socket) = (self.file("root"), self.file("state"), self.socket());
        let more = (self.kind.config)(self.dir.path(), self.version());
        // On a slow machine a shim that answers later than these by default is taken for one that is lost.
        let timeouts: String = ["task.state", "shim.load", "shim.cleanup"]
            .map(|name| format!("\"io.containerd.timeout.{name}\" = \"60s\"\n"))
            .concat();
        // What belongs to no table comes first.
        format!(
            "root = {root:?}\nstate = {state:?}\n{more}\n[grpc]\naddress = {socket:?}\n[debug]\nlevel = \"debug\"\n\
             [timeouts]\n{timeouts}"
        )
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.file("c.sock")
    }

    /// A process in the daemon's namespaces.
    pub fn anchor(&self) -> u32 {
        self.anchor.pid()
    }

    /// The parent of the containers' cgroups.
    pub fn cgroups(&self) -> &str {
        &self.kind.cgroups
    }

    /// The daemon's program.
    fn path(&self) -> PathBuf {
        self.path.lock().expect("not poisoned").clone()
    }

    /// Its version, major and minor.
    pub fn version(&self) -> (u32, u32) {
        version(&self.path())
    }

    /// From the next [`Containerd::resume`] on, this program is the daemon, and the `ctr` beside it the client.
    pub fn replace(&self, daemon: &Path) {
        *self.path.lock().expect("not poisoned") = daemon.to_owned();
    }

    /// A path below the daemon's own directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root file system with busybox.
    pub fn rootfs(&self) -> PathBuf {
        self.file("rootfs")
    }

    /// Stops the daemon alone; shims and containers stay.
    pub fn suspend(&self, how: Signal) {
        let Some(mut process) = self.process.lock().expect("not poisoned").take() else { return };
        signal(process.id(), how);
        let stopped = ended(&mut process, Duration::from_secs(120));
        let _ = process.kill();
        let _ = process.wait();
        assert!(stopped, "containerd did not stop\n{}", self.log());
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn resume(&self) {
        let log = File::options().create(true).append(true).open(self.file("log")).expect("the daemon's log");
        let mut command = self.inside(&programs::path("setpriv"));
        command.args(["--pdeathsig", "TERM"]).arg(self.path()).arg("-c").arg(self.file("config.toml"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.file("bin").display()));
        command.stdout(log.try_clone().expect("dup")).stderr(log);
        let mut process = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        wait::until("containerd answers", Duration::from_secs(180), || {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("containerd ended with {status}\n{}", self.log());
            }
            (self.socket().exists() && self.ctr("version").status == 0).then_some(())
        });
        *self.process.lock().expect("not poisoned") = Some(process);
    }

    /// The last lines of the daemon's log, which has the shims' too.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.file("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn inside(&self, program: &Path) -> Command {
        let mut command = programs::command("nsenter");
        // containerd 1.6 looks for shims in its working directory before all others.
        let bin = format!("--wd={}", self.file("bin").display());
        command.arg(format!("--target={}", self.anchor.pid())).args(["--mount", "--net", &bin, "--"]);
        command.arg(program);
        command
    }

    /// The command for a line as one would type it behind `ctr `. `ROOTFS` stands for [`Containerd::rootfs`], [`CGROUPS`] at the start of a word for
    /// the cgroup of this daemon, and `run` gets the runtime.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.inside(&self.path().with_file_name("ctr"));
        command.env("CONTAINERD_ADDRESS", self.socket());
        for word in words(line) {
            match word.as_str() {
                "ROOTFS" => command.arg("--rootfs").arg(self.rootfs()),
                "run" => command.args(["run", "--runtime", RUNTIME]),
                _ => match word.strip_prefix(CGROUPS) {
                    Some(rest) => command.arg(format!("{}{rest}", self.cgroups())),
                    None => command.arg(word),
                },
            };
        }
        command
    }

    /// Runs a line to its end, with nothing on its standard input.
    pub fn ctr(&self, line: &str) -> Output {
        self.ctr_with_input(line, None)
    }

    /// Runs a line with these bytes, and then the end of the file, on its standard input.
    pub fn ctr_with_input(&self, line: &str, input: Option<&[u8]>) -> Output {
        let mut command = self.command(line);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        finish(&format!("ctr {line}"), child, input)
    }

    /// The shims of this daemon, and those of a container.
    pub fn shims(&self) -> Vec<(u32, String)> {
        naming(self.dir.path()).into_iter().filter(|(_, line)| line.contains("containerd-shim-")).collect()
    }

    /// Mount points in the daemon's mount namespace.
    pub fn mounts(&self) -> Vec<String> {
        let file = format!("/proc/{}/mountinfo", self.anchor.pid());
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
    }

    /// What is still left of all containers, some time after the last one: a shim goes after it has answered, and after its last events.
    pub fn left(&self) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let left = self.leftovers();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that is there only while a container is: bundles, state of the runtime, shims and their sockets, mounts; what a pod has.
    pub fn leftovers(&self) -> Vec<String> {
        let private = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", self.anchor.pid()));
        let namespace = self.kind.namespace;
        let dirs = [
            ("bundle", self.file("state/io.containerd.runtime.v2.task").join(namespace)),
            ("sandbox", self.file("state/io.containerd.sandbox.controller.v1.shim").join(namespace)),
            ("state", private("/run/containerd/orlop").join(namespace)),
            ("state", private("/run/containerd/runc").join(namespace)),
            ("socket", private("/run/containerd/s")),
            ("network namespace", self.file("state/netns")),
            ("sandbox", self.file("state/io.containerd.grpc.v1.cri/sandboxes")),
            ("sandbox", self.file("root/io.containerd.grpc.v1.cri/sandboxes")),
            ("container", self.file("state/io.containerd.grpc.v1.cri/containers")),
            ("container", self.file("root/io.containerd.grpc.v1.cri/containers")),
        ];
        let mut found = Vec::new();
        for (kind, dir) in dirs {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| format!("{kind}: {}", entry.file_name().to_string_lossy())));
        }
        found.extend(self.shims().into_iter().map(|(pid, line)| format!("shim: {pid} {line}")));
        let new = self.mounts().into_iter().filter(|mount| !self.baseline.contains(mount));
        found.extend(new.map(|mount| format!("mount: {mount}")));
        found
    }
}

/// The configuration of the snapshotter `blockfile`, each of whose snapshots is a file with a file system (1.7 and later).
fn block_devices(dir: &Path, version: (u32, u32)) -> String {
    const SIZE: u64 = 32 << 20;
    if version < (1, 7) || !Path::new(MKFS).exists() {
        return String::new();
    }
    let (scratch, root) = (dir.join("scratch.ext4"), dir.join("blockfile"));
    let file = File::options().create(true).append(true).open(&scratch).and_then(|file| file.set_len(SIZE));
    file.expect("a file of ours");
    programs::run(Command::new(MKFS).args(["-q", "-F", "-O", "^has_journal"]).arg(&scratch));
    format!(
        "[plugins.\"io.containerd.snapshotter.v1.blockfile\"]\nroot_path = {root:?}\nscratch_file = {scratch:?}\n\
         fs_type = \"ext4\"\nmount_options = []\n"
    )
}

/// A cgroup of one daemon alone: others run beside it, and its end removes all that is in there.
fn numbered(parent: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{parent}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A root file system with busybox.
pub fn rootfs(root: &Path) {
    for sub in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(sub)).expect("a directory of ours");
    }
    fs::copy(programs::path("busybox"), root.join("bin/busybox")).expect("copy of busybox");
    let applets = String::from_utf8(programs::run(programs::command("busybox").arg("--list"))).expect("ASCII");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("a link of ours");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.get_mut().unwrap_or_else(|e| e.into_inner()).take() {
            signal(process.id(), Signal::TERM);
            ended(&mut process, Duration::from_secs(20));
            let _ = process.kill();
            let _ = process.wait();
        }
        kill_all_that_name(self.dir.path());
        remove_cgroups(&self.kind.cgroups);
        self.anchor.end();
    }
}

/// Stands in a line for the cgroup of the daemon's containers, as in `--cgroup CGROUPS/ID`.
pub const CGROUPS: &str = "/orlop-test-ctrd";
