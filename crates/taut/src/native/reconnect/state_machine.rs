//! The state machine of a [`Reconnecting`]: how it gets from one connection to the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use taut_proto::{Close, CloseCode, Message};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Ended, Event, Pending, Reconnecting};
use crate::error::Cause;
use crate::native::driver::Driver;
use crate::{Client, Error, WebSocket};

impl Reconnecting {
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message<'static>, Error>> {
        loop {
            if let Some(message) = self.kept.pop() {
                return Poll::Ready(Ok(message));
            }
            if let Phase::Closing(socket) = &mut self.phase {
                match ready!(socket.handle.poll_recv(cx)) {
                    Ok(Some(message)) => return Poll::Ready(Ok(message)),
                    Ok(None) | Err(_) => self.phase = Phase::Over(Cause::Closed.into()),
                }
            }
            ready!(self.poll_open(cx))?;
            if let Some(message) = ready!(self.poll_message(cx)) {
                return Poll::Ready(Ok(message));
            }
        }
    }

    pub(super) fn poll_send(&mut self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.poll_open(cx))?;
            let Phase::Open { socket, .. } = &self.phase else { continue };
            match ready!(socket.handle.poll_send(message, cx)) {
                // It goes on, and the caller may as well.
                Err(error) if socket.handle.look(Driver::is_open) => return Poll::Ready(Err(error)),
                Err(error) => ready!(self.poll_rest(&error, cx)),
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Receives from a connection on which nothing can be sent until it ends; the messages are kept.
    fn poll_rest(&mut self, error: &Error, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(message) = ready!(self.poll_message(cx)) {
            self.kept.push(message);
            if !self.kept.has_room() {
                self.ended(Ended::Failed(error.clone()));
                break;
            }
        }
        Poll::Ready(())
    }

    /// The open connection's next message; `None` when it has ended, which has been seen to.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message<'static>>> {
        let Phase::Open { socket, .. } = &mut self.phase else { return Poll::Ready(None) };
        let ended = match ready!(socket.handle.poll_recv(cx)) {
            Ok(Some(message)) => return Poll::Ready(Some(message)),
            Ok(None) => Ended::Closed(socket.peer_close().unwrap_or_else(|| CloseCode::NO_STATUS.into())),
            // Of a message that was cut off nobody has seen anything: it is lost as others are on their way.
            Err(error) => match socket.peer_close().filter(|_| error.is_cut_off()) {
                Some(close) => Ended::Closed(close),
                None => Ended::Failed(error),
            },
        };
        self.ended(ended);
        Poll::Ready(None)
    }

    pub(super) fn poll_close(&mut self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let code = close.code();
        if !code.is_sendable() && code != CloseCode::NO_STATUS {
            return Poll::Ready(Err(Cause::CloseCode(code).into()));
        }
        if !matches!(self.phase, Phase::Closing(_) | Phase::Over(_)) {
            let phase = std::mem::replace(&mut self.phase, Phase::Over(Cause::Closed.into()));
            if let Phase::Open { socket, .. } = phase {
                self.phase = Phase::Closing(socket);
            }
            (self.on_event)(&Event::Closed);
        }
        match &self.phase {
            Phase::Closing(socket) => socket.handle.poll_close(close, cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Gets to an open connection.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match &mut self.phase {
                Phase::Open { .. } => return Poll::Ready(Ok(())),
                Phase::Over(error) => return Poll::Ready(Err(error.clone())),
                Phase::Closing(_) => return Poll::Ready(Err(Cause::Closed.into())),
                Phase::Waiting(delay) => {
                    ready!(delay.as_mut().poll(cx));
                    self.phase = Phase::Due;
                }
                Phase::Due => {
                    self.series.attempt = self.series.attempt.saturating_add(1);
                    self.series.began.get_or_insert_with(Instant::now);
                    self.connect();
                }
                Phase::Connecting(connecting) => match ready!(connecting.as_mut().poll(cx)) {
                    Ok(socket) => self.phase = Phase::Opening((self.hook)(socket)),
                    Err(error) => self.rejected(error),
                },
                Phase::Refreshing(refreshing) => match ready!(refreshing.as_mut().poll(cx)) {
                    Ok(client) => {
                        self.client = Arc::new(client);
                        self.series.is_refreshed = true;
                        self.connect();
                    }
                    Err(error) => self.failed(error),
                },
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(socket) => {
                        self.series.is_refreshed = false;
                        self.series.reconnect.opened();
                        self.phase = Phase::Open { socket, since: Instant::now() };
                        (self.on_event)(&Event::Open { attempt: self.series.attempt });
                    }
                    Err(error) => self.failed(error),
                },
            }
        }
    }

    fn connect(&mut self) {
        (self.on_event)(&Event::Connecting { attempt: self.series.attempt });
        self.phase = Phase::Connecting((self.dial)(Arc::clone(&self.client)));
    }

    /// The handshake failed, or what was before it.
    fn rejected(&mut self, error: Error) {
        let is_unauthorized = error.status() == Some(401) && !error.is_proxy();
        let is_refreshed = std::mem::take(&mut self.series.is_refreshed);
        match &mut self.refresh {
            Some(refresh) if is_unauthorized && !is_refreshed => {
                self.phase = Phase::Refreshing(refresh());
                (self.on_event)(&Event::Refreshing);
            }
            Some(_) if is_unauthorized => self.give_up(error),
            _ => self.failed(error),
        }
    }

    /// An attempt failed.
    fn failed(&mut self, error: Error) {
        (self.on_event)(&Event::Failed(error.clone()));
        self.retry(Ended::Failed(error));
    }

    /// The open connection ended.
    fn ended(&mut self, ended: Ended) {
        if let Phase::Open { socket, since } = &self.phase {
            // To the first sign of its end: a server that closes at once and leaves TCP open gains nothing by that.
            let end = socket.handle.look(Driver::ended_at).unwrap_or_else(Instant::now);
            self.series.ended_after(end.saturating_duration_since(*since));
        }
        (self.on_event)(&Event::Lost(ended.clone()));
        self.retry(ended);
    }

    /// Waits for the next attempt, or gives up.
    fn retry(&mut self, ended: Ended) {
        if !(self.retry_if)(&ended) || self.series.attempt >= self.max_attempts {
            return self.give_up(ended.into_error());
        }
        let delay = match self.series.delay(&ended) {
            Ok(delay) => delay,
            Err(error) => return self.give_up(error),
        };
        let now = Instant::now();
        let began = *self.series.began.get_or_insert(now);
        let at = now.checked_add(delay).filter(|at| at.duration_since(began) <= self.give_up_after);
        let Some(at) = at else { return self.give_up(ended.into_error()) };
        self.phase = Phase::Waiting(Box::pin(sleep_until(at)));
        (self.on_event)(&Event::Waiting { delay, attempt: self.series.attempt.saturating_add(1) });
    }

    fn give_up(&mut self, error: Error) {
        self.phase = Phase::Over(error.clone());
        (self.on_event)(&Event::GaveUp(error));
    }
}

/// Where it stands, with what is going on there.
pub(super) enum Phase {
    /// An attempt is to begin.
    Due,
    Connecting(Pending<WebSocket>),
    Refreshing(Pending<Client>),
    /// In the hook.
    Opening(Pending<WebSocket>),
    Open {
        socket: WebSocket,
        since: Instant,
    },
    Waiting(Pin<Box<Sleep>>),
    /// Closed by us; what came before is still to be received.
    Closing(WebSocket),
    Over(Error),
}
