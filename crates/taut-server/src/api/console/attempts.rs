//! How often somebody may try to log in.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::limit::{TokenBucket, network};

/// What is left of the attempts: of each address, so that who guesses does not lock everybody out, and of all together, for who guesses from many.
///
/// Addresses share a number of buckets by their hash, so memory is constant. Which of them share one nobody can find out.
#[derive(Debug)]
pub(super) struct Attempts {
    all: TokenBucket,
    by_address: Box<[TokenBucket]>,
    hasher: RandomState,
}

impl Attempts {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: TokenBucket::new(20, Duration::from_secs(1), now),
            by_address: (0..BUCKETS).map(|_| TokenBucket::new(5, Duration::from_secs(5), now)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Takes one, or says how long it takes until there is one.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let bucket = self.hasher.hash_one(network(address)) % self.by_address.len() as u64;
        // Its own first, or a single address would use up what all have together.
        self.by_address[bucket as usize].take(now)?;
        self.all.take(now)
    }
}

/// Some 16 KiB of them.
const BUCKETS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// How many attempts of an address are let through.
    fn through(attempts: &mut Attempts, from: &str, now: Instant) -> usize {
        (0..100).take_while(|_| attempts.take(address(from), now).is_ok()).count()
    }

    /// Another address that has a bucket of its own.
    fn stranger(attempts: &Attempts, to: &str) -> String {
        let bucket = |text: &str| attempts.hasher.hash_one(network(address(text))) % BUCKETS as u64;
        (0..=255).map(|number| format!("192.0.2.{number}")).find(|text| bucket(text) != bucket(to)).expect("another")
    }

    #[test]
    fn an_address_has_a_few_at_once_and_one_every_five_seconds() {
        let now = Instant::now();
        let mut attempts = Attempts::new(now);
        assert_eq!(through(&mut attempts, "198.51.100.1", now), 5);
        assert_eq!(attempts.take(address("198.51.100.1"), now), Err(5 * SECOND));
        assert_eq!(attempts.take(address("::ffff:198.51.100.1"), now + 4 * SECOND), Err(SECOND));
        assert_eq!(through(&mut attempts, "198.51.100.1", now + 5 * SECOND), 1);
    }

    #[test]
    fn who_guesses_locks_nobody_else_out() {
        let now = Instant::now();
        let mut attempts = Attempts::new(now);
        assert_eq!(through(&mut attempts, "198.51.100.1", now), 5);
        for _ in 0..1000 {
            assert!(attempts.take(address("198.51.100.1"), now).is_err());
        }
        let stranger = stranger(&attempts, "198.51.100.1");
        assert_eq!(through(&mut attempts, &stranger, now), 5);
    }

    #[test]
    fn all_the_addresses_of_one_network_are_one_guesser() {
        let now = Instant::now();
        let mut attempts = Attempts::new(now);
        assert_eq!(through(&mut attempts, "2001:db8::1", now), 5);
        assert_eq!(through(&mut attempts, "2001:db8::ffff:1", now), 0);
    }

    #[test]
    fn whoever_has_a_thousand_addresses_has_no_more_than_all_have_together() {
        let now = Instant::now();
        let mut attempts = Attempts::new(now);
        let all = |attempts: &mut Attempts, now| {
            (0..1000_u32).filter(|number| attempts.take(IpAddr::V4((*number << 8).into()), now).is_ok()).count()
        };
        assert_eq!(all(&mut attempts, now), 20);
        assert_eq!(all(&mut attempts, now + SECOND), 1);
    }
}
