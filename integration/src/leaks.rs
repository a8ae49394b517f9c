//! What a daemon's containers left behind.

use crate::cgroup;
use crate::dockerd::Dockerd;
use std::fs;
use std::path::Path;

/// Everything that is there only while a container is: state directories of the runtime, bundles and shims of
/// containerd, cgroups, mounts, sockets. Empty when all containers are gone.
pub fn find(daemon: &Dockerd) -> Vec<String> {
    let exec = daemon.exec_root();
    let mut found = Vec::new();
    for entry in entries(&exec).into_iter().filter(|name| name.starts_with("runtime-")) {
        found.extend(
            entries(&exec.join(&entry).join("moby")).into_iter().map(|id| format!("runtime state: {entry}/{id}")),
        );
    }
    let of_shims = format!("/proc/{}/root/run/containerd/orlop/moby", daemon.anchor());
    found.extend(entries(Path::new(&of_shims)).into_iter().map(|id| format!("runtime state: {id}")));
    let bundles = exec.join("containerd/daemon/io.containerd.runtime.v2.task/moby");
    found.extend(entries(&bundles).into_iter().map(|id| format!("bundle: {id}")));
    let cgroups = cgroup::tree(daemon.cgroup_parent());
    found.extend(cgroups.iter().filter(|dir| !is_parent(dir, daemon)).map(|dir| format!("cgroup: {}", dir.display())));
    found.extend(daemon.new_mounts().into_iter().map(|mount| format!("mount: {mount}")));
    let shims = daemon.processes().into_iter().filter(|(_, line)| line.contains("containerd-shim"));
    found.extend(shims.map(|(pid, line)| format!("shim: {pid} {line}")));
    let sockets = format!("/proc/{}/root/run/containerd/s", daemon.anchor());
    found.extend(entries(Path::new(&sockets)).into_iter().map(|name| format!("shim socket: {name}")));
    found
}

/// The parent itself is made by the first container and stays, as with every runtime.
fn is_parent(dir: &Path, daemon: &Dockerd) -> bool {
    dir.to_string_lossy().ends_with(daemon.cgroup_parent())
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
