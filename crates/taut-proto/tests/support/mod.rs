//! What the tests of a connection share: ends of either role, and frames written by hand.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its own part")]

use std::sync::Arc;

use taut_proto::testing::{End, Seen};
pub use taut_proto::testing::{frame, frames, masked, unmasked};
use taut_proto::{Connection, Header, Message, Opcode, Role, Scratch, Settings, Time};

/// A server's end with the settings of a server.
pub fn server() -> End {
    end(Role::Server, Settings::server())
}

/// A client's end with the settings of a client.
pub fn client() -> End {
    end(Role::Client, Settings::client())
}

/// An end with settings of its own.
pub fn end(role: Role, settings: Settings) -> End {
    End::new(Connection::new(role, Arc::new(settings), Time::ZERO, 0))
}

/// The end that a role's peer would be.
pub fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

/// The settings a role has by default.
pub fn settings(role: Role) -> Settings {
    match role {
        Role::Client => Settings::client(),
        Role::Server => Settings::server(),
    }
}

/// What is lent to a call that draws keys of a kind, none of which is secret.
pub fn scratch() -> Scratch {
    Scratch::new(|bytes| bytes.fill(0x5a))
}

/// Everything an end has to write.
pub fn written(end: &mut End) -> Vec<u8> {
    std::iter::from_fn(|| Some(end.write(usize::MAX)).filter(|bytes| !bytes.is_empty())).flatten().collect()
}

/// What an end has to write, as frames.
pub fn written_frames(end: &mut End) -> Vec<(Header, Vec<u8>)> {
    frames(&written(end))
}

/// The code of the close frame that an end wrote last; it has to be its last frame.
pub fn close_code(end: &mut End) -> u16 {
    let frames = written_frames(end);
    let Some((header, payload)) = frames.last().filter(|(header, _)| header.opcode == Opcode::Close) else {
        panic!("no close frame at the end of {frames:?}");
    };
    assert_eq!(header.length as usize, payload.len());
    u16::from_be_bytes([payload[0], payload[1]])
}

/// What a server makes of one read.
pub fn received(bytes: &[u8]) -> Vec<Seen> {
    let mut server = server();
    server.receive(bytes, Time::ZERO);
    server.events
}

/// A text message as an end sees it.
pub fn text(text: &str) -> Seen {
    Seen::Message(Message::from(text).into_owned())
}

/// A binary message as an end sees it.
pub fn binary(bytes: &[u8]) -> Seen {
    Seen::Message(Message::from(bytes).into_owned())
}
