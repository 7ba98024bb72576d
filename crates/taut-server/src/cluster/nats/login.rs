//! Credentials files of NATS: a JWT that says who somebody is, and the seed of the key that proves it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;

use crate::cluster::crc::crc16;

/// A JWT, and what signs in its name.
pub(super) struct Credentials {
    pub(super) jwt: String,
    key: Ed25519KeyPair,
}

/// A file is not a credentials file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Credentials {
    /// Reads the text of a file, in which the JWT and the seed stand between lines of dashes.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let jwt = between(text, "NATS USER JWT").ok_or(Malformed)?;
        let seed = between(text, "USER NKEY SEED").and_then(decoded_seed).ok_or(Malformed)?;
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| Malformed)?;
        Ok(Self { jwt: jwt.to_owned(), key })
    }

    /// The signature of what the server wants to be signed.
    pub(super) fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.sign(nonce.as_bytes()))
    }
}

/// The line between `-----BEGIN NAME-----` and the next dashes.
fn between<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("BEGIN {name}"))?;
    let content = rest.trim_start_matches('-');
    let (content, _) = content.split_once("---")?;
    Some(content.trim()).filter(|content| !content.is_empty())
}

/// Base32 of two bytes that say what it is (`SU`: the seed of a user), 32 bytes, and a CRC of two.
fn decoded_seed(text: &str) -> Option<[u8; 32]> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(36), 0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    let (content, sum) = bytes.split_at_checked(34)?;
    let is_whole = sum == crc16(content).to_le_bytes();
    (text.starts_with("SU") && is_whole).then(|| content[2..].try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};

    /// From the documentation of NATS.
    const FILE: &str = "-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5In0.e30.c2ln
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY
------END USER NKEY SEED------

*************************************************************
";

    #[test]
    fn a_file_gives_who_somebody_is_and_a_key_that_signs() {
        let credentials = Credentials::parse(FILE).expect("a file");
        assert_eq!(credentials.jwt, "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5In0.e30.c2ln");
        let signature = URL_SAFE_NO_PAD.decode(credentials.sign("nonce")).expect("base64");
        let key = UnparsedPublicKey::new(&ED25519, credentials.key.public_key().as_ref());
        assert!(key.verify(b"nonce", &signature).is_ok());
    }

    #[test]
    fn a_seed_with_a_wrong_letter_is_noticed() {
        for text in [
            FILE.replace("SUACSSL3", "SUACSSL4"),
            FILE.replace("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY", "SUAC"),
            FILE.replace("SUACSSL3", "suacssl3"),
            FILE.replace("NATS USER JWT", "OTHER"),
            String::new(),
        ] {
            assert!(Credentials::parse(&text).is_err(), "{text}");
        }
    }
}
