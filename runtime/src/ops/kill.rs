//! `kill`: a signal to the container's init, or to all of its processes.

use super::{Global, select};
use crate::error::{Error, Kind, On, Result, invalid};
use crate::state::{Container, Status};
use log::warn;
use orlop_sys::{Errno, process};
use std::os::fd::AsFd;

/// Sends the signal, a name with or without `SIG` or a number. `all`: that the container has stopped is then no error.
pub fn kill(global: &Global, id: &str, signal: &str, all: bool) -> Result<()> {
    let signal = number(signal)?;
    let container = Container::load(&global.root, id)?;
    send(&container, signal, all)
}

/// As [`kill`], to every container whose id matches the extended regular expression; those that have stopped are left out.
pub fn kill_matching(global: &Global, pattern: &str, signal: &str) -> Result<()> {
    number(signal)?;
    select::matching(global, pattern, |id| match kill(global, id, signal, false) {
        Err(e) if matches!(e.kind(), Kind::State | Kind::NotFound) => Ok(()),
        done => done,
    })
}

fn send(container: &Container, signal: i32, all: bool) -> Result<()> {
    let mut whole = all || (signal == process::SIGKILL && !container.saved.private_pid);
    if whole && !container.saved.private_pid && container.saved.cgroup_paths.is_empty() {
        warn!(
            "the container has no cgroup and no pid namespace: only its first process can be found (delegate a cgroup to its user)"
        );
        whole = false;
    }
    match container.pidfd() {
        // Without a pid namespace of their own, processes outlive the init.
        Err(e) if e.kind() == Kind::State && whole => container.cgroup().signal(signal),
        Err(e) => Err(e),
        Ok(_) if whole && !container.saved.private_pid => container.cgroup().signal(signal),
        Ok(pidfd) => {
            match process::pidfd_signal(pidfd.as_fd(), signal) {
                Err(Errno::ESRCH) => return Err(Error::new(Kind::State, "container not running")),
                other => other.on("pidfd_send_signal", container.saved.init_process_pid)?,
            }
            // On v1 a frozen process takes no signal, not even this one: it must go, so it is thawed.
            if signal == process::SIGKILL && container.status()? == Status::Paused {
                container.cgroup().freeze(false)?;
            }
            Ok(())
        }
    }
}

/// The signals of x86 and arm by name (signal(7)).
const NAMES: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// The number of a signal as typed. RTMIN+n and RTMAX-n are those of the C libraries (signal(7)).
fn number(text: &str) -> Result<i32> {
    let unknown = || {
        invalid("signal", format!("unknown signal {text:?}"))
            .hint("see `kill -l` for the names; RTMIN+n and RTMAX-n are taken too")
    };
    if let Ok(n) = text.parse::<i32>() {
        return (0..=RT_MAX).contains(&n).then_some(n).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, n)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*n);
    }
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign).and_then(|n| n.parse::<i32>().ok()),
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest, '+').map(|n| RT_MIN + n),
        (_, Some(rest)) => offset(rest, '-').map(|n| RT_MAX - n),
        _ => None,
    };
    real_time.filter(|n| (RT_MIN..=RT_MAX).contains(n)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, n) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("0", 0),
            ("RTMIN+3", 37),
            ("SIGRTMAX", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(number(text).unwrap(), n, "{text}");
        }
        for bad in ["", "SIG", "65", "-1", "NOPE", "RTMIN-1", "RTMIN+31", "RTMAX+1"] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }
}
