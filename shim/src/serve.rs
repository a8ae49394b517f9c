//! The daemon: one thread, one loop.

use crate::container::{Held, Shim};
use crate::events::Events;
use crate::handlers::to_the_end;
use crate::ready::Ready;
use crate::reaper::Reaper;
use crate::sandbox;
use crate::task::Service;
use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::asynchronous::Server;
use orlop_sys::signal::{self, Signals};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The names of the Task API's versions: their methods and messages are the same.
const VERSIONS: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// How long the last events may take on their way out.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// Rounds of the event loop in which an answer has certainly been written: several times the handful of tasks that it goes through.
const ROUNDS_OF_ANSWER: usize = 32;

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
    let mut over = service.over();
    let mut server = Server::new().add_listener(listener.into());
    for version in VERSIONS {
        let methods = create_task(Arc::new(service.clone())).into_values().map(to_the_end);
        server = server.register_service(methods.map(|methods| (version.to_string(), methods)).collect());
    }
    let tasks = service.clone();
    let sandbox = sandbox::Service::new(shim, Arc::new(move || tasks.end_if_unused()));
    let sandbox = create_sandbox(Arc::new(sandbox)).into_iter();
    server = server.register_service(sandbox.map(|(name, methods)| (name, to_the_end(methods))).collect());
    server.start().await.map_err(|e| format!("server: {e}"))?;
    loop {
        tokio::select! {
            _ = over.wait_for(|over| *over) => break,
            ready = signals.readable() => {
                ready.map_err(failed("signalfd"))?;
                let mut ended = false;
                while let Some(number) = signals.get().next().map_err(|e| format!("signalfd: {e}"))? {
                    match number {
                        signal::SIGCHLD => reaper.orphans(),
                        signal::SIGTERM | signal::SIGINT => ended = true,
                        _ => {}
                    }
                }
                if ended {
                    break;
                }
            }
        }
    }
    // While the listener is there, a new daemon of the same group would find it in use; the last events take their time.
    drop(bound);
    // The answer to the request for the end goes out before the connections close: through the tasks of the handler, of the connection
    // and of its writer, each of which has its turn in a round of this loop.
    for _ in 0..ROUNDS_OF_ANSWER {
        tokio::task::yield_now().await;
    }
    let _ = server.shutdown().await;
    drop((server, service));
    // Its queue has no sender any more: it ends when all has been sent.
    let _ = tokio::time::timeout(LAST_EVENTS, sender).await;
    Ok(())
}
