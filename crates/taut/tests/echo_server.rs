//! Against the shard's echo: messages of many sizes, with and without compression.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use taut::{Client, CloseCode, Deflate, Error, Message};
use taut_shard::{Drain, Drainer, Handler, Session, Settings, Shard};

struct Echo;

impl Handler for Echo {
    type User = ();
    type Mail = ();

    fn message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        let _ = session.send(message);
    }
}

/// A shard in a thread of its own, which ends with it.
struct Server {
    address: SocketAddr,
    drainer: Drainer,
    thread: Option<thread::JoinHandle<std::io::Result<()>>>,
}

impl Server {
    fn start(deflate: Option<Deflate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = Settings::default();
        settings.deflate = deflate;
        settings.outgoing = 32 << 20;
        let shard = Shard::new(listener, Echo, settings).unwrap();
        let drainer = shard.drainer();
        Self { address, drainer, thread: Some(thread::spawn(move || shard.run())) }
    }

    fn client(&self) -> Client {
        Client::new(&format!("ws://{}/", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drainer.drain(Drain {
            close: CloseCode::GOING_AWAY.into(),
            over: Duration::ZERO,
            deadline: Duration::from_secs(5),
        });
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it runs").expect("it did not panic").expect("it ended well");
        }
    }
}

/// The `index`th of the messages: text or bytes, of lengths on both sides of every border, some of which compress.
fn message(index: usize) -> Message<'static> {
    const LENGTHS: [usize; 14] = [0, 1, 2, 63, 64, 125, 126, 127, 1000, 4096, 16 << 10, 65_535, 65_536, 70_000];
    let length = if index == 500 { 1 << 20 } else { LENGTHS[index % LENGTHS.len()] };
    let mut state = index as u64 + 1;
    let noisy = index.is_multiple_of(3);
    let byte = move |at: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if noisy { (state >> 57) as u8 } else { b'a' + (at % 23) as u8 }
    };
    let bytes: Vec<u8> = (0..length).map(byte).collect();
    if index.is_multiple_of(2) { String::from_utf8(bytes).expect("seven bits").into() } else { bytes.into() }
}

/// Sends 1,000 messages, up to 8 ahead, and compares what comes back.
async fn echo(client: Client) -> Result<(), Error> {
    const COUNT: usize = 1000;
    const AHEAD: usize = 8;
    let mut socket = client.connect().await?;
    for index in 0..COUNT + AHEAD {
        if index < COUNT {
            socket.send(message(index)).await?;
        }
        if index >= AHEAD {
            assert_eq!(socket.recv().await?, Some(message(index - AHEAD)), "message {}", index - AHEAD);
        }
    }
    socket.close(CloseCode::NORMAL).await
}

fn takeover(takeover: bool) -> Deflate {
    let mut deflate = Deflate::standard();
    deflate.outgoing_takeover = takeover;
    deflate.incoming_takeover = takeover;
    deflate
}

#[tokio::test]
async fn a_thousand_messages_come_back_plain() {
    let server = Server::start(None);
    echo(server.client()).await.unwrap();
}

#[tokio::test]
async fn a_thousand_messages_come_back_deflated_without_takeover() {
    let server = Server::start(Some(takeover(false)));
    echo(server.client().deflate(takeover(false))).await.unwrap();
}

#[tokio::test]
async fn a_thousand_messages_come_back_deflated_with_takeover() {
    let server = Server::start(Some(takeover(true)));
    echo(server.client().deflate(takeover(true))).await.unwrap();
}

#[tokio::test]
async fn a_drained_server_says_that_it_goes_away() {
    let server = Server::start(None);
    let mut socket = server.client().connect().await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));
    let (received, ()) =
        tokio::join!(socket.recv(), async { tokio::task::spawn_blocking(move || drop(server)).await.unwrap() });
    assert_eq!(received.unwrap(), None);
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
}
