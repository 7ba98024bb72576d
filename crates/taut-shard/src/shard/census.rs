//! What a shard holds, counted for tests.

use super::Shard;
use crate::conn::{Conn, Stage};
use crate::handler::Handler;
use crate::socket::Kernel;

/// What a shard holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Sockets.
    pub sockets: usize,
    /// Of these, handshakes in progress.
    pub handshakes: usize,
    /// Sockets that were answered a request and wait for the next.
    pub kept: usize,
    /// Of these, open connections.
    pub open: usize,
    /// Connections that have ended and wait for the peer's end.
    pub lingering: usize,
    /// Outboxes that belong to an open connection.
    pub outboxes: usize,
    /// Bytes that wait in them.
    pub waiting: usize,
    /// Bytes that unfinished messages hold beyond the first 16 KiB of each.
    pub unfinished: usize,
    /// Bytes of an open connection itself, in the tables that hold it; without TLS.
    pub connection_size: usize,
}

impl<H: Handler, K: Kernel> Shard<H, K> {
    pub(crate) fn census(&self) -> Census {
        let (outboxes, waiting) = self.connections.outboxes();
        let kept = self.connections.http_conns().filter(|(_, http)| http.is_kept).count();
        assert_eq!(self.connections.kept, kept, "those that are kept are counted");
        let lingering = self.connections.conns().filter(|(_, conn)| matches!(conn.stage, Stage::Lingering(_))).count();
        Census {
            sockets: self.connections.sockets(),
            handshakes: self.connections.handshakes,
            kept,
            open: self.connections.len(),
            lingering,
            outboxes,
            waiting,
            unfinished: self.connections.unfinished(),
            connection_size: size_of::<Conn<H::User>>(),
        }
    }
}
