//! The connection of a client that cannot have a WebSocket, carried by HTTP requests, as pusher-js does by itself: XHR streaming, XHR polling
//! and SockJS, below `/pusher`.
//!
//! A session here is an ordinary client of a shard: its own end of a private pair of sockets speaks WebSocket with the shard, which knows nothing of
//! HTTP. So whatever holds for clients holds for these.
//!
//! The client makes up the session's name, and whoever knows it can speak and listen in the client's place, as with any token in a URL: logs of
//! proxies show it. It is bound to the key of its app, has to be long enough not to be guessed, and is worth nothing once the session is over.

mod link;
mod session;
mod sockjs;
mod wire;
mod xhr;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use taut::{Close, CloseCode};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::api::answer::Problem;
use crate::config::{Config, Network};
use crate::guard;
use crate::session::{GOING_DOWN, OVER_CAPACITY};
use crate::tenants::Apps;
pub(crate) use link::Entrance;
use link::Request;
use session::{Mode, Patience, Session};

/// All sessions, and what their requests need.
#[derive(Debug)]
pub(crate) struct Fallback {
    sessions: Mutex<HashMap<Box<str>, Arc<Session>>>,
    entrance: Entrance,
    apps: Arc<Apps>,
    /// From where `X-Forwarded-For` is believed.
    trusted: Box<[Network]>,
    path_prefix: String,
    patience: Patience,
    /// Bytes of a request with messages.
    largest_body: usize,
    draining: watch::Receiver<bool>,
}

impl Fallback {
    /// Heartbeats are those that WebSocket clients have, and so is the bound of what a client may send.
    pub(crate) fn new(entrance: Entrance, apps: Arc<Apps>, config: &Config, draining: watch::Receiver<bool>) -> Self {
        let (interval, timeout) = (config.ping_interval.min(LONGEST_INTERVAL), config.pong_timeout);
        let patience = Patience { interval, silence: interval + timeout, absence: timeout.min(LONGEST_ABSENCE) };
        Self {
            sessions: Mutex::default(),
            entrance,
            apps,
            trusted: config.trusted_proxies.as_slice().into(),
            path_prefix: config.path_prefix.clone(),
            patience,
            largest_body: config.message.saturating_mul(4),
            draining,
        }
    }

    /// The session that a request belongs to, which is begun if there is none.
    fn session_or_new(
        self: &Arc<Self>,
        place: &Place<'_>,
        head: &Parts,
        peer: SocketAddr,
    ) -> Result<Arc<Session>, Problem> {
        let mut sessions = self.sessions();
        if let Some(session) = sessions.get(place.session) {
            return Ok(Arc::clone(session));
        }
        if sessions.len() >= MOST_SESSIONS {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "There are too many connections over HTTP.");
            return Err(problem.retry_after(Duration::from_secs(1)));
        }
        let (session, messages) = Session::new(self.patience);
        let session = Arc::new(session);
        sessions.insert(place.session.into(), Arc::clone(&session));
        drop(sessions);
        let name = place.session.into();
        let request = Request::new(place.app, head, self.client(head, peer));
        drop(tokio::spawn(Arc::clone(self).carry(name, Arc::clone(&session), messages, request)));
        Ok(session)
    }

    /// The session that a request belongs to.
    fn session(&self, place: &Place<'_>) -> Result<Arc<Session>, Problem> {
        self.sessions().get(place.session).map(Arc::clone).ok_or_else(no_session)
    }

    /// Sees a session through, from its connection to a shard until nobody needs to know of it any more.
    async fn carry(
        self: Arc<Self>,
        name: Box<str>,
        session: Arc<Session>,
        messages: mpsc::Receiver<String>,
        request: Request,
    ) {
        let close = self.relay(&session, messages, request).await.unwrap_or_else(|close| close);
        session.end(close);
        sleep(self.patience.absence).await;
        self.sessions().remove(&name);
        session.cut();
    }

    async fn relay(
        &self,
        session: &Session,
        mut messages: mpsc::Receiver<String>,
        mut request: Request,
    ) -> Result<Close, Close> {
        if request.path.is_empty() {
            let mut draining = self.draining.clone();
            let first = tokio::select! {
                first = session.first_message(&mut messages) => first?,
                _ = draining.wait_for(|draining| *draining) => {
                    return Err(Close::new(GOING_DOWN, "The server is going down: please reconnect"));
                }
            };
            request.path = wire::path(&first).ok_or_else(|| {
                Close::new(PATH_NOT_FOUND, "Path not found: the first message is {\"path\":\"/app/KEY\"}")
            })?;
        }
        if !self.is_open_to(&request.path) {
            return Err(Close::new(PATH_NOT_FOUND, "Path not found: clients of this app connect by WebSockets alone"));
        }
        match self.entrance.open(&request, &self.path_prefix).await {
            Ok(socket) => Ok(session.relay(socket, messages).await),
            Err(error) if error.is_invalid() => {
                Err(Close::new(PATH_NOT_FOUND, "Path not found: the request's host, origin or path is none"))
            }
            Err(error) => {
                tracing::debug!(%error, "no shard took a session over HTTP");
                Err(Close::new(OVER_CAPACITY, "Over capacity"))
            }
        }
    }

    /// Who the client is, to the shard and to whom that asks: as a WebSocket of it would be known, whose request has the header.
    fn client(&self, head: &Parts, peer: SocketAddr) -> SocketAddr {
        match guard::client_of(peer, &head.headers, &self.trusted) {
            address if address == peer.ip().to_canonical() => peer,
            // Of its port nothing is known.
            address => SocketAddr::new(address, 0),
        }
    }

    /// Whether the app of this path lets clients come so. Of one that is not there, the shard tells.
    fn is_open_to(&self, path: &str) -> bool {
        let key = path.strip_prefix("/app/").map(|rest| rest.split_once('?').map_or(rest, |(key, _)| key));
        let tenant = key.and_then(|key| self.apps.by_key(key));
        tenant.is_none_or(|tenant| tenant.terms().app.features.fallback)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What clients without WebSockets ask for.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(fallback: Arc<Fallback>) -> Router<S> {
    let base = format!("{}{BASE}", fallback.path_prefix);
    let pusher = |name: &str| format!("{base}/app/{{key}}/{{server}}/{{session}}/{name}");
    let sockjs = |name: &str| format!("{base}/{{server}}/{{session}}/{name}");
    Router::new()
        .route(&pusher("xhr_streaming"), post(xhr::stream).options(xhr::preflight))
        .route(&pusher("xhr"), post(xhr::poll).options(xhr::preflight))
        .route(&pusher("xhr_send"), post(xhr::send).options(xhr::preflight))
        .route(&format!("{base}/info"), get(sockjs::info).options(xhr::preflight))
        .route(&sockjs("xhr_streaming"), post(sockjs::stream).options(xhr::preflight))
        .route(&sockjs("xhr"), post(xhr::poll).options(xhr::preflight))
        .route(&sockjs("xhr_send"), post(xhr::send).options(xhr::preflight))
        .route(&sockjs("jsonp"), get(sockjs::call))
        .route(&sockjs("jsonp_send"), post(sockjs::send))
        .with_state(fallback)
}

/// Where a request belongs.
#[derive(Debug, PartialEq, Eq)]
struct Place<'p> {
    /// `/app/KEY/SERVER/SESSION`; with SockJS `/SERVER/SESSION`, since its app is told later.
    session: &'p str,
    /// `/app/KEY`; empty with SockJS.
    app: &'p str,
}

impl<'p> Place<'p> {
    /// The path has one of the forms above, or the request would not have come here.
    fn parse(path: &'p str, path_prefix: &str) -> Result<Self, Problem> {
        let parse = || {
            let (session, _) = path.strip_prefix(path_prefix)?.strip_prefix(BASE)?.rsplit_once('/')?;
            let (rest, name) = session.rsplit_once('/')?;
            let (app, server) = rest.rsplit_once('/')?;
            let is_sane = name.len() >= SHORTEST_NAME && !server.is_empty() && session.len() <= LONGEST_PLACE;
            is_sane.then_some(Self { session, app })
        };
        parse().ok_or_else(|| {
            let error = format!("A session's name has {SHORTEST_NAME} characters or more, drawn at random.");
            Problem::new(StatusCode::NOT_FOUND, error)
        })
    }
}

fn no_session() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is no such session, or it is over.")
}

/// Lets the pages of every site read the answer, as they may open WebSockets here; no answer depends on a cookie.
///
/// SockJS asks with credentials, which takes the origin's own name and one header more.
fn allowing(headers: &HeaderMap, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let allowed = response.headers_mut();
    let origin = headers.get(ORIGIN);
    if origin.is_some() {
        allowed.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    allowed.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.cloned().unwrap_or(HeaderValue::from_static("*")));
    allowed.insert(VARY, HeaderValue::from_static("origin"));
    allowed.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    allowed.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Beside it in every answer that streams: nginx is to pass each frame on at once.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

const SCRIPT: (HeaderName, HeaderValue) =
    (CONTENT_TYPE, HeaderValue::from_static("application/javascript; charset=UTF-8"));

const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type")),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
];

/// Of Pusher's codes, as a shard would answer.
const PATH_NOT_FOUND: CloseCode = CloseCode::new(4005);

/// Where pusher-js looks for all of it, below the server's prefix; its `httpPath` says otherwise.
const BASE: &str = "/pusher";

/// At a time. Each holds an HTTP connection while it receives, of those that publishers need as well.
const MOST_SESSIONS: usize = 5000;

/// Common load balancers cut a silent connection after 30 to 60 seconds, and SockJS gives a request of JSONP up after 35.
const LONGEST_INTERVAL: Duration = Duration::from_secs(25);

const LONGEST_ABSENCE: Duration = Duration::from_secs(10);

/// Characters; what pusher-js and SockJS draw: 40 bits of it and more, and the number before it has ten.
const SHORTEST_NAME: usize = 8;

/// Bytes.
const LONGEST_PLACE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Limits;

    #[tokio::test]
    async fn sessions_are_bounded_in_number() {
        let (_draining, is_draining) = watch::channel(false);
        let apps = Arc::new(Apps::development(&Limits::default()));
        let fallback = Fallback::new(Entrance::new(Vec::new()), apps, &Config::default(), is_draining);
        let fallback = Arc::new(fallback);
        let session = Arc::new(Session::new(fallback.patience).0);
        fallback.sessions().extend((1..MOST_SESSIONS).map(|number| (number.to_string().into(), Arc::clone(&session))));
        let (head, ()) = http::Request::new(()).into_parts();
        let begun = |name: &str| {
            let place = Place { session: name, app: "" };
            fallback.session_or_new(&place, &head, SocketAddr::from(([192, 0, 2, 1], 1))).is_ok()
        };
        assert!(begun("/1/abcdefgh"));
        assert!(!begun("/2/abcdefgh"));
        assert!(begun("/1/abcdefgh"), "who has one keeps it");
    }

    #[test]
    fn a_session_is_bound_to_its_app() {
        let place = |path| Place::parse(path, "/x").ok();
        let expected = Place { session: "/app/key/12/abcdefgh", app: "/app/key" };
        assert_eq!(place("/x/pusher/app/key/12/abcdefgh/xhr_send"), Some(expected));
        let expected = Place { session: "/12/abcdefgh", app: "" };
        assert_eq!(place("/x/pusher/12/abcdefgh/xhr"), Some(expected));
        let long = format!("/x/pusher/app/{}/12/abcdefgh/xhr", "k".repeat(256));
        for path in ["/pusher/12/abcdefgh/xhr", "/x/pusher/12/abcdefg/xhr", "/x/pusher//abcdefgh/xhr", &long] {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
