//! What a shard does as the home of channels and of users.

use std::sync::Arc;

use taut_shard::{ConnectionId, Connections};

use super::{Client, Sessions};
use crate::app::WebhookEvent;
use crate::home::{Welcome, Wish};
use crate::journal::Event;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use crate::route::{Mail, Ticket, TurnedAway};

impl Sessions {
    /// A connection of `shard` comes into a channel whose home is here. Whoever is there already is told before the newcomer, who is not there yet.
    pub(super) fn host_enter(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        shard: usize,
        wish: &Wish,
    ) -> Result<Welcome, TurnedAway> {
        let rooms = self.rooms(tenant);
        let limits = rooms.tenant.terms().limits;
        let is_counted = is_counted(channel) && !rooms.home.is_occupied(channel);
        if is_counted && !rooms.tenant.open_channel(limits.channels) {
            return Err(TurnedAway::TooManyChannels { most: limits.channels });
        }
        let entered = rooms.home.enter(channel, shard, wish, &limits, connections.now());
        if is_counted && !rooms.home.is_occupied(channel) {
            rooms.tenant.close_channel();
        }
        let (welcome, entered) = entered.map_err(TurnedAway::Full)?;
        if entered.occupied {
            self.record(tenant, WebhookEvent::ChannelOccupied, channel, |channel| Event::ChannelOccupied { channel });
        }
        if let (true, Wish::Presence { visitor, .. }) = (entered.added, wish) {
            let user_info = visitor.user_info.as_deref();
            let event = ServerEvent::MemberAdded { channel, user_id: &visitor.user_id, user_info };
            self.announce(connections, tenant, channel, &event);
            let user_id = Arc::clone(&visitor.user_id);
            self.record(tenant, WebhookEvent::MemberAdded, channel, |channel| Event::MemberAdded { channel, user_id });
        }
        if entered.missed {
            self.record(tenant, WebhookEvent::CacheMiss, channel, |channel| Event::CacheMiss { channel });
        }
        Ok(welcome)
    }

    /// The same for another shard, which is waiting for the answer.
    pub(super) fn answer_entry(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        shard: usize,
        ticket: Ticket,
        wish: &Wish,
    ) {
        let turn_away = |why| Mail::TurnedAway { tenant, channel: Arc::clone(channel), ticket, why };
        let welcome = match self.host_enter(connections, tenant, channel, shard, wish) {
            Ok(welcome) => welcome,
            Err(why) => return self.routes.tell(shard, turn_away(why)),
        };
        let bytes = channel.len() + welcome.bytes();
        let mail = Mail::Entered { tenant, channel: Arc::clone(channel), ticket, welcome };
        if let Wish::Interest = wish {
            // It is a word, and there are no more of them than the other shard may ask for at a time.
            return self.routes.tell(shard, mail);
        }
        if self.routes.ask(shard, mail, bytes).is_err() {
            if let Wish::Presence { visitor, .. } = wish {
                self.host_leave(connections, tenant, channel, shard, Some(&visitor.user_id), false);
            }
            // When nobody is left there, that shard says so itself.
            self.routes.tell(shard, turn_away(TurnedAway::Busy));
        }
    }

    /// A connection of `shard` leaves a channel whose home is here, or the last of them does.
    pub(super) fn host_leave(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        shard: usize,
        user_id: Option<&Arc<str>>,
        is_last: bool,
    ) {
        let gone = self.rooms(tenant).home.leave(channel, shard, user_id, is_last);
        if let (true, Some(user_id)) = (gone.removed, user_id) {
            self.announce(connections, tenant, channel, &ServerEvent::MemberRemoved { channel, user_id });
            let user_id = Arc::clone(user_id);
            let event = |channel| Event::MemberRemoved { channel, user_id };
            self.record(tenant, WebhookEvent::MemberRemoved, channel, event);
        }
        if gone.vacated {
            if is_counted(channel) {
                self.rooms[tenant].tenant.close_channel();
            }
            self.record(tenant, WebhookEvent::ChannelVacated, channel, |channel| Event::ChannelVacated { channel });
        } else if gone.shard_left {
            self.host_count(connections, tenant, channel, shard, 0);
        }
    }

    /// So many connections of `shard` are in a channel whose home is here.
    pub(super) fn host_count(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        shard: usize,
        count: usize,
    ) {
        let rooms = self.rooms(tenant);
        if !rooms.tenant.terms().app.features.subscription_count || !Kind::of(channel).is_counted() {
            return;
        }
        if let Some(count) = rooms.home.count(channel, shard, count, connections.now()) {
            self.announce_count(connections, tenant, channel, count);
        }
    }

    pub(super) fn announce_count(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        count: usize,
    ) {
        self.announce(connections, tenant, channel, &ServerEvent::SubscriptionCount { channel, count });
        let event = |channel| Event::SubscriptionCount { channel, count };
        self.record(tenant, WebhookEvent::SubscriptionCount, channel, event);
    }

    /// A connection has signed in as this user, or one that had has ended: whoever watches is told of the first and of the last.
    pub(super) fn host_online(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        user_id: &Arc<str>,
        is_online: bool,
    ) {
        let users = &mut self.rooms(tenant).users;
        let changed = if is_online { users.sign_in(user_id) } else { users.sign_out(user_id) };
        if !changed {
            return;
        }
        let watching: Vec<usize> = users.watching(user_id).collect();
        for shard in watching {
            if shard == self.shard {
                self.status(connections, tenant, user_id, is_online);
            } else {
                self.routes.tell(shard, Mail::Status { tenant, user_id: Arc::clone(user_id), is_online });
            }
        }
    }

    /// A connection of `shard` watches these users, and is told how it stands with them.
    pub(super) fn host_watch(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        user_ids: &[Arc<str>],
        shard: usize,
        connection: ConnectionId,
    ) {
        let (online, offline) = self.rooms(tenant).users.watch(user_ids, shard);
        if shard == self.shard {
            let event = ServerEvent::WatchlistEvents { online: &online, offline: &offline };
            return self.say(connections, connection, &event);
        }
        self.routes.tell(shard, Mail::Watched { connection, online, offline });
    }

    /// Writes down what happened to a channel, except to those that only the server itself knows.
    fn record(&self, tenant: usize, kind: WebhookEvent, channel: &Arc<str>, event: impl FnOnce(Arc<str>) -> Event) {
        let tenant = &self.rooms[tenant].tenant;
        if Channel::user_of(channel).is_none() && self.journal.wants(&tenant.terms(), kind) {
            self.journal.record(tenant, event(Arc::clone(channel)));
        }
    }
}

/// Whether the channel is one of those that an app may have only so many of. A user's own is not: there is at most one for each connection.
fn is_counted(channel: &str) -> bool {
    Channel::user_of(channel).is_none()
}
