//! `pause`: freezes the container's processes.

use super::Global;
use crate::error::{Error, Kind, Result};
use crate::state::{Container, Status};

/// Pauses a running or created container.
pub fn pause(global: &Global, id: &str) -> Result<()> {
    let (container, _lock) = Container::locked(&global.root, id)?;
    match container.status()? {
        Status::Running | Status::Created => container.cgroup().freeze(true),
        // The words are those that callers look for.
        Status::Paused => Err(Error::new(Kind::State, "container not running").hint("it is paused already")),
        Status::Stopped => Err(Error::new(Kind::State, "container not running")),
    }
}
