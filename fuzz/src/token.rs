//! Any bytes as a JSON Web Token: no panic, none passes unsigned, and a good one that is signed passes.
//!
//! Input: one octet of choices, then either a token, or the JSON of its header, a line feed, and that of its claims.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use taut_pusher::auth::SigningKey;
use taut_server::testing::token;

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let is_signed = octets.octet() & 1 == 1;
    let rest = octets.rest();
    if !is_signed {
        let Ok(text) = str::from_utf8(rest) else { return };
        token::read_unverified(text, NOW);
        assert!(token::user_of(text, SECRET, NOW).is_err(), "nobody but us has the secret");
        return;
    }
    let (header, claims) = rest.split_at(rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len()));
    let claims = claims.get(1..).unwrap_or_default();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let good = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac(&signed)));
    match token::user_of(&good, SECRET, NOW) {
        Ok(user) => {
            assert!(!user.is_empty());
            // RFC 8725 §3.1: the key decides how a token is signed, and not the token.
            let header: serde_json::Value = serde_json::from_slice(header).unwrap_or_default();
            assert!(header.is_null() || header["alg"] == "HS256", "{header}");
            assert!(token::user_of(&good, "another secret", NOW).is_err());
            assert!(token::user_of(&format!("{signed}."), SECRET, NOW).is_err());
        }
        Err(why) => assert!(!why.contains(SECRET)),
    }
}

/// HMAC-SHA256, out of the digits that the Pusher protocol writes.
fn hmac(text: &str) -> Vec<u8> {
    let mut digits = String::new();
    let _ = write!(digits, "{}", SigningKey::new(SECRET).sign(&[text.as_bytes()]));
    let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(octet).collect()
}

const SECRET: &str = "the secret that no input can know";
const NOW: u64 = 1_700_000_000;
