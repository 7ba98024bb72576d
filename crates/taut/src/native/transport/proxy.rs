//! Through a proxy: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC 1929).

mod environment;
mod http_connect;
mod socks5;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;

use super::{Transport, tcp};
use crate::Error;
use crate::error::{Cause, Doing};
#[cfg(feature = "tls")]
use crate::native::tls::ClientTls;
use crate::native::url::{percent_decode, split_authority};
use environment::Environment;
use socks5::Destination;

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

    /// Takes the proxy from the environment, as other programs do: `HTTPS_PROXY` for `wss://` URLs, `HTTP_PROXY` for
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

    /// Makes a tunnel to `host` of a connection to the proxy, or says `within` this time why there is none.
    pub(crate) async fn tunnel(
        &self,
        transport: Transport,
        host: &str,
        port: u16,
        within: Duration,
    ) -> Result<Transport, Error> {
        match self.kind {
            Kind::Http => self.http_connect(transport, host, port, within).await,
            #[cfg(feature = "tls")]
            Kind::Https => {
                let secure = self.tls.connect(&self.host, transport).await?;
                self.http_connect(Transport::over_tls(secure), host, port, within).await
            }
            #[cfg(not(feature = "tls"))]
            Kind::Https => unreachable!("refused when it was parsed"),
            Kind::Socks5 => {
                let addresses = tcp::lookup(host, port).await?;
                // There is one attempt, and version 4 is what every proxy can do.
                let four = addresses.iter().find(|address| address.is_ipv4()).unwrap_or(&addresses[0]);
                self.socks5(transport, Destination::Address(*four)).await
            }
            Kind::Socks5h => {
                let destination = match host.parse::<IpAddr>() {
                    Ok(address) => Destination::Address(SocketAddr::new(address, port)),
                    Err(_) => Destination::Name(host, port),
                };
                self.socks5(transport, destination).await
            }
        }
    }
}

impl fmt::Debug for Server {
    // Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.kind.scheme(), self.host, self.port)
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

fn broken(error: io::Error) -> Error {
    Error::io(Doing::Tunnelling, error)
}

fn invalid(wrong: String) -> Error {
    Cause::ProxySettings(wrong).into()
}
