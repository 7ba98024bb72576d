//! What a client gets to see of the response that opened its connection, or refused it. Sockets, and streams in memory
//! where it is about time.

use std::time::Duration;

use taut::reconnect::Event;
use taut::{Backoff, Client, CloseCode, Error, HeadLimits, Incoming, Response, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Reads a request's head to its end.
async fn read_request(stream: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

/// What a client makes of this response; `is_over`: the server ends the stream after it.
async fn answered(client: &Client, response: &[u8], is_over: bool) -> Error {
    let (ours, mut theirs) = duplex(1 << 20);
    let response = response.to_vec();
    let server = tokio::spawn(async move {
        read_request(&mut theirs).await;
        theirs.write_all(&response).await.unwrap();
        (!is_over).then_some(theirs)
    });
    let error = client.connect_over(ours).await.unwrap_err();
    drop(server.await.unwrap());
    error
}

fn client() -> Client {
    Client::new("ws://a.example/")
}

fn response(error: &Error) -> &Response {
    error.response().unwrap_or_else(|| panic!("there is none: {error}"))
}

// RFC 9112 §6.3: the body of a response ends by its length, by its last chunk, or with the connection.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_with_headers_and_body_however_the_body_ends() {
    let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"a\"\r\nwww-authenticate: Basic\r\n\
                X-Request-Id: 7f3a\r\nContent-Type: application/json\r\n";
    let json = r#"{"error":"token expired"}"#;
    for (rest, is_over) in [
        (format!("Content-Length: {}\r\n\r\n{json}", json.len()), false),
        (format!("Transfer-Encoding: chunked\r\n\r\na\r\n{}\r\nf\r\n{}\r\n0\r\n\r\n", &json[..10], &json[10..]), false),
        (format!("\r\n{json}"), true),
    ] {
        let start = Instant::now();
        let error = answered(&client(), format!("{head}{rest}").as_bytes(), is_over).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "nothing is waited for");
        assert!(error.is_handshake() && error.status() == Some(401), "{error:?}");
        let response = response(&error);
        assert_eq!((response.status(), response.header("x-request-id")), (401, Some("7f3a")));
        assert_eq!(response.header_values("WWW-Authenticate"), ["Bearer realm=\"a\"", "Basic"]);
        assert!(response.headers().contains(&("X-Request-Id", b"7f3a")));
        assert_eq!((response.text(), response.body()), (Some(json), json.as_bytes()));
        assert!(response.is_complete());
        assert!(error.to_string().ends_with(&format!("401 instead of 101: {json}")), "{error}");
        assert!(!format!("{response:?}").contains("7f3a"), "{response:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_or_cannot_be_understood_still_leaves_the_refusal() {
    for (lines, body, kept) in [
        ("Content-Length: 9", "half", "half"),
        ("Transfer-Encoding: chunked", "9\r\nhalf", "half"),
        ("Transfer-Encoding: chunked", "no chunk", ""),
        ("Transfer-Encoding: gzip, chunked", "4\r\nhalf", ""),
        ("Content-Length: many", "half", ""),
    ] {
        let text = format!("HTTP/1.1 403 Forbidden\r\n{lines}\r\n\r\n{body}");
        let error = answered(&client(), text.as_bytes(), true).await;
        assert_eq!(error.status(), Some(403), "{lines}");
        assert_eq!((response(&error).text(), response(&error).is_complete()), (Some(kept), false), "{lines}");
    }
    let error = answered(&client(), b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n\xff\xfe", false).await;
    assert_eq!((response(&error).text(), response(&error).body()), (None, &b"\xff\xfe"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_body_without_end_is_cut_at_16_kib() {
    let (ours, mut theirs) = duplex(4096);
    let server = tokio::spawn(async move {
        read_request(&mut theirs).await;
        theirs.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
        let mut sent = 0;
        // Until the client is gone.
        while theirs.write_all(&[b'x'; 1024]).await.is_ok() {
            sent += 1024;
        }
        sent
    });
    let error = client().connect_over(ours).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert_eq!((response(&error).body().len(), response(&error).is_complete()), (Response::MAX_BODY, false));
    let sent: usize = server.await.unwrap();
    assert!(sent < 2 * Response::MAX_BODY, "{sent}");
    assert!(error.to_string().len() < 500, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_holds_nobody_up() {
    // By its own bound, and by the time that connecting has.
    for (timeout, expected) in [(10_000, 2_000), (1_500, 1_500)] {
        let (ours, mut theirs) = duplex(4096);
        tokio::spawn(async move {
            read_request(&mut theirs).await;
            theirs.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
            while theirs.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(400)).await;
            }
        });
        let start = Instant::now();
        let client = client().connect_timeout(Duration::from_millis(timeout));
        let error = client.connect_over(ours).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_millis(expected));
        assert_eq!(error.status(), Some(403), "{error}");
        assert!(!response(&error).body().is_empty() && !response(&error).is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_we_do_not_accept_can_be_looked_at() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: wrong\r\nVia: cache\r\n\r\n";
    let error = answered(&client(), head.as_bytes(), false).await;
    assert!(error.is_handshake() && error.status().is_none(), "{error}");
    assert_eq!((response(&error).status(), response(&error).header("via")), (101, Some("cache")));
    let error = answered(&client(), b"220 mail.example ESMTP\r\n\r\n", true).await;
    assert!(error.is_handshake() && error.response().is_none(), "{error}");
}

// RFC 9110 §15.4: with redirects off, where it would have led is in the response.
#[tokio::test(start_paused = true)]
async fn a_redirect_that_is_not_followed_says_where_it_leads() {
    let redirect = b"HTTP/1.1 307 x\r\nLocation: wss://b.example/y\r\nContent-Length: 5\r\n\r\nthere";
    let error = answered(&client(), redirect, false).await;
    assert_eq!((error.status(), response(&error).header("location")), (Some(307), Some("wss://b.example/y")));
    assert_eq!(response(&error).text(), Some("there"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // It says nothing more, and nobody waits for it.
        stream.write_all(b"HTTP/1.1 302 x\r\nLocation: ftp://b.example/\r\nX: y\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = Client::new(&url).connect().await.unwrap_err();
    assert!(error.is_handshake() && error.to_string().contains("scheme"), "{error}");
    assert_eq!((response(&error).status(), response(&error).header("x")), (302, Some("y")));
}

#[tokio::test]
async fn an_open_connection_has_the_headers_of_the_response_that_opened_it() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    let serving = server.serve(|incoming: Incoming| async move {
        let incoming = incoming.header("Set-Cookie", "a=1").header("Set-Cookie", "b=2").header("X-Request-Id", "7f3a");
        let mut socket = incoming.accept().await?;
        assert!(socket.response().is_none());
        socket.send("hello").await
    });
    let serving = tokio::spawn(serving.into_future());
    let mut socket = taut::connect(&url).await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some("hello"));
    let response = socket.response().cloned().expect("a client has one");
    assert_eq!(response.header_values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!((response.status(), response.header("x-request-id"), response.body()), (101, Some("7f3a"), &b""[..]));
    socket.close(CloseCode::NORMAL).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn a_reconnecting_client_is_told_what_the_server_has_answered() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    let serving = server.serve(|incoming: Incoming| incoming.reject(403, "this account is closed"));
    let serving = tokio::spawn(serving.into_future());
    let (told, mut events) = mpsc::unbounded_channel();
    let mut feed = Client::new(&url)
        .reconnecting(Backoff::default(), |socket| async { Ok(socket) })
        .on_event(move |event| drop(told.send(event.clone())));
    let error = feed.recv().await.unwrap_err();
    assert_eq!(response(&error).text(), Some("this account is closed\n"));
    let mut failures = 0;
    while let Ok(event) = events.try_recv() {
        if let Event::Failed(error) = event {
            assert_eq!(response(&error).text(), Some("this account is closed\n"));
            failures += 1;
        }
    }
    assert_eq!(failures, 1);
    serving.abort();
}

// CVE-2026-54465: a response's head is limited in bytes and in headers, and the limits are settings.
#[tokio::test(start_paused = true)]
async fn a_client_takes_a_response_up_to_its_limits_and_no_larger_one() {
    let padded = |bytes: usize| {
        let head = "HTTP/1.1 403 x\r\nContent-Length: 0\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(bytes - head.len() - 4))
    };
    let many = |headers: usize| format!("HTTP/1.1 403 x\r\n{}\r\n", "Content-Length: 0\r\n".repeat(headers));
    let small = client().head_limits(HeadLimits { bytes: 300, headers: 3 });
    let large = client().head_limits(HeadLimits { bytes: 64 << 10, headers: 1000 });
    for (client, text, is_taken) in [
        (&client(), padded(16 << 10), true),
        (&client(), padded((16 << 10) + 1), false),
        (&client(), many(100), true),
        (&client(), many(101), false),
        (&small, padded(300), true),
        (&small, padded(301), false),
        (&small, many(3), true),
        (&small, many(4), false),
        (&large, padded(64 << 10), true),
        (&large, padded((64 << 10) + 1), false),
        (&large, many(1000), true),
        (&large, many(1001), false),
    ] {
        let error = answered(client, text.as_bytes(), false).await;
        assert!(error.is_handshake(), "{error}");
        assert_eq!(error.status().is_some(), is_taken, "{} bytes: {error}", text.len());
        assert_eq!(error.response().map(|response| response.headers().len() > 1), is_taken.then_some(true));
        assert_eq!(error.to_string().contains("Client::head_limits"), !is_taken, "{error}");
    }
}
