//! CRIU, which dumps and restores process trees: one process of `criu swrk`, spoken to by its RPC over a SOCK_SEQPACKET
//! pair (criu.org/RPC).
//!
//! | file | what |
//! |---|---|
//! | this one | the process, the exchange, CRIU's version and features |
//! | `rpc`, `wire` | the messages, and how they are encoded |
//! | `images` | the directories of a checkpoint, which are not trusted |
//! | `external` | what of a container comes from outside |
//! | `place` | the root file system for a restore, in a mount namespace of CRIU's own |

pub mod external;
pub mod images;
pub mod place;
pub mod rpc;
pub mod wire;

use crate::cgroup::Entry;
use crate::error::{Error, Kind, On, Result};
use crate::plan::c_string;
use images::{Directory, Images};
use log::debug;
use orlop_sys::poll::{READ, poll};
use orlop_sys::process::{self, Exit, Strings};
use orlop_sys::signal::{self, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use orlop_sys::{Errno, fds, file, socket};
use place::{Fault, Place};
use rpc::{Features, Notify, Response};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use wire::Message;

/// The oldest version that is spoken to: from here on there are external pid namespaces, the freezer of cgroup v2 and
/// the notification `status-ready`.
const OLDEST: u32 = 31_500;
/// The status of a child that could not execute CRIU; why comes by a pipe.
const NOT_EXECUTED: u8 = 127;
/// No message of CRIU's is nearly as long.
const MESSAGE: usize = 40 * 1024;

/// What CRIU's process is to find.
pub struct Setup<'a> {
    /// The directories of the checkpoint: they stay open in CRIU's process under the numbers that they have here.
    pub images: &'a Images,
    /// Other fds that stay open, under their numbers.
    pub fds: &'a [OwnedFd],
    /// Ways into the cgroups: what it restores is born where it is itself.
    pub entry: Option<&'a Entry>,
    /// The root file system of a restore; the process then has a mount namespace of its own.
    pub place: Option<&'a Place>,
    /// The caller has blocked the signals that ask it to end (SIGHUP, SIGINT, SIGQUIT, SIGTERM): while CRIU is waited for, they end
    /// it. It may hang.
    pub stoppable: bool,
}

/// A running CRIU. Dropped before [`Criu::end`] its socket is closed, at which it undoes what it has begun, and waited for.
#[derive(Debug)]
pub struct Criu {
    /// `None`: closed, to tell that nothing more will come.
    socket: Option<OwnedFd>,
    child: process::Child,
    version: u32,
    reaped: bool,
    /// The signals that end it (signalfd(2)).
    signals: Option<OwnedFd>,
    /// The one that did.
    stopped: Option<u32>,
}

/// Answers a notification; an error makes CRIU give up.
pub type Notified<'a> = &'a mut dyn FnMut(&Notify, Option<OwnedFd>) -> Result<()>;

impl Criu {
    /// Starts CRIU and asks for its version.
    pub fn start(setup: &Setup) -> Result<Criu> {
        let program = program()?;
        let waiting = || signal::waiting([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).on("signalfd", "");
        let signals = setup.stoppable.then(waiting).transpose()?;
        let (ours, theirs) = socket::pair().on("socketpair", "")?;
        let rpc = file::open(c"/dev/null", file::O_PATH, 0).on("open", "\"/dev/null\"")?;
        let args = ["criu".to_string(), "swrk".to_string(), rpc.as_raw_fd().to_string()];
        let args = Strings::new(args.into_iter().map(|arg| c_string(arg, "criu")).collect::<Result<_>>()?);
        let env = environment()?;
        let flags = if setup.place.is_some() { process::CLONE_NEWNS as u64 } else { 0 };
        let dir = setup.entry.and_then(|entry| entry.dir.as_ref()).map(AsFd::as_fd);
        let child = process::clone3(flags, dir, || {
            let failure = become_criu(setup, theirs.as_fd(), rpc.as_fd(), &program, &args, &env);
            // The parent reads it; success closes the socket without a word.
            let _ = socket::send(theirs.as_fd(), &failure.bytes(), None);
            NOT_EXECUTED
        })
        .on("clone3 for", "criu")?;
        drop((theirs, rpc));
        let mut criu = Criu { socket: None, child, version: 0, reaped: false, signals, stopped: None };
        let mut failure = [0; Failure::SIZE];
        loop {
            match socket::recv(ours.as_fd(), &mut failure).on("recvmsg from", "criu's process")? {
                (0, _) => break,
                (_, Some(socket)) => criu.socket = Some(socket),
                (_, None) => {
                    criu.wait()?;
                    return Err(Failure::parse(&failure).explain(&program, setup));
                }
            }
        }
        criu.version = criu.request(&rpc::request(rpc::Kind::Version, None, true), &mut silent)?.version;
        debug!("criu: version {}", version_text(criu.version));
        criu.require("checkpoint and restore", OLDEST)?;
        Ok(criu)
    }

    /// Refuses what needs a newer CRIU.
    pub fn require(&self, what: &str, least: u32) -> Result<()> {
        if self.version >= least {
            return Ok(());
        }
        let (has, needs) = (version_text(self.version), version_text(least));
        Err(Error::new(Kind::Invalid, format!("needs CRIU {needs} or newer, and this is {has}")).at(what))
    }

    /// What it can do on this kernel.
    pub fn features(&mut self) -> Result<Features> {
        Ok(self.request(&rpc::features(), &mut silent)?.features)
    }

    /// Sends a request and answers notifications until it is done.
    pub fn request(&mut self, request: &Message, notified: Notified) -> Result<Response> {
        self.send(request)?;
        let mut refused = None;
        let mut buffer = vec![0; MESSAGE];
        loop {
            let socket = self.socket.as_ref().ok_or(Errno::EPIPE).on("recvmsg from", "criu")?;
            if let Some(signal) = self.wait_for(socket.as_fd())? {
                self.stopped = Some(signal);
                return Err(self.gone());
            }
            let (n, fd) = match socket::recv(socket.as_fd(), &mut buffer) {
                Ok((0, _)) | Err(Errno::ECONNRESET) => return Err(refused.unwrap_or_else(|| self.gone())),
                other => other.on("recvmsg from", "criu")?,
            };
            let unreadable = || Error::new(Kind::System, "criu sent a message that cannot be read");
            let message = buffer.get(..n).filter(|_| n < MESSAGE).ok_or_else(unreadable)?;
            let response = Response::parse(message).ok_or_else(unreadable)?;
            if response.kind != rpc::Kind::Notify as i32 {
                return match refused {
                    Some(e) => Err(e),
                    None if response.success => Ok(response),
                    None => Err(failed(&response)),
                };
            }
            debug!("criu: notify {} (pid {})", response.notify.script, response.notify.pid);
            let answer = notified(&response.notify, fd);
            self.send(&rpc::notified(answer.is_ok()))?;
            // CRIU undoes what it has done, and says so; what made it is the error of the user.
            refused = refused.or(answer.err());
        }
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        let socket = self.socket.as_ref().ok_or(Errno::EPIPE).on("sendmsg to", "criu")?;
        match socket::send(socket.as_fd(), message.bytes(), None) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.gone()),
            other => other.on("sendmsg to", "criu"),
        }
    }

    /// Waits until its socket or its process has something to tell. If a signal comes first that asks us to end, it is killed.
    fn wait_for(&self, fd: BorrowedFd) -> Result<Option<u32>> {
        let Some(signals) = self.signals.as_ref().filter(|_| self.stopped.is_none()) else { return Ok(None) };
        loop {
            let [ready, asked] =
                poll([(Some(fd), READ), (Some(signals.as_fd()), READ)], -1).on("poll", "criu's socket")?;
            if asked != 0 {
                // signalfd(2): its size, and the number first.
                let mut info = [0; 128];
                file::read(signals.as_fd(), &mut info).on("read", "signalfd")?;
                process::pidfd_signal(self.child.pidfd.as_fd(), process::SIGKILL)
                    .or_else(|errno| if errno == Errno::ESRCH { Ok(()) } else { Err(errno) })
                    .on("pidfd_send_signal", "criu")?;
                let [a, b, c, d, ..] = info;
                return Ok(Some(u32::from_ne_bytes([a, b, c, d])));
            }
            if ready != 0 {
                return Ok(None);
            }
        }
    }

    fn stopped_by(signal: u32) -> Error {
        Error::new(Kind::System, format!("stopped by signal {signal} while criu was at work"))
    }

    /// Why it is gone.
    fn gone(&mut self) -> Error {
        let how = self.wait();
        if let Some(signal) = self.stopped {
            return Criu::stopped_by(signal);
        }
        let how = match how {
            Ok(Some(Exit::Status(status))) => format!("exited with status {status}"),
            Ok(Some(Exit::Signal(signal))) => format!("was killed by signal {signal}"),
            Ok(None) | Err(_) => "is gone".to_string(),
        };
        Error::new(Kind::System, format!("criu {how} without an answer"))
    }

    /// Lets it end. After a pre-dump it has waited for more requests, and what its status says is nothing then.
    pub fn end(mut self, status_matters: bool) -> Result<()> {
        let how = self.wait()?;
        if let Some(signal) = self.stopped {
            return Err(Criu::stopped_by(signal));
        }
        match how {
            Some(Exit::Status(status)) if status != 0 && status_matters => {
                Err(Error::new(Kind::System, format!("criu exited with status {status} after it was done")))
            }
            Some(Exit::Signal(signal)) if status_matters => {
                Err(Error::new(Kind::System, format!("criu was killed by signal {signal} after it was done")))
            }
            _ => Ok(()),
        }
    }

    fn wait(&mut self) -> Result<Option<Exit>> {
        self.socket = None;
        if self.reaped {
            return Ok(None);
        }
        self.stopped = self.stopped.or(self.wait_for(self.child.pidfd.as_fd())?);
        self.reaped = true;
        process::wait(self.child.pidfd.as_fd(), true).on("waitid", "criu")
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // The first error is what the user must hear.
        let _ = self.wait();
    }
}

/// What answers nothing: requests that make CRIU do nothing notify of nothing.
fn silent(_: &Notify, _: Option<OwnedFd>) -> Result<()> {
    Ok(())
}

/// CRIU's own reasons; where its log is, is for the caller to add.
fn failed(response: &Response) -> Error {
    let errno = match response.errno {
        0 => String::new(),
        n => format!(": {:?} ({})", Errno::from_raw(n), Errno::from_raw(n).desc()),
    };
    let said = if response.message.is_empty() { String::new() } else { format!(": {}", response.message.trim()) };
    Error::new(Kind::System, format!("criu failed{errno}{said}"))
}

fn version_text(version: u32) -> String {
    let (major, minor, sublevel) = (version / 10_000, version / 100 % 100, version % 100);
    if sublevel == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{sublevel}") }
}

/// criu(8), where PATH has it.
fn program() -> Result<CString> {
    let found = crate::program::find("criu").ok_or_else(|| {
        Error::new(Kind::System, "criu is needed for this, and no directory of $PATH has it")
            .hint("install CRIU (https://criu.org)")
    })?;
    c_string(found.into_os_string().as_bytes(), "PATH")
}

/// Ours: CRIU runs ip(8), iptables(8) and others, which it looks for in PATH.
fn environment() -> Result<Strings> {
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        c_string([name.as_bytes(), b"=", value.as_bytes()].concat(), "environment")
    };
    Ok(Strings::new(std::env::vars_os().map(entry).collect::<Result<_>>()?))
}

/// How far the child came: a stage, the number of a mount, an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Cgroup(Errno),
    Place(Fault),
    Images(Errno),
    Exec(Errno),
}

impl Failure {
    const SIZE: usize = 7;
    /// No mount.
    const NONE: u16 = u16::MAX;

    fn bytes(self) -> [u8; Failure::SIZE] {
        let (stage, index, errno) = match self {
            Failure::Cgroup(errno) => (0, Failure::NONE, errno),
            Failure::Place(Fault(index, errno)) => (1, index.unwrap_or(Failure::NONE), errno),
            Failure::Images(errno) => (2, Failure::NONE, errno),
            Failure::Exec(errno) => (3, Failure::NONE, errno),
        };
        let ([i0, i1], [e0, e1, e2, e3]) = (index.to_ne_bytes(), (errno as i32).to_ne_bytes());
        [stage, i0, i1, e0, e1, e2, e3]
    }

    fn parse([stage, i0, i1, e0, e1, e2, e3]: &[u8; Failure::SIZE]) -> Failure {
        let errno = Errno::from_raw(i32::from_ne_bytes([*e0, *e1, *e2, *e3]));
        let index = Some(u16::from_ne_bytes([*i0, *i1])).filter(|index| *index != Failure::NONE);
        match stage {
            0 => Failure::Cgroup(errno),
            1 => Failure::Place(Fault(index, errno)),
            2 => Failure::Images(errno),
            _ => Failure::Exec(errno),
        }
    }

    fn explain(self, program: &CString, setup: &Setup) -> Error {
        match self {
            Failure::Cgroup(errno) => errno.on("enter", "the cgroups of the container").at("linux.cgroupsPath"),
            Failure::Place(Fault(None, errno)) => {
                errno.on("bind", format!("{:?}", setup.place.map(|p| &p.rootfs))).at("root.path")
            }
            Failure::Place(Fault(Some(index), errno)) => {
                let point = setup.place.and_then(|place| place.points.iter().find(|point| point.index == index));
                let path = point.map(|point| format!("{:?}", point.path)).unwrap_or_default();
                errno.on("make the place of", path).at(format!("mounts[{index}]"))
            }
            Failure::Images(errno) => errno
                .on("open in criu's mount namespace", "the directories of the images")
                .at("--image-path")
                .hint("ESTALE: another directory has been put in the place of one of them"),
            Failure::Exec(errno) => errno.on("execve", format!("{program:?}")),
        }
    }
}

/// The child: into the cgroups, then the root file system, then CRIU. Allocates nothing.
///
/// CRIU opens the directories of the images through the /proc/PID/fd of whoever made its socket, and mounts below them: they must
/// be of the mount namespace that it is in. So it is made to find itself: the pair is made here, our end is sent to the
/// `parent`, and CRIU's is put over `rpc`; the directories are opened again.
fn become_criu(
    setup: &Setup,
    parent: BorrowedFd,
    rpc: BorrowedFd,
    program: &CString,
    args: &Strings,
    env: &Strings,
) -> Failure {
    for tasks in setup.entry.iter().flat_map(|entry| &entry.tasks) {
        if let Err(errno) = file::write(tasks.as_fd(), b"0") {
            return Failure::Cgroup(errno);
        }
    }
    if let Some(Err(fault)) = setup.place.map(Place::make) {
        return Failure::Place(fault);
    }
    if let Err(errno) = fds::cloexec_from(3).and_then(|()| setup.images.directories().try_for_each(open_again)) {
        return Failure::Images(errno);
    }
    let kept = (|| {
        setup.fds.iter().try_for_each(|fd| fds::keep_on_exec(fd.as_fd()))?;
        let (ours, theirs) = socket::pair()?;
        fds::put_over(theirs.as_fd(), rpc)?;
        socket::send(parent, &[0], Some(ours.as_fd()))
    })();
    if let Err(errno) = kept {
        return Failure::Exec(errno);
    }
    process::reset_signals();
    Failure::Exec(process::exec(program, args, env))
}

/// The same directory in our mount namespace, under the same number. By its name another one may be found by now, which nobody
/// has looked through for links.
fn open_again(directory: &Directory) -> std::result::Result<(), Errno> {
    let again = file::open(&directory.name, file::O_RDONLY | file::O_DIRECTORY, 0)?;
    let [is, was] = [file::fstat(again.as_fd())?, file::fstat(directory.fd.as_fd())?];
    if (is.dev, is.ino) != (was.dev, was.ino) {
        return Err(Errno::ESTALE);
    }
    fds::put_over(again.as_fd(), directory.fd.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_through_the_pipe_as_it_was() {
        for failure in [
            Failure::Cgroup(Errno::ENOSPC),
            Failure::Place(Fault(None, Errno::EPERM)),
            Failure::Place(Fault(Some(300), Errno::EROFS)),
            Failure::Images(Errno::ESTALE),
            Failure::Exec(Errno::ENOEXEC),
        ] {
            assert_eq!(Failure::parse(&failure.bytes()), failure);
        }
    }

    #[test]
    fn versions_read_as_crius_own() {
        assert_eq!([31_500, 40_101].map(version_text), ["3.15", "4.1.1"]);
    }
}
