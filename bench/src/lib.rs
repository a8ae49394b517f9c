//! Measures orlop beside other runtimes and beside the kernel's own work, and tells whether the bars are met.

pub mod bars;
pub mod cases;
pub mod footprint;
pub mod growth;
pub mod host;
pub mod lab;
pub mod plot;
pub mod report;
pub mod seccomp;
pub mod stats;
pub mod trace;

use cases::{Fleet, Samples};
use footprint::Row;
use growth::Series;
use std::collections::BTreeMap;
use trace::Calls;

/// What goes wrong in a measurement is told, not handled.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What was measured. What was not is empty.
#[derive(Debug, Default)]
pub struct Results {
    /// The machine.
    pub host: String,
    /// The load averages before and after.
    pub load: [String; 2],
    /// How often each command was timed.
    pub rounds: usize,
    /// How long all took.
    pub seconds: f64,
    /// Name, path and version of each runtime.
    pub versions: Vec<(String, String, String)>,
    /// The commands.
    pub samples: Samples,
    /// Many containers at once.
    pub fleets: BTreeMap<String, Fleet>,
    /// Peak memory by command.
    pub peaks: Vec<(&'static str, Row)>,
    /// The binaries, alone and with their libraries.
    pub sizes: BTreeMap<String, (f64, f64)>,
    /// The smallest memory limits, KiB.
    pub limits: Row,
    /// System calls by command.
    pub calls: BTreeMap<&'static str, BTreeMap<String, Option<Calls>>>,
    /// See [`seccomp::compile_time`].
    pub compile_time: Option<f64>,
    /// See [`seccomp::instructions`].
    pub instructions: [Row; 2],
    /// How cost grows.
    pub growth: Vec<Series>,
    /// Calls that failed.
    pub failures: Vec<String>,
}

/// Calls that failed: the rest is measured all the same.
#[derive(Debug, Default)]
pub struct Failures(pub Vec<String>);

impl Failures {
    /// Keeps an error, gives a value.
    pub fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("\nbench: {error}");
                self.0.push(error.to_string());
                None
            }
        }
    }
}
