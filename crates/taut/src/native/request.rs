//! What a client asks for when it wants to connect.

#[cfg(feature = "hyper")]
mod parts;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use taut_proto::handshake::{self, HeadLimits, Refusal};

#[cfg(feature = "tls")]
use crate::native::tls::TlsInfo;
#[cfg(feature = "hyper")]
pub(crate) use parts::Parts;

/// A client's request to open a WebSocket: what decides whether it may.
///
/// Clones are handles, so that a hook that asks a database may keep one. Its `Debug` shows neither the query nor the
/// values of headers, which hold secrets.
#[derive(Clone)]
pub struct Request(Arc<Inner>);

struct Inner {
    head: Head,
    peer: Option<SocketAddr>,
    #[cfg(feature = "tls")]
    tls: Option<TlsInfo>,
}

impl Request {
    /// Checks a head by everything that RFC 6455 §4.2.1 asks of it.
    pub(crate) fn new(head: Head, peer: Option<SocketAddr>, limits: &HeadLimits) -> Result<Self, Refusal> {
        head.request(limits)?.upgrade()?;
        Ok(Self(Arc::new(Inner {
            head,
            peer,
            #[cfg(feature = "tls")]
            tls: None,
        })))
    }

    /// Adds what the transport knows.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(mut self, tls: Option<TlsInfo>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.tls = tls;
        }
        self
    }

    /// The path, still percent-encoded.
    pub fn path(&self) -> &str {
        self.parsed().path()
    }

    /// The query without its question mark, still percent-encoded.
    pub fn query(&self) -> Option<&str> {
        self.parsed().query()
    }

    /// The first value of a query parameter, decoded. Queries end up in the logs of proxies: a token in one should
    /// serve once and not for long.
    pub fn query_value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.parsed().query_value(name)
    }

    /// The first value of a header; `None` when it is absent or not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parsed().header(name)
    }

    /// All headers, in order: names as written, values as bytes.
    pub fn headers(&self) -> Vec<(&str, &[u8])> {
        self.parsed().headers().collect()
    }

    /// The host, and the port if one is given, that the request is for.
    pub fn host(&self) -> Option<&str> {
        self.parsed().host()
    }

    /// The page on whose behalf a browser connects. It has been [checked](crate::Acceptor::allow_origins) already.
    pub fn origin(&self) -> Option<&str> {
        self.parsed().origin()
    }

    /// The token that the client presents: of `Authorization: Bearer`, or, from a browser, which cannot set headers, of
    /// a subprotocol `bearer.TOKEN` that it offers beside the real one. The answer never names that one.
    pub fn bearer(&self) -> Option<&str> {
        let parsed = self.parsed();
        parsed.bearer().or_else(|| parsed.subprotocols().find_map(|offered| offered.strip_prefix(BEARER)))
    }

    /// The first value of a cookie, as sent.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.parsed().cookie(name)
    }

    /// The subprotocols that the client offers, in its order of preference, without the one that is a token.
    pub fn subprotocols(&self) -> Vec<&str> {
        self.parsed().subprotocols().filter(|offered| !offered.starts_with(BEARER)).collect()
    }

    /// The peer's address, as far as the connection is TCP: a proxy's, where there is one between.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// What TLS has told: the client's certificates, the name that it asked for. `None` without TLS, and behind a proxy
    /// that ends it.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.0.tls.as_ref()
    }

    pub(crate) fn parsed(&self) -> handshake::Request<'_> {
        match self.0.head.request(&ANY) {
            Ok(request) => request,
            Err(_) => unreachable!("it was parsed before"),
        }
    }
}

/// The head of a request, kept as it came.
pub(crate) enum Head {
    /// As text, with nothing behind it.
    Text(Box<[u8]>),
    /// As values, from an HTTP library.
    #[cfg(feature = "hyper")]
    Parts(Box<Parts>),
}

impl Head {
    fn request(&self, limits: &HeadLimits) -> Result<handshake::Request<'_>, Refusal> {
        match self {
            Self::Text(text) => handshake::Request::parse(text, limits),
            #[cfg(feature = "hyper")]
            Self::Parts(parts) => handshake::Request::new(parts.head(), limits),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed().fmt(f)
    }
}

/// It was held to limits when it came.
const ANY: HeadLimits = HeadLimits { bytes: usize::MAX, headers: usize::MAX };

/// What a subprotocol begins with that is a token.
pub(crate) const BEARER: &str = "bearer.";
