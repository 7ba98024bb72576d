//! What the tests of the server's side have in common.

/// The lines of a good handshake.
const GOOD: [&str; 6] = [
    "GET /chat HTTP/1.1",
    "Host: server.example",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// The good handshake with some lines exchanged for others, left out (an empty replacement) or added.
pub(super) fn head(changes: &[(&str, &str)]) -> String {
    let mut lines: Vec<_> = GOOD.iter().map(|&line| line.to_owned()).collect();
    for &(old, new) in changes {
        match lines.iter().position(|line| !old.is_empty() && line.starts_with(old)) {
            Some(index) if new.is_empty() => drop(lines.remove(index)),
            Some(index) => new.clone_into(&mut lines[index]),
            None if old.is_empty() => lines.push(new.to_owned()),
            None => panic!("no line begins with {old}"),
        }
    }
    lines.join("\r\n") + "\r\n\r\n"
}

/// What `write` appends.
pub(super) fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("text")
}
