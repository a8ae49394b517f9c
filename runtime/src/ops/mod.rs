//! The operations: one verb, one file, one public function. Their options are plain values; the command line and the shim
//! both make them.

pub mod list;
mod pending;
pub mod ps;
pub mod spec;
pub use pending::{create, delete, exec, kill, pause, resume, run, start, state};

use std::path::{Path, PathBuf};

/// What holds for every verb.
#[derive(Clone, Debug)]
pub struct Global {
    /// The directory that holds one directory of state per container: absolute, and never `/`.
    pub root: PathBuf,
    /// Cgroups are made by systemd; `linux.cgroupsPath` is then `slice:prefix:name`.
    pub systemd_cgroup: bool,
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
    /// The directory of config.json: absolute.
    pub bundle: PathBuf,
    /// An AF_UNIX socket that receives the master of the container's terminal.
    pub console_socket: Option<PathBuf>,
    /// An AF_UNIX socket that receives a pidfd of the init.
    pub pidfd_socket: Option<PathBuf>,
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
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The id of a running container.
    pub id: String,
    /// A file with an OCI `process` object; the flags that change the container's own `process` are then without effect.
    pub process: Option<PathBuf>,
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
    /// An AF_UNIX socket that receives the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// An AF_UNIX socket that receives a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// The file that receives the pid, decimal, without a newline: absolute.
    pub pid_file: Option<PathBuf>,
    /// The SELinux label of the process.
    pub process_label: Option<String>,
    /// The AppArmor profile of the process.
    pub apparmor: Option<String>,
    /// Set no_new_privs; without it, as the container's own process has it.
    pub no_new_privs: bool,
    /// Capabilities to add, by name.
    pub cap: Vec<String>,
    /// How many fds from 3 on the process inherits.
    pub preserve_fds: u32,
    /// Sub-cgroups to run in, each `[controller[,controller]:]path`.
    pub cgroup: Vec<String>,
    /// Go ahead in a paused container; the process starts when it is resumed.
    pub ignore_paused: bool,
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
