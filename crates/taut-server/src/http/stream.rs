//! A socket that has left its shard, plain or with its TLS, as tokio's streams are.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use taut_shard::tls::rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// All state is here and none in futures: whatever is dropped midway can be begun again. Of what is written, TLS holds 64
/// KiB at the most; of what is read, a record.
pub(super) struct Stream<S = TcpStream> {
    socket: S,
    tls: Option<Box<ServerConnection>>,
}

impl<S> Stream<S> {
    pub(super) fn new(socket: S, tls: Option<Box<ServerConnection>>) -> Self {
        Self { socket, tls }
    }

    /// The socket, and the TLS connection on it, live.
    pub(super) fn into_parts(self) -> (S, Option<Box<ServerConnection>>) {
        (self.socket, self.tls)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.tls {
            None => Pin::new(&mut this.socket).poll_read(context, buffer),
            Some(tls) => poll_read(tls, &mut this.socket, context, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.tls {
            None => Pin::new(&mut this.socket).poll_write_vectored(context, slices),
            Some(tls) => poll_write(tls, &mut this.socket, context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_some() || self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(tls) = &mut this.tls {
            ready!(poll_write_tls(tls, &mut this.socket, context))?;
        }
        Pin::new(&mut this.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(tls) = &mut this.tls {
            // RFC 8446 §6.1: we say that no more will come. Said once, however often it is asked for.
            tls.send_close_notify();
            ready!(poll_write_tls(tls, &mut this.socket, context))?;
        }
        Pin::new(&mut this.socket).poll_shutdown(context)
    }
}

fn poll_read<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &mut ServerConnection,
    socket: &mut S,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buffer.remaining() == 0 {
        return Poll::Ready(Ok(()));
    }
    loop {
        match tls.reader().read(buffer.initialize_unfilled()) {
            Ok(count) => {
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // RFC 8446 §6.1: an end that TLS does not know of may be somebody else's doing.
            Err(error) => return Poll::Ready(Err(error)),
        }
        // TLS may have to answer what it has read. When there is no room the task is woken, and comes by here again; what
        // is wrong is for those who write: there may still be something to read.
        let _ = poll_write_tls(tls, socket, context);
        match tls.read_tls(&mut Blocking { socket, context }) {
            // At the end of the socket the reader says in the next turn what kind of end it is.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert that says what was wrong, if the socket takes it.
            let _ = poll_write_tls(tls, socket, context);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
    }
}

fn poll_write<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &mut ServerConnection,
    socket: &mut S,
    context: &mut Context<'_>,
    slices: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if slices.iter().all(|slice| slice.is_empty()) {
        return Poll::Ready(Ok(0));
    }
    loop {
        // As much as it has room for; the rest when some of that is written.
        let count = tls.writer().write_vectored(slices)?;
        match poll_write_tls(tls, socket, context) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            // What TLS has taken leaves by a flush.
            _ if count > 0 => return Poll::Ready(Ok(count)),
            Poll::Ready(Ok(())) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Writes what TLS has to say.
fn poll_write_tls<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &mut ServerConnection,
    socket: &mut S,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while tls.wants_write() {
        match tls.write_tls(&mut Blocking { socket, context }) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// A socket that says `WouldBlock` and wakes the task: rustls reads and writes like that.
struct Blocking<'a, 'c, S> {
    socket: &'a mut S,
    context: &'a mut Context<'c>,
}

impl<S: AsyncRead + Unpin> Read for Blocking<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.socket).poll_read(self.context, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Blocking<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.context, slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;

    /// Both ends of a wire that holds this many bytes each way.
    async fn pair(held: usize) -> (Stream<DuplexStream>, TlsStream<DuplexStream>) {
        let (server, client) = settings();
        let (near, far) = duplex(held);
        let mut near = Stream::new(near, Some(Box::new(ServerConnection::new(server).unwrap())));
        let connect = async {
            let name = ServerName::try_from("a.example").unwrap();
            let mut client = TlsConnector::from(client).connect(name, far).await.unwrap();
            client.write_all(b"!").await.unwrap();
            client.flush().await.unwrap();
            client
        };
        let (first, client) = tokio::join!(near.read_u8(), connect);
        assert_eq!(first.unwrap(), b'!');
        (near, client)
    }

    fn settings() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.into()], key).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    /// What a call gives at once; it is dropped if it waits.
    async fn once<T>(call: impl Future<Output = io::Result<T>>) -> Option<T> {
        tokio::select! {
            biased;
            outcome = call => Some(outcome.unwrap()),
            () = std::future::ready(()) => None,
        }
    }

    fn body(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| (n % 251) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_at_once_over_a_wire_of_any_size() {
        for held in [1, 7, 1000, 1 << 20] {
            let (near, far) = pair(held).await;
            let count = if held < 1000 { 40_000 } else { 3_000_000 };
            let sent = body(count);
            let (mut near_reader, mut near_writer) = tokio::io::split(near);
            let (mut far_reader, mut far_writer) = tokio::io::split(far);
            let (mut there, mut back) = (vec![0; count], vec![0; count]);
            tokio::try_join!(
                async {
                    near_writer.write_all(&sent).await?;
                    near_writer.flush().await
                },
                async {
                    far_writer.write_all(&sent).await?;
                    far_writer.flush().await
                },
                async { near_reader.read_exact(&mut there).await.map(drop) },
                async { far_reader.read_exact(&mut back).await.map(drop) },
            )
            .unwrap();
            assert!(there == sent && back == sent, "{held} bytes on the wire");
        }
    }

    #[tokio::test]
    async fn an_end_is_told_by_tls_in_both_directions() {
        let (mut near, mut far) = pair(10).await;
        let (shut, read) = tokio::join!(near.shutdown(), async {
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.map(|_| rest)
        });
        shut.unwrap();
        assert_eq!(read.unwrap(), b"", "an end without a close_notify would be an error");
        // A half that is closed does not close the other.
        let (sent, heard) = tokio::join!(
            async {
                far.write_all(b"still here").await?;
                far.shutdown().await
            },
            async {
                let mut heard = Vec::new();
                near.read_to_end(&mut heard).await.map(|_| heard)
            }
        );
        sent.unwrap();
        assert_eq!(heard.unwrap(), b"still here");
    }

    #[tokio::test]
    async fn an_end_that_is_not_told_by_tls_is_an_error() {
        let (mut near, far) = pair(1000).await;
        drop(far.into_inner());
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_is_no_tls_is_an_error_and_told_by_an_alert() {
        let (mut near, far) = pair(1000).await;
        let (mut wire, _) = far.into_inner();
        wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(near);
        let mut told = Vec::new();
        wire.read_to_end(&mut told).await.unwrap();
        assert!(!told.is_empty());
    }

    #[tokio::test]
    async fn what_is_written_is_held_up_to_a_bound() {
        let (mut near, _far) = pair(1000).await;
        let mut taken = 0;
        let bytes = body(10_000);
        // Nobody reads.
        while let Some(count) = once(near.write(&bytes)).await {
            taken += count;
            assert!(taken < 100_000);
        }
        assert!(taken >= 10_000);
    }

    #[tokio::test]
    async fn calls_that_are_dropped_midway_lose_nothing() {
        let (mut near, far) = pair(50).await;
        let sent = body(200_000);
        let (mut far_reader, mut far_writer) = tokio::io::split(far);
        let echo = tokio::spawn(async move {
            let count = tokio::io::copy(&mut far_reader, &mut far_writer).await.unwrap();
            far_writer.shutdown().await.unwrap();
            count
        });
        let (mut written, mut heard) = (0, Vec::new());
        while heard.len() < sent.len() {
            if written < sent.len() {
                written += once(near.write(&sent[written..])).await.unwrap_or(0);
            }
            once(near.flush()).await;
            let mut buffer = [0; 300];
            let count = once(near.read(&mut buffer)).await.unwrap_or(0);
            heard.extend_from_slice(&buffer[..count]);
            // The other end has its turn.
            tokio::task::yield_now().await;
        }
        near.flush().await.unwrap();
        near.shutdown().await.unwrap();
        assert!(heard == sent);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(echo.await.unwrap(), sent.len() as u64);
    }
}
