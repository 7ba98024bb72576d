//! The Pusher protocol as values and text. Nothing here owns a socket, a clock or a table.

pub mod auth;
pub mod channel;
pub(crate) mod close;
pub mod event;
pub(crate) mod hex;
pub mod json;
pub mod member;
pub mod number;
pub mod payload;
pub mod socket_id;
