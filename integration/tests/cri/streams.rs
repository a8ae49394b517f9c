//! Exec, Attach and PortForward.

use crate::fixture::{Container, FOREVER, Lab, SOON};
use orlop_integration::cri::messages::*;
use orlop_integration::cri::stream::{STDERR, STDIN, STDOUT, Stream};
use orlop_integration::wait;
use std::time::Duration;

pub const TESTS: &[crate::Test] = crate::tests![
    exec_output_and_status,
    exec_input,
    exec_input_to_its_end,
    exec_in_bulk,
    exec_terminal,
    exec_that_the_client_leaves,
    attach,
    attach_twice,
    attach_terminal,
    stdin_once,
    port_forward,
    port_forward_to_nobody,
];

fn exec(container: &Container<'_>, script: &str, tty: bool, stdin: bool) -> Stream {
    let cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    // With a terminal there is one stream out.
    let request = ExecRequest { container_id: container.id.clone(), cmd, tty, stdin, stdout: true, stderr: !tty };
    container.pod.lab.stream(container.pod.lab.cri.exec(request))
}

fn exec_output_and_status(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let mut stream = exec(&container, "echo out; echo err >&2; exit 6", false, false);
    assert_eq!(stream.exit_code(), 6);
    assert_eq!((stream.received(STDOUT), stream.received(STDERR)), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(exec(&container, "true", false, false).exit_code(), 0);
}

fn exec_input(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let mut stream = exec(&container, "read line; echo got $line; read line; exit $line", false, true);
    stream.send(STDIN, b"first\n");
    stream.expect(STDOUT, "got first\n");
    stream.send(STDIN, b"9\n");
    assert_eq!(stream.exit_code(), 9);
}

/// A client that closes the stream ends the input.
fn exec_input_to_its_end(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let mut stream = exec(&container, "echo ready; cat >/tmp/got; echo end >>/tmp/got", false, true);
    stream.expect(STDOUT, "ready");
    stream.send(STDIN, b"some text\n");
    stream.close();
    wait::until("the input has ended", SOON, || (container.says("cat /tmp/got") == "some text\nend").then_some(()));
}

fn exec_in_bulk(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let mut stream = exec(&container, "seq 1 200000; echo done >&2", false, false);
    assert_eq!(stream.exit_code(), 0);
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(stream.received(STDOUT) == expected, "{} of {} bytes", stream.received(STDOUT).len(), expected.len());
    assert_eq!(stream.received(STDERR), "done\n");
}

fn exec_terminal(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let mut stream = exec(&container, "exec sh -i", true, true);
    stream.expect(STDOUT, "# ");
    stream.resize(33, 99);
    until_it_says(&mut stream, "stty size", "33 99");
    stream.resize(44, 120);
    until_it_says(&mut stream, "stty size", "44 120");
    until_it_says(&mut stream, "tty", "/dev/pts/0");
    stream.send(STDIN, b"sleep 1000\n");
    // Ctrl-C goes to the terminal's foreground process: the shell, until it has made that of sleep.
    wait::until("Ctrl-C ends the sleep", SOON, || {
        stream.send(STDIN, b"\x03echo awa''ke\n");
        stream.try_expect(STDOUT, "awake", Duration::from_secs(2)).then_some(())
    });
    until_it_says(&mut stream, "echo $((40 + 2))", "42");
    stream.send(STDIN, b"exit 4\n");
    assert_eq!(stream.exit_code(), 4);
}

/// Types a line, again and again: a size is set some time after it was sent.
fn until_it_says(stream: &mut Stream, line: &str, answer: &str) {
    let mut n = 0;
    wait::until(&format!("{line} says {answer}"), SOON, || {
        n += 1;
        // The shell's echo of the line has it in other words than its answer.
        let mark = format!("mark-{}-{n}", line.len());
        stream.send(STDIN, format!("{line}; echo mark-{}-$(({n} + 0))\n", line.len()).as_bytes());
        stream.expect(STDOUT, &mark);
        stream.received(STDOUT).contains(&format!("\n{answer}\r\n")).then_some(())
    });
}

/// A client that goes away takes nothing with it.
fn exec_that_the_client_leaves(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    for _ in 0..5 {
        let mut stream = exec(&container, "echo ready; sleep 1; true", false, true);
        stream.expect(STDOUT, "ready");
        drop(stream);
    }
    assert_eq!(container.exec("echo still"), "still");
    wait::until("they have ended", SOON, || (!container.exec("ps -o args").contains("sleep 1;")).then_some(()));
}

fn attached(container: &Container<'_>, tty: bool) -> Stream {
    let request = AttachRequest { container_id: container.id.clone(), stdin: true, tty, stdout: true, stderr: !tty };
    container.pod.lab.stream(container.pod.lab.cri.attach(request))
}

const ECHO: &str =
    "while read line; do echo \"out $line\"; echo \"err $line\" >&2; [ \"$line\" != end ] || exit 3; done";

fn attach(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with(ECHO, |config| config.stdin = true);
    let mut stream = attached(&container, false);
    stream.send(STDIN, b"one\n");
    stream.expect(STDOUT, "out one\n");
    stream.expect(STDERR, "err one\n");
    stream.send(STDIN, b"end\n");
    stream.to_the_end();
    assert_eq!(container.ended().exit_code, 3);
    // The log has it all as well.
    wait::until("the log has it", SOON, || container.output().contains("out end").then_some(()));
}

/// Whoever leaves, the input stays open for the next one.
fn attach_twice(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with(ECHO, |config| config.stdin = true);
    let mut first = attached(&container, false);
    first.send(STDIN, b"one\n");
    first.expect(STDOUT, "out one\n");
    first.close();
    let mut second = attached(&container, false);
    second.send(STDIN, b"two\n");
    second.expect(STDOUT, "out two\n");
    assert_eq!(container.status().state(), ContainerState::Running);
}

fn attach_terminal(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with("exec sh -i", |config| {
        config.tty = true;
        config.stdin = true;
    });
    let mut stream = attached(&container, true);
    stream.resize(21, 84);
    until_it_says(&mut stream, "stty size", "21 84");
    stream.send(STDIN, b"exit 5\n");
    stream.to_the_end();
    assert_eq!(container.ended().exit_code, 5);
}

/// The input ends with the first client.
fn stdin_once(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run_with("cat; echo input has ended", |config| {
        config.stdin = true;
        config.stdin_once = true;
    });
    let mut stream = attached(&container, false);
    stream.send(STDIN, b"text\n");
    stream.expect(STDOUT, "text\n");
    stream.close();
    assert_eq!(container.ended().exit_code, 0);
    wait::until("all is in the log", SOON, || (container.output() == "text\ninput has ended").then_some(()));
}

fn port_forward(lab: &Lab) {
    let pod = lab.pod();
    let _server = pod.run("while :; do echo from port 7000 | nc -l -p 7000; done");
    let _other = pod.run("while :; do nc -l -p 7001 -e tr a-z A-Z; done");
    // The server may not listen yet.
    wait::until("the first port answers", SOON, || {
        let mut stream = forwarded(&pod.id, lab, &[7000]);
        stream.to_the_end();
        let data = stream.received(0);
        // Before all else comes the number of the port.
        data.ends_with("from port 7000\n").then_some(())
    });
    wait::until("both ways of the second port", SOON, || {
        let mut stream = forwarded(&pod.id, lab, &[7001]);
        stream.send(0, b"through the tunnel\n");
        let _ = stream.try_expect(0, "THROUGH THE TUNNEL\n", Duration::from_secs(20));
        let found = stream.received(0).contains("THROUGH THE TUNNEL\n");
        stream.close();
        found.then_some(())
    });
}

fn forwarded(pod: &str, lab: &Lab, port: &[i32]) -> Stream {
    lab.stream(lab.cri.port_forward(PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: port.to_vec() }))
}

fn port_forward_to_nobody(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(FOREVER);
    let mut stream = forwarded(&pod.id, lab, &[7009]);
    stream.to_the_end();
    // The second channel of a port has its error.
    assert!(stream.received(1).contains("refused"), "{:?}", stream.received(1));
    assert_eq!(container.exec("echo still"), "still");
}
