//! What a container's class of service gets, and what its monitoring group counts: the `intel_rdt` of `runc events`.

use super::Group;
use crate::error::{On, Result, invalid};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Without a class of service, all of it is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// What the L3 cache allows to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3CacheInfo>,
    /// The default class's line of L3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema_root: Option<String>,
    /// The container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// What the memory bandwidth allows to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemBwInfo>,
    /// The default class's line of MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema_root: Option<String>,
    /// The container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// All lines of the container's class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory bandwidth used, one entry a cache domain; `None` where the processor does not count it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<Bandwidth>>,
    /// Cache used, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<Occupancy>>,
}

/// `info/L3`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct L3CacheInfo {
    /// The bits that a mask may have, in hexadecimal.
    pub cbm_mask: String,
    /// The fewest bits of a mask.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemBwInfo {
    /// The step of the values, in percent.
    pub bandwidth_gran: u64,
    /// 1: throttling is linear.
    pub delay_linear: u64,
    /// The least percentage.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Bytes of memory traffic of one cache domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bandwidth {
    /// To all nodes.
    pub mbm_total_bytes: u64,
    /// To its own node.
    pub mbm_local_bytes: u64,
}

/// Bytes of one cache domain that are in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Occupancy {
    /// Bytes.
    pub llc_occupancy: u64,
}

impl Group {
    /// Reads the numbers. Without a monitoring group of the container's own they are those of its whole class.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn stats(&self) -> Result<Stats> {
        let lines = |dir: &Path| -> Result<Vec<String>> {
            Ok(text(&dir.join("schemata"))?.unwrap_or_default().lines().map(|line| line.trim().to_string()).collect())
        };
        let (root, own) = (lines(&self.root)?, lines(&self.path)?);
        let of = |all: &[String], resource: &str| all.iter().find(|line| line.starts_with(resource)).cloned();
        let mut stats = Stats { schemata: own.clone(), ..Stats::default() };
        let l3 = self.root.join("info/L3");
        if l3.is_dir() {
            stats.l3_cache_info = Some(L3CacheInfo {
                cbm_mask: text(&l3.join("cbm_mask"))?.unwrap_or_default().trim().to_string(),
                min_cbm_bits: number(&l3.join("min_cbm_bits"))?,
                num_closids: number(&l3.join("num_closids"))?,
            });
            stats.l3_cache_schema_root = of(&root, "L3");
            stats.l3_cache_schema = of(&own, "L3");
        }
        let bandwidth = self.root.join("info/MB");
        if bandwidth.is_dir() {
            stats.mem_bw_info = Some(MemBwInfo {
                bandwidth_gran: number(&bandwidth.join("bandwidth_gran"))?,
                delay_linear: number(&bandwidth.join("delay_linear"))?,
                min_bandwidth: number(&bandwidth.join("min_bandwidth"))?,
                num_closids: number(&bandwidth.join("num_closids"))?,
            });
            stats.mem_bw_schema_root = of(&root, "MB");
            stats.mem_bw_schema = of(&own, "MB");
        }
        let counted = text(&self.root.join("info/L3_MON/mon_features"))?.unwrap_or_default();
        let counts = |name: &str| counted.lines().any(|line| line == name);
        let domains = domains(&self.monitor.as_ref().unwrap_or(&self.path).join("mon_data"))?;
        if counts("mbm_total_bytes") || counts("mbm_local_bytes") {
            let one = |dir: &PathBuf| -> Result<Bandwidth> {
                Ok(Bandwidth {
                    mbm_total_bytes: number(&dir.join("mbm_total_bytes"))?,
                    mbm_local_bytes: number(&dir.join("mbm_local_bytes"))?,
                })
            };
            stats.mbm_stats = Some(domains.iter().map(one).collect::<Result<_>>()?);
        }
        if counts("llc_occupancy") {
            let one = |dir: &PathBuf| -> Result<Occupancy> {
                Ok(Occupancy { llc_occupancy: number(&dir.join("llc_occupancy"))? })
            };
            stats.cmt_stats = Some(domains.iter().map(one).collect::<Result<_>>()?);
        }
        Ok(stats)
    }
}

/// The directories `mon_L3_00`, one a cache domain, in the order of their numbers.
fn domains(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", format!("{dir:?}"))?,
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    Ok(all)
}

fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some).on("read", format!("{path:?}")),
    }
}

/// 0 when it is not there, or not to be had now (`Unavailable`).
fn number(path: &Path) -> Result<u64> {
    match text(path)?.as_deref().map(str::trim) {
        None | Some("Unavailable") => Ok(0),
        Some(value) => {
            value.parse().map_err(|_| invalid("linux.intelRdt", format!("{path:?} cannot be understood: {value:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn group(root: &Path, monitor: Option<&str>) -> Group {
        let path = root.join("id");
        Group { root: root.into(), monitor: monitor.map(|name| path.join(name)), path, own: true }
    }

    #[test]
    fn the_schema_is_runcs() {
        let root = tree(&[
            ("schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"),
            ("id/schemata", "    MB:0= 20;1= 70\n    L3:0=f0;1=7ff\n"),
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("id/mon_groups/id/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
            ("id/mon_groups/id/mon_data/mon_L3_00/mbm_total_bytes", "9\n"),
            ("id/mon_groups/id/mon_data/mon_L3_00/mbm_local_bytes", "5\n"),
            ("id/mon_groups/id/mon_data/mon_L3_01/llc_occupancy", "Unavailable\n"),
        ]);
        let stats = group(root.path(), Some("mon_groups/id")).stats().unwrap();
        let want = json!({
            "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=7ff;1=7ff",
            "l3_cache_schema": "L3:0=f0;1=7ff",
            "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0= 20;1= 70",
            "schemata": ["MB:0= 20;1= 70", "L3:0=f0;1=7ff"],
            "mbm_stats": [
                {"mbm_total_bytes": 9, "mbm_local_bytes": 5}, {"mbm_total_bytes": 0, "mbm_local_bytes": 0},
            ],
            "cmt_stats": [{"llc_occupancy": 4096}, {"llc_occupancy": 0}],
        });
        assert_eq!(serde_json::to_value(&stats).unwrap(), want);
    }

    #[test]
    fn what_the_processor_has_not_is_missing() {
        let root = tree(&[("id/schemata", "L2:0=f\n"), ("id/mon_data/mon_L3_00/llc_occupancy", "7\n")]);
        let stats = group(root.path(), None).stats().unwrap();
        assert_eq!(serde_json::to_value(&stats).unwrap(), json!({"schemata": ["L2:0=f"]}));
        fs::create_dir_all(root.path().join("info/L3_MON")).unwrap();
        fs::write(root.path().join("info/L3_MON/mon_features"), "llc_occupancy\n").unwrap();
        let stats = group(root.path(), None).stats().unwrap();
        assert_eq!(stats.cmt_stats, Some(vec![Occupancy { llc_occupancy: 7 }]));
        assert_eq!(stats.mbm_stats, None);
    }
}
