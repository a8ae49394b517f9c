//! bench/syscalls.txt against the release binary: every command makes exactly as many system calls as the file says.
//!
//! One more is a decision, not an accident; one less is written down as well: `make bless` does both.

use libtest_mimic::{Arguments, Failed, Trial};
use orlop_bench::host::{self, Layout};
use orlop_bench::lab::Lab;
use orlop_bench::{Result, trace};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/syscalls.txt");

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("budget: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    if !host::is_isolated() {
        host::isolate(false)?;
    }
    let mut arguments = Arguments::from_args();
    // One view of the host comes after the other.
    arguments.test_threads = Some(1);
    let layout = Layout::here()?;
    let lab = Lab::new()?;
    let is_orlop = lab.runtimes.first().is_some_and(|runtime| runtime.version.starts_with("orlop"));
    let config = lab.default_config();
    drop(lab);
    let mut views = vec![layout.clone()];
    if layout.name() == "hybrid" {
        views.push(Layout { v2: None, ..layout });
    }
    let budget = fs::read_to_string(FILE)?;
    let trial = |view: Layout| {
        let key = key(&view, &config)?;
        let why = match (is_orlop, bless() || counts(&budget, &key).next().is_some()) {
            (false, _) => " (ORLOP is not orlop)",
            (true, false) => " (no such host in bench/syscalls.txt)",
            (true, true) => "",
        };
        let name = format!("budget of {key}{why}");
        Ok(Trial::test(name, move || check(&view, &key)).with_ignored_flag(!why.is_empty()))
    };
    Ok(libtest_mimic::run(&arguments, views.into_iter().map(trial).collect::<Result<_>>()?).exit_code())
}

fn bless() -> bool {
    env::var_os("BLESS").is_some_and(|value| value == "1")
}

/// What of a host decides how many calls the default bundle takes: the cgroup hierarchies, which of the paths to protect are there, and
/// how many capabilities there are to drop.
fn key(view: &Layout, config: &Value) -> Result<String> {
    let paths =
        ["maskedPaths", "readonlyPaths"].map(|list| config["linux"][list].as_array().cloned().unwrap_or_default());
    let exist = paths.iter().flatten().filter_map(Value::as_str).filter(|path| Path::new(path).exists()).count();
    let capabilities = orlop_sys::status::read()?.bounding.count_ones();
    Ok(format!("{}-{}-{}-{exist}-{capabilities}", env::consts::ARCH, view.name(), view.v1.len()))
}

/// The lines of one host: command and count.
fn counts<'a>(budget: &'a str, key: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lines = budget.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter_map(move |fields| match fields.as_slice() {
        [host, command, count] if *host == key => Some((*command, *count)),
        _ => None,
    })
}

fn check(view: &Layout, key: &str) -> std::result::Result<(), Failed> {
    if view.name() == "v1" && Layout::here()?.name() == "hybrid" {
        host::hide_v2()?;
    }
    let lab = Lab::new()?;
    let counted = count(&lab);
    let result = counted.and_then(|counted| match bless() {
        true => Ok(write(key, &counted)?),
        false => compare(&lab, key, counted),
    });
    lab.clean_up()?;
    Ok(result?)
}

fn count(lab: &Lab) -> Result<Vec<(&'static str, String)>> {
    let orlop = lab.runtimes.first().ok_or("no orlop")?;
    let counted = trace::count(lab, orlop)?;
    Ok(counted.into_iter().map(|(command, calls)| (command, calls.steady.to_string())).collect())
}

/// A difference that comes and goes is one of time, not of the program: it has to be there three times.
fn compare(lab: &Lab, key: &str, mut counted: Vec<(&'static str, String)>) -> Result<()> {
    let budget = fs::read_to_string(FILE)?;
    for _ in 0..2 {
        if differences(&budget, key, &counted).is_empty() {
            break;
        }
        counted = count(lab)?;
    }
    let wrong = differences(&budget, key, &counted);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{wrong}`make bless` writes these counts down, if they are meant").into())
    }
}

fn differences(budget: &str, key: &str, counted: &[(&str, String)]) -> String {
    let mut wrong = String::new();
    for (command, count) in counted {
        let allowed = counts(budget, key).find(|(name, _)| name == command).map_or("no", |(_, count)| count);
        if allowed != count {
            let _ = writeln!(wrong, "{command}: {count} system calls, bench/syscalls.txt says {allowed}");
        }
    }
    wrong
}

/// Replaces this host's lines; the others and the comments stay.
fn write(key: &str, counted: &[(&'static str, String)]) -> std::io::Result<()> {
    let budget = fs::read_to_string(FILE)?;
    let (comments, lines): (Vec<&str>, Vec<&str>) = budget.lines().partition(|line| line.starts_with('#'));
    let others = lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with(&format!("{key} ")));
    let ours = counted.iter().map(|(command, count)| format!("{key} {command} {count}"));
    let mut lines: Vec<String> = others.map(str::to_owned).chain(ours).collect();
    // By host; a host's commands stay in their order.
    lines.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
    let comments = comments.into_iter().map(str::to_owned);
    fs::write(FILE, comments.chain(lines).map(|line| line + "\n").collect::<String>())
}
