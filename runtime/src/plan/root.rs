//! The root of the container: its propagation, what is hidden in it, and the way into it.

use super::mount_options::{Opt, option_of};
use super::mounts::clean;
use super::namespaces::Namespaces;
use super::{Input, Plan, Step, c_path, c_string};
use crate::error::{Result, invalid};
use oci_spec::runtime::{LinuxNamespaceType as Ns, Spec};
use orlop_sys::mount::{self as sys, Attr, attr};
use std::collections::BTreeSet;
use std::ffi::CString;

impl Plan {
    pub(super) fn root(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        let root = c_path(input.rootfs, "root.path")?;
        if !ns.has(Ns::Mount) {
            self.push("root.path", Step::OpenRoot(root));
            return Ok(());
        }
        let first = before_root(spec)?;
        self.push("linux.rootfsPropagation", Step::Propagate(first));
        if first & sys::MS_SHARED != 0 {
            self.push("linux.rootfsPropagation", Step::PrivateParent(root.clone()));
        }
        self.push("root.path", Step::BindRoot(root));
        Ok(())
    }

    pub(super) fn masks(&mut self, spec: &Spec, ns: &Namespaces) -> Result<()> {
        let Some(linux) = spec.linux().as_ref().filter(|_| ns.has(Ns::Mount)) else { return Ok(()) };
        for (i, m) in spec.mounts().iter().flatten().enumerate() {
            let ro = m.options().iter().flatten().any(|o| o == "ro");
            if ro && m.typ().as_deref() == Some("tmpfs") && clean(m.destination()) == "/dev" {
                let attr = Attr { set: attr::RDONLY, ..Attr::default() };
                self.push(format!("mounts[{i}]"), Step::SetAttr(c"/dev".into(), attr, false));
            }
        }
        for (i, path) in linux.readonly_paths().iter().flatten().enumerate() {
            let field = format!("linux.readonlyPaths[{i}]");
            let path = absolute(path, &field)?;
            self.push(field, Step::Readonly(path));
        }
        let mut masked = BTreeSet::new();
        for (i, path) in linux.masked_paths().iter().flatten().enumerate().filter(|(_, path)| masked.insert(*path)) {
            let field = format!("linux.maskedPaths[{i}]");
            let path = absolute(path, &field)?;
            self.push(field, Step::Mask(path));
        }
        Ok(())
    }

    pub(super) fn enter_root(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        if !ns.has(Ns::Mount) {
            self.push("root.path", Step::Chroot);
            return Ok(());
        }
        if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
            self.push("root.readonly", Step::ReadonlyRoot);
        }
        let explicit = propagation_of(spec);
        let shared = explicit.is_some_and(|f| f & sys::MS_SHARED != 0);
        let enter = match &input.no_pivot {
            Some(covers) => Step::MoveRoot(covers.iter().map(|p| c_path(p, "--no-pivot")).collect::<Result<_>>()?),
            None => Step::Pivot(shared),
        };
        self.push("root.path", enter);
        if let Some(flags) = explicit {
            self.push("linux.rootfsPropagation", Step::Propagate(flags));
        }
        self.push("", Step::ReopenNull);
        Ok(())
    }
}

fn propagation_of(spec: &Spec) -> Option<u64> {
    let name = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()).filter(|p| !p.is_empty())?;
    match option_of(name) {
        Some(Opt::Propagation(flags)) => Some(flags),
        _ => None,
    }
}

/// The propagation of the whole tree before the rootfs is bound: what the host mounts later comes in for slave and
/// shared, and what the container mounts goes out for shared alone.
pub(super) fn before_root(spec: &Spec) -> Result<u64> {
    let named = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()).filter(|p| !p.is_empty());
    let flags = propagation_of(spec);
    match (named, flags) {
        (None, _) => Ok(sys::MS_SLAVE | sys::MS_REC),
        (Some(name), None) => Err(invalid(
            "linux.rootfsPropagation",
            format!("{name:?} is not one of shared, slave, private, unbindable"),
        )),
        // Nothing can be bound from an unbindable tree: the rootfs becomes so at the end.
        (Some(_), Some(f)) if f & (sys::MS_UNBINDABLE | sys::MS_PRIVATE) != 0 => Ok(sys::MS_PRIVATE | sys::MS_REC),
        (Some(_), Some(f)) => Ok(f | sys::MS_REC),
    }
}

/// A tree is cloned from the host's mount namespace, so it first takes on what the tree of the container has.
pub(super) fn propagation(outer: u64, own: &[u64]) -> Vec<u64> {
    let mut list = Vec::with_capacity(own.len() + 1);
    if outer & sys::MS_SHARED == 0 {
        list.push(outer);
    }
    list.extend_from_slice(own);
    list
}

fn absolute(path: &str, field: &str) -> Result<CString> {
    if !path.starts_with('/') {
        return Err(invalid(field, format!("{path:?} is not an absolute path")));
    }
    c_string(path, field)
}
