//! One thread's loop: wait, read, act, deliver, write.

mod accept;
#[cfg(feature = "testing")]
mod census;
mod drain;
mod exchange;
mod opening;

use std::io;
use std::mem;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use taut_proto::{Close, CloseCode, Event, Input, Outbox, Scratch, Time};

use crate::connections::{ConnectionId, Connections, Stats, Unfinished};
use crate::deadlines::Deadlines;
use crate::handler::{Closed, Handler, Reason, Session};
use crate::intake::Intake;
use crate::mailbox::Mailbox;
use crate::socket::{Kernel, Ready, System};
use crate::wire::{self, Phase, Wire};
use crate::{Settings, wire::RECORD};
use accept::ACCEPT;
#[cfg(feature = "testing")]
pub use census::Census;
use drain::{DRAIN_STEP, Draining};
pub use drain::{Drain, DrainGroup, Drainer};
use exchange::skip_empty_lines;

/// Many connections on one thread.
///
/// A tick: wait for the kernel; read each socket that has bytes, hand its messages to the handler and write the
/// replies at once, in one write; accept; take the mail; handle deadlines; then write, once each, the connections
/// that were sent something on the way.
pub struct Shard<H: Handler, K: Kernel = System> {
    pub(crate) kernel: K,
    pub(crate) handler: H,
    pub(crate) settings: Arc<Settings>,
    /// By token; open ones have a member in `connections` at the same index.
    pub(crate) wires: Slab<Wire<K::Socket>>,
    pub(crate) connections: Connections<H::User>,
    pub(crate) deadlines: Deadlines,
    pub(crate) mailbox: Mailbox<H::Mail>,
    pub(crate) intake: Intake<K::Stream>,
    pub(crate) drain: Arc<drain::Shared>,
    pub(crate) draining: Option<Draining>,
    buffer: Box<[u8]>,
    plain: Box<[u8]>,
    /// Where answers to requests are written.
    pub(crate) response: Vec<u8>,
    /// For the next request.
    pub(crate) spare: Vec<u8>,
    /// Sockets that have more to read than one tick gives them.
    again: Vec<usize>,
    /// The listener has more sockets, as far as is known.
    pub(crate) accepting: bool,
    /// Since when the system has had no descriptor for the socket that is next.
    pub(crate) starved: Option<Time>,
    pub(crate) handshakes: usize,
    /// HTTP connections that have had an answer.
    pub(crate) kept: usize,
    ready: Vec<Ready>,
    expired: Vec<(usize, u64)>,
}

impl<H: Handler> Shard<H> {
    /// A shard on a bound listener; see [`listen`](crate::listen()) for several on one address.
    pub fn new(listener: TcpListener, handler: H, settings: Settings) -> io::Result<Self> {
        Ok(Self::on(System::new(listener)?, handler, settings))
    }
}

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// A shard on a kernel of one's own: a test's.
    pub fn on(kernel: K, handler: H, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let mailbox = Mailbox::new(MAILBOX, kernel.waker());
        let intake = Intake::new(kernel.waker());
        let plain = if settings.tls.is_some() { settings.read_buffer + RECORD } else { 0 };
        Self {
            kernel,
            handler,
            wires: Slab::new(),
            // A server draws no mask keys.
            connections: Connections::new(Arc::clone(&settings), Scratch::new(|_| {})),
            deadlines: Deadlines::new(),
            mailbox,
            intake,
            drain: Arc::default(),
            draining: None,
            buffer: vec![0; settings.read_buffer].into(),
            plain: vec![0; plain].into(),
            response: Vec::new(),
            spare: Vec::new(),
            again: Vec::new(),
            accepting: true,
            starved: None,
            handshakes: 0,
            kept: 0,
            ready: Vec::new(),
            expired: Vec::new(),
            settings,
        }
    }

    /// Where other threads put mail for the handler.
    pub fn mailbox(&self) -> Mailbox<H::Mail> {
        self.mailbox.clone()
    }

    /// How other threads hand the shard sockets that are connected already.
    pub fn intake(&self) -> Intake<K::Stream> {
        self.intake.clone()
    }

    /// How other threads stop the shard.
    pub fn drainer(&self) -> Drainer {
        Drainer { shared: Arc::clone(&self.drain), wake: self.kernel.waker() }
    }

    /// The handler, between ticks.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// What the shard has counted.
    pub fn stats(&self) -> Stats {
        self.connections.stats()
    }

    /// Runs until it was drained.
    pub fn run(mut self) -> io::Result<()> {
        while self.tick()? {}
        Ok(())
    }

    /// One turn of the loop; whether there is to be another.
    pub fn tick(&mut self) -> io::Result<bool> {
        let timeout = self.timeout();
        let mut ready = mem::take(&mut self.ready);
        self.kernel.wait(timeout, &mut ready)?;
        self.connections.now = self.kernel.now();
        for token in mem::take(&mut self.again) {
            if let Some(wire) = self.wires.get_mut(token) {
                wire.queued = false;
                self.read(token);
            }
        }
        for ready in ready.drain(..) {
            match ready {
                Ready::Accept => self.accepting = true,
                Ready::Socket { token, readable, writable, ended } => self.ready(token, readable, writable, ended),
            }
            self.flush_brimming();
        }
        self.ready = ready;
        self.handle_mail();
        self.handle_answers();
        self.handle_deadlines();
        self.adopt();
        self.accept();
        self.continue_draining();
        self.flush_dirty();
        self.connections.outboxes.trim(self.connections.now);
        Ok(!self.is_drained())
    }

    #[cfg(feature = "testing")]
    pub(crate) fn watched(&self) -> &H {
        &self.handler
    }

    fn timeout(&mut self) -> Option<Duration> {
        let may_accept = (self.accepting || !self.intake.is_empty()) && self.has_room();
        let has_work = self.connections.dirty() > 0 || !self.connections.answers.is_empty();
        if !self.again.is_empty() || may_accept || self.intake.has_returned() || !self.mailbox.is_empty() || has_work {
            return Some(Duration::ZERO);
        }
        // By the time of the tick that is over: a deadline is not so exact that its length would count.
        let deadline = self.deadlines.until_next(self.connections.now);
        match &self.draining {
            Some(_) => Some(deadline.unwrap_or(DRAIN_STEP).min(DRAIN_STEP)),
            None => deadline,
        }
    }

    fn ready(&mut self, token: usize, readable: bool, writable: bool, ended: bool) {
        let Some(wire) = self.wires.get_mut(token) else { return };
        wire.readable |= readable || ended;
        wire.ended |= ended;
        if writable {
            self.flush(token);
        }
        if readable || ended {
            self.read(token);
        }
        if ended && self.allowance(token) == 0 {
            self.handle_unread_end(token);
        }
    }

    // Reading.

    fn read(&mut self, token: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        self.read_into(token, &mut buffer);
        self.buffer = buffer;
    }

    fn read_into(&mut self, token: usize, buffer: &mut [u8]) {
        for _ in 0..READS {
            // When it is paused, it is read on once the peer has read, or its handshake is answered.
            let bytes = self.allowance(token).min(buffer.len());
            if bytes == 0 || !self.read_once(token, &mut buffer[..bytes]) {
                return;
            }
        }
        self.read_again(token);
    }

    /// One read and what comes of it; whether there may be another.
    fn read_once(&mut self, token: usize, buffer: &mut [u8]) -> bool {
        let Some(wire) = self.wires.get_mut(token).filter(|wire| wire.readable) else { return false };
        match wire.read(buffer) {
            Ok(None) => return false,
            Ok(Some(0)) => {
                match &wire.phase {
                    Phase::Handshake(opening) if opening.content.is_some() => self.hand_over_unfinished(token),
                    _ => self.handle_end(token),
                }
                return false;
            }
            Ok(Some(count)) => self.received(token, &mut buffer[..count]),
            Err(error) => {
                self.fail(token, error);
                return false;
            }
        }
        self.flush(token);
        true
    }

    /// In the next tick, after the others had their turn.
    pub(crate) fn read_again(&mut self, token: usize) {
        if let Some(wire) = self.wires.get_mut(token)
            && wire.readable
            && !mem::replace(&mut wire.queued, true)
        {
            self.again.push(token);
        }
    }

    /// How many bytes may be read from a peer: none if it does not read either, and in its handshake no more than a
    /// head and its content may have, so that nobody holds more by speaking ahead of our answer.
    fn allowance(&self, token: usize) -> usize {
        match self.wires.get(token).map(|wire| &wire.phase) {
            Some(Phase::Open) if self.is_paused(token) => 0,
            Some(Phase::Handshake(opening)) if opening.unsent.is_some() => 0,
            Some(Phase::Handshake(opening)) => {
                (self.settings.head.bytes + opening.content.unwrap_or_default()).saturating_sub(opening.bytes.len())
            }
            _ => usize::MAX,
        }
    }

    /// The peer of an open connection does not read.
    fn is_paused(&self, token: usize) -> bool {
        self.connections.id_at(token).is_some_and(|id| self.connections.waiting(id) > PAUSE)
    }

    /// Bytes have come on a socket.
    pub(crate) fn received(&mut self, token: usize, bytes: &mut [u8]) {
        let Some(wire) = self.wires.get_mut(token) else { return };
        match &wire.phase {
            // After our end nothing counts but the peer's.
            Phase::Lingering { shut: true, .. } => return,
            Phase::Handshake(opening) if opening.is_announced => return self.announcement(token, bytes),
            _ => {}
        }
        let Some(tls) = &mut wire.tls else { return self.plaintext(token, bytes) };
        let mut plain = mem::take(&mut self.plain);
        let decrypted = wire::decrypt(tls, bytes, &mut plain);
        match decrypted {
            Ok((count, ended)) => {
                self.plaintext(token, &mut plain[..count]);
                if ended {
                    self.handle_end(token);
                }
            }
            Err(error) => {
                // The alert that says what was wrong, if the socket takes it.
                if let Some(wire) = self.wires.get_mut(token) {
                    let _ = wire.write_tls();
                }
                self.fail(token, error);
            }
        }
        self.plain = plain;
    }

    pub(crate) fn plaintext(&mut self, token: usize, bytes: &mut [u8]) {
        match self.wires.get_mut(token).map(|wire| &mut wire.phase) {
            Some(Phase::Handshake(opening)) => {
                let begins = opening.is_kept && opening.bytes.is_empty();
                let bytes = if begins { skip_empty_lines(bytes) } else { bytes };
                if bytes.is_empty() {
                    return;
                }
                if opening.bytes.capacity() == 0 {
                    opening.bytes = mem::take(&mut self.spare);
                }
                opening.bytes.extend_from_slice(bytes);
                self.advance(token);
                if begins {
                    self.expect_rest(token);
                }
            }
            Some(Phase::Open) => self.messages(token, bytes),
            Some(Phase::Lingering { .. }) | None => {}
        }
    }

    pub(crate) fn messages(&mut self, token: usize, bytes: &mut [u8]) {
        let Some(id) = self.connections.id_at(token) else { return };
        self.connections.begin_reading(id);
        self.messages_of(token, id, bytes);
        match self.connections.has_read(id) {
            Unfinished::None => {}
            // It has a deadline now, which may be sooner than what the wheel holds.
            Unfinished::Some => self.schedule(token),
            Unfinished::TooMuch => self.shed(token, id),
        }
    }

    fn messages_of(&mut self, token: usize, id: ConnectionId, bytes: &mut [u8]) {
        let now = self.connections.now;
        let mut input = Input::new(bytes);
        loop {
            let received = self.connections.act(id, |connection, scratch, outbox| {
                (connection.receive(&mut input, now, scratch, outbox), connection.is_open())
            });
            let Some((event, is_open)) = received else { return };
            match event {
                Ok(None) => return,
                Ok(Some(Event::Message(message))) => {
                    self.connections.stats.messages += 1;
                    // After our close frame the handler has nothing more to hear.
                    if is_open {
                        self.handler.message(&mut Session::new(id, &mut self.connections), message);
                    }
                    self.flush_brimming();
                }
                Ok(Some(Event::Close(close))) => {
                    let was_cut_off = self.connections.member(id).is_some_and(|member| member.connection.was_cut_off());
                    let reason = if was_cut_off { Reason::CutOff(close) } else { Reason::Closed(close) };
                    return self.finish(token, reason);
                }
                Ok(Some(_)) => {}
                Err(violation) => {
                    self.connections.stats.violations += 1;
                    return self.finish(token, Reason::Violated(violation));
                }
            }
        }
    }

    /// There is no room for so much of an unfinished message.
    fn shed(&mut self, token: usize, id: ConnectionId) {
        self.connections.stats.overloaded += 1;
        let close = Close::new(CloseCode::TRY_AGAIN_LATER, "too many unfinished messages");
        self.connections.begin_reading(id);
        self.connections.act(id, |connection, scratch, outbox| connection.fail(&close, scratch, outbox));
        self.finish(token, Reason::Overloaded);
        self.connections.has_read(id);
    }

    // Ending.

    /// The peer has nothing more to say.
    pub(crate) fn handle_end(&mut self, token: usize) {
        let Some(wire) = self.wires.get(token) else { return };
        match wire.phase {
            Phase::Open => {
                self.flush(token);
                self.drop_connection(token, Reason::Ended);
            }
            // Whoever has asked is still to be answered, and may have asked for more than that.
            Phase::Handshake(ref opening) if opening.unsent.is_some() => {}
            Phase::Handshake(_) => {
                self.end_handshake(token);
                // Its end is answered by TLS too, if the socket takes that at once.
                let _ = self.wires.remove(token).shutdown();
            }
            Phase::Lingering { .. } => drop(self.wires.remove(token)),
        }
    }

    /// The peer has nothing more to say, nor waits for the answer to its handshake: what it has said is not read.
    fn handle_unread_end(&mut self, token: usize) {
        if matches!(self.wires.get(token), Some(Wire { phase: Phase::Handshake(_), .. })) {
            self.handle_end(token);
        }
    }

    /// The socket has failed.
    fn fail(&mut self, token: usize, error: io::Error) {
        match self.wires.get(token).map(|wire| &wire.phase) {
            Some(Phase::Open) => self.drop_connection(token, Reason::Failed(error)),
            Some(_) => {
                self.end_handshake(token);
                self.wires.remove(token);
            }
            None => {}
        }
    }

    /// The connection has ended, by the protocol: what is in its outbox is still written.
    fn finish(&mut self, token: usize, reason: Reason) {
        let Some((closed, outbox)) = self.remove(token, reason) else { return };
        self.linger(token, outbox);
        self.handler.closed(&mut self.connections, closed);
    }

    /// The connection has ended, and nothing more can be said.
    pub(crate) fn drop_connection(&mut self, token: usize, reason: Reason) {
        // It may have been dropped on the way here: by a last write that failed, or as a slow reader.
        let Some((closed, _)) = self.remove(token, reason) else { return };
        self.wires.remove(token);
        self.handler.closed(&mut self.connections, closed);
    }

    fn remove(&mut self, token: usize, reason: Reason) -> Option<Removed<H::User>> {
        let id = self.connections.id_at(token)?;
        let (user, outbox) = self.connections.remove(id)?;
        Some((Closed { id, user, reason }, outbox))
    }

    pub(crate) fn linger(&mut self, token: usize, outbox: Option<Box<Outbox>>) {
        let deadline = self.connections.now + self.settings.protocol.close_timeout;
        self.wires[token].phase = Phase::Lingering { deadline, outbox, shut: false };
        self.set_deadline(token, deadline);
        self.flush(token);
    }

    // Writing.

    /// Writes to those that were sent something, but not to all of them at once when they are many: what comes for
    /// them meanwhile goes into the same writes, and neither a handshake nor a pong waits for ten thousand writes.
    fn flush_dirty(&mut self) {
        let share = (self.connections.dirty() / SHARES).max(FLUSHES);
        for _ in 0..share {
            let Some(id) = self.connections.pop_dirty() else { return };
            self.flush(id.index as usize);
        }
    }

    /// Writes to those for whom much has gathered, so that it does not count against them as if they were slow:
    /// their sockets have not been asked.
    pub(crate) fn flush_brimming(&mut self) {
        while let Some(id) = self.connections.pop_brimming() {
            self.flush(id.index as usize);
        }
    }

    /// Writes what a connection has to write.
    pub(crate) fn flush(&mut self, token: usize) {
        let Some(wire) = self.wires.get_mut(token) else { return };
        match &mut wire.phase {
            Phase::Open => self.flush_open(token),
            Phase::Handshake(_) => {
                if let Err(error) = wire.write_tls() {
                    return self.fail(token, error);
                }
                self.flush_response(token);
                self.advance(token);
            }
            Phase::Lingering { outbox, .. } => {
                let outbox = outbox.take();
                self.flush_lingering(token, outbox);
            }
        }
    }

    fn flush_open(&mut self, token: usize) {
        let Some(id) = self.connections.id_at(token) else { return };
        self.connections.clean(id);
        let Some(member) = self.connections.member(id) else { return };
        if member.slow {
            return self.drop_connection(token, Reason::Slow);
        }
        let closing = !member.connection.is_open();
        let Some(mut outbox) = member.outbox.take() else {
            if let Err(error) = self.wires[token].write_tls() {
                self.drop_connection(token, Reason::Failed(error));
            }
            return;
        };
        let waiting = outbox.len();
        match self.wires[token].write(&mut outbox) {
            Ok(true) => {
                self.connections.outboxes.give(outbox);
                if let Some(member) = self.connections.member(id) {
                    member.full = false;
                }
                // It may have been left unread while it did not read.
                self.read_again(token);
            }
            Ok(false) => {
                let is_paused = outbox.len() > PAUSE;
                if let Some(member) = self.connections.member(id) {
                    member.moved |= member.full && outbox.len() < waiting;
                    member.outbox = Some(outbox);
                    member.full = true;
                }
                if !is_paused {
                    self.read_again(token);
                }
            }
            Err(error) => return self.drop_connection(token, Reason::Failed(error)),
        }
        if closing {
            self.schedule(token);
        }
    }

    fn flush_lingering(&mut self, token: usize, outbox: Option<Box<Outbox>>) {
        let Some(wire) = self.wires.get_mut(token) else { return };
        let left = match outbox {
            None => None,
            Some(mut outbox) => match wire.write(&mut outbox) {
                Ok(true) => {
                    self.connections.outboxes.give(outbox);
                    None
                }
                Ok(false) => Some(outbox),
                Err(_) => return drop(self.wires.remove(token)),
            },
        };
        let Phase::Lingering { outbox, shut, .. } = &mut wire.phase else { return };
        let may_shut = left.is_none() && !*shut;
        *outbox = left;
        if may_shut {
            match wire.shutdown() {
                Ok(done) => {
                    if let Phase::Lingering { shut, .. } = &mut wire.phase {
                        *shut = done;
                    }
                }
                Err(_) => drop(self.wires.remove(token)),
            }
        }
    }

    // Time.

    /// Sets a wire's deadline by what its connection says.
    pub(crate) fn schedule(&mut self, token: usize) {
        let Some(id) = self.connections.id_at(token) else { return };
        if let Some(deadline) = self.connections.member(id).and_then(|member| member.connection.deadline()) {
            self.set_deadline(token, deadline);
        }
    }

    pub(crate) fn set_deadline(&mut self, token: usize, at: Time) {
        let Some(wire) = self.wires.get_mut(token) else { return };
        // One entry a wire: a later deadline is found when the earlier entry comes up.
        let tick = Deadlines::tick_of(at);
        if wire.due == 0 || tick < wire.due {
            wire.due = self.deadlines.set(at, token);
        }
    }

    fn handle_deadlines(&mut self) {
        let mut expired = mem::take(&mut self.expired);
        self.deadlines.expire(self.connections.now, &mut expired);
        // Before the first makes room: how many wait is not known, and one place a tick would be too little.
        let is_crowded = self.is_crowded();
        for (token, tick) in expired.drain(..) {
            if token == ACCEPT {
                self.accepting = true;
            } else if let Some(wire) = self.wires.get_mut(token)
                && wire.due == tick
            {
                wire.due = 0;
                self.handle_deadline(token, is_crowded);
            }
        }
        self.expired = expired;
    }

    fn handle_deadline(&mut self, token: usize, is_crowded: bool) {
        let now = self.connections.now;
        match &self.wires[token].phase {
            Phase::Handshake(opening) if now < opening.deadline => {
                self.handle_slow_handshake(token, is_crowded);
            }
            Phase::Handshake(_) => self.handle_late_handshake(token),
            Phase::Lingering { deadline, .. } if now < *deadline => {
                let deadline = *deadline;
                self.set_deadline(token, deadline);
            }
            Phase::Lingering { .. } => drop(self.wires.remove(token)),
            Phase::Open => {
                if self.is_paused(token) {
                    // The sign of life may be among what was not read, as it reads slowly.
                    let mut buffer = mem::take(&mut self.buffer);
                    self.read_once(token, &mut buffer);
                    self.buffer = buffer;
                }
                let Some(id) = self.connections.id_at(token) else { return };
                if let Some(member) = self.connections.member(id)
                    && mem::take(&mut member.moved)
                {
                    // It reads, however slowly: a ping behind a long message has not reached it yet.
                    member.connection.note_reading(now);
                }
                self.connections.begin_reading(id);
                let lapse = self
                    .connections
                    .act(id, |connection, scratch, outbox| connection.handle_deadline(now, scratch, outbox));
                match lapse {
                    Some(Some(lapse)) => self.finish(token, Reason::Lapsed(lapse)),
                    _ => self.schedule(token),
                }
                self.connections.has_read(id);
            }
        }
    }

    fn handle_mail(&mut self) {
        self.mailbox.rearm();
        // Not without end: sockets wait. What is left is taken in the next tick, at once.
        for _ in 0..MAILS {
            let Some(mail) = self.mailbox.pop() else { return };
            self.handler.mail(&mut self.connections, mail);
            self.flush_brimming();
            if let Some(draining) = &mut self.draining {
                draining.handled_mail();
            }
        }
    }
}

impl<H: Handler, K: Kernel> Drop for Shard<H, K> {
    /// Nobody is left who would read what comes from now on, whyever the shard has ended.
    fn drop(&mut self) {
        self.mailbox.close();
        self.intake.close();
        self.drain.gone();
    }
}

/// A connection taken out, and what it had still to write.
type Removed<User> = (Closed<User>, Option<Box<Outbox>>);

/// Reads of one socket in one tick, before the others have their turn.
const READS: usize = 4;

/// Connections written in one tick, if so many were sent something.
const FLUSHES: usize = 64;

/// In how many ticks, at the least, a message that went to more is written. Each may bring news that is written along;
/// with more of them whoever is written last would wait for too much of it.
const SHARES: usize = 4;

/// Bytes unread by a peer above which it is not read from.
const PAUSE: usize = 64 << 10;

/// Bytes of mail that may wait: 16 MiB.
const MAILBOX: usize = 16 << 20;

/// Letters read in one tick.
const MAILS: usize = 4096;
