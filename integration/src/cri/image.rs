//! The images of the pods, as archives that `ctr images import` takes.

use crate::images::{cached, pack};
use crate::programs::{command, path, run};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What every pod's sandbox runs.
pub const PAUSE: &str = "localhost/orlop/pause:1";
/// Debian's static busybox with all its applets, and a user `tester` (1000:1000) who is also in `audio`.
pub const BUSYBOX: &str = "localhost/orlop/busybox:1";

/// Waits for signals; collects the children that the processes of a shared pid namespace leave it.
const PAUSE_SOURCE: &str = r"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void quit(int signal) { exit(0); }
static void collect(int signal) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGTERM, quit); signal(SIGINT, quit); signal(SIGCHLD, collect); for (;;) pause(); }
";

/// Makes the archive of both images in a directory.
pub fn archive(dir: &Path) -> PathBuf {
    let top = dir.join("images");
    let images = [
        (PAUSE, "pause", pause(&dir.join("pause")), json!(["/pause"])),
        (BUSYBOX, "busybox", busybox(&dir.join("busybox")), json!(["/bin/sh"])),
    ];
    fs::create_dir(&top).expect("a directory of ours");
    let entry = |(tag, name, root, program): &(&str, &str, PathBuf, serde_json::Value)| {
        let (layer, config) = (format!("{name}.tar"), format!("{name}.json"));
        let owner = ["--numeric-owner", "--owner=0", "--group=0"];
        run(command("tar").args(owner).arg("-C").arg(root).arg("-cf").arg(top.join(&layer)).arg("."));
        let sum = run(command("busybox").arg("sha256sum").arg(top.join(&layer)));
        let sum = String::from_utf8_lossy(&sum).split(' ').next().unwrap_or_default().to_owned();
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let text = json!({
            "architecture": arch, "os": "linux",
            "config": { "Entrypoint": program, "Env": ["PATH=/bin", "FROM_IMAGE=yes"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        fs::write(top.join(&config), text.to_string()).expect("a file of ours");
        json!({ "Config": config, "RepoTags": [tag], "Layers": [layer] })
    };
    let manifest: Vec<serde_json::Value> = images.iter().map(entry).collect();
    fs::write(top.join("manifest.json"), json!(manifest).to_string()).expect("a file of ours");
    let tar = dir.join("images.tar");
    run(command("tar")
        .arg("-C")
        .arg(&top)
        .arg("-cf")
        .arg(&tar)
        .args(["manifest.json"])
        .args(images.iter().flat_map(|(_, name, ..)| [format!("{name}.tar"), format!("{name}.json")])));
    tar
}

fn pause(root: &Path) -> PathBuf {
    fs::create_dir(root).expect("a directory of ours");
    run(command("tar").arg("-C").arg(root).arg("-xf").arg(compiled_pause()));
    root.to_owned()
}

/// The root file system of [`PAUSE`], of the cache: it takes a compiler.
pub(crate) fn compiled_pause() -> PathBuf {
    cached("pause.tar", |dir| {
        let (root, source) = (dir.join("root"), dir.join("pause.c"));
        fs::create_dir(&root).expect("a directory of ours");
        fs::write(&source, PAUSE_SOURCE).expect("a file of ours");
        run(command("cc").args(["-static", "-Os", "-s", "-w", "-o"]).arg(root.join("pause")).arg(source));
        pack(&root, dir.join("image.tar"))
    })
}

fn busybox(root: &Path) -> PathBuf {
    for dir in ["bin", "etc", "tmp", "root", "srv"] {
        fs::create_dir_all(root.join(dir)).expect("a directory of ours");
    }
    fs::copy(path("busybox"), root.join("bin/busybox")).expect("copy of busybox");
    let applets = String::from_utf8(run(command("busybox").arg("--list"))).expect("ASCII");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("a link of ours");
    }
    fs::write(root.join("etc/passwd"), crate::images::PASSWD).expect("a file of ours");
    fs::write(root.join("etc/group"), crate::images::GROUP).expect("a file of ours");
    run(command("busybox").args(["chmod", "1777"]).arg(root.join("tmp")));
    root.to_owned()
}
