//! Any bytes in any reads, into a lent buffer or into the message's own: the same events, bounded memory, well-formed
//! answers.
//!
//! Input: one octet of choices (role, deflate, takeover, a small limit), one with the number of read sizes, the sizes
//! (each plus one, used over and over; an even one asks where the bytes belong), and the bytes from the wire.

use std::sync::Arc;

use taut_proto::deflate::{NegotiatedDeflate, Window};
use taut_proto::testing::{End, Seen};
use taut_proto::{Connection, Header, Opcode, Role, Settings, Time};

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let choices = octets.octet();
    let count = usize::from(octets.octet() % 8);
    let sizes: Vec<usize> = octets.take(count).iter().map(|size| usize::from(*size) + 1).collect();
    let wire = octets.rest();

    let mut whole = end(choices);
    whole.receive(wire, Time::ZERO);
    let mut split = end(choices);
    let mut rest = wire;
    for size in sizes.iter().copied().chain(std::iter::once(1)).cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut read, mut after) = rest.split_at(size.min(rest.len()));
        if size.is_multiple_of(2) {
            (read, after) = rest.split_at(split.read(read, Time::ZERO));
            assert!(!read.is_empty(), "there is always room for something");
        } else {
            split.receive(read, Time::ZERO);
        }
        // What is held follows what has come: not the announced lengths, and not the number of pieces.
        let come = wire.len() - after.len();
        let held = split.connection.buffered();
        assert!(held <= 2 * come.min(settings(choices).limits.message) + (17 << 10), "{held} bytes held for {come}");
        rest = after;
    }
    same(&whole.events, &split.events);
    for (end, what) in [(&mut whole, "whole"), (&mut split, "split")] {
        answers(end, what);
    }
}

fn settings(choices: u8) -> Settings {
    let mut settings = Settings::server();
    if choices & 8 != 0 {
        settings.limits.message = 100;
        settings.limits.fragments = 4;
        settings.limits.pings_per_read = 2;
    }
    settings
}

fn end(choices: u8) -> End {
    let role = if choices & 1 == 0 { Role::Server } else { Role::Client };
    let mut connection = Connection::new(role, Arc::new(settings(choices)), Time::ZERO, 0);
    if choices & 2 != 0 {
        let window = Window { bits: 8 + (choices >> 4) % 8, takeover: choices & 4 != 0 };
        connection = connection.with_deflate(NegotiatedDeflate::new(window, window));
    }
    End::new(connection)
}

/// The same events; of a violation only that there is one, for a header that breaks two rules may be judged by its
/// first bytes when that is all there is.
fn same(whole: &[Seen], split: &[Seen]) {
    assert_eq!(whole.len(), split.len(), "{whole:?} and {split:?}");
    for (whole, split) in whole.iter().zip(split) {
        match (whole, split) {
            (Seen::Violation(_), Seen::Violation(_)) => {}
            _ => assert_eq!(whole, split),
        }
    }
    let ended = whole.iter().position(is_last);
    assert!(ended.is_none_or(|at| at == whole.len() - 1), "something came after the end: {whole:?}");
}

/// Whether nothing may follow an event.
fn is_last(seen: &Seen) -> bool {
    matches!(seen, Seen::Violation(_) | Seen::Close(_))
}

/// What is written is pongs and at most one close, the last.
fn answers(end: &mut End, what: &str) {
    let done = end.events.last().is_some_and(is_last);
    assert_eq!(end.connection.is_done(), done, "{what}");
    let bytes = end.outbox.to_vec();
    assert_eq!(bytes.len(), end.outbox.len());
    let mut rest = &bytes[..];
    let mut closed = false;
    while !rest.is_empty() {
        let (header, size) = Header::parse(rest).expect("by the rules").expect("whole");
        assert!(!closed && !header.compressed, "{what}: {header:?}");
        assert!(matches!(header.opcode, Opcode::Pong | Opcode::Close), "{what}: {header:?}");
        closed = header.opcode == Opcode::Close;
        rest = &rest[size + usize::try_from(header.length).expect("short")..];
    }
    assert_eq!(closed, done, "{what}");
    let pings = end.events.iter().filter(|seen| matches!(seen, Seen::Ping(_))).count();
    assert!(bytes.len() <= pings * 131 + 131, "{what}: more answers than pings");
}
