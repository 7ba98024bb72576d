//! The server's side of one connection.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use taut_proto::handshake::{HeadLimits, HeadScan, Refusal, Request, origin};
use taut_proto::{Role, Settings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Cause, Deadline, Doing};
use crate::{Error, Transport, WebSocket};

/// Opens a WebSocket on a socket that was accepted.
///
/// A web page may connect if it was loaded from the host and port that it connects to; programs that are no browsers
/// send no origin and may connect. The client has 10 seconds for its handshake. No compression, no subprotocol.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:9001").await?;
/// loop {
///     let (stream, _) = listener.accept().await?;
///     tokio::spawn(async move {
///         let mut socket = taut::accept(stream).await?;
///         while let Some(message) = socket.recv().await? {
///             socket.send(message).await?;
///         }
///         Ok::<(), taut::Error>(())
///     });
/// }
/// # }
/// ```
///
/// # Errors
/// [`is_handshake`](Error::is_handshake): the request was refused, and the client told why. Otherwise when the stream
/// breaks or the client takes too long.
///
/// # Cancel safety
/// Dropping it drops the stream.
pub async fn accept(stream: TcpStream) -> Result<WebSocket, Error> {
    // A message is written whole, so there is nothing for Nagle's algorithm to gather.
    stream.set_nodelay(true).map_err(|error| Error::io(Doing::Opening, error))?;
    open(stream.into()).await
}

/// The same on any stream: a Unix socket, TLS of your own.
///
/// # Errors
/// As [`accept`].
///
/// # Cancel safety
/// Dropping it drops the stream.
pub async fn accept_over<S>(stream: S) -> Result<WebSocket, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    open(Transport::new(stream)).await
}

async fn open(mut stream: Transport) -> Result<WebSocket, Error> {
    let deadline = Instant::now() + HANDSHAKE;
    let limits = HeadLimits::default();
    let mut head = Head::default();
    let mut response = Vec::new();
    let answered = match timeout_at(deadline, head.read(&mut stream, &limits)).await {
        Err(_) => Err(Refusal::timeout()),
        Ok(read) => read?.and_then(|end| answer(&head.bytes[..end], &limits, &mut response).map(|()| end)),
    };
    let late = || Error::from(Cause::Deadline(Deadline::Handshake(HANDSHAKE)));
    let end = match answered {
        Ok(end) => end,
        Err(refusal) => {
            refusal.write_response(&mut response);
            refuse(&mut stream, &response).await;
            return Err(if refusal == Refusal::timeout() { late() } else { Cause::Refused(refusal).into() });
        }
    };
    let writing = async {
        stream.write_all(&response).await?;
        stream.flush().await
    };
    timeout_at(deadline, writing).await.map_err(|_| late())?.map_err(|error| Error::io(Doing::Opening, error))?;
    WebSocket::open(stream, Role::Server, Arc::clone(&SETTINGS), None, None, head.rest(end))
}

/// A head that is being read.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// What has come: the head and the beginning of what follows it.
    pub(crate) bytes: Vec<u8>,
    scan: HeadScan,
}

impl Head {
    /// A head of which something has come already.
    pub(crate) fn begun(bytes: Vec<u8>) -> Self {
        Self { bytes, scan: HeadScan::new() }
    }

    /// Reads until the head is complete: where it ends, or why it will not do.
    pub(crate) async fn read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        limits: &HeadLimits,
    ) -> Result<Result<usize, Refusal>, Error> {
        loop {
            match self.scan.find(&self.bytes, limits) {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(Ok(end)),
                Err(refusal) => return Ok(Err(refusal)),
            }
            self.bytes.reserve(ROOM);
            let count = stream.read_buf(&mut self.bytes).await.map_err(|error| Error::io(Doing::Opening, error))?;
            if count == 0 {
                return Err(Error::io(Doing::Opening, std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What came after the head.
    pub(crate) fn rest(&self, end: usize) -> Vec<u8> {
        self.bytes[end..].to_vec()
    }
}

/// Judges a request and writes the response, or says why it is refused.
fn answer(head: &[u8], limits: &HeadLimits, response: &mut Vec<u8>) -> Result<(), Refusal> {
    let request = Request::parse(head, limits)?;
    origin::same_host(&request)?;
    request.upgrade()?.write_response(response);
    Ok(())
}

/// Writes a refusal and lets the client read it: to drop a socket with unread bytes would reset it, and the response
/// with it. A client that does not take it in time goes without.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, response: &[u8]) {
    let told = async {
        stream.write_all(response).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(REFUSED);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether it came through changes nothing: the connection is over either way.
    let _ = timeout(LINGER, told).await;
}

/// Shared by all connections that were accepted.
static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| Arc::new(Settings::server()));

/// How long a client has for its handshake, the response included.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a refused client may take to read the response.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read from a refused client.
const REFUSED: u64 = 64 << 10;

/// Bytes that there is room for at each read of a head.
const ROOM: usize = 1024;
