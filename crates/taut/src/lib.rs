//! WebSockets on tokio, for connections that stay up: a client and a server.
//!
//! On by default, in both roles: a heartbeat that notices a dead peer, limits on what a peer may make us hold, deadlines
//! on connecting and closing; on a server the check that a web page comes from the same origin. Every call can be dropped
//! before it is done, and loses nothing.
//!
//! Connect:
//!
//! ```no_run
//! # async fn run() -> Result<(), taut::Error> {
//! let mut socket = taut::connect("wss://echo.example/").await?;
//! socket.send("hello").await?;
//! while let Some(message) = socket.recv().await? {
//!     println!("{message}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Serve, with authentication and a graceful end:
//!
//! ```no_run
//! use taut::{Error, Incoming, Server};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     Server::bind("127.0.0.1:9001")
//!         .await?
//!         .serve(echo)
//!         .until(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
//!         .await
//! }
//!
//! async fn echo(incoming: Incoming) -> Result<(), Error> {
//!     if incoming.bearer() != Some("t0ken") {
//!         return incoming.reject(401, "who are you?").await;
//!     }
//!     let mut socket = incoming.accept().await?;
//!     while let Some(message) = socket.recv().await? {
//!         socket.send(message).await?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Stay connected:
//!
//! ```no_run
//! # async fn run() -> Result<(), taut::Error> {
//! use taut::{Backoff, Client};
//!
//! let client = Client::new("wss://api.example/feed").bearer("t0ken");
//! let mut feed = client.reconnecting(Backoff::default(), |mut socket| async move {
//!     socket.send("subscribe").await?; // on each new connection
//!     Ok(socket)
//! });
//! loop {
//!     println!("{}", feed.recv().await?); // an error only when trying again cannot help
//! }
//! # }
//! ```
//!
//! # Where to read on
//!
//! [The guide](guide): [a tour](guide::tour) with all defaults, [authentication](guide::auth),
//! [heartbeats](guide::heartbeats), [backpressure](guide::backpressure), [closing](guide::closing),
//! [reconnection](guide::reconnection), TLS and proxies ([`guide::tls`]), [testing](guide::testing).
//!
//! | to | there is |
//! |---|---|
//! | connect | [`connect()`], [`Client`], [`Proxy`] |
//! | stay connected | [`Client::reconnecting`], [`reconnect`] |
//! | serve | [`Server`], [`Incoming`], [`Request`], [`Acceptor`], [`accept()`] |
//! | talk | [`WebSocket`], [`Sender`] and [`Receiver`], [`Message`] |
//! | send and receive what is too large to hold | [`WebSocket::send_stream`], [`WebSocket::recv_stream`] |
//! | set limits, the heartbeat, compression | [`Settings`], [`Limits`], [`Heartbeat`], [`Deflate`] |
//! | know what went wrong | [`Error`] |
//!
//! # Somebody must poll
//!
//! A [`WebSocket`] has no task of its own. What it does, it does inside [`recv`](WebSocket::recv),
//! [`send`](WebSocket::send), [`flush`](WebSocket::flush) and [`close`](WebSocket::close): answer pings, send its own,
//! notice that the peer is gone. A program that is not in one of these calls for longer than the peer's patience
//! (20 seconds here, similar elsewhere) may be given up. The usual loop around `recv`, with whatever else the program
//! waits for beside it in `tokio::select!`, is all that is needed: every call can be cancelled without loss.
//!
//! Everything here runs within a tokio runtime that has I/O and time enabled, as `#[tokio::main]` makes it.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tls` | yes | `wss://` in both roles, the module `tls`: rustls on ring, the system's roots |
//! | `hyper` | no | `Acceptor::upgrade` and the module `upgrade`: WebSockets on connections that hyper serves |
//! | `axum` | no | the module `axum`: an extractor for axum's handlers |
//! | `tower` | no | the module `tower`: a layer that answers handshakes in front of any HTTP service |
//! | `stream` | no | `Stream` and `Sink` of the `futures` crates for [`WebSocket`], [`Sender`] and [`Receiver`] |

mod acceptor;
mod attend;
#[cfg(feature = "axum")]
pub mod axum;
mod backlog;
mod client;
mod cork;
mod driver;
mod error;
pub mod guide;
mod head;
mod inbox;
mod incoming;
mod large;
mod loan;
pub mod reconnect;
mod request;
mod server;
mod shared;
mod split;
#[cfg(feature = "stream")]
mod stream;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tower")]
pub mod tower;
mod transport;
#[cfg(feature = "hyper")]
pub mod upgrade;
mod url;
mod websocket;

pub use acceptor::{Acceptor, accept, accept_over};
pub use client::{Client, connect};
pub use error::Error;
pub use incoming::Incoming;
pub use large::{MessageReader, MessageWriter};
pub use reconnect::{Backoff, Reconnecting};
pub use request::Request;
pub use server::{Authenticated, Failure, Server, Serving};
pub use split::{Receiver, Sender};
pub use taut_proto::deflate::Config as Deflate;
pub use taut_proto::handshake::Refusal;
pub use taut_proto::{Close, CloseCode, Heartbeat, Limits, Message, Settings, Violation};
pub use transport::Transport;
pub use transport::proxy::Proxy;
pub use websocket::WebSocket;
