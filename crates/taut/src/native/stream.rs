//! `Stream` and `Sink` of the `futures` crates, for what is written against them.
//!
//! Both may be driven by two tasks at once, also where nobody has called [`WebSocket::split`]: `StreamExt::split` cuts
//! anything in two. So whoever uses a connection in this way is registered as the handles of a split one are.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use taut_proto::{CloseCode, Message};

use crate::{Error, Receiver, Sender, WebSocket};

/// The messages, as [`recv`](WebSocket::recv) gives them, until the connection is closed; if it fails, the error comes
/// last.
impl Stream for WebSocket {
    type Item = Result<Message<'static>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.handle.shared_by_tasks().poll_next(cx)
    }
}

/// As that of [`WebSocket`].
impl Stream for Receiver {
    type Item = Result<Message<'static>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.handle.poll_next(cx)
    }
}

/// What is sent waits for a flush, or for 64 KiB to gather, as with [`feed`](WebSocket::feed); a sink takes no more
/// while 1 MiB or more is pending. Closing it closes the connection with code 1000 and waits for the peer's answer; as
/// with [`close`](WebSocket::close), what comes meanwhile is kept up to a bound.
///
/// # Errors
/// Those of the methods. A message whose `start_send` fails was not sent, and one whose `start_send` does not is
/// accepted whole.
impl Sink<Message<'static>> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared_by_tasks().poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, mut message: Message<'static>) -> Result<(), Error> {
        self.handle.start_send(&mut message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared_by_tasks().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared_by_tasks().poll_close(&CloseCode::NORMAL.into(), cx)
    }
}

/// As that of [`WebSocket`]. Where several Senders have found room at once, each has its one message accepted.
impl Sink<Message<'static>> for Sender {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, mut message: Message<'static>) -> Result<(), Error> {
        self.handle.start_send(&mut message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.poll_close(&CloseCode::NORMAL.into(), cx)
    }
}
