//! The images of the tests. Nothing is downloaded but Debian's own packages, once.

use crate::docker::Docker;
use crate::programs::{command, path, run};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// One static program that prints [`GREETING_TEXT`], and nothing else.
pub const GREETING: &str = "orlop-greeting";
/// Debian's static busybox with all its applets, and a user `tester` (1000:1000) who is also in `audio`.
pub const BUSYBOX: &str = "orlop-busybox";
/// Debian bookworm, minimal, with Python.
pub const DEBIAN: &str = "orlop-debian";

/// What [`GREETING`] prints.
pub const GREETING_TEXT: &str = "Hello from the lowest deck!";

/// Images that a daemon has.
pub type Loaded = BTreeSet<&'static str>;

const SUITE: &str = "bookworm";
pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ntester:x:1000:1000::/home/tester:/bin/sh\n";
pub(crate) const GROUP: &str = "root:x:0:\naudio:x:29:tester\ntester:x:1000:\n";

type Builder = fn(&Path) -> PathBuf;

/// Image, its default command, and what makes its tar file in a scratch directory.
const IMAGES: &[(&str, &str, Builder)] = &[
    (GREETING, r#"CMD ["/greeting"]"#, |_| greeting()),
    (BUSYBOX, r#"CMD ["/bin/sh"]"#, busybox),
    (DEBIAN, r#"CMD ["/bin/bash"]"#, |_| debian()),
];

/// Imports `name` into the daemon unless `loaded` has it.
pub fn load(docker: &Docker, name: &str, loaded: &mut Loaded) {
    let name = IMAGES.iter().map(|i| i.0).find(|n| *n == name).unwrap_or_else(|| panic!("no image {name}"));
    if loaded.contains(name) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (cmd, tar) = tar(name, scratch.path());
    docker.run(&format!("import -c '{cmd}' {} {name}", tar.display())).exits(0);
    loaded.insert(name);
}

/// An image's default command, as a change of `import`, and its tar file, in `scratch` unless the cache has it.
///
/// # Panics
/// When there is no image of this name.
pub fn tar(name: &str, scratch: &Path) -> (&'static str, PathBuf) {
    let (_, cmd, build) = IMAGES.iter().find(|i| i.0 == name).unwrap_or_else(|| panic!("no image {name}"));
    (cmd, build(scratch))
}

/// The images that a command line names.
pub fn named(line: &str) -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|i| i.0).filter(move |name| line.split_whitespace().any(|word| word == *name))
}

/// Makes the images that take tools or the network, where the cache does not have them: a machine without those gets a copy of the cache.
pub fn fill_cache() {
    greeting();
    debian();
    crate::cri::image::compiled_pause();
}

fn greeting() -> PathBuf {
    cached("greeting.tar", |dir| {
        let root = dir.join("root");
        fs::create_dir(&root).expect("a directory of ours");
        let source = dir.join("greeting.c");
        fs::write(&source, format!("#include <stdio.h>\nint main(void) {{ return puts(\"{GREETING_TEXT}\") < 0; }}\n"))
            .expect("a file of ours");
        run(command("cc").args(["-static", "-Os", "-s", "-o"]).arg(root.join("greeting")).arg(source));
        pack(&root, dir.join("image.tar"))
    })
}

/// A tar file of [`BUSYBOX`]'s root, made in this directory.
pub fn busybox(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for sub in ["bin", "etc", "tmp", "root", "home/tester", "srv"] {
        fs::create_dir_all(root.join(sub)).expect("a directory of ours");
    }
    fs::copy(path("busybox"), root.join("bin/busybox")).expect("copy of busybox");
    let applets = String::from_utf8(run(command("busybox").arg("--list"))).expect("ASCII");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("a link of ours");
    }
    fs::write(root.join("etc/passwd"), PASSWD).expect("a file of ours");
    fs::write(root.join("etc/group"), GROUP).expect("a file of ours");
    run(command("busybox").args(["chown", "-R", "1000:1000"]).arg(root.join("home/tester")));
    run(command("busybox").args(["chmod", "1777"]).arg(root.join("tmp")));
    pack(&root, dir.join("image.tar"))
}

/// Made once per user: `debootstrap` takes a minute. `ORLOP_DEBIAN_MIRROR` names another mirror than its default.
fn debian() -> PathBuf {
    cached(&format!("debian-{SUITE}-python3-redis.tar"), bootstrap)
}

/// A file of the cache, which `make` makes in a scratch directory if it is not there.
pub(crate) fn cached(name: &str, make: fn(&Path) -> PathBuf) -> PathBuf {
    let cache = cache_dir();
    let tar = cache.join(name);
    if tar.exists() {
        return tar;
    }
    fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
    let lock = File::options().create(true).append(true).open(cache.join("lock")).expect("the lock file of the cache");
    flock(&lock, FlockOperation::LockExclusive).expect("flock");
    if !tar.exists() {
        let scratch = tempfile::tempdir_in(&cache).expect("a directory in the cache");
        let made = make(scratch.path());
        fs::rename(made, &tar).expect("rename within the cache");
    }
    tar
}

fn bootstrap(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    let mut debootstrap = command("unshare");
    // debootstrap mounts /proc in its target: in a mount namespace of its own nothing of that can stay.
    debootstrap.args(["--mount", "--propagation", "private", "--"]).arg(path("debootstrap"));
    debootstrap.args(["--variant=minbase", "--include=python3,redis-server", SUITE]).arg(&root);
    debootstrap.args(std::env::var_os("ORLOP_DEBIAN_MIRROR"));
    run(&mut debootstrap);
    for dir in ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"] {
        let _ = fs::remove_dir_all(root.join(dir));
    }
    pack(&root, dir.join("image.tar"))
}

fn cache_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("orlop")
}

/// A tar file of a directory, without what is mounted there.
pub(crate) fn pack(root: &Path, tar: PathBuf) -> PathBuf {
    let owner = ["--numeric-owner", "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*"];
    run(command("tar").args(owner).arg("-C").arg(root).arg("-cf").arg(&tar).arg(".").stderr(Stdio::inherit()));
    tar
}
