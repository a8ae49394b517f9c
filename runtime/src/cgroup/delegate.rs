//! What of a v2 cgroup is given to the container: its files to its user (config-linux.md, "Cgroup ownership"), and a cgroup below
//! it in which its process starts.

use super::host::{annotation, below};
use super::tree::{self, Made};
use crate::error::{On, Result};
use oci_spec::runtime::{LinuxNamespaceType as Ns, Spec};
use std::io::ErrorKind;
use std::os::unix::fs::lchown;
use std::path::Path;

/// The kernel's list of the files that go with a delegated cgroup, since 4.15.
const FILES: &str = "/sys/kernel/cgroup/delegate";
/// The cgroup below the container's in which its process starts. crun's annotation.
const DELEGATE: &str = "run.oci.delegate-cgroup";

/// The uid on the host whom the container's cgroup is to belong to: the process's, if it sees its cgroup as the root of a
/// writable tree; otherwise nobody's.
pub fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let namespace = |kind| linux.namespaces().iter().flatten().find(|n| n.typ() == kind);
    let new = |kind| namespace(kind).is_some_and(|n| n.path().as_ref().is_none_or(|path| path.as_os_str().is_empty()));
    let writable = spec.mounts().iter().flatten().any(|m| {
        matches!(m.typ().as_deref(), Some("cgroup" | "cgroup2")) && !m.options().iter().flatten().any(|o| o == "ro")
    });
    if !new(Ns::Cgroup) || !writable {
        return None;
    }
    let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
    if namespace(Ns::User).is_none() {
        return Some(uid).filter(|uid| *uid != 0);
    }
    // In a joined one the ids are not known here.
    if !new(Ns::User) {
        return None;
    }
    linux.uid_mappings().iter().flatten().find_map(|map| {
        let offset = uid.checked_sub(map.container_id()).filter(|offset| *offset < map.size())?;
        map.host_id().checked_add(offset)
    })
}

/// Gives the cgroup and the files that its children depend on to a user.
pub(super) fn give(dir: &Path, uid: u32) -> Result<()> {
    let files = tree::read_all(Path::new(FILES)).on("read", FILES)?;
    lchown(dir, Some(uid), None).on(format!("chown to {uid} of"), format!("{dir:?}"))?;
    for path in files.lines().map(|name| dir.join(name)) {
        match lchown(&path, Some(uid), None) {
            // The list has the files of controllers too.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            result => result.on(format!("chown to {uid} of"), format!("{path:?}"))?,
        }
    }
    Ok(())
}

/// Where the container's process starts by the annotation, below its cgroup; empty: in it.
///
/// # Errors
/// A path that is not below.
pub fn subgroup(spec: &Spec) -> Result<&str> {
    annotation(spec, DELEGATE)
}

/// Makes the cgroup below `dir` and moves the process in.
pub(super) fn enter(dir: &Path, sub: &str, pid: i32, owner: Option<u32>) -> Result<()> {
    let place = below(dir, &[Path::new(sub)]);
    let mut made = Made::default();
    made.make(&place).on("mkdir", format!("{place:?}"))?;
    if let Some(uid) = owner {
        give(&place, uid)?;
    }
    tree::attach(&place, pid)?;
    made.keep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str, options: &str, uid: u32) -> Spec {
        let text = format!(
            r#"{{"ociVersion":"1.0.0","process":{{"cwd":"/","user":{{"uid":{uid},"gid":0}}}},
                "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","options":[{options}]}}],
                "linux":{{"namespaces":[{namespaces}],"uidMappings":[{{"containerID":0,"hostID":1000,"size":1}},{{"containerID":1,"hostID":100000,"size":10}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_owner_is_the_user_of_a_container_that_may_write() {
        const BOTH: &str = r#"{"type":"cgroup"},{"type":"user"}"#;
        const CGROUP: &str = r#"{"type":"cgroup"}"#;
        for (namespaces, options, uid, expected) in [
            (BOTH, "", 0, Some(1000)),
            (BOTH, "\"nosuid\"", 3, Some(100_002)),
            (BOTH, "", 11, None),
            (BOTH, "\"ro\"", 0, None),
            (r#"{"type":"user"}"#, "", 0, None),
            (r#"{"type":"cgroup","path":"/proc/1/ns/cgroup"},{"type":"user"}"#, "", 0, None),
            (r#"{"type":"cgroup"},{"type":"user","path":"/proc/1/ns/user"}"#, "", 0, None),
            (CGROUP, "", 0, None),
            (CGROUP, "", 7, Some(7)),
        ] {
            assert_eq!(owner(&spec(namespaces, options, uid)), expected, "{namespaces} {options} {uid}");
        }
    }

    #[test]
    fn the_annotation_is_a_path_below() {
        let with = |value: &str| {
            let mut spec = spec("", "", 0);
            spec.set_annotations(Some([(DELEGATE.to_string(), value.to_string())].into()));
            subgroup(&spec).map(str::to_string).map_err(|e| e.to_string())
        };
        assert_eq!(with("a/b").unwrap(), "a/b");
        assert_eq!(subgroup(&spec("", "", 0)).unwrap(), "");
        for bad in ["/a", "../a", "a/../../b", "."] {
            let e = with(bad).unwrap_err();
            assert!(e.starts_with("annotations.run.oci.delegate-cgroup: "), "{bad}: {e}");
        }
    }
}
