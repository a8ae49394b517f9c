use super::*;
use serde_json::{Value, json};
use std::path::PathBuf;

fn with_files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn v1(dir: &Path, controllers: &[&str]) -> Paths {
    controllers.iter().map(|name| (name.to_string(), dir.to_path_buf())).collect()
}

fn data(paths: &Paths) -> Value {
    serde_json::to_value(read(paths).unwrap()).unwrap()
}

#[test]
fn what_is_not_there_is_what_runc_shows_for_it() {
    let want = json!({
        "blkio": {}, "cpu": {}, "hugetlb": {}, "memory": {}, "pids": {},
        "cpuset": {
            "cpu_exclusive": 0, "mem_exclusive": 0, "mem_hardwall": 0, "memory_migrate": 0, "memory_pressure": 0,
            "memory_spread_page": 0, "memory_spread_slab": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
        },
    });
    assert_eq!(data(&Paths::new()), want);
    let gone = PathBuf::from("/nonexistent");
    assert_eq!(data(&v1(&gone, &["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "hugetlb"])), want);
}

#[test]
fn v1_times_are_nanoseconds() {
    let dir = with_files(&[
        ("cpuacct.stat", "user 7\nsystem 3\n"),
        ("cpuacct.usage", "123456789\n"),
        ("cpuacct.usage_percpu", "100 200 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 60 40\n1 150 50\n"),
        ("cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 99\n"),
    ]);
    let cpu = read(&v1(dir.path(), &["cpu", "cpuacct"])).unwrap().cpu;
    let usage = CpuUsage {
        total: 123_456_789,
        percpu: vec![100, 200],
        percpu_kernel: vec![40, 50],
        percpu_user: vec![60, 150],
        kernel: 30_000_000,
        user: 70_000_000,
    };
    assert_eq!(cpu.usage, usage);
    assert_eq!(cpu.throttling, Throttling { periods: 4, throttled_periods: 2, throttled_time: 99 });
}

#[test]
fn v2_times_are_nanoseconds_too() {
    let dir = with_files(&[
        ("cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n"),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        ),
    ]);
    let cpu = read(&v1(dir.path(), &[""])).unwrap().cpu;
    assert_eq!((cpu.usage.total, cpu.usage.user, cpu.usage.kernel), (10_000, 6_000, 4_000));
    assert_eq!(cpu.throttling, Throttling { periods: 4, throttled_periods: 2, throttled_time: 5_000 });
    let psi = cpu.psi.unwrap();
    assert_eq!(psi.some, Stall { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 77 });
    assert_eq!(psi.full.total, 3);
}

#[test]
fn swap_counts_memory_too_on_v2_as_on_v1() {
    let files = [
        ("memory.stat", "anon 5\nfile 9\n"),
        ("memory.current", "100\n"),
        ("memory.max", "1000\n"),
        ("memory.peak", "300\n"),
    ];
    let dir = with_files(&files);
    let memory = read(&v1(dir.path(), &[""])).unwrap().memory;
    assert_eq!(memory.cache, 9);
    assert_eq!(memory.usage, Usage { limit: 1000, usage: 100, max: 300, failcnt: 0 });
    assert_eq!(memory.swap, Usage { limit: 1000, usage: 100, max: 0, failcnt: 0 });
    std::fs::write(dir.path().join("memory.swap.current"), "7\n").unwrap();
    std::fs::write(dir.path().join("memory.swap.max"), "max\n").unwrap();
    let swap = read(&v1(dir.path(), &[""])).unwrap().memory.swap;
    assert_eq!(swap, Usage { limit: NO_LIMIT, usage: 107, max: 0, failcnt: 0 });
}

#[test]
fn pids_without_a_limit_have_the_limit_0() {
    for layout in ["pids", ""] {
        let dir = with_files(&[("pids.current", "3\n"), ("pids.max", "max\n"), ("cgroup.procs", "1\n2\n")]);
        assert_eq!(read(&v1(dir.path(), &[layout])).unwrap().pids, Pids { current: 3, limit: 0 });
        std::fs::write(dir.path().join("pids.max"), "8\n").unwrap();
        assert_eq!(read(&v1(dir.path(), &[layout])).unwrap().pids.limit, 8);
    }
    let dir = with_files(&[("cgroup.procs", "1\n2\n")]);
    assert_eq!(read(&v1(dir.path(), &[""])).unwrap().pids, Pids { current: 2, limit: 0 });
}

#[test]
fn block_io_is_taken_from_who_knows_most() {
    let throttle = "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n";
    let dir = with_files(&[
        ("blkio.throttle.io_serviced", throttle),
        ("blkio.throttle.io_service_bytes", "8:0 Read 512\nTotal 512\n"),
        ("blkio.bfq.io_serviced_recursive", "Total 0\n"),
    ]);
    let paths = v1(dir.path(), &["blkio"]);
    let blkio = read(&paths).unwrap().blkio;
    let entry = |op: &str, value| BlkioEntry { major: 8, minor: 0, op: op.into(), value };
    assert_eq!(blkio.io_serviced_recursive, [entry("Read", 1), entry("Write", 2), entry("Total", 3)]);
    assert_eq!(blkio.io_service_bytes_recursive, [entry("Read", 512)]);
    std::fs::write(dir.path().join("blkio.bfq.io_serviced_recursive"), "8:0 Read 9\nTotal 9\n").unwrap();
    std::fs::write(dir.path().join("blkio.bfq.sectors_recursive"), "8:0 4\n").unwrap();
    let blkio = read(&paths).unwrap().blkio;
    assert_eq!(blkio.io_serviced_recursive, [entry("Read", 9)]);
    assert_eq!(blkio.sectors_recursive, [entry("", 4)]);
    assert!(blkio.io_service_bytes_recursive.is_empty());
}

#[test]
fn block_io_of_v2_has_the_names_of_v1() {
    let dir = with_files(&[("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n")]);
    let blkio = serde_json::to_value(read(&v1(dir.path(), &[""])).unwrap().blkio).unwrap();
    let want = json!({
        "ioServiceBytesRecursive": [{"major": 8, "op": "Read", "value": 10}, {"major": 8, "op": "Write", "value": 20}],
        "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write", "value": 2}],
    });
    assert_eq!(blkio, want);
}

#[test]
fn a_hybrid_host_has_pressure_beside_the_v1_counters() {
    let (old, new) = (
        with_files(&[("memory.usage_in_bytes", "5\n"), ("memory.limit_in_bytes", "9\n")]),
        with_files(&[("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")]),
    );
    let mut paths = v1(old.path(), &["memory"]);
    paths.insert(String::new(), new.path().to_path_buf());
    let memory = read(&paths).unwrap().memory;
    assert_eq!((memory.usage.usage, memory.usage.limit), (5, 9));
    assert_eq!(memory.psi.unwrap().some.total, 1);
}

#[test]
fn a_file_that_cannot_be_understood_is_named() {
    let dir = with_files(&[("memory.usage_in_bytes", "many\n"), ("cpuset.cpus", "3-x\n")]);
    for (controller, file) in [("memory", "memory.usage_in_bytes"), ("cpuset", "cpuset.cpus")] {
        let error = read(&v1(dir.path(), &[controller])).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn lists_of_cpus_are_spread_out() {
    let dir =
        with_files(&[("cpuset.cpus", "0-2,5\n"), ("cpuset.mems", "0\n"), ("cpuset.sched_relax_domain_level", "-1\n")]);
    let cpuset = read(&v1(dir.path(), &["cpuset"])).unwrap().cpuset;
    assert_eq!((cpuset.cpus, cpuset.mems, cpuset.sched_relax_domain_level), (vec![0, 1, 2, 5], vec![0], -1));
}
