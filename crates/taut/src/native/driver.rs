//! Moves bytes between one stream and one [`Connection`].
//!
//! All state is here and none in futures: each `poll_…` does what can be done now and may be left off at any time.

mod io;
mod sending;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use taut_proto::{Close, Connection, Part, Role, Settings, Teardown, Time};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::Error;
use crate::error::Cause;
use crate::native::buffers::{Bounds, Inbox, Queues, ThreadBuffers, Unparsed};
use crate::native::trace::{Reporter, Tracer};

/// A stream and the connection on it.
pub(crate) struct Driver<S> {
    stream: S,
    connection: Connection,
    /// What waits to be written or received; lent by the thread while there is something.
    queues: Option<Box<Queues>>,
    /// Made when first needed; it may fire too early, since deadlines move with what is received.
    timer: Option<Pin<Box<Sleep>>>,
    /// What [`Time`] counts from.
    start: Instant,
    bounds: &'static Bounds,
    phase: Phase,
    /// Once it ends or something is amiss, or if it is traced.
    ending: Option<Box<Ending>>,
    role: Role,
    unflushed: bool,
    /// Of the message that is in progress, if it is received in parts.
    parts: PartState,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// A connection whose handshake is done. `unread` came after the handshake in the same reads.
    pub(crate) fn new(
        stream: S,
        role: Role,
        settings: Arc<Settings>,
        deflate: Option<taut_proto::deflate::NegotiatedDeflate>,
        random: u32,
        unread: Vec<u8>,
    ) -> Self {
        // What came before the end is in the inbox when it comes, and may still be answered.
        let mut connection = Connection::new(role, settings, Time::ZERO, random).with_deferred_end();
        if let Some(agreed) = deflate {
            connection = connection.with_deflate(agreed);
        }
        let unparsed = (!unread.is_empty()).then(|| Unparsed::new(unread));
        Self {
            stream,
            connection,
            queues: unparsed.map(|unparsed| Box::new(Queues { unparsed, ..Queues::default() })),
            timer: None,
            start: Instant::now(),
            bounds: &Bounds::STANDARD,
            phase: Phase::Live,
            ending: None,
            role,
            unflushed: false,
            parts: PartState::None,
        }
    }

    /// Reports what is sent and received from now on.
    pub(crate) fn trace(&mut self, reporter: Reporter) {
        self.ending().tracer = Some(Tracer::new(reporter));
    }

    /// Sets other bounds.
    #[cfg(feature = "testing")]
    pub(crate) fn bounded(mut self, bounds: &'static Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// What others may wait for: it differs when something has changed for them.
    pub(crate) fn progress(&self) -> Progress {
        let is_live = matches!(self.phase, Phase::Live);
        let waiting = self
            .queues
            .as_ref()
            .map_or([0; 3], |queues| [queues.received(), queues.unparsed.len(), queues.outbox.len()]);
        // Who waits for a message's end is told of the connection's as well.
        let is_in_message = self.connection.is_open() && self.connection.is_in_message();
        (waiting, is_live, matches!(self.phase, Phase::Over), is_in_message)
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.connection.round_trip()
    }

    /// Bytes accepted and not yet written.
    pub(crate) fn pending(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.outbox.len())
    }

    /// Whether a message could be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.check_open().is_ok()
    }

    /// What the peer's close frame said.
    pub(crate) fn peer_close(&self) -> Option<&Close> {
        self.outcome()?.as_ref().ok()
    }

    /// Messages that came while we were closing and found no room.
    #[cfg(feature = "testing")]
    pub(crate) fn discarded(&self) -> usize {
        self.ending.as_ref().map_or(0, |ending| ending.discarded)
    }

    /// Hands over what was received, to be taken message by message without coming back here; false after a clean
    /// close. A caller that has to wait gives its inbox back.
    pub(crate) fn poll_received(
        &mut self,
        received: &mut Option<Box<Inbox>>,
        writing: Writing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Error>> {
        // Whoever wants whole messages has no use for the parts of one.
        self.skip(PartState::Begun);
        self.skip(PartState::Received);
        for _ in 0..MAX_STEPS {
            if let Some(queues) = self.queues.as_mut().filter(|queues| !queues.inbox.is_empty()) {
                let own = received.get_or_insert_with(|| ThreadBuffers::with(ThreadBuffers::take_inbox));
                std::mem::swap(&mut **own, &mut queues.inbox);
                // Pongs that came of the same read do not wait for an application that takes its time.
                if writing == Writing::Now {
                    let _ = self.poll_write(cx);
                }
                self.release_buffers();
                return Poll::Ready(Ok(true));
            }
            self.conclude();
            if matches!(self.phase, Phase::Over) {
                return Poll::Ready(self.received_all().map(|()| false));
            }
            if self.poll_step(Overflow::Wait, cx).is_pending() {
                self.release_buffers();
                ThreadBuffers::recycle_inbox(received);
                return Poll::Pending;
            }
        }
        yield_now(cx)
    }

    /// The next part of the message that is in progress, or of the next one; `None` after a clean close.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part<'static>>, Error>> {
        for _ in 0..MAX_STEPS {
            if let Some(part) = self.queues.as_mut().and_then(|queues| queues.pop_part()) {
                self.parts = match self.parts {
                    PartState::Begun | PartState::Received if part.is_last => PartState::None,
                    PartState::Begun => PartState::Received,
                    parts => parts,
                };
                let _ = self.poll_write(cx);
                self.release_buffers();
                return Poll::Ready(Ok(Some(part)));
            }
            self.conclude();
            if matches!(self.phase, Phase::Over) {
                return Poll::Ready(self.received_all().map(|()| None));
            }
            if self.poll_step(Overflow::Parts, cx).is_pending() {
                self.release_buffers();
                return Poll::Pending;
            }
        }
        yield_now(cx)
    }

    /// Gives up the rest of a message of which parts were received. One that has begun meanwhile is still to be
    /// received.
    pub(crate) fn skip_parts(&mut self) {
        self.skip(PartState::Received);
    }

    fn skip(&mut self, parts: PartState) {
        if self.parts == parts {
            self.parts = PartState::Skipped;
            if let Some(part) = self.queues.as_mut().and_then(|queues| queues.part.take())
                && part.is_last
            {
                self.parts = PartState::None;
            }
        }
    }

    /// Queues a close frame, if none was sent yet.
    pub(crate) fn begin_close(&mut self, close: &Close) {
        // The peer may have done so already.
        self.conclude();
        if self.connection.is_open() {
            let now = self.now();
            let Self { connection, queues, .. } = self;
            ThreadBuffers::with(|buffers| {
                let Queues { outbox, .. } = buffers.fill_in(queues);
                connection.close(close.clone(), now, &mut buffers.scratch, outbox);
            });
            let close_by = self.connection.deadline();
            let ending = self.ending();
            ending.close_by = close_by;
            ending.since.get_or_insert(now);
        }
    }

    /// Begins the close, if that was not done, and sees it through.
    pub(crate) fn poll_close(&mut self, close: &Close, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.begin_close(close);
        for _ in 0..MAX_STEPS {
            if matches!(self.phase, Phase::Over) {
                return Poll::Ready(self.result());
            }
            if self.poll_step(Overflow::Discard, cx).is_pending() {
                self.release_buffers();
                return Poll::Pending;
            }
        }
        yield_now(cx)
    }

    /// Whether a message can be accepted.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match (self.outcome(), self.broken()) {
            (Some(Err(error)), _) | (None, Some(error)) => Err(error.clone()),
            _ if self.connection.is_open() => Ok(()),
            _ => Err(Cause::Closed.into()),
        }
    }

    fn result(&self) -> Result<(), Error> {
        match self.outcome() {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// An error if the peer has begun a message that it did not finish. Only for those who receive: to close or to
    /// send, a message that was cut off does not matter.
    fn received_all(&self) -> Result<(), Error> {
        match self.ending.as_deref() {
            // Of a message that the application gave up nothing is missed.
            Some(Ending { outcome: Some(Ok(close)), is_cut_off: true, .. }) if self.parts != PartState::Skipped => {
                Err(Cause::CutOff(close.clone()).into())
            }
            _ => self.result(),
        }
    }

    /// When the first sign of the connection's end came: the peer's or our close, a violation, a stream that broke.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        let since = self.ending.as_ref()?.since?;
        self.start.checked_add(since - Time::ZERO)
    }

    fn outcome(&self) -> Option<&Result<Close, Error>> {
        self.ending.as_ref()?.outcome.as_ref()
    }

    fn broken(&self) -> Option<&Error> {
        self.ending.as_ref()?.broken.as_ref()
    }

    fn ending(&mut self) -> &mut Ending {
        self.ending.get_or_insert_default()
    }

    /// Gives back to the thread what is not in use.
    pub(crate) fn release_buffers(&mut self) {
        if self.queues.as_ref().is_some_and(|queues| queues.is_empty()) {
            ThreadBuffers::recycle_queues(self.queues.take());
        }
    }

    fn now(&self) -> Time {
        let micros = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// What reports, if the connection is traced.
fn tracer(ending: &mut Option<Box<Ending>>) -> Option<&mut Tracer> {
    ending.as_mut()?.tracer.as_mut()
}

/// What waits in a driver, whether it is live and over, and whether a message is being sent in parts.
pub(crate) type Progress = ([usize; 3], bool, bool, bool);

/// When what is sent is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// At once, as far as the stream takes it.
    Now,
    /// Together with everything else that is sent during the poll; the caller sees to it.
    Later,
}

/// Where the connection stands.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Live,
    /// The last frame is in the outbox, or was written, and the peer's has come or is no longer wanted. What is left is
    /// the [`Teardown`] of the TCP connection.
    Ending,
    Over,
}

/// What to do with input when the inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    /// It waits.
    Wait,
    /// Messages are discarded: to close, we wait for the close frame, which may come behind other messages.
    Discard,
    /// There is room for one message, or for a part of it if it does not lie within the read.
    Parts,
}

/// The state of the message in progress, if it is received in parts. It lasts until the last part is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    /// There is none that is received in parts.
    None,
    /// Its first part has come, and nobody has taken it.
    Begun,
    /// Its first part was taken, and somebody waits for the others.
    Received,
    /// The rest of it is not wanted.
    Skipped,
}

/// What only a connection has to remember that ends, that is at a halt, or that is traced.
#[derive(Default)]
struct Ending {
    /// If somebody wants to be told what is sent and received.
    tracer: Option<Tracer>,
    /// When the first sign of it came.
    since: Option<Time>,
    /// How the peer has ended the protocol, while messages wait that came before.
    deferred: Option<Result<Close, Error>>,
    /// The peer's close frame came in the middle of a message.
    is_cut_off: bool,
    /// How it ended: what the peer's close frame said, or what went wrong.
    outcome: Option<Result<Close, Error>>,
    /// The stream takes no more; what it still gives is worth reading, since it may hold the reason.
    broken: Option<Error>,
    /// By when the connection has ended, if we began the close.
    close_by: Option<Time>,
    /// How the TCP connection ends, once the protocol has.
    teardown: Option<Teardown>,
    /// When sending came to a halt because neither side reads.
    stalled: Option<Time>,
    /// Messages that came while we were closing and found no room.
    discarded: usize,
}

/// Comes back later: a stream that is always ready must not keep the thread from other tasks.
fn yield_now<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Steps of one poll.
const MAX_STEPS: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use taut_proto::Message;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

    use super::*;

    fn server(capacity: usize, unread: &[u8]) -> (Driver<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(capacity);
        (Driver::new(ours, Role::Server, Arc::new(Settings::server()), None, 100, unread.to_vec()), theirs)
    }

    /// A masked text frame, the mask being zeros.
    fn frame(text: &str) -> Vec<u8> {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    type Received = Option<Box<Inbox>>;

    /// As a handle does it.
    async fn recv<S>(driver: &mut Driver<S>, received: &mut Received) -> Result<Option<Message<'static>>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            if let Some(message) = received.as_mut().and_then(|inbox| inbox.pop()) {
                return Ok(Some(message));
            }
            if !poll_fn(|cx| driver.poll_received(received, Writing::Now, cx)).await? {
                return Ok(None);
            }
        }
    }

    async fn is_idle(driver: &mut Driver<DuplexStream>, received: &mut Received) -> bool {
        // Not a single poll: tokio makes a task that has done much yield with work left.
        tokio::time::timeout(Duration::from_millis(1), recv(driver, received)).await.is_err()
    }

    fn held(driver: &Driver<DuplexStream>, received: &Received) -> [usize; 3] {
        [driver.connection.buffered(), usize::from(driver.queues.is_some()), usize::from(received.is_some())]
    }

    #[test]
    fn the_state_of_a_connection_is_small() {
        println!("driver {}, connection {}", size_of::<Driver<tokio::net::TcpStream>>(), size_of::<Connection>());
        assert!(size_of::<Driver<tokio::net::TcpStream>>() <= size_of::<Connection>() + 96);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_owns_no_buffer() {
        let (mut driver, mut peer) = server(1 << 20, b"");
        let mut received = None;
        for _ in 0..5 {
            peer.write_all(&frame("hello").repeat(2000)).await.unwrap();
            for _ in 0..2000 {
                let mut message = recv(&mut driver, &mut received).await.unwrap().unwrap();
                assert_eq!(message.as_text(), Some("hello"));
                poll_fn(|cx| driver.accept(&mut message, Writing::Now, cx).into()).await.unwrap();
            }
            assert!(is_idle(&mut driver, &mut received).await);
            assert_eq!(held(&driver, &received), [0; 3]);
            let mut echoed = vec![0; 7 * 2000];
            peer.read_exact(&mut echoed).await.unwrap();
            assert_eq!(echoed, b"\x81\x05hello".repeat(2000));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_inbox_is_bounded_by_messages_and_by_bytes() {
        // A full outbox makes `poll_ready` read, and nobody receives.
        for (piece, most) in [(frame(""), 1024), (frame(&"x".repeat(125)), 1024)] {
            let (mut driver, mut peer) = server(64 << 10, b"");
            poll_fn(|cx| driver.accept(&mut Message::from(vec![0; 2 << 20]), Writing::Now, cx).into()).await.unwrap();
            let flood = tokio::spawn(async move { peer.write_all(&piece.repeat((1 << 20) / piece.len())).await });
            let waited = tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| driver.poll_ready(cx))).await;
            assert!(waited.is_err(), "nobody reads: {waited:?}");
            assert_eq!(driver.progress().0[0], most);
            assert!(driver.queues.as_ref().is_some_and(|queues| queues.unparsed.len() <= 128 << 10));
            drop(driver);
            assert!(flood.await.unwrap().is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_with_the_handshake_is_received_first() {
        let (mut driver, mut peer) = server(4096, &[frame("one"), frame("two")[..4].to_vec()].concat());
        peer.write_all(&frame("two")[4..]).await.unwrap();
        let mut received = None;
        for expected in ["one", "two"] {
            let message = recv(&mut driver, &mut received).await.unwrap();
            assert_eq!(message, Some(Message::from(expected)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_to_send_goes_on_once_the_peer_has_read_all_at_once() {
        let (mut driver, mut peer) = server(2 << 20, b"");
        for length in [2 << 20, 3 << 19] {
            poll_fn(|cx| driver.accept(&mut Message::from(vec![0; length]), Writing::Now, cx).into()).await.unwrap();
        }
        let ready = tokio::spawn(async move { poll_fn(|cx| driver.poll_ready(cx)).await });
        tokio::task::yield_now().await;
        assert!(!ready.is_finished(), "more is pending than may be");
        // All of it is written then, and nothing is left to be woken for; nor does the peer say anything.
        peer.read_exact(&mut vec![0; 2 << 20]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), ready).await.expect("woken").unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_reads_on_behind_a_full_inbox() {
        let (mut driver, mut peer) = server(64 << 10, b"");
        peer.write_all(&frame("x").repeat(3000)).await.unwrap();
        peer.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
        let reading = tokio::spawn(async move {
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).await.map(|_| rest)
        });
        poll_fn(|cx| driver.poll_close(&taut_proto::CloseCode::GOING_AWAY.into(), cx)).await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b"\x88\x02\x03\xe9");
        assert_eq!((driver.progress().0[0], driver.discarded()), (1024, 3000 - 1024));
        let mut received = None;
        for _ in 0..1024 {
            assert!(recv(&mut driver, &mut received).await.unwrap().is_some());
        }
        assert_eq!(recv(&mut driver, &mut received).await.unwrap(), None);
    }

    /// A stream that is never out of bytes and never yields: so many pongs, then messages, or this and nothing more.
    struct Endless {
        pongs: usize,
        last: Option<&'static [u8]>,
    }

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            if self.pongs > 0 {
                room.put_slice(b"\x8a\x80\0\0\0\0");
                self.pongs -= 1;
            } else if let Some(last) = &mut self.last {
                if last.is_empty() {
                    return Poll::Pending;
                }
                room.put_slice(std::mem::take(last));
            } else {
                room.put_slice(b"\x81\x80\0\0\0\0");
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_always_ready_does_not_keep_the_thread() {
        let driver = |pongs| {
            let settings = Arc::new(Settings::server());
            Driver::new(Endless { pongs, last: None }, Role::Server, settings, None, 0, Vec::new())
        };
        let (mut endless, mut received) = (driver(usize::MAX), None);
        tokio::select! {
            biased;
            _ = recv(&mut endless, &mut received) => panic!("pongs are no messages"),
            () = tokio::task::yield_now() => {}
        }
        // And it comes back by itself.
        let mut driver = driver(10 * MAX_STEPS);
        let message = tokio::time::timeout(Duration::from_secs(1), recv(&mut driver, &mut None)).await;
        assert_eq!(message.expect("woken").unwrap(), Some(Message::from("")));
    }

    // The poll may end with the very read that brings the first part, and its future be dropped.
    #[tokio::test(start_paused = true)]
    async fn a_message_that_begins_while_its_receiver_is_dropped_is_not_lost() {
        let stream = Endless { pongs: MAX_STEPS - 1, last: Some(b"\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b") };
        let mut driver = Driver::new(stream, Role::Server, Arc::new(Settings::server()), None, 0, Vec::new());
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        driver.skip_parts();
        assert!(driver.poll_part(cx).is_pending() && driver.parts == PartState::Begun);
        // As `recv_stream` does, called again.
        driver.skip_parts();
        let part = poll_fn(|cx| driver.poll_part(cx)).await.unwrap().unwrap();
        assert_eq!((&*part.payload, part.is_last), (&b"a"[..], false));
        let part = poll_fn(|cx| driver.poll_part(cx)).await.unwrap().unwrap();
        assert_eq!((&*part.payload, part.is_last), (&b"b"[..], true));
        driver.skip_parts();
        assert!(driver.poll_part(cx).is_pending());
    }
}
