//! The log of the runtime: logrus's text or JSON lines, on stderr or appended to the file of `--log`; or entries of the
//! journal or of syslog.
//!
//! Who reads it decides what is in it. podman decodes the whole file as one JSON object, containerd takes the last line of
//! level error. So a failed invocation writes exactly one line to a log file, its error, and a successful one none:
//! warnings go there only when `--debug` or `--log-level` asks for them. On stderr, where a person reads, warnings are
//! shown.

mod system;

use crate::error::{On, Result, invalid};
use env_logger::Target;
use log::{Level, LevelFilter, Record};
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Whether the log is elsewhere than on stderr; unset until [`init`].
static ELSEWHERE: OnceLock<bool> = OnceLock::new();

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sink {
    /// To stderr.
    #[default]
    Stderr,
    /// To the end of a file.
    File(PathBuf),
    /// To systemd's journal, under this identifier.
    Journald(String),
    /// To the syslog daemon, under this identifier.
    Syslog(String),
}

impl Sink {
    /// `--log`: a path; or in crun's words `file:PATH`, `journald:ID` or `syslog:ID`, where an empty ID is our name.
    ///
    /// # Errors
    /// The working directory, below which a relative path is, cannot be told.
    pub fn parse(value: &OsStr) -> Result<Sink> {
        let bytes = value.as_bytes();
        let after = |prefix: &str| bytes.strip_prefix(prefix.as_bytes());
        let id = |id: &[u8]| if id.is_empty() { "orlop".to_string() } else { String::from_utf8_lossy(id).into_owned() };
        if let Some(given) = after("journald:") {
            return Ok(Sink::Journald(id(given)));
        }
        if let Some(given) = after("syslog:") {
            return Ok(Sink::Syslog(id(given)));
        }
        match after("file:").unwrap_or(bytes) {
            b"" => Ok(Sink::Stderr),
            path => Ok(Sink::File(std::path::absolute(OsStr::from_bytes(path)).on("getcwd", "")?)),
        }
    }
}

/// Where the log goes and how it looks.
#[derive(Debug, Default)]
pub struct Options {
    /// Where.
    pub sink: Sink,
    /// One JSON object per line instead of `key=value` text.
    pub json: bool,
    /// The least level to write; by default error in a file and warning on stderr.
    pub level: Option<LevelFilter>,
}

/// `--log-format`: "text" (also when empty) or "json"; true for JSON.
pub fn format(name: &str) -> Result<bool> {
    match name {
        "" | "text" => Ok(false),
        "json" => Ok(true),
        other => Err(invalid("invalid log-format", other.to_string()).hint("text or json")),
    }
}

/// `--log-level`, in crun's words.
pub fn level(name: &str) -> Result<LevelFilter> {
    match name {
        "error" => Ok(LevelFilter::Error),
        "warning" => Ok(LevelFilter::Warn),
        "debug" => Ok(LevelFilter::Debug),
        other => Err(invalid("invalid log-level", other.to_string()).hint("error, warning or debug")),
    }
}

/// Sets up the sink of the `log` macros. Done once; a second call changes nothing.
pub fn init(options: &Options) -> Result<()> {
    let (target, quiet) = match &options.sink {
        Sink::Stderr => (Target::Stderr, LevelFilter::Warn),
        Sink::File(path) => (Target::Pipe(Box::new(open(path)?)), LevelFilter::Error),
        Sink::Journald(_) => (Target::Pipe(Box::new(system::journal()?)), LevelFilter::Warn),
        Sink::Syslog(_) => (Target::Pipe(Box::new(system::syslog()?)), LevelFilter::Warn),
    };
    let elsewhere = options.sink != Sink::Stderr;
    start(target, options.level.unwrap_or(quiet), options.sink.clone(), options.json, elsewhere);
    Ok(())
}

/// As [`init`]: text, to what is open already.
pub fn init_with(file: std::fs::File, level: LevelFilter) {
    start(Target::Pipe(Box::new(file)), level, Sink::Stderr, false, true);
}

fn start(target: Target, level: LevelFilter, looks: Sink, json: bool, elsewhere: bool) {
    let sink = env_logger::Builder::new()
        .filter_level(level)
        .target(target)
        .format(move |buffer, record| buffer.write_all(&entry(&looks, json, record)))
        .try_init();
    if sink.is_ok() {
        let _ = ELSEWHERE.set(elsewhere);
    }
}

/// What is written for one record.
fn entry(sink: &Sink, json: bool, record: &Record<'_>) -> Vec<u8> {
    match sink {
        Sink::Stderr | Sink::File(_) if json => json_line(&Line::of(record)).into_bytes(),
        Sink::Stderr | Sink::File(_) => text_line(&Line::of(record)).into_bytes(),
        Sink::Journald(id) => system::journal_entry(id, record.level(), &record.args().to_string()),
        Sink::Syslog(id) => system::syslog_entry(id, record.level(), &record.args().to_string()),
    }
}

/// Writes the one error line of a failed invocation, and its bare text on stderr when the log is elsewhere: conmon and
/// the shims show that.
pub fn report(message: &str) {
    if ELSEWHERE.get().is_none() {
        // The failure came before the log was set up, or was that the log could not be.
        let _ = init(&Options::default());
    }
    log::error!("{message}");
    if ELSEWHERE.get() == Some(&true) {
        // There is nowhere left to report that stderr is gone.
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

/// std opens close-on-exec. Append, so that concurrent runtimes write whole lines (env_logger writes a record at once).
fn open(path: &Path) -> Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path).on("open log file", path.display())
}

/// One entry, with its keys in the order in which logrus writes them.
#[derive(Serialize)]
struct Line {
    level: &'static str,
    msg: String,
    time: String,
}

impl Line {
    fn of(record: &Record<'_>) -> Line {
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        Line { level, msg: record.args().to_string(), time: rfc3339(SystemTime::now()) }
    }
}

fn json_line(line: &Line) -> String {
    // A struct of strings has no value that JSON cannot hold.
    let mut json = serde_json::to_string(line).unwrap_or_default();
    json.push('\n');
    json
}

fn text_line(line: &Line) -> String {
    format!("time={} level={} msg={}\n", quoted(&line.time), line.level, quoted(&line.msg))
}

/// A value as logrus writes it: bare when it is one plain word, else quoted with Go's escapes.
fn quoted(value: &str) -> String {
    if value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b)) {
        return value.to_string();
    }
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A point in time in UTC, to the second: `2026-11-21T01:53:35Z`. Times before 1970 are shown as its beginning.
pub fn rfc3339(at: SystemTime) -> String {
    format!("{}Z", seconds(since_epoch(at)))
}

/// As [`rfc3339`], with as many digits of the nanoseconds as are not trailing zeros (Go's RFC3339Nano).
pub fn rfc3339_nanos(at: SystemTime) -> String {
    let at = since_epoch(at);
    let fraction = format!(".{:09}", at.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{}{fraction}Z", seconds(at))
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn seconds(at: Duration) -> String {
    let (days, rest) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of the Gregorian calendar from days since 1970-01-01.
///
/// Counted from 0000-03-01, so that a leap day is the last of its year: an era of 400 years has 146,097 days, and in a
/// year that begins in March, month m begins at day (153 m + 2) / 5.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, after) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + after, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(secs, nanos)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (978_307_199, "2000-12-31T23:59:59Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(at(secs, 0)), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for days in 1..200_000 {
            let (y, m, d) = civil(days);
            let next_day = (last.0, last.1) == (y, m) && d == last.2 + 1;
            let next_month = d == 1 && (last.0 * 12 + last.1 + 1 == y * 12 + m) && last.2 >= 28;
            assert!(next_day || next_month, "{last:?} then {:?}", (y, m, d));
            last = (y, m, d);
        }
        assert_eq!(last, (2517, 7, 31));
    }

    #[test]
    fn nanoseconds_have_no_trailing_zeros() {
        assert_eq!(rfc3339_nanos(at(0, 120_000_000)), "1970-01-01T00:00:00.12Z");
        assert_eq!(rfc3339_nanos(at(0, 1)), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(rfc3339_nanos(at(0, 0)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn lines_look_like_logrus() {
        let line = |msg: &str| Line { level: "error", msg: msg.into(), time: "2026-11-21T01:53:35Z".into() };
        assert_eq!(
            text_line(&line("container \"a\" is\ngone\u{1}")),
            "time=\"2026-11-21T01:53:35Z\" level=error msg=\"container \\\"a\\\" is\\ngone\\x01\"\n"
        );
        assert_eq!(text_line(&line("plain")), "time=\"2026-11-21T01:53:35Z\" level=error msg=plain\n");
        assert_eq!(
            json_line(&line("a \"b\"\n")),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\n\",\"time\":\"2026-11-21T01:53:35Z\"}\n"
        );
    }

    #[test]
    fn other_formats_are_refused_in_runcs_words() {
        assert_eq!(
            format("xml").map_err(|e| e.to_string()),
            Err("invalid log-format: xml; hint: text or json".to_string())
        );
        assert!(matches!((format("json"), format("text"), format("")), (Ok(true), Ok(false), Ok(false))));
    }

    #[test]
    fn targets_are_told_by_their_prefix() {
        let parsed = |value: &str| Sink::parse(OsStr::new(value)).unwrap();
        for (value, sink) in [
            ("", Sink::Stderr),
            ("/a/b:c", Sink::File("/a/b:c".into())),
            ("file:/a/b", Sink::File("/a/b".into())),
            ("journald:web", Sink::Journald("web".into())),
            ("journald:", Sink::Journald("orlop".into())),
            ("syslog:web", Sink::Syslog("web".into())),
        ] {
            assert_eq!(parsed(value), sink, "{value}");
        }
        assert_eq!(parsed("x"), Sink::File(std::env::current_dir().unwrap().join("x")));
    }
}
