//! `podman run` and `exec`: output, input, exit statuses, terminals.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use orlop_integration::wait;

crate::tests![Nothing:
    runtime_is_the_one_under_test,
    exit_statuses,
    streams_stay_apart,
    stdin_piped,
    output_in_bulk,
    terminal,
    detached_with_logs,
    exec_environment_and_status,
    exec_on_a_terminal,
    exec_detached,
];

fn runtime_is_the_one_under_test(f: &Fixture) {
    let c = f.idle("");
    let path = orlop_integration::runtime::path();
    assert_eq!(f.inspect(&c, ".OCIRuntime"), path.file_name().and_then(|name| name.to_str()).expect("a name"));
    assert_eq!(f.ok("info --format {{.Host.OCIRuntime.Path}}"), path.display().to_string());
}

fn exit_statuses(f: &Fixture) {
    for status in [0, 1, 7, 255] {
        f.fails(status, &format!("run --rm {BUSYBOX} sh -c 'exit {status}'"));
    }
    // Not by itself: the kernel keeps the first process of a pid namespace from that.
    let c = f.idle("");
    f.ok(&format!("kill -s KILL {c}"));
    assert_eq!(f.ok(&format!("wait {c}")), "137");
    let denied = f.fails(126, &format!("run --rm {BUSYBOX} /etc/passwd"));
    assert!(denied.to_lowercase().contains("permission denied"), "{denied}");
    let missing = f.fails(127, &format!("run --rm {BUSYBOX} /no/such/program"));
    assert!(missing.contains("/no/such/program"), "{missing}");
}

fn streams_stay_apart(f: &Fixture) {
    let out = f.run(&format!("run --rm {BUSYBOX} sh -c 'echo out; echo err >&2'")).exits(0);
    assert_eq!((out.text().as_str(), out.error().trim()), ("out", "err"));
}

fn stdin_piped(f: &Fixture) {
    assert_eq!(f.with_input(&format!("run --rm -i {BUSYBOX} wc -c"), &[b'x'; 300_000]), "300000");
}

fn output_in_bulk(f: &Fixture) {
    let out = f.run(&format!("run --rm {BUSYBOX} sh -c 'yes 0123456789abcde | head -n 65536'")).exits(0);
    assert_eq!(out.stdout.len(), 1 << 20);
}

fn terminal(f: &Fixture) {
    let mut pty = f.pty(&format!("run --rm -it {BUSYBOX} sh"));
    pty.expect("/ # ");
    pty.send("tty && echo pid $$\n");
    pty.expect("/dev/pts/0\r\npid 1\r\n");
    pty.sized(24, 80);
    pty.resized(40, 120);
    pty.send("exit 23\n");
    assert_eq!(pty.wait(), 23);
}

fn detached_with_logs(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} {BUSYBOX} sh -c 'echo first; echo second >&2; exit 5'"));
    assert_eq!(f.ok(&format!("wait {c}")), "5");
    let logs = f.run(&format!("logs {c}")).exits(0);
    assert_eq!((logs.text().as_str(), logs.error().trim()), ("first", "second"));
    assert_eq!(f.run(&format!("logs -f --tail 0 {c}")).exits(0).error(), "");
}

fn exec_environment_and_status(f: &Fixture) {
    let c = f.idle("--env FROM=run");
    let out =
        f.ok(&format!("exec --env TO=exec --workdir /srv --user tester {c} sh -c 'echo $FROM $TO $PWD $(id -un)'"));
    assert_eq!(out, "run exec /srv tester");
    f.fails(9, &format!("exec {c} sh -c 'exit 9'"));
    f.fails(127, &format!("exec {c} /no/such/program"));
    assert_eq!(f.with_input(&format!("exec -i {c} cat"), b"through"), "through");
}

fn exec_on_a_terminal(f: &Fixture) {
    let c = f.idle("");
    let mut pty = f.pty(&format!("exec -it {c} sh"));
    pty.expect("/ # ");
    pty.sized(24, 80);
    pty.send("exit 4\n");
    assert_eq!(pty.wait(), 4);
}

fn exec_detached(f: &Fixture) {
    let c = f.idle("");
    f.ok(&format!("exec -d {c} sh -c 'echo done > /tmp/file'"));
    wait::until("the file of the detached process", wait::SOON, || {
        (f.run(&format!("exec {c} cat /tmp/file")).text() == "done").then_some(())
    });
}
