//! The owner of channels on one node of a cluster.
//!
//! It lets nobody in before the engine has what that takes: the node is subscribed, and the user is in the list that the
//! newcomer gets. While the engine is away nobody waits for it: the node goes on by itself, and what its clients have
//! been told is put right by differences once the engine is back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Time;

use super::Owner;
use crate::apps::App;
use crate::events::Event;
use crate::hub::command::{
    LastEvent, PresenceMember, Publication, Push, Rejected, Reply, RequestId, Subscribe, Subscribed,
};
use crate::hub::effects::{Effect, Effects};
use crate::hub::engine::{Difference, Position, Request, Snapshot, Standing, TooMany, Update};
use crate::hub::presence::Roster;
use crate::hub::subscriptions::give_back;
use crate::hub::view::{Applied, View};
use crate::place::ShardIndex;
use crate::pusher::channel::Kind;

/// What an owner knows of the other nodes.
#[derive(Debug)]
pub(super) struct Cluster<C> {
    standing: Standing,
    /// Those that are occupied on this node.
    channels: HashMap<Arc<str>, Shared>,
    /// What is known of the users that are watched on this node: whether they are online anywhere.
    statuses: HashMap<Arc<str>, bool>,
    /// Users of whom it has been asked whether they are online.
    asked: HashMap<u32, Asked<C>>,
    /// Channels whose members are to be asked for again: a snapshot or an announcement is overdue, or the engine settles.
    unsettled: BTreeSet<Arc<str>>,
    last_number: u32,
}

/// A channel that other nodes may have, too.
#[derive(Debug, Default)]
struct Shared {
    /// What other nodes publish comes.
    is_subscribed: bool,
    /// Of a presence channel.
    view: Option<View>,
    /// The users who have come here, and whom the view may not show yet.
    joining: HashMap<Arc<str>, Joining>,
    /// Of a cache channel: the last event that was delivered here, or that there was when the node came to the channel.
    delivered: Option<Position>,
    /// The same from before the engine was lost.
    heard: Option<Position>,
    /// It is known what was published before the node was subscribed; all else comes by itself.
    is_up_to_date: bool,
    /// Something newer was published here while the engine was away.
    is_ahead: bool,
    /// Subscriptions that are not answered yet, in their order.
    waiting: Vec<Waiting>,
}

/// A user on its way into a presence channel.
#[derive(Debug)]
struct Joining {
    number: u32,
    /// Once the engine has answered: as soon as the view is there, the user is in it.
    position: Option<Position>,
}

#[derive(Debug)]
struct Waiting {
    shard: ShardIndex,
    request: RequestId,
    subscribe: Subscribe,
}

#[derive(Debug)]
struct Asked<C> {
    user_ids: Arc<[Arc<str>]>,
    /// The connection that waits for it, if one does.
    by: Option<(ShardIndex, C)>,
    /// Who has come or gone since: the answer may be older than that.
    heard: HashMap<Arc<str>, bool>,
}

impl<C> Cluster<C> {
    pub(super) fn new(standing: Standing) -> Self {
        Self {
            standing,
            channels: HashMap::new(),
            statuses: HashMap::new(),
            asked: HashMap::new(),
            unsettled: BTreeSet::new(),
            last_number: 0,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.standing == Standing::Joined
    }

    pub(super) fn roster(&self, channel: &str) -> Option<&Roster> {
        Some(self.channels.get(channel)?.view.as_ref()?.roster())
    }

    pub(super) fn is_due(&self) -> bool {
        !self.unsettled.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_vacant(&self) -> bool {
        self.channels.is_empty() && self.statuses.is_empty() && self.asked.is_empty() && self.unsettled.is_empty()
    }

    fn next_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }
}

impl Shared {
    /// Whether this one can be told that it is subscribed.
    fn is_ready(&self, subscribe: &Subscribe, standing: Standing) -> bool {
        if standing == Standing::Away {
            return true;
        }
        let has_event = !subscribe.wants_last_event() || self.is_up_to_date;
        let has_members = match subscribe {
            Subscribe::Events | Subscribe::LastEvent => true,
            Subscribe::Members { .. } => self.view.as_ref().is_some_and(View::is_ready),
            Subscribe::Presence { member, .. } => {
                self.view.as_ref().is_some_and(View::is_ready) && !self.joining.contains_key(&member.user_id)
            }
        };
        self.is_subscribed && has_event && has_members
    }

    /// Takes the users off the list who are in the view now.
    fn settle_joining(&mut self) {
        let Some(view) = &self.view else { return };
        if view.is_ready() {
            self.joining.retain(|_, joining| joining.position.is_none_or(|position| !view.has_reached(position)));
            give_back(&mut self.joining);
        }
    }
}

impl<C: Copy> Owner<C> {
    /// A connection of `shard` subscribes. The reply comes when the engine has what that takes.
    #[expect(clippy::too_many_arguments, reason = "each is another thing of one command")]
    pub(super) fn subscribe_in_cluster(
        &mut self,
        app: &App,
        channel: Arc<str>,
        shard: ShardIndex,
        request: RequestId,
        subscribe: Subscribe,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        let is_new = match self.open(app, &channel) {
            Ok(is_new) => is_new,
            Err(why) => return effects.push(Effect::Reply(shard, Reply::Rejected { channel, request, why })),
        };
        let entered = self.channels.admit(&channel, shard, &subscribe);
        self.close_unless_occupied(app, &channel, is_new);
        if !self.channels.is_occupied(&channel) {
            // It has left meanwhile, and asks who is there all the same.
            let subscribed = Subscribed::default();
            return effects
                .push(Effect::Reply(shard, Reply::Subscribed { channel, request, user_id: None, subscribed }));
        }
        if entered.occupied {
            self.happened(&channel, |channel| Event::ChannelOccupied { channel }, Duration::ZERO, effects);
            effects.push(Effect::Engine(Request::Subscribe { channel: Arc::clone(&channel) }));
        }
        let Some(cluster) = &mut self.cluster else { return };
        let state = cluster.channels.entry(Arc::clone(&channel)).or_default();
        if Kind::of(&channel).is_presence() {
            state.view.get_or_insert_default();
        }
        state.waiting.push(Waiting { shard, request, subscribe: subscribe.clone() });
        if let (true, Subscribe::Presence { member, .. }) = (entered.added, subscribe) {
            self.join_cluster(app, &channel, member, effects);
        }
        self.welcome(&channel, now, effects);
    }

    /// A user has come to a presence channel on this node.
    fn join_cluster(&mut self, app: &App, channel: &Arc<str>, member: PresenceMember, effects: &mut Effects<C>) {
        let most = app.snapshot().limits.presence_members;
        let Some(cluster) = &mut self.cluster else { return };
        let number = cluster.next_number();
        let Some(state) = cluster.channels.get_mut(channel) else { return };
        let join = Request::Join { channel: Arc::clone(channel), member: member.clone(), number, most };
        effects.push(Effect::Engine(join));
        if cluster.standing != Standing::Away {
            state.joining.insert(member.user_id, Joining { number, position: None });
        } else if state.view.as_mut().is_some_and(|view| view.add(member.clone())) {
            self.announce_added(channel, &member, effects);
        }
    }

    /// A user has left a presence channel on this node.
    pub(super) fn leave_cluster(
        &mut self,
        channel: &Arc<str>,
        user_id: Arc<str>,
        waited: Duration,
        effects: &mut Effects<C>,
    ) {
        let (of, user) = (Arc::clone(channel), Arc::clone(&user_id));
        effects.push(Effect::Engine(Request::Leave { channel: of, user_id: user, waited }));
        let Some(cluster) = &mut self.cluster else { return };
        let Some(state) = cluster.channels.get_mut(channel) else { return };
        state.joining.remove(&user_id);
        let is_away = cluster.standing == Standing::Away;
        if is_away && state.view.as_mut().is_some_and(|view| view.remove(&user_id)) {
            self.announce_removed(channel, user_id, waited, effects);
        }
    }

    /// Nobody on this node is subscribed any more.
    pub(super) fn vacate_in_cluster(
        &mut self,
        channel: &Arc<str>,
        was_counted: bool,
        waited: Duration,
        effects: &mut Effects<C>,
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.channels.remove(channel);
        give_back(&mut cluster.channels);
        cluster.unsettled.remove(channel);
        // What is published from here on is not heard.
        self.channels.forget(channel);
        if was_counted {
            effects.push(Effect::Engine(Request::Count { channel: Arc::clone(channel), subscribers: 0 }));
        }
        effects.push(Effect::Engine(Request::Unsubscribe { channel: Arc::clone(channel), waited }));
    }

    /// Answers those who wait for nothing any more.
    fn welcome(&mut self, channel: &Arc<str>, now: Time, effects: &mut Effects<C>) {
        let Some(cluster) = &mut self.cluster else { return };
        let standing = cluster.standing;
        let Some(state) = cluster.channels.get_mut(channel) else { return };
        let waiting = std::mem::take(&mut state.waiting);
        let (ready, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|one| state.is_ready(&one.subscribe, standing));
        state.waiting = waiting;
        let mut misses = false;
        for Waiting { shard, request, subscribe } in ready {
            let is_presence = matches!(subscribe, Subscribe::Presence { .. } | Subscribe::Members { .. });
            let view = state.view.as_ref().filter(|_| is_presence);
            let mut subscribed =
                Subscribed { members: view.map(|view| view.roster().members().into()), ..Subscribed::default() };
            if subscribe.wants_last_event() {
                let is_first;
                (subscribed.last_event, is_first) = self.channels.last_event(channel, now);
                misses |= is_first;
                debug_assert!(!matches!(subscribed.last_event, LastEvent::NotKept));
            }
            let (channel, user_id) = (Arc::clone(channel), subscribe.into_user_id());
            effects.push(Effect::Reply(shard, Reply::Subscribed { channel, request, user_id, subscribed }));
        }
        if misses {
            self.happened(channel, |channel| Event::CacheMiss { channel }, Duration::ZERO, effects);
            let channel = Arc::clone(channel);
            effects.push(Effect::Engine(Request::LastEvent { channel, is_missed: true }));
        }
    }

    /// The engine says something.
    pub(in crate::hub) fn update(&mut self, app: &App, update: Update, now: Time, effects: &mut Effects<C>) {
        match update {
            Update::Subscribed { channel } => {
                self.subscribed(&channel, effects);
                self.welcome(&channel, now, effects);
            }
            Update::Published { publication, kept: None } => self.deliver(&publication, effects),
            Update::Published { publication, kept: Some(position) } => {
                self.kept(app, &Arc::clone(&publication.channel), Some(publication), position, false, now, effects);
            }
            Update::Missed { channel } => {
                for shard in self.channels.shards(&channel) {
                    effects.push(Effect::Push(shard, Push::Missed { channel: Arc::clone(&channel) }));
                }
            }
            Update::Joined { channel, user_id, number, outcome } => {
                self.joined(&channel, &user_id, number, outcome, effects);
                self.welcome(&channel, now, effects);
            }
            Update::Changed { channel, change } => {
                let Some(view) = self.view(&channel) else { return };
                match view.apply(change) {
                    Applied::Difference(difference) => self.differ(&channel, difference, effects),
                    Applied::Nothing => {}
                    Applied::Gap => self.ask_members(&channel, effects),
                }
                self.settle(&channel, now, effects);
            }
            Update::Members { channel, snapshot } => self.adopt(&channel, snapshot, now, effects),
            Update::LastEvent { channel, publication, position } => {
                self.kept(app, &channel, publication, position, true, now, effects);
                self.welcome(&channel, now, effects);
            }
            Update::Counted { channel, subscribers } => {
                if !app.snapshot().config.features.announces_count(Kind::of(&channel)) {
                    return;
                }
                if let Some(count) = self.channels.counted(&channel, subscribers, now) {
                    self.announce_count(&channel, count, effects);
                }
            }
            Update::Status { user_id, is_online } => self.status(&user_id, is_online, effects),
            Update::Online { number, online } => self.online(number, &online, effects),
        }
    }

    /// What other nodes publish comes from here on: what was before is asked for.
    fn subscribed(&mut self, channel: &Arc<str>, effects: &mut Effects<C>) {
        let Some(state) = self.shared(channel) else { return };
        state.is_subscribed = true;
        state.is_up_to_date = false;
        self.ask(channel, effects);
    }

    /// Asks for what can only be known by asking.
    fn ask(&mut self, channel: &Arc<str>, effects: &mut Effects<C>) {
        if Kind::of(channel).is_presence() {
            self.ask_members(channel, effects);
        }
        if Kind::of(channel).is_cache() {
            let channel = Arc::clone(channel);
            effects.push(Effect::Engine(Request::LastEvent { channel, is_missed: false }));
        }
    }

    fn ask_members(&mut self, channel: &Arc<str>, effects: &mut Effects<C>) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_joined()) else { return };
        let Some(view) = cluster.channels.get_mut(channel).and_then(|state| state.view.as_mut()) else { return };
        view.ask();
        effects.push(Effect::Engine(Request::Members { channel: Arc::clone(channel) }));
    }

    /// Who is in a presence channel has come.
    fn adopt(&mut self, channel: &Arc<str>, snapshot: Snapshot, now: Time, effects: &mut Effects<C>) {
        let is_settling = snapshot.is_settling;
        let Some(view) = self.view(channel) else { return };
        let (differences, has_gap) = view.adopt(snapshot);
        for difference in differences {
            self.differ(channel, difference, effects);
        }
        if has_gap {
            self.ask_members(channel, effects);
        }
        if let (true, Some(cluster)) = (is_settling, &mut self.cluster) {
            cluster.unsettled.insert(Arc::clone(channel));
        }
        self.settle(channel, now, effects);
    }

    /// The view has changed.
    fn settle(&mut self, channel: &Arc<str>, now: Time, effects: &mut Effects<C>) {
        if let Some(state) = self.shared(channel) {
            state.settle_joining();
        }
        self.welcome(channel, now, effects);
    }

    fn differ(&mut self, channel: &Arc<str>, difference: Difference, effects: &mut Effects<C>) {
        match difference {
            Difference::Added(member) => self.announce_added(channel, &member, effects),
            Difference::Removed(user_id) => self.announce_removed(channel, user_id, Duration::ZERO, effects),
        }
    }

    /// The engine has let a user in, or has not.
    fn joined(
        &mut self,
        channel: &Arc<str>,
        user_id: &Arc<str>,
        number: u32,
        outcome: Result<Position, TooMany>,
        effects: &mut Effects<C>,
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(state) = cluster.channels.get_mut(channel) else { return };
        let Some(joining) = state.joining.get_mut(user_id).filter(|joining| joining.number == number) else {
            if outcome.is_err() && !state.joining.contains_key(user_id) {
                self.join_again(channel, user_id, effects);
            }
            return;
        };
        match outcome {
            Ok(position) => {
                joining.position = Some(position);
                state.settle_joining();
                if state.joining.contains_key(user_id) {
                    // What announces it has to come within a tick or two.
                    cluster.unsettled.insert(Arc::clone(channel));
                }
            }
            Err(TooMany { most }) => self.reject(channel, user_id, most, effects),
        }
    }

    /// The engine found no room for a user who had been let in already, since the node had not joined: such users are members all the same.
    fn join_again(&mut self, channel: &Arc<str>, user_id: &Arc<str>, effects: &mut Effects<C>) {
        let Some(here) = self.channels.roster(channel).filter(|here| here.users().any(|it| it == user_id)) else {
            return;
        };
        let member = PresenceMember { user_id: Arc::clone(user_id), user_info: here.user_info(user_id) };
        let Some(cluster) = &mut self.cluster else { return };
        let number = cluster.next_number();
        effects.push(Effect::Engine(Request::Join { channel: Arc::clone(channel), member, number, most: 0 }));
    }

    /// None of the user's connections here has been let in yet.
    fn reject(&mut self, channel: &Arc<str>, user_id: &Arc<str>, most: usize, effects: &mut Effects<C>) {
        let Some(state) = self.shared(channel) else { return };
        state.joining.remove(user_id);
        let is_meant = |waiting: &mut Waiting| matches!(&waiting.subscribe, Subscribe::Presence { member, .. } if member.user_id == *user_id);
        let rejected: Vec<_> = state.waiting.extract_if(.., is_meant).collect();
        for Waiting { shard, request, .. } in rejected {
            self.channels.leave(channel, shard, Some(user_id), false, None);
            let (channel, why) = (Arc::clone(channel), Rejected::Full { most });
            effects.push(Effect::Reply(shard, Reply::Rejected { channel, request, why }));
        }
    }

    /// A cache channel's last event, as it was published or asked for.
    #[expect(clippy::too_many_arguments, reason = "each is another thing of one update")]
    fn kept(
        &mut self,
        app: &App,
        channel: &Arc<str>,
        publication: Option<Publication>,
        position: Position,
        is_asked: bool,
        now: Time,
        effects: &mut Effects<C>,
    ) {
        let Some(state) = self.shared(channel) else { return };
        // An answer may overtake events that are on their way.
        let is_late = is_asked && std::mem::replace(&mut state.is_up_to_date, true);
        if is_late || !position.is_after(state.delivered) {
            return;
        }
        state.delivered = Some(position);
        // Who was here before has heard it, or newer ones: a server that took over may not know the last events, and counts on from before them.
        let is_heard = is_asked && state.heard.is_some_and(|heard| !position.is_after(Some(heard)));
        if is_heard && (state.is_ahead || state.heard == Some(position)) {
            return;
        }
        let is_ahead = std::mem::take(&mut state.is_ahead);
        let Some(publication) = publication else { return self.channels.forget(channel) };
        self.channels.keep(&publication, &app.snapshot().limits, now);
        // One that was asked for goes to those who were here before, unless they have heard newer ones.
        if !(is_asked && (is_ahead || is_heard)) {
            self.deliver(&publication, effects);
        }
    }

    /// Whether what is published to a cache channel while the engine is away is to be kept: only where somebody hears what comes next.
    pub(super) fn goes_ahead(&mut self, channel: &str) -> bool {
        let Some(state) = self.shared(channel) else { return self.cluster.is_none() };
        state.is_ahead = true;
        true
    }

    /// A user's first connection on this node has signed in, or its last one has ended.
    pub(super) fn online_here(&mut self, user_id: &Arc<str>, is_online: bool, effects: &mut Effects<C>) {
        let Some(cluster) = &self.cluster else { return self.tell_status(user_id, is_online, effects) };
        let is_away = cluster.standing == Standing::Away;
        let sent = Arc::clone(user_id);
        let request = if is_online { Request::SignIn { user_id: sent } } else { Request::SignOut { user_id: sent } };
        effects.push(Effect::Engine(request));
        if is_away {
            self.status(user_id, is_online, effects);
        }
    }

    /// A connection watches these users.
    pub(super) fn watch(
        &mut self,
        user_ids: &Arc<[Arc<str>]>,
        connection: C,
        shard: ShardIndex,
        effects: &mut Effects<C>,
    ) {
        self.users.watch(user_ids, shard);
        if self.cluster.as_ref().is_some_and(Cluster::is_joined) {
            return self.ask_online(Arc::clone(user_ids), Some((shard, connection)), effects);
        }
        let (online, offline) = self.known_online(user_ids, effects);
        effects.push(Effect::Reply(shard, Reply::Watched { connection, online, offline }));
    }

    fn ask_online(&mut self, user_ids: Arc<[Arc<str>]>, by: Option<(ShardIndex, C)>, effects: &mut Effects<C>) {
        let Some(cluster) = &mut self.cluster else { return };
        let number = cluster.next_number();
        cluster.asked.insert(number, Asked { user_ids: Arc::clone(&user_ids), by, heard: HashMap::new() });
        effects.push(Effect::Engine(Request::Online { user_ids, number }));
    }

    /// Who of these users is online and who is not, as far as this node knows.
    fn known_online(&mut self, user_ids: &[Arc<str>], effects: &mut Effects<C>) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let (here, elsewhere) = self.users.online(user_ids);
        let Some(cluster) = &mut self.cluster else { return (here, elsewhere) };
        let (mut online, offline): (Vec<_>, Vec<_>) = elsewhere
            .into_iter()
            .partition(|user_id| cluster.statuses.get(user_id).is_some_and(|is_online| *is_online));
        online.extend(here);
        self.learn(&online, &offline, effects);
        (online, offline)
    }

    /// `shard` stops watching this user.
    pub(super) fn unwatch(&mut self, user_id: &Arc<str>, shard: ShardIndex) {
        self.users.unwatch(user_id, shard);
        if let Some(cluster) = self.cluster.as_mut().filter(|_| self.users.watching(user_id).len() == 0) {
            cluster.statuses.remove(user_id);
            give_back(&mut cluster.statuses);
        }
    }

    /// A user who may be watched here has come online or gone offline.
    fn status(&mut self, user_id: &Arc<str>, is_online: bool, effects: &mut Effects<C>) {
        if self.users.watching(user_id).len() == 0 {
            return;
        }
        let Some(cluster) = &mut self.cluster else { return };
        for asked in cluster.asked.values_mut() {
            asked.heard.insert(Arc::clone(user_id), is_online);
        }
        if cluster.statuses.insert(Arc::clone(user_id), is_online) != Some(is_online) {
            self.tell_status(user_id, is_online, effects);
        }
    }

    /// The engine has said who of some users is online.
    fn online(&mut self, number: u32, online: &[Arc<str>], effects: &mut Effects<C>) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(Asked { user_ids, by, heard }) = cluster.asked.remove(&number) else { return };
        give_back(&mut cluster.asked);
        let online: HashSet<&Arc<str>> = online.iter().collect();
        let (online, offline): (Vec<_>, Vec<_>) = user_ids
            .iter()
            .cloned()
            .partition(|user_id| heard.get(user_id).copied().unwrap_or_else(|| online.contains(user_id)));
        self.learn(&online, &offline, effects);
        if let Some((shard, connection)) = by {
            effects.push(Effect::Reply(shard, Reply::Watched { connection, online, offline }));
        }
    }

    /// Those who watch these users hear of what they have been told otherwise.
    fn learn(&mut self, online: &[Arc<str>], offline: &[Arc<str>], effects: &mut Effects<C>) {
        let known = online.iter().map(|user_id| (user_id, true)).chain(offline.iter().map(|user_id| (user_id, false)));
        for (user_id, is_online) in known.filter(|(user_id, _)| self.users.watching(user_id).len() > 0) {
            let Some(cluster) = &mut self.cluster else { return };
            let before = cluster.statuses.insert(Arc::clone(user_id), is_online);
            if before.is_some_and(|before| before != is_online) {
                self.tell_status(user_id, is_online, effects);
            }
        }
    }

    /// The engine decides from here on, or cannot.
    pub(in crate::hub) fn stand(&mut self, standing: Standing, now: Time, effects: &mut Effects<C>) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.standing != standing) else { return };
        cluster.standing = standing;
        cluster.unsettled.clear();
        let channels: Vec<Arc<str>> = cluster.channels.keys().cloned().collect();
        match standing {
            Standing::Joined => self.come_back(&channels, now, effects),
            Standing::Away => self.go_alone(&channels, now, effects),
            Standing::Starting => {}
        }
    }

    /// All that was wanted is subscribed: what has happened meanwhile is asked for.
    fn come_back(&mut self, channels: &[Arc<str>], now: Time, effects: &mut Effects<C>) {
        for channel in channels {
            // Those who came before this are in the list that is asked for.
            if let Some(state) = self.shared(channel) {
                state.joining = HashMap::new();
            }
            self.subscribed(channel, effects);
            // Since the start some may wait for nothing else.
            self.welcome(channel, now, effects);
        }
        let watched: Vec<_> = self.users.watched().cloned().collect();
        for user_ids in watched.chunks(MOST_ASKED) {
            self.ask_online(user_ids.into(), None, effects);
        }
    }

    /// Nobody waits for the engine any more.
    fn go_alone(&mut self, channels: &[Arc<str>], now: Time, effects: &mut Effects<C>) {
        for channel in channels {
            let here = self.channels.roster(channel);
            let member = |roster: &Roster, user_id: &Arc<str>| PresenceMember {
                user_id: Arc::clone(user_id),
                user_info: roster.user_info(user_id),
            };
            let here: Vec<_> =
                here.into_iter().flat_map(|here| here.users().map(|user_id| member(here, user_id))).collect();
            let Some(state) = self.shared(channel) else { continue };
            state.joining = HashMap::new();
            state.heard = state.delivered.take().or(state.heard);
            if let Some(view) = &mut state.view {
                view.lose_engine();
                let added: Vec<_> = here.into_iter().filter(|member| view.add(member.clone())).collect();
                for member in added {
                    self.announce_added(channel, &member, effects);
                }
            }
            self.welcome(channel, now, effects);
        }
        let (online, _) = self.users.online(&self.users.watched().cloned().collect::<Vec<_>>());
        self.learn(&online, &[], effects);
        let Some(cluster) = &mut self.cluster else { return };
        for Asked { user_ids, by, .. } in std::mem::take(&mut cluster.asked).into_values() {
            let Some((shard, connection)) = by else { continue };
            let (online, offline) = self.known_online(&user_ids, effects);
            effects.push(Effect::Reply(shard, Reply::Watched { connection, online, offline }));
        }
    }

    /// Asks again for members where that is due.
    pub(super) fn ask_again(&mut self, effects: &mut Effects<C>) {
        let Some(cluster) = &mut self.cluster else { return };
        for channel in std::mem::take(&mut cluster.unsettled) {
            self.ask_members(&channel, effects);
        }
    }

    fn shared(&mut self, channel: &str) -> Option<&mut Shared> {
        self.cluster.as_mut()?.channels.get_mut(channel)
    }

    fn view(&mut self, channel: &str) -> Option<&mut View> {
        self.shared(channel)?.view.as_mut()
    }
}

/// Users of whom one request asks whether they are online.
const MOST_ASKED: usize = 500;
