//! `spec`: writes a config.json to begin with, the one that runc writes but for its host name.

use crate::error::{Error, Kind, On, Result, invalid};
use orlop_sys::process::{egid, euid};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The configuration with gaps, kept as text because the order of its keys is for people to read.
const TEMPLATE: &str = include_str!("spec.json");

const SYS: &str = "\t\t\t\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [";
/// Only root of a network namespace may mount its sysfs; a rootless container shares the host's.
const SYS_ROOTLESS: &str =
    "\t\t\t\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",";
const RESOURCES: &str = "\t\t\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\
                         \t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t},";
const NAMESPACES: &[&str] = &["pid", "network", "ipc", "uts", "mount"];
const NAMESPACES_ROOTLESS: &[&str] = &["pid", "ipc", "uts", "mount"];

/// Writes `config.json`, or `file`, into `bundle`; an existing one is never overwritten. `rootless` makes it one for a user without
/// privileges: an own user namespace in which the caller is root, the host's network, no limits.
pub fn spec(bundle: &Path, file: Option<&Path>, rootless: bool) -> Result<()> {
    let text = config(rootless, Path::new("/sys/fs/cgroup/cgroup.controllers").exists());
    let name = file.unwrap_or(Path::new("config.json"));
    let path = bundle.join(name);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::new(Kind::Exists, format!("File {} exists. Remove it first", name.display())));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(invalid("--bundle", "no such directory")),
        answer => answer.on("create", path.display())?,
    };
    file.write_all(text.as_bytes()).on("write", path.display())
}

/// The text of config.json. On a host with cgroup v2 alone the container gets a cgroup namespace too.
fn config(rootless: bool, unified: bool) -> String {
    let linux = if rootless {
        mapping("uidMappings", euid()) + "\n" + &mapping("gidMappings", egid())
    } else {
        RESOURCES.to_string()
    };
    let first = if rootless { NAMESPACES_ROOTLESS } else { NAMESPACES };
    let more = [("cgroup", unified), ("user", rootless)];
    let namespaces: Vec<String> = first
        .iter()
        .chain(more.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name))
        .map(|name| format!("\n\t\t\t{{\n\t\t\t\t\"type\": \"{name}\"\n\t\t\t}}"))
        .collect();
    TEMPLATE
        .replace("@VERSION@", crate::OCI_VERSION)
        .replace("@PTS_GID@", if rootless { "" } else { ",\n\t\t\t\t\"gid=5\"" })
        .replace("@SYS@", if rootless { SYS_ROOTLESS } else { SYS })
        .replace("@LINUX@", &linux)
        .replace("@NAMESPACES@", &namespaces.join(","))
}

fn mapping(name: &str, host: u32) -> String {
    format!(
        "\t\t\"{name}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {host},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed(rootless: bool, unified: bool) -> Value {
        let text = config(rootless, unified);
        assert!(!text.contains('@'), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn namespaces(config: &Value) -> Vec<&str> {
        config["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_default_is_runcs() {
        let c = parsed(false, false);
        assert_eq!(c["ociVersion"], crate::OCI_VERSION);
        assert_eq!(c["process"]["terminal"], true);
        assert_eq!(c["linux"]["resources"]["devices"][0]["access"], "rwm");
        assert_eq!(c["mounts"][2]["options"][5], "gid=5");
        assert_eq!(c["mounts"][5]["type"], "sysfs");
        assert_eq!(namespaces(&c), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(namespaces(&parsed(false, true)), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn rootless_maps_the_caller_and_keeps_the_hosts_network() {
        let c = parsed(true, true);
        assert_eq!(c["linux"]["uidMappings"][0]["hostID"], euid());
        assert_eq!(c["linux"]["gidMappings"][0]["size"], 1);
        assert!(c["linux"].get("resources").is_none());
        assert_eq!(c["mounts"][5]["options"], serde_json::json!(["rbind", "nosuid", "noexec", "nodev", "ro"]));
        assert_eq!(c["mounts"][2]["options"].as_array().unwrap().len(), 5);
        assert_eq!(namespaces(&c), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    }

    #[test]
    fn an_existing_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        spec(dir.path(), None, false).unwrap();
        let again = spec(dir.path(), None, true).unwrap_err();
        assert_eq!(again.to_string(), "File config.json exists. Remove it first");
        let kept = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(kept.contains("\"access\": \"rwm\""), "the second call wrote over the first: {kept}");
        assert!(spec(&dir.path().join("none"), None, false).is_err());
        spec(dir.path(), Some(Path::new("other.json")), true).unwrap();
        let again = spec(dir.path(), Some(Path::new("other.json")), true).unwrap_err();
        assert_eq!(again.to_string(), "File other.json exists. Remove it first");
    }
}
