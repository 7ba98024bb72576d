//! How much a peer may make us hold.

/// Bounds on what a peer may send. What lies beyond ends the connection with a [`Violation`](crate::Violation).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a whole message, after inflating; 1 MiB for a server, 16 MiB for a client.
    ///
    /// Costs at most twice this per connection, and only while a message is incomplete: memory grows with the
    /// bytes received, never with a length announced. A frame may be as long as a message.
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
}

impl Limits {
    /// A server's: messages of 1 MiB.
    pub const fn server() -> Self {
        Self { message: 1 << 20, fragments: 1024, pings_per_read: 100 }
    }

    /// A client's: messages of 16 MiB, since it chose whom to talk to.
    pub const fn client() -> Self {
        Self { message: 16 << 20, ..Self::server() }
    }
}
