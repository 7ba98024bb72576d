//! One WebSocket in several tasks: what its handles can do, and a message in parts among others.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use taut::{Acceptor, Client, CloseCode, Message, Receiver, Sender, WebSocket};
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::time::timeout;

async fn pair() -> (WebSocket, WebSocket) {
    let (ours, theirs) = duplex(64 << 10);
    let client = Client::new("ws://a.example/");
    let (client, server) = tokio::join!(client.connect_over(ours), taut::accept_over(theirs));
    (client.unwrap(), server.unwrap())
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn every_handle_knows_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = Acceptor::new().subprotocols(["v1"]);
    let accept = async {
        let stream = listener.accept().await.unwrap().0;
        acceptor.accept(stream).await.unwrap().accept().await
    };
    let client = Client::new(&format!("ws://{address}/")).subprotocol("v1");
    let (client, server) = tokio::join!(client.connect(), accept);
    let (client, mut server) = (client.unwrap(), server.unwrap());
    assert!(client.is_open());

    let (sender, mut receiver) = client.split();
    for (subprotocol, peer, is_open) in [
        (sender.subprotocol(), sender.peer_addr(), sender.is_open()),
        (receiver.subprotocol(), receiver.peer_addr(), receiver.is_open()),
    ] {
        assert_eq!((subprotocol, peer, is_open), (Some("v1"), Some(address), true));
    }
    assert!(receiver.transport(|transport| transport.tcp().is_some()) && sender.transport(|_| true));
    assert_eq!((receiver.round_trip(), sender.round_trip()), (None, None));

    for message in ["lent", "in parts"] {
        server.send(message).await.unwrap();
    }
    assert_eq!(receiver.recv_with(|message| message.len()).await.unwrap(), Some(4));
    let mut message = receiver.recv_stream().await.unwrap().unwrap();
    assert!(message.is_text());
    assert_eq!(message.part().await.unwrap(), Some(b"in parts".to_vec()));
    assert_eq!(message.part().await.unwrap(), None);
    drop(message);

    let (end, message) = tokio::join!(server.close(CloseCode::new(4000)), receiver.recv_stream());
    end.unwrap();
    assert!(message.unwrap().is_none());
    for close in [sender.peer_close(), receiver.peer_close()] {
        assert_eq!(close.unwrap().code(), CloseCode::new(4000));
    }
    assert!(!sender.is_open() && !receiver.is_open());
}

#[tokio::test]
async fn whatever_is_text_or_bytes_can_be_sent() {
    let (mut client, mut server) = pair().await;
    let name = String::from("Ada");
    let shared: Arc<str> = Arc::from("all");
    client.send(&name).await.unwrap();
    client.send(b"bytes").await.unwrap();
    client.send([1, 2, 3]).await.unwrap();
    client.send(&shared).await.unwrap();
    client.send(std::borrow::Cow::Borrowed("cow")).await.unwrap();
    let received = server.recv().await.unwrap().unwrap();
    // What was received is sent back twice, and still there.
    server.send(&received).await.unwrap();
    server.try_send(&received).unwrap();
    assert_eq!(received.into_text().unwrap(), "Ada");
    for expected in [Message::from(b"bytes"), [1, 2, 3].into(), "all".into(), "cow".into()] {
        assert_eq!(server.recv().await.unwrap(), Some(expected));
    }
    for _ in 0..2 {
        assert_eq!(client.recv().await.unwrap(), Some(name.as_str().into()));
    }
}

// RFC 6455 §5.4: the fragments of one message must not be interleaved with those of another one.
#[tokio::test(start_paused = true)]
async fn what_others_send_waits_for_the_end_of_a_message_in_parts() {
    let (client, mut server) = pair().await;
    let (mut sender, _receiving) = client.split();
    let (other, mut another) = (sender.clone(), sender.clone());

    let mut message = sender.send_stream();
    message.write("one ").await.unwrap();
    let waiting = tokio::spawn(async move { other.send("whole").await });
    let streaming = tokio::spawn(async move {
        let mut message = another.send_stream();
        message.write("other ").await?;
        message.write("parts").await?;
        message.finish().await
    });
    // With the clock at rest this ends when nobody can go on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished() && !streaming.is_finished());
    message.write("message").await.unwrap();
    message.finish().await.unwrap();
    for sent in [waiting, streaming] {
        timeout(Duration::from_secs(1), sent).await.expect("its turn has come").unwrap().unwrap();
    }
    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(server.recv().await.unwrap().unwrap().into_text().unwrap());
    }
    assert_eq!(received[0], "one message");
    received.sort();
    assert_eq!(received, ["one message", "other parts", "whole"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_in_the_middle_of_a_message_in_parts() {
    let (client, mut server) = pair().await;
    let (mut sender, _receiver) = client.split();
    let other = sender.clone();
    let mut message = sender.send_binary_stream();
    other.try_send("before").unwrap();
    message.write([1]).await.unwrap();
    let error = other.try_send("x".repeat(10_000)).unwrap_err();
    assert!(error.is_full() && error.is_transient() && error.to_string().contains("in parts"), "{error}");
    message.write("2").await.unwrap();
    message.finish().await.unwrap();
    other.try_send("after").unwrap();
    for expected in [Message::from("before"), [1, b'2'].into(), "after".into()] {
        assert_eq!(server.recv().await.unwrap(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_message_that_is_abandoned_is_told_that_the_connection_is_closed() {
    let (client, _server) = pair().await;
    let (mut sender, _receiver) = client.split();
    let other = sender.clone();
    let mut message = sender.send_stream();
    message.write("half").await.unwrap();
    let waiting = tokio::spawn(async move { other.send("whole").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    drop(message);
    let sent = timeout(Duration::from_millis(1), waiting).await.expect("it is told at once").unwrap();
    assert!(sent.unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_part_that_waits_can_be_dropped_and_has_sent_nothing() {
    let (client, mut server) = pair().await;
    let (mut sender, _receiver): (Sender, Receiver) = client.split();
    let mut other = sender.clone();
    let mut first = sender.send_stream();
    first.write("first").await.unwrap();
    let mut second = other.send_stream();
    assert!(poll_once(std::pin::pin!(second.write("second"))).is_pending());
    // Of the second nothing was sent, so there is nothing to be ended.
    drop(second);
    first.finish().await.unwrap();
    other.send("whole").await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some("first".into()));
    assert_eq!(server.recv().await.unwrap(), Some("whole".into()));
}

// Who waits to write reads meanwhile: what came of a message that another task received in parts was thrown away.
#[tokio::test(start_paused = true)]
async fn a_message_in_parts_is_whole_while_another_task_waits_to_write() {
    let (client, server) = pair().await;
    let payload: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
    let ((mut to_server, mut from_server), (mut to_client, mut from_client)) = (client.split(), server.split());
    let send = async {
        let mut message = to_server.send_stream();
        for part in payload.chunks(50_000) {
            message.write(part).await?;
        }
        message.finish().await?;
        to_server.flush().await
    };
    let echo = async {
        let mut message = from_client.recv_stream().await?.expect("open");
        let mut copy = to_client.send_stream();
        while let Some(part) = message.part().await? {
            copy.write(part).await?;
        }
        copy.finish().await?;
        to_client.flush().await
    };
    let receive = async {
        let mut message = from_server.recv_stream().await?.expect("open");
        let mut received = Vec::new();
        while let Some(part) = message.part().await? {
            received.extend(part);
        }
        assert!(received == payload, "not what was sent");
        Ok(())
    };
    tokio::try_join!(send, echo, receive).unwrap();
}
