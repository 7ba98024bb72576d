//! Where a webhook goes, and with which headers.

use std::fmt;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};

use crate::address::{self, InvalidAddress};
use crate::app::Webhook;

/// Whether a webhook can be used: to be asked when the configuration is read, and again before each request.
pub(crate) fn check(webhook: &Webhook) -> Result<(), InvalidWebhook> {
    address::parse(&webhook.url).map_err(InvalidWebhook::Address)?;
    headers(webhook).try_for_each(|header| header.map(drop))
}

/// The webhook's own headers.
pub(super) fn headers(webhook: &Webhook) -> impl Iterator<Item = Result<(HeaderName, HeaderValue), InvalidWebhook>> {
    webhook.headers.iter().map(|(name, value)| {
        let invalid = || InvalidWebhook::Header { name: name.clone() };
        let parsed: HeaderName = name.parse().map_err(|_| invalid())?;
        if is_reserved(name) {
            return Err(InvalidWebhook::Reserved { name: name.clone() });
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok((parsed, value))
    })
}

/// Whether each request has this header anyway.
pub(crate) fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let reserved = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];
    reserved.iter().any(|reserved| reserved.as_str() == name) || name.starts_with("x-pusher-")
}

/// Why a webhook cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InvalidWebhook {
    /// Nothing can be sent to its address.
    Address(InvalidAddress),
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
        match self {
            Self::Address(invalid) => write!(formatter, "the webhook's address {}", invalid.reason()),
            // The value may be a secret.
            Self::Header { name } => {
                write!(formatter, "the webhook's header {name:?} has a name or a value that HTTP does not allow")
            }
            Self::Reserved { name } => {
                write!(formatter, "the webhook's header {name:?} is set by the protocol; remove it")
            }
        }
    }
}

impl std::error::Error for InvalidWebhook {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_asked_is_refused_without_repeating_it() {
        assert_eq!(check(&Webhook::new("https://example.com/a?token=b")), Ok(()));
        let refused = check(&Webhook::new("http://me:hunter2@example.com/")).expect_err("a password");
        let reason = "the webhook's address may hold no name and no password: ";
        assert!(refused.to_string().starts_with(reason), "{refused}");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
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
}
