//! Where the shard of a client and the task that holds the backend's WebSocket meet.
//!
//! The shard gives the task one [`Job`] at a time. The task queues what the backend sends, and rings: it has the shard
//! told by mail, once, that there is something to take. The shard takes no more than its client reads, and beyond
//! [`MOST_BYTES`] the task reads no further.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use taut_proto::{Close, Message};
use taut_shard::ConnectionId;
use tokio::sync::Notify;

use super::Job;

/// One connection of a client, and its counterpart to a backend.
///
/// The lock is held to move a message or a job, and by nobody who waits.
#[derive(Default)]
pub(crate) struct Relay {
    state: Mutex<State>,
    has_job: Notify,
    has_room: Notify,
}

/// What a backend has sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sent {
    Message(Message<'static>),
    /// Nothing comes after it.
    Close(Close),
}

#[derive(Default)]
struct State {
    job: Option<Box<Job>>,
    queue: VecDeque<Sent>,
    /// Of the messages in the queue.
    bytes: usize,
    client: Client,
    /// The shard has been told, or comes by itself: it has not taken everything yet.
    is_rung: bool,
    /// The task waits for room.
    is_full: bool,
}

#[derive(Clone, Copy, Default)]
enum Client {
    /// The shard lets it in.
    #[default]
    Arriving,
    Here(ConnectionId),
    /// Nobody takes anything any more.
    Gone,
}

impl Relay {
    /// Gives the task what there is for the backend.
    pub(super) fn give(&self, job: Job) {
        self.state().job = Some(Box::new(job));
        self.has_job.notify_one();
    }

    /// Waits for what there is for the backend.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn job(&self) -> Job {
        loop {
            if let Some(job) = self.state().job.take() {
                return *job;
            }
            self.has_job.notified().await;
        }
    }

    /// Waits until more may be read of the backend.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn room(&self) {
        loop {
            if !self.state().becomes_full() {
                return;
            }
            self.has_room.notified().await;
        }
    }

    /// Queues what the backend has sent; gives whose shard is to be told.
    pub(super) fn push(&self, sent: Sent) -> Option<ConnectionId> {
        let mut state = self.state();
        if let Client::Gone = state.client {
            return None;
        }
        state.bytes += sent.bytes();
        state.queue.push_back(sent);
        state.ring()
    }

    /// The client is let in, as this connection, and its shard takes what has come meanwhile.
    pub(crate) fn arrived(&self, id: ConnectionId) {
        let mut state = self.state();
        (state.client, state.is_rung) = (Client::Here(id), true);
    }

    /// Takes what the backend has sent first. After nothing, the shard is told when there is something.
    pub(crate) fn take(&self) -> Option<Sent> {
        let mut state = self.state();
        let Some(sent) = state.queue.pop_front() else {
            if state.queue.capacity() > KEPT {
                state.queue = VecDeque::new();
            }
            state.is_rung = false;
            return None;
        };
        state.bytes -= sent.bytes();
        if state.is_full && state.has_room_again() {
            state.is_full = false;
            self.has_room.notify_one();
        }
        Some(sent)
    }

    /// The client has gone: what the backend has sent is for nobody.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        (state.client, state.queue, state.bytes) = (Client::Gone, VecDeque::new(), 0);
        self.has_room.notify_one();
    }

    pub(super) fn has_left(&self) -> bool {
        matches!(self.state().client, Client::Gone)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ring(&mut self) -> Option<ConnectionId> {
        match self.client {
            Client::Here(id) if !std::mem::replace(&mut self.is_rung, true) => Some(id),
            _ => None,
        }
    }

    fn becomes_full(&mut self) -> bool {
        self.is_full = self.bytes >= MOST_BYTES || self.queue.len() >= MOST_MESSAGES;
        self.is_full
    }

    /// Not with each message: the task is to be woken for many at once.
    fn has_room_again(&self) -> bool {
        self.bytes <= MOST_BYTES / 2 && self.queue.len() <= MOST_MESSAGES / 2
    }
}

impl Sent {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.as_bytes().len(),
            Self::Close(_) => 0,
        }
    }
}

/// There are no two of the same.
impl PartialEq for Relay {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Relay").finish_non_exhaustive()
    }
}

/// Bytes and messages that the shard has not taken, beyond which no more is read of a backend. The last message may
/// exceed it.
const MOST_BYTES: usize = 256 << 10;
const MOST_MESSAGES: usize = 1024;

/// Messages for which an empty queue keeps room.
const KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use taut_proto::CloseCode;
    use taut_shard::testing::Stage;
    use taut_shard::{Handler, Session, Settings};

    use super::*;

    struct Ids(Option<ConnectionId>);

    impl Handler for Ids {
        type User = ();
        type Mail = ();

        fn opened(&mut self, session: &mut Session<'_, ()>) {
            self.0 = Some(session.id());
        }

        fn message(&mut self, _: &mut Session<'_, ()>, _: Message<'_>) {}
    }

    fn id() -> ConnectionId {
        let mut stage = Stage::new(Ids(None), Settings::default());
        let _client = stage.open();
        stage.handler().0.expect("a connection")
    }

    fn text(text: &str) -> Sent {
        Sent::Message(text.to_owned().into())
    }

    fn has_room(relay: &Relay) -> bool {
        pin!(relay.room()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_shard_is_told_once_until_it_has_taken_everything() {
        let (relay, id) = (Relay::default(), id());
        assert_eq!(relay.push(text("a")), None, "the client is not there");
        relay.arrived(id);
        assert_eq!(relay.push(text("b")), None, "the shard is about to look");
        assert_eq!([relay.take(), relay.take()], [Some(text("a")), Some(text("b"))]);
        assert_eq!(relay.push(text("c")), None, "it has not seen the end");
        assert_eq!([relay.take(), relay.take()], [Some(text("c")), None]);
        let close = Sent::Close(CloseCode::GOING_AWAY.into());
        assert_eq!([relay.push(text("d")), relay.push(close.clone())], [Some(id), None]);
        assert_eq!([relay.take(), relay.take(), relay.take()], [Some(text("d")), Some(close), None]);
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for() {
        let (relay, id) = (Relay::default(), id());
        relay.arrived(id);
        let quarter = "x".repeat(MOST_BYTES / 4);
        for _ in 0..4 {
            assert!(has_room(&relay));
            relay.push(text(&quarter));
        }
        assert!(!has_room(&relay));
        relay.take();
        assert!(has_room(&relay), "who asks anew is told the truth");
        for _ in 0..3 {
            relay.take();
        }
        for _ in 0..MOST_MESSAGES {
            assert!(has_room(&relay));
            relay.push(text(""));
        }
        assert!(!has_room(&relay));
    }

    #[test]
    fn what_comes_for_a_client_that_has_gone_is_for_nobody_and_holds_up_nobody() {
        let (relay, id) = (Relay::default(), id());
        relay.arrived(id);
        relay.push(text(&"x".repeat(MOST_BYTES)));
        assert!(!has_room(&relay) && !relay.has_left());
        relay.leave();
        assert_eq!((relay.push(text("a")), relay.take()), (None, None));
        assert!(has_room(&relay) && relay.has_left());
    }
}
