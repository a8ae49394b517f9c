//! systemd as the manager of cgroups: a container is a scope (or a slice), which systemd makes and keeps.
//!
//! A decorator over the layouts: what a unit has properties for is asked of systemd, and then everything is written to the files
//! as without it, because not every limit has a property. Processes, the freezer, signals and statistics are
//! the files' business alone: systemd is spoken to by create, update and delete, once each.
//!
//! A scope cannot be empty. So that the container's cgroup stands with all its limits before the init is born in it, a
//! process that does nothing, the [`Holder`], keeps it until then.

mod gvariant;
mod properties;
mod unit;

pub use properties::annotations;
pub use unit::Unit;

use super::dbus::{self, Connection, Failure, Value};
use super::devices::DeviceList;
use super::tree::{self, Made};
use super::{Cgroup, Entry, Paths, v2};
use crate::error::{Error, Kind, On, Result, invalid};
use log::debug;
use oci_spec::runtime::LinuxResources;
use orlop_sys::process::{self, Child};
use orlop_sys::signal::SIGKILL;
use properties::{Properties, Property};
use std::cell::{RefCell, RefMut};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The container's scope or slice, and its files.
#[derive(Debug)]
pub struct Systemd {
    unit: Unit,
    /// The container's id, for the unit's description.
    id: String,
    /// What the annotations ask for.
    extra: Vec<Property>,
    /// The container's cgroup in the scope's; empty: the scope's own.
    subgroup: String,
    inner: Box<dyn Cgroup>,
    manager: RefCell<Option<Manager>>,
}

impl Systemd {
    /// The container of an existing unit, with the layout that has its files.
    pub fn load(unit: Unit, inner: Box<dyn Cgroup>) -> Systemd {
        let (id, subgroup) = (String::new(), String::new());
        Systemd { unit, id, extra: Vec::new(), subgroup, inner, manager: RefCell::new(None) }
    }

    /// The container of a unit to be made. `inner` is at the place of [`Unit::cgroup`] and `subgroup`.
    pub fn new(unit: Unit, id: &str, extra: Vec<Property>, subgroup: &str, inner: Box<dyn Cgroup>) -> Systemd {
        Systemd { id: id.to_string(), extra, subgroup: subgroup.to_string(), ..Systemd::load(unit, inner) }
    }

    fn v2(&self) -> bool {
        self.inner.paths().len() == 1 && self.inner.paths().contains_key("")
    }

    fn manager(&self) -> Result<RefMut<'_, Manager>> {
        let mut slot = self.manager.borrow_mut();
        if slot.is_none() {
            *slot = Some(Manager::connect(self.unit.user)?);
        }
        RefMut::filter_map(slot, Option::as_mut).map_err(|_| Error::new(Kind::System, "no connection to systemd"))
    }

    /// Everything that the new unit is to have.
    fn properties(&self, resources: Option<&LinuxResources>, holder: Option<i32>) -> Result<Vec<Property>> {
        let v2 = self.v2();
        let mut p = Properties::default();
        p.fixed("Description", Value::text(format!("orlop container {}", self.id)));
        if self.unit.is_slice() {
            p.fixed("Wants", Value::Array("s".into(), vec![Value::text(&self.unit.slice)]));
        } else {
            p.fixed("Slice", Value::text(&self.unit.slice));
            // Controllers and sub-cgroups below are the container's.
            p.fixed("Delegate", Value::Bool(true));
        }
        if let Some(pid) = holder {
            p.fixed("PIDs", Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]));
        }
        // Whatever the limits: statistics of a container come from every controller.
        let io = if v2 { "IOAccounting" } else { "BlockIOAccounting" };
        for name in ["CPUAccounting", io, "MemoryAccounting", "TasksAccounting"] {
            p.fixed(name, Value::Bool(true));
        }
        // Else it would be stopped at shutdown before what it may be part of.
        p.fixed("DefaultDependencies", Value::Bool(false));
        if let Some(resources) = resources {
            p.0.extend(properties::limits(resources, v2)?);
        }
        // A user's systemd has no right to device filters.
        if !self.unit.user {
            let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
            p.0.extend(properties::devices(&DeviceList::new(rules)?, v2));
        }
        p.0.extend(self.extra.iter().cloned());
        Ok(p.0)
    }

    /// Refuses a cgroup that somebody uses or has frozen, before anything of it is touched: a unit of that name may be another
    /// container's.
    fn unused(&self) -> Result<()> {
        for dir in self.inner.paths().values().take(1) {
            super::used(dir, None)?;
            if self.inner.frozen()? {
                return Err(super::unexpectedly_frozen(dir));
            }
        }
        Ok(())
    }

    /// The directories of the container's sub-cgroups are made here, and the holder goes there: a cgroup with processes
    /// cannot give controllers to its children.
    fn enter_subgroup(&self, made: &mut Made, holder: Option<&Holder>) -> Result<()> {
        if self.subgroup.is_empty() {
            return Ok(());
        }
        for dir in self.inner.paths().values() {
            made.make(dir).on("mkdir", format!("{dir:?}"))?;
            holder.map_or(Ok(()), |holder| tree::attach(dir, holder.child.pid))?;
        }
        Ok(())
    }
}

impl Cgroup for Systemd {
    fn create_around(&mut self, resources: Option<&LinuxResources>, _holder: Option<i32>) -> Result<Entry> {
        self.unused()?;
        let mut holder = if self.unit.is_slice() { None } else { Some(Holder::new()?) };
        let pid = holder.as_ref().map(|holder| holder.child.pid);
        let properties = self.properties(resources, pid)?;
        self.manager()?.start(&self.unit, properties)?;
        let mut made = Made::default();
        let agreed = resources.map(properties::agreed);
        let filled = self
            .enter_subgroup(&mut made, holder.as_ref())
            .and_then(|()| self.inner.create_around(agreed.as_ref(), pid))
            .and_then(|entry| {
                if let (Some(holder), Some(dir)) = (&mut holder, self.inner.paths().get("")) {
                    holder.make_room(dir)?;
                }
                Ok(entry)
            });
        match filled {
            Ok(entry) => {
                made.keep();
                Ok(Entry { holder, ..entry })
            }
            Err(e) => {
                drop(holder);
                drop(made);
                // The first error is what the user must hear.
                let _ = self.manager().and_then(|mut manager| manager.stop(&self.unit));
                Err(e)
            }
        }
    }

    fn enter(&self, sub: &[String]) -> Result<Entry> {
        self.inner.enter(sub)
    }

    fn paths(&self) -> &Paths {
        self.inner.paths()
    }

    fn unit(&self) -> Option<&Unit> {
        Some(&self.unit)
    }

    fn attach(&self, pid: i32) -> Result<()> {
        self.inner.attach(pid)
    }

    fn give(&self, uid: u32) -> Result<()> {
        self.inner.give(uid)
    }

    fn delegate(&self, sub: &str, pid: i32, owner: Option<u32>) -> Result<()> {
        self.inner.delegate(sub, pid, owner)
    }

    fn set(&self, resources: &LinuxResources) -> Result<()> {
        let v2 = self.v2();
        if let (true, Some(dir), Some(memory)) = (v2, self.paths().get(""), resources.memory()) {
            // Before systemd sets the limit, by which the container may be killed.
            v2::check_usage(dir, memory)?;
        }
        let mut properties = properties::limits(resources, v2)?;
        let rules = resources.devices().as_ref().filter(|_| !self.unit.user);
        if let Some(rules) = rules {
            properties.extend(properties::devices(&DeviceList::new(rules)?, v2));
        }
        // On v1 systemd denies every device for a moment.
        let freeze = rules.is_some() && !v2 && !self.frozen()?;
        if freeze {
            self.freeze(true)?;
        }
        let set = self.manager().and_then(|mut manager| manager.set(&self.unit, properties));
        if freeze {
            self.freeze(false)?;
        }
        set?;
        self.inner.set(&properties::agreed(resources))
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        self.inner.freeze(frozen)
    }

    fn frozen(&self) -> Result<bool> {
        self.inner.frozen()
    }

    fn procs(&self) -> Result<Vec<i32>> {
        self.inner.procs()
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.inner.signal(signal)
    }

    fn remove(&self) -> Result<()> {
        let stopped = self.manager().and_then(|mut manager| manager.stop(&self.unit));
        // Trees that systemd does not know, and what a killed systemd has left.
        match (stopped, self.inner.remove()) {
            (Err(first), Err(second)) => Err(first.also(second)),
            (stopped, removed) => stopped.and(removed),
        }
    }

    fn oom_kills(&self) -> u64 {
        self.inner.oom_kills()
    }
}

/// A process that keeps a new scope until the container's init is in it. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    /// The limit of processes to set when the holder has gone.
    limit: Option<(PathBuf, String)>,
}

impl Holder {
    fn new() -> Result<Holder> {
        let child = process::clone_sleeper().on("clone3", "")?;
        Ok(Holder { child, limit: None })
    }

    /// A limit of one process is for the container's: for the time of the holder there are two.
    fn make_room(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("pids.max");
        match tree::read(&path) {
            Ok(limit) if limit == "0" || limit == "1" => {
                tree::write(&path, "2").on("write \"2\" to", format!("{path:?}"))?;
                self.limit = Some((path, limit));
                Ok(())
            }
            Err(e) if !tree::gone(&e) => Err(e).on("read", format!("{path:?}")),
            _ => Ok(()),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It can only be that it has ended already.
        let _ = process::pidfd_signal(self.child.pidfd.as_fd(), SIGKILL);
        let _ = process::wait(self.child.pidfd.as_fd(), true);
        if let Some((path, limit)) = &self.limit
            && let Err(e) = tree::write(path, limit)
        {
            log::warn!("linux.resources.pids.limit: write {limit:?} to {path:?}: {e}");
        }
    }
}

/// systemd, asked to do something with units.
#[derive(Debug)]
pub struct Manager {
    connection: Connection,
}

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NONE: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// systemd's word for a property that it does not know.
const UNKNOWN: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

impl Manager {
    /// Connects to the systemd of the host, or to that of the user who calls.
    pub fn connect(user: bool) -> Result<Manager> {
        let environment = |name: &str| std::env::var(name).ok();
        let addresses = if user { dbus::user(environment) } else { dbus::system(environment) };
        if user && addresses.is_empty() {
            return Err(invalid("--systemd-cgroup", "there is no systemd of this user")
                .hint("XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS must be set, as in a login session"));
        }
        Ok(Manager { connection: Connection::open(&addresses)? })
    }

    /// The cgroup that this systemd keeps its slices in, from the root of the tree.
    pub fn cgroup(&mut self) -> Result<PathBuf> {
        self.connection.property("ControlGroup").map(PathBuf::from).map_err(|e| told("", "Get ControlGroup", e))
    }

    /// Makes the unit and waits until it is there. What is left of a dead one of the same name is cleaned away.
    fn start(&mut self, unit: &Unit, mut properties: Vec<Property>) -> Result<()> {
        const TRIES: u32 = 10;
        let mut tries = 0;
        loop {
            let none = Value::Array("(sa(sv))".into(), Vec::new());
            let body = vec![Value::text(&unit.name), Value::text("replace"), pairs(&properties), none];
            match self.connection.call("StartTransientUnit", body) {
                Ok((answer, sender)) => return self.started(unit, &answer, &sender),
                // Whoever made the slice, a container may have it if nobody is inside.
                Err(Failure::Refused(name, _)) if name == EXISTS && unit.is_slice() => return Ok(()),
                Err(Failure::Refused(name, _)) if name == EXISTS && tries < TRIES => {
                    // A failed unit goes when its failure is forgotten, one that has just ended goes by itself, both a little later.
                    self.forget(unit);
                    std::thread::sleep(Duration::from_millis(1 << tries));
                    tries += 1;
                }
                Err(Failure::Refused(name, why)) if drop_unknown(&name, &why, &mut properties) => {}
                Err(e) => return Err(explained(&unit.name, "StartTransientUnit", e, &properties)),
            }
        }
    }

    fn started(&mut self, unit: &Unit, answer: &[Value], sender: &str) -> Result<()> {
        let job = answer.first().and_then(Value::as_text).unwrap_or_default();
        match self.connection.job(job, sender)?.as_str() {
            "done" => Ok(()),
            result => {
                self.forget(unit);
                let why = format!("systemd unit {}: its start has ended with {result:?}", unit.name);
                Err(Error::new(Kind::System, why).hint(format!("journalctl -u {} may tell why", unit.name)))
            }
        }
    }

    /// Changes properties of the unit, until it ends.
    fn set(&mut self, unit: &Unit, mut properties: Vec<Property>) -> Result<()> {
        while !properties.is_empty() {
            let body = vec![Value::text(&unit.name), Value::Bool(true), pairs(&properties)];
            match self.connection.call("SetUnitProperties", body) {
                Ok(_) => return Ok(()),
                Err(Failure::Refused(name, why)) if drop_unknown(&name, &why, &mut properties) => {}
                Err(e) => return Err(explained(&unit.name, "SetUnitProperties", e, &properties)),
            }
        }
        Ok(())
    }

    /// Stops the unit and waits until it has gone; one that has gone already is fine.
    fn stop(&mut self, unit: &Unit) -> Result<()> {
        match self.connection.call("StopUnit", vec![Value::text(&unit.name), Value::text("replace")]) {
            Ok((answer, sender)) => {
                let job = answer.first().and_then(Value::as_text).unwrap_or_default();
                let result = self.connection.job(job, &sender)?;
                if result != "done" {
                    log::warn!("systemd unit {}: its stop has ended with {result:?}", unit.name);
                }
                self.forget(unit);
                Ok(())
            }
            Err(Failure::Refused(name, _)) if name == NONE => Ok(()),
            Err(e) => Err(told(&unit.name, "StopUnit", e)),
        }
    }

    /// A failed unit stays until somebody has seen its failure.
    fn forget(&mut self, unit: &Unit) {
        if let Err(Failure::Refused(_, why)) = self.connection.call("ResetFailedUnit", vec![Value::text(&unit.name)]) {
            debug!("systemd unit {}: ResetFailedUnit: {why}", unit.name);
        }
    }
}

fn pairs(properties: &[Property]) -> Value {
    let pair = |p: &Property| Value::Struct(vec![Value::text(&p.name), Value::variant(p.value.clone())]);
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// The property that a message of systemd's is about.
fn blamed<'a>(why: &str, properties: &'a [Property]) -> Option<&'a Property> {
    let words: Vec<&str> = why.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    properties.iter().find(|p| words.contains(&p.name.as_str()))
}

/// Takes out a property that this systemd is too old for and that the files have as well. True: there was one.
fn drop_unknown(error: &str, why: &str, properties: &mut Vec<Property>) -> bool {
    let Some(found) = blamed(why, properties) else { return false };
    let idle = found.name == "CPUWeight" && found.value == Value::U64(0);
    let ours = found.field.starts_with("linux.resources.") || found.name.ends_with("Accounting");
    if !ours || !(error == UNKNOWN || idle) {
        return false;
    }
    debug!("systemd does not know {}, only the cgroup's file has it: {why}", found.name);
    let name = found.name.clone();
    properties.retain(|p| p.name != name);
    true
}

fn explained(unit: &str, call: &str, failure: Failure, properties: &[Property]) -> Error {
    let field = match &failure {
        Failure::Refused(_, why) => blamed(why, properties).map(|p| p.field.clone()).filter(|field| !field.is_empty()),
        Failure::Broken(_) => None,
    };
    let e = told(unit, call, failure);
    match field {
        Some(field) => e.at(field),
        None => e,
    }
}

fn told(unit: &str, call: &str, failure: Failure) -> Error {
    let whose = if unit.is_empty() { "systemd".to_string() } else { format!("systemd unit {unit}") };
    match failure {
        Failure::Broken(e) => Error::new(Kind::System, format!("{whose}: {call}: {e}")),
        Failure::Refused(name, why) if name == EXISTS => Error::new(Kind::Exists, format!("{whose}: {call}: {why}"))
            .at("linux.cgroupsPath")
            .hint("another container may use the same name"),
        Failure::Refused(name, why) => Error::new(Kind::System, format!("{whose}: {call}: {why} ({name})")),
    }
}

#[cfg(test)]
mod tests;
