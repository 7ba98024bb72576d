//! Just enough of RFC 6455 to be a client; written here so that no peer's code is on both sides.

use std::io::{self, ErrorKind, Read};

/// The opcodes in use here (RFC 6455 §5.2).
pub mod opcode {
    /// A further part of a message.
    pub const CONTINUATION: u8 = 0x0;
    /// A text message, or its first part.
    pub const TEXT: u8 = 0x1;
    /// A binary message, or its first part.
    pub const BINARY: u8 = 0x2;
    /// The end.
    pub const CLOSE: u8 = 0x8;
    /// A question whether the peer is there.
    pub const PING: u8 = 0x9;
    /// The answer to it.
    pub const PONG: u8 = 0xA;
}

/// Code 1000 (RFC 6455 §7.4.1), big-endian.
pub const NORMAL_CLOSE: [u8; 2] = 1000_u16.to_be_bytes();

/// Appends a whole, masked message (RFC 6455 §5.1: a client masks every frame).
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: [u8; 4]) {
    push_header(out, opcode, payload.len(), MASKED);
    out.extend_from_slice(&key);
    let masked = payload.iter().zip(key.iter().cycle());
    out.extend(masked.map(|(byte, key)| byte ^ key));
}

/// Appends a whole message as a server has to send it back: not masked, lengths as short as can be.
pub fn push_unmasked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

fn push_header(out: &mut Vec<u8>, opcode: u8, length: usize, masked: u8) {
    out.push(FIN | opcode);
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xFFFF => {
            out.push(masked | LENGTH_16);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A frame as it came from a server, with the strictness of RFC 6455 §5.2 about its header.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it ends its message.
    pub last: bool,
    /// Its opcode, of whatever kind.
    pub opcode: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Waits for the next frame.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut start = [0; 2];
        stream.read_exact(&mut start)?;
        let [first, second] = start;
        if first & RESERVED != 0 {
            return Err(broken("a reserved bit is set, though no extension was agreed"));
        }
        if second & MASKED != 0 {
            return Err(broken("the server masked a frame"));
        }
        let length = match second {
            LENGTH_16 => {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                match u64::from(u16::from_be_bytes(length)) {
                    0..=125 => return Err(broken("a length is longer than it need be")),
                    length => length,
                }
            }
            LENGTH_64 => {
                let mut length = [0; 8];
                stream.read_exact(&mut length)?;
                match u64::from_be_bytes(length) {
                    0..=0xFFFF => return Err(broken("a length is longer than it need be")),
                    length => length,
                }
            }
            length => u64::from(length),
        };
        if length > MAX_PAYLOAD {
            return Err(broken("a frame is longer than anything that was sent"));
        }
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        Ok(Self { last: first & FIN != 0, opcode: first & 0x0F, payload })
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Nothing that is sent here is longer.
const MAX_PAYLOAD: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_frame_is_that_of_the_rfc() {
        // RFC 6455 §5.7: a single-frame masked text message that contains "Hello".
        let mut out = Vec::new();
        push_masked(&mut out, opcode::TEXT, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn what_is_written_is_read_at_every_length_of_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let mut out = Vec::new();
            push_unmasked(&mut out, opcode::BINARY, &payload);
            let expected_header = match length {
                0..=125 => 2,
                126..=65_535 => 4,
                _ => 10,
            };
            assert_eq!(out.len(), expected_header + length);
            let frame = Frame::read(&mut out.as_slice()).unwrap();
            assert!(frame.last);
            assert_eq!(frame.opcode, opcode::BINARY);
            assert_eq!(frame.payload, payload);
        }
    }

    #[test]
    fn a_frame_against_the_rules_is_refused() {
        for bytes in [
            &[0xC1, 0x00][..],                             // RSV1
            &[0x81, 0x80, 0, 0, 0, 0],                     // masked
            &[0x81, 126, 0, 125],                          // 16-bit length for 125
            &[0x81, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],    // 64-bit length for 65535
            &[0x81, 127, 0x7F, 0, 0, 0, 0, 0, 0xFF, 0xFF], // absurd
        ] {
            let error = Frame::read(&mut &*bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_frame_cut_short_is_an_error() {
        let error = Frame::read(&mut &[0x81, 0x05, b'H'][..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
