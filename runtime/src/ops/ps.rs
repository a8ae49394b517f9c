//! `ps`: the processes of a container, as JSON or as the lines of the host's ps(1).

use super::Global;
use crate::error::{Error, Kind, On, Result};
use crate::state::Container;
use std::path::Path;
use std::process::Command;

/// The answer of `ps`, ready to print: for "json" an array of pids on the host, for "table" what `ps ARGS` (by default
/// `ps -ef`) says about them.
pub fn ps(global: &Global, id: &str, format: &str, args: &[String]) -> Result<String> {
    let pids = processes(&Container::load(&global.root, id)?)?;
    render(&pids, format, args)
}

/// Without a cgroup they are those of the container's pid namespace.
fn processes(container: &Container) -> Result<Vec<i32>> {
    if !container.saved.cgroup_paths.is_empty() {
        return container.cgroup().procs();
    }
    if !container.saved.private_pid {
        return Err(Error::new(
            Kind::State,
            "the container has no cgroup and no pid namespace by which its processes could be found",
        )
        .hint("delegate a cgroup to its user"));
    }
    // Those that are not ours to look at are none of ours.
    let namespace = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
    let Some(own) = namespace(&container.saved.init_process_pid.to_string()) else { return Ok(Vec::new()) };
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").on("list", "/proc")?.flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && namespace(&name.to_string_lossy()).is_some_and(|theirs| theirs == own)
        {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Pids as text.
pub fn render(pids: &[i32], format: &str, args: &[String]) -> Result<String> {
    match format {
        "json" => Ok(json(pids)),
        "table" => filter(&host_ps(args)?, pids),
        _ => Err(Error::new(Kind::Invalid, "invalid format option").at("--format").hint("table or json")),
    }
}

/// runc says `null` when no process is left.
fn json(pids: &[i32]) -> String {
    if pids.is_empty() {
        return "null\n".to_string();
    }
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    format!("[{}]\n", pids.join(","))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the options are those of the host's ps, so only that can understand them"
)]
fn host_ps(args: &[String]) -> Result<String> {
    let mut command = Command::new("ps");
    match args {
        [] => command.arg("-ef"),
        _ => command.args(args),
    };
    let output = command.output().on("run", "ps")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(Kind::System, format!("ps: {}: {}", output.status, said.trim_end())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The header, and the lines whose PID column is one of `pids`.
fn filter(output: &str, pids: &[i32]) -> Result<String> {
    let mut lines = output.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::new(Kind::Invalid, "couldn't find PID field in ps output"))?;
    let ours = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok([header].into_iter().chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sh 1\nroot  121    12 sleep 12\n";

    #[test]
    fn lines_are_chosen_by_the_pid_column_alone() {
        assert_eq!(filter(OUTPUT, &[12]).unwrap(), "UID   PID  PPID CMD\nroot   12     1 sh 1\n");
        assert_eq!(filter(OUTPUT, &[]).unwrap(), "UID   PID  PPID CMD\n");
        assert!(filter("UID CMD\n", &[1]).is_err());
    }

    #[test]
    fn the_hosts_ps_is_asked() {
        let me = std::process::id() as i32;
        let said = render(&[me], "table", &[]).unwrap();
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.lines().nth(1).unwrap().split_ascii_whitespace().any(|field| field == me.to_string()));
        assert!(render(&[me], "table", &["--no-such-option".into()]).is_err());
    }

    #[test]
    fn json_is_an_array_of_pids() {
        assert_eq!(render(&[3, 14], "json", &[]).unwrap(), "[3,14]\n");
        assert_eq!(render(&[], "json", &[]).unwrap(), "null\n");
        assert!(render(&[], "xml", &[]).is_err());
    }
}
