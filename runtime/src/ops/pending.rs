//! Holds the places of the verbs that land from another branch.
use super::*;
use crate::error::{Result, invalid};
pub(crate) fn rows(_: &Global) -> Result<Vec<list::Row>> {
    Err(invalid("list", "not in this build"))
}
pub(crate) fn pids(_: &Global, _: &str) -> Result<Vec<i32>> {
    Err(invalid("ps", "not in this build"))
}
macro_rules! verbs { ($($name:ident($($arg:ty),*) -> $out:ty;)*) => { $(pub mod $name {
    use super::super::*; use crate::error::{Result, invalid};
    #[allow(missing_docs)]
    pub fn $name(_: &Global, $(_: $arg),*) -> Result<$out> { Err(invalid(stringify!($name), "not in this build")) }
})* } }
verbs! {
    create(&CreateOptions) -> ();
    run(&RunOptions) -> u8;
    exec(&ExecOptions) -> u8;
    start(&str) -> ();
    state(&str) -> String;
    kill(&str, &str, bool) -> ();
    delete(&str, bool) -> ();
    pause(&str) -> ();
    resume(&str) -> ();
}
