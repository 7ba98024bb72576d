//! JSON Web Tokens (RFC 7519): whether one is signed by a key that is known, and whose it is. Values only: what time it is, is an argument.
//!
//! A key says what it verifies. What a token says of its algorithm is compared with that and decides nothing, so `none`, and a public key taken
//! for a shared secret, are refused by there being no way to ask for them (RFC 8725 §3.1).

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::{Algorithm, PublicKey, decode_base64url};
use crate::pusher::auth::Signature;
use crate::pusher::json::bytes_without_lone_surrogates;

/// What a token is checked with.
#[derive(Clone, Copy)]
pub(super) enum Key<'a> {
    Secret(&'a str),
    Public(&'a PublicKey),
}

impl Key<'_> {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::Hs256,
            Self::Public(key) => key.algorithm,
        }
    }
}

/// A token in its parts, none of which has been checked but for its form.
pub(super) struct Token {
    algorithm: Box<str>,
    key_id: Option<Box<str>>,
    /// What is signed: header and claims as they were sent.
    signed: Box<str>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl Token {
    /// Takes a token apart (RFC 7515 §5.2).
    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        #[derive(Deserialize)]
        struct Header {
            alg: Box<str>,
            kid: Option<Box<str>>,
            crit: Option<serde::de::IgnoredAny>,
        }
        if text.len() > LARGEST_TOKEN {
            return Err(TokenError::Large);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        let [header, claims, signature] = [header, claims, signature].map(decode_base64url);
        let header: Header = object(&header.ok_or(TokenError::Form)?)?;
        // RFC 7515 §4.1.11: what must be understood is refused by those who do not understand it.
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        Ok(Self {
            algorithm: header.alg,
            key_id: header.kid,
            signed: signed.into(),
            claims: claims.ok_or(TokenError::Form)?,
            signature: signature.ok_or(TokenError::Form)?,
        })
    }

    /// Which key of a set has signed it, by its own account.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Whether it claims to be signed by a key of this kind.
    pub(super) fn is_for(&self, key: &PublicKey) -> bool {
        *self.algorithm == *key.algorithm()
    }

    /// Whether this key has signed it.
    pub(super) fn verify(&self, key: Key<'_>) -> Result<(), TokenError> {
        if *self.algorithm != *key.algorithm().name() {
            return Err(TokenError::Algorithm { expected: key.algorithm().name() });
        }
        let message = self.signed.as_bytes();
        let is_good = match key {
            Key::Secret(secret) => Signature::of(secret, &[message]).is(&self.signature),
            Key::Public(key) => key.verify(message, &self.signature),
        };
        if is_good { Ok(()) } else { Err(TokenError::Signature) }
    }

    /// Whose it is; to be asked once it is verified. `now` is in seconds since 1970.
    pub(super) fn claims(&self, expected: Expected<'_>, now: u64) -> Result<Claims, TokenError> {
        #[derive(Deserialize)]
        struct Fields {
            exp: Option<f64>,
            nbf: Option<f64>,
            iss: Option<Box<str>>,
            aud: Option<Audience>,
            sub: Option<Subject>,
            user_info: Option<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Audience {
            One(String),
            Several(Vec<String>),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Subject {
            Text(Box<str>),
            // RFC 7519 §4.1.2 wants a text, but many a framework puts in the number of a row.
            Number(u64),
        }
        let fields: Fields = object(&self.claims)?;
        #[expect(clippy::cast_precision_loss, reason = "seconds, and not those of a distant geological era")]
        let (now, leeway) = (now as f64, LEEWAY as f64);
        // RFC 7519 §4.1.4: on or after this it must not be accepted.
        if fields.exp.ok_or(TokenError::NoExpiry)? + leeway <= now {
            return Err(TokenError::Expired);
        }
        if fields.nbf.is_some_and(|start| start - leeway > now) {
            return Err(TokenError::Early);
        }
        if expected.issuer.is_some_and(|issuer| fields.iss.as_deref() != Some(issuer)) {
            return Err(TokenError::Issuer);
        }
        let is_for = |audience: &str| match &fields.aud {
            None => false,
            Some(Audience::One(one)) => one == audience,
            Some(Audience::Several(several)) => several.iter().any(|one| one == audience),
        };
        if expected.audience.is_some_and(|audience| !is_for(audience)) {
            return Err(TokenError::Audience);
        }
        let user_id = fields.sub.map(|subject| match subject {
            Subject::Text(text) => text,
            Subject::Number(number) => number.to_string().into(),
        });
        let user_id = user_id.filter(|user_id| !user_id.is_empty()).ok_or(TokenError::NoSubject)?;
        let user_info = fields.user_info.map(|info| info.get().into());
        Ok(Claims { user_id, user_info })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// What must be in a token, where something is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) audience: Option<&'a str>,
}

/// Whose a token is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) user_id: Box<str>,
    /// JSON text of what the user says of itself.
    pub(super) user_info: Option<Box<str>>,
}

/// Why a token does not let anybody in. It repeats nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    Missing,
    Large,
    Form,
    Critical,
    Algorithm { expected: &'static str },
    Key,
    NoKeyId,
    Signature,
    NoExpiry,
    Expired,
    Early,
    Issuer,
    Audience,
    NoSubject,
    Subject,
    LongSubject { most: usize },
    LargeInfo { most: usize },
}

impl fmt::Display for TokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "this app wants a token from whoever connects, and there was none",
            Self::Large => "the token is larger than 8 KiB",
            Self::Form => {
                "the token is no JSON Web Token: three parts in base64url, the first two of them JSON objects"
            }
            Self::Critical => "the token has a critical header parameter (crit) that is not supported",
            Self::Algorithm { expected } => {
                return write!(formatter, "the token is not signed with {expected}, the algorithm of the app's key");
            }
            Self::Key => "the token is not signed by a key that the app's issuer has published",
            Self::NoKeyId => "the token does not name the key that signed it (kid)",
            Self::Signature => "the token's signature does not match the app's key",
            Self::NoExpiry => "the token has no time at which it expires (exp)",
            Self::Expired => "the token has expired (exp)",
            Self::Early => "the token is not valid yet (nbf)",
            Self::Issuer => "the token is from another issuer than the app's (iss)",
            Self::Audience => "the token is for another audience than the app's (aud)",
            Self::NoSubject => "the token does not say whose it is (sub)",
            Self::Subject => "the user that the token names cannot be sent in a header (sub)",
            Self::LongSubject { most } => {
                return write!(formatter, "the user that the token names is too long, at most {most} characters (sub)");
            }
            Self::LargeInfo { most } => {
                return write!(formatter, "the token's user_info is too large, at most {most} bytes");
            }
        })
    }
}

fn object<T: for<'a> Deserialize<'a>>(json: &[u8]) -> Result<T, TokenError> {
    // Serde would also fill a struct from an array's elements.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Form);
    }
    serde_json::from_slice(&bytes_without_lone_surrogates(json)).map_err(|_| TokenError::Form)
}

/// Bytes.
pub(super) const LARGEST_TOKEN: usize = 8 * 1024;

/// Seconds by which the clocks of issuer and server may differ.
const LEEWAY: u64 = 60;

/// For the fuzz targets.
#[cfg(feature = "testing")]
pub mod testing {
    use super::{Expected, Key, Token, TokenError};

    /// Whose a token is that this secret has signed; otherwise why it is rejected. `now` is in seconds since 1970.
    pub fn user_of(token: &str, secret: &str, now: u64) -> Result<Box<str>, String> {
        let claims = || -> Result<_, TokenError> {
            let token = Token::parse(token)?;
            token.verify(Key::Secret(secret))?;
            token.claims(Expected::default(), now)
        };
        claims().map(|claims| claims.user_id).map_err(|flaw| flaw.to_string())
    }

    /// Reads the claims of a token whoever signed it, so that random ones come further.
    pub fn read_unverified(token: &str, now: u64) {
        if let Ok(token) = Token::parse(token) {
            let expected = Expected { issuer: Some("issuer"), audience: Some("audience") };
            let _ = (token.key_id(), token.claims(expected, now), token.claims(Expected::default(), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::connect_auth::testing::{Issuer, encode, unsigned, with_secret};

    const SECRET: &str = "a secret of thirty-two characters";
    const NOW: u64 = 1_800_000_000;

    fn claims() -> Value {
        json!({ "sub": "ada", "exp": NOW + 10 })
    }

    fn verify(token: &str, key: Key<'_>) -> Result<(), TokenError> {
        Token::parse(token)?.verify(key)
    }

    #[test]
    fn a_token_passes_by_the_key_that_it_was_signed_with_and_by_no_other() {
        let issuers = Issuer::all();
        let others = Issuer::all();
        let keys = issuers.each_ref().map(Issuer::key);
        for (issuer, key) in issuers.iter().zip(&keys) {
            let token = issuer.token(&claims());
            assert_eq!(key.algorithm(), issuer.algorithm);
            assert_eq!(verify(&token, Key::Public(key)), Ok(()), "{}", issuer.algorithm);
            let refused = Err(TokenError::Algorithm { expected: "HS256" });
            assert_eq!(verify(&token, Key::Secret(SECRET)), refused);
            for other in others.iter().map(Issuer::key) {
                let refused = match other.algorithm() {
                    same if same == issuer.algorithm => TokenError::Signature,
                    expected => TokenError::Algorithm { expected },
                };
                assert_eq!(verify(&token, Key::Public(&other)), Err(refused));
            }
            let (signed, signature) = token.rsplit_once('.').expect("a signature");
            let other_claims = unsigned(&json!({ "alg": issuer.algorithm, "typ": "JWT" }), &json!({ "sub": "eve" }));
            for forged in [format!("{other_claims}.{signature}"), format!("{signed}."), format!("{signed}.AAAA")] {
                assert_eq!(verify(&forged, Key::Public(key)), Err(TokenError::Signature), "{}", issuer.algorithm);
            }
        }
    }

    #[test]
    fn a_token_passes_by_the_secret_that_it_was_signed_with_and_by_no_other() {
        let token = with_secret(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &claims());
        assert_eq!(verify(&token, Key::Secret(SECRET)), Ok(()));
        assert_eq!(verify(&token, Key::Secret("another secret of much the same length")), Err(TokenError::Signature));
        let short = with_secret(b"", &json!({ "alg": "HS256" }), &claims());
        assert_eq!(verify(&short, Key::Secret(SECRET)), Err(TokenError::Signature));
    }

    // RFC 7515 §A.3: the example for ES256. RFC 8037 §A.4: the one for Ed25519.
    #[test]
    fn the_examples_of_the_rfcs_pass() {
        let key = PublicKey::p256(
            "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        );
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert_eq!(verify(token, Key::Public(&key.expect("a key"))), Ok(()));
        let key = PublicKey::ed25519("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(verify(token, Key::Public(&key.expect("a key"))), Ok(()));
    }

    // RFC 8725 §3.1: the algorithm is not the token's to choose. §2.1 has the two ways in which it was.
    #[test]
    fn a_token_does_not_choose_its_algorithm() {
        for issuer in Issuer::all() {
            let key = issuer.key();
            let bare = key.bytes().expect("not of a set");
            // What everybody knows of the key, taken for a secret.
            for secret in [issuer.pem.as_bytes(), issuer.pem.trim().as_bytes(), bare] {
                for named in ["HS256", "hs256"] {
                    let token = with_secret(secret, &json!({ "alg": named }), &claims());
                    let expected = issuer.algorithm;
                    assert_eq!(verify(&token, Key::Public(&key)), Err(TokenError::Algorithm { expected }));
                }
                let token = with_secret(secret, &json!({ "alg": issuer.algorithm }), &claims());
                assert_eq!(verify(&token, Key::Public(&key)), Err(TokenError::Signature));
            }
            for none in ["none", "None", "NONE", "", "RS384", "ES384"] {
                for signature in ["", "AAAA"] {
                    let token = format!("{}.{signature}", unsigned(&json!({ "alg": none }), &claims()));
                    let refused = |expected| Err(TokenError::Algorithm { expected });
                    assert_eq!(verify(&token, Key::Public(&key)), refused(issuer.algorithm));
                    assert_eq!(verify(&token, Key::Secret(SECRET)), refused("HS256"));
                }
            }
        }
    }

    fn check(claims: &Value, expected: Expected<'_>) -> Result<Claims, TokenError> {
        Token::parse(&format!("{}.", unsigned(&json!({ "alg": "HS256" }), claims)))?.claims(expected, NOW)
    }

    // RFC 7519 §4.1.4 and §4.1.5, with the leeway that both allow.
    #[test]
    fn a_token_has_its_time_give_or_take_a_minute() {
        let timed = |claims: Value| check(&claims, Expected::default()).map(|_| ());
        for (claims, expected) in [
            (json!({ "sub": "ada", "exp": NOW + 1 }), Ok(())),
            (json!({ "sub": "ada", "exp": NOW - 59 }), Ok(())),
            (json!({ "sub": "ada", "exp": NOW - 60 }), Err(TokenError::Expired)),
            (json!({ "sub": "ada", "exp": 0 }), Err(TokenError::Expired)),
            (json!({ "sub": "ada", "exp": 1.0e18 }), Ok(())),
            (json!({ "sub": "ada", "exp": -1.5 }), Err(TokenError::Expired)),
            (json!({ "sub": "ada" }), Err(TokenError::NoExpiry)),
            (json!({ "sub": "ada", "exp": null }), Err(TokenError::NoExpiry)),
            (json!({ "sub": "ada", "exp": "1900000000" }), Err(TokenError::Form)),
            (json!({ "sub": "ada", "exp": NOW + 9, "nbf": NOW + 60 }), Ok(())),
            (json!({ "sub": "ada", "exp": NOW + 9, "nbf": NOW + 61 }), Err(TokenError::Early)),
        ] {
            assert_eq!(timed(claims.clone()), expected, "{claims}");
        }
    }

    #[test]
    fn issuer_and_audience_are_looked_at_where_they_are_asked_for() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            claims
        };
        let issuer = Expected { issuer: Some("https://a"), ..Expected::default() };
        let audience = Expected { audience: Some("chat"), ..Expected::default() };
        for (claims, expected, outcome) in [
            (claims(), issuer, Err(TokenError::Issuer)),
            (with("iss", json!("https://b")), issuer, Err(TokenError::Issuer)),
            (with("iss", json!("https://a")), issuer, Ok(())),
            (with("iss", json!("https://b")), audience, Err(TokenError::Audience)),
            (with("aud", json!("shop")), audience, Err(TokenError::Audience)),
            (with("aud", json!([])), audience, Err(TokenError::Audience)),
            (with("aud", json!(["shop", "chat"])), audience, Ok(())),
            (with("aud", json!("chat")), audience, Ok(())),
            (with("aud", json!("shop")), issuer, Err(TokenError::Issuer)),
            (with("aud", json!("shop")), Expected::default(), Ok(())),
        ] {
            assert_eq!(check(&claims, expected).map(|_| ()), outcome, "{claims}");
        }
    }

    #[test]
    fn a_token_says_who_its_user_is() {
        for (subject, expected) in [
            (json!("ada"), Ok("ada")),
            (json!(7), Ok("7")),
            (json!(""), Err(TokenError::NoSubject)),
            (json!(null), Err(TokenError::NoSubject)),
            (json!(["ada"]), Err(TokenError::Form)),
            (json!(1.5), Err(TokenError::Form)),
        ] {
            let found = check(&json!({ "sub": subject, "exp": NOW }), Expected::default());
            assert_eq!(found.map(|claims| claims.user_id), expected.map(Into::into), "{subject}");
        }
        let with_info = json!({ "sub": "ada", "exp": NOW, "user_info": { "name": "Ada" } });
        let found = check(&with_info, Expected::default()).expect("claims");
        assert_eq!(found.user_info.as_deref(), Some(r#"{"name":"Ada"}"#));
        // A name that was cut within an emoji, as the issuer's JavaScript writes it.
        let cut: Value = object(br#"{"user_info":{"name":"Great \ud83d"}}"#).expect("readable");
        assert_eq!(cut["user_info"]["name"], "Great \u{fffd}");
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        let header = encode(br#"{"alg":"HS256"}"#);
        let parse = |text: &str| Token::parse(text).map(drop);
        assert_eq!(parse(&format!("{header}.e30.AAAA")), Ok(()));
        for text in ["", ".", "..", "hunter2", "a.b", "....", "hunter2.e30.AAAA", "W10.e30.AAAA", "e30.e30.AAAA"] {
            let flaw = parse(text).expect_err(text);
            assert_eq!(flaw, TokenError::Form, "{text}");
            assert!(!flaw.to_string().contains("hunter2"));
        }
        for text in [format!("{header}.e30.A==="), format!("{header}.e3+.AAAA"), format!("{header}.e30.AAAA.AAAA")] {
            assert_eq!(parse(&text), Err(TokenError::Form), "{text}");
        }
        // RFC 7515 §4: two of one name.
        let twice = encode(br#"{"alg":"HS256","alg":"none"}"#);
        assert_eq!(parse(&format!("{twice}.e30.AAAA")), Err(TokenError::Form));
        // RFC 7515 §4.1.11.
        let critical = encode(br#"{"alg":"HS256","crit":["exp"],"exp":1}"#);
        assert_eq!(parse(&format!("{critical}.e30.AAAA")), Err(TokenError::Critical));
        assert_eq!(parse(&format!("{header}.e30.{}", "A".repeat(LARGEST_TOKEN))), Err(TokenError::Large));
    }

    #[test]
    fn debug_output_shows_neither_tokens_nor_keys() {
        let token = Token::parse(&with_secret(b"x", &json!({ "alg": "HS256" }), &claims())).expect("a token");
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(format!("{:?}", Issuer::new("EdDSA").key()), "PublicKey(EdDSA)");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text: String) {
            let _ = Token::parse(&text);
        }

        #[test]
        fn any_header_and_claims_are_read_without_a_panic(header: Vec<u8>, claims: Vec<u8>) {
            let _ = Token::parse(&format!("{}.{}.", encode(&header), encode(&claims)));
            let token = format!("{}.{}.", encode(br#"{"alg":"HS256"}"#), encode(&claims));
            let _ = Token::parse(&token).expect("a token").claims(Expected::default(), NOW);
        }
    }
}
