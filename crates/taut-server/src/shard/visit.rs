//! What a client of a route asks for, until its backend is asked.

use std::sync::Arc;

use crate::connect_auth::{self, Denied};
use crate::gateway::{Head, Kept, Route, kept_of};
use crate::pusher::member::Identity;

/// What a client of a route asks for.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) route: Arc<Route>,
    pub(super) head: Arc<Head>,
}

impl Visit {
    /// What is kept of the connection from its beginning: whose it is, if a token has said so.
    pub(super) fn kept(&self, identity: Option<Identity>) -> Result<Kept, Denied> {
        let Some(identity) = identity else { return Ok(Kept::default()) };
        kept_of(identity, self.route.form()).ok_or_else(connect_auth::unspeakable)
    }
}
