//! WebSocket-over-HTTP with GRIP, as Pushpin speaks it: events are lines of a request's body, and so is its answer.
//! No I/O and no clock: bytes and times are arguments.
//!
//! <https://pushpin.org/docs/protocols/websocket-over-http/>, <https://pushpin.org/docs/protocols/grip/>

pub(super) mod control;
pub(super) mod events;
pub(super) mod headers;
pub(super) mod instruct;
mod json;
mod parameters;
mod publish;
mod signature;

pub(crate) use control::{Control, Extension, Filters, KeepAlive, Message as ControlMessage, Mode};
pub(crate) use events::{Kind, lines};
pub(super) use headers::EVENTS;
pub(crate) use publish::{HttpStream, Item, Limits as PublishLimits, WsMessage, read as read_items};
pub(crate) use signature::{PublisherAuth, SharedKey, Signer};
