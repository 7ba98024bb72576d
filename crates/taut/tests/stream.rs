//! `Stream` and `Sink`, driven by what is written against them. Real sockets.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Sink, SinkExt, Stream, StreamExt, TryStreamExt, stream};
use taut::{CloseCode, Error, Message, WebSocket};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// A client and its server.
async fn pair() -> (WebSocket, WebSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let accept = async { taut::accept(listener.accept().await.unwrap().0).await };
    let (client, server) = tokio::join!(taut::connect(&url), accept);
    (client.unwrap(), server.unwrap())
}

fn messages(count: usize) -> impl Iterator<Item = Message<'static>> {
    (0..count).map(|index| Message::from(format!("{index}: {}", "x".repeat(index * 37 % 9_000))))
}

#[tokio::test]
async fn an_echo_by_forward_gives_everything_back_and_closes() {
    let (client, server) = pair().await;
    let echo = tokio::spawn(async move {
        let (sink, stream) = server.split();
        stream.forward(sink).await
    });
    let (mut sender, mut receiver) = client.split();
    let mut outgoing = stream::iter(messages(1000).map(Ok));
    let (sending, echoed) =
        tokio::join!(sender.send_all(&mut outgoing), receiver.by_ref().take(1000).try_collect::<Vec<_>>());
    sending.unwrap();
    assert!(echoed.unwrap().into_iter().eq(messages(1000)));
    SinkExt::close(&mut sender).await.unwrap();
    assert!(receiver.next().await.is_none());
    echo.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_whole_websocket_is_a_stream_and_a_sink_too() {
    let (mut client, mut server) = pair().await;
    let talk = async {
        for message in messages(100) {
            SinkExt::send(&mut client, message.clone()).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), message);
        }
        SinkExt::close(&mut client).await.unwrap();
        assert!(client.next().await.is_none());
    };
    let echo = async {
        while let Some(message) = server.try_next().await.unwrap() {
            SinkExt::send(&mut server, message).await.unwrap();
        }
    };
    tokio::join!(talk, echo);
    assert_eq!(server.peer_close().map(|close| close.code()), Some(CloseCode::NORMAL));
}

/// The other crate's split: two tasks poll what is one WebSocket to us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_that_were_cut_by_others_do_not_take_each_others_wake_ups() {
    // Large ones, so that writing has to wait and looks for something to read meanwhile.
    const COUNT: usize = 300;
    const LENGTH: usize = 100_000;
    let ends = FuturesUnordered::new();
    let (client, server) = pair().await;
    for socket in [client, server] {
        let (mut sink, stream) = StreamExt::split(socket);
        ends.push(tokio::spawn(async move {
            for index in 0..COUNT {
                sink.send(Message::from(vec![index as u8; LENGTH])).await?;
            }
            Ok::<_, Error>(COUNT)
        }));
        ends.push(tokio::spawn(async move {
            let mut received = stream.take(COUNT).enumerate();
            while let Some((index, message)) = received.next().await {
                assert_eq!(message?.as_bytes(), vec![index as u8; LENGTH]);
            }
            Ok(COUNT)
        }));
    }
    let all = timeout(Duration::from_secs(60), ends.collect::<Vec<_>>()).await.expect("nobody sleeps for ever");
    for count in all {
        assert_eq!(count.unwrap().unwrap(), COUNT);
    }
}

#[tokio::test]
async fn a_sink_is_full_until_the_peer_reads_and_takes_a_message_whole_or_not() {
    let (mut client, mut server) = pair().await;
    let mut accepted = 0_usize;
    let is_ready = |client: &mut WebSocket| {
        let cx = &mut Context::from_waker(Waker::noop());
        matches!(Pin::new(client).poll_ready(cx), Poll::Ready(Ok(())))
    };
    while is_ready(&mut client) {
        Pin::new(&mut client).start_send(Message::from(vec![accepted as u8; 100_000])).unwrap();
        accepted += 1;
        assert!(accepted < 10_000, "it is never full");
    }
    assert!(client.pending() >= 1 << 20);
    let read = tokio::spawn(async move {
        for index in 0..=accepted {
            assert_eq!(server.next().await.unwrap().unwrap().as_bytes(), vec![index as u8; 100_000]);
        }
        server
    });
    // Ready again, and nothing that was accepted is lost or cut.
    SinkExt::send(&mut client, Message::from(vec![accepted as u8; 100_000])).await.unwrap();
    drop(read.await.unwrap());
}

#[tokio::test]
async fn what_is_fed_waits_for_the_flush() {
    let (mut client, mut server) = pair().await;
    SinkExt::feed(&mut client, Message::from("one")).await.unwrap();
    SinkExt::feed(&mut client, Message::from("two")).await.unwrap();
    assert_eq!(client.pending(), 2 * (2 + 4 + 3));
    SinkExt::flush(&mut client).await.unwrap();
    assert_eq!(client.pending(), 0);
    assert_eq!(server.next().await.unwrap().unwrap(), Message::from("one"));
    assert_eq!(server.next().await.unwrap().unwrap(), Message::from("two"));
}

#[tokio::test]
async fn a_failed_stream_ends_after_its_error_and_a_closed_sink_takes_nothing() {
    let (mut client, server) = pair().await;
    drop(server);
    assert_eq!(client.next().await.unwrap().unwrap_err().close_code(), Some(CloseCode::ABNORMAL));
    assert!(client.next().await.is_none());
    assert!(client.recv().await.is_err(), "the method goes on telling");
    assert!(Pin::new(&mut client).start_send(Message::from("x")).is_err());

    let (client, server) = pair().await;
    drop(server);
    let (mut sender, mut receiver) = client.split();
    assert!(receiver.next().await.unwrap().is_err());
    assert!(receiver.next().await.is_none());
    assert!(SinkExt::send(&mut sender, Message::from("x")).await.is_err());
    assert_eq!(sender.pending(), 0);
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let (mut client, mut server) = pair().await;
    let mut seen = 0;
    let send = async {
        for message in messages(200) {
            SinkExt::send(&mut client, message).await.unwrap();
            tokio::task::yield_now().await;
        }
        SinkExt::close(&mut client).await.unwrap();
    };
    let receive = async {
        let mut expected = messages(200);
        loop {
            // A future that is dropped after one poll, over and over.
            let polled = Pin::new(&mut server).poll_next(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(Some(message)) => {
                    assert_eq!(Some(message.unwrap()), expected.next());
                    seen += 1;
                }
                Poll::Ready(None) => break,
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
    };
    tokio::join!(send, receive);
    assert_eq!(seen, 200);
}
