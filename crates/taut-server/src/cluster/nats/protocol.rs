//! The protocol of NATS: what a server says, and what a client says. No I/O.
//!
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Info(&'a [u8]),
    Message(Message<'a>),
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// A message of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) subject: &'a str,
    /// The subscription's number.
    pub(super) subscription: u64,
    pub(super) reply: Option<&'a str>,
    pub(super) headers: Headers<'a>,
    pub(super) payload: &'a [u8],
}

/// The headers of a message as they stand; none at all are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers<'a>(&'a str);

/// What a server says of itself, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub(super) version: String,
    pub(super) max_payload: usize,
    pub(super) headers: bool,
    pub(super) tls_required: bool,
    /// To be signed by clients that have a key.
    pub(super) nonce: Option<String>,
    /// The server shuts down.
    pub(super) ldm: bool,
}

impl Default for Info {
    fn default() -> Self {
        let max_payload = 1 << 20;
        Self { version: String::new(), max_payload, headers: false, tls_required: false, nonce: None, ldm: false }
    }
}

/// What a client says of itself.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the protocol has them")]
pub(super) struct Connect<'a> {
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    pub(super) tls_required: bool,
    pub(super) name: &'a str,
    pub(super) lang: &'a str,
    pub(super) version: &'a str,
    pub(super) protocol: u8,
    /// Whether it hears what it publishes.
    pub(super) echo: bool,
    pub(super) headers: bool,
    pub(super) no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sig: Option<&'a str>,
}

/// These bytes are not what a server of NATS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the server does not speak the protocol of NATS")
    }
}

impl<'a> Said<'a> {
    /// Reads the next thing at the beginning of these bytes, and how many it takes; `None` if more must come.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() > LONGEST_LINE { Err(Malformed) } else { Ok(None) };
        };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let after = end + 1;
        let said = match () {
            () if word.eq_ignore_ascii_case("MSG") => return message(rest, false, bytes, after),
            () if word.eq_ignore_ascii_case("HMSG") => return message(rest, true, bytes, after),
            () if word.eq_ignore_ascii_case("INFO") => Self::Info(rest.trim().as_bytes()),
            () if word.eq_ignore_ascii_case("PING") => Self::Ping,
            () if word.eq_ignore_ascii_case("PONG") => Self::Pong,
            () if word.eq_ignore_ascii_case("+OK") => Self::Ok,
            () if word.eq_ignore_ascii_case("-ERR") => Self::Error(rest.trim().trim_matches('\'').to_owned()),
            () => return Err(Malformed),
        };
        Ok(Some((said, after)))
    }
}

/// `subject subscription [reply] [header bytes] bytes`, and then these bytes.
fn message<'a>(
    line: &'a str,
    has_headers: bool,
    bytes: &'a [u8],
    after: usize,
) -> Result<Option<(Said<'a>, usize)>, Malformed> {
    let mut words = [""; 5];
    let mut count = 0;
    for word in line.split_ascii_whitespace() {
        *words.get_mut(count).ok_or(Malformed)? = word;
        count += 1;
    }
    let numbers = 1 + usize::from(has_headers);
    let reply = match count.checked_sub(2 + numbers) {
        Some(0) => None,
        Some(1) => Some(words[2]),
        _ => return Err(Malformed),
    };
    let total: usize = words[count - 1].parse().map_err(|_| Malformed)?;
    let head: usize = if has_headers { words[count - 2].parse().map_err(|_| Malformed)? } else { 0 };
    if total > LARGEST || head > total {
        return Err(Malformed);
    }
    let end = after + total;
    // The line ends before the bytes do, and they end with a line of their own.
    let Some(tail) = bytes.get(end..end + 2) else { return Ok(None) };
    if tail != b"\r\n" {
        return Err(Malformed);
    }
    let headers = std::str::from_utf8(&bytes[after..after + head]).map_err(|_| Malformed)?;
    let message = Message {
        subject: words[0],
        subscription: words[1].parse().map_err(|_| Malformed)?,
        reply,
        headers: Headers(headers),
        payload: &bytes[after + head..end],
    };
    Ok(Some((Said::Message(message), end + 2)))
}

impl<'a> Headers<'a> {
    /// The headers as they stand.
    pub(super) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The first value of this name.
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        self.0.split("\r\n").skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn number(self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// What the server says in place of an answer, such as 503: nobody hears this.
    pub(super) fn status(self) -> Option<u16> {
        let line = self.0.split("\r\n").next()?.strip_prefix("NATS/1.0")?.trim_start();
        line.split(' ').next()?.parse().ok()
    }
}

/// Writes what a client says.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn connect(&mut self, connect: &Connect<'_>) {
        self.put(&[b"CONNECT ", &serde_json::to_vec(connect).expect("it is plain data"), b"\r\n"]);
    }

    pub(super) fn ping(&mut self) {
        self.put(&[b"PING\r\n"]);
    }

    pub(super) fn pong(&mut self) {
        self.put(&[b"PONG\r\n"]);
    }

    pub(super) fn subscribe(&mut self, subject: &str, subscription: u64) {
        self.put(&[b"SUB ", subject.as_bytes(), b" ", subscription.to_string().as_bytes(), b"\r\n"]);
    }

    pub(super) fn unsubscribe(&mut self, subscription: u64) {
        self.put(&[b"UNSUB ", subscription.to_string().as_bytes(), b"\r\n"]);
    }

    pub(super) fn publish(&mut self, subject: &str, reply: Option<&str>, headers: &[(&str, &str)], payload: &[u8]) {
        let (separator, reply) = reply.map_or(("", ""), |reply| (" ", reply));
        let (word, mut head): (&[u8], _) =
            if headers.is_empty() { (b"PUB ", Vec::new()) } else { (b"HPUB ", START.to_vec()) };
        for (name, value) in headers {
            for part in [name, ": ", value, "\r\n"] {
                head.extend_from_slice(part.as_bytes());
            }
        }
        self.put(&[word, subject.as_bytes(), separator.as_bytes(), reply.as_bytes()]);
        if !headers.is_empty() {
            head.extend_from_slice(b"\r\n");
            self.put(&[b" ", head.len().to_string().as_bytes()]);
        }
        let total = (head.len() + payload.len()).to_string();
        self.put(&[b" ", total.as_bytes(), b"\r\n", &head, payload, b"\r\n"]);
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0.extend_from_slice(part);
        }
    }
}

const START: &[u8] = b"NATS/1.0\r\n";

/// Bytes. What a server says of itself names the others of its cluster.
const LONGEST_LINE: usize = 1 << 20;

/// Bytes of a message: the most that a server of NATS can be configured to take.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(mut bytes: &[u8]) -> Vec<Said<'_>> {
        let mut found = Vec::new();
        while let Some((said, taken)) = Said::read(bytes).expect("a server says this") {
            found.push(said);
            bytes = &bytes[taken..];
        }
        assert!(bytes.is_empty(), "{bytes:?}");
        found
    }

    #[test]
    fn what_a_server_says_is_read() {
        let said =
            all(b"INFO {\"max_payload\":10} \r\nPING\r\nping\r\nPONG\r\n+OK\r\n-ERR 'Authorization Violation'\r\n");
        let error = Said::Error("Authorization Violation".to_owned());
        assert_eq!(said, [Said::Info(b"{\"max_payload\":10}"), Said::Ping, Said::Ping, Said::Pong, Said::Ok, error]);
        let info: Info = serde_json::from_slice(b"{\"max_payload\":10,\"tls_required\":true,\"x\":1}").expect("JSON");
        assert!(info.max_payload == 10 && info.tls_required && !info.ldm && info.nonce.is_none());
    }

    #[test]
    fn messages_have_replies_and_headers_or_not() {
        let said = all(
            b"MSG a.b 7 5\r\nhi\r\n!\r\nMSG a 8 reply.1 0\r\n\r\nHMSG a 9 r 31 32\r\nNATS/1.0\r\nNats-Sequence: 12\r\n\r\nx\r\nHMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        );
        let messages: Vec<_> = said
            .iter()
            .map(|said| if let Said::Message(message) = said { message } else { panic!("{said:?}") })
            .collect();
        assert_eq!((messages[0].subject, messages[0].subscription, messages[0].payload), ("a.b", 7, &b"hi\r\n!"[..]));
        assert_eq!((messages[0].reply, messages[0].headers.status()), (None, None));
        assert_eq!((messages[1].reply, messages[1].payload), (Some("reply.1"), &b""[..]));
        assert_eq!((messages[2].headers.number("nats-sequence"), messages[2].payload), (Some(12), &b"x"[..]));
        assert_eq!((messages[2].headers.status(), messages[2].headers.get("other")), (None, None));
        assert_eq!(messages[3].headers.status(), Some(503));
    }

    #[test]
    fn what_no_server_says_is_refused() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"MSG a 1\r\n",
            b"MSG a x 1\r\nx\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 2 3 4 5\r\n",
            b"MSG a 1 1\r\nxyz",
            b"MSG a 1 99999999999\r\n",
            b"HMSG a 1 5 4\r\n",
            b"\xff\r\n",
        ] {
            assert_eq!(Said::read(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(Said::read(&vec![b'x'; LONGEST_LINE + 1]), Err(Malformed));
    }

    #[test]
    fn what_a_client_says_is_as_the_protocol_wants_it() {
        let mut writer = Writer::default();
        writer.subscribe("a.*", 3);
        writer.unsubscribe(3);
        writer.publish("a", None, &[], b"hi");
        writer.publish("a", Some("r"), &[("Nats-Msg-Id", "7")], b"hi");
        writer.ping();
        writer.pong();
        let text = String::from_utf8(writer.take()).expect("text");
        assert_eq!(
            text,
            "SUB a.* 3\r\nUNSUB 3\r\nPUB a 2\r\nhi\r\nHPUB a r 28 30\r\nNATS/1.0\r\nNats-Msg-Id: 7\r\n\r\nhi\r\nPING\r\nPONG\r\n"
        );
        assert_eq!(writer.len(), 0);
        writer.connect(&Connect { name: "a\"b", user: Some("me"), ..Connect::default() });
        let text = String::from_utf8(writer.take()).expect("text");
        assert!(text.starts_with("CONNECT {") && text.ends_with("}\r\n"), "{text}");
        assert!(
            text.contains(r#""name":"a\"b""#) && text.contains(r#""user":"me""#) && !text.contains("pass"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn a_message_may_come_in_any_pieces(payload: Vec<u8>, value in "[ -~]{0,20}", cut in any::<prop::sample::Index>()) {
            let head = format!("NATS/1.0\r\nName: {value}\r\n\r\n");
            let total = head.len() + payload.len();
            let line = format!("HMSG subject 4 reply {} {total}\r\n{head}", head.len());
            let bytes = [line.as_bytes(), &payload, b"\r\n"].concat();
            prop_assert_eq!(Said::read(&bytes[..cut.index(bytes.len())]), Ok(None));
            let Ok(Some((Said::Message(message), taken))) = Said::read(&bytes) else {
                return Err(TestCaseError::fail("a message"));
            };
            prop_assert_eq!((message.payload, taken), (&payload[..], bytes.len()));
            prop_assert_eq!(message.headers.get("Name"), Some(value.trim()));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>, word in "(MSG|HMSG|INFO|-ERR) [ -~]{0,30}\r\n") {
            let _ = Said::read(&bytes);
            let _ = Said::read(&[word.as_bytes(), &bytes].concat());
        }
    }
}
