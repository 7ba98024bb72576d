//! A WebSocket client and server on tokio, for connections that stay up.
//!
//! ```no_run
//! # async fn run() -> Result<(), taut::Error> {
//! let mut socket = taut::connect("ws://127.0.0.1:9001/").await?;
//! socket.send("hello").await?;
//! while let Some(message) = socket.recv().await? {
//!     println!("{}", message.as_text().unwrap_or("(bytes)"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! On by default, in both roles: a heartbeat that notices a dead peer, limits on what a peer may make us hold,
//! deadlines on connecting and closing, and on a server the check that a web page comes from the same origin.
//!
//! # Somebody must poll
//!
//! A [`WebSocket`] has no task of its own. What it does, it does inside [`recv`](WebSocket::recv),
//! [`send`](WebSocket::send), [`flush`](WebSocket::flush) and [`close`](WebSocket::close): answer pings, send its own,
//! notice that the peer is gone. A program that is not in one of these calls for longer than the peer's patience
//! (20 seconds here, similar elsewhere) may be given up. The usual loop around `recv`, with whatever else the program
//! waits for beside it in `tokio::select!`, is all that is needed: every call can be cancelled without loss.
//!
//! # Features
//!
//! All are off by default: `hyper` (the module `upgrade`), `axum` and `tower` open WebSockets on connections that hyper
//! serves; `stream` has `Stream` and `Sink` of the `futures` crates for [`WebSocket`], [`Sender`] and [`Receiver`].
//!
//! Everything here runs within a tokio runtime that has I/O and time enabled, as `#[tokio::main]` makes it.

mod acceptor;
mod attend;
#[cfg(feature = "axum")]
pub mod axum;
mod client;
mod cork;
mod driver;
mod error;
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
