//! The ways out that need the right moment: a neighbour that shares the root file system exchanges two names of it without
//! pause, while containers are made. `--creates` says how many each race makes: a few among the other checks, thousands in
//! `make soak`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use super::safety::{link, run_with_a_terminal, terminal, unharmed, victim, without_dev};
use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "races",
        proc_exchanged_with_a_link "CVE-2019-19921",
        procfs_exchanged_with_a_false_one "CVE-2025-52881",
        mount_points_exchanged_with_a_link "CVE-2021-30465",
        mount_points_in_a_shared_tmpfs_exchanged_with_a_link "CVE-2021-30465",
        file_mount_point_exchanged_with_a_link "CVE-2024-45310",
        null_device_exchanged_with_a_link "CVE-2025-31133",
        console_exchanged_with_a_link "CVE-2025-52565",
        dev_exchanged_with_a_link "CVE-2026-41579",
        executables_of_processes_that_join_are_written "CVE-2019-5736",
    )
}

/// A thread that exchanges two names of one directory until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn between(one: PathBuf, other: PathBuf) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&swaps));
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        Self { stop, swaps, thread: Some(std::thread::spawn(work)) }
    }

    fn end(mut self) -> usize {
        self.join();
        self.swaps.load(Ordering::Relaxed)
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.join();
    }
}

/// Makes as many containers as the run asks for while two names in the root file system are exchanged; `see` looks at what
/// each has printed, whether it came to run or was refused.
fn race(lab: &mut Lab, names: [&str; 2], see: impl Fn(&Lab, &str) -> Outcome) -> Outcome {
    let [one, other] = names.map(|name| lab.rootfs().join(name));
    race_between(lab, one, other, see)
}

fn race_between(lab: &mut Lab, one: PathBuf, other: PathBuf, see: impl Fn(&Lab, &str) -> Outcome) -> Outcome {
    lab.write()?;
    let out = lab.verb("run", &[]).go()?.ok("run before the race")?;
    see(lab, &out.stdout)?;
    let swapper = Swapper::between(one, other);
    let mut ran = 0;
    for number in 1..=lab.host.creates {
        let out = lab.verb("run", &[]).go()?;
        ran += usize::from(out.code == 0);
        see(lab, &out.stdout)?;
        unharmed(lab)?;
        progress(lab, number, ran);
    }
    let swaps = swapper.end();
    ensure!(swaps >= lab.host.creates, "the names were exchanged {swaps} times only: the race says nothing");
    Ok(())
}

fn progress(lab: &Lab, number: usize, ran: usize) {
    if number % 500 == 0 {
        eprintln!("{}: {number} of {} containers, {ran} ran", lab.id, lab.host.creates);
    }
}

/// A shell that tells of each procfs below the root whose masks are missing.
const FIND_UNMASKED: &str = "for d in /proc /other /fake; do \
    if [ -e $d/self/status ] && [ $(wc -c 2>/dev/null <$d/version) != 0 ]; then echo unmasked $d; fi; done; true";

fn masked(_: &Lab, said: &str) -> Outcome {
    ensure!(!said.contains("unmasked"), "a procfs without its masks: {said}");
    Ok(())
}

/// A directory with what the runtime reads and writes in a procfs; to be asked afterwards whether somebody has.
fn false_procfs(lab: &Lab, name: &str) -> Outcome {
    for directory in ["self/attr", "thread-self/attr", "1", "sys/net/ipv4"] {
        fs::create_dir_all(lab.rootfs().join(name).join(directory))?;
    }
    for file in FALSE_FILES {
        fs::write(lab.rootfs().join(name).join(file), "false")?;
    }
    Ok(())
}

const FALSE_FILES: &[&str] =
    &["self/attr/exec", "thread-self/attr/exec", "sys/net/ipv4/ip_default_ttl", "self/oom_score_adj"];

fn false_procfs_is_untouched(lab: &Lab, name: &str) -> Outcome {
    for file in FALSE_FILES {
        // The names are being exchanged: whoever is there, the text is the same.
        let text = fs::read_to_string(lab.rootfs().join(name).join(file)).unwrap_or_else(|_| "false".into());
        same!(text, "false", "the file {file} of a false procfs");
    }
    Ok(())
}

fn sensitive(lab: &mut Lab) {
    lab.set("/linux/maskedPaths/-", "/proc/version").set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "61" }));
    lab.set("/process/oomScoreAdj", 100).sh(FIND_UNMASKED);
}

fn proc_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    victim(lab)?;
    false_procfs(lab, "fake")?;
    link(lab, "other", "/fake")?;
    sensitive(lab);
    race(lab, ["proc", "other"], |lab, said| masked(lab, said).and(false_procfs_is_untouched(lab, "fake")))
}

fn procfs_exchanged_with_a_false_one(lab: &mut Lab) -> Outcome {
    victim(lab)?;
    false_procfs(lab, "other")?;
    sensitive(lab);
    race(lab, ["proc", "other"], |lab, said| {
        masked(lab, said)?;
        false_procfs_is_untouched(lab, "other").and(false_procfs_is_untouched(lab, "proc"))
    })
}

fn mount_points_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    fs::create_dir_all(lab.rootfs().join("vol/a"))?;
    link(lab, "vol/b", &victim)?;
    lab.set("/root/readonly", false)
        .sh("for n in 0 1 2 3 4 5 6 7; do echo harmed >/vol/a/$n/ptmx; done 2>/dev/null; true");
    for number in 0..8 {
        lab.mount(&format!("/vol/a/{number}"), "tmpfs", "tmpfs", &["size=4k"]);
    }
    lab.set("/linux/devices/-", json!({ "path": "/vol/a/node", "type": "c", "major": 1, "minor": 3 }));
    race(lab, ["vol/a", "vol/b"], |_, _| Ok(()))
}

/// A volume that two containers share is a place of mount points of one of them, and the other one is the neighbour.
fn mount_points_in_a_shared_tmpfs_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    let shared = Shared::new(lab)?;
    fs::create_dir(shared.0.join("a"))?;
    symlink(&victim, shared.0.join("b"))?;
    lab.mount("/shared", "bind", &shared.0, &["bind"]);
    mounts_below(lab, "/shared/a")?;
    let [one, other] = ["a", "b"].map(|name| shared.0.join(name));
    race_between(lab, one, other, |_, _| Ok(()))
}

/// Four mounts below a path, a file, a device, and a program that writes to whatever is there.
pub(super) fn mounts_below(lab: &mut Lab, path: &str) -> Outcome {
    lab.set("/root/readonly", false);
    for number in 0..4 {
        lab.mount(&format!("{path}/{number}"), "tmpfs", "tmpfs", &["size=4k"]);
    }
    let source = lab.dir.join("source");
    fs::write(&source, "")?;
    lab.mount(&format!("{path}/file"), "bind", &source, &["bind"]);
    lab.set("/linux/devices/-", json!({ "path": format!("{path}/node"), "type": "c", "major": 1, "minor": 3 }));
    lab.sh(&format!("for n in 0 1 2 3; do echo harmed >{path}/$n/ptmx; done 2>/dev/null; true"));
    Ok(())
}

/// A tmpfs of the host that is a volume of containers.
pub(super) struct Shared(pub(super) PathBuf);

impl Shared {
    pub(super) fn new(lab: &Lab) -> Result<Self, Failure> {
        let shared = Self(lab.directory("shared")?);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&shared.0).status()?;
        ensure!(mounted.success(), "mount fails");
        Ok(shared)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn file_mount_point_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    fs::create_dir_all(lab.rootfs().join("vol"))?;
    fs::write(lab.rootfs().join("vol/a"), "")?;
    link(lab, "vol/b", victim.join("new"))?;
    let source = lab.dir.join("source");
    fs::write(&source, "")?;
    lab.mount("/vol/a", "bind", &source, &["bind"]).set("/root/readonly", false);
    race(lab.sh("echo harmed >/vol/a; true"), ["vol/a", "vol/b"], |_, _| Ok(()))
}

fn null_device_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    fs::write(lab.rootfs().join("secret"), "text")?;
    link(lab, "dev/other", victim.join("ptmx"))?;
    let made = Command::new("mknod").arg(lab.rootfs().join("dev/null")).args(["c", "1", "3"]).status()?;
    ensure!(made.success(), "mknod fails");
    lab.set("/linux/maskedPaths", json!(["/secret"])).set("/root/readonly", false);
    lab.set("/process/user", json!({ "uid": 1815, "gid": 1852 })).sh("cat /secret; echo harmed >/secret; true");
    race(lab, ["dev/null", "dev/other"], |lab, said| {
        ensure!(!said.contains("untouched") && !said.contains("text"), "the mask shows {said:?}");
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(lab.dir.join("victim/ptmx"))?);
        same!(owner, 0, "owner of the host's file");
        Ok(())
    })
}

fn console_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    fs::write(lab.rootfs().join("dev/console"), "")?;
    link(lab, "dev/other", victim.join("new"))?;
    terminal(lab).set("/root/readonly", false).sh("echo harmed >/dev/console; true").write()?;
    let before = run_with_a_terminal(lab)?;
    ensure!(before.status.success(), "run before the race: {}", String::from_utf8_lossy(&before.stdout));
    let swapper = Swapper::between(lab.rootfs().join("dev/console"), lab.rootfs().join("dev/other"));
    for number in 1..=lab.host.creates {
        run_with_a_terminal(lab)?;
        unharmed(lab)?;
        progress(lab, number, number);
    }
    ensure!(swapper.end() >= lab.host.creates, "the names were not exchanged: the race says nothing");
    Ok(())
}

fn dev_exchanged_with_a_link(lab: &mut Lab) -> Outcome {
    let victim = victim(lab)?;
    without_dev(lab);
    link(lab, "other", &victim)?;
    lab.set("/root/readonly", false).args(&["true"]);
    race(lab, ["dev", "other"], |_, _| Ok(()))
}

fn executables_of_processes_that_join_are_written(lab: &mut Lab) -> Outcome {
    lab.runtime = lab.host.target.clone();
    let before = fs::read(&lab.runtime)?;
    lab.script("bundle/rootfs/bin/self", "#!/proc/self/exe\n")?;
    lab.set("/process/noNewPrivileges", false);
    lab.up("while true; do for pid in /proc/[0-9]*; do \
        if [ $pid != /proc/1 ]; then (echo harmed >$pid/exe) 2>/dev/null; fi; done; done")?;
    for number in 1..=lab.host.creates / 4 {
        lab.exec(&[], &["/bin/self", "--version"])?;
        lab.exec(&[], &["true"])?.ok("exec")?;
        progress(lab, number, number);
    }
    ensure!(fs::read(&lab.runtime)? == before, "the runtime's binary has changed");
    Ok(())
}
