//! A kernel, a network and clients under a test's control: bytes, a clock, no sockets, no sleep.
//!
//! A [`Stage`] is a shard on such a kernel. Its readiness is the edge-triggered kind that `epoll` has, its reads and
//! writes take as many bytes as the test lets them, and after each tick it checks what must always hold.

mod client;
mod network;
mod stage;
pub mod workload;

pub use crate::shard::Census;
pub use client::{Client, Frames, NONCE};
pub use network::{Fake, FakeSocket, FakeStream, Network, Remote};
pub use stage::{Stage, Watched};
