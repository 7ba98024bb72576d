//! A realtime server that speaks the Pusher protocol: browsers subscribe to channels, backends publish to them over HTTP.
//!
//! [`Server::start`] takes a [`Config`] and gives a [`Running`] server:
//!
//! - clients connect to `/app/KEY` and live on the shards of `taut-shard`, one thread each, without locks;
//! - backends publish by signed requests to `/apps/ID/events`, answered on the shard where they are plain, otherwise by axum on tokio;
//! - a channel has one owner among the shards, which gives its events their order.

// A print panics where its output is gone; a library leaves that to the program.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod acme;
mod address;
mod api;
pub mod app;
pub mod apps;
mod bus;
mod certificate;
mod close;
mod cluster;
pub mod config;
mod connect_auth;
mod events;
pub mod gateway;
mod grace;
mod http;
mod hub;
mod identity;
mod limit;
mod metric;
mod node;
mod origin;
#[cfg(feature = "otel")]
pub mod otel;
pub mod place;
mod query;
mod refusals;
mod reload;
pub mod route_test;
mod server;
mod shard;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod trace;
mod transports;
mod webhooks;

pub use address::InvalidAddress;
pub use config::Config;
pub use server::{Checked, Liveness, Running, Server, Sockets, StartError};
pub use taut_pusher as pusher;

/// Compiles what people copy from there.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/auth.md")]
struct Authentication;
