//! Any order of sending, pinging and writing: what leaves is whole frames, every message once and in its order.
//!
//! Input: one octet of choices (role, a handshake first), then acts: an octet that says which, and a number.

use std::sync::Arc;

use taut_proto::testing::{End, Seen, frame};
use taut_proto::{Connection, Opcode, Outbox, Prepared, Role, Scratch, Settings, Time};

use crate::Octets;

const HANDSHAKE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let choices = octets.octet();
    let roles = if choices & 1 == 0 { [Role::Server, Role::Client] } else { [Role::Client, Role::Server] };
    let [mut sender, mut receiver] = roles.map(|role| {
        let mut settings = Settings::client();
        settings.fragment = if choices & 4 == 0 { 64 << 10 } else { 1000 };
        settings.limits.fragments = u32::MAX;
        End::new(Connection::new(role, Arc::new(settings), Time::ZERO, 0))
    });
    let mut scratch = Scratch::new(|bytes| bytes.fill(0x5a));
    if choices & 2 != 0 {
        sender.outbox.push_bytes(HANDSHAKE);
    }
    let mut written = Vec::new();
    let mut sent = Vec::new();
    let mut newest = None;
    for number in 0..MOST_ACTS {
        if octets.is_empty() {
            break;
        }
        let act = octets.octet();
        let length = octets.number() << (act >> 5);
        match act % 6 {
            0 | 1 => {
                let message = vec![number; length.min(MOST_BYTES)];
                assert!(sender.send(&message[..]));
                sent.push(message);
            }
            2 => {
                let message = vec![number; length.min(MOST_BYTES)];
                let prepared = Prepared::new(&message[..]);
                let result = sender.connection.send_prepared(&prepared, &mut scratch, &mut sender.outbox);
                assert_eq!(result, Ok(()));
                sent.push(message);
            }
            3 => assert!(sender.ping(&vec![number; length % 126])),
            4 => {
                // The peer's ping, which is answered.
                let payload = vec![number; length % 126];
                let ping = frame(roles[1], true, false, Opcode::Ping, &payload);
                sender.receive(&ping, Time::ZERO);
                newest = Some(payload);
            }
            _ => write(&mut sender.outbox, length, &mut written),
        }
        assert_eq!(sender.outbox.front().is_empty(), sender.outbox.is_empty());
    }
    assert_eq!(sender.outbox.to_vec().len(), sender.outbox.len());
    while !sender.outbox.is_empty() {
        write(&mut sender.outbox, usize::MAX, &mut written);
    }
    let frames = if choices & 2 == 0 { Some(&written[..]) } else { written.strip_prefix(HANDSHAKE) };
    receiver.receive(frames.expect("nothing overtakes the handshake"), Time::ZERO);
    let mut messages = Vec::new();
    let mut pongs = Vec::new();
    for seen in receiver.events {
        match seen {
            Seen::Message(message) => messages.push(message.as_bytes().to_vec()),
            Seen::Pong(payload) => pongs.push(payload),
            Seen::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(messages.len(), sent.len());
    assert!(messages == sent, "every message in its order");
    assert_eq!(newest.is_some(), !pongs.is_empty());
    if let Some(newest) = newest {
        assert!(pongs.contains(&newest), "the newest ping is answered");
    }
}

/// One vectored write of which the socket takes up to `limit` bytes.
fn write(outbox: &mut Outbox, limit: usize, written: &mut Vec<u8>) {
    let before = written.len();
    let (slices, count) = outbox.slices::<4>();
    for slice in &slices[..count] {
        let room = limit - (written.len() - before);
        written.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    outbox.consume(written.len() - before);
}

/// So that one input takes milliseconds.
const MOST_ACTS: u8 = 40;
const MOST_BYTES: usize = 80_000;
