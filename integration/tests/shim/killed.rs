//! The shim, its workers and its containers, killed at every moment; and told to end.

use crate::clients::held_up;
use crate::{children, gone, id, mounted, sleeping};
use orlop_integration::private::signal;
use orlop_integration::shim::{Bundle, Host, Stdio3};
use orlop_integration::{cgroup, wait};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[crate::Test] = crate::tests![
    a_worker_is_killed_in_create,
    a_worker_is_killed_in_exec,
    the_shim_is_killed_in_create,
    delete_without_a_shim,
    a_daemon_that_was_killed_gives_way,
    the_shim_is_told_to_end,
    the_shim_is_told_to_end_in_create,
];

/// Moments at which something is killed: as long as a call takes, and half as long again, in so many steps.
fn moments(steps: u32, typical: Duration) -> impl Iterator<Item = Duration> + Clone {
    (0..steps).map(move |n| typical * n * 3 / (steps * 2))
}

/// Kills the first child of the daemon that is not in `not` once it is there and `after` has passed.
fn kill_a_worker(shim: u32, not: &[u32], after: Duration) {
    let end = Instant::now() + Duration::from_secs(5);
    let worker = loop {
        if let Some(worker) = children(shim).into_iter().find(|pid| !not.contains(pid)) {
            break worker;
        }
        if Instant::now() > end {
            return;
        }
        thread::sleep(Duration::from_micros(50));
    };
    // Asleep, and not in a loop: where there is one processor the worker needs it.
    thread::sleep(after);
    signal(worker, Signal::KILL);
}

fn typical(mut call: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let began = Instant::now();
            call();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[2]
}

/// What is killed in it, and in any step: create answers with an error, the shim takes all away, and the same id is made after that.
fn a_worker_is_killed_in_create(host: &Host) {
    let other = host.bundle(&id(), &["sleep", "1000"]);
    let other = Bundle { group: Some("pod".to_owned()), ..other };
    let shim = host.start(&other);
    shim.run(&other, &Stdio3::default());
    let mut bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
    bundle.group = other.group.clone();
    assert_eq!(host.start(&bundle).pid, shim.pid);
    let usual = || -> Vec<String> { host.leftovers() };
    let before = usual();
    let make = || shim.create(&bundle, &Stdio3::default());
    let remove = || {
        // It was only created.
        shim.delete(&bundle.id, "").expect("delete");
    };
    let took = typical(|| {
        make().expect("create");
        remove();
    });
    let mut lost = 0;
    // On a busy machine many kills come too late: then there are more rounds. A slow one has fewer.
    let began = Instant::now();
    for (n, after) in (0..2000).zip(moments(200, took).cycle()) {
        if lost >= 20 && (n >= 200 || began.elapsed() > Duration::from_secs(60)) {
            break;
        }
        let not = children(shim.pid);
        let result = thread::scope(|scope| {
            let killer = scope.spawn(|| kill_a_worker(shim.pid, &not, after));
            let result = make();
            killer.join().expect("no panic");
            result
        });
        match result {
            // The init may be what was hit: then it is a container that has ended.
            Ok(_) => remove(),
            Err(e) => {
                lost += 1;
                assert!(e.to_string().contains("OCI runtime create failed"), "{e}");
            }
        }
        let end = Instant::now() + Duration::from_secs(30);
        while usual() != before {
            assert!(Instant::now() < end, "killed after {after:?}: {:#?}\nbefore: {before:#?}", usual());
            thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(lost >= 20, "the kills came too late: {lost}");
    make().expect("the id is free");
    shim.start(&bundle.id, "").expect("start");
    shim.remove(&bundle.id);
    assert!(shim.alive(), "the other container's");
    shim.remove(&other.id);
}

/// The container goes on, and nothing runs in it that nobody knows of.
fn a_worker_is_killed_in_exec(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let init = children(shim.pid);
    let exec = |n: u32| {
        let exec = format!("e{n}");
        shim.exec(&bundle.id, &exec, &["sleep", "1000"], &Stdio3::default()).expect("exec");
        (shim.start(&bundle.id, &exec), exec)
    };
    let end = |exec: &str| {
        let _ = shim.kill(&bundle.id, exec, 9);
        shim.wait(&bundle.id, exec).expect("wait");
        shim.delete(&bundle.id, exec).expect("delete");
    };
    let mut n = 10_000;
    let took = typical(|| {
        n += 1;
        let (started, exec) = exec(n);
        started.expect("start");
        end(&exec);
    });
    let mut lost = 0;
    for (n, after) in (0..2000).zip(moments(100, took).cycle()) {
        if n >= 100 && lost >= 10 {
            break;
        }
        let exec = thread::scope(|scope| {
            let killer = scope.spawn(|| kill_a_worker(shim.pid, &init, after));
            let (started, exec) = exec(n);
            killer.join().expect("no panic");
            lost += u32::from(started.is_err());
            exec
        });
        end(&exec);
        wait::until(&format!("nobody but the init is left, killed after {after:?}"), wait::SOON, || {
            let dirs = cgroup::tree(&format!("{}/{}", host.cgroups(), bundle.id));
            let most = dirs.iter().map(|dir| cgroup::procs(dir).len()).max();
            (children(shim.pid) == init && most == Some(1)).then_some(())
        });
    }
    assert!(lost >= 10, "the kills came too late: {lost}");
    shim.exec(&bundle.id, "last", &["true"], &Stdio3::default()).expect("exec");
    shim.start(&bundle.id, "last").expect("start");
    assert_eq!(shim.wait(&bundle.id, "last").expect("wait"), 0);
    shim.remove(&bundle.id);
}

/// containerd then runs `delete`, once; the create may have been in any step.
fn the_shim_is_killed_in_create(host: &Host) {
    let one = |after: Option<Duration>| {
        let bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
        let shim = host.start(&bundle);
        let began = Instant::now();
        thread::scope(|scope| {
            let create = scope.spawn(|| shim.create(&bundle, &Stdio3::default()));
            let Some(after) = after else {
                create.join().expect("no panic").expect("create");
                return;
            };
            thread::sleep(after.saturating_sub(began.elapsed()));
            shim.signal(Signal::KILL);
            let _ = create.join().expect("no panic");
        });
        let took = began.elapsed();
        if after.is_none() {
            shim.remove(&bundle.id);
        } else {
            wait::until("the shim is dead", wait::SOON, || (!shim.alive()).then_some(()));
            let answer = host.clean_up(&bundle);
            assert_eq!(answer.exit_status, 137);
            gone(host, &format!("kill after {after:?}"));
        }
        took
    };
    let took = (0..5).map(|_| one(None)).min().expect("five");
    for after in moments(60, took) {
        one(Some(after));
    }
}

fn delete_without_a_shim(host: &Host) {
    let bundle = mounted(host, host.bundle(&id(), &["sh", "-c", "sleep 1000 & sleep 1000"]));
    let shim = host.start(&bundle);
    let pid = shim.run(&bundle, &Stdio3::default());
    shim.exec(&bundle.id, "e", &["sleep", "1000"], &Stdio3::default()).expect("exec");
    shim.start(&bundle.id, "e").expect("start");
    shim.signal(Signal::KILL);
    wait::until("the shim is dead", wait::SOON, || (!shim.alive()).then_some(()));
    for _ in 0..2 {
        let answer = host.clean_up(&bundle);
        assert_eq!((answer.pid, answer.exit_status), (pid, 137));
        assert!(answer.exited_at.seconds > 1_600_000_000);
        gone(host, "delete");
    }
    // An id that was never there.
    host.clean_up(&host.bundle(&id(), &["true"]));
}

/// Its socket is still there: the next one of the group takes its place.
fn a_daemon_that_was_killed_gives_way(host: &Host) {
    let group = Some("pod".to_owned());
    let first = Bundle { group: group.clone(), ..host.bundle(&id(), &["sleep", "1000"]) };
    let second = Bundle { group, ..host.bundle(&id(), &["sleep", "1000"]) };
    let shim = host.start(&first);
    shim.run(&first, &Stdio3::default());
    shim.signal(Signal::KILL);
    wait::until("the shim is dead", wait::SOON, || (!shim.alive()).then_some(()));
    let other = host.start(&second);
    assert_ne!(shim.pid, other.pid);
    assert_eq!(shim.address, other.address);
    other.run(&second, &Stdio3::default());
    host.clean_up(&first);
    // The socket is another's now.
    host.start(&second).state(&second.id, "").expect("state");
    other.remove(&second.id);
}

/// The daemon ends and takes its socket away; the container is `delete`'s.
fn the_shim_is_told_to_end(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let socket = PathBuf::from(shim.address.trim_start_matches("unix://"));
    let mode = |path: &Path| fs::metadata(path).expect("a socket").permissions().mode() & 0o777;
    assert!(fs::metadata(&socket).expect("a socket").file_type().is_socket());
    assert_eq!((mode(&socket) & 0o077, mode(socket.parent().expect("a directory"))), (0, 0o700));
    shim.signal(Signal::TERM);
    wait::until("the shim has ended", wait::SOON, || (!shim.alive()).then_some(()));
    assert!(!socket.exists(), "{}", socket.display());
    assert_eq!(host.clean_up(&bundle).exit_status, 137);
}

/// What was begun is done and answered first, unless it takes too long.
fn the_shim_is_told_to_end_in_create(host: &Host) {
    for too_long in [false, true] {
        let (bundle, hook) = held_up(host, 0);
        let shim = host.start(&bundle);
        let created = thread::scope(|scope| {
            let create = scope.spawn(|| shim.create(&bundle, &Stdio3::default()));
            hook.begun();
            shim.signal(Signal::TERM);
            if too_long {
                wait::until("the shim has ended", wait::SOON, || (!shim.alive()).then_some(()));
            } else {
                // More than ttrpc gives to the requests of a connection that it closes.
                thread::sleep(Duration::from_secs(7));
            }
            hook.go();
            create.join().expect("no panic")
        });
        assert_eq!(created.is_ok(), !too_long, "{created:?}");
        wait::until("the shim has ended", wait::SOON, || (!shim.alive()).then_some(()));
        assert_eq!(host.clean_up(&bundle).exit_status, 137);
        gone(host, "the end");
    }
}
