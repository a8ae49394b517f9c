//! The checks that peers are known to fail, and why. With EXPECT=runc or EXPECT=crun these are reported as expected
//! failures; a check of this table that passes is an error, so that the table stays true.

/// A check that a runtime is known to fail.
pub struct Expected {
    /// The value of EXPECT.
    pub runtime: &'static str,
    /// The check's name.
    pub check: &'static str,
    /// What the runtime does instead.
    pub why: &'static str,
}

/// Seen with runc 1.1.5 and crun 1.8.1 of Debian 12.
pub const EXPECTED: &[Expected] = &[];
