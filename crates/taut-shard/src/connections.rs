//! The open connections of one shard.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;
use taut_proto::deflate::NegotiatedDeflate;
use taut_proto::handshake::Refusal;
use taut_proto::{Close, Connection, Message, Outbox, Prepared, Role, Scratch, SendError, Time};

use crate::conn::{Conn, Http, Open, Stage};
use crate::id::{ConnectionId, HandshakeId};
use crate::outboxes::Outboxes;
use crate::settings::{Outgoing, Settings, SlowReader};

/// The open connections of a shard: what may be done to any of them.
pub struct Connections<User> {
    /// All sockets of the shard, by token: these connections, those that are to become some, and those that have ended.
    conns: Slab<Conn<User>>,
    open: usize,
    /// Handshakes in progress.
    pub(crate) handshakes: usize,
    /// HTTP connections that have had an answer.
    pub(crate) kept: usize,
    generation: u32,
    /// Of the handshakes.
    asked: u32,
    /// What the handler has answered and the shard has not acted on.
    pub(crate) answers: Vec<(HandshakeId, Answer<User>)>,
    /// Connections whose pause is over.
    pub(crate) resumed: Vec<ConnectionId>,
    /// Connections whose sockets have taken everything, where the handler is told so.
    pub(crate) written: Vec<ConnectionId>,
    /// Connections with something to write, each once, the longest waiting first.
    dirty: VecDeque<ConnectionId>,
    /// Connections for whom much has gathered, though their sockets may take it.
    above_high_water: Vec<ConnectionId>,
    pub(crate) outboxes: Outboxes,
    pub(crate) scratch: Scratch,
    pub(crate) now: Time,
    pub(crate) stats: Stats,
    /// Bytes that unfinished messages hold beyond what each may, but for those of `reading`.
    unfinished: usize,
    /// The connection whose message may grow or end just now.
    reading: Option<ConnectionId>,
    settings: Arc<Settings>,
    protocol: Arc<taut_proto::Settings>,
}

/// What a shard has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections opened.
    pub opened: u64,
    /// Handshakes refused, or given up at their deadline.
    pub refused: u64,
    /// Sockets dropped for a PROXY header that was missing or malformed.
    pub proxy_errors: u64,
    /// Messages received.
    pub messages: u64,
    /// Messages dropped because their reader was too slow.
    pub dropped: u64,
    /// Connections closed because their reader was too slow.
    pub slow_consumers: u64,
    /// Peers that broke the protocol.
    pub violations: u64,
    /// Connections closed because unfinished messages held all the room there is for them.
    pub overloaded: u64,
}

/// What becomes of a request in the end.
#[derive(Debug)]
pub enum Answer<User> {
    /// The upgrade is accepted, and the connection carries this.
    Accept(User),
    /// The same, and the response has further headers, of which names and values are: what cannot stand in a head is left
    /// out. `Sec-WebSocket-Protocol` may be among them, where the upgrade selected none.
    AcceptWith(User, Vec<(Box<str>, Box<str>)>),
    /// It is answered with a status, and the socket closed.
    Refuse(Refusal),
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A socket, without TLS of ours.
    Tcp,
    /// A socket with TLS.
    Tls,
    /// A [pipe](crate::pipe()) within this process.
    Pipe,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a message may not have been sent"]
pub enum Sent {
    /// It is on its way.
    Sent,
    /// The peer reads too slowly: it was dropped, or the connection with it, as the policy says, and counted.
    Slow,
    /// The connection is closing or has ended.
    Closed,
}

impl<User> Connections<User> {
    pub(crate) fn new(settings: Arc<Settings>, scratch: Scratch) -> Self {
        Self {
            conns: Slab::new(),
            open: 0,
            handshakes: 0,
            kept: 0,
            generation: 0,
            asked: 0,
            answers: Vec::new(),
            resumed: Vec::new(),
            written: Vec::new(),
            dirty: VecDeque::new(),
            above_high_water: Vec::new(),
            outboxes: Outboxes::new(),
            scratch,
            now: Time::ZERO,
            stats: Stats::default(),
            unfinished: 0,
            reading: None,
            protocol: Arc::new(settings.protocol.clone()),
            settings,
        }
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.open
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// All that are open.
    pub fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.open_conns().map(|(token, open)| open.id(token))
    }

    /// The time of this tick; it does not move within one.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What has been counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What a connection carries.
    pub fn user(&mut self, id: ConnectionId) -> Option<&mut User> {
        self.get_mut(id).map(|open| &mut open.user)
    }

    /// What carries a connection; `None` when it has ended.
    pub fn carrier(&self, id: ConnectionId) -> Option<Carrier> {
        self.get(id)?;
        let transport = &self.conns.get(id.token())?.transport;
        Some(match (&transport.tls, transport.socket.as_pipe()) {
            (Some(_), _) => Carrier::Tls,
            (None, Some(_)) => Carrier::Pipe,
            (None, None) => Carrier::Tcp,
        })
    }

    /// Bytes that wait for a connection's peer to read.
    pub fn waiting(&self, id: ConnectionId) -> usize {
        self.get(id).map_or(0, Open::waiting)
    }

    /// Sends a message. It leaves when the read or the tick that this happens in is over, with everything else
    /// that was sent until then.
    ///
    /// Nothing waits: a peer with more bytes unread than its [`Outgoing`] allows is slow, and its message or it is
    /// dropped as that says.
    pub fn send<'m>(&mut self, id: ConnectionId, message: impl Into<Message<'m>>) -> Sent {
        self.write(id, |connection, scratch, outbox| connection.send(message, scratch, outbox))
    }

    /// Sends a message that was framed once for many connections; otherwise as [`send`](Self::send).
    pub fn send_prepared(&mut self, id: ConnectionId, prepared: &Prepared) -> Sent {
        self.write(id, |connection, scratch, outbox| connection.send_prepared(prepared, scratch, outbox))
    }

    /// Has [`Handler::written`](crate::Handler::written) called once, in a later tick, when the connection's socket has taken
    /// everything that waits for its peer: for whoever has more to send, and wants to send it as fast as the peer reads.
    /// Does nothing to a connection that has ended.
    pub fn notify_written(&mut self, id: ConnectionId) {
        let Some(open) = self.get_mut(id) else { return };
        if open.waiting() > 0 {
            open.tells_written = true;
        } else {
            self.written.push(id);
        }
    }

    /// Begins the close of a connection: the peer is told, and has the close timeout to answer. Does nothing to a
    /// connection that is closing or has ended.
    pub fn close(&mut self, id: ConnectionId, close: impl Into<Close>) {
        let now = self.now;
        let close = close.into();
        self.act(id, |connection, scratch, outbox| connection.close(close, now, scratch, outbox));
        // The peer's answer is waited for. The handler gets no message any more.
        self.resume(id);
    }

    /// Stops reading a connection, until [`resume`](Self::resume): for whoever passes its messages on to somebody slower.
    ///
    /// The handler gets no message of it from now on, not even those that this read has brought: they wait, and so does
    /// what the peer sends, in its socket, until the peer cannot send any more. One read is all that the shard holds.
    /// Messages can be sent as ever.
    ///
    /// What is not read is not noticed: pings are not answered, and the peer's end or a reset shows when the connection
    /// is resumed, or at the next write. The heartbeat rests meanwhile, since no pong could be seen, and a message that
    /// has begun has its time again afterwards: nobody is given up for a silence that is ours. [`close`](Self::close)
    /// ends the pause, and so does a drain: the peer's close frame has to be read.
    ///
    /// Does nothing to a connection that is closing or has ended.
    pub fn pause(&mut self, id: ConnectionId) {
        if let Some(open) = self.get_mut(id).filter(|open| open.connection.is_open()) {
            open.paused.get_or_insert_default().is_over = false;
        }
    }

    /// Reads a connection again that was [paused](Self::pause), beginning with what waits: in this tick, once the call
    /// that this happens in is over. Does nothing to others.
    pub fn resume(&mut self, id: ConnectionId) {
        if let Some(paused) = self.get_mut(id).and_then(|open| open.paused.as_mut())
            && !std::mem::replace(&mut paused.is_over, true)
        {
            self.resumed.push(id);
        }
    }

    /// Changes how much may wait for a connection's peer, from its next message on; at first it is as
    /// [`Settings::outgoing`] and [`Settings::slow_reader`] say. Does nothing to a connection that has ended.
    pub fn set_outgoing(&mut self, id: ConnectionId, outgoing: Outgoing) {
        if let Some(open) = self.get_mut(id) {
            open.outgoing = u32::try_from(outgoing.bytes).unwrap_or(u32::MAX);
            open.slow_reader = outgoing.slow_reader;
        }
    }

    /// Answers a handshake whose verdict was [`Verdict::Pending`](crate::Verdict::Pending). The shard acts on it in this
    /// tick, once the call that this happens in is over. When the client has gone meanwhile, or its handshake's time was
    /// over, the answer is dropped.
    pub fn answer(&mut self, id: HandshakeId, answer: Answer<User>) {
        self.answers.push((id, answer));
    }

    pub(crate) fn next_handshake(&mut self, index: usize) -> HandshakeId {
        self.asked = self.asked.wrapping_add(1);
        HandshakeId { index: index as u32, generation: self.asked }
    }

    // The sockets.

    /// The token that the next socket gets.
    pub(crate) fn next_token(&self) -> usize {
        self.conns.vacant_key()
    }

    /// Takes a socket in; gives its token.
    pub(crate) fn insert(&mut self, conn: Conn<User>) -> usize {
        self.count(&conn.stage);
        self.conns.insert(conn)
    }

    /// Takes a socket out.
    pub(crate) fn remove(&mut self, token: usize) -> Option<Conn<User>> {
        let conn = self.conns.try_remove(token)?;
        self.uncount(token, &conn.stage);
        Some(conn)
    }

    /// Drops all sockets.
    pub(crate) fn clear(&mut self) {
        for token in self.conns.iter().map(|(token, _)| token).collect::<Vec<_>>() {
            self.remove(token);
        }
    }

    /// Moves a socket on to another stage; gives the one it was at.
    pub(crate) fn enter(&mut self, token: usize, stage: Stage<User>) -> Option<Stage<User>> {
        if !self.conns.contains(token) {
            return None;
        }
        self.count(&stage);
        let former = std::mem::replace(&mut self.conns[token].stage, stage);
        self.uncount(token, &former);
        Some(former)
    }

    /// Opens a connection on a socket whose handshake is done.
    pub(crate) fn open(
        &mut self,
        token: usize,
        agreed: Option<NegotiatedDeflate>,
        random: u32,
        user: User,
    ) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1);
        let mut connection = Connection::new(Role::Server, Arc::clone(&self.protocol), self.now, random);
        if let Some(agreed) = agreed {
            connection = connection.with_deflate(agreed);
        }
        let open = Open::new(connection, self.generation, &self.settings, user);
        let id = open.id(token);
        self.enter(token, Stage::Open(open));
        self.stats.opened += 1;
        id
    }

    /// A connection answers HTTP requests from now on: it is no longer a handshake in progress.
    pub(crate) fn keep(&mut self, token: usize) {
        if let Some(http) = self.http(token)
            && !std::mem::replace(&mut http.is_kept, true)
        {
            self.handshakes -= 1;
            self.kept += 1;
        }
    }

    /// How many sockets there are.
    pub(crate) fn sockets(&self) -> usize {
        self.conns.len()
    }

    pub(crate) fn conn(&mut self, token: usize) -> Option<&mut Conn<User>> {
        self.conns.get_mut(token)
    }

    /// A connection, and where its outbox comes from and goes to.
    pub(crate) fn conn_and_outboxes(&mut self, token: usize) -> Option<(&mut Conn<User>, &mut Outboxes)> {
        Some((self.conns.get_mut(token)?, &mut self.outboxes))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn conns(&self) -> impl Iterator<Item = (usize, &Conn<User>)> {
        self.conns.iter()
    }

    /// A connection that speaks HTTP.
    pub(crate) fn http(&mut self, token: usize) -> Option<&mut Http> {
        match &mut self.conns.get_mut(token)?.stage {
            Stage::Http(http) => Some(http),
            Stage::Open(_) | Stage::Lingering(_) => None,
        }
    }

    /// Those that speak HTTP.
    pub(crate) fn http_conns(&self) -> impl Iterator<Item = (usize, &Http)> {
        self.conns.iter().filter_map(|(token, conn)| match &conn.stage {
            Stage::Http(http) => Some((token, &**http)),
            Stage::Open(_) | Stage::Lingering(_) => None,
        })
    }

    fn open_conns(&self) -> impl Iterator<Item = (usize, &Open<User>)> {
        self.conns.iter().filter_map(|(token, conn)| match &conn.stage {
            Stage::Open(open) => Some((token, open)),
            Stage::Http(_) | Stage::Lingering(_) => None,
        })
    }

    pub(crate) fn id_at(&self, token: usize) -> Option<ConnectionId> {
        match &self.conns.get(token)?.stage {
            Stage::Open(open) => Some(open.id(token)),
            Stage::Http(_) | Stage::Lingering(_) => None,
        }
    }

    fn get(&self, id: ConnectionId) -> Option<&Open<User>> {
        match &self.conns.get(id.token())?.stage {
            Stage::Open(open) if open.generation == id.generation => Some(open),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Open<User>> {
        open_in(&mut self.conns, id)
    }

    fn count(&mut self, stage: &Stage<User>) {
        if let Some(count) = self.counter(stage) {
            *count += 1;
        }
    }

    fn uncount(&mut self, token: usize, stage: &Stage<User>) {
        if let Some(count) = self.counter(stage) {
            *count -= 1;
        }
        if let Stage::Open(open) = stage
            && self.reading != Some(open.id(token))
        {
            self.unfinished -= open.excess();
        }
    }

    fn counter(&mut self, stage: &Stage<User>) -> Option<&mut usize> {
        match stage {
            Stage::Http(http) if http.is_kept => Some(&mut self.kept),
            Stage::Http(_) => Some(&mut self.handshakes),
            Stage::Open(_) => Some(&mut self.open),
            Stage::Lingering(_) => None,
        }
    }

    /// How many outboxes open connections have, and the bytes in them.
    #[cfg(feature = "testing")]
    pub(crate) fn outboxes(&self) -> (usize, usize) {
        let outboxes = self.open_conns().filter_map(|(_, open)| open.outbox.as_ref());
        outboxes.fold((0, 0), |(count, bytes), outbox| (count + 1, bytes + outbox.len()))
    }

    // What they receive and are sent.

    /// A connection's unfinished message may grow or end from now on, until [`has_read`](Self::has_read).
    pub(crate) fn begin_reading(&mut self, id: ConnectionId) {
        self.unfinished -= self.get(id).map_or(0, Open::excess);
        self.reading = Some(id);
    }

    /// Accounts for what a connection's message holds now. Says what to do about that.
    pub(crate) fn has_read(&mut self, id: ConnectionId) -> Unfinished {
        self.reading = None;
        let Some(open) = self.get(id).filter(|open| open.connection.is_receiving()) else {
            return Unfinished::None;
        };
        let excess = open.excess();
        let has_room = excess == 0 || self.unfinished + excess <= self.settings.unfinished;
        self.unfinished += excess;
        if has_room { Unfinished::Some } else { Unfinished::TooMuch }
    }

    /// Bytes that unfinished messages hold beyond what each may.
    #[cfg(feature = "testing")]
    pub(crate) fn unfinished(&self) -> usize {
        let counted: usize = self.open_conns().map(|(_, open)| open.excess()).sum();
        assert_eq!(self.unfinished, counted, "what is counted is what is held");
        counted
    }

    /// Lets a connection act, on its deadline for instance.
    pub(crate) fn act<T>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut Scratch, &mut Outbox) -> T,
    ) -> Option<T> {
        let open = open_in(&mut self.conns, id)?;
        let outbox = open.outbox.get_or_insert_with(|| self.outboxes.take());
        let outcome = act(&mut open.connection, &mut self.scratch, outbox);
        if open.queue(id, &mut self.dirty) {
            self.above_high_water.push(id);
        }
        Some(outcome)
    }

    /// A connection that is to receive bytes, unless it is paused, and what that takes. Its replies are not queued: they
    /// are flushed when the read is over.
    #[inline]
    pub(crate) fn receiver(&mut self, id: ConnectionId) -> Result<(&mut Connection, &mut Scratch, &mut Outbox), Idle> {
        let open = open_in(&mut self.conns, id).ok_or(Idle::Gone)?;
        if open.paused.is_some() {
            return Err(Idle::Paused);
        }
        let outbox = open.outbox.get_or_insert_with(|| self.outboxes.take());
        Ok((&mut open.connection, &mut self.scratch, outbox))
    }

    /// Holds what was read of a connection that is paused.
    pub(crate) fn hold(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(paused) = self.get_mut(id).and_then(|open| open.paused.as_mut()) {
            paused.held.extend_from_slice(bytes);
        }
    }

    /// Takes one of those for whom much has gathered.
    pub(crate) fn pop_above_high_water(&mut self) -> Option<ConnectionId> {
        let id = self.above_high_water.pop()?;
        if let Some(open) = self.get_mut(id) {
            open.above_high_water = false;
        }
        Some(id)
    }

    /// How many may have something to write.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Takes the connection that is next to be written: none that was written since, nor one whose socket is full and
    /// will say when it has room.
    pub(crate) fn pop_dirty(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.dirty.pop_front() {
            let Some(open) = self.get_mut(id) else { continue };
            let may_write = !open.full || open.slow || !open.connection.is_open();
            open.queued = false;
            if std::mem::take(&mut open.dirty) && may_write {
                return Some(id);
            }
        }
        None
    }

    #[inline]
    fn write(
        &mut self,
        id: ConnectionId,
        write: impl FnOnce(&mut Connection, &mut Scratch, &mut Outbox) -> Result<(), SendError>,
    ) -> Sent {
        let Some(open) = open_in(&mut self.conns, id) else { return Sent::Closed };
        let outbox = open.outbox.get_or_insert_with(|| self.outboxes.take());
        // A message of any size may go to a reader that has kept up.
        if outbox.len() > open.outgoing as usize {
            return self.overrun(id);
        }
        let outcome = write(&mut open.connection, &mut self.scratch, outbox);
        if open.queue(id, &mut self.dirty) {
            self.above_high_water.push(id);
        }
        if outcome.is_ok() { Sent::Sent } else { Sent::Closed }
    }

    fn overrun(&mut self, id: ConnectionId) -> Sent {
        let Some(open) = self.get_mut(id) else { return Sent::Closed };
        let policy = open.slow_reader;
        let first = policy == SlowReader::Close && !std::mem::replace(&mut open.slow, true);
        if policy == SlowReader::Drop {
            self.stats.dropped += 1;
        } else if first {
            // Its close frame could only wait behind what it does not read: the shard drops it at once.
            self.stats.slow_consumers += 1;
            self.act(id, |_, _, _| ());
        }
        Sent::Slow
    }
}

/// Apart from the rest, whose other parts are borrowed beside it.
#[inline]
fn open_in<User>(conns: &mut Slab<Conn<User>>, id: ConnectionId) -> Option<&mut Open<User>> {
    match &mut conns.get_mut(id.token())?.stage {
        Stage::Open(open) if open.generation == id.generation => Some(open),
        _ => None,
    }
}

/// What a read has left of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    None,
    /// It is to go on.
    Some,
    /// There is no room for so much.
    TooMuch,
}

/// Why a connection did not act.
pub(crate) enum Idle {
    Gone,
    Paused,
}
