//! The command `orlop`: seal the own executable, do what the arguments say, end with its status.
#![forbid(unsafe_code)]

use orlop::{cli, log, seal};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    let mut reply = match cli::enters_container(&argv).then(|| seal::seal(&argv)) {
        Some(Err(e)) => cli::Reply::failed(e.to_string()),
        _ => cli::run(&argv),
    };
    if let Err(e) = print(&reply.stdout) {
        reply = cli::Reply::failed(format!("write to stdout: {e}"));
    }
    if let Some(error) = &reply.error {
        log::report(error);
    }
    ExitCode::from(reply.status)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
