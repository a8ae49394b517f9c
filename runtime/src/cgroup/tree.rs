//! Directories and files of a cgroup tree, in the few system calls that they need.

use super::write::Write;
use crate::error::{Error, On, Result};
use orlop_sys::{Errno, fds, file, process, signal};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long [`remove`] waits for the last processes of a cgroup to be gone.
const REMOVE: Duration = Duration::from_secs(2);

/// Opens a file or directory. (Not by std, whose open(2) has musl add an fcntl(2) for each.)
fn open(path: &Path, flags: i32) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    Ok(file::open(&path, flags, 0).map_err(errno)?.into())
}

fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

/// One that need not be closed by itself.
fn left(file: File) -> fds::Left {
    OwnedFd::from(file).into()
}

/// One write(2) of a value.
fn put(file: BorrowedFd, value: &str) -> io::Result<()> {
    loop {
        match file::write(file, value.as_bytes()) {
            Err(Errno::EINTR) => {}
            Ok(written) if written < value.len() => return Err(ErrorKind::WriteZero.into()),
            other => return other.map(drop).map_err(errno),
        }
    }
}

/// Opens a file to write to; never makes it.
pub(super) fn writable(path: &Path) -> io::Result<File> {
    open(path, file::O_WRONLY)
}

/// Opens a file to read.
pub(super) fn readable(path: &Path) -> io::Result<File> {
    open(path, file::O_RDONLY)
}

/// Opens a cgroup's directory.
pub(super) fn directory(path: &Path) -> io::Result<File> {
    open(path, file::O_RDONLY | file::O_DIRECTORY)
}

/// Reads a file of one short value with a single read(2), which cgroupfs answers in full; the value is trimmed.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let (file, mut buffer) = (left(readable(path)?), [0; 4096]);
    let n = file::read(file.as_fd(), &mut buffer).map_err(errno)?;
    Ok(String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).trim().to_string())
}

/// Reads a file of any length: lists come in pages.
pub(super) fn read_all(path: &Path) -> io::Result<String> {
    text(path, false)
}

/// Reads a file of any length that the kernel makes as a whole (proc(5), /proc/PID/cgroup).
pub(super) fn read_at_once(path: &Path) -> io::Result<String> {
    text(path, true)
}

fn text(path: &Path, at_once: bool) -> io::Result<String> {
    let text = file::read_all(left(readable(path)?).as_fd(), at_once).map_err(errno)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The names of the directories in a directory; symbolic links are none.
pub(super) fn directories(dir: &Path) -> io::Result<Vec<String>> {
    let (fd, mut page, mut names) = (left(directory(dir)?), [0; 4096], Vec::new());
    loop {
        let n = file::read_dir(fd.as_fd(), &mut page).map_err(errno)?;
        if n == 0 {
            return Ok(names);
        }
        for (name, kind) in file::typed_entries(page.get(..n).unwrap_or_default()) {
            let is_dir = || file::lstatat(fd.as_fd(), name).is_ok_and(|stat| stat.is_dir());
            if kind.map_or_else(is_dir, |kind| kind == file::S_IFDIR) {
                names.extend(name.to_str().map(str::to_string));
            }
        }
    }
}

/// Writes a value with a single write(2).
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    put(left(writable(path)?).as_fd(), value)
}

/// Writes lines to files of `dir`, opening each file once for the lines that follow one another.
pub(super) fn write_lines(dir: &Path, lines: &[(&'static str, String)]) -> Result<()> {
    for same in lines.chunk_by(|a, b| a.0 == b.0) {
        let Some((name, _)) = same.first() else { continue };
        let path = dir.join(name);
        let file = left(writable(&path).on("open", format!("{path:?}"))?);
        for (_, line) in same {
            put(file.as_fd(), line).on(format!("write {line:?} to"), format!("{path:?}"))?;
        }
    }
    Ok(())
}

/// Applies the writes to the files of `dir`. One that is refused with EINVAL is tried once more after the others: the
/// kernel checks some values against each other (limit and memsw, period, quota and burst, runtime and period), and
/// which order it takes depends on what was there before.
pub(super) fn apply(dir: &Path, writes: &[&Write]) -> Result<()> {
    let mut again = Vec::new();
    for write in writes {
        match write.apply(dir) {
            Err(e) if e.errno() == Some(Errno::EINVAL) && writes.len() > 1 => again.push(write),
            result => result?,
        }
    }
    again.into_iter().try_for_each(|write| write.apply(dir))
}

/// The directories that were made; they are removed again on drop, unless [`Made::keep`] is called.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// Makes the directory, and its parents only if that fails for the lack of them. True: it was not there before.
    pub(super) fn make(&mut self, dir: &Path) -> io::Result<bool> {
        match (DirBuilder::new().mode(0o755).create(dir), dir.parent()) {
            (Ok(()), _) => {
                self.0.push(dir.to_path_buf());
                Ok(true)
            }
            (Err(e), _) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            (Err(e), Some(parent)) if e.kind() == ErrorKind::NotFound => {
                self.make(parent)?;
                self.make(dir)
            }
            (Err(e), _) => Err(e),
        }
    }

    /// Whether [`Made::make`] made this directory.
    pub(super) fn has(&self, dir: &Path) -> bool {
        self.0.iter().any(|made| made == dir)
    }

    /// Removes these again at once, if they were made.
    pub(super) fn unmake(&mut self, dirs: &[PathBuf]) {
        for dir in dirs.iter().filter(|dir| self.has(dir)) {
            let _ = fs::remove_dir(dir);
        }
        self.0.retain(|made| !dirs.contains(made));
    }

    /// Lets the directories stay.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Removes cgroups with everything below them. Each is tried; the first failure is returned with the others beside it.
pub(super) fn remove<'a>(dirs: impl Iterator<Item = &'a Path>) -> Result<()> {
    let deadline = Instant::now() + REMOVE;
    let mut failed: Option<Error> = None;
    for dir in dirs {
        if let Err(e) = remove_one(dir, deadline).on("rmdir", format!("{dir:?}")) {
            let e = if e.errno() == Some(Errno::EBUSY) { e.hint("processes are still inside") } else { e };
            failed = Some(match failed {
                Some(first) => first.also(e),
                None => e,
            });
        }
    }
    failed.map_or(Ok(()), Err)
}

fn remove_one(dir: &Path, deadline: Instant) -> io::Result<()> {
    // The usual case is one call: empty and without children.
    let mut wait = Duration::from_micros(50);
    let mut result = fs::remove_dir(dir);
    while let Err(e) = &result {
        match e.kind() {
            ErrorKind::NotFound => return Ok(()),
            ErrorKind::Interrupted => {}
            // EBUSY is for children (which rmdir(2) of cgroupfs does not tell apart) and for processes that are on
            // their way out: an exited one leaves its cgroup a moment after its parent is told.
            ErrorKind::ResourceBusy if Instant::now() < deadline => {
                for child in children(dir)? {
                    remove_one(&child, deadline)?;
                }
            }
            // A read-only mount says EROFS even for a cgroup that is not there.
            ErrorKind::ReadOnlyFilesystem if !dir.exists() => return Ok(()),
            _ => break,
        }
        result = fs::remove_dir(dir);
        if result.is_err() {
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(100));
        }
    }
    result
}

/// The sub-cgroups: directories only, and never through a symbolic link (a bind mount may hold one).
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if gone(&e) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// The pids in a cgroup and below it, as our pid namespace sees them; those outside of it are left out. A cgroup that
/// is not there has none.
pub(super) fn procs(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        let text = match read_all(&dir.join("cgroup.procs")) {
            // A threaded cgroup has no processes, only threads.
            Err(e) if e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => read_all(&dir.join("cgroup.threads")),
            text => text,
        };
        match text {
            Err(e) if gone(&e) => {}
            text => {
                let text = text.on("read cgroup.procs of", format!("{dir:?}"))?;
                pids.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()).filter(|pid| *pid > 0));
            }
        }
        left.extend(children(&dir).on("list", format!("{dir:?}"))?);
    }
    Ok(pids)
}

/// Sends a signal to every process of a cgroup. For SIGKILL until a look at the list shows nobody new: a process with
/// a SIGKILL pending cannot fork, so that the rounds end.
pub(super) fn kill(dir: &Path, number: i32) -> Result<()> {
    let mut seen = HashSet::new();
    loop {
        let new: Vec<i32> = procs(dir)?.into_iter().filter(|pid| seen.insert(*pid)).collect();
        for pid in &new {
            match signal::kill(*pid, number) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.on(format!("kill with signal {number}"), pid)),
            }
        }
        if new.is_empty() || number != signal::SIGKILL {
            return Ok(());
        }
    }
}

/// Moves a process into a cgroup. EINVAL may mean that its clone(2) has not ended yet: that passes.
pub(super) fn attach(dir: &Path, pid: i32) -> Result<()> {
    let path = dir.join("cgroup.procs");
    let mut tries = 0;
    loop {
        match write(&path, &pid.to_string()) {
            Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) && tries < 5 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(30));
            }
            result => return result.on(format!("write {pid} to"), format!("{path:?}")),
        }
    }
}

/// The value of a `key value` line.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Whether the error says that the cgroup was removed: ENODEV comes from a file that was open at that time.
pub(super) fn gone(e: &io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ENODEV as i32)
}

/// Whether we are in a user namespace other than the first, where root is not the host's.
pub(super) fn in_user_namespace() -> bool {
    read(Path::new("/proc/self/uid_map")).is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Whether permissions may rightly be missing: not root, or root of a user namespace only.
pub fn unprivileged() -> bool {
    process::euid() != 0 || in_user_namespace()
}

/// Whether the error is one of the three that a missing permission gives.
pub(super) fn forbidden(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Only root of the host may change device rules, and nobody else can make a device: without that right there is nothing to keep away.
pub(super) fn devices_of_a_user(set: Result<()>) -> Result<()> {
    match set {
        Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::EACCES)) && unprivileged() => {
            log::debug!("device rules are left to those of the host: {e}");
            Ok(())
        }
        other => other,
    }
}
