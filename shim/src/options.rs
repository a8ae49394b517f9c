//! Options of `io.containerd.runc.v2`, as containerd and Docker give them, kept in the bundle for `delete`.

use containerd_shim_protos::protobuf::{self, CodedInputStream, Message, well_known_types::any::Any};
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

/// `config_path` and `config_body` of the message.
fn generic(message: &[u8]) -> protobuf::Result<(String, String)> {
    let (mut path, mut body) = (String::new(), String::new());
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        // The number of a field, and 2: bytes with a length.
        match (tag >> 3, tag & 7) {
            (2, 2) => path = input.read_string()?,
            (3, 2) => body = input.read_string()?,
            (_, 2) => drop(input.read_bytes()?),
            (_, kind) => return Err(std::io::Error::other(format!("wire type {kind}")).into()),
        }
    }
    Ok((path, body))
}

/// The options of [`LINUX`].
fn linux(message: &[u8]) -> protobuf::Result<Result<Options, String>> {
    let mut options = Options::default();
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        // The number of a field, and its kind: 0 is a number, 2 are bytes with a length.
        let (field, number, text) = match (tag >> 3, tag & 7) {
            (field, 0) => (field, input.read_uint64()?, String::new()),
            (field, 2) => (field, 0, input.read_string()?),
            (_, kind) => return Err(std::io::Error::other(format!("wire type {kind}")).into()),
        };
        match field {
            1 => options.no_pivot_root = number != 0,
            8 => options.no_new_keyring = number != 0,
            9 => options.shim_cgroup = text,
            10 => options.io_uid = number as u32,
            11 => options.io_gid = number as u32,
            12 => options.criu_work_path = text,
            13 => options.criu_image_path = text,
            _ if number == 0 && text.is_empty() => {}
            other => {
                let name = OF_A_RESTORE.iter().find(|(field, _)| *field == other).map(|(_, name)| *name);
                let name = name.map_or_else(|| format!("field {other}"), str::to_string);
                return Ok(Err(format!("options of the runtime ({LINUX}): {name} is not supported")));
            }
        }
    }
    Ok(Ok(options))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const FILE: &str = "options.json";

/// Options of a runtime that containerd does not know, in its own words: a file of the host or its text (containerd's
/// api/types/runtimeoptions/v1/api.proto). CRI and `ctr --runtime-config-path` give them so.
const GENERIC: &str = "runtimeoptions.v1.Options";
/// Options of runc's shim: Docker gives them to any runtime.
const RUNC: &str = "runc.v1.Options";

/// Options of the runtime that was there before runc's shim (containerd's runtime/linux/runctypes/runc.proto): what clients of containerd 1 make
/// of an option for a runtime of any other name than `io.containerd.runc`, as `ctr run --uidmap`.
const LINUX: &str = "linux.runc.CreateOptions";
/// Fields of [`LINUX`] that were for the restoring of a checkpoint, and that no client sets.
const OF_A_RESTORE: [(u32, &str); 6] = [
    (2, "open_tcp"),
    (3, "external_unix_sockets"),
    (4, "terminal"),
    (5, "file_locks"),
    (6, "empty_namespaces"),
    (7, "cgroups_mode"),
];

/// The TOML of [`GENERIC`] options: runc's, by the names that they have in containerd's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
struct Table {
    no_pivot_root: bool,
    no_new_keyring: bool,
    shim_cgroup: String,
    io_uid: u32,
    io_gid: u32,
    binary_name: String,
    root: String,
    /// containerd 1 writes it into its own configuration, empty; what it said has gone from runc's shim as well.
    criu_path: String,
    systemd_cgroup: bool,
    criu_image_path: String,
    criu_work_path: String,
    /// What the table is, for containerd.
    #[serde(rename = "TypeUrl")]
    _type: String,
}

impl Options {
    /// Whether this message holds options.
    pub fn are(any: &Any) -> bool {
        [GENERIC, RUNC, LINUX].iter().any(|name| any.type_url.ends_with(name))
    }

    /// From the message that containerd sends.
    ///
    /// # Errors
    /// One that is no options of ours; a table with a key that is not there, or with a value of another kind.
    pub fn from_any(any: Option<&Any>) -> Result<Options, String> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Options::default()) };
        if any.type_url.ends_with(GENERIC) {
            return Options::from_table(&any.value);
        }
        if any.type_url.ends_with(LINUX) {
            return linux(&any.value).map_err(|e| format!("options of the runtime ({LINUX}): {e}"))?;
        }
        if !any.type_url.ends_with(RUNC) {
            let known = [RUNC, GENERIC, LINUX].join(", ");
            return Err(format!("options of the runtime: {:?} is none of {known}", any.type_url));
        }
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

    fn from_table(message: &[u8]) -> Result<Options, String> {
        let (path, body) = generic(message).map_err(|e| format!("options of the runtime ({GENERIC}): {e}"))?;
        let (place, body) = match path.as_str() {
            "" => ("options of the runtime", body),
            path if cfg!(fuzzing) => return Err(format!("options of the runtime: {path}: not read")),
            path => (path, std::fs::read_to_string(path).map_err(|e| format!("options of the runtime: {path}: {e}"))?),
        };
        let table: Table = toml::from_str(&body).map_err(|e| {
            let line = e.span().map_or(1, |at| 1 + body.bytes().take(at.start).filter(|byte| *byte == b'\n').count());
            format!("{place}, line {line}: {}", e.message())
        })?;
        if !table.criu_path.is_empty() {
            return Err(format!("{place}: CriuPath: CRIU is found by PATH, and cannot be named here"));
        }
        Ok(Options {
            no_pivot_root: table.no_pivot_root,
            no_new_keyring: table.no_new_keyring,
            shim_cgroup: table.shim_cgroup,
            io_uid: table.io_uid,
            io_gid: table.io_gid,
            binary_name: table.binary_name,
            root: table.root,
            systemd_cgroup: table.systemd_cgroup,
            criu_image_path: table.criu_image_path,
            criu_work_path: table.criu_work_path,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn any(kind: &str, value: &[u8]) -> Any {
        Any { type_url: kind.to_string(), value: value.to_vec(), ..Default::default() }
    }

    /// A message with these fields of bytes.
    fn message(fields: &[(u8, &str)]) -> Vec<u8> {
        fields.iter().flat_map(|(n, text)| [&[n << 3 | 2, text.len() as u8], text.as_bytes()].concat()).collect()
    }

    #[test]
    fn options_come_as_a_table() {
        let table = "TypeUrl = \"x\"\nSystemdCgroup = true\nBinaryName = \"/b\"\nIoUid = 7\nCriuPath = \"\"\n";
        let expected = Options { systemd_cgroup: true, binary_name: "/b".to_string(), io_uid: 7, ..Options::default() };
        let from = |fields: &[(u8, &str)]| Options::from_any(Some(&any(GENERIC, &message(fields))));
        assert_eq!(from(&[(1, "x"), (3, table)]), Ok(expected.clone()));
        let file = std::env::temp_dir().join(format!("orlop-options-{}", std::process::id()));
        std::fs::write(&file, table).unwrap();
        assert_eq!(from(&[(2, file.to_str().unwrap())]), Ok(expected));
        std::fs::remove_file(&file).unwrap();
        assert!(from(&[(2, file.to_str().unwrap())]).unwrap_err().contains("No such file"));
        assert_eq!(from(&[(3, "")]), Ok(Options::default()));
    }

    /// What `ctr run --uidmap … --gidmap …` of containerd 1.7 gives.
    #[test]
    fn options_of_the_time_before_shims() {
        let from = |raw: &[u8]| Options::from_any(Some(&any("containerd.linux.runc.CreateOptions", raw)));
        let expected = Options { io_uid: 300_000, io_gid: 300_001, ..Options::default() };
        // The numbers of the fields, with the kind of a number, and 300,000 and 300,001 as varints.
        assert_eq!(from(&[10 << 3, 0xe0, 0xa7, 0x12, 11 << 3, 0xe1, 0xa7, 0x12]), Ok(expected));
        let expected = Options {
            no_pivot_root: true,
            no_new_keyring: true,
            shim_cgroup: "/c".to_string(),
            criu_work_path: "w".to_string(),
            criu_image_path: "i".to_string(),
            ..Options::default()
        };
        let texts = message(&[(9, "/c"), (12, "w"), (13, "i")]);
        assert_eq!(from(&[&[1 << 3, 1, 8 << 3, 1], &texts[..]].concat()), Ok(expected));
        assert!(from(&[2 << 3, 1]).unwrap_err().contains("open_tcp is not supported"));
        assert!(from(&message(&[(14, "x")])).unwrap_err().contains("field 14 is not supported"));
        assert!(from(&[1 << 3 | 1]).unwrap_err().contains("wire type 1"));
    }

    #[test]
    fn options_that_are_not_there_are_named() {
        for (table, says) in [
            ("\nSystemdCgroups = true\n", "line 2: unknown field `SystemdCgroups`"),
            ("SystemdCgroup = 1\n", "line 1: invalid type: integer `1`, expected a boolean"),
            ("CriuPath = \"/c\"\n", "CriuPath: "),
        ] {
            let e = Options::from_any(Some(&any(GENERIC, &message(&[(3, table)])))).unwrap_err();
            assert!(e.starts_with("options of the runtime") && e.contains(says), "{e}");
        }
        assert!(Options::from_any(Some(&any("x.Options", b"x"))).unwrap_err().contains("\"x.Options\""));
        assert!(Options::from_any(Some(&any(GENERIC, &[0x08, 1]))).unwrap_err().contains("wire type 0"));
    }
}
