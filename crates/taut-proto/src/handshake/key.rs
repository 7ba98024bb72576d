//! `Sec-WebSocket-Key` and `Sec-WebSocket-Accept` (RFC 6455 §1.3, §4.1, §4.2.2), without allocation.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest as _, Sha1};

/// The value of `Sec-WebSocket-Accept` that answers a key: ASCII.
pub fn accept_key(key: &str) -> [u8; 28] {
    // RFC 6455 §4.2.2 (5.4): the key's text, not the bytes that it encodes, followed by the GUID.
    encode(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The value of `Sec-WebSocket-Key` for a nonce: ASCII.
///
/// The nonce is 16 bytes from a good random source, fresh for each connection (RFC 6455 §4.1 (7)).
pub fn encode_nonce(nonce: [u8; 16]) -> [u8; 24] {
    encode(&nonce)
}

/// Whether a key is the base64 encoding of 16 bytes, as RFC 6455 §4.2.1 (5) demands.
///
/// The last symbol before the padding carries 4 bits that mean nothing. They should be zero; the RFC's own sample key
/// broke that until erratum 3150, so they are not looked at.
pub fn is_valid_key(key: &str) -> bool {
    // Padding is required, so 16 bytes come from 24 symbols only; a longer key does not fit the buffer.
    let mut nonce = [0; 18];
    LENIENT.decode_slice(key, &mut nonce) == Ok(16)
}

/// Base64 with padding; `N` is the number of symbols that `bytes` take.
fn encode<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut symbols = [0; N];
    let written = STANDARD.encode_slice(bytes, &mut symbols);
    debug_assert_eq!(written, Ok(N), "the array has the size of the encoded bytes");
    symbols
}

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // RFC 6455 §1.3: the accept value is base64 of SHA-1 of key and GUID; this is the section's example.
    // RFC 6455 §4.2.2 (5.4): the same, as a duty of the server.
    #[test]
    fn the_sample_key_gives_the_sample_answer() {
        assert_eq!(&accept_key("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    // RFC 6455 §4.1 (7): the key is base64 of a nonce of 16 bytes.
    #[test]
    fn a_nonce_of_16_bytes_becomes_24_symbols() {
        assert_eq!(&encode_nonce(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&encode_nonce([0xff; 16]), b"/////////////////////w==");
    }

    // RFC 6455 §4.2.1 (5): a key is base64 that decodes to 16 bytes.
    #[test]
    fn only_16_bytes_of_base64_are_a_key() {
        assert!(is_valid_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_valid_key("AQIDBAUGBwgJCgsMDQ4PEA=="), "the sample after erratum 3150");
        assert!(is_valid_key("AQIDBAUGBwgJCgsMDQ4PEC=="), "the sample before it: pad bits that are not zero");
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZTEy",
            "dGhlIHNhbXBsZSBub25jZTE=",
            "dGhlIHNhbXBsZSBub25j====",
            "dGhlIHNhbXBsZSBub25j_-==",
            "dGhlIHNhbXBsZSBub25 ZQ==",
            "=GhlIHNhbXBsZSBub25jZQ==",
            "éhlIHNhbXBsZSBub25jZQ==",
        ] {
            assert!(!is_valid_key(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_nonce_makes_a_valid_key(nonce: [u8; 16]) {
            let key = encode_nonce(nonce);
            prop_assert!(std::str::from_utf8(&key).is_ok_and(is_valid_key));
        }

        #[test]
        fn any_text_is_looked_at_as_a_key_without_a_panic(text: String, symbols in "[A-Za-z0-9+/=]{24}") {
            is_valid_key(&text);
            is_valid_key(&symbols);
            prop_assert!(accept_key(&text).ends_with(b"="));
        }
    }
}
