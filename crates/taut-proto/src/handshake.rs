//! The opening handshake of both sides (RFC 6455 §4), without I/O.
//!
//! The server's side is values: a [`RequestHead`] goes in, [`Request`] holds it to the rules of HTTP,
//! [`Request::upgrade`] to those of WebSocket, and a [`Response`] comes out, of the [`Upgrade`] or of the [`Refusal`]
//! that any of these steps gave. Where the values come from makes no difference to the rules:
//!
//! | handshake | its head | its response |
//! |---|---|---|
//! | HTTP/1.1 as text | [`http1::parse_request`] | [`http1::write_response`] |
//! | HTTP/1.1, parsed by an HTTP library | a [`RequestHead`] literal | the parts of [`Response`] |
//! | HTTP/2 (RFC 8441), HTTP/3 (RFC 9220) | [`RequestHead::extended_connect`] | the parts of [`Response`], status 200 |
//!
//! A server that reads text collects bytes until [`HeadScan`] finds the end of the head. What follows the head is the
//! first frames and belongs to the connection. A client writes a [`ClientRequest`] and
//! [`validate`](ClientRequest::validate)s what comes back. Deadlines belong to the driver, which has a clock: 10
//! seconds for the whole head is usual.
//!
//! ```
//! use taut_proto::handshake::{ClientRequest, HeadLimits, HeadScan, Request, Refusal};
//!
//! let limits = HeadLimits::default();
//! let nonce = [7; 16]; // from a good random source, fresh for each connection
//! let client = ClientRequest::new("chat.example", "/room?id=1").unwrap().subprotocol("v2.chat").unwrap();
//! let mut wire = Vec::new();
//! client.write(nonce, &mut wire);
//!
//! fn answer(received: &[u8], limits: &HeadLimits, out: &mut Vec<u8>) -> Result<(), Refusal> {
//!     let Some(end) = HeadScan::new().find(received, limits)? else { return Ok(()) }; // more is needed
//!     let request = Request::parse(&received[..end], limits)?;
//!     request.upgrade()?.select_subprotocol(&["v2.chat", "v1.chat"]).write_response(out);
//!     Ok(())
//! }
//! let mut response = Vec::new();
//! if let Err(refusal) = answer(&wire, &limits, &mut response) {
//!     refusal.write_response(&mut response);
//! }
//!
//! let accepted = client.validate(&response, nonce, &limits).unwrap();
//! assert_eq!(accepted.subprotocol, Some("v2.chat"));
//! ```

mod client;
pub(crate) mod deflate;
mod form;
mod head;
mod headers;
pub mod http1;
mod key;
pub mod origin;
mod refusal;
mod request;
mod response;
mod server;
#[cfg(test)]
mod testing;
mod version;

pub use client::{Accepted, ClientRequest, ClientResponse, Fault, InvalidRequest, Rejection, ResponseBody};
pub use form::form_value;
pub use head::{HeadLimits, RequestHead};
pub use headers::Headers;
pub use http1::HeadScan;
pub use key::{accept_key, encode_nonce, is_valid_key};
pub use refusal::{Cause, Refusal};
pub use request::{Framing, Request, bearer_credentials, cookie_value};
pub use response::Response;
pub use server::{Upgrade, add_header};
pub use version::Version;

use std::borrow::Cow;
use std::fmt;

/// One element of `Sec-WebSocket-Extensions`: the name of an extension and its parameters (RFC 6455 §9.1).
///
/// In a request it is an offer, in a response what was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    name: &'a str,
    params: &'a str,
}

impl<'a> Offer<'a> {
    /// Reads the value of one `Sec-WebSocket-Extensions` header: its elements in order, or one error at the first
    /// that is malformed. Takes time linear in the length of the value and allocates nothing unless a quoted value
    /// holds a backslash.
    pub fn list(value: &'a str) -> Offers<'a> {
        Offers { rest: value }
    }

    /// The extension's name as written.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The parameters in order, repeated ones included.
    pub fn params(&self) -> Params<'a> {
        Params { rest: self.params }
    }
}

/// A parameter of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Its name as written.
    pub name: &'a str,
    /// Its value without quotes; `None` for a flag.
    pub value: Option<Cow<'a, str>>,
}

/// The elements of one `Sec-WebSocket-Extensions` value; see [`Offer::list`].
#[derive(Clone, Debug)]
pub struct Offers<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Offers<'a> {
    type Item = Result<Offer<'a>, MalformedExtensions>;

    fn next(&mut self) -> Option<Self::Item> {
        // RFC 9110 §5.6.1: a recipient skips empty list elements.
        self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
        if self.rest.is_empty() {
            return None;
        }
        let Some((offer, rest)) = take_offer(self.rest) else {
            self.rest = "";
            return Some(Err(MalformedExtensions));
        };
        self.rest = rest;
        Some(Ok(offer))
    }
}

/// The parameters of an [`Offer`].
#[derive(Clone, Debug)]
pub struct Params<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        // The whole text was validated when its `Offer` was made, so nothing is lost at the `?`.
        let (param, rest) = take_param(self.rest.strip_prefix(';')?)?;
        self.rest = rest;
        Some(param)
    }
}

/// A `Sec-WebSocket-Extensions` value that does not follow the grammar of RFC 6455 §9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedExtensions;

impl fmt::Display for MalformedExtensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Sec-WebSocket-Extensions header does not follow the grammar of RFC 6455 section 9.1")
    }
}

impl std::error::Error for MalformedExtensions {}

/// A header that the application wanted to add and that must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The name is empty or holds a character that no header name may have.
    Name,
    /// The value holds a control character, such as a line end, that would let it forge other headers.
    Value,
    /// The handshake writes the header of this name itself, or it would give a message another end.
    Reserved(&'static str),
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a header name may only hold letters, digits and !#$%&'*+-.^_`|~",
            Self::Value => "a header value must not hold line ends or other control characters",
            Self::Reserved(name) => {
                return write!(f, "the header {name} belongs to the handshake and cannot be set by hand");
            }
        })
    }
}

impl std::error::Error for InvalidHeader {}

/// Appends `name: value` and a line end, if the application may set this header.
fn write_header(name: &str, value: &str, reserved: &[&'static str], out: &mut Vec<u8>) -> Result<(), InvalidHeader> {
    check_own_header(name, value, reserved)?;
    http1::write_line(out, name, value.as_bytes());
    Ok(())
}

/// Whether the application may set this header.
fn check_own_header(name: &str, value: &str, reserved: &[&'static str]) -> Result<(), InvalidHeader> {
    check_header(name, value)?;
    let is_ours = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let taken = reserved.iter().chain(&HANDSHAKE).find(|taken| name.eq_ignore_ascii_case(taken));
    match taken {
        Some(taken) => Err(InvalidHeader::Reserved(taken)),
        None if is_ours("sec-websocket-") => Err(InvalidHeader::Reserved("Sec-WebSocket-*")),
        None => Ok(()),
    }
}

/// The headers of the handshake's own (RFC 6455 §11.3).
const HANDSHAKE: [&str; 5] = [
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
];

/// Whether a header is one header, wherever it is sent.
fn check_header(name: &str, value: &str) -> Result<(), InvalidHeader> {
    if !is_token(name) {
        return Err(InvalidHeader::Name);
    }
    // CVE-2026-1527: a value with a line end would end this header and begin one of the caller's choice.
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(InvalidHeader::Value);
    }
    Ok(())
}

/// A token as HTTP defines it: what header names, subprotocols and extension names are made of.
///
/// RFC 6455 §4.1 (10) says the same of subprotocols: U+0021 to U+007E without separators.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The elements of a comma-separated list without the space around them; empty ones are skipped.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|element| element.trim_matches([' ', '\t'])).filter(|element| !element.is_empty())
}

/// `host` or `host:port` as it may stand in a `Host` header or in an origin (RFC 9110 §7.2, RFC 3986 §3.2.2),
/// split at the port. No user information, no characters that could end the header or begin a path.
fn split_host(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
        if !address.contains(':') || !address.bytes().all(is_address) {
            return None;
        }
        (&text[..address.len() + 2], port)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (host, port) = text.split_at(end);
        // The unreserved characters, the sub-delimiters and `%` of a registered name.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return None;
        }
        (host, port)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        // `parse` alone would let a sign pass.
        Some("") => None,
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    Some((host, port))
}

/// extension = extension-token *( ";" extension-param ), then the end or a comma (RFC 6455 §9.1).
fn take_offer(text: &str) -> Option<(Offer<'_>, &str)> {
    let (name, after_name) = take_token(text)?;
    let params = skip_space(after_name);
    let mut rest = params;
    while let Some(after_semicolon) = rest.strip_prefix(';') {
        (_, rest) = take_param(after_semicolon)?;
    }
    if !rest.is_empty() && !rest.starts_with(',') {
        return None;
    }
    Some((Offer { name, params: &params[..params.len() - rest.len()] }, rest))
}

/// extension-param = token [ "=" ( token | quoted-string ) ], with the space around it.
fn take_param(text: &str) -> Option<(Param<'_>, &str)> {
    let (name, rest) = take_token(skip_space(text))?;
    let rest = skip_space(rest);
    let Some(after_sign) = rest.strip_prefix('=') else {
        return Some((Param { name, value: None }, rest));
    };
    let value = skip_space(after_sign);
    let (value, rest) = match value.strip_prefix('"') {
        Some(quoted) => take_quoted(quoted)?,
        None => take_token(value).map(|(token, rest)| (Cow::Borrowed(token), rest))?,
    };
    Some((Param { name, value: Some(value) }, skip_space(rest)))
}

/// The rest of a quoted string after its opening quote.
///
/// CVE-2020-7662: one pass over the bytes; an unclosed string of backslashes costs no more than any other.
fn take_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    let (inner, rest) = (&text[..end], &text[end + 1..]);
    let value = if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) };
    // RFC 6455 §9.1: a quoted value is a token once its quotes and backslashes are gone.
    is_token(&value).then_some((value, rest))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

fn take_token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type OwnedParam = (String, Option<String>);

    fn parsed(value: &str) -> Option<Vec<(String, Vec<OwnedParam>)>> {
        let offers: Result<Vec<_>, _> = Offer::list(value).collect();
        let owned = |param: Param<'_>| (param.name.to_owned(), param.value.map(Cow::into_owned));
        Some(offers.ok()?.iter().map(|offer| (offer.name().to_owned(), offer.params().map(owned).collect())).collect())
    }

    fn flag(name: &str) -> (String, Option<String>) {
        (name.to_owned(), None)
    }

    fn pair(name: &str, value: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(value.to_owned()))
    }

    // RFC 6455 §9.1: a list of extensions, each a token with parameters in order.
    #[test]
    fn extensions_are_read_in_order_with_their_parameters() {
        let value = "permessage-deflate; a; b=1;c=\"2\" ,\tfoo,bar ;a = x;a";
        let expected = vec![
            ("permessage-deflate".to_owned(), vec![flag("a"), pair("b", "1"), pair("c", "2")]),
            ("foo".to_owned(), vec![]),
            ("bar".to_owned(), vec![pair("a", "x"), flag("a")]),
        ];
        assert_eq!(parsed(value), Some(expected));
        assert_eq!(parsed(" , ,, "), Some(vec![]));
    }

    // RFC 6455 §9.1: a quoted value, once unescaped, is a token.
    #[test]
    fn a_quoted_value_must_be_a_token_when_unquoted() {
        assert_eq!(parsed(r#"x;a="1\0""#), Some(vec![("x".to_owned(), vec![pair("a", "10")])]));
        for value in
            [r#"x;a="""#, r#"x;a="1 2""#, r#"x;a="1,2""#, r#"x;a="\"""#, r#"x;a="1"#, r#"x;a="1\"#, "x;a=\"é\""]
        {
            assert_eq!(parsed(value), None, "{value}");
        }
    }

    // RFC 6455 §9.1: whoever receives a value outside the grammar fails the handshake.
    // GHSA ws 3.3.1: odd names, repeated parameters and runs of separators are read or refused, never trusted.
    #[test]
    fn odd_names_and_runs_of_separators_are_read_or_refused() {
        for value in ["x;", "x;;a", ";", "x;a=", "x;=1", "x y", "x;a b", "x;a=1 2", "é", "x;é", "x/y", "\"x\"", "x=1"]
        {
            assert_eq!(parsed(value), None, "{value}");
        }
        for name in ["constructor", "__proto__", "toString", "hasOwnProperty"] {
            assert_eq!(parsed(name), Some(vec![(name.to_owned(), vec![])]));
            let value = format!("x;{name};{name}");
            assert_eq!(parsed(&value), Some(vec![("x".to_owned(), vec![flag(name), flag(name)])]));
        }
    }

    // CVE-2020-7662: 64 KiB of backslashes in an unclosed quoted string are read once, not once per backslash.
    #[test]
    fn an_unclosed_quoted_string_takes_linear_time() {
        let unclosed = format!("a;b=\"{}", r"\c".repeat(32 << 10));
        let began = std::time::Instant::now();
        for _ in 0..20 {
            assert_eq!(parsed(&unclosed), None);
        }
        // Twenty linear passes take milliseconds; one quadratic pass takes over 4·10⁹ steps, an exponential one never
        // ends.
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(parsed(&format!("{unclosed}\"")).is_some());
    }

    // CVE-2026-1527: no header that an application adds can end its line and begin another.
    #[test]
    fn a_header_with_a_line_end_is_refused() {
        let mut out = Vec::new();
        for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\u{7f}"] {
            assert_eq!(write_header("x", value, &[], &mut out), Err(InvalidHeader::Value), "{value:?}");
        }
        for name in ["", "a b", "a:", "a\r\nb", "é", "a\0"] {
            assert_eq!(write_header(name, "x", &[], &mut out), Err(InvalidHeader::Name), "{name:?}");
        }
        assert_eq!(
            write_header("SEC-websocket-Accept", "x", &[], &mut out),
            Err(InvalidHeader::Reserved("Sec-WebSocket-Accept"))
        );
        assert_eq!(write_header("Upgrade", "x", &["upgrade"], &mut out), Err(InvalidHeader::Reserved("upgrade")));
        assert_eq!(out, b"");
        assert_eq!(write_header("X-Id", "a\tb é", &[], &mut out), Ok(()));
        assert_eq!(out, "X-Id: a\tb é\r\n".as_bytes());
    }

    #[test]
    fn a_host_is_split_at_its_port() {
        assert_eq!(split_host("a.example"), Some(("a.example", None)));
        assert_eq!(split_host("a.example:"), Some(("a.example", None)));
        assert_eq!(split_host("a.example:65535"), Some(("a.example", Some(65535))));
        assert_eq!(split_host("[::1]:80"), Some(("[::1]", Some(80))));
        assert_eq!(split_host("[::ffff:1.2.3.4]"), Some(("[::ffff:1.2.3.4]", None)));
        for bad in [
            "", ":80", "a:b", "a:65536", "a:+8", "a:-1", "a:8:0", "a b", "a/b", "u@a", "a?b", "a#b", "[]", "[::1",
            "[::1]x", "[x::]", "[1]", "::1", "a\\b", "a\"b", "é",
        ] {
            assert_eq!(split_host(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_extensions_without_a_panic(value: String) {
            for offer in Offer::list(&value).map_while(Result::ok) {
                prop_assert!(is_token(offer.name()));
                for param in offer.params() {
                    prop_assert!(is_token(param.name));
                    prop_assert!(param.value.is_none_or(|value| is_token(&value)));
                }
            }
        }

        #[test]
        fn text_of_separators_is_read_as_extensions_without_a_panic(value in "[a,;= \\\\\"\t]{0,40}") {
            let offers: Vec<_> = Offer::list(&value).collect();
            // An error ends the list, and there is one at most.
            let bad = offers.iter().filter(|offer| offer.is_err()).count();
            prop_assert!(bad == 0 || (bad == 1 && offers.last().is_some_and(Result::is_err)));
        }

        #[test]
        fn any_text_is_split_as_a_host_without_a_panic(text: String, port in "[\\[\\]:0-9a]{0,12}") {
            let _ = split_host(&text);
            let _ = split_host(&port);
        }
    }
}
