//! How messages and the bytes of a pipe become each other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use taut::Message;
use taut_pusher::hex::encode;

use crate::hex;

/// The form of binary messages in a pipe, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Binary {
    /// The bytes as they are: what is read at once is a message, and messages are written one after the other
    Raw,
    /// Each line is a message, in hexadecimal
    Hex,
    /// Each line is a message, in Base64
    Base64,
    /// Each message has its length before it: 4 bytes, big-endian
    Length,
}

impl Binary {
    /// A received message as it is written to a pipe.
    pub(super) fn written(self, message: &Message<'_>) -> Vec<u8> {
        let payload = message.as_bytes();
        match self {
            Self::Raw => payload.to_vec(),
            Self::Hex => format!("{}\n", encode(payload)).into_bytes(),
            Self::Base64 => format!("{}\n", STANDARD.encode(payload)).into_bytes(),
            Self::Length => {
                // `--max-size` allows no larger one: see `prepare`.
                let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                [&length.to_be_bytes()[..], payload].concat()
            }
        }
    }

    /// The message of a line.
    pub(super) fn read_line(self, line: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Hex => hex::decode(line),
            Self::Base64 => bytes_of_base64(line),
            Self::Raw | Self::Length => Ok(line.as_bytes().to_vec()),
        }
    }
}

/// Bytes written as Base64.
pub(super) fn bytes_of_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text.trim()).map_err(|error| format!("this is not Base64: {error}"))
}

/// Bytes as Base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        for binary in [Binary::Hex, Binary::Base64] {
            for payload in [&all[..], b"", b"x"] {
                let line = String::from_utf8(binary.written(&payload.into())).unwrap();
                assert_eq!(binary.read_line(line.trim_end()).as_deref(), Ok(payload));
            }
        }
        assert_eq!(Binary::Length.written(&Message::from(&b"abc"[..])), b"\0\0\0\x03abc");
        assert_eq!(Binary::Raw.written(&Message::from(&b"a\nb"[..])), b"a\nb");
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        assert!(bytes_of_base64("a").unwrap_err().contains("Base64"));
    }
}
