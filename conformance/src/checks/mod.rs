//! The checks, one file per area.

use crate::check::Check;

mod lifecycle;

/// Every check of every area.
pub fn all() -> Vec<Check> {
    [lifecycle::checks()].into_iter().flatten().collect()
}
