//! A systemd that stops answering holds no command up for ever, and what it was asked for is told, or is taken away without it. It is played by this
//! test, on a socket of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test, and a peer beside it")]

mod bundle;

use bundle::{Answer, Bundle, ID, mountinfo, private_mounts, soon, unclear};
use libtest_mimic::{Arguments, Trial};
use orlop_sys::mount;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The patience that a command has with one call, and what a busy machine may add to it.
const LIMIT: Duration = Duration::from_secs(30 + 60);

const TESTS: &[(&str, fn())] = &[
    ("create_when_nobody_says_a_word", create_when_nobody_says_a_word),
    ("create_when_the_call_is_not_answered", create_when_the_call_is_not_answered),
    ("create_when_the_job_does_not_end", create_when_the_job_does_not_end),
    ("a_container_is_ended_without_it", a_container_is_ended_without_it),
    ("an_update_that_it_does_not_hear_changes_nothing", an_update_that_it_does_not_hear_changes_nothing),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each waits for half a minute, all of them at once.
    arguments.test_threads.get_or_insert(TESTS.len());
    let trials = TESTS.iter().map(|&(name, body)| {
        Trial::test(name, move || {
            body();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What systemd still does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    /// It accepts connections.
    Accept,
    /// It also lets the caller in.
    Authenticate,
    /// It also begins the job that is asked for.
    Begin,
    /// It also says that the job is done.
    Finish,
}

/// A private socket of systemd's, on which nobody listens to what is said after what it does.
struct Peer {
    bundle: Bundle,
    silent: Arc<AtomicBool>,
}

impl Peer {
    fn that(does: Does) -> Peer {
        private_mounts();
        // That of the host is hidden, where it has one.
        if Path::new("/run/systemd").is_dir() {
            mount::mount(Some(c"tmpfs"), c"/run/systemd", Some(c"tmpfs"), 0, None).unwrap();
        }
        let bundle = Bundle::new();
        let listener = UnixListener::bind(bundle.path("bus")).unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        let quiet = silent.clone();
        // It ends with the test's process, as do its connections.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, quiet) = (stream.unwrap(), quiet.clone());
                std::thread::spawn(move || converse(stream, does, &quiet));
            }
        });
        let mut config = bundle.docker();
        config["linux"]["cgroupsPath"] =
            json!(format!("system.slice:orlop:{}", bundle.cgroup_path().trim_matches('/')));
        bundle.write(&config);
        Peer { bundle, silent }
    }

    /// A command under systemd's driver.
    fn run(&self, verb: &str, args: &[&str]) -> Answer {
        let b = &self.bundle;
        let mut words = b.command(verb, args);
        words.insert(1, "--systemd-cgroup".into());
        let began = Instant::now();
        let (out, err) = (b.path("out"), b.path("err"));
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", b.path("bus").display()))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LIMIT {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("`{verb}` hangs: {}", text(&err));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Answer { code: status.code(), stdout: text(&out), stderr: text(&err) }
    }

    /// A command that fails for the silence of systemd, and says so.
    fn fails(&self, verb: &str, args: &[&str], call: &str) {
        let answer = self.run(verb, args);
        assert!(!answer.ok(), "{verb}: {answer:?}");
        assert_eq!(unclear(&answer.stderr), None, "{verb}");
        let says = format!("systemd does not answer within 30 s: {call}");
        assert!(answer.stderr.contains(&says), "{verb}: {answer:?}");
    }
}

/// One connection. The silent one reads on, so that nobody is stopped by a socket that is full.
fn converse(mut stream: UnixStream, does: Does, silent: &AtomicBool) {
    let mut heard = Vec::new();
    let mut page = [0; 4096];
    let mut let_in = does == Does::Accept;
    loop {
        let Ok(n @ 1..) = stream.read(&mut page) else { return };
        heard.extend_from_slice(&page[..n]);
        if does == Does::Accept || silent.load(Ordering::SeqCst) {
            continue;
        }
        if !let_in {
            let end = b"BEGIN\r\n";
            let Some(at) = heard.windows(end.len()).position(|words| words == end) else { continue };
            heard.drain(..at + end.len());
            let_in = true;
            stream.write_all(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n").unwrap();
        }
        while let Some(length) = message_length(&heard) {
            let serial = number(&heard, 8);
            heard.drain(..length);
            if does != Does::Authenticate {
                stream.write_all(&message(REPLY, &[(5, "u", Text::Number(serial))], "o", &job_path())).unwrap();
            }
            if does == Does::Finish {
                let path = "/org/freedesktop/systemd1";
                let head = [
                    (1, "o", Text::Words(path)),
                    (2, "s", Text::Words("org.freedesktop.systemd1.Manager")),
                    (3, "s", Text::Words("JobRemoved")),
                ];
                let mut body = 7u32.to_le_bytes().to_vec();
                body.extend(job_path());
                for word in ["x.scope", "done"] {
                    text(&mut body, word);
                }
                stream.write_all(&message(SIGNAL, &head, "uoss", &body)).unwrap();
            }
        }
    }
}

/// Kinds of messages (D-Bus Specification, "Message Protocol").
const REPLY: u8 = 2;
const SIGNAL: u8 = 4;

/// The value of a header's field.
#[derive(Clone, Copy)]
enum Text {
    Number(u32),
    Words(&'static str),
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Of the first message, when all of it is there.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let fields = (bytes.len() >= 16).then(|| number(bytes, 12) as usize)?;
    let length = (16 + fields).next_multiple_of(8) + number(bytes, 4) as usize;
    (bytes.len() >= length).then_some(length)
}

fn text(to: &mut Vec<u8>, words: &str) {
    to.resize(to.len().next_multiple_of(4), 0);
    to.extend((words.len() as u32).to_le_bytes());
    to.extend(words.as_bytes());
    to.push(0);
}

fn job_path() -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "/org/freedesktop/systemd1/job/7");
    body
}

fn message(kind: u8, head: &[(u8, &str, Text)], signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    for (code, kind, value) in head {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([*code, 1, kind.as_bytes()[0], 0]);
        match value {
            Text::Number(n) => fields.extend(n.to_le_bytes()),
            Text::Words(words) => text(&mut fields, words),
        }
    }
    fields.resize(fields.len().next_multiple_of(8), 0);
    fields.extend([8, 1, b'g', 0, signature.len() as u8]);
    fields.extend(signature.as_bytes());
    fields.push(0);
    let mut all = vec![b'l', kind, 1, 1];
    all.extend((body.len() as u32).to_le_bytes());
    all.extend(1u32.to_le_bytes());
    all.extend((fields.len() as u32).to_le_bytes());
    all.extend(fields);
    all.resize(all.len().next_multiple_of(8), 0);
    all.extend(body);
    all
}

/// What a create has asked for in vain is nowhere.
fn a_create_fails(does: Does, call: &str) {
    let peer = Peer::that(does);
    let mounts = mountinfo();
    peer.fails("create", &[ID], call);
    let b = &peer.bundle;
    assert!(soon(|| left(b, &mounts).is_empty()), "{:?}", left(b, &mounts));
    b.delete().unwrap();
}

/// The directories of its slice, which are no other's, in every hierarchy of the host.
fn slices(b: &Bundle) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let slice = format!("{}.slice", b.cgroup_path().trim_matches('/').replace('-', "_"));
    let trees = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).chain([top.to_path_buf()]);
    trees.map(|tree| tree.join(&slice)).filter(|dir| dir.is_dir()).collect()
}

/// The directories of its scope.
fn scopes(b: &Bundle) -> Vec<PathBuf> {
    let name = format!("orlop-{}.scope", b.cgroup_path().trim_matches('/'));
    slices(b).into_iter().map(|slice| slice.join(&name)).filter(|dir| dir.is_dir()).collect()
}

/// What is no business of systemd's.
fn left(b: &Bundle, mounts: &str) -> Vec<String> {
    b.left(mounts).into_iter().chain(scopes(b).iter().map(|dir| format!("cgroup {dir:?}"))).collect()
}

impl Drop for Peer {
    fn drop(&mut self) {
        // As systemd would.
        for slice in slices(&self.bundle) {
            let _ = fs::remove_dir(slice);
        }
    }
}

fn create_when_nobody_says_a_word() {
    a_create_fails(Does::Accept, "StartTransientUnit");
}

fn create_when_the_call_is_not_answered() {
    a_create_fails(Does::Authenticate, "StartTransientUnit");
}

fn create_when_the_job_does_not_end() {
    a_create_fails(Does::Begin, "");
}

/// A container that it has made before it falls silent.
fn made() -> Peer {
    let peer = Peer::that(Does::Finish);
    let answer = peer.run("create", &[ID]);
    assert!(answer.ok(), "{answer:?}");
    peer.silent.store(true, Ordering::SeqCst);
    peer
}

/// What is the kernel's is done, and the rest is told.
fn a_container_is_ended_without_it() {
    let peer = made();
    let mounts = mountinfo();
    for verb in ["pause", "resume", "start"] {
        let answer = peer.run(verb, &[ID]);
        assert!(answer.ok(), "{verb}: {answer:?}");
    }
    peer.fails("delete", &["--force", ID], "StopUnit");
    let b = &peer.bundle;
    assert!(soon(|| scopes(b).is_empty()), "{:?}", scopes(b));
    // Only what another delete needs to have systemd forget the scope.
    assert!(left(b, &mounts).iter().all(|what| what.starts_with("state ")), "{:?}", left(b, &mounts));
    peer.silent.store(false, Ordering::SeqCst);
    let answer = peer.run("delete", &["--force", ID]);
    assert!(answer.ok(), "{answer:?}");
    assert!(left(b, &mounts).is_empty(), "{:?}", left(b, &mounts));
}

fn an_update_that_it_does_not_hear_changes_nothing() {
    let peer = made();
    peer.fails("update", &["--cpu-share", "512", ID], "SetUnitProperties");
    let scopes = scopes(&peer.bundle);
    let shares = scopes.iter().find_map(|dir| fs::read_to_string(dir.join("cpu.shares")).ok());
    assert!(shares.is_none_or(|shares| shares == "1024\n"));
    peer.silent.store(false, Ordering::SeqCst);
    let deleted = peer.run("delete", &["--force", ID]);
    assert!(deleted.ok(), "{deleted:?}");
}
