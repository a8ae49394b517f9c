//! Where cgroups are on this host, and where those of a process and of a new container go. Each file is read once, and only when it is needed.

use super::{Cgroup, Driver, Entry, HYBRID, Paths, ROOT, Request, Unit, none, systemd, tree, v1, v2};
use crate::error::{On, Result, invalid};
use oci_spec::runtime::Spec;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The controllers of v1 trees (kernel documentation, admin-guide/cgroup-v1). A tree of anything else below
/// /sys/fs/cgroup belongs to whoever mounted it, except systemd's, in which it keeps track of services.
const CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// The container's cgroup below that of its scope; empty: the scope's own. crun's annotation.
const SUBGROUP: &str = "run.oci.systemd.subgroup";

/// What is known of the host's cgroups, each file read once and only when it is needed.
#[derive(Debug, Default)]
pub struct Host {
    own: OnceCell<BTreeMap<String, PathBuf>>,
    unified: OnceCell<bool>,
    mounts: OnceCell<Mounts>,
}

/// The directory of each v1 tree, and of the hybrid v2 tree, with its controllers.
type Mounts = BTreeMap<String, Vec<String>>;

impl Host {
    /// Decides where the cgroups of a new container go. For the driver cgroupfs, `linux.cgroupsPath` is absolute from the
    /// roots of the trees, relative or absent (then the id) below our own cgroup; on v2 beside it, because a cgroup with
    /// processes cannot have children with limits. `..` leads nowhere.
    ///
    /// # Errors
    /// A path that is the root, and the reading of /sys/fs/cgroup and /proc/self/cgroup.
    pub fn plan(&self, request: &Request) -> Result<Box<dyn Cgroup>> {
        let cgroups_path = request.spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
        match request.driver {
            Driver::Cgroupfs => self.files_for(cgroups_path, request.id, request.rootless),
            Driver::Systemd => self.systemd(cgroups_path, request),
            Driver::Disabled => Ok(Box::new(none::Nothing::default())),
        }
    }

    /// The same for the driver cgroupfs alone.
    ///
    /// # Errors
    /// As [`Host::plan`].
    pub fn files(&self, cgroups_path: Option<&Path>, id: &str) -> Result<Box<dyn Cgroup>> {
        self.files_for(cgroups_path, id, None)
    }

    fn files_for(&self, cgroups_path: Option<&Path>, id: &str, rootless: Option<bool>) -> Result<Box<dyn Cgroup>> {
        let path = cgroups_path.map(clean).filter(|path| !path.as_os_str().is_empty());
        let explicit = path.is_some();
        let inner = path.unwrap_or_else(|| clean(Path::new(id)));
        if inner.as_os_str().is_empty() || inner == Path::new("/") {
            // Its limits would be those of the whole host.
            return Err(invalid("linux.cgroupsPath", "a container cannot have the root cgroup"));
        }
        self.layout(&inner, explicit, rootless)
    }

    fn systemd(&self, cgroups_path: Option<&Path>, request: &Request) -> Result<Box<dyn Cgroup>> {
        let path = cgroups_path.map(|path| path.to_str().ok_or_else(|| invalid("linux.cgroupsPath", "is not UTF-8")));
        let unit = Unit::of(path.transpose()?, request.id, request.user)?;
        if unit.user && !self.unified() {
            return Err(invalid("--systemd-cgroup", "the systemd of a user has no rights on cgroup v1")
                .hint("it needs cgroup v2 alone on /sys/fs/cgroup"));
        }
        let annotations = request.spec.annotations().as_ref();
        let extra = systemd::annotations(annotations.into_iter().flatten())?;
        let subgroup = annotation(request.spec, SUBGROUP)?;
        let base = if unit.user { systemd::Manager::connect(true)?.cgroup()? } else { PathBuf::new() };
        let place = below(Path::new("/"), &[&base, Path::new(&unit.cgroup()?), Path::new(subgroup)]);
        let inner = self.layout(&place, true, request.rootless)?;
        Ok(Box::new(systemd::Systemd::new(unit, request.id, extra, subgroup, inner)))
    }

    /// The files of a cgroup at this cleaned path.
    fn layout(&self, inner: &Path, explicit: bool, rootless: Option<bool>) -> Result<Box<dyn Cgroup>> {
        if self.unified() {
            let own = if inner.is_absolute() { PathBuf::from("/") } else { self.own_v2()? };
            let dir = below(Path::new(ROOT), &[&own, inner]);
            return Ok(Box::new(v2::V2::new(Path::new(ROOT), dir, explicit).rootless(rootless)));
        }
        let owns = self.own()?;
        let mut paths = Paths::new();
        let mut freezer = None;
        for (name, controllers) in self.mounts()? {
            let mount = Path::new(ROOT).join(name);
            let own = controllers.iter().find_map(|controller| owns.get(controller)).filter(|_| !inner.is_absolute());
            let own = match (own, controllers.iter().any(|c| c.is_empty())) {
                // runc puts the container below the root of the hybrid v2 tree: our own cgroup there may have processes.
                (_, true) | (None, _) => PathBuf::from("/"),
                (Some(own), _) => visible(&mount, own)?,
            };
            let is_own = controllers.iter().any(|c| c == "freezer" && owns.get(c) == Some(&own));
            freezer = freezer.or(is_own.then(|| below(&mount, &[&own])));
            let dir = below(&mount, &[&own, inner]);
            paths.extend(controllers.iter().map(|controller| (controller.clone(), dir.clone())));
        }
        if paths.is_empty() && !rootless.unwrap_or_else(tree::unprivileged) {
            return Err(invalid("linux.cgroupsPath", "no cgroup is mounted").hint(format!("mount cgroup v2 on {ROOT}")));
        }
        Ok(Box::new(v1::V1::new(paths, explicit).rootless(rootless).thawed(freezer)))
    }

    /// The cgroup trees of this host, in the order of their names.
    ///
    /// # Errors
    /// The reading of /sys/fs/cgroup and /proc/self/cgroup.
    pub fn hierarchies(&self) -> Result<Vec<Hierarchy>> {
        let owns = self.own()?;
        let own_of = |name: &str| owns.get(name).cloned().unwrap_or_else(|| PathBuf::from("/"));
        let v2_controllers = |root: &str| v2::controllers(Path::new(root)).map(|all| all.into_iter().collect());
        if self.unified() {
            return Ok(vec![Hierarchy {
                name: String::new(),
                controllers: v2_controllers(ROOT)?,
                v2: true,
                own: own_of(""),
            }]);
        }
        let mut all = Vec::new();
        for (name, controllers) in self.mounts()? {
            let own = controllers.first().map_or_else(PathBuf::new, |first| own_of(first));
            let v2 = controllers.iter().any(|c| c.is_empty());
            let controllers = if v2 { v2_controllers(HYBRID)? } else { controllers.clone() };
            all.push(Hierarchy { name: name.clone(), controllers, v2, own });
        }
        Ok(all)
    }

    /// Our own cgroup in each tree, by controller (v2: the empty string).
    fn own(&self) -> Result<&BTreeMap<String, PathBuf>> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let own = by_controller(&text_of("self")?);
        Ok(self.own.get_or_init(|| own))
    }

    fn unified(&self) -> bool {
        *self.unified.get_or_init(unified)
    }

    fn mounts(&self) -> Result<&Mounts> {
        if let Some(mounts) = self.mounts.get() {
            return Ok(mounts);
        }
        let mounts = mounts(self.own()?)?;
        Ok(self.mounts.get_or_init(|| mounts))
    }

    /// The parent of our own v2 cgroup.
    fn own_v2(&self) -> Result<PathBuf> {
        let own = self.own()?.get("").and_then(|own| own.parent());
        Ok(own.map_or_else(|| PathBuf::from("/"), Path::to_path_buf))
    }
}

/// The path of a cgroup that an annotation names below another one; empty without the annotation.
pub(super) fn annotation<'a>(spec: &'a Spec, name: &str) -> Result<&'a str> {
    let value = spec.annotations().as_ref().and_then(|all| all.get(name)).map_or("", |value| value.as_str());
    let plain = Path::new(value).components().all(|part| matches!(part, Component::Normal(_)));
    if plain {
        Ok(value)
    } else {
        Err(invalid(format!("annotations.{name}"), format!("{value:?} is not the path of a cgroup below another one")))
    }
}

/// One mounted cgroup tree, for mounts of type `cgroup` in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The name of its directory below /sys/fs/cgroup; empty for v2 mounted there itself.
    pub name: String,
    /// v1: what it was mounted with, which is also how to mount it again (`cpu`, `cpuacct`; `name=systemd`): more than
    /// one makes symbolic links of their names customary. v2: the controllers that its root has.
    pub controllers: Vec<String>,
    /// Whether it is a v2 tree.
    pub v2: bool,
    /// Our own cgroup in it, from its root.
    pub own: PathBuf,
}

impl Hierarchy {
    /// The directory of our own cgroup in it.
    pub fn own_dir(&self) -> PathBuf {
        let mount = Path::new(ROOT).join(&self.name);
        // A path on the host says nothing in a container that sees its own cgroup alone.
        let dir = below(&mount, &[&self.own]);
        if dir.exists() { dir } else { mount }
    }

    /// Its key in [`Paths`].
    pub fn key(&self) -> &str {
        if self.v2 { "" } else { self.controllers.first().map_or("", |first| first) }
    }

    /// The data of mount(2) for it; v2 needs none.
    pub fn mount_data(&self) -> String {
        if self.v2 { String::new() } else { self.controllers.join(",") }
    }

    /// The other names by which programs look for it: each of several controllers, as symbolic links.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        let several = !self.v2 && self.controllers.len() > 1;
        self.controllers.iter().filter(move |_| several).map(String::as_str)
    }
}

/// The cgroups of a process as /proc/PID/cgroup has them (cgroups(7)): controllers (`cpu,cpuacct`, `name=systemd`; v2: none)
/// and the path from the root of the tree.
///
/// # Errors
/// The process is gone.
pub fn of(pid: i32) -> Result<Vec<(String, String)>> {
    Ok(lines(&text_of(&pid.to_string())?).map(|(controllers, path)| (controllers.into(), path.into())).collect())
}

/// The text of /proc/PID/cgroup; a process may be called `self`.
fn text_of(pid: &str) -> Result<String> {
    let path = format!("/proc/{pid}/cgroup");
    tree::read_at_once(Path::new(&path)).on("read", format!("{path:?}"))
}

/// Its lines are `4:cpu,cpuacct:/user.slice` (cgroups(7)): what stands behind the number.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// The cgroup of a process in each tree, by controller (v2: the empty string).
fn by_controller(text: &str) -> BTreeMap<String, PathBuf> {
    let each = |(controllers, path)| str::split(controllers, ',').map(move |one| (one.into(), PathBuf::from(path)));
    lines(text).flat_map(each).collect()
}

/// Opens the v2 cgroup that a process is in: where exec goes if it cannot enter the container's own cgroup (EBUSY
/// since the container gave controllers to sub-cgroups, ENOENT since it was moved) and no `--cgroup` was asked for.
///
/// # Errors
/// The process is gone, or this host has no v2 tree.
pub fn entry_of(pid: i32) -> Result<Entry> {
    let own = by_controller(&text_of(&pid.to_string())?).remove("").unwrap_or_default();
    let dir = below(Path::new(if unified() { ROOT } else { HYBRID }), &[&own]);
    Ok(Entry { dir: Some(tree::directory(&dir).on("open", format!("{dir:?}"))?.into()), ..Entry::default() })
}

/// Where the cgroups of a process are, of one that another runtime has put into them.
///
/// # Errors
/// The process is gone, or its cgroups cannot be listed.
pub fn paths_of(pid: i32) -> Result<Paths> {
    let own = by_controller(&text_of(&pid.to_string())?);
    if unified() {
        let own = own.get("").cloned().unwrap_or_default();
        return Ok(Paths::from([(String::new(), below(Path::new(ROOT), &[&own]))]));
    }
    let trees = mounts(&own)?.into_iter().flat_map(|(name, keys)| keys.into_iter().map(move |key| (name.clone(), key)));
    Ok(trees
        .filter_map(|(name, key)| Some((below(&Path::new(ROOT).join(name), &[own.get(&key)?]), key)))
        .map(|(dir, key)| (key, dir))
        .collect())
}

/// Whether v2 alone is mounted. One stat, and no parsing of mountinfo (which on a busy host has thousands of lines).
fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The v1 trees and the hybrid v2 tree as (directory, controllers), by the names that every distribution gives them.
/// Symbolic links (`cpu` to `cpu,cpuacct`) are other names for the same trees.
///
/// A directory alone says nothing, mkdir works in it too: some engines leave empty ones behind for controllers that they
/// could not mount. `owns` (see [`own`]) has what is mounted as v1 at all, and one stat tells for the v2 tree.
fn mounts(owns: &BTreeMap<String, PathBuf>) -> Result<Mounts> {
    let mut mounts = BTreeMap::new();
    let names = match tree::directories(Path::new(ROOT)) {
        Err(e) if tree::gone(&e) => return Ok(mounts),
        names => names.on("list", ROOT)?,
    };
    for name in names {
        let controllers = controllers_of(&name);
        let mounted = match name.as_str() {
            "unified" => Path::new(HYBRID).join("cgroup.controllers").exists(),
            _ => !controllers.is_empty() && controllers.iter().all(|c| owns.contains_key(c)),
        };
        if mounted {
            mounts.insert(name, controllers);
        }
    }
    Ok(mounts)
}

/// The controllers of the tree on a directory of this name; none if it is not ours to use.
fn controllers_of(name: &str) -> Vec<String> {
    match name {
        "systemd" => vec!["name=systemd".to_string()],
        "unified" => vec![String::new()],
        _ if name.split(',').all(|c| CONTROLLERS.contains(&c)) => name.split(',').map(str::to_string).collect(),
        _ => Vec::new(),
    }
}

/// Our own cgroup as seen below the mount. In a container without a cgroup namespace /proc shows the path on the host,
/// but the mount begins at the container's cgroup: only then mountinfo is read.
fn visible(mount: &Path, own: &Path) -> Result<PathBuf> {
    if own == Path::new("/") || below(mount, &[own]).exists() {
        return Ok(own.to_path_buf());
    }
    let all = tree::read_all(Path::new("/proc/self/mountinfo")).on("read", "/proc/self/mountinfo")?;
    // Fields 4 and 5 are the root and the mount point (proc(5)).
    let root = all.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (Path::new(point) == mount).then(|| PathBuf::from(root))
    });
    let inside = root.and_then(|root| own.strip_prefix(root).ok().map(|rest| Path::new("/").join(rest)));
    Ok(inside.unwrap_or_else(|| PathBuf::from("/")))
}

/// Resolves `.` and `..` in the text alone; a relative path stays relative, and `..` never leads above its start.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::Normal(_) => clean.push(component),
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Joins cleaned paths below a directory, absolute ones too.
pub(super) fn below(dir: &Path, parts: &[&Path]) -> PathBuf {
    let mut path = dir.to_path_buf();
    for part in parts {
        let part = clean(part);
        path.push(part.strip_prefix("/").unwrap_or(&part));
    }
    path
}

/// See `fuzzing`.
#[cfg(fuzzing)]
pub fn fuzz_tables(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = by_controller(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        for (path, expected) in [
            ("a/b", "a/b"),
            ("/a//b/./c/", "/a/b/c"),
            ("/../../etc", "/etc"),
            ("../../etc", "etc"),
            ("a/../../../b", "b"),
            ("/a/../..", "/"),
            ("..", ""),
            ("", ""),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
        let root = Path::new("/sys/fs/cgroup/memory");
        assert_eq!(below(root, &[Path::new("/docker"), Path::new("../../x")]), root.join("docker/x"));
        assert_eq!(below(root, &[Path::new("/"), Path::new("/a")]), root.join("a"));
        // Our own cgroup may be outside of our cgroup namespace.
        assert_eq!(below(root, &[Path::new("/../../up"), Path::new("a")]), root.join("up/a"));
    }

    #[test]
    fn the_root_is_no_place_for_a_container() {
        for path in ["/", "/..", "/a/.."] {
            let e = Host::default().files(Some(Path::new(path)), "id").unwrap_err().to_string();
            assert_eq!(e, "linux.cgroupsPath: a container cannot have the root cgroup", "{path}");
        }
    }

    #[test]
    fn trees_are_known_by_their_names() {
        for (name, expected) in [
            ("memory", vec!["memory"]),
            ("cpu,cpuacct", vec!["cpu", "cpuacct"]),
            ("systemd", vec!["name=systemd"]),
            ("unified", vec![""]),
            ("elogind", vec![]),
            ("cpu,other", vec![]),
            ("net_cls,net_prio", vec!["net_cls", "net_prio"]),
        ] {
            assert_eq!(controllers_of(name), expected, "{name}");
        }
    }

    #[test]
    fn a_tree_knows_how_it_is_mounted_again() {
        let tree =
            |name: &str, v2| Hierarchy { name: name.into(), controllers: controllers_of(name), v2, own: "/".into() };
        let both = tree("cpu,cpuacct", false);
        assert_eq!((both.key(), both.mount_data().as_str()), ("cpu", "cpu,cpuacct"));
        assert_eq!(both.aliases().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        let systemd = tree("systemd", false);
        assert_eq!((systemd.key(), systemd.mount_data().as_str()), ("name=systemd", "name=systemd"));
        assert_eq!(systemd.aliases().count(), 0);
        let v2 = Hierarchy { controllers: vec!["hugetlb".into(), "misc".into()], ..tree("unified", true) };
        assert_eq!((v2.key(), v2.mount_data().as_str(), v2.aliases().count()), ("", "", 0));
    }

    #[test]
    fn own_cgroups_are_parsed() {
        let own = by_controller("9:name=systemd:/\n4:cpu,cpuacct:/user:odd/a b\n0::/x\nnonsense\n");
        let expected = [("", "/x"), ("cpu", "/user:odd/a b"), ("cpuacct", "/user:odd/a b"), ("name=systemd", "/")];
        assert_eq!(own, expected.iter().map(|(k, v)| (k.to_string(), PathBuf::from(v))).collect());
    }
}
