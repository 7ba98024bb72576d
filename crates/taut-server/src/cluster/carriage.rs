//! Events on their way to an engine, and the room that they take while they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hub::receipt::Receipt;

/// An event on its way to the engine. Dropped before it is [carried](Self::carried), it has failed.
#[derive(Debug)]
pub(super) struct Carriage {
    pub(super) receipt: Option<Receipt>,
    pub(super) _room: Room,
}

impl Carriage {
    /// The engine has it.
    pub(super) fn carried(mut self) {
        self.receipt = None;
    }
}

impl Drop for Carriage {
    fn drop(&mut self) {
        if let Some(receipt) = &self.receipt {
            receipt.fail();
        }
    }
}

/// Bytes of an event among those that may wait for the engine; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    taken: Arc<AtomicUsize>,
}

impl Room {
    /// `None` if there is no room.
    pub(super) fn take(taken: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= ROOM);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { bytes, taken: Arc::clone(taken) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of events that may wait for the engine.
const ROOM: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_given_back() {
        let taken = Arc::default();
        let half = Room::take(&taken, ROOM / 2).expect("room");
        let other = Room::take(&taken, ROOM / 2).expect("room");
        assert!(Room::take(&taken, 1).is_none() && Room::take(&taken, usize::MAX).is_none());
        drop(half);
        let small = Room::take(&taken, 1).expect("room");
        assert!(Room::take(&taken, ROOM / 2).is_none());
        drop((small, other));
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_event_that_is_dropped_on_its_way_has_failed() {
        let taken = Arc::default();
        let carriage = |receipt: &Receipt| Carriage {
            receipt: Some(receipt.clone()),
            _room: Room::take(&taken, 1).expect("room"),
        };
        let (carried, lost) = (Receipt::new(Arc::new(())), Receipt::new(Arc::new(())));
        carriage(&carried).carried();
        drop(carriage(&lost));
        assert!(!carried.has_failed() && lost.has_failed());
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }
}
