//! One timer wheel for all deadlines of a shard.

use std::time::Duration;

use taut_proto::Time;

/// Deadlines in slots of a tenth of a second. Setting one costs a push; a deadline beyond the wheel's turn comes up
/// early, and whoever set it sets it again.
///
/// A deadline that moved is not taken out: what comes up is asked whether it is really due. So a connection that
/// is busy costs its wheel nothing.
pub(crate) struct Deadlines {
    slots: Vec<Vec<usize>>,
    /// The next tick to come up, in slots since the start.
    next: u64,
    /// The first tick with something in its slot, or the end of time: every turn of the loop asks, so it is kept.
    earliest: u64,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Vec::new(); SLOTS], next: 0, earliest: u64::MAX }
    }

    /// Sets a deadline for `key`; gives the tick at which it will come up.
    pub(crate) fn set(&mut self, at: Time, key: usize) -> u64 {
        // Rounded up: nothing comes up before its time.
        let tick = Self::tick_of(at).clamp(self.next, self.next + SLOTS as u64 - 1);
        self.slots[(tick % SLOTS as u64) as usize].push(key);
        self.earliest = self.earliest.min(tick);
        tick
    }

    /// The tick at which a deadline would come up if the wheel were large enough.
    pub(crate) fn tick_of(at: Time) -> u64 {
        // At least 1: 0 says that none is set.
        at.as_micros().div_ceil(SLOT_MICROS).max(1)
    }

    /// How long until the next slot with something in it.
    pub(crate) fn until_next(&self, now: Time) -> Option<Duration> {
        (self.earliest < u64::MAX).then(|| Time::from_micros(self.earliest * SLOT_MICROS) - now)
    }

    /// Takes what has come up by `now`: pairs of a key and the tick it was set for.
    pub(crate) fn expire(&mut self, now: Time, expired: &mut Vec<(usize, u64)>) {
        let last = now.as_micros() / SLOT_MICROS;
        if last < self.earliest {
            self.next = self.next.max(last + 1);
            return;
        }
        // After a long sleep every slot comes up once; more turns would find nothing.
        let end = (last + 1).min(self.next + SLOTS as u64);
        for tick in self.next..end {
            let slot = &mut self.slots[(tick % SLOTS as u64) as usize];
            expired.extend(slot.drain(..).map(|key| (key, tick)));
            if slot.capacity() > KEPT {
                *slot = Vec::new();
            }
        }
        self.next = self.next.max(last + 1);
        self.earliest = self.first_from(self.next);
    }

    fn first_from(&self, tick: u64) -> u64 {
        let mut ticks = tick..tick + SLOTS as u64;
        ticks.find(|tick| !self.slots[(tick % SLOTS as u64) as usize].is_empty()).unwrap_or(u64::MAX)
    }
}

/// 51.2 seconds a turn: longer than a heartbeat, so that each comes up once.
const SLOTS: usize = 512;
const SLOT_MICROS: u64 = 100_000;

/// Entries whose room a slot keeps when it is empty.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(deadlines: &mut Deadlines, millis: u64) -> Vec<usize> {
        let mut expired = Vec::new();
        deadlines.expire(Time::from_millis(millis), &mut expired);
        expired.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn nothing_comes_up_before_its_time_nor_later_than_a_slot() {
        let mut deadlines = Deadlines::new();
        deadlines.set(Time::from_millis(250), 1);
        assert_eq!(deadlines.until_next(Time::ZERO), Some(Duration::from_millis(300)));
        assert!(expired(&mut deadlines, 299).is_empty());
        assert_eq!(expired(&mut deadlines, 300), [1]);
        assert_eq!(deadlines.until_next(Time::ZERO), None);
    }

    #[test]
    fn a_deadline_beyond_the_turn_comes_up_early() {
        let mut deadlines = Deadlines::new();
        deadlines.set(Time::from_millis(3_600_000), 1);
        assert_eq!(expired(&mut deadlines, 52_000), [1]);
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut deadlines = Deadlines::new();
        for key in 0..1000 {
            deadlines.set(Time::from_millis(key * 50), key as usize);
        }
        let mut all = expired(&mut deadlines, 10_000_000);
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        deadlines.set(Time::from_millis(1), 7);
        assert_eq!(expired(&mut deadlines, 10_000_100), [7], "what is past comes up at the next slot");
    }
}
