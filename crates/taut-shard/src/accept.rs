//! How sockets come in: from the listener, and from other threads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::handler::Handler;
use crate::shard::Shard;
use crate::socket::Kernel;
use crate::wire::{Opening, Phase, Wire};

impl<H: Handler, K: Kernel> Shard<H, K> {
    pub(crate) fn has_room(&self) -> bool {
        self.handshakes < self.settings.pending_handshakes && self.wires.len() < self.settings.connections
    }

    /// Whether others wait for the place of a handshake, as far as is known.
    pub(crate) fn is_crowded(&self) -> bool {
        self.starved || !self.has_room() && (self.accepting || !self.intake.is_empty())
    }

    /// Takes sockets from the listener's queue.
    pub(crate) fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            if !self.accepting || !self.has_room() {
                return;
            }
            match self.kernel.accept() {
                Ok((socket, peer)) => {
                    self.starved = false;
                    self.take(socket, peer, Origin::Listener);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.accepting = false;
                        self.starved = false;
                    }
                    // That socket is gone; the next may be well.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset => {}
                    // Out of descriptors or memory: those that wait are served when some are free again.
                    _ => {
                        self.accepting = false;
                        self.starved = true;
                        self.deadlines.set(self.connections.now + ACCEPT_PAUSE, ACCEPT);
                    }
                },
            }
        }
    }

    /// Takes the sockets that other threads have handed in.
    pub(crate) fn adopt(&mut self) {
        self.intake.rearm();
        for _ in 0..ACCEPTS {
            if self.intake.is_empty() || !self.has_room() {
                return;
            }
            let Some((stream, peer)) = self.intake.pop() else { return };
            // What cannot be taken over is closed, which its peer sees.
            if let Ok(socket) = self.kernel.adopt(stream) {
                self.take(socket, peer, Origin::Intake);
            }
        }
    }

    fn take(&mut self, mut socket: K::Socket, peer: SocketAddr, origin: Origin) {
        let tls = match &self.settings.tls {
            Some(config) if origin == Origin::Listener => match rustls::ServerConnection::new(Arc::clone(config)) {
                Ok(tls) => Some(Box::new(tls)),
                Err(_) => return,
            },
            _ => None,
        };
        let entry = self.wires.vacant_entry();
        let token = entry.key();
        if self.kernel.watch(&mut socket, token).is_err() {
            return;
        }
        let deadline = self.connections.now + self.settings.handshake_timeout;
        let is_announced = origin == Origin::Listener && self.settings.proxy_protocol.is_expected_from(peer);
        let opening = Opening::new(deadline, is_announced);
        entry.insert(Wire {
            socket,
            tls,
            phase: Phase::Handshake(Box::new(opening)),
            peer,
            due: 0,
            readable: false,
            ended: false,
            queued: false,
        });
        self.handshakes += 1;
        self.set_deadline(token, deadline.min(self.connections.now + self.settings.handshake_grace));
    }
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

/// The deadline that stands for the listener.
pub(crate) const ACCEPT: usize = usize::MAX;
