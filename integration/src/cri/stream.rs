//! The streams of Exec, Attach and PortForward: WebSocket, with one byte for the channel before each message.

use crate::wait::SOON;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

const PROTOCOL: &str = "v4.channel.k8s.io";

/// Channels of Exec and Attach.
pub const STDIN: u8 = 0;
/// See [`STDIN`].
pub const STDOUT: u8 = 1;
/// See [`STDIN`].
pub const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocket<TcpStream>,
    received: BTreeMap<u8, Vec<u8>>,
    open: bool,
}

/// A connection made in the network namespace of the process `pid`.
pub fn connect(pid: u32, address: &str) -> std::io::Result<TcpStream> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let address = address.to_owned();
    // A thread of its own: the namespace is that of a thread, and ends with it.
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect(address)
    });
    thread.join().expect("a thread that does not panic")
}

impl Stream {
    /// Opens the address that containerd gave, which the process `pid` could reach.
    pub fn open(pid: u32, url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not http: {url}"));
        let (host, _) = rest.split_once('/').unwrap_or_else(|| panic!("no path: {url}"));
        let tcp = connect(pid, host).unwrap_or_else(|e| panic!("{url}: {e}"));
        let mut request = format!("ws://{rest}").into_client_request().expect("a request");
        request.headers_mut().insert("Sec-WebSocket-Protocol", PROTOCOL.parse().expect("a header"));
        let (socket, _) = tungstenite::client(request, tcp).unwrap_or_else(|e| panic!("{url}: {e}"));
        Self { socket, received: BTreeMap::new(), open: true }
    }

    /// Sends bytes on a channel.
    pub fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.socket.send(Message::binary(message)).unwrap_or_else(|e| panic!("channel {channel}: {e}"));
    }

    /// Sets the size of the terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.send(RESIZE, json!({ "Width": columns, "Height": rows }).to_string().as_bytes());
    }

    /// All that came on a channel so far.
    pub fn received(&self, channel: u8) -> String {
        String::from_utf8_lossy(self.received.get(&channel).map_or(&[][..], Vec::as_slice)).into_owned()
    }

    /// Reads until the text has come on the channel.
    pub fn expect(&mut self, channel: u8, text: &str) {
        assert!(self.try_expect(channel, text, SOON), "no {text:?} on channel {channel}: {:?}", self.said());
    }

    /// Whether the text comes on the channel within the time.
    pub fn try_expect(&mut self, channel: u8, text: &str, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.received(channel).contains(text) {
            if !self.open || Instant::now() >= end {
                return false;
            }
            self.read(end);
        }
        true
    }

    /// Reads until the stream is closed by the server.
    pub fn to_the_end(&mut self) {
        let end = Instant::now() + SOON;
        while self.open {
            assert!(Instant::now() < end, "the stream does not end: {:?}", self.said());
            self.read(end);
        }
    }

    /// Closes it, as a client that has no more to say, and no more to hear.
    pub fn close(mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }

    /// The exit status that came at the end.
    pub fn exit_code(&mut self) -> i32 {
        self.to_the_end();
        let text = self.received(ERROR);
        let status: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {:?}", self.said()));
        if status["status"] == "Success" {
            return 0;
        }
        let causes = status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let code =
            causes.iter().find(|cause| cause["reason"] == "ExitCode").and_then(|cause| cause["message"].as_str());
        code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no exit code: {text}"))
    }

    /// Takes one message, if one comes before the end of the time.
    fn read(&mut self, end: Instant) {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.get_ref().set_read_timeout(Some(left)).expect("a time limit");
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => {
                if let Some((channel, rest)) = bytes.split_first() {
                    self.received.entry(*channel).or_default().extend_from_slice(rest);
                }
            }
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                self.open = false;
            }
            Ok(_) => {}
            Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{e}; so far {:?}", self.said()),
        }
    }

    fn said(&self) -> BTreeMap<u8, String> {
        self.received.keys().map(|channel| (*channel, self.received(*channel))).collect()
    }
}
