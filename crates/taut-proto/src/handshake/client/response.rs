//! The head of a server's response.

use std::fmt;
use std::time::Duration;

use super::rejection::Rejection;
use crate::handshake::head::{HeadLimits, ResponseHead};
use crate::handshake::headers::Headers;
use crate::handshake::http1;
use crate::handshake::version::Version;

/// The head of a server's response, lent from the bytes that it was parsed from.
pub struct ClientResponse<'a> {
    pub(super) status: u16,
    pub(super) is_http_1_1: bool,
    pub(super) headers: Headers<'a>,
}

impl<'a> ClientResponse<'a> {
    /// Parses a head that [`HeadScan`](super::super::HeadScan) found, under the same limits.
    pub fn parse(head: &'a [u8], limits: &HeadLimits) -> Result<Self, Rejection> {
        let ResponseHead { status, version, headers } = http1::parse_response(head, limits)?;
        headers.check(&SINGLE)?;
        if !matches!(status, 100..600) {
            return Err(Rejection::Malformed);
        }
        Ok(Self { status, is_http_1_1: version == Version::Http11, headers })
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of a header, without the space around it; `None` when it is absent or not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.first(name)
    }

    /// All values of a header that are UTF-8, in order.
    pub fn header_values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'_, 'n, 'a> {
        self.headers.all(name)
    }

    /// All headers: names as written, values as bytes.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter()
    }

    /// `Retry-After` in seconds (RFC 9110 §10.2.3). A date needs a clock, so the caller has to read it.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?;
        // `parse` alone would let a sign pass.
        let is_number = seconds.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| seconds.parse().ok().map(Duration::from_secs)).flatten()
    }
}

impl fmt::Debug for ClientResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, headers, .. } = self;
        f.debug_struct("ClientResponse").field("status", status).field("headers", headers).finish_non_exhaustive()
    }
}

/// Headers that may occur once in a response (RFC 6455 §11.3.3, §11.3.4).
const SINGLE: [&str; 2] = ["sec-websocket-accept", "sec-websocket-protocol"];
