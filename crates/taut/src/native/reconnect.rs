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
//! | any other status, an answer that is no valid handshake, a TLS certificate that is not accepted | no | |
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

pub use ended::{Ended, Event, State};
pub use taut_proto::backoff::Backoff;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use taut_proto::backoff::Reconnect;
use taut_proto::{Close, Message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::error::{Cause, Deadline, Doing, Stage};
use crate::native::driver::Driver;
use crate::{Client, Error, WebSocket};

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
    kept: Kept,
}

type Dial = Box<dyn FnMut(Arc<Client>) -> Pending<WebSocket> + Send>;
type Hook = Box<dyn FnMut(WebSocket) -> Pending<WebSocket> + Send>;
type Refresh = Box<dyn FnMut() -> Pending<Client> + Send>;
type RetryIf = Box<dyn FnMut(&Ended) -> bool + Send>;

/// Kept from call to call, so that dropping a call drops nothing that has begun.
type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl Client {
    /// A connection that is replaced when it is lost. `on_open` is run on each new one before anything else is
    /// received, such as to subscribe, and gives it back; when it fails, the attempt has failed. What is retried and
    /// when stands in [`reconnect`](self). Nothing happens before the first call.
    ///
    /// `on_open` has no deadline but the heartbeat's: where it waits for an answer, a timeout is its own business.
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
            kept: Kept::default(),
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
                let stream =
                    timeout(DIAL, dialing).await.map_err(|_| Cause::Deadline(Deadline::Connect(DIAL, Stage::Tcp)))?;
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

    /// Is told of each change, as it happens, inside of the call that is awaited. It must not block.
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

    /// Closes for good: the connection as [`WebSocket::close`] does, or whatever was to lead to one is dropped.
    /// What was received before is still there for [`recv`](Self::recv).
    ///
    /// # Errors
    /// As [`WebSocket::close`]; without a connection only for a code that must not be sent.
    ///
    /// # Cancel safety
    /// Safe and repeatable: once polled, nothing reconnects any more, and the next `close` or `recv` goes on with it.
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

    /// Where it stands.
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

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message<'static>, Error>> {
        loop {
            if let Some(message) = self.kept.pop() {
                return Poll::Ready(Ok(message));
            }
            if let Phase::Closing(socket) = &mut self.phase {
                match ready!(socket.handle.poll_recv(cx)) {
                    Ok(Some(message)) => return Poll::Ready(Ok(message)),
                    Ok(None) | Err(_) => self.phase = Phase::Over(Cause::Closed.into()),
                }
            }
            ready!(self.poll_open(cx))?;
            if let Some(message) = ready!(self.poll_message(cx)) {
                return Poll::Ready(Ok(message));
            }
        }
    }

    fn poll_send(&mut self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.poll_open(cx))?;
            let Phase::Open { socket, .. } = &self.phase else { continue };
            match ready!(socket.handle.poll_send(message, cx)) {
                // It goes on, and the caller may as well.
                Err(error) if socket.handle.look(Driver::is_open) => return Poll::Ready(Err(error)),
                Err(error) => ready!(self.poll_rest(&error, cx)),
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Sees a connection that nothing can be sent on any more through to its end; what arrives is kept.
    fn poll_rest(&mut self, error: &Error, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(message) = ready!(self.poll_message(cx)) {
            self.kept.push(message);
            if !self.kept.has_room() {
                self.ended(Ended::Failed(error.clone()));
                break;
            }
        }
        Poll::Ready(())
    }

    /// The open connection's next message; `None` when it has ended, which has been seen to.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message<'static>>> {
        let Phase::Open { socket, .. } = &mut self.phase else { return Poll::Ready(None) };
        let ended = match ready!(socket.handle.poll_recv(cx)) {
            Ok(Some(message)) => return Poll::Ready(Some(message)),
            Ok(None) => Ended::Closed(socket.peer_close().unwrap_or_else(|| taut_proto::CloseCode::NO_STATUS.into())),
            // Of a message that was cut off nobody has seen anything: it is lost as others are on their way.
            Err(error) => match socket.peer_close().filter(|_| error.is_cut_off()) {
                Some(close) => Ended::Closed(close),
                None => Ended::Failed(error),
            },
        };
        self.ended(ended);
        Poll::Ready(None)
    }

    fn poll_close(&mut self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let code = close.code();
        if !code.is_sendable() && code != taut_proto::CloseCode::NO_STATUS {
            return Poll::Ready(Err(Cause::CloseCode(code).into()));
        }
        if !matches!(self.phase, Phase::Closing(_) | Phase::Over(_)) {
            let phase = std::mem::replace(&mut self.phase, Phase::Over(Cause::Closed.into()));
            if let Phase::Open { socket, .. } = phase {
                self.phase = Phase::Closing(socket);
            }
            (self.on_event)(&Event::Closed);
        }
        match &self.phase {
            Phase::Closing(socket) => socket.handle.poll_close(close, cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Gets to an open connection.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match &mut self.phase {
                Phase::Open { .. } => return Poll::Ready(Ok(())),
                Phase::Over(error) => return Poll::Ready(Err(error.clone())),
                Phase::Closing(_) => return Poll::Ready(Err(Cause::Closed.into())),
                Phase::Waiting(delay) => {
                    ready!(delay.as_mut().poll(cx));
                    self.phase = Phase::Due;
                }
                Phase::Due => {
                    self.series.attempt = self.series.attempt.saturating_add(1);
                    self.series.began.get_or_insert_with(Instant::now);
                    self.connect();
                }
                Phase::Connecting(connecting) => match ready!(connecting.as_mut().poll(cx)) {
                    Ok(socket) => self.phase = Phase::Opening((self.hook)(socket)),
                    Err(error) => self.rejected(error),
                },
                Phase::Refreshing(refreshing) => match ready!(refreshing.as_mut().poll(cx)) {
                    Ok(client) => {
                        self.client = Arc::new(client);
                        self.series.is_refreshed = true;
                        self.connect();
                    }
                    Err(error) => self.failed(error),
                },
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(socket) => {
                        self.series.is_refreshed = false;
                        self.series.reconnect.opened();
                        self.phase = Phase::Open { socket, since: Instant::now() };
                        (self.on_event)(&Event::Open { attempt: self.series.attempt });
                    }
                    Err(error) => self.failed(error),
                },
            }
        }
    }

    fn connect(&mut self) {
        (self.on_event)(&Event::Connecting { attempt: self.series.attempt });
        self.phase = Phase::Connecting((self.dial)(Arc::clone(&self.client)));
    }

    /// The handshake failed, or what was before it.
    fn rejected(&mut self, error: Error) {
        let is_unauthorized = error.status() == Some(401) && !error.is_proxy();
        let is_refreshed = std::mem::take(&mut self.series.is_refreshed);
        match &mut self.refresh {
            Some(refresh) if is_unauthorized && !is_refreshed => {
                self.phase = Phase::Refreshing(refresh());
                (self.on_event)(&Event::Refreshing);
            }
            Some(_) if is_unauthorized => self.give_up(error),
            _ => self.failed(error),
        }
    }

    /// An attempt failed.
    fn failed(&mut self, error: Error) {
        (self.on_event)(&Event::Failed(error.clone()));
        self.retry(Ended::Failed(error));
    }

    /// The open connection ended.
    fn ended(&mut self, ended: Ended) {
        if let Phase::Open { socket, since } = &self.phase {
            // To the first sign of its end: a server that closes at once and leaves TCP open gains nothing by that.
            let end = socket.handle.look(Driver::ended_at).unwrap_or_else(Instant::now);
            self.series.ended_after(end.saturating_duration_since(*since));
        }
        (self.on_event)(&Event::Lost(ended.clone()));
        self.retry(ended);
    }

    /// Waits for the next attempt, or gives up.
    fn retry(&mut self, ended: Ended) {
        if !(self.retry_if)(&ended) || self.series.attempt >= self.max_attempts {
            return self.give_up(ended.into_error());
        }
        let delay = match self.series.delay(&ended) {
            Ok(delay) => delay,
            Err(error) => return self.give_up(error),
        };
        let now = Instant::now();
        let began = *self.series.began.get_or_insert(now);
        let at = now.checked_add(delay).filter(|at| at.duration_since(began) <= self.give_up_after);
        let Some(at) = at else { return self.give_up(ended.into_error()) };
        self.phase = Phase::Waiting(Box::pin(sleep_until(at)));
        (self.on_event)(&Event::Waiting { delay, attempt: self.series.attempt.saturating_add(1) });
    }

    fn give_up(&mut self, error: Error) {
        self.phase = Phase::Over(error.clone());
        (self.on_event)(&Event::GaveUp(error));
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Reconnecting");
        shown.field("client", &self.client).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Where it stands, with what is going on there.
enum Phase {
    /// An attempt is to begin.
    Due,
    Connecting(Pending<WebSocket>),
    Refreshing(Pending<Client>),
    /// In the hook.
    Opening(Pending<WebSocket>),
    Open {
        socket: WebSocket,
        since: Instant,
    },
    Waiting(Pin<Box<Sleep>>),
    /// Closed by us; what came before is still to be received.
    Closing(WebSocket),
    Over(Error),
}

/// The attempts since the last connection that lasted.
struct Series {
    reconnect: Reconnect,
    /// [`Backoff::stable`].
    stable: Duration,
    /// How many have begun.
    attempt: u32,
    /// When the first of them did, or when that connection was lost.
    began: Option<Instant>,
    /// The credentials are fresh and nothing but a 401 has been the answer to them.
    is_refreshed: bool,
}

impl Series {
    fn new(backoff: Backoff) -> Self {
        let reconnect = Reconnect::new(backoff);
        Self { reconnect, stable: backoff.stable, attempt: 0, began: None, is_refreshed: false }
    }

    /// The open connection ended; if it had lasted, another series begins.
    fn ended_after(&mut self, uptime: Duration) {
        let had_failed = self.reconnect.attempt() > 0;
        self.reconnect.closed_after(uptime);
        let has_lasted = if had_failed { self.reconnect.attempt() == 0 } else { uptime >= self.stable };
        if has_lasted {
            self.attempt = 0;
            self.began = None;
        }
    }

    /// The delay before the next attempt.
    fn delay(&mut self, ended: &Ended) -> Result<Duration, Error> {
        let random = getrandom::u64().map_err(Cause::Random)?;
        Ok(match ended.retry_after() {
            Some(told) => self.reconnect.refused(random, told),
            None => self.reconnect.failed(random, ended.is_abnormal()),
        })
    }
}

/// Messages of a connection that is gone, as many as a connection keeps.
#[derive(Default)]
struct Kept {
    messages: VecDeque<Message<'static>>,
    bytes: usize,
}

impl Kept {
    fn has_room(&self) -> bool {
        self.messages.len() < KEPT_MESSAGES && self.bytes < KEPT_BYTES
    }

    fn push(&mut self, message: Message<'static>) {
        self.bytes += message.as_bytes().len();
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Message<'static>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.as_bytes().len();
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
        Some(message)
    }
}

/// How long the application's own way of making a stream may take.
const DIAL: Duration = Duration::from_secs(10);

/// Messages that are kept of a connection that is gone.
const KEPT_MESSAGES: usize = 1024;

/// And their bytes.
const KEPT_BYTES: usize = 1 << 20;
