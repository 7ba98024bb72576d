//! The owner of channels and users: it orders, remembers and decides. In a cluster the engine decides, and
//! [`clustered`] has the owner's part of that.

mod clustered;

use std::sync::Arc;
use std::time::Duration;

use taut_proto::Time;

use super::channels::{Channels, Gone};
use super::command::{Command, Delivery, PresenceMember, Publication, Push, Rejected, Reply, Subscribe, Subscribed};
use super::effects::{Effect, Effects};
use super::engine::{Request, Standing};
use super::grace::Hold;
use super::presence::Roster;
use super::users::Users;
use crate::apps::App;
use crate::events::Event;
use crate::place::ShardIndex;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use clustered::Cluster;

/// The channels of one app that a shard owns; also the app's users, if the shard owns them.
#[derive(Debug)]
pub(crate) struct Owner<C> {
    channels: Channels,
    users: Users,
    /// Events that were published to a channel, the server's own included.
    published: u64,
    /// `None` on a server that is alone.
    cluster: Option<Cluster<C>>,
}

impl<C: Copy> Owner<C> {
    /// Of a node of a cluster, if it has a `standing`.
    pub(super) fn new(standing: Option<Standing>) -> Self {
        let cluster = standing.map(Cluster::new);
        Self { channels: Channels::default(), users: Users::default(), published: 0, cluster }
    }

    /// Does what a shard asks for.
    pub(super) fn handle(
        &mut self,
        app: &App,
        from: ShardIndex,
        command: Command<C>,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        match command {
            Command::Publish(publication) => self.publish(app, publication, now, effects),
            Command::Subscribe { channel, request, subscribe } if self.cluster.is_some() => {
                self.subscribe_in_cluster(app, channel, from, request, subscribe, now, effects);
            }
            Command::Subscribe { channel, request, subscribe } => {
                let reply = match self.subscribe(app, &channel, from, &subscribe, now, effects) {
                    Ok(subscribed) => {
                        let user_id = subscribe.into_user_id();
                        Reply::Subscribed { channel, request, user_id, subscribed }
                    }
                    Err(why) => Reply::Rejected { channel, request, why },
                };
                effects.push(Effect::Reply(from, reply));
            }
            Command::Unsubscribe { channel, user_id, is_last, may_return } => {
                let hold = hold(app, user_id.is_some() && may_return, now);
                let gone = self.channels.leave(&channel, from, user_id.as_ref(), is_last, hold);
                self.left(app, &channel, user_id, &gone, Duration::ZERO, effects);
                if gone.shard_left && !gone.vacated {
                    self.count(app, &channel, from, 0, now, effects);
                }
            }
            Command::Count { channel, subscribers } => self.count(app, &channel, from, subscribers, now, effects),
            Command::SignIn { user_id } => self.sign_in(&user_id, effects),
            Command::SignOut { user_id, may_return } => self.sign_out(&user_id, hold(app, may_return, now), effects),
            Command::Watch { user_ids, connection } => self.watch(&user_ids, connection, from, effects),
            Command::Unwatch { user_id } => self.unwatch(&user_id, from),
        }
    }

    fn publish(&mut self, app: &App, mut publication: Publication, now: Time, effects: &mut Effects<C>) {
        self.published += 1;
        let is_kept = publication.is_kept();
        if let Some(cluster) = &self.cluster {
            let kept = is_kept && cluster.is_joined();
            let receipt = publication.receipt.take();
            effects.push(Effect::Engine(Request::Publish { publication: publication.clone(), kept, receipt }));
            if kept {
                return; // It comes back in the order of all nodes.
            }
        }
        if is_kept && self.goes_ahead(&publication.channel) {
            self.channels.keep(&publication, &app.snapshot().limits, now);
        }
        self.deliver(&publication, effects);
    }

    /// Sends an event to the shards that are interested.
    fn deliver(&self, publication: &Publication, effects: &mut Effects<C>) {
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
    fn announce(&mut self, channel: &Arc<str>, event: &ServerEvent<'_>, effects: &mut Effects<C>) {
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
    fn subscribe(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        shard: ShardIndex,
        subscribe: &Subscribe,
        now: Time,
        effects: &mut Effects<C>,
    ) -> Result<Subscribed, Rejected> {
        let limits = app.snapshot().limits;
        let is_new = self.open(app, channel)?;
        let entered = self.channels.enter(channel, shard, subscribe, &limits, now);
        self.close_unless_occupied(app, channel, is_new);
        let (subscribed, entered) = entered?;
        if entered.occupied {
            self.happened(channel, |channel| Event::ChannelOccupied { channel }, Duration::ZERO, effects);
        }
        if let (true, Subscribe::Presence { member, .. }) = (entered.added, subscribe) {
            self.announce_added(channel, member, effects);
        }
        if entered.missed {
            self.happened(channel, |channel| Event::CacheMiss { channel }, Duration::ZERO, effects);
        }
        Ok(subscribed)
    }

    /// Counts a channel that has its first subscriber; says whether it has.
    fn open(&self, app: &App, channel: &str) -> Result<bool, Rejected> {
        let most = app.snapshot().limits.channels;
        let is_new = is_counted(channel) && !self.channels.is_occupied(channel);
        if is_new && !app.open_channel(most) { Err(Rejected::TooManyChannels { most }) } else { Ok(is_new) }
    }

    /// Takes back what [`open`](Self::open) has counted, where nobody has come after all.
    fn close_unless_occupied(&self, app: &App, channel: &str, is_new: bool) {
        if is_new && !self.channels.is_occupied(channel) {
            app.close_channel();
        }
    }

    /// A connection has left, or the grace of its user is over: that was held back for as long as it `waited`.
    fn left(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        gone: &Gone,
        waited: Duration,
        effects: &mut Effects<C>,
    ) {
        if let (true, Some(user_id)) = (gone.removed, user_id) {
            if self.cluster.is_some() {
                self.leave_cluster(channel, user_id, waited, effects);
            } else {
                self.announce_removed(channel, user_id, waited, effects);
            }
        }
        if gone.vacated {
            if is_counted(channel) {
                app.close_channel();
            }
            self.happened(channel, |channel| Event::ChannelVacated { channel }, waited, effects);
            self.vacate_in_cluster(channel, gone.was_counted, waited, effects);
        }
    }

    /// `shard` has so many subscribers now.
    fn count(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        shard: ShardIndex,
        subscribers: usize,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        if !app.snapshot().config.features.counts(Kind::of(channel), self.cluster.is_some()) {
            return;
        }
        if self.cluster.is_some() {
            if let Some(subscribers) = self.channels.count_here(channel, shard, subscribers) {
                effects.push(Effect::Engine(Request::Count { channel: Arc::clone(channel), subscribers }));
            }
        } else if let Some(count) = self.channels.count(channel, shard, subscribers, now) {
            self.announce_count(channel, count, effects);
        }
    }

    fn announce_count(&mut self, channel: &Arc<str>, count: usize, effects: &mut Effects<C>) {
        self.announce(channel, &ServerEvent::SubscriptionCount { channel, count }, effects);
        self.happened(channel, |channel| Event::SubscriptionCount { channel, count }, Duration::ZERO, effects);
    }

    fn announce_added(&mut self, channel: &Arc<str>, member: &PresenceMember, effects: &mut Effects<C>) {
        let (user_id, user_info) = (&member.user_id, member.user_info.as_deref());
        self.announce(channel, &ServerEvent::MemberAdded { channel, user_id, user_info }, effects);
        let user_id = Arc::clone(user_id);
        self.happened(channel, |channel| Event::MemberAdded { channel, user_id }, Duration::ZERO, effects);
    }

    fn announce_removed(&mut self, channel: &Arc<str>, user_id: Arc<str>, waited: Duration, effects: &mut Effects<C>) {
        self.announce(channel, &ServerEvent::MemberRemoved { channel, user_id: &user_id }, effects);
        self.happened(channel, |channel| Event::MemberRemoved { channel, user_id }, waited, effects);
    }

    /// Says what happened to a channel, except to those that only the server itself knows, and for how long that was held back. In a cluster,
    /// webhooks hear of it from the engine.
    fn happened(
        &self,
        channel: &Arc<str>,
        event: impl FnOnce(Arc<str>) -> Event,
        waited: Duration,
        effects: &mut Effects<C>,
    ) {
        if !Channel::is_hidden(channel) {
            let event = event(Arc::clone(channel));
            effects.push(if self.cluster.is_some() { Effect::Shown(event) } else { Effect::Happened(event, waited) });
        }
    }

    /// Those who watch a user hear of its first connection and of its last; in a cluster, from the engine.
    fn sign_in(&mut self, user_id: &Arc<str>, effects: &mut Effects<C>) {
        if self.users.sign_in(user_id) {
            self.online_here(user_id, true, effects);
        }
    }

    fn sign_out(&mut self, user_id: &Arc<str>, hold: Option<Hold>, effects: &mut Effects<C>) {
        if self.users.sign_out(user_id, hold) {
            self.online_here(user_id, false, effects);
        }
    }

    fn tell_status(&self, user_id: &Arc<str>, is_online: bool, effects: &mut Effects<C>) {
        for shard in self.users.watching(user_id) {
            effects.push(Effect::Push(shard, Push::Status { user_id: Arc::clone(user_id), is_online }));
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.channels.is_due() || self.users.is_due() || self.cluster.as_ref().is_some_and(Cluster::is_due)
    }

    /// Forgets what is too old, and announces counts and leaves that have been held back.
    pub(super) fn tick(&mut self, app: &App, now: Time, effects: &mut Effects<C>) {
        self.channels.sweep(now);
        self.take_due(app, now, effects);
        for (channel, count) in self.channels.late_counts(now) {
            self.announce_count(&channel, count, effects);
        }
        self.ask_again(effects);
    }

    /// Announces the users whose grace is over.
    fn take_due(&mut self, app: &App, now: Time, effects: &mut Effects<C>) {
        while let Some((channel, user_id, waited, gone)) = self.channels.take_due(now) {
            self.left(app, &channel, Some(user_id), &gone, waited, effects);
        }
        while let Some(user_id) = self.users.take_due(now) {
            self.online_here(&user_id, false, effects);
        }
    }

    /// On a server that is alone every grace is over now: it stops.
    pub(super) fn end_grace(&mut self, app: &App, now: Time, effects: &mut Effects<C>) {
        if self.cluster.is_none() {
            self.channels.end_grace(now);
            self.take_due(app, now, effects);
        }
    }

    /// Who is in a presence channel; in a cluster, on all nodes.
    pub(crate) fn roster(&self, channel: &str) -> Option<&Roster> {
        match &self.cluster {
            Some(cluster) => cluster.roster(channel),
            None => self.channels.roster(channel),
        }
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

    /// Whether anybody is in the channel, or may be back.
    #[cfg(test)]
    pub(crate) fn is_occupied(&self, channel: &str) -> bool {
        self.channels.is_occupied(channel)
    }

    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.channels.is_vacant() && self.users.is_vacant() && self.cluster.as_ref().is_none_or(Cluster::is_vacant)
    }
}

fn deliver<C>(delivery: &Delivery, shards: impl ExactSizeIterator<Item = ShardIndex>, effects: &mut Effects<C>) {
    for shard in shards {
        effects.push(Effect::Push(shard, Push::Deliver(delivery.clone())));
    }
}

/// For how long the leave of a user's last connection is held back, if the user `may_return`.
fn hold(app: &App, may_return: bool, now: Time) -> Option<Hold> {
    if !may_return {
        return None;
    }
    let grace = app.snapshot().config.features.presence_grace;
    (!grace.is_zero()).then(|| Hold { since: now, until: now + grace })
}

/// Whether the channel counts towards an app's limit. A user's own does not: there is at most one for each connection.
fn is_counted(channel: &str) -> bool {
    !Channel::is_hidden(channel)
}

#[cfg(test)]
mod tests {
    use super::super::Hub;
    use super::super::command::{Event as Published, LastEvent, PresenceMember, RequestId};
    use super::*;
    use crate::app::{AppConfig, Features, Limits};
    use crate::apps::Apps;
    use crate::hub::engine::{Epoch, Position, Snapshot, TooMany, Update};
    use crate::pusher::payload::Payload;
    use std::time::Instant;

    const HERE: ShardIndex = ShardIndex::FIRST;

    fn app(limits: Limits) -> Arc<App> {
        app_with(limits, Features { subscription_count: true, ..Features::default() })
    }

    fn app_with(limits: Limits, features: Features) -> Arc<App> {
        let config = AppConfig { features, ..AppConfig::parse("1:key:secret").expect("an app") };
        Arc::clone(&Apps::new([config], &limits).expect("one app").all()[0])
    }

    /// One command at one time; gives what comes of it.
    fn handle(owner: &mut Owner<u32>, app: &App, command: Command<u32>, now: Time) -> Vec<Effect<u32>> {
        let mut effects = Effects::new();
        owner.handle(app, HERE, command, now, &mut effects);
        std::iter::from_fn(|| effects.pop()).collect()
    }

    fn subscribe(owner: &mut Owner<u32>, app: &App, channel: &str, subscribe: Subscribe) -> Vec<Effect<u32>> {
        let command = Command::Subscribe { channel: channel.into(), request: RequestId::default(), subscribe };
        handle(owner, app, command, Time::ZERO)
    }

    fn leave(owner: &mut Owner<u32>, app: &App, channel: &str) -> Vec<Effect<u32>> {
        let command = Command::Unsubscribe { channel: channel.into(), user_id: None, is_last: true, may_return: false };
        handle(owner, app, command, Time::ZERO)
    }

    fn publish(owner: &mut Owner<u32>, app: &App, channel: &str, event: Published) -> Vec<Effect<u32>> {
        let publication =
            Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None };
        handle(owner, app, Command::Publish(publication), Time::ZERO)
    }

    fn rejected(effects: &[Effect<u32>]) -> Option<Rejected> {
        effects.iter().find_map(|effect| match effect {
            Effect::Reply(_, Reply::Rejected { why, .. }) => Some(*why),
            _ => None,
        })
    }

    fn happened(effects: &[Effect<u32>]) -> Vec<&Event> {
        let events =
            effects.iter().map(|effect| if let Effect::Happened(event, _) = effect { Some(event) } else { None });
        events.flatten().collect()
    }

    /// The names of the events that a shard is given for its subscribers.
    fn delivered(effects: &[Effect<u32>]) -> Vec<String> {
        let name = |effect: &Effect<u32>| {
            let Effect::Push(_, Push::Deliver(delivery)) = effect else { return None };
            let message: serde_json::Value = serde_json::from_slice(delivery.message.payload()).expect("JSON");
            message["event"].as_str().map(str::to_owned)
        };
        effects.iter().filter_map(name).collect()
    }

    fn presence(user_id: &str) -> Subscribe {
        Subscribe::Presence { member: PresenceMember { user_id: user_id.into(), user_info: None }, last_event: false }
    }

    #[test]
    fn a_channel_counts_towards_the_limit_from_its_first_subscriber_to_its_last() {
        let (app, mut owner) = (app(Limits { channels: 1, ..Limits::default() }), Owner::new(None));
        assert_eq!(rejected(&subscribe(&mut owner, &app, "a", Subscribe::Events)), None);
        assert_eq!(rejected(&subscribe(&mut owner, &app, "a", Subscribe::Events)), None, "it is open already");
        let full = Some(Rejected::TooManyChannels { most: 1 });
        assert_eq!(rejected(&subscribe(&mut owner, &app, "b", Subscribe::Events)), full);
        leave(&mut owner, &app, "a");
        assert_eq!(rejected(&subscribe(&mut owner, &app, "b", Subscribe::Events)), None);
    }

    #[test]
    fn the_channels_of_users_count_towards_no_limit_and_nothing_is_told_of_them() {
        let (app, mut owner) = (app(Limits { channels: 1, ..Limits::default() }), Owner::new(None));
        for user in ["1", "2"] {
            let effects = subscribe(&mut owner, &app, &Channel::of_user(user), Subscribe::Events);
            assert_eq!((rejected(&effects), happened(&effects)), (None, vec![]));
        }
        assert_eq!(happened(&leave(&mut owner, &app, &Channel::of_user("1"))), Vec::<&Event>::new());
        assert_eq!(rejected(&subscribe(&mut owner, &app, "a", Subscribe::Events)), None);
    }

    #[test]
    fn a_subscriber_that_is_rejected_opens_no_channel() {
        let limits = Limits { channels: 1, presence_members: 0, ..Limits::default() };
        let (app, mut owner) = (app(limits), Owner::new(None));
        let full = Some(Rejected::Full { most: 0 });
        assert_eq!(rejected(&subscribe(&mut owner, &app, "presence-a", presence("1"))), full);
        assert_eq!(owner.occupied(), 0);
        assert_eq!(rejected(&subscribe(&mut owner, &app, "a", Subscribe::Events)), None, "the place is free again");
        assert_eq!(owner.occupied(), 1);
    }

    #[test]
    fn only_what_backends_publish_to_cache_channels_is_kept() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(None));
        let from_client = || Published::Client { name: "client-a".into(), data: None, user_id: None };
        let from_backend = || Published::published("event", &Payload::from("x"));
        publish(&mut owner, &app, "cache-a", from_client());
        publish(&mut owner, &app, "a", from_backend());
        assert!(owner.last_event("cache-a", Time::ZERO).is_none() && owner.last_event("a", Time::ZERO).is_none());
        publish(&mut owner, &app, "cache-a", from_backend());
        publish(&mut owner, &app, "cache-a", from_client());
        let (kept, ttl) = owner.last_event("cache-a", Time::ZERO).expect("an event");
        assert_eq!((kept.name(), kept.data().as_ref(), ttl), ("event", "x", app.snapshot().limits.cache_ttl));
        let effects = subscribe(&mut owner, &app, "cache-a", Subscribe::LastEvent);
        let [Effect::Happened(..), Effect::Reply(HERE, Reply::Subscribed { subscribed, .. })] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert!(matches!(subscribed.last_event, LastEvent::Found(_)));
    }

    #[test]
    fn the_first_subscriber_that_finds_nothing_kept_is_told_of() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(None));
        let channel: Arc<str> = "cache-a".into();
        let effects = subscribe(&mut owner, &app, &channel, Subscribe::LastEvent);
        let (occupied, miss) = (
            Event::ChannelOccupied { channel: Arc::clone(&channel) },
            Event::CacheMiss { channel: Arc::clone(&channel) },
        );
        assert_eq!(happened(&effects), [&occupied, &miss]);
        assert_eq!(happened(&subscribe(&mut owner, &app, &channel, Subscribe::LastEvent)), Vec::<&Event>::new());
    }

    #[test]
    fn what_is_kept_is_forgotten_by_the_tick_after_its_time() {
        let app = app(Limits::default());
        let mut hub = Hub::<u32>::new(Arc::clone(&app), None);
        publish(&mut hub.owner, &app, "cache-a", Published::published("event", &Payload::from("x")));
        let after = Time::ZERO + app.snapshot().limits.cache_ttl;
        hub.tick(after, &mut Effects::new());
        assert!(hub.owner().last_event("cache-a", Time::ZERO).is_none());
    }

    #[test]
    fn every_event_counts_as_published_whether_anybody_hears_it_or_not() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(None));
        let event = || Published::published("event", &Payload::from("x"));
        assert_eq!(publish(&mut owner, &app, "presence-a", event()).len(), 0, "nobody is there");
        assert_eq!(owner.published(), 1);
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        assert_eq!(owner.published(), 2, "that a user has come is an event, too");
        assert_eq!(publish(&mut owner, &app, "presence-a", event()).len(), 1);
        assert_eq!((owner.published(), owner.occupied()), (3, 1));
    }

    // A count that was held back comes with a tick.
    #[test]
    fn a_count_of_many_is_told_late() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(None));
        subscribe(&mut owner, &app, "a", Subscribe::Events);
        let count = |subscribers| Command::Count { channel: "a".into(), subscribers };
        let told = |count| Event::SubscriptionCount { channel: "a".into(), count };
        let effects = handle(&mut owner, &app, count(150), Time::ZERO);
        assert_eq!(happened(&effects), [&told(150)]);
        assert_eq!(delivered(&effects), ["pusher_internal:subscription_count"]);
        assert_eq!(happened(&handle(&mut owner, &app, count(151), Time::ZERO)), Vec::<&Event>::new());
        let mut effects = Effects::<u32>::new();
        owner.tick(&app, Time::ZERO + Duration::from_secs(5), &mut effects);
        let effects: Vec<_> = std::iter::from_fn(|| effects.pop()).collect();
        assert_eq!(happened(&effects), [&told(151)]);
        assert_eq!(delivered(&effects), ["pusher_internal:subscription_count"]);
    }

    #[test]
    fn a_node_of_a_cluster_tells_the_engine_of_counts_and_clients_only_what_the_app_wants_told() {
        let told = |features: Features, channel: &str| {
            let (app, mut owner) = (app_with(Limits::default(), features), Owner::new(Some(Standing::Away)));
            subscribe(&mut owner, &app, channel, Subscribe::Events);
            let effects =
                handle(&mut owner, &app, Command::Count { channel: channel.into(), subscribers: 2 }, Time::ZERO);
            let is_asked =
                effects.iter().any(|effect| matches!(effect, Effect::Engine(Request::Count { subscribers: 2, .. })));
            let mut effects = Effects::new();
            owner.update(&app, Update::Counted { channel: channel.into(), subscribers: 5 }, Time::ZERO, &mut effects);
            let effects: Vec<Effect<u32>> = std::iter::from_fn(|| effects.pop()).collect();
            (is_asked, delivered(&effects) == ["pusher_internal:subscription_count"])
        };
        let off = Features::default();
        let on = Features { subscription_count: true, ..off };
        let asked = Features { subscription_count_in_info: true, ..off };
        assert_eq!(told(on, "a"), (true, true));
        assert_eq!(told(on, "presence-a"), (true, false));
        assert_eq!(told(asked, "a"), (true, false));
        assert_eq!(told(asked, "presence-a"), (true, false));
        assert_eq!(told(off, "a"), (false, false));
    }

    /// The engine says something, or is lost or found; gives what comes of it.
    fn update(owner: &mut Owner<u32>, app: &App, update: Update) -> Vec<Effect<u32>> {
        let mut effects = Effects::new();
        owner.update(app, update, Time::ZERO, &mut effects);
        std::iter::from_fn(|| effects.pop()).collect()
    }

    fn stand(owner: &mut Owner<u32>, standing: Standing) {
        owner.stand(standing, Time::ZERO, &mut Effects::new());
    }

    fn kept_at(number: u64) -> (Option<Publication>, Position) {
        let event = Published::published(&format!("event-{number}"), &Payload::from("x"));
        let publication =
            Publication { channel: "cache-a".into(), event, excluded: None, at: Instant::now(), receipt: None };
        (Some(publication), Position { epoch: Epoch(1), number })
    }

    /// What the engine says of `cache-a` when it is asked.
    fn last_event((publication, position): (Option<Publication>, Position)) -> Update {
        Update::LastEvent { channel: "cache-a".into(), publication, position }
    }

    fn published((publication, position): (Option<Publication>, Position)) -> Update {
        Update::Published { publication: publication.expect("an event"), kept: Some(position) }
    }

    #[test]
    fn the_engine_is_told_once_of_newcomers_that_find_no_last_event() {
        let misses = |effects: &[Effect<u32>]| {
            let is_miss =
                |effect: &&Effect<u32>| matches!(effect, Effect::Engine(Request::LastEvent { is_missed: true, .. }));
            effects.iter().filter(is_miss).count()
        };
        let found = |effects: &[Effect<u32>]| -> Vec<bool> {
            let found = effects.iter().filter_map(|effect| match effect {
                Effect::Reply(_, Reply::Subscribed { subscribed, .. }) => {
                    Some(matches!(subscribed.last_event, LastEvent::Found(_)))
                }
                _ => None,
            });
            found.collect()
        };
        let (app, mut owner) = (app(Limits::default()), Owner::new(Some(Standing::Joined)));
        for _ in 0..2 {
            subscribe(&mut owner, &app, "cache-a", Subscribe::LastEvent);
        }
        update(&mut owner, &app, Update::Subscribed { channel: "cache-a".into() });
        let nothing = (None, Position { epoch: Epoch(1), number: 0 });
        let effects = update(&mut owner, &app, last_event(nothing));
        assert_eq!((found(&effects), misses(&effects)), (vec![false; 2], 1));
        let effects = subscribe(&mut owner, &app, "cache-a", Subscribe::LastEvent);
        assert_eq!((found(&effects), misses(&effects)), (vec![false], 0), "that is known");
        update(&mut owner, &app, published(kept_at(1)));
        let effects = subscribe(&mut owner, &app, "cache-a", Subscribe::LastEvent);
        assert_eq!((found(&effects), misses(&effects)), (vec![true], 0));
    }

    #[test]
    fn events_are_heard_after_a_server_took_over_that_had_lost_the_last_ones() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(Some(Standing::Joined)));
        subscribe(&mut owner, &app, "cache-a", Subscribe::LastEvent);
        update(&mut owner, &app, Update::Subscribed { channel: "cache-a".into() });
        update(&mut owner, &app, last_event(kept_at(1)));
        for number in 2..=3 {
            assert_eq!(delivered(&update(&mut owner, &app, published(kept_at(number)))), [format!("event-{number}")]);
        }
        stand(&mut owner, Standing::Away);
        stand(&mut owner, Standing::Joined);
        let answer = update(&mut owner, &app, last_event(kept_at(1)));
        assert_eq!(delivered(&answer), [] as [&str; 0], "it was heard long ago");
        assert_eq!(last_name(&owner).as_deref(), Some("event-1"), "newcomers get what they get on other nodes");
        for number in 2..=3 {
            assert_eq!(delivered(&update(&mut owner, &app, published(kept_at(number)))), [format!("event-{number}")]);
            assert_eq!(delivered(&update(&mut owner, &app, published(kept_at(number)))), [] as [&str; 0], "again");
        }
    }

    /// On a node that has subscribers of `cache-a`, and to which the engine came back after these events.
    fn owner_that_is_back(app: &App, heard: u64) -> Owner<u32> {
        let mut owner = Owner::new(Some(Standing::Joined));
        subscribe(&mut owner, app, "cache-a", Subscribe::LastEvent);
        update(&mut owner, app, Update::Subscribed { channel: "cache-a".into() });
        update(&mut owner, app, last_event(kept_at(heard)));
        stand(&mut owner, Standing::Away);
        stand(&mut owner, Standing::Joined);
        owner
    }

    /// The event that newcomers of `cache-a` get.
    fn last_name(owner: &Owner<u32>) -> Option<String> {
        owner.last_event("cache-a", Time::ZERO).map(|(publication, _)| publication.name().to_owned())
    }

    #[test]
    fn clients_hear_the_last_event_that_they_missed_while_the_engine_was_away() {
        let app = app(Limits::default());
        let mut owner = owner_that_is_back(&app, 1);
        assert_eq!(delivered(&update(&mut owner, &app, last_event(kept_at(3)))), ["event-3"]);
        assert_eq!(delivered(&update(&mut owner, &app, published(kept_at(4)))), ["event-4"]);
    }

    #[test]
    fn newcomers_get_what_was_published_here_while_the_engine_was_away_unless_it_has_newer() {
        let app = app(Limits::default());
        for (position, last) in [(1, "ahead"), (2, "ahead"), (3, "event-3")] {
            let mut owner = owner_that_is_back(&app, 2);
            stand(&mut owner, Standing::Away);
            let effects = publish(&mut owner, &app, "cache-a", Published::published("ahead", &Payload::from("x")));
            assert_eq!(delivered(&effects), ["ahead"]);
            stand(&mut owner, Standing::Joined);
            let answer = update(&mut owner, &app, last_event(kept_at(position)));
            assert_eq!((delivered(&answer), last_name(&owner).as_deref()), (vec![], Some(last)), "{position}");
        }
    }

    #[test]
    fn a_last_event_lives_no_longer_because_the_engine_was_away() {
        let app = app(Limits::default());
        let mut owner = owner_that_is_back(&app, 1);
        owner.update(&app, last_event(kept_at(1)), at(60), &mut Effects::new());
        assert!(owner.last_event("cache-a", Time::ZERO + app.snapshot().limits.cache_ttl).is_none());
    }

    #[test]
    fn members_are_asked_for_again_while_the_engine_settles_and_not_after() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(Some(Standing::Joined)));
        let channel: Arc<str> = "presence-a".into();
        subscribe(&mut owner, &app, &channel, presence("1"));
        update(&mut owner, &app, Update::Subscribed { channel: Arc::clone(&channel) });
        assert!(!owner.is_due());
        let members = |is_settling| {
            let member = PresenceMember { user_id: "1".into(), user_info: None };
            let position = Position { epoch: Epoch(1), number: 1 };
            let snapshot = Snapshot { position, members: vec![member], is_settling };
            Update::Members { channel: "presence-a".into(), snapshot }
        };
        update(&mut owner, &app, members(true));
        assert!(owner.is_due());
        let effects = tick(&mut owner, &app, at(1));
        assert!(matches!(&effects[..], [Effect::Engine(Request::Members { .. })]), "{effects:?}");
        update(&mut owner, &app, members(false));
        assert!(!owner.is_due() && tick(&mut owner, &app, at(2)).is_empty());
    }

    #[test]
    fn who_was_let_in_before_the_node_had_joined_is_a_member_whatever_the_limit_says() {
        for standing in [Standing::Starting, Standing::Away] {
            let (app, mut owner) =
                (app(Limits { presence_members: 1, ..Limits::default() }), Owner::new(Some(standing)));
            let channel: Arc<str> = "presence-a".into();
            let joins = |effects: &[Effect<u32>]| -> Vec<_> {
                let join = |effect: &Effect<u32>| match effect {
                    Effect::Engine(Request::Join { member, number, most, .. }) => {
                        Some((member.user_id.to_string(), *number, *most))
                    }
                    _ => None,
                };
                effects.iter().filter_map(join).collect()
            };
            let sent = joins(&subscribe(&mut owner, &app, &channel, presence("1")));
            let [(_, number, 1)] = sent[..] else { panic!("{sent:?}") };
            stand(&mut owner, Standing::Joined);
            let full = |user_id: &str, number| Update::Joined {
                channel: "presence-a".into(),
                user_id: user_id.into(),
                number,
                outcome: Err(TooMany { most: 1 }),
            };
            assert_eq!(joins(&update(&mut owner, &app, full("2", number))), [], "nobody is here by that name");
            let again = joins(&update(&mut owner, &app, full("1", number)));
            assert!(matches!(&again[..], [(user_id, other, 0)] if user_id == "1" && *other != number), "{again:?}");
        }
    }

    /// An app whose users may be away for three seconds.
    fn app_with_grace(limits: Limits) -> Arc<App> {
        app_with(limits, Features { presence_grace: Duration::from_secs(3), ..Features::default() })
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// A connection of the user leaves `presence-a`.
    fn part(owner: &mut Owner<u32>, app: &App, user_id: &str, is_last: bool, may_return: bool) -> Vec<Effect<u32>> {
        let (channel, user_id) = ("presence-a".into(), Some(user_id.into()));
        handle(owner, app, Command::Unsubscribe { channel, user_id, is_last, may_return }, Time::ZERO)
    }

    fn tick(owner: &mut Owner<u32>, app: &App, now: Time) -> Vec<Effect<u32>> {
        let mut effects = Effects::new();
        owner.tick(app, now, &mut effects);
        std::iter::from_fn(|| effects.pop()).collect()
    }

    fn removed(user_id: &str) -> Event {
        Event::MemberRemoved { channel: "presence-a".into(), user_id: user_id.into() }
    }

    #[test]
    fn a_user_whose_last_connection_was_lost_has_left_once_the_grace_is_over() {
        let (app, mut owner) = (app_with_grace(Limits::default()), Owner::new(None));
        for user in ["1", "2"] {
            subscribe(&mut owner, &app, "presence-a", presence(user));
        }
        assert_eq!(part(&mut owner, &app, "1", false, true).len(), 0);
        assert!(owner.roster("presence-a").expect("a list").contains("1"), "it is a member until then");
        assert_eq!(tick(&mut owner, &app, at(2)).len(), 0);
        assert!(owner.is_due());
        let effects = tick(&mut owner, &app, at(3));
        assert_eq!(
            (delivered(&effects), happened(&effects)),
            (vec!["pusher_internal:member_removed".into()], vec![&removed("1")])
        );
        let [Effect::Push(..), Effect::Happened(_, waited)] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(waited, Duration::from_secs(3));
        assert!(!owner.is_due() && tick(&mut owner, &app, at(9)).is_empty());
    }

    #[test]
    fn nobody_hears_of_a_user_who_is_back_within_the_grace() {
        let (app, mut owner) = (app_with_grace(Limits::default()), Owner::new(None));
        for user in ["1", "2"] {
            subscribe(&mut owner, &app, "presence-a", presence(user));
        }
        part(&mut owner, &app, "1", false, true);
        let effects = subscribe(&mut owner, &app, "presence-a", presence("1"));
        let [Effect::Reply(_, Reply::Subscribed { subscribed, .. })] = &effects[..] else { panic!("{effects:?}") };
        assert!(subscribed.members.as_ref().expect("a list").contains(r#"\"count\":2"#));
        assert!(!owner.is_due() && tick(&mut owner, &app, at(9)).is_empty());
        assert!(owner.roster("presence-a").expect("a list").contains("1"));
    }

    #[test]
    fn who_unsubscribes_has_left_at_once() {
        let (app, mut owner) = (app_with_grace(Limits::default()), Owner::new(None));
        subscribe(&mut owner, &app, "presence-a", presence("2"));
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        assert_eq!(happened(&part(&mut owner, &app, "1", false, false)), [&removed("1")]);
        // Also after a reload.
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        part(&mut owner, &app, "1", false, true);
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        assert_eq!(happened(&part(&mut owner, &app, "1", false, false)), [&removed("1")]);
        assert!(!owner.is_due());
    }

    #[test]
    fn without_a_grace_who_is_lost_has_left_at_once() {
        let (app, mut owner) = (app(Limits::default()), Owner::new(None));
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        let vacated = Event::ChannelVacated { channel: "presence-a".into() };
        assert_eq!(happened(&part(&mut owner, &app, "1", true, true)), [&removed("1"), &vacated]);
        assert!(!owner.is_due() && owner.is_vacant());
    }

    #[test]
    fn a_channel_is_occupied_for_as_long_as_its_last_user_may_be_back() {
        let (app, mut owner) = (app_with_grace(Limits { channels: 1, ..Limits::default() }), Owner::new(None));
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        assert_eq!(part(&mut owner, &app, "1", true, true).len(), 0);
        assert_eq!(owner.occupied(), 1);
        let full = Some(Rejected::TooManyChannels { most: 1 });
        assert_eq!(rejected(&subscribe(&mut owner, &app, "b", Subscribe::Events)), full);
        let effects = tick(&mut owner, &app, at(3));
        assert_eq!(happened(&effects), [&removed("1"), &Event::ChannelVacated { channel: "presence-a".into() }]);
        assert_eq!(rejected(&subscribe(&mut owner, &app, "b", Subscribe::Events)), None);
        leave(&mut owner, &app, "b");
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        part(&mut owner, &app, "1", true, true);
        assert_eq!(happened(&subscribe(&mut owner, &app, "presence-a", presence("1"))), Vec::<&Event>::new());
    }

    #[test]
    fn a_user_who_may_be_back_takes_a_place_and_is_let_in_again() {
        let limits = Limits { presence_members: 1, ..Limits::default() };
        let (app, mut owner) = (app_with_grace(limits), Owner::new(None));
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        part(&mut owner, &app, "1", true, true);
        let full = Some(Rejected::Full { most: 1 });
        assert_eq!(rejected(&subscribe(&mut owner, &app, "presence-a", presence("2"))), full);
        assert_eq!(rejected(&subscribe(&mut owner, &app, "presence-a", presence("1"))), None);
    }

    #[test]
    fn a_server_that_stops_tells_webhooks_who_has_not_come_back() {
        let (app, mut owner) = (app_with_grace(Limits::default()), Owner::new(None));
        subscribe(&mut owner, &app, "presence-a", presence("1"));
        part(&mut owner, &app, "1", true, true);
        let mut effects = Effects::new();
        owner.end_grace(&app, at(1), &mut effects);
        let effects: Vec<_> = std::iter::from_fn(|| effects.pop()).collect();
        assert_eq!(happened(&effects), [&removed("1"), &Event::ChannelVacated { channel: "presence-a".into() }]);
        assert!(owner.is_vacant());
    }

    #[test]
    fn a_crowd_that_comes_and_goes_leaves_nothing_behind_after_the_grace() {
        let (app, mut owner) = (app_with_grace(Limits::default()), Owner::new(None));
        for number in 0..1000 {
            let channel: Arc<str> = format!("presence-{}", number % 100).into();
            let user_id: Arc<str> = number.to_string().into();
            subscribe(&mut owner, &app, &channel, presence(&user_id));
            let (user_id, is_last) = (Some(user_id), number >= 900);
            handle(&mut owner, &app, Command::Unsubscribe { channel, user_id, is_last, may_return: true }, Time::ZERO);
        }
        assert_eq!((owner.occupied(), owner.rosters().count()), (100, 100));
        assert_eq!(happened(&tick(&mut owner, &app, at(3))).len(), 1100);
        assert!(owner.is_vacant() && !owner.is_due());
    }

    #[test]
    fn those_who_watch_a_user_hear_that_it_is_offline_once_the_grace_is_over() {
        let (app, mut owner) = (app_with_grace(Limits::default()), Owner::new(None));
        let ann: Arc<str> = "ann".into();
        let told = |effects: &[Effect<u32>]| -> Vec<bool> {
            let told = effects.iter().filter_map(|effect| match effect {
                Effect::Push(_, Push::Status { is_online, .. }) => Some(*is_online),
                _ => None,
            });
            told.collect()
        };
        handle(&mut owner, &app, Command::Watch { user_ids: [Arc::clone(&ann)].into(), connection: 1 }, Time::ZERO);
        let sign_in = || Command::SignIn { user_id: Arc::clone(&ann) };
        let sign_out = |may_return| Command::SignOut { user_id: Arc::clone(&ann), may_return };
        assert_eq!(told(&handle(&mut owner, &app, sign_in(), Time::ZERO)), [true]);
        assert_eq!(told(&handle(&mut owner, &app, sign_out(true), Time::ZERO)), [] as [bool; 0]);
        assert_eq!(told(&handle(&mut owner, &app, sign_in(), at(2))), [] as [bool; 0], "it is back");
        assert_eq!(told(&tick(&mut owner, &app, at(9))), [] as [bool; 0]);
        assert_eq!(told(&handle(&mut owner, &app, sign_out(true), at(9))), [] as [bool; 0]);
        assert!(owner.is_due());
        assert_eq!(told(&tick(&mut owner, &app, at(12))), [false]);
        handle(&mut owner, &app, sign_in(), at(13));
        assert_eq!(told(&handle(&mut owner, &app, sign_out(false), at(14))), [false], "closed for good");
    }
}
