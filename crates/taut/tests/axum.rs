//! WebSockets in axum's handlers. Real `axum::serve`, real sockets.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::connect_info::MockConnectInfo;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use taut::axum::{Shutdown, Upgrade};
use taut::{Acceptor, Client, CloseCode, Message, Refusal, Transport, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Serves an application; its address.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn chat(upgrade: Upgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) -> Result<(), taut::Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// What a server answers to a head, until it closes the connection.
async fn ask(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nHost: a.example\r\nConnection: close, Upgrade\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn a_handler_talks_over_the_bare_socket_and_gets_what_came_with_the_handshake() {
    let (told, mut transports) = mpsc::unbounded_channel();
    let handler = async move |upgrade: Upgrade| {
        let told = told.clone();
        upgrade.on_upgrade(move |socket| {
            let nodelay = socket.transport(|transport| transport.tcp().map(|tcp| tcp.nodelay().unwrap()));
            told.send((nodelay, socket.peer_addr())).unwrap();
            echo(socket)
        })
    };
    let address = serve(Router::new().route("/chat", any(handler))).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let mut bytes = format!("GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\n{HANDSHAKE}\r\n\r\n");
    // A text message, masked with "0000", in the same segment as the handshake.
    bytes.push_str("\u{1}\u{5}0000early");
    let mut bytes = bytes.into_bytes();
    let frame = bytes.len() - 11;
    bytes[frame] |= 0x80;
    bytes[frame + 1] |= 0x80;
    bytes[frame + 6..].iter_mut().for_each(|byte| *byte ^= b'0');
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n\x81\x05early") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(transports.recv().await, Some((Some(true), stream.local_addr().ok())));
}

#[tokio::test]
async fn what_is_no_good_handshake_does_not_reach_the_handler() {
    let address = serve(Router::new().route("/chat", any(chat)).route("/", get("a page"))).await;
    for (head, status) in [
        ("GET /chat HTTP/1.1".to_owned(), 426),
        (format!("GET /chat HTTP/1.1\r\n{HANDSHAKE}\r\nOrigin: https://evil.example"), 403),
        (format!("POST /chat HTTP/1.1\r\n{HANDSHAKE}"), 405),
        (format!("GET /chat HTTP/1.1\r\n{}", HANDSHAKE.replace("13", "8")), 426),
        (format!("GET /chat HTTP/1.1\r\n{HANDSHAKE}\r\nX: {}", "x".repeat(20 << 10)), 431),
        ("GET / HTTP/1.1".to_owned(), 200),
    ] {
        let answer = ask(&address, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert_eq!(answer.contains("sec-websocket-version: 13"), status == 426, "{answer}");
    }
    let url = format!("ws://{address}/chat");
    let mut socket = Client::new(&url).origin(&format!("http://{address}")).connect().await.unwrap();
    socket.close(CloseCode::NORMAL).await.unwrap();
}

#[tokio::test]
async fn a_layer_says_on_which_terms() {
    let acceptor = Acceptor::new().allow_origins(["https://page.example"]).subprotocols(["v1.json"]);
    let app = Router::new()
        .route("/open", any(chat).layer(Extension(Acceptor::new().allow_any_origin())))
        .route("/listed", any(chat).layer(Extension(acceptor)))
        .route("/standard", any(chat));
    let address = serve(app).await;
    for (origin, path, expected) in [
        ("https://page.example", "open", Ok(None)),
        ("https://page.example", "listed", Ok(Some("v1.json"))),
        ("https://page.example", "standard", Err(Some(403))),
        ("https://other.example", "listed", Err(Some(403))),
    ] {
        let client = Client::new(&format!("ws://{address}/{path}")).origin(origin).subprotocol("v1.json");
        let connected = client.connect().await;
        let got = connected.as_ref().map(WebSocket::subprotocol).map_err(taut::Error::status);
        assert_eq!(got, expected, "{origin} at {path}");
    }
}

#[tokio::test]
async fn a_handler_may_refuse_and_may_add_headers() {
    let handler = async |upgrade: Upgrade| {
        if upgrade.bearer() != Some("t0ken") {
            return Err(Refusal::forbidden("not you").retry_after(Duration::from_secs(7)));
        }
        Ok(([("set-cookie", "seen=1")], upgrade.on_upgrade(echo)))
    };
    let address = serve(Router::new().route("/", any(handler))).await;
    let client = Client::new(&format!("ws://{address}/"));
    let error = client.connect().await.unwrap_err();
    assert_eq!((error.status(), error.retry_after()), (Some(403), Some(Duration::from_secs(7))));
    client.bearer("t0ken").connect().await.unwrap();

    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nAuthorization: Bearer t0ken\r\n{HANDSHAKE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("\r\nset-cookie: seen=1\r\n") && answer.contains("sec-websocket-accept: s3p"), "{answer}");
}

#[tokio::test]
async fn a_handler_that_takes_the_upgrade_twice_is_told_so() {
    let handler = async |_first: Upgrade, second: Result<Upgrade, Refusal>| match second {
        Ok(_) => Body::empty().into_response(),
        Err(refusal) => refusal.into_response(),
    };
    let address = serve(Router::new().route("/", any(handler))).await;
    let answer = ask(&address, &format!("GET / HTTP/1.1\r\n{HANDSHAKE}")).await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("taken already"), "{answer}");
}

#[tokio::test]
async fn the_clients_address_is_known_where_axum_knows_it() {
    let handler = async |upgrade: Upgrade| {
        let peer = upgrade.peer_addr();
        upgrade.on_upgrade(async move |mut socket: WebSocket| socket.send(format!("{peer:?}")).await)
    };
    let app = Router::new().route("/", any(handler));
    let said = async |app: Router, with_info: bool| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        if with_info {
            let app = app.into_make_service_with_connect_info::<SocketAddr>();
            tokio::spawn(async move { axum::serve(listener, app).await });
        } else {
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        let mut socket = taut::connect(&url).await.unwrap();
        let own = socket.transport(Transport::local_addr);
        (socket.recv().await.unwrap().unwrap().to_string(), format!("{own:?}"))
    };
    let (told, own) = said(app.clone(), true).await;
    assert_eq!(told, own);
    let (told, _) = said(app.clone(), false).await;
    assert_eq!(told, "None");
    // What tests of an application put in the place of a real client.
    let mock: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let (told, _) = said(app.clone().layer(MockConnectInfo(mock)), false).await;
    assert_eq!(told, "Some(192.0.2.1:7)");
    // A layer that knows better, such as by a header of the proxy in front.
    let forwarded: SocketAddr = "198.51.100.1:8".parse().unwrap();
    let (told, _) = said(app.layer(Extension(forwarded)), true).await;
    assert_eq!(told, "Some(198.51.100.1:8)");
}

#[tokio::test]
async fn one_route_serves_a_page_and_a_websocket() {
    let handler = async |Path(room): Path<String>, upgrade: Option<Upgrade>| match upgrade {
        Some(upgrade) => upgrade.on_upgrade(echo),
        None => format!("the page of {room}").into_response(),
    };
    let address = serve(Router::new().route("/rooms/{room}", any(handler))).await;
    let answer = ask(&address, "GET /rooms/kitchen HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("the page of kitchen"), "{answer}");
    let answer = ask(&address, "GET /rooms/kitchen HTTP/1.1\r\nUpgrade: h2c").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // A handshake that is not good is not a request for the page.
    for (head, status) in [
        (format!("{HANDSHAKE}\r\nOrigin: https://evil.example"), 403),
        (HANDSHAKE.replace("13", "8"), 426),
        (HANDSHAKE.replace("websocket", "h2c, WebSocket").replace("dGhl", ""), 400),
    ] {
        let answer = ask(&address, &format!("GET /rooms/kitchen HTTP/1.1\r\n{head}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let mut socket = taut::connect(&format!("ws://{address}/rooms/kitchen")).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));
}

#[tokio::test]
async fn a_handler_may_see_why_a_request_is_refused() {
    let handler = async |upgrade: Result<Upgrade, Refusal>| -> Result<Response, Refusal> {
        let upgrade = upgrade
            .map_err(|refusal| Refusal::with_status(refusal.status(), format!("seen by the handler: {refusal}")))?;
        Ok(upgrade.on_upgrade(echo))
    };
    let address = serve(Router::new().route("/", any(handler))).await;
    for (head, status) in
        [("GET / HTTP/1.1".to_owned(), 426), (format!("GET / HTTP/1.1\r\n{HANDSHAKE}\r\nOrigin: https://a.b"), 403)]
    {
        let answer = ask(&address, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("seen by the handler: "), "{answer}");
    }
    let mut socket = taut::connect(&format!("ws://{address}/")).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));
}

#[tokio::test]
async fn a_graceful_shutdown_closes_websockets_too() {
    let shutdown = Shutdown::new();
    let app = Router::new().route("/", any(chat)).layer(Extension(shutdown.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) }).await.unwrap();
        shutdown.drain(Duration::from_secs(10)).await;
    });
    let mut client = taut::connect(&format!("ws://{address}/")).await.unwrap();
    client.send("hello").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(Message::from("hello")));
    drop(stop);
    let received = timeout(Duration::from_secs(5), client.recv()).await.expect("the connection is closed");
    assert_eq!(received.unwrap(), None);
    assert_eq!(client.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
    serving.await.unwrap();
}

/// A program that ends with it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_example_lets_in_who_has_the_token_and_carries_what_they_say_until_it_is_asked_to_end() {
    let mut program = Program(Command::new(example("axum")).stdout(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(program.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix('/'));
    let address = address.unwrap_or_else(|| panic!("not where: {line:?}")).to_owned();
    assert!(ask(&address, "GET / HTTP/1.1").await.contains("Join the chat"));

    let client = |path: &str| Client::new(&format!("ws://{address}{path}"));
    for (client, why) in [(client("/chat"), "no token"), (client("/upload").bearer("eve-token"), "token not valid")] {
        let error = client.connect().await.unwrap_err();
        let response = error.response().expect("a response");
        assert_eq!((response.status(), response.header("www-authenticate")), (401, Some(r#"Bearer realm="chat""#)));
        assert_eq!(response.text(), Some(&*format!(r#"{{"error":"{why}"}}"#)));
        assert!(error.to_string().contains(why), "{error}");
    }
    let mut ada = client("/chat").bearer("ada-token").connect().await.unwrap();
    // As a browser has to send it.
    let browser = client("/chat").subprotocol("chat.v1").subprotocol("bearer.bob-token");
    let mut bob = browser.connect().await.unwrap();
    assert_eq!(bob.subprotocol(), Some("chat.v1"));
    assert_eq!(ada.recv().await.unwrap(), Some(Message::from("hello, Ada")));
    assert_eq!(bob.recv().await.unwrap(), Some(Message::from("hello, Bob")));
    bob.send("is anybody here?").await.unwrap();
    for socket in [&mut ada, &mut bob] {
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from("Bob: is anybody here?")));
    }
    bob.send("x".repeat(1025)).await.unwrap();
    assert_eq!(bob.recv().await.unwrap(), None);
    assert_eq!(bob.peer_close().map(|close| close.code()), Some(CloseCode::TOO_BIG));
    let mut upload = client("/upload").bearer("bob-token").connect().await.unwrap();
    upload.send(vec![0; 2 << 20]).await.unwrap();
    assert_eq!(upload.recv().await.unwrap(), Some(Message::from("2097152 bytes")));

    #[cfg(unix)]
    {
        let terminate = format!("kill -TERM {}", program.0.id());
        assert!(Command::new("sh").args(["-c", &terminate]).status().unwrap().success());
        for socket in [&mut ada, &mut upload] {
            let received = timeout(Duration::from_secs(5), socket.recv()).await.expect("the connection is closed");
            assert_eq!(received.unwrap(), None);
            assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
        }
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
        let status = program.0.wait().unwrap();
        assert!(rest == "ended\n" && status.success(), "{rest:?} {status}");
    }
}

/// An example's program, built if what is there is not of today; or one that has been built before all tests.
fn example(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("TAUT_EXAMPLES") {
        return PathBuf::from(folder).join(name);
    }
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).expect("target/debug/deps/…").to_owned();
    let release = profile.ends_with("release").then_some("--release");
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test of its package would make build scripts of dependencies run again.
    for (variable, _) in std::env::vars() {
        if variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(variable);
        }
    }
    cargo.args(["build", "--quiet", "--package", "taut", "--features", "axum", "--example", name]).args(release);
    assert!(cargo.status().unwrap().success(), "the example does not build");
    profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION)
}
