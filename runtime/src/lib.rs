#![forbid(unsafe_code)]
//! orlop: an OCI low-level container runtime.
//!
//! config.json becomes a [`plan`], a flat list of steps; [`spawn`] makes the child that walks it ([`init`], [`rootfs`]);
//! [`state`] keeps what is needed to find the container again. Each verb is one function of [`ops`].

#[cfg(feature = "cli")]
mod argv;
pub mod cgroup;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod console;
mod copy_up;
pub mod criu;
mod diagnose;
pub mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod held;
mod hidden;
mod hints;
pub mod hook;
pub mod hooks;
pub mod init;
pub mod log;
mod netdevices;
mod netlink;
mod newidmap;
pub mod notify;
pub mod ops;
pub mod plan;
pub mod program;
pub mod resctrl;
mod rootfs;
pub mod seal;
pub mod seccomp_agent;
pub mod spawn;
pub mod state;
pub mod sync;
pub mod userns;
mod whole;

/// The version of the runtime specification that orlop implements.
pub const OCI_VERSION: &str = "1.3.0";
