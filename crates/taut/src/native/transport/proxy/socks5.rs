//! A tunnel by SOCKS5 (RFC 1928), with user and password if the proxy asks for them (RFC 1929).

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use super::{Server, broken, write};
use crate::error::{Cause, ProxyFailure};
use crate::{Error, Transport};

impl Server {
    /// Asks the proxy for a tunnel to `destination`.
    pub(super) async fn socks5(
        &self,
        mut transport: Transport,
        destination: Destination<'_>,
    ) -> Result<Transport, Error> {
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

/// Where SOCKS leads to.
pub(super) enum Destination<'a> {
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

async fn read<const N: usize>(transport: &mut Transport) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    transport.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(bytes)
}
