//! A connection and its handles: one in one task, or several in several tasks.

pub(crate) mod cork;

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use taut_proto::{Close, CloseCode, Message, Part};

use crate::error::Cause;
use crate::native::buffers::{Inbox, Recycled};
use crate::native::driver::{Driver, Progress, Writing};
use crate::native::trace::Reporter;
use crate::{Error, Response, Transport};
use cork::CorkId;

/// The calls that a `WebSocket`, a `Sender` and a `Receiver` have in common.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    /// Messages of one read that were taken over from the connection, in an inbox that the thread lends. Most messages
    /// are received from here, without the lock.
    received: Option<Box<Inbox>>,
}

impl Handle {
    /// The first handle of a connection; a client's has the response that opened it.
    pub(crate) fn new(driver: Driver<Transport>, subprotocol: Option<&str>, response: Option<Response>) -> Self {
        let state = State {
            driver,
            wakers: None,
            handles: 1,
            last_cork: None,
            is_queued: false,
            writing_cork: None,
            #[cfg(feature = "stream")]
            has_failed: false,
        };
        let opening = (subprotocol.is_some() || response.is_some())
            .then(|| Box::new(Opening { subprotocol: subprotocol.map(Box::from), response }));
        Self::of(Arc::new(Shared { state: Mutex::new(state), opening }))
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self { shared, received: None }
    }

    /// Has the current cork close the connection if its task leaves it open.
    pub(crate) fn adopt(&self) {
        cork::accepted(&self.shared);
    }

    /// Another handle, perhaps for another task.
    pub(crate) fn share(&self) -> Self {
        let mut state = self.shared.lock();
        state.wakers.get_or_insert_default();
        state.handles += 1;
        Self::of(Arc::clone(&self.shared))
    }

    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message<'static>>, Error>> {
        self.poll_recv_with(|message, recycled| recycled.owned(message), cx)
    }

    #[inline]
    pub(crate) fn poll_recv_with<T>(
        &mut self,
        mut receive: impl FnMut(Message<'_>, &mut Recycled) -> T,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<T>, Error>> {
        loop {
            if let Some(received) = self.received.as_mut().and_then(|inbox| inbox.pop_with(&mut receive)) {
                return Poll::Ready(Ok(Some(received)));
            }
            if !ready!(self.poll_received(cx))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Receives a message and lends it to `receive`, which is called at most once.
    pub(crate) async fn recv_with<T>(&mut self, receive: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, Error> {
        let mut receive = Some(receive);
        let received =
            poll_fn(|cx| self.poll_recv_with(|message, _| receive.take().map(|receive| receive(message)), cx));
        received.await.map(Option::flatten)
    }

    /// Takes over the messages that have come; false after a clean close.
    #[inline(never)]
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let Self { shared, received } = self;
        shared.poll(cx, |driver, writing, cx| driver.poll_received(received, writing, cx))
    }

    /// Sends for a handle that receives as well: the memory of the message is kept for the next that is received.
    #[inline]
    pub(crate) fn poll_send_and_keep(
        &mut self,
        message: &mut Message<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_send(message, cx))?;
        if let Some(inbox) = &mut self.received {
            inbox.keep(message);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a message, of which nothing may be left when it is accepted.
    #[inline]
    pub(crate) fn poll_send(&self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The usual case: one of many messages of one poll.
        let mut state = self.shared.lock();
        if state.is_queued_in(cork::current()) && state.driver.queue(message) {
            return Poll::Ready(Ok(()));
        }
        drop(state);
        self.poll_send_uncorked(message, cx)
    }

    #[inline(never)]
    fn poll_send_uncorked(&self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, writing, cx| {
            ready!(driver.poll_ready(cx))?;
            driver.accept(message, writing, cx).into()
        })
    }

    /// Sends a message, but writes nothing unless much has gathered.
    pub(crate) fn poll_feed(&self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, _, cx| {
            ready!(driver.poll_ready(cx))?;
            driver.accept(message, Writing::Later, cx).into()
        })
    }

    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part<'static>>, Error>> {
        if let Some(part) = self.received.as_mut().and_then(|inbox| inbox.pop_part()) {
            return Poll::Ready(Ok(Some(part)));
        }
        self.shared.poll(cx, |driver, _, cx| driver.poll_part(cx))
    }

    pub(crate) fn skip_parts(&self) {
        self.shared.call(|driver, _, _| driver.skip_parts());
    }

    pub(crate) fn poll_fragment(
        &self,
        fragment: &Message<'_>,
        has_begun: bool,
        is_last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, writing, cx| {
            ready!(driver.poll_ready_for_part(has_begun, cx))?;
            driver.accept_fragment(fragment, is_last, writing, cx).into()
        })
    }

    /// Starts the close, without waiting.
    pub(crate) fn begin_close(&self, close: &Close) {
        let _ = self.shared.begin_close(close);
    }

    pub(crate) fn try_send(&self, message: &mut Message<'_>) -> Result<(), Error> {
        self.shared.call(|driver, writing, cx| driver.try_accept(message, writing, cx))
    }

    pub(crate) fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        self.shared.call(|driver, writing, cx| driver.ping(payload, writing, cx))
    }

    pub(crate) fn pong(&self, payload: &[u8]) -> Result<(), Error> {
        self.shared.call(|driver, writing, cx| driver.pong(payload, writing, cx))
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, _, cx| driver.poll_flush(cx))
    }

    /// Starts the close with a code that may be sent, without waiting.
    pub(crate) fn begin_valid_close(&self, close: &Close) -> Result<(), Error> {
        check_code(close)?;
        self.begin_close(close);
        Ok(())
    }

    pub(crate) fn poll_close(&self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        check_code(close)?;
        self.shared.poll(cx, |driver, _, cx| driver.poll_close(close, cx))
    }

    /// For the traits of `futures`, whose users may poll one handle from two tasks.
    #[cfg(feature = "stream")]
    pub(crate) fn shared_by_tasks(&mut self) -> &mut Self {
        self.shared.lock().wakers.get_or_insert_default();
        self
    }

    /// Receives for a `Stream`, which ends after an error.
    #[cfg(feature = "stream")]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message<'static>, Error>>> {
        if self.shared.lock().has_failed {
            return Poll::Ready(None);
        }
        let received = ready!(self.poll_recv(cx));
        self.shared.lock().has_failed = received.is_err();
        Poll::Ready(received.transpose())
    }

    #[cfg(feature = "stream")]
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, _, cx| driver.poll_ready(cx))
    }

    /// Accepts a message after `poll_ready`, and writes it later.
    #[cfg(feature = "stream")]
    pub(crate) fn start_send(&self, message: &mut Message<'_>) -> Result<(), Error> {
        self.shared.call(|driver, _, cx| {
            // It may have been closed since.
            driver.check_open()?;
            driver.accept(message, Writing::Later, cx)
        })
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.shared.opening.as_ref()?.subprotocol.as_deref()
    }

    pub(crate) fn response(&self) -> Option<&Response> {
        self.shared.opening.as_ref()?.response.as_ref()
    }

    /// Reports what is sent and received from now on.
    pub(crate) fn trace(&self, reporter: Reporter) {
        self.shared.lock().driver.trace(reporter);
    }

    /// Looks at the driver.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Driver<Transport>) -> T) -> T {
        look(&self.shared.lock().driver)
    }
}

fn check_code(close: &Close) -> Result<(), Error> {
    let code = close.code();
    let is_valid = code.is_sendable() || code == CloseCode::NO_STATUS;
    if is_valid { Ok(()) } else { Err(Cause::CloseCode(code).into()) }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.handles -= 1;
        let is_last = state.handles == 0;
        drop(state);
        if is_last {
            cork::dropped();
        }
    }
}

/// A connection behind its lock.
///
/// The lock is there for [`split`](crate::WebSocket::split) and for the cork. A WebSocket that belongs to one task
/// never waits for it.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Here and not in the handle, because a WebSocket should be small: its owner's future may hold it more than once.
    /// Boxed, because most connections of a server have none.
    opening: Option<Box<Opening>>,
}

/// What is kept of the handshake.
struct Opening {
    subprotocol: Option<Box<str>>,
    response: Option<Response>,
}

struct State {
    driver: Driver<Transport>,
    /// Set if more than one task may wait.
    wakers: Option<Arc<WakerSet>>,
    /// Whole WebSockets, senders and receivers.
    handles: u32,
    /// The cork inside which the connection was used last.
    last_cork: Option<CorkId>,
    /// That cork knows that something is queued.
    is_queued: bool,
    /// The cork that writes what the stream did not take when that cork was removed.
    writing_cork: Option<CorkId>,
    /// A `Stream` has returned the error that it ended with.
    #[cfg(feature = "stream")]
    has_failed: bool,
}

impl Shared {
    /// Polls the driver for a handle, inside the current cork.
    fn poll<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Driver<Transport>, Writing, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.in_cork(Some(cx.waker()), poll)
    }

    /// Calls the driver for a handle, inside the current cork, without waiting.
    fn call<T>(self: &Arc<Self>, call: impl FnOnce(&mut Driver<Transport>, Writing, &mut Context<'_>) -> T) -> T {
        match self.in_cork(None, |driver, writing, cx| Poll::Ready(call(driver, writing, cx))) {
            Poll::Ready(result) => result,
            Poll::Pending => unreachable!("it was ready"),
        }
    }

    /// Tells `poll` whether to write what is sent at once. Inside a cork it is written when the cork is removed.
    fn in_cork<T>(
        self: &Arc<Self>,
        waiter: Option<&Waker>,
        poll: impl FnOnce(&mut Driver<Transport>, Writing, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let cork = cork::current();
        let writing = if cork.is_none() { Writing::Now } else { Writing::Later };
        self.with_driver(waiter, |state, cx| {
            if !CorkId::is_same(state.last_cork, cork) {
                (state.last_cork, state.is_queued) = (cork, false);
            }
            let result = poll(&mut state.driver, writing, cx);
            if writing == Writing::Later && !state.is_queued && state.driver.pending() > 0 {
                state.is_queued = true;
                cork::queued(Arc::clone(self));
            }
            result
        })
    }

    /// Locks the connection for `poll`, then wakes others who wait for it if something has changed for them.
    #[inline]
    fn with_driver<T>(
        &self,
        waiter: Option<&Waker>,
        poll: impl FnOnce(&mut State, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut state = self.lock();
        let others = state.wakers.as_ref().map(|wakers| WakeOthers::begin(Arc::clone(wakers), waiter, &state.driver));
        let waker = others.as_ref().map(|others| &others.waker).or(waiter).unwrap_or(Waker::noop());
        let result = poll(&mut state, &mut Context::from_waker(waker));
        let to_wake =
            others.map_or_else(ToWake::default, |others| others.end(waiter, result.is_ready(), &state.driver));
        drop(state);
        to_wake.wake();
        result
    }

    /// Writes what was queued inside the cork. Ready when all is written, or when another task does it.
    pub(crate) fn poll_corked(&self, cork: CorkId, cx: &mut Context<'_>) -> Poll<()> {
        self.with_driver(Some(cx.waker()), |state, cx| {
            let is_last = state.last_cork == Some(cork);
            state.is_queued &= !is_last;
            // An unsplit WebSocket that was used outside this cork since has moved to another task, which writes.
            let is_ours = state.wakers.is_some() || is_last;
            let written = if is_ours { state.driver.poll_write(cx) } else { Poll::Ready(()) };
            state.driver.release_buffers();
            if written.is_ready() && state.writing_cork == Some(cork) {
                state.writing_cork = None;
            }
            written
        })
    }

    /// Makes the cork the one that writes the rest, unless it is that already, or another one is that does as well.
    pub(crate) fn claim(&self, cork: CorkId) -> bool {
        let mut state = self.lock();
        let is_taken = state.writing_cork == Some(cork) || (state.wakers.is_some() && state.writing_cork.is_some());
        if !is_taken {
            state.writing_cork = Some(cork);
        }
        !is_taken
    }

    /// The cork no longer writes.
    pub(crate) fn release(&self, cork: CorkId) {
        let mut state = self.lock();
        if state.writing_cork == Some(cork) {
            state.writing_cork = None;
        }
    }

    /// Starts the close and writes what the stream takes, without waiting. Returns whether it had not started before.
    pub(crate) fn begin_close(&self, close: &Close) -> bool {
        let begun = self.with_driver(None, |state, cx| {
            if !state.driver.is_open() {
                return Poll::Ready(false);
            }
            // A task that waits to write what was pending before writes this as well, and must not lose its wake-up.
            let is_free = state.driver.pending() == 0;
            state.driver.begin_close(close);
            if is_free {
                let _ = state.driver.poll_write(cx);
            }
            Poll::Ready(true)
        });
        begun == Poll::Ready(true)
    }

    /// Closes, without a handle.
    pub(crate) fn poll_close(&self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.with_driver(Some(cx.waker()), |state, cx| state.driver.poll_close(close, cx))
    }

    /// Whether there is no handle left.
    pub(crate) fn is_dropped(&self) -> bool {
        self.lock().handles == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside the driver would be a bug; what it leaves behind is still a connection that can be dropped.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether that cork knows already that something is to be written, and no other task waits for this connection.
    #[inline]
    fn is_queued_in(&self, cork: Option<CorkId>) -> bool {
        self.is_queued && CorkId::is_same(self.last_cork, cork) && self.wakers.is_none()
    }
}

/// Wakes the others who wait for a connection, if a call has changed something for them.
struct WakeOthers {
    wakers: Arc<WakerSet>,
    /// A stream wakes the task that polled it last. Here that is always the set, which wakes all who wait: otherwise a
    /// future that is dropped would take another one's wake-up with it.
    waker: Waker,
    /// The caller did not wait before.
    is_newcomer: bool,
    before: Progress,
}

impl WakeOthers {
    #[cold]
    fn begin(wakers: Arc<WakerSet>, waiter: Option<&Waker>, driver: &Driver<Transport>) -> Self {
        // First, since the stream may wake the set before the call returns.
        let is_newcomer = waiter.is_some_and(|waker| wakers.register(waker));
        Self { waker: Waker::from(Arc::clone(&wakers)), wakers, is_newcomer, before: driver.progress() }
    }

    #[cold]
    fn end(self, waiter: Option<&Waker>, is_ready: bool, driver: &Driver<Transport>) -> ToWake {
        // A waker that was there before belongs to another future of the same task, which still waits.
        if let Some(newcomer) = waiter.filter(|_| self.is_newcomer && is_ready) {
            self.wakers.forget(newcomer);
        }
        if driver.progress() == self.before { ToWake::default() } else { self.wakers.take() }
    }
}

/// The wakers of all who wait for one connection.
#[derive(Default)]
struct WakerSet(Mutex<Vec<Waker>>);

impl WakerSet {
    /// Adds a waker; returns whether it was not there before.
    fn register(&self, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        if waiting.iter().any(|registered| registered.will_wake(waker)) {
            return false;
        }
        // An unknown number belongs to futures that were dropped. All are woken: those that still wait come back.
        let all = if waiting.len() < MAX_WAKERS { Vec::new() } else { std::mem::take(&mut *waiting) };
        waiting.push(waker.clone());
        drop(waiting);
        ToWake::from(all).wake();
        true
    }

    fn forget(&self, waker: &Waker) {
        self.lock().retain(|registered| !registered.will_wake(waker));
    }

    fn take(&self) -> ToWake {
        std::mem::take(&mut *self.lock()).into()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for WakerSet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Outside the lock: a waker may do anything.
        self.take().wake();
    }
}

/// Wakers to be woken once the lock is released.
#[derive(Default)]
#[must_use]
struct ToWake(Option<Box<[Waker]>>);

impl From<Vec<Waker>> for ToWake {
    fn from(wakers: Vec<Waker>) -> Self {
        Self((!wakers.is_empty()).then(|| wakers.into_boxed_slice()))
    }
}

impl ToWake {
    fn wake(self) {
        self.0.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Wakers that wait for one connection before all of them are woken, to find out which still do.
const MAX_WAKERS: usize = 256;

#[cfg(test)]
mod tests {
    use taut_proto::{Role, Settings};
    use tokio::io::duplex;

    use super::*;

    /// A waker unlike any other.
    struct Sleeper;

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test]
    async fn tasks_that_gave_up_waiting_are_forgotten() {
        let (ours, _theirs) = duplex(64);
        let settings = Arc::new(Settings::server());
        let driver = Driver::new(Transport::new(ours), Role::Server, settings, None, 0, Vec::new());
        let sender = Handle::new(driver, None, None).share();
        let mut large = Message::from(vec![0; 2 << 20]);
        assert!(sender.try_send(&mut large).is_ok());
        let most = || sender.shared.lock().wakers.as_ref().map_or(0, |wakers| wakers.lock().len());
        for _ in 0..10_000 {
            // Polled once and dropped, each by another task.
            let waker = Waker::from(Arc::new(Sleeper));
            assert!(sender.poll_send(&mut large, &mut Context::from_waker(&waker)).is_pending());
            assert!(most() <= MAX_WAKERS + 1, "{}", most());
        }
        // Nor is anything left of those that did not have to wait.
        let before = most();
        for _ in 0..100 {
            assert!(sender.try_send(&mut large).is_err());
        }
        assert!(most() <= before + 1);
    }
}
