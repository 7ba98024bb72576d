//! Spans for OpenTelemetry: requests of backends, upgrades that wait for an answer, and requests that the server makes.
//!
//! Without the feature `otel` all of this is empty. With it, spans go where `opentelemetry::global` says, and nowhere
//! until it says so.
//!
//! These spans are separate from the log's: neither depends on the other's level. Attributes hold no secrets and
//! nothing personal: no query, no body, no name of a channel or user, no address. WebSocket messages have no span.

#[cfg(not(feature = "otel"))]
mod absent;
#[cfg(feature = "otel")]
mod recorded;

#[cfg(not(feature = "otel"))]
pub(crate) use absent::{Span, Steps, name_app};
#[cfg(feature = "otel")]
pub(crate) use recorded::{Span, Steps, name_app};
