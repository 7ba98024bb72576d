//! The head of a request that hyper has parsed.

use http::{HeaderMap, Method, Uri, Version};
use taut_proto::handshake::{self, Refusal, RequestHead};

/// What hyper has parsed of a request and the handshake is judged by. Its headers share their memory with hyper's.
pub(crate) struct Parts {
    method: Method,
    uri: Uri,
    version: handshake::Version,
    headers: HeaderMap,
}

impl Parts {
    pub(crate) fn new(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Self, Refusal> {
        let version = match version {
            Version::HTTP_11 => handshake::Version::Http11,
            later if later > Version::HTTP_11 => return Err(Refusal::with_status(501, NOT_HTTP_1)),
            _ => handshake::Version::Http10,
        };
        Ok(Self { method: method.clone(), uri: uri.clone(), version, headers: headers.clone() })
    }

    /// The head as the rules of the handshake want it.
    pub(crate) fn head(&self) -> RequestHead<'_> {
        let authority = self.uri.authority().map(http::uri::Authority::as_str);
        // The authority form, of a CONNECT, has neither a path nor a scheme.
        let target = self.uri.path_and_query().map(http::uri::PathAndQuery::as_str).or(authority);
        RequestHead {
            method: self.method.as_str(),
            scheme: self.uri.scheme_str(),
            authority: authority.filter(|_| self.uri.scheme().is_some()),
            target: target.unwrap_or_default(),
            protocol: None,
            version: self.version,
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        }
    }
}

const NOT_HTTP_1: &str = "WebSocket over HTTP/2 or later is not spoken here; connect by HTTP/1.1.";
