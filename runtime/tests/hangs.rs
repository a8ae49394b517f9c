//! What never ends by itself holds nobody up for ever: hooks, and other commands on the same container. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test")]

mod bundle;

use bundle::{Bundle, ID, alive, mountinfo, private_mounts, soon};
use orlop_sys::file;
use serde_json::json;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A create whose hook of this kind has begun, and does not end.
struct Hanging {
    bundle: Bundle,
    create: Child,
    hook: i32,
}

impl Hanging {
    fn at(kind: &str) -> Hanging {
        let bundle = Bundle::new();
        let mut config = bundle.docker();
        let began = bundle.path("began");
        let script = format!("echo $$ >{0}.new && mv {0}.new {0} && exec sleep 1000", began.display());
        config["hooks"] = json!({ kind: [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
        bundle.write(&config);
        let words = bundle.command("create", &[ID]);
        let mut create = Command::new(&words[0]);
        create.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null());
        let create = create.stderr(fs::File::create(bundle.path("create.err")).unwrap()).spawn().unwrap();
        assert!(soon(|| began.exists()), "{}", fs::read_to_string(bundle.path("create.err")).unwrap());
        // Of a hook of the container it is the number in its pid namespace, which nobody here asks for.
        let hook = fs::read_to_string(&began).unwrap().trim().parse().unwrap();
        Hanging { bundle, create, hook }
    }

    fn end_of_create(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.create.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "create goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::read_to_string(self.bundle.path("create.err")).unwrap()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.create.kill();
        let _ = self.create.wait();
    }
}

/// The init runs these hooks and waits for them: it is killed, and so the create comes to its end.
#[test]
fn a_hook_of_the_container_that_hangs_does_not_keep_it_from_being_deleted() {
    private_mounts();
    let mounts = mountinfo();
    let mut hanging = Hanging::at("createContainer");
    let began = Instant::now();
    hanging.bundle.delete().unwrap();
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    let said = hanging.end_of_create();
    assert!(said.contains("was killed by SIGKILL during set-up"), "{said}");
    assert!(soon(|| hanging.bundle.left(&mounts).is_empty()), "{:?}", hanging.bundle.left(&mounts));
}

/// The runtime waits for these: nobody ends a program of the host, but who waits is told.
#[test]
fn a_hook_of_the_host_that_hangs_is_told_of() {
    private_mounts();
    let mounts = mountinfo();
    let mut hanging = Hanging::at("createRuntime");
    let b = &hanging.bundle;
    let began = Instant::now();
    let answer = b.run("delete", &["--force", ID]);
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    let who = format!("another command is at work on the container: process {}", hanging.create.id());
    assert!(!answer.ok() && answer.stderr.contains(&who), "{answer:?}");
    // Others answer at once.
    assert!(b.run("list", &[]).ok());
    orlop_sys::signal::kill(hanging.hook, orlop_sys::signal::SIGKILL).unwrap();
    let said = hanging.end_of_create();
    assert!(said.contains("createRuntime hook #0"), "{said}");
    assert!(soon(|| !alive(hanging.hook)));
    hanging.bundle.delete().unwrap();
    assert!(soon(|| hanging.bundle.left(&mounts).is_empty()), "{:?}", hanging.bundle.left(&mounts));
}

/// Nobody waits for what the command that has the lock will do with a container which runs: a checkpoint may take long.
#[test]
fn a_container_that_runs_is_killed_at_once() {
    private_mounts();
    let mounts = mountinfo();
    let b = Bundle::new();
    let mut config = b.docker();
    config["process"]["args"] = json!(["sleep", "1000"]);
    b.write(&config);
    // A busy machine takes its time, too; not every time.
    let killed = |_: i32| {
        assert!(b.run("create", &[ID]).ok() && b.run("start", &[ID]).ok());
        let state: serde_json::Value = serde_json::from_str(&b.run("state", &[ID]).stdout).unwrap();
        let init = state["pid"].as_i64().unwrap() as i32;
        let held = fs::File::open(b.state_dir()).unwrap();
        file::lock(held.as_fd(), true).unwrap();
        let words = b.command("delete", &["--force", ID]);
        let began = Instant::now();
        let mut delete = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).spawn().unwrap();
        assert!(soon(|| !alive(init)));
        let took = began.elapsed();
        assert!(delete.try_wait().unwrap().is_none(), "it must wait for the lock");
        drop(held);
        assert!(delete.wait().unwrap().success());
        assert!(soon(|| b.left(&mounts).is_empty()), "{:?}", b.left(&mounts));
        took
    };
    let took: Vec<Duration> = (0..5).map(killed).collect();
    assert!(took.iter().any(|took| *took < Duration::from_secs(2)), "{took:?}");
}
