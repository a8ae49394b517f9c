//! `docker exec`.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use orlop_integration::wait;

crate::tests![
    exec_runs_beside_init,
    exec_exit_statuses,
    exec_stdin,
    exec_big_output,
    exec_on_a_terminal_resizes,
    exec_user_env_workdir,
    exec_privileged,
    exec_detached,
    exec_in_a_stopped_container,
    exec_joins_every_namespace_and_cgroup,
];

fn sleeper(f: &Fixture, flags: &str) -> String {
    let name = f.name("c");
    f.ok(&format!("run -d --name {name} {flags} {BUSYBOX} sleep 300"));
    name
}

fn exec_runs_beside_init(f: &Fixture) {
    let c = sleeper(f, "");
    let out = f.ok(&format!("exec {c} sh -c 'cat /proc/1/comm; echo $$'"));
    let (init, pid) = out.split_once('\n').expect("two lines");
    assert_eq!(init, "sleep");
    assert_ne!(pid, "1");
}

fn exec_exit_statuses(f: &Fixture) {
    let c = sleeper(f, "");
    f.fails(5, &format!("exec {c} sh -c 'exit 5'"));
    f.fails(143, &format!("exec {c} sh -c 'kill -TERM $$'"));
    f.fails(126, &format!("exec {c} /etc/passwd"));
    // Docker 20.10 answers 126 to both; the words tell them apart.
    let missing = f.run(&format!("exec {c} no-such-program"));
    assert!([126, 127].contains(&missing.status), "{missing:?}");
    let said = missing.text() + &missing.error();
    assert!(said.contains("executable file not found in $PATH"), "{said}");
}

fn exec_stdin(f: &Fixture) {
    let c = sleeper(f, "");
    assert_eq!(f.with_input(&format!("exec -i {c} cat"), b"through"), b"through");
}

fn exec_big_output(f: &Fixture) {
    let c = sleeper(f, "");
    let out = f.run(&format!("exec {c} sh -c 'yes 0123456789abcde | head -c 10485760'")).exits(0);
    assert_eq!(out.stdout.len(), 10 << 20);
}

fn exec_on_a_terminal_resizes(f: &Fixture) {
    let c = sleeper(f, "");
    let mut pty = f.pty(&format!("exec -it {c} sh"));
    pty.expect("# ");
    pty.sized(24, 80);
    pty.resized(50, 132);
    pty.send("exit 3\n");
    assert_eq!(pty.wait(), 3);
}

fn exec_user_env_workdir(f: &Fixture) {
    let c = sleeper(f, "--env KEPT=yes");
    let out = f.ok(&format!("exec -u tester -w /srv -e MORE=1 {c} sh -c 'id -un; id -G; pwd; echo $KEPT$MORE'"));
    assert_eq!(out, "tester\n1000 29\n/srv\nyes1");
    assert_eq!(f.ok(&format!("exec -u 12:34 {c} sh -c 'id -u; id -g'")), "12\n34");
}

/// An exec may have more than its container: here the capability to set the host name is what differs.
fn exec_privileged(f: &Fixture) {
    let c = sleeper(f, "");
    let effective = |flag: &str| f.ok(&format!("exec {flag} {c} grep CapEff: /proc/self/status"));
    let (plain, privileged) = (effective(""), effective("--privileged"));
    assert!(plain.ends_with("00000000a80425fb"), "{plain}");
    // CAP_SYS_ADMIN and CAP_NET_ADMIN; the container's seccomp profile holds for every process in it.
    let bits =
        privileged.split_whitespace().nth(1).and_then(|hex| u64::from_str_radix(hex, 16).ok()).expect(&privileged);
    assert_eq!(bits & (1 << 21 | 1 << 12), 1 << 21 | 1 << 12, "{privileged}");
}

fn exec_detached(f: &Fixture) {
    let c = sleeper(f, "");
    f.ok(&format!("exec -d {c} sh -c 'echo done > /tmp/mark'"));
    wait::until("the mark of the detached exec", crate::fixture::SOON, || {
        (f.run(&format!("exec {c} cat /tmp/mark")).text() == "done").then_some(())
    });
}

fn exec_in_a_stopped_container(f: &Fixture) {
    let c = sleeper(f, "");
    f.ok(&format!("kill {c}"));
    let error = f.fails(1, &format!("exec {c} true"));
    assert!(error.contains("is not running"), "{error}");
}

fn exec_joins_every_namespace_and_cgroup(f: &Fixture) {
    let c = sleeper(f, "--cgroupns private");
    let list = "for n in cgroup ipc mnt net pid uts user; do readlink /proc/$P/ns/$n; done; cat /proc/$P/cgroup";
    let of = |p: &str| f.ok(&format!("exec {c} sh -c 'P={p}; {list}'"));
    assert_eq!(of("self"), of("1"));
}
