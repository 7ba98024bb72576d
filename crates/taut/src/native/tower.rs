//! WebSockets in front of any HTTP service, as a layer of tower's.
//!
//! ```no_run
//! use taut::tower::UpgradeLayer;
//! use taut::{Request, WebSocket};
//! use tower::ServiceBuilder;
//!
//! async fn echo(mut socket: WebSocket, _: Request) -> Result<(), taut::Error> {
//!     while let Some(message) = socket.recv().await? {
//!         socket.send(message).await?;
//!     }
//!     Ok(())
//! }
//!
//! # async fn http(_: hyper::Request<String>) -> Result<hyper::Response<String>, taut::Error> { Ok(Default::default()) }
//! let service = ServiceBuilder::new().layer(UpgradeLayer::new("/echo", echo)).service_fn(http);
//! ```
//!
//! Who may connect is decided before the handshake is answered, and may take a look at a database:
//!
//! ```no_run
//! # async fn echo(_: taut::WebSocket, _: taut::Request) -> Result<(), taut::Error> { Ok(()) }
//! # #[derive(Clone)]
//! # struct Tokens;
//! # impl Tokens {
//! #     async fn is_valid(&self, token: &str) -> bool { token == "t0ken" }
//! # }
//! use taut::tower::UpgradeLayer;
//! use taut::{Refusal, Request};
//!
//! # fn run(tokens: Tokens) {
//! let layer = UpgradeLayer::new("/echo", echo).check(move |request: Request| {
//!     let tokens = tokens.clone();
//!     async move {
//!         let token = request.bearer().ok_or(Refusal::unauthorized("a bearer token is needed"))?;
//!         if tokens.is_valid(token).await { Ok(()) } else { Err(Refusal::forbidden("the token is not valid")) }
//!     }
//! });
//! # }
//! ```

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::native::handler_task::BoxError;
use crate::native::server::Report;
pub use crate::native::upgrade::Shutdown;
use crate::native::upgrade::{self, Upgrade};
use crate::{Acceptor, Failure, Refusal, Request, WebSocket};

/// Answers the WebSocket handshakes for one path, and spawns a task with a call of `handler` for each. Every other
/// request goes to the inner service, plain ones for the same path too.
///
/// The service's body must be one that can be made of a `String`, as axum's and `Full<Bytes>` can.
pub struct UpgradeLayer<H> {
    path: Arc<str>,
    handler: Arc<H>,
    acceptor: Acceptor,
    check: Option<Check>,
    report: Option<Report>,
    shutdown: Option<Shutdown>,
}

/// Decides who may connect.
type Check = Arc<dyn Fn(Request) -> Checking + Send + Sync>;

/// What a check is still to decide.
type Checking = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

impl<H> UpgradeLayer<H> {
    /// A layer for handshakes with exactly this path, such as `/chat`.
    pub fn new<F, E>(path: &str, handler: H) -> Self
    where
        H: Fn(WebSocket, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let (path, handler) = (path.into(), Arc::new(handler));
        Self { path, handler, acceptor: Acceptor::new(), check: None, report: None, shutdown: None }
    }

    /// Sets how clients are accepted; [`Acceptor::new`] by default.
    #[must_use]
    pub fn acceptor(mut self, acceptor: Acceptor) -> Self {
        self.acceptor = acceptor;
        self
    }

    /// Asks `check` whether a client may connect, before its handshake is answered; by default all may. It returns a
    /// [`Refusal`] for those that may not. It has no deadline of the library's: put one around what it asks
    /// (`tokio::time::timeout`). When the client goes meanwhile, it is dropped.
    #[must_use]
    pub fn check<C, F>(mut self, check: C) -> Self
    where
        C: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.check = Some(Arc::new(move |request| Box::pin(check(request))));
        self
    }

    /// Calls `report` when a handler fails, or a connection before it. By default failures are ignored.
    #[must_use]
    pub fn on_failure(mut self, report: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// Closes the connections when the server shuts down: see [`Shutdown`].
    #[must_use]
    pub fn shutdown(mut self, shutdown: &Shutdown) -> Self {
        self.shutdown = Some(shutdown.clone());
        self
    }

    fn wants<B>(&self, request: &http::Request<B>) -> bool {
        request.uri().path() == &*self.path && upgrade::is_handshake(request.method(), request.headers())
    }

    /// Answers a handshake.
    async fn answer<F, E>(self, upgrade: Result<Upgrade, Refusal>) -> http::Response<String>
    where
        H: Fn(WebSocket, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let accepted = async {
            let upgrade = upgrade?;
            if let Some(check) = &self.check {
                check(upgrade.request().clone()).await?;
            }
            Ok(self.accept(upgrade))
        };
        match accepted.await {
            Ok(response) => response.map(|()| String::new()),
            Err(refusal) => upgrade::refuse(&refusal),
        }
    }

    /// Accepts a client that may connect.
    fn accept<F, E>(&self, mut upgrade: Upgrade) -> http::Response<()>
    where
        H: Fn(WebSocket, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        if let Some(shutdown) = &self.shutdown {
            upgrade = upgrade.shutdown(shutdown);
        }
        if let Some(report) = self.report.clone() {
            upgrade = upgrade.on_failure(move |failure| report(failure));
        }
        let response = upgrade.response();
        let (handler, request) = (Arc::clone(&self.handler), upgrade.request().clone());
        tokio::spawn(upgrade.run(move |socket| handler(socket, request)));
        response
    }
}

impl<H> Clone for UpgradeLayer<H> {
    fn clone(&self) -> Self {
        Self {
            path: Arc::clone(&self.path),
            handler: Arc::clone(&self.handler),
            acceptor: self.acceptor.clone(),
            check: self.check.clone(),
            report: self.report.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

impl<H> fmt::Debug for UpgradeLayer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeLayer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<S, H> Layer<S> for UpgradeLayer<H> {
    type Service = UpgradeService<S, H>;

    fn layer(&self, inner: S) -> UpgradeService<S, H> {
        UpgradeService { inner, layer: self.clone() }
    }
}

/// A service behind an [`UpgradeLayer`].
pub struct UpgradeService<S, H> {
    inner: S,
    layer: UpgradeLayer<H>,
}

impl<S, H, F, E, B, R> Service<http::Request<B>> for UpgradeService<S, H>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    H: Fn(WebSocket, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError> + 'static,
    R: From<String>,
{
    type Response = http::Response<R>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if !self.layer.wants(&request) {
            return Answering(Answer::Inner(Box::pin(self.inner.call(request))));
        }
        let upgrade = self.layer.acceptor.upgrade(&mut request);
        Answering(Answer::Ours(Box::pin(self.layer.clone().answer(upgrade))))
    }
}

impl<S: Clone, H> Clone for UpgradeService<S, H> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, H> fmt::Debug for UpgradeService<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeService").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// The future of an [`UpgradeService`].
pub struct Answering<F>(Answer<F>);

/// Boxed: without `unsafe` there is no way to pin a part of an enum.
enum Answer<F> {
    Inner(Pin<Box<F>>),
    Ours(Pin<Box<dyn Future<Output = http::Response<String>> + Send>>),
}

impl<F, R, E> Future for Answering<F>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: From<String>,
{
    type Output = Result<http::Response<R>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Inner(inner) => inner.as_mut().poll(cx),
            Answer::Ours(ours) => ours.as_mut().poll(cx).map(|response| Ok(response.map(R::from))),
        }
    }
}

impl<F> fmt::Debug for Answering<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("is_ours", &matches!(self.0, Answer::Ours(_))).finish_non_exhaustive()
    }
}
