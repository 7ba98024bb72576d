//! Messages that are begun and not finished: how long they are waited for, and what they may hold together.

use std::time::Duration;

use taut_proto::{CloseCode, Heartbeat, Timeout};
use taut_shard::Reason;
use taut_shard::testing::Client;

use crate::application::{TestStage, reason, stage, stage_with};

/// The head of a binary frame of 64 KiB or more, masked with zeros, that is not the last of its message.
fn head(length: u64) -> Vec<u8> {
    [&[0x02, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// A frame of 16 KiB, masked with zeros, that is not the last of its message.
fn frame(opcode: u8) -> Vec<u8> {
    [&[opcode, 0xfe, 0x40, 0, 0, 0, 0, 0][..], &[0; 16 << 10]].concat()
}

/// The last, empty frame of a message.
const END: &[u8] = &[0x80, 0x80, 0, 0, 0, 0];

/// Sends so many bytes of a message that is not finished.
fn begin(stage: &mut TestStage, client: &mut Client, length: usize) {
    client.write(&[head(length as u64), vec![0; length]].concat());
    stage.settle();
}

fn close_code(client: &mut Client) -> Option<CloseCode> {
    client.read(usize::MAX);
    client.closed().map(taut_proto::Close::code)
}

// RFC 6455 §5.4: a message is over with its final fragment; the handler gets none that was not finished.
#[test]
fn a_close_in_the_middle_of_a_message_is_told_from_one_behind_it() {
    for (bytes, is_cut_off) in [
        (&b"\x01\x82\0\0\0\0ab\x88\x82\0\0\0\0\x03\xe8"[..], true),
        (b"\x01\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8", true),
        (b"\x01\x82\0\0\0\0ab\x80\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8", false),
        (b"\x88\x82\0\0\0\0\x03\xe8", false),
    ] {
        let mut stage = stage();
        let mut client = stage.open();
        client.write(bytes);
        stage.settle();
        assert_eq!(matches!(reason(&mut stage), Reason::CutOff(_)), is_cut_off);
        assert_eq!(reason(&mut stage).code(), CloseCode::NORMAL);
        assert_eq!(close_code(&mut client), Some(CloseCode::NORMAL));
        assert_eq!((stage.census().unfinished, stage.handler().messages.len() <= 1), (0, true));
        assert!(!is_cut_off || stage.handler().messages.is_empty());
    }
}

#[test]
fn a_message_that_does_not_go_on_is_given_up_whatever_the_heartbeat() {
    let never = Heartbeat::off();
    let seldom = Heartbeat { interval: Duration::from_secs(3600), timeout: Duration::from_secs(3600) };
    for heartbeat in [never, seldom, Heartbeat::standard()] {
        let mut stage = stage_with(|settings| settings.protocol.heartbeat = heartbeat);
        let mut client = stage.open();
        stage.sleep(Duration::from_secs(7));
        client.write(&head(1 << 16));
        // A byte a second: life, but not progress.
        for _ in 0..59 {
            stage.sleep(Duration::from_secs(1));
            client.write(b"x");
            client.read(usize::MAX);
        }
        stage.sleep(Duration::from_millis(900));
        assert_eq!(stage.census().open, 1);
        stage.sleep(Duration::from_millis(300));
        assert!(matches!(reason(&mut stage), Reason::TimedOut(Timeout::Message)));
        assert_eq!(close_code(&mut client), Some(CloseCode::POLICY));
    }
}

#[test]
fn a_message_that_goes_on_is_waited_for() {
    let mut stage = stage_with(|settings| settings.protocol.limits.message = 4 << 20);
    let mut client = stage.open();
    for minute in 0..64 {
        // 16 KiB a minute, with pongs between.
        client.write(&frame(if minute == 0 { 2 } else { 0 }));
        stage.sleep(Duration::from_secs(1));
        client.read(usize::MAX);
        stage.sleep(Duration::from_secs(19));
        client.read(usize::MAX);
        stage.sleep(Duration::from_secs(19));
        client.read(usize::MAX);
        stage.sleep(Duration::from_secs(20));
        client.read(usize::MAX);
        assert_eq!(stage.census().open, 1);
    }
    client.write(END);
    stage.settle();
    assert_eq!(stage.handler().messages.last().unwrap().as_bytes().len(), 1 << 20);
}

#[test]
fn unfinished_messages_share_what_they_may_hold_and_give_it_back() {
    // Room for three that hold 64 KiB: 48 KiB each beyond the first 16.
    let mut stage = stage_with(|settings| settings.unfinished = 150 << 10);
    let mut clients: Vec<Client> = (0..6).map(|_| stage.open()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        begin(&mut stage, client, 64 << 10);
        let is_refused = index >= 3;
        assert_eq!(close_code(client), is_refused.then_some(CloseCode::TRY_AGAIN_LATER));
        assert!(stage.census().unfinished <= 150 << 10);
    }
    assert!(stage.handler().closed.iter().all(|(_, reason)| matches!(reason, Reason::Overloaded)));
    assert_eq!((stage.shard.stats().overloaded, stage.census().open), (3, 3));
    // Whoever sends little, or whole messages, is not concerned.
    let mut other = stage.open();
    other.write(&frame(2));
    stage.settle();
    other.write(END);
    other.send(vec![0; 60 << 10]);
    other.send("quiet");
    stage.settle();
    assert_eq!((stage.handler().messages.len(), close_code(&mut other)), (3, None));
    // What is finished, reset, closed or given up makes room.
    clients[0].write(END);
    clients[1].remote.reset(true);
    stage.settle();
    assert_eq!(stage.census().unfinished, 48 << 10);
    clients[2].close(CloseCode::NORMAL);
    stage.settle();
    assert_eq!(stage.census().unfinished, 0);
    let mut next = stage.open();
    begin(&mut stage, &mut next, 150 << 10);
    assert_eq!((close_code(&mut next), stage.census().unfinished), (None, 134 << 10));
    stage.sleep(Duration::from_secs(200));
    assert_eq!((stage.census().unfinished, stage.census().open), (0, 0));
    assert_eq!(stage.shard.stats().overloaded, 3);
}

// Only what has come counts: to announce much costs a peer nothing, and must cost nobody else anything.
#[test]
fn what_is_announced_and_has_not_come_takes_no_room() {
    let mut stage = stage_with(|settings| settings.unfinished = 1000);
    let mut clients: Vec<Client> = (0..50).map(|_| stage.open()).collect();
    for client in &mut clients {
        client.write(&head(1 << 20));
        client.write(&[0; 100]);
    }
    stage.settle();
    assert_eq!((stage.census().open, stage.census().unfinished, stage.shard.stats().overloaded), (50, 0, 0));
}

#[test]
fn a_server_that_closes_still_counts_what_is_sent_to_it() {
    let mut stage = stage_with(|settings| settings.unfinished = 100 << 10);
    let mut client = stage.open();
    client.send("close");
    begin(&mut stage, &mut client, 64 << 10);
    assert_eq!(stage.census().unfinished, 48 << 10);
    client.write(&vec![0; 1 << 20]);
    stage.settle();
    // It is over: nothing more is read from it, and no second close frame goes out.
    assert_eq!((stage.census().unfinished, stage.census().open), (0, 0));
    assert_eq!(close_code(&mut client), Some(CloseCode::NORMAL));
}
