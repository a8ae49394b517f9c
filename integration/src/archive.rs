//! Images for containerd, in the form of `docker save`: made of layers, nothing downloaded.

use crate::programs::{command, run};
use std::fs;
use std::path::{Path, PathBuf};

/// Packs `root` and after it `more` layers of one small file each, `/layers/NUMBER`, into an image of this name. Gives the file for `ctr images import`.
pub fn image(name: &str, root: &Path, more: usize, scratch: &Path) -> PathBuf {
    let dir = scratch.join(name.replace(['/', ':'], "-"));
    fs::create_dir_all(&dir).expect("a directory of ours");
    let mut layers = vec![tar(root, &dir.join("0.tar"))];
    for number in 1..=more {
        let one = dir.join("one");
        fs::create_dir_all(one.join("layers")).expect("a directory of ours");
        fs::write(one.join(format!("layers/{number}")), "here\n").expect("a file of ours");
        layers.push(tar(&one, &dir.join(format!("{number}.tar"))));
        fs::remove_dir_all(one).expect("ours");
    }
    let sums = String::from_utf8(run(command("sha256sum").args(&layers))).expect("ASCII");
    let ids: Vec<String> = sums.lines().map(|line| format!("sha256:{}", &line[..64])).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    for (file, content) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(dir.join(file), content.to_string()).expect("a file of ours");
    }
    tar(&dir, &scratch.join(format!("{}.tar", name.replace(['/', ':'], "-"))))
}

fn tar(root: &Path, file: &Path) -> PathBuf {
    run(command("tar").args(["--numeric-owner", "-C"]).arg(root).arg("-cf").arg(file).arg("."));
    file.to_owned()
}
