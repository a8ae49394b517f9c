//! The plan: what config.json asks for, as a flat list of steps that the child of the one clone walks.
//!
//! Everything here is pure: no system call is made, so a plan can be tested without root, and printed. The child
//! needs no allocation because every string, mask and program is already built; the parent can name the field of a
//! failed step because it owns the same list. Read [`plan`] to know what a container is, in which order it is made,
//! and why in that order.

mod cgroup_mounts;
mod describe;
mod devices;
mod idmap;
pub(crate) mod memory_policy;
pub mod mount_options;
mod mounts;
pub(crate) mod namespaces;
pub(crate) mod process;
mod root;
pub mod seccomp;
mod step;
mod userns;

use crate::cgroup::Paths;
use crate::error::{Error, Kind, Result, invalid};
use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Process, Spec};
use orlop_sys::process::{self as sys, Strings};
use orlop_sys::status::Status;
use std::borrow::Cow;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(crate) use devices::paths as device_paths;
pub(crate) use mounts::{clean, destination};
pub(crate) use process::can_trace;
pub use step::{BindStep, DeviceStep, HookStep, Idmap, MountStep, Open, Planned, Step, Target, Tree};
pub use userns::{Caller, IdMap, Range};

/// What the plan has to know of the host and of the invocation, all of it gathered before.
#[derive(Debug)]
pub struct Input<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The absolute path of the rootfs on the host.
    pub rootfs: &'a Path,
    /// The absolute path of the bundle.
    pub bundle: &'a Path,
    /// The capabilities that this process may grant (its permitted set), one bit each.
    pub grantable: u64,
    /// The container's cgroup directories, to be bound where config.json mounts cgroups without a cgroup namespace.
    pub cgroup_paths: &'a Paths,
    /// The hierarchies of the host.
    pub hierarchies: &'a [crate::cgroup::Hierarchy],
    /// The child enters v1 hierarchies through this many `tasks` files.
    pub v1_tasks: usize,
    /// The child is born inside its v2 cgroup.
    pub into_cgroup: bool,
    /// Fds from 3 up that stay open in the container.
    pub preserve_fds: u32,
    /// `LISTEN_FDS` of the caller: that many more fds stay open, and the container is told so.
    pub listen_fds: u32,
    /// Use MS_MOVE and chroot instead of pivot_root (a rootfs on the initramfs): where procfs and sysfs are mounted on
    /// the host outside the rootfs, the last one first.
    pub no_pivot: Option<Vec<std::path::PathBuf>>,
    /// Leave the caller's session keyring.
    pub no_new_keyring: bool,
    /// A directory with a `notify.sock` to be mounted at /run/notify (sd_notify(3)).
    pub notify_dir: Option<&'a Path>,
    /// The caller, when it is not root: its only rights are those in the container's user namespace.
    pub rootless: Option<Caller>,
    /// The caller may detach copies of its own mounts (open_tree(2)); else the child takes them from its mount namespace.
    pub host_trees: bool,
    /// The caller may return to its own pid namespace when it has joined another one: that belongs to its user namespace.
    pub comes_back: bool,
    /// The parent has something to do before the container's own hooks, when the namespaces and mounts are there.
    pub asks: bool,
    /// Who this process is, where that is known: what the child is by its birth need not be set. `None`: all is set.
    pub own: Option<Status>,
}

/// All that is to be done, in order.
#[derive(Debug)]
pub struct Plan {
    /// CLONE_NEW* flags of the one clone.
    pub clone_flags: u64,
    /// Namespaces that decide where the child is born: the parent (or the hop) joins them: (index into opens, kind).
    pub before_clone: Vec<(usize, i32)>,
    /// One more process is needed: namespaces are joined from the host's user namespace, before the child is in its own.
    pub hop: bool,
    /// Id maps of a new user namespace.
    pub maps: Option<IdMap>,
    /// (index, resource, soft, hard) of the limits that the parent sets when the child has lost the right to, in its new user namespace.
    pub parent_rlimits: Vec<(usize, u32, u64, u64)>,
    /// The same for oom_score_adj.
    pub parent_oom: Option<CString>,
    /// This many steps are the hop's, because it has the host's rights, which pass on to its child.
    pub hop_steps: usize,
    /// Opened before the clone, with the field of each.
    pub opens: Vec<(Open, Cow<'static, str>)>,
    /// What the child does.
    pub steps: Vec<Planned>,
    /// Candidates for the program, in the order of $PATH.
    pub programs: Vec<CString>,
    /// Arguments of the program.
    pub args: Strings,
    /// Its environment.
    pub env: Strings,
    /// The entry of the environment that [`Step::Home`] replaces.
    pub home: Option<usize>,
    /// A limit of open files below what the set-up itself needs: (index among the limits, soft, hard), set when all that is closed.
    pub late_files: Option<(usize, u64, u64)>,
    /// When a step fails, what those before it have mounted is unmounted again: the mount namespace is one that stays.
    pub all_or_nothing: bool,
    /// Settings that the host cannot grant and that the specification lets us leave out.
    pub warnings: Vec<String>,
}

impl Plan {
    fn empty() -> Plan {
        Plan {
            clone_flags: 0,
            before_clone: Vec::new(),
            hop: false,
            maps: None,
            parent_rlimits: Vec::new(),
            parent_oom: None,
            hop_steps: 0,
            opens: Vec::new(),
            steps: Vec::with_capacity(96),
            programs: Vec::new(),
            args: Strings::new(Vec::new()),
            env: Strings::new(Vec::new()),
            home: None,
            late_files: None,
            all_or_nothing: false,
            warnings: Vec::new(),
        }
    }

    fn push(&mut self, field: impl Into<Cow<'static, str>>, step: Step) {
        self.steps.push(Planned { step, field: field.into() });
    }

    fn open(&mut self, field: impl Into<Cow<'static, str>>, open: Open) -> usize {
        self.opens.push((open, field.into()));
        self.opens.len() - 1
    }
}

/// The plan of a new container.
pub fn plan(spec: &Spec, input: &Input) -> Result<Plan> {
    let nothing = no_process();
    let process = spec.process().as_ref().unwrap_or(&nothing);
    let ns = namespaces::Namespaces::of(spec)?;
    if let Some(own) = input.rootless {
        userns::check_rootless(spec, &ns, own)?;
    }
    userns::check_process(process, spec, &ns, input.rootless)?;
    let mut p = Plan::empty();

    // First of all what needs the rights of the host: a new user namespace takes them away.
    p.limits(process, ns.new_user(), most_files(spec), input);
    p.oom_score(process, ns.new_user())?;
    let with_rights = p.steps.len();
    p.open_labels(process);
    // Not the caller's, which may be that of a service pinned to some CPUs; the cpuset cgroup narrows it down.
    p.push("", Step::Affinity(process::ALL_CPUS.to_vec()));
    // Limits hold from here on, so that all that follows is charged to the container.
    if input.v1_tasks > 0 {
        p.push("linux.cgroupsPath", Step::EnterCgroups);
    }
    // User namespace first among the joined ones: the others may belong to it.
    p.namespaces(spec, &ns, input)?;
    if p.hop {
        p.hop_steps = with_rights;
    }
    p.session(process);
    if !input.no_new_keyring {
        p.push("", Step::Keyring(c_string(format!("_ses.{}", input.id), "id")?, true));
    }
    p.network_devices(spec, input)?;
    // Sysctls go through the host's /proc, which no container can have touched (CVE-2025-52881); those of the
    // network, IPC and UTS namespaces are of the namespaces that this process is in by now.
    p.sysctls(spec)?;
    if ns.new_one(Ns::Network) {
        p.push("linux.namespaces", Step::Loopback);
    }
    p.names(spec)?;

    p.root(spec, &ns, input)?;
    p.mounts(spec, &ns, input)?;
    p.devices(spec, &ns, input)?;
    p.console(process, &ns);
    // What the process will stand in exists before the root may become read-only.
    p.working_directory(process)?;
    // Hooks of the host see the namespaces and the mounts, and may still add to them.
    if input.asks {
        p.push("hooks", Step::AskHooks);
    }
    p.hooks(spec, "createContainer", spec.hooks().as_ref().and_then(|h| h.create_container().as_ref()), input, &ns)?;
    // Masks and read-only paths come after the hooks, and are reached by fd below the root, not by a path in it (CVE-2025-31133).
    p.masks(spec, &ns)?;
    p.enter_root(spec, &ns, input)?;

    p.tuning(process, spec)?;
    p.labels(process)?;
    p.end(spec, process, &ns, input)?;
    Ok(p)
}

/// The end of [`plan`], from the identity on: what `start` needs to name a step that failed behind the gate.
pub fn plan_tail(spec: &Spec, process: &Process, input: &Input) -> Result<Plan> {
    let ns = namespaces::Namespaces::of(spec)?;
    let mut p = Plan::empty();
    p.end(spec, process, &ns, input)?;
    Ok(p)
}

/// In [`Plan::before_clone`], instead of an index into [`Plan::opens`]: the namespace of the process that exec is for.
pub const TARGET: usize = usize::MAX;

/// crun's annotation: the supplementary groups of the caller stay, because they give access to what is bound into the container.
fn keeps_groups(spec: &Spec) -> bool {
    let annotation = spec.annotations().as_ref().and_then(|all| all.get("run.oci.keep_original_groups"));
    annotation.is_some_and(|value| value != "0")
}

/// The plan of one more process in a running container; `join` are the CLONE_NEW* flags of its init's namespaces.
pub fn plan_exec(spec: &Spec, process: &Process, input: &Input, join: i32) -> Result<Plan> {
    let ns = namespaces::Namespaces::of(spec)?;
    let mut p = Plan::empty();
    userns::check_process(process, spec, &ns, input.rootless)?;
    p.limits(process, false, OTHER_FILES as u64, input);
    p.oom_score(process, false)?;
    // The rights in the container's other namespaces come from being inside its user namespace.
    p.hop = input.rootless.is_some() && join & sys::CLONE_NEWUSER != 0;
    let join = if p.hop {
        p.hop_steps = p.steps.len();
        p.before_clone.push((TARGET, sys::CLONE_NEWUSER));
        join & !sys::CLONE_NEWUSER
    } else {
        join
    };
    if ns.has(Ns::Pid) {
        p.before_clone.push((TARGET, sys::CLONE_NEWPID));
    }
    p.open_labels(process);
    p.initial_affinity(process)?;
    if input.v1_tasks > 0 {
        p.push("linux.cgroupsPath", Step::EnterCgroups);
    }
    if join != 0 {
        p.push("", Step::JoinInit(join));
    }
    if ns.has(Ns::User) {
        p.push("linux.namespaces", Step::BecomeRoot(!keeps_groups(spec)));
    }
    p.session(process);
    if !input.no_new_keyring {
        p.push("", Step::Keyring(c_string(format!("_ses.{}", input.id), "id")?, false));
    }
    if process.terminal().unwrap_or(false) {
        p.push("process.terminal", Step::Console(console_size(process), false));
    }
    p.tuning(process, spec)?;
    p.final_affinity(process)?;
    p.labels(process)?;
    p.identity(process, spec, &ns, input)?;
    p.program(process, &ns, input)?;
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    p.last_steps(process, seccomp, input, false, |_| Ok(()))?;
    Ok(p)
}

/// The plan of mounts that are added to a running container, by a process that joins these namespaces of its init.
pub fn plan_add(spec: &Spec, list: &[Mount], input: &Input, join: i32, pid: i32) -> Result<Plan> {
    let ns = namespaces::Namespaces::of(spec)?;
    let mut p = Plan::empty();
    p.all_or_nothing = true;
    p.enter(&ns, join);
    p.added_mounts(spec, list, &ns, input, pid)?;
    p.push("", Step::Ready);
    Ok(p)
}

/// The plan of removing what is mounted at the destinations of these mounts: first all are looked for, then the last one goes first.
pub fn plan_remove(spec: &Spec, list: &[Mount], input: &Input, join: i32) -> Result<Plan> {
    let ns = namespaces::Namespaces::of(spec)?;
    let mut p = Plan::empty();
    p.enter(&ns, join);
    p.removed_mounts(list, input)?;
    p.push("", Step::Ready);
    Ok(p)
}

impl Plan {
    /// Into the namespaces of a running container, to work below its root.
    fn enter(&mut self, ns: &namespaces::Namespaces, join: i32) {
        self.push("", Step::JoinInit(join));
        if ns.has(Ns::User) {
            self.push("linux.namespaces", Step::BecomeRoot(true));
        }
        // setns(2) has made the root of the mount namespace ours.
        self.push("root.path", Step::OpenRoot(c"/".into()));
    }

    /// Who the process is, what it executes, and the gate before that.
    fn end(&mut self, spec: &Spec, process: &Process, ns: &namespaces::Namespaces, input: &Input) -> Result<()> {
        self.identity(process, spec, ns, input)?;
        if spec.process().is_none() {
            self.push("", Step::CloseFrom(3));
            self.late_files();
            self.push("", Step::Ready);
            self.push("", Step::Gate);
            // With no program it fails, which is what `start` must do.
            self.push("process", Step::Exec);
            return Ok(());
        }
        self.program(process, ns, input)?;
        let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
        let start_hooks = spec.hooks().as_ref().and_then(|h| h.start_container().as_ref());
        let open = input.rootless.is_some() && ns.new_user();
        self.last_steps(process, seccomp, input, open, |p| p.hooks(spec, "startContainer", start_hooks, input, ns))
    }

    /// A new session, which a terminal makes by itself when it becomes the controlling one.
    fn session(&mut self, process: &Process) {
        if !process.terminal().unwrap_or(false) {
            self.push("", Step::NewSession);
        }
    }
}

/// Beside what config.json lists; those that are left open until all is closed (`fds::Left`) are fewer than 60.
const OTHER_FILES: usize = 64 + 60;

/// How many files the set-up may have open at once: sources, namespaces and devices, and what stands below them.
fn most_files(spec: &Spec) -> u64 {
    let linux = spec.linux().as_ref();
    let devices = linux.and_then(|l| l.devices().as_ref()).map_or(0, Vec::len);
    // An idmapped mount has a user namespace beside its source.
    (2 * spec.mounts().as_ref().map_or(0, Vec::len) + devices + OTHER_FILES) as u64
}

/// What a container without `process` waits as: it is needed for start only (config.md, "Process").
fn no_process() -> Process {
    let mut process = Process::default();
    process.set_cwd("/".into()).set_args(None).set_env(None).set_rlimits(None).set_no_new_privileges(None);
    process.set_capabilities(None);
    process
}

fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    Some((size.height() as u16, size.width() as u16))
}

/// A string of config.json for the kernel: NUL is the one byte that it cannot hold.
pub(crate) fn c_string(text: impl Into<Vec<u8>>, field: impl Into<String>) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(field, "contains a NUL byte"))
}

fn c_path(path: &Path, field: &str) -> Result<CString> {
    c_string(path.as_os_str().as_bytes(), field)
}

/// A feature that this build refuses by name rather than ignore.
pub(crate) fn unsupported(field: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::Invalid, what).at(field)
}
