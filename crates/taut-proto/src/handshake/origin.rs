//! Which pages may connect (RFC 6455 §4.2.2 (4), §10.2).
//!
//! A browser sends cookies with a WebSocket handshake whatever page opens it, and the same-origin policy does not apply
//! (CVE-2020-14368, CVE-2026-44211, CVE-2026-59390): without one of these checks any page that a user visits can act
//! for that user, on a server on the loopback address too. Other clients send no origin and are let through.

use super::refusal::{Cause, Refusal};
use super::request::Request;
use super::split_host;

/// Lets a page through that was loaded from the host and port that the request is for.
///
/// Whether the page came by http or https is not compared, since behind a proxy that ends TLS a server cannot know
/// which was right; [`same_origin`] compares it.
pub fn same_host(request: &Request<'_>) -> Result<(), Refusal> {
    check(request, |origin| (origin.is("http") || origin.is("https")) && origin.is_at(request.host(), origin.scheme))
}

/// Lets a page through that was loaded from the same scheme, host and port as the request. `secure` says that the
/// browser's connection is encrypted, here or at a proxy.
pub fn same_origin(request: &Request<'_>, secure: bool) -> Result<(), Refusal> {
    let scheme = if secure { "https" } else { "http" };
    check(request, |origin| origin.is(scheme) && origin.is_at(request.host(), scheme))
}

/// Lets a page through whose origin is one of `allowed`, such as `https://chat.example` or
/// `http://localhost:5173`. Scheme, host and port are compared, a default port may be left out; there are no
/// patterns. An entry that is no origin matches nothing.
pub fn allowed(request: &Request<'_>, allowed: &[&str]) -> Result<(), Refusal> {
    check(request, |origin| allowed.iter().filter_map(|entry| Origin::parse(entry)).any(|entry| entry.matches(origin)))
}

fn check(request: &Request<'_>, is_allowed: impl Fn(&Origin<'_>) -> bool) -> Result<(), Refusal> {
    // A header that is there but unreadable was refused with the head, so `None` means absent: not a browser.
    let Some(text) = request.origin() else {
        return Ok(());
    };
    // "null" (sandboxed frames, local files) is no origin and fails here, as does a list of origins.
    match Origin::parse(text) {
        Some(origin) if is_allowed(&origin) => Ok(()),
        _ => Err(Cause::Origin.into()),
    }
}

/// The serialization of RFC 6454 §6.2: no path, not even a slash.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let (host, port) = split_host(rest)?;
        let is_valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_scheme);
        is_valid.then_some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Whether this is the host and port of a `Host` header, which leaves out the default port of `scheme`.
    fn is_at(&self, host: Option<&str>, scheme: &str) -> bool {
        host.and_then(split_host).is_some_and(|(name, port)| {
            self.host.eq_ignore_ascii_case(name) && self.port == port.or_else(|| default_port(scheme))
        })
    }

    fn matches(&self, other: &Origin<'_>) -> bool {
        self.is(other.scheme) && self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
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
        let list =
            ["https://chat.example", "http://localhost:5173", "app://shell", "*", "https://*.example", "null", ""];
        for (origin, passes) in [
            ("https://chat.example", true),
            ("https://CHAT.example:443", true),
            ("http://localhost:5173", true),
            ("app://shell", true),
            ("http://chat.example", false),
            ("https://chat.example:444", false),
            ("https://a.example", false),
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
}
