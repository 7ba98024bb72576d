//! Users who have lost their last connection, and may be back before anybody is told (`presence-grace`).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use taut_proto::Time;

use super::subscriptions::give_back;

/// What is held back, and until when. There is no more of it than there were users.
#[derive(Debug)]
pub(super) struct Grace<K> {
    held: HashMap<K, Hold>,
    order: BTreeSet<(Time, K)>,
}

/// For how long a leave is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// When the connection was lost.
    pub(super) since: Time,
    pub(super) until: Time,
}

impl<K: Clone + Eq + Hash + Ord> Grace<K> {
    /// Holds a leave back.
    pub(super) fn hold(&mut self, key: K, hold: Hold) {
        if let Some(before) = self.held.insert(key.clone(), hold) {
            self.order.remove(&(before.until, key.clone()));
        }
        self.order.insert((hold.until, key));
    }

    /// The user is back, or leaves after all.
    pub(super) fn undo(&mut self, key: &K) {
        if let Some(hold) = self.held.remove(key) {
            self.order.remove(&(hold.until, key.clone()));
            give_back(&mut self.held);
        }
    }

    /// The next one whose grace is over, and for how long it was held back.
    pub(super) fn take_due(&mut self, now: Time) -> Option<(K, Duration)> {
        let (until, _) = self.order.first()?;
        if *until > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        let hold = self.held.remove(&key)?;
        give_back(&mut self.held);
        Some((key, now.since(hold.since)))
    }

    /// Lets every grace be over now.
    pub(super) fn end(&mut self, now: Time) {
        for (until, key) in std::mem::take(&mut self.order) {
            if let Some(hold) = self.held.get_mut(&key) {
                hold.until = until.min(now);
                self.order.insert((hold.until, key));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl<K> Default for Grace<K> {
    fn default() -> Self {
        Self { held: HashMap::new(), order: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn hold(since: u64, until: u64) -> Hold {
        Hold { since: at(since), until: at(until) }
    }

    fn due(grace: &mut Grace<u32>, now: u64) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| grace.take_due(at(now))).map(|(key, waited)| (key, waited.as_secs())).collect()
    }

    #[test]
    fn a_leave_is_due_once_its_grace_is_over_and_the_first_comes_first() {
        let mut grace = Grace::default();
        grace.hold(1, hold(0, 60));
        grace.hold(2, hold(1, 4));
        grace.hold(3, hold(0, 3));
        assert_eq!(due(&mut grace, 2), []);
        assert_eq!(due(&mut grace, 4), [(3, 4), (2, 3)]);
        assert_eq!(due(&mut grace, 100), [(1, 100)]);
        assert!(grace.is_empty() && due(&mut grace, 1000).is_empty());
    }

    #[test]
    fn who_is_back_is_not_due_and_who_is_lost_again_waits_anew() {
        let mut grace = Grace::default();
        grace.hold(1, hold(0, 3));
        grace.undo(&1);
        assert!(grace.is_empty() && due(&mut grace, 9).is_empty());
        grace.hold(1, hold(9, 12));
        grace.hold(1, hold(10, 13));
        assert_eq!(due(&mut grace, 12), []);
        assert_eq!(due(&mut grace, 13), [(1, 3)]);
    }

    #[test]
    fn all_are_due_at_the_end() {
        let mut grace = Grace::default();
        grace.hold(1, hold(0, 60));
        grace.hold(2, hold(0, 3));
        grace.end(at(5));
        assert_eq!(due(&mut grace, 5), [(2, 5), (1, 5)]);
        assert!(grace.is_empty() && grace.order.is_empty());
    }

    #[test]
    fn a_crowd_that_comes_and_goes_leaves_nothing_behind() {
        let mut grace = Grace::default();
        for user in 0..10_000 {
            grace.hold(user, hold(0, 3));
        }
        for user in 0..5_000 {
            grace.undo(&user);
        }
        assert_eq!(due(&mut grace, 3).len(), 5_000);
        assert!(grace.order.is_empty() && grace.held.capacity() <= 28, "{}", grace.held.capacity());
    }
}
