//! Clients: those that go away, give up, come late, or wait; and how little the shim needs for many of their requests.

use crate::{gone, id, mounted, shim};
use containerd_shim_protos::ttrpc::Code;
use orlop_integration::private::signal;
use orlop_integration::shim::{Bundle, Host, Shim, Stdio3, code};
use orlop_integration::wait;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[crate::Test] =
    crate::tests![the_client_goes_away_in_create, the_client_gives_up_in_create, a_slow_create_holds_nobody_up,];

/// A hook that waits, in the middle of a create.
pub struct Hook(PathBuf);

impl Hook {
    pub fn begun(&self) {
        wait::until("the hook", wait::SOON, || self.0.with_extension("begun").exists().then_some(()));
    }

    pub fn go(&self) {
        fs::write(self.0.with_extension("go"), "").expect("our file");
    }
}

/// A container whose create waits in a hook, which then ends with `status`.
pub fn held_up(host: &Host, status: i32) -> (Bundle, Hook) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    let hook = Hook(host.file(&format!("hook-of-{}", bundle.id)));
    let busybox = host.file("rootfs/bin/busybox").display().to_string();
    let path = hook.0.display();
    let held =
        format!("{busybox} touch {path}.begun; until [ -e {path}.go ]; do {busybox} sleep 0.05; done; exit {status}");
    bundle.config["hooks"]["createRuntime"] = serde_json::json!([{"path": busybox, "args": ["sh", "-c", held]}]);
    (bundle, hook)
}

/// The create is done all the same, so that a containerd that comes back finds it: it asks for the pids first.
fn the_client_goes_away_in_create(host: &Host) {
    for after in (0..20).map(|n| Duration::from_micros(n * 400)) {
        let bundle = mounted(host, host.bundle(&id(), &["sleep", "1000"]));
        let shim = host.start(&bundle);
        shim.create_and_leave(&bundle, after);
        let again = host.start(&bundle);
        assert_eq!(again.pid, shim.pid);
        match again.pids(&bundle.id) {
            Ok(pids) => {
                assert_eq!(pids.len(), 1, "gone after {after:?}");
                assert_eq!(again.delete(&bundle.id, "").expect("delete"), 137);
            }
            // The request did not get there.
            Err(e) => assert_eq!(code(&e), Some(Code::NOT_FOUND), "{e}"),
        }
        again.shutdown();
        gone(host, &format!("the client went after {after:?}"));
    }
}

/// containerd whose create is cancelled deletes the task and asks for the end while the create still runs, and never again. The end comes
/// with that of the container, or when there is none.
fn the_client_gives_up_in_create(host: &Host) {
    for status in [0, 1] {
        let (bundle, hook) = held_up(host, status);
        let shim = host.start(&bundle);
        thread::scope(|scope| {
            let create = scope.spawn(|| shim.create(&bundle, &Stdio3::default()));
            hook.begun();
            shim.shutdown();
            let delete = scope.spawn(|| shim.delete(&bundle.id, ""));
            thread::sleep(Duration::from_millis(200));
            hook.go();
            let (created, deleted) = (create.join().expect("no panic"), delete.join().expect("no panic"));
            match status {
                0 => assert_eq!((created.is_ok(), deleted.expect("delete")), (true, 137)),
                _ => assert!(created.is_err() && deleted.is_err(), "the hook has failed"),
            }
        });
        gone(host, &format!("the client gave up, the hook ended with {status}"));
    }
}

/// containerd's dbcaa504c: of the containers of a pod, one with a slow hook does not make the others wait.
fn a_slow_create_holds_nobody_up(host: &Host) {
    let group = Some("pod".to_owned());
    let quick = Bundle { group: group.clone(), ..host.bundle(&id(), &["sleep", "1000"]) };
    let (slow, hook) = held_up(host, 0);
    let slow = Bundle { group, ..slow };
    let shim = host.start(&quick);
    shim.run(&quick, &Stdio3::default());
    assert_eq!(host.start(&slow).pid, shim.pid);
    thread::scope(|scope| {
        let create = scope.spawn(|| shim.create(&slow, &Stdio3::default()));
        hook.begun();
        shim.state(&quick.id, "").expect("state");
        shim.exec(&quick.id, "e", &["true"], &Stdio3::default()).expect("exec");
        shim.start(&quick.id, "e").expect("start");
        assert_eq!(shim.wait(&quick.id, "e").expect("wait"), 0);
        shim.delete(&quick.id, "e").expect("delete");
        assert!(!create.is_finished(), "the hook still waits");
        hook.go();
        create.join().expect("no panic").expect("create");
    });
    shim.remove(&slow.id);
    shim.remove(&quick.id);
}

/// Daemons that were asked for nothing.
pub struct Idle {
    /// Its client is still there.
    kept: (Host, Bundle, Shim),
    /// Its client has gone.
    left: Host,
    /// The same, but stopped soon after, and there is a new client: when it goes on, it sees both at once, that client and the end of the time.
    met: (Host, Bundle, Shim),
    began: Instant,
}

impl Idle {
    pub fn start() -> Idle {
        let started = || {
            let host = Host::new(&shim(), None);
            let bundle = host.bundle(&id(), &["sleep", "1000"]);
            let shim = host.start(&bundle);
            (host, bundle, shim)
        };
        let kept = started();
        let (left, _, shim) = started();
        drop(shim);
        let (host, bundle, shim) = started();
        let pid = shim.pid;
        let shim = shim.reconnect(|| {
            // It sees that its client has gone, and its time begins. On a machine on which it does not, this one shows nothing.
            thread::sleep(Duration::from_secs(2));
            signal(pid, Signal::STOP);
        });
        Idle { kept, left, met: (host, bundle, shim), began: Instant::now() }
    }

    /// containerd, killed before it could ask for anything, may know nothing of it when it is back.
    pub fn a_daemon_that_is_left_behind(&self) {
        wait::until("it ends by itself", Duration::from_secs(150), || self.left.leftovers().is_empty().then_some(()));
        thread::sleep(Duration::from_secs(75).saturating_sub(self.began.elapsed()));
        self.met.2.signal(Signal::CONT);
        // Those that have a client, which may be about to ask.
        for (_, bundle, shim) in [&self.kept, &self.met] {
            shim.run(bundle, &Stdio3::default());
            shim.remove(&bundle.id);
        }
    }
}
