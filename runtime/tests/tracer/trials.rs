//! What is tried with the tracer: which calls, one fault after another, and what has to be true after each.
#![allow(dead_code, reason = "every test file uses another part of it")]

use super::{Call, Fault, Seen, trace};
use crate::bundle::{Answer, Bundle, ID, alive, mountinfo, soon, unclear};
use nix::libc;
use orlop_sys::Errno;
use std::cell::Cell;
use std::fs;
use std::time::Instant;

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
pub(crate) fn sample(calls: &[Call], roles: std::ops::RangeInclusive<usize>, most: usize) -> Vec<Call> {
    let ours = |call: &&Call| roles.contains(&call.role) && !NOT_OURS.contains(&call.number);
    let calls: Vec<Call> = calls.iter().filter(ours).copied().collect();
    let step = calls.len().div_ceil(most).max(1);
    calls.into_iter().step_by(step).collect()
}

/// Every call of `roles` by which one half of the runtime speaks to the other, and the one after it: before a message, and behind it.
pub(crate) fn messages(calls: &[Call], roles: std::ops::RangeInclusive<usize>) -> Vec<Call> {
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
pub(crate) fn moments(calls: &[Call], role: usize, most: usize) -> Vec<Call> {
    let mut all = sample(calls, role..=role, most);
    all.extend(messages(calls, role..=role));
    all.sort_unstable();
    all.dedup();
    all
}

/// Tries a fault for each of the calls, until the time is over, and reports all that is wrong at once.
pub(crate) fn try_all(what: &str, calls: &[Call], mut one: impl FnMut(Call, Errno) -> Result<bool, String>) {
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
    // A tenth, or two calls: so many of the 18 of `kill` are made only while the init that it has killed still lives.
    assert!(!calls.is_empty() && missed <= (calls.len() / 10).max(2), "the calls are not those that were recorded");
    assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), calls.len(), wrong.join("\n"));
}

thread_local! {
    /// Faults that did not come to pass: another run need not make the very same calls.
    static MISSED: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn traced(
    b: &Bundle,
    verb: &str,
    args: &[&str],
    also: Option<i32>,
    fault: Option<(Call, Fault)>,
) -> (Seen, Answer) {
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
pub(crate) fn failed_clearly(call: Call, answer: &Answer) -> Result<(), String> {
    if HEAP.contains(&call.number) && answer.code.is_none() {
        return Ok(());
    }
    match unclear(&answer.stderr) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Nothing on the host, and no process.
pub(crate) fn clean(b: &Bundle, mounts: &str, pids: &[i32]) -> Result<(), String> {
    let running = || pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>();
    if !soon(|| running().is_empty()) {
        return Err(format!("processes {:?} are left", running()));
    }
    let left = b.left(mounts);
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
}

/// After an exec, whatever became of it: nothing of it is left, and the container runs as before, with these processes.
pub(crate) fn as_it_was(b: &Bundle, mounts: &str, seen: &Seen, init: &[i32]) -> Result<(), String> {
    let left = || seen.pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>();
    if !soon(|| left().is_empty() && b.processes() == init) {
        return Err(format!("processes {:?} are left, in the container {:?}", left(), b.processes()));
    }
    let state = b.run("state", &[ID]);
    if !state.stdout.contains("\"running\"") || mountinfo() != mounts {
        return Err(format!("the container is not as it was: {state:?}"));
    }
    Ok(())
}

/// Nothing is left, and `delete --force` finds nothing to do. Where there was no memory to clean up with, it does that.
pub(crate) fn after_failure(
    b: &Bundle,
    mounts: &str,
    call: Call,
    seen: &Seen,
    answer: &Answer,
) -> Result<bool, String> {
    let aborted = answer.code.is_none();
    let result = failed_clearly(call, answer);
    let result = result.and_then(|()| if aborted { Ok(()) } else { clean(b, mounts, &seen.pids) });
    b.delete()?;
    result.and_then(|()| clean(b, mounts, &seen.pids)).map(|()| false)
}
