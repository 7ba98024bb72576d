//! Token buckets: a burst and a rate; and which clients share one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The network that an address counts for. Of IPv6 everybody has one of 2^64 addresses (RFC 6177 §2).
pub(crate) fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// A bucket of tokens that fills up steadily; whoever wants to do something takes one.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    capacity: u32,
    interval: Duration,
    /// When the bucket will be full if nobody takes a token before. All there is to remember.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens, at least one, into which one comes back per `interval`.
    pub(crate) fn new(capacity: u32, interval: Duration, now: Instant) -> Self {
        Self { capacity: capacity.max(1), interval, full_at: now }
    }

    /// Takes a token, or says how long it takes until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.interval;
        let most = now + self.interval * self.capacity;
        if full_at > most {
            return Err(full_at - most);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_allowed_up_to_the_capacity() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(3, SECOND, now);
        assert_eq!([bucket.take(now), bucket.take(now), bucket.take(now)], [Ok(()); 3]);
        assert_eq!(bucket.take(now), Err(SECOND));
        assert_eq!(bucket.take(now + SECOND / 4), Err(SECOND * 3 / 4));
        assert_eq!(bucket.take(now + SECOND), Ok(()));
        assert_eq!(bucket.take(now + SECOND), Err(SECOND));
    }

    #[test]
    fn a_long_pause_fills_the_bucket_and_no_more() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(2, SECOND, now);
        let later = now + SECOND * 1000;
        assert_eq!([bucket.take(later), bucket.take(later)], [Ok(()); 2]);
        assert_eq!(bucket.take(later), Err(SECOND));
    }
}
