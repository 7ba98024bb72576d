//! What a WebSocket runs over.

pub(crate) mod proxy;
pub(crate) mod tcp;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::native::tls::{TlsInfo, TlsStream};

/// The stream under a [`WebSocket`](crate::WebSocket): a TCP connection, TLS over one, or any other stream that it was
/// opened over.
///
/// One type for all, so that a function that takes a WebSocket need not name its stream.
pub struct Transport(Kind);

enum Kind {
    Tcp(TcpStream),
    /// Boxed: it is large, and few programs have nothing but TLS.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<Transport>>),
    Other {
        /// In a lock that nobody takes, since it is reached by `&mut` alone: with it a `Transport` is `Sync`, whatever
        /// the stream is.
        stream: Mutex<Box<dyn Stream>>,
        is_write_vectored: bool,
    },
}

/// Any stream of bytes that may move from thread to thread.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Transport {
    /// Wraps any stream: a Unix socket, a tunnel, TLS of your own. For a [`TcpStream`] prefer `From`, which saves a
    /// virtual call on every read and write.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let is_write_vectored = stream.is_write_vectored();
        Self(Kind::Other { stream: Mutex::new(Box::new(stream)), is_write_vectored })
    }

    /// The peer's address, if the connection is TCP; with a proxy, the proxy's.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }

    /// Our own address, if the connection is TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.local_addr().ok()
    }

    /// The TCP connection at the bottom, such as to set its options. Reading or writing it breaks the WebSocket.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Kind::Tcp(stream) => Some(stream),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.get_ref().0.tcp(),
            Kind::Other { .. } => None,
        }
    }

    /// The result of the TLS handshake: the peer's certificates, and on a server the name that the client asked for.
    /// `None` without TLS, and for TLS of your own.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<TlsInfo> {
        match &self.0 {
            Kind::Tls(stream) => Some(TlsInfo::of(stream)),
            Kind::Tcp(_) | Kind::Other { .. } => None,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn over_tls(stream: TlsStream<Self>) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Stream> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => Pin::new(&mut **stream),
            Kind::Other { stream, .. } => Pin::new(&mut **stream.get_mut().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The usual case without a call through a table.
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, room),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, room),
            Kind::Other { .. } => self.stream().poll_read(cx, room),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
            Kind::Other { .. } => self.stream().poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.is_write_vectored(),
            Kind::Other { is_write_vectored, .. } => *is_write_vectored,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(stream) => f.debug_tuple("Tcp").field(stream).finish(),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => f.debug_tuple("Tls").field(stream.get_ref().0).finish(),
            Kind::Other { .. } => f.debug_tuple("Other").finish_non_exhaustive(),
        }
    }
}
