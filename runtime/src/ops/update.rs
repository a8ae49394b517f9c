//! `update`: other limits for a container that is there.
//!
//! Limits are merged as JSON, where "given or not" is the same for every field: what is given is written to the cgroups,
//! all the rest stays as it is there, and the sum of both is kept for the next update.

use super::{Global, UpdateOptions};
use crate::config;
use crate::error::{Error, Kind, Result, invalid};
use crate::resctrl::Group;
use crate::state::{Container, Status};
use log::warn;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use std::path::Path;

/// Changes the limits of a container that has not ended. If one of them is refused, those before it are set back.
pub fn update(global: &Global, options: &UpdateOptions) -> Result<()> {
    let (container, _lock) = Container::locked(&global.root, &options.id)?;
    let given = given(&options.resources)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::State, "container not running"));
    }
    let back = set_class(&container, options)?;
    let limited = limit(&container, &given);
    if let (Err(_), Some((class, lines))) = (&limited, back) {
        // The first error is what the user must hear.
        let _ = class.set(lines.trim_end());
    }
    limited
}

/// Changes the class of service (Intel RDT); what it had before is for the way back.
fn set_class<'a>(container: &'a Container, options: &UpdateOptions) -> Result<Option<(&'a Group, String)>> {
    let Some((first, _)) = options.schemata.first() else { return Ok(None) };
    let Some(class) = &container.saved.intel_rdt else {
        return Err(invalid(format!("--{first}"), "updating a non-existent Intel RDT configuration is not supported")
            .hint("the container was made without linux.intelRdt"));
    };
    let before = class.schemata()?;
    for (flag, line) in &options.schemata {
        if line.contains('\n') {
            return Err(invalid(format!("--{flag}"), "must not contain newlines"));
        }
        if let Err(e) = class.set(line) {
            let e = e.at(format!("--{flag}"));
            return Err(match class.set(before.trim_end()) {
                Ok(()) => e,
                Err(second) => e.also(second),
            });
        }
    }
    Ok(Some((class, before)))
}

/// Changes the limits of the cgroups.
fn limit(container: &Container, given: &Value) -> Result<()> {
    let old = json_of(&container.resources()?)?;
    let new = merged(&old, given);
    let change = with_partners(given, &new);
    let cgroup = container.cgroup();
    if let Err(e) = cgroup.set(&typed(change.clone())?) {
        let back = picked(&merged(&unlimited(), &old), &change);
        return Err(match cgroup.set(&typed(back)?) {
            Ok(()) => e,
            // What the container has no cgroup for cannot be set back either.
            Err(second) if second.to_string() == e.to_string() => e,
            Err(second) => e.also(second),
        });
    }
    container.keep_resources(&typed(kept(new))?)
}

/// What `linux.resources` has (runtime-spec 1.3, config-linux.md, "Control groups").
const SECTIONS: &[&str] =
    &["blockIO", "cpu", "devices", "hugepageLimits", "memory", "network", "pids", "rdma", "unified"];

/// Where 0 and an empty text are engines' words for "not given". (Not in `pids.limit`, `cpu.burst` and `cpu.idle`.)
const UNSET: &[(&str, &[&str])] = &[
    ("memory", &["limit", "reservation", "kernel", "kernelTCP"]),
    ("cpu", &["quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"]),
    ("blockIO", &["weight", "leafWeight"]),
    ("network", &["classID"]),
];

/// Fields that make sense together only: v2 has quota and period in one file, and counts swap without memory.
const PARTNERS: &[(&str, [&str; 2])] = &[("memory", ["limit", "swap"]), ("cpu", ["quota", "period"])];

/// What tells the entries of a list apart: block devices, page sizes, network interfaces.
const KEYS: &[&str] = &["major", "minor", "pageSize", "name"];

/// What a new cgroup has, where the layouts agree on it.
fn unlimited() -> Value {
    json!({
        "memory": {"limit": -1, "swap": -1},
        "cpu": {"shares": 1024, "quota": -1, "period": 100_000, "burst": 0, "idle": 0},
        "pids": {"limit": -1},
    })
}

/// The limits of the update: those that say something, in the types of the specification.
fn given(raw: &[u8]) -> Result<Value> {
    let at = |e: Error| e.within("resources");
    let mut tree: Value = serde_json::from_slice(raw).map_err(|e| invalid("resources", e.to_string()))?;
    drop_nulls(&mut tree);
    for name in tree.as_object().into_iter().flat_map(serde_json::Map::keys).filter(|n| !SECTIONS.contains(&n.as_str()))
    {
        warn!("resources.{name} is unknown: left out");
    }
    // oci-spec would read an absent limit of processes as 0.
    if tree.pointer("/pids/limit").is_none() {
        remove(&mut tree, &["pids"]);
    }
    // Whoever gave the container its devices (a GPU's hook, too) may have changed the rules since.
    remove(&mut tree, &["devices"]);
    let text = tree.to_string();
    let mut tree = json_of(&config::parse::<LinuxResources>(text.as_bytes(), Path::new("resources")).map_err(at)?)?;
    drop_unset(&mut tree);
    if let Some(memory) = tree.get_mut("memory") {
        if remove(memory, &["kernel", "kernelTCP"]) {
            warn!("Kernel memory settings are ignored and will be removed");
        }
        // Without a limit on memory, none on the sum of memory and swap can stay.
        if memory.get("limit") == Some(&json!(-1)) {
            default(memory, "swap", json!(0));
        }
    }
    if let Some(cpu) = tree.get_mut("cpu").filter(|cpu| cpu.get("idle").is_some()) {
        // The kernel takes no weight for an idle cgroup, and gives one that stops being idle the default.
        default(cpu, "shares", json!(0));
    }
    Ok(tree)
}

/// What is written: the update, with the partners of what it changes as they are or become.
fn with_partners(given: &Value, new: &Value) -> Value {
    let mut change = given.clone();
    for (section, fields) in PARTNERS {
        let (Some(to), Some(from)) = (change.get_mut(section), new.get(section)) else { continue };
        if fields.iter().any(|field| to.get(field).is_some()) {
            for field in fields {
                from.get(field).into_iter().for_each(|value| default(to, field, value.clone()));
            }
        }
    }
    change
}

/// What is kept for the next update: `checkBeforeUpdate` is for this one alone.
fn kept(mut new: Value) -> Value {
    if let Some(memory) = new.get_mut("memory") {
        remove(memory, &["checkBeforeUpdate"]);
    }
    new
}

/// `old` with everything of `given` in its place.
fn merged(old: &Value, given: &Value) -> Value {
    match (old, given) {
        (Value::Object(old), Value::Object(given)) => {
            let mut all = old.clone();
            for (name, value) in given {
                let value = all.get(name).map_or_else(|| value.clone(), |old| merged(old, value));
                all.insert(name.clone(), value);
            }
            Value::Object(all)
        }
        (Value::Array(old), Value::Array(given)) => {
            let mut all = old.clone();
            for entry in given {
                // The last of two that are alike is the one that was in force.
                match all.iter_mut().rev().find(|old| same(old, entry)) {
                    Some(old) => *old = merged(old, entry),
                    None => all.push(entry.clone()),
                }
            }
            Value::Array(all)
        }
        _ => given.clone(),
    }
}

/// The fields and entries of `all` that `like` has too.
fn picked(all: &Value, like: &Value) -> Value {
    match (all, like) {
        (Value::Object(all), Value::Object(like)) => {
            let both = like.iter().filter_map(|(name, like)| Some((name.clone(), picked(all.get(name)?, like))));
            Value::Object(both.collect())
        }
        (Value::Array(all), Value::Array(like)) => {
            let both = like.iter().filter_map(|like| Some(picked(all.iter().rev().find(|one| same(one, like))?, like)));
            Value::Array(both.collect())
        }
        _ => all.clone(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    KEYS.iter().all(|key| a.get(key) == b.get(key))
}

fn drop_nulls(tree: &mut Value) {
    if let Value::Object(map) = tree {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

fn drop_unset(tree: &mut Value) {
    for (section, fields) in UNSET {
        if let Some(Value::Object(map)) = tree.get_mut(section) {
            map.retain(|name, value| !(fields.contains(&name.as_str()) && (*value == 0 || *value == "")));
        }
    }
}

/// True: there was one of them.
fn remove(tree: &mut Value, names: &[&str]) -> bool {
    let Value::Object(map) = tree else { return false };
    names.iter().filter(|name| map.remove(**name).is_some()).count() > 0
}

fn default(tree: &mut Value, name: &str, value: Value) {
    if let Value::Object(map) = tree {
        map.entry(name).or_insert(value);
    }
}

fn json_of(resources: &LinuxResources) -> Result<Value> {
    serde_json::to_value(resources).map_err(|e| invalid("linux.resources", e.to_string()))
}

fn typed(tree: Value) -> Result<LinuxResources> {
    serde_json::from_value(tree).map_err(|e| invalid("linux.resources", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_of(text: &str) -> Value {
        given(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_says_nothing_is_not_given() {
        for (text, expected) in [
            ("{}", json!({})),
            (r#"{"memory":null,"pids":{},"cpu":{"cpus":null}}"#, json!({"cpu": {}})),
            // As Docker sends it for an update of the CPU weight alone.
            (
                r#"{"memory":{"limit":0,"reservation":0,"kernel":0},"cpu":{"shares":300,"quota":0,"period":0,"cpus":"","mems":""},"blockIO":{"weight":0}}"#,
                json!({"memory": {}, "cpu": {"shares": 300}, "blockIO": {}}),
            ),
            // Zeros that are values.
            (r#"{"pids":{"limit":0},"cpu":{"burst":0}}"#, json!({"pids": {"limit": 0}, "cpu": {"burst": 0}})),
            (r#"{"devices":[{"allow":false,"access":"rwm"}],"unknown":1}"#, json!({})),
            (r#"{"memory":{"kernel":5,"kernelTCP":6,"swap":7}}"#, json!({"memory": {"swap": 7}})),
            (r#"{"memory":{"limit":-1}}"#, json!({"memory": {"limit": -1, "swap": 0}})),
            (r#"{"memory":{"limit":-1,"swap":5}}"#, json!({"memory": {"limit": -1, "swap": 5}})),
            (r#"{"cpu":{"idle":1}}"#, json!({"cpu": {"idle": 1, "shares": 0}})),
            (r#"{"cpu":{"idle":0,"shares":9}}"#, json!({"cpu": {"idle": 0, "shares": 9}})),
        ] {
            assert_eq!(given_of(text), expected, "{text}");
        }
    }

    #[test]
    fn bad_json_says_where() {
        for (text, expected) in [
            ("", "resources: EOF while parsing a value at line 1 column 0"),
            (r#"{"cpu":{"shares":-1}}"#, "resources.cpu.shares: invalid value: integer `-1`, expected u64"),
            (r#"{"pids":{"limit":"9"}}"#, "resources.pids.limit: invalid type: string \"9\", expected i64"),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"rate":-1}]}}"#,
                "resources.blockIO.throttleReadBpsDevice[0].rate: invalid value: integer `-1`, expected u64",
            ),
        ] {
            assert_eq!(given(text.as_bytes()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let old = json!({
            "devices": [{"allow": false}],
            "memory": {"limit": 100, "swap": 200},
            "cpu": {"cpus": "0", "shares": 5},
            "unified": {"memory.high": "9"},
        });
        let new =
            merged(&old, &json!({"memory": {"limit": 150}, "pids": {"limit": 3}, "unified": {"memory.low": "1"}}));
        let expected = json!({
            "devices": [{"allow": false}],
            "memory": {"limit": 150, "swap": 200},
            "cpu": {"cpus": "0", "shares": 5},
            "pids": {"limit": 3},
            "unified": {"memory.high": "9", "memory.low": "1"},
        });
        assert_eq!(new, expected);
    }

    #[test]
    fn list_entries_are_told_apart_by_their_names() {
        let old = json!({"throttle": [
            {"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 2}, {"major": 8, "minor": 0, "rate": 3}]});
        let given = json!({"throttle": [{"major": 8, "minor": 0, "rate": 9}, {"major": 9, "minor": 0, "rate": 4}]});
        let expected = json!({"throttle": [
            {"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 2},
            {"major": 8, "minor": 0, "rate": 9}, {"major": 9, "minor": 0, "rate": 4}]});
        assert_eq!(merged(&old, &given), expected);
        let weights = merged(
            &json!([{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}]),
            &json!([{"major": 8, "minor": 0, "leafWeight": 30}]),
        );
        assert_eq!(weights, json!([{"major": 8, "minor": 0, "weight": 10, "leafWeight": 30}]));
        let pages = merged(&json!([{"pageSize": "2MB", "limit": 1}]), &json!([{"pageSize": "1GB", "limit": 2}]));
        assert_eq!(pages, json!([{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}]));
    }

    #[test]
    fn partners_are_written_together_and_nothing_else_is() {
        let old = json!({"memory": {"limit": 100, "swap": 200, "reservation": 50}, "cpu": {"period": 7, "shares": 2}});
        for (update, expected) in [
            (json!({"memory": {"swap": 300}}), json!({"memory": {"limit": 100, "swap": 300}})),
            (json!({"memory": {"reservation": 60}}), json!({"memory": {"reservation": 60}})),
            (json!({"cpu": {"quota": 5}}), json!({"cpu": {"quota": 5, "period": 7}})),
            (json!({"cpu": {"shares": 5}}), json!({"cpu": {"shares": 5}})),
            (json!({"pids": {"limit": 5}}), json!({"pids": {"limit": 5}})),
        ] {
            assert_eq!(with_partners(&update, &merged(&old, &update)), expected, "{update}");
        }
    }

    #[test]
    fn the_way_back_has_what_the_change_has() {
        let old = json!({"memory": {"limit": 100, "reservation": 50}, "blockIO": {"x": [{"major": 8, "rate": 1}]}});
        let change = json!({
            "memory": {"limit": 150, "swap": 300},
            "pids": {"limit": 3},
            "cpu": {"cpus": "0"},
            "blockIO": {"x": [{"major": 8, "rate": 2}, {"major": 9, "rate": 3}]},
        });
        let expected = json!({
            "memory": {"limit": 100, "swap": -1},
            "pids": {"limit": -1},
            "cpu": {},
            "blockIO": {"x": [{"major": 8, "rate": 1}]},
        });
        assert_eq!(picked(&merged(&unlimited(), &old), &change), expected);
    }

    #[test]
    fn the_check_is_for_one_update_alone() {
        let new = merged(&json!({"memory": {"limit": 1}}), &given_of(r#"{"memory":{"checkBeforeUpdate":true}}"#));
        assert_eq!(new, json!({"memory": {"limit": 1, "checkBeforeUpdate": true}}));
        assert_eq!(kept(new), json!({"memory": {"limit": 1}}));
    }
}
