//! The command line that runc's callers rely on: flags, exit statuses, formats, files and sockets.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle;
use crate::check::{Check, Failure, Outcome};
use crate::runtime::{Lab, wait_until};

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "cli",
        version_lines "runc: --version",
        help_of_the_program "runc: --help",
        unknown_command_fails "runc: usage",
        unknown_flag_fails "runc: usage",
        flags_may_have_one_dash "runc: usage",
        flags_take_values_with_equals_sign "runc: usage",
        missing_argument_fails "runc: usage",
        too_many_arguments_fail "runc: usage",
        flag_without_its_value_fails "runc: usage",
        root_is_made_if_missing "runc: --root",
        root_separates_containers "runc: --root",
        log_format_unknown_is_refused "runc: --log-format",
        log_text_line "runc: --log",
        log_json_line "runc: --log",
        log_has_one_line_per_failure "runc: --log",
        log_is_appended_to "runc: --log",
        log_of_success_is_empty "runc: --log",
        log_file_leaves_the_message_on_stderr "runc: --log",
        log_of_init_failure_is_one_json_object "runc: --log",
        debug_is_taken "runc: --debug",
        spec_writes_the_base_config "runc: spec",
        spec_keeps_an_existing_file "runc: spec",
        spec_bundle "runc: spec --bundle",
        spec_rootless "runc: spec --rootless",
        spec_runs "runc: spec",
        pid_file_of_create "runc: create --pid-file",
        pid_file_of_run "runc: run --pid-file",
        pid_file_of_exec "runc: exec --pid-file",
        run_detach "runc: run --detach",
        run_keep "runc: run --keep",
        run_deletes_at_the_end "runc: run",
        run_forwards_signals "runc: run",
        run_flags_are_taken "runc: run",
        run_no_pivot "runc: run --no-pivot",
        create_flags_are_taken "runc: create",
        preserve_fds "runc: run --preserve-fds",
        preserve_fds_not_asked_for_are_closed "runc: run --preserve-fds",
        preserve_fds_of_exec "runc: exec --preserve-fds",
        preserve_fds_not_open_are_refused "runc: run --preserve-fds",
        preserve_fds_of_the_runtime_itself_are_refused "runc: run --preserve-fds",
        listen_fds "runc: LISTEN_FDS",
        kill_default_is_term "runc: kill",
        kill_takes_names_and_numbers "runc: kill",
        kill_refuses_an_unknown_signal "runc: kill",
        kill_all_reaches_every_process "runc: kill --all",
        kill_all_of_stopped_succeeds "runc: kill --all",
        pause_stops_and_resume_continues "runc: pause",
        pause_of_paused_fails "runc: pause",
        pause_of_created_is_allowed_or_refused "runc: pause",
        resume_of_running_fails "runc: resume",
        pause_of_stopped_fails "runc: pause",
        version_under_the_name_runc "runc: --version",
        config_names_another_file "crun: create --config",
        config_of_spec "crun: spec --config",
        kill_regex "crun: kill --regex",
        delete_regex "crun: delete --regex",
        kill_takes_real_time_signals "crun: kill",
        log_to_a_file_by_its_prefix "crun: --log",
        log_to_a_daemon_that_is_not_there_is_refused "crun: --log",
        usage_error_names_the_flag_as_typed "runc: usage",
        start_after_kill_says_why "runc: start",
    );
    // Promises of orlop's own.
    let own = [
        "log_to_a_daemon_that_is_not_there_is_refused",
        "preserve_fds_of_the_runtime_itself_are_refused",
        "usage_error_names_the_flag_as_typed",
        "version_under_the_name_runc",
    ];
    for check in &mut checks {
        check.own = own.iter().any(|name| check.name.ends_with(name));
    }
    for verb in [
        "create",
        "start",
        "run",
        "exec",
        "kill",
        "delete",
        "state",
        "list",
        "ps",
        "pause",
        "resume",
        "spec",
        "update",
        "events",
        "features",
        "checkpoint",
        "restore",
    ] {
        checks.push(Check::new(format!("cli::help_of_{verb}"), "runc: --help", move |lab: &mut Lab| {
            for flag in ["--help", "-h"] {
                let out = lab.call(&[verb, flag]).go()?.ok("help")?;
                ensure!(out.stdout.to_lowercase().contains("usage") && out.stdout.contains(verb), "{}", out.stdout);
            }
            Ok(())
        }));
    }
    checks
}

fn version_lines(lab: &mut Lab) -> Outcome {
    for flag in ["--version", "-v"] {
        let out = lab.call(&[flag]).go()?.ok("version")?;
        let first = out.stdout.lines().next().unwrap_or_default();
        ensure!(first.starts_with(&format!("{} version ", lab.host.name)), "first line: {first}");
        for line in ["commit: ", "spec: "] {
            ensure!(out.stdout.lines().any(|one| one.starts_with(line)), "no line {line:?} in {}", out.stdout);
        }
        same!(out.stderr, "", "stderr");
    }
    Ok(())
}

fn help_of_the_program(lab: &mut Lab) -> Outcome {
    let out = lab.call(&["--help"]).go()?.ok("help")?;
    for word in ["create", "start", "kill", "delete", "--root", "--log-format", "--systemd-cgroup"] {
        ensure!(out.stdout.contains(word), "help lacks {word}: {}", out.stdout);
    }
    Ok(())
}

fn unknown_command_fails(lab: &mut Lab) -> Outcome {
    ensure!(lab.call(&["no-such-command"]).go()?.code != 0, "an unknown command succeeds");
    Ok(())
}

fn unknown_flag_fails(lab: &mut Lab) -> Outcome {
    for verb in ["create", "start", "run", "exec", "kill", "delete", "state", "list", "ps"] {
        lab.call(&[verb, "--no-such-flag", "x"]).go()?.exits(1, verb)?;
    }
    Ok(())
}

fn flags_may_have_one_dash(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let bundle = lab.bundle().to_string_lossy().into_owned();
    lab.verb("run", &["-bundle", &bundle, "-no-subreaper"]).cwd("/").go()?.ok("run").map(|_| ())
}

fn flags_take_values_with_equals_sign(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let bundle = format!("--bundle={}", lab.bundle().display());
    lab.verb("run", &[&bundle, "--keep=false"]).cwd("/").go()?.ok("run")?;
    lab.nothing_left("run --keep=false")
}

fn missing_argument_fails(lab: &mut Lab) -> Outcome {
    for verb in ["create", "start", "run", "exec", "kill", "delete", "state", "ps", "pause", "resume"] {
        lab.call(&[verb]).go()?.exits(1, verb)?;
    }
    Ok(())
}

fn too_many_arguments_fail(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    for verb in ["create", "start", "state", "pause", "resume"] {
        lab.call(&[verb, &lab.id, "more"]).go()?.exits(1, verb)?;
    }
    lab.nothing_left("a command with too many arguments")
}

fn flag_without_its_value_fails(lab: &mut Lab) -> Outcome {
    let out = lab.call(&["restore", "--lsm-mount-context"]).go()?.exits(1, "restore")?;
    let told = out.stdout + &out.stderr;
    ensure!(told.contains("flag needs an argument") || told.contains("requires an argument"), "{told}");
    Ok(())
}

fn root_is_made_if_missing(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    fs::remove_dir(lab.dir.join("root"))?;
    lab.verb("run", &[]).go()?.ok("run")?;
    ensure!(lab.dir.join("root").exists(), "the root directory was not made");
    Ok(())
}

fn root_separates_containers(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let other = lab.directory("other")?.to_string_lossy().into_owned();
    lab.verb("state", &[])
        .global(&["--root", &other])
        .go()?
        .fails_with("does not exist", "state in another root")
        .map(|_| ())
}

fn log_format_unknown_is_refused(lab: &mut Lab) -> Outcome {
    lab.call(&["list"]).global(&["--log-format", "xml"]).go()?.exits(1, "list").map(|_| ())
}

fn logged(lab: &Lab, format: &str, verb: &[&str]) -> Result<(String, String), Failure> {
    let log = lab.dir.join("log");
    let log_text = log.to_string_lossy();
    let out = lab.call(verb).global(&["--log", &log_text, "--log-format", format]).go()?;
    Ok((fs::read_to_string(&log)?, out.stderr))
}

fn log_text_line(lab: &mut Lab) -> Outcome {
    let (log, _) = logged(lab, "text", &["state", "none"])?;
    ensure!(log.starts_with("time=\"") && log.ends_with("\"\n"), "line: {log}");
    ensure!(log.contains(" level=error msg=\"container does not exist"), "line: {log}");
    Ok(())
}

fn log_json_line(lab: &mut Lab) -> Outcome {
    let (log, _) = logged(lab, "json", &["state", "none"])?;
    let line: Value = serde_json::from_str(&log)?;
    same!(line["level"], "error", "level");
    ensure!(line["msg"].as_str().is_some_and(|text| text.contains("does not exist")), "msg: {line}");
    ensure!(line["time"].as_str().is_some_and(|text| text.contains('T') && text.len() >= 20), "time: {line}");
    Ok(())
}

fn log_has_one_line_per_failure(lab: &mut Lab) -> Outcome {
    lab.args(&["/no/such/program"]).write()?;
    let id = lab.id.clone();
    for verb in [&["state", "none"][..], &["start", "none"], &["kill", "none"], &["create", &id], &["run", &id]] {
        let (log, _) = logged(lab, "json", verb)?;
        same!(log.lines().count(), 1, "lines of {verb:?}: {log}");
        fs::remove_file(lab.dir.join("log"))?;
    }
    Ok(())
}

fn log_is_appended_to(lab: &mut Lab) -> Outcome {
    logged(lab, "text", &["state", "none"])?;
    let (log, _) = logged(lab, "text", &["state", "none"])?;
    same!(log.lines().count(), 2, "lines after two failures");
    Ok(())
}

fn log_of_success_is_empty(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let id = lab.id.clone();
    let (log, stderr) = logged(lab, "json", &["run", &id])?;
    same!(log + &stderr, "", "log and stderr");
    Ok(())
}

fn log_file_leaves_the_message_on_stderr(lab: &mut Lab) -> Outcome {
    let (_, stderr) = logged(lab, "json", &["state", "none"])?;
    ensure!(stderr.contains("does not exist") && !stderr.contains("level"), "stderr: {stderr}");
    same!(stderr.trim_end().lines().count(), 1, "lines on stderr");
    Ok(())
}

/// podman reads the whole file as one object.
fn log_of_init_failure_is_one_json_object(lab: &mut Lab) -> Outcome {
    lab.args(&["no-such-program"]).write()?;
    let id = lab.id.clone();
    let (log, _) = logged(lab, "json", &["create", &id])?;
    let line: Value = serde_json::from_str(&log)?;
    let text = line["msg"].as_str().unwrap_or_default();
    ensure!(text.contains("executable file not found in $PATH"), "msg: {text}");
    Ok(())
}

fn debug_is_taken(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let log = lab.dir.join("log").to_string_lossy().into_owned();
    lab.verb("run", &[]).global(&["--debug", "--log", &log]).go()?.ok("run")?;
    ensure!(fs::read_to_string(log)?.contains("level=debug"), "no debug line in the log");
    Ok(())
}

fn spec_config(lab: &Lab, options: &[&str]) -> Result<Value, Failure> {
    let empty = lab.directory("empty")?;
    let mut args = vec!["spec"];
    args.extend(options);
    lab.call(&args).cwd(&empty).go()?.ok("spec")?;
    Ok(serde_json::from_slice(&fs::read(empty.join("config.json"))?)?)
}

fn spec_writes_the_base_config(lab: &mut Lab) -> Outcome {
    let got = spec_config(lab, &[])?;
    let mut want = bundle::base();
    want["hostname"] = got["hostname"].clone();
    want["ociVersion"] = got["ociVersion"].clone();
    ensure!(got["ociVersion"].as_str().is_some_and(|text| text.starts_with("1.")), "ociVersion: {}", got["ociVersion"]);
    // Later versions add a cgroup namespace where the host has cgroup v2 alone.
    if fs::exists("/sys/fs/cgroup/cgroup.controllers")? {
        bundle::set(&mut want, "/linux/namespaces/-", json!({ "type": "cgroup" }));
    }
    for pointer in ["/process", "/root", "/mounts", "/linux/namespaces", "/linux/resources", "/linux/readonlyPaths"] {
        same!(got.pointer(pointer), want.pointer(pointer), "{pointer}");
    }
    let masked = got.pointer("/linux/maskedPaths").and_then(Value::as_array).cloned().unwrap_or_default();
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"] {
        ensure!(masked.contains(&json!(path)), "{path} is not masked");
    }
    Ok(())
}

fn spec_keeps_an_existing_file(lab: &mut Lab) -> Outcome {
    spec_config(lab, &[])?;
    lab.call(&["spec"]).cwd(lab.dir.join("empty")).go()?.fails_with("exist", "second spec").map(|_| ())
}

fn spec_bundle(lab: &mut Lab) -> Outcome {
    let there = lab.directory("there")?.to_string_lossy().into_owned();
    lab.call(&["spec", "--bundle", &there]).cwd("/").go()?.ok("spec")?;
    ensure!(lab.dir.join("there/config.json").exists(), "no config.json in the bundle");
    Ok(())
}

fn spec_rootless(lab: &mut Lab) -> Outcome {
    let config = spec_config(lab, &["--rootless"])?;
    let namespaces = config["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    let has = |kind: &str| namespaces.iter().any(|one| one["type"] == kind);
    ensure!(has("user") && !has("network"), "namespaces: {namespaces:?}");
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    same!(config["linux"]["uidMappings"], map, "uidMappings");
    same!(config["linux"]["gidMappings"], map, "gidMappings");
    ensure!(config["linux"].get("resources").is_none(), "resources: {}", config["linux"]["resources"]);
    Ok(())
}

fn spec_runs(lab: &mut Lab) -> Outcome {
    lab.config = spec_config(lab, &[])?;
    lab.set("/process/terminal", false);
    same!(lab.run_sh("echo ran")?, "ran\n", "output");
    Ok(())
}

pub(super) fn pid_file(lab: &Lab) -> String {
    lab.dir.join("pid").to_string_lossy().into_owned()
}

fn has_pid_file(lab: &Lab, want: i64) -> Outcome {
    same!(fs::read_to_string(pid_file(lab))?, want.to_string(), "the pid file");
    Ok(())
}

fn pid_file_of_create(lab: &mut Lab) -> Outcome {
    fs::write(pid_file(lab), "something longer that was there before")?;
    let file = pid_file(lab);
    lab.args(&["sleep", "100"]).create_with(&["--pid-file", &file])?;
    has_pid_file(lab, lab.pid()?)
}

fn pid_file_of_run(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).write()?;
    lab.verb("run", &["-d", "--pid-file", &pid_file(lab)]).go()?.ok("run")?;
    has_pid_file(lab, lab.pid()?)
}

fn pid_file_of_exec(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.exec(&["-d", "--pid-file", &pid_file(lab)], &["sleep", "4568"])?.ok("exec")?;
    let pid = fs::read_to_string(pid_file(lab))?;
    wait_until("the pid file does not name the process", || {
        Ok(fs::read_to_string(format!("/proc/{pid}/cmdline"))?.contains("4568"))
    })
}

fn run_detach(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).write()?;
    lab.verb("run", &["--detach"]).go()?.ok("run")?;
    same!(lab.status()?, "running", "status");
    Ok(())
}

fn run_keep(lab: &mut Lab) -> Outcome {
    lab.sh("exit 7").write()?;
    lab.verb("run", &["--keep"]).go()?.exits(7, "run --keep")?;
    same!(lab.status()?, "stopped", "status");
    lab.verb("delete", &[]).go()?.ok("delete")?;
    lab.nothing_left("delete")
}

fn run_deletes_at_the_end(lab: &mut Lab) -> Outcome {
    lab.sh("exit 7").run()?.exits(7, "run")?;
    lab.nothing_left("run")?;
    lab.verb("state", &[]).go()?.fails_with("does not exist", "state after run").map(|_| ())
}

fn run_forwards_signals(lab: &mut Lab) -> Outcome {
    let ready = lab.rootfs().join("ready");
    lab.set("/root/readonly", false);
    lab.sh("trap 'exit 33' TERM; touch /ready; while true; do usleep 10000; done").write()?;
    let script =
        format!("\"$@\" & pid=$!; while ! [ -e {} ]; do sleep 0.01; done; kill -TERM $pid; wait $pid", ready.display());
    lab.verb("run", &[]).under(&["sh", "-c", &script, "sh"]).go()?.exits(33, "run that gets TERM").map(|_| ())
}

fn run_flags_are_taken(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let bundle = lab.bundle().to_string_lossy().into_owned();
    let options = ["-b", &bundle, "--no-subreaper", "--no-new-keyring", "--preserve-fds", "0"];
    lab.verb("run", &options).cwd("/").go()?.ok("run").map(|_| ())
}

fn run_no_pivot(lab: &mut Lab) -> Outcome {
    lab.sh("ls -d /bin/busybox; echo $(ls / | grep -c lab)").write()?;
    same!(lab.verb("run", &["--no-pivot"]).go()?.ok("run")?.stdout, "/bin/busybox\n0\n", "output");
    Ok(())
}

fn create_flags_are_taken(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).write()?;
    let bundle = lab.bundle().to_string_lossy().into_owned();
    let options = ["--bundle", &bundle, "--no-new-keyring", "--no-pivot", "--pid-file", &pid_file(lab)];
    lab.verb("create", &options).cwd("/").go()?.ok("create")?;
    lab.start().map(|_| ())
}

/// Opens two files as the descriptors 3 and 4 of the runtime.
fn with_files<'a>(lab: &Lab, call: crate::runtime::Call<'a>) -> Result<crate::runtime::Call<'a>, Failure> {
    for name in ["three", "four"] {
        fs::write(lab.dir.join(name), format!("{name}\n"))?;
    }
    let dir = lab.dir.display();
    let script = format!("exec 3<{dir}/three 4<{dir}/four; export LISTEN_PID=$$; exec \"$@\"");
    Ok(call.under(&["sh", "-c", &script, "sh"]))
}

fn preserve_fds(lab: &mut Lab) -> Outcome {
    lab.sh("cat <&3; cat <&4; env").write()?;
    let out = with_files(lab, lab.verb("run", &["--preserve-fds", "2"]))?.go()?.ok("run")?;
    ensure!(out.stdout.starts_with("three\nfour\n") && !out.stdout.contains("LISTEN"), "output: {}", out.stdout);
    Ok(())
}

fn preserve_fds_not_asked_for_are_closed(lab: &mut Lab) -> Outcome {
    lab.sh("test -e /proc/1/fd/3 && echo 3; test -e /proc/1/fd/4 && echo 4; true").write()?;
    same!(with_files(lab, lab.verb("run", &["--preserve-fds", "1"]))?.go()?.ok("run")?.stdout, "3\n", "descriptors");
    same!(with_files(lab, lab.verb("run", &[]))?.go()?.ok("run")?.stdout, "", "descriptors without the flag");
    Ok(())
}

fn preserve_fds_of_exec(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let call = lab.exec_call(&["--preserve-fds", "2"], &["sh", "-c", "cat <&3; cat <&4"]);
    same!(with_files(lab, call)?.go()?.ok("exec")?.stdout, "three\nfour\n", "output");
    Ok(())
}

fn preserve_fds_not_open_are_refused(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let out = with_files(lab, lab.verb("run", &["--preserve-fds", "9"]))?.go()?;
    ensure!(out.code != 0, "seven descriptors that are not open are preserved");
    lab.nothing_left("a refused run")
}

/// The log's file has the first number that is free.
fn preserve_fds_of_the_runtime_itself_are_refused(lab: &mut Lab) -> Outcome {
    lab.args(&["true"]).write()?;
    let log = lab.dir.join("log").to_string_lossy().into_owned();
    let call = lab.verb("run", &["--preserve-fds", "1"]).global(&["--log", &log]);
    let out = call.under(&["sh", "-c", "exec 3<&-; exec \"$@\"", "sh"]).go()?;
    ensure!(out.code != 0, "the runtime's own descriptor 3 is preserved");
    lab.nothing_left("a refused run")
}

fn listen_fds(lab: &mut Lab) -> Outcome {
    lab.sh("cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID").write()?;
    let out = with_files(lab, lab.verb("run", &[]))?.env("LISTEN_FDS", "2").go()?.ok("run")?;
    same!(out.stdout, "three\nfour\n2 1\n", "output");
    Ok(())
}

const TRAPS: &str =
    "for s in TERM USR1 USR2 HUP; do trap \"echo $s\" $s; done; echo ready; while true; do usleep 5000; done";

fn kill_default_is_term(lab: &mut Lab) -> Outcome {
    lab.up(TRAPS)?;
    wait_until("not ready", || Ok(lab.output().contains("ready")))?;
    lab.verb("kill", &[]).go()?.ok("kill")?;
    wait_until("TERM did not come", || Ok(lab.output().contains("TERM")))
}

fn kill_takes_names_and_numbers(lab: &mut Lab) -> Outcome {
    lab.up(TRAPS)?;
    wait_until("not ready", || Ok(lab.output().contains("ready")))?;
    for (round, signal) in ["USR1", "SIGUSR1", "usr1", "10", "sigusr1"].iter().enumerate() {
        lab.call(&["kill", &lab.id, signal]).go()?.ok(signal)?;
        wait_until(signal, || Ok(lab.output().matches("USR1").count() == round + 1))?;
    }
    Ok(())
}

fn kill_refuses_an_unknown_signal(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for signal in ["NONE", "SIGNONE", "9x"] {
        lab.call(&["kill", &lab.id, signal]).go()?.exits(1, signal)?;
    }
    same!(lab.status()?, "running", "status");
    Ok(())
}

fn kill_all_reaches_every_process(lab: &mut Lab) -> Outcome {
    lab.without_namespace("pid").up("sleep 4569 & sleep 4570 & wait")?;
    wait_until("not three processes", || {
        let pids: Vec<i64> = serde_json::from_str(&lab.verb("ps", &["-f", "json"]).go()?.ok("ps")?.stdout)?;
        Ok(pids.len() == 3)
    })?;
    lab.call(&["kill", "--all", &lab.id, "KILL"]).go()?.ok("kill --all")?;
    lab.wait_for("stopped")?;
    wait_until("processes are left in the cgroup", || {
        Ok(lab
            .cgroups()
            .iter()
            .all(|path| fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())))
    })
}

fn kill_all_of_stopped_succeeds(lab: &mut Lab) -> Outcome {
    lab.up("true")?;
    lab.wait_for("stopped")?;
    lab.call(&["kill", "--all", &lab.id, "KILL"]).go()?.ok("kill --all").map(|_| ())
}

fn pause_stops_and_resume_continues(lab: &mut Lab) -> Outcome {
    lab.up("while true; do echo tick; usleep 5000; done")?;
    wait_until("no output", || Ok(!lab.output().is_empty()))?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    let before = lab.output().len();
    std::thread::sleep(Duration::from_millis(60));
    same!(lab.output().len(), before, "output while paused");
    lab.verb("resume", &[]).go()?.ok("resume")?;
    wait_until("no output after resume", || Ok(lab.output().len() > before))
}

fn pause_of_paused_fails(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    lab.verb("pause", &[]).go()?.exits(1, "second pause")?;
    same!(lab.status()?, "paused", "status");
    Ok(())
}

fn pause_of_created_is_allowed_or_refused(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let paused = lab.verb("pause", &[]).go()?.code == 0;
    same!(lab.status()?, if paused { "paused" } else { "created" }, "status");
    Ok(())
}

fn resume_of_running_fails(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.verb("resume", &[]).go()?.fails_with("not paused", "resume").map(|_| ())
}

fn pause_of_stopped_fails(lab: &mut Lab) -> Outcome {
    lab.up("true")?;
    lab.wait_for("stopped")?;
    lab.verb("pause", &[]).go()?.exits(1, "pause of stopped")?;
    same!(lab.status()?, "stopped", "status");
    Ok(())
}

/// go-runc takes nothing else.
fn version_under_the_name_runc(lab: &mut Lab) -> Outcome {
    let link = lab.dir.join("runc");
    std::os::unix::fs::symlink(&lab.host.runtime, &link)?;
    let out = std::process::Command::new(&link).arg("--version").output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let version = text.lines().next().and_then(|line| line.strip_prefix("runc version ")).unwrap_or_default();
    ensure!(version.starts_with(|c: char| c.is_ascii_digit()), "version: {text}");
    let help = std::process::Command::new(&link).args(["kill", "--help"]).output()?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    ensure!(help.contains("   runc kill "), "help: {help}");
    Ok(())
}

fn config_names_another_file(lab: &mut Lab) -> Outcome {
    lab.sh("echo other");
    lab.write()?;
    fs::rename(lab.bundle().join("config.json"), lab.dir.join("other.json"))?;
    let bundle = lab.bundle().to_string_lossy().into_owned();
    for flag in ["--config", "-f"] {
        // A relative name is one below the working directory.
        let out = lab.verb("run", &["--bundle", &bundle, flag, "other.json"]).cwd(&lab.dir).go()?.ok("run")?;
        same!(out.stdout, "other\n", "output");
    }
    let missing = lab.verb("create", &["--bundle", &bundle]).cwd(&lab.dir).go()?;
    ensure!(missing.code != 0 && missing.stderr.contains("config.json"), "create without it: {missing:?}");
    Ok(())
}

fn config_of_spec(lab: &mut Lab) -> Outcome {
    let there = lab.directory("there")?;
    lab.call(&["spec", "-f", "other.json"]).cwd(&there).go()?.ok("spec")?;
    let config: Value = serde_json::from_slice(&fs::read(there.join("other.json"))?)?;
    ensure!(config["process"].is_object() && !there.join("config.json").exists(), "config: {config}");
    Ok(())
}

fn kill_regex(lab: &mut Lab) -> Outcome {
    lab.up("trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done")?;
    wait_until("the shell is not ready", || Ok(lab.output().contains("ready")))?;
    let id = lab.id.clone();
    lab.call(&["kill", "--regex", "^no-such", "USR1"]).go()?.ok("kill without a match")?;
    same!(lab.status()?, "running", "status after a kill without a match");
    lab.call(&["kill", "--regex", &format!("^{}$", &id[..id.len() - 1]), "USR1"]).go()?.ok("kill")?;
    same!(lab.status()?, "running", "status after a kill of half the id");
    lab.call(&["kill", "-r", "^oci[0-9]+-[0-9]*$", "USR1"]).go()?.ok("kill")?;
    lab.wait_for("stopped")?;
    // All that match have stopped.
    lab.call(&["kill", "-r", "^oci", "USR1"]).go()?.ok("kill of what has stopped")?;
    let out = lab.call(&["kill", "-r", "a(b", "USR1"]).go()?;
    ensure!(out.code != 0 && out.stderr.contains("a(b"), "a broken expression: {out:?}");
    Ok(())
}

fn delete_regex(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.call(&["delete", "--force", "--regex", "^no-such"]).go()?.ok("delete without a match")?;
    same!(lab.status()?, "running", "status after a delete without a match");
    lab.call(&["delete", "--force", "-r", "^oci.*"]).go()?.ok("delete")?;
    lab.nothing_left("delete --regex")
}

fn kill_takes_real_time_signals(lab: &mut Lab) -> Outcome {
    for (signal, number) in [("RTMIN+3", "37"), ("SIGRTMIN+1", "35"), ("40", "40")] {
        lab.sh(&format!("trap 'exit {number}' {number}; echo ready; while :; do sleep 0.05; done"));
        lab.create()?;
        lab.start()?;
        wait_until("the trap is not set", || Ok(lab.output() == "ready\n"))?;
        lab.call(&["kill", &lab.id, signal]).go()?.ok(signal)?;
        lab.wait_for("stopped")?;
        lab.call(&["delete", &lab.id]).go()?.ok("delete")?;
    }
    Ok(())
}

fn log_to_a_file_by_its_prefix(lab: &mut Lab) -> Outcome {
    let log = format!("file:{}", lab.dir.join("log").display());
    let out = lab.call(&["state", "none"]).global(&["--log", &log]).go()?;
    ensure!(out.code != 0, "state of no container succeeds");
    ensure!(fs::read_to_string(lab.dir.join("log"))?.contains("none"), "nothing is in the log");
    Ok(())
}

fn log_to_a_daemon_that_is_not_there_is_refused(lab: &mut Lab) -> Outcome {
    for (target, socket) in [("syslog:x", "/dev/log"), ("journald:x", "/run/systemd/journal/socket")] {
        let out = lab.call(&["list"]).global(&["--log", target]).go()?;
        match fs::exists(socket)? {
            true => out.ok(target)?,
            false => out.fails_with(socket, target)?,
        };
    }
    Ok(())
}

fn usage_error_names_the_flag_as_typed(lab: &mut Lab) -> Outcome {
    for (words, told) in [
        (&["list", "--frob=7"][..], "flag provided but not defined: --frob"),
        (&["list", "-frob"], "flag provided but not defined: -frob"),
        (&["create", "--bundle"], "flag needs an argument: --bundle"),
    ] {
        let out = lab.call(words).go()?.exits(1, "usage")?;
        ensure!(out.stderr.trim_end().trim_end_matches('"').ends_with(told), "last on stderr: {}", out.stderr);
    }
    Ok(())
}

/// Of a container that was detached, has been killed, and is started once more.
fn start_after_kill_says_why(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.stop()?;
    lab.verb("start", &[]).go()?.fails_with("cannot start a container that has stopped", "start").map(|_| ())
}
