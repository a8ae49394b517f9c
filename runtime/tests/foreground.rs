//! `console::foreground` against real processes and terminals.
//!
//! Signals and children belong to a whole process, so every case runs in a process of its own with one thread: this program
//! again, as `serve`, which does what `run` and `exec` do in the foreground.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the processes under test are ordinary programs")]

use orlop::console::{Process, Terminal, foreground};
use orlop_sys::process::Strings;
use orlop_sys::signal::Signals;
use orlop_sys::terminal::{self, Size};
use orlop_sys::{fds, file, process};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, verb, modes, script] = args.as_slice()
        && verb == "serve"
    {
        return ExitCode::from(serve(modes, script));
    }
    let wanted = args.get(1).filter(|word| !word.starts_with('-'));
    let mut passed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| wanted.is_none_or(|w| name.contains(w.as_str()))) {
        let begin = Instant::now();
        case();
        eprintln!("test {name} ... ok ({:.1} s)", begin.elapsed().as_secs_f32());
        passed += 1;
    }
    eprintln!("test result: ok. {passed} passed; 0 failed");
    ExitCode::SUCCESS
}

const CASES: &[(&str, fn())] = &[
    ("status_is_the_shells", status_is_the_shells),
    ("signals_are_sent_on", signals_are_sent_on),
    ("an_ignored_sigchld_loses_no_status", an_ignored_sigchld_loses_no_status),
    ("a_subreaper_reaps_orphans", a_subreaper_reaps_orphans),
    ("newlines_stay_newlines", newlines_stay_newlines),
    ("no_output_is_lost", no_output_is_lost),
    ("input_reaches_the_process", input_reaches_the_process),
    ("the_end_of_stdin_ends_nothing", the_end_of_stdin_ends_nothing),
    ("a_grandchild_with_the_terminal_holds_nobody_up", a_grandchild_with_the_terminal_holds_nobody_up),
    ("a_gone_reader_hangs_up", a_gone_reader_hangs_up),
    ("waiting_for_a_slow_side_costs_no_cpu", waiting_for_a_slow_side_costs_no_cpu),
    ("the_hosts_terminal_is_raw_and_set_back", the_hosts_terminal_is_raw_and_set_back),
];

/// `modes`: t = with a terminal, c = as controlling terminal, r = subreaper.
fn serve(modes: &str, script: &str) -> u8 {
    let has = |mode| modes.contains(mode);
    if has('r') {
        process::set_subreaper().unwrap();
    }
    let signals = Signals::block().unwrap();
    let (tty, slave) = match has('t').then(pty) {
        Some((master, slave)) => (Some(Terminal::attach(master).unwrap()), Some(slave)),
        None => (None, None),
    };
    let words: &[&str] =
        if has('c') { &["setsid", "--ctty", "sh", "-c", script] } else { &["setsid", "sh", "-c", script] };
    let strings = |words: &[&str]| Strings::new(words.iter().map(|word| CString::new(*word).unwrap()).collect());
    let (args, env) = (strings(words), strings(&["PATH=/usr/bin:/bin"]));
    let child = process::clone3(0, None, || {
        for number in 0..3 {
            if slave.as_ref().is_some_and(|slave| fds::dup_to_stdio(slave.as_fd(), number).is_err()) {
                return 1;
            }
        }
        process::reset_signals();
        process::exec(c"/usr/bin/setsid", &args, &env);
        1
    })
    .unwrap();
    // Open here, the slave's end would never come.
    drop(slave);
    foreground(&signals, &Process { pid: child.pid, pidfd: child.pidfd.as_fd() }, tty, has('r'), None).unwrap()
}

fn pty() -> (OwnedFd, OwnedFd) {
    let dev = file::open(c"/dev", file::O_DIRECTORY, 0).unwrap();
    let master = terminal::open_master(dev.as_fd(), c"ptmx").unwrap();
    terminal::unlock(master.as_fd()).unwrap();
    let slave = terminal::peer(master.as_fd()).unwrap();
    (master, slave)
}

fn server(modes: &str, script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["serve", modes, script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

struct Served {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Served {
    fn start(mut command: Command) -> Served {
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Served { child, input, output }
    }

    /// What comes next, or nothing at the end of the output; something must come within 10 seconds.
    fn piece(&mut self) -> Vec<u8> {
        assert!(ready(&self.output, 10), "neither output nor an end");
        let mut piece = vec![0; 65_536];
        let n = self.output.read(&mut piece).unwrap();
        piece.truncate(n);
        piece
    }

    fn read_until(&mut self, word: &str) {
        let mut seen = String::new();
        while !seen.contains(word) {
            let piece = self.piece();
            assert!(!piece.is_empty(), "{word:?} never came: {seen:?}");
            seen.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    fn signal(&self, number: i32) {
        let pidfd = process::pidfd_open(i32::try_from(self.child.id()).unwrap()).unwrap();
        process::pidfd_signal(pidfd.as_fd(), number).unwrap();
    }

    /// The rest of the output and the status.
    fn end(mut self) -> (String, i32) {
        let mut rest = Vec::new();
        loop {
            match self.piece() {
                piece if piece.is_empty() => break,
                piece => rest.extend(piece),
            }
        }
        (String::from_utf8(rest).unwrap(), self.status())
    }

    /// The status, which must come within 10 seconds.
    fn status(&mut self) -> i32 {
        let watch = process::pidfd_open(i32::try_from(self.child.id()).unwrap()).unwrap();
        assert!(ready(&watch, 10), "still running");
        self.child.wait().unwrap().code().unwrap()
    }
}

/// A failed case leaves nothing behind.
impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn ready(fd: &impl AsFd, seconds: i32) -> bool {
    let watch = (Some(fd.as_fd()), orlop_sys::poll::READ);
    orlop_sys::poll::poll([watch], seconds * 1000).unwrap() != [0]
}

fn outcome(modes: &str, script: &str) -> (String, i32) {
    Served::start(server(modes, script)).end()
}

fn status_is_the_shells() {
    assert_eq!(outcome("", "echo hi; exit 7"), ("hi\n".into(), 7));
    assert_eq!(outcome("", "kill -9 $$"), (String::new(), 137));
    assert_eq!(outcome("tc", "exit 255"), (String::new(), 255));
}

fn signals_are_sent_on() {
    let script = "trap 'exit 42' USR1; trap 'exit 43' WINCH; echo up; while :; do sleep 0.05; done";
    // SIGCHLD, SIGURG and SIGPIPE are the runtime's own; the others end the script in a way of their own.
    for (number, status) in [(10, 42), (28, 43), (15, 143), (1, 129), (34, 162)] {
        let mut served = Served::start(server("", script));
        served.read_until("up");
        for own in [13, 17, 23] {
            served.signal(own);
        }
        served.signal(number);
        assert_eq!(served.end().1, status, "signal {number}");
    }
}

fn an_ignored_sigchld_loses_no_status() {
    let mut command = Command::new("env");
    command.arg("--ignore-signal=CHLD").arg(std::env::current_exe().unwrap()).args(["serve", "", "exit 9"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    assert_eq!(Served::start(command).end().1, 9);
}

fn a_subreaper_reaps_orphans() {
    let script = "(sleep 0.1 &); sleep 0.5; ps -o stat= --ppid $PPID | grep -c Z";
    assert_eq!(outcome("r", script).0, "0\n");
    assert_eq!(outcome("r", "(sleep 0.1 &); sleep 0.3; exit 5").1, 5);
}

fn newlines_stay_newlines() {
    assert_eq!(outcome("tc", "echo hi; tty >/dev/null && echo tty"), ("hi\ntty\n".into(), 0));
}

fn no_output_is_lost() {
    let all: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    for modes in ["tc", "t"] {
        for slow in [false, true] {
            let served = Served::start(server(modes, "seq 1 100000"));
            if slow {
                // Everything between fills up, and the process is blocked, before the first byte is read.
                std::thread::sleep(Duration::from_millis(300));
            }
            let (output, status) = served.end();
            assert_eq!((output.len(), status), (all.len(), 0));
            assert!(output == all);
        }
    }
    // Little output and an immediate end: the kernel has it in its buffers when the process is gone.
    for _ in 0..50 {
        assert_eq!(outcome("tc", "printf last"), ("last".into(), 0));
    }
}

fn input_reaches_the_process() {
    let mut served = Served::start(server("tc", "stty -echo; echo up; read x; echo \"got $x\""));
    served.read_until("up\n");
    served.input.as_mut().unwrap().write_all(b"some words\n").unwrap();
    assert_eq!(served.end(), ("got some words\n".into(), 0));
}

fn the_end_of_stdin_ends_nothing() {
    let mut served = Served::start(server("tc", "sleep 0.4; echo late"));
    served.input = None;
    assert_eq!(served.end(), ("late\n".into(), 0));
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" serve tc 'sleep 0.2; echo late' <&-"]).arg(std::env::current_exe().unwrap());
    closed.stdout(Stdio::piped());
    assert_eq!(Served::start(closed).end(), ("late\n".into(), 0));
}

fn a_grandchild_with_the_terminal_holds_nobody_up() {
    for modes in ["t", "tc"] {
        let begin = Instant::now();
        // What remains must not keep the pipe of the test open: it has only the pty.
        assert_eq!(outcome(modes, "trap '' HUP; sleep 60 & echo done; exit 3"), ("done\n".into(), 3));
        assert!(begin.elapsed() < Duration::from_secs(30), "{modes}");
    }
}

fn a_gone_reader_hangs_up() {
    let mut served = Served::start(server("tc", "while :; do echo x; done"));
    served.read_until("x");
    // Puts the end of another pipe, which is dropped, in the place of the reader.
    let (other, _) = file::pipe().unwrap();
    served.output = ChildStdout::from(other);
    assert_eq!(served.status(), 129);
}

fn waiting_for_a_slow_side_costs_no_cpu() {
    // stdin hung up with more in it than the process takes, the output full: nothing may be polled that is ready for ever.
    let mut served = Served::start(server("tc", "stty raw -echo; echo up; seq 1 100000; dd bs=1k >/dev/null 2>&1"));
    served.read_until("up");
    served.input.take().unwrap().write_all(&[b'x'; 60_000]).unwrap();
    let pid = served.child.id();
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // Until all that fits has been brought through.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = 0;
    while before != ticks() && Instant::now() < deadline {
        before = ticks();
        std::thread::sleep(Duration::from_millis(300));
    }
    std::thread::sleep(Duration::from_millis(800));
    assert!(ticks() - before <= 2, "{} ticks of CPU while waiting", ticks() - before);
    served.signal(1);
    assert_eq!(served.end().1, 129);
}

fn the_hosts_terminal_is_raw_and_set_back() {
    let (master, slave) = pty();
    let size = |rows, columns| terminal::set_size(master.as_fd(), Size { rows, columns }).unwrap();
    size(33, 77);
    let path = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
    let modes = || {
        let output = Command::new("stty").arg("-F").arg(&path).arg("-a").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = modes();
    assert!(before.contains(" icanon") && before.contains(" echo "), "{before}");
    let script = "stty size; read x; stty size; echo $x; trap 'exit 4' INT; echo go; while :; do sleep 0.05; done";
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(std::env::current_exe().unwrap()).args(["serve", "tc", script]);
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut screen = File::from(master.try_clone().unwrap());
    let mut seen = String::new();
    let mut read_until = |word: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !seen.contains(word) {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let watch = (Some(master.as_fd()), orlop_sys::poll::READ);
            assert_ne!(
                orlop_sys::poll::poll([watch], i32::try_from(left).unwrap()).unwrap(),
                [0],
                "no {word:?} in {seen:?}"
            );
            let mut piece = [0; 256];
            let n = screen.read(&mut piece).unwrap();
            seen.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    };
    read_until("33 77\r\n");
    let during = modes();
    assert!(during.contains("-icanon") && during.contains("-echo ") && during.contains("-isig"), "{during}");
    size(11, 22);
    // The new size travels as a signal; give it its time before the script asks.
    std::thread::sleep(Duration::from_millis(200));
    let mut keys = File::from(master.try_clone().unwrap());
    keys.write_all(b"words\r").unwrap();
    read_until("11 22\r\n");
    read_until("go");
    // Ctrl-C is a key of the container's terminal, not of the host's.
    keys.write_all(&[3]).unwrap();
    let watch = process::pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
    assert!(ready(&watch, 10));
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let line = |modes: &str| modes.lines().skip(1).map(String::from).collect::<Vec<_>>();
    assert_eq!(line(&modes()), line(&before));
}
