//! Where a FastCGI server listens.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// A Unix socket or a TCP port, written as `fastcgi:///run/php/php-fpm.sock` or `fastcgi://127.0.0.1:9000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// An IPv6 address has no brackets here.
    Tcp {
        host: String,
        port: u16,
    },
}

impl Address {
    /// # Errors
    /// When the text is not an address; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidAddress::Scheme)?;
        if rest.starts_with('/') { unix(rest) } else { tcp(rest) }
    }

    /// Whether only this machine can be there. Whoever reaches a TCP port of php-fpm can run code there, and whoever
    /// listens at the address sees the requests.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(address) => address.to_canonical().is_loopback(),
                // RFC 6761 §6.3: the name always stands for the loopback addresses.
                Err(_) => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "{SCHEME}{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "{SCHEME}[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{SCHEME}{host}:{port}"),
        }
    }
}

fn unix(path: &str) -> Result<Address, InvalidAddress> {
    if path.ends_with('/') {
        return Err(InvalidAddress::Directory);
    }
    if path.contains(['?', '#']) {
        return Err(InvalidAddress::Query);
    }
    check_path(path)?;
    Ok(Address::Unix(path.into()))
}

/// The system has a say in how long a path may be.
#[cfg(unix)]
fn check_path(path: &str) -> Result<(), InvalidAddress> {
    std::os::unix::net::SocketAddr::from_pathname(path).map(drop).map_err(|_| InvalidAddress::Path)
}

#[cfg(not(unix))]
fn check_path(_: &str) -> Result<(), InvalidAddress> {
    Err(InvalidAddress::NoUnix)
}

fn tcp(rest: &str) -> Result<Address, InvalidAddress> {
    if rest.contains(['/', '?', '#']) {
        return Err(InvalidAddress::Slashes);
    }
    let (host, port) = rest.rsplit_once(':').ok_or(InvalidAddress::Port)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) if host.parse::<Ipv6Addr>().is_ok() => host,
        None if is_name(host) => host,
        _ => return Err(InvalidAddress::Host),
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|&port| is_number && port != 0).ok_or(InvalidAddress::Port)?;
    Ok(Address::Tcp { host: host.to_owned(), port })
}

/// A DNS name, an IPv4 address, or the name of a container, which may have an underscore.
fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// A text that is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidAddress {
    Scheme,
    Directory,
    Query,
    Path,
    #[cfg(not(unix))]
    NoUnix,
    Slashes,
    Host,
    Port,
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Scheme => "a FastCGI address starts with `fastcgi://`",
            Self::Directory => "the path of a Unix socket must not end in a slash",
            Self::Query => "the path of a Unix socket must not contain `?` or `#`",
            Self::Path => "the path of the Unix socket is too long, or has a null byte",
            #[cfg(not(unix))]
            Self::NoUnix => "this system has no Unix sockets: name a host and a port",
            Self::Slashes => "a host is followed by a port only; a Unix socket has three slashes: `fastcgi:///run/…`",
            Self::Host => "the host must be a name or an IP address, IPv6 in brackets: `fastcgi://[::1]:9000`",
            Self::Port => "the address must end in a port from 1 to 65535, such as `:9000`",
        })
    }
}

impl std::error::Error for InvalidAddress {}

const SCHEME: &str = "fastcgi://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_sockets_and_tcp_ports_are_addresses() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        for (text, address, is_local) in [
            ("fastcgi:///run/php/php-fpm.sock", Address::Unix("/run/php/php-fpm.sock".into()), true),
            ("fastcgi://127.0.0.1:9000", tcp("127.0.0.1", 9000), true),
            ("fastcgi://127.9.9.9:1", tcp("127.9.9.9", 1), true),
            ("fastcgi://[::1]:9000", tcp("::1", 9000), true),
            ("fastcgi://[::ffff:127.0.0.1]:9000", tcp("::ffff:127.0.0.1", 9000), true),
            ("fastcgi://localhost:65535", tcp("localhost", 65535), true),
            ("fastcgi://my_php-8.internal:9000", tcp("my_php-8.internal", 9000), false),
            ("fastcgi://10.0.0.1:9000", tcp("10.0.0.1", 9000), false),
            ("fastcgi://0.0.0.0:9000", tcp("0.0.0.0", 9000), false),
            ("fastcgi://[2001:db8::1]:9000", tcp("2001:db8::1", 9000), false),
        ] {
            let parsed = Address::parse(text).expect(text);
            assert_eq!((&parsed, parsed.is_local()), (&address, is_local), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let long = format!("fastcgi:///{}", "x".repeat(200));
        for (text, error) in [
            ("", InvalidAddress::Scheme),
            ("/run/php-fpm.sock", InvalidAddress::Scheme),
            ("http://127.0.0.1:9000", InvalidAddress::Scheme),
            ("fastcgi:///", InvalidAddress::Directory),
            ("fastcgi:///run/", InvalidAddress::Directory),
            ("fastcgi:///run/php.sock?x", InvalidAddress::Query),
            ("fastcgi:///run/php.sock#x", InvalidAddress::Query),
            ("fastcgi:///run/p\0hp", InvalidAddress::Path),
            (&long, InvalidAddress::Path),
            ("fastcgi://run/php/php-fpm.sock", InvalidAddress::Slashes),
            ("fastcgi://127.0.0.1:9000/", InvalidAddress::Slashes),
            ("fastcgi://127.0.0.1:9000?x", InvalidAddress::Slashes),
            ("fastcgi://", InvalidAddress::Port),
            ("fastcgi://127.0.0.1", InvalidAddress::Port),
            ("fastcgi://127.0.0.1:", InvalidAddress::Port),
            ("fastcgi://127.0.0.1:0", InvalidAddress::Port),
            ("fastcgi://127.0.0.1:65536", InvalidAddress::Port),
            ("fastcgi://127.0.0.1:+9000", InvalidAddress::Port),
            ("fastcgi://:9000", InvalidAddress::Host),
            ("fastcgi://::1:9000", InvalidAddress::Host),
            ("fastcgi://[::1:9000", InvalidAddress::Host),
            ("fastcgi://[127.0.0.1]:9000", InvalidAddress::Host),
            ("fastcgi://user@php:9000", InvalidAddress::Host),
            ("fastcgi://p p:9000", InvalidAddress::Host),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
        assert!(InvalidAddress::Slashes.to_string().contains("three slashes"));
    }
}
