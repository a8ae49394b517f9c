//! Mounts that are added to a running container, and removed from it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use serde_json::{Value, json};

use super::namespaces;
use crate::check::{Check, Failure, Outcome};
use crate::runtime::{Lab, Out};

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "live_mounts",
        add_binds_a_directory "crun: mounts add",
        add_binds_a_file "crun: mounts add",
        add_several "crun: mounts add",
        add_honours_options "crun: mounts add",
        add_makes_a_tmpfs "crun: mounts add",
        add_idmapped "crun: mounts add",
        add_in_a_user_namespace "crun: mounts add",
        add_before_start "crun: mounts add",
        add_stays_inside_of_the_root "crun: mounts add",
        add_is_not_seen_on_the_host "crun: mounts add",
        add_to_a_stopped_container_is_refused "crun: mounts add",
        add_of_a_missing_source_is_refused "crun: mounts add",
        remove_takes_it_away "crun: mounts remove",
        remove_of_a_file "crun: mounts remove",
        remove_of_no_mount_is_refused "crun: mounts remove",
        file_that_is_no_array_is_refused "crun: mounts",
        action_that_is_unknown_is_refused "crun: mounts",
    );
    let own = checks!(
        "live_mounts",
        add_over_proc_is_refused "CVE-2019-16884",
        add_of_proc_shows_the_containers_processes "config-linux.md#default-filesystems",
        add_takes_all_back_when_one_fails "orlop: mounts",
        add_with_a_source_of_the_bundle "config.md#mounts",
        remove_of_one_that_is_no_mount_removes_none "orlop: mounts",
        remove_of_the_root_is_refused "orlop: mounts",
        tmpfs_belongs_to_the_user_namespace "orlop: mounts",
    );
    checks.extend(own.into_iter().map(|check| Check { own: true, ..check }));
    checks
}

/// Calls `mounts ACTION` with a file that lists these.
fn mounts(lab: &Lab, action: &str, list: Value) -> Result<Out, Failure> {
    let file = lab.dir.join("mounts.json");
    fs::write(&file, list.to_string())?;
    lab.call(&["mounts", action, &lab.id, &file.to_string_lossy()]).go()
}

fn bind(at: &str, source: &Path, options: &[&str]) -> Value {
    json!({ "destination": at, "type": "bind", "source": source, "options": options })
}

/// What a command in the container prints.
fn inside(lab: &Lab, script: &str) -> Result<String, Failure> {
    Ok(lab.exec(&[], &["sh", "-c", script])?.ok("exec")?.stdout)
}

fn source(lab: &Lab) -> Result<std::path::PathBuf, Failure> {
    let dir = lab.directory("source")?;
    fs::write(dir.join("file"), "content")?;
    Ok(dir)
}

/// A running container whose root can be written to, so that mount points can be made.
fn up(lab: &mut Lab) -> Outcome {
    lab.set("/root/readonly", false).up_idle()
}

fn add_binds_a_directory(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    mounts(lab, "add", json!([bind("/new/there", &source, &["bind"])]))?.ok("mounts add")?;
    same!(inside(lab, "cat /new/there/file; echo in > /new/there/new")?, "content", "content");
    same!(fs::read_to_string(source.join("new"))?, "in\n", "content written in the container");
    Ok(())
}

fn add_binds_a_file(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    mounts(lab, "add", json!([bind("/there", &source.join("file"), &["bind"])]))?.ok("mounts add")?;
    same!(inside(lab, "cat /there")?, "content", "content");
    Ok(())
}

fn add_several(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    fs::create_dir(source.join("below"))?;
    up(lab)?;
    let list = json!([bind("/one", &source, &["bind"]), bind("/one/below", &source, &["bind"])]);
    mounts(lab, "add", list)?.ok("mounts add")?;
    same!(inside(lab, "cat /one/below/file")?, "content", "content");
    Ok(())
}

fn add_honours_options(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    mounts(lab, "add", json!([bind("/there", &source, &["rbind", "ro", "nosuid", "nodev"])]))?.ok("mounts add")?;
    let options = inside(lab, "awk '$2 == \"/there\" {print $4}' /proc/self/mounts")?;
    for option in ["ro", "nosuid", "nodev"] {
        ensure!(options.trim().split(',').any(|one| one == option), "{option} is not among {options:?}");
    }
    let out = lab.exec(&[], &["touch", "/there/new"])?;
    ensure!(out.stderr.contains("Read-only file system"), "stderr: {}", out.stderr);
    Ok(())
}

fn add_makes_a_tmpfs(lab: &mut Lab) -> Outcome {
    up(lab)?;
    let tmpfs =
        json!([{ "destination": "/there", "type": "tmpfs", "source": "tmpfs", "options": ["size=2m", "noexec"] }]);
    mounts(lab, "add", tmpfs)?.ok("mounts add")?;
    let out = inside(lab, "stat -f -c '%T %b %S' /there; awk '$2 == \"/there\" {print $4}' /proc/self/mounts")?;
    let words: Vec<&str> = out.split_whitespace().collect();
    same!(words[0], "tmpfs", "file system");
    same!(words[1].parse::<u64>()? * words[2].parse::<u64>()?, 2 << 20, "size");
    ensure!(words[3].split(',').any(|one| one == "noexec"), "options: {}", words[3]);
    Ok(())
}

fn add_idmapped(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    let mut mount = bind("/there", &source, &["bind", "idmap"]);
    mount["uidMappings"] = json!([{ "containerID": 0, "hostID": 1815, "size": 1 }]);
    mount["gidMappings"] = json!([{ "containerID": 0, "hostID": 1852, "size": 1 }]);
    mounts(lab, "add", json!([mount]))?.ok("mounts add")?;
    same!(inside(lab, "stat -c %u:%g /there/file")?, "1815:1852\n", "owner and group");
    Ok(())
}

fn in_a_user_namespace(lab: &mut Lab) -> Outcome {
    lab.set("/linux/namespaces/-", json!({ "type": "user" })).set("/root/readonly", false);
    namespaces::map(lab);
    lab.up_idle()
}

fn add_in_a_user_namespace(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    chown(source.join("file"), Some(3), Some(3))?;
    // Where root of the container could not go by itself.
    fs::set_permissions(&lab.dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    in_a_user_namespace(lab)?;
    mounts(lab, "add", json!([bind("/there", &source, &["bind", "idmap"])]))?.ok("mounts add")?;
    same!(inside(lab, "stat -c %u:%g /there/file; cat /there/file")?, "3:3\ncontent", "owner, group and content");
    Ok(())
}

fn tmpfs_belongs_to_the_user_namespace(lab: &mut Lab) -> Outcome {
    in_a_user_namespace(lab)?;
    let tmpfs = json!([{ "destination": "/there", "type": "tmpfs", "source": "tmpfs" }]);
    mounts(lab, "add", tmpfs)?.ok("mounts add")?;
    same!(inside(lab, "stat -c %u:%g /there; echo in > /there/new; cat /there/new")?, "0:0\nin\n", "owner and content");
    Ok(())
}

fn add_before_start(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    lab.set("/root/readonly", false).sh("cat /there/file; sleep 100").create()?;
    mounts(lab, "add", json!([bind("/there", &source, &["bind"])]))?.ok("mounts add")?;
    lab.start()?;
    crate::runtime::wait_until("the file is not printed", || Ok(lab.output() == "content"))
}

fn add_stays_inside_of_the_root(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    let outside = lab.directory("outside")?;
    symlink(&outside, lab.rootfs().join("absolute"))?;
    symlink("../../../../../../../../../../../..", lab.rootfs().join("up"))?;
    up(lab)?;
    let below = format!("/up{}", outside.display());
    let list = json!([bind("/absolute/one", &source, &["bind"]), bind(&format!("{below}/two"), &source, &["bind"])]);
    mounts(lab, "add", list)?.ok("mounts add")?;
    same!(fs::read_dir(&outside)?.count(), 0, "files in the directory of the host");
    let inner = outside.display();
    same!(inside(lab, &format!("cat {inner}/one/file {inner}/two/file"))?, "contentcontent", "content inside");
    Ok(())
}

fn add_is_not_seen_on_the_host(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    mounts(lab, "add", json!([bind("/there", &source, &["bind"])]))?.ok("mounts add")?;
    same!(fs::read_dir(lab.rootfs().join("there"))?.count(), 0, "files at the mount point, seen from the host");
    Ok(())
}

fn add_to_a_stopped_container_is_refused(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    lab.stop()?;
    let out = mounts(lab, "add", json!([bind("/there", &source, &["bind"])]))?;
    ensure!(out.code != 0 && !out.stderr.is_empty(), "status {} and stderr {:?}", out.code, out.stderr);
    Ok(())
}

fn add_of_a_missing_source_is_refused(lab: &mut Lab) -> Outcome {
    up(lab)?;
    let out = mounts(lab, "add", json!([bind("/there", &lab.dir.join("missing"), &["bind"])]))?;
    ensure!(out.code != 0 && out.stderr.contains("missing"), "status {} and stderr {:?}", out.code, out.stderr);
    Ok(())
}

fn remove_takes_it_away(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    let list = json!([bind("/there", &source, &["bind"])]);
    mounts(lab, "add", list.clone())?.ok("mounts add")?;
    mounts(lab, "remove", list)?.ok("mounts remove")?;
    same!(inside(lab, "ls /there; grep -c ' /there ' /proc/self/mounts || true")?, "0\n", "files and mounts");
    Ok(())
}

fn remove_of_a_file(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    let list = json!([bind("/there", &source.join("file"), &["bind"])]);
    mounts(lab, "add", list.clone())?.ok("mounts add")?;
    mounts(lab, "remove", list)?.ok("mounts remove")?;
    same!(inside(lab, "cat /there")?, "", "content of the mount point");
    Ok(())
}

fn remove_of_no_mount_is_refused(lab: &mut Lab) -> Outcome {
    up(lab)?;
    for place in ["/etc", "/nowhere"] {
        let out = mounts(lab, "remove", json!([{ "destination": place }]))?;
        ensure!(out.code != 0 && out.stderr.contains(place), "{place}: {} {:?}", out.code, out.stderr);
    }
    Ok(())
}

fn file_that_is_no_array_is_refused(lab: &mut Lab) -> Outcome {
    up(lab)?;
    for list in [json!({ "mounts": [] }), json!("x"), json!([{ "destination": 3 }])] {
        let out = mounts(lab, "add", list.clone())?;
        ensure!(out.code != 0 && !out.stderr.is_empty(), "{list}: {} {:?}", out.code, out.stderr);
    }
    Ok(())
}

fn action_that_is_unknown_is_refused(lab: &mut Lab) -> Outcome {
    up(lab)?;
    let out = mounts(lab, "change", json!([]))?;
    ensure!(out.code != 0 && out.stderr.contains("change"), "status {} and stderr {:?}", out.code, out.stderr);
    Ok(())
}

fn add_over_proc_is_refused(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    symlink("/proc/self", lab.rootfs().join("link"))?;
    up(lab)?;
    for place in ["/proc", "/proc/self", "/link/attr"] {
        let out = mounts(lab, "add", json!([bind(place, &source, &["bind"])]))?;
        ensure!(out.code != 0 && out.stderr.contains("mounts[0]"), "{place}: {} {:?}", out.code, out.stderr);
    }
    Ok(())
}

fn add_of_proc_shows_the_containers_processes(lab: &mut Lab) -> Outcome {
    up(lab)?;
    mounts(lab, "add", json!([{ "destination": "/proc2", "type": "proc", "source": "proc" }]))?.ok("mounts add")?;
    let first = |proc: &str| inside(lab, &format!("md5sum < {proc}/1/cmdline"));
    same!(first("/proc2")?, first("/proc")?, "the command line of process 1");
    Ok(())
}

fn add_takes_all_back_when_one_fails(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    let before = inside(lab, "cut -d' ' -f5- /proc/self/mountinfo")?;
    let list = json!([
        bind("/one", &source, &["bind"]),
        bind("/one/file", &source.join("file"), &["bind"]),
        { "destination": "/two", "type": "tmpfs", "source": "tmpfs" },
        { "destination": "/three", "type": "tmpfs", "source": "tmpfs", "options": ["sise=1m"] }
    ]);
    let out = mounts(lab, "add", list)?;
    ensure!(out.code != 0 && out.stderr.contains("mounts[3].options[0]"), "status {}: {}", out.code, out.stderr);
    same!(inside(lab, "cut -d' ' -f5- /proc/self/mountinfo")?, before, "mounts after the failure");
    // One that cannot even be opened takes nothing away that was there before.
    mounts(lab, "add", json!([bind("/one", &source, &["bind"])]))?.ok("mounts add")?;
    let missing = lab.dir.join("missing");
    let list = json!([bind("/one", &source, &["bind"]), bind("/two", &missing, &["bind"])]);
    ensure!(mounts(lab, "add", list)?.code != 0, "a missing source is accepted");
    same!(inside(lab, "cat /one/file")?, "content", "content of the earlier mount");
    Ok(())
}

fn add_with_a_source_of_the_bundle(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.bundle().join("data"))?;
    let ino = fs::metadata(lab.bundle().join("data"))?.ino();
    up(lab)?;
    mounts(lab, "add", json!([bind("/there", Path::new("data"), &["bind"])]))?.ok("mounts add")?;
    same!(inside(lab, "stat -c %i /there")?, format!("{ino}\n"), "inode");
    Ok(())
}

fn remove_of_one_that_is_no_mount_removes_none(lab: &mut Lab) -> Outcome {
    let source = source(lab)?;
    up(lab)?;
    mounts(lab, "add", json!([bind("/there", &source, &["bind"])]))?.ok("mounts add")?;
    let out = mounts(lab, "remove", json!([{ "destination": "/there" }, { "destination": "/etc" }]))?;
    ensure!(out.code != 0 && out.stderr.contains("mounts[1].destination"), "status {}: {}", out.code, out.stderr);
    same!(inside(lab, "cat /there/file")?, "content", "content");
    Ok(())
}

fn remove_of_the_root_is_refused(lab: &mut Lab) -> Outcome {
    up(lab)?;
    for place in ["/", "/..", "."] {
        let out = mounts(lab, "remove", json!([{ "destination": place }]))?;
        ensure!(out.code != 0 && out.stderr.contains("root"), "{place}: {} {:?}", out.code, out.stderr);
    }
    Ok(())
}
