//! `mounts`: mounts added to a container that is there, or removed from it, as crun has it.
//!
//! What is added is planned and made by the same steps as at create, in a process that has joined the container's namespaces: the same
//! options, the same checks, every place resolved below the container's root and worked on by fd. All of a list is done, or none of it.

use super::Global;
use crate::cgroup::Entry;
use crate::config;
use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::{self, Input, Plan};
use crate::spawn::{self, Answers, Request};
use crate::state::{Container, Status};
use log::warn;
use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Spec};
use orlop_sys::process as sys;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Adds (`add`) or removes (`remove`) the mounts that a file lists: a JSON array as `mounts` of config.json is one.
pub fn mounts(global: &Global, action: &str, id: &str, file: &Path) -> Result<()> {
    let add = match action {
        "add" => true,
        "remove" => false,
        other => return Err(invalid("mounts", format!("{other:?} is not one of add, remove"))),
    };
    let list = read(file)?;
    let (container, _lock) = Container::locked(&global.root, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::State, "container not running"));
    }
    let config = container.config()?;
    if super::namespace(&config.spec, Ns::Mount).is_none() {
        return Err(invalid("linux.namespaces", "the container has no mount namespace: its mounts are the host's"));
    }
    let pidfd = container.pidfd()?;
    let running = Running { container: &container, spec: &config.spec, pidfd: pidfd.as_fd() };
    if add { running.add(&list) } else { running.remove(&list) }
}

fn read(file: &Path) -> Result<Vec<Mount>> {
    let raw = std::fs::read(file).on("read", file.display())?;
    let array = raw.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    if !array {
        return Err(invalid(file.display().to_string(), "mounts must be an array"));
    }
    config::parse(&raw, file).map_err(|e| match e.field() {
        Some(field) if field.starts_with('[') => e.within("mounts"),
        _ => e,
    })
}

/// A container whose mounts are to change.
struct Running<'a> {
    container: &'a Container,
    spec: &'a Spec,
    pidfd: BorrowedFd<'a>,
}

impl Running<'_> {
    fn add(&self, list: &[Mount]) -> Result<()> {
        let hierarchies = super::create::hierarchies(&crate::cgroup::Host::default(), list)?;
        let pid = self.container.saved.init_process_pid;
        let mut plan = plan::plan_add(self.spec, list, &self.input(&hierarchies)?, self.joined(), pid)?;
        // A new procfs is that of the pid namespace of who mounts it; to nothing else does it matter.
        if list.iter().any(|m| m.typ().as_deref() == Some("proc")) && super::namespace(self.spec, Ns::Pid).is_some() {
            plan.before_clone.push((plan::TARGET, sys::CLONE_NEWPID));
        }
        plan.warnings.iter().for_each(|w| warn!("{w}"));
        self.walk(&plan)
    }

    fn remove(&self, list: &[Mount]) -> Result<()> {
        self.walk(&plan::plan_remove(self.spec, list, &self.input(&[])?, self.joined())?)
    }

    /// The namespaces that decide what a mount shows and whose it is, but for that of pids.
    fn joined(&self) -> i32 {
        let list = self.spec.linux().iter().filter_map(|l| l.namespaces().as_ref()).flatten();
        list.map(|n| n.typ() as i32).filter(|kind| *kind != sys::CLONE_NEWPID).fold(0, |all, kind| all | kind)
    }

    fn input<'i>(&'i self, hierarchies: &'i [crate::cgroup::Hierarchy]) -> Result<Input<'i>> {
        Ok(Input { hierarchies, ..super::input(&self.container.saved)? })
    }

    fn walk(&self, plan: &Plan) -> Result<()> {
        let proc = spawn::open_proc()?;
        let entry = Entry::default();
        let request = Request {
            plan,
            entry,
            target: Some(self.pidfd),
            gate: None,
            proc: proc.as_fd(),
            rootless: false,
            lock: None,
        };
        // All is done when it is ready; dropped, it is ended.
        spawn::spawn(request, &mut Nobody).map(drop)
    }
}

/// Mounting asks nothing.
struct Nobody;

impl Answers for Nobody {
    fn devices(&mut self, _: i32, _: OwnedFd) -> Result<()> {
        Err(Error::new(Kind::Init, "mounts have no network devices"))
    }

    fn hooks(&mut self, _: i32) -> Result<()> {
        Err(Error::new(Kind::Init, "mounts have no hooks"))
    }

    fn console(&mut self, _: OwnedFd) -> Result<()> {
        Err(Error::new(Kind::Init, "mounts have no terminal"))
    }

    fn notify(&mut self, _: i32, _: OwnedFd) -> Result<()> {
        Err(Error::new(Kind::Init, "mounts have no seccomp filter"))
    }
}
