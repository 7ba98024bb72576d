//! What channels keep of their past: so far a history of length one, the last event of each cache channel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Time;

use super::command::Publication;
use super::subscriptions::give_back;

/// The last events of an app's cache channels, for a time and within a bound of bytes: the oldest go first.
#[derive(Debug, Default)]
pub(super) struct History {
    events: HashMap<Arc<str>, Kept>,
    /// The channels in the order in which their events came.
    order: BTreeMap<u64, Arc<str>>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    publication: Publication,
    expires: Time,
    number: u64,
}

impl History {
    /// Keeps an event in the place of the channel's last one, for as long as `ttl` and `most` bytes allow.
    pub(super) fn put(&mut self, publication: &Publication, now: Time, ttl: Duration, most: usize) {
        let channel = &publication.channel;
        self.remove(channel);
        let bytes = cost(publication);
        if bytes > most || ttl.is_zero() {
            return;
        }
        while self.bytes + bytes > most {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.order.insert(number, Arc::clone(channel));
        // A publisher does not wait until it is forgotten.
        let publication = Publication { receipt: None, ..publication.clone() };
        self.events.insert(Arc::clone(&publication.channel), Kept { publication, expires: now + ttl, number });
    }

    /// The channel's last event and how long it will be kept.
    pub(super) fn last(&self, channel: &str, now: Time) -> Option<(&Publication, Duration)> {
        let cached = self.events.get(channel).filter(|cached| cached.expires > now)?;
        Some((&cached.publication, cached.expires.since(now)))
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Forgets what is too old. To be called from time to time: it looks at the oldest ones only.
    pub(super) fn sweep(&mut self, now: Time) {
        for _ in 0..MOST_SWEPT {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            // One that was put with a longer life than its successors holds them up for as long; the bound of bytes holds all the same.
            if self.events.get(oldest).is_some_and(|cached| cached.expires > now) {
                return;
            }
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
    }

    /// Forgets the channel's last event.
    pub(super) fn remove(&mut self, channel: &str) {
        let Some(cached) = self.events.remove(channel) else { return };
        self.order.remove(&cached.number);
        self.bytes -= cost(&cached.publication);
        give_back(&mut self.events);
    }
}

fn cost(publication: &Publication) -> usize {
    publication.bytes() + OVERHEAD
}

/// Bytes that the tables take for each event, about.
const OVERHEAD: usize = 300;

/// Events that one call of [`History::sweep`] forgets at the most: a shard must not stand still.
const MOST_SWEPT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::super::command::Event;
    use super::*;
    use crate::pusher::payload::Payload;
    use std::time::Instant;

    const MINUTE: Duration = Duration::from_secs(60);

    fn publication(channel: &str, data: &str) -> Publication {
        let event = Event::published("event", &Payload::from(data));
        Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None }
    }

    fn put(history: &mut History, channel: &str, data: &str, now: Time, most: usize) {
        history.put(&publication(channel, data), now, MINUTE, most);
    }

    fn found(history: &History, channel: &str, now: Time) -> Option<String> {
        history.last(channel, now).map(|(publication, _)| publication.data().into_owned())
    }

    #[test]
    fn the_last_event_is_kept_for_its_time() {
        let mut history = History::default();
        put(&mut history, "cache-a", "first", Time::ZERO, 1 << 20);
        put(&mut history, "cache-a", "second", Time::ZERO + MINUTE / 2, 1 << 20);
        assert_eq!(found(&history, "cache-a", Time::ZERO + MINUTE).as_deref(), Some("second"));
        assert_eq!(history.last("cache-a", Time::ZERO + MINUTE).map(|(_, ttl)| ttl), Some(MINUTE / 2));
        assert_eq!(found(&history, "cache-a", Time::ZERO + MINUTE * 3 / 2), None);
        history.sweep(Time::ZERO + MINUTE * 3 / 2);
        assert!(history.events.is_empty() && history.order.is_empty() && history.bytes == 0);
    }

    #[test]
    fn an_event_takes_its_bytes_and_its_place_in_the_tables() {
        let mut history = History::default();
        let most = "cache-a".len() + "event".len() + r#""x""#.len() + OVERHEAD;
        put(&mut history, "cache-a", "x", Time::ZERO, most - 1);
        assert_eq!((found(&history, "cache-a", Time::ZERO), history.bytes), (None, 0));
        put(&mut history, "cache-a", "x", Time::ZERO, most);
        assert_eq!((found(&history, "cache-a", Time::ZERO).as_deref(), history.bytes), (Some("x"), most));
    }

    #[test]
    fn events_that_are_forgotten_keep_no_memory() {
        let mut history = History::default();
        for number in 0..1000 {
            put(&mut history, &format!("cache-{number}"), "x", Time::ZERO, 1 << 20);
        }
        history.sweep(Time::ZERO + MINUTE);
        assert!(history.events.capacity() <= 28, "{}", history.events.capacity());
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut history = History::default();
        let most = 3 * cost(&publication("cache-0", &"x".repeat(1000)));
        for number in 0..10 {
            put(&mut history, &format!("cache-{number}"), &"x".repeat(1000), Time::ZERO, most);
            assert!(history.bytes <= most);
        }
        let kept: Vec<bool> =
            (0..10).map(|number| found(&history, &format!("cache-{number}"), Time::ZERO).is_some()).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 3);
        assert_eq!(kept[7..], [true; 3]);
        put(&mut history, "cache-9", &"x".repeat(5000), Time::ZERO, most);
        assert_eq!(
            found(&history, "cache-9", Time::ZERO),
            None,
            "larger than all of the room, and the old one is wrong now"
        );
    }
}
