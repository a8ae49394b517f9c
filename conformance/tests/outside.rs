//! Drivers for two suites that others wrote, run from a checkout that the caller has built; nothing of them is here.
//!
//! RUNTIME_TOOLS: opencontainers/runtime-tools after `make runtimetest validation-executables`.
//! RUNC_TESTS: opencontainers/runc after `make test-binaries`, with its test images in place.
//! RUNTIME: the runtime, as for the checks. expected-outside.txt lists what cannot pass, and why.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

const EXPECTED: &str = include_str!("../expected-outside.txt");
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);
const BATS_LIMIT: Duration = Duration::from_secs(900);
/// How often to look whether all results are there, and how long to wait for the end after that.
const LINGER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Both suites use fixed names for containers and cgroups.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (variable, list) in [("RUNTIME_TOOLS", validation as fn(&Path) -> Vec<Trial>), ("RUNC_TESTS", bats)] {
        match env::var_os(variable) {
            Some(directory) => trials.extend(list(Path::new(&directory))),
            None => {
                if !arguments.list {
                    println!("skipped: {variable} is unset");
                }
                trials.push(
                    Trial::test(format!("outside::{}", variable.to_lowercase()), || Ok(())).with_ignored_flag(true),
                );
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The second column names a program, or a bats file and test; the first says whether it always fails or sometimes.
fn expectation(suite: &str, name: &str) -> Option<(&'static str, &'static str)> {
    EXPECTED.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = line.splitn(4, '\t');
        let found = fields.next() == Some(suite) && fields.next() == Some(name);
        found.then(|| (fields.next().unwrap_or("bad"), fields.next().unwrap_or_default()))
    })
}

/// One trial per program `validation/NAME/NAME.t`.
fn validation(directory: &Path) -> Vec<Trial> {
    let mut names: Vec<String> = entries(&directory.join("validation"));
    names.retain(|name| directory.join(format!("validation/{name}/{name}.t")).exists());
    let trial = |name: String| {
        let directory = directory.to_owned();
        Trial::test(format!("outside::validation::{name}"), move || {
            let runtime = runtime()?;
            let command = format!("RUNTIME={} ./validation/{name}/{name}.t", runtime.display());
            let run = perform(&directory, &command, PROGRAM_LIMIT, |_| false)?;
            judge(&name, verdict(&run))
        })
        .with_kind("runtime-tools")
    };
    let trials: Vec<Trial> = names.into_iter().map(trial).collect();
    or_failure(trials, directory, "validation programs")
}

/// A setting that names an empty place is a mistake, not a skip.
fn or_failure(trials: Vec<Trial>, directory: &Path, what: &str) -> Vec<Trial> {
    if !trials.is_empty() {
        return trials;
    }
    let why = format!("{} has no {what}", directory.display());
    vec![Trial::test(format!("outside::{what}"), move || Err(why.into()))]
}

fn judge(name: &str, verdict: Result<(), String>) -> Result<(), Failed> {
    match (verdict, expectation("validation", name)) {
        (Ok(()), None | Some(("flaky", _))) => Ok(()),
        (Ok(()), Some(_)) => Err("passes, but expected-outside.txt lists it".into()),
        (Err(seen), None) => Err(seen.into()),
        (Err(_), Some((_, why))) => {
            eprintln!("expected failure: {name}: {why}");
            Ok(())
        }
    }
}

/// Good means exit 0, no failed point, no time-out; a program without points must not report an error either.
fn verdict(run: &Run) -> Result<(), String> {
    let points = run.output.lines().filter(|line| line.starts_with("ok ")).count();
    let failed: Vec<&str> = run.output.lines().filter(|line| line.starts_with("not ok ")).collect();
    let silent_error = points == 0 && run.output.contains("\"error\":");
    if run.code == Some(0) && failed.is_empty() && !silent_error {
        return Ok(());
    }
    let end: String =
        run.output.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(format!("exit {:?}, {points} points ok, not ok: {failed:#?}\n{end}", run.code))
}

/// One trial per bats file; each failed test of it must be expected.
fn bats(directory: &Path) -> Vec<Trial> {
    let integration = directory.join("tests/integration");
    let mut names = entries(&integration);
    names.retain(|name| name.ends_with(".bats"));
    let trial = |file: String| {
        let integration = integration.clone();
        Trial::test(format!("outside::bats::{}", file.trim_end_matches(".bats")), move || {
            // create.bats looks for this name among the open files.
            let folder = tempfile::tempdir()?;
            let runc = folder.path().join("runc");
            fs::copy(runtime()?, &runc)?;
            let command = format!("env -u BATS_TEST_TIMEOUT RUNC={} bats --tap {file}", runc.display());
            judge_bats(&file, &perform(&integration, &command, BATS_LIMIT, complete)?)
        })
        .with_kind("runc")
    };
    let trials: Vec<Trial> = names.into_iter().map(trial).collect();
    or_failure(trials, directory, "bats files")
}

/// How many results TAP promises; 0 before it does.
fn planned(output: &str) -> usize {
    output.lines().find_map(|line| line.strip_prefix("1..")?.trim_end().parse().ok()).unwrap_or(0)
}

/// Whether bats has printed every result. It then still waits for programs that a failed test has left.
fn complete(output: &str) -> bool {
    let results = output.lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).count();
    results > 0 && results == planned(output)
}

fn judge_bats(file: &str, run: &Run) -> Result<(), Failed> {
    let planned = planned(&run.output);
    let (mut results, mut bad) = (0, Vec::new());
    for line in run.output.lines() {
        let (failed, rest) = match (line.strip_prefix("not ok "), line.strip_prefix("ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => continue,
        };
        results += 1;
        let name = rest.split_once(' ').map_or("", |(_, name)| name);
        let name =
            format!("{}: {}", file.trim_end_matches(".bats"), name.split(" # ").next().unwrap_or(name).trim_end());
        let skipped = rest.contains(" # skip");
        match expectation("bats", &name) {
            Some((_, why)) if failed => eprintln!("expected failure: {name}: {why}"),
            None if failed => bad.push(name),
            Some(("bad", _)) if !skipped => bad.push(format!("{name} (passes, but expected-outside.txt lists it)")),
            _ => {}
        }
    }
    if planned == 0 || results < planned {
        bad.push(format!("{results} results of {planned} planned, exit {:?}", run.code));
    }
    if bad.is_empty() { Ok(()) } else { Err(format!("{bad:#?}").into()) }
}

fn entries(directory: &Path) -> Vec<String> {
    let read = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = read.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

fn runtime() -> Result<PathBuf, Failed> {
    let runtime = env::var_os("RUNTIME").ok_or("RUNTIME is unset: name the runtime's binary")?;
    Ok(fs::canonicalize(runtime)?)
}

struct Run {
    output: String,
    code: Option<i32>,
}

/// Runs a shell command on a terminal of its own, until it ends or its output has been complete for a while. The mount and pid namespaces that it gets take its leftovers with them;
/// after the limit, what it froze is thawed first, since frozen processes do not die.
fn perform(directory: &Path, command: &str, limit: Duration, complete: fn(&str) -> bool) -> Result<Run, Failed> {
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
    let mut end = Instant::now() + limit;
    let (mut code, mut look) = (None, Instant::now());
    while code.is_none() && Instant::now() < end {
        code = child.try_wait()?.map(|status| status.code().unwrap_or(-1));
        if look.elapsed() > LINGER {
            look = Instant::now();
            if complete(&String::from_utf8_lossy(&fs::read(log.path())?)) {
                end = end.min(look + LINGER);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let made: Vec<PathBuf> = cgroups().difference(&before).cloned().collect();
    if code.is_none() {
        child.kill()?;
        for cgroup in &made {
            // Most are not of the freezer hierarchy.
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        }
        child.wait()?;
    }
    for cgroup in made.iter().rev() {
        // One that another program made in the meantime, and uses, cannot be removed.
        let _ = fs::remove_dir(cgroup);
    }
    let output = String::from_utf8_lossy(&fs::read(log.path())?).replace('\r', "");
    Ok(Run { output, code })
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
