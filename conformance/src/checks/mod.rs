//! The checks, one file per area.

use crate::check::Check;

mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;

/// Every check of every area.
pub fn all() -> Vec<Check> {
    let areas = [lifecycle::checks(), process::checks(), mounts::checks(), mounts::safety(), hooks::checks(), namespaces::checks()];
    areas.into_iter().flatten().collect()
}
