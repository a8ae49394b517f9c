//! What a container may see, use and change.

use crate::fixture::Fixture;
use orlop_integration::images::{self, BUSYBOX};
use orlop_integration::{cgroup, programs};
use std::fs;

crate::tests![
    Nothing: read_only, own_init, ulimits, sysctls, devices, secrets, volumes, rootfs, capabilities_and_no_new_privileges, host_namespaces;
    Root: id_maps;
    User: user_namespaces;
    Cgroups: limits_and_update, out_of_memory;
];

fn read_only(f: &Fixture) {
    let script = "touch /x 2>/dev/null || echo denied; touch /tmp/x /scratch/x && echo written";
    let out = f.ok(&format!("run --rm --read-only --tmpfs /scratch {BUSYBOX} sh -c '{script}'"));
    assert_eq!(out, "denied\nwritten");
}

fn own_init(f: &Fixture) {
    let out = f.ok(&format!("run --rm --init {BUSYBOX} sh -c 'cat /proc/1/comm; echo $$'"));
    let (first, own) = out.split_once('\n').expect("two lines");
    assert!(first.contains("init"), "{first}");
    assert_ne!(own, "1");
    f.fails(6, &format!("run --rm --init {BUSYBOX} sh -c 'exit 6'"));
}

fn ulimits(f: &Fixture) {
    let out = f.ok(&format!(
        "run --rm --ulimit nofile=512:1024 --ulimit nproc=4096:4096 --ulimit core=0 {BUSYBOX} sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'"
    ));
    assert_eq!(out, "512\n1024\n0");
}

fn sysctls(f: &Fixture) {
    let out =
        f.ok(&format!("run --rm --sysctl net.ipv4.ip_default_ttl=99 {BUSYBOX} cat /proc/sys/net/ipv4/ip_default_ttl"));
    assert_eq!(out, "99");
}

fn devices(f: &Fixture) {
    let out = f.ok(&format!(
        "run --rm --device /dev/zero:/dev/mine:r {BUSYBOX} sh -c 'stat -c %t:%T /dev/mine; head -c 3 /dev/mine | wc -c'"
    ));
    assert_eq!(out, "1:5\n3");
}

fn secrets(f: &Fixture) {
    let (name, file) = (f.name("secret"), f.dir().join("secret"));
    fs::write(&file, "below the waterline").expect("a file of the test");
    f.ok(&format!("secret create {name} {}", file.display()));
    let out = f.ok(&format!("run --rm --secret {name} {BUSYBOX} cat /run/secrets/{name}"));
    f.ok(&format!("secret rm {name}"));
    assert_eq!(out, "below the waterline");
}

fn volumes(f: &Fixture) {
    let (volume, dir) = (f.name("volume"), f.dir());
    fs::write(dir.join("file"), "of the host").expect("a file of the test");
    f.ok(&format!("volume create {volume}"));
    f.ok(&format!("run --rm -v {volume}:/data {BUSYBOX} sh -c 'echo kept > /data/file'"));
    assert_eq!(f.ok(&format!("run --rm -v {volume}:/data {BUSYBOX} cat /data/file")), "kept");
    f.ok(&format!("volume rm {volume}"));
    let bind = format!("-v {}:/bound:ro", dir.display());
    assert_eq!(f.ok(&format!("run --rm {bind} {BUSYBOX} cat /bound/file")), "of the host");
    let denied = f.fails(1, &format!("run --rm {bind} {BUSYBOX} touch /bound/x"));
    assert!(denied.contains("Read-only file system"), "{denied}");
}

fn rootfs(f: &Fixture) {
    let (root, scratch) = (f.dir().join("root"), f.dir().join("scratch"));
    fs::create_dir(&root).and_then(|()| fs::create_dir(&scratch)).expect("directories of the test");
    let (_, tar) = images::tar(BUSYBOX, &scratch);
    programs::run(programs::command("tar").arg("-C").arg(&root).arg("-xf").arg(tar));
    assert_eq!(f.ok(&format!("run --rm --rootfs {} busybox echo no image", root.display())), "no image");
}

fn capabilities_and_no_new_privileges(f: &Fixture) {
    let read = "grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    let out =
        f.ok(&format!("run --rm --cap-drop all --cap-add chown --security-opt no-new-privileges {BUSYBOX} {read}"));
    assert_eq!(out, "CapEff:\t0000000000000001\nNoNewPrivs:\t1");
}

fn host_namespaces(f: &Fixture) {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
    for (flag, kind) in [("--ipc", "ipc"), ("--uts", "uts")] {
        assert_eq!(f.ok(&format!("run --rm {flag} host {BUSYBOX} readlink /proc/self/ns/{kind}")), own(kind), "{flag}");
        assert_ne!(f.ok(&format!("run --rm {BUSYBOX} readlink /proc/self/ns/{kind}")), own(kind), "{flag}");
    }
}

fn id_maps(f: &Fixture) {
    let out = f.ok(&format!("run --rm --uidmap 0:200000:1000 --gidmap 0:200000:1000 {BUSYBOX} sh -c 'cat /proc/self/uid_map; stat -c %u /etc/passwd'"));
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "1000", "0"]);
}

/// One after the other: `auto` takes ids that no other container maps, and the other two map all of the user's.
fn user_namespaces(f: &Fixture) {
    let map = f.ok(&format!("run --rm --userns auto:size=1024 {BUSYBOX} cat /proc/self/uid_map"));
    assert_eq!(map.split_whitespace().last(), Some("1024"), "{map}");
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(f.ok(&format!("run --rm --userns keep-id {BUSYBOX} id -u")), uid.to_string());
    // Seen from the user's own namespace, no id of the container is the user's.
    let c = f.idle("--userns nomap");
    let seen = fs::read_to_string(format!("/proc/{}/status", f.pid(&c))).expect("its status");
    assert!(!seen.contains(&format!("Uid:\t{uid}\t")), "{seen}");
}

fn limits_and_update(f: &Fixture) {
    let c = f.idle("--memory 64m --pids-limit 50");
    let read = |controller: &str, v1: &str, v2: &str| {
        cgroup::read(f.pid(&c), controller, if cgroup::unified() { v2 } else { v1 })
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "50");
    f.ok(&format!("update --memory 96m {c}"));
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (96 << 20).to_string());
    assert_eq!(f.ok(&format!("exec {c} echo alive")), "alive");
}

fn out_of_memory(f: &Fixture) {
    f.fails(137, &format!("run --rm --memory 20m --memory-swap 20m {BUSYBOX} tail /dev/zero"));
}
