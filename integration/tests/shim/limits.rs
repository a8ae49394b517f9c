//! How little the shim needs for very many requests, and what it does when there is no more of something.

use crate::{children, driving, fifo, gone, id, reader, sleeping};
use orlop_integration::shim::{Host, Stdio3};
use orlop_integration::wait;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[crate::Test] =
    crate::tests![memory_of_many_execs, clients_wait_for_fds, pids_of_very_many_processes];

/// In a long life nothing grows: memory, fds, children, mounts. (The benchmark does ten thousand.)
fn memory_of_many_execs(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let one = |n: u32| {
        let exec = format!("e{n}");
        let out = fifo(&host.file(&exec));
        let read = reader(out.clone(), Duration::ZERO);
        shim.exec(&bundle.id, &exec, &["echo", "x"], &Stdio3 { stdout: out.clone(), ..Stdio3::default() })
            .expect("exec");
        shim.start(&bundle.id, &exec).expect("start");
        shim.wait(&bundle.id, &exec).expect("wait");
        shim.delete(&bundle.id, &exec).expect("delete");
        assert_eq!(read.join().expect("no panic"), b"x\n");
        fs::remove_file(out).expect("our fifo");
    };
    let anonymous = || -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid)).expect("the shim");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("a line");
        line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
    };
    let counts = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", shim.pid)).expect("the shim").count();
        (fds, children(shim.pid).len(), fs::metadata(&bundle.dir).expect("the bundle").nlink())
    };
    (0..100).for_each(one);
    let (memory, before) = (anonymous(), counts());
    (100..600).for_each(one);
    wait::until("all is closed", wait::SOON, || (counts() <= before).then_some(()));
    assert!(anonymous() <= memory + 64, "{memory} KiB, then {}", anonymous());
    shim.remove(&bundle.id);
}

/// CPU time of a process.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the shim");
    let rest = stat.rsplit_once(") ").expect("stat").1;
    let ticks: u64 = rest.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum();
    // USER_HZ is 100 wherever Linux runs.
    Duration::from_millis(ticks * 10)
}

/// A shim that may open no more files lets clients in later, and does not ask all the time whether it could now.
fn clients_wait_for_fds(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let pid = Pid::from_raw(shim.pid as i32);
    let before = getrlimit(Resource::Nofile);
    // It has more, and keeps them.
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(3), ..before }).expect("prlimit");
    thread::scope(|scope| {
        let late = scope.spawn(|| shim.clone().reconnect(|| {}).state(&bundle.id, "").map(|state| state.pid));
        let log = || fs::read_to_string(bundle.dir.join("log")).expect("the log");
        wait::until("it finds no fd", wait::SOON, || log().contains("accept: ").then_some(()));
        let (began, used) = (Instant::now(), cpu(shim.pid));
        thread::sleep(Duration::from_secs(2));
        let (took, used) = (began.elapsed(), cpu(shim.pid) - used);
        assert!(used < took / 4, "it spins: {used:?} of {took:?}");
        assert!(!late.is_finished() && log().matches("accept: ").count() == 1, "{}", log());
        prlimit(pid, Resource::Nofile, before).expect("prlimit");
        late.join().expect("no panic").expect("state");
    });
    shim.remove(&bundle.id);
}

/// containerd, when it is back, takes a shim that does not tell the pids for one that is broken, and ends it.
fn pids_of_very_many_processes(host: &Host) {
    const COUNT: u32 = 40_000;
    let driven = driving(&format!("case \" $* \" in *' ps '*) seq -s, 1 {COUNT} | sed 's/.*/[&]/'; exit;; esac"));
    let bundle = driven.bundle(&id(), &["sleep", "1000"]);
    let shim = driven.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    assert_eq!(shim.pids(&bundle.id).expect("pids"), (1..=COUNT).collect::<Vec<_>>());
    shim.remove(&bundle.id);
    gone(&driven, "the end");
    assert!(host.leftovers().is_empty());
}
