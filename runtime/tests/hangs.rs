//! What never ends by itself holds nobody up for ever: hooks, and other commands on the same container. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test")]

mod bundle;

use bundle::{Bundle, ID, alive, mountinfo, private_mounts, soon, unclear};
use nix::libc::{MNT_DETACH, MNT_FORCE};
use orlop_sys::{file, mount};
use serde_json::json;
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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
    b.write(&b.sleeping());
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

/// A file system (FUSE) whose directory is there, and whose server never says what is in it: whoever asks sleeps as only a broken disk or a
/// network file system lets one sleep, and no signal ends that.
struct Silent {
    at: CString,
    asked: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// Requests of include/uapi/linux/fuse.h.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const INIT: u32 = 26;

/// The answer to a request: `fuse_out_header`, and what follows it.
fn answer(request: u64, error: i32, body: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = body.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = 16 + body.len() as u32;
    [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request.to_ne_bytes(), &body].concat()
}

impl Silent {
    fn mounted(at: &std::path::Path) -> Silent {
        fs::create_dir(at).unwrap();
        let mut device = fs::File::options().read(true).write(true).open("/dev/fuse").expect("this kernel has no FUSE");
        let data = format!("fd={},rootmode=40755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let (path, data) = (CString::new(at.to_str().unwrap()).unwrap(), CString::new(data).unwrap());
        mount::mount(Some(c"silent"), &path, Some(c"fuse"), 0, Some(&data)).unwrap();
        let asked = Arc::new(AtomicBool::new(false));
        let heard = asked.clone();
        let serve = move || {
            let mut buffer = vec![0; 256 * 1024];
            // It fails when the connection is cut.
            while let Ok(n) = device.read(&mut buffer) {
                // `fuse_in_header`: the length, what is asked, and a number for the answer.
                assert!(n >= 16, "a request of {n} bytes");
                let what = u32::from_ne_bytes(buffer[4..8].try_into().unwrap());
                let request = u64::from_ne_bytes(buffer[8..16].try_into().unwrap());
                let said = match what {
                    // Version 7.31, nothing but that.
                    INIT => answer(request, 0, &[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                    // A directory, known for an hour: `fuse_attr_out`, of which `fuse_attr` begins with the fifth word.
                    GETATTR => {
                        let mut body = [0; 26];
                        (body[0], body[4], body[19], body[20]) = (3600, 1, 0o40755, 2);
                        answer(request, 0, &body)
                    }
                    LOOKUP => {
                        heard.store(true, Ordering::Relaxed);
                        continue;
                    }
                    // Interruptions are not heard, and nothing else is known: ENOSYS.
                    36 => continue,
                    _ => answer(request, -38, &[]),
                };
                let _ = device.write(&said);
            }
        };
        Silent { at: path, asked, server: Some(std::thread::spawn(serve)) }
    }

    /// Everybody wakes up.
    fn cut(&mut self) {
        mount::unmount(&self.at, MNT_FORCE | MNT_DETACH).unwrap();
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.cut();
        }
    }
}

/// SIGKILL does not end it, so `delete --force` says that, after a time, and loses nothing; when it can, it deletes.
#[test]
fn a_container_that_sigkill_does_not_end_is_told_of() {
    private_mounts();
    let bundle = Bundle::new();
    let before = mountinfo();
    let mut silent = Silent::mounted(&bundle.path("silent"));
    let mut config = bundle.docker();
    let source = bundle.path("silent");
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/silent", "type": "bind", "source": source, "options": ["bind"] }));
    config["process"]["args"] = json!(["cat", "/silent/file"]);
    bundle.write(&config);
    let created = bundle.run("create", &[ID]);
    assert!(created.ok(), "{created:?}");
    assert!(bundle.run("start", &[ID]).ok());
    assert!(soon(|| silent.asked.load(Ordering::Relaxed)), "nobody has asked for the file");
    let init = bundle.processes();
    assert!(bundle.run("kill", &[ID, "KILL"]).ok());
    let stat = || fs::read_to_string(format!("/proc/{}/stat", init[0])).unwrap();
    assert!(soon(|| stat().contains(") D ")), "it sleeps otherwise: {}", stat());
    let began = Instant::now();
    let said = bundle.run("delete", &["--force", ID]);
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    assert!(!said.ok() && unclear(&said.stderr).is_none(), "{said:?}");
    assert!(said.stderr.contains("still running") && said.stderr.contains("uninterruptible"), "{said:?}");
    assert!(bundle.run("state", &[ID]).stdout.contains("\"running\""));
    silent.cut();
    assert!(soon(|| !alive(init[0])), "it sleeps on");
    bundle.delete().unwrap();
    assert!(soon(|| bundle.left(&before).is_empty()), "{:?}", bundle.left(&before));
}
