//! How many requests may be under way at a time, and how many of them one address may have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for requests. An address may take one as long as it has fewer than are free: alone it may have half of them, and
/// the more are taken, the fewer it gets. So whoever takes all that it can leaves room for the next, and a proxy that
/// speaks for everybody has half without being known as one.
#[derive(Debug)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    free: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new(Taken { free: count, by_address: HashMap::new() }))
    }

    /// A place for a request from this address, if it may have one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = of_whom(address);
        let mut taken = self.taken();
        let count = taken.by_address.get(&address).copied().unwrap_or_default();
        if count >= taken.free {
            return None;
        }
        taken.free -= 1;
        taken.by_address.insert(address, count + 1);
        Some(Place { places: Arc::clone(self), address })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.free += 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Whoever has one address of IPv6 has all of its network of 64 bits.
fn of_whom(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// Takes as many places as there are for it.
    fn all(places: &Arc<Places>, text: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(address(text))).collect()
    }

    #[test]
    fn one_address_has_half_of_the_places_and_others_of_what_is_left() {
        let places = Arc::new(Places::new(1000));
        let first = all(&places, "192.0.2.1");
        let second = all(&places, "192.0.2.2");
        let third = all(&places, "192.0.2.3");
        assert_eq!((first.len(), second.len(), third.len()), (500, 250, 125));
        assert!(places.take(address("192.0.2.4")).is_some());
        drop(first);
        assert_eq!(all(&places, "192.0.2.3").len(), 250, "what is given back is there for everybody");
    }

    #[test]
    fn places_that_are_given_back_leave_nothing() {
        let places = Arc::new(Places::new(10));
        for _ in 0..3 {
            drop((all(&places, "192.0.2.1"), all(&places, "2001:db8::1")));
        }
        let taken = places.taken();
        assert_eq!((taken.free, taken.by_address.len()), (10, 0));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let places = Arc::new(Places::new(100));
        let held = all(&places, "2001:db8:0:1::1");
        assert!(places.take(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(places.take(address("2001:db8:0:2::1")).is_some());
        drop(held);
        let held = all(&places, "::ffff:192.0.2.1");
        assert!(places.take(address("192.0.2.1")).is_none() && places.take(address("::ffff:192.0.2.2")).is_some());
        drop(held);
    }
}
