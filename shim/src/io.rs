//! Standard streams: what containerd names (fifos, files, a logging program) on the one side, pipes or a terminal of the process on the other.
//!
//! The process gets pipes and never containerd's own fifos: so it cannot read what it has written, and whoever restarts containerd
//! does not end it with SIGPIPE. Bytes move by splice(2) and are not copied. When a process has ended, all that it wrote is brought out, and
//! then the fifo is closed, although a grandchild may keep the pipe open: a client waits for that end.

use crate::binary;
use crate::ready::{Ready, now};
use crate::worker::{Failure, Result};
use orlop_sys::terminal::{self, Size};
use orlop_sys::{Errno, file, poll};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// As much as a pipe holds by default (pipe(7)).
const PIECE: usize = 64 * 1024;
/// How long the readers of a process that has ended may take to read what it wrote.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long containerd is not told of an end, because what was written is still to be read.
const UNREAD: Duration = Duration::from_secs(1);

/// The names that containerd gives; empty: the null device.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// A fifo.
    pub stdin: String,
    /// A fifo, or a URI: file://, binary://, binary-v2://.
    pub stdout: String,
    /// A fifo; empty with a terminal.
    pub stderr: String,
    /// The process has a terminal.
    pub terminal: bool,
}

/// The streams of a process.
pub struct Streams {
    names: Names,
    /// What the process gets, until it has been started.
    given: Option<[OwnedFd; 3]>,
    /// Pipes whose other ends the process has: (from, to).
    pipes: Vec<(OwnedFd, Sink)>,
    /// Where the process's input goes in, and whence.
    input: Option<(OwnedFd, OwnedFd)>,
    /// Our own writer on the stdin fifo: without it, a client that goes away would be the end of the input.
    stdin_open: Option<OwnedFd>,
    console: Option<Arc<Ready<OwnedFd>>>,
    /// Tells the pumps that the process has ended.
    ended: watch::Sender<bool>,
    pumps: Vec<JoinHandle<()>>,
    unread: Unread,
    /// Ends when every pump has given up its [`Unread`].
    read: Option<mpsc::Receiver<()>>,
    feeder: Option<JoinHandle<()>>,
    logger: Option<binary::Logger>,
}

/// What a pump holds as long as somebody has something to read.
type Unread = mpsc::Sender<()>;

/// Where output goes.
enum Sink {
    /// Its path, checked to be one.
    Fifo(CString),
    /// Several streams may share a file.
    File(Arc<OwnedFd>),
}

/// Who the pipes belong to, and whom a logging program is told of.
pub struct Owner<'a> {
    /// Uid and gid of the pipes.
    pub ids: (u32, u32),
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The container's id.
    pub container: &'a str,
}

impl Streams {
    /// Opens what containerd names and makes the pipes. With a terminal, they come with it later ([`Streams::attach`]).
    pub async fn open(names: &Names, owner: &Owner<'_>) -> Result<Streams> {
        let (unread, read) = mpsc::channel(1);
        let mut streams = Streams {
            names: names.clone(),
            given: None,
            pipes: Vec::new(),
            input: None,
            stdin_open: None,
            console: None,
            ended: watch::Sender::new(false),
            pumps: Vec::new(),
            unread,
            read: Some(read),
            feeder: None,
            logger: None,
        };
        if names.terminal {
            return Ok(streams);
        }
        if cfg!(fuzzing) {
            let _ = binary::uri(&names.stdout);
            return Err(Failure::internal("fuzzing", "no streams"));
        }
        let null = || open("/dev/null", file::O_RDWR);
        let mut given = [null()?, null()?, null()?];
        let [stdin, stdout, stderr] = &mut given;
        if let Some(uri) = binary::uri(&names.stdout) {
            let logger = binary::start(&uri, owner).await?;
            (*stdout, *stderr) = (clone(&logger.stdout)?, clone(&logger.stderr)?);
            streams.logger = Some(logger);
        } else {
            streams.output(&names.stdout, stdout, owner)?;
            // A file:// of stdout is for both, whatever stderr says.
            let both = if names.stdout.starts_with(FILE) { &names.stdout } else { &names.stderr };
            streams.output(both, stderr, owner)?;
        }
        if !names.stdin.is_empty() {
            let (theirs, ours) = pipe(owner)?;
            *stdin = theirs;
            streams.input = Some((streams.open_stdin()?, ours));
        }
        streams.given = Some(given);
        Ok(streams)
    }

    fn output(&mut self, name: &str, given: &mut OwnedFd, owner: &Owner<'_>) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let sink = match self.pipes.first() {
            Some((_, Sink::File(file))) if name == self.names.stdout || name.starts_with(FILE) => {
                Sink::File(file.clone())
            }
            _ => sink(name)?,
        };
        let (ours, theirs) = pipe(owner)?;
        *given = theirs;
        self.pipes.push((ours, sink));
        Ok(())
    }

    /// The reader first: a fifo without one cannot be opened for writing without waiting.
    fn open_stdin(&mut self) -> Result<OwnedFd> {
        let reader = open(&self.names.stdin, file::O_RDONLY | file::O_NONBLOCK)?;
        self.stdin_open = Some(open(&self.names.stdin, file::O_WRONLY | file::O_NONBLOCK)?);
        Ok(reader)
    }

    /// The standard streams for the worker that makes the process; `None` with a terminal.
    pub fn given(&mut self) -> Option<[OwnedFd; 3]> {
        self.given.take()
    }

    /// The process is there: from now on bytes move. `console` is the master of its terminal.
    pub fn attach(&mut self, console: Option<OwnedFd>) -> Result<()> {
        if let Some(console) = console {
            return self.attach_console(console);
        }
        for (from, to) in std::mem::take(&mut self.pipes) {
            let from = Arc::new(nonblocking(from)?);
            self.pumps.push(tokio::spawn(pump(from, to, false, self.end())));
        }
        if let Some((from, to)) = self.input.take() {
            self.feeder = Some(tokio::spawn(feed(nonblocking(from)?, Arc::new(nonblocking(to)?))));
        }
        Ok(())
    }

    fn attach_console(&mut self, master: OwnedFd) -> Result<()> {
        let master = Arc::new(nonblocking(master)?);
        // All that can fail comes before the first pump, which would outlive the failure.
        let to = if self.names.stdout.is_empty() { None } else { Some(sink(&self.names.stdout)?) };
        let from = if self.names.stdin.is_empty() { None } else { Some(nonblocking(self.open_stdin()?)?) };
        if let Some(to) = to {
            self.pumps.push(tokio::spawn(pump(master.clone(), to, true, self.end())));
        }
        if let Some(from) = from {
            self.feeder = Some(tokio::spawn(feed(from, master.clone())));
        }
        self.console = Some(master);
        Ok(())
    }

    fn end(&self) -> End {
        End { ended: self.ended.subscribe(), unread: Some(self.unread.clone()) }
    }

    /// Gives the terminal a size; nothing without a terminal.
    pub fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        let Some(console) = &self.console else { return Ok(()) };
        let number = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Size { rows: number(rows), columns: number(columns) };
        terminal::set_size(console.fd(), size).map_err(|e| Failure::internal("cannot resize the terminal", e))
    }

    /// No more input than what is in the fifo now.
    pub fn close_stdin(&mut self) {
        self.stdin_open = None;
    }

    /// The process has ended: its output is brought out and closed.
    pub fn ended(&mut self) {
        // Without receivers there is nothing to bring out.
        let _ = self.ended.send(true);
        self.stdin_open = None;
        if let Some(feeder) = self.feeder.take() {
            feeder.abort();
        }
    }

    /// What must be waited for before anybody is told of the end: containerd 1.6 does not read the log of a container any more whose end it
    /// knows. To be called after [`Streams::ended`].
    pub fn read(&mut self) -> impl Future<Output = ()> + use<> {
        // Ours is none of a pump's.
        let unread = std::mem::replace(&mut self.unread, mpsc::channel(1).0);
        let read = self.read.take();
        async move {
            drop(unread);
            if let Some(mut read) = read {
                let _ = tokio::time::timeout(UNREAD, read.recv()).await;
            }
        }
    }

    /// What must be waited for until all output has been read.
    pub fn drained(&mut self) -> Drained {
        Drained(std::mem::take(&mut self.pumps), self.logger.take())
    }
}

/// The rest of the output of a process.
pub struct Drained(Vec<JoinHandle<()>>, Option<binary::Logger>);

impl Drained {
    /// Waits until all of it has been read, or nobody is likely to read it any more.
    pub async fn wait(self) {
        let mut pumps = self.0;
        let all = async {
            for pump in &mut pumps {
                let _ = pump.await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            // One that waits for a reader waits for ever, with its fds.
            pumps.iter().for_each(JoinHandle::abort);
            log::warn!("the output of a process was not read within {PATIENCE:?}");
        }
        if let Some(logger) = self.1 {
            logger.end().await;
        }
    }
}

const FILE: &str = "file://";

fn sink(name: &str) -> Result<Sink> {
    if let Some(path) = name.strip_prefix(FILE) {
        if let Some(dir) = Path::new(path).parent() {
            std::fs::create_dir_all(dir).map_err(|e| Failure::internal(&format!("mkdir {}", dir.display()), e))?;
        }
        return append(path, file::O_CREAT).map(Sink::File);
    }
    if let Some((scheme, _)) = name.split_once("://") {
        return Err(Failure::new(
            containerd_shim_protos::ttrpc::Code::INVALID_ARGUMENT,
            format!("stdout: {scheme:?} is not a way of output: fifo, file, binary and binary-v2 are"),
        ));
    }
    let path = CString::new(name).map_err(|e| Failure::internal(name, e))?;
    let kind = file::stat(&path).map_err(|e| Failure::internal(&format!("stat {name}"), e))?;
    if kind.is_file() { append(name, 0).map(Sink::File) } else { Ok(Sink::Fifo(path)) }
}

/// Waits for a reader: what is written before one is there, and closed, nobody gets. A reader of our own then keeps a client that
/// goes away, or a containerd that restarts, from breaking the fifo.
async fn open_fifo(path: &CStr, end: &mut End) -> Option<(Ready<OwnedFd>, OwnedFd)> {
    let mut wait = Duration::from_millis(1);
    loop {
        let over = end.over();
        match file::open(path, file::O_WRONLY | file::O_NONBLOCK, 0) {
            Ok(writer) => {
                let reader = file::open(path, file::O_RDONLY | file::O_NONBLOCK, 0).ok()?;
                return Some((Ready::new(writer).ok()?, reader));
            }
            Err(Errno::ENXIO) => {
                if over {
                    end.unread = None;
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_millis(50)),
                    // One that has come in the meantime is not overlooked.
                    () = end.changed(), if !over => {}
                }
            }
            Err(_) => return None,
        }
    }
}

fn append(path: &str, flags: i32) -> Result<Arc<OwnedFd>> {
    open(path, file::O_WRONLY | file::O_APPEND | flags).map(Arc::new)
}

fn open(path: &str, flags: i32) -> Result<OwnedFd> {
    let failed = |e: &dyn std::fmt::Display| Failure::internal(&format!("open {path}"), e);
    let name = CString::new(path).map_err(|e| failed(&e))?;
    file::open(&name, flags, 0o644).map_err(|e| failed(&e))
}

fn clone(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|e| Failure::internal("dup", e))
}

/// (reader, writer), which the process's user may open again through /dev/stdout.
fn pipe(owner: &Owner<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = file::pipe().map_err(|e| Failure::internal("pipe", e))?;
    let (uid, gid) = owner.ids;
    if (uid, gid) != (0, 0) {
        file::fchown(writer.as_fd(), uid, gid).map_err(|e| Failure::internal("chown of a pipe", e))?;
    }
    Ok((reader, writer))
}

fn nonblocking(fd: OwnedFd) -> Result<Ready<OwnedFd>> {
    terminal::set_nonblocking(fd.as_fd()).map_err(|e| Failure::internal("fcntl", e))?;
    Ready::new(fd).map_err(|e| Failure::internal("epoll", e))
}

/// What moved at one try.
enum Moved {
    Some,
    /// Nothing is there to be moved.
    Empty,
    /// There is no room where it should go.
    Full,
    /// Nothing will come any more, or nobody takes it.
    Over,
}

/// Waits until all of a fifo has been read, or nobody reads it any more; then closes it.
async fn read(fifo: Ready<OwnedFd>, unread: Option<Unread>) {
    let taken = async {
        while file::unread(fifo.fd()).is_ok_and(|bytes| bytes > 0) && !now(fifo.fd(), poll::BROKEN) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(UNREAD, taken).await;
    drop((fifo, unread));
}

/// What a pump knows of the end of the process.
struct End {
    ended: watch::Receiver<bool>,
    unread: Option<Unread>,
}

impl End {
    /// Whether the process has ended, or its streams have gone without a word.
    fn over(&mut self) -> bool {
        *self.ended.borrow_and_update() || self.ended.has_changed().is_err()
    }

    /// Waits until [`End::over`] may say something else.
    async fn changed(&mut self) {
        let _ = self.ended.changed().await;
    }
}

/// Output on its way.
struct Pump {
    from: Arc<Ready<OwnedFd>>,
    to: Target,
    /// A terminal cannot be spliced from, nor a file that is appended to spliced to: what was read and not yet written.
    held: Option<Vec<u8>>,
}

enum Target {
    Fifo {
        to: Ready<OwnedFd>,
        /// Keeps the fifo whole when its reader goes.
        reader: OwnedFd,
    },
    File(Arc<OwnedFd>),
}

/// Moves output from a pipe or a terminal.
async fn pump(from: Arc<Ready<OwnedFd>>, to: Sink, terminal: bool, mut end: End) {
    let to = match to {
        Sink::Fifo(path) => match open_fifo(&path, &mut end).await {
            Some((to, reader)) => Target::Fifo { to, reader },
            None => return log::warn!("the fifo {path:?} has gone"),
        },
        Sink::File(file) => Target::File(file),
    };
    let copies = terminal || matches!(to, Target::File(_));
    let mut pump = Pump { from, to, held: copies.then(Vec::new) };
    let more = pump.run(&mut end).await;
    let Pump { from, to, .. } = pump;
    if let Target::Fifo { to, reader } = to {
        // Ours would look like one who reads.
        drop(reader);
        tokio::spawn(read(to, end.unread));
    }
    if more {
        tokio::spawn(async move {
            let mut rest = [0; 4096];
            while let Ok(1..) = read_some(&from, &mut rest).await {
                // A busy writer always has more: the others of this thread get their turn.
                tokio::task::yield_now().await;
            }
        });
    }
}

impl Pump {
    /// Moves output until its writers have gone, or until the process has ended and nothing is left: then it is true. What a grandchild
    /// writes afterwards is to be read and dropped, so that a closed pipe does not end it.
    async fn run(&mut self, end: &mut End) -> bool {
        loop {
            // Before the look at the pipe: what was written before the end is then seen.
            let over = end.over();
            let waited = match self.step() {
                Moved::Some => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Moved::Over => return false,
                Moved::Empty if over => return true,
                Moved::Empty => tokio::select! {
                    waited = self.from.readable() => waited,
                    () = end.changed() => Ok(()),
                },
                Moved::Full => match &self.to {
                    Target::Fifo { to, .. } => to.writable().await,
                    Target::File(_) => return false,
                },
            };
            if waited.is_err() {
                return false;
            }
        }
    }

    fn step(&mut self) -> Moved {
        match &mut self.held {
            None => self.splice(),
            Some(held) if held.is_empty() => {
                let mut buffer = [0; 4096];
                match file::read(self.from.fd(), &mut buffer) {
                    Ok(0) => Moved::Over,
                    Ok(n) => {
                        held.extend_from_slice(buffer.get(..n).unwrap_or_default());
                        Moved::Some
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => Moved::Empty,
                    // EIO: the last process of a terminal has gone.
                    Err(_) => Moved::Over,
                }
            }
            Some(held) => {
                let to = match &self.to {
                    Target::Fifo { to, .. } => to.fd(),
                    Target::File(file) => file.as_fd(),
                };
                match file::write(to, held) {
                    Ok(n) => {
                        held.drain(..n.min(held.len()));
                        Moved::Some
                    }
                    Err(Errno::EINTR) => Moved::Some,
                    Err(Errno::EAGAIN) => Moved::Full,
                    Err(_) => Moved::Over,
                }
            }
        }
    }

    fn splice(&self) -> Moved {
        let Target::Fifo { to, .. } = &self.to else { return Moved::Over };
        let from = self.from.fd();
        match file::splice(from, to.fd(), PIECE) {
            Ok(0) => Moved::Over,
            Ok(_) | Err(Errno::EINTR) => Moved::Some,
            Err(Errno::EAGAIN) if now(from, poll::READ) => Moved::Full,
            Err(Errno::EAGAIN) => Moved::Empty,
            Err(_) => Moved::Over,
        }
    }
}

/// Input from a fifo into a pipe or a terminal, until the last writer has gone.
async fn feed(from: Ready<OwnedFd>, to: Arc<Ready<OwnedFd>>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = read_some(&from, &mut buffer).await {
        tokio::task::yield_now().await;
        let mut data = buffer.get(..n).unwrap_or_default();
        while !data.is_empty() {
            match file::write(to.fd(), data) {
                Ok(n) => data = data.get(n..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if to.writable().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

async fn read_some(from: &Ready<OwnedFd>, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file::read(from.fd(), buffer) {
            Err(Errno::EAGAIN) => from.readable().await?,
            Err(Errno::EINTR) => {}
            other => return other.map_err(std::io::Error::from),
        }
    }
}
