//! Looking at containers: ps, logs, top, stats, cp, diff, export.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use std::fs;

crate::tests![
    ps_and_ls,
    logs_of_both_streams,
    log_drivers,
    top_lists_processes,
    stats_once,
    inspect_of_a_running_container,
    cp_in_and_out,
    diff_and_export
    ; alone: prune_removes_the_stopped
];

fn ps_and_ls(f: &Fixture) {
    let (up, down) = (f.name("up"), f.name("down"));
    f.ok(&format!("run -d --name {up} {BUSYBOX} sleep 300"));
    f.ok(&format!("run --name {down} {BUSYBOX} true"));
    let running = f.ok("ps --format '{{.Names}} {{.Status}}'");
    assert!(running.lines().any(|l| l.starts_with(&format!("{up} Up "))), "{running}");
    assert!(!running.contains(&down), "{running}");
    let all = f.ok("container ls -a --format '{{.Names}} {{.Status}}'");
    assert!(all.lines().any(|l| l.starts_with(&format!("{down} Exited (0)"))), "{all}");
}

fn logs_of_both_streams(f: &Fixture) {
    let c = f.name("c");
    f.run(&format!("run --name {c} {BUSYBOX} sh -c 'for i in 1 2 3; do echo out$i; done; echo err >&2'")).exits(0);
    let logs = f.run(&format!("logs {c}")).exits(0);
    assert_eq!((logs.text().as_str(), logs.error().as_str()), ("out1\nout2\nout3", "err\n"));
    assert_eq!(f.ok(&format!("logs --tail 0 {c}")), "");
    assert!(f.ok(&format!("logs -t {c}")).lines().all(|l| l.starts_with("20") && l.contains("Z out")));
}

fn log_drivers(f: &Fixture) {
    for driver in ["json-file", "local"] {
        let c = f.name(driver);
        f.ok(&format!("run --name {c} --log-driver {driver} {BUSYBOX} echo by {driver}"));
        assert_eq!(f.ok(&format!("logs {c}")), format!("by {driver}"));
    }
    let none = f.name("none");
    assert_eq!(f.ok(&format!("run --name {none} --log-driver none {BUSYBOX} echo shown")), "shown");
    f.fails(1, &format!("logs {none}"));
}

fn top_lists_processes(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} {BUSYBOX} sh -c 'sleep 298 & exec sleep 299'"));
    let top = orlop_integration::wait::until("both processes", crate::fixture::SOON, || {
        let top = f.ok(&format!("top {c} -o pid,args"));
        (top.contains("sleep 298") && top.contains("sleep 299")).then_some(top)
    });
    assert!(top.contains(&f.pid(&c).to_string()), "{top}");
}

fn stats_once(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} --memory 64m {BUSYBOX} sh -c 'sleep 300 & wait'"));
    let stats = f.ok(&format!("stats --no-stream --format '{{{{.PIDs}}}} {{{{.MemUsage}}}}' {c}"));
    assert!(stats.starts_with("2 ") && stats.ends_with("64MiB") && !stats.contains(" 0B /"), "{stats}");
}

fn inspect_of_a_running_container(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} {BUSYBOX} sleep 300"));
    let comm = fs::read_to_string(format!("/proc/{}/comm", f.pid(&c))).expect("the init is there");
    assert_eq!(comm, "sleep\n");
    assert_eq!(f.inspect(&c, ".State.Status"), "running");
    f.ok(&format!("kill {c}"));
    f.becomes(&c, ".State.Pid", "0");
}

fn cp_in_and_out(f: &Fixture) {
    let (c, dir) = (f.name("c"), f.dir());
    fs::create_dir_all(dir.join("tree/sub")).expect("a directory of the test");
    fs::write(dir.join("tree/sub/file"), "from the host").expect("a file of the test");
    f.ok(&format!("run -d --name {c} --tmpfs /mnt {BUSYBOX} sleep 300"));
    f.ok(&format!("cp {} {c}:/srv/", dir.join("tree").display()));
    assert_eq!(f.ok(&format!("exec {c} cat /srv/tree/sub/file")), "from the host");
    f.ok(&format!("exec {c} sh -c 'echo -n from the container > /srv/tree/out'"));
    f.ok(&format!("cp {c}:/srv/tree/out {}", dir.display()));
    assert_eq!(fs::read_to_string(dir.join("out")).expect("the copy"), "from the container");
    f.ok(&format!("kill {c}"));
    f.ok(&format!("cp {c}:/srv/tree/sub/file {}", dir.join("stopped").display()));
    assert_eq!(fs::read_to_string(dir.join("stopped")).expect("the copy"), "from the host");
}

fn diff_and_export(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run --name {c} {BUSYBOX} sh -c 'echo new > /srv/new; echo x >> /etc/group; rm /bin/yes'"));
    let diff = f.ok(&format!("diff {c}"));
    for line in ["A /srv/new", "C /etc/group", "D /bin/yes"] {
        assert!(diff.lines().any(|l| l == line), "no {line:?} in {diff}");
    }
    // Mount points of the runtime must not show up as changes of the image.
    assert!(!diff.contains("/dev/") && !diff.contains("/proc/"), "{diff}");
    let tar = f.dir().join("export.tar");
    f.daemon().has_exported(f.inspect(&c, ".Id"));
    f.ok(&format!("export -o {} {c}", tar.display()));
    let list = orlop_integration::programs::run(orlop_integration::programs::command("tar").arg("-tf").arg(tar));
    let list = String::from_utf8_lossy(&list);
    assert!(list.lines().any(|l| l == "srv/new") && !list.lines().any(|l| l == "bin/yes"), "{list}");
}

fn prune_removes_the_stopped(f: &Fixture) {
    let (up, down) = (f.name("up"), f.name("down"));
    f.ok(&format!("run -d --name {up} {BUSYBOX} sleep 300"));
    let id = f.ok(&format!("run -d --name {down} {BUSYBOX} true"));
    f.ok(&format!("wait {down}"));
    let pruned = f.ok(&format!("container prune -f --filter label={}", f.docker.label));
    assert!(pruned.contains(&id), "{pruned}");
    f.fails(1, &format!("inspect {down}"));
    assert_eq!(f.inspect(&up, ".State.Running"), "true");
}
