//! The connections of a shard: what they are subscribed to, and what they wait for.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::command::{Command, PresenceMember, Rejected, Reply, RequestId, Subscribe, Subscribed};
use super::effects::{Effect, Effects, Tell, Token};
use super::subscriptions::{Joined, Left, Subscriptions};
use crate::apps::App;
use crate::pusher::channel::Kind;

/// The connections of one app on a shard.
#[derive(Debug)]
pub(crate) struct Members<C> {
    app: Arc<App>,
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
    /// It has unsubscribed meanwhile, or has ended.
    has_left: bool,
    /// Released once it has left the owner, too.
    token: Option<Token>,
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
    pub(super) fn new(app: Arc<App>) -> Self {
        Self {
            app,
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
        let waiting = Waiting { connection, request, intent, has_left: false, token: None };
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
            self.take_waiting(channel, request, effects).into_iter().partition(|waiting| waiting.has_left);
        // First those who stay, so that nobody is taken for the last one here who is not.
        for Waiting { connection, intent, .. } in stay {
            self.entered(connection, channel, intent, subscribed.clone(), effects);
        }
        for Waiting { intent, token, .. } in left {
            let user_id = match intent {
                Intent::Subscription { user_id } => user_id,
                Intent::UserEvents { .. } => None,
            };
            self.leave_owner(channel, user_id, effects);
            if let Some(token) = token {
                effects.push(Effect::Done(token));
            }
        }
    }

    /// There is nothing to undo for any of them.
    fn rejected(&mut self, channel: &Arc<str>, request: RequestId, why: Rejected, effects: &mut Effects<C>) {
        let waiting = self.take_waiting(channel, request, effects);
        for Waiting { connection, .. } in waiting.iter().filter(|waiting| !waiting.has_left) {
            effects.tell(*connection, Tell::Rejected { channel: Arc::clone(channel), why });
        }
        // Another one may have left meanwhile, and have taken this one for a reason to stay.
        if !waiting.is_empty() {
            self.leave_owner(channel, None, effects);
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

    /// A connection unsubscribes, or has ended; `user_id` is the user that it was in a presence channel. Says whether it was subscribed or
    /// waited. The owner hears of one that waits once it has answered.
    pub(crate) fn leave(
        &mut self,
        connection: C,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        has_ended: bool,
        effects: &mut Effects<C>,
    ) -> bool {
        let waiting = self.waiting.get_mut(channel).into_iter().flatten();
        let mut waited = false;
        for waiting in waiting.filter(|waiting| waiting.connection == connection && !waiting.has_left) {
            // What is sent to its user goes on coming until it ends.
            if has_ended || matches!(waiting.intent, Intent::Subscription { .. }) {
                (waiting.has_left, waited) = (true, true);
            }
        }
        let left = self.subscribed.leave(channel, connection);
        if left == Left::Absent {
            return waited;
        }
        self.leave_owner(channel, user_id, effects);
        if left == Left::Others {
            self.count(channel, effects);
        }
        true
    }

    /// Tells the owner of a channel that a connection of this user, which it had let in, has left; or that nobody here is left, if so. While
    /// anybody waits for the owner, somebody is.
    fn leave_owner(&mut self, channel: &Arc<str>, user_id: Option<Arc<str>>, effects: &mut Effects<C>) {
        let is_last = self.subscribed.members(channel).len() == 0 && !self.waiting.contains_key(channel);
        if user_id.is_none() && !is_last {
            return;
        }
        if is_last {
            self.uncounted.remove(channel);
        }
        // It may overtake a `Subscribe` that is held back: the last one here leaves only when none about this channel is open.
        effects.command(Command::Unsubscribe { channel: Arc::clone(channel), user_id, is_last });
    }

    /// A connection has ended, which has left the channels in which it is to be told apart, as [`leave`](Self::leave) has it.
    pub(crate) fn leave_all(&mut self, connection: C, effects: &mut Effects<C>) {
        if self.app.snapshot().config.features.subscription_count {
            let channels: Vec<Arc<str>> = self.subscribed.channels_of(connection).map(Arc::clone).collect();
            for channel in channels {
                self.leave(connection, &channel, None, true, effects);
            }
        }
        let mut vacated = Vec::new();
        self.subscribed.leave_all(connection, |channel| vacated.push(channel));
        for channel in vacated {
            self.leave_owner(&channel, None, effects);
        }
    }

    /// Says how many are subscribed to a channel here. Its owner learns of nobody by an [`Command::Unsubscribe`].
    fn count(&self, channel: &Arc<str>, effects: &mut Effects<C>) {
        if !self.app.snapshot().config.features.subscription_count || !Kind::of(channel).is_counted() {
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
    pub(crate) fn sign_out(&mut self, connection: C, user_id: &Arc<str>, is_shown: bool, effects: &mut Effects<C>) {
        self.signed_in.leave(user_id, connection);
        self.watching.leave_all(connection, |user_id| effects.command(Command::Unwatch { user_id }));
        if is_shown {
            effects.command(Command::SignOut { user_id: Arc::clone(user_id) });
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
                && !waiting.has_left
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
