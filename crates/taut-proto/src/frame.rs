//! The bit layout of a frame header (RFC 6455 §5.2). No other file knows it.

use crate::Violation;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message in progress.
    Continuation = 0x0,
    /// A text message, or its first part.
    Text = 0x1,
    /// A binary message, or its first part.
    Binary = 0x2,
    /// The end.
    Close = 0x8,
    /// Are you there?
    Ping = 0x9,
    /// Yes.
    Pong = 0xa,
}

impl Opcode {
    const fn parse(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            // RFC 6455 §5.2: an unknown opcode fails the connection.
            _ => return Err(Violation::ReservedOpcode),
        })
    }

    /// Close, ping and pong: never fragmented, at most 125 bytes, allowed between fragments (RFC 6455 §5.5).
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692 §6).
    pub compressed: bool,
    /// What the frame is for.
    pub opcode: Opcode,
    /// The mask key; there is one exactly when the sender is a client.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

impl Header {
    /// Reads a header from the front of `bytes`: itself and its size, or `None` while it is incomplete.
    ///
    /// Checks what needs no context: reserved bits and opcodes, control-frame rules, minimal lengths.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        // RFC 6455 §5.2: RSV2 and RSV3 are zero; no extension of ours defines them.
        if first & 0x30 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::parse(first & 0x0f)?;
        let fin = first & 0x80 != 0;
        let short = second & 0x7f;
        if opcode.is_control() {
            if !fin {
                return Err(Violation::ControlFragmented);
            }
            if usize::from(short) > MAX_CONTROL_PAYLOAD {
                return Err(Violation::ControlTooLong);
            }
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                // RFC 6455 §5.2: the minimal number of bytes is used for a length.
                match u16::from_be_bytes(*length) {
                    ..126 => return Err(Violation::LengthNotMinimal),
                    length => (u64::from(length), rest),
                }
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                match u64::from_be_bytes(*length) {
                    ..=0xffff => return Err(Violation::LengthNotMinimal),
                    0x8000_0000_0000_0000.. => return Err(Violation::LengthOverflow),
                    length => (length, rest),
                }
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*key), rest)
        };
        let header = Self { fin, compressed: first & 0x40 != 0, opcode, mask, length };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// The common case in few steps: a final data frame, plain, whole within `bytes`, with a length of at most two
    /// bytes, masked or not as it has to be. Anything else, good or bad, is for [`parse`](Self::parse).
    #[inline]
    pub(crate) fn parse_whole_message(bytes: &[u8], masked: bool) -> Option<(Opcode, [u8; 4], usize, usize)> {
        let [first, second, rest @ ..] = bytes else { return None };
        let opcode = match first {
            0x81 => Opcode::Text,
            0x82 => Opcode::Binary,
            _ => return None,
        };
        if (second & 0x80 != 0) != masked {
            return None;
        }
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            127 => return None,
            length => (usize::from(length), rest),
        };
        let (key, rest) = if masked { rest.split_first_chunk::<4>()? } else { (&[0; 4], rest) };
        let size = bytes.len() - rest.len();
        let minimal = second & 0x7f != 126 || length >= 126;
        (minimal && length <= rest.len()).then_some((opcode, *key, size, length))
    }

    /// The bytes of the shortest kind of header, which that of a server's small message is.
    #[inline]
    pub(crate) fn to_two_bytes(self) -> Option<[u8; 2]> {
        (self.mask.is_none() && self.length < 126).then(|| [self.first_byte(), self.length as u8])
    }

    fn first_byte(self) -> u8 {
        u8::from(self.fin) << 7 | u8::from(self.compressed) << 6 | self.opcode as u8
    }

    /// The header's bytes and how many of them count.
    pub fn to_bytes(self) -> ([u8; MAX_HEADER], usize) {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = self.first_byte();
        let masked = u8::from(self.mask.is_some()) << 7;
        let mut end = 2;
        match self.length {
            length @ ..126 => bytes[1] = masked + length as u8,
            length @ ..=0xffff => {
                bytes[1] = masked + 126;
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                end = 4;
            }
            length => {
                bytes[1] = masked + 127;
                bytes[2..10].copy_from_slice(&length.to_be_bytes());
                end = 10;
            }
        }
        if let Some(key) = self.mask {
            bytes[end..end + 4].copy_from_slice(&key);
            end += 4;
        }
        (bytes, end)
    }
}

/// The longest header: two bytes, a 64-bit length, a mask key.
pub(crate) const MAX_HEADER: usize = 14;

/// RFC 6455 §5.5.
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Header, Violation> {
        Header::parse(bytes).map(|header| header.expect("a whole header").0)
    }

    // RFC 6455 §5.2: RSV2 and RSV3 are zero unless an extension defines them.
    #[test]
    fn reserved_bits_are_refused() {
        assert_eq!(parse(b"\xa1\x00"), Err(Violation::ReservedBits));
        assert_eq!(parse(b"\x91\x00"), Err(Violation::ReservedBits));
    }

    // RFC 6455 §5.2: an unknown opcode fails the connection.
    #[test]
    fn reserved_opcodes_are_refused() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(parse(&[0x80 | opcode, 0]), Err(Violation::ReservedOpcode), "{opcode}");
        }
    }

    // RFC 6455 §5.5: control frames carry 125 bytes or less and are not fragmented.
    #[test]
    fn control_frames_are_short_and_whole() {
        for opcode in [8, 9, 10] {
            assert_eq!(parse(&[opcode, 0]), Err(Violation::ControlFragmented));
            assert_eq!(parse(&[0x80 | opcode, 126, 0, 126]), Err(Violation::ControlTooLong));
            assert_eq!(parse(&[0x80 | opcode, 127]), Err(Violation::ControlTooLong), "at the second byte");
            assert!(parse(&[0x80 | opcode, 125]).is_ok());
        }
    }

    // RFC 6455 §5.2: the minimal number of bytes is used; the most significant bit of 64 is zero.
    // CVE-2020-27813: a length past 63 bits must not overflow a running total.
    // CVE-2026-50161: nor may the header's size added to it.
    #[test]
    fn lengths_are_minimal_and_below_two_to_the_63() {
        assert_eq!(parse(b"\x82\x7e\x00\x7d"), Err(Violation::LengthNotMinimal));
        assert_eq!(parse(b"\x82\x7f\0\0\0\0\0\0\xff\xff"), Err(Violation::LengthNotMinimal));
        assert_eq!(parse(b"\x82\x7f\x80\0\0\0\0\0\0\0"), Err(Violation::LengthOverflow));
        assert_eq!(parse(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), Err(Violation::LengthOverflow));
        assert_eq!(parse(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff").unwrap().length, (1 << 63) - 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            fin: bool, compressed: bool, opcode in 0..3_u8, mask: Option<[u8; 4]>, length in 0..1_u64 << 63,
        ) {
            let opcode = [Opcode::Continuation, Opcode::Text, Opcode::Binary][usize::from(opcode)];
            let header = Header { fin, compressed, opcode, mask, length };
            let (bytes, size) = header.to_bytes();
            prop_assert_eq!(Header::parse(&bytes[..size]), Ok(Some((header, size))));
            for cut in 0..size {
                prop_assert_eq!(Header::parse(&bytes[..cut]), Ok(None));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Header::parse(&bytes);
        }
    }
}
