//! `ws://` URLs (RFC 6455 §3).

use std::fmt;

/// Where a URL leads.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host and, if it is not the default, port, as the `Host` header has them.
    pub(crate) authority: String,
    /// The host as it is looked up: an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) target: String,
}

impl Url {
    /// Takes a URL apart; says what is wrong with it. Host and target are checked further by whoever writes them into
    /// a request.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("this is not a WebSocket URL; it must begin with ws://, such as ws://127.0.0.1:9001/path");
        };
        if scheme.eq_ignore_ascii_case("wss") {
            return Err("wss:// needs TLS, which comes with a later version of this library; use ws:// for now");
        }
        if !scheme.eq_ignore_ascii_case("ws") {
            return Err("the URL's scheme must be ws");
        }
        // RFC 6455 §3: a fragment has no meaning and must not be used.
        if rest.contains('#') {
            return Err("a WebSocket URL has no fragment; write a # in the path as %23");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a user and password in the URL are not sent; use a header, such as by Client::bearer");
        }
        if !authority.is_ascii() {
            return Err("the URL's host must be ASCII; write an international name in its xn-- form");
        }
        // An IPv6 address has colons of its own, in brackets.
        let colon = authority.rfind(':').filter(|&colon| !authority[colon..].contains(']'));
        let (bracketed, port) = match colon {
            None => (authority, DEFAULT_PORT),
            Some(colon) => {
                let digits = &authority[colon + 1..];
                // `parse` alone would let a sign pass.
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                let port = digits.parse().ok().filter(|&port| is_number && port != 0);
                (&authority[..colon], port.ok_or("the URL's port must be a number from 1 to 65535")?)
            }
        };
        if bracketed.is_empty() {
            return Err("the URL has no host");
        }
        let host = bracketed.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(bracketed);
        let authority = if port == DEFAULT_PORT { bracketed } else { authority };
        Ok(Self { authority: authority.to_owned(), host: host.to_owned(), port, target: target.to_owned() })
    }
}

impl fmt::Debug for Url {
    // Queries carry tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "ws://{}{path}", self.authority)
    }
}

const DEFAULT_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, u16, String) {
        let Url { authority, host, port, target } = Url::parse(text).unwrap();
        (authority, host, port, target)
    }

    fn expected(authority: &str, host: &str, port: u16, target: &str) -> (String, String, u16, String) {
        (authority.to_owned(), host.to_owned(), port, target.to_owned())
    }

    // RFC 6455 §3: ws-URI = "ws:" "//" host [ ":" port ] path [ "?" query ]; the port is 80 by default.
    #[test]
    fn a_url_is_taken_apart() {
        assert_eq!(parts("ws://a.example"), expected("a.example", "a.example", 80, ""));
        assert_eq!(parts("WS://a.example:80/x"), expected("a.example", "a.example", 80, "/x"));
        assert_eq!(parts("ws://a.example:9001/x/y?z=/:@"), expected("a.example:9001", "a.example", 9001, "/x/y?z=/:@"));
        assert_eq!(parts("ws://[::1]:9001?q"), expected("[::1]:9001", "::1", 9001, "?q"));
        assert_eq!(parts("ws://[::1]/"), expected("[::1]", "::1", 80, "/"));
    }

    // RFC 6455 §3: fragments must not be used.
    #[test]
    fn a_url_that_cannot_be_used_is_refused_with_advice() {
        for (text, word) in [
            ("a.example/x", "ws://"),
            ("http://a.example", "scheme"),
            ("wss://a.example", "TLS"),
            ("ws://a.example/#x", "fragment"),
            ("ws://user:secret@a.example/", "header"),
            ("ws://bücher.example/", "xn--"),
            ("ws:///x", "host"),
            ("ws://:80/x", "host"),
            ("ws://a:0/", "port"),
            ("ws://a:65536/", "port"),
            ("ws://a:+1/", "port"),
            ("ws://a:/", "port"),
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_has_no_query() {
        assert_eq!(format!("{:?}", Url::parse("ws://a/x?token=secret").unwrap()), "ws://a/x");
    }
}
