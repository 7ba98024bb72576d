//! One WebSocket in several tasks.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use taut_proto::{Close, Message};

use crate::native::driver::Driver;
use crate::native::shared::Handle;
use crate::{Error, Transport};

/// Sends on a [`WebSocket`](crate::WebSocket) that was [split](crate::WebSocket::split); clones send on the same one.
///
/// Messages of one task arrive in the order in which it sent them. A task that waits in a call does the connection's
/// work meanwhile, and hands it on when the call is dropped: no future takes another one's wake-up with it.
///
/// The heartbeat and the answers to pings need somebody who waits in [`Receiver::recv`]
/// (see [the crate](crate#somebody-must-poll)).
pub struct Sender {
    pub(crate) handle: Handle,
}

impl Sender {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Sends a message, as [`WebSocket::send`](crate::WebSocket::send) does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// All or nothing: a call that is dropped before it is done has sent nothing of its message.
    // Not an `async fn`: that would keep what `message` was made of as well, and a task would be larger by as much.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> impl Future<Output = Result<(), Error>> {
        let mut message = message.into();
        poll_fn(move |cx| self.handle.poll_send(&mut message, cx))
    }

    /// Sends a message at once or not at all: for a broadcast that must not wait for the slowest receiver.
    ///
    /// # Errors
    /// [`is_full`](Error::is_full) when 1 MiB or more of earlier messages are pending. The message was not sent.
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.handle.try_send(&mut message.into())
    }

    /// Queues a message without writing it until another call does, or 64 KiB have gathered. Waits like
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// All or nothing.
    // Not an `async fn`: that would keep what `message` was made of as well, and a task would be larger by as much.
    pub fn feed<'m>(&self, message: impl Into<Message<'m>>) -> impl Future<Output = Result<(), Error>> {
        let mut message = message.into();
        poll_fn(move |cx| self.handle.poll_feed(&mut message, cx))
    }

    /// Waits until everything sent so far, by any handle, has been handed to the transport.
    ///
    /// # Errors
    /// When the connection has failed.
    ///
    /// # Cancel safety
    /// What is not yet written stays pending.
    pub async fn flush(&self) -> Result<(), Error> {
        poll_fn(|cx| self.handle.poll_flush(cx)).await
    }

    /// Sends a ping, as [`WebSocket::ping`](crate::WebSocket::ping) does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// It never waits: once polled, it is done.
    pub async fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        poll_fn(|_| self.handle.ping(payload).into()).await
    }

    /// Sends a pong that no ping has asked for, with a payload of at most 125 bytes: a heartbeat that asks for no answer
    /// (RFC 6455 §5.5.3). Pings are answered without it.
    ///
    /// It waits behind what was sent before.
    ///
    /// # Errors
    /// As [`ping`](Self::ping), and when too much is waiting for the peer to read ([`is_full`](Error::is_full)).
    ///
    /// # Cancel safety
    /// It never waits: once polled, it is done.
    pub async fn pong(&self, payload: &[u8]) -> Result<(), Error> {
        poll_fn(|_| self.handle.pong(payload).into()).await
    }

    /// Closes the connection, for all handles, as [`WebSocket::close`](crate::WebSocket::close) does. The
    /// [`Receiver`] receives what came before, then `None`.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Safe and repeatable: once polled, the close has begun, and any later call continues it.
    pub async fn close(&self, close: impl Into<Close>) -> Result<(), Error> {
        let close = close.into();
        poll_fn(|cx| self.handle.poll_close(&close, cx)).await
    }

    /// Begins to close the connection and returns at once: the close frame is queued behind what is pending. Receiving
    /// goes on until the peer's close frame, and sees the close through, within the close timeout. Unlike with
    /// [`close`](Self::close) no message is discarded, however many come before that frame.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the code must not be sent.
    pub fn begin_close(&self, close: impl Into<Close>) -> Result<(), Error> {
        self.handle.begin_valid_close(&close.into())
    }

    /// Whether a message could still be sent: neither side has begun to close, and the connection has not failed.
    pub fn is_open(&self) -> bool {
        self.handle.look(Driver::is_open)
    }

    /// Bytes that were sent and are not yet handed to the transport.
    pub fn pending(&self) -> usize {
        self.handle.look(Driver::pending)
    }

    /// The round-trip time of the last heartbeat ping that was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.handle.look(Driver::round_trip)
    }

    /// The subprotocol that the handshake has selected.
    pub fn subprotocol(&self) -> Option<&str> {
        self.handle.subprotocol()
    }

    /// What the peer's close frame said, once it has come.
    pub fn peer_close(&self) -> Option<Close> {
        self.handle.look(|driver| driver.peer_close().cloned())
    }

    /// The peer's address, if the connection is TCP; with a proxy, the proxy's.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.transport(Transport::peer_addr)
    }

    /// Lends the underlying stream, as [`WebSocket::transport`](crate::WebSocket::transport) does.
    pub fn transport<T>(&self, look: impl FnOnce(&Transport) -> T) -> T {
        self.handle.look(|driver| look(driver.stream()))
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self { handle: self.handle.share() }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// Receives from a [`WebSocket`](crate::WebSocket) that was [split](crate::WebSocket::split).
pub struct Receiver {
    pub(crate) handle: Handle,
}

impl Receiver {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The next message, as [`WebSocket::recv`](crate::WebSocket::recv) gives it; `None` after a clean close.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Result<Option<Message<'static>>, Error> {
        poll_fn(|cx| self.handle.poll_recv(cx)).await
    }

    /// Receives a message and lends it to `receive`, as [`WebSocket::recv_with`](crate::WebSocket::recv_with) does.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost: once `receive` is called, its result is returned.
    pub async fn recv_with<T>(&mut self, receive: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, Error> {
        self.handle.recv_with(receive).await
    }

    /// Another handle to send with.
    pub fn sender(&self) -> Sender {
        Sender::new(self.handle.share())
    }

    /// Whether a message could still be sent: neither side has begun to close, and the connection has not failed.
    pub fn is_open(&self) -> bool {
        self.handle.look(Driver::is_open)
    }

    /// The round-trip time of the last heartbeat ping that was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.handle.look(Driver::round_trip)
    }

    /// The subprotocol that the handshake has selected.
    pub fn subprotocol(&self) -> Option<&str> {
        self.handle.subprotocol()
    }

    /// What the peer's close frame said, once it has come.
    pub fn peer_close(&self) -> Option<Close> {
        self.handle.look(|driver| driver.peer_close().cloned())
    }

    /// The peer's address, if the connection is TCP; with a proxy, the proxy's.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.transport(Transport::peer_addr)
    }

    /// Lends the underlying stream, as [`WebSocket::transport`](crate::WebSocket::transport) does.
    pub fn transport<T>(&self, look: impl FnOnce(&Transport) -> T) -> T {
        self.handle.look(|driver| look(driver.stream()))
    }
}

#[cfg(feature = "testing")]
impl Receiver {
    pub(crate) fn discarded(&self) -> usize {
        self.handle.look(Driver::discarded)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
