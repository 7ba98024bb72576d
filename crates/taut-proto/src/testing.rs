//! For tests: two connections joined by a [`Link`] under the test's control, a [`Client`] for tests of servers, and
//! frames by hand.

mod blocking;
mod client;
mod frames;

use std::sync::Arc;
use std::time::Duration;

pub use blocking::{BlockingClient, read};
pub use client::{Client, NONCE};
pub use frames::{frame, frames, masked, unmasked};

use crate::{Close, Connection, Event, Input, Message, Outbox, ReadInto, Role, Scratch, Settings, Time, Violation};

/// One end of a [`Link`]: a connection with what it lends and what it has seen.
pub struct End {
    /// The connection itself.
    pub connection: Connection,
    /// What it has still to write.
    pub outbox: Outbox,
    /// Everything it has received, made independent of the reads it came in.
    pub events: Vec<Seen>,
    scratch: Scratch,
}

/// An event that outlives its read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message.
    Message(Message<'static>),
    /// A part of a message, and whether it was the last.
    Part(Vec<u8>, bool),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The peer's close frame.
    Close(Close),
    /// What the peer did wrong.
    Violation(Violation),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(message) => Self::Message(message.into_owned()),
            Event::Part(part) => Self::Part(part.payload.into_owned(), part.is_last),
            Event::Ping(payload) => Self::Ping(payload.into_owned()),
            Event::Pong(payload, _) => Self::Pong(payload.into_owned()),
            Event::Close(close) => Self::Close(close),
        }
    }
}

impl End {
    /// An end that is not joined to another.
    pub fn new(connection: Connection) -> Self {
        Self { connection, outbox: Outbox::new(), events: Vec::new(), scratch: Scratch::new(counted) }
    }

    /// One read.
    pub fn receive(&mut self, bytes: &[u8], now: Time) {
        self.receive_as(false, bytes, now);
    }

    /// One read, of which a message that goes on is received in parts.
    pub fn receive_parts(&mut self, bytes: &[u8], now: Time) {
        self.receive_as(true, bytes, now);
    }

    /// One read of `bytes` by a driver that reads where they [belong](Connection::read_into); gives how many it takes.
    pub fn read(&mut self, bytes: &[u8], now: Time) -> usize {
        let Some(ReadInto { buffer, limit }) = self.connection.read_into(1) else {
            self.receive(bytes, now);
            return bytes.len();
        };
        let count = limit.min(bytes.len());
        buffer.extend_from_slice(&bytes[..count]);
        let Self { connection, scratch, outbox, .. } = self;
        match connection.received_into(count, now, scratch, outbox) {
            Ok(event) => self.events.extend(event.map(Seen::from)),
            Err(violation) => self.events.push(Seen::Violation(violation)),
        }
        count
    }

    fn receive_as(&mut self, in_parts: bool, bytes: &[u8], now: Time) {
        let mut bytes = bytes.to_vec();
        let mut input = Input::new(&mut bytes);
        loop {
            let Self { connection, scratch, outbox, .. } = self;
            let event = if in_parts {
                connection.receive_parts(&mut input, now, scratch, outbox)
            } else {
                connection.receive(&mut input, now, scratch, outbox)
            };
            self.events.push(match event {
                Ok(None) => return,
                Ok(Some(event)) => event.into(),
                Err(violation) => Seen::Violation(violation),
            });
        }
    }

    /// Sends a message.
    pub fn send<'a>(&mut self, message: impl Into<Message<'a>>) -> bool {
        self.connection.send(message, &mut self.scratch, &mut self.outbox).is_ok()
    }

    /// Sends a fragment of a message.
    pub fn send_fragment<'a>(&mut self, fragment: impl Into<Message<'a>>, is_last: bool) -> bool {
        let Self { connection, scratch, outbox, .. } = self;
        connection.send_fragment(&fragment.into(), is_last, scratch, outbox).is_ok()
    }

    /// Sends a ping.
    pub fn ping(&mut self, payload: &[u8]) -> bool {
        self.connection.ping(payload, &mut self.scratch, &mut self.outbox).is_ok()
    }

    /// Begins the close.
    pub fn close(&mut self, close: impl Into<Close>, now: Time) {
        self.connection.close(close, now, &mut self.scratch, &mut self.outbox);
    }

    /// Lets the deadline be handled.
    pub fn handle_deadline(&mut self, now: Time) -> Option<crate::Timeout> {
        self.connection.handle_deadline(now, &mut self.scratch, &mut self.outbox)
    }

    /// Takes up to `limit` bytes off the outbox, as a socket would.
    pub fn write(&mut self, limit: usize) -> Vec<u8> {
        let (slices, count) = self.outbox.slices::<8>();
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter()).copied().take(limit).collect();
        self.outbox.consume(bytes.len());
        bytes
    }
}

/// A client and a server, and a clock.
pub struct Link {
    /// The client's end.
    pub client: End,
    /// The server's end.
    pub server: End,
    /// What time it is.
    pub now: Time,
}

impl Link {
    /// Two ends with the settings they have by default.
    pub fn new() -> Self {
        Self::with(Settings::client(), Settings::server())
    }

    /// Two ends with settings of their own.
    pub fn with(client: Settings, server: Settings) -> Self {
        let end = |role, settings| End::new(Connection::new(role, Arc::new(settings), Time::ZERO, 100));
        Self { client: end(Role::Client, client), server: end(Role::Server, server), now: Time::ZERO }
    }

    /// Carries bytes both ways until none are left, in reads of at most `size` bytes.
    ///
    /// # Panics
    /// When the two ends answer each other without end.
    pub fn settle(&mut self, size: usize) {
        let mut rounds = 0;
        while !self.client.outbox.is_empty() || !self.server.outbox.is_empty() {
            rounds += 1;
            assert!(rounds < MOST_ROUNDS, "the two ends answer each other without end");
            let up = self.client.write(size);
            self.server.receive(&up, self.now);
            let down = self.server.write(size);
            self.client.receive(&down, self.now);
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// Mask keys for tests: the same each time, and each different.
fn counted(bytes: &mut [u8]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (index * 7 + 1) as u8;
    }
}

/// More than any test's bytes need, in reads of one byte as well.
const MOST_ROUNDS: usize = 100_000_000;
