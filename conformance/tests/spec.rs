//! The runner of the checks: picks the runtime, isolates itself, and reports like `cargo test`.

use std::collections::HashSet;
use std::env;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use orlop_conformance::check::{Check, Failure};
use orlop_conformance::checks;
use orlop_conformance::expected::EXPECTED;
use orlop_conformance::needs;
use orlop_conformance::runtime::Host;

/// Set in the environment of the copy that runs in its own mount namespace.
const ISOLATED: &str = "ORLOP_CONFORMANCE_ISOLATED";

static EXPECTED_FAILURES: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        let trials = checks::all().into_iter().map(|check| trial(check, None)).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    match prepare() {
        Ok(host) => run(&arguments, &host),
        Err(Failure(why)) => {
            eprintln!("conformance: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, host: &Arc<Host>) -> ExitCode {
    println!("runtime: {} ({})", host.runtime.display(), host.name);
    let checks = checks::all();
    let names: HashSet<String> = checks.iter().map(|check| check.name.clone()).collect();
    let trials = checks.into_iter().map(|check| trial(check, Some(Arc::clone(host)))).collect();
    let unknown = needs::NEEDS.iter().flat_map(|need| need.checks).find(|name| !names.contains(**name));
    if let Some(name) = unknown {
        eprintln!("conformance: needs.rs names no check: {name}");
        return ExitCode::FAILURE;
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    let expected = EXPECTED_FAILURES.load(Ordering::Relaxed);
    if expected > 0 {
        println!("{expected} of the passed are expected failures of {}", host.name);
    }
    conclusion.exit_code()
}

/// The name and the section of a check, and the check itself if there is a host to run it on.
fn trial(check: Check, host: Option<Arc<Host>>) -> Trial {
    let (name, section) = (check.name.clone(), check.section);
    Trial::ignorable_test(name, move || judge(&check, &host.ok_or("no host")?)).with_kind(section)
}

fn judge(check: &Check, host: &Arc<Host>) -> Result<Completion, Failed> {
    if check.own && host.name != "orlop" {
        return Ok(Completion::ignored_with("a promise of orlop's own"));
    }
    if let Some(what) = needs::missing(&check.name) {
        return Ok(Completion::ignored_with(format!("this host has no {what}")));
    }
    // What orlop itself does not do yet needs no variable to be told.
    let own = || if host.name == "orlop" { "orlop".to_owned() } else { String::new() };
    let expect = env::var("EXPECT").unwrap_or_else(|_| own());
    let expected = EXPECTED.iter().find(|one| one.runtime == expect && one.check == check.name);
    match (perform(check, host), expected) {
        (Ok(()), None) => Ok(Completion::Completed),
        (Err(Failure(why)), None) => Err(why.into()),
        (Ok(()), Some(one)) if one.why.starts_with("sometimes") => Ok(Completion::Completed),
        (Ok(()), Some(_)) => Err(format!("passes, but expected.rs lists it for {expect}").into()),
        (Err(Failure(seen)), Some(one)) => {
            EXPECTED_FAILURES.fetch_add(1, Ordering::Relaxed);
            eprintln!(
                "expected failure: {}: {} (seen: {})",
                check.name,
                one.why,
                seen.lines().next().unwrap_or_default()
            );
            Ok(Completion::Completed)
        }
    }
}

fn perform(check: &Check, host: &Arc<Host>) -> Result<(), Failure> {
    let mut lab = host.lab()?;
    // A check that panics must not leave its containers behind.
    let verdict = catch_unwind(AssertUnwindSafe(|| (check.run)(&mut lab)));
    let verdict = verdict.unwrap_or_else(|_| Err(Failure("the check panicked, see above".into())));
    verdict.and(lab.close())
}

fn prepare() -> Result<Arc<Host>, Failure> {
    let wrong = |why: &str| Err(Failure(why.into()));
    if !rustix::process::geteuid().is_root() {
        return wrong("the checks need root");
    }
    let Some(runtime) = runtime() else {
        return wrong("no runtime: set RUNTIME, or build orlop with `cargo build --release`");
    };
    if env::var_os(ISOLATED).is_none() {
        return Err(isolate());
    }
    let host = Arc::new(Host::open(&runtime)?);
    runs_a_container(&host)?;
    Ok(host)
}

/// Many checks demand a refusal: a program that refuses everything, or does nothing at all, must not get that far.
fn runs_a_container(host: &Arc<Host>) -> Result<(), Failure> {
    let mut lab = host.lab()?;
    let output = lab.run_sh("echo control");
    lab.close()?;
    match output {
        Ok(text) if text == "control\n" => Ok(()),
        Ok(text) => Err(Failure(format!("the runtime does not run the base bundle, whose output is {text:?}"))),
        Err(Failure(why)) => Err(Failure(format!("the runtime does not run the base bundle: {why}"))),
    }
}

/// Executes this program again in a mount namespace of its own, so that no slip of a runtime reaches the host's mounts.
/// CGROUPS=v1 shows the v1 hierarchies of a hybrid host alone: crun refuses the whole.
fn isolate() -> Failure {
    let script = r#"set -e
if [ "$CGROUPS" = v1 ]; then
    view=$(mktemp -d)
    mount -t tmpfs -o mode=755 tmpfs "$view"
    for hierarchy in /sys/fs/cgroup/*/; do
        name=$(basename "$hierarchy")
        [ "$name" != unified ] || continue
        mkdir "$view/$name"
        mount --bind "$hierarchy" "$view/$name"
    done
    mount --move "$view" /sys/fs/cgroup
    rmdir "$view"
fi
mount --make-rshared /
exec "$@""#;
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args(env::args_os())
        .env(ISOLATED, "1")
        .exec();
    Failure(format!("cannot execute unshare: {error}"))
}

/// RUNTIME, or the newest release build of orlop in the workspace's target directory.
fn runtime() -> Option<PathBuf> {
    if let Some(runtime) = env::var_os("RUNTIME") {
        return Some(runtime.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(workspace, PathBuf::from);
    let mut builds = vec![target.join("release/orlop")];
    builds.extend(target.read_dir().ok()?.flatten().map(|entry| entry.path().join("release/orlop")));
    let built = |path: &PathBuf| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    builds.into_iter().filter(|path| built(path).is_some()).max_by_key(built)
}
