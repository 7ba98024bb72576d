//! What the nodes of a cluster send each other, as bytes.
//!
//! A message is the version, one byte for its kind, and fields: each is its length in decimal digits, a colon, and its bytes. Redis' scripts write
//! some of them, and take them apart ([`Cell`]), so the form is one that Lua reads and writes in a few lines.

#[cfg(test)]
mod golden;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events;
use crate::hub::command::{Event, PresenceMember, Publication};
use crate::hub::engine::{Change, Difference, Epoch, Position};
use crate::pusher::socket_id::SocketId;

/// The first byte of each message. Nodes with another one do not understand each other: they must not share an engine.
pub(super) const VERSION: u8 = b'1';

/// A message of a channel, of an app's users, or from node to node.
#[derive(Clone, Debug)]
pub(super) enum Message {
    /// An event of the channel. `kept` is its position, if the engine keeps it.
    Published { origin: Box<str>, kept: Option<Position>, publication: Publication },
    /// A user has come to the presence channel or has left it.
    Changed(Change),
    /// So many are subscribed to the channel.
    Counted(usize),
    /// A user of the app has come online or gone offline.
    Status { user_id: Arc<str>, is_online: bool },
    /// Close every connection of this user, and send [`Terminated`](Self::Terminated) to the incarnation `from`. Not for the node `origin` itself.
    Terminate { origin: Box<str>, from: Box<str>, request: u64, app: Box<str>, user_id: Arc<str> },
    /// The connections are closed on `node`.
    Terminated { request: u64, node: Box<str> },
    /// A node's message to itself: its subscriptions work.
    Probe(u64),
}

/// One thing that a node holds in the engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cell<'a> {
    /// The channel has subscribers on the node.
    Occupied { app: &'a str, channel: &'a str },
    /// The user is in the presence channel.
    Member { app: &'a str, channel: &'a str, user_id: &'a str },
    /// The user has signed in.
    SignedIn { app: &'a str, user_id: &'a str },
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Another version of Taut wrote it.
    Version,
    /// There is no such kind of message.
    Kind,
    /// A field is missing, or is not what it should be.
    Field,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Version => "it was written by another version of Taut",
            Self::Kind => "its kind is unknown",
            Self::Field => "a field is missing or malformed",
        })
    }
}

impl std::error::Error for Malformed {}

impl Message {
    /// An event that the engine does not keep, as the nodes with subscribers get it.
    pub(super) fn published(origin: &str, publication: &Publication) -> Vec<u8> {
        let mut out = start(PUBLISHED, publication.bytes() + FRAME);
        field(&mut out, origin);
        position_if_any(&mut out, None);
        content(&mut out, publication);
        out
    }

    /// An event that the engine keeps, before it has its position: what stands before the two fields of that, and what stands behind them.
    pub(super) fn to_keep(origin: &str, publication: &Publication) -> (Vec<u8>, Vec<u8>) {
        let mut head = start(PUBLISHED, origin.len() + FRAME);
        field(&mut head, origin);
        let mut tail = Vec::with_capacity(publication.bytes() + FRAME);
        content(&mut tail, publication);
        (head, tail)
    }

    /// Reads a message of this channel; of no channel, if it is of an app's users or from node to node.
    pub(super) fn read(channel: &Arc<str>, bytes: &[u8]) -> Result<Self, Malformed> {
        let (kind, mut fields) = opened(bytes)?;
        let message = match kind {
            PUBLISHED => {
                let origin = fields.text()?.into();
                let kept = fields.position_if_any()?;
                Self::Published { origin, kept, publication: publication(channel, &mut fields)? }
            }
            CHANGED => Self::Changed(change(&mut fields)?),
            COUNTED => Self::Counted(fields.number()?),
            STATUS => Self::Status { user_id: fields.text()?.into(), is_online: fields.flag()? },
            TERMINATE => Self::Terminate {
                origin: fields.text()?.into(),
                from: fields.text()?.into(),
                request: fields.number()?,
                app: fields.text()?.into(),
                user_id: fields.text()?.into(),
            },
            TERMINATED => Self::Terminated { request: fields.number()?, node: fields.text()?.into() },
            PROBE => Self::Probe(fields.number()?),
            _ => return Err(Malformed::Kind),
        };
        fields.end()?;
        Ok(message)
    }

    /// Writes a message.
    pub(super) fn write(&self) -> Vec<u8> {
        match self {
            Self::Published { origin, kept, publication } => {
                let (mut out, tail) = Self::to_keep(origin, publication);
                position_if_any(&mut out, *kept);
                out.extend_from_slice(&tail);
                out
            }
            Self::Changed(change) => write_change(change),
            Self::Counted(subscribers) => written(COUNTED, &[&subscribers.to_string()]),
            Self::Status { user_id, is_online } => written(STATUS, &[user_id, if *is_online { "1" } else { "0" }]),
            Self::Terminate { origin, from, request, app, user_id } => {
                written(TERMINATE, &[origin, from, &request.to_string(), app, user_id])
            }
            Self::Terminated { request, node } => written(TERMINATED, &[&request.to_string(), node]),
            Self::Probe(number) => written(PROBE, &[&number.to_string()]),
        }
    }
}

/// Reads an event that the engine has kept, without the fields before it.
pub(super) fn kept(channel: &Arc<str>, tail: &[u8]) -> Result<Publication, Malformed> {
    let mut fields = Fields(tail);
    let publication = publication(channel, &mut fields)?;
    fields.end()?;
    Ok(publication)
}

/// Reads something that webhooks tell of: the app's id, what has happened, and for how long that was held back.
pub(super) fn happened(bytes: &[u8]) -> Result<(Box<str>, events::Event, Duration), Malformed> {
    use events::Event;
    let (kind, mut fields) = opened(bytes)?;
    let (app, channel) = (fields.text()?.into(), fields.text()?.into());
    let event = match kind {
        OCCUPIED => Event::ChannelOccupied { channel },
        VACATED => Event::ChannelVacated { channel },
        ADDED => Event::MemberAdded { channel, user_id: fields.text()?.into() },
        REMOVED => Event::MemberRemoved { channel, user_id: fields.text()?.into() },
        MISSED => Event::CacheMiss { channel },
        COUNT => Event::SubscriptionCount { channel, count: fields.number()? },
        _ => return Err(Malformed::Kind),
    };
    // Only of users who have left, and of channels that were vacated by them.
    let may_wait = matches!(event, Event::ChannelVacated { .. } | Event::MemberRemoved { .. });
    let waited = if may_wait && !fields.0.is_empty() { fields.number()? } else { 0 };
    fields.end()?;
    Ok((app, event, Duration::from_millis(waited)))
}

impl Cell<'_> {
    /// The cell as it stands in the engine.
    pub(super) fn write(&self) -> Vec<u8> {
        match *self {
            Self::Occupied { app, channel } => fields(&["o", app, channel]),
            Self::Member { app, channel, user_id } => fields(&["m", app, channel, user_id]),
            Self::SignedIn { app, user_id } => fields(&["s", app, user_id]),
        }
    }
}

/// What a node says of itself: its name, its version and how many connections it has.
pub(super) fn node(name: &str, version: &str, connections: u64) -> Vec<u8> {
    fields(&[name, version, &connections.to_string()])
}

/// Reads what [`node`] has written.
pub(super) fn read_node(bytes: &[u8]) -> Result<(Box<str>, Box<str>, u64), Malformed> {
    let mut fields = Fields(bytes);
    let node = (fields.text()?.into(), fields.text()?.into(), fields.number()?);
    fields.end()?;
    Ok(node)
}

/// What a user says of itself, as it stands in a field of a message.
pub(super) fn user_info(user_info: Option<&str>) -> Vec<u8> {
    user_info.map(|text| format!("={text}").into_bytes()).unwrap_or_default()
}

/// Reads what [`user_info`] has written.
pub(super) fn read_user_info(bytes: &[u8]) -> Result<Option<&str>, Malformed> {
    optional(std::str::from_utf8(bytes).map_err(|_| Malformed::Field)?)
}

fn optional(text: &str) -> Result<Option<&str>, Malformed> {
    match text {
        "" => Ok(None),
        text => text.strip_prefix('=').map(Some).ok_or(Malformed::Field),
    }
}

fn fields(texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(texts.iter().map(|text| text.len() + LONGEST_LENGTH).sum());
    for text in texts {
        field(&mut out, text);
    }
    out
}

/// A message of this kind with these fields.
pub(super) fn written(kind: u8, texts: &[&str]) -> Vec<u8> {
    let mut out = start(kind, 0);
    out.extend(fields(texts));
    out
}

fn start(kind: u8, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(room + 2);
    out.extend_from_slice(&[VERSION, kind]);
    out
}

fn field(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(text.as_bytes());
}

/// Nothing, or the text behind an equals sign.
fn optional_field(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return field(out, "") };
    out.extend_from_slice((text.len() + 1).to_string().as_bytes());
    out.extend_from_slice(b":=");
    out.extend_from_slice(text.as_bytes());
}

/// Two fields: the epoch and the number.
fn position_if_any(out: &mut Vec<u8>, position: Option<Position>) {
    let numbers = position.map(|Position { epoch: Epoch(epoch), number }| [epoch, number].map(|it| it.to_string()));
    for text in numbers.unwrap_or_default() {
        field(out, &text);
    }
}

/// An event without its channel, of which the receiver knows.
fn content(out: &mut Vec<u8>, publication: &Publication) {
    let excluded = publication.excluded.map(|socket_id| socket_id.to_string());
    optional_field(out, excluded.as_deref());
    match &publication.event {
        Event::Published { text, name } => {
            let (name, data) = text.split_at(*name);
            field(out, "b");
            field(out, name);
            field(out, data);
        }
        Event::Client { name, data, user_id } => {
            field(out, "c");
            field(out, name);
            optional_field(out, data.as_deref());
            optional_field(out, user_id.as_deref());
        }
    }
}

fn publication(channel: &Arc<str>, fields: &mut Fields<'_>) -> Result<Publication, Malformed> {
    let excluded = match fields.text_if_any()? {
        Some(text) => Some(SocketId::parse(text).ok_or(Malformed::Field)?),
        None => None,
    };
    let event = match fields.text()? {
        "b" => {
            let (name, data) = (fields.text()?, fields.text()?);
            // It goes to clients as it stands.
            if data.len() < 2 || !data.starts_with('"') || !data.ends_with('"') {
                return Err(Malformed::Field);
            }
            Event::Published { text: [name, data].concat().into(), name: name.len() }
        }
        "c" => Event::Client {
            name: fields.text()?.into(),
            data: fields.text_if_any()?.map(Into::into),
            user_id: fields.text_if_any()?.map(Into::into),
        },
        _ => return Err(Malformed::Field),
    };
    Ok(Publication { channel: Arc::clone(channel), event, excluded, at: Instant::now(), receipt: None })
}

fn change(fields: &mut Fields<'_>) -> Result<Change, Malformed> {
    let position = Position { epoch: Epoch(fields.number()?), number: fields.number()? };
    let previous = fields.number()?;
    let (sign, user_id) = (fields.text()?, fields.text()?.into());
    let user_info = fields.text_if_any()?.map(Into::into);
    let difference = match sign {
        "+" => Difference::Added(PresenceMember { user_id, user_info }),
        "-" => Difference::Removed(user_id),
        _ => return Err(Malformed::Field),
    };
    Ok(Change { position, previous, difference })
}

fn write_change(change: &Change) -> Vec<u8> {
    let mut out = start(CHANGED, FRAME);
    for number in [change.position.epoch.0, change.position.number, change.previous] {
        field(&mut out, &number.to_string());
    }
    let (sign, user_id, user_info) = match &change.difference {
        Difference::Added(member) => ("+", &member.user_id, member.user_info.as_deref()),
        Difference::Removed(user_id) => ("-", user_id, None),
    };
    field(&mut out, sign);
    field(&mut out, user_id);
    optional_field(&mut out, user_info);
    out
}

/// The kind of a message, and its fields.
pub(super) fn opened(bytes: &[u8]) -> Result<(u8, Fields<'_>), Malformed> {
    match bytes {
        [VERSION, kind, fields @ ..] => Ok((*kind, Fields(fields))),
        [VERSION] => Err(Malformed::Kind),
        _ => Err(Malformed::Version),
    }
}

/// Fields that are still to be read.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let colon = self.0.iter().take(LONGEST_LENGTH).position(|byte| *byte == b':').ok_or(Malformed::Field)?;
        let length: usize = decimal(&self.0[..colon])?;
        let text = self.0[colon + 1..].get(..length).ok_or(Malformed::Field)?;
        self.0 = &self.0[colon + 1 + length..];
        std::str::from_utf8(text).map_err(|_| Malformed::Field)
    }

    pub(super) fn text_if_any(&mut self) -> Result<Option<&'a str>, Malformed> {
        optional(self.text()?)
    }

    pub(super) fn number<N: std::str::FromStr>(&mut self) -> Result<N, Malformed> {
        decimal(self.text()?.as_bytes())
    }

    fn position_if_any(&mut self) -> Result<Option<Position>, Malformed> {
        match (self.text()?, self.text()?) {
            ("", "") => Ok(None),
            (epoch, number) => {
                Ok(Some(Position { epoch: Epoch(decimal(epoch.as_bytes())?), number: decimal(number.as_bytes())? }))
            }
        }
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.text()? {
            "1" => Ok(true),
            "0" => Ok(false),
            _ => Err(Malformed::Field),
        }
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Field) }
    }
}

/// Digits and nothing else: `parse` would take a sign.
fn decimal<N: std::str::FromStr>(digits: &[u8]) -> Result<N, Malformed> {
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::Field)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Field);
    }
    text.parse().map_err(|_| Malformed::Field)
}

const PUBLISHED: u8 = b'p';
const CHANGED: u8 = b'c';
const COUNTED: u8 = b'n';
const STATUS: u8 = b's';
const TERMINATE: u8 = b't';
const TERMINATED: u8 = b'd';
const PROBE: u8 = b'?';

// What webhooks tell of.
const OCCUPIED: u8 = b'o';
const VACATED: u8 = b'v';
const ADDED: u8 = b'+';
const REMOVED: u8 = b'-';
const MISSED: u8 = b'm';
const COUNT: u8 = b'n';

/// Digits of a field's length, and its colon: enough for anything that fits into memory.
const LONGEST_LENGTH: usize = 21;

/// Bytes of an event beside its texts, about.
const FRAME: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::payload::Payload;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,20}", Just(String::new()), Just("3:=abc".to_owned()), Just("=".to_owned())]
    }

    fn publications() -> impl Strategy<Value = Publication> {
        let published = (text(), text()).prop_map(|(name, data)| Event::published(&name, &Payload::from(&*data)));
        let client = (text(), prop::option::of(text()), prop::option::of(text())).prop_map(|(name, data, user_id)| {
            Event::Client { name: name.into(), data: data.map(Into::into), user_id: user_id.map(Into::into) }
        });
        (prop_oneof![published, client], prop::option::of(any::<[u8; 16]>())).prop_map(|(event, excluded)| {
            Publication {
                channel: "chat".into(),
                event,
                excluded: excluded.map(SocketId::from_random),
                at: Instant::now(),
                receipt: None,
            }
        })
    }

    fn messages() -> impl Strategy<Value = Message> {
        let member = (text(), prop::option::of(text())).prop_map(|(user_id, user_info)| {
            Difference::Added(PresenceMember { user_id: user_id.into(), user_info: user_info.map(Into::into) })
        });
        let difference = prop_oneof![member, text().prop_map(|user_id| Difference::Removed(user_id.into()))];
        prop_oneof![
            (text(), prop::option::of(any::<(u64, u64)>()), publications()).prop_map(|(origin, kept, publication)| {
                let kept = kept.map(|(epoch, number)| Position { epoch: Epoch(epoch), number });
                Message::Published { origin: origin.into(), kept, publication }
            }),
            (any::<u64>(), any::<u64>(), any::<u64>(), difference).prop_map(|(epoch, number, previous, difference)| {
                Message::Changed(Change { position: Position { epoch: Epoch(epoch), number }, previous, difference })
            }),
            any::<usize>().prop_map(Message::Counted),
            (text(), any::<bool>())
                .prop_map(|(user_id, is_online)| Message::Status { user_id: user_id.into(), is_online }),
            (text(), text(), any::<u64>(), text(), text()).prop_map(|(origin, from, request, app, user_id)| {
                Message::Terminate {
                    origin: origin.into(),
                    from: from.into(),
                    request,
                    app: app.into(),
                    user_id: user_id.into(),
                }
            }),
            (any::<u64>(), text()).prop_map(|(request, node)| Message::Terminated { request, node: node.into() }),
            any::<u64>().prop_map(Message::Probe),
        ]
    }

    fn channel() -> Arc<str> {
        "chat".into()
    }

    /// A message without the moment at which it was read.
    fn shown(message: &Message) -> String {
        let shown = format!("{message:?}");
        let (start, rest) = shown.split_once("at: Instant").unwrap_or((&shown, ""));
        format!("{start}{}", rest.split_once('}').map_or("", |(_, end)| end.trim_start_matches([' ', '}'])))
    }

    proptest! {
        #[test]
        fn every_message_reads_back_as_what_was_written(message in messages()) {
            let read = Message::read(&channel(), &message.write()).expect("a message");
            prop_assert_eq!(shown(&read), shown(&message));
            prop_assert_eq!(read.write(), message.write());
        }

        #[test]
        fn a_message_that_was_cut_or_goes_on_is_not_read(message in messages(), cut in any::<prop::sample::Index>()) {
            let mut bytes = message.write();
            prop_assert!(Message::read(&channel(), &bytes[..cut.index(bytes.len())]).is_err());
            bytes.push(b'0');
            prop_assert_eq!(Message::read(&channel(), &bytes).map(|_| ()), Err(Malformed::Field));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>, message in messages(), at in any::<prop::sample::Index>(), byte: u8) {
            let _ = Message::read(&channel(), &bytes);
            let _ = (happened(&bytes), kept(&channel(), &bytes), read_node(&bytes));
            let mut changed = message.write();
            let at = at.index(changed.len());
            changed[at] = byte;
            let _ = Message::read(&channel(), &changed);
        }

        #[test]
        fn what_is_kept_reads_back_from_what_stands_behind_its_position(publication in publications()) {
            let (head, tail) = Message::to_keep("node", &publication);
            let message = [&head[..], b"1:72:42", &tail].concat();
            let Ok(Message::Published { origin, kept: Some(position), publication: read }) = Message::read(&channel(), &message) else {
                return Err(TestCaseError::fail("it is the message that all nodes get"));
            };
            prop_assert_eq!((&*origin, position), ("node", Position { epoch: Epoch(7), number: 42 }));
            let published = |publication: &Publication| Message::published("", publication);
            prop_assert_eq!(published(&read), published(&publication));
            prop_assert_eq!(published(&kept(&channel(), &tail).expect("an event")), published(&publication));
        }

        #[test]
        fn different_cells_are_written_differently(a in (text(), text(), text()), b in (text(), text(), text())) {
            let cell = |(app, channel, user_id): &(String, String, String)| Cell::Member { app, channel, user_id }.write();
            prop_assert_eq!(cell(&a) == cell(&b), a == b);
        }
    }

    #[test]
    fn the_form_is_the_one_that_scripts_read_and_write() {
        let published = Event::published("new", &Payload::from("hi"));
        let publication =
            Publication { channel: channel(), event: published, excluded: None, at: Instant::now(), receipt: None };
        assert_eq!(Message::published("node", &publication), *b"1p4:node0:0:0:1:b3:new4:\"hi\"");
        let user_id: Arc<str> = "é".into();
        assert_eq!(Message::Status { user_id: Arc::clone(&user_id), is_online: true }.write(), "1s2:é1:1".as_bytes());
        let position = Position { epoch: Epoch(7), number: 10 };
        let change = Change { position, previous: 9, difference: Difference::Removed(user_id) };
        assert_eq!(Message::Changed(change).write(), "1c1:72:101:91:-2:é0:".as_bytes());
        assert_eq!(Cell::Occupied { app: "1", channel: "chat" }.write(), *b"1:o1:14:chat");
        assert_eq!(Cell::SignedIn { app: "1", user_id: "a" }.write(), *b"1:s1:11:a");
        assert_eq!(Cell::Member { app: "1", channel: "chat", user_id: "a" }.write(), *b"1:m1:14:chat1:a");
    }

    #[test]
    fn each_thing_that_webhooks_tell_of_is_read() {
        use events::Event;
        let (channel, user_id): (Arc<str>, Arc<str>) = (channel(), "a".into());
        for (text, event) in [
            ("1o1:14:chat", Event::ChannelOccupied { channel: channel.clone() }),
            ("1v1:14:chat", Event::ChannelVacated { channel: channel.clone() }),
            ("1+1:14:chat1:a", Event::MemberAdded { channel: channel.clone(), user_id: user_id.clone() }),
            ("1-1:14:chat1:a", Event::MemberRemoved { channel: channel.clone(), user_id }),
            ("1m1:14:chat", Event::CacheMiss { channel: channel.clone() }),
            ("1n1:14:chat2:12", Event::SubscriptionCount { channel, count: 12 }),
        ] {
            assert_eq!(happened(text.as_bytes()), Ok(("1".into(), event.clone(), Duration::ZERO)), "{text}");
            let may_wait = matches!(event, Event::ChannelVacated { .. } | Event::MemberRemoved { .. });
            let waited = Ok(("1".into(), event, Duration::from_secs(3)));
            let expected = if may_wait { waited } else { Err(Malformed::Field) };
            assert_eq!(happened(format!("{text}4:3000").as_bytes()), expected, "{text}");
            assert_eq!(happened(format!("{text}1:x").as_bytes()), Err(Malformed::Field), "{text}");
        }
        assert_eq!(happened(b"1z1:14:chat"), Err(Malformed::Kind));
    }

    #[test]
    fn what_a_user_says_of_itself_reads_back_and_nothing_is_not_an_empty_text() {
        assert_eq!((user_info(None), user_info(Some("")), user_info(Some("{}"))), (vec![], b"=".into(), b"={}".into()));
        for said in [None, Some(""), Some("="), Some("{}")] {
            assert_eq!(read_user_info(&user_info(said)), Ok(said));
        }
        assert_eq!(read_user_info(b"{}"), Err(Malformed::Field));
        assert_eq!(read_user_info(b"=\xff"), Err(Malformed::Field));
    }

    #[test]
    fn an_event_takes_its_memory_once_and_not_much_more_than_it_needs() {
        let event = Event::published("new", &Payload::from(&*"x".repeat(1000)));
        let publication = Publication { channel: channel(), event, excluded: None, at: Instant::now(), receipt: None };
        let (head, tail) = Message::to_keep("node", &publication);
        for bytes in [Message::published("node", &publication), head, tail] {
            assert!(bytes.capacity() - bytes.len() <= FRAME, "{} for {}", bytes.capacity(), bytes.len());
        }
    }

    #[test]
    fn a_node_is_known_by_what_it_says_of_itself() {
        assert_eq!(read_node(&node("a:b", "0.1.0", 12)), Ok(("a:b".into(), "0.1.0".into(), 12)));
    }

    #[test]
    fn what_another_version_or_a_stranger_wrote_is_refused_with_the_reason() {
        for (bytes, why) in [
            ("", Malformed::Version),
            ("2p0:0:0:0:1:b1:a2:\"\"", Malformed::Version),
            ("1", Malformed::Kind),
            ("1z", Malformed::Kind),
            ("1n", Malformed::Field),
            ("1n2:+1", Malformed::Field),
            ("1n0:", Malformed::Field),
            ("1n:1", Malformed::Field),
            ("1n+1:1", Malformed::Field),
            ("1n20:1", Malformed::Field),
            ("1n18446744073709551615:1", Malformed::Field),
            ("1n000000000000000000001:1", Malformed::Field),
            ("1s1:a1:2", Malformed::Field),
            ("1p0:1:70:0:1:b1:a2:\"\"", Malformed::Field),
            ("1p0:0:0:0:1:b1:a1:\"", Malformed::Field),
            ("1p0:0:0:0:1:b1:a2:{}", Malformed::Field),
            ("1p0:0:0:0:1:b1:a2:\"}", Malformed::Field),
            ("1p0:0:0:0:1:b1:a2:{\"", Malformed::Field),
            ("1p0:0:0:0:1:x1:a2:\"\"", Malformed::Field),
            ("1p0:0:0:4:=1.x1:b1:a2:\"\"", Malformed::Field),
            ("1p0:0:0:3:1.21:b1:a2:\"\"", Malformed::Field),
            ("1c1:11:11:01:*1:a0:", Malformed::Field),
        ] {
            assert_eq!(Message::read(&channel(), bytes.as_bytes()).map(|_| ()), Err(why), "{bytes}");
        }
        let texts = [Malformed::Version, Malformed::Kind, Malformed::Field].map(|why| why.to_string());
        assert!(texts[0].contains("version") && texts[1].contains("kind") && texts[2].contains("field"), "{texts:?}");
    }
}
