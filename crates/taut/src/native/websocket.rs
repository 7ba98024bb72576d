//! An open WebSocket.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::deflate::NegotiatedDeflate;
use taut_proto::{Close, Message, Role, Settings};

use crate::error::Cause;
use crate::native::driver::Driver;
use crate::native::shared::Handle;
use crate::{Error, Receiver, Response, Sender, Transport};

/// An open WebSocket, as a client ([`connect`](crate::connect)) or as a server ([`accept`](crate::accept)).
///
/// It owns its stream and has no task: what it does, it does while one of its methods is awaited (see
/// [the crate](crate#somebody-must-poll)). Each of them can be dropped before it is done, in `tokio::select!` or under
/// a timeout; what that means stands on each.
///
/// Dropping it drops the stream without a close frame; the peer sees code 1006. [`close`](Self::close) is the polite
/// way.
///
/// An idle one owns no buffers: the thread lends them.
pub struct WebSocket {
    pub(crate) handle: Handle,
}

impl WebSocket {
    /// What a finished handshake has led to; `unread` came behind it, and a client has the `response`.
    pub(crate) fn open(
        transport: Transport,
        role: Role,
        settings: Arc<Settings>,
        deflate: Option<NegotiatedDeflate>,
        subprotocol: Option<&str>,
        response: Option<Response>,
        unread: Vec<u8>,
    ) -> Result<Self, Error> {
        let random = getrandom::u32().map_err(|error| Error::from(Cause::Random(error)))?;
        let driver = Driver::new(transport, role, settings, deflate, random, unread);
        let handle = Handle::new(driver, subprotocol, response);
        if role == Role::Server {
            handle.adopt();
        }
        Ok(Self { handle })
    }

    /// The next message; `None` once the connection is closed, by either side, and everything that came before is
    /// received.
    ///
    /// Writes everything pending before it waits, answers pings, and sends the heartbeat's. After the peer's close
    /// frame it sees the close through: the answer written, the TCP connection ended, within the close timeout
    /// ([`Settings::close_timeout`]).
    ///
    /// # Errors
    /// When the peer breaks the protocol, falls silent, or the stream breaks; what came before is received first.
    ///
    /// # Cancel safety
    /// Nothing is lost: what has been read stays here, and the next call goes on where this one was dropped.
    pub async fn recv(&mut self) -> Result<Option<Message<'static>>, Error> {
        poll_fn(|cx| self.handle.poll_recv(cx)).await
    }

    /// Receives like [`recv`](Self::recv), but lends the message to `receive`, which saves an allocation for short
    /// messages that are parsed or forwarded and not kept.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost: once `receive` is called, its result is returned.
    pub async fn recv_with<T>(&mut self, receive: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, Error> {
        self.handle.recv_with(receive).await
    }

    /// Sends a message: text from a string, binary from bytes, of any kind that [`Message`] lists.
    ///
    /// Waits while 1 MiB or more of earlier messages are pending, and reads meanwhile, so that two peers that both
    /// write do not wait for each other: up to 1,024 messages or 1 MiB are kept for [`recv`](Self::recv), besides those
    /// that it has begun to give out. Then the message is accepted, what the stream takes at once is written, and the
    /// rest is pending: whatever is awaited next on this connection writes it. When nothing will be for a while,
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the connection is closed or has failed. Also ([`is_timeout`](Error::is_timeout)) when the peer reads
    /// nothing for 20 seconds while as much as is kept waits for `recv`: then neither side reads; the connection is as
    /// it was, and `recv` may get it going again. In every case the message was not sent.
    ///
    /// # Cancel safety
    /// All or nothing, and one can tell: a call that is dropped before it is done has sent nothing of its message.
    // Not an `async fn`: that would keep what `message` was made of as well, and a task would be larger by as much.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> impl Future<Output = Result<(), Error>> {
        let mut message = message.into();
        poll_fn(move |cx| self.handle.poll_send_and_keep(&mut message, cx))
    }

    /// Sends a message at once or not at all; what the stream does not take is pending, as with [`send`](Self::send).
    ///
    /// # Errors
    /// [`is_full`](Error::is_full) when 1 MiB or more of earlier messages are pending. The message was not sent.
    pub fn try_send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.handle.try_send(&mut message.into())
    }

    /// Queues a message without writing it: [`flush`](Self::flush), another `send`, or a [`recv`](Self::recv) that
    /// waits writes it, or the call with which 64 KiB have gathered. For many messages at once; waits like
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// All or nothing.
    // Not an `async fn`: that would keep what `message` was made of as well, and a task would be larger by as much.
    pub fn feed<'m>(&mut self, message: impl Into<Message<'m>>) -> impl Future<Output = Result<(), Error>> {
        let mut message = message.into();
        poll_fn(move |cx| self.handle.poll_feed(&mut message, cx))
    }

    /// Sends a ping with a payload of at most 125 bytes; the peer's pong is reported to
    /// [`Client::trace`](crate::Client::trace) alone. The heartbeat needs no such call.
    ///
    /// While much is pending the ping goes ahead of it, and a second takes the first one's place.
    ///
    /// # Errors
    /// When the payload is too long ([`is_invalid`](Error::is_invalid)), or the connection is closed or has failed.
    ///
    /// # Cancel safety
    /// It never waits: once polled, it is done.
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
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
    pub async fn pong(&mut self, payload: &[u8]) -> Result<(), Error> {
        poll_fn(|_| self.handle.pong(payload).into()).await
    }

    /// Waits until everything sent so far has been handed to the transport; reads meanwhile, as [`send`](Self::send)
    /// does.
    ///
    /// Only needed when nothing else is awaited on this connection for a while: [`recv`](Self::recv) and
    /// [`close`](Self::close) write what is pending.
    ///
    /// # Errors
    /// When the connection has failed.
    ///
    /// # Cancel safety
    /// What is not yet written stays pending.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.handle.poll_flush(cx)).await
    }

    /// Closes the connection: writes everything pending and a close frame, then waits for the peer's, at most for the
    /// close timeout ([`Settings::close_timeout`], 5 seconds).
    ///
    /// `close` is a code, such as [`CloseCode::NORMAL`](crate::CloseCode::NORMAL), or a [`Close`] with a reason. When
    /// the close has begun already, by either side, it is seen through and `close` goes unused.
    ///
    /// Messages that come before the peer's close frame are kept for [`recv`](Self::recv), as many as
    /// [`send`](Self::send) would keep; beyond that they are discarded.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the deadline passed; the connection is dropped then. Otherwise when it
    /// had failed or did so now, or ([`is_invalid`](Error::is_invalid)) when the code must not be sent.
    ///
    /// # Cancel safety
    /// Safe and repeatable: once polled, the close has begun, and the next `close` or `recv` goes on with it.
    pub async fn close(&mut self, close: impl Into<Close>) -> Result<(), Error> {
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

    /// The subprotocol that the handshake has selected.
    pub fn subprotocol(&self) -> Option<&str> {
        self.handle.subprotocol()
    }

    /// The server's response that opened the connection: cookies that it sets, a request id, the extensions that it chose.
    /// `None` on a server, whose request is in [`Incoming`](crate::Incoming). Clone it before a [`split`](Self::split),
    /// if it is needed after.
    pub fn response(&self) -> Option<&Response> {
        self.handle.response()
    }

    /// What the peer's close frame said, once it has come.
    pub fn peer_close(&self) -> Option<Close> {
        self.handle.look(|driver| driver.peer_close().cloned())
    }

    /// The round-trip time of the last heartbeat ping that was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.handle.look(Driver::round_trip)
    }

    /// Bytes that were sent and are not yet handed to the transport.
    pub fn pending(&self) -> usize {
        self.handle.look(Driver::pending)
    }

    /// The peer's address, if the connection is TCP; with a proxy, the proxy's.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.transport(Transport::peer_addr)
    }

    /// Lends the underlying stream, such as to read its TLS session or to set an option of its TCP socket.
    pub fn transport<T>(&self, look: impl FnOnce(&Transport) -> T) -> T {
        self.handle.look(|driver| look(driver.stream()))
    }

    /// Splits it into two handles, for two tasks or more: a [`Sender`] can be cloned and sends through `&self`.
    ///
    /// The connection ends when it is closed, or when all of them are dropped.
    pub fn split(self) -> (Sender, Receiver) {
        (Sender::new(self.handle.share()), Receiver::new(self.handle))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn discarded(&self) -> usize {
        self.handle.look(Driver::discarded)
    }
}

#[cfg(feature = "testing")]
impl From<Driver<Transport>> for WebSocket {
    fn from(driver: Driver<Transport>) -> Self {
        Self { handle: Handle::new(driver, None, None) }
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
    }
}
