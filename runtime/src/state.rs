//! The state of containers: one directory each below the root, whose contents say what the container is made of. The status
//! is never stored: it is derived from the kernel each time.
//!
//! | file | is there | what for |
//! |---|---|---|
//! | `config.json` | always | the bytes that the container was made from |
//! | `cgroup-manager` | before config.json, unless it is cgroupfs | who makes the cgroups, for a `delete` of what a killed create has left |
//! | `state.json` | from the hooks of create on | [`Saved`], written to a temporary file and renamed |
//! | `resources.json` | from the first update on | the limits in force: those of config.json and of every update |
//! | `exec.fifo` | until start | the gate of the init, and the way of a failure behind it |

use crate::cgroup::{self, Cgroup, Driver, Paths, Unit};
use crate::config::{self, Config};
use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::c_string;
use crate::resctrl;
use crate::whole;
use oci_spec::runtime::{LinuxResources, Spec};
use orlop_sys::{Errno, file, process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

mod lock;

pub use lock::Lock;

/// The name of the gate.
pub const FIFO: &str = "exec.fifo";
const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const RESOURCES: &str = "resources.json";
const MANAGER: &str = "cgroup-manager";

/// What the file of that name says: without it the driver is cgroupfs, so that the usual container needs none.
const MANAGERS: [(&str, Driver, bool); 3] = [
    ("systemd", Driver::Systemd, false),
    ("systemd --user", Driver::Systemd, true),
    ("disabled", Driver::Disabled, false),
];

/// What state.json holds; the names that runc's has are the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The version of the runtime specification.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The init's pid in the pid namespace of the runtime.
    pub init_process_pid: i32,
    /// When it started, in clock ticks after boot: a pid is used again, but not with this (proc(5), /proc/PID/stat).
    pub init_process_start: u64,
    /// When the container was created: RFC 3339, UTC, nanoseconds.
    pub created: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The rootfs, absolute and resolved.
    pub rootfs: PathBuf,
    /// Those of config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where the cgroups are.
    pub cgroup_paths: Paths,
    /// Its class of service (Intel RDT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<resctrl::Group>,
    /// The unit that systemd has for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Unit>,
    /// Whether the init has a pid namespace of its own, with which all its processes end.
    pub private_pid: bool,
    /// Whether CRIU has restored it into a time namespace, in which its clocks go on, that config.json does not list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored_time: bool,
    /// Whether config.json has hooks that are still to run: poststart and poststop. Without, nobody has to read it again.
    #[serde(default = "yes")]
    pub late_hooks: bool,
    /// Its create runs hooks, and the init may still have the host's root: nothing may follow it there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub making: bool,
}

/// For a state that does not say it.
fn yes() -> bool {
    true
}

/// The specification's status (runtime.md, "State"), and runc's `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The init waits at its gate.
    Created,
    /// It executes the program.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// It has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A container that is there.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub dir: PathBuf,
    /// Its state.json.
    pub saved: Saved,
    /// Of a container that this process has made: its lock, which was given up.
    lock: Option<Rc<Lock>>,
}

/// runc's rule: letters, digits, `_`, `+`, `-`, `.`, and not `.` or `..` alone.
pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::new(Kind::Invalid, "container id cannot be empty"));
    }
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.'));
    if !plain || matches!(id, "." | "..") || id.len() > 255 {
        return Err(Error::new(Kind::Invalid, "invalid container ID format")
            .at(format!("{id:?}"))
            .hint("letters, digits and _ + - . make an id, but not . or .. alone"));
    }
    Ok(())
}

fn absent(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container does not exist: {id:?}"))
}

impl Container {
    /// The container of this id.
    pub fn load(root: &Path, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = root.join(id);
        let path = dir.join(STATE);
        let raw = match whole::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound && !dir.exists() => {
                return Err(absent(id));
            }
            other => other.on("read", path.display())?,
        };
        let saved = serde_json::from_slice(&raw).map_err(|e| {
            invalid(path.display().to_string(), format!("is not the state of a container: {e}"))
                .hint("`delete --force` removes it")
        })?;
        Ok(Container { dir, saved, lock: None })
    }

    /// Every container below `root`, by id, and what is wrong with those that cannot be loaded.
    pub fn all(root: &Path) -> Result<Vec<std::result::Result<Container, (String, Error)>>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(root).on("open", root.display())? {
            let entry = entry.on("read", root.display())?;
            if entry.file_type().on("stat", entry.path().display())?.is_dir() {
                ids.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        ids.sort();
        let load = |id: String| Container::load(root, &id).map_err(|e| (id, e));
        // One that was deleted in the meantime is no error.
        Ok(ids.into_iter().map(load).filter(|c| !matches!(c, Err((_, e)) if e.kind() == Kind::NotFound)).collect())
    }

    /// What can be known of a container that [`Container::load`] cannot load, because its create was killed: where its
    /// cgroups would be by the configuration that it has kept. `None`: it was killed before it made any. The
    /// caller holds the lock.
    pub fn unfinished(root: &Path, id: &str) -> Result<Option<Box<dyn Cgroup>>> {
        check_id(id)?;
        let dir = root.join(id);
        // Written before the cgroups are made: when it is not complete, there are none.
        let Ok(config) = Config::load(&dir.join(CONFIG)) else { return Ok(None) };
        let (driver, user) = manager(&dir)?;
        cgroup::Host::default()
            .plan(&cgroup::Request { driver, user, id, rootless: None, spec: &config.spec })
            .map(Some)
    }

    /// The container of this id, and the lock on it, which is waited for: it comes first, so that what is loaded is what is locked.
    pub fn locked(root: &Path, id: &str) -> Result<(Container, Lock)> {
        let lock = Lock::of_container(root, id)?;
        Ok((Container::load(root, id)?, lock))
    }

    /// Waits for the lock on a container that this process has made, as long as it takes: nobody else would remove it. Held until the
    /// value goes. False: another command has deleted it.
    pub fn lock_again(&self) -> Result<bool> {
        let Some(lock) = &self.lock else { return Ok(false) };
        lock.again(&self.dir)?;
        lock.is_of_something(&self.dir)
    }

    /// What the kernel says of it now.
    pub fn status(&self) -> Result<Status> {
        if !self.init_lives()? {
            return Ok(Status::Stopped);
        }
        if self.cgroup().frozen()? {
            return Ok(Status::Paused);
        }
        Ok(if self.dir.join(FIFO).exists() { Status::Created } else { Status::Running })
    }

    /// A pidfd of the init, if the process of that pid still is it.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        let gone = || Error::new(Kind::State, "container not running");
        let pidfd = match process::pidfd_open(self.saved.init_process_pid) {
            Err(Errno::ESRCH | Errno::EINVAL) => return Err(gone()),
            other => other.on("pidfd_open", self.saved.init_process_pid)?,
        };
        // After the fd was got: from here on the pid cannot come to mean another process unseen.
        if self.init_lives()? { Ok(pidfd) } else { Err(gone()) }
    }

    /// Only a process that is known to be gone is gone: for want of an fd or of memory a running container must not look
    /// like a stopped one, which could be deleted.
    fn init_lives(&self) -> Result<bool> {
        let pid = self.saved.init_process_pid;
        let stat = read_stat(pid).on("read", format!("\"/proc/{pid}/stat\""))?;
        Ok(pid > 0 && is_running(stat, self.saved.init_process_start))
    }

    /// Its cgroups.
    pub fn cgroup(&self) -> Box<dyn Cgroup> {
        cgroup::load(&self.saved.cgroup_paths, self.saved.systemd.as_ref())
    }

    /// The configuration that it was made from.
    pub fn config(&self) -> Result<Config> {
        Config::load(&self.dir.join(CONFIG))
    }

    /// The limits in force, device rules included: `linux.resources` with what every `update` has changed.
    pub fn resources(&self) -> Result<LinuxResources> {
        let path = self.dir.join(RESOURCES);
        match std::fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let linux = self.config()?.spec.linux().clone();
                Ok(linux.and_then(|l| l.resources().clone()).unwrap_or_default())
            }
            raw => config::parse(&raw.on("read", path.display())?, &path),
        }
    }

    /// Keeps the limits that [`Container::resources`] gives from now on; complete or not at all.
    pub fn keep_resources(&self, resources: &LinuxResources) -> Result<()> {
        replace(&self.dir, RESOURCES, resources)
    }

    /// The uid that owns its directory.
    pub fn owner(&self) -> Result<u32> {
        Ok(std::fs::metadata(&self.dir).on("stat", self.dir.display())?.uid())
    }

    /// Removes the directory.
    pub fn remove(&self) -> Result<()> {
        remove_dir(&self.dir)?;
        if let Some(lock) = &self.lock {
            lock.leave();
        }
        Ok(())
    }
}

/// The state directory of a container that is being made: removed on drop, until it is committed.
#[derive(Debug)]
pub struct Reserved {
    /// Where it is.
    pub dir: PathBuf,
    lock: Rc<Lock>,
    armed: bool,
}

impl Reserved {
    /// Takes the id. The directory is locked until the value goes, so that `start` and `delete` wait for `create`.
    pub fn new(root: &Path, id: &str) -> Result<Reserved> {
        let dir = root.join(id);
        let make =
            |mode: u32, recursive: bool, path: &Path| DirBuilder::new().mode(mode).recursive(recursive).create(path);
        let mut made = make(0o711, false, &dir);
        if made.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            make(0o700, true, root).on("mkdir", root.display()).map_err(not_writable)?;
            made = make(0o711, false, &dir);
        }
        match made {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(Kind::Exists, format!("container with given ID already exists: {id:?}")));
            }
            other => other.on("mkdir", dir.display()).map_err(not_writable)?,
        }
        let lock = Lock::of(&dir).inspect_err(|_| {
            let _ = std::fs::remove_dir(&dir);
        })?;
        Ok(Reserved { dir, lock: Rc::new(lock), armed: true })
    }

    /// The lock on the directory.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.directory()
    }

    /// Keeps the configuration as it was read, and before it who makes the cgroups: with config.json both are there.
    pub fn keep_config(&self, config: &Config, request: &cgroup::Request) -> Result<()> {
        let kept = |(_, driver, user): &&(_, _, _)| {
            *driver == request.driver && (*driver == Driver::Disabled || *user == request.user)
        };
        if let Some((name, ..)) = MANAGERS.iter().find(kept) {
            self.write(MANAGER, name.as_bytes())?;
        }
        self.write(CONFIG, &config.raw)
    }

    /// Writes state.json; complete or not at all.
    pub fn save(&self, saved: &Saved) -> Result<()> {
        replace(&self.dir, STATE, saved)
    }

    /// Writes state.json under another name, until [`Reserved::publish`].
    pub fn prepare(&self, saved: &Saved) -> Result<()> {
        write_beside(&self.dir, STATE, saved)
    }

    /// From now on the container is found by its id.
    pub fn publish(&self) -> Result<()> {
        put_in_place(&self.dir, STATE)
    }

    fn write(&self, name: &str, data: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        whole::write(&path, file::O_CREAT | file::O_EXCL, data).on("write", path.display())
    }

    /// The gate. The fifo is opened for both directions: the init then waits for a byte
    /// instead of seeing the end of a fifo without writers.
    pub fn gate(&self) -> Result<OwnedFd> {
        let fifo = c_string(FIFO, "")?;
        let path = self.dir.join(FIFO);
        file::mknodat(self.lock.directory(), &fifo, file::S_IFIFO | 0o600, 0).on("mkfifo", path.display())?;
        file::openat(self.lock.directory(), &fifo, file::O_RDWR | file::O_NOFOLLOW, 0).on("open", path.display())
    }

    /// The container is there to stay.
    pub fn commit(mut self) {
        self.armed = false;
    }

    /// The same container, as a later command would load it.
    pub fn into_container(mut self, saved: Saved) -> Container {
        self.armed = false;
        self.lock.give_up();
        Container { dir: std::mem::take(&mut self.dir), saved, lock: Some(self.lock.clone()) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.armed {
            // The first error is what the user must hear.
            let _ = remove_dir(&self.dir);
        }
    }
}

/// Where state is kept is the caller's choice.
fn not_writable(e: Error) -> Error {
    let e = e.at("--root");
    match e.errno() {
        Some(Errno::EACCES | Errno::EROFS) => e.hint("give --root, or set XDG_RUNTIME_DIR, to a directory of yours"),
        _ => e,
    }
}

/// Writes a file of the directory as JSON by way of a temporary one, so that readers see the old file or the new one. A
/// temporary file that an earlier attempt has left behind is no obstacle; whoever calls has the lock.
fn replace(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    write_beside(dir, name, value)?;
    put_in_place(dir, name)
}

fn beside(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.tmp"))
}

fn write_beside(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| invalid(name, e.to_string()))?;
    let path = beside(dir, name);
    let flags = file::O_CREAT | file::O_TRUNC | file::O_NOFOLLOW;
    whole::write(&path, flags, &text).on("write", path.display())
}

fn put_in_place(dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    std::fs::rename(beside(dir, name), &path).on("rename to", path.display())
}

/// Who makes the cgroups of the container in this directory, and whether that is the systemd of its user.
fn manager(dir: &Path) -> Result<(Driver, bool)> {
    let path = dir.join(MANAGER);
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok((Driver::Cgroupfs, false)),
        text => text.on("read", path.display())?,
    };
    let found = MANAGERS.iter().find(|(name, ..)| *name == text);
    let unknown = || invalid(path.display().to_string(), format!("{text:?} is no manager of cgroups"));
    found.map(|(_, driver, user)| (*driver, *user)).ok_or_else(unknown)
}

/// Removes a container's directory: what is known to be in it first, anything else only if that was not all.
pub fn remove_dir(dir: &Path) -> Result<()> {
    // What most have, then what some have.
    for names in [&[STATE, CONFIG][..], &[FIFO, RESOURCES]] {
        for name in names {
            let _ = std::fs::remove_file(dir.join(name));
        }
        match std::fs::remove_dir(dir) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => return other.on("rmdir", dir.display()),
        }
    }
    std::fs::remove_dir_all(dir).on("remove", dir.display())
}

/// The state and the start time of a process (proc(5), /proc/PID/stat).
pub fn stat(pid: i32) -> Option<(char, u64)> {
    read_stat(pid).ok().flatten()
}

/// [`stat`], which tells a process that is gone (`None`) from a file that cannot be read.
fn read_stat(pid: i32) -> std::io::Result<Option<(char, u64)>> {
    let raw = match whole::read_short(Path::new(&format!("/proc/{pid}/stat"))) {
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
        raw => raw?,
    };
    Ok(parse_stat(&raw))
}

/// Fields 3 and 22 of /proc/PID/stat (proc(5)). They are counted from the last parenthesis: the second field is the program's name,
/// in which the container may have anything.
fn parse_stat(raw: &[u8]) -> Option<(char, u64)> {
    let name_ends = raw.iter().rposition(|b| *b == b')')?;
    let mut fields = std::str::from_utf8(raw.get(name_ends + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn is_running(stat: Option<(char, u64)>, start: u64) -> bool {
    stat.is_some_and(|(state, started)| started == start && !matches!(state, 'Z' | 'X' | 'x'))
}

/// Whether the process that started then is still there, and not as a zombie.
pub fn alive(pid: i32, start: u64) -> bool {
    pid > 0 && is_running(stat(pid), start)
}

/// The part of state.json that config.json decides.
pub fn annotations(spec: &Spec) -> BTreeMap<String, String> {
    spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// See `fuzzing`.
#[cfg(fuzzing)]
pub fn fuzz_stat(data: &[u8]) {
    use procfs::FromRead;
    let _ = parse_stat(data);
    let _ = procfs::process::MountInfos::from_read(data);
    let _ = procfs::net::InterfaceDeviceStatus::from_read(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_is_no_field() {
        let behind = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sleep", "a b", ") R 1 (", "\u{fc}"] {
            assert_eq!(parse_stat(format!("12 ({name}) {behind}\n").as_bytes()), Some(('S', 4711)), "{name}");
        }
        // A name may be cut in the middle of a character.
        assert_eq!(parse_stat(&[b"12 (\xc3) ", behind.as_bytes()].concat()), Some(('S', 4711)));
        for bad in ["", "12", "12 (a", "12 (a)", "12 (a)\n", "12 (a) S 1 2"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn ids() {
        for good in ["a", "A_b+c-d.e", "...", "0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dropped_reservation_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let reserved = Reserved::new(root.path(), "a").unwrap();
        let twice = Reserved::new(root.path(), "a").unwrap_err();
        assert_eq!(twice.kind(), Kind::Exists);
        let _gate = reserved.gate().unwrap();
        drop(reserved);
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn we_are_alive_and_a_reused_pid_is_not_us() {
        let pid = std::process::id() as i32;
        let (_, start) = stat(pid).unwrap();
        assert!(alive(pid, start));
        assert!(!alive(pid, start + 1));
        assert!(!alive(0, 0));
    }
}
