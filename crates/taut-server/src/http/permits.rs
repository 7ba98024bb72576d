//! Limits the requests in progress, all of them together and those of one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limit::network;

/// Permits for requests. A network gets one while it holds fewer than are free: alone it may hold half of them, and the
/// more others hold, the fewer it gets. So a flood from one network leaves permits for the next, and a proxy that speaks
/// for everybody has half of them without being known as a proxy.
#[derive(Debug)]
pub(super) struct RequestLimiter(Mutex<Held>);

#[derive(Debug)]
struct Held {
    free: usize,
    by_network: HashMap<u128, usize>,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub(super) struct RequestPermit {
    limiter: Arc<RequestLimiter>,
    network: u128,
}

impl RequestLimiter {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new(Held { free: count, by_network: HashMap::new() }))
    }

    /// A permit for a request from this address, if its network may have one more.
    pub(super) fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<RequestPermit> {
        let network = network(address);
        let mut held = self.held();
        let count = held.by_network.get(&network).copied().unwrap_or_default();
        if count >= held.free {
            return None;
        }
        held.free -= 1;
        held.by_network.insert(network, count + 1);
        Some(RequestPermit { limiter: Arc::clone(self), network })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let mut held = self.limiter.held();
        held.free += 1;
        if let Some(count) = held.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                held.by_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// As many as it can have.
    fn all(limiter: &Arc<RequestLimiter>, text: &str) -> Vec<RequestPermit> {
        std::iter::from_fn(|| limiter.acquire(address(text))).collect()
    }

    #[test]
    fn one_address_gets_half_of_the_permits_and_others_half_of_what_is_left() {
        let limiter = Arc::new(RequestLimiter::new(1000));
        let first = all(&limiter, "192.0.2.1");
        let second = all(&limiter, "192.0.2.2");
        let third = all(&limiter, "192.0.2.3");
        assert_eq!((first.len(), second.len(), third.len()), (500, 250, 125));
        assert!(limiter.acquire(address("192.0.2.4")).is_some());
        drop(first);
        assert_eq!(all(&limiter, "192.0.2.3").len(), 250, "what is given back is there for everybody");
    }

    #[test]
    fn permits_that_are_dropped_leave_nothing() {
        let limiter = Arc::new(RequestLimiter::new(10));
        for _ in 0..3 {
            drop((all(&limiter, "192.0.2.1"), all(&limiter, "2001:db8::1")));
        }
        let held = limiter.held();
        assert_eq!((held.free, held.by_network.len()), (10, 0));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let limiter = Arc::new(RequestLimiter::new(100));
        let held = all(&limiter, "2001:db8:0:1::1");
        assert!(limiter.acquire(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(limiter.acquire(address("2001:db8:0:2::1")).is_some());
        drop(held);
        let held = all(&limiter, "::ffff:192.0.2.1");
        assert!(
            limiter.acquire(address("192.0.2.1")).is_none() && limiter.acquire(address("::ffff:192.0.2.2")).is_some()
        );
        drop(held);
    }
}
