//! What the runtimes take in memory and on disk.

use crate::cases::limit_memory;
use crate::lab::{FLOOR, Lab, Runtime, reap_all};
use crate::{Failures, Result};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// One figure for each runtime; none where a runtime has no such command.
pub type Row = BTreeMap<String, Option<f64>>;

/// A container's whole life, in the order in which the commands are called. `ID` stands for its id.
const LIFE: &[(&str, &[&str])] = &[
    ("state", &["state", "ID"]),
    ("start", &["start", "ID"]),
    ("exec", &["exec", "ID", "true"]),
    // Without the host's ps(1), whose memory would be counted too.
    ("ps --format json", &["ps", "--format", "json", "ID"]),
    ("events --stats", &["events", "--stats", "ID"]),
    ("pause", &["pause", "ID"]),
    ("resume", &["resume", "ID"]),
    ("update", &["update", "--pids-limit", "100", "ID"]),
    ("list", &["list"]),
    ("kill", &["kill", "ID", "KILL"]),
    ("delete --force", &["delete", "--force", "ID"]),
    ("features", &["features"]),
    ("--help", &["--help"]),
];

/// The peak resident memory of every command in MB, under Docker's configuration: the largest of three calls.
pub fn peak_memory(lab: &Lab, failures: &mut Failures) -> Result<Vec<(&'static str, Row)>> {
    let bundle = lab.bundle("memory", lab.docker_config()?)?;
    let sleeping = lab.bundle_of("memory-sleep", lab.docker_config()?, &["sleep", "100000"])?;
    let mut rows: Vec<(&str, Row)> = ["run", "create"]
        .into_iter()
        .chain(LIFE.iter().map(|(name, _)| *name))
        .map(|name| (name, Row::new()))
        .collect();
    let mut put = |command: &str, runtime: &Runtime, megabytes: Option<f64>| {
        if let Some((_, row)) = rows.iter_mut().find(|(name, _)| *name == command) {
            let peak = row.entry(runtime.name.clone()).or_default();
            *peak = megabytes.map(|value| peak.unwrap_or_default().max(value)).or(*peak);
        }
    };
    for runtime in lab.runtimes.iter().cycle().take(3 * lab.runtimes.len()) {
        put("run", runtime, failures.note(lab.run(runtime, &bundle)).map(|sample| sample.rss));
        let Some((sample, container)) = failures.note(lab.create(runtime, &sleeping)) else { continue };
        put("create", runtime, Some(sample.rss));
        for (name, args) in LIFE {
            let args = args.iter().map(|arg| if *arg == "ID" { &container.id } else { *arg });
            // Not every runtime has every command.
            put(name, runtime, lab.call(runtime, args).ok().map(|sample| sample.rss));
        }
        reap_all();
    }
    Ok(rows)
}

/// The size of a binary in MB: alone, and with the libraries that it is linked against.
pub fn sizes(runtime: &Runtime) -> Result<(f64, f64)> {
    let alone = fs::metadata(&runtime.path)?.len() as f64 / 1e6;
    // ldd fails on a static program.
    let output = Command::new("ldd").arg(&runtime.path).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let libraries =
        said.split_whitespace().filter(|word| word.starts_with('/')).filter_map(|path| fs::metadata(path).ok());
    Ok((alone, alone + libraries.map(|file| file.len() as f64 / 1e6).sum::<f64>()))
}

/// The smallest memory limit, in KiB, under which a static program that does nothing is run five times out of five.
pub fn smallest_limits(lab: &Lab) -> Result<Row> {
    const PROGRAM: &str = "/bin/static-true";
    let mut row = Row::new();
    for runtime in &lab.runtimes {
        eprint!("\rbench: smallest memory limit of {} ", runtime.name);
        let limit = smallest(|bytes| {
            let mut config = lab.default_config();
            limit_memory(&mut config, bytes);
            let bundle = lab.bundle_of("limit", config, &[PROGRAM])?;
            Ok(lab.run(runtime, &bundle).is_ok())
        })?;
        row.insert(runtime.name.clone(), limit);
        // Of a container that was killed while it was made, some runtimes leave the state.
        let _ = lab.clean_up();
    }
    row.insert(FLOOR.to_owned(), smallest(|bytes| Ok(lab.floor(Some(bytes), PROGRAM).is_ok()))?);
    eprintln!();
    Ok(row)
}

/// Looks for the smallest limit in KiB, to a page, of those up to 64 MiB.
fn smallest(mut starts: impl FnMut(u64) -> Result<bool>) -> Result<Option<f64>> {
    const PAGE: u64 = 4096;
    const TRIES: usize = 5;
    let mut always = |pages: u64| -> Result<bool> {
        for _ in 0..TRIES {
            if !starts(pages * PAGE)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let (mut fails, mut works) = (0, 64);
    while !always(works)? {
        (fails, works) = (works, works * 4);
        if works > 16384 {
            return Ok(None);
        }
    }
    while works - fails > 1 {
        let middle = (fails + works) / 2;
        if always(middle)? { works = middle } else { fails = middle }
    }
    Ok(Some((works * PAGE / 1024) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_is_found_to_a_page() {
        for needed in [4096, 8192, 300 * 1024, 512 * 1024, 5 << 20] {
            let found = smallest(|bytes| Ok(bytes >= needed)).unwrap().unwrap();
            assert_eq!(found, needed as f64 / 1024.0);
        }
        assert_eq!(smallest(|_| Ok(false)).unwrap(), None);
    }
}
