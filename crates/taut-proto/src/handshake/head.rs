//! The head of a request as values, however it has come.

use std::fmt;

use super::headers::Headers;
use super::refusal::{Cause, Refusal};
use super::version::Version;

/// The head of a request as values, borrowed from its receiver.
///
/// It has three sources: [`http1::parse_request`](super::http1::parse_request) for the text of HTTP/1.1, a struct
/// literal where an HTTP library has parsed the text already, and [`extended_connect`](Self::extended_connect) for a
/// stream of HTTP/2 or HTTP/3. Nothing is checked yet: [`Request::new`](super::Request::new) does that.
///
/// Its `Debug` shows neither the query nor the values of headers, which hold secrets.
#[derive(Clone)]
pub struct RequestHead<'a> {
    /// The method as written: methods are case-sensitive.
    pub method: &'a str,
    /// `:scheme`, or the scheme of a target in absolute form that was split already.
    pub scheme: Option<&'a str>,
    /// `:authority`, or the authority of a target in absolute form that was split already.
    pub authority: Option<&'a str>,
    /// The request target: `:path`, or what the request line of HTTP/1.1 says, in any of its forms (RFC 9112 §3.2).
    pub target: &'a str,
    /// `:protocol`, which makes an extended CONNECT of a CONNECT (RFC 8441 §4).
    pub protocol: Option<&'a str>,
    /// The version of HTTP.
    pub version: Version,
    /// The headers in order, without the pseudo-headers above.
    pub headers: Headers<'a>,
}

impl<'a> RequestHead<'a> {
    /// The head of an extended CONNECT for `:protocol` `websocket`: the handshake of RFC 8441 §5 (HTTP/2) and RFC 9220
    /// §3 (HTTP/3). `path` has the optional query.
    pub fn extended_connect(
        version: Version,
        scheme: &'a str,
        authority: &'a str,
        path: &'a str,
        headers: Headers<'a>,
    ) -> Self {
        Self {
            method: "CONNECT",
            scheme: Some(scheme),
            authority: Some(authority),
            target: path,
            protocol: Some("websocket"),
            version,
            headers,
        }
    }

    /// A head to be filled in.
    pub(super) fn empty() -> Self {
        Self {
            method: "",
            scheme: None,
            authority: None,
            target: "",
            protocol: None,
            version: Version::Http11,
            headers: Headers::new(),
        }
    }

    /// Checks what a parser of text has checked already: sizes, and characters that no header may hold.
    pub(super) fn check(&self, limits: &HeadLimits) -> Result<(), Refusal> {
        if self.headers.len() > limits.headers {
            return Err(Cause::TooManyHeaders.into());
        }
        if self.length() > limits.bytes {
            return Err(Cause::HeadTooLarge.into());
        }
        let is_line = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        if !super::is_token(self.method) || !is_line(self.target) {
            return Err(Cause::Malformed.into());
        }
        self.headers.check_characters()?;
        Ok(())
    }

    /// Its length as a text of HTTP/1.1, so that a limit means the same for every version.
    fn length(&self) -> usize {
        let absolute =
            self.scheme.zip(self.authority).map_or(0, |(scheme, authority)| scheme.len() + 3 + authority.len());
        let line = self.method.len() + 1 + absolute + self.target.len() + " HTTP/1.1\r\n".len();
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + 2 + value.len() + 2).sum();
        line + headers + 2
    }
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        let mut shown = f.debug_struct("RequestHead");
        shown.field("method", &self.method).field("path", &path).field("version", &self.version);
        shown.field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// The head of a response as values.
pub(super) struct ResponseHead<'a> {
    pub(super) status: u16,
    pub(super) version: Version,
    pub(super) headers: Headers<'a>,
}

/// How large a head may be. The same limits hold for a request that a server reads and for a response that a
/// client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the head with its final empty line; 16 KiB. This much may be held for every peer that has not
    /// finished its handshake; browsers with many cookies need about 8 KiB. A head that came by HTTP/2 or HTTP/3 counts
    /// as much as its text in HTTP/1.1 would.
    pub bytes: usize,
    /// Header lines; 100. Parsing allocates 32 bytes for each line that is really there if there are more than 24.
    pub headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 16 << 10, headers: 100 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(method: &'a str, target: &'a str, headers: &[(&'a str, &'a [u8])]) -> RequestHead<'a> {
        RequestHead { method, target, headers: headers.iter().copied().collect(), ..RequestHead::empty() }
    }

    fn cause(head: &RequestHead<'_>, limits: HeadLimits) -> Option<Cause> {
        head.check(&limits).err().map(|refusal| refusal.cause())
    }

    // RFC 9112 §3: no method, target or header holds what would end it as a text.
    #[test]
    fn values_that_no_text_could_hold_are_refused() {
        let limits = HeadLimits::default();
        assert_eq!(cause(&head("GET", "/chat?a=b", &[("host", b"a")]), limits), None);
        for (method, target) in
            [("", "/"), ("GE T", "/"), ("GET\n", "/"), ("GET", ""), ("GET", "/a b"), ("GET", "/\x7f")]
        {
            assert_eq!(cause(&head(method, target, &[]), limits), Some(Cause::Malformed), "{method:?} {target:?}");
        }
        for value in [&b"a\nb"[..], b"a\rb", b"a\0b"] {
            assert!(head("GET", "/", &[("x", value)]).check(&limits).is_err(), "{value:?}");
        }
    }

    #[test]
    fn limits_mean_for_values_what_they_mean_for_text() {
        let text = "GET http://a/chat HTTP/1.1\r\nhost: a\r\nx: yz\r\n\r\n";
        let plain = head("GET", "/chat", &[("host", b"a"), ("x", b"yz")]);
        let absolute = RequestHead { scheme: Some("http"), authority: Some("a"), ..plain };
        let limits = |bytes, headers| HeadLimits { bytes, headers };
        assert_eq!(cause(&absolute, limits(text.len(), 2)), None);
        assert_eq!(cause(&absolute, limits(text.len() - 1, 2)), Some(Cause::HeadTooLarge));
        assert_eq!(cause(&absolute, limits(text.len(), 1)), Some(Cause::TooManyHeaders));
    }
}
