//! What a client of a route asks for, until its backend is asked.

use std::sync::Arc;

use taut_proto::handshake::Refusal;

use crate::connect_auth::{self, Denied};
use crate::gateway::seen::Seen;
use crate::gateway::stream::{Beginning, Teller};
use crate::gateway::{Head, Kept, Route, kept_of};
use crate::identity::Identity;

/// What a client of a route asks for.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) route: Arc<Route>,
    pub(super) head: Arc<Head>,
    pub(super) stream: Option<Stream>,
}

/// What a client that only listens has beside that.
#[derive(Debug)]
pub(super) struct Stream {
    /// How its response begins is told here, once.
    pub(super) teller: Teller,
    /// The kept events that it has seen before.
    pub(super) seen: Seen,
}

impl Visit {
    /// What is kept of the connection from its beginning: whose it is, if a token has said so.
    pub(super) fn kept(&self, identity: Option<Identity>) -> Result<Kept, Denied> {
        let Some(identity) = identity else { return Ok(Kept::default()) };
        kept_of(identity, self.route.form()).ok_or_else(connect_auth::unspeakable)
    }
}

/// A client is refused; if it wants a stream, its response says so.
pub(super) fn refused(stream: Option<Stream>, refusal: Refusal) -> Refusal {
    if let Some(Stream { teller, .. }) = stream {
        teller.tell(Beginning::Refused(refusal.clone()));
    }
    refusal
}
