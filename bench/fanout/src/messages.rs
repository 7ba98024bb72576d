//! What is said, by clients and by publishers, made before anything is measured.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use measure::Outcome;
use measure::frame::{opcode, push_masked};
use sha2::Sha256;

/// Where clients connect.
pub(crate) const PATH: &str = "/app/app-key?protocol=7&client=taut-bench&version=1";

/// The event that is published.
pub(crate) const EVENT: &str = "news";

/// A channel's name; all have the same length.
pub(crate) fn channel(number: usize) -> String {
    format!("channel-{number:05}")
}

/// A client's frame that subscribes to a channel.
pub(crate) fn subscribe(channel: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let message = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
    push_masked(&mut frame, opcode::TEXT, message.as_bytes(), [0x37, 0xFA, 0x21, 0x3D]);
    frame
}

/// What an event carries: JSON of 100 bytes, with a number in it.
pub(crate) fn data(sequence: usize) -> String {
    let text = "abcdefghijklmnopqrstuvwxyz".chars().cycle().skip(sequence % 26).take(DATA - OTHER);
    let text: String = text.collect();
    format!(r#"{{"sequence":"{sequence:010}","text":"{text}"}}"#)
}

/// The HTTP request that publishes, signed as Pusher's libraries do.
pub(crate) fn publish(address: SocketAddr, channel: &str, data: &str) -> Outcome<Vec<u8>> {
    let data = serde_json::to_string(data)?;
    let body = format!(r#"{{"name":"{EVENT}","channel":"{channel}","data":{data}}}"#);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let md5 = hex(&Md5::digest(body.as_bytes()));
    let query = format!("auth_key={KEY}&auth_timestamp={now}&auth_version=1.0&body_md5={md5}");
    let signature = sign(&format!("POST\n{EVENTS}\n{query}"));
    // The length comes last: the raw server finds it there.
    Ok(format!(
        "POST {EVENTS}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes())
}

fn sign(text: &str) -> String {
    let mut hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET).expect("a key of any length will do");
    hmac.update(text.as_bytes());
    hex(&hmac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const EVENTS: &str = "/apps/1/events";
const KEY: &str = "app-key";
const SECRET: &[u8] = b"app-secret";

/// Bytes of an event's data, and those of it that are not its text.
const DATA: usize = 100;
const OTHER: usize = r#"{"sequence":"0000000000","text":""}"#.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_its_length_and_differs() {
        for sequence in [0, 1, 25, 26, 9_999_999_999] {
            assert_eq!(data(sequence).len(), 100, "{sequence}");
        }
        assert_ne!(data(1), data(27));
    }

    // Recomputed with another implementation.
    #[test]
    fn a_signature_is_that_of_pushers_libraries() {
        let text = "POST\n/apps/1/events\nauth_key=app-key&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f";
        assert_eq!(sign(text), "0d0556b68e45be84640b196522aa257bcd2cc3be2aa56afbf3909d88dc704f6d");
        assert_eq!(hex(&Md5::digest(b"")), "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn all_requests_are_equally_long() {
        let address = ([127, 0, 0, 1], 4711).into();
        let one = publish(address, &channel(1), &data(1)).unwrap();
        let other = publish(address, &channel(99_999), &data(1_000_000)).unwrap();
        assert_eq!(one.len(), other.len());
        assert!(one.ends_with(br#"\"}"}"#));
    }
}
