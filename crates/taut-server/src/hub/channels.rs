//! The channels that a shard owns. Methods say what has changed; [`Owner`](super::owner::Owner) says it to whom it concerns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Time;

use super::command::{LastEvent, Publication, Rejected, Subscribe, Subscribed};
use super::grace::{Grace, Hold};
use super::history::History;
use super::presence::Roster;
use super::subscriptions::{Joined, Left, Subscriptions, give_back};
use crate::app::Limits;
use crate::place::ShardIndex;

/// The channels of one app whose owner a shard is.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// The shards that want a channel, this one among them.
    shards: Subscriptions<ShardIndex>,
    rosters: HashMap<Arc<str>, Roster>,
    /// Users who are in a channel's roster and have no connection there, by channel and user.
    grace: Grace<(Arc<str>, Arc<str>)>,
    history: History,
    /// Cache channels in which a subscriber found nothing, until something is published there or the last subscriber leaves.
    missed: HashSet<Arc<str>>,
    counts: HashMap<Arc<str>, Count>,
    /// The channels whose members are still to be told how many they are.
    late: HashSet<Arc<str>>,
}

/// What a subscription has changed for others.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Entered {
    /// The channel was vacant.
    pub(super) occupied: bool,
    /// The user was not there.
    pub(super) added: bool,
    /// The first subscriber that finds no last event.
    pub(super) missed: bool,
}

/// What it has changed for others that a subscriber left.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is another change")]
pub(super) struct Gone {
    /// The channel is vacant.
    pub(super) vacated: bool,
    /// The user is not there any more.
    pub(super) removed: bool,
    /// The shard is not interested any more.
    pub(super) shard_left: bool,
    /// The channel is vacant, and its subscribers were counted.
    pub(super) was_counted: bool,
}

impl Channels {
    /// A connection of `shard` subscribes.
    pub(super) fn enter(
        &mut self,
        channel: &Arc<str>,
        shard: ShardIndex,
        subscribe: &Subscribe,
        limits: &Limits,
        now: Time,
    ) -> Result<(Subscribed, Entered), Rejected> {
        if let Subscribe::Presence { member, .. } = subscribe {
            let roster = self.rosters.get(channel);
            let (most, count) = (limits.presence_members, roster.map_or(0, Roster::len));
            // A further connection of somebody who is there already makes nothing fuller.
            if count >= most && !roster.is_some_and(|roster| roster.contains(&member.user_id)) {
                return Err(Rejected::Full { most });
            }
        }
        let mut entered = self.admit(channel, shard, subscribe);
        let is_presence = matches!(subscribe, Subscribe::Presence { .. } | Subscribe::Members { .. });
        let roster = self.rosters.get(channel).filter(|_| is_presence);
        let members = roster.map(|roster| roster.members().into());
        let mut subscribed = Subscribed { members, ..Subscribed::default() };
        if subscribe.wants_last_event() {
            (subscribed.last_event, entered.missed) = self.last_event(channel, now);
        }
        Ok((subscribed, entered))
    }

    /// A connection of `shard` subscribes, whether there is room for it or not.
    pub(super) fn admit(&mut self, channel: &Arc<str>, shard: ShardIndex, subscribe: &Subscribe) -> Entered {
        let mut entered = Entered::default();
        // Without subscribers these are users who may be back.
        let has_users = self.rosters.contains_key(channel);
        if let Subscribe::Presence { member, .. } = subscribe {
            if !self.grace.is_empty() {
                self.grace.undo(&(Arc::clone(channel), Arc::clone(&member.user_id)));
            }
            let roster = self.rosters.entry(Arc::clone(channel)).or_default();
            entered.added = roster.join(&member.user_id, member.user_info.as_deref());
        }
        if !matches!(subscribe, Subscribe::Members { .. }) {
            let is_first = self.shards.join(Arc::clone(channel), shard) == Joined::First;
            entered.occupied = is_first && !has_users;
        }
        entered
    }

    /// A connection of `shard` leaves: of this user in a presence channel, and the last of its shard if `is_last`. With a `hold` the user stays
    /// until [`take_due`](Self::take_due) says that the grace is over, unless it has another connection or is back by then.
    pub(super) fn leave(
        &mut self,
        channel: &Arc<str>,
        shard: ShardIndex,
        user_id: Option<&Arc<str>>,
        is_last: bool,
        hold: Option<Hold>,
    ) -> Gone {
        let mut gone = Gone::default();
        match (user_id, hold) {
            (Some(user_id), None) => gone.removed = self.remove_user(channel, user_id),
            (Some(user_id), Some(hold)) => {
                if self.rosters.get_mut(channel).is_some_and(|roster| roster.lose(user_id)) {
                    self.grace.hold((Arc::clone(channel), Arc::clone(user_id)), hold);
                }
            }
            (None, _) => {}
        }
        let left = if is_last { self.shards.leave(channel, shard) } else { Left::Absent };
        gone.shard_left = left != Left::Absent;
        self.check_vacated(channel, left == Left::Last, &mut gone);
        gone
    }

    /// The next user whose grace is over: the channel, the user, for how long that was held back, and what it changes.
    pub(super) fn take_due(&mut self, now: Time) -> Option<(Arc<str>, Arc<str>, Duration, Gone)> {
        let ((channel, user_id), waited) = self.grace.take_due(now)?;
        let mut gone = Gone { removed: self.remove_user(&channel, &user_id), ..Gone::default() };
        let is_last = gone.removed && self.shards.name(&channel).is_none();
        self.check_vacated(&channel, is_last, &mut gone);
        Some((channel, user_id, waited, gone))
    }

    /// Lets every grace be over now.
    pub(super) fn end_grace(&mut self, now: Time) {
        self.grace.end(now);
    }

    /// A connection of the user leaves, or the user's grace is over. Says whether the user is gone.
    fn remove_user(&mut self, channel: &str, user_id: &Arc<str>) -> bool {
        let Some(roster) = self.rosters.get_mut(channel) else { return false };
        let is_gone = roster.leave(user_id);
        if roster.is_empty() {
            self.rosters.remove(channel);
            give_back(&mut self.rosters);
        }
        is_gone
    }

    /// The last subscriber, or the last user without one, has gone. The channel is vacant if nobody else keeps it occupied.
    fn check_vacated(&mut self, channel: &Arc<str>, is_last: bool, gone: &mut Gone) {
        gone.vacated = is_last && !self.rosters.contains_key(channel);
        if gone.vacated {
            self.missed.remove(channel);
            if self.missed.is_empty() {
                self.missed.shrink_to_fit();
            }
            gone.was_counted = self.counts.remove(channel).is_some();
            give_back(&mut self.counts);
            self.late.remove(channel);
        }
    }

    /// Keeps what was published to a cache channel.
    pub(super) fn keep(&mut self, publication: &Publication, limits: &Limits, now: Time) {
        self.missed.remove(&publication.channel);
        self.history.put(publication, now, limits.cache_ttl, limits.cache);
    }

    /// Forgets what was published to a cache channel.
    pub(super) fn forget(&mut self, channel: &str) {
        self.history.remove(channel);
    }

    /// The last event of a cache channel, and for how long it is kept.
    pub(super) fn kept(&self, channel: &str, now: Time) -> Option<(&Publication, Duration)> {
        self.history.last(channel, now)
    }

    /// Whether anybody is in the channel: a subscriber, or a user who may be back.
    pub(super) fn is_occupied(&self, channel: &str) -> bool {
        self.shards.name(channel).is_some() || self.rosters.contains_key(channel)
    }

    /// The shards that want the channel.
    pub(super) fn shards(&self, channel: &str) -> impl ExactSizeIterator<Item = ShardIndex> {
        self.shards.members(channel)
    }

    /// How many channels are occupied.
    pub(super) fn channels(&self) -> usize {
        let lost = || self.rosters.keys().filter(|channel| self.shards.name(channel).is_none()).count();
        self.shards.channels().len() + if self.grace.is_empty() { 0 } else { lost() }
    }

    /// Who is in a presence channel.
    pub(super) fn roster(&self, channel: &str) -> Option<&Roster> {
        self.rosters.get(channel)
    }

    /// All presence channels with somebody in them.
    pub(super) fn rosters(&self) -> impl Iterator<Item = (&Arc<str>, &Roster)> {
        self.rosters.iter()
    }

    /// `shard` has so many connections in the channel now. Gives the sum if the members are to be told: at most once in a while where they are many.
    pub(super) fn count(
        &mut self,
        channel: &Arc<str>,
        shard: ShardIndex,
        connections: usize,
        now: Time,
    ) -> Option<usize> {
        let sum = self.count_here(channel, shard, connections)?;
        self.counted(channel, sum, now)
    }

    /// `shard` has so many connections in the channel now. Gives the sum of all shards, unless none has ever had any.
    pub(super) fn count_here(&mut self, channel: &Arc<str>, shard: ShardIndex, connections: usize) -> Option<usize> {
        if self.shards.members(channel).len() == 0 {
            // Users who may be back keep the channel occupied, but have no connection.
            let was_counted = self.counts.remove(channel).is_some();
            give_back(&mut self.counts);
            return was_counted.then_some(0);
        }
        let count = self.counts.entry(Arc::clone(channel)).or_default();
        count.by_shard.retain(|(other, _)| *other != shard);
        count.by_shard.push((shard, connections));
        Some(count.by_shard.iter().map(|(_, connections)| connections).sum())
    }

    /// The channel has so many connections now. Gives that if the members are to be told.
    pub(super) fn counted(&mut self, channel: &Arc<str>, connections: usize, now: Time) -> Option<usize> {
        let count = self.counts.get_mut(channel)?;
        count.all = connections;
        let told = count.tell(now);
        if told.is_some() {
            self.late.remove(channel);
        } else {
            self.late.insert(Arc::clone(channel));
        }
        told
    }

    /// What is left to be told of how many there are, after a while.
    pub(super) fn late_counts(&mut self, now: Time) -> Vec<(Arc<str>, usize)> {
        let mut told = Vec::new();
        self.late.retain(|channel| {
            let Some(count) = self.counts.get_mut(channel) else { return false };
            let sum = count.tell(now);
            told.extend(sum.map(|sum| (Arc::clone(channel), sum)));
            sum.is_none()
        });
        if self.late.is_empty() {
            self.late.shrink_to_fit();
        }
        told
    }

    /// Whether anything is left to be told or to be forgotten after a while.
    pub(super) fn is_due(&self) -> bool {
        !self.late.is_empty() || !self.history.is_empty() || !self.grace.is_empty()
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now: Time) {
        self.history.sweep(now);
    }

    #[cfg(test)]
    pub(super) fn is_vacant(&self) -> bool {
        self.shards.is_empty()
            && self.rosters.is_empty()
            && self.grace.is_empty()
            && self.counts.is_empty()
            && self.missed.is_empty()
            && self.late.is_empty()
    }

    /// What a new subscriber of a cache channel gets, and whether it is the first that finds nothing.
    pub(super) fn last_event(&mut self, channel: &Arc<str>, now: Time) -> (LastEvent, bool) {
        match self.history.last(channel, now) {
            Some((publication, _)) => (LastEvent::Found(publication.encoded()), false),
            None => (LastEvent::Missing, self.missed.insert(Arc::clone(channel))),
        }
    }
}

/// How many are subscribed to a channel.
#[derive(Debug, Default)]
struct Count {
    by_shard: Vec<(ShardIndex, usize)>,
    /// Over all shards; in a cluster, over all nodes.
    all: usize,
    /// When the members were told last.
    told: Option<Time>,
}

impl Count {
    fn tell(&mut self, now: Time) -> Option<usize> {
        let is_early = self.told.is_some_and(|told| now.since(told) < COUNT_INTERVAL);
        if self.all > MANY && is_early {
            return None;
        }
        self.told = Some(now);
        Some(self.all)
    }
}

/// Subscribers beyond whom the count is told once in a while only.
const MANY: usize = 100;
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::command::{Event, PresenceMember};
    use super::*;
    use crate::pusher::payload::Payload;
    use std::time::Instant;

    fn visit(
        owner: &mut Channels,
        shard: usize,
        user_id: &str,
        most: usize,
    ) -> Result<(Subscribed, Entered), Rejected> {
        let member = PresenceMember { user_id: user_id.into(), user_info: None };
        let limits = Limits { presence_members: most, ..Limits::default() };
        owner.enter(
            &"presence-a".into(),
            ShardIndex::new(shard),
            &Subscribe::Presence { member, last_event: false },
            &limits,
            Time::ZERO,
        )
    }

    fn leave(owner: &mut Channels, shard: usize, user_id: &str, is_last: bool) -> Gone {
        owner.leave(&"presence-a".into(), ShardIndex::new(shard), Some(&user_id.into()), is_last, None)
    }

    #[test]
    fn the_first_and_the_last_are_noticed_of_channels_and_of_users() {
        let mut owner = Channels::default();
        let entered = |visit: Result<(Subscribed, Entered), Rejected>| visit.expect("room").1;
        assert_eq!(entered(visit(&mut owner, 0, "1", 9)), Entered { occupied: true, added: true, missed: false });
        assert_eq!(entered(visit(&mut owner, 1, "1", 9)), Entered::default());
        assert_eq!(entered(visit(&mut owner, 1, "2", 9)), Entered { added: true, ..Entered::default() });
        assert_eq!(leave(&mut owner, 0, "1", true), Gone { shard_left: true, ..Gone::default() });
        assert_eq!(leave(&mut owner, 1, "1", false), Gone { removed: true, ..Gone::default() });
        assert_eq!(
            leave(&mut owner, 1, "2", true),
            Gone { vacated: true, removed: true, shard_left: true, was_counted: false }
        );
        assert_eq!(leave(&mut owner, 1, "2", true), Gone::default(), "there is nothing left to undo");
        assert!(owner.is_vacant());
    }

    #[test]
    fn a_full_channel_still_lets_further_connections_of_its_members_in() {
        let mut owner = Channels::default();
        visit(&mut owner, 0, "1", 1).expect("room");
        assert_eq!(visit(&mut owner, 0, "2", 1).map(drop), Err(Rejected::Full { most: 1 }));
        let (subscribed, _) = visit(&mut owner, 0, "1", 1).expect("a member");
        assert!(subscribed.members.expect("a list").contains(r#"\"count\":1"#));
        assert_eq!(visit(&mut Channels::default(), 0, "1", 0).map(drop), Err(Rejected::Full { most: 0 }));
    }

    #[test]
    fn only_the_first_miss_is_told_until_something_comes_or_all_leave() {
        let mut owner = Channels::default();
        let (channel, limits): (Arc<str>, _) = ("cache-a".into(), Limits::default());
        let enter = |owner: &mut Channels| {
            owner.enter(&channel, ShardIndex::new(0), &Subscribe::LastEvent, &limits, Time::ZERO).expect("room")
        };
        assert!(enter(&mut owner).1.missed && !enter(&mut owner).1.missed);
        assert!(matches!(enter(&mut owner).0.last_event, LastEvent::Missing));
        owner.leave(&channel, ShardIndex::new(0), None, true, None);
        assert!(enter(&mut owner).1.missed);
        let event = Event::published("event", &Payload::from("x"));
        let publication =
            Publication { channel: Arc::clone(&channel), event, excluded: None, at: Instant::now(), receipt: None };
        owner.keep(&publication, &limits, Time::ZERO);
        assert!(matches!(enter(&mut owner).0.last_event, LastEvent::Found(_)));
        assert!(!enter(&mut owner).1.missed);
        owner.sweep(Time::ZERO + limits.cache_ttl);
        assert!(enter(&mut owner).1.missed, "what came is too old: that is another miss");
    }

    #[test]
    fn channels_that_are_vacant_keep_no_memory() {
        let mut owner = Channels::default();
        let (shard, limits) = (ShardIndex::new(0), Limits::default());
        let channels: Vec<Arc<str>> = (0..1000).map(|number| format!("presence-cache-{number}").into()).collect();
        let user_id: Arc<str> = "1".into();
        for channel in &channels {
            let member = PresenceMember { user_id: Arc::clone(&user_id), user_info: None };
            let subscribe = Subscribe::Presence { member, last_event: true };
            owner.enter(channel, shard, &subscribe, &limits, Time::ZERO).expect("room");
            owner.count(channel, shard, 1, Time::ZERO);
        }
        assert_eq!(owner.channels(), 1000);
        for channel in &channels {
            owner.leave(channel, shard, Some(&user_id), true, None);
        }
        // A table of std has room for a few at the least.
        let (rosters, counts) = (owner.rosters.capacity(), owner.counts.capacity());
        assert!(
            owner.is_vacant() && owner.missed.capacity() == 0 && rosters <= 28 && counts <= 28,
            "{rosters} {counts}"
        );
    }

    #[test]
    fn counts_are_told_at_once_up_to_a_hundred_and_every_five_seconds_beyond() {
        let mut owner = Channels::default();
        let channel: Arc<str> = "a".into();
        let second = |number| Time::ZERO + Duration::from_secs(number);
        owner.enter(&channel, ShardIndex::new(0), &Subscribe::Events, &Limits::default(), Time::ZERO).expect("room");
        assert_eq!(owner.count(&channel, ShardIndex::new(0), 60, second(0)), Some(60));
        assert_eq!(owner.count(&channel, ShardIndex::new(1), 40, second(0)), Some(100));
        assert_eq!(owner.count(&channel, ShardIndex::new(1), 41, second(0)), None);
        assert_eq!(owner.late_counts(second(4)), []);
        assert_eq!(owner.late_counts(second(5)), [(Arc::clone(&channel), 101)]);
        assert_eq!(owner.late_counts(second(10)), [], "nothing has changed");
        assert_eq!(owner.count(&channel, ShardIndex::new(1), 42, second(10)), Some(102));
        assert_eq!(owner.count(&channel, ShardIndex::new(0), 0, second(10)), Some(42));
        assert_eq!(owner.count(&"b".into(), ShardIndex::new(0), 1, second(10)), None, "nobody is there to be told");
    }
}
