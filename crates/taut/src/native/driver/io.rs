//! How bytes move: writing, reading, the clock, and the end of the stream.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use taut_proto::{
    Close, Connection, Event, Input, Message, Outbox, Part, ReadInto, Scratch, Teardown, TeardownStep, Time, Timeout,
    Violation,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::sleep_until;

use super::{Driver, Ending, Overflow, PartState, Phase, tracer};
use crate::Error;
use crate::error::{Cause, Deadline, Doing};
use crate::native::buffers::{Queues, ThreadBuffers};
use crate::native::trace::Kind;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Writes, then reads once, then looks at the clock; ready when something was read or is due. What was written is
    /// for those to see who wait for room: to everybody else it would be one more turn for nothing.
    pub(super) fn poll_step(&mut self, overflow: Overflow, cx: &mut Context<'_>) -> Poll<()> {
        match self.phase {
            Phase::Live => {
                // Nothing is left unwritten while we wait.
                let _ = self.poll_write(cx);
                // What has arrived counts before the clock does: a peer that spoke while nobody polled is alive.
                let now = self.now();
                let read = match self.reading(overflow) {
                    Some(overflow) => self.poll_read(overflow, now, cx),
                    None => Poll::Pending,
                };
                if read.is_ready() { Poll::Ready(()) } else { self.poll_deadline(now, cx) }
            }
            Phase::Ending => self.poll_end(cx),
            Phase::Over => Poll::Ready(()),
        }
    }

    /// How to read for somebody who may not be the one who receives: a message that another handle receives in parts goes on
    /// part by part. `None` while the last of them is not taken.
    pub(super) fn reading(&mut self, overflow: Overflow) -> Option<Overflow> {
        match (self.parts, overflow) {
            (PartState::None | PartState::Skipped, _) => Some(overflow),
            (PartState::Begun, Overflow::Discard) => {
                self.skip(PartState::Begun);
                Some(overflow)
            }
            (PartState::Begun | PartState::Received, _) => {
                let is_taken = self.queues.as_ref().is_none_or(|queues| queues.part.is_none());
                is_taken.then_some(Overflow::Parts)
            }
        }
    }

    /// Writes what is pending; ready when nothing is left, also because the stream takes no more.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(queues) = self.queues.as_mut().filter(|queues| !queues.outbox.is_empty()) {
            if self.ending.as_ref().is_some_and(|ending| ending.broken.is_some()) {
                queues.outbox = Outbox::new();
                break;
            }
            let stream = Pin::new(&mut self.stream);
            let front = queues.outbox.front();
            // A vectored write costs the kernel more, and mostly there is but one piece.
            let written = if front.len() < queues.outbox.len() && stream.is_write_vectored() {
                let (slices, count) = queues.outbox.slices::<SLICES>();
                ready!(stream.poll_write_vectored(cx, &slices[..count]))
            } else {
                ready!(stream.poll_write(cx, front))
            };
            match written {
                Ok(0) => self.fail_writes(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    queues.outbox.consume(count);
                    self.unflushed = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.fail_writes(error),
            }
        }
        if self.unflushed && self.broken().is_none() {
            let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
            self.unflushed = false;
            if let Err(error) = flushed {
                self.fail_writes(error);
            }
        }
        Poll::Ready(())
    }

    /// Reads once and parses; ready when anything came, the end included.
    fn poll_read(&mut self, overflow: Overflow, now: Time, cx: &mut Context<'_>) -> Poll<()> {
        if self.ending.as_ref().is_some_and(|ending| ending.deferred.is_some()) {
            return Poll::Pending;
        }
        if let Some(queues) = self.queues.as_mut().filter(|queues| !queues.unparsed.is_empty()) {
            let mut unparsed = std::mem::take(&mut queues.unparsed);
            ThreadBuffers::with(|buffers| {
                unparsed.parse(|input, now| self.parse(input, overflow, now, buffers));
                self.conclude_early(buffers);
                buffers.fill_in(&mut self.queues).unparsed = unparsed;
            });
            return Poll::Ready(());
        }
        if overflow != Overflow::Parts
            && let Some(ReadInto { buffer, limit }) = self.connection.read_into(self.bounds.direct)
        {
            // The future holds nothing: what it has read is in the buffer.
            let mut stream = (&mut self.stream).take(limit.min(MAX_DIRECT_READ) as u64);
            let read = ready!(pin!(stream.read_buf(buffer)).poll(cx));
            self.read_into(read, overflow, now);
            return Poll::Ready(());
        }
        ThreadBuffers::with(|buffers| {
            // Taken out, so that the other buffers can be used while it is parsed.
            let mut buffer = std::mem::take(&mut buffers.read);
            let mut room = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
            let read = read.map(|result| result.map(|()| room.filled().len()));
            let read = read.map(|result| match result {
                Ok(0) => self.handle_eof(),
                Ok(count) => {
                    let mut input = Input::new(&mut buffer[..count]);
                    self.parse(&mut input, overflow, now, buffers);
                    let (left, pings) = (input.len(), input.pings());
                    if left > 0 {
                        buffers.fill_in(&mut self.queues).unparsed.keep(&buffer[count - left..count], now, pings);
                    }
                    self.conclude_early(buffers);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.finish(Err(Error::io(Doing::Reading, error))),
            });
            buffers.read = buffer;
            read
        })
    }

    /// Takes note of a read into the buffer of the message that is in progress.
    fn read_into(&mut self, read: std::io::Result<usize>, overflow: Overflow, now: Time) {
        match read {
            Ok(0) => self.handle_eof(),
            Ok(count) => ThreadBuffers::with(|buffers| {
                let Self { connection, queues, ending, parts, bounds, .. } = self;
                let Queues { outbox, inbox, part, .. } = buffers.fill_in(queues);
                let event = connection.received_into(count, now, &mut buffers.scratch, outbox);
                let mut parser = Parser { connection, ending, parts, outbox, part };
                if let Some(tracer) = tracer(parser.ending) {
                    tracer.received(count, &event);
                }
                match event {
                    Ok(Some(Event::Message(message))) if inbox.has_room(bounds) => inbox.push_own(message),
                    Ok(Some(Event::Message(_))) => parser.ending.get_or_insert_default().discarded += 1,
                    event => drop(parser.note(event, overflow, now)),
                }
                self.conclude_early(buffers);
            }),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.finish(Err(Error::io(Doing::Reading, error))),
        }
    }

    /// Takes messages out of the input until it is used up or the inbox is full.
    fn parse(&mut self, input: &mut Input<'_>, overflow: Overflow, now: Time, buffers: &mut ThreadBuffers) {
        let Self { connection, queues, ending, parts, bounds, .. } = self;
        let Queues { outbox, inbox, part, .. } = buffers.fill_in(queues);
        let mut parser = Parser { connection, ending, parts, outbox, part };
        while let Some(message) = parser.next_message(input, overflow, now, &mut buffers.scratch) {
            if !inbox.has_room(bounds) {
                parser.ending.get_or_insert_default().discarded += 1;
                continue;
            }
            inbox.push(message);
            if overflow == Overflow::Parts || (overflow != Overflow::Discard && !inbox.has_room(bounds)) {
                break;
            }
        }
    }

    /// Ends the protocol if the peer has and it makes no difference to the application, which may still want to answer
    /// what it has received.
    fn conclude_early(&mut self, buffers: &mut ThreadBuffers) {
        // Whoever has begun to close answers nothing any more.
        let is_closing = self.ending.as_ref().is_some_and(|ending| ending.close_by.is_some());
        if is_closing || !self.has_received() {
            self.conclude_with(buffers);
        }
    }

    /// Whether something waits to be received.
    fn has_received(&self) -> bool {
        self.queues.as_ref().is_some_and(|queues| !queues.inbox.is_empty() || queues.part.is_some())
    }

    /// Ends the protocol if the peer has, once nothing waits that came before: until then it can be answered.
    pub(super) fn conclude(&mut self) {
        if self.ending.as_ref().is_some_and(|ending| ending.deferred.is_some()) {
            ThreadBuffers::with(|buffers| self.conclude_with(buffers));
        }
    }

    fn conclude_with(&mut self, buffers: &mut ThreadBuffers) {
        let Some(outcome) = self.ending.as_mut().and_then(|ending| ending.deferred.take()) else { return };
        let Queues { outbox, .. } = buffers.fill_in(&mut self.queues);
        self.connection.conclude(&mut buffers.scratch, outbox);
        self.end(outcome, self.now());
    }

    fn poll_deadline(&mut self, now: Time, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.connection.deadline() else { return Poll::Pending };
        ready!(self.poll_time(deadline, now, cx));
        let now = self.now();
        let Self { connection, queues, ending, .. } = self;
        let timeout = ThreadBuffers::with(|buffers| {
            let Queues { outbox, .. } = buffers.fill_in(queues);
            let before = connection.awaited_pong();
            let timeout = connection.handle_deadline(now, &mut buffers.scratch, outbox);
            // The outbox need not have grown: the ping takes the place of a longer one that waits.
            if let Some(tracer) = tracer(ending)
                && let Some(payload) = connection.awaited_pong().filter(|&payload| Some(payload) != before)
            {
                tracer.sent(Kind::Ping, payload.len(), payload.len() + CLIENT_PING_HEADER, &[]);
            }
            timeout
        });
        match timeout {
            None => {}
            Some(Timeout::Heartbeat) => {
                // The peer is most likely gone: the close frame is tried once, not waited for.
                let _ = self.poll_write(cx);
                self.finish(Err(Cause::Deadline(Deadline::Heartbeat).into()));
            }
            Some(Timeout::Close) => self.finish(Err(Cause::Deadline(Deadline::Close).into())),
            // The peer is there, and is to see why: the close frame would be lost with a connection that is dropped
            // while the peer still sends.
            Some(Timeout::Message) => self.end(Err(Cause::Deadline(Deadline::Message).into()), now),
        }
        Poll::Ready(())
    }

    /// Ready once `time` has come; `now` may be somewhat earlier than that, since it spares a look at the clock.
    pub(super) fn poll_time(&mut self, time: Time, mut now: Time, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if now >= time {
                return Poll::Ready(());
            }
            // What lies beyond the clock's range never comes.
            let Some(at) = self.start.checked_add(time - Time::ZERO) else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() > at || timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            now = self.now();
        }
    }

    /// Ends the TCP connection after the last frame, as its [`Teardown`] says.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut teardown) = self.ending().teardown else { return Poll::Ready(()) };
        if teardown.step() == TeardownStep::Write && self.poll_write(cx).is_ready() {
            teardown.wrote();
        }
        // An error means that there is nothing left to shut.
        if teardown.step() == TeardownStep::Shut && Pin::new(&mut self.stream).poll_shutdown(cx).is_ready() {
            teardown.shut();
        }
        let mut changed = false;
        if teardown.is_reading() {
            let read = ThreadBuffers::with(|buffers| {
                let mut room = ReadBuf::new(&mut buffers.read);
                Pin::new(&mut self.stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            });
            changed = read.is_ready();
            if matches!(read, Poll::Ready(Ok(0) | Err(_))) {
                teardown.ended();
            }
        }
        if !teardown.is_over() && self.poll_time(teardown.deadline(), self.now(), cx).is_ready() {
            teardown.handle_deadline(self.now());
        }
        self.ending().teardown = Some(teardown);
        if teardown.is_over() {
            self.phase = Phase::Over;
            self.drop_output();
            self.timer = None;
            return Poll::Ready(());
        }
        if changed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The protocol has ended; the TCP connection is still to be.
    fn end(&mut self, outcome: Result<Close, Error>, now: Time) {
        let (role, timeout) = (self.role, self.connection.settings().close_timeout);
        let ending = self.ending();
        ending.since.get_or_insert(now);
        let deadline = ending.close_by.unwrap_or(now + timeout);
        ending.teardown = Some(Teardown::new(role, deadline));
        ending.outcome.get_or_insert(outcome);
        self.phase = Phase::Ending;
    }

    /// Everything has ended.
    fn finish(&mut self, outcome: Result<Close, Error>) {
        self.phase = Phase::Over;
        let now = self.now();
        let ending = self.ending();
        ending.since.get_or_insert(now);
        ending.outcome.get_or_insert(outcome);
        self.drop_output();
        self.timer = None;
    }

    fn handle_eof(&mut self) {
        if let Err(end) = self.connection.receive_eof() {
            let error = self.ending().broken.take().unwrap_or_else(|| Cause::UnexpectedEnd(end).into());
            self.finish(Err(error));
        }
    }

    /// The stream takes no more.
    fn fail_writes(&mut self, error: std::io::Error) {
        let now = self.now();
        let ending = self.ending();
        ending.since.get_or_insert(now);
        ending.broken.get_or_insert_with(|| Error::io(Doing::Writing, error));
        self.unflushed = false;
    }

    pub(super) fn drop_output(&mut self) {
        if let Some(queues) = &mut self.queues {
            queues.outbox = Outbox::new();
        }
    }
}

/// Parses a read: the fields of a driver and of its queues that are changed by it.
struct Parser<'d> {
    connection: &'d mut Connection,
    ending: &'d mut Option<Box<Ending>>,
    parts: &'d mut PartState,
    outbox: &'d mut Outbox,
    part: &'d mut Option<Part<'static>>,
}

impl Parser<'_> {
    /// The next message; `None` when the input is used up, or a part was received.
    fn next_message<'i>(
        &mut self,
        input: &mut Input<'i>,
        overflow: Overflow,
        now: Time,
        scratch: &mut Scratch,
    ) -> Option<Message<'i>> {
        while !input.is_empty() {
            let before = input.len();
            let event = match overflow {
                Overflow::Parts => self.connection.receive_parts(input, now, scratch, self.outbox),
                _ => self.connection.receive(input, now, scratch, self.outbox),
            };
            match event {
                Ok(Some(Event::Message(message))) => {
                    if let Some(tracer) = tracer(self.ending) {
                        tracer.received_message(before - input.len(), &message);
                    }
                    return Some(message);
                }
                event => {
                    if let Some(tracer) = tracer(self.ending) {
                        tracer.received(before - input.len(), &event);
                    }
                    if self.note(event, overflow, now) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Handles everything but a message. Returns whether it is a part that the caller waits for.
    fn note(&mut self, event: Result<Option<Event<'_>>, Violation>, overflow: Overflow, now: Time) -> bool {
        match event {
            Ok(Some(Event::Part(part))) => return self.note_part(part, overflow),
            Ok(Some(Event::Message(_) | Event::Ping(_) | Event::Pong(..)) | None) => {}
            Ok(Some(Event::Close(close))) => {
                let is_cut_off = self.connection.was_cut_off();
                self.defer(Ok(close), now).is_cut_off = is_cut_off;
            }
            Err(violation) => drop(self.defer(Err(Cause::Violation(violation).into()), now)),
        }
        false
    }

    fn note_part(&mut self, part: Part<'_>, overflow: Overflow) -> bool {
        let is_skipped = *self.parts == PartState::Skipped || overflow != Overflow::Parts;
        *self.parts = match (is_skipped, part.is_last, *self.parts) {
            (true, true, _) => PartState::None,
            (true, false, _) => PartState::Skipped,
            (false, _, PartState::Received) => PartState::Received,
            (false, ..) => PartState::Begun,
        };
        if !is_skipped {
            let payload = Cow::Owned(part.payload.into_owned());
            *self.part = Some(Part { payload, ..part });
        }
        !is_skipped
    }

    /// The peer has ended the protocol.
    fn defer(&mut self, outcome: Result<Close, Error>, now: Time) -> &mut Ending {
        let ending = self.ending.get_or_insert_default();
        ending.since.get_or_insert(now);
        ending.deferred = Some(outcome);
        ending
    }
}

/// Bytes of one read into a message. They are unmasked before they leave the processor's second cache, and a stream
/// that overwrites what it is lent before it reads has no more to overwrite each time.
const MAX_DIRECT_READ: usize = 256 << 10;

/// RFC 6455 §5.2: two bytes and the masking key. Only a client's connections are traced.
pub(super) const CLIENT_PING_HEADER: usize = 6;

/// Slices of one vectored write.
const SLICES: usize = 16;
