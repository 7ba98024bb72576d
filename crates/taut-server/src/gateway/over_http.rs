//! The form WebSocket-over-HTTP: events become the body of a request, and the events of its answer what is to be done.
//! No I/O and no clock.

mod answer;
mod request;

pub(super) use answer::{Response, To, read};
pub(super) use request::{fields, is_forwarded, meta_of_user, write};
