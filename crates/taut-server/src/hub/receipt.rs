//! What a publisher hears of its events in a cluster.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something to drop when all is done.
pub(crate) type Token = Arc<dyn Any + Send + Sync>;

/// Tells a publisher what came of its events: when the last clone is dropped they are with the engine, unless one has [failed](Self::fail).
#[derive(Clone)]
pub(crate) struct Receipt(Arc<(Outcome, Token)>);

/// What came of the events of a receipt, for the publisher: it does not count as a clone of the receipt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome(Arc<AtomicBool>);

impl Receipt {
    /// The token is dropped with the last clone.
    pub(crate) fn new(token: Token) -> Self {
        Self(Arc::new((Outcome::default(), token)))
    }

    /// The event was not carried to other nodes, or it is not known whether it was.
    pub(crate) fn fail(&self) {
        self.0.0.0.store(true, Ordering::Release);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.0.has_failed()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.0.0.clone()
    }
}

impl Outcome {
    /// Whether any of the events failed; final once the receipt's token is dropped.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Receipt").field(&self.has_failed()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_that_fails_is_known_to_all_clones_and_to_the_outcome() {
        let token = Arc::new(());
        let receipt = Receipt::new(token.clone());
        let (clone, outcome) = (receipt.clone(), receipt.outcome());
        assert!(!receipt.has_failed() && !outcome.has_failed());
        clone.fail();
        assert!(receipt.has_failed() && outcome.has_failed());
        drop((receipt, clone));
        assert_eq!(Arc::strong_count(&token), 1, "an outcome keeps no token");
    }
}
