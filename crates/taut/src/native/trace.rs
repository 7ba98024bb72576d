//! What a client does, step by step: for `-v` of a command, for a log, for finding out where time goes.
//!
//! ```no_run
//! # async fn run() -> Result<(), taut::Error> {
//! use taut::Client;
//! use taut::trace::Step;
//!
//! let client = Client::new("wss://api.example/feed").trace(|step| match step {
//!     Step::Resolved { host, addresses } => eprintln!("{host} is {addresses:?}"),
//!     Step::Secured(tls) => eprintln!("{:?}, {:?}", tls.version(), tls.cipher_suite()),
//!     Step::Received(traffic) => eprintln!("{:?}: {} bytes, {} sent", traffic.kind, traffic.length, traffic.wire),
//!     _ => {}
//! });
//! # Ok(())
//! # }
//! ```

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Event, Message, Violation};

use crate::Response;
#[cfg(feature = "tls")]
use crate::tls::TlsInfo;

/// Something that a client has done or received, for [`Client::trace`](crate::Client::trace).
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<'s> {
    /// The name of the server or of the proxy was looked up.
    Resolved {
        /// The name, or the address that stood for it.
        host: &'s str,
        /// In the order in which they are tried.
        addresses: &'s [SocketAddr],
    },
    /// There is a TCP connection, to the server or to the proxy.
    Connected(SocketAddr),
    /// The proxy leads to the server.
    Tunnelled {
        /// Its URL, without user and password.
        proxy: &'s str,
    },
    /// The TLS handshake with the server is done.
    #[cfg(feature = "tls")]
    Secured(&'s TlsInfo),
    /// The head of the request, as it is sent. It may hold secrets.
    Request(&'s str),
    /// The server's response. That of a redirect is followed by the steps to where it leads.
    Response(&'s Response),
    /// A message or a ping was accepted for sending. Messages that are sent in parts, pongs and close frames are not
    /// reported.
    Sent(Traffic<'s>),
    /// A message, a ping or a pong has come; before the call that receives it returns. Messages that are received in
    /// parts and close frames are not reported.
    Received(Traffic<'s>),
}

/// A message, a ping or a pong in a [`Step`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Traffic<'t> {
    /// What it is.
    pub kind: Kind,
    /// Bytes of its payload, after inflating.
    pub length: usize,
    /// Bytes that it takes on the connection: with its headers, and as compressed as it is.
    pub wire: usize,
    /// The payload of a ping or a pong. It is empty for anything else, and for a ping of the heartbeat, which carries a
    /// number.
    pub payload: &'t [u8],
    /// How long a ping of the heartbeat took to be answered, if this is its pong.
    pub round_trip: Option<Duration>,
}

/// What a [`Traffic`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A ping, also one of the heartbeat. Its pong is sent by itself and not reported.
    Ping,
    /// A pong.
    Pong,
}

/// Reports the steps, if somebody wants them.
#[derive(Clone)]
pub(crate) struct Reporter(Arc<dyn Fn(Step<'_>) + Send + Sync>);

impl Reporter {
    pub(crate) fn new(report: impl Fn(Step<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    pub(crate) fn report(&self, step: Step<'_>) {
        (self.0)(step);
    }
}

/// Reports what an open connection sends and receives.
pub(crate) struct Tracer {
    reporter: Reporter,
    /// Bytes that have come of what is not whole yet.
    wire: usize,
}

impl Tracer {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Self { reporter, wire: 0 }
    }

    /// So many bytes have come, and with them the end of this message. What is not traced pays for a comparison alone:
    /// [`received`](Self::received) would have each event put into memory, to refer to it.
    #[cold]
    pub(crate) fn received_message(&mut self, bytes: usize, message: &Message<'_>) {
        let (kind, length, wire) = (Kind::of(message), message.as_bytes().len(), mem::take(&mut self.wire) + bytes);
        self.reporter.report(Step::Received(Traffic { kind, length, wire, payload: &[], round_trip: None }));
    }

    /// So many bytes have come, and this was in them.
    pub(crate) fn received(&mut self, bytes: usize, event: &Result<Option<Event<'_>>, Violation>) {
        self.wire += bytes;
        let (kind, payload, round_trip) = match event {
            Ok(Some(Event::Message(message))) => return self.received_message(0, message),
            Ok(Some(Event::Ping(payload))) => (Kind::Ping, payload, None),
            Ok(Some(Event::Pong(payload, round_trip))) => (Kind::Pong, payload, *round_trip),
            // What is received in parts is not seen as a whole.
            Ok(Some(Event::Part(_) | Event::Close(_))) => return self.wire = 0,
            Ok(None) | Err(_) => return,
        };
        // It may come between the fragments of a message. A server's frames have no masking key (RFC 6455 §5.2).
        let (length, wire) = (payload.len(), SERVER_CONTROL_HEADER + payload.len());
        self.wire = self.wire.saturating_sub(wire);
        self.reporter.report(Step::Received(Traffic { kind, length, wire, payload, round_trip }));
    }

    /// So many bytes were put into the outbox for this.
    pub(crate) fn sent(&self, kind: Kind, length: usize, wire: usize, payload: &[u8]) {
        self.reporter.report(Step::Sent(Traffic { kind, length, wire, payload, round_trip: None }));
    }
}

impl Kind {
    pub(crate) fn of(message: &Message<'_>) -> Self {
        match message {
            Message::Text(_) => Self::Text,
            Message::Binary(_) => Self::Binary,
        }
    }
}

/// RFC 6455 §5.2 and §5.5: a control frame has at most 125 bytes, so its length takes none of its own. Only a client's
/// connections are traced.
const SERVER_CONTROL_HEADER: usize = 2;
