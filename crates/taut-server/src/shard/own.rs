//! What a shard does as the owner of channels and of users.

use std::sync::Arc;

use taut_shard::{ConnectionId, Connections};

use super::{Client, PusherHandler};
use crate::app::WebhookEvent;
use crate::bus::{Mail, Rejected, RequestId};
use crate::events::Event;
use crate::owner::{Subscribe, Subscribed};
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;

impl PusherHandler {
    /// A connection of `shard` comes into a channel whose owner is here. Whoever is there already is told before the newcomer, who is not there yet.
    pub(super) fn own_subscribe(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        shard: usize,
        subscribe: &Subscribe,
    ) -> Result<Subscribed, Rejected> {
        let local_app = self.local_app(app);
        let limits = local_app.app.snapshot().limits;
        let is_counted = is_counted(channel) && !local_app.owner.is_occupied(channel);
        if is_counted && !local_app.app.open_channel(limits.channels) {
            return Err(Rejected::TooManyChannels { most: limits.channels });
        }
        let entered = local_app.owner.enter(channel, shard, subscribe, &limits, connections.now());
        if is_counted && !local_app.owner.is_occupied(channel) {
            local_app.app.close_channel();
        }
        let (subscribed, entered) = entered.map_err(Rejected::Full)?;
        if entered.occupied {
            self.record(app, WebhookEvent::ChannelOccupied, channel, |channel| Event::ChannelOccupied { channel });
        }
        if let (true, Subscribe::Presence { member, .. }) = (entered.added, subscribe) {
            let user_info = member.user_info.as_deref();
            let event = ServerEvent::MemberAdded { channel, user_id: &member.user_id, user_info };
            self.announce(connections, app, channel, &event);
            let user_id = Arc::clone(&member.user_id);
            self.record(app, WebhookEvent::MemberAdded, channel, |channel| Event::MemberAdded { channel, user_id });
        }
        if entered.missed {
            self.record(app, WebhookEvent::CacheMiss, channel, |channel| Event::CacheMiss { channel });
        }
        Ok(subscribed)
    }

    /// The same for another shard, which is waiting for the answer.
    pub(super) fn answer_subscribe(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        shard: usize,
        request_id: RequestId,
        subscribe: &Subscribe,
    ) {
        let turn_away = |why| Mail::Rejected { app, channel: Arc::clone(channel), request_id, why };
        let subscribed = match self.own_subscribe(connections, app, channel, shard, subscribe) {
            Ok(subscribed) => subscribed,
            Err(why) => return self.bus.tell(shard, turn_away(why)),
        };
        let bytes = channel.len() + subscribed.bytes();
        let mail = Mail::Entered { app, channel: Arc::clone(channel), request_id, subscribed };
        if let Subscribe::Subscriptions = subscribe {
            // It is a word, and there are no more of them than the other shard may ask for at a time.
            return self.bus.tell(shard, mail);
        }
        if self.bus.ask(shard, mail, bytes).is_err() {
            if let Subscribe::Presence { member, .. } = subscribe {
                self.own_leave(connections, app, channel, shard, Some(&member.user_id), false);
            }
            // When nobody is left there, that shard says so itself.
            self.bus.tell(shard, turn_away(Rejected::Busy));
        }
    }

    /// A connection of `shard` leaves a channel whose owner is here, or the last of them does.
    pub(super) fn own_leave(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        shard: usize,
        user_id: Option<&Arc<str>>,
        is_last: bool,
    ) {
        let gone = self.local_app(app).owner.leave(channel, shard, user_id, is_last);
        if let (true, Some(user_id)) = (gone.removed, user_id) {
            self.announce(connections, app, channel, &ServerEvent::MemberRemoved { channel, user_id });
            let user_id = Arc::clone(user_id);
            let event = |channel| Event::MemberRemoved { channel, user_id };
            self.record(app, WebhookEvent::MemberRemoved, channel, event);
        }
        if gone.vacated {
            if is_counted(channel) {
                self.local_apps[app].app.close_channel();
            }
            self.record(app, WebhookEvent::ChannelVacated, channel, |channel| Event::ChannelVacated { channel });
        } else if gone.shard_left {
            self.own_count(connections, app, channel, shard, 0);
        }
    }

    /// So many connections of `shard` are in a channel whose owner is here.
    pub(super) fn own_count(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        shard: usize,
        count: usize,
    ) {
        let local_app = self.local_app(app);
        if !local_app.app.snapshot().config.features.subscription_count || !Kind::of(channel).is_counted() {
            return;
        }
        if let Some(count) = local_app.owner.count(channel, shard, count, connections.now()) {
            self.announce_count(connections, app, channel, count);
        }
    }

    pub(super) fn announce_count(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        count: usize,
    ) {
        self.announce(connections, app, channel, &ServerEvent::SubscriptionCount { channel, count });
        let event = |channel| Event::SubscriptionCount { channel, count };
        self.record(app, WebhookEvent::SubscriptionCount, channel, event);
    }

    /// A connection has signed in as this user, or one that had has ended: whoever watches is told of the first and of the last.
    pub(super) fn own_online(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        user_id: &Arc<str>,
        is_online: bool,
    ) {
        let users = &mut self.local_app(app).users;
        let changed = if is_online { users.sign_in(user_id) } else { users.sign_out(user_id) };
        if !changed {
            return;
        }
        let watching: Vec<usize> = users.watching(user_id).collect();
        for shard in watching {
            if shard == self.shard {
                self.status(connections, app, user_id, is_online);
            } else {
                self.bus.tell(shard, Mail::Status { app, user_id: Arc::clone(user_id), is_online });
            }
        }
    }

    /// A connection of `shard` watches these users, and is told how it stands with them.
    pub(super) fn own_watch(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        user_ids: &[Arc<str>],
        shard: usize,
        connection: ConnectionId,
    ) {
        let (online, offline) = self.local_app(app).users.watch(user_ids, shard);
        if shard == self.shard {
            let event = ServerEvent::WatchlistEvents { online: &online, offline: &offline };
            return self.send_event(connections, connection, &event);
        }
        self.bus.tell(shard, Mail::Watched { connection, online, offline });
    }

    /// Writes down what happened to a channel, except to those that only the server itself knows.
    fn record(&self, app: usize, kind: WebhookEvent, channel: &Arc<str>, event: impl FnOnce(Arc<str>) -> Event) {
        let app = &self.local_apps[app].app;
        if Channel::user_of(channel).is_none() && self.events.wants(&app.snapshot(), kind) {
            self.events.record(app, event(Arc::clone(channel)));
        }
    }
}

/// Whether the channel is one of those that an app may have only so many of. A user's own is not: there is at most one for each connection.
fn is_counted(channel: &str) -> bool {
    Channel::user_of(channel).is_none()
}
