//! sd_notify(3) for containers: the container gets a socket of its own, and what it says of being ready goes to the
//! service manager's, which would not accept it from a process in another cgroup and pid namespace.

use crate::console::ShortPath;
use crate::error::{On, Result};
use orlop_sys::poll::{READ, Watch, poll};
use orlop_sys::{file, socket};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the container finds the directory of its socket.
pub const DESTINATION: &str = "/run/notify";
/// How that directory is mounted: connecting to the socket is all that is to be done with it.
pub const MOUNT_OPTIONS: [&str; 5] = ["bind", "nosuid", "noexec", "nodev", "ro"];
/// What the container's process finds in its environment.
pub const ENVIRONMENT: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// How long a service manager may take to confirm; one that does not know `BARRIER=1` never does.
const BARRIER: Duration = Duration::from_secs(30);
/// No message of sd_notify(3) that matters here is longer.
const MESSAGE: usize = 4096;

/// The service manager's socket, when the runtime was started by one that wants to be told.
pub fn requested() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// The directory in a container's state directory that is mounted at [`DESTINATION`].
pub fn directory(state: &Path) -> PathBuf {
    state.join("notify")
}

/// Makes that directory; the socket in it comes with [`Relay::listen`].
pub fn prepare(state: &Path) -> Result<()> {
    let directory = directory(state);
    DirBuilder::new().mode(0o755).create(&directory).on("mkdir", directory.display())
}

/// Listens for the container's `READY=` and hands it on, once.
pub struct Relay {
    container: UnixDatagram,
    host: UnixDatagram,
    /// Whom the service manager is to watch from now on.
    main_pid: u32,
    barrier: Option<(std::fs::File, Instant)>,
}

impl Relay {
    /// Makes the container's socket below `state` and connects to `host`, the value of NOTIFY_SOCKET. `main_pid` is the
    /// process that the service manager is to watch: the container's, or the runtime itself when it stays.
    pub fn listen(state: &Path, host: &OsStr, main_pid: u32) -> Result<Relay> {
        let path = directory(state).join("notify.sock");
        let container = UnixDatagram::bind(ShortPath::of(&path)?.path).on("bind", path.display())?;
        // Any user of the container may report; the directory above is root's alone.
        set_permissions(&path, Permissions::from_mode(0o777)).on("chmod", path.display())?;
        container.set_nonblocking(true).on("ioctl FIONBIO", path.display())?;
        Ok(Relay { container, host: connect(host)?, main_pid, barrier: None })
    }

    /// Relays until the container has reported and the service manager has taken note, or the process of `pidfd` has ended.
    pub fn relay(mut self, pidfd: BorrowedFd<'_>) -> Result<()> {
        // Maybe for ever.
        orlop_sys::fds::close_left();
        loop {
            let (news, timeout) = self.watch();
            let [_, ended] = poll([news, (Some(pidfd), READ)], timeout).on("poll", "notify socket")?;
            // What a process said before it ended still counts.
            if self.advance()? || ended != 0 && self.barrier.is_none() {
                return Ok(());
            }
        }
    }

    /// What to poll for, and for how many milliseconds at most.
    pub(crate) fn watch(&self) -> (Watch<'_>, i32) {
        match &self.barrier {
            None => ((Some(self.container.as_fd()), READ), -1),
            Some((confirmed, until)) => {
                let left = until.saturating_duration_since(Instant::now()).as_millis();
                // Rounded up, or the last millisecond would be spent spinning.
                ((Some(confirmed.as_fd()), READ), i32::try_from(left + 1).unwrap_or(i32::MAX))
            }
        }
    }

    /// Takes the next step without waiting; true when there is nothing left to do.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        match &self.barrier {
            None => {
                let mut message = [0; MESSAGE];
                match self.container.recv(&mut message) {
                    Ok(n) => self.heard(message.get(..n).unwrap_or_default())?,
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    answer => return answer.map(|_| true).on("recv", "notify socket"),
                }
                Ok(false)
            }
            Some((confirmed, until)) => {
                if Instant::now() >= *until {
                    log::warn!("the service manager did not confirm READY=1 within {} s", BARRIER.as_secs());
                    return Ok(true);
                }
                let [closed] = poll([(Some(confirmed.as_fd()), READ)], 0).on("poll", "barrier")?;
                if closed == 0 {
                    return Ok(false);
                }
                // sd_notify_barrier(3): the other end is closed, never written to.
                match (&mut &*confirmed).read(&mut [0]).on("read", "barrier")? {
                    0 => {}
                    _ => log::warn!("the service manager wrote into the barrier of sd_notify"),
                }
                Ok(true)
            }
        }
    }

    /// Only that it is ready: `MAINPID=`, `FDSTORE=` and the like from a container are not for the host to obey.
    fn heard(&mut self, message: &[u8]) -> Result<()> {
        let Some(ready) = message.split(|&b| b == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(());
        };
        let send = |line: &[u8]| self.host.send(line).map(drop).on("send", "to $NOTIFY_SOCKET");
        send(&[ready, b"\n"].concat())?;
        send(format!("MAINPID={}\n", self.main_pid).as_bytes())?;
        let (confirmed, close_me) = file::pipe().on("pipe", "")?;
        socket::send(self.host.as_fd(), b"BARRIER=1", Some(close_me.as_fd())).on("sendmsg", "to $NOTIFY_SOCKET")?;
        self.barrier = Some((std::fs::File::from(confirmed), Instant::now() + BARRIER));
        Ok(())
    }
}

/// Connects to a path, or with a leading `@` to an abstract address (sd_notify(3), ENVIRONMENT).
fn connect(host: &OsStr) -> Result<UnixDatagram> {
    let shown = || host.to_string_lossy().into_owned();
    let socket = UnixDatagram::unbound().on("socket", "")?;
    match host.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).and_then(|address| socket.connect_addr(&address)),
        None => socket.connect(ShortPath::of(Path::new(host))?.path),
    }
    .on("connect", shown())?;
    Ok(socket)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a process to wait for")]
mod tests {
    use super::*;
    use orlop_sys::process::pidfd_open;
    use std::process::{Child, Command};

    struct Scene {
        state: tempfile::TempDir,
        manager: UnixDatagram,
        container: Child,
    }

    impl Scene {
        fn new(address: &SocketAddr) -> Scene {
            let state = tempfile::tempdir().unwrap();
            prepare(state.path()).unwrap();
            let manager = UnixDatagram::bind_addr(address).unwrap();
            manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            Scene { state, manager, container: Command::new("sleep").arg("20").spawn().unwrap() }
        }

        fn say(&self, message: &str) {
            let socket = UnixDatagram::unbound().unwrap();
            socket.send_to(message.as_bytes(), self.state.path().join("notify/notify.sock")).unwrap();
        }

        /// The next message; an fd that comes with it is closed by not being received.
        fn told(&self) -> String {
            let mut message = [0; 128];
            let n = self.manager.recv(&mut message).unwrap();
            String::from_utf8(message[..n].to_vec()).unwrap()
        }

        fn pidfd(&self) -> std::os::fd::OwnedFd {
            pidfd_open(i32::try_from(self.container.id()).unwrap()).unwrap()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = self.container.kill();
            let _ = self.container.wait();
        }
    }

    #[test]
    fn ready_is_handed_on_with_the_main_pid_and_a_barrier() {
        let name = format!("@orlop-test-{}-a", std::process::id());
        let scene = Scene::new(&SocketAddr::from_abstract_name(&name[1..]).unwrap());
        let mut relay = Relay::listen(scene.state.path(), OsStr::new(&name), 4711).unwrap();
        scene.say("STATUS=warming up\nMAINPID=1");
        assert!(!relay.advance().unwrap());
        scene.say("STATUS=fine\nREADY=1\nFDSTORE=1");
        assert!(!relay.advance().unwrap());
        assert_eq!([scene.told(), scene.told()], ["READY=1\n", "MAINPID=4711\n"]);
        // Not confirmed until the message with the fd has been taken.
        assert!(!relay.advance().unwrap());
        assert_eq!(scene.told(), "BARRIER=1");
        // A child that another test makes at this moment holds a copy of the fd until it executes its program.
        let confirmed = |_| {
            std::thread::sleep(Duration::from_millis(10));
            relay.advance().unwrap()
        };
        assert!((0..100).any(confirmed));
    }

    #[test]
    fn what_was_said_last_counts_when_the_process_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        // Longer than sun_path, as the state directories of engines are.
        let long = directory.path().join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let short = ShortPath::of(&long.join("manager")).unwrap();
        let mut scene = Scene::new(&SocketAddr::from_pathname(&short.path).unwrap());
        let relay = Relay::listen(scene.state.path(), long.join("manager").as_os_str(), 1).unwrap();
        scene.say("READY=1");
        let pidfd = scene.pidfd();
        scene.container.kill().unwrap();
        let manager = scene.manager.try_clone().unwrap();
        let answers = std::thread::scope(|scope| {
            let reader = scope.spawn(move || [0; 3].map(|_| manager.recv(&mut [0; 128]).unwrap()));
            relay.relay(pidfd.as_fd()).unwrap();
            reader.join().unwrap()
        });
        assert_eq!(answers, ["READY=1\n".len(), "MAINPID=1\n".len(), "BARRIER=1".len()]);
    }

    #[test]
    fn a_process_that_ends_silently_ends_the_relay() {
        let name = format!("@orlop-test-{}-b", std::process::id());
        let mut scene = Scene::new(&SocketAddr::from_abstract_name(&name[1..]).unwrap());
        let relay = Relay::listen(scene.state.path(), OsStr::new(&name), 1).unwrap();
        let pidfd = scene.pidfd();
        scene.container.kill().unwrap();
        relay.relay(pidfd.as_fd()).unwrap();
        scene.manager.set_nonblocking(true).unwrap();
        assert!(scene.manager.recv(&mut [0; 128]).is_err());
    }
}
