//! A connection and those who use it: one handle in one task, or several in several.

pub(crate) mod cork;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use taut_proto::{Close, CloseCode, Message, Part};

use crate::driver::{Driver, Progress, Writing};
use crate::error::Cause;
use crate::inbox::Inbox;
use crate::spare::Spare;
use crate::{Error, Transport};

/// A WebSocket, a Sender or a Receiver: the calls that these have in common.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    /// What it has taken over from the connection to be received, all that came in one read; lent by the thread. Most
    /// messages are so received without the lock.
    received: Option<Box<Inbox>>,
}

impl Handle {
    /// The first handle of a connection.
    pub(crate) fn new(driver: Driver<Transport>, subprotocol: Option<&str>) -> Self {
        let state = State {
            driver,
            hub: None,
            handles: 1,
            user: 0,
            is_queued: false,
            writer: 0,
            #[cfg(feature = "stream")]
            has_failed: false,
        };
        Self::of(Arc::new(Shared { state: Mutex::new(state), subprotocol: subprotocol.map(Box::from) }))
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self { shared, received: None }
    }

    /// Has the current cork close the connection when its task leaves it open.
    pub(crate) fn adopt(&self) {
        cork::accepted(&self.shared);
    }

    /// Another one, perhaps for another task.
    pub(crate) fn share(&self) -> Self {
        let mut state = self.shared.lock();
        state.hub.get_or_insert_default();
        state.handles += 1;
        Self::of(Arc::clone(&self.shared))
    }

    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message<'static>>, Error>> {
        self.poll_recv_with(|message, spare| spare.owned(message), cx)
    }

    #[inline]
    pub(crate) fn poll_recv_with<T>(
        &mut self,
        mut receive: impl FnMut(Message<'_>, &mut Spare) -> T,
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

    /// Takes over what has come; false after a clean close.
    #[inline(never)]
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let Self { shared, received } = self;
        shared.poll(cx, |driver, writing, cx| driver.poll_received(received, writing, cx))
    }

    /// As `poll_send`, for whoever receives as well: keeps the memory of the message for the next that is received.
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

    /// The message is of no more use when it is accepted.
    #[inline]
    pub(crate) fn poll_send(&self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The usual case by itself: one of many messages of one poll.
        let mut state = self.shared.lock();
        if state.is_queued_in(cork::current()) && state.driver.queue(message) {
            return Poll::Ready(Ok(()));
        }
        drop(state);
        self.poll_send_anew(message, cx)
    }

    #[inline(never)]
    fn poll_send_anew(&self, message: &mut Message<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, writing, cx| {
            ready!(driver.poll_ready(cx))?;
            driver.accept(message, writing, cx).into()
        })
    }

    /// As `poll_send`, but nothing is written unless much has gathered.
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
        is_last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, writing, cx| {
            ready!(driver.poll_ready(cx))?;
            driver.accept_fragment(fragment, is_last, writing, cx).into()
        })
    }

    /// Begins the close, for nobody who waits.
    pub(crate) fn begin_close(&self, close: &Close) {
        let _ = self.shared.begin_close(close);
    }

    pub(crate) fn try_send(&self, message: &mut Message<'_>) -> Result<(), Error> {
        self.shared.call(|driver, writing, cx| driver.try_accept(message, writing, cx))
    }

    pub(crate) fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        self.shared.call(|driver, writing, cx| driver.ping(payload, writing, cx))
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll(cx, |driver, _, cx| driver.poll_flush(cx))
    }

    pub(crate) fn poll_close(&self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let code = close.code();
        if !code.is_sendable() && code != CloseCode::NO_STATUS {
            return Poll::Ready(Err(Cause::CloseCode(code).into()));
        }
        self.shared.poll(cx, |driver, _, cx| driver.poll_close(close, cx))
    }

    /// For the traits of `futures`, whose users may poll one handle from two tasks.
    #[cfg(feature = "stream")]
    pub(crate) fn shared_by_tasks(&mut self) -> &mut Self {
        self.shared.lock().hub.get_or_insert_default();
        self
    }

    /// As `poll_recv`, but after an error comes the end.
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
        self.shared.subprotocol.as_deref()
    }

    /// Looks at the driver.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Driver<Transport>) -> T) -> T {
        look(&self.shared.lock().driver)
    }
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
/// The lock is there for [`split`](crate::WebSocket::split) and for the cork; a WebSocket that one task has to itself
/// takes it without a wait.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Here, since a WebSocket is small, and whoever awaits may hold it more than once.
    subprotocol: Option<Box<str>>,
}

struct State {
    driver: Driver<Transport>,
    /// Set when there is more than one task to be woken.
    hub: Option<Arc<Hub>>,
    /// How many of them there are: whole ones, senders and receivers.
    handles: u32,
    /// The cork inside of which it was used last; zero: it was outside of any.
    user: u64,
    /// That cork knows that something is queued.
    is_queued: bool,
    /// The cork that writes what the stream did not take when it was taken out; zero: none.
    writer: u64,
    /// A `Stream` has told the error that it ended with.
    #[cfg(feature = "stream")]
    has_failed: bool,
}

impl Shared {
    /// Polls the driver on behalf of a handle; `work` is told whether what is sent is to be written at once.
    fn poll<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        work: impl FnOnce(&mut Driver<Transport>, Writing, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.work(Some(cx.waker()), work)
    }

    fn work<T>(
        self: &Arc<Self>,
        waiter: Option<&Waker>,
        work: impl FnOnce(&mut Driver<Transport>, Writing, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let cork = cork::current();
        let writing = if cork == 0 { Writing::Now } else { Writing::Later };
        let mut state = self.lock();
        // Inside of a cork, what is sent is written when that is taken out.
        if state.user != cork {
            (state.user, state.is_queued) = (cork, false);
        }
        let (result, woken) = state.work(waiter, |driver, cx| work(driver, writing, cx));
        let is_new = writing == Writing::Later && !state.is_queued && state.driver.pending() > 0;
        state.is_queued |= is_new;
        drop(state);
        if is_new {
            cork::queued(Arc::clone(self));
        }
        woken.wake();
        result
    }

    /// The same for what never waits.
    fn call<T>(self: &Arc<Self>, work: impl FnOnce(&mut Driver<Transport>, Writing, &mut Context<'_>) -> T) -> T {
        match self.work(None, |driver, writing, cx| Poll::Ready(work(driver, writing, cx))) {
            Poll::Ready(result) => result,
            Poll::Pending => unreachable!("it was ready"),
        }
    }

    /// Writes what was queued inside of the cork; ready when that is done or is no concern of the cork's any more.
    pub(crate) fn poll_corked(&self, cork: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        state.is_queued &= state.user != cork;
        // If it is one task's and not ours, the WebSocket has moved to that one, which writes.
        let is_ours = state.hub.is_some() || state.user == cork;
        let (result, woken) = state.work(Some(cx.waker()), |driver, cx| {
            let written = if is_ours { driver.poll_write(cx) } else { Poll::Ready(()) };
            driver.settle();
            written
        });
        if result.is_ready() && state.writer == cork {
            state.writer = 0;
        }
        drop(state);
        woken.wake();
        result
    }

    /// Makes the cork the one that writes the rest, unless one that is as good is that already.
    pub(crate) fn claim(&self, cork: u64) -> bool {
        let mut state = self.lock();
        let is_taken = state.writer == cork || (state.hub.is_some() && state.writer != 0);
        if !is_taken {
            state.writer = cork;
        }
        !is_taken
    }

    /// The cork does not write any more.
    pub(crate) fn release(&self, cork: u64) {
        let mut state = self.lock();
        if state.writer == cork {
            state.writer = 0;
        }
    }

    /// Begins the close and writes what can be written, on behalf of nobody who waits; whether it had not begun before.
    pub(crate) fn begin_close(&self, close: &Close) -> bool {
        let mut state = self.lock();
        if !state.driver.is_open() {
            return false;
        }
        // Whoever waits to write what was pending before writes this as well, and must not lose its wake-up.
        let is_free = state.driver.pending() == 0;
        let (_, woken) = state.work(None, |driver, cx| {
            driver.begin_close(close);
            if is_free { driver.poll_write(cx) } else { Poll::Pending }
        });
        drop(state);
        woken.wake();
        true
    }

    /// Closes, without a handle.
    pub(crate) fn poll_close(&self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        let (result, woken) = state.work(Some(cx.waker()), |driver, cx| driver.poll_close(close, cx));
        drop(state);
        woken.wake();
        result
    }

    /// Whether there is no handle left.
    pub(crate) fn is_dropped(&self) -> bool {
        self.lock().handles == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside of the driver would be a bug; what it leaves behind is still a connection that can be dropped.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether that cork knows already that something is to be written, and nobody else waits for this connection.
    #[inline]
    fn is_queued_in(&self, cork: u64) -> bool {
        self.is_queued && self.user == cork && self.hub.is_none()
    }

    /// Has the driver work, and tells whom to wake once the lock is released.
    #[inline]
    fn work<T>(
        &mut self,
        waiter: Option<&Waker>,
        work: impl FnOnce(&mut Driver<Transport>, &mut Context<'_>) -> Poll<T>,
    ) -> (Poll<T>, Woken) {
        let watch = self.hub.as_ref().map(|hub| Watch::begin(Arc::clone(hub), waiter, &self.driver));
        let waker = watch.as_ref().map(|watch| &watch.waker).or(waiter).unwrap_or(Waker::noop());
        let result = work(&mut self.driver, &mut Context::from_waker(waker));
        let woken = watch.map_or_else(Woken::default, |watch| watch.end(waiter, result.is_ready(), &self.driver));
        (result, woken)
    }
}

/// Looks after those who wait for one connection while one of them works.
struct Watch {
    hub: Arc<Hub>,
    /// A stream wakes whoever polled it last. Here that is always the hub, which wakes all who wait: or else a future
    /// that is dropped would take another one's wake-up with it.
    waker: Waker,
    /// Whoever works was not there before.
    is_newcomer: bool,
    before: Progress,
}

impl Watch {
    #[cold]
    fn begin(hub: Arc<Hub>, waiter: Option<&Waker>, driver: &Driver<Transport>) -> Self {
        // First, since the stream may wake the hub before the work is done.
        let is_newcomer = waiter.is_some_and(|waker| hub.register(waker));
        Self { waker: Waker::from(Arc::clone(&hub)), hub, is_newcomer, before: driver.progress() }
    }

    #[cold]
    fn end(self, waiter: Option<&Waker>, is_ready: bool, driver: &Driver<Transport>) -> Woken {
        // Whoever was there before is another future of the same task, which waits.
        if let Some(newcomer) = waiter.filter(|_| self.is_newcomer && is_ready) {
            self.hub.forget(newcomer);
        }
        if driver.progress() == self.before { Woken::default() } else { self.hub.take() }
    }
}

/// Those who wait for one connection.
#[derive(Default)]
struct Hub(Mutex<Vec<Waker>>);

impl Hub {
    /// Whether it was not there before.
    fn register(&self, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        if waiting.iter().any(|registered| registered.will_wake(waker)) {
            return false;
        }
        // Some belong to futures that were dropped, and who knows how many. Those that do wait will be back.
        let all = if waiting.len() < MOST { Vec::new() } else { std::mem::take(&mut *waiting) };
        waiting.push(waker.clone());
        drop(waiting);
        Woken::from(all).wake();
        true
    }

    fn forget(&self, waker: &Waker) {
        self.lock().retain(|registered| !registered.will_wake(waker));
    }

    fn take(&self) -> Woken {
        std::mem::take(&mut *self.lock()).into()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Hub {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Outside of the lock: a waker may do anything.
        self.take().wake();
    }
}

/// Whom to wake.
#[derive(Default)]
#[must_use]
struct Woken(Option<Box<[Waker]>>);

impl From<Vec<Waker>> for Woken {
    fn from(wakers: Vec<Waker>) -> Self {
        Self((!wakers.is_empty()).then(|| wakers.into_boxed_slice()))
    }
}

impl Woken {
    fn wake(self) {
        self.0.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Wakers that wait for one connection before all of them are asked to say again whether they do.
const MOST: usize = 256;

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
        let sender = Handle::new(driver, None).share();
        let mut large = Message::from(vec![0; 2 << 20]);
        assert!(sender.try_send(&mut large).is_ok());
        let most = || sender.shared.lock().hub.as_ref().map_or(0, |hub| hub.lock().len());
        for _ in 0..10_000 {
            // Polled once and dropped, each by another task.
            let waker = Waker::from(Arc::new(Sleeper));
            assert!(sender.poll_send(&mut large, &mut Context::from_waker(&waker)).is_pending());
            assert!(most() <= MOST + 1, "{}", most());
        }
        // Nor is anything left of those that did not have to wait.
        let before = most();
        for _ in 0..100 {
            assert!(sender.try_send(&mut large).is_err());
        }
        assert!(most() <= before + 1);
    }
}
