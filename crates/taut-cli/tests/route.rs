//! `taut route test` against a backend: what is sent, what is shown, and how it ends.

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use process::Folder;
use serde_json::{Value, json};

/// A backend that answers one request after another with these texts, and keeps what it is sent.
struct Backend {
    address: SocketAddr,
    requests: Receiver<(Vec<String>, Vec<u8>)>,
}

impl Backend {
    fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        let (tell, requests) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut reader = BufReader::new(stream.try_clone().expect("the same stream"));
                let lines = (&mut reader).lines().map(|line| line.expect("a line"));
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
                reader.read_exact(&mut body).expect("a body");
                let _ = tell.send((head, body));
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
        });
        Self { address, requests }
    }

    /// The heads and bodies of all requests.
    fn requests(&self) -> Vec<(Vec<String>, Vec<u8>)> {
        self.requests.try_iter().collect()
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn json(body: &str) -> String {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

fn events(headers: &str, body: &str) -> String {
    answer("200 OK", &format!("Content-Type: application/websocket-events\r\n{headers}"), body)
}

/// What the command printed to stdout and stderr, and its exit code.
struct Ended {
    printed: String,
    told: String,
    code: Option<i32>,
}

impl Ended {
    /// The lines that say what the server would do.
    fn verdicts(&self) -> Vec<&str> {
        self.printed.lines().filter(|line| line.starts_with(['✓', '✗', '!', '→'])).collect()
    }

    fn objects(&self) -> Vec<Value> {
        self.printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn test(route: &str, path: &str, arguments: &[&str], input: &str) -> Ended {
    let apps = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"hunter2-of-the-app\"\n";
    let folder = Folder::new();
    let file = folder.write("taut.toml", &format!("{apps}{route}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_taut"));
    command.env_clear().args(["route", "test", path]).args(arguments).env("TAUT_CONFIG", file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { printed: text(output.stdout), told: text(output.stderr), code: output.status.code() }
}

fn plain(backend: &Backend, more: &str) -> String {
    format!(
        "[[routes]]\npath = \"/chat/{{room}}\"\nbackend = \"http://{}/chat?token=hunter2\"\n{more}",
        backend.address
    )
}

fn grip(backend: &Backend) -> String {
    format!(
        "[[routes]]\npath = \"/{{path...}}\"\nform = \"websocket-over-http\"\nbackend = \"http://{}/below\"\n\
         secret = \"hunter2-0123456789-0123456789-012345\"\n",
        backend.address
    )
}

#[test]
fn a_conversation_is_shown_as_it_is_sent_and_what_would_be_done() {
    let backend = Backend::start(&[
        &json(
            r#"{"user":"ann","meta":{"n":1},"subscribe":["room-42","presence-a"],"send":["hi",{"binary":"AP8="}],"timer":30}"#,
        ),
        &json(r#"{"meta":{"n":null},"publish":[{"channel":"room-42","data":{"x":1},"except":"self"}],"what":1}"#),
        &answer("204 No Content", "", ""),
        &json(r#"{"unsubscribe":["room-42"],"user":null,"timer":0}"#),
        &json(r#"{"publish":[{"user":"bob","event":"left","data":"a"}],"send":"late"}"#),
    ]);
    let line =
        ["-H", "Cookie: a=b", "-H", "X-Own: 1", "--protocol", "chat", "--send", "hello", "--send-binary", "00ff"];
    let ended =
        test(&plain(&backend, ""), "/chat/42?q=1", &[&line[..], &["--timer", "--close", "4001:bye"]].concat(), "");
    let expected = [
        "! the header X-Own is not sent: the route does not pass it on",
        "→ open",
        "✓ lets the client in as ann",
        "✓ keeps meta {\"n\":1}",
        "✓ subscribes the client to room-42",
        "✓ subscribes the client to presence-a",
        "✓ sends hi",
        "✓ sends binary 00ff",
        "✓ sends a timer event every 30 s",
        "→ text",
        "✓ keeps meta {}",
        "✓ publishes message to the channel room-42, but not to this connection: {\"x\":1}",
        "✗ left out: the unknown field \"what\" was ignored",
        "→ binary",
        "✓ nothing to do",
        "→ timer",
        "✓ signs the client out",
        "✓ unsubscribes the client from room-42",
        "✓ sends no timer events",
        "→ close",
        "✓ publishes left to the user bob: a",
        "✗ left out: send: the connection is over",
    ];
    let verdicts = ended.verdicts();
    assert_eq!(verdicts.len(), expected.len(), "{}", ended.printed);
    for (line, expected) in verdicts.iter().zip(expected) {
        assert!(*line == expected || line.starts_with("✗ left out: ") && line.contains("what"), "{line}\n{expected}");
    }
    assert_eq!((ended.code, &*ended.told), (Some(1), ""), "parts were left out");
    assert!(!ended.printed.contains("hunter2") && !ended.printed.contains('\x1b'), "{}", ended.printed);
    assert!(ended.printed.contains("  POST http://127.0.0.1:"), "{}", ended.printed);
    assert!(ended.printed.contains("/chat?…\n  cookie: a=b\n"), "{}", ended.printed);
    assert!(ended.printed.lines().all(|line| line.chars().count() <= 80 || line.contains(": ")), "{}", ended.printed);
    let requests = backend.requests();
    assert_eq!(requests.len(), 5);
    for (head, _) in &requests {
        assert_eq!(head[0], "POST /chat?token=hunter2 HTTP/1.1");
        let shown = format!("  {}\n", head[1..head.len() - 2].join("\n  "));
        assert!(
            ended.printed.contains(&shown),
            "all that the client of HTTP does not add:\n{shown}\n{}",
            ended.printed
        );
    }
    let sent: Vec<Value> = requests.iter().map(|(_, body)| serde_json::from_slice(body).expect("JSON")).collect();
    assert_eq!(sent[0]["request"]["protocols"], json!(["chat"]));
    assert_eq!((&sent[1]["user"], &sent[1]["meta"]), (&json!({"id": "ann"}), &json!({"n": 1})));
    assert_eq!((&sent[4]["code"], &sent[4]["reason"], &sent[4]["user"]), (&json!(4001), &json!("bye"), &json!(null)));
}

#[test]
fn everything_carried_out_ends_with_0_and_lines_of_the_input_are_messages() {
    let backend = Backend::start(&[&json("{}"), &json(""), &json("[]"), &json("{}")]);
    let ended = test(&plain(&backend, ""), "/chat/1", &["--stdin", "--json"], "a\nb c\n");
    assert_eq!((ended.code, &*ended.told), (Some(0), ""), "{}", ended.printed);
    let objects = ended.objects();
    let kinds: Vec<_> = objects.iter().map(|it| (it["kind"].as_str(), it["event"].as_str())).collect();
    let of = |event| [(Some("request"), Some(event)), (Some("answer"), Some(event))];
    assert_eq!(kinds, [of("open"), of("text"), of("text"), of("close")].concat());
    assert_eq!(objects[4]["body"]["json"]["data"], "b c");
    assert_eq!(objects[1]["does"], json!(["lets the client in"]));
    assert_eq!((&objects[3]["status"], &objects[3]["verdict"]), (&json!(200), &json!("carried-out")));
    let sent = backend.requests().into_iter().map(|(_, body)| serde_json::from_slice::<Value>(&body).expect("JSON"));
    let shown = objects.iter().filter(|it| it["kind"] == "request").map(|it| it["body"]["json"].clone());
    assert!(sent.eq(shown));
}

#[test]
fn a_refusal_a_failure_and_a_backend_that_is_away_end_with_1() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    for (answer, expected) in [
        (answer("401 Unauthorized", "", "no token"), &["✗ refuses the client with 401 and this body"][..]),
        (
            answer("500 Internal Server Error", "", "secret stack"),
            &[
                "✗ the answer was 500 Internal Server Error",
                "✗ refuses the client with 502: The application cannot answer.",
            ],
        ),
        (
            answer("200 OK", "Content-Type: text/html\r\n", "<p>"),
            &[
                "✗ the answer is \"text/html\" and not JSON: \"<p>\"",
                "✗ refuses the client with 502: The application cannot answer.",
            ],
        ),
    ] {
        let backend = Backend::start(&[&answer]);
        let ended = test(&plain(&backend, ""), "/chat/1", &["--send", "a"], "");
        assert_eq!(ended.verdicts(), [&["→ open"], expected].concat(), "{}", ended.printed);
        assert_eq!(ended.code, Some(1));
    }
    let away = Backend { address: nobody, requests: mpsc::channel().1 };
    let ended = test(&plain(&away, ""), "/chat/1", &["--send", "a"], "");
    assert!(
        ended.printed.contains("\n← no answer in ") && ended.printed.contains("\n✗ no connection: "),
        "{}",
        ended.printed
    );
    assert!(ended.printed.contains("✗ refuses the client with 503: The application is away"), "{}", ended.printed);
    assert_eq!(ended.code, Some(1));
}

#[test]
fn an_event_that_fails_closes_the_connection_or_is_lost_and_says_whether_it_would_be_sent_again() {
    let busy = answer("503 Service Unavailable", "Retry-After: 3\r\n", "");
    let backend = Backend::start(&[&json("{}"), &busy, &json("{}")]);
    let ended = test(&plain(&backend, ""), "/chat/1", &["--send", "a", "--send", "b", "--timer"], "");
    let expected = [
        "→ open",
        "✓ lets the client in",
        "→ text",
        "! sends the event again after 3 s, as the backend asks; this test does not",
        "✗ unless that succeeds, closes the connection with 1013 (try again later)",
        "! events that are not sent, because the connection is over: 2",
        "→ close",
        "✓ nothing to do",
    ];
    assert_eq!(ended.verdicts(), expected, "{}", ended.printed);
    let close: Value = serde_json::from_slice(&backend.requests()[2].1).expect("JSON");
    assert_eq!((&close["code"], &close["reason"]), (&json!(1013), &json!("try again later")));
    assert_eq!(ended.code, Some(1));

    let backend = Backend::start(&[
        &json("{}"),
        &answer("404 Not Found", "", ""),
        &json(r#"{"close":{"code":4000,"reason":"x"}}"#),
        &json("{}"),
    ]);
    let ended = test(&plain(&backend, "on-error = \"keep\""), "/chat/1", &["--send", "a", "--send", "b"], "");
    let expected = [
        "→ open",
        "✓ lets the client in",
        "→ text",
        "✗ the answer was 404 Not Found",
        "✗ keeps the connection; the event is lost",
        "→ text",
        "✓ closes the connection with 4000 (x)",
        "→ close",
        "✓ nothing to do",
    ];
    assert_eq!(ended.verdicts(), expected, "{}", ended.printed);
}

#[test]
fn what_the_server_would_refuse_of_an_answer_is_left_out() {
    let backend = Backend::start(&[
        &json(r#"{"subscribe":["presence-a","a b"],"publish":[{"channel":"a","event":"pusher:x","data":1}]}"#),
        &json("{}"),
    ]);
    let origins = "[[routes]]";
    let route = plain(&backend, "").replace(origins, &format!("origins = [\"https://example.com\"]\n{origins}"));
    let ended = test(&route, "/chat/1", &["-H", "Origin: https://other.example"], "");
    let verdicts = ended.verdicts();
    assert!(
        verdicts[0].starts_with("! the server refuses this client before it asks the backend, with 403: Pages"),
        "{verdicts:?}"
    );
    for why in ["a presence channel is for users", "the subscription to \"a b\"", "reserved for the server"] {
        assert!(
            verdicts.iter().any(|line| line.starts_with("✗ left out: ") && line.contains(why)),
            "{why}: {verdicts:?}"
        );
    }
    assert_eq!(ended.code, Some(1));
}

#[test]
fn a_route_for_tokens_is_played_with_a_good_one_alone() {
    // Of ann, by HS256 with this secret, until 2096.
    let token =
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4iLCJleHAiOjQwMDAwMDAwMDB9._irRetsE3qYVe6TYj2Uj8p6t5uYIQq44-8vF9g4ODAI";
    let upgrade = "[apps.upgrade]\nsecret = \"a secret of thirty-two characters\"\n";
    let empty = answer("200 OK", "", "");
    let backend = Backend::start(&[&empty, &json("{}"), &empty, &json("{}")]);
    let route = format!("{upgrade}{}", plain(&backend, "auth = \"jwt\""));
    let bearer = format!("Authorization: Bearer {token}");
    for (path, line) in [("/chat/1", &["-H", bearer.as_str()][..]), (&format!("/chat/1?token={token}"), &[])] {
        let ended = test(&route, path, line, "");
        let expected = ["→ open", "✓ lets the client in as ann", "→ close", "✓ nothing to do"];
        assert_eq!((ended.verdicts(), ended.code), (expected.to_vec(), Some(0)), "{}", ended.printed);
    }
    let sent = backend.requests();
    let open: Value = serde_json::from_slice(&sent[0].1).expect("JSON");
    assert_eq!(open["user"], json!({"id": "ann"}));
    for (path, why) in [("/chat/1", "there was none"), ("/chat/1?token=hunter2", "is no JSON Web Token")] {
        let ended = test(&route, path, &["--send", "a"], "");
        let [line] = ended.verdicts()[..] else { panic!("{}", ended.printed) };
        assert!(line.contains("before it asks the backend, with 401: Unauthorized: ") && line.contains(why), "{line}");
        assert_eq!(ended.code, Some(1));
    }
    let ended = test(&plain(&backend, "auth = \"jwt\""), "/chat/1", &[], "");
    assert!(ended.told.contains("give the app \"1\" an [apps.upgrade]"), "{}", ended.told);
    assert_eq!((ended.code, backend.requests().len()), (Some(64), 0));
}

#[test]
fn an_empty_answer_to_open_lets_everybody_in_where_the_route_says_so() {
    for (route, code) in [("auth = \"none\"", 0), ("auth = \"backend\"", 1)] {
        let empty = answer("200 OK", "", "");
        let backend = Backend::start(&[&empty, &empty]);
        let ended = test(&plain(&backend, route), "/chat/1", &[], "");
        assert_eq!(ended.printed.contains("✓ lets the client in"), code == 0, "{}", ended.printed);
        assert_eq!(ended.code, Some(code));
    }
}

#[test]
fn websocket_over_http_is_shown_as_events() {
    let extension =
        "Sec-WebSocket-Extensions: grip; message-prefix=\"\"\r\nSet-Meta-User: ann\r\nKeep-Alive-Interval: 30\r\n";
    let control = r#"c:{"type":"subscribe","channel":"room"}"#;
    let opened = format!("OPEN\r\nTEXT {:x}\r\n{control}\r\nTEXT 2\r\nhi\r\n", control.len());
    let backend = Backend::start(&[
        &events(extension, &opened),
        &events("", "TEXT 3\r\n\u{1b}[m\r\n"),
        &events("", "CLOSE 5\r\n\u{3}\u{0}bye\r\n"),
        &answer("500 Internal Server Error", "", ""),
    ]);
    let ended = test(
        &grip(&backend),
        "/a/b?c=d",
        &["-H", "X-Own: 1", "--send", "hello", "--send-binary", "00ff", "--send", "x"],
        "",
    );
    assert!(ended.printed.contains(&format!("  POST http://{}/below/a/b?c=d\n", backend.address)), "{}", ended.printed);
    for shown in [
        "\n  x-own: 1\n",
        "\n  grip-sig: ",
        "\n  OPEN\n",
        "\n  TEXT hello\n",
        "\n  BINARY 00ff\n",
        "\n  meta-User: ann\n",
        "\n  TEXT \\e[m\n",
    ] {
        assert!(ended.printed.to_lowercase().contains(&shown.to_lowercase()), "{shown} in\n{}", ended.printed);
    }
    let expected = [
        "→ open",
        "✓ lets the client in",
        "✓ keeps meta {\"user\":\"ann\"}",
        "✓ sends a timer event every 30 s",
        "✓ subscribes the client to room",
        "✓ sends hi",
        "→ text",
        "✓ sends \\e[m",
        "→ binary",
        "✓ closes the connection with 1011 (backend error)",
        "✗ left out: a Close frame cannot have the code 768: 1011 was sent",
        "! events that are not sent, because the connection is over: 1",
        "→ close",
        "✓ nothing to do",
    ];
    assert_eq!(ended.verdicts(), expected, "{}", ended.printed);
    assert!(!ended.printed.contains("hunter2") && !ended.printed.contains('\x1b'), "{}", ended.printed);
}

#[test]
fn what_cannot_be_played_ends_with_64_and_says_why() {
    let backend = Backend::start(&[]);
    for (route, path, arguments, reason) in [
        (&*plain(&backend, ""), "/other", &[][..], "no route has the path /other; there are:\n  /chat/{room}\n"),
        ("", "/chat/1", &[], "the configuration has no [[routes]]"),
        (&plain(&backend, "bakend = \"x\""), "/chat/1", &[], "did you mean backend?"),
        (&plain(&backend, "app = \"2\""), "/chat/1", &[], "there is no app \"2\""),
        (&plain(&backend, ""), "/chat/a b", &[], "the path must be percent-encoded"),
        (&plain(&backend, ""), "/chat/1", &["-H", "Upgrade: x"], "Upgrade"),
        (&plain(&backend, ""), "/chat/1", &["--config", "/nowhere.toml"], "/nowhere.toml"),
        (&plain(&backend, ""), "/chat/1", &["--close", "1"], "1000 to 4999"),
    ] {
        let ended = test(route, path, arguments, "");
        assert_eq!((ended.code, &*ended.printed), (Some(64), ""), "{path} {arguments:?}: {}", ended.told);
        assert!(ended.told.contains(reason) && !ended.told.contains("hunter2"), "{reason} in {}", ended.told);
    }
}
