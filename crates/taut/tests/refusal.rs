//! How a server refuses, by every way to serve. Real sockets.

use std::convert::Infallible;

use axum::Router;
use axum::routing::any;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use taut::axum::Upgrade;
use taut::tower::UpgradeLayer;
use taut::{Acceptor, Client, CloseCode, Error, Failure, Incoming, Refusal, Request, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::{ServiceBuilder, ServiceExt};

/// Something that serves until it is dropped.
struct Running {
    address: String,
    task: JoinHandle<()>,
    failures: mpsc::UnboundedReceiver<String>,
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

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Runs a server for which `serve` has the handler.
async fn running(serve: impl FnOnce(Server) -> taut::Serving) -> Running {
    let (listener, address) = listen().await;
    let (told, failures) = mpsc::unbounded_channel();
    let server = Server::new(listener).on_failure(move |failure: &Failure| drop(told.send(failure.to_string())));
    let serving = serve(server).into_future();
    let task = tokio::spawn(async move { serving.await.unwrap() });
    Running { address, task, failures }
}

fn unserved(address: String, task: JoinHandle<()>) -> Running {
    Running { address, task, failures: mpsc::unbounded_channel().1 }
}

/// What every server here thinks of a request.
fn check(request: &Request) -> Result<(), Refusal> {
    match request.path() {
        "/expired" => Err(Refusal::json(401, r#"{"error":"token expired"}"#)
            .challenge(r#"Bearer realm="chat", error="invalid_token""#)
            .challenge(r#"Basic realm="chat""#)
            .header("X-Request-Id", "7f3a")),
        "/moved" => Err(Refusal::redirect(307, "/new?from=moved")),
        "/broken" => Err(Refusal::forbidden("no").header("X-Name", "a\r\nSet-Cookie: b")),
        _ => Ok(()),
    }
}

async fn welcome(mut socket: WebSocket, request: Request) -> Result<(), Error> {
    let query = request.query().unwrap_or_default();
    socket.send(format!("{} {query}", request.path())).await?;
    while socket.recv().await?.is_some() {}
    Ok(())
}

async fn by_incoming(incoming: Incoming) -> Result<(), Error> {
    if let Err(refusal) = check(&incoming) {
        return incoming.refuse(refusal).await;
    }
    let request = incoming.request().clone();
    welcome(incoming.accept().await?, request).await
}

async fn by_axum(upgrade: Upgrade) -> Result<axum::response::Response, Refusal> {
    check(&upgrade)?;
    let request = upgrade.request().clone();
    Ok(upgrade.on_upgrade(|socket| welcome(socket, request)))
}

async fn by_hyper(mut request: hyper::Request<Body>) -> hyper::Result<hyper::Response<String>> {
    let upgrade = Acceptor::new().upgrade(&mut request);
    Ok(match upgrade.and_then(|upgrade| check(&upgrade).map(|()| upgrade)) {
        Ok(upgrade) => {
            let (response, request) = (upgrade.response().map(|()| String::new()), upgrade.request().clone());
            tokio::spawn(upgrade.run(|socket| welcome(socket, request)));
            response
        }
        Err(refusal) => taut::upgrade::refuse(&refusal),
    })
}

async fn hyper_server() -> Running {
    let (listener, address) = listen().await;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(by_hyper));
            tokio::spawn(connection.with_upgrades());
        }
    });
    unserved(address, task)
}

async fn axum_server(app: Router) -> Running {
    let (listener, address) = listen().await;
    unserved(address, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

async fn page(_: hyper::Request<Body>) -> Result<hyper::Response<String>, Infallible> {
    Ok(hyper::Response::default())
}

async fn tower_server(path: &str) -> Running {
    let (listener, address) = listen().await;
    let layer = UpgradeLayer::new(path, welcome).check(async |request: Request| check(&request));
    let service = ServiceBuilder::new().layer(layer).service_fn(page);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let service = service_fn(move |request| service.clone().oneshot(request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    unserved(address, task)
}

/// Servers of every kind, for this path.
async fn servers(path: &str) -> [(&'static str, Running); 5] {
    let authenticating = |server: Server| {
        server
            .authenticate(|request: Request| async move { check(&request).map(|()| request) })
            .serve(|socket: WebSocket, request: Request| welcome(socket, request))
    };
    [
        ("Incoming", running(|server| server.serve(by_incoming)).await),
        ("authenticate", running(authenticating).await),
        ("hyper", hyper_server().await),
        ("axum", axum_server(Router::new().fallback(any(by_axum))).await),
        ("tower", tower_server(path).await),
    ]
}

#[tokio::test]
async fn a_refusal_reaches_the_client_whole_whoever_serves() {
    for (kind, server) in servers("/expired").await {
        let error = server.client("/expired").connect().await.unwrap_err();
        let response = error.response().expect("a response");
        assert_eq!((error.status(), response.status()), (Some(401), 401), "{kind}");
        assert_eq!(response.text(), Some(r#"{"error":"token expired"}"#), "{kind}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{kind}");
        let challenges = [r#"Bearer realm="chat", error="invalid_token""#, r#"Basic realm="chat""#];
        assert_eq!(response.header_values("www-authenticate"), challenges, "{kind}");
        assert_eq!(response.header("x-request-id"), Some("7f3a"), "{kind}");
    }
}

// RFC 9110 §15.4.8: 307 sends the same request elsewhere.
#[tokio::test]
async fn a_redirect_of_the_server_is_followed_by_the_client() {
    for (kind, server) in servers("/moved").await {
        if kind == "tower" {
            // The layer serves one path, and this one leads to another.
            let error = server.client("/moved").redirects(0).connect().await.unwrap_err();
            let response = error.response().expect("a response");
            assert_eq!((response.status(), response.header("location")), (307, Some("/new?from=moved")));
            continue;
        }
        let mut socket = server.client("/moved").connect().await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some("/new from=moved"), "{kind}");
        socket.close(CloseCode::NORMAL).await.unwrap();
    }
}

// CVE-2026-1527: no header of a refusal can add others.
#[tokio::test]
async fn a_refusal_with_a_header_that_must_not_be_sent_refuses_with_500_and_is_reported() {
    for (kind, mut server) in servers("/broken").await {
        let error = server.client("/broken").connect().await.unwrap_err();
        let response = error.response().expect("a response");
        assert_eq!((response.status(), response.header("set-cookie")), (500, None), "{kind}");
        assert!(error.to_string().contains("X-Name"), "{kind}: {error}");
        if matches!(kind, "Incoming" | "authenticate") {
            let failure = server.failures.recv().await.expect("it is reported");
            assert!(failure.contains("the header X-Name of the response"), "{failure}");
        }
    }
}
