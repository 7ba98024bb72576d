//! Streams of routes: Server-Sent Events, and the responses that GRIP holds open.
//!
//! A stream is a connection of a shard, as a WebSocket of the route would be (`gateway::stream`). Here its request is
//! taken there, and what the connection is sent becomes the content of the response.

mod content;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_TYPE,
    ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use taut_proto::handshake::Refusal;

use super::{Context, not_found};
use crate::apps::Fallback;
use crate::gateway::event;
use crate::gateway::stream::{Beginning, HEADER};
use crate::gateway::{Form, Route, sse};
use crate::http::{Peer, Place, body};
use crate::origin;
use content::{Content, Kind};

/// Serves a stream at a path of a route, unless something else is at that path.
///
/// # Errors
/// 404 if it is not, or the client asks for something else. Otherwise as the route's backend answers; where a browser
/// would give up, though all may be well again in a moment, 200 and the time after which to come back.
///
/// # Cancel safety
/// Dropping it drops the connection, and the backend hears of that.
pub(super) async fn serve(State(context): State<Arc<Context>>, request: Request) -> Response {
    let found = context.gateway.find(request.uri().path()).map(|(route, _)| route);
    let Some(route) = found.filter(|route| is_for_stream(route, request.method(), request.headers())) else {
        return not_found(request).await.into_response();
    };
    let (head, body) = request.into_parts();
    body::discard(body).await;
    let mut response = if head.method == Method::OPTIONS {
        (StatusCode::NO_CONTENT, PREFLIGHT).into_response()
    } else {
        begin(&context, &route, &head).await
    };
    allow_origin(&context, &route, &head, response.headers_mut());
    response
}

/// Whether a request is for a stream. By GRIP, the backend says so of any.
fn is_for_stream(route: &Route, method: &Method, headers: &HeaderMap) -> bool {
    // A WebSocket server has none.
    if route.is_relayed() {
        return false;
    }
    match *method {
        Method::GET => route.form() == Form::WebSocketOverHttp || asks_for_events(headers),
        Method::OPTIONS => {
            headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| method == Method::GET.as_str())
        }
        _ => false,
    }
}

fn asks_for_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok()).any(sse::is_accepted)
}

/// Opens a connection of a shard, and begins the response as its route's backend says.
async fn begin(context: &Context, route: &Arc<Route>, head: &Parts) -> Response {
    let refused = |refusal: &Refusal| refusal::response(refusal, asks_for_events(&head.headers));
    let busy = Refusal::busy(RETRY);
    let Some(Peer(peer)) = head.extensions.get() else { return refused(&busy) };
    let Some(mut waiting) = context.gateway.streams().begin(written(head).into()) else { return refused(&busy) };
    let mark = (HEADER, waiting.name());
    let opened = context.connector.open_stream(mark, *peer, route.timeout() + OPENING).await;
    match (waiting.beginning(), opened) {
        (Some(Beginning::Stream(response)), Ok(socket)) => {
            // It counts as a connection of its app from here on.
            if let Some(place) = head.extensions.get::<Place>() {
                place.leave();
            }
            let carried = route.app(context.node().apps()).map(|app| app.carry(Fallback::Stream));
            let (mut head, first) = parts(response);
            finish(&mut head.headers, route.form() == Form::Plain);
            let (kind, first) = match route.form() {
                Form::Plain => (Kind::Events, sse::retry(content::retry(content::SOON)).into()),
                Form::WebSocketOverHttp if is_events(&head.headers) => (Kind::ForeignEvents, first),
                Form::WebSocketOverHttp => (Kind::Bytes, first),
            };
            Response::from_parts(head, Body::new(Content::new(socket, first, kind, carried)))
        }
        (Some(Beginning::Complete(response)), _) => {
            let (head, body) = parts(response);
            Response::from_parts(head, body.into())
        }
        (Some(Beginning::Refused(refusal)), _) => refused(&refusal),
        (Some(Beginning::Stream(_)) | None, _) => refused(&busy),
    }
}

/// The head of a request as text, for the shard's parser.
fn written(head: &Parts) -> Vec<u8> {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// A backend's response. Headers that are none were left out before.
fn parts(response: event::Response) -> (http::response::Parts, axum::body::Bytes) {
    let event::Response { status, headers, body } = response;
    let mut answer = http::Response::new(());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in headers {
        let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_bytes(value.as_bytes()).ok());
        if let Some((name, value)) = header {
            answer.headers_mut().append(name, value);
        }
    }
    (answer.into_parts().0, body.into_vec().into())
}

/// What every stream says, unless its backend has said otherwise by GRIP.
fn finish(headers: &mut HeaderMap, is_plain: bool) {
    if is_plain {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(sse::MEDIA_TYPE));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // nginx is to pass each event on at once, also where it compresses.
    headers.entry(ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
}

fn is_events(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(sse::is_accepted)
}

/// Lets the pages read the response that the app lets connect. Cookies are for those that it names.
fn allow_origin(context: &Context, route: &Route, head: &Parts, headers: &mut HeaderMap) {
    let Some(origin) = head.headers.get(ORIGIN).filter(|_| !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)) else {
        return;
    };
    let Some(app) = route.app(context.node().apps()) else { return };
    let snapshot = Arc::clone(&app.snapshot());
    let origins = &snapshot.config.origins;
    let Some(text) = origin.to_str().ok().filter(|text| origin::is_allowed(origins, Some(text))) else { return };
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Ok(text) = HeaderValue::from_str(text) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, text);
    }
    if !origins.is_empty() {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `EventSource` asks without; other clients may send these.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, cache-control, last-event-id")),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
];

/// When to come back where no shard takes a stream.
const RETRY: Duration = Duration::from_secs(1);

/// How long a shard may take beside its route's backend.
const OPENING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(header).collect()
    }

    #[test]
    fn a_head_is_written_as_it_came() {
        for (target, written_target) in [
            ("/news/a%20b?token=t&x", "/news/a%20b?token=t&x"),
            ("http://a.example/news?y", "/news?y"),
            ("http://a.example", "/"),
        ] {
            let request =
                http::Request::get(target).header("Host", "a").header("Cookie", "b=1").header("cookie", "c=2");
            let (head, ()) = request.body(()).expect("a request").into_parts();
            let expected = format!("GET {written_target} HTTP/1.1\r\nhost: a\r\ncookie: b=1\r\ncookie: c=2\r\n\r\n");
            assert_eq!(String::from_utf8(written(&head)).expect("text"), expected);
        }
    }

    #[test]
    fn a_stream_says_that_it_is_one_and_not_to_be_held_back() {
        let mut plain = headers(&[("content-type", "text/html"), ("set-cookie", "a=1")]);
        finish(&mut plain, true);
        let expected = [
            ("content-type", "text/event-stream"),
            ("set-cookie", "a=1"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ];
        assert_eq!(plain, headers(&expected));
        let own = [("content-type", "text/plain"), ("cache-control", "no-cache"), ("x-accel-buffering", "yes")];
        let mut grip = headers(&own);
        finish(&mut grip, false);
        assert_eq!(grip, headers(&own));
        let mut bare = HeaderMap::new();
        finish(&mut bare, false);
        assert_eq!(bare, headers(&[("cache-control", "no-store"), ("x-accel-buffering", "no")]));
    }

    #[test]
    fn a_stream_of_events_is_known_by_its_type() {
        for (content_type, is_one) in
            [("text/event-stream", true), ("text/event-stream; charset=utf-8", true), ("text/plain", false)]
        {
            assert_eq!(is_events(&headers(&[("content-type", content_type)])), is_one, "{content_type}");
        }
        assert!(!is_events(&HeaderMap::new()));
    }

    #[test]
    fn what_a_backend_says_becomes_the_response() {
        let line = |name: &str, value: &str| (name.into(), value.into());
        let lines = vec![line("Set-Cookie", "a=1"), line("set-cookie", "b=2"), line("no name", "x")];
        let (head, body) = parts(event::Response { status: 404, headers: lines, body: b"x".as_slice().into() });
        assert_eq!((head.status.as_u16(), &body[..]), (404, &b"x"[..]));
        let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!((cookies, head.headers.len()), (vec![&b"a=1"[..], b"b=2"], 2));
    }
}
