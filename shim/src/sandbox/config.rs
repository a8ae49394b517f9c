//! What a sandbox shall be: from the bundle's config.json, which `ctr sandboxes run` gives, and from the CRI's PodSandboxConfig.

use containerd_shim_protos::api::Empty;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, UnknownValueRef};
use orlop_sys::process::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Namespaces that a sandbox may hold for its containers, by their names in config.json. Mounts are each container's own, and a user namespace
/// is that which the network namespace belongs to.
const KINDS: [(&str, i32); 5] = [
    ("ipc", CLONE_NEWIPC),
    ("uts", CLONE_NEWUTS),
    ("pid", CLONE_NEWPID),
    ("network", CLONE_NEWNET),
    ("cgroup", CLONE_NEWCGROUP),
];
/// What the containers of a pod share.
const OF_A_POD: i32 = CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID;

/// A sandbox, before it is started.
#[derive(Debug, Default, PartialEq)]
pub struct Config {
    /// Namespaces to be made (CLONE_NEW*).
    pub made: i32,
    /// Namespaces to be joined.
    pub joined: Vec<PathBuf>,
    /// Empty: as it is.
    pub hostname: String,
    /// Names with dots, and values.
    pub sysctls: BTreeMap<String, String>,
    /// The cgroup that its containers are in; `None`: not told, or in systemd's words.
    pub cgroup: Option<PathBuf>,
}

/// The parts of config.json that are a sandbox's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    hostname: String,
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<Namespace>,
    cgroups_path: String,
    sysctl: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

impl Config {
    /// `spec`: the bundle's config.json, if there is one; `options`: a PodSandboxConfig; `netns`: the pod's network namespace, if it has one.
    pub fn of(spec: Option<&[u8]>, options: Option<&Any>, netns: &str) -> Result<Config, String> {
        let mut config = match spec {
            Some(raw) => Config::of_spec(serde_json::from_slice(raw).map_err(|e| format!("config.json: {e}"))?)?,
            None => Config { made: OF_A_POD, ..Config::default() },
        };
        if let Some(pod) = options.filter(|any| any.type_url.ends_with("PodSandboxConfig")) {
            config.add_pod(&pod.value).map_err(|e| format!("{}: {e}", pod.type_url))?;
        }
        if !netns.is_empty() {
            config.made &= !CLONE_NEWNET;
            config.joined.push(PathBuf::from(netns));
        }
        Ok(config)
    }

    fn of_spec(spec: Spec) -> Result<Config, String> {
        let cgroup = cgroup(&spec.linux.cgroups_path);
        let mut config = Config { hostname: spec.hostname, sysctls: spec.linux.sysctl, cgroup, ..Config::default() };
        for (i, namespace) in spec.linux.namespaces.into_iter().enumerate() {
            match KINDS.iter().find(|(name, _)| *name == namespace.kind) {
                Some(_) if !namespace.path.is_empty() => config.joined.push(PathBuf::from(namespace.path)),
                Some((_, flag)) => config.made |= flag,
                None if namespace.kind == "mount" => {}
                None => {
                    return Err(format!("linux.namespaces[{i}]: a sandbox cannot hold a {} namespace", namespace.kind));
                }
            }
        }
        Ok(config)
    }

    /// hostname, linux.cgroup_parent, linux.security_context.namespace_options and linux.sysctls (fields 2, 8.1, 8.2.1 and 8.3 of
    /// runtime.v1.PodSandboxConfig, in Kubernetes' cri-api).
    fn add_pod(&mut self, raw: &[u8]) -> Result<(), String> {
        const HOSTNAME: u32 = 2;
        const LINUX: u32 = 8;
        const CGROUP_PARENT: u32 = 1;
        const SECURITY_CONTEXT: u32 = 2;
        const NAMESPACE_OPTIONS: u32 = 1;
        const SYSCTLS: u32 = 3;
        for hostname in fields(raw, HOSTNAME)? {
            self.hostname = text(&hostname)?;
        }
        for linux in fields(raw, LINUX)? {
            for parent in fields(&linux, CGROUP_PARENT)? {
                self.cgroup = cgroup(&text(&parent)?);
            }
            for context in fields(&linux, SECURITY_CONTEXT)? {
                for options in fields(&context, NAMESPACE_OPTIONS)? {
                    self.share_with_host(&options)?;
                }
            }
            for entry in fields(&linux, SYSCTLS)? {
                let part = |number| fields(&entry, number)?.last().map_or(Ok(String::new()), |value| text(value));
                self.sysctls.insert(part(1)?, part(2)?);
            }
        }
        Ok(())
    }

    /// What hostNetwork, hostPID and hostIPC of a pod ask for: NamespaceOption, each of its fields NODE.
    fn share_with_host(&mut self, options: &[u8]) -> Result<(), String> {
        const NODE: u64 = 2;
        const FIELDS: [(u32, i32); 3] = [(1, CLONE_NEWNET), (2, CLONE_NEWPID), (3, CLONE_NEWIPC)];
        for (number, flag) in FIELDS {
            if last_number(options, number)? == Some(NODE) {
                self.made &= !flag;
            }
        }
        Ok(())
    }
}

/// Only an absolute path names a directory of the hierarchy; `kubepods-x.slice` and `a.slice:b:c` are systemd's.
fn cgroup(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

fn text(raw: &[u8]) -> Result<String, String> {
    String::from_utf8(raw.to_vec()).map_err(|e| e.to_string())
}

/// The values of a field of strings or messages. A message without fields keeps all that it is given as unknown.
fn fields(raw: &[u8], number: u32) -> Result<Vec<Vec<u8>>, String> {
    let message = Empty::parse_from_bytes(raw).map_err(|e| e.to_string())?;
    let all = message.special_fields.unknown_fields().iter();
    Ok(all
        .filter_map(|(found, value)| match value {
            UnknownValueRef::LengthDelimited(bytes) if found == number => Some(bytes.to_vec()),
            _ => None,
        })
        .collect())
}

/// The value of a field of an enumeration, the last of which counts.
fn last_number(raw: &[u8], number: u32) -> Result<Option<u64>, String> {
    let message = Empty::parse_from_bytes(raw).map_err(|e| e.to_string())?;
    let all = message.special_fields.unknown_fields().iter();
    let found = all.filter_map(|(found, value)| match value {
        UnknownValueRef::Varint(value) if found == number => Some(value),
        _ => None,
    });
    Ok(found.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_what_its_containers_share() {
        let mut any = Any::new();
        any.type_url = "runtime.v1.PodSandboxConfig".to_string();
        // hostname "h"; linux { cgroup_parent "/p" sysctls { "a.b": "1" } }
        any.value = b"\x12\x01h\x42\x0e\x0a\x02/p\x1a\x08\x0a\x03a.b\x12\x011".to_vec();
        let config = Config::of(None, Some(&any), "/run/netns/x").unwrap();
        assert_eq!((config.made, config.hostname.as_str()), (OF_A_POD, "h"));
        assert_eq!(config.sysctls.get("a.b").map(String::as_str), Some("1"));
        assert_eq!(config.joined, [PathBuf::from("/run/netns/x")]);
        assert_eq!(config.cgroup, Some(PathBuf::from("/p")));
        any.value = b"\x12\x05h".to_vec();
        assert!(Config::of(None, Some(&any), "").unwrap_err().contains("PodSandboxConfig"));
    }

    #[test]
    fn a_pod_shares_with_the_host_what_it_asks_for() {
        let mut any = Any::new();
        any.type_url = "runtime.v1.PodSandboxConfig".to_string();
        // linux { security_context { namespace_options { pid: NODE ipc: POD } } }, then { pid: CONTAINER ipc: NODE }
        any.value = b"\x42\x08\x12\x06\x0a\x04\x10\x02\x18\x00".to_vec();
        assert_eq!(Config::of(None, Some(&any), "").unwrap().made, OF_A_POD & !CLONE_NEWPID);
        any.value = b"\x42\x08\x12\x06\x0a\x04\x10\x01\x18\x02".to_vec();
        assert_eq!(Config::of(None, Some(&any), "").unwrap().made, OF_A_POD & !CLONE_NEWIPC);
    }

    #[test]
    fn a_specification_says_which_namespaces() {
        let spec = br#"{"hostname": "h", "linux": {"sysctl": {"kernel.shmmax": "1"}, "namespaces":
            [{"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts", "path": "/u"}]}}"#;
        let config = Config::of(Some(spec), None, "").unwrap();
        assert_eq!((config.made, config.joined), (CLONE_NEWNET | CLONE_NEWIPC, vec![PathBuf::from("/u")]));
        assert_eq!(Config::of(Some(spec), None, "/n").unwrap().made, CLONE_NEWIPC);
        assert!(
            Config::of(Some(br#"{"linux": {"namespaces": [{"type": "user"}]}}"#), None, "")
                .unwrap_err()
                .contains("[0]")
        );
    }
}
