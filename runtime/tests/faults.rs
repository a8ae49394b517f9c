//! Whatever fails, nothing is left behind: every system call of a command is failed in its turn, and the host is looked
//! at afterwards. Needs root.
#![cfg(all(feature = "cli", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::print_stderr, reason = "how much was tried belongs to the result")]

mod bundle;
mod tracer;

use bundle::{Answer, Bundle, ID, alive, mountinfo, private_mounts, soon, unclear};
use nix::libc;
use orlop_sys::Errno;
use std::cell::Cell;
use std::fs;
use std::time::Instant;
use tracer::{Call, Fault, Seen, trace};

/// Calls that end a process or come back from a signal, close(2), which closes the fd whatever it answers, and those of
/// Rust's start-up, where no code of ours is running yet.
const NOT_OURS: &[i64] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_close,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_getrandom,
    libc::SYS_mprotect,
];

/// Without memory for its heap a Rust program aborts (alloc::handle_alloc_error): it is treated like one that was killed.
const HEAP: &[i64] = &[libc::SYS_brk, libc::SYS_mmap, libc::SYS_mremap];

/// The error of each nth fault: all of them are clean failures, EINTR and EAGAIN may be tried again as well.
const ERRORS: [Errno; 8] = [
    Errno::ENOMEM,
    Errno::ENOMEM,
    Errno::EPERM,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::ENOSPC,
    Errno::ENOMEM,
    Errno::EAGAIN,
];

/// At most `most` of those of `roles`, evenly.
fn sample(calls: &[Call], roles: std::ops::RangeInclusive<usize>, most: usize) -> Vec<Call> {
    let ours = |call: &&Call| roles.contains(&call.role) && !NOT_OURS.contains(&call.number);
    let calls: Vec<Call> = calls.iter().filter(ours).copied().collect();
    let step = calls.len().div_ceil(most).max(1);
    calls.into_iter().step_by(step).collect()
}

/// Every call of `roles` by which one half of the runtime speaks to the other, and the one after it: before a message, and behind it.
fn messages(calls: &[Call], roles: std::ops::RangeInclusive<usize>) -> Vec<Call> {
    let mut found = Vec::new();
    for role in roles {
        let own: Vec<Call> = calls.iter().filter(|call| call.role == role).copied().collect();
        let speaks = |call: &Call| matches!(call.number, libc::SYS_sendmsg | libc::SYS_recvmsg);
        let at = own.iter().enumerate().filter(|(_, call)| speaks(call)).map(|(i, _)| i);
        found.extend(at.flat_map(|i| own.iter().skip(i).take(2).copied()));
    }
    found.retain(|call| !NOT_OURS.contains(&call.number));
    found.dedup();
    assert!(!found.is_empty(), "the halves of the runtime do not speak: {calls:?}");
    found
}

/// Moments at which a process is killed: at every message, and at `most` others, evenly.
fn moments(calls: &[Call], role: usize, most: usize) -> Vec<Call> {
    let mut all = sample(calls, role..=role, most);
    all.extend(messages(calls, role..=role));
    all.sort_unstable();
    all.dedup();
    all
}

/// Tries a fault for each of the calls, until the time is over, and reports all that is wrong at once.
fn try_all(what: &str, calls: &[Call], mut one: impl FnMut(Call, Errno) -> Result<bool, String>) {
    let begin = Instant::now();
    let (mut hits, mut survived, mut wrong) = (0, 0, Vec::new());
    for (i, call) in calls.iter().enumerate() {
        let errno = ERRORS[i % ERRORS.len()];
        match one(*call, errno) {
            Ok(succeeded) => {
                hits += 1;
                survived += usize::from(succeeded);
            }
            Err(why) => wrong.push(format!("{errno:?} of {call}: {why}")),
        }
    }
    let missed = MISSED.take();
    eprintln!(
        "{what}: {} faults, {missed} not reached, {survived} without consequence, {:.1?}",
        hits - missed,
        begin.elapsed()
    );
    assert!(!calls.is_empty() && missed * 10 <= calls.len(), "the calls are not those that were recorded");
    assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), calls.len(), wrong.join("\n"));
}

thread_local! {
    /// Faults that did not come to pass: another run need not make the very same calls.
    static MISSED: Cell<usize> = const { Cell::new(0) };
}

fn traced(b: &Bundle, verb: &str, args: &[&str], also: Option<i32>, fault: Option<(Call, Fault)>) -> (Seen, Answer) {
    let (out, err) = (b.path("stdout"), b.path("stderr"));
    let seen = trace(&b.command(verb, args), &out, &err, also, fault);
    if fault.is_some() && !seen.hit {
        MISSED.set(MISSED.get() + 1);
    }
    let text = |path| fs::read_to_string(path).unwrap();
    let answer = Answer { code: seen.code, stdout: text(out), stderr: text(err) };
    (seen, answer)
}

/// One clear error line, or the death of a process without memory.
fn failed_clearly(call: Call, answer: &Answer) -> Result<(), String> {
    if HEAP.contains(&call.number) && answer.code.is_none() {
        return Ok(());
    }
    match unclear(&answer.stderr) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Nothing on the host, and no process.
fn clean(b: &Bundle, mounts: &str, pids: &[i32]) -> Result<(), String> {
    let running = || pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>();
    if !soon(|| running().is_empty()) {
        return Err(format!("processes {:?} are left", running()));
    }
    let left = b.left(mounts);
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
}

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

/// Nothing is left, and `delete --force` finds nothing to do. Where there was no memory to clean up with, it does that.
fn after_failure(b: &Bundle, mounts: &str, call: Call, seen: &Seen, answer: &Answer) -> Result<bool, String> {
    let aborted = answer.code.is_none();
    let result = failed_clearly(call, answer);
    let result = result.and_then(|()| if aborted { Ok(()) } else { clean(b, mounts, &seen.pids) });
    b.delete()?;
    result.and_then(|()| clean(b, mounts, &seen.pids)).map(|()| false)
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
    let mut config = b.docker();
    // Another group than ours: else it would not be set.
    config["process"]["user"]["gid"] = serde_json::json!(7);
    config["process"]["args"] = serde_json::json!(["sleep", "1000"]);
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
        let left = || seen.pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>();
        if !soon(|| left().is_empty() && b.processes() == init) {
            return Err(format!("processes {:?} are left, in the container {:?}", left(), b.processes()));
        }
        let state = b.run("state", &[ID]);
        if !state.stdout.contains("\"running\"") || mountinfo() != mounts {
            return Err(format!("the container is not as it was: {state:?}"));
        }
        Ok(answer.ok())
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

/// Nobody cleans up behind SIGKILL: the init ends by itself, or waits at its gate, and `delete --force` removes the rest.
#[test]
fn a_killed_create_can_be_deleted() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
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

/// An init that is killed, by the OOM killer say, is told as that, and all of it is removed.
#[test]
fn a_create_whose_init_is_killed_leaves_nothing() {
    private_mounts();
    let b = Bundle::new();
    let mounts = mountinfo();
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
    // The first one makes mount points, which the others find.
    assert!(b.run("create", &[ID]).ok());
    b.delete().unwrap();
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
    let mut config = b.docker();
    config["process"]["args"] = serde_json::json!(["sleep", "1000"]);
    b.write(&config);
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
            let left = || seen.pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>();
            if !soon(|| left().is_empty() && b.processes() == init) {
                return Err(format!("processes {:?} are left, in the container {:?}", left(), b.processes()));
            }
            let state = b.run("state", &[ID]);
            if !state.stdout.contains("\"running\"") || mountinfo() != mounts {
                return Err(format!("the container is not as it was: {state:?}"));
            }
            Ok(answer.ok())
        });
    }
    b.delete().unwrap();
}
