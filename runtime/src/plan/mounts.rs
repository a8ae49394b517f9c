//! The mounts of config.json: which calls each one takes, and where it may go.

use super::mount_options::{Options, sort};
use super::namespaces::Namespaces;
use super::root::{before_root, propagation};
use super::{BindStep, Idmap, Input, MountStep, Open, Plan, Step, Target, Tree, c_path, c_string};
use crate::error::{Result, invalid};
use oci_spec::runtime::{Linux, LinuxNamespaceType as Ns, Mount, Spec};
use orlop_sys::mount::{self as sys, Attr, attr};
use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

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

/// What one mount is planned with, besides itself.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    /// Its name in errors: `mounts[3]`.
    pub(super) field: &'a str,
    pub(super) linux: Option<&'a Linux>,
    label: Option<&'a str>,
    pub(super) ns: &'a Namespaces<'a>,
    pub(super) input: &'a Input<'a>,
    /// The propagation that the tree of the host is given first: see [`before_root`].
    pub(super) outer: u64,
}

impl<'a> Setting<'a> {
    fn new(spec: &'a Spec, ns: &'a Namespaces<'a>, input: &'a Input<'a>) -> Result<Setting<'a>> {
        let linux = spec.linux().as_ref();
        let label = linux.and_then(|l| l.mount_label().as_deref()).filter(|l| !l.is_empty());
        Ok(Setting { field: "mounts", linux, label, ns, input, outer: before_root(spec)? })
    }
}

impl Plan {
    pub(super) fn mounts(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        let list = spec.mounts().as_deref().unwrap_or_default();
        if !ns.has(Ns::Mount) {
            if !list.is_empty() {
                self.warnings.push("mounts: left out, because the container has no mount namespace".to_string());
            }
            return Ok(());
        }
        self.listed(list, &Setting::new(spec, ns, input)?)?;
        if let Some(dir) = input.notify_dir {
            let path = c_path(dir, "NOTIFY_SOCKET")?;
            let tree = self.tree("NOTIFY_SOCKET", path, (false, false), ns, input);
            self.push(
                "NOTIFY_SOCKET",
                Step::Bind(Box::new(bind_step(
                    tree,
                    "/run/notify",
                    Attr::default(),
                    Attr::default(),
                    vec![sys::MS_PRIVATE],
                )?)),
            );
        }
        Ok(())
    }

    /// Mounts for a running container; `pid` is its init's.
    pub(super) fn added_mounts(
        &mut self,
        spec: &Spec,
        list: &[Mount],
        ns: &Namespaces,
        input: &Input,
        pid: i32,
    ) -> Result<()> {
        if ns.has(Ns::User) && !ns.new_user() {
            // The path of config.json may name another one by now, or none.
            let path = c_string(format!("/proc/{pid}/ns/user"), "linux.namespaces")?;
            self.open("linux.namespaces", Open::Namespace { path, kind: Ns::User as i32 });
        }
        let setting = Setting::new(spec, ns, input)?;
        self.listed(list, &setting)?;
        // The host's paths mean something else inside, so the sources are opened before.
        let mut trees = Vec::new();
        for planned in &mut self.steps {
            if let Step::Mount(m) = &mut planned.step
                && let Some((tree @ Tree::Host(_), whole)) = &mut m.fallback
            {
                let opened = Tree::Opened(self.opens.len() + trees.len());
                if let Tree::Host(path) = std::mem::replace(tree, opened) {
                    let open = Open::Tree { path, recursive: *whole, nofollow: false, idmap: None };
                    trees.push((open, planned.field.clone()));
                }
            }
            if let Step::Bind(b) = &mut planned.step
                && let Tree::Host(path) = &mut b.tree
            {
                let open =
                    Open::Tree { path: std::mem::take(path), recursive: b.whole, nofollow: b.nofollow, idmap: None };
                b.tree = Tree::Opened(self.opens.len() + trees.len());
                b.propagation = propagation(setting.outer, &b.propagation);
                trees.push((open, format!("{}.source", planned.field).into()));
            }
        }
        self.opens.append(&mut trees);
        Ok(())
    }

    pub(super) fn removed_mounts(&mut self, list: &[Mount], input: &Input) -> Result<()> {
        let mut targets = Vec::new();
        for (i, m) in list.iter().enumerate() {
            let field = format!("mounts[{i}].destination");
            let path = destination(m, input.rootfs);
            if path == "/" {
                return Err(invalid(field, "the root of the container cannot be removed"));
            }
            let nofollow = m.options().iter().flatten().any(|o| o == "dest-nofollow");
            let target = || -> Result<Target> {
                Ok(Target { path: c_string(&*path, &*field)?, no_symlinks: false, proc_allowed: true, nofollow })
            };
            self.push(field.clone(), Step::Mounted(target()?));
            targets.push((field.clone(), Step::Unmount(target()?)));
        }
        // A later one may be mounted below an earlier one.
        for (field, step) in targets.into_iter().rev() {
            self.push(field, step);
        }
        Ok(())
    }

    fn listed(&mut self, list: &[Mount], setting: &Setting) -> Result<()> {
        for (i, m) in list.iter().enumerate() {
            self.mount(m, &Setting { field: &format!("mounts[{i}]"), ..*setting })?;
        }
        Ok(())
    }

    fn mount(&mut self, m: &Mount, setting: &Setting) -> Result<()> {
        let field = setting.field;
        let target = destination(m, setting.input.rootfs);
        let fs = m.typ().as_deref().unwrap_or_default();
        let o = sort(fs, m.options().as_deref().unwrap_or_default(), field)?;
        let idmap = self.idmap(m, &o, setting)?;
        check_proc(&target, fs, o.bind.is_some(), field)?;
        match (o.bind, fs) {
            (Some(recursive), _) => self.bind(m, &target, recursive, o, idmap, setting),
            (None, "") => {
                Err(invalid(format!("{field}.type"), "must be set, or the options must contain bind or rbind"))
            }
            (None, "cgroup" | "cgroup2") => self.cgroup(&target, o, setting),
            (None, _) => self.file_system(m, fs, &target, o, setting),
        }
    }

    /// Where a path of the host is bound from. A user namespace may have no way to it: then the parent opens it, who has the host's
    /// rights; or has none, and then the child is the same user.
    pub(super) fn tree(
        &mut self,
        field: &str,
        path: CString,
        (recursive, nofollow): (bool, bool),
        ns: &Namespaces,
        input: &Input,
    ) -> Tree {
        if ns.new_one(Ns::Mount) && (!ns.has(Ns::User) || !input.host_trees) {
            return Tree::Host(path);
        }
        Tree::Opened(self.open(field.to_string(), Open::Tree { path, recursive, nofollow, idmap: None }))
    }

    fn bind(
        &mut self,
        m: &Mount,
        target: &str,
        recursive: bool,
        o: Options,
        idmap: Option<Idmap>,
        setting: &Setting,
    ) -> Result<()> {
        let Setting { field, ns, input, outer, .. } = *setting;
        let source = m.source().as_deref().filter(|s| !s.as_os_str().is_empty());
        let source = source.ok_or_else(|| invalid(format!("{field}.source"), "must be set for a bind mount"))?;
        for data in &o.data {
            self.warnings.push(format!("{field}.options: {data:?} has no meaning for a bind mount: left out"));
        }
        let path = input.bundle.join(source);
        let name = c_path(&path, &format!("{field}.source"))?;
        let nofollow = o.source_nofollow.or(o.copy_symlink).is_some();
        let (tree, propagation) = match path.strip_prefix(input.rootfs) {
            Ok(inside) => (Tree::Root(c_string(clean(inside), format!("{field}.source"))?), o.propagation.clone()),
            // The child's copies of the host's mounts have taken on the outer propagation already.
            // An idmap is the host's to give.
            _ if idmap.is_some() => {
                let open = Open::Tree { path: name, recursive, nofollow, idmap };
                let tree = self.open(format!("{field}.source"), open);
                (Tree::Opened(tree), propagation(outer, &o.propagation))
            }
            _ => match self.tree(&format!("{field}.source"), name, (recursive, nofollow), ns, input) {
                host @ Tree::Host(_) => (host, o.propagation.clone()),
                opened => (opened, propagation(outer, &o.propagation)),
            },
        };
        let mut below = o.recursive;
        if input.rootless.is_some() && recursive && target == "/sys" && o.flags & sys::MS_RDONLY != 0 {
            // The cgroups below belong to the user, and so to root of the container (CVE-2023-25809).
            below.set |= attr::RDONLY;
        }
        let mut step = BindStep {
            whole: recursive,
            nofollow,
            copy_symlink: o.copy_symlink.is_some(),
            locked: ns.has(Ns::User) && matches!(tree, Tree::Opened(_)),
            idmap,
            ..bind_step(tree, target, o.attr(ns.has(Ns::User)), below, propagation)?
        };
        step.target.nofollow = o.target_nofollow.is_some();
        self.push(field.to_string(), Step::Bind(Box::new(step)));
        if o.copy_up {
            return Err(invalid(format!("{field}.options"), "tmpcopyup is for tmpfs only"));
        }
        Ok(())
    }

    fn file_system(&mut self, m: &Mount, fs: &str, target: &str, o: Options, setting: &Setting) -> Result<()> {
        let Setting { field, label, ns, .. } = *setting;
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
                nofollow: false,
            },
            flags,
            data: c_string(data, format!("{field}.options"))?,
            data_at: o.data_at,
            keep_mode,
            copy_up: o.copy_up,
            attr: if o.copy_up && late_ro { Attr { set: attr::RDONLY, ..Attr::default() } } else { Attr::default() },
            recursive: o.recursive,
            propagation: o.propagation,
            fallback: host_view(fs, ns),
        };
        self.push(field.to_string(), Step::Mount(Box::new(step)));
        Ok(())
    }
}

/// File systems that only the owner of a namespace may mount. Where the container has the host's namespace, the host's own mount shows
/// the same.
fn host_view(fs: &str, ns: &Namespaces) -> Option<(Tree, bool)> {
    let (path, kind) = match fs {
        "sysfs" => (c"/sys", Ns::Network),
        "mqueue" => (c"/dev/mqueue", Ns::Ipc),
        "proc" => (c"/proc", Ns::Pid),
        _ => return None,
    };
    (!ns.has(kind)).then(|| (Tree::Host(path.into()), true))
}

pub(super) fn bind_step(
    tree: Tree,
    target: &str,
    attr: Attr,
    recursive: Attr,
    propagation: Vec<u64>,
) -> Result<BindStep> {
    let target = Target {
        path: c_string(target, "destination")?,
        no_symlinks: matches!(target, "/proc" | "/sys"),
        proc_allowed: proc_allowed(target),
        nofollow: false,
    };
    Ok(BindStep {
        tree,
        whole: false,
        nofollow: false,
        directory: false,
        copy_symlink: false,
        locked: false,
        idmap: None,
        target,
        attr,
        recursive,
        propagation,
    })
}

pub(super) fn plain_mount(fs: &str, source: &str, target: &str, flags: u64, data: &str) -> Result<MountStep> {
    Ok(MountStep {
        fs: c_string(fs, "type")?,
        source: c_string(source, "source")?,
        target: Target {
            path: c_string(target, "destination")?,
            no_symlinks: false,
            proc_allowed: false,
            nofollow: false,
        },
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

pub(super) fn simple_mount(fs: &str, source: &str, target: &str, flags: u64, data: &str) -> Result<Step> {
    Ok(Step::Mount(Box::new(plain_mount(fs, source, target, flags, data)?)))
}

/// Where a mount goes in the container. It may be written as the host sees it: runc takes that too.
pub(crate) fn destination(m: &Mount, rootfs: &Path) -> String {
    let seen_from_host = m.destination().strip_prefix(rootfs).ok().filter(|_| rootfs != Path::new("/"));
    clean(seen_from_host.unwrap_or(m.destination()))
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
