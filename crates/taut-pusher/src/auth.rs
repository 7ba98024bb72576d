//! Signatures: HMAC-SHA256 with the app's secret, written as lower-case hexadecimal digits.
//!
//! HMAC is done by the crate `hmac`. ring has it as well, but takes 225 ns where this takes 160 (a text of 40 bytes, a
//! key that is kept, a processor with instructions for SHA-256), and each publish pays it.

use std::borrow::{Borrow, Cow};
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use memchr::memchr;
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{hex, number};

/// An app's secret, ready to sign with.
///
/// Preparing a secret is half of the SHA-256 work for a short text: keep the key to sign more than once.
///
/// `Debug` does not show it.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Makes a secret ready.
    pub fn new(secret: &str) -> Self {
        // RFC 2104 §2: a key longer than a block is replaced by its digest, a shorter one is filled up with zeros; so
        // there is no wrong length.
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length"))
    }

    /// Signs a text given in parts.
    pub fn sign(&self, parts: &[&[u8]]) -> Signature {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        Signature(mac.finalize().into_bytes().into())
    }

    /// Signs what lets a connection subscribe to `channel`.
    ///
    /// `channel_data` is the text exactly as the client sent it.
    pub fn sign_subscription(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> Signature {
        self.sign(&subscription_parts(socket_id, channel, channel_data).map(str::as_bytes))
    }

    /// Signs what lets a connection act as a user.
    ///
    /// `user_data` is the text exactly as the client sent it.
    pub fn sign_user(&self, socket_id: &str, user_data: &str) -> Signature {
        self.sign(&user_parts(socket_id, user_data).map(str::as_bytes))
    }
}

/// The text that [`SigningKey::sign_subscription`] signs.
///
/// ```
/// use taut_pusher::auth::subscription_text;
///
/// assert_eq!(subscription_text("123.456", "private-orders", None), "123.456:private-orders");
/// ```
pub fn subscription_text(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    subscription_parts(socket_id, channel, channel_data).concat()
}

/// The text that [`SigningKey::sign_user`] signs.
pub fn user_text(socket_id: &str, user_data: &str) -> String {
    user_parts(socket_id, user_data).concat()
}

fn subscription_parts<'a>(socket_id: &'a str, channel: &'a str, channel_data: Option<&'a str>) -> [&'a str; 5] {
    let (separator, channel_data) = channel_data.map_or(("", ""), |data| (":", data));
    [socket_id, ":", channel, separator, channel_data]
}

fn user_parts<'a>(socket_id: &'a str, user_data: &'a str) -> [&'a str; 3] {
    [socket_id, "::user::", user_data]
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey(…)")
    }
}

/// What an app's secret makes of a text.
///
/// It is compared in constant time only, and `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Signature([u8; 32]);

impl Signature {
    /// Signs a text given in parts.
    pub fn of(secret: &str, parts: &[&[u8]]) -> Self {
        SigningKey::new(secret).sign(parts)
    }

    /// What an auth endpoint signs: [`SigningKey::sign_subscription`] with a secret that is used once.
    pub fn of_subscription(secret: &str, socket_id: &str, channel: &str, channel_data: Option<&str>) -> Self {
        SigningKey::new(secret).sign_subscription(socket_id, channel, channel_data)
    }

    /// What an auth endpoint signs: [`SigningKey::sign_user`] with a secret that is used once.
    pub fn of_user(secret: &str, socket_id: &str, user_data: &str) -> Self {
        SigningKey::new(secret).sign_user(socket_id, user_data)
    }

    /// Whether a peer's bytes are the same. The time it takes tells nothing about where they differ.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.0.ct_eq(bytes).into()
    }

    /// Whether a peer's 64 hexadecimal digits say the same. The time it takes tells nothing about where they differ.
    pub fn matches(&self, digits: &str) -> bool {
        hex::decode::<32>(digits).is_some_and(|given| self.is(&given))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Signature(…)")
    }
}

/// A request to the HTTP API, as it came, whose signature is to be checked.
///
/// ```
/// use taut_pusher::auth::{Request, SigningKey};
///
/// let query = "auth_key=app-key&auth_timestamp=1353088179&auth_version=1.0";
/// let request = Request::new("GET", "/apps/3/channels", query, b"");
/// assert_eq!(request.auth_key(), Some("app-key"));
/// let key_of = |key: &str| (key == "app-key").then(|| SigningKey::new("app-secret"));
/// let refused = request.verify(key_of, "", 1_353_088_200).unwrap_err();
/// assert_eq!(refused.to_string(), "Missing query parameter: auth_signature");
/// ```
pub struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
    parameters: Vec<Parameter<'a>>,
}

impl<'a> Request<'a> {
    /// Takes a request apart: `path` and `query` as they stand in the request line, the body as it came.
    pub fn new(method: &'a str, path: &'a str, query: &'a str, body: &'a [u8]) -> Self {
        let has_escapes = memchr(b'%', query.as_bytes()).is_some();
        let decode: fn(&'a str) -> Cow<'a, str> = if has_escapes { decode_percent } else { Cow::Borrowed };
        let mut parameters = Vec::with_capacity(USUAL_PARAMETERS);
        let mut rest = query;
        while !rest.is_empty() {
            let end = memchr(b'&', rest.as_bytes()).unwrap_or(rest.len());
            if end > 0 {
                parameters.push(Parameter::parse(&rest[..end], decode));
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        Self { method, path, query, body, parameters }
    }

    /// The key of the app that the request claims to come from.
    pub fn auth_key(&self) -> Option<&str> {
        self.parameter("auth_key")
    }

    /// Checks the signature, and that the request is at most 600 seconds old.
    ///
    /// `key_of` gives what a key of the app signs with, if it is one; `prefix` is what precedes `/apps` in this
    /// server's paths, empty by default; `now` is in seconds since 1970.
    pub fn verify<K: Borrow<SigningKey>>(
        &self,
        key_of: impl FnOnce(&str) -> Option<K>,
        prefix: &str,
        now: u64,
    ) -> Result<(), SignatureError> {
        let auth_key = self.once("auth_key")?.ok_or(SignatureError::Missing("auth_key"))?;
        let version = self.once("auth_version")?.ok_or(SignatureError::Missing("auth_version"))?;
        let timestamp = self.once("auth_timestamp")?.ok_or(SignatureError::Missing("auth_timestamp"))?;
        let signature = self.once("auth_signature")?.ok_or(SignatureError::Missing("auth_signature"))?;
        let key = key_of(auth_key).ok_or(SignatureError::UnknownKey)?;
        if version != "1.0" {
            return Err(SignatureError::Version);
        }
        let timestamp = number::digits(timestamp).ok_or(SignatureError::TimestampForm)?;
        if now.abs_diff(timestamp) > TIMESTAMP_TOLERANCE {
            return Err(SignatureError::Expired { given: timestamp, now });
        }
        self.verify_body()?;
        self.verify_signature(key.borrow(), prefix, signature)
    }

    /// The body is signed through its digest. pusher-http-python sends the digest of an empty body too.
    fn verify_body(&self) -> Result<(), SignatureError> {
        match self.once("body_md5")? {
            Some(digest) if hex::decode(digest) != Some(Md5::digest(self.body).into()) => {
                Err(SignatureError::BodyDigest)
            }
            None if !self.body.is_empty() => Err(SignatureError::Missing("body_md5")),
            _ => Ok(()),
        }
    }

    /// Tries the text that the protocol describes first, then what SDKs are known to sign in its place.
    ///
    /// For an honest request nearly all variants are the same text, which is tried once.
    fn verify_signature(&self, key: &SigningKey, prefix: &str, signature: &str) -> Result<(), SignatureError> {
        let is_of = |path: &str, query: &str| {
            key.sign(&[self.method, "\n", path, "\n", query].map(str::as_bytes)).matches(signature)
        };
        let described = self.described_query();
        // It nearly always is, and then nothing else is put together.
        if is_of(self.path, &described) {
            return Ok(());
        }
        let (paths, queries) = (self.signed_paths(prefix), self.signed_queries());
        if queries.iter().any(|query| paths.iter().any(|path| is_of(path, query))) {
            return Ok(());
        }
        let text = format!("{}\n{}\n{described}", self.method, self.path);
        // The beginning of what was sent is enough to find it again; all of it might be valid elsewhere.
        let sent = signature.chars().take(8).map(|digit| if digit.is_ascii_alphanumeric() { digit } else { '?' });
        Err(SignatureError::Signature { text, sent: sent.collect() })
    }

    /// The query as the protocol signs it.
    fn described_query(&self) -> Cow<'a, str> {
        self.query_as_signed().map_or_else(|| self.signed_query(QueryForm::Decoded).into(), Cow::Borrowed)
    }

    /// The query without its signature, if that is what is signed as it stands. SDKs send it so: sorted, with the
    /// signature at the end, and most values need no escapes.
    fn query_as_signed(&self) -> Option<&'a str> {
        let (signature, signed) = self.parameters.split_last()?;
        let query = self.query.strip_suffix(signature.raw_value)?.strip_suffix("&auth_signature=")?;
        let is_plain = |parameter: &Parameter<'_>| parameter.is_plain && parameter.key != "auth_signature";
        // What is longer holds empty pairs, which nobody signs.
        let length = signed.iter().map(|parameter| parameter.key.len() + 1 + parameter.value.len() + 1).sum::<usize>();
        let is_signed = signed.iter().all(is_plain)
            && signed.is_sorted_by(|left, right| left.key <= right.key)
            && query.len() + 1 == length;
        is_signed.then_some(query)
    }

    /// As it stands, decoded (an SDK may sign a user's id before it escapes it), and both without the prefix
    /// (pusher-http-php signs so).
    fn signed_paths(&self, prefix: &str) -> Vec<Cow<'a, str>> {
        let mut paths = vec![Cow::Borrowed(self.path), decode_percent(self.path)];
        if !prefix.is_empty() {
            let shorter = self.path.strip_prefix(prefix).filter(|path| path.starts_with('/'));
            paths.extend(shorter.into_iter().flat_map(|path| [Cow::Borrowed(path), decode_percent(path)]));
        }
        without_repeats(paths)
    }

    fn signed_queries(&self) -> Vec<String> {
        without_repeats(QUERY_FORMS.map(|form| self.signed_query(form)))
    }

    fn signed_query(&self, form: QueryForm) -> String {
        let mut query = String::with_capacity(self.query.len());
        for (key, value) in self.signed_parameters(form) {
            let separator = if query.is_empty() { "" } else { "&" };
            query.extend([separator, key, "=", &value]);
        }
        query
    }

    fn signed_parameters(&self, form: QueryForm) -> Vec<(&str, Cow<'_, str>)> {
        let parameters = self.parameters.iter().filter(|parameter| parameter.key != "auth_signature");
        let parameters = parameters.map(|parameter| {
            let value = match form {
                QueryForm::Raw => Cow::Borrowed(parameter.raw_value),
                QueryForm::PlusIsSpace => {
                    Cow::Owned(decode_percent(&parameter.raw_value.replace('+', " ")).into_owned())
                }
                QueryForm::Decoded => Cow::Borrowed(&*parameter.value),
            };
            let (name, is_of_list) = list_name(&parameter.key);
            (name, is_of_list, value)
        });
        sorted(parameters.collect())
    }

    /// The value of a parameter that vouches for the request. It may come once: of two, we might check one and another
    /// reader trust the other.
    fn once(&self, key: &'static str) -> Result<Option<&str>, SignatureError> {
        let mut values = self.parameters.iter().filter(|parameter| parameter.key == key);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(|parameter| &*parameter.value)),
            (_, Some(_)) => Err(SignatureError::Repeated(key)),
        }
    }

    /// All parameters of the query with their values, decoded once.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|parameter| (&*parameter.key, &*parameter.value))
    }

    /// A parameter's value, decoded once.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|parameter| parameter.key == key).map(|parameter| &*parameter.value)
    }

    /// The members of a list: of `info=a,b`, or of `info[0]=a&info[1]=b` as pusher-http-php writes one.
    pub fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        self.parameters
            .iter()
            .filter(move |parameter| parameter.key.split_once('[').map_or(&*parameter.key, |(name, _)| name) == key)
            .flat_map(|parameter| parameter.value.split(','))
    }
}

/// The name that a parameter is signed by, and whether it is a member of a list: `info[0]` is one of `info`.
pub(crate) fn list_name(key: &str) -> (&str, bool) {
    let list = key.split_once('[').filter(|(_, index)| index.ends_with(']'));
    list.map_or((key, false), |(name, _)| (name, true))
}

/// Sorts parameters by name, and joins the members of a list by commas: pusher-http-php sends `info[0]=a&info[1]=b` and
/// signs `info=a,b`.
///
/// Anyone can send a query of thousands of parameters, since it is read before its signature is known: so each is
/// compared with few others.
pub(crate) fn sorted<N: Ord>(mut parameters: Vec<(N, bool, Cow<'_, str>)>) -> Vec<(N, Cow<'_, str>)> {
    parameters.sort_by(|left, right| left.0.cmp(&right.0));
    parameters.dedup_by(|(name, is_of_list, value), (first_name, _, joined)| {
        let joins = *is_of_list && name == first_name;
        if joins {
            let joined = joined.to_mut();
            joined.push(',');
            joined.push_str(value);
        }
        joins
    });
    parameters.into_iter().map(|(name, _, value)| (name, value)).collect()
}

fn without_repeats<T: PartialEq>(texts: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut different = Vec::new();
    for text in texts {
        if !different.contains(&text) {
            different.push(text);
        }
    }
    different
}

/// Why a request's signature was not accepted. The text is meant for the person who integrates the SDK; it holds
/// neither secret nor valid signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// A query parameter that every signed request needs is not there.
    Missing(&'static str),
    /// A query parameter that belongs to the signature is there more than once.
    Repeated(&'static str),
    /// The key is not one of the addressed app.
    UnknownKey,
    /// `auth_version` is not `1.0`.
    Version,
    /// `auth_timestamp` is not a number of seconds.
    TimestampForm,
    /// The request is too old, or comes from the future.
    Expired {
        /// Its time in seconds since 1970.
        given: u64,
        /// The server's time in seconds since 1970.
        now: u64,
    },
    /// `body_md5` belongs to another body.
    BodyDigest,
    /// The signature belongs to another request or was made with another secret.
    Signature {
        /// The text to sign.
        text: String,
        /// How the signature began that was sent.
        sent: String,
    },
}

impl fmt::Display for SignatureError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(formatter, "Missing query parameter: {name}"),
            Self::Repeated(name) => write!(formatter, "Query parameter given more than once: {name}"),
            Self::UnknownKey => formatter.write_str("Unknown auth_key"),
            Self::Version => formatter.write_str("Unsupported auth_version: it must be 1.0"),
            Self::TimestampForm => formatter.write_str("Invalid auth_timestamp: it must be whole seconds since 1970"),
            Self::Expired { given, now } => write!(
                formatter,
                "Timestamp expired: Given timestamp ({}) not within {TIMESTAMP_TOLERANCE}s of server time ({})",
                UtcTime(*given),
                UtcTime(*now)
            ),
            Self::BodyDigest => formatter.write_str(
                "Invalid body_md5: it is not the MD5 digest (lower-case hexadecimal) of the body that arrived",
            ),
            Self::Signature { text, sent } => write!(
                formatter,
                "Invalid signature: you should have sent HmacSHA256Hex({text:?}, your_secret_key), but you sent one \
                 that begins with \"{sent}\""
            ),
        }
    }
}

impl std::error::Error for SignatureError {}

struct Parameter<'a> {
    /// Decoded and lower-cased, as it is signed.
    key: Cow<'a, str>,
    raw_value: &'a str,
    value: Cow<'a, str>,
    /// It is signed as it stands.
    is_plain: bool,
}

impl<'a> Parameter<'a> {
    fn parse(pair: &'a str, decode: fn(&'a str) -> Cow<'a, str>) -> Self {
        // Keys are short, and most end where the first byte is that is not simple: neither upper-case, nor an escape,
        // nor the index of a list's member, which is signed with the others.
        let first = pair.bytes().position(|byte| !IS_SIMPLE[usize::from(byte)]).unwrap_or(pair.len());
        let is_simple = first == pair.len() || pair.as_bytes()[first] == b'=';
        let equals = if is_simple { first } else { pair.find('=').unwrap_or(pair.len()) };
        let (raw_key, raw_value) = (&pair[..equals], pair.get(equals + 1..));
        let (has_value, raw_value) = (raw_value.is_some(), raw_value.unwrap_or_default());
        let value = decode(raw_value);
        let key = if is_simple { raw_key.into() } else { decode(raw_key).to_lowercase().into() };
        let is_plain = is_simple && has_value && matches!((&key, &value), (Cow::Borrowed(_), Cow::Borrowed(_)));
        Self { key, raw_value, value, is_plain }
    }
}

/// The bytes that a key is usually made of.
const IS_SIMPLE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'_');
        byte += 1;
    }
    table
};

#[derive(Clone, Copy)]
enum QueryForm {
    /// Decoded once: what the protocol describes, and what all SDKs make of ordinary values.
    Decoded,
    /// As it stands, for an SDK that put its values into the URL without escaping them.
    Raw,
    /// Decoded by the rules of HTML forms.
    PlusIsSpace,
}

const QUERY_FORMS: [QueryForm; 3] = [QueryForm::Decoded, QueryForm::Raw, QueryForm::PlusIsSpace];

/// Seconds since 1970 as RFC 3339 writes them.
struct UtcTime(u64);

impl fmt::Display for UtcTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(seconds) = *self;
        if seconds > LAST_SECOND {
            return write!(formatter, "{seconds}");
        }
        let (mut days, second) = (seconds / 86_400, seconds % 86_400);
        let mut year = 1970;
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(formatter, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
    }
}

/// Decodes what is escaped in a path or in the query of a signed request (RFC 3986 §2.1), once.
///
/// A `%` without two digits behind it stays. A text whose escapes are not UTF-8 stays as a whole. So whatever an SDK
/// has sent has one text to compare its signature with, and a `+` is a plus sign; forms of browsers have another rule:
/// there it is a space.
pub fn decode_percent(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

/// Seconds by which a request's clock may differ from ours; how long a request can be replayed.
const TIMESTAMP_TOLERANCE: u64 = 600;

/// Parameters of a publish: the key, the time, the version, the digest and the signature.
const USUAL_PARAMETERS: usize = 5;

/// The end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";
    const NOW: u64 = 1_353_088_179;
    const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const PUBLISH_QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
        &body_md5=ec365a775a4cd0599faeb73354201b6f\
        &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    const CHANNELS_QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
        &filter_by_prefix=presence-&info=user_count\
        &auth_signature=16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291";

    fn key_of(key: &str) -> Option<SigningKey> {
        (key == KEY).then(|| SigningKey::new(SECRET))
    }

    fn verify(method: &str, path: &str, query: &str, body: &[u8]) -> Result<(), SignatureError> {
        Request::new(method, path, query, body).verify(key_of, "", NOW)
    }

    /// A query as an SDK would send it: `wire` in the URL, `signed` in the text that it signs.
    fn query_signing(path: &str, wire: &str, signed: &str) -> String {
        let auth = format!("auth_key={KEY}&auth_timestamp={NOW}&auth_version=1.0");
        let text = format!("GET\n{path}\n{auth}{signed}");
        format!("{auth}{wire}&auth_signature={}", Signature::of(SECRET, &[text.as_bytes()]))
    }

    #[test]
    fn subscriptions_are_signed_as_pusher_signs_them() {
        for (channel, data, signature) in [
            ("private-foobar", None, "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
            ("private-encrypted-foobar", None, "e6a18892d037c5d5e76a2265df4f086ffc38631605530dfd214aa5bff495f533"),
            (
                "presence-foobar",
                Some(r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
            (
                "presence-foobar",
                Some(r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#),
                "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
            ),
        ] {
            let made = Signature::of_subscription(SECRET, "1234.1234", channel, data);
            assert_eq!(made.to_string(), signature);
            assert!(made.matches(signature));
        }
    }

    #[test]
    fn users_are_signed_as_pusher_signs_them() {
        let made = Signature::of_user(SECRET, "1234.1234", r#"{"id":"12345"}"#);
        assert_eq!(made.to_string(), "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
    }

    #[test]
    fn webhook_bodies_are_signed_as_pusher_signs_them() {
        let body = br#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#;
        let made = Signature::of(SECRET, &[body]);
        assert_eq!(made.to_string(), "c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf");
    }

    #[test]
    fn the_published_requests_verify() {
        assert_eq!(verify("POST", "/apps/3/events", PUBLISH_QUERY, BODY), Ok(()));
        assert_eq!(verify("GET", "/apps/3/channels", CHANNELS_QUERY, b""), Ok(()));
    }

    #[test]
    fn any_change_to_a_signed_request_is_noticed() {
        let wrong = |result: Result<(), SignatureError>| {
            assert!(matches!(result, Err(SignatureError::Signature { .. })), "{result:?}");
        };
        wrong(verify("PUT", "/apps/3/events", PUBLISH_QUERY, BODY));
        wrong(verify("POST", "/apps/4/events", PUBLISH_QUERY, BODY));
        wrong(verify("POST", "/apps/3/events", &PUBLISH_QUERY.replace("179", "180"), BODY));
        wrong(verify("POST", "/apps/3/events", &format!("{PUBLISH_QUERY}&x=1"), BODY));
        wrong(verify("POST", "/apps/3/events", &PUBLISH_QUERY.replace("e6c", "e6d"), BODY));
        wrong(verify("POST", "/apps/3/events", &PUBLISH_QUERY.replace("7e6c", ""), BODY));
        wrong(verify("POST", "/apps/3/events", &PUBLISH_QUERY.replace("da45", "DA45"), BODY));
        wrong(verify("GET", "/apps/3/channels", &CHANNELS_QUERY.replace("presence-", "private-"), b""));
        let other_secret = Request::new("GET", "/apps/3/channels", CHANNELS_QUERY, b"").verify(
            |_| Some(SigningKey::new("another")),
            "",
            NOW,
        );
        wrong(other_secret);
    }

    #[test]
    fn the_order_of_the_parameters_and_the_case_of_their_names_do_not_matter() {
        let mut pairs: Vec<&str> = CHANNELS_QUERY.split('&').collect();
        pairs.reverse();
        assert_eq!(verify("GET", "/apps/3/channels", &pairs.join("&"), b""), Ok(()));
        let upper = CHANNELS_QUERY.replace("filter_by_prefix", "Filter_By_Prefix").replace("auth_key", "AUTH_KEY");
        assert_eq!(verify("GET", "/apps/3/channels", &upper, b""), Ok(()));
    }

    #[test]
    fn a_body_is_bound_by_its_digest() {
        let other = [BODY, b" "].concat();
        assert_eq!(verify("POST", "/apps/3/events", PUBLISH_QUERY, &other), Err(SignatureError::BodyDigest));
        assert_eq!(verify("GET", "/apps/3/channels", CHANNELS_QUERY, b"{}"), Err(SignatureError::Missing("body_md5")));
    }

    #[test]
    fn the_digest_of_an_empty_body_is_accepted_and_signed() {
        let digest = "&body_md5=d41d8cd98f00b204e9800998ecf8427e";
        let query = query_signing("/apps/3/channels", digest, digest);
        assert_eq!(verify("GET", "/apps/3/channels", &query, b""), Ok(()));
        let unsigned = query_signing("/apps/3/channels", digest, "");
        assert!(matches!(verify("GET", "/apps/3/channels", &unsigned, b""), Err(SignatureError::Signature { .. })));
    }

    #[test]
    fn values_may_come_raw_or_percent_encoded() {
        let signed = "&info=user_count,subscription_count";
        for wire in [signed, "&info=user_count%2Csubscription_count", "&info=user_count%2csubscription_count"] {
            assert_eq!(
                verify("GET", "/apps/3/channels", &query_signing("/apps/3/channels", wire, signed), b""),
                Ok(()),
                "{wire}"
            );
        }
    }

    #[test]
    fn a_raw_value_that_looks_encoded_verifies_as_it_stands() {
        let raw = "&filter_by_prefix=50%25";
        assert_eq!(verify("GET", "/a", &query_signing("/a", raw, raw), b""), Ok(()));
        assert_eq!(verify("GET", "/a", &query_signing("/a", raw, "&filter_by_prefix=50%"), b""), Ok(()));
    }

    #[test]
    fn a_list_is_read_however_it_was_written() {
        for query in ["info=a,b", "x=1&info=a%2Cb&information=c", "info[0]=a&info[1]=b", "INFO%5B0%5D=a&info%5B1%5D=b"]
        {
            assert_eq!(Request::new("GET", "/", query, b"").list("info").collect::<Vec<_>>(), ["a", "b"], "{query}");
        }
        assert_eq!(Request::new("GET", "/", "x=info", b"").list("info").next(), None);
    }

    #[test]
    fn a_plus_is_a_plus_first_and_a_space_second() {
        for signed in ["&filter_by_prefix=a+b", "&filter_by_prefix=a b"] {
            assert_eq!(
                verify("GET", "/a", &query_signing("/a", "&filter_by_prefix=a+b", signed), b""),
                Ok(()),
                "{signed}"
            );
        }
    }

    #[test]
    fn php_arrays_are_signed_joined_by_commas() {
        for wire in ["&info[0]=a&info[1]=b", "&info%5B0%5D=a&info%5B1%5D=b", "&info[]=a&info[]=b"] {
            assert_eq!(verify("GET", "/a", &query_signing("/a", wire, "&info=a,b"), b""), Ok(()), "{wire}");
        }
    }

    #[test]
    fn thousands_of_names_are_each_compared_with_few_others() {
        /// Counts how often it is compared.
        struct Name<'a>(usize, &'a std::cell::Cell<usize>);
        impl Ord for Name<'_> {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.1.set(self.1.get() + 1);
                self.0.cmp(&other.0)
            }
        }
        impl PartialOrd for Name<'_> {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for Name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for Name<'_> {}

        let (count, compared) = (4096, std::cell::Cell::new(0));
        // 1021 is prime, so each name comes once, in an order that is no help.
        let names = (0..count).map(|number| (Name(number * 1021 % count, &compared), true, Cow::Borrowed("a")));
        assert_eq!(sorted(names.collect()).len(), count);
        assert!(compared.get() < count * 24, "{} comparisons", compared.get());
    }

    #[test]
    fn a_path_prefix_may_be_signed_or_left_out() {
        for signed in ["/realtime/apps/3/channels", "/apps/3/channels"] {
            let query = query_signing(signed, "", "");
            let request = Request::new("GET", "/realtime/apps/3/channels", &query, b"");
            assert_eq!(request.verify(key_of, "/realtime", NOW), Ok(()), "{signed}");
        }
        let query = query_signing("/apps/3/channels", "", "");
        let request = Request::new("GET", "/realtime/apps/3/channels", &query, b"");
        assert!(request.verify(key_of, "", NOW).is_err());
        assert!(request.verify(key_of, "/real", NOW).is_err());
    }

    #[test]
    fn a_path_may_be_signed_raw_or_decoded() {
        for signed in ["/apps/3/users/a%40b/terminate_connections", "/apps/3/users/a@b/terminate_connections"] {
            let query = query_signing(signed, "", "");
            assert_eq!(verify("GET", "/apps/3/users/a%40b/terminate_connections", &query, b""), Ok(()), "{signed}");
        }
    }

    #[test]
    fn a_request_is_good_for_600_seconds_either_way() {
        let at = |now| Request::new("GET", "/apps/3/channels", CHANNELS_QUERY, b"").verify(key_of, "", now);
        assert_eq!(at(NOW + 600), Ok(()));
        assert_eq!(at(NOW - 600), Ok(()));
        let refused = at(NOW + 601).expect_err("too old").to_string();
        assert_eq!(
            refused,
            "Timestamp expired: Given timestamp (2012-11-16T17:49:39Z) not within 600s of server time (2012-11-16T17:59:40Z)"
        );
        assert!(at(NOW - 601).is_err());
        assert!(at(0).is_err());
        assert!(at(u64::MAX).is_err());
    }

    #[test]
    fn what_is_missing_or_unreadable_is_named() {
        let without = |key: &str| {
            let pairs: Vec<&str> = CHANNELS_QUERY.split('&').filter(|pair| !pair.starts_with(key)).collect();
            verify("GET", "/apps/3/channels", &pairs.join("&"), b"").map_err(|refused| refused.to_string())
        };
        for key in ["auth_key", "auth_timestamp", "auth_version", "auth_signature"] {
            assert_eq!(without(key), Err(format!("Missing query parameter: {key}")));
        }
        let changed = |from: &str, to: &str| verify("GET", "/apps/3/channels", &CHANNELS_QUERY.replace(from, to), b"");
        assert_eq!(changed("auth_version=1.0", "auth_version=2.0"), Err(SignatureError::Version));
        assert_eq!(changed("1353088179", "yesterday"), Err(SignatureError::TimestampForm));
        for timestamp in ["-1", "+1353088179", "%2B1353088179", " 1353088179", "1353088179.0", ""] {
            assert_eq!(changed("1353088179", timestamp), Err(SignatureError::TimestampForm), "{timestamp}");
        }
        assert_eq!(changed("278d", "378d").map_err(|refused| refused.to_string()), Err("Unknown auth_key".to_owned()));
        assert_eq!(verify("GET", "/apps/3/channels", "", b""), Err(SignatureError::Missing("auth_key")));
    }

    #[test]
    fn a_parameter_of_the_signature_may_not_come_twice() {
        for parameter in [
            "auth_signature=0",
            "auth_signature=16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291",
            "AUTH_SIGNATURE=",
            "auth%5Fsignature",
            "auth_key=278d425bdf160c739803",
            "auth_timestamp=1353088179",
            "auth_version=1.0",
        ] {
            for query in [format!("{CHANNELS_QUERY}&{parameter}"), format!("{parameter}&{CHANNELS_QUERY}")] {
                let refused = verify("GET", "/apps/3/channels", &query, b"").expect_err(&query);
                let name = parameter.to_lowercase().replace("%5f", "_");
                let name = name.split('=').next().unwrap_or_default();
                assert_eq!(refused.to_string(), format!("Query parameter given more than once: {name}"), "{query}");
            }
        }
        // Signed by somebody who knows the secret, but not to be judged by.
        let digests = "&body_md5=d41d8cd98f00b204e9800998ecf8427e&body_md5=d41d8cd98f00b204e9800998ecf8427e";
        let query = query_signing("/a", digests, digests);
        assert_eq!(verify("GET", "/a", &query, b""), Err(SignatureError::Repeated("body_md5")));
    }

    #[test]
    fn a_wrong_signature_is_explained_without_secret_or_signature() {
        let query = CHANNELS_QUERY.replace("16819168", "<script>");
        let text = verify("GET", "/apps/3/channels", &query, b"").expect_err("wrong").to_string();
        assert!(
            text.starts_with(
                "Invalid signature: you should have sent HmacSHA256Hex(\"GET\\n/apps/3/channels\\nauth_key="
            ),
            "{text}"
        );
        assert!(
            text.ends_with("info=user_count\", your_secret_key), but you sent one that begins with \"?script?\""),
            "{text}"
        );
        assert!(!text.contains(SECRET) && !text.contains("891cb5dfd72b"), "{text}");
        assert_eq!(format!("{:?}", Signature::of(SECRET, &[])), "Signature(…)");
    }

    #[test]
    fn times_are_written_as_rfc_3339_does() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_749_435_123, "2025-06-09T02:12:03Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
            (LAST_SECOND + 1, "253402300800"),
        ] {
            assert_eq!(UtcTime(seconds).to_string(), text);
        }
    }

    #[test]
    fn escapes_are_decoded_once_and_broken_ones_stay() {
        for (text, decoded) in
            [("a%2Cb", "a,b"), ("%252C", "%2C"), ("100%", "100%"), ("%zz", "%zz"), ("%C3%A9", "é"), ("%ff", "%ff")]
        {
            assert_eq!(decode_percent(text), decoded);
        }
    }

    #[test]
    fn a_query_is_signed_as_it_stands_only_if_that_is_the_text_to_sign() {
        let as_signed = |query| Request::new("GET", "/", query, b"").query_as_signed();
        assert_eq!(as_signed("a=1&b=x+y&c=&auth_signature=0"), Some("a=1&b=x+y&c="));
        for query in [
            "",
            "auth_signature=0",
            "b=1&a=2&auth_signature=0",
            "auth_signature=0&b=1",
            "a=1&auth_signature=1&b=1&auth_signature=0",
            "a=1&&b=1&auth_signature=0",
            "a&&b=1&auth_signature=0",
            "&a=1&auth_signature=0",
            "a=1&&auth_signature=0",
            "a=1&auth_signature=0&",
            "a=1&b&auth_signature=0",
            "A=1&auth_signature=0",
            "a=%41&auth_signature=0",
            "%61=1&auth_signature=0",
            "a=1&auth%5Fsignature=0",
            "a=1&Auth_Signature=0",
            "a[0]=1&a[1]=2&auth_signature=0",
        ] {
            assert_eq!(as_signed(query), None, "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_as_it_stands_is_what_would_be_put_together(
            parts in prop::collection::vec(prop::sample::select(
                &["a", "b", "B", "=", "&", "%41", "%", "[0]", "+", "é", "auth_signature", "&auth_signature="][..],
            ), 0..12),
        ) {
            let query = format!("{}&auth_signature=0", parts.concat());
            let request = Request::new("GET", "/", &query, b"");
            if let Some(signed) = request.query_as_signed() {
                let pairs = request.signed_parameters(QueryForm::Decoded);
                let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
                prop_assert_eq!(signed, pairs.join("&"));
            }
        }

        #[test]
        fn no_request_makes_the_check_panic(path: String, query: String, body: Vec<u8>, now: u64) {
            let query = format!("{query}&{CHANNELS_QUERY}");
            prop_assert!(Request::new("GET", &path, &query, &body).verify(|_| Some(SigningKey::new("another")), "/p", now).is_err());
        }
    }
}
