//! The command line.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use crate::check::{Check, Failure};
use crate::checks;
use crate::expected::EXPECTED;
use crate::isolate::{is_isolated, isolate};
use crate::judge;
use crate::needs;
use crate::outside;
use crate::report::{Format, Printer, Report, Row, table};
use crate::runtime::Host;
use crate::soak;

const COVERAGE: &str = include_str!("../COVERAGE.md");
const ESCAPES: &str = include_str!("../../integration/ESCAPES.md");

const USAGE: &str = "\
Runs named checks of the OCI runtime specification, and of runc's command line, against a runtime.

usage: conformance --runtime PATH [OPTION...]
       conformance outside --suite runtime-tools|runc --path DIR --runtime PATH [OPTION...]
       conformance soak --runtime PATH [--percent N]    1,000 containers at once, 5,000 cycles, 20,000 execs, 100 raced pairs
       conformance compare FILE...     the JSON results of several runs, side by side in Markdown
       conformance --list              every check with its section

  --runtime PATH    the runtime's binary, or a name in PATH; else the variable RUNTIME
  --filter NAME     only what has NAME in its name; may be given again
  --exact           --filter gives whole names
  --format FORMAT   text (default), tap, json or markdown
  --expect NAME     judge by the known failures of this runtime (src/expected.rs) instead of those that its version tells
  --cgroups v1      show the v1 hierarchies of a hybrid host alone
  --creates N       how many containers each of the races makes (12)
  --threads N       how many checks run at once
  --quiet           print only what fails, and the sum
  --suite, --path   outside: which suite, and its built checkout

The exit status is 0 if nothing failed but what is known, 1 if something did, 2 if the suite could not run.";

#[derive(Default)]
struct Arguments {
    words: Vec<String>,
    runtime: Option<PathBuf>,
    filters: Vec<String>,
    exact: bool,
    format: Option<Format>,
    expect: Option<String>,
    v1: bool,
    threads: Option<usize>,
    creates: Option<usize>,
    percent: Option<usize>,
    quiet: bool,
    list: bool,
    help: bool,
    suite: Option<String>,
    path: Option<PathBuf>,
}

impl Arguments {
    fn parse(given: Vec<OsString>) -> Result<Self, Failure> {
        let mut parsed = Self {
            runtime: env::var_os("RUNTIME").map(PathBuf::from),
            expect: env::var("EXPECT").ok(),
            v1: env::var_os("CGROUPS").is_some_and(|value| value == "v1"),
            ..Self::default()
        };
        let mut given = given.into_iter();
        while let Some(argument) = given.next() {
            let argument = argument.into_string().map_err(|bad| Failure(format!("not UTF-8: {bad:?}")))?;
            let (flag, mut inline) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(OsString::from(value))),
                _ => (argument.as_str(), None),
            };
            let mut value =
                || inline.take().or_else(|| given.next()).ok_or_else(|| Failure(format!("{flag} needs a value")));
            let mut word = || {
                let value = value()?;
                value.into_string().map_err(|bad| Failure(format!("{flag}: not UTF-8: {bad:?}")))
            };
            match flag {
                "--runtime" => parsed.runtime = Some(word()?.into()),
                "--filter" => parsed.filters.push(word()?),
                "--format" => {
                    let name = word()?;
                    let format = Format::named(&name);
                    parsed.format = Some(format.ok_or_else(|| Failure(format!("--format: no such format: {name}")))?);
                }
                "--expect" => parsed.expect = Some(word()?),
                "--cgroups" => match word()?.as_str() {
                    "v1" => parsed.v1 = true,
                    other => return Err(Failure(format!("--cgroups: not v1: {other}"))),
                },
                "--threads" | "--test-threads" => parsed.threads = Some(count(flag, &word()?)?),
                "--percent" => parsed.percent = Some(count(flag, &word()?)?),
                "--creates" => parsed.creates = Some(count(flag, &word()?)?),
                "--suite" => parsed.suite = Some(word()?),
                "--path" => parsed.path = Some(word()?.into()),
                "--exact" => parsed.exact = true,
                "--quiet" | "-q" => parsed.quiet = true,
                "--list" => parsed.list = true,
                "--help" | "-h" => parsed.help = true,
                _ if flag.starts_with('-') => return Err(Failure(format!("no such option: {argument}"))),
                _ => parsed.words.push(argument),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }

    /// The runtime's absolute path. A link is not followed: some runtimes look at the name they are called by.
    fn runtime(&self) -> Result<PathBuf, Failure> {
        let given = self.runtime.as_deref().filter(|path| !path.as_os_str().is_empty());
        let given = given.ok_or_else(|| Failure("no runtime: give --runtime PATH, or set RUNTIME".into()))?;
        let mut places = vec![given.to_owned()];
        if given.components().count() == 1 {
            let path = env::var_os("PATH").unwrap_or_default();
            places.extend(env::split_paths(&path).map(|directory| directory.join(given)));
        }
        let found = places.iter().find(|path| path.is_file());
        let found = found.ok_or_else(|| Failure(format!("no such runtime: {}", given.display())))?;
        Ok(std::path::absolute(found)?)
    }
}

fn count(flag: &str, given: &str) -> Result<usize, Failure> {
    let number = given.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Failure(format!("{flag}: not a number: {given}")))
}

/// The whole program; `fallback` is the runtime where neither `--runtime` nor RUNTIME names one.
pub fn main(arguments: Vec<OsString>, fallback: Option<PathBuf>) -> ExitCode {
    let done = Arguments::parse(arguments).and_then(|mut arguments| {
        arguments.runtime = arguments.runtime.or(fallback);
        dispatch(arguments)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure(why)) => {
            eprintln!("conformance: {why}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(mut arguments: Arguments) -> Result<bool, Failure> {
    if arguments.help {
        println!("{USAGE}");
        return Ok(true);
    }
    match arguments.words.first().map(String::as_str) {
        Some("soak") => soak(&arguments),
        Some("compare") => compare(&arguments.words[1..]),
        Some("outside") => {
            arguments.filters.extend(arguments.words.drain(1..));
            run_outside(&arguments)
        }
        // As cargo's tests take them.
        _ => {
            arguments.filters.append(&mut arguments.words);
            run_checks(&arguments)
        }
    }
}

fn soak(arguments: &Arguments) -> Result<bool, Failure> {
    let host = Arc::new(prepare(arguments)?);
    judge::runs_a_container(&host)?;
    soak::run(&host, arguments.percent.unwrap_or(100), |part| arguments.wants(part))
}

fn compare(files: &[String]) -> Result<bool, Failure> {
    ensure!(!files.is_empty(), "compare: name the files that --format json has written");
    let read = |file: &String| {
        let text = fs::read_to_string(file).map_err(|error| Failure(format!("{file}: {error}")))?;
        Report::from_json(&text).map_err(|Failure(why)| Failure(format!("{file}: {why}")))
    };
    let reports: Vec<Report> = files.iter().map(read).collect::<Result<_, _>>()?;
    print!("{}", table(&reports));
    Ok(true)
}

fn run_checks(arguments: &Arguments) -> Result<bool, Failure> {
    let mut checks = checks::all();
    distinct_and_known(&checks)?;
    checks.retain(|check| arguments.wants(&check.name));
    if arguments.list {
        for check in &checks {
            println!("{}: {}", check.name, check.section);
        }
        return Ok(true);
    }
    ensure!(!checks.is_empty(), "no check has {:?} in its name", arguments.filters);
    let host = Arc::new(prepare(arguments)?);
    judge::runs_a_container(&host)?;
    let format = arguments.format.unwrap_or(Format::Text);
    let order: Vec<String> = checks.iter().map(|check| check.name.clone()).collect();
    let mut printer = Printer::begin(format, arguments.quiet, &host.version, checks.len());
    let mut rows = Vec::new();
    // Most of a check is waiting: for processes to end, and for the kernel.
    let threads = arguments.threads.unwrap_or_else(|| 4 * available_parallelism().map_or(2, usize::from));
    judge::run(checks, &host, threads, |row| {
        printer.row(&row);
        rows.push(row);
    });
    rows.sort_by_key(|row: &Row| order.iter().position(|name| *name == row.name));
    Ok(printer.end(&Report { runtime: host.version.clone(), rows }))
}

/// Two checks of one name would hide one another; a need, a known failure or a row of COVERAGE.md of a check that is no more would be dead.
fn distinct_and_known(checks: &[Check]) -> Result<(), Failure> {
    let mut names = HashSet::new();
    for check in checks {
        ensure!(names.insert(check.name.as_str()), "two checks have the name {}", check.name);
    }
    let unknown = needs::NEEDS.iter().flat_map(|need| need.checks).find(|name| !names.contains(**name));
    ensure!(unknown.is_none(), "needs.rs names no check: {unknown:?}");
    let is_there = |pattern: &str| match pattern.split_once('*') {
        Some((start, _)) => names.iter().any(|name| name.starts_with(start)),
        None => names.contains(pattern),
    };
    let dead = EXPECTED.iter().map(|row| row.check).find(|check| !is_there(check));
    ensure!(dead.is_none(), "expected.rs names no check: {dead:?}");
    // Between backticks, what has a double colon is a check.
    for (file, text) in [("COVERAGE.md", COVERAGE), ("ESCAPES.md", ESCAPES)] {
        let mut named = text.split('`').skip(1).step_by(2).filter(|word| word.contains("::"));
        let dead = named.find(|check| !is_there(check));
        ensure!(dead.is_none(), "{file} names no check: {dead:?}");
    }
    let attacks = checks
        .iter()
        .filter(|check| ["safety::", "escapes::", "races::"].iter().any(|area| check.name.starts_with(area)));
    let unlisted = attacks.map(|check| &check.name).find(|name| !ESCAPES.contains(&format!("`{name}`")));
    ensure!(unlisted.is_none(), "ESCAPES.md does not name {unlisted:?}");
    Ok(())
}

/// The runtime under test, seen from the isolated copy of this program.
fn prepare(arguments: &Arguments) -> Result<Host, Failure> {
    ensure!(rustix::process::geteuid().is_root(), "the checks need root");
    let runtime = arguments.runtime()?;
    if !is_isolated() {
        return Err(isolate(arguments.v1));
    }
    let mut host = Host::open(&runtime)?;
    if let Some(expect) = arguments.expect.as_ref().filter(|name| !name.is_empty()) {
        host.expect.clone_from(expect);
    }
    host.creates = arguments.creates.unwrap_or(host.creates);
    Ok(host)
}

fn run_outside(arguments: &Arguments) -> Result<bool, Failure> {
    let names: Vec<&str> = outside::SUITES.iter().map(|suite| suite.name).collect();
    let Some(given) = &arguments.suite else {
        return Err(Failure(format!("outside: which --suite: {}?", names.join(" or "))));
    };
    let suite = outside::SUITES.iter().find(|suite| suite.name == given);
    let suite = suite.ok_or_else(|| Failure(format!("outside: no suite {given}, only {}", names.join(" and "))))?;
    let path: &Path = arguments
        .path
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
        .ok_or_else(|| Failure(format!("outside: --path must name {}", suite.what)))?;
    let path = fs::canonicalize(path).map_err(|error| {
        Failure(format!("outside: --path {}: {error}; it must name {}", path.display(), suite.what))
    })?;
    let missing = (suite.missing)(&path);
    ensure!(
        missing.is_empty(),
        "outside: {} lacks {}; --path must name {}",
        path.display(),
        missing.join(", "),
        suite.what
    );
    let tests: Vec<String> = (suite.tests)(&path).into_iter().filter(|name| arguments.wants(name)).collect();
    ensure!(!tests.is_empty(), "outside: nothing in {} has {:?} in its name", path.display(), arguments.filters);
    let host = prepare(arguments)?;
    let mut printer =
        Printer::begin(arguments.format.unwrap_or(Format::Text), arguments.quiet, &host.version, tests.len());
    let mut rows = Vec::new();
    for test in &tests {
        for row in (suite.run)(&path, test, &host)? {
            printer.row(&row);
            rows.push(row);
        }
    }
    Ok(printer.end(&Report { runtime: host.version.clone(), rows }))
}
