//! The users of an app, as the shard sees them that owns them.

use std::collections::HashMap;
use std::sync::Arc;

use taut_proto::Time;

use super::grace::{Grace, Hold};
use super::subscriptions::{Subscriptions, give_back};
use crate::place::ShardIndex;

/// The users of one app who have signed in, and the shards that watch them. One shard keeps them for all.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// How many connections each has; none while it may be back.
    online: HashMap<Arc<str>, usize>,
    /// Those who are online and have no connection.
    grace: Grace<Arc<str>>,
    /// The shards with connections that watch a user.
    watched: Subscriptions<ShardIndex>,
}

impl Users {
    /// A connection signs in; whether it is the user's first.
    pub(super) fn sign_in(&mut self, user_id: &Arc<str>) -> bool {
        let is_first = !self.online.contains_key(user_id);
        *self.online.entry(Arc::clone(user_id)).or_default() += 1;
        self.grace.undo(user_id);
        is_first
    }

    /// A connection that had signed in ends; whether the user is offline now. With a `hold` it stays online until
    /// [`take_due`](Self::take_due) says that the grace is over.
    pub(super) fn sign_out(&mut self, user_id: &Arc<str>, hold: Option<Hold>) -> bool {
        let Some(connections) = self.online.get_mut(user_id) else { return false };
        *connections = connections.saturating_sub(1);
        if *connections > 0 {
            return false;
        }
        if let Some(hold) = hold {
            self.grace.hold(Arc::clone(user_id), hold);
            return false;
        }
        self.remove(user_id);
        true
    }

    /// The next user whose grace is over: it is offline now.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Arc<str>> {
        let (user_id, _) = self.grace.take_due(now)?;
        self.remove(&user_id);
        Some(user_id)
    }

    /// Whether anybody may be back.
    pub(super) fn is_due(&self) -> bool {
        !self.grace.is_empty()
    }

    fn remove(&mut self, user_id: &str) {
        self.online.remove(user_id);
        give_back(&mut self.online);
    }

    /// From now on `shard` watches these users; says which of them are online and which are not.
    pub(super) fn watch(&mut self, user_ids: &[Arc<str>], shard: ShardIndex) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        for user_id in user_ids {
            self.watched.join(Arc::clone(user_id), shard);
        }
        self.online(user_ids)
    }

    /// Which of these users are online, and which are not.
    pub(super) fn online(&self, user_ids: &[Arc<str>]) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        user_ids.iter().cloned().partition(|user_id| self.online.contains_key(user_id))
    }

    /// `shard` stops watching this user.
    pub(super) fn unwatch(&mut self, user_id: &str, shard: ShardIndex) {
        self.watched.leave(user_id, shard);
    }

    /// The users that are watched.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Arc<str>> {
        self.watched.channels().map(|(user_id, _)| user_id)
    }

    /// The shards that watch the user.
    pub(super) fn watching(&self, user_id: &str) -> impl ExactSizeIterator<Item = ShardIndex> {
        self.watched.members(user_id)
    }

    #[cfg(test)]
    pub(super) fn is_vacant(&self) -> bool {
        self.online.is_empty() && self.watched.is_empty() && self.grace.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_online_from_their_first_connection_to_their_last() {
        let (mut users, shard) = (Users::default(), ShardIndex::new(3));
        let [ann, bob]: [Arc<str>; 2] = ["ann".into(), "bob".into()];
        assert!(users.sign_in(&ann) && !users.sign_in(&ann));
        assert_eq!(
            users.watch(&[Arc::clone(&ann), Arc::clone(&bob)], shard),
            (vec![Arc::clone(&ann)], vec![Arc::clone(&bob)])
        );
        assert_eq!(users.watching("bob").collect::<Vec<_>>(), [shard]);
        assert!(!users.sign_out(&ann, None) && users.sign_out(&ann, None) && !users.sign_out(&bob, None));
        users.unwatch("ann", shard);
        users.unwatch("bob", shard);
        assert!(users.is_vacant());
    }

    #[test]
    fn users_that_are_offline_keep_no_memory() {
        let mut users = Users::default();
        let all: Vec<Arc<str>> = (0..1000).map(|number| number.to_string().into()).collect();
        for user_id in &all {
            users.sign_in(user_id);
        }
        for user_id in &all {
            users.sign_out(user_id, None);
        }
        assert!(users.online.capacity() <= 28, "{}", users.online.capacity());
    }
}
