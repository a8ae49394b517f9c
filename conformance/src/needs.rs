//! What a host must offer for a check to mean anything. Where it does not, the check is reported as ignored, with the reason.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::criu;

/// A property of the host, and the checks that need it.
pub struct Need {
    /// Completes "this host has no ...".
    pub what: &'static str,
    /// Whether the host has it.
    pub present: fn() -> bool,
    /// The names of the checks.
    pub checks: &'static [&'static str],
}

/// Every need of every check.
pub const NEEDS: &[Need] = &[
    Need {
        what: "time namespaces (CONFIG_TIME_NS)",
        present: || Path::new("/proc/self/ns/time").exists(),
        checks: &[
            "namespaces::time_offsets",
            "namespaces::time_by_path",
            "namespaces::time_new",
            "namespaces::time_absent",
        ],
    },
    Need {
        what: "cpuset controller",
        present: || has_controller("cpuset"),
        checks: &["cgroups::cpuset_cpus", "cgroups::cpuset_mems"],
    },
    Need {
        what: "memory policies (CONFIG_NUMA)",
        present: || Path::new("/proc/self/numa_maps").exists(),
        checks: &[
            "memory_policy::bind",
            "memory_policy::interleave",
            "memory_policy::preferred",
            "memory_policy::preferred_without_nodes_is_local",
            "memory_policy::preferred_many",
            "memory_policy::static_nodes",
            "memory_policy::relative_nodes",
            "memory_policy::numa_balancing",
            "memory_policy::default",
            "memory_policy::local",
            "memory_policy::exec_has_it_too",
        ],
    },
    Need {
        what: "newuidmap and newgidmap (Debian: uidmap)",
        present: || Path::new("/usr/bin/newuidmap").exists() && Path::new("/usr/bin/newgidmap").exists(),
        checks: &[
            "rootless::ranges_come_from_newuidmap",
            "rootless::additional_gids_of_a_range",
            "rootless::range_that_is_not_ours_is_refused",
        ],
    },
    Need {
        what: "cgroup v2 alone",
        present: v2,
        checks: &[
            "mounts::cgroup_mount_shows_the_path_of_proc",
            "cgroups::unified_writes_unknown_files",
            "cgroups::unified_of_an_absent_controller_is_refused",
            "cgroup_manager::delegated_cgroup_by_annotation",
        ],
    },
    Need {
        what: "strace that works on its kernel",
        present: || {
            let traced =
                Command::new("strace").args(["-f", "-e", "trace=execve,setns", "unshare", "-m", "true"]).output();
            traced.is_ok_and(|out| out.status.success() && String::from_utf8_lossy(&out.stderr).contains("execve("))
        },
        checks: &["escapes::exec_is_not_dumpable_when_it_joins"],
    },
    Need { what: "cgroup v1", present: || !v2(), checks: &["cgroups::unified_without_v2_is_refused"] },
    Need {
        // A runtime that takes the option away has done so before the first check.
        what: "cgroup v2 mounted with nsdelegate",
        present: || v2() && v2_options().split(',').any(|one| one == "nsdelegate"),
        checks: &["mounts::cgroup_mount_leaves_the_hosts_options"],
    },
    Need {
        what: "CRIU that works on its kernel",
        present: criu::works,
        checks: &[
            "checkpoint::restore_goes_on_where_it_was",
            "checkpoint::checkpoint_deletes_the_container",
            "checkpoint::leave_running_leaves_it_running",
            "checkpoint::restored_container_takes_every_verb",
            "checkpoint::restore_twice_from_one_checkpoint",
            "checkpoint::restore_brings_bind_mounts_and_masks_back",
            "checkpoint::restore_brings_back_how_all_is_mounted",
            "checkpoint::restored_network_has_a_loopback",
        ],
    },
    Need {
        what: "systemd as pid 1 that answers",
        present: systemd,
        checks: &[
            "systemd::scope_lies_in_its_slice",
            "systemd::slices_nest_by_their_dashes",
            "systemd::path_absent_is_a_scope_of_the_id",
            "systemd::path_of_another_form_is_refused",
            "systemd::init_and_exec_are_in_the_scope",
            "systemd::update_changes_the_unit",
            "systemd::limits_outlive_a_daemon_reload",
            "systemd::pause_and_resume",
            "systemd::delete_stops_the_unit",
            "systemd::a_refused_create_leaves_no_unit",
            "systemd::a_failed_scope_of_the_name_is_replaced",
            "systemd::a_running_scope_of_the_name_is_refused",
            "systemd::annotations_are_properties",
            "systemd::annotations_in_seconds",
            "systemd::annotation_that_is_no_value_is_refused",
            "systemd::annotation_of_an_unknown_property_is_refused",
            "systemd::devices_outlive_a_daemon_reload",
            "systemd::subgroup_by_annotation",
            "systemd::memory_limit",
            "systemd::memory_reservation",
            "systemd::memory_swap",
            "systemd::pids_limit",
            "systemd::cpu_quota",
            "systemd::cpu_period",
            "systemd::cpu_shares",
            "systemd::unified",
        ],
    },
    Need {
        what: "AppArmor",
        present: || fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")),
        checks: &[
            "process::apparmor_profile",
            "process::apparmor_profile_that_is_not_loaded_is_refused",
            "exec::apparmor",
        ],
    },
];

/// What the host lacks for a check.
pub fn missing(check: &str) -> Option<&'static str> {
    NEEDS.iter().find(|need| need.checks.contains(&check) && !(need.present)()).map(|need| need.what)
}

/// Whether the host has cgroup v2 alone.
pub fn v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether systemd is this host's manager (sd_booted(3)), is pid 1 of what we see, and answers.
fn systemd() -> bool {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    *ANSWERS.get_or_init(|| {
        let pid1 = fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == "systemd");
        let version = || Command::new("systemctl").args(["show", "--property=Version"]).output();
        pid1 && Path::new("/run/systemd/system").is_dir()
            && version().is_ok_and(|out| out.status.success() && out.stdout.starts_with(b"Version="))
    })
}

/// The options of the mount of cgroup v2 on /sys/fs/cgroup; they belong to the hierarchy, not to the mount.
pub fn v2_options() -> String {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.split(' ').nth(4) == Some("/sys/fs/cgroup"));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
}

fn has_controller(name: &str) -> bool {
    let listed = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    listed.map_or_else(
        |_| Path::new("/sys/fs/cgroup").join(name).exists(),
        |text| text.split_whitespace().any(|one| one == name),
    )
}
