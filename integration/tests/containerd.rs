//! containerd-shim-orlop-v2 underneath a containerd of its own.

#[path = "containerd/checkpoint.rs"]
mod checkpoint;
#[path = "containerd/rootfs.rs"]
mod rootfs;
#[path = "containerd/sandbox.rs"]
mod sandbox;

use checkpoint::{a_checkpoint_in_a_directory, a_checkpoint_is_restored};
use libtest_mimic::{Arguments, Trial};
use orlop_integration::containerd::{self, CGROUPS, Containerd};
use orlop_integration::docker::Output;
use orlop_integration::private::signal;
use orlop_integration::pty::Pty;
use orlop_integration::runtime::shim;
use orlop_integration::{programs, wait};
use rootfs::{a_file_as_a_block_device, an_image, an_image_of_very_many_layers, layers_with_other_ids};
use rustix::process::Signal;
use sandbox::{a_sandbox_and_its_end, containers_of_a_sandbox};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

type Body = fn(&Containerd);

macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

/// What a test needs that not every machine has.
enum Need {
    /// This version of containerd, and of its `ctr`.
    Since(u32, u32),
    /// containerd 1.7, and a program that makes file systems.
    BlockDevices,
    /// A CRIU that works on this kernel.
    Criu,
    /// Newer daemons: [`NEWER`].
    Newer,
    /// A systemd that manages this machine.
    Systemd,
}

/// Names newer daemons, separated by colons, that take over from the first one in turn.
const NEWER: &str = "CONTAINERD_NEWER";
/// The tests that are listed as ignored where what they need is missing. Containers join a sandbox without an annotation only where a shim may
/// answer that it speaks version 3.
const NEEDS: &[(&str, Need)] = &[
    ("a_checkpoint_in_a_directory", Need::Criu),
    ("a_checkpoint_is_restored", Need::Criu),
    ("a_file_as_a_block_device", Need::BlockDevices),
    ("a_sandbox_and_its_end", Need::Since(2, 2)),
    ("containerd_is_upgraded", Need::Newer),
    ("containers_of_a_sandbox", Need::Since(2, 3)),
    ("layers_with_other_ids", Need::Since(1, 7)),
    ("limits_by_systemd", Need::Systemd),
];

impl Need {
    fn is_met(&self) -> bool {
        static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| containerd::version(&containerd::path()));
        static CRIU: LazyLock<bool> = LazyLock::new(orlop_integration::criu::works);
        match self {
            Need::Since(major, minor) => *VERSION >= (*major, *minor),
            Need::BlockDevices => *VERSION >= (1, 7) && Path::new(containerd::MKFS).exists(),
            Need::Criu => *CRIU,
            Need::Newer => std::env::var_os(NEWER).is_some(),
            Need::Systemd => Path::new("/run/systemd/private").exists(),
        }
    }
}

const TESTS: &[(&str, Body)] = tests![
    output_and_exit_status,
    a_signal_is_128_and_its_number,
    a_program_that_is_missing,
    a_terminal,
    input_to_its_end,
    output_in_bulk,
    exec_output_and_exit_status,
    exec_of_a_program_that_is_missing,
    exec_leaves_a_grandchild_behind,
    fast_execs_are_never_lost,
    processes_by_pid_and_exec_id,
    pause_and_resume,
    limits_are_updated,
    statistics,
    events_in_their_order,
    a_kill_for_memory_comes_before_the_exit,
    a_log_file,
    a_logging_program,
    a_logging_program_that_fails,
    one_shim_for_a_group,
    another_runtime,
    options_of_a_file,
    one_thread_and_little_memory,
    a_created_container_is_deleted,
    the_shim_is_killed,
    containerd_restarts,
    containerd_is_killed_and_an_exit_is_told_later,
    containerd_is_upgraded,
    an_image,
    an_image_of_very_many_layers,
    layers_with_other_ids,
    a_file_as_a_block_device,
    limits_by_systemd,
    a_checkpoint_is_restored,
    a_checkpoint_in_a_directory,
    containers_of_a_sandbox,
    a_sandbox_and_its_end,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let daemon: Arc<OnceLock<Containerd>> = Arc::default();
    let trial = |(name, body): &(&'static str, Body)| {
        let (daemon, body) = (Arc::clone(&daemon), *body);
        Trial::test(*name, move || {
            body(daemon.get().expect("main starts it"));
            Ok(())
        })
        .with_ignored_flag(NEEDS.iter().any(|(test, need)| test == name && !need.is_met()))
    };
    let trials: Vec<Trial> = TESTS.iter().map(trial).collect();
    if !arguments.list && trials.iter().any(|trial| !arguments.is_filtered_out(trial)) {
        programs::check();
        // Here: the daemon is told to end when the thread that started it does.
        daemon.get_or_init(|| Containerd::start(&shim()));
    }
    let all = libtest_mimic::run(&arguments, trials);
    let left = daemon.get().map(Containerd::left).unwrap_or_default();
    if !left.is_empty() {
        eprintln!("left behind:\n{}", left.join("\n"));
    }
    let failed = all.has_failed() || !left.is_empty();
    // A static is not dropped, and this one has a daemon to end.
    drop(daemon);
    ExitCode::from(u8::from(failed))
}

/// An id that no other test has.
fn id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A container that runs until it is killed; removed on drop.
struct Running<'a> {
    daemon: &'a Containerd,
    id: String,
}

impl<'a> Running<'a> {
    fn new(daemon: &'a Containerd, flags: &str, program: &str) -> Self {
        let id = id();
        daemon.ctr(&format!("run -d --cgroup {CGROUPS}/{id} {flags} ROOTFS {id} {program}")).exits(0);
        Self { daemon, id }
    }

    fn sleeping(daemon: &'a Containerd) -> Self {
        Self::new(daemon, "", "/bin/sleep 1000")
    }

    fn task(&self, line: &str) -> Output {
        self.daemon.ctr(&format!("task {}", line.replace("ID", &self.id)))
    }

    fn status(&self) -> String {
        let list = self.daemon.ctr("task ls").exits(0).text();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(&self.id)).unwrap_or("");
        line.split_whitespace().nth(2).unwrap_or("gone").to_owned()
    }

    fn pid(&self) -> u32 {
        let list = self.daemon.ctr("task ls").exits(0).text();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(&self.id)).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0)
    }

    fn shim(&self) -> u32 {
        let parent = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
            stat.rsplit_once(')').expect("stat").1.split_whitespace().nth(1).expect("ppid").parse().expect("a pid")
        };
        parent(self.pid())
    }

    fn is(&self, status: &str) {
        wait::until(&format!("{} is {status}", self.id), wait::SOON, || (self.status() == status).then_some(()));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.task("kill -s KILL ID");
        wait::until("the task goes", wait::SOON, || {
            self.task("rm ID");
            (self.status() == "gone").then_some(())
        });
        self.daemon.ctr(&format!("containers rm {}", self.id));
    }
}

fn run(daemon: &Containerd, flags: &str, program: &str) -> Output {
    let id = id();
    daemon.ctr(&format!("run --rm --cgroup {CGROUPS}/{id} {flags} ROOTFS {id} {program}"))
}

fn output_and_exit_status(daemon: &Containerd) {
    let out = run(daemon, "", "/bin/sh -c 'echo out; echo err >&2; exit 7'").exits(7);
    assert_eq!(out.text(), "out");
    assert!(out.error().contains("err"), "{out:?}");
}

fn a_signal_is_128_and_its_number(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    container.task("kill -s KILL ID").exits(0);
    container.is("STOPPED");
    let said = container.task("rm ID").exits(0).error();
    assert!(said.contains("exit code 137"), "{said}");
}

fn a_program_that_is_missing(daemon: &Containerd) {
    let out = run(daemon, "", "/bin/nothere").exits(1);
    // Engines tell by these words that the program is at fault.
    assert!(out.error().contains("no such file or directory"), "{}", out.error());
    assert!(out.error().contains("OCI runtime"), "{}", out.error());
}

fn a_terminal(daemon: &Containerd) {
    let id = id();
    let command = daemon.command(&format!("run --rm -t --cgroup {CGROUPS}/{id} ROOTFS {id} /bin/sh"));
    let mut pty = Pty::spawn(&command, 33, 99);
    pty.expect("#");
    pty.sized(33, 99);
    pty.send("tty\n");
    pty.expect("/dev/pts/0");
    pty.send("exit 4\n");
    assert_eq!(pty.wait(), 4);
}

fn bulk() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn input_to_its_end(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let bytes = bulk();
    let line = format!("task exec --exec-id cat {} /bin/cat", container.id);
    let out = daemon.ctr_with_input(&line, Some(&bytes)).exits(0);
    assert!(out.stdout == bytes, "{} of {} bytes came back", out.stdout.len(), bytes.len());
}

fn output_in_bulk(daemon: &Containerd) {
    let out = run(daemon, "", "/bin/dd if=/dev/zero bs=4096 count=2000").exits(0);
    assert_eq!(out.stdout.len(), 4096 * 2000);
}

fn exec_output_and_exit_status(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let out = container.task("exec --exec-id e ID /bin/sh -c 'echo in; echo err >&2; exit 3'").exits(3);
    assert_eq!(out.text(), "in");
    assert!(out.error().contains("err"), "{out:?}");
    // The id is free again.
    container.task("exec --exec-id e ID /bin/true").exits(0);
}

fn exec_of_a_program_that_is_missing(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let out = container.task("exec --exec-id e ID /bin/nothere").exits(1);
    assert!(out.error().contains("no such file or directory"), "{}", out.error());
    container.task("exec --exec-id e2 ID /bin/true").exits(0);
}

/// The end of the process is the end of its output, whoever else has the pipe; and the other is not killed by that.
fn exec_leaves_a_grandchild_behind(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let script = "(until [ -e /tmp/go-ID ]; do sleep 0.1; done; echo late; echo late >/tmp/late-ID) & echo early";
    let out = container.task(&format!("exec --exec-id e ID /bin/sh -c '{script}'")).exits(0);
    assert_eq!(out.text(), "early");
    let go = daemon.rootfs().join(format!("tmp/go-{}", container.id));
    fs::write(go, "").expect("our file");
    let late = daemon.rootfs().join(format!("tmp/late-{}", container.id));
    wait::until("the grandchild goes on", wait::SOON, || late.exists().then_some(()));
}

fn fast_execs_are_never_lost(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let count: u32 = std::env::var("FAST_EXECS").ok().and_then(|n| n.parse().ok()).unwrap_or(120);
    let shim = container.shim();
    container.task("exec --exec-id warm ID /bin/true").exits(0);
    let fds = || fs::read_dir(format!("/proc/{shim}/fd")).expect("the shim").count();
    let before = fds();
    for n in 0..count {
        let status = i32::try_from(n % 5).expect("small");
        container.task(&format!("exec --exec-id e{n} ID /bin/sh -c 'exit {status}'")).exits(status);
    }
    wait::until("the shim has closed what it opened", wait::SOON, || (fds() <= before).then_some(()));
}

fn processes_by_pid_and_exec_id(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let mut exec = daemon.command(&format!("task exec --exec-id held {} /bin/sleep 1000", container.id));
    let mut exec = exec.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ctr");
    let pid = container.pid().to_string();
    wait::until("both are listed", wait::SOON, || {
        let list = container.task("ps ID").exits(0).text();
        let lines: Vec<&str> = list.lines().skip(1).collect();
        let init = lines.iter().any(|line| line.split_whitespace().next() == Some(&pid));
        (lines.len() == 2 && init && list.contains("held")).then_some(())
    });
    container.task("kill --exec-id held -s TERM ID").exits(0);
    container.task("kill --exec-id held -s KILL ID");
    assert_eq!(exec.wait().expect("ctr").code(), Some(143));
}

fn pause_and_resume(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    container.is("RUNNING");
    container.task("pause ID").exits(0);
    container.is("PAUSED");
    container.task("resume ID").exits(0);
    container.is("RUNNING");
}

fn limits_are_updated(daemon: &Containerd) {
    let container = Running::new(daemon, "--memory-limit 67108864", "/bin/sleep 1000");
    let limit = || {
        let text = container.task("metrics --format json ID").exits(0).text();
        text.contains("67108864").then_some(())
    };
    assert!(limit().is_some(), "{:?}", container.task("metrics ID"));
}

fn limits_by_systemd(daemon: &Containerd) {
    let id = id();
    let unit = format!("orlop-test-{id}.scope");
    let cgroup = format!("--cgroup system.slice:orlop-test:{id} --memory-limit 67108864");
    let flags = format!("--runtime io.containerd.runc.v2 --runc-systemd-cgroup {cgroup}");
    daemon.ctr(&format!("run -d {flags} ROOTFS {id} /bin/sleep 1000")).exits(0);
    let container = Running { daemon, id };
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("a process");
    assert!(cgroups.contains(&format!("/system.slice/{unit}")), "{cgroups}");
    let of_unit = |property: &str| {
        let show = Command::new("systemctl").args(["show", "--value", "-p", property, &unit]).output();
        String::from_utf8(show.expect("systemctl").stdout).expect("ASCII").trim().to_owned()
    };
    assert_eq!((of_unit("ActiveState").as_str(), of_unit("MemoryMax").as_str()), ("active", "67108864"));
    assert!(container.task("metrics --format json ID").exits(0).text().contains("67108864"));
    container.task("exec --exec-id e ID /bin/true").exits(0);
    container.task("pause ID").exits(0);
    container.is("PAUSED");
    container.task("resume ID").exits(0);
    drop(container);
    wait::until("the unit has gone", wait::SOON, || (of_unit("ActiveState") == "inactive").then_some(()));
}

fn statistics(daemon: &Containerd) {
    let container = Running::new(daemon, "", "/bin/sh -c 'while :; do :; done'");
    let cpu = || {
        let text = container.task("metrics ID").exits(0).text();
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        assert!(of("pids.current").is_some_and(|n| n >= 1), "{text}");
        assert!(of("memory.usage_in_bytes").or(of("memory.usage")).is_some_and(|n| n > 0), "{text}");
        of("cpuacct.usage").or(of("cpu.usage_usec")).unwrap_or_else(|| panic!("no cpu time: {text}"))
    };
    let first = cpu();
    wait::until("the processor is used", wait::SOON, || (cpu() > first).then_some(()));
}

/// What `ctr events` prints while `f` runs, as topics of this container.
fn events_of(daemon: &Containerd, id: &str, last: &str, f: impl FnOnce()) -> Vec<String> {
    let file = daemon.file(&format!("events-{id}"));
    let out = fs::File::create(&file).expect("a file of ours");
    let mut watcher = daemon.command("events").stdout(out).stderr(Stdio::null()).spawn().expect("ctr");
    let topics = || -> Vec<String> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let ours = text.lines().filter(|line| line.contains(&format!("\"{id}\"")));
        ours.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")))
            .map(str::to_owned)
            .collect()
    };
    // Until the watcher is there: it prints what anybody does.
    wait::until("events are told", wait::SOON, || {
        run(daemon, "", "/bin/true");
        (!fs::read_to_string(&file).unwrap_or_default().is_empty()).then_some(())
    });
    f();
    let told = wait::until(&format!("{last} is told"), wait::SOON, || {
        let topics = topics();
        topics.contains(&last.to_owned()).then_some(topics)
    });
    let _ = watcher.kill();
    let _ = watcher.wait();
    told
}

fn events_in_their_order(daemon: &Containerd) {
    let id = id();
    let told = events_of(daemon, &id, "/tasks/delete", || {
        let run = format!("run -d --cgroup {CGROUPS}/{id} ROOTFS {id} /bin/sleep 1000");
        daemon.ctr(&run).exits(0);
        daemon.ctr(&format!("task exec --exec-id e {id} /bin/true")).exits(0);
        daemon.ctr(&format!("task pause {id}")).exits(0);
        daemon.ctr(&format!("task resume {id}")).exits(0);
        daemon.ctr(&format!("task kill -s KILL {id}")).exits(0);
        wait::until("it is deleted", wait::SOON, || (daemon.ctr(&format!("task rm {id}")).status == 0).then_some(()));
        daemon.ctr(&format!("containers rm {id}")).exits(0);
    });
    let expected = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    assert_eq!(told, expected);
}

fn a_kill_for_memory_comes_before_the_exit(daemon: &Containerd) {
    let id = id();
    let told = events_of(daemon, &id, "/tasks/delete", || {
        let eat = "head -c 200000000 /dev/zero | tail";
        let flags = format!("--rm --memory-limit 16777216 --cgroup {CGROUPS}/{id}");
        daemon.ctr(&format!("run {flags} ROOTFS {id} /bin/sh -c '{eat}'"));
    });
    let at = |topic: &str| told.iter().position(|t| t == topic);
    assert!(at("/tasks/oom").is_some() && at("/tasks/oom") < at("/tasks/exit"), "{told:?}");
}

fn a_log_file(daemon: &Containerd) {
    let log = daemon.file("logs/deep/container.log");
    let flags = format!("--log-uri file://{}", log.display());
    let container = Running::new(daemon, &flags, "/bin/sh -c 'echo out; echo err >&2; sleep 1000'");
    wait::until("both streams are in the file", wait::SOON, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        (text.contains("out\n") && text.contains("err\n")).then_some(())
    });
    drop(container);
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a file of ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

fn a_logging_program(daemon: &Containerd) {
    let (program, got) = (daemon.file("logger"), daemon.file("logged"));
    let text = format!(
        "exec 5>&-\n{{ echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID $*\"; cat <&3; cat <&4; }} >{}",
        got.display()
    );
    script(&program, &text);
    let flags = format!("--log-uri 'binary://{}?a=b%20c'", program.display());
    let container = Running::new(daemon, &flags, "/bin/sh -c 'echo out; echo err >&2'");
    let (head, id) = ("default/", container.id.clone());
    container.is("STOPPED");
    drop(container);
    let text = fs::read_to_string(&got).expect("what was logged");
    assert_eq!(text, format!("{head}{id} a b c\nout\nerr\n"));
}

fn a_logging_program_that_fails(daemon: &Containerd) {
    let program = daemon.file("bad-logger");
    script(&program, "exit 1");
    let id = id();
    let uri = format!("binary-v2://{}", program.display());
    let out = daemon.ctr(&format!("run -d --cgroup {CGROUPS}/{id} --log-uri {uri} ROOTFS {id} /bin/true")).exits(1);
    assert!(out.error().contains("bad-logger"), "{}", out.error());
    daemon.ctr(&format!("containers rm {id}"));
}

fn one_shim_for_a_group(daemon: &Containerd) {
    let flags = "--annotation io.kubernetes.cri.sandbox-id=pod1";
    let first = Running::new(daemon, flags, "/bin/sleep 1000");
    let second = Running::new(daemon, flags, "/bin/sleep 1000");
    let alone = Running::sleeping(daemon);
    assert_eq!(first.shim(), second.shim());
    assert_ne!(first.shim(), alone.shim());
    // The shim stays for the one that is left.
    drop(first);
    second.task("exec --exec-id e ID /bin/true").exits(0);
}

fn another_runtime(daemon: &Containerd) {
    let runc = programs::path("runc");
    let flags = format!("--runtime io.containerd.runc.v2 --runc-binary {}", runc.display());
    run(daemon, &flags, "/bin/sh -c 'exit 9'").exits(9);
    let container = Running::new(daemon, &flags, "/bin/sleep 1000");
    let out = container.task("exec --exec-id e ID /bin/sh -c 'echo by runc; exit 2'").exits(2);
    assert_eq!(out.text(), "by runc");
    container.task("pause ID").exits(0);
    container.is("PAUSED");
    container.task("resume ID").exits(0);
    assert!(container.task("metrics ID").exits(0).text().contains("pids.current"));
    assert!(container.task("ps ID").exits(0).text().lines().count() == 2);
    let command = daemon.command(&format!("task exec -t --exec-id t {} /bin/sh", container.id));
    let mut pty = Pty::spawn(&command, 20, 70);
    pty.expect("#");
    pty.send("tty; exit 5\n");
    pty.expect("/dev/pts/0");
    assert_eq!(pty.wait(), 5);
}

/// As CRI gives them to a runtime of any name: a table in TOML, or the file that has it.
fn options_of_a_file(daemon: &Containerd) {
    let (file, root) = (daemon.file("options.toml"), daemon.file("other-root"));
    let flags = format!("--runtime-config-path {}", file.display());
    fs::write(&file, format!("Root = {:?}\nSystemdCgroup = false\n", root.display())).expect("a file of ours");
    let container = Running::new(daemon, &flags, "/bin/sleep 1000");
    assert!(root.join("default").join(&container.id).is_dir(), "state of the container in the root of its options");
    fs::write(&file, "SystemdCgroups = true\n").expect("a file of ours");
    let said = run(daemon, &flags, "/bin/true").exits(1).error();
    assert!(said.contains("options.toml, line 1: unknown field `SystemdCgroups`"), "{said}");
}

fn one_thread_and_little_memory(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let status = fs::read_to_string(format!("/proc/{}/status", container.shim())).expect("the shim");
    let of = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of status");
        line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
    };
    assert_eq!(of("Threads:"), 1);
    // KiB; a build for debugging is larger than one for use.
    let most = if cfg!(debug_assertions) && std::env::var_os("SHIM").is_some() { 16_000 } else { 4_000 };
    assert!(of("VmRSS:") < most, "{} KiB", of("VmRSS:"));
}

fn a_created_container_is_deleted(daemon: &Containerd) {
    let id = id();
    daemon.ctr(&format!("containers create --runtime io.containerd.orlop.v2 ROOTFS {id} /bin/true")).exits(0);
    daemon.ctr(&format!("containers rm {id}")).exits(0);
}

fn the_shim_is_killed(daemon: &Containerd) {
    let container = Running::sleeping(daemon);
    let (shim, init) = (container.shim(), container.pid());
    signal(shim, Signal::KILL);
    wait::until("containerd has cleaned up", wait::SOON, || (container.status() == "gone").then_some(()));
    wait::until("the init has gone", wait::SOON, || (!Path::new(&format!("/proc/{init}")).exists()).then_some(()));
    daemon.ctr(&format!("containers rm {}", container.id)).exits(0);
}

/// While containerd is away, so are the tests beside this one: they run in the same daemon. So these two have their own.
fn alone() -> Containerd {
    Containerd::start(&shim())
}

fn containerd_restarts(_: &Containerd) {
    let daemon = alone();
    {
        let container = Running::sleeping(&daemon);
        let pid = container.pid();
        daemon.suspend(Signal::TERM);
        daemon.resume();
        container.is("RUNNING");
        assert_eq!(container.pid(), pid);
        let out = container.task("exec --exec-id e ID /bin/echo still here").exits(0);
        assert_eq!(out.text(), "still here");
    }
    assert_eq!(daemon.left(), Vec::<String>::new());
}

/// A container lives on under newer versions, which find it by what older ones have left in its bundle.
fn containerd_is_upgraded(_: &Containerd) {
    let daemon = alone();
    {
        let newer = std::env::var_os(NEWER).expect("ignored without it");
        let (first, ends) = (Running::sleeping(&daemon), Running::sleeping(&daemon));
        let pid = first.pid();
        for next in std::env::split_paths(&newer) {
            daemon.suspend(Signal::TERM);
            daemon.replace(&next);
            daemon.resume();
            first.is("RUNNING");
            assert_eq!(first.pid(), pid);
            let said = first.task("exec --exec-id e ID /bin/echo still here").exits(0).text();
            assert_eq!(said, "still here", "{}", next.display());
            assert!(first.task("metrics ID").exits(0).text().contains("pids.current"));
            run(&daemon, "", "/bin/sh -c 'exit 3'").exits(3);
        }
        ends.task("kill -s KILL ID").exits(0);
        ends.is("STOPPED");
        let said = ends.task("rm ID").exits(0).error();
        assert!(said.contains("exit code 137"), "{said}");
    }
    assert_eq!(daemon.left(), Vec::<String>::new());
}

fn containerd_is_killed_and_an_exit_is_told_later(_: &Containerd) {
    let daemon = alone();
    {
        let container = Running::sleeping(&daemon);
        let pid = container.pid();
        daemon.suspend(Signal::KILL);
        signal(pid, Signal::KILL);
        wait::until("the init has gone", wait::SOON, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        daemon.resume();
        container.is("STOPPED");
        let said = container.task("rm ID").exits(0).error();
        assert!(said.contains("exit code 137"), "{said}");
    }
    assert_eq!(daemon.left(), Vec::<String>::new());
}
