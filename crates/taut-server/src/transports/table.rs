//! The sessions that there are, and which of them makes room when there are too many.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::session::Session;
use crate::limit::network;

/// Sessions by name, bounded in number.
///
/// A request costs a client nothing, and one that invents a name begins a session. So a newcomer is not turned away because others have filled the
/// table: a session that nobody listens to makes room, of the network that has most. Whoever floods displaces its own sessions.
#[derive(Debug)]
pub(super) struct Table {
    most: usize,
    most_of_one: usize,
    entries: HashMap<Arc<str>, Entry>,
    /// The sessions of each network, in the order in which they are asked to make room.
    networks: HashMap<u128, BTreeMap<u64, Arc<str>>>,
    /// How many sessions each network has; the last one has most.
    sizes: BTreeSet<(usize, u128)>,
    /// The next place in that order.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    network: u128,
    place: u64,
}

/// Every session is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Table {
    /// For `most` sessions at a time, and `most_of_one` of a network.
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        let (entries, networks, sizes) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        Self { most, most_of_one, entries, networks, sizes, next: 0 }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Session>> {
        self.entries.get(name).map(|entry| &entry.session)
    }

    /// Adds a session under a name that is free. Gives the one that made room for it, which is to be ended.
    pub(super) fn insert(
        &mut self,
        name: &str,
        address: IpAddr,
        session: Arc<Session>,
        now: Instant,
    ) -> Result<Option<Arc<Session>>, Full> {
        let network = network(address);
        let own = self.networks.get(&network).map_or(0, BTreeMap::len);
        let displaced = if own >= self.most_of_one {
            Some(self.idle(network, now).ok_or(Full)?)
        } else if self.entries.len() >= self.most {
            Some(self.displaceable(network, own, now).ok_or(Full)?)
        } else {
            None
        };
        let displaced = displaced.and_then(|name| self.take(&name));
        self.put(name.into(), Entry { session, network, place: 0 });
        Ok(displaced)
    }

    /// Removes a session, if it is the one that has this name; whether it was.
    pub(super) fn remove(&mut self, name: &str, session: &Arc<Session>) -> bool {
        let is_it = self.get(name).is_some_and(|found| Arc::ptr_eq(found, session));
        is_it && self.take(name).is_some()
    }

    /// Which session makes room for one of this network, which has `own` by now.
    fn displaceable(&mut self, network: u128, own: usize, now: Instant) -> Option<Arc<str>> {
        let largest: Vec<(usize, u128)> = self.sizes.iter().rev().take(MOST_NETWORKS).copied().collect();
        let networks = largest.iter().map(|(_, network)| *network).chain([network]);
        for network in networks {
            if let Some(name) = self.idle(network, now) {
                return Some(name);
            }
        }
        // All that were looked at are in use. Nobody gives up one for a network that has as many.
        let (size, network) = largest.first()?;
        let first = self.networks.get(network).and_then(|names| names.values().next());
        first.filter(|_| *size > own + 1).map(Arc::clone)
    }

    /// A session of this network that nobody listens to. Only some are looked at; the others have their turn the next time.
    fn idle(&mut self, network: u128, now: Instant) -> Option<Arc<str>> {
        let names = self.networks.get_mut(&network)?;
        for _ in 0..names.len().min(MOST_LOOKED_AT) {
            let (_, name) = names.pop_first()?;
            let place = self.next;
            self.next += 1;
            names.insert(place, Arc::clone(&name));
            let entry = self.entries.get_mut(&name)?;
            entry.place = place;
            if entry.session.makes_room(now) {
                return Some(name);
            }
        }
        None
    }

    fn put(&mut self, name: Arc<str>, mut entry: Entry) {
        entry.place = self.next;
        self.next += 1;
        let names = self.networks.entry(entry.network).or_default();
        self.sizes.remove(&(names.len(), entry.network));
        names.insert(entry.place, Arc::clone(&name));
        self.sizes.insert((names.len(), entry.network));
        self.entries.insert(name, entry);
    }

    fn take(&mut self, name: &str) -> Option<Arc<Session>> {
        let Entry { session, network, place } = self.entries.remove(name)?;
        let names = self.networks.get_mut(&network)?;
        self.sizes.remove(&(names.len(), network));
        names.remove(&place);
        if names.is_empty() {
            self.networks.remove(&network);
        } else {
            self.sizes.insert((names.len(), network));
        }
        Some(session)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Sessions of a network that are looked at before somebody is turned away.
const MOST_LOOKED_AT: usize = 32;

/// Networks with most sessions that are looked at.
const MOST_NETWORKS: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::session::Timeouts;
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Timeouts = Timeouts {
        interval: Duration::from_secs(25),
        introduction: Duration::from_secs(5),
        silence: Duration::from_secs(55),
        absence: Duration::from_secs(10),
    };

    fn session() -> Arc<Session> {
        Arc::new(Session::new(PATIENCE).0)
    }

    /// One that a client listens to.
    fn in_use() -> Arc<Session> {
        let session = session();
        session.pretend_listening();
        session
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + number).into())
    }

    #[test]
    fn whoever_fills_the_table_makes_room_for_others() {
        let now = Instant::now();
        let mut table = Table::new(10, 10);
        for number in 0..1000 {
            assert!(table.insert(&format!("flood-{number}"), address(1), session(), now).is_ok());
        }
        assert_eq!(table.len(), 10);
        for number in 0..5 {
            let displaced = table.insert(&format!("client-{number}"), address(2), in_use(), now);
            assert!(displaced.is_ok_and(|displaced| displaced.is_some()));
        }
        for number in 0..1000 {
            assert!(table.insert(&format!("again-{number}"), address(1), session(), now).is_ok());
        }
        assert!((0..5).all(|number| table.get(&format!("client-{number}")).is_some()), "who is listened to stays");
    }

    #[test]
    fn where_all_sessions_are_in_use_the_network_with_most_has_one_less() {
        let now = Instant::now();
        let mut table = Table::new(10, 10);
        for number in 0..10 {
            assert_eq!(
                table.insert(&number.to_string(), address(1), in_use(), now).map(|one| one.is_some()),
                Ok(false)
            );
        }
        assert!(table.insert("one too many", address(1), session(), now).is_err());
        for number in 0..5 {
            assert!(table.insert(&format!("other-{number}"), address(2), in_use(), now).is_ok());
        }
        assert!(table.insert("more than its share", address(2), in_use(), now).is_err());
        assert!(table.insert("third", address(3), in_use(), now).is_ok());
        assert_eq!(table.len(), 10);
    }

    #[test]
    fn a_network_has_no_more_than_its_own_bound_though_there_is_room() {
        let now = Instant::now();
        let mut table = Table::new(10, 2);
        let mut begin = |name: &str, from: &str| {
            let address: IpAddr = from.parse().expect(from);
            table.insert(name, address, session(), now).map(|displaced| displaced.is_some())
        };
        assert_eq!(begin("a", "2001:db8::1"), Ok(false));
        assert_eq!(begin("b", "2001:db8::2"), Ok(false));
        assert_eq!(begin("c", "2001:db8::3"), Ok(true));
        assert_eq!(begin("d", "2001:db8:0:1::1"), Ok(false));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_session_is_removed_by_itself_and_not_by_one_that_had_its_name() {
        let now = Instant::now();
        let mut table = Table::new(1, 1);
        let (first, second) = (session(), session());
        assert!(table.insert("name", address(1), Arc::clone(&first), now).is_ok());
        assert!(table.insert("other", address(1), session(), now).is_ok());
        assert!(table.insert("name", address(1), Arc::clone(&second), now).is_ok());
        assert!(!table.remove("name", &first) && table.get("name").is_some());
        assert!(table.remove("name", &second) && table.get("name").is_none());
        assert!(table.networks.is_empty() && table.sizes.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_there_is(acts in prop::collection::vec((0..4_u32, 0..12_u8, any::<bool>(), any::<bool>()), 0..100)) {
            let now = Instant::now();
            let mut table = Table::new(6, 4);
            for (from, name, leaves, listens) in acts {
                let name = name.to_string();
                match table.get(&name).map(Arc::clone) {
                    Some(session) if leaves => prop_assert!(table.remove(&name, &session)),
                    Some(_) => {}
                    None => drop(table.insert(&name, address(from), if listens { in_use() } else { session() }, now)),
                }
                prop_assert!(table.len() <= 6);
                let counted: BTreeSet<_> = table.networks.iter().map(|(network, names)| (names.len(), *network)).collect();
                prop_assert_eq!(&counted, &table.sizes);
                prop_assert_eq!(counted.iter().map(|(size, _)| size).sum::<usize>(), table.len());
                for (name, entry) in &table.entries {
                    prop_assert_eq!(table.networks[&entry.network].get(&entry.place), Some(name));
                }
            }
        }
    }
}
