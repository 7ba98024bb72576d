//! Connections that hyper hands over. Real hyper, real sockets.

use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use taut::upgrade::{self, Shutdown, Upgrade};
use taut::{Acceptor, Client, CloseCode, Deflate, Failure, Message, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

type Answer = Response<String>;

/// A server that gives every request to `answer`; its address.
async fn server(answer: impl Fn(Request<Incoming>) -> Answer + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
    address
}

async fn serve<S>(stream: S, answer: impl Fn(Request<Incoming>) -> Answer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| ready(Ok::<_, fmt::Error>(answer(request))));
    // How it ended is what the client sees.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Answers by the standard terms; `then` does the rest.
fn accept(
    acceptor: Acceptor,
    then: impl Fn(Upgrade) + Clone + Send + 'static,
) -> impl Fn(Request<Incoming>) -> Answer + Clone + Send + 'static {
    move |mut request| match acceptor.upgrade(&mut request) {
        Ok(upgrade) => {
            let response = upgrade.response().map(|()| String::new());
            then(upgrade);
            response
        }
        Err(refusal) => upgrade::refuse(&refusal),
    }
}

async fn echo(mut socket: WebSocket) -> Result<(), taut::Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

fn run_echo(upgrade: Upgrade) {
    tokio::spawn(upgrade.run(echo));
}

/// What [`Upgrade::on_failure`] is told.
fn failures() -> (impl Fn(&Failure) + Clone + Send + Sync + 'static, mpsc::UnboundedReceiver<String>) {
    let (told, failures) = mpsc::unbounded_channel();
    let report = move |failure: &Failure| {
        let error = match failure {
            Failure::Handshake(_, error) => format!("handshake, timeout {}: {error}", error.is_timeout()),
            other => other.to_string(),
        };
        told.send(error).unwrap();
    };
    (report, failures)
}

/// The head of a handshake, with lines replaced: each is a part of a line, and what to have instead of the line.
fn handshake(changes: &[(&str, &str)]) -> String {
    let mut lines = vec![
        "GET /chat HTTP/1.1",
        "Host: a.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for (part, line) in changes {
        lines.retain(|old| part.is_empty() || !old.contains(part));
        let place = if line.contains("HTTP/1") { 0 } else { lines.len() };
        lines.insert(place, line);
    }
    lines.retain(|line| !line.is_empty());
    lines.join("\r\n") + "\r\n\r\n"
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A text message from a client, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[tokio::test]
async fn a_client_talks_and_closes_and_the_socket_is_the_bare_one() {
    let (told, mut transports) = mpsc::unbounded_channel();
    let then = move |upgrade: Upgrade| {
        assert_eq!((upgrade.path(), upgrade.query(), upgrade.bearer()), ("/chat", Some("a=b"), Some("t0ken")));
        let told = told.clone();
        tokio::spawn(upgrade.run(move |socket| {
            told.send(socket.transport(|transport| transport.tcp().map(|tcp| tcp.nodelay().unwrap()))).unwrap();
            echo(socket)
        }));
    };
    let address = server(accept(Acceptor::new(), then)).await;
    let mut socket = Client::new(&format!("ws://{address}/chat?a=b")).bearer("t0ken").connect().await.unwrap();
    assert_eq!(transports.recv().await, Some(Some(true)));
    for text in ["hello", "", &"long ".repeat(50_000)] {
        socket.send(text).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from(text)));
    }
    socket.close(CloseCode::NORMAL).await.unwrap();
}

#[tokio::test]
async fn what_comes_in_one_segment_with_the_handshake_is_received() {
    let address = server(accept(Acceptor::new(), run_echo)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[handshake(&[]).as_bytes(), &masked("early")].concat()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut echoed = [0; 7];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x81\x05early");
}

#[tokio::test]
async fn any_other_stream_works_too_and_loses_nothing_either() {
    let (mut ours, theirs) = duplex(64 << 10);
    let (told, mut transports) = mpsc::unbounded_channel();
    let then = move |upgrade: Upgrade| {
        let told = told.clone();
        tokio::spawn(upgrade.run(move |socket| {
            told.send(socket.transport(|transport| transport.tcp().is_none())).unwrap();
            echo(socket)
        }));
    };
    tokio::spawn(serve(theirs, accept(Acceptor::new(), then)));
    ours.write_all(&[handshake(&[]).as_bytes(), &masked("early")].concat()).await.unwrap();
    head(&mut ours).await;
    let mut echoed = [0; 7];
    ours.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x81\x05early");
    assert_eq!(transports.recv().await, Some(true));
}

// RFC 6455 §4.2.1, §4.2.2 (4), §4.4, §10.2: the same checks as those of a server of our own.
#[tokio::test]
async fn what_is_no_good_handshake_is_refused_and_the_next_request_is_served() {
    let address = server(accept(Acceptor::new(), run_echo)).await;
    for (changes, status) in [
        (&[("Upgrade", "")][..], 426),
        (&[("Version", "Sec-WebSocket-Version: 8")], 426),
        (&[("Version", "")], 426),
        (&[("", "Origin: https://evil.example")], 403),
        (&[("GET", "POST /chat HTTP/1.1")], 405),
        (&[("Key", "Sec-WebSocket-Key: short")], 400),
        (&[("Key", "")], 400),
        (&[("", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")], 400),
        (&[("", "Sec-WebSocket-Extensions: ;")], 400),
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(handshake(changes).as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{changes:?}: {answer}");
        let says_what_to_do =
            answer.contains("\r\nupgrade: websocket\r\n") && answer.contains("\r\nsec-websocket-version: 13\r\n");
        // RFC 9110 §7.8: `Connection` names `Upgrade`.
        assert_eq!(answer.contains("\r\nconnection: Upgrade\r\n"), says_what_to_do, "{answer}");
        assert_eq!(says_what_to_do, status == 426, "{answer}");
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        assert!(body.ends_with(b".\n"), "{}", String::from_utf8_lossy(&body));

        stream.write_all(handshake(&[("", "Origin: http://a.example")]).as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "after {changes:?}: {answer}");
        assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    }
}

#[tokio::test]
async fn http_1_0_and_requests_with_a_body_are_refused() {
    let address = server(accept(Acceptor::new(), run_echo)).await;
    for changes in [[("GET", "GET /chat HTTP/1.0")], [("", "Content-Length: 1")], [("", "Transfer-Encoding: chunked")]]
    {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(handshake(&changes).as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.split(' ').nth(1) == Some("400"), "{changes:?}: {answer}");
    }
}

// RFC 8441 §5: what it asks for is not there, and the client is told so.
#[test]
fn a_websocket_over_http_2_is_refused_with_an_explanation() {
    let request = Request::connect("https://a.example/chat").version(hyper::Version::HTTP_2);
    let refusal = Acceptor::new().upgrade(&mut request.body(()).unwrap()).unwrap_err();
    assert_eq!(refusal.status(), 501);
    assert!(upgrade::refuse(&refusal).body().contains("HTTP/1.1"));
}

#[test]
fn a_request_that_is_not_hypers_is_refused_with_an_explanation() {
    let mut request = Request::get("/chat").body(()).unwrap();
    for line in handshake(&[]).lines().skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let refusal = Acceptor::new().upgrade(&mut request).unwrap_err();
    assert_eq!(refusal.status(), 500);
    assert!(refusal.to_string().contains("OnUpgrade"));
}

#[tokio::test]
async fn the_terms_are_the_acceptors() {
    let acceptor =
        Acceptor::new().subprotocols(["v2.chat"]).deflate(Deflate::default()).allow_origins(["https://page.example"]);
    let then = |upgrade: Upgrade| {
        assert_eq!(upgrade.subprotocol(), Some("v2.chat"));
        run_echo(upgrade);
    };
    let address = server(accept(acceptor, then)).await;
    let client = Client::new(&format!("ws://{address}/")).subprotocol("v1.chat").subprotocol("v2.chat");
    let mut socket = client.deflate(Deflate::default()).origin("https://page.example").connect().await.unwrap();
    assert_eq!(socket.subprotocol(), Some("v2.chat"));
    // More than an inflated message of this length would need, were it not compressed.
    let text = "again ".repeat(10_000);
    socket.send(text.as_str()).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from(text)));
}

#[tokio::test]
async fn the_close_code_says_how_the_handler_has_ended() {
    let (report, mut failures) = failures();
    let then = move |upgrade: Upgrade| {
        let fails = upgrade.path() == "/fail";
        tokio::spawn(upgrade.on_failure(report.clone()).run(async move |mut socket: WebSocket| {
            socket.send("last words").await?;
            if fails { Err("the disk is full")? } else { Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }
        }));
    };
    let address = server(accept(Acceptor::new(), then)).await;
    for (path, code) in [("", CloseCode::NORMAL), ("fail", CloseCode::INTERNAL_ERROR)] {
        let mut socket = taut::connect(&format!("ws://{address}/{path}")).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from("last words")));
        assert_eq!(socket.recv().await.unwrap(), None);
        assert_eq!(socket.peer_close().map(|close| close.code()), Some(code));
    }
    let failure = failures.recv().await.unwrap();
    assert!(failure.contains("127.0.0.1:") && failure.contains("the disk is full"), "{failure}");
    assert!(failures.try_recv().is_err());
}

#[tokio::test]
async fn a_handler_that_panics_closes_with_1011_and_is_reported() {
    let (report, mut failures) = failures();
    let (task, mut tasks) = mpsc::unbounded_channel();
    let then = move |upgrade: Upgrade| {
        let running = tokio::spawn(upgrade.on_failure(report.clone()).run(async |mut socket: WebSocket| {
            socket.recv().await?;
            // Not by `panic!`, which would print.
            std::panic::resume_unwind(Box::new("as if"));
            #[allow(unreachable_code)]
            Ok::<_, taut::Error>(())
        }));
        task.send(running).unwrap();
    };
    let address = server(accept(Acceptor::new(), then)).await;
    let mut socket = taut::connect(&format!("ws://{address}/")).await.unwrap();
    socket.send("go").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::INTERNAL_ERROR));
    let failure = failures.recv().await.unwrap();
    assert!(failure.ends_with("the handler panicked: as if"), "{failure}");
    // The task's own panic is not swallowed.
    assert!(tasks.recv().await.unwrap().await.unwrap_err().is_panic());
}

#[tokio::test]
async fn an_upgrade_whose_response_is_not_returned_fails_in_time() {
    let (report, mut failures) = failures();
    let acceptor = Acceptor::new().handshake_timeout(Duration::from_millis(50));
    let upgrading = accept(acceptor, move |upgrade: Upgrade| {
        tokio::spawn(upgrade.on_failure(report.clone()).run(echo));
    });
    let address = server(move |request| {
        drop(upgrading(request));
        Response::new("something else".to_owned())
    })
    .await;
    // The connection stays open, so nothing but the deadline ends the wait.
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(handshake(&[]).as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    let failure = failures.recv().await.unwrap();
    assert!(
        failure.starts_with("handshake, timeout true: the connection was not handed over within 50ms"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_server_that_serves_without_upgrades_is_told_so_at_once() {
    let (report, mut failures) = failures();
    // It does not come to the deadline.
    let acceptor = Acceptor::new().handshake_timeout(Duration::from_secs(3600));
    let answer = accept(acceptor, move |upgrade: Upgrade| {
        tokio::spawn(upgrade.on_failure(report.clone()).run(echo));
    });
    let (mut ours, theirs) = duplex(64 << 10);
    let service = service_fn(move |request| ready(Ok::<_, fmt::Error>(answer(request))));
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
    ours.write_all(handshake(&[]).as_bytes()).await.unwrap();
    let failure = failures.recv().await.unwrap();
    assert!(failure.starts_with("handshake, timeout false: "), "{failure}");
}

#[tokio::test]
async fn a_bare_websocket_can_be_had_as_well() {
    let (told, mut sockets) = mpsc::unbounded_channel();
    let then = move |upgrade: Upgrade| {
        let told = told.clone();
        tokio::spawn(async move { told.send(upgrade.into_websocket().await.unwrap()).unwrap() });
    };
    let address = server(accept(Acceptor::new(), then)).await;
    let mut client = taut::connect(&format!("ws://{address}/")).await.unwrap();
    let mut socket = sockets.recv().await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(Message::from("hello")));
    drop(socket);
    assert_eq!(client.recv().await.unwrap_err().close_code(), Some(CloseCode::ABNORMAL));
}

/// A stream that counts the writes that take something.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, room)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        self.1.fetch_add(usize::from(written.is_ready()), Ordering::Relaxed);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn the_answers_to_all_that_one_read_has_brought_leave_in_one_write() {
    let (mut ours, theirs) = duplex(64 << 10);
    let writes = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve(Counted(theirs, Arc::clone(&writes)), accept(Acceptor::new(), run_echo)));
    ours.write_all(handshake(&[]).as_bytes()).await.unwrap();
    head(&mut ours).await;
    assert_eq!(writes.swap(0, Ordering::Relaxed), 1, "the response");
    ours.write_all(&masked("hello").repeat(16)).await.unwrap();
    let mut echoed = [0; 16 * 7];
    ours.read_exact(&mut echoed).await.unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_drain_closes_what_is_open_and_waits_for_the_handlers() {
    let shutdown = Shutdown::new();
    let (told, mut ended) = mpsc::unbounded_channel();
    let then = {
        let shutdown = shutdown.clone();
        move |upgrade: Upgrade| {
            let told = told.clone();
            tokio::spawn(upgrade.shutdown(&shutdown).run(async move |socket| {
                echo(socket).await?;
                told.send(()).unwrap();
                Ok::<_, taut::Error>(())
            }));
        }
    };
    let address = server(accept(Acceptor::new(), then)).await;
    let mut client = taut::connect(&format!("ws://{address}/")).await.unwrap();
    client.send("hello").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(Message::from("hello")));
    let receive = timeout(Duration::from_secs(5), client.recv());
    let (received, ()) = tokio::join!(receive, shutdown.drain(Duration::from_secs(10)));
    assert_eq!(received.expect("the connection is closed").unwrap(), None);
    assert_eq!(client.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
    ended.try_recv().unwrap();

    // Whoever comes later is closed at once.
    let mut late = taut::connect(&format!("ws://{address}/")).await.unwrap();
    assert_eq!(late.recv().await.unwrap(), None);
    assert_eq!(late.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
}

#[tokio::test]
async fn a_drain_drops_the_handlers_that_do_not_end() {
    let shutdown = Shutdown::new();
    let then = {
        let shutdown = shutdown.clone();
        move |upgrade: Upgrade| {
            tokio::spawn(upgrade.shutdown(&shutdown).run(async |mut socket: WebSocket| {
                socket.send("hello").await?;
                pending::<Result<(), taut::Error>>().await
            }));
        }
    };
    let address = server(accept(Acceptor::new(), then)).await;
    let mut client = taut::connect(&format!("ws://{address}/")).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(Message::from("hello")));
    shutdown.drain(Duration::from_millis(10)).await;
    let ended = timeout(Duration::from_secs(5), client.recv()).await.expect("the connection is gone");
    assert!(ended.is_err() || client.peer_close().is_some());
}
