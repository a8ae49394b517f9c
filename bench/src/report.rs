//! The results as Markdown.

use crate::Results;
use crate::bars::Verdict;
use crate::cases::{Case, TITLES};
use crate::footprint::Row;
use crate::lab::{FLOOR, Sample};
use crate::stats::{median, percentile};
use crate::trace::COMMANDS;

/// What of a sample a table shows.
type Value = fn(&Sample) -> f64;

/// The whole page.
pub fn page(results: &Results, verdicts: &[Verdict]) -> String {
    let mut out = format!(
        "# How fast and how large\n\nWritten by `make bench`; what is measured and how: [README.md](README.md).\n\n{}\n",
        results.host
    );
    out.push_str(&format!(
        "Load (1, 5, 15 minutes) before: {}, after: {}. {} rounds in {:.0} s.\n\n",
        results.load[0], results.load[1], results.rounds, results.seconds
    ));
    for (name, _, version) in &results.versions {
        out.push_str(&format!("- {name}: {version}\n"));
    }
    out.push_str(&bars(verdicts));
    out.push_str(&commands(results));
    out.push_str(&fleets(results));
    out.push_str(&rest(results));
    out.push_str(&growth(results));
    if !results.failures.is_empty() {
        out.push_str(&format!("\n## Failures\n\n{} calls failed; the first ones:\n\n", results.failures.len()));
        for failure in results.failures.iter().take(10) {
            // Where a machine has its runtimes is of no interest to another.
            let short = |text: String, (name, path, _): &(String, String, String)| text.replace(path, name);
            let failure = results.versions.iter().fold(failure.replace('\n', " "), short);
            out.push_str(&format!("- `{failure}`\n"));
        }
    }
    out
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> =
        (0..head.len()).map(|column| if column == 0 { "---".into() } else { "---:".into() }).collect();
    [line(head), line(&rule)].into_iter().chain(rows.iter().map(|row| line(row))).collect()
}

/// The bars and whether they are met.
pub fn bars(verdicts: &[Verdict]) -> String {
    let count = |met| verdicts.iter().filter(|verdict| verdict.met == met).count();
    let rows: Vec<Vec<String>> = verdicts
        .iter()
        .map(|verdict| {
            let met = match verdict.met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "–",
            };
            vec![verdict.what.to_owned(), verdict.bar.clone(), verdict.measured.clone(), met.to_owned()]
        })
        .collect();
    let head = ["orlop's", "bar", "measured", ""].map(String::from);
    format!("\n## Bars\n\n{} met, {} missed.\n\n{}", count(Some(true)), count(Some(false)), table(&head, &rows))
}

/// Runtimes first, the floor last.
fn names(results: &Results) -> Vec<String> {
    results.versions.iter().map(|(name, ..)| name.clone()).chain([FLOOR.to_owned()]).collect()
}

fn commands(results: &Results) -> String {
    let mut out =
        String::from("\n## Commands\n\nms: median / p95 / p99; in brackets the median as a multiple of orlop's.\n");
    const VALUES: [(&str, &str, Value); 2] =
        [("CPU time", "cpu.svg", |s| s.cpu), ("Wall time", "wall.svg", |s| s.wall)];
    for (title, plot, value) in VALUES {
        let head: Vec<String> = [title.to_owned()].into_iter().chain(names(results)).collect();
        let mut rows = Vec::new();
        for (case, title) in TITLES {
            // Its wall time is that of the case before.
            if *case == Case::CycleAndInit && plot == "wall.svg" {
                continue;
            }
            let Some(of_case) = results.samples.get(case) else { continue };
            let figures = |name: &str| -> Option<Vec<f64>> { Some(of_case.get(name)?.iter().map(value).collect()) };
            let ours = figures("orlop").map(|values| median(&values));
            let cell = |name: &String| {
                let Some(values) = figures(name) else { return "–".to_owned() };
                let ratio = ours.filter(|_| name != "orlop").map(|ours| format!(" ({:.2}×)", median(&values) / ours));
                let [p50, p95, p99] = [median(&values), percentile(&values, 0.95), percentile(&values, 0.99)];
                format!("{p50:.2} / {p95:.2} / {p99:.2}{}", ratio.unwrap_or_default())
            };
            rows.push([(*title).to_owned()].into_iter().chain(names(results).iter().map(cell)).collect());
        }
        out.push_str(&format!("\n{}\n![{title} of the commands, in ms]({plot})\n", table(&head, &rows)));
    }
    out
}

fn fleets(results: &Results) -> String {
    let head =
        ["64 containers, 16 at a time", "total, ms", "one: median, ms", "one: p99, ms", "CPU, ms"].map(String::from);
    let rows: Vec<Vec<String>> = results
        .versions
        .iter()
        .filter_map(|(name, ..)| {
            let fleet = results.fleets.get(name)?;
            let figures =
                [median(&fleet.totals), median(&fleet.each), percentile(&fleet.each, 0.99), median(&fleet.cpu)];
            Some([name.clone()].into_iter().chain(figures.map(|figure| format!("{figure:.0}"))).collect())
        })
        .collect();
    if rows.is_empty() { String::new() } else { format!("\n## Many at once\n\n{}", table(&head, &rows)) }
}

fn rest(results: &Results) -> String {
    let names = names(results);
    let head = |title: &str| -> Vec<String> { [title.to_owned()].into_iter().chain(names.clone()).collect() };
    let line = |title: &str, row: &Row, decimals: usize| -> Vec<String> {
        let cell = |name: &String| {
            row.get(name).copied().flatten().map_or("–".into(), |value| format!("{value:.decimals$}"))
        };
        [title.to_owned()].into_iter().chain(names.iter().map(cell)).collect()
    };
    let mut out = String::new();
    if !results.peaks.is_empty() {
        let rows: Vec<Vec<String>> = results.peaks.iter().map(|(command, row)| line(command, row, 2)).collect();
        out.push_str(&format!("\n## Memory\n\nPeak resident memory of a command and of the processes it waits for, Docker's config.\n\n{}", table(&head("MB"), &rows)));
    }
    let mut sizes = Vec::new();
    if !results.sizes.is_empty() {
        let of = |part: fn(&(f64, f64)) -> f64| {
            results.sizes.iter().map(|(name, size)| (name.clone(), Some(part(size)))).collect()
        };
        sizes.push(line("binary, MB", &of(|size| size.0), 2));
        sizes.push(line("… with its libraries", &of(|size| size.1), 2));
    }
    if !results.limits.is_empty() {
        sizes.push(line("smallest memory limit of a static program, KiB", &results.limits, 0));
    }
    let [length, mean] = &results.instructions;
    if !mean.is_empty() {
        sizes.push(line("Docker's seccomp profile: instructions", length, 0));
        sizes.push(line("… executed at a system call, mean of 50", mean, 1));
    }
    if !sizes.is_empty() {
        out.push_str(&format!("\n## Sizes\n\n{}", table(&head(""), &sizes)));
    }
    if let Some(time) = results.compile_time {
        out.push_str(&format!("\norlop compiles Docker's seccomp profile in {time:.0} µs.\n"));
    }
    if !results.calls.is_empty() {
        let total = |calls: crate::trace::Calls| format!("{} + {}", calls.runtime, calls.program);
        let rows: Vec<Vec<String>> = COMMANDS
            .iter()
            .filter_map(|command| {
                let row = results.calls.get(*command)?;
                let cell = |name: &String| row.get(name).copied().flatten().map_or("–".into(), total);
                Some([(*command).to_owned()].into_iter().chain(names.iter().map(cell)).collect())
            })
            .collect();
        out.push_str(&format!("\n## System calls\n\nOf the runtime and its processes + of the program in the container; those of the init are with `create`.\n\n{}", table(&head("default bundle"), &rows)));
    }
    out
}

fn growth(results: &Results) -> String {
    if results.growth.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    for series in &results.growth {
        for (name, points) in &series.lines {
            let figures: Vec<String> =
                points.iter().map(|p| format!("{}: {:.2} / {:.2}", p.n, p.cpu, p.wall)).collect();
            let exponent = series.exponent(name).map_or("flat".into(), |k| format!("{k:.2}"));
            rows.push(vec![series.name.clone(), name.clone(), figures.join("; "), exponent]);
        }
    }
    let head = ["CPU / wall, ms", "", "n", "exponent"].map(String::from);
    format!(
        "\n## Growth\n\nThe exponent is k in a + b·nᵏ, of CPU time (that of the init with `create`): 1 is linear; flat: no growth above a tenth is seen.\n\n{}\n![CPU time over numbers](growth.svg)\n",
        table(&head, &rows)
    )
}
