//! One gRPC call over a Unix socket: an HTTP/2 request with one message, and its answer.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, Request};
use prost::Message;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// The longest that a call may take; the longest one of the tests, the end of a pod, has 30 s.
const LIMIT: Duration = Duration::from_secs(90);

/// Codes of gRPC that the tests look for.
pub mod code {
    /// The deadline has passed.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// There is no such object.
    pub const NOT_FOUND: u32 = 5;
    /// The connection failed.
    pub const UNAVAILABLE: u32 = 14;
}

/// Why a call failed, as the server (or, with [`code::UNAVAILABLE`], the connection) has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code.
    pub code: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (gRPC code {})", self.message, self.code)
    }
}

fn unavailable(e: impl fmt::Display) -> Status {
    Status { code: code::UNAVAILABLE, message: e.to_string() }
}

/// Calls `method` (`/package.Service/Method`) on a connection of its own, so that a server that was started anew needs nothing
/// of its clients.
pub fn call<Q: Message, A: Message + Default>(socket: &Path, method: &str, question: &Q) -> Result<A, Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
    runtime.block_on(async {
        let late = Status { code: code::DEADLINE_EXCEEDED, message: format!("no answer to {method} within {LIMIT:?}") };
        tokio::time::timeout(LIMIT, exchange(socket, method, question)).await.unwrap_or(Err(late))
    })
}

async fn exchange<Q: Message, A: Message + Default>(socket: &Path, method: &str, question: &Q) -> Result<A, Status> {
    let stream = UnixStream::connect(socket).await.map_err(unavailable)?;
    let (mut client, connection) = h2::client::handshake(stream).await.map_err(unavailable)?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(unavailable)?;
    let (answer, mut body) = client.send_request(request, false).map_err(unavailable)?;
    body.send_data(frame(question), true).map_err(unavailable)?;
    let mut bytes = receive(answer).await?;
    if bytes.len() < PREFIX {
        return Err(unavailable(format!("{method}: an answer of {} bytes", bytes.len())));
    }
    bytes.advance(PREFIX);
    A::decode(bytes).map_err(unavailable)
}

/// Before each message: whether it is compressed, one byte, and its length, four.
const PREFIX: usize = 5;

fn frame(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("a message of the tests is small"));
    message.encode(&mut bytes).expect("a buffer that grows");
    bytes.freeze()
}

/// The body, unless the status, in the trailers or (without a body) in the headers, says that the call failed.
async fn receive(answer: ResponseFuture) -> Result<Bytes, Status> {
    let answer = answer.await.map_err(unavailable)?;
    status(answer.headers()).unwrap_or(Ok(()))?;
    let mut body: RecvStream = answer.into_body();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(unavailable)?;
        body.flow_control().release_capacity(chunk.len()).map_err(unavailable)?;
        bytes.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await.map_err(unavailable)?.unwrap_or_default();
    status(&trailers).unwrap_or_else(|| Err(unavailable("an answer without a status")))?;
    Ok(bytes.freeze())
}

fn status(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let code: u32 = text("grpc-status")?.parse().unwrap_or(u32::MAX);
    let message = text("grpc-message").unwrap_or_default();
    Some(if code == 0 { Ok(()) } else { Err(Status { code, message }) })
}
