//! Drivers for two suites that others wrote, run from a checkout that the caller has built; nothing of them is here.
//! expected-outside.txt lists what orlop cannot pass, and why.

use std::fs;
use std::path::Path;

use crate::check::Failure;
use crate::report::{Row, Verdict};
use crate::runtime::Host;

mod bats;
mod terminal;
mod validation;

const EXPECTED: &str = include_str!("../expected-outside.txt");

/// One suite.
pub struct Suite {
    /// What `--suite` calls it.
    pub name: &'static str,
    /// What `--path` must name.
    pub what: &'static str,
    /// What a checkout still lacks.
    pub missing: fn(&Path) -> Vec<String>,
    /// Its programs or files.
    pub tests: fn(&Path) -> Vec<String>,
    /// Runs one of them; a file has many results.
    pub run: fn(&Path, &str, &Host) -> Result<Vec<Row>, Failure>,
}

/// Both suites. They use fixed names for containers and cgroups, so nothing of them may run at once.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "runtime-tools",
        what: "a checkout of opencontainers/runtime-tools after `make runtimetest validation-executables`",
        missing: validation::missing,
        tests: validation::tests,
        run: validation::run,
    },
    Suite {
        name: "runc",
        what: "a checkout of opencontainers/runc after `make test-binaries`, with its test images in tests/integration/testdata",
        missing: bats::missing,
        tests: bats::tests,
        run: bats::run,
    },
];

/// The names of a directory's entries, in order.
fn entries(directory: &Path) -> Vec<String> {
    let read = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = read.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// A line of expected-outside.txt: suite, name, `bad` or `flaky`, why.
fn expectation(suite: &str, name: &str, host: &Host) -> Option<(&'static str, &'static str)> {
    // The table is orlop's alone.
    if host.expect != "orlop" {
        return None;
    }
    EXPECTED.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = line.splitn(4, '\t');
        let found = fields.next() == Some(suite) && fields.next() == Some(name);
        found.then(|| (fields.next().unwrap_or("bad"), fields.next().unwrap_or_default()))
    })
}

fn judge(suite: &str, name: &str, host: &Host, outcome: Result<(), String>) -> Verdict {
    match (outcome, expectation(suite, name, host)) {
        (Ok(()), None | Some(("flaky", _))) => Verdict::Pass,
        (Ok(()), Some(_)) => Verdict::Fail("passes, but expected-outside.txt lists it".into()),
        (Err(seen), None) => Verdict::Fail(seen),
        (Err(seen), Some((_, why))) => Verdict::Known { why: why.into(), seen },
    }
}
