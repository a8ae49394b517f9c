//! Device nodes in a root file system that works against them. Needs root.
#![cfg(all(feature = "cli", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod bundle;

use bundle::{Bundle, ID, private_mounts};
use nix::fcntl::{RenameFlags, renameat2};
use orlop_sys::file;
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

/// The race was won within some dozens of these when the mode was set by name.
const TRIES: usize = 400;

/// Without a /dev of its own, a container's nodes may be there already: one is now itself, now a symlink to a file of the host.
#[test]
fn a_racing_symlink_cannot_send_a_mode_or_an_owner_to_the_host() {
    private_mounts();
    let b = Bundle::new();
    let victim = b.path("victim");
    fs::write(&victim, "").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
    let dev = b.path("rootfs/dev");
    let node = c"node";
    file::mknodat(File::open(&dev).unwrap().as_fd(), node, file::S_IFCHR | 0o600, file::device(1, 3)).unwrap();
    let mut config = b.docker();
    config["mounts"] = json!([]);
    config["linux"]["devices"] =
        json!([{"path": "/dev/race", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 7, "gid": 7}]);
    // Nothing that takes time beside the race.
    config.as_object_mut().unwrap().remove("hooks");
    for field in ["maskedPaths", "readonlyPaths", "seccomp", "sysctl"] {
        config["linux"].as_object_mut().unwrap().remove(field);
    }
    config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid"}]);
    b.write(&config);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Two names of which one is always the node, so that nearly every look finds another one than the last.
            fs::hard_link(dev.join("node"), dev.join("race")).unwrap();
            symlink(&victim, dev.join("other")).unwrap();
            let directory = File::open(&dev).unwrap();
            while !over.load(Ordering::Relaxed) {
                renameat2(&directory, "race", &directory, "other", RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        for _ in 0..TRIES {
            let _ = b.run("create", &[ID]);
            let _ = b.delete();
            if fs::metadata(&victim).unwrap().mode() & 0o7777 != 0o600 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let found = fs::metadata(&victim).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o600, 0, 0));
    // What the race leaves in peace gets both.
    for name in ["race", "other"] {
        fs::remove_file(dev.join(name)).unwrap();
    }
    fs::hard_link(dev.join("node"), dev.join("race")).unwrap();
    assert!(b.run("create", &[ID]).ok());
    let found = fs::symlink_metadata(dev.join("race")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o666, 7, 7));
}
