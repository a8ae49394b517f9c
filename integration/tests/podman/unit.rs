//! Containers as services: readiness by sd_notify(3), generated units, quadlets.

use crate::fixture::{Fixture, runtime_dir};
use orlop_integration::images::BUSYBOX;
use orlop_integration::podman::is_root;
use orlop_integration::wait;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

crate::tests![
    Nothing: conmon_notifies, container_notifies;
    Systemd: notify_unit, unit_waits_for_the_container, generated_unit;
    Quadlet: quadlet, quadlet_waits_for_the_container;
];

/// A service manager's socket, as `podman run` finds it in NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(f: &Fixture) -> Self {
        let path = f.dir().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket of the test");
        Self { socket, path }
    }

    /// Starts a Podman that is to tell this manager.
    fn spawn(&self, f: &Fixture, line: &str) -> Child {
        let mut command = f.command(line);
        command.env("NOTIFY_SOCKET", &self.path).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    /// Takes messages until all of these beginnings of lines have come, and gives the lines.
    fn told(&self, wanted: &[&str]) -> Vec<String> {
        self.socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        let mut lines: Vec<String> = Vec::new();
        while !wanted.iter().all(|wanted| lines.iter().any(|line| line.starts_with(wanted))) {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted:?}; told: {lines:?}; {e}"));
            lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        lines
    }

    /// Whether nothing has been told that was not taken.
    fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket of the test");
        let silent = self.socket.recv(&mut [0; 4096]).is_err();
        self.socket.set_nonblocking(false).expect("a socket of the test");
        silent
    }
}

/// What `podman run` says when conmon tells that the container is up: that it is ready, and who its main process is.
fn conmon_notifies(f: &Fixture) {
    let (c, manager) = (f.name("c"), Manager::new(f));
    f.need(BUSYBOX);
    let mut child = manager.spawn(f, &format!("run -d --sdnotify conmon --name {c} {BUSYBOX} sleep 1000"));
    manager.told(&["READY=1", "MAINPID="]);
    assert!(child.wait().expect("its end").success());
    assert_eq!(f.inspect(&c, ".State.Status"), "running");
}

/// A container's program that says when it is ready, which is when the test lets it.
struct Late {
    dir: PathBuf,
}

impl Late {
    /// Where the container has the directory.
    const INSIDE: &str = "/srv/late";
    /// What the container executes.
    const COMMAND: &str = "sh /srv/late/program";
    /// logger(1) of busybox is a client of a datagram socket like any other; only its first line has a time and a name before it.
    const PROGRAM: &str = "trap 'exit 0' TERM
ln -s \"$NOTIFY_SOCKET\" /dev/log
until test -e /srv/late/gate; do sleep 0.1; done
logger 'the gate is open
STATUS=serving
READY=1'
sleep 1000 &
wait
";

    fn new(f: &Fixture) -> Self {
        let dir = f.dir().join("late");
        fs::create_dir(&dir).expect("a directory of the test");
        fs::write(dir.join("program"), Self::PROGRAM).expect("a file of the test");
        f.need(BUSYBOX);
        Self { dir }
    }

    /// What `--volume` and `Volume=` get.
    fn volume(&self) -> String {
        format!("{}:{}:ro", self.dir.display(), Self::INSIDE)
    }

    fn open_the_gate(&self) {
        fs::write(self.dir.join("gate"), "").expect("a file of the test");
    }
}

/// With a container that has a say, the manager hears of a main process at once, and of readiness only when the container's program says so: by the
/// directory of a socket that the runtime has to mount for it. conmon hands on nothing else that it says.
fn container_notifies(f: &Fixture) {
    let (c, manager, late) = (f.name("c"), Manager::new(f), Late::new(f));
    let line = format!("run -d --sdnotify container --name {c} -v {} {BUSYBOX} {}", late.volume(), Late::COMMAND);
    assert!(manager.spawn(f, &line).wait().expect("its end").success());
    let told = manager.told(&["MAINPID="]);
    assert!(!told.iter().any(|line| line.starts_with("READY")), "too early: {told:?}");
    f.becomes(&c, ".State.Status", "running");
    assert_eq!(f.ok(&format!("exec {c} stat -c %F /run/notify/notify.sock")), "socket");
    assert!(manager.is_silent(), "told without the container");
    late.open_the_gate();
    manager.told(&["READY=1"]);
}

/// Runs a command of systemd for the manager that is ours: the machine's, or the user's.
fn managed(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args((!is_root()).then_some("--user")).stdin(Stdio::null());
    command
}

fn systemctl(arguments: &[&str]) -> String {
    let out = managed("systemctl").args(arguments).output().expect("systemctl");
    assert!(out.status.success(), "systemctl {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// Where unit files are that do not outlive the machine, or the user's session.
fn units() -> PathBuf {
    if is_root() {
        return "/run/systemd/system".into();
    }
    runtime_dir().expect("a session of systemd").join("systemd/user")
}

/// Where Podman's generator looks for quadlets.
fn quadlets() -> PathBuf {
    if is_root() {
        return "/etc/containers/systemd".into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".config");
    std::env::var_os("XDG_CONFIG_HOME").map_or_else(home, PathBuf::from).join("containers/systemd")
}

/// Directories that were not there before, the deepest first. Whoever makes or removes files there has the lock.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A unit file that is gone when the test ends.
struct Unit {
    file: PathBuf,
    name: String,
}

impl Unit {
    /// Writes the file, which makes the unit `name`.
    fn new(file: &Path, name: &str, text: &str) -> Self {
        let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
        let missing = file.ancestors().skip(1).take_while(|dir| !dir.exists()).map(Path::to_owned);
        *made = missing.chain(made.drain(..)).collect();
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory of units");
        let unit = Self { file: file.to_owned(), name: name.to_owned() };
        fs::write(file, text).expect("a unit file");
        drop(made);
        systemctl(&["daemon-reload"]);
        unit
    }

    /// Writes the file, and starts the unit.
    fn start(file: &Path, name: &str, text: &str) -> Self {
        let unit = Self::new(file, name, text);
        let started = managed("systemctl").args(["start", name]).output().expect("systemctl");
        assert!(started.status.success(), "{name}: {}", unit.log());
        unit
    }

    /// Starts it, and lets its container be ready when systemd has waited for that.
    fn start_late(&self, f: &Fixture, container: &str, late: &Late) {
        systemctl(&["start", "--no-block", &self.name]);
        let state = || systemctl(&["show", "--property=ActiveState", "--value", &self.name]);
        let wait = |what: &str, reached: &dyn Fn() -> bool| {
            wait::until(&format!("{}: {what}", self.name), wait::SOON, || {
                assert_ne!(state(), "failed", "{}", self.log());
                reached().then_some(())
            });
        };
        wait("its container runs", &|| f.has(container, ".State.Status", "running"));
        assert_eq!(state(), "activating");
        late.open_the_gate();
        wait("it is active", &|| state() == "active");
    }

    fn log(&self) -> String {
        let log = managed("journalctl").args(["-n", "30", "--no-pager", "-u", &self.name]).output();
        String::from_utf8_lossy(&log.map(|out| out.stdout).unwrap_or_default()).into_owned()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = managed("systemctl").args(["stop", &self.name]).output();
        let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
        let _ = fs::remove_file(&self.file);
        made.retain(|dir| fs::remove_dir(dir).is_err());
        drop(made);
        let _ = managed("systemctl").arg("daemon-reload").output();
        let _ = managed("systemctl").args(["reset-failed", &self.name]).output();
    }
}

/// `Environment=` lines for a unit whose Podman has the settings of the tests.
fn environment(f: &Fixture) -> String {
    f.environment().iter().map(|(name, path)| format!("Environment={name}={}\n", path.display())).collect()
}

fn is_up(f: &Fixture, unit: &str, container: &str) {
    assert_eq!(systemctl(&["is-active", unit]), "active");
    let main: u32 = systemctl(&["show", "--property=MainPID", "--value", unit]).parse().expect("a pid");
    let comm = fs::read_to_string(format!("/proc/{main}/comm")).expect("the main process");
    assert_eq!(comm.trim_end(), "conmon");
    f.becomes(container, ".State.Status", "running");
}

/// A service that `podman run` starts with these flags and this command.
fn service(f: &Fixture, c: &str, flags: &str, command: &str) -> String {
    let podman = orlop_integration::programs::path("podman").display().to_string();
    format!(
        "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=300\nDelegate=yes\nKillMode=mixed\n{}ExecStart={podman} run --rm -d --replace {flags} \
         --cgroups=split --name {c} {BUSYBOX} {command}\nExecStop={podman} rm -f -t 0 {c}\n",
        environment(f)
    )
}

fn notify_unit(f: &Fixture) {
    f.need(BUSYBOX);
    let (c, unit) = (f.name("c"), format!("{}.service", f.name("unit")));
    let text = service(f, &c, "--sdnotify=conmon", "sleep 1000");
    let guard = Unit::start(&units().join(&unit), &unit, &text);
    is_up(f, &unit, &c);
    systemctl(&["stop", &unit]);
    assert!(!f.ok("ps -a --format {{.Names}}").contains(&c));
    drop(guard);
}

fn unit_waits_for_the_container(f: &Fixture) {
    let (c, unit, late) = (f.name("c"), format!("{}.service", f.name("unit")), Late::new(f));
    let text = service(f, &c, &format!("--sdnotify=container -v {}", late.volume()), Late::COMMAND);
    let guard = Unit::new(&units().join(&unit), &unit, &text);
    guard.start_late(f, &c, &late);
    is_up(f, &unit, &c);
    drop(guard);
    assert!(!f.ok("ps -a --format {{.Names}}").contains(&c));
}

fn generated_unit(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("create --name {c} {BUSYBOX} sleep 1000"));
    let text = f.ok(&format!("generate systemd --new --name -t 1 {c}"));
    f.ok(&format!("rm {c}"));
    let text = text.replacen("[Service]\n", &format!("[Service]\n{}", environment(f)), 1);
    let unit = format!("container-{c}.service");
    let guard = Unit::start(&units().join(&unit), &unit, &text);
    is_up(f, &unit, &c);
    systemctl(&["restart", &unit]);
    is_up(f, &unit, &c);
    drop(guard);
    assert!(!f.ok("ps -a --format {{.Names}}").contains(&c));
}

/// A `.container` file with these further lines.
fn container_file(f: &Fixture, c: &str, lines: &str) -> String {
    format!(
        "[Container]\nContainerName={c}\nImage=localhost/{BUSYBOX}:latest\nPull=never\nNetwork=none\n{lines}[Service]\nTimeoutStartSec=300\n{}",
        environment(f)
    )
}

fn quadlet(f: &Fixture) {
    f.need(BUSYBOX);
    let (c, name) = (f.name("c"), f.name("quadlet"));
    let unit = format!("{name}.service");
    let text = container_file(f, &c, "Exec=sleep 1000\n");
    let guard = Unit::start(&quadlets().join(format!("{name}.container")), &unit, &text);
    is_up(f, &unit, &c);
    assert_eq!(f.inspect(&c, ".OCIRuntime"), "orlop");
    drop(guard);
    assert!(!f.ok("ps -a --format {{.Names}}").contains(&c));
}

fn quadlet_waits_for_the_container(f: &Fixture) {
    let (c, name, late) = (f.name("c"), f.name("quadlet"), Late::new(f));
    let unit = format!("{name}.service");
    let text = container_file(f, &c, &format!("Notify=true\nVolume={}\nExec={}\n", late.volume(), Late::COMMAND));
    let guard = Unit::new(&quadlets().join(format!("{name}.container")), &unit, &text);
    guard.start_late(f, &c, &late);
    is_up(f, &unit, &c);
    drop(guard);
    assert!(!f.ok("ps -a --format {{.Names}}").contains(&c));
}
