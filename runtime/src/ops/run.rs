//! `run`: create and start in one, and in the foreground also wait and delete.

use super::create::make;
use super::{Global, RunOptions, delete, start};
use crate::console::{self, Process};
use crate::error::{On, Result};
use crate::notify;
use crate::state::Container;
use log::debug;
use orlop_sys::process;
use orlop_sys::signal::Signals;
use std::os::fd::AsFd;

/// Runs the container. The result is the exit status: 0 when detached, else the process's, 128 + n for signal n.
pub fn run(global: &Global, options: &RunOptions) -> Result<u8> {
    let foreground = !options.detach;
    // Before the process is made, so that no signal is lost between its start and the loop.
    let signals = if foreground { Some(Signals::block().on("signalfd", "")?) } else { None };
    let subreaper = foreground && !options.no_subreaper;
    if subreaper {
        process::set_subreaper().on("prctl PR_SET_CHILD_SUBREAPER", "")?;
    }
    let made = make(global, &options.create, false, options.detach)?;
    let relay = match notify::requested() {
        Some(host) => {
            let main = if foreground { std::process::id() } else { made.init.pid as u32 };
            Some(notify::Relay::listen(made.dir(), &host, main)?)
        }
        None => None,
    };
    debug!("init: closing the pipe to signal completion");
    if let Err(e) = made.init.release(&made.plan) {
        let e = super::explain_exec(e, &made.plan, &made.saved.rootfs);
        return Err(made.abandon(e));
    }
    let (container, init, master) = made.finish(&options.create)?;
    if let Err(e) = start::poststart(&container) {
        return Err(delete::destroy(&container).err().into_iter().fold(e, |e, other| e.also(other)));
    }
    let Some(signals) = signals else {
        relay.map_or(Ok(()), |relay| relay.relay(init.pidfd.as_fd()))?;
        return Ok(0);
    };
    let process = Process { pid: init.pid, pidfd: init.pidfd.as_fd() };
    let status = console::foreground(&signals, &process, master, subreaper, relay);
    finish(container, options.keep)?;
    status
}

/// What `delete` does, unless the container is to be kept, or another command has deleted it already.
fn finish(container: Container, keep: bool) -> Result<()> {
    if keep || !container.lock_again()? { Ok(()) } else { delete::destroy(&container) }
}
