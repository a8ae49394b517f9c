//! Podman and Buildah, as root or as a user, on the runtime under test.

mod build;
mod checkpoint;
mod fixture;
mod isolation;
mod lifecycle;
mod pod;
mod run;
mod unit;

use fixture::{Fixture, Needs};
use libtest_mimic::{Arguments, Trial};
use orlop_integration::podman::Podman;
use orlop_integration::{programs, runtime};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// One test of a module's table.
pub(crate) struct Test {
    name: &'static str,
    needs: Needs,
    body: fn(&Fixture),
}

/// Makes a module's `TESTS` from its functions, each with what it needs.
macro_rules! tests {
    ($($needs:ident: $($name:ident),+ $(,)?);+ $(;)?) => {
        pub(crate) const TESTS: &[crate::Test] = &[
            $($(crate::Test { name: stringify!($name), needs: crate::fixture::Needs::$needs, body: $name },)+)+
        ];
    };
}
pub(crate) use tests;

const MODULES: &[(&str, &[Test])] = &[
    ("run", run::TESTS),
    ("isolation", isolation::TESTS),
    ("lifecycle", lifecycle::TESTS),
    ("checkpoint", checkpoint::TESTS),
    ("pod", pod::TESTS),
    ("build", build::TESTS),
    ("unit", unit::TESTS),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Podman's commands wait for one another's locks.
    arguments.test_threads.get_or_insert(2);
    let podman: Arc<OnceLock<Podman>> = Arc::default();
    let mut trials = Vec::new();
    for (module, tests) in MODULES {
        for test in *tests {
            let (podman, body, name) = (Arc::clone(&podman), test.body, format!("{module}::{}", test.name));
            let id = name.replace("::", "-").replace('_', "-");
            let trial = Trial::test(name, move || {
                fixture::guarded(podman.get().expect("main makes it"), &id, body);
                Ok(())
            });
            trials.push(trial.with_ignored_flag(!test.needs.are_met()));
        }
    }
    if !arguments.list && trials.iter().any(|trial| !arguments.is_filtered_out(trial)) {
        ["podman", "buildah", "busybox", "nsenter", "setsid"]
            .into_iter()
            .for_each(|program| drop(programs::path(program)));
        podman.get_or_init(|| Podman::new(&runtime::path()));
    }
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    // A static is not dropped, and this one has containers to end.
    drop(podman);
    code
}
