//! What a container and its hooks are is not to depend on who calls: its ignored signals, its environment, its open files. Needs root.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod bundle;

use bundle::{Bundle, ID, private_mounts};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A verb under a shell that does something before.
#[expect(clippy::disallowed_methods, reason = "the program under test")]
fn under(b: &Bundle, before: &str, verb: &str, args: &[&str]) -> Output {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{before}; exec \"$@\""), "sh"]).args(b.command(verb, args)).stdin(Stdio::null());
    command.output().unwrap()
}

/// A verb under a caller that ignores these signals, as env(1) does it: shells cannot ignore SIGCHLD.
fn ignoring(b: &Bundle, signals: &str, verb: &str, args: &[&str]) -> Output {
    under(b, &format!("set -- env --ignore-signal={signals} \"$@\""), verb, args)
}

/// A container in the foreground that does this.
fn bundle(args: &[&str]) -> Bundle {
    private_mounts();
    let b = Bundle::new();
    let mut config = b.docker();
    config["linux"].as_object_mut().unwrap().remove("seccomp");
    config["process"]["args"] = json!(args);
    b.write(&config);
    b
}

#[test]
fn signals_that_the_caller_ignores_are_not_ignored_in_the_container() {
    let b = bundle(&["busybox", "grep", "SigIgn", "/proc/self/status"]);
    let out = ignoring(&b, "TERM,USR1,CHLD", "run", &[ID]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "SigIgn:\t0000000000000000\n", "{out:?}");
    // nohup(1) is for the container too, as with runc.
    let out = ignoring(&b, "HUP,TERM", "run", &[ID]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "SigIgn:\t0000000000000001\n", "{out:?}");
}

#[test]
fn hooks_are_waited_for_when_the_caller_ignores_sigchld() {
    let b = bundle(&["true"]);
    let out = b.path("hooks");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo x >>{}", out.display())]}]);
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(b.path("config.json")).unwrap()).unwrap();
    config["hooks"] = json!({"createRuntime": hook, "createContainer": hook, "poststart": hook, "poststop": hook});
    b.write(&config);
    let ran = ignoring(&b, "CHLD", "run", &["--detach", ID]);
    assert!(ran.status.success(), "{ran:?}");
    let deleted = ignoring(&b, "CHLD", "delete", &["--force", ID]);
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(fs::read_to_string(out).unwrap(), "x\nx\nx\nx\n");
}

/// sd_listen_fds(3): the variables are for the process that LISTEN_PID names, and go on in its children's environment.
#[test]
fn fds_of_another_process_are_not_passed_on() {
    let b = bundle(&["sh", "-c", "ls /proc/self/fd; echo $LISTEN_FDS"]);
    let secret = b.path("secret");
    fs::write(&secret, "").unwrap();
    let passed = format!("exec 3<{}; export LISTEN_FDS=1", secret.display());
    for (pid, expected) in [("1", "0\n1\n2\n3\n\n"), ("$$", "0\n1\n2\n3\n4\n1\n")] {
        let out = under(&b, &format!("{passed} LISTEN_PID={pid}"), "run", &[ID]);
        // The last fd is that of ls.
        assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "LISTEN_PID={pid}: {out:?}");
    }
}

#[test]
fn more_preserved_fds_than_there_can_be_are_refused() {
    let b = bundle(&["true"]);
    for count in ["4294967295", "4294967293", "2147483648", "2147483647", "2147483645"] {
        let answer = b.run("run", &["--preserve-fds", count, ID]);
        assert_eq!((answer.code, answer.stderr.contains("--preserve-fds")), (Some(1), true), "{count}: {answer:?}");
    }
}

/// `start` waits until the container says that it is ready: that may be never, and whoever waits for `start` may want it gone.
#[test]
#[expect(clippy::disallowed_methods, reason = "the program under test")]
fn a_container_that_is_never_ready_can_be_deleted() {
    let b = bundle(&["sleep", "30"]);
    let manager = b.path("manager");
    let _listener = UnixDatagram::bind(&manager).unwrap();
    let notify = format!("export NOTIFY_SOCKET={}", manager.display());
    // Its streams are pipes, which the container would keep open.
    assert!(under(&b, &format!("{notify}; exec >{} 2>&1", b.path("out").display()), "create", &[ID]).status.success());
    let words = b.command("start", &[ID]);
    let mut start = Command::new(&words[0]).args(&words[1..]).env("NOTIFY_SOCKET", &manager).spawn().unwrap();
    assert!(bundle::soon(|| b.run("state", &[ID]).stdout.contains("running")));
    let begin = Instant::now();
    b.delete().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert!(start.wait().unwrap().success());
}

/// What the container's process is by its birth is not set again: that is only so where it is what config.json says.
#[test]
fn the_callers_ids_are_not_the_containers() {
    let b = bundle(&["busybox", "grep", "-E", "^(Uid|Gid|Groups|CapBnd):", "/proc/self/status"]);
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(b.path("config.json")).unwrap()).unwrap();
    config["process"]["user"] = json!({"uid": 0, "gid": 0});
    b.write(&config);
    let plain = under(&b, "set -- setpriv --clear-groups \"$@\"", "run", &[ID]);
    let expected = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(expected.starts_with("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \nCapBnd:\t"), "{plain:?}");
    for other in [
        "--groups 4,27",
        "--regid 7 --clear-groups",
        "--rgid 7 --keep-groups",
        "--bounding-set -sys_time --clear-groups",
        // Then /proc/self/status is longer than a page.
        "--groups $(seq -s, 1000000 1001000)",
    ] {
        let out = under(&b, &format!("set -- setpriv {other} \"$@\""), "run", &[ID]);
        assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{other}: {out:?}");
    }
}

/// `run` in the foreground may last for days: it holds no file of the host that it has only read or written.
#[test]
#[expect(clippy::disallowed_methods, reason = "the program under test")]
fn who_waits_for_the_container_holds_nothing_else() {
    let b = bundle(&["sleep", "1000"]);
    let words = b.command("run", &[ID]);
    let mut run = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).spawn().unwrap();
    assert!(bundle::soon(|| b.run("state", &[ID]).stdout.contains("running")));
    let fds = || {
        let all = fs::read_dir(format!("/proc/{}/fd", run.id())).unwrap().flatten();
        let of_files = all.filter(|fd| fd.file_name().to_str().unwrap().parse::<i32>().unwrap() > 2);
        let mut targets: Vec<_> = of_files.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        // What other tests' processes have left open here came with the caller.
        targets.retain(|target| {
            target.starts_with("/sys") || target.starts_with("/proc") || target.starts_with(b.path(""))
        });
        targets
    };
    // Its lock is the one.
    let held = bundle::soon(|| fds().iter().all(|target| target.is_dir() && target.ends_with(ID)));
    let seen = fds();
    b.delete().unwrap();
    run.wait().unwrap();
    assert!(held, "{seen:?}");
}

/// The commands leave files open only as far as there is room, whether it is the caller's limit or the container's.
#[test]
fn few_files_are_enough() {
    let b = bundle(&["sleep", "1000"]);
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(b.path("config.json")).unwrap()).unwrap();
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 20}]);
    b.write(&config);
    for limit in ["ulimit -n 48", "ulimit -n 300", "true"] {
        for (verb, args) in [("run", &["--detach", ID][..]), ("exec", &[ID, "true"]), ("delete", &["--force", ID])] {
            // Its streams are pipes, which the container would keep open.
            let before = format!("{limit}; exec >{} 2>&1", b.path("said").display());
            let out = under(&b, &before, verb, args);
            assert!(out.status.success(), "{limit}: {verb}: {}", fs::read_to_string(b.path("said")).unwrap());
        }
    }
}

/// A hook may unmount what config.json has mounted, in the container and, when that has failed, on the host.
#[test]
fn hooks_can_unmount_what_was_looked_at() {
    let b = bundle(&["true"]);
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(b.path("config.json")).unwrap()).unwrap();
    let place = b.path("rootfs").join("etc/hosts");
    let hook = json!([{"path": "/bin/umount", "args": ["umount", place.to_str().unwrap()]}]);
    config["hooks"] = json!({"createContainer": hook});
    b.write(&config);
    let ran = under(&b, "ulimit -Sn 1024", "run", &[ID]);
    assert!(ran.status.success(), "{ran:?}");
}
