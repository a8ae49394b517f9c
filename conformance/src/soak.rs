//! Load: many containers alive at once, many made and deleted at a time, many execs, and commands that race on one id. Nothing may be
//! lost or left, and the last ones must come as fast as the first.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::bundle::set;
use crate::check::{Failure, Outcome};
use crate::runtime::{Host, Lab, wait_until};
use crate::witness;

/// How many containers are alive at once, where there is memory for them.
const ALIVE: usize = 1000;
/// What one takes, with its init, cgroups and namespaces: kB.
const MEMORY_EACH: usize = 8 * 1024;
const CYCLES: usize = 5000;
const EXECS: usize = 20_000;
const PAIRS: usize = 100;
/// How many commands run at once.
const AT_ONCE: usize = 16;
/// The last tenth of the commands may take this many times as long as the first: other work goes on beside them.
const SLOWER: u32 = 3;

/// Below this number of commands their times are not judged.
const FEW: usize = 500;

/// A part of the load.
type Part = fn(&Load, usize) -> Outcome;

const PARTS: &[(&str, usize, Part)] =
    &[("alive", ALIVE, alive), ("cycles", CYCLES, cycles), ("execs", EXECS, execs), ("pairs", PAIRS, pairs)];

/// Runs the parts that are wanted, each at `percent` of its size; true if nothing failed.
///
/// # Errors
/// The laboratory cannot be made.
pub fn run(host: &Arc<Host>, percent: usize, wanted: impl Fn(&str) -> bool) -> Result<bool, Failure> {
    let mut held = true;
    for (name, size, part) in PARTS.iter().filter(|part| wanted(part.0)) {
        let load = Load::new(host)?;
        let before = Left::now()?;
        let begin = Instant::now();
        let done = part(&load, (size * percent / 100).max(1)).and_then(|()| before.nothing_more(&load));
        let done = load.lab.close().and(done);
        match done {
            Ok(()) => println!("ok       soak::{name} in {:.1?}", begin.elapsed()),
            Err(Failure(why)) => {
                held = false;
                println!("FAILED   soak::{name}: {why}");
            }
        }
    }
    Ok(held)
}

/// A laboratory for commands without number: unlike its own calls they leave no files.
struct Load {
    lab: Lab,
    number: AtomicUsize,
}

impl Load {
    fn new(host: &Arc<Host>) -> Result<Self, Failure> {
        let mut lab = host.lab()?;
        lab.args(&["sleep", "100000"]);
        set(&mut lab.config, "/root/readonly", true.into());
        lab.write()?;
        Ok(Self { lab, number: AtomicUsize::new(0) })
    }

    /// The exit status, what it said, and how long it took.
    fn call(&self, args: &[&str]) -> Result<(i32, String, Duration), Failure> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let said = self.lab.dir.join(format!("io/said{number}"));
        let mut command = Command::new(&self.lab.runtime);
        command.arg("--root").arg(self.lab.dir.join("root")).args(args).current_dir(self.lab.bundle());
        let begin = Instant::now();
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?).status()?;
        let took = begin.elapsed();
        let text = fs::read_to_string(&said)?;
        fs::remove_file(&said)?;
        Ok((status.code().unwrap_or(-1), text, took))
    }

    fn ok(&self, args: &[&str]) -> Result<Duration, Failure> {
        let (code, said, took) = self.call(args)?;
        ensure!(code == 0, "{args:?}: exit status {code}: {}", said.trim_end());
        Ok(took)
    }

    fn id(&self, number: usize) -> String {
        format!("{}-{number}", self.lab.id)
    }
}

/// Does `one` for every number below `count`, several at a time, and tells how far it is; the first failure ends it. Returns how long
/// each took, in the order in which they ended.
fn at_once(
    what: &str,
    count: usize,
    threads: usize,
    one: impl Fn(usize) -> Result<Duration, Failure> + Sync,
) -> Result<Vec<Duration>, Failure> {
    let next = AtomicUsize::new(0);
    let took = Mutex::new(Ok(Vec::with_capacity(count)));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let done = one(number);
                    let mut took = took.lock().unwrap_or_else(PoisonError::into_inner);
                    match (done, &mut *took) {
                        (Ok(time), Ok(all)) => {
                            all.push(time);
                            if all.len() % (count / 10).max(1) == 0 {
                                eprintln!("{what}: {} of {count}", all.len());
                            }
                        }
                        (Err(why), Ok(_)) => {
                            *took = Err(why);
                            next.store(count, Ordering::Relaxed);
                        }
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    took.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Compares the first tenth with the last.
fn flat(what: &str, took: &[Duration]) -> Outcome {
    let median = |some: &[Duration]| {
        let mut sorted = some.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    let tenth = (took.len() / 10).max(1);
    let (first, last) = (median(&took[..tenth]), median(&took[took.len() - tenth..]));
    eprintln!(
        "{what}: median of the first tenth {first:.1?}, of the last {last:.1?}, longest {:.1?}",
        took.iter().max().unwrap_or(&last)
    );
    // The first ones of a few start together, and mean nothing.
    ensure!(
        took.len() < FEW || last <= first * SLOWER + Duration::from_millis(50),
        "{what} becomes slower: from {first:?} to {last:?}"
    );
    Ok(())
}

fn alive(load: &Load, count: usize) -> Outcome {
    let count = count.min(available_memory()? / MEMORY_EACH).max(1);
    let made = at_once("create and start", count, AT_ONCE, |number| {
        let id = load.id(number);
        Ok(load.ok(&["create", &id])? + load.ok(&["start", &id])?)
    })?;
    let list = Command::new(&load.lab.runtime).arg("--root").arg(load.lab.dir.join("root")).arg("list").output()?;
    let running = String::from_utf8_lossy(&list.stdout).lines().filter(|line| line.contains("running")).count();
    same!(running, count, "containers that list shows running");
    flat("create and start", &made)?;
    let deleted = at_once("delete", count, AT_ONCE, |number| load.ok(&["delete", "--force", &load.id(number)]))?;
    flat("delete", &deleted)
}

fn cycles(load: &Load, count: usize) -> Outcome {
    let took = at_once("cycles", count, AT_ONCE, |number| {
        let id = load.id(number);
        Ok(load.ok(&["create", &id])? + load.ok(&["start", &id])? + load.ok(&["delete", "--force", &id])?)
    })?;
    flat("cycles", &took)
}

fn execs(load: &Load, count: usize) -> Outcome {
    const CONTAINERS: usize = 4;
    for number in 0..CONTAINERS {
        load.ok(&["create", &load.id(number)])?;
        load.ok(&["start", &load.id(number)])?;
    }
    let took = at_once("execs", count, AT_ONCE, |number| {
        let id = load.id(number % CONTAINERS);
        let status = number % 2;
        let (code, said, took) = load.call(&["exec", &id, if status == 0 { "true" } else { "false" }])?;
        ensure!(usize::try_from(code) == Ok(status), "exec {number}: exit status {code} instead of {status}: {said}");
        Ok(took)
    })?;
    flat("execs", &took)?;
    for number in 0..CONTAINERS {
        // What an exec has left in a container is seen in its cgroup.
        let id = load.id(number);
        let (code, said, _) = load.call(&["exec", &id, "sh", "-c", "[ $(ls -d /proc/[0-9]* | wc -l) -le 6 ]"])?;
        ensure!(code == 0, "processes are left in {id}: {said}");
        load.ok(&["delete", "--force", &id])?;
    }
    Ok(())
}

/// Two commands on one id at the same time: each succeeds or says why not, the container can be deleted, and nothing is left.
fn pairs(load: &Load, count: usize) -> Outcome {
    const VERBS: &[&[&str]] = &[
        &["create", "ID"],
        &["delete", "ID"],
        &["delete", "--force", "ID"],
        &["kill", "ID", "KILL"],
        &["exec", "ID", "true"],
        &["start", "ID"],
        &["state", "ID"],
        &["run", "--detach", "ID"],
    ];
    let took = at_once("pairs", count, 4, |number| {
        let id = load.id(number);
        let words = |verb: &[&str]| verb.iter().map(|word| word.replace("ID", &id)).collect::<Vec<_>>();
        let begin = Instant::now();
        // On a container that is not there, one that is created, and one that runs.
        for prepare in 0..3 {
            if prepare > 0 {
                load.ok(&["create", &id])?;
            }
            if prepare > 1 {
                load.ok(&["start", &id])?;
            }
            let (one, other) = (number % VERBS.len(), number / VERBS.len() % VERBS.len());
            let both = [words(VERBS[one]), words(VERBS[other])];
            let done = thread::scope(|scope| {
                let run = |words: &Vec<String>| load.call(&words.iter().map(String::as_str).collect::<Vec<_>>());
                let running: Vec<_> = both.iter().map(|words| scope.spawn(move || run(words))).collect();
                running
                    .into_iter()
                    .map(|one| one.join().unwrap_or_else(|_| Err(Failure("panicked".into()))))
                    .collect::<Vec<_>>()
            });
            for (words, done) in both.iter().zip(done) {
                let (code, said, took) = done?;
                ensure!(
                    code >= 0 && took < Duration::from_secs(30),
                    "{both:?}: {words:?}: status {code} after {took:?}: {said}"
                );
                // The status of a process that was killed is no failure of exec's.
                let told = code == 0 || !said.trim().is_empty() || (words[0] == "exec" && code > 128);
                ensure!(told, "{both:?}: {words:?}: exit status {code} without a word");
            }
            load.ok(&["delete", "--force", &id])?;
        }
        Ok(begin.elapsed())
    })?;
    ensure!(took.len() == count, "{} of {count} pairs were run", took.len());
    Ok(())
}

/// What may be left: cgroups, mounts and processes are the laboratory's to find; these are the kernel's counts.
struct Left {
    mounts: BTreeSet<String>,
    dying: u64,
    files: u64,
}

impl Left {
    fn now() -> Result<Self, Failure> {
        Ok(Self { mounts: witness::mounts(Path::new("/nowhere"))?, dying: dying()?, files: open_files()? })
    }

    fn nothing_more(&self, load: &Load) -> Outcome {
        let cgroups = load.lab.cgroups();
        ensure!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
        let states: Vec<PathBuf> =
            fs::read_dir(load.lab.dir.join("root"))?.flatten().map(|entry| entry.path()).collect();
        ensure!(states.is_empty(), "states are left: {states:?}");
        // Cgroups die when the last page that was charged to them goes: that takes its time, and some are always there.
        let settled = wait_until("not settled", || {
            let now = Left::now()?;
            Ok(now.mounts == self.mounts
                && now.dying <= self.dying + MOST_DYING
                && now.files <= self.files + MOST_FILES)
        });
        let now = Left::now()?;
        eprintln!(
            "dying cgroups: {} before, {} after; open files: {} before, {} after",
            self.dying, now.dying, self.files, now.files
        );
        ensure!(
            settled.is_ok(),
            "left: mounts {:?}, dying cgroups {} after {}, open files {} after {}",
            now.mounts.difference(&self.mounts).collect::<Vec<_>>(),
            now.dying,
            self.dying,
            now.files,
            self.files
        );
        Ok(())
    }
}

/// How many more dying cgroups and open files there may be than before: others are at work on the host too.
const MOST_DYING: u64 = 300;
const MOST_FILES: u64 = 2000;

/// Cgroups of the v2 tree that are removed, and still held (kernel documentation, admin-guide/cgroup-v2, "cgroup.stat").
fn dying() -> Result<u64, Failure> {
    let trees = ["/sys/fs/cgroup/cgroup.stat", "/sys/fs/cgroup/unified/cgroup.stat"];
    let text = trees.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
    Ok(line.and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// Files that the whole machine has open (proc(5), /proc/sys/fs/file-nr).
fn open_files() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr")?;
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Failure(format!("file-nr: {text}")))
}

/// Memory that is free without swapping: kB.
fn available_memory() -> Result<usize, Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Failure("/proc/meminfo has no MemAvailable".into()))
}
