//! The runtime under test, and the laboratory in which one check uses it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

use crate::bundle;
use crate::check::{Failure, Outcome};
use crate::expected;
use crate::socket::readable;
use crate::witness;

/// How long one call of the runtime may take.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// How long a check waits for something to become true.
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// How many containers a race makes where nobody asks for more: it shows that the race is there.
const FEW_CREATES: usize = 12;

/// The type of a tmpfs, statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// What the ids of all laboratories of this run begin with.
pub fn lab_prefix() -> String {
    format!("oci{}-", std::process::id())
}

/// The runtime under test and the directory in which its laboratories lie.
pub struct Host {
    /// The runtime's binary.
    pub runtime: PathBuf,
    /// The name that its `--version` begins with.
    pub name: String,
    /// A copy of it that users other than root can execute.
    pub copy: PathBuf,
    /// Another one, for the checks that try to write to a runtime's file.
    pub target: PathBuf,
    /// The name and version.
    pub version: String,
    /// The mounts outside of the scratch directory, before any check.
    pub mounts: BTreeSet<String>,
    /// How many containers a race makes.
    pub creates: usize,
    /// The runtime whose known failures count, a name of [`crate::expected::EXPECTED`].
    pub expect: String,
    scratch: TempDir,
    labs: AtomicUsize,
}

impl Host {
    /// Asks the runtime for its name and lays out what all bundles share.
    pub fn open(runtime: &Path) -> Result<Self, Failure> {
        let version = Command::new(runtime).arg("--version").stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        let mut words = text.lines().next().unwrap_or_default().split_whitespace().filter(|word| *word != "version");
        let name = words.next().unwrap_or("unnamed").to_owned();
        let version = words.next().unwrap_or_default();
        let expect = expected::edition(&name, version);
        let version = format!("{name} {version}");
        let scratch = tempfile::Builder::new().prefix("oci").tempdir()?;
        // A container in a user namespace must reach its root file system.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))?;
        bundle::copy_busybox(&scratch.path().join("busybox"))?;
        // Now, because a copy that another thread's child still has open for writing cannot be executed.
        let copied = |to: PathBuf| -> Result<PathBuf, Failure> {
            fs::copy(runtime, &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
            Ok(to)
        };
        let file_name = runtime.file_name().unwrap_or_default();
        let copy = copied(scratch.path().join(file_name))?;
        fs::create_dir(scratch.path().join("target"))?;
        let target = copied(scratch.path().join("target").join(file_name))?;
        let (runtime, creates, labs) = (runtime.to_owned(), FEW_CREATES, AtomicUsize::new(0));
        let mounts = witness::mounts(scratch.path())?;
        Ok(Self { runtime, name, copy, target, version, mounts, creates, expect, scratch, labs })
    }

    /// A laboratory with a fresh bundle and a fresh `--root`.
    pub fn lab(self: &Arc<Self>) -> Result<Lab, Failure> {
        let number = self.labs.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{number:04}", lab_prefix());
        let dir = self.scratch.path().join(&id);
        for part in ["", "root", "io", "bundle"] {
            fs::create_dir(dir.join(part))?;
        }
        bundle::rootfs(&dir.join("bundle/rootfs"), &self.scratch.path().join("busybox"))?;
        let mut config = bundle::base();
        bundle::set(&mut config, "/process/terminal", Value::Bool(false));
        Ok(Lab {
            host: Arc::clone(self),
            id,
            dir,
            config,
            under: Vec::new(),
            runtime: self.runtime.clone(),
            output: PathBuf::new(),
            calls: AtomicUsize::new(0),
        })
    }
}

/// One check's bundle, container id and `--root`; [`Lab::close`] ends the containers and reports what is left of them.
pub struct Lab {
    /// The runtime under test.
    pub host: Arc<Host>,
    /// The container's id, unique on this host.
    pub id: String,
    /// The directory that holds all of the check's files.
    pub dir: PathBuf,
    /// The configuration that the next create or run writes to the bundle.
    pub config: Value,
    /// A command, with its first arguments, that every call runs the runtime under.
    pub under: Vec<String>,
    /// The runtime that calls use instead of [`Host::runtime`]: a copy that another user can execute.
    pub runtime: PathBuf,
    output: PathBuf,
    calls: AtomicUsize,
}

/// The end of a call.
#[derive(Debug)]
pub struct Out {
    /// The exit status; the negated signal number if one ended the runtime.
    pub code: i32,
    /// What it, and the container that inherited the stream, wrote so far.
    pub stdout: String,
    /// The same for the error stream.
    pub stderr: String,
    stdout_path: PathBuf,
}

impl Out {
    /// Fails unless the call exited with 0.
    pub fn ok(self, what: &str) -> Result<Self, Failure> {
        self.exits(0, what)
    }

    /// Fails unless the call exited with `code`.
    pub fn exits(self, code: i32, what: &str) -> Result<Self, Failure> {
        ensure!(
            self.code == code,
            "{what}: exit status {} instead of {code}\n  stdout: {}\n  stderr: {}",
            self.code,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        );
        Ok(self)
    }

    /// Fails unless the call failed with 1 and said why in words that contain `text`.
    pub fn fails_with(self, text: &str, what: &str) -> Result<Self, Failure> {
        let out = self.exits(1, what)?;
        ensure!(out.stderr.contains(text), "{what}: stderr lacks {text:?}: {}", out.stderr.trim_end());
        Ok(out)
    }
}

/// A call of the runtime that is being put together.
pub struct Call<'lab> {
    lab: &'lab Lab,
    under: Vec<OsString>,
    global: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    stdin: Option<String>,
    cwd: PathBuf,
    limit: Duration,
}

impl Call<'_> {
    /// Adds options before the command's name.
    pub fn global<S: AsRef<OsStr>>(mut self, options: &[S]) -> Self {
        self.global.extend(options.iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Adds a variable to the runtime's environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// What the runtime reads on its standard input; nothing otherwise.
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// The runtime's working directory; the bundle otherwise.
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Self {
        self.cwd = directory.as_ref().to_owned();
        self
    }

    /// Runs the runtime under another command, which gets its path and arguments.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under.extend(command.iter().map(OsString::from));
        self
    }

    /// Makes the call and waits for its end; a call that takes too long is killed, and is a failure.
    pub fn go(self) -> Result<Out, Failure> {
        let number = self.lab.calls.fetch_add(1, Ordering::Relaxed);
        let io = |stream: &str| self.lab.dir.join(format!("io/{number}.{stream}"));
        let (stdin_path, stdout_path, stderr_path) = (io("in"), io("out"), io("err"));
        fs::write(&stdin_path, self.stdin.as_deref().unwrap_or_default())?;
        let mut argv = self.under.clone();
        argv.push(self.lab.runtime.clone().into());
        argv.extend(["--root".into(), self.lab.dir.join("root").into()]);
        argv.extend(self.global.iter().cloned());
        argv.extend(self.args.iter().cloned());
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.cwd)
            .stdin(File::open(&stdin_path)?)
            .stdout(File::create(&stdout_path)?)
            .stderr(File::create(&stderr_path)?)
            .spawn()?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let in_time = readable(&pidfd, self.limit).is_ok();
        if !in_time {
            child.kill()?;
        }
        let status = child.wait()?;
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (read(&stdout_path), read(&stderr_path));
        ensure!(in_time, "{argv:?} did not end within {:?}\n  stdout: {stdout}\n  stderr: {stderr}", self.limit);
        let code =
            status.code().unwrap_or_else(|| -std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
        Ok(Out { code, stdout, stderr, stdout_path })
    }
}

impl Lab {
    /// The bundle's directory.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// The container's root file system, seen from the host.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("bundle/rootfs")
    }

    /// Sets a value in the configuration, see [`bundle::set`].
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        bundle::set(&mut self.config, pointer, value.into());
        self
    }

    /// Removes a value from the configuration.
    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        bundle::remove(&mut self.config, pointer);
        self
    }

    /// Makes the container's process a shell that runs `script`.
    pub fn sh(&mut self, script: &str) -> &mut Self {
        self.args(&["sh", "-c", script])
    }

    /// Sets the container's process.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", args)
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> &mut Self {
        let source = source.as_ref().to_string_lossy().into_owned();
        let mount = serde_json::json!({
            "destination": destination, "type": kind, "source": source, "options": options
        });
        self.set("/mounts/-", mount)
    }

    /// Removes the namespace of a kind from the configuration.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        self.config["linux"]["namespaces"].as_array_mut().expect("the base has them").retain(|one| one["type"] != kind);
        self
    }

    /// Writes the configuration to the bundle.
    pub fn write(&self) -> Outcome {
        Ok(fs::write(self.bundle().join("config.json"), serde_json::to_vec_pretty(&self.config)?)?)
    }

    /// Makes a directory of the check's own, outside the bundle.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Writes an executable file into the check's directory (or, by a path like `bundle/rootfs/bin/x`, the container's).
    pub fn script(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// A call of the runtime with this laboratory's `--root`.
    pub fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> Call<'_> {
        Call {
            lab: self,
            under: self.under.iter().map(OsString::from).collect(),
            global: Vec::new(),
            args: args.iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: Vec::new(),
            stdin: None,
            cwd: self.bundle(),
            limit: CALL_LIMIT,
        }
    }

    /// A call of a command that takes options and then the container's id.
    pub fn verb(&self, verb: &str, options: &[&str]) -> Call<'_> {
        let mut args = vec![verb];
        args.extend(options);
        args.push(&self.id);
        self.call(&args)
    }

    /// Runs the container in the foreground.
    pub fn run(&self) -> Result<Out, Failure> {
        self.write()?;
        self.verb("run", &[]).go()
    }

    /// Runs `script` as the container and returns what it printed; fails unless it exits with 0.
    pub fn run_sh(&mut self, script: &str) -> Result<String, Failure> {
        Ok(self.sh(script).run()?.ok("run")?.stdout)
    }

    /// Creates the container.
    pub fn create(&mut self) -> Result<Out, Failure> {
        self.create_with(&[])
    }

    /// Creates the container with options.
    pub fn create_with(&mut self, options: &[&str]) -> Result<Out, Failure> {
        self.write()?;
        let out = self.verb("create", options).go()?.ok("create")?;
        self.output = out.stdout_path.clone();
        Ok(out)
    }

    /// Starts the container.
    pub fn start(&self) -> Result<Out, Failure> {
        self.verb("start", &[]).go()?.ok("start")
    }

    /// Creates and starts a container that runs `script`.
    pub fn up(&mut self, script: &str) -> Outcome {
        self.sh(script).create()?;
        self.start()?;
        Ok(())
    }

    /// Creates and starts a container that only waits, without CPU time.
    pub fn up_idle(&mut self) -> Outcome {
        self.up("trap 'exit 0' TERM; sleep 100 & wait")
    }

    /// What the created container has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The container's state.
    pub fn state(&self) -> Result<Value, Failure> {
        let out = self.verb("state", &[]).go()?.ok("state")?;
        Ok(serde_json::from_str(&out.stdout)?)
    }

    /// The container's status.
    pub fn status(&self) -> Result<String, Failure> {
        Ok(self.state()?["status"].as_str().unwrap_or("(no status)").to_owned())
    }

    /// The init process on the host.
    pub fn pid(&self) -> Result<i64, Failure> {
        self.state()?["pid"].as_i64().ok_or_else(|| Failure("the state has no pid".into()))
    }

    /// Waits until the container has a status.
    pub fn wait_for(&self, status: &str) -> Outcome {
        wait_until(&format!("the container is not {status}"), || Ok(self.status()? == status))
    }

    /// Kills the container and waits until it has stopped.
    pub fn stop(&self) -> Outcome {
        self.verb("kill", &[]).go().and_then(|_| self.call(&["kill", &self.id, "KILL"]).go())?;
        self.wait_for("stopped")
    }

    /// Runs a command in the container.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Result<Out, Failure> {
        self.exec_call(options, command).go()
    }

    /// A call that runs a command in the container.
    pub fn exec_call(&self, options: &[&str], command: &[&str]) -> Call<'_> {
        let mut args = vec!["exec"];
        args.extend(options);
        args.push(&self.id);
        args.extend(command);
        self.call(&args)
    }

    /// The directory that holds the container's state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("root").join(&self.id)
    }

    /// Shows that the configuration runs as it is, then applies `edit` and shows that creation is refused with one
    /// reason and leaves nothing behind. Returns the reason.
    pub fn refused(&mut self, edit: impl FnOnce(&mut Self)) -> Result<String, Failure> {
        self.args(&["true"]).run()?.ok("run before the edit")?;
        edit(self);
        self.write()?;
        let out = self.verb("create", &[]).go()?;
        ensure!(out.code != 0, "create accepts it");
        ensure!(!out.stderr.trim().is_empty(), "create fails without a word");
        self.nothing_left("a refused create")?;
        Ok(out.stderr)
    }

    /// Fails if the container has a state directory, a cgroup or a mount.
    pub fn nothing_left(&self, after: &str) -> Outcome {
        ensure!(!self.state_dir().exists(), "{after} leaves the state directory");
        let cgroups = self.cgroups();
        ensure!(cgroups.is_empty(), "{after} leaves the cgroups {cgroups:?}");
        let mounts = self.mounts();
        ensure!(mounts.is_empty(), "{after} leaves the mounts {mounts:?}");
        // A killed process is seen until it is reaped.
        let processes = || self.processes();
        let gone = wait_within(WAIT_LIMIT, || processes().is_empty());
        ensure!(gone, "{after} leaves the processes {:?}", processes());
        Ok(())
    }

    /// What runs with one of this laboratory's files as a standard stream: all that a call of the runtime has started.
    fn processes(&self) -> Vec<String> {
        let ours = |pid: &Path| {
            let stream = |number: &str| fs::read_link(pid.join("fd").join(number));
            ["0", "1", "2"].into_iter().flat_map(stream).any(|file| file.starts_with(&self.dir))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let name =
            |pid: PathBuf| format!("{} {}", pid.display(), fs::read_to_string(pid.join("comm")).unwrap_or_default());
        entries.filter(|pid| ours(pid)).map(name).collect()
    }

    /// The container's cgroup in one v1 hierarchy, if it has one.
    pub fn cgroup(&self, controller: &str) -> Result<PathBuf, Failure> {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let found = self.cgroups().into_iter().find(|path| path.starts_with(&root));
        found.ok_or_else(|| Failure(format!("the container has no cgroup under {}", root.display())))
    }

    /// All cgroups whose name contains the container's id.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find_named(Path::new("/sys/fs/cgroup"), &self.id, 6, &mut found);
        // Where the v2 side is hidden, crun makes plain directories of the tmpfs in its place.
        found.retain(|path| rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type != TMPFS_MAGIC));
        found
    }

    fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| Path::new(point).starts_with(&self.dir)).map(str::to_owned).collect()
    }

    /// Deletes every container of this `--root` by force; what is left after that fails the check, and is then removed.
    pub fn close(self) -> Outcome {
        for entry in fs::read_dir(self.dir.join("root"))?.flatten() {
            let id = entry.file_name();
            if let Some(id) = id.to_str() {
                // Its state directory, looked for below, is the proof of its success.
                let _ = self.call(&["delete", "--force", id]).go();
            }
        }
        // Killed processes leave a cgroup a moment after the kill.
        let _ = wait_until("leftovers", || Ok(self.nothing_left("delete --force").is_ok()));
        let verdict = self.nothing_left("delete --force");
        self.sweep();
        verdict
    }

    /// Removes the cgroups that a check has made for the runtime to be in, with the runtime's own below them.
    pub fn sweep_cgroups(&self) {
        for cgroup in self.cgroups().iter().rev() {
            // The processes of a frozen cgroup do not die.
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let gone = wait_until("busy", || Ok(fs::remove_dir(cgroup).is_ok() || !cgroup.exists()));
            if gone.is_err() {
                eprintln!("cannot remove {}", cgroup.display());
            }
        }
    }

    fn sweep(&self) {
        self.sweep_cgroups();
        for mount in self.mounts().iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
        if self.mounts().is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn find_named(directory: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        }
        if depth > 1 {
            find_named(&entry.path(), name, depth - 1, found);
        }
    }
}

fn wait_within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until `condition` holds, or fails with `otherwise`.
pub fn wait_until(otherwise: &str, mut condition: impl FnMut() -> Result<bool, Failure>) -> Outcome {
    let end = Instant::now() + WAIT_LIMIT;
    while !condition()? {
        ensure!(Instant::now() < end, "{otherwise} after {WAIT_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
