//! Why a client does not accept a response.

use std::fmt;
use std::time::Duration;

use crate::handshake::MalformedExtensions;
#[cfg(feature = "deflate")]
use crate::handshake::deflate;
use crate::handshake::refusal::{Cause, Refusal};

/// Why a response does not open a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// `Sec-WebSocket-Accept` is missing or does not belong to our key: the server did not understand the
    /// request, or the response is from a cache.
    Accept,
    /// `Connection` does not name `Upgrade`.
    Connection,
    /// The answer to the offer of permessage-deflate is invalid.
    #[cfg(feature = "deflate")]
    Deflate(deflate::InvalidResponse),
    /// `Sec-WebSocket-Extensions` is malformed, or names an extension twice or one that was not offered.
    Extension,
    /// The head exceeds the limits.
    HeadTooLarge,
    /// Status 101 in an HTTP/1.0 response.
    HttpVersion,
    /// One interim response (RFC 9110 §15.2) after the other.
    Interim,
    /// The response is not HTTP/1.1.
    Malformed,
    /// The server did not switch protocols.
    Status {
        /// The HTTP status; for an interim one (100 to 199 except 101) another head follows.
        status: u16,
        /// How long the server asks clients to stay away.
        retry_after: Option<Duration>,
        /// Where a redirect points to, as sent. Credentials must not follow it to another origin, and it must not
        /// lead from `wss` to `ws`.
        location: Option<String>,
    },
    /// The server chose a subprotocol that was not offered, or more than one.
    Subprotocol,
    /// `Upgrade` is not `websocket`.
    Upgrade,
}

impl Rejection {
    /// Which side must change something.
    pub fn fault(&self) -> Fault {
        let is_request = matches!(self, Self::Status { status: ..500, .. }) && !self.is_transient();
        if is_request { Fault::Request } else { Fault::Server }
    }

    /// Whether the same request may succeed later: the server is overloaded, restarting or behind a gateway that
    /// cannot reach it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Status { status: 408 | 425 | 429 | 500 | 502 | 503 | 504, .. })
    }

    /// Where to go on, if this is a redirect (RFC 9110 §15.4) that says so: its `Location` as sent.
    pub fn redirect(&self) -> Option<&str> {
        match self {
            Self::Status { status: 301 | 302 | 303 | 307 | 308, location, .. } => location.as_deref(),
            _ => None,
        }
    }

    /// Whether this is an interim response (RFC 9110 §15.2): the one that counts follows it, so read on.
    pub fn is_interim(&self) -> bool {
        matches!(self, Self::Status { status: 100 | 102..200, .. })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "deflate")]
            Self::Deflate(invalid) => {
                return write!(f, "The server's answer to permessage-deflate is invalid: {invalid}.");
            }
            Self::Status { status, location, .. } => {
                let advice = match status {
                    200..=299 => "; is this the path of a WebSocket?",
                    // RFC 9110 §15.4: these say where to go on.
                    301 | 302 | 303 | 307 | 308 if location.is_none() => {
                        "; it redirects without a Location header that could be read, so it leads nowhere"
                    }
                    301 | 302 | 303 | 307 | 308 => "; redirects are not followed here",
                    300..=399 => "; a request that opens a WebSocket cannot be answered like this",
                    400 => "; a proxy on the way may not pass WebSockets on",
                    401 | 403 => "; check the credentials and the origin",
                    404 => "; check the path",
                    407 => "; a proxy on the way wants to know who we are",
                    426 => "; it may want another protocol or version",
                    429 => "; it has had too many requests of ours",
                    502..=504 => "; it is busy or starting, or a proxy cannot reach it",
                    _ => "",
                };
                return write!(f, "The server answered with HTTP status {status} instead of 101{advice}.");
            }
            Self::Accept => {
                "The server's Sec-WebSocket-Accept header does not answer our key; is it a WebSocket server?"
            }
            Self::Connection => "The server's Connection header does not name Upgrade.",
            Self::Extension => {
                "The server's Sec-WebSocket-Extensions header is malformed or names what was not offered."
            }
            Self::HeadTooLarge => "The head of the server's response is larger than the limit.",
            Self::Interim => "The server sends one interim response after the other, and none that counts.",
            Self::HttpVersion => "The server switched protocols in HTTP/1.0, which cannot.",
            Self::Malformed => "The server's response is not valid HTTP/1.1; is it a WebSocket server?",
            Self::Subprotocol => "The server chose a subprotocol that was not offered.",
            Self::Upgrade => "The server's Upgrade header is not websocket.",
        })
    }
}

impl std::error::Error for Rejection {}

impl From<Refusal> for Rejection {
    /// Heads of requests and responses are scanned alike; what is wrong with one has fewer names here.
    fn from(refusal: Refusal) -> Self {
        match refusal.cause() {
            Cause::HeadTooLarge | Cause::TooManyHeaders => Self::HeadTooLarge,
            Cause::RepeatedHeader("sec-websocket-accept") => Self::Accept,
            Cause::RepeatedHeader("sec-websocket-protocol") => Self::Subprotocol,
            _ => Self::Malformed,
        }
    }
}

impl From<MalformedExtensions> for Rejection {
    fn from(MalformedExtensions: MalformedExtensions) -> Self {
        Self::Extension
    }
}

/// Which side must change something before a rejected handshake can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What the client asked for: address, credentials, origin, protocol.
    Request,
    /// The server, or something between: it breaks the protocol or is out of order.
    Server,
}
