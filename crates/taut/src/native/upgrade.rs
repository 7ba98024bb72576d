//! WebSockets on connections that hyper serves, and whatever is built on hyper.
//!
//! ```no_run
//! use http_body_util::Full;
//! use hyper::body::{Bytes, Incoming};
//! use hyper::service::service_fn;
//! use hyper::{Request, Response};
//! use hyper_util::rt::TokioIo;
//! use taut::{Acceptor, WebSocket, upgrade};
//!
//! async fn answer(mut request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
//!     match Acceptor::new().upgrade(&mut request) {
//!         Ok(upgrade) => {
//!             let response = upgrade.response();
//!             tokio::spawn(upgrade.run(echo));
//!             Ok(response.map(|()| Full::default()))
//!         }
//!         Err(refusal) => Ok(upgrade::refuse(&refusal).map(Into::into)),
//!     }
//! }
//!
//! async fn echo(mut socket: WebSocket) -> Result<(), taut::Error> {
//!     while let Some(message) = socket.recv().await? {
//!         socket.send(message).await?;
//!     }
//!     Ok(())
//! }
//!
//! # async fn serve(stream: tokio::net::TcpStream) -> hyper::Result<()> {
//! let http = hyper::server::conn::http1::Builder::new();
//! http.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades().await
//! # }
//! ```
//!
//! A WebSocket over HTTP/2 (RFC 8441) is refused with status 501.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "axum")]
use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
use http::{Extensions, HeaderValue, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use taut_proto::handshake;
use taut_proto::{Role, Settings};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{Cause, Deadline, Doing};
use crate::native::acceptor::incoming::{Answer, answer};
use crate::native::drain::{DrainSignal, DrainStage, DrainWatch};
use crate::native::handler_task::{BoxError, HandlerFailure, HandlerTask};
use crate::native::request::{Head, Parts};
use crate::native::server::Report;
use crate::{Acceptor, Deflate, Error, Failure, Refusal, Request, Transport, WebSocket};

impl Acceptor {
    /// Checks a request that hyper has read, by the same rules and settings as a [`Server`](crate::Server) does: the
    /// handshake (RFC 6455 §4.2.1), the origin, the limits on a head.
    ///
    /// Who connects is the application's to check: by [`Upgrade::request`], or by what it knows of the HTTP request.
    /// The client's address is known if the request's extensions hold a [`SocketAddr`], with the feature `axum` also as
    /// axum's `ConnectInfo`.
    ///
    /// # Errors
    /// Why it is refused; [`refuse`] makes a response of it.
    pub fn upgrade<B>(&self, request: &mut http::Request<B>) -> Result<Upgrade, Refusal> {
        let parts = Parts::new(request.method(), request.uri(), request.version(), request.headers())?;
        Ok(Upgrade::new(self.clone(), parts, request.extensions_mut())?)
    }
}

/// A client that may connect: return its [`response`](Self::response), and spawn [`run`](Self::run) with a handler.
///
/// What the client asks for is its [`Request`]: `upgrade.bearer()`, `upgrade.cookie("session")`. Names of headers are
/// in lower case, as hyper gives them.
///
/// Dropped, it ends the connection as soon as hyper has handed it over. To refuse a client, return another response.
#[must_use = "the connection ends when it is dropped"]
pub struct Upgrade {
    request: Request,
    acceptor: Acceptor,
    answer: Answer,
    response: Response<()>,
    handover: OnUpgrade,
    report: Option<Report>,
    handle: Option<ShutdownHandle>,
}

impl Upgrade {
    pub(crate) fn new(
        acceptor: Acceptor,
        parts: Parts,
        extensions: &mut Extensions,
    ) -> Result<Self, handshake::Refusal> {
        let request = acceptor.request(Head::Parts(Box::new(parts)), peer_addr(extensions))?;
        let (answer, response) = negotiated(&request, &acceptor);
        let handover =
            extensions.remove::<OnUpgrade>().ok_or_else(|| handshake::Refusal::with_status(500, NO_HANDOVER))?;
        Ok(Self { request, acceptor, answer, response, handover, report: None, handle: None })
    }

    /// The client's request, to be kept.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Sets limits, heartbeat and close timeout of this connection, in place of [`Acceptor::settings`].
    pub fn settings(self, settings: Settings) -> Self {
        self.change(|acceptor| acceptor.settings(settings))
    }

    /// Accepts permessage-deflate on this connection if the client offers it, or with `None` no compression, in place of
    /// [`Acceptor::deflate`].
    pub fn deflate(self, deflate: impl Into<Option<Deflate>>) -> Self {
        self.change(|acceptor| acceptor.deflate(deflate))
    }

    /// Selects the first of these subprotocols that the client offers, in place of [`Acceptor::subprotocols`]; none if it
    /// offers none of them. What it offers is in [`Request::subprotocols`].
    pub fn select_subprotocol(self, supported: &[&str]) -> Self {
        self.change(|acceptor| acceptor.subprotocols(supported.iter().copied()))
    }

    /// Each of these is in the [`response`](Self::response), so it has to be made anew.
    fn change(mut self, change: impl FnOnce(Acceptor) -> Acceptor) -> Self {
        self.acceptor = change(self.acceptor);
        (self.answer, self.response) = negotiated(&self.request, &self.acceptor);
        self
    }

    /// The selected subprotocol, one of [`Acceptor::subprotocols`] or of [`select_subprotocol`](Self::select_subprotocol).
    pub fn subprotocol(&self) -> Option<&str> {
        self.answer.subprotocol.as_deref()
    }

    /// Calls `report` when the handler fails or panics, or the connection fails before it. By default failures are
    /// ignored.
    pub fn on_failure(mut self, report: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// Closes the connection when the server shuts down: see [`Shutdown`].
    pub fn shutdown(mut self, shutdown: &Shutdown) -> Self {
        self.handle = Some(shutdown.handle());
        self
    }

    /// The response that accepts the client, `101 Switching Protocols`. Headers of your own may be added, such as
    /// `Set-Cookie`; those of the handshake are there.
    pub fn response(&self) -> Response<()> {
        self.response.clone()
    }

    /// Waits until hyper has sent the response and handed the connection over, at most for the
    /// [handshake timeout](Acceptor::handshake_timeout), then runs the handler and closes the connection: with code
    /// 1000, or 1011 when the handler has returned an error or panicked.
    ///
    /// What the handler sends while it is polled once leaves in one write when the poll is over, as with
    /// [`Server`](crate::Server). Hyper hands the connection over once the response has been returned to it, so this
    /// belongs into another task: `tokio::spawn(upgrade.run(…))`.
    ///
    /// The decision is made here and not by the response: hyper also hands over a connection that ends after another
    /// one, so a layer that turns this one into an error keeps nobody out. Who may not connect is to be refused before.
    ///
    /// # Panics
    /// As the handler does, once the connection is closed.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection without a close frame.
    pub fn run<H, F, E>(mut self, handler: H) -> impl Future<Output = ()> + Send + 'static
    where
        H: FnOnce(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let (report, handle) = (self.report.take(), self.handle.take());
        let peer = self.request.peer_addr();
        // Opened inside of the cork, so that the cork knows the connection. Boxed, so that the handler's room is given
        // back when it is done.
        let task = Box::pin(async move {
            let socket = self.into_websocket().await.map_err(|error| Failure::Handshake(peer, error))?;
            let peer = peer.or_else(|| socket.peer_addr());
            handler(socket).await.map_err(|problem| Failure::Handler(peer, problem.into()))
        });
        async move {
            let mut task = HandlerTask::<Failure>::new(task);
            let mut watch = handle.as_ref().map(|handle| DrainWatch::new(Arc::clone(&handle.shutdown.drain)));
            poll_fn(|cx| {
                let stage = watch.as_mut().map_or(DrainStage::Open, |watch| watch.stage(cx));
                let tell = |fault| {
                    let failure = match fault {
                        HandlerFailure::Failed(failure) => failure,
                        HandlerFailure::Panicked(text) => Failure::Panicked(peer, text),
                    };
                    if let Some(report) = &report {
                        report(&failure);
                    }
                };
                task.poll(stage, tell, cx)
            })
            .await;
        }
    }

    /// Waits like [`run`](Self::run), and returns the bare WebSocket. It writes each message at once, and only its
    /// owner closes it; [`on_failure`](Self::on_failure) and [`shutdown`](Self::shutdown) do not reach it.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout): the connection was not handed over in time. [`is_io`](Error::is_io): it
    /// broke, or another response was sent.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub async fn into_websocket(self) -> Result<WebSocket, Error> {
        let Self { acceptor, answer: Answer { subprotocol, deflate }, handover, .. } = self;
        let config = acceptor.config();
        let upgraded = timeout(config.timeout, handover)
            .await
            .map_err(|_| Error::from(Cause::Deadline(Deadline::Upgrade(config.timeout))))?
            .map_err(|error| Error::io(Doing::Opening, io::Error::other(error)))?;
        let (transport, unread) = taken_over(upgraded)?;
        let settings = Arc::clone(&config.settings);
        WebSocket::open(transport, Role::Server, settings, deflate, subprotocol.as_deref(), None, unread)
    }
}

impl Deref for Upgrade {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upgrade").field(&self.request).finish()
    }
}

/// The response that refuses a client and tells it why. The connection stays open for its next request.
pub fn refuse(refusal: &Refusal) -> Response<String> {
    // What else was received is hyper's to make sense of, and it knows where the request ends.
    converted(&refusal.as_proto().response(handshake::Version::Http11).keep_open())
}

/// What the client is answered when it is accepted.
fn negotiated(request: &Request, acceptor: &Acceptor) -> (Answer, Response<()>) {
    let mut response = Response::new(());
    let answer = answer(request, acceptor, &[], |accepted| response = converted(accepted).map(|_| ()));
    let Ok(answer) = answer else { unreachable!("the request is good, with no headers") };
    (answer, response)
}

/// Ends connections that have been upgraded. A graceful shutdown of hyper or axum does not: to it a connection is over
/// once it is handed over.
///
/// Clones are handles. Give one to each [`Upgrade::shutdown`], and [`drain`](Self::drain) when the server has ended.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    drain: Arc<DrainSignal>,
    /// Each upgrade has a receiver, until its connection is gone.
    handles: watch::Sender<()>,
}

impl Shutdown {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes every connection with code 1001, which makes its `recv` return `None`, and waits for the handlers. Those
    /// that are left after `timeout` are dropped.
    ///
    /// What is upgraded from now on is closed at once.
    ///
    /// # Cancel safety
    /// Safe and repeatable: once polled, the connections are being closed.
    pub async fn drain(&self, timeout: Duration) {
        self.0.drain.enter(DrainStage::Draining);
        if tokio::time::timeout(timeout, self.0.handles.closed()).await.is_err() {
            self.0.drain.enter(DrainStage::Over);
            self.0.handles.closed().await;
        }
    }

    fn handle(&self) -> ShutdownHandle {
        ShutdownHandle { shutdown: Arc::clone(&self.0), _alive: self.0.handles.subscribe() }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("connections", &self.0.handles.receiver_count()).finish_non_exhaustive()
    }
}

/// A connection that a [`Shutdown`] waits for.
struct ShutdownHandle {
    shutdown: Arc<Inner>,
    _alive: watch::Receiver<()>,
}

/// The client's address, as far as the HTTP server has told: bare, which a layer that knows better can set, or as axum does.
fn peer_addr(extensions: &Extensions) -> Option<SocketAddr> {
    let peer = extensions.get::<SocketAddr>().copied();
    #[cfg(feature = "axum")]
    let peer = peer
        .or_else(|| extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| *peer))
        .or_else(|| extensions.get().map(|MockConnectInfo(peer): &MockConnectInfo<SocketAddr>| *peer));
    peer
}

/// Whether a request tries to open a WebSocket: by an upgrade, or by an extended CONNECT (RFC 8441 §4), which is then
/// refused with an explanation.
#[cfg(any(feature = "axum", feature = "tower"))]
pub(crate) fn is_handshake(method: &http::Method, headers: &http::HeaderMap) -> bool {
    let mut upgrades = headers.get_all(http::header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    method == http::Method::CONNECT
        || upgrades.any(|list| list.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")))
}

/// A response of the handshake as hyper wants it.
fn converted(response: &handshake::Response<'_>) -> Response<String> {
    let headers = response.headers().filter_map(|(name, value)| {
        let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    let mut converted = Response::new(response.body().to_owned());
    converted.headers_mut().extend(headers);
    let status = http::StatusCode::from_u16(response.status());
    *converted.status_mut() = status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    converted
}

/// What hyper has read from, without hyper; and what it has read already.
fn taken_over(upgraded: Upgraded) -> Result<(Transport, Vec<u8>), Error> {
    // A plain TCP connection is what it nearly always is: then each read and write is a direct call. The automatic
    // server (HTTP/1 or 2), which `axum::serve` is made of, has wrapped it once more.
    let (stream, unread) = match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => (parts.io, parts.read_buf),
        Err(upgraded) => match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => (parts.io, parts.read_buf),
            Err(upgraded) => return Ok((Transport::new(TokioIo::new(upgraded)), Vec::new())),
        },
    };
    let stream = stream.into_inner();
    // A message is written whole, so there is nothing for Nagle's algorithm to gather.
    stream.set_nodelay(true).map_err(|error| Error::io(Doing::Opening, error))?;
    // Copied, since hyper's buffer is many times as large.
    Ok((stream.into(), unread.to_vec()))
}

const NO_HANDOVER: &str = "The server cannot upgrade this connection: hyper's OnUpgrade is not among the request's \
                           extensions. Was it taken already, or is this not hyper?";
