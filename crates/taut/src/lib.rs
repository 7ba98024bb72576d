//! WebSockets on tokio, for connections that stay up: a client and a server.
//!
//! On by default, for clients and servers: a heartbeat that detects a dead peer, limits on the memory that a peer can
//! take, deadlines for connecting and closing; and on servers the check that a web page comes from the same origin.
//! Every call can be dropped before it is done without losing anything.
//!
//! # In `Cargo.toml`
//!
//! Taut is not on crates.io yet. With a checkout of its repository beside your project:
//!
//! ```toml
//! [dependencies]
//! taut = { path = "../taut/crates/taut" }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal"] }
//! ```
//!
//! If the repository is on a server that you can reach, `taut = { git = "…" }` with its URL needs no checkout.
//!
//! # Connect
//!
//! ```no_run
//! use taut::Error;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let mut socket = taut::connect("wss://echo.example/").await?;
//!     socket.send("hello").await?;
//!     while let Some(message) = socket.recv().await? {
//!         println!("{message}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Serve
//!
//! With authentication and a graceful end:
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
//! # Stay connected
//!
//! ```no_run
//! use taut::{Backoff, Client, Error};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let client = Client::new("wss://api.example/feed").bearer("t0ken");
//!     let mut feed = client.reconnecting(Backoff::default(), |mut socket| async move {
//!         socket.send("subscribe").await?; // on each new connection
//!         Ok(socket)
//!     });
//!     loop {
//!         println!("{}", feed.recv().await?); // an error only when trying again cannot help
//!     }
//! }
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
//! | send and receive what is too large to hold | [`WebSocket::send_stream`], [`WebSocket::recv_stream`], and the same of [`Sender`] and [`Receiver`] |
//! | set limits, the heartbeat, compression | [`Settings`], [`Limits`], [`Heartbeat`], [`Deflate`] |
//! | know what went wrong | [`Error`], [`Response`], [`Client::trace`] |
//!
//! # Somebody must poll
//!
//! A [`WebSocket`] has no background task. It does its work inside [`recv`](WebSocket::recv),
//! [`send`](WebSocket::send), [`flush`](WebSocket::flush) and [`close`](WebSocket::close): it answers pings, sends its
//! own, and notices when the peer is gone. If a program is not in one of these calls for longer than the peer's timeout
//! (20 seconds here, similar elsewhere), the peer may drop the connection. The usual loop around `recv`, in
//! `tokio::select!` with whatever else the program waits for, is all that is needed: every call can be cancelled
//! without loss.
//!
//! Everything here runs within a tokio runtime that has I/O and time enabled, as `#[tokio::main]` makes it.
//!
//! # In a browser
//!
//! For the target `wasm32-unknown-unknown` the crate is a client over the browser's WebSocket, with the same names:
//! [`connect()`], [`Client`], [`WebSocket`], [`Sender`] and [`Receiver`], [`Message`], [`Error`] with its methods. It
//! needs neither tokio nor another runtime: `wasm_bindgen_futures::spawn_local` runs the futures, which are not `Send`.
//! What differs, because a page can do no more:
//!
//! - No headers: a token goes into [`Client::bearer_subprotocol`]. Cookies and the origin are the browser's.
//! - A connection that was refused is [`is_io`](Error::is_io), whatever the reason: a page is not told why.
//! - The browser reads on whether or not [`recv`](WebSocket::recv) is called. What waits is bounded as natively, 1,024
//!   messages or 1 MiB, but then the connection is closed, with 4013.
//! - It answers pings and sends none: the heartbeat is the server's. Compression is the browser's as well.
//! - [`close`](WebSocket::close) takes the codes that a page may send: 1000, and 3000 to 4999.
//! - There is no `reconnecting` yet.
//!
//! # Features
//!
//! They are for the native crate alone.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tls` | yes | `wss://` in both roles, the module `tls`: rustls on ring, the system's roots |
//! | `hyper` | no | `Acceptor::upgrade` and the module `upgrade`: WebSockets on connections that hyper serves |
//! | `axum` | no | the module `axum`: an extractor for axum's handlers |
//! | `tower` | no | the module `tower`: a layer that answers handshakes in front of any HTTP service |
//! | `tls-webpki-roots` | no | Mozilla's roots, compiled in: for systems that have none, and `ClientTls::webpki_roots` |
//! | `stream` | no | `Stream` and `Sink` of the `futures` crates for [`WebSocket`], [`Sender`] and [`Receiver`] |

// A print panics where its output is gone; a library leaves that to the program.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[cfg(target_family = "wasm")]
mod browser;
mod error;
#[cfg(not(target_family = "wasm"))]
pub mod guide;
#[cfg(not(target_family = "wasm"))]
mod native;
mod response;

#[cfg(target_family = "wasm")]
pub use browser::*;
pub use error::Error;
#[cfg(not(target_family = "wasm"))]
pub use native::*;
pub use response::Response;
pub use taut_proto::{Close, CloseCode, Message, NotText};

/// Compiles what people copy from there.
#[cfg(all(doctest, not(target_family = "wasm")))]
#[doc = include_str!("../../../README.md")]
struct Readme;
