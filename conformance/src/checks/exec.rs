//! `exec`: a further process in a running container.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cli::pid_file;
use crate::apparmor::Profile;
use crate::check::{Check, Failure, Outcome};
use crate::runtime::{Lab, wait_until};

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "exec",
        status "runc: exec",
        status_by_signal "runc: exec",
        of_a_missing_program_is_255 "runc: exec",
        of_a_program_without_permission_is_255 "runc: exec",
        of_an_unknown_id_fails "runc: exec",
        without_a_command_fails "runc: exec",
        in_stopped_fails "runc: exec",
        in_created_works "runc: exec",
        in_paused_fails "runc: exec",
        ignore_paused "runc: exec --ignore-paused",
        passes_stdin "runc: exec",
        inherits_the_containers_process "runc: exec",
        cwd "runc: exec --cwd",
        cwd_through_a_descriptor_is_refused "CVE-2024-21626",
        env "runc: exec --env",
        user "runc: exec --user",
        user_sets_home "runc: exec --user",
        additional_gids "runc: exec --additional-gids",
        cap "runc: exec --cap",
        apparmor "runc: exec --cap",
        no_new_privs "runc: exec --no-new-privs",
        no_new_privs_false "runc: exec --no-new-privs=false",
        process_file "runc: exec --process",
        detach "runc: exec --detach",
        tty "runc: exec --tty",
        is_in_the_containers_cgroup "runc: exec",
        keeps_arguments_that_look_like_flags "runc: exec",
    )
}

fn status(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for status in [0, 1, 42] {
        lab.exec(&[], &["sh", "-c", &format!("echo out; echo err >&2; exit {status}")])?.exits(status, "exec")?;
    }
    Ok(())
}

fn status_by_signal(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.exec(&[], &["sh", "-c", "kill -KILL $$"])?.exits(128 + 9, "exec")?;
    lab.exec(&[], &["sh", "-c", "kill -TERM $$"])?.exits(128 + 15, "exec").map(|_| ())
}

fn of_a_missing_program_is_255(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let out = lab.exec(&[], &["no-such-program"])?.exits(255, "exec of a program that is not in PATH")?;
    ensure!(out.stderr.contains("executable file not found in $PATH"), "stderr: {}", out.stderr);
    let out = lab.exec(&[], &["/no/such/program"])?.exits(255, "exec of a missing program")?;
    ensure!(out.stderr.contains("no such file or directory"), "stderr: {}", out.stderr);
    Ok(())
}

fn of_a_program_without_permission_is_255(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let out = lab.exec(&[], &["/etc/passwd"])?.exits(255, "exec of a text file")?;
    ensure!(out.stderr.contains("permission denied"), "stderr: {}", out.stderr);
    Ok(())
}

fn of_an_unknown_id_fails(lab: &mut Lab) -> Outcome {
    let out = lab.exec(&[], &["true"])?;
    ensure!(out.code != 0 && out.stderr.contains("does not exist"), "exit status {}: {}", out.code, out.stderr);
    Ok(())
}

fn without_a_command_fails(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    ensure!(lab.exec(&[], &[])?.code != 0, "exec without a command succeeds");
    Ok(())
}

fn in_stopped_fails(lab: &mut Lab) -> Outcome {
    lab.up("true")?;
    lab.wait_for("stopped")?;
    let out = lab.exec(&[], &["true"])?.exits(255, "exec in stopped")?;
    ensure!(out.stderr.contains("cannot exec in a stopped container"), "stderr: {}", out.stderr);
    Ok(())
}

fn in_created_works(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    same!(lab.exec(&[], &["echo", "in"])?.ok("exec")?.stdout, "in\n", "output");
    same!(lab.status()?, "created", "status");
    Ok(())
}

fn in_paused_fails(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    let out = lab.exec(&[], &["true"])?;
    ensure!(out.code != 0 && out.stderr.contains("paused"), "exit status {}: {}", out.code, out.stderr);
    Ok(())
}

fn ignore_paused(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    lab.verb("pause", &[]).go()?.ok("pause")?;
    // The joined cgroup is frozen: the command ends only after the container is resumed.
    let resume = format!(
        "\"$@\" & sleep 0.2; \"$3\" --root {0} resume {1} || {2} --root {0} resume {1}; wait $!",
        lab.dir.join("root").display(),
        lab.id,
        lab.host.runtime.display()
    );
    let out =
        lab.exec_call(&["--ignore-paused"], &["echo", "in"]).under(&["sh", "-c", &resume, "sh"]).go()?.ok("exec")?;
    ensure!(out.stdout.contains("in\n"), "output: {}", out.stdout);
    Ok(())
}

fn passes_stdin(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    same!(lab.exec_call(&[], &["cat"]).stdin("given\n").go()?.ok("exec")?.stdout, "given\n", "output");
    Ok(())
}

fn inherits_the_containers_process(lab: &mut Lab) -> Outcome {
    lab.set("/process/cwd", "/home").set("/process/env/-", "FROM=config").set("/process/oomScoreAdj", 77);
    lab.set("/process/rlimits", json!([{ "type": "RLIMIT_SIGPENDING", "soft": 77, "hard": 88 }]));
    lab.up_idle()?;
    let script = "pwd; echo $FROM; cat /proc/self/oom_score_adj; awk '/pending/ {print $4}' /proc/self/limits; grep -e NoNewPrivs -e CapBnd /proc/self/status";
    let out = lab.exec(&[], &["sh", "-c", script])?.ok("exec")?;
    same!(out.stdout, "/home\nconfig\n77\n77\nCapBnd:\t0000000020000420\nNoNewPrivs:\t1\n", "what exec inherits");
    Ok(())
}

fn cwd(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    same!(lab.exec(&["--cwd", "/etc"], &["readlink", "/proc/self/cwd"])?.ok("exec")?.stdout, "/etc\n", "cwd");
    Ok(())
}

fn cwd_through_a_descriptor_is_refused(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for fd in 3..20 {
        let out = lab.exec(&["--cwd", &format!("/proc/self/fd/{fd}")], &["ls", ".."])?;
        ensure!(out.code != 0, "descriptor {fd} became the working directory: {}", out.stdout);
    }
    Ok(())
}

fn env(lab: &mut Lab) -> Outcome {
    lab.set("/process/env/-", "A=config").up_idle()?;
    let out = lab.exec(&["-e", "A=1", "-e", "B=2 3"], &["sh", "-c", "echo $A $B $TERM"])?.ok("exec")?;
    same!(out.stdout, "1 2 3 xterm\n", "variables");
    same!(lab.exec(&["--env", "A=4"], &["sh", "-c", "echo $A"])?.ok("exec")?.stdout, "4\n", "variable by --env");
    Ok(())
}

fn user(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for (user, want) in [("1815:1852", "1815 1852"), ("7", "7 0"), ("0:9", "0 9")] {
        let out = lab.exec(&["--user", user], &["sh", "-c", "echo $(id -u) $(id -g)"])?.ok("exec")?;
        same!(out.stdout.trim_end(), want, "user and group for {user}");
    }
    Ok(())
}

fn user_sets_home(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let home = lab.exec(&["-u", "1815:1852"], &["sh", "-c", "echo $HOME"])?.ok("exec")?.stdout;
    same!(home, "/home/ada\n", "HOME");
    Ok(())
}

fn additional_gids(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let out = lab.exec(&["-g", "31", "-g", "32"], &["grep", "Groups", "/proc/self/status"])?.ok("exec")?;
    same!(out.stdout.split_whitespace().collect::<Vec<_>>(), ["Groups:", "31", "32"], "groups");
    Ok(())
}

fn cap(lab: &mut Lab) -> Outcome {
    lab.set("/process/capabilities/bounding/-", "CAP_NET_RAW").set("/process/capabilities/permitted/-", "CAP_NET_RAW");
    lab.up_idle()?;
    let effective = |options: &[&str]| -> Result<String, Failure> {
        Ok(lab.exec(options, &["grep", "CapEff", "/proc/self/status"])?.ok("exec")?.stdout)
    };
    let bits = effective(&["--cap", "CAP_NET_RAW"])?;
    ensure!(bits.trim_end().ends_with("2420"), "effective capabilities: {bits}");
    Ok(())
}

fn apparmor(lab: &mut Lab) -> Outcome {
    let profile = Profile::load(lab)?;
    lab.up_idle()?;
    let label = |options: &[&str]| lab.exec(options, &["cat", "/proc/self/attr/current"]);
    // Not always "unconfined": a distribution may give the runtime's binary a profile, which the container inherits.
    let plain = label(&[])?.ok("exec")?.stdout;
    ensure!(!plain.contains(&profile.name), "label without the flag: {plain}");
    let confined = label(&["--apparmor", &profile.name])?.ok("exec --apparmor")?.stdout;
    same!(confined, format!("{} (enforce)\n", profile.name), "label");
    let refused = label(&["--apparmor", "no-such-profile"])?.exits(255, "exec with a profile that is not loaded")?;
    same!(refused.stdout, "", "what ran");
    ensure!(!refused.stderr.trim().is_empty(), "exec fails without a word");
    Ok(())
}

fn no_new_privs(lab: &mut Lab) -> Outcome {
    lab.set("/process/noNewPrivileges", false).up_idle()?;
    let command = ["grep", "NoNewPrivs", "/proc/self/status"];
    same!(lab.exec(&[], &command)?.ok("exec")?.stdout, "NoNewPrivs:\t0\n", "without the flag");
    same!(lab.exec(&["--no-new-privs"], &command)?.ok("exec")?.stdout, "NoNewPrivs:\t1\n", "with the flag");
    Ok(())
}

fn no_new_privs_false(lab: &mut Lab) -> Outcome {
    lab.set("/process/noNewPrivileges", true).up_idle()?;
    let command = ["grep", "NoNewPrivs", "/proc/self/status"];
    same!(lab.exec(&[], &command)?.ok("exec")?.stdout, "NoNewPrivs:\t1\n", "without the flag");
    same!(lab.exec(&["--no-new-privs=false"], &command)?.ok("exec")?.stdout, "NoNewPrivs:\t0\n", "with the flag");
    Ok(())
}

fn process_file(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let process = lab.dir.join("process.json");
    fs::write(
        &process,
        serde_json::to_vec(&json!({
            "terminal": false, "user": { "uid": 11, "gid": 12, "additionalGids": [13] }, "cwd": "/etc",
            "args": ["sh", "-c", "echo $(id -u) $(id -g) $PWD $ONLY"], "env": ["PATH=/bin", "ONLY=this"]
        }))?,
    )?;
    for flag in ["--process", "-p"] {
        let out = lab.exec(&[flag, &process.to_string_lossy()], &[])?.ok("exec")?;
        same!(out.stdout, "11 12 /etc this\n", "output");
    }
    Ok(())
}

fn detach(lab: &mut Lab) -> Outcome {
    lab.set("/root/readonly", false).up_idle()?;
    let begin = Instant::now();
    lab.exec(&["--detach"], &["sh", "-c", "touch /ran; sleep 60"])?.ok("exec")?;
    ensure!(begin.elapsed() < Duration::from_secs(50), "exec --detach waited");
    wait_until("the process did not run", || Ok(lab.rootfs().join("ran").exists()))
}

fn tty(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let root = lab.dir.join("root");
    let command = format!(
        "{} --root {} exec -t {} sh -c 'test -t 0 && echo terminal; exit 6'",
        lab.host.runtime.display(),
        root.display(),
        lab.id
    );
    let out = std::process::Command::new("timeout")
        .args(["120", "script", "-qec", &command, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(text.contains("terminal"), "output: {text:?}");
    same!(out.status.code(), Some(6), "exit status");
    Ok(())
}

fn is_in_the_containers_cgroup(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let own = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid()?))?;
    lab.exec(&["-d", "--pid-file", &pid_file(lab)], &["sleep", "100"])?.ok("exec")?;
    let pid = fs::read_to_string(pid_file(lab))?;
    same!(fs::read_to_string(format!("/proc/{pid}/cgroup"))?, own, "cgroups");
    Ok(())
}

fn keeps_arguments_that_look_like_flags(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    same!(lab.exec(&[], &["echo", "--user", "-t", "--", "x"])?.ok("exec")?.stdout, "--user -t -- x\n", "arguments");
    Ok(())
}
