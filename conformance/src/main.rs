//! The program `conformance`; [`orlop_conformance::command`] says what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    orlop_conformance::command::main(std::env::args_os().skip(1).collect(), None)
}
