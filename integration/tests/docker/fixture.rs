//! What a test gets: a client of its mode's daemon that only sees and only leaves its own.

use crate::Turn;
use orlop_integration::docker::{Docker, Output};
use orlop_integration::dockerd::{Dockerd, Options};
use orlop_integration::pty::Pty;
use orlop_integration::{images, wait};

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How long a test waits for something that another process has to do.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Held shared by every test, and for itself by one that must be alone, across both modes.
static MACHINE: RwLock<()> = RwLock::new(());

/// The daemon of one mode and the count of its tests that have not ended.
pub(crate) struct Bench {
    daemon: Dockerd,
    options: Options,
    pending: AtomicUsize,
}

impl Bench {
    pub(crate) fn new(runtime: &Path, options: Options, selected: usize) -> Self {
        Self { daemon: Dockerd::start(runtime, options), options, pending: AtomicUsize::new(selected) }
    }

    /// Runs one test, then removes what it made, whether it passed or not.
    pub(crate) fn run(&self, id: &str, turn: Turn, body: fn(&Fixture)) {
        let fixture = Fixture::new(self, id);
        let outcome = match turn {
            Turn::Together => {
                let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
                guarded(&fixture, body)
            }
            Turn::Alone => {
                let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
                guarded(&fixture, body)
            }
            Turn::Last => guarded(&fixture, body),
        };
        self.pending.fetch_sub(1, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    }

    /// Waits until the calling test is the only one that has not ended.
    pub(crate) fn wait_for_all_others(&self) {
        wait::until("the other tests end", Duration::from_secs(1800), || {
            (self.pending.load(Ordering::SeqCst) == 1).then_some(())
        });
    }
}

fn guarded(fixture: &Fixture, body: fn(&Fixture)) -> std::thread::Result<()> {
    let outcome = catch_unwind(AssertUnwindSafe(|| body(fixture)));
    let cleaned = catch_unwind(AssertUnwindSafe(|| fixture.clean()));
    outcome.and(cleaned)
}

/// One test's view of the daemon.
pub(crate) struct Fixture<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) docker: Docker,
    id: String,
    images: Mutex<Vec<String>>,
}

impl<'a> Fixture<'a> {
    fn new(bench: &'a Bench, id: &str) -> Self {
        let docker = bench.daemon.client(&format!("orlop.test={id}"));
        Self { bench, docker, id: id.to_owned(), images: Mutex::default() }
    }

    pub(crate) fn daemon(&self) -> &'a Dockerd {
        &self.bench.daemon
    }

    /// The options of this mode's daemon, for a test that needs one of its own.
    pub(crate) fn options(&self) -> Options {
        self.bench.options
    }

    /// A name that no other test has.
    pub(crate) fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.id)
    }

    /// A name for an image that is removed when the test ends.
    pub(crate) fn image(&self, suffix: &str) -> String {
        let name = format!("{}-{suffix}", self.id).to_lowercase();
        self.images.lock().expect("not poisoned").push(name.clone());
        name
    }

    /// A directory of the host for this test, below the daemon's.
    pub(crate) fn dir(&self) -> PathBuf {
        let dir = self.daemon().dir().join("files").join(&self.id);
        std::fs::create_dir_all(&dir).expect("a directory of the test");
        dir
    }

    fn prepare(&self, line: &str) {
        images::named(line).for_each(|image| self.daemon().need(image));
    }

    /// Runs a docker command, whatever it answers.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.prepare(line);
        self.docker.run(line)
    }

    /// Runs a docker command that must succeed, and gives its standard output.
    pub(crate) fn ok(&self, line: &str) -> String {
        self.run(line).exits(0).text()
    }

    /// Runs a docker command that must exit with this status, and gives both of its outputs.
    pub(crate) fn fails(&self, status: i32, line: &str) -> String {
        let output = self.run(line).exits(status);
        output.text() + &output.error()
    }

    /// Runs a docker command with these bytes on its standard input; it must succeed.
    pub(crate) fn with_input(&self, line: &str, input: &[u8]) -> Vec<u8> {
        self.prepare(line);
        self.docker.run_with_input(line, Some(input)).exits(0).stdout
    }

    /// The command for a line, for a test that starts it itself.
    pub(crate) fn command(&self, line: &str) -> Command {
        self.prepare(line);
        self.docker.command(line)
    }

    /// Runs a docker command on a terminal of 24 rows and 80 columns.
    pub(crate) fn pty(&self, line: &str) -> Pty {
        Pty::spawn(&self.command(line), 24, 80)
    }

    /// One field of `docker inspect`, as a Go template.
    pub(crate) fn inspect(&self, object: &str, template: &str) -> String {
        self.ok(&format!("inspect -f '{{{{{template}}}}}' {object}"))
    }

    /// Waits until a field of `docker inspect` has a value.
    pub(crate) fn becomes(&self, object: &str, template: &str, value: &str) {
        wait::until(&format!("{template} of {object} is {value}"), SOON, || {
            (self.inspect(object, template) == value).then_some(())
        });
    }

    /// The pid, seen from the host, of a container's init.
    pub(crate) fn pid(&self, container: &str) -> u32 {
        self.inspect(container, ".State.Pid").parse().expect("a pid")
    }

    /// Waits until the container's log has a line that contains the text.
    pub(crate) fn logs(&self, container: &str, text: &str) {
        wait::until(&format!("{text:?} in the log of {container}"), SOON, || {
            let logs = self.run(&format!("logs {container}"));
            (logs.text() + &logs.error()).contains(text).then_some(())
        });
    }

    /// Containers of this test.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.mine("ps -aq --no-trunc")
    }

    fn mine(&self, list: &str) -> Vec<String> {
        let output = self.docker.run(&format!("{list} --filter label={}", self.docker.label)).exits(0);
        output.text().lines().map(str::to_owned).collect()
    }

    fn clean(&self) {
        let containers = self.containers();
        if !containers.is_empty() {
            self.docker.run(&format!("rm -f -v {}", containers.join(" "))).exits(0);
        }
        for network in self.mine("network ls -q") {
            self.docker.run(&format!("network rm {network}")).exits(0);
        }
        for volume in self.mine("volume ls -q") {
            self.docker.run(&format!("volume rm {volume}")).exits(0);
        }
        for image in self.images.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.docker.run(&format!("image rm -f {image}"));
        }
        let _ = std::fs::remove_dir_all(self.daemon().dir().join("files").join(&self.id));
    }
}
