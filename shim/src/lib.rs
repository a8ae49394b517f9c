//! The shim as a library: what `containerd-shim-orlop-v2` does, for that program and for the fuzz target of its requests.
#![forbid(unsafe_code)]

mod args;
mod binary;
mod bootstrap;
mod checkpoint;
mod connections;
mod container;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handlers;
mod io;
mod metrics;
mod mounts;
mod options;
mod process;
mod ready;
mod reaper;
mod sandbox;
mod serve;
mod task;
mod worker;

use args::{Action, Args};
use std::ffi::OsString;

/// Does what the command line says; the answer is what containerd reads on stdout.
///
/// # Errors
/// What containerd shows: a command line that is not containerd's, or what has failed.
pub fn run(argv: &[OsString]) -> Result<Vec<u8>, String> {
    let args = Args::parse(argv)?;
    match args.action {
        Action::Version => Ok(bootstrap::version().into_bytes()),
        Action::Info => bootstrap::info(),
        Action::Delete => bootstrap::delete(&args),
        Action::Start => {
            // Once for the life of the daemon and of every worker (CVE-2019-5736).
            orlop::seal::seal(argv).map_err(|e| e.to_string())?;
            bootstrap::start(&args)
        }
    }
}
