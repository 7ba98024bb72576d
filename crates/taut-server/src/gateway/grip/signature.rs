//! The authentication of GRIP: `Grip-Sig`, which proves to a backend that a request is ours, and the `Authorization` of
//! publishers.
//!
//! Both are JWTs with HMAC-SHA256. A `Grip-Sig` binds neither the body nor the connection: it does not protect against
//! replay.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

use super::json::decode_base64;

/// A key that the server shares with a backend or with its publishers.
///
/// `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct SharedKey {
    text: Box<str>,
    mac: Hmac<Sha256>,
}

/// Makes the `Grip-Sig` of a route's requests.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    key: SharedKey,
    issuer: Box<str>,
}

/// Authenticates publishers.
#[derive(Clone, Debug)]
pub(crate) struct PublisherAuth {
    key: SharedKey,
    /// The `iss` of tokens and the user of Basic; `None` takes any.
    issuer: Option<Box<str>>,
}

/// Why a request may not publish, for the log: the response is 401 without details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unauthorized {
    /// There is no `Authorization`, or it is neither Bearer nor Basic.
    Scheme,
    /// It is neither the key nor a token.
    Malformed,
    /// The token says that it is not signed with HS256.
    Algorithm,
    /// The token is signed with another key, or the key itself is wrong.
    Signature,
    /// The token has expired, or never would.
    Expired,
    /// The token is not valid yet.
    Early,
    /// The token has another issuer, or Basic another user.
    Issuer,
}

#[derive(Deserialize)]
struct JwtHeader<'a> {
    alg: &'a str,
    /// Extensions that must be understood; there are none here.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl SharedKey {
    /// Reads a key as in a GRIP URL: a text, or `base64:` and bytes. `None` if the base64 is malformed or the key is
    /// empty.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = match text.strip_prefix("base64:") {
            Some(base64) => decode_base64(base64)?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.is_empty() {
            return None;
        }
        let mac = Hmac::new_from_slice(&bytes).ok()?;
        Some(Self { text: text.into(), mac })
    }

    fn sign(&self, text: &str) -> Hmac<Sha256> {
        self.mac.clone().chain_update(text)
    }

    fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        self.sign(text).verify_slice(signature).is_ok()
    }

    /// Whether this is the key itself. Compares signatures in constant time, so the time it takes tells nothing about
    /// the key.
    fn is(&self, shown: &str) -> bool {
        self.has_signed(shown, &self.sign(&self.text).finalize().into_bytes())
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedKey(…)")
    }
}

impl Signer {
    pub(crate) fn new(issuer: &str, key: SharedKey) -> Self {
        Self { key, issuer: issuer.into() }
    }

    /// Makes a token that is good for an hour from `now`, in seconds since 1970. One per second is enough.
    pub(crate) fn token(&self, now: u64) -> String {
        // Pushpin writes the names in alphabetical order.
        let claims = format!(r#"{{"exp":{},"iss":{}}}"#, now.saturating_add(LIFETIME), Value::from(&*self.issuer));
        let mut token = URL_SAFE_NO_PAD.encode(HEADER);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(&token).finalize().into_bytes();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

impl PublisherAuth {
    pub(crate) fn new(issuer: Option<&str>, key: SharedKey) -> Self {
        Self { key, issuer: issuer.map(Into::into) }
    }

    /// Checks an `Authorization` at `now`, in seconds since 1970.
    ///
    /// The libraries send Bearer with a JWT if their GRIP URL has `iss` and `key`, Bearer with the key if it has only
    /// `key`, and Basic if it has a user and a password. The password must be the key.
    pub(crate) fn check(&self, authorization: Option<&str>, now: u64) -> Result<(), Unauthorized> {
        let (scheme, shown) = authorization.and_then(|it| it.trim().split_once(' ')).ok_or(Unauthorized::Scheme)?;
        let shown = shown.trim();
        if scheme.eq_ignore_ascii_case("Bearer") {
            if self.key.is(shown) { Ok(()) } else { self.check_token(shown, now) }
        } else if scheme.eq_ignore_ascii_case("Basic") {
            self.check_basic(shown)
        } else {
            Err(Unauthorized::Scheme)
        }
    }

    fn check_token(&self, token: &str, now: u64) -> Result<(), Unauthorized> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Unauthorized::Signature)?;
        let (header, claims) = signed.split_once('.').ok_or(Unauthorized::Signature)?;
        let header = decode(header)?;
        let header: JwtHeader<'_> = serde_json::from_slice(&header).map_err(|_| Unauthorized::Malformed)?;
        if header.alg != "HS256" || header.crit.is_some() {
            return Err(Unauthorized::Algorithm);
        }
        if !self.key.has_signed(signed, &decode(signature)?) {
            return Err(Unauthorized::Signature);
        }
        let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Unauthorized::Malformed)?;
        self.check_claims(&claims, now)
    }

    fn check_claims(&self, claims: &Claims, now: u64) -> Result<(), Unauthorized> {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        let now = now as f64;
        if claims.exp.is_none_or(|end| now >= end) {
            return Err(Unauthorized::Expired);
        }
        if claims.nbf.is_some_and(|begin| begin > now + SKEW) {
            return Err(Unauthorized::Early);
        }
        match &self.issuer {
            Some(issuer) if claims.iss.as_ref().and_then(Value::as_str) != Some(issuer) => Err(Unauthorized::Issuer),
            _ => Ok(()),
        }
    }

    fn check_basic(&self, shown: &str) -> Result<(), Unauthorized> {
        let decoded = decode_base64(without_python_quotes(shown)).ok_or(Unauthorized::Malformed)?;
        let decoded = std::str::from_utf8(&decoded).map_err(|_| Unauthorized::Malformed)?;
        let (user, password) = decoded.split_once(':').ok_or(Unauthorized::Malformed)?;
        if !self.key.is(password) {
            return Err(Unauthorized::Signature);
        }
        if self.issuer.as_ref().is_some_and(|issuer| **issuer != *user) { Err(Unauthorized::Issuer) } else { Ok(()) }
    }
}

/// `pubcontrol` for Python 3 sends `Basic b'dXNlcjpwYXNz'`, up to its last version.
fn without_python_quotes(base64: &str) -> &str {
    base64.strip_prefix("b'").and_then(|it| it.strip_suffix('\'')).unwrap_or(base64)
}

fn decode(part: &str) -> Result<Vec<u8>, Unauthorized> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Unauthorized::Malformed)
}

impl fmt::Display for Unauthorized {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Scheme => "there is no Authorization with Bearer or Basic",
            Self::Malformed => "the Authorization is malformed",
            Self::Algorithm => "the token is not signed with HS256",
            Self::Signature => "the key is wrong",
            Self::Expired => "the token has expired",
            Self::Early => "the token is not valid yet",
            Self::Issuer => "the token's issuer, or the user, is wrong",
        })
    }
}

impl std::error::Error for Unauthorized {}

/// As Pushpin writes it, so both make the same token.
const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;

/// Seconds of a `Grip-Sig`.
const LIFETIME: u64 = 3600;

/// Seconds by which a publisher's clock may be ahead.
const SKEW: f64 = 60.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_902_834;

    /// Of V1.
    const RECORDED: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3OTU5MDY0MzQsImlzcyI6InB1c2hwaW4ifQ.\
        vWCSIiYTfCl35U6wgG_b2znzlGJcToYZx-ZIC3rVH60";

    fn key(text: &str) -> SharedKey {
        SharedKey::parse(text).expect("a key")
    }

    fn check(authorization: &str) -> Result<(), Unauthorized> {
        PublisherAuth::new(Some("pushpin"), key("changeme")).check(Some(authorization), NOW)
    }

    fn jwt(header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = key("changeme").sign(&signed).finalize().into_bytes();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn the_recorded_token_comes_out_byte_for_byte() {
        assert_eq!(Signer::new("pushpin", key("changeme")).token(NOW), RECORDED, "V1");
        assert_eq!(Signer::new("pushpin", key("base64:Y2hhbmdlbWU=")).token(NOW), RECORDED, "V1");
    }

    #[test]
    fn a_publishers_token_is_checked() {
        assert_eq!(check(&format!("Bearer {RECORDED}")), Ok(()));
        assert_eq!(check(&format!("bearer  {RECORDED} ")), Ok(()));
        let hs256 = r#"{"alg":"HS256"}"#;
        for (header, claims, expected) in [
            (hs256, r#"{"iss":"pushpin","exp":1795902835}"#, Ok(())),
            (hs256, r#"{"iss":"pushpin","exp":1795902834.5,"other":[1]}"#, Ok(())),
            (hs256, r#"{"iss":"pushpin","exp":1795902835,"nbf":1795902894}"#, Ok(())),
            (hs256, r#"{"iss":"pushpin","exp":1795902834}"#, Err(Unauthorized::Expired)),
            (hs256, r#"{"iss":"pushpin"}"#, Err(Unauthorized::Expired)),
            (hs256, r#"{"iss":"pushpin","exp":"1795902835"}"#, Err(Unauthorized::Malformed)),
            (hs256, r#"{"iss":"pushpin","exp":1795902835,"nbf":1795902895}"#, Err(Unauthorized::Early)),
            (hs256, r#"{"iss":"other","exp":1795902835}"#, Err(Unauthorized::Issuer)),
            (hs256, r#"{"iss":["pushpin"],"exp":1795902835}"#, Err(Unauthorized::Issuer)),
            (hs256, r#"{"exp":1795902835}"#, Err(Unauthorized::Issuer)),
            (hs256, "x", Err(Unauthorized::Malformed)),
            ("{}", "{}", Err(Unauthorized::Malformed)),
            (r#"{"alg":"none"}"#, "{}", Err(Unauthorized::Algorithm)),
            (r#"{"alg":"HS512"}"#, "{}", Err(Unauthorized::Algorithm)),
            (r#"{"alg":"RS256"}"#, "{}", Err(Unauthorized::Algorithm)),
            (r#"{"alg":"hs256"}"#, "{}", Err(Unauthorized::Algorithm)),
            (r#"{"alg":"HS256","crit":["x"]}"#, "{}", Err(Unauthorized::Algorithm)),
        ] {
            assert_eq!(check(&jwt(header, claims)), expected, "{header} {claims}");
        }
        let any_issuer = PublisherAuth::new(None, key("changeme"));
        assert_eq!(any_issuer.check(Some(&jwt(hs256, r#"{"exp":1795902835}"#)), NOW), Ok(()));
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let other = Signer::new("pushpin", key("changeme2")).token(NOW);
        assert_eq!(check(&format!("Bearer {other}")), Err(Unauthorized::Signature));
        let (signed, signature) = RECORDED.rsplit_once('.').expect("a signature");
        assert_eq!(check(&format!("Bearer {signed}.")), Err(Unauthorized::Signature));
        assert_eq!(check(&format!("Bearer {signed}.{}", &signature[..42])), Err(Unauthorized::Malformed));
        assert_eq!(check(&format!("Bearer {signed}.{signature}=")), Err(Unauthorized::Malformed));
        assert_eq!(check(&format!("Bearer {signed}x.{signature}")), Err(Unauthorized::Signature));
    }

    #[test]
    fn the_key_itself_opens_as_bearer_and_as_password() {
        assert_eq!(check("Bearer changeme"), Ok(()));
        assert_eq!(check("Bearer changeme2"), Err(Unauthorized::Signature));
        assert_eq!(check("Bearer nonsense"), Err(Unauthorized::Signature), "§5");
        assert_eq!(check("Bearer a.b.c"), Err(Unauthorized::Malformed));
        assert_eq!(check("Basic cHVzaHBpbjpjaGFuZ2VtZQ=="), Ok(()));
        assert_eq!(check("Basic b'cHVzaHBpbjpjaGFuZ2VtZQ=='"), Ok(()));
        assert_eq!(check("Basic cHVzaHBpbjp4"), Err(Unauthorized::Signature));
        assert_eq!(check("Basic eDpjaGFuZ2VtZQ=="), Err(Unauthorized::Issuer));
        assert_eq!(check("Basic eA=="), Err(Unauthorized::Malformed));
        assert_eq!(check("Digest x"), Err(Unauthorized::Scheme));
        assert_eq!(check("Bearer"), Err(Unauthorized::Scheme));
        assert_eq!(PublisherAuth::new(None, key("k")).check(None, NOW), Err(Unauthorized::Scheme));
        let base64 = PublisherAuth::new(None, key("base64:Y2hhbmdlbWU="));
        assert_eq!(base64.check(Some("Bearer base64:Y2hhbmdlbWU="), NOW), Ok(()));
        assert_eq!(base64.check(Some(&format!("Bearer {RECORDED}")), NOW), Ok(()));
    }

    #[test]
    fn an_empty_key_is_not_one_and_none_is_shown() {
        assert!(SharedKey::parse("").is_none());
        assert!(SharedKey::parse("base64:").is_none());
        assert!(SharedKey::parse("base64:%").is_none());
        assert_eq!(format!("{:?}", key("changeme")), "SharedKey(…)");
    }

    proptest! {
        #[test]
        fn a_token_opens_what_its_key_guards_for_an_hour(issuer: String, text in ".+", after in 0u64..4000) {
            prop_assume!(!text.starts_with("base64:"));
            let auth = PublisherAuth::new(Some(&issuer), key(&text));
            let token = format!("Bearer {}", Signer::new(&issuer, key(&text)).token(NOW));
            let expected = if after < 3600 { Ok(()) } else { Err(Unauthorized::Expired) };
            prop_assert_eq!(auth.check(Some(&token), NOW + after), expected);
        }

        #[test]
        fn no_text_opens_or_panics(text: String) {
            for authorization in [format!("Bearer {text}"), format!("Basic {text}"), text] {
                prop_assert!(check(&authorization).is_err());
            }
        }
    }
}
