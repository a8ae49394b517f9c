//! Create, start, state, kill and delete, and what they refuse.

use std::fs;

use serde_json::Value;

use crate::check::{Check, Outcome};
use crate::runtime::{Lab, wait_until};

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "lifecycle",
        create_does_not_run_the_process "runtime.md#create",
        start_runs_the_process "runtime.md#start",
        create_needs_an_unused_id "runtime.md#create",
        a_refused_create_of_a_used_id_leaves_the_first_alone "runtime.md#create",
        config_changes_after_create_have_no_effect "runtime.md#create",
        create_without_config_fails "runtime.md#create",
        create_without_rootfs_fails "runtime.md#create",
        create_takes_a_relative_bundle "runtime.md#create",
        create_uses_the_working_directory_as_bundle "runc: create --bundle",
        a_rootfs_by_absolute_path "config.md#root",
        state_of_created "runtime.md#state",
        state_of_running "runtime.md#state",
        state_of_stopped "runtime.md#state",
        state_of_paused "runc: pause",
        state_of_unknown_id_fails "runtime.md#query-state",
        start_of_unknown_id_fails "runtime.md#start",
        start_of_running_fails_and_has_no_effect "runtime.md#start",
        start_of_stopped_fails "runtime.md#start",
        start_fails_when_the_program_is_missing "runtime.md#start",
        start_without_process_fails "runtime.md#start",
        create_applies_all_but_process "runtime.md#create",
        every_operation_needs_an_id "runtime.md#operations",
        kill_of_stopped_has_no_effect "runtime.md#kill",
        kill_of_created_stops_it "runtime.md#kill",
        kill_of_running_delivers_the_signal "runtime.md#kill",
        kill_of_stopped_fails "runtime.md#kill",
        kill_of_unknown_id_fails "runtime.md#kill",
        delete_of_created_fails_or_kills "runtime.md#delete",
        delete_of_running_fails_and_has_no_effect "runtime.md#delete",
        delete_of_stopped_removes_everything "runtime.md#delete",
        delete_frees_the_id "runtime.md#delete",
        delete_keeps_what_create_did_not_make "runtime.md#delete",
        delete_of_unknown_id_fails "runtime.md#delete",
        forced_delete_of_running_removes_everything "runc: delete --force",
        forced_delete_of_created_removes_everything "runc: delete --force",
        forced_delete_of_paused_removes_everything "runc: delete --force",
        forced_delete_of_unknown_id_succeeds "runc: delete --force",
        forced_delete_ends_a_tree_without_pid_namespace "runc: delete --force",
        a_killed_init_is_stopped "runtime.md#lifecycle",
    );
    for (name, id) in
        [("slash", "a/b"), ("dots", ".."), ("dot", "."), ("empty", ""), ("space", "a b"), ("parent", "../x")]
    {
        let check =
            Check::new(format!("lifecycle::create_refuses_an_id_with_{name}"), "runc: create", move |lab: &mut Lab| {
                lab.args(&["true"]).write()?;
                let out = lab.call(&["create", id]).go()?.exits(1, "create")?;
                ensure!(!out.stderr.trim().is_empty(), "no reason given");
                same!(fs::read_dir(lab.dir.join("root"))?.count(), 0, "entries in the root directory");
                Ok(())
            });
        checks.push(check);
    }
    for id in ["a", "A.b_c+d-e", "0"] {
        checks.push(Check::new(
            format!("lifecycle::create_takes_the_id_{id}"),
            "runc: create",
            move |lab: &mut Lab| {
                // Not unique on the host: the cgroup must be.
                let path = format!("/{}", lab.id);
                lab.args(&["true"]).set("/linux/cgroupsPath", path).write()?;
                lab.call(&["run", id]).go()?.ok("run")?;
                Ok(())
            },
        ));
    }
    checks
}

fn create_does_not_run_the_process(lab: &mut Lab) -> Outcome {
    lab.set("/root/readonly", false).sh("echo ran; touch /ran; sleep 100").create()?;
    same!(lab.status()?, "created", "status");
    std::thread::sleep(std::time::Duration::from_millis(100));
    ensure!(!lab.rootfs().join("ran").exists() && lab.output().is_empty(), "create ran the process");
    Ok(())
}

fn start_runs_the_process(lab: &mut Lab) -> Outcome {
    lab.up("echo ran")?;
    lab.wait_for("stopped")?;
    same!(lab.output(), "ran\n", "output of the process");
    Ok(())
}

fn create_needs_an_unused_id(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    lab.verb("create", &[]).go()?.fails_with("exist", "create with a used id")?;
    Ok(())
}

fn a_refused_create_of_a_used_id_leaves_the_first_alone(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let before = lab.state()?;
    let out = lab.verb("create", &[]).go()?;
    ensure!(out.code != 0, "create took a used id");
    same!(lab.state()?, before, "state of the first");
    lab.exec(&[], &["true"])?.ok("exec in the first")?;
    Ok(())
}

fn config_changes_after_create_have_no_effect(lab: &mut Lab) -> Outcome {
    lab.sh("hostname; echo first").set("/hostname", "before").create()?;
    lab.sh("hostname; echo second").set("/hostname", "after").write()?;
    lab.start()?;
    lab.wait_for("stopped")?;
    same!(lab.output(), "before\nfirst\n", "output");
    Ok(())
}

fn create_without_config_fails(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).run()?.ok("run with a config.json")?;
    fs::remove_file(lab.bundle().join("config.json"))?;
    lab.verb("create", &[]).go()?.exits(1, "create without a config.json")?;
    lab.nothing_left("a refused create")
}

fn create_without_rootfs_fails(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/root/path", "elsewhere");
    })?;
    Ok(())
}

fn create_takes_a_relative_bundle(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).write()?;
    lab.verb("create", &["--bundle", "bundle"]).cwd(&lab.dir).go()?.ok("create")?;
    same!(lab.state()?["bundle"], lab.bundle().to_string_lossy().into_owned(), "bundle in the state");
    Ok(())
}

fn create_uses_the_working_directory_as_bundle(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).write()?;
    let elsewhere = lab.directory("elsewhere")?;
    lab.verb("create", &[]).cwd(elsewhere).go()?.exits(1, "create in a directory without config.json")?;
    lab.verb("create", &[]).cwd(lab.bundle()).go()?.ok("create in the bundle")?;
    same!(lab.state()?["bundle"], lab.bundle().to_string_lossy().into_owned(), "bundle in the state");
    Ok(())
}

fn a_rootfs_by_absolute_path(lab: &mut Lab) -> Outcome {
    let elsewhere = lab.dir.join("elsewhere");
    fs::rename(lab.rootfs(), &elsewhere)?;
    lab.set("/root/path", elsewhere.to_string_lossy().into_owned());
    same!(lab.run_sh("echo here")?, "here\n", "output");
    Ok(())
}

fn has_state(lab: &Lab, status: &str) -> Outcome {
    let state = lab.state()?;
    ensure!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "ociVersion: {state}");
    same!(state["id"], lab.id, "id");
    same!(state["status"], status, "status");
    same!(state["bundle"], lab.bundle().to_string_lossy().into_owned(), "bundle");
    same!(state["annotations"]["org.example.note"], "kept", "annotation");
    let pid = state["pid"].as_i64();
    if status == "stopped" {
        ensure!(pid.unwrap_or(0) == 0, "pid of a stopped container: {pid:?}");
    } else {
        let pid = pid.unwrap_or(0);
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        ensure!(cgroup.contains(&lab.id), "pid {pid} is not in the container's cgroup");
    }
    Ok(())
}

fn annotate(lab: &mut Lab) {
    lab.set("/annotations", serde_json::json!({ "org.example.note": "kept" }));
}

fn state_of_created(lab: &mut Lab) -> Outcome {
    annotate(lab);
    lab.args(&["sleep", "100"]).create()?;
    has_state(lab, "created")
}

fn state_of_running(lab: &mut Lab) -> Outcome {
    annotate(lab);
    lab.up_idle()?;
    has_state(lab, "running")
}

fn state_of_stopped(lab: &mut Lab) -> Outcome {
    annotate(lab);
    lab.up("exit 3")?;
    lab.wait_for("stopped")?;
    has_state(lab, "stopped")
}

fn state_of_paused(lab: &mut Lab) -> Outcome {
    annotate(lab);
    lab.up_idle()?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    has_state(lab, "paused")?;
    lab.verb("resume", &[]).go()?.ok("resume")?;
    has_state(lab, "running")
}

/// A command with an unknown id fails as `runc` does, and does not touch another container.
fn unknown(lab: &mut Lab, verb: &[&str]) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let mut args = verb.to_vec();
    args.insert(1, "no-such-container");
    lab.call(&args).go()?.fails_with("does not exist", verb[0])?;
    same!(lab.status()?, "created", "status of another container");
    Ok(())
}

fn state_of_unknown_id_fails(lab: &mut Lab) -> Outcome {
    unknown(lab, &["state"])
}

fn start_of_unknown_id_fails(lab: &mut Lab) -> Outcome {
    unknown(lab, &["start"])
}

fn kill_of_unknown_id_fails(lab: &mut Lab) -> Outcome {
    unknown(lab, &["kill", "KILL"])
}

fn delete_of_unknown_id_fails(lab: &mut Lab) -> Outcome {
    unknown(lab, &["delete"])
}

fn start_of_running_fails_and_has_no_effect(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let before = lab.state()?;
    lab.verb("start", &[]).go()?.fails_with("cannot start an already running container", "second start")?;
    same!(lab.state()?, before, "state");
    Ok(())
}

fn start_of_stopped_fails(lab: &mut Lab) -> Outcome {
    lab.up("true")?;
    lab.wait_for("stopped")?;
    lab.verb("start", &[]).go()?.fails_with("cannot start a container that has stopped", "start of stopped")?;
    same!(lab.status()?, "stopped", "status");
    Ok(())
}

fn start_fails_when_the_program_is_missing(lab: &mut Lab) -> Outcome {
    let reason = lab.refused(|lab| {
        lab.args(&["/no/such/program"]);
    })?;
    ensure!(reason.contains("no such file or directory"), "reason: {reason}");
    Ok(())
}

fn kill_of_created_stops_it(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    lab.call(&["kill", &lab.id, "KILL"]).go()?.ok("kill")?;
    lab.wait_for("stopped")
}

fn kill_of_running_delivers_the_signal(lab: &mut Lab) -> Outcome {
    lab.up("trap 'echo got USR1' USR1; echo ready; while true; do usleep 10000; done")?;
    wait_until("the process is not ready", || Ok(lab.output().contains("ready")))?;
    lab.call(&["kill", &lab.id, "USR1"]).go()?.ok("kill")?;
    wait_until("the signal did not come", || Ok(lab.output().contains("got USR1")))?;
    same!(lab.status()?, "running", "status");
    Ok(())
}

fn kill_of_stopped_fails(lab: &mut Lab) -> Outcome {
    lab.up("true")?;
    lab.wait_for("stopped")?;
    lab.verb("kill", &[]).go()?.fails_with("container not running", "kill of stopped")?;
    Ok(())
}

/// The specification demands an error; runc kills a container that was never started.
fn delete_of_created_fails_or_kills(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let pid = lab.pid()?;
    let out = lab.verb("delete", &[]).go()?;
    if out.code == 0 {
        lab.nothing_left("delete of created")?;
        ensure!(!fs::exists(format!("/proc/{pid}/ns/mnt"))?, "delete left the init process");
    } else {
        same!(lab.status()?, "created", "status");
    }
    Ok(())
}

fn delete_of_running_fails_and_has_no_effect(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let before = lab.state()?;
    lab.verb("delete", &[]).go()?.fails_with("that is not stopped: running", "delete of running")?;
    same!(lab.state()?, before, "state");
    lab.exec(&[], &["true"])?.ok("exec")?;
    Ok(())
}

fn delete_of_stopped_removes_everything(lab: &mut Lab) -> Outcome {
    lab.up("true")?;
    lab.wait_for("stopped")?;
    ensure!(lab.state_dir().exists(), "no state directory before delete");
    ensure!(!lab.cgroups().is_empty(), "no cgroup before delete");
    lab.verb("delete", &[]).go()?.ok("delete")?;
    lab.nothing_left("delete")?;
    ensure!(lab.verb("state", &[]).go()?.code != 0, "a deleted container has a state");
    Ok(())
}

fn delete_frees_the_id(lab: &mut Lab) -> Outcome {
    for round in ["first", "second"] {
        lab.up(&format!("echo {round}"))?;
        lab.wait_for("stopped")?;
        same!(lab.output(), format!("{round}\n"), "output");
        lab.verb("delete", &[]).go()?.ok("delete")?;
    }
    Ok(())
}

fn delete_keeps_what_create_did_not_make(lab: &mut Lab) -> Outcome {
    let data = lab.directory("data")?;
    fs::write(data.join("file"), "kept")?;
    fs::write(lab.rootfs().join("kept"), "kept")?;
    lab.mount("/data", "bind", &data, &["bind"]);
    lab.up("cat /data/file")?;
    lab.wait_for("stopped")?;
    same!(lab.output(), "kept", "the bind mount's file");
    lab.verb("delete", &[]).go()?.ok("delete")?;
    ensure!(data.join("file").exists() && lab.rootfs().join("kept").exists(), "delete removed files of others");
    ensure!(lab.bundle().join("config.json").exists(), "delete removed the bundle");
    Ok(())
}

fn forced_delete_of_running_removes_everything(lab: &mut Lab) -> Outcome {
    lab.up("trap '' TERM INT; sleep 100 & sleep 100")?;
    ensure!(!lab.cgroups().is_empty(), "no cgroup before delete");
    lab.verb("delete", &["--force"]).go()?.ok("delete --force")?;
    lab.nothing_left("delete --force")
}

fn forced_delete_of_created_removes_everything(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    lab.verb("delete", &["-f"]).go()?.ok("delete -f")?;
    lab.nothing_left("delete -f")
}

fn forced_delete_of_paused_removes_everything(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    lab.verb("delete", &["--force"]).go()?.ok("delete --force")?;
    lab.nothing_left("delete --force")
}

fn forced_delete_of_unknown_id_succeeds(lab: &mut Lab) -> Outcome {
    ensure!(lab.verb("delete", &[]).go()?.code != 0, "delete of an unknown id succeeds without --force");
    lab.verb("delete", &["--force"]).go()?.ok("delete --force")?;
    Ok(())
}

fn forced_delete_ends_a_tree_without_pid_namespace(lab: &mut Lab) -> Outcome {
    lab.without_namespace("pid").up("sleep 4321 & sleep 4322")?;
    wait_until("fewer than two processes", || {
        let pids = lab.verb("ps", &["-f", "json"]).go()?.ok("ps")?.stdout;
        let pids: Value = serde_json::from_str(&pids)?;
        Ok(pids.as_array().is_some_and(|pids| pids.len() >= 2))
    })?;
    lab.verb("delete", &["--force"]).go()?.ok("delete --force")?;
    lab.nothing_left("delete --force")
}

fn a_killed_init_is_stopped(lab: &mut Lab) -> Outcome {
    lab.up("sleep 100")?;
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(lab.pid()?)?).ok_or(crate::check::Failure("pid 0".into()))?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    lab.wait_for("stopped")
}

/// create may take such a configuration; start may not.
fn start_without_process_fails(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).run()?.ok("run with a process")?;
    lab.remove("/process").write()?;
    let create = lab.verb("create", &[]).go()?;
    if create.code != 0 {
        ensure!(create.stderr.contains("process"), "the reason does not speak of the process: {}", create.stderr);
        return lab.nothing_left("a refused create");
    }
    let start = lab.verb("start", &[]).go()?;
    ensure!(start.code != 0, "start succeeds without a process");
    ensure!(start.stderr.contains("process"), "the reason does not speak of the process: {}", start.stderr);
    Ok(())
}

fn create_applies_all_but_process(lab: &mut Lab) -> Outcome {
    lab.set("/hostname", "applied").set("/process/rlimits", serde_json::json!([]));
    lab.set("/linux/sysctl", serde_json::json!({ "net.ipv4.ip_forward": "1" }));
    lab.set("/linux/resources/pids", serde_json::json!({ "limit": 77 }));
    lab.mount("/there", "tmpfs", "tmpfs", &["size=64k"]).args(&["sleep", "100"]).create()?;
    let pid = lab.pid()?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    ensure!(mounts.lines().any(|line| line.split(' ').nth(4) == Some("/there")), "no mount at /there: {mounts}");
    let limits = lab.cgroups().into_iter().filter_map(|path| fs::read_to_string(path.join("pids.max")).ok());
    same!(limits.collect::<Vec<String>>(), ["77\n"], "pids.max");
    let seen = std::process::Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--uts", "--net", "sh", "-c"])
        .arg("hostname; cat /proc/sys/net/ipv4/ip_forward")
        .output()?;
    same!(String::from_utf8_lossy(&seen.stdout), "applied\n1\n", "host name and sysctl of a created container");
    ensure!(lab.output().is_empty(), "the process ran");
    Ok(())
}

fn every_operation_needs_an_id(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    for verb in ["state", "create", "start", "kill", "delete"] {
        let out = lab.call(&[verb]).go()?;
        ensure!(out.code != 0, "{verb} succeeds without an id");
        ensure!(!out.stderr.trim().is_empty(), "{verb} fails without a word");
    }
    same!(lab.status()?, "created", "status of the only container");
    Ok(())
}

fn kill_of_stopped_has_no_effect(lab: &mut Lab) -> Outcome {
    lab.up("exit 3")?;
    lab.wait_for("stopped")?;
    let before = lab.state()?;
    ensure!(lab.verb("kill", &[]).go()?.code != 0, "kill of a stopped container succeeds");
    same!(lab.state()?, before, "state");
    Ok(())
}
