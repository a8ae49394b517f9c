//! A private Docker daemon.

use crate::docker::Docker;
use crate::images::Loaded;
use crate::private::{Anchor, directory, ended, kill_all_that_name, naming, remove_cgroups, signal};
use crate::{images, programs, runtime, wait};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The name under which every daemon knows the runtime under test.
pub const RUNTIME: &str = "orlop";

/// The variable that says how daemons of the tests run containers: unset, by the binary under test; else by a shim of this name, as
/// `io.containerd.orlop.v2` (Docker 23 and later).
pub const RUNTIME_TYPE: &str = "RUNTIME_TYPE";

/// The variable that makes systemd the manager of cgroups when it is `systemd`.
const CGROUP_DRIVER: &str = "CGROUP_DRIVER";

/// The host range that a daemon with `userns_remap` maps its containers' ids to: 65536 ids from here.
pub const REMAPPED: u32 = 200_000;

/// Directories of daemons: this, the pid of the test run, and something random.
const PREFIX: &str = "orlop-dockerd-";

/// More than one test run ever starts: two modes, and in each two tests with a daemon of their own.
const DAEMONS: u32 = 8;

/// How a daemon is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Every container gets the runtime under test without being asked to (`--default-runtime`).
    pub default_runtime: bool,
    /// Containers outlive the daemon (`--live-restore`).
    pub live_restore: bool,
    /// Containers are in a user namespace (`--userns-remap`).
    pub userns_remap: bool,
    /// The runtime is also what the daemon finds as `runc`, which is what BuildKit calls: its calls are in [`Dockerd::calls`].
    pub as_runc: bool,
}

/// A running dockerd with a containerd of its own, in a mount and a network namespace that end with it.
#[derive(Debug)]
pub struct Dockerd {
    dir: TempDir,
    options: Options,
    runtime: PathBuf,
    anchor: Anchor,
    process: Mutex<Option<Child>>,
    loaded: Mutex<Loaded>,
    baseline: Mutex<Vec<String>>,
    exported: Mutex<Vec<String>>,
    cgroup_parent: String,
    runtime_type: Option<String>,
}

impl Dockerd {
    /// Starts a daemon that knows `runtime` as [`RUNTIME`].
    ///
    /// The daemon gets SIGTERM when the calling thread ends, so that it never outlives a killed test run.
    pub fn start(runtime: &Path, options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = directory(&format!("{PREFIX}{}-", std::process::id()));
        // The root of a remapped container has to reach its root filesystem.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod of a directory of ours");
        let anchor = Anchor::new(dir.path());
        let cgroup_parent = cgroup_parent(std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let daemon = Self {
            dir,
            options,
            runtime: runtime.to_owned(),
            anchor,
            process: Mutex::default(),
            loaded: Mutex::default(),
            baseline: Mutex::default(),
            exported: Mutex::default(),
            cgroup_parent,
            runtime_type: std::env::var(RUNTIME_TYPE).ok(),
        };
        daemon.configure();
        daemon.resume();
        *daemon.baseline.lock().expect("not poisoned") = daemon.mounts();
        daemon
    }

    /// The directory that has all of the daemon's files; tests may keep theirs below `files`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the shims and the runtime keep state: dockerd's exec root.
    pub fn exec_root(&self) -> PathBuf {
        self.dir().join("exec")
    }

    /// The cgroup below which all containers are, as a path in each hierarchy.
    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// The pid of a process that is in the daemon's mount and network namespace and does nothing.
    pub fn anchor(&self) -> u32 {
        self.anchor.pid()
    }

    /// The shim that runs containers, where it is not containerd's own.
    pub fn runtime_type(&self) -> Option<&str> {
        self.runtime_type.as_deref()
    }

    /// The shim on the daemon's PATH, and what the daemon is told of it.
    fn configure(&self) {
        let bin = self.dir().join("bin");
        fs::create_dir(&bin).expect("a directory of ours");
        if self.options.as_runc {
            let (calls, runtime) = (self.calls_path().display().to_string(), self.runtime.display().to_string());
            let text = format!("#!/bin/sh\necho \"$@\" >>{calls}\nexec {runtime} \"$@\"\n");
            fs::write(bin.join("runc"), text).expect("a file of ours");
            fs::set_permissions(bin.join("runc"), fs::Permissions::from_mode(0o755)).expect("chmod of a file of ours");
        }
        let Some(kind) = self.runtime_type() else { return };
        let name = kind.strip_prefix("io.containerd.").unwrap_or_else(|| panic!("{RUNTIME_TYPE}: {kind:?}"));
        let link = bin.join(format!("containerd-shim-{}", name.replace('.', "-")));
        symlink(runtime::shim(), link).expect("a link of ours");
        let config = serde_json::json!({"runtimes": {RUNTIME: {"runtimeType": kind}}});
        fs::write(self.dir().join("daemon.json"), config.to_string()).expect("a file of ours");
    }

    /// The command lines of the runtime where it is called as `runc`.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.calls_path()).unwrap_or_default()
    }

    fn calls_path(&self) -> PathBuf {
        self.dir().join("calls")
    }

    /// The binary under test.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// A client whose containers carry `label`, and name the runtime unless it is the daemon's default.
    pub fn client(&self, label: &str) -> Docker {
        let create_flags = if self.options.default_runtime { Vec::new() } else { vec![format!("--runtime={RUNTIME}")] };
        Docker { socket: self.socket(), config: self.dir().join("client"), create_flags, label: label.to_owned() }
    }

    /// Loads an image of [`images`] unless the daemon has it.
    pub fn need(&self, image: &str) {
        images::load(&self.client("orlop.image"), image, &mut self.loaded.lock().unwrap_or_else(|e| e.into_inner()));
    }

    /// The end of a machine: the daemon and all that belongs to it but the containers' own processes are killed.
    pub fn crash(&self) {
        kill_all_that_name(self.dir());
        if let Some(mut process) = self.process.lock().expect("not poisoned").take() {
            let _ = process.wait();
        }
        // As a reboot would: by then their numbers are others'.
        for pid_file in ["dockerd.pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.dir().join(pid_file));
        }
    }

    /// Stops the daemon alone; with `live_restore` the containers stay.
    pub fn suspend(&self) {
        let Some(mut process) = self.process.lock().expect("not poisoned").take() else { return };
        signal(process.id(), Signal::TERM);
        let stopped = ended(&mut process, Duration::from_secs(120));
        let _ = process.kill();
        let _ = process.wait();
        assert!(stopped, "dockerd did not stop\n{}", self.log());
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn resume(&self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the daemon's log");
        let mut command = self.inside("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(programs::path("dockerd")).args(self.flags());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.dir().join("bin").display()));
        command.stdout(log.try_clone().expect("dup")).stderr(log);
        let mut process = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let client = self.client("");
        wait::until(
            &format!("dockerd answers; its log is {}", self.log_path().display()),
            Duration::from_secs(180),
            || {
                if let Ok(Some(status)) = process.try_wait() {
                    panic!("dockerd ended with {status}\n{}", self.log());
                }
                (self.socket().exists() && client.run("version").status == 0).then_some(())
            },
        );
        *self.process.lock().expect("not poisoned") = Some(process);
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.dir().join(name).display().to_string();
        let mut flags = vec![
            format!("--host=unix://{}", self.socket().display()),
            format!("--data-root={}", path("data")),
            format!("--exec-root={}", path("exec")),
            format!("--pidfile={}", path("dockerd.pid")),
            match self.runtime_type() {
                None => format!("--add-runtime={RUNTIME}={}", self.runtime.display()),
                Some(_) => format!("--config-file={}", path("daemon.json")),
            },
            // Of a slice, the name alone.
            format!("--cgroup-parent={}", if by_systemd() { &self.cgroup_parent[1..] } else { &self.cgroup_parent }),
            format!("--exec-opt=native.cgroupdriver={}", if by_systemd() { "systemd" } else { "cgroupfs" }),
            "--shutdown-timeout=2".to_owned(),
        ];
        let switches = [
            (self.options.default_runtime, format!("--default-runtime={RUNTIME}")),
            (self.options.live_restore, "--live-restore".to_owned()),
            (self.options.userns_remap, "--userns-remap=nobody:nogroup".to_owned()),
        ];
        flags.extend(switches.into_iter().filter(|s| s.0).map(|s| s.1));
        flags
    }

    fn socket(&self) -> PathBuf {
        self.dir().join("docker.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("dockerd.log")
    }

    /// The last lines of the daemon's log, and before them its last warnings and errors.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let (before, last) = lines.split_at(lines.len().saturating_sub(20));
        let is_bad = |line: &&&str| line.contains("level=warning") || line.contains("level=error");
        let bad: Vec<&str> = before.iter().filter(is_bad).copied().collect();
        [&bad[bad.len().saturating_sub(200)..], last].concat().join("\n")
    }

    /// The containers of which the daemon keeps a layer, each with where that is mounted.
    pub fn layers(&self) -> Vec<(String, PathBuf)> {
        let data = self.dir().join("data");
        let kept = fs::read_dir(data.join("image/overlay2/layerdb/mounts")).into_iter().flatten().flatten();
        kept.map(|entry| {
            let layer = fs::read_to_string(entry.path().join("mount-id")).unwrap_or_default();
            (entry.file_name().to_string_lossy().into_owned(), data.join("overlay2").join(layer).join("merged"))
        })
        .collect()
    }

    /// This container was exported. Docker 26 takes a reference to its layer for that and never gives it back: the layer stays mounted, with
    /// any runtime, when the container is long gone.
    pub fn has_exported(&self, id: String) {
        self.exported.lock().expect("not poisoned").push(id);
    }

    /// A command for `program` in the daemon's mount and network namespace.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = programs::command("nsenter");
        command.arg(format!("--target={}", self.anchor())).args(["--mount", "--net", "--"]);
        command.arg(programs::path(program));
        command
    }

    /// Calls `f` on a thread that is in the daemon's network namespace, where the published ports are.
    pub fn on_network<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(format!("/proc/{}/ns/net", self.anchor())).expect("the network namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use std::os::fd::AsFd;
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Has containerd delete the tasks that dockerd has forgotten: from version 23 on it gives a task 30 seconds for its end, in which the log may not
    /// have taken what was written, and removes the container then, whatever containerd says; nobody else asks again, with any runtime.
    pub fn delete_the_forgotten(&self) {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        for id in log.lines().filter_map(forgotten) {
            let mut command = self.inside("ctr");
            command.arg("--address").arg(self.exec_root().join("containerd/containerd.sock"));
            command.args(["--namespace", "moby", "tasks", "delete", "--force", id]);
            // It fails while there still is something to write.
            let _ = command.output();
        }
    }

    /// Mount points in the daemon's mount namespace.
    pub fn mounts(&self) -> Vec<String> {
        let file = format!("/proc/{}/mountinfo", self.anchor());
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
    }

    /// Mount points that the daemon has now and did not have at its start.
    pub fn new_mounts(&self) -> Vec<String> {
        let baseline = self.baseline.lock().expect("not poisoned");
        // Made for the first container on the host's network and kept: dockerd's, not a container's.
        let kept = self.exec_root().join("netns/default");
        let exported = self.exported.lock().expect("not poisoned");
        let layers = self.layers().into_iter().filter(|(id, _)| exported.contains(id));
        let kept: Vec<PathBuf> = layers.map(|(_, mount)| mount).chain([kept]).collect();
        let is_new = |mount: &String| !baseline.contains(mount) && !kept.iter().any(|kept| kept == Path::new(mount));
        self.mounts().into_iter().filter(is_new).collect()
    }

    /// Processes whose command line names the daemon's directory: dockerd, containerd, shims, port proxies.
    pub fn processes(&self) -> Vec<(u32, String)> {
        naming(self.dir())
    }
}

/// Ends what a killed test run could not: its shims, containers, cgroups and directories. Live runs are left alone.
pub fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let run = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let Some(run) = run.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) else { continue };
        kill_all_that_name(&entry.path());
        (0..DAEMONS).for_each(|number| remove_cgroups(&cgroup_parent(run, number)));
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// The container of a line in which dockerd says that it will not ask containerd again.
fn forgotten(line: &str) -> Option<&str> {
    line.split_once(" cleanup: failed to delete container from containerd")?.0.split_once("msg=\"").map(|(_, id)| id)
}

fn by_systemd() -> bool {
    std::env::var(CGROUP_DRIVER).is_ok_and(|driver| driver == "systemd")
}

/// A dash in the name of a slice would mean another one above it.
fn cgroup_parent(run: u32, number: u32) -> String {
    if by_systemd() { format!("/orlop_test_{run}_{number}.slice") } else { format!("/orlop-test-{run}-{number}") }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.get_mut().unwrap_or_else(|e| e.into_inner()).take() {
            signal(process.id(), Signal::TERM);
            ended(&mut process, Duration::from_secs(20));
            let _ = process.kill();
            let _ = process.wait();
        }
        kill_all_that_name(self.dir());
        remove_cgroups(&self.cgroup_parent);
        self.anchor.end();
    }
}

#[cfg(test)]
mod tests {
    use super::forgotten;

    #[test]
    fn who_is_forgotten() {
        let line = "time=\"2026-11-21T16:12:43Z\" level=error msg=\"2e47 cleanup: failed to delete container from containerd: cannot delete running task 2e47: failed precondition\"";
        assert_eq!(forgotten(line), Some("2e47"));
        assert_eq!(forgotten("level=warning msg=\"failed to delete container from containerd\" container=2e47"), None);
    }
}
