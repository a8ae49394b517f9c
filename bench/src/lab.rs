//! What every measurement needs: the runtimes, the programs beside them, bundles, and the timer.

use crate::Result;
use crate::host::{Layout, Scratch};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, set_child_subreaper, waitid, waitpid};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// What comes before each timed call: a burst of calls would share the kernel's RCU grace periods.
pub const REST: Duration = Duration::from_millis(60);

/// The program compiled in place of a runtime, whose costs nothing can be below.
pub const FLOOR: &str = "floor";

/// One timed call. CPU is user + system of the process and the children that it waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// CPU time, ms.
    pub cpu: f64,
    /// Wall time, ms.
    pub wall: f64,
    /// Peak resident memory, MB (10⁶ bytes).
    pub rss: f64,
}

impl Sample {
    /// Several calls as one: times add up, the larger peak holds.
    pub fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, wall: self.wall + other.wall, rss: self.rss.max(other.rss) }
    }
}

/// A runtime under measurement, with a state root of its own.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// What it is called in the results.
    pub name: String,
    /// Its binary.
    pub path: PathBuf,
    /// The first line of `--version`.
    pub version: String,
    root: PathBuf,
}

impl Runtime {
    /// The whole command line of a command.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<OsString> {
        let mut command = vec![self.path.clone().into(), "--root".into(), self.root.clone().into()];
        command.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command
    }

    /// The same runtime over a state root of this name.
    pub fn with_root(&self, name: &str) -> Self {
        Self { root: self.root.with_file_name(format!("{}-{name}", self.name)), ..self.clone() }
    }
}

/// A container that was created.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The process id of its init.
    pub pid: Pid,
}

/// Everything together.
#[derive(Debug)]
pub struct Lab {
    /// The cgroups as the measurements see them.
    pub layout: Layout,
    /// orlop first, then what was found of runc and crun.
    pub runtimes: Vec<Runtime>,
    scratch: Scratch,
    timer: PathBuf,
    floor: PathBuf,
    spec: Value,
    count: AtomicU32,
}

impl Lab {
    /// Compiles the programs, lays out the root file system and finds the runtimes: `ORLOP`, `RUNC`, `CRUN`, or these names on PATH.
    pub fn new() -> Result<Self> {
        // The containers' processes come to us when their runtime has ended.
        set_child_subreaper(Some(rustix::process::getpid()))?;
        let (layout, scratch) = (Layout::here()?, Scratch::new()?);
        let dir = scratch.path();
        let timer = compile(dir, "timer", include_str!("../tools/timer.c"), &[])?;
        let hierarchies: Vec<String> = layout.v1.iter().map(|name| format!("{name:?}")).collect();
        let define = format!("-DHIERARCHIES={}", hierarchies.join(","));
        let flags: &[&str] = if layout.v1.is_empty() { &[] } else { &[&define] };
        let floor = compile(dir, FLOOR, include_str!("../tools/floor.c"), flags)?;
        let small = compile(dir, "true", include_str!("../tools/true.c"), &[])?;
        rootfs(&dir.join("rootfs"), &small)?;
        let runtimes = find_runtimes(dir)?;
        let orlop = runtimes.first().ok_or("no runtime")?;
        let spec = spec(orlop, &dir.join("spec"))?;
        Ok(Self { layout, runtimes, timer, floor, spec, count: AtomicU32::new(0), scratch })
    }

    /// A path below the scratch directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The root file system of all containers.
    pub fn rootfs(&self) -> PathBuf {
        self.file("rootfs")
    }

    /// An id for a container that no other has.
    pub fn id(&self) -> String {
        format!("{}{}", prefix(), self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// What `orlop spec` writes, with `true` as program and no terminal.
    pub fn default_config(&self) -> Value {
        self.spec.clone()
    }

    /// What Docker 20.10 asks for by default, as its daemon wrote it, without hooks.
    pub fn docker_config(&self) -> Result<Value> {
        let mut config: Value = serde_json::from_str(include_str!("../docker.json"))?;
        if cfg!(target_arch = "aarch64") {
            set(&mut config, "/linux/seccomp/architectures", json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]));
        }
        let mounts = config.pointer_mut("/mounts").and_then(Value::as_array_mut).into_iter().flatten();
        for source in mounts.filter_map(|mount| mount.get_mut("source")) {
            if let Some(name) = source.as_str().and_then(|text| text.strip_prefix("BUNDLE/")) {
                let path = self.file(name);
                fs::write(&path, "made by the engine\n")?;
                *source = json!(path);
            }
        }
        Ok(config)
    }

    /// Writes a bundle and gives its directory. Its root is [`Lab::rootfs`].
    pub fn bundle(&self, name: &str, mut config: Value) -> Result<PathBuf> {
        let dir = self.file("bundles").join(name);
        fs::create_dir_all(&dir)?;
        set(&mut config, "/root/path", json!(self.rootfs()));
        fs::write(dir.join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(dir)
    }

    /// The same bundle with another program.
    pub fn bundle_of(&self, name: &str, mut config: Value, args: &[&str]) -> Result<PathBuf> {
        set(&mut config, "/process/args", json!(args));
        self.bundle(name, config)
    }

    /// Runs a command to its end and measures it; one that fails is an error with what it said.
    pub fn time(&self, command: &[OsString]) -> Result<Sample> {
        // A file, not a pipe: the container's process keeps it open.
        let mut stderr = tempfile::tempfile_in(self.scratch.path())?;
        let output =
            Command::new(&self.timer).args(command).stdin(Stdio::null()).stderr(stderr.try_clone()?).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let line = || command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        match numbers.as_slice() {
            [0.0, cpu, wall, rss] => Ok(Sample { cpu: cpu / 1e3, wall: wall / 1e3, rss: rss * 1024.0 / 1e6 }),
            [status, ..] => {
                let mut why = String::new();
                stderr.rewind()?;
                stderr.read_to_string(&mut why)?;
                Err(format!("{}: exit status {status}: {}", line(), why.trim()).into())
            }
            [] => Err(format!("{}: the timer ended with {}", line(), output.status).into()),
        }
    }

    /// Times a command of a runtime.
    pub fn call<S: AsRef<OsStr>>(&self, runtime: &Runtime, args: impl IntoIterator<Item = S>) -> Result<Sample> {
        self.time(&runtime.command(args))
    }

    /// Times a whole `run`.
    pub fn run(&self, runtime: &Runtime, bundle: &Path) -> Result<Sample> {
        let id = self.id();
        self.call(runtime, [OsStr::new("run"), "--bundle".as_ref(), bundle.as_ref(), id.as_ref()])
    }

    /// Times a `create`.
    pub fn create(&self, runtime: &Runtime, bundle: &Path) -> Result<(Sample, Container)> {
        let id = self.id();
        let file = self.file(&format!("{id}.pid"));
        let options = [OsStr::new("create"), "--bundle".as_ref(), bundle.as_ref(), "--pid-file".as_ref()];
        let sample = self.call(runtime, options.into_iter().chain([file.as_ref(), OsStr::new(&id)]))?;
        let pid =
            fs::read_to_string(&file)?.trim().parse().ok().and_then(Pid::from_raw).ok_or("no pid in the pid file")?;
        fs::remove_file(file)?;
        Ok((sample, Container { id, pid }))
    }

    /// Times the floor program under a memory limit, if any.
    pub fn floor(&self, limit: Option<u64>, program: &str) -> Result<Sample> {
        self.time(&self.floor_command(limit, program))
    }

    /// The command line of the floor program.
    pub fn floor_command(&self, limit: Option<u64>, program: &str) -> Vec<OsString> {
        let limit = limit.map_or("-".into(), |bytes| bytes.to_string());
        vec![self.floor.clone().into(), self.id().into(), limit.into(), self.rootfs().into(), program.into()]
    }

    /// Ends every container of ours and says what is left of them.
    pub fn clean_up(&self) -> Result<()> {
        for entry in fs::read_dir(self.file("state"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(runtime) =
                self.runtimes.iter().find(|r| name == r.name || name.starts_with(&format!("{}-", r.name)))
            else {
                continue;
            };
            let runtime = Runtime { root: entry.path(), ..runtime.clone() };
            for container in fs::read_dir(entry.path())?.flatten() {
                let id = container.file_name();
                if id.to_string_lossy().starts_with(&prefix()) {
                    let _ = self.call(&runtime, [OsStr::new("delete"), "--force".as_ref(), &id]);
                }
            }
        }
        reap_all();
        let is_ours =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix()));
        let entries =
            self.layout.directories().into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
        let left: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_ours).collect();
        for directory in &left {
            let _ = fs::remove_dir(directory);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("cgroups were left behind: {left:?}").into()) }
    }
}

/// What the ids of this run begin with.
fn prefix() -> String {
    format!("bench-{}-", std::process::id())
}

/// Waits for an init and gives the CPU time that it has used since it was made, in ms. That of a forked runtime counts too.
pub fn reap(pid: Pid) -> Result<f64> {
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let text = fs::read_to_string(format!("/proc/{}/schedstat", pid.as_raw_nonzero()))?;
    waitpid(Some(pid), WaitOptions::empty())?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e6)
}

/// Waits for every child that has ended.
pub fn reap_all() {
    while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
}

/// Rests, so that the call to come is not part of a burst.
pub fn rest() {
    sleep(REST);
}

/// Sets the value at a JSON pointer whose parent is there.
pub fn set(config: &mut Value, pointer: &str, value: Value) {
    let Some((parent, member)) = pointer.rsplit_once('/') else { return };
    if let Some(object) = config.pointer_mut(parent).and_then(Value::as_object_mut) {
        object.insert(member.to_owned(), value);
    }
}

fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let (file, program) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&file, source)?;
    let output = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).args(flags).arg(&file).output();
    let output = output.map_err(|error| format!("cannot execute cc, the C compiler: {error}"))?;
    match output.status.success() {
        true => Ok(program),
        false => Err(format!("cc {name}.c: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Busybox, and the smallest static program as /bin/static-true.
fn rootfs(rootfs: &Path, small: &Path) -> Result<()> {
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(name))?;
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.ok_or("no busybox on this host: install busybox-static")?, rootfs.join("bin/busybox"))?;
    for applet in ["sh", "sleep", "true"] {
        symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    fs::copy(small, rootfs.join("bin/static-true"))?;
    // Mount points of Docker's configuration; else the first container would be the one to make them.
    for name in ["etc/resolv.conf", "etc/hostname", "etc/hosts"] {
        fs::write(rootfs.join(name), "")?;
    }
    Ok(())
}

/// The runtimes that are there; those of the environment have to be. orlop is the one built from this tree, if any.
fn find_runtimes(dir: &Path) -> Result<Vec<Runtime>> {
    let mut found: BTreeMap<usize, Runtime> = BTreeMap::new();
    for (order, name) in ["orlop", "runc", "crun"].into_iter().enumerate() {
        let asked = env::var_os(name.to_uppercase()).filter(|value| !value.is_empty());
        let is_asked = asked.is_some();
        let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../out")).join(name);
        let Some(path) =
            asked.map_or_else(|| fs::canonicalize(built).ok().or_else(|| search(name.as_ref())), |a| search(&a))
        else {
            if is_asked || name == "orlop" {
                return Err(format!("no runtime {name}: set {}=/path/to/it", name.to_uppercase()).into());
            }
            eprintln!("bench: no {name} here: measured without it");
            continue;
        };
        let output = Command::new(&path).arg("--version").output()?;
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        let root = dir.join("state").join(name);
        fs::create_dir_all(&root)?;
        found.insert(order, Runtime { name: name.into(), path, version, root });
    }
    Ok(found.into_values().collect())
}

/// A path as it is, a name on PATH and where root's programs are.
pub fn search(program: &OsStr) -> Option<PathBuf> {
    if program.to_string_lossy().contains('/') {
        return fs::canonicalize(program).ok();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).map(|dir: PathBuf| dir.join(program));
    all.into_iter().find(|path| File::open(path).is_ok()).and_then(|path| fs::canonicalize(path).ok())
}

/// The default bundle, in the version of the specification that Debian's crun knows; all of its fields are as old.
pub fn spec(orlop: &Runtime, dir: &Path) -> Result<Value> {
    fs::create_dir_all(dir)?;
    let output = Command::new(&orlop.path).arg("spec").current_dir(dir).output()?;
    if !output.status.success() {
        return Err(format!("orlop spec: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let mut config: Value = serde_json::from_slice(&fs::read(dir.join("config.json"))?)?;
    set(&mut config, "/ociVersion", json!("1.0.2"));
    set(&mut config, "/process/terminal", json!(false));
    set(&mut config, "/process/args", json!(["true"]));
    Ok(config)
}
