//! `mounts add` and `mounts remove` against a container that works against them. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod bundle;

use bundle::{Bundle, ID, mountinfo, private_mounts, unclear};
use serde_json::json;
use std::fs;

/// How often the race is run: it takes some milliseconds each time.
const TRIES: usize = 60;

/// All the while a directory of the container is now itself, now a symlink to a directory of the host, now nothing: whenever the
/// mount point is looked for, what is found lies below the container's root.
#[test]
fn a_racing_symlink_cannot_send_a_mount_to_the_host() {
    private_mounts();
    let b = Bundle::new();
    let (victim, source) = (b.path("victim"), b.path("source"));
    fs::create_dir_all(victim.join("place")).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let mut config = b.docker();
    config["linux"].as_object_mut().unwrap().remove("seccomp");
    let script = format!(
        "exec 2>/dev/null; cd /out; while :; do busybox ln -s {0} p; busybox rm p; busybox mkdir p; busybox mkdir p/place; \
         busybox rmdir p/place; busybox rmdir p || busybox mv p gone$$; busybox ln -s ../../../../../../..{0} p; busybox rm p; done",
        victim.display()
    );
    config["process"]["args"] = json!(["sh", "-c", script]);
    b.write(&config);
    let before = mountinfo();
    assert!(b.run("create", &[ID]).ok() && b.run("start", &[ID]).ok());
    let list = b.path("mounts.json");
    let mount = json!([{"destination": "/out/p/place", "type": "bind", "source": source, "options": ["bind"]}]);
    fs::write(&list, mount.to_string()).unwrap();
    let list = list.to_str().unwrap();
    let mut made = 0;
    for _ in 0..TRIES {
        for action in ["add", "remove"] {
            let answer = b.run("mounts", &[action, ID, list]);
            made += usize::from(answer.ok());
            assert!(answer.ok() || unclear(&answer.stderr).is_none(), "{action}: {answer:?}");
            assert_eq!(mountinfo(), before, "{action}: mounts of the host");
            assert_eq!(fs::read_dir(victim.join("place")).unwrap().count(), 0, "{action}: what the host sees");
        }
    }
    assert!(made > 0, "no mount was ever made");
    b.delete().unwrap();
    assert_eq!(b.left(&before), Vec::<String>::new());
}

/// A procfs shows the pid namespace of who mounts it: that must be the container's.
#[test]
fn a_new_procfs_is_that_of_the_container() {
    private_mounts();
    let b = Bundle::new();
    let mut config = b.docker();
    config["linux"].as_object_mut().unwrap().remove("seccomp");
    config["process"]["args"] = json!(["sleep", "30"]);
    b.write(&config);
    assert!(b.run("create", &[ID]).ok() && b.run("start", &[ID]).ok());
    let list = b.path("mounts.json");
    fs::write(&list, json!([{"destination": "/out", "type": "proc", "source": "proc"}]).to_string()).unwrap();
    let answer = b.run("mounts", &["add", ID, list.to_str().unwrap()]);
    assert!(answer.ok(), "{answer:?}");
    let seen = b.run("exec", &[ID, "cat", "/out/1/comm"]);
    assert_eq!(seen.stdout, "sleep\n", "{seen:?}");
}
