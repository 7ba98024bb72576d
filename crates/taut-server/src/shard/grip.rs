//! What a backend has asked for on a connection by GRIP, beside what every route has.

use std::collections::BTreeMap;
use std::time::Duration;

use taut_proto::Time;

use crate::gateway::grip::{ControlMessage, Filters, KeepAlive, Kind, Mode};

/// What GRIP keeps of one connection.
#[derive(Debug, Default)]
pub(super) struct Grip {
    /// Of the subscriptions that have any, by channel.
    filters: BTreeMap<String, Filters>,
    /// What the filters go by.
    meta: BTreeMap<String, String>,
    keep_alive: Option<(KeepAlive, Time)>,
    delayed: Option<(ControlMessage, Time)>,
    /// When this is to be looked at.
    scheduled: Option<Time>,
    /// The backend wants to be told nothing more.
    pub(super) is_detached: bool,
}

impl Grip {
    /// The connection subscribes, or changes what it skips of a channel.
    pub(super) fn filter(&mut self, channel: &str, filters: Filters) {
        if filters == Filters::default() {
            self.filters.remove(channel);
        } else {
            self.filters.insert(channel.to_owned(), filters);
        }
    }

    pub(super) fn unsubscribed(&mut self, channel: &str) {
        self.filters.remove(channel);
    }

    /// Sets what filters go by; nothing, if there is no room for it.
    pub(super) fn set_meta(&mut self, name: String, value: Option<String>) -> Result<(), &'static str> {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            self.meta.remove(&name);
            return Ok(());
        };
        let bytes: usize =
            self.meta.iter().filter(|(known, _)| **known != name).map(|it| it.0.len() + it.1.len()).sum();
        if bytes + name.len() + value.len() > MOST_META {
            return Err("its metadata would have more than 4096 bytes");
        }
        self.meta.insert(name, value);
        Ok(())
    }

    /// Whether a subscription leaves out a message with this meta. `is_subscribed` says whether the connection is in a channel.
    pub(super) fn skips(
        &self,
        channel: &str,
        meta: &BTreeMap<String, String>,
        is_subscribed: impl Fn(&str) -> bool,
    ) -> bool {
        let user = self.meta.get("user").map(String::as_str);
        let of_message = |name: &str| meta.get(name).map(String::as_str);
        self.filters.get(channel).is_some_and(|filters| filters.skip(user, of_message, is_subscribed))
    }

    /// Keeps the connection alive with messages; `None`: does not. Gives when to [look at](Self::tick) this.
    pub(super) fn keep_alive(&mut self, keep_alive: Option<KeepAlive>, now: Time) -> Option<Time> {
        self.keep_alive = keep_alive.map(|it| {
            let due = now + seconds(it.seconds);
            (it, due)
        });
        self.schedule()
    }

    /// Sends a message later; gives the one that waited, to be sent now, and when to look at this.
    pub(super) fn delay(
        &mut self,
        message: ControlMessage,
        after: u32,
        now: Time,
    ) -> (Option<ControlMessage>, Option<Time>) {
        let before = self.delayed.replace((message, now + seconds(after)));
        (before.map(|(message, _)| message), self.schedule())
    }

    /// The message that waits, to be sent now.
    pub(super) fn flush(&mut self) -> Option<ControlMessage> {
        self.delayed.take().map(|(message, _)| message)
    }

    /// It was to be looked at at this time: gives what to send, and when to look again. The connection `heard` something then.
    pub(super) fn tick(&mut self, at: Time, heard: Time, now: Time) -> (Vec<ControlMessage>, Option<Time>) {
        if self.scheduled != Some(at) {
            return (Vec::new(), None);
        }
        self.scheduled = None;
        let mut messages = Vec::new();
        if self.delayed.as_ref().is_some_and(|(_, due)| *due <= now) {
            messages.extend(self.flush());
        }
        if let Some((keep_alive, due)) = &mut self.keep_alive {
            let every = seconds(keep_alive.seconds);
            if keep_alive.mode == Mode::Idle {
                *due = (*due).max(heard + every);
            }
            if *due <= now {
                messages.push(keep_alive.message.clone());
                *due = now + every;
            }
        }
        messages.retain(|message| matches!(message.kind, Kind::Text | Kind::Binary));
        (messages, self.schedule())
    }

    fn schedule(&mut self) -> Option<Time> {
        let keep_alive = self.keep_alive.as_ref().map(|(_, due)| *due);
        let delayed = self.delayed.as_ref().map(|(_, due)| *due);
        let due = [keep_alive, delayed].into_iter().flatten().min()?;
        if self.scheduled.is_some_and(|scheduled| scheduled <= due) {
            return None;
        }
        self.scheduled = Some(due);
        Some(due)
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// Bytes of names and values.
const MOST_META: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn message(kind: Kind, content: &str) -> ControlMessage {
        ControlMessage { kind, content: content.into() }
    }

    fn keep_alive(mode: Mode) -> KeepAlive {
        KeepAlive { message: message(Kind::Text, "{}"), seconds: 10, mode }
    }

    #[test]
    fn a_keep_alive_comes_when_nothing_else_came() {
        let mut grip = Grip::default();
        assert_eq!(grip.keep_alive(Some(keep_alive(Mode::Idle)), at(0)), Some(at(10)));
        assert_eq!(grip.tick(at(9), at(0), at(10)), (vec![], None), "nobody asked for that time");
        assert_eq!(grip.tick(at(10), at(4), at(10)), (vec![], Some(at(14))), "it heard something at 4");
        assert_eq!(grip.tick(at(14), at(4), at(15)), (vec![message(Kind::Text, "{}")], Some(at(25))));
        assert_eq!(grip.keep_alive(None, at(16)), None);
        assert_eq!(grip.tick(at(25), at(4), at(25)), (vec![], None), "it was turned off");
        assert_eq!(grip.keep_alive(Some(keep_alive(Mode::Interval)), at(30)), Some(at(40)));
        assert_eq!(grip.tick(at(40), at(39), at(40)), (vec![message(Kind::Text, "{}")], Some(at(50))));
    }

    #[test]
    fn a_message_that_is_delayed_comes_later_and_at_once_if_another_is() {
        let mut grip = Grip::default();
        assert_eq!(grip.delay(message(Kind::Text, "a"), 5, at(0)), (None, Some(at(5))));
        assert_eq!(grip.delay(message(Kind::Text, "b"), 9, at(1)), (Some(message(Kind::Text, "a")), None));
        assert_eq!(grip.tick(at(5), at(0), at(5)), (vec![], Some(at(10))));
        assert_eq!(grip.tick(at(10), at(0), at(10)), (vec![message(Kind::Text, "b")], None));
        grip.delay(message(Kind::Binary, "c"), 5, at(20));
        assert_eq!(grip.flush(), Some(message(Kind::Binary, "c")));
        assert_eq!((grip.flush(), grip.tick(at(25), at(0), at(25))), (None, (vec![], None)));
        grip.delay(message(Kind::Ping, ""), 5, at(30));
        assert_eq!(grip.tick(at(35), at(0), at(35)), (vec![], None), "the server sends pings of its own");
    }

    #[test]
    fn filters_leave_out_what_the_connections_user_need_not_get() {
        let mut grip = Grip::default();
        let filters = || Filters { skip_self: true, ..Filters::default() };
        let sender = |name: &str| [("sender".to_owned(), name.to_owned())].into();
        let skips = |grip: &Grip, channel: &str, name: &str| grip.skips(channel, &sender(name), |_| false);
        grip.filter("room", filters());
        assert!(!skips(&grip, "room", "ann"), "nobody knows who it is");
        grip.set_meta("user".to_owned(), Some("ann".to_owned())).expect("room");
        assert!(skips(&grip, "room", "ann"));
        assert!(!skips(&grip, "room", "bob") && !skips(&grip, "hall", "ann"));
        grip.filter("room", Filters::default());
        assert!(!skips(&grip, "room", "ann"));
        grip.filter("room", filters());
        grip.unsubscribed("room");
        assert!(!skips(&grip, "room", "ann"));
    }

    #[test]
    fn metadata_is_bounded() {
        let mut grip = Grip::default();
        assert!(grip.set_meta("a".to_owned(), Some("x".repeat(4095))).is_ok());
        assert!(grip.set_meta("b".to_owned(), Some("x".to_owned())).is_err());
        assert!(grip.set_meta("a".to_owned(), Some("y".repeat(4095))).is_ok(), "it takes the place of the other");
        assert!(grip.set_meta("a".to_owned(), None).is_ok());
        assert!(grip.set_meta("b".to_owned(), Some("x".to_owned())).is_ok());
    }
}
