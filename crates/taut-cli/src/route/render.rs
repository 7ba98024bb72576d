//! How requests and answers look: for people as text, for programs as a line of JSON each.

use std::fmt::Write as _;

use taut_pusher::hex;
use taut_server::route_test::{Body, Exchange, Verdict};

use crate::json::{self, Layout, Object, list, quoted};
use crate::output::printable_to;

/// How output looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Text { is_terminal: bool, is_colored: bool },
    Json,
}

impl Style {
    /// Something that is neither a request nor an answer.
    pub(super) fn note(self, text: &str) -> String {
        match self {
            Self::Json => Object::new("note").field("text", &quoted(text)).line(),
            Self::Text { .. } => format!("{}\n\n", self.paint(YELLOW, &format!("! {}", self.safe(text)))),
        }
    }

    /// A request, its answer, and what the server would make of that.
    pub(super) fn exchange(self, exchange: &Exchange) -> String {
        match self {
            Self::Json => json_lines(exchange),
            Self::Text { .. } => self.text(exchange),
        }
    }

    fn text(self, exchange: &Exchange) -> String {
        let Exchange { event, request, reply, took, stderr, verdict, does, left_out, why, again, .. } = exchange;
        let mut out = self.paint(BOLD, &format!("→ {event}"));
        // Writing to a `String` cannot fail.
        out.push('\n');
        if !request.address.is_empty() {
            let _ = writeln!(out, "  {} {}", request.method, self.safe(&request.address));
        }
        if let Some(script) = &request.script {
            let _ = writeln!(out, "  script {}", self.safe(script));
        }
        for (name, value) in &request.headers {
            let _ = writeln!(out, "  {}", self.paint(DIM, &self.safe(&format!("{name}: {value}"))));
        }
        self.write_body(&mut out, &request.body);
        let milliseconds = took.as_millis();
        let is_good = *verdict == Verdict::CarriedOut;
        match reply {
            Some(reply) => {
                let status = format!("← {} in {milliseconds} ms", reply.status);
                let _ = writeln!(out, "\n{}", self.paint(if is_good { BOLD } else { RED }, &status));
                let is_shown = |name: &str| !HIDDEN.iter().any(|hidden| name.eq_ignore_ascii_case(hidden));
                for (name, value) in reply.headers.iter().filter(|(name, _)| is_shown(name)) {
                    let _ = writeln!(out, "  {}", self.paint(DIM, &self.safe(&format!("{name}: {value}"))));
                }
                self.write_body(&mut out, &reply.body);
            }
            // A message on a WebSocket has no answer of its own.
            None if request.address.is_empty() => {}
            None => {
                let _ = writeln!(out, "\n{}", self.paint(RED, &format!("← no answer in {milliseconds} ms")));
            }
        }
        out.push('\n');
        if !stderr.trim().is_empty() {
            let _ = writeln!(out, "{}", self.paint(YELLOW, "! the script has written to its error log:"));
            self.write_lines(&mut out, stderr.trim());
        }
        let mut line = |color, mark, text: &str| {
            let _ = writeln!(out, "{}", self.paint(color, &self.safe(&format!("{mark} {text}"))));
        };
        let (color, mark) = if is_good { (GREEN, '✓') } else { (RED, '✗') };
        if let Some(why) = why {
            line(RED, '✗', why);
        }
        if let Some(again) = again {
            line(YELLOW, '!', &format!("{again}; this test does not"));
        }
        for done in does {
            line(color, mark, done);
        }
        if is_good && does.is_empty() {
            line(color, mark, "nothing to do");
        }
        for left_out in left_out {
            line(RED, '✗', &format!("left out: {left_out}"));
        }
        out.push('\n');
        out
    }

    fn paint(self, color: &str, text: &str) -> String {
        match self {
            Self::Text { is_colored: true, .. } => format!("\x1b[{color}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    fn write_body(self, out: &mut String, body: &Body) {
        let text = match body {
            Body::Json(text) => {
                let layout = Layout { width: Some(WIDTH - INDENT.len()), ..Layout::default() };
                json::pretty(text, layout).unwrap_or_else(|| text.trim().to_owned())
            }
            Body::Events(lines) => lines.iter().map(|line| self.safe(line)).collect::<Vec<_>>().join("\n"),
            Body::Text(text) => text.trim_end().to_owned(),
            Body::Binary(bytes) => hex::encode(bytes),
        };
        if !text.is_empty() {
            out.push('\n');
            self.write_lines(out, &text);
        }
    }

    fn write_lines(self, out: &mut String, text: &str) {
        let beginning: String = text.chars().take(LONGEST_BODY).collect();
        for line in beginning.lines() {
            let line = self.safe(line);
            out.push_str(if line.is_empty() { "" } else { INDENT });
            out.push_str(&line);
            out.push('\n');
        }
        if beginning.len() < text.len() {
            let _ = writeln!(out, "{INDENT}… and {} more bytes: --json has all", text.len() - beginning.len());
        }
    }

    /// A stranger's text on a line.
    fn safe(self, text: &str) -> String {
        printable_to(text, matches!(self, Self::Text { is_terminal: true, .. }))
    }
}

fn json_lines(exchange: &Exchange) -> String {
    let Exchange { event, request, reply, took, stderr, verdict, does, left_out, why, again, .. } = exchange;
    let optional = |text: &Option<String>| text.as_deref().map_or_else(|| "null".to_owned(), quoted);
    let verdict = match verdict {
        Verdict::CarriedOut => "carried-out",
        Verdict::Refused => "refused",
        Verdict::Failed => "failed",
    };
    let sent = Object::new("request")
        .field("event", &quoted(event))
        .field("method", &quoted(request.method))
        .field("address", &quoted(&request.address))
        .field("script", &optional(&request.script))
        .field("headers", &headers(&request.headers))
        .field("body", &json_body(&request.body));
    let nothing = || "null".to_owned();
    let answered = Object::new("answer")
        .field("event", &quoted(event))
        .field("status", &reply.as_ref().map_or_else(nothing, |reply| reply.status.to_string()))
        .field("milliseconds", &took.as_millis().to_string())
        .field("headers", &reply.as_ref().map_or_else(nothing, |reply| headers(&reply.headers)))
        .field("body", &reply.as_ref().map_or_else(nothing, |reply| json_body(&reply.body)))
        .field("stderr", &quoted(stderr))
        .field("verdict", &quoted(verdict))
        .field("does", &list(does.iter().map(|text| quoted(text))))
        .field("left_out", &list(left_out.iter().map(|text| quoted(text))))
        .field("why", &optional(why))
        .field("again", &optional(again));
    sent.line() + &answered.line()
}

fn headers(headers: &[(String, String)]) -> String {
    list(headers.iter().map(|(name, value)| list([quoted(name), quoted(value)])))
}

fn json_body(body: &Body) -> String {
    let (name, json) = match body {
        Body::Json(text) => ("json", json::compact(text)),
        Body::Events(lines) => ("events", list(lines.iter().map(|line| quoted(line)))),
        Body::Text(text) => ("text", quoted(text)),
        Body::Binary(bytes) => ("hex", quoted(&hex::encode(bytes))),
    };
    format!("{{{}:{json}}}", quoted(name))
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Columns of a terminal.
const WIDTH: usize = 80;

const INDENT: &str = "  ";

/// Characters of a body.
const LONGEST_BODY: usize = 16_384;

/// Headers of an answer that say nothing of the application.
const HIDDEN: [&str; 8] =
    ["connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding", "x-powered-by"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use taut_server::route_test::{Reply, Request};

    use super::*;

    const PLAIN: Style = Style::Text { is_terminal: false, is_colored: false };

    fn exchange(body: Body, reply: Option<Reply>, verdict: Verdict) -> Exchange {
        let headers = vec![("Webhook-Id".to_owned(), "ev_1".to_owned())];
        let script = Some("/srv/chat.php".to_owned());
        let request = Request { method: "POST", address: "fastcgi:///run/php.sock".to_owned(), script, headers, body };
        Exchange {
            event: "text",
            request,
            reply,
            took: Duration::from_micros(3900),
            stderr: String::new(),
            verdict,
            does: Vec::new(),
            left_out: Vec::new(),
            why: None,
            again: None,
        }
    }

    fn reply(body: Body) -> Reply {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Reply { status: 200, headers: vec![header("Date", "today"), header("Set-Cookie", "a=\x07")], body }
    }

    #[test]
    fn an_exchange_has_a_request_an_answer_and_what_comes_of_it() {
        let answer = reply(Body::Json(" {\"a\": 1} ".to_owned()));
        let mut shown = exchange(Body::Events(vec!["TEXT a\nb".to_owned()]), Some(answer), Verdict::CarriedOut);
        shown.stderr = "PHP Warning: one\ntwo\n".to_owned();
        let text = "→ text\n  POST fastcgi:///run/php.sock\n  script /srv/chat.php\n  Webhook-Id: ev_1\n\n  TEXT a\\nb\n\n\
            ← 200 in 3 ms\n  Set-Cookie: a=\\u{7}\n\n  {\"a\":1}\n\n\
            ! the script has written to its error log:\n  PHP Warning: one\n  two\n✓ nothing to do\n\n";
        assert_eq!(PLAIN.exchange(&shown), text);
        shown.does = vec!["sends a".to_owned()];
        shown.left_out = vec!["b".to_owned()];
        assert!(PLAIN.exchange(&shown).ends_with("✓ sends a\n✗ left out: b\n\n"));
    }

    #[test]
    fn what_failed_says_why_and_whether_it_would_be_sent_again() {
        let mut shown = exchange(Body::Binary(vec![0, 255]), None, Verdict::Failed);
        shown.why = Some("no connection".to_owned());
        shown.again = Some("sends the event again, for 10 s".to_owned());
        let end = "  00ff\n\n← no answer in 3 ms\n\n✗ no connection\n\
            ! sends the event again, for 10 s; this test does not\n\n";
        assert!(PLAIN.exchange(&shown).ends_with(end), "{}", PLAIN.exchange(&shown));
        let colored = Style::Text { is_terminal: true, is_colored: true }.exchange(&shown);
        assert!(colored.contains("\x1b[31m✗ no connection\x1b[0m\n"), "{colored}");
        let lines = Style::Json.exchange(&shown);
        let [request, answer] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        assert_eq!(
            (&read(request)["body"]["hex"], &read(answer)["status"]),
            (&"00ff".into(), &serde_json::Value::Null)
        );
        assert_eq!(read(answer)["why"], "no connection");
        assert_eq!(read(&Style::Json.note("a\"b"))["text"], "a\"b");
        assert_eq!(PLAIN.note("a\x1bb"), "! a\\eb\n\n");
    }

    #[test]
    fn a_long_body_is_cut_and_json_has_all_of_it() {
        let page = "é".repeat(LONGEST_BODY + 3);
        let shown = exchange(Body::Text(String::new()), Some(reply(Body::Text(page.clone()))), Verdict::Failed);
        assert!(PLAIN.exchange(&shown).contains("é\n  … and 6 more bytes: --json has all\n"));
        assert!(Style::Json.exchange(&shown).contains(&page));
    }
}
