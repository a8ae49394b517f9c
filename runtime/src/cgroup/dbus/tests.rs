use super::*;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The other end of a connection: what it has been told, and what it says.
struct Peer {
    stream: UnixStream,
    heard: Vec<u8>,
}

/// A connection with somebody at its end who does what `peer` does.
fn with(bus: bool, peer: impl FnOnce(&mut Peer) + Send + 'static) -> (Connection, std::thread::JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test; its other end must run beside it")]
    let thread = std::thread::spawn(move || peer(&mut Peer { stream: theirs, heard: Vec::new() }));
    let connection =
        Connection::of(File::from(OwnedFd::from(ours)), Address { socket: b"fake".to_vec(), bus }).unwrap();
    (connection, thread)
}

impl Peer {
    /// The next message.
    fn hear(&mut self) -> Message {
        let mut page = [0; 4096];
        loop {
            if let Some((message, length)) = Message::decode(&self.heard, |_| true).ok().flatten() {
                self.heard.drain(..length);
                return message;
            }
            let n = self.stream.read(&mut page).unwrap();
            assert_ne!(n, 0, "the client has gone");
            self.heard.extend_from_slice(&page[..n]);
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn accept(&mut self) {
        self.be_greeted();
        self.say(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n");
    }

    fn be_greeted(&mut self) {
        let mut words = vec![0; AUTHENTICATION.len()];
        self.stream.read_exact(&mut words).unwrap();
        assert_eq!(words, AUTHENTICATION);
        // systemd would not see a message that came with it.
        self.stream.set_nonblocking(true).unwrap();
        assert_eq!(self.stream.read(&mut [0]).unwrap_err().kind(), Io::WouldBlock);
        self.stream.set_nonblocking(false).unwrap();
    }
}

fn reply(to: &Message, body: Vec<Value>) -> Message {
    Message {
        kind: Kind::Reply,
        serial: 1,
        reply_to: to.serial,
        sender: ":1.1".into(),
        body,
        ..Message::call("", "", "", "", Vec::new())
    }
}

fn refusal(to: &Message) -> Message {
    let message = reply(to, vec![Value::text("Unit x.scope not loaded.")]);
    Message { kind: Kind::Error, error: "org.freedesktop.systemd1.NoSuchUnit".into(), ..message }
}

fn removed(job: &str, result: &str, sender: &str) -> Message {
    let body = vec![Value::U32(7), Value::Path(job.into()), Value::text("x.scope"), Value::text(result)];
    Message {
        kind: Kind::Signal,
        serial: 1,
        sender: sender.into(),
        ..Message::call("", OBJECT, MANAGER, "JobRemoved", body)
    }
}

#[test]
fn a_call_is_answered_and_its_job_waited_for() {
    let (mut connection, peer) = with(false, |peer| {
        peer.accept();
        let call = peer.hear();
        assert_eq!((call.member.as_str(), call.destination.as_str()), ("StartTransientUnit", ""));
        // A signal of somebody else's, the end of another job, ours before the answer: the order is systemd's.
        let mut other = removed("/job/1", "done", ":1.1");
        other.member = "UnitNew".into();
        for message in [
            other,
            removed("/job/1", "failed", ":1.1"),
            removed("/job/2", "done", ":1.1"),
            reply(&call, vec![Value::Path("/job/2".into())]),
        ] {
            peer.say(&message.encode().unwrap());
        }
    });
    let (answer, sender) = connection.call("StartTransientUnit", vec![Value::text("x.scope")]).unwrap();
    assert_eq!((answer[0].as_text(), sender.as_str()), (Some("/job/2"), ":1.1"));
    assert_eq!(connection.job("/job/2", &sender).unwrap(), "done");
    peer.join().unwrap();
}

#[test]
fn on_a_bus_it_says_hello_and_asks_for_signals_first() {
    let (mut connection, peer) = with(true, |peer| {
        peer.accept();
        let (hello, matched, call) = (peer.hear(), peer.hear(), peer.hear());
        assert_eq!((hello.member.as_str(), hello.destination.as_str()), ("Hello", "org.freedesktop.DBus"));
        assert_eq!((matched.member.as_str(), matched.answered), ("AddMatch", false));
        assert_eq!((call.member.as_str(), call.destination.as_str()), ("StopUnit", SYSTEMD));
        peer.say(&reply(&hello, vec![Value::text(":1.9")]).encode().unwrap());
        // Not from the one who answers: it does not count.
        peer.say(&removed("/job/3", "failed", ":1.66").encode().unwrap());
        peer.say(&reply(&call, vec![Value::Path("/job/3".into())]).encode().unwrap());
        peer.say(&removed("/job/3", "done", ":1.1").encode().unwrap());
    });
    let (_, sender) = connection.call("StopUnit", Vec::new()).unwrap();
    assert_eq!(connection.job("/job/3", &sender).unwrap(), "done");
    peer.join().unwrap();
}

/// D-Bus Specification, "Message Protocol": unknown types must be ignored; and each message has an order of its own.
#[test]
fn messages_that_are_not_understood_are_passed_over() {
    let (mut connection, peer) = with(false, |peer| {
        peer.accept();
        let call = peer.hear();
        let mut later = removed("/job/4", "failed", ":1.1").encode().unwrap();
        later[1] = 5;
        // As if it were the answer, in the other order: a body of 5 bytes, serial 1, a header field of 8 bytes.
        let other = b"B\x02\0\x01\0\0\0\x05\0\0\0\x01\0\0\0\x08\x05\x01u\0\0\0\0\x01hello";
        for bytes in [&later, &other[..], &later] {
            peer.say(bytes);
        }
        peer.say(&reply(&call, vec![Value::Path("/job/4".into())]).encode().unwrap());
        for bytes in [&other[..], &later] {
            peer.say(bytes);
        }
        peer.say(&removed("/job/4", "done", ":1.1").encode().unwrap());
    });
    let (_, sender) = connection.call("StopUnit", Vec::new()).unwrap();
    assert_eq!(connection.job("/job/4", &sender).unwrap(), "done");
    peer.join().unwrap();
}

#[test]
fn answers_may_come_in_any_pieces() {
    let (mut connection, peer) = with(false, |peer| {
        peer.be_greeted();
        for byte in b"DATA\r\nOK 0\r\n" {
            peer.say(&[*byte]);
        }
        let call = peer.hear();
        let bytes = reply(&call, vec![Value::variant(Value::text("/user.slice"))]).encode().unwrap();
        for byte in bytes {
            peer.say(&[byte]);
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    assert_eq!(connection.property("ControlGroup").unwrap(), "/user.slice");
    peer.join().unwrap();
}

#[test]
fn a_refusal_keeps_its_name_and_words() {
    let (mut connection, peer) = with(false, |peer| {
        peer.accept();
        let call = peer.hear();
        peer.say(&refusal(&call).encode().unwrap());
    });
    match connection.call("StopUnit", Vec::new()).unwrap_err() {
        Failure::Refused(name, why) => {
            assert_eq!(
                (name.as_str(), why.as_str()),
                ("org.freedesktop.systemd1.NoSuchUnit", "Unit x.scope not loaded.")
            );
        }
        Failure::Broken(e) => panic!("{e}"),
    }
    peer.join().unwrap();
}

fn broken(patience: Duration, peer: impl FnOnce(&mut Peer) + Send + 'static) -> String {
    let (mut connection, peer) = with(false, peer);
    connection.patience = patience;
    let error = match connection.call("StopUnit", Vec::new()) {
        Err(Failure::Broken(e)) => e.to_string(),
        other => panic!("{other:?}"),
    };
    peer.join().unwrap();
    error
}

#[test]
fn a_peer_that_fails_us_is_an_error_that_says_how() {
    for (peer, expected) in [
        (
            Box::new(|p: &mut Peer| {
                p.accept();
                p.hear();
            }) as Box<dyn FnOnce(&mut Peer) + Send>,
            "the connection has been closed",
        ),
        (Box::new(|p: &mut Peer| p.say(b"REJECTED EXTERNAL\r\n")), "authentication: \"REJECTED EXTERNAL\""),
        (Box::new(|p: &mut Peer| p.say(&[b'x'; 600])), "an endless line"),
        (
            Box::new(|p: &mut Peer| {
                p.accept();
                p.say(&[0; 64]);
            }),
            "malformed D-Bus message: byte order or version",
        ),
        (
            Box::new(|p: &mut Peer| {
                p.accept();
                p.say(b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0");
            }),
            "malformed D-Bus message: length",
        ),
    ] {
        let error = broken(PATIENCE, peer);
        // The write may meet a closed socket before the read meets its end.
        assert!(error.contains(expected) || error.contains("EPIPE") || error.contains("ECONNRESET"), "{error}");
        assert!(error.contains("\"fake\""), "{error}");
    }
}

#[test]
fn nobody_is_waited_for_without_end() {
    let started = Instant::now();
    let error = broken(Duration::from_millis(300), |peer| {
        peer.accept();
        peer.hear();
        std::thread::sleep(Duration::from_millis(1500));
    });
    assert!(error.starts_with("systemd does not answer within 0 s: StopUnit; hint: "), "{error}");
    // The deadline, and what joining the peer takes.
    assert!(started.elapsed() < Duration::from_secs(5));
    // A job that never ends, while signals keep coming.
    let (mut connection, peer) = with(false, |peer| {
        peer.accept();
        let call = peer.hear();
        peer.say(&reply(&call, vec![Value::Path("/job/1".into())]).encode().unwrap());
        for _ in 0..40 {
            peer.stream.write_all(&removed("/job/2", "done", ":1.1").encode().unwrap()).ok();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    connection.patience = Duration::from_millis(700);
    let (_, sender) = connection.call("StopUnit", Vec::new()).unwrap();
    let error = connection.job("/job/1", &sender).unwrap_err().to_string();
    assert!(error.starts_with("systemd does not answer within"), "{error}");
    drop(connection);
    peer.join().unwrap();
}

#[test]
fn addresses_are_those_of_the_environment() {
    let of = |pairs: &'static [(&str, &str)]| {
        move |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
    };
    let shown = |all: Vec<Address>| {
        all.iter().map(|a| format!("{}{}", if a.bus { "bus " } else { "" }, a.shown())).collect::<Vec<_>>()
    };
    assert_eq!(shown(system(of(&[]))), ["/run/systemd/private", "bus /run/dbus/system_bus_socket"]);
    assert_eq!(shown(system(of(&[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x")]))), ["/run/systemd/private", "bus /x"]);
    assert_eq!(shown(user(of(&[]))), Vec::<String>::new());
    assert_eq!(
        shown(user(of(&[("XDG_RUNTIME_DIR", "/run/user/5")]))),
        ["/run/user/5/systemd/private", "bus /run/user/5/bus"]
    );
    let both = user(of(&[
        ("XDG_RUNTIME_DIR", "/r"),
        ("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x;unix:path=/a%20b%2c,guid=1;unix:abstract=/tmp/z,guid=2;unix:dir=/q"),
    ]));
    assert_eq!(shown(both), ["/r/systemd/private", "bus /a b,", "bus @/tmp/z"]);
}

#[test]
fn nobody_there_is_told_with_the_address() {
    let e = Connection::open(&[Address { socket: b"/nonexistent/bus".to_vec(), bus: true }]).unwrap_err().to_string();
    assert!(e.starts_with("--systemd-cgroup: connect \"/nonexistent/bus\": ENOENT"), "{e}");
}
