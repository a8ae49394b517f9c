//! The NUMA memory policy of the container's processes, as /proc/self/numa_maps shows it (numa(7)).

use serde_json::{Value, json};

use crate::check::{Check, Outcome};
use crate::runtime::Lab;

/// The policy of the first mapping.
const SHOW: &str = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2";

/// A value of linux.memoryPolicy.
type Policy = fn() -> Value;

/// What the policy is called, what it is in the configuration, and what the kernel calls it. Every host has node 0.
const POLICIES: &[(&str, Policy, &str)] = &[
    ("default", || json!({ "mode": "MPOL_DEFAULT" }), "default"),
    ("local", || json!({ "mode": "MPOL_LOCAL" }), "local"),
    ("bind", || json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
    ("interleave", || json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
    ("preferred", || json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
    ("preferred_without_nodes_is_local", || json!({ "mode": "MPOL_PREFERRED" }), "local"),
    ("preferred_many", || json!({ "mode": "MPOL_PREFERRED_MANY", "nodes": "0" }), "prefer (many):0"),
    (
        "static_nodes",
        || json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
        "bind=static:0",
    ),
    (
        "relative_nodes",
        || json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }),
        "interleave=relative:0",
    ),
    (
        "numa_balancing",
        || json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }),
        "bind=balancing:0",
    ),
];

/// Values that must be refused: unknown words, nodes that the mode does not take, nodes that no host has.
const BAD: &[(&str, Policy)] = &[
    ("unknown_mode", || json!({ "mode": "BIND", "nodes": "0" })),
    ("no_mode", || json!({ "nodes": "0" })),
    ("unknown_flag", || json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"] })),
    ("bad_nodes", || json!({ "mode": "MPOL_BIND", "nodes": "zero" })),
    ("reversed_nodes", || json!({ "mode": "MPOL_BIND", "nodes": "1-0" })),
    ("bind_without_nodes", || json!({ "mode": "MPOL_BIND" })),
    ("default_with_nodes", || json!({ "mode": "MPOL_DEFAULT", "nodes": "0" })),
    ("nodes_that_are_not_there", || json!({ "mode": "MPOL_BIND", "nodes": "1023" })),
    (
        "flags_that_exclude_each_other",
        || json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
    ),
];

pub(super) fn checks() -> Vec<Check> {
    const SECTION: &str = "config-linux.md#memory-policy";
    let holds = POLICIES.iter().map(|&(name, policy, shown)| {
        Check::new(format!("memory_policy::{name}"), SECTION, move |lab: &mut Lab| {
            let seen = lab.set("/linux/memoryPolicy", policy()).run_sh(SHOW)?;
            // `prefer (many):0` has a space, at which SHOW cuts.
            same!(seen.trim(), shown.split(' ').next().unwrap_or_default(), "policy of {name}");
            Ok(())
        })
    });
    let refused = BAD.iter().map(|&(name, policy)| {
        Check::new(format!("memory_policy::{name}_is_refused"), SECTION, move |lab: &mut Lab| {
            lab.refused(|lab| {
                lab.set("/linux/memoryPolicy", policy());
            })?;
            Ok(())
        })
    });
    let exec = Check::new("memory_policy::exec_has_it_too", "runc: exec", exec_has_it_too);
    holds.chain(refused).chain([exec]).collect()
}

fn exec_has_it_too(lab: &mut Lab) -> Outcome {
    lab.set("/linux/memoryPolicy", json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" })).up_idle()?;
    let seen = lab.exec(&[], &["sh", "-c", SHOW])?.ok("exec")?.stdout;
    same!(seen.trim(), "interleave:0", "policy of a process of exec");
    Ok(())
}
