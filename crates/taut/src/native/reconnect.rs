//! Connections that come back: [`Client::reconnecting`](crate::Client::reconnecting).
//!
//! ```no_run
//! # async fn run() -> Result<(), taut::Error> {
//! use taut::Client;
//! use taut::reconnect::Backoff;
//!
//! let client = Client::new("ws://api.example/feed");
//! let mut feed = client.reconnecting(Backoff::default(), |mut socket| async move {
//!     socket.send("subscribe").await?;
//!     Ok(socket)
//! });
//! loop {
//!     println!("{}", feed.recv().await?.as_text().unwrap_or("(bytes)"));
//! }
//! # }
//! ```
//!
//! A [`Reconnecting`] opens a connection when it is first awaited, runs the hook on it, and replaces it when it is
//! lost, for as long as that can help. There is no task behind it: it connects, waits and answers pings while
//! [`recv`](Reconnecting::recv), [`send`](Reconnecting::send) or [`ready`](Reconnecting::ready) is awaited, and each of
//! them can be dropped at any time: whatever was going on goes on with the next.
//!
//! # What is retried
//!
//! | what ended the attempt or the connection | retried | first delay |
//! |---|---|---|
//! | the server cannot be reached, its name not found, connecting took too long | yes | 100 ms + U(0, 500 ms) |
//! | the stream broke or ended without a close frame (1006), no answer to a ping | yes | U(0, 5 s) |
//! | close 1001, 1011, 1012, 1013, 1014: the server goes down, fails, restarts, is busy | yes | U(0, 5 s) |
//! | close 1000, or without a code: the server is done with this connection | yes | 100 ms + U(0, 500 ms) |
//! | close 3000 to 4999: only the application knows | yes | 100 ms + U(0, 500 ms) |
//! | close 1002, 1003, 1007, 1008, 1009, 1010: it would end the same way again | no | |
//! | the server breaks the protocol, or sends what exceeds our limits | no | |
//! | status 408, 425, 429, 500, 502, 503, 504 | yes | 100 ms + U(0, 500 ms), after its `Retry-After` |
//! | status 401 | once, with what [`refresh`](Reconnecting::refresh) gives | none |
//! | any other status, an invalid handshake, a TLS certificate that is not accepted | no | |
//! | a proxy that cannot reach the server, or is busy | yes | 100 ms + U(0, 500 ms) |
//! | a proxy that refuses, a redirect that is not followed | no | |
//! | a wrong URL or setting | no | |
//! | the hook failed | as its error is; [`Error::other`] is retried | 100 ms + U(0, 500 ms) |
//!
//! [`retry_if`](Reconnecting::retry_if) decides otherwise: to let 1000 end a feed that has an end, or a 4001 that means
//! that the user is barred.
//!
//! # How long it waits
//!
//! As [`Backoff`] says. After the first, the delays are 100 ms + U(0, 500 ms · 2ⁿ), the window at most 30 s, for the
//! n-th failure: uniform over the whole window, drawn from the operating system's random numbers, so that the clients
//! of a server that restarts come back one by one (RFC 6455 §7.2.3). They begin anew once a connection has lasted for
//! 5 s, or for the last delay where that was longer: a server that accepts and then drops is not asked ever faster. A
//! connection lasts from its opening to the first sign of its end; to wait for the server to end TCP does not count. A
//! `Retry-After` is obeyed, in seconds or as a date, up to 10 minutes, and the usual delay added.
//!
//! There is no limit on attempts unless [`max_attempts`](Reconnecting::max_attempts) or
//! [`give_up_after`](Reconnecting::give_up_after) sets one.
//!
//! # What may be lost
//!
//! What was sent and had not arrived when the connection broke is lost, and what the server sent meanwhile is for the
//! hook to ask for again, such as by the number of the last message seen. Messages that had arrived are received first.

mod ended;
mod series;
mod state_machine;

pub use ended::{Ended, Event, State};
pub use taut_proto::backoff::Backoff;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Close, Message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::error::{Cause, ConnectStage, Deadline, Doing};
use crate::{Client, Error, WebSocket};
use series::{KeptMessages, Series};
use state_machine::Phase;

/// A client's connection that is replaced when it is lost; see [the module](self) for what is retried and when.
///
/// Made by [`Client::reconnecting`](crate::Client::reconnecting). Dropping it drops the connection without a close
/// frame; [`close`](Self::close) is the polite way.
pub struct Reconnecting {
    client: Arc<Client>,
    dial: Dial,
    hook: Hook,
    refresh: Option<Refresh>,
    retry_if: RetryIf,
    on_event: Box<dyn FnMut(&Event) + Send>,
    max_attempts: u32,
    give_up_after: Duration,
    series: Series,
    phase: Phase,
    /// What had arrived on a connection that is gone.
    kept: KeptMessages,
}

type Dial = Box<dyn FnMut(Arc<Client>) -> Pending<WebSocket> + Send>;
type Hook = Box<dyn FnMut(WebSocket) -> Pending<WebSocket> + Send>;
type Refresh = Box<dyn FnMut() -> Pending<Client> + Send>;
type RetryIf = Box<dyn FnMut(&Ended) -> bool + Send>;

/// Kept from call to call, so that dropping a call drops nothing that has begun.
type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl Client {
    /// Returns a connection that is replaced when it is lost. `on_open` runs on each new connection before anything is
    /// received, such as to subscribe, and returns it; if it fails, the attempt has failed. See [`reconnect`](self) for
    /// what is retried, and when. Nothing happens before the first call.
    ///
    /// `on_open` has no deadline but the heartbeat's: if it waits for an answer, give it a timeout.
    pub fn reconnecting<H, F>(&self, backoff: Backoff, on_open: H) -> Reconnecting
    where
        H: FnMut(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        Reconnecting::new(self.clone(), backoff, on_open)
    }
}

impl Reconnecting {
    fn new<H, F>(client: Client, backoff: Backoff, mut hook: H) -> Self
    where
        H: FnMut(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        Self {
            client: Arc::new(client),
            dial: Box::new(|client| Box::pin(async move { client.connect().await })),
            hook: Box::new(move |socket| Box::pin(hook(socket))),
            refresh: None,
            retry_if: Box::new(Ended::is_transient),
            on_event: Box::new(|_| {}),
            max_attempts: u32::MAX,
            give_up_after: Duration::MAX,
            series: Series::new(backoff),
            phase: Phase::Due,
            kept: KeptMessages::default(),
        }
    }

    /// Makes the stream of each attempt: a Unix socket, a tunnel, TLS of your own. By default the client
    /// [connects](Client::connect) by itself. It may take 10 seconds; the handshake over it counts separately.
    #[must_use]
    pub fn over<D, F, S>(mut self, mut dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.dial = Box::new(move |client| {
            let dialing = dial();
            Box::pin(async move {
                let stream = timeout(DIAL, dialing)
                    .await
                    .map_err(|_| Cause::Deadline(Deadline::Connect(DIAL, ConnectStage::Tcp)))?;
                client.connect_over(stream.map_err(|error| Error::io(Doing::Connecting, error))?).await
            })
        });
        self
    }

    /// Gives a client with fresh credentials when the server answers 401; the attempt is repeated at once with it. By
    /// default a 401 is final. A second one in answer to the fresh credentials is final in any case.
    ///
    /// When it fails, the attempt has failed, and is retried as its error is: [`Error::other`] is.
    ///
    /// ```no_run
    /// # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn run() {
    /// use taut::reconnect::Backoff;
    /// use taut::{Client, Error};
    ///
    /// let client = Client::new("ws://api.example/feed");
    /// let feed = client.reconnecting(Backoff::default(), |socket| async { Ok(socket) }).refresh(|| async {
    ///     let token = fetch_token().await.map_err(Error::other)?;
    ///     Ok(Client::new("ws://api.example/feed").bearer(&token))
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn refresh<R, F>(mut self, mut refresh: R) -> Self
    where
        R: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<Client, Error>> + Send + 'static,
    {
        self.refresh = Some(Box::new(move || Box::pin(refresh())));
        self
    }

    /// Decides whether to try again; [`Ended::is_transient`] by default. A 401 that [`refresh`](Self::refresh) sees to
    /// is not asked about.
    ///
    /// ```no_run
    /// # fn run(feed: taut::reconnect::Reconnecting) {
    /// use taut::CloseCode;
    ///
    /// // A feed that has an end, and says so by a normal close.
    /// let feed = feed.retry_if(|ended| ended.is_transient() && ended.close_code() != Some(CloseCode::NORMAL));
    /// # }
    /// ```
    #[must_use]
    pub fn retry_if(mut self, decide: impl FnMut(&Ended) -> bool + Send + 'static) -> Self {
        self.retry_if = Box::new(decide);
        self
    }

    /// Calls `report` on each change, inside the call that is awaited. It must not block.
    #[must_use]
    pub fn on_event(mut self, report: impl FnMut(&Event) + Send + 'static) -> Self {
        self.on_event = Box::new(report);
        self
    }

    /// Gives up after so many attempts without a connection that lasted (see [the module](self#how-long-it-waits)); no
    /// limit by default. At least one is made.
    #[must_use]
    pub fn max_attempts(mut self, most: u32) -> Self {
        self.max_attempts = most;
        self
    }

    /// Gives up when the next attempt would begin later than this after the first of its series, or after the loss of
    /// the connection that had lasted; no limit by default. An attempt that has begun is not cut short.
    #[must_use]
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.give_up_after = limit;
        self
    }

    /// The next message. Connects, waits and reconnects as needed, and does not return meanwhile.
    ///
    /// # Errors
    /// Only when trying again cannot help, or is not wanted: what ended the last attempt or connection
    /// ([`Event::GaveUp`]). After [`close`](Self::close): [`is_closed`](Error::is_closed). Then every later call gives
    /// the same.
    ///
    /// # Cancel safety
    /// Nothing is lost: an attempt, the hook or the delay that was going on is kept here, and the next call goes on
    /// with it. Between calls they stand still, except for the delay, which passes.
    pub async fn recv(&mut self) -> Result<Message<'static>, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Sends a message; waits until there is a connection, for as long as that takes. Otherwise as
    /// [`WebSocket::send`].
    ///
    /// A connection that turns out to be lost is replaced, and the message sent on the new one. Once it is accepted it
    /// is not sent again: when the connection is lost after that, the message may be.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). Also ([`is_timeout`](Error::is_timeout)) when neither side of an open connection reads.
    /// In every case the message was not sent.
    ///
    /// # Cancel safety
    /// All or nothing: a call that is dropped before it is done has sent nothing of its message. As with `recv`, what
    /// was going on is kept.
    pub async fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        let mut message = message.into();
        poll_fn(|cx| self.poll_send(&mut message, cx)).await
    }

    /// Sends a message at once or not at all.
    ///
    /// # Errors
    /// [`is_full`](Error::is_full) as with [`WebSocket::try_send`], [`is_closed`](Error::is_closed) when there is no
    /// connection now. The message was not sent.
    pub fn try_send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        match &self.phase {
            Phase::Open { socket, .. } => socket.handle.try_send(&mut message.into()),
            Phase::Over(error) => Err(error.clone()),
            Phase::Closing(_) => Err(Cause::Closed.into()),
            _ => Err(Cause::Disconnected.into()),
        }
    }

    /// Waits until there is a connection and the hook is done; neither receives nor sends.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    pub async fn ready(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_open(cx)).await
    }

    /// Closes for good: closes the connection, as [`WebSocket::close`] does, or drops the attempt to make one. Messages
    /// that were received before are still there for [`recv`](Self::recv).
    ///
    /// # Errors
    /// As [`WebSocket::close`]; without a connection only for a code that must not be sent.
    ///
    /// # Cancel safety Safe and repeatable: once polled, it no longer reconnects, and the next `close` or `recv`
    /// continues.
    pub async fn close(&mut self, close: impl Into<Close>) -> Result<(), Error> {
        let close = close.into();
        poll_fn(|cx| self.poll_close(&close, cx)).await
    }

    /// Tries at once instead of waiting out the delay, a `Retry-After` included: for when the network has changed.
    /// Without a delay going on it does nothing.
    ///
    /// The failures so far still count, so that calling it often does not make the later delays shorter.
    pub fn retry_now(&mut self) {
        if matches!(self.phase, Phase::Waiting(_)) {
            self.phase = Phase::Due;
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Due | Phase::Connecting(_) | Phase::Opening(_) | Phase::Refreshing(_) => State::Connecting,
            Phase::Open { .. } => State::Open,
            Phase::Waiting(_) => State::Waiting,
            Phase::Closing(_) | Phase::Over(_) => State::Over,
        }
    }

    /// The connection, while there is one: such as to ask for its [subprotocol](WebSocket::subprotocol). It may turn
    /// out to be lost with the next call.
    pub fn socket(&self) -> Option<&WebSocket> {
        match &self.phase {
            Phase::Open { socket, .. } => Some(socket),
            _ => None,
        }
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Reconnecting");
        shown.field("client", &self.client).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// How long the application's own way of making a stream may take.
const DIAL: Duration = Duration::from_secs(10);
