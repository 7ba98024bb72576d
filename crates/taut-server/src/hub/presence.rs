//! Who is in a presence channel.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::sync::Arc;

use super::subscriptions::give_back;
use crate::pusher::json::write_json_string;
use crate::query::PresentMember;

/// The users of one presence channel, each once, however many connections they have there.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    users: HashMap<Arc<str>, Present>,
    /// Bytes of all [`Present::text`].
    bytes: usize,
}

#[derive(Debug)]
struct Present {
    /// None while the user may be back.
    connections: u32,
    /// `\"ID\":INFO` as it stands in the list of members, which is JSON within a JSON string: escaped once, when the user came.
    text: Box<str>,
    /// How much of that is the id with its quotes.
    id: usize,
}

impl Roster {
    /// A connection of this user joins; whether it is the user's first. What the user says of itself counts then only: it stays the same for as long
    /// as the user is there.
    pub(crate) fn join(&mut self, user_id: &Arc<str>, user_info: Option<&str>) -> bool {
        match self.users.entry(Arc::clone(user_id)) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().connections += 1;
                false
            }
            Entry::Vacant(entry) => {
                let present = Present::new(user_id, user_info);
                self.bytes += present.text.len() + present.id;
                entry.insert(present);
                true
            }
        }
    }

    /// A connection of this user is lost, and the user may be back; whether it was the user's last. The user stays until
    /// it [leaves](Self::leave).
    pub(super) fn lose(&mut self, user_id: &Arc<str>) -> bool {
        let Some(present) = self.users.get_mut(user_id).filter(|present| present.connections > 0) else { return false };
        present.connections -= 1;
        present.connections == 0
    }

    /// A connection of this user leaves, or its last one has been lost; whether the user has none left.
    pub(crate) fn leave(&mut self, user_id: &Arc<str>) -> bool {
        let Entry::Occupied(mut entry) = self.users.entry(Arc::clone(user_id)) else {
            return false;
        };
        let connections = &mut entry.get_mut().connections;
        *connections = connections.saturating_sub(1);
        if entry.get().connections > 0 {
            return false;
        }
        let present = entry.remove();
        self.bytes -= present.text.len() + present.id;
        give_back(&mut self.users);
        true
    }

    /// Whether the user is there.
    pub(crate) fn contains(&self, user_id: &str) -> bool {
        self.users.contains_key(user_id)
    }

    /// What the user says of itself, as JSON text; `None` where it says nothing, or is not there.
    pub(crate) fn user_info(&self, user_id: &str) -> Option<Box<str>> {
        self.users.get(user_id)?.user_info()
    }

    /// How many users are there.
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Who is there.
    pub(crate) fn users(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.keys()
    }

    /// The first `most` users by id.
    pub(crate) fn first(&self, most: usize) -> Vec<PresentMember> {
        let mut users: Vec<_> = self.users.iter().collect();
        if users.len() > most {
            // The rest need not be sorted.
            users.select_nth_unstable_by_key(most, |(user_id, _)| *user_id);
            users.truncate(most);
        }
        users.sort_unstable_by_key(|(user_id, _)| *user_id);
        let listed = |(user_id, present): (&Arc<str>, &Present)| PresentMember {
            user_id: Arc::clone(user_id),
            user_info: present.user_info(),
            connections: present.connections,
        };
        users.into_iter().map(listed).collect()
    }

    /// What a newcomer is told, `{"presence":{"ids":[…],"hash":{…},"count":N}}`, with everything escaped that a JSON string must not hold as it is.
    pub(crate) fn members(&self) -> String {
        // Two commas for each, and what stands around them.
        let mut text = String::with_capacity(self.bytes + 2 * self.users.len() + 80);
        text.push_str(r#"{\"presence\":{\"ids\":["#);
        let separate = |text: &mut String, number| {
            if number > 0 {
                text.push(',');
            }
        };
        for (number, present) in self.users.values().enumerate() {
            separate(&mut text, number);
            text.push_str(&present.text[..present.id]);
        }
        text.push_str(r#"],\"hash\":{"#);
        for (number, present) in self.users.values().enumerate() {
            separate(&mut text, number);
            text.push_str(&present.text);
        }
        // Writing to a `String` cannot fail.
        let _ = write!(text, r#"}},\"count\":{}}}}}"#, self.users.len());
        text
    }
}

impl Present {
    fn new(user_id: &str, user_info: Option<&str>) -> Self {
        let mut plain = String::new();
        write_json_string(&mut plain, user_id);
        let mut escaped = String::new();
        write_json_string(&mut escaped, &plain);
        // Without the quotes that make it a string of its own; the same below.
        let id = escaped.len() - 2;
        let mut text = escaped[1..=id].to_owned();
        plain.clear();
        plain.push(':');
        plain.push_str(user_info.unwrap_or("null"));
        escaped.clear();
        write_json_string(&mut escaped, &plain);
        text.push_str(&escaped[1..escaped.len() - 1]);
        Self { connections: 1, text: text.into(), id }
    }

    /// JSON text, as it came; `None` where the user says nothing of itself.
    fn user_info(&self) -> Option<Box<str>> {
        let text: String = serde_json::from_str(&format!("\"{}\"", &self.text[self.id..])).ok()?;
        text.strip_prefix(':').filter(|info| *info != "null").map(Box::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn listed(roster: &Roster) -> Value {
        let text: String = serde_json::from_str(&format!("\"{}\"", roster.members())).expect("the inside of a string");
        let mut list: Value = serde_json::from_str(&text).expect("JSON in it");
        list["presence"]["ids"].as_array_mut().expect("ids").sort_by_key(ToString::to_string);
        list["presence"].take()
    }

    #[test]
    fn the_first_users_by_id_are_listed_with_what_they_say_of_themselves() {
        let mut roster = Roster::default();
        for number in (0..50).rev() {
            roster.join(&format!("user-{number:02}").into(), None);
        }
        let (odd, quiet): (Arc<str>, Arc<str>) = ("a\"\\ü".into(), "b".into());
        let info = r#"{"name":"A\\ \"x\" 😀","n":null}"#;
        roster.join(&odd, Some(info));
        roster.join(&odd, Some("2"));
        roster.join(&quiet, Some("null"));
        let listed = |most| -> Vec<_> {
            let first = roster.first(most).into_iter();
            first.map(|member| (member.user_id.to_string(), member.user_info, member.connections)).collect()
        };
        let expected = [
            (odd.to_string(), Some(info.into()), 2),
            (quiet.to_string(), None, 1),
            ("user-00".to_owned(), None, 1),
            ("user-01".to_owned(), None, 1),
        ];
        assert_eq!(listed(4), expected);
        assert_eq!((listed(0).len(), listed(51).len(), listed(52).len(), listed(1000).len()), (0, 51, 52, 52));
        assert!(listed(1000).is_sorted_by_key(|(user_id, ..)| user_id.clone()));
    }

    #[test]
    fn a_user_counts_once_and_stays_until_its_last_connection_leaves() {
        let mut roster = Roster::default();
        let (ann, bob): (Arc<str>, Arc<str>) = ("10".into(), "b\"ob".into());
        assert!(roster.join(&ann, Some(r#"{"name":"A\\"}"#)));
        assert!(!roster.join(&ann, Some(r#"{"name":"other"}"#)));
        assert!(roster.join(&bob, None));
        assert_eq!(
            listed(&roster),
            json!({ "ids": ["10", "b\"ob"], "hash": { "10": { "name": "A\\" }, "b\"ob": null }, "count": 2 })
        );
        assert!(!roster.leave(&ann) && roster.contains("10"));
        assert!(roster.leave(&ann) && !roster.contains("10"));
        assert!(!roster.leave(&ann), "it is gone already");
        assert!(roster.leave(&bob) && roster.is_empty());
        assert_eq!(listed(&roster), json!({ "ids": [], "hash": {}, "count": 0 }));
        assert_eq!(roster.bytes, 0);
    }

    #[test]
    fn users_that_have_left_keep_no_memory_and_a_list_is_written_into_one_piece_of_it() {
        let mut roster = Roster::default();
        let all: Vec<Arc<str>> = (0..1000).map(|number| number.to_string().into()).collect();
        for user_id in &all {
            roster.join(user_id, Some(r#"{"name":"somebody"}"#));
        }
        let members = roster.members();
        let room = members.capacity();
        assert!((members.len()..members.len() + 100).contains(&room), "{room} for {}", members.len());
        assert_eq!(roster.len(), 1000);
        for user_id in &all[1..] {
            roster.leave(user_id);
        }
        assert_eq!((roster.len(), roster.bytes), (1, 2 * r#"\"0\""#.len() + r#":{\"name\":\"somebody\"}"#.len()));
        assert!(roster.users.capacity() <= 28, "{}", roster.users.capacity());
    }

    proptest! {
        #[test]
        fn every_sequence_agrees_with_plain_counting(steps in proptest::collection::vec((0..8u8, any::<bool>(), ".*"), 0..60)) {
            let mut roster = Roster::default();
            let mut model: BTreeMap<String, (u32, String)> = BTreeMap::new();
            for (user, joins, info) in steps {
                let user_id = format!("\"{user}\u{7}é");
                let shared: Arc<str> = user_id.as_str().into();
                if joins {
                    let info = serde_json::to_string(&info).expect("JSON");
                    let first = !model.contains_key(&user_id);
                    prop_assert_eq!(roster.join(&shared, Some(&info)), first);
                    model.entry(user_id).or_insert((0, info)).0 += 1;
                } else if let Some((connections, _)) = model.get_mut(&user_id) {
                    *connections -= 1;
                    let last = *connections == 0;
                    prop_assert_eq!(roster.leave(&shared), last);
                    if last {
                        model.remove(&user_id);
                    }
                } else {
                    prop_assert!(!roster.leave(&shared));
                }
            }
            let hash: serde_json::Map<String, Value> = model
                .iter()
                .map(|(id, (_, info))| (id.clone(), serde_json::from_str(info).expect("JSON")))
                .collect();
            let mut ids: Vec<Value> = model.keys().map(|id| json!(id)).collect();
            ids.sort_by_key(ToString::to_string);
            prop_assert_eq!(listed(&roster), json!({ "ids": ids, "hash": hash, "count": model.len() }));
        }
    }
}
