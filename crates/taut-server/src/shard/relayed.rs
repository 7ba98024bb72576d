//! Connections of routes whose backends have WebSockets: what a backend sends goes to its client, as fast as that reads.

use taut_shard::{ConnectionId, Connections};

use super::routed::routed;
use super::{Client, PusherHandler};
use crate::gateway::relay::Sent;

impl PusherHandler {
    /// A connection is here that its backend may have sent something already.
    pub(super) fn begin_to_pass_on(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        let Some((_, routed)) = routed(connections, id) else { return };
        if let Some(relay) = &routed.relay {
            relay.arrived(id);
            self.pass_on(connections, id);
        }
    }

    /// Sends a client what has come from its backend. What the client does not read waits there.
    pub(super) fn pass_on(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        let now = connections.now();
        let most = MOST_WAITING.min(self.outgoing);
        loop {
            if connections.waiting(id) > most {
                return connections.notify_written(id);
            }
            let Some((_, routed)) = routed(connections, id) else { return };
            let Some(sent) = routed.relay.as_ref().and_then(|relay| relay.take()) else { return };
            routed.heard = now;
            match sent {
                Sent::Message(message) => {
                    // A reader that is too slow is closed by the shard, and counted there.
                    let _ = connections.send(id, message);
                }
                Sent::Close(close) => return self.dismiss(connections, id, close),
            }
        }
    }
}

/// Bytes that wait for a client before its backend has to. The shard reads on from a client for which no more wait.
const MOST_WAITING: usize = 32 << 10;
