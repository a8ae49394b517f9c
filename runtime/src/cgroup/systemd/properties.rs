//! What limits come down to as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)).
//!
//! What a unit has no property for is written to the files alone. A property that this systemd does not know yet is left out
//! when it says so (see [`super::Manager`]): no version has to be asked for. Kernel 5.12 comes with systemd 245 or newer, and
//! of the properties here only `CPUWeight=0` (idle, 252) is younger.

use super::gvariant;
use crate::cgroup::dbus::Value;
use crate::cgroup::devices::DeviceList;
use crate::cgroup::v2;
use crate::cgroup::write::{self, set, text};
use crate::error::{Result, invalid};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::collections::BTreeMap;

/// The kernel's period where none is given, in microseconds.
const PERIOD: u64 = 100_000;
/// systemd has a quota in per cent of a CPU: the microseconds in a second that one of them is.
const PER_CENT: u64 = 10_000;
/// `infinity`
const MAX: u64 = u64::MAX;
/// Neither a CPU nor a memory node has a number as high as this.
const HIGHEST: u32 = 65_535;

/// A property of a unit, and what of config.json asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name on D-Bus.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// The field or annotation; empty for what is the same in every unit of ours.
    pub field: String,
}

/// Properties with a short way to add one.
#[derive(Debug, Default)]
pub struct Properties(pub Vec<Property>);

impl Properties {
    /// Adds a property; `field` is below `linux.resources`.
    fn put(&mut self, field: &str, name: &str, value: Value) {
        self.0.push(Property { name: name.into(), value, field: format!("linux.resources.{field}") });
    }

    /// Adds one that no field asks for.
    pub fn fixed(&mut self, name: &str, value: Value) {
        self.0.push(Property { name: name.into(), value, field: String::new() });
    }

    /// A number, if there is one.
    fn number(&mut self, field: &str, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.put(field, name, Value::U64(value));
        }
    }
}

/// The properties of the limits. `v2`: which tree the host has; device rules are not here, see [`devices`].
///
/// # Errors
/// A value that cannot be converted.
pub fn limits(resources: &LinuxResources, v2: bool) -> Result<Vec<Property>> {
    let mut p = Properties::default();
    if let Some(memory) = resources.memory() {
        memory_properties(memory, v2, &mut p)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_properties(cpu, v2, &mut p)?;
    }
    if let Some(pids) = resources.pids() {
        p.number("pids.limit", "TasksMax", Some(tasks(&write::pids(pids.limit()))));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| set(io.weight())) {
        let (name, weight) = if v2 { ("IOWeight", v2::io_weight(weight)) } else { ("BlockIOWeight", weight.into()) };
        p.number("blockIO.weight", name, Some(weight));
    }
    if v2 {
        unified(resources, &mut p)?;
    }
    Ok(p.0)
}

fn tasks(limit: &str) -> u64 {
    limit.parse().unwrap_or(MAX)
}

/// -1 is "no limit", 0 is "not set".
fn bytes(limit: Option<i64>) -> Option<u64> {
    set(limit).map(|n| u64::try_from(n).unwrap_or(MAX))
}

fn memory_properties(memory: &LinuxMemory, v2: bool, p: &mut Properties) -> Result<()> {
    if !v2 {
        p.number("memory.limit", "MemoryLimit", bytes(memory.limit()));
        return Ok(());
    }
    p.number("memory.limit", "MemoryMax", bytes(memory.limit()));
    p.number("memory.reservation", "MemoryLow", bytes(memory.reservation()));
    let swap = v2::swap(memory.limit(), memory.swap())?;
    p.number("memory.swap", "MemorySwapMax", swap.map(|n| n.parse().unwrap_or(MAX)));
    Ok(())
}

fn cpu_properties(cpu: &LinuxCpu, v2: bool, p: &mut Properties) -> Result<()> {
    match (set(cpu.shares()), v2) {
        // 0 is systemd's word for idle, which has no weight.
        (shares, true) if cpu.idle() == Some(1) => {
            if shares.is_some() {
                both("cpu.shares", "cpu.idle");
            }
            p.number("cpu.idle", "CPUWeight", Some(0));
        }
        (shares, true) => p.number("cpu.shares", "CPUWeight", shares.map(v2::cpu_weight)),
        (shares, false) => p.number("cpu.shares", "CPUShares", shares),
    }
    quota("cpu.quota", set(cpu.quota()), set(cpu.period()), p);
    for (field, name, list) in
        [("cpu.cpus", "AllowedCPUs", text(cpu.cpus())), ("cpu.mems", "AllowedMemoryNodes", text(cpu.mems()))]
    {
        if let Some(list) = list {
            p.put(field, name, bits(&format!("linux.resources.{field}"), list)?);
        }
    }
    Ok(())
}

/// The first words are runc's.
fn both(weight: &str, idle: &str) {
    log::warn!("linux.resources.{weight}: unable to apply both {weight} and {idle}: what is idle has no weight");
}

fn quota(field: &str, quota: Option<i64>, period: Option<u64>, p: &mut Properties) {
    p.number(field, "CPUQuotaPeriodUSec", period);
    if quota.is_some() || period.is_some() {
        let limit = quota.and_then(|quota| per_second(quota, period));
        p.number(field, "CPUQuotaPerSecUSec", Some(limit.unwrap_or(MAX)));
    }
}

/// A quota as CPU microseconds a second, rounded up to whole per cents, as systemd would; `None`: no limit.
fn per_second(quota: i64, period: Option<u64>) -> Option<u64> {
    let quota = u128::try_from(quota).ok()?;
    let exact = quota * 1_000_000 / u128::from(set(period).unwrap_or(PERIOD));
    u64::try_from(exact).ok()?.checked_next_multiple_of(PER_CENT)
}

/// The same limits as systemd understands them, for the files to say what the unit says: the quota is rounded (a child cgroup
/// of the rounded quota then fits in), and what is idle has no weight.
pub fn agreed(resources: &LinuxResources) -> LinuxResources {
    let mut resources = resources.clone();
    if let Some(mut cpu) = resources.cpu().clone() {
        cpu.set_quota(cpu.quota().map(|quota| rounded(quota, cpu.period())));
        if cpu.idle() == Some(1) {
            cpu.set_shares(None);
        }
        resources.set_cpu(Some(cpu));
    }
    if let Some(mut unified) =
        resources.unified().clone().filter(|all| all.get("cpu.idle").is_some_and(|text| is_one(text)))
    {
        unified.remove("cpu.weight");
        resources.set_unified(Some(unified));
    }
    resources
}

fn rounded(quota: i64, period: Option<u64>) -> i64 {
    let period = set(period).unwrap_or(PERIOD);
    let Some(rounded) = per_second(quota, Some(period)) else { return quota };
    let rounded = u128::from(rounded) * u128::from(period) / 1_000_000;
    // Only up: a quota that was whole already must not lose a microsecond on the way there and back.
    quota.max(i64::try_from(rounded).unwrap_or(quota))
}

fn is_one(text: &str) -> bool {
    text.trim() == "1"
}

/// A list of numbers and ranges (`0-3,8`) as a set of bits.
fn bits(field: &str, list: &str) -> Result<Value> {
    let bad = |why: String| invalid(field, why).hint("a list such as 0-3,8");
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .ok()
            .filter(|n| *n <= HIGHEST)
            .ok_or_else(|| bad(format!("{text:?} is not a number of a list")))
    };
    let mut set = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad(format!("{range:?} is not a range")));
        }
        for n in first..=last {
            let at = n as usize / 8;
            if set.len() <= at {
                set.resize(at + 1, 0);
            }
            if let Some(byte) = set.get_mut(at) {
                *byte |= 1 << (n % 8);
            }
        }
    }
    if set.is_empty() {
        return Err(bad(format!("{list:?} is empty")));
    }
    Ok(Value::bytes(set))
}

/// Files of `unified` that are a number or `max`, and their properties.
const UNIFIED: &[(&str, &str)] = &[
    ("cpu.weight", "CPUWeight"),
    ("io.weight", "IOWeight"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("memory.zswap.max", "MemoryZSwapMax"),
    ("pids.max", "TasksMax"),
];

fn unified(resources: &LinuxResources, p: &mut Properties) -> Result<()> {
    let all: BTreeMap<_, _> = resources.unified().iter().flatten().map(|(k, v)| (k.as_str(), v.trim())).collect();
    let idle = all.get("cpu.idle") == Some(&"1");
    for (file, value) in &all {
        let field = format!("unified.{file}");
        let bad = || invalid(format!("linux.resources.{field}"), format!("{value:?} is not a number"));
        let number = |text: &str| if text == "max" { Ok(MAX) } else { text.parse::<u64>().map_err(|_| bad()) };
        match *file {
            "cpu.idle" if idle => p.number(&field, "CPUWeight", Some(0)),
            "cpu.weight" if idle => both("unified.cpu.weight", "unified.cpu.idle"),
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let limit = number(words.next().unwrap_or_default())?;
                let period = words.next().map(number).transpose()?;
                quota(&field, i64::try_from(limit).ok(), set(period).or(Some(PERIOD)), p);
            }
            "cpuset.cpus" => p.put(&field, "AllowedCPUs", bits(&format!("linux.resources.{field}"), value)?),
            "cpuset.mems" => p.put(&field, "AllowedMemoryNodes", bits(&format!("linux.resources.{field}"), value)?),
            // `default 100`, and lines for single devices, are for the file alone.
            "io.weight" if value.parse::<u64>().is_err() => {}
            "pids.max" => p.number(&field, "TasksMax", Some(number(value)?.max(1))),
            _ => {
                if let Some((_, name)) = UNIFIED.iter().find(|(known, _)| known == file) {
                    p.number(&field, name, Some(number(value)?));
                }
            }
        }
    }
    Ok(())
}

/// The device rules: kept in the unit, so that systemd gives the same ones when it sets up the unit's cgroup anew
/// (`systemctl daemon-reload` is enough). What a unit cannot express must not be narrowed by it: on v2, where our own filter
/// decides, the unit then has none; on v1, where systemd and we write to the same file, it has the rest, and fails closed.
pub fn devices(list: &DeviceList, v2: bool) -> Vec<Property> {
    let entry = |(path, access): (String, String)| Value::Struct(vec![Value::text(path), Value::text(access)]);
    let array = |rules: Vec<(String, String)>| Value::Array("(ss)".into(), rules.into_iter().map(entry).collect());
    let (rules, complete) = list.unit_rules();
    let open = list.allows_all() || (v2 && !complete);
    let mut p = Properties::default();
    p.put("devices", "DevicePolicy", Value::text(if open { "auto" } else { "strict" }));
    // An empty list takes off what the unit had; the next one adds.
    p.put("devices", "DeviceAllow", array(Vec::new()));
    if !open && !rules.is_empty() {
        p.put("devices", "DeviceAllow", array(rules));
    }
    p.0
}

const ANNOTATION: &str = "org.systemd.property.";

/// The properties of the annotations `org.systemd.property.NAME`. Names ending in `Sec` are those of unit files, and their
/// values seconds.
///
/// # Errors
/// A name that is none, a text that is no value.
pub fn annotations<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for (key, text) in all {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let field = format!("annotations.{key}");
        let bad = |why: String| invalid(field.clone(), why);
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(bad(format!("{name:?} is not the name of a systemd property")));
        }
        let hint = "GVariant text, as in: uint64 5, true, 'a text', ['a', 'b']";
        let value = gvariant::parse(text).map_err(|why| bad(format!("{text:?}: {why}")).hint(hint))?;
        let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
        let (name, value) = match stem {
            Some(stem) => {
                let value = microseconds(&value).ok_or_else(|| bad(format!("{text:?} is not a number of seconds")))?;
                (format!("{stem}USec"), value)
            }
            None => (name.to_string(), value),
        };
        found.push(Property { name, value, field });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn microseconds(seconds: &Value) -> Option<Value> {
    let whole = match *seconds {
        Value::Byte(n) => n.into(),
        Value::I16(n) => n.try_into().ok()?,
        Value::U16(n) => n.into(),
        Value::I32(n) => n.try_into().ok()?,
        Value::U32(n) => n.into(),
        Value::I64(n) => n.try_into().ok()?,
        Value::U64(n) => n,
        Value::Double(n) if n >= 0.0 => return Some(Value::U64((n * 1_000_000.0) as u64)),
        _ => return None,
    };
    // What is more is for ever.
    Some(Value::U64(u64::saturating_mul(whole, 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroup;

    fn shown(properties: Vec<Property>) -> Vec<(String, String)> {
        let value = |v: &Value| match v {
            Value::U64(MAX) => "max".into(),
            Value::U64(n) => n.to_string(),
            Value::Text(text) => text.clone(),
            Value::Array(of, elements) if of == "y" => {
                elements.iter().map(|b| if let Value::Byte(b) = b { format!("{b:02x}") } else { "?".into() }).collect()
            }
            Value::Array(_, elements) => elements
                .iter()
                .map(|e| match e {
                    Value::Struct(f) => f.iter().filter_map(Value::as_text).collect::<Vec<_>>().join(" "),
                    other => format!("{other:?}"),
                })
                .collect::<Vec<_>>()
                .join(","),
            other => format!("{other:?}"),
        };
        properties.iter().map(|p| (p.name.clone(), value(&p.value))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn limits_become_properties_of_v2() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("{}", &[]),
            (
                r#"{"memory":{"limit":0,"swap":0,"reservation":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},"blockIO":{"weight":0}}"#,
                &[],
            ),
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":50,"kernel":9}}"#,
                &[("MemoryMax", "100"), ("MemoryLow", "50"), ("MemorySwapMax", "50")],
            ),
            (r#"{"memory":{"limit":100,"swap":100}}"#, &[("MemoryMax", "100"), ("MemorySwapMax", "0")]),
            (r#"{"memory":{"limit":-1}}"#, &[("MemoryMax", "max"), ("MemorySwapMax", "max")]),
            (r#"{"cpu":{"shares":1024}}"#, &[("CPUWeight", "100")]),
            (r#"{"cpu":{"shares":1024,"idle":0}}"#, &[("CPUWeight", "100")]),
            (r#"{"cpu":{"shares":1024,"idle":1}}"#, &[("CPUWeight", "0")]),
            (r#"{"cpu":{"quota":5000}}"#, &[("CPUQuotaPerSecUSec", "50000")]),
            (r#"{"cpu":{"quota":-1}}"#, &[("CPUQuotaPerSecUSec", "max")]),
            (r#"{"cpu":{"period":50000}}"#, &[("CPUQuotaPeriodUSec", "50000"), ("CPUQuotaPerSecUSec", "max")]),
            (
                r#"{"cpu":{"quota":4005,"period":10000}}"#,
                &[("CPUQuotaPeriodUSec", "10000"), ("CPUQuotaPerSecUSec", "410000")],
            ),
            (r#"{"cpu":{"cpus":"0-1,9","mems":" 0 "}}"#, &[("AllowedCPUs", "0302"), ("AllowedMemoryNodes", "01")]),
            (r#"{"pids":{"limit":7}}"#, &[("TasksMax", "7")]),
            (r#"{"pids":{"limit":0}}"#, &[("TasksMax", "1")]),
            (r#"{"pids":{"limit":-1}}"#, &[("TasksMax", "max")]),
            (r#"{"blockIO":{"weight":1000}}"#, &[("IOWeight", "10000")]),
            (
                r#"{"unified":{"cpu.max":"max","cpu.weight":"42","cpuset.cpus":"3","memory.high":"5","memory.low":"4","memory.max":"6","memory.min":"3","memory.swap.max":"max","pids.max":"0","memory.oom.group":"1","hugetlb.2MB.max":"0","io.weight":"default 5"}}"#,
                &[
                    ("CPUQuotaPeriodUSec", "100000"),
                    ("CPUQuotaPerSecUSec", "max"),
                    ("CPUWeight", "42"),
                    ("AllowedCPUs", "08"),
                    ("MemoryHigh", "5"),
                    ("MemoryLow", "4"),
                    ("MemoryMax", "6"),
                    ("MemoryMin", "3"),
                    ("MemorySwapMax", "max"),
                    ("TasksMax", "1"),
                ],
            ),
            (
                r#"{"unified":{"cpu.max":"15000 10000"}}"#,
                &[("CPUQuotaPeriodUSec", "10000"), ("CPUQuotaPerSecUSec", "1500000")],
            ),
            (r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#, &[("CPUWeight", "0")]),
            (r#"{"unified":{"cpu.idle":"0","cpu.weight":"8"}}"#, &[("CPUWeight", "8")]),
        ];
        for (json, expected) in cases {
            let got = shown(limits(&serde_json::from_str(json).unwrap(), true).unwrap());
            assert_eq!(got, pairs(expected), "{json}");
        }
    }

    #[test]
    fn limits_become_properties_of_v1() {
        let json = r#"{"memory":{"limit":100,"swap":150,"reservation":50},"cpu":{"shares":512,"quota":1000,"cpus":"1","idle":1},"blockIO":{"weight":300},"pids":{"limit":5}}"#;
        let expected = [
            ("MemoryLimit", "100"),
            ("CPUShares", "512"),
            ("CPUQuotaPerSecUSec", "10000"),
            ("AllowedCPUs", "02"),
            ("TasksMax", "5"),
            ("BlockIOWeight", "300"),
        ];
        assert_eq!(shown(limits(&serde_json::from_str(json).unwrap(), false).unwrap()), pairs(&expected));
    }

    #[test]
    fn impossible_values_name_their_field() {
        for (json, expected) in [
            (r#"{"cpu":{"cpus":"1-0"}}"#, "linux.resources.cpu.cpus: \"1-0\" is not a range"),
            (r#"{"cpu":{"cpus":"a"}}"#, "linux.resources.cpu.cpus: \"a\" is not a number of a list"),
            (r#"{"cpu":{"mems":"4294967295"}}"#, "linux.resources.cpu.mems: \"4294967295\" is not a number of a list"),
            (r#"{"unified":{"memory.max":"much"}}"#, "linux.resources.unified.memory.max: \"much\" is not a number"),
            (r#"{"unified":{"cpuset.cpus":","}}"#, "linux.resources.unified.cpuset.cpus: \",\" is empty"),
            (r#"{"unified":{"cpu.max":"1 b"}}"#, "linux.resources.unified.cpu.max: \"1 b\" is not a number"),
        ] {
            let e = limits(&serde_json::from_str(json).unwrap(), true).unwrap_err().to_string();
            assert!(e.starts_with(expected), "{json}: {e}");
        }
    }

    #[test]
    fn quotas_are_rounded_up_as_systemd_does() {
        for (quota, period, expected) in [
            (5000, None, 5000),
            (4005, Some(10_000), 4100),
            (-1, Some(10_000), -1),
            (3333, Some(33_333), 3333),
            (1, None, 1000),
        ] {
            let period = period.map_or(String::new(), |p| format!(",\"period\":{p}"));
            let json = format!(r#"{{"cpu":{{"quota":{quota}{period}}}}}"#);
            let got = agreed(&serde_json::from_str(&json).unwrap()).cpu().as_ref().unwrap().quota();
            assert_eq!(got, Some(expected), "{json}");
        }
    }

    #[test]
    fn what_is_idle_has_no_weight_in_the_files() {
        let of = |json: &str| serde_json::to_value(agreed(&serde_json::from_str(json).unwrap())).unwrap();
        assert_eq!(of(r#"{"cpu":{"shares":9,"idle":1}}"#), serde_json::json!({"cpu": {"idle": 1}}));
        assert_eq!(of(r#"{"cpu":{"shares":9,"idle":0}}"#), serde_json::json!({"cpu": {"shares": 9, "idle": 0}}));
        let both = r#"{"unified":{"cpu.weight":"8","cpu.idle":"1\n"}}"#;
        assert_eq!(of(both), serde_json::json!({"unified": {"cpu.idle": "1\n"}}));
        let awake = serde_json::json!({"unified": {"cpu.weight": "8", "cpu.idle": "0"}});
        assert_eq!(of(&awake.to_string()), awake);
    }

    #[test]
    fn device_rules_stay_in_the_unit() {
        let of = |json: &str, v2| {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            shown(devices(&DeviceList::new(&rules).unwrap(), v2))
        };
        const DEFAULTS: &str = "char-* m,block-* m,/dev/char/1:3 rwm,/dev/char/1:8 rwm,/dev/char/1:7 rwm,/dev/char/5:0 rwm,/dev/char/1:5 rwm,/dev/char/1:9 rwm,char-136 rwm,/dev/char/5:2 rwm,/dev/char/10:200 rwm";
        let strict = |extra: &str| {
            pairs(&[("DevicePolicy", "strict"), ("DeviceAllow", ""), ("DeviceAllow", &format!("{extra}{DEFAULTS}"))])
        };
        let auto = pairs(&[("DevicePolicy", "auto"), ("DeviceAllow", "")]);
        assert_eq!(of("[]", true), strict(""));
        assert_eq!(
            of(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"}]"#, true),
            strict("/dev/block/8:0 rw,")
        );
        assert_eq!(of(r#"[{"allow":true,"access":"rwm"}]"#, true), auto);
        assert_eq!(of(r#"[{"allow":true,"access":"rwm"}]"#, false), auto);
        // No unit can say these; on v1 what is left is less than what was asked for, never more.
        let hole = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]"#;
        assert_eq!(of(hole, true), auto);
        assert_eq!(of(hole, false), pairs(&[("DevicePolicy", "strict"), ("DeviceAllow", "")]));
        let minor = r#"[{"allow":true,"type":"c","minor":3,"access":"r"}]"#;
        assert_eq!(of(minor, true), auto);
        assert_eq!(of(minor, false), strict(""));
    }

    #[test]
    fn annotations_become_properties() {
        let of = |key: &str, text: &str| annotations([(&key.to_string(), &text.to_string())].into_iter());
        let one = |key: &str, text: &str| of(key, text).unwrap().remove(0);
        for (key, text, name, value) in [
            ("org.systemd.property.TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", Value::U64(5)),
            ("org.systemd.property.TimeoutStopSec", "2", "TimeoutStopUSec", Value::U64(2_000_000)),
            ("org.systemd.property.RuntimeMaxSec", "1.5", "RuntimeMaxUSec", Value::U64(1_500_000)),
            (
                "org.systemd.property.CollectMode",
                "'inactive-or-failed'",
                "CollectMode",
                Value::text("inactive-or-failed"),
            ),
            ("org.systemd.property.PrivateSEC", "true", "PrivateSEC", Value::Bool(true)),
        ] {
            let property = one(key, text);
            assert_eq!((property.name.as_str(), &property.value), (name, &value), "{key}");
            assert_eq!(property.field, format!("annotations.{key}"));
        }
        assert_eq!(of("org.opencontainers.image.os", "nothing").unwrap(), []);
        for (key, text, expected) in [
            ("org.systemd.property.A-b", "1", "\"A-b\" is not the name of a systemd property"),
            ("org.systemd.property.", "1", "\"\" is not the name of a systemd property"),
            ("org.systemd.property.CollectMode", "x", "\"x\": \"x\" is not a value"),
            ("org.systemd.property.TimeoutStopSec", "'x'", "\"'x'\" is not a number of seconds"),
            ("org.systemd.property.TimeoutStopSec", "-1", "\"-1\" is not a number of seconds"),
        ] {
            let e = of(key, text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("annotations.{key}: {expected}")), "{e}");
        }
    }
}
