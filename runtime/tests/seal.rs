//! CVE-2019-5736: whoever held `/proc/PID/exe` of a runtime that entered a container must not be able to write to the
//! runtime's file afterwards.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the processes under test are ordinary programs")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A runtime that waits, after it has sealed itself, for a reader of its log.
struct Waiting {
    child: Child,
    directory: tempfile::TempDir,
}

impl Waiting {
    /// `wrap` is a command that executes the rest of its arguments.
    fn start(wrap: &[&str], verb: &str) -> Waiting {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_orlop"), path("orlop")).unwrap();
        assert!(Command::new("mkfifo").arg("-m0666").arg(path("log")).status().unwrap().success());
        let words =
            wrap.iter().map(|word| word.into()).chain([path("orlop"), "--log".into(), path("log"), verb.into()]);
        let words: Vec<_> = words.chain(["nosuch".into(), "true".into()]).collect();
        let mut command = Command::new(&words[0]);
        let child = command.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let waiting = Waiting { child, directory };
        // It opens its log last of all, and hangs there.
        let deadline = Instant::now() + Duration::from_secs(30);
        while waiting.proc("wchan") != "wait_for_partner" {
            assert!(Instant::now() < deadline, "never came to open its log: {:?}", waiting.proc("wchan"));
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting
    }

    fn proc(&self, file: &str) -> String {
        let bytes = std::fs::read(format!("/proc/{}/{file}", self.child.id())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Holds on to the executable, lets the runtime end, then writes; true when that changed the runtime's file.
    fn overwritten(mut self) -> bool {
        let exe = format!("/proc/{}/exe", self.child.id());
        let held = OpenOptions::new().read(true).custom_flags(orlop_sys::file::O_PATH).open(exe).unwrap();
        // A reader of the log lets it go on.
        File::open(self.directory.path().join("log")).unwrap().read_to_end(&mut Vec::new()).unwrap();
        self.child.wait().unwrap();
        let again = Path::new("/proc/self/fd").join(held.as_raw_fd().to_string());
        let written = OpenOptions::new().write(true).open(again).and_then(|mut exe| exe.write_all(b"#!/evil\n"));
        let changed = std::fs::read(self.directory.path().join("orlop")).unwrap().starts_with(b"#!/evil\n");
        assert_eq!(changed, written.is_ok(), "{written:?}");
        changed
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Without privileges there is no clone of a mount: the copy in memory is used.
const UNPRIVILEGED: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// One test, because a copy that is being written cannot be executed by a fork of another test.
#[test]
fn a_runtime_in_a_container_cannot_be_overwritten() {
    for wrap in [&[][..], UNPRIVILEGED] {
        for verb in ["create", "run", "exec"] {
            let waiting = Waiting::start(wrap, verb);
            assert_eq!(waiting.proc("comm"), "orlop\n", "{wrap:?} {verb}");
            let exe = std::fs::read_link(format!("/proc/{}/exe", waiting.child.id())).unwrap();
            assert_eq!(exe.to_string_lossy().contains("memfd:"), !wrap.is_empty(), "{exe:?}");
            assert!(!waiting.overwritten(), "{wrap:?} {verb}");
        }
    }
    // Where nothing is protected the attack works, so what is above could fail.
    assert!(Waiting::start(&[], "state").overwritten());
}
