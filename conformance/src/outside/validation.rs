//! opencontainers/runtime-tools: programs that make bundles, run the runtime and print TAP.

use std::path::Path;
use std::time::Duration;

use super::terminal::{Limits, Run, perform, quoted};
use super::{entries, judge};
use crate::check::Failure;
use crate::report::Row;
use crate::runtime::Host;

const LIMITS: Limits = Limits { whole: Duration::from_secs(60), silence: Duration::from_secs(60) };

pub(super) fn missing(directory: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    if !directory.join("runtimetest").exists() {
        missing.push("the program runtimetest".to_owned());
    }
    if tests(directory).is_empty() {
        missing.push("built programs validation/NAME/NAME.t".to_owned());
    }
    missing
}

/// The names of the programs `validation/NAME/NAME.t`.
pub(super) fn tests(directory: &Path) -> Vec<String> {
    let mut names = entries(&directory.join("validation"));
    names.retain(|name| directory.join(format!("validation/{name}/{name}.t")).exists());
    names
}

pub(super) fn run(directory: &Path, name: &str, host: &Host) -> Result<Vec<Row>, Failure> {
    let command = format!("RUNTIME={} ./validation/{name}/{name}.t", quoted(&host.runtime));
    let run = perform(directory, &command, LIMITS, |_| false)?;
    let verdict = judge("validation", name, host, verdict(&run));
    Ok(vec![Row { name: name.to_owned(), section: "runtime-tools".into(), verdict }])
}

/// Good means exit 0, no failed point, no time-out; a program without points must not report an error either.
fn verdict(run: &Run) -> Result<(), String> {
    let points = run.output.lines().filter(|line| line.starts_with("ok ")).count();
    let failed: Vec<&str> = run.output.lines().filter(|line| line.starts_with("not ok ")).collect();
    let silent_error = points == 0 && run.output.contains("\"error\":");
    if run.code == Some(0) && failed.is_empty() && !silent_error {
        return Ok(());
    }
    let end = run.code.map_or("ran out of time".to_owned(), |code| format!("exit {code}"));
    let lines: Vec<&str> = run.output.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n");
    Err(format!("{end}, {points} points ok, {} not ok: {}\n{last}", failed.len(), failed.join("; ")))
}
