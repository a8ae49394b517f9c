//! SCMP_ACT_NOTIFY: hands the listener of a filter to the agent at `listenerPath` (config-linux.md, "containerProcessState").

use crate::console::ShortPath;
use crate::error::{On, Result, invalid};
use crate::{OCI_VERSION, state};
use oci_spec::runtime::Spec;
use orlop_sys::socket;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// One message: the JSON of the process's state, and the fd that it names.
pub fn send(spec: &Spec, id: &str, bundle: &Path, pid: i32, listener: OwnedFd) -> Result<()> {
    let field = "linux.seccomp.listenerPath";
    let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let path = profile.and_then(|p| p.listener_path().as_deref()).ok_or_else(|| invalid(field, "must be set"))?;
    let metadata = profile.and_then(|p| p.listener_metadata().clone()).unwrap_or_default();
    let message = serde_json::json!({
        "ociVersion": OCI_VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": {
            "ociVersion": OCI_VERSION,
            "id": id,
            "status": "creating",
            "pid": pid,
            "bundle": bundle,
            "annotations": state::annotations(spec),
        },
    });
    let short = ShortPath::of(path)?;
    let stream = UnixStream::connect(&short.path)
        .on("failed to connect with seccomp agent", path.display())
        .map_err(|e| e.at(field))?;
    socket::send(stream.as_fd(), message.to_string().as_bytes(), Some(listener.as_fd()))
        .on("sendmsg to", path.display())
        .map_err(|e| e.at(field))
}
