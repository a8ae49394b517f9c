#![forbid(unsafe_code)]
//! orlop: an OCI low-level container runtime.

#[cfg(feature = "cli")]
mod argv;
pub mod cgroup;
#[cfg(feature = "cli")]
pub mod cli;
pub mod console;
pub mod error;
pub mod log;
pub mod notify;
pub mod ops;
pub mod plan;
pub mod seal;
