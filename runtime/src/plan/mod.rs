//! The plan of a container.

pub mod seccomp;
