//! `docker run`: output, input, exit codes, terminals.

use crate::fixture::Fixture;
use orlop_integration::images::{BUSYBOX, DEBIAN, GREETING, GREETING_TEXT};

crate::tests![
    greeting_from_scratch,
    runtime_is_the_one_under_test,
    exit_status_of_the_command,
    exit_126_when_not_executable,
    exit_126_for_a_directory,
    exit_127_when_not_found,
    exit_128_and_signal,
    exit_137_when_killed,
    streams_stay_apart,
    stdin_piped,
    big_input,
    big_output_through_a_pipe,
    big_output_through_a_terminal,
    bash_on_a_terminal,
    terminal_signals_and_size,
    detach_keys_and_attach,
    detached_with_cidfile,
    rm_removes_the_container,
    workdir_env_entrypoint,
    workdir_is_made,
    env_file,
];

const MIB: usize = 1 << 20;

fn greeting_from_scratch(f: &Fixture) {
    assert_eq!(f.ok(&format!("run --rm {GREETING}")), GREETING_TEXT);
}

fn runtime_is_the_one_under_test(f: &Fixture) {
    let id = f.ok(&format!("run -d {BUSYBOX} sleep 300"));
    assert_eq!(f.inspect(&id, ".HostConfig.Runtime"), "orlop");
    if let Some(kind) = f.daemon().runtime_type() {
        let shims = f.daemon().processes();
        let name = kind.replace("io.containerd.", "containerd-shim-").replace('.', "-");
        assert!(shims.iter().any(|(_, line)| line.contains(&name) && line.contains(&id)), "{shims:?}");
        return;
    }
    let bundle = f.daemon().exec_root().join("containerd/daemon/io.containerd.runtime.v2.task/moby").join(&id);
    let options = std::fs::read_to_string(bundle.join("options.json")).expect("the shim's options");
    let options: serde_json::Value = serde_json::from_str(&options).expect("JSON");
    assert_eq!(options["binary_name"].as_str(), f.daemon().runtime().to_str(), "{options}");
}

fn exit_status_of_the_command(f: &Fixture) {
    for status in [0, 1, 7, 255] {
        f.fails(status, &format!("run --rm {BUSYBOX} sh -c 'exit {status}'"));
    }
}

fn exit_126_when_not_executable(f: &Fixture) {
    let error = f.fails(126, &format!("run --rm {BUSYBOX} /etc/passwd"));
    assert!(error.to_lowercase().contains("permission denied"), "{error}");
}

fn exit_126_for_a_directory(f: &Fixture) {
    f.fails(126, &format!("run --rm {BUSYBOX} /etc"));
}

fn exit_127_when_not_found(f: &Fixture) {
    let error = f.fails(127, &format!("run --rm {BUSYBOX} no-such-program"));
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    let error = f.fails(127, &format!("run --rm {BUSYBOX} /no/such/program"));
    assert!(error.contains("no such file or directory"), "{error}");
}

/// An init that passes on its child's end by a signal reports 128 + n; `docker run` hands that on.
fn exit_128_and_signal(f: &Fixture) {
    for (signal, status) in [("TERM", 143), ("INT", 130), ("SEGV", 139)] {
        f.fails(status, &format!("run --rm --init {BUSYBOX} sh -c 'kill -{signal} $$'"));
    }
}

fn exit_137_when_killed(f: &Fixture) {
    let name = f.name("c");
    f.ok(&format!("run -d --name {name} {BUSYBOX} sleep 300"));
    f.ok(&format!("kill {name}"));
    assert_eq!(f.ok(&format!("wait {name}")), "137");
    assert_eq!(f.inspect(&name, ".State.ExitCode"), "137");
    assert_eq!(f.inspect(&name, ".State.OOMKilled"), "false");
}

fn streams_stay_apart(f: &Fixture) {
    let output = f.run(&format!("run --rm {BUSYBOX} sh -c 'echo out; echo err >&2'")).exits(0);
    assert_eq!((output.text().as_str(), output.error().as_str()), ("out", "err\n"));
}

fn stdin_piped(f: &Fixture) {
    let output =
        f.with_input(&format!("run --rm -i {BUSYBOX} sh -c 'read line; echo \"<$line>\"; wc -c'"), b"first\nrest");
    assert_eq!(String::from_utf8_lossy(&output), "<first>\n4\n");
}

fn big_input(f: &Fixture) {
    let input: Vec<u8> = (0..4 * MIB).map(|i| (i % 251) as u8).collect();
    let output = f.with_input(&format!("run --rm -i {BUSYBOX} cat"), &input);
    assert!(output == input, "{} of {} bytes came back", output.len(), input.len());
}

/// 10 MB; Docker logs each line by a write, for which user-mode-linux takes minutes then.
fn much() -> usize {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if processor.contains("User Mode Linux") { MIB } else { 10 * MIB }
}

fn big_output_through_a_pipe(f: &Fixture) {
    let output = f.run(&format!("run --rm {BUSYBOX} sh -c 'yes 0123456789abcde | head -c {}'", much())).exits(0);
    assert_eq!(output.stdout.len(), much());
    assert!(output.stdout.chunks(16).all(|line| line == b"0123456789abcde\n"), "the bytes changed on the way");
}

fn big_output_through_a_terminal(f: &Fixture) {
    let mut pty = f.pty(&format!("run --rm -t {BUSYBOX} sh -c 'yes 0123456789abcde | head -c {}'", much()));
    assert_eq!(pty.wait(), 0);
    let lines = much() / 16;
    orlop_integration::wait::until("all lines", crate::fixture::SOON, || {
        let bytes = pty.bytes();
        // Docker's terminal turns each newline into carriage return and newline.
        let count = bytes.split(|b| *b == b'\n').filter(|line| line.starts_with(b"0123456789abcde\r")).count();
        (count == lines).then_some(())
    });
}

fn bash_on_a_terminal(f: &Fixture) {
    let mut pty = f.pty(&format!("run -it --rm {DEBIAN} bash"));
    pty.expect("# ");
    pty.send("tty; echo $((6 * 7))\n");
    let answer = pty.expect("42\r\n");
    assert!(answer.contains("/dev/pts/0") || answer.contains("/dev/console"), "{answer:?}");
    pty.expect("# ");
    // Job control works only when the shell has the terminal as its controlling one.
    pty.send("sleep 100 & jobs\n");
    pty.expect("Running");
    pty.expect("# ");
    pty.send("kill %1; exit 9\n");
    assert_eq!(pty.wait(), 9);
    assert!(!String::from_utf8_lossy(&pty.bytes()).contains("no job control"));
}

fn terminal_signals_and_size(f: &Fixture) {
    // The client sets the size only after the start.
    let script = "trap \"caught=1; echo caught\" INT; until [ \"$(stty size)\" = \"24 80\" ]; do sleep 0.1; done 2>/dev/null; \
                  echo sized; until [ $caught ]; do sleep 0.1; done; cat";
    let mut pty = f.pty(&format!("run -it --rm {BUSYBOX} sh -c '{script}'"));
    pty.expect("sized");
    pty.send("\x03");
    pty.expect("caught");
    pty.send("echoed\n");
    pty.expect("echoed\r\nechoed\r\n");
    // The end of the file.
    pty.send("\x04");
    assert_eq!(pty.wait(), 0);
}

fn detach_keys_and_attach(f: &Fixture) {
    let name = f.name("c");
    let mut pty = f.pty(&format!("run -it --name {name} {BUSYBOX} sh"));
    pty.expect("# ");
    pty.send("\x10\x11");
    pty.wait();
    assert_eq!(f.inspect(&name, ".State.Status"), "running");
    let mut pty = f.pty(&format!("attach {name}"));
    pty.send("echo back $((2 + 3))\n");
    pty.expect("back 5");
    pty.send("exit 4\n");
    assert_eq!(pty.wait(), 4);
}

fn detached_with_cidfile(f: &Fixture) {
    let file = f.dir().join("cid");
    let id = f.ok(&format!("run -d --cidfile {} {BUSYBOX} sleep 300", file.display()));
    assert_eq!(std::fs::read_to_string(file).expect("the file"), id);
    assert_eq!(f.inspect(&id, ".State.Running"), "true");
}

fn rm_removes_the_container(f: &Fixture) {
    f.ok(&format!("run --rm {BUSYBOX} true"));
    orlop_integration::wait::until("the container goes", crate::fixture::SOON, || {
        f.containers().is_empty().then_some(())
    });
}

fn workdir_env_entrypoint(f: &Fixture) {
    let flags = "--workdir /srv --env A=1 --env B='two words' --entrypoint /bin/sh";
    let out = f.ok(&format!("run --rm {flags} {BUSYBOX} -c 'pwd; echo \"$A,$B,$HOME\"'"));
    assert_eq!(out, "/srv\n1,two words,/root");
}

fn workdir_is_made(f: &Fixture) {
    assert_eq!(f.ok(&format!("run --rm -w /not/there/yet {BUSYBOX} pwd")), "/not/there/yet");
}

fn env_file(f: &Fixture) {
    let file = f.dir().join("env");
    std::fs::write(&file, "ONE=1\n# no\nTWO=a=b\n").expect("a file of the test");
    let out = f.ok(&format!("run --rm --env-file {} {BUSYBOX} env", file.display()));
    assert!(out.lines().any(|l| l == "ONE=1") && out.lines().any(|l| l == "TWO=a=b"), "{out}");
}
