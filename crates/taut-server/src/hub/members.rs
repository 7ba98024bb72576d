//! The connections of a shard: what they are subscribed to, and what they wait for.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::command::{Command, PresenceMember, Rejected, Reply, RequestId, Subscribe, Subscribed};
use super::effects::{Effect, Effects, Tell};
use super::receipt::Token;
use super::subscriptions::{Joined, Left, Subscriptions};
use crate::apps::App;
use crate::pusher::channel::Kind;

/// The connections of one app on a shard.
#[derive(Debug)]
pub(crate) struct Members<C> {
    app: Arc<App>,
    in_cluster: bool,
    /// The connections that have been told that they are subscribed, and get what is published.
    subscribed: Subscriptions<C>,
    /// The connections that wait for a channel's owner.
    waiting: HashMap<Arc<str>, Vec<Waiting<C>>>,
    /// How many wait, those included that have left since.
    waiters: usize,
    last_request: u32,
    /// The connections that have signed in, by user.
    signed_in: Subscriptions<C>,
    /// The connections that watch a user.
    watching: Subscriptions<C>,
    /// Channels whose owners have still to hear how many are subscribed here.
    uncounted: HashSet<Arc<str>>,
}

/// A connection that waits for the owner of a channel.
///
/// It stays on the list until the reply has come, even if it leaves before: only the reply tells whether there is something to undo at
/// the owner.
#[derive(Debug)]
struct Waiting<C> {
    connection: C,
    request: RequestId,
    intent: Intent,
    /// It has left meanwhile.
    left: Option<Cause>,
    /// Released once it has left the owner, too.
    token: Option<Token>,
}

/// Why a connection leaves a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its client has unsubscribed.
    Unsubscribed,
    /// It was lost, or was closed: its user may be back in a moment.
    Lost,
    /// The server has closed it for good, and its client does not come back by itself.
    Dismissed,
}

/// What a connection subscribes for.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    /// Its client asked for it; in a presence channel as this user.
    Subscription { user_id: Option<Arc<str>> },
    /// It gets what is sent to its user, by the user's own channel.
    UserEvents {
        /// What it signed in with, and is told once those events come; `None` if it was signed in before it connected.
        user_data: Option<Box<str>>,
    },
}

impl<C: Copy + Eq + Hash> Members<C> {
    pub(super) fn new(app: Arc<App>, in_cluster: bool) -> Self {
        Self {
            app,
            in_cluster,
            subscribed: Subscriptions::new(),
            waiting: HashMap::new(),
            waiters: 0,
            last_request: 0,
            signed_in: Subscriptions::new(),
            watching: Subscriptions::new(),
            uncounted: HashSet::new(),
        }
    }

    /// A client subscribes: as this user, to a presence channel. What it may do has been checked.
    pub(crate) fn subscribe(
        &mut self,
        connection: C,
        name: &str,
        member: Option<PresenceMember>,
        last_event: bool,
        effects: &mut Effects<C>,
    ) {
        let is_member = self.subscribed.is_member(name, connection);
        let user_id = member.as_ref().map(|member| Arc::clone(&member.user_id)).filter(|_| !is_member);
        let subscribe = match member {
            Some(_) if is_member => Subscribe::Members { last_event },
            Some(member) => Subscribe::Presence { member, last_event },
            None if last_event => Subscribe::LastEvent,
            None => Subscribe::Events,
        };
        self.enter(connection, name, subscribe, Intent::Subscription { user_id }, effects);
    }

    /// A connection enters a channel: at once, if its owner need not be asked.
    pub(crate) fn enter(
        &mut self,
        connection: C,
        name: &str,
        subscribe: Subscribe,
        intent: Intent,
        effects: &mut Effects<C>,
    ) {
        let subscribed = self.subscribed.name(name).map(Arc::clone);
        let asked = self.waiting.get_key_value(name);
        let asked = asked.and_then(|(name, others)| Some((Arc::clone(name), others.last()?.request)));
        match (subscribed, asked) {
            (Some(channel), _) if !subscribe.needs_owner() => {
                self.entered(connection, &channel, intent, Subscribed::default(), effects);
            }
            (None, Some((channel, request))) if !subscribe.needs_owner() => {
                self.wait(connection, channel, request, intent);
            }
            (subscribed, asked) => {
                let channel = subscribed.or_else(|| asked.map(|(channel, _)| channel)).unwrap_or_else(|| name.into());
                let request = self.next_request(&subscribe);
                self.wait(connection, Arc::clone(&channel), request, intent);
                effects.command(Command::Subscribe { channel, request, subscribe });
            }
        }
    }

    fn next_request(&mut self, subscribe: &Subscribe) -> RequestId {
        self.last_request = self.last_request.wrapping_add(1);
        let weight = match subscribe {
            Subscribe::Events => 1,
            Subscribe::LastEvent => LAST_EVENT,
            Subscribe::Presence { .. } | Subscribe::Members { .. } => MEMBERS,
        };
        RequestId { number: self.last_request, weight }
    }

    fn wait(&mut self, connection: C, channel: Arc<str>, request: RequestId, intent: Intent) {
        self.waiters += 1;
        let waiting = Waiting { connection, request, intent, left: None, token: None };
        self.waiting.entry(channel).or_default().push(waiting);
    }

    /// A channel's owner, or the users' owner, has answered.
    pub(crate) fn reply(&mut self, reply: Reply<C>, effects: &mut Effects<C>) {
        match reply {
            Reply::Subscribed { channel, request, subscribed, .. } => {
                self.let_in(&channel, request, &subscribed, effects);
            }
            Reply::Rejected { channel, request, why } => self.rejected(&channel, request, why, effects),
            Reply::Watched { connection, online, offline } => {
                effects.tell(connection, Tell::Watchlist { online, offline });
            }
        }
    }

    /// Those who have left meanwhile leave the owner now.
    fn let_in(&mut self, channel: &Arc<str>, request: RequestId, subscribed: &Subscribed, effects: &mut Effects<C>) {
        let (left, stay): (Vec<_>, Vec<_>) =
            self.take_waiting(channel, request, effects).into_iter().partition(|waiting| waiting.left.is_some());
        // First those who stay, so that nobody is taken for the last one here who is not.
        for Waiting { connection, intent, .. } in stay {
            self.entered(connection, channel, intent, subscribed.clone(), effects);
        }
        for Waiting { intent, left, token, .. } in left {
            let user_id = match intent {
                Intent::Subscription { user_id } => user_id,
                Intent::UserEvents { .. } => None,
            };
            self.leave_owner(channel, user_id, left == Some(Cause::Lost), effects);
            if let Some(token) = token {
                effects.push(Effect::Done(token));
            }
        }
    }

    /// There is nothing to undo for any of them.
    fn rejected(&mut self, channel: &Arc<str>, request: RequestId, why: Rejected, effects: &mut Effects<C>) {
        let waiting = self.take_waiting(channel, request, effects);
        for Waiting { connection, .. } in waiting.iter().filter(|waiting| waiting.left.is_none()) {
            effects.tell(*connection, Tell::Rejected { channel: Arc::clone(channel), why });
        }
        // Another one may have left meanwhile, and have taken this one for a reason to stay.
        if !waiting.is_empty() {
            self.leave_owner(channel, None, false, effects);
        }
    }

    fn take_waiting(&mut self, channel: &Arc<str>, request: RequestId, effects: &mut Effects<C>) -> Vec<Waiting<C>> {
        let Some(waiting) = self.waiting.get_mut(channel) else { return Vec::new() };
        let (taken, rest) = std::mem::take(waiting).into_iter().partition::<Vec<_>, _>(|one| one.request == request);
        *waiting = rest;
        if waiting.is_empty() {
            self.waiting.remove(channel);
            if self.waiting.is_empty() {
                self.waiting.shrink_to_fit();
            }
        }
        self.waiters -= taken.len();
        for Waiting { connection, .. } in &taken {
            effects.tell(*connection, Tell::Answered { channel: Arc::clone(channel) });
        }
        taken
    }

    /// From here on the connection gets what is published.
    fn entered(
        &mut self,
        connection: C,
        channel: &Arc<str>,
        intent: Intent,
        subscribed: Subscribed,
        effects: &mut Effects<C>,
    ) {
        let is_new = self.subscribed.join(Arc::clone(channel), connection) != Joined::Already;
        match intent {
            Intent::Subscription { user_id } => {
                let channel = Arc::clone(channel);
                effects.tell(connection, Tell::Subscribed { channel, user_id, subscribed, is_new });
            }
            Intent::UserEvents { user_data } => {
                if let Some(user_data) = user_data {
                    effects.tell(connection, Tell::SignedIn { user_data });
                }
            }
        }
        if is_new {
            self.count(channel, effects);
        }
    }

    /// A connection leaves a channel; `user_id` is the user that it was in a presence channel. Says whether it was subscribed or
    /// waited. The owner hears of one that waits once it has answered.
    pub(crate) fn leave(
        &mut self,
        connection: C,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        cause: Cause,
        effects: &mut Effects<C>,
    ) -> bool {
        let waiting = self.waiting.get_mut(channel).into_iter().flatten();
        let mut waited = false;
        for waiting in waiting.filter(|waiting| waiting.connection == connection && waiting.left.is_none()) {
            // What is sent to its user goes on coming until it ends.
            if cause != Cause::Unsubscribed || matches!(waiting.intent, Intent::Subscription { .. }) {
                (waiting.left, waited) = (Some(cause), true);
            }
        }
        let left = self.subscribed.leave(channel, connection);
        if left == Left::Absent {
            return waited;
        }
        self.leave_owner(channel, user_id, cause == Cause::Lost, effects);
        if left == Left::Others {
            self.count(channel, effects);
        }
        true
    }

    /// Tells the owner of a channel that a connection of this user, which it had let in, has left; or that nobody here is left, if so. While
    /// anybody waits for the owner, somebody is.
    fn leave_owner(
        &mut self,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        may_return: bool,
        effects: &mut Effects<C>,
    ) {
        let is_last = self.subscribed.members(channel).len() == 0 && !self.waiting.contains_key(channel);
        if user_id.is_none() && !is_last {
            return;
        }
        if is_last {
            self.uncounted.remove(channel);
        }
        // It may overtake a `Subscribe` that is held back: the last one here leaves only when none about this channel is open.
        effects.command(Command::Unsubscribe { channel: Arc::clone(channel), user_id, is_last, may_return });
    }

    /// A connection has ended, which has left the channels in which it is to be told apart, as [`leave`](Self::leave) has it.
    pub(crate) fn leave_all(&mut self, connection: C, effects: &mut Effects<C>) {
        for channel in self.counted_channels(connection) {
            self.leave(connection, &channel, None, Cause::Lost, effects);
        }
        let mut vacated = Vec::new();
        self.subscribed.leave_all(connection, |channel| vacated.push(channel));
        for channel in vacated {
            self.leave_owner(&channel, None, false, effects);
        }
    }

    /// The channels of a connection whose owners know how many are subscribed.
    fn counted_channels(&self, connection: C) -> Vec<Arc<str>> {
        let features = &self.app.snapshot().config.features;
        if !features.tells_subscription_count() {
            return Vec::new();
        }
        let is_counted = |channel: &&Arc<str>| features.counts(Kind::of(channel), self.in_cluster);
        self.subscribed.channels_of(connection).filter(is_counted).map(Arc::clone).collect()
    }

    /// Says how many are subscribed to a channel here. Its owner learns of nobody by an [`Command::Unsubscribe`].
    fn count(&self, channel: &Arc<str>, effects: &mut Effects<C>) {
        if !self.app.snapshot().config.features.counts(Kind::of(channel), self.in_cluster) {
            return;
        }
        let subscribers = self.subscribed.members(channel).len();
        if subscribers > 0 {
            effects.command(Command::Count { channel: Arc::clone(channel), subscribers });
        }
    }

    /// A count found no room in a mailbox. It is sent again later.
    pub(crate) fn count_later(&mut self, channel: Arc<str>) {
        self.uncounted.insert(channel);
    }

    pub(super) fn is_due(&self) -> bool {
        !self.uncounted.is_empty()
    }

    pub(super) fn tick(&mut self, effects: &mut Effects<C>) {
        for channel in std::mem::take(&mut self.uncounted) {
            self.count(&channel, effects);
        }
    }

    /// A connection acts as this user from here on. Those who watch the user hear of it if it `is_shown`.
    pub(crate) fn sign_in(&mut self, connection: C, user_id: &Arc<str>, is_shown: bool, effects: &mut Effects<C>) {
        self.signed_in.join(Arc::clone(user_id), connection);
        if is_shown {
            effects.command(Command::SignIn { user_id: Arc::clone(user_id) });
        }
    }

    /// A connection that had signed in has ended.
    pub(crate) fn sign_out(
        &mut self,
        connection: C,
        user_id: &Arc<str>,
        is_shown: bool,
        may_return: bool,
        effects: &mut Effects<C>,
    ) {
        self.signed_in.leave(user_id, connection);
        self.watching.leave_all(connection, |user_id| effects.command(Command::Unwatch { user_id }));
        if is_shown {
            effects.command(Command::SignOut { user_id: Arc::clone(user_id), may_return });
        }
    }

    /// A connection watches these users, and hears how it stands with them.
    pub(crate) fn watch(&mut self, connection: C, user_ids: impl Iterator<Item = Arc<str>>, effects: &mut Effects<C>) {
        // From here on, so that nothing is missed: to hear twice that somebody has come does no harm.
        let is_new = |user_id: &Arc<str>| self.watching.join(Arc::clone(user_id), connection) != Joined::Already;
        let user_ids = user_ids.filter(is_new).collect();
        effects.command(Command::Watch { user_ids, connection });
    }

    /// A user who is watched here has come online or gone offline.
    pub(crate) fn status(&mut self, user_id: &Arc<str>, is_online: bool, effects: &mut Effects<C>) {
        for connection in self.watching.members(user_id) {
            let user_ids = vec![Arc::clone(user_id)];
            let (online, offline) = if is_online { (user_ids, Vec::new()) } else { (Vec::new(), user_ids) };
            effects.tell(connection, Tell::Watchlist { online, offline });
        }
    }

    /// Releases a clone of the token once this connection, which has left, has left the owner of this channel, too.
    pub(crate) fn report_left(&mut self, channel: &str, connection: C, token: &Token) {
        let waiting = self.waiting.get_mut(channel).into_iter().flatten();
        for waiting in waiting.filter(|waiting| waiting.connection == connection) {
            waiting.token = Some(Arc::clone(token));
        }
    }

    /// Who is subscribed to what.
    pub(crate) fn subscribed(&self) -> &Subscriptions<C> {
        &self.subscribed
    }

    /// The name of a channel that anybody here is subscribed to or waits for.
    pub(crate) fn name(&self, name: &str) -> Option<&Arc<str>> {
        self.subscribed.name(name).or_else(|| self.waiting.get_key_value(name).map(|(name, _)| name))
    }

    /// Whether a client has subscribed to the channel, and waits for the answer.
    pub(crate) fn is_waiting(&self, channel: &str, connection: C) -> bool {
        let mut waiting = self.waiting.get(channel).into_iter().flatten();
        waiting.any(|waiting| {
            waiting.connection == connection
                && waiting.left.is_none()
                && matches!(waiting.intent, Intent::Subscription { .. })
        })
    }

    /// How many wait for owners, those included that have left since.
    pub(crate) fn waiters(&self) -> usize {
        self.waiters
    }

    /// The connections that have signed in as this user.
    pub(crate) fn signed_in(&self, user_id: &str) -> impl ExactSizeIterator<Item = C> {
        self.signed_in.members(user_id)
    }

    #[cfg(test)]
    pub(crate) fn set_waiters(&mut self, waiters: usize) {
        self.waiters = waiters;
    }

    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.subscribed.is_empty()
            && self.waiting.is_empty()
            && self.waiters == 0
            && self.signed_in.is_empty()
            && self.watching.is_empty()
            && self.uncounted.is_empty()
    }
}

/// The weight of a list of members, and of a last event, if that of a reply without either is 1.
pub(crate) const MEMBERS: u32 = 64;
const LAST_EVENT: u32 = 4;

#[cfg(test)]
mod tests {
    use super::super::command::LastEvent;
    use super::*;
    use crate::app::{AppConfig, Features, Limits};
    use crate::apps::Apps;

    fn members() -> Members<u32> {
        members_of(Features::default())
    }

    fn members_of(features: Features) -> Members<u32> {
        members_where(features, false)
    }

    fn members_where(features: Features, in_cluster: bool) -> Members<u32> {
        let config = AppConfig { features, ..AppConfig::parse("1:key:secret").expect("an app") };
        Members::new(Arc::clone(&Apps::new([config], &Limits::default()).expect("one app").all()[0]), in_cluster)
    }

    fn drained(effects: &mut Effects<u32>) -> Vec<Effect<u32>> {
        std::iter::from_fn(|| effects.pop()).collect()
    }

    fn member() -> PresenceMember {
        PresenceMember { user_id: "ann".into(), user_info: None }
    }

    /// The one command among the effects.
    fn command(effects: &mut Effects<u32>) -> Command<u32> {
        let mut commands = drained(effects).into_iter().filter_map(|effect| match effect {
            Effect::Command(command) => Some(command),
            _ => None,
        });
        let command = commands.next().expect("a command");
        assert_eq!(commands.count(), 0);
        command
    }

    fn request(effects: &mut Effects<u32>) -> (RequestId, Subscribe) {
        let Command::Subscribe { request, subscribe, .. } = command(effects) else { panic!("not a subscription") };
        (request, subscribe)
    }

    fn subscribed(channel: &str, request: RequestId) -> Reply<u32> {
        Reply::Subscribed { channel: channel.into(), request, user_id: None, subscribed: Subscribed::default() }
    }

    #[test]
    fn a_request_weighs_what_its_answer_may_and_each_has_its_own_number() {
        let (mut members, mut effects) = (members(), Effects::new());
        let mut requests = Vec::new();
        for (channel, member, last_event) in [
            ("a", None, false),
            ("cache-a", None, true),
            ("presence-a", Some(member()), false),
            ("presence-a", Some(member()), true),
        ] {
            members.subscribe(requests.len() as u32, channel, member, last_event, &mut effects);
            requests.push(request(&mut effects).0);
        }
        let weights: Vec<u32> = requests.iter().map(|request| request.weight).collect();
        assert_eq!(weights, [1, LAST_EVENT, MEMBERS, MEMBERS]);
        let numbers: HashSet<u32> = requests.iter().map(|request| request.number).collect();
        assert_eq!((numbers.len(), members.waiters()), (4, 4));
    }

    #[test]
    fn who_is_in_a_presence_channel_already_asks_for_its_members_alone() {
        let (mut members, mut effects) = (members(), Effects::new());
        members.subscribe(1, "presence-a", Some(member()), false, &mut effects);
        let (request_id, subscribe) = request(&mut effects);
        assert!(matches!(subscribe, Subscribe::Presence { .. }));
        members.reply(subscribed("presence-a", request_id), &mut effects);
        drained(&mut effects);
        members.subscribe(1, "presence-a", Some(member()), false, &mut effects);
        let (request_id, subscribe) = request(&mut effects);
        assert!(matches!(subscribe, Subscribe::Members { last_event: false }));
        assert_eq!(request_id.weight, MEMBERS);
    }

    #[test]
    fn the_owner_is_asked_once_for_all_who_want_the_same_of_it() {
        let (mut members, mut effects) = (members(), Effects::new());
        members.subscribe(1, "a", None, false, &mut effects);
        let (request_id, _) = request(&mut effects);
        members.subscribe(2, "a", None, false, &mut effects);
        assert!(drained(&mut effects).is_empty(), "it waits for the same answer");
        assert!(members.is_waiting("a", 1) && members.is_waiting("a", 2) && !members.is_waiting("a", 3));
        members.reply(subscribed("a", request_id), &mut effects);
        let told = |effect: &Effect<u32>| matches!(effect, Effect::Tell(_, Tell::Subscribed { is_new: true, .. }));
        assert_eq!(drained(&mut effects).iter().filter(|effect| told(effect)).count(), 2);
        members.subscribe(3, "a", None, false, &mut effects);
        assert_eq!(drained(&mut effects).iter().filter(|effect| told(effect)).count(), 1, "at once");
        assert_eq!(members.waiters(), 0);
    }

    #[test]
    fn a_token_is_released_once_who_left_too_early_has_left_the_owner_too() {
        let (mut members, mut effects) = (members(), Effects::new());
        members.subscribe(1, "presence-a", Some(member()), false, &mut effects);
        members.subscribe(2, "presence-a", Some(member()), false, &mut effects);
        let requests: Vec<RequestId> = drained(&mut effects)
            .into_iter()
            .map(|effect| match effect {
                Effect::Command(Command::Subscribe { request, .. }) => request,
                other => panic!("{other:?}"),
            })
            .collect();
        let token: Token = Arc::new(());
        assert!(members.leave(1, &"presence-a".into(), None, Cause::Lost, &mut effects));
        members.report_left("presence-a", 1, &token);
        assert_eq!(Arc::strong_count(&token), 2, "only for this connection");
        members.reply(subscribed("presence-a", requests[0]), &mut effects);
        let effects_of_reply = drained(&mut effects);
        let [Effect::Tell(1, Tell::Answered { .. }), Effect::Command(left), Effect::Done(done)] = &effects_of_reply[..]
        else {
            panic!("{effects_of_reply:?}");
        };
        let Command::Unsubscribe { user_id: Some(user_id), is_last: false, .. } = left else { panic!("{left:?}") };
        assert!(**user_id == *"ann" && Arc::ptr_eq(done, &token));
        drop(effects_of_reply);
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn who_is_lost_before_the_owner_has_answered_may_be_back_and_who_has_unsubscribed_may_not() {
        for (cause, expected) in [(Cause::Lost, true), (Cause::Unsubscribed, false), (Cause::Dismissed, false)] {
            let (mut members, mut effects) = (members(), Effects::new());
            members.subscribe(1, "presence-a", Some(member()), false, &mut effects);
            let (request_id, _) = request(&mut effects);
            members.leave(1, &"presence-a".into(), None, cause, &mut effects);
            members.reply(subscribed("presence-a", request_id), &mut effects);
            let left = command(&mut effects);
            let Command::Unsubscribe { user_id: Some(_), may_return, .. } = left else { panic!("{left:?}") };
            assert_eq!(may_return, expected, "{cause:?}");
        }
    }

    #[test]
    fn a_token_is_released_also_when_the_owner_lets_nobody_in() {
        let (mut members, mut effects) = (members(), Effects::new());
        members.subscribe(1, "presence-a", Some(member()), false, &mut effects);
        let (request_id, _) = request(&mut effects);
        let token: Token = Arc::new(());
        members.leave(1, &"presence-a".into(), None, Cause::Lost, &mut effects);
        members.report_left("presence-a", 1, &token);
        let why = Rejected::Full { most: 1 };
        members.reply(Reply::Rejected { channel: "presence-a".into(), request: request_id, why }, &mut effects);
        let left = command(&mut effects);
        assert!(matches!(left, Command::Unsubscribe { user_id: None, is_last: true, .. }), "{left:?}");
        assert_eq!(Arc::strong_count(&token), 1);
    }

    const NONE: [usize; 0] = [];

    /// A connection subscribes and is let in; gives the counts that this sends.
    fn let_in(
        members: &mut Members<u32>,
        connection: u32,
        channel: &str,
        member: Option<PresenceMember>,
    ) -> Vec<usize> {
        let mut effects = Effects::new();
        members.subscribe(connection, channel, member, false, &mut effects);
        for effect in drained(&mut effects) {
            let Effect::Command(Command::Subscribe { channel, request, .. }) = effect else { continue };
            members.reply(subscribed(&channel, request), &mut effects);
        }
        counts(&mut effects)
    }

    fn counts(effects: &mut Effects<u32>) -> Vec<usize> {
        let counts = drained(effects).into_iter().filter_map(|effect| match effect {
            Effect::Command(Command::Count { subscribers, .. }) => Some(subscribers),
            _ => None,
        });
        counts.collect()
    }

    #[test]
    fn only_what_an_app_wants_counted_is() {
        let on = || members_of(Features { subscription_count: true, ..Features::default() });
        assert_eq!(let_in(&mut on(), 1, "a", None), [1]);
        assert_eq!(let_in(&mut on(), 1, "presence-a", Some(member())), NONE, "its members are counted");
        assert_eq!(let_in(&mut members(), 1, "a", None), NONE);
    }

    // The other nodes answer backends that ask for the number, of presence channels as well.
    #[test]
    fn a_node_of_a_cluster_counts_all_that_backends_may_ask_for() {
        let asked = Features { subscription_count_in_info: true, ..Features::default() };
        let node = || members_where(asked, true);
        assert_eq!(let_in(&mut node(), 1, "a", None), [1]);
        assert_eq!(let_in(&mut node(), 1, "presence-a", Some(member())), [1]);
        assert_eq!(let_in(&mut node(), 1, "#server-to-user-1", None), NONE, "nobody may ask");
        assert_eq!(let_in(&mut members_where(asked, false), 1, "a", None), NONE, "a shard asks the others");
        assert_eq!(let_in(&mut members_where(Features::default(), true), 1, "a", None), NONE);
    }

    #[test]
    fn who_ends_is_counted_out_in_a_cluster_as_well() {
        let features = Features { subscription_count_in_info: true, ..Features::default() };
        let (mut members, mut effects) = (members_where(features, true), Effects::new());
        for connection in [1, 2] {
            let_in(&mut members, connection, "a", None);
        }
        members.leave_all(1, &mut effects);
        assert_eq!(counts(&mut effects), [1]);
    }

    #[test]
    fn a_count_that_found_no_room_is_sent_again_by_the_next_tick() {
        let mut members = members_of(Features { subscription_count: true, ..Features::default() });
        let (channel, mut effects): (Arc<str>, _) = ("a".into(), Effects::new());
        let_in(&mut members, 1, &channel, None);
        members.count_later(Arc::clone(&channel));
        members.tick(&mut effects);
        assert_eq!(counts(&mut effects), [1]);
        members.tick(&mut effects);
        assert_eq!(counts(&mut effects), NONE, "once");
        // Who has left is not counted: the owner hears of that anyway.
        members.count_later(Arc::clone(&channel));
        members.leave(1, &channel, None, Cause::Unsubscribed, &mut effects);
        assert_eq!(let_in(&mut members, 2, &channel, None), [1]);
        members.tick(&mut effects);
        assert_eq!(counts(&mut effects), NONE);
        members.count_later(Arc::clone(&channel));
        members.subscribe(3, &channel, None, true, &mut effects);
        members.leave(2, &channel, None, Cause::Unsubscribed, &mut effects);
        drained(&mut effects);
        members.tick(&mut effects);
        assert_eq!(counts(&mut effects), NONE, "the third one only waits");
    }

    #[test]
    fn a_shard_that_waits_for_nobody_keeps_no_memory_of_it() {
        let (mut members, mut effects) = (members(), Effects::new());
        for number in 0..1000 {
            members.subscribe(number, &number.to_string(), None, false, &mut effects);
        }
        for effect in drained(&mut effects) {
            let Effect::Command(Command::Subscribe { channel, request, .. }) = effect else { panic!("{effect:?}") };
            members.reply(Reply::Rejected { channel, request, why: Rejected::Busy }, &mut effects);
        }
        assert_eq!((members.waiters(), members.waiting.capacity()), (0, 0));
    }

    #[test]
    fn the_name_of_a_channel_is_kept_once_from_the_first_who_waits_to_the_last_who_leaves() {
        let (mut members, mut effects) = (members(), Effects::new());
        assert_eq!(members.name("a"), None);
        members.subscribe(1, "a", None, false, &mut effects);
        let Command::Subscribe { channel, request, .. } = command(&mut effects) else { panic!("not a subscription") };
        assert!(members.name("a").is_some_and(|name| Arc::ptr_eq(name, &channel)), "while it waits");
        let reply = Subscribed { members: None, last_event: LastEvent::NotKept };
        let channel_of_reply = Arc::clone(&channel);
        members.reply(
            Reply::Subscribed { channel: channel_of_reply, request, user_id: None, subscribed: reply },
            &mut effects,
        );
        assert!(members.name("a").is_some_and(|name| Arc::ptr_eq(name, &channel)), "once it is subscribed");
        assert!(members.leave(1, &channel, None, Cause::Unsubscribed, &mut effects) && members.name("a").is_none());
        assert!(!members.leave(1, &channel, None, Cause::Unsubscribed, &mut effects), "it has left already");
    }

    #[test]
    fn a_user_acts_through_the_connections_that_have_signed_in_and_not_ended() {
        let (mut members, mut effects) = (members(), Effects::new());
        let ann: Arc<str> = "ann".into();
        members.sign_in(1, &ann, true, &mut effects);
        assert!(matches!(command(&mut effects), Command::SignIn { .. }));
        members.sign_in(2, &ann, false, &mut effects);
        assert!(drained(&mut effects).is_empty(), "nobody is to hear of it");
        assert_eq!(members.signed_in("ann").collect::<Vec<_>>(), [1, 2]);
        members.watch(2, std::iter::once("bob".into()), &mut effects);
        assert!(matches!(command(&mut effects), Command::Watch { connection: 2, .. }));
        members.sign_out(2, &ann, false, true, &mut effects);
        assert!(matches!(command(&mut effects), Command::Unwatch { .. }));
        members.sign_out(1, &ann, true, true, &mut effects);
        assert!(matches!(command(&mut effects), Command::SignOut { .. }));
        assert_eq!(members.signed_in("ann").count(), 0);
    }
}
