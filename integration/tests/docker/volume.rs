//! Volumes, bind mounts, tmpfs.

use crate::fixture::{Fixture, SOON};
use orlop_integration::images::BUSYBOX;
use orlop_integration::{programs, wait};
use std::fs;
use std::path::Path;

crate::tests![
    named_volume_outlives_its_container,
    volume_gets_the_image_content,
    volumes_from,
    bind_mount_read_write,
    bind_mount_read_only,
    bind_mount_of_a_file,
    bind_propagation,
    tmpfs_with_options,
    read_only_root,
    shm_size,
];

fn named_volume_outlives_its_container(f: &Fixture) {
    let v = f.name("v");
    f.ok(&format!("volume create {v}"));
    f.ok(&format!("run --rm -v {v}:/data {BUSYBOX} sh -c 'echo stays > /data/file'"));
    assert_eq!(f.ok(&format!("run --rm -v {v}:/elsewhere:ro {BUSYBOX} cat /elsewhere/file")), "stays");
    let error = f.fails(1, &format!("run --rm -v {v}:/data:ro {BUSYBOX} touch /data/file"));
    assert!(error.contains("Read-only file system"), "{error}");
}

fn volume_gets_the_image_content(f: &Fixture) {
    let v = f.name("v");
    f.ok(&format!("volume create {v}"));
    assert!(f.ok(&format!("run --rm -v {v}:/etc {BUSYBOX} cat /etc/passwd")).contains("tester"));
}

fn volumes_from(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} -v /shared {BUSYBOX} sh -c 'echo both > /shared/file; sleep 300'"));
    wait::until("the file", SOON, || (f.run(&format!("exec {c} cat /shared/file")).text() == "both").then_some(()));
    assert_eq!(f.ok(&format!("run --rm --volumes-from {c} {BUSYBOX} cat /shared/file")), "both");
}

fn bind_mount_read_write(f: &Fixture) {
    let dir = f.dir();
    fs::write(dir.join("in"), "from the host").expect("a file of the test");
    let out =
        f.ok(&format!("run --rm -v {}:/data {BUSYBOX} sh -c 'cat /data/in; echo -n back > /data/out'", dir.display()));
    assert_eq!(out, "from the host");
    assert_eq!(fs::read_to_string(dir.join("out")).expect("what the container wrote"), "back");
}

fn bind_mount_read_only(f: &Fixture) {
    let dir = f.dir();
    for flag in [
        format!("-v {}:/data:ro", dir.display()),
        format!("--mount type=bind,src={},dst=/data,readonly", dir.display()),
    ] {
        let error = f.fails(1, &format!("run --rm {flag} {BUSYBOX} touch /data/file"));
        assert!(error.contains("Read-only file system"), "{error}");
    }
    assert!(!dir.join("file").exists());
}

fn bind_mount_of_a_file(f: &Fixture) {
    let file = f.dir().join("motd");
    fs::write(&file, "one file").expect("a file of the test");
    assert_eq!(f.ok(&format!("run --rm -v {}:/etc/motd:ro {BUSYBOX} cat /etc/motd", file.display())), "one file");
}

/// A mount made later: seen from the host in a slave and not in a private mount, and on the host out of a shared one.
fn bind_propagation(f: &Fixture) {
    let dir = f.dir();
    let host = |program: &str, args: &[&str]| programs::run(f.daemon().inside(program).args(args));
    let path = |name: &str| dir.join(name).display().to_string();
    for name in ["later", "out"] {
        fs::create_dir_all(dir.join(name)).expect("a directory of the test");
    }
    host("busybox", &["mount", "--bind", &path(""), &path("")]);
    host("busybox", &["mount", "--make-shared", &path("")]);
    // Docker's AppArmor profile lets no container mount.
    let flags = "--cap-add SYS_ADMIN --security-opt apparmor=unconfined";
    let start = |mode: &str| f.ok(&format!("run -d {flags} -v {}:/data:{mode} {BUSYBOX} sleep 300", dir.display()));
    let (private, slave, shared) = (start("rprivate"), start("rslave"), start("rshared"));
    host("busybox", &["mount", "-t", "tmpfs", "marker", &path("later")]);
    let sees = |c: &str| f.run(&format!("exec {c} grep -q ' /data/later ' /proc/self/mountinfo")).status == 0;
    let seen = (sees(&private), sees(&slave), sees(&shared));
    f.ok(&format!("exec {slave} mount -t tmpfs none /data/out"));
    let mounted = |at: &str| f.daemon().mounts().iter().any(|m| Path::new(m) == Path::new(at));
    let from_slave = mounted(&path("out"));
    f.ok(&format!("exec {slave} umount /data/out"));
    f.ok(&format!("exec {shared} mount -t tmpfs none /data/out"));
    let from_shared = mounted(&path("out"));
    host("busybox", &["umount", &path("out")]);
    host("busybox", &["umount", &path("later")]);
    host("busybox", &["umount", "-l", &path("")]);
    assert_eq!(seen, (false, true, true), "who sees the host's mount: private, slave, shared");
    assert_eq!((from_slave, from_shared), (false, true), "whose mount the host sees: slave, shared");
}

fn tmpfs_with_options(f: &Fixture) {
    let out = f.ok(&format!(
        "run --rm --tmpfs /t:size=1m,mode=1770,noexec {BUSYBOX} sh -c 'grep \" /t \" /proc/mounts; stat -c %a /t'"
    ));
    let (mount, mode) = out.split_once('\n').expect("two lines");
    assert_eq!(mode, "1770");
    for option in ["size=1024k", "noexec", "nosuid", "nodev"] {
        assert!(mount.contains(option), "no {option} in {mount}");
    }
    let full =
        f.fails(1, &format!("run --rm --tmpfs /t:size=1m {BUSYBOX} sh -c 'dd if=/dev/zero of=/t/x bs=1k count=2000'"));
    assert!(full.contains("No space left"), "{full}");
}

fn read_only_root(f: &Fixture) {
    let error = f.fails(1, &format!("run --rm --read-only {BUSYBOX} touch /srv/file"));
    assert!(error.contains("Read-only file system"), "{error}");
    f.ok(&format!("run --rm --read-only --tmpfs /srv {BUSYBOX} touch /srv/file /dev/shm/file"));
}

fn shm_size(f: &Fixture) {
    let size = f.ok(&format!(
        "run --rm --shm-size 32m {BUSYBOX} sh -c 'df -k /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2'"
    ));
    assert_eq!(size, "32768");
}
