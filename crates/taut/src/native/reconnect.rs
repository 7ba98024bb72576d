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
//! # A fresh client for each attempt
//!
//! [`Client::reconnecting`](crate::Client::reconnecting) connects with the same client each time.
//! [`Reconnecting::new`] takes a function that makes one for each attempt: with a token that has not expired, with the
//! next of several servers, with the number of the last message in the query.
//!
//! ```no_run
//! # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn run() -> Result<(), taut::Error> {
//! use taut::reconnect::Attempt;
//! use taut::{Backoff, Client, Error, Reconnecting};
//!
//! let servers = ["wss://eu.api.example/feed", "wss://us.api.example/feed"];
//! let mut feed = Reconnecting::new(Backoff::default(), move |attempt: Attempt| async move {
//!     let token = fetch_token().await.map_err(Error::other)?;
//!     let server = servers[attempt.number as usize % servers.len()];
//!     Ok(Client::new(server).bearer(&token))
//! });
//! println!("{}", feed.recv().await?);
//! # Ok(())
//! # }
//! ```
//!
//! # What is retried
//!
//! | what ended the attempt or the connection | by default | first delay |
//! |---|---|---|
//! | the server cannot be reached, its name not found, connecting took too long | `Retry` | 100 ms + U(0, 500 ms) |
//! | the stream broke or ended without a close frame (1006), no answer to a ping | `Retry` | U(0, 5 s) |
//! | close 1001, 1011, 1012, 1013, 1014: the server goes down, fails, restarts, is busy | `Retry` | U(0, 5 s) |
//! | close 1000, or without a code: the server is done with this connection | `Retry` | 100 ms + U(0, 500 ms) |
//! | close 3000 to 4999: only the application knows | `Retry` | 100 ms + U(0, 500 ms) |
//! | close 1002, 1003, 1007, 1008, 1009, 1010: it would end the same way again | `GiveUp` | |
//! | the server breaks the protocol, or sends what exceeds our limits | `GiveUp` | |
//! | status 408, 425, 429, 500, 502, 503, 504 | `Retry` | 100 ms + U(0, 500 ms), after its `Retry-After` |
//! | status 401 | `Refresh`: once with a new client, if they are [made](Reconnecting::new) | none |
//! | any other status, an invalid handshake, a TLS certificate that is not accepted | `GiveUp` | |
//! | a proxy that cannot reach the server, or is busy | `Retry` | 100 ms + U(0, 500 ms) |
//! | a proxy that refuses, a redirect that is not followed | `GiveUp` | |
//! | a wrong URL or setting | `GiveUp` | |
//! | a client could not be made, or the hook failed | as its error is; [`Error::other`] is `Retry` | 100 ms + U(0, 500 ms) |
//!
//! [`decide`](Reconnecting::decide) decides otherwise, with a [`Decision`]: to let 1000 end a feed that has an end, to
//! get a new token after a 4001, to sit out the 403s of a deployment.
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
//! # State across connections
//!
//! A hook ([`on_open`](Reconnecting::on_open)) runs by itself and owns what it uses. Where the loop that receives has
//! something to say on each new connection, such as the number of the last message, use [`next`](Reconnecting::next)
//! instead of `recv`: it tells of each new connection, and the state is a variable of the loop.
//!
//! # What may be lost
//!
//! What was sent and had not arrived when the connection broke is lost, and what the server sent meanwhile is for the
//! hook to ask for again, such as by the number of the last message seen. Messages that had arrived are received first.

mod decision;
mod ended;
mod exclusive;
mod hooks;
mod sender;
mod series;
mod state_machine;

pub use decision::{Attempt, Decision};
pub use ended::{Ended, Event, Next, State};
pub use sender::ReconnectingSender;
pub use taut_proto::backoff::Backoff;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Close, CloseCode, Message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::error::{Cause, ConnectStage, Deadline, Doing};
use crate::native::driver::Driver;
use crate::{Client, Error, WebSocket};
use exclusive::Exclusive;
use hooks::{Hooks, MakeClient, Pending};
use sender::Senders;
use series::{KeptMessages, Series};
use state_machine::Phase;

/// A client's connection that is replaced when it is lost; see [the module](self) for what is retried and when.
///
/// Made by [`Client::reconnecting`](crate::Client::reconnecting) with one client for all attempts, or by
/// [`new`](Self::new) with another one for each. Dropping it drops the connection without a close frame;
/// [`close`](Self::close) is the polite way.
///
/// It is `Send` and `Sync`, and its type names neither hooks nor streams: it fits into a struct, a task, and the arms of
/// `tokio::select!`.
pub struct Reconnecting {
    hooks: Exclusive<Hooks>,
    /// Of the last attempt, to be shown.
    client: Option<Arc<Client>>,
    client_timeout: Duration,
    max_attempts: u32,
    give_up_after: Duration,
    series: Series,
    phase: Phase,
    /// What had arrived on a connection that is gone.
    kept: KeptMessages,
    /// In other tasks.
    senders: Senders,
}

impl Client {
    /// Returns a connection that is replaced when it is lost. `on_open` runs on each new connection before anything is
    /// received, such as to subscribe, and returns it; if it fails, the attempt has failed. See [`reconnect`](self) for
    /// what is retried, and when. Nothing happens before the first call.
    ///
    /// `on_open` has no deadline but the heartbeat's: if it waits for an answer, give it a timeout.
    ///
    /// Each attempt is made with this client. If token, URL or headers differ from one to the next, or to be asked for
    /// fresh credentials after a 401, use [`Reconnecting::new`].
    pub fn reconnecting<H, F>(&self, backoff: Backoff, on_open: H) -> Reconnecting
    where
        H: FnMut(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        let client = Arc::new(self.clone());
        let reconnecting = Reconnecting::from_client(MakeClient::Fixed(Arc::clone(&client)), backoff);
        Reconnecting { client: Some(client), ..reconnecting.on_open(on_open) }
    }
}

impl Reconnecting {
    /// A connection whose client is made anew for each attempt by `make_client`, which is told
    /// [why](Attempt::after). Nothing happens before the first call.
    ///
    /// When `make_client` fails, the attempt has failed, and is retried as its error is: [`Error::other`] is. It may
    /// take [30 seconds](Self::client_timeout).
    ///
    /// A token that is kept until the server refuses it:
    ///
    /// ```no_run
    /// # #[derive(Clone)] struct Tokens;
    /// # impl Tokens {
    /// #     async fn cached(&self) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// #     async fn fetch(&self) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # }
    /// # fn run(tokens: Tokens) {
    /// use taut::reconnect::Attempt;
    /// use taut::{Backoff, Client, Error, Reconnecting};
    ///
    /// let feed = Reconnecting::new(Backoff::default(), move |attempt: Attempt| {
    ///     let tokens = tokens.clone();
    ///     async move {
    ///         // After a 401, and whatever else is decided to be a `Decision::Refresh`.
    ///         let token = if attempt.is_refresh { tokens.fetch().await } else { tokens.cached().await };
    ///         Ok(Client::new("wss://api.example/feed").bearer(&token.map_err(Error::other)?))
    ///     }
    /// });
    /// # }
    /// ```
    pub fn new<M, F>(backoff: Backoff, mut make_client: M) -> Self
    where
        M: FnMut(Attempt) -> F + Send + 'static,
        F: Future<Output = Result<Client, Error>> + Send + 'static,
    {
        Self::from_client(MakeClient::Fresh(Box::new(move |attempt| Box::pin(make_client(attempt)))), backoff)
    }

    fn from_client(client: MakeClient, backoff: Backoff) -> Self {
        Self {
            hooks: Exclusive::new(Hooks::new(client)),
            client: None,
            client_timeout: CLIENT,
            max_attempts: u32::MAX,
            give_up_after: Duration::MAX,
            series: Series::new(backoff),
            phase: Phase::Due,
            kept: KeptMessages::default(),
            senders: Senders::default(),
        }
    }

    /// Runs `on_open` on each new connection before anything is received, such as to subscribe; it returns the
    /// connection. If it fails, the attempt has failed, and is retried as its error is: [`Error::other`] is.
    ///
    /// It has no deadline but the heartbeat's: if it waits for an answer, give it a timeout. Of an answer that does not
    /// come because the server has closed the connection, [`WebSocket::peer_close`] has the code, and
    /// `Error::from` makes an error of it that is [decided on](Self::decide) like any other close.
    #[must_use]
    pub fn on_open<H, F>(mut self, mut on_open: H) -> Self
    where
        H: FnMut(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        self.hooks.get_mut().on_open = Some(Box::new(move |socket| Pending::new(on_open(socket))));
        self
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
        self.hooks.get_mut().dial = Box::new(move |client| {
            let dialing = dial();
            Pending::new(async move {
                let stream = timeout(DIAL, dialing)
                    .await
                    .map_err(|_| Cause::Deadline(Deadline::Connect(DIAL, ConnectStage::Tcp)))?;
                client.connect_over(stream.map_err(|error| Error::io(Doing::Connecting, error))?).await
            })
        });
        self
    }

    /// Decides what to do after an attempt or a connection has ended; [`Ended::decision`] by default, which is also
    /// what to fall back to.
    ///
    /// ```no_run
    /// # fn run(feed: taut::Reconnecting) {
    /// use taut::CloseCode;
    /// use taut::reconnect::Decision;
    ///
    /// const TOKEN_EXPIRED: CloseCode = CloseCode::new(4001);
    ///
    /// let feed = feed.decide(|ended| match (ended.close_code(), ended.status()) {
    ///     // A feed that has an end, and says so by a normal close.
    ///     (Some(CloseCode::NORMAL), _) => Decision::GiveUp,
    ///     (Some(TOKEN_EXPIRED), _) => Decision::Refresh,
    ///     // While the server is deployed.
    ///     (_, Some(403)) => Decision::Retry,
    ///     _ => ended.decision(),
    /// });
    /// # }
    /// ```
    ///
    /// An error of your own, by which a hook has failed ([`Error::other`]), is the
    /// [`source`](std::error::Error::source) of [`Ended::Failed`].
    #[must_use]
    pub fn decide(mut self, decide: impl FnMut(&Ended) -> Decision + Send + 'static) -> Self {
        self.hooks.get_mut().decide = Box::new(decide);
        self
    }

    /// Calls `report` on each change, inside the call that is awaited. It must not block.
    #[must_use]
    pub fn on_event(mut self, report: impl FnMut(&Event) + Send + 'static) -> Self {
        self.hooks.get_mut().on_event = Box::new(report);
        self
    }

    /// Sets how long the function given to [`new`](Self::new) may take to make a client; 30 seconds. Then the attempt
    /// has failed, and is retried.
    #[must_use]
    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.client_timeout = timeout;
        self
    }

    /// Gives up after so many attempts without a connection that lasted (see [the module](self#how-long-it-waits)); no
    /// limit by default. At least one is made. An attempt that is repeated with fresh credentials counts once.
    #[must_use]
    pub fn max_attempts(mut self, most: u32) -> Self {
        self.max_attempts = most.max(1);
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

    /// The next message, as [`recv`](Self::recv) gives it, or the news that there is a new connection: for a loop that
    /// says on each connection what it knows from the ones before.
    ///
    /// ```no_run
    /// # fn number(message: &taut::Message<'_>) -> u64 { 0 }
    /// # async fn run() -> Result<(), taut::Error> {
    /// use taut::reconnect::Next;
    /// use taut::{Backoff, Client, Reconnecting};
    ///
    /// let mut feed = Reconnecting::new(Backoff::default(), |_| async { Ok(Client::new("wss://api.example/feed")) });
    /// let mut last = 0;
    /// loop {
    ///     match feed.next().await? {
    ///         Next::Opened(socket) => {
    ///             // No `?`: a connection that is lost again is replaced like any other.
    ///             if let Err(error) = socket.send(format!("since {last}")).await {
    ///                 feed.reconnect(error);
    ///             }
    ///         }
    ///         Next::Message(message) => last = number(&message),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// Each connection is told of once, after its hook, if there is one, and unless `recv` has received from it before.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv): no message and no news are lost. In `tokio::select!`, what an arm does once its future
    /// is ready is not dropped.
    pub async fn next(&mut self) -> Result<Next<'_>, Error> {
        if let Some(message) = poll_fn(|cx| self.poll_next(true, cx)).await? {
            return Ok(Next::Message(message));
        }
        match &mut self.phase {
            Phase::Open { socket, .. } => Ok(Next::Opened(socket)),
            _ => unreachable!("it was opened in this call"),
        }
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

    /// A handle with which other tasks and threads send, over all connections from now on, while this one receives. It
    /// can be cloned, and ends with this.
    ///
    /// ```no_run
    /// # async fn run(client: taut::Client) -> Result<(), taut::Error> {
    /// use std::time::Duration;
    /// use taut::Backoff;
    ///
    /// let mut feed = client.reconnecting(Backoff::default(), |socket| async { Ok(socket) });
    /// let sender = feed.sender();
    /// tokio::spawn(async move {
    ///     // Waits while there is no connection, and ends when there will be none.
    ///     while sender.send("position").await.is_ok() {
    ///         tokio::time::sleep(Duration::from_secs(5)).await;
    ///     }
    /// });
    /// loop {
    ///     println!("{}", feed.recv().await?); // does the work for both
    /// }
    /// # }
    /// ```
    ///
    /// On a new connection it sends once the hook is done; after [`Next::Opened`], with the next call here.
    pub fn sender(&mut self) -> ReconnectingSender {
        let (sender, is_first) = self.senders.sender();
        if is_first {
            match &self.phase {
                Phase::Open { socket, is_shared: true, .. } => self.senders.open(socket),
                Phase::Closing(_) => self.senders.over(Cause::Closed.into()),
                Phase::Over(error) => self.senders.over(error.clone()),
                _ => self.senders.lost(),
            }
        }
        sender
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
    /// # Cancel safety
    /// Safe and repeatable: once polled, it no longer reconnects, and the next `close` or `recv`
    /// continues.
    pub async fn close(&mut self, close: impl Into<Close>) -> Result<(), Error> {
        let close = close.into();
        poll_fn(|cx| self.poll_close(&close, cx)).await
    }

    /// Gives up the open connection, with code 1000, and goes on as if it had been lost by this error: when the
    /// application finds that it is of no use, such as because the server has refused the subscription. Messages that
    /// have arrived and were not received are dropped.
    ///
    /// A connection that is lost already ends for its own reason: its close code [decides](Self::decide), and the error
    /// goes unused. Without a connection it does nothing.
    pub fn reconnect(&mut self, error: Error) {
        if let Phase::Open { socket, .. } = &self.phase
            && socket.handle.look(Driver::is_open)
        {
            socket.handle.begin_close(&CloseCode::NORMAL.into());
            self.ended(Ended::Failed(error));
        }
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
            Phase::Due | Phase::Preparing(_) | Phase::Connecting(_) | Phase::Opening(_) => State::Connecting,
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

/// How long the application may take to make a client: as long as a careful HTTP client waits for a token.
const CLIENT: Duration = Duration::from_secs(30);
