//! Who may use whom, read from the sources: an arrow upwards is a design that has slipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the runtime from the top down. A module uses those of rows below its own, and of its own row; a folder
/// counts as one module.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "argv"],
    &["ops"],
    &["state", "diagnose"],
    &["config", "spawn", "seccomp_agent"],
    &["hooks", "console", "notify", "plan", "init", "rootfs"],
    &["cgroup", "log", "seal", "hook", "copy_up"],
    &["hints", "sync", "error"],
];
