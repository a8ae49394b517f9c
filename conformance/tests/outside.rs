//! Drivers for outside suites.
fn main() {}
