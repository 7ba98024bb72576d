//! The owner of channels and users: it orders, remembers and decides.

use std::sync::Arc;
use std::time::Duration;

use taut_proto::Time;

use super::channels::Channels;
use super::command::{
    Command, Delivery, Event as Published, Publication, Push, Rejected, Reply, Subscribe, Subscribed,
};
use super::effects::{Effect, Effects};
use super::presence::Roster;
use super::users::Users;
use crate::apps::App;
use crate::events::Event;
use crate::place::ShardIndex;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;

/// The channels of one app that a shard owns; also the app's users, if the shard owns them.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    channels: Channels,
    users: Users,
    /// Events that were published to a channel, the server's own included.
    published: u64,
}

impl Owner {
    /// Does what a shard asks for.
    pub(super) fn handle<C>(
        &mut self,
        app: &App,
        from: ShardIndex,
        command: Command<C>,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        match command {
            Command::Publish(publication) => self.publish(app, &publication, now, effects),
            Command::Subscribe { channel, request, subscribe } => {
                let reply = match self.subscribe(app, &channel, from, &subscribe, now, effects) {
                    Ok(subscribed) => {
                        let user_id = match subscribe {
                            Subscribe::Presence { member, .. } => Some(member.user_id),
                            _ => None,
                        };
                        Reply::Subscribed { channel, request, user_id, subscribed }
                    }
                    Err(why) => Reply::Rejected { channel, request, why },
                };
                effects.push(Effect::Reply(from, reply));
            }
            Command::Unsubscribe { channel, user_id, is_last } => {
                self.unsubscribe(app, &channel, from, user_id, is_last, now, effects);
            }
            Command::Count { channel, subscribers } => self.count(app, &channel, from, subscribers, now, effects),
            Command::SignIn { user_id } => self.set_online(&user_id, true, effects),
            Command::SignOut { user_id } => self.set_online(&user_id, false, effects),
            Command::Watch { user_ids, connection } => {
                let (online, offline) = self.users.watch(&user_ids, from);
                effects.push(Effect::Reply(from, Reply::Watched { connection, online, offline }));
            }
            Command::Unwatch { user_id } => self.users.unwatch(&user_id, from),
        }
    }

    fn publish<C>(&mut self, app: &App, publication: &Publication, now: Time, effects: &mut Effects<C>) {
        self.published += 1;
        // Only what backends publish is kept.
        if matches!(publication.event, Published::Published { .. }) && Kind::of(&publication.channel).is_cache() {
            self.channels.keep(publication, &app.snapshot().limits, now);
        }
        let shards = self.channels.shards(&publication.channel);
        if shards.len() == 0 {
            return;
        }
        let message = effects.encode(|text| publication.write(text));
        let &Publication { ref channel, excluded, at, .. } = publication;
        let delivery = Delivery { channel: Arc::clone(channel), message, excluded, at: Some(at) };
        deliver(&delivery, shards, effects);
    }

    /// Sends an event of the server's own.
    fn announce<C>(&mut self, channel: &Arc<str>, event: &ServerEvent<'_>, effects: &mut Effects<C>) {
        self.published += 1;
        let shards = self.channels.shards(channel);
        if shards.len() == 0 {
            return;
        }
        let message = effects.encode(|text| event.write(text));
        let delivery = Delivery { channel: Arc::clone(channel), message, excluded: None, at: None };
        deliver(&delivery, shards, effects);
    }

    /// Those who are there already hear of it before the new subscriber does.
    fn subscribe<C>(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        shard: ShardIndex,
        subscribe: &Subscribe,
        now: Time,
        effects: &mut Effects<C>,
    ) -> Result<Subscribed, Rejected> {
        let limits = app.snapshot().limits;
        let is_counted = is_counted(channel) && !self.channels.is_occupied(channel);
        if is_counted && !app.open_channel(limits.channels) {
            return Err(Rejected::TooManyChannels { most: limits.channels });
        }
        let entered = self.channels.enter(channel, shard, subscribe, &limits, now);
        if is_counted && !self.channels.is_occupied(channel) {
            app.close_channel();
        }
        let (subscribed, entered) = entered?;
        if entered.occupied {
            happened(channel, |channel| Event::ChannelOccupied { channel }, effects);
        }
        if let (true, Subscribe::Presence { member, .. }) = (entered.added, subscribe) {
            let (user_id, user_info) = (&member.user_id, member.user_info.as_deref());
            self.announce(channel, &ServerEvent::MemberAdded { channel, user_id, user_info }, effects);
            let user_id = Arc::clone(user_id);
            happened(channel, |channel| Event::MemberAdded { channel, user_id }, effects);
        }
        if entered.missed {
            happened(channel, |channel| Event::CacheMiss { channel }, effects);
        }
        Ok(subscribed)
    }

    #[expect(clippy::too_many_arguments, reason = "each is another thing of one command")]
    fn unsubscribe<C>(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        shard: ShardIndex,
        user_id: Option<Arc<str>>,
        is_last: bool,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        let gone = self.channels.leave(channel, shard, user_id.as_ref(), is_last);
        if let (true, Some(user_id)) = (gone.removed, user_id) {
            self.announce(channel, &ServerEvent::MemberRemoved { channel, user_id: &user_id }, effects);
            happened(channel, |channel| Event::MemberRemoved { channel, user_id }, effects);
        }
        if gone.vacated {
            if is_counted(channel) {
                app.close_channel();
            }
            happened(channel, |channel| Event::ChannelVacated { channel }, effects);
        } else if gone.shard_left {
            self.count(app, channel, shard, 0, now, effects);
        }
    }

    /// `shard` has so many subscribers now.
    fn count<C>(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        shard: ShardIndex,
        subscribers: usize,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        if !app.snapshot().config.features.subscription_count || !Kind::of(channel).is_counted() {
            return;
        }
        if let Some(count) = self.channels.count(channel, shard, subscribers, now) {
            self.announce_count(channel, count, effects);
        }
    }

    fn announce_count<C>(&mut self, channel: &Arc<str>, count: usize, effects: &mut Effects<C>) {
        self.announce(channel, &ServerEvent::SubscriptionCount { channel, count }, effects);
        happened(channel, |channel| Event::SubscriptionCount { channel, count }, effects);
    }

    /// Those who watch a user hear of its first connection and of its last.
    fn set_online<C>(&mut self, user_id: &Arc<str>, is_online: bool, effects: &mut Effects<C>) {
        let is_change = if is_online { self.users.sign_in(user_id) } else { self.users.sign_out(user_id) };
        if !is_change {
            return;
        }
        for shard in self.users.watching(user_id) {
            effects.push(Effect::Push(shard, Push::Status { user_id: Arc::clone(user_id), is_online }));
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.channels.is_due()
    }

    /// Forgets what is too old, and announces counts that have been held back.
    pub(super) fn tick<C>(&mut self, now: Time, effects: &mut Effects<C>) {
        self.channels.sweep(now);
        for (channel, count) in self.channels.late_counts(now) {
            self.announce_count(&channel, count, effects);
        }
    }

    /// Who is in a presence channel.
    pub(crate) fn roster(&self, channel: &str) -> Option<&Roster> {
        self.channels.roster(channel)
    }

    /// All presence channels with somebody in them.
    pub(crate) fn rosters(&self) -> impl Iterator<Item = (&Arc<str>, &Roster)> {
        self.channels.rosters()
    }

    /// The last event of a cache channel, and for how long it is kept.
    pub(crate) fn last_event(&self, channel: &str, now: Time) -> Option<(&Publication, Duration)> {
        self.channels.kept(channel, now)
    }

    /// Events that were published to a channel since the start, the server's own included.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// How many channels are occupied.
    pub(crate) fn occupied(&self) -> usize {
        self.channels.channels()
    }

    /// The shards that are interested in a channel.
    #[cfg(test)]
    pub(crate) fn shards(&self, channel: &str) -> impl Iterator<Item = ShardIndex> {
        self.channels.shards(channel)
    }

    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.channels.is_vacant() && self.users.is_vacant()
    }
}

fn deliver<C>(delivery: &Delivery, shards: impl ExactSizeIterator<Item = ShardIndex>, effects: &mut Effects<C>) {
    for shard in shards {
        effects.push(Effect::Push(shard, Push::Deliver(delivery.clone())));
    }
}

/// Says what happened to a channel, except to those that only the server itself knows.
fn happened<C>(channel: &Arc<str>, event: impl FnOnce(Arc<str>) -> Event, effects: &mut Effects<C>) {
    if Channel::user_of(channel).is_none() {
        effects.push(Effect::Happened(event(Arc::clone(channel))));
    }
}

/// Whether the channel counts towards an app's limit. A user's own does not: there is at most one for each connection.
fn is_counted(channel: &str) -> bool {
    Channel::user_of(channel).is_none()
}
