//! Checkpoint and restore by a real CRIU. (What it is asked, and how its failures are told, needs none: those are tests of the runtime.)

use std::fs;

use crate::check::{Check, Failure, Outcome};
use crate::criu;
use crate::runtime::{Lab, Out, wait_until};

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "checkpoint",
        restore_goes_on_where_it_was "runc: restore",
        checkpoint_deletes_the_container "runc: checkpoint",
        leave_running_leaves_it_running "runc: checkpoint --leave-running",
        restored_container_takes_every_verb "runc: restore",
        restore_twice_from_one_checkpoint "runc: restore",
        restore_brings_bind_mounts_and_masks_back "runc: restore",
        restore_brings_back_how_all_is_mounted "runc: restore",
        restore_without_images_fails_and_leaves_nothing "runc: restore",
        created_container_is_refused "runc: checkpoint",
    );
    let own = checks!("checkpoint", restored_network_has_a_loopback "orlop: restore");
    checks.extend(own.into_iter().map(|check| Check { own: true, ..check }));
    checks
}

/// Counts in memory, and shows it in a file of a tmpfs; its streams lead nowhere.
const COUNTER: &str =
    "exec </dev/null >/dev/null 2>&1; i=0; while :; do i=$((i+1)); echo $i >/dev/shm/n; sleep 0.05; done";

/// Starts the counter, and waits until it counts.
fn counting(lab: &mut Lab) -> Outcome {
    lab.up(COUNTER)?;
    wait_until("the container does not count", || Ok(count(lab)? > 1))
}

fn count(lab: &Lab) -> Result<u64, Failure> {
    let out = lab.exec(&[], &["cat", "/dev/shm/n"])?;
    // It may be empty for a moment.
    Ok(out.stdout.trim().parse().unwrap_or(0))
}

fn call(lab: &Lab, verb: &str, options: &[&str]) -> Result<Out, Failure> {
    let images = lab.dir.join("images");
    let mut all = vec!["--image-path", images.to_str().unwrap_or_default()];
    all.extend(options);
    lab.verb(verb, &all).env("PATH", criu::path()).go()
}

fn checkpoint(lab: &Lab, options: &[&str]) -> Result<Out, Failure> {
    call(lab, "checkpoint", options)?.ok("checkpoint")
}

fn restore(lab: &Lab) -> Result<Out, Failure> {
    call(lab, "restore", &["--detach"])?.ok("restore")
}

fn restore_goes_on_where_it_was(lab: &mut Lab) -> Outcome {
    counting(lab)?;
    let before = count(lab)?;
    checkpoint(lab, &[])?;
    restore(lab)?;
    same!(lab.status()?, "running", "status of the restored container");
    wait_until("the restored container does not count", || Ok(count(lab)? > 0))?;
    let after = count(lab)?;
    ensure!(after >= before && after < before + 1000, "it counts on from {after}, and was at {before}");
    wait_until("the restored container does not go on", || Ok(count(lab)? > after + 2))
}

fn checkpoint_deletes_the_container(lab: &mut Lab) -> Outcome {
    counting(lab)?;
    checkpoint(lab, &[])?;
    ensure!(lab.dir.join("images/inventory.img").exists(), "no images");
    lab.verb("state", &[]).go()?.fails_with("does not exist", "state")?;
    lab.nothing_left("checkpoint")
}

fn leave_running_leaves_it_running(lab: &mut Lab) -> Outcome {
    counting(lab)?;
    let pid = lab.pid()?;
    checkpoint(lab, &["--leave-running"])?;
    same!((lab.status()?, lab.pid()?), ("running".to_string(), pid), "status and pid after the checkpoint");
    let now = count(lab)?;
    wait_until("the container does not go on", || Ok(count(lab)? > now + 2))
}

fn restored_container_takes_every_verb(lab: &mut Lab) -> Outcome {
    lab.set("/hostname", "restored");
    counting(lab)?;
    checkpoint(lab, &[])?;
    let file = lab.dir.join("pid");
    call(lab, "restore", &["-d", "--pid-file", file.to_str().unwrap_or_default()])?.ok("restore")?;
    same!(fs::read_to_string(&file)?, lab.pid()?.to_string(), "pid file");
    same!(lab.exec(&[], &["hostname"])?.ok("exec")?.stdout, "restored\n", "hostname");
    lab.verb("pause", &[]).go()?.ok("pause")?;
    same!(lab.status()?, "paused", "status");
    lab.verb("resume", &[]).go()?.ok("resume")?;
    let pids = lab.call(&["ps", "--format", "json", &lab.id]).go()?.ok("ps")?.stdout;
    ensure!(pids.contains(&lab.pid()?.to_string()), "ps does not know its init: {pids}");
    lab.stop()?;
    lab.verb("delete", &[]).go()?.ok("delete")?;
    lab.nothing_left("delete of a restored container")
}

fn restore_twice_from_one_checkpoint(lab: &mut Lab) -> Outcome {
    counting(lab)?;
    checkpoint(lab, &[])?;
    for _ in 0..2 {
        restore(lab)?;
        wait_until("the restored container does not count", || Ok(count(lab)? > 0))?;
        lab.verb("delete", &["--force"]).go()?.ok("delete")?;
    }
    Ok(())
}

fn restore_brings_bind_mounts_and_masks_back(lab: &mut Lab) -> Outcome {
    let shared = lab.directory("shared")?;
    fs::write(shared.join("file"), "of the host")?;
    lab.mount("/new/place", "bind", &shared, &["bind"]);
    lab.set("/linux/maskedPaths/-", "/proc/uptime").set("/linux/maskedPaths/-", "/proc/bus");
    counting(lab)?;
    checkpoint(lab, &[])?;
    restore(lab)?;
    same!(lab.exec(&[], &["cat", "/new/place/file"])?.ok("cat")?.stdout, "of the host", "file of the bind mount");
    same!(lab.exec(&[], &["cat", "/proc/uptime"])?.ok("cat")?.stdout, "", "masked file");
    same!(lab.exec(&[], &["ls", "/proc/bus"])?.ok("ls")?.stdout, "", "masked directory");
    Ok(())
}

/// Where, with which options, of what type; sorted, since CRIU mounts in another order.
fn mounted(lab: &Lab) -> Result<Vec<String>, Failure> {
    let out = lab.exec(&[], &["cat", "/proc/self/mountinfo"])?.ok("cat")?;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let of = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 1));
        format!("{} {} {}", fields[4], fields[5], of.unwrap_or(&""))
    };
    let mut mounts: Vec<String> = out.stdout.lines().map(line).collect();
    mounts.sort_unstable();
    Ok(mounts)
}

fn restore_brings_back_how_all_is_mounted(lab: &mut Lab) -> Outcome {
    let shared = lab.directory("shared")?;
    lab.mount("/new/place", "bind", &shared, &["bind", "ro", "nosuid"]);
    counting(lab)?;
    let before = mounted(lab)?;
    checkpoint(lab, &[])?;
    restore(lab)?;
    same!(mounted(lab)?, before, "mounts after the restore");
    Ok(())
}

fn restore_without_images_fails_and_leaves_nothing(lab: &mut Lab) -> Outcome {
    lab.sh(COUNTER).write()?;
    lab.directory("images")?;
    let out = call(lab, "restore", &["--detach"])?.exits(1, "restore without images")?;
    ensure!(!out.stderr.trim().is_empty(), "no reason given");
    lab.nothing_left("a failed restore")
}

fn created_container_is_refused(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    call(lab, "checkpoint", &[])?.fails_with("cannot be checkpointed in created state", "checkpoint")?;
    same!(lab.status()?, "created", "status");
    Ok(())
}

fn restored_network_has_a_loopback(lab: &mut Lab) -> Outcome {
    counting(lab)?;
    checkpoint(lab, &[])?;
    restore(lab)?;
    let out = lab.exec(&[], &["cat", "/proc/net/if_inet6", "/proc/net/fib_trie"])?;
    ensure!(out.stdout.contains("127.0.0.1"), "the loopback interface has no address: {}", out.stdout);
    Ok(())
}
