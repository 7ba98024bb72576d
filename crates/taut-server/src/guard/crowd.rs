//! How many clients wait for an answer from elsewhere, so that nobody takes all the places.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limit::network;

/// Handshakes that wait for an answer, counted by app and by the network that they come from.
///
/// Whoever knows an app's key, which is public, can have any number of them wait. Half of the places are for other apps, and when an app has many
/// waiting, no network may have most of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_app: HashMap<usize, usize>,
    by_network: HashMap<(usize, u128), usize>,
}

/// A place among those who wait, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    app: usize,
    network: u128,
}

impl Crowd {
    /// A place for a client of an app, by the app's index, if there is one for it.
    pub(super) fn enter(&self, app: usize, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut counts = self.counts();
        let of_app = counts.by_app.get(&app).copied().unwrap_or_default();
        let of_network = counts.by_network.get(&(app, network)).copied().unwrap_or_default();
        let is_one_too_many = counts.all >= MOST
            || of_app >= MOST_OF_AN_APP
            || (of_app >= MANY_OF_AN_APP && of_network >= MOST_OF_A_NETWORK);
        if is_one_too_many {
            return None;
        }
        counts.all += 1;
        *counts.by_app.entry(app).or_default() += 1;
        *counts.by_network.entry((app, network)).or_default() += 1;
        Some(Place { crowd: self.clone(), app, network })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        counts.all -= 1;
        one_less(&mut counts.by_app, &self.app);
        one_less(&mut counts.by_network, &(self.app, self.network));
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Clients of all apps.
const MOST: usize = 8192;

const MOST_OF_AN_APP: usize = MOST / 2;

/// From here on a network has a bound of its own.
const MANY_OF_AN_APP: usize = MOST_OF_AN_APP / 2;
const MOST_OF_A_NETWORK: usize = MANY_OF_AN_APP / 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + number).into())
    }

    /// As many places as can be had.
    fn flood(crowd: &Crowd, app: usize, from: u32) -> Vec<Place> {
        std::iter::from_fn(|| crowd.enter(app, address(from))).collect()
    }

    #[test]
    fn whoever_floods_an_app_keeps_out_neither_its_other_clients_nor_other_apps() {
        let crowd = Crowd::default();
        assert_eq!(flood(&crowd, 0, 1).len(), MANY_OF_AN_APP);
        let places = flood(&crowd, 0, 1);
        assert!(crowd.enter(0, address(1)).is_none());
        let others: Vec<_> = (2..100).map(|from| crowd.enter(0, address(from)).expect("room")).collect();
        let many: Vec<_> = (100..200).flat_map(|from| flood(&crowd, 0, from)).collect();
        assert_eq!(places.len() + others.len() + many.len(), MOST_OF_AN_APP);
        assert!(crowd.enter(0, address(1000)).is_none(), "the app has its half");
        assert!(crowd.enter(1, address(1)).is_some(), "another app has its own");
    }

    #[test]
    fn a_place_is_given_back() {
        let crowd = Crowd::default();
        drop((flood(&crowd, 0, 1), flood(&crowd, 1, 2)));
        let counts = crowd.counts();
        assert_eq!((counts.all, counts.by_app.len(), counts.by_network.len()), (0, 0, 0));
    }
}
