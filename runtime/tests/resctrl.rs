//! The class of service of a container (Intel RDT) from exec to delete, as root. No hardware here has resctrl, so plain directories
//! stand for the class in the state of a container that was made without one; how a class is made is tested beside the code.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod bundle;

use bundle::{Bundle, ID};
use serde_json::{Value, json};
use std::fs;

fn edit_state(bundle: &Bundle, class: Value) {
    let path = bundle.state_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["intel_rdt"] = class;
    fs::write(&path, state.to_string()).unwrap();
}

#[test]
fn exec_enters_the_class_and_delete_removes_what_was_made() {
    let bundle = Bundle::new();
    let mut config = bundle.docker();
    config["process"]["args"] = json!(["sleep", "100"]);
    bundle.write(&config);
    assert!(bundle.run("create", &[ID]).ok() && bundle.run("start", &[ID]).ok());

    let (class, monitor) = (bundle.path("class"), bundle.path("monitor"));
    for dir in [&class, &monitor] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("tasks"), "").unwrap();
    }
    edit_state(&bundle, json!({"root": class, "path": class, "monitor": monitor, "own": true}));
    let pid_file = bundle.path("pid");
    let answer = bundle.run("exec", &["--detach", "--pid-file", pid_file.to_str().unwrap(), ID, "sleep", "100"]);
    assert!(answer.ok(), "{answer:?}");
    for dir in [&class, &monitor] {
        assert_eq!(fs::read_to_string(dir.join("tasks")).unwrap(), fs::read_to_string(&pid_file).unwrap(), "{dir:?}");
    }

    // The kernel's own files go with the directory.
    fs::remove_file(class.join("tasks")).unwrap();
    let answer = bundle.run("exec", &[ID, "true"]);
    assert!(!answer.ok() && answer.stderr.contains("linux.intelRdt: open"), "{answer:?}");
    fs::remove_file(monitor.join("tasks")).unwrap();
    bundle.delete().unwrap();
    assert!(!class.exists() && !monitor.exists());
}

#[test]
fn delete_leaves_a_class_that_is_not_the_containers_own() {
    let bundle = Bundle::new();
    bundle.write(&bundle.docker());
    assert!(bundle.run("create", &[ID]).ok());
    let class = bundle.path("class");
    fs::create_dir(&class).unwrap();
    edit_state(&bundle, json!({"root": class, "path": class, "own": false}));
    bundle.delete().unwrap();
    assert!(class.exists());
}
