//! Any bytes as a signed request: no panic, nothing passes unsigned, and what is signed passes.
//!
//! Input: four lines, each ended by a line feed but for the last: method, path, query, body.

use taut_pusher::auth::{Request, SignatureError, SigningKey};

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut parts = data.splitn(4, |octet| *octet == b'\n');
    let mut line = || str::from_utf8(parts.next().unwrap_or_default()).ok();
    let (Some(method), Some(path), Some(query)) = (line(), line(), line()) else { return };
    let body = parts.next().unwrap_or_default();
    let key = SigningKey::new(SECRET);
    let verify = |query: &str| Request::new(method, path, query, body).verify(|_| Some(&key), "", NOW);
    let request = Request::new(method, path, query, body);
    let _ = (request.auth_key(), request.parameter("name"), request.list("filter").count());
    let unsigned = verify(query);
    match &unsigned {
        Ok(()) => panic!("nobody but us has the secret"),
        Err(refused) => assert!(!refused.to_string().contains(SECRET)),
    }
    // With a signature that is wrong it says what to sign; signed so, it passes.
    let query = match unsigned {
        Err(SignatureError::Missing("auth_signature")) => format!("{query}&auth_signature=0"),
        _ => return,
    };
    if let Err(SignatureError::Signature { text, .. }) = verify(&query) {
        let signed = format!("{}{}", query.strip_suffix('0').unwrap_or_default(), key.sign(&[text.as_bytes()]));
        assert_eq!(verify(&signed), Ok(()), "{text:?}");
    }
}

const SECRET: &str = "the secret that no input can know";
const NOW: u64 = 1_353_088_200;
