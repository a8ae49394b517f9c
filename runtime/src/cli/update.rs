//! The flags of `update`, and what they say as the JSON of a `linux.resources`.

use super::verbs::{path, text};
use super::{file, string};
use crate::error::{On, Result, invalid};
use crate::ops::UpdateOptions;
use clap::{Arg, ArgMatches};
use log::warn;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::Read;

pub(super) const DETAILS: &str = "A limit that is not given stays as it is. Sizes are in bytes, or take k, m, g, t or p behind the number\n\
     (64M); -1 is no limit.\n\
     The JSON of --resources is that of linux.resources in config.json, with what is to change alone, such as\n\
     {\"memory\": {\"limit\": 67108864, \"checkBeforeUpdate\": true}, \"pids\": {\"limit\": 100}}.\n\
     Device rules in it are left out. With --resources, the other flags are without effect.";

/// What the value of a flag is.
#[derive(Clone, Copy, Debug)]
enum Is {
    Unsigned,
    Signed,
    Bytes,
    Text,
}

/// A flag and its field below `linux.resources`, in the order of the help.
struct Limit {
    flag: &'static str,
    is: Is,
    section: &'static str,
    field: &'static str,
    help: &'static str,
}

const fn limit(flag: &'static str, is: Is, section: &'static str, field: &'static str, help: &'static str) -> Limit {
    Limit { flag, is, section, field, help }
}

const LIMITS: &[Limit] = &[
    limit("blkio-weight", Is::Unsigned, "blockIO", "weight", "weight in block I/O, 10 to 1000"),
    limit("cpu-period", Is::Unsigned, "cpu", "period", "period of the CPU quota, in microseconds"),
    limit("cpu-quota", Is::Signed, "cpu", "quota", "CPU time in a period, in microseconds"),
    limit("cpu-burst", Is::Unsigned, "cpu", "burst", "unused CPU time that a later period may add, in microseconds"),
    limit("cpu-share", Is::Unsigned, "cpu", "shares", "weight in CPU time, 2 to 262144"),
    limit("cpu-rt-period", Is::Unsigned, "cpu", "realtimePeriod", "period of --cpu-rt-runtime, in microseconds"),
    limit("cpu-rt-runtime", Is::Signed, "cpu", "realtimeRuntime", "real-time CPU time in a period, in microseconds"),
    limit("cpuset-cpus", Is::Text, "cpu", "cpus", "CPUs to use, such as 0-2,7"),
    limit("cpuset-mems", Is::Text, "cpu", "mems", "memory nodes to use"),
    limit("kernel-memory", Is::Bytes, "memory", "kernel", ""),
    limit("kernel-memory-tcp", Is::Bytes, "memory", "kernelTCP", ""),
    limit("memory", Is::Bytes, "memory", "limit", "memory limit"),
    limit("cpu-idle", Is::Signed, "cpu", "idle", "1: run only when nothing else wants to (SCHED_IDLE); 0: as usual"),
    limit(
        "memory-reservation",
        Is::Bytes,
        "memory",
        "reservation",
        "memory that is kept for the container under pressure",
    ),
    limit("memory-swap", Is::Bytes, "memory", "swap", "limit of memory and swap together"),
    limit("pids-limit", Is::Signed, "pids", "limit", "number of processes and threads"),
];

/// Lines for the container's class of service (Intel RDT), which `--resources` does not have.
const SCHEMATA: &[(&str, &str)] = &[
    ("l3-cache-schema", "share of the L3 cache (Intel RDT), such as L3:0=7f0;1=1f"),
    ("mem-bw-schema", "share of memory bandwidth (Intel RDT), such as MB:0=20;1=70"),
];

pub(super) fn flags() -> Vec<Arg> {
    let resources = path("resources", "a file with the limits as JSON, or - for stdin").short('r');
    let limits = LIMITS.iter().map(|l| text(l.flag, l.help).hide(l.help.is_empty()));
    let schemata = SCHEMATA.iter().map(|(flag, help)| text(flag, help));
    [resources].into_iter().chain(limits).chain(schemata).collect()
}

pub(super) fn options(flags: &ArgMatches, id: String) -> Result<UpdateOptions> {
    let schemata = SCHEMATA.iter().filter_map(|(flag, _)| Some((*flag, string(flags, flag)?)));
    let schemata: Vec<_> = schemata.filter(|(_, line)| !line.is_empty()).collect();
    let resources = match given_file(flags)? {
        Some(json) => {
            for l in LIMITS.iter().filter(|l| string(flags, l.flag).is_some()) {
                warn!("--{} has no effect: --resources says everything", l.flag);
            }
            json
        }
        None => {
            let limits = limits(|flag| string(flags, flag))?;
            if limits.as_object().is_none_or(Map::is_empty) && schemata.is_empty() {
                warn!("update: no limit was given: nothing changes");
            }
            limits.to_string().into_bytes()
        }
    };
    Ok(UpdateOptions { id, resources, schemata })
}

fn given_file(flags: &ArgMatches) -> Result<Option<Vec<u8>>> {
    if flags.get_one::<OsString>("resources").is_some_and(|name| name == "-") {
        let mut json = Vec::new();
        std::io::stdin().lock().read_to_end(&mut json).on("read", "stdin").map_err(|e| e.at("--resources"))?;
        return Ok(Some(json));
    }
    let read = |path: std::path::PathBuf| std::fs::read(&path).on("read", path.display());
    file(flags, "resources")?.map(read).transpose().map_err(|e| e.at("--resources"))
}

/// The limits as JSON; `value` is what a flag was given.
fn limits(value: impl Fn(&str) -> Option<String>) -> Result<Value> {
    let mut all = Map::new();
    for Limit { flag, is, section, field, .. } in LIMITS {
        let Some(text) = value(flag) else { continue };
        let section = all.entry(*section).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(section) = section {
            section.insert(field.to_string(), number(&text, *is).map_err(|why| invalid(format!("--{flag}"), why))?);
        }
    }
    Ok(Value::Object(all))
}

fn number(text: &str, is: Is) -> std::result::Result<Value, String> {
    let (value, what) = match is {
        Is::Text => (Some(text.into()), ""),
        Is::Unsigned => (text.parse::<u64>().ok().map(Value::from), "a whole number from 0 on"),
        Is::Signed => (text.parse::<i64>().ok().map(Value::from), "a whole number"),
        Is::Bytes => (bytes(text).map(Value::from), "a size such as 1048576, 512k or 1.5g, or -1"),
    };
    value.ok_or_else(|| format!("{text:?} is not {what}"))
}

/// A size as Docker and runc take it: a number, perhaps with a fraction, and a binary unit, with or without `b` or `ib`
/// behind it, in any case.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))? + 1;
    let (number, unit) = text.split_at_checked(end)?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    let scale = 1_i64
        << match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return None,
        };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(scale).filter(|n| *n >= 0);
    }
    let size = number.parse::<f64>().ok()? * scale as f64;
    (0.0..i64::MAX as f64).contains(&size).then_some(size as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("67108864", 67_108_864),
            ("9223372036854775807", i64::MAX),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64 mb", 64 << 20),
            ("1.5g", 3 << 29),
            ("2KiB", 2048),
            ("7b", 7),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            ("1.9", 1),
            ("-1", -1),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in
            ["", "m", "-2", "-1m", "1x", "1mm", "1kbs", "64MiBs", "9223372036854775808", "9p9", "8192p", "1,5g", "ä"]
        {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn flags_become_fields() {
        let of = |given: &[(&str, &str)]| {
            let found = |flag: &str| given.iter().find(|(name, _)| *name == flag).map(|(_, value)| value.to_string());
            limits(found).map_err(|e| e.to_string())
        };
        assert_eq!(of(&[]).unwrap(), json!({}));
        assert_eq!(
            of(&[
                ("cpu-quota", "-1"),
                ("cpu-share", "512"),
                ("cpuset-cpus", "0-1"),
                ("memory", "1k"),
                ("pids-limit", "0")
            ])
            .unwrap(),
            json!({"cpu": {"quota": -1, "shares": 512, "cpus": "0-1"}, "memory": {"limit": 1024}, "pids": {"limit": 0}})
        );
        assert_eq!(of(&[("cpu-share", "-1")]).unwrap_err(), "--cpu-share: \"-1\" is not a whole number from 0 on");
        assert_eq!(of(&[("cpu-idle", "x")]).unwrap_err(), "--cpu-idle: \"x\" is not a whole number");
        assert_eq!(
            of(&[("memory-swap", "1z")]).unwrap_err(),
            "--memory-swap: \"1z\" is not a size such as 1048576, 512k or 1.5g, or -1"
        );
    }

    #[test]
    fn every_field_is_one_of_the_specification() {
        for l in LIMITS {
            let value = if matches!(l.is, Is::Text) { json!("0") } else { json!(7) };
            let mut section = Map::from_iter([(l.field.to_string(), value.clone())]);
            let json = Value::Object(Map::from_iter([(l.section.to_string(), Value::Object(section.clone()))]));
            let typed: oci_spec::runtime::LinuxResources = serde_json::from_value(json).unwrap();
            // A name that oci-spec does not know would not come back.
            let back = serde_json::to_value(&typed).unwrap();
            assert_eq!(back[l.section][l.field], section.remove(l.field).unwrap(), "--{}", l.flag);
        }
    }
}
