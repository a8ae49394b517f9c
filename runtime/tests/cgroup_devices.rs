//! Device rules on the kernel of this host, as root: what a process inside may open.
#![allow(clippy::disallowed_methods, reason = "the tests start processes to put into cgroups")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]
#![allow(clippy::indexing_slicing, reason = "a failed test panics")]

mod scratch;

use orlop::cgroup::devices::DeviceList;
use orlop::cgroup::v2::V2;
use orlop::cgroup::{self, Cgroup};
use orlop_sys::devices;
use scratch::{Scratch, hybrid, resources, v2};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Opens a file in a process inside the cgroup: nothing, or what the shell says.
fn open(cgroup: &dyn Cgroup, redirect: &str) -> Result<(), String> {
    // It waits for a line, so that it is inside before it opens anything.
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go; : {redirect}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let moved = cgroup.attach(child.id() as i32);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    moved.unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

const KMSG: &str =
    r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;

/// Rules, what they allow, and what they deny with EPERM.
const CASES: &[(&str, &[&str], &[&str])] = &[
    (r#"{"devices":[{"allow":false,"access":"rwm"}]}"#, &["</dev/null", "<>/dev/zero"], &["</dev/kmsg", "<>/dev/kmsg"]),
    (KMSG, &["</dev/null", "</dev/kmsg"], &["<>/dev/kmsg"]),
    (r#"{"devices":[{"allow":true,"access":"rwm"}]}"#, &["</dev/null", "<>/dev/kmsg"], &[]),
    (
        r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]}"#,
        &["</dev/null", "</dev/kmsg"],
        &["<>/dev/kmsg"],
    ),
];

fn check(cgroup: &dyn Cgroup, json: &str, allowed: &[&str], denied: &[&str]) {
    for redirect in allowed {
        assert_eq!(open(cgroup, redirect), Ok(()), "{json} {redirect}");
    }
    for redirect in denied {
        let said = open(cgroup, redirect).expect_err(&format!("{json} {redirect} must be denied"));
        assert!(said.contains("Operation not permitted"), "{json} {redirect}: {said}");
    }
}

#[test]
fn rules_hold_and_change_in_the_layout_of_this_host() {
    let scratch = Scratch::new();
    let mut cgroup = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap();
    for (json, allowed, denied) in CASES {
        cgroup.create(Some(&resources(json))).unwrap();
        check(&*cgroup, json, allowed, denied);
        // The same by a change of each of the others.
        for (other, ..) in CASES {
            cgroup.set(&resources(other)).unwrap();
            cgroup.set(&resources(json)).unwrap();
            check(&*cgroup, json, allowed, denied);
        }
        cgroup.remove().unwrap();
    }
}

#[test]
fn a_child_cannot_have_more_than_its_parent() {
    if v2() {
        return; // There the program of the parent goes on deciding, which no write can show.
    }
    let scratch = Scratch::new();
    let mut parent = cgroup::Host::default().files(Some(&scratch.path), "unused").unwrap();
    parent.create(None).unwrap();
    let mut child = cgroup::Host::default().files(Some(&scratch.path.join("child")), "unused").unwrap();
    let e = child.create(Some(&resources(KMSG))).unwrap_err().to_string();
    assert!(e.starts_with("linux.resources.devices: write \"c 1:11 r\" to "), "{e}");
    assert!(e.contains("EPERM") && e.contains("a parent cgroup denies this device"), "{e}");
}

/// Every host with a v2 tree, hybrid ones too, can have the program attached.
#[test]
fn the_ebpf_program_holds_and_is_replaced() {
    let root = Path::new(if v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" });
    assert!(v2() || hybrid(), "this test needs a cgroup v2 tree");
    let scratch = Scratch::new();
    let dir = root.join(scratch.path.strip_prefix("/").unwrap()).with_extension("ebpf");
    for (json, allowed, denied) in CASES {
        let mut cgroup = V2::new(root, dir.clone(), true);
        let entry = cgroup.create(Some(&resources(json))).unwrap();
        let fd = entry.dir.unwrap();
        let programs = || devices::attached(fd.as_fd()).unwrap().len();
        // A privileged container needs none.
        assert_eq!(programs(), usize::from(!denied.is_empty()), "{json}");
        check(&cgroup, json, allowed, denied);
        for (other, ..) in CASES {
            cgroup.set(&resources(other)).unwrap();
            cgroup.set(&resources(json)).unwrap();
            assert_eq!(programs(), 1, "{json}");
            check(&cgroup, json, allowed, denied);
        }
        cgroup.remove().unwrap();
    }
}

#[test]
fn several_programs_become_one() {
    let root = Path::new(if v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" });
    let scratch = Scratch::new();
    let mut cgroup = V2::new(root, root.join(scratch.path.strip_prefix("/").unwrap()).with_extension("many"), true);
    let entry = cgroup.create(None).unwrap();
    let dir = File::open(&cgroup.paths()[""]).unwrap();
    let list = DeviceList::new(&[]).unwrap();
    list.attach(entry.dir.unwrap().as_fd(), true).unwrap();
    assert_eq!(devices::attached(dir.as_fd()).unwrap().len(), 2);
    list.attach(dir.as_fd(), false).unwrap();
    assert_eq!(devices::attached(dir.as_fd()).unwrap().len(), 1);
    cgroup.remove().unwrap();
}
