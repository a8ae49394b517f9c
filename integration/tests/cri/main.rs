//! Pods of containerd's Container Runtime Interface on containerd-shim-orlop-v2.

mod container;
mod failure;
mod fixture;
mod logs;
mod mounts;
mod pod;
mod resources;
mod security;
mod streams;

use fixture::Lab;
use libtest_mimic::{Arguments, Trial};
use orlop_integration::programs;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// A test: its name and what it does with the daemon that all share.
type Test = (&'static str, fn(&Lab));

/// The tests of a module, by the names of the functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*] };
}

const TESTS: &[&[Test]] = &[
    pod::TESTS,
    container::TESTS,
    logs::TESTS,
    streams::TESTS,
    security::TESTS,
    mounts::TESTS,
    resources::TESTS,
    failure::TESTS,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(3);
    let lab: Arc<OnceLock<Lab>> = Arc::default();
    let trial = |(name, body): &Test| {
        let (lab, body) = (Arc::clone(&lab), *body);
        Trial::test(name.trim_start_matches("cri::"), move || {
            body(lab.get().expect("main starts it"));
            Ok(())
        })
    };
    let trials: Vec<Trial> = TESTS.iter().copied().flatten().map(trial).collect();
    if !arguments.list && trials.iter().any(|trial| !arguments.is_filtered_out(trial)) {
        programs::check();
        // Here: the daemon is told to end when the thread that started it does.
        lab.get_or_init(Lab::start);
    }
    let all = libtest_mimic::run(&arguments, trials);
    let left = lab.get().map(|lab| lab.left(|_| true)).unwrap_or_default();
    if !left.is_empty() {
        eprintln!("left behind:\n{}", left.join("\n"));
    }
    let failed = all.has_failed() || !left.is_empty();
    if let (true, Some(lab)) = (failed, lab.get()) {
        eprintln!("{}", lab.daemon.log());
    }
    // A static is not dropped, and this one has a daemon to end.
    drop(lab);
    ExitCode::from(u8::from(failed))
}
