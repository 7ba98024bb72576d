//! Spans for OpenTelemetry: requests of backends, upgrades that wait for an answer, and requests that the server makes.
//!
//! Without the feature `otel` all of this is empty. With it, spans go where `opentelemetry::global` says, and nowhere
//! until it says so.
//!
//! They are separate from the spans of the log (`tracing`), and a layer such as `tracing-opentelemetry` does not turn
//! those into these: it would export every field that the server or a library logs, while what leaves for a collector has
//! to be chosen. An attribute is what is written here, and none is secret or personal: no query, no body, no name of a
//! channel or user, no address. Neither depends on the other's level. They meet in `api/traffic`, where the log names the
//! trace. WebSocket messages have no span.

#[cfg(not(feature = "otel"))]
mod absent;
#[cfg(feature = "otel")]
mod recorded;

#[cfg(not(feature = "otel"))]
pub(crate) use absent::{Span, Steps, name_app};
#[cfg(feature = "otel")]
pub(crate) use recorded::{Span, Steps, name_app};
