//! Events on their way to a channel's members.

use std::sync::Arc;
use std::time::Instant;

use taut_proto::{Close, Prepared};
use taut_shard::{ConnectionId, Connections};

use super::{Client, OVER_CAPACITY, PusherHandler};
use crate::bus::Published;
use crate::events::Event;
use crate::pusher::event::ServerEvent;

impl PusherHandler {
    /// At a channel's owner: an event that somebody published.
    pub(super) fn publish(&mut self, connections: &mut Connections<Client>, published: &Published) {
        let local_app = self.local_app(published.app);
        if published.keep {
            let limits = local_app.app.snapshot().limits;
            local_app.owner.keep(&published.channel, &published.message, &limits, connections.now());
        }
        self.distribute(connections, published);
    }

    /// At a channel's owner: an event of the server's own.
    pub(super) fn announce(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        event: &ServerEvent<'_>,
    ) {
        let mut text = String::new();
        event.write(&mut text);
        let message = Prepared::new(text.as_str());
        let channel = Arc::clone(channel);
        let published = Published { app, channel, message, excluded: None, keep: false, at: Instant::now() };
        self.distribute(connections, &published);
    }

    /// Sends an event to every shard with members.
    fn distribute(&self, connections: &mut Connections<Client>, published: &Published) {
        let local_app = &self.local_apps[published.app];
        local_app.count(|traffic| traffic.published += 1);
        if self.bus.shards() == 1 {
            // Nobody needs to look where else there are members.
            return self.deliver(connections, published);
        }
        for shard in local_app.owner.shards(&published.channel) {
            if shard == self.shard {
                self.deliver(connections, published);
            } else {
                self.bus.pass_on(shard, published);
            }
        }
    }

    /// Sends an event to the members here.
    pub(super) fn deliver(&self, connections: &mut Connections<Client>, published: &Published) {
        let Published { app, channel, message, excluded, at, .. } = published;
        let Some(local_app) = self.local_apps.get(*app) else { return };
        let members = local_app.members.members(channel);
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
        local_app.count(|traffic| {
            traffic.delivered += delivered;
            traffic.delivered_bytes += delivered * message.len() as u64;
        });
        let mut latency = self.latency.get();
        latency.record(at.elapsed());
        self.latency.set(latency);
    }

    /// Those who have missed something come back and begin anew: a gap that nobody sees would be worse.
    pub(super) fn missed(&mut self, connections: &mut Connections<Client>, app: usize, channel: &Arc<str>) {
        let Some(local_app) = self.local_apps.get(app) else { return };
        let members: Vec<ConnectionId> = local_app.members.members(channel).collect();
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
