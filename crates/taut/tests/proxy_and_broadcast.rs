//! The examples `proxy` and `broadcast`, as programs: started, talked to over loopback, ended.

use std::future::IntoFuture;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use taut::{Client, Close, CloseCode, Error, Incoming, Message, Server, WebSocket};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// An example that serves.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    /// Starts it and waits until it says where it listens.
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(example(name)).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("not where: {line:?}"));
        Self { child, url: url.to_owned() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server for the proxy: echoes what it is sent, part by part, closes with 4001 when asked to, and tells how its
/// clients have closed.
async fn echo(incoming: Incoming, closes: mpsc::UnboundedSender<Option<Close>>) -> Result<(), Error> {
    if incoming.bearer() != Some("t0ken") {
        return incoming.reject(401, "who are you?").await;
    }
    let (mut sender, mut receiver) = incoming.accept().await?.split();
    while let Some(mut message) = receiver.recv_stream().await? {
        let is_text = message.is_text();
        let mut copy = if is_text { sender.send_text_stream() } else { sender.send_binary_stream() };
        let mut length = 0;
        let mut is_end = false;
        while let Some(part) = message.part().await? {
            length += part.len();
            is_end = is_text && part == b"close";
            copy.write(part).await?;
        }
        copy.finish().await?;
        sender.send(format!("{length} bytes")).await?;
        if is_end {
            sender.close(Close::new(CloseCode::new(4001), "as you asked")).await?;
        }
    }
    let _ = closes.send(receiver.peer_close());
    Ok(())
}

/// Serves; the address, and how clients have closed.
async fn serve() -> (String, mpsc::UnboundedReceiver<Option<Close>>) {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    let (told, closes) = mpsc::unbounded_channel();
    tokio::spawn(server.serve(move |incoming| echo(incoming, told.clone())).into_future());
    (url, closes)
}

async fn read(socket: &mut WebSocket) -> (bool, Vec<u8>) {
    let mut message = socket.recv_stream().await.unwrap().expect("open");
    let mut bytes = Vec::new();
    while let Some(part) = message.part().await.unwrap() {
        bytes.extend(part);
    }
    (message.is_text(), bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_carries_text_and_binary_of_any_length_both_ways() {
    let (upstream, _closes) = serve().await;
    let proxy = Program::start("proxy", &[&upstream]);
    let mut socket = Client::new(&proxy.url).bearer("t0ken").connect().await.unwrap();
    // More than a server takes as a whole message, and than a text is cut into parts of.
    for message in [Message::from("世界 😀 ".repeat(400_000)), vec![0xff; 20 << 20].into(), "".into(), b"x".into()]
    {
        let (is_text, bytes) = (message.is_text(), message.into_bytes());
        let (mut sender, mut receiver) = socket.split();
        let sending = async {
            let mut parts = if is_text { sender.send_text_stream() } else { sender.send_binary_stream() };
            for part in bytes.chunks(100_001) {
                parts.write(part).await?;
            }
            parts.finish().await?;
            sender.flush().await
        };
        let receiving = async {
            let mut message = receiver.recv_stream().await?.expect("open");
            let mut echoed = Vec::new();
            while let Some(part) = message.part().await? {
                echoed.extend(part);
            }
            assert!(echoed == bytes && message.is_text() == is_text, "not what was sent");
            drop(message);
            let length = receiver.recv().await?;
            assert_eq!(length, Some(format!("{} bytes", bytes.len()).into()));
            Ok::<(), Error>(())
        };
        tokio::try_join!(sending, receiving).unwrap();
        sender.close(CloseCode::NORMAL).await.unwrap();
        socket = Client::new(&proxy.url).bearer("t0ken").connect().await.unwrap();
    }
    // Whole messages as well.
    socket.send("hello").await.unwrap();
    assert_eq!(read(&mut socket).await, (true, b"hello".to_vec()));
    assert_eq!(read(&mut socket).await, (true, b"5 bytes".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_passes_on_how_either_side_closes() {
    let (upstream, mut closes) = serve().await;
    let proxy = Program::start("proxy", &[&upstream]);
    let client = Client::new(&proxy.url).bearer("t0ken");

    let mut socket = client.connect().await.unwrap();
    socket.send("close").await.unwrap();
    while socket.recv().await.unwrap().is_some() {}
    assert_eq!(socket.peer_close(), Some(Close::new(CloseCode::new(4001), "as you asked")));
    closes.recv().await.unwrap();

    for close in [Close::new(CloseCode::new(4002), "bye"), CloseCode::NORMAL.into(), CloseCode::NO_STATUS.into()] {
        let mut socket = client.connect().await.unwrap();
        socket.close(close.clone()).await.unwrap();
        assert_eq!(closes.recv().await.unwrap(), Some(close));
    }
    // A client that is gone without a word.
    drop(client.connect().await.unwrap());
    assert_eq!(closes.recv().await.unwrap().unwrap().code(), CloseCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_refuses_as_the_server_does_and_says_when_there_is_none() {
    let (upstream, _closes) = serve().await;
    let proxy = Program::start("proxy", &[&upstream]);
    let error = taut::connect(&proxy.url).await.unwrap_err();
    assert_eq!(error.status(), Some(401), "{error}");

    // Bound and not listening: nobody else can have the port, and nobody answers.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let proxy = Program::start("proxy", &[&format!("ws://{}/", silent.local_addr().unwrap())]);
    let error = taut::connect(&proxy.url).await.unwrap_err();
    assert_eq!(error.status(), Some(502), "{error}");

    // What `main` returns is printed as people read it.
    let output = Command::new(example("proxy")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.starts_with("Error: which server? Give its URL"), "{told}");
}

#[tokio::test]
async fn the_room_carries_a_line_to_everybody() {
    let room = Program::start("broadcast", &[]);
    let mut ada = taut::connect(&room.url).await.unwrap();
    let mut bob = taut::connect(&room.url).await.unwrap();
    bob.send("is anybody here?").await.unwrap();
    for socket in [&mut ada, &mut bob] {
        assert_eq!(socket.recv().await.unwrap(), Some("is anybody here?".into()));
    }
    ada.send(b"\x00").await.unwrap();
    assert_eq!(ada.recv().await.unwrap(), None);
    assert_eq!(ada.peer_close().map(|close| close.code()), Some(CloseCode::UNSUPPORTED));
    bob.send("still here").await.unwrap();
    assert_eq!(bob.recv().await.unwrap(), Some("still here".into()));
}

#[tokio::test]
async fn who_is_too_slow_for_the_room_misses_lines_and_is_told_how_many() {
    const LINES: usize = 512;
    let room = Program::start("broadcast", &[]);
    // With little room in the kernel, so that few lines fill it.
    let stream = TcpSocket::new_v4().unwrap();
    stream.set_recv_buffer_size(16 << 10).unwrap();
    let address = room.url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix('/')).expect("a URL");
    let stream = stream.connect(address.parse().unwrap()).await.unwrap();
    let mut slow = Client::new(&room.url).connect_over(stream).await.unwrap();
    let mut ada = taut::connect(&room.url).await.unwrap();

    let line = "x".repeat(64 << 10);
    for _ in 0..LINES {
        ada.send(&line).await.unwrap();
        // The others go on.
        assert_eq!(ada.recv().await.unwrap().map(|message| message.len()), Some(line.len()));
    }
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < LINES {
        let message = timeout(Duration::from_secs(10), slow.recv()).await.expect("it goes on").unwrap().expect("open");
        let text = message.into_text().unwrap();
        match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(" lines missed)")) {
            Some(count) => missed += count.parse::<usize>().unwrap(),
            None => heard += 1,
        }
    }
    assert!(missed > 0 && heard > 64 && heard + missed == LINES, "{heard} heard, {missed} missed");
}

/// An example's program, built if what is there is not of today; or one that has been built before all tests.
fn example(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("TAUT_EXAMPLES") {
        return PathBuf::from(folder).join(name);
    }
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).expect("target/debug/deps/…").to_owned();
    let release = profile.ends_with("release").then_some("--release");
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test of its package would make build scripts of dependencies run again.
    for (variable, _) in std::env::vars() {
        if variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(variable);
        }
    }
    cargo.args(["build", "--quiet", "--package", "taut", "--example", name]).args(release);
    assert!(cargo.status().unwrap().success(), "the example does not build");
    profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION)
}
