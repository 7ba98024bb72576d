//! Sharing between threads what only its owner may use.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Makes a value `Sync` that is only `Send`, by giving access through `&mut self` alone.
///
/// A mutex that is never locked: `get_mut` needs no lock. `std::sync::Exclusive` will replace it once it is stable.
pub(super) struct Exclusive<T>(Mutex<T>);

impl<T> Exclusive<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    #[inline]
    pub(super) fn get_mut(&mut self) -> &mut T {
        // Only a guard poisons, and there never is one.
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Exclusive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").finish_non_exhaustive()
    }
}
