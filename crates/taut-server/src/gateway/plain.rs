//! The plain form: an event is one JSON request to the backend, and its answer is one JSON object. No I/O.

mod answer;
mod json;
mod request;

pub(super) use answer::{AnswerTo, Limits, Response, read};
pub(super) use request::{Connection, Upgrade, write};
