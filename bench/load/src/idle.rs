//! Memory of idle connections.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;

use measure::Outcome;
use measure::memory::{BeforeAndAfter, settled};
use measure::server::Server;
use serde::Serialize;

use crate::case::{Bytes, Case, Content};
use crate::connect::connect;
use crate::crowd::Traffic;
use crate::peers::Speech;

/// So many connections that are idle after each has had one message of that size echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Idle {
    /// Connections held open.
    pub(crate) connections: usize,
    /// Payload of the one message, in bytes.
    pub(crate) payload: usize,
    /// What it holds.
    pub(crate) content: Content,
}

/// Idle after a chat line, and after one large message: some servers keep its buffer.
pub(crate) const IDLE: [Idle; 2] = [
    Idle { connections: 10_000, payload: 20, content: Content::Ascii },
    Idle { connections: 2_000, payload: 16 * 1024, content: Content::Ascii },
];

impl Idle {
    /// Opens the connections one by one and reads what the server has come to hold.
    pub(crate) fn measure(self, speech: Speech, server: &Server) -> Outcome<BeforeAndAfter> {
        let Self { connections, payload, content } = self;
        let traffic = Traffic::new(&Case { connections, payload, in_flight: 1, content }, speech);
        let mut echo = vec![0; traffic.reply_length()];
        let mut open = |number: usize| -> Outcome<TcpStream> {
            let mut stream = connect(speech, server.address(), number)?;
            stream.write_all(traffic.request())?;
            stream.read_exact(&mut echo)?;
            if echo == traffic.reply() {
                Ok(stream)
            } else {
                Err(format!("connection {number}: the echo differs from what was sent").into())
            }
        };

        // What the first connection alone makes a server load or allocate is not the price of a connection.
        drop(open(0)?);
        let before = settled(server)?;
        let connections = (0..self.connections).map(&mut open).collect::<Outcome<Vec<_>>>()?;
        let after = settled(server)?;
        drop(connections);
        Ok(BeforeAndAfter { before, after })
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections after {}", self.connections, Bytes(self.payload))
    }
}
