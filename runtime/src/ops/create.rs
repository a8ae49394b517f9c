//! `create`: a container that waits at its gate.

use super::{CreateOptions, Global};
use crate::cgroup::{self, Cgroup, delegate};
use crate::config::{self, Config};
use crate::console;
use crate::error::{Error, Kind, On, Result, invalid};
use crate::netdevices::{self, Moved};
use crate::plan::{self, Caller, Input, Plan};
use crate::spawn::{self, Answers, Init, Request};
use crate::state::{self, Container, Reserved, Saved};
use crate::{hooks, log, notify, resctrl, seccomp_agent};
use ::log::warn;
use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Spec};
use orlop_sys::{Errno, file, mount, process, status};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Creates the container; its process executes nothing before `start`. The result is its pid, in our pid namespace.
pub fn create(global: &Global, options: &CreateOptions) -> Result<i32> {
    let made = make(global, options, true, true)?;
    made.finish(options).map(|(_, init, _)| init.pid)
}

/// A container at its gate, nothing of it kept yet: dropped, it leaves nothing behind.
pub(super) struct Made {
    pub(super) plan: Plan,
    pub(super) saved: Saved,
    pub(super) init: Init,
    /// The terminal, when no socket takes it.
    pub(super) master: Option<console::Terminal>,
    devices: Option<Moved>,
    class: Option<resctrl::Made>,
    cgroup: CgroupGuard,
    reserved: Reserved,
}

/// Everything up to the gate. `fifo`: the gate is that of `start`; else the caller opens it. `detached`: a terminal needs
/// a socket that takes it.
pub(super) fn make(global: &Global, options: &CreateOptions, fifo: bool, detached: bool) -> Result<Made> {
    state::check_id(&options.id)?;
    let config = Config::load(options.config.as_ref().unwrap_or(&options.bundle.join("config.json")))?;
    config.check()?;
    if !fifo {
        config.process()?;
    }
    let terminal = config.spec.process().as_ref().and_then(|p| p.terminal());
    super::check_terminal(terminal.unwrap_or(false), options.console_socket.is_some(), detached)?;
    let listen_fds = super::listen_fds();
    super::check_preserved(options.preserve_fds, listen_fds)?;

    let rootfs = config::rootfs(&config.spec, &options.bundle)?;
    let linux = config.spec.linux().as_ref();
    let host = cgroup::Host::default();
    let user = super::user_manager(global);
    let request = cgroup::Request {
        driver: global.cgroups,
        user,
        id: &options.id,
        rootless: global.rootless,
        spec: &config.spec,
    };
    let cgroup = host.plan(&request)?;
    let reserved = Reserved::new(&global.root, &options.id)?;
    let notify_dir = notify::requested().map(|_| notify::directory(&reserved.dir));
    if notify_dir.is_some() {
        notify::prepare(&reserved.dir)?;
    }
    reserved.keep_config(&config, &request)?;
    let mut cgroup = CgroupGuard { cgroup, armed: false };
    // Limits stand before the first process is inside; and which cgroups a caller without rights has got decides what is mounted.
    let entry = cgroup.cgroup.create(linux.and_then(|l| l.resources().as_ref()))?;
    // A failed create has taken back what it made, and left alone what was there before.
    cgroup.armed = true;
    let rootless = super::caller();
    let subgroup = delegate::subgroup(&config.spec)?;
    // An init that asks before its own hooks runs none of them when its parent is gone.
    let hooks =
        ["prestart", "createRuntime", "createContainer"].iter().any(|kind| !hooks::list(&config.spec, kind).is_empty());
    let asked = hooks || !subgroup.is_empty() || linux.is_some_and(|l| l.intel_rdt().is_some());
    let plan = plan::plan(
        &config.spec,
        &Input {
            id: &options.id,
            rootfs: &rootfs,
            bundle: &options.bundle,
            grantable: process::permitted().on("capget", "")?,
            hierarchies: &hierarchies(&host, config.spec.mounts().as_deref().unwrap_or_default())?,
            cgroup_paths: cgroup.cgroup.paths(),
            v1_tasks: entry.tasks.len(),
            into_cgroup: entry.dir.is_some(),
            preserve_fds: options.preserve_fds,
            listen_fds,
            no_pivot: if options.no_pivot { Some(outer_proc_mounts(&rootfs)?) } else { None },
            no_new_keyring: options.no_new_keyring,
            notify_dir: notify_dir.as_deref(),
            rootless,
            host_trees: host_trees(&config.spec, rootless),
            comes_back: comes_back(&config.spec),
            asks: asked,
            own: status::known().copied(),
        },
    )?;
    plan.warnings.iter().for_each(|w| warn!("{w}"));
    let gate = if fifo { Some(reserved.gate()?) } else { None };
    let class = match linux.and_then(|l| l.intel_rdt().as_ref()) {
        Some(rdt) => Some(resctrl::create(&resctrl::mounted().map_err(|e| e.at("linux.intelRdt"))?, rdt, &options.id)?),
        None => None,
    };
    let owner = delegate::owner(&config.spec);
    owner.map_or(Ok(()), |uid| cgroup.cgroup.give(uid))?;
    let proc = spawn::open_proc()?;
    let mut answers = Creating {
        config: &config,
        options,
        reserved: &reserved,
        rootfs,
        cgroup: cgroup.cgroup.as_ref(),
        proc: proc.as_fd(),
        class: class.as_ref(),
        devices: None,
        subgroup,
        owner,
        asked,
        saved: None,
        master: None,
    };
    let request = Request {
        plan: &plan,
        entry,
        target: None,
        gate: gate.as_ref(),
        proc: proc.as_fd(),
        rootless: rootless.is_some(),
        lock: Some(reserved.lock()),
    };
    let init = match spawn::spawn(request, &mut answers) {
        Ok(init) => init,
        Err(e) => {
            let e = cgroup.explain(e);
            drop(answers);
            drop(cgroup);
            if e.kind() == Kind::Hook {
                // The lifecycle goes on behind the container's end (runtime.md, "Lifecycle", steps 12 and 13).
                hooks::run_all(&config.spec, "poststop", &options.id, &options.bundle, "stopped", 0);
            }
            return Err(e);
        }
    };
    let (saved, master, devices) = (answers.saved, answers.master, answers.devices);
    let mut saved = saved.ok_or_else(|| Error::new(Kind::Init, "the container's init left out its hooks"))?;
    if std::mem::take(&mut saved.making) {
        reserved.save(&saved)?
    } else {
        reserved.publish()?
    }
    Ok(Made { plan, saved, init, master, devices, class, cgroup, reserved })
}

impl Made {
    /// Takes all of it back. A hook that failed, startContainer's among them, is followed by the poststop hooks.
    pub(super) fn abandon(self, e: Error) -> Error {
        let config = (e.kind() == Kind::Hook).then(|| Config::load(&self.reserved.dir.join("config.json")));
        let (id, bundle) = (self.saved.id.clone(), self.saved.bundle.clone());
        drop(self);
        if let Some(Ok(config)) = config {
            hooks::run_all(&config.spec, "poststop", &id, &bundle, "stopped", 0);
        }
        e
    }

    /// The state directory.
    pub(super) fn dir(&self) -> &Path {
        &self.reserved.dir
    }

    /// Tells the caller who the container is; from then on it stays.
    pub(super) fn finish(mut self, options: &CreateOptions) -> Result<(Container, Init, Option<console::Terminal>)> {
        super::tell(
            self.saved.init_process_pid,
            self.init.pidfd.as_fd(),
            options.pid_file.as_deref(),
            options.pidfd_socket.as_ref(),
        )?;
        self.init.disarm();
        self.cgroup.armed = false;
        self.devices.into_iter().for_each(Moved::commit);
        self.class.into_iter().for_each(resctrl::Made::commit);
        Ok((self.reserved.into_container(self.saved), self.init, self.master))
    }
}

/// Answers of a container that is being made.
pub(super) struct Creating<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a CreateOptions,
    pub(super) reserved: &'a Reserved,
    pub(super) rootfs: PathBuf,
    pub(super) cgroup: &'a dyn Cgroup,
    pub(super) proc: BorrowedFd<'a>,
    pub(super) class: Option<&'a resctrl::Made>,
    pub(super) devices: Option<Moved>,
    /// Where in its cgroup the process is to start, and whose that is then.
    pub(super) subgroup: &'a str,
    pub(super) owner: Option<u32>,
    /// The init asks when it is time for what the parent does before the container's own hooks: there is more than to write the state.
    pub(super) asked: bool,
    pub(super) saved: Option<Saved>,
    pub(super) master: Option<console::Terminal>,
}

impl Answers for Creating<'_> {
    fn born(&mut self, pid: i32) -> Result<()> {
        if !self.asked {
            // While the init makes its mounts. Nobody is to find it before it has left the host's root: exec would follow it there.
            let saved = self.saved(pid)?;
            self.reserved.prepare(&saved)?;
            self.saved = Some(saved);
        }
        Ok(())
    }

    fn devices(&mut self, pid: i32, socket: OwnedFd) -> Result<()> {
        self.devices = Some(netdevices::give(&self.config.spec, pid, socket, self.proc)?);
        Ok(())
    }

    fn hooks(&mut self, pid: i32) -> Result<()> {
        // Before the hooks, so that a half-made container can be killed by its id.
        let saved = Saved { making: true, ..self.saved(pid)? };
        self.reserved.save(&saved)?;
        if let Some(class) = self.class {
            class.group().enter(pid)?;
        }
        // Its cgroup namespace, which it has by now, begins at the container's cgroup.
        if !self.subgroup.is_empty() {
            self.cgroup.delegate(self.subgroup, pid, self.owner)?;
        }
        // prestart is deprecated: its hooks were written when they ran at start, in a container that was created.
        for (name, status) in [("prestart", "created"), ("createRuntime", "creating")] {
            hooks::run(&self.config.spec, name, &saved.id, &saved.bundle, status, pid)?;
        }
        self.saved = Some(saved);
        Ok(())
    }

    fn console(&mut self, master: OwnedFd) -> Result<()> {
        super::hand_over(master, self.options.console_socket.as_ref(), &mut self.master)
    }

    fn notify(&mut self, pid: i32, listener: OwnedFd) -> Result<()> {
        seccomp_agent::send(&self.config.spec, &self.options.id, &self.options.bundle, pid, listener)
    }
}

impl Creating<'_> {
    fn saved(&self, pid: i32) -> Result<Saved> {
        let start = state::stat(pid).map(|(_, start)| start);
        Ok(Saved {
            oci_version: crate::OCI_VERSION.to_string(),
            id: self.options.id.clone(),
            init_process_pid: pid,
            init_process_start: start
                .ok_or_else(|| Error::new(Kind::Init, "the container's init has ended during set-up"))?,
            created: log::rfc3339_nanos(SystemTime::now()),
            bundle: self.options.bundle.clone(),
            rootfs: self.rootfs.clone(),
            annotations: state::annotations(&self.config.spec),
            cgroup_paths: self.cgroup.paths().clone(),
            intel_rdt: self.class.map(|class| class.group().clone()),
            systemd: self.cgroup.unit().cloned(),
            private_pid: super::namespace(&self.config.spec, Ns::Pid).is_some_and(|path| path.is_none()),
            restored_time: false,
            late_hooks: ["poststart", "poststop"].iter().any(|kind| !hooks::list(&self.config.spec, kind).is_empty()),
            making: false,
        })
    }
}

/// The cgroups of a container that is being made: removed on drop.
pub(super) struct CgroupGuard {
    pub(super) cgroup: Box<dyn Cgroup>,
    pub(super) armed: bool,
}

impl CgroupGuard {
    /// An init that was killed in a cgroup with an OOM kill ran out of memory, and its limit is what to change.
    fn explain(&self, e: Error) -> Error {
        if e.kind() == Kind::Init && self.cgroup.oom_kills() > 0 {
            let why = "container init was OOM-killed (memory limit too low?)";
            return Error::new(Kind::Init, why).at("linux.resources.memory.limit");
        }
        e
    }
}

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if self.armed {
            // The first error is what the user must hear.
            let _ = self.cgroup.remove();
        }
    }
}

/// Whether we may copy mounts of our own mount namespace: it can belong to a user namespace above ours. That is asked only where the
/// answer counts, because a container without a user namespace takes them from its own.
fn host_trees(spec: &Spec, rootless: Option<Caller>) -> bool {
    let user = super::namespace(spec, Ns::User).is_some();
    rootless.is_none() && (!user || !matches!(mount::clone_tree(None, c"/", false, false), Err(Errno::EPERM)))
}

/// Whether the pid namespace that we are in is one of our user namespace: else setns(2) takes us out of it, and never back. That is asked
/// only where one is joined.
fn comes_back(spec: &Spec) -> bool {
    let stays = || file::open(c"/proc/self/ns/pid", file::O_RDONLY, 0).and_then(|own| process::setns(own.as_fd(), 0));
    !matches!(super::namespace(spec, Ns::Pid), Some(Some(_))) || !matches!(stays(), Err(Errno::EPERM))
}

pub(super) fn hierarchies(host: &cgroup::Host, mounts: &[Mount]) -> Result<Vec<cgroup::Hierarchy>> {
    let any = mounts.iter().any(|m| matches!(m.typ().as_deref(), Some("cgroup" | "cgroup2")));
    if any { host.hierarchies() } else { Ok(Vec::new()) }
}

/// Where procfs and sysfs are mounted outside the rootfs, the last mount first.
fn outer_proc_mounts(rootfs: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: procfs::ProcError| invalid("--no-pivot", format!("cannot read /proc/self/mountinfo: {e}"));
    let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo()).map_err(failed)?;
    let outer = mounts
        .into_iter()
        .filter(|m| matches!(m.fs_type.as_str(), "proc" | "sysfs") && !m.mount_point.starts_with(rootfs));
    let mut places: Vec<PathBuf> = outer.map(|m| m.mount_point).collect();
    places.reverse();
    Ok(places)
}

/// Decimal, without a newline, in a file that appears complete (callers wait for it).
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().ok_or_else(|| invalid("--pid-file", format!("{path:?} has no file name")))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(file::O_NOFOLLOW);
    let written = options.open(&temporary).and_then(|mut f| write!(f, "{pid}"));
    // The name of the hidden file, by which readers never see half a pid, would tell nobody anything.
    written.on("write", path.display()).map_err(|e| e.at("--pid-file"))?;
    std::fs::rename(&temporary, path).on("rename to", path.display()).map_err(|e| e.at("--pid-file"))
}

/// The pidfd's message as its receivers know it.
pub(super) fn send_pidfd(socket: &console::Socket, pidfd: std::os::fd::BorrowedFd) -> Result<()> {
    socket.send(pidfd, "pidfd").map_err(|e| e.at("--pidfd-socket"))
}
