#![forbid(unsafe_code)]
//! regex-lite in the place of regex: oci-spec checks one short list of CPUs with it, for which regex with its engines and its
//! Unicode tables would be a third of the binary. `[patch.crates-io]` of the workspace puts it there.

pub use regex_lite::*;
