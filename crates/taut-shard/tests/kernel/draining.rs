//! Going down.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use taut_proto::{Close, CloseCode, Message};
use taut_shard::testing::{Client, Stage};
use taut_shard::{Closed, Connections, Drain, DrainGroup, Handler, Mailbox, Reason, Refused, Session, Settings};

use crate::application::{Application, stage};

fn drain(stage: &Stage<Application>, over: u64, deadline: u64) {
    stage.shard.drainer().drain(Drain {
        close: Close::new(CloseCode::SERVICE_RESTART, "come back"),
        over: Duration::from_millis(over),
        deadline: Duration::from_millis(deadline),
    });
}

#[test]
fn a_shard_without_connections_is_drained_at_once() {
    let mut stage = stage();
    stage.settle();
    let mailbox = stage.shard.mailbox();
    drain(&stage, 1000, 5000);
    stage.settle();
    assert!(stage.is_drained);
    assert!(matches!(mailbox.push("too late".to_owned(), 0), Err(Refused(_))));
    assert!(mailbox.push_always("too late".to_owned()).is_err());
    assert_eq!(mailbox.waiting(), 0);
}

#[test]
fn the_closes_are_spread_over_the_time_given() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..100).map(|_| stage.open()).collect();
    drain(&stage, 1000, 10_000);
    stage.settle();
    let told = |clients: &[Client]| clients.iter().filter(|client| client.remote.waiting() > 0).count();
    assert!(told(&clients) <= 2, "{} at once", told(&clients));
    for step in 1..10 {
        stage.sleep(Duration::from_millis(100));
        let told = told(&clients);
        assert!(told.abs_diff(step * 10) <= 2, "{told} after {step} tenths");
    }
    stage.sleep(Duration::from_millis(110));
    assert_eq!(told(&clients), 100);
    for client in &mut clients {
        client.read(usize::MAX);
        assert_eq!(client.closed().unwrap(), &Close::new(CloseCode::SERVICE_RESTART, "come back"));
    }
    stage.settle();
    assert!(!stage.is_drained, "the ends of the sockets are awaited");
    for client in &mut clients {
        client.finish();
    }
    stage.settle();
    assert!(stage.is_drained);
    assert!(stage.handler().closed.iter().all(|(_, reason)| matches!(reason, Reason::Closed(_))));
    assert_eq!(stage.shard.handler().counts(), (100, 100));
}

#[test]
fn closes_are_spread_from_the_first_one_also_after_a_wait_for_a_newcomer() {
    let mut stage = stage();
    let clients: Vec<Client> = (0..100).map(|_| stage.open()).collect();
    let _silent = Client::new(&stage.network);
    stage.settle();
    drain(&stage, 200, 10_000);
    let told = || clients.iter().filter(|client| client.remote.waiting() > 0).count();
    stage.sleep(Duration::from_millis(240));
    assert_eq!(told(), 0, "the newcomer may still speak");
    stage.sleep(Duration::from_millis(30));
    assert!((1..=20).contains(&told()), "{} at once", told());
    stage.sleep(Duration::from_millis(100));
    assert!((40..=70).contains(&told()), "{} after half of the time", told());
    stage.sleep(Duration::from_millis(100));
    assert_eq!(told(), 100);
}

#[test]
fn the_handler_may_close_a_connection_in_its_own_way() {
    let mut stage = stage();
    let mut clients = ["/", "/own"].map(|target| stage.open_at(target));
    drain(&stage, 0, 1000);
    stage.settle();
    let mut told = |number: usize| {
        clients[number].read(usize::MAX);
        clients[number].closed().unwrap().clone()
    };
    assert_eq!(told(0), Close::new(CloseCode::SERVICE_RESTART, "come back"));
    assert_eq!(told(1), Close::new(CloseCode::GOING_AWAY, "bye"));
}

#[test]
fn a_drain_stops_listening_and_refuses_handshakes_in_progress() {
    let mut stage = stage();
    let _open = stage.open();
    let mut halfway = Client::new(&stage.network);
    let request = halfway.request("/");
    halfway.write(&request[..20]);
    stage.settle();
    drain(&stage, 0, 5000);
    stage.settle();
    let late = stage.network.connect();
    halfway.write(&request[20..]);
    stage.settle();
    halfway.read(usize::MAX);
    assert_eq!(halfway.status(), Some(503));
    let response = String::from_utf8(halfway.response.clone()).unwrap();
    assert!(response.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{response}");
    assert_eq!((stage.network.queued(), late.waiting()), (0, 0));
    assert_eq!(stage.census().open, 1);
}

#[test]
fn who_was_accepted_just_before_a_drain_is_still_answered_and_one_in_reserve_is_not_waited_for() {
    let mut stage = stage();
    let reserve = Client::new(&stage.network);
    stage.sleep(Duration::from_secs(1));
    let mut newcomer = Client::new(&stage.network);
    stage.settle();
    drain(&stage, 0, 5000);
    stage.settle();
    let late = stage.network.connect();
    stage.sleep(Duration::from_millis(100));
    let request = newcomer.request("/");
    newcomer.write(&request);
    stage.settle();
    newcomer.read(usize::MAX);
    assert_eq!(newcomer.status(), Some(101), "it had come in time");
    assert_eq!(newcomer.closed().unwrap(), &Close::new(CloseCode::SERVICE_RESTART, "come back"));
    assert!(reserve.remote.is_gone());
    assert_eq!((stage.network.queued(), late.waiting()), (0, 0));
}

#[test]
fn a_drain_waits_no_longer_than_a_moment_for_who_says_nothing() {
    let mut stage = stage();
    let silent = Client::new(&stage.network);
    stage.settle();
    drain(&stage, 0, 5000);
    stage.sleep(Duration::from_millis(240));
    assert!(!silent.remote.is_gone() && !stage.is_drained);
    stage.sleep(Duration::from_millis(20));
    assert!(silent.remote.is_gone() && stage.is_drained);
}

#[test]
fn a_drain_ends_at_its_deadline_whoever_answers() {
    let mut stage = stage();
    let deaf: Vec<Client> = (0..10).map(|_| stage.open()).collect();
    let silent = Client::new(&stage.network);
    stage.settle();
    drain(&stage, 1000, 2000);
    stage.sleep(Duration::from_millis(1_990));
    assert!(!stage.is_drained);
    assert_eq!(stage.census().open, 10);
    stage.sleep(Duration::from_millis(20));
    assert!(stage.is_drained);
    assert!(stage.handler().closed.iter().all(|(_, reason)| matches!(reason, Reason::Stopped)));
    assert_eq!(stage.shard.handler().counts(), (10, 10));
    assert!(deaf.iter().all(|client| client.remote.is_gone()) && silent.remote.is_gone());
    assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
}

#[test]
fn a_drain_ends_when_the_last_has_gone_although_its_deadline_is_far() {
    let mut stage = stage();
    let mut client = stage.open();
    drain(&stage, 0, 1_000_000);
    stage.settle();
    client.read(usize::MAX);
    client.finish();
    stage.settle();
    assert!(stage.is_drained);
}

#[test]
fn mail_is_still_delivered_while_a_shard_drains() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..10).map(|_| stage.open()).collect();
    drain(&stage, 1000, 5000);
    stage.sleep(Duration::from_millis(500));
    stage.shard.mailbox().push("last words".to_owned(), 0).unwrap();
    stage.settle();
    let mut heard = 0;
    for client in &mut clients {
        client.read(usize::MAX);
        heard += client.texts().len();
    }
    assert!((4..=6).contains(&heard), "those not yet told to go: {heard}");
}

#[test]
fn a_second_drain_changes_nothing() {
    let mut stage = stage();
    let _client = stage.open();
    drain(&stage, 0, 1000);
    drain(&stage, 0, 100_000);
    stage.sleep(Duration::from_millis(1_020));
    assert!(stage.is_drained);
}

#[test]
fn a_drain_does_not_wait_for_clients_that_have_not_spoken() {
    let mut stage = stage();
    let silent = stage.network.connect();
    stage.settle();
    assert_eq!(stage.census().handshakes, 1);
    stage.sleep(Duration::from_secs(1));
    drain(&stage, 0, 5000);
    stage.settle();
    assert!(stage.is_drained);
    assert_eq!(silent.waiting(), 0);
}

/// Two shards: what ends on one is told to the other, which answers as often as the mail says.
struct Relay {
    other: Rc<RefCell<Option<Mailbox<u32>>>>,
    answers: u32,
    heard: u32,
}

impl Handler for Relay {
    type User = ();
    type Mail = u32;

    fn message(&mut self, _: &mut Session<'_, ()>, _: Message<'_>) {}

    fn closed(&mut self, _: &mut Connections<()>, _: Closed<()>) {
        self.mail_other(self.answers);
    }

    fn mail(&mut self, _: &mut Connections<()>, answers: u32) {
        self.heard += 1;
        if let Some(answers) = answers.checked_sub(1) {
            self.mail_other(answers);
        }
    }
}

impl Relay {
    fn mail_other(&self, answers: u32) {
        let other = self.other.borrow();
        other.as_ref().expect("connected").push(answers, 0).expect("the other shard is still there");
    }
}

#[test]
fn shards_of_a_group_end_only_when_the_last_mail_between_them_is_handled() {
    let mailboxes = [(); 2].map(|()| Rc::new(RefCell::new(None)));
    let relay = |number: usize| Relay { other: Rc::clone(&mailboxes[1 - number]), answers: 9, heard: 0 };
    let mut stages = [0, 1].map(|number| Stage::new(relay(number), Settings::default()));
    for (mailbox, stage) in mailboxes.iter().zip(&stages) {
        *mailbox.borrow_mut() = Some(stage.shard.mailbox());
    }
    let mut client = stages[0].open();
    let mut group = DrainGroup::new(stages.iter().map(|stage| stage.shard.drainer()));
    let close = Close::new(CloseCode::SERVICE_RESTART, "come back");
    group.close(&Drain { close, over: Duration::ZERO, deadline: Duration::from_secs(5) });
    // The second shard has nobody, and would end here by itself.
    stages.iter_mut().for_each(Stage::settle);
    client.read(usize::MAX);
    client.finish();
    stages[0].settle();
    assert!(group.is_closed());
    let mut rounds = 0;
    while !group.try_settle() {
        stages.iter_mut().for_each(Stage::settle);
        assert!(!stages.iter().any(|stage| stage.is_drained), "both stay until they are told to end");
        rounds += 1;
        assert!(rounds < 100, "they do not come to rest");
    }
    assert_eq!(stages.each_mut().map(|stage| stage.handler().heard), [5, 5]);
    group.end();
    stages.iter_mut().for_each(Stage::settle);
    assert!(stages.iter().all(|stage| stage.is_drained));
    // A shard that is gone keeps nobody waiting.
    drop(stages);
    assert!(group.settle(Duration::from_secs(20)));
}
