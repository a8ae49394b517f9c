//! A D-Bus client for one conversation with systemd: no thread, no round trip that is not needed, and a deadline for every wait.
//!
//! systemd answers on a socket of its own, which saves the way through the bus, and on the bus, where containers and sandboxes
//! that share nothing else may find it. Two times something is sent and waited for: the words of the authentication, then those
//! to the bus together with the first call. Not all at once: systemd's library does not look at
//! a whole message that it has read together with the authentication until more comes in (seen with 257).

mod wire;

pub use wire::{Kind, Message, Value, complete};

use crate::error::{Error, Kind as ErrorKind, On, Result};
use orlop_sys::poll::{READ, WRITE, poll};
use orlop_sys::{Errno, socket};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Who is asked.
const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long one call and all that it waits for may take; a busy systemd needs seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// EXTERNAL without an identity: the peer takes the one that the kernel tells it, also across user namespaces.
const AUTHENTICATION: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

/// Without this a bus would not pass on the end of a job.
const JOBS: &str =
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// An address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A path, or a NUL byte and an abstract name.
    pub socket: Vec<u8>,
    /// Whether a bus is there, or systemd itself.
    pub bus: bool,
}

impl Address {
    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.socket).replace('\0', "@")
    }
}

/// Why a call has failed.
#[derive(Debug)]
pub enum Failure {
    /// systemd (or the bus) has refused it: the error's name and message.
    Refused(String, String),
    /// It could not be asked, or did not answer in time.
    Broken(Error),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: File,
    address: Address,
    /// Read, but not yet taken apart.
    input: Vec<u8>,
    /// To be written with the next call.
    output: Vec<u8>,
    authenticated: bool,
    serial: u32,
    /// The ends of jobs that came before somebody asked: (object path, result, sender).
    jobs: VecDeque<(String, String, String)>,
    deadline: Instant,
    patience: Duration,
}

impl Connection {
    /// Connects to the first of the addresses on which somebody listens.
    ///
    /// # Errors
    /// Nobody listens on any of them.
    pub fn open(addresses: &[Address]) -> Result<Connection> {
        let deadline = Instant::now() + PATIENCE;
        let mut failed = Vec::new();
        for address in addresses {
            match connect(&address.socket, deadline) {
                Ok(stream) => return Connection::of(stream, address.clone()),
                Err(errno) => failed.push(errno.on("connect", format!("{:?}", address.shown()))),
            }
        }
        let none = || Error::new(ErrorKind::System, "there is no socket of systemd to connect to");
        let e = failed.into_iter().reduce(Error::also).unwrap_or_else(none);
        Err(e.at("--systemd-cgroup").hint("systemd must run here; without it use the cgroupfs driver"))
    }

    fn of(stream: File, address: Address) -> Result<Connection> {
        let mut connection = Connection {
            stream,
            address,
            input: Vec::new(),
            output: Vec::new(),
            authenticated: false,
            serial: 0,
            jobs: VecDeque::new(),
            deadline: Instant::now() + PATIENCE,
            patience: PATIENCE,
        };
        if connection.address.bus {
            for (member, body, answered) in [("Hello", Vec::new(), true), ("AddMatch", vec![Value::text(JOBS)], false)]
            {
                let name = "org.freedesktop.DBus";
                let call = Message::call(name, "/org/freedesktop/DBus", name, member, body);
                connection.queue(Message { answered, ..call })?;
            }
        }
        Ok(connection)
    }

    /// Calls a method of systemd's manager and waits for the answer's values.
    pub fn call(&mut self, member: &str, body: Vec<Value>) -> std::result::Result<(Vec<Value>, String), Failure> {
        self.method(OBJECT, MANAGER, member, body)
    }

    /// Asks for a property of systemd's manager that is a text.
    pub fn property(&mut self, name: &str) -> std::result::Result<String, Failure> {
        let body = vec![Value::text(MANAGER), Value::text(name)];
        let (answer, _) = self.method(OBJECT, "org.freedesktop.DBus.Properties", "Get", body)?;
        let text = answer.first().and_then(Value::as_text).map(str::to_string);
        text.ok_or_else(|| Failure::Broken(self.strange("a property that is no text")))
    }

    fn method(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> std::result::Result<(Vec<Value>, String), Failure> {
        self.deadline = Instant::now() + self.patience;
        self.authenticate(member).map_err(Failure::Broken)?;
        let destination = if self.address.bus { SYSTEMD } else { "" };
        let call = self.queue(Message::call(destination, path, interface, member, body));
        let serial = call.map_err(Failure::Broken)?;
        let output = std::mem::take(&mut self.output);
        self.write(&output, member).map_err(Failure::Broken)?;
        loop {
            let message = self.next(member).map_err(Failure::Broken)?;
            if message.reply_to != serial {
                self.note(message);
                continue;
            }
            match message.kind {
                Kind::Reply => return Ok((message.body, message.sender)),
                _ => {
                    let why = message.body.first().and_then(Value::as_text).unwrap_or("no reason given");
                    return Err(Failure::Refused(message.error, why.to_string()));
                }
            }
        }
    }

    /// Waits for the end of a job and gives its result; the time counts from the call that began it.
    pub fn job(&mut self, job: &str, sender: &str) -> Result<String> {
        loop {
            // On a bus anybody can send a signal: that of the one who answered counts.
            while let Some((path, result, by)) = self.jobs.pop_front() {
                if path == job && by == sender {
                    return Ok(result);
                }
            }
            let message = self.next("JobRemoved")?;
            self.note(message);
        }
    }

    fn note(&mut self, message: Message) {
        if let (true, [Value::U32(_), job, _, result]) = (is_job(&message), message.body.as_slice())
            && let (Some(job), Some(result)) = (job.as_text(), result.as_text())
        {
            self.jobs.push_back((job.to_string(), result.to_string(), message.sender.clone()));
        }
    }

    fn queue(&mut self, mut message: Message) -> Result<u32> {
        self.serial += 1;
        message.serial = self.serial;
        let bytes = message.encode().map_err(|e| Error::new(ErrorKind::Invalid, format!("{}: {e}", message.member)))?;
        self.output.extend(bytes);
        Ok(self.serial)
    }

    fn write(&mut self, mut bytes: &[u8], call: &str) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == Io::WouldBlock => self.wait(WRITE, call)?,
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) => return Err(e).on("write to", format!("{:?}", self.address.shown())),
            }
        }
        Ok(())
    }

    /// The next message.
    fn next(&mut self, call: &str) -> Result<Message> {
        loop {
            let wanted = |m: &Message| m.kind != Kind::Signal || is_job(m);
            let found = Message::decode(&self.input, wanted).map_err(|e| self.strange(&e.to_string()))?;
            if let Some((message, length)) = found {
                self.input.drain(..length);
                return Ok(message);
            }
            self.read(call)?;
        }
    }

    fn read(&mut self, call: &str) -> Result<()> {
        self.left(call)?;
        let mut page = [0; 8192];
        match self.stream.read(&mut page) {
            Ok(0) => Err(self.strange("the connection has been closed")),
            Ok(n) => {
                self.input.extend_from_slice(page.get(..n).unwrap_or_default());
                Ok(())
            }
            Err(e) if e.kind() == Io::WouldBlock => self.wait(READ, call),
            Err(e) if e.kind() == Io::Interrupted => Ok(()),
            Err(e) => Err(e).on("read from", format!("{:?}", self.address.shown())),
        }
    }

    fn authenticate(&mut self, call: &str) -> Result<()> {
        if self.authenticated {
            return Ok(());
        }
        self.write(AUTHENTICATION, call)?;
        while !self.accepted()? {
            self.read(call)?;
        }
        self.authenticated = true;
        Ok(())
    }

    /// The lines before the first message: true when the peer has accepted us.
    fn accepted(&mut self) -> Result<bool> {
        while let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            let line = String::from_utf8_lossy(&line);
            match line.split_ascii_whitespace().next() {
                Some("OK") => return Ok(true),
                Some("DATA") => {}
                _ => return Err(self.strange(&format!("authentication: {:?}", line.trim_end()))),
            }
        }
        match self.input.len() {
            0..512 => Ok(false),
            _ => Err(self.strange("an endless line")),
        }
    }

    /// The time that is left, also while other messages keep coming.
    fn left(&self, call: &str) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = format!("systemd does not answer within {} s: {call}", self.patience.as_secs());
            return Err(Error::new(ErrorKind::System, why).hint("see what it is busy with: systemctl list-jobs"));
        }
        Ok(left)
    }

    fn wait(&self, events: i16, call: &str) -> Result<()> {
        let ms = self.left(call)?.as_millis().min(60_000) as i32 + 1;
        poll([(Some(self.stream.as_fd()), events)], ms).on("poll", self.address.shown()).map(drop)
    }

    fn strange(&self, why: &str) -> Error {
        Error::new(ErrorKind::System, format!("systemd on {:?}: {why}", self.address.shown()))
    }
}

fn is_job(message: &Message) -> bool {
    message.kind == Kind::Signal && message.member == "JobRemoved" && message.interface == MANAGER
}

fn connect(address: &[u8], deadline: Instant) -> std::result::Result<File, Errno> {
    loop {
        match socket::connect(address) {
            // Many at once, or a systemd that is busy: its queue takes more in a moment.
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            other => return other.map(File::from),
        }
    }
}

/// The addresses of the host's systemd. `environment` is that of the process.
pub fn system(environment: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let mut all = vec![Address { socket: b"/run/systemd/private".to_vec(), bus: false }];
    let named = environment("DBUS_SYSTEM_BUS_ADDRESS").filter(|text| !text.is_empty());
    all.extend(parse(named.as_deref().unwrap_or("unix:path=/run/dbus/system_bus_socket")));
    all
}

/// The addresses of the systemd of a user.
pub fn user(environment: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let set = |name: &str| environment(name).filter(|text| !text.is_empty());
    let mut all = Vec::new();
    let directory = set("XDG_RUNTIME_DIR");
    let below = |name: &str| directory.iter().map(|dir| Path::new(dir).join(name)).collect::<Vec<_>>();
    let plain = |path: std::path::PathBuf| path.into_os_string().into_encoded_bytes();
    all.extend(below("systemd/private").into_iter().map(|path| Address { socket: plain(path), bus: false }));
    match set("DBUS_SESSION_BUS_ADDRESS") {
        Some(text) => all.extend(parse(&text)),
        None => all.extend(below("bus").into_iter().map(|path| Address { socket: plain(path), bus: true })),
    }
    all
}

/// The sockets of a list of addresses (D-Bus Specification, "Server Addresses"); other transports are left out.
fn parse(text: &str) -> Vec<Address> {
    let unix = text.split(';').filter_map(|one| one.strip_prefix("unix:"));
    let socket = |keys: &str| {
        keys.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", path) => Some(unescaped(path)),
            ("abstract", name) => Some([b"\0".as_slice(), &unescaped(name)].concat()),
            _ => None,
        })
    };
    unix.filter_map(socket).map(|socket| Address { socket, bus: true }).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok();
        match after.split_at_checked(2).and_then(|(hex, after)| Some((code(hex)?, after))).filter(|_| *first == b'%') {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
