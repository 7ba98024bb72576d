//! `/publish`: what the libraries of GRIP publish, to all who are subscribed to a channel.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::ACCEPT;

use super::{Context, not_published, signed};
use crate::app::Limits;
use crate::gateway::frame::{Action, Frame};
use crate::gateway::grip::{HttpStream, Item, Kind, PublishLimits, WsMessage, read_items};
use crate::http::answer::{self, ApiError};
use crate::hub::command::{Event, Publication};
use crate::place::AppIndex;
use crate::pusher::channel::Channel;
use crate::pusher::payload::Payload;

/// `POST /publish`: publishes items, all or none. Success means that they are on their way, as with the HTTP API.
///
/// # Errors
/// 400 or 413 in Pushpin's words if an item cannot be published; 401 if the key is wrong.
///
/// # Cancel safety
/// All of the items are published or none. Dropped after that, only the answer is lost.
pub(crate) async fn publish(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let keyed = signed::authenticated_or_keyed(&context, request, |_| LARGEST_BODY).await?;
    let limits = keyed.snapshot.limits;
    let read = PublishLimits { items: MOST_ITEMS, content: limits.event_data, id: LONGEST_ID, meta: LARGEST_META };
    let items = match read_items(&keyed.body, &read) {
        Ok(items) => items,
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            return Ok((status, format!("{error}\n")).into_response());
        }
    };
    for item in &items {
        check(item, &limits)?;
    }
    let now = Instant::now();
    let new: Vec<&Item> = items.iter().filter(|item| context.grip.is_new(keyed.app.index(), item, now)).collect();
    let publications: Vec<Publication> = new.iter().flat_map(|item| publications(item, now)).collect();
    if !publications.is_empty() {
        let published = context.node().publish_and_wait(&keyed.app, publications.into_iter()).await;
        published.map_err(|reason| {
            for item in &new {
                context.grip.forget(keyed.app.index(), item);
            }
            not_published(reason)
        })?;
    }
    let accept = keyed.header(&ACCEPT).unwrap_or_default();
    let is_json = accept.contains("application/json");
    Ok(if is_json { answer::json("{\"message\":\"Published\"}\n") } else { "Published\n".into_response() })
}

/// Whether an item can be published: its channel is one that a connection of a route can be in.
fn check(item: &Item, limits: &Limits) -> Result<(), ApiError> {
    Channel::parse(&item.channel, limits.channel_name)
        .map(drop)
        .map_err(|invalid| ApiError::bad_request(invalid.to_string()))
}

/// What WebSockets and streams get of an item.
fn publications(item: &Item, at: Instant) -> impl Iterator<Item = Publication> {
    let actions = [item.ws_message.as_ref().and_then(for_websockets), item.http_stream.as_ref().and_then(for_streams)];
    actions.into_iter().flatten().map(move |action| {
        let event = match &action {
            // Pusher's clients get it as this event.
            Action::Text(text) if item.meta.is_empty() => Event::published("message", &Payload::from(&**text)),
            _ => Event::frame(&Frame { action, meta: item.meta.iter().cloned().collect() }.data()),
        };
        Publication { channel: item.channel.as_str().into(), event, excluded: None, at, receipt: None }
    })
}

fn for_websockets(message: &WsMessage) -> Option<Action> {
    Some(match message {
        // Only subscriptions with the same content filters would get it, and there are none.
        WsMessage::Send { content_filters, .. } if !content_filters.is_empty() => return None,
        WsMessage::Send { message, .. } => match message.kind {
            Kind::Text => Action::Text(String::from_utf8(message.content.clone()).ok()?),
            Kind::Binary => Action::binary(&message.content),
            // The server sends pings of its own.
            _ => return None,
        },
        WsMessage::Close { code, reason } => Action::Close { code: code.unwrap_or(NORMAL), reason: reason.clone() },
        WsMessage::Refresh => Action::Refresh,
        WsMessage::Hint => return None,
    })
}

fn for_streams(content: &HttpStream) -> Option<Action> {
    Some(match content {
        // As above.
        HttpStream::Send { content_filters, .. } if !content_filters.is_empty() => return None,
        HttpStream::Send { content, .. } => Action::stream(content),
        HttpStream::Close => Action::EndStream,
        HttpStream::Hint => return None,
    })
}

/// The ids of the items of the last minute: one that comes again is not published again.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    known: HashSet<Id>,
    /// In the order in which they came.
    queue: VecDeque<(Instant, Id)>,
}

type Id = (AppIndex, Arc<str>);

impl Recent {
    /// Whether an item has not come within the last minute, or has no id. It counts as published from here on.
    fn is_new(&self, app: AppIndex, item: &Item, now: Instant) -> bool {
        let Some(id) = id(app, item) else { return true };
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while ids.queue.front().is_some_and(|(at, _)| *at + REMEMBERED <= now) || ids.queue.len() >= MOST_IDS {
            let Some((_, old)) = ids.queue.pop_front() else { break };
            ids.known.remove(&old);
        }
        let is_new = ids.known.insert(id.clone());
        if is_new {
            ids.queue.push_back((now, id));
        }
        is_new
    }

    /// An item was not published after all.
    fn forget(&self, app: AppIndex, item: &Item) {
        let Some(id) = id(app, item) else { return };
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.known.remove(&id) {
            ids.queue.retain(|(_, known)| *known != id);
        }
    }
}

fn id(app: AppIndex, item: &Item) -> Option<Id> {
    let id = item.id.as_ref()?;
    Some((app, format!("{}\n{id}", item.channel).into()))
}

/// For how long an id is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_IDS: usize = 10_000;

const NORMAL: u16 = 1000;

/// Bytes, as in Pushpin.
const LARGEST_BODY: usize = 1_000_000;
const LARGEST_META: usize = 10_000;
const LONGEST_ID: usize = 1000;
const MOST_ITEMS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        let body = format!(r#"{{"items":[{text}]}}"#);
        let limits = PublishLimits { items: 1, content: 1000, id: 100, meta: 100 };
        read_items(body.as_bytes(), &limits).expect(text).remove(0)
    }

    fn all_published(text: &str) -> Vec<(String, String)> {
        let item = item(text);
        let published = publications(&item, Instant::now());
        published.map(|publication| (publication.name().to_owned(), publication.data().into_owned())).collect()
    }

    fn published(text: &str) -> Option<(String, String)> {
        let mut published = all_published(text);
        assert!(published.len() <= 1, "{text}");
        published.pop()
    }

    #[test]
    fn a_text_is_an_event_that_everybody_gets_and_the_rest_is_for_routes() {
        let frame = |json: &str| Some(("pusher_internal:frame".to_owned(), json.to_owned()));
        for (text, expected) in [
            (
                r#"{"channel":"a","formats":{"ws-message":{"content":"hi"}}}"#,
                Some(("message".to_owned(), "hi".to_owned())),
            ),
            (
                r#"{"channel":"a","meta":{"sender":"ann"},"formats":{"ws-message":{"content":"hi"}}}"#,
                frame(r#"{"text":"hi","meta":{"sender":"ann"}}"#),
            ),
            (r#"{"channel":"a","formats":{"ws-message":{"content-bin":"AP+A"}}}"#, frame(r#"{"binary":"AP+A"}"#)),
            (
                r#"{"channel":"a","formats":{"ws-message":{"action":"close","code":4123,"reason":"kicked"}}}"#,
                frame(r#"{"close":{"code":4123,"reason":"kicked"}}"#),
            ),
            (
                r#"{"channel":"a","formats":{"ws-message":{"action":"close"}}}"#,
                frame(r#"{"close":{"code":1000,"reason":""}}"#),
            ),
            (r#"{"channel":"a","formats":{"ws-message":{"action":"refresh"}}}"#, frame(r#"{"refresh":null}"#)),
            (r#"{"channel":"a","formats":{"ws-message":{"type":"ping"}}}"#, None),
            (r#"{"channel":"a","formats":{"ws-message":{"content":"hi","content-filters":["x"]}}}"#, None),
            (r#"{"channel":"a","formats":{"http-stream":{"content":"hi"}}}"#, frame(r#"{"stream":"aGk="}"#)),
            (r#"{"channel":"a","formats":{"http-stream":{"content-bin":"AP8="}}}"#, frame(r#"{"stream":"AP8="}"#)),
            (
                r#"{"channel":"a","meta":{"sender":"ann"},"formats":{"http-stream":{"content":"hi"}}}"#,
                frame(r#"{"stream":"aGk=","meta":{"sender":"ann"}}"#),
            ),
            (r#"{"channel":"a","formats":{"http-stream":{"action":"close"}}}"#, frame(r#"{"end_stream":null}"#)),
            (r#"{"channel":"a","formats":{"http-stream":{"action":"hint"}}}"#, None),
            (r#"{"channel":"a","formats":{"http-stream":{"content":"hi","content-filters":["x"]}}}"#, None),
            (r#"{"channel":"a","formats":{"http-response":{"body":"hi"}}}"#, None),
        ] {
            assert_eq!(published(text), expected, "{text}");
        }
    }

    #[test]
    fn websockets_and_streams_get_the_format_that_is_theirs() {
        let item = r#"{"channel":"a","formats":{"ws-message":{"content":"w"},"http-stream":{"content":"s"}}}"#;
        let expected = [("message", "w"), ("pusher_internal:frame", r#"{"stream":"cw=="}"#)];
        assert_eq!(all_published(item), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }

    #[test]
    fn an_item_that_comes_again_within_a_minute_is_not_published_again() {
        let (recent, app, now) = (Recent::default(), AppIndex::new(1), Instant::now());
        let of = |channel: &str, id: &str| {
            item(&format!(r#"{{"channel":"{channel}","id":"{id}","formats":{{"ws-message":{{"content":"x"}}}}}}"#))
        };
        assert!(recent.is_new(app, &of("a", "1"), now));
        assert!(!recent.is_new(app, &of("a", "1"), now + REMEMBERED / 2));
        assert!(recent.is_new(app, &of("a", "2"), now) && recent.is_new(app, &of("b", "1"), now));
        assert!(recent.is_new(AppIndex::new(2), &of("a", "1"), now));
        assert!(recent.is_new(app, &of("a", "1"), now + REMEMBERED));
        recent.forget(app, &of("a", "1"));
        assert!(recent.is_new(app, &of("a", "1"), now + REMEMBERED));
        let without = item(r#"{"channel":"a","formats":{"ws-message":{"content":"x"}}}"#);
        assert!(recent.is_new(app, &without, now) && recent.is_new(app, &without, now));
        for number in 0..2 * MOST_IDS {
            recent.is_new(app, &of("a", &format!("n{number}")), now + REMEMBERED);
        }
        let ids = recent.0.lock().expect("no panic");
        assert_eq!((ids.known.len(), ids.queue.len()), (MOST_IDS, MOST_IDS));
    }
}
