//! What a shard answers when it is asked.

use std::sync::Arc;
use std::time::Duration;

use taut_shard::{ConnectionId, Connections};

use super::{Client, LocalApp, PusherHandler, Routed, Subscriber, seconds, subscriber};
use crate::close::Reason;
use crate::hub::presence::Roster;
use crate::place::AppIndex;
use crate::pusher::channel::Channel;
use crate::pusher::socket_id::SocketId;
use crate::query::{CachedEvent, ChannelState, ConnectionState, Occupancy, Query, Statistics, Traffic};

impl PusherHandler {
    pub(super) fn answer(&mut self, connections: &mut Connections<Client>, query: Query) {
        // Whoever has asked may have gone away: then nobody gets the answer.
        match query {
            Query::Channels { app, prefix, answer } => drop(answer.send(self.channels(app, &prefix))),
            Query::Channel { app, channel, answer } => {
                drop(answer.send(self.channel(connections, app, &channel)));
            }
            Query::Users { app, channel, answer } => {
                let roster = self.local_app(app).and_then(|local_app| local_app.hub.owner().roster(&channel));
                drop(answer.send(roster.map_or_else(Vec::new, |roster| roster.users().cloned().collect())));
            }
            Query::Members { app, channel, most, answer } => {
                let roster = self.local_app(app).and_then(|local_app| local_app.hub.owner().roster(&channel));
                drop(answer.send(roster.map_or_else(Vec::new, |roster| roster.first(most))));
            }
            Query::Statistics { answer } => drop(answer.send(self.statistics(connections))),
            Query::Connections { app, filter, most, answer } => {
                drop(answer.send(self.connections(connections, app, &filter, most)));
            }
            Query::Disconnect { app, socket_id, answer } => {
                let _ = answer.send(self.disconnect(connections, app, socket_id));
            }
        }
    }

    fn channels(&self, app: AppIndex, prefix: &str) -> Vec<(Arc<str>, Occupancy)> {
        let Some(LocalApp { hub, .. }) = self.local_app(app) else { return Vec::new() };
        let (subscribed, owner) = (hub.members.subscribed(), hub.owner());
        let wanted = subscribed.channels().filter(|(name, _)| name.starts_with(prefix) && !Channel::is_hidden(name));
        let occupancy = |name: &Arc<str>, subscriptions| {
            (Arc::clone(name), Occupancy { subscriptions, users: owner.roster(name).map(Roster::len) })
        };
        // The owner of a presence channel knows its users, whether it has subscribers of its own or not.
        let at_home = owner.rosters().map(|(name, _)| name).filter(|name| name.starts_with(prefix));
        wanted
            .map(|(name, count)| occupancy(name, count))
            .chain(at_home.filter(|name| subscribed.name(name).is_none()).map(|name| occupancy(name, 0)))
            .collect()
    }

    fn channel(&self, connections: &Connections<Client>, app: AppIndex, channel: &str) -> ChannelState {
        let Some(LocalApp { hub, .. }) = self.local_app(app) else { return ChannelState::default() };
        let last_event = hub.owner().last_event(channel, connections.now());
        ChannelState {
            occupancy: Occupancy {
                subscriptions: hub.members.subscribed().members(channel).len(),
                users: hub.owner().roster(channel).map(Roster::len),
            },
            cached: last_event.map(|(publication, ttl)| CachedEvent { data: publication.data().into(), ttl }),
        }
    }

    fn statistics(&self, connections: &Connections<Client>) -> Statistics {
        let traffic = |local_app: &Option<Box<LocalApp>>| {
            let Some(LocalApp { hub, traffic, .. }) = local_app.as_deref() else { return Traffic::default() };
            Traffic {
                subscriptions: hub.members.subscribed().total() as u64,
                channels: hub.owner().occupied() as u64,
                published: hub.owner().published(),
                ..traffic.get()
            }
        };
        Statistics {
            event_loops: connections.stats().into(),
            apps: self.local_apps.iter().map(traffic).collect(),
            latency: self.latency.get(),
        }
    }

    fn connections(
        &mut self,
        connections: &mut Connections<Client>,
        app: AppIndex,
        filter: &str,
        most: usize,
    ) -> Vec<ConnectionState> {
        let Some(members) = self.members(app) else { return Vec::new() };
        let (interest, now) = (members.subscribed(), seconds(connections.now()));
        let ids: Vec<ConnectionId> = connections.ids().collect();
        let mut found = Vec::new();
        for id in ids {
            if found.len() >= most {
                break;
            }
            let carrier = connections.carrier(id);
            let (Some(subscriber), Some(carrier)) = (subscriber(connections, id), carrier) else { continue };
            let is_found = || {
                filter.is_empty()
                    || is_told_by(subscriber, filter)
                    || interest.channels_of(id).any(|name| name.contains(filter))
            };
            if subscriber.admission.index() != app || !is_found() {
                continue;
            }
            found.push(ConnectionState {
                socket_id: subscriber.socket_id,
                user_id: subscriber.user().map(|user| Arc::clone(&user.id)),
                address: subscriber.client.address(),
                sdk: subscriber.client.sdk().cloned(),
                carrier,
                is_stream: subscriber.routed().is_some_and(Routed::is_stream),
                age: Duration::from_secs(now.saturating_sub(subscriber.opened).into()),
                subscriptions: interest.channels_of(id).len(),
                channels: interest.channels_of(id).take(MOST_CHANNELS).cloned().collect(),
            });
        }
        found
    }

    /// Closes a connection for the operator, if it is here.
    fn disconnect(&mut self, connections: &mut Connections<Client>, app: AppIndex, socket_id: SocketId) -> bool {
        let ids: Vec<ConnectionId> = connections.ids().collect();
        let is_meant = |id: &ConnectionId| {
            subscriber(connections, *id)
                .is_some_and(|subscriber| subscriber.socket_id == socket_id && subscriber.admission.index() == app)
        };
        let Some(id) = ids.into_iter().find(is_meant) else { return false };
        self.dismiss_with_error(connections, id, Reason::UNAUTHORIZED.because("the operator closed the connection"));
        true
    }
}

/// Whether a part of what is known of a connection is this text.
fn is_told_by(subscriber: &Subscriber, filter: &str) -> bool {
    let client = &subscriber.client;
    subscriber.user().is_some_and(|user| user.id.contains(filter))
        || client.sdk().is_some_and(|sdk| sdk.name.contains(filter) || sdk.version.contains(filter))
        // These are put into words first, which only those can match that have the letters of numbers.
        || (filter.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':'))
            && (subscriber.socket_id.to_string().contains(filter)
                || client.address().to_string().contains(filter)))
}

/// Channels that are listed of one connection.
const MOST_CHANNELS: usize = 100;
