//! What a check's outcome means for one runtime, and the run of many checks at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::check::{Check, Failure};
use crate::expected;
use crate::needs;
use crate::report::{Row, Verdict};
use crate::runtime::Host;

/// Runs checks, `threads` at a time, and hands each result over as it comes. They share nothing but the host: each has
/// its own bundle, `--root` and container id.
pub fn run(checks: Vec<Check>, host: &Arc<Host>, threads: usize, on_row: impl FnMut(Row) + Send) {
    let queue = Mutex::new(VecDeque::from(checks));
    let on_row = Mutex::new(on_row);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // A check that panics does so inside of judge, so no lock is ever poisoned.
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(check) = next else { return };
                    let verdict = judge(&check, host);
                    let row = Row { name: check.name, section: check.section.to_owned(), verdict };
                    on_row.lock().unwrap_or_else(PoisonError::into_inner)(row);
                }
            });
        }
    });
}

fn judge(check: &Check, host: &Arc<Host>) -> Verdict {
    if check.own && host.name != "orlop" {
        return Verdict::Skip("a promise of orlop's own".into());
    }
    if let Some(what) = needs::missing(&check.name) {
        return Verdict::Skip(format!("this host has no {what}"));
    }
    match (perform(check, host), expected::known(&host.expect, &check.name)) {
        (Ok(()), None | Some((_, true))) => Verdict::Pass,
        (Ok(()), Some((_, false))) => Verdict::Fail(format!("passes, but expected.rs lists it for {}", host.expect)),
        (Err(Failure(why)), None) => Verdict::Fail(why),
        (Err(Failure(seen)), Some((why, _))) => Verdict::Known { why: why.into(), seen },
    }
}

fn perform(check: &Check, host: &Arc<Host>) -> Result<(), Failure> {
    let mut lab = host.lab()?;
    // A check that panics must not leave its containers behind.
    let verdict = catch_unwind(AssertUnwindSafe(|| (check.run)(&mut lab)));
    let verdict = verdict.unwrap_or_else(|_| Err(Failure("the check panicked, see above".into())));
    verdict.and(lab.close())
}

/// Many checks demand a refusal: a program that refuses everything, or does nothing at all, must not get that far.
pub fn runs_a_container(host: &Arc<Host>) -> Result<(), Failure> {
    let mut lab = host.lab()?;
    let output = lab.run_sh("echo control");
    lab.close()?;
    match output {
        Ok(text) if text == "control\n" => Ok(()),
        Ok(text) => Err(Failure(format!("the runtime does not run the base bundle, whose output is {text:?}"))),
        Err(Failure(why)) => Err(Failure(format!("the runtime does not run the base bundle: {why}"))),
    }
}
