//! What the chat page asks of its server. It exists only while the development app is served.

use std::borrow::Cow;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use taut_proto::handshake::origin::is_page_of;

use super::Context;
use crate::apps::App;
use crate::http::answer::{self, ApiError};
use crate::http::body;
use crate::hub::command::{Event, Publication};
use crate::limit::TokenBucket;
use crate::pusher::json::bytes_without_lone_surrogates;
use crate::pusher::payload::Payload;

/// `GET /chat/config`: what the page needs to connect.
pub(crate) async fn config(State(context): State<Arc<Context>>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Config<'a> {
        key: &'a str,
        channel: &'a str,
    }
    let snapshot = Arc::clone(&development_app(&context)?.snapshot());
    answer::serialized(&Config { key: &snapshot.config.key().key, channel: CHANNEL })
}

/// `POST /chat/messages`: says something to everybody in the chat, the sender included.
///
/// A browser cannot sign, so anybody who reaches the server may send here, behind a proxy strangers as well. It reaches the one channel of the chat, in
/// the development app, whose secret everybody knows anyway. Other sites' pages are refused by their origin, and by the content type, which they may not send
/// without asking first.
pub(crate) async fn say(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = body::read(body, LARGEST_BODY).await?;
    let app = development_app(&context)?;
    check_origin(&head.uri, &head.headers)?;
    check_content_type(&head.headers)?;
    let body = bytes_without_lone_surrogates(&body);
    let message = Message::parse(&body)?;
    context.chat_rate().take(Instant::now()).map_err(|delay| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "Too many messages. Please wait a moment.").retry_after(delay)
    })?;
    let json = message.to_json();
    let event = Event::published("message", &Payload::from(&*json));
    let publication = Publication { channel: CHANNEL.into(), event, excluded: None, at: Instant::now(), receipt: None };
    context.node().publish_and_wait(&app, iter::once(publication)).await.map_err(super::not_published)?;
    Ok(answer::json("{}"))
}

/// Twenty messages at once, ten per second in the long run, for the whole chat: enough for people, too slow for a flood.
pub(crate) fn rate(now: Instant) -> TokenBucket {
    TokenBucket::new(20, Duration::from_millis(100), now)
}

#[derive(Debug, Deserialize, Serialize)]
struct Message<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    /// Made by the page, so that it knows its own message again.
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl<'a> Message<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let message: Self = serde_json::from_slice(body).map_err(|_| {
            ApiError::bad_request("A message is {\"name\":\"…\",\"text\":\"…\",\"id\":\"…\"}, all three strings.")
        })?;
        let sized = |what: &str, length: usize, most: usize, unit: &str| match length {
            0 => Err(ApiError::bad_request(format!("The {what} is empty."))),
            _ if length > most => Err(ApiError::bad_request(format!("The {what} is too long: at most {most} {unit}."))),
            _ => Ok(()),
        };
        sized("name", message.name.trim().chars().count(), LONGEST_NAME, "characters")?;
        sized("id", message.id.chars().count(), LONGEST_ID, "characters")?;
        if message.text.trim().is_empty() {
            return Err(ApiError::bad_request("The text is empty."));
        }
        sized("text", message.text.len(), LONGEST_TEXT, "bytes")?;
        Ok(message)
    }

    fn to_json(&self) -> String {
        // Three strings: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn development_app(context: &Context) -> Result<Arc<App>, ApiError> {
    context.node().apps().development_app().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "The chat is there only with the development app: start the server without an app of your own.",
        )
    })
}

/// RFC 6454 §7: a browser says where the page comes from that makes it send. A client without that header is no browser.
pub(super) fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| uri.authority().map(http::uri::Authority::as_str));
    match (origin.to_str(), host) {
        (Ok(origin), Some(host)) if is_page_of(origin, host) => Ok(()),
        _ => Err(ApiError::new(StatusCode::FORBIDDEN, "Only the pages of this server may send anything here.")),
    }
}

pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content type has to be application/json."))
}

const CHANNEL: &str = "chat";

/// Characters.
const LONGEST_NAME: usize = 40;

/// Characters.
const LONGEST_ID: usize = 64;

/// Bytes.
const LONGEST_TEXT: usize = 1024;

/// Bytes; every character of the three might be written as an escape.
const LARGEST_BODY: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn refusal(body: &str) -> String {
        format!("{:?}", Message::parse(body.as_bytes()).expect_err(body))
    }

    fn message(name: &str, text: &str, id: &str) -> String {
        serde_json::json!({ "name": name, "text": text, "id": id }).to_string()
    }

    #[test]
    fn a_message_is_passed_on_as_it_is() {
        let body = message("Ann 😀", "<b>\"hi\"</b>\n", "1");
        let passed_on = Message::parse(body.as_bytes()).expect("good").to_json();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&passed_on).ok(), serde_json::from_str(&body).ok());
    }

    #[test]
    fn lengths_are_checked_at_their_borders() {
        assert!(Message::parse(message(&"é".repeat(40), &"x".repeat(1024), &"i".repeat(64)).as_bytes()).is_ok());
        assert!(refusal(&message(&"é".repeat(41), "x", "i")).contains("The name is too long: at most 40 characters"));
        assert!(refusal(&message("n", &"x".repeat(1025), "i")).contains("The text is too long: at most 1024 bytes"));
        assert!(refusal(&message("n", "x", &"i".repeat(65))).contains("The id is too long"));
        assert!(refusal(&message(" ", "x", "i")).contains("The name is empty"));
        assert!(refusal(&message("n", " \n", "i")).contains("The text is empty"));
        assert!(refusal(&message("n", "x", "")).contains("The id is empty"));
        for body in ["", "[]", "{}", r#"{"name":"n","text":5,"id":"i"}"#, r#"{"name":"n","text":"x"}"#] {
            assert!(refusal(body).contains("all three strings"), "{body}");
        }
    }

    #[test]
    fn only_the_pages_own_origin_may_send() {
        let check = |origin: &'static str, host: &'static str| {
            let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            check_origin(&Uri::from_static("/chat/messages"), &headers).is_ok()
        };
        assert!(check("http://127.0.0.1:6001", "127.0.0.1:6001"));
        assert!(check("https://Chat.example", "chat.example"));
        // nginx with `proxy_set_header Host $host:$server_port`, which browsers leave out of the origin (RFC 6454 §6.2).
        assert!(check("https://chat.example", "chat.example:443"));
        assert!(check("http://chat.example", "chat.example:80"));
        for (origin, host) in [
            ("null", "127.0.0.1:6001"),
            ("http://chat.example", "chat.example:443"),
            ("https://chat.example:8443", "chat.example"),
            ("http://127.0.0.1:6002", "127.0.0.1:6001"),
            ("http://127.0.0.1:60010", "127.0.0.1:6001"),
            ("http://evil.example", "127.0.0.1:6001"),
            ("http://127.0.0.1:6001.evil.example", "127.0.0.1:6001"),
            ("http://a@127.0.0.1:6001", "127.0.0.1:6001"),
            ("file://127.0.0.1:6001", "127.0.0.1:6001"),
            ("", "127.0.0.1:6001"),
        ] {
            assert!(!check(origin, host), "{origin}");
        }
        assert!(check_origin(&Uri::from_static("/"), &HeaderMap::new()).is_ok(), "no browser");
    }

    #[test]
    fn a_form_of_another_site_cannot_send() {
        let check = |value: &'static str| {
            check_content_type(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))])).is_ok()
        };
        assert!(check("application/json") && check("Application/JSON; charset=utf-8"));
        assert!(!check("text/plain") && !check("application/x-www-form-urlencoded") && !check("application/jsonx"));
        assert!(check_content_type(&HeaderMap::new()).is_err());
    }
}
