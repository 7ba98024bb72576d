//! Listens, accepts, and ends gracefully.

mod accept;

use std::fmt;
use std::future::{IntoFuture, pending};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::error::Doing;
use crate::native::drain::{DrainSignal, DrainStage, DrainWatch};
use crate::native::handler_task::{BoxError, BoxHandler, HandlerFailure, HandlerTask, panic_text};
use crate::{Acceptor, Error, Incoming, Refusal, Request, WebSocket};
use accept::ReservedDescriptor;

/// A WebSocket server on a TCP port.
///
/// ```no_run
/// # async fn run() -> Result<(), taut::Error> {
/// use taut::{Incoming, Server};
///
/// Server::bind("127.0.0.1:9000")
///     .await?
///     .serve(|incoming: Incoming| async move {
///         if incoming.bearer() != Some("t0ken") {
///             return incoming.reject(401, "who are you?").await;
///         }
///         let mut socket = incoming.accept().await?;
///         while let Some(message) = socket.recv().await? {
///             socket.send(message).await?;
///         }
///         Ok(())
///     })
///     .until(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
///     .await
/// # }
/// ```
///
/// The handler runs in one task per client. What it sends during one poll of the task leaves in one write when the poll
/// returns: a loop of `recv` and `send` writes once for all messages of a read. When the handler returns, the
/// connection is closed: with code 1000, or 1011 if it returned an error or panicked. A panic ends the task of its
/// client and no other.
pub struct Server {
    listener: TcpListener,
    acceptor: Acceptor,
    handshakes: usize,
    connections: usize,
    report: Report,
}

/// Receives failures.
pub(crate) type Report = Arc<dyn Fn(&Failure) + Send + Sync>;

impl Server {
    /// Listens on an address: `"0.0.0.0:9000"`, or port 0 for one that the system chooses.
    ///
    /// # Errors
    /// [`is_io`](Error::is_io): the address cannot be listened on, such as when another program does.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub async fn bind(address: impl ToSocketAddrs) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await.map_err(|error| Error::io(Doing::Listening, error))?;
        Ok(Self::new(listener))
    }

    /// A server on a listener that is there already, such as one that was passed on by a parent process.
    pub fn new(listener: TcpListener) -> Self {
        let report = Arc::new(|_: &Failure| {});
        Self { listener, acceptor: Acceptor::new(), handshakes: HANDSHAKES, connections: usize::MAX, report }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// [`is_io`](Error::is_io) when the system does not tell.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(|error| Error::io(Doing::Listening, error))
    }

    /// Sets how clients are accepted; [`Acceptor::new`] by default.
    #[must_use]
    pub fn acceptor(mut self, acceptor: Acceptor) -> Self {
        self.acceptor = acceptor;
        self
    }

    /// Limits how many clients may be in their handshake at once; 1,024. Beyond it none is accepted: new connections
    /// wait in the kernel's queue. Each costs some KB until its deadline.
    #[must_use]
    pub fn max_handshakes(mut self, most: usize) -> Self {
        self.handshakes = most.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Limits how many clients may be connected; no limit by default. Beyond it clients are refused with status 503 and
    /// a `Retry-After`.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        self.connections = most;
        self
    }

    /// Calls `report` on every failure: a handshake that failed, a handler's error or panic, a listener that cannot
    /// accept. By default failures are ignored. A client that the handler or the hook of
    /// [`authenticate`](Self::authenticate) rejects is not a failure.
    #[must_use]
    pub fn on_failure(mut self, report: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        self.report = Arc::new(report);
        self
    }

    /// Asks `hook` who each client is before it is accepted: it returns the user, or a refusal.
    ///
    /// ```no_run
    /// # struct User; async fn user_of(token: &str) -> Option<User> { None }
    /// # async fn run() -> Result<(), taut::Error> {
    /// use taut::{Refusal, Request, Server, WebSocket};
    ///
    /// Server::bind("127.0.0.1:9000")
    ///     .await?
    ///     .authenticate(|request: Request| async move {
    ///         let token = request.bearer().ok_or(Refusal::unauthorized("a bearer token is needed"))?;
    ///         user_of(token).await.ok_or(Refusal::unauthorized("the token is not valid"))
    ///     })
    ///     .serve(|mut socket: WebSocket, user: User| async move {
    ///         while let Some(message) = socket.recv().await? {
    ///             socket.send(message).await?;
    ///         }
    ///         Ok::<(), taut::Error>(())
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn authenticate<H, F, U>(self, hook: H) -> Authenticated<H>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<U, Refusal>> + Send,
    {
        Authenticated { server: self, hook }
    }

    /// Serves clients, each by a call of `handler`. Nothing happens until what this returns is awaited.
    pub fn serve<H, F, E>(self, handler: H) -> Serving
    where
        H: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let handler = move |incoming| -> BoxHandler<BoxError> { Box::pin(handler(incoming)) };
        Serving { server: self, handler: Arc::new(handler), until: Box::pin(pending()), drain: DRAIN }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        shown.field("listener", &self.listener).field("acceptor", &self.acceptor).finish_non_exhaustive()
    }
}

/// A [`Server`] that authenticates its clients: see [`Server::authenticate`].
pub struct Authenticated<H> {
    server: Server,
    hook: H,
}

impl<H> Authenticated<H> {
    /// Serves clients that the hook has accepted, each by a call of `handler` with the user that the hook has returned.
    pub fn serve<A, U, S, F, E>(self, handler: S) -> Serving
    where
        H: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Result<U, Refusal>> + Send + 'static,
        U: Send + 'static,
        S: Fn(WebSocket, U) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let Self { server, hook } = self;
        let handler = Arc::new(handler);
        server.serve(move |incoming| {
            let who = hook(incoming.request().clone());
            let handler = Arc::clone(&handler);
            async move {
                match who.await {
                    Ok(user) => handler(incoming.accept().await?, user).await.map_err(Into::into),
                    Err(refusal) => Ok::<_, BoxError>(incoming.refuse(refusal).await?),
                }
            }
        })
    }
}

impl<H> fmt::Debug for Authenticated<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

/// A [`Server`] with its handler: await it.
///
/// # Cancel safety Dropping it, or its future, stops accepting and ends all connections at once, without a close frame,
/// as at the end of a drain.
#[must_use = "nothing is served until it is awaited"]
pub struct Serving {
    server: Server,
    handler: Arc<dyn Fn(Incoming) -> BoxHandler<BoxError> + Send + Sync>,
    until: Pin<Box<dyn Future<Output = ()> + Send>>,
    drain: Duration,
}

impl Serving {
    /// Serves until `signal` is ready, then drains: stops accepting, closes every connection with code 1001, which
    /// makes its `recv` return `None`, and waits for the handlers.
    pub fn until(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.until = Box::pin(signal);
        self
    }

    /// Sets how long a drain may take before the remaining handlers are dropped; 10 seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain = timeout;
        self
    }

    async fn run(self) -> Result<(), Error> {
        let Self { server, handler, mut until, drain } = self;
        let Server { listener, acceptor, handshakes, connections, report } = server;
        let service = Arc::new(Service { acceptor, handler, report, drain: Arc::default() });
        // However this ends, also by being dropped, the clients' tasks end too.
        let over = Over(Arc::clone(&service));
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        let handshakes = Arc::new(Semaphore::new(handshakes));
        let mut reserved = ReservedDescriptor::new(&service.acceptor);
        loop {
            let (stream, peer, permit) = tokio::select! {
                biased;
                () = &mut until => break,
                client = accept::next(&listener, &handshakes, &mut reserved, &service.report) => client,
            };
            let is_one_too_many = alive.strong_count() > connections;
            let opening = Arc::clone(&service).open(stream, peer, permit, is_one_too_many);
            tokio::spawn(ClientTask {
                service: Arc::clone(&service),
                peer,
                phase: Phase::Opening(Box::pin(opening)),
                watch: DrainWatch::new(Arc::clone(&service.drain)),
                _alive: alive.clone(),
            });
        }
        // Whoever connects from now on is turned away by the kernel.
        drop(listener);
        drop(alive);
        service.drain.enter(DrainStage::Draining);
        if timeout(drain, all_gone.recv()).await.is_err() {
            drop(over);
            all_gone.recv().await;
        }
        Ok(())
    }
}

impl IntoFuture for Serving {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

/// Something that went wrong at a server, for its log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The listener could not accept, for example because the process is out of file descriptors. It tries again some
    /// ten times a second; after two seconds, waiting clients are answered with 503.
    Accept(io::Error),
    /// A client that did not reach the handler.
    Handshake(Option<SocketAddr>, Error),
    /// A handler that returned an error.
    Handler(Option<SocketAddr>, Box<dyn std::error::Error + Send + Sync>),
    /// A handler that panicked, with this text. The panic hook has been called, as with every panic.
    Panicked(Option<SocketAddr>, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = |peer: &Option<SocketAddr>| peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        match self {
            Self::Accept(error) => write!(f, "cannot accept connections, and will try again: {error}"),
            Self::Handshake(address, error) => write!(f, "{}: {error}", peer(address)),
            Self::Handler(address, error) => write!(f, "{}: the handler failed: {error}", peer(address)),
            Self::Panicked(address, text) => write!(f, "{}: the handler panicked: {text}", peer(address)),
        }
    }
}

/// What the tasks of all clients have in common.
struct Service {
    acceptor: Acceptor,
    handler: Arc<dyn Fn(Incoming) -> BoxHandler<BoxError> + Send + Sync>,
    report: Report,
    drain: Arc<DrainSignal>,
}

impl Service {
    /// Reads a client's request and calls the handler.
    async fn open(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        is_one_too_many: bool,
    ) -> Option<BoxHandler<BoxError>> {
        match self.acceptor.accept(stream).await {
            Ok(incoming) if is_one_too_many => {
                let _ = incoming.refuse(Refusal::busy(BUSY)).await;
                None
            }
            Ok(mut incoming) => {
                incoming.hold(permit);
                // It may panic before there is a future; then the client is refused with status 500.
                match catch_unwind(AssertUnwindSafe(|| (self.handler)(incoming))) {
                    Ok(task) => Some(task),
                    Err(panic) => {
                        (self.report)(&Failure::Panicked(Some(peer), panic_text(&panic)));
                        resume_unwind(panic)
                    }
                }
            }
            Err(error) => {
                (self.report)(&Failure::Handshake(Some(peer), error));
                None
            }
        }
    }
}

/// One client's task: reads the request, then attends to the handler.
///
/// Written by hand, since there is one for each connection and the compiler's would be three times as large.
struct ClientTask {
    service: Arc<Service>,
    peer: SocketAddr,
    phase: Phase,
    watch: DrainWatch,
    /// Dropped when the task has ended.
    _alive: mpsc::Sender<()>,
}

/// What a client's task is at.
enum Phase {
    /// Boxed, so that its room is given back when it is done.
    Opening(Pin<Box<dyn Future<Output = Option<BoxHandler<BoxError>>> + Send>>),
    Running(HandlerTask<BoxError>),
}

impl Future for ClientTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { service, peer, phase, watch, .. } = &mut *self;
        let stage = watch.stage(cx);
        loop {
            match phase {
                Phase::Opening(_) if stage != DrainStage::Open => return Poll::Ready(()),
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Some(task) => *phase = Phase::Running(HandlerTask::new(task)),
                    None => return Poll::Ready(()),
                },
                Phase::Running(task) => {
                    let report = |fault| {
                        (service.report)(&match fault {
                            HandlerFailure::Failed(problem) => Failure::Handler(Some(*peer), problem),
                            HandlerFailure::Panicked(text) => Failure::Panicked(Some(*peer), text),
                        });
                    };
                    return task.poll(stage, report, cx);
                }
            }
        }
    }
}

/// Ends the clients' tasks when it is dropped.
struct Over(Arc<Service>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.drain.enter(DrainStage::Over);
    }
}

/// Clients between connection and answer.
const HANDSHAKES: usize = 1024;

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(10);

/// When a client that is turned away may come back.
const BUSY: Duration = Duration::from_secs(5);
