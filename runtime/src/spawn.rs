//! The parent half: opens what the plan asks for, makes the child, answers it until it is ready.

use crate::cgroup::Entry;
use crate::error::{Error, Kind, On, Result};
use crate::init::{Gate, HOME_MAX, Init as Child};
use crate::newidmap;
use crate::plan::{Open, Plan, Planned, Step, TARGET, Tree};
use crate::sync::{self, Frame, Tag};
use crate::userns;
use log::debug;
use orlop_sys::poll::{READ, poll};
use orlop_sys::process::{self as sys, Exit};
use orlop_sys::{Errno, fds, file, mount, socket};
use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the parent does when the child asks.
pub trait Answers {
    /// The process is made, and does its first steps.
    fn born(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }
    /// Network devices: the network namespace is there, and `socket` (rtnetlink) was made in it.
    fn devices(&mut self, pid: i32, socket: OwnedFd) -> Result<()>;
    /// Hooks of the host: namespaces and mounts are made, nothing is executed yet.
    fn hooks(&mut self, pid: i32) -> Result<()>;
    /// The master of the process's pty.
    fn console(&mut self, master: OwnedFd) -> Result<()>;
    /// The listener of a seccomp filter with NOTIFY rules.
    fn notify(&mut self, pid: i32, listener: OwnedFd) -> Result<()>;
}

/// What the child gets beside the plan.
pub struct Request<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// Ways into the cgroups.
    pub entry: Entry,
    /// The pidfd of the container's init, for exec.
    pub target: Option<BorrowedFd<'a>>,
    /// The fifo of `start`; without it the gate is ours: [`Init::release`].
    pub gate: Option<&'a OwnedFd>,
    /// The host's /proc, see [`open_proc`].
    pub proc: BorrowedFd<'a>,
    /// Who asks is not root, and the child's files in /proc must be its own for as long as they are written to.
    pub rootless: bool,
    /// A lock that the parent holds. The child gives up its copy: a killed parent must not leave it held by the init.
    pub lock: Option<BorrowedFd<'a>>,
}

/// The container's process, stopped at its gate. Dropped before [`Init::disarm`] it is killed and reaped.
#[derive(Debug)]
pub struct Init {
    /// Its pid in our pid namespace.
    pub pid: i32,
    /// Refers to it.
    pub pidfd: fds::Left,
    /// Once the container is made nobody waits at the other end; before, [`Init::drop`] ends it.
    socket: fds::Left,
    hook_output: Option<OwnedFd>,
    armed: bool,
}

/// The host's /proc, checked to be one.
pub fn open_proc() -> Result<fds::Left> {
    let proc = file::open(c"/proc", file::O_PATH | file::O_DIRECTORY, 0).on("open", "\"/proc\"")?;
    let proc = fds::Left::from(proc);
    if file::fs_type(proc.as_fd()).on("fstatfs", "\"/proc\"")? != file::PROC_SUPER_MAGIC {
        return Err(Error::new(Kind::System, "\"/proc\" is not procfs").hint("mount it: mount -t proc proc /proc"));
    }
    Ok(proc)
}

/// Makes the process and answers it until it stands at its gate.
pub fn spawn(request: Request, answers: &mut dyn Answers) -> Result<Init> {
    let plan = request.plan;
    // The first words of this line and of the next two are those of runc's messages, which its users look for.
    debug!("nsexec container setup: {} steps, clone flags {:#x}", plan.steps.len(), plan.clone_flags);
    for planned in &plan.steps {
        if let Step::Seccomp(_, flags, _) = &planned.step {
            debug!("seccomp filter flags: {flags}");
        }
    }
    let opens = open_all(plan, request.proc)?;
    let hooks = plan.steps.iter().any(|planned| matches!(planned.step, Step::Hook(_)));
    let output = hooks.then(|| file::memfd(c"hooks")).transpose().on("memfd_create", "")?;
    let (ours, theirs) = socket::pair().on("socketpair", "")?;
    // /proc/PID of the child belongs to root from the start (CVE-2016-9962); execve sets it back. For a caller who is not root that is a
    // step of the plan, after its own files there have been written.
    if !request.rootless {
        sys::set_dumpable(false).on("prctl PR_SET_DUMPABLE", "")?;
    }
    let at_birth = Joined::before_clone(&request, &opens)?;
    let made = {
        let room = if plan.all_or_nothing { plan.steps.len() } else { 0 };
        let mounted: Vec<_> = (0..room).map(|_| Cell::new(None)).collect();
        let home = vec![Cell::new(0); plan.home.map_or(0, |_| HOME_MAX)];
        let child = Child {
            plan,
            opens: &opens,
            tasks: &request.entry.tasks,
            proc: request.proc,
            target: request.target,
            socket: theirs.as_fd(),
            gate: request.gate.map_or(Gate::Parent, |fifo| Gate::Fifo(fifo.as_fd())),
            hook_output: output.as_ref().map(AsFd::as_fd),
            mounted: &mounted,
            home: &home,
        };
        let dir = request.entry.dir.as_ref().map(AsFd::as_fd);
        clone_child(plan, &child, dir, || {
            // With our end open in the child, it would never see that we are gone.
            fds::close_copy(ours.as_fd());
            if let Some(lock) = request.lock {
                fds::close_copy(lock);
            }
        })
    };
    match at_birth.back() {
        // The pid namespace that we came from belongs to a user namespace above ours. For exec no child of ours follows this one.
        Err(e) if request.target.is_some() && e.errno() == Some(Errno::EPERM) => {}
        other => other?,
    }
    drop(theirs);
    request.entry.tasks.into_iter().chain(request.entry.dir).map(fds::Left::from).for_each(drop);
    let child = made.map_err(|e| clone_error(plan, e))?;
    let mut init =
        Init { pid: child.pid, pidfd: child.pidfd.into(), socket: ours.into(), hook_output: output, armed: true };
    if !plan.hop {
        answers.born(init.pid)?;
    }
    serve(&mut init, plan, &opens, request.proc, answers)?;
    fds::close_all(opens);
    debug!("child process in init(): pid {} is ready to execute", init.pid);
    Ok(init)
}

fn clone_child(
    plan: &Plan,
    child: &Child,
    dir: Option<BorrowedFd>,
    born: impl Fn(),
) -> std::result::Result<sys::Child, Errno> {
    if plan.hop {
        return sys::clone3(0, None, || {
            born();
            hop(plan, child, dir)
        });
    }
    sys::clone3(plan.clone_flags, dir, || {
        born();
        child.run()
    })
}

/// The one extra process where namespaces are joined and there is a user namespace: it joins them, in an order in which each is
/// allowed to it, and can then not come back. The container's process is its sibling, a child of the same parent.
fn hop(plan: &Plan, child: &Child, dir: Option<BorrowedFd>) -> u8 {
    if !child.run_for_child() {
        return 1;
    }
    let made = (|| {
        sys::set_dumpable(false)?;
        for (open, kind) in &plan.before_clone {
            let namespace = match *open {
                TARGET => child.target,
                open => child.opens.get(open).map(AsFd::as_fd),
            };
            sys::setns(namespace.ok_or(Errno::EBADF)?, *kind)?;
        }
        sys::clone3(plan.clone_flags | sys::CLONE_PARENT as u64, dir, || child.run_after_go())
    })();
    let (frame, fd) = match &made {
        Ok(made) => (Frame { number: made.pid, ..Frame::of(Tag::Child) }, Some(made.pidfd.as_fd())),
        Err(errno) => (Frame { number: *errno as i32, ..Frame::of(Tag::Child) }, None),
    };
    u8::from(sync::send(child.socket, &frame, fd).is_err())
}

/// Namespaces into which children are born, joined by the parent for the moment of the clone.
struct Joined {
    back: Vec<(OwnedFd, i32)>,
}

impl Joined {
    fn before_clone(request: &Request, opens: &[OwnedFd]) -> Result<Joined> {
        let plan = request.plan;
        let mut joined = Joined { back: Vec::new() };
        if plan.hop {
            return Ok(joined);
        }
        let own =
            |name: &CStr| file::openat(request.proc, name, file::O_RDONLY, 0).on("open", format!("/proc/{name:?}"));
        for (open, kind) in &plan.before_clone {
            let fd = match *open {
                TARGET => request.target,
                open => opens.get(open).map(AsFd::as_fd),
            };
            let (fd, field) = (fd.ok_or(Errno::EBADF).on("open", "")?, field_of(plan, *open));
            joined.back.push((own(c"self/ns/pid")?, *kind));
            sys::setns(fd, *kind).on("setns to", "the pid namespace").map_err(|e| e.at(field))?;
        }
        Ok(joined)
    }

    /// Back to our own, so that hooks run on the host.
    fn back(self) -> Result<()> {
        for (own, kind) in self.back {
            sys::setns(own.as_fd(), kind).on("setns back to", "our own namespace")?;
        }
        Ok(())
    }
}

fn field_of(plan: &Plan, open: usize) -> &str {
    plan.opens.get(open).map_or("", |(_, field)| field.as_ref())
}

fn open_all(plan: &Plan, proc: BorrowedFd) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::with_capacity(plan.opens.len());
    if plan.opens.len() > MANY {
        fds::close_left();
        more_fds(plan.opens.len())?;
    }
    for (open, field) in &plan.opens {
        let fd = match open {
            Open::Tree { path, recursive, nofollow, idmap } => {
                tree(path, *recursive, *nofollow).and_then(|tree| match idmap {
                    None => Ok(tree),
                    Some(map) => {
                        let pid = std::process::id() as i32;
                        userns::idmap(tree.as_fd(), map, &fds, &format!("{path:?}"), pid).map(|()| tree)
                    }
                })
            }
            Open::UserNamespace(maps) => userns::with_maps(maps, proc),
            Open::Namespace { path, kind } => namespace(path, *kind),
        };
        fds.push(fd.map_err(|e| e.at(field.to_string()))?);
    }
    Ok(fds)
}

fn tree(path: &CStr, recursive: bool, nofollow: bool) -> Result<OwnedFd> {
    mount::clone_tree(None, path, recursive, nofollow).on("open_tree of", format!("{path:?}"))
}

fn namespace(path: &CStr, kind: i32) -> Result<OwnedFd> {
    let fd = file::open(path, file::O_RDONLY, 0).on("open", format!("{path:?}"))?;
    match sys::namespace_kind(fd.as_fd()) {
        Ok(found) if found == kind => Ok(fd),
        Ok(_) => Err(Error::new(Kind::Invalid, format!("{path:?} is a namespace of another type"))),
        Err(_) => Err(Error::new(Kind::Invalid, format!("{path:?} is not a namespace file"))),
    }
}

/// So many more are nothing to anybody.
const MANY: usize = 32;

/// A thousand bind mounts are a thousand fds; the container's own limit is that of config.json, or the caller's.
fn more_fds(wanted: usize) -> Result<()> {
    const RLIMIT_NOFILE: u32 = 7;
    // Our own, and those of `fds::Left` from here on.
    const SPARE: u64 = 64 + 60;
    let (soft, hard) = sys::rlimit(RLIMIT_NOFILE).on("getrlimit", "RLIMIT_NOFILE")?;
    let needed = wanted as u64 + SPARE;
    if needed > soft {
        sys::set_rlimit(0, RLIMIT_NOFILE, needed.min(hard), hard).on("setrlimit", "RLIMIT_NOFILE")?;
    }
    Ok(())
}

fn clone_error(plan: &Plan, errno: Errno) -> Error {
    let e = errno.on("clone3 with", "the namespaces of the container").at("linux.namespaces");
    match errno {
        Errno::ENOSPC | Errno::EUSERS => e.hint("a limit in /proc/sys/user/max_*_namespaces is reached"),
        Errno::EPERM if plan.clone_flags & sys::CLONE_NEWUSER as u64 == 0 => {
            e.hint("new namespaces need root, or a user namespace in linux.namespaces")
        }
        Errno::EINVAL => e.hint("the kernel may lack one of these namespace types"),
        _ => e,
    }
}

/// Answers until the child is ready.
fn serve(init: &mut Init, plan: &Plan, opens: &[OwnedFd], proc: BorrowedFd, answers: &mut dyn Answers) -> Result<()> {
    let mut hop = plan.hop;
    loop {
        // Killed between its clone and its word of it, the hop leaves a child that waits for us: the socket would never end.
        if hop && init.is_dead_and_silent()? {
            return Err(init.died());
        }
        let Some((frame, fd)) = init.next()? else { return Err(init.died()) };
        match (frame.tag, fd) {
            (Tag::Child, Some(pidfd)) => {
                hop = false;
                // The hop has done its work; it is a child of ours and must be reaped.
                sys::wait(init.pidfd.as_fd(), true).on("waitid", "the joining process")?;
                (init.pid, init.pidfd) = (frame.number, pidfd.into());
                answers.born(init.pid)?;
            }
            (Tag::Child, None) => {
                let e = Errno::from_raw(frame.number)
                    .on("join namespaces and clone3 with", "the namespaces of the container");
                return Err(e.at("linux.namespaces"));
            }
            (Tag::Maps, None) => maps(init, plan, proc)?,
            (Tag::Devices, Some(socket)) => answers.devices(init.pid, socket)?,
            (Tag::Idmap, Some(tree)) => idmap(init, plan, &frame, opens, tree.as_fd())?,
            (Tag::Hooks, None) => answers.hooks(init.pid)?,
            (Tag::Console, Some(master)) => answers.console(master)?,
            (Tag::Notify, Some(listener)) => answers.notify(init.pid, listener)?,
            (Tag::Ready, None) => return Ok(()),
            (Tag::Failed, None) => return Err(init.failure(plan, &frame)),
            _ => return Err(Error::new(Kind::Init, "the container's init sent a message out of order")),
        }
        init.go()?;
    }
}

/// A source inside the rootfs, which the child has cloned.
fn idmap(init: &Init, plan: &Plan, frame: &Frame, opens: &[OwnedFd], tree: BorrowedFd) -> Result<()> {
    match plan.steps.get(usize::from(frame.step)) {
        Some(Planned { step: Step::Bind(b), field }) if let (Tree::Root(path), Some(map)) = (&b.tree, &b.idmap) => {
            userns::idmap(tree, map, opens, &format!("{path:?} in the rootfs"), init.pid)
                .map_err(|e| e.at(format!("{field}.source")))
        }
        _ => Err(Error::new(Kind::Init, "the container's init asked for an idmapped mount that is not in its plan")),
    }
}

/// Writes the id maps; the limits and the OOM score too, because the child has lost the right to change them.
fn maps(init: &Init, plan: &Plan, proc: BorrowedFd) -> Result<()> {
    let Some(maps) = &plan.maps else { return Err(Error::new(Kind::Init, "no id maps are planned")) };
    for (i, resource, soft, hard) in &plan.parent_rlimits {
        sys::set_rlimit(init.pid, *resource, *soft, *hard)
            .on("prlimit", format!("{} to {soft}:{hard}", crate::plan::process::rlimit_name(*resource)))
            .map_err(|e| e.at(format!("process.rlimits[{i}]")))?;
    }
    if let Some(score) = &plan.parent_oom {
        let written = newidmap::write(proc, init.pid, "oom_score_adj", score.to_bytes());
        written.map_err(|e| e.at("process.oomScoreAdj").hint("lowering it needs CAP_SYS_RESOURCE on the host"))?;
    }
    newidmap::maps(proc, init.pid, maps)
}

impl Init {
    fn next(&self) -> Result<Option<(Frame, Option<OwnedFd>)>> {
        let received = match sync::receive(self.socket.as_fd()) {
            // It has ended with an answer of ours unread. The kernel tells of that once, before what it may have said last.
            Err(Errno::ECONNRESET) => sync::receive(self.socket.as_fd()),
            other => other,
        };
        received.on("recvmsg from", "the container's init")
    }

    /// Waits for a message or the end of the process; true when it has ended and left no message.
    fn is_dead_and_silent(&self) -> Result<bool> {
        // Looked at in this order: what has ended has said before all that it will say.
        let watches = [(Some(self.pidfd.as_fd()), READ), (Some(self.socket.as_fd()), READ)];
        loop {
            let [ended, said] = poll(watches, -1).on("poll", "the joining process")?;
            if ended != 0 || said != 0 {
                return Ok(said == 0);
            }
        }
    }

    fn go(&self) -> Result<()> {
        match sync::send(self.socket.as_fd(), &Frame::of(Tag::Go), None) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.died()),
            other => other.on("sendmsg to", "the container's init"),
        }
    }

    /// Why it is gone.
    fn died(&self) -> Error {
        let how = match sys::wait(self.pidfd.as_fd(), true) {
            Ok(Some(Exit::Signal(sys::SIGKILL))) => {
                "was killed by SIGKILL during set-up (possibly OOM-killed)".to_string()
            }
            Ok(Some(Exit::Signal(signal))) => format!("was killed by signal {signal} during set-up"),
            Ok(Some(Exit::Status(status))) => format!("exited with status {status} during set-up"),
            Ok(None) | Err(_) => "is gone".to_string(),
        };
        let e = Error::new(Kind::Init, format!("the container's init {how}"));
        e.hint("is the memory or pids limit too small?")
    }

    /// Opens the gate of [`Gate::Parent`] and waits until the program is executed.
    pub fn release(&self, plan: &Plan) -> Result<()> {
        self.go()?;
        match self.next()? {
            None => Ok(()),
            Some((frame, _)) if frame.tag == Tag::Failed => Err(self.failure(plan, &frame)),
            Some(_) => Err(Error::new(Kind::Init, "the container's init sent a message out of order")),
        }
    }

    fn failure(&self, plan: &Plan, frame: &Frame) -> Error {
        plan.failure(frame, &crate::hooks::said(self.hook_output.as_ref()))
    }

    /// From here on the process lives on without us.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.armed {
            // ESRCH: it has ended by itself.
            let _ = sys::pidfd_signal(self.pidfd.as_fd(), sys::SIGKILL);
            let _ = sys::wait(self.pidfd.as_fd(), true);
            // A child of it that we were not told of waits for a word of ours: this is its end, even if the fd is left open.
            let _ = socket::shut_down(self.socket.as_fd());
        }
    }
}
