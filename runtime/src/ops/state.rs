//! `state`: what a container is now.

use super::Global;
use super::list::Row;
use crate::error::{Result, invalid};
use crate::state::{Container, Status};

/// The JSON of runc's `state`: indented by two spaces, no newline at its end.
pub fn state(global: &Global, id: &str) -> Result<String> {
    let container = Container::load(&global.root, id)?;
    serde_json::to_string_pretty(&row(&container)?).map_err(|e| invalid("state", e.to_string()))
}

/// The row of a container; its owner is for `list` to fill in.
pub(super) fn row(container: &Container) -> Result<Row> {
    let status = container.status()?;
    let saved = &container.saved;
    Ok(Row {
        oci_version: saved.oci_version.clone(),
        id: saved.id.clone(),
        pid: if status == Status::Stopped { 0 } else { saved.init_process_pid },
        status: status.to_string(),
        bundle: saved.bundle.display().to_string(),
        rootfs: saved.rootfs.display().to_string(),
        created: saved.created.clone(),
        annotations: saved.annotations.clone(),
        owner: String::new(),
    })
}
