//! Docker, from `hello` to a daemon restarted below its containers, on the runtime under test.
//!
//! Every test runs twice: under a daemon that is told of the runtime per container, and, with the prefix
//! `default::`, under one whose default runtime it is.

mod build;
mod daemon;
mod exec;
mod fixture;
mod image;
mod inspect;
mod lifecycle;
mod namespaces;
mod network;
mod resources;
mod run;
mod security;
mod volume;

use fixture::{Bench, Fixture};
use libtest_mimic::{Arguments, Trial};
use orlop_integration::dockerd::Options;
use orlop_integration::{cgroup, dockerd, programs, runtime};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// One test of a module's table.
pub(crate) struct Test {
    name: &'static str,
    turn: Turn,
    body: fn(&Fixture),
}

/// What may run beside a test.
#[derive(Clone, Copy)]
pub(crate) enum Turn {
    /// Any other of this kind.
    Together,
    /// Nothing.
    Alone,
    /// Whatever has not ended: the test itself waits for all others.
    Last,
}

/// Makes a module's `TESTS` from its functions; those behind `alone` get the machine for themselves.
macro_rules! tests {
    ($($name:ident),* $(,)? $(; alone: $($alone:ident),* $(,)?)?) => {
        pub(crate) const TESTS: &[crate::Test] = &[
            $(crate::Test { name: stringify!($name), turn: crate::Turn::Together, body: $name },)*
            $($(crate::Test { name: stringify!($alone), turn: crate::Turn::Alone, body: $alone },)*)?
        ];
    };
}
pub(crate) use tests;

const MODULES: &[(&str, &[Test])] = &[
    ("run", run::TESTS),
    ("exec", exec::TESTS),
    ("lifecycle", lifecycle::TESTS),
    ("inspect", inspect::TESTS),
    ("image", image::TESTS),
    ("build", build::TESTS),
    ("volume", volume::TESTS),
    ("resources", resources::TESTS),
    ("security", security::TESTS),
    ("namespaces", namespaces::TESTS),
    ("network", network::TESTS),
    ("daemon", daemon::TESTS),
];

const MODES: &[(&str, bool)] = &[("", false), ("default::", true)];

/// Tests that are about a controller; a host without it (user-mode-linux has no cpusets) cannot show them.
const NEEDS: &[(&str, &str)] = &[("resources::cpuset_binds", "cpuset")];

/// Many tests wait for a timer, so more threads than processors pay.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let benches: Vec<Arc<OnceLock<Bench>>> = MODES.iter().map(|_| Arc::default()).collect();
    let mut trials = Vec::new();
    for ((prefix, default_runtime), bench) in MODES.iter().zip(&benches) {
        let before = trials.len();
        trials.extend(of_mode(prefix, bench).into_iter().filter(|trial| !arguments.is_filtered_out(trial)));
        let selected = trials[before..].iter().filter(|trial| !trial.has_ignored_flag()).count();
        if selected > 0 && !arguments.list {
            programs::check();
            dockerd::sweep();
            let options = Options { default_runtime: *default_runtime, ..Options::default() };
            // Here, not in a test: the daemon is told to end when the thread that started it does.
            bench.get_or_init(|| Bench::new(&runtime::path(), options, selected));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The tests in order; the one that looks for leftovers comes last, and waits for the others.
fn of_mode(prefix: &str, bench: &Arc<OnceLock<Bench>>) -> Vec<Trial> {
    let trial = |name: String, turn: Turn, body: fn(&Fixture)| {
        let bench = Arc::clone(bench);
        let id = name.replace("::", "-");
        let lacking = NEEDS.iter().any(|(test, controller)| name.ends_with(test) && !cgroup::has(controller));
        Trial::test(name, move || {
            bench.get().expect("main starts the daemon of every selected test").run(&id, turn, body);
            Ok(())
        })
        .with_ignored_flag(lacking)
    };
    let mut trials = Vec::new();
    for (module, tests) in MODULES {
        trials.extend(tests.iter().map(|t| trial(format!("{prefix}{module}::{}", t.name), t.turn, t.body)));
    }
    trials.push(trial(format!("{prefix}daemon::nothing_is_left"), Turn::Last, daemon::nothing_is_left));
    trials
}
