//! Any bytes as a signed publish or a batch: no panic, and nothing beyond the limits is accepted.
//!
//! Input: one octet that chooses the limits, then the body.

use taut_server::app::Limits;
use taut_server::testing::{batch, event};

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let choices = octets.octet();
    let body = octets.rest();
    let small = Limits {
        channels_per_publish: 2,
        batch: 2,
        channel_name: 8,
        event_name: 8,
        event_data: 16,
        ..Limits::default()
    };
    let limits = if choices & 1 == 0 { Limits::default() } else { small };
    let accepted = event(body, &limits);
    assert!(accepted.is_none_or(|channels| (1..=limits.channels_per_publish).contains(&channels)));
    assert!(batch(body, &limits).is_none_or(|events| events <= limits.batch));
    assert!(
        event(body, &small).is_none() || event(body, &Limits::default()).is_some(),
        "more is allowed by higher limits"
    );
    let alone = [b"{\"batch\":[", body, b"]}"].concat();
    if accepted == Some(1) {
        assert_eq!(batch(&alone, &limits), Some(1), "an event for one channel is a batch of one");
    }
}
