//! The response to a handshake as a value.

use std::borrow::Cow;
use std::fmt;

use super::check_header;

/// The response to a handshake: of an [`Upgrade`](super::Upgrade), which accepts it, or of a
/// [`Refusal`](super::Refusal).
///
/// [`http1::write_response`](super::http1::write_response) makes text of it. Where an HTTP library writes the response,
/// it takes the parts from here. No name and no value can hold a line end or NUL, whatever a client or an application
/// came up with (CVE-2026-1527).
///
/// Its `Debug` shows no values of headers, which may be cookies.
#[derive(Clone, PartialEq, Eq)]
pub struct Response<'r> {
    status: u16,
    headers: Vec<(Cow<'r, str>, Cow<'r, str>)>,
    body: Cow<'r, str>,
}

impl<'r> Response<'r> {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::with_capacity(MOST_COMMON), body: Cow::Borrowed("") }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Names and values in the order in which they are to be written. Names are written as HTTP/1.1 usually has them;
    /// HTTP/2 and HTTP/3 want them in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// What a person may read; empty when the handshake is accepted.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Keeps the connection open for the client's next request: `Connection: close` is left out;
    /// it is the default, since nobody knows where a request ends that is not understood.
    #[must_use]
    pub fn keep_open(mut self) -> Self {
        self.headers.retain_mut(|(name, value)| {
            if name == "Connection" && value == "Upgrade, close" {
                *value = "Upgrade".into();
            }
            !(name == "Connection" && value == "close")
        });
        self
    }

    /// Adds a header that is known to be one: the application's were checked when they were set, a subprotocol is a
    /// token.
    pub(super) fn push(&mut self, name: impl Into<Cow<'r, str>>, value: impl Into<Cow<'r, str>>) {
        let header = (name.into(), value.into());
        debug_assert_eq!(check_header(&header.0, &header.1), Ok(()), "every value was checked when it came");
        self.headers.push(header);
    }

    pub(super) fn set_body(&mut self, body: impl Into<Cow<'r, str>>) {
        self.body = body.into();
    }
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("Response").field("status", &self.status).field("headers", &names).finish_non_exhaustive()
    }
}

/// Headers that most responses have room for without a second allocation.
const MOST_COMMON: usize = 8;
