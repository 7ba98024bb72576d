//! Asks backends: each event is a request, of which a backend has only so many at a time.

mod carrier;
mod websocket;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use hyper::body::Bytes;
use taut_shard::ConnectionId;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::carrier::Reply;
use self::carrier::{Carrier, Shown};
use super::auth;
use super::breaker::{self, Breaker};
use super::event::Answer;
use super::grip::{self, SharedKey, Signer};
use super::merge_patch;
use super::over_http::{self, Held};
use super::pattern::Parameters;
use super::pattern::{Conflict, Pattern, Patterns};
use super::plain;
use super::route::{Auth, Backend, Form, Frames, OnError, RouteConfig};
use super::signature::{self, Secret};
use super::statistics::Statistics;
use super::status::{self, EventOutcome, OpenOutcome};
use super::{Asker, Failure, Job, Jobs, Outcome, Transport};
use crate::app;
use crate::apps::{App, Apps};
use crate::http::client::{Client, Unanswered};
use crate::place::ShardIndex;
pub(crate) use websocket::{Dialled, Opened, RelaySettings};

/// The routes that are served, found by path.
#[derive(Debug, Default)]
pub(crate) struct Routes(Patterns<Arc<Route>>);

/// A route while it is served.
#[derive(Debug)]
pub(crate) struct Route {
    config: RouteConfig,
    signing: Signing,
    carrier: Carrier,
    turns: Semaphore,
    /// Of these, for events that nobody waits for: a crowd that goes must not keep out those who come.
    last_turns: Semaphore,
    breaker: Mutex<Breaker>,
    statistics: Statistics,
    began: Instant,
    /// The last event was failed.
    is_failing: AtomicBool,
}

/// What requests are signed with; with none of the route's own, the app's secret signs.
#[derive(Debug)]
enum Signing {
    Plain(Option<Secret>),
    Grip(Option<Signer>),
}

impl Routes {
    /// The routes of a configuration.
    ///
    /// # Errors
    /// What is wrong with one of them, in words.
    pub(crate) fn new(configs: &[RouteConfig]) -> Result<Self, String> {
        let mut patterns = Vec::with_capacity(configs.len());
        for config in configs {
            let pattern = Pattern::parse(&config.path).map_err(|error| format!("route {}: {error}", config.path))?;
            let route = Route::new(config.clone()).map_err(|error| format!("route {}: {error}", config.path))?;
            patterns.push((pattern, Arc::new(route)));
        }
        let same =
            |conflict: Conflict| format!("the routes {} and {} have the same paths", conflict.first, conflict.second);
        let routes = Self(Patterns::new(patterns).map_err(same)?);
        let mut names = HashSet::new();
        if let Some(route) = routes.all().find(|route| !names.insert(route.name())) {
            return Err(format!("two routes have the name {:?}; each needs its own", route.name()));
        }
        Ok(routes)
    }

    /// Whether each route has an app, and that app what the route needs.
    ///
    /// # Errors
    /// Which one lacks what, in words.
    pub(crate) fn check_apps(&self, apps: &Apps) -> Result<(), String> {
        self.0.values().try_for_each(|route| auth::check_app(&route.config, route.app(apps).as_deref()))
    }

    /// The keys of an app's routes that are told by WebSocket-over-HTTP.
    pub(crate) fn publisher_keys(&self, apps: &Apps, app: &App) -> Vec<String> {
        let is_of_app = |route: &&Arc<Route>| route.app(apps).is_some_and(|known| known.index() == app.index());
        let routes = self.0.values().filter(|route| route.publisher_key().is_some()).filter(is_of_app);
        routes.filter_map(|route| route.publisher_key()).map(str::to_owned).collect()
    }

    /// The same routes; those that were served before with the same settings are those of then.
    pub(super) fn keeping(self, before: &Self) -> Self {
        let known =
            |route: Arc<Route>| before.0.values().find(|it| it.config == route.config).cloned().unwrap_or(route);
        Self(self.0.map(known))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Route> {
        self.0.values().map(|route| &**route)
    }

    /// The route with this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Route>> {
        self.0.values().find(|route| route.name() == name)
    }

    pub(crate) fn find(&self, path: &str) -> Option<(Arc<Route>, Parameters)> {
        let (route, params) = self.0.find(path)?;
        Some((Arc::clone(route), params))
    }
}

impl Route {
    fn new(config: RouteConfig) -> Result<Self, String> {
        config.check()?;
        let carrier = Carrier::new(&config.backend)?;
        let secret = config.secret.as_ref().map(app::Secret::reveal);
        let signing = match config.form {
            Form::Plain => Signing::Plain(secret.and_then(|text| Secret::parse(text).ok())),
            Form::WebSocketOverHttp => Signing::Grip(secret.and_then(signer)),
        };
        let turns = Semaphore::new(config.concurrency);
        let last_turns = Semaphore::new(config.concurrency.div_ceil(4));
        let (breaker, statistics) = (Mutex::default(), Statistics::default());
        let (began, is_failing) = (Instant::now(), AtomicBool::new(false));
        Ok(Self { config, signing, carrier, turns, last_turns, breaker, statistics, began, is_failing })
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// The app of its connections: the one that it names, or the only one there is.
    pub(crate) fn app(&self, apps: &Apps) -> Option<Arc<App>> {
        if !self.config.app.is_empty() {
            return apps.by_id(&self.config.app);
        }
        apps.only()
    }

    pub(crate) fn frames(&self) -> Frames {
        self.config.frames
    }

    pub(crate) fn auth(&self) -> Auth {
        self.config.auth
    }

    pub(crate) fn on_error(&self) -> OnError {
        self.config.on_error
    }

    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Whether the backend is left alone for now.
    pub(crate) fn is_breaker_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// Whether the backend has WebSockets of its own, to which messages are passed on.
    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self.config.backend, Backend::WebSocket { .. })
    }

    pub(crate) fn form(&self) -> Form {
        self.config.form
    }

    /// Which paths are its own.
    pub(crate) fn path(&self) -> &str {
        &self.config.path
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Messages of a connection that may go to the backend in one request.
    pub(crate) fn batch(&self) -> usize {
        self.config.batch
    }

    /// Whether the backend gets this header of the client's. What a client accepts matters to its own request alone.
    pub(crate) fn passes(&self, name: &str, transport: Transport) -> bool {
        // PHP makes `a_b`, `a.b` and `a-b` the same name.
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_listed = |known: &String| known == "*" || name.eq_ignore_ascii_case(known);
        let is_own = transport == Transport::Stream && self.config.form == Form::WebSocketOverHttp;
        let is_forwarded = over_http::is_forwarded(name) || is_own && name.eq_ignore_ascii_case("accept");
        is_plain && is_forwarded && self.config.headers.iter().any(is_listed)
    }

    /// The key that publishers may sign with, if the backend is told by WebSocket-over-HTTP.
    pub(crate) fn publisher_key(&self) -> Option<&str> {
        let secret = self.config.secret.as_ref().filter(|_| self.config.form == Form::WebSocketOverHttp);
        secret.map(app::Secret::reveal)
    }
}

/// Takes events to backends and tells what has come of each, for as long as the runtime lives. `ring` is told for whom a
/// backend with WebSockets has sent something.
///
/// # Cancel safety
/// Dropping it drops the requests that are under way, and the backends' WebSockets.
pub(crate) async fn serve<F, R>(jobs: Jobs, client: Client, relays: RelaySettings, tell: F, ring: R)
where
    F: Fn(Asker, Outcome) + Send + Sync + 'static,
    R: Fn(ShardIndex, ConnectionId) + Send + Sync + 'static,
{
    let Jobs(mut jobs) = jobs;
    let shared = Arc::new((client, relays, tell, ring));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            job = jobs.recv() => {
                let Some(mut job) = job else { break };
                if let Some(relay) = job.relay.take() {
                    relay.give(job);
                    continue;
                }
                let shared = Arc::clone(&shared);
                running.spawn(async move {
                    let (client, relays, tell, ring) = &*shared;
                    if job.route.is_relayed() {
                        return job.relay(relays, tell, ring).await;
                    }
                    let outcome = job.run(client).await;
                    tell(job.asker, outcome);
                });
            }
            Some(_) = running.join_next() => {}
        }
    }
}

impl Job {
    /// Asks, and counts what has come of it.
    async fn run(&self, client: &Client) -> Outcome {
        let began = Instant::now();
        let under_way = self.route.statistics.under_way();
        let outcome = self.ask(client).await;
        drop(under_way);
        self.route.statistics.record(&outcome, began.elapsed());
        outcome
    }

    /// Asks until there is an answer, or the time is over.
    async fn ask(&self, client: &Client) -> Outcome {
        let deadline = Instant::now() + self.patience();
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        loop {
            let outcome = self.attempt(attempt, deadline, client).await;
            // Not all at once.
            let wait = match outcome {
                Attempt::Done(outcome) => return outcome,
                Attempt::Again { after } => after.unwrap_or_else(|| pause.min(LONGEST_PAUSE)),
                Attempt::Unsure => pause,
            };
            if Instant::now() + wait >= deadline {
                return Outcome::Failed(Failure::Busy);
            }
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_UNSURE_PAUSE);
            attempt += 1;
        }
    }

    /// For how long it is tried to have an answer.
    fn patience(&self) -> Duration {
        if self.exchange.is_close() { LONGEST_CLOSE } else { self.route.config.timeout }
    }

    /// Waits for this event's turn.
    async fn turn(&self) -> (Option<SemaphorePermit<'_>>, Option<SemaphorePermit<'_>>) {
        // They are never closed.
        let last = if self.exchange.is_close() { self.route.last_turns.acquire().await.ok() } else { None };
        (last, self.route.turns.acquire().await.ok())
    }

    async fn attempt(&self, attempt: u32, deadline: Instant, client: &Client) -> Attempt {
        let route = &self.route;
        let until = deadline.min(Instant::now() + route.config.timeout);
        let Ok(_turn) = timeout_at(until, self.turn()).await else { return Attempt::Again { after: None } };
        // Nobody waits for these, and a request that is given up before it has left would be lost.
        let until = if self.exchange.is_close() { deadline.min(Instant::now() + route.config.timeout) } else { until };
        let permit = match route.breaker().admit(route.began.elapsed()) {
            Ok(permit) => permit,
            // New clients are refused at once, and try again by themselves.
            Err(_) if self.exchange.is_open() => return Attempt::Done(Outcome::Failed(Failure::Busy)),
            Err(open) => return Attempt::Again { after: Some(open.remaining.max(FIRST_PAUSE)) },
        };
        let request = self.request(attempt);
        let carrier::Sent { replied, .. } = route.carrier.send(client, &self.head, &request, until).await;
        let health = match &replied {
            Ok(reply) => breaker::Outcome::of_status(reply.status, reply.header("retry-after").is_some()),
            Err(_) => breaker::Outcome::Failed,
        };
        route.breaker().record(&permit, health, route.began.elapsed(), random);
        let Judged { attempt, note } = self.judge(&replied, until, deadline);
        route.note(&note);
        attempt
    }

    /// Asks once, whatever the breaker says, and without a turn. The log is told nothing.
    pub(crate) async fn try_once(&self, client: &Client) -> Tried {
        let deadline = Instant::now() + self.patience();
        let until = deadline.min(Instant::now() + self.route.config.timeout);
        let request = self.request(1);
        let began = Instant::now();
        let carrier::Sent { replied, stderr } = self.route.carrier.send(client, &self.head, &request, until).await;
        let took = began.elapsed();
        let judged = self.judge(&replied, until, deadline);
        let (shown, stderr) = (self.route.carrier.show(&self.head, request), stderr.text().into_owned());
        Tried { shown, replied, stderr, took, judged }
    }

    /// What comes of a request, and what the log is told.
    fn judge(&self, replied: &Result<Reply, Unanswered>, until: Instant, deadline: Instant) -> Judged {
        let unanswered = match replied {
            Ok(reply) => return self.read(reply, deadline),
            Err(unanswered) => unanswered,
        };
        // Clients that are to come back later do that by themselves, and need not wait here.
        let is_open = self.exchange.is_open();
        let attempt = match unanswered.is_untouched {
            true if is_open => Attempt::Done(Outcome::Failed(Failure::Busy)),
            true => Attempt::Again { after: None },
            false if self.exchange.is_close() => Attempt::Unsure,
            false if Instant::now() >= until => Attempt::Done(Outcome::Failed(Failure::Late)),
            false => Attempt::Done(Outcome::Failed(Failure::Broken)),
        };
        Judged { attempt, note: Note::Failed(unanswered.reason.as_str().into()) }
    }

    /// What the backend is told.
    fn request(&self, attempt: u32) -> carrier::Request {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match &self.route.signing {
            Signing::Plain(secret) => self.plain_request(attempt, secret.as_ref(), timestamp),
            Signing::Grip(signer) => self.grip_request(signer.as_ref(), timestamp),
        }
    }

    fn plain_request(&self, attempt: u32, secret: Option<&Secret>, timestamp: u64) -> carrier::Request {
        let (route, head, exchange) = (&*self.route, &*self.head, &self.exchange);
        let id = self.connection.to_string();
        let headers: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (&**name, value.as_bytes())).collect();
        let protocols: Vec<&str> = head.protocols.iter().map(|name| &**name).collect();
        let address = head.address.to_string();
        let connection = plain::Connection {
            id: &id,
            route: route.name(),
            params: &head.params,
            path: &head.path,
            user: exchange.kept.user.as_ref(),
            meta: &exchange.kept.meta,
            upgrade: plain::Upgrade {
                query: &head.query,
                headers: &headers,
                address: &address,
                protocols: &protocols,
                is_secure: head.is_secure,
                transport: head.transport.name(),
            },
        };
        let body = plain::write(&connection, &exchange.events, route.config.batch > 1, exchange.seq, attempt);
        let secret = secret.cloned().unwrap_or_else(|| Secret::of(&self.app_secret()));
        let id = signature::event_id(&id, exchange.seq);
        let signature = signature::sign(&[secret], &id, timestamp, &body);
        let headers = [
            ("Webhook-Id", id.clone()),
            ("Idempotency-Key", id),
            ("Webhook-Timestamp", timestamp.to_string()),
            ("Webhook-Signature", signature),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        carrier::Request {
            method: Method::POST,
            body: body.into(),
            content_type: Some("application/json"),
            headers,
            is_for_path: false,
        }
    }

    fn grip_request(&self, own: Option<&Signer>, timestamp: u64) -> carrier::Request {
        let apps = own.is_none().then(|| signer(&self.app_secret())).flatten();
        let token = own.or(apps.as_ref()).map(|signer| signer.token(timestamp)).unwrap_or_default();
        if self.is_clients_own() {
            let (method, headers) = (Method::GET, over_http::fields_of_own(token, &self.exchange.kept.meta));
            return carrier::Request { method, body: Bytes::new(), content_type: None, headers, is_for_path: true };
        }
        let headers = over_http::fields(&self.connection.to_string(), token, &self.exchange.kept.meta);
        let body = over_http::write(&self.exchange.events).into();
        carrier::Request { method: Method::POST, body, content_type: Some(grip::EVENTS), headers, is_for_path: true }
    }

    /// Whether the backend gets the client's own request and not an event: GRIP holds the responses to those.
    fn is_clients_own(&self) -> bool {
        self.head.transport == Transport::Stream && self.route.config.form == Form::WebSocketOverHttp
    }

    fn app_secret(&self) -> String {
        self.app.snapshot().config.key().secret.reveal().to_owned()
    }

    fn read(&self, reply: &Reply, deadline: Instant) -> Judged {
        let headers = reply.pairs();
        let response = status::Response { status: reply.status, headers: &headers, body: &reply.body };
        if self.is_clients_own() {
            return self.held(reply);
        }
        if self.exchange.is_open() {
            return match OpenOutcome::of(&response) {
                OpenOutcome::Accept => self.answer(reply),
                OpenOutcome::Refuse(refusal) => Judged::done(Outcome::Refused(refusal.into())),
                OpenOutcome::Unavailable { retry_after } => {
                    Judged::done(Outcome::Refused(status::unavailable(retry_after.as_deref())))
                }
                OpenOutcome::BadGateway => Judged::failed(Failure::Broken, answered(reply.status)),
            };
        }
        // Who answers for a backend that is away.
        if self.exchange.is_close() && matches!(reply.status, 502..=504) && reply.header("retry-after").is_none() {
            return Judged { attempt: Attempt::Unsure, note: Note::Failed(answered(reply.status).into()) };
        }
        // Libraries of GRIP answer the end of a connection with an error, because nothing can be read any more.
        if self.exchange.is_close() && self.route.config.form == Form::WebSocketOverHttp {
            return Judged::done(Outcome::Answered(Box::default()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match EventOutcome::of(&response, SystemTime::now(), left) {
            EventOutcome::CarryOut => self.answer(reply),
            EventOutcome::Again(after) => {
                Judged { attempt: Attempt::Again { after: Some(after) }, note: Note::Nothing }
            }
            EventOutcome::Failed(failure) => Judged::failed(failure, answered(reply.status)),
        }
    }

    /// What the backend wants done with the client's own request.
    fn held(&self, reply: &Reply) -> Judged {
        let headers = reply.pairs();
        let response = over_http::Response { status: reply.status, headers: &headers, body: &reply.body };
        let outcome = match over_http::read_held(&response) {
            Ok(Held::Stream(mut answer)) => {
                self.complete(&mut answer);
                Outcome::Answered(answer)
            }
            Ok(Held::Whole(response)) => Outcome::Passed(response),
            Err(error) => return Judged::failed(Failure::Broken, error),
        };
        let note =
            if reply.status < 500 { Note::Answered(Vec::new()) } else { Note::Failed(answered(reply.status).into()) };
        Judged { attempt: Attempt::Done(outcome), note }
    }

    /// Adds to an answer to [`Event::Open`](super::event::Event::Open) what the server knows.
    fn complete(&self, answer: &mut Answer) {
        auth::complete(answer, self.route.auth(), self.exchange.kept.user.as_ref(), &self.head.protocols);
    }

    /// What the backend wants done, checked as a whole.
    fn answer(&self, reply: &Reply) -> Judged {
        let (mut answer, warnings) = match self.read_form(reply) {
            Ok(read) => read,
            Err(error) => return Judged::failed(Failure::Broken, error),
        };
        if self.exchange.is_open() {
            self.complete(&mut answer);
        }
        if let Some(patch) = answer.meta.take() {
            let mut meta = self.exchange.kept.meta.clone();
            if let Err(error) = merge_patch::apply(&mut meta, patch, &merge_patch::Bounds::default()) {
                return Judged::failed(Failure::Broken, error.to_string());
            }
            answer.meta = Some(meta);
        }
        Judged { attempt: Attempt::Done(Outcome::Answered(Box::new(answer))), note: Note::Answered(warnings) }
    }

    fn read_form(&self, reply: &Reply) -> Result<(Answer, Vec<Box<str>>), Box<str>> {
        let protocols: Vec<&str> = self.head.protocols.iter().map(|name| &**name).collect();
        let (is_open, kept) = (self.exchange.is_open(), &self.exchange.kept);
        let is_empty_enough = self.route.auth() != Auth::Backend;
        match self.route.config.form {
            Form::Plain => {
                let to = if is_open {
                    plain::AnswerTo::Open { protocols: &protocols, is_empty_enough }
                } else {
                    plain::AnswerTo::Event
                };
                let content_type = reply.header("content-type");
                let response = plain::Response { status: reply.status, content_type, body: &reply.body };
                let user_id = self.app.snapshot().limits.user_id;
                let limits = plain::Limits { user_id, ..plain::Limits::default() };
                plain::read(&response, to, &limits).map_err(|error| error.to_string().into())
            }
            Form::WebSocketOverHttp => {
                let to = if is_open {
                    over_http::To::Open { protocols: &protocols, is_empty_enough }
                } else {
                    over_http::To::Later(kept.grip.as_ref())
                };
                let headers = reply.pairs();
                let response = over_http::Response { status: reply.status, headers: &headers, body: &reply.body };
                over_http::read(&response, to, &kept.meta)
            }
        }
    }
}

/// One request, and all that has come of it.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) shown: Shown,
    pub(crate) replied: Result<Reply, Unanswered>,
    /// What a script has written to its error log.
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    pub(crate) judged: Judged,
}

/// What comes of one request, and what the log is told of it.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) attempt: Attempt,
    pub(crate) note: Note,
}

/// What the log is told of one request.
#[derive(Debug)]
pub(crate) enum Note {
    Nothing,
    /// Why there is no answer that can be carried out.
    Failed(Box<str>),
    /// What of the answer was left out.
    Answered(Vec<Box<str>>),
}

impl Judged {
    fn done(outcome: Outcome) -> Self {
        Self { attempt: Attempt::Done(outcome), note: Note::Nothing }
    }

    fn outcome(self) -> Outcome {
        match self.attempt {
            Attempt::Done(outcome) => outcome,
            Attempt::Again { .. } | Attempt::Unsure => Outcome::Failed(Failure::Busy),
        }
    }

    fn failed(failure: Failure, why: impl Into<Box<str>>) -> Self {
        Self { attempt: Attempt::Done(Outcome::Failed(failure)), note: Note::Failed(why.into()) }
    }
}

/// What has come of one request.
#[derive(Debug)]
pub(crate) enum Attempt {
    Done(Outcome),
    /// It was not accepted: it may be sent again, then.
    Again {
        after: Option<Duration>,
    },
    /// Nobody knows whether it was accepted. The end of a connection is told again, so that it is told at least once.
    Unsure,
}

impl Route {
    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: &Note) {
        match note {
            Note::Nothing => {}
            Note::Failed(why) => self.note_failure(why),
            Note::Answered(warnings) => {
                for warning in warnings {
                    tracing::warn!(route = self.name(), %warning, "part of a backend's answer was left out");
                }
                self.note_success();
            }
        }
    }

    /// Says when it begins to go wrong: strangers may cause an event each, but no line of the log.
    fn note_failure(&self, why: &str) {
        if self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(route = self.name(), why, "the backend does not answer an event");
        } else {
            tracing::warn!(
                route = self.name(),
                why,
                "the backend does not answer an event; further ones are logged at debug"
            );
        }
    }

    fn note_success(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(route = self.name(), "the backend answers again");
        }
    }
}

fn signer(secret: &str) -> Option<Signer> {
    SharedKey::parse(secret).map(|key| Signer::new("taut", key))
}

/// What the log is told: the status alone, since the body is whoever's.
fn answered(status: u16) -> String {
    let name = StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |status| status.to_string());
    format!("the answer was {name}")
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// Between two attempts at an event that was not accepted.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The same if it may have been accepted: each time may be work for the backend.
const LONGEST_UNSURE_PAUSE: Duration = Duration::from_secs(60);

/// For how long a backend that is away is tried to be told that a connection has ended.
const LONGEST_CLOSE: Duration = Duration::from_secs(5 * 60);
