//! Options of `io.containerd.runc.v2`, as containerd and Docker give them, kept in the bundle for `delete`.

use containerd_shim_protos::protobuf::{Message, well_known_types::any::Any};
use orlop::cgroup::Driver;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The runtime's options (containerd's api/types/runc/options/oci.proto). In the bundle's options.json the names are the Go shim's.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Options {
    /// chroot instead of pivot_root.
    #[serde(skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    /// Keep the session keyring.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    /// The cgroup of the daemon itself.
    #[serde(skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// Owner of the pipes of standard streams.
    #[serde(skip_serializing_if = "is_default")]
    pub io_uid: u32,
    /// Group of the pipes of standard streams.
    #[serde(skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// Another runtime to drive instead of orlop.
    #[serde(skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// Where the runtime keeps its state.
    #[serde(skip_serializing_if = "is_default")]
    pub root: String,
    /// cgroups are made by systemd.
    #[serde(skip_serializing_if = "is_default")]
    pub systemd_cgroup: bool,
    /// Where CRIU keeps its images.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_image_path: String,
    /// Where CRIU works.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const FILE: &str = "options.json";

impl Options {
    /// From the message that containerd sends. Docker and containerd both use runc's type for runtimes of our name; an unknown type has no options for us.
    pub fn from_any(any: Option<&Any>) -> Result<Options, String> {
        let Some(any) = any.filter(|any| !any.value.is_empty() && any.type_url.ends_with("Options")) else {
            return Ok(Options::default());
        };
        let raw = containerd_shim_protos::shim::oci::Options::parse_from_bytes(&any.value)
            .map_err(|e| format!("options of the runtime ({}): {e}", any.type_url))?;
        Ok(Options {
            no_pivot_root: raw.no_pivot_root,
            no_new_keyring: raw.no_new_keyring,
            shim_cgroup: raw.shim_cgroup,
            io_uid: raw.io_uid,
            io_gid: raw.io_gid,
            binary_name: raw.binary_name,
            root: raw.root,
            systemd_cgroup: raw.systemd_cgroup,
            criu_image_path: raw.criu_image_path,
            criu_work_path: raw.criu_work_path,
        })
    }

    /// Those of the bundle; the default where none were kept.
    pub fn load(bundle: &Path) -> Options {
        std::fs::read(bundle.join(FILE)).ok().and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default()
    }

    /// Keeps them in the bundle.
    pub fn save(&self, bundle: &Path) -> std::io::Result<()> {
        std::fs::write(bundle.join(FILE), serde_json::to_vec(self)?)
    }

    /// Where the runtime keeps the state of this namespace's containers.
    pub fn state_root(&self, namespace: &str) -> PathBuf {
        let runtime = if self.binary_name.is_empty() { "/run/containerd/orlop" } else { "/run/containerd/runc" };
        let root = if self.root.is_empty() { runtime } else { &self.root };
        Path::new(root).join(namespace)
    }

    /// What holds for every operation of the runtime.
    pub fn global(&self, namespace: &str) -> orlop::ops::Global {
        orlop::ops::Global {
            root: self.state_root(namespace),
            cgroups: if self.systemd_cgroup { Driver::Systemd } else { Driver::default() },
            rootless: None,
            debug: false,
        }
    }
}
