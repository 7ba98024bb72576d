//! How bytes move: writing, reading, the clock, and the end of the stream.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use taut_proto::{Close, Event, Input, Lapse, Outbox, Part, Role, Time};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep_until;

use super::{Driver, Overflow, Parts, Phase};
use crate::Error;
use crate::backlog::Backlog;
use crate::error::{Cause, Deadline, Doing};
use crate::loan::Loan;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Writes, then reads once, then looks at the clock; ready when anything has changed.
    pub(super) fn poll_turn(&mut self, overflow: Overflow, cx: &mut Context<'_>) -> Poll<()> {
        match self.phase {
            Phase::Live => {
                // Nothing is left unwritten while we wait.
                let _ = self.poll_write(cx);
                // What has arrived counts before the clock does: a peer that spoke while nobody polled is alive.
                if self.poll_read(overflow, cx).is_ready() { Poll::Ready(()) } else { self.poll_deadline(cx) }
            }
            Phase::Ending { .. } => self.poll_end(cx),
            Phase::Over => Poll::Ready(()),
        }
    }

    /// Writes what is pending; ready when nothing is left, also because the stream takes no more.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.outbox.is_empty()) {
            if self.ending.as_ref().is_some_and(|ending| ending.broken.is_some()) {
                backlog.outbox = Outbox::new();
                break;
            }
            let stream = Pin::new(&mut self.stream);
            let front = backlog.outbox.front();
            // A vectored write costs the kernel more, and mostly there is but one piece.
            let written = if front.len() < backlog.outbox.len() && stream.is_write_vectored() {
                let (slices, count) = backlog.outbox.slices::<SLICES>();
                ready!(stream.poll_write_vectored(cx, &slices[..count]))
            } else {
                ready!(stream.poll_write(cx, front))
            };
            match written {
                Ok(0) => self.break_off(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    backlog.outbox.consume(count);
                    self.unflushed = true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => self.break_off(error),
            }
        }
        if self.unflushed && self.broken().is_none() {
            let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
            self.unflushed = false;
            if let Err(error) = flushed {
                self.break_off(error);
            }
        }
        Poll::Ready(())
    }

    /// Reads once and parses; ready when anything came, the end included.
    fn poll_read(&mut self, overflow: Overflow, cx: &mut Context<'_>) -> Poll<()> {
        if self.ending.as_ref().is_some_and(|ending| ending.deferred.is_some()) {
            return Poll::Pending;
        }
        let now = self.now();
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            let left = Loan::with(|loan| self.parse(&mut unread, overflow, now, loan));
            if left > 0 {
                unread.drain(..unread.len() - left);
                self.unread = unread;
            }
            return Poll::Ready(());
        }
        Loan::with(|loan| {
            // Taken out, so that the rest of the loan can be used while it is parsed.
            let mut buffer = std::mem::take(&mut loan.buffer);
            let mut room = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
            let read = read.map(|result| result.map(|()| room.filled().len()));
            let read = read.map(|result| match result {
                Ok(0) => self.end_of_input(),
                Ok(count) => {
                    let left = self.parse(&mut buffer[..count], overflow, now, loan);
                    self.unread = buffer[count - left..count].to_vec();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => self.over(Err(Error::io(Doing::Reading, error))),
            });
            loan.buffer = buffer;
            read
        })
    }

    /// Takes messages out of `bytes` until they are used up or the inbox is full; how many bytes are left.
    fn parse(&mut self, bytes: &mut [u8], overflow: Overflow, now: Time, loan: &mut Loan) -> usize {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let Self { connection, backlog, bounds, .. } = self;
            let Backlog { outbox, inbox, part } = loan.lend(backlog);
            let event = match overflow {
                Overflow::Parts => connection.receive_parts(&mut input, now, &mut loan.scratch, outbox),
                Overflow::Wait | Overflow::Discard => connection.receive(&mut input, now, &mut loan.scratch, outbox),
            };
            match event {
                Ok(Some(Event::Message(message))) => {
                    if !inbox.has_room(bounds) {
                        self.ending().discarded += 1;
                        continue;
                    }
                    inbox.push(message);
                    if overflow == Overflow::Parts || (overflow == Overflow::Wait && !inbox.has_room(bounds)) {
                        break;
                    }
                }
                Ok(Some(Event::Part(received))) => {
                    let is_skipped = self.parts == Parts::Skipped || overflow != Overflow::Parts;
                    self.parts = match (received.is_last, is_skipped) {
                        (true, _) => Parts::None,
                        (false, true) => Parts::Skipped,
                        (false, false) => Parts::Received,
                    };
                    if !is_skipped {
                        let payload = Cow::Owned(received.payload.into_owned());
                        *part = Some(Part { payload, ..received });
                        break;
                    }
                }
                Ok(Some(Event::Close(close))) => self.ending().deferred = Some(Ok(close)),
                Ok(Some(Event::Ping(_) | Event::Pong(..)) | None) => {}
                Err(violation) => self.ending().deferred = Some(Err(Cause::Violation(violation).into())),
            }
        }
        let left = input.len();
        // Whoever has begun to close answers nothing any more.
        if self.ending.as_ref().is_some_and(|ending| ending.close_by.is_some()) || !self.has_received() {
            self.conclude_with(loan);
        }
        left
    }

    /// Whether something waits to be received.
    fn has_received(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| !backlog.inbox.is_empty() || backlog.part.is_some())
    }

    /// Ends the protocol if the peer has, once nothing waits that came before: until then it can be answered.
    pub(super) fn conclude(&mut self) {
        if self.ending.as_ref().is_some_and(|ending| ending.deferred.is_some()) {
            Loan::with(|loan| self.conclude_with(loan));
        }
    }

    fn conclude_with(&mut self, loan: &mut Loan) {
        let Some(outcome) = self.ending.as_mut().and_then(|ending| ending.deferred.take()) else { return };
        let Backlog { outbox, .. } = loan.lend(&mut self.backlog);
        self.connection.conclude(&mut loan.scratch, outbox);
        self.end(outcome, self.now());
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.connection.deadline() else { return Poll::Pending };
        ready!(self.poll_time(deadline, cx));
        let now = self.now();
        let Self { connection, backlog, .. } = self;
        let lapse = Loan::with(|loan| {
            let Backlog { outbox, .. } = loan.lend(backlog);
            connection.handle_deadline(now, &mut loan.scratch, outbox)
        });
        match lapse {
            None => {}
            Some(Lapse::Heartbeat) => {
                // The peer is most likely gone: the close frame is tried once, not waited for.
                let _ = self.poll_write(cx);
                self.over(Err(Cause::Deadline(Deadline::Heartbeat).into()));
            }
            Some(Lapse::Close) => self.over(Err(Cause::Deadline(Deadline::Close).into())),
        }
        Poll::Ready(())
    }

    /// Ready once `time` has come.
    pub(super) fn poll_time(&mut self, time: Time, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.now() >= time {
                return Poll::Ready(());
            }
            // What lies beyond the clock's range never comes.
            let Some(at) = self.start.checked_add(time - Time::ZERO) else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() > at || timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// Ends the TCP connection after the last frame (RFC 6455 §7.1.1): writes what is left, a server then shuts its
    /// side; reads to the end, which a client leaves to the server; none of it beyond the deadline.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Ending { deadline, mut shut, mut ended } = self.phase else { return Poll::Ready(()) };
        let written = self.poll_write(cx).is_ready();
        if written && !shut && (self.role == Role::Server || ended) {
            // An error means that there is nothing left to shut.
            shut = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
        }
        let mut changed = false;
        if !ended {
            let read = Loan::with(|loan| {
                let mut room = ReadBuf::new(&mut loan.buffer);
                Pin::new(&mut self.stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            });
            changed = read.is_ready();
            ended = matches!(read, Poll::Ready(Ok(0) | Err(_)));
        }
        self.phase = Phase::Ending { deadline, shut, ended };
        if (ended && shut) || self.poll_time(deadline, cx).is_ready() {
            self.phase = Phase::Over;
            self.drop_output();
            self.timer = None;
            return Poll::Ready(());
        }
        if changed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The protocol has ended; the TCP connection is still to be.
    fn end(&mut self, outcome: Result<Close, Error>, now: Time) {
        let timeout = self.settings.close_timeout;
        let ending = self.ending();
        let deadline = ending.close_by.unwrap_or(now + timeout);
        ending.outcome.get_or_insert(outcome);
        self.phase = Phase::Ending { deadline, shut: false, ended: false };
    }

    /// Everything has ended.
    fn over(&mut self, outcome: Result<Close, Error>) {
        self.phase = Phase::Over;
        self.ending().outcome.get_or_insert(outcome);
        self.drop_output();
        self.timer = None;
    }

    fn end_of_input(&mut self) {
        if let Err(end) = self.connection.receive_eof() {
            let error = self.ending().broken.take().unwrap_or_else(|| Cause::UnexpectedEnd(end).into());
            self.over(Err(error));
        }
    }

    /// The stream takes no more.
    fn break_off(&mut self, error: std::io::Error) {
        self.ending().broken.get_or_insert_with(|| Error::io(Doing::Writing, error));
        self.unflushed = false;
    }

    pub(super) fn drop_output(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.outbox = Outbox::new();
        }
    }
}

/// Slices of one vectored write.
const SLICES: usize = 16;
