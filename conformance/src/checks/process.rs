//! What the process of a container is given: config.md#process, root and hostname.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::apparmor::Profile;
use crate::check::{Check, Outcome};
use crate::runtime::Lab;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "process",
        args_are_passed_as_they_are "config.md#process",
        args_must_not_be_empty "config.md#process",
        exit_status_of_a_foreground_run "runc: run",
        exit_status_by_signal "runc: run",
        stdin_reaches_a_foreground_run "runc: run",
        a_program_is_found_in_path "config.md#process",
        a_program_not_in_path_is_refused "config.md#process",
        a_program_that_is_not_executable_is_refused "config.md#process",
        a_program_that_is_a_directory_is_refused "config.md#process",
        a_program_relative_to_cwd "config.md#process",
        env_is_exactly_what_the_config_says "config.md#process",
        env_gets_home_from_passwd "runc: run",
        env_keeps_a_given_home "runc: run",
        env_home_of_an_unknown_user_is_the_root "runc: run",
        env_keeps_the_last_of_duplicates "runc: run",
        env_of_the_runtime_does_not_leak "config.md#process",
        cwd_is_set "config.md#process",
        cwd_is_made_if_missing "runc: run",
        cwd_must_be_absolute "config.md#process",
        cwd_through_proc_self_fd_is_refused "CVE-2024-21626",
        user_and_group "config.md#user",
        user_groups_are_exactly_those_given "config.md#user",
        user_groups_of_the_caller_do_not_leak "config.md#user",
        user_ids_beyond_2_pow_31_are_kept_or_refused "config.md#user",
        umask "config.md#user",
        umask_defaults_to_022 "runc: run",
        capabilities_of_root "config.md#linux-process",
        capabilities_are_five_separate_sets "config.md#linux-process",
        capabilities_empty_are_none "config.md#linux-process",
        capabilities_of_another_user_need_ambient "config.md#linux-process",
        capabilities_without_ambient_are_lost_by_another_user "config.md#linux-process",
        capabilities_unknown_are_ignored "config.md#linux-process",
        capabilities_unknown_are_told "config.md#linux-process",
        rlimits "config.md#posix-process",
        rlimits_of_unknown_type_are_refused "config.md#posix-process",
        rlimits_given_twice_are_refused "config.md#posix-process",
        rlimits_soft_above_hard_are_refused "config.md#posix-process",
        no_new_privileges "config.md#process",
        no_new_privileges_off "config.md#process",
        apparmor_profile "config.md#linux-process",
        apparmor_profile_that_is_not_loaded_is_refused "config.md#linux-process",
        oom_score_adj "config.md#linux-process",
        oom_score_adj_absent_is_inherited "config.md#linux-process",
        scheduler_batch_with_nice "config.md#linux-process",
        scheduler_idle "config.md#linux-process",
        scheduler_of_unknown_policy_is_refused "config.md#linux-process",
        io_priority "config.md#linux-process",
        io_priority_idle "config.md#linux-process",
        io_priority_of_unknown_class_is_refused "config.md#linux-process",
        fds_are_the_standard_three "CVE-2024-21626",
        a_session_of_its_own "runc: run",
        signals_are_reset "runc: run",
        init_is_process_one "config-linux.md#namespaces",
        root_is_read_only "config.md#root",
        root_is_writable "config.md#root",
        root_is_the_rootfs_and_nothing_above "config.md#root",
        hostname "config.md#hostname",
        hostname_needs_a_namespace "config.md#hostname",
        domainname "config.md#domainname",
        personality_linux32 "config-linux.md#personality",
        personality_absent_is_linux "config-linux.md#personality",
        personality_of_unknown_domain_is_refused "config-linux.md#personality",
    );
    checks.extend(RLIMITS.iter().map(|&(name, column, soft, hard)| {
        Check::new(
            format!("process::rlimit_{}", &name[7..].to_lowercase()),
            "config.md#posix-process",
            move |lab: &mut Lab| {
                lab.set("/process/rlimits/-", json!({ "type": name, "soft": soft, "hard": hard }));
                let limits = lab.run_sh("cat /proc/self/limits")?;
                let line = limits.lines().find(|line| line.starts_with(column)).unwrap_or_default();
                let values: Vec<&str> = line[column.len().min(line.len())..].split_whitespace().take(2).collect();
                same!(values, [soft.to_string(), hard.to_string()], "{name}");
                Ok(())
            },
        )
    }));
    checks
}

/// The resource, its row in /proc/self/limits, and a soft and hard limit that differ from every default.
const RLIMITS: &[(&str, &str, u64, u64)] = &[
    ("RLIMIT_AS", "Max address space", 1 << 36, 1 << 37),
    ("RLIMIT_CORE", "Max core file size", 4096, 8192),
    ("RLIMIT_CPU", "Max cpu time", 1021, 1022),
    ("RLIMIT_DATA", "Max data size", 1 << 35, 1 << 36),
    ("RLIMIT_FSIZE", "Max file size", 1 << 34, 1 << 35),
    ("RLIMIT_LOCKS", "Max file locks", 1023, 1024),
    ("RLIMIT_MEMLOCK", "Max locked memory", 12288, 16384),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size", 12289, 16385),
    ("RLIMIT_NPROC", "Max processes", 901, 902),
    ("RLIMIT_RSS", "Max resident set", 1 << 33, 1 << 34),
    ("RLIMIT_SIGPENDING", "Max pending signals", 501, 502),
    ("RLIMIT_STACK", "Max stack size", 1 << 21, 1 << 22),
];

fn args_are_passed_as_they_are(lab: &mut Lab) -> Outcome {
    let odd = ["", " a  b ", "$HOME", "*", "ü", "\"'\\", "-n"];
    let mut args = vec!["sh", "-c", "printf '<%s>' \"$0\" \"$@\"", "zero"];
    args.extend(odd);
    let out = lab.args(&args).run()?.ok("run")?;
    let want: String = ["zero"].iter().chain(&odd).map(|arg| format!("<{arg}>")).collect();
    same!(out.stdout, want, "arguments");
    Ok(())
}

fn args_must_not_be_empty(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.args(&[]);
    })?;
    Ok(())
}

fn exit_status_of_a_foreground_run(lab: &mut Lab) -> Outcome {
    for status in [0, 1, 42, 255] {
        lab.sh(&format!("exit {status}")).run()?.exits(status, "run")?;
    }
    lab.nothing_left("a foreground run")
}

fn exit_status_by_signal(lab: &mut Lab) -> Outcome {
    // Process 1 of a pid namespace is spared the signals that it sends to itself.
    lab.without_namespace("pid").sh("kill -TERM $$").run()?.exits(128 + 15, "run of a process that TERM ends")?;
    lab.sh("kill -KILL $$").run()?.exits(128 + 9, "run of a process that KILL ends")?;
    Ok(())
}

fn stdin_reaches_a_foreground_run(lab: &mut Lab) -> Outcome {
    lab.args(&["cat"]).write()?;
    same!(lab.verb("run", &[]).stdin("to the cat\n").go()?.ok("run")?.stdout, "to the cat\n", "output");
    Ok(())
}

fn a_program_is_found_in_path(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.rootfs().join("first"))?;
    lab.script("bundle/rootfs/first/prog", "#!/bin/sh\necho first\n")?;
    lab.script("bundle/rootfs/bin/prog", "#!/bin/sh\necho second\n")?;
    lab.set("/process/env", json!(["PATH=/none:/first:/bin"]));
    same!(lab.args(&["prog"]).run()?.ok("run")?.stdout, "first\n", "output");
    Ok(())
}

fn a_program_not_in_path_is_refused(lab: &mut Lab) -> Outcome {
    let reason = lab.refused(|lab| {
        lab.args(&["no-such-program"]);
    })?;
    ensure!(reason.contains("executable file not found in $PATH"), "reason: {reason}");
    Ok(())
}

fn a_program_that_is_not_executable_is_refused(lab: &mut Lab) -> Outcome {
    fs::write(lab.rootfs().join("file"), "no program\n")?;
    let reason = lab.refused(|lab| {
        lab.args(&["/file"]);
    })?;
    ensure!(reason.to_lowercase().contains("permission denied"), "reason: {reason}");
    Ok(())
}

fn a_program_that_is_a_directory_is_refused(lab: &mut Lab) -> Outcome {
    let reason = lab.refused(|lab| {
        lab.args(&["/etc"]);
    })?;
    let reason = reason.to_lowercase();
    ensure!(reason.contains("permission denied") || reason.contains("is a directory"), "reason: {reason}");
    Ok(())
}

fn a_program_relative_to_cwd(lab: &mut Lab) -> Outcome {
    fs::create_dir(lab.rootfs().join("home/sub"))?;
    lab.script("bundle/rootfs/home/sub/prog", "#!/bin/sh\necho here\n")?;
    lab.set("/process/cwd", "/home");
    same!(lab.args(&["sub/prog"]).run()?.ok("run")?.stdout, "here\n", "output");
    Ok(())
}

fn env_is_exactly_what_the_config_says(lab: &mut Lab) -> Outcome {
    lab.set("/process/env", json!(["HOME=/h", "B=2", "A=x=y", "EMPTY=", "SPACE= a b "]));
    let out = lab.args(&["/bin/cat", "/proc/self/environ"]).run()?.ok("run")?.stdout;
    let mut variables: Vec<&str> = out.split_terminator('\0').collect();
    variables.sort_unstable();
    same!(variables, ["A=x=y", "B=2", "EMPTY=", "HOME=/h", "SPACE= a b "], "environment");
    Ok(())
}

fn home(lab: &mut Lab) -> Result<String, crate::check::Failure> {
    Ok(lab.run_sh("cat /proc/1/environ | tr '\\0' '\\n' | grep ^HOME")?.trim().to_owned())
}

fn env_gets_home_from_passwd(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 }));
    same!(home(lab)?, "HOME=/home/ada", "HOME");
    lab.set("/process/user", json!({ "uid": 0, "gid": 0 }));
    same!(home(lab)?, "HOME=/root", "HOME of root");
    Ok(())
}

fn env_keeps_a_given_home(lab: &mut Lab) -> Outcome {
    lab.set("/process/env/-", "HOME=/var");
    same!(home(lab)?, "HOME=/var", "HOME");
    Ok(())
}

fn env_home_of_an_unknown_user_is_the_root(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 4321, "gid": 4321 }));
    same!(home(lab)?, "HOME=/", "HOME");
    Ok(())
}

fn env_keeps_the_last_of_duplicates(lab: &mut Lab) -> Outcome {
    lab.set("/process/env", json!(["PATH=/bin", "A=first", "B=b", "A=second"]));
    let out = lab.run_sh("cat /proc/1/environ | tr '\\0' '\\n' | grep ^A")?;
    same!(out, "A=second\n", "A");
    Ok(())
}

fn env_of_the_runtime_does_not_leak(lab: &mut Lab) -> Outcome {
    lab.args(&["env"]).write()?;
    let out = lab.verb("run", &[]).env("OUTER_SECRET", "leaked").go()?.ok("run")?;
    ensure!(out.stdout.contains("TERM=xterm") && !out.stdout.contains("OUTER_SECRET"), "environment: {}", out.stdout);
    Ok(())
}

fn cwd_is_set(lab: &mut Lab) -> Outcome {
    lab.set("/process/cwd", "/home");
    same!(lab.args(&["readlink", "/proc/self/cwd"]).run()?.ok("run")?.stdout, "/home\n", "working directory");
    Ok(())
}

fn cwd_is_made_if_missing(lab: &mut Lab) -> Outcome {
    lab.set("/root/readonly", false).set("/process/cwd", "/new/deep");
    same!(lab.args(&["readlink", "/proc/self/cwd"]).run()?.ok("run")?.stdout, "/new/deep\n", "working directory");
    Ok(())
}

fn cwd_must_be_absolute(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/cwd", "home");
    })?;
    Ok(())
}

/// A working directory reached through a descriptor that the runtime forgot to close lies outside the container.
fn cwd_through_proc_self_fd_is_refused(lab: &mut Lab) -> Outcome {
    for fd in 3..24 {
        lab.set("/process/cwd", format!("/proc/self/fd/{fd}")).set("/root/readonly", false);
        let out = lab.sh("ls -d ../../../../../../.. >/dev/null && cat /proc/self/cwd/etc/passwd").run()?;
        ensure!(out.code != 0, "descriptor {fd} became the working directory: {}", out.stdout);
    }
    Ok(())
}

fn status_field(text: &str, field: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("(absent)");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Fields of /proc/self/status as seen by a process that is executed directly.
fn status(lab: &mut Lab) -> Result<String, crate::check::Failure> {
    Ok(lab.args(&["cat", "/proc/self/status"]).run()?.ok("run")?.stdout)
}

fn user_and_group(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 }));
    let status = status(lab)?;
    same!(status_field(&status, "Uid:"), "1815 1815 1815 1815", "user");
    same!(status_field(&status, "Gid:"), "1852 1852 1852 1852", "group");
    Ok(())
}

fn user_groups_are_exactly_those_given(lab: &mut Lab) -> Outcome {
    // /etc/group puts ada into the group 1843: that is for engines to read.
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852, "additionalGids": [7, 70000] }));
    same!(status_field(&status(lab)?, "Groups:"), "7 70000", "groups");
    Ok(())
}

fn user_groups_of_the_caller_do_not_leak(lab: &mut Lab) -> Outcome {
    lab.args(&["cat", "/proc/self/status"]).write()?;
    let out = lab.verb("run", &[]).under(&["setpriv", "--groups", "31,32"]).go()?.ok("run")?;
    same!(status_field(&out.stdout, "Groups:"), "", "groups");
    Ok(())
}

fn user_ids_beyond_2_pow_31_are_kept_or_refused(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 2147483648u32, "gid": 4294967294u32 }));
    let out = lab.args(&["cat", "/proc/self/status"]).run()?;
    if out.code != 0 {
        ensure!(out.stdout.is_empty() && !out.stderr.is_empty(), "the process ran, or no reason is given");
        return Ok(());
    }
    same!(status_field(&out.stdout, "Uid:"), ["2147483648"; 4].join(" "), "user");
    same!(status_field(&out.stdout, "Gid:"), ["4294967294"; 4].join(" "), "group");
    Ok(())
}

fn umask(lab: &mut Lab) -> Outcome {
    lab.set("/process/user/umask", 0o027);
    same!(status_field(&status(lab)?, "Umask:"), "0027", "umask");
    Ok(())
}

fn umask_defaults_to_022(lab: &mut Lab) -> Outcome {
    lab.args(&["cat", "/proc/self/status"]).write()?;
    let out = lab.verb("run", &[]).under(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]).go()?.ok("run")?;
    same!(status_field(&out.stdout, "Umask:"), "0022", "umask");
    Ok(())
}

fn has_capabilities(lab: &mut Lab, want: [(&str, u64); 5]) -> Outcome {
    let status = status(lab)?;
    for (set, bits) in want {
        same!(status_field(&status, set), format!("{bits:016x}"), "{set}");
    }
    Ok(())
}

/// AUDIT_WRITE, KILL and NET_BIND_SERVICE.
const BASE: u64 = 1 << 29 | 1 << 5 | 1 << 10;

fn capabilities_of_root(lab: &mut Lab) -> Outcome {
    lab.set("/process/capabilities/inheritable", json!([])).set("/process/capabilities/ambient", json!([]));
    has_capabilities(lab, [("CapInh:", 0), ("CapPrm:", BASE), ("CapEff:", BASE), ("CapBnd:", BASE), ("CapAmb:", 0)])
}

/// exec gives root its bounding set and the inheritable, so a user without capabilities of its own shows what was set.
fn capabilities_are_five_separate_sets(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 })).set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYSLOG", "CAP_SETUID"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SYSLOG"],
            "effective": ["CAP_KILL", "CAP_SYSLOG"],
            "ambient": ["CAP_CHOWN"]
        }),
    );
    let (inheritable, bounding) = (1 | 1 << 5, 1 | 1 << 5 | 1 << 34 | 1 << 7);
    has_capabilities(
        lab,
        [("CapInh:", inheritable), ("CapPrm:", 1), ("CapEff:", 1), ("CapBnd:", bounding), ("CapAmb:", 1)],
    )
}

const NONE: [(&str, u64); 5] = [("CapInh:", 0), ("CapPrm:", 0), ("CapEff:", 0), ("CapBnd:", 0), ("CapAmb:", 0)];

fn capabilities_empty_are_none(lab: &mut Lab) -> Outcome {
    lab.set("/process/capabilities", json!({}));
    has_capabilities(lab, NONE)
}

fn as_ada(lab: &mut Lab, capabilities: serde_json::Value) {
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 })).set("/process/capabilities", capabilities);
}

fn capabilities_of_another_user_need_ambient(lab: &mut Lab) -> Outcome {
    let one = json!(["CAP_NET_RAW"]);
    as_ada(lab, json!({ "bounding": one, "inheritable": one, "permitted": one, "effective": one, "ambient": one }));
    let bit = 1 << 13;
    has_capabilities(lab, [("CapInh:", bit), ("CapPrm:", bit), ("CapEff:", bit), ("CapBnd:", bit), ("CapAmb:", bit)])
}

fn capabilities_without_ambient_are_lost_by_another_user(lab: &mut Lab) -> Outcome {
    let one = json!(["CAP_NET_RAW"]);
    as_ada(lab, json!({ "bounding": one, "permitted": one, "effective": one }));
    has_capabilities(lab, [("CapInh:", 0), ("CapPrm:", 0), ("CapEff:", 0), ("CapBnd:", 1 << 13), ("CapAmb:", 0)])
}

fn capabilities_unknown_are_ignored(lab: &mut Lab) -> Outcome {
    for set in ["bounding", "permitted", "effective"] {
        lab.set(&format!("/process/capabilities/{set}/-"), "CAP_NO_SUCH_THING");
    }
    lab.set("/process/capabilities/ambient", json!([]));
    has_capabilities(lab, [("CapInh:", 0), ("CapPrm:", BASE), ("CapEff:", BASE), ("CapBnd:", BASE), ("CapAmb:", 0)])
}

fn capabilities_unknown_are_told(lab: &mut Lab) -> Outcome {
    lab.set("/process/capabilities/bounding/-", "CAP_NO_SUCH_THING").args(&["true"]).write()?;
    let out = lab.verb("run", &[]).go()?.ok("run")?;
    ensure!(out.stderr.contains("CAP_NO_SUCH_THING"), "nobody is told: {:?}", out.stderr);
    Ok(())
}

fn rlimits(lab: &mut Lab) -> Outcome {
    lab.set(
        "/process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 300, "hard": 400 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
        ]),
    );
    // A runtime in Go may raise the soft limit of files for itself, and hand it on; the table has the other soft limits.
    same!(lab.run_sh("ulimit -H -n; ulimit -H -c")?, "400\n0\n", "limits");
    Ok(())
}

fn rlimits_of_unknown_type_are_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/rlimits/-", json!({ "type": "RLIMIT_NONE", "soft": 1, "hard": 1 }));
    })?;
    Ok(())
}

fn rlimits_given_twice_are_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/rlimits/-", json!({ "type": "RLIMIT_NOFILE", "soft": 1000, "hard": 1000 }));
    })?;
    Ok(())
}

fn rlimits_soft_above_hard_are_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 400, "hard": 300 }]));
    })?;
    Ok(())
}

fn no_new_privileges(lab: &mut Lab) -> Outcome {
    lab.set("/process/noNewPrivileges", true);
    same!(status_field(&status(lab)?, "NoNewPrivs:"), "1", "NoNewPrivs");
    Ok(())
}

fn no_new_privileges_off(lab: &mut Lab) -> Outcome {
    lab.set("/process/noNewPrivileges", false);
    same!(status_field(&status(lab)?, "NoNewPrivs:"), "0", "NoNewPrivs");
    lab.remove("/process/noNewPrivileges");
    same!(status_field(&status(lab)?, "NoNewPrivs:"), "0", "NoNewPrivs when absent");
    Ok(())
}

fn apparmor_profile(lab: &mut Lab) -> Outcome {
    let profile = Profile::load(lab)?;
    lab.set("/process/apparmorProfile", profile.name.clone()).set("/root/readonly", false);
    let out = lab.run_sh("cat /proc/self/attr/current; echo x > /open; echo x > /secret; cat /open /secret; true")?;
    same!(out, format!("{} (enforce)\nx\n", profile.name), "label, and what could be written");
    Ok(())
}

fn apparmor_profile_that_is_not_loaded_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/apparmorProfile", "no-such-profile");
    })?;
    Ok(())
}

fn oom_score_adj(lab: &mut Lab) -> Outcome {
    lab.set("/process/oomScoreAdj", 321);
    same!(lab.run_sh("cat /proc/1/oom_score_adj")?, "321\n", "oom_score_adj");
    Ok(())
}

fn oom_score_adj_absent_is_inherited(lab: &mut Lab) -> Outcome {
    lab.args(&["cat", "/proc/self/oom_score_adj"]).write()?;
    let raise = "echo 111 > /proc/self/oom_score_adj; exec \"$@\"";
    let out = lab.verb("run", &[]).under(&["sh", "-c", raise, "sh"]).go()?.ok("run")?;
    same!(out.stdout, "111\n", "oom_score_adj");
    Ok(())
}

/// The nice value and the scheduling policy are fields 19 and 41 of /proc/pid/stat, whose second field may hold spaces.
fn schedule(lab: &mut Lab) -> Result<String, crate::check::Failure> {
    lab.run_sh("sed 's/.*) //' /proc/1/stat | awk '{print $17, $39}'")
}

fn scheduler_batch_with_nice(lab: &mut Lab) -> Outcome {
    lab.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    same!(schedule(lab)?, "7 3\n", "nice and policy");
    Ok(())
}

fn scheduler_idle(lab: &mut Lab) -> Outcome {
    lab.set("/process/scheduler", json!({ "policy": "SCHED_IDLE" }));
    same!(schedule(lab)?, "0 5\n", "nice and policy");
    Ok(())
}

fn scheduler_of_unknown_policy_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/scheduler", json!({ "policy": "SCHED_NONE" }));
    })?;
    Ok(())
}

fn io_priority(lab: &mut Lab) -> Outcome {
    lab.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    same!(lab.run_sh("ionice -p 1")?.trim(), "best-effort: prio 6", "priority");
    Ok(())
}

fn io_priority_idle(lab: &mut Lab) -> Outcome {
    lab.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }));
    ensure!(lab.run_sh("ionice -p 1")?.starts_with("idle"), "the class is not idle");
    Ok(())
}

fn io_priority_of_unknown_class_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_NONESUCH", "priority": 4 }));
    })?;
    Ok(())
}

/// The descriptors of a process of the host's view, so that no shell inside adds its own.
fn descriptors(pid: i64) -> Result<Vec<u32>, crate::check::Failure> {
    let names = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let mut fds: Vec<u32> = names.flat_map(|entry| entry.file_name().to_string_lossy().parse()).collect();
    fds.sort_unstable();
    Ok(fds)
}

fn fds_are_the_standard_three(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    lab.start()?;
    let init = lab.pid()?;
    let three = || Ok(descriptors(init)? == [0, 1, 2]);
    // start may return before the runtime's last step, the exec, which closes what it holds.
    crate::runtime::wait_until("the descriptors of the init are not 0, 1 and 2", three)?;
    let pid_file = lab.dir.join("pid");
    lab.exec(&["--detach", "--pid-file", &pid_file.to_string_lossy()], &["sleep", "100"])?.ok("exec")?;
    let pid = fs::read_to_string(pid_file)?.parse()?;
    crate::runtime::wait_until("the descriptors of exec are not 0, 1 and 2", || Ok(descriptors(pid)? == [0, 1, 2]))
}

fn a_session_of_its_own(lab: &mut Lab) -> Outcome {
    let stat = lab.run_sh("sed 's/.*) //' /proc/1/stat | awk '{print $3, $4}'")?;
    same!(stat, "1 1\n", "process group and session");
    Ok(())
}

fn signals_are_reset(lab: &mut Lab) -> Outcome {
    lab.args(&["cat", "/proc/self/status"]).write()?;
    let ignoring = "trap '' HUP USR2 PIPE; exec \"$@\"";
    let out = lab.verb("run", &[]).under(&["sh", "-c", ignoring, "sh"]).go()?.ok("run")?;
    same!(status_field(&out.stdout, "SigBlk:"), "0000000000000000", "blocked signals");
    Ok(())
}

fn init_is_process_one(lab: &mut Lab) -> Outcome {
    same!(lab.run_sh("echo $$")?, "1\n", "pid");
    Ok(())
}

fn root_is_read_only(lab: &mut Lab) -> Outcome {
    lab.set("/root/readonly", true);
    let out = lab.sh("touch /file").run()?;
    ensure!(out.code != 0 && out.stderr.contains("Read-only file system"), "stderr: {}", out.stderr);
    Ok(())
}

fn root_is_writable(lab: &mut Lab) -> Outcome {
    lab.set("/root/readonly", false).run_sh("echo text > /file")?;
    same!(fs::read_to_string(lab.rootfs().join("file"))?, "text\n", "the file on the host");
    lab.remove("/root/readonly").run_sh("echo more >> /file")?;
    Ok(())
}

fn root_is_the_rootfs_and_nothing_above(lab: &mut Lab) -> Outcome {
    let inode = fs::metadata(lab.rootfs())?.ino();
    let out =
        lab.run_sh("stat -c %i / /.. /../../..; awk '$5 == \"/\"' /proc/self/mountinfo | wc -l; ls /proc/1/root/")?;
    let lines: Vec<&str> = out.lines().collect();
    let inode = inode.to_string();
    same!(lines[..4], [inode.as_str(), &inode, &inode, "1"], "inodes of the root and mounts on it");
    Ok(())
}

fn hostname(lab: &mut Lab) -> Outcome {
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    lab.set("/hostname", "within.example");
    same!(lab.run_sh("hostname")?, "within.example\n", "hostname");
    same!(fs::read_to_string("/proc/sys/kernel/hostname")?, host, "hostname of the host");
    Ok(())
}

fn hostname_needs_a_namespace(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.without_namespace("uts");
    })?;
    Ok(())
}

fn domainname(lab: &mut Lab) -> Outcome {
    lab.set("/domainname", "within.example");
    same!(lab.run_sh("cat /proc/sys/kernel/domainname")?, "within.example\n", "domain name");
    Ok(())
}

fn personality_linux32(lab: &mut Lab) -> Outcome {
    lab.set("/linux/personality", json!({ "domain": "LINUX32" }));
    same!(lab.run_sh("cat /proc/self/personality")?, "00000008\n", "personality");
    Ok(())
}

fn personality_absent_is_linux(lab: &mut Lab) -> Outcome {
    same!(lab.run_sh("cat /proc/self/personality")?, "00000000\n", "personality");
    Ok(())
}

fn personality_of_unknown_domain_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/personality", json!({ "domain": "MINIX" }));
    })?;
    Ok(())
}
