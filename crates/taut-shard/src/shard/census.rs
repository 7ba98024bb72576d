//! What a shard holds, counted for tests.

use super::Shard;
use crate::connections::Member;
use crate::handler::Handler;
use crate::socket::Kernel;
use crate::wire::{Phase, Wire};

/// What a shard holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Sockets.
    pub wires: usize,
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
        let count = |is: fn(&Phase) -> bool| self.wires.iter().filter(|(_, wire)| is(&wire.phase)).count();
        let (outboxes, waiting) = self.connections.outboxes();
        let kept = count(|phase| matches!(phase, Phase::Handshake(opening) if opening.is_kept));
        assert_eq!(self.kept, kept, "those that are kept are counted");
        Census {
            wires: self.wires.len(),
            handshakes: self.handshakes,
            kept,
            open: self.connections.len(),
            lingering: count(|phase| matches!(phase, Phase::Lingering { .. })),
            outboxes,
            waiting,
            unfinished: self.connections.unfinished(),
            connection_size: size_of::<Wire<K::Socket>>() + size_of::<Option<Member<H::User>>>(),
        }
    }
}
