//! `containerd-shim-orlop-v2`: the shim that plugs orlop in underneath containerd and Docker (`io.containerd.orlop.v2`).
//!
//! `start` forks the daemon that serves containerd's Task API for one container, or for all of a pod; the daemon has one
//! thread and runs the runtime's operations in forked workers. `delete` cleans up after a daemon that is gone. See
//! containerd's documentation of the runtime v2 interface (core/runtime/v2/README.md).
#![forbid(unsafe_code)]

mod args;
mod binary;
mod bootstrap;
mod checkpoint;
mod connections;
mod container;
mod events;
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
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    match run(&argv) {
        Ok(answer) => match std::io::stdout().write_all(&answer) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&format!("write to stdout: {e}")),
        },
        Err(e) => failed(&e),
    }
}

fn run(argv: &[std::ffi::OsString]) -> Result<Vec<u8>, String> {
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

/// containerd shows what is on stderr.
fn failed(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "containerd-shim-orlop-v2: {message}");
    ExitCode::FAILURE
}
