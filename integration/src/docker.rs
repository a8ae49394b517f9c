//! The Docker command line client, with a time limit and an account of what it said.

use crate::programs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// How long one command may take: fifty `docker run` at once take most of a minute each on two busy processors, and minutes on one that is emulated.
const LIMIT: Duration = Duration::from_secs(600);

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Docker {
    /// The daemon's unix socket.
    pub socket: PathBuf,
    /// A directory that stands in for the user's `~/.docker`.
    pub config: PathBuf,
    /// Put behind `run` and `create`: the `--runtime` flag of the tests that name it.
    pub create_flags: Vec<String>,
    /// Put on every container, network and volume, so that a test finds its own again.
    pub label: String,
}

/// What one command did.
#[derive(Debug)]
pub struct Output {
    /// The command as written in the test.
    pub line: String,
    /// Its exit status; -1 when a signal ended it.
    pub status: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without white space at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts the exit status.
    pub fn exits(self, status: i32) -> Self {
        let head: String = self.text().chars().take(2000).collect();
        assert_eq!(self.status, status, "exit status of: {}\nstdout: {head}\nstderr: {}", self.line, self.error());
        self
    }
}

impl Docker {
    /// The command for a line as one would type it behind `docker `; `'…'` and `"…"` keep words together, literally.
    pub fn command(&self, line: &str) -> Command {
        let mut words = words(line).into_iter();
        let mut command = programs::command("docker");
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_BUILDKIT", "0");
        command.env("DOCKER_CONFIG", &self.config).arg("-H").arg(format!("unix://{}", self.socket.display()));
        let verb: Vec<String> = words
            .by_ref()
            .take(if line.starts_with("network ") || line.starts_with("volume ") { 2 } else { 1 })
            .collect();
        command.args(&verb);
        if verb == ["run"] || verb == ["create"] {
            command.args(&self.create_flags);
        }
        if verb.last().is_some_and(|v| v == "run" || v == "create") {
            command.arg("--label").arg(&self.label);
        }
        command.args(words);
        command
    }

    /// Runs a line to its end, with nothing on its standard input.
    ///
    /// # Panics
    /// When it takes longer than ten minutes.
    pub fn run(&self, line: &str) -> Output {
        self.run_with_input(line, None)
    }

    /// Runs a line with these bytes, and then the end of the file, on its standard input.
    pub fn run_with_input(&self, line: &str, input: Option<&[u8]>) -> Output {
        let mut command = self.command(line);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        finish(line, child, input)
    }
}

/// Waits for a client's end, and gives what it said.
pub fn finish(line: &str, mut child: Child, input: Option<&[u8]>) -> Output {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // On their own: when the client is killed because it hangs, something that it started may keep the pipes open.
    let (out, err) = (thread::spawn(|| drain(stdout)), thread::spawn(|| drain(stderr)));
    let input = input.map(<[u8]>::to_vec);
    thread::spawn(move || {
        if let (Some(mut pipe), Some(bytes)) = (stdin, input) {
            // A client that ends early closes the pipe: the test judges that by its exit status.
            let _ = pipe.write_all(&bytes);
        }
    });
    let status = wait(line, &mut child).code().unwrap_or(-1);
    Output {
        line: line.to_owned(),
        status,
        stdout: out.join().unwrap_or_default(),
        stderr: err.join().unwrap_or_default(),
    }
}

fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// Waits for a client of the test; kills it and panics when it takes longer than ten minutes. Asleep, not by looking again and again: fifty
/// that look would take the processor from the fifty that they wait for.
pub fn wait(line: &str, child: &mut Child) -> std::process::ExitStatus {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd_open");
    let limit = Timespec::try_from(LIMIT).expect("fits");
    let ended = retry_on_intr(|| poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit))).expect("poll") == 1;
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().expect("a child of ours");
    assert!(ended, "not within {LIMIT:?}: {line}");
    status
}

/// Splits a line at white space; a quoted part, single or double, is taken literally.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), _) if q == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "an open quote in: {line}");
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("run  sh -c 'echo \"a  b\"' ''"), ["run", "sh", "-c", "echo \"a  b\"", ""]);
        assert_eq!(words("a\"b c\"d"), ["ab cd"]);
    }
}
