//! What a server decides by the request: on which terms it accepts this client. Real sockets.

use std::time::Duration;

use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use taut::axum::Upgrade;
use taut::{Acceptor, Client, CloseCode, Deflate, Error, HeadLimits, Incoming, Server, Settings, WebSocket};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Something that serves until it is dropped.
struct Running {
    address: String,
    task: JoinHandle<()>,
}

impl Running {
    fn client(&self, path: &str) -> Client {
        Client::new(&format!("ws://{}{path}", self.address))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs a server for which `serve` has the handler.
async fn running(serve: impl FnOnce(Server) -> taut::Serving) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = serve(Server::new(listener)).into_future();
    Running { address, task: tokio::spawn(async move { serving.await.unwrap() }) }
}

/// Runs an application of axum's.
async fn running_axum(app: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Running { address, task: tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }) }
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

async fn echoed(incoming: Incoming) -> Result<(), Error> {
    echo(incoming.accept().await?).await
}

async fn echoed_by_axum(upgrade: Upgrade) -> Response {
    upgrade.on_upgrade(echo)
}

// RFC 9110 §7.2: one server, several hosts.
#[tokio::test]
async fn a_client_asks_for_a_virtual_host_at_another_address() {
    let server = running(|server| {
        server.serve(|incoming: Incoming| async move {
            match incoming.host() {
                Some("blue.example") => incoming.accept().await?.send("blue").await,
                Some("green.example:8080") => incoming.accept().await?.send("green").await,
                _ => incoming.reject(421, "no such host").await,
            }
        })
    })
    .await;
    for (client, colour) in [
        (server.client("/").host("blue.example"), "blue"),
        (server.client("/").header("host", "green.example:8080"), "green"),
        // A page of that host, which is the one that the request is for.
        (server.client("/").host("blue.example").origin("http://blue.example"), "blue"),
    ] {
        let mut socket = client.connect().await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some(colour));
    }
    let error = server.client("/").connect().await.unwrap_err();
    assert_eq!((error.status(), error.response().and_then(|it| it.text())), (Some(421), Some("no such host\n")));
    // Nothing that would end the header.
    assert!(server.client("/").host("blue.example\r\nX: y").connect().await.unwrap_err().is_invalid());
}

// CVE-2026-54465: the server limits heads in number and in bytes, and the limits are settings.
#[tokio::test]
async fn a_server_takes_a_request_up_to_its_limits_and_no_larger_one() {
    let limits = HeadLimits { bytes: 2000, headers: 20 };
    let own = running(|server| server.acceptor(Acceptor::new().head_limits(limits)).serve(echoed)).await;
    let acceptor = Extension(Acceptor::new().head_limits(limits));
    let axum = running_axum(Router::new().fallback(any(echoed_by_axum)).layer(acceptor)).await;
    let wide = HeadLimits { bytes: 64 << 10, headers: 1000 };
    let wide = running(|server| server.acceptor(Acceptor::new().head_limits(wide)).serve(echoed)).await;
    // `Host`, `Upgrade`, `Connection`, the version and the key.
    let many = |server: &Running, count: usize| {
        (0..count - 5).fold(server.client("/"), |client, index| client.header("X", &index.to_string()))
    };
    for server in [&own, &axum] {
        many(server, 20).connect().await.unwrap();
        assert_eq!(many(server, 21).connect().await.unwrap_err().status(), Some(431));
    }
    many(&wide, 1000).connect().await.unwrap();
    assert_eq!(many(&wide, 1001).connect().await.unwrap_err().status(), Some(431));
    // What a request weighs without this header, by the bytes on the wire.
    for (server, most) in [(&own, 2000), (&axum, 2000), (&wide, 64 << 10)] {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n".len();
        let plain = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nX: \r\n\r\n",
            server.address
        );
        let room = most - plain.len() - key;
        server.client("/").header("X", &"x".repeat(room)).connect().await.unwrap();
        let error = server.client("/").header("X", &"x".repeat(room + 1)).connect().await.unwrap_err();
        assert_eq!(error.status(), Some(431), "{most}: {error}");
    }
}

#[tokio::test]
async fn a_timeout_without_end_is_one() {
    let acceptor = Acceptor::new().handshake_timeout(Duration::MAX);
    let server = running(|server| server.acceptor(acceptor).serve(echoed)).await;
    let mut socket = server.client("/").connect_timeout(Duration::MAX).connect().await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some("hello"));
}

/// What a handler decides by the path: `/v2` has another subprotocol and compresses, `/large` takes more.
fn settings(path: &str) -> Settings {
    let mut settings = Settings::server();
    settings.limits.message = if path == "/large" { 2000 } else { 1000 };
    settings
}

async fn chosen_by_incoming(incoming: Incoming) -> Result<(), Error> {
    let settings = settings(incoming.path());
    let mut incoming = incoming.settings(settings);
    match incoming.path() {
        "/v2" => incoming = incoming.select_subprotocol(&["v2"]).deflate(Deflate::default()),
        "/none" => incoming = incoming.select_subprotocol(&[]).deflate(None),
        _ => {}
    }
    echo(incoming.accept().await?).await
}

async fn chosen_by_axum(upgrade: Upgrade) -> Response {
    let settings = settings(upgrade.path());
    let mut upgrade = upgrade.settings(settings);
    match upgrade.path() {
        "/v2" => upgrade = upgrade.select_subprotocol(&["v2"]).deflate(Deflate::default()),
        "/none" => upgrade = upgrade.select_subprotocol(&[]).deflate(None),
        _ => {}
    }
    // The client of this test offers both.
    if !upgrade.subprotocols().is_empty() {
        assert_eq!(upgrade.subprotocol().is_some(), upgrade.path() != "/none");
    }
    upgrade.on_upgrade(echo)
}

#[tokio::test]
async fn a_handler_chooses_subprotocol_limits_and_compression_for_its_connection() {
    let acceptor = || Acceptor::new().subprotocols(["v1"]);
    let servers = [
        running(|server| server.acceptor(acceptor()).serve(chosen_by_incoming)).await,
        running_axum(Router::new().fallback(any(chosen_by_axum)).layer(Extension(acceptor()))).await,
    ];
    for server in servers {
        for (path, subprotocol, is_compressed, most) in [
            ("/", Some("v1"), false, 1000),
            ("/v2", Some("v2"), true, 1000),
            ("/none", None, false, 1000),
            ("/large", Some("v1"), false, 2000),
        ] {
            let client = server.client(path).subprotocol("v2").subprotocol("v1").deflate(Deflate::default());
            let mut socket = client.connect().await.unwrap();
            assert_eq!(socket.subprotocol(), subprotocol, "{path}");
            let extensions = socket.response().and_then(|response| response.header("sec-websocket-extensions"));
            assert_eq!(extensions.is_some(), is_compressed, "{path}: {extensions:?}");
            let text = "x".repeat(most);
            socket.send(text.as_str()).await.unwrap();
            assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some(text.as_str()));
            socket.send(text + "x").await.unwrap();
            assert_eq!(socket.recv().await.unwrap(), None);
            assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::TOO_BIG), "{path}");
        }
        // A client that does not offer what the handler speaks is accepted without one.
        let socket = server.client("/v2").connect().await.unwrap();
        assert_eq!(socket.subprotocol(), None);
    }
}
