//! What OpenTelemetry is told of: requests of backends, upgrades that have to wait for somebody, and requests that are made from here.
//!
//! Without the feature `otel` all of this is empty. With it, spans go to where `opentelemetry::global` says, and nowhere while that says nothing.
//!
//! They are apart from the log and its spans: neither depends on the level of the other, and an attribute is what is written here and nothing else.
//! None is secret or about a person: no query, no body, no name of a channel or a user, nobody's address. A message of a WebSocket has no span.

#[cfg(not(feature = "otel"))]
mod absent;
#[cfg(feature = "otel")]
mod recorded;

#[cfg(not(feature = "otel"))]
pub(crate) use absent::{Span, Steps, name_app};
#[cfg(feature = "otel")]
pub(crate) use recorded::{Span, Steps, name_app};
