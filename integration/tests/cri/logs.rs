//! Logs: `<time> <stream> <P or F> <text>`, a line each, partial ones (P) when they are too long for one.

use crate::fixture::{Container, FOREVER, Lab, SOON};
use orlop_integration::wait;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

pub const TESTS: &[crate::Test] =
    crate::tests![lines, long_lines, the_last_line_without_an_end, reopened, in_bulk, of_a_terminal,];

/// Stream, tag and text of every line; the times must be in their order, those of each stream: containerd copies the two by themselves.
fn read(container: &Container<'_>) -> Vec<(String, String, String)> {
    let text = String::from_utf8_lossy(&fs::read(&container.log).unwrap_or_default()).into_owned();
    let mut before = HashMap::new();
    let line = |line: &str| {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        let [time, stream, tag, text] = fields[..] else { panic!("no line of a log: {line:?}") };
        let time = nanoseconds(time);
        if let Some(before) = before.insert(stream.to_owned(), time.clone()) {
            assert!(time >= before, "{before} before {time}");
        }
        (stream.to_owned(), tag.to_owned(), text.to_owned())
    };
    // Without a line that is just being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(line).collect()
}

/// A time as Go writes it, without the zeros at its end, made comparable.
fn nanoseconds(time: &str) -> String {
    let seconds = time.get(..19).filter(|text| text.as_bytes()[10] == b'T');
    let rest = time.get(19..).and_then(|rest| rest.split_once(['Z', '+']));
    let (Some(seconds), Some((fraction, _))) = (seconds, rest) else { panic!("no time: {time}") };
    format!("{seconds}.{:0<9}", fraction.trim_start_matches('.'))
}

fn of(lines: &[(String, String, String)], stream: &str) -> Vec<(String, String)> {
    lines.iter().filter(|line| line.0 == stream).map(|line| (line.1.clone(), line.2.clone())).collect()
}

/// The log when it has so many lines of a container that has ended.
fn all(container: &Container<'_>, lines: usize) -> Vec<(String, String, String)> {
    container.ended();
    wait::until(&format!("{lines} lines"), SOON, || Some(read(container)).filter(|found| found.len() >= lines))
}

/// How long containerd may take to write 30,000 lines: each is a write(2) of its own, which takes most of the time under every shim, and eight
/// seconds of CPU time in user-mode-linux.
const BULK: Duration = Duration::from_secs(180);

fn full(text: &str) -> (String, String) {
    ("F".to_owned(), text.to_owned())
}

fn lines(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run("echo one; echo err >&2; echo; echo '  three'");
    let log = all(&container, 4);
    assert_eq!(of(&log, "stdout"), [full("one"), full(""), full("  three")]);
    assert_eq!(of(&log, "stderr"), [full("err")]);
}

fn long_lines(lab: &Lab) {
    let pod = lab.pod();
    // 40,000 bytes and an end; containerd cuts after 16 KiB.
    let container = pod.run("head -c 40000 /dev/zero | tr '\\0' x; echo; echo short");
    let log = all(&container, 4);
    let parts: Vec<(String, usize)> = of(&log, "stdout").iter().map(|(tag, text)| (tag.clone(), text.len())).collect();
    let expected = [("P", 16384), ("P", 16384), ("F", 40000 - 2 * 16384), ("F", 5)];
    assert_eq!(parts, expected.map(|(tag, length)| (tag.to_owned(), length)));
}

fn the_last_line_without_an_end(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run("echo one; printf two");
    let log = all(&container, 2);
    assert_eq!(of(&log, "stdout")[1].1, "two");
}

fn reopened(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run("trap 'echo after; exit 0' TERM; echo before; while :; do sleep 1000 & wait; done");
    wait::until("the first line", SOON, || container.output().contains("before").then_some(()));
    let old = container.log.with_extension("log.1");
    fs::rename(&container.log, &old).expect("rename");
    lab.cri.reopen_container_log(container.this()).expect("ReopenContainerLog");
    assert!(container.log.exists(), "there is no new file");
    container.stop(30).expect("StopContainer");
    wait::until("the second line", SOON, || (container.output() == "after").then_some(()));
    assert!(fs::read_to_string(old).expect("the old log").ends_with("stdout F before\n"));
}

/// No line is lost. The container goes on until all of them are there: containerd 1.6 closes the log at the end of a container,
/// of which the shim tells when all was read, unless that takes longer than a second.
fn in_bulk(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(&format!("seq 1 30000; {FOREVER}"));
    let last = || {
        let mut log = fs::File::open(&container.log).ok()?;
        let mut end = [0; 16];
        log.seek(SeekFrom::End(-(end.len() as i64))).ok()?;
        log.read_exact(&mut end).ok()?;
        end.ends_with(b" 30000\n").then_some(())
    };
    wait::until("the last line", BULK, last);
    let log = read(&container);
    let numbers = of(&log, "stdout");
    assert!(numbers.iter().enumerate().all(|(n, (_, text))| *text == (n + 1).to_string()), "out of order");
    assert_eq!(numbers.len(), 30000);
}

fn of_a_terminal(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with("echo out; echo err >&2; test -t 1 && echo terminal", |config| config.tty = true);
    let log = all(&container, 3);
    let texts: Vec<&str> = log.iter().map(|(_, _, text)| text.trim_end()).collect();
    assert_eq!(texts, ["out", "err", "terminal"]);
}
