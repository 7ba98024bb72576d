//! One connection of a shard, from its socket's first byte to its last.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use taut_proto::deflate::NegotiatedDeflate;
use taut_proto::handshake::{HeadLimits, add_header};
use taut_proto::{Connection, Outbox, ReadInto, Role, Teardown, Time};

use crate::http1::Exchange;
use crate::id::ConnectionId;
use crate::settings::{Settings, SlowReader};
use crate::transport::Transport;

/// A socket and where it stands.
pub(crate) struct Conn<User> {
    pub(crate) transport: Transport,
    pub(crate) stage: Stage<User>,
    /// The tick its deadline comes up at; 0 when none is set.
    pub(crate) due: u64,
    /// It is on the list of those to be read again.
    queued: bool,
}

/// What a connection is at the moment. TLS is beside it: any of these may be behind it.
///
/// The common stage is in place; what others hold is on the heap, so that they cost an open connection nothing.
pub(crate) enum Stage<User> {
    /// HTTP/1.1, before a WebSocket or instead of one.
    Http(Box<Http>),
    /// A WebSocket.
    Open(Open<User>),
    /// The connection has ended, and is torn down (RFC 6455 §7.1.1).
    Lingering(Lingering),
}

/// A connection that speaks HTTP.
pub(crate) struct Http {
    /// Who is at the other end.
    pub(crate) peer: SocketAddr,
    pub(crate) deadline: Time,
    /// A request was answered on it: it is not a handshake in progress, and the next request may come.
    pub(crate) is_kept: bool,
    pub(crate) exchange: Exchange,
    pub(crate) stage: HttpStage,
}

/// Whose turn it is.
pub(crate) enum HttpStage {
    /// The PROXY header has still to come, before everything else; this has come of it.
    ProxyHeader(Vec<u8>),
    /// The client's: the exchange knows how much of its request is here.
    Request,
    /// The application's: it decides about an upgrade.
    Deciding(Pending),
    /// The socket's, which did not take all of a response. Nothing more is read before it has.
    Responding(Box<Outbox>),
}

/// An upgrade that the application decides about.
pub(crate) struct Pending {
    /// Of the [`HandshakeId`](crate::HandshakeId).
    pub(crate) generation: u32,
    pub(crate) acceptance: Acceptance,
}

/// What an upgrade is answered if it is accepted.
pub(crate) struct Acceptance {
    pub(crate) response: Vec<u8>,
    pub(crate) deflate: Option<NegotiatedDeflate>,
}

impl Acceptance {
    /// Adds headers; not those that cannot stand in a head, or are the handshake's.
    pub(crate) fn add_headers(&mut self, headers: &[(Box<str>, Box<str>)]) {
        for (name, value) in headers {
            let _ = add_header(&mut self.response, name, value);
        }
    }
}

/// A WebSocket.
#[expect(clippy::struct_excessive_bools, reason = "a byte each; every connection has them")]
pub(crate) struct Open<User> {
    pub(crate) connection: Connection,
    pub(crate) outbox: Option<Box<Outbox>>,
    /// The application takes no messages of it for now, and so it is not read.
    pub(crate) paused: Option<Box<Paused>>,
    pub(crate) generation: u32,
    /// It has something to write that its socket was not asked to take.
    pub(crate) dirty: bool,
    /// It is on the list of those.
    pub(crate) queued: bool,
    /// It is on the list of those for whom much has gathered.
    pub(crate) above_high_water: bool,
    /// The socket took no more: nothing is to be tried until it is writable.
    pub(crate) full: bool,
    /// A socket that was full has taken something since the heartbeat last asked.
    pub(crate) progressed: bool,
    pub(crate) slow: bool,
    /// The handler is told when its socket has taken everything.
    pub(crate) tells_written: bool,
    /// What becomes of it when it reads too slowly.
    pub(crate) slow_reader: SlowReader,
    /// Bytes that may wait for it. Half a word, as every connection has it.
    pub(crate) outgoing: u32,
    pub(crate) user: User,
}

/// What waits for the end of a pause.
#[derive(Default)]
pub(crate) struct Paused {
    /// The rest of the read in the middle of which the pause began: no more than one read holds.
    pub(crate) held: Vec<u8>,
    /// Behind that the peer has said by TLS that no more will come.
    pub(crate) has_ended: bool,
    /// It is over, and the shard is about to go on.
    pub(crate) is_over: bool,
}

/// A connection that has ended.
pub(crate) struct Lingering {
    pub(crate) teardown: Teardown,
    /// What is still to be written.
    pub(crate) outbox: Option<Box<Outbox>>,
}

impl<User> Conn<User> {
    pub(crate) fn new(transport: Transport, http: Http) -> Self {
        Self { transport, stage: Stage::Http(Box::new(http)), due: 0, queued: false }
    }

    /// How many bytes may be read: none while it is paused or its peer does not read either, and before it is a WebSocket no more than
    /// a head and its content may have, so that nobody holds more by speaking ahead of our answer.
    pub(crate) fn allowance(&self, limits: &HeadLimits) -> usize {
        match &self.stage {
            Stage::Open(open) if !open.is_readable() => 0,
            Stage::Http(http) if matches!(http.stage, HttpStage::Responding(_)) => 0,
            Stage::Http(http) => http.exchange.room(limits),
            Stage::Open(_) | Stage::Lingering(_) => usize::MAX,
        }
    }

    /// The id of a connection in the middle of a message whose next bytes the kernel may write to where they stay: not
    /// by TLS, nor from a pipe, whose bytes are in this process and are copied once either way.
    #[inline]
    pub(crate) fn receiving(&self, token: usize) -> Option<ConnectionId> {
        let Stage::Open(open) = &self.stage else { return None };
        let is_direct = self.transport.tls.is_none() && self.transport.socket.as_pipe().is_none();
        (open.connection.is_receiving() && is_direct).then(|| open.id(token))
    }

    /// Reads to where the message in progress lies; `None` when its bytes do not belong there.
    pub(crate) fn read_message(&mut self) -> Option<io::Result<Option<usize>>> {
        let Stage::Open(open) = &mut self.stage else { return None };
        let ReadInto { buffer, limit } = open.connection.read_into(LARGE)?;
        // All the room is read into, and what follows may belong elsewhere.
        (buffer.capacity() - buffer.len() == limit).then(|| self.transport.read_append(buffer))
    }

    /// Whether it is to be put on the list of those to be read again, on which it then is.
    pub(crate) fn enqueue(&mut self) -> bool {
        self.transport.readable && !std::mem::replace(&mut self.queued, true)
    }

    /// It was taken off that list.
    pub(crate) fn dequeue(&mut self) {
        self.queued = false;
    }
}

impl Http {
    /// A connection that has just come in.
    pub(crate) fn new(peer: SocketAddr, deadline: Time, has_proxy_header: bool) -> Self {
        let stage = if has_proxy_header { HttpStage::ProxyHeader(Vec::new()) } else { HttpStage::Request };
        Self { peer, deadline, is_kept: false, exchange: Exchange::default(), stage }
    }

    /// A connection that is back from an answer elsewhere.
    pub(crate) fn resumed(peer: SocketAddr, deadline: Time) -> Self {
        Self { peer, deadline, is_kept: true, exchange: Exchange::resumed(), stage: HttpStage::Request }
    }

    /// Nothing has come of a request, nor is an answer under way.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.stage, HttpStage::Request) && self.exchange.is_idle()
    }
}

impl<User> Open<User> {
    pub(crate) fn new(connection: Connection, generation: u32, settings: &Settings, user: User) -> Self {
        Self {
            connection,
            outbox: None,
            paused: None,
            generation,
            dirty: false,
            queued: false,
            above_high_water: false,
            full: false,
            progressed: false,
            slow: false,
            tells_written: false,
            slow_reader: settings.slow_reader,
            outgoing: u32::try_from(settings.outgoing).unwrap_or(u32::MAX),
            user,
        }
    }

    pub(crate) fn id(&self, token: usize) -> ConnectionId {
        ConnectionId { index: token as u32, generation: self.generation }
    }

    /// It has something to write: puts it on the list of those. Says whether so much has gathered that it is to be
    /// written at once.
    #[inline]
    pub(crate) fn queue(&mut self, id: ConnectionId, dirty: &mut VecDeque<ConnectionId>) -> bool {
        self.dirty = true;
        if !self.queued {
            self.queued = true;
            dirty.push_back(id);
        }
        if self.above_high_water || self.full || self.waiting() <= CORK.min(self.outgoing as usize) {
            return false;
        }
        self.above_high_water = true;
        true
    }

    /// Bytes that wait for the peer to read.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    /// The peer does not read, and so is not read from.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.waiting() > BACKED_UP
    }

    /// Whether what it sends may be read.
    pub(crate) fn is_readable(&self) -> bool {
        self.paused.is_none() && !self.is_backed_up()
    }

    /// Bytes of its unfinished message that count.
    pub(crate) fn excess(&self) -> usize {
        self.connection.unfinished().saturating_sub(ALLOWANCE)
    }
}

impl Lingering {
    pub(crate) fn new(deadline: Time, outbox: Option<Box<Outbox>>) -> Self {
        Self { teardown: Teardown::new(Role::Server, deadline), outbox }
    }
}

/// Bytes of a message that must be missing for a read of their own to pay.
const LARGE: usize = 16 << 10;

/// Bytes that gather for one connection before they are written, the read or the tick that they answer over or not.
const CORK: usize = 256 << 10;

/// Bytes unread by a peer above which it is not read from.
const BACKED_UP: usize = 64 << 10;

/// Bytes of an unfinished message that anybody may hold, so that those who hold much keep out nobody who sends little.
const ALLOWANCE: usize = 16 << 10;
