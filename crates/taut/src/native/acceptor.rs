//! How clients are accepted.

pub(crate) mod incoming;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Settings;
use taut_proto::handshake::{HeadLimits, Refusal, origin};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::error::{Cause, Deadline, Doing};
use crate::native::head::Head;
use crate::native::request;
#[cfg(feature = "tls")]
use crate::native::tls::ServerTls;
use crate::{Deflate, Error, Request, Transport, WebSocket};
pub use incoming::Incoming;
use incoming::refuse;

/// How clients are accepted: limits, heartbeat, origins, compression, deadlines.
///
/// Clones share them. [`Server`](crate::Server) has one, and the upgrades from hyper and axum; for connections that
/// come by another way there are [`accept`](Self::accept) and [`accept_over`](Self::accept_over).
#[derive(Clone, Default)]
pub struct Acceptor(Arc<AcceptorConfig>);

/// What an [`Acceptor`] holds.
#[derive(Clone)]
pub(crate) struct AcceptorConfig {
    pub(crate) settings: Arc<Settings>,
    pub(crate) deflate: Option<Deflate>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) head_limits: HeadLimits,
    pub(crate) timeout: Duration,
    origins: Origins,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
}

#[derive(Clone)]
enum Origins {
    SameHost,
    Listed(Vec<String>),
    Any,
}

impl Acceptor {
    /// An acceptor with the defaults that the settings below name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits, heartbeat and close timeout; [`Settings::server`] by default.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        self.change(|config| config.settings = Arc::new(settings))
    }

    /// Accepts permessage-deflate (RFC 7692) when a client offers it; `None` is the default: nothing is compressed. Costs
    /// processor time, and memory if the context is kept from message to message.
    #[must_use]
    pub fn deflate(self, deflate: impl Into<Option<Deflate>>) -> Self {
        self.change(|config| config.deflate = deflate.into())
    }

    /// Sets the supported subprotocols, the preferred one first; none by default. The first one that the client also
    /// offers is selected; a client that offers none of them is accepted without one.
    #[must_use]
    pub fn subprotocols<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.change(|config| config.subprotocols = names.into_iter().map(Into::into).collect())
    }

    /// Sets the pages that may connect, such as `https://chat.example`, compared by scheme, host and port; by default
    /// those that were loaded from the host and port that the request is for. A default port may be written or left
    /// out; pages without a host, such as those of Electron and Cordova, are `null` or `file://`. Clients that are not
    /// browsers send no origin and are not concerned.
    ///
    /// Any other page that a user visits could otherwise act for that user (cross-site WebSocket hijacking): browsers
    /// send cookies along, and the same-origin policy does not apply.
    #[must_use]
    pub fn allow_origins<S: Into<String>>(self, origins: impl IntoIterator<Item = S>) -> Self {
        self.change(|config| config.origins = Origins::Listed(origins.into_iter().map(Into::into).collect()))
    }

    /// Lets every page connect: for public services, and those that authenticate by token and not by cookie.
    #[must_use]
    pub fn allow_any_origin(self) -> Self {
        self.change(|config| config.origins = Origins::Any)
    }

    /// Speaks TLS, `wss://`, on every connection that [`accept`](Self::accept) is given; by default none. With hyper
    /// and axum, TLS is up to the HTTP server.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: ServerTls) -> Self {
        self.change(|config| config.tls = Some(tls))
    }

    /// Whether clients have to speak TLS.
    #[cfg_attr(not(feature = "tls"), allow(clippy::unused_self, reason = "without the feature nobody does"))]
    pub(crate) fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.0.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Sets how large the head of a request may be; 16 KiB and 100 headers. A larger one is refused with status 431. With
    /// hyper and axum, whose own limits come first, it holds as well.
    #[must_use]
    pub fn head_limits(self, limits: HeadLimits) -> Self {
        self.change(|config| config.head_limits = limits)
    }

    /// Sets how long a client may take for TLS and its request, and again to take the response; 10 seconds.
    #[must_use]
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.timeout = timeout)
    }

    /// Reads the request of a client that has connected by TCP.
    ///
    /// Refuses a request that is not a handshake, or comes from a page that may not connect.
    ///
    /// # Errors
    /// [`is_handshake`](Error::is_handshake): the request was refused, and the client told why. Otherwise when the
    /// stream breaks or the client takes too long.
    ///
    /// # Cancel safety
    /// Dropping it drops the stream.
    pub async fn accept(&self, stream: TcpStream) -> Result<Incoming, Error> {
        // A message is written whole, so there is nothing for Nagle's algorithm to gather.
        stream.set_nodelay(true).map_err(|error| Error::io(Doing::Opening, error))?;
        let deadline = self.deadline();
        let peer = stream.peer_addr().ok();
        let transport = Transport::from(stream);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.0.tls {
            // Boxed, since it is large and most connections do without.
            let agreed = timeout_at(deadline, Box::pin(tls.accept(transport))).await.map_err(|_| self.late())??;
            return self.read_request(Transport::over_tls(agreed), peer, deadline).await;
        }
        self.read_request(transport, peer, deadline).await
    }

    /// The same on any stream: a Unix socket, TLS of your own.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    ///
    /// # Cancel safety
    /// Dropping it drops the stream.
    pub async fn accept_over<S>(&self, stream: S) -> Result<Incoming, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.read_request(Transport::new(stream), None, self.deadline()).await
    }

    async fn read_request(
        &self,
        mut transport: Transport,
        peer: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<Incoming, Error> {
        let mut head = Head::default();
        let read = timeout_at(deadline, head.read(&mut transport, &self.0.head_limits)).await;
        let request = match read {
            Err(_) => Err(Refusal::timeout()),
            Ok(read) => {
                read?.and_then(|end| Ok((self.request(request::Head::Text(head.bytes[..end].into()), peer)?, end)))
            }
        };
        match request {
            Ok((request, end)) => {
                #[cfg(feature = "tls")]
                let request = request.with_tls(transport.tls());
                Ok(Incoming::new(request, transport, self.clone(), head.rest(end)))
            }
            Err(refusal) => {
                refuse(&mut transport, &refusal).await;
                Err(self.refused(refusal))
            }
        }
    }

    /// Judges the head of a request.
    pub(crate) fn request(&self, head: request::Head, peer: Option<SocketAddr>) -> Result<Request, Refusal> {
        let request = Request::new(head, peer, &self.0.head_limits)?;
        let parsed = request.parsed();
        match &self.0.origins {
            Origins::SameHost => origin::same_host(&parsed)?,
            Origins::Listed(allowed) => {
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                origin::allowed(&parsed, &allowed)?;
            }
            Origins::Any => {}
        }
        Ok(request)
    }

    pub(crate) fn config(&self) -> &AcceptorConfig {
        &self.0
    }

    fn refused(&self, refusal: Refusal) -> Error {
        if refusal == Refusal::timeout() { self.late() } else { Cause::Refused(refusal).into() }
    }

    /// A timeout without end is one that ends after the program.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.0.timeout).unwrap_or_else(|| now + FAR)
    }

    fn late(&self) -> Error {
        Cause::Deadline(Deadline::Handshake(self.0.timeout)).into()
    }

    /// Writes the response that opens the connection.
    pub(crate) async fn respond(&self, transport: &mut Transport, response: &[u8]) -> Result<(), Error> {
        let writing = async {
            transport.write_all(response).await?;
            transport.flush().await
        };
        timeout_at(self.deadline(), writing)
            .await
            .map_err(|_| self.late())?
            .map_err(|error| Error::io(Doing::Opening, error))
    }

    fn change(mut self, change: impl FnOnce(&mut AcceptorConfig)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl Default for AcceptorConfig {
    fn default() -> Self {
        Self {
            settings: Arc::new(Settings::server()),
            deflate: None,
            subprotocols: Vec::new(),
            head_limits: HeadLimits::default(),
            timeout: HANDSHAKE,
            origins: Origins::SameHost,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// Accepts a WebSocket on a TCP connection, whatever its path, with the defaults of [`Acceptor`]: pages of the
/// same host only, no subprotocol, no compression.
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
/// [`Server`](crate::Server) does this and more: it caps handshakes, gathers writes and ends gracefully.
///
/// # Errors
/// As [`Acceptor::accept`].
///
/// # Cancel safety
/// Dropping it drops the stream.
pub async fn accept(stream: TcpStream) -> Result<WebSocket, Error> {
    Acceptor::new().accept(stream).await?.accept().await
}

/// The same on any stream: a Unix socket, TLS of your own.
///
/// # Errors
/// As [`Acceptor::accept`].
///
/// # Cancel safety
/// Dropping it drops the stream.
pub async fn accept_over<S>(stream: S) -> Result<WebSocket, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Acceptor::new().accept_over(stream).await?.accept().await
}

/// A time that no clock lacks room for: a hundred years.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a client has for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
