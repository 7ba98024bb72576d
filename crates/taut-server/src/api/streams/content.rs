//! The content of a stream's response: what its connection is sent, piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use taut::{CloseCode, WebSocket};
use tokio::time::timeout;

use crate::apps::Carried;
use crate::gateway::sse;

/// The content; it asks for the next piece only when the client has taken the one before. What the shard holds for a
/// slow reader is bounded there.
pub(super) struct Content(Option<Next>);

type Next = Pin<Box<dyn Future<Output = (Stream, Option<Bytes>)> + Send>>;

/// The rest of a content.
struct Stream {
    socket: WebSocket,
    first: Bytes,
    kind: Kind,
    is_over: bool,
    _carried: Option<Carried>,
}

/// What the content is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Events of this server's: the last one tells how the stream ends.
    Events,
    /// Events of a backend's.
    ForeignEvents,
    /// Whatever a backend publishes.
    Bytes,
}

impl Kind {
    /// After how much silence a comment comes, if it may. Common proxies end a response after 60 seconds. Not all
    /// clients get theirs at once.
    fn silence(self) -> Option<Duration> {
        (self != Self::Bytes).then(|| Duration::from_millis(random(LEAST_SILENCE, MOST_SILENCE)))
    }
}

impl Content {
    /// Begins with `first`.
    pub(super) fn new(socket: WebSocket, first: Bytes, kind: Kind, carried: Option<Carried>) -> Self {
        let stream = Stream { socket, first, kind, is_over: false, _carried: carried };
        Self(Some(Box::pin(stream.next())))
    }
}

impl Stream {
    /// The next piece; `None` at the end.
    async fn next(mut self) -> (Self, Option<Bytes>) {
        let piece = if self.first.is_empty() { self.receive().await } else { Some(std::mem::take(&mut self.first)) };
        (self, piece)
    }

    async fn receive(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let received = self.socket.recv_with(|message| Bytes::copy_from_slice(message.as_bytes()));
        let received = match self.kind.silence() {
            Some(silence) => match timeout(silence, received).await {
                Ok(received) => received,
                Err(_) => return Some(Bytes::from_static(sse::KEEP_ALIVE.as_bytes())),
            },
            None => received.await,
        };
        if let Ok(Some(piece)) = received {
            return Some(piece);
        }
        self.is_over = true;
        self.last_words()
    }

    /// What the client of a stream that was closed is told. One that was cut off finds out by itself.
    fn last_words(&self) -> Option<Bytes> {
        let close = self.socket.peer_close().filter(|_| self.kind == Kind::Events)?;
        let mut text = sse::close(close.code().as_u16(), close.reason());
        if close.code() == CloseCode::SERVICE_RESTART {
            // All clients come back, and not all at once.
            text.insert_str(0, &sse::retry(retry(LATER)));
        }
        Some(text.into())
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let (stream, piece) = ready!(next.as_mut().poll(context));
        self.0 = piece.is_some().then(|| Box::pin(stream.next()) as Next);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A time from this range, in milliseconds.
pub(super) fn retry((least, most): (u64, u64)) -> u64 {
    random(least, most)
}

fn random(least: u64, most: u64) -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes all clients wait equally long, which is no error.
    let _ = getrandom::fill(&mut bytes);
    least + u64::from_ne_bytes(bytes) % (most - least + 1)
}

/// Milliseconds after which a client comes back whose connection was lost.
pub(super) const SOON: (u64, u64) = (1000, 5000);

/// The same where many clients come back, or the backend has failed.
pub(super) const LATER: (u64, u64) = (5000, 15_000);

/// Milliseconds.
const LEAST_SILENCE: u64 = 15_000;
const MOST_SILENCE: u64 = 25_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_from_their_range_and_differ() {
        let times: std::collections::BTreeSet<u64> = (0..200).map(|_| retry((5, 9))).collect();
        assert_eq!(times, (5..=9).collect());
        for kind in [Kind::Events, Kind::ForeignEvents] {
            assert!((0..100).all(|_| kind.silence().is_some_and(|silence| (15..=25).contains(&silence.as_secs()))));
        }
        assert_eq!(Kind::Bytes.silence(), None, "a comment would be part of the content");
    }
}
