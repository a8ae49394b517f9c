//! The OCI runtime specification's MUSTs, and the command line that runc's callers rely on, as named checks
//! that run against any runtime binary. README.md says how to run them.

#[macro_use]
pub mod check;
pub mod apparmor;
pub mod bundle;
pub mod checks;
pub mod command;
pub mod criu;
pub mod expected;
pub mod holder;
pub mod isolate;
pub mod judge;
pub mod needs;
pub mod outside;
pub mod report;
pub mod runtime;
pub mod soak;
pub mod socket;
pub mod witness;
