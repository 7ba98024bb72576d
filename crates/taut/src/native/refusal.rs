//! How a client is refused.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use taut_proto::Role;
use taut_proto::handshake;

use crate::Error;
use crate::error::Cause;

/// The HTTP response that refuses a client: a status, a text or JSON, headers.
///
/// One type for every way to serve: [`Incoming::refuse`](crate::Incoming::refuse),
/// [`Server::authenticate`](crate::Server::authenticate), the check of a tower layer; an axum handler returns it as a
/// response, and `upgrade::refuse` makes one of it for hyper.
///
/// ```
/// use taut::Refusal;
///
/// let expired = Refusal::json(401, r#"{"error":"token expired"}"#)
///     .challenge(r#"Bearer realm="chat", error="invalid_token""#)
///     .header("X-Request-Id", "7f3a");
/// let moved = Refusal::redirect(307, "wss://eu.chat.example/room");
/// let busy = Refusal::with_status(429, "slowly").retry_after(std::time::Duration::from_secs(30));
/// ```
///
/// What a program gets of it, [`Error::response`] has. A browser shows a page nothing of it, not even the status.
///
/// Its `Debug` shows no values of headers, which may be cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(handshake::Refusal);

impl Refusal {
    /// 401: the client must present a valid bearer token. [`challenge`](Self::challenge) asks for something else.
    pub fn unauthorized(text: impl Into<Cow<'static, str>>) -> Self {
        Self(handshake::Refusal::unauthorized(text))
    }

    /// 403: the client may not connect, even if it is known.
    pub fn forbidden(text: impl Into<Cow<'static, str>>) -> Self {
        Self(handshake::Refusal::forbidden(text))
    }

    /// 503: no room for another connection now.
    pub fn busy(retry_after: Duration) -> Self {
        Self(handshake::Refusal::busy(retry_after))
    }

    /// Any other refusal. A status outside 400 to 599 would not refuse and becomes 500. `text` is the response's body
    /// and is shown to the client.
    pub fn with_status(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self(handshake::Refusal::with_status(status, text))
    }

    /// A refusal whose body is JSON, sent as it is with `Content-Type: application/json`. The status is as for
    /// [`with_status`](Self::with_status).
    pub fn json(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self(handshake::Refusal::json(status, body))
    }

    /// Sends the client elsewhere: a status of 301, 302, 303, 307 or 308 (any other would not redirect and becomes 500)
    /// and a URL as `Location`, which may be relative. A [`Client`](crate::Client) follows it; browsers do not.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self(handshake::Refusal::redirect(status, location))
    }

    /// Adds a header to the response. It takes the place of what the refusal would say by itself: of
    /// `Content-Type: text/plain; charset=utf-8`, after which the body is sent exactly as it was given, of
    /// `WWW-Authenticate: Bearer`, of `Retry-After` and of `Allow`.
    ///
    /// A header that must not be sent (a value with a line end, a header of the handshake or of the body's framing) makes
    /// this a refusal with status 500 whose text names the header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    /// Says how the client is to authenticate: the value of a `WWW-Authenticate` header (RFC 9110 §11.6.1), such as
    /// `Basic realm="chat"`. It takes the place of the `Bearer` that goes with status 401; several calls make several
    /// challenges.
    #[must_use]
    pub fn challenge(self, challenge: &str) -> Self {
        Self(self.0.challenge(challenge))
    }

    /// Tells the client how long to stay away, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self(self.0.retry_after(delay))
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    pub(crate) fn as_proto(&self) -> &handshake::Refusal {
        &self.0
    }

    /// Whether it can be sent as the application wants it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Some((name, invalid)) = self.0.invalid_header() else { return Ok(()) };
        Err(Cause::Header { name: name.to_owned(), invalid, role: Role::Server }.into())
    }
}

impl From<handshake::Refusal> for Refusal {
    fn from(refusal: handshake::Refusal) -> Self {
        Self(refusal)
    }
}

/// Its text.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refusal {}
