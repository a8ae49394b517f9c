//! Ends of processes: none is lost, each is told once, and in the order in which they happened.

use crate::{children, gone, id, shim, sleeping};
use orlop_integration::private::signal;
use orlop_integration::shim::{Event, Host, Stdio3};
use orlop_integration::{programs, wait};
use rustix::process::Signal;
use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub const TESTS: &[crate::Test] = crate::tests![
    two_thousand_execs_that_end_at_once,
    an_exec_races_with_the_end_of_the_init,
    a_container_without_a_pid_namespace_leaves_nobody_behind,
    nobody_outlives_the_init_under_another_runtime,
    events_wait_for_containerd,
];

fn two_thousand_execs_that_end_at_once(host: &Host) {
    const THREADS: u32 = 4;
    let (bundle, shim) = sleeping(host);
    let count: u32 = std::env::var("FAST_EXECS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    thread::scope(|scope| {
        for lane in 0..THREADS {
            let (shim, id) = (shim.clone(), bundle.id.as_str());
            scope.spawn(move || {
                for n in (lane..count).step_by(THREADS as usize) {
                    let exec = format!("e{n}");
                    let (program, status) = [("true", 0), ("false", 1)][n as usize % 2];
                    shim.exec(id, &exec, &[program], &Stdio3::default()).expect("exec");
                    // One in four is waited for before it is started.
                    let early = (n % 4 == 3).then(|| {
                        let (shim, id, exec) = (shim.clone(), id.to_owned(), exec.clone());
                        thread::spawn(move || shim.wait(&id, &exec).expect("wait"))
                    });
                    let pid = shim.start(id, &exec).expect("start");
                    assert!(pid > 0);
                    assert_eq!(shim.wait(id, &exec).expect("wait"), status, "{exec}");
                    if let Some(early) = early {
                        assert_eq!(early.join().expect("wait"), status, "{exec}");
                    }
                    assert_eq!(shim.delete(id, &exec).expect("delete"), status, "{exec}");
                }
            });
        }
    });
    let exits = || host.told().into_iter().filter(|e| e.topic == "/tasks/exit").count();
    wait::until("every exit is told", wait::SOON, || (exits() == count as usize).then_some(()));
    let mut started: HashMap<String, u32> = HashMap::new();
    for Event { topic, process, pid, status, .. } in host.told() {
        match topic.as_str() {
            "/tasks/exec-started" => assert_eq!(started.insert(process, pid), None),
            "/tasks/exit" => {
                let n: u32 = process.trim_start_matches('e').parse().expect("a number");
                assert_eq!(
                    started.remove(&process),
                    Some(pid),
                    "the exit of {process} comes after its start, and once"
                );
                assert_eq!(status, n % 2, "{process}");
            }
            _ => {}
        }
    }
    assert!(started.is_empty(), "without an exit: {started:?}");
    shim.remove(&bundle.id);
}

/// containerd 9309, 7496, 6771: a start that meets an end must answer, and so must everything after it.
fn an_exec_races_with_the_end_of_the_init(host: &Host) {
    for n in 0..40u64 {
        let (bundle, shim) = sleeping(host);
        shim.exec(&bundle.id, "e", &["sleep", "1000"], &Stdio3::default()).expect("exec");
        let started = thread::scope(|scope| {
            let start = scope.spawn(|| shim.start(&bundle.id, "e"));
            thread::sleep(Duration::from_micros(n * 150));
            shim.kill(&bundle.id, "", 9).expect("kill");
            start.join().expect("no panic")
        });
        assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 137);
        if started.is_ok() {
            assert_eq!(shim.wait(&bundle.id, "e").expect("wait"), 137);
        }
        let exits: Vec<String> = wait::until("the exits are told", wait::SOON, || {
            let told = host.told().into_iter().filter(|e| e.topic == "/tasks/exit" && e.container == bundle.id);
            let told: Vec<String> = told.map(|e| e.process).collect();
            told.contains(&bundle.id).then_some(told)
        });
        // The init's is the last one.
        let expected = if started.is_ok() { vec!["e".to_owned(), bundle.id.clone()] } else { vec![bundle.id.clone()] };
        assert_eq!(exits, expected);
        shim.delete(&bundle.id, "e").expect("delete of the exec");
        shim.delete(&bundle.id, "").expect("delete");
        shim.shutdown();
    }
}

fn a_container_without_a_pid_namespace_leaves_nobody_behind(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sh", "-c", "sleep 1000 & sleep 1000 & exit 3"]);
    bundle.config["linux"]["namespaces"].as_array_mut().expect("an array").retain(|ns| ns["type"] != "pid");
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 3);
    assert_eq!(shim.delete(&bundle.id, "").expect("delete"), 3);
    // Its orphans came to the shim, which must reap them.
    wait::until("no zombie is left", wait::SOON, || children(shim.pid).is_empty().then_some(()));
    shim.shutdown();
}

/// The end of the init is told although a process of the container, in the host's pid namespace, would go on.
fn nobody_outlives_the_init_under_another_runtime(host: &Host) {
    let driven = Host::new(&shim(), Some(&programs::path("runc")));
    let mut bundle = driven.bundle(&id(), &["sleep", "1000"]);
    bundle.config["linux"]["namespaces"].as_array_mut().expect("an array").retain(|ns| ns["type"] != "pid");
    let shim = driven.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    shim.exec(&bundle.id, "e", &["sleep", "1000"], &Stdio3::default()).expect("exec");
    let pid = shim.start(&bundle.id, "e").expect("start");
    signal(shim.state(&bundle.id, "").expect("state").pid, Signal::KILL);
    let exit = || driven.exit_of(&bundle.id, &bundle.id);
    wait::until("the end is told", wait::SOON, exit);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    shim.remove(&bundle.id);
    gone(&driven, "the end");
    assert!(host.leftovers().is_empty());
}

fn events_wait_for_containerd(host: &Host) {
    let (bundle, shim) = sleeping(host);
    wait::until("the start is told", wait::SOON, || (host.told().len() == 2).then_some(()));
    host.deaf();
    for n in 0..50 {
        let exec = format!("e{n}");
        shim.exec(&bundle.id, &exec, &["true"], &Stdio3::default()).expect("exec");
        shim.start(&bundle.id, &exec).expect("start");
        shim.wait(&bundle.id, &exec).expect("wait");
        shim.delete(&bundle.id, &exec).expect("delete");
    }
    shim.kill(&bundle.id, "", 9).expect("kill");
    shim.wait(&bundle.id, "").expect("wait");
    assert_eq!(host.told().len(), 2);
    host.listen();
    wait::until("all is told", wait::SOON, || host.exit_of(&bundle.id, &bundle.id));
    let told = host.told();
    let mut expected = vec!["/tasks/create".to_owned(), "/tasks/start".to_owned()];
    // exec-added, exec-started, exit: an exit of an exec may be told before its deletion, which has no event.
    expected.extend((0..50).flat_map(|_| ["exec-added", "exec-started", "exit"].map(|t| format!("/tasks/{t}"))));
    expected.push("/tasks/exit".to_owned());
    assert_eq!(told.into_iter().map(|e| e.topic).collect::<Vec<_>>(), expected);
    shim.remove(&bundle.id);
}
