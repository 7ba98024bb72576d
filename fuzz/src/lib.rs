//! Fuzz targets as plain functions: each takes any bytes and panics when a promise is broken.
//!
//! libFuzzer drives them through `fuzz_targets/`; `tests/corpus.rs` replays their corpora, and a few thousand inputs
//! of its own, in every `cargo test`. To fuzz one:
//!
//! ```text
//! cargo +nightly fuzz run --features libfuzzer decode_splits
//! ```

pub mod cancelled;
pub mod client_event;
pub mod client_handshake;
pub mod decode_splits;
pub mod deflate;
mod octets;
pub mod outbox;
pub mod proxy_header;
pub mod publish;
pub mod server_handshake;
pub mod shard;
pub mod signed_request;
pub mod token;
pub mod transports;

pub use octets::Octets;

/// A target's body.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Body); 13] = [
    ("cancelled", cancelled::run),
    ("client_event", client_event::run),
    ("client_handshake", client_handshake::run),
    ("decode_splits", decode_splits::run),
    ("deflate", deflate::run),
    ("outbox", outbox::run),
    ("proxy_header", proxy_header::run),
    ("publish", publish::run),
    ("server_handshake", server_handshake::run),
    ("shard", shard::run),
    ("signed_request", signed_request::run),
    ("token", token::run),
    ("transports", transports::run),
];
