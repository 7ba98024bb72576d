//! How an app's clients show who they are.

use std::fmt;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use super::Secret;
use super::public_key::{InvalidKey, PublicKey};
use crate::address::{self, InvalidAddress};

/// How the clients of an app show who they are before their connections are accepted. Whoever does not gets 401 or 403 and no WebSocket; whoever
/// does is that user from the first message on, as if signed in.
///
/// Pusher knows nothing like it, and its own clients send no token: nothing is asked for by default.
#[derive(Clone, Debug, PartialEq)]
pub enum UpgradeAuth {
    /// By a JSON Web Token (RFC 7519), which the server checks by itself.
    Token(TokenAuth),
    /// By whatever the application goes by: it is asked each time.
    Callback(Callback),
}

impl UpgradeAuth {
    /// Whether it can be used.
    pub fn check(&self) -> Result<(), InvalidUpgradeAuth> {
        match self {
            Self::Token(TokenAuth { keys: TokenKeys::Secret(secret), .. }) => {
                let is_long = secret.reveal().len() >= SHORTEST_SECRET;
                is_long.then_some(()).ok_or(InvalidUpgradeAuth::Secret)
            }
            Self::Token(TokenAuth { keys: TokenKeys::Public(_), .. }) => Ok(()),
            Self::Token(TokenAuth { keys: TokenKeys::Published(Published { url, .. }), .. })
            | Self::Callback(Callback { url, .. }) => {
                address::parse(url).map(drop).map_err(InvalidUpgradeAuth::Address)
            }
        }
    }
}

/// Which tokens are taken, and where they are looked for: the `Authorization: Bearer` header first, and then the places below, in their order.
/// The first token found counts.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenAuth {
    /// What signs tokens.
    pub keys: TokenKeys,
    /// Whether browsers may send one as a subprotocol, `new WebSocket(url, ["taut.v1", "bearer." + token])`; they may by default. The answer names
    /// the first of the two alone.
    pub subprotocol: bool,
    /// The parameter of the address that holds one; `token` by default. Proxies may write addresses to their logs.
    pub query: Option<String>,
    /// The cookie that holds one; none by default. Browsers send cookies whatever page connects, so the app's origins have to be listed, or else only
    /// pages of the server's own host may connect by it.
    pub cookie: Option<String>,
    /// Who must have issued it (`iss`); anybody by default.
    pub issuer: Option<String>,
    /// For whom it must be (`aud`), alone or among others; for anybody by default.
    pub audience: Option<String>,
}

impl TokenAuth {
    /// The subprotocol that is answered to a client that sends its token as another.
    pub const SUBPROTOCOL: &'static str = "taut.v1";

    /// With these keys, and the defaults in everything else.
    pub fn new(keys: TokenKeys) -> Self {
        Self { keys, subprotocol: true, query: Some("token".to_owned()), cookie: None, issuer: None, audience: None }
    }
}

/// What signs tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenKeys {
    /// A secret that issuer and server share, for HS256: 32 bytes or more.
    Secret(Secret),
    /// The public half of the issuer's key, for RS256, ES256 or `EdDSA`.
    Public(PublicKey),
    /// The issuer's public keys, as it publishes them.
    Published(Published),
}

impl TokenKeys {
    /// The public key in a file in PEM.
    pub fn read(path: &Path) -> Result<Self, UnreadableKey> {
        let pem = fs::read_to_string(path).map_err(UnreadableKey::File)?;
        PublicKey::from_pem(&pem).map(Self::Public).map_err(UnreadableKey::Key)
    }
}

/// A set of keys (RFC 7517) at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// `https://`, or `http://` within a network that is trusted.
    pub url: String,
    /// How long a set is used before it is fetched again; 10 minutes by default. While that fails the old one is used.
    pub refresh: Duration,
    /// How long the set is not fetched again for the sake of a key that is not in it; 30 seconds by default. So strangers who make up keys cannot
    /// make the server a burden to the issuer.
    pub refetch: Duration,
}

impl Published {
    /// At this address, with the defaults in everything else.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), refresh: Duration::from_secs(10 * 60), refetch: Duration::from_secs(30) }
    }
}

/// Where the application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// `https://`, or `http://` within a network that is trusted. Each connection costs a request to it.
    pub url: String,
    /// How long the answer may take; 5 seconds by default. After it the client gets 503. The handshake as a whole has 10 seconds.
    pub timeout: Duration,
    /// Requests at a time; 64 by default. Others wait, within the same time.
    pub concurrency: usize,
}

impl Callback {
    /// At this address, with the defaults in everything else.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), timeout: Duration::from_secs(5), concurrency: 64 }
    }
}

/// Why an [`UpgradeAuth`] cannot be used. It repeats neither secrets nor addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidUpgradeAuth {
    /// The secret is too short to sign with.
    Secret,
    /// Nothing can be sent to the address.
    Address(InvalidAddress),
}

impl fmt::Display for InvalidUpgradeAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // RFC 7518 §3.2.
            Self::Secret => formatter.write_str(
                "the secret for tokens is too short: HS256 needs 32 bytes or more, as `openssl rand -base64 32` makes them",
            ),
            Self::Address(invalid) => invalid.fmt(formatter),
        }
    }
}

impl std::error::Error for InvalidUpgradeAuth {}

/// Why a file gives no public key.
#[derive(Debug)]
pub enum UnreadableKey {
    /// It cannot be read.
    File(io::Error),
    /// What is in it cannot be used.
    Key(InvalidKey),
}

impl fmt::Display for UnreadableKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(formatter, "the file with the public key cannot be read: {error}"),
            Self::Key(error) => write!(formatter, "the file with the public key cannot be used: {error}"),
        }
    }
}

impl std::error::Error for UnreadableKey {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Key(error) => Some(error),
        }
    }
}

/// Bytes of a secret for HS256 (RFC 7518 §3.2).
const SHORTEST_SECRET: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        let secret = |text: &str| UpgradeAuth::Token(TokenAuth::new(TokenKeys::Secret(text.into()))).check();
        assert_eq!(secret("hunter2"), Err(InvalidUpgradeAuth::Secret));
        assert_eq!(secret(&"x".repeat(32)), Ok(()));
        for url in
            ["", "/a", "ftp://a/", "http://me:hunter2@a/", "http://a:port/", "https://a/#hunter2", "https://:80/"]
        {
            for auth in [
                UpgradeAuth::Callback(Callback::new(url)),
                UpgradeAuth::Token(TokenAuth::new(TokenKeys::Published(Published::new(url)))),
            ] {
                let refused = auth.check().expect_err(url);
                assert!(matches!(refused, InvalidUpgradeAuth::Address(_)), "{url}");
                assert!(!refused.to_string().contains("hunter2"));
            }
        }
        for url in ["http://127.0.0.1:8000/auth", "https://example.com", "https://[::1]:1/a?b=c"] {
            assert_eq!(UpgradeAuth::Callback(Callback::new(url)).check(), Ok(()), "{url}");
        }
    }
}
