//! Root file systems that a snapshotter makes of an image's layers, mounted and unmounted by the shim.

use super::{CGROUPS, id};
use orlop_integration::archive;
use orlop_integration::containerd::Containerd;
use orlop_integration::docker::Output;
use orlop_integration::wait;
use std::fs;
use std::sync::Mutex;

/// Layers enough for options of more than one page with the snapshotter's names.
const VERY_MANY: usize = 130;
/// The host's id for root in a container.
const SHIFTED: u32 = 300_000;

/// Imports an image of busybox and some more layers, once.
pub(super) fn image(daemon: &Containerd, more: usize) -> String {
    static MADE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let name = format!("docker.io/library/orlop-{more}:1");
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    if !made.contains(&more) {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let file = archive::image(&name, &daemon.rootfs(), more, scratch.path());
        daemon.ctr(&format!("images import {}", file.display())).exits(0);
        made.push(more);
    }
    name
}

fn run(daemon: &Containerd, flags: &str, image: &str, program: &str) -> Output {
    let id = id();
    daemon.ctr(&format!("run --rm --cgroup {CGROUPS}/{id} {flags} {image} {id} {program}"))
}

pub(super) fn an_image(daemon: &Containerd) {
    let image = image(daemon, 2);
    let script = "cat /layers/1 /layers/2; echo new >/layers/3; cat /layers/3; grep \" / / \" /proc/self/mountinfo";
    let out = run(daemon, "", &image, &format!("/bin/sh -c '{script}'")).exits(0).text();
    assert!(out.starts_with("here\nhere\nnew\n") && out.contains("overlay"), "{out}");
    // The next container has layers of its own.
    run(daemon, "", &image, "/bin/cat /layers/3").exits(1);
}

pub(super) fn an_image_of_very_many_layers(daemon: &Containerd) {
    let image = image(daemon, VERY_MANY);
    let out = run(daemon, "", &image, "/bin/sh -c 'cat /layers/* | wc -l'").exits(0);
    assert_eq!(out.text(), VERY_MANY.to_string());
}

/// A snapshot that is a file with a file system: the shim makes a loop device, which goes with the mount.
pub(super) fn a_file_as_a_block_device(daemon: &Containerd) {
    let image = image(daemon, 2);
    let script = "cat /layers/2; echo new >/layers/3; cat /layers/3; grep \" / / \" /proc/self/mountinfo";
    let out = run(daemon, "--snapshotter blockfile", &image, &format!("/bin/sh -c '{script}'")).exits(0).text();
    assert!(out.starts_with("here\nnew\n") && out.contains("ext4 /dev/loop"), "{out}");
    let dir = daemon.file("blockfile").display().to_string();
    let used = || {
        let devices = fs::read_dir("/sys/block").expect("sysfs").flatten();
        let mut files = devices.filter_map(|d| fs::read_to_string(d.path().join("loop/backing_file")).ok());
        files.any(|file| file.contains(&dir))
    };
    wait::until("the loop device is free", wait::SOON, || (!used()).then_some(()));
}

/// The layers' files belong to root of the container, though nobody has changed their owner on disk.
pub(super) fn layers_with_other_ids(daemon: &Containerd) {
    for more in [2, VERY_MANY] {
        let image = image(daemon, more);
        let map = format!("0:{SHIFTED}:65536");
        let flags = format!("--uidmap {map} --gidmap {map} --remap-labels");
        let script = "stat -c %u:%g /layers/1 /bin/busybox; echo new >/layers/new; stat -c %u /layers/new; cat /proc/self/uid_map";
        let out = run(daemon, &flags, &image, &format!("/bin/sh -c '{script}'")).exits(0).text();
        let words: Vec<&str> = out.split_whitespace().collect();
        assert_eq!(words, ["0:0", "0:0", "0", "0", &SHIFTED.to_string(), "65536"], "{more} layers: {out}");
    }
}
