//! CRIU's messages: the numbers are those of images/rpc.proto in its sources.

use super::wire::{Message, parse};

/// What is asked for (criu_req_type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes the images of a process tree.
    Dump = 1,
    /// Makes a process tree from its images.
    Restore = 2,
    /// Writes the memory of a process tree that goes on running.
    PreDump = 4,
    /// CRIU tells how far it is, and we answer.
    Notify = 6,
    /// What CRIU can do on this kernel.
    Features = 9,
    /// Its version.
    Version = 10,
}

/// The fields of criu_opts.
pub mod opt {
    /// An fd in the process that made CRIU's socket, which is its own.
    pub const IMAGES_DIR_FD: u32 = 1;
    /// The root of the process tree to dump.
    pub const PID: u32 = 2;
    /// Let the processes go on after the dump.
    pub const LEAVE_RUNNING: u32 = 3;
    /// Connections of unix sockets that lead outside are no error.
    pub const EXT_UNIX_SK: u32 = 4;
    /// Keep established TCP connections.
    pub const TCP_ESTABLISHED: u32 = 5;
    /// Device nodes may be opened by another path.
    pub const EVASIVE_DEVICES: u32 = 6;
    /// The session's leader may be outside.
    pub const SHELL_JOB: u32 = 7;
    /// Keep file locks.
    pub const FILE_LOCKS: u32 = 8;
    /// 0 to 4.
    pub const LOG_LEVEL: u32 = 9;
    /// A name in the work directory.
    pub const LOG_FILE: u32 = 10;
    /// A [`super::page_server`].
    pub const PAGE_SERVER: u32 = 11;
    /// Tell how far it is.
    pub const NOTIFY_SCRIPTS: u32 = 12;
    /// The root file system.
    pub const ROOT: u32 = 13;
    /// The images of the pre-dump before, relative to the new ones.
    pub const PARENT_IMG: u32 = 14;
    /// Track which memory changes.
    pub const TRACK_MEM: u32 = 15;
    /// Memory that was read, or that a newer dump has, is punched out of the images.
    pub const AUTO_DEDUP: u32 = 16;
    /// An fd as above.
    pub const WORK_DIR_FD: u32 = 17;
    /// Give files that were removed while open a name again.
    pub const LINK_REMAP: u32 = 18;
    /// Pairs of [`super::pair`]: mounts that come from outside.
    pub const EXT_MNT: u32 = 23;
    /// Dump and restore cgroups.
    pub const MANAGE_CGROUPS: u32 = 24;
    /// [`super::cgroup_root`]s.
    pub const CG_ROOT: u32 = 25;
    /// The restored tree is a child of ours, not of CRIU's.
    pub const RST_SIBLING: u32 = 26;
    /// [`super::inherit_fd`]s.
    pub const INHERIT_FD: u32 = 27;
    /// One of [`super::CgroupMode`].
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    /// Texts about what comes from outside: `net[INODE]:KEY`.
    pub const EXTERNAL: u32 = 37;
    /// CLONE_NEW* flags of the namespaces that are made, but whose contents are not kept.
    pub const EMPTY_NS: u32 = 38;
    /// Pairs of [`super::pair`]: namespaces to join.
    pub const JOIN_NS: u32 = 39;
    /// The cgroup whose freezer stops the processes.
    pub const FREEZE_CGROUP: u32 = 44;
    /// Leave out TCP connections that are being made.
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    /// Memory is fetched when it is used.
    pub const LAZY_PAGES: u32 = 48;
    /// Hand over the master of a terminal whose master was outside.
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    /// A configuration file, which has the last word.
    pub const CONFIG_FILE: u32 = 51;
    /// Restore TCP connections as closed.
    pub const TCP_CLOSE: u32 = 52;
    /// `TYPE:NAME`.
    pub const LSM_PROFILE: u32 = 53;
    /// The SELinux context of mounts.
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
    /// One of [`super::NetworkLock`].
    pub const NETWORK_LOCK: u32 = 64;
}

/// `--manage-cgroups-mode` (criu_cg_mode): what becomes of cgroups that are not there at restore, and of their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// They are left alone.
    Ignore = 0,
    /// Limits are restored where CRIU makes the cgroup.
    Soft = 3,
    /// Limits are always restored.
    Full = 4,
    /// The cgroups must not be there.
    Strict = 5,
    /// What CRIU chooses: soft.
    #[default]
    Default = 6,
}

impl CgroupMode {
    /// By the names that callers give; empty: they leave it to CRIU.
    pub const NAMES: &'static [(&'static str, CgroupMode)] = &[
        ("", CgroupMode::Default),
        ("soft", CgroupMode::Soft),
        ("full", CgroupMode::Full),
        ("strict", CgroupMode::Strict),
        ("ignore", CgroupMode::Ignore),
    ];
}

/// `--network-lock` (criu_network_lock_method): how packets are held back while TCP connections are dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLock {
    /// By iptables(8).
    Iptables = 1,
    /// By nftables(8).
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// criu_page_server_info.
pub fn page_server(address: &str, port: u16) -> Message {
    Message::new().text(1, address).number(2, port).clone()
}

/// ext_mount_map (key, value) and join_namespace (type, file) look the same.
pub fn pair(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Message {
    Message::new().text(1, key).text(2, value).clone()
}

/// inherit_fd: what was `key` at the dump is this fd of CRIU's process.
pub fn inherit_fd(key: &str, fd: i32) -> Message {
    Message::new().text(1, key).number(2, fd).clone()
}

/// cgroup_root: where the tree of these controllers begins.
pub fn cgroup_root(controllers: &str, path: &str) -> Message {
    Message::new().text(1, controllers).text(2, path).clone()
}

/// criu_req of a kind with options; `again`: another request will follow.
pub fn request(kind: Kind, options: Option<&Message>, again: bool) -> Message {
    let mut request = Message::new();
    request.number(1, kind as i64);
    if let Some(options) = options {
        request.message(2, options);
    }
    if again {
        request.number(4, true);
    }
    request
}

/// The answer to a notification.
pub fn notified(success: bool) -> Message {
    Message::new().number(1, Kind::Notify as i64).number(3, success).clone()
}

/// The question which of [`Features`] there are.
pub fn features() -> Message {
    let wanted = Message::new().number(1, true).number(2, true).clone();
    request(Kind::Features, None, true).message(5, &wanted).clone()
}

/// criu_notify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// What CRIU is about to do, or has done (criu(8), "--action-script").
    pub script: String,
    /// The root of the process tree, in our pid namespace; 0 where it does not matter.
    pub pid: i32,
}

/// criu_features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The kernel tells which memory has changed.
    pub mem_track: bool,
    /// Memory can be fetched when it is used.
    pub lazy_pages: bool,
}

/// criu_resp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The number of its [`Kind`].
    pub kind: i32,
    /// Whether it worked.
    pub success: bool,
    /// Of a restore: the root of the process tree.
    pub pid: i32,
    /// Of a notification.
    pub notify: Notify,
    /// Why not, if an errno tells.
    pub errno: i32,
    /// Why not, in CRIU's words.
    pub message: String,
    /// Of a feature check.
    pub features: Features,
    /// major * 10000 + minor * 100 + sublevel.
    pub version: u32,
}

impl Response {
    /// Reads one; `None` when it is none.
    pub fn parse(data: &[u8]) -> Option<Response> {
        let mut response = Response::default();
        for (field, value) in parse(data)? {
            match field {
                1 => response.kind = value.number(),
                2 => response.success = value.number() != 0,
                4 => response.pid = number_of(value.bytes(), 1)?,
                5 => response.notify = notify(value.bytes())?,
                7 => response.errno = value.number(),
                8 => {
                    let has = |field| number_of(value.bytes(), field).map(|n| n != 0);
                    response.features = Features { mem_track: has(1)?, lazy_pages: has(2)? };
                }
                9 => response.message = value.text(),
                10 => response.version = version(value.bytes())?,
                _ => {}
            }
        }
        Some(response)
    }
}

fn number_of(message: &[u8], wanted: u32) -> Option<i32> {
    Some(parse(message)?.iter().rev().find(|(field, _)| *field == wanted).map_or(0, |(_, value)| value.number()))
}

fn notify(message: &[u8]) -> Option<Notify> {
    let script = parse(message)?.iter().find(|(field, _)| *field == 1).map(|(_, value)| value.text());
    Some(Notify { script: script.unwrap_or_default(), pid: number_of(message, 2)? })
}

/// A version of the development branch carries a commit, and counts as the next minor one (go-criu does the same).
fn version(message: &[u8]) -> Option<u32> {
    let part = |field| number_of(message, field).map(|n| u32::try_from(n).unwrap_or(0));
    let (major, minor, sublevel) = (part(1)?, part(2)?, part(4)?);
    let commit = parse(message)?.iter().any(|(field, value)| *field == 3 && !value.bytes().is_empty());
    let (minor, sublevel) = if commit { (minor.saturating_add(1), 0) } else { (minor, sublevel) };
    Some(major.saturating_mul(10_000).saturating_add(minor.saturating_mul(100)).saturating_add(sublevel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_type_options_and_keep_open() {
        let options = Message::new().number(opt::IMAGES_DIR_FD, 5).clone();
        assert_eq!(request(Kind::Dump, Some(&options), false).bytes(), [0x08, 1, 0x12, 2, 0x08, 5]);
        assert_eq!(request(Kind::Version, None, true).bytes(), [0x08, 10, 0x20, 1]);
        assert_eq!(notified(true).bytes(), [0x08, 6, 0x18, 1]);
        assert_eq!(notified(false).bytes(), [0x08, 6, 0x18, 0]);
        assert_eq!(features().bytes(), [0x08, 9, 0x20, 1, 0x2a, 4, 0x08, 1, 0x10, 1]);
    }

    #[test]
    fn the_messages_in_options() {
        assert_eq!(page_server("::1", 27277).bytes(), b"\x0a\x03::1\x10\x8d\xd5\x01");
        assert_eq!(pair("/a", "/b").bytes(), b"\x0a\x02/a\x12\x02/b");
        assert_eq!(inherit_fd("pipe:[7]", 2).bytes(), b"\x0a\x08pipe:[7]\x10\x02");
        assert_eq!(cgroup_root("", "/x").bytes(), b"\x0a\x00\x12\x02/x");
    }

    #[test]
    fn responses_are_read() {
        let mut raw = Message::new();
        raw.number(1, 2).number(2, true).message(4, Message::new().number(1, 4711));
        let restored = Response::parse(raw.bytes()).unwrap();
        assert_eq!((restored.kind, restored.success, restored.pid), (2, true, 4711));

        let mut raw = Message::new();
        raw.number(1, 6).number(2, true).message(5, Message::new().text(1, "post-restore").number(2, 12));
        let expected = Notify { script: "post-restore".to_string(), pid: 12 };
        assert_eq!(Response::parse(raw.bytes()).unwrap().notify, expected);

        let mut raw = Message::new();
        raw.number(1, 1).number(2, false).number(7, 22).text(9, "no way");
        let failed = Response::parse(raw.bytes()).unwrap();
        assert_eq!((failed.success, failed.errno, failed.message.as_str()), (false, 22, "no way"));

        let mut raw = Message::new();
        raw.number(1, 9).number(2, true).message(8, Message::new().number(1, false).number(2, true));
        let features = Features { mem_track: false, lazy_pages: true };
        assert_eq!(Response::parse(raw.bytes()).unwrap().features, features);
        assert_eq!(Response::parse(b"\x2a\x05abc"), None);
    }

    #[test]
    fn versions_are_numbers_that_can_be_compared() {
        let of = |fields: &mut Message| Response::parse(Message::new().message(10, fields).bytes()).unwrap().version;
        assert_eq!(of(Message::new().number(1, 4).number(2, 1).number(4, 1)), 40_101);
        assert_eq!(of(Message::new().number(1, 3).number(2, 17)), 31_700);
        assert_eq!(of(Message::new().number(1, 3).number(2, 17).text(3, "v3.17-5")), 31_800);
    }
}
