//! What concerns the whole daemon: many containers, a restart below them, remapped users, leftovers.

use crate::fixture::{Fixture, SOON};
use orlop_integration::dockerd::{Dockerd, Options, REMAPPED};
use orlop_integration::images::BUSYBOX;
use orlop_integration::{leaks, wait};
use std::fs;
use std::os::unix::fs::MetadataExt;

crate::tests![
    ; alone: fifty_at_once, live_restore, userns_remap, the_search_for_leftovers_finds_them
];

const MANY: usize = 50;

fn fifty_at_once(f: &Fixture) {
    f.daemon().need(BUSYBOX);
    let started: Vec<String> = std::thread::scope(|scope| {
        let docker = &f.docker;
        let start = move |i| {
            let c = docker.run(&format!("run -d {BUSYBOX} sh -c 'echo number {i}; exec sleep 300'")).exits(0).text();
            wait::until("the shell has become sleep", SOON, || {
                (docker.run(&format!("exec {c} cat /proc/1/comm")).exits(0).text() == "sleep").then_some(())
            });
            c
        };
        let threads: Vec<_> = (0..MANY).map(|i| scope.spawn(move || start(i))).collect();
        threads.into_iter().map(|t| t.join().expect("a container starts")).collect()
    });
    for (i, c) in started.iter().enumerate() {
        wait::until("its log", SOON, || (f.ok(&format!("logs {c}")) == format!("number {i}")).then_some(()));
    }
    // dockerd waits twelve seconds for the exit of each.
    for some in started.chunks(10) {
        f.ok(&format!("rm -f {}", some.join(" ")));
    }
    assert!(f.containers().is_empty());
}

/// A daemon of the test's own: the shared one must not be restarted. It ends with the test, and all of its containers.
pub(crate) fn own_daemon(f: &Fixture, options: Options) -> Dockerd {
    Dockerd::start(f.daemon().runtime(), Options { default_runtime: f.options().default_runtime, ..options })
}

fn live_restore(f: &Fixture) {
    let daemon = own_daemon(f, Options { live_restore: true, ..Options::default() });
    daemon.need(BUSYBOX);
    let docker = daemon.client("orlop.test=live-restore");
    let ok = |line: &str| docker.run(line).exits(0).text();
    let script = "i=0; while ! test -e /srv/end; do i=$((i+1)); echo $i > /srv/n; sleep 0.05; done; exit 23";
    ok(&format!("run -d --name stays {BUSYBOX} sh -c '{script}'"));
    ok(&format!("run -d --name ends {BUSYBOX} sh -c 'while ! test -e /srv/end; do sleep 0.05; done; exit 24'"));
    let pid = ok("inspect -f '{{.State.Pid}}' stays");
    let ends: u32 = ok("inspect -f '{{.State.Pid}}' ends").parse().expect("a pid");
    let counter = format!("/proc/{pid}/root/srv/n");
    let count = || fs::read_to_string(&counter).unwrap_or_default();
    daemon.suspend();
    let before = count();
    wait::until("the container runs on without its daemon", SOON, || (count() != before).then_some(()));
    fs::write(format!("/proc/{ends}/root/srv/end"), "").expect("a file in the container");
    wait::until("the other one ends", SOON, || fs::metadata(format!("/proc/{ends}/root/srv")).is_err().then_some(()));
    daemon.resume();
    assert_eq!(ok("inspect -f '{{.State.Pid}} {{.State.Status}}' stays"), format!("{pid} running"));
    assert_eq!(ok("exec stays cat /proc/1/comm"), "sh");
    // containerd 1.7 ends a shim that it finds without processes, whatever it is called, and asks it nothing before.
    let log = fs::read_to_string(daemon.dir().join("dockerd.log")).expect("the daemon's log");
    let status = if log.contains("cleaning leaked shim process") { "exited 255" } else { "exited 24" };
    wait::until("the exit status of the time without a daemon", SOON, || {
        (ok("inspect -f '{{.State.Status}} {{.State.ExitCode}}' ends") == status).then_some(())
    });
    ok("exec stays touch /srv/end");
    assert_eq!(ok("wait stays"), "23");
    ok("rm -f stays ends");
    nothing_left(&daemon);
}

fn userns_remap(f: &Fixture) {
    let daemon = own_daemon(f, Options { userns_remap: true, ..Options::default() });
    daemon.need(BUSYBOX);
    let docker = daemon.client("orlop.test=userns");
    let ok = |line: &str| docker.run(line).exits(0).text();
    let dir = daemon.dir().join("shared");
    fs::create_dir(&dir).expect("a directory of the test");
    std::os::unix::fs::chown(&dir, Some(REMAPPED), Some(REMAPPED)).expect("chown");
    let id = ok(&format!("run -d -v {}:/data --user tester {BUSYBOX} sh -c 'id -u; sleep 300'", dir.display()));
    let pid = ok(&format!("inspect -f '{{{{.State.Pid}}}}' {id}"));
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a file of the init");
    let map: Vec<u32> = read("uid_map").split_whitespace().filter_map(|n| n.parse().ok()).collect();
    assert_eq!(map, [0, REMAPPED, 65536]);
    let uid = read("status").lines().find_map(|l| l.strip_prefix("Uid:\t")?.split('\t').next()?.parse::<u32>().ok());
    assert_eq!(uid, Some(REMAPPED + 1000), "tester, from outside");
    wait::until("its log", SOON, || (ok(&format!("logs {id}")) == "1000").then_some(()));
    ok(&format!("exec --user root {id} touch /data/file"));
    assert_eq!(dir.join("file").metadata().expect("the file").uid(), REMAPPED, "root, from outside");
    assert_eq!(ok(&format!("exec --user 0 {id} id -u")), "0");
    ok(&format!("run --rm --sysctl net.core.somaxconn=999 --tmpfs /t --memory 32m {BUSYBOX} touch /t/x"));
    ok(&format!("rm -f {id}"));
    nothing_left(&daemon);
}

/// Proves the search itself: one running container must show up as state, bundle, cgroup, mount, shim and socket.
fn the_search_for_leftovers_finds_them(f: &Fixture) {
    let c = f.ok(&format!("run -d {BUSYBOX} sleep 300"));
    let found = leaks::find(f.daemon());
    for kind in ["runtime state", "bundle", "cgroup", "mount", "shim", "shim socket"] {
        assert!(found.iter().any(|l| l.starts_with(&format!("{kind}: "))), "no {kind} of {c} in {found:#?}");
    }
}

/// Comes last in the list: after all other tests of its mode.
pub(crate) fn nothing_is_left(f: &Fixture) {
    f.bench.wait_for_all_others();
    assert_eq!(f.docker.run("ps -aq").exits(0).text(), "", "containers that a test forgot");
    assert_eq!(f.docker.run("volume ls -q").exits(0).text(), "", "volumes that a test forgot");
    nothing_left(f.daemon());
}

/// Docker removes some of it after its answer, so it gets a moment.
pub(crate) fn nothing_left(daemon: &Dockerd) {
    let mut left = Vec::new();
    for round in 0..600 {
        left = leaks::find(daemon);
        // The cgroup above the steps of BuildKit's builds stays, as the daemon's own one does.
        left.retain(|one| !(one.starts_with("cgroup: ") && one.ends_with("/buildkit")));
        if left.is_empty() {
            return;
        }
        if round % 50 == 49 {
            daemon.delete_the_forgotten();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let layers = daemon.layers();
    panic!("left behind:\n{}\nlayers: {layers:#?}\nthe daemon's log:\n{}", left.join("\n"), daemon.log());
}
