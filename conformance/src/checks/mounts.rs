//! Mounts, default file systems, devices, masked and read-only paths, propagation.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::json;

use crate::check::{Check, Failure, Outcome};
use crate::needs::{v2, v2_options};
use crate::runtime::Lab;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "mounts",
        order_of_the_list "config.md#mounts",
        destination_directory_is_made "config.md#mounts",
        destination_file_is_made "config.md#mounts",
        destination_relative_is_from_the_root "config.md#mounts",
        destination_stacked_twice "config.md#mounts",
        source_relative_is_from_the_bundle "config.md#mounts",
        source_missing_is_refused "config.md#mounts",
        type_unknown_is_refused "config.md#mounts",
        option_unknown_is_refused_by_the_file_system "config.md#mounts",
        bind_shows_the_source "config.md#mounts",
        bind_of_a_file "config.md#mounts",
        bind_is_not_recursive "config.md#mounts",
        rbind_is_recursive "config.md#mounts",
        bind_read_only "config.md#mounts",
        bind_without_a_type "config.md#mounts",
        bind_keeps_the_flags_of_its_source "runc: mounts",
        bind_in_a_user_namespace_cannot_take_flags_away "mount_namespaces(7)",
        copy_symlink_makes_a_symlink "crun: copy-symlink",
        copy_symlink_of_a_file_is_a_bind "crun: copy-symlink",
        copy_symlink_over_another_is_refused "crun: copy-symlink",
        src_nofollow_binds_the_symlink "crun: src-nofollow",
        dest_nofollow_covers_the_symlink "crun: dest-nofollow",
        tmpfs_size_mode_uid "config.md#mounts",
        tmpfs_mode_defaults_to_that_of_the_directory "runc: mounts",
        tmpcopyup_copies_the_directory "config.md#mounts",
        no_tmpcopyup_starts_empty "config.md#mounts",
        proc_is_of_the_pid_namespace "config-linux.md#default-filesystems",
        proc_must_not_be_covered "CVE-2019-16884",
        proc_files_of_the_allow_list_can_be_covered "runc: mounts",
        sysfs_is_read_only "config.md#mounts",
        devpts_is_a_new_instance "config-linux.md#default-filesystems",
        mqueue "config-linux.md#default-filesystems",
        shm "config-linux.md#default-filesystems",
        cgroup_mount_shows_the_containers_cgroup "config-linux.md#default-filesystems",
        cgroup_mount_is_read_only "config-linux.md#default-filesystems",
        cgroup_mount_shows_the_path_of_proc "cgroups(7)",
        cgroup_mount_leaves_the_hosts_options "cgroups(7)",
        host_mounts_are_not_visible "config-linux.md#namespaces",
        container_mounts_do_not_reach_the_host "config-linux.md#namespaces",
        propagation_defaults_to_private_or_slave "config-linux.md#rootfs-mount-propagation",
        propagation_shared "config-linux.md#rootfs-mount-propagation",
        propagation_unbindable "config-linux.md#rootfs-mount-propagation",
        propagation_unknown_is_refused "config-linux.md#rootfs-mount-propagation",
        masked_file_is_empty "config-linux.md#masked-paths",
        masked_directory_is_empty_and_read_only "config-linux.md#masked-paths",
        masked_path_missing_is_ignored "config-linux.md#masked-paths",
        masked_paths_cannot_be_unmounted "config-linux.md#masked-paths",
        readonly_paths "config-linux.md#readonly-paths",
        readonly_path_missing_is_ignored "config-linux.md#readonly-paths",
        masks_lie_over_a_proc_made_read_only "config-linux.md#masked-paths",
        masks_lie_over_a_proc_that_an_image_links_to "config-linux.md#masked-paths",
        devices_default "config-linux.md#default-devices",
        devices_default_symlinks "runtime-linux.md#dev-symbolic-links",
        devices_ptmx "config-linux.md#default-devices",
        devices_character "config-linux.md#devices",
        devices_block "config-linux.md#devices",
        devices_fifo "config-linux.md#devices",
        devices_unbuffered_is_character "config-linux.md#devices",
        devices_owner_and_mode "config-linux.md#devices",
        devices_in_a_new_directory "config-linux.md#devices",
        devices_of_unknown_type_are_refused "config-linux.md#devices",
        devices_with_a_relative_path_stay_inside "config-linux.md#devices",
    );
    checks.extend(FLAGS.iter().map(|&(option, opposite, shown)| {
        Check::new(format!("mounts::option_{option}"), "config.md#mounts", move |lab: &mut Lab| {
            lab.mount("/there", "tmpfs", "tmpfs", &[option]);
            let options = options_of(lab, "/there")?;
            ensure!(options.contains(&shown.to_owned()), "options of the mount: {options:?}");
            if !opposite.is_empty() {
                lab.set(
                    &format!("/mounts/{}/options", lab.config["mounts"].as_array().map_or(0, Vec::len) - 1),
                    json!([option, opposite]),
                );
                let options = options_of(lab, "/there")?;
                ensure!(!options.contains(&shown.to_owned()), "{opposite} after {option}: {options:?}");
            }
            Ok(())
        })
    }));
    checks.extend(PROPAGATIONS.iter().map(|&(option, shown)| {
        Check::new(format!("mounts::option_{option}"), "config.md#mounts", move |lab: &mut Lab| {
            let source = lab.directory("source")?;
            lab.mount("/there", "bind", source, &["bind", option]);
            let fields = propagation_of(lab, "/there")?;
            match shown {
                "" => same!(fields, "", "propagation fields"),
                _ => ensure!(fields.contains(shown), "propagation fields: {fields:?} lack {shown:?}"),
            }
            Ok(())
        })
    }));
    checks.extend(RECURSIVE.iter().map(|&(option, shown, present)| {
        Check::new(format!("mounts::option_{option}"), "config.md#mounts", move |lab: &mut Lab| {
            lab.mount("/there", "bind", "/dev", &["rbind", "rprivate", option]);
            for mount in ["/there", "/there/pts"] {
                let options = options_of(lab, mount)?;
                same!(options.contains(&shown.to_owned()), present, "{shown} among {options:?} of {mount}");
            }
            Ok(())
        })
    }));
    checks
}

/// A mount flag, the option that takes it back, and what mountinfo shows.
const FLAGS: &[(&str, &str, &str)] = &[
    ("ro", "rw", "ro"),
    ("nosuid", "suid", "nosuid"),
    ("nodev", "dev", "nodev"),
    ("noexec", "exec", "noexec"),
    ("noatime", "atime", "noatime"),
    ("nodiratime", "diratime", "nodiratime"),
    ("relatime", "", "relatime"),
    ("nosymfollow", "symfollow", "nosymfollow"),
    ("sync", "async", "sync"),
    ("dirsync", "", "dirsync"),
];

/// A propagation option of a bind mount and what the optional fields of mountinfo show. The source lies on a shared mount.
const PROPAGATIONS: &[(&str, &str)] = &[
    ("private", ""),
    ("rprivate", ""),
    ("shared", "shared:"),
    ("rshared", "shared:"),
    ("slave", "master:"),
    ("rslave", "master:"),
    ("unbindable", "unbindable"),
    ("runbindable", "unbindable"),
];

/// A recursive attribute, a flag, and whether the flag is then on the mount and the one below it.
const RECURSIVE: &[(&str, &str, bool)] = &[
    ("rro", "ro", true),
    ("rrw", "ro", false),
    ("rnosuid", "nosuid", true),
    ("rsuid", "nosuid", false),
    ("rnodev", "nodev", true),
    ("rnoexec", "noexec", true),
    ("rexec", "noexec", false),
    ("rnoatime", "noatime", true),
    ("rrelatime", "relatime", true),
    ("rstrictatime", "relatime", false),
    ("rnodiratime", "nodiratime", true),
    ("rnosymfollow", "nosymfollow", true),
];

/// The lines of mountinfo whose mount point is `destination`, as fields.
fn mountinfo(lab: &mut Lab, destination: &str) -> Result<Vec<String>, Failure> {
    let text = lab.run_sh("cat /proc/self/mountinfo")?;
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(destination));
    let line = line.ok_or_else(|| Failure(format!("{destination} is not a mount:\n{text}")))?;
    Ok(line.split(' ').map(str::to_owned).collect())
}

/// The options of a mount and of its file system.
fn options_of(lab: &mut Lab, destination: &str) -> Result<Vec<String>, Failure> {
    let fields = mountinfo(lab, destination)?;
    let last = fields.last().map_or("", String::as_str);
    Ok(fields[5].split(',').chain(last.split(',')).map(str::to_owned).collect())
}

/// The optional fields of mountinfo.
fn propagation_of(lab: &mut Lab, destination: &str) -> Result<String, Failure> {
    let fields = mountinfo(lab, destination)?;
    Ok(fields.into_iter().skip(6).take_while(|field| field != "-").collect::<Vec<_>>().join(" "))
}

fn order_of_the_list(lab: &mut Lab) -> Outcome {
    let (outer, inner) = (lab.directory("outer")?, lab.directory("inner")?);
    fs::create_dir(outer.join("sub"))?;
    fs::write(inner.join("file"), "inner")?;
    lab.mount("/there", "bind", outer, &["rbind"]).mount("/there/sub", "bind", inner, &["rbind"]);
    same!(lab.run_sh("cat /there/sub/file")?, "inner", "the file of the later mount");
    Ok(())
}

fn destination_directory_is_made(lab: &mut Lab) -> Outcome {
    lab.mount("/new/deep/dir", "tmpfs", "tmpfs", &[]);
    same!(lab.run_sh("stat -f -c %T /new/deep/dir")?.trim(), "tmpfs", "file system");
    Ok(())
}

fn destination_file_is_made(lab: &mut Lab) -> Outcome {
    fs::write(lab.dir.join("source"), "content")?;
    let source = lab.dir.join("source");
    lab.mount("/new/deep/file", "bind", source, &["bind"]);
    same!(lab.run_sh("cat /new/deep/file")?, "content", "content");
    Ok(())
}

fn destination_relative_is_from_the_root(lab: &mut Lab) -> Outcome {
    lab.mount("there", "tmpfs", "tmpfs", &[]);
    same!(lab.run_sh("cd /home; stat -f -c %T /there")?.trim(), "tmpfs", "file system");
    Ok(())
}

fn destination_stacked_twice(lab: &mut Lab) -> Outcome {
    let (first, second) = (lab.directory("first")?, lab.directory("second")?);
    fs::write(second.join("second"), "")?;
    lab.mount("/there", "bind", first, &["bind"]).mount("/there", "bind", second, &["bind"]);
    same!(lab.run_sh("ls /there")?, "second\n", "what the later mount shows");
    Ok(())
}

fn source_relative_is_from_the_bundle(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.bundle().join("data"))?;
    fs::write(lab.bundle().join("data/file"), "content")?;
    lab.mount("/there", "bind", "data", &["bind"]).sh("cat /there/file").write()?;
    let bundle = lab.bundle().to_string_lossy().into_owned();
    let out = lab.verb("run", &["--bundle", &bundle]).cwd("/").go()?.ok("run")?;
    same!(out.stdout, "content", "content");
    Ok(())
}

fn source_missing_is_refused(lab: &mut Lab) -> Outcome {
    let missing = lab.dir.join("missing");
    let reason = lab.refused(|lab| {
        lab.mount("/there", "bind", &missing, &["bind"]);
    })?;
    ensure!(reason.contains("missing") && !missing.exists(), "the reason does not name the source: {reason}");
    Ok(())
}

fn type_unknown_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.mount("/there", "no-such-fs", "none", &[]);
    })?;
    Ok(())
}

fn option_unknown_is_refused_by_the_file_system(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.mount("/there", "tmpfs", "tmpfs", &["sise=1m"]);
    })?;
    Ok(())
}

fn bind_shows_the_source(lab: &mut Lab) -> Outcome {
    let source = lab.directory("source")?;
    fs::write(source.join("file"), "from outside")?;
    lab.mount("/there", "bind", &source, &["rbind", "rw"]);
    same!(lab.run_sh("cat /there/file; echo inside > /there/new")?, "from outside", "content");
    same!(fs::read_to_string(source.join("new"))?, "inside\n", "content written in the container");
    Ok(())
}

fn bind_of_a_file(lab: &mut Lab) -> Outcome {
    let source = lab.dir.join("source");
    fs::write(&source, "old")?;
    lab.mount("/etc/passwd", "bind", &source, &["bind", "rw"]).run_sh("echo new > /etc/passwd")?;
    same!(fs::read_to_string(source)?, "new\n", "content on the host");
    Ok(())
}

fn bind_is_not_recursive(lab: &mut Lab) -> Outcome {
    lab.mount("/there", "bind", "/dev", &["bind"]);
    let fields = lab.run_sh("awk '$5 ~ \"^/there\" {print $5}' /proc/self/mountinfo")?;
    same!(fields, "/there\n", "mounts");
    Ok(())
}

fn rbind_is_recursive(lab: &mut Lab) -> Outcome {
    lab.mount("/there", "bind", "/dev", &["rbind", "rprivate"]);
    mountinfo(lab, "/there/pts")?;
    Ok(())
}

fn bind_read_only(lab: &mut Lab) -> Outcome {
    let source = lab.directory("source")?;
    lab.mount("/there", "bind", &source, &["bind", "ro"]);
    let out = lab.sh("touch /there/file").run()?;
    ensure!(out.stderr.contains("Read-only file system"), "stderr: {}", out.stderr);
    Ok(())
}

fn bind_without_a_type(lab: &mut Lab) -> Outcome {
    let source = lab.directory("source")?;
    fs::write(source.join("file"), "")?;
    lab.set("/mounts/-", json!({ "destination": "/there", "source": source.to_string_lossy(), "options": ["bind"] }));
    same!(lab.run_sh("ls /there")?, "file\n", "files");
    Ok(())
}

fn bind_keeps_the_flags_of_its_source(lab: &mut Lab) -> Outcome {
    let source = lab.directory("source")?;
    let source_text = source.to_string_lossy().into_owned();
    host(&["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec", "tmpfs", &source_text])?;
    lab.mount("/there", "bind", &source, &["bind"]);
    let options = options_of(lab, "/there");
    host(&["umount", &source_text])?;
    let options = options?;
    for flag in ["nosuid", "nodev", "noexec"] {
        ensure!(options.contains(&flag.to_owned()), "{flag} is not among {options:?}");
    }
    Ok(())
}

fn bind_in_a_user_namespace_cannot_take_flags_away(lab: &mut Lab) -> Outcome {
    let source = lab.directory("source")?;
    let source_text = source.to_string_lossy().into_owned();
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    super::namespaces::map(lab);
    fs::create_dir(lab.rootfs().join("there"))?;
    host(&["mount", "-t", "tmpfs", "tmpfs", &source_text])?;
    host(&["mount", "-o", "remount,bind,ro,nodev", &source_text])?;
    lab.mount("/there", "bind", &source, &["bind", "rw"]);
    let refused = lab.sh("true").run();
    // What is not named stays.
    let last = lab.config["mounts"].as_array().map_or(0, Vec::len) - 1;
    lab.set(&format!("/mounts/{last}/options"), json!(["bind", "nosuid"]));
    let kept = options_of(lab, "/there");
    // A superblock that is read-only takes no option away from the mount.
    host(&["mount", "-o", "remount,ro,dev", &source_text])?;
    host(&["mount", "-o", "remount,bind,rw,dev", &source_text])?;
    lab.set(&format!("/mounts/{last}/options"), json!(["bind", "rw"]));
    let of_the_file_system = lab.run_sh("true");
    host(&["umount", &source_text])?;
    let (refused, kept) = (refused?, kept?);
    ensure!(refused.code != 0, "rw of a source that is ro succeeds");
    ensure!(["ro", "nodev", "nosuid"].iter().all(|f| kept.contains(&(*f).to_owned())), "options: {kept:?}");
    of_the_file_system.map(drop)
}

fn copy_symlink_makes_a_symlink(lab: &mut Lab) -> Outcome {
    let link = lab.dir.join("link");
    symlink("../some/where", &link)?;
    lab.mount("/new/deep/link", "bind", &link, &["bind", "copy-symlink"]);
    same!(lab.run_sh("readlink /new/deep/link")?, "../some/where\n", "the symlink");
    // The same again is no error.
    same!(lab.run_sh("readlink /new/deep/link")?, "../some/where\n", "the symlink that was there");
    Ok(())
}

fn copy_symlink_of_a_file_is_a_bind(lab: &mut Lab) -> Outcome {
    let source = lab.dir.join("source");
    fs::write(&source, "content")?;
    lab.mount("/there", "bind", &source, &["bind", "copy-symlink"]);
    same!(lab.run_sh("cat /there")?, "content", "content");
    Ok(())
}

fn copy_symlink_over_another_is_refused(lab: &mut Lab) -> Outcome {
    let link = lab.dir.join("link");
    symlink("wanted", &link)?;
    symlink("other", lab.rootfs().join("there"))?;
    let reason = lab.refused(|lab| {
        lab.mount("/there", "bind", &link, &["bind", "copy-symlink"]);
    })?;
    ensure!(reason.contains("there"), "the reason does not name the destination: {reason}");
    Ok(())
}

fn src_nofollow_binds_the_symlink(lab: &mut Lab) -> Outcome {
    let link = lab.dir.join("link");
    symlink("/etc/passwd", &link)?;
    lab.mount("/there", "bind", &link, &["bind", "src-nofollow"]);
    // What it leads to is the container's, not the host's.
    same!(lab.run_sh("readlink /there; head -n 1 /there")?, "/etc/passwd\nroot:x:0:0::/root:/bin/sh\n", "the symlink");
    Ok(())
}

fn dest_nofollow_covers_the_symlink(lab: &mut Lab) -> Outcome {
    let link = lab.dir.join("link");
    symlink("/etc/group", &link)?;
    symlink("/etc/passwd", lab.rootfs().join("there"))?;
    lab.mount("/there", "bind", &link, &["bind", "src-nofollow", "dest-nofollow"]);
    let out = lab.run_sh("readlink /there; awk '$5 == \"/etc/passwd\"' /proc/self/mountinfo")?;
    same!(out, "/etc/group\n", "the symlink, and mounts on what it led to");
    Ok(())
}

/// Runs a command of the host, in the runner's own mount namespace.
fn host(command: &[&str]) -> Outcome {
    let status = std::process::Command::new(command[0]).args(&command[1..]).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn tmpfs_size_mode_uid(lab: &mut Lab) -> Outcome {
    lab.mount("/there", "tmpfs", "tmpfs", &["size=2m", "mode=1750", "uid=1815", "gid=1852"]);
    let out = lab.run_sh("stat -c '%a %u %g' /there; stat -f -c '%b %S' /there")?;
    let words: Vec<u64> = out.split_whitespace().flat_map(str::parse).collect();
    same!(words[..3], [1750, 1815, 1852], "mode, user and group");
    same!(words[3] * words[4], 2 << 20, "size");
    Ok(())
}

fn tmpfs_mode_defaults_to_that_of_the_directory(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.rootfs().join("there"))?;
    fs::set_permissions(lab.rootfs().join("there"), fs::Permissions::from_mode(0o710))?;
    lab.mount("/there", "tmpfs", "tmpfs", &[]);
    same!(lab.run_sh("stat -c %a /there; stat -f -c %T /there")?, "710\ntmpfs\n", "mode and file system");
    Ok(())
}

fn seeded(lab: &mut Lab, options: &[&str]) -> Result<String, Failure> {
    fs::create_dir_all(lab.rootfs().join("there/sub"))?;
    fs::write(lab.rootfs().join("there/sub/file"), "copied")?;
    lab.mount("/there", "tmpfs", "tmpfs", options);
    let out = lab.run_sh("cat /there/sub/file 2>/dev/null; stat -f -c %T /there; touch /there/new");
    ensure!(!lab.rootfs().join("there/new").exists(), "a write went through to the root file system");
    out
}

fn tmpcopyup_copies_the_directory(lab: &mut Lab) -> Outcome {
    same!(seeded(lab, &["tmpcopyup"])?, "copiedtmpfs\n", "content and file system");
    Ok(())
}

fn no_tmpcopyup_starts_empty(lab: &mut Lab) -> Outcome {
    same!(seeded(lab, &[])?, "tmpfs\n", "content and file system");
    Ok(())
}

fn proc_is_of_the_pid_namespace(lab: &mut Lab) -> Outcome {
    let out = lab.run_sh("ls /proc | grep -c '^[0-9]'; readlink /proc/self/ns/pid")?;
    let count: u32 = out.lines().next().unwrap_or_default().parse()?;
    ensure!((2..8).contains(&count), "{count} processes are visible");
    ensure!(!out.contains(&fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned()), "the host's namespace");
    Ok(())
}

fn proc_must_not_be_covered(lab: &mut Lab) -> Outcome {
    let source = lab.directory("fake")?;
    lab.args(&["true"]).run()?.ok("run without the mount")?;
    let base = lab.config.clone();
    for destination in ["/proc/self", "/proc/sys", "/proc/self/attr", "/there/../proc/1"] {
        lab.config = base.clone();
        lab.mount(destination, "bind", &source, &["bind"]);
        let out = lab.run()?;
        ensure!(out.code != 0, "a mount over {destination} is accepted");
    }
    Ok(())
}

fn proc_files_of_the_allow_list_can_be_covered(lab: &mut Lab) -> Outcome {
    let source = lab.dir.join("meminfo");
    fs::write(&source, "MemTotal: 1 kB\n")?;
    for file in ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg"] {
        lab.mount(&format!("/proc/{file}"), "bind", &source, &["bind"]);
    }
    same!(lab.run_sh("cat /proc/meminfo /proc/loadavg | sort -u")?, "MemTotal: 1 kB\n", "content");
    Ok(())
}

fn sysfs_is_read_only(lab: &mut Lab) -> Outcome {
    let options = options_of(lab, "/sys")?;
    ensure!(options.contains(&"ro".to_owned()), "options: {options:?}");
    let fields = mountinfo(lab, "/sys")?;
    ensure!(fields.contains(&"sysfs".to_owned()), "not sysfs: {fields:?}");
    Ok(())
}

fn devpts_is_a_new_instance(lab: &mut Lab) -> Outcome {
    same!(lab.run_sh("ls /dev/pts; stat -f -c %t /dev/pts; stat -c %a /dev/pts/ptmx")?, "ptmx\n1cd1\n666\n", "devpts");
    Ok(())
}

fn mqueue(lab: &mut Lab) -> Outcome {
    let fields = mountinfo(lab, "/dev/mqueue")?;
    ensure!(fields.iter().filter(|field| *field == "mqueue").count() == 2, "fields: {fields:?}");
    Ok(())
}

fn shm(lab: &mut Lab) -> Outcome {
    same!(lab.run_sh("stat -c %a /dev/shm; stat -f -c '%T' /dev/shm; echo x > /dev/shm/f")?, "1777\ntmpfs\n", "shm");
    let options = options_of(lab, "/dev/shm")?;
    for option in ["nosuid", "noexec", "nodev", "size=65536k"] {
        ensure!(options.contains(&option.to_owned()), "{option} is not among {options:?}");
    }
    Ok(())
}

fn cgroup_mount_shows_the_containers_cgroup(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/memory", json!({ "limit": 96 << 20 }));
    let out = if v2() {
        lab.set("/linux/namespaces/-", json!({ "type": "cgroup" }));
        lab.run_sh("cat /sys/fs/cgroup/memory.max; grep -c . /sys/fs/cgroup/cgroup.procs")?
    } else {
        lab.run_sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes; grep -c . /sys/fs/cgroup/pids/tasks")?
    };
    let values: Vec<u64> = out.lines().flat_map(str::parse).collect();
    same!(values.first(), Some(&(96 << 20)), "memory limit seen inside");
    ensure!(values[1] >= 1, "no task in the visible cgroup");
    Ok(())
}

fn cgroup_mount_is_read_only(lab: &mut Lab) -> Outcome {
    let script = if v2() {
        "mkdir /sys/fs/cgroup/x"
    } else {
        "find /sys/fs/cgroup -maxdepth 1 -mindepth 1 -type d | while read d; do mkdir $d/x || exit 1; done"
    };
    let out = lab.sh(script).run()?;
    ensure!(out.stderr.contains("Read-only file system"), "stderr: {}", out.stderr);
    ensure!(!out.stderr.lines().any(|line| !line.contains("Read-only")), "stderr: {}", out.stderr);
    ensure!(out.code != 0, "a cgroup can be made");
    Ok(())
}

/// Without a cgroup namespace: the container's directory is where /proc says that it is.
fn cgroup_mount_shows_the_path_of_proc(lab: &mut Lab) -> Outcome {
    let script = "d=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); echo $d; grep -c . $d/cgroup.procs";
    let out = lab.run_sh(script)?;
    ensure!(out.lines().next().is_some_and(|path| path.contains(&lab.id)), "cgroup: {out}");
    let tasks: u64 = out.lines().nth(1).unwrap_or_default().parse()?;
    ensure!(tasks >= 1, "no process in the visible cgroup");
    Ok(())
}

/// A cgroup2 that is mounted anew in the host's cgroup namespace sets the options of every mount there is.
fn cgroup_mount_leaves_the_hosts_options(lab: &mut Lab) -> Outcome {
    let before = v2_options();
    lab.run_sh("true")?;
    let after = v2_options();
    if after != before {
        let again = format!("remount,{before}");
        let put_back = Command::new("mount").args(["-o", &again, "/sys/fs/cgroup"]).status()?;
        ensure!(put_back.success(), "cannot put back the host's mount options {before}");
    }
    same!(after, before, "mount options of the host's cgroup2");
    Ok(())
}

fn host_mounts_are_not_visible(lab: &mut Lab) -> Outcome {
    let points = lab.run_sh("awk '{print $5}' /proc/self/mountinfo")?;
    for point in points.lines() {
        let known = ["/", "/proc", "/dev", "/sys"].contains(&point)
            || ["/proc/", "/dev/", "/sys/"].iter().any(|prefix| point.starts_with(prefix));
        ensure!(known, "{point} is mounted in the container");
    }
    Ok(())
}

fn container_mounts_do_not_reach_the_host(lab: &mut Lab) -> Outcome {
    lab.mount("/there", "tmpfs", "tmpfs", &[]).args(&["sleep", "100"]).create()?;
    let host = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!host.contains(&lab.id), "a mount of the container is on the host");
    Ok(())
}

fn propagation_defaults_to_private_or_slave(lab: &mut Lab) -> Outcome {
    let fields = propagation_of(lab, "/")?;
    ensure!(!fields.contains("shared"), "propagation fields: {fields:?}");
    Ok(())
}

fn propagation_shared(lab: &mut Lab) -> Outcome {
    lab.set("/linux/rootfsPropagation", "shared");
    let fields = propagation_of(lab, "/")?;
    ensure!(fields.contains("shared:"), "propagation fields: {fields:?}");
    Ok(())
}

fn propagation_unbindable(lab: &mut Lab) -> Outcome {
    lab.set("/linux/rootfsPropagation", "unbindable");
    let fields = propagation_of(lab, "/")?;
    same!(fields, "unbindable", "propagation fields");
    Ok(())
}

fn propagation_unknown_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/rootfsPropagation", "public");
    })?;
    Ok(())
}

fn masked_file_is_empty(lab: &mut Lab) -> Outcome {
    fs::write(lab.rootfs().join("secret"), "text")?;
    same!(lab.run_sh("cat /secret")?, "text", "content before");
    lab.set("/linux/maskedPaths", json!(["/secret"]));
    same!(lab.run_sh("cat /secret; echo x > /secret; cat /secret")?, "", "content");
    same!(fs::read_to_string(lab.rootfs().join("secret"))?, "text", "content on the host");
    Ok(())
}

fn masked_directory_is_empty_and_read_only(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.rootfs().join("secret"))?;
    fs::write(lab.rootfs().join("secret/file"), "text")?;
    lab.set("/linux/maskedPaths", json!(["/secret"])).set("/root/readonly", false);
    let out = lab.sh("ls -A /secret; touch /secret/new").run()?;
    same!(out.stdout, "", "files");
    ensure!(out.stderr.contains("Read-only file system"), "stderr: {}", out.stderr);
    Ok(())
}

fn masked_path_missing_is_ignored(lab: &mut Lab) -> Outcome {
    lab.set("/linux/maskedPaths", json!(["/none", "/etc/none/deeper"])).run_sh("! test -e /none")?;
    Ok(())
}

fn masked_paths_cannot_be_unmounted(lab: &mut Lab) -> Outcome {
    fs::write(lab.rootfs().join("secret"), "text")?;
    lab.set("/linux/maskedPaths", json!(["/secret"]));
    same!(lab.run_sh("umount /secret 2>/dev/null; umount -l /secret 2>/dev/null; cat /secret")?, "", "content");
    Ok(())
}

fn readonly_paths(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.rootfs().join("fixed"))?;
    lab.set("/root/readonly", false).set("/linux/readonlyPaths", json!(["/fixed", "/proc/sys"]));
    let out = lab.sh("touch /free; touch /fixed/file; echo 1 > /proc/sys/vm/drop_caches").run()?;
    same!(out.stderr.matches("Read-only file system").count(), 2, "refusals in {}", out.stderr);
    ensure!(lab.rootfs().join("free").exists(), "the root is not writable");
    Ok(())
}

fn masks_lie_over_a_proc_made_read_only(lab: &mut Lab) -> Outcome {
    lab.set("/linux/readonlyPaths", json!(["/proc/bus", "/proc"])).set("/linux/maskedPaths", json!(["/proc/keys"]));
    same!(lab.run_sh("stat -c %F /proc/keys")?.trim(), "character special file", "what covers /proc/keys");
    Ok(())
}

/// The image says what a path of the configuration leads to.
fn masks_lie_over_a_proc_that_an_image_links_to(lab: &mut Lab) -> Outcome {
    symlink("/proc", lab.rootfs().join("fixed"))?;
    lab.set("/linux/readonlyPaths", json!(["/proc/bus", "/fixed"])).set("/linux/maskedPaths", json!(["/proc/keys"]));
    same!(lab.run_sh("stat -c %F /proc/keys")?.trim(), "character special file", "what covers /proc/keys");
    Ok(())
}

fn readonly_path_missing_is_ignored(lab: &mut Lab) -> Outcome {
    lab.set("/linux/readonlyPaths", json!(["/none", "/proc/none", "/proc/sys"]));
    let options = options_of(lab, "/proc/sys")?;
    ensure!(options.contains(&"ro".to_owned()), "options of the path after the missing one: {options:?}");
    Ok(())
}

fn devices_default(lab: &mut Lab) -> Outcome {
    let out = lab.run_sh("cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty")?;
    let want = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
    let mut lines = out.lines();
    for (name, minor) in want {
        same!(lines.next().unwrap_or_default(), format!("{name} character special file 1:{minor} 666 0:0"), "device");
    }
    same!(lines.next().unwrap_or_default(), "tty character special file 5:0 666 0:0", "device");
    lab.run_sh("echo x > /dev/null && head -c 1 /dev/zero >/dev/null && head -c 1 /dev/urandom > /dev/null")?;
    Ok(())
}

fn devices_default_symlinks(lab: &mut Lab) -> Outcome {
    let out = lab.run_sh("cd /dev; for l in fd stdin stdout stderr; do readlink $l; done")?;
    same!(out, "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n", "targets");
    Ok(())
}

fn devices_ptmx(lab: &mut Lab) -> Outcome {
    same!(lab.run_sh("readlink -f /dev/ptmx")?, "/dev/pts/ptmx\n", "target of ptmx");
    Ok(())
}

fn device(lab: &mut Lab, device: serde_json::Value) -> Result<String, Failure> {
    let path = device["path"].as_str().unwrap_or_default().to_owned();
    lab.set("/linux/devices/-", device);
    lab.run_sh(&format!("stat -c '%F %t:%T %a %u:%g' {path}"))
}

fn devices_character(lab: &mut Lab) -> Outcome {
    let out = device(lab, json!({ "path": "/dev/kin", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640 }))?;
    same!(out, "character special file a:e5 640 0:0\n", "device");
    Ok(())
}

fn devices_block(lab: &mut Lab) -> Outcome {
    let out = device(lab, json!({ "path": "/dev/blk", "type": "b", "major": 8, "minor": 1, "fileMode": 0o600 }))?;
    same!(out, "block special file 8:1 600 0:0\n", "device");
    Ok(())
}

fn devices_fifo(lab: &mut Lab) -> Outcome {
    let out = device(lab, json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }))?;
    ensure!(out.starts_with("fifo 0:0 622"), "device: {out}");
    Ok(())
}

fn devices_unbuffered_is_character(lab: &mut Lab) -> Outcome {
    let out = device(lab, json!({ "path": "/dev/unb", "type": "u", "major": 10, "minor": 229, "fileMode": 0o600 }))?;
    ensure!(out.starts_with("character special file a:e5 600"), "device: {out}");
    Ok(())
}

fn devices_owner_and_mode(lab: &mut Lab) -> Outcome {
    let spec =
        json!({ "path": "/dev/kin", "type": "c", "major": 1, "minor": 3, "fileMode": 0o462, "uid": 7, "gid": 8 });
    same!(device(lab, spec)?, "character special file 1:3 462 7:8\n", "device");
    Ok(())
}

fn devices_in_a_new_directory(lab: &mut Lab) -> Outcome {
    let out =
        device(lab, json!({ "path": "/dev/new/deep/n", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }))?;
    ensure!(out.starts_with("character special file 1:3 666"), "device: {out}");
    Ok(())
}

fn devices_of_unknown_type_are_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/devices/-", json!({ "path": "/dev/odd", "type": "x", "major": 1, "minor": 3 }));
    })?;
    Ok(())
}

fn devices_with_a_relative_path_stay_inside(lab: &mut Lab) -> Outcome {
    let device = json!({ "path": "../../../../oci-outside", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 });
    lab.set("/linux/devices/-", device).args(&["true"]).run()?;
    let outside = std::path::Path::new("/oci-outside");
    if outside.exists() {
        fs::remove_file(outside)?;
        return Err(Failure("the device was made outside the container".into()));
    }
    Ok(())
}
