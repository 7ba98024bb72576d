//! Signatures of the plain form: Standard Webhooks, HMAC-SHA256 over `id.timestamp.body`.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::fmt;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
#[cfg(test)]
use subtle::ConstantTimeEq as _;

/// The key that a route and its backend share. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<[u8]>);

/// Why a text is not a secret. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretError {
    Prefix,
    Base64,
    Length(usize),
}

/// Why a request cannot be verified.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyError {
    Timestamp,
    TooOld,
    TooNew,
    Signature,
}

/// Seconds that the timestamp may be off in either direction.
#[cfg(test)]
pub(crate) const TOLERANCE: u64 = 5 * 60;

/// The id of an event, `webhook-id` and `Idempotency-Key`: the same at each attempt.
pub(crate) fn event_id(connection: &str, seq: u64) -> String {
    format!("ev_{connection}_{seq}")
}

/// The value of `webhook-signature`: one signature for each secret, so that a secret can be rotated.
pub(crate) fn sign(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut header = String::with_capacity(secrets.len() * (VERSION.len() + 45));
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str(VERSION);
        STANDARD.encode_string(secret.digest(id, timestamp, body), &mut header);
    }
    header
}

/// Checks the three headers of a request at a time in Unix seconds, as backends do.
#[cfg(test)]
pub(crate) fn verify(
    secrets: &[Secret],
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: u64,
) -> Result<(), VerifyError> {
    // The parser of numbers would take a plus sign, too.
    let is_number = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let timestamp: u64 = if is_number { timestamp.parse().ok() } else { None }.ok_or(VerifyError::Timestamp)?;
    if now.saturating_sub(timestamp) > TOLERANCE {
        return Err(VerifyError::TooOld);
    }
    if timestamp.saturating_sub(now) > TOLERANCE {
        return Err(VerifyError::TooNew);
    }
    let given = || signatures.split(' ').filter_map(|signature| signature.strip_prefix(VERSION));
    for secret in secrets {
        let expected = STANDARD.encode(secret.digest(id, timestamp, body));
        if given().any(|signature| bool::from(signature.as_bytes().ct_eq(expected.as_bytes()))) {
            return Ok(());
        }
    }
    Err(VerifyError::Signature)
}

impl Secret {
    /// `whsec_` and the base64 of 24 to 64 bytes.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let key = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let key = UNPADDED_TOO.decode(key).map_err(|_| SecretError::Base64)?;
        if (SHORTEST..=LONGEST).contains(&key.len()) {
            Ok(Self(key.into()))
        } else {
            Err(SecretError::Length(key.len()))
        }
    }

    /// The bytes of a text: for apps' secrets, which are not keys of Standard Webhooks.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    fn digest(&self, id: &str, timestamp: u64, body: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body] {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => write!(formatter, "a secret begins with {PREFIX}"),
            Self::Base64 => write!(formatter, "a secret is base64 after {PREFIX}"),
            Self::Length(length) => {
                write!(formatter, "a secret has {SHORTEST} to {LONGEST} bytes after decoding, this one has {length}")
            }
        }
    }
}

#[cfg(test)]
impl fmt::Display for VerifyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Timestamp => "the timestamp is not a number",
            Self::TooOld => "the timestamp is more than five minutes old",
            Self::TooNew => "the timestamp is more than five minutes ahead",
            Self::Signature => "no signature matches",
        })
    }
}

const PREFIX: &str = "whsec_";

const VERSION: &str = "v1,";

/// Bytes of a key, as the specification has them.
const SHORTEST: usize = 24;
const LONGEST: usize = 64;

/// Some tools leave the padding out.
const UNPADDED_TOO: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "whsec_dGF1dC1yb3V0ZS1zZWNyZXQtMDEyMzQ1Njc4OWFiY2RlZg==";
    const TIME: u64 = 1_795_903_223;
    const BODY: &str =
        r#"{"v":1,"event":"text","connection":"c7","seq":2,"user":{"id":"7"},"meta":{"room":"42"},"data":"hé"}"#;
    const SIGNATURE: &str = "v1,SdlKSDrRD1k6IWgxedDy6c4/ikPRUyKCkZtoeX8l+2k=";

    fn secret(key: &[u8]) -> Secret {
        Secret::parse(&format!("whsec_{}", STANDARD.encode(key))).expect("a secret")
    }

    #[test]
    fn the_signature_is_that_of_the_recorded_vector() {
        let secret = Secret::parse(SECRET).expect("a secret");
        assert_eq!((BODY.len(), event_id("c7", 2).as_str()), (100, "ev_c7_2"));
        assert_eq!(sign(&[secret], &event_id("c7", 2), TIME, BODY.as_bytes()), SIGNATURE);
    }

    #[test]
    fn while_a_secret_is_rotated_both_sign_and_either_verifies() {
        let (old, new) = (Secret::parse(SECRET).expect("a secret"), secret(&[7; 24]));
        let both = [new.clone(), old.clone()];
        let signatures = sign(&both, "ev_c7_2", TIME, BODY.as_bytes());
        let (first, second) = signatures.split_once(' ').expect("two signatures");
        assert_eq!(first, sign(std::slice::from_ref(&new), "ev_c7_2", TIME, BODY.as_bytes()));
        assert_eq!(second, SIGNATURE);
        for known in [&[old][..], &[new], &both] {
            assert_eq!(
                verify(known, "ev_c7_2", &TIME.to_string(), &signatures, BODY.as_bytes(), TIME),
                Ok(()),
                "{known:?}"
            );
        }
        assert_eq!(sign(&[], "ev_c7_2", TIME, b""), "");
    }

    #[test]
    fn what_was_not_signed_like_this_is_not_verified() {
        let secrets = [Secret::parse(SECRET).expect("a secret")];
        let body = BODY.as_bytes();
        let time = TIME.to_string();
        let check =
            |id: &str, time: &str, signatures: &str, body: &[u8]| verify(&secrets, id, time, signatures, body, TIME);
        assert_eq!(check("ev_c7_2", &time, SIGNATURE, body), Ok(()));
        let with_another_version = format!("v1a,x {SIGNATURE}");
        assert_eq!(check("ev_c7_2", &time, &with_another_version, body), Ok(()));
        for (id, time, signatures, body, error) in [
            ("ev_c7_3", &*time, SIGNATURE, body, VerifyError::Signature),
            ("ev_c7_2", "1795903224", SIGNATURE, body, VerifyError::Signature),
            ("ev_c7_2", &time, SIGNATURE, b"{}", VerifyError::Signature),
            ("ev_c7_2", &time, "", body, VerifyError::Signature),
            ("ev_c7_2", &time, "v1,", body, VerifyError::Signature),
            ("ev_c7_2", &time, &SIGNATURE[3..], body, VerifyError::Signature),
            ("ev_c7_2", &time, &SIGNATURE[..SIGNATURE.len() - 1], body, VerifyError::Signature),
            ("ev_c7_2", "", SIGNATURE, body, VerifyError::Timestamp),
            ("ev_c7_2", "+1795903223", SIGNATURE, body, VerifyError::Timestamp),
            ("ev_c7_2", "1795903223.0", SIGNATURE, body, VerifyError::Timestamp),
            ("ev_c7_2", "99999999999999999999", SIGNATURE, body, VerifyError::Timestamp),
        ] {
            assert_eq!(check(id, time, signatures, body), Err(error), "{id} {time} {signatures}");
        }
        assert_eq!(verify(&[], "ev_c7_2", &time, SIGNATURE, body, TIME), Err(VerifyError::Signature));
    }

    #[test]
    fn a_timestamp_may_be_five_minutes_off() {
        let secrets = [Secret::parse(SECRET).expect("a secret")];
        for (now, outcome) in [
            (TIME + 300, Ok(())),
            (TIME + 301, Err(VerifyError::TooOld)),
            (TIME - 300, Ok(())),
            (TIME - 301, Err(VerifyError::TooNew)),
        ] {
            let verified = verify(&secrets, "ev_c7_2", &TIME.to_string(), SIGNATURE, BODY.as_bytes(), now);
            assert_eq!(verified, outcome, "{now}");
        }
    }

    #[test]
    fn a_secret_has_a_prefix_and_24_to_64_bytes() {
        for (length, is_secret) in [(0, false), (23, false), (24, true), (32, true), (64, true), (65, false)] {
            let parsed = Secret::parse(&format!("whsec_{}", STANDARD.encode(vec![1; length])));
            assert_eq!(parsed.clone().err(), (!is_secret).then_some(SecretError::Length(length)));
            assert_eq!(parsed.is_ok(), is_secret, "{length}");
        }
        assert_eq!(Secret::parse(SECRET), Secret::parse(SECRET.trim_end_matches('=')), "padding may be missing");
        assert_eq!(Secret::parse(&SECRET[6..]), Err(SecretError::Prefix));
        assert_eq!(Secret::parse(&SECRET.replace("dGF1", "dG-1")), Err(SecretError::Base64));
    }

    #[test]
    fn errors_are_sentences_and_nothing_shows_a_secret() {
        assert_eq!(format!("{:?}", Secret::parse(SECRET)), "Ok(Secret(…))");
        assert_eq!(SecretError::Prefix.to_string(), "a secret begins with whsec_");
        assert_eq!(SecretError::Base64.to_string(), "a secret is base64 after whsec_");
        assert_eq!(SecretError::Length(3).to_string(), "a secret has 24 to 64 bytes after decoding, this one has 3");
        assert_eq!(VerifyError::Timestamp.to_string(), "the timestamp is not a number");
        assert_eq!(VerifyError::TooOld.to_string(), "the timestamp is more than five minutes old");
        assert_eq!(VerifyError::TooNew.to_string(), "the timestamp is more than five minutes ahead");
        assert_eq!(VerifyError::Signature.to_string(), "no signature matches");
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_with_another_byte_it_does_not(
            key in prop::collection::vec(any::<u8>(), 24..=64),
            id in "[a-z0-9._-]{1,20}",
            body in prop::collection::vec(any::<u8>(), 1..100),
            time: u32,
            changed in any::<prop::sample::Index>(),
        ) {
            let secrets = [secret(&key)];
            let time = u64::from(time);
            let signature = sign(&secrets, &id, time, &body);
            let check = |body: &[u8]| verify(&secrets, &id, &time.to_string(), &signature, body, time);
            prop_assert_eq!(check(&body), Ok(()));
            let mut other = body.clone();
            other[changed.index(body.len())] ^= 1;
            prop_assert_eq!(check(&other), Err(VerifyError::Signature));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text: String, time: String, signatures: String, now: u64) {
            let _ = Secret::parse(&text);
            let _ = Secret::parse(&format!("whsec_{text}"));
            prop_assert!(verify(&[secret(&[1; 24])], "a", &time, &signatures, b"", now).is_err());
        }
    }
}
