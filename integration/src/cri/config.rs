//! containerd's configuration with the Container Runtime Interface, in the format that the version under test has for its own. What it says of
//! the handler `orlop` is what the page for Kubernetes says.

use super::image::PAUSE;
use crate::{page, programs};
use std::fs;
use std::path::Path;

/// The first addresses of the pods' network.
pub const SUBNET: &str = "10.211.";

/// What a node is told.
const PAGE: &str = include_str!("../../../docs/kubernetes.md");

/// The page's table with this key, for this version of containerd: the comment above it names that.
fn of_the_page(version: (u32, u32), key: &str) -> String {
    let of = if version.0 < 2 { "# containerd 1.6 and 1.7" } else { "# containerd 2.x" };
    let mut tables = page::examples(PAGE, "toml");
    tables.retain(|table| table.starts_with(of) && table.contains(key));
    assert_eq!(tables.len(), 1, "docs/kubernetes.md, {of}, {key}");
    tables.remove(0)
}

/// The table that makes `orlop` the runtime of all pods.
pub fn default_runtime(version: (u32, u32)) -> String {
    of_the_page(version, "default_runtime_name")
}

/// The plugins to leave out, the format, and the tables for pods: handlers `orlop`, of which the page has the table, `runc` and, since
/// containerd 2, `orlop-sandbox`, whose pods begin without a pause container; and a bridge that gives each pod an address.
/// Writes the network's configuration below `dir`.
pub fn write(dir: &Path, version: (u32, u32), disabled: &[&str]) -> String {
    let networks = dir.join("net.d");
    fs::create_dir_all(&networks).expect("a directory of ours");
    fs::write(networks.join("10-orlop.conflist"), network(dir).to_string()).expect("a file of ours");
    let plugins = programs::path("bridge");
    let plugins = plugins.parent().expect("a file in a directory");
    let tables = if version.0 < 2 { format_2(&networks, plugins) } else { format_3(&networks, plugins) };
    // The page's block begins with the format, which belongs to no table.
    format!("disabled_plugins = {disabled:?}\n{}{tables}", of_the_page(version, "runtime_type"))
}

fn network(dir: &Path) -> serde_json::Value {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "orlop",
        "plugins": [{
            "type": "bridge",
            "bridge": "orlop0",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": dir.join("addresses"),
                "ranges": [[{ "subnet": format!("{SUBNET}0.0/16") }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

fn format_2(networks: &Path, plugins: &Path) -> String {
    format!(
        r#"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {plugins:?}
conf_dir = {networks:?}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#
    )
}

fn format_3(networks: &Path, plugins: &Path) -> String {
    format!(
        r#"
[plugins."io.containerd.nri.v1.nri"]
disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = {plugins:?}
conf_dir = {networks:?}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.orlop-sandbox]
runtime_type = "io.containerd.orlop.v2"
sandboxer = "shim"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::{Table, Value};

    const CONTAINERD: [(u32, u32); 2] = [(1, 7), (2, 1)];

    fn parsed(text: &str) -> Table {
        text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    /// A table of the plugin for pods.
    fn below<'a>(table: &'a Table, version: (u32, u32), path: &[&str]) -> &'a Table {
        let plugin = if version.0 < 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
        let path = ["plugins", plugin, "containerd"].into_iter().chain(path.iter().copied());
        path.fold(table, |table, name| table[name].as_table().expect("a table"))
    }

    #[test]
    fn the_pages_tables_are_of_their_version() {
        assert_eq!(page::examples(PAGE, "toml").len(), 6, "each is tried here or by the tests of pods");
        for version in CONTAINERD {
            let handler = parsed(&of_the_page(version, "runtime_type"));
            assert_eq!(handler["version"], Value::from(if version.0 < 2 { 2 } else { 3 }));
            let orlop = below(&handler, version, &["runtimes", "orlop"]);
            assert_eq!(orlop["runtime_type"].as_str(), Some("io.containerd.orlop.v2"));
            let default = parsed(&default_runtime(version));
            assert_eq!(below(&default, version, &[])["default_runtime_name"].as_str(), Some("orlop"));
        }
    }

    /// The tests of pods have no kubelet with systemd's cgroups; those of docs/containerd.md hand the same options to the shim.
    #[test]
    fn the_pages_options_are_those_of_the_shim() {
        let page = page::parts(include_str!("../../../docs/containerd.md")).expect("a page");
        let file = page.iter().find_map(|part| match part {
            page::Part::File { path, text } if path == "/etc/containerd/orlop.toml" => Some(text),
            _ => None,
        });
        let options = parsed(file.expect("docs/containerd.md has the options"));
        for version in CONTAINERD {
            let table = parsed(&of_the_page(version, "SystemdCgroup"));
            assert_eq!(below(&table, version, &["runtimes", "orlop", "options"]), &options);
        }
    }

    #[test]
    fn the_configuration_is_one_table() {
        for version in CONTAINERD {
            let tables = ["runtime_type", "SystemdCgroup", "default_runtime_name"].map(|key| of_the_page(version, key));
            let node = parsed(&tables.concat());
            assert!(below(&node, version, &["runtimes", "orlop"]).contains_key("options"));
            let (networks, plugins) = (Path::new("/net.d"), Path::new("/plugins"));
            let rest = if version.0 < 2 { format_2(networks, plugins) } else { format_3(networks, plugins) };
            let whole = parsed(&format!("{}{rest}{}", tables[0], tables[2]));
            assert!(below(&whole, version, &["runtimes"]).contains_key("runc"));
        }
    }

    /// The class names the handler, and the pod the class.
    #[test]
    fn the_pages_class_leads_from_a_pod_to_the_handler() {
        let yaml = page::examples(PAGE, "yaml");
        let [documents] = yaml.as_slice() else { panic!("{yaml:?}") };
        let (class, pod) = documents.split_once("---\n").expect("two documents");
        let has = |document: &str, line: &str| assert!(document.lines().any(|l| l == line), "{line:?} in\n{document}");
        for line in ["apiVersion: node.k8s.io/v1", "kind: RuntimeClass", "  name: orlop", "handler: orlop"] {
            has(class, line);
        }
        for line in ["apiVersion: v1", "kind: Pod", "  runtimeClassName: orlop"] {
            has(pod, line);
        }
    }
}
