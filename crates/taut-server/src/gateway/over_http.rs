//! The form WebSocket-over-HTTP: events become the body of a request, and the events of its answer what is to be done.
//! No I/O and no clock.

mod answer;
mod hold;
mod request;

pub(super) use answer::{Response, To, acceptance, read};
pub(super) use hold::{Held, read as read_held};
pub(super) use request::{fields, fields_of_own, is_forwarded, meta_of_user, write};
