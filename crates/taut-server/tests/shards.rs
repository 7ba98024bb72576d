//! Several shards: every promise that one shard keeps is kept by many.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};
use support::{Client, Heard, Http, event, server};

const SHARDS: usize = 4;

#[test]
fn every_member_gets_every_event_once_and_in_order_wherever_it_lives() {
    let server = server(|config| config.shards = SHARDS);
    let address = server.addresses()[0];
    // The kernel spreads connections: with 40 of them every shard has some, or it would take 4 * 0.75^40 of luck.
    let mut clients: Vec<Client> = (0..40).map(|_| Client::member(address).0).collect();
    let channels: Vec<String> = (0..8).map(|number| format!("channel-{number}")).collect();
    for client in &mut clients {
        for channel in &channels {
            client.subscribed(channel);
        }
    }
    let publishers: Vec<_> = channels
        .iter()
        .cloned()
        .map(|channel| {
            thread::spawn(move || {
                let mut publisher = Http::connect(address);
                for number in 0..50 {
                    publisher.say(&channel, &number.to_string());
                }
            })
        })
        .collect();
    for client in &mut clients {
        let mut next: HashMap<String, u32> = HashMap::new();
        for _ in 0..50 * channels.len() {
            let message = client.message();
            let next = next.entry(message["channel"].as_str().expect("a name").to_owned()).or_default();
            assert_eq!(message["data"], next.to_string());
            *next += 1;
        }
        client.expect_nothing_before_a_pong();
    }
    for publisher in publishers {
        publisher.join().expect("published");
    }
}

#[test]
fn the_named_connection_is_left_out_on_whichever_shard_it_is() {
    let server = server(|config| config.shards = SHARDS);
    let mut clients: Vec<(Client, String)> = (0..16).map(|_| Client::member(server.addresses()[0])).collect();
    for (client, _) in &mut clients {
        client.subscribed("chat");
    }
    let mut publisher = Http::connect(server.addresses()[0]);
    for (_, socket_id) in &clients {
        let said = json!({ "name": "event", "channel": "chat", "data": socket_id, "socket_id": socket_id });
        assert_eq!(publisher.publish(&said).status, 200);
    }
    let ids: Vec<String> = clients.iter().map(|(_, socket_id)| socket_id.clone()).collect();
    for (client, socket_id) in &mut clients {
        for other in ids.iter().filter(|other| *other != socket_id) {
            assert_eq!(client.message(), event("chat", other));
        }
        client.expect_nothing_before_a_pong();
    }
}

/// A publisher counts up without a pause while clients come and go on all shards. Whoever is told that it is subscribed must then hear an unbroken
/// sequence, with no number before the acknowledgement and none missing after it.
#[test]
fn from_the_acknowledgement_on_nothing_is_missed_while_members_come_and_go() {
    let server = server(|config| config.shards = SHARDS);
    let address = server.addresses()[0];
    let done = AtomicBool::new(false);
    // The number that is being published.
    let current = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = Http::connect(address);
            while !done.load(Ordering::Relaxed) {
                let number = current.fetch_add(1, Ordering::SeqCst) + 1;
                publisher.say("chat", &number.to_string());
            }
        });
        let visitors: Vec<_> = (0..8)
            .map(|seed: u64| {
                let current = &current;
                scope.spawn(move || {
                    let mut heard = 0;
                    for round in 0..30 {
                        let (mut client, _) = Client::member(address);
                        for stay in 0..3 {
                            let wanted = (seed + round + stay) % 4;
                            heard += visit(&mut client, wanted, current);
                        }
                        if round % 2 == 0 {
                            client.close(1000);
                            while client.next() != Heard::End {}
                        } else {
                            client.vanish();
                        }
                    }
                    heard
                })
            })
            .collect();
        let visits: Vec<_> = visitors.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let heard: u64 = visits.into_iter().map(|visit| visit.expect("nothing was missed")).sum();
        assert!(heard > 500, "{heard}");
    });
}

/// Subscribes, hears some events, unsubscribes and hears what was under way.
fn visit(client: &mut Client, wanted: u64, current: &AtomicU64) -> u64 {
    client.subscribe("chat");
    let answer = client.message();
    assert_eq!(answer["event"], "pusher_internal:subscription_succeeded", "an event came before the acknowledgement");
    // What begins to be published from now on has to come.
    let under_way = current.load(Ordering::SeqCst);
    let number = |message: &Value| -> u64 { message["data"].as_str().expect("a string").parse().expect("a number") };
    let mut last = None;
    let mut heard = 0;
    let mut hear = |message: &Value| {
        if let Some(last) = last {
            assert_eq!(number(message), last + 1, "an event is missing");
        } else {
            assert!(number(message) <= under_way + 1, "an event after the acknowledgement is missing");
        }
        last = Some(number(message));
        heard += 1;
    };
    for _ in 0..wanted {
        hear(&client.message());
    }
    client.unsubscribe("chat");
    client.send(&json!({ "event": "pusher:ping", "data": {} }));
    loop {
        let message = client.message();
        if message["event"] == "pusher:pong" {
            break;
        }
        hear(&message);
    }
    client.expect_nothing_before_a_pong();
    heard
}

#[test]
fn a_client_that_hops_in_and_out_gets_one_answer_per_visit_at_most() {
    let server = server(|config| config.shards = SHARDS);
    let (mut client, _) = Client::member(server.addresses()[0]);
    // Not waiting for answers: joins and leaves overtake the homes' answers.
    for number in 0..500 {
        let channel = format!("channel-{}", number % 7);
        client.subscribe(&channel);
        client.unsubscribe(&channel);
    }
    client.subscribe("last");
    let mut answers = 0;
    loop {
        let message = client.message();
        assert_eq!(message["event"], "pusher_internal:subscription_succeeded");
        if message["channel"] == "last" {
            break;
        }
        answers += 1;
    }
    assert!(answers <= 500, "{answers}");
    // All of them are left again, and all can be joined again.
    let mut publisher = Http::connect(server.addresses()[0]);
    for number in 0..7 {
        publisher.say(&format!("channel-{number}"), "nobody");
    }
    for number in 0..7 {
        client.subscribed(&format!("channel-{number}"));
    }
    for number in 0..7 {
        let channel = format!("channel-{number}");
        publisher.say(&channel, "somebody");
        assert_eq!(client.message(), event(&channel, "somebody"));
    }
}
