//! Whatever fails, nothing is left behind: every system call of a command is failed in its turn, and the host is looked
//! at afterwards. Needs root.
#![cfg(all(feature = "cli", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::print_stderr, reason = "how much was tried belongs to the result")]

mod bundle;
mod tracer;

use bundle::{Bundle, ID, mountinfo, private_mounts, soon, unclear};
use nix::libc;
use std::fs;
use tracer::trials::{after_failure, as_it_was, clean, failed_clearly, sample, traced, try_all};
use tracer::{Call, Fault};

/// Whether the created container works. A fault of the init behind its gate, after `create` has ended, is told by `start`.
fn started(b: &Bundle, call: Option<Call>) -> Result<bool, String> {
    let answer = b.run("start", &[ID]);
    let out = b.path("create.out");
    if !answer.ok() && call.is_some_and(|call| call.role == 1) && unclear(&answer.stderr).is_none() {
        return Ok(false);
    }
    match answer.ok() && soon(|| fs::read_to_string(&out).is_ok_and(|said| said == "works\n")) {
        true => Ok(true),
        false => Err(format!("created, but does not work: {answer:?}")),
    }
}

#[test]
fn a_failed_create_leaves_nothing() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
    let create = |fault| {
        let got = traced(&b, "create", &[ID], None, fault);
        fs::rename(b.path("stdout"), b.path("create.out")).unwrap();
        got
    };
    let (seen, answer) = create(None);
    assert!(answer.ok(), "{answer:?}");
    assert!(started(&b, None).unwrap());
    b.delete().unwrap();
    clean(&b, &mounts, &seen.pids).unwrap();
    // A tracer may hear of one process by its parent and by itself.
    let processes: std::collections::BTreeSet<i32> = seen.pids.iter().copied().collect();
    assert_eq!(processes.len(), 5, "the runtime, the init, and hooks: {:?}", seen.pids);

    try_all("create", &sample(&seen.calls, 0..=9, 700), |call, errno| {
        let (seen, answer) = create(Some((call, Fault::Error(errno))));
        if answer.ok() {
            let works = started(&b, Some(call));
            b.delete()?;
            return clean(&b, &mounts, &seen.pids).and(works);
        }
        after_failure(&b, &mounts, call, &seen, &answer)
    });
}

#[test]
fn a_failed_run_leaves_nothing() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
    let (seen, answer) = traced(&b, "run", &[ID], None, None);
    assert!(answer.ok() && answer.stdout == "works\n", "{answer:?}");
    clean(&b, &mounts, &seen.pids).unwrap();
    try_all("run", &sample(&seen.calls, 0..=9, 300), |call, errno| {
        let (seen, answer) = traced(&b, "run", &[ID], None, Some((call, Fault::Error(errno))));
        if answer.ok() {
            if answer.stdout != "works\n" {
                return Err(format!("does not work: {answer:?}"));
            }
            return clean(&b, &mounts, &seen.pids).map(|()| true);
        }
        if answer.stdout == "works\n" {
            // The program has run: what failed after that may leave the rest to `delete`.
            failed_clearly(call, &answer)?;
            b.delete()?;
            return clean(&b, &mounts, &seen.pids).map(|()| false);
        }
        after_failure(&b, &mounts, call, &seen, &answer)
    });
}

#[test]
fn a_failed_exec_leaves_the_container_alone() {
    private_mounts();
    let b = Bundle::new();
    let mut config = b.sleeping();
    // Another group than ours: else it would not be set.
    config["process"]["user"]["gid"] = serde_json::json!(7);
    b.write(&config);
    assert!(b.run("create", &[ID]).ok());
    assert!(b.run("start", &[ID]).ok());
    let init = b.processes();
    assert_eq!(init.len(), 1);
    let mounts = mountinfo();
    let exec = |fault| traced(&b, "exec", &[ID, "echo", "works"], None, fault);
    let (seen, answer) = exec(None);
    assert!(answer.ok() && answer.stdout == "works\n", "{answer:?}");
    let mut calls = sample(&seen.calls, 0..=9, 400);
    // Whether the process that fails here has our word unread, which hides its own, is a matter of luck.
    let hears = |call: &&Call| call.role > 0 && call.number == libc::SYS_recvmsg;
    calls.extend(seen.calls.iter().filter(hears).flat_map(|call| [*call; 25]));
    try_all("exec", &calls, |call, errno| {
        let (seen, answer) = exec(Some((call, Fault::Error(errno))));
        match answer.ok() {
            true if answer.stdout != "works\n" => return Err(format!("does not work: {answer:?}")),
            true => {}
            false => failed_clearly(call, &answer)?,
        }
        as_it_was(&b, &mounts, &seen, &init).map(|()| answer.ok())
    });
    b.delete().unwrap();
}

/// The pid of the init that waits at its gate.
fn init(b: &Bundle) -> i32 {
    let state: serde_json::Value = serde_json::from_str(&b.run("state", &[ID]).stdout).unwrap();
    state["pid"].as_i64().unwrap() as i32
}

fn create(b: &Bundle) -> i32 {
    let answer = b.run("create", &[ID]);
    assert!(answer.ok(), "{answer:?}");
    fs::rename(b.path("stdout"), b.path("create.out")).unwrap();
    init(b)
}

/// Faults of the command, and of the init behind the gate.
#[test]
fn a_failed_start_can_be_deleted() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
    let pid = create(&b);
    let (seen, answer) = traced(&b, "start", &[ID], Some(pid), None);
    assert!(answer.ok(), "{answer:?}");
    b.delete().unwrap();
    let mut calls = sample(&seen.calls, 0..=0, 100);
    calls.extend(sample(&seen.calls, 1..=9, 100));
    try_all("start", &calls, |call, errno| {
        let pid = create(&b);
        let (seen, answer) = traced(&b, "start", &[ID], Some(pid), Some((call, Fault::Error(errno))));
        let result = match answer.ok() {
            true if soon(|| fs::read_to_string(b.path("create.out")).is_ok_and(|said| said == "works\n")) => Ok(true),
            true => Err(format!("started, but does not work: {answer:?}")),
            false => failed_clearly(call, &answer).map(|()| false),
        };
        b.delete()?;
        clean(&b, &mounts, &seen.pids)?;
        result
    });
}

#[test]
fn a_failed_delete_can_be_repeated() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
    let pid = create(&b);
    let (seen, answer) = traced(&b, "delete", &[ID], None, None);
    assert!(answer.ok(), "{answer:?}");
    clean(&b, &mounts, &[pid]).unwrap();
    try_all("delete", &sample(&seen.calls, 0..=9, 200), |call, errno| {
        let pid = create(&b);
        let (seen, answer) = traced(&b, "delete", &[ID], None, Some((call, Fault::Error(errno))));
        let pids: Vec<i32> = seen.pids.iter().copied().chain([pid]).collect();
        let result = match answer.ok() {
            true => clean(&b, &mounts, &pids).map(|()| true),
            false => failed_clearly(call, &answer).map(|()| false),
        };
        b.delete()?;
        clean(&b, &mounts, &pids)?;
        result
    });
}
