//! Events for containerd, in the order in which they happened: a queue, and one task that sends. While containerd is away they wait.

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::{any::Any, timestamp::Timestamp};
use containerd_shim_protos::shim::{event::Envelope, oci};
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::context;
use containerd_shim_protos::{cgroups, cgroups_v2, topics};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// A message that travels in an Any. Its name stands here: asking the message's descriptor for it would parse every protobuf file that
/// the message depends on, which takes 400 KB for as long as the daemon lives, and binds all of protobuf's reflection in.
pub trait Named: Message {
    /// Its full name, which is what containerd's typeurl has.
    const FULL_NAME: &'static str;
}

/// An event that containerd knows, and its topic.
pub trait Event: Named {
    /// Where subscribers find it.
    const TOPIC: &'static str;
}

macro_rules! named {
    ($($message:ty => $name:literal;)*) => {
        $(impl Named for $message { const FULL_NAME: &'static str = $name; })*

        #[cfg(test)]
        /// Each name beside the one that the message's descriptor has.
        pub fn names() -> Vec<(&'static str, String)> {
            use containerd_shim_protos::protobuf::MessageFull;
            vec![$((<$message>::FULL_NAME, <$message>::descriptor().full_name().to_string())),*]
        }
    };
}

macro_rules! topics {
    ($($message:ty => $topic:ident;)*) => { $(impl Event for $message { const TOPIC: &'static str = topics::$topic; })* };
}

named! {
    TaskCreate => "containerd.events.TaskCreate";
    TaskStart => "containerd.events.TaskStart";
    TaskOOM => "containerd.events.TaskOOM";
    TaskExit => "containerd.events.TaskExit";
    TaskDelete => "containerd.events.TaskDelete";
    TaskExecAdded => "containerd.events.TaskExecAdded";
    TaskExecStarted => "containerd.events.TaskExecStarted";
    TaskPaused => "containerd.events.TaskPaused";
    TaskResumed => "containerd.events.TaskResumed";
    TaskCheckpointed => "containerd.events.TaskCheckpointed";
    oci::ProcessDetails => "containerd.runc.v1.ProcessDetails";
    cgroups::metrics::Metrics => "io.containerd.cgroups.v1.Metrics";
    cgroups_v2::metrics::Metrics => "io.containerd.cgroups.v2.Metrics";
}

topics! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC;
    TaskStart => TASK_START_EVENT_TOPIC;
    TaskOOM => TASK_OOM_EVENT_TOPIC;
    TaskExit => TASK_EXIT_EVENT_TOPIC;
    TaskDelete => TASK_DELETE_EVENT_TOPIC;
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC;
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC;
    TaskPaused => TASK_PAUSED_EVENT_TOPIC;
    TaskResumed => TASK_RESUMED_EVENT_TOPIC;
    TaskCheckpointed => TASK_CHECKPOINTED_EVENT_TOPIC;
}

/// How many events wait for a containerd that is away. Past that the newest are lost, and the log says so.
const MOST: usize = 4096;
/// How long containerd may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long to wait before the next try; doubled each time up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The way to containerd.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Envelope>,
    namespace: String,
}

impl Events {
    /// Starts the task that sends. `address`: containerd's ttrpc socket; empty: there is nobody to tell.
    pub fn new(address: String, namespace: String) -> (Events, tokio::task::JoinHandle<()>) {
        let (queue, events) = mpsc::channel(MOST);
        (Events { queue, namespace }, tokio::spawn(forward(address, events)))
    }

    /// Sends the event after all that were sent before.
    pub fn send<E: Event>(&self, event: &E) {
        let mut envelope = Envelope::new();
        envelope.set_timestamp(timestamp(SystemTime::now()));
        envelope.set_namespace(self.namespace.clone());
        envelope.set_topic(E::TOPIC.to_string());
        envelope.set_event(any(event));
        if self.queue.try_send(envelope).is_err() {
            log::error!("containerd is away for too long: an event of {} is lost", E::TOPIC);
        }
    }
}

/// A message in the form of containerd's typeurl: the full name alone.
pub fn any<M: Named>(message: &M) -> Any {
    let mut any = Any::new();
    any.type_url = M::FULL_NAME.to_string();
    // Only a message over 2 GiB cannot be written.
    any.value = message.write_to_bytes().unwrap_or_default();
    any
}

/// As protobuf has it.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut timestamp = Timestamp::new();
    timestamp.seconds = since.as_secs() as i64;
    timestamp.nanos = since.subsec_nanos() as i32;
    timestamp
}

async fn forward(address: String, mut events: mpsc::Receiver<Envelope>) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        if address.is_empty() {
            continue;
        }
        let mut request = ForwardRequest::new();
        request.set_envelope(envelope);
        let mut wait = AGAIN.0;
        loop {
            let connected = match client.take() {
                Some(client) => Ok(client),
                None => connect(&address).await,
            };
            let answer = match connected {
                Ok(connected) => {
                    let limit = context::with_timeout(ANSWER.as_nanos() as i64);
                    let answer = connected.forward(limit, &request).await.map(drop).map_err(|e| e.to_string());
                    client = answer.is_ok().then_some(connected);
                    answer
                }
                Err(e) => Err(e),
            };
            let Err(why) = answer else { break };
            log::debug!("{}: {why}", request.envelope().topic());
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }
}

async fn connect(address: &str) -> Result<EventsClient, String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let stream = tokio::net::UnixStream::connect(path).await.map_err(|e| format!("connect {path}: {e}"))?;
    Ok(EventsClient::new(Client::new(stream.into())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_are_named_as_in_their_descriptors() {
        for (ours, theirs) in super::names() {
            assert_eq!(ours, theirs);
        }
    }
}
