//! For load balancers: whether this server is there, and whether it should get more to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{RawPathParams, State};
use axum::response::Response;
use http::StatusCode;
use httpdate::HttpDate;
use taut_proto::handshake::{Framing, Request};

use super::{Context, echo};
use crate::cluster;
use crate::http::answer::{self, ApiError};
use crate::node::Node;

/// Whether load balancers may send more to this server, and whether there are any that ask.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    asked: Mutex<Asked>,
    needs_engine: bool,
}

#[derive(Debug, Default)]
struct Asked {
    is_leaving: bool,
    last: Option<Instant>,
}

impl Readiness {
    /// `needs_engine` says whether a node that is not joined to its cluster is not ready.
    pub(crate) fn new(needs_engine: bool) -> Self {
        Self { asked: Mutex::default(), needs_engine }
    }

    /// From now on there is no more to be sent here.
    pub(crate) fn leave(&self) {
        self.asked(|asked| asked.is_leaving = true);
    }

    /// When somebody has asked for the last time.
    pub(crate) fn last_asked(&self) -> Option<Instant> {
        self.asked(|asked| asked.last)
    }

    /// Somebody asks.
    fn is_leaving(&self, now: Instant) -> bool {
        self.asked(|asked| {
            asked.last = Some(now);
            asked.is_leaving
        })
    }

    fn asked<T>(&self, act: impl FnOnce(&mut Asked) -> T) -> T {
        act(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this server takes clients and publishers, or why not. Asks nobody: it costs the same whatever there is to do.
    pub(crate) fn check(&self, node: &Node, is_draining: bool, now: Instant) -> Result<(), &'static str> {
        if self.is_leaving(now) || is_draining {
            return Err("The server is going down.");
        }
        if node.is_overloaded() {
            return Err("The server is busy: its queue is full.");
        }
        let is_away = |state: cluster::State| state.phase != cluster::Phase::Joined;
        if self.needs_engine && node.cluster().is_some_and(is_away) {
            return Err("The engine of the cluster cannot be reached.");
        }
        // Every event loop takes part in the answer.
        if node.is_stuck(now, LONGEST_SILENCE) {
            return Err("The server is busy: an event loop did not answer in time.");
        }
        Ok(())
    }
}

/// What a load balancer may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Is this server there?
    Up,
    /// Should it get more to do?
    Ready,
}

/// Where it may ask, with and without the prefix: by our names, and by those that it knows from other servers.
pub(crate) const PATHS: [(&str, Probe); 4] = [
    ("/up", Probe::Up),
    // Sockudo's.
    ("/live", Probe::Up),
    ("/ready", Probe::Ready),
    // Soketi's.
    ("/accept-traffic", Probe::Ready),
];

/// `GET /up`: this server is there.
pub(crate) async fn up() -> Response {
    answer::json(UP)
}

/// `GET /up/ID`: this server is there, and serves the app.
pub(crate) async fn app_up(State(context): State<Arc<Context>>, path: RawPathParams) -> Result<Response, ApiError> {
    let id = path.iter().find(|(name, _)| *name == "app").map_or("", |(_, id)| id);
    check_app(context.node(), id).map_err(|error| ApiError::new(StatusCode::NOT_FOUND, error))?;
    Ok(answer::json(UP))
}

/// Whether clients of the app with this id are let in, or why not.
fn check_app(node: &Node, id: &str) -> Result<(), String> {
    match node.apps().by_id(id) {
        Some(app) if app.snapshot().config.enabled => Ok(()),
        Some(_) => Err(format!("The app {} is disabled.", echo(id))),
        None => Err(format!("The app {} could not be found.", echo(id))),
    }
}

/// `GET /ready`: this server takes clients and publishers. 503 while it is going, or has more to do than it can.
pub(crate) async fn ready(State(context): State<Arc<Context>>) -> Result<Response, ApiError> {
    context
        .readiness
        .check(context.node(), context.is_draining(), Instant::now())
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error).retry_after(Duration::from_secs(1)))?;
    Ok(answer::json(READY))
}

/// A request of a load balancer's that is answered where it arrives, on a shard, whatever else there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check<'r> {
    Probe(Probe),
    AppConfig(&'r str),
}

impl<'r> Check<'r> {
    /// What the request asks, if it is such a one and is easily read.
    pub(super) fn of(request: &Request<'r>, prefix: &str) -> Option<Self> {
        let is_plain =
            request.framing() == Framing::Length(0) && matches!(request.method(), "GET" | "HEAD" | "OPTIONS");
        if !is_plain {
            return None;
        }
        let check = |path: &'r str| match path.strip_prefix("/up/") {
            Some(id) => (!id.is_empty() && !id.contains(['/', '%'])).then_some(Self::AppConfig(id)),
            None => PATHS.iter().find(|(known, _)| *known == path).map(|(_, probe)| Self::Probe(*probe)),
        };
        check(request.path()).or_else(|| check(request.path().strip_prefix(prefix)?))
    }

    /// Under which name it is counted.
    pub(super) fn route(self) -> &'static str {
        match self {
            Self::Probe(Probe::Ready) => "/ready",
            Self::Probe(Probe::Up) | Self::AppConfig(_) => "/up",
        }
    }

    /// Writes the response; gives its status.
    pub(super) fn answer(
        self,
        request: &Request<'_>,
        result: Result<(), (StatusCode, String)>,
        is_last: bool,
        now: SystemTime,
        response: &mut Vec<u8>,
    ) -> StatusCode {
        let (status, body, more) = match (request.method(), result) {
            ("OPTIONS", _) => (StatusCode::NO_CONTENT, String::new(), "allow: GET, HEAD, OPTIONS\r\n"),
            (_, Ok(())) if self == Self::Probe(Probe::Ready) => (StatusCode::OK, READY.to_owned(), JSON),
            (_, Ok(())) => (StatusCode::OK, UP.to_owned(), JSON),
            (_, Err((StatusCode::SERVICE_UNAVAILABLE, error))) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                (status, answer::problem(status, &error), "content-type: application/json\r\nretry-after: 1\r\n")
            }
            (_, Err((status, error))) => (status, answer::problem(status, &error), JSON),
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let connection = match (is_last, request.is_http_1_1()) {
            (true, _) => "connection: close\r\n",
            // RFC 9112 §9.3: a client of HTTP/1.0 has to be told.
            (false, false) => "connection: keep-alive\r\n",
            (false, true) => "",
        };
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let date = HttpDate::from(now);
        let head = format!("HTTP/1.1 {} {reason}\r\n{more}{length}{connection}date: {date}\r\n\r\n", status.as_str());
        response.extend_from_slice(head.as_bytes());
        if request.method() != "HEAD" {
            response.extend_from_slice(body.as_bytes());
        }
        status
    }

    /// What there is to be told.
    pub(super) fn result(
        self,
        readiness: &Readiness,
        node: &Node,
        is_draining: bool,
    ) -> Result<(), (StatusCode, String)> {
        match self {
            Self::Probe(Probe::Up) => Ok(()),
            Self::Probe(Probe::Ready) => readiness
                .check(node, is_draining, Instant::now())
                .map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_owned())),
            Self::AppConfig(id) => check_app(node, id).map_err(|error| (StatusCode::NOT_FOUND, error)),
        }
    }
}

const UP: &str = r#"{"health":"OK"}"#;
const READY: &str = r#"{"ready":true}"#;
const JSON: &str = "content-type: application/json\r\n";

/// An event loop that has taken no tick for so long, of which there is one a second, should get no more to do.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
