//! The log as an operator reads it: why nobody can connect, what is served, and JSON to its last line.

#![cfg(unix)]

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::net::TcpListener;

use process::{Folder, Taut};
use serde_json::{Value, json};
use support::{Client, Http, JSON, MEMBER, signed_with};
use taut_proto::handshake::ClientRequest;

const APP: [&str; 2] = ["--app", "1:key-one:secret-one"];

#[test]
fn the_log_names_the_engine_of_a_cluster_without_its_password() {
    // Nothing listens there, and so the node is on its own.
    let free = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    let url = format!("redis://me:hunter2@{free}/1");
    let mut taut =
        Taut::serve(&[&APP[..], &["--cluster", &url, "--cluster-name", "a", "--metrics-token", TOKEN]].concat());
    let bearer = format!("Bearer {TOKEN}");
    let nodes = Http::connect(taut.address()).request("GET", "/nodes", &[("Authorization", &bearer)], b"");
    assert_eq!(nodes.status, 200);
    let shown: Value = serde_json::from_slice(&nodes.body).expect("JSON");
    assert_eq!(
        (&shown["engine"]["address"], &shown["nodes"][0]["name"]),
        (&json!(format!("redis://{free}/1")), &json!("a"))
    );
    taut.signal("TERM");
    let log = taut.ended().1.join("\n");
    assert!(log.contains(&format!("one of the nodes of a cluster engine=\"redis://{free}/1\"")), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

const TOKEN: &str = "the-token-of-the-tests";

#[test]
fn the_log_says_at_its_default_level_whom_what_was_refused_and_why() {
    let mut taut = Taut::serve(&[&APP[..], &["--max-connections", "1"]].concat());
    let address = taut.address();
    let line = |taut: &mut Taut, parts: &[&str]| {
        let line = taut.logged(parts[0]);
        assert!(line.contains("INFO") && parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
    };
    assert_eq!(Client::connect(address, "/app/nobody").message()["data"]["code"], 4001);
    let client = "address=127.0.0.1";
    line(&mut taut, &["reason=\"unknown_key\"", "what=\"connection\"", client, "there is no app with the key nobody"]);

    let (mut member, socket_id) = Client::member(address);
    assert_eq!(Client::connect(address, MEMBER).message()["data"]["code"], 4004);
    line(&mut taut, &["reason=\"quota\"", "what=\"connection\"", "app=\"1\"", client]);

    let auth = format!("key-one:{}", "0123456789abcdef".repeat(4));
    let data = json!({ "auth": auth, "channel": "private-room" });
    member.send(&json!({ "event": "pusher:subscribe", "data": data }));
    assert_eq!(member.message()["event"], "pusher:subscription_error");
    let socket = format!("socket_id={socket_id}");
    let wanted = ["what=\"subscription\"", "reason=\"signature\"", "app=\"1\"", &socket, "channel=\"private-room\""];
    line(&mut taut, &wanted);
    member.send(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": "{\"id\":\"1\"}" } }));
    assert_eq!(member.message()["event"], "pusher:error");
    line(&mut taut, &["what=\"sign_in\"", "reason=\"signature\"", "app=\"1\"", &socket]);

    // A proxy that does not pass Upgrade on.
    assert_eq!(Http::connect(address).request("GET", MEMBER, &[], b"").status, 426);
    line(&mut taut, &["reason=\"handshake\"", "what=\"connection\"", client, "a proxy has to pass it on"]);

    let body = json!({ "name": "event", "channel": "chat", "data": "" }).to_string();
    let target = signed_with("key-one", "secret-two", "POST", "/apps/1/events", "", body.as_bytes());
    assert_eq!(Http::connect(address).request("POST", &target, &JSON, body.as_bytes()).status, 401);
    line(&mut taut, &["what=\"request\"", "reason=\"signature\"", "app=\"1\"", client]);
    assert_eq!(Http::connect(address).request("GET", "/apps/99/channels", &[], b"").status, 404);
    line(&mut taut, &["reason=\"unknown_app\"", "what=\"request\"", client, "The app 99 could not be found"]);

    taut.signal("TERM");
    while member.next() != support::Heard::End {}
    let (_, log) = taut.ended();
    let (_, signature) = target.split_once("auth_signature=").expect("a signature");
    for secret in ["secret-one", "secret-two", &signature[..8], "01234567"] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{secret} in {log:#?}");
    }
}

#[test]
fn a_page_of_another_origin_is_named_in_the_log() {
    let folder = Folder::new();
    let app = "[[apps]]\nid = \"1\"\nkey = \"key-one\"\nsecret = \"secret-one\"\norigins = [\"https://a.example\"]\n";
    let mut taut = Taut::serve(&["--config", &folder.write("taut.toml", app)]);
    let request = ClientRequest::new(&taut.address().to_string(), MEMBER).expect("a request");
    let request = request.origin("https://b.example").expect("an origin");
    assert_eq!(Client::open(taut.address(), &request).message()["data"]["code"], 4009);
    let line = taut.logged("reason=\"origin\"");
    assert!(line.contains("app=\"1\"") && line.contains("https://b.example"), "{line}");
}

#[test]
fn a_wrong_password_for_the_console_is_logged_with_its_address() {
    let mut taut = Taut::serve(&[&APP[..], &["--console-password", "correct horse battery"]].concat());
    let body = json!({ "password": "hunter2 hunter2" }).to_string();
    let answer = Http::connect(taut.address()).request("POST", "/console/api/session", &JSON, body.as_bytes());
    assert_eq!(answer.status, 401);
    let line = taut.logged("wrong password for the console");
    assert!(line.contains("WARN") && line.contains("address=127.0.0.1") && !line.contains("hunter2"), "{line}");
}

#[test]
fn the_start_and_the_end_are_logged_with_what_is_served_and_notes_are_not_warnings() {
    let folder = Folder::new();
    let app = |id: &str| {
        let webhook = "[[apps.webhooks]]\nurl = \"http://127.0.0.1:1/\"\n";
        format!("[[apps]]\nid = \"{id}\"\nkey = \"key-{id}\"\nsecret = \"secret-{id}\"\n{webhook}")
    };
    let path = folder.write("taut.toml", &format!("[limits]\nconnections = 700\n{}{}", app("shop"), app("forum")));
    let mut taut = Taut::serve(&["--config", &path]);
    let note = taut.logged("webhooks wait in memory");
    assert!(note.contains("INFO"), "{note}");
    let apps = taut.logged("ids=");
    assert!(apps.contains("count=2") && apps.contains("shop, forum"), "{apps}");
    taut.logged("max_connections=700");
    taut.signal("TERM");
    let (status, log) = taut.ended();
    assert!(status.success() && log.last().is_some_and(|line| line.ends_with("stopped")), "{log:#?}");
    assert!(log[0].contains("version=") && log[0].contains(env!("CARGO_PKG_VERSION")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("secret-")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains('\u{1b}')), "no colors where there is no terminal: {log:#?}");
}

/// The level and the words of a line in JSON.
fn parsed(line: &str) -> (String, String) {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    assert!(!text("timestamp").is_empty(), "{line}");
    (text("level"), text("message"))
}

#[test]
fn a_log_in_json_is_json_to_its_last_line_at_every_level() {
    for level in ["off", "info", "trace"] {
        let mut taut = Taut::serve(&["--log-format", "json", "--log-level", level]);
        // A load balancer asks, so that the notice is told as well.
        assert_eq!(Http::connect(taut.address()).request("GET", "/ready", &[], b"").status, 200);
        let _ = Client::connect(taut.address(), "/app/nobody").message();
        taut.signal("INT");
        let (status, log) = taut.ended();
        assert!(status.success());
        let lines: Vec<_> = log.iter().map(|line| parsed(line)).collect();
        assert!(lines.iter().any(|(_, message)| message.starts_with("stopping, for at most")), "{level}: {lines:#?}");
        let last = if level == "off" { "stopping, for at most" } else { "stopped" };
        assert!(lines.last().is_some_and(|(_, message)| message.starts_with(last)), "{level}: {lines:#?}");
    }
}

#[test]
fn what_ends_the_program_is_json_as_well() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let json = ["--log-format", "json"];
    for (options, code, words) in [
        (&["--listen", &taken][..], 1, "cannot listen on"),
        (&["--listen", "here"], 1, "address to listen on"),
        (&["--listen", "127.0.0.1:0", "--nonsense"], 64, "unexpected argument '--nonsense'"),
    ] {
        let output = process::output(process::command(&[options, &json].concat()));
        assert_eq!(output.status.code(), Some(code), "{options:?}");
        let log = String::from_utf8(output.stderr).expect("text");
        let lines: Vec<_> = log.lines().map(parsed).collect();
        let (level, message) = lines.last().expect("a line");
        assert!(level == "ERROR" && message.contains(words), "{options:?}: {lines:#?}");
    }
    let mut command = process::command(&["--nonsense"]);
    command.env("TAUT_LOG_FORMAT", "json");
    let log = String::from_utf8(process::output(command).stderr).expect("text");
    assert_eq!(log.lines().map(|line| parsed(line).0).collect::<Vec<_>>(), ["ERROR"]);
}
