//! Open, closing, closed: the only state machine.

mod send;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decode::{Chunk, Decoder, PieceLimits};
#[cfg(feature = "deflate")]
use crate::deflate::{NegotiatedDeflate, codec::Takeover};
use crate::frame::Opcode;
use crate::heartbeat::{Keepalive, KeepaliveAction};
use crate::message::{Assembly, Whole, check_length};
use crate::{Close, CloseCode, Input, Limits, Message, Outbox, Role, Scratch, Settings, Time, Violation, encode};
pub use send::SendError;

/// An open WebSocket connection, from the last byte of the handshake to the last of the close.
///
/// It does no I/O. A driver tells it what happened, by verbs:
///
/// - [`receive`](Self::receive) with the bytes of a read, until it gives `None`; [`receive_eof`](Self::receive_eof);
/// - [`read_into`](Self::read_into) before a read, if the bytes of a large message should be read to where they stay;
/// - [`send`](Self::send), [`send_prepared`](Self::send_prepared), [`ping`](Self::ping), [`close`](Self::close)
///   for the application;
/// - [`handle_deadline`](Self::handle_deadline) when [`deadline`](Self::deadline) has come;
///
/// and after each verb
///
/// - writes what is in the [`Outbox`] it passed in: replies are there, in order, as soon as the verb returns;
/// - once [`is_done`](Self::is_done), flushes, and ends the TCP connection: a server shuts its write side, reads
///   to the end and drops it, a client waits for the server to do so (RFC 6455 §7.1.1), either for no longer than
///   the close timeout.
///
/// A violation needs no special handling: `receive` puts the close frame into the outbox, returns the [`Violation`]
/// once, and discards everything after it. After the peer's close frame, too, everything is discarded.
///
/// Memory: an idle connection owns nothing on the heap. While a message spans reads it holds what has come of it, at
/// most [`Limits::message`](crate::Limits::message), and room for as much again. A peer that has finished a large
/// message gets room for another, up to 1 MiB, as soon as it begins one.
pub struct Connection {
    settings: Arc<Settings>,
    decoder: Decoder,
    partial: Option<Box<Partial>>,
    #[cfg(feature = "deflate")]
    takeover: Option<Box<Takeover>>,
    keepalive: Keepalive,
    state: State,
    role: Role,
    /// We are in the middle of a message that we send in fragments.
    in_message: bool,
    /// Our close frame waits for `conclude`.
    defers_close: bool,
    /// The peer's close frame came in the middle of a message.
    cut_off: bool,
    /// Log2 of the largest message that the peer has finished, rounded up, and at most that of [`MAX_PREALLOCATION`].
    message_len_log2: u8,
    #[cfg(feature = "deflate")]
    deflate: Option<NegotiatedDeflate>,
}

/// What a read contained.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A message, lent from the input when it lay within one read and has no more than 32 KiB.
    Message(Message<'i>),
    /// A part of a message that is received in parts: see [`Connection::receive_parts`].
    Part(Part<'i>),
    /// A ping; its pong is in the outbox already.
    Ping(Cow<'i, [u8]>),
    /// A pong, and the round trip if it answers our heartbeat.
    Pong(Cow<'i, [u8]>, Option<Duration>),
    /// The peer's close frame, after which nothing comes; ours is in the outbox or went before. Whether it came in the
    /// middle of a message says [`Connection::was_cut_off`].
    Close(Close),
}

/// A piece of a message that is passed on as it comes. It may end anywhere, even in the middle of a character.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'i> {
    /// The bytes; never empty but for the last part.
    pub payload: Cow<'i, [u8]>,
    /// Whether the message is text. That it is UTF-8 is checked as far as it has come, and in full with the last part.
    pub is_text: bool,
    /// Whether the message ends here.
    pub is_last: bool,
}

/// Where the next bytes that come belong: see [`Connection::read_into`].
#[derive(Debug)]
pub struct ReadInto<'c> {
    /// Append what is read; leave what is in it. It has room for `limit` bytes.
    pub buffer: &'c mut Vec<u8>,
    /// How many bytes may be read, never 0. What follows them may be of another frame.
    pub limit: usize,
}

/// A deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The peer fell silent and did not answer a ping. A close frame is in the outbox, for what it is worth.
    Heartbeat,
    /// The peer did not answer our close frame.
    Close,
    /// The peer has begun a message and does not go on with it
    /// ([`Limits::message_timeout`](crate::Limits::message_timeout)). A close frame with code 1008 is in the outbox.
    Message,
}

/// The peer's bytes ended without a close frame: what an application sees as code 1006.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnexpectedEnd;

impl fmt::Display for UnexpectedEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer ended the connection without a close frame (1006)")
    }
}

impl std::error::Error for UnexpectedEnd {}

impl Connection {
    /// A connection whose handshake is complete, without compression.
    ///
    /// `random` spreads the heartbeats of connections that opened together; any number will do.
    pub fn new(role: Role, settings: Arc<Settings>, now: Time, random: u32) -> Self {
        Self {
            settings,
            decoder: Decoder::default(),
            partial: None,
            #[cfg(feature = "deflate")]
            takeover: None,
            keepalive: Keepalive::new(now, random),
            state: State::Open,
            role,
            in_message: false,
            defers_close: false,
            cut_off: false,
            message_len_log2: 0,
            #[cfg(feature = "deflate")]
            deflate: None,
        }
    }

    /// Holds back our close frame until [`conclude`](Self::conclude), for a driver that receives ahead of its
    /// application: after the peer's close frame, or a violation, nothing more is received, but the application can
    /// still answer the messages that came before.
    #[must_use]
    pub fn with_deferred_end(mut self) -> Self {
        self.defers_close = true;
        self
    }

    /// Turns permessage-deflate on, as negotiated in the handshake.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn with_deflate(mut self, deflate: NegotiatedDeflate) -> Self {
        self.takeover = Takeover::new(&deflate);
        self.deflate = Some(deflate);
        self
    }

    /// Takes the next event out of what a read brought; `None` when the read is used up.
    ///
    /// Call it again until then. A violation ends the connection: its close frame is in the outbox.
    // Compiled into its callers, so that the usual case hands them the message itself rather than an event.
    #[inline]
    pub fn receive<'i>(
        &mut self,
        input: &mut Input<'i>,
        now: Time,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'i>>, Violation> {
        if self.partial.is_none()
            && !self.has_ended()
            && let Some((opcode, payload)) =
                self.decoder.whole_message(input, self.role, self.settings.limits.message.min(PIECES.whole))
        {
            self.keepalive.received(now);
            return match Message::lent(opcode, payload) {
                Ok(message) => Ok(Some(Event::Message(message))),
                Err(violation) => Err(self.fail_with(violation, input, scratch, outbox)),
            };
        }
        self.receive_as(Delivery::Whole, input, now, scratch, outbox)
    }

    /// Like [`receive`](Self::receive), but returns the current or next message in [parts](Event::Part), as they come.
    /// Parts are not kept and so count against no limit.
    ///
    /// A message that lies within the read still comes whole. So does a compressed one, under the usual limits, because
    /// it is inflated at once. Once a message has begun in parts, `receive` returns the rest in parts too.
    pub fn receive_parts<'i>(
        &mut self,
        input: &mut Input<'i>,
        now: Time,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'i>>, Violation> {
        self.receive_as(Delivery::Parts, input, now, scratch, outbox)
    }

    fn receive_as<'i>(
        &mut self,
        delivery: Delivery,
        input: &mut Input<'i>,
        now: Time,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'i>>, Violation> {
        if self.has_ended() {
            input.discard();
            return Ok(None);
        }
        if !input.is_empty() {
            self.keepalive.received(now);
        }
        match self.next_event(delivery, input, now, scratch, outbox) {
            Err(violation) => Err(self.fail_with(violation, input, scratch, outbox)),
            event => event,
        }
    }

    /// Where the next bytes from the peer belong, if at least `at_least` bytes of payload are missing from the frame
    /// that is in progress: append what you read there, then call [`received_into`](Self::received_into). The kernel
    /// then copies the bytes to where they stay. `None`: read into a buffer that you lend, and call
    /// [`receive`](Self::receive).
    ///
    /// Ask before each read, once every byte of earlier reads has been received. It is never a duty: a driver may pass
    /// all bytes to `receive`, and has to if it wants [parts](Self::receive_parts). A read of this kind ends where the
    /// frame does, so `at_least` should be large enough to pay for the read that fetches what follows; 16 KiB is.
    ///
    /// Whatever the header announces, there is room for no more than the largest of these: the bytes that have come of
    /// the message already, 16 KiB, and the largest message before it (rounded up to a power of two, at most 1 MiB).
    /// Text is not received this way: a `String` takes only what is known to be UTF-8, so text is checked in the buffer
    /// that you lend and copied piece by piece.
    #[inline]
    pub fn read_into(&mut self, at_least: usize) -> Option<ReadInto<'_>> {
        if self.partial.is_none() || self.has_ended() {
            return None;
        }
        self.room(at_least)
    }

    fn room(&mut self, at_least: usize) -> Option<ReadInto<'_>> {
        let (header, missing) = self.decoder.in_progress()?;
        if header.opcode.is_control() || missing < at_least as u64 {
            return None;
        }
        let message = self.partial.as_mut()?.message.as_mut()?;
        let (buffer, limit) = message.room(missing, header.fin)?;
        Some(ReadInto { buffer, limit })
    }

    /// Takes note that `count` bytes have come and were appended to the buffer of [`read_into`](Self::read_into); gives
    /// the message if it is whole now. Nothing may have been received in between.
    ///
    /// # Panics
    /// When more is said to have been appended than there is, or than `read_into` gave as the limit.
    pub fn received_into(
        &mut self,
        count: usize,
        now: Time,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'static>>, Violation> {
        let Some(partial) = &mut self.partial else { return Ok(None) };
        let (Some(message), Some((header, missing))) = (&mut partial.message, self.decoder.in_progress()) else {
            return Ok(None);
        };
        assert!(count as u64 <= missing, "more was read than belongs to the message");
        self.keepalive.received(now);
        partial.bytes = partial.bytes.saturating_add(count);
        let is_last = self.decoder.received_elsewhere(message.newest(count));
        if !is_last || !header.fin {
            return Ok(None);
        }
        self.whole_message(scratch).inspect_err(|&violation| {
            self.fail_or_defer(Close::from(violation), scratch, outbox);
        })
    }

    /// Ends the connection because of a violation.
    fn fail_with(
        &mut self,
        violation: Violation,
        input: &mut Input<'_>,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Violation {
        self.fail_or_defer(Close::from(violation), scratch, outbox);
        input.discard();
        violation
    }

    /// Sends our close frame and ends the connection, if that was [deferred](Self::with_deferred_end).
    pub fn conclude(&mut self, scratch: &mut Scratch, outbox: &mut Outbox) {
        if let State::Deferred(close) = &self.state {
            let close = Close::clone(close);
            self.fail(&close, scratch, outbox);
        }
    }

    /// The peer's bytes have ended.
    pub fn receive_eof(&mut self) -> Result<(), UnexpectedEnd> {
        let clean = self.has_ended();
        self.end();
        if clean { Ok(()) } else { Err(UnexpectedEnd) }
    }

    /// Starts the close handshake: puts our close frame into the outbox and waits for the peer's. Calling it again does
    /// nothing.
    pub fn close(&mut self, close: impl Into<Close>, now: Time, scratch: &mut Scratch, outbox: &mut Outbox) {
        self.conclude(scratch, outbox);
        if self.is_open() {
            self.push_close(&close.into(), scratch, outbox);
            self.state = State::Closing { deadline: now + self.settings.close_timeout };
        }
    }

    /// Fails the connection (RFC 6455 §7.1.7): puts a close frame into the outbox, if none was sent, and ends without
    /// waiting for the peer's. For a driver that has no room for what the peer sends.
    pub fn fail(&mut self, close: &Close, scratch: &mut Scratch, outbox: &mut Outbox) {
        if self.is_open() {
            self.push_close(close, scratch, outbox);
        }
        self.end();
    }

    /// When [`handle_deadline`](Self::handle_deadline) is to be called. It becomes later with what is received, so a
    /// timer that fires early may just ask again.
    ///
    /// It becomes sooner by [`close`](Self::close), and by a read that leaves a message
    /// [unfinished](Self::is_receiving): ask again after these.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Open => {
                let heartbeat = self.keepalive.deadline(&self.settings.heartbeat);
                let message = self.partial.as_ref().map(|partial| partial.deadline(&self.settings.limits));
                heartbeat.into_iter().chain(message).min()
            }
            State::Deferred(_) => self.keepalive.deadline(&self.settings.heartbeat),
            State::Closing { deadline } => Some(deadline),
            State::Done => None,
        }
    }

    /// Sends the heartbeat's ping, or returns the timeout that ended the connection; does nothing before the deadline.
    pub fn handle_deadline(&mut self, now: Time, scratch: &mut Scratch, outbox: &mut Outbox) -> Option<Timeout> {
        if self.state == State::Open
            && let Some(partial) = &mut self.partial
            && !partial.keeps_pace(now, &self.settings.limits)
        {
            self.fail(&Close::new(CloseCode::POLICY, "message too slow"), scratch, outbox);
            return Some(Timeout::Message);
        }
        match self.state {
            State::Open | State::Deferred(_) => match self.keepalive.handle_deadline(now, &self.settings.heartbeat) {
                KeepaliveAction::Wait => None,
                KeepaliveAction::Ping(payload) => {
                    let header = encode::header(self.role, Opcode::Ping, &payload, scratch);
                    outbox.push_urgent(header, &payload, false);
                    None
                }
                KeepaliveAction::TimedOut => {
                    self.fail(&Close::new(self.settings.heartbeat_code, "heartbeat timeout"), scratch, outbox);
                    Some(Timeout::Heartbeat)
                }
            },
            State::Closing { deadline } if now >= deadline => {
                self.end();
                Some(Timeout::Close)
            }
            _ => None,
        }
    }

    /// The payload by which the heartbeat knows the pong of its last ping; `None` once that has come. If
    /// [`handle_deadline`](Self::handle_deadline) changes it, a ping was sent.
    pub fn awaited_pong(&self) -> Option<[u8; 8]> {
        self.keepalive.awaited_pong()
    }

    /// Restarts the wait for a pong, because the peer has read something. For a driver whose peer reads slowly: it is
    /// alive, but may be too far behind to have seen our ping.
    pub fn note_reading(&mut self, now: Time) {
        self.keepalive.read(now);
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Deferred(_))
    }

    /// Whether a message is being sent in fragments and not ended ([`send_fragment`](Self::send_fragment)): until then
    /// no other can be sent.
    pub fn is_in_message(&self) -> bool {
        self.in_message
    }

    /// Whether the protocol has ended: flush the outbox and end the TCP connection.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The round trip of the last heartbeat that was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.keepalive.round_trip()
    }

    /// Whether the peer is in the middle of a message, or of a frame.
    #[inline]
    pub fn is_receiving(&self) -> bool {
        self.partial.is_some()
    }

    /// Whether the peer's close frame came in the middle of a message: what was received of it is not the message, and
    /// the rest will not come (RFC 6455 §5.4).
    pub fn was_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Bytes that have come of a message that is not whole yet, and are kept: none of one that is received in parts.
    #[inline]
    pub fn unfinished(&self) -> usize {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        message.map_or(0, Assembly::len)
    }

    /// Bytes on the heap: of a message that is not whole yet.
    #[inline]
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.control.capacity() + partial.message.as_ref().map_or(0, Assembly::capacity)
        })
    }

    fn next_event<'i>(
        &mut self,
        delivery: Delivery,
        input: &mut Input<'i>,
        now: Time,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'i>>, Violation> {
        let cut = if delivery == Delivery::Parts { WHOLE_READS } else { PIECES };
        while let Some(chunk) = self.decoder.next(input, self.role, cut)? {
            self.check_compressed(&chunk)?;
            if !chunk.header.opcode.is_control() {
                let event = self.data(delivery, chunk, now, scratch)?;
                if event.is_some() {
                    return Ok(event);
                }
                continue;
            }
            let opcode = chunk.header.opcode;
            let Some(payload) = self.control_payload(chunk, now) else { continue };
            return self.control(opcode, payload, input, now, scratch, outbox).map(Some);
        }
        Ok(None)
    }

    /// RSV1 marks a message as compressed, on its first frame, if compression was negotiated.
    #[cfg_attr(not(feature = "deflate"), expect(clippy::unused_self, reason = "nothing is negotiated then"))]
    fn check_compressed(&self, chunk: &Chunk<'_>) -> Result<(), Violation> {
        if !chunk.header.compressed {
            return Ok(());
        }
        #[cfg(feature = "deflate")]
        if self.deflate.is_some() {
            // RFC 7692 §6.1: not on control frames, not on later fragments.
            return match chunk.header.opcode {
                Opcode::Text | Opcode::Binary => Ok(()),
                _ => Err(Violation::CompressedNotFirst),
            };
        }
        // RFC 6455 §5.2: a reserved bit that was not negotiated fails the connection.
        Err(Violation::ReservedBits)
    }

    fn data<'i>(
        &mut self,
        delivery: Delivery,
        chunk: Chunk<'i>,
        now: Time,
        scratch: &mut Scratch,
    ) -> Result<Option<Event<'i>>, Violation> {
        let Chunk { header, first, last, payload, ahead } = chunk;
        let limits = &self.settings.limits;
        let in_progress = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
        if first {
            // RFC 6455 §5.4: fragments of one message follow each other; only control frames come between.
            match (header.opcode, in_progress) {
                (Opcode::Continuation, false) => return Err(Violation::ContinuationWithoutStart),
                (Opcode::Text | Opcode::Binary, true) => return Err(Violation::ExpectedContinuation),
                _ => {}
            }
            if last && header.fin && !in_progress {
                check_length(0, header.length, limits)?;
                if !header.compressed {
                    return Message::lent(header.opcode, payload).map(|message| Some(Event::Message(message)));
                }
                let payload = self.inflate(payload, scratch)?;
                return Message::owned(header.opcode, payload).map(|message| Some(Event::Message(message)));
            }
        }
        let partial = self.partial.get_or_insert_with(|| Box::new(Partial::new(now)));
        partial.bytes = partial.bytes.saturating_add(payload.len());
        let expected_len = 1 << self.message_len_log2;
        let message =
            partial.message.get_or_insert_with(|| Assembly::new(header.opcode, header.compressed, expected_len));
        let is_last = last && header.fin;
        if (delivery == Delivery::Parts || message.is_in_parts())
            && let Some(payload) = message.part(payload)?
        {
            let is_text = message.is_text();
            if is_last {
                self.take_message().map_or(Ok(()), Assembly::finish)?;
            } else if payload.is_empty() {
                return Ok(None);
            }
            return Ok(Some(Event::Part(Part { payload, is_text, is_last })));
        }
        if first {
            message.announce(header.length, limits)?;
        }
        message.push(payload, ahead, header.fin)?;
        if is_last { self.whole_message(scratch) } else { Ok(None) }
    }

    /// The message in progress, whose last piece is kept.
    fn whole_message(&mut self, scratch: &mut Scratch) -> Result<Option<Event<'static>>, Violation> {
        let Some(message) = self.take_message() else { return Ok(None) };
        self.message_len_log2 =
            self.message_len_log2.max(message.len().min(MAX_PREALLOCATION).next_power_of_two().trailing_zeros() as u8);
        let message = match message.into_whole()? {
            Whole::Message(message) => message,
            Whole::Compressed(opcode, payload) => Message::owned(opcode, self.inflate(&payload, scratch)?)?,
        };
        Ok(Some(Event::Message(message)))
    }

    /// The message in progress, which is whole now.
    fn take_message(&mut self) -> Option<Assembly> {
        self.partial.take().and_then(|partial| partial.message)
    }

    /// A control frame's payload, once it is whole. A ping may come in pieces in the middle of a message in
    /// pieces: the two are kept apart.
    fn control_payload<'i>(&mut self, chunk: Chunk<'i>, now: Time) -> Option<Cow<'i, [u8]>> {
        let Chunk { first, last, payload, .. } = chunk;
        if first && last {
            return Some(Cow::Borrowed(payload));
        }
        let partial = self.partial.get_or_insert_with(|| Box::new(Partial::new(now)));
        partial.control.extend_from_slice(payload);
        if !last {
            return None;
        }
        let payload = std::mem::take(&mut partial.control);
        if partial.message.is_none() {
            self.partial = None;
        }
        Some(Cow::Owned(payload))
    }

    fn control<'i>(
        &mut self,
        opcode: Opcode,
        payload: Cow<'i, [u8]>,
        input: &mut Input<'i>,
        now: Time,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<Event<'i>, Violation> {
        match opcode {
            Opcode::Ping => {
                input.pings += 1;
                // RFC 6455 §5.5.2: a pong in response, unless a close was received; none after our own close.
                if self.is_open() {
                    let coalesce = input.pings > self.settings.limits.pings_per_read;
                    outbox.push_urgent(encode::header(self.role, Opcode::Pong, &payload, scratch), &payload, coalesce);
                }
                Ok(Event::Ping(payload))
            }
            Opcode::Pong => {
                let round_trip = self.keepalive.pong(&payload, now);
                Ok(Event::Pong(payload, round_trip))
            }
            _ => {
                let close = Close::parse(&payload)?;
                // RFC 6455 §5.4: control frames come between the fragments of a message, this one too; but then the
                // message is never finished.
                self.cut_off = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
                // RFC 6455 §5.5.1: echo the code, once. Nothing that comes after counts.
                self.fail_or_defer(Close::from(close.code()), scratch, outbox);
                input.discard();
                Ok(Event::Close(close))
            }
        }
    }

    #[cfg(feature = "deflate")]
    fn inflate(&mut self, compressed: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>, Violation> {
        let limit = self.settings.limits.message;
        let own = self.takeover.as_mut().and_then(|takeover| takeover.inflate(compressed, limit));
        own.unwrap_or_else(|| scratch.codec.inflate(compressed, limit))
    }

    #[cfg(not(feature = "deflate"))]
    #[expect(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "has the shape of the other")]
    fn inflate(&mut self, _: &[u8], _: &mut Scratch) -> Result<Vec<u8>, Violation> {
        Err(Violation::ReservedBits)
    }

    /// Whether the peer's side has ended: what it still sends is discarded.
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Deferred(_) | State::Done)
    }

    fn fail_or_defer(&mut self, close: Close, scratch: &mut Scratch, outbox: &mut Outbox) {
        // After our own close frame there is nothing left to answer.
        if self.defers_close && self.state == State::Open {
            self.state = State::Deferred(Box::new(close));
            self.partial = None;
        } else {
            self.fail(&close, scratch, outbox);
        }
    }

    fn push_close(&self, close: &Close, scratch: &mut Scratch, outbox: &mut Outbox) {
        let payload = close.payload();
        outbox.push_frame(encode::header(self.role, Opcode::Close, &payload, scratch), &payload);
    }

    fn end(&mut self) {
        self.state = State::Done;
        self.partial = None;
        #[cfg(feature = "deflate")]
        {
            self.takeover = None;
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer has ended, and our close frame waits for `conclude`.
    Deferred(Box<Close>),
    /// We sent a close frame and wait for the peer's.
    Closing {
        deadline: Time,
    },
    Done,
}

/// Payload that is kept is unmasked, checked and copied in pieces that fit the processor's L1 cache. A message that
/// does not fit there is not lent even if it lies within the read: most receivers would copy it, and three passes
/// through L2 cost more than that.
const PIECES: PieceLimits = PieceLimits { whole: 32 << 10, piece: 16 << 10 };

/// Bytes that are reserved at most as soon as a message begins, and only if the peer has finished one about as long on
/// the same connection: a message that grows step by step is copied once more on the way. If the peer announces more
/// than it sends, the rest is reserved and never touched.
const MAX_PREALLOCATION: usize = 1 << 20;

/// For payload that is only passed on.
const WHOLE_READS: PieceLimits = PieceLimits { whole: usize::MAX, piece: usize::MAX };

/// How messages that span reads reach the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Whole,
    Parts,
}

/// What spans reads.
#[derive(Debug)]
struct Partial {
    message: Option<Assembly>,
    control: Vec<u8>,
    /// When the pace was checked last, and the bytes that have come since.
    since: Time,
    bytes: usize,
}

impl Partial {
    fn new(now: Time) -> Self {
        Self { message: None, control: Vec::new(), since: now, bytes: 0 }
    }

    /// When [`keeps_pace`](Self::keeps_pace) has to be asked.
    fn deadline(&self, limits: &Limits) -> Time {
        self.since + limits.message_timeout
    }

    /// Whether the message comes fast enough. At its deadline the count restarts, but bytes beyond the required pace
    /// carry over: a peer that sends in bursts must not fall between two counts.
    fn keeps_pace(&mut self, now: Time, limits: &Limits) -> bool {
        if now < self.deadline(limits) {
            return true;
        }
        let keeps_pace = self.bytes >= limits.message_pace;
        let beyond = self.bytes.saturating_sub(limits.message_pace);
        (self.since, self.bytes) = (now, beyond.min(limits.message_pace));
        keeps_pace
    }
}
