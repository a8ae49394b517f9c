//! A mount namespace of the suite's own, so that no slip of a runtime reaches the host's mounts.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::check::Failure;

/// Set in the environment of the copy that runs in its own mount namespace.
const ISOLATED: &str = "ORLOP_CONFORMANCE_ISOLATED";

/// Whether this process is the isolated copy.
pub fn is_isolated() -> bool {
    env::var_os(ISOLATED).is_some()
}

/// Executes this program again, isolated; returns only if that fails.
/// CGROUPS=v1 shows the v1 hierarchies of a hybrid host alone: crun refuses the whole.
pub fn isolate(v1_alone: bool) -> Failure {
    let script = r#"set -e
if [ "$CGROUPS" = v1 ]; then
    view=$(mktemp -d)
    mount -t tmpfs -o mode=755 tmpfs "$view"
    for hierarchy in /sys/fs/cgroup/*/; do
        name=$(basename "$hierarchy")
        [ "$name" != unified ] || continue
        mkdir "$view/$name"
        mount --bind "$hierarchy" "$view/$name"
    done
    mount --move "$view" /sys/fs/cgroup
    rmdir "$view"
fi
mount --make-rshared /
# As the first `ip netns add` of a host leaves it: the witness of other checks would take that for a container's doing.
mkdir -p /run/netns
mountpoint -q /run/netns || { mount --bind /run/netns /run/netns && mount --make-shared /run/netns; }
exec "$@""#;
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure(format!("cannot find this program's own file: {error}")),
    };
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(ISOLATED, "1")
        .env("CGROUPS", if v1_alone { "v1" } else { "" })
        .exec();
    Failure(format!("cannot execute unshare: {error}"))
}
