//! `ws://` and `wss://` URLs (RFC 6455 §3).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Where a URL leads.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Whether it is `wss://`.
    pub(crate) is_secure: bool,
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
            return Err("this is not a WebSocket URL; it must begin with ws:// or wss://, as ws://127.0.0.1:9001/path");
        };
        let is_secure = scheme.eq_ignore_ascii_case("wss");
        if !is_secure && !scheme.eq_ignore_ascii_case("ws") {
            return Err("the URL's scheme must be ws or wss");
        }
        Self::of(is_secure, rest)
    }

    /// What a `Location` means that was answered to a request to here (RFC 9110 §10.2.2).
    pub(crate) fn join(&self, location: &str) -> Result<Self, &'static str> {
        // RFC 3986 §3.5: a fragment is for whoever gets the resource.
        let location = location.split('#').next().unwrap_or_default();
        let before_path = &location[..location.find(['/', '?']).unwrap_or(location.len())];
        if let Some(scheme) = before_path.strip_suffix(':') {
            let is = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
            let rest = location[before_path.len()..].strip_prefix("//").ok_or(NO_URL)?;
            // A web server knows itself by http and https.
            return match (is(["ws", "http"]), is(["wss", "https"])) {
                (true, _) => Self::of(false, rest),
                (_, true) => Self::of(true, rest),
                _ => Err("its Location has a scheme other than ws, wss, http and https"),
            };
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::of(self.is_secure, rest);
        }
        if before_path.contains(':') {
            return Err(NO_URL);
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match location.as_bytes() {
            [] => self.target.clone(),
            [b'?', ..] => format!("{path}{location}"),
            [b'/', ..] => without_dots(location),
            // RFC 3986 §5.2.3.
            _ => without_dots(&format!("{}/{location}", path.rsplit_once('/').map_or("", |(folder, _)| folder))),
        };
        Ok(Self { target, ..self.clone() })
    }

    /// Whether both are of one origin (RFC 6454 §4): scheme, host and port.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        self.is_secure == other.is_secure && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// Adds a parameter to the query.
    pub(crate) fn query(&mut self, name: &str, value: &str) {
        let separator = match self.target.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        self.target += separator;
        self.target.extend(utf8_percent_encode(name, RESERVED));
        self.target.push('=');
        self.target.extend(utf8_percent_encode(value, RESERVED));
    }

    /// What comes behind `ws://` or `wss://`.
    fn of(is_secure: bool, rest: &str) -> Result<Self, &'static str> {
        if is_secure && cfg!(not(feature = "tls")) {
            return Err("wss:// needs the feature `tls` of the crate taut, which was turned off");
        }
        // RFC 6455 §3: a fragment has no meaning and must not be used.
        if rest.contains('#') {
            return Err("a WebSocket URL has no fragment; write a # in the path as %23");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a user and password in the URL are not sent; use Client::basic, or Client::bearer");
        }
        if !authority.is_ascii() {
            return Err("the URL's host must be ASCII; write an international name in its xn-- form");
        }
        let default = if is_secure { 443 } else { 80 };
        let (host, port) = split_authority(authority)?;
        let port = port.unwrap_or(default);
        let is_address = host.contains(':');
        let bracketed = if is_address { format!("[{host}]") } else { host.to_owned() };
        let authority = if port == default { bracketed } else { format!("{bracketed}:{port}") };
        Ok(Self { is_secure, authority, host: host.to_owned(), port, target: target.to_owned() })
    }
}

impl fmt::Debug for Url {
    // Queries carry tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "wss" } else { "ws" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

/// Splits `host`, `host:port` or `[address]:port`; the address loses its brackets.
pub(crate) fn split_authority(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    // An IPv6 address has colons of its own, in brackets.
    let colon = authority.rfind(':').filter(|&colon| !authority[colon..].contains(']'));
    let (bracketed, port) = match colon {
        None => (authority, None),
        Some(colon) => {
            let digits = &authority[colon + 1..];
            // `parse` alone would let a sign pass.
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            let port = digits.parse().ok().filter(|&port| is_number && port != 0);
            // RFC 3986 §3.2.3: an empty port is the default one.
            let port = if digits.is_empty() { None } else { Some(port.ok_or(NO_PORT)?) };
            (&authority[..colon], port)
        }
    };
    let host = bracketed.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bracketed.is_empty() || host == Some("") {
        return Err("there is no host");
    }
    // A name has no colon, and an address no end without its brackets.
    if host.is_some_and(|host| !host.contains(':')) || (host.is_none() && bracketed.contains([':', '[', ']'])) {
        return Err("the host is malformed; an IPv6 address stands in brackets");
    }
    Ok((host.unwrap_or(bracketed), port))
}

/// RFC 3986 §2.1; `None` if what comes out is not UTF-8, or a `%` has no two digits behind it: in a setting that is a slip.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let is_escape = |after: &str| matches!(after.as_bytes(), [high, low, ..] if [high, low].iter().all(|digit| digit.is_ascii_hexdigit()));
    let is_sound = text.split('%').skip(1).all(is_escape);
    is_sound.then(|| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned))?
}

/// RFC 3986 §5.2.4: `.` and `..` in a path lead where they say, and never above the root.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// RFC 3986 §2.3: everything but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const NO_PORT: &str = "the port must be a number from 1 to 65535";

const NO_URL: &str = "its Location is not a URL";

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, u16, String) {
        let Url { authority, host, port, target, .. } = Url::parse(text).unwrap();
        (authority, host, port, target)
    }

    fn expected(authority: &str, host: &str, port: u16, target: &str) -> (String, String, u16, String) {
        (authority.to_owned(), host.to_owned(), port, target.to_owned())
    }

    // RFC 6455 §3: the port of wss is 443 by default.
    #[cfg(feature = "tls")]
    #[test]
    fn a_secure_url_is_taken_apart() {
        assert_eq!(parts("wss://a.example/"), expected("a.example", "a.example", 443, "/"));
        assert_eq!(parts("WSS://a.example:443/"), expected("a.example", "a.example", 443, "/"));
        assert_eq!(parts("wss://a.example:80/"), expected("a.example:80", "a.example", 80, "/"));
        assert!(Url::parse("wss://a").unwrap().is_secure && !Url::parse("ws://a").unwrap().is_secure);
        assert_eq!(format!("{:?}", Url::parse("wss://a/x?token=secret").unwrap()), "wss://a/x");
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

    // RFC 3986 §3.2: authority = host [ ":" port ]; §3.2.3: port = *DIGIT, and an empty one is the default.
    #[test]
    fn an_empty_port_is_the_default_one() {
        for text in ["ws://a.example:", "ws://a.example:/", "ws://a.example:?", "ws://a.example:0080"] {
            assert_eq!(parts(text).0, "a.example", "{text}");
            assert_eq!(parts(text).2, 80, "{text}");
        }
        assert_eq!(parts("ws://[::1]:/x"), expected("[::1]", "::1", 80, "/x"));
        let base = Url::parse("ws://a.example:81/").unwrap();
        assert_eq!(base.join("//b.example:/x").unwrap().authority, "b.example");
        assert_eq!(base.join("ws://b.example:").unwrap().port, 80);
        for (text, word) in [("ws://:/", "host"), ("ws://[]:/", "host"), ("ws://a::/", "brackets")] {
            assert!(Url::parse(text).expect_err(text).contains(word), "{text}");
        }
    }

    // RFC 6455 §3: fragments must not be used.
    #[test]
    fn a_url_that_cannot_be_used_is_refused_with_advice() {
        for (text, word) in [
            ("a.example/x", "ws://"),
            ("http://a.example", "scheme"),
            ("ws://a.example/#x", "fragment"),
            ("ws://user:secret@a.example/", "Client::basic"),
            ("ws://bücher.example/", "xn--"),
            ("ws:///x", "host"),
            ("ws://:80/x", "host"),
            ("ws://a:0/", "port"),
            ("ws://a:65536/", "port"),
            ("ws://a:+1/", "port"),
            ("ws://[]/", "host"),
            ("ws://::1/", "brackets"),
            ("ws://[::1/", "brackets"),
            ("ws://[a.example]/", "brackets"),
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_has_no_query() {
        assert_eq!(format!("{:?}", Url::parse("ws://a/x?token=secret").unwrap()), "ws://a/x");
    }

    // RFC 3986 §5.4: the examples for references, as far as a WebSocket URL has their parts.
    #[test]
    fn a_location_is_understood_from_where_it_was_said() {
        let base = Url::parse("ws://a.example:81/b/c/d?q").unwrap();
        for (location, expected) in [
            ("", "ws://a.example:81/b/c/d?q"),
            ("#s", "ws://a.example:81/b/c/d?q"),
            ("?y", "ws://a.example:81/b/c/d?y"),
            ("g", "ws://a.example:81/b/c/g"),
            ("./g?y#s", "ws://a.example:81/b/c/g?y"),
            ("g/", "ws://a.example:81/b/c/g/"),
            (".", "ws://a.example:81/b/c/"),
            ("..", "ws://a.example:81/b/"),
            ("../../g", "ws://a.example:81/g"),
            ("../../../../g", "ws://a.example:81/g"),
            ("/g/../h?../x", "ws://a.example:81/h?../x"),
            ("//b.example/g", "ws://b.example/g"),
            ("ws://b.example", "ws://b.example"),
            ("HTTP://b.example:80/x", "ws://b.example/x"),
            ("g?u=http://c.example/", "ws://a.example:81/b/c/g?u=http://c.example/"),
            #[cfg(feature = "tls")]
            ("https://b.example/x", "wss://b.example/x"),
            #[cfg(feature = "tls")]
            ("wss://b.example:81/x", "wss://b.example:81/x"),
        ] {
            let joined = base.join(location).expect(location);
            let scheme = if joined.is_secure { "wss" } else { "ws" };
            assert_eq!(format!("{scheme}://{}{}", joined.authority, joined.target), expected, "{location}");
        }
        for location in ["ftp://b.example/", "mailto:x", "a.example:80", "http:x", "ws://", "ws://u:p@b/", "ws://b:x/"]
        {
            assert!(base.join(location).is_err(), "{location}");
        }
        let root = Url::parse("ws://a.example").unwrap();
        assert_eq!(root.join("g").unwrap().target, "/g");
    }

    // RFC 6454 §5: an origin is scheme, host and port.
    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        assert!(url("ws://a.example/x").is_same_origin(&url("ws://A.example:80/y")));
        for other in ["ws://b.example", "ws://a.example:81", "ws://a.example.b"] {
            assert!(!url("ws://a.example").is_same_origin(&url(other)), "{other}");
        }
        #[cfg(feature = "tls")]
        assert!(!url("ws://a.example:443").is_same_origin(&url("wss://a.example")));
    }

    #[test]
    fn a_query_grows_by_what_is_encoded() {
        let mut url = Url::parse("ws://a/x").unwrap();
        url.query("a b", "1&2=é#%");
        url.query("c", "-._~+/");
        assert_eq!(url.target, "/x?a%20b=1%262%3D%C3%A9%23%25&c=-._~%2B%2F");
        let mut url = Url::parse("ws://a?").unwrap();
        url.query("a", "b");
        assert_eq!(url.target, "?a=b");
        assert_eq!(percent_decode("a%20b%c3%A9+").as_deref(), Some("a bé+"));
        for wrong in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(percent_decode(wrong), None, "{wrong}");
        }
    }
}
