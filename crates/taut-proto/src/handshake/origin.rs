//! Which pages may connect (RFC 6455 §4.2.2 (4), §10.2).
//!
//! A browser sends cookies with a WebSocket handshake whatever page opens it, and the same-origin policy does not apply
//! (CVE-2020-14368, CVE-2026-44211, CVE-2026-59390): without one of these checks any page that a user visits can act
//! for that user, on a server on the loopback address too. Other clients send no origin and are let through.

// An address as a value; `core` has no sockets.
use core::net::Ipv6Addr;

use super::refusal::{Cause, Refusal};
use super::request::Request;
use super::split_host;

/// Lets a page through that was loaded from the host and port that the request is for.
///
/// Whether the page came by http or https is not compared, since behind a proxy that ends TLS a server cannot know
/// which was right; [`same_origin`] compares it.
pub fn same_host(request: &Request<'_>) -> Result<(), Refusal> {
    check(request, |origin| is_web_page_at(origin, request.host()))
}

/// Whether `origin`, as a browser writes it, is a web page of `host`, as a `Host` header writes it. This is the rule of
/// [`same_host`], for requests that are not handshakes and have come by an HTTP library.
///
/// ```
/// use taut_proto::handshake::origin::is_page_of;
///
/// assert!(is_page_of("https://chat.example", "chat.example:443"));
/// assert!(!is_page_of("https://chat.example", "chat.example:8443"));
/// ```
pub fn is_page_of(origin: &str, host: &str) -> bool {
    Origin::parse(origin).is_some_and(|origin| is_web_page_at(&origin, Some(host)))
}

/// Lets a page through that was loaded from the same scheme, host and port as the request. `secure` says that the
/// browser's connection is encrypted, here or at a proxy.
pub fn same_origin(request: &Request<'_>, secure: bool) -> Result<(), Refusal> {
    let scheme = if secure { "https" } else { "http" };
    check(request, |origin| origin.is(scheme) && origin.is_at(request.host(), scheme))
}

/// Lets a page through whose origin is one of `allowed`, such as `https://chat.example` or
/// `http://localhost:5173`. Scheme, host and port are compared; a default port may be written or left out. `null` and
/// `file://` pass where they are listed, letter by letter: `null` is every sandboxed frame of every page, `file://`
/// every local file. An entry with a `*`, or without a scheme, matches nothing; see [`Pattern`] for those.
pub fn allowed(request: &Request<'_>, allowed: &[&str]) -> Result<(), Refusal> {
    check(request, |origin| {
        let patterns = allowed.iter().filter_map(|entry| Pattern::parse(entry));
        patterns.filter(Pattern::is_exact).any(|pattern| pattern.allows(origin))
    })
}

/// An entry of a list of origins that may connect, where wildcards are wanted.
///
/// | entry | lets through |
/// |---|---|
/// | `https://chat.example` | this scheme, host and port; `https://chat.example:443` is the same (RFC 6454 §4) |
/// | `https://*.chat.example` | every host below that one, not the host itself |
/// | `chat.example`, `*.chat.example` | every scheme and port; with `:8080`, every scheme at that port |
/// | `null` | what has no origin to show: sandboxed frames, local files in Firefox |
/// | `file://` | local files in Chromium: Electron, Cordova |
/// | `*` | every page |
///
/// ```
/// use taut_proto::handshake::origin::Pattern;
///
/// let pattern = Pattern::parse("https://*.chat.example:443").expect("a pattern");
/// assert!(pattern.matches("https://eu.chat.example"));
/// assert!(!pattern.matches("https://chat.example"));
/// assert!(Pattern::parse("https://chat.example/path").is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a>(Entry<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry<'a> {
    Every,
    /// One origin, and no other.
    Exact(Origin<'a>),
    Hosts {
        /// `None`: every scheme.
        scheme: Option<&'a str>,
        /// Whether the hosts below this one are meant, rather than this one.
        below: bool,
        host: &'a str,
        /// `None`: every port, if there is no scheme that has a default.
        port: Option<u16>,
    },
}

impl<'a> Pattern<'a> {
    /// Reads an entry; `None` if it is neither an origin nor a pattern for some.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text == "*" {
            return Some(Self(Entry::Every));
        }
        if let Some(origin) = Origin::parse(text) {
            // A `*` is a letter of a registered name (RFC 3986 §3.2.2), but nobody has such a host.
            return (!text.contains('*')).then_some(Self(Entry::Exact(origin))).or_else(|| Self::hosts(text));
        }
        Self::hosts(text)
    }

    fn hosts(text: &'a str) -> Option<Self> {
        let (scheme, authority) = match text.split_once("://") {
            Some((scheme, authority)) => (Some(scheme), authority),
            None => (None, text),
        };
        let below = authority.starts_with("*.");
        let (host, port) = split_host(authority.strip_prefix("*.").unwrap_or(authority))?;
        let is_valid = scheme.is_none_or(is_scheme) && !host.contains('*') && !(below && host.starts_with('['));
        let port = port.or_else(|| scheme.and_then(default_port));
        is_valid.then_some(Self(Entry::Hosts { scheme, below, host, port }))
    }

    /// Whether it lets through the page that a browser names in its `Origin` header.
    pub fn matches(&self, origin: &str) -> bool {
        self.0 == Entry::Every || Origin::parse(origin).is_some_and(|origin| self.allows(&origin))
    }

    /// Whether it names one origin and no other.
    pub fn is_exact(&self) -> bool {
        matches!(self.0, Entry::Exact(_))
    }

    fn allows(&self, origin: &Origin<'_>) -> bool {
        match (self.0, origin) {
            (Entry::Every, _) => true,
            (Entry::Exact(exact), origin) => exact.is_same(origin),
            (Entry::Hosts { scheme, below, host, port }, Origin::Site { host: name, port: at, .. }) => {
                let is_host = if below { is_below(name, host) } else { is_same_host(name, host) };
                is_host
                    && scheme.is_none_or(|scheme| origin.is(scheme))
                    && (port == *at || (port, scheme) == (None, None))
            }
            (Entry::Hosts { .. }, _) => false,
        }
    }
}

fn is_web_page_at(origin: &Origin<'_>, host: Option<&str>) -> bool {
    ["http", "https"].into_iter().any(|scheme| origin.is(scheme) && origin.is_at(host, scheme))
}

fn check(request: &Request<'_>, is_allowed: impl Fn(&Origin<'_>) -> bool) -> Result<(), Refusal> {
    // A header that is there but unreadable was refused with the head, so `None` means absent: not a browser.
    let Some(text) = request.origin() else {
        return Ok(());
    };
    // A list of origins is none and fails here.
    match Origin::parse(text) {
        Some(origin) if is_allowed(&origin) => Ok(()),
        _ => Err(Cause::Origin.into()),
    }
}

/// The serialization of RFC 6454 §6.2: no path, not even a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin<'a> {
    /// `null`: a page that has no origin to show (RFC 6454 §6.1).
    Opaque,
    /// `file://`: a scheme whose pages have no host.
    Local { scheme: &'a str },
    /// With the scheme's default port, if none was written.
    Site { scheme: &'a str, host: &'a str, port: Option<u16> },
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Opaque);
        }
        let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))?;
        if rest.is_empty() && default_port(scheme).is_none() {
            return Some(Self::Local { scheme });
        }
        let (host, port) = split_host(rest)?;
        Some(Self::Site { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Opaque => false,
            Self::Local { scheme } | Self::Site { scheme, .. } => scheme.eq_ignore_ascii_case(wanted),
        }
    }

    /// Whether this is the host and port of a `Host` header, which leaves out the default port of `scheme`.
    fn is_at(&self, host: Option<&str>, scheme: &str) -> bool {
        let Self::Site { host: own, port: at, .. } = *self else { return false };
        host.and_then(split_host)
            .is_some_and(|(name, port)| is_same_host(own, name) && at == port.or_else(|| default_port(scheme)))
    }

    fn is_same(&self, other: &Origin<'_>) -> bool {
        match (*self, *other) {
            (Self::Opaque, Origin::Opaque) => true,
            (Self::Local { scheme }, Origin::Local { .. }) => other.is(scheme),
            (Self::Site { scheme, host, port }, Origin::Site { host: name, port: at, .. }) => {
                other.is(scheme) && is_same_host(host, name) && port == at
            }
            _ => false,
        }
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Names in any case (RFC 3986 §3.2.2); addresses of IPv6 in any of their forms (RFC 5952 §1).
fn is_same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    one.eq_ignore_ascii_case(other) || address(one).is_some_and(|one| Some(one) == address(other))
}

/// Whether `name` is a host below `domain`.
fn is_below(name: &str, domain: &str) -> bool {
    let start = name.len().checked_sub(domain.len()).and_then(|start| Some((start.checked_sub(1)?, start)));
    // `split_host` has seen to it that both are ASCII.
    start.is_some_and(|(dot, start)| dot > 0 && name[dot..start] == *"." && name[start..].eq_ignore_ascii_case(domain))
}

fn default_port(scheme: &str) -> Option<u16> {
    let known = [("http", 80), ("https", 443), ("ws", 80), ("wss", 443)];
    known.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)).map(|(_, port)| port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::HeadLimits;
    use crate::handshake::testing::head;

    fn request(head: &str) -> Request<'_> {
        Request::parse(head.as_bytes(), &HeadLimits::default()).expect("a well-formed head")
    }

    // RFC 6455 §4.2.1 (7): `Origin` names the page on whose behalf a browser connects; others may leave it out.
    // RFC 6455 §4.2.2 (4): an unacceptable origin is answered with an HTTP error such as 403.
    // RFC 6455 §10.2: a server that is not for every page checks the origin.
    // CVE-2020-14368: an origin is compared as a whole: no suffix, no prefix, no substring.
    // CVE-2026-44211: a server on the loopback address checks it too.
    // CVE-2026-59390: the check needs no configuration.
    #[test]
    fn only_pages_of_the_same_host_pass() {
        for (host, origin, passes) in [
            ("chat.example", "https://chat.example", true),
            ("chat.example", "http://chat.example", true),
            ("chat.example", "HTTPS://CHAT.example", true),
            ("chat.example:443", "https://chat.example", true),
            ("chat.example", "https://chat.example:443", true),
            ("chat.example:80", "http://chat.example", true),
            ("chat.example:8080", "http://chat.example:8080", true),
            ("[::1]:9000", "http://[::1]:9000", true),
            ("127.0.0.1:9000", "http://127.0.0.1:9000", true),
            ("chat.example", "null", false),
            ("chat.example", "", false),
            ("chat.example", "chat.example", false),
            ("chat.example", "https://", false),
            ("chat.example", "https://evil.example", false),
            ("chat.example", "https://chat.example.evil.example", false),
            ("chat.example", "https://evil-chat.example", false),
            ("chat.example", "https://sub.chat.example", false),
            ("chat.example", "https://example", false),
            ("sub.chat.example", "https://chat.example", false),
            ("chat.example", "https://chat.example.", false),
            ("chat.example", "https://chat.example@evil.example", false),
            ("chat.example", "https://evil.example/chat.example", false),
            ("chat.example", "https://evil.example?chat.example", false),
            ("chat.example", "https://evil.example#chat.example", false),
            ("chat.example", "https://chat.example/", false),
            ("chat.example", "https://chat.example https://evil.example", false),
            ("chat.example", "https://evil.example, https://chat.example", false),
            ("chat.example", "https://chat.example:8443", false),
            ("chat.example", "https://chat.example:80", false),
            ("chat.example:80", "https://chat.example", false),
            ("chat.example:8080", "http://chat.example", false),
            ("chat.example", "ftp://chat.example", false),
            ("chat.example", "chrome-extension://chat.example", false),
            ("chat.example", "file://", false),
            ("127.0.0.1:9000", "http://localhost:9000", false),
            ("127.0.0.1:9000", "https://evil.example", false),
            ("localhost:9000", "http://localhost:5173", false),
        ] {
            let head = head(&[("Host", &format!("Host: {host}")), ("", &format!("Origin: {origin}"))]);
            let expected = if passes { Ok(()) } else { Err(Refusal::from(Cause::Origin)) };
            assert_eq!(same_host(&request(&head)), expected, "{origin} at {host}");
            assert_eq!(is_page_of(origin, host), passes, "{origin} at {host}");
        }
        assert_eq!(same_host(&request(&head(&[]))), Ok(()));
        assert_eq!(Refusal::from(Cause::Origin).status(), 403);
    }

    // RFC 6455 §10.2: where the scheme is known, it is compared too.
    #[test]
    fn only_pages_of_the_same_scheme_pass_where_it_is_known() {
        for (host, origin, secure, passes) in [
            ("chat.example", "https://chat.example", true, true),
            ("chat.example", "http://chat.example", false, true),
            ("chat.example", "http://chat.example", true, false),
            ("chat.example", "https://chat.example", false, false),
            ("chat.example", "http://chat.example:443", true, false),
            ("chat.example:443", "https://chat.example", true, true),
            ("chat.example:80", "https://chat.example", true, false),
        ] {
            let head = head(&[("Host", &format!("Host: {host}")), ("", &format!("Origin: {origin}"))]);
            assert_eq!(same_origin(&request(&head), secure).is_ok(), passes, "{origin} at {host}, {secure}");
        }
    }

    // GHSA-frjg-g767-7363: an allow-list names whole origins.
    #[test]
    fn only_listed_origins_pass_an_allow_list() {
        let list = [
            "https://chat.example",
            "https://port.example:443",
            "http://localhost:5173",
            "http://[0:0::1]:80",
            "app://shell",
            "*",
            "https://*.example",
            "bare.example",
            "",
        ];
        for (origin, passes) in [
            ("https://chat.example", true),
            ("https://CHAT.example:443", true),
            ("http://localhost:5173", true),
            ("app://shell", true),
            // RFC 6454 §6.2: a browser never writes a default port.
            ("https://port.example", true),
            ("http://[::1]", true),
            ("http://chat.example", false),
            ("https://chat.example:444", false),
            ("https://port.example:444", false),
            ("https://a.example", false),
            ("https://*.example", false),
            ("https://bare.example", false),
            ("http://[::2]", false),
            ("file://", false),
            ("https://chat.example.evil.example", false),
            ("http://localhost", false),
            ("http://localhost:51730", false),
            ("app://shell2", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            let head = head(&[("", &format!("Origin: {origin}"))]);
            assert_eq!(allowed(&request(&head), &list).is_ok(), passes, "{origin}");
        }
        assert!(allowed(&request(&head(&[])), &[]).is_ok());
    }

    // RFC 6454 §6.1: what has no origin to show says `null`.
    #[test]
    fn null_and_local_files_pass_where_they_are_listed_and_only_there() {
        for (entry, origin, passes) in [
            ("null", "null", true),
            ("file://", "file://", true),
            ("FILE://", "file://", true),
            ("null", "file://", false),
            ("file://", "null", false),
            ("file://", "file:///", false),
            ("file://", "app://", false),
            ("https://chat.example", "null", false),
            ("https://", "https://", false),
        ] {
            let head = head(&[("", &format!("Origin: {origin}"))]);
            assert_eq!(allowed(&request(&head), &[entry]).is_ok(), passes, "{origin} where {entry} is listed");
        }
    }

    #[test]
    fn a_pattern_names_an_origin_a_host_or_all_below_a_host() {
        for (entry, origin) in [
            ("*", "https://a.example"),
            ("*", "null"),
            ("https://example.com", "https://EXAMPLE.com"),
            ("https://example.com:443", "https://example.com"),
            ("https://example.com", "https://example.com:443"),
            ("http://example.com:80", "http://example.com"),
            ("https://example.com:8443", "https://example.com:8443"),
            ("https://*.example.com:443", "https://a.example.com"),
            ("example.com", "https://example.com"),
            ("example.com", "http://example.com:8080"),
            ("example.com:443", "https://example.com"),
            ("example.com:8080", "http://example.com:8080"),
            ("*.example.com", "https://a.b.example.com:1"),
            ("https://*.EXAMPLE.com", "https://a.example.com"),
            ("localhost", "http://localhost:5173"),
            ("[::1]", "http://[::1]:80"),
            ("http://[0:0:0:0:0:0:0:1]:5173", "http://[::1]:5173"),
            ("app://*.shell", "app://a.shell"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("null", "null"),
            ("file://", "file://"),
        ] {
            assert!(Pattern::parse(entry).expect(entry).matches(origin), "{entry} {origin}");
        }
        for (entry, origin) in [
            ("https://example.com", "http://example.com"),
            ("https://example.com", "https://example.com:8443"),
            ("https://example.com", "https://example.com.evil.example"),
            ("example.com", "https://evilexample.com"),
            ("example.com:8080", "http://example.com"),
            ("example.com:443", "http://example.com"),
            ("*.example.com", "https://example.com"),
            ("*.example.com", "https://.example.com"),
            ("*.example.com", "https://evilexample.com"),
            ("*.example.com", "https://é.com"),
            ("https://*.example.com", "https://a.example.com.evil"),
            ("https://*.example.com", "http://a.example.com"),
            ("example.com", "null"),
            ("null", "https://null"),
            ("app://shell", "app://shell:1"),
        ] {
            assert!(!Pattern::parse(entry).expect(entry).matches(origin), "{entry} {origin}");
        }
        for entry in [
            "",
            "https://",
            "https://example.com/",
            "https://example.com/path",
            "https://a b.example",
            "https://*",
            "https://a.*.example",
            "*.*.example",
            "*.[::1]",
            "://example.com",
            "https://example.com:port",
            "https://me@example.com",
            "https://é.example",
        ] {
            assert_eq!(Pattern::parse(entry), None, "{entry}");
        }
    }
}
