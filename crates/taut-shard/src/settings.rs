//! How a shard behaves.

use std::sync::Arc;
use std::time::Duration;

use taut_proto::deflate;
use taut_proto::handshake::HeadLimits;

use crate::proxy::ProxyProtocol;

/// A shard's settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What the protocol's own part is bound by: message limits, heartbeat, close timeout.
    pub protocol: taut_proto::Settings,
    /// permessage-deflate, if it is to be agreed on; off by default. Without context takeover it costs two
    /// compressors for the whole shard.
    pub deflate: Option<deflate::Config>,
    /// How large a request's head may be; 16 KiB and 100 headers.
    pub head: HeadLimits,
    /// From the accepted socket to the end of the handshake, TLS included; 10 seconds.
    pub handshake_timeout: Duration,
    /// How long a client that was answered an HTTP request may be silent before its next one; 75 seconds, longer than the idle
    /// timeouts of common load balancers: whoever sends requests should be the one who closes.
    pub keep_alive: Duration,
    /// HTTP connections that are kept between requests; 10,000. When there are more, those that have been silent for longest
    /// are closed; so are they where a new socket finds no place or no descriptor. Each costs some 500 bytes, and its TLS session.
    pub kept_connections: usize,
    /// How long a handshake may take while others wait for its place; 1 second. What takes longer then is refused with
    /// 503, so that those who say nothing, or say it slowly, keep out nobody for longer than that. Costs nothing.
    pub handshake_grace: Duration,
    /// Handshakes in progress; 4,096. Beyond it the shard leaves new sockets in the kernel's queue. Each costs some 500
    /// bytes, and up to the head's limit as its head comes: 64 MiB at the worst; and the content that the handler wants
    /// to wait for.
    pub pending_handshakes: usize,
    /// Sockets at a time, handshakes included; 1,000,000. Beyond it new ones wait in the kernel's queue.
    pub connections: usize,
    /// Bytes that may wait for a peer to read before it counts as slow; 1 MiB.
    pub outgoing: usize,
    /// Bytes that messages which are not whole yet may hold on all connections together, beyond the first 16 KiB of each;
    /// 64 MiB. When they are used up, whoever sends more of such a message is closed with code 1013 and counted
    /// ([`Stats::overloaded`](crate::Stats::overloaded)). Only what has come counts, never what was announced.
    pub unfinished: usize,
    /// What becomes of a slow reader; it is closed.
    pub slow_reader: SlowReader,
    /// Whose sockets begin with a PROXY header, before TLS; nobody's. A header may be as large as a head.
    pub proxy_protocol: ProxyProtocol,
    /// TLS, if the shard is to speak it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Bytes of the one buffer that all connections of the shard are read into; 128 KiB.
    pub read_buffer: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protocol: taut_proto::Settings::server(),
            deflate: None,
            head: HeadLimits::default(),
            handshake_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            kept_connections: 10_000,
            handshake_grace: Duration::from_secs(1),
            pending_handshakes: 4096,
            connections: 1_000_000,
            outgoing: 1 << 20,
            unfinished: 64 << 20,
            slow_reader: SlowReader::Close,
            proxy_protocol: ProxyProtocol::Off,
            tls: None,
            read_buffer: 128 << 10,
        }
    }
}

/// How much may wait for the peer of one connection, and what becomes of it beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Bytes that may wait for it to read before it counts as slow; 4 GiB at the most.
    pub bytes: usize,
    /// What becomes of it when it is slow.
    pub slow_reader: SlowReader,
}

/// What becomes of a message to a peer that reads too slowly. Either is counted in [`Stats`](crate::Stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReader {
    /// The connection is dropped; a client that comes back begins anew. The safe choice: it misses nothing
    /// without knowing.
    Close,
    /// The message is dropped and the connection stays: for streams whose next value replaces the last.
    Drop,
}
