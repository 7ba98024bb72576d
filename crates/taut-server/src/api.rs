//! The HTTP API, the pages and the endpoints for operators. Runs on tokio, apart from the shards.
//!
//! A backend's request passes `signed` (which app, body within limits) and `auth` (signature, status, rate). `inline`
//! answers plain publishes and health checks on the shard that reads them, through the same `auth`; every refusal is
//! left to the HTTP side. `traffic` counts, times and logs each request by its route.

mod asyncapi;
mod auth;
mod channels;
mod chat;
mod connections;
mod console;
mod events;
mod exposition;
mod grip;
mod health;
mod info;
mod inline;
mod listener;
mod metrics;
mod nodes;
mod openapi;
mod pages;
mod route;
mod signed;
mod streams;
mod traffic;
mod users;
mod webhooks;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, any, delete, get, post};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::watch;

use crate::app::Secret;
use crate::apps::App;
use crate::config::{Config, Network};
use crate::connect_auth;
use crate::gateway::Gateway;
use crate::http::Peer;
use crate::http::answer::ApiError;
use crate::http::body;
use crate::limit::TokenBucket;
use crate::node::{Node, NotPublished};
use crate::refusals::{self, RefusalReason};
use crate::tls::Shown;
use crate::transports::{self, Connector, Transports};
use crate::webhooks::Webhooks;
pub(crate) use console::Console;
use console::Login;
#[cfg(feature = "testing")]
pub(crate) use events::testing as events_testing;
pub(crate) use health::Readiness;
use listener::Listener;
use route::{Area, Route};
use traffic::Traffic;

pub(crate) use auth::ApiAuth;
pub(crate) use inline::InlineResponder;

/// What every request may need.
pub(crate) struct Context {
    auth: Arc<ApiAuth>,
    chat_rate: Mutex<TokenBucket>,
    draining: watch::Receiver<bool>,
    readiness: Arc<Readiness>,
    started: Instant,
    metrics_token: Option<Secret>,
    /// From where `X-Forwarded-For` is believed.
    trusted: Box<[Network]>,
    webhooks: Arc<Webhooks>,
    console: Arc<Console>,
    gateway: Arc<Gateway>,
    /// The way of streams to the shards.
    connector: Arc<Connector>,
    grip: grip::Recent,
    /// The engine of the cluster, as it may be shown.
    engine: Option<Box<str>>,
    /// What this node is called.
    node_name: Box<str>,
    /// The certificate that clients are shown, where they connect by TLS.
    certificate: Option<Shown>,
}

impl Context {
    /// `draining` becomes true when the server goes, and `readiness` says so some time before.
    #[expect(clippy::too_many_arguments, reason = "once, as the server starts")]
    pub(crate) fn new(
        auth: Arc<ApiAuth>,
        webhooks: Arc<Webhooks>,
        console: Arc<Console>,
        gateway: Arc<Gateway>,
        connector: Arc<Connector>,
        config: &Config,
        draining: watch::Receiver<bool>,
        readiness: Arc<Readiness>,
        certificate: Option<Shown>,
    ) -> Self {
        let started = Instant::now();
        Self {
            auth,
            chat_rate: Mutex::new(chat::rate(started)),
            draining,
            readiness,
            started,
            metrics_token: config.metrics_token.clone(),
            trusted: config.trusted_proxies.as_slice().into(),
            webhooks,
            console,
            gateway,
            connector,
            grip: grip::Recent::default(),
            engine: config.cluster_address().map(String::into_boxed_str),
            node_name: config.node_name().into(),
            certificate,
        }
    }

    fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    fn node(&self) -> &Node {
        self.auth.node()
    }

    fn path_prefix(&self) -> &str {
        self.auth.path_prefix()
    }

    fn traffic(&self) -> &Traffic {
        self.auth.traffic()
    }

    fn chat_rate(&self) -> MutexGuard<'_, TokenBucket> {
        self.chat_rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the console asks of those who come by this listener; `None` where there is no console.
    fn console_login(&self, listener: Listener) -> Option<Login> {
        self.console.login(listener, self.node().apps())
    }

    /// Counts a request that is not answered, and tells the log.
    fn tell_rejected(&self, head: &Parts, app: Option<&App>, rejected: &auth::Rejected) {
        self.refused(head, app, rejected.reason, &rejected.why);
    }

    fn refused(&self, head: &Parts, app: Option<&App>, reason: RefusalReason, why: &str) {
        app.map_or_else(|| self.node().apps().refusals(), App::refusals).count(reason);
        let address = self.client_address(head);
        refusals::tell(reason, refusals::Client { app: app.map(App::id), address, ..Default::default() }, why);
    }

    /// Whose request it is.
    fn client_address(&self, head: &Parts) -> Option<IpAddr> {
        let Peer(peer) = head.extensions.get()?;
        Some(connect_auth::client_of(*peer, &head.headers, &self.trusted))
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("auth", &self.auth).finish_non_exhaustive()
    }
}

/// The routes, but for files ([`pages`], [`console::PAGES`]), what load balancers ask ([`health::PATHS`]) and clients without
/// WebSockets ([`transports::ROUTES`]). The first is the one that most requests are for.
const ROUTES: [Route; 39] = [
    Route::new(Area::Api, PUBLISH, || post(events::publish)).described(&[openapi::PUBLISH]),
    Route::new(Area::Api, "/apps/{app}/batch_events", || post(events::publish_batch))
        .described(&[openapi::PUBLISH_BATCH]),
    Route::new(Area::Api, "/apps/{app}/channels", || get(channels::list)).described(&[openapi::LIST_CHANNELS]),
    Route::new(Area::Api, "/apps/{app}/channels/{channel}", || get(channels::one)).described(&[openapi::SHOW_CHANNEL]),
    Route::new(Area::Api, "/apps/{app}/channels/{channel}/users", || get(channels::users))
        .described(&[openapi::LIST_USERS]),
    Route::new(Area::Api, "/apps/{app}/connections", || get(users::connections))
        .described(&[openapi::COUNT_CONNECTIONS]),
    Route::new(Area::Api, "/apps/{app}/users/{user}/terminate_connections", || post(users::terminate))
        .described(&[openapi::TERMINATE_USER]),
    // pusher-http-python forgets the app in this path; its key tells which one is meant.
    Route::new(Area::Api, "/users/{user}/terminate_connections", || post(users::terminate))
        .described(&[openapi::TERMINATE_USER_BY_KEY]),
    Route::new(Area::Api, "/apps/{app}/users/{user}/send", || post(connections::send_to_user))
        .described(&[openapi::SEND_TO_USER]),
    Route::new(Area::Api, "/apps/{app}/connections/{connection}", || get(connections::show))
        .described(&[openapi::SHOW_CONNECTION]),
    Route::new(Area::Api, "/apps/{app}/connections/{connection}/send", || post(connections::send))
        .described(&[openapi::SEND_TO_CONNECTION]),
    Route::new(Area::Api, "/apps/{app}/connections/{connection}/close", || post(connections::close))
        .described(&[openapi::CLOSE_CONNECTION]),
    Route::new(Area::Api, "/apps/{app}/grip/publish", || post(grip::publish)).described(&[openapi::PUBLISH_ITEMS]),
    Route::new(Area::Api, "/apps/{app}/grip/publish/", || post(grip::publish)).counted_as("/apps/{app}/grip/publish"),
    // Of the only app that there is.
    Route::new(Area::Api, "/publish", || post(grip::publish)).described(&[openapi::PUBLISH_ITEMS]),
    Route::new(Area::Api, "/publish/", || post(grip::publish)).counted_as("/publish"),
    Route::new(Area::Api, "/users/{user}/send", || post(connections::send_to_user)).described(&[openapi::SEND_TO_USER]),
    Route::new(Area::Api, "/connections/{connection}/send", || post(connections::send))
        .described(&[openapi::SEND_TO_CONNECTION]),
    Route::new(Area::Api, "/connections/{connection}/close", || post(connections::close))
        .described(&[openapi::CLOSE_CONNECTION]),
    // As API Gateway has it.
    Route::new(Area::Api, "/@connections/{connection}", || {
        get(connections::show).post(connections::send).delete(connections::delete)
    })
    .described(&[openapi::SHOW_API_GATEWAY, openapi::SEND_API_GATEWAY, openapi::DELETE_API_GATEWAY]),
    Route::new(Area::Api, "/apps/{app}/webhooks/failed", || get(webhooks::failed))
        .described(&[openapi::LIST_FAILED_WEBHOOKS]),
    Route::new(Area::Api, "/apps/{app}/webhooks/failed/{number}/retry", || post(webhooks::retry))
        .described(&[openapi::RETRY_WEBHOOK]),
    Route::new(Area::Api, "/app/{key}", || get(upgrade_required)).described(&[openapi::CONNECT]),
    Route::new(Area::Chat, "/chat/config", || get(chat::config)),
    Route::new(Area::Chat, "/chat/messages", || post(chat::say)),
    Route::new(Area::Metrics, "/metrics", || get(metrics::show)).described(&[openapi::METRICS]),
    Route::new(Area::Metrics, "/nodes", || get(nodes::show)).described(&[openapi::NODES]),
    Route::new(Area::ConsoleIndex, "/", || get(async || Redirect::to("/console"))),
    Route::new(Area::ConsoleData, "/console/api/overview", || get(console::overview)),
    Route::new(Area::ConsoleData, "/console/api/nodes", || get(nodes::of_console)),
    Route::new(Area::ConsoleData, "/console/api/apps/{app}/channels", || get(console::channels)),
    Route::new(Area::ConsoleData, "/console/api/apps/{app}/channels/{channel}", || get(console::channel)),
    Route::new(Area::ConsoleData, "/console/api/apps/{app}/connections", || get(console::connections)),
    Route::new(Area::ConsoleData, "/console/api/apps/{app}/connections/{socket}", || delete(console::disconnect)),
    Route::new(Area::ConsoleData, "/console/api/apps/{app}/events", || post(console::publish)),
    Route::new(Area::ConsoleData, "/console/api/events", || get(console::watch)),
    Route::new(Area::ConsoleSession, "/console/api/session", console::session),
    Route::new(Area::ConsolePages, "/console/openapi.json", || get(openapi::show)).counted_as("/console"),
    Route::new(Area::ConsolePages, "/console/asyncapi.json", || get(asyncapi::show)).counted_as("/console"),
];

/// Where an event is published, after the prefix.
const PUBLISH: &str = "/apps/{app}/events";

fn all() -> impl Iterator<Item = Route> {
    let probes = health::PATHS.map(|(path, probe)| {
        let handlers: fn() -> MethodRouter<Arc<Context>> = match probe {
            health::Probe::Up => || get(health::up),
            health::Probe::Ready => || get(health::ready),
        };
        let label = health::Check::Probe(probe).route();
        Route::new(Area::Health, path, handlers).counted_as(label).described(openapi::of_probe(path))
    });
    let app = Route::new(Area::Health, "/up/{app}", || get(health::app_up));
    let app = app.counted_as("/up").described(&[openapi::UP_APP]);
    ROUTES.into_iter().chain(probes).chain([app]).chain(pages::ROUTES).chain(console::PAGES)
}

/// Each path with what its requests are counted by.
fn labels() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().map(|route| (route.path, route.label)).chain(transports::ROUTES.map(|(path, _)| (path, path)))
}

/// The routes of an area. There is no other way to add one to a router.
fn area(area: Area, prefix: &str) -> Router<Arc<Context>> {
    all()
        .filter(|route| route.area == area)
        .fold(Router::new(), |router, route| router.route(&format!("{prefix}{}", route.path), (route.handlers)()))
}

/// All that can be asked where clients connect.
pub(crate) fn router(context: &Arc<Context>, fallback: Option<Arc<Transports>>) -> Router {
    let prefix = context.path_prefix();
    let router = fallback
        .map_or_else(Router::new, transports::router)
        .merge(area(Area::Api, prefix))
        .merge(area(Area::Chat, ""))
        .merge(console::router(context));
    finish(router, context, Listener::Clients, BTreeSet::from(["", prefix]))
}

/// What the console's own listener serves.
pub(crate) fn console_router(context: &Arc<Context>) -> Router {
    finish(area(Area::ConsoleIndex, "").merge(console::router(context)), context, Listener::Console, [""])
}

/// What the metrics' own listener serves.
pub(crate) fn metrics_router(context: &Arc<Context>) -> Router {
    finish(Router::new(), context, Listener::Metrics, [""])
}

/// Adds what all listeners have in common. Health is told below the prefix as well: a proxy may pass on nothing else.
fn finish<'p>(
    router: Router<Arc<Context>>,
    context: &Arc<Context>,
    listener: Listener,
    prefixes: impl IntoIterator<Item = &'p str>,
) -> Router {
    let elsewhere = if listener == Listener::Clients { any(streams::serve) } else { any(not_found) };
    prefixes
        .into_iter()
        .fold(router.merge(area(Area::Metrics, "")), |router, prefix| router.merge(area(Area::Health, prefix)))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(elsewhere)
        .layer(from_fn(refuse_encoded))
        .layer(from_fn_with_state(Arc::clone(context), traffic::observe))
        .layer(Extension(listener))
        .with_state(Arc::clone(context))
}

/// A WebSocket would not have come here.
async fn upgrade_required(
    State(context): State<Arc<Context>>,
    request: Request,
) -> ([(HeaderName, &'static str); 2], ApiError) {
    let (head, body) = request.into_parts();
    body::discard(body).await;
    context.refused(&head, None, RefusalReason::Handshake, "no Upgrade header came; a proxy has to pass it on");
    let problem = ApiError::new(
        StatusCode::UPGRADE_REQUIRED,
        "This is where WebSocket clients connect: send an Upgrade: websocket header.",
    );
    // RFC 9110 §7.8: whoever sends Upgrade names it in Connection.
    ([(UPGRADE, "websocket"), (CONNECTION, "upgrade")], problem)
}

/// RFC 9110 §9.3.7: OPTIONS asks which methods there are, which the Allow header says.
async fn method_not_allowed(request: Request) -> Result<StatusCode, ApiError> {
    let is_question = request.method() == Method::OPTIONS;
    body::discard(request.into_body()).await;
    if is_question {
        return Ok(StatusCode::NO_CONTENT);
    }
    let error = "This method is not allowed here; the Allow header says which are.";
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error))
}

/// No SDK compresses what it sends, and a signature is of the bytes that it knows. So a body that something on the way has compressed is
/// refused with words, and not taken for JSON that is broken.
async fn refuse_encoded(request: Request, next: Next) -> Response {
    let is_identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if request.headers().get_all(CONTENT_ENCODING).iter().all(is_identity) {
        return next.run(request).await;
    }
    body::discard(request.into_body()).await;
    let error =
        "The body of the request is compressed, which is not understood here: send it without a Content-Encoding.";
    // RFC 9110 §12.5.3: which encodings would be taken.
    ([(ACCEPT_ENCODING, "identity")], ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error)).into_response()
}

async fn not_found(request: Request) -> ApiError {
    body::discard(request.into_body()).await;
    ApiError::new(StatusCode::NOT_FOUND, "There is nothing at this path.")
}

/// Waits for what the shards are asked, but not for ever.
///
/// # Cancel safety
/// Whatever the question's own future loses is lost: the answer.
async fn asked<T>(question: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(SLOWEST_ANSWER, question).await.map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The server is busy: it found no answer in time. Please try again.",
        )
        .retry_after(Duration::from_secs(1))
    })
}

/// What a backend is told whose events were not published. Only where nothing was delivered it is invited to send them again.
fn not_published(reason: NotPublished) -> ApiError {
    let refused = |error: &'static str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error);
    match reason {
        NotPublished::Busy => refused("The server is busy: its queue is full. Please try again.").retry_after(SOON),
        NotPublished::Away => refused(
            "The engine of the cluster cannot be reached, so the event was delivered nowhere. Please try again.",
        )
        .retry_after(SOON),
        NotPublished::Unknown => refused(
            "The engine of the cluster has failed meanwhile: the event may have been delivered, to all of its subscribers, to some or to none. If it is \
             published again, some may get it twice.",
        ),
    }
}

/// When to try again what was refused for want of time or room.
const SOON: Duration = Duration::from_secs(1);

/// Characters of a peer's own text that an error repeats.
const LONGEST_ECHO: usize = 200;

/// What a peer sent, as far as an error repeats it.
fn echo(text: &str) -> String {
    text.chars().take(LONGEST_ECHO).collect()
}

/// How long a shard may take to answer; it takes microseconds when all is well.
const SLOWEST_ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod testing {
    use std::path::Path;
    use std::{env, fs};

    use serde_json::Value;

    /// A description is the file in docs/: `UPDATE_DOCS=1 cargo test -p taut-server --lib the_file_in_docs` writes it.
    pub(super) fn is_in_docs(path: &Path, document: &Value) {
        let text = format!("{document:#}\n");
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(path, &text).expect("a file in docs");
        }
        let written = fs::read_to_string(path).unwrap_or_default();
        let how = "UPDATE_DOCS=1 cargo test -p taut-server --lib the_file_in_docs";
        assert!(written == text, "{} is not what the code says: {how}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::traffic::OTHER;
    use super::*;

    #[test]
    fn every_route_that_is_served_is_counted_by_a_label() {
        let traffic = Traffic::new(labels());
        for (path, label) in labels() {
            for prefix in ["", "/realtime"] {
                let mounted = format!("{prefix}{path}");
                assert_eq!(traffic.label(Some(&mounted), prefix), label, "{mounted}");
            }
            assert_ne!(label, OTHER, "{path}");
        }
        assert_eq!(traffic.label(None, ""), OTHER);
    }

    #[test]
    fn what_shards_answer_is_counted_as_axum_counts_it() {
        let labels: Vec<_> = labels().collect();
        assert_eq!(labels[0], (PUBLISH, PUBLISH), "publishes are found first");
        for (path, probe) in health::PATHS {
            assert!(labels.contains(&(path, health::Check::Probe(probe).route())), "{path}");
        }
    }
}
