#![forbid(unsafe_code)]
//! orlop.
