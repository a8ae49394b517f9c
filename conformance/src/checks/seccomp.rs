//! Seccomp: what each action, operator and flag does to a system call that busybox makes.

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;
use crate::socket::Receiver;

/// The native architecture's name in a profile.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };

/// An action on mkdir, and what the shell then says: its status for the command and a part of its message.
const ACTIONS: &[(&str, i32, &str)] = &[
    ("SCMP_ACT_ALLOW", 0, ""),
    ("SCMP_ACT_LOG", 0, ""),
    ("SCMP_ACT_ERRNO", 1, "Operation not permitted"),
    ("SCMP_ACT_TRACE", 1, "Function not implemented"),
    ("SCMP_ACT_TRAP", 128 + 31, "Bad system call"),
    ("SCMP_ACT_KILL", 128 + 31, "Bad system call"),
    ("SCMP_ACT_KILL_THREAD", 128 + 31, "Bad system call"),
    ("SCMP_ACT_KILL_PROCESS", 128 + 31, "Bad system call"),
];

const BIG: u64 = 1 << 32;

/// An operator on the length given to ftruncate, its values, lengths that match and lengths that do not.
type Operator = (&'static str, u64, u64, &'static [u64], &'static [u64]);

const OPERATORS: &[Operator] = &[
    ("SCMP_CMP_EQ", BIG + 5, 0, &[BIG + 5], &[5, BIG, BIG + 6, 2 * BIG + 5]),
    ("SCMP_CMP_NE", BIG + 5, 0, &[5, BIG, BIG + 6], &[BIG + 5]),
    ("SCMP_CMP_LT", BIG + 5, 0, &[0, 6, BIG + 4], &[BIG + 5, BIG + 6, 2 * BIG]),
    ("SCMP_CMP_LE", BIG + 5, 0, &[0, 6, BIG + 5], &[BIG + 6, 2 * BIG]),
    ("SCMP_CMP_GE", BIG + 5, 0, &[BIG + 5, BIG + 6, 2 * BIG], &[0, 6, BIG + 4]),
    ("SCMP_CMP_GT", BIG + 5, 0, &[BIG + 6, 2 * BIG], &[0, 6, BIG + 5]),
    ("SCMP_CMP_MASKED_EQ", BIG + 0xf, BIG + 5, &[BIG + 5, BIG + 0x15, 3 * BIG + 5], &[5, BIG + 6, 2 * BIG + 5]),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "seccomp",
        absent_is_no_filter "config-linux.md#seccomp",
        filter_is_loaded "config-linux.md#seccomp",
        default_action_errno "config-linux.md#seccomp",
        errno_ret "config-linux.md#seccomp",
        trace_ret_without_tracer "config-linux.md#seccomp",
        without_no_new_privileges "config-linux.md#seccomp",
        unprivileged_user "config-linux.md#seccomp",
        applies_to_exec "runc: exec",
        rules_of_one_call_are_alternatives "config-linux.md#seccomp",
        arguments_of_one_rule_must_all_match "config-linux.md#seccomp",
        unknown_call_is_ignored "config-linux.md#seccomp",
        unknown_action_is_refused "config-linux.md#seccomp",
        unknown_operator_is_refused "config-linux.md#seccomp",
        unknown_architecture_is_refused "config-linux.md#seccomp",
        unknown_flag_is_refused "config-linux.md#seccomp",
        flag_log "config-linux.md#seccomp",
        flag_spec_allow "config-linux.md#seccomp",
        flag_tsync "config-linux.md#seccomp",
        architectures_absent_is_native "config-linux.md#seccomp",
        several_architectures "config-linux.md#seccomp",
        notify_sends_the_listener "config-linux.md#containerprocessstate",
        notify_without_a_listener_is_refused "config-linux.md#seccomp",
        notify_with_nobody_listening_is_refused "config-linux.md#seccomp",
    );
    checks.extend(ACTIONS.iter().map(|&(action, status, message)| {
        Check::new(format!("seccomp::{action}"), "config-linux.md#seccomp", move |lab: &mut Lab| {
            let (got, told) = mkdir(lab, profile(json!({ "action": action })))?;
            ensure!(got == status && told.contains(message), "mkdir under {action}: status {got}, {told:?}");
            // What the action lets through must have passed a filter.
            ensure!(action == "SCMP_ACT_ALLOW" || seccomp_mode(lab)? == "2", "no filter is loaded");
            Ok(())
        })
    }));
    checks.extend(OPERATORS.iter().map(|&(operator, value, two, matching, others)| {
        Check::new(format!("seccomp::{operator}"), "config-linux.md#seccomp", move |lab: &mut Lab| {
            let argument = json!({ "index": 1, "value": value, "valueTwo": two, "op": operator });
            let lengths = [matching, others].concat();
            let denied = truncations(lab, json!([rule(json!([argument]))]), &lengths)?;
            same!(denied, matching, "lengths that {operator} {value:#x} {two:#x} denies");
            Ok(())
        })
    }));
    checks
}

/// A profile that allows everything but the mkdir calls, for which it does what `rule` says.
fn profile(rule: Value) -> Value {
    let mut rule = rule;
    rule["names"] = json!(["mkdir", "mkdirat"]);
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [ARCH], "syscalls": [rule] })
}

fn rule(args: Value) -> Value {
    json!({ "names": ["ftruncate"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args })
}

/// The status and the words of mkdir under a profile.
fn mkdir(lab: &mut Lab, profile: Value) -> Result<(i32, String), Failure> {
    lab.set("/linux/seccomp", profile);
    let out = lab.sh("mkdir /dev/shm/x; echo $?").run()?.ok("run")?;
    Ok((out.stdout.trim().parse()?, out.stderr))
}

/// Which of the lengths ftruncate refuses under the rules.
fn truncations(lab: &mut Lab, rules: Value, lengths: &[u64]) -> Result<Vec<u64>, Failure> {
    lab.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [ARCH], "syscalls": rules }));
    let list: Vec<String> = lengths.iter().map(u64::to_string).collect();
    let script =
        format!("for n in {}; do truncate -s $n /dev/shm/f 2>/dev/null || echo $n; done; true", list.join(" "));
    Ok(lab.run_sh(&script)?.lines().flat_map(str::parse).collect())
}

fn seccomp_mode(lab: &mut Lab) -> Result<String, Failure> {
    lab.run_sh("grep '^Seccomp:' /proc/self/status | tr -dc 0-9")
}

fn absent_is_no_filter(lab: &mut Lab) -> Outcome {
    same!(seccomp_mode(lab)?, "0", "seccomp mode");
    Ok(())
}

fn filter_is_loaded(lab: &mut Lab) -> Outcome {
    lab.set("/linux/seccomp", profile(json!({ "action": "SCMP_ACT_ERRNO" })));
    same!(seccomp_mode(lab)?, "2", "seccomp mode");
    Ok(())
}

/// What a busybox shell and its runtime's last steps need on any architecture; names that do not exist are ignored.
const NEEDED: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fork",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setpgid",
    "setresgid",
    "setresuid",
    "setsid",
    "setuid",
    "sigaltstack",
    "stat",
    "statx",
    "tgkill",
    "umask",
    "uname",
    "unlink",
    "unlinkat",
    "vfork",
    "wait4",
    "waitid",
    "write",
    "writev",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_create1",
    "eventfd2",
    "sendmsg",
    "recvmsg",
    "sendto",
    "recvfrom",
    "keyctl",
    "getsockopt",
    "kill",
    "seccomp",
    "fchown",
    "mincore",
];

fn default_action_errno(lab: &mut Lab) -> Outcome {
    let allow = json!({ "names": NEEDED, "action": "SCMP_ACT_ALLOW" });
    let mut profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": [ARCH], "syscalls": [allow] });
    let (status, told) = mkdir(lab, profile.clone())?;
    ensure!(status == 1 && told.contains("Operation not permitted"), "status {status}, {told:?}");
    profile["defaultErrnoRet"] = json!(28);
    let (status, told) = mkdir(lab, profile)?;
    ensure!(status == 1 && told.contains("No space left"), "with defaultErrnoRet: status {status}, {told:?}");
    Ok(())
}

fn errno_ret(lab: &mut Lab) -> Outcome {
    let (status, told) = mkdir(lab, profile(json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 28 })))?;
    ensure!(status == 1 && told.contains("No space left"), "status {status}, {told:?}");
    Ok(())
}

fn trace_ret_without_tracer(lab: &mut Lab) -> Outcome {
    let (status, told) = mkdir(lab, profile(json!({ "action": "SCMP_ACT_TRACE", "errnoRet": 7 })))?;
    ensure!(status == 1 && told.contains("Function not implemented"), "status {status}, {told:?}");
    Ok(())
}

fn denies(lab: &mut Lab) -> Outcome {
    let (status, told) = mkdir(lab, profile(json!({ "action": "SCMP_ACT_ERRNO" })))?;
    ensure!(status == 1 && told.contains("Operation not permitted"), "status {status}, {told:?}");
    Ok(())
}

fn without_no_new_privileges(lab: &mut Lab) -> Outcome {
    lab.set("/process/noNewPrivileges", false);
    denies(lab)
}

fn unprivileged_user(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 }));
    denies(lab)?;
    lab.set("/process/noNewPrivileges", false);
    denies(lab)
}

fn applies_to_exec(lab: &mut Lab) -> Outcome {
    lab.set("/linux/seccomp", profile(json!({ "action": "SCMP_ACT_ERRNO" }))).up_idle()?;
    let out = lab.exec(&[], &["mkdir", "/dev/shm/x"])?.exits(1, "mkdir by exec")?;
    ensure!(out.stderr.contains("Operation not permitted"), "stderr: {}", out.stderr);
    Ok(())
}

fn equal(index: u32, value: u64) -> Value {
    json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" })
}

fn rules_of_one_call_are_alternatives(lab: &mut Lab) -> Outcome {
    let rules = json!([rule(json!([equal(1, 10)])), rule(json!([equal(1, 20)]))]);
    same!(truncations(lab, rules, &[10, 15, 20])?, [10, 20], "lengths refused");
    Ok(())
}

fn arguments_of_one_rule_must_all_match(lab: &mut Lab) -> Outcome {
    // The file is descriptor 3 of truncate.
    let rules = json!([rule(json!([equal(0, 3), equal(1, 20)])), rule(json!([equal(0, 99), equal(1, 30)]))]);
    same!(truncations(lab, rules, &[10, 20, 30])?, [20], "lengths refused");
    Ok(())
}

fn unknown_call_is_ignored(lab: &mut Lab) -> Outcome {
    let mut profile = profile(json!({ "action": "SCMP_ACT_ERRNO" }));
    profile["syscalls"]
        .as_array_mut()
        .expect("an array")
        .push(json!({ "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" }));
    let (status, _) = mkdir(lab, profile)?;
    same!(status, 1, "status of mkdir");
    Ok(())
}

fn refused(lab: &mut Lab, pointer: &str, value: Value) -> Outcome {
    lab.set("/linux/seccomp", profile(json!({ "action": "SCMP_ACT_ERRNO" })));
    lab.refused(|lab| {
        lab.set(pointer, value);
    })?;
    Ok(())
}

fn unknown_action_is_refused(lab: &mut Lab) -> Outcome {
    refused(lab, "/linux/seccomp/syscalls/0/action", json!("SCMP_ACT_NONE"))
}

fn unknown_operator_is_refused(lab: &mut Lab) -> Outcome {
    refused(lab, "/linux/seccomp/syscalls/0/args", json!([{ "index": 1, "value": 1, "op": "SCMP_CMP_NONE" }]))
}

fn unknown_architecture_is_refused(lab: &mut Lab) -> Outcome {
    refused(lab, "/linux/seccomp/architectures/-", json!("SCMP_ARCH_Z80"))
}

fn unknown_flag_is_refused(lab: &mut Lab) -> Outcome {
    refused(lab, "/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NONE"]))
}

fn with_flag(lab: &mut Lab, flag: &str) -> Outcome {
    let mut profile = profile(json!({ "action": "SCMP_ACT_ERRNO" }));
    profile["flags"] = json!([flag]);
    let (status, told) = mkdir(lab, profile)?;
    ensure!(status == 1 && told.contains("Operation not permitted"), "status {status}, {told:?}");
    Ok(())
}

fn flag_log(lab: &mut Lab) -> Outcome {
    with_flag(lab, "SECCOMP_FILTER_FLAG_LOG")
}

fn flag_spec_allow(lab: &mut Lab) -> Outcome {
    with_flag(lab, "SECCOMP_FILTER_FLAG_SPEC_ALLOW")
}

fn flag_tsync(lab: &mut Lab) -> Outcome {
    with_flag(lab, "SECCOMP_FILTER_FLAG_TSYNC")
}

fn architectures_absent_is_native(lab: &mut Lab) -> Outcome {
    let mut profile = profile(json!({ "action": "SCMP_ACT_ERRNO" }));
    profile.as_object_mut().expect("an object").remove("architectures");
    let (status, _) = mkdir(lab, profile)?;
    same!(status, 1, "status of mkdir");
    Ok(())
}

fn several_architectures(lab: &mut Lab) -> Outcome {
    let mut profile = profile(json!({ "action": "SCMP_ACT_ERRNO" }));
    let more =
        if ARCH.ends_with("AARCH64") { ["SCMP_ARCH_ARM", "SCMP_ARCH_ARM"] } else { ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] };
    profile["architectures"] = json!([ARCH, more[0], more[1]]);
    let (status, _) = mkdir(lab, profile)?;
    same!(status, 1, "status of mkdir");
    Ok(())
}

fn listening(lab: &Lab) -> Value {
    let mut profile = profile(json!({ "action": "SCMP_ACT_NOTIFY" }));
    profile["listenerPath"] = json!(lab.dir.join("agent.sock").to_string_lossy());
    profile["listenerMetadata"] = json!("for the agent");
    profile
}

fn notify_sends_the_listener(lab: &mut Lab) -> Outcome {
    let receiver = Receiver::bind(&lab.dir.join("agent.sock"))?;
    lab.set("/linux/seccomp", listening(lab)).set("/annotations", json!({ "a": "b" })).up_idle()?;
    let message = receiver.message()?;
    let state: Value = serde_json::from_slice(&message.bytes)?;
    let names = state["fds"].as_array().cloned().unwrap_or_default();
    same!(names.len(), message.fds.len(), "descriptors sent, by the names of {state}");
    let at =
        names.iter().position(|name| name == "seccompFd").ok_or_else(|| Failure(format!("no seccompFd: {state}")))?;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&message.fds[at])))?;
    ensure!(link.to_string_lossy().contains("seccomp notify"), "the descriptor is {}", link.display());
    same!(state["pid"], lab.state()?["pid"], "pid");
    same!(state["metadata"], "for the agent", "metadata");
    same!(state["state"]["id"], lab.id, "id in the state");
    same!(state["state"]["bundle"], lab.bundle().to_string_lossy().into_owned(), "bundle in the state");
    same!(state["state"]["annotations"]["a"], "b", "annotation in the state");
    ensure!(state["ociVersion"].is_string(), "ociVersion: {state}");
    Ok(())
}

fn notify_without_a_listener_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/seccomp", profile(json!({ "action": "SCMP_ACT_NOTIFY" })));
    })?;
    Ok(())
}

fn notify_with_nobody_listening_is_refused(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).run()?.ok("run before the edit")?;
    let listening = listening(lab);
    let out = lab.set("/linux/seccomp", listening).run()?;
    ensure!(out.code != 0, "run succeeds with nobody at listenerPath");
    lab.nothing_left("a refused run")
}
