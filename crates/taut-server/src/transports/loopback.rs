//! The way of a session to a shard.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use taut::{Client, Error, Heartbeat, Settings, WebSocket};
use taut_shard::Intake;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Where sessions become clients of the shards: of each in turn.
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
        let (ours, theirs) = timeout(OPENING, pair()).await.map_err(Error::other)?.map_err(Error::other)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.intakes.len().max(1);
        let taken = self.intakes.get(turn).is_some_and(|intake| intake.adopt(theirs, request.peer).is_ok());
        if !taken {
            return Err(Error::other("the shard takes no more"));
        }
        client.connect_over(ours).await
    }
}

/// Two ends of one connection within this machine: ours, and the shard's.
///
/// # Cancel safety
/// Dropping it drops both.
async fn pair() -> io::Result<(TcpStream, std::net::TcpStream)> {
    pair_through(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?).await
}

async fn pair_through(listener: &TcpListener) -> io::Result<(TcpStream, std::net::TcpStream)> {
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let theirs = loop {
        let (theirs, peer) = listener.accept().await?;
        // Any program of this machine may have connected first; it is not to speak as this client.
        if peer == ours.local_addr()? {
            break theirs;
        }
    };
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    Ok((ours, theirs.into_std()?))
}

/// The way is short: what takes longer is a server that has too much to do.
const OPENING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn who_connects_to_the_pair_before_us_is_not_taken_for_us() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let mut stranger = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (mut ours, theirs) = pair_through(&listener).await.expect("a pair");
        assert_eq!(theirs.peer_addr().ok(), ours.local_addr().ok());
        assert_eq!(stranger.read(&mut [0]).await.ok(), Some(0), "he is turned away");
        let mut theirs = TcpStream::from_std(theirs).expect("non-blocking");
        theirs.write_all(b"x").await.expect("written");
        assert_eq!(ours.read_u8().await.ok(), Some(b'x'));
    }
}
