//! What a check is, and how it fails.

use crate::runtime::Lab;

/// Why a check failed: one sentence for the person who reads the report.
#[derive(Debug)]
pub struct Failure(pub String);

/// What a check returns.
pub type Outcome = Result<(), Failure>;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// One named check against one section of a specification.
pub struct Check {
    /// `area::what_must_hold`.
    pub name: String,
    /// The section that demands it: a file and heading of the runtime specification, or `runc: …` for the command line.
    pub section: &'static str,
    /// True for orlop's own promises, which other runtimes never made.
    pub own: bool,
    /// The body; the laboratory is torn down, and searched for leftovers, after it.
    pub run: Box<dyn Fn(&mut Lab) -> Outcome + Send + Sync>,
}

impl Check {
    /// A check that any runtime must pass.
    pub fn new(
        name: impl Into<String>,
        section: &'static str,
        run: impl Fn(&mut Lab) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), section, own: false, run: Box::new(run) }
    }
}

/// Fails the check with a message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err($crate::check::Failure(format!($($message)+)));
        }
    }};
}

/// Fails the check unless both values are equal.
#[macro_export]
macro_rules! same {
    ($got:expr, $want:expr, $($what:tt)+) => {
        // A match keeps the temporaries of both expressions alive.
        match (&$got, &$want) {
            (got, want) => {
                if got != want {
                    return Err($crate::check::Failure(format!("{}: got {got:?}, want {want:?}", format!($($what)+))));
                }
            }
        }
    };
}

/// The table of an area's checks, from the functions that implement them.
#[macro_export]
macro_rules! checks {
    ($area:literal, $($function:ident $section:literal),+ $(,)?) => {
        vec![$($crate::check::Check::new(concat!($area, "::", stringify!($function)), $section, $function)),+]
    };
}

/// The same for orlop's own promises.
#[macro_export]
macro_rules! own_checks {
    ($($table:tt)+) => {{
        let mut own = $crate::checks!($($table)+);
        own.iter_mut().for_each(|check| check.own = true);
        own
    }};
}
