//! Runtime code runs in a forked copy of this process, never in the daemon itself: it may block, it changes its namespaces and working
//! directory, and the container inherits its standard streams. A fork of so small a process costs less than a fifth of starting a program.

use crate::ready::Ready;
use crate::reaper::{Reaper, Watch, Working};
use containerd_shim_protos::ttrpc::{self, Code};
use orlop::console::Socket;
use orlop::error::{Error, Kind};
use orlop_sys::{fds, file, process, socket, terminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

/// What went wrong, for containerd.
#[derive(Debug)]
pub struct Failure {
    /// What callers tell failures apart by.
    pub code: Code,
    /// What people read; engines look for certain words in it.
    pub message: String,
}

/// The result of everything that containerd asks for.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of this code.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// A failure of the daemon itself.
    pub fn internal(what: &str, why: impl std::fmt::Display) -> Failure {
        Failure::new(Code::UNKNOWN, format!("{what}: {why}"))
    }

    /// Puts what was tried in front.
    pub fn during(mut self, what: &str) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let code = match e.kind() {
            Kind::Invalid => Code::INVALID_ARGUMENT,
            Kind::NotFound => Code::NOT_FOUND,
            Kind::Exists => Code::ALREADY_EXISTS,
            Kind::State | Kind::Busy => Code::FAILED_PRECONDITION,
            _ => Code::UNKNOWN,
        };
        Failure::new(code, e.to_string())
    }
}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> ttrpc::Error {
        ttrpc::Error::RpcStatus(ttrpc::get_status(failure.code, failure.message))
    }
}

/// What a worker has to work with.
pub struct Job {
    /// What its standard streams become; all three are the null device without it.
    pub stdio: Option<[OwnedFd; 3]>,
}

/// What a worker brought back.
pub struct Done {
    /// The bytes that its closure gave.
    pub answer: Vec<u8>,
    /// The master of a terminal, when one was sent to [`Tools::socket`].
    pub console: Option<OwnedFd>,
    /// As long as it is kept, a process that the worker has made is not reaped as an orphan.
    _working: Working,
}

/// What the closure of a worker gets.
pub struct Tools {
    /// Receives the terminal of a new process, and a pidfd of it.
    pub socket: Socket,
}

/// The first byte of a frame: an answer, a part of one that is too long for one frame, a failure (followed by its code), the name of a terminal, a path, with the master, or `pidfd`
/// with that.
const ANSWER: u8 = b'=';
const PART: u8 = b'+';
const FAILURE: u8 = b'!';
const CONSOLE: u8 = b'/';
const PIDFD: u8 = b'p';
/// No frame is longer: errors hold a path or two. The list of the pids of very many processes comes in parts.
const MOST: usize = 64 * 1024;

/// The log's, open in every worker too.
static LOG: OnceLock<RawFd> = OnceLock::new();

/// Keeps the log open in workers: their stderr is a container's. Done once.
pub fn keep_log(fd: RawFd) {
    let _ = LOG.set(fd);
}

/// The code of a worker that has ended without an answer: nobody has cleaned up after it.
pub const LOST: Code = Code::ABORTED;

/// Runs `f` in a forked worker and waits until that has ended.
pub async fn run<F>(reaper: &Arc<Reaper>, job: Job, f: F) -> Result<Done>
where
    F: FnOnce(&Tools) -> Result<Vec<u8>>,
{
    if cfg!(fuzzing) {
        return Err(Failure::internal("fuzzing", "no worker"));
    }
    let working = reaper.worker();
    let (child, ours) = spawn(job, f).map_err(|e| Failure::internal("cannot start a worker", e))?;
    let done = collect(ours).await;
    // Its children come to us when it has gone, not before.
    let gone = Ready::new(child.pidfd).map_err(|e| Failure::internal("epoll", e))?;
    let _ = gone.readable().await;
    let ended = process::wait(gone.fd(), true);
    let (answer, console) = done?.ok_or_else(|| Failure::new(LOST, lost(ended)))?;
    Ok(Done { answer, console, _working: working })
}

fn lost(ended: orlop_sys::Result<Option<process::Exit>>) -> String {
    let how = match ended {
        Ok(Some(process::Exit::Signal(signal))) => format!("was killed by signal {signal}"),
        Ok(Some(process::Exit::Status(status))) => format!("exited with status {status}"),
        Ok(None) | Err(_) => "is gone".to_owned(),
    };
    format!("the process that worked on it {how} without an answer")
}

impl Done {
    /// The process whose pid is the answer, from now on watched.
    pub fn process(&self, reaper: &Arc<Reaper>) -> Result<(i32, Watch)> {
        let text = String::from_utf8_lossy(&self.answer);
        let pid = text.trim().parse().map_err(|e| Failure::internal(&format!("pid {text:?}"), e))?;
        let watch = reaper.watch(pid).map_err(|e| Failure::internal("pidfd_open", e))?;
        Ok((pid, watch))
    }
}

/// Not async: nothing of the closure may be kept across an await.
fn spawn<F>(job: Job, f: F) -> orlop_sys::Result<(process::Child, OwnedFd)>
where
    F: FnOnce(&Tools) -> Result<Vec<u8>>,
{
    let (ours, theirs) = socket::pair()?;
    terminal::set_nonblocking(ours.as_fd())?;
    let daemon = std::process::id();
    // One that outlived us would go on with a container that containerd has cleaned up after in the meantime.
    let child = process::fork(|| process::end_with(daemon).map_or(1, |()| work(job, theirs, f)))?;
    Ok((child, ours))
}

fn work<F>(job: Job, socket: OwnedFd, f: F) -> u8
where
    F: FnOnce(&Tools) -> Result<Vec<u8>>,
{
    let socket = Arc::new(socket);
    let answer = match prepare(job, &socket) {
        Ok(()) => f(&Tools { socket: Socket::Connected(socket.clone()) }),
        Err(e) => Err(Failure::internal("cannot prepare a worker", e)),
    };
    let send = |frame: &[u8]| socket::send(socket.as_fd(), frame, None);
    let sent = match answer {
        Ok(bytes) => {
            let mut parts = bytes.chunks(MOST - 1).peekable();
            let mut sent = if bytes.is_empty() { send(&[ANSWER]) } else { Ok(()) };
            while let (Some(part), Ok(())) = (parts.next(), sent) {
                let kind = if parts.peek().is_some() { PART } else { ANSWER };
                sent = send(&[&[kind], part].concat());
            }
            sent
        }
        Err(failure) => {
            let mut frame = [&[FAILURE, failure.code as u8], failure.message.as_bytes()].concat();
            frame.truncate(MOST);
            send(&frame)
        }
    };
    // Without its reader there is nobody to tell.
    u8::from(sent.is_err())
}

/// The standard streams take their places, and all else of the daemon's goes.
fn prepare(job: Job, socket: &OwnedFd) -> orlop_sys::Result<()> {
    let null = file::open(c"/dev/null", file::O_RDWR, 0)?;
    for (place, number) in (0..3).zip(0usize..) {
        let stream = job.stdio.as_ref().and_then(|stdio| stdio.get(number)).unwrap_or(&null);
        fds::dup_to_stdio(stream.as_fd(), place)?;
    }
    let socket = socket.as_raw_fd();
    fds::close_others(3, [socket, LOG.get().copied().unwrap_or(-1)])?;
    // Closed already, by number.
    std::mem::forget((null, job));
    Ok(())
}

/// Reads frames until the worker has gone. `None`: it went without an answer.
async fn collect(socket: OwnedFd) -> Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let lost = |e: &dyn std::fmt::Display| Failure::internal("the worker's socket", e);
    let socket = Ready::new(socket).map_err(|e| lost(&e))?;
    let (mut console, mut made) = (None, None::<OwnedFd>);
    let (mut buffer, mut answer) = (vec![0; MOST], Vec::new());
    loop {
        socket.readable().await.map_err(|e| lost(&e))?;
        let (n, fd) = match socket::recv(socket.fd(), &mut buffer) {
            Err(orlop_sys::Errno::EAGAIN) => continue,
            other => other.map_err(|e| lost(&e))?,
        };
        match buffer.get(..n).unwrap_or_default() {
            [kind @ (PART | ANSWER), part @ ..] => {
                answer.extend_from_slice(part);
                if *kind == ANSWER {
                    return Ok(Some((answer, console)));
                }
            }
            [FAILURE, code, message @ ..] => {
                let code = code_of(*code);
                return Err(Failure::new(code, String::from_utf8_lossy(message)));
            }
            [CONSOLE, ..] => console = fd,
            [PIDFD, ..] => made = fd,
            _ => {
                // The process that it has made would run, and nobody would know of it.
                if let Some(made) = made {
                    let _ = process::pidfd_signal(made.as_fd(), process::SIGKILL);
                }
                return Ok(None);
            }
        }
    }
}

fn code_of(number: u8) -> Code {
    [Code::INVALID_ARGUMENT, Code::NOT_FOUND, Code::ALREADY_EXISTS, Code::FAILED_PRECONDITION, Code::UNIMPLEMENTED]
        .into_iter()
        .find(|code| *code as u8 == number)
        .unwrap_or(Code::UNKNOWN)
}
