//! The client in a browser: the same names over the page's own WebSocket, for the target `wasm32-unknown-unknown`.
//!
//! What a page cannot do is left out: servers, headers, cookies of its own, proxies, certificates, pings, compression
//! by choice (the browser offers it and does it by itself). What it does otherwise than the native client stands on
//! each method. Nothing here is `Send`, as nothing of a page is.

mod client;
mod link;
mod websocket;

pub use client::{Client, connect};
pub use websocket::{Receiver, Sender, WebSocket};
