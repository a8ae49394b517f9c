//! `make bench`: see ../README.md.

use orlop_bench::host::{self, Layout};
use orlop_bench::lab::Lab;
use orlop_bench::{Failures, Result, Results, bars, cases, footprint, growth, plot, report, seccomp, trace};
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: orlop-bench [--quick] [--check] [--rounds N] [--out DIRECTORY]
  --quick   the commands alone, a minute
  --check   end with 1 if a bar is missed or a call has failed
  --out     write RESULTS.md and the plots there; else the page goes to standard output
ORLOP, RUNC and CRUN name the runtimes; else they are looked for on PATH.";

struct Options {
    quick: bool,
    check: bool,
    rounds: usize,
    out: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options { quick: false, check: false, rounds: 0, out: None };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--check" => options.check = true,
            "--rounds" => options.rounds = value()?.parse().map_err(|_| format!("--rounds takes a number\n{USAGE}"))?,
            "--out" => options.out = Some(value()?.into()),
            _ => return Err(format!("unknown argument {arg}\n{USAGE}").into()),
        }
    }
    if options.rounds == 0 {
        options.rounds = if options.quick { 10 } else { 40 };
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    if !host::is_isolated() {
        // crun refuses the whole of a hybrid host.
        host::isolate(true)?;
    }
    let lab = Lab::new()?;
    let results = measure(&lab, options);
    let cleaned = lab.clean_up();
    let results = results?;
    cleaned?;
    let verdicts = bars::verdicts(&results);
    let page = report::page(&results, &verdicts);
    match &options.out {
        Some(out) => {
            print!("{}", report::bars(&verdicts));
            write(out, &page, &results)?;
        }
        None => print!("{page}"),
    }
    let missed = verdicts.iter().any(|verdict| verdict.met == Some(false));
    Ok(!(options.check && (missed || !results.failures.is_empty())))
}

fn measure(lab: &Lab, options: &Options) -> Result<Results> {
    let began = Instant::now();
    let mut failures = Failures::default();
    let mut results =
        Results { host: host::description(&Layout::here()?), rounds: options.rounds, ..Results::default() };
    for runtime in &lab.runtimes {
        let path = runtime.path.display().to_string();
        results.versions.push((runtime.name.clone(), path, runtime.version.clone()));
    }
    results.load[0] = host::load();
    results.samples = cases::commands(lab, options.rounds, &mut failures)?;
    if !options.quick {
        let few = options.rounds.div_ceil(8).max(3);
        results.fleets = cases::fleets(lab, few, &mut failures)?;
        let growth = growth::measure(lab, few, &mut failures);
        results.growth = failures.note(growth).unwrap_or_default();
        results.limits = failures.note(footprint::smallest_limits(lab)).unwrap_or_default();
    }
    results.peaks = footprint::peak_memory(lab, &mut failures)?;
    for runtime in &lab.runtimes {
        results.sizes.extend(failures.note(footprint::sizes(runtime)).map(|sizes| (runtime.name.clone(), sizes)));
        for (command, calls) in failures.note(trace::count(lab, runtime)).unwrap_or_default() {
            results.calls.entry(command).or_default().insert(runtime.name.clone(), Some(calls));
        }
    }
    results.calls.entry("run").or_default().insert("floor".into(), failures.note(trace::count_floor(lab)));
    results.compile_time = seccomp::compile_time(lab)?;
    results.instructions = failures.note(seccomp::instructions(lab)).unwrap_or_default();
    results.load[1] = host::load();
    results.seconds = began.elapsed().as_secs_f64();
    results.failures = failures.0;
    Ok(results)
}

/// Writes the page and the plots for the owner of the directory: root measures, in a tree that may be someone else's.
fn write(out: &Path, page: &str, results: &Results) -> Result<()> {
    fs::create_dir_all(out)?;
    let owner = fs::metadata(out)?;
    let files = [
        ("RESULTS.md", page.to_owned()),
        ("cpu.svg", plot::bars(results, "CPU time of the commands, median in ms", |sample| sample.cpu)),
        ("wall.svg", plot::bars(results, "Wall time of the commands, median in ms", |sample| sample.wall)),
        ("growth.svg", plot::growth(&results.growth)),
    ];
    for (name, text) in files {
        let path = out.join(name);
        fs::write(&path, text)?;
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))?;
    }
    println!("written: {}", out.join("RESULTS.md").display());
    Ok(())
}
