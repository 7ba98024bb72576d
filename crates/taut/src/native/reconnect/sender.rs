//! Sending on a connection that is replaced, from other tasks than the one that receives.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use taut_proto::Message;
use tokio::sync::watch;

use crate::error::Cause;
use crate::native::driver::Driver;
use crate::native::shared::Handle;
use crate::{Error, WebSocket};

/// Sends on a [`Reconnecting`](super::Reconnecting) from other tasks, over all its connections; clones send on the same
/// one. Made by [`Reconnecting::sender`](super::Reconnecting::sender).
///
/// It holds no queue: a message is given to the open connection, or it is not sent. While there is no connection,
/// [`send`](Self::send) waits and [`try_send`](Self::try_send) refuses. The task with the
/// [`Reconnecting`](super::Reconnecting) must receive meanwhile (or wait in another call on it): nobody else connects.
///
/// Messages of one task arrive in the order in which it sent them, as far as they arrive: what a connection had
/// accepted when it broke may be [lost](super#what-may-be-lost), and is not sent again.
#[derive(Clone)]
pub struct ReconnectingSender {
    current: watch::Receiver<Current>,
}

impl ReconnectingSender {
    /// Sends a message; waits until there is a connection, and while 1 MiB or more of earlier messages are pending on
    /// it. When the connection is lost before it has accepted the message, the next one is waited for.
    ///
    /// # Errors
    /// When the [`Reconnecting`](super::Reconnecting) has ended: [`is_closed`](Error::is_closed) after it was closed or
    /// dropped, else what it has given up after. Also ([`is_timeout`](Error::is_timeout)) when neither side of an open
    /// connection reads. In every case the message was not sent.
    ///
    /// # Cancel safety
    /// All or nothing: a call that is dropped before it is done has sent nothing of its message.
    // Not an `async fn`: that would keep what `message` was made of as well, and a task would be larger by as much.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> impl Future<Output = Result<(), Error>> {
        self.send_message(message.into())
    }

    async fn send_message(&self, mut message: Message<'_>) -> Result<(), Error> {
        let mut updates = self.current.clone();
        loop {
            // Before it is looked at: what changes from now on is not missed.
            updates.mark_unchanged();
            tokio::select! {
                biased;
                sent = poll_fn(|cx| self.poll_send(&mut message, cx)) => return sent,
                update = updates.changed() => update.map_err(|_| Cause::Closed)?,
            }
        }
    }

    /// Sends a message at once or not at all: for what is worth nothing later, and from code that cannot wait.
    ///
    /// # Errors
    /// [`is_closed`](Error::is_closed) when there is no connection now, or never will be ([`is_over`](Self::is_over));
    /// [`is_full`](Error::is_full) when 1 MiB or more of earlier messages are pending. The message was not sent.
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        match self.current() {
            Current::Open(handle) => handle.try_send(&mut message.into()),
            Current::None => Err(Cause::Disconnected.into()),
            Current::Over(error) => Err(error),
        }
    }

    /// Waits until there is a connection: to make a message only when it can be sent.
    ///
    /// # Errors
    /// As [`send`](Self::send), when the [`Reconnecting`](super::Reconnecting) has ended.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut updates = self.current.clone();
        let current = updates.wait_for(|current| !matches!(current, Current::None)).await;
        match &*current.map_err(|_| Cause::Closed)? {
            Current::Over(error) => Err(error.clone()),
            Current::None | Current::Open(_) => Ok(()),
        }
    }

    /// Whether there is a connection. It may turn out to be lost.
    pub fn is_open(&self) -> bool {
        matches!(self.current(), Current::Open(handle) if handle.look(Driver::is_open))
    }

    /// Whether the [`Reconnecting`](super::Reconnecting) has ended: nothing can be sent any more.
    pub fn is_over(&self) -> bool {
        matches!(self.current(), Current::Over(_))
    }

    fn poll_send(&self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.current() {
            Current::Open(handle) => match handle.poll_send(message, cx) {
                // The connection is lost. Whoever receives finds that out, and this changes.
                Poll::Ready(Err(_)) if !handle.look(Driver::is_open) => Poll::Pending,
                polled => polled,
            },
            Current::None => Poll::Pending,
            Current::Over(error) => Poll::Ready(Err(error)),
        }
    }

    /// A copy: a connection must not be used under the lock, since a waker may do anything.
    fn current(&self) -> Current {
        self.current.borrow().clone()
    }
}

impl fmt::Debug for ReconnectingSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingSender").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// What there is to send on.
#[derive(Clone)]
enum Current {
    /// No connection now.
    None,
    Open(Arc<Handle>),
    Over(Error),
}

/// Tells the senders what there is to send on, once there are any.
#[derive(Default)]
pub(super) struct Senders(Option<watch::Sender<Current>>);

impl Senders {
    /// Another sender, and whether there was none.
    pub(super) fn sender(&mut self) -> (ReconnectingSender, bool) {
        let current = self.0.get_or_insert_with(|| watch::Sender::new(Current::None));
        let is_first = current.receiver_count() == 0;
        (ReconnectingSender { current: current.subscribe() }, is_first)
    }

    /// There is a connection. One that nobody else sends on is not shared, since that has its price.
    pub(super) fn open(&self, socket: &WebSocket) {
        if self.0.as_ref().is_some_and(|current| current.receiver_count() > 0) {
            self.replace(Current::Open(Arc::new(socket.handle.share())));
        }
    }

    pub(super) fn lost(&self) {
        self.replace(Current::None);
    }

    pub(super) fn over(&self, error: Error) {
        self.replace(Current::Over(error));
    }

    fn replace(&self, next: Current) {
        if let Some(current) = &self.0 {
            // What was there, perhaps the last handle of a connection, is dropped outside the lock.
            drop(current.send_replace(next));
        }
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        let is_over = self.0.as_ref().is_none_or(|current| matches!(*current.borrow(), Current::Over(_)));
        if !is_over {
            self.over(Cause::Closed.into());
        }
    }
}
