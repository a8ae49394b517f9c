//! The command `orlop`: seal the own executable, do what the arguments say, end with its status.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

use orlop::error::On;
use orlop::{cli, log, seal};
use orlop_sys::{alloc, start};
use std::ffi::OsString;
use std::io::Write;

#[global_allocator]
static MEMORY: alloc::Pool = alloc::Pool::new();

#[cfg(not(test))]
orlop_sys::program!(orlop);

#[cfg_attr(test, expect(dead_code, reason = "there is no program in a test"))]
fn orlop(argv: &[OsString]) -> u8 {
    // First of all, since much of what else is done would be done again.
    let sealed = if cli::enters_container(argv) { seal::seal(argv) } else { Ok(()) };
    let mut reply = match sealed.and_then(|()| start::ready().on("open", "\"/dev/null\"")) {
        Err(e) => cli::Reply::failed(e.to_string()),
        Ok(()) => cli::run(argv),
    };
    if let Err(e) = print(&reply.stdout) {
        reply = cli::Reply::failed(format!("write to stdout: {e}"));
    }
    if let Some(error) = &reply.error {
        log::report(error);
    }
    reply.status
}

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
