//! What the binaries are built of: where it comes from, under which licence, how much it is, and how much of ours the compiler takes on trust.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "cargo")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What may be linked with a program under Apache-2.0 and passed on without a condition but a notice.
const LICENCES: &[&str] = &["Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "Unicode-3.0", "Unlicense", "Zlib"];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Crates of which the runtime's build has two versions: derive macros, no part of the binary.
const TWICE: &[&str] = &["syn"];
/// The runtime's tree is counted for this target.
const TARGET: &str = "x86_64-unknown-linux-musl";

fn cargo(args: &[&str]) -> String {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output =
        Command::new(env!("CARGO")).args(args).args(["--locked", "--manifest-path", manifest]).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An SPDX expression of which every part can be met; `/` is an old form of OR.
fn is_allowed(expression: &str) -> bool {
    let one = |licence: &str| LICENCES.contains(&licence.trim().trim_matches(['(', ')']));
    expression.split(" AND ").all(|part| part.replace('/', " OR ").split(" OR ").any(one))
}

#[test]
fn every_crate_comes_from_crates_io_under_a_licence_that_fits() {
    assert!(
        is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0") && !is_allowed("GPL-3.0") && !is_allowed("MIT AND MPL-2.0")
    );
    let host = if cfg!(target_arch = "x86_64") { "x86_64-unknown-linux-gnu" } else { "aarch64-unknown-linux-gnu" };
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--filter-platform", host])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{} packages", packages.len());
    for package in packages {
        let name = &package["name"];
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(licence), "{name} has the licence {licence:?}");
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source == CRATES_IO), "{name} comes from {source:?}");
    }
}

#[test]
fn the_readme_tells_how_many_crates_the_runtime_has() {
    let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--target", TARGET]);
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let seen = versions.entry(name).or_default();
        if !seen.contains(&version) {
            seen.push(version);
        }
    }
    let twice: Vec<&&str> = versions.iter().filter(|(_, seen)| seen.len() > 1).map(|(name, _)| name).collect();
    assert!(twice.iter().all(|name| TWICE.contains(name)), "more than one version of {twice:?}");
    let readme = include_str!("../../README.md");
    let told = format!("built of {} crates", versions.len());
    assert!(readme.contains(&told), "README.md does not say that the runtime is {told}");
}

/// How far the number of such blocks may be below what SECURITY.md tells before that is no news of today.
const STALE: usize = 40;

/// The word itself may stand in no source but of `runtime/sys` (layers.rs).
const KEYWORD: &str = concat!("un", "safe");

/// Blocks of it, and what else has it, in a source without its comments.
fn unsafe_parts(source: &str) -> (usize, usize) {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let after = code.split(KEYWORD).skip(1).map(str::trim_start);
    let count =
        |starts: &[&str]| after.clone().filter(|rest| starts.iter().any(|start| rest.starts_with(start))).count();
    (count(&["{"]), count(&["fn ", "impl ", "impl<", "trait ", "extern ", "("]))
}

fn sources(directory: &Path, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => sources(&entry.path(), all),
            false => all.push(std::fs::read_to_string(entry.path()).unwrap()),
        }
    }
}

/// All of them are in runtime/sys, which lint looks at; here their number is held.
#[test]
fn unsafe_blocks_are_as_many_as_told() {
    // Lint looks for the word itself, in this file too.
    let sample = "WORD { a }\n// WORD { b }\nWORD fn c() {}\n#[WORD(no_mangle)] WORD\n{ d }".replace("WORD", KEYWORD);
    assert_eq!(unsafe_parts(&sample), (2, 2));
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sys/src"), &mut all);
    let parts = all.iter().map(|source| unsafe_parts(source));
    let (blocks, others) = parts.fold((0, 0), |(blocks, others), (b, o)| (blocks + b, others + o));
    let security = include_str!("../../SECURITY.md");
    let number = |behind: &str| -> usize {
        let text = security.split(behind).next().unwrap().split(' ').rev().find(|word| !word.is_empty()).unwrap();
        text.parse().unwrap_or_else(|_| panic!("SECURITY.md has no number before {behind:?}"))
    };
    let (told, told_others) = (
        number(&format!(" {KEYWORD} blocks")),
        number(&format!(" {KEYWORD} functions, implementations and attributes")),
    );
    assert!(
        blocks <= told && blocks + STALE > told,
        "{blocks} {KEYWORD} blocks, and SECURITY.md tells of at most {told}"
    );
    assert!(
        others <= told_others,
        "{others} {KEYWORD} functions and so on, and SECURITY.md tells of at most {told_others}"
    );
}
