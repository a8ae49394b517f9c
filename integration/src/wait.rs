//! Waiting with a limit.

use std::time::{Duration, Instant};

/// How long what happens by itself may take, on a machine that has other work and stands still for a while.
pub const SOON: Duration = Duration::from_secs(120);

const STEP: Duration = Duration::from_millis(20);

/// Calls `probe` until it gives a value; panics with `what` when `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(STEP);
    }
}
