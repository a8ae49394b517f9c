//! `delete --force` of what a killed create has left: as it was made, whatever the flags of `delete`. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test")]

mod bundle;

use bundle::{Bundle, ID, private_mounts};
use orlop::cgroup::{Driver, Request};
use orlop::config::Config;
use orlop::state::{Container, Reserved};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whose cgroups an unfinished container has is what its create was told, whatever `delete` is told.
#[test]
fn an_unfinished_container_is_deleted_as_it_was_made() {
    private_mounts();
    let b = Bundle::new();
    let disabled = ["--cgroup-manager", "disabled"];
    let with = |flags: &[&str], verb: &str, args: &[&str]| {
        let mut words = b.command(verb, args);
        words.splice(1..1, flags.iter().map(ToString::to_string));
        let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(output.unwrap().success(), "{words:?}");
    };
    let unfinished = |flags: &[&str]| {
        let pid_file = b.path("pid");
        with(flags, "create", &["--pid-file", pid_file.to_str().unwrap(), ID]);
        let pid: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
        orlop_sys::signal::kill(pid, orlop_sys::signal::SIGKILL).unwrap();
        fs::remove_file(b.state_dir().join("state.json")).unwrap();
    };
    unfinished(&[]);
    assert!(!b.state_dir().join("cgroup-manager").exists() && !b.cgroups().is_empty());
    with(&disabled, "delete", &["--force", ID]);
    assert_eq!(b.cgroups(), Vec::<PathBuf>::new());

    // The cgroup of its path is another's.
    let other = Bundle::new();
    let mut config = b.docker();
    config["linux"]["cgroupsPath"] = json!(other.cgroup_path());
    config["linux"]["resources"] = json!({});
    config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
    other.write(&config);
    assert!(other.run("create", &[ID]).ok());
    let theirs = other.cgroups();
    let init = other.run("state", &[ID]);
    assert!(!theirs.is_empty() && other.run("kill", &[ID, "KILL"]).ok(), "{init:?}");
    b.write(&config);
    unfinished(&disabled);
    with(&[], "delete", &["--force", ID]);
    assert_eq!(other.cgroups(), theirs);
    other.delete().unwrap();
    assert!(!b.state_dir().exists());
}

/// The unit is found again by what was kept, for the host's systemd.
#[test]
fn an_unfinished_scope_is_found_again() {
    let b = Bundle::new();
    let mut spec = b.docker();
    spec["linux"]["cgroupsPath"] = json!("system.slice:a:b");
    b.write(&spec);
    let config = Config::load(&b.path("config.json")).unwrap();
    let request = Request { driver: Driver::Systemd, user: false, id: ID, rootless: None, spec: &config.spec };
    let reserved = Reserved::new(&b.root(), ID).unwrap();
    reserved.keep_config(&config, &request).unwrap();
    let cgroup = Container::unfinished(&b.root(), ID).unwrap().unwrap();
    assert_eq!(cgroup.unit().unwrap().name, "a-b.scope");
    drop(reserved);
    assert!(!b.state_dir().exists());
}
