//! Who may see the console: those who have its secret, and on a loopback listener of its own everybody.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, COOKIE, ORIGIN, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use taut_proto::handshake::cookie_value;
use tokio::sync::watch;

use super::super::listener::{self, Listener};
use super::super::{Context, chat, not_found};
use super::Console;
use crate::app::Secret;
use crate::connect_auth;
use crate::http::Peer;
use crate::http::answer::{self, ApiError};
use crate::http::body;
use crate::pusher::hex;

/// What the console asks of those who open it; an extension of each request to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nothing: its listener is its own, and on loopback.
    Nothing,
    Password,
    /// The token of the link that is printed at the start.
    Token,
}

impl Login {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Password => "password",
            Self::Token => "token",
        }
    }
}

/// There is no console, not even a locked one, where no secret could open it.
///
/// # Cancel safety
/// That of what is asked for.
pub(super) async fn check_listener(
    State(context): State<Arc<Context>>,
    Extension(listener): Extension<Listener>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(login) = context.console_login(listener) else {
        return not_found(request).await.into_response();
    };
    if login == Login::Nothing
        && let Err(problem) = listener::check_host(&request)
    {
        body::discard(request.into_body()).await;
        return problem.into_response();
    }
    request.extensions_mut().insert(login);
    let mut response = next.run(request).await;
    // What is shown here is for nobody's cache; the pages say so in their own words.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Other sites' pages may neither send anything here nor make the browser ask.
///
/// # Cancel safety
/// That of what is asked for.
pub(super) async fn check_origin(request: Request, next: Next) -> Response {
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    match chat::check_origin(request.uri(), request.headers()) {
        Ok(()) if !is_foreign => next.run(request).await,
        _ => {
            body::discard(request.into_body()).await;
            ApiError::new(StatusCode::FORBIDDEN, "Only the console's own page may ask here.").into_response()
        }
    }
}

/// Behind this are those who have logged in, where that is needed.
///
/// # Cancel safety
/// That of what is asked for.
pub(super) async fn check_session(
    State(context): State<Arc<Context>>,
    Extension(login): Extension<Login>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(admission) = admission(&context, login, request.headers()) {
        request.extensions_mut().insert(admission);
        return next.run(request).await;
    }
    body::discard(request.into_body()).await;
    ApiError::new(StatusCode::UNAUTHORIZED, "Log in to the console first.").into_response()
}

/// `GET /console/api/session`: what the console asks for (`password`, `token` or `nothing`), and whether this browser has given it.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(super) async fn state(
    State(context): State<Arc<Context>>,
    Extension(login): Extension<Login>,
    headers: HeaderMap,
) -> Response {
    let (name, admitted) = (login.name(), admission(&context, login, &headers).is_some());
    let version = env!("CARGO_PKG_VERSION");
    answer::json(format!(r#"{{"login":"{name}","admitted":{admitted},"version":"{version}"}}"#))
}

/// `POST /console/api/session` with `{"password":"…"}` or `{"token":"…"}`, whichever the console asks for: gives a cookie.
///
/// # Cancel safety
/// Dropped before it is done, an attempt may have been counted.
pub(super) async fn log_in(
    State(context): State<Arc<Context>>,
    Extension(login): Extension<Login>,
    Extension(listener): Extension<Listener>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let sent = body::read(sent, LARGEST_LOGIN).await?;
    chat::check_content_type(&head.headers)?;
    match login {
        Login::Nothing => return Err(ApiError::bad_request("This console asks for neither a password nor a token.")),
        Login::Password => check_password(&context.console, listener, &head, &sent)?,
        Login::Token => check_token(&context.console, &sent)?,
    }
    let mut token = [0; 32];
    getrandom::fill(&mut token)
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "A server error has occurred."))?;
    context.console.sessions().add(&token, Instant::now());
    // Behind a proxy with TLS the browser knows that it may keep the cookie from plain HTTP.
    let secure = head.headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let cookie = format!(
        "{NAME}={}; Path=/console; Max-Age={}; HttpOnly; SameSite=Strict{}",
        hex::encode(&token),
        LIFE.as_secs(),
        if secure { "; Secure" } else { "" }
    );
    Ok(([(SET_COOKIE, cookie)], answer::json("{}")).into_response())
}

fn check_password(console: &Console, listener: Listener, head: &Parts, sent: &[u8]) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Given {
        password: String,
    }
    // Before the password is looked at, or a flood of guesses would find it all the same.
    let address = take_attempt(console, listener, head)?;
    let given: Given =
        serde_json::from_slice(sent).map_err(|_| ApiError::bad_request("To log in, send {\"password\":\"…\"}."))?;
    let is_right = console.password.as_ref().is_some_and(|password| is_same(&given.password, password.reveal()));
    if is_right {
        return Ok(());
    }
    tracing::warn!(%address, "somebody gave a wrong password for the console");
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "That is not the password."))
}

/// Attempts are not counted: 128 random bits cannot be guessed, and nobody can lock out the person with the link.
fn check_token(console: &Console, sent: &[u8]) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Given {
        token: String,
    }
    let given: Given =
        serde_json::from_slice(sent).map_err(|_| ApiError::bad_request("To log in, send {\"token\":\"…\"}."))?;
    if is_same(given.token.trim(), console.token.reveal()) {
        return Ok(());
    }
    let error = "That is not the token: the server makes a new one at each start.";
    Err(ApiError::new(StatusCode::UNAUTHORIZED, error))
}

/// In constant time. Digests have one length, so not even a secret's length is told by the time it takes.
fn is_same(given: &str, secret: &str) -> bool {
    Sha256::digest(given).ct_eq(&Sha256::digest(secret)).into()
}

/// A token for the link that is printed at the start.
pub(super) fn new_token() -> io::Result<Secret> {
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret::from(hex::encode(&token)))
}

/// Counts an attempt; gives whose it is.
fn take_attempt(console: &Console, listener: Listener, head: &Parts) -> Result<IpAddr, ApiError> {
    // Every request has a peer. One that had none would be one with all others that have none.
    let peer = head.extensions.get::<Peer>().map_or_else(|| SocketAddr::from(([0; 4], 0)), |Peer(peer)| *peer);
    let address = connect_auth::client_of(peer, &head.headers, &console.trusted);
    console.attempts(listener).take(address, Instant::now()).map_err(|delay| {
        let error =
            "Too many attempts to log in. The Retry-After header says in how many seconds the next one is looked at.";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, error).retry_after(delay)
    })?;
    Ok(address)
}

/// `DELETE /console/api/session`: forgets the cookie, and ends what is open by it.
///
/// # Cancel safety
/// It is done at once or not at all.
pub(super) async fn log_out(State(context): State<Arc<Context>>, headers: HeaderMap) -> Response {
    if let Some(token) = token(&headers) {
        context.console.sessions().remove(&token);
    }
    let cookie = format!("{NAME}=; Path=/console; Max-Age=0; HttpOnly; SameSite=Strict");
    ([(SET_COOKIE, cookie)], answer::json("{}")).into_response()
}

/// On what terms somebody is in. A request that lasts has to end with them.
#[derive(Clone, Debug)]
pub(crate) enum Admission {
    /// The console asks for nothing.
    Free,
    Session {
        until: Instant,
        /// Closed when the session ends before.
        alive: watch::Receiver<()>,
    },
}

impl Admission {
    /// Waits until it is over.
    ///
    /// # Cancel safety
    /// It can be asked again.
    pub(super) async fn over(&mut self) {
        match self {
            Self::Free => std::future::pending().await,
            Self::Session { until, alive } => {
                // Nothing is ever sent: it waits for the end.
                let _ =
                    tokio::time::timeout_at((*until).into(), async { while alive.changed().await.is_ok() {} }).await;
            }
        }
    }
}

fn admission(context: &Context, login: Login, headers: &HeaderMap) -> Option<Admission> {
    if login == Login::Nothing {
        return Some(Admission::Free);
    }
    context.console.sessions().find(&token(headers)?, Instant::now())
}

/// Who has logged in.
#[derive(Debug, Default)]
pub(super) struct Sessions(VecDeque<Session>);

#[derive(Debug)]
struct Session {
    /// What is kept of the token does not open the door.
    digest: Digested,
    until: Instant,
    /// Dropped with it, which ends what is open by it.
    alive: watch::Sender<()>,
}

type Digested = [u8; 32];

impl Sessions {
    fn add(&mut self, token: &[u8], now: Instant) {
        if self.0.len() >= MOST_SESSIONS {
            self.0.pop_front();
        }
        let (digest, until) = (Sha256::digest(token).into(), now + LIFE);
        self.0.push_back(Session { digest, until, alive: watch::Sender::new(()) });
    }

    fn find(&mut self, token: &[u8], now: Instant) -> Option<Admission> {
        self.0.retain(|session| session.until > now);
        let digest: Digested = Sha256::digest(token).into();
        let session = self.0.iter().find(|session| session.digest.ct_eq(&digest).into())?;
        Some(Admission::Session { until: session.until, alive: session.alive.subscribe() })
    }

    fn remove(&mut self, token: &[u8]) {
        let digest: Digested = Sha256::digest(token).into();
        self.0.retain(|session| !bool::from(session.digest.ct_eq(&digest)));
    }
}

fn token(headers: &HeaderMap) -> Option<[u8; 32]> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    cookie_value(lines, NAME).and_then(hex::decode)
}

/// The cookie.
const NAME: &str = "taut_console";

/// How long a login lasts.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// Logins at a time; the oldest goes first.
const MOST_SESSIONS: usize = 256;

/// Bytes.
const LARGEST_LOGIN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_its_time_is_over_when_it_is_ended_and_when_there_are_too_many() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let has = |sessions: &mut Sessions, token: &[u8], now| sessions.find(token, now).is_some();
        sessions.add(b"a", now);
        sessions.add(b"b", now);
        assert_eq!(
            [&b"a"[..], b"b", b"c", b""].map(|token| has(&mut sessions, token, now)),
            [true, true, false, false]
        );
        sessions.remove(b"a");
        assert!(!has(&mut sessions, b"a", now) && has(&mut sessions, b"b", now));
        let last = now + LIFE.saturating_sub(Duration::from_secs(1));
        assert!(has(&mut sessions, b"b", last) && !has(&mut sessions, b"b", now + LIFE));
        for number in 0..=MOST_SESSIONS {
            sessions.add(&number.to_be_bytes(), now);
        }
        assert!(!has(&mut sessions, &0_usize.to_be_bytes(), now) && has(&mut sessions, &1_usize.to_be_bytes(), now));
    }

    async fn is_over(admission: &mut Admission) -> bool {
        tokio::time::timeout(Duration::ZERO, admission.over()).await.is_ok()
    }

    async fn ended(admission: &mut Admission) {
        tokio::time::timeout(Duration::from_secs(20), admission.over()).await.expect("an end");
    }

    #[tokio::test]
    async fn what_is_open_by_a_session_ends_with_it_however_that_ends() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let find = |sessions: &mut Sessions, token: &[u8]| sessions.find(token, now).expect("a session");
        sessions.add(b"a", now);
        sessions.add(b"b", now);
        let (mut first, mut again, mut other) =
            (find(&mut sessions, b"a"), find(&mut sessions, b"a"), find(&mut sessions, b"b"));
        assert!(!is_over(&mut first).await && !is_over(&mut other).await);
        sessions.remove(b"a");
        ended(&mut first).await;
        ended(&mut again).await;
        assert!(!is_over(&mut other).await);
        for number in 0..MOST_SESSIONS {
            sessions.add(&number.to_be_bytes(), now);
        }
        ended(&mut other).await;
        let mut expiring = find(&mut sessions, &1_usize.to_be_bytes());
        let Admission::Session { until, .. } = &mut expiring else { panic!("{expiring:?}") };
        assert_eq!(*until, now + LIFE);
        *until = now + Duration::from_millis(10);
        ended(&mut expiring).await;
        assert!(!is_over(&mut Admission::Free).await);
    }

    #[test]
    fn a_token_is_found_among_other_cookies() {
        let headers = |text: &str| HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(text).expect("a header"))]);
        let digits = "00ff".repeat(16);
        assert_eq!(token(&headers(&format!("a=b; taut_console={digits}; c=d"))), hex::decode(&digits));
        for text in [
            String::new(),
            format!("a={digits}"),
            "taut_console=00ff".to_owned(),
            format!("taut_console={}", "xy".repeat(32)),
            format!("taut_console={}", "+f".repeat(32)),
            format!("xtaut_console={digits}"),
        ] {
            assert_eq!(token(&headers(&text)), None, "{text}");
        }
    }
}
