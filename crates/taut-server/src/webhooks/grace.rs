//! Channels and members that have just gone, and may be back before anybody is told.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::apps::App;
use crate::events::Event;
use crate::place::AppIndex;

use super::Millis;
use super::store::HeldRow;

/// Removals that are held back for a while: a page that reloads neither leaves nor comes.
///
/// Those whose leave was [held back](crate::app::Features::presence_grace) before they were told wait only for what is left.
#[derive(Debug, Default)]
pub(super) struct Grace {
    held: HashMap<Key, Held>,
    /// In the order of their time. What was taken back in the meantime is skipped.
    order: BinaryHeap<Reverse<(Millis, u64, Key)>>,
}

/// One channel, or one user in it. Tenants are never taken away, so an index stands for one app for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    app: AppIndex,
    channel: Arc<str>,
    user_id: Option<Arc<str>>,
}

/// A removal that is held back.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Its row in the store.
    pub(super) id: u64,
    pub(super) app: Arc<App>,
    /// When it happened, by the clock of the deliveries.
    pub(super) created: Millis,
    /// The same as it is told.
    pub(super) time: Millis,
    pub(super) event: Event,
}

impl Grace {
    /// Holds a removal back; one that is too many comes back at once.
    ///
    /// Gives as well what stood in its place, if one removal follows another.
    pub(super) fn hold(&mut self, held: Held) -> Result<Option<Held>, Held> {
        let Some(key) = Key::of_removal(&held) else { return Err(held) };
        if self.held.len() >= MOST_HELD && !self.held.contains_key(&key) {
            return Err(held);
        }
        self.order.push(Reverse((held.created + GRACE, held.id, key.clone())));
        let before = self.held.insert(key, held);
        if self.order.len() > 2 * self.held.len() + MOST_STALE {
            self.order.retain(|Reverse((_, id, key))| self.held.get(key).is_some_and(|held| held.id == *id));
        }
        Ok(before)
    }

    /// Takes back the removal that this event undoes: then nothing has happened.
    pub(super) fn undo(&mut self, app: &App, event: &Event) -> Option<Held> {
        let key = match event {
            Event::ChannelOccupied { channel } => Key::new(app, channel, None),
            Event::MemberAdded { channel, user_id } => Key::new(app, channel, Some(user_id)),
            _ => return None,
        };
        self.held.remove(&key)
    }

    /// The next removal that is one after all.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Held> {
        while let Some(Reverse((due, id, key))) = self.order.peek() {
            let is_held = self.held.get(key).is_some_and(|held| held.id == *id);
            if is_held && *due > now {
                return None;
            }
            let Reverse((_, _, key)) = self.order.pop()?;
            if is_held {
                return self.held.remove(&key);
            }
        }
        None
    }

    /// When [`take_due`](Self::take_due) is to be asked again; sometimes sooner than needed.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.order.peek().map(|Reverse((due, ..))| *due)
    }

    /// All that are held back, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// How many are held back.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

impl Held {
    /// As the store keeps it.
    pub(super) fn row(&self) -> Option<HeldRow> {
        let (channel, user_id) = removed(&self.event)?;
        let (channel, user_id) = (Arc::clone(channel), user_id.cloned());
        Some(HeldRow { app: self.app.id().into(), channel, user_id, created: self.created, time: self.time })
    }
}

/// Which channel has lost its last member, or which user.
pub(super) fn removed(event: &Event) -> Option<(&Arc<str>, Option<&Arc<str>>)> {
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

    fn of_removal(held: &Held) -> Option<Self> {
        removed(&held.event).map(|(channel, user_id)| Self::new(&held.app, channel, user_id))
    }
}

/// Milliseconds for which a removal is held back: Pusher waits as long.
pub(super) const GRACE: Millis = 3000;

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

    fn vacated(app: &Arc<App>, id: u64, created: Millis, channel: &str) -> Held {
        Held { id, app: Arc::clone(app), created, time: 0, event: Event::ChannelVacated { channel: channel.into() } }
    }

    fn removed(app: &Arc<App>, id: u64, created: Millis, user_id: &str) -> Held {
        let event = Event::MemberRemoved { channel: "presence-a".into(), user_id: user_id.into() };
        Held { id, app: Arc::clone(app), created, time: 0, event }
    }

    fn due(grace: &mut Grace, now: Millis) -> Vec<u64> {
        std::iter::from_fn(|| grace.take_due(now)).map(|held| held.id).collect()
    }

    #[test]
    fn a_removal_is_due_after_three_seconds_and_once() {
        let (app, _) = apps();
        let mut grace = Grace::default();
        grace.hold(vacated(&app, 1, 10_000, "a")).expect("room");
        grace.hold(vacated(&app, 2, 10_500, "b")).expect("room");
        assert_eq!(grace.next_due(), Some(13_000));
        assert_eq!(due(&mut grace, 12_999), [0_u64; 0]);
        assert_eq!(due(&mut grace, 13_000), [1]);
        assert_eq!(due(&mut grace, 99_999), [2]);
        assert_eq!((due(&mut grace, 99_999).len(), grace.next_due(), grace.len()), (0, None, 0));
    }

    #[test]
    fn who_has_waited_before_is_due_before_others() {
        let (app, _) = apps();
        let mut grace = Grace::default();
        grace.hold(vacated(&app, 1, 10_000, "a")).expect("room");
        grace.hold(vacated(&app, 2, 8_000, "b")).expect("room");
        assert_eq!(grace.next_due(), Some(11_000));
        assert_eq!(due(&mut grace, 11_000), [2]);
        assert_eq!(due(&mut grace, 13_000), [1]);
    }

    #[test]
    fn who_is_back_in_time_has_never_been_away() {
        let (app, other) = apps();
        let mut grace = Grace::default();
        grace.hold(vacated(&app, 1, 0, "presence-a")).expect("room");
        grace.hold(removed(&app, 2, 0, "x")).expect("room");
        grace.hold(removed(&app, 3, 0, "y")).expect("room");
        let back = |channel: &str| Event::ChannelOccupied { channel: channel.into() };
        let added = |user: &str| Event::MemberAdded { channel: "presence-a".into(), user_id: user.into() };
        assert!(grace.undo(&other, &back("presence-a")).is_none());
        assert!(grace.undo(&app, &back("presence-b")).is_none());
        assert!(grace.undo(&app, &added("z")).is_none());
        assert!(grace.undo(&app, &Event::CacheMiss { channel: "presence-a".into() }).is_none());
        assert_eq!(grace.undo(&app, &back("presence-a")).map(|held| held.id), Some(1));
        assert_eq!(grace.undo(&app, &added("y")).map(|held| held.id), Some(3));
        assert!(grace.undo(&app, &added("y")).is_none());
        assert_eq!(due(&mut grace, 3000), [2]);
    }

    #[test]
    fn who_leaves_again_is_away_from_the_last_time_on() {
        let (app, _) = apps();
        let mut grace = Grace::default();
        grace.hold(vacated(&app, 1, 0, "a")).expect("room");
        assert!(grace.undo(&app, &Event::ChannelOccupied { channel: "a".into() }).is_some());
        grace.hold(vacated(&app, 2, 2000, "a")).expect("room");
        assert_eq!(due(&mut grace, 4999), [0_u64; 0]);
        let replaced = grace.hold(vacated(&app, 3, 2500, "a")).expect("room");
        assert_eq!(replaced.map(|held| held.id), Some(2));
        assert_eq!(due(&mut grace, 5499), [0_u64; 0]);
        assert_eq!(due(&mut grace, 5500), [3]);
    }

    #[test]
    fn a_channel_that_flaps_takes_no_more_room_than_one_that_does_not() {
        let (app, _) = apps();
        let mut grace = Grace::default();
        for id in 0..100_000 {
            grace.hold(vacated(&app, id, 0, "a")).expect("room");
            grace.undo(&app, &Event::ChannelOccupied { channel: "a".into() });
        }
        assert!(grace.order.len() <= MOST_STALE + 2, "{}", grace.order.len());
    }

    #[test]
    fn what_is_too_much_is_not_held_back() {
        let (app, _) = apps();
        let mut grace = Grace::default();
        for id in 0..MOST_HELD as u64 {
            grace.hold(vacated(&app, id, 0, &id.to_string())).expect("room");
        }
        assert_eq!(grace.hold(vacated(&app, 1 << 40, 0, "one more")).expect_err("full").id, 1 << 40);
        assert!(grace.hold(vacated(&app, 1 << 40, 0, "7")).is_ok());
    }
}
