//! What many connections have in common.

use std::time::Duration;

use crate::{CloseCode, Heartbeat, Limits};

/// How a connection behaves; shared by all connections of a driver.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What a peer may make us hold.
    pub limits: Limits,
    /// When to ping, when to give up.
    pub heartbeat: Heartbeat,
    /// The close code a peer that the heartbeat gave up is sent; 1011.
    pub heartbeat_code: CloseCode,
    /// How long to wait for the peer's close frame after ours; 5 seconds.
    pub close_timeout: Duration,
    /// Bytes of a frame above which an outgoing message is sent in fragments, so that control frames get
    /// between them; 64 KiB. Compressed messages are never split: Safari mishandles their fragments.
    pub fragment: usize,
    /// Bytes below which a message is not compressed; 64. Below it the compressor's own cost and the loss on
    /// random data outweigh what is saved.
    pub deflate_from: usize,
}

impl Settings {
    /// A server's settings.
    pub const fn server() -> Self {
        Self {
            limits: Limits::server(),
            heartbeat: Heartbeat::standard(),
            heartbeat_code: CloseCode::INTERNAL_ERROR,
            close_timeout: Duration::from_secs(5),
            fragment: 64 << 10,
            deflate_from: 64,
        }
    }

    /// A client's settings.
    pub const fn client() -> Self {
        Self { limits: Limits::client(), ..Self::server() }
    }
}
