//! A shard on a fake kernel: bytes and a clock, no sockets, no sleep.

mod application;
mod certificates;
mod closing;
mod draining;
mod exchange;
mod handshake;
mod intake;
mod later;
mod messages;
mod pausing;
mod pipes;
mod proxy;
mod slow;
mod time;
mod tls;
#[path = "../support/tls.rs"]
mod tls_settings;
mod unfinished;
