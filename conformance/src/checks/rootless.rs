//! Callers who are not root: their own user namespace, ranges of ids, and cgroups from none to a delegated one.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::holder::Holder;
use crate::runtime::{Lab, wait_until};

/// The user and group that the checks call the runtime as: ones that no file of the host needs to know.
const USER: u32 = 1000;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "rootless",
        runs_in_its_own_user_namespace "config-linux.md#user-namespace-mappings",
        life_cycle_without_cgroups "runc: rootless",
        exec_joins_all "runc: rootless",
        without_user_namespace_is_refused "runc: rootless",
        without_mappings_is_refused "runc: rootless",
        limits_without_a_cgroup_are_refused "runc: rootless",
        cgroups_path_without_permission_is_refused "runc: rootless",
        pause_without_a_cgroup_is_refused "runc: rootless",
        unmapped_gid_option_is_refused "runc: rootless",
        additional_gids_without_setgroups_are_refused "runc: rootless",
        cgroups_are_not_writable "CVE-2023-25809",
        devices_are_the_hosts "config-linux.md#default-devices",
        oom_score_is_raised "config.md#linux-process",
        rlimits_are_set "config.md#posix-process",
        user_namespace_by_path "config-linux.md#namespaces",
        in_a_user_namespace_as_its_root "runc: rootless",
        exec_in_a_user_namespace_as_its_root "runc: rootless",
        pid_namespace_by_path_in_a_user_namespace "runc: rootless",
        device_by_a_mount "runc: rootless",
        ptmx_among_the_devices "runc: rootless",
        ranges_come_from_newuidmap "runc: rootless",
        range_that_is_not_ours_is_refused "runc: rootless",
        delegated_cgroup_is_used "runc: rootless",
        exec_before_start "runc: rootless",
    );
    checks.append(&mut own_checks!(
        "rootless",
        additional_gids_of_a_range "orlop: rootless",
        ps_without_a_cgroup "orlop: rootless",
        init_at_its_gate_is_not_traced "orlop: rootless",
        exec_with_more_rights_waits_for_the_start "orlop: rootless",
    ));
    checks
}

/// Makes the lab that of an ordinary user, with the configuration of `spec --rootless`.
fn user(lab: &mut Lab) -> Outcome {
    lab.runtime.clone_from(&lab.host.copy);
    for part in ["", "root", "bundle", "bundle/rootfs"] {
        chown(lab.dir.join(part), Some(USER), Some(USER))?;
    }
    let id = USER.to_string();
    lab.under =
        ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"].map(String::from).to_vec();
    lab.without_namespace("network");
    lab.set("/linux/namespaces/-", json!({ "type": "user" })).remove("/linux/resources");
    for field in ["/linux/uidMappings", "/linux/gidMappings"] {
        lab.set(field, json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
    }
    for mount in lab.config["mounts"].as_array_mut().expect("the base has them") {
        if mount["destination"] == "/sys" {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                             "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    Ok(())
}

/// Runs the runtime where the ids from 100000 on are the user's, whatever the host's tables say.
fn with_ranges(lab: &mut Lab) -> Outcome {
    let table = lab.dir.join("table");
    fs::write(&table, "ada:100000:1000\n")?;
    let passwd = lab.dir.join("passwd");
    fs::write(&passwd, format!("root:x:0:0::/root:/bin/sh\nada:x:{USER}:{USER}::/:/bin/sh\n"))?;
    let script = format!(
        "for to in subuid subgid; do mount --bind {0} /etc/$to || exit; done; mount --bind {1} /etc/passwd && exec \"$@\"",
        table.display(),
        passwd.display()
    );
    let mut under = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(String::from).to_vec();
    under.append(&mut lab.under);
    lab.under = under;
    for name in ["subuid", "subgid"] {
        let path = Path::new("/etc").join(name);
        if !path.exists() {
            fs::write(path, "")?;
        }
    }
    map(lab, 1000);
    Ok(())
}

/// The own id, and `count` more.
fn map(lab: &mut Lab, count: u32) {
    let all = json!([{ "containerID": 0, "hostID": USER, "size": 1 },
                     { "containerID": 1, "hostID": 100_000, "size": count }]);
    lab.set("/linux/uidMappings", all.clone()).set("/linux/gidMappings", all);
}

fn runs_in_its_own_user_namespace(lab: &mut Lab) -> Outcome {
    user(lab)?;
    let said = lab.run_sh("id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    same!(words, ["0", "0", "1000", "1", "0", "1000", "1", "deny"], "what the container says");
    Ok(())
}

fn life_cycle_without_cgroups(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.up_idle()?;
    same!(lab.status()?, "running", "status");
    let found = lab.cgroups();
    ensure!(found.is_empty(), "a user without rights has made {found:?}");
    lab.stop()?;
    lab.verb("delete", &[]).go()?.ok("delete")?;
    lab.nothing_left("delete")
}

fn exec_joins_all(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.up_idle()?;
    let script = "for n in cgroup ipc mnt net pid user uts; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] && echo $n; done; id -u";
    let out = lab.exec(&[], &["sh", "-c", script])?.ok("exec")?;
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    same!(
        words,
        ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "0"],
        "namespaces that are the same, and the uid"
    );
    Ok(())
}

fn refusal(lab: &mut Lab, words: &[&str]) -> Outcome {
    lab.args(&["true"]).write()?;
    let out = lab.verb("create", &[]).go()?;
    ensure!(out.code != 0, "create accepts it");
    ensure!(words.iter().any(|word| out.stderr.contains(word)), "stderr lacks {words:?}: {}", out.stderr.trim_end());
    lab.nothing_left("a refused create")
}

fn without_user_namespace_is_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
    refusal(lab, &["rootless container requires user namespaces"])
}

fn without_mappings_is_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.remove("/linux/uidMappings");
    refusal(lab, &["requires at least one UID mapping", "no uid mappings found"])?;
    lab.set("/linux/uidMappings", json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
    lab.remove("/linux/gidMappings");
    refusal(lab, &["requires at least one GID mapping", "no gid mappings found"])
}

fn limits_without_a_cgroup_are_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.set("/linux/resources/pids/limit", 10);
    refusal(
        lab,
        &[
            "cannot set pids limit: container could not join or create cgroup",
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        ],
    )
}

fn cgroups_path_without_permission_is_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    let path = format!("/{}/below", lab.id);
    lab.set("/linux/cgroupsPath", path);
    refusal(lab, &["permission denied"])
}

fn pause_without_a_cgroup_is_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.up_idle()?;
    lab.verb("pause", &[]).go()?.fails_with("cannot toggle freezer", "pause")?;
    same!(lab.status()?, "running", "status");
    Ok(())
}

fn unmapped_gid_option_is_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.mount("/tmp", "tmpfs", "tmpfs", &["gid=5"]);
    refusal(lab, &["cannot specify gid=5 mount option for rootless container"])
}

fn additional_gids_without_setgroups_are_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.set("/process/user/additionalGids", json!([0]));
    refusal(lab, &["cannot set any additional groups in a rootless container"])
}

/// The cgroups of a delegated tree belong to the user, who is root of the container: a bind of /sys must not bring them along.
fn cgroups_are_not_writable(lab: &mut Lab) -> Outcome {
    user(lab)?;
    delegate(lab)?;
    lab.config["mounts"]
        .as_array_mut()
        .expect("the base has them")
        .retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    let find = format!("find /sys/fs/cgroup -maxdepth 3 -type d -name {}-user", lab.id);
    let said = lab.run_sh(&format!(
        "for d in $({find}); do echo found; mkdir $d/escaped 2>/dev/null && rmdir $d/escaped && echo $d; done; true"
    ))?;
    ensure!(said.lines().any(|line| line == "found"), "the delegated cgroup is not seen in the container: {said}");
    ensure!(said.lines().all(|line| line == "found"), "the container could make cgroups: {said}");
    lab.sweep_cgroups();
    Ok(())
}

fn devices_are_the_hosts(lab: &mut Lab) -> Outcome {
    user(lab)?;
    let said =
        lab.run_sh("cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F' $d; done; echo x >null")?;
    let nodes = said.lines().filter(|line| line.ends_with("character special file")).count();
    same!(nodes, 6, "devices, of {said}");
    Ok(())
}

fn oom_score_is_raised(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.set("/process/oomScoreAdj", 321);
    same!(lab.run_sh("cat /proc/self/oom_score_adj")?.trim(), "321", "oom_score_adj");
    Ok(())
}

fn rlimits_are_set(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.set("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]));
    same!(lab.run_sh("ulimit -H -c")?.trim(), "0", "the limit");
    Ok(())
}

/// A user and a pid namespace that another process of the same user holds: the rights in the second come from being in the first.
fn user_namespace_by_path(lab: &mut Lab) -> Outcome {
    user(lab)?;
    held(lab, joined)
}

/// Does this beside a process of the user's, in a user and a pid namespace of its own, whose pid it is told.
fn held(lab: &mut Lab, check: impl FnOnce(&mut Lab, i32) -> Outcome) -> Outcome {
    let id = USER.to_string();
    let mut unshare = Command::new("setpriv");
    unshare.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    unshare.args(["unshare", "--user", "--map-root-user", "--pid", "--fork"]);
    let holder = Holder::start(&mut unshare)?;
    check(lab, holder.pid())
}

fn joined(lab: &mut Lab, pid: i32) -> Outcome {
    let path = |link: &str| format!("/proc/{pid}/ns/{link}");
    let want =
        |link: &str| -> Result<String, Failure> { Ok(fs::read_link(path(link))?.to_string_lossy().into_owned()) };
    lab.without_namespace("user").without_namespace("pid").remove("/linux/uidMappings").remove("/linux/gidMappings");
    lab.set("/linux/namespaces/-", json!({ "type": "user", "path": path("user") }));
    lab.set("/linux/namespaces/-", json!({ "type": "pid", "path": path("pid") }));
    lab.set("/process/oomScoreAdj", 123);
    let said =
        lab.run_sh("id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/pid; cat /proc/self/oom_score_adj")?;
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    same!(lines, ["0".to_owned(), want("user")?, want("pid")?, "123".to_owned()], "uid, namespaces, score");
    Ok(())
}

/// The runtime is root of a user namespace that somebody else has made: podman unshare, rootlesskit.
fn in_a_user_namespace_as_its_root(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.under.extend(["unshare", "--user", "--map-root-user"].map(String::from));
    lab.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
    let said = lab.run_sh("id -u; cat /proc/self/uid_map; echo x >/dev/null && stat -c %F /dev/null")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    same!(words, ["0", "0", "1000", "1", "character", "special", "file"], "what the container says");
    Ok(())
}

/// As `held`, with a runtime that is root of the held user namespace: nothing above it is its own, such as the pid namespace that it is in.
fn held_root(lab: &mut Lab, check: impl FnOnce(&mut Lab, i32) -> Outcome) -> Outcome {
    user(lab)?;
    lab.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
    held(lab, |lab, pid| {
        lab.under = ["nsenter", "--user", "--target", &pid.to_string()].map(String::from).to_vec();
        let verdict = check(lab, pid);
        // While its user namespace can be entered.
        lab.verb("delete", &["--force"]).go()?;
        verdict
    })
}

fn exec_in_a_user_namespace_as_its_root(lab: &mut Lab) -> Outcome {
    held_root(lab, |lab, _| {
        lab.up_idle()?;
        let same = "[ $(readlink /proc/self/ns/pid) = $(readlink /proc/1/ns/pid) ] && echo same";
        same!(lab.exec(&[], &["sh", "-c", same])?.ok("exec")?.stdout.trim(), "same", "the pid namespace of exec");
        Ok(())
    })
}

fn pid_namespace_by_path_in_a_user_namespace(lab: &mut Lab) -> Outcome {
    held_root(lab, |lab, pid| {
        let path = format!("/proc/{pid}/ns/pid");
        let want = fs::read_link(&path)?.to_string_lossy().into_owned();
        lab.without_namespace("pid").set("/linux/namespaces/-", json!({ "type": "pid", "path": path }));
        let seen = lab.dir.join("hook");
        let script = format!("readlink /proc/self/ns/pid >{}", seen.display());
        lab.set("/hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
        same!(lab.run_sh("readlink /proc/self/ns/pid")?.trim(), want, "the pid namespace of the container");
        let own = fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned();
        same!(fs::read_to_string(seen)?.trim(), own, "the pid namespace of a hook of the host");
        Ok(())
    })
}

/// A device that a mount has brought is the host's: neither made nor changed.
fn device_by_a_mount(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.under.extend(["unshare", "--user", "--map-root-user"].map(String::from));
    lab.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
    lab.mount("/dev/null", "bind", "/dev/null", &["bind"]);
    same!(lab.run_sh("echo x >/dev/null && stat -c %F /dev/null")?.trim(), "character special file", "/dev/null");
    Ok(())
}

fn ptmx_among_the_devices(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.set("/linux/devices", json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]));
    same!(lab.run_sh("readlink /dev/ptmx; stat -L -c %t:%T /dev/ptmx")?.trim(), "pts/ptmx\n5:2", "/dev/ptmx");
    Ok(())
}

fn ranges_come_from_newuidmap(lab: &mut Lab) -> Outcome {
    user(lab)?;
    with_ranges(lab)?;
    lab.set("/process/user", json!({ "uid": 5, "gid": 6 }));
    let said = lab.run_sh("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let maps = ["0", "1000", "1", "1", "100000", "1000"];
    same!(words, [&["5", "6"][..], &maps, &maps].concat(), "what the container says");
    Ok(())
}

fn range_that_is_not_ours_is_refused(lab: &mut Lab) -> Outcome {
    user(lab)?;
    with_ranges(lab)?;
    map(lab, 1001);
    lab.args(&["true"]).write()?;
    let out = lab.verb("create", &[]).go()?;
    ensure!(out.code != 0, "create accepts it");
    if lab.host.name == "orlop" {
        ensure!(
            out.stderr.contains("lacks the line \\\"ada:100000:1001\\\""),
            "the line is not named: {}",
            out.stderr.trim_end()
        );
    }
    lab.nothing_left("a refused create")
}

fn additional_gids_of_a_range(lab: &mut Lab) -> Outcome {
    user(lab)?;
    with_ranges(lab)?;
    lab.set("/process/user/additionalGids", json!([7, 9]));
    same!(lab.run_sh("id -G")?.trim(), "0 7 9", "groups");
    Ok(())
}

fn ps_without_a_cgroup(lab: &mut Lab) -> Outcome {
    user(lab)?;
    lab.up_idle()?;
    let pid = lab.pid()?;
    wait_until("ps does not list the shell and its sleep", || {
        let out = lab.verb("ps", &["--format", "json"]).go()?.ok("ps")?;
        let pids: Vec<i64> = serde_json::from_str(&out.stdout)?;
        Ok(pids.contains(&pid) && pids.len() == 2)
    })
}

/// The waiting init has no seccomp filter yet, so nothing that comes before it may trace it or take its files (CVE-2016-9962).
fn exec_before_start(lab: &mut Lab) -> Outcome {
    user(lab)?;
    created(lab, &json!({ "defaultAction": "SCMP_ACT_ALLOW" }))?;
    let script = "for n in ipc mnt net pid user uts; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] && echo $n; done";
    let own = "for n in ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done";
    let of_exec = lab.exec(&[], &["sh", "-c", own])?.ok("exec")?.stdout;
    let pid = lab.pid()?;
    let mut of_init = String::new();
    for name in ["ipc", "mnt", "net", "pid", "user", "uts"] {
        of_init += &format!("{}\n", fs::read_link(format!("/proc/{pid}/ns/{name}"))?.display());
    }
    same!(of_exec, of_init, "namespaces of exec, and of the init that waits");
    same!(lab.status()?, "created", "status");
    lab.start()?.ok("start")?;
    let out = lab.exec(&[], &["sh", "-c", script])?.ok("exec in a running container")?;
    same!(out.stdout, "ipc\nmnt\nnet\npid\nuser\nuts\n", "namespaces that are the same");
    Ok(())
}

/// Creates a container that sleeps, under this filter.
fn created(lab: &mut Lab, filter: &Value) -> Outcome {
    lab.set("/linux/seccomp", filter.clone());
    lab.sh("sleep 60").create()?.ok("create")?;
    Ok(())
}

/// What a process of the container may do to the init that waits: with and without no_new_privs, as root and as another user.
fn init_at_its_gate_is_not_traced(lab: &mut Lab) -> Outcome {
    user(lab)?;
    with_ranges(lab)?;
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    for (no_new_privs, uid) in [(true, 0), (false, 0), (true, 5)] {
        lab.set("/process/noNewPrivileges", no_new_privs).set("/process/user", json!({ "uid": uid, "gid": uid }));
        created(lab, &filter)?;
        let script = "for l in /proc/1/fd/* /proc/1/exe /proc/1/root /proc/1/cwd /proc/1/ns/*; do readlink $l; done
                      for f in /proc/1/fd/*; do echo go 2>/dev/null >$f; done
                      for f in mem environ auxv maps; do head -c 1 /proc/1/$f; done; ls /proc/self/ns >&2";
        let out = lab.exec(&[], &["sh", "-c", script])?.ok("exec")?;
        ensure!(out.stderr.contains("mnt"), "the attempts were not made: {}", out.stderr.trim_end());
        same!(out.stdout, "", "what a process of the container gets from the init");
        same!(lab.status()?, "created", "status");
        lab.start()?.ok("start")?;
        let caps = |of: &str| format!("grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/{of}/status");
        let both = lab.exec(&[], &["sh", "-c", &format!("{}; {}", caps("1"), caps("self"))])?.ok("exec")?.stdout;
        let lines: Vec<&str> = both.lines().collect();
        let (init, exec) = lines.split_at(lines.len() / 2);
        ensure!(init.len() > 5, "no rights are shown: {both}");
        same!(init, exec, "the rights of the program, and of exec's");
        lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    }
    Ok(())
}

/// With a right by which it could trace the init, an exec has to wait for the start; so has every exec where the container has that right.
fn exec_with_more_rights_waits_for_the_start(lab: &mut Lab) -> Outcome {
    user(lab)?;
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    created(lab, &filter)?;
    let refused = |lab: &mut Lab, args: &[&str]| -> Outcome {
        let out = lab.exec(args, &["true"])?.exits(255, "exec in a created container")?;
        ensure!(out.stderr.contains("start it first"), "stderr lacks the hint: {}", out.stderr.trim_end());
        same!(lab.status()?, "created", "status");
        Ok(())
    };
    refused(lab, &["--cap", "CAP_SYS_PTRACE"])?;
    lab.start()?.ok("start")?;
    lab.exec(&["--cap", "CAP_SYS_PTRACE"], &["true"])?.ok("exec")?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    for set in ["bounding", "effective", "permitted"] {
        lab.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_PTRACE"]));
    }
    created(lab, &filter)?;
    refused(lab, &[])?;
    lab.start()?.ok("start")?;
    lab.exec(&[], &["true"])?.ok("exec")?;
    Ok(())
}

/// Gives the user a cgroup in every hierarchy, and runs the runtime inside it.
fn delegate(lab: &mut Lab) -> Outcome {
    let script = r#"id=$1; uid=$2; shift 2
for root in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    [ -e "$root/cgroup.procs" ] || continue
    if [ -e "$root/cgroup.controllers" ]; then
        for one in $(cat "$root/cgroup.controllers"); do echo "+$one" >"$root/cgroup.subtree_control" 2>/dev/null; done
        [ "$root" = /sys/fs/cgroup ] || [ "$root" = /sys/fs/cgroup/unified/ ] || continue
    fi
    dir=$root/$id-user
    mkdir -p "$dir"
    if [ -e "$dir/cpuset.cpus" ] && [ ! -e "$dir/cgroup.controllers" ]; then
        cat "$root/cpuset.cpus" >"$dir/cpuset.cpus"
        cat "$root/cpuset.mems" >"$dir/cpuset.mems"
        echo 1 >"$dir/cgroup.clone_children"
    fi
    mkdir -p "$dir/$id-caller"
    chown -R "$uid:$uid" "$dir"
    echo $$ >"$dir/$id-caller/cgroup.procs" || exit
    [ "$root" = /sys/fs/cgroup ] && break
done
exec "$@""#;
    let id = USER.to_string();
    let mut under = ["sh", "-c", script, "sh", &lab.id, &id].map(String::from).to_vec();
    under.append(&mut lab.under);
    lab.under = under;
    Ok(())
}

fn delegated_cgroup_is_used(lab: &mut Lab) -> Outcome {
    user(lab)?;
    delegate(lab)?;
    lab.set("/linux/resources", json!({ "pids": { "limit": 33 } }));
    lab.up_idle()?;
    let limit = |lab: &Lab| -> Result<Value, Failure> {
        let found = lab.cgroups().into_iter().find(|dir| dir.ends_with(&lab.id) && dir.join("pids.max").exists());
        let dir = found.ok_or_else(|| Failure(format!("no cgroup with a limit among {:?}", lab.cgroups())))?;
        Ok(fs::read_to_string(dir.join("pids.max"))?.trim().into())
    };
    same!(limit(lab)?, "33", "pids.max");
    lab.exec(&[], &["true"])?.ok("exec")?;
    lab.verb("update", &["--pids-limit", "44"]).go()?.ok("update")?;
    same!(limit(lab)?, "44", "pids.max");
    lab.verb("pause", &[]).go()?.ok("pause")?;
    same!(lab.status()?, "paused", "status");
    lab.verb("resume", &[]).go()?.ok("resume")?;
    let pids: Vec<i64> = serde_json::from_str(&lab.verb("ps", &["--format", "json"]).go()?.ok("ps")?.stdout)?;
    ensure!(pids.contains(&lab.pid()?), "ps lacks the init: {pids:?}");
    lab.stop()?;
    lab.verb("delete", &[]).go()?.ok("delete")?;
    let left: Vec<_> = lab.cgroups().into_iter().filter(|dir| dir.ends_with(&lab.id)).collect();
    ensure!(left.is_empty(), "delete leaves {left:?}");
    // Ours to remove, deepest first.
    lab.sweep_cgroups();
    Ok(())
}
