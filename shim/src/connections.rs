//! The connections of clients, counted: a daemon that holds nothing, and that nobody is connected to, was left behind.

use futures_core::Stream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::Sleep;

/// How long a client waits that could not be let in, for want of fds or memory. The listener says again at once that it is there, and whoever
/// asked again at once would take all of a processor.
const FULL: Duration = Duration::from_millis(100);

/// How many connections there are, for one who waits for a change.
pub type Count = Arc<watch::Sender<usize>>;

/// The connections that come in.
pub struct Incoming {
    listener: UnixListener,
    count: Count,
    /// Until when nobody is let in; kept until somebody has been, so that the log says it once.
    full: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Those of `listener`, each of which is in `count` until it closes.
    pub fn new(listener: UnixListener, count: Count) -> Incoming {
        Incoming { listener, count, full: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(full) = &mut self.full {
                ready!(full.as_mut().poll(context));
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => {
                    self.full = None;
                    self.count.send_modify(|count| *count += 1);
                    return Poll::Ready(Some(Ok(Connection { stream, count: self.count.clone() })));
                }
                Err(e) => {
                    if self.full.replace(Box::pin(tokio::time::sleep(FULL))).is_none() {
                        log::error!("accept: {e}; clients wait");
                    }
                }
            }
        }
    }
}

/// One connection.
pub struct Connection {
    stream: UnixStream,
    count: Count,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
