//! The commands, each timed many times in shuffled order.

use crate::lab::{Container, FLOOR, Lab, Runtime, Sample, reap, reap_all, rest, set};
use crate::stats::Shuffle;
use crate::{Failures, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// What is timed. The order is that of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`TITLES` says what each is")]
pub enum Case {
    Run,
    RunDocker,
    Create,
    Start,
    Delete,
    Cycle,
    CycleAndInit,
    CycleDocker,
    Exec,
    ExecDocker,
    DeleteMany,
    DeleteManyOfHost,
}

/// The cases as the results name them.
pub const TITLES: &[(Case, &str)] = &[
    (Case::Run, "run"),
    (Case::RunDocker, "run, Docker's config"),
    (Case::Create, "create"),
    (Case::Start, "start"),
    (Case::Delete, "delete"),
    (Case::Cycle, "create+start+delete"),
    (Case::CycleAndInit, "… with the init's CPU"),
    (Case::CycleDocker, "… Docker's config"),
    (Case::Exec, "exec"),
    (Case::ExecDocker, "exec, Docker's config"),
    (Case::DeleteMany, "delete --force, 200 processes"),
    (Case::DeleteManyOfHost, "… in the host's pid namespace"),
];

/// All samples, by case and runtime.
pub type Samples = BTreeMap<Case, BTreeMap<String, Vec<Sample>>>;

/// Times every command `rounds` times, after a round that is dropped.
pub fn commands(lab: &Lab, rounds: usize, failures: &mut Failures) -> Result<Samples> {
    let bench = Commands::new(lab)?;
    let mut samples = Samples::new();
    let mut shuffle = Shuffle::new();
    let mut jobs: Vec<Job> = vec![Job::Floor];
    for runtime in 0..lab.runtimes.len() {
        for docker in [false, true] {
            jobs.extend([Job::Run, Job::Cycle, Job::Exec].map(|job| job(runtime, docker)));
        }
    }
    for round in 0..=rounds {
        eprint!("\rbench: commands, round {round} of {rounds} ");
        shuffle.shuffle(&mut jobs);
        for job in &jobs {
            rest();
            failures.note(bench.job(*job, &mut samples));
            reap_all();
        }
        if round == 0 {
            samples.clear();
        }
    }
    eprintln!();
    failures.note(delete_many(lab, rounds.div_ceil(5).max(2), &mut samples));
    Ok(samples)
}

/// One thing to do in a round: with which runtime, and whether under Docker's configuration.
#[derive(Clone, Copy, Debug)]
enum Job {
    Floor,
    Run(usize, bool),
    Cycle(usize, bool),
    Exec(usize, bool),
}

struct Commands<'a> {
    lab: &'a Lab,
    /// Bundles of `true`: the default one, Docker's.
    bundles: [PathBuf; 2],
    /// A running container of each runtime and bundle, to exec into.
    running: Vec<[Container; 2]>,
}

impl<'a> Commands<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let configs = [lab.default_config(), lab.docker_config()?];
        let [default, docker] = configs.clone();
        let bundles = [lab.bundle("default", default)?, lab.bundle("docker", docker)?];
        let [default, docker] = configs;
        let sleep = ["sleep", "100000"];
        let sleeping =
            [lab.bundle_of("default-sleep", default, &sleep)?, lab.bundle_of("docker-sleep", docker, &sleep)?];
        let mut running = Vec::new();
        for runtime in &lab.runtimes {
            let start = |bundle| -> Result<Container> {
                let (_, container) = lab.create(runtime, bundle)?;
                lab.call(runtime, ["start", &container.id])?;
                Ok(container)
            };
            let [default, docker] = &sleeping;
            running.push([start(default)?, start(docker)?]);
        }
        Ok(Self { lab, bundles, running })
    }

    fn job(&self, job: Job, samples: &mut Samples) -> Result<()> {
        let mut put = |case: Case, name: &str, sample| {
            samples.entry(case).or_default().entry(name.to_owned()).or_default().push(sample);
        };
        let pick = |docker, default: Case, of_docker: Case| if docker { of_docker } else { default };
        match job {
            Job::Floor => put(Case::Run, FLOOR, self.lab.floor(None, "/bin/true")?),
            Job::Run(runtime, docker) => {
                let runtime = &self.lab.runtimes[runtime];
                let sample = self.lab.run(runtime, &self.bundles[usize::from(docker)])?;
                put(pick(docker, Case::Run, Case::RunDocker), &runtime.name, sample);
            }
            Job::Exec(runtime, docker) => {
                let (runtime, container) = (&self.lab.runtimes[runtime], &self.running[runtime][usize::from(docker)]);
                let sample = self.lab.call(runtime, ["exec", &container.id, "true"])?;
                put(pick(docker, Case::Exec, Case::ExecDocker), &runtime.name, sample);
            }
            Job::Cycle(runtime, docker) => {
                let runtime = &self.lab.runtimes[runtime];
                let [create, start, delete, init] = cycle(self.lab, runtime, &self.bundles[usize::from(docker)])?;
                let whole = create.and(start).and(delete);
                put(pick(docker, Case::Cycle, Case::CycleDocker), &runtime.name, whole);
                if !docker {
                    put(Case::Create, &runtime.name, create);
                    put(Case::Start, &runtime.name, start);
                    put(Case::Delete, &runtime.name, delete);
                    put(Case::CycleAndInit, &runtime.name, whole.and(init));
                }
            }
        }
        Ok(())
    }
}

/// create, start, delete with rests between; the last sample has the CPU time of the init. start is timed to its return, delete
/// after the init has ended.
pub fn cycle(lab: &Lab, runtime: &Runtime, bundle: &std::path::Path) -> Result<[Sample; 4]> {
    let (create, container) = lab.create(runtime, bundle)?;
    rest();
    let start = lab.call(runtime, ["start", &container.id])?;
    let init = Sample { cpu: reap(container.pid)?, ..Sample::default() };
    rest();
    let delete = lab.call(runtime, ["delete", &container.id])?;
    Ok([create, start, delete, init])
}

/// delete --force of a container of 200 processes and its init: in a pid namespace of its own, and in the host's.
fn delete_many(lab: &Lab, rounds: usize, samples: &mut Samples) -> Result<()> {
    const PROCESSES: usize = 200;
    let script = format!("i=0; while [ $i -lt {PROCESSES} ]; do sleep 100000 & i=$((i+1)); done; wait");
    let own = lab.default_config();
    let mut of_host = lab.default_config();
    if let Some(list) = of_host.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.retain(|namespace| namespace["type"] != json!("pid"));
    }
    let mut jobs = Vec::new();
    for (case, config) in [(Case::DeleteMany, own), (Case::DeleteManyOfHost, of_host)] {
        let bundle = lab.bundle_of(&format!("{case:?}"), config, &["sh", "-c", &script])?;
        jobs.extend(lab.runtimes.iter().map(|runtime| (case, bundle.clone(), runtime)));
    }
    let mut shuffle = Shuffle::new();
    for round in 0..rounds {
        eprint!("\rbench: delete of many processes, round {} of {rounds} ", round + 1);
        shuffle.shuffle(&mut jobs);
        for (case, bundle, runtime) in &jobs {
            let (_, container) = lab.create(runtime, bundle)?;
            lab.call(runtime, ["start", &container.id])?;
            let pid = container.pid.as_raw_nonzero();
            let children = format!("/proc/{pid}/task/{pid}/children");
            let deadline = Instant::now() + Duration::from_secs(30);
            while fs::read_to_string(&children)?.split_whitespace().count() < PROCESSES {
                if Instant::now() > deadline {
                    return Err("a shell did not make its processes".into());
                }
                sleep(Duration::from_millis(20));
            }
            rest();
            let sample = lab.call(runtime, ["delete", "--force", &container.id])?;
            samples.entry(*case).or_default().entry(runtime.name.clone()).or_default().push(sample);
            sleep(Duration::from_millis(200));
            reap_all();
        }
    }
    eprintln!();
    Ok(())
}

/// 64 containers, 16 at a time.
#[derive(Debug, Default)]
pub struct Fleet {
    /// How long all of them took, in ms; one value a round.
    pub totals: Vec<f64>,
    /// How long each of them took, create to delete, in ms.
    pub each: Vec<f64>,
    /// The CPU time of all commands, in ms; one value a round.
    pub cpu: Vec<f64>,
}

/// Creates, starts and deletes 64 containers, 16 at a time, with each runtime in turn.
pub fn fleets(lab: &Lab, rounds: usize, failures: &mut Failures) -> Result<BTreeMap<String, Fleet>> {
    const CONTAINERS: usize = 64;
    const AT_ONCE: usize = 16;
    let bundle = lab.bundle("fleet", lab.default_config())?;
    let mut fleets: BTreeMap<String, Fleet> = BTreeMap::new();
    let mut order: Vec<&Runtime> = lab.runtimes.iter().collect();
    let mut shuffle = Shuffle::new();
    for round in 0..rounds {
        eprint!("\rbench: {CONTAINERS} containers, {AT_ONCE} at a time, round {} of {rounds} ", round + 1);
        shuffle.shuffle(&mut order);
        for runtime in &order {
            let one = || -> Result<(f64, f64)> {
                let began = Instant::now();
                let (create, container) = lab.create(runtime, &bundle)?;
                let start = lab.call(runtime, ["start", &container.id])?;
                reap(container.pid)?;
                let delete = lab.call(runtime, ["delete", &container.id])?;
                Ok((began.elapsed().as_secs_f64() * 1e3, create.and(start).and(delete).cpu))
            };
            let waiting = Mutex::new(0..CONTAINERS);
            let done = Mutex::new(Vec::new());
            let next = || waiting.lock().map(|mut range| range.next()).unwrap_or(None);
            rest();
            let began = Instant::now();
            scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| {
                        while next().is_some() {
                            let result = one().map_err(|error| error.to_string());
                            if let Ok(mut done) = done.lock() {
                                done.push(result);
                            }
                        }
                    });
                }
            });
            let total = began.elapsed().as_secs_f64() * 1e3;
            let fleet = fleets.entry(runtime.name.clone()).or_default();
            let mut cpu = 0.0;
            for result in done.into_inner().unwrap_or_default() {
                if let Some((wall, used)) = failures.note(result.map_err(Into::into)) {
                    fleet.each.push(wall);
                    cpu += used;
                }
            }
            fleet.totals.push(total);
            fleet.cpu.push(cpu);
        }
    }
    eprintln!();
    Ok(fleets)
}

/// The limit of memory in a configuration.
pub fn limit_memory(config: &mut Value, bytes: u64) {
    set(config, "/linux/resources/memory", json!({ "limit": bytes }));
}
