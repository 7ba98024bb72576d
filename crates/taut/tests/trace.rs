//! What a client reports of its steps, and what it may do beside sending messages.

use std::sync::{Arc, Mutex};

use taut::trace::{Kind, Step};
use taut::{Client, CloseCode, Deflate, Server, WebSocket};
use tokio::net::TcpListener;

/// A server that does this with its only connection.
async fn serving<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(taut::accept(stream).await.unwrap()).await;
    });
    url
}

async fn echo(mut socket: WebSocket) {
    while let Ok(Some(message)) = socket.recv().await {
        socket.send(message).await.unwrap();
    }
}

/// A client for this URL, and what it reports.
fn traced(client: Client) -> (Client, Arc<Mutex<Vec<String>>>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&steps);
    let client = client.trace(move |step| {
        let text = match step {
            Step::Resolved { host, addresses } => format!("resolved {host} {}", addresses.len()),
            Step::Connected(address) => format!("connected {}", address.ip()),
            Step::Request(head) => format!("request {}", head.lines().next().unwrap_or_default()),
            Step::Response(response) => format!("response {}", response.status()),
            Step::Sent(traffic) => {
                format!("sent {:?} {} {} {:?}", traffic.kind, traffic.length, traffic.wire, traffic.payload)
            }
            Step::Received(traffic) => {
                format!("received {:?} {} {} {:?}", traffic.kind, traffic.length, traffic.wire, traffic.payload)
            }
            other => format!("{other:?}"),
        };
        noted.lock().unwrap().push(text);
    });
    (client, steps)
}

#[tokio::test]
async fn each_step_is_reported_in_order() {
    let (client, steps) = traced(Client::new(&serving(echo).await).no_proxy());
    let mut socket = client.connect().await.unwrap();
    socket.ping(b"?").await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));
    socket.send(&[7; 200][..]).await.unwrap();
    assert!(socket.recv().await.unwrap().is_some());
    let steps = steps.lock().unwrap().clone();
    let expected = [
        "resolved 127.0.0.1 1",
        "connected 127.0.0.1",
        "request GET /x HTTP/1.1",
        "response 101",
        // RFC 6455 §5.2: two bytes of header, four of a client's masking key.
        "sent Ping 1 7 [63]",
        "sent Text 5 11 []",
        "received Pong 1 3 [63]",
        "received Text 5 7 []",
        "sent Binary 200 208 []",
        "received Binary 200 204 []",
    ];
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn what_compression_saves_is_seen_and_so_is_a_message_of_many_reads() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    let acceptor = taut::Acceptor::new().deflate(Deflate::default());
    tokio::spawn(async move {
        let serving = server.acceptor(acceptor).serve(|incoming: taut::Incoming| async move {
            echo(incoming.accept().await?).await;
            Ok::<_, taut::Error>(())
        });
        serving.await
    });
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&sizes);
    let client = Client::new(&url).no_proxy().deflate(Deflate::default()).trace(move |step| {
        if let Step::Sent(traffic) | Step::Received(traffic) = step
            && matches!(traffic.kind, Kind::Text | Kind::Binary)
        {
            noted.lock().unwrap().push((traffic.length, traffic.wire));
        }
    });
    let mut socket = client.connect().await.unwrap();
    let text = "all work and no play makes Jack a dull boy, ".repeat(100);
    socket.send(&*text).await.unwrap();
    assert!(socket.recv().await.unwrap().is_some());
    // What cannot be compressed, and comes in many reads.
    let mut random = vec![0; 1 << 20];
    getrandom::fill(&mut random).unwrap();
    socket.send(&*random).await.unwrap();
    assert!(socket.recv().await.unwrap().is_some());
    let sizes = sizes.lock().unwrap().clone();
    let [sent, received, large_sent, large_received] = sizes[..] else { panic!("{sizes:?}") };
    for (length, wire) in [sent, received] {
        assert!(length == text.len() && wire * 10 < length, "{sizes:?}");
    }
    for (length, wire) in [large_sent, large_received] {
        assert!(length == 1 << 20 && wire > length && wire < length + 1000, "{sizes:?}");
    }
}

#[tokio::test]
async fn a_ping_between_the_fragments_of_a_message_counts_for_itself() {
    let url = serving(async |socket| {
        let (mut sender, mut receiver) = socket.split();
        let pinging = sender.clone();
        let mut message = sender.send_text_stream();
        message.write("hel").await.unwrap();
        pinging.ping(b"?").await.unwrap();
        message.write("lo").await.unwrap();
        message.finish().await.unwrap();
        while let Ok(Some(_)) = receiver.recv().await {}
    });
    let (client, steps) = traced(Client::new(&url.await).no_proxy());
    let mut socket = client.connect().await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));
    let steps = steps.lock().unwrap()[4..].to_vec();
    // RFC 6455 §5.2: two bytes of header each, also of the last fragment, which is empty.
    assert_eq!(steps, ["received Ping 1 3 [63]", "received Text 5 11 []"]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_heartbeat_that_takes_the_place_of_a_longer_one_is_reported() {
    let (client, steps) = traced(Client::new("ws://server.example/"));
    let (ours, theirs) = tokio::io::duplex(1024);
    let (socket, _peer) = tokio::join!(client.connect_over(ours), taut::accept_over(theirs));
    let mut socket = socket.unwrap();
    // More than the peer, which does not read, leaves room for.
    socket.send(vec![7; 100_000]).await.unwrap();
    socket.ping(&[b'p'; 125]).await.unwrap();
    assert!(socket.recv().await.unwrap_err().is_timeout());
    let pings: Vec<String> = steps.lock().unwrap().iter().filter(|step| step.contains("sent Ping")).cloned().collect();
    let [own, heartbeat] = &pings[..] else { panic!("{pings:?}") };
    assert!(own.starts_with("sent Ping 125 131 ") && heartbeat.starts_with("sent Ping 8 14 "), "{pings:?}");
}

#[tokio::test]
async fn pongs_do_not_pile_up_for_a_peer_that_does_not_read() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let client = Client::new("ws://server.example/");
    let (socket, _peer) = tokio::join!(client.connect_over(ours), taut::accept_over(theirs));
    let mut socket = socket.unwrap();
    let mut bytes = 0;
    let error = loop {
        match socket.pong(&[b'p'; 125]).await {
            Ok(()) => bytes += 131,
            Err(error) => break error,
        }
        assert!(bytes < 2 << 20, "they pile up");
    };
    assert!(error.is_full() && bytes > 1 << 20, "{error}: {bytes}");
}

#[tokio::test]
async fn a_refusal_is_a_response_and_a_name_is_looked_up() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(async move {
        server.serve(|incoming: taut::Incoming| async move { incoming.reject(403, "no").await }).await
    });
    let (client, steps) = traced(Client::new(&format!("ws://localhost:{port}/")).no_proxy());
    assert_eq!(client.connect().await.unwrap_err().status(), Some(403));
    let steps = steps.lock().unwrap().clone();
    assert!(steps[0].starts_with("resolved localhost "), "{steps:?}");
    assert_eq!(steps.last().unwrap(), "response 403");
}

#[tokio::test]
async fn a_close_that_has_begun_loses_no_message_however_many_come() {
    // More than are kept for a receiver, in less than a connection takes at once.
    const COUNT: usize = 2_500;
    let (tell, told) = tokio::sync::oneshot::channel();
    let url = serving(async |mut socket| {
        for _ in 0..COUNT {
            socket.send("x".repeat(100)).await.unwrap();
        }
        socket.flush().await.unwrap();
        tell.send(()).unwrap();
        while let Ok(Some(_)) = socket.recv().await {}
    });
    let socket = Client::new(&url.await).no_proxy().connect().await.unwrap();
    told.await.unwrap();
    let (sender, mut receiver) = socket.split();
    assert!(sender.begin_close(CloseCode::ABNORMAL).unwrap_err().is_invalid() && sender.is_open());
    sender.begin_close(CloseCode::NORMAL).unwrap();
    assert!(sender.send("late").await.unwrap_err().is_closed());
    let mut count = 0;
    while receiver.recv().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, COUNT);
    assert_eq!(receiver.peer_close().unwrap().code(), CloseCode::NORMAL);
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_a_way_to_a_server() {
    let path = std::env::temp_dir().join(format!("taut-trace-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let client = Client::new("ws://localhost/");
    let error = client.connect_unix(&path).await.unwrap_err();
    assert!(error.is_connect() && error.to_string().contains(path.to_str().unwrap()), "{error}");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { echo(taut::accept_over(listener.accept().await.unwrap().0).await.unwrap()).await });
    let mut socket = client.connect_unix(&path).await.unwrap();
    socket.pong(b"still here").await.unwrap();
    assert!(socket.pong(&[0; 126]).await.unwrap_err().is_invalid());
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));
    std::fs::remove_file(&path).unwrap();
}
