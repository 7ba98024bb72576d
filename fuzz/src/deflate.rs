//! Any bytes as compressed messages: no panic, no more than the limit; and any messages there and back.
//!
//! Input: one octet of choices (which of the two, takeover, window bits), then for inflating a number with the limit
//! and messages, for the round trip messages; each is a number with its length and its bytes.

use std::sync::Arc;

use taut_proto::deflate::{NegotiatedDeflate, Window};
use taut_proto::testing::{End, Seen};
use taut_proto::{Connection, Header, Message, Opcode, Role, Settings, Time};

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let choices = octets.octet();
    let window = Window { bits: 8 + (choices >> 4) % 8, takeover: choices & 2 != 0 };
    let agreed = NegotiatedDeflate::new(window, window);
    if choices & 1 == 0 { inflate(octets, agreed) } else { round_trip(octets, agreed) }
}

fn end(role: Role, agreed: NegotiatedDeflate, settings: Settings) -> End {
    End::new(Connection::new(role, Arc::new(settings), Time::ZERO, 0).with_deflate(agreed))
}

fn inflate(mut octets: Octets<'_>, agreed: NegotiatedDeflate) {
    let mut settings = Settings::client();
    let limit = octets.number();
    settings.limits.message = limit;
    let mut client = end(Role::Client, agreed, settings);
    while !octets.is_empty() && client.connection.is_open() {
        let count = octets.number();
        let payload = octets.take(count);
        let length = payload.len() as u64;
        let header = Header { fin: true, compressed: true, opcode: Opcode::Binary, mask: None, length };
        let (bytes, size) = header.to_bytes();
        client.receive(&[&bytes[..size], payload].concat(), Time::ZERO);
    }
    for seen in &client.events {
        match seen {
            Seen::Message(message) => assert!(message.as_bytes().len() <= limit),
            Seen::Violation(_) => assert!(client.connection.is_done()),
            other => panic!("{other:?} from compressed data"),
        }
    }
}

fn round_trip(mut octets: Octets<'_>, agreed: NegotiatedDeflate) {
    let mut settings = Settings::server();
    settings.deflate_from = usize::from(octets.octet());
    settings.limits.message = 1 << 24;
    let mut server = end(Role::Server, agreed, settings.clone());
    let mut client = end(Role::Client, agreed, settings);
    while !octets.is_empty() {
        let how = octets.octet();
        let count = octets.number();
        // Repeats, so that there is something to compress and windows overflow.
        let message = octets.take(count % 4096).repeat(1 + usize::from(how >> 1) % 64);
        let (from, to) = if how & 1 == 0 { (&mut server, &mut client) } else { (&mut client, &mut server) };
        assert!(from.send(&message[..]));
        let bytes = from.write(usize::MAX);
        assert!(from.outbox.is_empty());
        to.receive(&bytes, Time::ZERO);
        assert_eq!(to.events.pop(), Some(Seen::Message(Message::from(message))));
        assert!(to.events.is_empty());
    }
}
