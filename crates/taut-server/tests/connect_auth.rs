//! Who is let in at all, over real sockets: tokens, keys that are published, and an application that is asked.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use support::{Client, Http, PATIENCE, event, eventually, server};
use taut_proto::handshake::ClientRequest;
use taut_server::app::{Callback, Published, TokenAuth, TokenKeys, UpgradeAuth};
use taut_server::pusher::auth::Signature;
use taut_server::{Config, Running};

const SECRET: &str = "a secret of thirty-two characters";

/// The first app asks for this, the second one for nothing.
fn with_connect_auth(upgrade: UpgradeAuth) -> Running {
    guarded_with(upgrade, |_| {})
}

fn guarded_with(upgrade: UpgradeAuth, change: impl FnOnce(&mut Config)) -> Running {
    upgrade.check().expect("usable");
    server(|config| {
        config.apps[0].upgrade = Some(upgrade);
        change(config);
    })
}

fn by_secret() -> UpgradeAuth {
    UpgradeAuth::Token(TokenAuth { cookie: Some("session".into()), ..TokenAuth::new(TokenKeys::Secret(SECRET.into())) })
}

fn request(server: &Running, target: &str) -> ClientRequest {
    ClientRequest::new(&server.addresses()[0].to_string(), target).expect("a request")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn claims(user: &str) -> Value {
    json!({ "sub": user, "exp": now() + 600, "user_info": { "name": user } })
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn token(claims: &Value) -> String {
    let text = unsigned(&json!({ "alg": "HS256" }), claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{text}.{}", encode(ring::hmac::sign(&key, text.as_bytes()).as_ref()))
}

/// Connects to the first app and takes the greeting.
fn come(server: &Running, request: &ClientRequest) -> Client {
    let mut client = Client::open(server.addresses()[0], request);
    client.greeting();
    client
}

/// The status and the words with which a client is refused.
fn refused(server: &Running, request: &ClientRequest) -> (u16, String) {
    let answer = Http::refused(server.addresses()[0], request);
    assert_eq!(answer.header("www-authenticate"), (answer.status == 401).then_some("Bearer"));
    assert_eq!(answer.header("upgrade"), None);
    (answer.status, answer.text().trim_end().to_owned())
}

#[test]
fn a_token_is_taken_from_wherever_it_may_stand() {
    let server = with_connect_auth(by_secret());
    let token = token(&claims("ada"));
    let plain = || request(&server, "/app/key-one?protocol=7");
    for request in [
        plain().header("Authorization", &format!("Bearer {token}")).expect("a header"),
        request(&server, &format!("/app/key-one?protocol=7&token={token}")),
        plain().header("Cookie", &format!("a=b; session={token}")).expect("a header"),
    ] {
        assert_eq!(come(&server, &request).subprotocol(), None);
    }
    let bearer = format!("bearer.{token}");
    let request = plain().subprotocol("taut.v1").and_then(|request| request.subprotocol(&bearer)).expect("names");
    // The token is not said again.
    assert_eq!(come(&server, &request).subprotocol(), Some("taut.v1"));
}

#[test]
fn without_a_good_token_there_is_no_websocket() {
    let server = with_connect_auth(by_secret());
    let with = |token: &str| refused(&server, &request(&server, &format!("/app/key-one?token={token}")));
    let missing = "Unauthorized: this app wants a token from whoever connects, and there was none.";
    assert_eq!(refused(&server, &request(&server, "/app/key-one")), (401, missing.to_owned()));
    assert_eq!(with(""), (401, missing.to_owned()));
    let old = token(&json!({ "sub": "ada", "exp": now() - 61 }));
    let none = format!("{}.", unsigned(&json!({ "alg": "none" }), &claims("ada")));
    let good = token(&claims("ada"));
    for (token, reason) in [
        (old.as_str(), "has expired"),
        (none.as_str(), "is not signed with HS256"),
        (&good[..good.len() - 7], "signature"),
        ("hunter2", "is no JSON Web Token"),
        (&"x".repeat(9000), "larger than 8 KiB"),
        (&token(&json!({ "exp": now() + 60 })), "does not say whose it is"),
        (&token(&claims(&"x".repeat(129))), "too long"),
    ] {
        let (status, text) = with(token);
        assert!(status == 401 && text.contains(reason), "{status} {text}");
        assert!(!text.contains("hunter2") && !text.contains(&good), "{text}");
    }
    // A bad token is not made up for by a good one elsewhere.
    let both = request(&server, &format!("/app/key-one?token={good}"));
    let (status, _) = refused(&server, &both.header("Authorization", "Bearer hunter2").expect("a header"));
    assert_eq!(status, 401);
    // The second app asks for nothing, and nothing of this is about what comes first.
    Client::connect(server.addresses()[0], "/app/key-two").greeting();
    Client::connect(server.addresses()[0], "/app/nobody").message();
}

// RFC 6455 §10.2: a browser sends cookies with the handshakes of any page.
#[test]
fn a_cookie_counts_for_pages_of_the_same_host_alone_unless_origins_are_listed() {
    let server = with_connect_auth(by_secret());
    let cookie = format!("session={}", token(&claims("ada")));
    let with = |origin: &str| {
        let request = request(&server, "/app/key-one").header("Cookie", &cookie).expect("a header");
        request.origin(origin).expect("an origin")
    };
    assert_eq!(refused(&server, &with("https://evil.example")).0, 403);
    come(&server, &with(&format!("http://{}", server.addresses()[0])));
    let server = guarded_with(by_secret(), |config| config.apps[0].origins = vec!["https://shop.example".to_owned()]);
    come(&server, &with("https://shop.example"));
}

#[test]
fn whoever_came_in_by_a_token_is_its_user() {
    let server = with_connect_auth(by_secret());
    let mut client = Client::open(
        server.addresses()[0],
        &request(&server, &format!("/app/key-one?token={}", token(&claims("ada")))),
    );
    let socket_id = client.greeting();
    // Presence, without channel_data.
    let auth = format!("key-one:{}", Signature::of_subscription("secret-one", &socket_id, "presence-x", None));
    client.send(&json!({ "event": "pusher:subscribe", "data": { "channel": "presence-x", "auth": auth } }));
    let answer = client.message();
    let data: Value = serde_json::from_str(answer["data"].as_str().expect("a string")).expect("JSON");
    assert_eq!(data["presence"]["hash"], json!({ "ada": { "name": "ada" } }), "{answer}");
    // The user's own channel, and no other user's.
    client.subscribed("#server-to-user-ada");
    client.subscribe("#server-to-user-eve");
    assert_eq!(client.message()["event"], "pusher:subscription_error");
    Http::connect(server.addresses()[0]).say("#server-to-user-ada", "hello");
    assert_eq!(client.message(), event("#server-to-user-ada", "hello"));
    // Signing in as somebody else.
    let sign_in = |user: &str| {
        let user_data = json!({ "id": user }).to_string();
        let auth = format!("key-one:{}", Signature::of_user("secret-one", &socket_id, &user_data));
        json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })
    };
    client.send(&sign_in("eve"));
    let refused = client.message();
    assert_eq!(refused["event"], "pusher:error");
    assert!(refused["data"]["message"].as_str().expect("a text").contains("as another user"), "{refused}");
    client.send(&sign_in("ada"));
    assert_eq!(client.message()["event"], "pusher:signin_success");
}

/// What the other end of the server's own requests does.
#[derive(Clone)]
enum Reply {
    Answer(u16, String),
    /// Nothing, with the connection left open.
    Silence,
    /// The connection ends.
    End,
}

/// The application, or an issuer: a small HTTP server.
struct Application {
    address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    requests: Receiver<(String, Vec<u8>)>,
}

impl Application {
    fn new(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = mpsc::channel();
        let reply = Arc::new(Mutex::new(reply));
        let replies = Arc::clone(&reply);
        // It ends with the test's process, as nobody connects any more.
        thread::spawn(move || {
            let mut silent = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                // A client that has lost patience may have connected for nothing.
                let Some(request) = read_request(&mut stream) else { continue };
                let reply = replies.lock().expect("no panic").clone();
                match reply {
                    Reply::Answer(status, body) => {
                        let length = body.len();
                        let head =
                            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                        let _ = stream.write_all((head + &body).as_bytes());
                    }
                    Reply::Silence => silent.push(stream),
                    Reply::End => drop(stream),
                }
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        Self { address, reply, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/path?with=secret", self.address)
    }

    fn reply(&self, reply: Reply) {
        *self.reply.lock().expect("no panic") = reply;
    }

    /// The next request that came.
    fn request(&self) -> (String, Vec<u8>) {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }

    fn is_left_alone(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).expect("ASCII").to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            let mut rest = vec![0; length.parse::<usize>().expect("a number") - body.len()];
            stream.read_exact(&mut rest).expect("the body");
            return Some((head, [body, rest].concat()));
        }
        let count = support::read(stream, &mut buffer).ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    }
}

/// One that signs with a key of its own.
struct Issuer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random);
        Self { id, pair: pair.expect("a key") }
    }

    fn publish(issuers: &[&Self]) -> Reply {
        let key = |issuer: &&Self| {
            let point = issuer.pair.public_key().as_ref();
            let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
            json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": issuer.id, "x": x, "y": y })
        };
        Reply::Answer(200, json!({ "keys": issuers.iter().map(key).collect::<Vec<_>>() }).to_string())
    }

    fn request(&self, server: &Running, user: &str) -> ClientRequest {
        let text = unsigned(&json!({ "alg": "ES256", "kid": self.id }), &claims(user));
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).expect("signed");
        request(server, &format!("/app/key-one?token={text}.{}", encode(signature.as_ref())))
    }
}

fn by_published(published: Published) -> UpgradeAuth {
    UpgradeAuth::Token(TokenAuth::new(TokenKeys::Published(published)))
}

#[test]
fn published_keys_are_fetched_once_and_again_for_a_key_that_is_new() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let issuer = Application::new(Issuer::publish(&[&old]));
    let published = Published { refetch: Duration::ZERO, ..Published::new(issuer.url()) };
    let server = with_connect_auth(by_published(published));
    assert!(issuer.is_left_alone(), "nobody has come");
    come(&server, &old.request(&server, "ada"));
    let (head, _) = issuer.request();
    assert!(head.starts_with("get /path?with=secret http/1.1\r\n"), "{head}");
    come(&server, &old.request(&server, "ada"));
    assert!(issuer.is_left_alone(), "the key is known");
    let (status, text) = refused(&server, &new.request(&server, "ada"));
    assert!(status == 401 && text.contains("not signed by a key"), "{text}");
    issuer.request();
    // The key is replaced, and the old one is good no more.
    issuer.reply(Issuer::publish(&[&new]));
    come(&server, &new.request(&server, "ada"));
    issuer.request();
    assert_eq!(refused(&server, &old.request(&server, "ada")).0, 401);
}

#[test]
fn keys_that_are_made_up_do_not_make_the_server_fetch_time_and_again() {
    let (known, unknown) = (Issuer::new("known"), Issuer::new("unknown"));
    let issuer = Application::new(Issuer::publish(&[&known]));
    let server = with_connect_auth(by_published(Published::new(issuer.url())));
    come(&server, &known.request(&server, "ada"));
    issuer.request();
    for _ in 0..5 {
        assert_eq!(refused(&server, &unknown.request(&server, "ada")).0, 401);
    }
    assert!(issuer.is_left_alone());
}

#[test]
fn old_keys_are_used_while_no_new_ones_can_be_fetched() {
    let known = Issuer::new("known");
    let issuer = Application::new(Issuer::publish(&[&known]));
    let published = Published { refresh: Duration::ZERO, refetch: Duration::ZERO, ..Published::new(issuer.url()) };
    let server = with_connect_auth(by_published(published));
    come(&server, &known.request(&server, "ada"));
    issuer.request();
    for reply in [
        Reply::Answer(500, String::new()),
        Reply::Answer(200, "[]".to_owned()),
        Reply::Answer(200, format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300_000))),
        Reply::End,
    ] {
        issuer.reply(reply);
        eventually("a request for the keys", || {
            come(&server, &known.request(&server, "ada"));
            !issuer.is_left_alone()
        });
    }
    come(&server, &known.request(&server, "ada"));
}

#[test]
fn without_any_keys_nobody_is_let_in_and_everybody_told_to_come_back() {
    let known = Issuer::new("known");
    let issuer = Application::new(Reply::Answer(404, String::new()));
    let published = Published { refetch: Duration::ZERO, ..Published::new(issuer.url()) };
    let server = with_connect_auth(by_published(published));
    let answer = Http::refused(server.addresses()[0], &known.request(&server, "ada"));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    issuer.reply(Issuer::publish(&[&known]));
    come(&server, &known.request(&server, "ada"));
}

fn by_callback(application: &Application) -> Callback {
    Callback::new(application.url())
}

#[test]
fn the_application_is_asked_and_its_user_let_in() {
    let answer = json!({ "user_id": 7, "user_info": { "name": "Ada" } }).to_string();
    let application = Application::new(Reply::Answer(200, answer));
    let server = guarded_with(UpgradeAuth::Callback(by_callback(&application)), |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    });
    let asked = request(&server, "/app/key-one?protocol=7&ticket=t");
    let asked = asked.origin("https://shop.example").expect("an origin");
    let asked = asked.header("Cookie", "a=b").and_then(|asked| asked.header("Authorization", "Basic YTpi"));
    let asked = asked.and_then(|asked| asked.header("X-Forwarded-For", "1.1.1.1, 192.0.2.7")).expect("headers");
    let mut client = Client::open(server.addresses()[0], &asked);
    client.greeting();
    client.subscribed("#server-to-user-7");
    let (head, body) = application.request();
    assert!(head.starts_with("post /path?with=secret http/1.1\r\n"), "{head}");
    let signature = Signature::of("secret-one", &[&body]).to_string();
    for line in ["content-type: application/json", "x-pusher-key: key-one", &format!("x-pusher-signature: {signature}")]
    {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let headers = json!({ "cookie": "a=b", "authorization": "Basic YTpi", "origin": "https://shop.example" });
    let expected = json!({
        "app": "1", "path": "/app/key-one", "query": "protocol=7&ticket=t", "ip": "192.0.2.7", "headers": headers
    });
    assert_eq!(body, expected);
}

#[test]
fn the_application_learns_for_whom_a_proxy_asks_without_a_websocket() {
    let application = Application::new(Reply::Answer(200, json!({ "user_id": "ada" }).to_string()));
    let by_proxy = [("X-Forwarded-For", "1.1.1.1, 192.0.2.7")];
    let ask = |server: &Running| {
        let path = "/pusher/app/key-one/421/abcdefgh/xhr?protocol=7";
        let answer = Http::connect(server.addresses()[0]).request("POST", path, &by_proxy, b"");
        assert_eq!(answer.status, 200);
        let (_, body) = application.request();
        serde_json::from_slice::<Value>(&body).expect("JSON")["ip"].clone()
    };
    let trusting = guarded_with(UpgradeAuth::Callback(by_callback(&application)), |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    });
    assert_eq!(ask(&trusting), "192.0.2.7");
    assert_eq!(
        ask(&with_connect_auth(UpgradeAuth::Callback(by_callback(&application)))),
        "127.0.0.1",
        "nobody is trusted"
    );
}

#[test]
fn what_the_application_refuses_is_refused_in_its_words() {
    let application = Application::new(Reply::End);
    let server = with_connect_auth(UpgradeAuth::Callback(by_callback(&application)));
    for (status, text) in [(401, "{\"error\":\"who are you?\"}"), (403, "not you")] {
        application.reply(Reply::Answer(status, text.to_owned()));
        assert_eq!(refused(&server, &request(&server, "/app/key-one")), (status, text.to_owned()));
    }
}

#[test]
fn an_application_that_does_not_say_lets_nobody_in() {
    let application = Application::new(Reply::End);
    let callback = Callback { timeout: Duration::from_millis(200), ..by_callback(&application) };
    let server = with_connect_auth(UpgradeAuth::Callback(callback));
    for reply in [
        Reply::Silence,
        Reply::End,
        Reply::Answer(500, "{\"user_id\":\"ada\"}".to_owned()),
        Reply::Answer(404, String::new()),
        Reply::Answer(302, String::new()),
        Reply::Answer(200, String::new()),
        Reply::Answer(200, "{\"user_id\":\"\"}".to_owned()),
        Reply::Answer(200, json!({ "user_id": "x".repeat(200) }).to_string()),
        Reply::Answer(200, json!({ "user_id": "ada", "x": "x".repeat(100_000) }).to_string()),
    ] {
        application.reply(reply);
        let answer = Http::refused(server.addresses()[0], &request(&server, "/app/key-one"));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.text());
        application.request();
    }
    // Nobody is there at all.
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = with_connect_auth(UpgradeAuth::Callback(Callback::new(format!("http://{unused}/"))));
    assert_eq!(refused(&server, &request(&server, "/app/key-one")).0, 503);
}

#[test]
fn a_slow_application_holds_up_nobody_but_its_own_clients() {
    let application = Application::new(Reply::Silence);
    let callback = Callback { concurrency: 1, timeout: Duration::from_millis(500), ..by_callback(&application) };
    let server = with_connect_auth(UpgradeAuth::Callback(callback));
    let mut head = Vec::new();
    request(&server, "/app/key-one").write([7; 16], &mut head);
    let waiting: Vec<Http> = (0..20)
        .map(|_| {
            let mut http = Http::connect(server.addresses()[0]);
            http.send(&head);
            http
        })
        .collect();
    application.request();
    Client::connect(server.addresses()[0], "/app/key-two").greeting();
    for mut http in waiting {
        assert_eq!(http.answer(true).status, 503);
    }
    application.reply(Reply::Answer(200, json!({ "user_id": "ada" }).to_string()));
    come(&server, &request(&server, "/app/key-one"));
}

#[test]
fn a_client_that_vanishes_meanwhile_leaves_nothing_behind() {
    let application = Application::new(Reply::Silence);
    let callback = Callback { timeout: Duration::from_millis(300), ..by_callback(&application) };
    let server = with_connect_auth(UpgradeAuth::Callback(callback));
    let mut http = Http::connect(server.addresses()[0]);
    let mut head = Vec::new();
    request(&server, "/app/key-one").write([7; 16], &mut head);
    http.send(&head);
    application.request();
    drop(http);
    application.reply(Reply::Answer(200, json!({ "user_id": "ada" }).to_string()));
    let client = come(&server, &request(&server, "/app/key-one"));
    assert_eq!(server.connections(), 1);
    client.vanish();
    eventually("the end of all connections", || server.connections() == 0);
}
