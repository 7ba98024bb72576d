//! Through a proxy: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC 1929).

mod environment;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use taut_proto::handshake::{ClientResponse, HeadLimits, HeadScan};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{Transport, tcp};
use crate::Error;
use crate::error::{Cause, Doing, ProxyFailure};
#[cfg(feature = "tls")]
use crate::native::tls::ClientTls;
use crate::native::url::{percent_decode, split_authority};
use environment::Environment;

/// A proxy on the way to the server: HTTP CONNECT, over TLS or not, or SOCKS5.
///
/// Both `ws://` and `wss://` go through it as a tunnel, and `wss://` is encrypted between client and server.
///
/// ```
/// # fn main() -> Result<(), taut::Error> {
/// use taut::{Client, Proxy};
///
/// let proxy = Proxy::http("http://user:password@proxy.example:3128")?;
/// let client = Client::new("ws://api.example/").proxy(proxy);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Proxy(Choice);

#[derive(Clone)]
enum Choice {
    Always(Arc<Server>),
    Environment(Arc<Environment>),
}

impl Proxy {
    /// A proxy that understands CONNECT: `http://host:port`, or `https://host:port` for one that is reached by TLS;
    /// with `user:password@` before the host, percent-encoded, if it asks for them. The ports are 80 and 443 by
    /// default.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the URL is malformed or of another scheme.
    pub fn http(url: &str) -> Result<Self, Error> {
        Self::always(url, &[Kind::Http, Kind::Https])
    }

    /// A SOCKS5 proxy: `socks5h://host:port` looks names up at the proxy, `socks5://host:port` here; with
    /// `user:password@` before the host, percent-encoded, if it asks for them. The port is 1080 by default.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the URL is malformed or of another scheme.
    pub fn socks5(url: &str) -> Result<Self, Error> {
        Self::always(url, &[Kind::Socks5, Kind::Socks5h])
    }

    /// What the environment says now, as for other programs: `HTTPS_PROXY` for `wss://` URLs, `HTTP_PROXY` for
    /// `ws://`, then `ALL_PROXY`; in lower case as well, which is looked at first. A value is a URL as for
    /// [`http`](Self::http) or [`socks5`](Self::socks5), or `host:port`. What is wrong with it is told when connecting.
    ///
    /// `NO_PROXY` lists, with commas, what is connected to directly: a domain with all below it (`example.org`), an
    /// address or a range of them (`10.0.0.0/8`), each with a port or without, or `*` for everything. Loopback
    /// addresses and `localhost` always are. `HTTP_PROXY` in upper case does not count within a CGI program, where a
    /// request can set it (httpoxy, CVE-2016-5385).
    pub fn from_environment() -> Self {
        Self(Choice::Environment(Arc::new(Environment::new(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        }))))
    }

    /// How a proxy with an `https://` URL is trusted; [`ClientTls::system`] by default. The server behind it has its
    /// own, [`Client::tls`](crate::Client::tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        match &mut self.0 {
            Choice::Always(server) => Arc::make_mut(server).tls = tls,
            Choice::Environment(environment) => Arc::make_mut(environment).tls = tls,
        }
        self
    }

    /// The proxy for a server; `None` if it is reached without.
    pub(crate) fn server(&self, is_secure: bool, host: &str, port: u16) -> Result<Option<Arc<Server>>, Error> {
        match &self.0 {
            Choice::Always(server) => Ok(Some(Arc::clone(server))),
            Choice::Environment(environment) => environment.server(is_secure, host, port),
        }
    }

    fn always(url: &str, kinds: &[Kind]) -> Result<Self, Error> {
        let server = Server::parse(url).map_err(invalid)?;
        if !kinds.contains(&server.kind) {
            let schemes: Vec<_> = kinds.iter().map(|kind| format!("{}://", kind.scheme())).collect();
            return Err(invalid(format!("the URL of this kind of proxy begins with {}", schemes.join(" or "))));
        }
        Ok(Self(Choice::Always(Arc::new(server))))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Always(server) => f.debug_tuple("Proxy").field(server).finish(),
            Choice::Environment(_) => f.write_str("Proxy(environment)"),
        }
    }
}

/// One proxy.
#[derive(Clone)]
pub(crate) struct Server {
    kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// User and password.
    credentials: Option<(String, String)>,
    #[cfg(feature = "tls")]
    tls: ClientTls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    Socks5,
    Socks5h,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Socks5, Self::Socks5h];

    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 | Self::Socks5h => 1080,
        }
    }
}

impl Server {
    /// Takes the URL of a proxy apart; says what is wrong without quoting it, since it may hold a password.
    fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("the proxy is not a URL, such as http://host:port")?;
        let is_scheme = |kind: &Kind| scheme.eq_ignore_ascii_case(kind.scheme());
        let kind =
            Kind::ALL.into_iter().find(is_scheme).ok_or("the proxy's scheme must be http, https, socks5 or socks5h")?;
        if kind == Kind::Https && cfg!(not(feature = "tls")) {
            return Err("a proxy by https:// needs the feature `tls` of the crate taut".to_owned());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err("the proxy's URL has no path".to_owned());
        }
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (host, port) = split_authority(authority).map_err(|wrong| format!("the proxy's URL: {wrong}"))?;
        let credentials = user.map(|user| credentials(kind, user)).transpose()?;
        Ok(Self {
            kind,
            host: host.to_owned(),
            port: port.unwrap_or_else(|| kind.port()),
            credentials,
            #[cfg(feature = "tls")]
            tls: ClientTls::system(),
        })
    }

    /// Makes a tunnel to `host` of a connection to the proxy.
    pub(crate) async fn tunnel(&self, transport: Transport, host: &str, port: u16) -> Result<Transport, Error> {
        match self.kind {
            Kind::Http => self.connect(transport, host, port).await,
            #[cfg(feature = "tls")]
            Kind::Https => {
                let secure = self.tls.connect(&self.host, transport).await?;
                self.connect(Transport::over_tls(secure), host, port).await
            }
            #[cfg(not(feature = "tls"))]
            Kind::Https => unreachable!("refused when it was parsed"),
            Kind::Socks5 => {
                let addresses = tcp::lookup(host, port).await?;
                // There is one attempt, and version 4 is what every proxy can do.
                let four = addresses.iter().find(|address| address.is_ipv4()).unwrap_or(&addresses[0]);
                self.socks(transport, Destination::Address(*four)).await
            }
            Kind::Socks5h => {
                let destination = match host.parse::<IpAddr>() {
                    Ok(address) => Destination::Address(SocketAddr::new(address, port)),
                    Err(_) => Destination::Name(host, port),
                };
                self.socks(transport, destination).await
            }
        }
    }

    async fn connect(&self, mut transport: Transport, host: &str, port: u16) -> Result<Transport, Error> {
        // RFC 9110 §9.3.6: the target is host and port, the port even if it is the scheme's own.
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authorization = match &self.credentials {
            Some((user, password)) => format!("Proxy-Authorization: {}\r\n", basic(user, password)),
            None => String::new(),
        };
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        write(&mut transport, request.as_bytes()).await?;

        let limits = HeadLimits::default();
        let mut bytes = Vec::new();
        for _ in 0..INTERIM_RESPONSES {
            let end = read_head(&mut transport, &mut bytes, &limits).await?;
            let status = match ClientResponse::parse(&bytes[..end], &limits) {
                Ok(response) => response.status(),
                Err(_) => return Err(Cause::Proxy(ProxyFailure::NotHttp).into()),
            };
            let unread = bytes.split_off(end);
            match status {
                // RFC 9110 §15.2: the response that counts follows.
                100..200 => bytes = unread,
                // RFC 9110 §9.3.6: any of these means a tunnel, and it begins right after the head.
                200..300 if unread.is_empty() => return Ok(transport),
                200..300 => return Ok(Transport::new(Rewound { unread, transport })),
                status => return Err(Cause::Proxy(ProxyFailure::Status(status)).into()),
            }
        }
        Err(Cause::Proxy(ProxyFailure::NotHttp).into())
    }

    async fn socks(&self, mut transport: Transport, destination: Destination<'_>) -> Result<Transport, Error> {
        // RFC 1928 §3: version, then the methods: none needed, or user and password.
        let methods: &[u8] = if self.credentials.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
        write(&mut transport, methods).await?;
        match (read::<2>(&mut transport).await?, &self.credentials) {
            ([5, 0], _) => {}
            ([5, 2], Some((user, password))) => {
                // RFC 1929 §2. Both lengths were checked when the URL was parsed.
                let mut bytes = vec![1];
                for text in [user, password] {
                    bytes.push(text.len() as u8);
                    bytes.extend_from_slice(text.as_bytes());
                }
                write(&mut transport, &bytes).await?;
                if read::<2>(&mut transport).await?[1] != 0 {
                    return Err(Cause::Proxy(ProxyFailure::Credentials).into());
                }
            }
            ([5, 0xff], Some(_)) => return Err(Cause::Proxy(ProxyFailure::Credentials).into()),
            ([5, _], _) => return Err(Cause::Proxy(ProxyFailure::NoCredentials).into()),
            _ => return Err(Cause::Proxy(ProxyFailure::NotSocks).into()),
        }
        // RFC 1928 §4: version, CONNECT, reserved, and where to.
        let mut request = vec![5, 1, 0];
        destination.write(&mut request)?;
        write(&mut transport, &request).await?;
        // RFC 1928 §6: version, reply, reserved, and the address that the proxy connects from.
        let [version, reply, _, kind] = read::<4>(&mut transport).await?;
        if version != 5 {
            return Err(Cause::Proxy(ProxyFailure::NotSocks).into());
        }
        if reply != 0 {
            return Err(Cause::Proxy(ProxyFailure::Reply(reply)).into());
        }
        let length = match kind {
            1 => 4,
            3 => usize::from(read::<1>(&mut transport).await?[0]),
            4 => 16,
            _ => return Err(Cause::Proxy(ProxyFailure::NotSocks).into()),
        };
        let mut rest = [0; 255 + 2];
        transport.read_exact(&mut rest[..length + 2]).await.map_err(broken)?;
        Ok(transport)
    }
}

impl fmt::Debug for Server {
    // Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.kind.scheme(), self.host, self.port)
    }
}

/// Where SOCKS leads to.
enum Destination<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

impl Destination<'_> {
    /// RFC 1928 §5.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let port = match self {
            Self::Address(SocketAddr::V4(address)) => {
                out.push(1);
                out.extend_from_slice(&address.ip().octets());
                address.port()
            }
            Self::Address(SocketAddr::V6(address)) => {
                out.push(4);
                out.extend_from_slice(&address.ip().octets());
                address.port()
            }
            Self::Name(name, port) => {
                let length = u8::try_from(name.len());
                out.push(3);
                out.push(length.map_err(|_| Cause::Url("the URL's host is too long for a SOCKS proxy"))?);
                out.extend_from_slice(name.as_bytes());
                *port
            }
        };
        out.extend_from_slice(&port.to_be_bytes());
        Ok(())
    }
}

/// A stream of which something was read already.
struct Rewound {
    unread: Vec<u8>,
    transport: Transport,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.transport).poll_read(cx, room);
        }
        let count = self.unread.len().min(room.remaining());
        room.put_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// RFC 7617: what an `Authorization` or `Proxy-Authorization` header says.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn credentials(kind: Kind, text: &str) -> Result<(String, String), String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text| percent_decode(text).ok_or("the proxy's user and password must be percent-encoded UTF-8");
    let (user, password) = (decode(user)?, decode(password)?);
    match kind {
        // RFC 7617 §2: there the colon is what ends the user.
        Kind::Http | Kind::Https if user.contains(':') => Err("the proxy's user must not hold a colon".to_owned()),
        // RFC 1929 §2: lengths are one byte, and not zero.
        Kind::Socks5 | Kind::Socks5h if ![&user, &password].iter().all(|text| matches!(text.len(), 1..=255)) => {
            Err("a SOCKS5 proxy's user and password have 1 to 255 bytes each".to_owned())
        }
        _ => Ok((user, password)),
    }
}

async fn write(transport: &mut Transport, bytes: &[u8]) -> Result<(), Error> {
    transport.write_all(bytes).await.map_err(broken)?;
    transport.flush().await.map_err(broken)
}

async fn read<const N: usize>(transport: &mut Transport) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    transport.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(bytes)
}

/// Reads until the head is complete; where it ends.
async fn read_head(transport: &mut Transport, bytes: &mut Vec<u8>, limits: &HeadLimits) -> Result<usize, Error> {
    let mut scan = HeadScan::new();
    loop {
        match scan.find(bytes, limits) {
            Ok(Some(end)) => return Ok(end),
            Ok(None) => {}
            Err(_) => return Err(Cause::Proxy(ProxyFailure::NotHttp).into()),
        }
        bytes.reserve(ROOM);
        if transport.read_buf(bytes).await.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn broken(error: io::Error) -> Error {
    Error::io(Doing::Tunnelling, error)
}

fn invalid(wrong: String) -> Error {
    Cause::ProxySettings(wrong).into()
}

/// Interim responses that are read past before a proxy counts as broken.
const INTERIM_RESPONSES: usize = 8;

/// Bytes that there is room for at each read of a head.
const ROOM: usize = 512;
