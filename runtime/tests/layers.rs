//! Who may use whom, read from the sources: an arrow upwards is a design that has slipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the runtime from the top down; a folder is one module. Each uses what is in the rows below, and in its own.
const LAYERS: &[&[&str]] = &[
    &["main", "fuzzing"],
    &["cli", "argv"],
    &["ops"],
    &["seccomp_agent", "diagnose", "criu"],
    &["state"],
    &["config", "spawn"],
    &["init", "rootfs", "held", "hidden", "copy_up", "userns", "newidmap"],
    &["plan", "hooks", "hook", "console", "notify", "netdevices", "netlink", "program"],
    &["cgroup", "resctrl", "hints", "log", "seal"],
    &["sync", "error", "whole"],
];

/// What runs between clone and execve, which neither allocates nor logs.
const CHILD: &[&str] = &["init", "rootfs", "held", "hidden", "copy_up", "hook"];
/// All of the crate that it may use: of the plan only the data, of the others what is made for it.
const OF_THE_CHILD: &[&str] = &["plan", "sync", "hook", "init", "rootfs", "held", "hidden", "copy_up"];
/// All of std that it may use: types that own nothing on the heap. (std::io::stdin() allocates a buffer.)
const STD_OF_THE_CHILD: &[&str] = &["std::cell::Cell;", "std::ffi", "std::mem::forget", "std::os::fd"];
/// Words that would allocate or reach for what is not there. CString may be named, as the plan holds them, but not made.
const NEVER_IN_THE_CHILD: &[&str] = &[
    "serde",
    "serde_json",
    "oci_spec",
    "log",
    "format",
    "String",
    "ToString",
    "to_string",
    "Vec",
    "vec",
    "Box",
    "HashMap",
    "BTreeMap",
    "Rc",
    "Arc",
    "to_vec",
    "to_owned",
    "collect",
    "println",
    "eprintln",
    "CString::new",
];
/// A name that fits every file tells nothing of this one.
const NAMES_OF_NOTHING: &[&str] = &["utils", "util", "common", "helpers", "helper"];

/// A source file without its comments and its unit tests.
struct Source {
    path: PathBuf,
    text: String,
}

fn sources(dir: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(sources(&path));
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
            let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            found.push(Source { text: lines.collect::<Vec<_>>().join("\n"), path });
        }
    }
    found
}

fn src() -> Vec<Source> {
    let all = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(all.len() > 30, "the sources are not where this test looks: {}", all.len());
    all
}

fn module(source: &Source) -> String {
    let path = source.path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = path.iter().next().unwrap().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The modules after `crate::` (in main: `orlop::`), in groups too.
fn used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for prefix in ["crate::", "orlop::"] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                used.push(word(rest).to_string());
                continue;
            };
            let (mut depth, mut start) = (0, 0);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    ',' | '}' if depth == 0 => {
                        used.push(word(group[start..i].trim()).to_string());
                        start = i + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
        }
    }
    // Capitals are constants of the crate's root.
    used.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    used
}

fn row(name: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&name))
}

fn has_word(text: &str, wanted: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(wanted).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part) && !text[at + wanted.len()..].chars().next().is_some_and(part)
    })
}

#[test]
fn arrows_lead_downwards() {
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for source in src() {
        let from = module(&source);
        if from == "lib" {
            continue;
        }
        let Some(own) = row(&from) else {
            wrong.push(format!("{from} is in no row of LAYERS"));
            continue;
        };
        for to in used(&source.text) {
            arrows += 1;
            match row(&to) {
                Some(row) if row >= own => {}
                Some(_) => wrong.push(format!("{} uses {to}, which is above it", source.path.display())),
                None => wrong.push(format!("{} uses {to}, which is in no row of LAYERS", source.path.display())),
            }
        }
    }
    assert!(arrows > 100, "only {arrows} uses were found: can this test still read them?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_child_uses_nothing_that_allocates() {
    let mut wrong = Vec::new();
    for source in src().iter().filter(|source| CHILD.contains(&module(source).as_str())) {
        let mut say = |what: &str| wrong.push(format!("{} uses {what}", source.path.display()));
        used(&source.text).iter().filter(|to| !OF_THE_CHILD.contains(&to.as_str())).for_each(|to| say(to));
        NEVER_IN_THE_CHILD.iter().filter(|word| has_word(&source.text, word)).for_each(|word| say(word));
        for (at, _) in source.text.match_indices("std::") {
            let rest = &source.text[at..];
            if !STD_OF_THE_CHILD.iter().any(|allowed| rest.starts_with(allowed)) {
                say(rest.lines().next().unwrap_or_default());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_sys_is_trusted() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sys = Path::new(env!("CARGO_MANIFEST_DIR")).join("sys");
    let keyword = concat!("un", "safe");
    let (inside, outside): (Vec<_>, Vec<_>) =
        sources(workspace).into_iter().filter(|s| has_word(&s.text, keyword)).partition(|s| s.path.starts_with(&sys));
    assert!(!inside.is_empty());
    let outside: Vec<_> = outside.iter().map(|source| &source.path).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn names_say_what_is_inside() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for source in sources(workspace) {
        let path = source.path.strip_prefix(workspace).unwrap();
        let bad = path.iter().find(|part| NAMES_OF_NOTHING.contains(&part.to_string_lossy().trim_end_matches(".rs")));
        assert!(bad.is_none(), "{}", path.display());
    }
}

/// The reading itself, on what it must find.
#[test]
fn uses_are_found() {
    let text = "use crate::{hooks, plan::{self, Step}, OCI_VERSION};\nuse crate::error::{On, Result};\nlet x = crate::state::load();";
    assert_eq!(used(text), ["hooks", "plan", "error", "state"]);
    assert!(has_word("let a: Vec<u8>", "Vec") && !has_word("Vector", "Vec") && !has_word("MyVec", "Vec"));
    assert!(row("init") > row("spawn") && row("sync") > row("plan"));
}
