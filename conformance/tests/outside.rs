//! The outside suites as a test: those whose variable names a built checkout are run, the others are said to be missing.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use orlop_conformance::command;

fn main() -> ExitCode {
    let filters: Vec<OsString> = env::args_os().skip(1).collect();
    let mut failed = false;
    for (variable, suite) in [("RUNTIME_TOOLS", "runtime-tools"), ("RUNC_TESTS", "runc")] {
        let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) else {
            println!("skipped: {suite}: {variable} does not name a built checkout of it");
            continue;
        };
        let mut arguments: Vec<OsString> = ["outside", "--suite", suite, "--path"].map(OsString::from).into();
        arguments.push(path);
        arguments.extend(filters.iter().cloned());
        failed |= command::main(arguments, None) != ExitCode::SUCCESS;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
