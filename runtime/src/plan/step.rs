//! What a plan is made of: the steps of the child, and the files that the parent opens for them.

use super::IdMap;
use orlop_sys::bpf::Insn;
use orlop_sys::mount::Attr;
use orlop_sys::process::{Capabilities, SchedAttr, Strings};
use std::borrow::Cow;
use std::ffi::{CStr, CString};

/// A file that the parent opens before the clone; steps refer to it by its place in [`Plan::opens`].
#[derive(Debug, PartialEq, Eq)]
pub enum Open {
    /// A detached copy of the mount at this path of the host.
    Tree {
        /// Where.
        path: CString,
        /// With all that is mounted below.
        recursive: bool,
        /// A symlink at the end of the path is not followed.
        nofollow: bool,
        /// How its ids are shown, if not as they are.
        idmap: Option<Idmap>,
    },
    /// A new user namespace with these maps and nobody in it, for idmapped mounts.
    UserNamespace(IdMap),
    /// A namespace file.
    Namespace {
        /// The path of the nsfs file.
        path: CString,
        /// Which kind it must be: a CLONE_NEW* flag.
        kind: i32,
    },
}

/// How the ids of a tree are shown (mount_setattr(2), MOUNT_ATTR_IDMAP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idmap {
    /// The user namespace with the maps (index into [`Plan::opens`]).
    pub userns: usize,
    /// On every mount of the tree.
    pub whole: bool,
}

/// Where in the container's file system a step works, below the rootfs that is held by an fd.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The path inside the container, absolute.
    pub path: CString,
    /// No component may be a symlink: /proc and /sys themselves (CVE-2019-19921, CVE-2023-27561).
    pub no_symlinks: bool,
    /// The path is on the list of files below /proc that may be mounted over.
    pub proc_allowed: bool,
    /// A symlink that stands there is mounted over, not followed.
    pub nofollow: bool,
}

/// A new file system.
#[derive(Debug, PartialEq, Eq)]
pub struct MountStep {
    /// Type of the file system.
    pub fs: CString,
    /// What is shown as its source.
    pub source: CString,
    /// Where.
    pub target: Target,
    /// MS_* flags of mount(2).
    pub flags: u64,
    /// The file system's own options.
    pub data: CString,
    /// Where each of them stands among the options of config.json.
    pub data_at: Vec<usize>,
    /// A tmpfs without `mode=` gets the mode of the directory that it covers.
    pub keep_mode: bool,
    /// What the directory held is copied into the tmpfs.
    pub copy_up: bool,
    /// Attributes of the new mount that mount(2) cannot set, or that come after the copying.
    pub attr: Attr,
    /// Attributes with the `r` prefix.
    pub recursive: Attr,
    /// MS_SHARED and such, with or without MS_REC, one after the other.
    pub propagation: Vec<u64>,
    /// If the kernel refuses (EPERM or EBUSY), bind this tree instead, with all below it or without: what a user namespace keeps
    /// from being mounted anew.
    pub fallback: Option<(Tree, bool)>,
}

/// Where the tree of a bind mount comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Tree {
    /// Detached before the clone (index into [`Plan::opens`]): from inside a user namespace the way to it may be closed.
    Opened(usize),
    /// A path of the host, as the child's own mount namespace still has it. Mounts are then made, and numbered, in the order of
    /// config.json, which is the order of mountinfo since Linux 6.8.
    Host(CString),
    /// A path in the container, for a source below the rootfs: it shows the mounts that were made there before.
    Root(CString),
}

/// A bind mount.
#[derive(Debug, PartialEq, Eq)]
pub struct BindStep {
    /// What is bound.
    pub tree: Tree,
    /// With all that is mounted below it.
    pub whole: bool,
    /// A symlink at the end of the source's path is not followed.
    pub nofollow: bool,
    /// It is known to be a directory, not on procfs.
    pub directory: bool,
    /// If the source is a symlink, make one like it instead of a mount.
    pub copy_symlink: bool,
    /// What the source is mounted with cannot be taken away: the host's, in a user namespace.
    pub locked: bool,
    /// How its ids are shown; of [`Tree::Opened`] it was done when it was opened.
    pub idmap: Option<Idmap>,
    /// Where.
    pub target: Target,
    /// Attributes of the topmost mount.
    pub attr: Attr,
    /// Attributes with the `r` prefix, of every mount of the tree.
    pub recursive: Attr,
    /// MS_SHARED and such, with or without MS_REC, one after the other.
    pub propagation: Vec<u64>,
}

/// A device node.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceStep {
    /// Absolute path inside the container.
    pub path: CString,
    /// Type and permission bits.
    pub mode: u32,
    /// The device's number.
    pub device: u64,
    /// Owner and group inside the container.
    pub owner: (u32, u32),
    /// config.json has asked for this number.
    pub exact: bool,
    /// In a user namespace mknod(2) is denied: bind the host's node instead. [`Tree::Host`]: only when it has been denied.
    pub tree: Tree,
}

/// A hook that the child runs: createContainer and startContainer.
#[derive(Debug)]
pub struct HookStep {
    /// The program.
    pub path: CString,
    /// The working directory is the rootfs; else the container's root, and the bundle for hooks of the host.
    pub in_rootfs: bool,
    /// Its arguments, the zeroth included.
    pub args: Strings,
    /// Its whole environment: never anything of the caller's or the image's (CVE-2025-23266).
    pub env: Strings,
    /// Milliseconds after which it is killed; negative: never.
    pub timeout_ms: i32,
    /// The state JSON up to the pid's digits, and from there on.
    pub state: (Vec<u8>, Vec<u8>),
    /// The seccomp filter, and its flags, that the hook runs under.
    pub filter: Option<(Vec<Insn>, u32)>,
}

/// One thing that the child does. The order of the list is the order of the work.
#[derive(Debug)]
pub enum Step {
    /// Writes `0` into each v1 `tasks` file.
    EnterCgroups,
    /// setrlimit(2): resource, soft, hard.
    Rlimit(u32, u64, u64),
    /// Writes the value into this file of the host's /proc/self.
    ProcSelf(&'static CStr, CString),
    /// Opens this file of /proc/self for a later [`Step::WriteLabel`].
    OpenLabel(&'static CStr),
    /// setns(2) of an opened namespace, by its index and kind.
    Join(usize, i32),
    /// setns(2) of several kinds at once into the namespaces of the container's init.
    JoinInit(i32),
    /// Asks the parent to write the id maps.
    AskMaps,
    /// Becomes root of the user namespace; whether the caller's supplementary groups go.
    BecomeRoot(bool),
    /// PR_SET_DUMPABLE: off, nobody without rights over the host may trace this process, open its files or join its namespaces
    /// (CVE-2016-9962).
    Dumpable(bool),
    /// unshare(2).
    Unshare(i32),
    /// Enters a new time namespace with this text in its timens_offsets.
    TimeOffsets(Vec<u8>),
    /// setsid(2).
    NewSession,
    /// Joins a new session keyring of this name.
    Keyring(CString, bool),
    /// mount(2) of `/` with these propagation flags.
    Propagate(u64),
    /// Makes the mount that the rootfs lies on private, which pivot_root(2) asks for.
    PrivateParent(CString),
    /// Binds the rootfs over itself and holds it by an fd.
    BindRoot(CString),
    /// Holds the rootfs by an fd without binding it: no mount namespace of our own.
    OpenRoot(CString),
    /// A new file system.
    Mount(Box<MountStep>),
    /// A bind mount.
    Bind(Box<BindStep>),
    /// Something is mounted there.
    Mounted(Target),
    /// umount2(2) of the topmost mount there, with what is mounted below it, as soon as nobody uses it.
    Unmount(Target),
    /// Makes a directory and the way to it.
    Directory(CString),
    /// A device node.
    Device(Box<DeviceStep>),
    /// A symlink (target, path); one that is there already stays.
    Symlink(CString, CString),
    /// Replaces /dev/ptmx by a symlink to pts/ptmx.
    Ptmx,
    /// A pty of the container's devpts: rows and columns; whether its slave is bound to /dev/console.
    Console(Option<(u16, u16)>, bool),
    /// Asks the parent to move network devices here, with a socket that speaks of this network namespace.
    AskDevices,
    /// Asks the parent to run prestart and createRuntime hooks.
    AskHooks,
    /// Runs a hook.
    Hook(Box<HookStep>),
    /// Changes attributes of the mount at this path, or also of all below it.
    SetAttr(CString, Attr, bool),
    /// Covers the path, if it is there, with an empty directory or the null device.
    Mask(CString),
    /// Makes the path, if it is there, read-only.
    Readonly(CString),
    /// Makes the root mount read-only.
    ReadonlyRoot,
    /// Writes the value to this file below /proc/sys.
    Sysctl(CString, CString),
    /// pivot_root(2) into the rootfs; whether the old root must be made a slave before it is unmounted.
    Pivot(bool),
    /// MS_MOVE of the rootfs to `/`, then chroot(2); mounts of procfs and sysfs to be taken away before.
    MoveRoot(Vec<CString>),
    /// chroot(2) alone: no mount namespace.
    Chroot,
    /// Standard streams on the host's /dev/null are opened anew inside the container.
    ReopenNull,
    /// Sets the loopback interface of a new network namespace up.
    Loopback,
    /// sethostname(2).
    Hostname(CString),
    /// setdomainname(2).
    Domainname(CString),
    /// sched_setattr(2).
    Scheduler(SchedAttr),
    /// ioprio_set(2).
    IoPriority(u32),
    /// sched_setaffinity(2).
    Affinity(Vec<u64>),
    /// set_mempolicy(2): the mode with its flags, and the memory nodes as bits.
    MemoryPolicy(u32, Vec<u64>),
    /// personality(2).
    Personality(u32),
    /// umask(2).
    Umask(u32),
    /// Drops these from the bounding set, as far as the kernel has them.
    Bounding(u64),
    /// Standard streams get this owner, so that the user can open them again.
    StdioOwner(u32),
    /// setgroups(2), setresgid(2), setresuid(2), keeping capabilities; `None`: the groups stay as they are.
    User {
        /// User id inside the container.
        uid: u32,
        /// Group id inside the container.
        gid: u32,
        /// Supplementary groups.
        groups: Option<Vec<u32>>,
        /// It is that user and in that group by its birth.
        born_so: bool,
    },
    /// chdir(2), and the check that it led somewhere inside the root; unless it is the last try, EACCES is no failure.
    Chdir(CString, bool),
    /// capset(2).
    Capabilities(Capabilities),
    /// Raises these ambient capabilities.
    Ambient(u64),
    /// Looks up HOME of this uid in the container's /etc/passwd for the environment's entry `home`.
    Home(u32),
    /// Finds the program: the first of [`Plan::programs`] that can be executed.
    FindProgram,
    /// Writes the label to the file that [`Step::OpenLabel`] opened.
    WriteLabel(CString),
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivs,
    /// Closes every fd from this one up but those that the gate needs.
    CloseFrom(u32),
    /// Tells the parent that all is done but the exec.
    Ready,
    /// Waits for `start`.
    Gate,
    /// seccomp(2); with a listener, its fd goes to the parent.
    Seccomp(Vec<Insn>, u32, bool),
    /// execve(2) of the program.
    Exec,
}

/// A step and the field of config.json that it came from.
#[derive(Debug)]
pub struct Planned {
    /// What to do.
    pub step: Step,
    /// Why: a JSON path, or empty for what every container has.
    pub field: Cow<'static, str>,
}
