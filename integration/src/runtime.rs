//! The runtime under test.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The binary named by the variable `ORLOP`, else the newest `orlop` that `cargo build --release` left in the
/// workspace's target directory.
///
/// # Panics
/// When there is none.
pub fn path() -> PathBuf {
    let path = match std::env::var_os("ORLOP") {
        Some(path) => PathBuf::from(path),
        None => {
            built().unwrap_or_else(|| panic!("no release build of orlop: run `cargo build --release`, or set ORLOP"))
        }
    };
    let absolute = std::path::absolute(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(absolute.is_file(), "ORLOP names no file: {}", absolute.display());
    absolute
}

/// The shim named by the variable `SHIM`, else the one beside the runtime under test.
///
/// # Panics
/// When there is none.
pub fn shim() -> PathBuf {
    let beside = || path().with_file_name("containerd-shim-orlop-v2");
    let shim = std::env::var_os("SHIM").map_or_else(beside, PathBuf::from);
    assert!(shim.is_file(), "no shim at {}: build it, or set SHIM", shim.display());
    std::path::absolute(shim).expect("a path")
}

fn built() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir));
    let per_triple = std::fs::read_dir(&target).ok()?.flatten().map(|entry| entry.path());
    per_triple
        .chain([target.clone()])
        .map(|dir| dir.join("release/orlop"))
        .filter(|p| p.is_file())
        .max_by_key(|p| p.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH))
}
