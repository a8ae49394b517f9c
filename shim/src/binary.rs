//! Programs outside of this one: a logging program that takes the output of a container (`binary://`), and another runtime
//! (`BinaryName`), driven by runc's command line.

use crate::io::Owner;
use crate::options::Options;
use crate::ready::Ready;
use crate::worker::{Failure, Result, Tools};
use containerd_shim_protos::ttrpc::Code;
use orlop_sys::process::{self, SIGKILL, SIGTERM};
use orlop_sys::{Errno, fds, file, socket, terminal};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a logging program may take to flush what it has.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long it may take to say that it is ready.
const READY: Duration = Duration::from_secs(60);

/// The program of a URI `binary://PATH?ARGUMENT=VALUE&…`.
#[derive(Debug, PartialEq)]
pub struct Uri {
    program: PathBuf,
    args: Vec<String>,
    /// binary-v2: the program must write a byte; with binary, closing its fd is enough.
    must_write: bool,
}

/// The parts of `name`, if it is such a URI.
pub fn uri(name: &str) -> Option<Uri> {
    let (rest, must_write) = match (name.strip_prefix("binary://"), name.strip_prefix("binary-v2://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return None,
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut args = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.extend([decode(key), decode(value)].into_iter().filter(|word| !word.is_empty()));
    }
    Some(Uri { program: PathBuf::from(decode(path)), args, must_write })
}

/// The percent-encoding of URIs, and `+` for a space as in queries (RFC 3986, 2.1).
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                match (hex(ahead.next()), hex(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        bytes = ahead;
                    }
                    _ => out.push(byte),
                }
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A logging program that runs, and the pipes into it.
pub struct Logger {
    /// Its fd 3 reads what is written here.
    pub stdout: OwnedFd,
    /// Its fd 4 reads what is written here.
    pub stderr: OwnedFd,
    pidfd: OwnedFd,
}

/// Starts the logging program and waits until it is ready. Its fds are the interface: 3 and 4 to read from, 5 to say that it is ready.
pub async fn start(uri: &Uri, owner: &Owner<'_>) -> Result<Logger> {
    let name = uri.program.display().to_string();
    let failed = |e: &dyn std::fmt::Display| Failure::internal(&format!("logging program {name}"), e);
    let pipe = || file::pipe().map_err(|e| failed(&e));
    let ((out, stdout), (err, stderr), (ready, done)) = (pipe()?, pipe()?, pipe()?);
    let env = [format!("CONTAINER_ID={}", owner.container), format!("CONTAINER_NAMESPACE={}", owner.namespace)];
    let child = process::fork(|| execute(uri, &env, [out, err, done])).map_err(|e| failed(&e))?;
    terminal::set_nonblocking(ready.as_fd()).map_err(|e| failed(&e))?;
    let ready = Ready::new(ready).map_err(|e| failed(&e))?;
    let said = tokio::time::timeout(READY, async {
        loop {
            ready.readable().await.map_err(|_| Errno::EIO)?;
            match file::read(ready.fd(), &mut [0]) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
    });
    let logger = Logger { stdout, stderr, pidfd: child.pidfd };
    match said.await {
        Ok(Ok(1..)) => Ok(logger),
        Ok(Ok(0)) if !uri.must_write => Ok(logger),
        _ => {
            // It may have ended by itself.
            let _ = process::pidfd_signal(logger.pidfd.as_fd(), SIGKILL);
            Err(failed(&"it has not said that it is ready (fd 5)"))
        }
    }
}

/// In the forked child: the fds take their numbers, all others close, and the program follows.
fn execute(uri: &Uri, env: &[String], fds: [OwnedFd; 3]) -> u8 {
    let run = || -> orlop_sys::Result<()> {
        let mut sources = Vec::new();
        for fd in fds {
            // Not one of the numbers that are about to be replaced.
            let mut fd = std::mem::ManuallyDrop::new(fd);
            while (3..6).contains(&fd.as_raw_fd()) {
                let other = fd.try_clone().map_err(|_| Errno::EMFILE)?;
                fd = std::mem::ManuallyDrop::new(other);
            }
            sources.push(fd);
        }
        for (number, fd) in (3..).zip(&sources) {
            fds::dup_to(fd.as_fd(), number)?;
        }
        fds::close_others(6, [])?;
        process::reset_signals();
        let strings = |list: &mut dyn Iterator<Item = String>| -> orlop_sys::Result<process::Strings> {
            let owned: std::result::Result<Vec<_>, _> = list.map(CString::new).collect();
            owned.map(process::Strings::new).map_err(|_| Errno::EINVAL)
        };
        let program = uri.program.to_string_lossy().into_owned();
        let path = CString::new(program.clone()).map_err(|_| Errno::EINVAL)?;
        let args = strings(&mut std::iter::once(program).chain(uri.args.iter().cloned()))?;
        Err(process::exec(&path, &args, &strings(&mut env.iter().cloned())?))
    };
    // Its closed fd 5 is what tells.
    let _ = run();
    127
}

impl Logger {
    /// The process has ended: what the program has not read yet stays in the pipes until it has, then it sees their end.
    pub async fn end(self) {
        drop((self.stdout, self.stderr));
        let Ok(gone) = Ready::new(self.pidfd) else { return };
        for signal in [SIGTERM, SIGKILL] {
            if tokio::time::timeout(PATIENCE, gone.readable()).await.is_ok() {
                return;
            }
            log::warn!("the logging program has not ended after {PATIENCE:?}: signal {signal}");
            let _ = process::pidfd_signal(gone.fd(), signal);
        }
    }
}

/// Another runtime, by runc's command line. To be used in a worker: it blocks, and it inherits the standard streams.
pub struct Runtime {
    name: String,
    root: PathBuf,
    /// In which its log goes.
    bundle: PathBuf,
    systemd_cgroup: bool,
}

impl Runtime {
    /// The one that the options name.
    pub fn of(options: &Options, namespace: &str, bundle: &Path) -> Option<Runtime> {
        let runtime = Runtime {
            name: options.binary_name.clone(),
            root: options.state_root(namespace),
            bundle: bundle.to_path_buf(),
            systemd_cgroup: options.systemd_cgroup,
        };
        (!runtime.name.is_empty()).then_some(runtime)
    }

    /// Makes a process: `args` and what tells its pid, which is the answer. Its terminal goes to `tools`.
    pub fn make(&self, args: &[&OsStr], pid_file: &Path, id: &str, terminal: bool, tools: &Tools) -> Result<Vec<u8>> {
        // The bundle's path may be longer than the address of a socket.
        const SOCKET: &str = "console.sock";
        let failed = |e: std::io::Error| Failure::internal("console socket", e);
        let mut args = args.to_vec();
        args.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        let listener = if terminal {
            std::env::set_current_dir(&self.bundle).map_err(failed)?;
            let _ = std::fs::remove_file(SOCKET);
            args.extend(["--console-socket", SOCKET].map(OsStr::new));
            Some(UnixListener::bind(SOCKET).map_err(failed)?)
        } else {
            None
        };
        args.push(OsStr::new(id));
        let done = self.run(&args, false);
        let _ = listener.is_some().then(|| std::fs::remove_file(SOCKET));
        done?;
        if let Some(listener) = listener {
            // It has connected and sent before it ended.
            listener.set_nonblocking(true).map_err(failed)?;
            let (stream, _) = listener.accept().map_err(failed)?;
            let (_, master) = socket::recv(stream.as_fd(), &mut [0; 4096]).map_err(|e| failed(e.into()))?;
            let master = master.ok_or_else(|| Failure::internal(&self.name, "it has sent no terminal"))?;
            tools.socket.send(master.as_fd(), "/dev/pts")?;
        }
        std::fs::read(pid_file).map_err(|e| Failure::internal(&format!("read {}", pid_file.display()), e))
    }

    /// Runs it with these arguments, and gives what it writes to stdout when `capture` is set. A failure has the last error of its log.
    #[expect(clippy::disallowed_methods, reason = "the options of the caller name this program")]
    pub fn run(&self, args: &[&OsStr], capture: bool) -> Result<Vec<u8>> {
        process::reset_signals();
        let log = self.bundle.join("log.json");
        let mut command = Command::new(&self.name);
        command.arg("--root").arg(&self.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.args(args).current_dir(&self.bundle);
        let ended = if capture {
            command.stdin(Stdio::null()).stderr(Stdio::null()).output().map(|out| (out.status, out.stdout))
        } else {
            command.status().map(|status| (status, Vec::new()))
        };
        let (status, said) = ended.map_err(|e| Failure::internal(&self.name, e))?;
        if status.success() {
            return Ok(said);
        }
        let why = last_error(&log).unwrap_or_else(|| format!("{}: {status}", self.name));
        let code = match &why {
            why if why.contains("does not exist") || why.contains("not running") => Code::NOT_FOUND,
            _ => Code::UNKNOWN,
        };
        Err(Failure::new(code, why))
    }
}

/// The message of the last line of level error.
fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let error = lines.into_iter().find(|entry| entry.get("level").is_some_and(|level| level == "error"))?;
    error.get("msg")?.as_str().map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_logging_programs() {
        let got = uri("binary:///usr/bin/log?id=a%20b&-v").unwrap();
        assert_eq!(got.program, PathBuf::from("/usr/bin/log"));
        assert_eq!(got.args, ["id", "a b", "-v"]);
        assert!(!got.must_write);
        assert!(uri("binary-v2:///l").unwrap().must_write);
        assert_eq!(uri("/run/fifo"), None);
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
