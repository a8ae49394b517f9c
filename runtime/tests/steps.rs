//! One configuration that fails for each kind of step of the plan: the error is one line that names the field, and nothing
//! is left behind. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod bundle;

use bundle::{Answer, Bundle, ID, mountinfo, private_mounts, unclear};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// An edit of Docker's configuration, the field that the error must name, and words that it must have.
struct Case {
    name: &'static str,
    edit: fn(&mut Value, &Bundle),
    field: &'static str,
    words: &'static [&'static str],
    /// Behind the gate: `create` succeeds, and `start` must fail.
    behind: bool,
    verbs: &'static [&'static str],
}

const BOTH: &[&str] = &["create", "run"];

const fn case(
    name: &'static str,
    field: &'static str,
    words: &'static [&'static str],
    edit: fn(&mut Value, &Bundle),
) -> Case {
    Case { name, edit, field, words, behind: false, verbs: BOTH }
}

const fn behind(
    name: &'static str,
    field: &'static str,
    words: &'static [&'static str],
    edit: fn(&mut Value, &Bundle),
) -> Case {
    Case { name, edit, field, words, behind: true, verbs: BOTH }
}

fn add(config: &mut Value, list: &str, value: Value) {
    match config.pointer_mut(list) {
        Some(Value::Array(values)) => values.push(value),
        _ => set(config, list, json!([value])),
    }
}

fn set(config: &mut Value, at: &str, value: Value) {
    let (parent, name) = at.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[name] = value;
}

fn mount(config: &mut Value, at: &str, kind: &str, source: &str, options: &[&str]) {
    add(config, "/mounts", json!({"destination": at, "type": kind, "source": source, "options": options}));
}

fn hook(config: &mut Value, kind: &str, path: &str, args: &[&str]) {
    set(config, &format!("/hooks/{kind}"), json!([{"path": path, "args": args, "timeout": 1}]));
}

fn args(config: &mut Value, words: &[&str]) {
    set(config, "/process/args", json!(words));
}

fn file(b: &Bundle, name: &str, text: &str, mode: u32) {
    let path = b.path("rootfs").join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn join(config: &mut Value, kind: &str, path: &str) {
    let list = config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|ns| ns["type"] != kind);
    list.push(json!({"type": kind, "path": path}));
}

fn user_namespace(config: &mut Value) {
    add(config, "/linux/namespaces", json!({"type": "user"}));
    let all = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    set(config, "/linux/uidMappings", all.clone());
    set(config, "/linux/gidMappings", all);
}

const CASES: &[Case] = &[
    case("rlimit above fs.nr_open", "process.rlimits[0]", &["setrlimit", "EPERM"], |c, _| {
        let most = u64::from(u32::MAX);
        set(c, "/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": most, "hard": most}]));
    }),
    case("oom score out of range", "process.oomScoreAdj", &["oom_score_adj", "EINVAL"], |c, _| {
        set(c, "/process/oomScoreAdj", json!(5000));
    }),
    case("no such namespace file", "linux.namespaces[4].path", &["/nowhere", "ENOENT"], |c, _| {
        join(c, "ipc", "/nowhere");
    }),
    case("a namespace of another type", "linux.namespaces[4].path", &["of another type"], |c, _| {
        join(c, "ipc", "/proc/self/ns/uts");
    }),
    case("not a namespace", "linux.namespaces[4].path", &["not a namespace file"], |c, _| {
        join(c, "ipc", "/etc/passwd");
    }),
    case("overlapping id maps", "linux.uidMappings", &["uid_map", "EINVAL"], |c, _| {
        user_namespace(c);
        let twice = json!([
            {"containerID": 0, "hostID": 100_000, "size": 1000}, {"containerID": 0, "hostID": 200_000, "size": 1000}
        ]);
        set(c, "/linux/uidMappings", twice);
    }),
    case("unknown sysctl", "linux.sysctl.net.no.such", &["write sysctl", "ENOENT"], |c, _| {
        set(c, "/linux/sysctl", json!({"net.no.such": "1"}));
    }),
    case("sysctl with a bad value", "linux.sysctl.net.ipv4.ip_unprivileged_port_start", &["EINVAL"], |c, _| {
        set(c, "/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "many"}));
    }),
    case("sysctl of the host", "linux.sysctl.vm.swappiness", &["not in a separate kernel namespace"], |c, _| {
        set(c, "/linux/sysctl", json!({"vm.swappiness": "1"}));
    }),
    case("no such memory node", "linux.memoryPolicy", &["set_mempolicy", "EINVAL", "cpuset"], |c, _| {
        set(c, "/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1000"}));
    }),
    case("no such network device", "linux.netDevices.none", &["find network device", "ENODEV"], |c, _| {
        set(c, "/linux/netDevices", json!({"none": {}}));
    }),
    case("a device that cannot move", "linux.netDevices.lo", &["\"lo\"", "EINVAL", "hint"], |c, _| {
        set(c, "/linux/netDevices", json!({"lo": {"name": "lo0"}}));
    }),
    case("no resctrl", "linux.intelRdt", &["intelRdt is specified in config, but Intel RDT is not enabled"], |c, _| {
        set(c, "/linux/intelRdt", json!({"closID": "gold"}));
    }),
    case("hostname too long", "hostname", &["sethostname", "EINVAL"], |c, _| {
        set(c, "/hostname", json!("x".repeat(65)));
    }),
    case("domainname too long", "domainname", &["setdomainname", "EINVAL"], |c, _| {
        c["domainname"] = json!("x".repeat(65));
    }),
    case("no such rootfs", "root.path", &["ENOENT"], |c, _| set(c, "/root/path", json!("nowhere"))),
    case("rootfs is a file", "root.path", &["ENOTDIR"], |c, _| set(c, "/root/path", json!("hosts"))),
    case("missing source of a bind", "mounts[10].source", &["/nowhere", "ENOENT"], |c, _| {
        mount(c, "/out", "bind", "/nowhere", &["rbind"]);
    }),
    case(
        "idmap of a file system without support",
        "mounts[10].source",
        &["mount_setattr", "/sys/kernel", "sysfs", "EINVAL", "does not support idmapped mounts"],
        |c, _| {
            mount(c, "/out", "bind", "/sys/kernel", &["bind", "idmap=uids=0-1-2;gids=0-1-2"]);
        },
    ),
    case(
        "idmap of such a file system in the rootfs",
        "mounts[10].source",
        &["mount_setattr", "\"/proc\" in the rootfs", "proc", "EINVAL"],
        |c, b| {
            let proc = b.path("rootfs/proc");
            mount(c, "/out", "bind", proc.to_str().unwrap(), &["bind", "idmap=uids=0-1-2;gids=0-1-2"]);
        },
    ),
    case("overlapping ranges of an idmap", "mounts[10].options[1]", &["uid_map", "EINVAL", "overlap"], |c, _| {
        mount(c, "/out", "bind", "/etc", &["bind", "idmap=uids=0-1-2#1-9-2;gids=0-1-2"]);
    }),
    case("idmap without a map", "mounts[10].options[1]", &["must have both uid and gid mappings"], |c, _| {
        mount(c, "/out", "bind", "/etc", &["bind", "ridmap"]);
    }),
    case("idmap with two maps", "mounts[10].options[1]", &["which of them"], |c, _| {
        mount(c, "/out", "bind", "/etc", &["bind", "idmap=uids=0-1-2"]);
        set(c, "/mounts/10/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]));
    }),
    case("idmap with groups alone", "mounts[10].uidMappings", &["both uid and gid mappings"], |c, _| {
        mount(c, "/out", "bind", "/etc", &["bind"]);
        set(c, "/mounts/10/gidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]));
    }),
    case("idmap of a new file system", "mounts[10].options[0]", &["only supported for bind-mounts"], |c, _| {
        mount(c, "/out", "tmpfs", "tmpfs", &["idmap=uids=0-1-2;gids=0-1-2"]);
    }),
    case("a symlink copied over a file", "mounts[10]", &["/etc/passwd", "something else"], |c, b| {
        std::os::unix::fs::symlink("x", b.path("link")).unwrap();
        mount(c, "/etc/passwd", "bind", b.path("link").to_str().unwrap(), &["bind", "copy-symlink"]);
    }),
    case("copy-symlink with src-nofollow", "mounts[10].options[1]", &["mutually exclusive"], |c, _| {
        mount(c, "/out", "bind", "/etc", &["bind", "copy-symlink", "src-nofollow"]);
    }),
    case("dest-nofollow of a tmpfs", "mounts[10].options[0]", &["for bind mounts only"], |c, _| {
        mount(c, "/out", "tmpfs", "tmpfs", &["dest-nofollow"]);
    }),
    case(
        "a flag of the host taken away in a user namespace",
        "mounts[10].options",
        &["error mounting \"/sys\" to rootfs at \"/out\"", "operation not permitted"],
        |c, b| {
            user_namespace(c);
            for name in ["resolv.conf", "hostname", "hosts"] {
                std::fs::write(b.path("rootfs/etc").join(name), "").unwrap();
            }
            mount(c, "/out", "bind", "/sys", &["bind", "strictatime"]);
        },
    ),
    case("unknown file system", "mounts[10]", &["mount nosuchfs", "/out", "ENODEV"], |c, _| {
        mount(c, "/out", "nosuchfs", "none", &[]);
    }),
    case("bad mount option", "mounts[10].options[0]", &["mount tmpfs", "/out", "EINVAL"], |c, _| {
        mount(c, "/out", "tmpfs", "tmpfs", &["sise=1k"]);
    }),
    case("mount over a file of proc", "mounts[10].destination", &["inside /proc"], |c, _| {
        mount(c, "/proc/sys", "tmpfs", "tmpfs", &[]);
    }),
    case("a file where a directory must be", "mounts[10]", &["/etc/passwd/x", "ENOTDIR"], |c, _| {
        mount(c, "/etc/passwd/x", "tmpfs", "tmpfs", &[]);
    }),
    case("proc is a symlink", "mounts[0]", &["must be mounted on ordinary directory", "ELOOP"], |c, b| {
        std::fs::remove_dir(b.path("rootfs/proc")).unwrap();
        std::os::unix::fs::symlink("etc", b.path("rootfs/proc")).unwrap();
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    }),
    case("a device on another file", "linux.devices[0]", &["/dev/odd", "else"], |c, b| {
        std::fs::write(b.path("rootfs/dev/odd"), "").unwrap();
        c["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        add(c, "/linux/devices", json!({"path": "/dev/odd", "type": "c", "major": 1, "minor": 3, "fileMode": 438}));
    }),
    case("another device of the host", "linux.devices[0]", &["\"/dev/full\" is not the device 1:3"], |c, _| {
        user_namespace(c);
        // One that may make the mount points in the rootfs.
        for id in ["/linux/uidMappings/0/hostID", "/linux/gidMappings/0/hostID"] {
            set(c, id, json!(0));
        }
        add(c, "/linux/devices", json!({"path": "/dev/full", "type": "c", "major": 1, "minor": 3}));
    }),
    case("a device below a file", "linux.devices[0]", &["/etc/passwd/odd", "ENOTDIR"], |c, _| {
        add(c, "/linux/devices", json!({"path": "/etc/passwd/odd", "type": "c", "major": 1, "minor": 3}));
    }),
    Case {
        // `create` would want a console socket first.
        verbs: &["run"],
        ..case("a terminal without devpts", "process.terminal", &["open a terminal"], |c, _| {
            c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "devpts");
            set(c, "/process/terminal", json!(true));
        })
    },
    case("prestart hook is missing", "hooks.prestart[0]", &["error running prestart hook #0", "/nowhere"], |c, _| {
        hook(c, "prestart", "/nowhere", &["x"]);
    }),
    case(
        "createRuntime hook fails",
        "hooks.createRuntime[0]",
        &["error running createRuntime hook #0", "exit status 3", "it said: why"],
        |c, _| {
            hook(c, "createRuntime", "/bin/sh", &["sh", "-c", "echo why; exit 3"]);
        },
    ),
    case(
        "createContainer hook is killed",
        "hooks.createContainer[0]",
        &["createContainer hook #0", "killed by signal 9"],
        |c, _| {
            hook(c, "createContainer", "/bin/sh", &["sh", "-c", "kill -9 $$"]);
        },
    ),
    case("createContainer hook takes too long", "hooks.createContainer[0]", &["timeout of 1000 ms"], |c, _| {
        hook(c, "createContainer", "/bin/sleep", &["sleep", "1000"]);
    }),
    case("masked path through a symlink loop", "linux.maskedPaths[0]", &["mask", "/tmp/loop", "ELOOP"], |c, b| {
        std::os::unix::fs::symlink("loop", b.path("rootfs/tmp/loop")).unwrap();
        c["linux"]["maskedPaths"] = json!(["/tmp/loop"]);
    }),
    case("read-only path through a symlink loop", "linux.readonlyPaths[0]", &["read-only", "ELOOP"], |c, b| {
        std::os::unix::fs::symlink("loop", b.path("rootfs/tmp/loop")).unwrap();
        c["linux"]["readonlyPaths"] = json!(["/tmp/loop"]);
    }),
    case("scheduler with a bad priority", "process.scheduler", &["sched_setattr", "EINVAL"], |c, _| {
        set(c, "/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 1000}));
    }),
    case("io priority out of range", "process.ioPriority.priority", &["between 0 and 7"], |c, _| {
        set(c, "/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 77}));
    }),
    case("working directory is a file", "process.cwd", &["/etc/passwd", "ENOTDIR"], |c, _| {
        set(c, "/process/cwd", json!("/etc/passwd"));
    }),
    case("working directory through a magic link", "process.cwd", &["ELOOP"], |c, _| {
        set(c, "/process/cwd", json!("/proc/self/fd/3"));
    }),
    case("uid that is not mapped", "process.user.uid", &["not mapped"], |c, b| {
        user_namespace(c);
        // Nobody in the namespace can make them in a directory of the host's root.
        for name in ["resolv.conf", "hostname", "hosts"] {
            std::fs::write(b.path("rootfs/etc").join(name), "").unwrap();
        }
        set(c, "/process/user", json!({"uid": 5000, "gid": 0}));
    }),
    case("AppArmor profile that is not loaded", "process.apparmorProfile", &[], |c, _| {
        set(c, "/process/apparmorProfile", json!("no-such-profile"));
    }),
    case("SELinux label without SELinux", "process.selinuxLabel", &["selinux"], |c, _| {
        set(c, "/process/selinuxLabel", json!("system_u:system_r:container_t:s0"));
    }),
    case("effective without permitted", "process.capabilities", &["EPERM"], |c, _| {
        set(c, "/process/capabilities/permitted", json!([]));
    }),
    case("seccomp with a bad flag", "linux.seccomp.flags[0]", &["SECCOMP_FILTER_FLAG_NOPE"], |c, _| {
        set(c, "/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NOPE"]));
    }),
    case("seccomp with a bad default", "linux.seccomp.defaultAction", &["SCMP_ACT_NOTIFY"], |c, _| {
        set(c, "/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"));
    }),
    case("a cgroup limit that the kernel refuses", "linux.resources.cpu.cpus", &["cpuset.cpus"], |c, _| {
        set(c, "/linux/resources/cpu", json!({"cpus": "4000"}));
    }),
    case("the root cgroup", "linux.cgroupsPath", &["root cgroup"], |c, _| set(c, "/linux/cgroupsPath", json!("/"))),
    case("no such program", "", &["exec: \"nope\": executable file not found in $PATH"], |c, _| args(c, &["nope"])),
    case("no such path", "", &["/bin/nope", "no such file or directory"], |c, _| args(c, &["/bin/nope"])),
    case("a program without permission", "", &["/out/data", "permission denied"], |c, b| {
        file(b, "out/data", "text", 0o644);
        args(c, &["/out/data"]);
    }),
    case("a program that is a directory", "", &["permission denied"], |c, _| args(c, &["/out"])),
    behind(
        "startContainer hook fails",
        "hooks.startContainer[0]",
        &["startContainer hook #0", "exit status 1"],
        |c, _| {
            hook(c, "startContainer", "/bin/false", &["false"]);
        },
    ),
    behind("startContainer hook takes too long", "hooks.startContainer[0]", &["timeout of 1000 ms"], |c, _| {
        hook(c, "startContainer", "/bin/sleep", &["sleep", "1000"]);
    }),
    behind("startContainer hook is missing", "hooks.startContainer[0]", &["startContainer hook #0"], |c, _| {
        hook(c, "startContainer", "/nowhere", &["x"]);
    }),
    behind("poststart hook fails", "hooks.poststart[0]", &["poststart hook #0", "exit status 1"], |c, _| {
        hook(c, "poststart", "/bin/false", &["false"]);
    }),
    behind("not a program", "", &["exec /out/text: exec format error"], |c, b| {
        file(b, "out/text", "\u{1}\u{2}", 0o755);
        args(c, &["/out/text"]);
    }),
    behind(
        "a script without its interpreter",
        "",
        &["exec /out/script: no such file or directory", "/bin/perl5"],
        |c, b| {
            file(b, "out/script", "#!/bin/perl5\n", 0o755);
            args(c, &["/out/script"]);
        },
    ),
];

/// What is wrong with the answer.
fn judge(case: &Case, answer: &Answer) -> Result<(), String> {
    if answer.ok() {
        return Err("succeeded".into());
    }
    if let Some(why) = unclear(&answer.stderr) {
        return Err(why);
    }
    let said = answer.stderr.replace("\\\"", "\"");
    let named = [' ', '"'].iter().any(|before| said.contains(&format!("{before}{}: ", case.field)));
    if !case.field.is_empty() && !named {
        return Err(format!("does not name {}: {said}", case.field));
    }
    match case.words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(format!("does not say {word:?}: {said}")),
        None => Ok(()),
    }
}

fn fails(case: &Case, verb: &str) -> Result<(), String> {
    let b = Bundle::new();
    let mut config = b.docker();
    (case.edit)(&mut config, &b);
    b.write(&config);
    let mounts = mountinfo();
    let mut answer = b.run(verb, &[ID]);
    if case.behind && verb == "create" && answer.ok() {
        answer = b.run("start", &[ID]);
        b.delete()?;
    }
    judge(case, &answer)?;
    let left = b.left(&mounts);
    b.delete()?;
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
}

#[test]
fn every_failure_names_its_field_and_leaves_nothing() {
    private_mounts();
    let mut wrong = Vec::new();
    for case in CASES {
        for verb in case.verbs {
            if let Err(why) = fails(case, verb) {
                wrong.push(format!("{verb}, {}: {why}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
