//! What a server decides by the request: on which terms it accepts this client. Real sockets.

use taut::{Client, Incoming, Server};
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
