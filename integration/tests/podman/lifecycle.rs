//! What is done to a container that is there.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use orlop_integration::private::signal;
use orlop_integration::wait;
use rustix::process::Signal;
use std::fs;
use std::os::unix::net::UnixStream;

crate::tests![
    Nothing: create_start_stop, kill_with_a_signal, restart, restart_policy, copy_in_and_out, commit_and_diff, health, processes, the_service_is_killed;
    Cgroups: pause_and_unpause, statistics;
];

fn create_start_stop(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("create --name {c} {BUSYBOX} sh -c 'trap \"exit 3\" TERM; echo ready; while :; do sleep 0.1; done'"));
    assert_eq!(f.inspect(&c, ".State.Status"), "created");
    f.ok(&format!("start {c}"));
    assert_eq!(f.inspect(&c, ".State.Status"), "running");
    f.says(&c, "ready");
    f.ok(&format!("stop -t 30 {c}"));
    assert_eq!(f.inspect(&c, ".State.Status"), "exited");
    assert_eq!(f.inspect(&c, ".State.ExitCode"), "3");
}

fn kill_with_a_signal(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!(
        "run -d --name {c} {BUSYBOX} sh -c 'trap \"echo usr; exit 8\" USR1; echo ready; while :; do sleep 0.1; done'"
    ));
    f.says(&c, "ready");
    f.ok(&format!("kill -s USR1 {c}"));
    assert_eq!(f.ok(&format!("wait {c}")), "8");
    assert!(f.ok(&format!("logs {c}")).ends_with("usr"));
}

fn restart(f: &Fixture) {
    let c = f.idle("");
    f.ok(&format!("exec {c} touch /tmp/stays"));
    let before = f.pid(&c);
    f.ok(&format!("restart -t 0 {c}"));
    assert_ne!(f.pid(&c), before);
    f.ok(&format!("exec {c} test -e /tmp/stays"));
}

fn restart_policy(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} --restart on-failure:2 {BUSYBOX} sh -c 'echo once; exit 1'"));
    wait::until("three runs", wait::SOON, || {
        (f.run(&format!("logs {c}")).text().lines().count() == 3 && f.has(&c, ".State.Status", "exited")).then_some(())
    });
    f.becomes(&c, ".RestartCount", "2");
}

fn copy_in_and_out(f: &Fixture) {
    let (c, dir) = (f.idle(""), f.dir());
    fs::write(dir.join("in"), "cargo").expect("a file of the test");
    f.ok(&format!("cp {} {c}:/srv/file", dir.join("in").display()));
    assert_eq!(f.ok(&format!("exec {c} cat /srv/file")), "cargo");
    f.ok(&format!("cp {c}:/srv/file {}", dir.join("out").display()));
    assert_eq!(fs::read_to_string(dir.join("out")).expect("the copy"), "cargo");
}

fn commit_and_diff(f: &Fixture) {
    let (c, image) = (f.idle(""), f.name("image"));
    f.ok(&format!("exec {c} sh -c 'echo new > /srv/file'"));
    assert!(f.ok(&format!("diff {c}")).contains("A /srv/file"));
    f.ok(&format!("commit -q {c} {image}"));
    assert_eq!(f.ok(&format!("run --rm {image} cat /srv/file")), "new");
    f.ok(&format!("rmi {image}"));
}

fn health(f: &Fixture) {
    let c = f.idle("--health-cmd 'test -e /tmp/well' --health-interval disable --health-retries 1");
    f.fails(1, &format!("healthcheck run {c}"));
    f.ok(&format!("exec {c} touch /tmp/well"));
    f.ok(&format!("healthcheck run {c}"));
}

fn processes(f: &Fixture) {
    let c = f.idle("");
    let top = f.ok(&format!("top {c} pid comm"));
    assert_eq!(
        top.lines().nth(1).map(|line| line.split_whitespace().collect::<Vec<_>>()),
        Some(vec!["1", "sleep"]),
        "{top}"
    );
    assert!(f.ok("ps --format {{.Names}}").lines().any(|name| name == c));
}

fn pause_and_unpause(f: &Fixture) {
    let c = f.idle("");
    f.ok(&format!("pause {c}"));
    assert_eq!(f.inspect(&c, ".State.Status"), "paused");
    f.ok(&format!("unpause {c}"));
    assert_eq!(f.ok(&format!("exec {c} echo awake")), "awake");
}

fn statistics(f: &Fixture) {
    let c = f.idle("--memory 64m");
    let stats = f.ok(&format!("stats --no-stream --format '{{{{.Name}}}} {{{{.PIDs}}}} {{{{.MemUsage}}}}' {c}"));
    assert!(stats.starts_with(&format!("{c} 1 ")) && stats.contains("67.11MB"), "{stats}");
}

/// The API service holds nothing: containers made through it outlive its sudden end, and the next one finds them.
fn the_service_is_killed(f: &Fixture) {
    let c = f.name("c");
    let socket = f.dir().join("api.sock");
    let url = format!("unix://{}", socket.display());
    let serve = || {
        let mut command = f.command(&format!("system service --time 0 {url}"));
        let mut service = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        wait::until("the service answers", wait::SOON, || {
            assert!(matches!(service.try_wait(), Ok(None)), "the service ended");
            (socket.exists() && f.run(&format!("--url {url} version")).status == 0).then_some(())
        });
        service
    };
    let mut first = serve();
    f.ok(&format!("--url {url} run -d --name {c} {BUSYBOX} sleep 1000"));
    let pid = f.pid(&c);
    signal(first.id(), Signal::KILL);
    first.wait().expect("its end");
    // Run by a user, it is the parent of the one that listens, which ends in good order, and takes the socket with it.
    wait::until("nobody listens", wait::SOON, || UnixStream::connect(&socket).is_err().then_some(()));
    let _ = fs::remove_file(&socket);
    let mut second = serve();
    assert_eq!(f.ok(&format!("--url {url} exec {c} echo alive")), "alive");
    assert_eq!(f.pid(&c), pid);
    f.ok(&format!("--url {url} rm -f -t 0 {c}"));
    signal(second.id(), Signal::TERM);
    second.wait().expect("its end");
}
