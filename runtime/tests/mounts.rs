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

/// A list that cannot be mounted wholly is taken back: only what was made of it, not what the container mounts meanwhile.
#[test]
fn a_failed_list_leaves_the_containers_own_mounts() {
    const OWN: usize = 150;
    private_mounts();
    let b = Bundle::new();
    let mut config = b.docker();
    config["linux"].as_object_mut().unwrap().remove("seccomp");
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
    }
    let script = format!(
        "cd /out; busybox mkdir -p own; busybox mount -t tmpfs outer own; i=0; while [ $i -lt {OWN} ]; do busybox mkdir own/$i; \
         busybox mount -t tmpfs own own/$i; i=$((i+1)); done; echo > /out/done; exec sleep 100"
    );
    config["process"]["args"] = json!(["sh", "-c", script]);
    b.write(&config);
    let before = mountinfo();
    let source = b.path("source");
    fs::create_dir(&source).unwrap();
    let mut list: Vec<_> = (0..40)
        .map(|i| match i % 2 {
            0 => json!({"destination": format!("/tmp/{i}"), "type": "tmpfs", "source": "added"}),
            _ => json!({"destination": format!("/tmp/{i}"), "type": "bind", "source": source, "options": ["rbind"]}),
        })
        .collect();
    // On each other, and on a mount that was there before: the one below must stay.
    list.push(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "added"}));
    list.push(json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": ["bind"]}));
    list.push(json!({"destination": "/tmp/0/x", "type": "nosuchfs", "source": "none"}));
    let file = b.path("mounts.json");
    fs::write(&file, json!(list).to_string()).unwrap();
    assert!(b.run("create", &[ID]).ok());
    let pid = serde_json::from_str::<serde_json::Value>(&b.run("state", &[ID]).stdout).unwrap()["pid"].clone();
    let inside = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let first = inside();
    assert!(b.run("start", &[ID]).ok());
    let mut tries = 0;
    while !b.path("rootfs/out/done").exists() {
        let answer = b.run("mounts", &["add", ID, file.to_str().unwrap()]);
        assert!(answer.stderr.contains("mounts[42]: mount nosuchfs"), "{answer:?}");
        tries += 1;
    }
    assert!(tries > 1, "no list was mounted while the container mounted");
    let (own, others): (Vec<_>, Vec<_>) =
        inside().lines().map(str::to_string).partition(|line| line.contains(" /out/own"));
    assert_eq!(own.len(), OWN + 1, "{own:#?}");
    assert_eq!(others, first.lines().collect::<Vec<_>>());
    b.delete().unwrap();
    assert_eq!(b.left(&before), Vec::<String>::new());
}
