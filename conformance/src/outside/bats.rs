//! opencontainers/runc: its integration tests, written for bats.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::terminal::{Limits, Run, perform, quoted};
use super::{entries, judge};
use crate::check::Failure;
use crate::report::{Row, Verdict};
use crate::runtime::Host;

const LIMITS: Limits = Limits { whole: Duration::from_secs(900), silence: Duration::from_secs(90) };

pub(super) fn missing(directory: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    let integration = directory.join("tests/integration");
    if tests(directory).is_empty() {
        missing.push("tests/integration/*.bats".to_owned());
    }
    if entries(&integration.join("testdata")).iter().all(|name| !name.contains(".tar")) {
        missing.push("images in tests/integration/testdata".to_owned());
    }
    if !directory.join("tests/cmd/_bin/recvtty").exists() {
        missing.push("the built tests/cmd/_bin/recvtty".to_owned());
    }
    if Command::new("bats").arg("--version").stdout(Stdio::null()).status().is_err() {
        missing.push("the program bats (of this host)".to_owned());
    }
    missing
}

/// The names of the files.
pub(super) fn tests(directory: &Path) -> Vec<String> {
    let names = entries(&directory.join("tests/integration"));
    names.iter().filter_map(|name| name.strip_suffix(".bats")).map(str::to_owned).collect()
}

pub(super) fn run(directory: &Path, file: &str, host: &Host) -> Result<Vec<Row>, Failure> {
    // create.bats looks for this name among the open files.
    let folder = tempfile::tempdir()?;
    let runc = folder.path().join("runc");
    fs::copy(&host.runtime, &runc)?;
    // With bats 1.8 a time limit of bats' own leaves its processes behind.
    let command = format!("env -u BATS_TEST_TIMEOUT RUNC={} bats --tap {file}.bats", quoted(&runc));
    let run = perform(&directory.join("tests/integration"), &command, LIMITS, complete)?;
    Ok(rows(file, &run, host))
}

/// How many results TAP promises; 0 before it does.
fn planned(output: &str) -> usize {
    output.lines().find_map(|line| line.strip_prefix("1..")?.trim_end().parse().ok()).unwrap_or(0)
}

fn is_result(line: &&str) -> bool {
    line.starts_with("ok ") || line.starts_with("not ok ")
}

/// Whether bats has printed every result. It then still waits for programs that a failed test has left.
fn complete(output: &str) -> bool {
    let results = output.lines().filter(is_result).count();
    results > 0 && results == planned(output)
}

/// One row a result, and one more if results are missing.
fn rows(file: &str, run: &Run, host: &Host) -> Vec<Row> {
    let row = |name: String, verdict: Verdict| Row { name, section: "runc".into(), verdict };
    let mut rows = Vec::new();
    let mut lines = run.output.lines().peekable();
    while let Some(line) = lines.next() {
        if !is_result(&line) {
            continue;
        }
        let (failed, rest) = match line.strip_prefix("not ok ") {
            Some(rest) => (true, rest),
            None => (false, line.trim_start_matches("ok ")),
        };
        let title = rest.split_once(' ').map_or("", |(_, title)| title);
        let name = format!("{file}: {}", title.split(" # ").next().unwrap_or(title).trim_end());
        let mut said = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
            said.push(line);
        }
        let verdict = match rest.split_once(" # skip") {
            Some((_, why)) if !failed => Verdict::Skip(why.trim().to_owned()),
            _ => judge("bats", &name, host, if failed { Err(said.join("\n")) } else { Ok(()) }),
        };
        rows.push(row(name, verdict));
    }
    let planned = planned(&run.output);
    if planned == 0 || rows.len() < planned {
        let end = run.code.map_or("ran out of time".to_owned(), |code| format!("exit {code}"));
        let why = format!("{} results of {planned} planned, {end}", rows.len());
        rows.push(row(format!("{file}: all results"), Verdict::Fail(why)));
    }
    rows
}
