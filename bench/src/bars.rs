//! What the figures are held against.

use crate::Results;
use crate::cases::Case;
use crate::lab::{FLOOR, Sample};
use crate::stats::{median, percentile};

/// Against what a figure of orlop's is held.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// A multiple of the same figure of this runtime.
    Times(f64, &'static str),
    /// A value.
    Value(f64, &'static str),
}

use Against::{Times, Value};

/// A figure of a runtime, if it was measured.
type Figure = fn(&Results, &str) -> Option<f64>;

/// Every bar: the figure's name and what it has to stay within.
const BARS: &[(&str, Figure, Against)] = &[
    ("`run`, default bundle: CPU", |r, n| cpu(r, Case::Run, n), Times(1.5, FLOOR)),
    ("`run`, default bundle: CPU", |r, n| cpu(r, Case::Run, n), Times(0.5, "crun")),
    ("`run`, Docker's config: CPU", |r, n| cpu(r, Case::RunDocker, n), Times(0.5, "crun")),
    ("`run`, Docker's config: CPU", |r, n| cpu(r, Case::RunDocker, n), Times(0.12, "runc")),
    ("`run`, default bundle: wall", |r, n| wall(r, Case::Run, n), Times(1.6, FLOOR)),
    ("`run`, default bundle: wall", |r, n| wall(r, Case::Run, n), Times(0.25, "crun")),
    ("create+start+delete: CPU", |r, n| cpu(r, Case::Cycle, n), Times(0.4, "crun")),
    ("create+start+delete: wall", |r, n| wall(r, Case::Cycle, n), Times(0.3, "crun")),
    ("`exec`: CPU", |r, n| cpu(r, Case::Exec, n), Times(0.35, "crun")),
    ("`exec`: wall", |r, n| wall(r, Case::Exec, n), Times(0.2, "crun")),
    ("64 containers, 16 at a time: total", |r, n| Some(median(&r.fleets.get(n)?.totals)), Times(0.5, "crun")),
    (
        "64 containers, 16 at a time: p99 of one",
        |r, n| Some(percentile(&r.fleets.get(n)?.each, 0.99)),
        Times(0.5, "crun"),
    ),
    ("delete of 200 processes: wall", |r, n| wall(r, Case::DeleteMany, n), Times(1.0, "crun")),
    (
        "delete of 200 processes, host's pid namespace: wall",
        |r, n| wall(r, Case::DeleteManyOfHost, n),
        Times(1.0, "crun"),
    ),
    ("peak memory of any command", |r, n| most(r, n), Value(2.0, "MB")),
    ("size of the binary", |r, n| r.sizes.get(n).map(|size| size.0), Value(3.0, "MB")),
    ("smallest memory limit of a static program", |r, n| r.limits.get(n).copied().flatten(), Times(1.0, FLOOR)),
    ("smallest memory limit of a static program", |r, n| r.limits.get(n).copied().flatten(), Value(512.0, "KiB")),
    (
        "system calls of a `run`",
        |r, n| Some(r.calls.get("run")?.get(n)?.map(|c| c.runtime + c.program)? as f64),
        Value(300.0, ""),
    ),
    ("seccomp: Docker's profile compiled", |r, n| r.compile_time.filter(|_| n == "orlop"), Value(200.0, "µs")),
    ("seccomp: mean instructions of a call", |r, n| r.instructions[1].get(n).copied().flatten(), Times(0.5, "crun")),
    ("growth: the largest exponent", |r, n| steepest(r, n), Value(1.2, "")),
];

fn of(results: &Results, case: Case, runtime: &str, value: fn(&Sample) -> f64) -> Option<f64> {
    let samples = results.samples.get(&case)?.get(runtime)?;
    Some(median(&samples.iter().map(value).collect::<Vec<_>>()))
}

fn cpu(results: &Results, case: Case, runtime: &str) -> Option<f64> {
    of(results, case, runtime, |sample| sample.cpu)
}

fn wall(results: &Results, case: Case, runtime: &str) -> Option<f64> {
    of(results, case, runtime, |sample| sample.wall)
}

fn most(results: &Results, runtime: &str) -> Option<f64> {
    results.peaks.iter().filter_map(|(_, row)| row.get(runtime).copied().flatten()).max_by(f64::total_cmp)
}

fn steepest(results: &Results, runtime: &str) -> Option<f64> {
    results.growth.iter().filter_map(|series| series.exponent(runtime)).max_by(f64::total_cmp)
}

/// A bar and what was measured.
#[derive(Debug)]
pub struct Verdict {
    /// The figure's name.
    pub what: &'static str,
    /// The bar as text.
    pub bar: String,
    /// The measured figure, as a ratio where the bar is one, and its parts.
    pub measured: String,
    /// None where there is nothing to hold it against.
    pub met: Option<bool>,
}

/// Holds orlop's figures against every bar.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    BARS.iter()
        .map(|(what, figure, against)| verdict(what, figure(results, "orlop"), *against, |name| figure(results, name)))
        .collect()
}

fn verdict(what: &'static str, ours: Option<f64>, against: Against, peer: impl Fn(&str) -> Option<f64>) -> Verdict {
    match against {
        Times(limit, name) => {
            let ratio = ours.zip(peer(name)).map(|(ours, theirs)| (ours / theirs, ours, theirs));
            let measured = ratio.map_or("not measured".into(), |(ratio, a, b)| format!("{ratio:.2} ({a:.2} : {b:.2})"));
            Verdict {
                what, bar: format!("≤ {limit} × {name}"), measured, met: ratio.map(|(ratio, ..)| ratio <= limit)
            }
        }
        Value(limit, unit) => Verdict {
            what,
            bar: format!("≤ {limit} {unit}").trim_end().to_owned(),
            measured: ours.map_or("not measured".into(), |value| format!("{value:.2} {unit}").trim_end().to_owned()),
            met: ours.map(|value| value <= limit),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_missed_or_open() {
        let met = |ours, against, theirs| verdict("x", ours, against, |_| theirs).met;
        assert_eq!(met(Some(4.0), Times(0.5, "crun"), Some(8.0)), Some(true));
        assert_eq!(met(Some(4.1), Times(0.5, "crun"), Some(8.0)), Some(false));
        assert_eq!(met(Some(4.1), Times(0.5, "crun"), None), None);
        assert_eq!(met(None, Value(3.0, "MB"), None), None);
        assert_eq!(verdict("x", Some(4.0), Times(0.5, "crun"), |_| Some(8.0)).measured, "0.50 (4.00 : 8.00)");
        assert_eq!(verdict("x", Some(2.9), Value(3.0, "MB"), |_| None).measured, "2.90 MB");
    }
}
