//! Mounts of type cgroup: what the container sees of the hierarchies.

use super::mount_options::Options;
use super::mounts::{Setting, bind_step, plain_mount, simple_mount};
use super::root::propagation;
use super::{BindStep, MountStep, Plan, Step, Tree, c_path, c_string};
use crate::cgroup::{self, Hierarchy};
use crate::error::Result;
use oci_spec::runtime::LinuxNamespaceType as Ns;
use orlop_sys::mount::{self as sys, Attr, attr};
use std::path::PathBuf;

impl Plan {
    /// Type cgroup: on v2 the one hierarchy; on v1 a tmpfs with each hierarchy mounted in it. Without a cgroup
    /// namespace the container sees by bind mounts: on v1 its own directories; on v2 the host's tree, in which it finds
    /// the path that /proc/self/cgroup gives, unless a user namespace is meant to keep the host from it.
    pub(super) fn cgroup(&mut self, target: &str, o: Options, setting: &Setting) -> Result<()> {
        let Setting { field, ns, input, outer, .. } = *setting;
        let own_namespace = ns.new_one(Ns::Cgroup);
        let flags = o.flags & !sys::MS_RDONLY;
        let restricted = Attr { set: o.attr(true).set, clear: 0, ..Attr::default() };
        let only_v2 = input.hierarchies.iter().all(|h| h.v2);
        if !only_v2 {
            self.push(field.to_string(), simple_mount("tmpfs", "tmpfs", target, flags, "mode=755")?);
        }
        let whole = only_v2 && !ns.has(Ns::Cgroup) && !ns.has(Ns::User);
        for h in input.hierarchies {
            if h.v2 && !only_v2 {
                // A hybrid host's v2 tree has its own place, as on the host.
                if !input.cgroup_paths.contains_key("") {
                    continue;
                }
            }
            let place = if only_v2 { target.to_string() } else { format!("{target}/{}", h.name) };
            let fs = if h.v2 { "cgroup2" } else { "cgroup" };
            // Not mounted anew: from the first cgroup namespace that would take nsdelegate and memory_recursiveprot from
            // the host's mount (cgroups(7), cgroup v2 mount options).
            let made = if whole { Some(PathBuf::from(cgroup::ROOT)) } else { input.cgroup_paths.get(h.key()).cloned() };
            // Without a cgroup of its own the container is in its caller's, which is not its to change (CVE-2023-25809).
            let borrowed = made.is_none();
            let path = made.unwrap_or_else(|| h.own_dir());
            let tree = self.tree(field, c_path(&path, field)?, (false, false), ns, input);
            if own_namespace {
                let step = plain_mount(
                    fs,
                    fs,
                    &place,
                    if borrowed { o.flags | sys::MS_RDONLY } else { o.flags },
                    &h.mount_data(),
                )?;
                let step = MountStep { fallback: Some((tree, false)), ..step };
                self.push(field.to_string(), Step::Mount(Box::new(step)));
            } else {
                let propagation = match tree {
                    Tree::Host(_) => o.propagation.clone(),
                    _ => propagation(outer, &o.propagation),
                };
                let attr = match (borrowed, only_v2) {
                    (true, _) => Attr { set: restricted.set | attr::RDONLY, ..Attr::default() },
                    (false, true) => restricted,
                    // That of all of them is changed at once.
                    (false, false) => Attr::default(),
                };
                let step = bind_step(tree, &place, attr, Attr::default(), propagation)?;
                let step = BindStep { directory: !only_v2, ..step };
                self.push(field.to_string(), Step::Bind(Box::new(step)));
            }
            for alias in aliases(h) {
                let (to, at) = (c_string(h.name.as_str(), field)?, c_string(format!("{target}/{alias}"), field)?);
                self.push(field.to_string(), Step::Symlink(to, at));
            }
        }
        if !only_v2 && own_namespace {
            let ro = Attr { set: restricted.set & attr::RDONLY, ..Attr::default() };
            self.restrict(field, target, ro, false)?;
        } else if !only_v2 {
            self.restrict(field, target, restricted, true)?;
        }
        Ok(())
    }

    fn restrict(&mut self, field: &str, target: &str, attr: Attr, below: bool) -> Result<()> {
        if attr != Attr::default() {
            self.push(field.to_string(), Step::SetAttr(c_string(target, field)?, attr, below));
        }
        Ok(())
    }
}

/// Hierarchies of several controllers are customarily found by each one's name too.
fn aliases(h: &Hierarchy) -> &[String] {
    if h.v2 || h.controllers.len() < 2 { &[] } else { &h.controllers }
}
