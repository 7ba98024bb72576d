//! Checks the addresses that requests go to, hides their secrets when they are shown, and knows this machine's own.
//!
//! Of a URL only the form is checked. Operators configure these addresses, so private networks are as good as any other. If you
//! let others configure them, make sure that requests from this server reach nothing they should not.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// The address in parts that a client understands.
pub(crate) fn parse(url: &str) -> Result<Uri, InvalidAddress> {
    if url.contains('#') {
        return Err(InvalidAddress::Fragment);
    }
    let uri: Uri = url.parse().map_err(|_| InvalidAddress::Url)?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(InvalidAddress::Scheme);
    }
    let authority = uri.authority().ok_or(InvalidAddress::Url)?;
    if authority.as_str().contains('@') {
        return Err(InvalidAddress::Credentials);
    }
    if authority.host().is_empty() || (authority.as_str() != authority.host() && authority.port_u16().is_none()) {
        return Err(InvalidAddress::Url);
    }
    Ok(uri)
}

/// An address that begins with `ws://` or `wss://`, as the one of HTTP that its requests go to.
pub(crate) fn parse_websocket(url: &str) -> Result<Uri, InvalidAddress> {
    let is_websocket = url.starts_with("ws://") || url.starts_with("wss://");
    if is_websocket { parse(&url.replacen("ws", "http", 1)) } else { Err(InvalidAddress::Scheme) }
}

/// The address as it may be shown: a query often holds a token, and what precedes an `@` a password. Of several addresses with commas between, each.
pub(crate) fn shown(url: &str) -> String {
    let (rest, query) = url.split_once(['?', '#']).map_or((url, ""), |(rest, _)| (rest, "?…"));
    let (scheme, rest) = rest.split_once("://").map_or(("", rest), |(scheme, rest)| (scheme, rest));
    if rest.split(',').skip(1).any(|address| address.contains("://")) {
        let hosts: Vec<_> =
            rest.split(',').map(|address| address.rsplit(['/', '@']).next().unwrap_or_default()).collect();
        return format!("{scheme}://{}{query}", hosts.join(","));
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}{query}")
}

/// Whether nobody but this machine can reach an address. An IPv4 address may be written as one of IPv6.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Why requests cannot be sent to an address. It does not repeat the address, which may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidAddress {
    /// It is no URL.
    Url,
    /// It begins with something else than `http://` or `https://`.
    Scheme,
    /// It has a name or a password in it.
    Credentials,
    /// It has a `#` in it.
    Fragment,
}

impl InvalidAddress {
    /// What is wrong with it, to be said after whose address it is.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Url => "is no URL; write it like https://example.com/path, without spaces",
            Self::Scheme => "must begin with http:// or https://",
            Self::Credentials => {
                "may hold no name and no password: where there can be headers, put them into one, such as Authorization"
            }
            Self::Fragment => "may have no #: what follows it is never sent; leave it away, or write it as %23",
        }
    }
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the address {}", self.reason())
    }
}

impl std::error::Error for InvalidAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_known_in_either_version_of_ip() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.255.0.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(address.parse().expect(address)), expected, "{address}");
        }
    }

    #[test]
    fn http_and_https_addresses_are_taken() {
        for url in ["http://127.0.0.1:8000", "https://example.com/a?token=b@c", "HTTPS://[::1]:1/x", "http://a"] {
            assert!(parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_address_of_websockets_is_one_of_http() {
        for (url, expected) in [
            ("ws://127.0.0.1:9001/chat", Ok("http://127.0.0.1:9001/chat")),
            ("wss://ws.example", Ok("https://ws.example/")),
            ("http://a", Err(InvalidAddress::Scheme)),
            ("wsx://a", Err(InvalidAddress::Scheme)),
            ("ws://me:hunter2@a", Err(InvalidAddress::Credentials)),
        ] {
            assert_eq!(parse_websocket(url).map(|uri| uri.to_string()), expected.map(str::to_owned), "{url}");
        }
    }

    #[test]
    fn other_addresses_are_refused_without_repeating_them() {
        for (url, reason) in [
            ("", InvalidAddress::Url),
            ("/hunter2", InvalidAddress::Scheme),
            ("example.com", InvalidAddress::Scheme),
            ("ftp://example.com/hunter2", InvalidAddress::Scheme),
            ("file:///etc/passwd", InvalidAddress::Url),
            ("https://", InvalidAddress::Url),
            ("https://:80/", InvalidAddress::Url),
            ("http://a:port/", InvalidAddress::Url),
            ("http://a:99999/", InvalidAddress::Url),
            ("http://a b/", InvalidAddress::Url),
            ("http://me:hunter2@example.com/", InvalidAddress::Credentials),
            ("http://example.com/#hunter2", InvalidAddress::Fragment),
        ] {
            let refused = parse(url).expect_err(url);
            assert_eq!(refused, reason, "{url}");
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn what_is_shown_of_an_address_has_no_secret() {
        for (url, text) in [
            ("https://example.com/a/b", "https://example.com/a/b"),
            ("https://me:hunter2@example.com:8/a?hunter2", "https://example.com:8/a?…"),
            ("https://example.com?x=hunter2@y", "https://example.com?…"),
            ("http://a/#hunter2", "http://a/?…"),
            ("hunter2@a", "://a"),
            ("nats://me:hunter2@one,two:4223", "nats://one,two:4223"),
            ("nats://one,nats://me:hunter2@two:4223", "nats://one,two:4223"),
            ("nats://me:hunter2@one,tls://me:hunter2@two?credentials=hunter2", "nats://one,two?…"),
        ] {
            assert_eq!(shown(url), text);
        }
    }
}
