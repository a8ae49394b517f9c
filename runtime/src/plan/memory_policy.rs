//! `linux.memoryPolicy`: on which memory nodes the process's memory lies (config-linux.md, "Memory policy"; set_mempolicy(2)).

use super::process::bit_list;
use super::{Plan, Step};
use crate::error::{Result, invalid};
use oci_spec::runtime::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode, Spec};

/// The most memory nodes that a kernel can be built for (CONFIG_NODES_SHIFT is at most 10).
const MOST_NODES: u32 = 1024;

/// Every mode.
pub(crate) const MODES: &[Mode] = &[
    Mode::MpolBind,
    Mode::MpolDefault,
    Mode::MpolInterleave,
    Mode::MpolLocal,
    Mode::MpolPreferred,
    Mode::MpolPreferredMany,
    Mode::MpolWeightedInterleave,
];
/// Every flag.
pub(crate) const FLAGS: &[Flag] = &[Flag::MpolFNumaBalancing, Flag::MpolFRelativeNodes, Flag::MpolFStaticNodes];

impl Plan {
    /// For the container's process and those of exec alike. In the container's cgroup by then: nodes are looked at within its cpuset.
    pub(super) fn memory_policy(&mut self, spec: &Spec) -> Result<()> {
        let Some(policy) = spec.linux().as_ref().and_then(|l| l.memory_policy().as_ref()) else { return Ok(()) };
        let text = policy.nodes().as_deref().unwrap_or_default();
        let nodes = bit_list(text, MOST_NODES).ok_or_else(|| {
            invalid(
                "linux.memoryPolicy.nodes",
                format!("invalid memory policy nodes {text:?}: write a list such as \"0-3,7\""),
            )
        })?;
        let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
        let (number, fits, needs) = match policy.mode() {
            Mode::MpolDefault => (0, count == 0, "requires 0 nodes"),
            Mode::MpolPreferred => (1, true, ""),
            Mode::MpolBind => (2, count > 0, "requires at least one node"),
            Mode::MpolInterleave => (3, count > 0, "requires at least one node"),
            Mode::MpolLocal => (4, count == 0, "requires 0 nodes"),
            Mode::MpolPreferredMany => (5, count > 0, "requires at least one node"),
            Mode::MpolWeightedInterleave => (6, count > 0, "requires at least one node"),
        };
        if !fits {
            return Err(invalid("linux.memoryPolicy.nodes", format!("this mode {needs} but got {count}")));
        }
        let flags = policy.flags().iter().flatten().map(flag_bit).fold(0, |all, bit| all | bit);
        self.push("linux.memoryPolicy", Step::MemoryPolicy(number | flags, nodes));
        Ok(())
    }
}

/// Of linux/mempolicy.h.
fn flag_bit(flag: &Flag) -> u32 {
    match flag {
        Flag::MpolFNumaBalancing => 1 << 13,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFStaticNodes => 1 << 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(policy: Value) -> Result<(u32, Vec<u64>)> {
        let spec = json!({"ociVersion": "1.3.0", "linux": {"memoryPolicy": policy}});
        let mut plan = Plan::empty();
        plan.memory_policy(&serde_json::from_value(spec).unwrap())?;
        match plan.steps.pop().unwrap().step {
            Step::MemoryPolicy(mode, nodes) => Ok((mode, nodes)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modes_flags_and_nodes_become_numbers() {
        for (policy, mode, nodes) in [
            (json!({"mode": "MPOL_DEFAULT"}), 0, vec![]),
            (json!({"mode": "MPOL_LOCAL", "nodes": ""}), 4, vec![]),
            (json!({"mode": "MPOL_PREFERRED"}), 1, vec![]),
            (json!({"mode": "MPOL_PREFERRED", "nodes": "1"}), 1, vec![0b10]),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0-1,65", "flags": ["MPOL_F_STATIC_NODES"]}),
                2 | 1 << 15,
                vec![3, 2],
            ),
            (
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES", "MPOL_F_NUMA_BALANCING"]}),
                3 | 1 << 14 | 1 << 13,
                vec![1],
            ),
            (json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "1023"}), 5, [vec![0; 15], vec![1 << 63]].concat()),
            (json!({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "2"}), 6, vec![4]),
        ] {
            assert_eq!(planned(policy.clone()).unwrap(), (mode, nodes), "{policy}");
        }
    }

    #[test]
    fn nodes_must_be_a_list_and_fit_the_mode() {
        for (mode, nodes, why) in [
            ("MPOL_DEFAULT", "0-7", "this mode requires 0 nodes but got 8"),
            ("MPOL_LOCAL", "1", "this mode requires 0 nodes but got 1"),
            ("MPOL_BIND", "", "this mode requires at least one node but got 0"),
            ("MPOL_BIND", "0-9876543210", "invalid memory policy nodes \"0-9876543210\""),
            ("MPOL_INTERLEAVE", "1024", "invalid memory policy nodes \"1024\""),
            ("MPOL_PREFERRED", "a", "invalid memory policy nodes \"a\""),
        ] {
            let e = planned(json!({"mode": mode, "nodes": nodes})).unwrap_err().to_string();
            assert!(e.starts_with(&format!("linux.memoryPolicy.nodes: {why}")), "{e}");
        }
    }
}
