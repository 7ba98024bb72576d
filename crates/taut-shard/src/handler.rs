//! What an application does with the connections of a shard.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};

use taut_proto::handshake::{Refusal, Request, Upgrade, origin};
use taut_proto::{Close, CloseCode, Message, Prepared, Timeout, Violation};

use crate::connections::{Connections, Sent};
use crate::id::{ConnectionId, HandshakeId};
use crate::settings::Outgoing;

/// An application on one shard. Every method runs on the shard's thread and must not block: what may wait (DNS, a
/// disk, a lock, another service) is for another thread, whose answer comes back as [`mail`](Self::mail).
///
/// What is sent during a call leaves in one write when the call's read, or the shard's tick, is over.
///
/// ```
/// use taut_proto::Message;
/// use taut_shard::{Handler, Session};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type User = ();
///     type Mail = ();
///
///     fn message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
///         session.send(message);
///     }
/// }
/// ```
pub trait Handler: Sized {
    /// What a connection carries for the application: who it is, what it wants.
    type User: Default;
    /// What other threads may tell this shard, through its [`Mailbox`](crate::Mailbox).
    type Mail: Send + 'static;

    /// Decides about a request. By default every WebSocket request of the same origin is accepted and anything else
    /// refused.
    ///
    /// The shard adds permessage-deflate to an accepted upgrade if it is configured to. An upgrade may be decided about
    /// later, under `id`: return [`Verdict::Pending`], and call [`Connections::answer`].
    ///
    /// ```
    /// # use std::{net::SocketAddr, sync::mpsc::Sender};
    /// # use taut_proto::{Message, handshake::{Refusal, Request}};
    /// use taut_shard::{Answer, Connections, Handler, HandshakeId, Session, Verdict};
    ///
    /// /// Another thread checks the tokens, and mails what it has found to the shard.
    /// struct Guarded {
    ///     checks: Sender<(HandshakeId, String)>,
    /// }
    ///
    /// impl Handler for Guarded {
    ///     type User = String;
    ///     type Mail = (HandshakeId, Option<String>);
    ///
    ///     fn request<'r>(&mut self, request: &'r Request<'r>, _: SocketAddr, id: HandshakeId) -> Verdict<'r, String> {
    ///         let upgrade = match request.upgrade() {
    ///             Ok(upgrade) => upgrade,
    ///             Err(refusal) => return Verdict::Refuse(refusal),
    ///         };
    ///         let token = request.bearer().unwrap_or_default();
    ///         let _ = self.checks.send((id, token.to_owned()));
    ///         Verdict::Pending(upgrade)
    ///     }
    ///
    ///     fn mail(&mut self, connections: &mut Connections<String>, (id, user): Self::Mail) {
    ///         connections.answer(id, match user {
    ///             Some(user) => Answer::Accept(user),
    ///             None => Answer::Refuse(Refusal::unauthorized("the token is not valid")),
    ///         });
    ///     }
    /// #   fn message(&mut self, _: &mut Session<'_, String>, _: Message<'_>) {}
    /// }
    /// ```
    fn request<'r>(&mut self, request: &'r Request<'r>, peer: SocketAddr, id: HandshakeId) -> Verdict<'r, Self::User> {
        let _ = (peer, id);
        let checked = origin::same_host(request).and_then(|()| request.upgrade());
        match checked {
            Ok(upgrade) => Verdict::Accept(upgrade, Self::User::default()),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    /// A connection is open. Its handshake's answer goes out with what is sent here.
    fn opened(&mut self, session: &mut Session<'_, Self::User>) {
        let _ = session;
    }

    /// A message came, lent from the shard's buffer.
    fn message(&mut self, session: &mut Session<'_, Self::User>, message: Message<'_>);

    /// A connection has ended; it can no longer be sent to. Called once for every [`opened`](Self::opened).
    fn closed(&mut self, connections: &mut Connections<Self::User>, closed: Closed<Self::User>) {
        let _ = (connections, closed);
    }

    /// The socket of a connection has taken everything that waited for its peer: called once for each
    /// [`Connections::notify_written`].
    fn written(&mut self, connections: &mut Connections<Self::User>, id: ConnectionId) {
        let _ = (connections, id);
    }

    /// The shard drains, and it is this connection's turn: it is closed with what is returned, by default with the
    /// [`Drain`](crate::Drain)'s own `close`.
    fn draining(&mut self, connections: &mut Connections<Self::User>, id: ConnectionId, close: &Close) -> Close {
        let _ = (connections, id);
        close.clone()
    }

    /// Something came through the mailbox.
    fn mail(&mut self, connections: &mut Connections<Self::User>, mail: Self::Mail) {
        let _ = (connections, mail);
    }

    /// A request is here, with all of its content, whose verdict was [`Verdict::Respond`]: `response` takes the whole
    /// answer, head and content. It may be written before what is sent to connections meanwhile.
    fn respond(
        &mut self,
        connections: &mut Connections<Self::User>,
        request: &Request<'_>,
        content: &[u8],
        response: &mut Vec<u8>,
    ) -> Responded {
        let _ = (connections, request, content, response);
        Responded::HandOver
    }

    /// The system has no descriptor, or no memory, for the next socket. The application should tell its operator. Called at
    /// each attempt, some ten times a second. After two seconds the clients that wait are answered with 503: `turned_away`
    /// says how many were this time.
    fn out_of_descriptors(&mut self, error: &io::Error, turned_away: usize) {
        let _ = (error, turned_away);
    }

    /// A connection leaves the shard, because it was said to be handed over. It may come back for its next request: see
    /// [`Intake::give_back`](crate::Intake::give_back).
    fn hand_over(&mut self, handover: Handover) {
        drop(handover);
    }
}

/// What becomes of a request.
pub enum Verdict<'r, User> {
    /// The upgrade is accepted, and the connection carries this.
    Accept(Upgrade<'r>, User),
    /// Whether the upgrade is accepted is said later, from any call, by
    /// [`Connections::answer`](crate::Connections::answer). Until then the handshake goes on: it counts among those in
    /// progress and ends at its deadline, with 503; a client that goes away is noticed; and at most as many bytes as a
    /// head may have are held of what it says meanwhile.
    Pending(Upgrade<'r>),
    /// It is answered with a status, and the socket closed.
    Refuse(Refusal),
    /// It is no upgrade, and may be answered here: [`Handler::respond`] is called as soon as this many bytes of content
    /// have come behind its head, within the handshake's deadline. So much is then held for each such client, so it is
    /// for requests that are short, and for answers that need not be waited for.
    Respond {
        /// Bytes, as `Content-Length` says.
        content: usize,
    },
    /// It is no upgrade: the connection leaves the shard with the bytes already read, to
    /// [`Handler::hand_over`].
    HandOver,
}

/// What became of a request that might have been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responded {
    /// It has its answer, and the socket stays for the client's next request, of any kind, up to
    /// [`Settings::keep_alive`](crate::Settings::keep_alive).
    Answered,
    /// It has its answer, and the connection ends with it: the client said so, or expects no other.
    Last,
    /// It is answered elsewhere: as with [`Verdict::HandOver`].
    HandOver,
}

/// An HTTP connection on its way from a shard, or back to one.
pub struct Handover<Stream = TcpStream> {
    /// The socket, in non-blocking mode.
    pub stream: Stream,
    /// The TLS connection on it, live: what is read and written goes through it.
    pub tls: Option<Box<rustls::ServerConnection>>,
    /// What was read and not used. From the shard: the request, from its first byte. Back to it: what came behind.
    pub bytes: Vec<u8>,
    /// Who is at the other end.
    pub peer: SocketAddr,
}

impl<Stream> fmt::Debug for Handover<Stream> {
    // The bytes may carry tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("peer", &self.peer).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// A connection that has ended.
#[derive(Debug)]
pub struct Closed<User> {
    /// Which one; the id is never used again.
    pub id: ConnectionId,
    /// What it carried.
    pub user: User,
    /// Why.
    pub reason: Reason,
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The close handshake is complete; this is what the peer's close frame said.
    Closed(Close),
    /// The same, but in the middle of a message: the handler was not given what had come of it (RFC 6455 §5.4).
    CutOff(Close),
    /// The peer did not answer our ping or our close frame in time, or did not go on with its message.
    TimedOut(Timeout),
    /// The peer ended the connection without a close frame.
    Ended,
    /// The socket failed.
    Failed(io::Error),
    /// The peer sent more of an unfinished message than there was room for: see
    /// [`Settings::unfinished`](crate::Settings::unfinished).
    Overloaded,
    /// The peer read too slowly and the policy was to close.
    Slow,
    /// The peer broke the protocol.
    Violated(Violation),
    /// The shard stopped before the close handshake was complete.
    Stopped,
}

impl Reason {
    /// The code an application would see: the peer's, or 1006 (RFC 6455 §7.1.5).
    pub fn code(&self) -> CloseCode {
        match self {
            Self::Closed(close) | Self::CutOff(close) => close.code(),
            Self::Violated(violation) => violation.close_code(),
            _ => CloseCode::ABNORMAL,
        }
    }
}

/// The connection a call is about, among all of its shard.
pub struct Session<'a, User> {
    id: ConnectionId,
    connections: &'a mut Connections<User>,
}

impl<'a, User> Session<'a, User> {
    pub(crate) fn new(id: ConnectionId, connections: &'a mut Connections<User>) -> Self {
        Self { id, connections }
    }

    /// Which connection this is.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Sends a message; see [`Connections::send`].
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Sent {
        self.connections.send(self.id, message)
    }

    /// Sends a message framed once for many; see [`Connections::send_prepared`].
    pub fn send_prepared(&mut self, prepared: &Prepared) -> Sent {
        self.connections.send_prepared(self.id, prepared)
    }

    /// Changes how much may wait for the peer; see [`Connections::set_outgoing`].
    pub fn set_outgoing(&mut self, outgoing: Outgoing) {
        self.connections.set_outgoing(self.id, outgoing);
    }

    /// Stops reading; see [`Connections::pause`].
    pub fn pause(&mut self) {
        self.connections.pause(self.id);
    }

    /// Reads again; see [`Connections::resume`].
    pub fn resume(&mut self) {
        self.connections.resume(self.id);
    }

    /// Begins the close; see [`Connections::close`].
    pub fn close(&mut self, close: impl Into<Close>) {
        self.connections.close(self.id, close);
    }

    /// What the connection carries. `None` once the connection has ended, which a call of its own can bring about
    /// by sending to a reader that is too slow.
    pub fn user(&mut self) -> Option<&mut User> {
        self.connections.user(self.id)
    }

    /// All connections of the shard, this one among them.
    pub fn connections(&mut self) -> &mut Connections<User> {
        self.connections
    }
}
