//! Idmapped mounts: whose the files of a bind mount seem to be.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::namespaces;
use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "idmap",
        mappings_of_the_mount "config.md#mounts",
        mappings_in_a_user_namespace "config.md#mounts",
        mappings_of_several_ranges "config.md#mounts",
        mappings_differ_for_one_source "config.md#mounts",
        mappings_with_a_relative_source "config.md#mounts",
        new_files_belong_to_the_source "config.md#mounts",
        option_is_not_recursive "config.md#mounts",
        option_ridmap_is_recursive "config.md#mounts",
        option_alone_takes_the_containers_mappings "config.md#mounts",
        option_alone_without_user_namespace_is_refused "config.md#mounts",
        source_in_the_root_file_system "runc: mounts",
        source_in_the_root_file_system_in_a_user_namespace "runc: mounts",
        many_mounts_under_a_low_limit_of_files "runc: mounts",
        uid_mappings_alone_are_refused "config.md#mounts",
        gid_mappings_alone_are_refused "config.md#mounts",
        file_system_without_support_is_refused "runtime.md#errors",
        explicit_mappings "crun: idmap mount options",
        explicit_mappings_relative_to_the_container "crun: idmap mount options",
        explicit_mappings_that_are_none_are_refused "crun: idmap mount options",
    )
}

/// Where the ids of the user namespaces of [`namespaces::map`] begin on the host.
const BASE: u32 = 100_000;

fn mapping(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// A directory with a file of this owner and group.
fn source(lab: &Lab, name: &str, owner: u32) -> Outcome {
    let dir = lab.directory(name)?;
    fs::write(dir.join("file"), "")?;
    chown(dir.join("file"), Some(owner), Some(owner))?;
    Ok(())
}

fn user_namespace(lab: &mut Lab) {
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    namespaces::map(lab);
}

/// A bind mount of the source; the directory is there already, as root of a user namespace cannot make it.
fn bind(lab: &mut Lab, at: &str, source: &Path, options: &[&str], maps: Option<(Value, Value)>) -> Outcome {
    fs::create_dir_all(lab.rootfs().join(at.trim_start_matches('/')))?;
    let mut mount = json!({ "destination": at, "type": "bind", "source": source, "options": options });
    if let Some((uid, gid)) = maps {
        mount["uidMappings"] = uid;
        mount["gidMappings"] = gid;
    }
    lab.set("/mounts/-", mount);
    Ok(())
}

fn both(container: u32, host: u32, size: u32) -> Option<(Value, Value)> {
    Some((mapping(container, host, size), mapping(container, host, size)))
}

fn owners(lab: &mut Lab, files: &str) -> Result<String, Failure> {
    lab.run_sh(&format!("stat -c %u:%g {files}"))
}

fn mappings_of_the_mount(lab: &mut Lab) -> Outcome {
    source(lab, "source", 3)?;
    bind(lab, "/there", &lab.dir.join("source"), &["bind", "idmap"], both(0, BASE, 100))?;
    same!(owners(lab, "/there/file")?, "100003:100003\n", "owner and group");
    Ok(())
}

fn mappings_in_a_user_namespace(lab: &mut Lab) -> Outcome {
    source(lab, "source", 3)?;
    user_namespace(lab);
    bind(lab, "/there", &lab.dir.join("source"), &["bind", "idmap"], both(0, BASE, 100))?;
    bind(lab, "/plain", &lab.dir.join("source"), &["bind"], None)?;
    same!(owners(lab, "/there/file /plain/file")?, "3:3\n65534:65534\n", "with maps and without");
    Ok(())
}

fn mappings_of_several_ranges(lab: &mut Lab) -> Outcome {
    for owner in [1, 20] {
        source(lab, &format!("source/{owner}"), owner)?;
    }
    let map = |base: u32| json!([{ "containerID": 1, "hostID": base, "size": 1 }, { "containerID": 20, "hostID": base + 1, "size": 5 }]);
    bind(lab, "/there", &lab.dir.join("source"), &["bind", "idmap"], Some((map(500), map(700))))?;
    same!(owners(lab, "/there/1/file /there/20/file")?, "500:700\n501:701\n", "owners and groups");
    Ok(())
}

fn mappings_differ_for_one_source(lab: &mut Lab) -> Outcome {
    source(lab, "source", 0)?;
    for (at, base) in [("/one", 100), ("/two", 200), ("/again", 100)] {
        bind(lab, at, &lab.dir.join("source"), &["bind", "idmap"], both(0, base, 10))?;
    }
    same!(owners(lab, "/one/file /two/file /again/file")?, "100:100\n200:200\n100:100\n", "owners and groups");
    Ok(())
}

fn mappings_with_a_relative_source(lab: &mut Lab) -> Outcome {
    source(lab, "bundle/data", 0)?;
    bind(lab, "/there", Path::new("data"), &["bind", "idmap"], both(0, 7, 10))?;
    same!(owners(lab, "/there/file")?, "7:7\n", "owner and group");
    Ok(())
}

fn new_files_belong_to_the_source(lab: &mut Lab) -> Outcome {
    source(lab, "source", 0)?;
    user_namespace(lab);
    bind(lab, "/there", &lab.dir.join("source"), &["bind", "idmap"], both(0, BASE, 100))?;
    lab.run_sh("echo new > /there/new")?;
    let new = fs::metadata(lab.dir.join("source/new"))?;
    same!((new.uid(), new.gid()), (0, 0), "owner and group on the host");
    Ok(())
}

/// A source with another mount below it.
fn tree(lab: &mut Lab, option: &str) -> Result<String, Failure> {
    source(lab, "outer", 0)?;
    source(lab, "inner", 0)?;
    let (inner, below) = (lab.dir.join("inner"), lab.directory("outer/below")?);
    let status = Command::new("mount").arg("--bind").args([&inner, &below]).status()?;
    ensure!(status.success(), "mount --bind: {status}");
    bind(lab, "/there", &lab.dir.join("outer"), &["rbind", "rprivate", option], both(0, 50, 10))?;
    let owners = owners(lab, "/there/file /there/below/file");
    let status = Command::new("umount").arg(&below).status()?;
    ensure!(status.success(), "umount: {status}");
    owners
}

fn option_is_not_recursive(lab: &mut Lab) -> Outcome {
    same!(tree(lab, "idmap")?, "50:50\n0:0\n", "on the mount and on the one below it");
    Ok(())
}

fn option_ridmap_is_recursive(lab: &mut Lab) -> Outcome {
    same!(tree(lab, "ridmap")?, "50:50\n50:50\n", "on the mount and on the one below it");
    Ok(())
}

fn option_alone_takes_the_containers_mappings(lab: &mut Lab) -> Outcome {
    source(lab, "source", 3)?;
    user_namespace(lab);
    bind(lab, "/there", &lab.dir.join("source"), &["bind", "idmap"], None)?;
    same!(owners(lab, "/there/file")?, "3:3\n", "owner and group");
    Ok(())
}

fn option_alone_without_user_namespace_is_refused(lab: &mut Lab) -> Outcome {
    source(lab, "source", 0)?;
    let source = lab.dir.join("source");
    for option in ["idmap", "ridmap"] {
        lab.refused(|lab| {
            lab.mount("/there", "bind", &source, &["bind", option]);
        })?;
        let last = lab.config["mounts"].as_array().map_or(0, Vec::len) - 1;
        lab.config["mounts"].as_array_mut().expect("a list").remove(last);
    }
    Ok(())
}

/// The source is a mount of the container itself, made earlier in the list.
fn in_the_rootfs(lab: &mut Lab) -> Result<String, Failure> {
    source(lab, "source", 0)?;
    bind(lab, "/first", &lab.dir.join("source"), &["bind"], None)?;
    bind(lab, "/there", &lab.rootfs().join("first"), &["rbind"], both(0, BASE + 4, 10))?;
    owners(lab, "/there/file")
}

fn source_in_the_root_file_system(lab: &mut Lab) -> Outcome {
    same!(in_the_rootfs(lab)?, "100004:100004\n", "owner and group");
    Ok(())
}

fn source_in_the_root_file_system_in_a_user_namespace(lab: &mut Lab) -> Outcome {
    user_namespace(lab);
    same!(in_the_rootfs(lab)?, "4:4\n", "owner and group");
    Ok(())
}

fn many_mounts_under_a_low_limit_of_files(lab: &mut Lab) -> Outcome {
    source(lab, "source", 0)?;
    user_namespace(lab);
    for i in 0..30 {
        bind(lab, &format!("/there{i}"), &lab.dir.join("source"), &["bind"], both(0, BASE + i, 10))?;
    }
    lab.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 20 }]));
    same!(lab.run_sh("stat -c %u /there29/file; ulimit -n; ulimit -Hn")?, "29\n20\n20\n", "owner, and the limit");
    Ok(())
}

fn one_kind_alone(lab: &mut Lab, kind: &str) -> Outcome {
    source(lab, "source", 0)?;
    let mut mount = json!({
        "destination": "/there", "type": "bind", "source": lab.dir.join("source"), "options": ["bind", "idmap"]
    });
    mount[kind] = mapping(0, BASE, 10);
    lab.refused(|lab| {
        lab.set("/mounts/-", mount);
    })?;
    Ok(())
}

fn uid_mappings_alone_are_refused(lab: &mut Lab) -> Outcome {
    one_kind_alone(lab, "uidMappings")
}

fn gid_mappings_alone_are_refused(lab: &mut Lab) -> Outcome {
    one_kind_alone(lab, "gidMappings")
}

fn file_system_without_support_is_refused(lab: &mut Lab) -> Outcome {
    // The kernel's own file systems cannot be idmapped.
    let reason = lab.refused(|lab| {
        bind(lab, "/there", Path::new("/sys/kernel"), &["bind", "idmap"], both(0, BASE, 10)).expect("a directory");
    })?;
    ensure!(
        reason.contains("/sys/kernel") || reason.contains("/there"),
        "the reason does not name the mount: {reason}"
    );
    Ok(())
}

fn explicit_mappings(lab: &mut Lab) -> Outcome {
    for owner in [0, 15] {
        source(lab, &format!("source/{owner}"), owner)?;
    }
    let option = "idmap=uids=0-1000-10#10-2000-10;gids=0-3000-20";
    bind(lab, "/there", &lab.dir.join("source"), &["bind", option], None)?;
    same!(owners(lab, "/there/0/file /there/15/file")?, "1000:3000\n2005:3015\n", "owners and groups");
    Ok(())
}

fn explicit_mappings_relative_to_the_container(lab: &mut Lab) -> Outcome {
    source(lab, "source", 0)?;
    user_namespace(lab);
    let option = "idmap=uids=@0-5-10;gids=@0-6-10";
    bind(lab, "/there", &lab.dir.join("source"), &["bind", option], None)?;
    same!(owners(lab, "/there/file")?, "5:6\n", "owner and group");
    Ok(())
}

fn explicit_mappings_that_are_none_are_refused(lab: &mut Lab) -> Outcome {
    source(lab, "source", 0)?;
    let source = lab.dir.join("source");
    for option in ["idmap=uids=0-1", "idmap=users=0-1-2", "idmap=uids=@0-1-2;gids=@0-1-2"] {
        lab.refused(|lab| {
            lab.mount("/there", "bind", &source, &["bind", option]);
        })?;
        let last = lab.config["mounts"].as_array().map_or(0, Vec::len) - 1;
        lab.config["mounts"].as_array_mut().expect("a list").remove(last);
    }
    Ok(())
}
