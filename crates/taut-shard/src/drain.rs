//! Stopping a shard so that its clients know it, and do not all come back in one instant.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use taut_proto::handshake::Refusal;
use taut_proto::{Close, Time};

use crate::connections::ConnectionId;
use crate::handler::{Handler, Reason};
use crate::shard::Shard;
use crate::socket::Kernel;
use crate::wire::{Phase, Wire};

/// How a shard is to stop.
#[derive(Clone, Debug)]
pub struct Drain {
    /// What the clients are told.
    pub close: Close,
    /// Over how long the closes are spread, so that the clients do not all come back in one instant.
    pub over: Duration,
    /// When to stop at the latest, closes answered or not. Counted from the start, as `over` is.
    pub deadline: Duration,
}

/// Stops a shard, from any thread.
#[derive(Clone)]
pub struct Drainer {
    pub(crate) drain: Arc<OnceLock<Drain>>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl Drainer {
    /// Makes the shard stop accepting, close its connections and return from [`Shard::run`]. Only the first call
    /// counts.
    pub fn drain(&self, drain: Drain) {
        let _ = self.drain.set(drain);
        (self.wake)();
    }
}

/// A drain under way.
pub(crate) struct Draining {
    drain: Drain,
    since: Time,
    /// Connections that have not been told yet.
    waiting: Vec<ConnectionId>,
    total: usize,
}

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Takes the next step of a drain that was asked for.
    pub(crate) fn continue_draining(&mut self) {
        if self.draining.is_none() {
            let Some(drain) = self.drain.get() else { return };
            let drain = drain.clone();
            self.kernel.stop_listening();
            self.intake.close();
            self.accepting = false;
            self.end_handshakes();
            let waiting: Vec<ConnectionId> = self.connections.ids().collect();
            let total = waiting.len();
            self.draining = Some(Draining { drain, since: self.connections.now, waiting, total });
        }
        let Some(draining) = &mut self.draining else { return };
        let passed = self.connections.now - draining.since;
        let (over, total) = (draining.drain.over.as_micros(), draining.total as u128);
        let share = (total * passed.as_micros()).checked_div(over).map_or(total, |share| share.min(total));
        // At least one, so that the first are not kept waiting for a share that rounds to none.
        let due = (share as usize).max(1);
        while draining.total - draining.waiting.len() < due {
            let Some(id) = draining.waiting.pop() else { break };
            self.connections.close(id, draining.drain.close.clone());
        }
        if passed >= draining.drain.deadline {
            for id in self.connections.ids().collect::<Vec<_>>() {
                self.drop_connection(id.index as usize, Reason::Stopped);
            }
            self.wires.clear();
            self.handshakes = 0;
        }
    }

    /// A client that has begun to speak is told to come back; one that has not, as a browser's connection in reserve,
    /// has nothing to be told, and would be waited for until its deadline. One that has not read its last answer may.
    fn end_handshakes(&mut self) {
        let opening = |(token, wire): (usize, &Wire<K::Socket>)| match &wire.phase {
            Phase::Handshake(opening) => {
                Some((token, opening.unsent.is_some(), opening.is_silent() || opening.is_announced))
            }
            _ => None,
        };
        for (token, is_unsent, is_silent) in self.wires.iter().filter_map(opening).collect::<Vec<_>>() {
            if is_unsent {
                self.end_kept(token);
            } else if is_silent {
                self.end_handshake(token);
                self.wires.remove(token);
            } else {
                self.refuse(token, &Refusal::busy(DRAINING_RETRY));
            }
        }
    }

    /// Whether the drain is complete.
    pub(crate) fn is_drained(&self) -> bool {
        let drained = self.draining.is_some() && self.wires.is_empty();
        if drained {
            self.mailbox.close();
        }
        drained
    }
}

/// How finely the closes are spread.
pub(crate) const DRAIN_STEP: Duration = Duration::from_millis(10);

/// What a client that comes while we go is told.
pub(crate) const DRAINING_RETRY: Duration = Duration::from_secs(1);
