//! What a client of a route asks for, until its backend is asked.

use std::sync::Arc;

use crate::gateway::{Head, Route};

/// What a client of a route asks for.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) route: Arc<Route>,
    pub(super) head: Arc<Head>,
}
