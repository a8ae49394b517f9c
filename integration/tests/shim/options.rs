//! Options of the runtime, what is refused, and what the log says.

use crate::{driving, fifo, gone, id, reader, sleeping};
use containerd_shim_protos::api::{CheckpointTaskRequest, Empty};
use containerd_shim_protos::protobuf::{Message, MessageField, well_known_types::any::Any};
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::ttrpc::Code;
use orlop_integration::shim::{Host, Stdio3, code};
use orlop_integration::{cgroup, private, programs, wait};
use rustix::process::Signal;
use std::fs;
use std::time::Duration;

pub const TESTS: &[crate::Test] = crate::tests![
    empty_namespaces,
    a_checkpoint_is_restored_by_another_runtime,
    warnings_of_the_runtime_are_in_the_log,
    options_shim_cgroup,
    options_owner_of_pipes,
    options_no_new_keyring,
    options_root,
    refusals_have_their_codes,
];

fn empty_namespaces(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let mut options = CheckpointOptions::new();
    options.empty_namespaces = vec!["network".to_owned(), "ipc".to_owned()];
    let mut any = Any::new();
    any.type_url = "containerd.runc.v1.CheckpointOptions".to_owned();
    any.value = options.write_to_bytes().expect("a small message");
    let mut request = CheckpointTaskRequest::new();
    (request.id, request.path) = (bundle.id.clone(), host.file("images").display().to_string());
    request.options = MessageField::some(any);
    let refused = shim.call::<_, Empty>("Checkpoint", &request).expect_err("ipc");
    assert_eq!(code(&refused), Some(Code::UNIMPLEMENTED));
    assert!(refused.to_string().contains("is not supported: only network is"), "{refused}");
    assert!(!host.file("images").exists());
    shim.remove(&bundle.id);
}

/// What the runtime warns of is said by workers, whose stderr is the container's.
fn warnings_of_the_runtime_are_in_the_log(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    bundle.config["process"]["capabilities"] = serde_json::json!({"bounding": ["CAP_OF_NO_KERNEL"]});
    let err = fifo(&host.file("warning-err"));
    let read = reader(err.clone(), Duration::ZERO);
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3 { stderr: err, ..Stdio3::default() });
    let log = fs::read_to_string(bundle.dir.join("log")).expect("the log");
    assert!(log.contains("CAP_OF_NO_KERNEL"), "{log}");
    shim.remove(&bundle.id);
    assert_eq!(String::from_utf8_lossy(&read.join().expect("no panic")), "");
}

fn options_shim_cgroup(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    let cgroup = format!("{}/the-shim", host.cgroups());
    bundle.options.shim_cgroup = cgroup.clone();
    // Of a cgroup that is not there: as the Go shim, it makes none.
    assert!(host.try_start(&bundle).err().is_some_and(|e| e.contains("ShimCgroup")));
    let made = cgroup::make(&cgroup);
    assert!(!made.is_empty());
    let shim = host.start(&bundle);
    let init = shim.run(&bundle, &Stdio3::default());
    let of = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    assert!(of(shim.pid).lines().all(|line| line.ends_with(&cgroup)), "{}", of(shim.pid));
    assert!(!of(init).contains("the-shim"), "{}", of(init));
    shim.remove(&bundle.id);
    wait::until("the shim has ended", wait::SOON, || (!shim.alive()).then_some(()));
    // Whoever has made it may have more shims in it.
    private::remove_cgroups(&cgroup);
}

/// A process of that user may open its own output by name.
fn options_owner_of_pipes(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sh", "-c", "echo again >/proc/self/fd/1; stat -L -c %u:%g /proc/self/fd/1"]);
    (bundle.options.io_uid, bundle.options.io_gid) = (1000, 1001);
    bundle.config["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1001});
    let out = fifo(&host.file("owned"));
    let read = reader(out.clone(), Duration::ZERO);
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
    shim.delete(&bundle.id, "").expect("delete");
    assert_eq!(String::from_utf8_lossy(&read.join().expect("no panic")), "again\n1000:1001\n");
    shim.shutdown();
}

fn options_no_new_keyring(host: &Host) {
    for kept in [false, true] {
        let mut bundle = host.bundle(&id(), &["cat", "/proc/keys"]);
        bundle.options.no_new_keyring = kept;
        let out = fifo(&host.file(&format!("keys-{kept}")));
        let read = reader(out.clone(), Duration::ZERO);
        let shim = host.start(&bundle);
        shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
        shim.wait(&bundle.id, "").expect("wait");
        shim.delete(&bundle.id, "").expect("delete");
        let keys = String::from_utf8_lossy(&read.join().expect("no panic")).into_owned();
        assert_eq!(keys.contains(&format!("_ses.{}", bundle.id)), !kept, "{keys}");
        shim.shutdown();
    }
}

fn options_root(host: &Host) {
    let mut bundle = host.bundle(&id(), &["sleep", "1000"]);
    let root = host.file("another-root");
    bundle.options.root = root.display().to_string();
    let shim = host.start(&bundle);
    shim.run(&bundle, &Stdio3::default());
    let state = root.join("orlop-test").join(&bundle.id);
    assert!(state.join("state.json").exists());
    // The shim is gone: what it was told is in the bundle.
    shim.signal(Signal::KILL);
    wait::until("the shim is dead", wait::SOON, || (!shim.alive()).then_some(()));
    host.clean_up(&bundle);
    assert!(!state.exists());
}

fn refusals_have_their_codes(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let id = bundle.id.as_str();
    let codes = [
        ("unknown container", shim.start("nobody", "").map(drop), Code::NOT_FOUND),
        ("unknown exec", shim.start(id, "nobody").map(drop), Code::NOT_FOUND),
        ("the same id", shim.create(&bundle, &Stdio3::default()).map(drop), Code::ALREADY_EXISTS),
        ("running", shim.delete(id, "").map(drop), Code::FAILED_PRECONDITION),
        ("an id of no use", shim.exec(id, "../e", &["true"], &Stdio3::default()), Code::INVALID_ARGUMENT),
    ];
    for (what, result, expected) in codes {
        assert_eq!(code(&result.expect_err(what)), Some(expected), "{what}");
    }
    shim.kill(id, "", 9).expect("kill");
    shim.wait(id, "").expect("wait");
    let gone = shim.kill(id, "", 9).expect_err("it has ended");
    assert_eq!(code(&gone), Some(Code::NOT_FOUND));
    let late = shim.exec(id, "late", &["true"], &Stdio3::default()).expect_err("it has ended");
    assert_eq!(code(&late), Some(Code::FAILED_PRECONDITION));
    shim.remove(id);
}

/// What it is told, and that what comes of it is a container like others. The runtime, in the place of one with a CRIU, makes a new process.
const RESTORES: &str = r#"
case " $* " in *' restore '*) ;; *) exec "$RUNC" "$@";; esac
echo "$@" >"${0%/*}/restored"
[ ! -e "${0%/*}/broken" ] || exit 1
n=$#
while [ $n -gt 0 ]; do
    word=$1; shift; n=$((n - 1))
    case $word in
        restore) set -- "$@" run;;
        --no-subreaper) ;;
        --image-path|--work-path) shift; n=$((n - 1));;
        *) set -- "$@" "$word";;
    esac
done"#;

fn a_checkpoint_is_restored_by_another_runtime(host: &Host) {
    let driven = driving(&RESTORES.replace("$RUNC", &programs::path("runc").display().to_string()));
    let restored = |args: &[&str]| {
        let mut bundle = driven.bundle(&id(), args);
        bundle.checkpoint = driven.file("images").display().to_string();
        bundle.options.no_pivot_root = true;
        let shim = driven.start(&bundle);
        (bundle, shim)
    };
    let (bundle, shim) = restored(&["sh", "-c", "echo restored; exit 7"]);
    let out = fifo(&driven.file("restored-out"));
    let read = reader(out.clone(), Duration::ZERO);
    assert_eq!(shim.create(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() }).expect("create"), 0);
    assert!(!driven.file("restored").exists(), "before it is started");
    assert!(shim.start(&bundle.id, "").expect("start") > 0);
    let said = fs::read_to_string(driven.file("restored")).expect("what it was told");
    let images = format!("--image-path {}", bundle.checkpoint);
    for flag in ["restore --detach --no-subreaper", "--no-pivot", "--work-path", "--pid-file", &images] {
        assert!(said.contains(flag), "{flag}: {said}");
    }
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 7);
    assert_eq!(shim.delete(&bundle.id, "").expect("delete"), 7);
    assert_eq!(read.join().expect("no panic"), b"restored\n");
    shim.shutdown();

    let (bundle, shim) = restored(&["sleep", "1000"]);
    fs::write(driven.file("broken"), "").expect("a file of ours");
    shim.create(&bundle, &Stdio3::default()).expect("create");
    let failed = shim.start(&bundle.id, "").expect_err("the runtime fails");
    assert!(failed.to_string().contains("OCI runtime restore failed"), "{failed}");
    // Whoever waits is told, and the container can be deleted.
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 255);
    shim.delete(&bundle.id, "").expect("delete");
    shim.shutdown();

    // One that nobody starts.
    let (bundle, shim) = restored(&["sleep", "1000"]);
    shim.create(&bundle, &Stdio3::default()).expect("create");
    shim.delete(&bundle.id, "").expect("delete");
    shim.shutdown();
    gone(&driven, "the end");
    assert!(host.leftovers().is_empty());
}
