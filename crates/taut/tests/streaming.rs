//! Messages as streams of parts, and what becomes of one that is left off.

use std::time::Duration;

use taut::{Client, CloseCode, Error, Message, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

async fn pair(capacity: usize) -> (WebSocket, WebSocket) {
    let (ours, theirs) = duplex(capacity);
    let client = Client::new("ws://a.example/");
    let (client, server) = tokio::join!(client.connect_over(ours), taut::accept_over(theirs));
    (client.unwrap(), server.unwrap())
}

async fn read(socket: &mut WebSocket) -> Result<Option<(bool, usize, Vec<u8>)>, Error> {
    let Some(mut message) = socket.recv_stream().await? else { return Ok(None) };
    let (mut parts, mut bytes) = (0, Vec::new());
    while let Some(part) = message.part().await? {
        parts += 1;
        bytes.extend(part);
    }
    Ok(Some((message.is_text(), parts, bytes)))
}

#[tokio::test(start_paused = true)]
async fn a_message_of_four_times_the_limit_passes_as_a_stream() {
    const PIECES: usize = 64;
    let (mut client, mut server) = pair(64 << 10).await;
    let (sent, received) = tokio::join!(
        async {
            let mut message = client.send_stream();
            for number in 0..PIECES {
                message.write(vec![number as u8; 64 << 10]).await?;
            }
            message.finish().await?;
            client.send("after").await?;
            client.flush().await
        },
        read(&mut server)
    );
    sent.unwrap();
    let (is_text, parts, bytes) = received.unwrap().unwrap();
    assert!(!is_text && parts >= PIECES);
    assert_eq!(bytes.len(), 4 << 20);
    assert!(bytes.chunks(64 << 10).enumerate().all(|(number, piece)| piece.iter().all(|&byte| byte == number as u8)));
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("after")));
}

#[tokio::test(start_paused = true)]
async fn text_is_cut_between_characters() {
    let (mut client, mut server) = pair(4096).await;
    let text = "a世".repeat(50_000);
    let (sent, received) = tokio::join!(
        async {
            let mut message = client.send_stream();
            message.write(&*text).await?;
            assert!(message.write(&b"bytes"[..]).await.unwrap_err().is_invalid());
            message.finish().await?;
            client.flush().await
        },
        read(&mut server)
    );
    sent.unwrap();
    let (is_text, _, bytes) = received.unwrap().unwrap();
    assert!(is_text && bytes == text.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn whole_messages_are_streams_of_one_part() {
    let (mut client, mut server) = pair(4096).await;
    for message in ["one", "", "three"] {
        client.send(message).await.unwrap();
    }
    client.flush().await.unwrap();
    assert_eq!(read(&mut server).await.unwrap(), Some((true, 1, b"one".to_vec())));
    assert_eq!(read(&mut server).await.unwrap(), Some((true, 0, Vec::new())));
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("three")));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_dropped_loses_its_own_message_and_no_other() {
    let (mut client, mut server) = pair(4096).await;
    let writing = tokio::spawn(async move {
        for _ in 0..2 {
            let mut message = client.send_stream();
            for _ in 0..100 {
                message.write(vec![7; 1000]).await?;
            }
            message.finish().await?;
        }
        client.send("after").await?;
        client.flush().await?;
        Ok::<_, Error>(client)
    });
    let mut message = server.recv_stream().await.unwrap().unwrap();
    assert!(message.part().await.unwrap().is_some());
    drop(message);
    // The next stream is the next message, not the rest of the first.
    let (_, _, bytes) = read(&mut server).await.unwrap().unwrap();
    assert_eq!(bytes.len(), 100_000);
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("after")));
    let _client = writing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_waited_for_can_be_dropped() {
    let (mut client, mut server) = pair(4096).await;
    let mut message = client.send_stream();
    message.write("begin").await.unwrap();
    let mut reader = server.recv_stream().await.unwrap().unwrap();
    assert_eq!(reader.part().await.unwrap().unwrap(), b"begin");
    assert!(timeout(Duration::from_millis(10), reader.part()).await.is_err());
    message.write(" and end").await.unwrap();
    message.finish().await.unwrap();
    assert_eq!(reader.part().await.unwrap().unwrap(), b" and end");
    assert_eq!(reader.part().await.unwrap(), None);
    assert_eq!(reader.part().await.unwrap(), None, "and None it stays");
}

#[tokio::test(start_paused = true)]
async fn half_a_message_closes_the_connection() {
    let (mut client, mut server) = pair(4096).await;
    let mut message = client.send_stream();
    message.write("half a mess").await.unwrap();
    drop(message);
    assert!(client.send("x").await.unwrap_err().is_closed());
    let (closed, received) = tokio::join!(client.close(CloseCode::NORMAL), server.recv());
    closed.unwrap();
    let error = received.expect_err("half of it is not taken for the whole, nor for nothing");
    assert!(error.is_cut_off() && error.close_code() == Some(CloseCode::INTERNAL_ERROR), "{error:?}");
    assert_eq!(server.peer_close().unwrap().code(), CloseCode::INTERNAL_ERROR);
}

/// A client and the bytes that its server says.
async fn told(bytes: &[u8]) -> (WebSocket, DuplexStream) {
    let (ours, mut theirs) = duplex(1 << 20);
    let client = Client::new("ws://a.example/");
    let (socket, ()) = tokio::join!(client.connect_over(ours), async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(theirs.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        theirs.write_all(response.as_bytes()).await.unwrap();
        theirs.write_all(b"Sec-WebSocket-Accept: ").await.unwrap();
        theirs.write_all(&taut_proto::handshake::accept_key(key)).await.unwrap();
        theirs.write_all(b"\r\n\r\n").await.unwrap();
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
    });
    (socket.unwrap(), theirs)
}

// RFC 6455 §5.4: a message ends with its final fragment, and by nothing else.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_not_finished_is_an_error_whatever_ended_it() {
    let half: &[u8] = b"\x01\x02ab";
    for (end, code) in [
        (&b"\x88\x02\x03\xe8"[..], 1000),
        (b"\x88\x02\x03\xe9", 1001),
        (b"\x88\x02\x03\xf3", 1011),
        (b"\x88\x00", 1005),
        // The end of the stream, and what breaks the protocol.
        (b"", 1006),
        (b"\x81\x00", 1002),
    ] {
        let bytes = [half, end].concat();
        let is = |error: Error| {
            assert_eq!(error.close_code(), Some(CloseCode::new(code)), "{error:?}");
            assert_eq!(error.is_cut_off(), !matches!(code, 1002 | 1006), "{error:?}");
        };
        let (mut socket, _peer) = told(&bytes).await;
        let mut message = socket.recv_stream().await.unwrap().unwrap();
        assert_eq!(message.part().await.unwrap().unwrap(), b"ab");
        is(message.part().await.unwrap_err());
        is(message.part().await.unwrap_err());

        let (mut socket, _peer) = told(&bytes).await;
        is(socket.recv().await.unwrap_err());
        is(socket.recv().await.unwrap_err());
        assert_eq!(socket.peer_close().map(|close| close.code().as_u16()), Some(code).filter(|_| is_close(end)));
        assert!(socket.send("x").await.is_err());

        let (mut socket, _peer) = told(&bytes).await;
        is(socket.recv_with(|_| ()).await.unwrap_err());

        let (socket, _peer) = told(&bytes).await;
        is(socket.split().1.recv().await.unwrap_err());

        let (mut socket, _peer) = told(&bytes).await;
        is(futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap_err());
        assert!(futures_util::StreamExt::next(&mut socket).await.is_none());

        // Before it has brought a single byte, too.
        let (mut socket, _peer) = told(&[b"\x01\x00", end].concat()).await;
        is(socket.recv_stream().await.unwrap_err());

        // What came before it is received.
        let (mut socket, _peer) = told(&[b"\x81\x01w", &bytes[..]].concat()).await;
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from("w")));
        is(socket.recv().await.unwrap_err());
    }
}

fn is_close(frame: &[u8]) -> bool {
    frame.first() == Some(&0x88)
}

// Whoever closes has lost nothing by what the peer was about to say; whoever then receives is told.
#[tokio::test(start_paused = true)]
async fn to_close_in_the_middle_of_the_peers_message_is_no_failure() {
    let (mut socket, _peer) = told(b"\x02\x02ab\x88\x02\x03\xe8").await;
    socket.close(CloseCode::NORMAL).await.unwrap();
    assert!(socket.recv().await.unwrap_err().is_cut_off());
    // Nor does anybody miss what was given up before.
    let (mut socket, _peer) = told(b"\x02\x02ab\x88\x02\x03\xe8").await;
    let mut message = socket.recv_stream().await.unwrap().unwrap();
    assert_eq!(message.part().await.unwrap().unwrap(), b"ab");
    drop(message);
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_text_are_cut_between_characters_however_its_frames_are() {
    let text = "aß€😀".repeat(3);
    for size in 1..=text.len() {
        let mut frames = Vec::new();
        for (index, piece) in text.as_bytes().chunks(size).enumerate() {
            frames.extend([u8::from(index == 0), piece.len() as u8]);
            frames.extend_from_slice(piece);
        }
        let (mut socket, _peer) = told(&[&frames[..], b"\x80\x00\x88\x00"].concat()).await;
        let mut message = socket.recv_stream().await.unwrap().unwrap();
        let mut received = String::new();
        while let Some(part) = message.part().await.unwrap() {
            assert!(!part.is_empty());
            received += &String::from_utf8(part).expect("UTF-8 by itself");
        }
        assert_eq!(received, text);
        drop(message);
        assert_eq!(socket.recv().await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_can_be_sent_in_bytes_that_are_cut_anywhere() {
    let text = "aß€😀".repeat(3);
    for size in 1..=text.len() {
        let (mut client, mut server) = pair(4096).await;
        let mut message = client.send_text_stream();
        for part in text.as_bytes().chunks(size) {
            message.write(part).await.unwrap();
        }
        message.write("and a string").await.unwrap();
        message.finish().await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.recv().await.unwrap(), Some(Message::from(format!("{text}and a string"))));
    }
    // More than a frame of it, with a character over each edge.
    let text = "😀".repeat(50_000);
    let (mut client, mut server) = pair(64 << 10).await;
    let (sent, received) = tokio::join!(
        async {
            let mut message = client.send_text_stream();
            message.write(&text.as_bytes()[..100_001]).await?;
            message.write(&text.as_bytes()[100_001..]).await?;
            message.finish().await?;
            client.flush().await
        },
        read(&mut server)
    );
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap().2, text.as_bytes());
}

// RFC 6455 §8.1: what is not UTF-8 must not be sent as text, and is not: the error comes before.
#[tokio::test(start_paused = true)]
async fn what_is_no_utf_8_is_an_error_before_it_is_sent() {
    for (before, wrong) in [
        (&b""[..], &b"\xff"[..]),
        (b"ok", b"ok \xc3("),
        (b"\xf0\x9f", b"x"),
        (b"\xf0\x9f", b"\x98\xff"),
        (b"\xed", b"\xa0\x80"),
    ] {
        let (mut client, mut server) = pair(4096).await;
        let mut message = client.send_text_stream();
        message.write(before).await.unwrap();
        assert!(message.write(wrong).await.unwrap_err().is_invalid());
        if before.starts_with(b"\xf0") {
            // The part was not sent, and the right one may be.
            message.write(&b"\x98\x80"[..]).await.unwrap();
        }
        if !before.starts_with(b"\xed") {
            message.finish().await.unwrap();
            client.flush().await.unwrap();
            let expected = if before.starts_with(b"\xf0") { "😀" } else { std::str::from_utf8(before).unwrap() };
            assert_eq!(server.recv().await.unwrap(), Some(Message::from(expected)));
        }
    }
    // It ends in the middle of a character.
    let (mut client, mut server) = pair(4096).await;
    let mut message = client.send_text_stream();
    message.write(&b"a\xf0\x9f"[..]).await.unwrap();
    assert!(message.finish().await.unwrap_err().is_invalid());
    let (_, received) = tokio::join!(client.close(CloseCode::NORMAL), server.recv());
    assert!(received.unwrap_err().is_cut_off());
}

#[tokio::test(start_paused = true)]
async fn an_empty_message_of_a_kind_is_sent() {
    let (mut client, mut server) = pair(4096).await;
    client.send_text_stream().finish().await.unwrap();
    let mut message = client.send_binary_stream();
    message.write(Vec::new()).await.unwrap();
    message.finish().await.unwrap();
    let mut message = client.send_binary_stream();
    message.write("a string is bytes here").await.unwrap();
    message.finish().await.unwrap();
    drop(client.send_text_stream());
    drop(client.send_binary_stream());
    client.flush().await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("")));
    assert_eq!(server.recv().await.unwrap(), Some(Message::from(&b""[..])));
    assert_eq!(server.recv().await.unwrap(), Some(Message::from(&b"a string is bytes here"[..])));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_begun_sends_nothing() {
    let (mut client, mut server) = pair(4096).await;
    drop(client.send_stream());
    client.send_stream().finish().await.unwrap();
    client.send("only this").await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("only this")));
}
