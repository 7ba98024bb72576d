//! Indices of apps and shards, as types that cannot be mixed up.

use std::fmt;

/// The place of an app among all: 0, 1 and so on, for tables by app. It stays the same for as long as the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppIndex(u32);

impl AppIndex {
    #[cfg(test)]
    pub(crate) const FIRST: Self = Self(0);

    /// # Panics
    /// Beyond four billion apps.
    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than four billion apps"))
    }

    /// For tables by app.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// One shard of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ShardIndex(u16);

impl ShardIndex {
    #[cfg(test)]
    pub(crate) const FIRST: Self = Self(0);

    /// # Panics
    /// Beyond 65,536 shards.
    pub(crate) fn new(index: usize) -> Self {
        Self(u16::try_from(index).expect("no more shards than a computer has processors"))
    }

    /// For tables by shard.
    pub(crate) fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_the_number_that_it_was_made_of() {
        assert_eq!((AppIndex::new(7).get(), ShardIndex::new(7).get()), (7, 7));
        assert_eq!(
            (AppIndex::new(u32::MAX as usize).get(), ShardIndex::new(65_535).get()),
            (u32::MAX as usize, 65_535)
        );
        assert_eq!(ShardIndex::new(12).to_string(), "12");
    }
}
