//! What `state`, `list` and `ps` print.

use std::fs;

use serde_json::{Value, json};

use crate::check::{Check, Failure, Outcome};
use crate::runtime::{Lab, wait_until};

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "reports",
        state_json "runc: state",
        list_json "runc: list",
        list_json_of_nothing "runc: list",
        list_quiet "runc: list",
        list_table "runc: list",
        list_skips_a_broken_directory "runc: list",
        list_format_unknown_is_refused "runc: list",
        ps_json "runc: ps",
        ps_table "runc: ps",
        ps_table_with_arguments "runc: ps",
    )
}

fn is_utc_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.contains('.')
}

fn state_json(lab: &mut Lab) -> Outcome {
    lab.set("/annotations", json!({ "a": "b" })).args(&["sleep", "100"]).create()?;
    let text = lab.verb("state", &[]).go()?.ok("state")?.stdout;
    ensure!(text.starts_with("{\n  \"ociVersion\": \""), "not indented by two spaces: {text}");
    let mut last = 0;
    for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"] {
        let at = text.find(&format!("\n  \"{key}\": ")).ok_or_else(|| Failure(format!("no key {key}: {text}")))?;
        ensure!(at >= last, "{key} is out of order: {text}");
        last = at;
    }
    let state: Value = serde_json::from_str(&text)?;
    same!(state["rootfs"], lab.rootfs().to_string_lossy().into_owned(), "rootfs");
    ensure!(state["created"].as_str().is_some_and(is_utc_time), "created: {}", state["created"]);
    same!(state["owner"], "", "owner");
    Ok(())
}

fn list_json(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let text = lab.call(&["list", "--format", "json"]).go()?.ok("list")?.stdout;
    let list: Value = serde_json::from_str(&text)?;
    same!(text.trim_end().lines().count(), 1, "lines");
    same!(list.as_array().map(Vec::len), Some(1), "containers");
    let state = lab.state()?;
    for key in ["id", "pid", "status", "bundle", "created", "ociVersion", "rootfs"] {
        same!(list[0][key], state[key], "{key}");
    }
    same!(list[0]["owner"], "root", "owner");
    Ok(())
}

fn list_json_of_nothing(lab: &mut Lab) -> Outcome {
    let text = lab.call(&["list", "-f", "json"]).go()?.ok("list")?.stdout;
    let list: Value = serde_json::from_str(&text)?;
    ensure!(list.is_null() || list == json!([]), "list: {text}");
    Ok(())
}

fn list_quiet(lab: &mut Lab) -> Outcome {
    same!(lab.call(&["list", "-q"]).go()?.ok("list")?.stdout, "", "ids before");
    lab.args(&["sleep", "100"]).create()?;
    for flag in ["-q", "--quiet"] {
        same!(lab.call(&["list", flag]).go()?.ok("list")?.stdout, format!("{}\n", lab.id), "ids");
    }
    Ok(())
}

fn list_table(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let text = lab.call(&["list"]).go()?.ok("list")?.stdout;
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    same!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], "header");
    let (pid, bundle) = (lab.pid()?.to_string(), lab.bundle().to_string_lossy().into_owned());
    same!(rows[1][..4], [lab.id.as_str(), pid.as_str(), "created", bundle.as_str()], "row");
    same!(rows[1].last(), Some(&"root"), "owner");
    Ok(())
}

fn list_skips_a_broken_directory(lab: &mut Lab) -> Outcome {
    lab.args(&["sleep", "100"]).create()?;
    let broken = lab.dir.join("root/broken");
    fs::create_dir(&broken)?;
    let out = lab.call(&["list", "-q"]).go();
    fs::remove_dir(broken)?;
    let out = out?.ok("list")?;
    ensure!(out.stdout.lines().any(|line| line == lab.id), "the whole container is not listed: {}", out.stdout);
    Ok(())
}

fn list_format_unknown_is_refused(lab: &mut Lab) -> Outcome {
    lab.call(&["list", "--format", "xml"]).go()?.exits(1, "list").map(|_| ())
}

fn ps_json(lab: &mut Lab) -> Outcome {
    lab.up("sleep 100 & sleep 101 & wait")?;
    wait_until("ps does not show three processes", || {
        let pids: Vec<i64> = serde_json::from_str(&lab.verb("ps", &["--format", "json"]).go()?.ok("ps")?.stdout)?;
        Ok(pids.len() == 3 && pids.contains(&lab.pid()?))
    })
}

fn ps_table(lab: &mut Lab) -> Outcome {
    lab.up("sleep 4567 & wait")?;
    let mut text = String::new();
    wait_until("ps does not show the process", || {
        text = lab.verb("ps", &[]).go()?.ok("ps")?.stdout;
        Ok(text.lines().count() == 3)
    })?;
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    same!(header.get(..3), Some(&["UID", "PID", "PPID"][..]), "header");
    ensure!(text.lines().any(|line| line.ends_with(" sleep 4567")), "no row for the sleep: {text}");
    Ok(())
}

fn ps_table_with_arguments(lab: &mut Lab) -> Outcome {
    lab.up("sleep 100")?;
    let text = lab.call(&["ps", &lab.id, "-o", "pid,ppid,comm", "-e"]).go()?.ok("ps")?.stdout;
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    same!(header, ["PID", "PPID", "COMMAND"], "header");
    Ok(())
}
