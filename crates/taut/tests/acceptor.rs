//! What a server decides by the request: on which terms it accepts this client. Real sockets.

use std::time::Duration;

use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use taut::axum::Upgrade;
use taut::{Acceptor, Client, Error, HeadLimits, Incoming, Server, WebSocket};
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
