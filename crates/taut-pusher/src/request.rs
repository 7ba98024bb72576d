//! Signs requests to the HTTP API.

use std::borrow::Cow;

use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::auth::{Signature, SigningKey, list_name, sorted};
use crate::hex;

/// A request to the HTTP API, to be signed.
///
/// ```
/// use taut_pusher::auth::SigningKey;
/// use taut_pusher::request::Request;
///
/// let body = br#"{"name":"headline","channels":["news"],"data":"{}"}"#;
/// let request = Request { method: "POST", path: "/apps/1/events", parameters: &[], body };
/// let signed = request.sign("app-key", &SigningKey::new("app-secret"), 1_353_088_179);
/// assert!(signed.query.starts_with("auth_key=app-key&auth_timestamp=1353088179&auth_version=1.0&body_md5="));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In upper case.
    pub method: &'a str,
    /// As it stands in the request line, percent-encoded: see [`encode`].
    pub path: &'a str,
    /// What the query has besides the signature; not encoded. Members of a list (`info[0]`, `info[1]`) are sent as they
    /// are signed: joined by commas, `info=a,b`.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The body; its digest is signed unless it is empty.
    pub body: &'a [u8],
}

/// What signing a request has made. There is no `Debug`: anyone who has the query can send the request.
#[derive(Clone)]
pub struct SignedRequest {
    /// The text that was signed.
    pub text: String,
    /// Its signature.
    pub signature: Signature,
    /// The query to send, percent-encoded, with the signature at its end.
    pub query: String,
}

impl Request<'_> {
    /// Signs the request with the secret of this key, at this time in seconds since 1970. It can be used for ten
    /// minutes.
    pub fn sign(&self, auth_key: &str, key: &SigningKey, now: u64) -> SignedRequest {
        let timestamp = now.to_string();
        let digest = (!self.body.is_empty()).then(|| hex::encode(&Md5::digest(self.body)));
        let auth = [("auth_key", auth_key), ("auth_timestamp", &timestamp), ("auth_version", "1.0")];
        let parameters = auth
            .into_iter()
            .chain(digest.as_deref().map(|digest| ("body_md5", digest)))
            .chain(self.parameters.iter().copied())
            .map(|(name, value)| {
                let lower = name.to_lowercase();
                let (name, is_of_list) = list_name(&lower);
                (name.to_owned(), is_of_list, Cow::Borrowed(value))
            });
        let pairs = sorted(parameters.collect());
        let join = |encode: fn(&str) -> String| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            pairs.join("&")
        };
        let text = format!("{}\n{}\n{}", self.method, self.path, join(str::to_owned));
        let signature = key.sign(&[text.as_bytes()]);
        let query = format!("{}&auth_signature={signature}", join(encode));
        SignedRequest { text, signature, query }
    }
}

/// Percent-encodes a value for a query, or a segment of a path (RFC 3986 §2.3: all but what is unreserved).
pub fn encode(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth;
    use proptest::prelude::*;

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";
    const NOW: u64 = 1_353_088_179;

    #[test]
    fn requests_are_signed_as_pusher_signs_them() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let publish = Request { method: "POST", path: "/apps/3/events", parameters: &[], body };
        let signed = publish.sign(KEY, &SigningKey::new(SECRET), NOW);
        assert_eq!(signed.signature.to_string(), "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c");
        assert!(signed.text.ends_with("body_md5=ec365a775a4cd0599faeb73354201b6f"), "{}", signed.text);
        let parameters = [("info", "user_count"), ("filter_by_prefix", "presence-")];
        let channels = Request { method: "GET", path: "/apps/3/channels", parameters: &parameters, body: b"" };
        assert_eq!(
            channels.sign(KEY, &SigningKey::new(SECRET), NOW).signature.to_string(),
            "16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291"
        );
    }

    #[test]
    fn a_list_is_sent_as_it_is_signed() {
        let parameters = [("info[1]", "a"), ("x", "1"), ("info[0]", "b")];
        let request = Request { method: "GET", path: "/", parameters: &parameters, body: b"" };
        let signed = request.sign(KEY, &SigningKey::new(SECRET), NOW);
        assert!(signed.query.contains("&info=a%2Cb&x=1&"), "{}", signed.query);
        let received = auth::Request::new("GET", "/", &signed.query, b"");
        assert_eq!(received.verify(|_| Some(SigningKey::new(SECRET)), "", NOW), Ok(()));
    }

    proptest! {
        #[test]
        fn a_server_accepts_what_was_signed(
            path: String, name in "[^\\[]{1,9}", value: String, body: Vec<u8>,
        ) {
            prop_assume!(!name.to_lowercase().starts_with("auth_") && !name.eq_ignore_ascii_case("body_md5"));
            let path = format!("/apps/3/users/{}", encode(&path));
            let parameters = [(&*name, &*value)];
            let request = Request { method: "POST", path: &path, parameters: &parameters, body: &body };
            let signed = request.sign(KEY, &SigningKey::new(SECRET), NOW);
            let received = auth::Request::new("POST", &path, &signed.query, &body);
            prop_assert_eq!(received.verify(|_| Some(SigningKey::new(SECRET)), "", NOW), Ok(()));
            prop_assert_eq!(received.parameter(&name.to_lowercase()), Some(&*value));
        }
    }
}
