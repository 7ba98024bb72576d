//! What comes from the engine, and whom it is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Doubt;
use super::api::{self, Answer};
use super::connection::{Lost, Receiver};
use super::entry::Entry;
use super::protocol::Message;
use crate::cluster::driver::Node;
use crate::cluster::inbox::{Heard, Inbox};
use crate::hub::engine::{Epoch, Position};

/// Knows the subscriptions of one connection. Events go to their owners at once; all else is for the session.
#[derive(Debug)]
pub(super) struct Router {
    inbox: Inbox,
    session: UnboundedSender<FromEngine>,
    /// By the number of the subscription.
    targets: Mutex<HashMap<u64, Target>>,
    /// The streams with last events.
    streams: Mutex<HashMap<String, Epoch>>,
}

/// What a subscription is for.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Answers. Their subject ends with a number.
    Answers,
    Log,
    /// From node to node.
    Control,
    Channel {
        app: Arc<str>,
        channel: Arc<str>,
    },
}

/// What a session must know.
#[derive(Debug)]
pub(super) enum FromEngine {
    Answer {
        number: u64,
        answer: Answer,
    },
    Log(Delivered),
    /// The server wants to hear, at this subject, that the log has been read up to here.
    Stalled {
        reply: String,
    },
    Lost(Doubt),
}

/// An entry of the log.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) sequence: u64,
    /// The number of the delivery: they have no gaps.
    pub(super) number: u64,
    /// When it was written, in milliseconds since 1970 by the server's clock.
    pub(super) at: u64,
    /// `None` if it was not understood.
    pub(super) entry: Option<Entry>,
}

impl Router {
    pub(super) fn new(node: &Node) -> (Arc<Self>, UnboundedReceiver<FromEngine>, UnboundedReceiver<Heard>) {
        let ((session, from_engine), (sender, heard)) = (unbounded_channel(), unbounded_channel());
        let inbox = Inbox {
            apps: Arc::clone(&node.apps),
            owners: Arc::clone(&node.owners),
            origin: node.origin.clone(),
            heard: sender,
        };
        let router = Self { inbox, session, targets: Mutex::default(), streams: Mutex::default() };
        (Arc::new(router), from_engine, heard)
    }

    pub(super) fn add(&self, subscription: u64, target: Target) {
        self.targets.lock().expect("nobody panics with it").insert(subscription, target);
    }

    pub(super) fn remove(&self, subscription: u64) {
        self.targets.lock().expect("nobody panics with it").remove(&subscription);
    }

    /// A stream with last events is known to be this one.
    pub(super) fn set_stream(&self, name: String, epoch: Epoch) {
        self.streams.lock().expect("nobody panics with it").insert(name, epoch);
    }

    pub(super) fn stream(&self, name: &str) -> Option<Epoch> {
        self.streams.lock().expect("nobody panics with it").get(name).copied()
    }

    fn take(&self, message: &Message<'_>) {
        let target = self.targets.lock().expect("nobody panics with it").get(&message.subscription).cloned();
        match target {
            Some(Target::Channel { app, channel }) => {
                self.inbox.to_channel(&app, &channel, message.payload, self.position(message));
            }
            Some(Target::Control) => self.inbox.control(message.payload),
            Some(Target::Log) => self.log(message),
            Some(Target::Answers) => self.answer(message),
            // It was given up meanwhile.
            None => {}
        }
    }

    /// Of an event that the engine keeps.
    fn position(&self, message: &Message<'_>) -> Option<Position> {
        let number = message.headers.number(api::SEQUENCE)?;
        let name = message.headers.get(api::STREAM).unwrap_or_default();
        // Nobody here has asked for the last event of such a stream: whoever does has its epoch first.
        let epoch = self.stream(name).unwrap_or(Epoch(0));
        Some(Position { epoch, number })
    }

    fn answer(&self, message: &Message<'_>) {
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let Some(number) = number else { return };
        let answer = Answer { status: message.headers.status(), payload: message.payload.to_vec() };
        self.tell(FromEngine::Answer { number, answer });
    }

    fn log(&self, message: &Message<'_>) {
        if message.headers.status().is_some() {
            let stalled = message.headers.get("Nats-Consumer-Stalled").or(message.reply);
            if let Some(reply) = stalled {
                self.tell(FromEngine::Stalled { reply: reply.to_owned() });
            }
            return;
        }
        let entry = Entry::read(message.payload, message.headers.get(api::TOLD))
            .inspect_err(|malformed| tracing::warn!(%malformed, "an entry of the cluster's log was not understood"));
        match message.reply.and_then(delivery) {
            Some((sequence, number, at)) => {
                self.tell(FromEngine::Log(Delivered { sequence, number, at, entry: entry.ok() }));
            }
            None => self.tell(FromEngine::Lost(Doubt::Unexpected)),
        }
    }

    fn tell(&self, what: FromEngine) {
        // The session may be over.
        let _ = self.session.send(what);
    }
}

/// `$JS.ACK.STREAM.CONSUMER.TRIES.SEQUENCE.NUMBER.NANOSECONDS.LEFT`; newer servers put a domain and an account behind `ACK`, and more at the end.
fn delivery(reply: &str) -> Option<(u64, u64, u64)> {
    let tokens: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let first = match tokens.len() {
        7 => 3,
        9.. => 5,
        _ => return None,
    };
    let number = |at: usize| tokens.get(first + at)?.parse::<u64>().ok();
    Some((number(0)?, number(1)?, number(2)? / 1_000_000))
}

/// The ears of a connection.
#[derive(Debug)]
pub(super) struct Ears(pub(super) Arc<Router>);

impl Receiver for Ears {
    fn message(&mut self, message: Message<'_>) {
        self.0.take(&message);
    }

    fn lost(&mut self, why: Lost) {
        self.0.tell(FromEngine::Lost(Doubt::Connection(why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_says_where_it_stands() {
        assert_eq!(delivery("$JS.ACK.taut-log.c1.1.42.7.1700000000123456789.3"), Some((42, 7, 1_700_000_000_123)));
        assert_eq!(
            delivery("$JS.ACK.hub.HASH.taut-log.c1.1.42.7.1700000000123456789.3"),
            Some((42, 7, 1_700_000_000_123))
        );
        assert_eq!(
            delivery("$JS.ACK.hub.HASH.taut-log.c1.1.42.7.1700000000123456789.3.x"),
            Some((42, 7, 1_700_000_000_123))
        );
        for wrong in ["", "_INBOX.1", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.1.x.3.4.5"] {
            assert_eq!(delivery(wrong), None, "{wrong}");
        }
    }
}
