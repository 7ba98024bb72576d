//! What a hub wants done after a command.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::command::{Command, Push, Rejected, Reply, Subscribed};
use super::engine::Request;
use super::receipt::Token;
use crate::events::Event;
use crate::place::ShardIndex;

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) struct Effects<C> {
    queue: VecDeque<Effect<C>>,
    /// Where messages are encoded.
    text: String,
}

#[derive(Debug)]
pub(crate) enum Effect<C> {
    /// Take it to the owner of its channel, or of the app's users.
    Command(Command<C>),
    Reply(ShardIndex, Reply<C>),
    Push(ShardIndex, Push),
    /// Tell a connection of this shard.
    Tell(C, Tell),
    /// Something happened that webhooks and the console may want to know. It was held back for so long.
    Happened(Event, Duration),
    /// The same, that webhooks hear of elsewhere.
    Shown(Event),
    /// Ask the engine of the cluster.
    Engine(Request),
    /// Everything before this is done.
    Done(Token),
}

/// What a connection of this shard has to hear.
#[derive(Debug)]
pub(crate) enum Tell {
    /// An answer to one of its subscriptions has come.
    Answered {
        channel: Arc<str>,
    },
    Subscribed {
        channel: Arc<str>,
        /// The user that it is in a presence channel, if it has just come there.
        user_id: Option<Arc<str>>,
        subscribed: Subscribed,
        /// It was not subscribed before.
        is_new: bool,
    },
    Rejected {
        channel: Arc<str>,
        why: Rejected,
    },
    /// From here on it gets what is sent to its user. The data is what it signed in with.
    SignedIn {
        user_data: Box<str>,
    },
    /// Users that it watches have come online or gone offline.
    Watchlist {
        online: Vec<Arc<str>>,
        offline: Vec<Arc<str>>,
    },
}

impl<C> Effects<C> {
    pub(crate) fn new() -> Self {
        Self { queue: VecDeque::new(), text: String::new() }
    }

    pub(crate) fn pop(&mut self) -> Option<Effect<C>> {
        let effect = self.queue.pop_front();
        if effect.is_none() {
            self.queue.shrink_to(SMALL);
        }
        effect
    }

    pub(super) fn push(&mut self, effect: Effect<C>) {
        self.queue.push_back(effect);
    }

    pub(super) fn command(&mut self, command: Command<C>) {
        self.push(Effect::Command(command));
    }

    pub(super) fn tell(&mut self, connection: C, tell: Tell) {
        self.push(Effect::Tell(connection, tell));
    }

    /// Encodes a message.
    pub(super) fn encode(&mut self, write: impl FnOnce(&mut String)) -> taut_proto::Prepared {
        self.text.clear();
        write(&mut self.text);
        let message = taut_proto::Prepared::new(self.text.as_str());
        self.text.shrink_to(LARGEST_TEXT_KEPT);
        message
    }
}

/// Effects for which a queue keeps its room.
const SMALL: usize = 64;

/// Bytes.
const LARGEST_TEXT_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_its_memory_back_once_all_is_done() {
        let mut effects = Effects::new();
        for connection in 0..1000 {
            effects.tell(connection, Tell::SignedIn { user_data: "{}".into() });
        }
        assert!(matches!(effects.pop(), Some(Effect::Tell(0, _))), "what came first is done first");
        assert!(effects.queue.capacity() >= 1000, "not while there is more to do");
        assert_eq!(std::iter::from_fn(|| effects.pop()).count(), 999);
        assert!(effects.queue.capacity() <= 2 * SMALL, "{}", effects.queue.capacity());
    }

    #[test]
    fn each_message_is_encoded_by_itself_and_a_long_one_keeps_no_memory() {
        let mut effects = Effects::<u32>::new();
        let long = "x".repeat(4 * LARGEST_TEXT_KEPT);
        assert_eq!(effects.encode(|text| text.push_str(&long)).payload(), long.as_bytes());
        assert!(effects.text.capacity() <= long.len());
        assert_eq!(effects.encode(|text| text.push_str("short")).payload(), b"short");
        assert_eq!(effects.text.capacity(), LARGEST_TEXT_KEPT);
    }
}
