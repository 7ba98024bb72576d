//! End-to-end encryption of `private-encrypted-` channels: the secretbox of `NaCl` (`XSalsa20` and `Poly1305`), with a
//! key for each channel that is made from the app's master key.
//!
//! The server passes the ciphertext on and never has the key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// An app's master key: `encryptionMasterKeyBase64` in Pusher's libraries. `Debug` does not show it.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Reads the key as libraries take it: 32 bytes in base64. `None` if it is not that.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text.trim()).ok()?.try_into().ok().map(Self)
    }

    /// The key of one channel, which its authorization endpoint gives to clients as `shared_secret`.
    pub fn shared_secret(&self, channel: &str) -> SharedSecret {
        SharedSecret(Sha256::new().chain_update(channel).chain_update(self.0).finalize().into())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKey(…)")
    }
}

/// The key of one channel. `Debug` does not show it.
#[derive(Clone)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// The text for the field `shared_secret`.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// The data of an event that carries this text: nonce and ciphertext, as JSON. A nonce must never be used twice:
    /// take random bytes.
    pub fn encrypt(&self, text: &str, nonce: [u8; 24]) -> String {
        let ciphertext = self.cipher().encrypt(&Nonce::from(nonce), text.as_bytes());
        let ciphertext = ciphertext.expect("a text in memory is not longer than the cipher allows");
        format!(r#"{{"nonce":"{}","ciphertext":"{}"}}"#, STANDARD.encode(nonce), STANDARD.encode(ciphertext))
    }

    /// The text that an event carries.
    pub fn decrypt(&self, data: &str) -> Result<String, Undecryptable> {
        let Encrypted { nonce, ciphertext } = serde_json::from_str(data).map_err(|_| Undecryptable::Form)?;
        let decode = |text: String| STANDARD.decode(text).map_err(|_| Undecryptable::Form);
        let nonce: [u8; 24] = decode(nonce)?.try_into().map_err(|_| Undecryptable::Form)?;
        let text = self.cipher().decrypt(&Nonce::from(nonce), &*decode(ciphertext)?);
        String::from_utf8(text.map_err(|_| Undecryptable::Key)?).map_err(|_| Undecryptable::Form)
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new(&self.0.into())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedSecret(…)")
    }
}

/// Why an event of an encrypted channel cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecryptable {
    /// Its data is not a nonce and a ciphertext in base64.
    Form,
    /// It was encrypted with another key, or changed since.
    Key,
}

impl fmt::Display for Undecryptable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Form => "the data is not encrypted as Pusher's libraries do it: {\"nonce\", \"ciphertext\"}",
            Self::Key => "the data was encrypted with another key",
        })
    }
}

impl std::error::Error for Undecryptable {}

#[derive(Deserialize)]
struct Encrypted {
    nonce: String,
    ciphertext: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: &str = "private-encrypted-foobar";

    fn master_key() -> MasterKey {
        MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("32 bytes")
    }

    #[test]
    fn events_are_encrypted_as_pushers_libraries_do_it() {
        let secret = master_key().shared_secret(CHANNEL);
        assert_eq!(secret.to_base64(), "g3Au6SZ+UCU+IMfFsFva0rq+Gi4tzSHR6WCcWZbS9sY=");
        let nonce = std::array::from_fn(|index| index as u8);
        let data = secret.encrypt(r#"{"some":"data"}"#, nonce);
        let expected = concat!(
            r#"{"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","#,
            r#""ciphertext":"+CShyAw0gl+OL0CbKAFR8UsGOTI2mdwnesd7hkBq/A=="}"#
        );
        assert_eq!(data, expected);
        assert_eq!(secret.decrypt(&data).as_deref(), Ok(r#"{"some":"data"}"#));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let secret = master_key().shared_secret(CHANNEL);
        let data = secret.encrypt("x", [7; 24]);
        assert_eq!(master_key().shared_secret("private-encrypted-other").decrypt(&data), Err(Undecryptable::Key));
        for data in ["", "{}", "x", r#"{"nonce":"AAAA","ciphertext":"AAAA"}"#, r#"{"nonce":7,"ciphertext":""}"#] {
            assert_eq!(secret.decrypt(data), Err(Undecryptable::Form), "{data}");
        }
        assert!(
            Undecryptable::Form.to_string().contains("not encrypted")
                && Undecryptable::Key.to_string().contains("another key")
        );
        let changed = data.replace("BwcH", "CAgI");
        assert_ne!(changed, data);
        assert_eq!(secret.decrypt(&changed), Err(Undecryptable::Key));
    }

    #[test]
    fn a_master_key_has_32_bytes_and_no_key_is_shown() {
        for text in ["", "AAAA", "not base64!"] {
            assert!(MasterKey::from_base64(text).is_none(), "{text}");
        }
        assert_eq!(format!("{:?}", master_key()), "MasterKey(…)");
        assert_eq!(format!("{:?}", master_key().shared_secret(CHANNEL)), "SharedSecret(…)");
    }
}
