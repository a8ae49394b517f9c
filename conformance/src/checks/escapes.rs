//! More ways out of a container, or into the runtime, that were found before. integration/ESCAPES.md maps each CVE to its checks.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::races::{Shared, mounts_below};
use super::safety::{link, unharmed, victim, without_dev};
use crate::check::{Check, Outcome};
use crate::runtime::Lab;

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "escapes",
        exec_is_not_dumpable_when_it_joins "CVE-2016-9962",
        long_fields_arrive_whole_or_are_refused "CVE-2021-43784",
        a_false_null_device_is_no_mask "CVE-2025-31133",
        a_link_to_proc_is_no_way_to_cover_it "CVE-2025-52881",
        a_part_of_sysfs_does_not_stand_in_for_it "CVE-2019-19921",
        a_sysctl_value_sets_nothing_else "CVE-2022-0811",
        release_agent_is_not_writable "CVE-2022-0492",
        users_are_decimal_numbers "CVE-2026-30892",
        passwd_that_never_ends_or_blocks "CVE-2026-47262",
        passwd_link_stays_inside "CVE-2026-47262",
        annotations_write_no_files_of_the_host "CVE-2026-53488",
        a_handlers_file_is_not_followed_out "CVE-2025-24965",
        groups_of_the_caller_do_not_reach_exec "CVE-2022-36109",
        a_group_without_rights_stays_without "CVE-2022-2989",
        mount_points_of_dev_stay_inside "CVE-2026-41579",
        cgroup_mount_point_stays_inside "CVE-2021-30465",
        a_link_in_a_shared_tmpfs_stays_inside "CVE-2021-30465",
        device_below_a_link_stays_inside "CVE-2026-47766",
        tmpcopyup_copies_nothing_of_the_host "CVE-2024-45310",
        hooks_of_the_container_run_inside "CVE-2025-23266",
        a_linked_state_directory_is_not_followed "CVE-2024-23652",
        links_in_a_state_directory_are_not_followed "CVE-2024-23652",
        spoilt_state_is_told_and_deleted "CVE-2026-53495",
        an_id_is_no_path "CVE-2026-53495",
        exec_cgroup_stays_below_the_containers "runc: exec --cgroup",
    )
}

/// While a process that joins is dumpable, one in the container with the same rights can trace it and take its descriptors. The
/// moment is too short to be met, so the order is looked at: not dumpable since the last execve(2), then setns(2).
fn exec_is_not_dumpable_when_it_joins(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let log = lab.dir.join("calls");
    let strace = ["strace", "-f", "-qq", "-e", "trace=execve,prctl,setns,clone,clone3", "-e", "signal=none", "-o"];
    let under: Vec<&str> = strace.into_iter().chain([log.to_str().unwrap_or_default()]).collect();
    lab.exec_call(&[], &["true"]).under(&under).go()?.ok("exec under strace")?;
    let text = fs::read_to_string(&log)?;
    // What the waiting process joins for the sake of a clone alone is no namespace in which it can be traced.
    let joins = |line: &&str| line.contains(" setns(") && !line.contains("CLONE_NEWPID)");
    let calls: Vec<&str> = text.lines().take_while(|line| !joins(line)).collect();
    ensure!(calls.len() < text.lines().count(), "exec joins no namespace: {text}");
    let last = |what: &str| calls.iter().rposition(|line| line.contains(what));
    let (executed, dumpable) = (last(" execve("), last("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"));
    ensure!(dumpable.is_some() && dumpable > executed, "what joins the container is dumpable:\n{text}");
    Ok(())
}

fn long_fields_arrive_whole_or_are_refused(lab: &mut Lab) -> Outcome {
    let long = "x".repeat(100_000);
    lab.set("/process/env/-", format!("LONG={long}"));
    same!(lab.run_sh("echo ${#LONG}")?, "100000\n", "length of a long variable");
    let config = lab.config.clone();
    let maps = |count: u32| -> Vec<Value> {
        (0..count).map(|i| json!({ "containerID": i, "hostID": 100_000 + i, "size": 1 })).collect()
    };
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    lab.set("/linux/uidMappings", maps(4000)).set("/linux/gidMappings", maps(4000));
    let out = lab.sh("wc -l < /proc/self/uid_map").run()?;
    // The kernel takes 340 lines; a cut-off map would be another one than was asked for.
    ensure!(out.code != 0, "4000 lines of a map became {}", out.stdout.trim());
    lab.config = config;
    let out = lab.set("/hostname", long.clone()).args(&["hostname"]).run()?;
    ensure!(out.code != 0, "a host name of 100000 bytes became one of {}", out.stdout.trim().len());
    lab.set("/hostname", "short").set("/linux/cgroupsPath", format!("/{long}"));
    let out = lab.args(&["true"]).run()?;
    ensure!(out.code != 0, "a cgroup path of 100000 bytes is accepted");
    Ok(())
}

/// What an image may have at /dev/null, made by mknod's arguments; none of it may become what hides a file.
const IMPOSTORS: &[&[&str]] = &[&["p"], &["c", "1", "5"], &["c", "1", "7"], &["b", "7", "200"]];

fn a_false_null_device_is_no_mask(lab: &mut Lab) -> Outcome {
    without_dev(lab);
    fs::write(lab.rootfs().join("secret"), "text")?;
    lab.set("/linux/maskedPaths", json!(["/secret"])).set("/root/readonly", false);
    let null = lab.rootfs().join("dev/null");
    for impostor in IMPOSTORS {
        let _ = fs::remove_file(&null);
        let made = Command::new("mknod").arg(&null).args(*impostor).status()?;
        ensure!(made.success(), "mknod {impostor:?} fails");
        let out = lab.sh("stat -L -c %t:%T /secret").run()?;
        // A runtime may refuse, or put the true device in its place; where the fifo becomes its streams, nothing is printed.
        ensure!(
            out.code != 0 || ["1:3\n", ""].contains(&out.stdout.as_str()),
            "with {impostor:?} as /dev/null, the mask is {}",
            out.stdout
        );
    }
    fs::remove_file(&null)?;
    fs::write(&null, "false")?;
    let out = lab.sh("cat /secret").run()?;
    ensure!(out.stdout.is_empty(), "a regular file as /dev/null: the mask shows {:?}", out.stdout);
    Ok(())
}

fn a_link_to_proc_is_no_way_to_cover_it(lab: &mut Lab) -> Outcome {
    let fake = lab.directory("fake")?;
    fs::write(fake.join("exec"), "")?;
    lab.set("/root/readonly", false);
    for target in ["/proc/self/attr", "/proc/sys/net", "/proc/1", "proc/thread-self"] {
        link(lab, "there", target)?;
        let mounts = lab.config["mounts"].clone();
        lab.mount("/there", "bind", &fake, &["bind"]);
        let out = lab.sh("grep -c ' /proc/[^ ]* .*/fake' /proc/self/mountinfo; ls /there").run()?;
        lab.config["mounts"] = mounts;
        ensure!(
            out.code != 0 || out.stdout.starts_with("0\n"),
            "a mount through a link to {target} covers it: {}",
            out.stdout
        );
        ensure!(fs::read(fake.join("exec"))?.is_empty(), "the runtime has written to a file that stands in for procfs");
        let _ = fs::remove_dir_all(lab.rootfs().join("there"));
    }
    Ok(())
}

/// A neighbour moves /sys away, with what is mounted there, and has a part of sysfs, which the container is given too, take its place: its
/// masks must not be looked for there. A hook does so after the mounts, as a swapper of names might.
fn a_part_of_sysfs_does_not_stand_in_for_it(lab: &mut Lab) -> Outcome {
    let whole = fs::read_dir("/sys/kernel")?.count();
    ensure!(whole > 0 && !Path::new("/sys/class/kernel").exists(), "this host's sysfs is of no use for this check");
    lab.mount("/part", "bind", Path::new("/sys/class"), &["bind"]);
    lab.set("/linux/maskedPaths", json!(["/sys/kernel"])).set("/linux/readonlyPaths", json!([]));
    lab.sh("ls -d /part/net && ls /sys/kernel").run()?.ok("run, nothing moved")?;
    let (rootfs, moved) = (lab.rootfs(), lab.dir.join("moved"));
    let moves =
        format!("cd {} && mv sys away && mv part sys && mv away part && touch {}", rootfs.display(), moved.display());
    let hook = lab.script("hook", &format!("#!/bin/sh\n{moves}\n"))?;
    lab.set("/hooks/prestart", json!([{ "path": hook.to_string_lossy() }]));
    let out = lab.sh("ls -d /sys/net; ls /part/kernel").run()?;
    ensure!(moved.exists(), "the hook has moved nothing: {}", out.stderr);
    // A runtime may refuse, and says then of what.
    ensure!(
        (out.code != 0 && out.stderr.contains("/sys")) || (out.code == 0 && out.stdout == "/sys/net\n"),
        "a part of sysfs has taken its masks, and it shows: {}",
        out.stdout
    );
    Ok(())
}

fn a_sysctl_value_sets_nothing_else(lab: &mut Lab) -> Outcome {
    const ASK: &str = "cat /proc/sys/net/ipv4/ip_nonlocal_bind";
    let ttl = "/linux/sysctl/net.ipv4.ip_default_ttl";
    let before = lab.run_sh(ASK)?;
    for value in ["61+net.ipv4.ip_nonlocal_bind=1", "61\nnet.ipv4.ip_nonlocal_bind=1", "61 net.ipv4.ip_nonlocal_bind=1"]
    {
        let out = lab.set(ttl, value).sh(ASK).run()?;
        ensure!(out.code != 0 || out.stdout == before, "the value {value:?} has set another sysctl: {}", out.stdout);
    }
    let out = lab.set(ttl, "61").sh("cat /proc/sys/net/ipv4/ip_default_ttl").run()?;
    same!(out.stdout, "61\n", "the sysctl itself");
    Ok(())
}

fn release_agent_is_not_writable(lab: &mut Lab) -> Outcome {
    let attack = "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release); do \
        { cat $f | tee $f; } >/dev/null 2>&1 && echo $f; done; \
        mkdir /tmp/cg 2>/dev/null; unshare -m sh -c 'mount -t cgroup -o memory none /tmp/cg' 2>/dev/null && echo mounted; true";
    fs::create_dir_all(lab.rootfs().join("tmp/cg"))?;
    same!(lab.run_sh(attack)?, "", "what root of the container can write or mount");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    lab.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    for set in ["bounding", "effective", "permitted"] {
        lab.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]));
    }
    same!(lab.run_sh(attack)?, "", "what it can with CAP_SYS_ADMIN in a user namespace");
    Ok(())
}

fn users_are_decimal_numbers(lab: &mut Lab) -> Outcome {
    let line = |name: &str| format!("{name}:x:0:0::/root:/bin/sh\n");
    let names = ["0x1", "01", "1a", " 1", "1 ", "+1", "1.0"];
    fs::write(lab.rootfs().join("etc/passwd"), names.map(line).concat())?;
    lab.up_idle()?;
    for name in names.into_iter().chain(["1:0x1", "1:", "0b1", "1e0"]) {
        let out = lab.exec(&[&format!("--user={name}")], &["id", "-u"])?;
        // `01` may be read as the number that it is.
        ensure!(out.code != 0 || out.stdout == "1\n", "user {name:?} becomes {}", out.stdout.trim());
    }
    Ok(())
}

fn passwd_that_never_ends_or_blocks(lab: &mut Lab) -> Outcome {
    // A block device's or a fifo's open may wait for ever; the number of a device that the runtime has made is endless.
    for file in ["etc/passwd", "etc/group"] {
        let path = lab.rootfs().join(file);
        fs::remove_file(&path)?;
        let made = Command::new("mkfifo").arg(&path).status()?;
        ensure!(made.success() && fs::symlink_metadata(&path)?.file_type().is_fifo(), "mkfifo fails");
    }
    same!(lab.run_sh("echo works")?, "works\n", "run with fifos for passwd and group");
    for file in ["etc/passwd", "etc/group"] {
        let path = lab.rootfs().join(file);
        fs::remove_file(&path)?;
        symlink("/dev/zero", &path)?;
    }
    same!(lab.run_sh("echo works")?, "works\n", "run with endless passwd and group");
    for file in ["etc/passwd", "etc/group"] {
        let path = lab.rootfs().join(file);
        fs::remove_file(&path)?;
        // Sparse: a terabyte without a line's end.
        fs::File::create(&path)?.set_len(1 << 40)?;
    }
    lab.up_idle()?;
    // Not id(1), which reads the file itself.
    let status = lab.exec(&["--user", "7:8"], &["grep", "Uid:", "/proc/self/status"])?.ok("exec")?.stdout;
    same!(status, "Uid:\t7\t7\t7\t7\n", "user with a huge passwd");
    Ok(())
}

fn passwd_link_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    fs::write(victim.join("ptmx"), "root:x:0:0::/leaked:/bin/sh\n")?;
    let up = format!("../../../../../../../..{}/ptmx", victim.display());
    for target in [victim.join("ptmx").to_string_lossy().into_owned(), up] {
        link(lab, "etc/passwd", target)?;
        let out = lab.sh("echo $HOME").run()?;
        ensure!(!out.stdout.contains("leaked"), "the home directory comes from a file of the host");
    }
    Ok(())
}

/// Annotations may come from an image. Each of these made a runtime, or an engine's hook, do something on the host.
const ANNOTATIONS: &[&str] = &[
    "run.oci.hooks.stdout",
    "run.oci.hooks.stderr",
    "run.oci.pidfd_receiver",
    "run.oci.seccomp.receiver",
    "org.opencontainers.runc.checkpoint",
    "org.opencontainers.image.ref.name",
    "io.kubernetes.cri-o.LinkLogs",
    "io.kubernetes.cri-o.umask",
];

fn annotations_write_no_files_of_the_host(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    let hook = lab.script("hook", "#!/bin/sh\necho out\necho err >&2\n")?;
    lab.set("/hooks/prestart", json!([{ "path": hook.to_string_lossy() }]));
    lab.args(&["true"]).run()?.ok("run without the annotations")?;
    for name in ANNOTATIONS {
        let escaped = name.replace('/', "~1");
        lab.set(&format!("/annotations/{escaped}"), victim.join("new").to_string_lossy().into_owned());
    }
    lab.run()?;
    unharmed(lab)
}

fn a_handlers_file_is_not_followed_out(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    lab.set("/root/readonly", false).args(&["true"]).run()?.ok("run without a handler")?;
    for name in [".krun_config.json", ".wasm_config.json", ".kontain"] {
        link(lab, name, victim.join("ptmx"))?;
    }
    for handler in ["krun", "wasm", "wasmedge", "kontain"] {
        lab.set("/annotations/run.oci.handler", handler).run()?;
        unharmed(lab)?;
    }
    Ok(())
}

fn groups_of_the_caller_do_not_reach_exec(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for user in [&[][..], &["--user", "7:8"]] {
        let call = lab.exec_call(user, &["grep", "Groups:", "/proc/self/status"]);
        let out = call.under(&["setpriv", "--groups", "31,32"]).go()?.ok("exec")?;
        ensure!(!out.stdout.contains("31"), "the caller's groups are the process's: {}", out.stdout);
    }
    Ok(())
}

/// A file that everybody may read but the members of one group.
fn a_group_without_rights_stays_without(lab: &mut Lab) -> Outcome {
    let file = lab.rootfs().join("secret");
    fs::write(&file, "text")?;
    std::os::unix::fs::chown(&file, Some(0), Some(1843))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604))?;
    for user in [json!({ "uid": 1815, "gid": 1843 }), json!({ "uid": 1815, "gid": 7, "additionalGids": [1843] })] {
        let out = lab.set("/process/user", user.clone()).sh("cat /secret").run()?;
        ensure!(!out.stdout.contains("text"), "{user} reads what its group may not");
    }
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 }));
    same!(lab.run_sh("cat /secret")?, "text", "the file, read by somebody else");
    lab.up_idle()?;
    for options in [&["--user", "1815:1843"][..], &["--user", "1815:7", "--additional-gids", "1843"]] {
        let out = lab.exec(options, &["cat", "/secret"])?;
        ensure!(!out.stdout.contains("text"), "exec {options:?} reads what its group may not");
    }
    Ok(())
}

fn mount_points_of_dev_stay_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    let all = lab.config["mounts"].clone();
    lab.set("/root/readonly", false);
    for name in ["dev/pts", "dev/shm", "dev/mqueue", "dev/ptmx", "dev/zero", "dev/fd", "dev/stdin"] {
        without_dev(lab);
        let mounts = all.as_array().expect("the base has mounts").iter();
        let below = mounts.filter(|mount| mount["destination"].as_str().is_some_and(|to| to.starts_with("/dev/")));
        for mount in below {
            lab.set("/mounts/-", mount.clone());
        }
        let _ = fs::remove_dir_all(lab.rootfs().join("dev"));
        fs::create_dir(lab.rootfs().join("dev"))?;
        lab.args(&["true"]).run()?.ok("run without the link")?;
        for target in [victim.join("new"), victim.join("ptmx")] {
            link(lab, name, target)?;
            lab.run()?;
            unharmed(lab)?;
        }
    }
    Ok(())
}

fn cgroup_mount_point_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    lab.set("/root/readonly", false);
    lab.mount("/cg/new", "cgroup", "cgroup", &["ro"]).args(&["true"]).run()?.ok("run without the link")?;
    fs::remove_dir_all(lab.rootfs().join("cg"))?;
    link(lab, "cg", &victim)?;
    lab.run()?;
    unharmed(lab)
}

/// The neighbour that shares a volume puts a link where mount points of another container are to be made: to the host by its
/// absolute path, and by as many steps upwards as lead to the root of any place.
fn a_link_in_a_shared_tmpfs_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    let shared = Shared::new(lab)?;
    lab.mount("/shared", "bind", &shared.0, &["bind"]);
    mounts_below(lab, "/shared/a")?;
    lab.run()?.ok("run without the link")?;
    let upwards = format!("{}{}", "../".repeat(40), victim.display().to_string().trim_start_matches('/'));
    for target in [victim.clone(), upwards.into()] {
        let at = shared.0.join("a");
        fs::remove_dir_all(&at).or_else(|_| fs::remove_file(&at))?;
        symlink(&target, &at)?;
        lab.run()?;
        unharmed(lab)?;
    }
    Ok(())
}

fn device_below_a_link_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    lab.set("/root/readonly", false).args(&["true"]);
    for (path, linked) in
        [("/there/node", false), ("/there/node", true), ("/there/deep/node", true), ("/there/ptmx", true)]
    {
        if linked {
            let _ = fs::remove_dir_all(lab.rootfs().join("there"));
            link(lab, "there", &victim)?;
        }
        let device =
            json!({ "path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 7, "gid": 7 });
        let out = lab.set("/linux/devices", json!([device])).run()?;
        ensure!(linked || out.code == 0, "run without the link: {}", out.stderr);
        unharmed(lab)?;
    }
    Ok(())
}

fn tmpcopyup_copies_nothing_of_the_host(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    fs::create_dir(lab.rootfs().join("data"))?;
    symlink(victim.join("ptmx"), lab.rootfs().join("data/link"))?;
    symlink(&victim, lab.rootfs().join("data/dir"))?;
    link(lab, "there", &victim)?;
    let mounts = lab.config["mounts"].clone();
    for destination in ["/data", "/there"] {
        lab.config["mounts"] = mounts.clone();
        lab.mount(destination, "tmpfs", "tmpfs", &["tmpcopyup"]);
        let out = lab.sh(&format!("grep -rs untouched {destination}; echo harmed >{destination}/ptmx; true")).run()?;
        ensure!(!out.stdout.contains("untouched"), "tmpcopyup at {destination} copies the host's file: {}", out.stdout);
        unharmed(lab)?;
    }
    Ok(())
}

/// startContainer's program is the image's: it must have no more than the container, and nothing of the host.
fn hooks_of_the_container_run_inside(lab: &mut Lab) -> Outcome {
    lab.script(
        "bundle/rootfs/bin/hook",
        "#!/bin/sh\n{ grep CapEff: /proc/self/status; ls -l /proc/self/fd; } >/tmp/seen\n",
    )?;
    lab.set("/hooks/startContainer", json!([{ "path": "/bin/hook", "env": ["PATH=/bin"] }]))
        .set("/root/readonly", false);
    lab.args(&["grep", "CapEff:", "/proc/self/status"]);
    let own = lab.run()?.ok("run")?.stdout;
    let seen = fs::read_to_string(lab.rootfs().join("tmp/seen"))?;
    let first = seen.lines().next().unwrap_or_default();
    let bits = |line: &str| u64::from_str_radix(line.trim_start_matches("CapEff:").trim(), 16).unwrap_or(u64::MAX);
    ensure!(bits(first) & !bits(own.trim()) == 0, "the hook has {first}, the container {own}");
    let host = seen
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .find(|(_, to)| to.contains("/root/") || to.contains("cgroup"));
    ensure!(host.is_none(), "the hook holds a file of the host: {host:?}");
    Ok(())
}

fn a_linked_state_directory_is_not_followed(lab: &mut Lab) -> Outcome {
    victim(lab)?;
    symlink(lab.dir.join("victim"), lab.dir.join("root/linked"))?;
    for call in [&["delete", "--force", "linked"][..], &["delete", "linked"], &["kill", "linked", "KILL"], &["list"]] {
        lab.call(call).go()?;
        unharmed(lab)?;
    }
    fs::remove_file(lab.dir.join("root/linked")).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}

fn links_in_a_state_directory_are_not_followed(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    lab.args(&["sleep", "100"]).create()?;
    symlink(&victim, lab.state_dir().join("linked"))?;
    symlink(victim.join("ptmx"), lab.state_dir().join("file"))?;
    fs::create_dir(lab.state_dir().join("deep"))?;
    symlink(&victim, lab.state_dir().join("deep/linked"))?;
    lab.verb("delete", &["--force"]).go()?;
    unharmed(lab)
}

fn spoilt_state_is_told_and_deleted(lab: &mut Lab) -> Outcome {
    for (name, text) in
        [("empty", ""), ("cut", "{\"id\":\"cut\",\"init_process_"), ("mad", "[[[[[[[["), ("nul", "\0\0\0")]
    {
        let dir = lab.dir.join("root").join(name);
        fs::create_dir(&dir)?;
        for file in ["state.json", "status"] {
            fs::write(dir.join(file), text)?;
        }
        let out = lab.call(&["state", name]).go()?;
        ensure!(out.code > 0 && !out.stderr.trim().is_empty(), "state of {name}: status {}, no reason", out.code);
        // Some runtimes refuse what they do not understand; none may die of it.
        let out = lab.call(&["delete", "--force", name]).go()?;
        ensure!(out.code >= 0 && !out.stderr.contains("panic"), "delete --force of {name}: {}", out.stderr);
        let _ = fs::remove_dir_all(dir);
    }
    Ok(())
}

fn an_id_is_no_path(lab: &mut Lab) -> Outcome {
    victim(lab)?;
    lab.args(&["true"]).write()?;
    for id in ["../victim", "..", ".", "", "a/b", "/victim", "../root/../victim", "a\nb", "-a", "a b"] {
        for verb in [&["create"][..], &["delete", "--force"], &["state"]] {
            let out = lab.call(&[verb, &[id]].concat()).go()?;
            // `delete --force` of what is not there is no failure.
            ensure!(out.code != 0 || verb[0] == "delete", "{verb:?} takes the id {id:?}");
            unharmed(lab)?;
        }
    }
    Ok(())
}

fn exec_cgroup_stays_below_the_containers(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let own = |text: &str| text.lines().filter(|line| !line.contains(&lab.id)).count();
    let inside = lab.exec(&[], &["cat", "/proc/self/cgroup"])?.ok("exec")?.stdout;
    for path in ["..", "../..", "/..", "a/../../.."] {
        let out = lab.exec(&["--cgroup", path], &["cat", "/proc/self/cgroup"])?;
        ensure!(
            out.code != 0 || own(&out.stdout) <= own(&inside),
            "exec --cgroup {path} leaves the container's: {}",
            out.stdout
        );
    }
    Ok(())
}
