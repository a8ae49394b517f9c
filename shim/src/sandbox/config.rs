//! What a sandbox shall be: from the bundle's config.json, which `ctr sandboxes run` gives, and from the CRI's PodSandboxConfig.

use containerd_shim_protos::api::Empty;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message, UnknownValueRef};
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
    /// Whom its process runs as; `None`: as the daemon's user.
    pub user: Option<User>,
    /// Names with dots, and values.
    pub sysctls: BTreeMap<String, String>,
    /// The cgroup that its containers are in; `None`: not told, or in systemd's words.
    pub cgroup: Option<PathBuf>,
}

/// Ids as the sandbox's user namespace has them.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// All uids of the process.
    pub uid: u32,
    /// All gids of the process.
    pub gid: u32,
    /// Its supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// The parts of config.json that are a sandbox's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    hostname: String,
    process: Process,
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    user: Option<User>,
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
        let (user, sysctls) = (spec.process.user, spec.linux.sysctl);
        let mut config = Config { hostname: spec.hostname, user, sysctls, cgroup, ..Config::default() };
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

    /// hostname, linux.cgroup_parent, linux.security_context and linux.sysctls (fields 2, 8.1, 8.2 and 8.3 of runtime.v1.PodSandboxConfig, in
    /// Kubernetes' cri-api); of the security context, namespaces and the user.
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
                self.run_as(&context)?;
            }
            for entry in fields(&linux, SYSCTLS)? {
                let part = |number| fields(&entry, number)?.last().map_or(Ok(String::new()), |value| text(value));
                self.sysctls.insert(part(1)?, part(2)?);
            }
        }
        Ok(())
    }

    /// run_as_user, run_as_group and supplemental_groups of LinuxSandboxSecurityContext. What is not there is root's, as no image says otherwise.
    fn run_as(&mut self, context: &[u8]) -> Result<(), String> {
        const RUN_AS_USER: u32 = 3;
        const SUPPLEMENTAL_GROUPS: u32 = 5;
        const RUN_AS_GROUP: u32 = 8;
        let wrapped = |number, name| {
            let value = fields(context, number)?.pop().map(|value| last_number(&value, 1));
            value.map(|value| id(name, value?.unwrap_or(0))).transpose()
        };
        let (uid, gid) = (wrapped(RUN_AS_USER, "run_as_user")?, wrapped(RUN_AS_GROUP, "run_as_group")?);
        if let (None, Some(gid)) = (uid, gid) {
            return Err(format!("run_as_group {gid}: without run_as_user"));
        }
        let groups = numbers(context, SUPPLEMENTAL_GROUPS)?;
        let groups =
            groups.into_iter().map(|group| id("supplemental_groups", group)).collect::<Result<Vec<u32>, _>>()?;
        if uid.is_some() || !groups.is_empty() {
            self.user = Some(User { uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), additional_gids: groups });
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

/// The value of a field of one number, the last of which counts.
fn last_number(raw: &[u8], number: u32) -> Result<Option<u64>, String> {
    Ok(numbers(raw, number)?.pop())
}

/// The values of a field of numbers, one by one or packed.
fn numbers(raw: &[u8], number: u32) -> Result<Vec<u64>, String> {
    let message = Empty::parse_from_bytes(raw).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    for (found, value) in message.special_fields.unknown_fields().iter() {
        match value {
            UnknownValueRef::Varint(value) if found == number => all.push(value),
            UnknownValueRef::LengthDelimited(packed) if found == number => {
                let mut packed = CodedInputStream::from_bytes(packed);
                while !packed.eof().map_err(|e| e.to_string())? {
                    all.push(packed.read_raw_varint64().map_err(|e| e.to_string())?);
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// A user's or group's id: the highest number means none to the kernel. Numbers below 0 come as those above all others.
fn id(field: &str, value: u64) -> Result<u32, String> {
    let id = u32::try_from(value).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| format!("{field}: {} is not the id of anybody", value as i64))
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
    fn a_pod_says_whom_it_runs_as() {
        let of = |context: &[u8]| {
            let mut any = Any::new();
            any.type_url = "runtime.v1.PodSandboxConfig".to_string();
            // linux { security_context }
            let linux = [&[0x12, context.len() as u8], context].concat();
            any.value = [&[0x42, linux.len() as u8], &linux[..]].concat();
            Config::of(None, Some(&any), "").map(|config| config.user)
        };
        // run_as_user {value: 65535}, run_as_group {value: 1}, supplemental_groups [7, 300], packed or not
        let packed = of(b"\x1a\x04\x08\xff\xff\x03\x42\x02\x08\x01\x2a\x03\x07\xac\x02");
        assert_eq!(packed, Ok(Some(User { uid: 65535, gid: 1, additional_gids: vec![7, 300] })));
        assert_eq!(of(b"\x1a\x04\x08\xff\xff\x03\x42\x02\x08\x01\x28\x07\x28\xac\x02"), packed);
        assert_eq!(of(b"\x1a\x00"), Ok(Some(User::default())));
        assert_eq!(of(b""), Ok(None));
        assert!(of(b"\x42\x02\x08\x01").unwrap_err().contains("run_as_group 1"));
        // -1, and what the kernel takes for it
        let negative = of(b"\x1a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap_err();
        assert!(negative.contains("run_as_user: -1"), "{negative}");
        assert!(of(b"\x1a\x06\x08\xff\xff\xff\xff\x0f").unwrap_err().contains("run_as_user: 4294967295"));
    }

    #[test]
    fn a_specification_says_which_namespaces() {
        let spec = br#"{"hostname": "h", "linux": {"sysctl": {"kernel.shmmax": "1"}, "namespaces":
            [{"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts", "path": "/u"}]}}"#;
        let config = Config::of(Some(spec), None, "").unwrap();
        assert_eq!((config.made, config.joined), (CLONE_NEWNET | CLONE_NEWIPC, vec![PathBuf::from("/u")]));
        assert_eq!(Config::of(Some(spec), None, "/n").unwrap().made, CLONE_NEWIPC);
        let spec = br#"{"process": {"user": {"uid": 1, "additionalGids": [3]}}}"#;
        let user = Config::of(Some(spec), None, "").unwrap().user;
        assert_eq!(user, Some(User { uid: 1, gid: 0, additional_gids: vec![3] }));
        assert!(
            Config::of(Some(br#"{"linux": {"namespaces": [{"type": "user"}]}}"#), None, "")
                .unwrap_err()
                .contains("[0]")
        );
    }
}
