//! The way of a session, or of a stream, to a shard.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use taut::{Client, Error, Heartbeat, Settings, WebSocket};
use taut_shard::{Intake, Pipe, pipe};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where sessions and streams become clients of the shards: of each in turn.
#[derive(Debug)]
pub(crate) struct Connector {
    intakes: Vec<Intake>,
    turn: AtomicUsize,
}

/// What the client asked for.
#[derive(Debug)]
pub(super) struct Request {
    /// `/app/KEY?…`; empty until a SockJS client says it.
    pub(super) path: String,
    host: String,
    origin: Option<String>,
    peer: SocketAddr,
}

impl Request {
    /// Who asks.
    pub(super) fn client(&self) -> IpAddr {
        self.peer.ip()
    }

    /// `app` is what the request's own path says of it.
    pub(super) fn new(app: &str, head: &Parts, peer: SocketAddr) -> Self {
        let mut path = app.to_owned();
        if let (false, Some(query)) = (path.is_empty(), head.uri.query()) {
            path.push('?');
            path.push_str(query);
        }
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { path, host: text(HOST).unwrap_or_default(), origin: text(ORIGIN), peer }
    }
}

impl Connector {
    /// Into these shards.
    pub(crate) fn new(intakes: Vec<Intake>) -> Self {
        Self { intakes, turn: AtomicUsize::new(0) }
    }

    /// Opens a connection to a shard, as the WebSocket that the client would have opened.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub(super) async fn open(&self, request: &Request, path_prefix: &str) -> Result<WebSocket, Error> {
        let Request { path, host, origin, .. } = request;
        let mut settings = Settings::client();
        // The shard asks, which is enough.
        settings.heartbeat = Heartbeat::off();
        let mut client =
            Client::new(&format!("ws://{host}{path_prefix}{path}")).settings(settings).connect_timeout(OPENING);
        if let Some(origin) = origin {
            client = client.origin(origin);
        }
        self.join(client, request.peer, CAPACITY).await
    }

    /// Opens a connection to a shard for a stream, whose handshake has this header. The connection's messages are
    /// pieces of its response; the shard may take so long to let it in.
    ///
    /// # Errors
    /// When no shard takes it.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub(crate) async fn open_stream(
        &self,
        (name, value): (&str, &str),
        peer: SocketAddr,
        within: Duration,
    ) -> Result<WebSocket, Error> {
        let mut settings = Settings::client();
        settings.heartbeat = Heartbeat::off();
        // A client may take its time, and then the shard's rule for slow readers holds.
        settings.limits.message_timeout = Duration::MAX;
        let client = Client::new("ws://stream/").header(name, value).settings(settings).connect_timeout(within);
        self.join(client, peer, STREAM_CAPACITY).await
    }

    async fn join(&self, client: Client, peer: SocketAddr, capacity: usize) -> Result<WebSocket, Error> {
        let (ours, theirs) = pipe(capacity);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.intakes.len().max(1);
        let taken = self.intakes.get(turn).is_some_and(|intake| intake.adopt_pipe(theirs, peer).is_ok());
        if !taken {
            return Err(Error::other("the shard takes no more"));
        }
        client.connect_over(Link(ours)).await
    }
}

/// Our end of the pipe to a shard, as tokio's streams are.
struct Link(Pipe);

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.0.poll_read(context, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown();
        Poll::Ready(Ok(()))
    }
}

/// The way is short: what takes longer is a server that has too much to do.
const OPENING: Duration = Duration::from_secs(5);

/// Bytes that may be under way to a shard, and as many from it, beside what the shard itself holds for a slow reader. As
/// much as a socket of the kernel takes: a client over HTTP stands as long a burst as one that has a socket.
const CAPACITY: usize = 4 << 20;

/// The same of a stream, whose client has a socket of its own.
const STREAM_CAPACITY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_link_ends_where_the_shard_lets_go_of_it() {
        let (ours, theirs) = pipe(CAPACITY);
        let mut link = Link(ours);
        link.write_all(b"a request").await.expect("there is room");
        let waiting = tokio::spawn(async move { (link.read(&mut [0]).await.ok(), link.write(b"x").await.is_err()) });
        tokio::task::yield_now().await;
        drop(theirs);
        assert_eq!(waiting.await.expect("it ends"), (Some(0), true));
    }
}
