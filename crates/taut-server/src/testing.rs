//! Parsers of untrusted input, for the fuzz targets in `fuzz/`.

use crate::app::Limits;

pub use crate::connect_auth::token_testing as token;
pub use crate::transports::testing as transports;

/// How many channels the body of `POST /apps/ID/events` publishes to, if it is accepted.
pub fn event(body: &[u8], limits: &Limits) -> Option<usize> {
    crate::api::events_testing::event(body, limits)
}

/// How many events are in the body of `POST /apps/ID/batch_events`, if it is accepted.
pub fn batch(body: &[u8], limits: &Limits) -> Option<usize> {
    crate::api::events_testing::batch(body, limits)
}
