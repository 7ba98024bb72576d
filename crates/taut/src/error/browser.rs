//! What can go wrong in a browser. It answers the same questions as the native error.

use std::fmt;
use std::time::Duration;

use taut_proto::CloseCode;

use super::Error;
use crate::Response;

impl Error {
    /// Whether nothing was sent because the connection is closing or was closed, by either side.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, Cause::Closed)
    }

    /// Whether a deadline passed: connecting or the close.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Cause::Connect(_) | Cause::Close)
    }

    /// Never here: the heartbeat is the browser's own, and a connection that it gives up is [`is_io`](Self::is_io).
    pub fn is_silent(&self) -> bool {
        false
    }

    /// Never here: when the peer breaks the WebSocket protocol, a page is told only that the connection broke
    /// ([`is_io`](Self::is_io)).
    pub fn is_protocol(&self) -> bool {
        false
    }

    /// Never here: a browser hands a page whole messages, and drops one that was cut off.
    pub fn is_cut_off(&self) -> bool {
        false
    }

    /// Whether the connection failed: it could not be made, was refused, broke, or ended without a close frame
    /// (code 1006).
    pub fn is_io(&self) -> bool {
        matches!(*self.0, Cause::Unopened | Cause::Broken)
    }

    /// Never here: a page is not told that a server refused ([`is_io`](Self::is_io)).
    pub fn is_handshake(&self) -> bool {
        false
    }

    /// Never here: a page is not told what a server has answered ([`is_io`](Self::is_io)).
    pub fn response(&self) -> Option<&Response> {
        None
    }

    /// Never here: a page is told nothing about certificates ([`is_io`](Self::is_io)).
    pub fn is_tls(&self) -> bool {
        false
    }

    /// Never here: a page knows no proxy.
    pub fn is_proxy(&self) -> bool {
        false
    }

    /// Whether the caller asked for something impossible: a malformed URL or subprotocol, a close code that a page may
    /// not send.
    pub fn is_invalid(&self) -> bool {
        matches!(*self.0, Cause::Setting(_) | Cause::CloseCode(_))
    }

    /// Whether too much is waiting: for the peer to read, and [`try_send`](crate::WebSocket::try_send) did nothing; or
    /// for [`recv`](crate::WebSocket::recv) here, and the connection was closed, since a browser cannot be made to stop
    /// reading. Then [`close_code`](Self::close_code) is not `None`.
    pub fn is_full(&self) -> bool {
        matches!(*self.0, Cause::Full | Cause::Overflow)
    }

    /// Never here: a page is not told the status of a handshake that failed.
    pub fn status(&self) -> Option<u16> {
        None
    }

    /// Never here, as [`status`](Self::status).
    pub fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// The close code of this failure: the one that the peer was sent, or 1006 for a connection that broke (RFC 6455
    /// §7.1.5). `None` if there was no connection, or it goes on.
    pub fn close_code(&self) -> Option<CloseCode> {
        match *self.0 {
            Cause::Broken | Cause::Close => Some(CloseCode::ABNORMAL),
            Cause::Overflow => Some(CloseCode::new(OVERFLOW)),
            _ => None,
        }
    }

    /// Whether the same may succeed when a client tries it again on a new connection. As a page is not told why it was
    /// not let in, that counts as transient.
    pub fn is_transient(&self) -> bool {
        !self.is_invalid() && !matches!(*self.0, Cause::Overflow)
    }
}

/// What an [`Error`] is about.
#[derive(Debug)]
pub(crate) enum Cause {
    /// It opened, and ended without a close frame.
    Broken,
    /// The peer did not answer our close frame.
    Close,
    CloseCode(CloseCode),
    Closed,
    /// Connecting took longer than this.
    Connect(Duration),
    Full,
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// More came than was received.
    Overflow,
    /// What the browser says about the URL or the subprotocols.
    Setting(String),
    /// It never opened.
    Unopened,
}

impl Cause {
    /// The error that it is about.
    pub(super) fn inner(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Other(problem) => Some(&**problem),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => {
                f.write_str("the connection broke, or the server broke the protocol; the browser's console says more")
            }
            Self::Close => f.write_str("the peer did not answer our close frame in time; the connection was dropped"),
            Self::CloseCode(code) => {
                write!(f, "close code {code} must not be sent by a page; use 1000 or one of 3000 to 4999")
            }
            Self::Closed => f.write_str("the connection is closed: nothing can be sent any more"),
            Self::Connect(after) => write!(
                f,
                "connecting took longer than {after:?}: the server has not answered; is the URL right, and the server \
                 running?"
            ),
            Self::Full => f.write_str("too much is waiting for the peer to read; nothing was sent"),
            Self::Other(problem) => problem.fmt(f),
            Self::Overflow => f.write_str(
                "more messages came than were received, and a browser cannot be made to stop reading: the connection \
                 was closed; call recv more often, or let the server send less",
            ),
            Self::Setting(wrong) => write!(f, "the browser does not accept the URL or a subprotocol: {wrong}"),
            Self::Unopened => f.write_str(
                "the WebSocket could not be opened, and a page is not told why; is the server running and the URL \
                 right, does it accept this page's origin, its token and one of the subprotocols? The browser's \
                 console says more",
            ),
        }
    }
}

/// As 1013, which a page may not send (WHATWG WebSockets, `close()`).
pub(crate) const OVERFLOW: u16 = 4013;
