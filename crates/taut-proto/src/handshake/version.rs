//! The versions of HTTP.

/// A version of HTTP. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0, which cannot upgrade.
    Http10,
    /// HTTP/1.1: the handshake of RFC 6455 §4.
    Http11,
    /// HTTP/2: the handshake of RFC 8441.
    Http2,
    /// HTTP/3: the handshake of RFC 9220.
    Http3,
}

impl Version {
    /// Whether a connection of this version carries many requests, each on a stream.
    pub(super) fn has_streams(self) -> bool {
        self >= Self::Http2
    }
}
