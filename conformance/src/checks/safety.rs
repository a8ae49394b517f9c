//! Hostile root file systems, users and neighbours, in their deterministic forms. integration/ESCAPES.md maps each CVE
//! to its checks.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Output};

use serde_json::json;

use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;

/// The checks that a hostile root file system cannot lead the runtime out of it.
pub(super) fn checks() -> Vec<Check> {
    checks!(
        "safety",
        proc_as_a_symlink_is_refused "CVE-2019-19921",
        sys_as_a_symlink_is_refused "CVE-2023-28642",
        dev_as_a_symlink_does_not_reach_the_host "CVE-2026-41579",
        dev_null_as_a_symlink_does_not_reach_the_host "CVE-2025-31133",
        dev_null_symlink_keeps_the_owner_of_its_target "CVE-2026-88265",
        dev_console_symlink_does_not_reach_the_host "CVE-2025-52565",
        mount_destination_symlink_stays_inside "CVE-2021-30465",
        mount_destination_file_symlink_stays_inside "CVE-2019-18837",
        mount_destination_dotdot_stays_inside "CVE-2021-30465",
        masked_path_symlink_stays_inside "CVE-2025-31133",
        cwd_symlink_to_a_descriptor_is_refused "CVE-2024-21626",
        cwd_symlink_stays_inside "CVE-2024-45310",
        numeric_user_is_never_a_name "CVE-2016-3697",
        user_numbers_out_of_range_are_refused "CVE-2024-40635",
        the_runtime_cannot_be_rewritten "CVE-2019-5736",
        hooks_do_not_see_the_process_environment "CVE-2025-23266",
        inheritable_capabilities_are_not_added_by_exec "CVE-2022-29162",
        state_directories_are_private "runc: --root",
    )
}

/// Replaces a name in the root file system by a symbolic link.
pub(super) fn link(lab: &Lab, name: &str, target: impl AsRef<std::path::Path>) -> Outcome {
    let path = lab.rootfs().join(name);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(&path)?,
        Ok(_) => fs::remove_file(&path)?,
        Err(_) => {}
    }
    Ok(symlink(target, path)?)
}

fn refused_link(lab: &mut Lab, name: &str) -> Outcome {
    lab.args(&["true"]).run()?.ok("run without the link")?;
    fs::create_dir(lab.rootfs().join("elsewhere"))?;
    link(lab, name, "/elsewhere")?;
    let out = lab.run()?;
    ensure!(out.code != 0, "a root file system whose {name} is a symbolic link is accepted");
    Ok(())
}

fn proc_as_a_symlink_is_refused(lab: &mut Lab) -> Outcome {
    refused_link(lab, "proc")
}

fn sys_as_a_symlink_is_refused(lab: &mut Lab) -> Outcome {
    refused_link(lab, "sys")
}

/// A directory on the host with a file, for which a hostile link aims.
pub(super) fn victim(lab: &Lab) -> Result<std::path::PathBuf, Failure> {
    let victim = lab.directory("victim")?;
    fs::write(victim.join("ptmx"), "untouched")?;
    Ok(victim)
}

pub(super) fn unharmed(lab: &Lab) -> Outcome {
    let victim = lab.dir.join("victim");
    ensure!(victim.is_dir(), "the host's directory is gone");
    let names: Vec<_> = fs::read_dir(&victim)?.flatten().map(|entry| entry.file_name()).collect();
    same!(names, ["ptmx"], "files of the host's directory");
    same!(fs::read_to_string(victim.join("ptmx"))?, "untouched", "the host's file");
    Ok(())
}

pub(super) fn without_dev(lab: &mut Lab) {
    let mounts = lab.config["mounts"].as_array_mut().expect("the base has mounts");
    mounts.retain(|mount| !mount["destination"].as_str().unwrap_or_default().starts_with("/dev"));
}

fn dev_as_a_symlink_does_not_reach_the_host(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    let up = format!("../../../../../../..{}", victim.display());
    for target in [victim.to_string_lossy().into_owned(), up] {
        link(lab, "dev", target)?;
        lab.set("/root/readonly", false).args(&["true"]).run()?;
        unharmed(lab)?;
    }
    Ok(())
}

fn dev_null_as_a_symlink_does_not_reach_the_host(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    link(lab, "dev/null", victim.join("ptmx"))?;
    fs::write(lab.rootfs().join("secret"), "text")?;
    lab.set("/linux/maskedPaths", json!(["/secret"])).set("/root/readonly", false);
    let out = lab.sh("cat /secret; echo harmed > /secret").run()?;
    ensure!(!out.stdout.contains("untouched") && !out.stdout.contains("text"), "the mask shows {:?}", out.stdout);
    unharmed(lab)
}

fn dev_null_symlink_keeps_the_owner_of_its_target(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    link(lab, "dev/null", victim.join("ptmx"))?;
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 })).args(&["true"]).run()?;
    let owner = fs::metadata(victim.join("ptmx"))?.uid();
    same!(owner, 0, "owner of the host's file");
    unharmed(lab)
}

fn dev_console_symlink_does_not_reach_the_host(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    terminal(lab).set("/root/readonly", false).sh("echo harmed > /dev/console; true").write()?;
    let out = run_with_a_terminal(lab)?;
    ensure!(out.status.success(), "run without the link: {}", String::from_utf8_lossy(&out.stdout));
    link(lab, "dev/console", victim.join("ptmx"))?;
    link(lab, "dev/fd", victim.join("fd"))?;
    run_with_a_terminal(lab)?;
    unharmed(lab)
}

/// A terminal for the container, which needs a devpts of its own.
pub(super) fn terminal(lab: &mut Lab) -> &mut Lab {
    lab.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
    lab.set("/process/terminal", true)
}

/// `run`, whose own standard streams are a terminal.
pub(super) fn run_with_a_terminal(lab: &Lab) -> Result<Output, Failure> {
    let command = format!("{} --root {}/root run {}", lab.host.runtime.display(), lab.dir.display(), lab.id);
    let script = ["--foreground", "30", "script", "-qec", &command, "/dev/null"];
    Ok(Command::new("timeout").args(script).current_dir(lab.bundle()).output()?)
}

fn mount_destination_symlink_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    link(lab, "there", &victim)?;
    lab.mount("/there/sub", "tmpfs", "tmpfs", &[]).args(&["true"]).run()?;
    unharmed(lab)
}

fn mount_destination_file_symlink_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    link(lab, "there", victim.join("new"))?;
    let source = lab.dir.join("source");
    fs::write(&source, "")?;
    lab.mount("/there", "bind", &source, &["bind"]).args(&["true"]).run()?;
    unharmed(lab)
}

fn mount_destination_dotdot_stays_inside(lab: &mut Lab) -> Outcome {
    victim(lab)?;
    lab.mount("/home/../../../victim/sub", "tmpfs", "tmpfs", &[]).args(&["true"]).run()?;
    unharmed(lab)
}

fn masked_path_symlink_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    link(lab, "secret", &victim)?;
    lab.set("/linux/maskedPaths", json!(["/secret"])).set("/linux/readonlyPaths", json!(["/secret/ptmx"]));
    lab.args(&["sleep", "100"]).write()?;
    lab.verb("create", &[]).go()?;
    unharmed(lab)
}

fn cwd_symlink_to_a_descriptor_is_refused(lab: &mut Lab) -> Outcome {
    for fd in 3..16 {
        link(lab, "there", format!("/proc/self/fd/{fd}"))?;
        let out = lab.set("/process/cwd", "/there").sh("ls ..").run()?;
        ensure!(out.code != 0, "descriptor {fd} became the working directory: {}", out.stdout);
    }
    Ok(())
}

fn cwd_symlink_stays_inside(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    link(lab, "there", victim)?;
    lab.set("/root/readonly", false).set("/process/cwd", "/there/new").args(&["true"]).run()?;
    unharmed(lab)
}

fn numeric_user_is_never_a_name(lab: &mut Lab) -> Outcome {
    let passwd = "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n4294967297:x:0:0::/root:/bin/sh\n";
    fs::write(lab.rootfs().join("etc/passwd"), passwd)?;
    lab.up_idle()?;
    same!(lab.exec(&["--user", "1000"], &["id", "-u"])?.ok("exec")?.stdout, "1000\n", "user id");
    same!(lab.exec(&["--user", "1000:1000"], &["id", "-g"])?.ok("exec")?.stdout, "1000\n", "group id");
    Ok(())
}

fn user_numbers_out_of_range_are_refused(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    for user in ["4294967297", "-1", "99999999999999999999999999"] {
        let out = lab.exec(&[&format!("--user={user}")], &["id", "-u"])?;
        ensure!(out.code != 0, "user {user} is accepted as {}", out.stdout);
    }
    Ok(())
}

fn the_runtime_cannot_be_rewritten(lab: &mut Lab) -> Outcome {
    lab.runtime = lab.host.target.clone();
    let before = fs::read(&lab.runtime)?;
    let attack = "for pid in /proc/[0-9]*; do if [ $pid != /proc/1 ]; then \
        (echo harmed > $pid/exe) 2>/dev/null; fi; done";
    lab.script("bundle/rootfs/bin/self", "#!/proc/self/exe\n")?;
    lab.set("/process/noNewPrivileges", false);
    lab.up(&format!("while true; do {attack}; done"))?;
    for _ in 0..3 {
        lab.exec(&[], &["/bin/self", "--version"])?;
        lab.exec(&[], &["true"])?.ok("exec")?;
    }
    ensure!(fs::read(&lab.runtime)? == before, "the runtime's binary has changed");
    Ok(())
}

fn hooks_do_not_see_the_process_environment(lab: &mut Lab) -> Outcome {
    let seen = lab.dir.join("seen");
    let hook = lab.script("hook", &format!("#!/bin/sh\nenv > {}\n", seen.display()))?;
    let hook = json!([{ "path": hook.to_string_lossy(), "env": ["GIVEN=yes"] }]);
    lab.set("/hooks/createContainer", hook)
        .set("/process/env/-", "LD_PRELOAD=/evil.so")
        .args(&["true"])
        .run()?
        .ok("run")?;
    let seen = fs::read_to_string(seen)?;
    ensure!(seen.contains("GIVEN=yes") && !seen.contains("LD_PRELOAD"), "environment of the hook: {seen}");
    Ok(())
}

fn inheritable_capabilities_are_not_added_by_exec(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let out = lab.exec(&["--user", "1815", "--cap", "CAP_KILL"], &["cat", "/proc/self/status"])?.ok("exec")?;
    ensure!(out.stdout.contains("CapInh:\t0000000000000000"), "{}", out.stdout);
    Ok(())
}

fn state_directories_are_private(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let mode = fs::metadata(lab.state_dir())?.mode() & 0o077;
    same!(mode & 0o066, 0, "read and write permission of others on the state directory");
    Ok(())
}
