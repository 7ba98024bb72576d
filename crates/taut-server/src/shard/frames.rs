//! What connections of routes get where clients of Pusher get an event.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use taut_proto::Prepared;

use crate::gateway::Frames;
use crate::gateway::seen::Mark;
use crate::gateway::sse;
use crate::pusher::event::ServerEvent;
use crate::pusher::json::write_json_string;
use crate::pusher::payload::Payload;

/// How a connection of a route gets what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As messages of a WebSocket.
    Messages(Frames),
    /// As Server-Sent Events.
    Events(Frames),
    /// As bytes of a response that GRIP holds: what is published for those, and nothing else.
    Bytes,
}

impl Encoding {
    /// The same for what is meant for one connection, which has no channel and no name.
    pub(super) fn alone(self) -> Self {
        match self {
            Self::Messages(_) => Self::Messages(Frames::Raw),
            Self::Events(_) => Self::Events(Frames::Raw),
            Self::Bytes => Self::Bytes,
        }
    }
}

/// One event in the forms in which connections want it, each made once, when the first one does.
pub(super) struct Forms<'m> {
    pusher: &'m Prepared,
    made: [Form; 4],
    #[expect(clippy::option_option, reason = "not looked at yet, none, or one")]
    mark: Option<Option<Mark>>,
}

/// Not made yet, none, or one.
type Form = Option<Option<Prepared>>;

impl<'m> Forms<'m> {
    /// Of an event as Pusher's clients get it.
    pub(super) fn new(pusher: &'m Prepared) -> Self {
        Self { pusher, made: [const { None }; 4], mark: None }
    }

    /// The event as a connection of a route gets it, or one of Pusher's clients; `None`: there is none in this form.
    pub(super) fn of(&mut self, encoding: Option<Encoding>) -> Option<&Prepared> {
        let (place, frames) = match encoding {
            None => return Some(self.pusher),
            Some(Encoding::Bytes) => return None,
            Some(Encoding::Messages(frames)) => (0, frames),
            Some(Encoding::Events(frames)) => (1, frames),
        };
        let is_raw = frames == Frames::Raw;
        let form = &mut self.made[place + 2 * usize::from(is_raw)];
        let make = || {
            let pusher = str::from_utf8(self.pusher.payload()).unwrap_or_default();
            let text = if is_raw { raw(pusher)? } else { event(pusher)?.into() };
            Some(if place == 0 { Prepared::new(&*text) } else { Prepared::new(sse::message(&text).as_bytes()) })
        };
        form.get_or_insert_with(make).as_ref()
    }

    /// What stands for the event, if it is one that a channel may keep: one of a publisher.
    pub(super) fn mark(&mut self) -> Option<Mark> {
        let look = || {
            let Pusher { event, .. } = serde_json::from_slice(self.pusher.payload()).ok()?;
            let is_kept = !NEVER_KEPT.iter().chain(&INTERNAL).any(|prefix| event.starts_with(prefix));
            is_kept.then(|| Mark::of(self.pusher.payload()))
        };
        *self.mark.get_or_insert_with(look)
    }
}

/// A text as an event, for those who can be sent nothing else.
pub(super) fn message(channel: &str, text: &str) -> Prepared {
    let mut written = String::new();
    ServerEvent::Published { event: "message", channel, data: &Payload::from(text) }.write(&mut written);
    Prepared::new(written.as_str())
}

#[derive(Deserialize)]
struct Pusher<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
}

/// `{"channel":…,"event":…,"data":…}`. Pusher's clients read data that is JSON as JSON; here it stands so already.
pub(super) fn event(pusher: &str) -> Option<String> {
    let Pusher { event, channel, data, user_id } = serde_json::from_str(pusher).ok()?;
    let name = INTERNAL.iter().find_map(|prefix| event.strip_prefix(prefix)).unwrap_or(&event);
    let mut text = String::with_capacity(pusher.len());
    text.push_str(r#"{"channel":"#);
    write_json_string(&mut text, channel.as_deref().unwrap_or_default());
    text.push_str(r#","event":"#);
    write_json_string(&mut text, name);
    if let Some(data) = data {
        text.push_str(r#","data":"#);
        match read(data) {
            Cow::Borrowed(json) => text.push_str(json),
            Cow::Owned(inner) if serde_json::from_str::<&RawValue>(&inner).is_ok() => text.push_str(inner.trim()),
            Cow::Owned(_) => text.push_str(data.get()),
        }
    }
    if let Some(user_id) = user_id {
        text.push_str(r#","user_id":"#);
        write_json_string(&mut text, &user_id);
    }
    text.push('}');
    Some(text)
}

/// The data alone: the text of a string, and anything else as JSON. There is none of what the server itself announces.
fn raw(pusher: &str) -> Option<Box<str>> {
    let Pusher { event, data, .. } = serde_json::from_str(pusher).ok()?;
    let is_internal = INTERNAL.iter().any(|prefix| event.starts_with(prefix));
    data.filter(|_| !is_internal).map(|data| read(data).into())
}

/// The text of a string, owned; or the JSON text of anything else, borrowed.
fn read(data: &RawValue) -> Cow<'_, str> {
    let is_string = data.get().starts_with('"');
    let text = is_string.then(|| serde_json::from_str::<String>(data.get()).ok()).flatten();
    text.map_or_else(|| Cow::Borrowed(data.get()), Cow::Owned)
}

/// What the server itself announces begins so, and no event of a publisher may.
const INTERNAL: [&str; 2] = ["pusher_internal:", "pusher:"];

/// The events of clients begin so: a channel does not keep them.
const NEVER_KEPT: [&str; 1] = ["client-"];

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &ServerEvent<'_>) -> String {
        let mut text = String::new();
        event.write(&mut text);
        text
    }

    fn published(data: &str) -> String {
        written(&ServerEvent::Published { event: "message", channel: "room", data: &Payload::from(data) })
    }

    #[test]
    fn data_that_is_json_stands_as_json_and_any_other_as_a_string() {
        for (data, shown) in [
            (r#"{"from":"ann","text":"a \"b\""}"#, r#"{"from":"ann","text":"a \"b\""}"#),
            ("[1]", "[1]"),
            (" 7 ", "7"),
            ("hello", r#""hello""#),
            ("{broken", r#""{broken""#),
            ("", r#""""#),
            ("é\n", r#""é\n""#),
        ] {
            let expected = format!(r#"{{"channel":"room","event":"message","data":{shown}}}"#);
            assert_eq!(event(&published(data)), Some(expected), "{data}");
            assert_eq!(raw(&published(data)).as_deref(), Some(data), "as it was published");
        }
    }

    #[test]
    fn a_clients_event_has_its_data_and_who_it_is_from() {
        let data = Some(r#"{"x":1}"#);
        let sent = ServerEvent::Client { event: "client-typing", channel: "presence-a", data, user_id: Some("ann") };
        let expected = r#"{"channel":"presence-a","event":"client-typing","data":{"x":1},"user_id":"ann"}"#;
        assert_eq!(event(&written(&sent)).as_deref(), Some(expected));
        assert_eq!(raw(&written(&sent)).as_deref(), data);
        let empty = ServerEvent::Client { event: "client-typing", channel: "private-a", data: None, user_id: None };
        assert_eq!(event(&written(&empty)).as_deref(), Some(r#"{"channel":"private-a","event":"client-typing"}"#));
        assert_eq!(raw(&written(&empty)), None);
    }

    #[test]
    fn what_the_server_announces_has_its_name_without_a_prefix_and_no_raw_form() {
        let added = ServerEvent::MemberAdded { channel: "presence-a", user_id: "ann", user_info: Some("{}") };
        let expected = r#"{"channel":"presence-a","event":"member_added","data":{"user_id":"ann","user_info":{}}}"#;
        assert_eq!(event(&written(&added)).as_deref(), Some(expected));
        let missed = ServerEvent::CacheMiss { channel: "cache-a" };
        assert_eq!(event(&written(&missed)).as_deref(), Some(r#"{"channel":"cache-a","event":"cache_miss"}"#));
        for announced in [&added, &missed] {
            assert_eq!(raw(&written(announced)), None);
        }
    }

    #[test]
    fn each_form_is_made_once_and_pushers_is_the_one_that_was_given() {
        let pusher = Prepared::new(published("1").as_str());
        let mut forms = Forms::new(&pusher);
        assert_eq!(forms.of(None).map(Prepared::payload), Some(pusher.payload()));
        let json = r#"{"channel":"room","event":"message","data":1}"#;
        for _ in 0..2 {
            for (encoding, expected) in [
                (Encoding::Messages(Frames::Raw), Some("1".to_owned())),
                (Encoding::Messages(Frames::Event), Some(json.to_owned())),
                (Encoding::Events(Frames::Raw), Some("data: 1\n\n".to_owned())),
                (Encoding::Events(Frames::Event), Some(format!("data: {json}\n\n"))),
                (Encoding::Bytes, None),
            ] {
                let made = forms.of(Some(encoding)).map(|made| str::from_utf8(made.payload()).expect("a text"));
                assert_eq!(made, expected.as_deref(), "{encoding:?}");
            }
        }
    }

    #[test]
    fn what_is_for_one_connection_has_no_frame() {
        assert_eq!(Encoding::Messages(Frames::Event).alone(), Encoding::Messages(Frames::Raw));
        assert_eq!(Encoding::Events(Frames::Event).alone(), Encoding::Events(Frames::Raw));
        assert_eq!(Encoding::Bytes.alone(), Encoding::Bytes);
    }

    #[test]
    fn only_what_a_publisher_says_is_kept() {
        let mark = |event: &ServerEvent<'_>| Forms::new(&Prepared::new(written(event).as_str())).mark();
        let sent = |data| ServerEvent::Published { event: "message", channel: "cache-a", data };
        let (one, two) = (Payload::from("1"), Payload::from("2"));
        assert!(mark(&sent(&one)).is_some());
        assert_eq!(mark(&sent(&one)), mark(&sent(&one)));
        assert_ne!(mark(&sent(&one)), mark(&sent(&two)));
        let client = ServerEvent::Client { event: "client-a", channel: "private-cache-a", data: None, user_id: None };
        for event in [&client, &ServerEvent::CacheMiss { channel: "cache-a" }] {
            assert_eq!(mark(event), None);
        }
    }
}
