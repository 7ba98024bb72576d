//! Memory of subscribed connections.

use std::fmt;

use measure::Outcome;
use measure::memory::{BeforeAndAfter, settled};
use measure::server::Server;
use serde::Serialize;

use crate::case::{Count, Publish};
use crate::crowd::Crowd;

/// So many connections, subscribed to one channel, that are idle after each has had one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Idle {
    /// Connections held open.
    pub(crate) connections: usize,
}

impl Idle {
    /// Opens the connections and reads what the server has come to hold.
    pub(crate) fn measure(self, server: &Server) -> Outcome<BeforeAndAfter> {
        // What the first connection alone makes a server load or allocate is not the price of a connection.
        let before = {
            let crowd = Self::published(server, 1)?;
            crowd.close()?;
            settled(server)?
        };
        let crowd = Self::published(server, self.connections)?;
        let after = settled(server)?;
        crowd.close()?;
        Ok(BeforeAndAfter { before, after })
    }

    fn published(server: &Server, subscribers: usize) -> Outcome<Crowd> {
        let mut crowd = Crowd::assembled(&Publish { channels: 1, subscribers, publishers: 1 }, &server.addresses)?;
        crowd.publish_once()?;
        Ok(crowd)
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} subscribed", Count(self.connections))
    }
}
