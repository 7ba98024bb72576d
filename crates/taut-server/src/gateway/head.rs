//! What is kept of the request that a connection began with, for its backend.

use std::net::{IpAddr, SocketAddr};

use taut_proto::handshake::Request;

use super::pattern::Parameters;

/// The part of a client's first request that its route's backend is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) path: Box<str>,
    /// As the client wrote it.
    pub(crate) query: Box<str>,
    /// What the parts of the path are called that the route leaves open, and what they are here.
    pub(crate) params: Parameters,
    /// Those that the route passes on, in the client's order.
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
    /// The subprotocols that the client offers.
    pub(crate) protocols: Vec<Box<str>>,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) host: Box<str>,
    pub(crate) is_secure: bool,
    pub(crate) transport: Transport,
}

/// How a client gets what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// A response without an end: Server-Sent Events, or what GRIP holds open.
    Stream,
}

impl Transport {
    /// What a backend is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Stream => "sse",
        }
    }
}

impl Head {
    /// What a route passes on of a request from `address`, which has come over `peer`.
    pub(crate) fn new(
        request: &Request<'_>,
        peer: SocketAddr,
        address: IpAddr,
        is_secure: bool,
        passes: impl Fn(&str) -> bool,
        params: Parameters,
        transport: Transport,
    ) -> Self {
        // Headers that `Connection` names are for this server (RFC 9110 §7.6.1).
        let ends_here = |name: &str| {
            let options = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
            options
                .filter_map(|(_, value)| str::from_utf8(value).ok())
                .flat_map(|value| value.split(','))
                .any(|option| option.trim().eq_ignore_ascii_case(name) && !name.eq_ignore_ascii_case("host"))
        };
        // Who cannot be read as text cannot be told as JSON, and no browser sends such a header.
        let kept = request.headers().filter(|(name, _)| passes(name) && !ends_here(name));
        let headers = kept.filter_map(|(name, value)| {
            let value = str::from_utf8(value).ok()?;
            Some((name.into(), value.into()))
        });
        Self {
            path: request.path().into(),
            query: request.query().unwrap_or_default().into(),
            params,
            headers: headers.collect(),
            protocols: request.subprotocols().map(Box::from).collect(),
            address,
            port: peer.port(),
            host: request.host().unwrap_or_default().into(),
            is_secure,
            transport,
        }
    }
}
