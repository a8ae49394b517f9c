//! Which namespaces are new, joined or shared with the host, and the id maps.

use super::userns::IdMap;
use super::{Input, Open, Plan, Step, c_path};
use crate::error::{Result, invalid};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Ns, Spec};
use orlop_sys::process as sys;
use std::fmt::Write as _;

/// Every kind.
pub(crate) const KINDS: &[Ns] = &[Ns::Cgroup, Ns::Ipc, Ns::Mount, Ns::Network, Ns::Pid, Ns::Time, Ns::User, Ns::Uts];

/// What `linux.namespaces` says of each kind.
pub(super) struct Namespaces<'a> {
    list: &'a [LinuxNamespace],
}

impl<'a> Namespaces<'a> {
    pub(super) fn of(spec: &'a Spec) -> Result<Namespaces<'a>> {
        let list = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
        for (i, ns) in list.iter().enumerate() {
            if list.iter().take(i).any(|other| other.typ() == ns.typ()) {
                return Err(invalid(
                    format!("linux.namespaces[{i}]"),
                    format!("the {} namespace is listed twice", ns.typ()),
                ));
            }
        }
        Ok(Namespaces { list })
    }

    fn get(&self, kind: Ns) -> Option<&LinuxNamespace> {
        self.list.iter().find(|n| n.typ() == kind)
    }

    /// New or joined: not the host's.
    pub(super) fn has(&self, kind: Ns) -> bool {
        self.get(kind).is_some()
    }

    /// Made for this container.
    pub(super) fn new_one(&self, kind: Ns) -> bool {
        self.get(kind).is_some_and(|n| path_of(n).is_none())
    }

    pub(super) fn new_user(&self) -> bool {
        self.new_one(Ns::User)
    }

    /// The pid of the init as it sees itself, where that is known beforehand.
    pub(super) fn init_pid(&self) -> Option<i32> {
        self.new_one(Ns::Pid).then_some(1)
    }
}

/// An empty path means a new namespace, as runc has it.
fn path_of(ns: &LinuxNamespace) -> Option<&std::path::Path> {
    ns.path().as_deref().filter(|p| !p.as_os_str().is_empty())
}

impl Plan {
    /// clone flags, joins and maps; the order among joined ones is that of setns(2)'s needs.
    pub(super) fn namespaces(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        let linux = spec.linux().as_ref();
        let mut joins = Vec::new();
        for (i, n) in ns.list.iter().enumerate() {
            let kind = n.typ() as i32;
            let field = format!("linux.namespaces[{i}].path");
            match path_of(n) {
                None => self.clone_flags |= kind as u64,
                Some(path) => {
                    if !path.is_absolute() {
                        return Err(invalid(field, format!("{path:?} is not an absolute path")));
                    }
                    let path = c_path(path, &field)?;
                    joins.push((n.typ(), self.open(field.clone(), Open::Namespace { path, kind }), kind, field));
                }
            }
        }
        let joins_user = joins.iter().any(|j| j.0 == Ns::User);
        // Root of the host may join any namespace; root of the container only those that belong to its user namespace. So the host's
        // rights are used first. An unprivileged caller has rights only inside the user namespace: that comes first.
        let first = ns.has(Ns::User) && input.rootless.is_none();
        let stays = !input.comes_back && joins.iter().any(|j| j.0 == Ns::Pid);
        self.hop = joins_user || stays || (first && joins.iter().any(|j| j.0 != Ns::Pid));
        if first {
            let others = joins.iter().filter(|j| !matches!(j.0, Ns::User | Ns::Pid));
            self.before_clone.extend(others.map(|j| (j.1, j.2)));
        }
        // The pid namespace takes effect for children only, and the rights in a joined user namespace come from being
        // inside it: both are joined before the clone.
        for kind in [Ns::User, Ns::Pid] {
            self.before_clone.extend(joins.iter().filter(|j| j.0 == kind).map(|j| (j.1, j.2)));
        }
        for (typ, open, kind, field) in joins {
            if !first && !matches!(typ, Ns::User | Ns::Pid) {
                self.push(field, Step::Join(open, kind));
            }
        }
        self.time_offsets(linux, ns)?;
        if ns.new_user() {
            self.maps = Some(IdMap::of(spec, input.rootless)?);
            self.push("linux.uidMappings", Step::AskMaps);
        }
        if ns.has(Ns::User) {
            self.push("linux.namespaces", Step::BecomeRoot(!super::keeps_groups(spec)));
        }
        if input.rootless.is_some() {
            // Its own files in /proc were a user's until here, who had to write the maps, and to them.
            self.push("", Step::Dumpable(false));
        }
        // A cgroup namespace's root is where the process is when it is made: on v1 that is only now.
        if ns.new_one(Ns::Cgroup) && !(input.into_cgroup && input.v1_tasks == 0) {
            self.clone_flags &= !(sys::CLONE_NEWCGROUP as u64);
            self.push("linux.namespaces", Step::Unshare(sys::CLONE_NEWCGROUP));
        }
        Ok(())
    }

    /// Before the sysctls, some of which are of one device, and before the hooks of the host (runtime.md, "Lifecycle").
    pub(super) fn network_devices(&mut self, spec: &Spec, input: &Input) -> Result<()> {
        let devices = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
        if devices.is_none_or(|devices| devices.is_empty()) {
            return Ok(());
        }
        if input.rootless.is_some() {
            return Err(invalid("linux.netDevices", "network devices are not supported for rootless containers"));
        }
        self.push("linux.netDevices", Step::AskDevices);
        Ok(())
    }

    /// Offsets can be written only while nobody is inside: the namespace is made for children and entered afterwards. Before the
    /// process becomes another user, to whom its files in /proc do not belong.
    fn time_offsets(&mut self, linux: Option<&Linux>, ns: &Namespaces) -> Result<()> {
        if let Some(offsets) = linux.and_then(|l| l.time_offsets().as_ref()).filter(|o| !o.is_empty()) {
            if !ns.new_one(Ns::Time) {
                return Err(invalid("linux.timeOffsets", "needs a new time namespace in linux.namespaces"));
            }
            let mut text = String::new();
            for (clock, offset) in offsets {
                let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
                if !matches!(clock.as_str(), "monotonic" | "boottime") {
                    return Err(invalid(format!("linux.timeOffsets.{clock}"), "is not one of monotonic, boottime"));
                }
                let _ = writeln!(text, "{clock} {secs} {nanos}");
            }
            self.clone_flags &= !(sys::CLONE_NEWTIME as u64);
            self.push("linux.timeOffsets", Step::TimeOffsets(text.into_bytes()));
        }
        Ok(())
    }
}
