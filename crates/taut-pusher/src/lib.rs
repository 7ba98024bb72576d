//! The Pusher protocol as values and text. Nothing here owns a socket, a clock or a table.
//!
//! For backends that sign, servers that check, and clients and tests that speak the protocol:
//!
//! - [`auth`]: signs for subscriptions, users and webhooks, and checks requests to the HTTP API;
//! - [`request`]: signs requests to the HTTP API;
//! - [`client`]: what a client sends and reads, and when it may come back;
//! - [`channel`]: what a channel's name may be, and what kind of channel it means;
//! - [`event`]: the messages of clients and servers;
//! - [`member`]: `channel_data` and `user_data`, which say who somebody is;
//! - `encryption`, with the feature of that name: end-to-end encrypted channels;
//! - [`payload`] and [`socket_id`]: what events carry, and how connections are called.
//!
//! What an endpoint answers that authorizes subscriptions to private channels:
//!
//! ```
//! use taut_pusher::auth::SigningKey;
//!
//! let key = SigningKey::new("app-secret");
//! let signature = key.sign_subscription("123.456", "private-orders", None);
//! let answer = format!(r#"{{"auth":"app-key:{signature}"}}"#);
//! assert!(answer.starts_with(r#"{"auth":"app-key:fa24923d"#));
//! ```

pub mod auth;
pub mod channel;
pub mod client;
#[cfg(feature = "encryption")]
pub mod encryption;
pub mod event;
pub mod hex;
pub mod json;
pub mod member;
pub mod number;
pub mod payload;
pub mod request;
pub mod socket_id;
