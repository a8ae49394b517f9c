//! Entries of the host's journal (systemd's native protocol, JOURNAL_NATIVE_PROTOCOL) and of syslog (RFC 3164), one datagram each.

use crate::error::{On, Result};
use log::Level;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// The facility of user programs (syslog(3), LOG_USER).
const USER: u8 = 1 << 3;

/// A socket each write to which is one entry.
#[derive(Debug)]
pub(super) struct Datagrams(UnixDatagram);

impl Write for Datagrams {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.0.send(entry)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The journal of this host.
pub(super) fn journal() -> Result<Datagrams> {
    connect(Path::new(JOURNAL))
}

/// The syslog daemon of this host.
pub(super) fn syslog() -> Result<Datagrams> {
    connect(Path::new(SYSLOG))
}

fn connect(path: &Path) -> Result<Datagrams> {
    let made = || {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Datagrams(socket))
    };
    let made: io::Result<Datagrams> = made();
    made.on("connect to", path.display()).map_err(|e| e.at("--log"))
}

/// A level as syslog(3) numbers it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

pub(super) fn journal_entry(id: &str, level: Level, message: &str) -> Vec<u8> {
    let mut entry = format!("PRIORITY={}\n", priority(level)).into_bytes();
    for (field, value) in [("SYSLOG_IDENTIFIER", id), ("ID", id), ("MESSAGE", message)] {
        // With its length before it, a value may have several lines.
        entry.extend_from_slice(format!("{field}\n").as_bytes());
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

/// Without a time, which the daemon then sets: ours would have to be that of the host's time zone.
pub(super) fn syslog_entry(id: &str, level: Level, message: &str) -> Vec<u8> {
    format!("<{}>{id}[{}]: {message}", USER | priority(level), std::process::id()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut log = connect(&path).unwrap();
        log.write_all(&syslog_entry("web", Level::Error, "two\nlines")).unwrap();
        log.write_all(&journal_entry("web", Level::Warn, "a\nb")).unwrap();
        let mut buffer = [0; 256];
        let n = daemon.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..n], *format!("<11>web[{}]: two\nlines", std::process::id()).as_bytes());
        let n = daemon.recv(&mut buffer).unwrap();
        let mut want = b"PRIORITY=4\nSYSLOG_IDENTIFIER\n\x03\0\0\0\0\0\0\0web\n".to_vec();
        want.extend_from_slice(b"ID\n\x03\0\0\0\0\0\0\0web\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
        assert_eq!(buffer[..n], *want);
    }

    #[test]
    fn a_daemon_that_is_not_there_is_named() {
        let error = connect(Path::new("/nonexistent/log")).unwrap_err().to_string();
        assert!(error.starts_with("--log: connect to /nonexistent/log: ENOENT"), "{error}");
    }
}
