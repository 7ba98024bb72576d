//! What a shard keeps of the channels, and the users, whose owner it is. It decides; who has to be told is said by what it returns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Prepared, Time};

use crate::app::Limits;
use crate::cache::Cache;
use crate::presence::Roster;
use crate::subscriptions::{Joined, Left, Subscriptions};

/// The channels of one app whose owner a shard is.
#[derive(Debug, Default)]
pub(crate) struct ChannelOwner {
    /// The shards that want a channel, this one among them.
    shards: Subscriptions<usize>,
    rosters: HashMap<Arc<str>, Roster>,
    cache: Cache,
    /// Cache channels in which a subscriber found nothing, until something is published there or the last subscriber leaves.
    missed: HashSet<Arc<str>>,
    counts: HashMap<Arc<str>, Count>,
}

/// What a shard asks for when one of its connections subscribes.
#[derive(Debug)]
pub(crate) enum Subscribe {
    /// To hear of the channel.
    Subscriptions,
    /// The same, and the last event.
    Cached,
    /// The same, for a user who is to be seen there; the last event too if it is a cache channel.
    Presence { member: PresenceMember, cached: bool },
    /// Only to be told once more who is there.
    Members { cached: bool },
}

/// A user on the way into a presence channel.
#[derive(Clone, Debug)]
pub(crate) struct PresenceMember {
    pub(crate) user_id: Arc<str>,
    /// JSON text.
    pub(crate) user_info: Option<Box<str>>,
}

/// What a connection is told as it is let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscribed {
    /// Of a presence channel, who is there; see [`Roster::members`].
    pub(crate) members: Option<Box<str>>,
    pub(crate) last_event: LastEvent,
}

impl Subscribed {
    pub(crate) fn bytes(&self) -> usize {
        // The last event is shared with the cache.
        self.members.as_ref().map_or(0, |members| members.len())
    }
}

/// What a cache channel has for a newcomer.
#[derive(Clone, Debug, Default)]
pub(crate) enum LastEvent {
    /// It is no cache channel.
    #[default]
    NotKept,
    /// There is none.
    Missing,
    Found(Prepared),
}

/// What changed for others when somebody was let in.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Entered {
    /// Nobody was in the channel before.
    pub(crate) occupied: bool,
    /// The user was not in the channel before.
    pub(crate) added: bool,
    /// The first to find nothing in this cache channel.
    pub(crate) missed: bool,
}

/// What changed for others when somebody left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Nobody is in the channel any more.
    pub(crate) vacated: bool,
    /// The user is in the channel no more.
    pub(crate) removed: bool,
    /// The shard wanted the channel, and does not any more.
    pub(crate) shard_left: bool,
}

/// The presence channel has as many users as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) most: usize,
}

impl ChannelOwner {
    /// A connection of `shard` subscribes.
    pub(crate) fn enter(
        &mut self,
        channel: &Arc<str>,
        shard: usize,
        subscribe: &Subscribe,
        limits: &Limits,
        now: Time,
    ) -> Result<(Subscribed, Entered), Full> {
        let mut subscribed = Subscribed::default();
        let mut entered = Entered::default();
        let (Subscribe::Presence { cached, .. } | Subscribe::Members { cached }) = subscribe else {
            entered.occupied = self.shards.join(Arc::clone(channel), shard) == Joined::First;
            if matches!(subscribe, Subscribe::Cached) {
                (subscribed.last_event, entered.missed) = self.last_event(channel, now);
            }
            return Ok((subscribed, entered));
        };
        if let Subscribe::Presence { member, .. } = subscribe {
            let roster = self.rosters.get(channel);
            let (most, count) = (limits.presence_members, roster.map_or(0, Roster::len));
            // A further connection of somebody who is there already makes nothing fuller.
            if count >= most && !roster.is_some_and(|roster| roster.contains(&member.user_id)) {
                return Err(Full { most });
            }
            let roster = self.rosters.entry(Arc::clone(channel)).or_default();
            entered.added = roster.join(&member.user_id, member.user_info.as_deref());
            entered.occupied = self.shards.join(Arc::clone(channel), shard) == Joined::First;
        }
        subscribed.members = self.rosters.get(channel).map(|roster| roster.members().into());
        if *cached {
            (subscribed.last_event, entered.missed) = self.last_event(channel, now);
        }
        Ok((subscribed, entered))
    }

    /// A connection of `shard` leaves: of this user in a presence channel, and the last of its shard if `is_last`.
    pub(crate) fn leave(
        &mut self,
        channel: &Arc<str>,
        shard: usize,
        user_id: Option<&Arc<str>>,
        is_last: bool,
    ) -> Gone {
        let mut gone = Gone::default();
        if let Some((user_id, roster)) = user_id.zip(self.rosters.get_mut(channel)) {
            gone.removed = roster.leave(user_id);
            if roster.is_empty() {
                self.rosters.remove(channel);
                give_back(&mut self.rosters);
            }
        }
        if is_last {
            let left = self.shards.leave(channel, shard);
            (gone.vacated, gone.shard_left) = (left == Left::Last, left != Left::Absent);
        }
        if gone.vacated {
            self.missed.remove(channel);
            if self.missed.is_empty() {
                self.missed.shrink_to_fit();
            }
            self.counts.remove(channel);
            give_back(&mut self.counts);
        }
        gone
    }

    /// Keeps what was published to a cache channel.
    pub(crate) fn keep(&mut self, channel: &Arc<str>, message: &Prepared, limits: &Limits, now: Time) {
        self.missed.remove(channel);
        self.cache.put(channel, message, now, limits.cache_ttl, limits.cache);
    }

    /// What is kept of a cache channel, and for how long.
    pub(crate) fn kept(&self, channel: &str, now: Time) -> Option<(&Prepared, Duration)> {
        self.cache.find(channel, now)
    }

    /// Whether anybody is in the channel.
    pub(crate) fn is_occupied(&self, channel: &str) -> bool {
        self.shards.name(channel).is_some()
    }

    /// The shards that want the channel.
    pub(crate) fn shards(&self, channel: &str) -> impl ExactSizeIterator<Item = usize> {
        self.shards.members(channel)
    }

    /// How many channels are occupied.
    pub(crate) fn channels(&self) -> usize {
        self.shards.channels().len()
    }

    /// Who is in a presence channel.
    pub(crate) fn roster(&self, channel: &str) -> Option<&Roster> {
        self.rosters.get(channel)
    }

    /// All presence channels with somebody in them.
    pub(crate) fn rosters(&self) -> impl Iterator<Item = (&Arc<str>, &Roster)> {
        self.rosters.iter()
    }

    /// `shard` has so many connections in the channel now. Gives the sum if the members are to be told: at most once in a while where they are many.
    pub(crate) fn count(&mut self, channel: &Arc<str>, shard: usize, connections: usize, now: Time) -> Option<usize> {
        if self.shards.members(channel).len() == 0 {
            return None;
        }
        let count = self.counts.entry(Arc::clone(channel)).or_default();
        count.by_shard.retain(|(other, _)| *other != shard);
        if connections > 0 {
            count.by_shard.push((shard, connections));
        }
        count.changed = true;
        count.tell(now)
    }

    /// What is left to be told of how many there are, after a while.
    pub(crate) fn late_counts(&mut self, now: Time) -> Vec<(Arc<str>, usize)> {
        let late = self.counts.iter_mut().filter(|(_, count)| count.changed);
        late.filter_map(|(channel, count)| Some((Arc::clone(channel), count.tell(now)?))).collect()
    }

    /// Forgets what is too old.
    pub(crate) fn sweep(&mut self, now: Time) {
        self.cache.sweep(now);
    }

    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.shards.is_empty() && self.rosters.is_empty() && self.counts.is_empty() && self.missed.is_empty()
    }

    fn last_event(&mut self, channel: &Arc<str>, now: Time) -> (LastEvent, bool) {
        match self.cache.find(channel, now) {
            Some((message, _)) => (LastEvent::Found(message.clone()), false),
            None => (LastEvent::Missing, self.missed.insert(Arc::clone(channel))),
        }
    }
}

/// How many are subscribed to a channel.
#[derive(Debug, Default)]
struct Count {
    by_shard: Vec<(usize, usize)>,
    /// When the members were told last.
    told: Option<Time>,
    changed: bool,
}

impl Count {
    fn tell(&mut self, now: Time) -> Option<usize> {
        let sum: usize = self.by_shard.iter().map(|(_, connections)| connections).sum();
        let is_early = self.told.is_some_and(|told| now.since(told) < COUNT_INTERVAL);
        if sum > MANY && is_early {
            return None;
        }
        self.told = Some(now);
        self.changed = false;
        Some(sum)
    }
}

/// The users of one app who have signed in, and who wants to know: kept by one shard for all.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// How many connections each has.
    online: HashMap<Arc<str>, usize>,
    /// The shards with connections that watch a user.
    watched: Subscriptions<usize>,
}

impl Users {
    /// A connection signs in; whether it is the user's first.
    pub(crate) fn sign_in(&mut self, user_id: &Arc<str>) -> bool {
        let connections = self.online.entry(Arc::clone(user_id)).or_default();
        *connections += 1;
        *connections == 1
    }

    /// A connection that had signed in ends; whether it was the user's last.
    pub(crate) fn sign_out(&mut self, user_id: &Arc<str>) -> bool {
        let Some(connections) = self.online.get_mut(user_id) else { return false };
        *connections -= 1;
        let is_last = *connections == 0;
        if is_last {
            self.online.remove(user_id);
            give_back(&mut self.online);
        }
        is_last
    }

    /// From now on `shard` wants to know of these users; says who of them is online and who is not.
    pub(crate) fn watch(&mut self, user_ids: &[Arc<str>], shard: usize) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        for user_id in user_ids {
            self.watched.join(Arc::clone(user_id), shard);
        }
        user_ids.iter().cloned().partition(|user_id| self.online.contains_key(user_id))
    }

    /// From now on `shard` does not want to know of this user any more.
    pub(crate) fn unwatch(&mut self, user_id: &str, shard: usize) {
        self.watched.leave(user_id, shard);
    }

    /// The shards that want to know of the user.
    pub(crate) fn watching(&self, user_id: &str) -> impl ExactSizeIterator<Item = usize> {
        self.watched.members(user_id)
    }

    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.online.is_empty() && self.watched.is_empty()
    }
}

/// Keeps a table from staying as large as it once was.
fn give_back<Value>(table: &mut HashMap<Arc<str>, Value>) {
    if table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    }
}

/// Subscribers beyond whom the count is told once in a while only.
const MANY: usize = 100;
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(
        owner: &mut ChannelOwner,
        shard: usize,
        user_id: &str,
        most: usize,
    ) -> Result<(Subscribed, Entered), Full> {
        let member = PresenceMember { user_id: user_id.into(), user_info: None };
        let limits = Limits { presence_members: most, ..Limits::default() };
        owner.enter(&"presence-a".into(), shard, &Subscribe::Presence { member, cached: false }, &limits, Time::ZERO)
    }

    fn leave(owner: &mut ChannelOwner, shard: usize, user_id: &str, is_last: bool) -> Gone {
        owner.leave(&"presence-a".into(), shard, Some(&user_id.into()), is_last)
    }

    #[test]
    fn the_first_and_the_last_are_noticed_of_channels_and_of_users() {
        let mut owner = ChannelOwner::default();
        let entered = |visit: Result<(Subscribed, Entered), Full>| visit.expect("room").1;
        assert_eq!(entered(visit(&mut owner, 0, "1", 9)), Entered { occupied: true, added: true, missed: false });
        assert_eq!(entered(visit(&mut owner, 1, "1", 9)), Entered::default());
        assert_eq!(entered(visit(&mut owner, 1, "2", 9)), Entered { added: true, ..Entered::default() });
        assert_eq!(leave(&mut owner, 0, "1", true), Gone { shard_left: true, ..Gone::default() });
        assert_eq!(leave(&mut owner, 1, "1", false), Gone { removed: true, ..Gone::default() });
        assert_eq!(leave(&mut owner, 1, "2", true), Gone { vacated: true, removed: true, shard_left: true });
        assert_eq!(leave(&mut owner, 1, "2", true), Gone::default(), "there is nothing left to undo");
        assert!(owner.is_vacant());
    }

    #[test]
    fn a_full_channel_still_lets_further_connections_of_its_members_in() {
        let mut owner = ChannelOwner::default();
        visit(&mut owner, 0, "1", 1).expect("room");
        assert_eq!(visit(&mut owner, 0, "2", 1).map(drop), Err(Full { most: 1 }));
        let (subscribed, _) = visit(&mut owner, 0, "1", 1).expect("a member");
        assert!(subscribed.members.expect("a list").contains(r#"\"count\":1"#));
        assert_eq!(visit(&mut ChannelOwner::default(), 0, "1", 0).map(drop), Err(Full { most: 0 }));
    }

    #[test]
    fn only_the_first_miss_is_told_until_something_comes_or_all_leave() {
        let mut owner = ChannelOwner::default();
        let (channel, limits) = ("cache-a".into(), Limits::default());
        let enter =
            |owner: &mut ChannelOwner| owner.enter(&channel, 0, &Subscribe::Cached, &limits, Time::ZERO).expect("room");
        assert!(enter(&mut owner).1.missed && !enter(&mut owner).1.missed);
        assert!(matches!(enter(&mut owner).0.last_event, LastEvent::Missing));
        owner.leave(&channel, 0, None, true);
        assert!(enter(&mut owner).1.missed);
        owner.keep(&channel, &Prepared::new("x"), &limits, Time::ZERO);
        assert!(matches!(enter(&mut owner).0.last_event, LastEvent::Found(_)));
        assert!(!enter(&mut owner).1.missed);
    }

    #[test]
    fn counts_are_told_at_once_up_to_a_hundred_and_every_five_seconds_beyond() {
        let mut owner = ChannelOwner::default();
        let channel: Arc<str> = "a".into();
        let second = |number| Time::ZERO + Duration::from_secs(number);
        owner.enter(&channel, 0, &Subscribe::Subscriptions, &Limits::default(), Time::ZERO).expect("room");
        assert_eq!(owner.count(&channel, 0, 60, second(0)), Some(60));
        assert_eq!(owner.count(&channel, 1, 40, second(0)), Some(100));
        assert_eq!(owner.count(&channel, 1, 41, second(0)), None);
        assert_eq!(owner.late_counts(second(4)), []);
        assert_eq!(owner.late_counts(second(5)), [(Arc::clone(&channel), 101)]);
        assert_eq!(owner.late_counts(second(10)), [], "nothing has changed");
        assert_eq!(owner.count(&channel, 1, 42, second(10)), Some(102));
        assert_eq!(owner.count(&channel, 0, 0, second(10)), Some(42));
        assert_eq!(owner.count(&"b".into(), 0, 1, second(10)), None, "nobody is there to be told");
    }

    #[test]
    fn users_are_online_from_their_first_connection_to_their_last() {
        let mut users = Users::default();
        let [ann, bob]: [Arc<str>; 2] = ["ann".into(), "bob".into()];
        assert!(users.sign_in(&ann) && !users.sign_in(&ann));
        assert_eq!(
            users.watch(&[Arc::clone(&ann), Arc::clone(&bob)], 3),
            (vec![Arc::clone(&ann)], vec![Arc::clone(&bob)])
        );
        assert_eq!(users.watching("bob").collect::<Vec<_>>(), [3]);
        assert!(!users.sign_out(&ann) && users.sign_out(&ann) && !users.sign_out(&bob));
        users.unwatch("ann", 3);
        users.unwatch("bob", 3);
        assert!(users.is_vacant());
    }
}
