//! Reads the kernel's own account of a container's limits.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Whether this host has cgroup v2 alone: all controllers are in one hierarchy, and its files are other ones.
pub fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Whether the host has a controller, in whichever version.
pub fn has(controller: &str) -> bool {
    let listed = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"));
    let is_listed = |text: String| text.split_whitespace().any(|one| one == controller);
    listed.map_or_else(|_| Path::new(ROOT).join(controller).exists(), is_listed)
}

/// The directory of the v1 hierarchy `controller` in which the process is; with v2 alone, that of the one hierarchy.
///
/// # Panics
/// When the host does not have that hierarchy.
pub fn dir(pid: u32, controller: &str) -> PathBuf {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    if unified() {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_else(|| panic!("{file}: {text}"));
        return Path::new(ROOT).join(path);
    }
    let path = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .find(|(controllers, _)| controllers.split(',').any(|c| c == controller))
        .unwrap_or_else(|| panic!("this host has no cgroup v1 hierarchy for {controller}; {file}:\n{text}"))
        .1;
    Path::new(ROOT).join(controller).join(path.trim_start_matches('/'))
}

/// One file of that directory, without the newline at its end.
pub fn read(pid: u32, controller: &str, file: &str) -> String {
    let path = dir(pid, controller).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// Every directory below `parent` (a cgroup path such as `/orlop-test-1`), in every hierarchy, deepest first;
/// the parent itself comes after its children.
pub fn tree(parent: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // v2 alone has no directory per controller: then the root is the hierarchy.
    let unified = Path::new(ROOT).to_owned();
    for hierarchy in children(Path::new(ROOT)).into_iter().chain([unified]) {
        let top = hierarchy.join(parent.trim_start_matches('/'));
        if top.is_dir() {
            walk(&top, &mut found);
        }
    }
    found
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for child in children(dir) {
        walk(&child, found);
    }
    found.push(dir.to_owned());
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Makes a cgroup (a path such as `/orlop-test-1`) in every hierarchy, and gives its directories. In it a process may run.
///
/// # Panics
/// When one cannot be made.
pub fn make(cgroup: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let fields = hierarchies.lines().filter_map(|line| line.split_once(" - ").zip(line.split(' ').nth(4)));
    let cgroups = fields.filter(|((_, kind), at)| kind.starts_with("cgroup") && at.starts_with(ROOT));
    let made = cgroups.map(|(_, at)| {
        let mut dir = PathBuf::from(at);
        for part in cgroup.trim_start_matches('/').split('/') {
            let above = dir.clone();
            dir.push(part);
            fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            // v1's cpuset takes nobody without processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|_| at.ends_with("/cpuset")) {
                let all = fs::read(above.join(file)).expect("a cpuset");
                fs::write(dir.join(file), all).expect("a cpuset");
            }
        }
        dir
    });
    made.collect()
}

/// The processes in one cgroup directory.
pub fn procs(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A file in the v2 cgroup of the process, without the newline at its end.
///
/// # Panics
/// When the process is in none, or the file is not there.
pub fn read_unified(pid: u32, file: &str) -> String {
    let path = v2_dir(pid).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn v2_dir(pid: u32) -> PathBuf {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_else(|| panic!("no v2 cgroup: {text}"));
    let hybrid = Path::new(ROOT).join("unified");
    let root = if hybrid.is_dir() { hybrid } else { ROOT.into() };
    root.join(path.trim_start_matches('/'))
}

/// The limit for huge pages of a size, in v1 or in v2, whichever has the controller.
pub fn huge_pages(pid: u32, size: &str) -> Option<String> {
    let v1 = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(":hugetlb:"));
    if v1 {
        return Some(read(pid, "hugetlb", &format!("hugetlb.{size}.limit_in_bytes")));
    }
    let text = fs::read_to_string(v2_dir(pid).join(format!("hugetlb.{size}.max"))).ok()?;
    Some(text.trim().to_owned())
}
