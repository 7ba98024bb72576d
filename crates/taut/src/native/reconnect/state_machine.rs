//! The state machine of a [`Reconnecting`]: how it gets from one connection to the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use taut_proto::{Close, CloseCode, Message};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::hooks::{BoxFuture, MakeClient, Pending};
use super::{Decision, Ended, Event, Reconnecting};
use crate::error::{Cause, Deadline};
use crate::native::driver::Driver;
use crate::{Client, Error, WebSocket};

impl Reconnecting {
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message<'static>, Error>> {
        loop {
            if let Some(message) = ready!(self.poll_next(false, cx))? {
                return Poll::Ready(Ok(message));
            }
        }
    }

    /// The next message; `None` for a connection that was opened, if that is to be told.
    pub(super) fn poll_next(
        &mut self,
        tells_opened: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Message<'static>>, Error>> {
        loop {
            if let Some(message) = self.kept.pop() {
                return Poll::Ready(Ok(Some(message)));
            }
            if let Phase::Closing(socket) = &mut self.phase {
                match ready!(socket.handle.poll_recv(cx)) {
                    Ok(Some(message)) => return Poll::Ready(Ok(Some(message))),
                    Ok(None) | Err(_) => self.phase = Phase::Over(Cause::Closed.into()),
                }
            }
            ready!(self.poll_connected(cx))?;
            if self.is_news() && tells_opened {
                return Poll::Ready(Ok(None));
            }
            self.share();
            if let Some(message) = ready!(self.poll_message(cx)) {
                return Poll::Ready(Ok(Some(message)));
            }
        }
    }

    /// Whether nobody has been told of the open connection so far.
    fn is_news(&mut self) -> bool {
        match &mut self.phase {
            Phase::Open { is_told, .. } => !std::mem::replace(is_told, true),
            _ => false,
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
            self.senders.over(Cause::Closed.into());
            self.report(&Event::Closed);
        }
        match &self.phase {
            Phase::Closing(socket) => socket.handle.poll_close(close, cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Gets to an open connection, which other tasks may use as well.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_connected(cx))?;
        self.share();
        Poll::Ready(Ok(()))
    }

    /// Lets other tasks send on the open connection. Whoever is told of a new one first says on it what is to be said
    /// first: it is shared by the next call.
    #[inline]
    fn share(&mut self) {
        if let Phase::Open { socket, is_shared: is_shared @ false, .. } = &mut self.phase {
            *is_shared = true;
            self.senders.open(socket);
        }
    }

    /// Gets to an open connection.
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match &mut self.phase {
                Phase::Open { .. } => return Poll::Ready(Ok(())),
                Phase::Over(error) => return Poll::Ready(Err(error.clone())),
                Phase::Closing(_) => return Poll::Ready(Err(Cause::Closed.into())),
                Phase::Waiting(delay) => {
                    ready!(delay.as_mut().poll(cx));
                    self.phase = Phase::Due;
                }
                Phase::Due => self.begin(),
                Phase::Preparing(preparing) => match ready!(preparing.poll(cx)) {
                    Ok(client) => self.connect(Arc::new(client)),
                    Err(error) => self.failed(error),
                },
                Phase::Connecting(connecting) => match ready!(connecting.poll(cx)) {
                    Ok(socket) => match &mut self.hooks.get_mut().on_open {
                        Some(on_open) => self.phase = Phase::Opening(on_open(socket)),
                        None => self.opened(socket),
                    },
                    Err(error) => self.failed(error),
                },
                Phase::Opening(opening) => match ready!(opening.poll(cx)) {
                    Ok(socket) => self.opened(socket),
                    Err(error) => self.failed(error),
                },
            }
        }
    }

    /// An attempt begins.
    fn begin(&mut self) {
        let attempt = self.series.begin();
        self.report(&Event::Connecting { attempt: attempt.number });
        match &mut self.hooks.get_mut().client {
            MakeClient::Fixed(client) => {
                let client = Arc::clone(client);
                self.connect(client);
            }
            MakeClient::Fresh(make) => self.phase = Phase::Preparing(within(self.client_timeout, make(attempt))),
        }
    }

    fn connect(&mut self, client: Arc<Client>) {
        self.series.has_client();
        self.client = Some(Arc::clone(&client));
        self.phase = Phase::Connecting((self.hooks.get_mut().dial)(client));
    }

    /// There is a connection, and the hook is done.
    fn opened(&mut self, socket: WebSocket) {
        self.series.opened();
        self.phase = Phase::Open { socket, since: Instant::now(), is_told: false, is_shared: false };
        self.report(&Event::Open { attempt: self.series.attempt });
    }

    /// An attempt failed.
    fn failed(&mut self, error: Error) {
        self.report(&Event::Failed(error.clone()));
        self.go_on(Ended::Failed(error));
    }

    /// The open connection ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        if let Phase::Open { socket, since, .. } = &self.phase {
            // To the first sign of its end: a server that closes at once and leaves TCP open gains nothing by that.
            let end = socket.handle.look(Driver::ended_at).unwrap_or_else(Instant::now);
            self.series.ended_after(end.saturating_duration_since(*since));
        }
        self.senders.lost();
        self.report(&Event::Lost(ended.clone()));
        self.go_on(ended);
    }

    /// Begins the next attempt, waits for it, or gives up.
    fn go_on(&mut self, ended: Ended) {
        let decision = self.decision(&ended);
        let delay = match self.series.follow(decision, &ended) {
            Ok(Some(delay)) => delay,
            Ok(None) => return self.give_up(ended.into_error()),
            Err(error) => return self.give_up(error),
        };
        let attempt = self.series.next_number();
        let now = Instant::now();
        let began = *self.series.began.get_or_insert(now);
        let at = now.checked_add(delay).filter(|at| at.duration_since(began) <= self.give_up_after);
        let Some(at) = at.filter(|_| attempt <= self.max_attempts) else { return self.give_up(ended.into_error()) };
        self.phase = Phase::Due;
        if decision == Decision::Refresh {
            self.report(&Event::Refreshing);
        }
        if !delay.is_zero() {
            self.phase = Phase::Waiting(Box::pin(sleep_until(at)));
            self.report(&Event::Waiting { delay, attempt });
        }
    }

    fn decision(&mut self, ended: &Ended) -> Decision {
        let hooks = self.hooks.get_mut();
        match (hooks.decide)(ended) {
            // Nobody can give other credentials.
            Decision::Refresh if matches!(hooks.client, MakeClient::Fixed(_)) => Decision::GiveUp,
            decision => decision,
        }
    }

    fn give_up(&mut self, error: Error) {
        self.phase = Phase::Over(error.clone());
        self.senders.over(error.clone());
        self.report(&Event::GaveUp(error));
    }

    fn report(&mut self, event: &Event) {
        (self.hooks.get_mut().on_event)(event);
    }
}

/// The application's future within its deadline.
fn within(limit: Duration, making: BoxFuture<Client>) -> Pending<Client> {
    Pending::new(async move {
        match timeout(limit, making).await {
            Ok(made) => made,
            Err(_) => Err(Cause::Deadline(Deadline::Client(limit)).into()),
        }
    })
}

/// Where it stands, with what is going on there.
pub(super) enum Phase {
    /// An attempt is to begin.
    Due,
    /// The application makes the attempt's client.
    Preparing(Pending<Client>),
    Connecting(Pending<WebSocket>),
    /// In the hook.
    Opening(Pending<WebSocket>),
    Open {
        socket: WebSocket,
        since: Instant,
        /// Whoever receives knows of it, or does not want to.
        is_told: bool,
        /// Other tasks may send on it.
        is_shared: bool,
    },
    Waiting(Pin<Box<Sleep>>),
    /// Closed by us; what came before is still to be received.
    Closing(WebSocket),
    Over(Error),
}
