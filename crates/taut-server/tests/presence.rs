//! A crowd in one presence channel, over real sockets: every list and every event counted.
//!
//! Without optimising it is a smaller crowd. The figures of the large one: `cargo test --release -p taut-server --test presence -- --nocapture`.

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Http, server};
use taut_server::app::Limits;
use taut_server::pusher::auth::Signature;

const USERS: usize = if cfg!(debug_assertions) { 200 } else { 2000 };
/// Every fifth user has two connections.
const SECOND_EVERY: usize = 5;
const CHANNEL: &str = "presence-crowd";

/// One connection, and what it knows.
struct PresenceMember {
    client: Client,
    socket_id: String,
    user: usize,
    /// Who is there, as this one was told; `None` while it is not there itself.
    users: Option<HashSet<usize>>,
    /// Events that came after the list.
    heard: u64,
}

impl PresenceMember {
    fn new(address: SocketAddr, user: usize) -> Self {
        let (client, socket_id) = Client::member(address);
        Self { client, socket_id, user, users: None, heard: 0 }
    }

    fn come(&mut self) {
        let channel_data = json!({ "user_id": self.user, "user_info": { "name": format!("user {}", self.user) } });
        let channel_data = channel_data.to_string();
        let signature = Signature::of_subscription("secret-one", &self.socket_id, CHANNEL, Some(&channel_data));
        let auth = format!("key-one:{signature}");
        let data = json!({ "channel": CHANNEL, "auth": auth, "channel_data": channel_data });
        self.client.send(&json!({ "event": "pusher:subscribe", "data": data }));
    }

    /// Hears until its last request has been taken, which a pong says.
    fn catch_up(&mut self) {
        self.client.send(&json!({ "event": "pusher:ping", "data": {} }));
        self.hear_until("pusher:pong");
    }

    fn leave(&mut self) {
        self.client.unsubscribe(CHANNEL);
        self.catch_up();
        self.users = None;
    }

    fn hear_until(&mut self, last: &str) {
        loop {
            let message = self.client.message();
            let event = message["event"].as_str().expect("a name");
            if event == last {
                return;
            }
            self.hear(event, &message);
        }
    }

    fn hear(&mut self, event: &str, message: &Value) {
        let data: Value = serde_json::from_str(message["data"].as_str().expect("a string")).expect("JSON in it");
        let number = |id: &Value| id.as_str().expect("a text").parse::<usize>().expect("a number");
        let me = self.user;
        match event {
            "pusher_internal:subscription_succeeded" => {
                let presence = &data["presence"];
                let ids = presence["ids"].as_array().expect("ids");
                let users: HashSet<usize> = ids.iter().map(number).collect();
                assert_eq!((ids.len(), presence["count"].as_u64()), (users.len(), Some(users.len() as u64)));
                let hash = presence["hash"].as_object().expect("an object");
                assert_eq!(hash.len(), users.len());
                for user in &users {
                    assert_eq!(hash[&user.to_string()]["name"], format!("user {user}"));
                }
                assert!(users.contains(&me), "the list includes who gets it");
                assert!(self.users.replace(users).is_none(), "one list per visit");
            }
            "pusher_internal:member_added" => {
                self.heard += 1;
                let user = number(&data["user_id"]);
                assert!(self.users.as_mut().expect("a list before").insert(user), "{me} was told twice of {user}");
            }
            "pusher_internal:member_removed" => {
                self.heard += 1;
                let user = number(&data["user_id"]);
                assert!(self.users.as_mut().expect("a list before").remove(&user), "{me} did not know of {user}");
            }
            other => panic!("{other}"),
        }
    }
}

/// Everybody hears everything that has happened so far, and finds it to be so.
fn check(crowd: &mut [PresenceMember], http: &mut Http, there: &HashSet<usize>, step: &str) {
    let start = Instant::now();
    http.say(CHANNEL, step);
    for visitor in crowd.iter_mut().filter(|visitor| there.contains(&visitor.user)) {
        visitor.hear_until("event");
        assert_eq!(visitor.users.as_ref(), Some(there), "{step}: as {} sees it", visitor.user);
    }
    let heard: u64 = crowd.iter().map(|visitor| visitor.heard).sum();
    println!("{step}: {} users, {heard} events so far, checked in {:?}", there.len(), start.elapsed());
}

#[test]
fn a_crowd_that_joins_leaves_and_comes_back_is_seen_exactly_by_everybody() {
    let server = server(|config| {
        config.shards = 2;
        // As many as there are: further connections of users who are there come in all the same.
        config.limits = Limits { presence_members: USERS, ..Limits::default() };
        config.outgoing = 64 << 20;
        config.ping_interval = Duration::from_secs(600);
    });
    let address = server.addresses()[0];
    let mut http = Http::connect(address);
    let start = Instant::now();
    let mut crowd: Vec<PresenceMember> = (0..USERS).map(|user| PresenceMember::new(address, user)).collect();
    crowd.extend((0..USERS).step_by(SECOND_EVERY).map(|user| PresenceMember::new(address, user)));
    println!("{} connections of {USERS} users in {:?}", crowd.len(), start.elapsed());

    let joining = Instant::now();
    crowd.iter_mut().for_each(PresenceMember::come);
    crowd.iter_mut().for_each(PresenceMember::catch_up);
    println!("joined in {:?}", joining.elapsed());
    let all: HashSet<usize> = (0..USERS).collect();
    check(&mut crowd, &mut http, &all, "all have joined");

    // Of those with two connections one leaves, which nobody is to see; of the others every third leaves.
    let leaving = Instant::now();
    let mut there = all.clone();
    let mut seconds = crowd.split_off(USERS);
    seconds.iter_mut().for_each(PresenceMember::leave);
    for visitor in crowd.iter_mut().filter(|visitor| visitor.user % 3 == 0) {
        visitor.leave();
        there.remove(&visitor.user);
    }
    println!("left in {:?}", leaving.elapsed());
    check(&mut crowd, &mut http, &there, "a third has left");

    // Some go without a word, and all who left come back, some by their other connection.
    let returning = Instant::now();
    let (gone, mut crowd): (Vec<_>, Vec<_>) = crowd.into_iter().partition(|visitor| visitor.user % 7 == 1);
    for visitor in gone {
        there.remove(&visitor.user);
        visitor.client.vanish();
    }
    for visitor in crowd.iter_mut().filter(|visitor| visitor.users.is_none()) {
        visitor.come();
        there.insert(visitor.user);
    }
    for mut visitor in seconds {
        visitor.come();
        there.insert(visitor.user);
        crowd.push(visitor);
    }
    crowd.iter_mut().for_each(PresenceMember::catch_up);
    // That the others are gone is noticed in its own time.
    support::eventually("the end of those who went", || server.connections() == crowd.len());
    println!("came back in {:?}", returning.elapsed());
    check(&mut crowd, &mut http, &there, "all who left are back");
    println!("all of it in {:?}", start.elapsed());
}
