//! Which unit a container is: `linux.cgroupsPath` as `slice:prefix:name`, and where the unit's cgroup lies.

use crate::error::{Result, invalid};
use serde::{Deserialize, Serialize};

const FIELD: &str = "linux.cgroupsPath";
/// The longest name that systemd takes (`UNIT_NAME_MAX`).
const LONGEST: usize = 255;

/// The unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name: a scope, or a slice if the name in config.json is that of one.
    pub name: String,
    /// The slice that it lies in.
    pub slice: String,
    /// Whether it belongs to the systemd of a user.
    pub user: bool,
}

impl Unit {
    /// The unit of `cgroupsPath`: `slice:prefix:name`, where an empty slice is the default one and `-` the root. Without
    /// a path it is `:orlop:ID`: the prefix says whose container it is, as runc's and crun's do.
    ///
    /// # Errors
    /// Another form, and names that systemd would not take.
    pub fn of(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Unit> {
        let default = format!(":orlop:{id}");
        let path = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(&default);
        let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] else {
            let why = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            );
            return Err(invalid(FIELD, why));
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            "-" => "-.slice",
            named => named,
        };
        expand(slice)?;
        let name = if name.ends_with(".slice") { name.to_string() } else { format!("{prefix}-{name}.scope") };
        if name.ends_with(".slice") {
            expand(&name)?;
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.\\@:".contains(&b);
        if name.len() > LONGEST || !name.bytes().all(plain) {
            return Err(invalid(FIELD, format!("{name:?} is not the name of a systemd unit"))
                .hint("up to 255 letters, digits and - _ . \\ @"));
        }
        Ok(Unit { name, slice: slice.to_string(), user })
    }

    /// Whether it is a slice itself.
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Its cgroup below that of its systemd, without a slash at the start. A slice is where its name says.
    pub fn cgroup(&self) -> Result<String> {
        if self.is_slice() {
            return expand(&self.name);
        }
        let slice = expand(&self.slice)?;
        Ok(if slice.is_empty() { self.name.clone() } else { format!("{slice}/{}", self.name) })
    }
}

/// The cgroup of a slice (systemd.slice(5)): the dashes in its name are levels.
fn expand(slice: &str) -> Result<String> {
    let bad = || invalid(FIELD, format!("invalid slice name: {slice}")).hint("as in a-b.slice, without slashes");
    let stem = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if stem == "-" {
        return Ok(String::new());
    }
    if slice.contains('/') || stem.split('-').any(str::is_empty) {
        return Err(bad());
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let levels: Vec<String> = ends.map(|end| format!("{}.slice", stem.get(..end).unwrap_or(stem))).collect();
    Ok(levels.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_units() {
        for (path, user, name, slice, cgroup) in [
            (None, false, "orlop-id.scope", "system.slice", "system.slice/orlop-id.scope"),
            (Some(""), true, "orlop-id.scope", "user.slice", "user.slice/orlop-id.scope"),
            (Some("::x"), false, "-x.scope", "system.slice", "system.slice/-x.scope"),
            (
                Some("machine.slice:libpod:1a"),
                false,
                "libpod-1a.scope",
                "machine.slice",
                "machine.slice/libpod-1a.scope",
            ),
            (Some("a-b-c.slice:p:n"), false, "p-n.scope", "a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
            (Some("-:p:n"), false, "p-n.scope", "-.slice", "p-n.scope"),
            (Some("-.slice:p:n"), true, "p-n.scope", "-.slice", "p-n.scope"),
            (Some("a.slice:p:b-c.slice"), false, "b-c.slice", "a.slice", "b.slice/b-c.slice"),
        ] {
            let unit = Unit::of(path, "id", user).unwrap();
            assert_eq!((unit.name.as_str(), unit.slice.as_str(), unit.user), (name, slice, user), "{path:?}");
            assert_eq!(unit.cgroup().unwrap(), cgroup, "{path:?}");
        }
    }

    #[test]
    fn what_names_no_unit_is_refused() {
        for (path, expected) in [
            (
                "/a/b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
            ),
            (
                "a:b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"a:b\" instead",
            ),
            ("a.slice:b:c:d", "expected cgroupsPath"),
            ("system:p:n", "invalid slice name: system"),
            (".slice:p:n", "invalid slice name: .slice"),
            ("a.slice/b.slice:p:n", "invalid slice name: a.slice/b.slice"),
            ("a--b.slice:p:n", "invalid slice name: a--b.slice"),
            ("-a.slice:p:n", "invalid slice name: -a.slice"),
            ("a.slice:p:x/../y", "\"p-x/../y.scope\" is not the name of a systemd unit"),
            ("a.slice:p:b c", "\"p-b c.scope\" is not the name of a systemd unit"),
            ("a.slice:p:../b.slice", "invalid slice name: ../b.slice"),
        ] {
            let e = Unit::of(Some(path), "id", false).unwrap_err().to_string();
            assert!(e.starts_with(&format!("linux.cgroupsPath: {expected}")), "{path}: {e}");
        }
    }
}
