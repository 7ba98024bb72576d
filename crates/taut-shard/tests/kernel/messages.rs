//! Messages to and fro, and the cork (one write for each read and each tick).

use taut_proto::{Message, Opcode};
use taut_shard::testing::Client;
use taut_shard::{Reason, Sent};

use crate::application::{reason, stage, stage_with};

#[test]
fn replies_to_all_messages_of_a_read_leave_in_one_write() {
    let mut stage = stage();
    let mut client = stage.open();
    let before = client.remote.writes();
    for n in 0..100 {
        client.send(format!("message {n}"));
    }
    stage.settle();
    assert_eq!(client.remote.writes() - before, 1);
    client.read(usize::MAX);
    assert_eq!(client.texts().len(), 100);
}

#[test]
fn a_broadcast_is_one_write_a_connection_however_many_messages_it_has() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..20).map(|_| stage.open()).collect();
    let before: Vec<usize> = clients.iter().map(|client| client.remote.writes()).collect();
    for n in 0..10 {
        clients[0].send(format!("all {n}"));
    }
    stage.settle();
    for (client, before) in clients.iter_mut().zip(before) {
        assert_eq!(client.remote.writes() - before, 1);
        client.read(usize::MAX);
        assert_eq!(client.texts(), (0..10).map(|n| format!("all {n}")).collect::<Vec<_>>());
    }
}

#[test]
fn mail_for_many_is_one_write_a_connection() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..5).map(|_| stage.open()).collect();
    let mailbox = stage.shard.mailbox();
    let wakes = stage.network.wakes();
    for n in 0..50 {
        mailbox.push(format!("mail {n}"), 10).unwrap();
    }
    assert_eq!(stage.network.wakes() - wakes, 1, "a burst wakes once");
    let before: Vec<usize> = clients.iter().map(|client| client.remote.writes()).collect();
    stage.settle();
    for (client, before) in clients.iter_mut().zip(before) {
        assert_eq!(client.remote.writes() - before, 1);
        client.read(usize::MAX);
        assert_eq!(client.texts().len(), 50);
    }
    mailbox.push("again".to_owned(), 0).unwrap();
    assert_eq!(stage.network.wakes() - wakes, 2);
    stage.settle();
    assert_eq!(stage.handler().mails.len(), 51);
}

#[test]
fn what_comes_for_many_while_they_are_written_goes_into_the_same_writes() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..400).map(|_| stage.open()).collect();
    let before: usize = clients.iter().map(|client| client.remote.writes()).sum();
    let mailbox = stage.shard.mailbox();
    mailbox.push("one".to_owned(), 0).unwrap();
    stage.tick();
    let first: usize = clients.iter().map(|client| client.remote.writes()).sum::<usize>() - before;
    assert!((64..=100).contains(&first), "{first} of 400 at once");
    mailbox.push("two".to_owned(), 0).unwrap();
    stage.settle();
    let all: usize = clients.iter().map(|client| client.remote.writes()).sum::<usize>() - before;
    assert_eq!(all, 400 + first, "those who had the first message alone get the second in a write of its own");
    for client in &mut clients {
        client.read(usize::MAX);
        assert_eq!(client.texts(), ["one", "two"]);
    }
}

#[test]
fn nobody_waits_for_many_to_be_written() {
    let mut stage = stage();
    let crowd: Vec<Client> = (0..400).map(|_| stage.open()).collect();
    let mut other = stage.open();
    other.read(usize::MAX);
    stage.shard.mailbox().push("one".to_owned(), 0).unwrap();
    stage.tick();
    other.send("hello");
    stage.tick();
    other.read(usize::MAX);
    assert_eq!(other.texts().last().map(String::as_str), Some("hello"));
    let served = crowd.iter().filter(|client| client.remote.waiting() > 0).count();
    assert!(served < 400, "it was answered before the last of them was written");
}

#[test]
fn more_mail_than_one_tick_reads_all_arrives() {
    let mut stage = stage();
    let mailbox = stage.shard.mailbox();
    for n in 0..10_000 {
        mailbox.push(n.to_string(), 0).unwrap();
    }
    stage.settle();
    assert_eq!(stage.handler().mails, (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_message_may_span_any_reads() {
    for size in [1, 2, 3, 7, 100, 4096] {
        let mut stage = stage_with(|settings| settings.read_buffer = size);
        let mut client = stage.open();
        let text = "ä".repeat(5_000);
        client.send(text.as_str());
        client.send(Message::from(vec![0, 1, 2]));
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.messages(), [Message::from(text), Message::from(vec![0, 1, 2])], "reads of {size}");
    }
}

#[test]
fn a_large_binary_message_is_read_to_where_it_stays() {
    for cut in [0, 1, 70_000, usize::MAX] {
        let mut stage = stage_with(|settings| settings.protocol.limits.message = 4 << 20);
        let mut client = stage.open();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        client.remote.set_up_capacity(usize::MAX);
        client.end.send(bytes.as_slice());
        client.end.send("behind it");
        client.remote.set_read_limit(cut.max(1).saturating_mul(7919));
        // The first message teaches that large ones come; then there is room for the whole of it at once.
        client.end.send(bytes.as_slice());
        let before = client.remote.reads();
        client.flush();
        stage.settle();
        let messages = &stage.handler().messages;
        assert_eq!(messages.len(), 3);
        assert!(messages[0].as_bytes() == bytes && messages[2].as_bytes() == bytes);
        assert_eq!(messages[1], Message::from("behind it"));
        if cut == usize::MAX {
            assert!(client.remote.reads() - before < 20, "{} reads", client.remote.reads() - before);
        }
        assert_eq!(stage.census().unfinished, 0);
    }
}

#[test]
fn a_connection_that_ends_within_a_large_message_is_told_why() {
    for (reset, is_known) in [(false, true), (true, false)] {
        let mut stage = stage();
        let client = stage.open();
        client.remote.write(&[&[0x82, 0xff][..], &200_000_u64.to_be_bytes(), &[0; 4], &vec![0; 150_000]].concat());
        stage.settle();
        assert!(stage.census().unfinished > 0);
        if reset {
            client.remote.reset(false);
        } else {
            client.remote.finish();
        }
        stage.settle();
        assert_eq!(matches!(reason(&mut stage), Reason::Ended), is_known);
        assert_eq!((stage.census().sockets, stage.census().unfinished), (0, 0));
    }
}

#[test]
fn signals_in_reads_and_writes_change_nothing() {
    let mut stage = stage();
    let mut client = stage.open();
    for n in 0..10 {
        client.remote.interrupt();
        client.send(n.to_string());
        stage.exchange(&mut [&mut client]);
    }
    assert_eq!(client.texts().len(), 10);
}

#[test]
fn writes_that_take_little_are_gone_on_with() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_write_limit(1);
    let text = "x".repeat(3000);
    client.send(text.as_str());
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), [text]);
}

#[test]
fn what_a_full_socket_does_not_take_follows_when_it_is_writable() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(1000);
    let text = "x".repeat(50_000);
    client.send(text.as_str());
    stage.settle();
    assert_eq!(client.remote.waiting(), 1000);
    let writes = client.remote.writes();
    stage.settle();
    assert_eq!(client.remote.writes(), writes, "nobody tries before there is room");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), [text]);
}

#[test]
fn prepared_messages_and_own_ones_keep_their_order() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(777);
    let large = format!("all {}", "x".repeat(9000));
    let expected: Vec<String> = (0..30).map(|n| if n % 3 == 0 { large.clone() } else { format!("own {n}") }).collect();
    for text in &expected {
        client.send(text.as_str());
    }
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), expected);
}

#[test]
fn a_ping_is_answered_in_the_write_of_its_read() {
    let mut stage = stage();
    let mut client = stage.open();
    let before = client.remote.writes();
    client.end.ping(b"are you there?");
    client.end.send("hello");
    client.flush();
    stage.settle();
    assert_eq!(client.remote.writes() - before, 1);
    client.read(usize::MAX);
    assert_eq!(client.frames.opcodes, [Opcode::Pong, Opcode::Text]);
}

#[test]
fn a_flood_of_one_peer_does_not_hold_up_another() {
    let mut stage = stage_with(|settings| settings.read_buffer = 1024);
    let mut flooder = stage.open();
    let mut other = stage.open();
    for _ in 0..1000 {
        flooder.send("x".repeat(100));
    }
    other.send("hello");
    stage.tick();
    other.read(usize::MAX);
    assert_eq!(other.texts(), ["hello"]);
    assert!(flooder.remote.unread() > 50_000, "it has had its turn, and no more");
    stage.exchange(&mut [&mut flooder, &mut other]);
    assert_eq!(flooder.texts().len(), 1000);
}

#[test]
fn a_shard_with_nothing_to_do_sleeps() {
    let mut stage = stage();
    let clients: Vec<Client> = (0..3).map(|_| stage.open()).collect();
    let reads: usize = clients.iter().map(|client| client.remote.reads()).sum();
    stage.settle();
    assert!(stage.network.is_asleep());
    assert_eq!(clients.iter().map(|client| client.remote.reads()).sum::<usize>(), reads);
}

#[test]
fn an_idle_connection_holds_no_outbox() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..100).map(|_| stage.open()).collect();
    clients[0].send(format!("all {}", "x".repeat(10_000)));
    stage.settle();
    let census = stage.census();
    assert_eq!((census.outboxes, census.waiting), (0, 0));
    // The sockets' own and the tables' entries: what 100,000 connections cost is in the design's budget.
    assert!(census.connection_size <= 320, "{}", census.connection_size);
}

#[test]
fn an_id_of_the_past_reaches_nobody_in_the_same_place() {
    let mut stage = stage();
    let first = stage.open();
    first.remote.reset(true);
    stage.settle();
    assert_eq!(reason(&mut stage).code().as_u16(), 1006);
    let mut second = stage.open();
    assert_eq!(stage.census().sockets, 1, "both had the same place");
    let mailbox = stage.shard.mailbox();
    mailbox.push("first are you there?".to_owned(), 0).unwrap();
    stage.exchange(&mut [&mut second]);
    assert_eq!(stage.handler().sent, [Sent::Closed]);
    assert_eq!(second.messages(), []);
}
