//! What happens on a connection of a route, and what its backend makes of it: the same for every wire form.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::grip::{Control, Extension};
use super::relay::Relay;

/// What happens on a connection, for its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Somebody wants to connect. The answer decides.
    Open,
    Text(Box<str>),
    Binary(Box<[u8]>),
    /// The time that the backend has asked for has passed.
    Timer,
    /// The connection is over; `is_clean` unless the peer vanished without a close.
    Close {
        code: u16,
        reason: Box<str>,
        is_clean: bool,
    },
}

/// Who somebody is, as the backend says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: Box<str>,
    /// JSON.
    pub(crate) info: Option<Box<str>>,
}

/// What a backend wants done. It is carried out in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// `Some(None)`: nobody from here on.
    #[expect(clippy::option_option, reason = "nothing is said, nobody, or somebody")]
    pub(crate) user: Option<Option<User>>,
    /// A merge patch (RFC 7396) for what the server keeps of the connection.
    pub(crate) meta: Option<Map<String, Value>>,
    pub(crate) subscribe: Vec<Subscription>,
    /// To this connection.
    pub(crate) send: Vec<Message>,
    pub(crate) publish: Vec<Publish>,
    pub(crate) unsubscribe: Vec<Box<str>>,
    /// `Some(None)`: no timer any more.
    #[expect(clippy::option_option, reason = "nothing is said, none, or one")]
    pub(crate) timer: Option<Option<Duration>>,
    pub(crate) close: Option<Close>,
    /// What a backend says by WebSocket-over-HTTP, in its order.
    pub(crate) steps: Vec<Step>,
    /// The backend has turned GRIP on: of the answer to [`Event::Open`] alone.
    pub(crate) grip: Option<Extension>,
    /// Of the answer to [`Event::Open`] alone.
    pub(crate) acceptance: Acceptance,
}

/// One thing that a backend says by WebSocket-over-HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Message),
    Control(Control),
    Close(Close),
}

/// What the response to the upgrade says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Acceptance {
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
    /// Of a stream by GRIP: how it begins, in the backend's own words.
    pub(crate) response: Option<Box<Response>>,
    /// The connection to a backend with WebSockets.
    pub(crate) relay: Option<Arc<Relay>>,
}

/// A response as a client gets it: of one that is held, the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
    pub(crate) body: Box<[u8]>,
}

impl Acceptance {
    /// Whether the backend has chosen a subprotocol, in whatever form.
    pub(crate) fn has_subprotocol(&self) -> bool {
        let is_subprotocol = |name: &str| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol");
        self.subprotocol.is_some() || self.headers.iter().any(|(name, _)| is_subprotocol(name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) channel: Box<str>,
    /// What the members of a presence channel are told of the user: JSON.
    pub(crate) info: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Box<str>),
    Binary(Box<[u8]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) to: Target,
    pub(crate) event: Box<str>,
    /// As Pusher's protocol has it: a text as it is, anything else as JSON.
    pub(crate) data: Box<str>,
    /// Not to the connection that has caused it.
    pub(crate) is_except_self: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Channel(Box<str>),
    User(Box<str>),
    Connection(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
}
