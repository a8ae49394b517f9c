//! containerd-shim-orlop-v2 by itself, under an attack of timing: driven by the Task API, killed at every moment, left alone by
//! containerd. Whatever happens, no exit is lost, nothing hangs, and nothing stays behind.

use containerd_shim_protos::api::{CheckpointTaskRequest, Empty, Mount};
use containerd_shim_protos::protobuf::{Message, MessageField, well_known_types::any::Any};
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::ttrpc::Code;
use libtest_mimic::{Arguments, Trial};
use orlop_integration::private::signal;
use orlop_integration::shim::{Bundle, Event, Host, Shim, Stdio3, code};
use orlop_integration::{cgroup, private, programs, runtime, wait};
use rustix::process::Signal;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The shim named by SHIM, else the one beside the runtime under test (ORLOP).
fn shim() -> PathBuf {
    let beside = || runtime::path().with_file_name("containerd-shim-orlop-v2");
    let path = std::env::var_os("SHIM").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "no shim at {}: build it, or set SHIM", path.display());
    std::path::absolute(path).expect("a path")
}

type Body = fn(&Host);

macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

const TESTS: &[(&str, Body)] = tests![
    two_thousand_execs_that_end_at_once,
    a_worker_is_killed_in_create,
    a_worker_is_killed_in_exec,
    the_shim_is_killed_in_create,
    the_client_goes_away_in_create,
    the_client_gives_up_in_create,
    delete_without_a_shim,
    an_exec_races_with_the_end_of_the_init,
    a_slow_create_holds_nobody_up,
    a_grandchild_keeps_the_pipe,
    a_container_without_a_pid_namespace_leaves_nobody_behind,
    nobody_outlives_the_init_under_another_runtime,
    an_exec_that_nobody_reads_is_deleted,
    an_end_is_told_when_its_output_was_read,
    bulk_output_to_a_slow_reader,
    many_outputs_at_once,
    events_wait_for_containerd,
    the_shim_is_told_to_end,
    the_shim_is_told_to_end_in_create,
    a_daemon_that_was_killed_gives_way,
    empty_namespaces,
    warnings_of_the_runtime_are_in_the_log,
    options_shim_cgroup,
    options_owner_of_pipes,
    options_no_new_keyring,
    options_root,
    refusals_have_their_codes,
    memory_of_many_execs,
];

fn main() -> ExitCode {
    private::enter();
    let mut arguments = Arguments::from_args();
    // They kill at moments, and look for all that is left.
    arguments.test_threads.get_or_insert(1);
    let trial = |(name, body): &(&'static str, Body)| {
        let body = *body;
        Trial::test(*name, move || {
            let host = Host::new(&shim(), None);
            body(&host);
            gone(&host, "the test");
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = TESTS.iter().map(trial).collect();
    if !arguments.list {
        // What it waits for takes a minute, in which the others run.
        let idle = Idle::start();
        trials.push(Trial::test("a_daemon_that_is_left_behind", move || {
            idle.a_daemon_that_is_left_behind();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Two daemons that were asked for nothing. The client of one has gone.
struct Idle {
    kept: (Host, Bundle, Shim),
    left: Host,
}

impl Idle {
    fn start() -> Idle {
        let host = Host::new(&shim(), None);
        let bundle = host.bundle(&id(), &["sleep", "1000"]);
        let kept = host.start(&bundle);
        let left = Host::new(&shim(), None);
        drop(left.start(&left.bundle(&id(), &["sleep", "1000"])));
        Idle { kept: (host, bundle, kept), left }
    }

    /// containerd, killed before it could ask for anything, may know nothing of it when it is back.
    fn a_daemon_that_is_left_behind(&self) {
        wait::until("it ends by itself", Duration::from_secs(150), || self.left.leftovers().is_empty().then_some(()));
        // The older one has a client, which may be about to ask.
        let (_, bundle, shim) = &self.kept;
        shim.run(bundle, &Stdio3::default());
        shim.remove(&bundle.id);
    }
}

fn id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Nothing is left, or soon will be: an init that was killed takes a moment to end.
fn gone(host: &Host, after: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while !host.leftovers().is_empty() {
        assert!(Instant::now() < end, "left behind after {after}:\n{}", host.leftovers().join("\n"));
        thread::sleep(Duration::from_millis(10));
    }
}

fn sleeping(host: &Host) -> (Bundle, Shim) {
    let bundle = host.bundle(&id(), &["sleep", "1000"]);
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    (bundle, shim)
}

/// The bundle's rootfs is mounted by the shim: what it mounts, it must take away.
fn mounted(host: &Host, mut bundle: Bundle) -> Bundle {
    let mut mount = Mount::new();
    (mount.type_, mount.source) = ("bind".to_owned(), host.file("rootfs").display().to_string());
    mount.options = vec!["rbind".to_owned()];
    bundle.rootfs = vec![mount];
    bundle.config["root"]["path"] = "rootfs".into();
    bundle
}

fn fifo(path: &Path) -> String {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("mkfifo");
    path.display().to_string()
}

fn reader(path: String, pause: Duration) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut file = File::open(path).expect("our fifo");
        let (mut all, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            match file.read(&mut piece).expect("our fifo") {
                0 => return all,
                n => all.extend_from_slice(&piece[..n]),
            }
            thread::sleep(pause);
        }
    })
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

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
    wait::until("every exit is told", Duration::from_secs(20), || (exits() == count as usize).then_some(()));
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

/// Moments at which something is killed: as long as a call takes, and half as long again, in so many steps.
fn moments(steps: u32, typical: Duration) -> impl Iterator<Item = Duration> + Clone {
    (0..steps).map(move |n| typical * n * 3 / (steps * 2))
}

/// Kills the first child of the daemon that is not in `not` once it is there and `after` has passed.
fn kill_a_worker(shim: u32, not: &[u32], after: Duration) {
    let end = Instant::now() + Duration::from_secs(5);
    let worker = loop {
        if let Some(worker) = children(shim).into_iter().find(|pid| !not.contains(pid)) {
            break worker;
        }
        if Instant::now() > end {
            return;
        }
        // Where there is one processor the worker needs it.
        thread::yield_now();
    };
    let moment = Instant::now() + after;
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    signal(worker, Signal::KILL);
}

fn typical(mut call: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let began = Instant::now();
            call();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[2]
}

/// What is killed in it, and in any step: create answers with an error, the shim takes all away, and the same id is made after that.
fn a_worker_is_killed_in_create(host: &Host) {
    let other = host.bundle(&id(), &["sleep", "1000"]);
    let other = Bundle { group: Some("pod".to_owned()), ..other };
    let shim = host.start(&other);
    shim.run(&other, &Stdio3::default());
    let mut bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
    bundle.group = other.group.clone();
    assert_eq!(host.start(&bundle).pid, shim.pid);
    let usual = || -> Vec<String> { host.leftovers() };
    let before = usual();
    let make = || shim.create(&bundle, &Stdio3::default());
    let remove = || {
        // It was only created.
        shim.delete(&bundle.id, "").expect("delete");
    };
    let took = typical(|| {
        make().expect("create");
        remove();
    });
    let mut lost = 0;
    // On a busy machine many kills come too late: then there are more rounds.
    for (n, after) in (0..2000).zip(moments(200, took).cycle()) {
        if n >= 200 && lost >= 20 {
            break;
        }
        let not = children(shim.pid);
        let result = thread::scope(|scope| {
            let killer = scope.spawn(|| kill_a_worker(shim.pid, &not, after));
            let result = make();
            killer.join().expect("no panic");
            result
        });
        match result {
            // The init may be what was hit: then it is a container that has ended.
            Ok(_) => remove(),
            Err(e) => {
                lost += 1;
                assert!(e.to_string().contains("OCI runtime create failed"), "{e}");
            }
        }
        let end = Instant::now() + Duration::from_secs(30);
        while usual() != before {
            assert!(Instant::now() < end, "killed after {after:?}: {:#?}\nbefore: {before:#?}", usual());
            thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(lost >= 20, "the kills came too late: {lost}");
    make().expect("the id is free");
    shim.start(&bundle.id, "").expect("start");
    shim.remove(&bundle.id);
    assert!(shim.alive(), "the other container's");
    shim.remove(&other.id);
}

/// The container goes on, and nothing runs in it that nobody knows of.
fn a_worker_is_killed_in_exec(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let init = children(shim.pid);
    let exec = |n: u32| {
        let exec = format!("e{n}");
        shim.exec(&bundle.id, &exec, &["sleep", "1000"], &Stdio3::default()).expect("exec");
        (shim.start(&bundle.id, &exec), exec)
    };
    let end = |exec: &str| {
        let _ = shim.kill(&bundle.id, exec, 9);
        shim.wait(&bundle.id, exec).expect("wait");
        shim.delete(&bundle.id, exec).expect("delete");
    };
    let mut n = 10_000;
    let took = typical(|| {
        n += 1;
        let (started, exec) = exec(n);
        started.expect("start");
        end(&exec);
    });
    let mut lost = 0;
    for (n, after) in (0..2000).zip(moments(100, took).cycle()) {
        if n >= 100 && lost >= 10 {
            break;
        }
        let exec = thread::scope(|scope| {
            let killer = scope.spawn(|| kill_a_worker(shim.pid, &init, after));
            let (started, exec) = exec(n);
            killer.join().expect("no panic");
            lost += u32::from(started.is_err());
            exec
        });
        end(&exec);
        wait::until(&format!("nobody but the init is left, killed after {after:?}"), Duration::from_secs(30), || {
            let dirs = cgroup::tree(&format!("{}/{}", host.cgroups(), bundle.id));
            let most = dirs.iter().map(|dir| cgroup::procs(dir).len()).max();
            (children(shim.pid) == init && most == Some(1)).then_some(())
        });
    }
    assert!(lost >= 10, "the kills came too late: {lost}");
    shim.exec(&bundle.id, "last", &["true"], &Stdio3::default()).expect("exec");
    shim.start(&bundle.id, "last").expect("start");
    assert_eq!(shim.wait(&bundle.id, "last").expect("wait"), 0);
    shim.remove(&bundle.id);
}

/// containerd then runs `delete`, once; the create may have been in any step.
fn the_shim_is_killed_in_create(host: &Host) {
    let one = |after: Option<Duration>| {
        let bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
        let shim = host.start(&bundle);
        let began = Instant::now();
        thread::scope(|scope| {
            let create = scope.spawn(|| shim.create(&bundle, &Stdio3::default()));
            let Some(after) = after else {
                create.join().expect("no panic").expect("create");
                return;
            };
            while began.elapsed() < after {
                std::hint::spin_loop();
            }
            shim.signal(Signal::KILL);
            let _ = create.join().expect("no panic");
        });
        let took = began.elapsed();
        if after.is_none() {
            shim.remove(&bundle.id);
        } else {
            wait::until("the shim is dead", Duration::from_secs(30), || (!shim.alive()).then_some(()));
            let answer = host.clean_up(&bundle);
            assert_eq!(answer.exit_status, 137);
            gone(host, &format!("kill after {after:?}"));
        }
        took
    };
    let took = (0..5).map(|_| one(None)).min().expect("five");
    for after in moments(60, took) {
        one(Some(after));
    }
}

/// The create is done all the same, so that a containerd that comes back finds it: it asks for the pids first.
fn the_client_goes_away_in_create(host: &Host) {
    for after in (0..20).map(|n| Duration::from_micros(n * 400)) {
        let bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
        let shim = host.start(&bundle);
        shim.create_and_leave(&bundle, after);
        let again = host.start(&bundle);
        assert_eq!(again.pid, shim.pid);
        match again.pids(&bundle.id) {
            Ok(pids) => {
                assert_eq!(pids.len(), 1, "gone after {after:?}");
                assert_eq!(again.delete(&bundle.id, "").expect("delete"), 137);
            }
            // The request did not get there.
            Err(e) => assert_eq!(code(&e), Some(Code::NOT_FOUND), "{e}"),
        }
        again.shutdown();
        gone(host, &format!("the client went after {after:?}"));
    }
}

/// A hook that waits, in the middle of a create.
struct Hook(PathBuf);

impl Hook {
    fn begun(&self) {
        wait::until("the hook", Duration::from_secs(30), || self.0.with_extension("begun").exists().then_some(()));
    }

    fn go(&self) {
        fs::write(self.0.with_extension("go"), "").expect("our file");
    }
}

/// A container whose create waits in a hook, which then ends with `status`.
fn held_up(host: &Host, status: i32) -> (Bundle, Hook) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    let hook = Hook(host.file(&format!("hook-of-{}", bundle.id)));
    let busybox = host.file("rootfs/bin/busybox").display().to_string();
    let path = hook.0.display();
    let held =
        format!("{busybox} touch {path}.begun; until [ -e {path}.go ]; do {busybox} sleep 0.05; done; exit {status}");
    bundle.config["hooks"]["createRuntime"] = serde_json::json!([{"path": busybox, "args": ["sh", "-c", held]}]);
    (bundle, hook)
}

/// containerd whose create is cancelled deletes the task and asks for the end while the create still runs, and never again. The end comes
/// with that of the container, or when there is none.
fn the_client_gives_up_in_create(host: &Host) {
    for status in [0, 1] {
        let (bundle, hook) = held_up(host, status);
        let shim = host.start(&bundle);
        thread::scope(|scope| {
            let create = scope.spawn(|| shim.create(&bundle, &Stdio3::default()));
            hook.begun();
            shim.shutdown();
            let delete = scope.spawn(|| shim.delete(&bundle.id, ""));
            thread::sleep(Duration::from_millis(200));
            hook.go();
            let (created, deleted) = (create.join().expect("no panic"), delete.join().expect("no panic"));
            match status {
                0 => assert_eq!((created.is_ok(), deleted.expect("delete")), (true, 137)),
                _ => assert!(created.is_err() && deleted.is_err(), "the hook has failed"),
            }
        });
        gone(host, &format!("the client gave up, the hook ended with {status}"));
    }
}

fn delete_without_a_shim(host: &Host) {
    let bundle = mounted(host, host.bundle(&id(), &["sh", "-c", "sleep 1000 & sleep 1000"]));
    let shim = host.start(&bundle);
    let pid = shim.run(&bundle, &Stdio3::default());
    shim.exec(&bundle.id, "e", &["sleep", "1000"], &Stdio3::default()).expect("exec");
    shim.start(&bundle.id, "e").expect("start");
    shim.signal(Signal::KILL);
    wait::until("the shim is dead", Duration::from_secs(30), || (!shim.alive()).then_some(()));
    for _ in 0..2 {
        let answer = host.clean_up(&bundle);
        assert_eq!((answer.pid, answer.exit_status), (pid, 137));
        assert!(answer.exited_at.seconds > 1_600_000_000);
        gone(host, "delete");
    }
    // An id that was never there.
    host.clean_up(&host.bundle(&id(), &["true"]));
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
        let exits: Vec<String> = wait::until("the exits are told", Duration::from_secs(30), || {
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

/// containerd's dbcaa504c: of the containers of a pod, one with a slow hook does not make the others wait.
fn a_slow_create_holds_nobody_up(host: &Host) {
    let group = Some("pod".to_owned());
    let quick = Bundle { group: group.clone(), ..host.bundle(&id(), &["sleep", "1000"]) };
    let (slow, hook) = held_up(host, 0);
    let slow = Bundle { group, ..slow };
    let shim = host.start(&quick);
    shim.run(&quick, &Stdio3::default());
    assert_eq!(host.start(&slow).pid, shim.pid);
    thread::scope(|scope| {
        let create = scope.spawn(|| shim.create(&slow, &Stdio3::default()));
        hook.begun();
        shim.state(&quick.id, "").expect("state");
        shim.exec(&quick.id, "e", &["true"], &Stdio3::default()).expect("exec");
        shim.start(&quick.id, "e").expect("start");
        assert_eq!(shim.wait(&quick.id, "e").expect("wait"), 0);
        shim.delete(&quick.id, "e").expect("delete");
        assert!(!create.is_finished(), "the hook still waits");
        hook.go();
        create.join().expect("no panic").expect("create");
    });
    shim.remove(&slow.id);
    shim.remove(&quick.id);
}

/// The end of a process is the end of its output, although another process has the pipe.
fn a_grandchild_keeps_the_pipe(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let out = fifo(&host.file("grandchild-out"));
    let read = reader(out.clone(), Duration::ZERO);
    let io = Stdio3 { stdout: out, ..Stdio3::default() };
    shim.exec(&bundle.id, "e", &["sh", "-c", "sleep 1000 & echo done"], &io).expect("exec");
    let began = Instant::now();
    shim.start(&bundle.id, "e").expect("start");
    assert_eq!(shim.wait(&bundle.id, "e").expect("wait"), 0);
    shim.delete(&bundle.id, "e").expect("delete");
    assert_eq!(read.join().expect("no panic"), b"done\n");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    shim.remove(&bundle.id);
}

fn a_container_without_a_pid_namespace_leaves_nobody_behind(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sh", "-c", "sleep 1000 & sleep 1000 & exit 3"]);
    bundle.config["linux"]["namespaces"].as_array_mut().expect("an array").retain(|ns| ns["type"] != "pid");
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 3);
    assert_eq!(shim.delete(&bundle.id, "").expect("delete"), 3);
    // Its orphans came to the shim, which must reap them.
    wait::until("no zombie is left", Duration::from_secs(30), || children(shim.pid).is_empty().then_some(()));
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
    wait::until("the end is told", Duration::from_secs(30), exit);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    shim.remove(&bundle.id);
    gone(&driven, "the end");
    assert!(host.leftovers().is_empty());
}

/// containerd 11133: delete does not hang because nobody reads what was written.
fn an_exec_that_nobody_reads_is_deleted(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let out = fifo(&host.file("unread"));
    // There, but not reading.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&out).expect("our fifo");
    let io = Stdio3 { stdout: out, ..Stdio3::default() };
    shim.exec(&bundle.id, "e", &["dd", "if=/dev/zero", "bs=4096", "count=20"], &io).expect("exec");
    shim.start(&bundle.id, "e").expect("start");
    assert_eq!(shim.wait(&bundle.id, "e").expect("wait"), 0);
    let began = Instant::now();
    shim.delete(&bundle.id, "e").expect("delete");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    shim.remove(&bundle.id);
}

/// containerd 1.6 closes the log of a container whose end it knows, whatever is still in the fifo. One that does not read delays it by a second.
fn an_end_is_told_when_its_output_was_read(host: &Host) {
    let patience = Duration::from_secs(1);
    for reads in [false, true] {
        let bundle = host.bundle(&id(), &["echo", "x"]);
        let shim = host.start(&bundle);
        let out = fifo(&host.file(&format!("told-{reads}")));
        let mut reader = fs::OpenOptions::new().read(true).write(true).open(&out).expect("our fifo");
        let began = Instant::now();
        shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
        if reads {
            reader.read_exact(&mut [0; 2]).expect("our fifo");
        }
        let exit = || host.exit_of(&bundle.id, &bundle.id);
        wait::until("the end is told", Duration::from_secs(30), exit);
        assert!(reads || began.elapsed() >= patience, "told after {:?}, and nobody has read", began.elapsed());
        assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
        shim.delete(&bundle.id, "").expect("delete");
        shim.shutdown();
    }
}

fn bulk_output_to_a_slow_reader(host: &Host) {
    const PIECES: usize = 1200;
    let bundle = host.bundle(&id(), &["dd", "if=/dev/zero", "bs=4096", &format!("count={PIECES}")]);
    let shim = host.start(&bundle);
    let out = fifo(&host.file("bulk"));
    let read = reader(out.clone(), Duration::from_millis(2));
    shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
    assert_eq!(shim.delete(&bundle.id, "").expect("delete"), 0);
    assert_eq!(read.join().expect("no panic").len(), PIECES * 4096);
    shim.shutdown();
}

fn many_outputs_at_once(host: &Host) {
    let (bundle, shim) = sleeping(host);
    thread::scope(|scope| {
        for lane in 0..8 {
            let (shim, bundle) = (&shim, &bundle);
            scope.spawn(move || {
                for n in 0..15 {
                    let exec = format!("e{lane}-{n}");
                    let (out, err) =
                        (fifo(&host.file(&format!("{exec}-out"))), fifo(&host.file(&format!("{exec}-err"))));
                    let reads = [&out, &err].map(|path| reader(path.clone(), Duration::ZERO));
                    let script = format!(
                        "i=0; while [ $i -lt 300 ]; do echo out {exec} $i; echo err {exec} $i >&2; i=$((i+1)); done"
                    );
                    let io = Stdio3 { stdout: out, stderr: err, ..Stdio3::default() };
                    shim.exec(&bundle.id, &exec, &["sh", "-c", &script], &io).expect("exec");
                    shim.start(&bundle.id, &exec).expect("start");
                    assert_eq!(shim.wait(&bundle.id, &exec).expect("wait"), 0);
                    shim.delete(&bundle.id, &exec).expect("delete");
                    for (name, read) in ["out", "err"].into_iter().zip(reads) {
                        let expected: String = (0..300).map(|i| format!("{name} {exec} {i}\n")).collect();
                        assert_eq!(String::from_utf8_lossy(&read.join().expect("no panic")), expected);
                    }
                }
            });
        }
    });
    shim.remove(&bundle.id);
}

fn events_wait_for_containerd(host: &Host) {
    let (bundle, shim) = sleeping(host);
    wait::until("the start is told", Duration::from_secs(30), || (host.told().len() == 2).then_some(()));
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
    wait::until("all is told", Duration::from_secs(20), || host.exit_of(&bundle.id, &bundle.id));
    let told = host.told();
    let mut expected = vec!["/tasks/create".to_owned(), "/tasks/start".to_owned()];
    // exec-added, exec-started, exit: an exit of an exec may be told before its deletion, which has no event.
    expected.extend((0..50).flat_map(|_| ["exec-added", "exec-started", "exit"].map(|t| format!("/tasks/{t}"))));
    expected.push("/tasks/exit".to_owned());
    assert_eq!(told.into_iter().map(|e| e.topic).collect::<Vec<_>>(), expected);
    shim.remove(&bundle.id);
}

/// The daemon ends and takes its socket away; the container is `delete`'s.
fn the_shim_is_told_to_end(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let socket = PathBuf::from(shim.address.trim_start_matches("unix://"));
    let mode = |path: &Path| fs::metadata(path).expect("a socket").permissions().mode() & 0o777;
    assert!(fs::metadata(&socket).expect("a socket").file_type().is_socket());
    assert_eq!((mode(&socket) & 0o077, mode(socket.parent().expect("a directory"))), (0, 0o700));
    shim.signal(Signal::TERM);
    wait::until("the shim has ended", Duration::from_secs(30), || (!shim.alive()).then_some(()));
    assert!(!socket.exists(), "{}", socket.display());
    assert_eq!(host.clean_up(&bundle).exit_status, 137);
}

/// What was begun is done and answered first, unless it takes too long.
fn the_shim_is_told_to_end_in_create(host: &Host) {
    for too_long in [false, true] {
        let (bundle, hook) = held_up(host, 0);
        let shim = host.start(&bundle);
        let created = thread::scope(|scope| {
            let create = scope.spawn(|| shim.create(&bundle, &Stdio3::default()));
            hook.begun();
            shim.signal(Signal::TERM);
            if too_long {
                wait::until("the shim has ended", Duration::from_secs(60), || (!shim.alive()).then_some(()));
            } else {
                // More than ttrpc gives to the requests of a connection that it closes.
                thread::sleep(Duration::from_secs(7));
            }
            hook.go();
            create.join().expect("no panic")
        });
        assert_eq!(created.is_ok(), !too_long, "{created:?}");
        wait::until("the shim has ended", Duration::from_secs(60), || (!shim.alive()).then_some(()));
        assert_eq!(host.clean_up(&bundle).exit_status, 137);
        gone(host, "the end");
    }
}

/// Its socket is still there: the next one of the group takes its place.
fn a_daemon_that_was_killed_gives_way(host: &Host) {
    let group = Some("pod".to_owned());
    let first = Bundle { group: group.clone(), ..host.bundle(&id(), &["sleep", "1000"]) };
    let second = Bundle { group, ..host.bundle(&id(), &["sleep", "1000"]) };
    let shim = host.start(&first);
    shim.run(&first, &Stdio3::default());
    shim.signal(Signal::KILL);
    wait::until("the shim is dead", Duration::from_secs(30), || (!shim.alive()).then_some(()));
    let other = host.start(&second);
    assert_ne!(shim.pid, other.pid);
    assert_eq!(shim.address, other.address);
    other.run(&second, &Stdio3::default());
    host.clean_up(&first);
    // The socket is another's now.
    host.start(&second).state(&second.id, "").expect("state");
    other.remove(&second.id);
}

fn empty_namespaces(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let mut options = CheckpointOptions::new();
    options.empty_namespaces = vec!["network".to_owned(), "ipc".to_owned()];
    let mut any = Any::new();
    any.type_url = "containerd.runc.v1.CheckpointOptions".to_owned();
    any.value = options.write_to_bytes().expect("a small message");
    let mut request = CheckpointTaskRequest::new();
    (request.id, request.path) = (bundle.id.clone(), host.file("images").display().to_string());
    request.options = MessageField::some(any);
    let refused = shim.call::<_, Empty>("Checkpoint", &request).expect_err("ipc");
    assert_eq!(code(&refused), Some(Code::UNIMPLEMENTED));
    assert!(refused.to_string().contains("is not supported: only network is"), "{refused}");
    assert!(!host.file("images").exists());
    shim.remove(&bundle.id);
}

/// What the runtime warns of is said by workers, whose stderr is the container's.
fn warnings_of_the_runtime_are_in_the_log(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    bundle.config["process"]["capabilities"] = serde_json::json!({"bounding": ["CAP_OF_NO_KERNEL"]});
    let err = fifo(&host.file("warning-err"));
    let read = reader(err.clone(), Duration::ZERO);
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3 { stderr: err, ..Stdio3::default() });
    let log = fs::read_to_string(bundle.dir.join("log")).expect("the log");
    assert!(log.contains("CAP_OF_NO_KERNEL"), "{log}");
    shim.remove(&bundle.id);
    assert_eq!(String::from_utf8_lossy(&read.join().expect("no panic")), "");
}

fn options_shim_cgroup(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    let cgroup = format!("{}/the-shim", host.cgroups());
    bundle.options.shim_cgroup = cgroup.clone();
    // Of a cgroup that is not there: as the Go shim, it makes none.
    assert!(host.try_start(&bundle).err().is_some_and(|e| e.contains("ShimCgroup")));
    let made = cgroup::make(&cgroup);
    assert!(!made.is_empty());
    let shim = host.start(&bundle);
    let init = shim.run(&bundle, &Stdio3::default());
    let of = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    assert!(of(shim.pid).lines().all(|line| line.ends_with(&cgroup)), "{}", of(shim.pid));
    assert!(!of(init).contains("the-shim"), "{}", of(init));
    shim.remove(&bundle.id);
    wait::until("the shim has ended", Duration::from_secs(30), || (!shim.alive()).then_some(()));
    // Whoever has made it may have more shims in it.
    private::remove_cgroups(&cgroup);
}

/// A process of that user may open its own output by name.
fn options_owner_of_pipes(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sh", "-c", "echo again >/proc/self/fd/1; stat -L -c %u:%g /proc/self/fd/1"]);
    (bundle.options.io_uid, bundle.options.io_gid) = (1000, 1001);
    bundle.config["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1001});
    let out = fifo(&host.file("owned"));
    let read = reader(out.clone(), Duration::ZERO);
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
    shim.delete(&bundle.id, "").expect("delete");
    assert_eq!(String::from_utf8_lossy(&read.join().expect("no panic")), "again\n1000:1001\n");
    shim.shutdown();
}

fn options_no_new_keyring(host: &Host) {
    for kept in [false, true] {
        let mut bundle = host.bundle(&id(), &["cat", "/proc/keys"]);
        bundle.options.no_new_keyring = kept;
        let out = fifo(&host.file(&format!("keys-{kept}")));
        let read = reader(out.clone(), Duration::ZERO);
        let shim = host.start(&bundle);
        shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
        shim.wait(&bundle.id, "").expect("wait");
        shim.delete(&bundle.id, "").expect("delete");
        let keys = String::from_utf8_lossy(&read.join().expect("no panic")).into_owned();
        assert_eq!(keys.contains(&format!("_ses.{}", bundle.id)), !kept, "{keys}");
        shim.shutdown();
    }
}

fn options_root(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    let root = host.file("another-root");
    bundle.options.root = root.display().to_string();
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    let state = root.join("orlop-test").join(&bundle.id);
    assert!(state.join("state.json").exists());
    // The shim is gone: what it was told is in the bundle.
    shim.signal(Signal::KILL);
    wait::until("the shim is dead", Duration::from_secs(30), || (!shim.alive()).then_some(()));
    host.clean_up(&bundle);
    assert!(!state.exists());
}

fn refusals_have_their_codes(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let id = bundle.id.as_str();
    let codes = [
        ("unknown container", shim.start("nobody", "").map(drop), Code::NOT_FOUND),
        ("unknown exec", shim.start(id, "nobody").map(drop), Code::NOT_FOUND),
        ("the same id", shim.create(&bundle, &Stdio3::default()).map(drop), Code::ALREADY_EXISTS),
        ("running", shim.delete(id, "").map(drop), Code::FAILED_PRECONDITION),
        ("an id of no use", shim.exec(id, "../e", &["true"], &Stdio3::default()), Code::INVALID_ARGUMENT),
    ];
    for (what, result, expected) in codes {
        assert_eq!(code(&result.expect_err(what)), Some(expected), "{what}");
    }
    shim.kill(id, "", 9).expect("kill");
    shim.wait(id, "").expect("wait");
    let gone = shim.kill(id, "", 9).expect_err("it has ended");
    assert_eq!(code(&gone), Some(Code::NOT_FOUND));
    let late = shim.exec(id, "late", &["true"], &Stdio3::default()).expect_err("it has ended");
    assert_eq!(code(&late), Some(Code::FAILED_PRECONDITION));
    shim.remove(id);
}

/// In a long life nothing grows: memory, fds, children, mounts. (The benchmark does ten thousand.)
fn memory_of_many_execs(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let one = |n: u32| {
        let exec = format!("e{n}");
        let out = fifo(&host.file(&exec));
        let read = reader(out.clone(), Duration::ZERO);
        shim.exec(&bundle.id, &exec, &["echo", "x"], &Stdio3 { stdout: out.clone(), ..Stdio3::default() })
            .expect("exec");
        shim.start(&bundle.id, &exec).expect("start");
        shim.wait(&bundle.id, &exec).expect("wait");
        shim.delete(&bundle.id, &exec).expect("delete");
        assert_eq!(read.join().expect("no panic"), b"x\n");
        fs::remove_file(out).expect("our fifo");
    };
    let anonymous = || -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid)).expect("the shim");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("a line");
        line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
    };
    let counts = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", shim.pid)).expect("the shim").count();
        (fds, children(shim.pid).len(), fs::metadata(&bundle.dir).expect("the bundle").nlink())
    };
    (0..100).for_each(one);
    let (memory, before) = (anonymous(), counts());
    (100..600).for_each(one);
    wait::until("all is closed", Duration::from_secs(30), || (counts() <= before).then_some(()));
    assert!(anonymous() <= memory + 64, "{memory} KiB, then {}", anonymous());
    shim.remove(&bundle.id);
}
