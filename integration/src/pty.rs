//! A program on a terminal of its own, driven as a person would.

use crate::docker;
use crate::wait::SOON;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SIZED: &str = "sized so";

/// A running program whose controlling terminal this process holds the other end of.
#[derive(Debug)]
pub struct Pty {
    line: String,
    master: File,
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    seen: usize,
}

impl Pty {
    /// Starts the command in a new session on a new terminal of this size.
    pub fn spawn(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("posix_openpt");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlockpt");
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("TIOCGPTPEER");
        set_size(&master, rows, columns);
        let master = File::from(master);
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut session = in_session(command);
        let copy = |fd: &std::os::fd::OwnedFd| fd.try_clone().expect("dup");
        session.stdin(copy(&slave)).stdout(copy(&slave)).stderr(slave);
        let child = session.spawn().unwrap_or_else(|e| panic!("{session:?}: {e}"));
        let (mut reader, sink) = (master.try_clone().expect("dup"), Arc::clone(&output));
        std::thread::spawn(move || collect(&mut reader, &sink));
        Self { line: format!("{command:?}"), master, child, output, seen: 0 }
    }

    /// Types a text.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Waits until the text appears behind what was expected before, and gives all up to its end.
    pub fn expect(&mut self, text: &str) -> String {
        self.expect_while(text, |_| ())
    }

    /// The same, and does something for it each time that it is not there yet: a hundred times a second.
    fn expect_while(&mut self, text: &str, mut again: impl FnMut(&Self)) -> String {
        let end = Instant::now() + SOON;
        loop {
            let rest = self.rest();
            if let Some(at) = rest.find(text) {
                self.seen += at + text.len();
                return rest[..at + text.len()].to_owned();
            }
            assert!(Instant::now() < end, "not within {SOON:?}: {text:?} from {}; it wrote {rest:?}", self.line);
            again(self);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything written behind what was expected before.
    pub fn rest(&self) -> String {
        let output = self.output.lock().expect("the reader does not panic");
        String::from_utf8_lossy(&output[self.seen..]).into_owned()
    }

    /// Every byte written to the terminal so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.output.lock().expect("the reader does not panic").clone()
    }

    /// Has the shell on the terminal of a container wait for this size: a client sets it some time after the start.
    pub fn sized(&mut self, rows: u16, columns: u16) {
        self.await_size(rows, columns);
        self.expect(SIZED);
    }

    /// Changes the terminal's size, and has the shell wait for it. A client may listen for changes only some time after it has set the first
    /// size, and miss one; the kernel tells of a change alone, and of no size that is the old one.
    pub fn resized(&mut self, rows: u16, columns: u16) {
        self.await_size(rows, columns);
        let mut told = None;
        self.expect_while(SIZED, |pty| {
            if told.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(2)) {
                set_size(&pty.master, rows, columns + 1);
                set_size(&pty.master, rows, columns);
                told = Some(Instant::now());
            }
        });
    }

    /// The terminal's echo of the line has the words apart.
    fn await_size(&mut self, rows: u16, columns: u16) {
        let (is, so) = SIZED.split_once(' ').expect("two words");
        self.send(&format!(
            "until test \"$(stty size)\" = '{rows} {columns}'; do sleep 0.1; done 2>/dev/null; echo {is}' '{so}\n"
        ));
    }

    /// Waits for the program's end and gives its exit status.
    pub fn wait(&mut self) -> i32 {
        docker::wait(&self.line, &mut self.child).code().unwrap_or(-1)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// setsid(1) makes the terminal the controlling one before the program runs, which SIGWINCH and Ctrl-C need.
fn in_session(command: &Command) -> Command {
    let mut session = crate::programs::command("setsid");
    session.arg("--ctty").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => session.env(key, value),
            None => session.env_remove(key),
        };
    }
    session.env("TERM", "xterm");
    session
}

fn set_size(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("TIOCSWINSZ");
}

/// Ends with EIO once the last process has closed the terminal.
fn collect(master: &mut File, sink: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        sink.lock().expect("no holder panics").extend_from_slice(&buffer[..n]);
    }
}
