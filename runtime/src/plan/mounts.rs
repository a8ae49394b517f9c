//! What the container sees: rootfs, mounts, devices, masks.

use super::namespaces::Namespaces;
use super::{
    BindStep, DeviceStep, Input, MountStep, Open, Plan, Step, Target, Tree, c_path, c_string, console_size, unsupported,
};
use crate::cgroup::{self, Hierarchy};
use crate::error::{Result, invalid};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType as Ns, Mount, Process, Spec};
use orlop_sys::file::{S_IFBLK, S_IFCHR, S_IFIFO, device};
use orlop_sys::mount::{self as sys, Attr, attr};
use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

/// What a mount option does to the flags of mount(2), or to the attributes of mount_setattr(2).
#[derive(Clone, Copy)]
enum Opt {
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
    /// Copies what the mount covers into it.
    CopyUp,
    /// Refused: another call would be needed.
    Refused(&'static str),
    /// Says nothing.
    Nothing,
}

use Opt::{Atime, Bind, Clear, CopyUp, Nothing, Propagation, Refused, Set};

/// The options of mount(8) that are flags; what stands in no table goes to the file system as data.
const OPTIONS: &[(&str, Opt)] = &[
    ("acl", Nothing),
    ("async", Clear(sys::MS_SYNCHRONOUS)),
    ("atime", Clear(sys::MS_NOATIME)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(sys::MS_NODEV)),
    ("diratime", Clear(sys::MS_NODIRATIME)),
    ("dirsync", Set(sys::MS_DIRSYNC)),
    ("exec", Clear(sys::MS_NOEXEC)),
    ("idmap", Refused("idmapped mounts are not supported yet")),
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
    ("rbind", Bind(true)),
    ("relatime", Atime(sys::MS_RELATIME)),
    ("remount", Set(sys::MS_REMOUNT)),
    ("ridmap", Refused("idmapped mounts are not supported yet")),
    ("ro", Set(sys::MS_RDONLY)),
    ("rprivate", Propagation(sys::MS_PRIVATE | sys::MS_REC)),
    ("rshared", Propagation(sys::MS_SHARED | sys::MS_REC)),
    ("rslave", Propagation(sys::MS_SLAVE | sys::MS_REC)),
    ("runbindable", Propagation(sys::MS_UNBINDABLE | sys::MS_REC)),
    ("rw", Clear(sys::MS_RDONLY)),
    ("shared", Propagation(sys::MS_SHARED)),
    ("silent", Set(sys::MS_SILENT)),
    ("slave", Propagation(sys::MS_SLAVE)),
    ("strictatime", Atime(sys::MS_STRICTATIME)),
    ("suid", Clear(sys::MS_NOSUID)),
    ("symfollow", Clear(sys::MS_NOSYMFOLLOW)),
    ("sync", Set(sys::MS_SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(sys::MS_UNBINDABLE)),
];

/// The options with `r` for a whole tree: (name, attribute, set or clear).
const RECURSIVE: &[(&str, u64, bool)] = &[
    ("ratime", attr::NOATIME, false),
    ("rdev", attr::NODEV, false),
    ("rdiratime", attr::NODIRATIME, false),
    ("rexec", attr::NOEXEC, false),
    ("rnoatime", attr::NOATIME, true),
    ("rnodev", attr::NODEV, true),
    ("rnodiratime", attr::NODIRATIME, true),
    ("rnoexec", attr::NOEXEC, true),
    ("rnorelatime", attr::RELATIME, false),
    ("rnostrictatime", attr::STRICTATIME, false),
    ("rnosuid", attr::NOSUID, true),
    ("rnosymfollow", attr::NOSYMFOLLOW, true),
    ("rrelatime", attr::RELATIME, true),
    ("rro", attr::RDONLY, true),
    ("rrw", attr::RDONLY, false),
    ("rstrictatime", attr::STRICTATIME, true),
    ("rsuid", attr::NOSUID, false),
    ("rsymfollow", attr::NOSYMFOLLOW, false),
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

/// The files of procfs that may be mounted over; everything else there would let a container lie to its own tools or
/// to a runtime that joins it.
const PROC_ALLOWED: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// What every container has in /dev (config-linux.md, "Default Devices"): name, major, minor.
const DEFAULT_DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("random", 1, 8), ("full", 1, 7), ("tty", 5, 0), ("zero", 1, 5), ("urandom", 1, 9)];

/// The symlinks that go with them (config-linux.md and runtime-linux.md, "Dev symbolic links").
const DEV_SYMLINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// A mount's options, sorted out.
#[derive(Default)]
struct Options {
    flags: u64,
    cleared: u64,
    bind: Option<bool>,
    propagation: Vec<u64>,
    recursive: Attr,
    copy_up: bool,
    data: Vec<String>,
    data_at: Vec<usize>,
}

fn sort(options: &[String], field: &str) -> Result<Options> {
    let mut o = Options::default();
    for (i, option) in options.iter().enumerate() {
        let name = option.as_str();
        if let Some((_, a, on)) = RECURSIVE.iter().find(|r| r.0 == name) {
            recurse(&mut o.recursive, *a, *on);
            continue;
        }
        match OPTIONS.iter().find(|k| k.0 == name).map(|k| k.1) {
            Some(Set(f)) => (o.flags, o.cleared) = (o.flags | f, o.cleared & !f),
            Some(Clear(f)) => (o.flags, o.cleared) = (o.flags & !f, o.cleared | f),
            Some(Atime(f)) => o.flags = o.flags & !ATIME_FLAGS | f,
            Some(Bind(recursive)) => o.bind = Some(recursive || o.bind.unwrap_or(false)),
            Some(Propagation(f)) => o.propagation.push(f),
            Some(CopyUp) => o.copy_up = true,
            Some(Refused(why)) => return Err(unsupported(format!("{field}.options[{i}]"), why)),
            Some(Nothing) => {}
            None => {
                o.data.push(option.clone());
                o.data_at.push(i);
            }
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
    fn attr(&self, locked: bool) -> Attr {
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

impl Plan {
    pub(super) fn root(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        let root = c_path(input.rootfs, "root.path")?;
        if !ns.has(Ns::Mount) {
            self.push("root.path", Step::OpenRoot(root));
            return Ok(());
        }
        let first = before_root(spec)?;
        self.push("linux.rootfsPropagation", Step::Propagate(first));
        if first & sys::MS_SHARED != 0 {
            self.push("linux.rootfsPropagation", Step::PrivateParent(root.clone()));
        }
        self.push("root.path", Step::BindRoot(root));
        Ok(())
    }

    pub(super) fn mounts(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        let list = spec.mounts().as_deref().unwrap_or_default();
        if !ns.has(Ns::Mount) {
            if !list.is_empty() {
                self.warnings.push("mounts: left out, because the container has no mount namespace".to_string());
            }
            return Ok(());
        }
        let label = spec.linux().as_ref().and_then(|l| l.mount_label().as_deref()).filter(|l| !l.is_empty());
        let outer = before_root(spec)?;
        for (i, m) in list.iter().enumerate() {
            let field = format!("mounts[{i}]");
            self.mount(m, &field, ns, input, label, outer)?;
        }
        if let Some(dir) = input.notify_dir {
            let path = c_path(dir, "NOTIFY_SOCKET")?;
            let tree = self.open("NOTIFY_SOCKET", Open::Tree { path, recursive: false });
            self.push(
                "NOTIFY_SOCKET",
                Step::Bind(Box::new(bind_step(
                    Tree::Opened(tree),
                    "/run/notify",
                    Attr::default(),
                    Attr::default(),
                    vec![sys::MS_PRIVATE],
                )?)),
            );
        }
        Ok(())
    }

    fn mount(
        &mut self,
        m: &Mount,
        field: &str,
        ns: &Namespaces,
        input: &Input,
        label: Option<&str>,
        outer: u64,
    ) -> Result<()> {
        if m.uid_mappings().is_some() || m.gid_mappings().is_some() {
            return Err(unsupported(format!("{field}.uidMappings"), "idmapped mounts are not supported yet"));
        }
        // A destination may be written as the host sees it: runc takes that too.
        let seen_from_host = m.destination().strip_prefix(input.rootfs).ok().filter(|_| input.rootfs != Path::new("/"));
        let target = clean(seen_from_host.unwrap_or(m.destination()));
        let fs = m.typ().as_deref().unwrap_or_default();
        let mut o = sort(m.options().as_deref().unwrap_or_default(), field)?;
        if fs == "bind" && o.bind.is_none() {
            // A type of "bind" with neither option: what is below the source comes along only when asked for.
            o.bind = Some(false);
        }
        check_proc(&target, fs, o.bind.is_some(), field)?;
        match (o.bind, fs) {
            (Some(recursive), _) => self.bind(m, field, &target, recursive, o, ns, input, outer),
            (None, "") => {
                Err(invalid(format!("{field}.type"), "must be set, or the options must contain bind or rbind"))
            }
            (None, "cgroup" | "cgroup2") => self.cgroup(field, &target, o, ns, input, outer),
            (None, _) => self.file_system(m, fs, field, &target, o, label),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one mount")]
    fn bind(
        &mut self,
        m: &Mount,
        field: &str,
        target: &str,
        recursive: bool,
        o: Options,
        ns: &Namespaces,
        input: &Input,
        outer: u64,
    ) -> Result<()> {
        let source = m.source().as_deref().filter(|s| !s.as_os_str().is_empty());
        let source = source.ok_or_else(|| invalid(format!("{field}.source"), "must be set for a bind mount"))?;
        for data in &o.data {
            self.warnings.push(format!("{field}.options: {data:?} has no meaning for a bind mount: left out"));
        }
        let path = input.bundle.join(source);
        let name = c_path(&path, &format!("{field}.source"))?;
        let (tree, propagation) = match path.strip_prefix(input.rootfs) {
            Ok(inside) => (Tree::Root(c_string(clean(inside), format!("{field}.source"))?), o.propagation.clone()),
            // The child's copies of the host's mounts have taken on the outer propagation already.
            _ if ns.new_one(Ns::Mount) && !ns.has(Ns::User) && !input.rootless => {
                (Tree::Host(name), o.propagation.clone())
            }
            _ => {
                let tree = self.open(format!("{field}.source"), Open::Tree { path: name, recursive });
                (Tree::Opened(tree), propagation(outer, &o.propagation))
            }
        };
        let step = BindStep {
            whole: recursive,
            ..bind_step(tree, target, o.attr(ns.has(Ns::User)), o.recursive, propagation)?
        };
        self.push(field.to_string(), Step::Bind(Box::new(step)));
        if o.copy_up {
            return Err(invalid(format!("{field}.options"), "tmpcopyup is for tmpfs only"));
        }
        Ok(())
    }

    fn file_system(
        &mut self,
        m: &Mount,
        fs: &str,
        field: &str,
        target: &str,
        o: Options,
        label: Option<&str>,
    ) -> Result<()> {
        if o.copy_up && fs != "tmpfs" {
            return Err(invalid(format!("{field}.options"), "tmpcopyup is for tmpfs only"));
        }
        let mut data = o.data.clone();
        if let Some(label) = label
            && !matches!(fs, "proc" | "sysfs")
        {
            data.push(format!("context=\"{label}\""));
        }
        let data = data.join(",");
        let keep_mode = fs == "tmpfs" && !data.split(',').any(|d| d.starts_with("mode="));
        // Devices are still to be made in /dev, and files to be copied up: read-only comes after that.
        let late_ro = o.flags & sys::MS_RDONLY != 0 && (target == "/dev" || o.copy_up);
        let flags = if late_ro { o.flags & !sys::MS_RDONLY } else { o.flags };
        let source = m.source().as_deref().unwrap_or(Path::new(fs));
        let step = MountStep {
            fs: c_string(fs, format!("{field}.type"))?,
            source: c_path(source, &format!("{field}.source"))?,
            target: Target {
                path: c_string(target, format!("{field}.destination"))?,
                no_symlinks: matches!(fs, "proc" | "sysfs"),
                proc_allowed: proc_allowed(target),
            },
            flags,
            data: c_string(data, format!("{field}.options"))?,
            data_at: o.data_at,
            keep_mode,
            copy_up: o.copy_up,
            attr: if o.copy_up && late_ro { Attr { set: attr::RDONLY, ..Attr::default() } } else { Attr::default() },
            recursive: o.recursive,
            propagation: o.propagation,
            fallback: None,
        };
        self.push(field.to_string(), Step::Mount(Box::new(step)));
        Ok(())
    }

    /// Type cgroup: on v2 the one hierarchy; on v1 a tmpfs with each hierarchy mounted in it. Without a cgroup
    /// namespace the container sees by bind mounts: on v1 its own directories; on v2 the host's tree, in which it finds
    /// the path that /proc/self/cgroup gives, unless a user namespace is meant to keep the host from it.
    fn cgroup(
        &mut self,
        field: &str,
        target: &str,
        o: Options,
        ns: &Namespaces,
        input: &Input,
        outer: u64,
    ) -> Result<()> {
        let own_namespace = ns.new_one(Ns::Cgroup);
        let flags = o.flags & !sys::MS_RDONLY;
        let read_only = Attr { set: o.attr(true).set, clear: 0, ..Attr::default() };
        let only_v2 = input.hierarchies.iter().all(|h| h.v2);
        if !only_v2 {
            self.push(field.to_string(), simple_mount("tmpfs", "tmpfs", target, flags, "mode=755")?);
        }
        let whole = only_v2 && !ns.has(Ns::Cgroup) && !ns.has(Ns::User);
        for h in input.hierarchies {
            if h.v2 && !only_v2 {
                // A hybrid host's v2 tree has its own place, as on the host.
                if !input.cgroup_paths.contains_key("") {
                    continue;
                }
            }
            let place = if only_v2 { target.to_string() } else { format!("{target}/{}", h.name) };
            let fs = if h.v2 { "cgroup2" } else { "cgroup" };
            // Not mounted anew: from the first cgroup namespace that would take nsdelegate and memory_recursiveprot from
            // the host's mount (cgroups(7), cgroup v2 mount options).
            let seen = if whole { Some(PathBuf::from(cgroup::ROOT)) } else { input.cgroup_paths.get(key(h)).cloned() };
            let tree = match seen {
                Some(path) => {
                    let path = c_path(&path, field)?;
                    Some(self.open(field.to_string(), Open::Tree { path, recursive: false }))
                }
                None => None,
            };
            if own_namespace {
                let step = MountStep { fallback: tree, ..plain_mount(fs, fs, &place, o.flags, &mount_data(h))? };
                self.push(field.to_string(), Step::Mount(Box::new(step)));
            } else if let Some(tree) = tree {
                let propagation = propagation(outer, &o.propagation);
                let step = bind_step(Tree::Opened(tree), &place, read_only, Attr::default(), propagation)?;
                self.push(field.to_string(), Step::Bind(Box::new(step)));
            }
            for alias in aliases(h) {
                let (to, at) = (c_string(h.name.as_str(), field)?, c_string(format!("{target}/{alias}"), field)?);
                self.push(field.to_string(), Step::Symlink(to, at));
            }
        }
        if !only_v2 && o.flags & sys::MS_RDONLY != 0 {
            let ro = Attr { set: attr::RDONLY, ..Attr::default() };
            self.push(field.to_string(), Step::SetAttr(c_string(target, field)?, ro));
        }
        Ok(())
    }

    pub(super) fn devices(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        // A bound /dev is somebody else's: nothing is made in it.
        let bound_dev = spec.mounts().iter().flatten().any(|m| {
            let bind = m.typ().as_deref() == Some("bind")
                || m.options().iter().flatten().any(|o| matches!(o.as_str(), "bind" | "rbind"));
            bind && clean(m.destination()) == "/dev"
        });
        if !ns.has(Ns::Mount) || bound_dev {
            return Ok(());
        }
        let bind = ns.has(Ns::User) || input.rootless;
        let wanted = spec.linux().as_ref().and_then(|l| l.devices().as_deref()).unwrap_or_default();
        for (name, major, minor) in DEFAULT_DEVICES {
            let path = format!("/dev/{name}");
            if !wanted.iter().any(|d| clean(d.path()) == path) {
                self.device(&path, S_IFCHR | 0o666, device(*major, *minor), (0, 0), bind, "linux.devices")?;
            }
        }
        for (i, d) in wanted.iter().enumerate() {
            let field = format!("linux.devices[{i}]");
            let (mode, number) = device_of(d, &field)?;
            let owner = (d.uid().unwrap_or(0), d.gid().unwrap_or(0));
            if !d.path().is_absolute() {
                return Err(invalid(format!("{field}.path"), format!("{:?} is not an absolute path", d.path())));
            }
            self.device(&clean(d.path()), mode, number, owner, bind, &field)?;
        }
        for (to, at) in DEV_SYMLINKS {
            self.push("linux.devices", Step::Symlink(c_string(*to, "")?, c_string(*at, "")?));
        }
        self.push("linux.devices", Step::Ptmx);
        Ok(())
    }

    fn device(&mut self, path: &str, mode: u32, number: u64, owner: (u32, u32), bind: bool, field: &str) -> Result<()> {
        let path = c_string(path, format!("{field}.path"))?;
        let tree = bind.then(|| self.open(field.to_string(), Open::Tree { path: path.clone(), recursive: false }));
        let step = DeviceStep { path, mode, device: number, owner, tree };
        self.push(field.to_string(), Step::Device(Box::new(step)));
        Ok(())
    }

    pub(super) fn console(&mut self, process: &Process, ns: &Namespaces) {
        if process.terminal().unwrap_or(false) {
            self.push("process.terminal", Step::Console(console_size(process), ns.has(Ns::Mount)));
        }
    }

    pub(super) fn masks(&mut self, spec: &Spec, ns: &Namespaces) -> Result<()> {
        let Some(linux) = spec.linux().as_ref().filter(|_| ns.has(Ns::Mount)) else { return Ok(()) };
        for (i, m) in spec.mounts().iter().flatten().enumerate() {
            let ro = m.options().iter().flatten().any(|o| o == "ro");
            if ro && m.typ().as_deref() == Some("tmpfs") && clean(m.destination()) == "/dev" {
                let attr = Attr { set: attr::RDONLY, ..Attr::default() };
                self.push(format!("mounts[{i}]"), Step::SetAttr(c"/dev".into(), attr));
            }
        }
        for (i, path) in linux.readonly_paths().iter().flatten().enumerate() {
            let field = format!("linux.readonlyPaths[{i}]");
            let path = absolute(path, &field)?;
            self.push(field, Step::Readonly(path));
        }
        let masked: Vec<&String> = linux.masked_paths().iter().flatten().collect();
        for (i, path) in
            masked.iter().enumerate().filter(|(i, path)| !masked.iter().take(*i).any(|before| before == *path))
        {
            let field = format!("linux.maskedPaths[{i}]");
            let path = absolute(path, &field)?;
            self.push(field, Step::Mask(path));
        }
        Ok(())
    }

    pub(super) fn enter_root(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        if !ns.has(Ns::Mount) {
            self.push("root.path", Step::Chroot);
            return Ok(());
        }
        if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
            self.push("root.readonly", Step::ReadonlyRoot);
        }
        let explicit = propagation_of(spec);
        let shared = explicit.is_some_and(|f| f & sys::MS_SHARED != 0);
        let enter = match &input.no_pivot {
            Some(covers) => Step::MoveRoot(covers.iter().map(|p| c_path(p, "--no-pivot")).collect::<Result<_>>()?),
            None => Step::Pivot(shared),
        };
        self.push("root.path", enter);
        if let Some(flags) = explicit {
            self.push("linux.rootfsPropagation", Step::Propagate(flags));
        }
        self.push("", Step::ReopenNull);
        Ok(())
    }
}

/// The hierarchy's entry in [`crate::cgroup::Paths`].
fn key(h: &Hierarchy) -> &str {
    if h.v2 { "" } else { h.controllers.first().map_or("", String::as_str) }
}

/// The options with which an existing hierarchy is mounted again (cgroups(7)).
fn mount_data(h: &Hierarchy) -> String {
    if h.v2 { String::new() } else { h.controllers.join(",") }
}

/// Hierarchies of several controllers are customarily found by each one's name too.
fn aliases(h: &Hierarchy) -> &[String] {
    if h.v2 || h.controllers.len() < 2 { &[] } else { &h.controllers }
}

fn propagation_of(spec: &Spec) -> Option<u64> {
    let name = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()).filter(|p| !p.is_empty())?;
    match OPTIONS.iter().find(|o| o.0 == name).map(|o| o.1) {
        Some(Propagation(flags)) => Some(flags),
        _ => None,
    }
}

/// The propagation of the whole tree before the rootfs is bound: what the host mounts later comes in for slave and
/// shared, and what the container mounts goes out for shared alone.
fn before_root(spec: &Spec) -> Result<u64> {
    let named = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()).filter(|p| !p.is_empty());
    let flags = propagation_of(spec);
    match (named, flags) {
        (None, _) => Ok(sys::MS_SLAVE | sys::MS_REC),
        (Some(name), None) => Err(invalid(
            "linux.rootfsPropagation",
            format!("{name:?} is not one of shared, slave, private, unbindable"),
        )),
        // Nothing can be bound from an unbindable tree: the rootfs becomes so at the end.
        (Some(_), Some(f)) if f & (sys::MS_UNBINDABLE | sys::MS_PRIVATE) != 0 => Ok(sys::MS_PRIVATE | sys::MS_REC),
        (Some(_), Some(f)) => Ok(f | sys::MS_REC),
    }
}

/// A tree is cloned from the host's mount namespace, so it first takes on what the tree of the container has.
fn propagation(outer: u64, own: &[u64]) -> Vec<u64> {
    let mut list = Vec::with_capacity(own.len() + 1);
    if outer & sys::MS_SHARED == 0 {
        list.push(outer);
    }
    list.extend_from_slice(own);
    list
}

fn bind_step(tree: Tree, target: &str, attr: Attr, recursive: Attr, propagation: Vec<u64>) -> Result<BindStep> {
    let target = Target {
        path: c_string(target, "destination")?,
        no_symlinks: matches!(target, "/proc" | "/sys"),
        proc_allowed: proc_allowed(target),
    };
    Ok(BindStep { tree, whole: false, target, attr, recursive, propagation })
}

fn plain_mount(fs: &str, source: &str, target: &str, flags: u64, data: &str) -> Result<MountStep> {
    Ok(MountStep {
        fs: c_string(fs, "type")?,
        source: c_string(source, "source")?,
        target: Target { path: c_string(target, "destination")?, no_symlinks: false, proc_allowed: false },
        flags,
        data: c_string(data, "options")?,
        data_at: Vec::new(),
        keep_mode: false,
        copy_up: false,
        attr: Attr::default(),
        recursive: Attr::default(),
        propagation: Vec::new(),
        fallback: None,
    })
}

fn simple_mount(fs: &str, source: &str, target: &str, flags: u64, data: &str) -> Result<Step> {
    Ok(Step::Mount(Box::new(plain_mount(fs, source, target, flags, data)?)))
}

/// An absolute path without `.`, `..` and doubled slashes; `..` above the root stays at the root.
pub(crate) fn clean(path: &Path) -> String {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out.to_string_lossy().into_owned()
}

fn absolute(path: &str, field: &str) -> Result<CString> {
    if !path.starts_with('/') {
        return Err(invalid(field, format!("{path:?} is not an absolute path")));
    }
    c_string(path, field)
}

fn proc_allowed(target: &str) -> bool {
    PROC_ALLOWED.contains(&target)
}

/// What is mounted over procfs could stand in for it in the eyes of a runtime that joins (CVE-2019-16884): /proc is
/// procfs itself, or a bind of one, and below it only the listed files change.
fn check_proc(target: &str, fs: &str, bind: bool, field: &str) -> Result<()> {
    if target == "/proc" && fs != "proc" && !bind {
        return Err(invalid(
            format!("{field}.destination"),
            "\"/proc\" cannot be mounted because it is not of type proc",
        ));
    }
    if target.starts_with("/proc/") && !proc_allowed(target) {
        let why = format!("{target:?} cannot be mounted because it is inside /proc");
        return Err(invalid(format!("{field}.destination"), why));
    }
    Ok(())
}

fn device_of(d: &LinuxDevice, field: &str) -> Result<(u32, u64)> {
    let kind = match d.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => S_IFCHR,
        LinuxDeviceType::B => S_IFBLK,
        LinuxDeviceType::P => S_IFIFO,
        LinuxDeviceType::A => return Err(invalid(format!("{field}.type"), "\"a\" is for cgroup rules only")),
    };
    let number = |n: i64, name: &str| {
        u32::try_from(n).map_err(|_| invalid(format!("{field}.{name}"), format!("{n} is not a device number")))
    };
    let number = match kind {
        S_IFIFO => 0,
        _ => device(number(d.major(), "major")?, number(d.minor(), "minor")?),
    };
    Ok((kind | d.file_mode().unwrap_or(0o666) & 0o7777, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(options: &[&str]) -> Options {
        sort(&options.iter().map(|o| o.to_string()).collect::<Vec<_>>(), "mounts[0]").unwrap()
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
    fn paths_stay_below_the_root() {
        assert_eq!(clean(Path::new("a/../../../etc//x/.")), "/etc/x");
        assert_eq!(clean(Path::new("/")), "/");
    }

    #[test]
    fn procfs_is_not_mounted_over() {
        assert!(check_proc("/proc/self", "tmpfs", false, "m").is_err());
        assert!(check_proc("/proc", "tmpfs", false, "m").is_err());
        assert!(check_proc("/proc/uptime", "bind", true, "m").is_ok());
        assert!(check_proc("/procfs", "tmpfs", false, "m").is_ok());
    }

    #[test]
    fn the_tables_are_sorted_and_agree() {
        assert!(OPTIONS.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(RECURSIVE.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
