//! What a test gets: names that no other test has, and what goes by them removed at its end.

use orlop_integration::criu;
use orlop_integration::podman::{Podman, cgroup_manager, is_root};
use orlop_integration::pty::Pty;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What makes units of `.container` files: root's, and those of other users.
const QUADLET: [&str; 2] = [
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/usr/lib/systemd/user-generators/podman-user-generator",
];

/// What a test needs of who runs it, and where; without, it is reported as ignored.
#[derive(Clone, Copy)]
pub(crate) enum Needs {
    Nothing,
    Root,
    User,
    /// Cgroups that are its own to limit and freeze: root's, or a user's by systemd.
    Cgroups,
    /// Systemd: as this host's manager for root, as one's own for a user.
    Systemd,
    /// That, and a Podman that makes units of `.container` files: 4.4 and later.
    Quadlet,
    /// Root, and a CRIU that works on this kernel.
    Criu,
}

impl Needs {
    pub(crate) fn are_met(self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Root => is_root(),
            Self::User => !is_root(),
            Self::Cgroups => is_root() || cgroup_manager() == "systemd",
            Self::Systemd if is_root() => Path::new("/run/systemd/system").is_dir(),
            Self::Systemd => runtime_dir().is_some_and(|dir| dir.join("systemd/private").exists()),
            Self::Quadlet => Self::Systemd.are_met() && Path::new(QUADLET[usize::from(!is_root())]).exists(),
            Self::Criu => {
                static WORKS: LazyLock<bool> = LazyLock::new(criu::works);
                is_root() && *WORKS
            }
        }
    }
}

/// The directory of a user's sockets, where that user's systemd has its own.
pub(crate) fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// Podman, seen by one test.
pub(crate) struct Fixture<'a> {
    podman: &'a Podman,
    id: &'a str,
}

impl Deref for Fixture<'_> {
    type Target = Podman;

    fn deref(&self) -> &Podman {
        self.podman
    }
}

impl Fixture<'_> {
    /// A name that no other test has.
    pub(crate) fn name(&self, suffix: &str) -> String {
        format!("{}{suffix}", prefix(self.id))
    }

    /// A directory of the host for this test.
    pub(crate) fn dir(&self) -> PathBuf {
        let dir = self.file("files").join(self.id);
        std::fs::create_dir_all(&dir).expect("a directory of the test");
        dir
    }

    /// Runs a podman command on a terminal of 24 rows and 80 columns.
    pub(crate) fn pty(&self, line: &str) -> Pty {
        orlop_integration::images::named(line).for_each(|image| self.need(image));
        Pty::spawn(&self.command(line), 24, 80)
    }

    /// Starts a container that waits, and gives its name.
    pub(crate) fn idle(&self, flags: &str) -> String {
        let c = self.name("idle");
        self.ok(&format!("run -d --name {c} {flags} {} sleep 1000", orlop_integration::images::BUSYBOX));
        c
    }
}

/// Of one test alone: the name of one may be the beginning of another's.
fn prefix(id: &str) -> String {
    format!("{id}--")
}

/// Runs one test, then removes what goes by its name, whether it passed or not.
pub(crate) fn guarded(podman: &Podman, id: &str, body: fn(&Fixture)) {
    let fixture = Fixture { podman, id };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&fixture)));
    let names = |list: &str| -> Vec<String> {
        let all = podman.run(list).text();
        all.lines().filter(|name| name.starts_with(&prefix(id))).map(str::to_owned).collect()
    };
    for pod in names("pod ps --format {{.Name}}") {
        podman.run(&format!("pod rm -f -t 0 {pod}"));
    }
    for container in names("ps -a --format {{.Names}}") {
        podman.run(&format!("rm -f -t 0 {container}"));
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}
