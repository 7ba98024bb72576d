//! Every message of version 1, byte by byte.
//!
//! A cluster is updated node by node, so nodes of this version and of the one before read each other's messages. What stands here may be added to, if
//! nodes of the version before can do without the addition. If it must change, the versions cannot share an engine: change [`VERSION`], write the commit
//! before that into `interop/cluster/before.commit`, and run what `CONTRIBUTING.md` says ("What nodes say to each other").

use super::*;
use crate::pusher::payload::Payload;

fn publication(event: Event, excluded: Option<&str>) -> Publication {
    let excluded = excluded.map(|text| SocketId::parse(text).expect("a socket id"));
    Publication { channel: "chat".into(), event, excluded, at: Instant::now(), receipt: None }
}

fn client(name: &str, data: Option<&str>, user_id: Option<&str>) -> Event {
    Event::Client { name: name.into(), data: data.map(Into::into), user_id: user_id.map(Into::into) }
}

fn change(number: u64, previous: u64, difference: Difference) -> Message {
    Message::Changed(Change { position: Position { epoch: Epoch(7), number }, previous, difference })
}

fn added(user_id: &str, user_info: Option<&str>) -> Difference {
    Difference::Added(PresenceMember { user_id: user_id.into(), user_info: user_info.map(Into::into) })
}

/// Every kind of message, with each of its fields there and missing.
fn messages() -> Vec<(Message, &'static str)> {
    let published = |kept: Option<u64>, event, excluded| Message::Published {
        origin: "node".into(),
        kept: kept.map(|number| Position { epoch: Epoch(7), number }),
        publication: publication(event, excluded),
    };
    let backend = || Event::published("new", &Payload::from("Größe"));
    let terminate = Message::Terminate {
        origin: "node".into(),
        from: "incarnation".into(),
        request: 5,
        app: "1".into(),
        user_id: "ada".into(),
    };
    vec![
        (published(None, backend(), None), "1p4:node0:0:0:1:b3:new9:\"Größe\""),
        (published(Some(42), backend(), Some("12.34")), "1p4:node1:72:426:=12.341:b3:new9:\"Größe\""),
        (published(None, client("client-x", None, None), None), "1p4:node0:0:0:1:c8:client-x0:0:"),
        (
            published(None, client("client-x", Some("{\"a\":1}"), Some("ada")), Some("12.34")),
            "1p4:node0:0:6:=12.341:c8:client-x8:={\"a\":1}4:=ada",
        ),
        (change(10, 9, added("ada", None)), "1c1:72:101:91:+3:ada0:"),
        (change(10, 0, added("ada", Some("{}"))), "1c1:72:101:01:+3:ada3:={}"),
        (change(11, 10, Difference::Removed("ada".into())), "1c1:72:112:101:-3:ada0:"),
        (Message::Counted(12), "1n2:12"),
        (Message::Status { user_id: "ada".into(), is_online: true }, "1s3:ada1:1"),
        (Message::Status { user_id: "ada".into(), is_online: false }, "1s3:ada1:0"),
        (terminate, "1t4:node11:incarnation1:51:13:ada"),
        (Message::Terminated { request: 5, node: "node".into() }, "1d1:54:node"),
        (Message::Probe(u64::MAX), "1?20:18446744073709551615"),
    ]
}

/// So that a new kind of message is not forgotten above.
fn kind(message: &Message) -> usize {
    match message {
        Message::Published { .. } => 0,
        Message::Changed(_) => 1,
        Message::Counted(_) => 2,
        Message::Status { .. } => 3,
        Message::Terminate { .. } => 4,
        Message::Terminated { .. } => 5,
        Message::Probe(_) => 6,
    }
}

#[test]
fn messages_of_version_1_are_written_and_read_byte_by_byte() {
    let mut kinds = [false; 7];
    for (message, bytes) in messages() {
        kinds[kind(&message)] = true;
        assert_eq!(String::from_utf8(message.write()).as_deref(), Ok(bytes));
        let read = Message::read(&"chat".into(), bytes.as_bytes()).expect(bytes);
        assert_eq!((kind(&read), read.write()), (kind(&message), message.write()), "{bytes}");
    }
    assert_eq!(kinds, [true; 7], "one kind has no example");
}

#[test]
fn events_of_version_1_before_they_have_a_position_are_written_and_read_byte_by_byte() {
    let event = publication(client("client-x", None, Some("ada")), Some("12.34"));
    let (head, tail) = Message::to_keep("node", &event);
    assert_eq!((&head[..], &tail[..]), (&b"1p4:node"[..], &b"6:=12.341:c8:client-x0:4:=ada"[..]));
    assert_eq!(Message::to_keep("", &kept(&"chat".into(), &tail).expect("an event")).1, tail);
    assert_eq!(Message::published("node", &event), *b"1p4:node0:0:6:=12.341:c8:client-x0:4:=ada");
}

#[test]
fn records_of_version_1_in_the_engine_are_written_and_read_byte_by_byte() {
    for (cell, bytes) in [
        (Cell::Occupied { app: "1", channel: "chat" }, "1:o1:14:chat"),
        (Cell::Member { app: "1", channel: "presence-é", user_id: "ada" }, "1:m1:111:presence-é3:ada"),
        (Cell::SignedIn { app: "1", user_id: "ada" }, "1:s1:13:ada"),
    ] {
        assert_eq!(String::from_utf8(cell.write()).as_deref(), Ok(bytes));
    }
    assert_eq!(node("eu-1", "0.1.0", 12), *b"4:eu-15:0.1.02:12");
    assert_eq!(read_node(b"4:eu-15:0.1.02:12"), Ok(("eu-1".into(), "0.1.0".into(), 12)));
    for (info, bytes) in [(None, &b""[..]), (Some(""), b"="), (Some("{}"), b"={}")] {
        assert_eq!(user_info(info), bytes);
        assert_eq!(read_user_info(bytes), Ok(info));
    }
}

#[test]
fn what_webhooks_are_told_in_version_1_is_read_byte_by_byte() {
    use events::Event;
    let (channel, user_id): (Arc<str>, Arc<str>) = ("chat".into(), "ada".into());
    let at_once = Duration::ZERO;
    for (bytes, event, waited) in [
        ("1o1:14:chat", Event::ChannelOccupied { channel: channel.clone() }, at_once),
        ("1v1:14:chat", Event::ChannelVacated { channel: channel.clone() }, at_once),
        ("1v1:14:chat4:3000", Event::ChannelVacated { channel: channel.clone() }, Duration::from_secs(3)),
        ("1+1:14:chat3:ada", Event::MemberAdded { channel: channel.clone(), user_id: user_id.clone() }, at_once),
        ("1-1:14:chat3:ada", Event::MemberRemoved { channel: channel.clone(), user_id: user_id.clone() }, at_once),
        (
            "1-1:14:chat3:ada3:500",
            Event::MemberRemoved { channel: channel.clone(), user_id },
            Duration::from_millis(500),
        ),
        ("1m1:14:chat", Event::CacheMiss { channel: channel.clone() }, at_once),
        ("1n1:14:chat2:12", Event::SubscriptionCount { channel, count: 12 }, at_once),
    ] {
        assert_eq!(happened(bytes.as_bytes()), Ok(("1".into(), event, waited)), "{bytes}");
    }
}
