//! Requests outlive their client. ttrpc drops a handler where it stands when the connection closes, and so would a containerd that is
//! killed leave a container half made, or made and unknown; here a request that was begun is done.

use async_trait::async_trait;
use containerd_shim_protos::ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use containerd_shim_protos::ttrpc::{self, Code, Request, Response};
use std::sync::Arc;
use tokio::sync::RwLock;

/// Methods that may take for ever and change nothing, and those that are done in one step: their answer is to go out before the end.
const AS_THEY_ARE: [&str; 4] = ["Wait", "WaitSandbox", "Shutdown", "ShutdownSandbox"];

type Handler = Box<dyn MethodHandler + Send + Sync>;

/// Every request holds it for reading from its beginning to its end: whoever gets it for writing knows that all are done, and lets none begin.
pub type Requests = Arc<RwLock<()>>;

struct ToTheEnd {
    handler: Arc<Handler>,
    requests: Requests,
}

#[async_trait]
impl MethodHandler for ToTheEnd {
    async fn handler(&self, ctx: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let Ok(begun) = self.requests.clone().try_read_owned() else {
            let status = ttrpc::get_status(Code::UNAVAILABLE, "the shim is about to end");
            return Err(ttrpc::Error::RpcStatus(status));
        };
        let handler = self.handler.clone();
        let done = tokio::spawn(async move {
            let _begun = begun;
            handler.handler(ctx, request).await
        });
        done.await.unwrap_or_else(|e| Err(ttrpc::Error::RpcStatus(ttrpc::get_status(Code::INTERNAL, e.to_string()))))
    }
}

/// The service, each request of which is done once it is begun.
pub fn to_the_end(service: Service, requests: &Requests) -> Service {
    let whole = |handler| ToTheEnd { handler: Arc::new(handler), requests: requests.clone() };
    let wrap = |(name, handler): (String, Handler)| {
        let handler = if AS_THEY_ARE.contains(&name.as_str()) { handler } else { Box::new(whole(handler)) };
        (name, handler)
    };
    Service { methods: service.methods.into_iter().map(wrap).collect(), streams: service.streams }
}
