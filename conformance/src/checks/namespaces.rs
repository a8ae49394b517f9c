//! Namespaces: new, absent or joined by path; mappings, time offsets and sysctl.

use std::fs;

use serde_json::json;

use crate::check::{Check, Failure, Outcome};
use crate::holder::Holder;
use crate::runtime::Lab;

/// The type in the configuration and the link in /proc/pid/ns.
const KINDS: &[(&str, &str)] = &[
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "namespaces",
        type_unknown_is_refused "config-linux.md#namespaces",
        type_twice_is_refused "config-linux.md#namespaces",
        path_missing_is_refused "config-linux.md#namespaces",
        path_of_another_type_is_refused "config-linux.md#namespaces",
        network_new_has_only_loopback "config-linux.md#namespaces",
        network_loopback_is_up "runc: run",
        pid_absent_shows_the_host "config-linux.md#namespaces",
        user_mappings "config-linux.md#user-namespace-mappings",
        user_mapped_process_owns_what_it_makes "config-linux.md#user-namespace-mappings",
        user_devices_are_there "config-linux.md#devices",
        user_without_mappings_is_refused "config-linux.md#user-namespace-mappings",
        time_offsets "config-linux.md#offset-for-time-namespace",
        time_offsets_without_namespace_are_refused "config-linux.md#offset-for-time-namespace",
        sysctl_net "config-linux.md#sysctl",
        sysctl_ipc "config-linux.md#sysctl",
        sysctl_of_the_host_is_refused "config-linux.md#sysctl",
        sysctl_without_its_namespace_is_refused "config-linux.md#sysctl",
        sysctl_with_a_hostile_name_is_refused "CVE-2025-52881",
        exec_joins_all "runc: exec",
    );
    for &(kind, link) in KINDS {
        checks.push(Check::new(
            format!("namespaces::{kind}_new"),
            "config-linux.md#namespaces",
            move |lab: &mut Lab| {
                lab.without_namespace(kind);
                lab.set("/linux/namespaces/-", json!({ "type": kind }));
                if kind == "user" {
                    map(lab);
                }
                let inside = link_of(lab, link)?;
                ensure!(inside != own(link)?, "the container is in the caller's {kind} namespace");
                Ok(())
            },
        ));
        checks.push(Check::new(
            format!("namespaces::{kind}_by_path"),
            "config-linux.md#namespaces",
            move |lab: &mut Lab| by_path(lab, kind, link),
        ));
        if kind == "mount" || kind == "user" {
            continue;
        }
        checks.push(Check::new(
            format!("namespaces::{kind}_absent"),
            "config-linux.md#namespaces",
            move |lab: &mut Lab| {
                if kind == "uts" {
                    lab.remove("/hostname");
                }
                if kind == "network" {
                    // A new sysfs needs a network namespace of its own.
                    lab.config["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != "sysfs");
                }
                lab.without_namespace(kind);
                same!(link_of(lab, link)?, own(link)?, "{kind} namespace");
                Ok(())
            },
        ));
    }
    checks
}

fn own(link: &str) -> Result<String, Failure> {
    Ok(fs::read_link(format!("/proc/self/ns/{link}"))?.to_string_lossy().into_owned())
}

/// The namespace of a created container, seen from the host.
fn link_of(lab: &mut Lab, link: &str) -> Result<String, Failure> {
    lab.args(&["sleep", "100"]).create()?;
    Ok(fs::read_link(format!("/proc/{}/ns/{link}", lab.pid()?))?.to_string_lossy().into_owned())
}

/// Maps the container's ids 0 to 65535 to the host's from 100000, and gives it its root file system.
pub(super) fn map(lab: &mut Lab) {
    let map = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
    lab.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let own = std::process::Command::new("chown").args(["-R", "-h", "100000:100000"]).arg(lab.rootfs()).status();
    assert!(own.is_ok_and(|status| status.success()), "chown of the root file system");
    // The hard link above shares its owner with every other bundle's.
    let busybox = lab.rootfs().join("bin/busybox");
    assert!(std::os::unix::fs::chown(busybox, Some(0), Some(0)).is_ok(), "chown of busybox");
}

/// A namespace kept by a process outside any container, named by its /proc path.
fn by_path(lab: &mut Lab, kind: &str, link: &str) -> Outcome {
    let flag = match kind {
        "network" => "--net".to_owned(),
        other => format!("--{other}"),
    };
    let mut unshare = std::process::Command::new("unshare");
    match kind {
        "pid" | "time" => unshare.args([flag.as_str(), "--fork"]),
        "mount" => unshare.args(["--mount", "--propagation", "private"]),
        _ => unshare.arg(&flag),
    };
    let holder = Holder::start(&mut unshare)?;
    joined(lab, kind, link, holder.pid())
}

fn joined(lab: &mut Lab, kind: &str, link: &str, pid: i32) -> Outcome {
    let path = format!("/proc/{pid}/ns/{link}");
    let want = fs::read_link(&path)?.to_string_lossy().into_owned();
    ensure!(want != own(link)?, "the holder has no namespace of its own");
    if kind == "user" {
        for ids in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{ids}"), "0 100000 65536\n")?;
        }
        map(lab);
    }
    lab.without_namespace(kind);
    lab.set("/linux/namespaces/-", json!({ "type": kind, "path": path }));
    same!(link_of(lab, link)?, want, "{kind} namespace of the container");
    Ok(())
}

fn type_unknown_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/namespaces/-", json!({ "type": "space" }));
    })?;
    Ok(())
}

fn type_twice_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/namespaces/-", json!({ "type": "pid" }));
    })?;
    Ok(())
}

fn path_missing_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.without_namespace("ipc");
        lab.set("/linux/namespaces/-", json!({ "type": "ipc", "path": "/no/such/ns" }));
    })?;
    Ok(())
}

fn path_of_another_type_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.without_namespace("ipc");
        lab.set("/linux/namespaces/-", json!({ "type": "ipc", "path": "/proc/self/ns/uts" }));
    })?;
    Ok(())
}

fn network_new_has_only_loopback(lab: &mut Lab) -> Outcome {
    let out = lab.run_sh("ls /sys/class/net | grep -v -e tunl -e gre -e ip -e sit -e erspan -e bonding; true")?;
    same!(out, "lo\n", "interfaces");
    Ok(())
}

fn network_loopback_is_up(lab: &mut Lab) -> Outcome {
    let flags = lab.run_sh("cat /sys/class/net/lo/flags")?;
    same!(flags, "0x9\n", "flags of lo, of which 1 is up");
    Ok(())
}

fn pid_absent_shows_the_host(lab: &mut Lab) -> Outcome {
    lab.without_namespace("pid");
    let own = std::process::id();
    lab.run_sh(&format!("test -d /proc/{own}"))?;
    Ok(())
}

fn user(lab: &mut Lab) {
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    map(lab);
}

fn user_mappings(lab: &mut Lab) -> Outcome {
    user(lab);
    let out = lab.run_sh("awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; id -u")?;
    same!(out, "0 100000 65536\n0 100000 65536\n0\n", "maps and user");
    Ok(())
}

fn user_mapped_process_owns_what_it_makes(lab: &mut Lab) -> Outcome {
    user(lab);
    lab.set("/root/readonly", false).set("/process/user", json!({ "uid": 5, "gid": 6 }));
    lab.run_sh("touch /tmp/file")?;
    let meta = fs::metadata(lab.rootfs().join("tmp/file"))?;
    use std::os::unix::fs::MetadataExt;
    same!((meta.uid(), meta.gid()), (100005, 100006), "owner on the host");
    Ok(())
}

fn user_devices_are_there(lab: &mut Lab) -> Outcome {
    user(lab);
    let script = "echo x > /dev/null; head -c 2 /dev/zero | wc -c; stat -c %t:%T /dev/full; awk '{print $1, $2}' /proc/self/uid_map";
    let out = lab.run_sh(script)?;
    same!(out.split_whitespace().collect::<Vec<_>>(), ["2", "1:7", "0", "100000"], "devices and the first mapping");
    Ok(())
}

fn user_without_mappings_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    })?;
    Ok(())
}

fn time_offsets(lab: &mut Lab) -> Outcome {
    lab.set("/linux/namespaces/-", json!({ "type": "time" }));
    lab.set(
        "/linux/timeOffsets",
        json!({ "monotonic": { "secs": 7881 }, "boottime": { "secs": 864000, "nanosecs": 5 } }),
    );
    let outside: f64 = fs::read_to_string("/proc/uptime")?.split(' ').next().unwrap_or_default().parse()?;
    let out = lab.run_sh("cat /proc/uptime; cat /proc/self/timens_offsets")?;
    let inside: f64 = out.split(' ').next().unwrap_or_default().parse()?;
    ensure!((inside - outside - 864000.0).abs() < 10.0, "uptime {outside} outside and {inside} inside");
    let offsets = out.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(offsets.ends_with("monotonic 7881 0 boottime 864000 5"), "offsets: {offsets}");
    Ok(())
}

fn time_offsets_without_namespace_are_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/timeOffsets", json!({ "monotonic": { "secs": 1 } }));
    })?;
    Ok(())
}

fn sysctl_net(lab: &mut Lab) -> Outcome {
    lab.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "net.core.somaxconn": "777" }));
    same!(lab.run_sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn")?, "1\n777\n", "values");
    Ok(())
}

fn sysctl_ipc(lab: &mut Lab) -> Outcome {
    lab.set("/linux/sysctl", json!({ "kernel.msgmax": "12345", "fs.mqueue.msg_max": "99" }));
    same!(lab.run_sh("cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max")?, "12345\n99\n", "values");
    Ok(())
}

fn refuses_sysctl(lab: &mut Lab, name: &str, file: &str) -> Outcome {
    let before = fs::read_to_string(file)?;
    // The value that the file has: a runtime that writes it does no harm.
    let value = before.trim().to_owned();
    lab.refused(|lab| {
        lab.set("/linux/sysctl", json!({ name: value }));
    })?;
    Ok(())
}

fn sysctl_of_the_host_is_refused(lab: &mut Lab) -> Outcome {
    refuses_sysctl(lab, "kernel.panic", "/proc/sys/kernel/panic")
}

fn sysctl_without_its_namespace_is_refused(lab: &mut Lab) -> Outcome {
    lab.without_namespace("ipc");
    refuses_sysctl(lab, "kernel.msgmax", "/proc/sys/kernel/msgmax")
}

fn sysctl_with_a_hostile_name_is_refused(lab: &mut Lab) -> Outcome {
    for name in ["net.ipv4.x/../../../kernel/panic", "net/../kernel/panic"] {
        refuses_sysctl(lab, name, "/proc/sys/kernel/panic")?;
        lab.remove("/linux/sysctl");
    }
    Ok(())
}

fn exec_joins_all(lab: &mut Lab) -> Outcome {
    lab.set("/linux/namespaces/-", json!({ "type": "cgroup" }));
    lab.up_idle()?;
    let script = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done";
    let inside = lab.exec(&[], &["sh", "-c", script])?.ok("exec")?.stdout;
    let pid = lab.pid()?;
    for (link, seen) in ["pid", "net", "ipc", "uts", "mnt", "cgroup"].iter().zip(inside.lines()) {
        let init = fs::read_link(format!("/proc/{pid}/ns/{link}"))?;
        same!(seen, init.to_string_lossy(), "{link} namespace of exec");
    }
    same!(inside.lines().count(), 6, "namespaces");
    Ok(())
}
