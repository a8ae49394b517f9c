//! Programs of the machine, and the Debian packages that bring them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every outside program the tests start: name, where Debian puts it, package.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("busybox", "/usr/bin/busybox", "busybox-static"),
    ("bridge", "/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("containerd", "/usr/bin/containerd", "containerd"),
    ("containerd-shim-runc-v2", "/usr/bin/containerd-shim-runc-v2", "containerd"),
    ("ctr", "/usr/bin/ctr", "containerd"),
    ("docker", "/usr/bin/docker", "docker.io"),
    ("docker-init", "/usr/bin/docker-init", "docker.io"),
    ("dockerd", "/usr/sbin/dockerd", "docker.io"),
    ("ip", "/usr/sbin/ip", "iproute2"),
    ("iptables", "/usr/sbin/iptables", "iptables"),
    ("nsenter", "/usr/bin/nsenter", "util-linux"),
    ("buildah", "/usr/bin/buildah", "buildah"),
    ("docker-compose", "/usr/bin/docker-compose", "docker-compose"),
    ("podman", "/usr/bin/podman", "podman"),
    ("runc", "/usr/sbin/runc", "runc"),
    ("setpriv", "/usr/bin/setpriv", "util-linux"),
    ("setsid", "/usr/bin/setsid", "util-linux"),
    ("sha256sum", "/usr/bin/sha256sum", "coreutils"),
    ("tar", "/usr/bin/tar", "tar"),
    ("unshare", "/usr/bin/unshare", "util-linux"),
];

/// What makes images; not needed where the cache has them already.
const BUILDERS: &[(&str, &str, &str)] =
    &[("cc", "/usr/bin/cc", "build-essential"), ("debootstrap", "/usr/sbin/debootstrap", "debootstrap")];

/// The path of `name`: Debian's own first, so that another client of the same name on `PATH` does not get in the way.
///
/// # Panics
/// When it is nowhere, with the package to install.
pub fn path(name: &str) -> PathBuf {
    let (_, debian, package) = PROGRAMS
        .iter()
        .chain(BUILDERS)
        .find(|p| p.0 == name)
        .unwrap_or_else(|| panic!("{name} is not listed in PROGRAMS"));
    if Path::new(debian).exists() {
        return debian.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|p| p.exists())
        .unwrap_or_else(|| panic!("the program {name} is missing: apt-get install {package}"))
}

/// A command for `name`, see [`path`].
pub fn command(name: &str) -> Command {
    let mut command = Command::new(path(name));
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end and gives its standard output.
///
/// # Panics
/// When it does not succeed, with all that it wrote.
pub fn run(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

/// Panics with one sentence for the first program that the Docker tests need and the machine lacks.
pub fn check() {
    assert!(rustix::process::geteuid().is_root(), "the tests start a Docker daemon: run them as root");
    // The other tests name theirs themselves.
    for (name, ..) in PROGRAMS.iter().filter(|p| !["buildah", "docker-compose", "podman"].contains(&p.0)) {
        path(name);
    }
}
