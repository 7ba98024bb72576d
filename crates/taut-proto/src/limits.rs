//! How much a peer may make us hold, and for how long.

use std::time::Duration;

/// Bounds on what a peer may send. What lies beyond ends the connection with a [`Violation`](crate::Violation).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a whole message, after inflating; 1 MiB for a server, 16 MiB for a client.
    ///
    /// Costs at most twice this per connection, and only while a message is incomplete: memory grows with the
    /// bytes received, never with a length announced alone. (A peer that has finished a large message gets room for
    /// another as soon as it begins one, up to 1 MiB.) A frame may be as long as a message.
    pub message: usize,
    /// Frames of one message, empty ones included; 1,024.
    ///
    /// Each costs its sender six bytes and us a turn through the decoder.
    pub fragments: u32,
    /// Pings of one read that are each answered; 100.
    ///
    /// Beyond it only the newest of a read is (RFC 6455 §5.5.3 allows that), so that a flood of pings does not
    /// come back as a flood of pongs.
    pub pings_per_read: u32,
    /// How long a peer may take over [`message_pace`](Self::message_pace) bytes of a message that it has begun; 60
    /// seconds. [`Duration::MAX`] sets no limit.
    ///
    /// A peer that falls behind is sent a close frame with code 1008 ([`Timeout::Message`](crate::Timeout::Message)).
    /// In the middle of a frame no pong can come (RFC 6455 §5.4), so the heartbeat takes every byte for life, and
    /// without this a message of one byte a second would be held for ever.
    pub message_timeout: Duration,
    /// Bytes of an unfinished message that have to come within each [`message_timeout`](Self::message_timeout); 16 KiB,
    /// which is 273 bytes a second. As many that came beyond them count for the next. A message that goes on like this
    /// may take as long as it wants, of whatever length.
    pub message_pace: usize,
}

impl Limits {
    /// A server's: messages of 1 MiB.
    pub const fn server() -> Self {
        Self {
            message: 1 << 20,
            fragments: 1024,
            pings_per_read: 100,
            message_timeout: Duration::from_secs(60),
            message_pace: 16 << 10,
        }
    }

    /// A client's: messages of 16 MiB, since it chose whom to talk to.
    pub const fn client() -> Self {
        Self { message: 16 << 20, ..Self::server() }
    }
}
