//! WebSocket-over-HTTP with GRIP, as Pushpin speaks it: events are lines of a request's body, and so is its answer.
//! No I/O and no clock: bytes and times are arguments.
//!
//! <https://pushpin.org/docs/protocols/websocket-over-http/>, <https://pushpin.org/docs/protocols/grip/>

mod answer;
mod control;
mod events;
mod headers;
mod json;
mod parameters;
mod publish;
mod request;
mod signature;

pub(super) use answer::{Response, To, read};
pub(crate) use control::{Control, Extension, Filters, KeepAlive, Message as ControlMessage, Mode};
pub(crate) use events::{Kind, lines};
pub(super) use headers::EVENTS;
pub(crate) use publish::{Item, Limits as PublishLimits, WsMessage, read as read_items};
pub(super) use request::{fields, is_forwarded, write};
pub(crate) use signature::{PublisherAuth, SharedKey, Signer};
