//! Events on their way to a channel's members.

use std::sync::Arc;
use std::time::Instant;

use taut_proto::{Close, Prepared};
use taut_shard::{ConnectionId, Connections};

use super::{Client, OVER_CAPACITY, Sessions};
use crate::journal::Event;
use crate::pusher::event::ServerEvent;
use crate::route::Published;

impl Sessions {
    /// At a channel's home: an event that somebody published.
    pub(super) fn publish(&mut self, connections: &mut Connections<Client>, published: &Published) {
        let rooms = self.rooms(published.tenant);
        if published.keep {
            let limits = rooms.tenant.terms().limits;
            rooms.home.keep(&published.channel, &published.message, &limits, connections.now());
        }
        self.distribute(connections, published);
    }

    /// At a channel's home: an event of the server's own.
    pub(super) fn announce(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        event: &ServerEvent<'_>,
    ) {
        let mut text = String::new();
        event.write(&mut text);
        let message = Prepared::new(text.as_str());
        let channel = Arc::clone(channel);
        let published = Published { tenant, channel, message, excluded: None, keep: false, at: Instant::now() };
        self.distribute(connections, &published);
    }

    /// Sends an event to every shard with members.
    fn distribute(&self, connections: &mut Connections<Client>, published: &Published) {
        let rooms = &self.rooms[published.tenant];
        rooms.count(|traffic| traffic.published += 1);
        if self.routes.shards() == 1 {
            // Nobody needs to look where else there are members.
            return self.deliver(connections, published);
        }
        for shard in rooms.home.shards(&published.channel) {
            if shard == self.shard {
                self.deliver(connections, published);
            } else {
                self.routes.pass_on(shard, published);
            }
        }
    }

    /// Sends an event to the members here.
    pub(super) fn deliver(&self, connections: &mut Connections<Client>, published: &Published) {
        let Published { tenant, channel, message, excluded, at, .. } = published;
        let Some(rooms) = self.rooms.get(*tenant) else { return };
        let members = rooms.members.members(channel);
        if members.len() == 0 {
            return;
        }
        let mut delivered = 0;
        for id in members {
            if excluded.is_some() && connections.user(id).and_then(|client| client.socket_id()) == *excluded {
                continue;
            }
            // A reader that is too slow is closed by the shard, and counted there.
            let _ = connections.send_prepared(id, message);
            delivered += 1;
        }
        rooms.count(|traffic| {
            traffic.delivered += delivered;
            traffic.delivered_bytes += delivered * message.len() as u64;
        });
        let mut latency = self.latency.get();
        latency.record(at.elapsed());
        self.latency.set(latency);
    }

    /// Those who have missed something come back and begin anew: a gap that nobody sees would be worse.
    pub(super) fn missed(&mut self, connections: &mut Connections<Client>, tenant: usize, channel: &Arc<str>) {
        let Some(rooms) = self.rooms.get(tenant) else { return };
        let members: Vec<ConnectionId> = rooms.members.members(channel).collect();
        tracing::warn!(
            members = members.len(),
            "the mailbox was full: closing the members of a channel that missed an event"
        );
        for id in members {
            let reason = "Over capacity: an event was missed, please come back";
            self.dismiss(connections, id, Close::new(OVER_CAPACITY, reason));
        }
    }
}

impl Event {
    /// What somebody published, for the console.
    pub(crate) fn published(channel: &Arc<str>, event: &str, data: &str) -> Self {
        Self::Published { channel: Arc::clone(channel), event: event.into(), data: data.into() }
    }
}
