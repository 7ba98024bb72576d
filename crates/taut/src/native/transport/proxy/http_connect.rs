//! A tunnel by CONNECT (RFC 9110 §9.3.6).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use taut_proto::handshake::{ClientResponse, HeadLimits, HeadScan};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Server, basic, broken, write};
use crate::error::{Cause, ProxyFailure};
use crate::native::body;
use crate::{Error, Transport};

impl Server {
    /// Asks the proxy for a tunnel to `host`. A body that says why there is none is read `within` this time.
    pub(super) async fn http_connect(
        &self,
        mut transport: Transport,
        host: &str,
        port: u16,
        within: Duration,
    ) -> Result<Transport, Error> {
        let begun = Instant::now();
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
            let (head, rest) = bytes.split_at(end);
            let Ok(response) = ClientResponse::parse(head, &limits) else {
                return Err(Cause::Proxy(ProxyFailure::NotHttp).into());
            };
            match response.status() {
                // RFC 9110 §15.2: the response that counts follows.
                100..200 => bytes = rest.to_vec(),
                // RFC 9110 §9.3.6: any of these means a tunnel, and it begins right after the head.
                200..300 if rest.is_empty() => return Ok(transport),
                200..300 => return Ok(Transport::new(Rewound { unread: rest.to_vec(), transport })),
                _ => {
                    let within = within.saturating_sub(begun.elapsed());
                    let response = body::read(&mut transport, head, &response, rest, within).await;
                    return Err(Cause::Proxy(ProxyFailure::Status(response)).into());
                }
            }
        }
        Err(Cause::Proxy(ProxyFailure::NotHttp).into())
    }
}

/// A stream of which some bytes were read already.
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

/// Interim responses that are read past before a proxy counts as broken.
const INTERIM_RESPONSES: usize = 8;

/// Bytes that there is room for at each read of a head.
const ROOM: usize = 512;
