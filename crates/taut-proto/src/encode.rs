//! Messages and control frames into bytes: masks for clients, fragments for large messages.

use crate::frame::{Header, Opcode};
use crate::outbox::KEEP_FROM;
use crate::{Outbox, Role, Scratch};

/// Writes a message as one frame, or as several of at most `fragment` bytes when it is larger (RFC 6455 §5.4).
#[inline]
pub(crate) fn message(
    role: Role,
    opcode: Opcode,
    payload: &[u8],
    fragment: usize,
    scratch: &mut Scratch,
    outbox: &mut Outbox,
) {
    if payload.len() <= fragment {
        outbox.push_frame(header(role, opcode, payload, scratch), payload);
    } else {
        fragments(role, opcode, payload, fragment, scratch, outbox);
    }
}

/// As `message`, of a payload that the outbox may keep.
pub(crate) fn own_message(
    role: Role,
    opcode: Opcode,
    payload: Vec<u8>,
    fragment: usize,
    scratch: &mut Scratch,
    outbox: &mut Outbox,
) {
    if payload.len() <= fragment {
        outbox.push_own_frame(header(role, opcode, &payload, scratch), payload);
    } else if fragment < KEEP_FROM {
        fragments(role, opcode, &payload, fragment, scratch, outbox);
    } else {
        let length = payload.len();
        outbox.push_own_fragments(payload, fragment, |chunk, range| {
            fragment_header(header(role, opcode, chunk, scratch), range.start == 0, range.end == length)
        });
    }
}

fn fragments(role: Role, opcode: Opcode, payload: &[u8], fragment: usize, scratch: &mut Scratch, outbox: &mut Outbox) {
    let mut fragments = payload.chunks(fragment.max(1)).peekable();
    let mut is_first = true;
    while let Some(chunk) = fragments.next() {
        let header = fragment_header(header(role, opcode, chunk, scratch), is_first, fragments.peek().is_none());
        outbox.push_frame(header, chunk);
        is_first = false;
    }
}

/// RFC 6455 §5.4: the first fragment has the opcode of the message, and only the last ends it.
fn fragment_header(header: Header, is_first: bool, is_last: bool) -> Header {
    Header { fin: is_last, opcode: if is_first { header.opcode } else { Opcode::Continuation }, ..header }
}

/// Writes a compressed message, as one frame.
#[cfg(feature = "deflate")]
pub(crate) fn compressed(role: Role, opcode: Opcode, payload: &[u8], scratch: &mut Scratch, outbox: &mut Outbox) {
    // RFC 7692 §6.1: RSV1 on the first frame, which is the only one.
    outbox.push_frame(Header { compressed: true, ..header(role, opcode, payload, scratch) }, payload);
}

/// A whole, plain frame's header.
#[inline]
pub(crate) fn header(role: Role, opcode: Opcode, payload: &[u8], scratch: &mut Scratch) -> Header {
    // RFC 6455 §5.3: a fresh key for every frame of a client.
    let mask = (role == Role::Client).then(|| scratch.mask_key());
    Header { fin: true, compressed: false, opcode, mask, length: payload.len() as u64 }
}
