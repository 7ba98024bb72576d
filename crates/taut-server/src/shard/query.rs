//! What a shard answers when it is asked.

use std::sync::Arc;

use serde::Deserialize;
use taut_proto::Prepared;
use taut_shard::{ConnectionId, Connections};

use super::{Client, PusherHandler, subscriber};
use crate::presence::Roster;
use crate::pusher::channel::Channel;
use crate::query::{CachedEvent, ChannelState, ConnectionState, Occupancy, Query, Statistics, Traffic};

impl PusherHandler {
    pub(super) fn answer(&mut self, connections: &mut Connections<Client>, question: Query) {
        // Whoever has asked may have gone away: then nobody gets the answer.
        match question {
            Query::Channels { app, prefix, answer } => drop(answer.send(self.channels(app, &prefix))),
            Query::Channel { app, channel, answer } => {
                drop(answer.send(self.channel(connections, app, &channel)));
            }
            Query::Users { app, channel, answer } => {
                let roster = self.local_app(app).owner.roster(&channel);
                drop(answer.send(roster.map_or_else(Vec::new, |roster| roster.users().cloned().collect())));
            }
            Query::Statistics { answer } => drop(answer.send(self.statistics(connections))),
            Query::Connections { app, most, answer } => {
                drop(answer.send(self.connections(connections, app, most)));
            }
        }
    }

    fn channels(&mut self, app: usize, prefix: &str) -> Vec<(Arc<str>, Occupancy)> {
        let local_app = self.local_app(app);
        let wanted = local_app
            .members
            .channels()
            .filter(|(name, _)| name.starts_with(prefix) && Channel::user_of(name).is_none());
        let occupancy = |name: &Arc<str>, subscriptions| {
            let users = local_app.owner.roster(name).map(Roster::len);
            (Arc::clone(name), Occupancy { subscriptions, users })
        };
        // The owner of a presence channel knows its users, whether it has members of its own or not.
        let hosted = local_app.owner.rosters().filter(|(name, _)| name.starts_with(prefix));
        wanted
            .map(|(name, count)| occupancy(name, count))
            .chain(
                hosted.filter(|(name, _)| local_app.members.name(name).is_none()).map(|(name, _)| occupancy(name, 0)),
            )
            .collect()
    }

    fn channel(&mut self, connections: &Connections<Client>, app: usize, channel: &str) -> ChannelState {
        let local_app = self.local_app(app);
        let cached = local_app.owner.kept(channel, connections.now());
        ChannelState {
            occupancy: Occupancy {
                subscriptions: local_app.members.members(channel).len(),
                users: local_app.owner.roster(channel).map(Roster::len),
            },
            cached: cached.map(|(message, ttl)| CachedEvent { data: data_of(message), ttl }),
        }
    }

    fn statistics(&self, connections: &Connections<Client>) -> Statistics {
        let traffic = |local_app: &super::LocalApp| Traffic {
            subscriptions: local_app.members.channels().map(|(_, count)| count as u64).sum(),
            channels: local_app.owner.channels() as u64,
            ..local_app.traffic.get()
        };
        Statistics {
            stats: connections.stats(),
            apps: self.local_apps.iter().map(traffic).collect(),
            latency: self.latency.get(),
        }
    }

    fn connections(&mut self, connections: &mut Connections<Client>, app: usize, most: usize) -> Vec<ConnectionState> {
        let ids: Vec<ConnectionId> = connections.ids().collect();
        let mut found = Vec::new();
        for id in ids {
            let Some(subscriber) = subscriber(connections, id).filter(|subscriber| subscriber.admission.index() == app)
            else {
                continue;
            };
            if found.len() >= most {
                break;
            }
            found.push(ConnectionState {
                socket_id: subscriber.socket_id,
                user_id: subscriber.user().map(|user| Arc::clone(&user.id)),
                channels: self.local_apps[app].members.channels_of(id).take(MOST_CHANNELS).cloned().collect(),
            });
        }
        found
    }
}

/// The data of an event that was published, from the message in which it goes out.
fn data_of(message: &Prepared) -> Arc<str> {
    #[derive(Deserialize)]
    struct Published {
        data: String,
    }
    serde_json::from_slice::<Published>(message.payload()).map_or_else(|_| "".into(), |published| published.data.into())
}

/// Channels that are listed of one connection.
const MOST_CHANNELS: usize = 100;
