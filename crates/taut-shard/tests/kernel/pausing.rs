//! Connections that the application does not want to hear for a while.

use std::time::Duration;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, DEFAULT_VERSIONS};
use taut_proto::{CloseCode, Opcode, Timeout};
use taut_shard::testing::{Client, Stage};
use taut_shard::{Drain, Reason};

use crate::application::{Application, reason, stage, stage_with};
use crate::tls_settings;

/// Stages with a client that is open: without TLS and with it, and told of changes alone or of all that holds.
fn each_way(test: impl Fn(Stage<Application>, Client)) {
    for changes_only in [false, true] {
        for by_tls in [false, true] {
            let (mut stage, client) = if by_tls {
                let (server, client) = tls_settings::settings("fake.example", DEFAULT_VERSIONS);
                let stage = stage_with(|settings| settings.tls = Some(server));
                let tls = ClientConnection::new(client, ServerName::try_from("fake.example").unwrap()).unwrap();
                let client = Client::new(&stage.network).with_tls(tls);
                (stage, client)
            } else {
                let stage = stage();
                let client = Client::new(&stage.network);
                (stage, client)
            };
            stage.network.tell_changes_only(changes_only);
            let mut client = client;
            client.write(&client.request("/"));
            stage.exchange(&mut [&mut client]);
            assert!(client.is_open());
            test(stage, client);
        }
    }
}

fn tell(stage: &mut Stage<Application>, what: &str) {
    stage.shard.mailbox().push(format!("{what} all"), 0).unwrap();
    stage.settle();
}

fn heard(stage: &mut Stage<Application>) -> Vec<String> {
    stage.handler().messages.iter().map(|message| message.as_text().unwrap().to_owned()).collect()
}

/// Sends messages so that one read brings them all.
fn say_at_once(client: &mut Client, texts: &[&str]) {
    for text in texts {
        client.end.send((*text).to_owned());
    }
    client.flush();
}

#[test]
fn the_rest_of_a_read_waits_for_the_end_of_the_pause() {
    each_way(|mut stage, mut client| {
        say_at_once(&mut client, &["one", "pause", "two", "three"]);
        stage.settle();
        assert_eq!(heard(&mut stage), ["one", "pause"]);
        assert!(stage.network.is_asleep());
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts(), ["one"], "what it was sent before leaves");
        tell(&mut stage, "resume");
        assert_eq!(heard(&mut stage), ["one", "pause", "two", "three"]);
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts(), ["two", "three"]);
    });
}

#[test]
fn what_comes_during_a_pause_is_not_read_and_is_when_it_ends() {
    each_way(|mut stage, mut client| {
        tell(&mut stage, "pause");
        let reads = client.remote.reads();
        for text in ["one", "two"] {
            client.send(text);
            stage.settle();
            assert!(stage.network.is_asleep());
        }
        // Nor does what it is sent make the shard look.
        stage.shard.mailbox().push("first hello".to_owned(), 0).unwrap();
        stage.settle();
        assert_eq!((heard(&mut stage).len(), client.remote.reads()), (0, reads));
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts(), ["hello"]);
        tell(&mut stage, "resume");
        assert_eq!(heard(&mut stage), ["one", "two"]);
        client.send("three");
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts(), ["one", "two", "three"]);
    });
}

#[test]
fn no_more_than_a_read_is_held_however_much_comes() {
    let mut stage = stage_with(|settings| settings.read_buffer = 4096);
    let mut client = stage.open();
    client.send("pause");
    for n in 0..1000 {
        client.end.send(format!("{n:0>1000}"));
    }
    client.flush();
    stage.settle();
    assert!(client.remote.unread() > 1_000_000 - 2 * 4096, "{}", client.remote.unread());
    tell(&mut stage, "resume");
    let texts = heard(&mut stage);
    assert!(texts[1..].iter().enumerate().all(|(n, text)| text.parse() == Ok(n)) && texts.len() == 1001);
}

#[test]
fn a_pause_that_ends_in_the_same_call_and_one_that_begins_again_keep_the_order() {
    each_way(|mut stage, mut client| {
        say_at_once(&mut client, &["one", "blink", "two", "pause", "three", "blink", "four"]);
        stage.settle();
        assert_eq!(heard(&mut stage), ["one", "blink", "two", "pause"]);
        tell(&mut stage, "resume");
        assert_eq!(heard(&mut stage)[4..], ["three", "blink", "four"]);
        tell(&mut stage, "pause");
        client.send("five");
        // Resumed and paused again before the shard has acted: the last counts.
        stage.shard.mailbox().push("resume all".to_owned(), 0).unwrap();
        stage.shard.mailbox().push("pause all".to_owned(), 0).unwrap();
        stage.settle();
        assert_eq!(heard(&mut stage).len(), 7);
        tell(&mut stage, "resume");
        tell(&mut stage, "resume");
        assert_eq!(heard(&mut stage).last().unwrap(), "five");
    });
}

#[test]
fn a_connection_may_be_paused_as_it_opens() {
    let mut stage = stage();
    stage.handler().is_paused_at_first = true;
    let mut client = Client::new(&stage.network);
    let mut bytes = client.request("/");
    // "one" and "two", masked with zeros.
    bytes.extend_from_slice(b"\x81\x83\0\0\0\0one\x81\x83\0\0\0\0two");
    client.write(&bytes);
    stage.settle();
    assert_eq!(heard(&mut stage).len(), 0);
    tell(&mut stage, "resume");
    assert_eq!(heard(&mut stage), ["one", "two"]);
}

#[test]
fn a_paused_peer_is_neither_pinged_nor_given_up_and_has_its_time_again_afterwards() {
    let mut stage = stage();
    let mut client = stage.open();
    // A ping is under way as the pause begins: its pong is not seen.
    stage.sleep(Duration::from_millis(20_100));
    client.read(usize::MAX);
    assert_eq!(client.frames.opcodes, [Opcode::Ping]);
    stage.shard.mailbox().push("pause all".to_owned(), 0).unwrap();
    stage.tick();
    stage.sleep(Duration::from_secs(300));
    assert_eq!((stage.census().open, client.remote.waiting()), (1, 0));
    tell(&mut stage, "resume");
    stage.sleep(Duration::from_millis(19_500));
    assert_eq!(stage.census().open, 1, "{:?}", stage.handler().closed);
    stage.sleep(Duration::from_secs(60));
    assert!(matches!(reason(&mut stage), Reason::TimedOut(Timeout::Heartbeat)));
}

#[test]
fn a_message_that_had_begun_is_not_too_slow_for_a_pause() {
    let mut stage = stage();
    let mut client = stage.open();
    let frame = [&b"\x82\xfe\x75\x30\0\0\0\0"[..], &vec![7; 30_000]].concat();
    client.write(&frame[..10_000]);
    stage.settle();
    tell(&mut stage, "pause");
    client.write(&frame[10_000..]);
    stage.sleep(Duration::from_secs(300));
    tell(&mut stage, "resume");
    assert_eq!(stage.handler().messages.len(), 1, "{:?}", stage.handler().closed);
    assert_eq!(stage.census().open, 1);
}

#[test]
fn the_end_of_a_paused_peer_is_noticed_behind_what_it_has_said() {
    each_way(|mut stage, mut client| {
        say_at_once(&mut client, &["pause", "two"]);
        client.send("three");
        client.finish();
        stage.settle();
        assert_eq!((heard(&mut stage).len(), stage.census().open), (1, 1));
        assert!(stage.network.is_asleep());
        tell(&mut stage, "resume");
        assert_eq!(heard(&mut stage), ["pause", "two", "three"]);
        assert!(matches!(reason(&mut stage), Reason::Ended));
        assert_eq!(stage.census().sockets, 0);
    });
}

#[test]
fn a_reset_of_a_paused_peer_is_noticed_by_the_next_write_or_at_the_end_of_the_pause() {
    for how in ["first hello", "resume all"] {
        let mut stage = stage();
        let client = stage.open();
        tell(&mut stage, "pause");
        client.remote.reset(true);
        stage.settle();
        assert_eq!(stage.census().open, 1);
        stage.shard.mailbox().push(how.to_owned(), 0).unwrap();
        stage.settle();
        assert!(matches!(reason(&mut stage), Reason::Failed(_)), "{how}");
    }
}

#[test]
fn a_close_ends_the_pause_but_delivers_nothing_more() {
    each_way(|mut stage, mut client| {
        say_at_once(&mut client, &["pause", "two"]);
        client.send("three");
        stage.settle();
        tell(&mut stage, "close");
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.closed().unwrap().code(), CloseCode::GOING_AWAY);
        assert!(matches!(reason(&mut stage), Reason::Closed(_)));
        assert_eq!(heard(&mut stage), ["pause"]);
    });
}

#[test]
fn a_close_frame_that_is_held_is_found_by_our_own_close() {
    let mut stage = stage();
    let mut client = stage.open();
    client.end.send("pause");
    client.close(CloseCode::NORMAL);
    stage.settle();
    assert_eq!(stage.census().open, 1);
    tell(&mut stage, "close");
    assert_eq!((stage.census().open, stage.census().lingering), (0, 1));
    assert!(matches!(reason(&mut stage), Reason::Closed(close) if close.code() == CloseCode::NORMAL));
}

#[test]
fn a_drain_closes_paused_connections_as_others() {
    each_way(|mut stage, mut client| {
        say_at_once(&mut client, &["pause", "two"]);
        stage.settle();
        let (over, deadline) = (Duration::ZERO, Duration::from_secs(5));
        stage.shard.drainer().drain(Drain { close: CloseCode::SERVICE_RESTART.into(), over, deadline });
        stage.exchange(&mut [&mut client]);
        assert!(matches!(reason(&mut stage), Reason::Closed(_)));
        client.finish();
        stage.settle();
        assert!(stage.is_drained);
        assert_eq!(heard(&mut stage), ["pause"]);
    });
}

#[test]
fn a_paused_peer_that_does_not_read_is_slow_as_any_other() {
    let mut stage = stage_with(|settings| settings.outgoing = 10_000);
    let client = stage.open();
    client.remote.set_capacity(100);
    tell(&mut stage, "pause");
    for _ in 0..3 {
        stage.shard.mailbox().push("x".repeat(9_000), 0).unwrap();
        stage.settle();
    }
    assert!(matches!(reason(&mut stage), Reason::Slow));
}

proptest! {
    #[test]
    fn pauses_lose_nothing_and_keep_the_order(
        acts in prop::collection::vec((0..6_u8, 1..200_usize), 1..60),
        read_buffer in prop::sample::select(vec![16, 100, 128 << 10]),
        changes_only: bool,
    ) {
        let mut stage = stage_with(|settings| settings.read_buffer = read_buffer);
        stage.network.tell_changes_only(changes_only);
        let mut client = stage.open();
        let mut said: Vec<String> = Vec::new();
        for (act, size) in acts {
            match act {
                0 => stage.settle(),
                1 => tell(&mut stage, "pause"),
                2 => tell(&mut stage, "resume"),
                3 => said.push("pause".to_owned()),
                4 => said.push("blink".to_owned()),
                _ => said.push(format!("{:0>size$}", said.len())),
            }
            if act > 2 {
                client.end.send(said.last().unwrap().clone());
                // Some are said together.
                if size % 2 == 0 {
                    client.flush();
                }
            }
        }
        client.flush();
        for _ in 0..=said.len() {
            tell(&mut stage, "resume");
        }
        prop_assert_eq!(heard(&mut stage), said);
        prop_assert_eq!(stage.census().open, 1);
    }
}
