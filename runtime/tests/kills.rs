//! Whoever is killed, and when: every process of a command at each of its messages and at moments between, and the host is looked at
//! afterwards. Needs root.
#![cfg(all(feature = "cli", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::print_stderr, reason = "how much was tried belongs to the result")]

mod bundle;
mod tracer;

use bundle::{Bundle, ID, alive, mountinfo, private_mounts, soon};
use nix::libc;
use tracer::trials::{after_failure, as_it_was, clean, failed_clearly, moments, sample, traced, try_all};
use tracer::{Call, Fault};

/// The first container makes mount points in the root file system, which the others find: they do not make the same calls.
fn warm_up(b: &Bundle) {
    assert!(b.run("create", &[ID]).ok());
    b.delete().unwrap();
}

/// Nobody cleans up behind SIGKILL: the init ends by itself, or waits at its gate, and `delete --force` removes the rest.
#[test]
fn a_killed_create_can_be_deleted() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
    warm_up(&b);
    for verb in ["create", "run"] {
        let (seen, answer) = traced(&b, verb, &[ID], None, None);
        assert!(answer.ok(), "{answer:?}");
        b.delete().unwrap();
        try_all(&format!("SIGKILL of {verb}"), &moments(&seen.calls, 0, 100), |call, _| {
            let (seen, answer) = traced(&b, verb, &[ID], None, Some((call, Fault::Kill)));
            if answer.code.is_some() && seen.hit {
                return Err(format!("was not killed: {answer:?}"));
            }
            let ended = || seen.pids.iter().all(|pid| !alive(*pid));
            // Killed at the very end, after the container was made, it is there and can be used.
            let made = || b.run("state", &[ID]).stdout.contains("\"created\"");
            if !soon(|| ended() || (verb == "create" && made())) {
                return Err(format!("an init without its runtime lives on: {:?}", seen.pids));
            }
            b.delete()?;
            clean(&b, &mounts, &seen.pids).map(|()| false)
        });
    }
}

/// What comes after a container was made speaks to nobody whom it could leave waiting; killed anywhere, the next command takes all away.
#[test]
fn a_killed_start_kill_or_delete_can_be_followed_by_a_delete() {
    private_mounts();
    let b = Bundle::new();
    b.write(&b.sleeping());
    let mounts = mountinfo();
    warm_up(&b);
    for (verb, args) in [("start", &[ID][..]), ("kill", &[ID, "KILL"]), ("delete", &[ID])] {
        let after_create = |fault| {
            assert!(b.run("create", &[ID]).ok());
            let init = b.processes();
            let (mut seen, answer) = traced(&b, verb, args, None, fault);
            seen.pids.extend(init);
            (seen, answer)
        };
        let (seen, answer) = after_create(None);
        assert!(answer.ok(), "{answer:?}");
        b.delete().unwrap();
        try_all(&format!("SIGKILL of {verb}"), &sample(&seen.calls, 0..=0, usize::MAX), |call, _| {
            let (seen, answer) = after_create(Some((call, Fault::Kill)));
            if answer.code.is_some() && seen.hit {
                return Err(format!("was not killed: {answer:?}"));
            }
            b.delete()?;
            clean(&b, &mounts, &seen.pids).map(|()| false)
        });
    }
}

/// An init that is killed, by the OOM killer say, is told as that, and all of it is removed.
#[test]
fn a_create_whose_init_is_killed_leaves_nothing() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
    warm_up(&b);
    let (seen, answer) = traced(&b, "create", &[ID], None, None);
    assert!(answer.ok(), "{answer:?}");
    b.delete().unwrap();
    try_all("SIGKILL of the init", &moments(&seen.calls, 1, 100), |call, _| {
        let (seen, answer) = traced(&b, "create", &[ID], None, Some((call, Fault::Kill)));
        if answer.ok() {
            // It was at its gate already.
            b.delete()?;
            return clean(&b, &mounts, &seen.pids).map(|()| true);
        }
        if !answer.stderr.contains("was killed by SIGKILL during set-up") {
            return Err(format!("does not say so: {answer:?}"));
        }
        after_failure(&b, &mounts, call, &seen, &answer)
    });
}

/// Where a namespace is joined beside a user namespace, one more process makes the init; killed at any moment it must not
/// leave its runtime waiting for word of a child that nobody knows of.
#[test]
fn a_create_whose_joining_process_is_killed_leaves_nothing() {
    private_mounts();
    let b = Bundle::new();
    let holder = Holder::new();
    let mut config = b.docker();
    let map = serde_json::json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|one| one["type"] != "uts");
    let uts = format!("/proc/{}/ns/uts", holder.0.id());
    namespaces.extend([serde_json::json!({ "type": "uts", "path": uts }), serde_json::json!({ "type": "user" })]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    config["linux"].as_object_mut().unwrap().remove("sysctl");
    // The name is that of a namespace which another user namespace owns.
    config.as_object_mut().unwrap().remove("hostname");
    b.write(&config);
    let mounts = mountinfo();
    warm_up(&b);
    let (seen, answer) = traced(&b, "create", &[ID], None, None);
    assert!(answer.ok(), "{answer:?}");
    b.delete().unwrap();
    // The runtime, the joining process, the init.
    for (role, who) in [(1, "the joining process"), (2, "its init"), (0, "its runtime")] {
        let own: Vec<Call> = seen.calls.iter().filter(|call| call.role == role).copied().collect();
        // What the init does behind its last word is seen as long as its runtime lives, which is a matter of luck.
        let last = own.iter().rposition(|call| call.number == libc::SYS_sendmsg).unwrap_or(own.len() - 1);
        let calls = moments(&own[..=if role == 2 { last } else { own.len() - 1 }], role, 30);
        let joins = calls.iter().any(|call| call.number == libc::SYS_setns);
        assert!(role != 1 || joins, "process 1 joins nothing: {calls:?}");
        try_all(&format!("SIGKILL of {who}"), &calls, |call, _| {
            let (seen, answer) = traced(&b, "create", &[ID], None, Some((call, Fault::Kill)));
            if role == 0 || answer.ok() {
                let ended = || seen.pids.iter().all(|pid| !alive(*pid));
                let made = || b.run("state", &[ID]).stdout.contains("\"created\"");
                if !soon(|| ended() || made()) {
                    return Err(format!("processes live on: {:?}", seen.pids));
                }
                b.delete()?;
                return clean(&b, &mounts, &seen.pids).map(|()| answer.ok());
            }
            after_failure(&b, &mounts, call, &seen, &answer)
        });
    }
}

/// A process with a UTS namespace to join.
struct Holder(std::process::Child);

impl Holder {
    #[expect(clippy::disallowed_methods, reason = "a program, and a thread that is not the tracer's")]
    fn new() -> Holder {
        // The tracer waits for all children of its thread: this one is to be another's.
        let begin = || {
            let mut holder = std::process::Command::new("unshare");
            let words = ["--uts", "sh", "-c", "echo ready; exec sleep 1000"];
            let mut holder = holder.args(words).stdout(std::process::Stdio::piped()).spawn().unwrap();
            std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
            Holder(holder)
        };
        std::thread::spawn(begin).join().unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever of an exec is killed, and when: the container runs on as it was, and nobody of the exec does.
#[test]
fn a_killed_exec_leaves_the_container_alone() {
    private_mounts();
    let b = Bundle::new();
    b.write(&b.sleeping());
    assert!(b.run("create", &[ID]).ok());
    assert!(b.run("start", &[ID]).ok());
    let init = b.processes();
    let mounts = mountinfo();
    let exec = |fault| traced(&b, "exec", &[ID, "echo", "works"], None, fault);
    let (seen, answer) = exec(None);
    assert!(answer.ok() && answer.stdout == "works\n", "{answer:?}");
    for (role, who) in [(0, "exec"), (1, "the joining process")] {
        try_all(&format!("SIGKILL of {who}"), &moments(&seen.calls, role, 30), |call, _| {
            let (seen, answer) = exec(Some((call, Fault::Kill)));
            // Behind its last word it is the program that was killed.
            if role == 1 && answer.code != Some(128 + 9) {
                failed_clearly(call, &answer)?;
            }
            as_it_was(&b, &mounts, &seen, &init).map(|()| answer.ok())
        });
    }
    b.delete().unwrap();
}
