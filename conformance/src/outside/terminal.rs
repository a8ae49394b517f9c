//! Running a program that wants a controlling terminal, within limits, and cleaning up after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::check::Failure;

/// How often to look at the output, and how long to wait for the end once it is complete.
const LINGER: Duration = Duration::from_secs(10);
/// What drives a suite: killing the rest makes its test fail, and the next one begins.
const DRIVERS: &[&str] = &["unshare", "sh", "bash", "script", "bats", "env"];

/// How long a program may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// From its start to its end.
    pub(super) whole: Duration,
    /// Without any output: then what it has called is killed.
    pub(super) silence: Duration,
}

/// The end of a program.
pub(super) struct Run {
    /// What it wrote to its terminal, without carriage returns.
    pub(super) output: String,
    /// The exit status; none if it ran out of time.
    pub(super) code: Option<i32>,
}

/// A path as a word of a shell command inside of single quotes: neither suite can take one with a quote.
pub(super) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Runs a shell command on a terminal of its own, until it ends or its output has been complete for a while. The mount
/// and pid namespaces that it gets take its leftovers with them; what it froze is thawed first, since frozen processes
/// do not die.
pub(super) fn perform(
    directory: &Path,
    command: &str,
    limits: Limits,
    complete: fn(&str) -> bool,
) -> Result<Run, Failure> {
    let log = tempfile::NamedTempFile::new()?;
    let before = cgroups();
    let isolated = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"];
    // The shell stays: it is process 1, and reaps what the suites leave to it.
    let shared = format!("mount --make-rshared / || exit 1; script -qefc '{command}' /dev/null; exit $?");
    let mut child = Command::new("unshare")
        .args(isolated)
        .args(["sh", "-c", &shared])
        .current_dir(directory)
        // It stays open: at its end script(1) would type an end of file into the terminal, for a foreground container to read.
        .stdin(Stdio::piped())
        .stdout(File::create(log.path())?)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let mut end = Instant::now() + limits.whole;
    let (mut code, mut look, mut heard, mut length) = (None, Instant::now(), Instant::now(), 0);
    while code.is_none() && Instant::now() < end {
        code = child.try_wait()?.map(|status| status.code().unwrap_or(-1));
        if look.elapsed() > LINGER {
            look = Instant::now();
            let output = fs::read(log.path())?;
            if output.len() != length {
                (heard, length) = (look, output.len());
            }
            if complete(&String::from_utf8_lossy(&output)) {
                end = end.min(look + LINGER);
            }
            if heard.elapsed() > limits.silence {
                heard = look;
                kill_called(child.id());
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let made: Vec<PathBuf> = cgroups().difference(&before).cloned().collect();
    for cgroup in &made {
        // A cgroup has one of the two at most.
        let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        let _ = fs::write(cgroup.join("cgroup.freeze"), "0");
    }
    if code.is_none() {
        child.kill()?;
        child.wait()?;
    }
    for cgroup in made.iter().rev() {
        // One that another program made in the meantime, and uses, cannot be removed.
        let _ = fs::remove_dir(cgroup);
    }
    let output = String::from_utf8_lossy(&fs::read(log.path())?).replace('\r', "");
    Ok(Run { output, code })
}

/// Kills everything below a process but the drivers of the suites.
fn kill_called(root: u32) {
    let mut children: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // PID (NAME) STATE PARENT ...; the name may hold anything.
        let parts = stat.rsplit_once(") ").zip(stat.split_once('('));
        let Some(((before, after), _)) = parts else { continue };
        let name = before.split_once('(').map_or("", |(_, name)| name).to_owned();
        let Some(parent) = after.split(' ').nth(1).and_then(|parent| parent.parse().ok()) else { continue };
        children.entry(parent).or_default().push((pid, name));
    }
    let mut below = vec![root];
    while let Some(parent) = below.pop() {
        for (pid, name) in children.get(&parent).into_iter().flatten() {
            below.push(*pid);
            if !DRIVERS.contains(&name.as_str())
                && let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw)
            {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn cgroups() -> BTreeSet<PathBuf> {
    fn walk(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth > 0 {
                    found.insert(entry.path());
                }
                if depth < 5 {
                    walk(&entry.path(), depth + 1, found);
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), 0, &mut found);
    found
}
