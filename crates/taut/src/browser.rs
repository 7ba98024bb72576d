//! The client in a browser: the same names over the page's own WebSocket, for the target `wasm32-unknown-unknown`.
//!
//! What a page cannot do is left out: servers, headers, cookies, proxies, certificates, pings, and the choice of
//! compression (the browser decides). Differences from the native client are described on each method. Nothing here is
//! `Send`, as nothing in a page is.

mod client;
mod link;
mod websocket;

pub use client::{Client, connect};
pub use websocket::{Receiver, Sender, WebSocket};
