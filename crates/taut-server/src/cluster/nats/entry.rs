//! What nodes write into their log, as bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::backlog::Place;
use crate::cluster::wire::{self, Fields, Malformed};

/// One entry of the log: an incarnation says something of itself, or another one says that it is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) incarnation: Arc<str>,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The incarnation is part of the cluster from here on: nothing that it writes before this counts.
    Entered,
    /// It lives. What it says of itself is for those who look at the cluster.
    Renewed { name: Box<str>, version: Box<str>, connections: u64 },
    /// It has left, and writes nothing more. What it holds stays for this long: users may be back on other nodes.
    Left { grace: Duration },
    /// It is dead: nothing that it has written, or writes later, counts.
    Fenced,
    /// It has told webhooks everything that follows from the log up to this sequence, and what [`Told`] says.
    Told { sequence: u64, beyond: Told },
    /// It holds this from here on.
    Holds(Holding),
    /// It does not hold this any longer. That has been held back for as long as it `waited`.
    Released { key: Key, waited: Duration },
    /// So many connections of the app each of these incarnations may have. Whoever writes it knows the entry before it.
    Shared { app: Arc<str>, shares: Vec<(Box<str>, usize)> },
    /// Entries up to this sequence may be taken out of the log. Whoever writes it knows the entry before it.
    Tidied { up_to: u64 },
    /// It has looked in vain for the last event of a cache channel, where event `number` was the last one that was kept; 0: none.
    Missed { app: Arc<str>, channel: Arc<str>, number: u64 },
}

/// What webhooks have been told beyond a sequence. It stands in a header, so that nodes that do not know it read the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Everything up to this sequence
    pub(super) last: u64,
    /// but these: removals that are held back.
    pub(super) held: BTreeSet<Place>,
}

/// What an incarnation can hold, once each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// The channel has subscribers on the node.
    Occupied { app: Arc<str>, channel: Arc<str> },
    /// The user is in the presence channel.
    Member { app: Arc<str>, channel: Arc<str>, user_id: Arc<str> },
    /// The user has signed in.
    SignedIn { app: Arc<str>, user_id: Arc<str> },
    /// The channel's subscribers are counted.
    Counted { app: Arc<str>, channel: Arc<str> },
}

/// A key, and what is said with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    Occupied {
        app: Arc<str>,
        channel: Arc<str>,
    },
    /// `most` is how many users the channel may have; 0: any number.
    Member {
        app: Arc<str>,
        channel: Arc<str>,
        user_id: Arc<str>,
        user_info: Option<Box<str>>,
        most: usize,
    },
    SignedIn {
        app: Arc<str>,
        user_id: Arc<str>,
    },
    /// So many subscribers; they stand in place of those that `former` incarnations of the node have counted.
    Counted {
        app: Arc<str>,
        channel: Arc<str>,
        subscribers: usize,
        former: Vec<Box<str>>,
    },
}

impl Holding {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Occupied { app, channel } => Key::Occupied { app: Arc::clone(app), channel: Arc::clone(channel) },
            Self::Member { app, channel, user_id, .. } => {
                Key::Member { app: Arc::clone(app), channel: Arc::clone(channel), user_id: Arc::clone(user_id) }
            }
            Self::SignedIn { app, user_id } => Key::SignedIn { app: Arc::clone(app), user_id: Arc::clone(user_id) },
            Self::Counted { app, channel, .. } => Key::Counted { app: Arc::clone(app), channel: Arc::clone(channel) },
        }
    }
}

impl Entry {
    pub(super) fn write(&self) -> Vec<u8> {
        let incarnation = &*self.incarnation;
        match &self.content {
            Content::Entered => wire::written(ENTERED, &[incarnation]),
            Content::Renewed { name, version, connections } => {
                wire::written(RENEWED, &[incarnation, name, version, &connections.to_string()])
            }
            Content::Left { grace } => wire::written(LEFT, &[incarnation, &grace.as_millis().to_string()]),
            Content::Fenced => wire::written(FENCED, &[incarnation]),
            Content::Told { sequence, .. } => wire::written(TOLD, &[incarnation, &sequence.to_string()]),
            Content::Tidied { up_to } => wire::written(TIDIED, &[incarnation, &up_to.to_string()]),
            Content::Missed { app, channel, number } => {
                wire::written(MISSED, &[incarnation, app, channel, &number.to_string()])
            }
            Content::Released { key, waited } => {
                let (mut fields, waited) = (vec![incarnation], waited.as_millis().to_string());
                key.fields(&mut fields);
                fields.push(&waited);
                wire::written(RELEASED, &fields)
            }
            Content::Shared { app, shares } => {
                let count = shares.len().to_string();
                let numbers: Vec<_> = shares.iter().map(|(_, share)| share.to_string()).collect();
                let mut fields = vec![incarnation, &**app, &*count];
                for ((incarnation, _), number) in shares.iter().zip(&numbers) {
                    fields.extend([&**incarnation, &**number]);
                }
                wire::written(SHARED, &fields)
            }
            Content::Holds(holding) => {
                let (key, texts) = (holding.key(), holding.texts());
                let mut fields = vec![incarnation];
                key.fields(&mut fields);
                fields.extend(texts.iter().map(|text| &**text));
                wire::written(HOLDS, &fields)
            }
        }
    }

    /// What stands in the header [`TOLD`](super::api::TOLD) beside it.
    pub(super) fn header(&self) -> Option<String> {
        match &self.content {
            Content::Told { beyond, .. } if !beyond.held.is_empty() => Some(beyond.write()),
            _ => None,
        }
    }

    /// Reads an entry and its header.
    pub(super) fn read(bytes: &[u8], header: Option<&str>) -> Result<Self, Malformed> {
        let (kind, mut fields) = wire::opened(bytes)?;
        let incarnation = fields.text()?.into();
        let content = match kind {
            ENTERED => Content::Entered,
            RENEWED => Content::Renewed {
                name: fields.text()?.into(),
                version: fields.text()?.into(),
                connections: fields.number()?,
            },
            LEFT => Content::Left { grace: Duration::from_millis(fields.number()?) },
            FENCED => Content::Fenced,
            TOLD => {
                let beyond = header.map(|text| Told::read(text).ok_or(Malformed::Field)).transpose()?;
                Content::Told { sequence: fields.number()?, beyond: beyond.unwrap_or_default() }
            }
            TIDIED => Content::Tidied { up_to: fields.number()? },
            MISSED => {
                Content::Missed { app: fields.text()?.into(), channel: fields.text()?.into(), number: fields.number()? }
            }
            RELEASED => {
                let key = Key::read(&mut fields)?;
                Content::Released { key, waited: Duration::from_millis(fields.number()?) }
            }
            SHARED => {
                let (app, count) = (fields.text()?.into(), fields.number::<usize>()?);
                let mut share = || -> Result<_, Malformed> { Ok((fields.text()?.into(), fields.number()?)) };
                Content::Shared { app, shares: (0..count).map(|_| share()).collect::<Result<_, _>>()? }
            }
            HOLDS => Content::Holds(Holding::read(&mut fields)?),
            _ => return Err(Malformed::Kind),
        };
        fields.end()?;
        Ok(Self { incarnation, content })
    }
}

impl Told {
    /// Each place is written by how far it is from the one before.
    fn write(&self) -> String {
        let (mut text, mut before) = (self.last.to_string(), 0);
        for (sequence, number) in &self.held {
            write!(text, " {}", sequence - before).expect("a string takes everything");
            if *number > 0 {
                write!(text, ".{number}").expect("a string takes everything");
            }
            before = *sequence;
        }
        text
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let last = words.next()?.parse().ok()?;
        let (mut held, mut sequence) = (BTreeSet::new(), 0_u64);
        for word in words {
            let (distance, number) = word.split_once('.').unwrap_or((word, "0"));
            sequence = sequence.checked_add(distance.parse().ok()?)?;
            held.insert((sequence, number.parse().ok()?));
        }
        Some(Self { last, held })
    }
}

impl Key {
    fn fields<'a>(&'a self, out: &mut Vec<&'a str>) {
        match self {
            Self::Occupied { app, channel } => out.extend(["o", app, channel]),
            Self::Member { app, channel, user_id } => out.extend(["m", app, channel, user_id]),
            Self::SignedIn { app, user_id } => out.extend(["s", app, user_id]),
            Self::Counted { app, channel } => out.extend(["c", app, channel]),
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let kind = fields.text()?;
        let (app, name) = (fields.text()?.into(), fields.text()?.into());
        Ok(match kind {
            "o" => Self::Occupied { app, channel: name },
            "m" => Self::Member { app, channel: name, user_id: fields.text()?.into() },
            "s" => Self::SignedIn { app, user_id: name },
            "c" => Self::Counted { app, channel: name },
            _ => return Err(Malformed::Field),
        })
    }
}

impl Holding {
    /// What stands behind the key.
    fn texts(&self) -> Vec<String> {
        match self {
            Self::Occupied { .. } | Self::SignedIn { .. } => Vec::new(),
            Self::Member { user_info, most, .. } => {
                let user_info = user_info.as_ref().map(|text| format!("={text}")).unwrap_or_default();
                vec![user_info, most.to_string()]
            }
            Self::Counted { subscribers, former, .. } => {
                let numbers = [subscribers.to_string(), former.len().to_string()];
                numbers.into_iter().chain(former.iter().map(ToString::to_string)).collect()
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(match Key::read(fields)? {
            Key::Occupied { app, channel } => Self::Occupied { app, channel },
            Key::SignedIn { app, user_id } => Self::SignedIn { app, user_id },
            Key::Member { app, channel, user_id } => {
                let user_info = fields.text_if_any()?.map(Into::into);
                Self::Member { app, channel, user_id, user_info, most: fields.number()? }
            }
            Key::Counted { app, channel } => {
                let (subscribers, count) = (fields.number()?, fields.number::<usize>()?);
                // A number that lies ends with the fields.
                let former = (0..count).map(|_| fields.text().map(Into::into)).collect::<Result<_, _>>()?;
                Self::Counted { app, channel, subscribers, former }
            }
        })
    }
}

const ENTERED: u8 = b'e';
const RENEWED: u8 = b'l';
const LEFT: u8 = b'g';
const FENCED: u8 = b'f';
const SHARED: u8 = b'p';
const TOLD: u8 = b't';
const TIDIED: u8 = b'd';
const MISSED: u8 = b'm';
const HOLDS: u8 = b'+';
const RELEASED: u8 = b'-';

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Arc<str>> {
        prop_oneof![".{0,12}", Just(String::new()), Just("3:=abc".to_owned())].prop_map(Into::into)
    }

    fn holdings() -> impl Strategy<Value = Holding> {
        prop_oneof![
            (text(), text()).prop_map(|(app, channel)| Holding::Occupied { app, channel }),
            (text(), text(), text(), prop::option::of(text()), any::<usize>()).prop_map(
                |(app, channel, user_id, user_info, most)| Holding::Member {
                    app,
                    channel,
                    user_id,
                    user_info: user_info.map(|it| (*it).into()),
                    most
                }
            ),
            (text(), text()).prop_map(|(app, user_id)| Holding::SignedIn { app, user_id }),
            (text(), text(), any::<usize>(), prop::collection::vec(text(), 0..3)).prop_map(
                |(app, channel, subscribers, former)| {
                    let former = former.iter().map(|it| (**it).into()).collect();
                    Holding::Counted { app, channel, subscribers, former }
                }
            ),
        ]
    }

    fn told() -> impl Strategy<Value = Told> {
        let held = prop::collection::btree_set((any::<u64>(), any::<u64>()), 1..4);
        let some = (any::<u64>(), held).prop_map(|(last, held)| Told { last, held });
        prop_oneof![Just(Told::default()), some]
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let content = prop_oneof![
            Just(Content::Entered),
            (text(), text(), any::<u64>()).prop_map(|(name, version, connections)| Content::Renewed {
                name: (*name).into(),
                version: (*version).into(),
                connections
            }),
            any::<u32>().prop_map(|grace| Content::Left { grace: Duration::from_millis(grace.into()) }),
            Just(Content::Fenced),
            (text(), prop::collection::vec((text(), any::<usize>()), 0..3)).prop_map(|(app, shares)| {
                Content::Shared { app, shares: shares.into_iter().map(|(it, share)| ((*it).into(), share)).collect() }
            }),
            (any::<u64>(), told()).prop_map(|(sequence, beyond)| Content::Told { sequence, beyond }),
            any::<u64>().prop_map(|up_to| Content::Tidied { up_to }),
            (text(), text(), any::<u64>()).prop_map(|(app, channel, number)| Content::Missed { app, channel, number }),
            holdings().prop_map(Content::Holds),
            (holdings(), any::<u32>()).prop_map(|(holding, waited)| Content::Released {
                key: holding.key(),
                waited: Duration::from_millis(waited.into())
            }),
        ];
        (text(), content).prop_map(|(incarnation, content)| Entry { incarnation, content })
    }

    proptest! {
        #[test]
        fn every_entry_reads_back_as_what_was_written(entry in entries()) {
            prop_assert_eq!(Entry::read(&entry.write(), entry.header().as_deref()), Ok(entry));
        }

        #[test]
        fn an_entry_that_was_cut_or_goes_on_is_not_read(entry in entries(), cut in any::<prop::sample::Index>()) {
            let mut bytes = entry.write();
            prop_assert!(Entry::read(&bytes[..cut.index(bytes.len())], None).is_err());
            bytes.push(b'0');
            prop_assert!(Entry::read(&bytes, None).is_err());
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>, header in "[0-9. ]{0,30}|.{0,9}", entry in entries(), at in any::<prop::sample::Index>(), byte: u8) {
            let _ = Entry::read(&bytes, Some(&header));
            let mut changed = entry.write();
            let at = at.index(changed.len());
            changed[at] = byte;
            let _ = Entry::read(&changed, Some(&header));
        }
    }

    #[test]
    fn an_entry_that_claims_more_than_it_has_costs_nothing() {
        let claims = b"1+1:a1:c1:11:x1:119:9999999999999999999";
        assert_eq!(Entry::read(claims, None), Err(Malformed::Field));
    }

    #[test]
    fn what_is_told_beyond_a_sequence_stands_in_few_characters() {
        let told = Told { last: 90, held: [(17, 0), (18, 0), (18, 2), (60, 1)].into() };
        assert_eq!(told.write(), "90 17 1 0.2 42.1");
        assert_eq!(Told::read(&told.write()), Some(told));
        assert_eq!(Told::read("90"), Some(Told { last: 90, held: BTreeSet::new() }));
        for wrong in ["", " 1", "x", "1 x", "1 2.x", "1  2", "1 2.", "1 18446744073709551615 1", "1 -1"] {
            assert_eq!(Told::read(wrong), None, "{wrong}");
        }
    }
}
