//! Channels and members that have just gone, and may be back before webhooks are told.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::apps::App;
use crate::events::Event;
use crate::place::AppIndex;

/// Removals that are held back for a while: a page that reloads neither leaves nor comes.
///
/// `T` is a time, and `V` what is kept of each removal.
#[derive(Debug)]
pub(crate) struct Grace<T, V> {
    held: HashMap<Key, Held<V>>,
    /// In the order of their time. What was taken back in the meantime is skipped.
    order: BinaryHeap<Reverse<(T, u64, Key)>>,
    /// Removals that were ever held.
    count: u64,
}

#[derive(Debug)]
struct Held<V> {
    number: u64,
    value: V,
}

/// One channel, or one user in it. Tenants are never taken away, so an index stands for one app for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    app: AppIndex,
    channel: Arc<str>,
    user_id: Option<Arc<str>>,
}

impl<T: Copy + Ord, V> Grace<T, V> {
    pub(crate) fn new() -> Self {
        Self { held: HashMap::new(), order: BinaryHeap::new(), count: 0 }
    }

    /// Holds a removal back until it is due; one that is too many, or is no removal, comes back at once.
    ///
    /// Gives as well what stood in its place, if one removal follows another.
    pub(crate) fn hold(&mut self, app: &App, event: &Event, due: T, value: V) -> Result<Option<V>, V> {
        let Some((channel, user_id)) = removed(event) else { return Err(value) };
        let key = Key::new(app, channel, user_id);
        if self.held.len() >= MOST_HELD && !self.held.contains_key(&key) {
            return Err(value);
        }
        self.count += 1;
        self.order.push(Reverse((due, self.count, key.clone())));
        let before = self.held.insert(key, Held { number: self.count, value });
        if self.order.len() > 2 * self.held.len() + MOST_STALE {
            self.order.retain(|Reverse((_, number, key))| is_held(&self.held, key, *number));
        }
        Ok(before.map(|before| before.value))
    }

    /// Takes back the removal that this event undoes: then nothing has happened.
    pub(crate) fn undo(&mut self, app: &App, event: &Event) -> Option<V> {
        let key = match event {
            Event::ChannelOccupied { channel } => Key::new(app, channel, None),
            Event::MemberAdded { channel, user_id } => Key::new(app, channel, Some(user_id)),
            _ => return None,
        };
        self.held.remove(&key).map(|held| held.value)
    }

    /// Whether a removal may be one after all.
    pub(crate) fn is_due(&self, now: T) -> bool {
        self.order.peek().is_some_and(|Reverse((due, ..))| *due <= now)
    }

    /// The next removal that is one after all.
    pub(crate) fn take_due(&mut self, now: T) -> Option<V> {
        self.take_next(|due| due <= now)
    }

    /// The next removal, due or not.
    pub(crate) fn take_any(&mut self) -> Option<V> {
        self.take_next(|_| true)
    }

    fn take_next(&mut self, is_due: impl Fn(T) -> bool) -> Option<V> {
        while let Some(Reverse((due, number, key))) = self.order.peek() {
            let is_held = is_held(&self.held, key, *number);
            if is_held && !is_due(*due) {
                return None;
            }
            let Reverse((_, _, key)) = self.order.pop()?;
            if is_held {
                return self.held.remove(&key).map(|held| held.value);
            }
        }
        None
    }

    /// When [`take_due`](Self::take_due) is to be asked again; sometimes sooner than needed.
    pub(crate) fn next_due(&self) -> Option<T> {
        self.order.peek().map(|Reverse((due, ..))| *due)
    }

    /// All that are held back, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &V> {
        self.held.values().map(|held| &held.value)
    }

    /// Takes out those that are wanted, in no order.
    pub(crate) fn take_if(&mut self, mut is_wanted: impl FnMut(&mut V) -> bool) -> Vec<V> {
        self.held.extract_if(|_, held| is_wanted(&mut held.value)).map(|(_, held)| held.value).collect()
    }

    /// Forgets all others.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&mut V) -> bool) {
        self.held.retain(|_, held| stays(&mut held.value));
    }

    /// How many are held back.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

fn is_held<V>(held: &HashMap<Key, Held<V>>, key: &Key, number: u64) -> bool {
    held.get(key).is_some_and(|held| held.number == number)
}

/// Which channel has lost its last member, or which user.
pub(crate) fn removed(event: &Event) -> Option<(&Arc<str>, Option<&Arc<str>>)> {
    match event {
        Event::ChannelVacated { channel } => Some((channel, None)),
        Event::MemberRemoved { channel, user_id } => Some((channel, Some(user_id))),
        _ => None,
    }
}

impl Key {
    fn new(app: &App, channel: &Arc<str>, user_id: Option<&Arc<str>>) -> Self {
        Self { app: app.index(), channel: Arc::clone(channel), user_id: user_id.cloned() }
    }
}

/// For how long a removal is held back: Pusher waits as long.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// Removals that may be held back at a time, some 500 bytes each; further ones are told at once.
const MOST_HELD: usize = 50_000;

/// Places in the order that may be stale before they are cleared away, beside as many as are not.
const MOST_STALE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Limits};
    use crate::apps::Apps;

    fn apps() -> (Arc<App>, Arc<App>) {
        let apps = ["1:a:x", "2:b:y"].map(|text| AppConfig::parse(text).expect("an app"));
        let apps = Apps::new(apps, &Limits::default()).expect("two apps").all();
        (Arc::clone(&apps[0]), Arc::clone(&apps[1]))
    }

    fn vacated(channel: &str) -> Event {
        Event::ChannelVacated { channel: channel.into() }
    }

    fn removed(user_id: &str) -> Event {
        Event::MemberRemoved { channel: "presence-a".into(), user_id: user_id.into() }
    }

    fn due(grace: &mut Grace<u64, u64>, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| grace.take_due(now)).collect()
    }

    #[test]
    fn a_removal_is_due_at_its_time_and_once() {
        let (app, _) = apps();
        let mut grace = Grace::new();
        grace.hold(&app, &vacated("a"), 13_000, 1).expect("room");
        grace.hold(&app, &vacated("b"), 13_500, 2).expect("room");
        assert_eq!(grace.next_due(), Some(13_000));
        assert_eq!(due(&mut grace, 12_999), [0_u64; 0]);
        assert_eq!(due(&mut grace, 13_000), [1]);
        assert_eq!(due(&mut grace, 99_999), [2]);
        assert_eq!((due(&mut grace, 99_999).len(), grace.next_due(), grace.len()), (0, None, 0));
    }

    #[test]
    fn who_is_due_before_others_comes_before_them() {
        let (app, _) = apps();
        let mut grace = Grace::new();
        grace.hold(&app, &vacated("a"), 13_000, 1).expect("room");
        grace.hold(&app, &vacated("b"), 11_000, 2).expect("room");
        assert_eq!(grace.next_due(), Some(11_000));
        assert_eq!(due(&mut grace, 11_000), [2]);
        assert_eq!(due(&mut grace, 13_000), [1]);
    }

    #[test]
    fn who_is_back_in_time_has_never_been_away() {
        let (app, other) = apps();
        let mut grace = Grace::new();
        grace.hold(&app, &vacated("presence-a"), 0, 1).expect("room");
        grace.hold(&app, &removed("x"), 3000, 2).expect("room");
        grace.hold(&app, &removed("y"), 0, 3).expect("room");
        let back = |channel: &str| Event::ChannelOccupied { channel: channel.into() };
        let added = |user: &str| Event::MemberAdded { channel: "presence-a".into(), user_id: user.into() };
        assert!(grace.undo(&other, &back("presence-a")).is_none());
        assert!(grace.undo(&app, &back("presence-b")).is_none());
        assert!(grace.undo(&app, &added("z")).is_none());
        assert!(grace.undo(&app, &Event::CacheMiss { channel: "presence-a".into() }).is_none());
        assert_eq!(grace.undo(&app, &back("presence-a")), Some(1));
        assert_eq!(grace.undo(&app, &added("y")), Some(3));
        assert!(grace.undo(&app, &added("y")).is_none());
        assert_eq!(due(&mut grace, 3000), [2]);
    }

    #[test]
    fn who_leaves_again_is_away_from_the_last_time_on() {
        let (app, _) = apps();
        let mut grace = Grace::new();
        grace.hold(&app, &vacated("a"), 0, 1).expect("room");
        assert!(grace.undo(&app, &Event::ChannelOccupied { channel: "a".into() }).is_some());
        grace.hold(&app, &vacated("a"), 5000, 2).expect("room");
        assert_eq!(due(&mut grace, 4999), [0_u64; 0]);
        let replaced = grace.hold(&app, &vacated("a"), 5500, 3).expect("room");
        assert_eq!(replaced, Some(2));
        assert_eq!(due(&mut grace, 5499), [0_u64; 0]);
        assert_eq!(due(&mut grace, 5500), [3]);
    }

    #[test]
    fn a_channel_that_flaps_takes_no_more_room_than_one_that_does_not() {
        let (app, _) = apps();
        let mut grace = Grace::new();
        for id in 0..100_000 {
            grace.hold(&app, &vacated("a"), 0, id).expect("room");
            grace.undo(&app, &Event::ChannelOccupied { channel: "a".into() });
        }
        assert!(grace.order.len() <= MOST_STALE + 2, "{}", grace.order.len());
    }

    #[test]
    fn what_is_too_much_is_not_held_back() {
        let (app, _) = apps();
        let mut grace = Grace::new();
        for id in 0..MOST_HELD as u64 {
            grace.hold(&app, &vacated(&id.to_string()), 0, id).expect("room");
        }
        assert_eq!(grace.hold(&app, &vacated("one more"), 0, 1 << 40).expect_err("full"), 1 << 40);
        assert!(grace.hold(&app, &vacated("7"), 0, 1 << 40).is_ok());
    }

    #[test]
    fn whoever_cannot_wait_takes_all_in_the_order_of_their_time() {
        let (app, _) = apps();
        let mut grace = Grace::new();
        for (due, user) in [(7, "x"), (5, "y"), (6, "z"), (9, "w")] {
            grace.hold(&app, &removed(user), due, due).expect("room");
        }
        grace.retain(|due| *due != 6);
        assert_eq!(grace.all().copied().collect::<std::collections::BTreeSet<_>>(), [5, 7, 9].into());
        assert_eq!(std::iter::from_fn(|| grace.take_any()).collect::<Vec<_>>(), [5, 7, 9]);
    }

    #[test]
    fn what_is_no_removal_is_not_held_back() {
        let (app, _) = apps();
        let added = Event::MemberAdded { channel: "presence-a".into(), user_id: "x".into() };
        assert_eq!(Grace::new().hold(&app, &added, 0, 1), Err(1));
    }
}
