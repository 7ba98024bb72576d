//! Memory of connections that are silent.

use measure::Outcome;
use measure::memory::{BeforeAndAfter, settled};
use measure::server::Server;

use crate::case::Idle;
use crate::crowd::Crowd;
use crate::peers::Protocol;

impl Idle {
    /// Opens the connections and reads what the server has come to hold.
    pub(crate) fn measure(self, server: &Server) -> Outcome<BeforeAndAfter> {
        // What the first connection alone makes a server load or allocate is not the price of a connection.
        Crowd::connect(Protocol::WebSocket, server, 1)?.close()?;
        let before = settled(server)?;
        let crowd = Crowd::connect(Protocol::WebSocket, server, self.connections)?;
        let after = settled(server)?;
        drop(crowd);
        Ok(BeforeAndAfter { before, after })
    }
}
