//! Clients that cannot have a WebSocket, carried by HTTP requests below `/pusher`: XHR streaming, XHR polling and
//! SockJS, as pusher-js falls back to them.
//!
//! A session is an ordinary client of a shard: it speaks WebSocket with the shard over a [`taut_shard::pipe()`], so
//! every rule for clients holds for it too. `codec` is the text, `session` the queue and the task, `connector` opens
//! the pipe, `table` holds the sessions and decides which makes room, `xhr` and `sockjs` answer the requests.
//!
//! The client chooses the session's name, and anyone who knows it can speak and listen in the client's place, as with
//! any token in a URL; logs of proxies show it. It is bound to the app's key, must be too long to guess, and is
//! worthless once the session is over.

mod codec;
mod connector;
mod session;
mod sockjs;
mod table;
mod xhr;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use taut::Close;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::apps::{Apps, Fallback};
use crate::close::Reason;
use crate::config::{Config, Network};
use crate::connect_auth;
use crate::http::answer::ApiError;
use crate::refusals::RefusalReason;
use crate::shard::{Unwelcome, no_such_app, tell_unwelcome};
pub(crate) use connector::Connector;
use connector::Request;
use session::{Mode, Session, Timeouts};
use table::{Full, Table};

/// All sessions, and what their requests need.
#[derive(Debug)]
pub(crate) struct Transports {
    sessions: Mutex<PusherHandler>,
    entrance: Arc<Connector>,
    apps: Arc<Apps>,
    /// From where `X-Forwarded-For` is believed.
    trusted: Box<[Network]>,
    path_prefix: String,
    patience: Timeouts,
    /// Bytes of a request with messages.
    largest_body: usize,
    draining: watch::Receiver<bool>,
}

#[derive(Debug)]
struct PusherHandler {
    /// Those whose app is known, and lets clients come so.
    known: Table,
    /// Those of SockJS that have not said yet where they want to go: anybody may begin one, without a key.
    unknown: Table,
}

impl PusherHandler {
    fn get(&self, name: &str) -> Option<&Arc<Session>> {
        self.known.get(name).or_else(|| self.unknown.get(name))
    }

    fn remove(&mut self, name: &str, session: &Arc<Session>) {
        let _ = self.unknown.remove(name, session) || self.known.remove(name, session);
    }
}

/// What a request to receive comes to.
enum Begun {
    Session(Arc<Session>),
    /// A session would only be closed, so there is none.
    Refused(Close),
}

impl Transports {
    /// Heartbeats are those that WebSocket clients have, and so is the bound of what a client may send.
    pub(crate) fn new(
        entrance: Arc<Connector>,
        apps: Arc<Apps>,
        config: &Config,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let (interval, timeout) = (config.ping_interval.min(LONGEST_INTERVAL), config.pong_timeout);
        let patience = Timeouts {
            interval,
            introduction: LONGEST_INTRODUCTION,
            silence: interval + timeout,
            absence: timeout.min(LONGEST_ABSENCE),
        };
        Self {
            sessions: Mutex::new(PusherHandler {
                known: Table::new(MOST_SESSIONS, MOST_SESSIONS),
                unknown: Table::new(MOST_UNKNOWN, MOST_UNKNOWN_OF_ONE),
            }),
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
        mode: &Mode,
        head: &Parts,
        peer: SocketAddr,
    ) -> Result<Begun, ApiError> {
        let mut sessions = self.sessions();
        if let Some(session) = sessions.get(place.session) {
            return Ok(Begun::Session(Arc::clone(session)));
        }
        let table = if place.app.is_empty() { &mut sessions.unknown } else { &mut sessions.known };
        let client = self.client(head, peer);
        if let Some(unwelcome) = self.refusal(place.app).filter(|_| !place.app.is_empty()) {
            drop(sessions);
            tell_unwelcome(&unwelcome, self.apps.refusals(), None, Some(client.ip()));
            return Ok(Begun::Refused(unwelcome.close));
        }
        let (session, messages) = Session::new(self.patience);
        let session = Arc::new(session);
        let displaced = table.insert(place.session, client.ip(), Arc::clone(&session), Instant::now());
        drop(sessions);
        let displaced = displaced.map_err(|Full| {
            let problem = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "There are too many connections over HTTP.");
            problem.retry_after(Duration::from_secs(1))
        })?;
        if let Some(displaced) = displaced {
            displaced.displace();
        }
        let request = Request::new(place.app, head, client);
        let fallback = place.fallback(mode);
        let carried = Arc::clone(self).carry(place.session.into(), Arc::clone(&session), messages, request, fallback);
        drop(tokio::spawn(carried));
        Ok(Begun::Session(session))
    }

    /// The session that a request belongs to.
    fn session(&self, place: &Place<'_>) -> Result<Arc<Session>, ApiError> {
        self.sessions().get(place.session).map(Arc::clone).ok_or_else(no_session)
    }

    /// Sees a session through, from its connection to a shard until nobody needs to know of it any more.
    async fn carry(
        self: Arc<Self>,
        name: Box<str>,
        session: Arc<Session>,
        messages: mpsc::Receiver<String>,
        request: Request,
        fallback: Fallback,
    ) {
        let close = self.relay(&name, &session, messages, request, fallback).await.unwrap_or_else(|close| close);
        session.end(close);
        session.forgotten().await;
        self.sessions().remove(&name, &session);
        session.cut();
    }

    async fn relay(
        &self,
        name: &str,
        session: &Arc<Session>,
        mut messages: mpsc::Receiver<String>,
        mut request: Request,
        fallback: Fallback,
    ) -> Result<Close, Close> {
        if request.path.is_empty() {
            let mut draining = self.draining.clone();
            let first = tokio::select! {
                first = session.first_message(&mut messages) => first?,
                () = sleep(self.patience.introduction) => {
                    return Err(Reason::PATH_NOT_FOUND.because("no first message came in time"));
                }
                _ = draining.wait_for(|draining| *draining) => {
                    return Err(Reason::GOING_DOWN.close());
                }
            };
            request.path = codec::path(&first)
                .ok_or_else(|| Reason::PATH_NOT_FOUND.because("the first message is {\"path\":\"/app/KEY\"}"))?;
            if let Some(unwelcome) = self.refusal(&request.path) {
                tell_unwelcome(&unwelcome, self.apps.refusals(), None, Some(request.client()));
                session.refuse(&unwelcome.close);
                return Err(unwelcome.close);
            }
            self.settle(name, session, request.client())?;
        }
        match self.entrance.open(&request, &self.path_prefix).await {
            Ok(socket) => {
                let _carried =
                    key_in(&request.path).and_then(|key| self.apps.by_key_in_path(key)).map(|app| app.carry(fallback));
                Ok(session.relay(socket, messages).await)
            }
            Err(error) if error.is_invalid() => {
                Err(Reason::PATH_NOT_FOUND.because("the request's host, origin or path is invalid"))
            }
            Err(error) => {
                tracing::debug!(%error, "no shard took a session over HTTP");
                Err(Reason::OVER_CAPACITY.close())
            }
        }
    }

    /// Who the client is, to the shard and to whom that asks: as a WebSocket of it would be known, whose request has the header.
    fn client(&self, head: &Parts, peer: SocketAddr) -> SocketAddr {
        match connect_auth::client_of(peer, &head.headers, &self.trusted) {
            address if address == peer.ip().to_canonical() => peer,
            // Of its port nothing is known.
            address => SocketAddr::new(address, 0),
        }
    }

    /// A session has said which app it is for: it no longer stands among those of strangers.
    fn settle(&self, name: &str, session: &Arc<Session>, client: IpAddr) -> Result<(), Close> {
        let mut sessions = self.sessions();
        if !sessions.unknown.remove(name, session) {
            // It has made room for another in this moment.
            return Err(Reason::OVER_CAPACITY.close());
        }
        let displaced = sessions.known.insert(name, client, Arc::clone(session), Instant::now());
        drop(sessions);
        if let Some(displaced) = displaced.map_err(|Full| Reason::OVER_CAPACITY.close())? {
            displaced.displace();
        }
        Ok(())
    }

    /// Why no client is let in by this path, `/app/KEY?…`, if so. The shard decides all else, as for WebSockets.
    fn refusal(&self, path: &str) -> Option<Unwelcome> {
        let wrong_path = |details| Unwelcome::new(RefusalReason::WrongPath, Reason::PATH_NOT_FOUND.because(details));
        let Some(key) = key_in(path) else { return Some(wrong_path("clients connect to /app/KEY")) };
        let Some(app) = self.apps.by_key_in_path(key) else { return Some(no_such_app(key)) };
        let is_open = app.snapshot().config.features.fallback;
        (!is_open).then(|| wrong_path("clients of this app connect by WebSockets alone"))
    }

    fn sessions(&self) -> MutexGuard<'_, PusherHandler> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What clients without WebSockets ask for, below the path prefix.
pub(crate) const ROUTES: [(&str, Handlers); 9] = [
    ("/pusher/app/{key}/{server}/{session}/xhr_streaming", || post(xhr::stream).options(xhr::preflight)),
    ("/pusher/app/{key}/{server}/{session}/xhr", || post(xhr::poll).options(xhr::preflight)),
    ("/pusher/app/{key}/{server}/{session}/xhr_send", || post(xhr::send).options(xhr::preflight)),
    ("/pusher/info", || get(sockjs::info).options(xhr::preflight)),
    ("/pusher/{server}/{session}/xhr_streaming", || post(sockjs::stream).options(xhr::preflight)),
    ("/pusher/{server}/{session}/xhr", || post(xhr::poll).options(xhr::preflight)),
    ("/pusher/{server}/{session}/xhr_send", || post(xhr::send).options(xhr::preflight)),
    ("/pusher/{server}/{session}/jsonp", || get(sockjs::call)),
    ("/pusher/{server}/{session}/jsonp_send", || post(sockjs::send)),
];

type Handlers = fn() -> MethodRouter<Arc<Transports>>;

/// Serves [`ROUTES`].
pub(crate) fn router<S: Clone + Send + Sync + 'static>(fallback: Arc<Transports>) -> Router<S> {
    let prefix = &fallback.path_prefix;
    ROUTES
        .iter()
        .fold(Router::new(), |router, (path, handlers)| router.route(&format!("{prefix}{path}"), handlers()))
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
    fn parse(path: &'p str, path_prefix: &str) -> Result<Self, ApiError> {
        let parse = || {
            let (session, _) = path.strip_prefix(path_prefix)?.strip_prefix(BASE)?.rsplit_once('/')?;
            let (rest, name) = session.rsplit_once('/')?;
            let (app, server) = rest.rsplit_once('/')?;
            let is_sane = name.len() >= SHORTEST_NAME && !server.is_empty() && session.len() <= LONGEST_PLACE;
            is_sane.then_some(Self { session, app })
        };
        parse().ok_or_else(|| {
            let error = format!("A session's name must have {SHORTEST_NAME} characters or more, drawn at random.");
            ApiError::new(StatusCode::NOT_FOUND, error)
        })
    }
}

impl Place<'_> {
    /// How the client comes whose session is begun so. SockJS has its own ways, and some of pusher-js'.
    fn fallback(&self, mode: &Mode) -> Fallback {
        match mode {
            _ if self.app.is_empty() => Fallback::SockJs,
            Mode::Polling => Fallback::XhrPolling,
            Mode::Streaming | Mode::Limited | Mode::Call(_) => Fallback::XhrStreaming,
        }
    }
}

/// The key in a path of the form `/app/KEY?…`.
fn key_in(path: &str) -> Option<&str> {
    let key = path.strip_prefix("/app/").map(|rest| rest.split_once('?').map_or(rest, |(key, _)| key));
    key.filter(|key| !key.is_empty() && !key.contains('/'))
}

fn no_session() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "There is no such session, or it is over.")
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

/// Where pusher-js looks for all of it, below the server's prefix; its `httpPath` says otherwise.
const BASE: &str = "/pusher";

/// At a time. Each holds an HTTP connection while it receives, of those that publishers need as well.
const MOST_SESSIONS: usize = 5000;

/// At a time, of those whose app is not known yet, from all networks and from one. A browser has one of them for a round trip.
const MOST_UNKNOWN: usize = 512;
const MOST_UNKNOWN_OF_ONE: usize = 64;

/// How long a session may take to say which app it is for. Over a slow mobile network, that request needs a connection of its own and a handshake of TLS.
const LONGEST_INTRODUCTION: Duration = Duration::from_secs(5);

/// Common load balancers cut a silent connection after 30 to 60 seconds, and SockJS gives a request of JSONP up after 35.
const LONGEST_INTERVAL: Duration = Duration::from_secs(25);

const LONGEST_ABSENCE: Duration = Duration::from_secs(10);

/// Characters; what pusher-js and SockJS draw: 40 bits of it and more, and the number before it has ten.
const SHORTEST_NAME: usize = 8;

/// Bytes.
const LONGEST_PLACE: usize = 256;

/// For the fuzz targets.
#[cfg(feature = "testing")]
pub mod testing {
    use std::borrow::Cow;

    use super::codec;

    /// The messages in a request's body.
    pub fn messages(body: &[u8]) -> Option<Vec<String>> {
        codec::messages(body)
    }

    /// A frame with these messages.
    pub fn frame(messages: &[String]) -> String {
        let mut out = String::new();
        codec::write_messages(&mut out, messages.iter().map(|message| codec::quoted(message)));
        out
    }

    /// The path in the first message of SockJS.
    pub fn path(message: &str) -> Option<String> {
        codec::path(message)
    }

    /// A frame as a call of JSONP, if that function may be called.
    pub fn call(callback: &str, frame: &str) -> Option<String> {
        let mut out = String::new();
        codec::is_callback(callback).then(|| codec::write_call(&mut out, callback, frame))?;
        Some(out)
    }

    /// A field of a form.
    pub fn field<'a>(form: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
        codec::field(form, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Limits;

    /// Where sessions are begun, and no shard takes them.
    struct Scene {
        fallback: Arc<Transports>,
        _draining: watch::Sender<bool>,
    }

    impl Scene {
        fn new() -> Self {
            Self::with(|_| {})
        }

        fn with(change: impl FnOnce(&mut Timeouts)) -> Self {
            let (draining, is_draining) = watch::channel(false);
            let apps = Arc::new(Apps::development(&Limits::default()));
            let mut fallback =
                Transports::new(Arc::new(Connector::new(Vec::new())), apps, &Config::default(), is_draining);
            change(&mut fallback.patience);
            Self { fallback: Arc::new(fallback), _draining: draining }
        }

        fn begin(&self, app: &str, name: &str, from: [u8; 4]) -> Option<Begun> {
            let (head, ()) = http::Request::new(()).into_parts();
            let session = format!("{app}/1/{name}");
            let place = Place { session: &session, app };
            self.fallback.session_or_new(&place, &Mode::Polling, &head, SocketAddr::from((from, 1))).ok()
        }

        fn begun(&self, app: &str, name: &str, from: [u8; 4]) -> Arc<Session> {
            match self.begin(app, name, from) {
                Some(Begun::Session(session)) => session,
                _ => panic!("no session for {name}"),
            }
        }
    }

    const ATTACKER: [u8; 4] = [192, 0, 2, 1];
    const CLIENT: [u8; 4] = [192, 0, 2, 2];

    #[tokio::test]
    async fn whoever_begins_thousands_of_sessions_keeps_nobody_out() {
        for app in ["", "/app/app-key"] {
            let scene = Scene::new();
            let before = scene.begun(app, "listening", CLIENT);
            before.pretend_listening();
            for number in 0..6000 {
                scene.begun(app, &format!("{number:08}"), ATTACKER);
            }
            // From elsewhere, and from behind the same address as the attacker.
            let (after, beside) = (scene.begun(app, "newcomer", CLIENT), scene.begun(app, "neighbour", ATTACKER));
            for session in [&after, &beside] {
                session.pretend_listening();
            }
            for number in 0..6000 {
                scene.begun(app, &format!("again-{number:08}"), ATTACKER);
            }
            for (name, session) in [("listening", before), ("newcomer", after), ("neighbour", beside)] {
                assert!(Arc::ptr_eq(&session, &scene.begun(app, name, CLIENT)), "{name} of {app:?}");
            }
        }
    }

    #[tokio::test]
    async fn there_is_no_session_for_a_key_that_nobody_has() {
        let scene = Scene::new();
        for app in ["/app/nonsense", "/app/", "/app/a/b"] {
            let refused = scene.begin(app, "abcdefgh", ATTACKER);
            assert!(matches!(refused, Some(Begun::Refused(close)) if [4001, 4005].contains(&close.code().as_u16())));
        }
        assert_eq!(scene.fallback.sessions().known.len(), 0);
    }

    #[tokio::test]
    async fn a_session_that_does_not_say_its_app_is_over_soon_though_it_is_listened_to() {
        let scene = Scene::with(|patience| {
            (patience.introduction, patience.absence) = (Duration::from_millis(10), Duration::from_millis(10));
        });
        let session = scene.begun("", "abcdefgh", CLIENT);
        session.pretend_listening();
        eventually(|| scene.fallback.sessions().unknown.len() == 0).await;
        assert_eq!(session.say(Vec::new()).await, Err(session::Ended));
    }

    #[tokio::test]
    async fn a_session_that_has_made_room_is_over_at_once() {
        let scene = Scene::new();
        let session = scene.begun("", "abcdefgh", CLIENT);
        session.displace();
        assert_eq!(session.say(Vec::new()).await, Err(session::Ended));
        eventually(|| Arc::strong_count(&session) == 1).await;
    }

    async fn eventually(mut is_so: impl FnMut() -> bool) {
        let waited = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited).await.expect("it is so in the end");
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
