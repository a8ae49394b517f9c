//! User namespaces of which only the maps are wanted, and the mounts that they are for (mount_setattr(2), MOUNT_ATTR_IDMAP).

use crate::error::{Error, Kind, On, Result, invalid};
use crate::newidmap;
use crate::plan::{IdMap, Idmap, c_string};
use orlop_sys::process as sys;
use orlop_sys::{Errno, fds, file, mount};
use procfs::process::Process;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A user namespace with these maps. It is made with a process of its own, which ends before this returns: the fd alone keeps it.
pub fn with_maps(maps: &IdMap, proc: BorrowedFd) -> Result<OwnedFd> {
    let (reader, writer) = file::pipe().on("pipe", "")?;
    let child = sys::clone3(sys::CLONE_NEWUSER as u64, None, || {
        // Its end comes with the other end of the pipe, which the kernel closes when we are killed.
        fds::close_copy(writer.as_fd());
        u8::from(file::read(reader.as_fd(), &mut [0; 1]).is_err())
    });
    let child = child.on("clone3 with", "a user namespace for idmapped mounts").map_err(limit)?;
    let made = write_maps(maps, child.pid, proc).and_then(|()| {
        let path = format!("{}/ns/user", child.pid);
        file::openat(proc, &c_string(path.as_str(), "")?, file::O_RDONLY, 0).on("open", format!("\"/proc/{path}\""))
    });
    drop(writer);
    sys::wait(child.pidfd.as_fd(), true).on("waitid", "the process of a user namespace")?;
    made
}

/// The same from the form that containerd has for a mount: `CONTAINER:HOST:SIZE`, several with commas between them.
pub fn of_ranges(uids: &str, gids: &str) -> Result<OwnedFd> {
    let maps = IdMap { uid: lines(uids, "uidmap")?, gid: lines(gids, "gidmap")?, deny_setgroups: false };
    let proc = file::open(c"/proc", file::O_PATH | file::O_DIRECTORY, 0).on("open", "\"/proc\"")?;
    with_maps(&maps, proc.as_fd())
}

fn lines(ranges: &str, field: &str) -> Result<String> {
    let mut text = String::new();
    for range in ranges.split(',') {
        let numbers: Vec<u32> = range.split(':').map_while(|n| n.parse().ok()).collect();
        let [inside, outside, size @ 1..=u32::MAX] = numbers[..] else {
            return Err(invalid(field, format!("{range:?} is not CONTAINER:HOST:SIZE")));
        };
        text += &format!("{inside} {outside} {size}\n");
    }
    Ok(text)
}

fn limit(e: Error) -> Error {
    match e.errno() {
        Some(Errno::ENOSPC | Errno::EUSERS) => e.hint("a limit in /proc/sys/user/max_user_namespaces is reached"),
        _ => e,
    }
}

fn write_maps(maps: &IdMap, pid: i32, proc: BorrowedFd) -> Result<()> {
    for (name, text) in [("uid_map", &maps.uid), ("gid_map", &maps.gid)] {
        if text.is_empty() {
            continue;
        }
        newidmap::write(proc, pid, name, text.as_bytes())
            .map_err(|e| e.hint("ranges must not overlap, and at most 340 are taken"))?;
    }
    Ok(())
}

/// Shows the ids of a detached tree as the user namespace maps them. `source` is its name for the error, `pid` a process whose
/// mounts tell the type of its file system.
pub fn idmap(tree: BorrowedFd, idmap: &Idmap, opens: &[OwnedFd], source: &str, pid: i32) -> Result<()> {
    let userns = opens.get(idmap.userns).map(AsFd::as_fd);
    let userns = userns.ok_or_else(|| Error::new(Kind::Init, "no user namespace is planned for an idmapped mount"))?;
    let done = mount::idmap(tree, userns, idmap.whole);
    let Err(errno) = done else { return Ok(()) };
    let fs = file_system(tree, pid);
    let e = errno.on("idmap with mount_setattr", format!("{source} ({fs})"));
    Err(match errno {
        Errno::EINVAL if idmap.whole => e.hint(format!(
            "{fs}, or a file system mounted below the source, may not support idmapped mounts on this kernel"
        )),
        Errno::EINVAL => e.hint(format!("{fs} does not support idmapped mounts on this kernel")),
        Errno::EPERM => {
            e.hint("the source may be idmapped already, or its file system belongs to another user namespace")
        }
        Errno::ENOSYS => e.hint("orlop needs Linux 5.12 or newer"),
        _ => e,
    })
}

/// The type of the file system that a tree shows; only errors ask for it.
fn file_system(tree: BorrowedFd, pid: i32) -> String {
    let magic = || file::fs_type(tree).map_or_else(|_| "a file system".into(), |m| format!("file system {m:#x}"));
    let Ok(stat) = file::fstat(tree) else { return magic() };
    let mounts = Process::new(pid).and_then(|p| p.mountinfo());
    let device = format!("{}:{}", file::major(stat.dev), file::minor(stat.dev));
    mounts.ok().and_then(|list| list.into_iter().find(|m| m.majmin == device)).map_or_else(magic, |m| m.fs_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_lines_of_a_map() {
        assert_eq!(lines("0:1000:1,1:200000:65535", "uidmap").unwrap(), "0 1000 1\n1 200000 65535\n");
        for wrong in ["", "0:1", "0:1:0", "0:1:2:3", "0:a:1", "0:1:2,", "-1:0:1"] {
            let e = lines(wrong, "gidmap").unwrap_err().to_string();
            assert!(e.contains("gidmap"), "{wrong:?}: {e}");
        }
    }
}
