//! The program `conformance` as a test: the runtime is RUNTIME, or the newest release build of orlop.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use orlop_conformance::command;

fn main() -> ExitCode {
    command::main(env::args_os().skip(1).collect(), newest_build())
}

fn newest_build() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(workspace, PathBuf::from);
    let mut builds = vec![target.join("release/orlop")];
    builds.extend(target.read_dir().ok()?.flatten().map(|entry| entry.path().join("release/orlop")));
    let built = |path: &PathBuf| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    builds.into_iter().filter(|path| built(path).is_some()).max_by_key(built)
}
