//! An open WebSocket, whole or in several tasks.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;

use taut_proto::{Close, Message};

use super::link::Link;
use crate::Error;

/// An open WebSocket of the browser ([`connect`](crate::connect)).
///
/// The browser moves its bytes, whether or not one of these methods is awaited. It also answers pings; it sends none,
/// and shows none to a page: to notice a peer that is gone is the server's affair, or takes messages of the
/// application's own. Messages have no limit in size but the browser's.
///
/// Dropping it closes it, with a close frame without a code. [`close`](Self::close) is the polite way.
pub struct WebSocket {
    link: Rc<Link>,
}

impl WebSocket {
    pub(crate) fn new(link: Link) -> Self {
        Self { link: Rc::new(link) }
    }

    /// The next message; `None` once the connection is closed, by either side, and everything that came before is
    /// received.
    ///
    /// A browser cannot be made to stop reading: when 1,024 messages or 1 MiB wait and more comes, the connection is
    /// closed with the code 4013, which stands for the 1013 that a page may not send.
    ///
    /// # Errors
    /// When the connection broke ([`is_io`](Error::is_io)), or too much came ([`is_full`](Error::is_full)); what came
    /// before is received first.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Result<Option<Message<'static>>, Error> {
        poll_fn(|cx| self.link.poll_recv(cx)).await
    }

    /// Receives like [`recv`](Self::recv), but gives the message to `receive`, as natively.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv_with<T>(&mut self, receive: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, Error> {
        self.link.recv_with(receive).await
    }

    /// Sends a message: text from a string, binary from bytes, of any kind that [`Message`] lists.
    ///
    /// Waits while 1 MiB or more of earlier messages are pending. As no event tells that, it looks every 10
    /// milliseconds (every second in a page that is not shown). Then the browser has the message and writes it.
    ///
    /// # Errors
    /// When the connection is closed or has failed; the message was not sent.
    ///
    /// # Cancel safety
    /// All or nothing: a call that is dropped before it is done has sent nothing of its message.
    pub async fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.link.send(&message.into()).await
    }

    /// Sends a message at once or not at all.
    ///
    /// # Errors
    /// [`is_full`](Error::is_full) when 1 MiB or more of earlier messages are pending. The message was not sent.
    pub fn try_send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.link.try_send(&message.into())
    }

    /// Waits until everything sent so far has been handed to the network; seldom needed, as the browser writes by
    /// itself.
    ///
    /// # Errors
    /// When the connection is closed or has failed.
    ///
    /// # Cancel safety
    /// What is not yet written stays pending.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.link.flush().await
    }

    /// Closes the connection: writes everything pending and a close frame, then waits for the peer's, at most for 5
    /// seconds.
    ///
    /// `close` is a code, [`CloseCode::NORMAL`](crate::CloseCode::NORMAL) or one of 3000 to 4999, as a page may send no
    /// other, or a [`Close`] with a reason. When the close has begun already, by either side, it is seen through and
    /// `close` goes unused.
    ///
    /// Messages that come before the peer's close frame are kept for [`recv`](Self::recv), 1,024 or 1 MiB of them;
    /// beyond that they are discarded.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the deadline passed. Otherwise when the connection had failed or did so
    /// now, or ([`is_invalid`](Error::is_invalid)) when a page must not send the code.
    ///
    /// # Cancel safety
    /// Safe and repeatable: once polled, the close has begun, and the next `close` or `recv` goes on with it.
    pub async fn close(&mut self, close: impl Into<Close>) -> Result<(), Error> {
        self.link.close(&close.into()).await
    }

    /// Whether a message could still be sent: neither side has begun to close, and the connection has not failed.
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// The subprotocol that the handshake has selected.
    pub fn subprotocol(&self) -> Option<&str> {
        self.link.subprotocol()
    }

    /// What the peer's close frame said, once the connection is closed.
    pub fn peer_close(&self) -> Option<Close> {
        self.link.peer_close()
    }

    /// Bytes that were sent and are not yet handed to the network.
    pub fn pending(&self) -> usize {
        self.link.pending()
    }

    /// Splits it into two handles, for two tasks or more: a [`Sender`] can be cloned and sends through `&self`.
    ///
    /// The connection ends when it is closed, or when all of them are dropped.
    pub fn split(self) -> (Sender, Receiver) {
        (Sender { link: Rc::clone(&self.link) }, Receiver { link: self.link })
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
    }
}

/// Sends on a [`WebSocket`] that was [split](WebSocket::split); clones send on the same one.
#[derive(Clone)]
pub struct Sender {
    link: Rc<Link>,
}

impl Sender {
    /// Sends a message, as [`WebSocket::send`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// All or nothing: a call that is dropped before it is done has sent nothing of its message.
    pub async fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.link.send(&message.into()).await
    }

    /// Sends a message at once or not at all.
    ///
    /// # Errors
    /// [`is_full`](Error::is_full) when 1 MiB or more of earlier messages are pending. The message was not sent.
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.link.try_send(&message.into())
    }

    /// Waits until everything sent so far, by any handle, has been handed to the network.
    ///
    /// # Errors
    /// When the connection is closed or has failed.
    ///
    /// # Cancel safety
    /// What is not yet written stays pending.
    pub async fn flush(&self) -> Result<(), Error> {
        self.link.flush().await
    }

    /// Closes the connection, for all handles, as [`WebSocket::close`] does. The [`Receiver`] receives what came
    /// before, then `None`.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Safe and repeatable: once polled, the close has begun.
    pub async fn close(&self, close: impl Into<Close>) -> Result<(), Error> {
        self.link.close(&close.into()).await
    }

    /// Whether a message could still be sent: neither side has begun to close, and the connection has not failed.
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// Bytes that were sent and are not yet handed to the network.
    pub fn pending(&self) -> usize {
        self.link.pending()
    }

    /// The subprotocol that the handshake has selected.
    pub fn subprotocol(&self) -> Option<&str> {
        self.link.subprotocol()
    }

    /// What the peer's close frame said, once the connection is closed.
    pub fn peer_close(&self) -> Option<Close> {
        self.link.peer_close()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// Receives from a [`WebSocket`] that was [split](WebSocket::split).
pub struct Receiver {
    link: Rc<Link>,
}

impl Receiver {
    /// The next message, as [`WebSocket::recv`] gives it; `None` after a clean close.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Result<Option<Message<'static>>, Error> {
        poll_fn(|cx| self.link.poll_recv(cx)).await
    }

    /// Receives like [`recv`](Self::recv), but gives the message to `receive`, as natively.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv_with<T>(&mut self, receive: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, Error> {
        self.link.recv_with(receive).await
    }

    /// Another handle to send with.
    pub fn sender(&self) -> Sender {
        Sender { link: Rc::clone(&self.link) }
    }

    /// What the peer's close frame said, once the connection is closed.
    pub fn peer_close(&self) -> Option<Close> {
        self.link.peer_close()
    }

    /// The subprotocol that the handshake has selected.
    pub fn subprotocol(&self) -> Option<&str> {
        self.link.subprotocol()
    }

    /// Whether a message could still be sent: neither side has begun to close, and the connection has not failed.
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
