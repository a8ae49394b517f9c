//! The options of a mount: one table of names, and what they come to.

use super::idmap::IdmapOption;
use super::unsupported;
use crate::error::{Result, invalid};
use orlop_sys::mount::{self as sys, Attr, attr};

/// What a mount option does to the flags of mount(2), or to the attributes of mount_setattr(2).
#[derive(Clone, Copy)]
pub(super) enum Opt {
    /// Sets a flag.
    Set(u64),
    /// Clears a flag.
    Clear(u64),
    /// Sets an access-time mode, clearing the other ones.
    Atime(u64),
    /// A bind mount, with what is below it or without.
    Bind(bool),
    /// A propagation type, with MS_REC or without.
    Propagation(u64),
    /// An attribute of mount_setattr(2) for a whole tree: set or cleared.
    Recursive(u64, bool),
    /// Copies what the mount covers into it.
    CopyUp,
    /// Ids are shown mapped; [`IdmapOption`] has what is behind `=`.
    Idmap,
    /// If the source is a symlink, one like it is made instead of a mount.
    CopySymlink,
    /// A symlink as the source is bound itself.
    SourceNoFollow,
    /// A symlink at the destination is mounted over.
    TargetNoFollow,
    /// Says nothing.
    Nothing,
}

use Opt::{
    Atime, Bind, Clear, CopySymlink, CopyUp, Idmap, Nothing, Propagation, Recursive, Set, SourceNoFollow,
    TargetNoFollow,
};

/// Every option that is not the file system's own, sorted by name; what does not stand here goes to the file system as data.
const OPTIONS: &[(&str, Opt)] = &[
    ("acl", Nothing),
    ("async", Clear(sys::MS_SYNCHRONOUS)),
    ("atime", Clear(sys::MS_NOATIME)),
    ("bind", Bind(false)),
    ("copy-symlink", CopySymlink),
    ("defaults", Nothing),
    ("dest-nofollow", TargetNoFollow),
    ("dev", Clear(sys::MS_NODEV)),
    ("diratime", Clear(sys::MS_NODIRATIME)),
    ("dirsync", Set(sys::MS_DIRSYNC)),
    ("exec", Clear(sys::MS_NOEXEC)),
    ("idmap", Idmap),
    ("iversion", Set(sys::MS_I_VERSION)),
    ("lazytime", Set(sys::MS_LAZYTIME)),
    ("loud", Clear(sys::MS_SILENT)),
    ("mand", Set(sys::MS_MANDLOCK)),
    ("noatime", Atime(sys::MS_NOATIME)),
    ("nodev", Set(sys::MS_NODEV)),
    ("nodiratime", Set(sys::MS_NODIRATIME)),
    ("noexec", Set(sys::MS_NOEXEC)),
    ("noiversion", Clear(sys::MS_I_VERSION)),
    ("nolazytime", Clear(sys::MS_LAZYTIME)),
    ("nomand", Clear(sys::MS_MANDLOCK)),
    ("norelatime", Clear(sys::MS_RELATIME)),
    ("nostrictatime", Clear(sys::MS_STRICTATIME)),
    ("nosuid", Set(sys::MS_NOSUID)),
    ("nosymfollow", Set(sys::MS_NOSYMFOLLOW)),
    ("private", Propagation(sys::MS_PRIVATE)),
    ("ratime", Recursive(attr::NOATIME, false)),
    ("rbind", Bind(true)),
    ("rdev", Recursive(attr::NODEV, false)),
    ("rdiratime", Recursive(attr::NODIRATIME, false)),
    ("relatime", Atime(sys::MS_RELATIME)),
    ("remount", Set(sys::MS_REMOUNT)),
    ("rexec", Recursive(attr::NOEXEC, false)),
    ("ridmap", Idmap),
    ("rnoatime", Recursive(attr::NOATIME, true)),
    ("rnodev", Recursive(attr::NODEV, true)),
    ("rnodiratime", Recursive(attr::NODIRATIME, true)),
    ("rnoexec", Recursive(attr::NOEXEC, true)),
    ("rnorelatime", Recursive(attr::RELATIME, false)),
    ("rnostrictatime", Recursive(attr::STRICTATIME, false)),
    ("rnosuid", Recursive(attr::NOSUID, true)),
    ("rnosymfollow", Recursive(attr::NOSYMFOLLOW, true)),
    ("ro", Set(sys::MS_RDONLY)),
    ("rprivate", Propagation(sys::MS_PRIVATE | sys::MS_REC)),
    ("rrelatime", Recursive(attr::RELATIME, true)),
    ("rro", Recursive(attr::RDONLY, true)),
    ("rrw", Recursive(attr::RDONLY, false)),
    ("rshared", Propagation(sys::MS_SHARED | sys::MS_REC)),
    ("rslave", Propagation(sys::MS_SLAVE | sys::MS_REC)),
    ("rstrictatime", Recursive(attr::STRICTATIME, true)),
    ("rsuid", Recursive(attr::NOSUID, false)),
    ("rsymfollow", Recursive(attr::NOSYMFOLLOW, false)),
    ("runbindable", Propagation(sys::MS_UNBINDABLE | sys::MS_REC)),
    ("rw", Clear(sys::MS_RDONLY)),
    ("shared", Propagation(sys::MS_SHARED)),
    ("silent", Set(sys::MS_SILENT)),
    ("slave", Propagation(sys::MS_SLAVE)),
    ("src-nofollow", SourceNoFollow),
    ("strictatime", Atime(sys::MS_STRICTATIME)),
    ("suid", Clear(sys::MS_NOSUID)),
    ("symfollow", Clear(sys::MS_NOSYMFOLLOW)),
    ("sync", Set(sys::MS_SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(sys::MS_UNBINDABLE)),
];

/// Flags of mount(2) beside the attributes of the same meaning.
const FLAG_ATTRS: &[(u64, u64)] = &[
    (sys::MS_RDONLY, attr::RDONLY),
    (sys::MS_NOSUID, attr::NOSUID),
    (sys::MS_NODEV, attr::NODEV),
    (sys::MS_NOEXEC, attr::NOEXEC),
    (sys::MS_NOSYMFOLLOW, attr::NOSYMFOLLOW),
];

const ATIME_FLAGS: u64 = sys::MS_NOATIME | sys::MS_RELATIME | sys::MS_STRICTATIME;

/// A mount's options, sorted out.
#[derive(Default)]
pub(super) struct Options {
    pub(super) flags: u64,
    pub(super) cleared: u64,
    pub(super) bind: Option<bool>,
    pub(super) propagation: Vec<u64>,
    pub(super) recursive: Attr,
    pub(super) copy_up: bool,
    pub(super) idmap: Option<IdmapOption>,
    pub(super) copy_symlink: Option<usize>,
    pub(super) source_nofollow: Option<usize>,
    pub(super) target_nofollow: Option<usize>,
    pub(super) data: Vec<String>,
    pub(super) data_at: Vec<usize>,
}

/// What an option of this name does; `None`: it is the file system's.
pub(super) fn option_of(name: &str) -> Option<Opt> {
    OPTIONS.binary_search_by_key(&name, |o| o.0).ok().and_then(|i| OPTIONS.get(i)).map(|o| o.1)
}

/// The names of all options that this runtime acts on, sorted: what `features` lists.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|o| o.0)
}

/// The options of a mount that is made on the host, before the container: flags of mount(2), propagation types, and the file
/// system's own options. An option that only the inside of a container has is an error.
pub fn of_the_host(options: &[String]) -> Result<(u64, Vec<u64>, Vec<String>)> {
    let o = sort("", options, "rootfs")?;
    let inside = o.idmap.is_some() || o.copy_symlink.or(o.source_nofollow).or(o.target_nofollow).is_some();
    if inside || o.copy_up || o.recursive != Attr::default() {
        return Err(unsupported("rootfs.options".to_string(), "has options that are for mounts in a container"));
    }
    let bind = match o.bind {
        Some(true) => sys::MS_BIND | sys::MS_REC,
        Some(false) => sys::MS_BIND,
        None => 0,
    };
    Ok((o.flags | bind, o.propagation, o.data))
}

pub(super) fn sort(fs: &str, options: &[String], field: &str) -> Result<Options> {
    // A type of "bind" with neither option: what is below the source comes along only when asked for.
    let mut o = Options { bind: (fs == "bind").then_some(false), ..Options::default() };
    for (i, option) in options.iter().enumerate() {
        let name = option.as_str();
        match option_of(name) {
            Some(Set(f)) => (o.flags, o.cleared) = (o.flags | f, o.cleared & !f),
            Some(Clear(f)) => (o.flags, o.cleared) = (o.flags & !f, o.cleared | f),
            Some(Atime(f)) => o.flags = o.flags & !ATIME_FLAGS | f,
            Some(Bind(recursive)) => o.bind = Some(recursive || o.bind.unwrap_or(false)),
            Some(Propagation(f)) => o.propagation.push(f),
            Some(Recursive(bit, on)) => recurse(&mut o.recursive, bit, on),
            Some(CopyUp) => o.copy_up = true,
            Some(Idmap) => o.idmap = IdmapOption::of(name, i),
            Some(CopySymlink) => o.copy_symlink = Some(i),
            Some(SourceNoFollow) => o.source_nofollow = Some(i),
            Some(TargetNoFollow) => o.target_nofollow = Some(i),
            Some(Nothing) => {}
            None if IdmapOption::of(name, i).is_some() => o.idmap = IdmapOption::of(name, i),
            None => {
                o.data.push(option.clone());
                o.data_at.push(i);
            }
        }
    }
    if let (Some(i), true) = (o.copy_symlink, o.source_nofollow.or(o.target_nofollow).is_some()) {
        let why = "copy-symlink is mutually exclusive with src-nofollow and dest-nofollow";
        return Err(invalid(format!("{field}.options[{i}]"), why));
    }
    for (name, given) in
        [("copy-symlink", o.copy_symlink), ("src-nofollow", o.source_nofollow), ("dest-nofollow", o.target_nofollow)]
    {
        if let (Some(i), None) = (given, o.bind) {
            return Err(invalid(format!("{field}.options[{i}]"), format!("{name} is for bind mounts only")));
        }
    }
    Ok(o)
}

fn recurse(a: &mut Attr, bit: u64, on: bool) {
    let is_atime = matches!(bit, attr::NOATIME | attr::STRICTATIME | attr::RELATIME);
    if is_atime {
        // One value, not bits: mount_setattr(2) wants all of it cleared before another is set.
        a.set &= !attr::ATIME;
        a.clear |= attr::ATIME;
        a.set |= if on { bit } else { attr::RELATIME };
    } else if on {
        (a.set, a.clear) = (a.set | bit, a.clear & !bit);
    } else {
        (a.set, a.clear) = (a.set & !bit, a.clear | bit);
    }
}

impl Options {
    /// The attributes of a bind mount. Without an option that is about attributes it is as its source. One option makes a whole set of
    /// it, as with runc and crun: what is not named is cleared; but not what is locked in a user namespace (`locked`), and
    /// access times are changed only by naming other ones.
    pub(super) fn attr(&self, locked: bool) -> Attr {
        let all = FLAG_ATTRS.iter().fold(ATIME_FLAGS | sys::MS_NODIRATIME, |all, (flag, _)| all | flag);
        let mut a = Attr::default();
        if (self.flags | self.cleared) & all == 0 {
            return a;
        }
        for (flag, bit) in FLAG_ATTRS {
            if self.flags & flag != 0 {
                a.set |= bit;
            } else if self.cleared & flag != 0 || !locked || *flag == sys::MS_NOSYMFOLLOW {
                a.clear |= bit;
            }
        }
        if self.flags & (ATIME_FLAGS | sys::MS_NODIRATIME) != 0 {
            a.clear |= attr::ATIME | attr::NODIRATIME;
            a.set |= match self.flags & ATIME_FLAGS {
                sys::MS_NOATIME => attr::NOATIME,
                sys::MS_STRICTATIME => attr::STRICTATIME,
                _ => attr::RELATIME,
            };
            if self.flags & sys::MS_NODIRATIME != 0 {
                a.set |= attr::NODIRATIME;
            }
        }
        a.clear &= !(a.set & !attr::ATIME);
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(options: &[&str]) -> Options {
        sort("", &options.iter().map(|o| o.to_string()).collect::<Vec<_>>(), "mounts[0]").unwrap()
    }

    #[test]
    fn options_are_flags_or_data() {
        let o = sorted(&["nosuid", "strictatime", "mode=755", "size=65536k", "ro", "rw"]);
        assert_eq!(o.flags, sys::MS_NOSUID | sys::MS_STRICTATIME);
        assert_eq!(o.cleared, sys::MS_RDONLY);
        assert_eq!(o.data, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn one_attribute_of_a_bind_makes_a_whole_set() {
        let o = sorted(&["rbind", "ro", "suid"]);
        assert_eq!(o.bind, Some(true));
        let clear = attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        assert_eq!(o.attr(false), Attr { set: attr::RDONLY, clear, ..Attr::default() });
        let clear = attr::NOSUID | attr::NOSYMFOLLOW;
        assert_eq!(o.attr(true), Attr { set: attr::RDONLY, clear, ..Attr::default() });
        for none in [&["bind"][..], &["rbind", "rprivate"]] {
            assert_eq!(sorted(none).attr(false), Attr::default());
        }
    }

    #[test]
    fn access_times_are_one_value() {
        let clear = attr::ATIME | attr::NODIRATIME | attr::NOSYMFOLLOW;
        assert_eq!(sorted(&["noatime"]).attr(true), Attr { set: attr::NOATIME, clear, ..Attr::default() });
        let nodiratime =
            Attr { set: attr::RELATIME | attr::NODIRATIME, clear: attr::ATIME | attr::NOSYMFOLLOW, ..Attr::default() };
        assert_eq!(sorted(&["nodiratime"]).attr(true), nodiratime);
        // Naming what is not wanted names nothing else.
        assert_eq!(sorted(&["atime"]).attr(true), Attr { clear: attr::NOSYMFOLLOW, ..Attr::default() });
        let r = sorted(&["rnoatime", "rro"]).recursive;
        assert_eq!(r, Attr { set: attr::NOATIME | attr::RDONLY, clear: attr::ATIME, ..Attr::default() });
        let r = sorted(&["rnoatime", "rrelatime"]).recursive;
        assert_eq!(r, Attr { set: 0, clear: attr::ATIME, ..Attr::default() });
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(OPTIONS.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
