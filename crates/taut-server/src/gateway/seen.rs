//! Which kept events a stream's client has seen: the `id` of Server-Sent Events, which comes back as `Last-Event-ID`.
//!
//! It is about all channels of the stream that keep their last event. A client reads nothing in it: a short digest of
//! each channel and of its event. What it brings that is none of ours counts as nothing.

use std::collections::VecDeque;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The kept events that a client has seen, of each channel the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The channel that changed last is the last one.
    events: VecDeque<(Mark, Mark)>,
}

/// What stands for a channel or an event: 48 bits of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark([u8; MARK]);

impl Mark {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self(std::array::from_fn(|index| digest[index]))
    }
}

impl Seen {
    /// What a client brings; nothing if it cannot be read.
    pub(crate) fn read(id: &str) -> Self {
        Self::parse(id).unwrap_or_default()
    }

    fn parse(id: &str) -> Option<Self> {
        if id.len() > LONGEST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (entries, rest) = bytes.as_chunks::<{ 2 * MARK }>();
        let mark = |half: &[u8]| Some(Mark(half.try_into().ok()?));
        let pair = |entry: &[u8; 2 * MARK]| Some((mark(&entry[..MARK])?, mark(&entry[MARK..])?));
        let events = entries.iter().map(pair).collect::<Option<_>>()?;
        rest.is_empty().then_some(Self { events })
    }

    /// The client has seen this event of this channel last. The channel that has changed least recently falls out if
    /// there are too many.
    pub(crate) fn note(&mut self, channel: Mark, event: Mark) {
        self.events.retain(|(known, _)| *known != channel);
        if self.events.len() >= MOST {
            self.events.pop_front();
        }
        self.events.push_back((channel, event));
    }

    /// Whether this event of this channel is the one that the client has seen last.
    pub(crate) fn contains(&self, channel: Mark, event: Mark) -> bool {
        self.events.contains(&(channel, event))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = self.events.iter().flat_map(|(channel, event)| [channel.0, event.0]).flatten().collect();
        formatter.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Bytes.
const MARK: usize = 6;

/// Channels.
const MOST: usize = 64;

/// Characters of an id: base64 has four for three bytes.
const LONGEST: usize = MOST * 2 * MARK / 3 * 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(text: &str) -> Mark {
        Mark::of(text.as_bytes())
    }

    #[test]
    fn an_id_is_about_all_channels_and_the_last_event_of_each() {
        let mut seen = Seen::default();
        seen.note(mark("cache-a"), mark("1"));
        seen.note(mark("cache-b"), mark("2"));
        seen.note(mark("cache-a"), mark("3"));
        let read = Seen::read(&seen.to_string());
        assert_eq!(read, seen);
        for (channel, event, is_seen) in [
            ("cache-a", "3", true),
            ("cache-b", "2", true),
            ("cache-a", "1", false),
            ("cache-b", "3", false),
            ("3", "cache-a", false),
        ] {
            assert_eq!(read.contains(mark(channel), mark(event)), is_seen, "{channel} {event}");
        }
        assert_eq!(seen.to_string().len(), 32);
    }

    /// Clients bring ids that another version of the server has made.
    #[test]
    fn an_id_is_the_same_everywhere() {
        let mut seen = Seen::default();
        assert_eq!(seen.to_string(), "");
        seen.note(mark("cache-a"), mark("{}"));
        let digests = [Sha256::digest("cache-a"), Sha256::digest("{}")];
        let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest[..6].to_vec()).collect();
        assert_eq!(seen.to_string(), URL_SAFE_NO_PAD.encode(bytes));
    }

    #[test]
    fn an_id_that_cannot_be_read_counts_as_none() {
        let mut seen = Seen::default();
        seen.note(mark("a"), mark("b"));
        let id = seen.to_string();
        for other in ["", "x", "a b", &id[1..], &format!("{id}="), &format!("{id}AAAA"), &"A".repeat(LONGEST + 16)] {
            assert_eq!(Seen::read(other), Seen::default(), "{other}");
        }
        assert_ne!(Seen::read(&"A".repeat(LONGEST)), Seen::default());
    }

    #[test]
    fn an_id_is_bounded_and_the_channels_that_change_stay() {
        let mut seen = Seen::default();
        for number in 0..MOST {
            seen.note(mark(&format!("cache-{number}")), mark("x"));
        }
        seen.note(mark("cache-0"), mark("y"));
        seen.note(mark("cache-new"), mark("z"));
        assert_eq!(seen.to_string().len(), LONGEST);
        assert!(seen.contains(mark("cache-0"), mark("y")) && seen.contains(mark("cache-new"), mark("z")));
        assert!(!seen.contains(mark("cache-1"), mark("x")) && seen.contains(mark("cache-2"), mark("x")));
        assert_eq!(Seen::read(&seen.to_string()), seen);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_bounded(id: String) {
            prop_assert!(Seen::read(&id).events.len() <= MOST);
        }
    }
}
