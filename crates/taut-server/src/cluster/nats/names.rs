//! What streams and subjects are called.
//!
//! Subjects are tokens between dots, and servers take `*` and `>` in them for wildcards. The ids of apps and the names of channels and users may
//! have all that in them, so each of them becomes one token.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::entry::{Content, Entry, Key};

/// The names of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Box<str>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: token(prefix).into() }
    }

    /// The stream with what all nodes hold.
    pub(super) fn log(&self) -> String {
        format!("{}-log", self.prefix)
    }

    /// What the log takes.
    pub(super) fn log_subjects(&self) -> String {
        format!("{}.log.>", self.prefix)
    }

    /// The subject of an entry of the log, which keeps the last one of each.
    pub(super) fn entry(&self, entry: &Entry) -> String {
        let incarnation = &*entry.incarnation;
        let cell = |kind: &str, names: &[&str]| {
            let mut subject = format!("{}.log.cell.{incarnation}.{kind}", self.prefix);
            for name in names {
                subject.push('.');
                subject.push_str(&token(name));
            }
            subject
        };
        let key = |key: &Key| match key {
            Key::Occupied { app, channel } => cell("o", &[app, channel]),
            Key::Member { app, channel, user_id } => cell("m", &[app, channel, user_id]),
            Key::SignedIn { app, user_id } => cell("s", &[app, user_id]),
            Key::Counted { app, channel } => cell("c", &[app, channel]),
        };
        match &entry.content {
            Content::Renewed { .. } | Content::Left { .. } | Content::Fenced => self.lease(incarnation),
            Content::Entered => cell("entered", &[]),
            Content::Told { .. } => cell("told", &[]),
            Content::Missed { app, channel, .. } => cell("missed", &[app, channel]),
            Content::Holds(holding) => key(&holding.key()),
            Content::Released { key: released, .. } => key(released),
            Content::Shared { app, .. } => self.shares(app),
            Content::Tidied { .. } => self.tidied(),
        }
    }

    /// The subject on which an incarnation renews its lease, and another one fences it.
    pub(super) fn lease(&self, incarnation: &str) -> String {
        format!("{}.log.lease.{incarnation}", self.prefix)
    }

    /// The subject with what all nodes have of an app's connections.
    pub(super) fn shares(&self, app: &str) -> String {
        format!("{}.log.shares.{}", self.prefix, token(app))
    }

    /// The subject that says up to where entries may have been taken out of the log.
    pub(super) fn tidied(&self) -> String {
        format!("{}.log.tidied", self.prefix)
    }

    /// Everything that an incarnation has written, but its lease.
    pub(super) fn cells(&self, incarnation: &str) -> String {
        format!("{}.log.cell.{incarnation}.>", self.prefix)
    }

    /// The stream with the last events that are kept for at most so many seconds.
    pub(super) fn last(&self, seconds: u64) -> String {
        format!("{}-last-{seconds}", self.prefix)
    }

    /// What that stream takes, and where it announces it.
    pub(super) fn last_subjects(&self, seconds: u64) -> (String, String) {
        (format!("{}.last.{seconds}.>", self.prefix), format!("{}.channel.>", self.prefix))
    }

    /// Where an event is published that is to be kept.
    pub(super) fn keep(&self, seconds: u64, app: &str, channel: &str) -> String {
        format!("{}.last.{seconds}.{}.{}", self.prefix, token(app), token(channel))
    }

    /// The stream with the users whose connections were closed on all nodes, and what it takes.
    pub(super) fn terminated(&self) -> String {
        format!("{}-terminated", self.prefix)
    }

    pub(super) fn terminated_subjects(&self) -> String {
        format!("{}.terminated.>", self.prefix)
    }

    /// Where it is written that a user's connections are closed.
    pub(super) fn terminated_user(&self, app: &str, user_id: &str) -> String {
        format!("{}.terminated.{}.{}", self.prefix, token(app), token(user_id))
    }

    /// Where the events of a channel are heard.
    pub(super) fn channel(&self, app: &str, channel: &str) -> String {
        format!("{}.channel.{}.{}", self.prefix, token(app), token(channel))
    }

    /// To all nodes.
    pub(super) fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// To one node.
    pub(super) fn node(&self, incarnation: &str) -> String {
        format!("{}.node.{incarnation}", self.prefix)
    }

    /// Where nobody listens: the server says so, and has done all that was said before.
    pub(super) fn nobody(&self) -> String {
        format!("{}.nobody", self.prefix)
    }
}

/// A name as one token: letters, digits, `-` and `_` stay, every other byte becomes `=` and two hexadecimal digits. No two names have the same
/// token. The token of an empty name is `=`, that of a very long one its hash.
pub(super) fn token(name: &str) -> String {
    if name.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("a String takes everything");
        }
    }
    if token.len() <= LONGEST_TOKEN {
        return token;
    }
    let mut hash = "==".to_owned();
    for byte in Sha256::digest(name.as_bytes()) {
        write!(hash, "{byte:02X}").expect("a String takes everything");
    }
    hash
}

/// A server takes 4,096 bytes in the line that precedes a message, and a subject has three names at the most.
const LONGEST_TOKEN: usize = 600;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::cluster::nats::entry::Holding;
    use proptest::prelude::*;

    #[test]
    fn every_name_is_one_token() {
        for (name, expected) in [
            ("chat", "chat"),
            ("presence-a_1", "presence-a_1"),
            ("a.b", "a=2Eb"),
            ("*", "=2A"),
            ("a.>", "a=2E=3E"),
            ("a b", "a=20b"),
            ("a=2Eb", "a=3D2Eb"),
            ("#server-to-user-é", "=23server-to-user-=C3=A9"),
            ("\r\nPUB x 0", "=0D=0APUB=20x=200"),
            ("", "="),
        ] {
            assert_eq!(token(name), expected, "{name}");
        }
        let long = token(&"é".repeat(200));
        assert!(long.starts_with("==") && long.len() == 66, "{long}");
    }

    proptest! {
        #[test]
        fn different_names_have_different_tokens(names in prop::collection::hash_set("[ab.*>= é]{0,4}", 1..40)) {
            let tokens: HashSet<_> = names.iter().map(|name| token(name)).collect();
            prop_assert_eq!(tokens.len(), names.len());
        }

        #[test]
        fn a_token_has_nothing_that_a_server_understands(name in any::<String>()) {
            let token = token(&name);
            prop_assert!(!token.is_empty() && token.len() <= LONGEST_TOKEN);
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)), "{}", token);
        }
    }

    #[test]
    fn names_begin_with_the_prefix_and_entries_lie_where_they_can_be_taken_away() {
        let names = Names::new("shop.live");
        assert_eq!(names.log(), "shop=2Elive-log");
        assert_eq!(names.channel("1", "a.b"), "shop=2Elive.channel.1.a=2Eb");
        let (app, channel): (Arc<str>, Arc<str>) = ("1".into(), "presence-a".into());
        let member = Holding::Member { app, channel, user_id: "a.b".into(), user_info: None, most: 0 };
        let entry = |content| Entry { incarnation: "i".into(), content };
        let held = names.entry(&entry(Content::Holds(member.clone())));
        assert_eq!(held, "shop=2Elive.log.cell.i.m.1.presence-a.a=2Eb");
        let released = Content::Released { key: member.key(), waited: std::time::Duration::ZERO };
        assert_eq!(held, names.entry(&entry(released)));
        assert!(held.starts_with(names.cells("i").trim_end_matches('>')));
        assert_eq!(names.entry(&entry(Content::Fenced)), names.lease("i"));
        assert!(!names.lease("i").starts_with(names.cells("i").trim_end_matches('>')));
    }
}
