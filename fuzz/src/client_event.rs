//! Any text as a client's message: no panic, and the same event however it is written.
//!
//! Input: the message. What is not UTF-8 never gets this far: RFC 6455 §8.1 closes the connection.

use taut_pusher::channel::Channel;
use taut_pusher::event::ClientEvent;
use taut_pusher::member::{Member, User};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(message) = str::from_utf8(data) else { return };
    let parsed = ClientEvent::parse(message);
    let spaced = format!(" \t{message}\r\n");
    assert_eq!(parsed.is_ok(), ClientEvent::parse(&spaced).is_ok(), "space around it changes nothing");
    match parsed {
        Ok(ClientEvent::Subscribe { channel, channel_data, .. }) => {
            let _ = Channel::parse(&channel, 200);
            let _ = channel_data.as_deref().map(Member::parse);
        }
        Ok(ClientEvent::SignIn { user_data, .. }) => drop(User::parse(&user_data)),
        Ok(ClientEvent::Triggered { data: Some(data), .. }) => {
            // It is passed on as it stands, so it has to be JSON that others can read.
            let readable: Result<serde_json::Value, _> = serde_json::from_str(&data);
            assert!(readable.is_ok() || is_beyond_values(&data), "{data}");
        }
        Ok(_) => {}
        Err(malformed) => assert!(malformed.to_string().len() < 300, "it repeats nothing of the message"),
    }
}

/// JSON that is right and that a `Value` cannot hold: numbers beyond an `f64`, and deep nesting.
fn is_beyond_values(data: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(data).is_ok()
}
