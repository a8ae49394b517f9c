//! `containerd-shim-orlop-v2`: the shim that plugs orlop in underneath containerd and Docker (`io.containerd.orlop.v2`).
//!
//! `start` forks the daemon that serves containerd's Task API for one container, or for all of a pod; the daemon has one
//! thread and runs the runtime's operations in forked workers. `delete` cleans up after a daemon that is gone. See
//! containerd's documentation of the runtime v2 interface (core/runtime/v2/README.md).
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    match containerd_shim_orlop::run(&argv) {
        Ok(answer) => match std::io::stdout().write_all(&answer) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&format!("write to stdout: {e}")),
        },
        Err(e) => failed(&e),
    }
}

/// containerd shows what is on stderr.
fn failed(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "containerd-shim-orlop-v2: {message}");
    ExitCode::FAILURE
}
