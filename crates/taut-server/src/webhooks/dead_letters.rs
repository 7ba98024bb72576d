//! Requests that have failed for good, kept to be looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::store::{Group, StoredLetter};
use super::system_time;
use crate::address;

/// A request that has failed for good.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeadLetter {
    /// Names it for [`retry`](super::Webhooks::retry).
    pub(crate) id: u64,
    /// When what it tells happened.
    #[serde(serialize_with = "milliseconds", rename = "time_ms")]
    pub(crate) time: SystemTime,
    /// When it was given up.
    #[serde(serialize_with = "milliseconds", rename = "failed_ms")]
    pub(crate) failed: SystemTime,
    /// Where it should have gone, without its query.
    pub(crate) url: String,
    /// What it tells: a JSON array of events.
    pub(crate) events: Box<RawValue>,
    /// How often it was tried since the server was started.
    pub(crate) attempts: u32,
    /// What went wrong the last time.
    pub(crate) last_error: String,
}

fn milliseconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    serializer.serialize_u64(since.as_millis() as u64)
}

/// The last letters of each app.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    letters: BTreeMap<u64, StoredLetter>,
    by_app: HashMap<Box<str>, OfApp>,
    bytes: usize,
    unsaved: BTreeSet<u64>,
    gone: Vec<u64>,
}

#[derive(Debug, Default)]
struct OfApp {
    ids: BTreeSet<u64>,
    bytes: usize,
}

impl DeadLetters {
    /// Keeps a letter, in the place of the oldest ones if there is no room.
    pub(super) fn push(&mut self, letter: StoredLetter) {
        let (id, app) = (letter.id, letter.row.app.clone());
        self.insert(letter);
        self.unsaved.insert(id);
        let first = |letters: &Self| {
            let kept = letters.by_app.get(&*app)?;
            let is_full = kept.ids.len() > MOST_PER_APP || kept.bytes > MOST_BYTES_PER_APP;
            kept.ids.first().copied().filter(|_| is_full && kept.ids.len() > 1)
        };
        while let Some(oldest) = first(self) {
            self.take(oldest);
        }
        while self.letters.len() > MOST || self.bytes > MOST_BYTES {
            let Some(&oldest) = self.letters.keys().next() else { return };
            self.take(oldest);
        }
    }

    /// Keeps a letter that the store has already.
    pub(super) fn restore(&mut self, letter: StoredLetter) {
        self.insert(letter);
    }

    fn insert(&mut self, letter: StoredLetter) {
        let bytes = letter.bytes();
        let kept = self.by_app.entry(letter.row.app.clone()).or_default();
        kept.ids.insert(letter.id);
        kept.bytes += bytes;
        self.bytes += bytes;
        self.letters.insert(letter.id, letter);
    }

    /// Takes a letter of this app away.
    pub(super) fn take_of(&mut self, app: &str, id: u64) -> Option<StoredLetter> {
        self.letters.get(&id).filter(|letter| *letter.row.app == *app)?;
        self.take(id)
    }

    fn take(&mut self, id: u64) -> Option<StoredLetter> {
        let letter = self.letters.remove(&id)?;
        self.bytes -= letter.bytes();
        if let Some(kept) = self.by_app.get_mut(&letter.row.app) {
            kept.ids.remove(&id);
            kept.bytes -= letter.bytes();
            if kept.ids.is_empty() {
                self.by_app.remove(&letter.row.app);
            }
        }
        self.unsaved.remove(&id);
        self.gone.push(id);
        Some(letter)
    }

    /// The letters of this app, the newest first.
    pub(super) fn of(&self, app: &str) -> Vec<DeadLetter> {
        let ids = self.by_app.get(app).map(|kept| kept.ids.iter().rev()).into_iter().flatten();
        ids.filter_map(|id| self.letters.get(id)).filter_map(show).collect()
    }

    /// How many there are, of all apps.
    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether the store has something to do.
    pub(super) fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty() || !self.gone.is_empty()
    }

    /// Puts all there is into a group.
    pub(super) fn save_all(&mut self, group: &mut Group) {
        self.save(group, false);
        group.dead.extend(self.letters.iter().map(|(id, letter)| (*id, Some(letter.clone()))));
    }

    /// Puts all that the store does not know into a group.
    pub(super) fn save(&mut self, group: &mut Group, rows: bool) {
        let unsaved = std::mem::take(&mut self.unsaved);
        let gone = std::mem::take(&mut self.gone);
        if rows {
            group.dead.extend(gone.into_iter().map(|id| (id, None)));
            group.dead.extend(unsaved.into_iter().map(|id| (id, self.letters.get(&id).cloned())));
        }
    }
}

fn show(letter: &StoredLetter) -> Option<DeadLetter> {
    let events = String::from_utf8(letter.row.payload.events.to_vec()).ok()?;
    Some(DeadLetter {
        id: letter.id,
        time: system_time(letter.row.created),
        failed: system_time(letter.died),
        url: address::shown(&letter.row.url),
        events: RawValue::from_string(events).ok()?,
        attempts: letter.attempts,
        last_error: letter.last_error.to_string(),
    })
}

/// Letters of one app.
const MOST_PER_APP: usize = 100;

/// Bytes of one app's letters.
const MOST_BYTES_PER_APP: usize = 2 << 20;

/// Letters of all apps.
const MOST: usize = 10_000;

/// Bytes of all letters.
const MOST_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::payload::Payload;
    use crate::webhooks::store::Row;

    fn letter(app: &str, id: u64, bytes: usize) -> StoredLetter {
        let payload = Payload::new(5, &format!("\"{}\"", "x".repeat(bytes)));
        let row = Row { app: app.into(), url: "https://a:hunter2@b/c?hunter2".into(), nth: 0, created: 5, payload };
        StoredLetter { id, row, died: 6, attempts: 3, last_error: "no".into() }
    }

    #[test]
    fn letters_are_shown_newest_first_and_without_secrets() {
        let mut dead = DeadLetters::default();
        for (id, app) in [(1, "a"), (2, "b"), (3, "a")] {
            dead.push(letter(app, id, 1));
        }
        let shown = dead.of("a");
        assert_eq!(shown.iter().map(|letter| letter.id).collect::<Vec<_>>(), [3, 1]);
        let text = serde_json::to_string(&shown[0]).expect("JSON");
        assert_eq!(
            text,
            r#"{"id":3,"time_ms":5,"failed_ms":6,"url":"https://b/c?…","events":["x"],"attempts":3,"last_error":"no"}"#
        );
        assert!(dead.of("c").is_empty());
    }

    #[test]
    fn only_the_app_itself_takes_a_letter_away() {
        let mut dead = DeadLetters::default();
        dead.push(letter("a", 1, 1));
        assert_eq!(dead.take_of("b", 1), None);
        assert_eq!(dead.take_of("a", 1).map(|letter| letter.id), Some(1));
        assert_eq!((dead.take_of("a", 1), dead.len(), dead.bytes), (None, 0, 0));
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let mut dead = DeadLetters::default();
        dead.push(letter("b", 0, 1));
        for id in 1..=MOST_PER_APP as u64 + 1 {
            dead.push(letter("a", id, 1));
        }
        assert_eq!((dead.of("a").len(), dead.of("a")[99].id, dead.of("b").len()), (MOST_PER_APP, 2, 1));
        for id in 1000..1010 {
            dead.push(letter("a", id, MOST_BYTES_PER_APP / 4));
        }
        assert_eq!(dead.of("a").len(), 3);
        for id in 2000..2100 {
            dead.push(letter(&id.to_string(), id, MOST_BYTES_PER_APP / 2));
        }
        assert!(dead.bytes <= MOST_BYTES && dead.of("b").is_empty() && dead.of("2099").len() == 1);
        let mut group = Group::default();
        dead.save(&mut group, true);
        let (put, removed): (Vec<_>, Vec<_>) = group.dead.into_iter().partition(|(_, letter)| letter.is_some());
        assert_eq!((put.len(), dead.is_unsaved()), (dead.len(), false));
        assert!(removed.iter().all(|(id, _)| *id < 2100));
    }
}
