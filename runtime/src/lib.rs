#![forbid(unsafe_code)]
//! orlop: an OCI low-level container runtime.

pub mod cgroup;
pub mod error;
pub mod plan;
