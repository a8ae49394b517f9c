//! The operations: one verb, one file, one public function. Their options are plain values; the command line and the shim
//! both make them.

pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod mounts;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
mod select;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::cgroup::Driver;
use crate::console;
use crate::criu::rpc::{CgroupMode, NetworkLock};
use crate::diagnose;
use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::{self, Input, Plan};
use crate::state::{Container, Saved};
use crate::sync::Frame;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use orlop_sys::{fds, process, status};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What holds for every verb.
#[derive(Clone, Debug)]
pub struct Global {
    /// The directory that holds one directory of state per container: absolute, and never `/`.
    pub root: PathBuf,
    /// Who makes the cgroups of new containers.
    pub cgroups: Driver,
    /// Whether failures to manage cgroups are accepted, as rootless needs it; `None`: find out.
    pub rootless: Option<bool>,
    /// Debug messages are wanted.
    pub debug: bool,
}

/// Options of `create`.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The id of the new container.
    pub id: String,
    /// The bundle's directory: absolute.
    pub bundle: PathBuf,
    /// The configuration, absolute; without one, `config.json` in the bundle.
    pub config: Option<PathBuf>,
    /// What receives the master of the container's terminal.
    pub console_socket: Option<console::Socket>,
    /// An AF_UNIX socket that receives a pidfd of the init.
    pub pidfd_socket: Option<console::Socket>,
    /// The file that receives the init's pid, decimal, without a newline: absolute.
    pub pid_file: Option<PathBuf>,
    /// Use chroot(2) after moving the mount instead of pivot_root(2), for a root file system on a ramdisk.
    pub no_pivot: bool,
    /// Keep the caller's session keyring instead of joining a new one.
    pub no_new_keyring: bool,
    /// How many fds from 3 on the container's process inherits, after those of `LISTEN_FDS`.
    pub preserve_fds: u32,
}

/// Options of `run`.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Those of `create`.
    pub create: CreateOptions,
    /// Return when the process has started.
    pub detach: bool,
    /// Do not delete the container when its process has ended.
    pub keep: bool,
    /// Leave orphans of the container to the host's init.
    pub no_subreaper: bool,
}

/// Options of `exec`.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// The id of a running container.
    pub id: String,
    /// An OCI `process` object; the options that change the container's own `process` are then without effect.
    pub process: Option<ProcessJson>,
    /// The command and its arguments; may be empty only with `process`.
    pub args: Vec<String>,
    /// The working directory, a path in the container.
    pub cwd: Option<String>,
    /// `NAME=value`, added to the environment of the container's own process.
    pub env: Vec<String>,
    /// Give the process a terminal.
    pub tty: bool,
    /// `uid[:gid]`, decimal.
    pub user: Option<String>,
    /// Supplementary groups, added to those of the container's own process.
    pub additional_gids: Vec<u32>,
    /// Return when the process has started.
    pub detach: bool,
    /// What receives the master of the terminal.
    pub console_socket: Option<console::Socket>,
    /// An AF_UNIX socket that receives a pidfd of the process, before that executes its program.
    pub pidfd_socket: Option<console::Socket>,
    /// The file that receives the pid, decimal, without a newline: absolute.
    pub pid_file: Option<PathBuf>,
    /// The SELinux label of the process.
    pub process_label: Option<String>,
    /// The AppArmor profile of the process.
    pub apparmor: Option<String>,
    /// Set or clear no_new_privs; `None`: as the container's own process has it.
    pub no_new_privs: Option<bool>,
    /// Capabilities to add, by name.
    pub cap: Vec<String>,
    /// How many fds from 3 on the process inherits.
    pub preserve_fds: u32,
    /// Sub-cgroups to run in, each `[controller[,controller]:]path`.
    pub cgroup: Vec<String>,
    /// Go ahead in a paused container; the process starts when it is resumed.
    pub ignore_paused: bool,
}

/// Options of `events`.
#[derive(Clone, Debug)]
pub struct EventsOptions {
    /// The id of a container that has not ended.
    pub id: String,
    /// The statistics once, and nothing else.
    pub stats: bool,
    /// Between two statistics: more than 0.
    pub interval: Duration,
}

/// The text of an OCI `process` object.
#[derive(Clone, Debug)]
pub struct ProcessJson {
    /// What errors call it: the path that it was read from.
    pub name: PathBuf,
    /// JSON.
    pub text: Vec<u8>,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Clone, Debug)]
pub struct CriuOptions {
    /// The directory of the images: absolute.
    pub image_path: PathBuf,
    /// The directory of CRIU's log: absolute; `None`: that of the images.
    pub work_path: Option<PathBuf>,
    /// Keep established TCP connections.
    pub tcp_established: bool,
    /// Unix sockets may be connected to the outside.
    pub ext_unix_sk: bool,
    /// The processes may belong to a session of the outside.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Memory is fetched when it is used.
    pub lazy_pages: bool,
    /// Punch out of the images what a newer dump has, or what was read.
    pub auto_dedup: bool,
    /// What to do about cgroups.
    pub manage_cgroups_mode: CgroupMode,
    /// How packets are held back meanwhile; `None`: CRIU's own choice.
    pub network_lock: Option<NetworkLock>,
}

/// Options of `checkpoint`.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// The id of a running or paused container.
    pub id: String,
    /// Those of CRIU.
    pub criu: CriuOptions,
    /// The images of the pre-dump before, relative to the new ones.
    pub parent_path: Option<PathBuf>,
    /// Do not end the container.
    pub leave_running: bool,
    /// Leave out TCP connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Give files that were removed while they were open a name again.
    pub link_remap: bool,
    /// Write the memory alone, and do not end the container.
    pub pre_dump: bool,
    /// An fd of the caller's that gets a NUL when lazy pages can be fetched.
    pub status_fd: Option<i32>,
    /// Address and port for the memory: to send it to, or with lazy pages to serve it on.
    pub page_server: Option<(String, u16)>,
}

/// Options of `restore`.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Those of `create`. CRIU enters the root file system in its own way, and without a keyring.
    pub create: CreateOptions,
    /// Those of CRIU.
    pub criu: CriuOptions,
    /// Restore TCP connections as closed.
    pub tcp_close: bool,
    /// Another security profile, `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// Another SELinux context for mounts.
    pub lsm_mount_context: Option<String>,
    /// Return when the container runs.
    pub detach: bool,
    /// Leave orphans of the container to the host's init.
    pub no_subreaper: bool,
}

/// Options of `update`.
#[derive(Clone, Debug)]
pub struct UpdateOptions {
    /// The id of a container that has not ended.
    pub id: String,
    /// The limits to change, as the JSON of a `linux.resources`.
    pub resources: Vec<u8>,
    /// Lines for the schemata of its class of service (Intel RDT), and the flag of each.
    pub schemata: Vec<(&'static str, String)>,
}

/// Where state is kept when `--root` is not given: `/run/orlop`, or `$XDG_RUNTIME_DIR/orlop` (the second value is then
/// true) for a user who cannot write to `/run`: not root, or root of a user namespace under another name than "root".
pub fn default_root() -> (PathBuf, bool) {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime_dir {
        Some(dir) if uses_runtime_dir() => (Path::new(&dir).join("orlop"), true),
        _ => (PathBuf::from("/run/orlop"), false),
    }
}

fn uses_runtime_dir() -> bool {
    orlop_sys::process::euid() != 0 || in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// The initial user namespace alone maps all 2^32 - 1 ids onto themselves (user_namespaces(7)).
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
}

/// Whether systemd is that of the calling user: without the rights of the host's root, the host's would refuse. Root of a user
/// namespace may be a user, whose session has an address, or the root of a container with a systemd of its own.
fn user_manager(global: &Global) -> bool {
    let session =
        || ["DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    global.cgroups == Driver::Systemd
        && global.rootless.unwrap_or_else(|| process::euid() != 0 || (in_user_namespace() && session()))
}

/// Who calls, unless it is root: of the host, or of the user namespace that we were started in.
fn caller() -> Option<plan::Caller> {
    match process::euid() {
        0 => None,
        uid => Some(plan::Caller { uid, gid: process::egid() }),
    }
}

/// A namespace of config.json: `None`, not listed; `Some(None)`, new; `Some(Some(path))`, joined.
fn namespace(spec: &Spec, kind: LinuxNamespaceType) -> Option<Option<&Path>> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    let found = list.iter().find(|n| n.typ() == kind)?;
    Some(found.path().as_deref().filter(|path| !path.as_os_str().is_empty()))
}

/// A terminal that nobody serves would hang the process; a socket for a terminal that there is not is a mistake.
fn check_terminal(terminal: bool, socket: bool, detached: bool) -> Result<()> {
    match (terminal, socket) {
        (true, false) if detached => {
            Err(Error::new(Kind::Invalid, "cannot allocate tty if runc will detach without setting console socket")
                .hint("add --console-socket"))
        }
        (_, true) if !terminal || !detached => {
            Err(Error::new(Kind::Invalid, "cannot use console socket if runc will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// LISTEN_FDS of a socket-activating caller. Meant for another process (sd_listen_fds(3), LISTEN_PID) it says nothing of our fds: a
/// service's helpers inherit the variables, and what is open at 3 is then a file of the host.
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u32>().ok());
    if number("LISTEN_PID").is_some_and(|pid| pid == std::process::id()) {
        number("LISTEN_FDS").unwrap_or(0)
    } else {
        0
    }
}

/// `flag` of --preserve-fds and `listen` of LISTEN_FDS, from 3 on.
fn check_preserved(flag: u32, listen: u32) -> Result<()> {
    let count = flag.checked_add(listen).filter(|count| i32::try_from(*count).is_ok_and(|n| n < i32::MAX - 3));
    let count = count.ok_or_else(|| invalid("--preserve-fds", format!("{flag} is more than a process can have")))?;
    for fd in 3..3 + count as i32 {
        if !fds::is_inherited(fd) {
            return Err(invalid("--preserve-fds", format!("fd {fd} is not open (of {count} to be kept from 3 on)")));
        }
    }
    Ok(())
}

/// Tells the caller who the process is.
fn tell(pid: i32, pidfd: BorrowedFd, pid_file: Option<&Path>, pidfd_socket: Option<&console::Socket>) -> Result<()> {
    if let Some(path) = pid_file {
        create::write_pid_file(path, pid)?;
    }
    match pidfd_socket {
        Some(socket) => create::send_pidfd(socket, pidfd),
        None => Ok(()),
    }
}

/// The master of a terminal goes to the console socket, or stays with us.
fn hand_over(master: OwnedFd, socket: Option<&console::Socket>, ours: &mut Option<console::Terminal>) -> Result<()> {
    match socket {
        Some(socket) => {
            let number = orlop_sys::terminal::number(master.as_fd()).on("ioctl TIOCGPTN", "the terminal")?;
            let name = format!("/dev/pts/{number}");
            socket.send(master.as_fd(), &name).map_err(|e| e.at("--console-socket"))
        }
        None => {
            // Now, before the process runs and writes.
            *ours = Some(console::Terminal::attach(master)?);
            Ok(())
        }
    }
}

/// The error of a step behind the gate, which the init has counted from the end of its plan.
fn tail_failure(container: &Container, frame: &Frame, said: &str) -> Result<Error> {
    let config = container.config()?;
    let saved = &container.saved;
    let input = input(saved)?;
    let plan = plan::plan_tail(&config.spec, config.process()?, &input)?;
    let step = (plan.steps.len() as u16).saturating_sub(1).saturating_sub(frame.step);
    Ok(explain_exec(plan.failure(&Frame { step, ..*frame }, said), &plan, &saved.rootfs))
}

/// For one more process in a container that is there: by itself it enters no cgroup, gets no fd, and mounts nothing of ours.
fn input(container: &Saved) -> Result<Input<'_>> {
    Ok(Input {
        id: &container.id,
        rootfs: &container.rootfs,
        bundle: &container.bundle,
        grantable: process::permitted().on("capget", "")?,
        cgroup_paths: &container.cgroup_paths,
        hierarchies: &[],
        v1_tasks: 0,
        into_cgroup: false,
        preserve_fds: 0,
        listen_fds: 0,
        no_pivot: None,
        no_new_keyring: true,
        notify_dir: None,
        rootless: caller(),
        host_trees: true,
        comes_back: true,
        asks: false,
        own: status::known().copied(),
    })
}

/// Why a program that is there cannot be executed, when the file itself tells.
fn explain_exec(e: Error, plan: &Plan, rootfs: &Path) -> Error {
    if e.kind() != Kind::Exec {
        return e;
    }
    match plan.programs.iter().find_map(|program| diagnose::program(rootfs, program)) {
        Some(hint) => e.hint(hint),
        None => e,
    }
}
