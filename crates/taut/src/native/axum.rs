//! WebSockets in axum's handlers.
//!
//! ```no_run
//! use axum::response::Response;
//! use axum::{Router, routing::any};
//! use taut::WebSocket;
//! use taut::axum::Upgrade;
//!
//! async fn chat(upgrade: Upgrade) -> Response {
//!     upgrade.on_upgrade(echo)
//! }
//!
//! async fn echo(mut socket: WebSocket) -> Result<(), taut::Error> {
//!     while let Some(message) = socket.recv().await? {
//!         socket.send(message).await?;
//!     }
//!     Ok(())
//! }
//!
//! let app: Router = Router::new().route("/chat", any(chat));
//! ```
//!
//! # A page and a WebSocket at one route
//!
//! A handler that takes an [`Upgrade`] is called for handshakes only. One that takes an `Option<Upgrade>` is called for
//! every other request as well, with `None`; a handshake that is not good is refused before either. One that takes a
//! `Result<Upgrade, Refusal>` gets that refusal too, such as to log it, and answers with it or with a response of its
//! own.
//!
//! ```no_run
//! use axum::extract::Path;
//! use axum::response::{Html, IntoResponse, Response};
//! use axum::{Router, routing::any};
//! use taut::Refusal;
//! use taut::axum::Upgrade;
//! # async fn chat(_: taut::WebSocket) -> Result<(), taut::Error> { Ok(()) }
//!
//! async fn room(Path(room): Path<String>, upgrade: Option<Upgrade>) -> Response {
//!     match upgrade {
//!         Some(upgrade) => upgrade.on_upgrade(chat),
//!         None => Html(format!("<h1>The room {room}</h1>")).into_response(),
//!     }
//! }
//!
//! async fn feed(upgrade: Result<Upgrade, Refusal>) -> Result<Response, Refusal> {
//!     let upgrade = upgrade.inspect_err(|refused| eprintln!("refused: {refused}"))?;
//!     Ok(upgrade.on_upgrade(chat))
//! }
//!
//! let app: Router = Router::new().route("/rooms/{room}", any(room)).route("/feed", any(feed));
//! ```
//!
//! # Who connects
//!
//! The client's request is the [`Upgrade`]'s: [`bearer`](crate::Request::bearer), [`cookie`](crate::Request::cookie).
//! Its address is [`peer_addr`](crate::Request::peer_addr) if the application is served with
//! `into_make_service_with_connect_info`; there is no need to extract `ConnectInfo`.
//!
//! ```no_run
//! # use axum::{Router, response::Response, routing::any};
//! # use taut::axum::Upgrade;
//! # async fn chat(_: taut::WebSocket) -> Result<(), taut::Error> { Ok(()) }
//! use std::net::SocketAddr;
//!
//! async fn handler(upgrade: Upgrade) -> Response {
//!     println!("from {:?}", upgrade.peer_addr());
//!     upgrade.on_upgrade(chat)
//! }
//!
//! # async fn run(listener: tokio::net::TcpListener) -> std::io::Result<()> {
//! let app = Router::new().route("/chat", any(handler));
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
//! # }
//! ```
//!
//! # Settings
//!
//! An `Extension` with an [`Acceptor`] sets how clients are accepted, for one route or for many. The default is
//! [`Acceptor::new`]: pages of the same host only, no subprotocol, no compression.
//!
//! ```no_run
//! # use axum::{Extension, Router};
//! # let app: Router = Router::new();
//! let acceptor = taut::Acceptor::new().allow_origins(["https://chat.example"]).subprotocols(["v1.json"]);
//! let app = app.layer(Extension(acceptor));
//! ```
//!
//! # Shutdown
//!
//! The graceful shutdown of `axum::serve` does not wait for WebSockets: to it their connections are over. A
//! [`Shutdown`] does, given in the same way:
//!
//! ```no_run
//! # use axum::{Extension, Router};
//! # use std::time::Duration;
//! # async fn run(app: Router, listener: tokio::net::TcpListener) -> std::io::Result<()> {
//! let shutdown = taut::axum::Shutdown::new();
//! let app = app.layer(Extension(shutdown.clone()));
//! let stopped = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
//! axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
//! shutdown.drain(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```

use axum::body::Body;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::native::handler_task::BoxError;
pub use crate::native::upgrade::{Shutdown, Upgrade};
use crate::native::{request, upgrade};
use crate::{Acceptor, Refusal, WebSocket};

impl Upgrade {
    /// Accepts the client, and spawns a task for the handler: see [`run`](Self::run).
    ///
    /// The answer can be a part of one, such as `(headers, upgrade.on_upgrade(chat))`.
    pub fn on_upgrade<H, F, E>(self, handler: H) -> Response
    where
        H: FnOnce(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let response = self.response().map(|()| Body::empty());
        tokio::spawn(self.run(handler));
        response
    }
}

/// A handler that takes an [`Upgrade`] is called for handshakes only; whatever else comes is refused, as
/// [`Acceptor::upgrade`] says.
///
/// The [`Acceptor`], the [`Shutdown`] and the client's address, as `ConnectInfo<SocketAddr>` or bare, are those among the
/// request's extensions, if there are any.
impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let head = request::Parts::new(&parts.method, &parts.uri, parts.version, &parts.headers)?;
        let acceptor = parts.extensions.get::<Acceptor>().cloned().unwrap_or_default();
        let upgrade = Self::new(acceptor, head, &mut parts.extensions)?;
        Ok(match parts.extensions.get::<Shutdown>() {
            Some(shutdown) => upgrade.shutdown(shutdown),
            None => upgrade,
        })
    }
}

/// A handler that takes an `Option<Upgrade>` is called with `None` for whatever is not a handshake. A handshake that is
/// not good, such as of a page that may not connect, is refused, as with an [`Upgrade`].
impl<S: Send + Sync> OptionalFromRequestParts<S> for Upgrade {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Refusal> {
        if !upgrade::is_handshake(&parts.method, &parts.headers) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// A refusal is an axum response: [`Upgrade`] rejects requests with it, and a handler may return one to refuse a client.
///
/// ```
/// use axum::response::Response;
/// use taut::Refusal;
/// use taut::axum::Upgrade;
///
/// # async fn chat(_: taut::WebSocket) -> Result<(), taut::Error> { Ok(()) }
/// async fn members_only(upgrade: Upgrade) -> Result<Response, Refusal> {
///     if upgrade.bearer() != Some("t0ken") {
///         return Err(Refusal::unauthorized("who are you?"));
///     }
///     Ok(upgrade.on_upgrade(chat))
/// }
/// ```
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        upgrade::refuse(&self).map(Body::from)
    }
}
