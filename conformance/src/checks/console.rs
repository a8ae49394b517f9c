//! Terminals, and the sockets over which a runtime hands out a console or a pidfd.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Instant;

use serde_json::json;

use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;
use crate::socket::{LIMIT, Receiver, readable};

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "console",
        console_socket_of_create "runc: create --console-socket",
        console_socket_of_exec "runc: exec --console-socket",
        console_socket_without_terminal_is_refused "runc: create --console-socket",
        console_socket_missing_is_refused "runc: create --console-socket",
        console_size "config.md#process",
        console_is_the_controlling_terminal "config.md#process",
        console_owner_is_the_user "config.md#process",
        pidfd_socket_of_create "runc: create --pidfd-socket",
        foreground_terminal "runc: run",
    )
}

/// A container with a terminal, created with a console socket; returns the terminal's master.
fn with_console(lab: &mut Lab, script: &str) -> Result<OwnedFd, Failure> {
    let path = lab.dir.join("tty.sock");
    let receiver = Receiver::bind(&path)?;
    lab.set("/process/terminal", true).sh(script).create_with(&["--console-socket", &path.to_string_lossy()])?;
    console(&receiver)
}

fn console(receiver: &Receiver) -> Result<OwnedFd, Failure> {
    let mut message = receiver.message()?;
    same!(message.fds.len(), 1, "descriptors in the message");
    ensure!(!message.bytes.is_empty() && message.bytes.len() < 4096, "payload of {} bytes", message.bytes.len());
    Ok(message.fds.remove(0))
}

fn read_until(master: OwnedFd, end: &str) -> Result<String, Failure> {
    let (mut file, mut text, begin) = (File::from(master), Vec::new(), Instant::now());
    while !String::from_utf8_lossy(&text).contains(end) {
        ensure!(begin.elapsed() < LIMIT, "the terminal gave {:?}", String::from_utf8_lossy(&text));
        readable(&file, LIMIT)?;
        let mut chunk = [0; 1024];
        let count = file.read(&mut chunk)?;
        text.extend(&chunk[..count]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn console_socket_of_create(lab: &mut Lab) -> Outcome {
    let master = with_console(lab, "test -t 0 && test -t 1 && test -t 2 && tty; echo end; sleep 100")?;
    lab.start()?;
    let text = read_until(master, "end")?;
    ensure!(text.contains("/dev/"), "text: {text:?}");
    Ok(())
}

fn console_socket_of_exec(lab: &mut Lab) -> Outcome {
    lab.up_idle()?;
    let path = lab.dir.join("tty.sock");
    let receiver = Receiver::bind(&path)?;
    let options = ["--tty", "--detach", "--console-socket", &path.to_string_lossy()];
    lab.exec(&options, &["sh", "-c", "test -t 0 && echo end; sleep 100"])?.ok("exec")?;
    read_until(console(&receiver)?, "end").map(|_| ())
}

fn console_socket_without_terminal_is_refused(lab: &mut Lab) -> Outcome {
    let path = lab.dir.join("tty.sock");
    let _receiver = Receiver::bind(&path)?;
    lab.args(&["true"]).write()?;
    let out = lab.verb("create", &["--console-socket", &path.to_string_lossy()]).go()?;
    out.fails_with("cannot use console socket", "create").map(|_| ())
}

fn console_socket_missing_is_refused(lab: &mut Lab) -> Outcome {
    lab.set("/process/terminal", true).args(&["true"]).write()?;
    let out = lab.verb("create", &[]).go()?;
    out.fails_with("cannot allocate tty if", "create")?;
    lab.nothing_left("a refused create")
}

fn console_size(lab: &mut Lab) -> Outcome {
    lab.set("/process/consoleSize", json!({ "height": 31, "width": 97 }));
    let master = with_console(lab, "stty size; echo end; sleep 100")?;
    lab.start()?;
    let text = read_until(master, "end")?;
    ensure!(text.contains("31 97"), "stty size: {text}");
    Ok(())
}

fn console_is_the_controlling_terminal(lab: &mut Lab) -> Outcome {
    let master = with_console(lab, "echo through > /dev/tty; echo on > /dev/console; echo end; sleep 100")?;
    lab.start()?;
    let text = read_until(master, "end")?;
    ensure!(text.contains("through") && text.lines().any(|line| line == "on"), "text: {text:?}");
    Ok(())
}

fn console_owner_is_the_user(lab: &mut Lab) -> Outcome {
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 }));
    let master = with_console(lab, "stat -L -c 'owner %u' /proc/self/fd/0; echo end; sleep 100")?;
    lab.start()?;
    let text = read_until(master, "end")?;
    ensure!(text.contains("owner 1815"), "text: {text:?}");
    Ok(())
}

fn pidfd_socket_of_create(lab: &mut Lab) -> Outcome {
    let path = lab.dir.join("pidfd.sock");
    let receiver = Receiver::bind(&path)?;
    lab.args(&["sleep", "100"]).create_with(&["--pidfd-socket", &path.to_string_lossy()])?;
    let message = receiver.message()?;
    same!(message.fds.len(), 1, "descriptors in the message");
    let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&message.fds[0]));
    let info = fs::read_to_string(info)?;
    ensure!(info.contains(&format!("Pid:\t{}\n", lab.pid()?)), "fdinfo: {info}");
    Ok(())
}

fn foreground_terminal(lab: &mut Lab) -> Outcome {
    lab.set("/process/terminal", true).sh("test -t 0 && test -t 1 && echo terminal; exit 5").write()?;
    let root = lab.dir.join("root");
    let command = format!("{} --root {} run {}", lab.host.runtime.display(), root.display(), lab.id);
    let out = std::process::Command::new("timeout")
        .args(["120", "script", "-qec", &command, "/dev/null"])
        .current_dir(lab.bundle())
        .stdin(std::process::Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(text.contains("terminal"), "output: {text:?}");
    same!(out.status.code(), Some(5), "exit status");
    Ok(())
}
