//! Who may connect, and what both sides learn when it fails. Real sockets.

use taut::{Client, Error, Transport, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server for one client; the URL it is at.
async fn server() -> (String, tokio::task::JoinHandle<Result<WebSocket, Error>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/chat", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { taut::accept(listener.accept().await.unwrap().0).await });
    (url, task)
}

fn has_nodelay(socket: &WebSocket) -> bool {
    socket.transport(|transport| transport.tcp().unwrap().nodelay().unwrap())
}

/// A server that says the same to everybody.
async fn canned(response: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(response.as_bytes()).await.unwrap();
    });
    url
}

#[tokio::test]
async fn client_and_server_talk_and_close() {
    let (url, task) = server().await;
    let mut client = taut::connect(&url).await.unwrap();
    let mut server = task.await.unwrap().unwrap();
    assert!(has_nodelay(&client) && has_nodelay(&server));
    assert_eq!(client.peer_addr(), server.transport(Transport::local_addr));
    let echo = tokio::spawn(async move {
        while let Some(message) = server.recv().await? {
            server.send(message).await?;
        }
        Ok::<_, Error>(())
    });
    for text in ["", "hello", "κόσμε"] {
        client.send(text).await.unwrap();
        assert_eq!(client.recv().await.unwrap().unwrap().as_text(), Some(text));
    }
    client.close(taut::CloseCode::NORMAL).await.unwrap();
    echo.await.unwrap().unwrap();
}

// RFC 6455 §4.2.2 (4), §10.2: a server that does not want cross-site requests checks the origin.
#[tokio::test]
async fn a_page_from_elsewhere_is_refused_and_one_from_here_is_not() {
    let (url, task) = server().await;
    let error = Client::new(&url).origin("https://evil.example").connect().await.unwrap_err();
    assert!(error.is_handshake() && error.status() == Some(403), "{error:?}");
    let refused = task.await.unwrap().unwrap_err();
    assert!(refused.is_handshake() && refused.status() == Some(403), "{refused:?}");

    let (url, task) = server().await;
    let own = url.replace("ws://", "http://").replace("/chat", "");
    Client::new(&url).origin(&own).connect().await.unwrap();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn plain_http_is_answered_with_426_in_full() {
    let (url, task) = server().await;
    let address = url.trim_start_matches("ws://").trim_end_matches("/chat");
    let mut stream = TcpStream::connect(address).await.unwrap();
    // More than the server reads: unread bytes must not reset the answer away.
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\nmore").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("Sec-WebSocket-Version: 13"), "{answer}");
    drop(stream);
    assert_eq!(task.await.unwrap().unwrap_err().status(), Some(426));
}

#[tokio::test]
async fn a_server_that_refuses_is_understood() {
    let url = canned("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").await;
    let error = taut::connect(&url).await.unwrap_err();
    assert!(error.is_handshake(), "{error:?}");
    assert_eq!((error.status(), error.retry_after().map(|delay| delay.as_secs())), (Some(503), Some(7)));
}

// RFC 9110 §15.2: a client reads past interim responses.
#[tokio::test]
async fn interim_responses_are_read_past_but_not_for_ever() {
    let url = canned("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 401 Who?\r\n\r\n").await;
    assert_eq!(taut::connect(&url).await.unwrap_err().status(), Some(401));
    let endless: &'static str = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000).leak();
    assert!(taut::connect(&canned(endless).await).await.unwrap_err().is_handshake());
}

#[tokio::test]
async fn what_is_no_websocket_server_is_said_to_be_none() {
    let error = taut::connect(&canned("220 mail.example ESMTP\r\n\r\n").await).await.unwrap_err();
    assert!(error.is_handshake() && error.to_string().contains("WebSocket server"), "{error}");
    let error = taut::connect(&canned("").await).await.unwrap_err();
    assert!(error.is_io() && error.to_string().contains("handshake"), "{error}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_an_io_error() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = taut::connect(&format!("ws://{address}")).await.unwrap_err();
    assert!(error.is_io() && error.to_string().starts_with("cannot connect"), "{error}");
}

#[tokio::test]
async fn headers_subprotocols_and_target_reach_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(&format!("ws://{address}/a?b=c")).bearer("t0ken").header("X-Id", "7").subprotocol("v2");
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let limits = taut_proto::handshake::HeadLimits::default();
        let request = taut_proto::handshake::Request::parse(&request, &limits).unwrap();
        assert_eq!((request.target(), request.host()), ("/a?b=c", Some(address.to_string().as_str())));
        assert_eq!((request.bearer(), request.header("x-id")), (Some("t0ken"), Some("7")));
        let mut response = Vec::new();
        request.upgrade().unwrap().select_subprotocol(&["v2"]).write_response(&mut response);
        stream.write_all(&response).await.unwrap();
        stream
    });
    let socket = client.connect().await.unwrap();
    assert_eq!(socket.subprotocol(), Some("v2"));
    seen.await.unwrap();
}
