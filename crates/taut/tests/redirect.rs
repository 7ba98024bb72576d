//! Redirects, on real sockets.

use std::sync::{Arc, Mutex};

use taut::{Client, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Reads a request's head to its end.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A server that answers each connection by the next of these; the requests that it has seen.
async fn canned(responses: Vec<String>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = head(&mut stream).await;
            seen.lock().unwrap().push(request);
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    (port, requests)
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nthere")
}

/// A WebSocket server for one client; the request is what it returns.
async fn server() -> (u16, tokio::task::JoinHandle<Result<taut::Request, Error>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let incoming = taut::Acceptor::new().accept(listener.accept().await.unwrap().0).await?;
        let request = incoming.request().clone();
        let mut socket = incoming.accept().await?;
        socket.send("here").await?;
        while socket.recv().await?.is_some() {}
        Ok(request)
    });
    (port, task)
}

// RFC 9110 §15.4: 301, 302, 303, 307 and 308 say where to go on, a GET stays a GET in each.
#[tokio::test]
async fn redirects_are_followed_without_what_is_secret() {
    for status in [301, 302, 303, 307, 308] {
        let (target, task) = server().await;
        let away = format!("http://127.0.0.1:{target}/chat?room=1");
        let (first, requests) = canned(vec![redirect(status, "/second?x"), redirect(status, &away)]).await;
        let client = Client::new(&format!("ws://127.0.0.1:{first}/first"));
        let client = client.bearer("s3cret").cookie("id", "s3cret").header("X-Key", "s3cret").subprotocol("v1");
        let mut socket = client.bearer_subprotocol("s3cret").connect().await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some("here"));
        socket.close(taut::CloseCode::NORMAL).await.unwrap();

        let requests = requests.lock().unwrap().clone();
        assert!(requests[0].starts_with("GET /first ") && requests[1].starts_with("GET /second?x "));
        assert!(requests.iter().all(|request| request.matches("s3cret").count() == 4), "{requests:?}");
        let request = task.await.unwrap().unwrap();
        assert_eq!((request.path(), request.query()), ("/chat", Some("room=1")));
        assert_eq!((request.bearer(), request.cookie("id"), request.header("x-key")), (None, None, None));
        assert_eq!(request.subprotocols(), ["v1"]);
        assert_eq!(request.host(), Some(&*format!("127.0.0.1:{target}")));
    }
}

#[tokio::test]
async fn a_redirect_too_many_is_an_error_with_its_status() {
    let circle = || (0..20).map(|_| redirect(302, "/again")).collect::<Vec<_>>();
    let (port, requests) = canned(circle()).await;
    let url = format!("ws://127.0.0.1:{port}/");
    let error = Client::new(&url).connect().await.unwrap_err();
    assert!(error.is_handshake() && error.status() == Some(302), "{error}");
    assert!(error.to_string().contains("too often"), "{error}");
    assert_eq!(requests.lock().unwrap().len(), 11);

    for (most, seen) in [(0, 1), (1, 2)] {
        let (port, requests) = canned(circle()).await;
        let client = Client::new(&format!("ws://127.0.0.1:{port}/")).redirects(most);
        let error = client.connect().await.unwrap_err();
        assert!(error.is_handshake() && error.status() == Some(302), "{error}");
        assert_eq!(requests.lock().unwrap().len(), seen);
    }
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_an_error() {
    for (location, word) in [("ftp://a.example/", "scheme"), ("ws://u:p@127.0.0.1/", "password"), ("/a b", "URL")] {
        let (port, _) = canned(vec![redirect(307, location)]).await;
        let error = Client::new(&format!("ws://127.0.0.1:{port}/")).connect().await.unwrap_err();
        assert!(error.is_handshake() && error.to_string().contains(word), "{location}: {error}");
    }
    for (response, text) in [
        ("HTTP/1.1 302 Found\r\n\r\n", "without a Location header"),
        ("HTTP/1.1 301 Moved Permanently\r\nLocation: \u{fc}\r\n\r\n", "URL"),
        ("HTTP/1.1 304 Not Modified\r\nLocation: /x\r\n\r\n", "cannot be answered like this"),
        ("HTTP/1.1 300 Multiple Choices\r\n\r\n", "cannot be answered like this"),
        ("HTTP/1.1 200 OK\r\n\r\n", "is this the path of a WebSocket?"),
    ] {
        let (port, _) = canned(vec![response.to_owned()]).await;
        let error = Client::new(&format!("ws://127.0.0.1:{port}/")).connect().await.unwrap_err();
        let status: u16 = response[9..12].parse().unwrap();
        assert!(error.is_handshake() && error.status() == Some(status), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(!error.to_string().contains("not followed here"), "{error}");
    }
    // Interim responses (RFC 9110 §15.2) and no end of them.
    let (port, _) = canned(vec!["HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20)]).await;
    let error = Client::new(&format!("ws://127.0.0.1:{port}/")).connect().await.unwrap_err();
    assert!(error.is_handshake() && error.to_string().contains("interim"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_all_hops() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("ws://{}/", mute.local_addr().unwrap());
    let (port, _) = canned(vec![redirect(302, "/x"), redirect(302, &away)]).await;
    let start = tokio::time::Instant::now();
    let error = Client::new(&format!("ws://127.0.0.1:{port}/")).connect().await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("handshake"), "{error}");
    assert_eq!(start.elapsed().as_secs(), 10);
}
