//! `events`: what a container uses, at intervals, and each time that it runs out of memory.

use super::{EventsOptions, Global, namespace};
use crate::cgroup::oom::OomWatch;
use crate::cgroup::stats::{self, Stats};
use crate::error::{Error, Kind, On, Result, invalid};
use crate::resctrl;
use crate::state::{Container, Status};
use log::{error, warn};
use oci_spec::runtime::LinuxNamespaceType;
use orlop_sys::poll::{READ, poll};
use serde::Serialize;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// One line of the output; the order of the keys is runc's.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

/// What the statistics say.
#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    cgroups: Stats,
    intel_rdt: resctrl::stats::Stats,
    network_interfaces: Option<Vec<Interface>>,
}

/// A network interface of the container, seen from inside it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

/// Writes events to `out`, one JSON object a line, until the container ends; with `stats` one, of what it uses now.
pub fn events(global: &Global, options: &EventsOptions, out: &mut dyn Write) -> Result<()> {
    if options.interval.is_zero() {
        return Err(Error::new(Kind::Invalid, "duration interval must be greater than 0"));
    }
    let container = Container::load(&global.root, &options.id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::State, format!("container with id {} is not running", options.id)));
    }
    let source = Source::of(&container)?;
    if options.stats {
        return put(out, &source.stats()?);
    }
    let pidfd = container.pidfd()?;
    let mut oom = OomWatch::new(&container.saved.cgroup_paths)?;
    if oom.is_none() {
        warn!("container {} has no cgroup that counts memory: no event of type oom will be seen", options.id);
    }
    let mut due = Instant::now() + options.interval;
    loop {
        let left = milliseconds(due.saturating_duration_since(Instant::now()));
        let [ended, _] =
            poll([(Some(pidfd.as_fd()), READ), (oom.as_ref().map(AsFd::as_fd), READ)], left).on("poll", "")?;
        if oom.as_mut().map_or(Ok(false), OomWatch::news)? {
            put(out, &Event { kind: "oom", id: source.id(), data: None })?;
        }
        if ended != 0 {
            return Ok(());
        }
        if Instant::now() >= due {
            // One that cannot be read may be readable the next time.
            match source.stats() {
                Ok(event) => put(out, &event)?,
                Err(e) => error!("{e}"),
            }
            due = (due + options.interval).max(Instant::now());
        }
    }
}

/// Rounded up, so that the last wait before an event is not one of nothing.
fn milliseconds(left: Duration) -> i32 {
    i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

fn put(out: &mut dyn Write, event: &Event<'_>) -> Result<()> {
    let mut line = serde_json::to_vec(event).map_err(|e| invalid("events", e.to_string()))?;
    line.push(b'\n');
    out.write_all(&line).and_then(|()| out.flush()).on("write to", "stdout")
}

/// Where the statistics of a container come from.
struct Source<'a> {
    container: &'a Container,
    /// Whether its network interfaces are its own, not the host's.
    private_network: bool,
}

impl Source<'_> {
    fn of(container: &Container) -> Result<Source<'_>> {
        let config = container.config()?;
        let private_network = namespace(&config.spec, LinuxNamespaceType::Network).is_some();
        Ok(Source { container, private_network })
    }

    fn id(&self) -> &str {
        &self.container.saved.id
    }

    fn stats(&self) -> Result<Event<'_>> {
        let data = Data {
            cgroups: stats::read(&self.container.saved.cgroup_paths)?,
            intel_rdt: self
                .container
                .saved
                .intel_rdt
                .as_ref()
                .map(resctrl::Group::stats)
                .transpose()?
                .unwrap_or_default(),
            network_interfaces: self.interfaces(),
        };
        Ok(Event { kind: "stats", id: self.id(), data: Some(data) })
    }

    /// Those of the init's network namespace, but for the loopback; `None` when there are no others, or the init ends now.
    fn interfaces(&self) -> Option<Vec<Interface>> {
        let pid = self.private_network.then_some(self.container.saved.init_process_pid)?;
        let all = procfs::process::Process::new(pid).and_then(|init| init.dev_status()).ok()?;
        let mut all: Vec<Interface> = all.into_values().filter(|dev| dev.name != "lo").map(Interface::from).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        (!all.is_empty()).then_some(all)
    }
}

impl From<procfs::net::DeviceStatus> for Interface {
    fn from(dev: procfs::net::DeviceStatus) -> Interface {
        Interface {
            name: dev.name,
            rx_bytes: dev.recv_bytes,
            rx_packets: dev.recv_packets,
            rx_errors: dev.recv_errs,
            rx_dropped: dev.recv_drop,
            tx_bytes: dev.sent_bytes,
            tx_packets: dev.sent_packets,
            tx_errors: dev.sent_errs,
            tx_dropped: dev.sent_drop,
        }
    }
}
