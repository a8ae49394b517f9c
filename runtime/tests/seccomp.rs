//! Compiled profiles before the real kernel. A filter binds the thread that sets it, so each test has a thread to lose.
//! Needs root, as a filter without no_new_privs does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use orlop::plan::seccomp::compile;
use orlop_sys::bpf::{seccomp_action_avail, seccomp_set_filter};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Error;
use std::os::fd::OwnedFd;

/// Runs `test` in a thread under the profile; gives what it gives and the listener.
fn under<T: Send>(profile: Value, test: impl FnOnce() -> T + Send) -> (T, Option<OwnedFd>) {
    let program = compile(&serde_json::from_value(profile).unwrap()).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let listener = seccomp_set_filter(&program.filter, program.flags).unwrap();
            assert_eq!(listener.is_some(), program.notify);
            (test(), listener)
        });
        thread.join().unwrap()
    })
}

fn errno<T>(result: Result<T, Error>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

#[test]
fn calls_end_as_the_profile_says() {
    let dir = tempfile::tempdir().unwrap();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["unlink", "unlinkat"], "action": "SCMP_ACT_LOG"},
            {"names": ["ftruncate"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42,
                "args": [{"index": 1, "op": "SCMP_CMP_GT", "value": 0x1_0000_0000_u64}]},
            {"names": ["ftruncate"], "action": "SCMP_ACT_ERRNO", "errnoRet": 43,
                "args": [{"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0xff_0000_00ff_u64, "valueTwo": 7}]},
        ]
    });
    let path = |name: &str| dir.path().join(name);
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path("file")).unwrap();
    let (got, listener) = under(profile, || {
        [
            errno(fs::create_dir(path("dir"))),
            errno(std::os::unix::fs::symlink("x", path("link"))),
            errno(file.set_len(0x1_0000_0000)),
            errno(file.set_len(0x1_0000_0001)),
            errno(file.set_len(0x1007)),
            errno(file.set_len(0x1008)),
            errno(fs::remove_file(path("file"))),
        ]
    });
    assert_eq!(got, [1, 95, 0, 42, 43, 0, 0]);
    assert!(listener.is_none());
    // The filter stayed in its thread.
    fs::create_dir(path("dir")).unwrap();
}

/// On arm64 the calls that end a thread have higher numbers than any that std makes without a second way.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_newer_than_the_profile_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": ["brk", "close", "exit", "futex", "madvise", "mmap",
            "mprotect", "munmap", "rt_sigprocmask", "sched_yield", "sigaltstack", "write"]}]
    });
    // mkdir (83) is below futex (202), the last that the profile names; linkat (265) is above it.
    let (got, _) =
        under(profile, || [errno(fs::create_dir(path("dir"))), errno(fs::hard_link(path("file"), path("link")))]);
    assert_eq!(got, [1, 38]);
}

#[test]
fn a_notifying_profile_gives_a_listener() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
    });
    let ((), listener) = under(profile, || ());
    assert!(listener.is_some());
}

#[test]
fn the_kernel_says_which_actions_it_knows() {
    for action in [0x8000_0000, 0, 0x0003_0000, 0x0005_0000, 0x7fc0_0000, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000] {
        assert!(seccomp_action_avail(action).unwrap(), "{action:#x}");
    }
    assert!(!seccomp_action_avail(0x1234_0000).unwrap());
}
