//! How other threads hand a shard sockets that are connected already.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::mailbox::{Mailbox, Refused};

/// A handle for handing sockets to a shard; clones go to the same one. From [`Shard::intake`](crate::Shard::intake).
///
/// What is handed in is served as if the listener had accepted it: it counts among the handshakes in progress and among
/// the connections, and has the same deadline. Only TLS is not spoken on it, and no PROXY header expected: it comes from this
/// process, as one end of a private pair whose other end carries a client by another transport.
pub struct Intake<Stream = TcpStream>(Mailbox<(Stream, SocketAddr)>);

impl<Stream> Intake<Stream> {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self(Mailbox::new(WAITING * size_of::<(Stream, SocketAddr)>(), wake))
    }

    /// Gives a connected socket to the shard, with the address of whoever is at the other end: the handler is told it as
    /// the peer. Never waits.
    ///
    /// # Errors
    /// The stream comes back while 1,024 sockets wait already, as they do when the shard has as many handshakes or
    /// connections as it may, and once the shard drains or has stopped.
    pub fn adopt(&self, stream: Stream, peer: SocketAddr) -> Result<(), Refused<Stream>> {
        self.0.push((stream, peer), 0).map_err(|Refused((stream, _))| Refused(stream))
    }

    /// For the shard: nothing more comes, and what waits is ended.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    pub(crate) fn rearm(&self) {
        self.0.rearm();
    }

    pub(crate) fn pop(&self) -> Option<(Stream, SocketAddr)> {
        self.0.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<Stream> Clone for Intake<Stream> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Stream> fmt::Debug for Intake<Stream> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// Sockets that may wait to be adopted.
const WAITING: usize = 1024;
