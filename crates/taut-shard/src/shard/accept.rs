//! How sockets come in: from the listener, and from other threads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::handshake::Refusal;

use super::Shard;
use crate::conn::{Conn, Http};
use crate::handler::Handler;
use crate::intake::Arrival;
use crate::pipe::ShardPipe;
use crate::socket::{AnySocket, Kernel};
use crate::transport::Transport;

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Whether there is a place for a new socket, or one can be made.
    pub(crate) fn has_room(&self) -> bool {
        let has_place = self.connections.sockets() < self.settings.connections || self.connections.kept > 0;
        self.connections.handshakes < self.settings.pending_handshakes && has_place
    }

    /// Whether others wait for the place of a handshake, as far as is known.
    pub(crate) fn is_crowded(&self) -> bool {
        self.accept_backoff.is_some() || !self.has_room() && (self.accepting || !self.intake.arrivals.is_empty())
    }

    /// Takes sockets from the listener's queue.
    pub(crate) fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            if !self.accepting || !self.has_room() {
                return;
            }
            match self.kernel.accept() {
                // It may have been the only free descriptor: those behind it have waited as long as before.
                Ok((socket, peer)) => self.take(Incoming::Socket(socket), peer, Origin::Listener),
                Err(error) => match error.kind() {
                    // Linux looks for a descriptor first: there is one, and nobody waits for it.
                    io::ErrorKind::WouldBlock => {
                        self.accepting = false;
                        self.accept_backoff = None;
                    }
                    // That socket is gone; the next may be well.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset => {}
                    // Out of descriptors or memory: those that wait are served when some are free again.
                    _ => self.starve(&error),
                },
            }
        }
    }

    /// There are no descriptors. Some may be free again in a moment; after that, an answer is better than to wait without end.
    fn starve(&mut self, error: &io::Error) {
        self.close_longest_idle(self.settings.handshake_grace);
        let now = self.connections.now;
        let since = *self.accept_backoff.get_or_insert(now);
        self.accepting = false;
        self.deadlines.set(now + ACCEPT_PAUSE, ACCEPT);
        let mut turned_away = 0;
        if now >= since + STARVATION {
            self.response.clear();
            // Before its handshake, a client by TLS understands nothing but the end.
            if self.settings.tls.is_none() {
                Refusal::busy(COME_BACK).write_response(&mut self.response);
            }
            while turned_away < ACCEPTS && self.kernel.turn_away(&self.response).is_ok() {
                turned_away += 1;
            }
            self.connections.stats.refused += turned_away as u64;
        }
        self.handler.out_of_descriptors(error, turned_away);
    }

    /// Takes the sockets that other threads have handed in.
    pub(crate) fn adopt(&mut self) {
        self.intake.rearm();
        for _ in 0..ACCEPTS {
            let Some(handover) = self.intake.returns.pop() else { break };
            self.take_back(handover);
        }
        for _ in 0..ACCEPTS {
            if self.intake.arrivals.is_empty() || !self.has_room() {
                return;
            }
            let Some((arrival, peer)) = self.intake.arrivals.pop() else { return };
            let incoming = match arrival {
                Arrival::Pipe(pipe) => Incoming::Pipe(pipe),
                Arrival::Stream(stream) => match self.kernel.adopt(stream) {
                    Ok(socket) => Incoming::Socket(socket),
                    // What cannot be taken over is closed, which its peer sees.
                    Err(_) => continue,
                },
            };
            self.take(incoming, peer, Origin::Intake);
        }
    }

    fn take(&mut self, incoming: Incoming<K::Socket>, peer: SocketAddr, origin: Origin) {
        let tls = match &self.settings.tls {
            Some(config) if origin == Origin::Listener => match rustls::ServerConnection::new(Arc::clone(config)) {
                Ok(tls) => Some(Box::new(tls)),
                Err(_) => return,
            },
            _ => None,
        };
        if self.connections.sockets() >= self.settings.connections {
            self.close_longest_idle(Duration::ZERO);
        }
        let token = self.connections.next_token();
        let Ok(socket) = self.watch(incoming, token) else { return };
        let deadline = self.connections.now + self.settings.handshake_timeout;
        let has_proxy_header = origin == Origin::Listener && self.settings.proxy_protocol.is_expected_from(peer);
        let http = Http::new(peer, deadline, has_proxy_header);
        self.connections.insert(Conn::new(Transport::new(socket, tls), http));
        self.set_deadline(token, deadline.min(self.connections.now + self.settings.handshake_grace));
    }

    fn watch(&mut self, incoming: Incoming<K::Socket>, token: usize) -> io::Result<AnySocket> {
        match incoming {
            Incoming::Socket(mut socket) => {
                self.kernel.watch(&mut socket, token)?;
                Ok(socket.into())
            }
            Incoming::Pipe(pipe) => {
                pipe.watch(token, &self.pipes);
                Ok(pipe.into())
            }
        }
    }
}

/// A socket that comes in.
enum Incoming<S> {
    Socket(S),
    Pipe(ShardPipe),
}

/// How a socket came to the shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Listener,
    /// It comes from this process: whoever handed it in has spoken TLS and knows the peer.
    Intake,
}

/// Sockets accepted in one tick, and as many adopted.
const ACCEPTS: usize = 256;

/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients are left to wait for a descriptor. It is longer than slow handshakes have while others wait for their places.
const STARVATION: Duration = Duration::from_secs(2);

/// When a client may come back for which there was no descriptor.
const COME_BACK: Duration = Duration::from_secs(5);

/// The deadline that stands for the listener.
pub(crate) const ACCEPT: usize = usize::MAX;
