//! containerd-shim-orlop-v2 by itself, under an attack of timing: driven by the Task API, killed at every moment, left alone by
//! containerd. Whatever happens, no exit is lost, nothing hangs, and nothing stays behind.

mod clients;
mod ends;
mod killed;
mod limits;
#[cfg(target_arch = "x86_64")]
mod messages;
/// The tracer reads registers of this architecture.
#[cfg(not(target_arch = "x86_64"))]
mod messages {
    pub const TESTS: &[crate::Test] = &[];
}
mod options;
mod streams;
#[cfg(target_arch = "x86_64")]
mod tracer;

use clients::Idle;
use containerd_shim_protos::api::Mount;
use libtest_mimic::{Arguments, Trial};
use orlop_integration::shim::{Bundle, Host, Shim, Stdio3};
use orlop_integration::{private, programs, runtime};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The shim named by SHIM, else the one beside the runtime under test (ORLOP).
fn shim() -> PathBuf {
    let beside = || runtime::path().with_file_name("containerd-shim-orlop-v2");
    let path = std::env::var_os("SHIM").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "no shim at {}: build it, or set SHIM", path.display());
    std::path::absolute(path).expect("a path")
}

/// A test: its name and what it does on a host of its own.
type Test = (&'static str, fn(&Host));

/// The tests of a module, by the names of the functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

/// Those of `messages` want a ptrace(2) that user-mode-linux, itself a tracer, does not have.
fn is_for_another_kernel(name: &str) -> bool {
    let uml = || fs::read_to_string("/proc/cpuinfo").expect("procfs").contains("User Mode Linux");
    messages::TESTS.iter().any(|(traced, _)| *traced == name) && uml()
}

const TESTS: &[&[Test]] =
    &[ends::TESTS, killed::TESTS, messages::TESTS, clients::TESTS, streams::TESTS, options::TESTS, limits::TESTS];

fn main() -> ExitCode {
    private::enter();
    let mut arguments = Arguments::from_args();
    // They kill at moments, and look for all that is left.
    arguments.test_threads.get_or_insert(1);
    let trial = |(name, body): &Test| {
        let body = *body;
        Trial::test(*name, move || {
            let host = Host::new(&shim(), None);
            body(&host);
            gone(&host, "the test");
            Ok(())
        })
        .with_ignored_flag(is_for_another_kernel(name))
    };
    let mut trials: Vec<Trial> = TESTS.iter().copied().flatten().map(trial).collect();
    let idle: Arc<OnceLock<Idle>> = Arc::default();
    let of_idle = Arc::clone(&idle);
    let left_behind = Trial::test("a_daemon_that_is_left_behind", move || {
        of_idle.get().expect("main starts it").a_daemon_that_is_left_behind();
        Ok(())
    });
    if !arguments.list && !arguments.is_filtered_out(&left_behind) {
        // What it waits for takes a minute, in which the others run.
        idle.get_or_init(Idle::start);
    }
    trials.push(left_behind);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Nothing is left, or soon will be: an init that was killed takes a moment to end.
fn gone(host: &Host, after: &str) {
    let end = Instant::now() + Duration::from_secs(120);
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

/// A host whose shims drive another runtime: runc, behind a shell script that begins with `script`.
fn driving(script: &str) -> Host {
    let host = Host::new(&shim(), None);
    let (wrapper, runc) = (host.file("runtime"), programs::path("runc"));
    fs::write(&wrapper, format!("#!/bin/sh\n{script}\nexec {} \"$@\"\n", runc.display())).expect("a file of ours");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    host.drive(&wrapper)
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
