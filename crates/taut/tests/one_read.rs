//! Several messages in one read, of which a handler takes one after the other: what lies behind the one it has does not
//! wait for it, and is lost nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use taut::{CloseCode, Error, Incoming, Message, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::timeout;

/// A server whose handler gets the connection, and a client of which the test writes the bytes itself.
async fn serve<F>(handler: impl Fn(WebSocket) -> F + Clone + Send + Sync + 'static) -> TcpStream
where
    F: Future<Output = Result<(), Error>> + Send,
{
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serving = server.serve(move |incoming: Incoming| {
        let handler = handler.clone();
        async move { handler(incoming.accept().await?).await }
    });
    tokio::spawn(serving.into_future());
    open(address).await
}

async fn open(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}

/// Frames of a client whose mask is zeros: header byte and payload.
fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let frame = |&(first, payload): &(u8, &[u8])| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    frames.iter().flat_map(frame).collect()
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    timeout(Duration::from_secs(10), stream.read_exact(&mut read)).await.expect("it was written").unwrap();
    assert_eq!(read, bytes);
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

#[tokio::test]
async fn a_pong_does_not_wait_for_a_handler_that_takes_its_time() {
    let go_on = Arc::new(Notify::new());
    let told = Arc::clone(&go_on);
    let mut peer = serve(move |mut socket| {
        let told = Arc::clone(&told);
        async move {
            assert_eq!(socket.recv().await?, Some(Message::from("a")));
            told.notified().await;
            assert_eq!(socket.recv().await?, Some(Message::from("b")));
            socket.send("c").await
        }
    })
    .await;
    peer.write_all(&frames(&[(TEXT, b"a"), (TEXT, b"b"), (PING, b"p")])).await.unwrap();
    expect(&mut peer, b"\x8a\x01p").await;
    go_on.notify_one();
    expect(&mut peer, b"\x81\x01c\x88\x02\x03\xe8").await;
}

// RFC 6455 §5.5.1: the answer to a close frame may wait until what is being sent is sent.
#[tokio::test]
async fn a_message_before_the_end_can_be_answered_in_a_later_poll() {
    for end in [(CLOSE, &b"\x03\xe8"[..]), (0x8f, &b"no such opcode"[..])] {
        let mut peer = serve(|mut socket| async move {
            assert_eq!(socket.recv().await?, Some(Message::from("a")));
            for _ in 0..10 {
                yield_now().await;
            }
            socket.send("answer").await?;
            socket.flush().await?;
            yield_now().await;
            socket.send("and another").await?;
            socket.recv().await.map(|end| assert_eq!(end, None))
        })
        .await;
        peer.write_all(&frames(&[(TEXT, b"a"), end])).await.unwrap();
        expect(&mut peer, b"\x81\x06answer\x81\x0band another\x88").await;
    }
}

#[tokio::test]
async fn whoever_the_socket_is_given_to_receives_the_rest() {
    let (seen, mut all) = mpsc::unbounded_channel();
    let mut peer = serve(move |mut socket| {
        let seen = seen.clone();
        async move {
            seen.send(socket.recv().await?).unwrap();
            let task = tokio::spawn(async move {
                while let Some(message) = socket.recv().await? {
                    seen.send(Some(message)).unwrap();
                }
                Ok(())
            });
            task.await.unwrap()
        }
    })
    .await;
    peer.write_all(&frames(&[(TEXT, b"a"), (TEXT, b"b"), (PING, b""), (TEXT, b"c")])).await.unwrap();
    for expected in ["a", "b", "c"] {
        assert_eq!(all.recv().await.unwrap(), Some(Message::from(expected)));
    }
    expect(&mut peer, b"\x8a\x00").await;
}

#[tokio::test]
async fn a_message_behind_one_that_was_received_whole_may_be_received_in_parts() {
    let mut peer = serve(|mut socket| async move {
        for _ in 0..2 {
            assert_eq!(socket.recv().await?, Some(Message::from("whole")));
            let Some(mut message) = socket.recv_stream().await? else { panic!("it was sent") };
            let mut received = Vec::new();
            while let Some(part) = message.part().await? {
                received.extend(part);
                // The rest of the read is put away meanwhile.
                yield_now().await;
            }
            assert_eq!(received, b"in three parts");
        }
        socket.close(CloseCode::GOING_AWAY).await
    })
    .await;
    let read = [(TEXT, &b"whole"[..]), (0x01, b"in "), (0x00, b"three "), (0x80, b"parts")];
    peer.write_all(&frames(&read).repeat(2)).await.unwrap();
    expect(&mut peer, b"\x88\x02\x03\xe9").await;
}

// RFC 6455 §5.5.1: the peer's close frame came first, so its code is the one that is echoed.
#[tokio::test]
async fn whoever_closes_learns_that_the_peer_has_done_so_already() {
    let mut peer = serve(|mut socket| async move {
        assert_eq!(socket.recv().await?, Some(Message::from("a")));
        socket.close(CloseCode::GOING_AWAY).await?;
        assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::NORMAL));
        Ok(())
    })
    .await;
    peer.write_all(&frames(&[(TEXT, b"a"), (CLOSE, b"\x03\xe8")])).await.unwrap();
    expect(&mut peer, b"\x88\x02\x03\xe8").await;
}

#[tokio::test]
async fn a_split_connection_takes_one_read_apart_for_all_of_its_handles() {
    let mut peer = serve(|socket| async move {
        let (sender, mut receiver) = socket.split();
        let mut echoes = Vec::new();
        while let Some(message) = receiver.recv().await? {
            let sender = sender.clone();
            // From another task, and so outside of the cork.
            echoes.push(tokio::spawn(async move { sender.send(message).await }));
            if echoes.len() % 3 == 0 {
                yield_now().await;
            }
        }
        Ok(())
    })
    .await;
    for _ in 0..100 {
        peer.write_all(&frames(&[(TEXT, b"x")]).repeat(10)).await.unwrap();
        expect(&mut peer, &b"\x81\x01x".repeat(10)).await;
    }
}
