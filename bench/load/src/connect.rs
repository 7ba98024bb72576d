//! A connection to a server, up to and including the handshake; blocking, since nothing is measured yet.

use std::net::{SocketAddr, TcpStream};

use measure::Outcome;
use measure::connect::{open, shake_hands};

use crate::peers::Speech;

/// Connects, and has done the handshake if there is one; `number` is as [`open`] has it.
pub(crate) fn connect(speech: Speech, address: SocketAddr, number: usize) -> Outcome<TcpStream> {
    let mut stream =
        open(address, number).map_err(|error| format!("cannot connect to {address} (connection {number}): {error}"))?;
    if speech == Speech::WebSocket {
        let handshake = shake_hands(&mut stream, address, "/")
            .map_err(|error| format!("handshake with {address} (connection {number}): {error}"))?;
        if !handshake.is_empty() {
            return Err("the server said something before it had heard anything; that is no echo".into());
        }
    }
    Ok(stream)
}
