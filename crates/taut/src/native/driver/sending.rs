//! Sending: messages go into the outbox and from there to the stream, unless too much is pending.

use std::borrow::Cow;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use taut_proto::{Message, SendError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::io::CLIENT_PING_HEADER;
use super::{Driver, MAX_STEPS, Overflow, Phase, Writing, tracer, yield_now};
use crate::Error;
use crate::error::{Cause, Deadline};
use crate::native::buffers::{Queues, SHORT, ThreadBuffers};
use crate::native::trace::Kind;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Whether a message can be accepted now; reads meanwhile, so that a peer that only writes gets on.
    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let is_usual = self.ending.is_none()
            && self.connection.is_open()
            && !self.connection.is_in_message()
            && self.pending() < self.bounds.outgoing;
        if is_usual { Poll::Ready(Ok(())) } else { self.poll_turn(cx) }
    }

    /// Waits until no message is being sent in parts, and there is room.
    #[cold]
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..MAX_STEPS {
            self.check_open()?;
            if !self.connection.is_in_message() {
                return self.poll_room(cx);
            }
            // Whoever sends its next part wakes us: it is progress. Meanwhile the connection's work is done here.
            if !self.can_read() {
                let _ = self.poll_write(cx);
                return Poll::Pending;
            }
            ready!(self.poll_step(Overflow::Wait, cx));
        }
        yield_now(cx)
    }

    /// Whether the next part of a message that has begun can be accepted now, or the first part of one that has not.
    pub(crate) fn poll_ready_for_part(&mut self, has_begun: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if has_begun { self.poll_room(cx) } else { self.poll_ready(cx) }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..MAX_STEPS {
            self.check_open()?;
            if self.pending() < self.bounds.outgoing {
                self.clear_stall();
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_output(cx))?;
        }
        yield_now(cx)
    }

    /// Accepts a message that is one of several, to be written with them; false where there is more to it than that.
    #[inline]
    pub(crate) fn queue(&mut self, message: &mut Message<'_>) -> bool {
        let Self { connection, queues: Some(queues), ending: None, bounds, .. } = self else { return false };
        connection.is_open()
            && !connection.is_in_message()
            && queues.outbox.len() < GATHERED.min(bounds.outgoing)
            && ThreadBuffers::with(|buffers| {
                connection.send(hand_over(message), &mut buffers.scratch, &mut queues.outbox)
            })
            .is_ok()
    }

    /// Accepts a message, after [`poll_ready`](Self::poll_ready) has found that it can be, and writes what the stream
    /// takes unless that is to be done later. Nothing is left of a message that is not short.
    pub(crate) fn accept(
        &mut self,
        message: &mut Message<'_>,
        writing: Writing,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        // Of several senders that found room at once, one may have begun to send in parts since.
        if self.connection.is_in_message() {
            return Err(Cause::InMessage.into());
        }
        let Self { connection, queues, ending, .. } = self;
        ThreadBuffers::with(|buffers| {
            let Queues { outbox, .. } = buffers.fill_in(queues);
            let Some(tracer) = tracer(ending) else {
                return connection.send(hand_over(message), &mut buffers.scratch, outbox);
            };
            let (kind, length, before) = (Kind::of(message), message.as_bytes().len(), outbox.len());
            let sent = connection.send(hand_over(message), &mut buffers.scratch, outbox);
            if sent.is_ok() {
                tracer.sent(kind, length, outbox.len() - before, &[]);
            }
            sent
        })
        .map_err(|_: SendError| Error::from(Cause::Closed))?;
        self.write(writing, cx);
        Ok(())
    }

    /// Accepts a fragment of a message, as `accept` does a whole one.
    pub(crate) fn accept_fragment(
        &mut self,
        fragment: &Message<'_>,
        is_last: bool,
        writing: Writing,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let Self { connection, queues, .. } = self;
        ThreadBuffers::with(|buffers| {
            let Queues { outbox, .. } = buffers.fill_in(queues);
            connection.send_fragment(fragment, is_last, &mut buffers.scratch, outbox)
        })
        .map_err(|_| Error::from(Cause::Closed))?;
        self.write(writing, cx);
        Ok(())
    }

    /// Accepts a message, or says that too much is pending.
    pub(crate) fn try_accept(
        &mut self,
        message: &mut Message<'_>,
        writing: Writing,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        self.check_room(cx)?;
        self.accept(message, writing, cx)
    }

    /// Whether the connection is open, and little enough is pending; writes if that may help.
    fn check_room(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check_open()?;
        if self.pending() >= self.bounds.outgoing {
            let _ = self.poll_write(cx);
            self.check_open()?;
        }
        if self.pending() >= self.bounds.outgoing { Err(Cause::Full.into()) } else { Ok(()) }
    }

    /// Queues a ping.
    pub(crate) fn ping(&mut self, payload: &[u8], writing: Writing, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check_open()?;
        let Self { connection, queues, ending, .. } = self;
        ThreadBuffers::with(|buffers| {
            let Queues { outbox, .. } = buffers.fill_in(queues);
            connection.ping(payload, &mut buffers.scratch, outbox)?;
            if let Some(tracer) = tracer(ending) {
                tracer.sent(Kind::Ping, payload.len(), payload.len() + CLIENT_PING_HEADER, payload);
            }
            Ok(())
        })
        .map_err(|error: SendError| Error::from(Cause::Ping(error)))?;
        self.write(writing, cx);
        Ok(())
    }

    /// Queues a pong, or says that too much is pending: unlike a ping it takes nothing's place.
    pub(crate) fn pong(&mut self, payload: &[u8], writing: Writing, cx: &mut Context<'_>) -> Result<(), Error> {
        self.check_room(cx)?;
        let Self { connection, queues, .. } = self;
        ThreadBuffers::with(|buffers| {
            let Queues { outbox, .. } = buffers.fill_in(queues);
            connection.pong(payload, &mut buffers.scratch, outbox)
        })
        .map_err(|error| Error::from(Cause::Ping(error)))?;
        self.write(writing, cx);
        Ok(())
    }

    /// Writes what the stream takes, unless it is to be done later and little waits.
    fn write(&mut self, writing: Writing, cx: &mut Context<'_>) {
        if writing == Writing::Now || self.pending() >= GATHERED {
            let _ = self.poll_write(cx);
            self.release_buffers();
        }
    }

    /// Everything accepted is written; reads meanwhile while there is room.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..MAX_STEPS {
            if matches!(self.phase, Phase::Over) {
                return Poll::Ready(self.result());
            }
            if self.poll_write(cx).is_ready() {
                self.release_buffers();
                // It may also be ready because the stream takes no more.
                return Poll::Ready(self.broken().cloned().map_or(Ok(()), Err));
            }
            ready!(self.poll_output(cx))?;
        }
        yield_now(cx)
    }

    /// Gets on with what is pending, and reads meanwhile as far as there is room; ready when anything has changed.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let before = self.pending();
        if self.can_read() || !matches!(self.phase, Phase::Live) {
            self.clear_stall();
            let turned = self.poll_step(Overflow::Wait, cx);
            // Once all is written there may be nobody left to wake us.
            let has_written = self.pending() < before;
            return if has_written { Poll::Ready(Ok(())) } else { turned.map(Ok) };
        }
        // Neither side reads. Silence is not the peer's fault then, so the heartbeat is left alone.
        let _ = self.poll_write(cx);
        if self.pending() < before {
            self.clear_stall();
            return Poll::Ready(Ok(()));
        }
        let now = self.now();
        let since = *self.ending().stalled.get_or_insert(now);
        ready!(self.poll_time(since + STALL, now, cx));
        self.clear_stall();
        Poll::Ready(Err(Cause::Deadline(Deadline::Stall(STALL)).into()))
    }

    /// Whether there is room for what is read while we wait to write.
    fn can_read(&mut self) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.inbox.has_room(self.bounds))
            && self.reading(Overflow::Wait).is_some()
    }

    /// Sending is not at a halt.
    fn clear_stall(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.stalled = None;
        }
    }
}

/// Gives what the outbox may keep; what is short is lent, so that its memory can be used again.
#[inline]
fn hand_over<'m>(message: &'m mut Message<'_>) -> Message<'m> {
    match message {
        Message::Text(Cow::Owned(text)) if text.len() > SHORT => std::mem::take(text).into(),
        Message::Binary(Cow::Owned(bytes)) if bytes.len() > SHORT => std::mem::take(bytes).into(),
        Message::Text(text) => Message::Text(Cow::Borrowed(text)),
        Message::Binary(bytes) => Message::Binary(Cow::Borrowed(bytes)),
    }
}

/// Bytes that are gathered before they are written after all.
const GATHERED: usize = 64 << 10;

/// How long a send waits while neither side reads.
const STALL: Duration = Duration::from_secs(20);
