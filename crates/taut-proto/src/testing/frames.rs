//! Frames by hand.

use crate::{Header, Opcode, Role};

/// A frame as a client sends it, masked with a key that shows mistakes.
pub fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame(Role::Client, fin, false, opcode, payload)
}

/// A frame as a server sends it.
pub fn unmasked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame(Role::Server, fin, false, opcode, payload)
}

/// A frame as either role sends it, RSV1 included. Nothing checks that it may be sent.
pub fn frame(sender: Role, fin: bool, compressed: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mask = (sender == Role::Client).then_some([0x11, 0x22, 0x33, 0x44]);
    let header = Header { fin, compressed, opcode, mask, length: payload.len() as u64 };
    let (bytes, size) = header.to_bytes();
    [&bytes[..size], &unmask(mask, payload)].concat()
}

/// The frames in bytes that were written: headers, and payloads without their masks.
///
/// # Panics
/// When the bytes are not whole frames.
pub fn frames(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (header, size) = Header::parse(bytes).expect("a header by the rules").expect("a whole header");
        let (payload, rest) = bytes[size..].split_at(usize::try_from(header.length).expect("small"));
        frames.push((header, unmask(header.mask, payload)));
        bytes = rest;
    }
    frames
}

/// RFC 6455 §5.3, byte by byte, so that a mistake in the faster way of the crate itself shows.
fn unmask(mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    payload.iter().zip(mask.unwrap_or_default().iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}
