//! What connections and handshakes are called.

/// Names a connection of one shard, for as long as it lives and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// Where its socket is.
    pub(crate) fn token(self) -> usize {
        self.index as usize
    }
}

/// Names a handshake of one shard that waits for its answer, until it has it or has ended, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandshakeId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}
