//! Runs the runtime under real engines: what the tests share.
//!
//! An engine is private to the test binary: its own mount and network namespace, its own sockets, data and cgroup
//! parent. Nothing here skips: what is missing on the machine is a panic that names the Debian package.

pub mod archive;
pub mod cgroup;
pub mod containerd;
pub mod cri;
pub mod criu;
pub mod docker;
pub mod dockerd;
pub mod images;
pub mod leaks;
pub mod page;
pub mod podman;
pub mod private;
pub mod programs;
pub mod pty;
pub mod runtime;
pub mod shim;
pub mod wait;
