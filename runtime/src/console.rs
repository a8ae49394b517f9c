//! Terminals and foreground processes: hands a terminal to the caller's socket, or serves it until the process ends.

use crate::error::{On, Result};
use crate::notify::Relay;
use orlop_sys::poll::{READ, WRITE, poll};
use orlop_sys::process::pidfd_signal;
use orlop_sys::signal::{self, Child, Signals};
use orlop_sys::terminal::{self, RawMode};
use orlop_sys::{Errno, Result as SysResult, socket as sys_socket};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `O_PATH` and `O_DIRECTORY` for an fd that only names a directory.
const PATH_ONLY: i32 = orlop_sys::file::O_PATH | orlop_sys::file::O_DIRECTORY;

/// Sends `fd` under `name` (the path of a pty's slave, or a word such as "pidfd") to a listener on the stream socket
/// `socket`: one message with exactly one fd, as the receivers of --console-socket and --pidfd-socket want it.
pub fn send(socket: &Path, fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    let short = ShortPath::of(socket)?;
    let stream = UnixStream::connect(&short.path).on("connect", socket.display())?;
    sys_socket::send(stream.as_fd(), name.as_bytes(), Some(fd)).on("sendmsg", socket.display())
}

/// Who receives a terminal.
#[derive(Clone, Debug)]
pub enum Socket {
    /// A listener on a stream socket at this path (`--console-socket`).
    Path(PathBuf),
    /// A socket that is connected already.
    Connected(Arc<OwnedFd>),
}

impl Socket {
    /// See [`send`].
    pub fn send(&self, fd: BorrowedFd<'_>, name: &str) -> Result<()> {
        match self {
            Socket::Path(path) => send(path, fd, name),
            Socket::Connected(socket) => {
                sys_socket::send(socket.as_fd(), name.as_bytes(), Some(fd)).on("sendmsg", "the console socket")
            }
        }
    }
}

/// A path that fits into a `sockaddr_un`: a socket in a directory of a long name is reached through an fd of that directory.
pub(crate) struct ShortPath {
    /// What to connect or bind to, as long as this value lives.
    pub(crate) path: PathBuf,
    _directory: Option<File>,
}

impl ShortPath {
    /// `sun_path` has room for this many bytes and a NUL.
    const ROOM: usize = 107;

    pub(crate) fn of(path: &Path) -> Result<ShortPath> {
        if path.as_os_str().len() <= ShortPath::ROOM {
            return Ok(ShortPath { path: path.to_path_buf(), _directory: None });
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory =
            OpenOptions::new().read(true).custom_flags(PATH_ONLY).open(parent).on("open", parent.display())?;
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(ShortPath { path, _directory: Some(directory) })
    }
}

/// The process that a foreground verb waits for; a child of this process.
pub struct Process<'a> {
    /// Its pid here.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: BorrowedFd<'a>,
}

/// Waits for the end of `process` and gives its status as a shell says it, the exit code or 128 + n. Meanwhile every signal
/// of `signals`, which must have been blocked before the process was made, is sent on to it, and its terminal is served. A
/// `subreaper` reaps every orphan that comes to it. `notify` is the listener for the container's sd_notify messages.
pub fn foreground(
    signals: &Signals,
    process: &Process<'_>,
    mut tty: Option<Terminal>,
    subreaper: bool,
    mut notify: Option<Relay>,
) -> Result<u8> {
    let whom = if subreaper { Child::Any } else { Child::Pid(process.pid) };
    // This may last for days, and among them are files of the host that were written to.
    orlop_sys::fds::close_left();
    loop {
        let [master, stdin, stdout] = tty.as_ref().map_or([(None, 0); 3], Terminal::watches);
        let (news, timeout) = notify.as_ref().map_or(((None, 0), -1), Relay::watch);
        let ready =
            poll([(Some(signals.as_fd()), READ), (Some(process.pidfd), READ), news, master, stdin, stdout], timeout);
        let [signalled, ended, news, master, stdin, stdout] = ready.on("poll", "")?;
        if signalled != 0 {
            forward(signals, process, tty.as_ref())?;
        }
        if signalled | ended != 0
            && let Some(status) = reap(whom, process.pid)?
        {
            if let Some(tty) = &mut tty {
                tty.drain(signals)?;
            }
            return Ok(status);
        }
        if let Some(tty) = &mut tty {
            tty.serve(master, stdin, stdout);
        }
        // Its time may be over too, which poll tells by nothing.
        if let Some(relay) = &mut notify
            && (news != 0 || timeout >= 0)
            && relay.advance()?
        {
            notify = None;
        }
    }
}

/// Sends on what has arrived. Not SIGCHLD, which is ours; not SIGURG and SIGPIPE, which tell about our own fds; a SIGWINCH
/// is a new size for the terminal, when there is one.
fn forward(signals: &Signals, process: &Process<'_>, tty: Option<&Terminal>) -> Result<()> {
    while let Some(number) = signals.next().on("read", "signalfd")? {
        match (number, tty) {
            (signal::SIGCHLD | signal::SIGURG | signal::SIGPIPE, _) => {}
            (signal::SIGWINCH, Some(tty)) => tty.resize(),
            _ => match pidfd_signal(process.pidfd, number) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => log::warn!("{}", errno.on("pidfd_send_signal", format!("{number} to {}", process.pid))),
            },
        }
    }
    Ok(())
}

/// Reaps those that have ended up to `pid`, and gives its status when it was among them: orphans that end later are those of whoever
/// gets them from us.
fn reap(whom: Child, pid: i32) -> Result<Option<u8>> {
    loop {
        match signal::reap(whom) {
            Ok(Some((ended, code))) if ended == pid => return Ok(Some(code)),
            Ok(Some((ended, code))) => log::debug!("process {ended} ended with status {code}"),
            Ok(None) => return Ok(None),
            Err(errno) => return Err(errno.on("waitid", pid)),
        }
    }
}

/// A pty between this process's stdio and the container's process.
pub struct Terminal {
    /// `None` when the terminal has been hung up, from either side.
    master: Option<File>,
    stdin: Option<File>,
    stdout: File,
    input: Buffer,
    output: Buffer,
    /// The host's terminal, set back when this is dropped; without one, there is no mode and no size to take over.
    host: Option<RawMode>,
}

impl Terminal {
    /// Takes over the master of a pty, and makes the host's terminal raw until this value is dropped. To be done before the
    /// process runs: what it writes earlier would have its newlines changed, and would be laid out for another size.
    pub fn attach(master: OwnedFd) -> Result<Terminal> {
        terminal::keep_newlines(master.as_fd()).on("tcsetattr", "pty")?;
        terminal::set_nonblocking(master.as_fd()).on("fcntl", "pty")?;
        let tty = Terminal {
            master: Some(File::from(master)),
            stdin: std::io::stdin().as_fd().try_clone_to_owned().ok().map(File::from),
            stdout: std::io::stdout().as_fd().try_clone_to_owned().map(File::from).on("dup", "stdout")?,
            input: Buffer::new(),
            output: Buffer::new(),
            host: host_terminal(),
        };
        tty.resize();
        Ok(tty)
    }

    /// Gives the pty the size of the host's terminal. Fails when either is gone, and then there is nothing to do.
    fn resize(&self) {
        if let (Some(host), Some(master)) = (&self.host, &self.master)
            && let Ok(size) = terminal::size(host.terminal())
        {
            let _ = terminal::set_size(master.as_fd(), size);
        }
    }

    /// What to poll for: master, stdin, stdout. A side is read only when its buffer is empty, so that both stay bounded.
    fn watches(&self) -> [(Option<BorrowedFd<'_>>, i16); 3] {
        let (open, read) = (self.master.is_some(), |buffer: &Buffer| if buffer.is_empty() { READ } else { 0 });
        let write = |buffer: &Buffer| if buffer.is_empty() { 0 } else { WRITE };
        [
            (self.master.as_ref().map(File::as_fd), read(&self.output) | write(&self.input)),
            (self.stdin.as_ref().map(File::as_fd), if open { read(&self.input) } else { 0 }),
            (Some(self.stdout.as_fd()), write(&self.output)),
        ]
    }

    /// Moves what can be moved without waiting.
    fn serve(&mut self, master: i16, stdin: i16, stdout: i16) {
        // The end of stdin is no end for the container: its terminal simply gets no more keys, as under runc.
        if stdin != 0
            && let Some(file) = &self.stdin
            && self.input.fill(file) == Flow::Ended
        {
            self.stdin = None;
        }
        if master & WRITE != 0
            && let Some(file) = &self.master
            && self.input.empty_into(file) == Flow::Ended
        {
            self.master = None;
        }
        if master & READ != 0
            && let Some(file) = &self.master
            && self.output.fill(file) == Flow::Ended
        {
            self.master = None;
        }
        // Nobody reads the output any more: hang up, as the end of a terminal session does.
        if stdout != 0 && self.output.empty_into(&self.stdout) == Flow::Ended {
            self.output.clear();
            self.master = None;
        }
    }

    /// After the end of the process: brings its last output out. The kernel gives what was written before the end without
    /// waiting (reading a pty flushes it), so a grandchild that keeps the terminal open does not hold us up. A reader of
    /// our stdout may be slow; a signal that means to end us does.
    fn drain(&mut self, signals: &Signals) -> Result<()> {
        loop {
            if self.output.is_empty() {
                let more = self.master.as_ref().map(|master| self.output.fill(master));
                if more != Some(Flow::Moved) {
                    return Ok(());
                }
            }
            let watches = [(Some(self.stdout.as_fd()), WRITE), (Some(signals.as_fd()), READ)];
            let [stdout, signalled] = poll(watches, -1).on("poll", "")?;
            if stdout != 0 && self.output.empty_into(&self.stdout) == Flow::Ended {
                return Ok(());
            }
            if signalled != 0 {
                while let Some(number) = signals.next().on("read", "signalfd")? {
                    if matches!(number, signal::SIGHUP | signal::SIGINT | signal::SIGQUIT | signal::SIGTERM) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The host's terminal in raw mode: the first of stderr, stdout and stdin that is one, else the controlling terminal.
fn host_terminal() -> Option<RawMode> {
    let standard = [std::io::stderr().as_fd().try_clone_to_owned(), std::io::stdout().as_fd().try_clone_to_owned()];
    let standard = standard.into_iter().chain([std::io::stdin().as_fd().try_clone_to_owned()]).flatten();
    let controlling = || OpenOptions::new().read(true).write(true).open("/dev/tty").map(OwnedFd::from);
    let raw = |fd| -> SysResult<RawMode> { RawMode::enter(fd) };
    standard.into_iter().find_map(|fd| raw(fd).ok()).or_else(|| controlling().ok().and_then(|fd| raw(fd).ok()))
}

#[derive(PartialEq)]
enum Flow {
    /// Bytes went on.
    Moved,
    /// Nothing can be moved now.
    Waiting,
    /// This side is closed, or broken, which comes to the same.
    Ended,
}

/// Bytes on their way in one direction.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    const SIZE: usize = 16 * 1024;
    /// A pipe that poll calls writable takes this many bytes without waiting (pipe(7), PIPE_BUF).
    const PIECE: usize = 4096;

    fn new() -> Buffer {
        Buffer { bytes: vec![0; Buffer::SIZE].into(), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn fill(&mut self, mut from: &File) -> Flow {
        match from.read(&mut self.bytes) {
            Ok(0) => Flow::Ended,
            Ok(n) => {
                (self.start, self.end) = (0, n);
                Flow::Moved
            }
            Err(e) => waiting(&e),
        }
    }

    fn empty_into(&mut self, mut to: &File) -> Flow {
        let end = self.end.min(self.start + Buffer::PIECE);
        match to.write(self.bytes.get(self.start..end).unwrap_or_default()) {
            Ok(n) => {
                self.start += n;
                Flow::Moved
            }
            Err(e) => waiting(&e),
        }
    }
}

/// EIO is how a pty says that nobody has its slave open.
fn waiting(e: &std::io::Error) -> Flow {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Flow::Waiting,
        _ => Flow::Ended,
    }
}
