//! `linux.intelRdt`: the share of caches and memory bandwidth that a container gets, through a mounted resctrl file system
//! (config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst).
//!
//! A directory is a class of service, its `schemata` says what the class gets, its `tasks` who is in it. The mount point is an
//! argument everywhere: only [`mounted`] looks for it.

pub mod stats;

use crate::error::{Error, Kind, On, Result, invalid};
use oci_spec::runtime::LinuxIntelRdt;
use orlop_sys::file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the kernel itself has in the directory of a class: no class can have such a name.
const TAKEN: &[&str] = &["info", "mon_data", "mon_groups"];

/// The class of service of a container, and its monitoring group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The directory of the class.
    path: PathBuf,
    /// The directory of the monitoring group, made for this container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
    /// The class was made for this container alone, and goes with it.
    own: bool,
}

/// What was made for a container that is not there yet: removed on drop.
#[derive(Debug)]
pub struct Made {
    group: Group,
    class: bool,
    armed: bool,
}

/// Whether the values make sense, whatever the hardware has.
pub fn check(rdt: &LinuxIntelRdt) -> Result<()> {
    let field = |name: &str| format!("linux.intelRdt.{name}");
    if let Some(class) = rdt.clos_id().as_deref().filter(|class| !class.is_empty() && *class != "/") {
        if matches!(class, "." | "..") || class.contains(['/', '\0', '\n']) || TAKEN.contains(&class) {
            return Err(invalid(field("closID"), format!("{class:?} is not the name of a class of service")));
        }
    }
    for (name, line) in lines(rdt) {
        if line.contains('\n') {
            return Err(invalid(field(&name), "must not contain newlines"));
        }
        if name == "memBwSchema" && !line.starts_with("MB:") {
            return Err(invalid(field(&name), format!("{line:?} does not start with \"MB:\"")));
        }
    }
    Ok(())
}

/// The lines for `schemata` and the fields that they are of, in the order in which they must be written.
fn lines(rdt: &LinuxIntelRdt) -> Vec<(String, &str)> {
    let one = |name: &str, line: &'_ Option<String>| line.as_ref().map(|_| name.to_string());
    let mut all = Vec::new();
    for (name, line) in [("l3CacheSchema", rdt.l3_cache_schema()), ("memBwSchema", rdt.mem_bw_schema())] {
        all.extend(one(name, line).zip(line.as_deref()));
    }
    let list = rdt.schemata().iter().flatten().enumerate();
    all.extend(list.map(|(i, line)| (format!("schemata[{i}]"), line.as_str())));
    all.retain(|(_, line)| !line.is_empty());
    all
}

/// Where resctrl is mounted in our mount namespace.
pub fn mounted() -> Result<PathBuf> {
    let text = std::fs::read("/proc/self/mountinfo").on("read", "\"/proc/self/mountinfo\"")?;
    mount_point(&text).ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted",
        )
        .hint("mount -t resctrl resctrl /sys/fs/resctrl, where the processor and the kernel have it")
    })
}

/// The first mount of resctrl (proc(5), /proc/PID/mountinfo).
fn mount_point(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|b| *b == b'\n').find_map(|line| {
        let mut words = line.split(|b| *b == b' ');
        let point = words.nth(4)?;
        let kind = words.skip_while(|word| *word != b"-").nth(1)?;
        (kind == b"resctrl").then(|| PathBuf::from(OsString::from_vec(unescaped(point))))
    })
}

/// A path without the octal escapes that mountinfo has for space, tab, newline and backslash.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut rest = text;
    let mut out = Vec::with_capacity(text.len());
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match (first, digits.and_then(|d| u8::from_str_radix(d, 8).ok())) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

/// Finds or makes the container's class below the mount point, limits it, and makes its monitoring group. Nobody is inside yet.
pub fn create(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Made> {
    let named = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
    let path = match named {
        Some("/") => root.to_path_buf(),
        Some(class) => root.join(class),
        None if TAKEN.contains(&id) => {
            return Err(invalid("linux.intelRdt", format!("{id:?} cannot be a class of service")));
        }
        None => root.join(id),
    };
    let lines = lines(rdt);
    let group = Group { root: root.to_path_buf(), path, monitor: None, own: false };
    let mut made = Made { group, class: false, armed: true };
    let class = &made.group.path;
    if named.is_some() && lines.is_empty() {
        if !class.is_dir() {
            return Err(invalid("linux.intelRdt.closID", format!("{class:?} does not exist"))
                .hint("make the class of service first, or set schemata"));
        }
    } else {
        made.class = made.group.mkdir(class).map_err(|e| e.at("linux.intelRdt.closID"))?;
        made.group.own = made.class && named.is_none();
    }
    if named.is_some() && !made.class {
        made.group.compare(&lines)?;
    }
    for (name, line) in lines {
        made.group.write("schemata", &format!("{line}\n")).map_err(|e| e.at(format!("linux.intelRdt.{name}")))?;
    }
    if rdt.enable_monitoring().unwrap_or(false) {
        made.group.monitor(id).map_err(|e| e.at("linux.intelRdt.enableMonitoring"))?;
    }
    Ok(made)
}

impl Made {
    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// It stays: it is in the container's state.
    pub fn commit(mut self) {
        self.armed = false;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.armed {
            // The first error is what the user must hear.
            let _ = Group { own: self.class, ..self.group.clone() }.remove();
        }
    }
}

impl Group {
    /// Puts a process in.
    pub fn enter(&self, pid: i32) -> Result<()> {
        self.write("tasks", &pid.to_string()).map_err(|e| e.at("linux.intelRdt"))?;
        let Some(monitor) = &self.monitor else { return Ok(()) };
        self.write_to(&monitor.join("tasks"), &pid.to_string()).map_err(|e| e.at("linux.intelRdt.enableMonitoring"))
    }

    /// Changes what the class gets; what the line does not name stays.
    pub fn set(&self, line: &str) -> Result<()> {
        self.write("schemata", &format!("{line}\n"))
    }

    /// What the class gets now, as [`Group::set`] takes it.
    pub fn schemata(&self) -> Result<String> {
        let path = self.path.join("schemata");
        std::fs::read_to_string(&path).on("read", format!("{path:?}"))
    }

    /// Removes what was made for the container: the kernel moves what is left inside to the parent.
    pub fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.path);
        for path in self.monitor.iter().chain(own) {
            match std::fs::remove_dir(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => other.on("rmdir", format!("{path:?}")).map_err(|e| e.at("linux.intelRdt"))?,
            }
        }
        Ok(())
    }

    /// True: it was not there before.
    fn mkdir(&self, path: &Path) -> Result<bool> {
        match std::fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => self.explained(Err(e).on("mkdir", format!("{path:?}"))),
        }
    }

    fn monitor(&mut self, id: &str) -> Result<()> {
        let path = self.path.join("mon_groups").join(id);
        if !self.mkdir(&path)? {
            return Err(Error::new(Kind::Exists, format!("{path:?} exists, and would not be this container's alone")));
        }
        self.monitor = Some(path);
        Ok(())
    }

    /// A class that is there already may be another's: it must be what the container wants, and is not changed to it.
    fn compare(&self, lines: &[(String, &str)]) -> Result<()> {
        let is = parsed(&self.schemata()?);
        let step = std::fs::read_to_string(self.root.join("info/MB/bandwidth_gran"));
        let step = step.ok().and_then(|text| text.trim().parse().ok()).filter(|step| *step > 0).unwrap_or(1_u64);
        for (name, line) in lines.iter().filter(|(name, _)| !name.starts_with("schemata")) {
            for ((resource, domain), wanted) in parsed(line) {
                let wanted = if resource == "MB" { wanted.map(|value| value.div_ceil(step) * step) } else { wanted };
                if is.get(&(resource.clone(), domain.clone())) != Some(&wanted) {
                    let why = format!("{line:?} is not what the class of service {:?} has", self.path);
                    return Err(invalid(format!("linux.intelRdt.{name}"), why)
                        .hint("another closID, or none, makes a new class of service"));
                }
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, value: &str) -> Result<()> {
        self.write_to(&self.path.join(name), value)
    }

    fn write_to(&self, path: &Path, value: &str) -> Result<()> {
        let name =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| invalid("linux.intelRdt", "contains a NUL byte"))?;
        let opened = file::open(&name, file::O_WRONLY, 0).on("open", format!("{path:?}"))?;
        let written = file::write(opened.as_fd(), value.as_bytes()).map(drop);
        self.explained(written.on(format!("write {:?} to", value.trim_end()), format!("{path:?}")))
    }

    /// The kernel says in a file what was wrong with the last command.
    fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| match std::fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if !matches!(status.trim(), "" | "ok") => e.hint(format!("last_cmd_status: {}", status.trim())),
            _ => e,
        })
    }
}

/// Values of schemata by resource and domain: bit masks in hexadecimal, memory bandwidth in decimal digits; `None`: no number.
fn parsed(text: &str) -> BTreeMap<(String, String), Option<u64>> {
    let mut all = BTreeMap::new();
    for (resource, domains) in text.lines().filter_map(|line| line.split_once(':')) {
        let resource = resource.trim();
        let radix = if resource.ends_with("MB") { 10 } else { 16 };
        for (domain, value) in domains.split(';').filter_map(|one| one.split_once('=')) {
            let value = u64::from_str_radix(value.trim(), radix).ok();
            all.insert((resource.to_string(), domain.trim().to_string()), value);
        }
    }
    all
}

/// See `fuzzing`.
#[cfg(fuzzing)]
pub fn fuzz_mountinfo(data: &[u8]) {
    let _ = mount_point(data);
    assert!(unescaped(data).len() <= data.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    fn rdt(value: Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    /// What a mounted resctrl has for each class; unlike the kernel it makes no files in a new directory.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("info/MB")).unwrap();
        fs::write(root.path().join("info/MB/bandwidth_gran"), "10\n").unwrap();
        fs::write(root.path().join("info/last_cmd_status"), "mask f0f has non-consecutive 1-bits\n").unwrap();
        class(root.path());
        root
    }

    fn class(path: &Path) {
        fs::create_dir_all(path.join("mon_groups")).unwrap();
        fs::write(path.join("tasks"), "").unwrap();
        fs::write(path.join("schemata"), "    MB:0= 30;1=100\n    L3:0=00f;1=7ff\n").unwrap();
    }

    #[test]
    fn the_mount_is_found_whatever_stands_before_it() {
        let line = |options: &str, kind: &str| {
            format!("36 35 98:0 / /mnt\\040point rw,noatime {options}- {kind} resctrl rw\n")
        };
        assert_eq!(mount_point(line("master:1 shared:2 ", "resctrl").as_bytes()), Some("/mnt point".into()));
        assert_eq!(mount_point((line("", "ext4") + &line("", "resctrl")).as_bytes()), Some("/mnt point".into()));
        for none in ["", "\n", "1 2 3", "36 35 98:0 / /resctrl rw - ext4 resctrl rw"] {
            assert_eq!(mount_point(none.as_bytes()), None, "{none:?}");
        }
    }

    #[test]
    fn lines_are_written_in_the_order_of_the_specification() {
        let all = rdt(json!({"schemata": ["L2:0=f", "MB:0=10"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f"}));
        let names: Vec<_> = lines(&all).into_iter().map(|(name, line)| format!("{name} {line}")).collect();
        assert_eq!(names, ["l3CacheSchema L3:0=f", "memBwSchema MB:0=20", "schemata[0] L2:0=f", "schemata[1] MB:0=10"]);
        assert!(lines(&rdt(json!({"l3CacheSchema": "", "schemata": []}))).is_empty());
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (value, field) in [
            (json!({"closID": "a/b"}), "closID"),
            (json!({"closID": ".."}), "closID"),
            (json!({"closID": "info"}), "closID"),
            (json!({"l3CacheSchema": "L3:0=f\nMB:0=10"}), "l3CacheSchema"),
            (json!({"memBwSchema": "0=10"}), "memBwSchema"),
            (json!({"schemata": ["L3:0=f", "L3:0=f\n"]}), "schemata[1]"),
        ] {
            let e = check(&rdt(value.clone())).unwrap_err();
            assert_eq!(e.field(), Some(format!("linux.intelRdt.{field}").as_str()), "{value}");
        }
        for good in [json!({}), json!({"closID": "/"}), json!({"closID": "a b", "memBwSchema": "MB:0=10"})] {
            check(&rdt(good)).unwrap();
        }
    }

    #[test]
    fn a_class_without_schemata_must_be_there_and_stays() {
        let root = tree();
        let e = create(root.path(), &rdt(json!({"closID": "gold"})), "id").unwrap_err();
        assert_eq!(e.field(), Some("linux.intelRdt.closID"), "{e}");
        let gold = root.path().join("gold");
        class(&gold);
        let before = fs::read_to_string(gold.join("schemata")).unwrap();
        let made = create(root.path(), &rdt(json!({"closID": "gold"})), "id").unwrap();
        made.group().enter(42).unwrap();
        assert_eq!(fs::read_to_string(gold.join("tasks")).unwrap(), "42");
        assert_eq!(fs::read_to_string(gold.join("schemata")).unwrap(), before);
        made.group().remove().unwrap();
        drop(made);
        assert!(gold.exists() && !root.path().join("id").exists());
    }

    #[test]
    fn the_default_class_can_be_named_and_watched() {
        let root = tree();
        let both = rdt(json!({"closID": "/", "enableMonitoring": true}));
        let made = create(root.path(), &both, "id").unwrap();
        let monitor = root.path().join("mon_groups/id");
        assert!(monitor.is_dir());
        let e = create(root.path(), &both, "id").unwrap_err();
        assert_eq!(e.field(), Some("linux.intelRdt.enableMonitoring"), "{e}");
        assert!(monitor.is_dir(), "what was there before stays");
        // The kernel's files of a new group.
        fs::write(monitor.join("tasks"), "").unwrap();
        made.group().enter(7).unwrap();
        assert_eq!(fs::read_to_string(monitor.join("tasks")).unwrap(), "7");
        fs::remove_file(monitor.join("tasks")).unwrap();
        made.group().remove().unwrap();
        assert!(!monitor.exists() && root.path().join("tasks").exists());
    }

    #[test]
    fn a_class_that_is_there_must_have_what_is_wanted() {
        let root = tree();
        class(&root.path().join("gold"));
        let with = |l3: &str, mb: &str| rdt(json!({"closID": "gold", "l3CacheSchema": l3, "memBwSchema": mb}));
        // The kernel pads masks, and rounds bandwidth up to its step.
        for (l3, mb) in [("L3:0=f;1=7FF", "MB:0=30"), ("L3:1=07ff", "MB:1=100;0=30"), ("", "MB:0=21")] {
            let given = with(l3, mb);
            drop(create(root.path(), &given, "id").unwrap());
            class(&root.path().join("gold"));
        }
        for (l3, mb, field) in [
            ("L3:0=1f", "MB:0=30", "l3CacheSchema"),
            ("L3:2=f", "MB:0=30", "l3CacheSchema"),
            ("L3:0=f", "MB:0=40", "memBwSchema"),
        ] {
            let e = create(root.path(), &with(l3, mb), "id").unwrap_err();
            assert_eq!(e.field(), Some(format!("linux.intelRdt.{field}").as_str()), "{e}");
        }
        let written = || fs::read_to_string(root.path().join("gold/schemata")).unwrap();
        let before = written();
        assert!(before.starts_with("    MB:0= 30"), "a refused container has changed it: {before}");
        drop(create(root.path(), &rdt(json!({"closID": "gold", "schemata": ["L3:0=1"]})), "id").unwrap());
        assert!(written().starts_with("L3:0=1\n"), "{}", written());
    }

    #[test]
    fn what_could_not_be_limited_leaves_nothing() {
        let root = tree();
        for value in [json!({"schemata": ["L3:0=f0f"]}), json!({"closID": "new", "schemata": ["L3:0=f0f"]})] {
            let e = create(root.path(), &rdt(value), "id").unwrap_err();
            assert_eq!(e.field(), Some("linux.intelRdt.schemata[0]"), "{e}");
            assert!(!root.path().join("id").exists() && !root.path().join("new").exists());
        }
        let e = create(root.path(), &rdt(json!({})), "info").unwrap_err();
        assert_eq!(e.field(), Some("linux.intelRdt"), "{e}");
    }

    #[test]
    fn the_kernel_says_what_was_wrong() {
        let root = tree();
        let group = Group { root: root.path().into(), path: "/dev".into(), monitor: None, own: false };
        // ENOSPC for every write.
        let e = group.write("full", "L3:0=f0f\n").unwrap_err().to_string();
        assert!(e.ends_with("hint: last_cmd_status: mask f0f has non-consecutive 1-bits"), "{e}");
    }
}
