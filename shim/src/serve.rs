//! The daemon: one thread, one loop.

use crate::connections::{Count, Incoming};
use crate::container::{Held, Shim};
use crate::events::Events;
use crate::handlers::{Requests, to_the_end};
use crate::ready::{Ready, next_rounds};
use crate::reaper::Reaper;
use crate::sandbox;
use crate::task::Service;
use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::asynchronous::{self as ttrpc, Server, transport::Listener};
use orlop_sys::signal::{self, Signals};
use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The names of the Task API's versions: their methods and messages are the same.
const VERSIONS: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// How long to stay without a container, a sandbox and a client. containerd connects as soon as it has been told where, and keeps the connection
/// as long as it needs the daemon: what has passed after a minute is not its haste on a busy host, but its end.
const ALONE: Duration = Duration::from_secs(60);
/// How long requests that were begun may take when a signal asks for the end: those that take longer wait for a hook or a reader, maybe for ever.
const BEGUN: Duration = Duration::from_secs(30);
/// How long clients may take to close their connections when they have their answers: Go's ttrpc may take the end of a connection that it sees
/// together with an answer for a failure.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long the last events may take on their way out.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Serves until containerd says that it is over, or a signal does.
pub fn serve(listener: UnixListener, socket: &Path, namespace: &str, events: String) -> Result<(), String> {
    let bound = Bound(socket);
    let signals = Signals::block().map_err(|e| format!("signalfd: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| format!("event loop: {e}"))?;
    runtime.block_on(run(listener, signals, bound, namespace.to_string(), events))
}

/// The socket's file, which goes with the value: once, as the next one of that name is a successor's.
struct Bound<'a>(&'a Path);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

async fn run(
    listener: UnixListener,
    signals: Signals,
    bound: Bound<'_>,
    namespace: String,
    address: String,
) -> Result<(), String> {
    let failed = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    listener.set_nonblocking(true).map_err(failed("listener"))?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed("listener"))?;
    let signals = Ready::new(signals).map_err(failed("signalfd"))?;
    let (events, sender) = Events::new(address, namespace.clone());
    let reaper = Arc::new(Reaper::default());
    let sandbox = Mutex::new(Held::Never);
    let shim = Arc::new(Shim { namespace, events, reaper: reaper.clone(), sandbox });
    let service = Service::new(shim.clone());
    let (connections, requests) = (Count::default(), Requests::default());
    let mut server = Server::new().add_listener(Listener::new(Incoming::new(listener, connections.clone())));
    let tasks = service.clone();
    let sandbox = sandbox::Service::new(shim, Arc::new(move || tasks.end_if_unused()));
    server = server.register_service(services(&service, sandbox, &requests));
    server.start().await.map_err(|e| format!("server: {e}"))?;
    until_over(&service, &connections, signals, &reaper).await?;
    // While the listener is there, a new daemon of the same group would find it in use; the last events take their time.
    drop(bound);
    // What comes from now on is not begun: it would be cut off.
    let none = tokio::time::timeout(BEGUN, requests.write()).await;
    // The answer to the request for the end goes out before the connections close: through the tasks of the handler, of the connection
    // and of its writer, each of which has its turn in a round of this loop.
    next_rounds().await;
    let mut connected = connections.subscribe();
    let _ = tokio::time::timeout(GOODBYE, connected.wait_for(|count| *count == 0)).await;
    // Connections wait for their requests, which has been done.
    if none.is_ok() {
        let _ = server.shutdown().await;
    }
    drop((server, service));
    // Its queue has no sender any more: it ends when all has been sent.
    let _ = tokio::time::timeout(LAST_EVENTS, sender).await;
    Ok(())
}

/// What is asked for by which name.
pub fn services(service: &Service, sandbox: sandbox::Service, requests: &Requests) -> HashMap<String, ttrpc::Service> {
    let tasks = VERSIONS.into_iter().flat_map(|version| {
        let methods = create_task(Arc::new(service.clone())).into_values();
        methods.map(move |methods| (version.to_string(), methods))
    });
    let all = tasks.chain(create_sandbox(Arc::new(sandbox)));
    all.map(|(name, methods)| (name, to_the_end(methods, requests))).collect()
}

/// Returns when the daemon is to end: containerd says so or has left it behind, or there is a signal. Meanwhile orphans are reaped.
async fn until_over(
    service: &Service,
    connections: &Count,
    signals: Ready<Signals>,
    reaper: &Reaper,
) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("signalfd: {e}");
    let mut over = service.over();
    let left_behind = service.left_behind(connections, ALONE);
    tokio::pin!(left_behind);
    loop {
        tokio::select! {
            _ = over.wait_for(|over| *over) => return Ok(()),
            () = &mut left_behind => return Ok(()),
            ready = signals.readable() => {
                ready.map_err(failed)?;
                let mut ended = false;
                while let Some(number) = signals.get().next().map_err(|e| format!("signalfd: {e}"))? {
                    match number {
                        signal::SIGCHLD => reaper.orphans(),
                        signal::SIGTERM | signal::SIGINT => ended = true,
                        _ => {}
                    }
                }
                if ended {
                    return Ok(());
                }
            }
        }
    }
}
