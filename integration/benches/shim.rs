//! Our shim beside containerd's Go shim (with runc) in one run: memory, time of the whole life of a container, of an exec, of many
//! containers at once; and ten thousand execs in one shim. Prints Markdown.
//!
//! `make bench-shim`. SHIM or ORLOP: as for the tests. RUNC: the runtime under the Go shim. ROUNDS and EXECS make it shorter or longer.
//!
//! The candidates take turns in small blocks, so that what else the machine does meets all of them alike. Ratios of one run are worth
//! more than its times.

use orlop_integration::containerd::Containerd;
use orlop_integration::shim::{Bundle, Host, Shim, Stdio3};
use orlop_integration::{private, programs, runtime, wait};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// One shim with one runtime.
struct Candidate {
    name: &'static str,
    shim: PathBuf,
    /// What it drives, if not its own.
    runtime: Option<PathBuf>,
}

fn main() {
    // Nothing but its name is passed by cargo.
    private::enter();
    let beside = || runtime::path().with_file_name("containerd-shim-orlop-v2");
    let ours = std::env::var_os("SHIM").map_or_else(beside, PathBuf::from);
    let ours = std::path::absolute(&ours).expect("a path");
    assert!(ours.is_file(), "no shim at {}: build it, or set SHIM", ours.display());
    let go = programs::path("containerd-shim-runc-v2");
    let runc = std::env::var_os("RUNC").map_or_else(|| programs::path("runc"), PathBuf::from);
    let candidates = [
        Candidate { name: "orlop", shim: ours.clone(), runtime: None },
        Candidate { name: "Go shim, runc", shim: go, runtime: Some(runc.clone()) },
        Candidate { name: "orlop's shim, runc", shim: ours, runtime: Some(runc) },
    ];
    head(&candidates);
    let mut bars = Bars::default();
    memory(&candidates, &mut bars);
    whole_life(&candidates, &mut bars);
    execs(&candidates, &mut bars);
    at_once(&candidates, &mut bars);
    long_life(&candidates[0], &mut bars);
    bars.show();
}

/// What is good enough, beside what was found.
#[derive(Default)]
struct Bars(Vec<(String, String, bool)>);

impl Bars {
    /// `most`: the greatest value that is good enough.
    fn add(&mut self, what: &str, found: f64, most: f64, unit: &str) {
        let figure = |value: f64| format!("{} {unit}", (value * 100.0).round() / 100.0).trim_end().to_owned();
        self.0.push((format!("{what}: at most {}", figure(most)), figure(found), found <= most));
    }

    fn show(&self) {
        table("Bars (orlop)", &["found", ""]);
        for (what, found, met) in &self.0 {
            row(what, &[found.clone(), String::from(if *met { "met" } else { "**missed**" })]);
        }
    }
}

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

fn say(line: impl AsRef<str>) {
    use std::io::Write;
    // Whoever reads it may have seen enough.
    let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
}

fn head(candidates: &[Candidate]) {
    say(
        "# The shim beside containerd's\n\nMade by `make bench-shim`. Ratios in brackets are to the Go shim with runc.\n",
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    say(format!("Kernel {}, {processors} processors, load average {load} before the run.", kernel.trim()));
    for candidate in &candidates[..2] {
        let bytes = fs::metadata(&candidate.shim).map_or(0, |m| m.len());
        let version = candidate.shim.with_file_name("runc");
        let runtime = candidate.runtime.as_deref().unwrap_or(&version);
        let said = match &candidate.runtime {
            Some(_) => String::from_utf8_lossy(&programs::run(std::process::Command::new(runtime).arg("--version")))
                .lines()
                .next()
                .map(|line| format!(", {line}"))
                .unwrap_or_default(),
            None => String::new(),
        };
        say(format!("{}: {:.1} MB binary{said}.", candidate.name, bytes as f64 / 1e6));
    }
}

fn table(title: &str, columns: &[&str]) {
    say(format!("\n## {title}\n\n| | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len())));
}

fn row(name: &str, cells: &[String]) {
    say(format!("| {name} | {} |", cells.join(" | ")));
}

fn bundle(host: &Host, name: &str) -> Bundle {
    host.bundle(name, &["sleep", "100000"])
}

/// Memory of one process, in KiB, and its threads.
#[derive(Default)]
struct Memory {
    rss: u64,
    pss: u64,
    dirty: u64,
    threads: u64,
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in:\n{text}"));
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

fn memory_of(pid: u32) -> Memory {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the shim");
    let (rollup, status) = (read("smaps_rollup"), read("status"));
    Memory {
        rss: field(&rollup, "Rss:"),
        pss: field(&rollup, "Pss:"),
        // Pages of a file that was written a moment ago count as dirty too: the ones that are the process's own are anonymous.
        dirty: field(&rollup, "Anonymous:"),
        threads: field(&status, "Threads:"),
    }
}

fn memory(candidates: &[Candidate], bars: &mut Bars) {
    table("Memory of a shim", &["RSS", "PSS", "private dirty", "threads"]);
    for (count, pod) in [(1, false), (10, false), (100, false), (10, true)] {
        for candidate in candidates {
            let host = Host::new(&candidate.shim, candidate.runtime.as_deref());
            let mut all: Vec<(String, Shim)> = Vec::new();
            for n in 0..count {
                let mut bundle = bundle(&host, &format!("m{n}"));
                bundle.group = pod.then(|| "pod".to_owned());
                let shim = host.start(&bundle);
                shim.run(&bundle, &Stdio3::default());
                all.push((bundle.id, shim));
            }
            thread::sleep(Duration::from_millis(500));
            let mut pids: Vec<u32> = all.iter().map(|(_, shim)| shim.pid).collect();
            pids.dedup();
            let sum = pids.iter().map(|pid| memory_of(*pid)).fold(Memory::default(), |a, b| Memory {
                rss: a.rss + b.rss,
                pss: a.pss + b.pss,
                dirty: a.dirty + b.dirty,
                threads: a.threads + b.threads,
            });
            let mean = |total: u64| total as f64 / pids.len() as f64;
            let kib = |total: u64| format!("{:.0} KiB", mean(total));
            let what = if pod { format!("one pod of {count}") } else { format!("{count} alone, mean") };
            let cells = [kib(sum.rss), kib(sum.pss), kib(sum.dirty), format!("{:.1}", mean(sum.threads))];
            row(&format!("{what}: {}", candidate.name), &cells);
            if candidate.runtime.is_none() {
                bars.add(&format!("RSS of a shim, {what}"), mean(sum.rss), 3.0 * 1024.0, "KiB");
                bars.add(&format!("private dirty memory, {what}"), mean(sum.dirty), 0.7 * 1024.0, "KiB");
                bars.add(&format!("threads, {what}"), mean(sum.threads), 1.0, "");
            }
            for (id, shim) in &all {
                shim.remove(id);
            }
        }
    }
}

/// Sorted times.
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, part: f64) -> f64 {
        let index = ((self.0.len() - 1) as f64 * part).round() as usize;
        self.0[index].as_secs_f64() * 1e3
    }

    fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// Runs `once` of each candidate in turn, `block` times, until each has had `rounds`; each is warmed up before.
fn in_turns(count: usize, rounds: u32, block: u32, mut once: impl FnMut(usize, u32) -> Duration) -> Vec<Times> {
    let mut times = vec![Vec::new(); count];
    for candidate in 0..count {
        once(candidate, u32::MAX);
    }
    for begin in (0..rounds).step_by(block as usize) {
        for turn in 0..count {
            let candidate = (turn + (begin / block) as usize) % count;
            for n in begin..(begin + block).min(rounds) {
                times[candidate].push(once(candidate, n));
            }
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort();
            Times(times)
        })
        .collect()
}

fn timed(f: impl FnOnce()) -> Duration {
    let began = Instant::now();
    f();
    began.elapsed()
}

fn against(mine: f64, theirs: f64) -> String {
    format!("{mine:.1} ms ({:.2})", mine / theirs)
}

fn whole_life(candidates: &[Candidate], bars: &mut Bars) {
    let rounds = number("ROUNDS", 40);
    table(
        "The whole life of a container with `true`: median and 90th percentile",
        &["`ctr run --rm`", "p90", "by the API, without ctr and containerd", "p90"],
    );
    let containerd = Containerd::with(&[
        ("containerd-shim-orlop-v2", &candidates[0].shim),
        ("containerd-shim-runc-v2", &candidates[1].shim),
        ("containerd-shim-both-v2", &candidates[2].shim),
    ]);
    let runc = candidates[1].runtime.clone().expect("the Go shim's").display().to_string();
    // ctr tells options to a runtime of this name alone; the third candidate has the API only.
    let lines = [
        String::from("--runtime io.containerd.orlop.v2"),
        format!("--runtime io.containerd.runc.v2 --runc-binary {runc}"),
    ];
    let ctr = in_turns(lines.len(), rounds, 4, |candidate, n| {
        let id = format!("c{candidate}-{n}");
        let flags = &lines[candidate];
        timed(|| {
            containerd.ctr(&format!("run {flags} --rm --cgroup /orlop-test-ctrd/{id} ROOTFS {id} /bin/true")).exits(0);
        })
    });
    let hosts: Vec<Host> = candidates.iter().map(|c| Host::new(&c.shim, c.runtime.as_deref())).collect();
    let api = in_turns(hosts.len(), rounds, 4, |candidate, n| {
        let host = &hosts[candidate];
        let bundle = host.bundle(&format!("l{n}"), &["true"]);
        timed(|| {
            let shim = host.start(&bundle);
            shim.run(&bundle, &Stdio3::default());
            assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
            shim.delete(&bundle.id, "").expect("delete");
            shim.shutdown();
        })
    });
    for (n, candidate) in candidates.iter().enumerate() {
        let mut cells = match ctr.get(n) {
            Some(times) => vec![against(times.median(), ctr[1].median()), against(times.at(0.9), ctr[1].at(0.9))],
            None => vec![String::from("-"), String::from("-")],
        };
        cells.extend([against(api[n].median(), api[1].median()), against(api[n].at(0.9), api[1].at(0.9))]);
        row(candidate.name, &cells);
    }
    bars.add("`ctr run --rm` of `true`, to the Go shim", ctr[0].median() / ctr[1].median(), 0.5, "");
    let client: Vec<Duration> = (0..20).map(|_| timed(|| drop(containerd.ctr("version").exits(0)))).collect();
    let mut client = Times(client);
    client.0.sort();
    say(format!(
        "\nOf `ctr run`, a process of ctr that only asks containerd for its version takes {:.1} ms.",
        client.median()
    ));
}

/// CPU time of the process and of the children that it has waited for.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the shim");
    let rest = stat.rsplit_once(") ").expect("stat").1;
    let ticks: u64 = rest.split(' ').skip(11).take(4).map(|n| n.parse::<u64>().expect("ticks")).sum();
    // USER_HZ is 100 wherever Linux runs.
    Duration::from_millis(ticks * 10)
}

fn exec_true(shim: &Shim, id: &str, exec: &str) {
    shim.exec(id, exec, &["true"], &Stdio3::default()).unwrap_or_else(|e| panic!("exec {exec}: {e}"));
    shim.start(id, exec).unwrap_or_else(|e| panic!("start {exec}: {e}"));
    assert_eq!(shim.wait(id, exec).expect("wait"), 0);
    shim.delete(id, exec).unwrap_or_else(|e| panic!("delete {exec}: {e}"));
}

fn execs(candidates: &[Candidate], bars: &mut Bars) {
    let rounds = number("ROUNDS", 40) * 10;
    table(
        "Exec of `true` by the API (exec, start, wait, delete)",
        &["median", "p99", "CPU of the shim and its children"],
    );
    let hosts: Vec<Host> = candidates.iter().map(|c| Host::new(&c.shim, c.runtime.as_deref())).collect();
    let shims: Vec<Shim> = hosts
        .iter()
        .map(|host| {
            let bundle = bundle(host, "x");
            let shim = host.start(&bundle);
            shim.run(&bundle, &Stdio3::default());
            shim
        })
        .collect();
    let before: Vec<Duration> = shims.iter().map(|shim| cpu(shim.pid)).collect();
    let times =
        in_turns(shims.len(), rounds, 20, |candidate, n| timed(|| exec_true(&shims[candidate], "x", &format!("e{n}"))));
    let each = |n: usize| (cpu(shims[n].pid) - before[n]).as_secs_f64() * 1e3 / f64::from(rounds + 1);
    let used: Vec<f64> = (0..shims.len()).map(each).collect();
    for (n, candidate) in candidates.iter().enumerate() {
        let cells = [
            against(times[n].median(), times[1].median()),
            against(times[n].at(0.99), times[1].at(0.99)),
            against(used[n], used[1]),
        ];
        row(candidate.name, &cells);
    }
    bars.add("exec of `true`, to the Go shim", times[0].median() / times[1].median(), 0.4, "");
    for shim in &shims {
        shim.remove("x");
    }
}

fn at_once(candidates: &[Candidate], bars: &mut Bars) {
    const COUNT: usize = 200;
    const LANES: usize = 16;
    table(
        &format!("{COUNT} containers started {LANES} at a time"),
        &["total", "median", "p99", "failures", "removed in"],
    );
    let mut totals = Vec::new();
    for candidate in candidates {
        let host = Host::new(&candidate.shim, candidate.runtime.as_deref());
        let queue: Mutex<VecDeque<Bundle>> = Mutex::new((0..COUNT).map(|n| bundle(&host, &format!("p{n}"))).collect());
        let done = Mutex::new(Vec::new());
        let lanes = |work: &(dyn Fn() -> bool + Sync)| {
            timed(|| thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(|| while work() {})))))
        };
        let total = lanes(&|| {
            let Some(bundle) = queue.lock().expect("not poisoned").pop_front() else { return false };
            let began = Instant::now();
            let started = host.try_start(&bundle).and_then(|shim| {
                shim.create(&bundle, &Stdio3::default()).map_err(|e| e.to_string())?;
                shim.start(&bundle.id, "").map_err(|e| e.to_string())?;
                Ok((bundle.id, shim))
            });
            done.lock().expect("not poisoned").push((began.elapsed(), started));
            true
        });
        let mut done = done.into_inner().expect("not poisoned");
        let mut times = Times(done.iter().map(|(time, _)| *time).collect());
        times.0.sort();
        let failures: Vec<String> = done.iter().filter_map(|(_, started)| started.as_ref().err().cloned()).collect();
        let running = Mutex::new(done.drain(..).filter_map(|(_, started)| started.ok()).collect::<Vec<_>>());
        let removed = lanes(&|| {
            let Some((id, shim)) = running.lock().expect("not poisoned").pop() else { return false };
            shim.remove(&id);
            true
        });
        totals.push(total.as_secs_f64() * 1e3);
        if candidate.runtime.is_none() {
            bars.add(&format!("{COUNT} containers {LANES} at a time: failures"), failures.len() as f64, 0.0, "");
        }
        row(
            candidate.name,
            &[
                format!("{:.2} s", total.as_secs_f64()),
                format!("{:.0} ms", times.median()),
                format!("{:.0} ms", times.at(0.99)),
                failures.len().to_string(),
                format!("{:.2} s", removed.as_secs_f64()),
            ],
        );
        if let Some(first) = failures.first() {
            say(format!("\nfirst failure of {}: {first}\n", candidate.name));
        }
        wait::until("all are gone", wait::SOON, || host.leftovers().is_empty().then_some(()));
    }
    say(format!("\nTotal of orlop to that of the Go shim: {:.2}.", totals[0] / totals[1]));
}

fn long_life(candidate: &Candidate, bars: &mut Bars) {
    let count = number("EXECS", 10_000);
    table(&format!("{count} execs in one shim ({})", candidate.name), &["before (after 100)", "after"]);
    let host = Host::new(&candidate.shim, None);
    let bundle = bundle(&host, "x");
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    let files = |dir: &Path| fs::read_dir(dir).expect("a directory").count();
    let state = || {
        let memory = memory_of(shim.pid);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", shim.pid)).expect("the shim");
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", shim.pid)).expect("the shim");
        let fds = files(Path::new(&format!("/proc/{}/fd", shim.pid)));
        [
            // 200 KB, in KiB.
            ("RSS", memory.rss, " KiB", 195),
            ("private dirty", memory.dirty, " KiB", 195),
            ("fds", fds as u64, "", 0),
            ("children", children.split_whitespace().count() as u64, "", 0),
            ("mounts", mounts.lines().count() as u64, "", 0),
            ("files in the bundle", files(&bundle.dir) as u64, "", 0),
        ]
    };
    (0..100).for_each(|n| exec_true(&shim, "x", &format!("w{n}")));
    let before = state();
    (0..count).for_each(|n| exec_true(&shim, "x", &format!("e{n}")));
    let after = state();
    for ((name, before, unit, most), (_, after, ..)) in before.into_iter().zip(after) {
        row(name, &[format!("{before}{unit}"), format!("{after}{unit}")]);
        let grown = after as f64 - before as f64;
        bars.add(&format!("{name}, grown in {count} execs"), grown, f64::from(most), unit.trim_start());
    }
    shim.remove("x");
}
