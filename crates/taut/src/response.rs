//! The response that has opened a connection, or refused one.

use std::fmt;
use std::sync::Arc;

use taut_proto::handshake::{ClientResponse, HeadLimits};

/// What a server has answered to a client's handshake: of the 101 that opened the connection
/// ([`WebSocket::response`](crate::WebSocket)), or of what it refused with ([`Error::response`](crate::Error::response)).
///
/// ```no_run
/// # async fn run() {
/// if let Err(error) = taut::connect("wss://api.example/feed").await
///     && let Some(response) = error.response()
/// {
///     eprintln!("{}: {:?}", response.status(), response.text()); // 401: Some("{\"error\":\"token expired\"}")
///     eprintln!("{:?}", response.header("www-authenticate"));
/// }
/// # }
/// ```
///
/// Clones are handles. Its `Debug` shows neither the values of headers nor the body.
#[derive(Clone)]
pub struct Response(Arc<Inner>);

struct Inner {
    /// As it came, with nothing behind it.
    head: Box<[u8]>,
    body: Box<[u8]>,
    is_complete: bool,
}

impl Response {
    /// The most of a body that is kept: 16 KiB.
    pub const MAX_BODY: usize = 16 << 10;

    /// Takes a head that [`ClientResponse::parse`] has accepted, and as much of the body as has come.
    #[cfg_attr(target_family = "wasm", allow(dead_code, reason = "a page is not told what a server has answered"))]
    pub(crate) fn new(head: &[u8], body: Vec<u8>, is_complete: bool) -> Self {
        Self(Arc::new(Inner { head: head.into(), body: body.into(), is_complete }))
    }

    /// The HTTP status; 101 for a connection that was opened.
    pub fn status(&self) -> u16 {
        self.parsed().status()
    }

    /// The first value of a header, such as `www-authenticate`; `None` when it is absent or not UTF-8. Names have no
    /// case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parsed().header(name)
    }

    /// All values of a header that are UTF-8, in order: of `set-cookie` there are often several.
    pub fn header_values(&self, name: &str) -> Vec<&str> {
        self.parsed().header_values(name).collect()
    }

    /// All headers, in order: names as written, values as bytes.
    pub fn headers(&self) -> Vec<(&str, &[u8])> {
        self.parsed().headers().collect()
    }

    /// The body, up to [`MAX_BODY`](Self::MAX_BODY) bytes of it, without its chunks and otherwise as it was sent. Empty
    /// for status 101, for a redirect that was followed or might have been, and when there was none.
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// The [`body`](Self::body), if it is UTF-8: JSON, a sentence, a page.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0.body).ok()
    }

    /// Whether the body is whole. Otherwise it was longer than [`MAX_BODY`](Self::MAX_BODY), was not sent within two
    /// seconds, or broke off.
    pub fn is_complete(&self) -> bool {
        self.0.is_complete
    }

    /// The first line of a body that was written for people or for programs, and is not a page.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn words(&self) -> Option<&str> {
        let parsed = self.parsed();
        let media = parsed.header("content-type").and_then(|value| value.split(';').next()).map(str::trim);
        let is_plain = media.is_none_or(|media| {
            let media = media.to_ascii_lowercase();
            media == "text/plain" || media.ends_with("/json") || media.ends_with("+json")
        });
        if !is_plain || parsed.header("content-encoding").is_some() {
            return None;
        }
        // What was cut within a character is UTF-8 up to there.
        let text = match std::str::from_utf8(&self.0.body) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&self.0.body[..error.valid_up_to()]).ok()?
            }
            Err(_) => return None,
        };
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        // A page that does not say what it is.
        (!line.starts_with('<')).then_some(line)
    }

    fn parsed(&self) -> ClientResponse<'_> {
        match ClientResponse::parse(&self.0.head, &ANY) {
            Ok(response) => response,
            Err(_) => unreachable!("it was parsed before"),
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parsed().headers().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("Response");
        shown.field("status", &self.status()).field("headers", &names);
        shown.field("body", &format_args!("{} bytes", self.0.body.len())).finish_non_exhaustive()
    }
}

/// It was held to limits when it came.
const ANY: HeadLimits = HeadLimits { bytes: usize::MAX, headers: usize::MAX };
