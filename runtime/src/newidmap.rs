//! The id maps of a container: written by us where the kernel lets us, else by newuidmap(1) and newgidmap(1), which may give out what
//! /etc/subuid and /etc/subgid say is the caller's.

use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::{IdMap, Range, c_string};
use crate::program;
use orlop_sys::{Errno, file, process};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// One of the two maps, and all that goes by another name for it.
struct Kinds {
    field: &'static str,
    file: &'static str,
    tool: &'static str,
    table: &'static str,
}

const UIDS: Kinds = Kinds { field: "linux.uidMappings", file: "uid_map", tool: "newuidmap", table: "/etc/subuid" };
const GIDS: Kinds = Kinds { field: "linux.gidMappings", file: "gid_map", tool: "newgidmap", table: "/etc/subgid" };

/// Writes the maps of the process, which waits for them.
pub fn maps(proc: BorrowedFd, pid: i32, maps: &IdMap) -> Result<()> {
    if maps.deny_setgroups {
        write(proc, pid, "setgroups", b"deny").map_err(|e| e.at(GIDS.field))?;
    }
    map(proc, pid, &GIDS, &maps.gid, process::egid())?;
    map(proc, pid, &UIDS, &maps.uid, process::euid())
}

fn map(proc: BorrowedFd, pid: i32, kind: &Kinds, map: &str, own: u32) -> Result<()> {
    let e = match write(proc, pid, kind.file, map.as_bytes()) {
        Err(e) if e.errno() == Some(Errno::EPERM) => e,
        other => {
            return other.map_err(|e| {
                e.at(kind.field).hint("ids of the host must be yours to give, and at most 340 lines are taken")
            });
        }
    };
    if process::euid() == 0 {
        return Err(e.at(kind.field).hint("an id of the host is not mapped in the user namespace that orlop runs in"));
    }
    tool(pid, kind, map, own)
}

/// Writes a file of a process through the host's /proc.
pub fn write(proc: BorrowedFd, pid: i32, name: &str, text: &[u8]) -> Result<()> {
    let object = format!("\"/proc/{pid}/{name}\"");
    let path = c_string(format!("{pid}/{name}"), name)?;
    let file = file::openat(proc, &path, file::O_WRONLY, 0).on("open", &object)?;
    let said = || format!("write {:?} to", String::from_utf8_lossy(text).trim_end().replace('\n', ", "));
    file::write(file.as_fd(), text).map(drop).map_err(|errno| errno.on(said(), &object))
}

#[expect(clippy::disallowed_methods, reason = "only a program with file capabilities may write the map for us")]
fn tool(pid: i32, kind: &Kinds, map: &str, own: u32) -> Result<()> {
    let Some(program) = program::find(kind.tool) else {
        return Err(invalid(
            kind.field,
            format!("{} is not in $PATH, and only it may map more than the own id", kind.tool),
        )
        .hint(format!("install it (Debian: uidmap, Fedora: shadow-utils), or map {own} alone, with a size of 1")));
    };
    let mut command = Command::new(&program);
    command.arg(pid.to_string()).args(map.split_ascii_whitespace()).stdin(Stdio::null());
    let output = command.output().on("run", program.display()).map_err(|e| e.at(kind.field))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = format!("{} failed: {}", program.display(), said.trim());
    Err(match missing(kind, map, own) {
        Some((i, line)) => {
            invalid(format!("{}[{i}]", kind.field), why).hint(format!("{} lacks the line {line}", kind.table))
        }
        None => Error::new(Kind::System, why)
            .at(kind.field)
            .hint(format!("{} must have its file capabilities or be setuid root", kind.tool)),
    })
}

/// The first range that the table does not give to the caller, and the line that would.
fn missing(kind: &Kinds, map: &str, own: u32) -> Option<(usize, String)> {
    let table = std::fs::read_to_string(Path::new(kind.table)).unwrap_or_default();
    // Both tables go by the user, also that of the groups.
    let uid = process::euid();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = user_of(&passwd, uid).map_or_else(|| uid.to_string(), str::to_string);
    let granted = granted(&table, &user, uid);
    let range = Range::all(map).enumerate().find(|(_, r)| {
        let own = r.count == 1 && r.outside == own;
        let end = u64::from(r.outside) + u64::from(r.count);
        !own && !granted
            .iter()
            .any(|(first, count)| *first <= u64::from(r.outside) && end <= first.saturating_add(*count))
    });
    range.map(|(i, r)| (i, format!("\"{user}:{}:{}\"", r.outside, r.count)))
}

/// The name of a user in passwd(5).
fn user_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The ranges of subuid(5) or subgid(5) that belong to a user, by name or number: first, count.
fn granted(table: &str, user: &str, uid: u32) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        (owner == user || owner.parse() == Ok(uid)).then_some((first, count))
    };
    table.lines().filter_map(line).collect()
}

/// See `fuzzing`.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    let user = user_of(text, 0).unwrap_or("ada");
    let _ = granted(text, user, 1000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_user_by_name_or_number() {
        let table = "ada:100000:65536\n# bob:5:5\n1000:300000:10\nbob:7:x\n";
        assert_eq!(granted(table, "ada", 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(granted(table, "bob", 1001), []);
    }

    #[test]
    fn a_user_is_found_by_uid() {
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1815:1852::/home/ada:/bin/sh\nbroken:x\n";
        assert_eq!(user_of(passwd, 1815), Some("ada"));
        assert_eq!(user_of(passwd, 1852), None);
    }
}
