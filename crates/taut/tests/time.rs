//! Deadlines, on a clock that stands still until everybody waits.

use std::time::Duration;

use taut::{Client, Close, CloseCode, Error, Heartbeat, Message, Settings, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};

type Socket = WebSocket;

/// A client and a server over a pipe that holds `capacity` bytes each way.
async fn pair(client: &Client, capacity: usize) -> (Socket, Socket) {
    let (ours, theirs) = duplex(capacity);
    let (client, server) = tokio::join!(client.connect_over(ours), taut::accept_over(theirs));
    (client.expect("accepted"), server.expect("accepted"))
}

fn client() -> Client {
    Client::new("ws://server.example/")
}

/// A client whose peer is the test itself, which answers the handshake and then speaks bytes.
async fn with_bytes(client: &Client) -> (Socket, DuplexStream) {
    let (ours, mut theirs) = duplex(64 << 10);
    let (socket, ()) = tokio::join!(client.connect_over(ours), async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(theirs.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = taut_proto::handshake::accept_key(key);
        theirs.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n").await.unwrap();
        theirs.write_all(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ").await.unwrap();
        theirs.write_all(&accept).await.unwrap();
        // The first message comes in the same piece as the end of the handshake.
        theirs.write_all(b"\r\n\r\n\x81\x05first").await.unwrap();
    });
    let mut socket = socket.expect("accepted");
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("first")));
    (socket, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_then_given_up() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    let began = Instant::now();
    let error = socket.recv().await.unwrap_err();
    assert!(error.is_timeout() && error.close_code() == Some(CloseCode::ABNORMAL), "{error:?}");
    let waited = began.elapsed().as_secs_f32();
    assert!((38.0..42.1).contains(&waited), "{waited}");
    // A ping of 8 bytes, then the close frame, both masked; then nothing more.
    let mut written = vec![0; 6 + 8];
    peer.read_exact(&mut written).await.unwrap();
    assert_eq!(written[..2], [0x89, 0x88]);
    assert_eq!(peer.read_u8().await.unwrap(), 0x88);
    assert!(socket.recv().await.unwrap_err().is_timeout(), "the same again");
    assert!(socket.send("x").await.unwrap_err().is_timeout(), "and for who sends");
}

/// When a silent peer is pinged that answers each ping a tenth of a second later, in seconds.
async fn pings(mut socket: Socket, mut peer: DuplexStream, is_masked: bool) -> Vec<f32> {
    let began = Instant::now();
    let mut pings = Vec::new();
    let answering = async {
        loop {
            let mut ping = vec![0; if is_masked { 14 } else { 10 }];
            peer.read_exact(&mut ping).await.unwrap();
            assert_eq!(ping[0], 0x89);
            pings.push(began.elapsed().as_secs_f32());
            sleep(Duration::from_millis(100)).await;
            // With the mask that it came with, or with one of zeros.
            ping[0] = 0x8a;
            if is_masked {
                let (head, payload) = ping.split_at_mut(6);
                payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
                ping.drain(2..6);
                ping[1] = 8;
            } else {
                ping[1] = 0x88;
                ping.splice(2..2, [0; 4]);
            }
            peer.write_all(&ping).await.unwrap();
        }
    };
    let _ = timeout(Duration::from_secs(200), async { tokio::join!(answering, socket.recv()) }).await;
    assert!(socket.round_trip().is_some());
    pings
}

// The period became the timeout where that was longer: 25 and 30 seconds were a ping every 30.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_answers_is_pinged_once_an_interval_whatever_the_timeout() {
    for (interval, wait) in [(2.0_f32, 6), (6.0, 2), (4.0, 4), (25.0, 30), (1.0, 60)] {
        let heartbeat = Heartbeat { interval: Duration::from_secs_f32(interval), timeout: Duration::from_secs(wait) };
        let mut settings = Settings::client();
        settings.heartbeat = heartbeat;
        let (socket, peer) = with_bytes(&client().settings(settings)).await;
        let of_client = pings(socket, peer, true).await;

        let (mut peer, theirs) = duplex(4096);
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n").await.unwrap();
        peer.write_all(b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            .await
            .unwrap();
        let mut settings = Settings::server();
        settings.heartbeat = heartbeat;
        let incoming = taut::Acceptor::new().settings(settings).accept_over(theirs).await.unwrap();
        let socket = incoming.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(peer.read_u8().await.unwrap());
        }
        let of_server = pings(socket, peer, false).await;

        for pings in [of_client, of_server] {
            let periods: Vec<f32> = pings.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let range = interval * 0.9..interval * 1.1 + 0.12;
            assert!(periods.len() >= 5, "{interval}/{wait}: {pings:?}");
            assert!(periods.iter().all(|period| range.contains(period)), "{interval}/{wait}: {periods:?}");
        }
    }
}

// In the middle of a frame no pong can come, so a byte is life: what bounds it is the message's own deadline.
#[tokio::test(start_paused = true)]
async fn a_message_of_one_byte_a_second_is_given_up_and_its_sender_told() {
    for in_parts in [false, true] {
        let (mut socket, mut peer) = with_bytes(&client()).await;
        let began = Instant::now();
        peer.write_all(b"\x02\x7e\xff\xff").await.unwrap();
        let (ended, closed) = tokio::join!(
            async {
                let error = if in_parts {
                    let mut message = socket.recv_stream().await.unwrap().unwrap();
                    loop {
                        if let Err(error) = message.part().await {
                            break error;
                        }
                    }
                } else {
                    socket.recv().await.unwrap_err()
                };
                (error, began.elapsed().as_secs())
            },
            async {
                let mut said = Vec::new();
                loop {
                    // What it says meanwhile are pings, then the close frame; it goes on to send.
                    while let Ok(read) = timeout(Duration::from_millis(1), peer.read_u8()).await {
                        match read {
                            Ok(byte) => said.push(byte),
                            Err(_) => return said,
                        }
                    }
                    sleep(Duration::from_secs(1)).await;
                    if peer.write_all(b"x").await.is_err() {
                        return said;
                    }
                    if said.windows(2).any(|bytes| bytes[0] == 0x88 && bytes[1] & 0x80 != 0) {
                        return said;
                    }
                }
            }
        );
        let (error, seconds) = ended;
        assert!(error.is_timeout() && error.close_code() == Some(CloseCode::POLICY), "{error:?}");
        assert!(error.to_string().contains("message_timeout"), "{error}");
        assert!((60..=66).contains(&seconds), "{seconds}");
        assert!(closed.contains(&0x88));
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_message_at_a_decent_pace_takes_as_long_as_it_takes() {
    let (mut client, mut server) = pair(&client(), 64 << 10).await;
    let half_an_hour = streamed(&mut client, &mut server, 90, 6 << 10, Duration::from_secs(20), Duration::ZERO);
    assert_eq!(half_an_hour.await, 90 * (6 << 10));
}

/// Sends a message of so many pieces, and pauses after each that is sent and after each part that is received. Gives
/// how many bytes came.
async fn streamed(
    client: &mut Socket,
    server: &mut Socket,
    pieces: usize,
    size: usize,
    sending: Duration,
    receiving: Duration,
) -> usize {
    let (sent, received) = tokio::join!(
        async {
            let mut message = client.send_stream();
            for _ in 0..pieces {
                message.write(vec![1; size]).await?;
                sleep(sending).await;
            }
            message.finish().await?;
            client.flush().await
        },
        async {
            let mut message = server.recv_stream().await?.unwrap();
            let mut bytes = 0;
            while let Some(part) = message.part().await? {
                bytes += part.len();
                sleep(receiving).await;
            }
            Ok::<_, Error>(bytes)
        }
    );
    sent.unwrap();
    received.unwrap()
}

// Who takes its time to receive must not be taken for a peer that takes its time to send.
#[tokio::test(start_paused = true)]
async fn an_application_that_takes_its_time_over_the_parts_of_a_message_gets_them_all() {
    let mut settings = Settings::client();
    settings.heartbeat = Heartbeat::off();
    let (mut client, mut server) = pair(&client().settings(settings), 64 << 10).await;
    let received = streamed(&mut client, &mut server, 40, 32 << 10, Duration::ZERO, Duration::from_secs(100));
    assert_eq!(received.await, 40 * (32 << 10));
}

#[tokio::test(start_paused = true)]
async fn two_idle_ends_that_are_polled_keep_each_other_alive_for_ever() {
    let (mut client, mut server) = pair(&client(), 4096).await;
    let idle = Duration::from_secs(3600);
    let (a, b) = tokio::join!(timeout(idle, client.recv()), timeout(idle, server.recv()));
    assert!(a.is_err() && b.is_err(), "nothing came and nothing broke");
    assert!(client.round_trip().is_some() || server.round_trip().is_some());
    client.send("still here").await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("still here")));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_spoke_while_nobody_polled_is_alive() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    // The ping goes out; then the application is elsewhere for a minute, while the pong arrives.
    assert!(timeout(Duration::from_secs(25), socket.recv()).await.is_err());
    let mut ping = [0; 14];
    peer.read_exact(&mut ping).await.unwrap();
    peer.write_all(b"\x8a\x00\x81\x02ok").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("ok")));
}

#[tokio::test(start_paused = true)]
async fn without_a_heartbeat_silence_is_no_reason_to_give_up() {
    let mut settings = Settings::client();
    settings.heartbeat = Heartbeat::off();
    let (mut socket, _peer) = with_bytes(&client().settings(settings)).await;
    assert!(timeout(Duration::from_secs(86_400), socket.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_ends_at_the_deadline() {
    let (mut socket, _peer) = with_bytes(&client()).await;
    let began = Instant::now();
    // Dropped twice on the way: the deadline stays where it was.
    for _ in 0..2 {
        assert!(timeout(Duration::from_secs(2), socket.close(CloseCode::NORMAL)).await.is_err());
    }
    let error = socket.close(CloseCode::NORMAL).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 5);
}

// RFC 6455 §7.1.1: a client waits for the server to end the TCP connection, but not for ever.
#[tokio::test(start_paused = true)]
async fn a_server_that_closes_but_stays_connected_is_left_after_the_deadline() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x88\x02\x03\xe9").await.unwrap();
    let began = Instant::now();
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::GOING_AWAY));
}

// RFC 6455 §7.1.1: the server ends the TCP connection first, so that TIME_WAIT is on its side.
#[tokio::test(start_paused = true)]
async fn a_client_does_not_end_the_tcp_connection_before_the_server_does() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    let (closed, ()) = tokio::join!(socket.close(CloseCode::NORMAL), async {
        let mut close = [0; 8];
        peer.read_exact(&mut close).await.unwrap();
        let nothing = timeout(Duration::from_secs(4), peer.read_u8()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        peer.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut close).await.unwrap(), 0, "and now it does");
    });
    closed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_shuts_its_side_and_reads_to_the_end() {
    for delay in [0, 3, 60] {
        let (mut peer, theirs) = duplex(4096);
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n").await.unwrap();
        peer.write_all(b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            .await
            .unwrap();
        peer.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
        let mut socket = taut::accept_over(theirs).await.unwrap();
        let began = Instant::now();
        let (received, ()) = tokio::join!(
            async {
                let received = socket.recv().await;
                (received, began.elapsed().as_secs())
            },
            async {
                let mut answer = Vec::new();
                peer.read_to_end(&mut answer).await.unwrap();
                assert!(answer.ends_with(b"\r\n\r\n\x88\x02\x03\xe8"));
                assert_eq!(began.elapsed(), Duration::ZERO);
                // What still comes is read and thrown away.
                timeout(Duration::from_secs(90), peer.write_all(&[0; 10_000])).await.expect("it is read").unwrap();
                sleep(Duration::from_secs(delay)).await;
                drop(peer);
            }
        );
        assert_eq!(received.0.unwrap(), None);
        assert_eq!(received.1, delay.min(5), "no longer than the close timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pong_does_not_wait_for_an_application_that_takes_its_time() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x81\x01a\x81\x01b\x89\x00").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("a")));
    // The application is busy with the first of two messages.
    let mut pong = [0; 6];
    timeout(Duration::from_secs(1), peer.read_exact(&mut pong)).await.expect("it was written").unwrap();
    assert_eq!(pong[..2], [0x8a, 0x80]);
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("b")));
}

#[tokio::test(start_paused = true)]
async fn a_clean_close_is_a_value_on_both_ends_and_takes_no_time() {
    let (mut client, mut server) = pair(&client(), 64).await;
    let began = Instant::now();
    client.send("last words").await.unwrap();
    let bye = Close::new(CloseCode::new(4001), "bye");
    let (closed, received) = tokio::join!(client.close(bye.clone()), async {
        let received = server.recv().await?;
        assert_eq!(server.recv().await?, None);
        assert_eq!(server.recv().await?, None, "and None it stays");
        Ok::<_, Error>(received)
    });
    closed.unwrap();
    assert_eq!(received.unwrap(), Some(Message::from("last words")));
    assert_eq!(server.peer_close(), Some(bye));
    client.close(CloseCode::NORMAL).await.expect("once more changes nothing");
    assert!(client.send("x").await.unwrap_err().is_closed());
    assert!(server.try_send("x").unwrap_err().is_closed());
    assert!(server.ping(b"x").await.unwrap_err().is_closed());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn both_sides_may_close_at_once() {
    let (mut client, mut server) = pair(&client(), 4096).await;
    let (a, b) = tokio::join!(client.close(CloseCode::NORMAL), server.close(CloseCode::GOING_AWAY));
    a.unwrap();
    b.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_both_write_before_they_read_do_not_wait_for_each_other() {
    let (mut client, mut server) = pair(&client(), 4096).await;
    // As much as the outbox and the peer's inbox take, which is far more than the pipe does.
    const MESSAGES: usize = 30;
    async fn write_then_read(socket: &mut Socket) -> Result<(), Error> {
        let payload = vec![7; 64 << 10];
        for _ in 0..MESSAGES {
            socket.send(&payload[..]).await?;
        }
        for _ in 0..MESSAGES {
            assert_eq!(socket.recv().await?, Some(Message::from(&payload[..])));
        }
        socket.flush().await
    }
    let began = Instant::now();
    let (a, b) = tokio::join!(write_then_read(&mut client), write_then_read(&mut server));
    a.unwrap();
    b.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_never_read_are_told_so_and_may_go_on() {
    let (mut client, mut server) = pair(&client(), 4096).await;
    async fn flood(socket: &mut Socket) -> (usize, Error) {
        let mut sent = 0;
        loop {
            match socket.send(vec![7; 64 << 10]).await {
                Ok(()) => sent += 1,
                Err(error) => return (sent, error),
            }
        }
    }
    let began = Instant::now();
    let ((up, error), (down, _)) = tokio::join!(flood(&mut client), flood(&mut server));
    assert!(error.is_timeout() && error.to_string().contains("call recv"), "{error}");
    assert!((20..=40).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    // What the two hold between them: an outbox and an inbox of 1 MiB each way.
    assert!((32..40).contains(&up) && (32..40).contains(&down), "{up} {down}");
    let read = async |socket: &mut Socket, count: usize| {
        for _ in 0..count {
            assert!(socket.recv().await.unwrap().is_some());
        }
        socket.flush().await.unwrap();
    };
    tokio::join!(read(&mut client, down), read(&mut server, up));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_makes_try_send_full_and_send_wait() {
    let (mut client, mut server) = pair(&client(), 4096).await;
    let mut sent = 0;
    while client.try_send(vec![1; 64 << 10]).is_ok() {
        sent += 1;
    }
    assert!((16..=18).contains(&sent), "{sent}");
    assert!(client.try_send("x").unwrap_err().is_full());
    assert!((1 << 20..1 << 21).contains(&client.pending()));
    assert!(timeout(Duration::from_secs(5), client.send("dropped")).await.is_err());
    let (last, ()) = tokio::join!(
        async {
            client.send("accepted").await?;
            client.flush().await
        },
        async {
            for _ in 0..sent {
                assert_eq!(server.recv().await.unwrap().unwrap().as_bytes().len(), 64 << 10);
            }
            assert_eq!(server.recv().await.unwrap(), Some(Message::from("accepted")), "the dropped one was not sent");
        }
    );
    last.unwrap();
    assert_eq!(client.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn recv_writes_what_is_pending_before_it_waits() {
    let (mut client, mut server) = pair(&client(), 256).await;
    client.try_send(vec![1; 10_000]).unwrap();
    assert!(client.pending() > 9000);
    let (_, message) = tokio::join!(timeout(Duration::from_secs(1), client.recv()), server.recv());
    assert_eq!(message.unwrap().unwrap().as_bytes().len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_sending_and_by_recv_alone() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x89\x02hi").await.unwrap();
    assert!(timeout(Duration::from_secs(1), socket.recv()).await.is_err());
    let mut pong = [0; 8];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong[..2], [0x8a, 0x82]);
    socket.ping(b"yo").await.unwrap();
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong[..2], [0x89, 0x82]);
    assert!(socket.ping(&[0; 126]).await.unwrap_err().is_invalid());
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_violation_or_an_end_is_received_first() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x81\x01a\x81\x01b\xff\x00").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("a")));
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("b")));
    drop(tokio::spawn(async move {
        let mut rest = Vec::new();
        // Masked: a close frame of some length; then the peer leaves.
        peer.read_buf(&mut rest).await.unwrap();
        assert_eq!(rest[0], 0x88);
    }));
    let error = socket.recv().await.unwrap_err();
    assert!(error.is_protocol() && error.close_code() == Some(CloseCode::PROTOCOL_ERROR), "{error:?}");

    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x81\x01a\x81\x05cut").await.unwrap();
    drop(peer);
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("a")));
    let error = socket.recv().await.unwrap_err();
    assert!(error.is_io() && error.close_code() == Some(CloseCode::ABNORMAL), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_arrived_is_told_although_writing_failed_first() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    peer.write_all(b"\x88\x02\x03\xf0").await.unwrap();
    drop(peer);
    // The pipe is broken for writing; what the peer said is still in it.
    socket.try_send("too late").unwrap();
    assert!(socket.try_send("later still").unwrap_err().is_io());
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::POLICY));
}

#[tokio::test(start_paused = true)]
async fn a_code_that_must_not_be_sent_is_refused() {
    let (mut client, _server) = pair(&client(), 4096).await;
    let error = client.close(CloseCode::ABNORMAL).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("1006"), "{error}");
    client.send("it goes on").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_the_handshake_is_left_after_ten_seconds() {
    let (ours, _theirs) = duplex(4096);
    let began = Instant::now();
    let error = client().connect_over(ours).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("10s"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 10);

    let (ours, _theirs) = duplex(4096);
    let error = client().connect_timeout(Duration::from_millis(300)).connect_over(ours).await.unwrap_err();
    assert!(error.is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_handshake_is_told_408() {
    let (mut ours, theirs) = duplex(4096);
    ours.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let (result, answer) = tokio::join!(taut::accept_over(theirs), async {
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        drop(ours);
        answer
    });
    assert!(result.unwrap_err().is_timeout());
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

// RFC 6455 §5.5.1: who has received a close frame may answer what came before it, then sends its own.
#[tokio::test(start_paused = true)]
async fn what_came_in_one_read_with_the_end_can_still_be_answered() {
    for (end, expected) in [(&b"\x88\x02\x03\xe8"[..], b"\x88\x02\x03\xe8"), (b"\x83\x00", b"\x88\x02\x03\xea")] {
        let (mut socket, mut peer) = with_bytes(&client()).await;
        peer.write_all(&[b"\x81\x01a\x81\x01b", end].concat()).await.unwrap();
        for text in ["a", "b"] {
            assert_eq!(socket.recv().await.unwrap(), Some(Message::from(text)));
            socket.send(text).await.unwrap();
        }
        let (ended, frames) = tokio::join!(socket.recv(), async {
            let mut frames = [0; 22];
            peer.read_exact(&mut frames).await.unwrap();
            drop(peer);
            frames
        });
        assert_eq!(ended.is_ok(), end[0] == 0x88);
        assert_eq!([frames[0], frames[7], frames[14]], [0x81, 0x81, 0x88]);
        let code: Vec<u8> = frames[20..].iter().zip(&frames[16..]).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(code, expected[2..]);
        assert!(socket.send("late").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_can_be_lent_in_place_of_given() {
    let (mut socket, mut peer) = with_bytes(&client()).await;
    assert!(timeout(Duration::from_secs(1), socket.recv_with(|_| ())).await.is_err(), "dropped, it has taken nothing");
    peer.write_all(b"\x81\x01a\x82\x02bc\x81\x03def\x88\x02\x03\xe8").await.unwrap();
    let mut lengths = Vec::new();
    while lengths.len() < 3 {
        lengths.extend(socket.recv_with(|message| message.as_bytes().len()).await.unwrap());
    }
    assert_eq!(lengths, [1, 2, 3]);
    drop(peer);
    assert_eq!(socket.recv_with(|_| ()).await.unwrap(), None);
}
