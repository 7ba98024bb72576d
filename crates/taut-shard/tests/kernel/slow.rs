//! Peers that read slowly, or not at all.

use std::time::Duration;

use taut_proto::Message;
use taut_shard::testing::Client;
use taut_shard::{Outgoing, Reason, Sent, SlowReader};

use crate::application::{reason, stage, stage_with};

#[test]
fn a_slow_reader_is_dropped_and_counted_and_the_others_are_served() {
    let mut stage = stage_with(|settings| settings.outgoing = 100_000);
    let slow = stage.open();
    let mut reader = stage.open();
    slow.remote.set_capacity(1000);
    let text = "x".repeat(10_000);
    for n in 0..20 {
        stage.shard.mailbox().push(text.clone(), 0).unwrap();
        stage.settle();
        reader.read(usize::MAX);
        assert_eq!(reader.texts().len(), 1, "message {n}");
    }
    assert!(slow.remote.is_gone());
    assert!(matches!(reason(&mut stage), Reason::Slow));
    assert_eq!(stage.handler().sent.iter().filter(|sent| **sent == Sent::Slow).count(), 1);
    assert_eq!(stage.shard.stats().slow_consumers, 1);
}

#[test]
fn a_slow_readers_messages_may_be_dropped_instead_and_are_counted() {
    let mut stage = stage_with(|settings| {
        settings.outgoing = 100_000;
        settings.slow_reader = SlowReader::Drop;
    });
    let mut slow = stage.open();
    slow.remote.set_capacity(1000);
    for n in 0..30 {
        stage.shard.mailbox().push(format!("{n:0>10000}"), 0).unwrap();
        stage.settle();
    }
    let dropped = stage.handler().sent.iter().filter(|sent| **sent == Sent::Slow).count();
    assert!((15..25).contains(&dropped), "{dropped}");
    assert_eq!(stage.shard.stats().dropped, dropped as u64);
    stage.exchange(&mut [&mut slow]);
    let texts = slow.texts();
    assert_eq!(texts.len(), 30 - dropped);
    assert!(texts.iter().enumerate().all(|(n, text)| text.parse() == Ok(n)), "the first ones, in order");
    stage.shard.mailbox().push("it has caught up".to_owned(), 0).unwrap();
    stage.exchange(&mut [&mut slow]);
    assert_eq!(slow.texts(), ["it has caught up"]);
}

#[test]
fn connections_may_have_bounds_and_policies_of_their_own() {
    let mut stage = stage();
    stage.handler().outgoing = vec![
        Outgoing { bytes: 50_000, slow_reader: SlowReader::Drop },
        Outgoing { bytes: 100_000, slow_reader: SlowReader::Close },
    ];
    let clients: Vec<Client> = (0..3).map(|_| stage.open()).collect();
    for client in &clients {
        client.remote.set_capacity(1000);
    }
    for _ in 0..20 {
        stage.shard.mailbox().push("x".repeat(10_000), 0).unwrap();
        stage.settle();
    }
    let gone: Vec<bool> = clients.iter().map(|client| client.remote.is_gone()).collect();
    assert_eq!(gone, [false, true, false], "the third has the settings' 1 MiB");
    let stats = stage.shard.stats();
    assert_eq!(stats.slow_consumers, 1);
    assert!((13..16).contains(&stats.dropped), "{stats:?}");
}

#[test]
fn a_message_of_any_size_may_go_to_a_reader_that_has_kept_up() {
    let mut stage = stage_with(|settings| settings.outgoing = 1000);
    let mut client = stage.open();
    client.remote.set_capacity(5000);
    let text = "x".repeat(500_000);
    client.send(text.as_str());
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), [text]);
}

#[test]
fn a_handler_may_send_as_fast_as_a_peer_reads() {
    let mut stage = stage_with(|settings| settings.outgoing = 20_000);
    let mut client = stage.open();
    client.remote.set_capacity(5000);
    let pieces: Vec<String> = (0..50).map(|n| format!("{n:0>10000}")).collect();
    stage.handler().stream = pieces.iter().rev().cloned().collect();
    stage.shard.mailbox().push("stream it".to_owned(), 0).unwrap();
    stage.settle();
    assert_eq!(stage.handler().stream.len(), 49, "the first was not read");
    // What does not read costs nothing: the shard sleeps.
    stage.settle();
    assert_eq!(stage.handler().stream.len(), 49);
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), pieces);
    assert_eq!(stage.shard.stats().slow_consumers, 0);
}

#[test]
fn a_peer_that_goes_while_it_has_much_to_read_is_not_told_of() {
    let mut stage = stage();
    let client = stage.open();
    client.remote.set_capacity(1000);
    stage.handler().stream = vec!["x".repeat(10_000); 2];
    stage.shard.mailbox().push("stream it".to_owned(), 0).unwrap();
    stage.settle();
    client.remote.reset(true);
    stage.settle();
    assert_eq!((stage.handler().stream.len(), stage.handler().closed.len()), (1, 1));
}

#[test]
fn a_burst_of_mail_makes_no_slow_reader_of_one_that_reads() {
    let mut stage = stage_with(|settings| settings.outgoing = 300_000);
    let mut client = stage.open();
    let text = "x".repeat(1000);
    for _ in 0..2000 {
        stage.shard.mailbox().push(text.clone(), 0).unwrap();
    }
    stage.settle();
    client.read(usize::MAX);
    assert_eq!(client.texts().len(), 2000);
    assert_eq!(stage.shard.stats().slow_consumers, 0);
}

#[test]
fn a_burst_of_many_peers_makes_no_slow_reader_of_one_that_reads() {
    let mut stage = stage_with(|settings| settings.outgoing = 300_000);
    let mut reader = stage.open();
    let mut talkers: Vec<Client> = (0..10).map(|_| stage.open()).collect();
    for talker in &mut talkers {
        for _ in 0..100 {
            talker.send(format!("all {}", "x".repeat(1000)));
        }
    }
    stage.settle();
    reader.read(usize::MAX);
    assert_eq!(reader.texts().len(), 1000);
    assert_eq!(stage.shard.stats().slow_consumers, 0);
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from_until_it_has() {
    pause_and_go_on(false);
}

#[test]
fn it_is_read_from_again_although_only_the_room_is_told() {
    pause_and_go_on(true);
}

#[test]
fn it_is_read_from_again_when_all_it_had_to_read_leaves_at_once() {
    let mut stage = stage_with(|settings| settings.read_buffer = 4096);
    let mut client = stage.open();
    stage.network.tell_changes_only(true);
    client.remote.set_capacity(1000);
    for n in 0..200 {
        client.send(format!("{n:0>1000}"));
    }
    stage.settle();
    assert!(client.remote.unread() > 0, "it is no longer read from");
    client.remote.set_capacity(usize::MAX);
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts().len(), 200);
}

fn pause_and_go_on(changes_only: bool) {
    let mut stage = stage_with(|settings| settings.read_buffer = 4096);
    let mut client = stage.open();
    stage.network.tell_changes_only(changes_only);
    client.remote.set_capacity(1000);
    client.remote.set_up_capacity(10_000);
    let expected: Vec<String> = (0..500).map(|n| format!("{n:0>1000}")).collect();
    for text in &expected {
        client.end.send(text.as_str());
    }
    for _ in 0..100 {
        client.flush();
        stage.settle();
    }
    assert!(client.remote.unread() > 0, "it is no longer read from");
    let held = stage.census().waiting;
    assert!(held <= (64 << 10) + 2 * 4096 + 1000, "{held} bytes are held for it");
    // What it does not say costs nothing: the shard sleeps.
    let reads = client.remote.reads();
    stage.settle();
    assert_eq!(client.remote.reads(), reads);
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), expected);
}

#[test]
fn a_flood_of_pings_from_a_peer_that_never_reads_holds_little() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(1000);
    client.remote.set_up_capacity(100_000);
    let mut most = 0;
    for n in 0..2000_u32 {
        for _ in 0..50 {
            client.end.ping(&[n.to_be_bytes()[3]; 125]);
        }
        client.flush();
        stage.settle();
        most = most.max(stage.census().waiting);
    }
    assert!(most < 16 << 10, "{most} bytes are held for it");
}

#[test]
fn a_peer_that_reads_slowly_but_steadily_is_not_taken_for_dead() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(4096);
    stage.shard.mailbox().push("x".repeat(900_000), 0).unwrap();
    stage.settle();
    // 9 kB a second: it takes 100 seconds, and answers every ping that it gets to see.
    for second in 0..110 {
        for _ in 0..9 {
            client.read(1000);
            stage.settle();
        }
        stage.advance(Duration::from_secs(1));
        assert_eq!(stage.census().open, 1, "after {second} seconds: {:?}", stage.handler().closed);
    }
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.messages(), [Message::from("x".repeat(900_000))]);
}

#[test]
fn a_paused_peer_that_resets_is_noticed() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(10);
    client.send("x".repeat(200_000));
    stage.settle();
    client.send("more");
    stage.settle();
    client.remote.reset(false);
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Failed(_)));
}
