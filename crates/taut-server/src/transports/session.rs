//! One client whose connection is carried by HTTP requests: what waits for it, and the task that takes it to a shard.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use taut::{Close, CloseCode, WebSocket};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep, sleep_until};

use super::codec;
use crate::close::Reason;
use crate::http::HangUp;
use crate::pusher::event::ServerEvent;

/// A client. Requests come and go; this stays until the client has been away for too long.
///
/// To the shard it is an ordinary connection, which one task holds ([`relay`](Self::relay)). That task puts the server's messages into a queue here,
/// from which the response that is open at the moment takes them.
#[derive(Debug)]
pub(super) struct Session {
    state: Mutex<State>,
    patience: Timeouts,
    /// Messages of the client, on their way to the task.
    messages: mpsc::Sender<String>,
    /// A response has ended: the time in which the next one has to come has begun.
    left: Notify,
    /// There is room in the queue again.
    room: Notify,
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Silence before a heartbeat.
    pub(super) interval: Duration,
    /// Before a SockJS client says which app it is for.
    pub(super) introduction: Duration,
    /// Without any request before a client is gone.
    pub(super) silence: Duration,
    /// Without an open response before a client is gone; also how long a session that has ended is remembered.
    pub(super) absence: Duration,
}

#[derive(Debug)]
struct State {
    is_opened: bool,
    /// Messages of the server, quoted.
    waiting: VecDeque<Box<str>>,
    waiting_bytes: usize,
    heartbeat: Heartbeat,
    close: Option<Close>,
    /// The response that is open, and who waits for its next bytes.
    response: Option<u64>,
    waker: Option<Waker>,
    /// How many responses there have been.
    responses: u64,
    /// The client has made a second request: the session is more than a name that somebody invented.
    is_proven: bool,
    /// It has made room for another.
    is_displaced: bool,
    /// When the client was last heard.
    heard: Instant,
    /// When the last response ended.
    left: Instant,
    /// Ends the connection of the open response.
    hang_up: Option<HangUp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heartbeat {
    Quiet,
    /// It is to be sent.
    Due,
    /// The client answers it, by an empty array; that is not to be taken for a question.
    Unanswered,
}

impl Session {
    /// A session, and the messages of its client for [`relay`](Self::relay).
    pub(super) fn new(patience: Timeouts) -> (Self, mpsc::Receiver<String>) {
        let (messages, from_client) = mpsc::channel(1);
        let now = Instant::now();
        let state = State {
            is_opened: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            heartbeat: Heartbeat::Quiet,
            close: None,
            response: None,
            waker: None,
            responses: 0,
            is_proven: false,
            is_displaced: false,
            heard: now,
            left: now,
            hang_up: None,
        };
        let session = Self { state: Mutex::new(state), patience, messages, left: Notify::new(), room: Notify::new() };
        (session, from_client)
    }

    /// Takes what the client says. It may be told more slowly than it speaks: that is what waits here.
    ///
    /// # Errors
    /// When the session has ended.
    ///
    /// # Cancel safety
    /// A call that is dropped has passed on the first of the messages, or none, or all of them.
    pub(super) async fn say(&self, messages: Vec<String>) -> Result<(), Ended> {
        {
            let mut state = self.state();
            if state.close.is_some() {
                return Err(Ended);
            }
            state.heard = Instant::now();
            state.is_proven = true;
            if messages.is_empty() {
                state.answer();
            }
        }
        for message in messages {
            self.messages.send(message).await.map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// A new response takes what there is for the client; the one before it, if any, is ended.
    pub(super) fn receive(self: &Arc<Self>, mode: Mode, hang_up: &HangUp) -> Response {
        let mut state = self.state();
        let now = Instant::now();
        state.heard = now;
        state.is_proven |= state.responses > 0;
        state.responses += 1;
        state.response = Some(state.responses);
        state.hang_up = Some(hang_up.clone());
        state.wake();
        let number = state.responses;
        drop(state);
        let beat = Box::pin(sleep_until(now + self.patience.interval));
        Response { session: Arc::clone(self), number, mode, written: 0, is_done: false, beat }
    }

    /// The first message of the client, if it comes before the client has gone.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub(super) async fn first_message(&self, messages: &mut mpsc::Receiver<String>) -> Result<String, Close> {
        tokio::select! {
            Some(message) = messages.recv() => Ok(message),
            () = self.gone() => Err(gone()),
        }
    }

    /// Carries messages in both directions until one side is gone, and says why.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection to the shard.
    pub(super) async fn relay(&self, mut socket: WebSocket, mut messages: mpsc::Receiver<String>) -> Close {
        let mut gone_by = pin!(self.gone());
        loop {
            let has_room = self.state().waiting_bytes < MOST_WAITING;
            tokio::select! {
                // While there is no room nothing is read, and what the shard holds for a slow reader is bounded there.
                received = socket.recv_with(|message| message.as_text().map(codec::quoted)), if has_room => match received {
                    Ok(Some(message)) => self.state().push(message),
                    Ok(None) => return socket.peer_close().unwrap_or_else(lost),
                    Err(error) => {
                        tracing::debug!(%error, "the connection of a session over HTTP has failed");
                        return lost();
                    }
                },
                () = self.room.notified(), if !has_room => {}
                Some(message) = messages.recv() => {
                    if let Err(error) = socket.send(message).await {
                        tracing::debug!(%error, "a message of a session over HTTP could not be passed on");
                        // Why, `recv` tells; while there is no room for that, the client reads too slowly.
                        if !has_room {
                            return too_slow();
                        }
                    }
                }
                () = &mut gone_by => {
                    // Whatever comes of it: nobody is there any more.
                    let _ = socket.close(CloseCode::GOING_AWAY).await;
                    return if has_room { gone() } else { too_slow() };
                }
            }
        }
    }

    /// The session has ended: whoever asks from now on is told so, after everything that came before. The first reason stands.
    pub(super) fn end(&self, close: Close) {
        let mut state = self.state();
        state.close.get_or_insert(close);
        state.wake();
    }

    /// Tells the client, as a shard would, why it is going to be closed.
    pub(super) fn refuse(&self, close: &Close) {
        self.state().push(Some(codec::quoted(&refusal(close))));
    }

    /// Whether nobody would miss the session now: nobody listens to it, and nobody has asked for it twice, or not for a while.
    pub(super) fn makes_room(&self, now: Instant) -> bool {
        let state = self.state();
        state.response.is_none() && (state.close.is_some() || !state.is_proven || state.left + BETWEEN_REQUESTS <= now)
    }

    /// The session has made room for another: it ends at once, and is not remembered.
    pub(super) fn displace(&self) {
        self.state().is_displaced = true;
        self.end(Reason::OVER_CAPACITY.because("there are too many connections over HTTP"));
        self.left.notify_one();
    }

    /// Waits until nobody needs to be told any more how the session ended.
    ///
    /// # Cancel safety
    /// It can be asked again.
    pub(super) async fn forgotten(&self) {
        let deadline = Instant::now() + self.patience.absence;
        while Instant::now() < deadline {
            let is_unheard = {
                let state = self.state();
                state.is_displaced && state.response.is_none()
            };
            if is_unheard {
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = self.left.notified() => {}
            }
        }
    }

    /// Ends the HTTP connection of a response that is still open: its client does not even read the end.
    pub(super) fn cut(&self) {
        if let Some(hang_up) = &self.state().hang_up {
            hang_up.now();
        }
    }

    #[cfg(test)]
    pub(super) fn pretend_listening(&self) {
        self.state().response = Some(1);
    }

    /// Waits until the client has been away for too long, or the session had to make room.
    async fn gone(&self) {
        loop {
            let deadline = self.state().deadline(&self.patience);
            if deadline <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = self.left.notified() => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, message: Option<Box<str>>) {
        // The protocol has no binary messages.
        let Some(message) = message else { return };
        self.waiting_bytes += message.len() + PER_MESSAGE;
        self.waiting.push_back(message);
        self.wake();
    }

    /// The client sent an empty array. It is an answer, or the question whether the server is there.
    fn answer(&mut self) {
        if self.heartbeat == Heartbeat::Unanswered {
            self.heartbeat = Heartbeat::Quiet;
        } else {
            self.heartbeat = Heartbeat::Due;
            self.wake();
        }
    }

    /// Appends the next frame, with messages of some `most` bytes.
    fn next_frame(&mut self, out: &mut String, most: usize) -> Option<Kind> {
        if !self.is_opened {
            self.is_opened = true;
            out.push_str(codec::OPEN);
            return Some(Kind::Open);
        }
        if self.heartbeat == Heartbeat::Due {
            self.heartbeat = Heartbeat::Quiet;
            out.push_str(codec::HEARTBEAT);
            return Some(Kind::Heartbeat);
        }
        if !self.waiting.is_empty() {
            let mut bytes = 0;
            let next = || {
                let message = if bytes < most { self.waiting.pop_front() } else { None }?;
                bytes += message.len();
                self.waiting_bytes -= message.len() + PER_MESSAGE;
                Some(message)
            };
            codec::write_messages(out, std::iter::from_fn(next));
            if self.waiting.is_empty() {
                // A burst is over: idle sessions hold no room for the next one.
                self.waiting = VecDeque::new();
            }
            return Some(Kind::Messages);
        }
        let close = self.close.as_ref()?;
        codec::write_close(out, close);
        Some(Kind::Close)
    }

    fn deadline(&self, patience: &Timeouts) -> Instant {
        if self.is_displaced {
            return self.left;
        }
        let silent = self.heard + patience.silence;
        if self.response.is_some() { silent } else { silent.min(self.left + patience.absence) }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Heartbeat,
    Messages,
    Close,
}

/// How a response brings its frames.
#[derive(Debug)]
pub(super) enum Mode {
    /// As they come, until the client has had enough of this response and asks for the next. pusher-js does so when it has read everything of a
    /// response of more than 256 KiB, and takes the end of one for the end of the connection.
    Streaming,
    /// As they come, until there have been 128 KiB.
    Limited,
    /// One frame.
    Polling,
    /// One frame, as a call of this function.
    Call(String),
}

impl Mode {
    fn is_one_frame(&self) -> bool {
        matches!(self, Self::Polling | Self::Call(_))
    }
}

/// The body of a response to a client that receives.
///
/// It takes from the queue only what hyper asks for. What hyper has asked for and not delivered is lost when its connection breaks, and with it the
/// client's connection: neither pusher-js nor SockJS goes on with a session after such an error.
pub(super) struct Response {
    session: Arc<Session>,
    number: u64,
    mode: Mode,
    /// Units of UTF-16.
    written: usize,
    is_done: bool,
    beat: Pin<Box<Sleep>>,
}

impl Response {
    /// Appends what there is, as far as it may go into this response.
    fn take(&mut self, state: &mut State) -> String {
        let mut text = String::new();
        if state.response != Some(self.number) {
            // Whoever is there later is the client; an earlier response is one that it has given up, or somebody else's.
            let mut frame = String::new();
            codec::write_close(&mut frame, &Close::new(DISPLACED, "Another connection still open"));
            self.write(&mut text, &frame);
            self.is_done = true;
            return text;
        }
        let mut frame = String::new();
        while !self.is_full() && text.len() < CHUNK {
            frame.clear();
            let Some(kind) = state.next_frame(&mut frame, if self.mode.is_one_frame() { BATCH } else { CHUNK }) else {
                break;
            };
            self.write(&mut text, &frame);
            if kind == Kind::Heartbeat && !self.mode.is_one_frame() {
                state.heartbeat = Heartbeat::Unanswered;
            }
            if kind == Kind::Close || self.mode.is_one_frame() {
                self.is_done = true;
                break;
            }
        }
        self.is_done |= matches!(self.mode, Mode::Limited) && self.is_full();
        text
    }

    fn write(&mut self, text: &mut String, frame: &str) {
        let start = text.len();
        if let Mode::Call(callback) = &self.mode {
            codec::write_call(text, callback, frame);
        } else {
            text.push_str(frame);
            text.push('\n');
        }
        self.written += codec::units(&text[start..]);
    }

    /// Whether nothing more may be written. Were there more after that which makes pusher-js ask for the next response, it would be lost.
    fn is_full(&self) -> bool {
        match self.mode {
            Mode::Streaming => self.written > ENOUGH_FOR_PUSHER_JS,
            Mode::Limited => self.written >= ENOUGH_FOR_SOCKJS,
            Mode::Polling | Mode::Call(_) => self.is_done,
        }
    }

    fn leave(&self, state: &mut State) {
        if state.response == Some(self.number) {
            state.response = None;
            state.waker = None;
            state.hang_up = None;
            state.left = Instant::now();
            self.session.left.notify_one();
        }
    }
}

impl Body for Response {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.is_done {
            return Poll::Ready(None);
        }
        let session = Arc::clone(&this.session);
        let mut state = session.state();
        while this.beat.as_mut().poll(context).is_ready() {
            this.beat.as_mut().reset(Instant::now() + session.patience.interval);
            if state.response == Some(this.number) {
                state.heartbeat = Heartbeat::Due;
            }
        }
        let was_crowded = state.waiting_bytes >= MOST_WAITING;
        let text = this.take(&mut state);
        if was_crowded && state.waiting_bytes < MOST_WAITING {
            session.room.notify_one();
        }
        if this.is_done {
            this.leave(&mut state);
        } else if text.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        let session = Arc::clone(&self.session);
        self.leave(&mut session.state());
    }
}

/// What a shard says before it closes a client so.
pub(super) fn refusal(close: &Close) -> String {
    let mut text = String::new();
    ServerEvent::Error { code: Some(close.code().as_u16()), message: close.reason(), channel: None }.write(&mut text);
    text
}

fn gone() -> Close {
    Reason::PONG_NOT_RECEIVED.because("no request came in time")
}

fn too_slow() -> Close {
    Reason::OVER_CAPACITY.because("messages came faster than they were read")
}

fn lost() -> Close {
    Close::new(CloseCode::ABNORMAL, "The connection was lost")
}

/// A client that polls has no response open between two of its requests. One that takes longer, while others are turned away, makes room.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(1);

/// What SockJS calls a response that another one has replaced.
const DISPLACED: CloseCode = CloseCode::new(2010);

/// Units of UTF-16 in a response, above which pusher-js asks for the next one.
const ENOUGH_FOR_PUSHER_JS: usize = 256 * 1024;

/// As SockJS servers do.
const ENOUGH_FOR_SOCKJS: usize = 128 * 1024;

/// Bytes that wait for a client here. Beyond them its messages wait in the shard, whose bound on them is a setting (`outgoing`).
const MOST_WAITING: usize = 256 * 1024;

/// Bytes that a message is counted for besides its own.
const PER_MESSAGE: usize = 32;

/// Bytes that are handed to hyper at a time.
const CHUNK: usize = 16 * 1024;

/// Bytes of messages in a response that holds one frame.
const BATCH: usize = 128 * 1024;
