//! A cgroup name of this test alone, and children that are ended with it.
#![allow(dead_code, reason = "every test file uses another part of it")]

use oci_spec::runtime::LinuxResources;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A path for `linux.cgroupsPath` that nobody else uses; the cgroups at it are removed on drop.
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    children: Vec<Child>,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("/orlop-cgtest-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Scratch { path: name.into(), children: Vec::new() }
    }

    /// The name of a cgroup inside this one.
    pub(crate) fn child(&self) -> Scratch {
        Scratch { path: self.path.join("child"), children: Vec::new() }
    }

    /// A process that waits until it is killed; its pid.
    pub(crate) fn sleeper(&mut self) -> i32 {
        self.spawn(Command::new("sleep").arg("300"))
    }

    pub(crate) fn spawn(&mut self, command: &mut Command) -> i32 {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        self.children.push(child);
        pid
    }

    /// Waits for a child and says how it ended.
    pub(crate) fn wait(&mut self, pid: i32) -> std::process::ExitStatus {
        self.children.iter_mut().find(|c| c.id() as i32 == pid).unwrap().wait().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        if let Ok(cgroup) = orlop::cgroup::Host::default().files(Some(&self.path), "unused") {
            let _ = cgroup.freeze(false);
            for child in &mut self.children {
                let _ = child.wait();
            }
            let _ = cgroup.remove();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

pub(crate) fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// Whether this host has v2 alone.
pub(crate) fn v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether this host has a v2 tree beside v1's.
pub(crate) fn hybrid() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists()
}
