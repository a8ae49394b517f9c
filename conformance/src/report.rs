//! Results, and the formats in which they are printed: lines for people, TAP, JSON, and a Markdown table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::check::Failure;

/// What a check, or a test of an outside suite, came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not, and why.
    Fail(String),
    /// It does not, as is known of this runtime.
    Known {
        /// What the runtime does instead, or what the suite or host is at fault for.
        why: String,
        /// What was seen this time.
        seen: String,
    },
    /// It was not run, and why.
    Skip(String),
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `area::what_must_hold`, or the name that an outside suite gives.
    pub name: String,
    /// The section that demands it.
    pub section: String,
    /// What it came to.
    pub verdict: Verdict,
}

/// The results of one runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The first line of the runtime's `--version`, without the word "version".
    pub runtime: String,
    /// The results, in the order of the checks.
    pub rows: Vec<Row>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line a result as it comes, and a last line like cargo's.
    Text,
    /// Test Anything Protocol 13; known failures are `# TODO`.
    Tap,
    /// One JSON document at the end, which `compare` reads.
    Json,
    /// One table at the end.
    Markdown,
}

impl Format {
    /// By the name that `--format` takes.
    pub fn named(name: &str) -> Option<Self> {
        let all = [("text", Self::Text), ("tap", Self::Tap), ("json", Self::Json), ("markdown", Self::Markdown)];
        all.into_iter().find(|(one, _)| *one == name).map(|(_, format)| format)
    }
}

/// Prints results as they come, and the whole at the end.
pub struct Printer {
    format: Format,
    quiet: bool,
    printed: usize,
}

impl Printer {
    /// `planned` results are to come; with `quiet` only those that failed are printed as lines.
    pub fn begin(format: Format, quiet: bool, runtime: &str, planned: usize) -> Self {
        match format {
            Format::Text => println!("runtime: {runtime}\nrunning {planned} tests"),
            Format::Tap => println!("TAP version 13\n1..{planned}\n# runtime: {runtime}"),
            Format::Json | Format::Markdown => {}
        }
        Self { format, quiet, printed: 0 }
    }

    /// One result.
    pub fn row(&mut self, row: &Row) {
        self.printed += 1;
        match self.format {
            Format::Text if !self.quiet || matches!(row.verdict, Verdict::Fail(_)) => print!("{}", text_line(row)),
            Format::Tap => print!("{}", tap_line(self.printed, row)),
            Format::Text | Format::Json | Format::Markdown => {}
        }
    }

    /// The whole; returns whether nothing failed.
    pub fn end(self, report: &Report) -> bool {
        let count = Count::of(&report.rows);
        match self.format {
            Format::Text => println!("\n{}", count.last_line()),
            Format::Tap => println!("# {}", count.last_line()),
            Format::Json => println!("{:#}", report.to_json()),
            Format::Markdown => print!("{}", table(std::slice::from_ref(report))),
        }
        count.failed == 0
    }
}

fn text_line(row: &Row) -> String {
    let Row { name, section, verdict } = row;
    match verdict {
        Verdict::Pass => format!("ok       {name} ({section})\n"),
        Verdict::Skip(why) => format!("ignored  {name} ({section}): {why}\n"),
        Verdict::Known { why, seen } => format!("known    {name} ({section}): {why} (seen: {})\n", first_line(seen)),
        Verdict::Fail(why) => format!("FAILED   {name} ({section}): {why}\n"),
    }
}

fn tap_line(number: usize, row: &Row) -> String {
    let description = format!("{number} - {} ({})", row.name, row.section);
    match &row.verdict {
        Verdict::Pass => format!("ok {description}\n"),
        Verdict::Skip(why) => format!("ok {description} # SKIP {}\n", first_line(why)),
        Verdict::Known { why, .. } => format!("not ok {description} # TODO {}\n", first_line(why)),
        Verdict::Fail(why) => {
            let mut text = format!("not ok {description}\n");
            for line in why.lines() {
                let _ = writeln!(text, "# {line}");
            }
            text
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[derive(Default)]
struct Count {
    passed: usize,
    known: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn of(rows: &[Row]) -> Self {
        let mut count = Self::default();
        for row in rows {
            match row.verdict {
                Verdict::Pass => count.passed += 1,
                Verdict::Known { .. } => count.known += 1,
                Verdict::Fail(_) => count.failed += 1,
                Verdict::Skip(_) => count.skipped += 1,
            }
        }
        count
    }

    /// In the form of cargo's tests, which integration/suites.sh adds up: a known failure is a test that passed.
    fn last_line(&self) -> String {
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        let Self { passed, known, failed, skipped } = self;
        let passed = passed + known;
        format!(
            "test result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored ({known} of the passed are known failures)"
        )
    }
}

impl Report {
    /// The form that [`Report::from_json`] reads.
    fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut one = json!({ "name": row.name, "section": row.section });
            let (verdict, why, seen) = match &row.verdict {
                Verdict::Pass => ("pass", None, None),
                Verdict::Fail(why) => ("fail", Some(why), None),
                Verdict::Known { why, seen } => ("known", Some(why), Some(seen)),
                Verdict::Skip(why) => ("skip", Some(why), None),
            };
            one["verdict"] = json!(verdict);
            for (key, text) in [("why", why), ("seen", seen)] {
                if let Some(text) = text {
                    one[key] = json!(text);
                }
            }
            one
        });
        json!({ "runtime": self.runtime, "results": rows.collect::<Vec<Value>>() })
    }

    /// Reads what `--format json` has written.
    pub fn from_json(text: &str) -> Result<Self, Failure> {
        let report: Value = serde_json::from_str(text)?;
        let string = |value: &Value, key: &str| {
            value[key].as_str().map(str::to_owned).ok_or_else(|| Failure(format!("a result without {key}: {value}")))
        };
        let row = |value: &Value| {
            let verdict = match value["verdict"].as_str() {
                Some("pass") => Verdict::Pass,
                Some("fail") => Verdict::Fail(string(value, "why")?),
                Some("known") => Verdict::Known { why: string(value, "why")?, seen: string(value, "seen")? },
                Some("skip") => Verdict::Skip(string(value, "why")?),
                _ => return Err(Failure(format!("a result without a verdict: {value}"))),
            };
            Ok(Row { name: string(value, "name")?, section: string(value, "section")?, verdict })
        };
        let rows = report["results"].as_array().ok_or_else(|| Failure("no list of results".into()))?;
        Ok(Self { runtime: string(&report, "runtime")?, rows: rows.iter().map(row).collect::<Result<_, _>>()? })
    }
}

/// The results of several runtimes side by side in Markdown: the sums, a table for each area, and what failed and why.
pub fn table(reports: &[Report]) -> String {
    let mut text = sums(reports);
    // A check that only some of the runs know still gets a row.
    let mut areas: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in reports.iter().flat_map(|report| &report.rows) {
        let area = row.name.split_once("::").map_or("results", |(area, _)| area);
        let at = areas.iter().position(|(name, _)| *name == area).unwrap_or_else(|| {
            areas.push((area, Vec::new()));
            areas.len() - 1
        });
        let rows = &mut areas[at].1;
        if !rows.iter().any(|known| known.name == row.name) {
            rows.push(row);
        }
    }
    let found: Vec<BTreeMap<&str, &Verdict>> = reports
        .iter()
        .map(|report| report.rows.iter().map(|row| (row.name.as_str(), &row.verdict)).collect())
        .collect();
    for (area, rows) in areas {
        let _ = write!(text, "\n## {area}\n\n| check | section |");
        for report in reports {
            let _ = write!(text, " {} |", report.runtime);
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(reports.len()));
        for row in rows {
            let name = row.name.strip_prefix(&format!("{area}::")).unwrap_or(&row.name);
            let _ = write!(text, "| {} | {} |", cell(name), cell(&row.section));
            for verdicts in &found {
                let _ = write!(text, " {} |", mark(verdicts.get(row.name.as_str()).copied()));
            }
            text.push('\n');
        }
    }
    for report in reports {
        text.push_str(&failures(report));
    }
    text
}

fn sums(reports: &[Report]) -> String {
    let mut text = String::from("| runtime | passed | known failures | failed | not run |\n|---|---|---|---|---|\n");
    for report in reports {
        let Count { passed, known, failed, skipped } = Count::of(&report.rows);
        let _ = writeln!(text, "| {} | {passed} | {known} | {failed} | {skipped} |", report.runtime);
    }
    text
}

fn mark(verdict: Option<&Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Pass) => "yes",
        Some(Verdict::Fail(_) | Verdict::Known { .. }) => "**no**",
        Some(Verdict::Skip(_)) | None => "–",
    }
}

/// The failures of one runtime with their reasons.
fn failures(report: &Report) -> String {
    let mut text = String::new();
    for row in &report.rows {
        let why = match &row.verdict {
            Verdict::Fail(why) => format!("{} (not known before)", first_line(why)),
            Verdict::Known { why, .. } => why.clone(),
            Verdict::Pass | Verdict::Skip(_) => continue,
        };
        if text.is_empty() {
            let name = &report.runtime;
            let _ = write!(text, "\n## What {name} fails\n\n| check | section | what it does |\n|---|---|---|\n");
        }
        let _ = writeln!(text, "| {} | {} | {} |", cell(&row.name), cell(&row.section), cell(&why));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
