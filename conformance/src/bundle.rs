//! Bundles: a busybox root file system, and a config.json that starts from what `spec` writes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::check::{Failure, Outcome};

/// Where busybox may be on the host; it must be static, since the root file system has no libraries.
const BUSYBOX: [&str; 3] = ["/usr/bin/busybox", "/bin/busybox", "/usr/local/bin/busybox"];

/// The busybox commands that checks call inside a container.
const APPLETS: &[&str] = &[
    "sh",
    "awk",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dnsdomainname",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ionice",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mount",
    "mv",
    "nc",
    "nice",
    "od",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "renice",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setpriv",
    "setsid",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "sysctl",
    "tail",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "tty",
    "umount",
    "uname",
    "unshare",
    "usleep",
    "wc",
    "which",
    "whoami",
    "xargs",
];

/// Lays out a root file system at `rootfs`; busybox is a hard link to `busybox`, which lies on the same file system.
pub fn rootfs(rootfs: &Path, busybox: &Path) -> Outcome {
    for directory in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::hard_link(busybox, rootfs.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nada:x:1815:1852::/home/ada:/bin/sh\n")?;
    fs::write(rootfs.join("etc/group"), "root:x:0:\nada:x:1852:\nengine:x:1843:ada\n")?;
    Ok(())
}

/// Copies the host's static busybox to `to`.
pub fn copy_busybox(to: &Path) -> Outcome {
    let found = BUSYBOX.iter().find(|path| Path::new(path).exists());
    let found = found.ok_or_else(|| Failure("no busybox on this host: install busybox-static".into()))?;
    fs::copy(found, to)?;
    Ok(())
}

/// The configuration that `runc spec` writes since 1.2: without ambient capabilities.
pub fn base() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities,
                "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "runc",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// Sets the value at a JSON pointer, making objects on the way; a last `-` appends to an array, made if absent.
pub fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for part in pointer.split('/').skip(1) {
        if part == "-" {
            if !place.is_array() {
                *place = json!([]);
            }
            let array = place.as_array_mut().expect("made an array above");
            array.push(Value::Null);
            place = array.last_mut().expect("pushed above");
        } else if place.is_array() {
            let index: usize = part.parse().expect("an array index");
            place = place.get_mut(index).unwrap_or_else(|| panic!("{pointer}: no such element"));
        } else {
            if !place.is_object() {
                *place = json!({});
            }
            let object = place.as_object_mut().expect("made an object above");
            place = object.entry(part).or_insert(Value::Null);
        }
    }
    *place = value;
}

/// Removes the member that a JSON pointer names.
pub fn remove(config: &mut Value, pointer: &str) {
    let (parent, member) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
    let parent = config.pointer_mut(parent).and_then(Value::as_object_mut).expect("the parent is an object");
    parent.remove(member).unwrap_or_else(|| panic!("{pointer} is not in the configuration"));
}
