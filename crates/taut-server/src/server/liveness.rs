//! Whether the server still moves, for watchdogs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::Node;

/// Tells whether a server still moves.
#[derive(Clone)]
pub struct Liveness(Arc<Node>);

impl Liveness {
    pub(super) fn of(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Whether each event loop has done something within this time, and the HTTP side has asked it to. That is asked once a
    /// second, so less than a few seconds says little.
    pub fn is_alive(&self, within: Duration) -> bool {
        !self.0.is_stuck(Instant::now(), within)
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Liveness").finish_non_exhaustive()
    }
}
