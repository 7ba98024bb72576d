//! The way of a session to a shard.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use taut::{Client, Error, Heartbeat, Settings, WebSocket};
use tokio::net::TcpStream;

/// Where sessions become clients of the shards.
#[derive(Debug)]
pub(crate) struct Entrance {
    address: SocketAddr,
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

impl Entrance {
    /// By the server's own address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
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
        let stream = self.connect(request.peer).await.map_err(Error::other)?;
        client.connect_over(stream).await
    }

    async fn connect(&self, peer: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        tracing::debug!(%peer, "a session over HTTP");
        Ok(stream)
    }
}

/// The way is short: what takes longer is a server that has too much to do.
const OPENING: Duration = Duration::from_secs(5);
