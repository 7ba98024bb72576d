//! What the library reports of a connection, kept until the session shows it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taut::Client;
use taut::trace::{Kind, Step, Traffic};
use tokio::sync::Notify;

use super::certificate;
use crate::output::printable;

/// Something to show.
#[derive(Debug, PartialEq)]
pub(super) enum Note {
    /// A line of `-v`: how far connecting has come, a head.
    Line(String),
    /// The size of a message that was sent.
    Sent(Size),
    /// The size of the message that is received next.
    Received(Size),
    Ping {
        payload: Vec<u8>,
        is_ours: bool,
    },
    Pong {
        payload: Vec<u8>,
        round_trip: Option<Duration>,
    },
}

/// The bytes of a message, and those that it took on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) plain: usize,
    pub(super) wire: usize,
}

/// The notes of all connections of a session, in order.
#[derive(Clone, Default)]
pub(super) struct Steps(Arc<Inner>);

#[derive(Default)]
struct Inner {
    notes: Mutex<VecDeque<Note>>,
    changed: Notify,
}

impl Steps {
    /// Has the client report; what is only for `-v` if that is wanted.
    pub(super) fn follow(&self, client: Client, is_verbose: bool) -> Client {
        let steps = self.clone();
        client.trace(move |step| match step {
            Step::Sent(traffic) | Step::Received(traffic) if is_message(&traffic) && !is_verbose => {}
            Step::Sent(traffic) => steps.push(note_of(&traffic, true)),
            Step::Received(traffic) => steps.push(note_of(&traffic, false)),
            step if is_verbose => lines(&step).into_iter().for_each(|line| steps.push(Note::Line(line))),
            _ => {}
        })
    }

    /// Waits until there is a note.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The next note that does not belong to a message that is still to be received.
    pub(super) fn next(&self) -> Option<Note> {
        let mut notes = self.notes();
        if matches!(notes.front(), Some(Note::Received(_))) { None } else { notes.pop_front() }
    }

    /// The size of the message that was just received, behind all notes that came before it.
    pub(super) fn received(&self) -> Option<Size> {
        let mut notes = self.notes();
        match notes.front() {
            Some(&Note::Received(size)) => {
                notes.pop_front();
                Some(size)
            }
            _ => None,
        }
    }

    /// Forgets messages of a connection that is gone.
    pub(super) fn reset(&self) {
        self.notes().retain(|note| !matches!(note, Note::Received(_)));
    }

    fn push(&self, note: Note) {
        let mut notes = self.notes();
        // The library holds no more messages than this, so only a flood of pings loses notes.
        if notes.len() < MOST {
            notes.push_back(note);
        }
        self.0.changed.notify_one();
    }

    fn notes(&self) -> MutexGuard<'_, VecDeque<Note>> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_message(traffic: &Traffic<'_>) -> bool {
    matches!(traffic.kind, Kind::Text | Kind::Binary)
}

fn note_of(traffic: &Traffic<'_>, is_ours: bool) -> Note {
    let size = Size { plain: traffic.length, wire: traffic.wire };
    match traffic.kind {
        Kind::Ping => Note::Ping { payload: traffic.payload.to_vec(), is_ours },
        Kind::Pong => Note::Pong { payload: traffic.payload.to_vec(), round_trip: traffic.round_trip },
        _ if is_ours => Note::Sent(size),
        _ => Note::Received(size),
    }
}

/// What `-v` shows of a step.
fn lines(step: &Step<'_>) -> Vec<String> {
    match step {
        Step::Resolved { host, addresses } => {
            let addresses: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            vec![format!("* {} is {}", printable(host), addresses.join(", "))]
        }
        Step::Connected(address) => vec![format!("* connected to {address}")],
        Step::Tunnelled { proxy } => vec![format!("* through the proxy {proxy}")],
        Step::Secured(tls) => certificate::describe(tls).into_iter().map(|line| format!("* {line}")).collect(),
        Step::Request(head) => {
            let mut lines = head.lines().filter(|line| !line.is_empty());
            let request = lines.next().map(|line| format!("> {}", printable(&without_secrets(line))));
            request.into_iter().chain(lines.map(|line| shown('>', line))).collect()
        }
        Step::Response(response) => {
            let status = std::iter::once(format!("< HTTP/1.1 {}", response.status()));
            let headers = response
                .headers()
                .into_iter()
                .map(|(name, value)| shown('<', &format!("{name}: {}", String::from_utf8_lossy(value))));
            status.chain(headers).collect()
        }
        _ => Vec::new(),
    }
}

/// A URL, or a request line with one, without the values of parameters that are secrets.
pub(super) fn without_secrets(text: &str) -> String {
    let Some((before, query)) = text.split_once('?') else { return text.to_owned() };
    // The version of HTTP follows, or a fragment.
    let (query, after) = query.split_at(query.find([' ', '#']).unwrap_or(query.len()));
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(&name.to_ascii_lowercase()) => format!("{name}=…"),
        _ => parameter.to_owned(),
    });
    format!("{before}?{}{after}", parameters.collect::<Vec<_>>().join("&"))
}

/// A header, without its secrets.
fn shown(mark: char, line: &str) -> String {
    let Some((name, value)) = line.split_once(':') else { return format!("{mark} {}", printable(line)) };
    let value = value.trim();
    let value = match name.to_ascii_lowercase().as_str() {
        "authorization" | "proxy-authorization" => {
            // The scheme is no secret.
            value.split_once(' ').map_or_else(|| "…".to_owned(), |(scheme, _)| format!("{scheme} …"))
        }
        "cookie" => value.split(';').map(without_value).collect::<Vec<_>>().join(";"),
        "set-cookie" => {
            let (cookie, rest) = value.split_once(';').unwrap_or((value, ""));
            if rest.is_empty() { without_value(cookie) } else { format!("{};{rest}", without_value(cookie)) }
        }
        "sec-websocket-protocol" => {
            let names = value.split(", ").map(|name| if name.starts_with("bearer.") { "bearer.…" } else { name });
            names.collect::<Vec<_>>().join(", ")
        }
        // What a server asks for.
        "proxy-authenticate" | "www-authenticate" => value.to_owned(),
        "location" | "referer" => without_secrets(value),
        name if is_secret(name) => "…".to_owned(),
        _ => value.to_owned(),
    };
    format!("{mark} {}: {}", printable(name), printable(&value))
}

fn without_value(cookie: &str) -> String {
    cookie.split_once('=').map_or_else(|| "…".to_owned(), |(name, _)| format!("{name}=…"))
}

/// Names that applications give to headers and parameters with secrets. `Sec-WebSocket-Key` is not a secret.
fn is_secret(name: &str) -> bool {
    let words = ["token", "secret", "password", "api-key", "api_key", "apikey", "auth", "jwt", "signature"];
    words.iter().any(|word| name.contains(word))
}

/// Notes that are kept.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use std::iter;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_head_is_shown_without_its_secrets() {
        for (line, expected) in [
            ("Authorization: Bearer s3cret", "> Authorization: Bearer …"),
            ("proxy-authorization: s3cret", "> proxy-authorization: …"),
            ("Cookie: a=s3cret; b=s3cret", "> Cookie: a=…; b=…"),
            ("Set-Cookie: id=s3cret; Path=/; HttpOnly", "> Set-Cookie: id=…; Path=/; HttpOnly"),
            ("Sec-WebSocket-Protocol: v1, bearer.s3cret", "> Sec-WebSocket-Protocol: v1, bearer.…"),
            ("X-Api-Key: s3cret", "> X-Api-Key: …"),
            ("X-Auth-Token: s3cret", "> X-Auth-Token: …"),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "> Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            ("Server: a\u{1b}[31m", "> Server: a\\e[31m"),
            ("WWW-Authenticate: Bearer realm=\"a\"", "> WWW-Authenticate: Bearer realm=\"a\""),
            ("Location: https://a/x?access_token=s3cret#top", "> Location: https://a/x?access_token=…#top"),
        ] {
            assert_eq!(shown('>', line), expected);
        }
        for (line, expected) in [
            ("GET /x?y HTTP/1.1", "> GET /x?y HTTP/1.1"),
            ("GET /x?u=http://b HTTP/1.1", "> GET /x?u=http://b HTTP/1.1"),
            ("GET /x?Token=s3cret&a=1&api_key=s3cret HTTP/1.1", "> GET /x?Token=…&a=1&api_key=… HTTP/1.1"),
        ] {
            let head = format!("{line}\r\nHost: a\r\n\r\n");
            assert_eq!(lines(&Step::Request(&head)), [expected, "> Host: a"]);
        }
    }

    #[test]
    fn notes_wait_for_the_message_that_came_before_them() {
        let steps = Steps::default();
        let size = Size { plain: 3, wire: 5 };
        for note in [Note::Line("a".into()), Note::Received(size), Note::Line("b".into())] {
            steps.push(note);
        }
        assert_eq!((steps.received(), steps.next()), (None, Some(Note::Line("a".into()))));
        assert_eq!((steps.next(), steps.received()), (None, Some(size)));
        assert_eq!((steps.next(), steps.next()), (Some(Note::Line("b".into())), None));
        for _ in 0..2 * MOST {
            steps.push(Note::Received(size));
        }
        assert_eq!(steps.notes().len(), MOST);
        // They belong to a connection that is gone.
        steps.notes().truncate(1);
        steps.push(Note::Line("c".into()));
        steps.reset();
        assert_eq!((steps.received(), steps.next()), (None, Some(Note::Line("c".into()))));
    }

    #[tokio::test]
    async fn a_note_ends_the_wait_for_it() {
        let steps = Steps::default();
        let has_changed = async || {
            tokio::select! {
                biased;
                () = steps.changed() => true,
                () = std::future::ready(()) => false,
            }
        };
        assert!(!has_changed().await);
        steps.push(Note::Line("a".into()));
        assert!(has_changed().await);
    }

    #[tokio::test]
    async fn pings_are_noted_and_the_rest_only_for_v() {
        let payload = b"?".to_vec();
        let expected =
            [Note::Ping { payload: payload.clone(), is_ours: true }, Note::Pong { payload, round_trip: None }];
        assert_eq!(noted(false).await, expected);
        let notes = noted(true).await;
        let (head, talk) = notes.split_at(notes.len() - 4);
        let lines: Vec<_> = head.iter().map(|note| if let Note::Line(line) = note { line } else { panic!() }).collect();
        assert_eq!(lines[0], "* 127.0.0.1 is 127.0.0.1");
        assert!(lines[1].starts_with("* connected to 127.0.0.1:"), "{lines:?}");
        assert_eq!(lines[2], "> GET /feed HTTP/1.1");
        assert!(lines.iter().any(|&line| line == "< HTTP/1.1 101"), "{lines:?}");
        assert!(lines.iter().any(|&line| line.to_lowercase() == "< upgrade: websocket"), "{lines:?}");
        // RFC 6455 §5.2: two bytes of header, four of a client's masking key.
        let (sent, received) = (Size { plain: 5, wire: 11 }, Size { plain: 5, wire: 7 });
        assert!(matches!(
            talk,
            [Note::Ping { .. }, Note::Sent(ours), Note::Pong { .. }, Note::Received(theirs)] if (*ours, *theirs) == (sent, received)
        ));
    }

    /// What is noted of a client that pings an echo server and sends it a message.
    async fn noted(is_verbose: bool) -> Vec<Note> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/feed", listener.local_addr().unwrap());
        let steps = Steps::default();
        let client = steps.follow(Client::new(&url).no_proxy(), is_verbose);
        let server = async {
            let mut socket = taut::accept(listener.accept().await.unwrap().0).await.unwrap();
            while let Ok(Some(message)) = socket.recv().await {
                socket.send(message).await.unwrap();
            }
        };
        let talk = async {
            let mut socket = client.connect().await.unwrap();
            socket.ping(b"?").await.unwrap();
            socket.send("hello").await.unwrap();
            assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));
        };
        tokio::join!(server, talk);
        iter::from_fn(|| steps.next().or_else(|| steps.received().map(Note::Received))).collect()
    }
}
