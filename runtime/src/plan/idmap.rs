//! Idmapped mounts (config.md, "Mounts"; mount_setattr(2), MOUNT_ATTR_IDMAP): which ids a bind mount shows for those of its source.
//!
//! The maps come from the mount itself, from crun's `idmap=uids=..;gids=..`, or from the container's user namespace. The kernel takes
//! them in the form of a user namespace: one for each distinct pair of maps, made before the clone, with nobody in it.

use super::mount_options::Options;
use super::mounts::Setting;
use super::namespaces::Namespaces;
use super::userns::{IdMap, lines};
use super::{Idmap, Open, Plan};
use crate::error::{Result, invalid};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Ns, Mount};

/// The option `idmap` or `ridmap`, with crun's maps behind `=` if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdmapOption {
    /// For every mount of the tree.
    pub(super) whole: bool,
    /// `uids=..;gids=..`
    pub(super) maps: Option<String>,
    /// Where it stands among the options.
    pub(super) at: usize,
}

impl IdmapOption {
    /// `None`: the option is another one.
    pub(super) fn of(option: &str, at: usize) -> Option<IdmapOption> {
        let (name, maps) = option.split_once('=').map_or((option, None), |(name, maps)| (name, Some(maps)));
        let whole = match name {
            "idmap" => false,
            "ridmap" => true,
            _ => return None,
        };
        Some(IdmapOption { whole, maps: maps.filter(|m| !m.is_empty()).map(String::from), at })
    }
}

impl Plan {
    /// How the ids of this mount are shown; `None`: as they are.
    pub(super) fn idmap(&mut self, m: &Mount, o: &Options, setting: &Setting) -> Result<Option<Idmap>> {
        let Setting { field, linux, ns, input, .. } = *setting;
        let given = m.uid_mappings().is_some() || m.gid_mappings().is_some();
        let at = match &o.idmap {
            None if !given => return Ok(None),
            None => format!("{field}.uidMappings"),
            Some(option) => format!("{field}.options[{}]", option.at),
        };
        if o.bind.is_none() {
            return Err(invalid(at, "id-mapped mounts are only supported for bind-mounts"));
        }
        if input.rootless.is_some() {
            return Err(invalid(at, "id-mapped mounts are not supported for rootless containers"));
        }
        let option = o.idmap.as_ref();
        let whole = option.is_some_and(|o| o.whole);
        let userns = match option.and_then(|o| o.maps.as_deref()) {
            Some(_) if given => {
                return Err(invalid(
                    at,
                    "has maps, and uidMappings and gidMappings are set too: which of them is meant?",
                ));
            }
            Some(text) => self.user_namespace(&at, explicit(text, linux).map_err(|e| e.at(at.clone()))?),
            None if given => {
                let (uid, gid) = (m.uid_mappings().as_deref(), m.gid_mappings().as_deref());
                self.user_namespace(&at, mappings(uid, gid, field)?)
            }
            None => self.own_user_namespace(&at, linux, ns)?,
        };
        Ok(Some(Idmap { userns, whole }))
    }

    /// The place among the opens of a user namespace with these maps: mounts of the same maps share one.
    fn user_namespace(&mut self, field: &str, maps: IdMap) -> usize {
        let same = |open: &Open| matches!(open, Open::UserNamespace(other) if *other == maps);
        let found = self.opens.iter().position(|(open, _)| same(open));
        found.unwrap_or_else(|| self.open(field.to_string(), Open::UserNamespace(maps)))
    }

    /// That of the container: the joined one itself, or one with the maps that the new one will have.
    fn own_user_namespace(&mut self, at: &str, linux: Option<&Linux>, ns: &Namespaces) -> Result<usize> {
        if ns.new_user() {
            let uid = lines(linux.and_then(|l| l.uid_mappings().as_deref()), "linux.uidMappings")?;
            let gid = lines(linux.and_then(|l| l.gid_mappings().as_deref()), "linux.gidMappings")?;
            return Ok(self.user_namespace(at, IdMap { uid, gid, deny_setgroups: false }));
        }
        let joined = |open: &Open| matches!(open, Open::Namespace { kind, .. } if *kind == Ns::User as i32);
        let joined = self.opens.iter().position(|(open, _)| joined(open));
        joined.ok_or_else(|| {
            let why = "needs maps: id-mapped mounts must have both uid and gid mappings specified";
            invalid(at, why)
                .hint("set uidMappings and gidMappings of the mount, or give the container a user namespace")
        })
    }
}

fn mappings(uid: Option<&[LinuxIdMapping]>, gid: Option<&[LinuxIdMapping]>, field: &str) -> Result<IdMap> {
    for (list, name) in [(uid, "uidMappings"), (gid, "gidMappings")] {
        if list.unwrap_or_default().is_empty() {
            let why = "id-mapped mounts must have both uid and gid mappings specified";
            return Err(invalid(format!("{field}.{name}"), why));
        }
    }
    Ok(IdMap {
        uid: lines(uid, &format!("{field}.uidMappings"))?,
        gid: lines(gid, &format!("{field}.gidMappings"))?,
        deny_setgroups: false,
    })
}

/// crun's `uids=0-1-10#10-11-10;gids=@0-100-10`: of each range the first id of the file system, the first id on the host, or with `@` in
/// the container, and how many. Kinds of ids that are left out have no map, so nothing of them is shown.
fn explicit(text: &str, linux: Option<&Linux>) -> Result<IdMap> {
    let mut maps = IdMap { uid: String::new(), gid: String::new(), deny_setgroups: false };
    for part in text.split(';') {
        let (name, ranges) = part.split_once('=').unwrap_or((part, ""));
        let (map, own, field) = match name {
            "uids" => (&mut maps.uid, linux.and_then(|l| l.uid_mappings().as_deref()), "linux.uidMappings"),
            "gids" => (&mut maps.gid, linux.and_then(|l| l.gid_mappings().as_deref()), "linux.gidMappings"),
            _ => return Err(invalid_map(format!("{name:?} is not one of uids, gids"))),
        };
        if !map.is_empty() {
            return Err(invalid_map(format!("{name} is there twice")));
        }
        for range in ranges.split('#') {
            let (start, inside) = range.strip_prefix('@').map_or((range, false), |rest| (rest, true));
            let numbers: Option<Vec<u32>> = start.split('-').map(decimal).collect();
            let Some(&[from, to, size]) = numbers.as_deref() else {
                return Err(invalid_map(format!("{range:?} is not a range of ids: write from-to-size")));
            };
            if size == 0 {
                return Err(invalid_map(format!("{range:?} has a size of 0")));
            }
            let to = if inside { on_the_host(to, size, own.unwrap_or_default(), range, field)? } else { to };
            map.push_str(&format!("{from} {to} {size}\n"));
        }
    }
    Ok(maps)
}

fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Which id of the host one of the container is. Unlike crun, which maps what lies behind the end of the container's range to ids
/// that the container does not own, the whole range must lie in one of the container's.
fn on_the_host(id: u32, size: u32, own: &[LinuxIdMapping], range: &str, field: &str) -> Result<u32> {
    let inside = own.iter().find(|m| id >= m.container_id() && id - m.container_id() < m.size());
    let m = inside.ok_or_else(|| invalid_map(format!("{range:?}: {id} is in no range of {field}")))?;
    if size > m.size() - (id - m.container_id()) {
        return Err(invalid_map(format!("{range:?} goes beyond a range of {field}: split it")));
    }
    let to = m.host_id().checked_add(id - m.container_id());
    to.ok_or_else(|| invalid_map(format!("{range:?}: {field} gives {id} an id of the host that there is not")))
}

fn invalid_map(why: String) -> crate::error::Error {
    crate::error::Error::new(crate::error::Kind::Invalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux() -> Linux {
        serde_json::from_str(
            r#"{"uidMappings":[{"containerID":0,"hostID":0,"size":1},{"containerID":1,"hostID":2,"size":1000}],
                "gidMappings":[{"containerID":0,"hostID":5000,"size":10}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_option_is_a_name_with_or_without_maps() {
        let maps = Some("uids=0-1-2".to_string());
        assert_eq!(IdmapOption::of("ridmap=uids=0-1-2", 3), Some(IdmapOption { whole: true, maps, at: 3 }));
        assert_eq!(IdmapOption::of("idmap", 0), Some(IdmapOption { whole: false, maps: None, at: 0 }));
        assert_eq!(IdmapOption::of("idmap=", 0).unwrap().maps, None);
        assert_eq!(IdmapOption::of("idmapped", 0), None);
    }

    #[test]
    fn explicit_maps_are_absolute_or_of_the_container() {
        let maps = explicit("uids=0-1-10#10-11-10;gids=0-100-10", None).unwrap();
        assert_eq!((maps.uid.as_str(), maps.gid.as_str()), ("0 1 10\n10 11 10\n", "0 100 10\n"));
        // The example of crun's manual.
        let maps = explicit("uids=@1-3-10;gids=@7-4-6", Some(&linux())).unwrap();
        assert_eq!((maps.uid.as_str(), maps.gid.as_str()), ("1 4 10\n", "7 5004 6\n"));
        assert_eq!(explicit("gids=0-1-2", None).unwrap().uid, "");
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for (text, word) in [
            ("uids=0-1", "from-to-size"),
            ("uids=0-1-2-3", "from-to-size"),
            ("uids=0-1-+2", "from-to-size"),
            ("uids=0-1-", "from-to-size"),
            ("uids=", "from-to-size"),
            ("uids=0-1-0", "size of 0"),
            ("uid=0-1-2", "uids, gids"),
            ("uids=0-1-2;uids=2-3-4", "twice"),
            ("uids=@0-2000-2", "no range"),
            ("gids=@0-5-6", "split"),
        ] {
            let e = explicit(text, Some(&linux())).unwrap_err().to_string();
            assert!(e.contains(word), "{text}: {e}");
        }
        let beyond = r#"{"uidMappings":[{"containerID":0,"hostID":4294967290,"size":100}]}"#;
        let e = explicit("uids=@50-50-1", serde_json::from_str(beyond).ok().as_ref()).unwrap_err().to_string();
        assert!(e.contains("that there is not"), "an id was counted on from 0: {e}");
    }
}
