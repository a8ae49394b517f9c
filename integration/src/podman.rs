//! Podman with storage, networks and settings of its own.

use crate::docker::{Output, finish, words};
use crate::private::{Anchor, directory, kill_all_that_name, remove_cgroups};
use crate::{images, programs, wait};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// The variable that says who manages cgroups: `cgroupfs` (the default) or `systemd`.
const CGROUP_MANAGER: &str = "CGROUP_MANAGER";

/// Where Podman, run by root, writes to besides what its settings name: each is a tmpfs of its own.
const PRIVATE: &[&str] =
    &["/dev/shm", "/run/containers", "/run/libpod", "/run/lock", "/run/netns", "/var/lib/cni", "/var/lib/containers"];

/// Variables by which the caller's own Podman finds its services and storage.
const FOREIGN: &[&str] = &[
    "BUILDAH_ISOLATION",
    "CONTAINER_CONNECTION",
    "CONTAINER_HOST",
    "NOTIFY_SOCKET",
    "REGISTRY_AUTH_FILE",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
];

/// On hosts of cgroups v1: hides the directories beside the hierarchies that are none. Podman takes them for such, makes its
/// cgroups there, and cannot remove what then are directories with files.
const HIERARCHIES_ALONE: &str = "if ! [ -e /sys/fs/cgroup/cgroup.controllers ]; then
mount -t tmpfs -o mode=755 tmpfs /mnt
for tree in /sys/fs/cgroup/*; do mountpoint -q $tree || continue; mkdir /mnt/${tree##*/}; mount --bind $tree /mnt/${tree##*/}; done
mount --move /mnt /sys/fs/cgroup
fi
";

/// Podman that knows nothing of the machine's own containers, and runs all of its by the runtime under test.
#[derive(Debug)]
pub struct Podman {
    dir: TempDir,
    anchor: Option<Anchor>,
    loaded: Mutex<images::Loaded>,
}

impl Podman {
    /// Writes the settings; there is no daemon to start.
    pub fn new(runtime: &Path) -> Self {
        let dir = directory("orlop-podman-");
        // A user has no mount namespace to hide the machine's Podman in; directories and locks of its own must do.
        let anchor = is_root().then(|| Anchor::over(dir.path(), PRIVATE, HIERARCHIES_ALONE));
        let podman = Self { dir, anchor, loaded: Mutex::default() };
        podman.configure(runtime);
        podman
    }

    fn configure(&self, runtime: &Path) {
        // conmon calls Podman for the clean-up with flags, and without these files: nothing may stand here that has no flag.
        // Limits of its own: Podman's default ones are higher than a root without CAP_SYS_RESOURCE may set.
        let path = |name: &str| self.file(name).display().to_string();
        let name = runtime.file_name().and_then(|name| name.to_str()).expect("the runtime's name");
        let engine = format!(
            "[containers]\nnetns = \"none\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\nlog_driver = \"k8s-file\"\n[network]\nnetwork_config_dir = {:?}\n[engine]\n\
             runtime = {name:?}\ncgroup_manager = {:?}\nevents_logger = \"file\"\ntmp_dir = {:?}\n\
             volume_path = {:?}\nruntime_supports_json = [{name:?}]\nruntime_supports_nocgroup = [{name:?}]\n\
             [engine.runtimes]\n{name:?} = [{:?}]\n",
            path("networks"),
            cgroup_manager(),
            path("tmp"),
            path("volumes"),
            runtime.display().to_string()
        );
        fs::write(self.file("containers.conf"), engine).expect("a file of ours");
        let storage = format!(
            "[storage]\ndriver = {:?}\ngraphroot = {:?}\nrunroot = {:?}\nrootless_storage_path = {:?}\n",
            if self.overlay_mounts() { "overlay" } else { "vfs" },
            path("storage"),
            path("run"),
            path("storage")
        );
        fs::write(self.file("storage.conf"), storage).expect("a file of ours");
        fs::create_dir(self.file("files")).expect("a directory of ours");
    }

    /// Whether layers can be overlays: not where TMPDIR is on an overlay itself. Then each is a copy (vfs), which is slow, but the same to a runtime.
    fn overlay_mounts(&self) -> bool {
        let scratch = tempfile::tempdir_in(self.dir.path()).expect("a directory of ours");
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(scratch.path().join(name)).expect("a directory of ours");
        }
        let mut command = programs::command("unshare");
        command
            .args(if is_root() { &["--mount"][..] } else { &["--mount", "--map-root-user"] })
            .args(["/bin/sh", "-c"]);
        command.arg("mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged");
        command.current_dir(scratch.path()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// A path below the directory that has all of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a process must have in its environment to see these containers.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("CONTAINERS_CONF", self.file("containers.conf")), ("CONTAINERS_STORAGE_CONF", self.file("storage.conf"))]
    }

    /// A command for a program that shares Podman's settings and namespaces.
    pub fn program(&self, program: &str) -> Command {
        let mut command = match &self.anchor {
            Some(anchor) => {
                let mut command = programs::command("nsenter");
                command.arg(format!("--target={}", anchor.pid())).args(["--mount", "--net", "--"]);
                command.arg(programs::path(program));
                command
            }
            None => programs::command(program),
        };
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        command.envs(self.environment()).env("NETAVARK_FW", "iptables").env("XDG_CACHE_HOME", self.file("cache"));
        command
    }

    /// The command for a line as one would type it behind `podman `; see [`crate::docker::words`] for quotes.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.program("podman");
        command.args(words(line));
        command
    }

    /// Runs a line to its end, with nothing on its standard input. An image that it names is imported before.
    pub fn run(&self, line: &str) -> Output {
        images::named(line).for_each(|image| self.need(image));
        self.plain(line, None)
    }

    /// Runs a line that must succeed, and gives its standard output.
    pub fn ok(&self, line: &str) -> String {
        self.run(line).exits(0).text()
    }

    /// Runs a line that must exit with this status, and gives both of its outputs.
    pub fn fails(&self, status: i32, line: &str) -> String {
        let output = self.run(line).exits(status);
        output.text() + &output.error()
    }

    /// Runs a line with these bytes, and then the end of the file, on its standard input; it must succeed.
    pub fn with_input(&self, line: &str, input: &[u8]) -> String {
        images::named(line).for_each(|image| self.need(image));
        self.plain(line, Some(input)).exits(0).text()
    }

    fn plain(&self, line: &str, input: Option<&[u8]>) -> Output {
        let mut command = self.command(line);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        finish(&format!("podman {line}"), child, input)
    }

    /// Imports an image of [`images`] unless it is there.
    pub fn need(&self, image: &str) {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        let Some(image) = images::named(image).next().filter(|image| !loaded.contains(image)) else { return };
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (cmd, tar) = images::tar(image, scratch.path());
        self.plain(&format!("import -c '{cmd}' {} {image}", tar.display()), None).exits(0);
        loaded.insert(image);
    }

    /// One field of `inspect`, as a Go template.
    pub fn inspect(&self, object: &str, template: &str) -> String {
        self.ok(&format!("inspect -f '{{{{{template}}}}}' {object}"))
    }

    /// Whether a field of `inspect` has a value now. Of a container that is just being restarted, Podman may say that there is none.
    pub fn has(&self, object: &str, template: &str, value: &str) -> bool {
        self.run(&format!("inspect -f '{{{{{template}}}}}' {object}")).text() == value
    }

    /// Waits until a field of `inspect` has a value.
    pub fn becomes(&self, object: &str, template: &str, value: &str) {
        wait::until(&format!("{template} of {object} is {value}"), wait::SOON, || {
            self.has(object, template, value).then_some(())
        });
    }

    /// Waits until all that a container has said is this.
    pub fn says(&self, container: &str, text: &str) {
        wait::until(&format!("{container} says {text:?}"), wait::SOON, || {
            (self.ok(&format!("logs {container}")) == text).then_some(())
        });
    }

    /// The pid, seen from the host, of a container's init.
    pub fn pid(&self, container: &str) -> u32 {
        self.inspect(container, ".State.Pid").parse().expect("a pid")
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who manages cgroups.
pub fn cgroup_manager() -> String {
    std::env::var(CGROUP_MANAGER).unwrap_or_else(|_| "cgroupfs".to_owned())
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.plain("pod rm --all --force --time 0", None);
        self.plain("rm --all --force --time 0", None);
        let made = self.plain("events --stream=false --format {{.ID}}", None).text();
        if self.anchor.is_none() {
            // The storage of a user has files of other ids, and a process holds the namespace of these.
            self.plain(&format!("unshare rm -rf {}", self.file("storage").display()), None);
            self.plain("system migrate", None);
        }
        kill_all_that_name(self.dir.path());
        if let Some(anchor) = &mut self.anchor {
            anchor.end();
            // Podman leaves the cgroup of a pod in v1's hierarchy of systemd, and of a container that the runtime did not delete everywhere.
            let ids: BTreeSet<&str> = made.lines().filter(|id| !id.is_empty()).collect();
            for id in ids {
                remove_cgroups(&format!("/libpod_parent/{id}"));
                remove_cgroups(&format!("/libpod_parent/libpod-{id}"));
            }
        }
    }
}
