//! A layer in front of other services: hyper's own server and axum's router. Real sockets.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use taut::tower::UpgradeLayer;
use taut::{Acceptor, Client, CloseCode, Failure, Message, Refusal, Request, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tower::{ServiceBuilder, ServiceExt};

async fn echo(mut socket: WebSocket, request: Request) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    socket.send(format!("welcome to {}", request.path())).await?;
    while let Some(message) = socket.recv().await? {
        if message.as_text() == Some("fail") {
            Err("as asked")?;
        }
        socket.send(message).await?;
    }
    Ok(())
}

async fn page(request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    Ok(hyper::Response::new(format!("a page at {}", request.uri()).into()))
}

async fn get_page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn handshakes_for_its_path_are_answered_and_the_rest_goes_through() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let layer = UpgradeLayer::new("/echo", echo)
        .acceptor(Acceptor::new().subprotocols(["v1"]))
        .check(async |request: Request| match request.bearer() {
            Some("t0ken") => Ok(()),
            _ => Err(Refusal::unauthorized("who are you?")),
        })
        .on_failure(move |failure: &Failure| told.lock().unwrap().push(failure.to_string()));
    let service = ServiceBuilder::new().layer(layer).service_fn(page);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let service = service_fn(move |request| service.clone().oneshot(request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });

    for path in ["/", "/echo", "/echo?a=b"] {
        let answer = get_page(&address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("a page at {path}")), "{answer}");
    }
    let client = Client::new(&format!("ws://{address}/echo?a=b")).subprotocol("v1");
    assert_eq!(client.connect().await.unwrap_err().status(), Some(401));
    let client = client.bearer("t0ken");
    assert_eq!(client.clone().origin("https://evil.example").connect().await.unwrap_err().status(), Some(403));
    // Other paths are the service's, which gives a page to whoever asks.
    let elsewhere = Client::new(&format!("ws://{address}/echo/other")).bearer("t0ken");
    assert_eq!(elsewhere.connect().await.unwrap_err().status(), Some(200));

    let mut socket = client.connect().await.unwrap();
    assert_eq!(socket.subprotocol(), Some("v1"));
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("welcome to /echo")));
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));
    socket.close(CloseCode::NORMAL).await.unwrap();
    assert!(failures.lock().unwrap().is_empty());

    let mut socket = client.connect().await.unwrap();
    socket.send("fail").await.unwrap();
    while socket.recv().await.unwrap().is_some() {}
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::INTERNAL_ERROR));
    let failures = failures.lock().unwrap();
    assert!(failures.len() == 1 && failures[0].contains("as asked"), "{failures:?}");
}

#[tokio::test]
async fn a_check_may_ask_a_database_and_others_are_served_meanwhile() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // What is asked is answered when the test says so.
    let (asked, mut database) = mpsc::unbounded_channel::<(String, oneshot::Sender<bool>)>();
    let layer = UpgradeLayer::new("/echo", echo).check(move |request: Request| {
        let asked = asked.clone();
        async move {
            let token = request.bearer().ok_or_else(|| Refusal::unauthorized("a bearer token is needed"))?;
            let (answer, answered) = oneshot::channel();
            asked.send((token.to_owned(), answer)).map_err(|_| Refusal::with_status(503, "no database"))?;
            match answered.await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Refusal::forbidden("the token is not valid")),
                Err(_) => Err(Refusal::with_status(503, "no answer")),
            }
        }
    });
    let app = Router::new().route("/", get("a page")).layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });

    for (answer, expected) in [(Some(true), Ok(())), (Some(false), Err(Some(403))), (None, Err(Some(503)))] {
        let client = Client::new(&format!("ws://{address}/echo")).bearer("t0ken");
        let connecting = tokio::spawn(async move { client.connect().await });
        let (token, question) = database.recv().await.unwrap();
        assert_eq!(token, "t0ken");
        assert!(!connecting.is_finished());
        assert!(get_page(&address, "/").await.ends_with("a page"));
        match answer {
            Some(answer) => question.send(answer).unwrap(),
            None => drop(question),
        }
        let connected = connecting.await.unwrap();
        assert_eq!(connected.as_ref().map(drop).map_err(taut::Error::status), expected);
        if let Ok(mut socket) = connected {
            assert_eq!(socket.recv().await.unwrap(), Some(Message::from("welcome to /echo")));
        }
    }
    let error = taut::connect(&format!("ws://{address}/echo")).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
}

#[tokio::test]
async fn an_axum_router_takes_the_layer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = Router::new().route("/", get("a page")).layer(UpgradeLayer::new("/echo", echo));
    tokio::spawn(async move { axum::serve(listener, app).await });
    assert!(get_page(&address, "/").await.ends_with("a page"));
    assert!(get_page(&address, "/echo").await.starts_with("HTTP/1.1 404 "));
    let mut socket = taut::connect(&format!("ws://{address}/echo")).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("welcome to /echo")));
    socket.close(CloseCode::NORMAL).await.unwrap();
}
