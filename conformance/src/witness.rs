//! What no container may change, looked at before and after a check: the host's mounts, sysctls, devices, accounts, the
//! names in its root, and the runtime's own file. Everything is read, nothing written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::check::{Check, Failure, Outcome};
use crate::runtime::{Lab, lab_prefix, wait_until};

const SYSCTLS: &[&str] = &["core_pattern", "modprobe", "sysrq", "hostname", "domainname", "cap_last_cap", "panic"];
const FILES: &[&str] = &["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/ld.so.preload"];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "kmsg"];

/// What was seen, by name.
struct Witness(BTreeMap<String, String>);

impl Witness {
    fn of(lab: &Lab) -> Result<Self, Failure> {
        let mut seen = BTreeMap::new();
        for name in SYSCTLS {
            let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
            seen.insert(format!("kernel.{name}"), text);
        }
        for path in FILES {
            seen.insert(
                (*path).to_owned(),
                format!("{} {:?}", owner(Path::new(path)), fs::read(path).ok().map(|b| sum(&b))),
            );
        }
        for name in DEVICES {
            seen.insert(format!("/dev/{name}"), owner(&Path::new("/dev").join(name)));
        }
        // Whoever writes to it changes its ctime.
        let runtime = fs::metadata(&lab.host.runtime)?;
        let state = (runtime.size(), runtime.ctime(), runtime.ctime_nsec(), owner(&lab.host.runtime));
        seen.insert("the runtime's file".into(), format!("{state:?}"));
        let mut names: Vec<_> = fs::read_dir("/")?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        seen.insert("the names in /".into(), format!("{names:?}"));
        Ok(Self(seen))
    }

    fn unchanged(&self, now: &Self) -> Outcome {
        for (name, before) in &self.0 {
            same!(now.0.get(name), Some(before), "the host's {name}, of which a container is no part");
        }
        Ok(())
    }
}

fn owner(path: &Path) -> String {
    let Ok(meta) = fs::symlink_metadata(path) else { return "absent".into() };
    format!("{:o} {}:{} {:x}", meta.mode(), meta.uid(), meta.gid(), meta.rdev())
}

/// FNV-1a: what is compared is small, and nobody searches for a collision.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The mount points of which no other check is the owner, with what is mounted there.
pub fn mounts(scratch: &Path) -> Result<BTreeSet<String>, Failure> {
    let ours = [scratch.to_string_lossy().into_owned(), lab_prefix()];
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter(|line| !ours.iter().any(|name| line.contains(name))).map(str::to_owned).collect())
}

/// Some runtimes mount something of their own for a moment, so the mounts are asked for until they are as they were.
fn mounts_are_as_before(lab: &Lab) -> Outcome {
    let scratch = lab.dir.parent().unwrap_or(&lab.dir);
    let mut changed = Vec::new();
    let settled = wait_until("changed", || {
        let now = mounts(scratch)?;
        changed = now.symmetric_difference(&lab.host.mounts).cloned().collect();
        Ok(changed.is_empty())
    });
    ensure!(settled.is_ok(), "the host's mounts are not as before: {changed:?}");
    Ok(())
}

/// Puts a witness before and after each of the checks.
pub fn watched(mut checks: Vec<Check>) -> Vec<Check> {
    for check in &mut checks {
        let run = std::mem::replace(&mut check.run, Box::new(|_| Ok(())));
        check.run = Box::new(move |lab| {
            let before = Witness::of(lab)?;
            let outcome = run(lab);
            let seen = Witness::of(lab).and_then(|now| before.unchanged(&now)).and_then(|()| mounts_are_as_before(lab));
            match (outcome, seen) {
                (Err(own), Err(seen)) => Err(Failure(format!("{}; {}", own.0, seen.0))),
                (outcome, seen) => outcome.and(seen),
            }
        });
    }
    checks
}
