//! How cost grows with what a container asks for, and with what the host has.

use crate::cases::cycle;
use crate::lab::{FLOOR, Lab, Runtime, Sample, reap, reap_all, rest, set};
use crate::stats::{Shuffle, exponent, median};
use crate::{Failures, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::path::Path;

/// What one command costs as something grows.
#[derive(Debug)]
pub struct Series {
    /// The command, and what grows.
    pub name: String,
    /// For each runtime the points, in the order of n.
    pub lines: BTreeMap<String, Vec<Point>>,
}

/// Medians at one size.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// How many there were.
    pub n: usize,
    /// CPU time in ms; of create with that of the init.
    pub cpu: f64,
    /// Wall time in ms.
    pub wall: f64,
}

impl Series {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lines: BTreeMap::new() }
    }

    fn put(&mut self, runtime: &str, n: usize, samples: &[Sample]) {
        let of = |value: fn(&Sample) -> f64| median(&samples.iter().map(value).collect::<Vec<_>>());
        if !samples.is_empty() {
            let point = Point { n, cpu: of(|s| s.cpu), wall: of(|s| s.wall) };
            self.lines.entry(runtime.to_owned()).or_default().push(point);
        }
    }

    /// The exponent of a line's growth; see [`exponent`].
    pub fn exponent(&self, runtime: &str) -> Option<f64> {
        let points: Vec<(f64, f64)> = self.lines.get(runtime)?.iter().map(|p| (p.n as f64, p.cpu)).collect();
        exponent(&points)
    }
}

/// Every series.
pub fn measure(lab: &Lab, runs: usize, failures: &mut Failures) -> Result<Vec<Series>> {
    let sizes = |config: fn(&Lab, usize) -> Result<Value>| move |n: usize| config(lab, n);
    let mut all = vec![
        creates(lab, "create, mounts of the container", &[1, 10, 100, 1000], runs, sizes(with_mounts), failures)?,
        creates(
            lab,
            "create, variables of the environment",
            &[1, 10, 100, 1000, 5000],
            runs,
            sizes(with_variables),
            failures,
        )?,
        creates(lab, "create, device rules", &[1, 10, 100, 1000], runs, sizes(with_devices), failures)?,
        host_mounts(lab, runs, failures)?,
    ];
    all.extend(neighbours(lab, runs, failures)?);
    Ok(all)
}

fn with_mounts(lab: &Lab, n: usize) -> Result<Value> {
    let mut config = lab.default_config();
    let source = lab.file("source");
    fs::create_dir_all(&source)?;
    if let Some(mounts) = config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
        for i in 0..n {
            fs::create_dir_all(lab.rootfs().join(format!("m/{i}")))?;
            let options = ["bind", "ro"];
            mounts
                .push(json!({"destination": format!("/m/{i}"), "source": source, "type": "bind", "options": options}));
        }
    }
    Ok(config)
}

fn with_variables(lab: &Lab, n: usize) -> Result<Value> {
    let mut config = lab.default_config();
    let path = "PATH=/bin".to_owned();
    let variables: Vec<String> = (1..n).map(|i| format!("VARIABLE_{i}=value {i}")).chain([path]).collect();
    set(&mut config, "/process/env", json!(variables));
    Ok(config)
}

fn with_devices(lab: &Lab, n: usize) -> Result<Value> {
    let mut config = lab.default_config();
    if let Some(rules) = config.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut) {
        rules.extend((0..n).map(|i| json!({"allow": true, "type": "c", "major": 240, "minor": i, "access": "r"})));
    }
    Ok(config)
}

/// create of containers that differ in size.
fn creates(
    lab: &Lab,
    name: &str,
    sizes: &[usize],
    runs: usize,
    config: impl Fn(usize) -> Result<Value>,
    failures: &mut Failures,
) -> Result<Series> {
    let mut series = Series::new(name);
    let mut shuffle = Shuffle::new();
    for n in sizes {
        eprint!("\rbench: {name}: {n}      ");
        let bundle = lab.bundle(&format!("growth-{n}"), config(*n)?)?;
        let mut jobs: Vec<&Runtime> = lab.runtimes.iter().flat_map(|runtime| vec![runtime; runs + 1]).collect();
        let mut samples: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
        shuffle.shuffle(&mut jobs);
        for runtime in jobs {
            rest();
            if let Some([create, _, _, init]) = failures.note(cycle(lab, runtime, &bundle)) {
                samples.entry(&runtime.name).or_default().push(create.and(init));
            }
        }
        for (runtime, samples) in samples {
            series.put(runtime, *n, samples.get(1..).unwrap_or_default());
        }
    }
    eprintln!();
    Ok(series)
}

/// run on a host of many mounts. The floor shows what the kernel alone needs to copy them.
fn host_mounts(lab: &Lab, runs: usize, failures: &mut Failures) -> Result<Series> {
    let mut series = Series::new("run, bind mounts on the host");
    let bundle = lab.bundle("host-mounts", lab.default_config())?;
    let dir = lab.file("host-mounts");
    fs::create_dir(&dir)?;
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None::<&CStr>)?;
    let result = grow_host_mounts(lab, runs, &bundle, &dir, &mut series, failures);
    unmount(&dir, UnmountFlags::DETACH)?;
    result.map(|()| series)
}

fn grow_host_mounts(
    lab: &Lab,
    runs: usize,
    bundle: &Path,
    dir: &Path,
    series: &mut Series,
    failures: &mut Failures,
) -> Result<()> {
    let mut mounted = 0;
    let mut shuffle = Shuffle::new();
    for n in [1, 10, 100, 1000] {
        eprint!("\rbench: {}: {n}      ", series.name);
        for i in mounted..n {
            let target = dir.join(i.to_string());
            fs::create_dir(&target)?;
            mount_bind(lab.rootfs(), &target)?;
        }
        mounted = n;
        let floor = None;
        let mut jobs: Vec<Option<&Runtime>> =
            lab.runtimes.iter().map(Some).chain([floor]).flat_map(|r| vec![r; runs]).collect();
        shuffle.shuffle(&mut jobs);
        let mut samples: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
        for job in jobs {
            rest();
            let (name, result) = match job {
                Some(runtime) => (runtime.name.as_str(), lab.run(runtime, bundle)),
                None => (FLOOR, lab.floor(None, "/bin/true")),
            };
            samples.entry(name).or_default().extend(failures.note(result));
        }
        for (name, samples) in samples {
            series.put(name, n, &samples);
        }
    }
    eprintln!();
    Ok(())
}

/// list, create and delete beside stopped containers under the same root. The peers take long to make theirs: they stop at 100.
fn neighbours(lab: &Lab, runs: usize, failures: &mut Failures) -> Result<[Series; 3]> {
    let mut series = [
        "list, containers under the same root",
        "create, containers under the same root",
        "delete, containers under the same root",
    ]
    .map(Series::new);
    let bundle = lab.bundle("neighbours", lab.default_config())?;
    for (order, runtime) in lab.runtimes.iter().enumerate() {
        // All in one cgroup, empty by then: what the kernel needs for many cgroups is not asked here.
        let mut config = lab.default_config();
        set(&mut config, "/linux/cgroupsPath", json!(format!("/{}", lab.id())));
        let pool = lab.bundle("pool", config)?;
        let many = runtime.with_root("pool");
        let mut made = Vec::new();
        let sizes: &[usize] = if order == 0 { &[1, 10, 100, 1000] } else { &[1, 10, 100] };
        for n in sizes {
            eprint!("\rbench: containers under the same root: {n} of {}      ", runtime.name);
            while made.len() < *n {
                let (_, container) = lab.create(&many, &pool)?;
                kill_process(container.pid, Signal::KILL)?;
                reap(container.pid)?;
                made.push(container.id);
            }
            let mut samples = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..runs {
                rest();
                let list = failures.note(lab.call(&many, ["list"]));
                let cycle = failures.note(cycle(lab, &many, &bundle));
                if let Some((list, [create, _, delete, init])) = list.zip(cycle) {
                    for (samples, sample) in samples.iter_mut().zip([list, create.and(init), delete]) {
                        samples.push(sample);
                    }
                }
            }
            for (series, samples) in series.iter_mut().zip(&samples) {
                series.put(&runtime.name, *n, samples);
            }
        }
        for id in made {
            failures.note(lab.call(&many, [OsStr::new("delete"), "--force".as_ref(), id.as_ref()]));
        }
        reap_all();
    }
    eprintln!();
    Ok(series)
}
