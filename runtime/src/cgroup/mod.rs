//! Control groups: one trait, two file layouts.
