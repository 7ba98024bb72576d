//! What a connection allocates, by a counting allocator: nothing for each frame, nothing while idle, and no more under
//! attack than the limits say. `cargo test --test allocations -- --nocapture` prints the figures.

mod support;

use std::sync::Arc;

use allocation_counter::{AllocationInfo, measure};
use support::{frame, masked, other, scratch, settings};
use taut_proto::handshake::{HeadLimits, HeadScan, Request};
use taut_proto::{Connection, Event, Input, Opcode, Outbox, Prepared, Role, Scratch, Settings, Time, Violation};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A connection and what its driver lends it, without the copies that `testing::End` makes.
struct Driven {
    connection: Connection,
    scratch: Scratch,
    outbox: Outbox,
    read: Vec<u8>,
}

impl Driven {
    fn new(role: Role, settings: Settings) -> Self {
        Self::with(Connection::new(role, Arc::new(settings), Time::ZERO, 0))
    }

    fn with(connection: Connection) -> Self {
        Self { connection, scratch: scratch(), outbox: Outbox::new(), read: vec![0; 1 << 21] }
    }

    /// One read, each message of which is echoed if `echo` says so; gives the events and the violation.
    fn receive(&mut self, bytes: &[u8], echo: bool) -> (usize, Option<Violation>) {
        let read = &mut self.read[..bytes.len()];
        read.copy_from_slice(bytes);
        let mut input = Input::new(read);
        let mut events = 0;
        loop {
            match self.connection.receive(&mut input, Time::ZERO, &mut self.scratch, &mut self.outbox) {
                Ok(None) => return (events, None),
                Ok(Some(Event::Message(message))) if echo => {
                    assert!(self.connection.send(message, &mut self.scratch, &mut self.outbox).is_ok());
                }
                Ok(Some(_)) => {}
                Err(violation) => return (events, Some(violation)),
            }
            events += 1;
        }
    }

    fn write(&mut self) {
        while !self.outbox.is_empty() {
            let (slices, count) = self.outbox.slices::<8>();
            let length = slices[..count].iter().map(|slice| slice.len()).sum();
            self.outbox.consume(length);
        }
    }
}

fn show(what: &str, info: &AllocationInfo) {
    eprintln!(
        "{what}: {} allocations, {} bytes in all, {} at the peak, {} left",
        info.count_total, info.bytes_total, info.bytes_max, info.bytes_current
    );
}

// Zero allocations per frame when a message lies within one read: received, echoed, written.
#[test]
fn messages_within_one_read_are_received_and_echoed_without_an_allocation() {
    for role in ROLES {
        let mut driven = Driven::new(role, settings(role));
        let mut read = Vec::new();
        for length in [0, 5, 125, 126, 1000, 20_000] {
            read.extend(frame(other(role), true, false, Opcode::Text, &vec![b'x'; length]));
            read.extend(frame(other(role), true, false, Opcode::Binary, &vec![0xff; length]));
        }
        let mut round = || {
            assert_eq!(driven.receive(&read, true), (12, None));
            driven.write();
        };
        round(); // the outbox grows once, and a client draws its first keys
        let info = measure(|| (0..50).for_each(|_| round()));
        show("600 messages echoed", &info);
        assert_eq!(info.count_total, 0, "{role:?}");
    }
}

#[test]
fn pings_are_answered_without_an_allocation() {
    for role in ROLES {
        let mut driven = Driven::new(role, settings(role));
        let read = frame(other(role), true, false, Opcode::Ping, &[b'p'; 30]).repeat(100);
        let pongs = frame(other(role), true, false, Opcode::Pong, b"heartbeat").repeat(10);
        let mut round = || {
            assert_eq!(driven.receive(&read, false), (100, None));
            driven.write();
            assert_eq!(driven.receive(&pongs, false), (10, None));
        };
        round();
        let info = measure(|| (0..100).for_each(|_| round()));
        show("10,000 pings answered", &info);
        assert_eq!(info.count_total, 0, "{role:?}");
    }
}

#[test]
fn a_heartbeat_costs_no_allocation() {
    let mut driven = Driven::new(Role::Server, Settings::server());
    let mut beat = || {
        let now = driven.connection.deadline().expect("a heartbeat by default");
        assert_eq!(driven.connection.handle_deadline(now, &mut driven.scratch, &mut driven.outbox), None);
        // The pong: the ping's payload, with a client's mask.
        let payload: Vec<u8> = driven.outbox.front()[2..].to_vec();
        let mut pong = masked(true, Opcode::Pong, &payload);
        driven.write();
        let mut input = Input::new(&mut pong);
        let info = measure(|| {
            let event = driven.connection.receive(&mut input, now, &mut driven.scratch, &mut driven.outbox);
            assert!(matches!(event, Ok(Some(Event::Pong(_, Some(_))))));
        });
        assert_eq!(info.count_total, 0);
    };
    beat();
    beat();
}

// DESIGN's promise of an idle connection: it owns nothing on the heap.
#[test]
fn an_idle_connection_owns_nothing_on_the_heap() {
    for role in ROLES {
        let settings = Arc::new(settings(role));
        let mut idle = Vec::with_capacity(1000);
        let info = measure(|| {
            for random in 0..1000 {
                idle.push((Connection::new(role, Arc::clone(&settings), Time::ZERO, random), Outbox::new()));
            }
        });
        show("1,000 idle connections", &info);
        assert_eq!(info.count_total, 0);
    }
    eprintln!("a connection takes {} bytes, an outbox {}", size_of::<Connection>(), size_of::<Outbox>());
    // Decoder, assembly, state and heartbeat of the design add up to 128.
    assert!(size_of::<Connection>() <= 128, "{}", size_of::<Connection>());
    assert!(size_of::<Outbox>() <= 80, "{}", size_of::<Outbox>());
}

// What was held for a message that spanned reads is given back with the message.
#[test]
fn a_connection_that_was_busy_is_idle_again() {
    let mut driven = Driven::new(Role::Server, Settings::server());
    let large = masked(true, Opcode::Binary, &vec![1; 1 << 20]);
    let info = measure(|| {
        for part in large.chunks(64 << 10) {
            driven.receive(part, false);
        }
        for byte in masked(true, Opcode::Ping, b"in pieces") {
            driven.receive(&[byte], false);
        }
        driven.write();
        driven.outbox = Outbox::new();
    });
    show("a message of 1 MiB in reads of 64 KiB", &info);
    assert_eq!((driven.connection.buffered(), info.bytes_current), (0, 0));
}

// A message that spans reads costs one box and the doublings of one vector, however many reads bring it.
#[test]
fn a_message_that_spans_reads_costs_a_few_allocations() {
    for (length, read, most) in [
        (100_usize, 1_usize, 4_u64),
        (10_000, 1, 4),
        (64 << 10, 1, 8),
        (64 << 10, 4096, 8),
        (1 << 20, 1, 12),
        (1 << 20, 16 << 10, 12),
    ] {
        let mut driven = Driven::new(Role::Server, Settings::server());
        let bytes = masked(true, Opcode::Binary, &vec![7; length]);
        let mut events = 0;
        let info = measure(|| {
            for part in bytes.chunks(read) {
                events += driven.receive(part, false).0;
            }
        });
        show(&format!("{length} bytes in reads of {read}"), &info);
        assert_eq!(events, 1);
        assert!(info.count_total <= most, "{} allocations", info.count_total);
        assert!(info.bytes_max <= 2 * length as u64 + (17 << 10), "{} at the peak", info.bytes_max);
        assert_eq!(info.bytes_current, 0);
    }
}

// What is given to the outbox stays where it is, however many frames it leaves in.
#[test]
fn a_large_message_that_is_given_is_not_copied() {
    for role in ROLES {
        for length in [10_000, 64 << 10, 1 << 20] {
            let mut driven = Driven::new(role, settings(role));
            let message = vec![7; length];
            let info = measure(|| {
                assert!(driven.connection.send(message, &mut driven.scratch, &mut driven.outbox).is_ok());
            });
            show(&format!("{length} bytes given to a {role:?}"), &info);
            assert!(info.bytes_max < 8 << 10, "{} at the peak", info.bytes_max);
        }
    }
}

// A message for many connections is framed once; small ones are copied, large ones shared.
#[test]
fn a_prepared_message_is_not_copied_for_each_connection() {
    let prepared = Prepared::new(vec![1; 1 << 20]);
    let mut members: Vec<_> = (0..100).map(|_| Driven::new(Role::Server, Settings::server())).collect();
    let info = measure(|| {
        for member in &mut members {
            let sent = member.connection.send_prepared(&prepared, &mut member.scratch, &mut member.outbox);
            assert!(sent.is_ok());
        }
    });
    show("1 MiB to 100 connections", &info);
    assert!(info.bytes_max < 100 * 1024, "{}", info.bytes_max);
}

// CVE-2026-48779: 10⁶ one-byte fragments. CVE-2026-12151: 10⁶ fragments at a client.
// CVE-2026-62389: 10⁶ fragments of a message that is never finished.
#[test]
fn memory_is_flat_under_a_million_one_byte_fragments() {
    for role in ROLES {
        flood_of_fragments("10⁶ one-byte fragments", role, b"x");
    }
}

// ws commit a2f4e7c0: 10⁶ empty continuations.
#[test]
fn memory_is_flat_under_a_million_empty_continuations() {
    for role in ROLES {
        flood_of_fragments("10⁶ empty continuations", role, b"");
    }
}

fn flood_of_fragments(what: &str, role: Role, payload: &[u8]) {
    let first = frame(other(role), false, false, Opcode::Binary, payload);
    let more = frame(other(role), false, false, Opcode::Continuation, payload);
    let mut driven = Driven::new(role, settings(role));
    let mut violations = Vec::with_capacity(1);
    let info = measure(|| {
        driven.receive(&first, false);
        for _ in 0..1_000_000 {
            violations.extend(driven.receive(&more, false).1);
        }
    });
    show(what, &info);
    assert_eq!(violations, [Violation::TooManyFragments]);
    assert!(info.bytes_max <= 4096, "{} at the peak", info.bytes_max);

    // Where the application takes the limit away, what is held is the bytes and nothing for each piece.
    let mut settings = settings(role);
    settings.limits.fragments = u32::MAX;
    let mut driven = Driven::new(role, settings);
    let info = measure(|| {
        driven.receive(&first, false);
        for _ in 0..999_999 {
            assert_eq!(driven.receive(&more, false), (0, None));
        }
    });
    show(&format!("{what}, without a limit"), &info);
    assert!(info.bytes_max <= 3 * 1_000_000 * payload.len() as u64 + 2048, "{} at the peak", info.bytes_max);
    assert!(driven.connection.buffered() as u64 <= 2 * 1_048_576 * payload.len() as u64 + 2048);
}

// GHSA-9fm3-97px-rjf6, CVE-2026-11586: a ping flood at a peer that never reads.
// CVE-2020-35896, RUSTSEC-2020-0043: outgoing bytes without a bound, here those that a peer can cause.
// ws release 8.23.0: the queue of pongs had no bound.
#[test]
fn memory_is_flat_under_a_ping_flood_at_a_peer_that_never_reads() {
    for role in ROLES {
        for length in [0, 125] {
            let ping = frame(other(role), true, false, Opcode::Ping, &vec![b'p'; length]);
            let pings = ping.repeat(100);
            let mut driven = Driven::new(role, settings(role));
            let info = measure(|| {
                for _ in 0..10_000 {
                    assert_eq!(driven.receive(&pings, false), (100, None));
                }
            });
            show(&format!("10⁶ pings of {length} bytes, nothing written"), &info);
            assert!(info.bytes_max <= 16 << 10, "{} at the peak", info.bytes_max);
            assert!(driven.outbox.len() <= (4 << 10) + 300, "{}", driven.outbox.len());
        }
    }
}

// A close flood: after the first everything is discarded.
#[test]
fn memory_is_flat_under_a_flood_of_closes() {
    let closes = masked(true, Opcode::Close, b"\x03\xe8bye").repeat(100);
    let mut driven = Driven::new(Role::Server, Settings::server());
    let info = measure(|| {
        for _ in 0..10_000 {
            driven.receive(&closes, false);
        }
    });
    show("10⁶ closes", &info);
    assert!(info.bytes_max <= 1024 && driven.outbox.len() == 4);
}

// CVE-2018-1000518, CVE-2016-10544, CVE-2026-1526, CVE-2026-54464, GHSA-x8v2-478q-2hvg: a bomb of 1000:1 costs what the
// limit says, whatever it would inflate to.
#[cfg(feature = "deflate")]
#[test]
fn memory_is_flat_under_a_deflate_bomb() {
    use taut_proto::deflate::{NegotiatedDeflate, Window};

    const LIMIT: usize = 1 << 20;
    // 1030:1, the most that DEFLATE has: one literal, then as many of its longest repeats as it takes.
    let bomb = |size: usize| -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &vec![0; size]).expect("into memory");
        encoder.finish().expect("into memory")
    };
    for role in ROLES {
        for takeover in [true, false] {
            let mut peaks = Vec::new();
            for size in [16 << 20, 128 << 20] {
                let compressed = bomb(size);
                assert!(compressed.len() * 1000 < size, "{size} in {}", compressed.len());
                let bytes = frame(other(role), true, true, Opcode::Binary, &compressed);
                let window = Window { bits: 15, takeover };
                let mut settings = settings(role);
                settings.limits.message = LIMIT;
                let connection = Connection::new(role, Arc::new(settings), Time::ZERO, 0);
                let mut driven = Driven::with(connection.with_deflate(NegotiatedDeflate::new(window, window)));
                let mut violation = None;
                let info = measure(|| violation = driven.receive(&bytes, false).1);
                show(&format!("a bomb of {} MiB in {} bytes", size >> 20, compressed.len()), &info);
                assert_eq!(violation, Some(Violation::InflatedTooBig));
                assert!(info.bytes_max <= 2 * LIMIT as u64 + (160 << 10), "{} at the peak", info.bytes_max);
                peaks.push(info.bytes_max);
            }
            assert_eq!(peaks[0], peaks[1], "flat");
        }
    }
}

// What context takeover costs a connection that agreed to it, and that it costs nothing where it was not.
#[cfg(feature = "deflate")]
#[test]
fn compressors_are_owned_only_where_a_context_is_kept() {
    use taut_proto::deflate::{NegotiatedDeflate, Window};

    let settings = Arc::new(Settings::server());
    let costs = [(false, false), (true, false), (false, true)].map(|(outgoing, incoming)| {
        let window = |takeover| Window { bits: 15, takeover };
        let agreed = NegotiatedDeflate::new(window(outgoing), window(incoming));
        let mut connection = None;
        let info = measure(|| {
            let plain = Connection::new(Role::Server, Arc::clone(&settings), Time::ZERO, 0);
            connection = Some(plain.with_deflate(agreed));
        });
        show(&format!("takeover of what we send: {outgoing}, of what we receive: {incoming}"), &info);
        info.bytes_current
    });
    assert_eq!(costs[0], 0);
    assert!(costs[1] <= 400 << 10 && costs[2] <= 100 << 10, "{costs:?}");
}

// CVE-2022-35922, RUSTSEC-2022-0035: an announced length is never memory. CVE-2026-54274: a large frame that stays
// incomplete.
// CVE-2018-21035: the limits by default are finite.
#[test]
fn memory_is_flat_under_announced_lengths() {
    for role in ROLES {
        for length in [1_u64 << 20, (16 << 20) + 1, 1 << 40, (1 << 63) - 1] {
            let mut header = frame(other(role), true, false, Opcode::Binary, &vec![0; 0x1_0000]);
            header.truncate(if role == Role::Server { 14 } else { 10 });
            header[2..10].copy_from_slice(&length.to_be_bytes());
            let mut driven = Driven::new(role, settings(role));
            let info = measure(|| {
                driven.receive(&header, false);
                driven.receive(&[1, 2, 3], false);
            });
            show(&format!("a header that announces {length} bytes"), &info);
            assert!(info.bytes_max <= 20 << 10, "{} at the peak", info.bytes_max);
        }
    }
}

// CVE-2023-43669, RUSTSEC-2023-0065: a header of 1 MiB in one-byte writes; what is held is what the limit says.
// CVE-2026-54465: the same for headers without end.
#[test]
fn memory_is_flat_under_an_endless_head() {
    let limits = HeadLimits::default();
    let long = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'x'; 1 << 20]].concat();
    let many = [&b"GET / HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(1 << 18)].concat();
    for (what, head) in [("a header of 1 MiB in one-byte writes", long), ("headers without end", many)] {
        let mut refused_at = 0;
        let info = measure(|| {
            let (mut scan, mut received) = (HeadScan::new(), Vec::new());
            for byte in &head {
                received.push(*byte);
                if let Err(refusal) = scan.find(&received, &limits) {
                    assert_eq!(refusal.status(), 431);
                    let mut response = Vec::new();
                    refusal.write_response(&mut response);
                    break;
                }
            }
            refused_at = received.len();
        });
        show(what, &info);
        assert!(refused_at <= limits.bytes);
        assert!(info.bytes_max <= 3 * limits.bytes as u64, "{} at the peak", info.bytes_max);
    }
}

#[test]
fn the_head_of_a_common_request_is_parsed_without_allocation() {
    let limits = HeadLimits::default();
    let head = |more: usize| {
        format!("GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n{}\r\n", "X: y\r\n".repeat(more)).into_bytes()
    };
    for (headers, most) in [(10, 0), (24, 0), (25, 2), (100, 2)] {
        let head = head(headers - 2);
        let info = measure(|| {
            let mut scan = HeadScan::new();
            assert!(scan.find(&head, &limits).is_ok());
            let request = Request::parse_found(&head, &scan).expect("well-formed");
            assert!(request.wants_upgrade() && request.header("x") == Some("y"));
        });
        show(&format!("a head of {headers} headers"), &info);
        assert!(info.count_total <= most, "{} allocations for {headers} headers", info.count_total);
    }
}
