//! Any bytes as a response: no panic, the same verdict in any reads, and only what was offered is agreed on.
//!
//! Input: one octet with the size of the reads, one of choices (what was offered), then the response. The nonce is
//! always the same, so that the right `Sec-WebSocket-Accept` can be in a corpus.

use taut_proto::deflate::Config;
use taut_proto::handshake::{ClientRequest, ClientResponse, HeadLimits, HeadScan, ResponseBody};

use crate::Octets;
use crate::server_handshake::scanned;

/// The nonce of every request; it belongs to the key of the RFC's sample.
pub const NONCE: [u8; 16] = *b"the sample nonce";

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let size = usize::from(octets.octet()) + 1;
    let choices = octets.octet();
    let received = octets.rest();
    let limits = HeadLimits::default();

    let request = request(choices);
    let whole = HeadScan::new().find(received, &limits);
    assert_eq!(whole, scanned(received, size, &limits), "in reads of {size}");
    if let Ok(response) = ClientResponse::parse(received, &limits) {
        assert!((100..600).contains(&response.status()));
        let _ = (response.retry_after(), response.header("location"), format!("{response:?}"));
        assert_eq!(response.headers().count(), response.headers().filter(|(name, _)| !name.is_empty()).count());
        let following = &received[whole.as_ref().ok().copied().flatten().unwrap_or_default()..];
        let (content, is_complete) = body(&response, following, following.len().max(1));
        assert!(content.len() <= MOST);
        assert_eq!((content, is_complete), body(&response, following, size), "in reads of {size}");
    }
    match request.validate(received, NONCE, &limits) {
        Ok(agreed) => {
            assert!(matches!(whole, Ok(Some(_))) && received.starts_with(b"HTTP/1.1 101"));
            let offered: &[&str] = if choices & 2 == 0 { &[] } else { &["v2", "v1"] };
            assert!(agreed.subprotocol.is_none_or(|name| offered.contains(&name)));
            assert!(agreed.deflate.is_none() || choices & 1 != 0, "not offered");
            if let Some(agreed) = agreed.deflate {
                assert!((8..=15).contains(&agreed.outgoing.bits) && (8..=15).contains(&agreed.incoming.bits));
                assert_eq!(agreed.compress, agreed.outgoing.bits >= 9);
            }
        }
        Err(rejection) => {
            assert!(!rejection.to_string().is_empty());
            let _ = (rejection.fault(), rejection.is_transient(), rejection.is_interim());
        }
    }
}

/// What is kept of a body that comes in reads of this size, and whether it is whole.
fn body(response: &ClientResponse<'_>, bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let mut body = ResponseBody::new(response, MOST);
    bytes.chunks(size).for_each(|piece| body.receive(piece));
    body.receive_eof();
    let is_complete = body.is_complete();
    (body.into_content(), is_complete)
}

/// Little, so that a short input can exceed it.
const MOST: usize = 16;

fn request(choices: u8) -> ClientRequest {
    let mut request = ClientRequest::new("server.example", "/chat").expect("valid");
    if choices & 2 != 0 {
        for name in ["v2", "v1"] {
            request = request.subprotocol(name).expect("a token");
        }
    }
    let takeover = choices & 4 != 0;
    let incoming_bits = 15 - (choices >> 4) % 8;
    let config =
        Config { outgoing_takeover: takeover, incoming_takeover: takeover, incoming_bits, ..Config::default() };
    request.deflate((choices & 1 != 0).then_some(config))
}
