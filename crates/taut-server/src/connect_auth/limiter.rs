//! Limits the handshakes that wait for an application's answer, so that no app and no network holds all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limit::network;
use crate::place::AppIndex;

/// Permits for handshakes that wait for an answer, counted by app and by the network that they come from.
///
/// An app's key is public, so anybody can make any number of handshakes wait. Half of the permits are for other apps, and
/// while an app holds many, no network may hold most of them.
#[derive(Clone, Debug, Default)]
pub(super) struct CallbackLimiter(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_app: HashMap<AppIndex, usize>,
    by_network: HashMap<(AppIndex, u128), usize>,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub(super) struct CallbackPermit {
    limiter: CallbackLimiter,
    app: AppIndex,
    network: u128,
}

impl CallbackLimiter {
    /// A permit for a client of an app, by the app's index, if there is one for it.
    pub(super) fn acquire(&self, app: AppIndex, address: IpAddr) -> Option<CallbackPermit> {
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
        Some(CallbackPermit { limiter: self.clone(), app, network })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallbackPermit {
    fn drop(&mut self) {
        let mut counts = self.limiter.counts();
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

    /// As many permits as can be had.
    fn flood(limiter: &CallbackLimiter, app: usize, from: u32) -> Vec<CallbackPermit> {
        std::iter::from_fn(|| limiter.acquire(AppIndex::new(app), address(from))).collect()
    }

    #[test]
    fn whoever_floods_an_app_keeps_out_neither_its_other_clients_nor_other_apps() {
        let limiter = CallbackLimiter::default();
        assert_eq!(flood(&limiter, 0, 1).len(), MANY_OF_AN_APP);
        let permits = flood(&limiter, 0, 1);
        assert!(limiter.acquire(AppIndex::new(0), address(1)).is_none());
        let others: Vec<_> =
            (2..100).map(|from| limiter.acquire(AppIndex::new(0), address(from)).expect("room")).collect();
        let many: Vec<_> = (100..200).flat_map(|from| flood(&limiter, 0, from)).collect();
        assert_eq!(permits.len() + others.len() + many.len(), MOST_OF_AN_APP);
        assert!(limiter.acquire(AppIndex::new(0), address(1000)).is_none(), "the app has its half");
        assert!(limiter.acquire(AppIndex::new(1), address(1)).is_some(), "another app has its own");
    }

    #[test]
    fn a_permit_that_is_dropped_leaves_nothing() {
        let limiter = CallbackLimiter::default();
        drop((flood(&limiter, 0, 1), flood(&limiter, 1, 2)));
        let counts = limiter.counts();
        assert_eq!((counts.all, counts.by_app.len(), counts.by_network.len()), (0, 0, 0));
    }
}
