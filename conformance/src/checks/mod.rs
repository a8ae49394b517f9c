//! The checks, one file per area.

use crate::check::Check;

mod lifecycle;
mod mounts;
mod process;

/// Every check of every area.
pub fn all() -> Vec<Check> {
    let areas = [lifecycle::checks(), process::checks(), mounts::checks(), mounts::safety()];
    areas.into_iter().flatten().collect()
}
