//! A connection as tokio sees it, with what was read and not used and what is still to be written.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use taut_shard::Handover;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::stream::Stream;

/// A connection. All state is here and none in futures, and none of its calls waits.
pub(super) struct Conn<S = TcpStream> {
    stream: Stream<S>,
    /// What was read, from `used` on not used.
    input: Vec<u8>,
    used: usize,
    /// The peer has ended its side.
    is_at_end: bool,
    output: VecDeque<Bytes>,
    output_bytes: usize,
    /// All that was written has left for the socket.
    is_flushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// `input` was read before.
    pub(super) fn new(input: Vec<u8>, stream: Stream<S>) -> Self {
        Self { stream, input, used: 0, is_at_end: false, output: VecDeque::new(), output_bytes: 0, is_flushed: true }
    }

    /// What was read and not used.
    pub(super) fn input(&self) -> &[u8] {
        &self.input[self.used..]
    }

    pub(super) fn use_input(&mut self, count: usize) {
        self.used += count;
        if self.used >= self.input.len() {
            // Whoever waits for more holds nothing meanwhile.
            (self.input, self.used) = (Vec::new(), 0);
        }
    }

    /// Whether the peer has ended its side.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Reads once; how many bytes, 0 at the end. Whether TLS was told of the end does not matter: a request says itself where it
    /// ends.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut room);
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            return Poll::Ready(Err(error));
        }
        let read = buffer.filled();
        self.input.extend_from_slice(read);
        self.is_at_end |= read.is_empty();
        Poll::Ready(Ok(read.len()))
    }

    /// Bytes that are still to be written.
    pub(super) fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.output_bytes += bytes.len();
            self.output.push_back(bytes);
        }
    }

    /// Writes what there is until the socket takes no more. Ready once all has left.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output_bytes > 0 {
            self.is_flushed = false;
            let mut slices = [io::IoSlice::new(&[]); SLICES];
            let count = self.output.len().min(SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.output) {
                *slice = io::IoSlice::new(bytes);
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, mut count: usize) {
        self.output_bytes -= count;
        while let Some(front) = self.output.front_mut() {
            if count < front.len() {
                drop(front.split_to(count));
                return;
            }
            count -= front.len();
            self.output.pop_front();
        }
    }

    /// Ends our side.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Conn {
    /// Takes a connection over that has left its shard.
    pub(super) fn of(handover: Handover) -> io::Result<Self> {
        let Handover { stream, tls, bytes, .. } = handover;
        Ok(Self::new(bytes, Stream::new(TcpStream::from_std(stream)?, tls)))
    }

    /// Lets it go, with what was read and not used.
    pub(super) fn into_handover(mut self, peer: SocketAddr) -> io::Result<Handover> {
        self.input.drain(..self.used);
        let (stream, tls) = self.stream.into_parts();
        Ok(Handover { stream: stream.into_std()?, tls, bytes: self.input, peer })
    }
}

/// Bytes of one read.
const READ: usize = 16 << 10;

/// Pieces of one write.
const SLICES: usize = 16;
