//! containerd's configuration with the Container Runtime Interface, in the format that the version under test has for its own.

use super::image::PAUSE;
use crate::programs;
use std::fs;
use std::path::Path;

/// The first addresses of the pods' network.
pub const SUBNET: &str = "10.211.";

/// The format, the plugins to leave out, and the tables for pods: handlers `orlop`, `runc` and, since containerd 2, `orlop-sandbox`,
/// whose pods begin without a pause container; and a bridge that gives each pod an address.
/// Writes the network's configuration below `dir`.
pub fn write(dir: &Path, version: (u32, u32), disabled: &[&str]) -> String {
    let networks = dir.join("net.d");
    fs::create_dir_all(&networks).expect("a directory of ours");
    fs::write(networks.join("10-orlop.conflist"), network(dir).to_string()).expect("a file of ours");
    let plugins = programs::path("bridge");
    let plugins = plugins.parent().expect("a file in a directory");
    let (format, tables) =
        if version.0 < 2 { (2, format_2(&networks, plugins)) } else { (3, format_3(&networks, plugins)) };
    format!("version = {format}\ndisabled_plugins = {disabled:?}\n{tables}")
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
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.orlop]
runtime_type = "io.containerd.orlop.v2"
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
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.orlop]
runtime_type = "io.containerd.orlop.v2"
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
