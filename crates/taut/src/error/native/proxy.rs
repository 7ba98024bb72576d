//! What a proxy did instead of leading to the server.

use std::fmt;

use super::Words;
use crate::Response;

/// Why a proxy does not lead to the server.
#[derive(Debug)]
pub(crate) enum ProxyFailure {
    /// User and password are not accepted.
    Credentials,
    /// It wants user and password, or another kind of proof.
    NoCredentials,
    NotHttp,
    NotSocks,
    /// A SOCKS reply other than success.
    Reply(u8),
    /// A status other than success.
    Status(Response),
}

impl ProxyFailure {
    pub(crate) fn status(&self) -> Option<u16> {
        self.response().map(Response::status)
    }

    pub(crate) fn response(&self) -> Option<&Response> {
        match self {
            Self::Status(response) => Some(response),
            _ => None,
        }
    }

    /// Whether the same may succeed later: it is the server that it cannot reach, or it is overloaded.
    pub(crate) fn is_transient(&self) -> bool {
        // RFC 1928 §6: failure, network or host unreachable, connection refused, TTL expired.
        matches!(self, Self::Reply(1 | 3..=6)) || matches!(self.status(), Some(408 | 425 | 429 | 500 | 502..=504))
    }
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials => f.write_str("the proxy does not accept the user and password of its URL"),
            Self::NoCredentials => {
                f.write_str("the proxy wants a user and password; write them into its URL, before the host")
            }
            Self::NotHttp => f.write_str("the proxy's answer is not HTTP; is the proxy's address right?"),
            Self::NotSocks => f.write_str("the proxy's answer is not SOCKS5; is the proxy's address right?"),
            Self::Reply(reply) => {
                // RFC 1928 §6.
                let reason = match reply {
                    1 => "it failed",
                    2 => "its rules forbid it",
                    3 => "the network is unreachable",
                    4 => "the host is unreachable",
                    5 => "the server refused the connection",
                    6 => "it took too long",
                    7 => "it cannot connect for clients",
                    8 => "it cannot connect to this kind of address",
                    _ => "it gives no reason that has a name",
                };
                write!(f, "the proxy did not connect to the server: {reason} (SOCKS reply {reply})")
            }
            Self::Status(response) => {
                let status = response.status();
                let advice = match status {
                    403 => "; its rules forbid this server or port",
                    404 | 502 | 503 | 504 => "; it cannot reach the server",
                    405 | 501 => "; it has no CONNECT",
                    401 | 407 => "; it wants a user and password, in its URL before the host, or did not accept them",
                    _ => "",
                };
                write!(f, "the proxy answered with HTTP status {status} to CONNECT{advice}")?;
                response.words().map_or(Ok(()), |words| write!(f, "; it says: {}", Words(words)))
            }
        }
    }
}
