//! The checks, one file per area.

use crate::check::Check;
use crate::witness::watched;

mod cgroups;
mod checkpoint;
mod cli;
mod console;
mod errors;
mod escapes;
mod events;
mod exec;
mod flags;
mod hooks;
mod idmap;
mod known_fields;
mod lifecycle;
mod live_mounts;
mod memory_policy;
mod mounts;
mod namespaces;
mod network_devices;
mod process;
mod races;
mod reports;
mod rootless;
mod safety;
mod seccomp;
mod systemd;
mod values;

/// Every check of every area.
pub fn all() -> Vec<Check> {
    let areas = [
        lifecycle::checks(),
        cli::checks(),
        reports::checks(),
        console::checks(),
        exec::checks(),
        process::checks(),
        memory_policy::checks(),
        known_fields::checks(),
        mounts::checks(),
        watched(safety::checks()),
        watched(escapes::checks()),
        watched(races::checks()),
        idmap::checks(),
        live_mounts::checks(),
        namespaces::checks(),
        network_devices::checks(),
        hooks::checks(),
        cgroups::checks(),
        systemd::checks(),
        rootless::checks(),
        seccomp::checks(),
        values::checks(),
        errors::checks(),
        events::checks(),
        flags::checks(),
        checkpoint::checks(),
    ];
    areas.into_iter().flatten().collect()
}
