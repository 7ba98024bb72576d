//! What connections of routes get where clients of Pusher get an event.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use taut_proto::Prepared;

use crate::gateway::Frames;
use crate::pusher::event::ServerEvent;
use crate::pusher::json::write_json_string;
use crate::pusher::payload::Payload;

/// One event in the forms in which connections want it, each made once, when the first one does.
pub(super) struct Forms<'m> {
    pusher: &'m Prepared,
    event: Option<Prepared>,
    #[expect(clippy::option_option, reason = "not made yet, none, or one")]
    raw: Option<Option<Prepared>>,
}

impl<'m> Forms<'m> {
    /// Of an event as Pusher's clients get it.
    pub(super) fn new(pusher: &'m Prepared) -> Self {
        Self { pusher, event: None, raw: None }
    }

    /// The event in the form of a route, or of Pusher's clients; `None`: there is none in this form.
    pub(super) fn of(&mut self, frames: Option<Frames>) -> Option<&Prepared> {
        let text = || str::from_utf8(self.pusher.payload()).unwrap_or_default();
        match frames {
            None => Some(self.pusher),
            Some(Frames::Event) => {
                if self.event.is_none() {
                    self.event = event(text()).map(|text| Prepared::new(text.as_str()));
                }
                self.event.as_ref()
            }
            Some(Frames::Raw) => {
                if self.raw.is_none() {
                    self.raw = Some(raw(text()).map(|text| Prepared::new(&*text)));
                }
                self.raw.as_ref().and_then(Option::as_ref)
            }
        }
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
        for _ in 0..2 {
            let raw = forms.of(Some(Frames::Raw)).map(Prepared::payload);
            assert_eq!(raw, Some(&b"1"[..]));
            let event = forms.of(Some(Frames::Event)).map(Prepared::payload);
            assert_eq!(event, Some(&br#"{"channel":"room","event":"message","data":1}"#[..]));
        }
    }
}
