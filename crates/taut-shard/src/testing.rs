//! A kernel, a network and clients under a test's control: bytes, a clock, no sockets, no sleep.
//!
//! A [`Stage`] is a shard on such a kernel. Its readiness is the edge-triggered kind that `epoll` has, its reads and
//! writes take as many bytes as the test lets them, and after each tick it checks what must always hold.

use std::net::SocketAddr;

use crate::proxy::Header;

mod client;
mod network;
mod stage;
pub mod workload;

pub use crate::shard::Census;
pub use client::{Client, Frames};
pub use network::{Fake, FakeSocket, FakeStream, Network, Remote};
pub use stage::{Stage, Watched};
pub use taut_proto::testing::NONCE;

/// Reads a PROXY header: its length and the client's address. `Ok(None)` asks for more bytes, `Err(())` is a refusal.
#[expect(clippy::result_unit_err, reason = "there is nothing to say about it")]
pub fn proxy_header(bytes: &[u8], limit: usize) -> Result<Option<(usize, Option<SocketAddr>)>, ()> {
    let header = Header::parse(bytes, limit).map_err(|_| ())?;
    Ok(header.map(|header| (header.length, header.client)))
}
