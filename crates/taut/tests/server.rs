//! The server over real sockets: who gets in, who is told what, and how it ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taut::{
    Acceptor, Client, CloseCode, Error, Failure, Incoming, Message, Refusal, Request, Sender, Server, WebSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A server that ends when it is told to.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn client(&self) -> Client {
        Client::new(&format!("ws://{}/", self.address))
    }

    async fn stop(mut self) -> Result<(), Error> {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap()
    }
}

async fn bound() -> (Server, SocketAddr) {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

fn run(serving: taut::Serving, address: SocketAddr) -> Running {
    let (stop, stopped) = oneshot::channel();
    let serving = serving.until(async { stopped.await.unwrap_or(()) });
    Running { address, stop: Some(stop), task: tokio::spawn(serving.into_future()) }
}

async fn echo(incoming: Incoming) -> Result<(), Error> {
    let mut socket = incoming.accept().await?;
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// An open connection of which the test writes the bytes itself.
async fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test]
async fn who_authenticates_is_known_to_the_handler_and_who_does_not_is_told() {
    let (server, address) = bound().await;
    let serving = server
        .acceptor(Acceptor::new().subprotocols(["taut.v1"]))
        .authenticate(|request: Request| async move {
            match request.bearer() {
                Some("adas") => Ok("Ada"),
                Some(_) => Err(Refusal::forbidden("not you")),
                None => Err(Refusal::unauthorized("who are you?").retry_after(Duration::from_secs(3))),
            }
        })
        .serve(|mut socket: WebSocket, user: &str| async move { socket.send(format!("hello {user}")).await });
    let running = run(serving, address);

    let mut ada = running.client().bearer("adas").connect().await.unwrap();
    assert_eq!(ada.recv().await.unwrap(), Some(Message::from("hello Ada")));
    assert_eq!(ada.recv().await.unwrap(), None);
    assert_eq!(ada.peer_close().unwrap().code(), CloseCode::NORMAL, "the handler has returned");

    // A browser cannot set headers: the token is a subprotocol, and the answer does not name it.
    let from_browser = running.client().subprotocol("taut.v1").subprotocol("bearer.adas");
    let mut ada = from_browser.connect().await.unwrap();
    assert_eq!(ada.subprotocol(), Some("taut.v1"));
    assert_eq!(ada.recv().await.unwrap(), Some(Message::from("hello Ada")));
    assert_eq!(ada.recv().await.unwrap(), None);

    let error = running.client().connect().await.unwrap_err();
    assert_eq!((error.status(), error.retry_after()), (Some(401), Some(Duration::from_secs(3))));
    let error = running.client().bearer("eves").connect().await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_sees_the_request_and_may_reject_it_with_words_of_its_own() {
    let (server, address) = bound().await;
    let running = run(
        server.serve(|incoming: Incoming| async move {
            if incoming.cookie("session") != Some("s1") || incoming.query_value("room").as_deref() != Some("a b") {
                let text = format!("no such room at {}", incoming.path());
                return incoming.reject(401, text).await;
            }
            assert!(incoming.peer_addr().unwrap().ip().is_loopback());
            let mut socket = incoming.header("X-Served-By", "taut").accept().await?;
            socket.send("welcome").await
        }),
        address,
    );
    let client = |target: &str| Client::new(&format!("ws://{address}{target}")).header("Cookie", "session=s1");
    let mut socket = client("/chat?room=a%20b").connect().await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("welcome")));
    drop(socket);

    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 401 ") && response.ends_with("no such room at /chat\n"), "{response}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_handshake_or_comes_from_elsewhere_is_refused_and_reported() {
    let (server, address) = bound().await;
    let (reported, mut reports) = mpsc::unbounded_channel();
    let server = server
        .acceptor(Acceptor::new().allow_origins(["https://chat.example"]))
        .on_failure(move |failure| drop(reported.send(failure.to_string())));
    let running = run(server.serve(echo), address);

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
    assert!(reports.recv().await.unwrap().contains("426"));

    let error = running.client().origin("https://evil.example").connect().await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert!(reports.recv().await.unwrap().contains("403"));
    assert!(running.client().origin("https://chat.example").connect().await.is_ok());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_forgets_to_answer_leaves_nobody_waiting() {
    let (server, address) = bound().await;
    let running = run(server.serve(|_: Incoming| async { Ok::<(), Error>(()) }), address);
    assert_eq!(running.client().connect().await.unwrap_err().status(), Some(500));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_fails_closes_with_1011_and_is_reported() {
    let (server, address) = bound().await;
    let (reported, mut reports) = mpsc::unbounded_channel();
    let serving = server
        .on_failure(move |failure| {
            assert!(matches!(failure, Failure::Handler(Some(_), _)));
            drop(reported.send(failure.to_string()));
        })
        .serve(|incoming: Incoming| async move {
            let mut socket = incoming.accept().await.map_err(|error| error.to_string())?;
            socket.send("last words").await.map_err(|error| error.to_string())?;
            Err::<(), String>("the database is gone".to_owned())
        });
    let running = run(serving, address);
    let mut socket = running.client().connect().await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("last words")));
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.peer_close().unwrap().code(), CloseCode::INTERNAL_ERROR);
    assert!(reports.recv().await.unwrap().contains("the database is gone"));
    running.stop().await.unwrap();
}

/// As `panic!` does, but prints nothing.
fn panics(text: &str) {
    std::panic::resume_unwind(Box::new(text.to_owned()));
}

// RFC 6455 §7.4.1: 1011 is for a server that meets what it did not expect.
#[tokio::test]
async fn a_handler_that_panics_closes_with_1011_and_is_reported() {
    let (server, address) = bound().await;
    let (reported, mut reports) = mpsc::unbounded_channel();
    let serving = server.on_failure(move |failure| drop(reported.send(failure.to_string()))).serve(
        |incoming: Incoming| async move {
            let mut socket = incoming.accept().await?;
            socket.send("last words").await?;
            match socket.recv().await?.unwrap().as_text() {
                Some("text") => std::panic::resume_unwind(Box::new("out of luck")),
                Some("string") => panics("out of ideas"),
                Some("held") => {
                    // Another task holds it open: it is closed all the same.
                    let (sender, _receiver) = socket.split();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                        drop(sender);
                    });
                    panics("out of order");
                }
                _ => std::panic::resume_unwind(Box::new(7)),
            }
            Ok::<(), Error>(())
        },
    );
    let running = run(serving, address);
    for (why, report) in [
        ("text", "the handler panicked: out of luck"),
        ("string", "the handler panicked: out of ideas"),
        ("held", "the handler panicked: out of order"),
        ("number", "the handler panicked: without a text"),
    ] {
        let mut socket = running.client().connect().await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from("last words")));
        socket.send(why).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), None, "{why}");
        assert_eq!(socket.peer_close().unwrap().code(), CloseCode::INTERNAL_ERROR, "{why}");
        let told = reports.recv().await.unwrap();
        assert!(told.contains("127.0.0.1:") && told.ends_with(report), "{told}");
    }
    // Nobody else is harmed, and a drain waits for nobody.
    let mut socket = running.client().connect().await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("last words")));
    drop(socket);
    timeout(Duration::from_secs(5), running.stop()).await.expect("nobody is waited for in vain").unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_before_it_has_begun_refuses_with_500_and_is_reported() {
    let (server, address) = bound().await;
    let (reported, mut reports) = mpsc::unbounded_channel();
    let serving = server.on_failure(move |failure| drop(reported.send(failure.to_string()))).serve(
        |_: Incoming| -> std::future::Ready<Result<(), Error>> {
            panics("no handler");
            unreachable!()
        },
    );
    let running = run(serving, address);
    for _ in 0..2 {
        assert_eq!(running.client().connect().await.unwrap_err().status(), Some(500));
        assert!(reports.recv().await.unwrap().ends_with("the handler panicked: no handler"));
    }
    timeout(Duration::from_secs(5), running.stop()).await.expect("nobody is waited for in vain").unwrap();
}

#[tokio::test]
async fn a_drain_closes_with_1001_and_waits_for_the_handlers() {
    let (server, address) = bound().await;
    let running = run(server.serve(echo), address);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = running.client().connect().await.unwrap();
        socket.send("x").await.unwrap();
        assert!(socket.recv().await.unwrap().is_some());
        sockets.push(socket);
    }
    let clients = tokio::spawn(async move {
        for mut socket in sockets {
            assert_eq!(socket.recv().await.unwrap(), None);
            assert_eq!(socket.peer_close().unwrap().code(), CloseCode::GOING_AWAY);
        }
    });
    timeout(Duration::from_secs(5), running.stop()).await.expect("nobody is waited for in vain").unwrap();
    clients.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
}

// RFC 6455 §5.4: a message ends with its final fragment, and not because the server stops.
#[tokio::test]
async fn an_upload_that_a_drain_cuts_off_is_not_taken_for_whole() {
    let (server, address) = bound().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let serving = server.serve(move |incoming: Incoming| {
        let tell = tell.clone();
        async move {
            let mut socket = incoming.accept().await?;
            let Some(mut message) = socket.recv_stream().await? else { return Ok(()) };
            let mut stored = 0;
            loop {
                match message.part().await {
                    Ok(Some(part)) => {
                        stored += part.len();
                        tell.send(Ok(stored)).unwrap();
                    }
                    Ok(None) => break tell.send(Err(None)).unwrap(),
                    Err(error) => break tell.send(Err(Some(error))).unwrap(),
                }
            }
            Ok::<(), Error>(())
        }
    });
    let running = run(serving, address);
    let mut client = raw(running.address).await;
    // 70,000 bytes of a binary message, masked with zeros, that is to go on.
    client
        .write_all(&[&[0x02, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x70, 0, 0, 0, 0][..], &vec![1; 70_000]].concat())
        .await
        .unwrap();
    while told.recv().await.unwrap().unwrap() < 70_000 {}
    let (stopped, ()) = tokio::join!(running.stop(), async {
        let mut close = [0; 4];
        client.read_exact(&mut close).await.unwrap();
        assert_eq!(close, [0x88, 2, 0x03, 0xe9]);
        client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await.unwrap();
        assert_eq!(client.read(&mut close).await.unwrap(), 0);
        drop(client);
    });
    stopped.unwrap();
    let error = loop {
        if let Err(ended) = told.recv().await.unwrap() {
            break ended.expect("70,000 bytes and more are not the message");
        }
    };
    assert!(error.is_cut_off() && error.close_code() == Some(CloseCode::GOING_AWAY), "{error:?}");
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_dropped_when_the_drain_is_over() {
    let (server, address) = bound().await;
    let (dropped, mut is_dropped) = mpsc::channel::<()>(1);
    let serving = server
        .serve(move |incoming: Incoming| {
            let dropped = dropped.clone();
            async move {
                let _socket = incoming.accept().await?;
                std::future::pending::<()>().await;
                drop(dropped);
                Ok::<(), Error>(())
            }
        })
        .drain_timeout(Duration::from_millis(50));
    let running = run(serving, address);
    let mut socket = running.client().connect().await.unwrap();
    running.stop().await.unwrap();
    assert_eq!(is_dropped.recv().await, None);
    // It was told all the same.
    let _ = socket.recv().await;
    assert_eq!(socket.peer_close().unwrap().code(), CloseCode::GOING_AWAY);
}

#[tokio::test]
async fn a_server_that_is_dropped_drops_its_clients() {
    let (server, address) = bound().await;
    let running = run(server.serve(echo), address);
    let mut socket = running.client().connect().await.unwrap();
    running.task.abort();
    let error = socket.recv().await.unwrap_err();
    assert_eq!(error.close_code(), Some(CloseCode::ABNORMAL), "{error:?}");
}

#[tokio::test]
async fn one_client_too_many_is_told_to_come_back() {
    let (server, address) = bound().await;
    let running = run(server.max_connections(2).serve(echo), address);
    let first = running.client().connect().await.unwrap();
    let second = running.client().connect().await.unwrap();
    let error = running.client().connect().await.unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert!(error.retry_after().is_some());
    drop(first);
    // The server learns of it by itself, so it may take a few attempts.
    let again = async {
        while running.client().connect().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), again).await.expect("there is room again");
    drop(second);
    running.stop().await.unwrap();
}

// Slowloris: who does not finish its request holds a place until the deadline, and there are so many places.
#[tokio::test]
async fn handshakes_in_progress_are_capped_and_have_a_deadline() {
    let (server, address) = bound().await;
    let acceptor = Acceptor::new().handshake_timeout(Duration::from_millis(300));
    let running = run(server.acceptor(acceptor).max_handshakes(2).serve(echo), address);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        slow.push(stream);
    }
    // It waits in the kernel's queue until the two are given up.
    assert!(running.client().connect().await.is_ok());
    for mut stream in slow {
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    }
    running.stop().await.unwrap();
}

/// Reads what comes of one write: loopback hands over a write as a whole.
async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let count = timeout(Duration::from_secs(5), stream.read(&mut bytes)).await.expect("it is written").unwrap();
    bytes.truncate(count);
    bytes
}

#[tokio::test]
async fn the_natural_loop_answers_one_read_by_one_write() {
    let (server, address) = bound().await;
    let running = run(server.serve(echo), address);
    let mut stream = raw(address).await;
    let request = b"\x81\x85\0\0\0\0hello".repeat(16);
    for _ in 0..10 {
        stream.write_all(&request).await.unwrap();
        assert_eq!(read(&mut stream).await, b"\x81\x05hello".repeat(16));
    }
    drop(stream);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_sent_leaves_whatever_the_handler_waits_for() {
    let (server, address) = bound().await;
    let (proceed, go) = mpsc::channel::<()>(1);
    let go = Arc::new(tokio::sync::Mutex::new(go));
    let serving = server.serve(move |incoming: Incoming| {
        let go = Arc::clone(&go);
        async move {
            let mut socket = incoming.accept().await?;
            while let Some(message) = socket.recv().await? {
                socket.send(message).await?;
                // Not the connection, and for as long as the test likes.
                go.lock().await.recv().await;
            }
            Ok::<(), Error>(())
        }
    });
    let running = run(serving, address);
    let mut stream = raw(address).await;
    // Two in one read: the second waits in the inbox, and the answer to the first does not wait for it.
    stream.write_all(b"\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b").await.unwrap();
    assert_eq!(read(&mut stream).await, b"\x81\x01a");
    proceed.send(()).await.unwrap();
    assert_eq!(read(&mut stream).await, b"\x81\x01b");
    drop(proceed);
    drop(stream);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_websocket_may_leave_the_task_that_accepted_it() {
    let (server, address) = bound().await;
    let (handed, mut taken) = mpsc::unbounded_channel();
    let serving = server.serve(move |incoming: Incoming| {
        let handed = handed.clone();
        async move {
            let mut socket = incoming.accept().await?;
            // Queued inside of the cork, and gone in the same poll.
            socket.send("from the handler").await?;
            let (done, is_done) = oneshot::channel::<()>();
            let _ = handed.send((socket, done));
            let _ = is_done.await;
            Ok::<(), Error>(())
        }
    });
    let running = run(serving, address);
    let elsewhere = tokio::spawn(async move {
        let (mut socket, done): (WebSocket, oneshot::Sender<()>) = taken.recv().await.unwrap();
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        drop(done);
        Ok::<(), Error>(())
    });
    let mut client = running.client().connect().await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(Message::from("from the handler")));
    for number in 0..100 {
        client.send(format!("{number}")).await.unwrap();
        assert_eq!(client.recv().await.unwrap(), Some(Message::from(format!("{number}"))));
    }
    client.close(CloseCode::NORMAL).await.unwrap();
    elsewhere.await.unwrap().unwrap();
    running.stop().await.unwrap();
}

/// A room: whoever sends, all hear it, and nobody waits for the slowest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_split_connections_hears_everything_in_order() {
    const MEMBERS: usize = 8;
    const MESSAGES: usize = 200;
    let room: Arc<Mutex<Vec<Sender>>> = Arc::default();
    let (server, address) = bound().await;
    let serving = server.serve(move |incoming: Incoming| {
        let room = Arc::clone(&room);
        async move {
            let (sender, mut receiver) = incoming.accept().await?.split();
            sender.send("welcome").await?;
            room.lock().unwrap().push(sender);
            while let Some(message) = receiver.recv().await? {
                for member in room.lock().unwrap().iter() {
                    let _ = member.try_send(&*message.to_string());
                }
            }
            Ok::<(), Error>(())
        }
    });
    let running = run(serving, address);
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let mut socket = running.client().connect().await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from("welcome")));
        members.push(socket);
    }
    let tasks: Vec<_> = members
        .into_iter()
        .enumerate()
        .map(|(number, mut socket)| {
            tokio::spawn(async move {
                for message in 0..MESSAGES {
                    socket.send(format!("{number} {message}")).await?;
                }
                let mut next = [0; MEMBERS];
                for _ in 0..MEMBERS * MESSAGES {
                    let message = socket.recv().await?.expect("all of them").to_string();
                    let (who, what) = message.split_once(' ').unwrap();
                    let who: usize = who.parse().unwrap();
                    assert_eq!(what.parse::<usize>().unwrap(), next[who], "in the order in which it was sent");
                    next[who] += 1;
                }
                Ok::<_, Error>(socket)
            })
        })
        .collect();
    for task in tasks {
        timeout(Duration::from_secs(20), task).await.expect("nobody sleeps for ever").unwrap().unwrap();
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_returns_closes_for_all_who_still_hold_a_sender() {
    let (server, address) = bound().await;
    let (kept, mut keeper) = mpsc::unbounded_channel();
    let serving = server.serve(move |incoming: Incoming| {
        let kept = kept.clone();
        async move {
            let (sender, _receiver) = incoming.accept().await?.split();
            let _ = kept.send(sender);
            Ok::<(), Error>(())
        }
    });
    let running = run(serving, address);
    let mut client = running.client().connect().await.unwrap();
    assert_eq!(client.recv().await.unwrap(), None);
    let sender: Sender = keeper.recv().await.unwrap();
    assert!(!sender.is_open());
    assert!(sender.send("too late").await.unwrap_err().is_closed());
    running.stop().await.unwrap();
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_server_speaks_tls_and_knows_whom_the_client_asked_for() {
    use taut::tls::{ClientTls, ServerTls};

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let (server, address) = bound().await;
    let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let acceptor = Acceptor::new().tls(tls).handshake_timeout(Duration::from_millis(500));
    let serving = server.acceptor(acceptor).serve(|incoming: Incoming| async move {
        let name = incoming.tls().and_then(|tls| tls.server_name().map(str::to_owned));
        let mut socket = incoming.accept().await?;
        socket.send(name.unwrap_or_default()).await?;
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        Ok::<(), Error>(())
    });
    let running = run(serving, address);
    let client = Client::new(&format!("wss://localhost:{}/", address.port()))
        .tls(ClientTls::only_pem(certificate.as_bytes()).unwrap());
    let mut socket = client.connect().await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("localhost")));
    let large = "x".repeat(900_000);
    socket.send(&*large).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from(&*large)));
    assert!(socket.transport(|transport| transport.tls().is_some()));
    drop(socket);

    // Who speaks plain HTTP, or nothing, is given up.
    assert!(Client::new(&format!("ws://{address}/")).connect().await.is_err());
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0, "within the deadline");
    running.stop().await.unwrap();
}
