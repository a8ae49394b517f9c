//! The containers whose ids match a regular expression: `kill --regex` and `delete --regex`.

use super::{Global, default_root};
use crate::error::{Error, Result, invalid};
use crate::plan::c_string;
use crate::state::Container;
use orlop_sys::regex::Regex;

/// Does `act` to each of them, to all even if it fails for some. That none matches is no error.
pub(super) fn matching(global: &Global, pattern: &str, act: impl Fn(&str) -> Result<()>) -> Result<()> {
    let text = c_string(pattern, "--regex")?;
    let regex =
        Regex::new(&text).ok_or_else(|| invalid("--regex", format!("invalid regular expression {pattern:?}")))?;
    if !global.root.exists() && global.root == default_root().0 {
        return Ok(());
    }
    let mut failed: Option<Error> = None;
    for container in Container::all(&global.root)? {
        // One that is broken can be deleted nevertheless.
        let id = container.map_or_else(|(id, _)| id, |container| container.saved.id);
        if regex.matches(&c_string(id.as_str(), "")?)
            && let Err(e) = act(&id).map_err(|e| e.at(format!("container {id}")))
        {
            failed = Some(match failed {
                Some(first) => first.also(e),
                None => e,
            });
        }
    }
    failed.map_or(Ok(()), Err)
}
