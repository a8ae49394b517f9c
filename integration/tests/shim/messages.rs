//! A worker, the process that it makes, or the daemon is killed as it begins to speak to another, behind that, and at calls between:
//! every message of a request's, not moments that a clock gives.

use crate::tracer::{Call, Seen, during};
use crate::{children, gone, id, mounted};
use containerd_shim_protos::ttrpc::{self, Code};
use orlop_integration::shim::{Bundle, Host, Shim, Stdio3, code};
use orlop_integration::{cgroup, wait};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

pub const TESTS: &[crate::Test] = crate::tests![
    a_create_is_killed_at_each_message,
    a_create_with_a_terminal_is_killed_at_each_message,
    an_exec_is_killed_at_each_message,
    a_start_is_killed_at_each_call,
    a_kill_is_killed_at_each_call,
    a_delete_is_killed_at_each_call,
    the_shim_is_killed_at_each_message,
];

/// The daemon has role 0, its worker 1; what that makes is the init, or the process of an exec.
const WORKER: usize = 1;
const MADE: usize = 2;

/// Calls of a process at which nothing is said are many: so many of them are tried, evenly.
const BETWEEN: usize = 20;

/// Each call by which the process speaks, the one behind it, and `between` others.
fn moments(seen: &Seen, role: usize, between: usize) -> Vec<Call> {
    let own: Vec<Call> = seen.calls.iter().filter(|call| call.role == role).copied().collect();
    let spoken = own.iter().enumerate().filter(|(_, call)| call.speaks).flat_map(|(i, _)| [i, i + 1]);
    let others = (0..own.len()).step_by(own.len().div_ceil(between).max(1));
    let mut all: Vec<Call> = spoken.chain(others).filter_map(|i| own.get(i).copied()).collect();
    all.sort_unstable();
    all.dedup();
    assert!(all.iter().any(|call| call.speaks), "process {role} says nothing: {own:?}");
    all
}

/// Tries call after call, until something is wrong: what is left then would be in the way of all others. `one` says whether the kill came to pass.
fn try_all(who: &str, calls: &[Call], mut one: impl FnMut(Call) -> Result<bool, String>) {
    let began = Instant::now();
    let hit = |call: &&Call| one(**call).unwrap_or_else(|why| panic!("{who}, killed at {call}: {why}"));
    let hits: Vec<&Call> = calls.iter().filter(hit).collect();
    // How often the daemon is woken is a matter of luck.
    let of_daemon = calls.iter().any(|call| call.role == 0);
    let messages = |calls: &mut dyn Iterator<Item = &Call>| calls.filter(|call| call.speaks).count();
    for (what, all, hits, most_missed) in [
        ("calls", calls.len(), hits.len(), 30),
        ("messages", messages(&mut calls.iter()), messages(&mut hits.iter().copied()), 10),
    ] {
        let most_missed = if of_daemon { 50 } else { most_missed };
        eprintln!("SIGKILL of {who}: at {hits} of {all} {what}, {:.1?}", began.elapsed());
        assert!((all - hits) * 100 <= all * most_missed, "{} of {all} {what} were not made again", all - hits);
    }
}

/// One clear error: what failed, and why, in one line.
fn clear(e: &ttrpc::Error, begins: &str) -> Result<(), String> {
    let ttrpc::Error::RpcStatus(status) = e else { return Err(format!("no answer of the shim's: {e}")) };
    let why = status.message().strip_prefix(begins).and_then(|why| why.strip_prefix(": "));
    match why {
        Some(why) if !why.is_empty() && !why.contains('\n') => Ok(()),
        _ => Err(format!("unclear: {:?}", status.message())),
    }
}

/// A daemon with a container that nothing is done to, and what is there because of it.
struct Pod<'a> {
    host: &'a Host,
    other: Bundle,
    shim: Shim,
}

/// What a request must not leave more of: cgroups, mounts, state and processes that name the host's directory; the daemon's children, and how
/// many files it has open.
type Left = (Vec<String>, Vec<u32>, usize);

impl<'a> Pod<'a> {
    fn new(host: &'a Host) -> Pod<'a> {
        let other = Bundle { group: Some("pod".to_owned()), ..host.bundle(&id(), &["sleep", "1000"]) };
        let shim = host.start(&other);
        shim.run(&other, &Stdio3::default());
        Pod { host, other, shim }
    }

    /// One more container for it, whose root file system the shim mounts.
    fn bundle(&self) -> Bundle {
        let bundle = mounted(self.host, self.host.bundle(&id(), &["sleep", "1000"]));
        let bundle = Bundle { group: self.other.group.clone(), ..bundle };
        assert_eq!(self.host.start(&bundle).pid, self.shim.pid);
        bundle
    }

    fn left(&self) -> Left {
        let files = fs::read_dir(format!("/proc/{}/fd", self.shim.pid)).expect("a daemon").count();
        (self.host.leftovers(), children(self.shim.pid), files)
    }

    /// What is there when nothing is asked: connections that were given up take a moment to end.
    fn settled(&self) -> Left {
        let mut last = None;
        wait::until("the shim is at rest", wait::SOON, || {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.left();
            let at_rest = last.as_ref() == Some(&now);
            last = Some(now.clone());
            at_rest.then_some(now)
        })
    }

    /// The daemon answers, and what was there before the request is there again, after a moment, and nothing else.
    fn is(&self, before: &Left) -> Result<(), String> {
        self.shim.state(&self.other.id, "").map_err(|e| format!("the shim does not answer: {e}"))?;
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let now = self.left();
            match now == *before {
                true => return Ok(()),
                false if Instant::now() > end => return Err(format!("left: {now:#?}\nbefore: {before:#?}")),
                false => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Kills the container, waits for it and deletes it.
    fn take_away(&self, id: &str) -> Result<(), String> {
        // It may have ended.
        let _ = self.shim.kill(id, "", 9);
        self.shim.wait(id, "").map_err(|e| format!("wait: {e}"))?;
        self.shim.delete(id, "").map(drop).map_err(|e| format!("delete: {e}"))
    }

    fn end(self) {
        self.shim.remove(&self.other.id);
    }
}

fn creates(host: &Host, terminal: bool) {
    let pod = Pod::new(host);
    let mut bundle = pod.bundle();
    if terminal {
        bundle.config["process"]["terminal"] = true.into();
        let pts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts"});
        bundle.config["mounts"].as_array_mut().expect("mounts").push(pts);
        host.start(&bundle);
    }
    let shim = &pod.shim;
    let io = Stdio3 { terminal, ..Stdio3::default() };
    let create = |fault| during(shim.pid, fault, || shim.create(&bundle, &io));
    // It was only created.
    let remove = || shim.delete(&bundle.id, "").map(drop).map_err(|e| format!("delete: {e}"));
    // The first one makes mount points that the others find.
    for _ in 0..2 {
        create(None).0.expect("create");
        remove().expect("delete");
    }
    let before = pod.settled();
    let (made, seen) = create(None);
    made.expect("create");
    remove().expect("delete");
    pod.is(&before).expect("nothing was killed");
    for (role, who) in [(WORKER, "the worker of a create"), (MADE, "its init")] {
        try_all(who, &moments(&seen, role, BETWEEN), |call| {
            let (made, seen) = create(Some(call));
            match made {
                // The init was at its gate, or the worker had answered.
                Ok(_) => remove()?,
                Err(e) => {
                    clear(&e, "OCI runtime create failed")?;
                    let known = shim.state(&bundle.id, "").map_err(|e| code(&e));
                    if !matches!(known, Err(Some(Code::NOT_FOUND))) {
                        return Err(format!("it was not made, but is {known:?}"));
                    }
                }
            }
            pod.is(&before).map(|()| seen.hit)
        });
    }
    create(None).0.expect("the id is free");
    shim.start(&bundle.id, "").expect("start");
    pod.take_away(&bundle.id).expect("it runs");
    pod.end();
}

fn a_create_is_killed_at_each_message(host: &Host) {
    creates(host, false);
}

/// Then the init sends the terminal to its parent, which sends it to the daemon.
fn a_create_with_a_terminal_is_killed_at_each_message(host: &Host) {
    creates(host, true);
}

/// The container runs on, and nothing in it that nobody knows of.
fn an_exec_is_killed_at_each_message(host: &Host) {
    let pod = Pod::new(host);
    let (shim, id) = (&pod.shim, &pod.other.id);
    let mut n = 0;
    let mut exec = |fault| {
        n += 1;
        let exec = format!("e{n}");
        shim.exec(id, &exec, &["sleep", "1000"], &Stdio3::default()).expect("exec");
        let (started, seen) = during(shim.pid, fault, || shim.start(id, &exec));
        (started, seen, exec)
    };
    let end = |exec: &str| {
        let _ = shim.kill(id, exec, 9);
        shim.wait(id, exec).map_err(|e| format!("wait: {e}"))?;
        shim.delete(id, exec).map(drop).map_err(|e| format!("delete: {e}"))
    };
    let only_the_init = || {
        let dirs = cgroup::tree(&format!("{}/{id}", host.cgroups()));
        dirs.iter().map(|dir| cgroup::procs(dir).len()).max() == Some(1)
    };
    let first = exec(None);
    first.0.expect("start");
    end(&first.2).expect("delete");
    let before = pod.settled();
    let (started, seen, name) = exec(None);
    started.expect("start");
    end(&name).expect("delete");
    pod.is(&before).expect("nothing was killed");
    for (role, who) in [(WORKER, "the worker of an exec"), (MADE, "the joining process")] {
        try_all(who, &moments(&seen, role, BETWEEN), |call| {
            let (started, seen, name) = exec(Some(call));
            let told = started.map_or_else(|e| clear(&e, "OCI runtime exec failed"), |_| Ok(()));
            end(&name)?;
            pod.is(&before)?;
            wait::until(&format!("killed at {call}, nobody but the init is left"), wait::SOON, || {
                only_the_init().then_some(())
            });
            told.map(|()| seen.hit)
        });
    }
    let (started, _, name) = exec(None);
    started.expect("start");
    end(&name).expect("delete");
    pod.end();
}

/// A request about a container that is there: `make` brings it that far, `ask` is the request, and what `then` does must take it away whatever
/// has become of that.
fn requests<T>(
    host: &Host,
    what: &str,
    begins: &str,
    make: impl Fn(&Pod, &Bundle),
    ask: impl Fn(&Shim, &str) -> ttrpc::Result<T>,
    then: impl Fn(&Pod, &str, bool) -> Result<(), String>,
) {
    let pod = Pod::new(host);
    let bundle = pod.bundle();
    let ask = |fault| {
        make(&pod, &bundle);
        during(pod.shim.pid, fault, || ask(&pod.shim, &bundle.id))
    };
    for _ in 0..2 {
        assert!(ask(None).0.is_ok());
        then(&pod, &bundle.id, true).expect("nothing was killed");
    }
    let before = pod.settled();
    let (done, seen) = ask(None);
    assert!(done.is_ok());
    then(&pod, &bundle.id, true).expect("nothing was killed");
    pod.is(&before).expect("nothing was killed");
    try_all(&format!("the worker of a {what}"), &moments(&seen, WORKER, usize::MAX), |call| {
        let (done, seen) = ask(Some(call));
        let well = done.is_ok();
        let told = done.map_or_else(|e| clear(&e, begins), |_| Ok(()));
        then(&pod, &bundle.id, well)?;
        pod.is(&before)?;
        told.map(|()| seen.hit)
    });
    pod.end();
}

fn created(pod: &Pod, bundle: &Bundle) {
    pod.shim.create(bundle, &Stdio3::default()).expect("create");
}

fn running(pod: &Pod, bundle: &Bundle) {
    pod.shim.run(bundle, &Stdio3::default());
}

/// containerd deletes a task that did not start, though its program may run.
fn a_start_is_killed_at_each_call(host: &Host) {
    let ask = |shim: &Shim, id: &str| shim.start(id, "");
    requests(host, "start", "OCI runtime start failed", created, ask, |pod, id, well| match well {
        true => pod.take_away(id),
        false => pod.shim.delete(id, "").map(drop).map_err(|e| format!("delete: {e}")),
    });
}

/// Whoever has asked asks again.
fn a_kill_is_killed_at_each_call(host: &Host) {
    let ask = |shim: &Shim, id: &str| shim.kill(id, "", 9);
    requests(host, "kill", "OCI runtime kill failed", running, ask, |pod, id, _| pod.take_away(id));
}

/// So does whoever deletes.
fn a_delete_is_killed_at_each_call(host: &Host) {
    let ended = |pod: &Pod, bundle: &Bundle| {
        running(pod, bundle);
        pod.shim.kill(&bundle.id, "", 9).expect("kill");
        pod.shim.wait(&bundle.id, "").expect("wait");
    };
    let ask = |shim: &Shim, id: &str| shim.delete(id, "");
    requests(host, "delete", "failed to delete task", ended, ask, |pod, id, well| match well {
        true => Ok(()),
        false => pod.shim.delete(id, "").map(drop).map_err(|e| format!("delete, again: {e}")),
    });
}

/// containerd then runs `delete`, once.
fn the_shim_is_killed_at_each_message(host: &Host) {
    let create = |fault| {
        let bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
        let shim = host.start(&bundle);
        let (made, seen) = during(shim.pid, fault, || shim.create(&bundle, &Stdio3::default()));
        (bundle, shim, made, seen)
    };
    let (bundle, shim, made, seen) = create(None);
    made.expect("create");
    shim.remove(&bundle.id);
    gone(host, "a create");
    try_all("the shim in a create", &moments(&seen, 0, BETWEEN), |call| {
        let (bundle, shim, made, seen) = create(Some(call));
        if !seen.hit {
            made.map_err(|e| e.to_string())?;
            shim.remove(&bundle.id);
            return Ok(false);
        }
        wait::until("the shim is dead", wait::SOON, || (!shim.alive()).then_some(()));
        let answer = host.clean_up(&bundle);
        gone(host, &format!("a kill at {call}"));
        if answer.exit_status == 137 { Ok(true) } else { Err(format!("ended with {}", answer.exit_status)) }
    });
}
