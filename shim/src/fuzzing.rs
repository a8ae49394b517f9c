//! The door to what the daemon makes of the bytes on its socket, for the target `ttrpc` of `runtime/fuzz`. Only that is compiled with it.
//!
//! It is the daemon's own server with its own services. What they would do to the host is cut off in four places (`cfg!(fuzzing)`): no worker is
//! forked ([`crate::worker`]), no stream is opened ([`crate::io`]), no file named by options is read ([`crate::options`]), and a container
//! is taken for made when its request has been understood ([`crate::container`]).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a fuzz target")]

use crate::connections::{Count, Incoming};
use crate::container::{Held, Shim};
use crate::events::Events;
use crate::handlers::Requests;
use crate::{sandbox, serve, task};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::asynchronous::{Server, transport::Listener};
use containerd_shim_protos::ttrpc::{Request, Response};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

/// Rounds of the event loop in which all is done that is not waited for.
const ROUNDS: usize = 48;
/// Of a frame: the length of what follows, the stream's number, the kind, flags.
const HEADER: usize = 10;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// What comes over one connection. After an even byte: the rest as it is. After an odd one: requests, each of which is a byte for the method,
/// two for the length and so many of the message.
pub fn ttrpc(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap().block_on(async {
        let (mut client, server) = connect().await;
        let bytes = if kind % 2 == 0 { rest.to_vec() } else { requests(rest, &server.methods) };
        // All of it fits into the socket: libFuzzer's inputs are not that long.
        client.write_all(&bytes).unwrap();
        for _ in 0..ROUNDS {
            tokio::task::yield_now().await;
        }
        answers(&mut client);
    });
}

struct Daemon {
    _server: Server,
    methods: Vec<(String, String)>,
}

async fn connect() -> (UnixStream, Daemon) {
    let name = SocketAddr::from_abstract_name(format!("orlop-fuzz-{}", std::process::id())).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let (events, _) = Events::new(String::new(), "fuzz".to_string());
    let held = Mutex::new(Held::Never);
    let shim = Arc::new(Shim { namespace: "fuzz".to_string(), events, reaper: Arc::default(), sandbox: held });
    let service = task::Service::new(shim.clone());
    let tasks = service.clone();
    let sandbox = sandbox::Service::new(shim, Arc::new(move || tasks.end_if_unused()));
    let services = serve::services(&service, sandbox, &Requests::default());
    let mut methods: Vec<_> = services
        .iter()
        .flat_map(|(service, all)| all.methods.keys().map(|method| (service.clone(), method.clone())))
        .collect();
    methods.sort();
    let listener = Listener::new(Incoming::new(listener, Count::default()));
    let mut server = Server::new().add_listener(listener).register_service(services);
    server.start().await.unwrap();
    let client = UnixStream::connect_addr(&name).unwrap();
    (client, Daemon { _server: server, methods })
}

fn requests(mut rest: &[u8], methods: &[(String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Clients number their streams by odd numbers.
    let mut stream = 1u32;
    while let [method, low, high, tail @ ..] = rest {
        let (payload, next) = tail.split_at(tail.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        let (service, method) = methods[usize::from(*method) % methods.len()].clone();
        let request = Request { service, method, payload: payload.to_vec(), ..Default::default() };
        let request = request.write_to_bytes().unwrap();
        bytes.extend((request.len() as u32).to_be_bytes());
        bytes.extend(stream.to_be_bytes());
        bytes.extend([REQUEST, 0]);
        bytes.extend(request);
        (stream, rest) = (stream + 2, next);
    }
    bytes
}

/// Whatever was asked, what is answered are whole responses of the protocol.
fn answers(client: &mut UnixStream) {
    client.set_nonblocking(true).unwrap();
    let mut said = Vec::new();
    let end = client.read_to_end(&mut said);
    let mut rest = &said[..];
    while let Some((header, tail)) = rest.split_at_checked(HEADER) {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        assert_eq!(header[8], RESPONSE, "{header:?}");
        let (response, next) = tail.split_at_checked(length).unwrap_or_else(|| panic!("cut off: {header:?}, {end:?}"));
        Response::parse_from_bytes(response).unwrap();
        rest = next;
    }
    assert!(rest.is_empty(), "{rest:?}");
    assert!(end.is_ok() || end.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset)));
}
