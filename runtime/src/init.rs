//! The child half: walks the plan, waits at the gate, executes the program.
//!
//! Nothing here allocates, logs or knows of config.json: what runs between clone and execve is system calls on what
//! the plan holds. A failure is a step's index, a part and an errno; the parent makes the sentence of it.

use crate::hook::{self, Failure};
use crate::plan::{HookStep, Plan, Step};
use crate::rootfs::Rootfs;
use crate::sync::{self, Frame, Part, Tag};
use orlop_sys::poll::{READ, poll};
use orlop_sys::process as sys;
use orlop_sys::{Errno, fds, file, terminal};
use orlop_sys::{bpf, network, signal};
use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where the init waits after it is ready.
#[derive(Clone, Copy)]
pub enum Gate<'a> {
    /// On the parent's answer: run and exec.
    Parent,
    /// On a byte in the fifo (open for both directions): create.
    Fifo(BorrowedFd<'a>),
}

/// What the init works with; all of it was opened before the clone.
pub struct Init<'a> {
    /// The work.
    pub plan: &'a Plan,
    /// What [`Plan::opens`] asked for.
    pub opens: &'a [OwnedFd],
    /// The `tasks` files of the v1 hierarchies.
    pub tasks: &'a [OwnedFd],
    /// The host's /proc.
    pub proc: BorrowedFd<'a>,
    /// The pidfd of the container's init, for exec.
    pub target: Option<BorrowedFd<'a>>,
    /// Our end of the pair.
    pub socket: BorrowedFd<'a>,
    /// Where to wait.
    pub gate: Gate<'a>,
    /// Takes what hooks print, where there are any.
    pub hook_output: Option<BorrowedFd<'a>>,
    /// What each step has mounted, where [`Plan::all_or_nothing`] holds; else there is no room for it.
    pub mounted: &'a [Cell<Option<Mounted>>],
    /// Takes `HOME=` with the directory that the container's /etc/passwd names: [`HOME_MAX`] where the plan has one to be found. The
    /// parent's, because each page that the child writes is charged to the container, and this one is written only where there is
    /// something to write.
    pub home: &'a [Cell<u8>],
}

/// A mount that was made, held by an fd, so that it can be found again whatever the container does to the path.
#[derive(Debug)]
pub enum Mounted {
    /// The root of the mount.
    Root(OwnedFd),
    /// What it was mounted on: of mount(2) no fd comes back.
    Place(OwnedFd),
}

/// A failed part of a step, and its errno.
#[derive(Clone, Copy, Debug)]
pub struct Fault(pub Part, pub i32);

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault(Part::Step, errno as i32)
    }
}

/// Names the part of a step that a call belongs to.
pub trait InPart<T> {
    /// The errno becomes a fault of this part.
    fn part(self, part: Part) -> Result<T, Fault>;
}

impl<T> InPart<T> for Result<T, Errno> {
    fn part(self, part: Part) -> Result<T, Fault> {
        self.map_err(|errno| Fault(part, errno as i32))
    }
}

/// What one step leaves for a later one.
struct Walk<'a> {
    init: &'a Init<'a>,
    rootfs: Rootfs<'a>,
    label: Option<OwnedFd>,
    in_cwd: bool,
    /// The working directory is the root: entering that has made it so.
    at_root: bool,
    /// What is not needed from [`Step::CloseFrom`] on is closed, whatever the fields here say.
    closed: bool,
    /// What the last hook behind the gate of `start` has said.
    late_output: Option<OwnedFd>,
    program: usize,
}

/// How much of what a hook said goes into the fifo: less than it holds, because nobody reads until the init has ended.
pub const SAID_MOST: usize = 1 << 15;

/// Room for `HOME=` and the longest path.
pub const HOME_MAX: usize = file::PATH_MAX + 6;

impl Init<'_> {
    /// Does everything; comes back only on failure, which the parent has then been told. The result is an exit status.
    pub fn run(&self) -> u8 {
        let mut walk = Walk::new(self);
        let mut ready = false;
        for (i, planned) in self.plan.steps.iter().enumerate().skip(self.plan.hop_steps) {
            walk.rootfs.at = i as u16;
            if let Err(Fault(part, number)) = walk.step(&planned.step) {
                // Before the parent knows: it would end this process.
                walk.rootfs.take_back();
                let frame = Frame { tag: Tag::Failed, part, step: i as u16, number };
                self.fail(&frame, ready, walk.late_output.as_ref().map(AsFd::as_fd));
                break;
            }
            ready |= matches!(planned.step, Step::Ready);
        }
        1
    }

    /// The steps that the hop does for its child. On failure the parent has been told.
    pub fn run_for_child(&self) -> bool {
        let mut walk = Walk::new(self);
        for (i, planned) in self.plan.steps.iter().enumerate().take(self.plan.hop_steps) {
            if let Err(Fault(part, number)) = walk.step(&planned.step) {
                self.fail(&Frame { tag: Tag::Failed, part, step: i as u16, number }, false, None);
                return false;
            }
        }
        true
    }

    /// [`Init::run`] of a process that another one made: not before the parent knows of it.
    pub fn run_after_go(&self) -> u8 {
        if self.answer().is_err() { 1 } else { self.run() }
    }

    /// `ready`: a `create` that has heard so listens no more, though it may not have gone yet.
    fn fail(&self, frame: &Frame, ready: bool, output: Option<BorrowedFd>) {
        let heard = !(ready && matches!(self.gate, Gate::Fifo(_))) && sync::send(self.socket, frame, None).is_ok();
        if !heard && let Gate::Fifo(fifo) = self.gate {
            // Counted from the end: `start` makes anew only what is behind the gate. Nobody is left to be told of a failure here.
            let step = self.plan.steps.len() as u16 - 1 - frame.step;
            let _ = file::write(fifo, &Frame { step, ..*frame }.bytes());
            // What the hook said follows.
            if let Some(output) = output
                && file::seek(output, 0).is_ok()
            {
                let _ = file::sendfile(fifo, output, SAID_MOST);
            }
        }
    }

    /// Asks the parent, and waits for its `Go`.
    fn ask(&self, tag: Tag, fd: Option<BorrowedFd>) -> Result<(), Fault> {
        self.ask_at(tag, 0, fd)
    }

    /// [`Init::ask`] of something that the step has.
    pub fn ask_at(&self, tag: Tag, step: u16, fd: Option<BorrowedFd>) -> Result<(), Fault> {
        sync::send(self.socket, &Frame { step, ..Frame::of(tag) }, fd).part(Part::Protocol)?;
        self.answer()
    }

    fn answer(&self) -> Result<(), Fault> {
        match sync::receive(self.socket).part(Part::Protocol)? {
            Some((Frame { tag: Tag::Go, .. }, _)) => Ok(()),
            // The parent has failed or was killed: there will be no container.
            _ => Err(Fault(Part::Protocol, Errno::ECANCELED as i32)),
        }
    }
}

impl<'a> Walk<'a> {
    fn new(init: &'a Init<'a>) -> Walk<'a> {
        Walk {
            init,
            rootfs: Rootfs::new(init),
            label: None,
            in_cwd: false,
            at_root: false,
            closed: false,
            late_output: None,
            program: 0,
        }
    }

    fn step(&mut self, step: &'a Step) -> Result<(), Fault> {
        let init = self.init;
        match step {
            Step::EnterCgroups => {
                for tasks in init.tasks {
                    file::write(tasks.as_fd(), b"0")?;
                }
            }
            Step::Rlimit(resource, soft, hard) => sys::set_rlimit(0, *resource, *soft, *hard)?,
            Step::ProcSelf(name, value) => {
                let fd = self.proc_self(name)?;
                file::write(fd.as_fd(), value.to_bytes())?;
            }
            Step::OpenLabel(name) => self.label = Some(self.proc_self(name)?),
            Step::WriteLabel(label) => {
                let fd = self.label.as_ref().ok_or(Errno::EBADF)?;
                file::write(fd.as_fd(), label.to_bytes())?;
            }
            Step::Join(open, kind) => sys::setns(init.opens.get(*open).ok_or(Errno::EBADF)?.as_fd(), *kind)?,
            Step::JoinInit(kinds) => sys::setns(init.target.ok_or(Errno::EBADF)?, *kinds)?,
            Step::AskMaps => init.ask(Tag::Maps, None)?,
            Step::BecomeRoot(groups) => self.become_root(*groups)?,
            Step::Dumpable(on) => sys::set_dumpable(*on)?,
            Step::Unshare(kind) => sys::unshare(*kind)?,
            Step::TimeOffsets(text) => {
                sys::unshare(sys::CLONE_NEWTIME)?;
                file::write(self.proc_self(c"timens_offsets")?.as_fd(), text)?;
                let made = file::openat(init.proc, c"self/ns/time_for_children", file::O_RDONLY, 0)?;
                sys::setns(made.as_fd(), sys::CLONE_NEWTIME)?;
            }
            Step::NewSession => sys::setsid()?,
            Step::Keyring(name, new) => keyring(name, *new)?,
            Step::AskDevices => init.ask(Tag::Devices, Some(network::route_socket()?.as_fd()))?,
            Step::AskHooks => {
                fds::close_left();
                init.ask(Tag::Hooks, None)?;
            }
            Step::Hook(h) => self.hook(h)?,
            Step::Sysctl(path, value) => {
                let sys = file::openat2(init.proc, c"sys", file::O_PATH | file::O_DIRECTORY, 0, file::STRICT)?;
                let fd = file::openat2(sys.as_fd(), path, file::O_WRONLY, 0, file::STRICT)?;
                file::write(fd.as_fd(), value.to_bytes())?;
            }
            Step::Console(size, bind) => self.console(*size, *bind)?,
            Step::Loopback => network::loopback_up()?,
            Step::Hostname(name) => sys::set_hostname(name.to_bytes())?,
            Step::Domainname(name) => sys::set_domainname(name.to_bytes())?,
            Step::Scheduler(attr) => sys::set_scheduler(attr)?,
            Step::IoPriority(value) => sys::set_io_priority(*value)?,
            Step::Affinity(mask) => sys::set_affinity(mask)?,
            Step::MemoryPolicy(mode, nodes) => sys::set_memory_policy(*mode, nodes)?,
            Step::Personality(persona) => sys::set_personality(*persona)?,
            Step::Umask(mask) => {
                sys::umask(*mask);
            }
            Step::Bounding(these) => drop_bounding(*these)?,
            Step::StdioOwner(uid) => own_stdio(*uid)?,
            Step::User { uid, gid, groups, born_so } => self.become_user(*uid, *gid, groups.as_deref(), *born_so)?,
            Step::Chdir(path, last) => self.chdir(path, *last)?,
            Step::Capabilities(caps) => sys::set_capabilities(caps)?,
            Step::Ambient(caps) => {
                for capability in bits(*caps) {
                    sys::raise_ambient(capability)?;
                }
            }
            Step::Home(uid) => home_of(*uid, init.home)?,
            Step::FindProgram => self.program = find_program(init.plan)?,
            Step::NoNewPrivs => sys::set_no_new_privs()?,
            Step::CloseFrom(first) => self.close_from(*first)?,
            Step::Ready => sync::send(init.socket, &Frame::of(Tag::Ready), None).part(Part::Protocol)?,
            Step::Gate => self.gate()?,
            Step::Seccomp(filter, flags, notify) => {
                let listener = bpf::seccomp_set_filter(filter, *flags)?;
                if *notify {
                    init.ask(Tag::Notify, listener.as_ref().map(AsFd::as_fd))?;
                }
            }
            Step::Exec => return Err(self.exec()),
            Step::ReopenNull => reopen_null(self.rootfs.fd()?)?,
            // All the others are about the file system.
            other => {
                self.rootfs.step(other)?;
                self.at_root = matches!(other, Step::Pivot(_) | Step::MoveRoot(_) | Step::Chroot);
            }
        }
        Ok(())
    }

    /// A file of the host's /proc/self; a magic link or a mount in between is an error.
    fn proc_self(&self, name: &CStr) -> Result<OwnedFd, Errno> {
        let own = file::openat2(self.init.proc, c"self", file::O_PATH | file::O_DIRECTORY, 0, file::BENEATH)?;
        file::openat2(own.as_fd(), name, file::O_WRONLY, 0, file::BENEATH)
    }

    /// Root of the user namespace: until its ids are mapped a process has none, so no file could be made.
    fn become_root(&self, groups: bool) -> Result<(), Fault> {
        if groups {
            self.set_groups(&[])?;
        }
        sys::set_gid(0)?;
        Ok(sys::set_uid(0)?)
    }

    fn become_user(&self, uid: u32, gid: u32, groups: Option<&[u32]>, born_so: bool) -> Result<(), Fault> {
        if uid != 0 {
            sys::set_keep_caps(true)?;
        }
        // The exact list, the empty one too: the caller's groups would otherwise be the container's (CVE-2022-36109).
        if let Some(groups) = groups {
            self.set_groups(groups)?;
        }
        if born_so {
            return Ok(());
        }
        sys::set_gid(gid)?;
        Ok(sys::set_uid(uid)?)
    }

    /// Where a user namespace denies setgroups(2), the groups of the caller cannot go, and its rights are no more than they were.
    fn set_groups(&self, groups: &[u32]) -> Result<(), Fault> {
        match sys::set_groups(groups) {
            Err(Errno::EPERM) if groups.is_empty() && self.groups_are_denied()? => Ok(()),
            other => other.part(Part::Groups),
        }
    }

    fn groups_are_denied(&self) -> Result<bool, Errno> {
        let own = file::openat2(self.init.proc, c"self", file::O_PATH | file::O_DIRECTORY, 0, file::BENEATH)?;
        let setgroups = file::openat2(own.as_fd(), c"setgroups", file::O_RDONLY, 0, file::BENEATH)?;
        let mut word = [0; 4];
        file::read(setgroups.as_fd(), &mut word)?;
        Ok(word == *b"deny")
    }

    fn console(&mut self, size: Option<(u16, u16)>, bind: bool) -> Result<(), Fault> {
        let directory = file::O_PATH | file::O_DIRECTORY;
        let devpts = if bind {
            file::openat2(self.rootfs.fd()?, c"dev/pts", directory, 0, file::IN_ROOT)
        } else {
            // exec has joined the container's mount namespace; a container without one has the host's terminals.
            file::open(c"/dev/pts", directory, 0)
        };
        let devpts = devpts.part(Part::Place)?;
        if file::fs_type(devpts.as_fd())? != file::DEVPTS_SUPER_MAGIC {
            return Err(Fault(Part::Mismatch, Errno::ENODEV as i32));
        }
        let master = terminal::open_master(devpts.as_fd(), c"ptmx")?;
        terminal::unlock(master.as_fd())?;
        if let Some((rows, columns)) = size {
            terminal::set_size(master.as_fd(), terminal::Size { rows, columns })?;
        }
        let slave = terminal::peer(master.as_fd())?;
        if bind {
            self.rootfs.bind_console(slave.as_fd())?;
        }
        terminal::make_controlling(slave.as_fd())?;
        for fd in 0..3 {
            fds::dup_to_stdio(slave.as_fd(), fd)?;
        }
        self.init.ask(Tag::Console, Some(master.as_fd()))
    }

    fn chdir(&mut self, path: &CStr, last: bool) -> Result<(), Fault> {
        // The root itself is no way out of it, so it need not be looked at.
        let is_root = path == c"/";
        self.in_cwd |= is_root && self.at_root;
        if self.in_cwd {
            return Ok(());
        }
        match sys::chdir(path) {
            Err(Errno::EACCES | Errno::EPERM) if !last => return Ok(()),
            other => other?,
        }
        if !is_root && !sys::cwd_is_inside_root().part(Part::Outside)? {
            return Err(Fault(Part::Outside, Errno::EXDEV as i32));
        }
        self.in_cwd = true;
        Ok(())
    }

    fn hook(&mut self, h: &HookStep) -> Result<(), Fault> {
        if h.in_rootfs {
            sys::fchdir(self.rootfs.fd()?)?;
            self.at_root = false;
        }
        // It may unmount what was mounted.
        fds::close_left();
        let cwd = if h.in_rootfs { c"." } else { c"/" };
        if self.closed && matches!(self.init.gate, Gate::Fifo(_)) {
            self.late_output = Some(file::memfd(c"hooks")?);
        }
        let output = self.late_output.as_ref().map(AsFd::as_fd).or(self.init.hook_output);
        hook::run(h, sys::pid(), output, cwd).map_err(|failure| match failure {
            Failure::Call(errno) => errno.into(),
            Failure::Status(status) => Fault(Part::HookStatus, i32::from(status)),
            Failure::Signal(signal) => Fault(Part::HookSignal, signal),
            Failure::Timeout => Fault(Part::HookTimeout, 0),
        })
    }

    /// A process that waits for `start` for days must hold nothing of the host (CVE-2024-21626): only what is used from here on stays
    /// open, until execve.
    fn close_from(&mut self, first: u32) -> Result<(), Errno> {
        const NONE: i32 = -1;
        let socket = self.init.socket.as_raw_fd();
        let other = match self.init.gate {
            Gate::Parent => self.init.hook_output.map_or(NONE, |output| output.as_raw_fd()),
            Gate::Fifo(fifo) => fifo.as_raw_fd(),
        };
        self.closed = true;
        self.rootfs.give_up();
        std::mem::forget(self.label.take());
        fds::close_others(first, [socket, other])
    }

    fn gate(&self) -> Result<(), Fault> {
        match self.init.gate {
            Gate::Parent => self.init.answer(),
            Gate::Fifo(fifo) => {
                // All signals are blocked here, and those without a handler do not reach the first process of a pid namespace.
                // `kill` before `start` must end the container nevertheless.
                let ending = signal::waiting([signal::SIGHUP, signal::SIGINT, signal::SIGQUIT, signal::SIGTERM])?;
                loop {
                    match poll([(Some(fifo), READ), (Some(ending.as_fd()), READ)], -1) {
                        Ok([0, 0]) => {}
                        Ok([_, 0]) => break file::read(fifo, &mut [0; 1]).part(Part::Protocol).map(drop),
                        other => {
                            break other.part(Part::Protocol).and(Err(Fault(Part::Protocol, Errno::ECANCELED as i32)));
                        }
                    }
                }
            }
        }
    }

    fn exec(&self) -> Fault {
        let plan = self.init.plan;
        let Some(path) = plan.programs.get(self.program) else { return Errno::ENOENT.into() };
        sys::reset_signals();
        match plan.home {
            Some(index) if self.init.home.first().is_some_and(|byte| byte.get() != 0) => {
                sys::exec_with(path, &plan.args, &plan.env, index, self.init.home)
            }
            _ => sys::exec(path, &plan.args, &plan.env),
        }
        .into()
    }
}

/// A session keyring of the container's own; a kernel or a seccomp filter without keyrings is none of its concern.
/// One that is there already keeps what its users have set.
fn keyring(name: &CStr, new: bool) -> Result<(), Errno> {
    /// What the kernel gives a session keyring that it makes (security/keys/process_keys.c): all to the possessor, and to the user to
    /// see, read and link it.
    const AS_MADE: u32 = 0x3f13_0000;
    /// The user's right to search lets the container's users find the keys (keyctl(2)).
    const KEY_USR_SEARCH: u32 = 0x0008_0000;
    match sys::join_session_keyring(name) {
        Ok(_) if !new => Ok(()),
        Ok(serial) => match sys::set_key_permissions(serial, AS_MADE | KEY_USR_SEARCH) {
            Err(Errno::EACCES | Errno::ENOSYS | Errno::EPERM) | Ok(()) => Ok(()),
            Err(e) => Err(e),
        },
        // EDQUOT: too many keyrings of this user; runc and crun go on without as well.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EDQUOT) => Ok(()),
        Err(e) => Err(e),
    }
}

fn bits(mask: u64) -> impl Iterator<Item = u8> {
    (0..64u8).filter(move |bit| mask & 1 << bit != 0)
}

fn drop_bounding(these: u64) -> Result<(), Errno> {
    for capability in bits(these) {
        match sys::drop_bounding(capability) {
            Ok(()) => {}
            // The kernel has no more.
            Err(Errno::EINVAL) => break,
            // Without CAP_SETPCAP nothing can be dropped: no harm when it is not there anyway.
            Err(Errno::EPERM) if matches!(sys::in_bounding(capability), Ok(false)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// So that `/dev/stdout` can be opened by the user that the process becomes. Only what the fds refer to is touched,
/// never a path (CVE-2026-88265), and the null device keeps its owner.
fn own_stdio(uid: u32) -> Result<(), Errno> {
    for fd in fds::stdio() {
        let Ok(st) = file::fstat(fd) else { continue };
        if st.uid == uid || st.is_char(1, 3) {
            continue;
        }
        match file::fchown(fd, uid, st.gid) {
            // An owner that is not mapped, a file system that has none, or a read-only one.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Standard streams that are the host's null device would be a way to a mount outside: they become the container's.
fn reopen_null(root: BorrowedFd) -> Result<(), Errno> {
    let mut own: Option<fds::Left> = None;
    for (number, fd) in fds::stdio().into_iter().enumerate() {
        if !file::fstat(fd).is_ok_and(|st| st.is_char(1, 3)) {
            continue;
        }
        if own.is_none() {
            match file::openat2(root, c"dev/null", file::O_RDWR | file::O_NOCTTY, 0, file::IN_ROOT_NO_SYMLINKS) {
                Ok(null) if file::fstat(null.as_fd())?.is_char(1, 3) => own = Some(null.into()),
                // No null device in this rootfs, not a true one (CVE-2025-31133), or one that may not be opened (nodev,
                // the device rules): the host's stays.
                Ok(_) => return Ok(()),
                Err(
                    Errno::ENOENT
                    | Errno::ENOTDIR
                    | Errno::EISDIR
                    | Errno::ELOOP
                    | Errno::ENXIO
                    | Errno::EACCES
                    | Errno::EPERM,
                ) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        if let Some(null) = &own {
            fds::dup_to_stdio(null.as_fd(), number as i32)?;
        }
    }
    Ok(())
}

/// The first candidate that this user may execute; what stands in the way of the others is told when there is none.
fn find_program(plan: &Plan) -> Result<usize, Fault> {
    let mut denied = None;
    for (i, path) in plan.programs.iter().enumerate() {
        match file::executable(path) {
            Ok(()) => match file::stat(path) {
                Ok(st) if st.is_dir() => denied = Some(Errno::EACCES),
                Ok(_) => return Ok(i),
                Err(e) => denied = Some(e),
            },
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => denied = Some(e),
        }
    }
    match denied {
        Some(errno) => Err(errno.into()),
        None if plan.programs.len() == 1 => Err(Errno::ENOENT.into()),
        None => Err(Fault(Part::NotInPath, Errno::ENOENT as i32)),
    }
}

/// The home directory of `uid` by the container's /etc/passwd, as `HOME=...` in `buf`; nothing for a user without one. The file is the
/// image's: it is read in pieces, up to a bound (CVE-2026-47262), and only when it is a regular one. By itself, for the sake of the
/// stack.
#[inline(never)]
fn home_of(uid: u32, buf: &[Cell<u8>]) -> Result<(), Errno> {
    const MOST: usize = 1 << 20;
    /// A line may be as long; the container is charged for it.
    const CHUNK: usize = file::PATH_MAX;
    let flags = file::O_RDONLY | file::O_NONBLOCK | file::O_NOCTTY;
    let Ok(passwd) = file::open(c"/etc/passwd", flags, 0) else { return Ok(()) };
    if !file::fstat(passwd.as_fd())?.is_file() {
        return Ok(());
    }
    let mut chunk = [0u8; CHUNK];
    let (mut held, mut total) = (0, 0);
    while total < MOST {
        let n = file::read(passwd.as_fd(), chunk.get_mut(held..).unwrap_or_default())?;
        (held, total) = (held + n, total + n);
        let text = chunk.get(..held).unwrap_or_default();
        // A last line may lack its end.
        let complete = if n == 0 { held } else { text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1) };
        for line in text.get(..complete).unwrap_or_default().split(|b| *b == b'\n') {
            if let Some(home) = home_in(line, uid) {
                put_home(buf, home);
                return Ok(());
            }
        }
        if n == 0 || (complete == 0 && held == chunk.len()) {
            return Ok(());
        }
        chunk.copy_within(complete..held, 0);
        held -= complete;
    }
    Ok(())
}

/// The sixth field of a line of passwd(5) whose third is this number and nothing else.
fn home_in(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b':');
    let id = fields.nth(2)?;
    let home = fields.nth(2)?;
    (number(id)? == uid && home.first() == Some(&b'/')).then_some(home)
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |n, d| {
        d.is_ascii_digit().then_some(())?;
        n.checked_mul(10)?.checked_add(u32::from(d - b'0'))
    })
}

fn put_home(buf: &[Cell<u8>], home: &[u8]) {
    let bytes = b"HOME=".iter().chain(home).chain(&[0]);
    // A line of the file is shorter than the room.
    buf.iter().zip(bytes).for_each(|(place, byte)| place.set(*byte));
}

/// See `fuzzing`.
#[cfg(fuzzing)]
pub fn fuzz_passwd(data: &[u8]) {
    for home in
        data.split(|b| *b == b'\n').filter(|line| line.len() <= file::PATH_MAX).filter_map(|line| home_in(line, 0))
    {
        let buf = [const { Cell::new(0) }; HOME_MAX];
        put_home(&buf, home);
        let put = buf.map(|byte| byte.get());
        let expected = [b"HOME=", home, b"\0"].concat();
        assert_eq!(put.get(..expected.len()), Some(&expected[..]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        assert_eq!(number(b"1000"), Some(1000));
        for bad in [&b""[..], b"-1", b" 1", b"1x", b"0x1", b"4294967296", b"1000000000000000000000000000000"] {
            assert_eq!(number(bad), None);
        }
    }

    #[test]
    fn home_is_by_uid_never_by_name() {
        assert_eq!(home_in(b"1000:x:0:0::/root:/bin/sh", 1000), None);
        assert_eq!(home_in(b"me:x:1000:1000::/home/me:/bin/sh", 1000), Some(&b"/home/me"[..]));
        assert_eq!(home_in(b"me:x:1000:1000::relative:/bin/sh", 1000), None);
        assert_eq!(home_in(b"broken:x:1000", 1000), None);
    }
}
