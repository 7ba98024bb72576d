//! The places of an app's connections on this node.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many connections there are, and how many there may be: one number, so that no place is taken that has been given back meanwhile.
#[derive(Debug)]
pub(super) struct Places(AtomicU64);

/// Why a connection finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// There are as many as may be.
    Full,
    /// The nodes of a cluster share the places, and this one has taken all that were granted to it: it may be granted more.
    NotGranted,
}

impl Places {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(pack(UNSHARED, 0)))
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        unpack(self.0.load(Ordering::Relaxed)).1 as usize
    }

    /// Takes one more place, of `most`; 0 means that there is no limit.
    pub(super) fn take(&self, most: usize) -> Result<(), NoPlace> {
        self.update(|granted, taken| {
            if most > 0 && taken as usize >= most {
                return Err(NoPlace::Full);
            }
            if most > 0 && granted != UNSHARED && taken >= granted {
                return Err(NoPlace::NotGranted);
            }
            Ok((granted, taken + 1))
        })
    }

    /// A connection has ended.
    pub(super) fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// This node may take so many places; `None`: it shares them with nobody.
    pub(super) fn grant(&self, granted: Option<usize>) {
        let granted = granted.map_or(UNSHARED, |granted| u32::try_from(granted).unwrap_or(UNSHARED).min(UNSHARED - 1));
        let Ok(()) = self.update(|_, taken| Ok::<_, std::convert::Infallible>((granted, taken)));
    }

    /// Takes back what has been granted and is not taken. Gives how many are taken.
    pub(super) fn reclaim(&self) -> usize {
        let reclaim = |places| {
            let (granted, taken) = unpack(places);
            Some(pack(if granted == UNSHARED { UNSHARED } else { granted.min(taken) }, taken))
        };
        let (Ok(before) | Err(before)) = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reclaim);
        unpack(before).1 as usize
    }

    /// How many places have been granted; `None` where they are not shared.
    pub(super) fn granted(&self) -> Option<usize> {
        let (granted, _) = unpack(self.0.load(Ordering::Relaxed));
        (granted != UNSHARED).then_some(granted as usize)
    }

    fn update<E>(&self, change: impl Fn(u32, u32) -> Result<(u32, u32), E>) -> Result<(), E> {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let (granted, taken) = unpack(before);
            let (granted, taken) = change(granted, taken)?;
            match self.0.compare_exchange_weak(before, pack(granted, taken), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => before = now,
            }
        }
    }
}

/// No other node has a say.
const UNSHARED: u32 = u32::MAX;

fn pack(granted: u32, taken: u32) -> u64 {
    (u64::from(granted) << 32) + u64::from(taken)
}

fn unpack(places: u64) -> (u32, u32) {
    ((places >> 32) as u32, places as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_taken_as_there_are() {
        let places = Places::new();
        assert_eq!((places.take(2), places.take(2), places.take(2)), (Ok(()), Ok(()), Err(NoPlace::Full)));
        assert_eq!((places.taken(), places.granted()), (2, None));
        places.give_back();
        assert_eq!((places.take(2), places.taken()), (Ok(()), 2));
        assert_eq!((places.take(0), places.taken()), (Ok(()), 3), "without a limit");
    }

    #[test]
    fn a_node_takes_what_it_was_granted_and_asks_for_more() {
        let places = Places::new();
        places.grant(Some(1));
        assert_eq!((places.take(3), places.take(3)), (Ok(()), Err(NoPlace::NotGranted)));
        assert_eq!(places.take(1), Err(NoPlace::Full), "nobody can grant more than there are");
        assert_eq!(places.take(0), Ok(()), "without a limit nothing is granted");
        places.give_back();
        places.grant(Some(2));
        assert_eq!((places.take(3), places.take(3)), (Ok(()), Err(NoPlace::NotGranted)));
        places.grant(None);
        assert_eq!((places.take(3), places.take(3)), (Ok(()), Err(NoPlace::Full)));
        places.grant(Some(usize::MAX));
        assert_eq!(places.granted(), Some(UNSHARED as usize - 1));
    }

    #[test]
    fn what_is_not_taken_can_be_granted_to_others() {
        let places = Places::new();
        assert_eq!((places.reclaim(), places.granted()), (0, None));
        places.grant(Some(3));
        assert_eq!(places.take(9), Ok(()));
        assert_eq!((places.reclaim(), places.granted()), (1, Some(1)));
        assert_eq!(places.take(9), Err(NoPlace::NotGranted));
        // After an absence there may be more than are granted.
        places.grant(Some(0));
        assert_eq!((places.reclaim(), places.granted()), (1, Some(0)));
        assert_eq!(places.take(9), Err(NoPlace::NotGranted));
    }
}
