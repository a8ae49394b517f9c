//! Hosts on which something is missing, full or changed by others: one clear error, and nothing is left. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "programs that break things")]

mod bundle;

use bundle::{Answer, Bundle, ID, alive, mountinfo, private_mounts, soon, unclear};
use orlop_sys::mount;
use std::fs;
use std::process::{Child, Command};

/// A tmpfs on the state's directory.
fn state_on_tmpfs(b: &Bundle, options: &std::ffi::CStr) {
    fs::create_dir_all(b.root()).unwrap();
    let root = std::ffi::CString::new(b.root().to_str().unwrap()).unwrap();
    mount::mount(Some(c"tmpfs"), &root, Some(c"tmpfs"), 0, Some(options)).unwrap();
}

fn is_clear(answer: &Answer, errno: &str) {
    assert!(!answer.ok() && answer.stderr.contains(errno), "{answer:?}");
    assert_eq!(unclear(&answer.stderr), None);
}

#[test]
fn a_full_state_directory_is_told_and_a_container_in_it_can_be_deleted() {
    private_mounts();
    let b = Bundle::new();
    b.write(&b.sleeping());
    state_on_tmpfs(&b, c"size=256k");
    let mounts = mountinfo();
    let filler = b.root().join("filler");
    let fill = || {
        let mut file = fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };
    fill();
    is_clear(&b.run("create", &[ID]), "ENOSPC");
    assert_eq!(b.left(&mounts), [""; 0]);
    fs::remove_file(&filler).unwrap();
    let created = b.run("create", &[ID]);
    assert!(created.ok(), "{created:?}");
    fill();
    for (verb, args) in [("start", &[ID][..]), ("state", &[ID]), ("exec", &[ID, "true"]), ("kill", &[ID, "KILL"])] {
        let answer = b.run(verb, args);
        assert!(answer.ok(), "{verb}: {answer:?}");
    }
    b.delete().unwrap();
    assert!(soon(|| b.left(&mounts).is_empty()), "{:?}", b.left(&mounts));
}

#[test]
fn a_read_only_state_directory_is_told() {
    private_mounts();
    let b = Bundle::new();
    state_on_tmpfs(&b, c"ro");
    let mounts = mountinfo();
    is_clear(&b.run("create", &[ID]), "EROFS");
    assert_eq!(b.left(&mounts), [""; 0]);
    assert!(b.run("list", &[]).ok());
}

#[test]
fn a_container_whose_cgroups_others_have_removed_can_be_deleted() {
    private_mounts();
    let b = Bundle::new();
    b.write(&b.sleeping());
    let mounts = mountinfo();
    assert!(b.run("create", &[ID]).ok() && b.run("start", &[ID]).ok());
    let all = b.processes();
    assert!(!all.is_empty());
    for pid in &all {
        orlop_sys::signal::kill(*pid, orlop_sys::signal::SIGKILL).unwrap();
    }
    assert!(soon(|| b.cgroups().iter().all(|dir| fs::remove_dir(dir).is_ok()) || b.cgroups().is_empty()));
    let state = b.run("state", &[ID]);
    assert!(state.ok() && state.stdout.contains("\"stopped\""), "{state:?}");
    let answer = b.run("delete", &[ID]);
    assert!(answer.ok(), "{answer:?}");
    assert!(soon(|| b.left(&mounts).is_empty()), "{:?}", b.left(&mounts));
}

/// Frozen by somebody else, not by `pause`: on v1 its processes do not even die.
#[test]
fn a_frozen_container_can_be_killed_and_deleted() {
    private_mounts();
    for kill_first in [false, true] {
        let b = Bundle::new();
        b.write(&b.sleeping());
        let mounts = mountinfo();
        assert!(b.run("create", &[ID]).ok() && b.run("start", &[ID]).ok());
        let freeze = |dir: &std::path::PathBuf| {
            fs::write(dir.join("freezer.state"), "FROZEN").is_ok() || fs::write(dir.join("cgroup.freeze"), "1").is_ok()
        };
        assert!(b.cgroups().iter().filter(|dir| freeze(dir)).count() > 0, "no freezer in {:?}", b.cgroups());
        if kill_first {
            let answer = b.run("kill", &[ID, "KILL"]);
            assert!(answer.ok(), "{answer:?}");
            assert!(soon(|| b.processes().is_empty()), "{:?}", b.processes());
        }
        b.delete().unwrap();
        assert!(soon(|| b.left(&mounts).is_empty()), "{:?}", b.left(&mounts));
    }
}

struct Bystander(Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number of an init that has ended is another process's now: that one is no part of the container.
#[test]
fn a_process_that_has_the_inits_number_is_left_alone() {
    private_mounts();
    let b = Bundle::new();
    b.write(&b.sleeping());
    assert!(b.run("create", &[ID]).ok() && b.run("start", &[ID]).ok());
    let bystander = Bystander(Command::new("sleep").arg("1000").spawn().unwrap());
    let file = b.state_dir().join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let init = state["init_process_pid"].as_i64().unwrap() as i32;
    state["init_process_pid"] = bystander.0.id().into();
    fs::write(&file, state.to_string()).unwrap();
    orlop_sys::signal::kill(init, orlop_sys::signal::SIGKILL).unwrap();
    let answer = b.run("state", &[ID]);
    assert!(answer.stdout.contains("\"stopped\""), "{answer:?}");
    assert!(!b.run("kill", &[ID, "KILL"]).ok());
    assert!(!b.run("exec", &[ID, "true"]).ok());
    assert!(soon(|| b.processes().is_empty()));
    b.delete().unwrap();
    assert!(alive(bystander.0.id() as i32));
}
