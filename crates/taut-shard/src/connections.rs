//! The open connections of one shard.

use std::collections::VecDeque;
use std::sync::Arc;

use taut_proto::deflate::Agreed;
use taut_proto::handshake::Refusal;
use taut_proto::{Close, Connection, Message, Outbox, Prepared, Role, Scratch, SendError, Time};

use crate::outboxes::Outboxes;
use crate::settings::{Outgoing, Settings, SlowReader};

/// Names a connection of one shard, for as long as it lives and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) index: u32,
    generation: u32,
}

/// Names a handshake of one shard that waits for its answer, until it has it or has ended, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandshakeId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// The open connections of a shard: what may be done to any of them.
pub struct Connections<User> {
    members: Vec<Option<Member<User>>>,
    open: usize,
    generation: u32,
    /// Of the handshakes.
    asked: u32,
    /// What the handler has answered and the shard has not acted on.
    pub(crate) answers: Vec<(HandshakeId, Answer<User>)>,
    /// Connections with something to write, each once, the longest waiting first.
    dirty: VecDeque<ConnectionId>,
    /// Connections for whom much has gathered, though their sockets may take it.
    brimming: Vec<ConnectionId>,
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

/// What becomes of a request in the end.
#[derive(Debug)]
pub enum Answer<User> {
    /// The upgrade is accepted, and the connection carries this.
    Accept(User),
    /// It is answered with a status, and the socket closed.
    Refuse(Refusal),
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

/// What a shard has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections opened.
    pub opened: u64,
    /// Handshakes refused, or given up at their deadline.
    pub refused: u64,
    /// Sockets dropped for a PROXY header that was missing or malformed.
    pub unannounced: u64,
    /// Messages received.
    pub messages: u64,
    /// Messages dropped because their reader was too slow.
    pub dropped: u64,
    /// Connections closed because their reader was too slow.
    pub kicked: u64,
    /// Peers that broke the protocol.
    pub violations: u64,
    /// Connections closed because unfinished messages held all the room there is for them.
    pub overloaded: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "a byte each; every connection has them")]
pub(crate) struct Member<User> {
    pub(crate) connection: Connection,
    pub(crate) outbox: Option<Box<Outbox>>,
    generation: u32,
    /// It has something to write that its socket was not asked to take.
    dirty: bool,
    /// It is on the list of those.
    queued: bool,
    /// It is on the list of those for whom much has gathered.
    brimming: bool,
    /// The socket took no more: nothing is to be tried until it is writable.
    pub(crate) full: bool,
    /// A socket that was full has taken something since the heartbeat last asked.
    pub(crate) moved: bool,
    pub(crate) slow: bool,
    /// What becomes of it when it reads too slowly.
    slow_reader: SlowReader,
    /// Bytes that may wait for it. Half a word, as every connection has it.
    outgoing: u32,
    user: User,
}

impl<User> Connections<User> {
    pub(crate) fn new(settings: Arc<Settings>, scratch: Scratch) -> Self {
        Self {
            members: Vec::new(),
            open: 0,
            generation: 0,
            asked: 0,
            answers: Vec::new(),
            dirty: VecDeque::new(),
            brimming: Vec::new(),
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
        self.members.iter().enumerate().filter_map(|(index, member)| {
            member.as_ref().map(|member| ConnectionId { index: index as u32, generation: member.generation })
        })
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
        self.member(id).map(|member| &mut member.user)
    }

    /// Bytes that wait for a connection's peer to read.
    pub fn waiting(&self, id: ConnectionId) -> usize {
        let member = self.members.get(id.index as usize).and_then(Option::as_ref);
        member.and_then(|member| member.outbox.as_ref()).map_or(0, |outbox| outbox.len())
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

    /// Begins the close of a connection: the peer is told, and has the close timeout to answer. Does nothing to a
    /// connection that is closing or has ended.
    pub fn close(&mut self, id: ConnectionId, close: impl Into<Close>) {
        let now = self.now;
        let close = close.into();
        self.act(id, |connection, scratch, outbox| connection.close(close, now, scratch, outbox));
    }

    /// Changes how much may wait for a connection's peer, from its next message on; at first it is as
    /// [`Settings::outgoing`] and [`Settings::slow_reader`] say. Does nothing to a connection that has ended.
    pub fn set_outgoing(&mut self, id: ConnectionId, outgoing: Outgoing) {
        if let Some(member) = self.member(id) {
            member.outgoing = saturate(outgoing.bytes);
            member.slow_reader = outgoing.slow_reader;
        }
    }

    /// Answers a handshake whose verdict was [`Verdict::Later`](crate::Verdict::Later). The shard acts on it in this
    /// tick, once the call that this happens in is over. When the client has gone meanwhile, or its handshake's time was
    /// over, the answer is dropped.
    pub fn answer(&mut self, id: HandshakeId, answer: Answer<User>) {
        self.answers.push((id, answer));
    }

    pub(crate) fn next_handshake(&mut self, index: usize) -> HandshakeId {
        self.asked = self.asked.wrapping_add(1);
        HandshakeId { index: index as u32, generation: self.asked }
    }

    pub(crate) fn open(&mut self, index: usize, agreed: Option<Agreed>, random: u32, user: User) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1);
        let mut connection = Connection::new(Role::Server, Arc::clone(&self.protocol), self.now, random);
        if let Some(agreed) = agreed {
            connection = connection.with_deflate(agreed);
        }
        if self.members.len() <= index {
            self.members.resize_with(index + 1, || None);
        }
        let generation = self.generation;
        let member = Member {
            connection,
            outbox: None,
            generation,
            dirty: false,
            queued: false,
            brimming: false,
            full: false,
            moved: false,
            slow: false,
            slow_reader: self.settings.slow_reader,
            outgoing: saturate(self.settings.outgoing),
            user,
        };
        self.members[index] = Some(member);
        self.open += 1;
        self.stats.opened += 1;
        ConnectionId { index: index as u32, generation }
    }

    pub(crate) fn id_at(&self, index: usize) -> Option<ConnectionId> {
        let member = self.members.get(index)?.as_ref()?;
        Some(ConnectionId { index: index as u32, generation: member.generation })
    }

    pub(crate) fn member(&mut self, id: ConnectionId) -> Option<&mut Member<User>> {
        self.members.get_mut(id.index as usize)?.as_mut().filter(|member| member.generation == id.generation)
    }

    /// How many outboxes open connections have, and the bytes in them.
    #[cfg(feature = "testing")]
    pub(crate) fn outboxes(&self) -> (usize, usize) {
        let outboxes = self.members.iter().flatten().filter_map(|member| member.outbox.as_ref());
        outboxes.fold((0, 0), |(count, bytes), outbox| (count + 1, bytes + outbox.len()))
    }

    /// Takes a connection out; gives what it carried and what it had still to write.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<(User, Option<Box<Outbox>>)> {
        self.member(id)?;
        let member = self.members[id.index as usize].take()?;
        self.open -= 1;
        if self.reading != Some(id) {
            self.unfinished -= excess(&member.connection);
        }
        Some((member.user, member.outbox))
    }

    /// A connection's unfinished message may grow or end from now on, until [`has_read`](Self::has_read).
    pub(crate) fn begin_reading(&mut self, id: ConnectionId) {
        self.unfinished -= self.member(id).map_or(0, |member| excess(&member.connection));
        self.reading = Some(id);
    }

    /// Takes into account what a connection's message holds now; what is to be done about it.
    pub(crate) fn has_read(&mut self, id: ConnectionId) -> Unfinished {
        self.reading = None;
        let Some(member) = self.member(id).filter(|member| member.connection.is_receiving()) else {
            return Unfinished::None;
        };
        let excess = excess(&member.connection);
        let has_room = excess == 0 || self.unfinished + excess <= self.settings.unfinished;
        self.unfinished += excess;
        if has_room { Unfinished::Some } else { Unfinished::TooMuch }
    }

    /// Bytes that unfinished messages hold beyond what each may.
    #[cfg(feature = "testing")]
    pub(crate) fn unfinished(&self) -> usize {
        let counted: usize = self.members.iter().flatten().map(|member| excess(&member.connection)).sum();
        assert_eq!(self.unfinished, counted, "what is counted is what is held");
        counted
    }

    /// Lets a connection act on what it has received or on its deadline.
    #[inline]
    pub(crate) fn act<T>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut Scratch, &mut Outbox) -> T,
    ) -> Option<T> {
        self.act_within(false, id, act).ok()
    }

    /// The same, unless it is to be bounded and more waits to be written than may.
    #[inline]
    fn act_within<T>(
        &mut self,
        is_bounded: bool,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut Scratch, &mut Outbox) -> T,
    ) -> Result<T, Idle> {
        let member = self.members.get_mut(id.index as usize).and_then(Option::as_mut);
        let member = member.filter(|member| member.generation == id.generation).ok_or(Idle::Gone)?;
        let outbox = member.outbox.get_or_insert_with(|| self.outboxes.take());
        let allowed = member.outgoing as usize;
        if is_bounded && outbox.len() > allowed {
            return Err(Idle::Slow);
        }
        let outcome = act(&mut member.connection, &mut self.scratch, outbox);
        member.dirty = true;
        if !member.queued {
            member.queued = true;
            self.dirty.push_back(id);
        }
        if outbox.len() > allowed.min(CORK) && !member.full && !member.brimming {
            member.brimming = true;
            self.brimming.push(id);
        }
        Ok(outcome)
    }

    /// Takes one of those for whom much has gathered.
    pub(crate) fn pop_brimming(&mut self) -> Option<ConnectionId> {
        let id = self.brimming.pop()?;
        if let Some(member) = self.member(id) {
            member.brimming = false;
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
            let Some(member) = self.member(id) else { continue };
            let may_write = !member.full || member.slow || !member.connection.is_open();
            member.queued = false;
            if std::mem::take(&mut member.dirty) && may_write {
                return Some(id);
            }
        }
        None
    }

    /// Takes the mark off a connection that is about to be written.
    pub(crate) fn clean(&mut self, id: ConnectionId) {
        if let Some(member) = self.member(id) {
            member.dirty = false;
        }
    }

    fn write(
        &mut self,
        id: ConnectionId,
        write: impl FnOnce(&mut Connection, &mut Scratch, &mut Outbox) -> Result<(), SendError>,
    ) -> Sent {
        // A message of any size may go to a reader that has kept up.
        match self.act_within(true, id, write) {
            Ok(Ok(())) => Sent::Sent,
            Ok(Err(_)) | Err(Idle::Gone) => Sent::Closed,
            Err(Idle::Slow) => self.overrun(id),
        }
    }

    fn overrun(&mut self, id: ConnectionId) -> Sent {
        let Some(member) = self.member(id) else { return Sent::Closed };
        let policy = member.slow_reader;
        let first = policy == SlowReader::Close && !std::mem::replace(&mut member.slow, true);
        if policy == SlowReader::Drop {
            self.stats.dropped += 1;
        } else if first {
            // Its close frame could only wait behind what it does not read: the shard drops it at once.
            self.stats.kicked += 1;
            self.act(id, |_, _, _| ());
        }
        Sent::Slow
    }
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
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

/// Bytes of its unfinished message that count.
fn excess(connection: &Connection) -> usize {
    connection.unfinished().saturating_sub(ALLOWANCE)
}

/// Why a connection did not act.
enum Idle {
    Gone,
    Slow,
}

/// Bytes of an unfinished message that anybody may hold, so that those who hold much keep out nobody who sends little.
const ALLOWANCE: usize = 16 << 10;

/// Bytes that gather for one connection before they are written, the read or the tick that they answer over or not.
const CORK: usize = 256 << 10;
