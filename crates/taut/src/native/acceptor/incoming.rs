//! A client that wants to connect, before it is answered.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use taut_proto::handshake::{self, Response, http1};
use taut_proto::{Role, Settings, deflate};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Acceptor;
use crate::error::Cause;
use crate::{Deflate, Error, Refusal, Request, Transport, WebSocket};

/// A client that wants to connect and waits for the answer: [`accept`](Self::accept) or [`reject`](Self::reject).
///
/// What it asks for is its [`Request`]. Dropped without an answer it is refused with status 500.
pub struct Incoming(Box<Inner>);

struct Inner {
    request: Request,
    acceptor: Acceptor,
    /// Response headers of the application's own.
    headers: Vec<(String, String)>,
    /// What came behind the request.
    unread: Vec<u8>,
    /// Until the answer is given.
    transport: Option<Transport>,
    /// Counts among the handshakes in progress.
    permit: Option<OwnedSemaphorePermit>,
}

impl Incoming {
    pub(crate) fn new(request: Request, transport: Transport, acceptor: Acceptor, unread: Vec<u8>) -> Self {
        let transport = Some(transport);
        Self(Box::new(Inner { request, acceptor, headers: Vec::new(), unread, transport, permit: None }))
    }

    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.0.permit = Some(permit);
    }

    /// The client's request, to be kept.
    pub fn request(&self) -> &Request {
        &self.0.request
    }

    /// Adds a header to the response that accepts the client, such as `Set-Cookie`. If it is invalid,
    /// [`accept`](Self::accept) fails. A [`Refusal`] has headers of its own.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets limits, heartbeat and close timeout of this connection, in place of [`Acceptor::settings`]: after a look at
    /// the path or at who the client is.
    ///
    /// ```no_run
    /// # use taut::{Error, Incoming, Settings};
    /// async fn handle(incoming: Incoming) -> Result<(), Error> {
    ///     let mut settings = Settings::server();
    ///     if incoming.path() == "/upload" {
    ///         settings.limits.message = 64 << 20;
    ///     }
    ///     let mut socket = incoming.settings(settings).select_subprotocol(&["v2", "v1"]).accept().await?;
    ///     socket.send("ready").await
    /// }
    /// ```
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        self.change(|acceptor| acceptor.settings(settings))
    }

    /// Accepts permessage-deflate on this connection if the client offers it, or with `None` no compression, in place of
    /// [`Acceptor::deflate`].
    #[must_use]
    pub fn deflate(self, deflate: impl Into<Option<Deflate>>) -> Self {
        self.change(|acceptor| acceptor.deflate(deflate))
    }

    /// Selects the first of these subprotocols that the client offers, in place of [`Acceptor::subprotocols`]; none if it
    /// offers none of them. What it offers is in [`Request::subprotocols`].
    #[must_use]
    pub fn select_subprotocol(self, supported: &[&str]) -> Self {
        self.change(|acceptor| acceptor.subprotocols(supported.iter().copied()))
    }

    fn change(mut self, change: impl FnOnce(Acceptor) -> Acceptor) -> Self {
        self.0.acceptor = change(std::mem::take(&mut self.0.acceptor));
        self
    }

    /// Accepts the client: answers `101 Switching Protocols`.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid) when a header must not be sent. Otherwise when the stream breaks or the client
    /// does not take the response in time.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub async fn accept(self) -> Result<WebSocket, Error> {
        // Boxed, so that the handler's task does not keep the room that this needs once.
        Box::pin(self.open()).await
    }

    async fn open(mut self) -> Result<WebSocket, Error> {
        let mut response = Vec::new();
        let Answer { subprotocol, deflate } = self.answer(&mut response)?;
        let Some(mut transport) = self.0.transport.take() else { unreachable!("it is answered once") };
        self.0.acceptor.respond(&mut transport, &response).await?;
        let settings = Arc::clone(&self.0.acceptor.config().settings);
        let unread = std::mem::take(&mut self.0.unread);
        WebSocket::open(transport, Role::Server, settings, deflate, subprotocol.as_deref(), None, unread)
    }

    /// Refuses the client with a status from 400 to 599 and a text for it, which a program finds in
    /// [`Error::response`] and in the error's text. [`refuse`](Self::refuse) can say more.
    ///
    /// # Errors
    /// None: whether a refused client still takes the response changes nothing. It is a `Result` so that a handler can
    /// end with it.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub async fn reject(self, status: u16, text: impl Into<String>) -> Result<(), Error> {
        Box::pin(self.refuse(Refusal::with_status(status, text.into()))).await
    }

    /// Refuses the client with a [`Refusal`]: with headers, JSON, a challenge, a redirect, or when to come back.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid) when one of its headers must not be sent; the client is refused with status 500
    /// then. Otherwise none, as [`reject`](Self::reject).
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), Error> {
        if let Some(mut transport) = self.0.transport.take() {
            refuse(&mut transport, refusal.as_proto()).await;
        }
        refusal.check()
    }

    /// Writes the response that accepts the client to `text`.
    fn answer(&self, text: &mut Vec<u8>) -> Result<Answer, Error> {
        answer(&self.0.request, &self.0.acceptor, &self.0.headers, |response| http1::write_response(response, text))
    }
}

impl Deref for Incoming {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.0.request
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(mut transport) = self.transport.take() else { return };
        let mut response = Vec::new();
        handshake::Refusal::with_status(500, "The server ended without an answer.").write_response(&mut response);
        // As far as it can be had without waiting: a socket that nothing was written to takes this much.
        let _ = Pin::new(&mut transport).poll_write(&mut Context::from_waker(Waker::noop()), &response);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(&self.0.request).finish()
    }
}

/// What client and server agree on.
pub(crate) struct Answer {
    pub(crate) subprotocol: Option<String>,
    pub(crate) deflate: Option<deflate::NegotiatedDeflate>,
}

/// Accepts a request as the acceptor is configured; `write` gets the response.
pub(crate) fn answer(
    request: &Request,
    acceptor: &Acceptor,
    headers: &[(String, String)],
    write: impl FnOnce(&Response<'_>),
) -> Result<Answer, Error> {
    let config = acceptor.config();
    let parsed = request.parsed();
    let mut upgrade = parsed.upgrade().map_err(Cause::Refused)?;
    let supported: Vec<&str> = config.subprotocols.iter().map(String::as_str).collect();
    upgrade = upgrade.select_subprotocol(&supported);
    let deflate = config.deflate.as_ref().and_then(|deflate| deflate::accept(upgrade.extensions(), deflate));
    upgrade = upgrade.with_deflate(deflate);
    for (name, value) in headers {
        upgrade = upgrade.header(name, value).map_err(|invalid| Cause::Header {
            name: name.clone(),
            invalid,
            role: Role::Server,
        })?;
    }
    write(&upgrade.response());
    Ok(Answer { subprotocol: upgrade.subprotocol().map(str::to_owned), deflate })
}

/// Writes a refusal and lets the client read it: to drop a socket with unread bytes would reset it, and the response
/// with it. A client that does not take it in time goes without.
pub(crate) async fn refuse(transport: &mut Transport, refusal: &handshake::Refusal) {
    let mut response = Vec::new();
    refusal.write_response(&mut response);
    let told = async {
        transport.write_all(&response).await?;
        transport.shutdown().await?;
        let mut rest = transport.take(REFUSED);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether it came through changes nothing: the connection is over either way.
    let _ = timeout(LINGER, told).await;
}

/// How long a refused client may take to read the response.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read from a refused client.
const REFUSED: u64 = 64 << 10;
