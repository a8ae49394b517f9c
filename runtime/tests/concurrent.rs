//! Commands at the same time on one id. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod bundle;

use bundle::{Bundle, ID, mountinfo, private_mounts, soon};
use serde_json::json;
use std::fs;
use std::process::{Child, Command, Stdio};

/// A container that sleeps, whose poststop hook writes a line and takes its time.
fn bundle() -> Bundle {
    private_mounts();
    let b = Bundle::new();
    let mut config = b.docker();
    config["process"]["args"] = json!(["sleep", "30"]);
    let script = format!("echo x >>{}; exec sleep 1", b.path("hooks").display());
    config["hooks"] = json!({"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    b.write(&config);
    b
}

#[expect(clippy::disallowed_methods, reason = "the program under test")]
fn begin(b: &Bundle, verb: &str, args: &[&str]) -> Child {
    let words = b.command(verb, args);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn hooks(b: &Bundle) -> String {
    fs::read_to_string(b.path("hooks")).unwrap_or_default()
}

#[test]
fn of_two_deletes_one_deletes_and_the_other_finds_nothing() {
    let b = bundle();
    let mounts = mountinfo();
    for (args, code, says) in [(&[ID][..], 1, "container does not exist"), (&["--force", ID], 0, "")] {
        let _ = fs::remove_file(b.path("hooks"));
        assert!(b.run("create", &[ID]).ok());
        let first = begin(&b, "delete", &[ID]);
        assert!(soon(|| hooks(&b) == "x\n"));
        let second = begin(&b, "delete", args);
        let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
        assert!(first.status.success(), "{first:?}");
        assert_eq!(second.status.code(), Some(code), "{second:?}");
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(said.contains(says) && !said.contains("config.json"), "{second:?}");
        assert_eq!(hooks(&b), "x\n", "poststop hooks of one container");
        assert_eq!(b.left(&mounts), Vec::<String>::new());
    }
}

#[test]
fn a_container_in_the_foreground_that_another_command_deletes_ends_as_killed() {
    let b = bundle();
    let run = begin(&b, "run", &[ID]);
    assert!(soon(|| b.run("state", &[ID]).stdout.contains("running")));
    b.delete().unwrap();
    let out = run.wait_with_output().unwrap();
    assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).as_ref()), (Some(137), ""));
    assert_eq!(hooks(&b), "x\n", "poststop hooks of one container");
}
