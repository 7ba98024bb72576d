//! Where a webhook goes, and what must not be told about that.

use std::fmt;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Uri};

use crate::app::Webhook;

/// Whether a webhook can be used: to be asked when the configuration is read, and again before each request.
///
/// Only the form is looked at. Addresses come from the operator, so an address inside of the own network is as good as any; whoever lets others
/// name addresses has to see to it that requests from this server reach nothing that they should not.
pub(crate) fn check(webhook: &Webhook) -> Result<(), InvalidWebhook> {
    parse(&webhook.url)?;
    headers(webhook).try_for_each(|header| header.map(drop))
}

/// The address in parts that a client understands.
pub(super) fn parse(url: &str) -> Result<Uri, InvalidWebhook> {
    if url.contains('#') {
        return Err(InvalidWebhook::Fragment);
    }
    let uri: Uri = url.parse().map_err(|_| InvalidWebhook::Url)?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(InvalidWebhook::Scheme);
    }
    let authority = uri.authority().ok_or(InvalidWebhook::Url)?;
    if authority.as_str().contains('@') {
        return Err(InvalidWebhook::Credentials);
    }
    if authority.host().is_empty() || (authority.as_str() != authority.host() && authority.port_u16().is_none()) {
        return Err(InvalidWebhook::Url);
    }
    Ok(uri)
}

/// The webhook's own headers.
pub(super) fn headers(webhook: &Webhook) -> impl Iterator<Item = Result<(HeaderName, HeaderValue), InvalidWebhook>> {
    webhook.headers.iter().map(|(name, value)| {
        let invalid = || InvalidWebhook::Header { name: name.clone() };
        let parsed: HeaderName = name.parse().map_err(|_| invalid())?;
        let reserved = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];
        if reserved.contains(&parsed) || parsed.as_str().starts_with("x-pusher-") {
            return Err(InvalidWebhook::Reserved { name: name.clone() });
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok((parsed, value))
    })
}

/// The address as it may be shown: a query often holds a token, and what precedes an `@` a password.
pub(super) fn shown(url: &str) -> String {
    let (rest, query) = url.split_once(['?', '#']).map_or((url, ""), |(rest, _)| (rest, "?…"));
    let (scheme, rest) = rest.split_once("://").map_or(("", rest), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}{query}")
}

/// Why a webhook cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidWebhook {
    /// It is no URL.
    Url,
    /// It begins with something else than `http://` or `https://`.
    Scheme,
    /// It has a name or a password in it.
    Credentials,
    /// It has a `#` in it.
    Fragment,
    /// A header cannot be sent.
    Header {
        /// Which one.
        name: String,
    },
    /// A header is set by the protocol.
    Reserved {
        /// Which one.
        name: String,
    },
}

impl fmt::Display for InvalidWebhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // None repeats the address, which may hold a secret.
        match self {
            Self::Url => formatter
                .write_str("the webhook's address is no URL; write it like https://example.com/webhook, without spaces"),
            Self::Scheme => formatter.write_str("the webhook's address must begin with http:// or https://"),
            Self::Credentials => formatter.write_str(
                "the webhook's address may hold no name and no password; put them into a header of the webhook, such as Authorization",
            ),
            Self::Fragment => formatter
                .write_str("the webhook's address may have no #: what follows it is never sent; leave it away, or write it as %23"),
            Self::Header { name } => {
                write!(formatter, "the webhook's header {name:?} has a name or a value that HTTP does not allow")
            }
            Self::Reserved { name } => {
                write!(formatter, "the webhook's header {name:?} is set by the protocol; leave it away")
            }
        }
    }
}

impl std::error::Error for InvalidWebhook {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_https_addresses_are_taken() {
        for url in ["http://127.0.0.1:8000", "https://example.com/a?token=b", "HTTPS://[::1]:1/x", "http://a"] {
            assert_eq!(check(&Webhook::new(url)), Ok(()), "{url}");
        }
    }

    #[test]
    fn other_addresses_are_refused_without_repeating_them() {
        for (url, reason) in [
            ("", InvalidWebhook::Url),
            ("/hunter2", InvalidWebhook::Scheme),
            ("example.com", InvalidWebhook::Scheme),
            ("ftp://example.com/hunter2", InvalidWebhook::Scheme),
            ("file:///etc/passwd", InvalidWebhook::Url),
            ("https://", InvalidWebhook::Url),
            ("https://:80/", InvalidWebhook::Url),
            ("http://a:port/", InvalidWebhook::Url),
            ("http://a:99999/", InvalidWebhook::Url),
            ("http://a b/", InvalidWebhook::Url),
            ("http://me:hunter2@example.com/", InvalidWebhook::Credentials),
            ("http://example.com/#hunter2", InvalidWebhook::Fragment),
        ] {
            let refused = check(&Webhook::new(url)).expect_err(url);
            assert_eq!(refused, reason, "{url}");
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn headers_of_the_protocol_and_impossible_ones_are_refused() {
        let check = |name: &str, value: &str| {
            let headers = vec![(name.to_owned(), value.to_owned())];
            check(&Webhook { headers, ..Webhook::new("http://a/") })
        };
        assert_eq!(check("Authorization", "Bearer x"), Ok(()));
        for name in ["content-type", "Content-Length", "Transfer-Encoding", "Connection", "X-Pusher-Key"] {
            assert_eq!(check(name, "x"), Err(InvalidWebhook::Reserved { name: name.to_owned() }));
        }
        for (name, value) in [("a b", "x"), ("", "x"), ("a", "x\r\ny: z")] {
            assert_eq!(check(name, value), Err(InvalidWebhook::Header { name: name.to_owned() }));
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
        ] {
            assert_eq!(shown(url), text);
        }
    }
}
