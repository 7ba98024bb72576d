//! What a shard answers when it is asked.

use std::sync::Arc;

use serde::Deserialize;
use taut_proto::Prepared;
use taut_shard::{ConnectionId, Connections};

use super::{Client, Sessions, member};
use crate::presence::Roster;
use crate::pusher::channel::Channel;
use crate::question::{CachedEvent, ChannelState, ConnectionState, Occupancy, Question, Statistics, Traffic};

impl Sessions {
    pub(super) fn answer(&mut self, connections: &mut Connections<Client>, question: Question) {
        // Whoever has asked may have gone away: then nobody gets the answer.
        match question {
            Question::Channels { tenant, prefix, answer } => drop(answer.send(self.channels(tenant, &prefix))),
            Question::Channel { tenant, channel, answer } => {
                drop(answer.send(self.channel(connections, tenant, &channel)));
            }
            Question::Users { tenant, channel, answer } => {
                let roster = self.rooms(tenant).home.roster(&channel);
                drop(answer.send(roster.map_or_else(Vec::new, |roster| roster.users().cloned().collect())));
            }
            Question::Statistics { answer } => drop(answer.send(self.statistics(connections))),
            Question::Connections { tenant, most, answer } => {
                drop(answer.send(self.connections(connections, tenant, most)));
            }
        }
    }

    fn channels(&mut self, tenant: usize, prefix: &str) -> Vec<(Arc<str>, Occupancy)> {
        let rooms = self.rooms(tenant);
        let wanted =
            rooms.members.channels().filter(|(name, _)| name.starts_with(prefix) && Channel::user_of(name).is_none());
        let occupancy = |name: &Arc<str>, subscriptions| {
            let users = rooms.home.roster(name).map(Roster::len);
            (Arc::clone(name), Occupancy { subscriptions, users })
        };
        // The home of a presence channel knows its users, whether it has members of its own or not.
        let hosted = rooms.home.rosters().filter(|(name, _)| name.starts_with(prefix));
        wanted
            .map(|(name, count)| occupancy(name, count))
            .chain(hosted.filter(|(name, _)| rooms.members.name(name).is_none()).map(|(name, _)| occupancy(name, 0)))
            .collect()
    }

    fn channel(&mut self, connections: &Connections<Client>, tenant: usize, channel: &str) -> ChannelState {
        let rooms = self.rooms(tenant);
        let cached = rooms.home.kept(channel, connections.now());
        ChannelState {
            occupancy: Occupancy {
                subscriptions: rooms.members.members(channel).len(),
                users: rooms.home.roster(channel).map(Roster::len),
            },
            cached: cached.map(|(message, ttl)| CachedEvent { data: data_of(message), ttl }),
        }
    }

    fn statistics(&self, connections: &Connections<Client>) -> Statistics {
        let traffic = |rooms: &super::Rooms| Traffic {
            subscriptions: rooms.members.channels().map(|(_, count)| count as u64).sum(),
            channels: rooms.home.channels() as u64,
            ..rooms.traffic.get()
        };
        Statistics {
            stats: connections.stats(),
            apps: self.rooms.iter().map(traffic).collect(),
            latency: self.latency.get(),
        }
    }

    fn connections(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        most: usize,
    ) -> Vec<ConnectionState> {
        let ids: Vec<ConnectionId> = connections.ids().collect();
        let mut found = Vec::new();
        for id in ids {
            let Some(member) = member(connections, id).filter(|member| member.admission.index() == tenant) else {
                continue;
            };
            if found.len() >= most {
                break;
            }
            found.push(ConnectionState {
                socket_id: member.socket_id,
                user_id: member.user().map(|user| Arc::clone(&user.id)),
                channels: self.rooms[tenant].members.channels_of(id).take(MOST_CHANNELS).cloned().collect(),
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
