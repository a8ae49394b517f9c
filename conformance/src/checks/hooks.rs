//! Hooks: when each kind runs, where, and with what.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;

/// The kinds that run at create, in their order.
const AT_CREATE: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "hooks",
        order_of_all_kinds "runtime.md#lifecycle",
        order_within_a_kind "config.md#posix-platform-hooks",
        poststart_runs_at_start "config.md#poststart",
        start_container_runs_at_start "config.md#startcontainer-hooks",
        poststop_runs_at_delete "config.md#poststop",
        poststop_runs_after_a_foreground_run "config.md#poststop",
        poststop_sees_the_container_gone "config.md#poststop",
        poststop_failing_does_not_stop_delete "runtime.md#lifecycle",
        poststart_failing_is_an_error_or_a_warning "runtime.md#lifecycle",
        args_are_passed "config.md#posix-platform-hooks",
        env_is_exactly_that_of_the_hook "config.md#posix-platform-hooks",
        timeout_ends_a_hook "config.md#posix-platform-hooks",
        path_must_be_absolute "config.md#posix-platform-hooks",
        prestart_runs_in_the_runtimes_namespaces "config.md#prestart",
        create_container_runs_in_the_containers_namespaces "config.md#createcontainer-hooks",
        create_container_path_is_on_the_host "config.md#createcontainer-hooks",
        start_container_path_is_in_the_container "config.md#startcontainer-hooks",
        create_runtime_sees_the_namespaces_made "config.md#createruntime-hooks",
        create_container_runs_before_pivot_root "config.md#createcontainer-hooks",
        poststart_ends_before_start_returns "config.md#poststart",
        poststart_sees_the_program_running "config.md#poststart",
        failing_poststart_is_an_error_and_stops_the_container "runtime.md#lifecycle",
        failing_start_container_is_an_error_of_start "runtime.md#lifecycle",
        failing_poststop_is_told "runtime.md#lifecycle",
    );
    checks.append(&mut own_checks!(
        "hooks",
        exec_waits_for_the_end_of_create "orlop: exec",
    ));
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        checks.push(Check::new(
            format!("hooks::state_on_stdin_of_{kind}"),
            "config.md#posix-platform-hooks",
            move |lab: &mut Lab| state_on_stdin(lab, kind),
        ));
    }
    for kind in AT_CREATE {
        checks.push(Check::new(
            format!("hooks::failing_{kind}_leaves_nothing"),
            "runtime.md#lifecycle",
            move |lab: &mut Lab| {
                let reason = lab.refused(|lab| {
                    hook(lab, kind, "exit 3").expect("the script is written");
                })?;
                ensure!(reason.contains("hook"), "the reason does not speak of a hook: {reason}");
                Ok(())
            },
        ));
    }
    for kind in AT_CREATE {
        checks.push(Check::new(
            format!("hooks::failing_{kind}_is_followed_by_poststop"),
            "runtime.md#lifecycle",
            move |lab: &mut Lab| {
                hook(lab, kind, "exit 3")?;
                hook(lab, "poststop", "touch $LOG/ran")?;
                lab.args(&["true"]).write()?;
                ensure!(lab.verb("create", &[]).go()?.code != 0, "create succeeds with a hook that fails");
                log(lab, "ran").map(|_| ())
            },
        ));
    }
    checks.push(Check::new(
        "hooks::failing_startContainer_of_run_is_followed_by_poststop",
        "runtime.md#lifecycle",
        |lab: &mut Lab| {
            lab.set("/hooks/startContainer/-", json!({ "path": "/bin/false" }));
            hook(lab, "poststop", "touch $LOG/ran")?;
            ensure!(lab.args(&["true"]).run()?.code != 0, "run succeeds with a hook that fails");
            log(lab, "ran").map(|_| ())
        },
    ));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        checks.push(Check::new(
            format!("hooks::path_of_{kind}_is_on_the_host"),
            "config.md#posix-platform-hooks",
            move |lab: &mut Lab| {
                let script = lab.script("only-here", "#!/bin/sh\ncat >/dev/null\necho > ${0%/*}/seen\n")?;
                lab.set(&format!("/hooks/{kind}/-"), json!({ "path": script.to_string_lossy() }));
                lab.args(&["true"]).run()?.ok("run")?;
                ensure!(lab.dir.join("seen").exists(), "the hook did not run");
                Ok(())
            },
        ));
        checks.push(Check::new(
            format!("hooks::path_of_{kind}_must_be_absolute"),
            "config.md#posix-platform-hooks",
            move |lab: &mut Lab| {
                lab.refused(|lab| {
                    lab.set(&format!("/hooks/{kind}/-"), json!({ "path": "bin/true" }));
                })?;
                Ok(())
            },
        ));
    }
    checks.push(Check::new(
        "hooks::failing_startContainer_stops_the_process",
        "runtime.md#lifecycle",
        |lab: &mut Lab| {
            lab.sh("echo ran");
            lab.set("/hooks/startContainer/-", json!({ "path": "/bin/false" })).create()?;
            let _ = lab.verb("start", &[]).go()?;
            lab.wait_for("stopped")?;
            ensure!(!lab.output().contains("ran\n"), "the process ran after a failed startContainer hook");
            Ok(())
        },
    ));
    checks
}

/// Adds a hook that runs a shell script; `$LOG` in it is a directory that host and container share under one path.
fn hook(lab: &mut Lab, kind: &str, script: &str) -> Outcome {
    let log = lab.directory("log")?;
    // A hook that does not read the state may end before the runtime has written it.
    let drained = format!("cat >/dev/null; {script}");
    let script = if script.contains("cat >") || script.contains("sed ") { script } else { &drained };
    let pointer = format!("/hooks/{kind}/-");
    let env = json!([format!("LOG={}", log.display()), "PATH=/bin:/usr/bin"]);
    lab.set(&pointer, json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env }));
    let shown = log.to_string_lossy().into_owned();
    if !lab.config["mounts"].as_array().is_some_and(|mounts| mounts.iter().any(|mount| mount["destination"] == shown)) {
        lab.mount(&shown, "bind", &log, &["bind", "rw"]);
    }
    Ok(())
}

/// Before the init has changed its root, whoever joins its mount namespace has the host's.
fn exec_waits_for_the_end_of_create(lab: &mut Lab) -> Outcome {
    let mark = lab.dir.join("on-the-host");
    let (root, runtime) = (lab.dir.join("root"), std::fs::canonicalize(&lab.runtime)?);
    let script = format!(
        "{} --root {} exec {} touch {} 2>$LOG/said; echo $? >$LOG/status",
        runtime.display(),
        root.display(),
        lab.id,
        mark.display()
    );
    hook(lab, "createRuntime", &script)?;
    lab.args(&["sleep", "100"]).create()?;
    ensure!(!mark.exists(), "exec has run on the host's root file system");
    same!(log(lab, "status")?.trim(), "255", "exit status of exec in a hook");
    let said = log(lab, "said")?;
    ensure!(said.contains("still being created"), "exec said: {said}");
    lab.start()?;
    same!(lab.call(&["exec", &lab.id, "echo", "later"]).go()?.ok("exec")?.stdout, "later\n", "exec after it");
    Ok(())
}

fn log(lab: &Lab, name: &str) -> Result<String, Failure> {
    fs::read_to_string(lab.dir.join("log").join(name)).map_err(|error| Failure(format!("the hook's {name}: {error}")))
}

fn order_of_all_kinds(lab: &mut Lab) -> Outcome {
    for kind in ["poststop", "poststart", "startContainer", "createContainer", "createRuntime", "prestart"] {
        hook(lab, kind, &format!("echo {kind} >> $LOG/order"))?;
    }
    let shown = lab.dir.join("log/order");
    lab.sh(&format!("echo process >> {}; sleep 100", shown.display())).create()?;
    same!(log(lab, "order")?, "prestart\ncreateRuntime\ncreateContainer\n", "hooks that ran at create");
    lab.start()?;
    crate::runtime::wait_until("the process did not run", || Ok(log(lab, "order")?.contains("process")))?;
    let order = log(lab, "order")?;
    let at = |word: &str| order.find(word);
    ensure!(at("createContainer\n") < at("startContainer\n"), "startContainer did not run: {order}");
    ensure!(at("startContainer\n") < at("process\n"), "the process came before startContainer: {order}");
    ensure!(at("startContainer\n") < at("poststart\n"), "poststart did not come last: {order}");
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    ensure!(log(lab, "order")?.ends_with("poststop\n"), "poststop did not come last: {}", log(lab, "order")?);
    Ok(())
}

fn order_within_a_kind(lab: &mut Lab) -> Outcome {
    for number in 1..=3 {
        hook(lab, "createRuntime", &format!("echo {number} >> $LOG/order"))?;
    }
    lab.args(&["true"]).run()?.ok("run")?;
    same!(log(lab, "order")?, "1\n2\n3\n", "order");
    Ok(())
}

fn runs_at_start(lab: &mut Lab, kind: &str) -> Outcome {
    hook(lab, kind, "touch $LOG/ran")?;
    lab.args(&["sleep", "100"]).create()?;
    ensure!(!lab.dir.join("log/ran").exists(), "{kind} ran at create");
    lab.start()?;
    crate::runtime::wait_until("the hook did not run", || Ok(lab.dir.join("log/ran").exists()))
}

fn poststart_runs_at_start(lab: &mut Lab) -> Outcome {
    runs_at_start(lab, "poststart")
}

fn start_container_runs_at_start(lab: &mut Lab) -> Outcome {
    runs_at_start(lab, "startContainer")
}

fn poststop_runs_at_delete(lab: &mut Lab) -> Outcome {
    hook(lab, "poststop", "touch $LOG/ran")?;
    lab.up("true")?;
    lab.wait_for("stopped")?;
    ensure!(!lab.dir.join("log/ran").exists(), "poststop ran before delete");
    lab.verb("delete", &[]).go()?.ok("delete")?;
    log(lab, "ran").map(|_| ())
}

fn poststop_runs_after_a_foreground_run(lab: &mut Lab) -> Outcome {
    hook(lab, "poststop", "touch $LOG/ran")?;
    lab.args(&["true"]).run()?.ok("run")?;
    log(lab, "ran").map(|_| ())
}

fn poststop_sees_the_container_gone(lab: &mut Lab) -> Outcome {
    hook(lab, "poststop", "cat > $LOG/state")?;
    lab.up_idle()?;
    let pid = lab.pid()?;
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    let state: Value = serde_json::from_str(&log(lab, "state")?)?;
    same!(state["status"], "stopped", "status given to poststop");
    ensure!(!fs::exists(format!("/proc/{pid}/ns/mnt"))?, "the init lives");
    Ok(())
}

fn poststop_failing_does_not_stop_delete(lab: &mut Lab) -> Outcome {
    hook(lab, "poststop", "exit 1")?;
    hook(lab, "poststop", "touch $LOG/second")?;
    lab.up("true")?;
    lab.wait_for("stopped")?;
    lab.verb("delete", &[]).go()?;
    log(lab, "second")?;
    lab.nothing_left("delete with a failing poststop hook")
}

/// The specification says in two places that the lifecycle goes on, and that an error is generated; both are allowed,
/// but the process must have run.
fn poststart_failing_is_an_error_or_a_warning(lab: &mut Lab) -> Outcome {
    hook(lab, "poststart", "touch $LOG/ran; exit 1")?;
    lab.args(&["sleep", "100"]).write()?;
    let create = lab.verb("create", &[]).go()?;
    let start = lab.verb("start", &[]).go()?;
    log(lab, "ran")?;
    let told = [create.stderr, start.stderr].concat();
    ensure!(told.contains("hook"), "nobody is told of the failed hook: {told:?}");
    Ok(())
}

fn args_are_passed(lab: &mut Lab) -> Outcome {
    let script = lab.script("hook", "#!/bin/sh\nprintf '<%s>' \"$@\" > ${0%/*}/seen\n")?;
    lab.set("/hooks/prestart/-", json!({ "path": script.to_string_lossy(), "args": ["zero", "", "a b", "$x"] }));
    lab.args(&["true"]).run()?.ok("run")?;
    same!(fs::read_to_string(lab.dir.join("seen"))?, "<><a b><$x>", "arguments");
    Ok(())
}

fn env_is_exactly_that_of_the_hook(lab: &mut Lab) -> Outcome {
    let seen = lab.dir.join("seen");
    let args = json!(["cp", "/proc/self/environ", seen.to_string_lossy()]);
    lab.set("/hooks/prestart/-", json!({ "path": "/bin/cp", "args": args, "env": ["A=1", "B="] }))
        .args(&["true"])
        .write()?;
    lab.verb("run", &[]).env("OUTER_SECRET", "leaked").go()?.ok("run")?;
    let seen = fs::read_to_string(seen)?;
    let mut variables: Vec<&str> = seen.split_terminator('\0').collect();
    variables.sort_unstable();
    same!(variables, ["A=1", "B="], "environment");
    Ok(())
}

fn timeout_ends_a_hook(lab: &mut Lab) -> Outcome {
    lab.set("/hooks/createRuntime/-", json!({ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }));
    lab.args(&["true"]).write()?;
    let begin = Instant::now();
    let out = lab.verb("create", &[]).go()?;
    ensure!(out.code != 0, "create succeeds after the time limit of its hook");
    ensure!(begin.elapsed() < Duration::from_secs(50), "create took {:?}", begin.elapsed());
    lab.nothing_left("a create whose hook ran out of time")
}

fn path_must_be_absolute(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/hooks/createRuntime/-", json!({ "path": "sh", "args": ["sh", "-c", "true"] }));
    })?;
    Ok(())
}

const NAMESPACES: &str = "readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/uts";

fn prestart_runs_in_the_runtimes_namespaces(lab: &mut Lab) -> Outcome {
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        hook(lab, kind, &format!("{NAMESPACES} > $LOG/{kind}"))?;
    }
    lab.args(&["true"]).run()?.ok("run")?;
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let mut want = String::new();
        for name in ["mnt", "pid", "uts"] {
            want += &format!("{}\n", fs::read_link(format!("/proc/self/ns/{name}"))?.display());
        }
        same!(log(lab, kind)?, want, "namespaces of {kind}");
    }
    Ok(())
}

fn create_container_runs_in_the_containers_namespaces(lab: &mut Lab) -> Outcome {
    hook(lab, "createContainer", "readlink /proc/self/ns/mnt > $LOG/seen")?;
    lab.args(&["sleep", "100"]).create()?;
    let inside = fs::read_link(format!("/proc/{}/ns/mnt", lab.pid()?))?;
    same!(log(lab, "seen")?.trim(), inside.to_string_lossy(), "mount namespace of the hook");
    Ok(())
}

fn create_container_path_is_on_the_host(lab: &mut Lab) -> Outcome {
    let script = lab.script("only-here", "#!/bin/sh\npwd -P > ${0%/*}/seen\n")?;
    lab.set("/hooks/createContainer/-", json!({ "path": script.to_string_lossy() }))
        .args(&["true"])
        .run()?
        .ok("run")?;
    ensure!(lab.dir.join("seen").exists(), "the hook did not run");
    Ok(())
}

fn start_container_path_is_in_the_container(lab: &mut Lab) -> Outcome {
    lab.script("bundle/rootfs/bin/only-there", "#!/bin/sh\nhostname; echo $$ hook\n")?;
    lab.set("/hostname", "inside").set("/root/readonly", false);
    lab.script("bundle/rootfs/bin/only-there", "#!/bin/sh\nhostname > /seen\n")?;
    lab.set("/hooks/startContainer/-", json!({ "path": "/bin/only-there", "env": ["PATH=/bin"] }));
    same!(lab.run_sh("cat /seen")?, "inside\n", "hostname that the hook saw");
    Ok(())
}

fn create_runtime_sees_the_namespaces_made(lab: &mut Lab) -> Outcome {
    hook(
        lab,
        "createRuntime",
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > $LOG/seen",
    )?;
    lab.args(&["sleep", "100"]).create()?;
    let inside = fs::read_link(format!("/proc/{}/ns/net", lab.pid()?))?;
    same!(log(lab, "seen")?.trim(), inside.to_string_lossy(), "network namespace that the hook found");
    ensure!(inside != fs::read_link("/proc/self/ns/net")?, "the container is in the host's network namespace");
    Ok(())
}

fn state_on_stdin(lab: &mut Lab, kind: &str) -> Outcome {
    hook(lab, kind, "cat > $LOG/state")?;
    lab.set("/annotations", json!({ "org.example.note": "kept" })).args(&["sleep", "100"]).create()?;
    let pid = lab.pid()?;
    lab.start()?;
    if kind == "startContainer" {
        crate::runtime::wait_until("the hook did not run", || {
            Ok(log(lab, "state").is_ok_and(|text| text.ends_with('}')))
        })?;
    }
    lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    let state: Value = serde_json::from_str(&log(lab, "state")?)?;
    same!(state["id"], lab.id, "id");
    same!(state["bundle"], lab.bundle().to_string_lossy().into_owned(), "bundle");
    same!(state["annotations"]["org.example.note"], "kept", "annotation");
    ensure!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "ociVersion: {state}");
    let (status, pids): (&[&str], Vec<i64>) = match kind {
        "poststop" => (&["stopped"], vec![0]),
        "poststart" => (&["running"], vec![pid]),
        // Seen from inside, the process is number 1.
        "startContainer" => (&["created"], vec![1, pid]),
        _ => (&["creating", "created"], vec![1, pid]),
    };
    ensure!(status.iter().any(|one| state["status"] == *one), "status: {}, want {status:?}", state["status"]);
    ensure!(pids.contains(&state["pid"].as_i64().unwrap_or(0)), "pid: {}, want one of {pids:?}", state["pid"]);
    Ok(())
}

fn create_container_runs_before_pivot_root(lab: &mut Lab) -> Outcome {
    // The root file system is mounted at its place in the bundle, with the mounts of the container on it.
    hook(lab, "createContainer", "cut -d' ' -f5 /proc/self/mountinfo > $LOG/mounts")?;
    lab.args(&["true"]).run()?.ok("run")?;
    let proc = lab.rootfs().join("proc");
    let mounts = log(lab, "mounts")?;
    ensure!(mounts.lines().any(|point| Path::new(point) == proc), "{} is not among {mounts}", proc.display());
    Ok(())
}

fn poststart_ends_before_start_returns(lab: &mut Lab) -> Outcome {
    hook(lab, "poststart", "sleep 0.5; touch $LOG/ran")?;
    lab.args(&["sleep", "100"]).create()?;
    lab.start()?;
    log(lab, "ran").map(|_| ())
}

/// "After the user-specified process is executed": the process is no longer the runtime's own.
fn poststart_sees_the_program_running(lab: &mut Lab) -> Outcome {
    let script = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); tr '\\0' ' ' < /proc/$pid/cmdline > $LOG/seen";
    hook(lab, "poststart", script)?;
    lab.args(&["sleep", "77"]).create()?;
    lab.start()?;
    same!(log(lab, "seen")?, "sleep 77 ", "command line of the process");
    Ok(())
}

fn failing_poststart_is_an_error_and_stops_the_container(lab: &mut Lab) -> Outcome {
    hook(lab, "poststart", "exit 1")?;
    lab.args(&["sleep", "100"]).create()?;
    let pid = lab.pid()?;
    let out = lab.verb("start", &[]).go()?;
    ensure!(out.code != 0, "start succeeds with a poststart hook that fails");
    crate::runtime::wait_until("the process lives", || Ok(!fs::exists(format!("/proc/{pid}/ns/mnt"))?))
}

fn failing_start_container_is_an_error_of_start(lab: &mut Lab) -> Outcome {
    lab.set("/hooks/startContainer/-", json!({ "path": "/bin/false" })).args(&["sleep", "100"]).create()?;
    let out = lab.verb("start", &[]).go()?;
    ensure!(out.code != 0, "start succeeds with a startContainer hook that fails");
    Ok(())
}

fn failing_poststop_is_told(lab: &mut Lab) -> Outcome {
    hook(lab, "poststop", "exit 7")?;
    lab.up("true")?;
    lab.wait_for("stopped")?;
    let out = lab.verb("delete", &[]).go()?;
    ensure!(out.stderr.contains("hook"), "nobody is told of the failed hook: {:?}", out.stderr);
    lab.nothing_left("delete with a failing poststop hook")
}
