//! Outboxes that nobody needs at the moment.

use std::time::Duration;

use taut_proto::{Outbox, Time};

/// The outboxes of a shard that wait for their next use: an idle connection has none, and a message to ten thousand connections needs ten thousand,
/// for as long as it takes to write them.
///
/// Boxed, as a connection holds them: they go in and out without being moved or allocated.
pub(crate) struct Outboxes {
    #[expect(clippy::vec_box, reason = "see above")]
    idle: Vec<Box<Outbox>>,
    /// What they hold, empty as they are.
    bytes: usize,
    /// The fewest that were idle since `since`: that many nobody has needed.
    fewest: usize,
    since: Time,
}

impl Outboxes {
    pub(crate) fn new() -> Self {
        Self { idle: Vec::new(), bytes: 0, fewest: 0, since: Time::ZERO }
    }

    #[expect(clippy::unnecessary_box_returns, reason = "see above")]
    pub(crate) fn take(&mut self) -> Box<Outbox> {
        let Some(outbox) = self.idle.pop() else { return Box::default() };
        self.bytes -= cost(&outbox);
        self.fewest = self.fewest.min(self.idle.len());
        outbox
    }

    /// Takes back an outbox that is empty. Those that grew large, and those beyond what one tick commonly needs, go back to the allocator.
    pub(crate) fn give(&mut self, outbox: Box<Outbox>) {
        let cost = cost(&outbox);
        if cost <= LARGEST && self.bytes + cost <= MOST {
            self.bytes += cost;
            self.idle.push(outbox);
        }
    }

    /// Gives those back to the allocator that nobody has needed for a while.
    pub(crate) fn trim(&mut self, now: Time) {
        if now.since(self.since) < WHILE {
            return;
        }
        for outbox in self.idle.drain(..self.fewest) {
            self.bytes -= cost(&outbox);
        }
        if self.idle.len() < self.idle.capacity() / 4 {
            self.idle.shrink_to(self.idle.len() * 2);
        }
        (self.fewest, self.since) = (self.idle.len(), now);
    }
}

fn cost(outbox: &Outbox) -> usize {
    size_of::<Outbox>() + outbox.capacity()
}

/// Bytes that idle outboxes hold together at the most: enough for ten thousand that had a few small messages.
const MOST: usize = 8 << 20;

/// Bytes that one of them may hold.
const LARGEST: usize = 160 << 10;

/// How long an outbox is kept that nobody needs.
const WHILE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_box_returns, reason = "it is how they are given")]
    fn used(bytes: usize) -> Box<Outbox> {
        let mut outbox = Box::new(Outbox::new());
        outbox.push_bytes(&vec![0; bytes]);
        outbox.consume(bytes);
        outbox
    }

    #[test]
    fn what_a_tick_needed_is_there_for_the_next_and_gone_a_while_after() {
        let mut outboxes = Outboxes::new();
        let second = |number| Time::ZERO + WHILE * number;
        for _ in 0..100 {
            outboxes.give(used(100));
        }
        let taken: Vec<_> = (0..60).map(|_| outboxes.take()).collect();
        assert!(taken.iter().all(|outbox| outbox.capacity() >= 100));
        for outbox in taken {
            outboxes.give(outbox);
        }
        outboxes.trim(second(1));
        assert_eq!(outboxes.idle.len(), 100, "the time before the first is not known");
        drop(outboxes.take());
        outboxes.trim(second(2));
        assert_eq!(outboxes.idle.len(), 0, "none but one was needed");
        assert_eq!(outboxes.bytes, 0);
    }

    #[test]
    fn they_are_bounded_in_bytes_each_and_together() {
        let mut outboxes = Outboxes::new();
        outboxes.give(used(LARGEST + 1));
        assert_eq!(outboxes.idle.len(), 0);
        for _ in 0..1000 {
            outboxes.give(used(100_000));
        }
        assert!(outboxes.bytes <= MOST && outboxes.idle.len() > 50, "{}", outboxes.idle.len());
    }
}
