//! What of a container comes from outside, so that CRIU must not dump it and is told what stands for it at restore: bind
//! mounts, masks, and namespaces that were joined.

use super::rpc::{inherit_fd, opt, pair};
use super::wire::Message;
use crate::cgroup::{Hierarchy, Paths, ROOT};
use crate::config::path_of;
use crate::error::{Error, Kind, On, Result, invalid};
use crate::notify;
use crate::plan::{c_string, clean, destination};
use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Spec};
use orlop_sys::file;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What stands for a masked file.
const NULL: &str = "/dev/null";

/// A mount point in the container, and what of the host is mounted there.
#[derive(Debug, PartialEq, Eq)]
pub struct External {
    /// Absolute in the container, symbolic links resolved.
    pub inside: String,
    /// Absolute on the host.
    pub source: PathBuf,
}

/// Which container this is.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Its configuration.
    pub spec: &'a Spec,
    /// Its bundle, absolute.
    pub bundle: &'a Path,
    /// Its rootfs, absolute and resolved.
    pub rootfs: &'a Path,
    /// Its state directory.
    pub state: &'a Path,
    /// Its cgroups.
    pub cgroups: &'a Paths,
    /// The cgroup trees of the host; none if no mount is of type cgroup.
    pub hierarchies: &'a [Hierarchy],
    /// Its root directory: that of its init, or the rootfs.
    pub root: BorrowedFd<'a>,
}

impl Container<'_> {
    /// The mounts whose contents are the host's.
    pub fn mounts(&self) -> Result<Vec<External>> {
        let mut all = Vec::new();
        for (i, m) in self.spec.mounts().iter().flatten().enumerate() {
            if is_idmapped(m) {
                return Err(invalid(format!("mounts[{i}]"), "CRIU cannot restore an idmapped mount"));
            }
            let inside = self.resolved(&destination(m, self.rootfs))?;
            if is_bind(m) {
                let source = m.source().as_deref().unwrap_or(Path::new(""));
                all.push(External { inside, source: self.bundle.join(source) });
            } else if is_cgroup(m) && !self.has_own(Ns::Cgroup) {
                // As the plan has bound them.
                let only_v2 = self.hierarchies.iter().all(|h| h.v2);
                let whole = only_v2 && [Ns::Cgroup, Ns::User].iter().all(|kind| namespace(self.spec, *kind).is_none());
                all.extend(self.hierarchies.iter().filter_map(|h| {
                    let made = if whole { Some(PathBuf::from(ROOT)) } else { self.cgroups.get(h.key()).cloned() };
                    let source = made.or_else(|| only_v2.then(|| h.own_dir()))?;
                    let inside = if only_v2 { inside.clone() } else { format!("{inside}/{}", h.name) };
                    Some(External { inside, source })
                }));
            }
        }
        let notify = notify::directory(self.state);
        if notify.exists() {
            all.push(External { inside: self.resolved(notify::DESTINATION)?, source: notify });
        }
        Ok(all)
    }

    /// The masked paths that are files: each is a mount of the host's null device. Masked directories are mounts of a tmpfs, which
    /// CRIU dumps.
    pub fn masked_files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for path in self.spec.linux().iter().filter_map(|l| l.masked_paths().as_ref()).flatten() {
            let text = c_string(path.as_str(), "linux.maskedPaths")?;
            match file::openat2(self.root, &text, file::O_PATH, 0, file::IN_ROOT) {
                Ok(fd) if !file::fstat(fd.as_fd()).on("fstat", path)?.is_dir() => files.push(self.resolved(path)?),
                // What is not there is not masked.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(files)
    }

    /// For the dump, in which CRIU finds a mount by its place and keeps the second text for the restore.
    pub fn dump(&self, options: &mut Message) -> Result<()> {
        for external in self.mounts()? {
            options.message(opt::EXT_MNT, &pair(&external.inside, &external.inside));
        }
        for masked in self.masked_files()? {
            options.message(opt::EXT_MNT, &pair(masked, NULL));
        }
        for device in self.bound_devices() {
            options.message(opt::EXT_MNT, &pair(&device, &device));
        }
        Ok(())
    }

    /// For the restore, in which the texts of the dump are found again.
    pub fn restore(&self, options: &mut Message) -> Result<()> {
        for external in self.mounts()? {
            options.message(opt::EXT_MNT, &pair(&external.inside, external.source.as_os_str().as_bytes()));
        }
        options.message(opt::EXT_MNT, &pair(NULL, NULL));
        for device in self.bound_devices().iter().filter(|device| *device != NULL) {
            options.message(opt::EXT_MNT, &pair(device, device));
        }
        Ok(())
    }

    /// In a user namespace no device can be made: the host's are bound.
    fn bound_devices(&self) -> Vec<String> {
        if namespace(self.spec, Ns::User).is_none() { Vec::new() } else { crate::plan::device_paths(self.spec) }
    }

    fn has_own(&self, kind: Ns) -> bool {
        matches!(namespace(self.spec, kind), Some(None))
    }

    /// Where a path really is. What is missing, because it lies on a file system that is still to be restored, is taken as
    /// it is written.
    fn resolved(&self, path: &str) -> Result<String> {
        let top = path_of_root(self.root)?;
        let mut there = PathBuf::from(path);
        let mut missing = PathBuf::new();
        loop {
            let text = c_string(there.as_os_str().as_bytes(), "mounts")?;
            if let Ok(fd) = file::openat2(self.root, &text, file::O_PATH, 0, file::IN_ROOT) {
                let real = path_of(fd.as_fd())?;
                let real = real.strip_prefix(&top).map_or(there.as_path(), |inside| inside);
                return Ok(clean(&Path::new("/").join(real).join(missing)));
            }
            let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { return Ok(path.to_string()) };
            missing = Path::new(name).join(missing);
            there = parent.to_path_buf();
        }
    }
}

fn path_of_root(root: BorrowedFd) -> Result<PathBuf> {
    let root = root.try_clone_to_owned().on("dup", "the root directory")?;
    path_of(root.as_fd())
}

/// Whether a mount shows a part of the host.
pub fn is_bind(m: &Mount) -> bool {
    m.typ().as_deref() == Some("bind") || m.options().iter().flatten().any(|o| matches!(o.as_str(), "bind" | "rbind"))
}

/// Whether a mount shows other owners than its source has: CRIU would bind the source as it is.
fn is_idmapped(m: &Mount) -> bool {
    let asked = |o: &String| ["idmap", "ridmap"].iter().any(|name| o.split('=').next() == Some(name));
    m.uid_mappings().is_some() || m.gid_mappings().is_some() || m.options().iter().flatten().any(asked)
}

/// Whether a mount shows cgroups.
pub fn is_cgroup(m: &Mount) -> bool {
    matches!(m.typ().as_deref(), Some("cgroup" | "cgroup2"))
}

/// A namespace of config.json: `None`, not listed; `Some(None)`, new; `Some(Some(path))`, joined.
pub fn namespace(spec: &Spec, kind: Ns) -> Option<Option<&Path>> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    let found = list.iter().find(|n| n.typ() == kind)?;
    Some(found.path().as_deref().filter(|path| !path.as_os_str().is_empty()))
}

/// The namespaces that CRIU takes as given, by runc's names for them: nobody of theirs is dumped, and at restore they are
/// there. (Others that were joined are dumped, and joined again: their contents are the container's as well.)
const GIVEN: [(Ns, &str, &str); 2] = [(Ns::Network, "net", "extRootNetNS"), (Ns::Pid, "pid", "extRootPidNS")];

/// For the dump: the joined namespaces, by their inodes.
pub fn dump_namespaces(spec: &Spec, options: &mut Message) -> Result<()> {
    for (kind, name, key) in GIVEN {
        if let Some(Some(path)) = namespace(spec, kind) {
            let inode = std::fs::metadata(path).on("stat", path.display()).map_err(|e| e.at("linux.namespaces"))?.ino();
            options.text(opt::EXTERNAL, format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(())
}

/// For the restore: the namespaces to join. The fds must be open in CRIU's process under the same numbers.
pub fn restore_namespaces(spec: &Spec, options: &mut Message) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    for n in spec.linux().iter().filter_map(|l| l.namespaces().as_ref()).flatten() {
        let Some(Some(path)) = namespace(spec, n.typ()) else { continue };
        if let Some((.., key)) = GIVEN.iter().find(|given| given.0 == n.typ()) {
            let text = c_string(path.as_os_str().as_bytes(), "linux.namespaces")?;
            let fd = file::open(&text, file::O_RDONLY, 0).on("open", path.display());
            let fd = fd.map_err(|e| e.at("linux.namespaces"))?;
            options.message(opt::INHERIT_FD, &inherit_fd(key, fd.as_raw_fd()));
            fds.push(fd);
            continue;
        }
        let name = match n.typ() {
            Ns::Cgroup => {
                return Err(invalid("linux.namespaces", "CRIU cannot restore into the cgroup namespace of a path"));
            }
            Ns::Mount => "mnt".to_string(),
            other => other.to_string(),
        };
        options.message(opt::JOIN_NS, &pair(name, path.as_os_str().as_bytes()));
    }
    Ok(fds)
}

/// The root directory of a running container.
pub fn root_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let gone = |e: Error| e.kind_of(Kind::State);
    file::open(&c_string(path.as_str(), "")?, file::O_PATH | file::O_DIRECTORY, 0).on("open", path).map_err(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::wire::parse;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    fn spec(json: serde_json::Value) -> Spec {
        serde_json::from_value(json).unwrap()
    }

    /// The pairs of a list of options.
    fn pairs(options: &Message) -> Vec<(String, String)> {
        let all = parse(options.bytes()).unwrap();
        let pair = |bytes| {
            let fields = parse(bytes).unwrap();
            (fields[0].1.text(), fields[1].1.text())
        };
        all.iter().filter(|f| f.0 == opt::EXT_MNT).map(|f| pair(f.1.bytes())).collect()
    }

    fn tree(name: &str, v2: bool) -> Hierarchy {
        let controllers = if v2 { Vec::new() } else { vec![name.to_string()] };
        Hierarchy { name: name.into(), controllers, v2, own: "/".into() }
    }

    fn with<T>(spec: &Spec, hierarchies: &[Hierarchy], check: impl FnOnce(&Container, &Path) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        for made in ["root/real/conf", "root/etc", "state"] {
            std::fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        symlink("/real/conf", dir.path().join("root/conf")).unwrap();
        std::fs::write(dir.path().join("root/etc/secret"), "").unwrap();
        let root = file::open(&c_string(dir.path().join("root").as_os_str().as_bytes(), "").unwrap(), file::O_PATH, 0);
        let cgroups: Paths = [("memory", "/sys/fs/cgroup/memory/x"), ("", "/sys/fs/cgroup/unified/x")]
            .map(|(k, v)| (k.to_string(), PathBuf::from(v)))
            .into();
        let container = Container {
            spec,
            bundle: Path::new("/bundle"),
            rootfs: &dir.path().join("root"),
            state: &dir.path().join("state"),
            cgroups: &cgroups,
            hierarchies,
            root: root.as_ref().unwrap().as_fd(),
        };
        check(&container, dir.path())
    }

    #[test]
    fn bind_mounts_are_named_by_where_they_really_are() {
        let spec = spec(json!({"ociVersion": "1.0.2", "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/conf", "source": ".", "options": ["bind"]},
            {"destination": "/a/../new//place", "type": "bind", "source": "/host", "options": ["ro"]},
            {"destination": "/conf/sub", "type": "none", "source": "x", "options": ["rbind"]}
        ]}));
        with(&spec, &[], |container, dir| {
            let mut options = Message::new();
            container.dump(&mut options).unwrap();
            let names = ["/real/conf", "/new/place", "/real/conf/sub"];
            assert_eq!(pairs(&options), names.map(|n| (n.to_string(), n.to_string())));
            std::fs::create_dir(dir.join("state/notify")).unwrap();
            let mut options = Message::new();
            container.restore(&mut options).unwrap();
            let notify = dir.join("state/notify").display().to_string();
            let expected = [
                ("/real/conf", "/bundle/."),
                ("/new/place", "/host"),
                ("/real/conf/sub", "/bundle/x"),
                ("/run/notify", &notify),
                ("/dev/null", "/dev/null"),
            ];
            assert_eq!(pairs(&options), expected.map(|(k, v)| (k.to_string(), v.to_string())));
        });
    }

    #[test]
    fn an_idmapped_mount_is_refused() {
        for option in ["idmap", "ridmap", "idmap=uids=0-1000-1"] {
            let spec = spec(json!({"ociVersion": "1.0.2", "mounts": [
                {"destination": "/a", "source": "/b", "options": ["bind"]},
                {"destination": "/c", "source": "/d", "options": ["bind", option]}
            ]}));
            let e = with(&spec, &[], |container, _| container.dump(&mut Message::new()).unwrap_err());
            assert_eq!(e.to_string(), "mounts[1]: CRIU cannot restore an idmapped mount");
        }
    }

    #[test]
    fn cgroup_mounts_are_bind_mounts_without_a_namespace() {
        let of = |namespaces: serde_json::Value, hierarchies: &[Hierarchy]| {
            let spec = spec(json!({"ociVersion": "1.0.2", "linux": {"namespaces": namespaces},
                "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]}));
            with(&spec, hierarchies, |container, _| container.mounts().unwrap())
        };
        let hybrid = [tree("memory", false), tree("hugetlb", false), tree("unified", true)];
        let external = |inside: &str, source: &str| External { inside: inside.into(), source: source.into() };
        let expected = [
            external("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/x"),
            external("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/x"),
        ];
        assert_eq!(of(json!([]), &hybrid), expected);
        assert_eq!(of(json!([{"type": "cgroup"}]), &hybrid), []);
        let unified = [tree("", true)];
        assert_eq!(of(json!([]), &unified), [external("/sys/fs/cgroup", "/sys/fs/cgroup")]);
        assert_eq!(of(json!([{"type": "user"}]), &unified), [external("/sys/fs/cgroup", "/sys/fs/cgroup/unified/x")]);
        assert_eq!(of(json!([{"type": "cgroup"}]), &unified), []);
    }

    #[test]
    fn masked_files_are_the_null_device() {
        let spec = spec(json!({"ociVersion": "1.0.2",
            "linux": {"maskedPaths": ["/etc/secret", "/etc/none", "/real"], "namespaces": []}}));
        with(&spec, &[], |container, _| {
            let mut options = Message::new();
            container.dump(&mut options).unwrap();
            assert_eq!(pairs(&options), [("/etc/secret".to_string(), "/dev/null".to_string())]);
        });
    }

    #[test]
    fn joined_namespaces_are_given_or_joined_again() {
        let list = json!([{"type": "network", "path": "/proc/self/ns/net"}, {"type": "pid"},
            {"type": "ipc", "path": "/proc/self/ns/ipc"}, {"type": "mount"}]);
        let with_namespaces = spec(json!({"ociVersion": "1.0.2", "linux": {"namespaces": list}}));
        let mut options = Message::new();
        dump_namespaces(&with_namespaces, &mut options).unwrap();
        let inode = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let mut expected = Message::new();
        expected.text(opt::EXTERNAL, format!("net[{inode}]:extRootNetNS"));
        assert_eq!(options, expected);

        let mut options = Message::new();
        let fds = restore_namespaces(&with_namespaces, &mut options).unwrap();
        let mut expected = Message::new();
        expected.message(opt::INHERIT_FD, &inherit_fd("extRootNetNS", fds[0].as_raw_fd()));
        expected.message(opt::JOIN_NS, &pair("ipc", "/proc/self/ns/ipc"));
        assert_eq!((options, fds.len()), (expected, 1));

        for (kind, path, said) in [("cgroup", "/proc/self/ns/cgroup", "CRIU"), ("network", "/nowhere", "/nowhere")] {
            let bad = spec(json!({"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": kind, "path": path}]}}));
            let e = restore_namespaces(&bad, &mut Message::new()).unwrap_err().to_string();
            assert!(e.starts_with("linux.namespaces: ") && e.contains(said), "{e}");
        }
    }
}
