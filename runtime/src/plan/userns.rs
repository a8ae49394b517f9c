//! User namespaces: the maps of a new one, which ids they hold, and what a caller who is not root must have and cannot ask for.

use crate::error::{Error, Result, invalid};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Ns, Process, Spec};
use std::fmt::Write as _;

use super::namespaces::Namespaces;

/// One line of a map (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl Range {
    /// The ranges of a map.
    pub fn all(map: &str) -> impl Iterator<Item = Range> {
        map.lines().filter_map(|line| {
            let mut numbers = line.split(' ').map(|n| n.parse().ok());
            Some(Range { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
        })
    }

    fn holds(&self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|at| at < self.count)
    }
}

/// The maps of a new user namespace, as the text of /proc/PID/uid_map and gid_map: a [`Range`] a line.
#[derive(Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Lines of `container host size`.
    pub uid: String,
    /// The same for groups.
    pub gid: String,
    /// Write `deny` to /proc/PID/setgroups first: without it a caller without rights may not even map its own group (CVE-2014-8989).
    pub deny_setgroups: bool,
}

/// A caller who is not root, by its effective ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl IdMap {
    /// The maps that config.json has, for a caller who is root (`None`) or not.
    pub(super) fn of(spec: &Spec, rootless: Option<Caller>) -> Result<IdMap> {
        let linux = spec.linux().as_ref();
        let list = linux.and_then(|l| l.uid_mappings().as_deref());
        let uid = lines(list, "linux.uidMappings").map_err(|e| absent(e, list, "UID", rootless.map(|own| own.uid)))?;
        let list = linux.and_then(|l| l.gid_mappings().as_deref());
        let gid = lines(list, "linux.gidMappings").map_err(|e| absent(e, list, "GID", rootless.map(|own| own.gid)))?;
        // The one map that needs nobody's help; newgidmap(1) leaves setgroups(2) allowed for the others.
        let deny_setgroups = rootless.is_some_and(|own| {
            let mut all = Range::all(&gid);
            all.next().is_some_and(|g| g.outside == own.gid && g.count == 1) && all.next().is_none()
        });
        Ok(IdMap { uid, gid, deny_setgroups })
    }
}

/// The text of a map; `field` is its name.
pub(super) fn lines(list: Option<&[LinuxIdMapping]>, field: &str) -> Result<String> {
    let list = list.filter(|l| !l.is_empty()).ok_or_else(|| invalid(field, "is needed for a new user namespace"))?;
    let mut text = String::new();
    for (i, m) in list.iter().enumerate() {
        if m.size() == 0 {
            return Err(invalid(format!("{field}[{i}].size"), "must not be 0"));
        }
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
    }
    Ok(text)
}

/// The same error in runc's words, and with the map that would do.
fn absent(e: Error, list: Option<&[LinuxIdMapping]>, what: &str, own: Option<u32>) -> Error {
    match own.filter(|_| list.is_none_or(<[_]>::is_empty)) {
        Some(id) => invalid(
            e.field().unwrap_or_default().to_string(),
            format!("rootless containers requires at least one {what} mapping"),
        )
        .hint(format!("add {{\"containerID\": 0, \"hostID\": {id}, \"size\": 1}}")),
        None => e,
    }
}

/// What the kernel would answer with EINVAL: an id of the process that is not in the maps of its new user namespace.
pub(super) fn check_process(process: &Process, spec: &Spec, ns: &Namespaces, rootless: Option<Caller>) -> Result<()> {
    if !ns.new_user() {
        return Ok(());
    }
    let maps = IdMap::of(spec, rootless)?;
    let user = process.user();
    let unmapped = |name: &str, id: u32, map: &str, mappings: &str| match Range::all(map).any(|r| r.holds(id)) {
        true => Ok(()),
        false => Err(invalid(format!("process.user.{name}"), format!("{id} is not mapped in linux.{mappings}"))),
    };
    unmapped("uid", user.uid(), &maps.uid, "uidMappings")?;
    unmapped("gid", user.gid(), &maps.gid, "gidMappings")?;
    for (i, gid) in user.additional_gids().iter().flatten().enumerate() {
        if maps.deny_setgroups {
            return Err(denied_groups());
        }
        unmapped(&format!("additionalGids[{i}]"), *gid, &maps.gid, "gidMappings")?;
    }
    Ok(())
}

/// The one answer to supplementary groups where setgroups(2) is denied.
fn denied_groups() -> Error {
    invalid("process.user.additionalGids", "cannot set any additional groups in a rootless container").hint(
        "setgroups(2) is denied to a user who maps no group but the own one: map a range of /etc/subgid in linux.gidMappings",
    )
}

/// What a caller who is not root cannot have, each by its field.
pub(super) fn check_rootless(spec: &Spec, ns: &Namespaces, own: Caller) -> Result<()> {
    if !ns.has(Ns::User) {
        return Err(invalid("linux.namespaces", "rootless container requires user namespaces").hint(format!(
            "add {{\"type\": \"user\"}}, and {{\"containerID\": 0, \"hostID\": {}, \"size\": 1}} to linux.uidMappings, {} likewise to \
             linux.gidMappings, as `orlop spec --rootless` does",
            own.uid, own.gid
        )));
    }
    if !ns.new_user() {
        return Ok(());
    }
    let maps = IdMap::of(spec, Some(own))?;
    for (i, m) in spec.mounts().iter().flatten().enumerate() {
        for (k, option) in m.options().iter().flatten().enumerate() {
            let field = || format!("mounts[{i}].options[{k}]");
            let ids = [("uid=", &maps.uid, "uidMappings"), ("gid=", &maps.gid, "gidMappings")];
            for (name, map, mappings) in ids {
                let Some(Ok(id)) = option.strip_prefix(name).map(str::parse::<u32>) else { continue };
                if !Range::all(map).any(|r| r.holds(id)) {
                    let why = format!("cannot specify {option} mount option for rootless container");
                    return Err(invalid(field(), why).hint(format!("{id} is not mapped in linux.{mappings}")));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const OWN: Caller = Caller { uid: 1000, gid: 1001 };

    fn bundle() -> Value {
        json!({
            "ociVersion": "1.2.0", "root": {"path": "r"},
            "process": {"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/d", "type": "tmpfs", "source": "t", "options": ["mode=755"]}],
            "linux": {
                "namespaces": [{"type": "user"}],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1001, "size": 1}]
            }
        })
    }

    fn refused(change: impl Fn(&mut Value)) -> String {
        let mut config = bundle();
        change(&mut config);
        let spec: Spec = serde_json::from_value(config).unwrap();
        let ns = Namespaces::of(&spec).unwrap();
        let process = spec.process().clone().unwrap();
        check_rootless(&spec, &ns, OWN)
            .and_then(|()| check_process(&process, &spec, &ns, Some(OWN)))
            .map_or_else(|e| e.to_string(), |()| "nothing".to_string())
    }

    #[test]
    fn every_refusal_names_its_field() {
        assert_eq!(refused(|_| ()), "nothing");
        type Change = fn(&mut Value);
        let cases: &[(Change, &str)] = &[
            (|c| c["linux"]["namespaces"] = json!([]), "linux.namespaces: rootless container requires user namespaces"),
            (
                |c| c["linux"]["uidMappings"] = json!([]),
                "linux.uidMappings: rootless containers requires at least one UID mapping; hint: add {\"containerID\": 0, \
                 \"hostID\": 1000, \"size\": 1}",
            ),
            (
                |c| c["linux"]["gidMappings"] = json!(null),
                "linux.gidMappings: rootless containers requires at least one GID mapping; hint: add {\"containerID\": 0, \
                 \"hostID\": 1001, \"size\": 1}",
            ),
            (
                |c| c["mounts"][0]["options"] = json!(["mode=755", "gid=5"]),
                "mounts[0].options[1]: cannot specify gid=5 mount option for rootless container",
            ),
            (|c| c["process"]["user"]["uid"] = json!(1), "process.user.uid: 1 is not mapped in linux.uidMappings"),
            (|c| c["process"]["user"]["gid"] = json!(7), "process.user.gid: 7 is not mapped in linux.gidMappings"),
            (
                |c| c["process"]["user"]["additionalGids"] = json!([0]),
                "process.user.additionalGids: cannot set any additional groups in a rootless container",
            ),
        ];
        for (change, expected) in cases {
            let got = refused(change);
            assert!(got.starts_with(expected), "{got}");
        }
    }

    #[test]
    fn setgroups_is_denied_for_the_own_group_alone() {
        let maps = |gids: Value, rootless| {
            let mut config = bundle();
            config["linux"]["gidMappings"] = gids;
            IdMap::of(&serde_json::from_value(config).unwrap(), rootless).unwrap()
        };
        let own = json!([{"containerID": 5, "hostID": 1001, "size": 1}]);
        let more =
            json!([{"containerID": 0, "hostID": 1001, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 9}]);
        assert!(maps(own.clone(), Some(OWN)).deny_setgroups);
        assert!(!maps(own, None).deny_setgroups);
        let many = maps(more, Some(OWN));
        assert!(!many.deny_setgroups);
        assert_eq!(many.gid, "0 1001 1\n1 100000 9\n");
    }
}
