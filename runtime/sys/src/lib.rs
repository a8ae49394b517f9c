//! The system calls of orlop. This crate holds the only unsafe code of the workspace.
//!
//! Functions take borrowed fds and `&CStr`, return owned fds and [`Errno`], and never allocate unless they say so. The
//! kernel floor is 5.12 (mount_setattr; close_range with CLOEXEC is of 5.11), so that no call needs a second way.

pub mod alloc;
pub mod bpf;
pub mod devices;
pub mod exe;
pub mod fds;
pub mod file;
pub mod in_root;
pub mod loop_device;
pub mod mount;
pub mod network;
pub mod poll;
pub mod process;
pub mod regex;
pub mod signal;
pub mod socket;
pub mod start;
pub mod status;
pub mod terminal;

pub use nix::errno::Errno;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;
