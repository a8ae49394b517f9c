//! `resume`: thaws what `pause` froze.

use super::Global;
use crate::error::{Error, Kind, Result};
use crate::state::{Container, Status};

/// Resumes a paused container.
pub fn resume(global: &Global, id: &str) -> Result<()> {
    let (container, _lock) = Container::locked(&global.root, id)?;
    match container.status()? {
        Status::Paused => container.cgroup().freeze(false),
        _ => Err(Error::new(Kind::State, "container not paused")),
    }
}
