//! What a user can do about a failed call. A hint never contains words that callers match on ("permission
//! denied", "no such file or directory", "executable file not found", "is a directory", "not a directory").

use orlop_sys::Errno;

/// (start of the call's name, errno, hint): the first row that fits.
const HINTS: &[(&str, Errno, &str)] = &[
    ("open_tree", Errno::ENOENT, "the source of a bind mount must exist before the container is created"),
    ("open_tree", Errno::ENOSYS, "orlop needs Linux 5.12 or newer"),
    ("mount_setattr", Errno::ENOSYS, "orlop needs Linux 5.12 or newer"),
    ("mount_setattr", Errno::EPERM, "in a user namespace, flags that the source is mounted with cannot be taken away"),
    (
        "mount proc",
        Errno::EPERM,
        "a new procfs needs a new pid namespace, and a host procfs that nothing is mounted over",
    ),
    ("mount sysfs", Errno::EPERM, "a new sysfs needs a new network namespace that belongs to the user namespace"),
    ("mount", Errno::EINVAL, "the file system does not take one of these options"),
    ("mount", Errno::ENODEV, "the kernel has no such file system: is its module loaded?"),
    ("mount", Errno::EBUSY, "something is mounted there already, or in use"),
    ("make the place", Errno::EROFS, "the mount point must exist, because what it lies on is read-only"),
    (
        "make the place",
        Errno::ELOOP,
        "the destination leads through a symlink where none may be, or through a magic link",
    ),
    ("make the place", Errno::ENOTDIR, "a file stands where the destination needs a folder"),
    ("pivot_root", Errno::EINVAL, "the rootfs may lie on an initramfs: try --no-pivot"),
    ("setrlimit", Errno::EPERM, "raising a hard limit needs CAP_SYS_RESOURCE on the host"),
    ("write oom_score_adj", Errno::EACCES, "lowering it needs CAP_SYS_RESOURCE on the host"),
    ("write sysctl", Errno::EROFS, "/proc/sys is read-only here"),
    ("write sysctl", Errno::ENOENT, "this kernel has no such setting, or not in this namespace"),
    ("open label", Errno::ENOENT, "the security module is not active in this kernel"),
    ("write label", Errno::ENOENT, "is the profile loaded?"),
    ("write label", Errno::EINVAL, "the security module does not know this label"),
    ("capset", Errno::EPERM, "capabilities of one set must be in the permitted set too"),
    ("raise ambient", Errno::EPERM, "ambient capabilities must be permitted and inheritable"),
    ("seccomp", Errno::EINVAL, "the kernel may not know one of the flags or actions"),
    ("seccomp", Errno::EBUSY, "another filter with a listener is in force"),
    (
        "sched_setattr",
        Errno::EPERM,
        "this policy needs CAP_SYS_NICE, or a real-time budget of the cgroup; of SCHED_DEADLINE: process scheduler can't be used together \
         with AllowedCPUs (linux.resources.cpu.cpus)",
    ),
    ("sched_setattr", Errno::EBUSY, "the deadline asks for more time than the CPUs have"),
    (
        "set_mempolicy",
        Errno::EINVAL,
        "the kernel does not know this mode or flag, or not together, or none of the nodes is among those of the cpuset",
    ),
    ("set_mempolicy", Errno::ENOSYS, "the kernel is built without CONFIG_NUMA"),
    ("setgroups", Errno::EPERM, "setgroups(2) is denied in this user namespace"),
    ("set user", Errno::EINVAL, "the id is not mapped in the user namespace"),
    ("enter the cgroups", Errno::ENOSPC, "the cpuset has no CPUs or memory nodes"),
    ("clone3", Errno::EAGAIN, "a limit on processes is reached"),
];

/// The hint for a failed call, if there is one.
pub fn hint(call: &str, errno: Errno) -> Option<&'static str> {
    HINTS.iter().find(|(start, e, _)| *e == errno && call.starts_with(start)).map(|(_, _, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hint_changes_what_callers_conclude() {
        let matched = [
            "permission denied",
            "is a directory",
            "not a directory",
            "executable file not found",
            "no such file or directory",
            "operation not permitted",
            "container not running",
            "no such process",
            "does not exist",
        ];
        for (call, errno, hint) in HINTS {
            assert!(!matched.iter().any(|m| hint.to_lowercase().contains(m)), "{call} {errno}: {hint}");
        }
    }
}
