//! `features`: what this build can do (runtime-spec, features.md). Nothing here depends on the host but the seccomp flags
//! that the kernel knows, for so the specification has it.

use crate::error::{On, Result, invalid};
use crate::hooks;
use crate::plan::{memory_policy, mount_options, namespaces, seccomp};
use orlop_sys::bpf;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value, json};

/// The oldest version of the runtime specification whose configurations are taken.
const OLDEST: &str = "1.0.0";

/// Annotations of config.json that change what the runtime does on the host: no engine should pass one on from a user
/// whom it does not trust. A name that ends with `.` is a prefix.
const UNSAFE_ANNOTATIONS: &[&str] = &["org.criu.config", "org.systemd.property.", "run.oci."];

/// The answer of `features`: JSON, indented by four spaces.
pub fn features() -> Result<String> {
    let mut text = Vec::new();
    let mut out = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    document()?.serialize(&mut out).map_err(|e| invalid("features", e.to_string()))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(|e| invalid("features", e.to_string()))
}

fn document() -> Result<Value> {
    let mut supported_flags = Vec::new();
    for (flag, bits) in seccomp::FLAGS {
        if bpf::seccomp_flags_known(*bits).on("seccomp", "to ask for a flag")? {
            supported_flags.push(flag);
        }
    }
    Ok(json!({
        "ociVersionMin": OLDEST,
        "ociVersionMax": crate::OCI_VERSION,
        "hooks": hooks::KINDS,
        "mountOptions": mount_options::known().collect::<Vec<_>>(),
        "linux": {
            "namespaces": namespaces::KINDS,
            "capabilities": sorted(caps::all()),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHS,
                "knownFlags": seccomp::FLAGS.iter().map(|(flag, _)| flag).collect::<Vec<_>>(),
                "supportedFlags": supported_flags,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": memory_policy::MODES, "flags": memory_policy::FLAGS },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": { "org.opencontainers.runc.checkpoint.enabled": "true" },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    }))
}

fn sorted(names: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        Arch, Features, LinuxNamespaceType, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
        MemoryPolicyFlagType, MemoryPolicyModeType,
    };
    use serde::de::DeserializeOwned;
    use std::collections::BTreeSet;

    /// The names that the parser of config.json takes, which is one of oci-spec's: its own words for what it expects.
    fn taken<T: DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
        let error = serde_json::from_str::<T>("\"\"").unwrap_err().to_string();
        let names = error.split_once("expected one of ").unwrap().1;
        names.split('`').skip(1).step_by(2).map(str::to_string).collect()
    }

    fn listed(document: &Value, pointer: &str) -> BTreeSet<String> {
        let list = document.pointer(pointer).unwrap().as_array().unwrap();
        list.iter().map(|name| name.as_str().unwrap().to_string()).collect()
    }

    #[test]
    fn the_lists_are_what_the_parsers_take() {
        let document = document().unwrap();
        assert_eq!(listed(&document, "/linux/namespaces"), taken::<LinuxNamespaceType>());
        assert_eq!(listed(&document, "/linux/seccomp/actions"), taken::<LinuxSeccompAction>());
        assert_eq!(listed(&document, "/linux/seccomp/operators"), taken::<LinuxSeccompOperator>());
        assert_eq!(listed(&document, "/linux/seccomp/archs"), taken::<Arch>());
        assert_eq!(listed(&document, "/linux/seccomp/knownFlags"), taken::<LinuxSeccompFilterFlag>());
        assert_eq!(listed(&document, "/linux/memoryPolicy/modes"), taken::<MemoryPolicyModeType>());
        assert_eq!(listed(&document, "/linux/memoryPolicy/flags"), taken::<MemoryPolicyFlagType>());
    }

    #[test]
    fn the_document_is_that_of_the_specification() {
        let text = features().unwrap();
        let features: Features = serde_json::from_str(&text).unwrap();
        assert_eq!(features.oci_version_max(), crate::OCI_VERSION);
        assert!(text.starts_with("{\n    \"annotations\"") && text.ends_with("}\n"), "{text}");
        let options = features.mount_options().as_ref().unwrap();
        assert!(options.is_sorted() && options.contains(&"rro".to_string()) && options.contains(&"tmpcopyup".into()));
        assert_eq!(features.linux().as_ref().unwrap().capabilities().as_ref().unwrap().len(), 41);
    }
}
