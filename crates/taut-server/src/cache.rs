//! The last event of each cache channel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Prepared, Time};

/// The last events of an app's cache channels, for a time and within a bound of bytes: the oldest go first.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    events: HashMap<Arc<str>, Cached>,
    /// The channels in the order in which their events came.
    order: BTreeMap<u64, Arc<str>>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Cached {
    message: Prepared,
    expires: Time,
    number: u64,
}

impl Cache {
    /// Keeps an event in the place of the channel's last one, for as long as `ttl` and `most` bytes allow.
    pub(crate) fn put(&mut self, channel: &Arc<str>, message: &Prepared, now: Time, ttl: Duration, most: usize) {
        self.remove(channel);
        let bytes = cost(channel, message);
        if bytes > most || ttl.is_zero() {
            return;
        }
        while self.bytes + bytes > most {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.order.insert(number, Arc::clone(channel));
        self.events.insert(Arc::clone(channel), Cached { message: message.clone(), expires: now + ttl, number });
    }

    /// The channel's last event and how long it will be kept.
    pub(crate) fn find(&self, channel: &str, now: Time) -> Option<(&Prepared, Duration)> {
        let cached = self.events.get(channel).filter(|cached| cached.expires > now)?;
        Some((&cached.message, cached.expires.since(now)))
    }

    /// Forgets what is too old. To be called from time to time: it looks at the oldest ones only.
    pub(crate) fn sweep(&mut self, now: Time) {
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

    fn remove(&mut self, channel: &str) {
        let Some((channel, cached)) = self.events.remove_entry(channel) else { return };
        self.order.remove(&cached.number);
        self.bytes -= cost(&channel, &cached.message);
        if self.events.len() < self.events.capacity() / 8 {
            self.events.shrink_to(self.events.len() * 2);
        }
    }
}

fn cost(channel: &str, message: &Prepared) -> usize {
    channel.len() + message.len() + OVERHEAD
}

/// Bytes that the tables take for each event, about.
const OVERHEAD: usize = 300;

/// Events that one call of [`Cache::sweep`] forgets at the most: a shard must not stand still.
const MOST_SWEPT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn put(cache: &mut Cache, channel: &str, text: &str, now: Time, most: usize) {
        cache.put(&channel.into(), &Prepared::new(text), now, MINUTE, most);
    }

    fn found(cache: &Cache, channel: &str, now: Time) -> Option<String> {
        cache.find(channel, now).map(|(message, _)| String::from_utf8_lossy(message.payload()).into_owned())
    }

    #[test]
    fn the_last_event_is_kept_for_its_time() {
        let mut cache = Cache::default();
        put(&mut cache, "cache-a", "first", Time::ZERO, 1 << 20);
        put(&mut cache, "cache-a", "second", Time::ZERO + MINUTE / 2, 1 << 20);
        assert_eq!(found(&cache, "cache-a", Time::ZERO + MINUTE).as_deref(), Some("second"));
        assert_eq!(cache.find("cache-a", Time::ZERO + MINUTE).map(|(_, ttl)| ttl), Some(MINUTE / 2));
        assert_eq!(found(&cache, "cache-a", Time::ZERO + MINUTE * 3 / 2), None);
        cache.sweep(Time::ZERO + MINUTE * 3 / 2);
        assert!(cache.events.is_empty() && cache.order.is_empty() && cache.bytes == 0);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut cache = Cache::default();
        let most = 3 * cost("cache-0", &Prepared::new("x".repeat(1000).as_str()));
        for number in 0..10 {
            put(&mut cache, &format!("cache-{number}"), &"x".repeat(1000), Time::ZERO, most);
            assert!(cache.bytes <= most);
        }
        let kept: Vec<bool> =
            (0..10).map(|number| found(&cache, &format!("cache-{number}"), Time::ZERO).is_some()).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 3);
        assert_eq!(kept[7..], [true; 3]);
        put(&mut cache, "cache-9", &"x".repeat(5000), Time::ZERO, most);
        assert_eq!(
            found(&cache, "cache-9", Time::ZERO),
            None,
            "larger than all of the room, and the old one is wrong now"
        );
    }
}
