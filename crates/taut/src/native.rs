//! The client and the server over tokio: every target but a page in a browser.

mod acceptor;
#[cfg(feature = "axum")]
pub mod axum;
mod body;
mod buffers;
mod client;
mod drain;
mod driver;
mod handler_task;
mod head;
pub mod reconnect;
mod refusal;
mod request;
mod server;
mod shared;
mod split;
#[cfg(feature = "stream")]
mod stream;
mod streaming;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tower")]
pub mod tower;
pub mod trace;
mod transport;
#[cfg(feature = "hyper")]
pub mod upgrade;
mod url;
mod websocket;

pub use acceptor::{Acceptor, Incoming, accept, accept_over};
pub use client::{Client, connect};
pub use reconnect::{Backoff, Reconnecting, ReconnectingSender};
pub use refusal::Refusal;
pub use request::Request;
pub use server::{Authenticated, Failure, Server, Serving};
pub use split::{Receiver, Sender};
pub use streaming::{MessageReader, MessageWriter};
pub use taut_proto::deflate::Config as Deflate;
pub use taut_proto::handshake::HeadLimits;
pub use taut_proto::{Heartbeat, Limits, Settings, Violation};
pub use transport::Transport;
pub use transport::proxy::Proxy;
pub use websocket::WebSocket;
