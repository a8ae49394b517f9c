//! Volumes and devices.

use crate::fixture::{Container, FOREVER, Lab, Pod, context, linux};
use orlop_integration::cri::messages::*;
use orlop_integration::{cgroup, programs};
use std::fs;
use std::path::PathBuf;

pub const TESTS: &[crate::Test] = crate::tests![
    volumes,
    one_volume_in_two_containers,
    a_file,
    a_source_that_is_missing,
    propagation_private,
    propagation_from_the_host,
    propagation_both_ways,
    termination_message,
    a_device,
    files_of_the_pod,
];

fn directory(pod: &Pod<'_>, name: &str) -> PathBuf {
    let dir = PathBuf::from(&pod.config.log_directory).join(name);
    fs::create_dir_all(&dir).expect("a directory of ours");
    dir
}

fn mount(host: &std::path::Path, container: &str, readonly: bool) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: container.to_owned(),
        readonly,
        ..Default::default()
    }
}

fn volumes(lab: &Lab) {
    let pod = lab.pod();
    let (one, two) = (directory(&pod, "one"), directory(&pod, "two"));
    fs::write(two.join("file"), "from the host").expect("a file of ours");
    let container = pod.run_with(FOREVER, |config| {
        config.mounts = vec![mount(&one, "/data", false), mount(&two, "/made/for/it", true)];
    });
    container.exec("echo from inside >/data/file");
    assert_eq!(fs::read_to_string(one.join("file")).expect("what was written"), "from inside\n");
    assert_eq!(container.exec("cat /made/for/it/file"), "from the host");
    assert!(container.says("echo >/made/for/it/file").contains("Read-only file system"));
}

fn one_volume_in_two_containers(lab: &Lab) {
    let pod = lab.pod();
    let dir = directory(&pod, "shared");
    let with = || pod.run_with(FOREVER, |config| config.mounts = vec![mount(&dir, "/data", false)]);
    let (one, two) = (with(), with());
    one.exec("echo text >/data/file");
    assert_eq!(two.exec("cat /data/file"), "text");
}

fn a_file(lab: &Lab) {
    let pod = lab.pod();
    let file = directory(&pod, "files").join("hosts");
    fs::write(&file, "192.0.2.1 somewhere\n").expect("a file of ours");
    let container = pod.run_with(FOREVER, |config| config.mounts = vec![mount(&file, "/etc/hosts", false)]);
    assert_eq!(container.exec("cat /etc/hosts"), "192.0.2.1 somewhere");
}

/// containerd makes the directory, as Docker does.
fn a_source_that_is_missing(lab: &Lab) {
    let pod = lab.pod();
    let dir = directory(&pod, "here").join("not/there");
    let container = pod.run_with(FOREVER, |config| config.mounts = vec![mount(&dir, "/data", false)]);
    assert!(dir.is_dir());
    container.exec("test -d /data");
}

/// A directory of the host that is a shared mount, of which the container has this propagation.
fn propagated<'a>(pod: &'a Pod<'_>, how: MountPropagation) -> (Container<'a>, PathBuf) {
    let dir = directory(pod, "shared");
    on_host(
        pod.lab,
        &format!("mount --bind {0} {0} && mount --make-shared {0} && mkdir {0}/host {0}/container", dir.display()),
    );
    let container = pod.run_with(FOREVER, |config| {
        // The kubelet lets privileged containers alone have mounts that go to the host.
        context(config).privileged = true;
        config.mounts = vec![Mount { propagation: how.into(), ..mount(&dir, "/data", false) }];
    });
    (container, dir)
}

fn privileged_pod(lab: &Lab) -> Pod<'_> {
    lab.pod_with(|config| linux(config).security_context.get_or_insert_default().privileged = true)
}

/// Runs the line where the daemon is; its standard output.
fn on_host(lab: &Lab, line: &str) -> String {
    let mut command = programs::command("nsenter");
    command.arg(format!("--target={}", lab.daemon.anchor())).args(["--mount", "--", "/bin/sh", "-c", line]);
    String::from_utf8_lossy(&programs::run(&mut command)).trim_end().to_owned()
}

/// Mounts on both sides; what the container sees of the host's mount, and the host of the container's.
fn seen(lab: &Lab, container: &Container<'_>, dir: &std::path::Path) -> (bool, bool) {
    let dir = dir.display();
    on_host(lab, &format!("mount -t tmpfs none {dir}/host && touch {dir}/host/file"));
    container.exec("mount -t tmpfs none /data/container && touch /data/container/file");
    let inside = container.says("ls /data/host") == "file";
    let outside = on_host(lab, &format!("ls {dir}/container")) == "file";
    container.exec("umount /data/container");
    on_host(lab, &format!("umount {dir}/host"));
    (inside, outside)
}

fn propagation(lab: &Lab, how: MountPropagation) -> (bool, bool) {
    let pod = privileged_pod(lab);
    let (container, dir) = propagated(&pod, how);
    let seen = seen(lab, &container, &dir);
    pod.remove().expect("RemovePodSandbox");
    on_host(lab, &format!("umount {}", dir.display()));
    seen
}

fn propagation_private(lab: &Lab) {
    assert_eq!(propagation(lab, MountPropagation::Private), (false, false));
}

fn propagation_from_the_host(lab: &Lab) {
    assert_eq!(propagation(lab, MountPropagation::HostToContainer), (true, false));
}

fn propagation_both_ways(lab: &Lab) {
    assert_eq!(propagation(lab, MountPropagation::Bidirectional), (true, true));
}

/// The file into which a container writes why it ended.
fn termination_message(lab: &Lab) {
    let pod = lab.pod();
    let file = directory(&pod, "files").join("message");
    fs::write(&file, "").expect("a file of ours");
    let mounts = vec![mount(&file, "/dev/termination-log", false)];
    let container = pod.run_with("echo the end >/dev/termination-log", |config| config.mounts = mounts);
    assert_eq!(container.ended().exit_code, 0);
    assert_eq!(fs::read_to_string(&file).expect("the message"), "the end\n");
}

fn a_device(lab: &Lab) {
    let pod = lab.pod();
    let device = |permissions: &str| Device {
        host_path: "/dev/zero".to_owned(),
        container_path: "/dev/nothing/of/note".to_owned(),
        permissions: permissions.to_owned(),
    };
    let container = pod.run_with(FOREVER, |config| config.devices = vec![device("rwm")]);
    assert_eq!(container.exec("head -c 3 /dev/nothing/of/note | wc -c"), "3");
    assert_eq!(container.exec("stat -c '%t:%T' /dev/nothing/of/note"), "1:5");
    // One that the host has and the container was not given: it can be made, but not used.
    let refused = container.says("mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg");
    assert!(refused.contains("Operation not permitted"), "{refused}");
}

fn files_of_the_pod(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    let mounts = container.exec("cut -d' ' -f2,3 /proc/mounts");
    for line in ["/proc proc", "/dev tmpfs", "/dev/pts devpts", "/dev/mqueue mqueue", "/sys sysfs", "/dev/shm tmpfs"] {
        assert!(mounts.lines().any(|mount| mount == line), "{line} is not in\n{mounts}");
    }
    for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        container.exec(&format!("test -f {path}"));
    }
    let cgroup = if cgroup::unified() { "/sys/fs/cgroup/new" } else { "/sys/fs/cgroup/memory/new" };
    for dir in [cgroup, "/sys/kernel/new"] {
        let refused = container.says(&format!("mkdir {dir} && echo made"));
        assert!(!refused.contains("made"), "{dir}");
    }
}
