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

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use taut_proto::handshake::Refusal;
use tower_layer::Layer;
use tower_service::Service;

use crate::native::handler_task::BoxError;
use crate::native::server::Report;
use crate::native::upgrade;
pub use crate::native::upgrade::Shutdown;
use crate::{Acceptor, Failure, Request, WebSocket};

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
type Check = Arc<dyn Fn(&Request) -> Result<(), Refusal> + Send + Sync>;

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

    /// Refuses clients for which `check` returns a [`Refusal`]; by default none.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&Request) -> Result<(), Refusal> + Send + Sync + 'static) -> Self {
        self.check = Some(Arc::new(check));
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
        // By an upgrade, or by an extended CONNECT (RFC 8441 §4), which is then refused with an explanation.
        request.uri().path() == &*self.path
            && (upgrade::wants_websocket(request.headers()) || request.method() == http::Method::CONNECT)
    }

    /// Answers a handshake.
    fn answer<B, F, E>(&self, request: &mut http::Request<B>) -> Result<http::Response<()>, Refusal>
    where
        H: Fn(WebSocket, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let mut upgrade = self.acceptor.upgrade(request)?;
        if let Some(check) = &self.check {
            check(upgrade.request())?;
        }
        if let Some(shutdown) = &self.shutdown {
            upgrade = upgrade.shutdown(shutdown);
        }
        if let Some(report) = self.report.clone() {
            upgrade = upgrade.on_failure(move |failure| report(failure));
        }
        let response = upgrade.response();
        let (handler, request) = (Arc::clone(&self.handler), upgrade.request().clone());
        tokio::spawn(upgrade.run(move |socket| handler(socket, request)));
        Ok(response)
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
    E: Into<BoxError>,
    R: From<String>,
{
    type Response = http::Response<R>;
    type Error = S::Error;
    type Future = Answering<S::Future, Result<http::Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if !self.layer.wants(&request) {
            return Answering(Answer::Inner(Box::pin(self.inner.call(request))));
        }
        let response = match self.layer.answer(&mut request) {
            Ok(response) => response.map(|()| String::new()),
            Err(refusal) => upgrade::refuse(&refusal),
        };
        Answering(Answer::Ours(ready(Ok(response.map(R::from)))))
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
#[derive(Debug)]
pub struct Answering<F, T>(Answer<F, T>);

#[derive(Debug)]
enum Answer<F, T> {
    /// Boxed: without `unsafe` there is no way to pin a part of an enum.
    Inner(Pin<Box<F>>),
    Ours(Ready<T>),
}

impl<F: Future<Output = T>, T> Future for Answering<F, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Answer::Inner(inner) => inner.as_mut().poll(cx),
            Answer::Ours(ours) => Pin::new(ours).poll(cx),
        }
    }
}
