//! A container's life: create, start, stop, signals, pause, restart policies, health.

use crate::fixture::{Fixture, SOON};
use orlop_integration::images::BUSYBOX;
use orlop_integration::private::signal;
use orlop_integration::wait;
use rustix::process::Signal;
use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

crate::tests![
    create_then_start,
    start_twice_over,
    start_attached,
    stop_asks_then_kills,
    restart_gives_a_new_init,
    kill_sends_the_signal,
    pause_and_unpause,
    kill_while_paused,
    rename,
    rm_needs_force,
    wait_gives_the_status,
    attach_to_a_running_container,
    events_in_order,
    restart_on_failure_gives_up,
    restart_always_after_a_kill,
    health_check,
    init_reaps_orphans,
];

const TRAP: &str =
    "trap \"echo got-term; exit 3\" TERM; trap \"echo got-usr1\" USR1; echo ready; while :; do sleep 0.1; done";

fn trapper(f: &Fixture, flags: &str) -> String {
    let name = f.name("c");
    f.ok(&format!("run -d --name {name} {flags} {BUSYBOX} sh -c '{TRAP}'"));
    f.logs(&name, "ready");
    name
}

fn create_then_start(f: &Fixture) {
    let name = f.name("c");
    f.ok(&format!("create --name {name} {BUSYBOX} sh -c 'echo started; sleep 300'"));
    assert_eq!(f.inspect(&name, ".State.Status"), "created");
    f.ok(&format!("start {name}"));
    f.logs(&name, "started");
    assert_eq!(f.inspect(&name, ".State.Status"), "running");
}

fn start_twice_over(f: &Fixture) {
    let name = f.name("c");
    f.ok(&format!("run --name {name} {BUSYBOX} sh -c 'echo x >> /srv/runs; wc -l < /srv/runs'"));
    assert_eq!(f.ok(&format!("start -a {name}")).trim(), "2");
    assert_eq!(f.ok(&format!("start -a {name}")).trim(), "3");
}

fn start_attached(f: &Fixture) {
    let id = f.ok(&format!("create -i {BUSYBOX} sh -c 'cat; exit 6'"));
    let output = f.docker.run_with_input(&format!("start -ai {id}"), Some(b"in and out")).exits(6);
    assert_eq!(output.text(), "in and out");
}

fn stop_asks_then_kills(f: &Fixture) {
    let polite = trapper(f, "");
    f.ok(&format!("stop -t 20 {polite}"));
    assert_eq!(f.inspect(&polite, ".State.ExitCode"), "3");
    f.logs(&polite, "got-term");
    let deaf = f.name("deaf");
    f.ok(&format!("run -d --name {deaf} {BUSYBOX} sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.1; done'"));
    f.logs(&deaf, "ready");
    let begin = Instant::now();
    f.ok(&format!("stop -t 1 {deaf}"));
    assert!(begin.elapsed().as_millis() >= 900, "killed before its second was over");
    assert_eq!(f.inspect(&deaf, ".State.ExitCode"), "137");
}

fn restart_gives_a_new_init(f: &Fixture) {
    let c = trapper(f, "");
    let before = f.pid(&c);
    f.ok(&format!("restart -t 5 {c}"));
    assert_ne!(f.pid(&c), before);
    assert_eq!(f.inspect(&c, ".State.Running"), "true");
    assert_eq!(f.ok(&format!("exec {c} echo alive")), "alive");
}

fn kill_sends_the_signal(f: &Fixture) {
    let c = trapper(f, "");
    f.ok(&format!("kill -s USR1 {c}"));
    f.logs(&c, "got-usr1");
    assert_eq!(f.inspect(&c, ".State.Running"), "true");
    f.ok(&format!("kill -s 15 {c}"));
    assert_eq!(f.ok(&format!("wait {c}")), "3");
}

fn pause_and_unpause(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!(
        "run -d --name {c} {BUSYBOX} sh -c 'i=0; while :; do i=$((i+1)); echo $i > /srv/n; sleep 0.02; done'"
    ));
    let count = || f.ok(&format!("cp {c}:/srv/n -"));
    wait::until("the counter starts", SOON, || f.run(&format!("exec {c} cat /srv/n")).text().parse::<u32>().ok());
    f.ok(&format!("pause {c}"));
    assert_eq!(f.inspect(&c, ".State.Status"), "paused");
    let frozen = count();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(frozen == count(), "a paused container counts on");
    f.fails(1, &format!("exec {c} true"));
    f.ok(&format!("unpause {c}"));
    assert_eq!(f.inspect(&c, ".State.Status"), "running");
    wait::until("the counter goes on", SOON, || (count() != frozen).then_some(()));
}

/// `rm -f` has to thaw what it kills.
fn kill_while_paused(f: &Fixture) {
    let c = f.ok(&format!("run -d {BUSYBOX} sleep 300"));
    f.ok(&format!("pause {c}"));
    f.ok(&format!("rm -f {c}"));
    assert!(f.containers().is_empty());
}

fn rename(f: &Fixture) {
    let (old, new) = (f.name("old"), f.name("new"));
    let id = f.ok(&format!("run -d --name {old} {BUSYBOX} sleep 300"));
    f.ok(&format!("rename {old} {new}"));
    assert_eq!(f.inspect(&new, ".Id"), id);
    assert_eq!(f.ok(&format!("exec {new} echo here")), "here");
    f.fails(1, &format!("inspect {old}"));
}

fn rm_needs_force(f: &Fixture) {
    let id = f.ok(&format!("run -d {BUSYBOX} sleep 300"));
    let pid = f.pid(&id);
    f.fails(1, &format!("rm {id}"));
    f.ok(&format!("rm -f {id}"));
    assert!(f.containers().is_empty());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its init still runs");
}

fn wait_gives_the_status(f: &Fixture) {
    let c = trapper(f, "");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| f.docker.run(&format!("wait {c}")));
        // Early enough or not, the answer is the same.
        std::thread::sleep(std::time::Duration::from_millis(300));
        f.ok(&format!("kill -s TERM {c}"));
        assert_eq!(waiting.join().expect("docker wait").exits(0).text(), "3");
    });
}

fn attach_to_a_running_container(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -di --name {c} {BUSYBOX} sh -c 'read line; echo \"<$line>\"; sleep 1; exit 8'"));
    let mut attach = f.command(&format!("attach {c}"));
    let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker attach");
    // Kept open: at the end of its input an attached client leaves, and the output that follows is not for it.
    let mut stdin = attach.stdin.take().expect("piped");
    stdin.write_all(b"over the wire\n").expect("write");
    assert_eq!(orlop_integration::docker::wait("attach", &mut attach).code(), Some(8));
    let output = attach.wait_with_output().expect("its output");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "<over the wire>\n");
}

fn events_in_order(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run --name {c} {BUSYBOX} true"));
    f.ok(&format!("rm {c}"));
    let query = format!("events --since 5m --until 0s --filter container={c} --format '{{{{.Action}}}}'");
    // The end of the query is a whole second, so the last events come into view with the next one.
    let actions = wait::until("the container's end among the events", SOON, || {
        let out = f.ok(&query);
        out.contains("destroy").then_some(out)
    });
    let actions: Vec<&str> = actions.lines().filter(|a| ["create", "start", "die", "destroy"].contains(a)).collect();
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
}

fn restart_on_failure_gives_up(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} --restart on-failure:2 {BUSYBOX} sh -c 'echo run; exit 1'"));
    f.becomes(&c, ".RestartCount", "2");
    f.becomes(&c, ".State.Status", "exited");
    assert_eq!(f.ok(&format!("logs {c}")), "run\nrun\nrun");
}

fn restart_always_after_a_kill(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} --restart always {BUSYBOX} sleep 300"));
    let before = f.pid(&c);
    signal(before, Signal::KILL);
    f.becomes(&c, ".RestartCount", "1");
    f.becomes(&c, ".State.Running", "true");
    assert_ne!(f.pid(&c), before);
}

fn health_check(f: &Fixture) {
    let c = f.name("c");
    let check = "--health-cmd 'test -f /srv/well' --health-interval 300ms --health-retries 2";
    f.ok(&format!("run -d --name {c} {check} {BUSYBOX} sleep 300"));
    f.becomes(&c, ".State.Health.Status", "unhealthy");
    f.ok(&format!("exec {c} touch /srv/well"));
    f.becomes(&c, ".State.Health.Status", "healthy");
}

fn init_reaps_orphans(f: &Fixture) {
    let script = "(sleep 0.3 &); exec sleep 300";
    let zombies = "grep -l State:.Z /proc/[0-9]*/status | wc -l";
    for (flag, left) in [("--init", "0"), ("", "1")] {
        let c = f.ok(&format!("run -d {flag} {BUSYBOX} sh -c '{script}'"));
        wait::until("the orphan has ended", SOON, || {
            (f.ok(&format!("exec {c} sh -c 'grep -l ^sleep.0.3 /proc/[0-9]*/cmdline | wc -l'")) == "0").then_some(())
        });
        wait::until(&format!("{left} zombies with flag {flag:?}"), SOON, || {
            (f.ok(&format!("exec {c} sh -c '{zombies}'")) == left).then_some(())
        });
    }
}
