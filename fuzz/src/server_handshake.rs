//! Any bytes as a request: no panic, the same verdict in any reads, an answer that is one HTTP head.
//!
//! Input: one octet with the size of the reads, one of choices, then the request.

use taut_proto::deflate::{self, Config};
use taut_proto::handshake::{HeadLimits, HeadScan, Refusal, Request, origin};

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let size = usize::from(octets.octet()) + 1;
    let choices = octets.octet();
    let received = octets.rest();
    let limits = if choices & 1 == 0 { HeadLimits::default() } else { HeadLimits { bytes: 300, headers: 8 } };

    let whole = HeadScan::new().find(received, &limits);
    let found = scanned(received, size, &limits);
    assert_eq!(whole, found, "in reads of {size}");
    let parsed = Request::parse(received, &limits);
    match whole {
        Ok(Some(end)) => {
            assert!(end <= limits.bytes && received[..end].ends_with(b"\r\n\r\n"));
            // What follows the head changes nothing.
            let alone = Request::parse(&received[..end], &limits);
            assert_eq!(alone.is_ok(), parsed.is_ok());
        }
        Ok(None) => assert!(parsed.is_err() && received.len() < limits.bytes),
        Err(ref refusal) => {
            assert_eq!(parsed.as_ref().err(), Some(refusal));
            assert!(matches!(refusal.status(), 400 | 431));
        }
    }
    match parsed {
        Ok(request) => answer(&request, choices),
        Err(refusal) => check_refusal(&refusal),
    }
}

/// The verdict on what arrives in reads of `size` bytes.
pub(crate) fn scanned(bytes: &[u8], size: usize, limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
    let mut scan = HeadScan::new();
    for end in (0..bytes.len()).step_by(size).skip(1).chain([bytes.len()]) {
        let found = scan.find(&bytes[..end], limits);
        if found != Ok(None) {
            return found;
        }
    }
    Ok(None)
}

fn answer(request: &Request<'_>, choices: u8) {
    // Everything an application may ask.
    let _ = (request.bearer(), request.cookie("a"), request.query_value("a"), request.wants_upgrade());
    let _ = (origin::same_host(request), origin::same_origin(request, true), origin::allowed(request, &["https://a"]));
    assert!(request.path().is_ascii() && !request.path().contains(['?', '#']));
    let _ = format!("{request:?}");
    let upgrade = match request.upgrade() {
        Ok(upgrade) => upgrade.select_subprotocol(&["v2", "v1", "a"]),
        Err(refusal) => return check_refusal(&refusal),
    };
    let takeover = choices & 2 != 0;
    let config = Config { outgoing_takeover: takeover, incoming_takeover: takeover, ..Config::default() };
    let agreed = deflate::accept(upgrade.extensions(), &config);
    assert!(agreed.is_none_or(|agreed| (9..=15).contains(&agreed.outgoing.bits)));
    assert!(agreed.is_none_or(|agreed| (8..=15).contains(&agreed.incoming.bits)));
    let mut response = Vec::new();
    upgrade.with_deflate(agreed).write_response(&mut response);
    assert!(response.starts_with(b"HTTP/1.1 101 "));
    let end = HeadScan::new().find(&response, &HeadLimits::default());
    assert_eq!(end, Ok(Some(response.len())), "one head and nothing after it");
}

fn check_refusal(refusal: &Refusal) {
    let mut response = Vec::new();
    refusal.write_response(&mut response);
    let end = HeadScan::new().find(&response, &HeadLimits::default());
    let Ok(Some(end)) = end else { panic!("no head: {refusal:?}") };
    assert!(end < response.len(), "a body says why");
    assert!((400..600).contains(&refusal.status()));
}
