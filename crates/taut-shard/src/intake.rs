//! How other threads hand a shard sockets that are connected already.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::handler::Handover;
use crate::mailbox::{Mailbox, Refused};
use crate::pipe::ShardPipe;

/// A handle for handing sockets to a shard; clones go to the same one. From [`Shard::intake`](crate::Shard::intake).
pub struct Intake<Stream = TcpStream> {
    pub(crate) arrivals: Mailbox<(Arrival<Stream>, SocketAddr)>,
    pub(crate) returns: Mailbox<Handover<Stream>>,
}

/// What is handed in.
pub(crate) enum Arrival<Stream> {
    Stream(Stream),
    Pipe(ShardPipe),
}

impl<Stream> Intake<Stream> {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let arrivals = Mailbox::new(WAITING * size_of::<(Arrival<Stream>, SocketAddr)>(), Arc::clone(&wake));
        Self { arrivals, returns: Mailbox::new(usize::MAX, wake) }
    }

    /// Gives a connected socket to the shard, with the address of whoever is at the other end: the handler is told it as
    /// the peer. Never waits.
    ///
    /// It is served as if the listener had accepted it: it counts among the handshakes in progress and among the
    /// connections, and has the same deadline. Only TLS is not spoken on it, and no PROXY header expected: it comes from
    /// this process, as one end of a private pair whose other end carries a client by another transport.
    ///
    /// # Errors
    /// The stream comes back while 1,024 sockets wait already, as they do when the shard has as many handshakes or
    /// connections as it may, and once the shard drains or has stopped.
    pub fn adopt(&self, stream: Stream, peer: SocketAddr) -> Result<(), Refused<Stream>> {
        match self.arrivals.push((Arrival::Stream(stream), peer), 0) {
            Err(Refused((Arrival::Stream(stream), _))) => Err(Refused(stream)),
            _ => Ok(()),
        }
    }

    /// Gives the shard its end of a [`pipe()`](crate::pipe()), otherwise as [`adopt`](Self::adopt). Never waits.
    ///
    /// A client that comes by a pipe is served as any other, except that its requests are not
    /// [handed over](crate::Verdict::HandOver): there is no socket to hand over, and the pipe ends.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub fn adopt_pipe(&self, pipe: ShardPipe, peer: SocketAddr) -> Result<(), Refused<ShardPipe>> {
        match self.arrivals.push((Arrival::Pipe(pipe), peer), 0) {
            Err(Refused((Arrival::Pipe(pipe), _))) => Err(Refused(pipe)),
            _ => Ok(()),
        }
    }

    /// Gives a connection back that was [handed over](crate::Handler::hand_over), once its request was answered and that
    /// answer written. The shard keeps it for the client's next request, of any kind, as it keeps those that it has
    /// answered itself: it is not a handshake in progress and need not wait for a place among them. Never waits; at most
    /// as many wait as have left a shard.
    ///
    /// # Errors
    /// The connection comes back once the shard drains or has stopped.
    pub fn give_back(&self, handover: Handover<Stream>) -> Result<(), Refused<Handover<Stream>>> {
        self.returns.push_always(handover)
    }

    /// For the shard: nothing more comes, and what waits is ended.
    pub(crate) fn close(&self) {
        self.arrivals.close();
        self.returns.close();
    }

    pub(crate) fn rearm(&self) {
        self.arrivals.rearm();
        self.returns.rearm();
    }
}

impl<Stream> Clone for Intake<Stream> {
    fn clone(&self) -> Self {
        Self { arrivals: self.arrivals.clone(), returns: self.returns.clone() }
    }
}

impl<Stream> fmt::Debug for Intake<Stream> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// Sockets that may wait to be adopted.
const WAITING: usize = 1024;
