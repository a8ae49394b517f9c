//! What oci-spec's types do not show: fields that they lack, and one that looks as if it were given. Looked for in the text of
//! config.json, and only parsed once more when a name of theirs is in it.

use crate::error::Result;
use crate::plan::unsupported;
use oci_spec::runtime::Spec;
use serde_json::Value;

/// Fields that the types lack: a JSON pointer, the field, and why it is refused.
const LOST: &[(&str, &str, &str)] = &[
    ("/freebsd", "freebsd", "is for another platform than Linux"),
    ("/linux/intelRdt/enableCMT", "linux.intelRdt.enableCMT", "has made way for enableMonitoring in version 1.3"),
    ("/linux/intelRdt/enableMBM", "linux.intelRdt.enableMBM", "has made way for enableMonitoring in version 1.3"),
];

/// The whole text as JSON, if it has `name` as a word of its own.
fn tree_with(raw: &[u8], name: &str) -> Option<Value> {
    let text = std::str::from_utf8(raw).ok()?;
    if text.contains(&format!("\"{name}\"")) { serde_json::from_str(text).ok() } else { None }
}

/// Refuses what would be ignored unseen.
pub(super) fn check(raw: &[u8]) -> Result<()> {
    for (pointer, field, why) in LOST {
        let name = pointer.rsplit('/').next().unwrap_or_default();
        let tree = tree_with(raw, name);
        let given = tree.as_ref().and_then(|tree| tree.pointer(pointer));
        if given.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
            return Err(unsupported(*field, *why));
        }
    }
    Ok(())
}

/// `pids` without `limit`, which is optional since version 1.3, asks for nothing; the types read it as the limit 0.
pub(super) fn correct(spec: &mut Spec, raw: &[u8]) {
    let Some(resources) = spec.linux_mut().as_mut().and_then(|l| l.resources_mut().as_mut()) else { return };
    if resources.pids().is_some_and(|pids| pids.limit() == 0)
        && tree_with(raw, "pids").is_some_and(|tree| tree.pointer("/linux/resources/pids/limit").is_none())
    {
        resources.set_pids(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrected(text: &str) -> Option<i64> {
        let mut spec: Spec = serde_json::from_str(text).unwrap();
        correct(&mut spec, text.as_bytes());
        spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().map(|pids| pids.limit())
    }

    #[test]
    fn an_absent_limit_of_processes_is_none() {
        let with = |pids: &str| format!(r#"{{"ociVersion":"1.3.0","linux":{{"resources":{{"pids":{pids}}}}}}}"#);
        assert_eq!(corrected(&with("{}")), None);
        assert_eq!(corrected(&with(r#"{"limit":0}"#)), Some(0));
        assert_eq!(corrected(&with(r#"{"limit":-1}"#)), Some(-1));
    }

    #[test]
    fn lost_fields_are_refused_by_name() {
        for (text, field) in [
            (r#"{"freebsd":{}}"#, "freebsd"),
            (r#"{"linux":{"intelRdt":{"enableCMT":true}}}"#, "linux.intelRdt.enableCMT"),
            (r#"{"linux":{"intelRdt":{"enableMBM":true}}}"#, "linux.intelRdt.enableMBM"),
        ] {
            assert_eq!(check(text.as_bytes()).unwrap_err().field(), Some(field));
        }
        for fine in [
            r#"{"annotations":{"freebsd":"x"}}"#,
            r#"{"linux":{"intelRdt":{"enableCMT":false}}}"#,
            r#"{"freebsd":null}"#,
        ] {
            check(fine.as_bytes()).unwrap();
        }
    }
}
