//! Doors to what reads bytes that others have written, for the targets of `runtime/fuzz`. Only they are compiled with it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "fuzz targets")]

use crate::cgroup::{self, Paths};
use crate::config::Config;
use crate::criu::{rpc, wire};
use crate::{init, newidmap, plan, resctrl, state, sync};
use oci_spec::runtime::Process;
use std::path::Path;

/// config.json, from its bytes to the plans of create and of exec. What is refused is refused by name.
pub fn config(data: &[u8]) {
    let Ok(config) = Config::of(data.to_vec(), Path::new("config.json")) else { return };
    if let Err(why) = config.check() {
        assert!(!why.to_string().is_empty());
        return;
    }
    let paths = Paths::from([("memory".into(), "/sys/fs/cgroup/memory/id".into())]);
    for (rootless, v1_tasks, into_cgroup) in
        [(None, 1, false), (None, 0, true), (Some(plan::Caller { uid: 1000, gid: 1000 }), 0, false)]
    {
        let input = plan::Input {
            id: "id",
            rootfs: Path::new("/bundle/rootfs"),
            bundle: Path::new("/bundle"),
            grantable: u64::MAX,
            cgroup_paths: &paths,
            hierarchies: &[],
            v1_tasks,
            into_cgroup,
            preserve_fds: 0,
            listen_fds: 1,
            no_pivot: None,
            no_new_keyring: false,
            notify_dir: None,
            rootless,
            host_trees: true,
            comes_back: true,
            asks: false,
            own: None,
        };
        let made = plan::plan(&config.spec, &input);
        if let (Ok(_), Some(process)) = (made, config.spec.process()) {
            let _ = plan::plan_exec(&config.spec, process, &input, 3);
        }
    }
}

/// `exec --process`.
pub fn process(data: &[u8]) {
    if let Ok(process) = crate::config::parse::<Process>(data, Path::new("process.json")) {
        let _ = crate::config::check_process(&process);
    }
}

/// The frame of the two halves: what is read is what was written.
pub fn frame(data: &[u8]) {
    for bytes in data.chunks(sync::SIZE) {
        if let Some(frame) = sync::Frame::parse(bytes) {
            assert_eq!(frame.bytes(), bytes);
        }
    }
}

/// Seccomp profiles, against their meaning.
pub fn seccomp(data: &[u8]) {
    plan::seccomp::oracle::fuzz(data);
}

/// Answers on the bus: what is read and written again is the same.
pub fn dbus(data: &[u8]) {
    cgroup::fuzz_dbus(data);
}

/// Answers of CRIU.
pub fn criu(data: &[u8]) {
    let _ = rpc::Response::parse(data);
    for (_, value) in wire::parse(data).into_iter().flatten() {
        let _ = (value.number(), value.bytes(), value.text());
    }
}

/// Tables of the kernel and of passwd(5), group(5) and subuid(5).
pub fn tables(data: &[u8]) {
    cgroup::fuzz_tables(data);
    init::fuzz_passwd(data);
    resctrl::fuzz_mountinfo(data);
    state::fuzz_stat(data);
    if let Ok(text) = std::str::from_utf8(data) {
        newidmap::fuzz(text);
    }
}

/// The files of a cgroup's counters.
pub fn stats(data: &[u8]) {
    cgroup::stats::fuzz(data);
}

/// state.json, which root has written, and a crash may have cut.
pub fn saved(data: &[u8]) {
    let _ = serde_json::from_slice::<state::Saved>(data);
}
