//! `taut serve` from its start to its end, as a process. What each part does is tested where the part is; here is the whole way, once.

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use process::{Folder, Taut, check};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use support::{Client, Heard, Http, JSON, MEMBER, event, signed, signed_with};
use taut_proto::handshake::ClientRequest;

#[test]
fn apps_keys_and_limits_follow_the_file_while_connections_stay() {
    let folder = Folder::new();
    let mut taut = Taut::serve(&["--config", &folder.write("taut.toml", &app("1", ONE))]);
    let (mut member, _) = Client::member(taut.address());
    member.subscribed("chat");

    // Another app, and another key beside the old one.
    let both = r#"keys = [{ key = "key-one", secret = "secret-one" }, { key = "key-new", secret = "secret-new" }]"#;
    let two = app("2", "key = \"key-two\"\nsecret = \"secret-two\"");
    folder.write("taut.toml", &(app("1", both) + &two));
    taut.logged("the configuration has been read again");
    Client::connect(taut.address(), &MEMBER.replace("key-one", "key-two")).greeting();
    for (key, secret) in [("key-one", "secret-one"), ("key-new", "secret-new")] {
        assert_eq!(publish(&taut, (key, secret), key), 200);
        assert_eq!(member.message(), event("chat", key));
    }

    // Without the old key, and with a limit.
    let new = "keys = [{ key = \"key-new\", secret = \"secret-new\" }]\nlimits = { event-data = 5 }";
    folder.write("taut.toml", &(app("1", new) + &two));
    taut.logged("the configuration has been read again");
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "1"), 401);
    assert_eq!(publish(&taut, ("key-new", "secret-new"), "123456"), 413);
    assert_eq!(publish(&taut, ("key-new", "secret-new"), "12345"), 200);
    assert_eq!(member.message(), event("chat", "12345"), "who came by the old key has stayed");
    let mut late = Client::connect(taut.address(), MEMBER);
    assert_eq!(late.message()["data"]["code"], 4001);
    Client::connect(taut.address(), &MEMBER.replace("key-one", "key-new")).greeting();
}

#[test]
fn a_broken_file_is_told_with_its_line_and_changes_nothing() {
    let folder = Folder::new();
    let one = app("1", ONE);
    let path = folder.write("taut.toml", &one);
    let mut taut = Taut::serve(&["--config", &path]);
    let (mut member, _) = Client::member(taut.address());
    member.subscribed("chat");

    for (more, reason) in [
        ("[limits]\nevent-data = \"much\"\n", "line 6: max-event-data: \"much\" is not"),
        (
            "[[apps.webhooks]]\nurl = \"ftp://me:hunter2@a.example/\"\n",
            "line 6: url: the address must begin with http:// or https://",
        ),
        ("[[apps]]\nid = \"2\n", "line 6: "),
    ] {
        folder.write("taut.toml", &format!("{one}{more}"));
        let line = taut.logged("the configuration stays as it was: ");
        let (_, told) = line.split_once("the configuration stays as it was: ").expect("the words");
        assert!(told.starts_with(&format!("{path}, {reason}")), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
        let checked = check(&["--config", &path]);
        assert_eq!(checked.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&checked.stderr).lines().next(), Some(&*format!("taut: {told}")));
        Http::connect(taut.address()).say("chat", more);
        assert_eq!(member.message(), event("chat", more));
    }

    // What waits for the next start is named, and the rest holds at once.
    folder.write("taut.toml", &format!("ping-interval = 20\n[limits]\nevent-data = 5\n{one}"));
    taut.signal("HUP");
    taut.logged("changed, but only from the next start on: ping-interval");
    taut.logged("the configuration has been read again");
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "123456"), 413);
    assert_eq!(check(&["--config", &path]).status.code(), Some(0));
}

#[test]
fn a_check_finds_all_that_keeps_a_server_from_its_start_at_once() {
    let folder = Folder::new();
    let (one, other) = (Certificate::new(), Certificate::new());
    let certificate = folder.write("certificate.pem", &one.pem);
    let key = folder.write("key.pem", &one.key);
    let wrong_key = folder.write("other.pem", &other.key);
    let text = folder.write("text.pem", "hello");
    let not_a_folder = format!("{text}/data");
    for (options, environment, told) in [
        (&["--tls-certificate", &text, "--tls-key", &key][..], None, "--tls-certificate: "),
        (&["--tls-certificate", &key, "--tls-key", &certificate], None, "--tls-certificate: "),
        (&["--tls-certificate", &certificate, "--tls-key", &certificate], None, "--tls-key: "),
        (&["--tls-certificate", &certificate, "--tls-key", &wrong_key], None, "cannot be used together"),
        (&["--tls-certificate", &certificate, "--tls-key", "/nowhere"], None, "--tls-key: /nowhere cannot be read"),
        (&["--data-directory", &not_a_folder], None, "--data-directory: the webhooks' file "),
        (&["--listen", "192.0.2.1:7001", "--app", "1:a:x"], None, "--listen: cannot listen on 192.0.2.1:7001: "),
        (&[], Some(("TAUT_LISTN", "127.0.0.1:0")), "TAUT_LISTN: there is no such variable; did you mean TAUT_LISTEN?"),
        (&[], Some(("TAUT_DATA_DIRECTORY", not_a_folder.as_str())), "TAUT_DATA_DIRECTORY: the webhooks' file "),
    ] {
        let run = |more: &[&str]| {
            let mut command = process::command(options);
            if !options.contains(&"--listen") {
                command.args(["--listen", "127.0.0.1:0"]);
            }
            command.args(more).envs(environment);
            let output = process::output(command);
            (output.status.code(), String::from_utf8(output.stderr).expect("text"))
        };
        let checked = run(&["--check"]);
        assert!(checked.0 == Some(1) && checked.1.contains(told), "{told}\n{checked:?}");
        // It is refused in the same words; if it were not, it would not end.
        let log_is_off = run(&["--log-level", "off"]);
        assert_eq!(log_is_off, checked, "{told}");
    }

    let file = folder.write(
        "taut.toml",
        &format!("shards = \"many\"\ntls-certificate = \"{text}\"\ntls-key = \"{key}\"\ndata-directory = \"{not_a_folder}\"\n"),
    );
    let checked = check(&["--config", &file, "--listen", "192.0.2.1:7001"]);
    let told = String::from_utf8(checked.stderr).expect("text");
    for part in [
        "there are 4 mistakes".to_owned(),
        format!("{file}, line 1: shards: "),
        format!("{file}, line 2: {text} holds no certificate"),
        format!("{file}, line 4: the webhooks' file "),
        "--listen: cannot listen on 192.0.2.1:7001".to_owned(),
    ] {
        assert!(told.contains(&part), "{part}\n{told}");
    }
}

#[test]
fn a_check_shows_the_engine_of_a_cluster_without_its_password() {
    for (url, shown) in [
        ("rediss://me:hunter2@redis.example:6380/1", "rediss://redis.example:6380/1"),
        ("redis://me:hunter2@one.example:7000,two.example:7001", "redis://one.example:7000,two.example:7001"),
        ("nats://me:hunter2@nats.example", "nats://nats.example"),
        ("nats://one.example,nats://me:hunter2@two.example:4223", "nats://one.example,two.example:4223"),
    ] {
        let checked = check(&["--listen", "127.0.0.1:0", "--cluster", url, "--cluster-prefix", "shop"]);
        let told = String::from_utf8(checked.stdout).expect("text");
        assert!(told.contains(&format!("one of the nodes shop on {shown}\n")), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let checked = check(&["--listen", "127.0.0.1:0", "--cluster", "amqp://me:hunter2@rabbit.example"]);
    let told = String::from_utf8(checked.stderr).expect("text");
    assert!(told.contains("--cluster: Understood are redis://HOST"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_check_of_a_running_servers_configuration_is_good_and_leaves_the_server_alone() {
    let folder = Folder::new();
    let data = folder.path("data");
    let options = ["--app", "1:key-one:secret-one", "--data-directory", &data];
    let checked = check(&options);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!std::path::Path::new(&data).exists(), "a check makes nothing");
    let taut = Taut::serve(&options);
    let (mut member, _) = Client::member(taut.address());
    let address = taut.address().to_string();
    let options = [&options[..], &["--listen", &address]].concat();
    let checked = check(&options);
    let (told, wrong) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert_eq!(checked.status.code(), Some(0), "{told}{wrong}");
    assert!(told.contains(&format!("note: something listens on {address} already")), "{told}");
    assert!(told.contains("webhooks.redb is in use by a server that runs"), "{told}");
    member.expect_nothing_before_a_pong();
    Client::member(taut.address());
    // A second server is still refused, for both reasons.
    let refused = process::output(process::command(&options));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("--listen: cannot listen on {address}: ")), "{told}");
    assert!(told.contains("--data-directory: ") && told.contains("Another server uses it"), "{told}");
}

#[test]
fn a_file_that_loses_its_apps_does_not_bring_the_development_app() {
    let folder = Folder::new();
    let path = folder.write("taut.toml", &app("1", ONE));
    let mut taut = Taut::serve(&["--config", &path]);
    let (mut member, _) = Client::member(taut.address());
    for text in ["", "# cut off\n[limits]\n"] {
        folder.write("taut.toml", text);
        taut.logged("the configuration stays as it was: no app is left in the configuration");
        let mut stranger = Client::connect(taut.address(), "/app/app-key");
        assert_eq!(stranger.message()["data"]["code"], 4001);
        member.expect_nothing_before_a_pong();
    }
}

#[test]
fn an_env_file_of_laravel_is_served_and_followed() {
    let folder = Folder::new();
    let env = |secret: &str| {
        format!(
            "APP_NAME=\"My App\" # ours\nREVERB_APP_ID=1\nREVERB_APP_KEY=key-one\nexport REVERB_APP_SECRET='{secret}'\nREVERB_HOST=\"localhost\"\nREVERB_PORT=8080\nREVERB_SCHEME=http\n"
        )
    };
    let path = folder.write(".env", &env("secret-one"));
    let mut taut = Taut::serve(&["--env-file", &path]);
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "1"), 200);
    folder.write(".env", &env("secret-new"));
    taut.logged("the configuration has been read again");
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "1"), 401);
    assert_eq!(publish(&taut, ("key-one", "secret-new"), "1"), 200);
}

#[test]
fn a_changed_file_and_the_signal_for_it_are_read_once() {
    let folder = Folder::new();
    let one = app("1", ONE);
    let mut taut = Taut::serve(&["--config", &folder.write("taut.toml", &one)]);
    // It looks at nothing between the change and the signals.
    taut.signal("STOP");
    folder.write("taut.toml", &format!("[limits]\nevent-data = 5\n{one}"));
    taut.signal("HUP");
    taut.signal("CONT");
    taut.logged("the configuration has been read again");
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "123456"), 413);
    // The file would be looked at twice in this time.
    assert_eq!(taut.logged_within(Duration::from_secs(3), "the configuration has been read again"), None);
    folder.write("taut.toml", &one);
    taut.logged("the configuration has been read again");
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "123456"), 200);
}

#[test]
fn at_sighup_clients_of_an_app_that_is_gone_are_closed_with_4001_and_no_others() {
    let folder = Folder::new();
    let path = folder.write("apps", "1:key-one:secret-one\n2:key-two:secret-two\n");
    let mut taut = Taut::serve(&["--apps-file", &path]);
    let (mut gone, _) = Client::member(taut.address());
    let mut other = Client::connect(taut.address(), &MEMBER.replace("key-one", "key-two"));
    other.greeting();
    folder.write("apps", "2:key-two:secret-two\n");
    taut.signal("HUP");
    taut.logged("the configuration has been read again");
    assert_eq!(gone.message()["data"]["code"], 4001);
    assert_eq!(gone.closed().0, 4001);
    other.expect_nothing_before_a_pong();
    assert_eq!(publish(&taut, ("key-one", "secret-one"), "1"), 404);
}

#[test]
fn a_certificate_is_replaced_while_connections_stay() {
    let folder = Folder::new();
    let (first, second) = (Certificate::new(), Certificate::new());
    let certificate = folder.write("certificate.pem", &first.pem);
    let key = folder.write("key.pem", &first.key);
    let app = ["--app", "1:key-one:secret-one", "--tls-certificate", &certificate, "--tls-key", &key];
    let mut taut = Taut::serve(&app);
    assert_eq!(taut.origin(), format!("https://{}", taut.address()));
    let mut member = first.member(taut.address()).expect("the first certificate");
    member.subscribed("chat");

    // The second certificate with the first one's key.
    folder.write("certificate.pem", &second.pem);
    taut.signal("HUP");
    let refused = taut.logged("the certificate cannot be renewed: it stays the one it was");
    assert!(refused.contains("WARN") && refused.contains("key"), "{refused}");
    say(&mut first.https(taut.address()).expect("the first certificate"), "1");
    assert_eq!(member.message(), event("chat", "1"));

    // Nobody has to tell it.
    folder.write("key.pem", &second.key);
    taut.logged("the certificate has been renewed");
    say(&mut second.https(taut.address()).expect("the second certificate"), "2");
    assert_eq!(member.message(), event("chat", "2"), "who came by the first certificate has stayed");
    second.member(taut.address()).expect("the second certificate").expect_nothing_before_a_pong();
    assert!(first.https(taut.address()).is_err(), "the first certificate is shown to nobody any more");
}

#[test]
fn at_sigterm_clients_are_sent_on_one_after_another_webhooks_delivered_and_the_end_is_a_good_one() {
    const CLIENTS: u32 = 300;
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = Folder::new();
    let webhook = format!("[[apps.webhooks]]\nurl = \"http://{}/\"\n", receiver.local_addr().expect("an address"));
    let path = folder.write("taut.toml", &(app("1", ONE) + &webhook));
    let told = take(receiver);
    let mut taut = Taut::serve(&["--config", &path]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::member(taut.address()).0).collect();
    clients[0].subscribed("chat");
    assert_eq!(told.recv().expect("a webhook"), "channel_occupied chat");

    let start = Instant::now();
    taut.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.closed().0, 4100);
    }
    // A millisecond for each: all of them come back at once if all are sent on at once.
    assert!(start.elapsed() >= Duration::from_millis(1) * (CLIENTS - 1), "{:?}", start.elapsed());
    // Without a data directory nothing can wait for the next start.
    assert_eq!(told.recv().expect("a webhook"), "channel_vacated chat");
    drop(clients);
    let (status, log) = taut.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.starts_with("taut: stopping, for at most 20 s")), "{log:#?}");
    assert!(TcpStream::connect(taut.address()).is_err());
}

/// On which of four event loops the client is, and which of them owns its channel, differs from run to run: most have nobody, and may not end before
/// the others.
#[test]
fn at_sigterm_a_channel_of_a_single_client_is_told_as_vacated_at_once_or_after_the_next_start() {
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = Folder::new();
    let webhook = format!("[[apps.webhooks]]\nurl = \"http://{}/\"\n", receiver.local_addr().expect("an address"));
    let path = folder.write("taut.toml", &(app("1", ONE) + &webhook));
    let data = format!("{path}.data");
    let told = take(receiver);
    let heard = || told.recv_timeout(support::PATIENCE).expect("a webhook");
    let stop = |mut taut: Taut| {
        taut.signal("TERM");
        let (status, log) = taut.ended();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("ERROR")), "{log:#?}");
    };
    for run in 0..8 {
        let in_memory = ["--config", &path, "--shards", "4"];
        let in_a_file = ["--config", &path, "--shards", "4", "--data-directory", &data];
        let is_kept = run % 2 == 1;
        let taut = Taut::serve(if is_kept { &in_a_file } else { &in_memory });
        let (mut client, _) = Client::member(taut.address());
        client.subscribed("chat");
        assert_eq!(heard(), "channel_occupied chat");
        let ended = thread::spawn(move || while client.next() != Heard::End {});
        stop(taut);
        ended.join().expect("it has heard the end");
        if is_kept {
            let next = Taut::serve(&in_a_file);
            assert_eq!(heard(), "channel_vacated chat", "run {run}");
            stop(next);
        } else {
            assert_eq!(heard(), "channel_vacated chat", "run {run}");
        }
    }
}

#[test]
fn what_is_lost_when_the_server_ends_is_logged_with_its_number() {
    // It takes connections, and answers nothing.
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = Folder::new();
    let webhook = format!("[[apps.webhooks]]\nurl = \"http://{}/\"\n", receiver.local_addr().expect("an address"));
    let path = folder.write("taut.toml", &(app("1", ONE) + &webhook));
    let mut taut = Taut::serve(&["--config", &path, "--drain-timeout", "1"]);
    let (mut client, _) = Client::member(taut.address());
    client.subscribed("chat");
    taut.signal("TERM");
    while client.next() != Heard::End {}
    let (status, log) = taut.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let lost = log.iter().find(|line| line.contains("webhooks were not delivered in time, and are lost"));
    assert!(lost.is_some_and(|line| line.contains("lost=2")), "{log:#?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut taut = Taut::serve(&["--app", "1:key-one:secret-one"]);
    // It does not answer the close, for which the drain waits.
    let (_deaf, _) = Client::member(taut.address());
    taut.signal("TERM");
    taut.logged("again to stop at once");
    taut.signal("INT");
    assert_eq!(taut.ended().0.signal(), Some(2));
}

#[test]
fn the_link_that_is_printed_opens_the_console_and_is_in_no_log() {
    let mut taut = Taut::serve(&["--log-format", "json", "--log-level", "trace"]);
    let printed = taut.printed("Look inside: ");
    let link = printed.trim().strip_prefix("Look inside: ").expect("a link");
    let (origin, token) = link.split_once("/console#token=").expect("a token");
    assert_eq!(origin, taut.origin());
    let overview = |cookie: &str| {
        Http::connect(taut.address()).request("GET", "/console/api/overview", &[("Cookie", cookie)], b"").status
    };
    assert_eq!(overview(""), 401);
    let body = json!({ "token": token }).to_string();
    let admitted = Http::connect(taut.address()).request("POST", "/console/api/session", &JSON, body.as_bytes());
    assert_eq!(admitted.status, 200);
    let cookie = admitted.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie");
    assert_eq!(overview(cookie), 200);
    taut.signal("TERM");
    let (_, log) = taut.ended();
    assert!(log.len() > 1, "{log:?}");
    assert!(log.iter().all(|line| !line.contains(token) && !line.contains(cookie)), "{log:#?}");
}

#[test]
fn a_server_without_a_console_says_how_to_open_one() {
    let taut = Taut::serve(&["--app", "1:key-one:secret-one"]);
    let printed = taut.printed("/console");
    assert!(printed.contains("console-listen") && printed.contains("console-password"), "{printed}");
}

#[test]
fn listeners_for_operators_are_printed_and_drained() {
    let mut taut = Taut::serve(&["--console-listen", "0", "--metrics-listen", ":0", "--app", "1:key-one:secret-one"]);
    let address = |line: &str, path: &str| -> SocketAddr {
        let (_, address) = line.strip_suffix(path).and_then(|line| line.split_once("://")).expect("an address");
        address.parse().expect(address)
    };
    let console = address(&taut.printed("console on http://"), "/console");
    let metrics = address(&taut.printed("metrics on http://"), "/metrics");
    let mut http = Http::connect(metrics);
    assert_eq!(http.request("GET", "/metrics", &[], b"").status, 200);
    assert_eq!(Http::connect(console).request("GET", "/console/api/overview", &[], b"").status, 200);
    assert_eq!(Http::connect(taut.address()).request("GET", "/metrics", &[], b"").status, 403);
    taut.signal("INT");
    assert!(http.is_at_end());
    assert_eq!(taut.ended().0.code(), Some(0));
}

#[test]
fn a_console_that_others_could_reach_without_a_password_is_refused() {
    let open = ["--app", "1:key-one:secret-one", "--console-listen", "0.0.0.0:7000"];
    let refused = check(&open);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("console-listen: ") && told.contains("set console-password"), "{told}");
    let locked = check(&[&open[..], &["--console-password", "correct horse battery"]].concat());
    assert_eq!(locked.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&locked.stdout).contains("  console on 0.0.0.0:7000\n"));
}

const ONE: &str = "key = \"key-one\"\nsecret = \"secret-one\"";

fn app(id: &str, rest: &str) -> String {
    format!("[[apps]]\nid = \"{id}\"\n{rest}\n")
}

/// Publishes to the channel `chat` of the first app with a key of it; gives the status.
fn publish(taut: &Taut, (key, secret): (&str, &str), data: &str) -> u16 {
    let body = json!({ "name": "event", "channel": "chat", "data": data }).to_string();
    let target = signed_with(key, secret, "POST", "/apps/1/events", "", body.as_bytes());
    Http::connect(taut.address()).request("POST", &target, &JSON, body.as_bytes()).status
}

fn say(http: &mut Http<Secure>, data: &str) {
    let body = json!({ "name": "event", "channel": "chat", "data": data }).to_string();
    let target = signed("POST", "/apps/1/events", "", body.as_bytes());
    assert_eq!(http.request("POST", &target, &JSON, body.as_bytes()).status, 200);
}

/// Takes webhooks and tells each of their events, as its name and its channel.
fn take(receiver: TcpListener) -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in receiver.incoming() {
            let (stream, tell) = (stream.expect("a connection"), tell.clone());
            // Connections are kept for the next request, which may come by another one.
            thread::spawn(move || answer(BufReader::new(stream), &tell));
        }
    });
    told
}

fn answer(mut stream: BufReader<TcpStream>, tell: &Sender<String>) {
    while let Some(body) = body(&mut stream) {
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("an answer");
        for event in body["events"].as_array().expect("events") {
            let text = |field: &str| event[field].as_str().expect("a text").to_owned();
            // Nobody may be there to hear it any more.
            let _ = tell.send(format!("{} {}", text("name"), text("channel")));
        }
    }
}

fn body(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    Some(serde_json::from_slice(&body).expect("JSON"))
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A certificate that has signed itself, and what trusts nothing but it.
struct Certificate {
    pem: String,
    key: String,
    trust: Arc<ClientConfig>,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let mut trust = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Who resumes a session is shown no certificate.
        trust.resumption = Resumption::disabled();
        Self { pem: made.cert.pem(), key: made.signing_key.serialize_pem(), trust: Arc::new(trust) }
    }

    /// Connects, if the server shows this certificate.
    fn connect(&self, address: SocketAddr) -> std::io::Result<Secure> {
        let name = ServerName::try_from("a.example").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.trust), name).expect("a connection");
        let mut stream = StreamOwned::new(connection, support::connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    fn https(&self, address: SocketAddr) -> std::io::Result<Http<Secure>> {
        Ok(Http::over(self.connect(address)?, address))
    }

    fn member(&self, address: SocketAddr) -> std::io::Result<Client<Secure>> {
        let request = ClientRequest::new("a.example", MEMBER).expect("a request");
        let mut client = Client::over(self.connect(address)?, &request);
        client.greeting();
        Ok(client)
    }
}
